/* What several kernels need on the device: element types, sums over a warp, a tile of pixels on its map. */
#ifndef GCPP_DEVICE_H
#define GCPP_DEVICE_H

#include "gcpp_cuda.h"

#if !defined(__CUDACC__) /* the emulator (tests/kernels/emulator), where these are ordinary C++ */
#include "half.h"
#endif

enum { GCPP_WARP = 32, GCPP_ALL_LANES = -1 };

/* A float16 in memory. By instructions and not by cuda_fp16.h, which NVRTC does not bring along. */
struct gcpp_half {
    uint16_t bits;
};

static __device__ __forceinline__ float gcpp_load(float value)
{
    return value;
}

static __device__ __forceinline__ float gcpp_load(gcpp_half value)
{
#if defined(__CUDACC__)
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
    return result;
#else
    return gcpp_float_from_half(value.bits);
#endif
}

static __device__ __forceinline__ void gcpp_store(float *address, float value)
{
    *address = value;
}

static __device__ __forceinline__ void gcpp_store(gcpp_half *address, float value)
{
#if defined(__CUDACC__)
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(address->bits) : "f"(value));
#else
    address->bits = gcpp_half_from_float(value);
#endif
}

/* Four neighbours in one load. */
template <typename T>
struct alignas(4 * sizeof(T)) gcpp_four {
    T values[4];
};

static __device__ __forceinline__ bool gcpp_is_aligned(const void *address, int bytes)
{
    return ((unsigned long long)address & (unsigned long long)(bytes - 1)) == 0;
}

/* The sum over the lanes of a warp, in every lane. */
template <typename T>
static __device__ __forceinline__ T gcpp_warp_sum(T value)
{
    for (int other = GCPP_WARP / 2; other > 0; other /= 2)
        value += __shfl_xor_sync((unsigned)GCPP_ALL_LANES, value, other);
    return value;
}

/* The range of a map as factors: v = ((x * scale - low) - low_rest) * factor. In float32, and yet as exact as the C
 * code's double division: scale is the power of two that brings high - low near 1, so that neither a denormal range nor
 * one beyond float32 is lost, and low is held in two parts, since a small range may lie far from 0. */
struct gcpp_normal {
    float scale, low, low_rest, factor;
};

static __device__ inline gcpp_normal gcpp_normal_of(const gcpp_cuda_map &map)
{
    const double low = map.limits ? (double)map.limits[0] : map.low;
    const double high = map.limits ? (double)map.limits[1] : map.high;
    if (!(high > low))
        return {0, 0, 0, 0};
    const double range = high - low;
    const int exponent = range < 1e300 ? ilogb(range) : 0;
    const double scale = ldexp(1.0, exponent < -127 ? 127 : exponent > 128 ? -128 : -exponent);
    const double scaled = low * scale;
    const float near = (float)scaled;
    return {(float)scale, near, (float)(scaled - near), (float)(1 / (range * scale))};
}

static __device__ __forceinline__ float gcpp_normalised(float value, const gcpp_normal &normal)
{
    return ((value * normal.scale - normal.low) - normal.low_rest) * normal.factor;
}

/* Where the pixels of a block's tile lie on the source. One thread a row or column works that out, in double: on most
 * boards double is 32 or 64 times as slow as float, and so it costs a thirtieth. */
template <int COLUMNS>
struct gcpp_tile {
    gcpp_taps rows[GCPP_CUDA_ROWS], columns[COLUMNS];
};

static __device__ __forceinline__ bool gcpp_is_seen(const gcpp_axis &axis, int index)
{
    return index >= axis.start && index < axis.stop;
}

/* All threads of a block fill its tile; they meet at a barrier before it is read. */
template <int COLUMNS>
static __device__ __forceinline__ void gcpp_fill_tile(gcpp_tile<COLUMNS> &tile, const gcpp_axis &rows,
                                                      const gcpp_axis &columns, int height, int width)
{
    const int thread = threadIdx.y * blockDim.x + threadIdx.x;
    if (thread < COLUMNS) {
        const int x = blockIdx.x * COLUMNS + thread;
        if (gcpp_is_seen(columns, x))
            tile.columns[thread] = gcpp_taps_at(&columns, x, width);
    } else if (thread < COLUMNS + GCPP_CUDA_ROWS) {
        const int y = blockIdx.y * GCPP_CUDA_ROWS + thread - COLUMNS;
        if (gcpp_is_seen(rows, y))
            tile.rows[thread - COLUMNS] = gcpp_taps_at(&rows, y, height);
    }
}

#endif
