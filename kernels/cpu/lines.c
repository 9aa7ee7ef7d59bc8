#include "lines.h"

size_t gcpp_columns_bytes(int32_t count)
{
    return 7 * sizeof(int32_t) * (size_t)count;
}

/* A load of 32 bits at the pixel would leave the row at its end: it starts earlier there, and the pixel is shifted down. */
static void set_vector_load(int32_t pixel, int32_t pixel_bytes, int32_t row_bytes, int32_t *offset, int32_t *shift)
{
    const int32_t start = pixel * pixel_bytes;
    const int32_t last = row_bytes > 4 ? row_bytes - 4 : 0;
    *offset = start < last ? start : last;
    *shift = 8 * (start - *offset);
}

gcpp_columns gcpp_columns_of(const gcpp_axis *axis, int32_t source_size, int32_t pixel_bytes, void *scratch)
{
    const int32_t count = axis->stop - axis->start;
    int32_t *part = scratch;
    int32_t *const first = part, *const second = part + count;
    float *const share = (float *)(part + 2 * (size_t)count);
    part += 3 * (size_t)count;
    for (int32_t i = 0; i < count; i++) {
        const gcpp_taps taps = gcpp_taps_at(axis, axis->start + i, source_size);
        first[i] = taps.first;
        second[i] = taps.second;
        share[i] = taps.share;
        set_vector_load(taps.first, pixel_bytes, source_size * pixel_bytes, part + i, part + count + i);
        set_vector_load(taps.second, pixel_bytes, source_size * pixel_bytes, part + 2 * (size_t)count + i,
                        part + 3 * (size_t)count + i);
    }
    return (gcpp_columns){first,        second, share, count, part, part + count, part + 2 * (size_t)count,
                          part + 3 * (size_t)count};
}

void gcpp_line_pair_load(gcpp_line_pair *lines, gcpp_taps taps, gcpp_line_source source, const void *context)
{
    if (lines->index[1] == taps.first) {
        float *const row = lines->row[0];
        lines->row[0] = lines->row[1];
        lines->row[1] = row;
        lines->index[1] = lines->index[0];
        lines->index[0] = taps.first;
    }
    if (lines->index[0] != taps.first) {
        source(context, taps.first, lines->row[0]);
        lines->index[0] = taps.first;
    }
    if (taps.second != taps.first && lines->index[1] != taps.second) {
        source(context, taps.second, lines->row[1]);
        lines->index[1] = taps.second;
    }
}
