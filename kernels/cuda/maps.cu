/* range, heatmap, overlay and guided: a small map under a large picture.
 *
 * Nothing but the picture is large: the map stays in the first-level cache, and a block works out once where its rows and
 * columns lie on the map. Where pixels are floats, a warp is 32 neighbours of a row; where they are bytes, a thread has four
 * neighbours, so that a warp still moves 128 bytes or more at once (12 of a BGR picture a thread, in three words).
 */
#include "device.h"

/* The range of a map from the numbers in it; a NaN is passed over. */
extern "C" __global__ void __launch_bounds__(GCPP_CUDA_RANGE_THREADS) gcpp_range_f32_cuda(const gcpp_cuda_range arguments)
{
    __shared__ float lows[GCPP_WARP], highs[GCPP_WARP];
    const float endless = gcpp_float_from_bits(0x7f800000u);
    const float *const values = arguments.values + (int64_t)blockIdx.x * arguments.positions;
    float low = endless, high = -endless;
    for (int64_t i = threadIdx.x; i < arguments.positions; i += blockDim.x) {
        low = fminf(low, values[i]);
        high = fmaxf(high, values[i]);
    }
    for (int other = GCPP_WARP / 2; other > 0; other /= 2) {
        low = fminf(low, __shfl_xor_sync((unsigned)GCPP_ALL_LANES, low, other));
        high = fmaxf(high, __shfl_xor_sync((unsigned)GCPP_ALL_LANES, high, other));
    }
    if (threadIdx.x % GCPP_WARP == 0) {
        lows[threadIdx.x / GCPP_WARP] = low;
        highs[threadIdx.x / GCPP_WARP] = high;
    }
    __syncthreads();
    if (threadIdx.x != 0)
        return;
    for (unsigned warp = 1; warp < blockDim.x / GCPP_WARP; warp++) {
        low = fminf(low, lows[warp]);
        high = fmaxf(high, highs[warp]);
    }
    const bool is_empty = low > high; /* no number at all */
    arguments.out[2 * blockIdx.x] = is_empty || arguments.zero_low ? 0 : low;
    arguments.out[2 * blockIdx.x + 1] = is_empty ? 0 : high;
}

template <int COLUMNS>
struct gcpp_map_tile {
    gcpp_tile<COLUMNS> taps;
    gcpp_normal normal;
};

/* All threads fill the tile, and may read it when this returns. */
template <int COLUMNS>
static __device__ __forceinline__ void gcpp_open(gcpp_map_tile<COLUMNS> &tile, const gcpp_cuda_map &map)
{
    gcpp_fill_tile(tile.taps, map.rows, map.columns, map.height, map.width);
    if (threadIdx.y == blockDim.y - 1 && threadIdx.x == blockDim.x - 1) /* a thread that has no row and no column */
        tile.normal = gcpp_normal_of(map);
    __syncthreads();
}

/* v at a seen pixel, by its row and column in the tile. */
template <int COLUMNS>
static __device__ __forceinline__ float gcpp_value(const gcpp_map_tile<COLUMNS> &tile, const gcpp_cuda_map &map, int row,
                                                   int column)
{
    const gcpp_taps y = tile.taps.rows[row], x = tile.taps.columns[column];
    const float *const upper = map.values + (int64_t)y.first * map.width;
    const float *const lower = map.values + (int64_t)y.second * map.width;
    const float above = gcpp_mix(gcpp_normalised(upper[x.first], tile.normal),
                                 gcpp_normalised(upper[x.second], tile.normal), x.share);
    const float below = gcpp_mix(gcpp_normalised(lower[x.first], tile.normal),
                                 gcpp_normalised(lower[x.second], tile.normal), x.share);
    return gcpp_unit_interval(gcpp_mix(above, below, y.share));
}

extern "C" __global__ void __launch_bounds__(256) gcpp_heatmap_f32_cuda(const gcpp_cuda_heatmap arguments)
{
    __shared__ gcpp_map_tile<GCPP_CUDA_COLUMNS> tile;
    const gcpp_cuda_map &map = arguments.map;
    gcpp_open(tile, map);
    const int x = blockIdx.x * GCPP_CUDA_COLUMNS + threadIdx.x, y = blockIdx.y * GCPP_CUDA_ROWS + threadIdx.y;
    if (x >= arguments.width || y >= arguments.height)
        return;
    const bool is_seen = gcpp_is_seen(map.rows, y) && gcpp_is_seen(map.columns, x);
    static_cast<float *>(arguments.out)[(int64_t)y * arguments.width + x] =
        is_seen ? gcpp_value(tile, map, threadIdx.y, threadIdx.x) : 0;
}

/* Bytes of memory as words of four, where address and count allow it, else one by one. */
template <int COUNT>
static __device__ __forceinline__ void gcpp_load_bytes(const uint8_t *address, int count, uint8_t (&bytes)[COUNT])
{
    typedef gcpp_four<uint8_t> word;
    if (count == COUNT && gcpp_is_aligned(address, sizeof(word))) {
        for (int i = 0; i < COUNT / 4; i++) {
            const word four = reinterpret_cast<const word *>(address)[i];
            for (int j = 0; j < 4; j++)
                bytes[4 * i + j] = four.values[j];
        }
        return;
    }
    for (int i = 0; i < COUNT; i++)
        bytes[i] = i < count ? address[i] : 0;
}

template <int COUNT>
static __device__ __forceinline__ void gcpp_store_bytes(uint8_t *address, int count, const uint8_t (&bytes)[COUNT])
{
    typedef gcpp_four<uint8_t> word;
    if (count == COUNT && gcpp_is_aligned(address, sizeof(word))) {
        for (int i = 0; i < COUNT / 4; i++) {
            word four;
            for (int j = 0; j < 4; j++)
                four.values[j] = bytes[4 * i + j];
            reinterpret_cast<word *>(address)[i] = four;
        }
        return;
    }
    for (int i = 0; i < COUNT; i++)
        if (i < count)
            address[i] = bytes[i];
}

