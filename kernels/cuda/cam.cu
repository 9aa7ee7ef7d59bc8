/* cam in two launches: the weight of every channel, then for every position the weighted sum over the channels.
 *
 * Why two: a weight needs the whole channel, a map all weights. One launch would need a counter that outlives it or a
 * cooperative grid; a second launch in a graph costs about as much as either, and needs no state. Both read the activations,
 * which the network has just written: 0.4 MB of a ResNet-50 lie in the second-level cache.
 *
 * Weights: a warp a channel, since 49 positions do not fill more; 2,048 channels are 256 blocks. Early layers have
 * thousands of positions and few channels: there a block takes a channel. Neighbouring lanes read neighbouring
 * positions, four at a time where the alignment is right (never with 49 positions).
 *
 * Sums: 49 positions are little parallelism, so the channels are divided too: a block has 8 positions and 128 slices of
 * the channels (ResNet-50: 7 blocks, 16 independent loads a thread), 32 and 32 for large maps. A row of 8 positions is
 * one 32-byte sector, or two. The slices are added in a fixed order, through shuffles and one barrier.
 *
 * The count of poles is an integer a channel, added up by the second kernel: no atomics, so nothing must be zero before.
 */
#include "device.h"

enum { GCPP_SUM_WARPS = 32 /* 1,024 threads */ };

/* The sum over the threads that share a channel: a warp, or the whole block. All threads of a block must call it. */
template <typename T>
static __device__ __forceinline__ T gcpp_group_sum(T value)
{
    __shared__ T part[GCPP_WARP];
    value = gcpp_warp_sum(value);
    if (blockDim.x <= GCPP_WARP)
        return value;
    if (threadIdx.x % GCPP_WARP == 0)
        part[threadIdx.x / GCPP_WARP] = value;
    __syncthreads();
    T total = 0;
    for (unsigned warp = 0; warp < blockDim.x / GCPP_WARP; warp++)
        total += part[warp];
    __syncthreads(); /* before the next sum writes here */
    return total;
}

/* This thread's share of the sum of term(element) over a channel. */
template <typename T, typename Term>
static __device__ __forceinline__ float gcpp_sum_of(const T *channel, int64_t positions, Term term)
{
    float sum = 0;
    int64_t i = threadIdx.x;
    if (positions % 4 == 0 && gcpp_is_aligned(channel, 4 * sizeof(T))) {
        const gcpp_four<T> *const fours = reinterpret_cast<const gcpp_four<T> *>(channel);
        for (; i < positions / 4; i += blockDim.x) {
            const gcpp_four<T> four = fours[i];
            sum += (term(gcpp_load(four.values[0])) + term(gcpp_load(four.values[1])))
                   + (term(gcpp_load(four.values[2])) + term(gcpp_load(four.values[3])));
        }
        return sum;
    }
    for (; i < positions; i += blockDim.x)
        sum += term(gcpp_load(channel[i]));
    return sum;
}

template <typename A, typename G>
static __device__ __forceinline__ void gcpp_cam_weight(const gcpp_cuda_cam &arguments, int64_t map, int64_t channel,
                                                       bool is_there)
{
    const int64_t positions = is_there ? arguments.positions : 0; /* a warp without a channel only keeps the others company */
    const int64_t row = map * arguments.channels + channel;
    const A *const activations = static_cast<const A *>(arguments.activations)
                                 + (map / arguments.targets * arguments.channels + channel) * arguments.positions;
    const G *const gradients =
        static_cast<const G *>(arguments.gradients) + row * (arguments.constant_gradients ? 1 : arguments.positions);
    const gcpp_rule rule = static_cast<gcpp_rule>(arguments.rule);
    float sum = 0, weight = 0;
    int64_t poles = 0;
    if (rule != GCPP_GRADCAM)
        sum = gcpp_group_sum(gcpp_sum_of(activations, positions, [](float value) { return value; })) * arguments.unscale;
    if (!arguments.constant_gradients) {
        weight = gcpp_group_sum(gcpp_sum_of(
            gradients, positions, [&](float gradient) { return gcpp_cam_term(gradient, sum, rule, &poles); }));
        if (rule == GCPP_GRADCAM)
            weight /= (float)positions;
        if (arguments.channel_poles)
            poles = gcpp_group_sum((int32_t)poles);
    } else if (positions > 0) { /* every position has the same term */
        weight = gcpp_cam_term(gcpp_load(gradients[0]), sum, rule, &poles);
        weight *= rule == GCPP_GRADCAM ? 1 : (float)positions;
        poles *= positions;
    }
    if (!is_there || threadIdx.x != 0)
        return;
    arguments.weights[row] = arguments.positions ? weight * arguments.unscale : 0;
    if (arguments.channel_poles)
        arguments.channel_poles[row] = (int32_t)poles;
}

