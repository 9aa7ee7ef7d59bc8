/* The five kernels of gcpp-edge on a CPU. What they compute is written in ../reference.py; this is how.
 *
 * Memory     The caller owns every buffer. Nothing is kept between calls. heatmap, overlay, guided and preprocess take
 *            one scratch block for the call (a few rows of floats a thread, a column table, the small map) and free it,
 *            which costs 0.1 us; cam takes none. Nothing is read or written outside the arrays described by the
 *            arguments.
 * Threading  `threads` is how many may work on a call: the caller and helpers of a pool that all calls share (pool.h);
 *            fewer do where the work is too little. Results are the same bits for any number. Every function may run in
 *            any number of threads at once, on different outputs.
 * Alignment  Arrays are aligned to their elements, no more. Vectors are loaded and stored unaligned.
 * Overlap    Outputs do not overlap inputs, but for overlay, whose `out` may be the frame, and guided, whose `out`
 *            may be a float32 image: the same addresses and strides, not a shifted view.
 * Range      Sizes are >= 0 and fit in ptrdiff_t; a width and a height fit in int32_t. Coordinates may be anything
 *            finite: they are clamped before they become indices. NaN and infinities are carried by cam and shown as 0
 *            or 1 by the others; none is ever an index.
 * Precision  Sums of cam are float32, in eight or more partial sums. Coordinates are double, blended values float32,
 *            overlay 8.8 fixed point. Rounding is to nearest; at a tie either neighbour may come out.
 * Errors     GCPP_NO_MEMORY where the scratch block cannot be had; the output is then untouched.
 *
 * Names are gcpp_<operation>_<dtype>_<isa>. The driver of an operation (maps.c, preprocess.c) walks rows; the work on a
 * row lies in scalar_*.c, avx2_*.c, avx512_*.c and neon_*.c, behind one table of function pointers (rows.h).
 */
#ifndef GCPP_H
#define GCPP_H

#include <stddef.h>
#include <stdint.h>

#include "arithmetic.h"

enum { GCPP_OK = 0, GCPP_NO_MEMORY = -1 };

/* A small map, how it lies under the destination, and the range that becomes [0, 1]. */
typedef struct {
    const float *values; /* height x width */
    int32_t height, width;
    gcpp_axis rows, columns;
    double low, high;
} gcpp_map;

typedef struct {
    uint8_t *pixels;
    int32_t height, width, channels; /* of uint8, 3 or 4 */
    ptrdiff_t row_stride_bytes;
} gcpp_picture;

typedef struct {
    const void *activations;   /* batch x channels x positions */
    const void *gradients;     /* batch x targets x channels x positions, or x 1 position where constant */
    float *out;                /* batch x targets x positions */
    float *weights;            /* batch x targets x channels, or NULL */
    int64_t *poles;            /* batch x targets, or NULL: how many positions were poles (0 but for the signed rule) */
    ptrdiff_t batch, targets;  /* each target of a picture has gradients of its own, and the picture's activations */
    ptrdiff_t channels, positions;
    gcpp_dtype activations_dtype, gradients_dtype;
    gcpp_rule rule;
    int constant_gradients, relu;
    float gradient_scale; /* the gradients are stored times this, 2^-100 to 2^100 */
} gcpp_cam_arguments;

typedef struct {
    const uint8_t *frame;
    ptrdiff_t row_stride_bytes;
    int32_t height, width; /* of the picture: an NV12 frame has half as many rows again */
    gcpp_format format, color;
    gcpp_axis rows, columns;          /* from the network's pixels to the frame's */
    const float *scale, *bias, *fill; /* one a network channel */
    void *out;                        /* channels x out_height x out_width */
    int32_t out_height, out_width;
    gcpp_dtype out_dtype; /* float32 or float16 */
} gcpp_preprocess_arguments;

/* The kernels of one instruction set. */
typedef struct gcpp_rows gcpp_rows;

/* The table for "scalar", "avx2", "avx512", "avx512vbmi" or "neon", or NULL where this build or this machine has no such
 * instructions. */
const gcpp_rows *gcpp_rows_for(const char *isa);

void gcpp_cam(const gcpp_rows *rows, const gcpp_cam_arguments *arguments);

/* out: height x width of float32 or uint8. */
int gcpp_heatmap(const gcpp_rows *rows, int32_t threads, const gcpp_map *map, void *out, gcpp_dtype dtype,
                 int32_t height, int32_t width);

/* palette: 256 x 3. alpha and dim in [0, 1]. `frame` and `out` differ at most in address and stride. */
int gcpp_overlay(const gcpp_rows *rows, int32_t threads, const gcpp_map *map, const gcpp_picture *frame,
                 const uint8_t *palette, double alpha, double dim, const gcpp_picture *out);

/* image (float32 or float16) and out: channels x height x width. */
int gcpp_guided(const gcpp_rows *rows, int32_t threads, const gcpp_map *map, const void *image, gcpp_dtype image_dtype,
                float *out, int32_t channels, int32_t height, int32_t width);

int gcpp_preprocess(const gcpp_rows *rows, int32_t threads, const gcpp_preprocess_arguments *arguments);

#endif
