/* What the C and the CUDA kernels compute alike, and the types that both have in their arguments.
 *
 * Plain C99 that is C++ too, and no header in it that NVRTC lacks. Every function works on one element, has no state and
 * touches no memory but through its pointers. What it computes is written in reference.py.
 */
#ifndef GCPP_ARITHMETIC_H
#define GCPP_ARITHMETIC_H

#if defined(__CUDACC_RTC__) /* NVRTC has no headers of its own */
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
#else
#include <math.h>
#include <stdint.h>
#include <string.h>
#endif

#if defined(__CUDACC__)
#define GCPP_INLINE static __device__ __forceinline__
#else
#define GCPP_INLINE static inline
#endif

typedef enum { GCPP_FLOAT32, GCPP_FLOAT16, GCPP_UINT8 } gcpp_dtype;
typedef enum { GCPP_GRADCAM, GCPP_GRADCAM_PLUS_PLUS, GCPP_GRADCAM_PLUS_PLUS_SIGNED } gcpp_rule;
typedef enum { GCPP_BGR, GCPP_RGB, GCPP_BGRA, GCPP_RGBA, GCPP_GRAY, GCPP_GRAY16, GCPP_NV12 } gcpp_format;

/* One axis: source = (d + 0.5) * scale + offset - 0.5 for d in [start, stop), 0 <= start <= stop <= destination size. */
typedef struct {
    double scale, offset;
    int32_t start, stop;
} gcpp_axis;

/* The two source pixels of one destination pixel, and the share of the second. */
typedef struct {
    int32_t first, second;
    float share;
} gcpp_taps;

#define GCPP_POLE 1e-3f /* |2 + max(ΣA, 0)·g| below this is taken for a pole of Eq. 19 */

enum { GCPP_ONE = 65536 /* a share of 1 in 16-bit fixed point */, GCPP_HALF = 128 /* 0.5 in 8.8, for rounding */ };

GCPP_INLINE float gcpp_float_from_bits(uint32_t bits)
{
#if defined(__CUDACC__)
    return __uint_as_float(bits);
#else
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
#endif
}

GCPP_INLINE uint32_t gcpp_bits_from_float(float value)
{
#if defined(__CUDACC__)
    return __float_as_uint(value);
#else
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
#endif
}

/* source_size >= 1. */
GCPP_INLINE gcpp_taps gcpp_taps_at(const gcpp_axis *axis, int32_t destination, int32_t source_size)
{
    gcpp_taps taps;
    double source = (destination + 0.5) * axis->scale + axis->offset - 0.5;
    source = source > 0 ? source : 0; /* clamped before it becomes an index: it may be 1e300 */
    source = source < source_size - 1 ? source : source_size - 1;
    taps.first = (int32_t)source; /* which rounds down, being positive */
    const double share = source - taps.first;
    taps.second = share > 0 ? taps.first + 1 : taps.first;
    taps.share = (float)share;
    return taps;
}

GCPP_INLINE float gcpp_mix(float first, float second, float share)
{
    return first + (second - first) * share;
}

/* Clipped to [0, 1]; a NaN compares false and becomes 0. */
GCPP_INLINE float gcpp_unit_interval(float value)
{
    value = value > 0 ? value : 0;
    return value < 1 ? value : 1;
}

/* round(255 v) of a v in [0, 1]. */
GCPP_INLINE uint8_t gcpp_byte_of_unit(float value)
{
    return (uint8_t)(int32_t)(255 * value + 0.5f);
}

/* Clipped to [0, 255]. */
GCPP_INLINE float gcpp_byte_range(float value)
{
    value = value > 0 ? value : 0;
    return value < 255 ? value : 255;
}

/* Red, green and blue of an NV12 pixel: BT.601, limited range. chroma: the U and V that go with it. */
GCPP_INLINE void gcpp_color_of_nv12(uint8_t y, const uint8_t chroma[2], float color[3])
{
    const float luma = 1.164f * (float)(y > 16 ? y - 16 : 0);
    const float u = (float)(chroma[0] - 128), v = (float)(chroma[1] - 128);
    color[0] = gcpp_byte_range(luma + 1.596f * v);
    color[1] = gcpp_byte_range(luma - 0.813f * v - 0.391f * u);
    color[2] = gcpp_byte_range(luma + 2.018f * u);
}

GCPP_INLINE float gcpp_grey(float red, float green, float blue)
{
    return 0.299f * red + 0.587f * green + 0.114f * blue;
}

/* By its bits: written as a choice, the compiler branches on the sign, which is a coin toss: 302 instead of 80 µs for
 * 1280 channels of 7 x 7 (gcc 12). */
GCPP_INLINE float gcpp_positive_part(float value)
{
    const uint32_t bits = gcpp_bits_from_float(value);
    return gcpp_float_from_bits(bits & ((bits >> 31) - 1));
}

/* What one position adds to the weight of its channel (Eq. 3, 5, 29). sum: ΣA of the channel. */
GCPP_INLINE float gcpp_cam_term(float gradient, float sum, gcpp_rule rule, int64_t *poles)
{
    if (rule == GCPP_GRADCAM)
        return gradient;
    const float clamped = sum < 0 ? 0 : sum; /* a NaN stays */
    const float denominator = 2 + clamped * gradient;
    if (rule == GCPP_GRADCAM_PLUS_PLUS)
        return gcpp_positive_part(gradient) / denominator; /* a NaN stays, in the denominator */
    if (fabsf(denominator) < GCPP_POLE) {
        ++*poles;
        return 0;
    }
    return gradient / denominator;
}

/* A palette entry's part of a blend, in 8.8 fixed point with the half that rounding needs. share: in 16 bits. */
GCPP_INLINE int32_t gcpp_palette_part(uint8_t color, int32_t share)
{
    return ((color * share + GCPP_HALF) >> 8) + GCPP_HALF;
}

GCPP_INLINE uint8_t gcpp_blend(uint8_t frame, int32_t keep, int32_t palette_part)
{
    return (uint8_t)(((frame * keep >> 8) + palette_part) >> 8);
}

#endif
