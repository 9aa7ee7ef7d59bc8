/* Drivers of heatmap, overlay and guided: they walk the rows of the destination. */
#include <stdlib.h>
#include <string.h>

#include "lines.h"
#include "pool.h"

/* A map that is being brought to the destination's columns. */
typedef struct {
    const gcpp_rows *rows;
    const gcpp_map *map;
    float *normal; /* the map, low to high as 0 to 1 */
    gcpp_columns columns;
    int32_t threads, bands;
    float *lines; /* of every thread: two widened rows, and a whole row of results, floats or bytes */
    size_t line_floats;
} upsampler;

/* Neighbouring rows of the destination, done by one thread. */
typedef struct {
    const upsampler *map;
    gcpp_line_pair lines;
    float *row; /* of results */
    int32_t start, stop;
} band;

/* Normalised while it is small, and in double: high - low may be so small that its inverse overflows a float. */
static void normalise(const gcpp_map *map, float *normal)
{
    const size_t count = (size_t)map->height * (size_t)map->width;
    const int has_range = map->high > map->low;
    for (size_t i = 0; i < count; i++)
        normal[i] = has_range ? (float)((map->values[i] - map->low) / (map->high - map->low)) : 0;
}

/* For a destination that is `width` wide; `bytes` are read and written in all. */
static int upsampler_open(upsampler *self, const gcpp_rows *rows, int32_t threads, const gcpp_map *map, int32_t width,
                          size_t bytes)
{
    const int32_t seen = map->columns.stop - map->columns.start;
    const size_t map_floats = (size_t)map->height * (size_t)map->width;
    self->threads = gcpp_useful_threads(threads, bytes);
    self->bands = gcpp_parts_for(self->threads);
    self->line_floats = 2 * (size_t)seen + (size_t)width;
    const size_t floats = map_floats + (size_t)self->threads * self->line_floats;
    char *const scratch = malloc(gcpp_columns_bytes(seen, 0) + floats * sizeof(float) + 1);
    if (!scratch)
        return GCPP_NO_MEMORY;
    self->rows = rows;
    self->map = map;
    self->columns = gcpp_columns_of(&map->columns, map->width, 0, scratch);
    self->normal = (float *)(void *)(scratch + gcpp_columns_bytes(seen, 0));
    self->lines = self->normal + map_floats;
    normalise(map, self->normal);
    return GCPP_OK;
}

static void upsampler_close(upsampler *self)
{
    free((void *)self->columns.first); /* the head of the scratch block */
}

/* Band `part` of a destination of so many rows, with the scratch of thread `slot`. */
static band band_of(const upsampler *self, int32_t part, int32_t slot, int32_t height)
{
    const size_t seen = (size_t)self->columns.count;
    float *const lines = self->lines + (size_t)slot * self->line_floats;
    return (band){self, {{-1, -1}, {lines, lines + seen}}, lines + 2 * seen,
                  gcpp_part_start(part, self->bands, height), gcpp_part_start(part + 1, self->bands, height)};
}

static void widen_map_row(const void *context, int32_t index, float *row)
{
    const upsampler *const self = context;
    self->rows->widen_f32(self->normal + (size_t)index * (size_t)self->map->width, &self->columns, row);
}

static int is_seen(const upsampler *self, int32_t y)
{
    return y >= self->map->rows.start && y < self->map->rows.stop;
}

/* The two widened rows for destination row y, and the share of the second. */
static float band_load(band *self, int32_t y, const float **upper, const float **lower)
{
    const gcpp_map *const map = self->map->map;
    const gcpp_taps taps = gcpp_taps_at(&map->rows, y, map->height);
    gcpp_line_pair_load(&self->lines, taps, widen_map_row, self->map);
    *upper = self->lines.row[0];
    *lower = self->lines.row[taps.second != taps.first];
    return taps.share;
}

static void values_f32(band *self, int32_t y, float *out)
{
    const float *upper, *lower;
    const float share = band_load(self, y, &upper, &lower);
    self->map->rows->value_f32(upper, lower, share, out, self->map->columns.count);
}

