/* CUDA as far as our kernels use it, for a C++ compiler: the words, the indices, barriers and shuffles.
 *
 * Every thread of a block is a fiber. They run one at a time, and change at a barrier or a shuffle, where they wait for
 * one another as on a GPU (emulator.cpp). Shared memory is static: one block runs at a time, and AddressSanitizer guards it.
 */
#ifndef GCPP_SHIM_H
#define GCPP_SHIM_H

#include <cmath>
#include <cstdint>
#include <cstring>

#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(threads)

namespace emulator {

struct Index {
    unsigned x, y, z;
};

extern Index thread, block, block_size, grid_size; /* of the fiber that runs */

void wait_for_block();

/* What the lane `own ^ other` hands over. All lanes of the warp must come; lanes beyond the block's end give nothing. */
uint64_t exchange(unsigned mask, uint64_t value, int other);

}

#define threadIdx emulator::thread
#define blockIdx emulator::block
#define blockDim emulator::block_size
#define gridDim emulator::grid_size

static inline void __syncthreads()
{
    emulator::wait_for_block();
}

template <typename T>
static inline T __shfl_xor_sync(unsigned mask, T value, int other)
{
    static_assert(sizeof(T) <= sizeof(uint64_t), "a shuffle moves 64 bits at most");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = emulator::exchange(mask, bits, other);
    memcpy(&value, &bits, sizeof value);
    return value;
}

#endif
