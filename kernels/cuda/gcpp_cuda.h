/* The kernels of gcpp-edge on an NVIDIA GPU: what a launch needs. What they compute is written in ../reference.py.
 *
 * A kernel is an extern "C" function of the module gcpp.cu that takes one of the structs below by value:
 *
 *   name                               argument             grid (x, y)                                block (x, y)
 *   gcpp_cam_weights_<A>_<G>_cuda      gcpp_cuda_cam        channels / threads.y up, maps              see CAM below
 *   gcpp_cam_sum_<A>_cuda              gcpp_cuda_cam        positions / threads.x up, maps             see CAM below
 *   gcpp_range_f32_cuda                gcpp_cuda_range      maps, 1                                    256, 1
 *   gcpp_heatmap_f32_cuda, _u8_        gcpp_cuda_heatmap    width / columns up, height / rows up       32, 8
 *   gcpp_overlay_u8_cuda               gcpp_cuda_overlay    the same                                   32, 8
 *   gcpp_guided_f32_cuda, _f16_        gcpp_cuda_guided     the same                                   32, 8
 *   gcpp_preprocess_f32_cuda, _f16_    gcpp_cuda_preprocess the same, of the output                    32, 8
 *
 * rows: 8 in a block. columns: 32 in a block, 128 where pixels are bytes (heatmap_u8, overlay). `maps` is cut to 65,535 in
 * a grid; the kernels go on from there. An empty grid must not be launched. <A>, <G>: f32 or f16 of the activations and
 * of the gradients. No dynamic shared memory.
 *
 * CAM        The weights of all channels, then their sums: two launches with the same struct. Block of the first: 32 x 8,
 *            a warp a channel, up to 1,024 positions; 256 x 1, a block a channel, above. Of the second: 8 x 128 up to
 *            1,024 positions, 32 x 32 above. See cam.cu.
 * Memory     The caller owns every buffer; all addresses are the device's. Nothing is allocated, nothing is waited for,
 *            nothing is kept between launches: everything may be captured in a graph.
 * Alignment  Arrays are aligned to their elements, no more. Wider loads are used where an address allows them.
 * Overlap    As for the C kernels: overlay may write its frame, guided its float32 image.
 * Order      No floating-point atomics: the same input gives the same bits, launch after launch.
 * Precision  As for the C kernels, but that sums are added in another order.
 */
#ifndef GCPP_CUDA_H
#define GCPP_CUDA_H

#include "../arithmetic.h"

enum {
    GCPP_CUDA_MAX_MAPS = 65535,    /* in grid.y of the cam kernels */
    GCPP_CUDA_WARP_POSITIONS = 1024, /* above, cam works with a block a channel */
    GCPP_CUDA_ROWS = 8,            /* of pixels in a block */
    GCPP_CUDA_COLUMNS = 32,        /* of pixels in a block, ... */
    GCPP_CUDA_BYTE_COLUMNS = 128,  /* ... where pixels are bytes */
    GCPP_CUDA_RANGE_THREADS = 256
};

typedef struct {
    const void *activations; /* maps / targets x channels x positions */
    const void *gradients;   /* maps x channels x positions, or x 1 position where constant */
    float *out;              /* maps x positions */
    float *weights;          /* maps x channels: what the first kernel hands to the second */
    int64_t *poles;          /* maps, or NULL */
    int32_t *channel_poles;  /* maps x channels of scratch where the signed rule is to fill poles; else NULL */
    int64_t maps, targets;   /* batch * targets, and how many share activations; targets >= 1 */
    int64_t channels, positions;
    int32_t rule; /* gcpp_rule */
    int32_t constant_gradients, relu;
    float unscale; /* 1 / s for gradients stored as g * s */
} gcpp_cuda_cam;

typedef struct {
    const float *values;      /* maps x positions */
    float *out;               /* maps x 2: low and high of each, 0 and 0 where there is no number */
    int64_t maps, positions;
    int32_t zero_low; /* low is 0, whatever the map holds */
} gcpp_cuda_range;

/* A small map, how it lies under the destination, and the range that becomes [0, 1]. */
typedef struct {
    const float *values; /* height x width */
    const float *limits; /* low and high as gcpp_range writes them, or NULL: the numbers below are meant */
    int32_t height, width;
    gcpp_axis rows, columns;
    double low, high;
} gcpp_cuda_map;

typedef struct {
    gcpp_cuda_map map;
    void *out; /* height x width of float32 or uint8 */
    int32_t height, width;
} gcpp_cuda_heatmap;

typedef struct {
    gcpp_cuda_map map;
    const uint8_t *frame;   /* height x width x channels */
    uint8_t *out;           /* the same */
    const uint8_t *palette; /* 256 x 3 */
    int64_t frame_stride_bytes, out_stride_bytes;
    int32_t height, width, channels; /* 3 or 4 */
    int32_t keep, keep_unseen;       /* 1 - alpha and dim, of GCPP_ONE */
} gcpp_cuda_overlay;

typedef struct {
    gcpp_cuda_map map;
    const void *image; /* channels x height x width of float32 or float16 */
    float *out;        /* the same */
    int32_t channels, height, width;
} gcpp_cuda_guided;

typedef struct {
    const uint8_t *frame;
    int64_t row_stride_bytes;
    void *out;              /* channels x out_height x out_width of float32 or float16 */
    gcpp_axis rows, columns; /* from the network's pixels to the frame's */
    int32_t height, width;  /* of the picture: an NV12 frame has half as many rows again */
    int32_t out_height, out_width;
    int32_t format, color; /* gcpp_format */
    float scale[4], bias[4], fill[4]; /* one a network channel */
} gcpp_cuda_preprocess;

#endif
