/* Drivers of heatmap, overlay and guided: they walk the rows of the destination. */
#include <stdlib.h>
#include <string.h>

#include "lines.h"

/* A map that is being brought to the destination's columns, row by row. */
typedef struct {
    const gcpp_rows *rows;
    const gcpp_map *map;
    float *normal; /* the map, low to high as 0 to 1 */
    gcpp_columns columns;
    gcpp_line_pair lines;
    float *row; /* one row of results: floats or bytes, of the seen columns */
} upsampler;

/* Normalised while it is small, and in double: high - low may be so small that its inverse overflows a float. */
static void normalise(const gcpp_map *map, float *normal)
{
    const size_t count = (size_t)map->height * (size_t)map->width;
    const int has_range = map->high > map->low;
    for (size_t i = 0; i < count; i++)
        normal[i] = has_range ? (float)((map->values[i] - map->low) / (map->high - map->low)) : 0;
}

static int upsampler_open(upsampler *self, const gcpp_rows *rows, const gcpp_map *map)
{
    const int32_t seen = map->columns.stop - map->columns.start;
    const size_t map_size = (size_t)map->height * (size_t)map->width;
    const size_t bytes = gcpp_columns_bytes(seen) + (map_size + 3 * (size_t)seen) * sizeof(float);
    char *const scratch = malloc(bytes ? bytes : 1);
    if (!scratch)
        return GCPP_NO_MEMORY;
    float *const floats = (float *)(void *)(scratch + gcpp_columns_bytes(seen));
    self->rows = rows;
    self->map = map;
    self->columns = gcpp_columns_of(&map->columns, map->width, 0, scratch);
    self->lines = (gcpp_line_pair){{-1, -1}, {floats, floats + seen}};
    self->row = floats + 2 * (size_t)seen;
    self->normal = floats + 3 * (size_t)seen;
    normalise(map, self->normal);
    return GCPP_OK;
}

static void upsampler_close(upsampler *self)
{
    free((void *)self->columns.first); /* the head of the scratch block */
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
static float upsampler_load(upsampler *self, int32_t y, const float **upper, const float **lower)
{
    const gcpp_taps taps = gcpp_taps_at(&self->map->rows, y, self->map->height);
    gcpp_line_pair_load(&self->lines, taps, widen_map_row, self);
    *upper = self->lines.row[0];
    *lower = self->lines.row[taps.second != taps.first];
    return taps.share;
}

static void values_f32(upsampler *self, int32_t y, float *out)
{
    const float *upper, *lower;
    const float share = upsampler_load(self, y, &upper, &lower);
    self->rows->value_f32(upper, lower, share, out, self->columns.count);
}

static void values_u8(upsampler *self, int32_t y, uint8_t *out)
{
    const float *upper, *lower;
    const float share = upsampler_load(self, y, &upper, &lower);
    self->rows->value_u8(upper, lower, share, out, self->columns.count);
}

int gcpp_heatmap(const gcpp_rows *rows, const gcpp_map *map, void *out, gcpp_dtype dtype, int32_t height, int32_t width)
{
    const size_t element = dtype == GCPP_FLOAT32 ? sizeof(float) : 1;
    const size_t start = (size_t)map->columns.start * element, stop = (size_t)map->columns.stop * element;
    const size_t row_bytes = (size_t)width * element;
    upsampler self;
    if (upsampler_open(&self, rows, map) != GCPP_OK)
        return GCPP_NO_MEMORY;
    for (int32_t y = 0; y < height; y++) {
        char *const row = (char *)out + (size_t)y * row_bytes;
        if (!is_seen(&self, y)) {
            memset(row, 0, row_bytes);
            continue;
        }
        memset(row, 0, start);
        if (dtype == GCPP_FLOAT32)
            values_f32(&self, y, (float *)(void *)(row + start));
        else
            values_u8(&self, y, (uint8_t *)row + start);
        memset(row + stop, 0, row_bytes - stop);
    }
    upsampler_close(&self);
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

int gcpp_overlay(const gcpp_rows *rows, const gcpp_map *map, const gcpp_picture *frame, const uint8_t *palette,
                 double alpha, double dim, const gcpp_picture *out)
{
    const int32_t keep = fixed_point(1 - alpha), keep_unseen = fixed_point(dim);
    gcpp_palette colors, black;
    upsampler self;
    if (upsampler_open(&self, rows, map) != GCPP_OK)
        return GCPP_NO_MEMORY;
    weigh_palette(palette, GCPP_ONE - keep, &colors);
    weigh_palette(NULL, 0, &black);
    for (int32_t y = 0; y < frame->height; y++) {
        const picture_row row = {rows, frame->pixels + y * frame->row_stride_bytes,
                                 out->pixels + y * out->row_stride_bytes, frame->channels};
        if (!is_seen(&self, y)) {
            dim_pixels(&row, 0, frame->width, &black, keep_unseen);
            continue;
        }
        uint8_t *const index = (uint8_t *)self.row;
        values_u8(&self, y, index);
        dim_pixels(&row, 0, map->columns.start, &black, keep_unseen);
        blend_pixels(&row, map->columns.start, map->columns.stop, index, &colors, keep);
        dim_pixels(&row, map->columns.stop, frame->width, &black, keep_unseen);
    }
    upsampler_close(&self);
    return GCPP_OK;
}

int gcpp_guided(const gcpp_rows *rows, const gcpp_map *map, const void *image, gcpp_dtype image_dtype, float *out,
                int32_t channels, int32_t height, int32_t width)
{
    const size_t element = image_dtype == GCPP_FLOAT32 ? sizeof(float) : sizeof(uint16_t);
    const size_t plane = (size_t)height * (size_t)width;
    const gcpp_multiply multiply = image_dtype == GCPP_FLOAT32 ? rows->multiply_f32 : rows->multiply_f16;
    float *const values = calloc((size_t)width + 1, sizeof(float)); /* unseen columns stay 0 */
    upsampler self;
    if (!values || upsampler_open(&self, rows, map) != GCPP_OK) {
        free(values);
        return GCPP_NO_MEMORY;
    }
    for (int32_t y = 0; y < height; y++) {
        if (is_seen(&self, y))
            values_f32(&self, y, values + map->columns.start);
        else
            memset(values, 0, (size_t)width * sizeof(float));
        for (size_t c = 0; c < (size_t)channels; c++) {
            const size_t first = c * plane + (size_t)y * (size_t)width;
            multiply(values, (const char *)image + first * element, out + first, width);
        }
    }
    upsampler_close(&self);
    free(values);
    return GCPP_OK;
}
