#include "lines.h"

enum { PLAIN_PARTS = 3, LOAD_PARTS = 6 };

size_t gcpp_columns_bytes(int32_t count, int32_t pixel_bytes)
{
    return (size_t)(pixel_bytes ? PLAIN_PARTS + LOAD_PARTS : PLAIN_PARTS) * sizeof(int32_t) * (size_t)count;
}

/* A load of so many bytes at the pixel would leave the row at its end: it starts earlier there, and the pixel is
 * shifted down. */
static void set_vector_load(int32_t start, int32_t bytes, int32_t row_bytes, int32_t *offset, int32_t *shift)
{
    const int32_t last = row_bytes > bytes ? row_bytes - bytes : 0;
    *offset = start < last ? start : last;
    *shift = 8 * (start - *offset);
}

gcpp_columns gcpp_columns_of(const gcpp_axis *axis, int32_t source_size, int32_t pixel_bytes, void *scratch)
{
    const size_t count = (size_t)(axis->stop - axis->start);
    int32_t *const first = scratch, *const second = first + count;
    float *const share = (float *)(void *)(second + count);
    int32_t *const load = pixel_bytes ? second + 2 * count : first; /* where there are none, nobody looks */
    const size_t step = pixel_bytes ? count : 0;
    for (size_t i = 0; i < count; i++) {
        const gcpp_taps taps = gcpp_taps_at(axis, axis->start + (int32_t)i, source_size);
        first[i] = taps.first;
        second[i] = taps.second;
        share[i] = taps.share;
        if (!pixel_bytes)
            continue;
        const int32_t start = taps.first * pixel_bytes, row_bytes = source_size * pixel_bytes;
        set_vector_load(start, 4, row_bytes, load + i, load + step + i);
        set_vector_load(taps.second * pixel_bytes, 4, row_bytes, load + 2 * step + i, load + 3 * step + i);
        set_vector_load(start, 8, row_bytes, load + 4 * step + i, load + 5 * step + i);
    }
    return (gcpp_columns){first,           second,          share,           (int32_t)count,  load,
                          load + step,     load + 2 * step, load + 3 * step, load + 4 * step, load + 5 * step};
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
