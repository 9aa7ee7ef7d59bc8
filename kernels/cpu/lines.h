/* Columns of the destination on the source, and a cache of the last two source rows that were widened to them. */
#ifndef GCPP_LINES_H
#define GCPP_LINES_H

#include "rows.h"

/* Bytes of scratch that a table for `count` columns needs. */
size_t gcpp_columns_bytes(int32_t count, int32_t pixel_bytes);

/* The table for the seen columns of an axis, in `scratch`. pixel_bytes: of a pixel that is loaded as 32 bits; a row
 * holds source_size of them. 0 where no such loads are made. */
gcpp_columns gcpp_columns_of(const gcpp_axis *axis, int32_t source_size, int32_t pixel_bytes, void *scratch);

/* Two widened rows. Destination rows go downwards, so a source row is widened once and serves until it is passed. */
typedef struct {
    int32_t index[2]; /* source rows held; -1 none */
    float *row[2];
} gcpp_line_pair;

typedef void (*gcpp_line_source)(const void *context, int32_t index, float *row);

/* The rows first and second, in row[0] and row[1]; row[0] alone where they are the same. */
void gcpp_line_pair_load(gcpp_line_pair *lines, gcpp_taps taps, gcpp_line_source source, const void *context);

#endif