enum { GCPP_NEIGHBOURS = GCPP_CUDA_BYTE_COLUMNS / 32 /* pixels of a thread where they are bytes */ };

extern "C" __global__ void __launch_bounds__(256) gcpp_heatmap_u8_cuda(const gcpp_cuda_heatmap arguments)
{
    __shared__ gcpp_map_tile<GCPP_CUDA_BYTE_COLUMNS> tile;
    const gcpp_cuda_map &map = arguments.map;
    gcpp_open(tile, map);
    const int column = threadIdx.x * GCPP_NEIGHBOURS;
    const int x = blockIdx.x * GCPP_CUDA_BYTE_COLUMNS + column, y = blockIdx.y * GCPP_CUDA_ROWS + threadIdx.y;
    if (x >= arguments.width || y >= arguments.height)
        return;
    const int count = arguments.width - x < GCPP_NEIGHBOURS ? arguments.width - x : GCPP_NEIGHBOURS;
    uint8_t bytes[GCPP_NEIGHBOURS];
    for (int i = 0; i < GCPP_NEIGHBOURS; i++) {
        const bool is_seen = i < count && gcpp_is_seen(map.rows, y) && gcpp_is_seen(map.columns, x + i);
        bytes[i] = is_seen ? gcpp_byte_of_unit(gcpp_value(tile, map, threadIdx.y, column + i)) : 0;
    }
    gcpp_store_bytes(static_cast<uint8_t *>(arguments.out) + (int64_t)y * arguments.width + x, count, bytes);
}

template <int CHANNELS>
static __device__ __forceinline__ void gcpp_blend_pixels(const gcpp_cuda_overlay &arguments,
                                                         const gcpp_map_tile<GCPP_CUDA_BYTE_COLUMNS> &tile, int x, int y)
{
    const gcpp_cuda_map &map = arguments.map;
    const int count = arguments.width - x < GCPP_NEIGHBOURS ? arguments.width - x : GCPP_NEIGHBOURS;
    const int share = GCPP_ONE - arguments.keep;
    uint8_t pixels[GCPP_NEIGHBOURS * CHANNELS];
    gcpp_load_bytes(arguments.frame + y * arguments.frame_stride_bytes + (int64_t)x * CHANNELS, count * CHANNELS, pixels);
    for (int i = 0; i < GCPP_NEIGHBOURS; i++) {
        uint8_t *const pixel = pixels + i * CHANNELS;
        if (i < count && gcpp_is_seen(map.rows, y) && gcpp_is_seen(map.columns, x + i)) {
            const int column = threadIdx.x * GCPP_NEIGHBOURS + i;
            const uint8_t *const color = arguments.palette + 3 * gcpp_byte_of_unit(gcpp_value(tile, map, threadIdx.y, column));
            for (int c = 0; c < 3; c++)
                pixel[c] = gcpp_blend(pixel[c], arguments.keep, gcpp_palette_part(color[c], share));
        } else {
            for (int c = 0; c < 3; c++)
                pixel[c] = gcpp_blend(pixel[c], arguments.keep_unseen, GCPP_HALF);
        }
    }
    gcpp_store_bytes(arguments.out + y * arguments.out_stride_bytes + (int64_t)x * CHANNELS, count * CHANNELS, pixels);
}

extern "C" __global__ void __launch_bounds__(256) gcpp_overlay_u8_cuda(const gcpp_cuda_overlay arguments)
{
    __shared__ gcpp_map_tile<GCPP_CUDA_BYTE_COLUMNS> tile;
    gcpp_open(tile, arguments.map);
    const int x = blockIdx.x * GCPP_CUDA_BYTE_COLUMNS + threadIdx.x * GCPP_NEIGHBOURS;
    const int y = blockIdx.y * GCPP_CUDA_ROWS + threadIdx.y;
    if (x >= arguments.width || y >= arguments.height)
        return;
    if (arguments.channels == 3)
        gcpp_blend_pixels<3>(arguments, tile, x, y);
    else
        gcpp_blend_pixels<4>(arguments, tile, x, y);
}

template <typename T>
static __device__ __forceinline__ void gcpp_guided(const gcpp_cuda_guided &arguments)
{
    __shared__ gcpp_map_tile<GCPP_CUDA_COLUMNS> tile;
    const gcpp_cuda_map &map = arguments.map;
    gcpp_open(tile, map);
    const int x = blockIdx.x * GCPP_CUDA_COLUMNS + threadIdx.x, y = blockIdx.y * GCPP_CUDA_ROWS + threadIdx.y;
    if (x >= arguments.width || y >= arguments.height)
        return;
    const bool is_seen = gcpp_is_seen(map.rows, y) && gcpp_is_seen(map.columns, x);
    const float value = is_seen ? gcpp_value(tile, map, threadIdx.y, threadIdx.x) : 0;
    const int64_t plane = (int64_t)arguments.height * arguments.width, pixel = (int64_t)y * arguments.width + x;
    for (int c = 0; c < arguments.channels; c++)
        arguments.out[c * plane + pixel] = value * gcpp_load(static_cast<const T *>(arguments.image)[c * plane + pixel]);
}

extern "C" __global__ void __launch_bounds__(256) gcpp_guided_f32_cuda(const gcpp_cuda_guided arguments)
{
    gcpp_guided<float>(arguments);
}

extern "C" __global__ void __launch_bounds__(256) gcpp_guided_f16_cuda(const gcpp_cuda_guided arguments)
{
    gcpp_guided<gcpp_half>(arguments);
}
