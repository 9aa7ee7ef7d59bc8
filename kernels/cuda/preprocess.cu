/* preprocess: a frame of any format to the network's planes. A thread a pixel of the network, all its channels: it reads
 * 2 x 2 pixels of the frame, and a warp writes 32 neighbours of each plane. */
#include "device.h"

enum { GCPP_PLANES = 4 };

/* How a pixel lies in memory, and which of its planes is what. */
struct gcpp_layout {
    int pixel_bytes, planes;
    bool is_grey, is_red_first;
};

static __device__ __forceinline__ gcpp_layout gcpp_layout_of(int format)
{
    switch (format) {
    case GCPP_BGR:
        return {3, 3, false, false};
    case GCPP_RGB:
        return {3, 3, false, true};
    case GCPP_BGRA:
        return {4, 4, false, false};
    case GCPP_RGBA:
        return {4, 4, false, true};
    case GCPP_GRAY:
        return {1, 1, true, false};
    case GCPP_GRAY16:
        return {2, 1, true, false};
    default:
        return {1, 3, false, true}; /* NV12: its plane of luma, and what becomes of it */
    }
}

/* The planes of one pixel of the frame, 0 to 255, or to 65535 of GRAY16. */
static __device__ __forceinline__ void gcpp_pixel(const gcpp_cuda_preprocess &arguments, const gcpp_layout &layout, int y,
                                                  int x, float (&planes)[GCPP_PLANES])
{
    const uint8_t *const pixel = arguments.frame + y * arguments.row_stride_bytes + (int64_t)x * layout.pixel_bytes;
    if (arguments.format == GCPP_GRAY16) {
        planes[0] = *reinterpret_cast<const uint16_t *>(pixel);
    } else if (arguments.format == GCPP_NV12) {
        gcpp_color_of_nv12(*pixel, arguments.frame + (arguments.height + y / 2) * arguments.row_stride_bytes + (x & ~1), planes);
    } else {
        for (int plane = 0; plane < GCPP_PLANES; plane++)
            planes[plane] = plane < layout.planes ? pixel[plane] : 0;
    }
}

/* The planes at column taps `x` of one row of the frame. */
static __device__ __forceinline__ void gcpp_row_pixel(const gcpp_cuda_preprocess &arguments, const gcpp_layout &layout, int y,
                                                      const gcpp_taps &x, float (&planes)[GCPP_PLANES])
{
    float first[GCPP_PLANES] = {0, 0, 0, 0}, second[GCPP_PLANES] = {0, 0, 0, 0};
    gcpp_pixel(arguments, layout, y, x.first, first);
    gcpp_pixel(arguments, layout, y, x.second, second);
    for (int plane = 0; plane < GCPP_PLANES; plane++)
        planes[plane] = gcpp_mix(first[plane], second[plane], x.share) * (arguments.format == GCPP_GRAY16 ? 1.0f / 257 : 1);
}

/* A pixel's planes in the network's order. */
static __device__ __forceinline__ void gcpp_reorder(const gcpp_layout &layout, int color, float (&planes)[GCPP_PLANES])
{
    const float red = planes[layout.is_grey || layout.is_red_first ? 0 : 2], green = planes[layout.is_grey ? 0 : 1];
    const float blue = planes[layout.is_grey || !layout.is_red_first ? 0 : 2];
    const float alpha = layout.planes == 4 ? planes[3] : 255;
    const bool wants_red_first = color == GCPP_RGB || color == GCPP_RGBA;
    if (color == GCPP_GRAY) {
        planes[0] = layout.is_grey ? planes[0] : gcpp_grey(red, green, blue);
        return;
    }
    planes[0] = wants_red_first ? red : blue;
    planes[1] = green;
    planes[2] = wants_red_first ? blue : red;
    planes[3] = alpha;
}

static __device__ __forceinline__ int gcpp_channels_of(int color)
{
    return color == GCPP_GRAY ? 1 : color == GCPP_RGBA || color == GCPP_BGRA ? 4 : 3;
}

template <typename T>
static __device__ __forceinline__ void gcpp_preprocess(const gcpp_cuda_preprocess &arguments)
{
    __shared__ gcpp_tile<GCPP_CUDA_COLUMNS> tile;
    gcpp_fill_tile(tile, arguments.rows, arguments.columns, arguments.height, arguments.width);
    __syncthreads();
    const int x = blockIdx.x * GCPP_CUDA_COLUMNS + threadIdx.x, y = blockIdx.y * GCPP_CUDA_ROWS + threadIdx.y;
    if (x >= arguments.out_width || y >= arguments.out_height)
        return;
    const bool is_seen = gcpp_is_seen(arguments.rows, y) && gcpp_is_seen(arguments.columns, x);
    const gcpp_layout layout = gcpp_layout_of(arguments.format);
    float upper[GCPP_PLANES] = {0, 0, 0, 0}, lower[GCPP_PLANES] = {0, 0, 0, 0}, share = 0;
    if (is_seen) {
        const gcpp_taps rows = tile.rows[threadIdx.y], columns = tile.columns[threadIdx.x];
        share = rows.share;
        gcpp_row_pixel(arguments, layout, rows.first, columns, upper);
        gcpp_row_pixel(arguments, layout, rows.second, columns, lower);
        gcpp_reorder(layout, arguments.color, upper);
        gcpp_reorder(layout, arguments.color, lower);
    }
    T *const out = static_cast<T *>(arguments.out) + (int64_t)y * arguments.out_width + x;
    const int64_t plane = (int64_t)arguments.out_height * arguments.out_width;
#pragma unroll
    for (int channel = 0; channel < GCPP_PLANES; channel++) {
        const float pixel = is_seen ? gcpp_mix(upper[channel], lower[channel], share) : arguments.fill[channel];
        if (channel < gcpp_channels_of(arguments.color))
            gcpp_store(out + channel * plane, pixel * arguments.scale[channel] + arguments.bias[channel]);
    }
}

extern "C" __global__ void __launch_bounds__(256) gcpp_preprocess_f32_cuda(const gcpp_cuda_preprocess arguments)
{
    gcpp_preprocess<float>(arguments);
}

extern "C" __global__ void __launch_bounds__(256) gcpp_preprocess_f16_cuda(const gcpp_cuda_preprocess arguments)
{
    gcpp_preprocess<gcpp_half>(arguments);
}