static void values_u8(band *self, int32_t y, uint8_t *out)
{
    const float *upper, *lower;
    const float share = band_load(self, y, &upper, &lower);
    self->map->rows->value_u8(upper, lower, share, out, self->map->columns.count);
}

typedef struct {
    upsampler map;
    void *out;
    gcpp_dtype dtype;
    int32_t height, width;
} heatmap_call;

static void heatmap_band(void *context, int32_t part, int32_t slot)
{
    const heatmap_call *const call = context;
    const gcpp_map *const map = call->map.map;
    const size_t element = call->dtype == GCPP_FLOAT32 ? sizeof(float) : 1;
    const size_t start = (size_t)map->columns.start * element, stop = (size_t)map->columns.stop * element;
    const size_t row_bytes = (size_t)call->width * element;
    band self = band_of(&call->map, part, slot, call->height);
    for (int32_t y = self.start; y < self.stop; y++) {
        char *const row = (char *)call->out + (size_t)y * row_bytes;
        if (!is_seen(&call->map, y)) {
            memset(row, 0, row_bytes);
            continue;
        }
        memset(row, 0, start);
        if (call->dtype == GCPP_FLOAT32)
            values_f32(&self, y, (float *)(void *)(row + start));
        else
            values_u8(&self, y, (uint8_t *)row + start);
        memset(row + stop, 0, row_bytes - stop);
    }
}

int gcpp_heatmap(const gcpp_rows *rows, int32_t threads, const gcpp_map *map, void *out, gcpp_dtype dtype,
                 int32_t height, int32_t width)
{
    heatmap_call call = {.out = out, .dtype = dtype, .height = height, .width = width};
    const size_t bytes = (size_t)height * (size_t)width * (dtype == GCPP_FLOAT32 ? sizeof(float) : 1);
    if (upsampler_open(&call.map, rows, threads, map, width, bytes) != GCPP_OK)
        return GCPP_NO_MEMORY;
    gcpp_in_parts(call.map.threads, call.map.bands, heatmap_band, &call);
    upsampler_close(&call.map);
    return GCPP_OK;
}

static void set_color(gcpp_palette *palette, int index, int channel, int32_t part)
{
    palette->colors[index].channel[channel] = (uint16_t)part;
    palette->bytes[channel][0][index] = (uint8_t)part;
    palette->bytes[channel][1][index] = (uint8_t)(part >> 8);
}

/* The palette's part of the blend, once a call instead of once a pixel. `colors`: 256 x 3, or NULL for black. */
static void weigh_palette(const uint8_t *colors, int32_t share, gcpp_palette *palette)
{
    for (int i = 0; i < 256; i++) {
        for (int c = 0; c < 3; c++)
            set_color(palette, i, c, colors ? gcpp_palette_part(colors[3 * i + c], share) : GCPP_HALF);
        palette->colors[i].channel[3] = GCPP_HALF;
    }
}

/* Where one row of a picture comes from and goes to, in pixels. */
typedef struct {
    const gcpp_rows *rows;
    const uint8_t *frame;
    uint8_t *out;
    int32_t channels;
} picture_row;

static void blend_pixels(const picture_row *row, int32_t start, int32_t stop, const uint8_t *index,
                         const gcpp_palette *palette, int32_t keep)
{
    const ptrdiff_t first = (ptrdiff_t)start * row->channels;
    if (start < stop)
        row->rows->blend_u8(row->frame + first, row->channels, index, palette->colors, keep, row->out + first,
                            stop - start);
}

enum { DIM_RUN = 2048 };

/* Unseen pixels: blended with black. */
static void dim_pixels(const picture_row *row, int32_t start, int32_t stop, const gcpp_palette *black, int32_t keep)
{
    static const uint8_t index[DIM_RUN] = {0};
    for (; start < stop; start += DIM_RUN)
        blend_pixels(row, start, stop - start < DIM_RUN ? stop : start + DIM_RUN, index, black, keep);
}

/* A share in [0, 1] as 16-bit fixed point. */
static int32_t fixed_point(double share)
{
    return (int32_t)(share * GCPP_ONE + 0.5);
}

