/* Driver of preprocess: frame rows to planes of floats at the network's columns, then to the network's channels. */
#include <stdlib.h>
#include <string.h>

#include "half.h"
#include "lines.h"
#include "pool.h"

enum { MAX_PLANES = 4, FROM_FILL = -1 /* not a plane: a constant pixel value */ };

/* The letters of the planes that a row of each format becomes; y is grey. */
static const char *const format_letters[] = {"bgr", "rgb", "bgra", "rgba", "y", "y", "rgb"};
static const char *const color_letters[] = {"bgr", "rgb", "bgra", "rgba", "y"};

typedef struct {
    const gcpp_rows *rows;
    const gcpp_preprocess_arguments *arguments;
    gcpp_columns columns;
    int32_t threads, bands; /* bands of rows */
    float *lines;    /* of every thread: two rows, of MAX_PLANES planes */
    gcpp_pixels pixels;
    gcpp_pixel_layout layout;
    const char *letters; /* of the planes */
    int32_t grey_plane;  /* where a colour frame is made grey, else -1 */
} picture_source;

/* The plane behind a channel of the network, or FROM_FILL for a missing alpha. */
static int32_t plane_of(const picture_source *self, char letter)
{
    const char *const found = strchr(self->letters, letter);
    if (found)
        return (int32_t)(found - self->letters);
    if (letter == 'a')
        return FROM_FILL;
    return letter == 'y' ? self->grey_plane : 0; /* colour from grey is replicated */
}

static void add_grey(const picture_source *self, float *row)
{
    const int32_t count = self->columns.count;
    const float *const red = row + (ptrdiff_t)plane_of(self, 'r') * count;
    const float *const green = row + (ptrdiff_t)plane_of(self, 'g') * count;
    const float *const blue = row + (ptrdiff_t)plane_of(self, 'b') * count;
    float *const grey = row + (ptrdiff_t)self->grey_plane * count;
    for (int32_t i = 0; i < count; i++)
        grey[i] = gcpp_grey(red[i], green[i], blue[i]);
}

static void read_row(const void *context, int32_t index, float *row)
{
    const picture_source *const self = context;
    const gcpp_preprocess_arguments *const arguments = self->arguments;
    gcpp_pixel_layout layout = self->layout;
    if (arguments->format == GCPP_NV12)
        layout.chroma = arguments->frame + (arguments->height + index / 2) * arguments->row_stride_bytes;
    self->pixels(arguments->frame + index * arguments->row_stride_bytes, &layout, &self->columns, row,
                 self->columns.count);
    if (self->grey_plane >= 0)
        add_grey(self, row);
}

static void choose_format(picture_source *self)
{
    static const int32_t pixel_bytes[] = {3, 3, 4, 4, 1, 2, 1};
    const gcpp_preprocess_arguments *const arguments = self->arguments;
    const char *const wanted = color_letters[arguments->color];
    self->letters = format_letters[arguments->format];
    self->layout.pixel_bytes = pixel_bytes[arguments->format];
    self->layout.row_bytes = arguments->width * self->layout.pixel_bytes;
    self->layout.planes = (int32_t)strlen(self->letters);
    if (self->layout.planes == 4 && !strchr(wanted, 'a'))
        self->layout.planes = 3;
    self->grey_plane = *wanted == 'y' && *self->letters != 'y' ? self->layout.planes : -1;
    self->pixels = arguments->format == GCPP_NV12     ? self->rows->pixels_nv12
                   : arguments->format == GCPP_GRAY16 ? self->rows->pixels_gray16
                                                      : self->rows->pixels_packed;
}

static size_t element_bytes(const gcpp_preprocess_arguments *arguments)
{
    return arguments->out_dtype == GCPP_FLOAT32 ? sizeof(float) : sizeof(uint16_t);
}

/* Bytes that are read and written, whichever are fewer: all of the frame, or two of its rows for each row of `out`. */
static size_t bytes_moved(const picture_source *self)
{
    const gcpp_preprocess_arguments *const arguments = self->arguments;
    const size_t out_rows = (size_t)arguments->out_height, frame_rows = (size_t)arguments->height;
    const size_t read = (frame_rows < 2 * out_rows ? frame_rows : 2 * out_rows) * (size_t)self->layout.row_bytes;
    const size_t out_elements = out_rows * (size_t)arguments->out_width * strlen(color_letters[arguments->color]);
    return read + out_elements * element_bytes(arguments);
}

