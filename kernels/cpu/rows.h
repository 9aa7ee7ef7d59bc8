/* The table of function pointers: what an instruction set must offer, one row of pixels or one map at a time. */
#ifndef GCPP_ROWS_H
#define GCPP_ROWS_H

#include "gcpp.h"

/* One map from one picture's activations and gradients: writes `out` and `weights`, returns the count of poles.
 * unscale: 1 / s for gradients stored as g·s. It costs two products a channel and none a position, since
 * w = Σ relu(g) / (2 + max(ΣA, 0)·g) = 1/s · Σ relu(g·s) / (2 + max(ΣA / s, 0)·g·s). */
typedef int64_t (*gcpp_cam_map)(const void *activations, const void *gradients, float *out, float *weights,
                                ptrdiff_t channels, ptrdiff_t positions, gcpp_rule rule, int constant_gradients,
                                int relu, float unscale);

#define GCPP_DECLARE_CAM(name)                                                                                   \
    int64_t name(const void *activations, const void *gradients, float *out, float *weights, ptrdiff_t channels, \
                 ptrdiff_t positions, gcpp_rule rule, int constant_gradients, int relu, float unscale)

/* A column of the destination on the source axis: the pixels first and second, mixed as a + (b - a) * share. */
typedef struct {
    const int32_t *first, *second; /* pixel indices, of `count` columns */
    const float *share;
    int32_t count;
    /* For vector loads of a whole pixel in 32 bits without reading past the row: byte offset and right shift. */
    const int32_t *first_offset, *first_shift, *second_offset, *second_shift;
    /* The same for both pixels of up to 32 bits in one load of 64: the second is the first's neighbour, or shares 0. */
    const int32_t *pair_offset, *pair_shift;
} gcpp_columns;

/* How a frame's pixels lie in memory. */
typedef struct {
    int32_t pixel_bytes;   /* of the plane of pixels, or of NV12's plane of luma */
    int32_t row_bytes;     /* below 4 no 32 bits can be loaded */
    int32_t planes;        /* planes of floats that a row becomes */
    const uint8_t *chroma; /* row of NV12's U and V that goes with this row */
} gcpp_pixel_layout;

/* A colour's share of a blend. */
typedef struct {
    uint16_t channel[4];
} gcpp_color;

/* The colours of a call, and the same as bytes: [channel][low, high byte][index], for tables held in registers. */
typedef struct {
    gcpp_color colors[256]; /* first: a kernel is given its address */
    uint8_t bytes[3][2][256];
} gcpp_palette;

typedef void (*gcpp_multiply)(const float *value, const void *image, float *out, int32_t count);
typedef void (*gcpp_pixels)(const uint8_t *row, const gcpp_pixel_layout *layout, const gcpp_columns *columns,
                            float *out, ptrdiff_t stride);
typedef void (*gcpp_finish)(const float *upper, const float *lower, float share, float scale, float bias, void *out,
                            int32_t count);

struct gcpp_rows {
    const char *isa;
    gcpp_cam_map cam[2][2]; /* [activations][gradients], each GCPP_FLOAT32 or GCPP_FLOAT16 */

    /* out[i] = mix of the columns' two pixels of `row`. */
    void (*widen_f32)(const float *row, const gcpp_columns *columns, float *out);

    /* out[i] = clip(upper + (lower - upper) * share, 0, 1), 0 for NaN; as float32 or as round(255 v). */
    void (*value_f32)(const float *upper, const float *lower, float share, float *out, int32_t count);
    void (*value_u8)(const float *upper, const float *lower, float share, uint8_t *out, int32_t count);

    /* out = frame * keep / 65536 + colors[index], rounded; a fourth channel is copied. colors: pixels of four 16-bit
     * values in 8.8 fixed point, in the order of the frame, with the half that rounding needs already added; the first
     * member of a gcpp_palette. */
    void (*blend_u8)(const uint8_t *frame, int32_t channels, const uint8_t *index, const gcpp_color *colors,
                     int32_t keep, uint8_t *out, int32_t count);

    /* out = value * image. */
    gcpp_multiply multiply_f32, multiply_f16;

    /* One row of a frame, widened to the columns: `planes` planes of floats, 0 to 255, `stride` floats apart. */
    gcpp_pixels pixels_packed, pixels_gray16, pixels_nv12;

    /* out = (upper + (lower - upper) * share) * scale + bias. */
    gcpp_finish finish_f32, finish_f16;
};

extern const gcpp_rows gcpp_rows_scalar;
#if defined(__x86_64__)
extern const gcpp_rows gcpp_rows_avx2, gcpp_rows_avx512, gcpp_rows_avx512vbmi;
#elif defined(__aarch64__)
extern const gcpp_rows gcpp_rows_neon;
#endif

#endif