typedef struct {
    upsampler map;
    const gcpp_picture *frame, *out;
    gcpp_palette colors, black;
    int32_t keep, keep_unseen;
} overlay_call;

static void overlay_band(void *context, int32_t part, int32_t slot)
{
    const overlay_call *const call = context;
    const gcpp_picture *const frame = call->frame, *const out = call->out;
    const gcpp_axis *const columns = &call->map.map->columns;
    band self = band_of(&call->map, part, slot, frame->height);
    for (int32_t y = self.start; y < self.stop; y++) {
        const picture_row row = {call->map.rows, frame->pixels + y * frame->row_stride_bytes,
                                 out->pixels + y * out->row_stride_bytes, frame->channels};
        if (!is_seen(&call->map, y)) {
            dim_pixels(&row, 0, frame->width, &call->black, call->keep_unseen);
            continue;
        }
        uint8_t *const index = (uint8_t *)self.row;
        values_u8(&self, y, index);
        dim_pixels(&row, 0, columns->start, &call->black, call->keep_unseen);
        blend_pixels(&row, columns->start, columns->stop, index, &call->colors, call->keep);
        dim_pixels(&row, columns->stop, frame->width, &call->black, call->keep_unseen);
    }
}

int gcpp_overlay(const gcpp_rows *rows, int32_t threads, const gcpp_map *map, const gcpp_picture *frame,
                 const uint8_t *palette, double alpha, double dim, const gcpp_picture *out)
{
    overlay_call call = {.frame = frame, .out = out, .keep = fixed_point(1 - alpha), .keep_unseen = fixed_point(dim)};
    const size_t bytes = 2 * (size_t)frame->height * (size_t)frame->width * (size_t)frame->channels;
    if (upsampler_open(&call.map, rows, threads, map, frame->width, bytes) != GCPP_OK)
        return GCPP_NO_MEMORY;
    weigh_palette(palette, GCPP_ONE - call.keep, &call.colors);
    weigh_palette(NULL, 0, &call.black);
    gcpp_in_parts(call.map.threads, call.map.bands, overlay_band, &call);
    upsampler_close(&call.map);
    return GCPP_OK;
}

typedef struct {
    upsampler map;
    const char *image;
    size_t element; /* of the image, in bytes */
    gcpp_multiply multiply;
    float *out;
    int32_t channels, height, width;
} guided_call;

static void guided_band(void *context, int32_t part, int32_t slot)
{
    const guided_call *const call = context;
    const size_t width = (size_t)call->width, plane = (size_t)call->height * width;
    const gcpp_axis *const columns = &call->map.map->columns;
    band self = band_of(&call->map, part, slot, call->height);
    memset(self.row, 0, width * sizeof(float)); /* unseen columns stay 0 */
    for (int32_t y = self.start; y < self.stop; y++) {
        if (is_seen(&call->map, y))
            values_f32(&self, y, self.row + columns->start);
        else
            memset(self.row, 0, width * sizeof(float));
        for (size_t c = 0; c < (size_t)call->channels; c++) {
            const size_t first = c * plane + (size_t)y * width;
            call->multiply(self.row, call->image + first * call->element, call->out + first, call->width);
        }
    }
}

int gcpp_guided(const gcpp_rows *rows, int32_t threads, const gcpp_map *map, const void *image, gcpp_dtype image_dtype,
                float *out, int32_t channels, int32_t height, int32_t width)
{
    const int is_f32 = image_dtype == GCPP_FLOAT32;
    guided_call call = {.image = image,
                        .element = is_f32 ? sizeof(float) : sizeof(uint16_t),
                        .multiply = is_f32 ? rows->multiply_f32 : rows->multiply_f16,
                        .out = out,
                        .channels = channels,
                        .height = height,
                        .width = width};
    const size_t elements = (size_t)channels * (size_t)height * (size_t)width;
    if (upsampler_open(&call.map, rows, threads, map, width, elements * (call.element + sizeof(float))) != GCPP_OK)
        return GCPP_NO_MEMORY;
    gcpp_in_parts(call.map.threads, call.map.bands, guided_band, &call);
    upsampler_close(&call.map);
    return GCPP_OK;
}