static int picture_open(picture_source *self, const gcpp_rows *rows, int32_t threads,
                        const gcpp_preprocess_arguments *arguments)
{
    const int32_t seen = arguments->columns.stop - arguments->columns.start;
    self->rows = rows;
    self->arguments = arguments;
    choose_format(self);
    self->threads = gcpp_useful_threads(threads, bytes_moved(self));
    self->bands = gcpp_parts_for(self->threads);
    const size_t table = gcpp_columns_bytes(seen, self->layout.pixel_bytes);
    const size_t floats = (size_t)self->threads * 2 * MAX_PLANES * (size_t)seen;
    char *const scratch = malloc(table + floats * sizeof(float) + 1);
    if (!scratch)
        return GCPP_NO_MEMORY;
    self->columns = gcpp_columns_of(&arguments->columns, arguments->width, self->layout.pixel_bytes, scratch);
    self->lines = (float *)(void *)(scratch + table);
    return GCPP_OK;
}

static void picture_close(picture_source *self)
{
    free((void *)self->columns.first); /* the head of the scratch block */
}

/* `count` pixels of one value, as the network's channel `channel` takes them. */
static void paint(const gcpp_preprocess_arguments *arguments, int32_t channel, float pixel, void *out, int32_t count)
{
    const float value = pixel * arguments->scale[channel] + arguments->bias[channel];
    const uint16_t half = gcpp_half_from_float(value);
    for (int32_t i = 0; i < count; i++) {
        if (arguments->out_dtype == GCPP_FLOAT32)
            ((float *)out)[i] = value;
        else
            ((uint16_t *)out)[i] = half;
    }
}

/* The seen columns of one row of one channel, from the two loaded frame rows. */
static void write_seen(const picture_source *self, const gcpp_line_pair *lines, int32_t channel, gcpp_taps taps,
                       void *out)
{
    const gcpp_preprocess_arguments *const arguments = self->arguments;
    const int32_t count = self->columns.count;
    const int32_t plane = plane_of(self, color_letters[arguments->color][channel]);
    const gcpp_finish finish =
        arguments->out_dtype == GCPP_FLOAT32 ? self->rows->finish_f32 : self->rows->finish_f16;
    if (plane == FROM_FILL) {
        paint(arguments, channel, 255, out, count);
        return;
    }
    const float *const upper = lines->row[0] + (ptrdiff_t)plane * count;
    const float *const lower = lines->row[taps.second != taps.first] + (ptrdiff_t)plane * count;
    finish(upper, lower, taps.share, arguments->scale[channel], arguments->bias[channel], out, count);
}

/* One row of one channel: letterbox, picture, letterbox. */
static void write_row(const picture_source *self, const gcpp_line_pair *lines, int32_t channel, int32_t y, int is_seen,
                      gcpp_taps taps)
{
    const gcpp_preprocess_arguments *const arguments = self->arguments;
    const int32_t width = arguments->out_width;
    const int32_t start = is_seen ? arguments->columns.start : width, stop = is_seen ? arguments->columns.stop : width;
    const size_t element = element_bytes(arguments);
    char *const row = (char *)arguments->out
                      + ((size_t)channel * (size_t)arguments->out_height + (size_t)y) * (size_t)width * element;
    const float fill = arguments->fill[channel];
    paint(arguments, channel, fill, row, start);
    if (start < stop)
        write_seen(self, lines, channel, taps, row + (size_t)start * element);
    paint(arguments, channel, fill, row + (size_t)stop * element, width - stop);
}

static void write_band(void *context, int32_t part, int32_t slot)
{
    const picture_source *const self = context;
    const gcpp_preprocess_arguments *const arguments = self->arguments;
    const int32_t channels = (int32_t)strlen(color_letters[arguments->color]);
    const int32_t stop = gcpp_part_start(part + 1, self->bands, arguments->out_height);
    const size_t line = MAX_PLANES * (size_t)self->columns.count;
    float *const floats = self->lines + (size_t)slot * 2 * line;
    gcpp_line_pair lines = {{-1, -1}, {floats, floats + line}};
    for (int32_t y = gcpp_part_start(part, self->bands, arguments->out_height); y < stop; y++) {
        const int is_seen = y >= arguments->rows.start && y < arguments->rows.stop;
        gcpp_taps taps = {0, 0, 0};
        if (is_seen) {
            taps = gcpp_taps_at(&arguments->rows, y, arguments->height);
            gcpp_line_pair_load(&lines, taps, read_row, self);
        }
        for (int32_t channel = 0; channel < channels; channel++)
            write_row(self, &lines, channel, y, is_seen, taps);
    }
}

int gcpp_preprocess(const gcpp_rows *rows, int32_t threads, const gcpp_preprocess_arguments *arguments)
{
    picture_source self;
    memset(&self, 0, sizeof self);
    if (picture_open(&self, rows, threads, arguments) != GCPP_OK)
        return GCPP_NO_MEMORY;
    gcpp_in_parts(self.threads, self.bands, write_band, &self);
    picture_close(&self);
    return GCPP_OK;
}