template <typename A, typename G>
static __device__ __forceinline__ void gcpp_cam_weights(const gcpp_cuda_cam &arguments)
{
    const int64_t channel = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
    for (int64_t map = blockIdx.y; map < arguments.maps; map += gridDim.y)
        gcpp_cam_weight<A, G>(arguments, map, channel, channel < arguments.channels);
}

#define GCPP_CAM_WEIGHTS(name, A, G)                                                                \
    extern "C" __global__ void __launch_bounds__(256) name(const gcpp_cuda_cam arguments)           \
    {                                                                                               \
        gcpp_cam_weights<A, G>(arguments);                                                          \
    }

GCPP_CAM_WEIGHTS(gcpp_cam_weights_f32_f32_cuda, float, float)
GCPP_CAM_WEIGHTS(gcpp_cam_weights_f32_f16_cuda, float, gcpp_half)
GCPP_CAM_WEIGHTS(gcpp_cam_weights_f16_f32_cuda, gcpp_half, float)
GCPP_CAM_WEIGHTS(gcpp_cam_weights_f16_f16_cuda, gcpp_half, gcpp_half)

/* The sum over the slices of the channels, for positions that neighbouring threads hold. In the first thread of every
 * warp below blockDim.x: the sum of the position with the number of the warp. */
template <typename T>
static __device__ __forceinline__ T gcpp_slice_sum(T value)
{
    __shared__ T part[GCPP_SUM_WARPS][GCPP_WARP + 1]; /* one more, so that a column lies in 32 banks */
    const int thread = threadIdx.y * blockDim.x + threadIdx.x, lane = thread % GCPP_WARP, warp = thread / GCPP_WARP;
    const int width = blockDim.x;
    for (int other = GCPP_WARP / 2; other >= width; other /= 2)
        value += __shfl_xor_sync((unsigned)GCPP_ALL_LANES, value, other);
    if (lane < width)
        part[warp][lane] = value;
    __syncthreads();
    const T total = gcpp_warp_sum(warp < width ? part[lane][warp] : T(0));
    __syncthreads();
    return total;
}

/* Every thread's share of the poles of a map; the first block of its positions writes their sum. */
static __device__ __forceinline__ void gcpp_sum_poles(const gcpp_cuda_cam &arguments, int64_t map)
{
    int64_t poles = 0;
    if (arguments.channel_poles) {
        const int thread = threadIdx.y * blockDim.x + threadIdx.x;
        for (int64_t channel = thread; channel < arguments.channels; channel += GCPP_SUM_WARPS * GCPP_WARP)
            poles += arguments.channel_poles[map * arguments.channels + channel];
        poles = gcpp_warp_sum(poles);
        poles = gcpp_slice_sum(threadIdx.x == 0 && thread % GCPP_WARP == 0 ? poles : 0);
    }
    if (threadIdx.x == 0 && threadIdx.y == 0)
        arguments.poles[map] = poles;
}

template <typename A>
static __device__ __forceinline__ void gcpp_cam_sum_of_map(const gcpp_cuda_cam &arguments, int64_t map)
{
    const int64_t position = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    const int64_t channels = arguments.channels, positions = arguments.positions;
    const float *const weights = arguments.weights + map * channels;
    float sum = 0;
    if (position < positions) {
        const A *const activations =
            static_cast<const A *>(arguments.activations) + map / arguments.targets * channels * positions + position;
#pragma unroll 8 /* loads in flight */
        for (int64_t channel = threadIdx.y; channel < channels; channel += blockDim.y)
            sum += weights[channel] * gcpp_load(activations[channel * positions]);
    }
    const float total = gcpp_slice_sum(sum);
    const int thread = threadIdx.y * blockDim.x + threadIdx.x, warp = thread / GCPP_WARP;
    const int64_t owned = (int64_t)blockIdx.x * blockDim.x + warp;
    if (thread % GCPP_WARP == 0 && warp < (int)blockDim.x && owned < positions)
        arguments.out[map * positions + owned] = arguments.relu && total < 0 ? 0 : total; /* a NaN stays */
    if (arguments.poles && blockIdx.x == 0)
        gcpp_sum_poles(arguments, map);
}

#define GCPP_CAM_SUM(name, A)                                                                        \
    extern "C" __global__ void __launch_bounds__(1024) name(const gcpp_cuda_cam arguments)           \
    {                                                                                                \
        for (int64_t map = blockIdx.y; map < arguments.maps; map += gridDim.y)                       \
            gcpp_cam_sum_of_map<A>(arguments, map);                                                  \
    }

GCPP_CAM_SUM(gcpp_cam_sum_f32_cuda, float)
GCPP_CAM_SUM(gcpp_cam_sum_f16_cuda, gcpp_half)
