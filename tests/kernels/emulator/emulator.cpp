/* Runs the CUDA kernels on the CPU: a fiber a thread, a block at a time, threads in order or backwards.
 *
 * Wrong synchronisation is an error here, where a GPU would hang or go on with garbage: a barrier that some threads
 * of a block do not reach, a shuffle that some lanes of a warp do not take part in. What a missing barrier breaks shows as
 * another result when the threads run backwards.
 */
#include "shim.h"

#include "gcpp.cu"

#include <sys/mman.h>

#include <cstdio>
#include <mutex>
#include <stdexcept>
#include <string>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace emulator {

Index thread, block, block_size, grid_size;

namespace {

enum { MAX_THREADS = 1024, WARP = 32, STACK_BYTES = 64 * 1024 };
enum State { READY, AT_BARRIER, AT_SHUFFLE, DONE };

#if defined(__x86_64__)
/* swapcontext saves the signal mask with a system call, which takes thirty times as long as this. */
typedef void *Context;

extern "C" void gcpp_emulator_switch(Context *from, Context to);
asm(R"(
.text
.globl gcpp_emulator_switch
.hidden gcpp_emulator_switch
.type gcpp_emulator_switch, @function
gcpp_emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size gcpp_emulator_switch, . - gcpp_emulator_switch
)");

void start(Context &context, char *stack, size_t bytes, void (*body)())
{
    void **top = reinterpret_cast<void **>(stack + bytes);
    *--top = nullptr; /* where body would return to */
    *--top = reinterpret_cast<void *>(body);
    for (int saved = 0; saved < 6; saved++)
        *--top = nullptr;
    context = top;
}

void change(Context &from, Context &to)
{
    gcpp_emulator_switch(&from, to);
}
#else
typedef ucontext_t Context;

void start(Context &context, char *stack, size_t bytes, void (*body)())
{
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = bytes;
    context.uc_link = nullptr;
    makecontext(&context, body, 0);
}

void change(Context &from, Context &to)
{
    swapcontext(&from, &to);
}
#endif

struct Fiber {
    Context context;
    Index index;
    State state;
    int parity;        /* of its shuffles: two banks of slots, so that one is read while the next is written */
    uint64_t slots[2];
};

struct Kernel {
    const char *name;
    void (*run)(const void *arguments);
    size_t bytes;
};

Fiber fibers[MAX_THREADS];
Context scheduler;
char *stacks = nullptr;
int current, threads, started;
const Kernel *kernel;
const void *arguments;

/* A fiber lives on from block to block. */
void body()
{
    for (;;) {
        kernel->run(arguments);
        fibers[current].state = DONE;
        change(fibers[current].context, scheduler);
    }
}

void pause(State state)
{
    fibers[current].state = state;
    change(fibers[current].context, scheduler);
}

void resume(int index)
{
    current = index;
    thread = fibers[index].index;
    change(scheduler, fibers[index].context);
}

void start_fibers()
{
    if (!stacks) {
        void *const memory = mmap(nullptr, size_t(MAX_THREADS) * STACK_BYTES, PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED)
            throw std::runtime_error("no memory for the stacks of the threads");
        stacks = static_cast<char *>(memory);
    }
#if defined(__SANITIZE_ADDRESS__) /* of threads that were given up in the middle of a function */
    if (started == 0)
        __asan_unpoison_memory_region(stacks, size_t(MAX_THREADS) * STACK_BYTES);
#endif
    for (; started < threads; started++) /* tops apart from one another, so that they do not share a cache set */
        start(fibers[started].context, stacks + size_t(started) * STACK_BYTES, STACK_BYTES - started % 64 * 320,
              body);
}

int count_in(State state, int first, int last)
{
    int count = 0;
    for (int i = first; i < last; i++)
        count += fibers[i].state == state;
    return count;
}

/* Runs a warp until all its threads are at a barrier or done. */
void run_warp(int first, int last, bool backwards)
{
    for (;;) {
        for (int i = 0; i < last - first; i++) {
            const int index = backwards ? last - 1 - i : first + i;
            if (fibers[index].state == READY)
                resume(index);
        }
        const int waiting = count_in(AT_SHUFFLE, first, last);
        if (waiting == 0)
            return;
        if (waiting != last - first)
            throw std::runtime_error("a shuffle that some lanes of the warp do not take part in");
        for (int i = first; i < last; i++)
            fibers[i].state = READY;
    }
}

void run_block(bool backwards)
{
    for (int i = 0; i < threads; i++) {
        const unsigned number = unsigned(i);
        fibers[i].index = {number % block_size.x, number / block_size.x % block_size.y,
                           number / block_size.x / block_size.y};
        fibers[i].state = READY;
        fibers[i].parity = 0;
    }
    const int warps = (threads + WARP - 1) / WARP;
    for (;;) {
        for (int i = 0; i < warps; i++) {
            const int first = (backwards ? warps - 1 - i : i) * WARP;
            run_warp(first, first + WARP < threads ? first + WARP : threads, backwards);
        }
        const int waiting = count_in(AT_BARRIER, 0, threads);
        if (waiting == 0)
            return;
        if (waiting != threads)
            throw std::runtime_error("a barrier that some threads of the block do not reach");
        for (int i = 0; i < threads; i++)
            fibers[i].state = READY;
    }
}

void run_grid(bool backwards)
{
    const uint64_t blocks = uint64_t(grid_size.x) * grid_size.y * grid_size.z;
    start_fibers();
    for (uint64_t i = 0; i < blocks; i++) {
        const uint64_t number = backwards ? blocks - 1 - i : i;
        block = {unsigned(number % grid_size.x), unsigned(number / grid_size.x % grid_size.y),
                 unsigned(number / grid_size.x / grid_size.y)};
        run_block(backwards);
    }
}

template <auto FUNCTION, typename Arguments>
void call(const void *bytes)
{
    Arguments copy;
    memcpy(&copy, bytes, sizeof copy);
    FUNCTION(copy);
}

/* Kernels of the emulator's own tests: they reverse a block's values, through shared memory and through shuffles. */
struct Reversal {
    const int32_t *values;
    int32_t *out;
    int32_t fault;
};

void reverse_in_block(const Reversal reversal)
{
    __shared__ int32_t shared[MAX_THREADS];
    shared[threadIdx.x] = reversal.values[blockIdx.x * blockDim.x + threadIdx.x];
    if (!reversal.fault || threadIdx.x % 2)
        __syncthreads();
    reversal.out[blockIdx.x * blockDim.x + threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x];
}

void reverse_in_warp(const Reversal reversal)
{
    int32_t value = reversal.values[blockIdx.x * blockDim.x + threadIdx.x];
    if (!reversal.fault || threadIdx.x % 2)
        for (int other = 1; other < WARP; other *= 2)
            value = __shfl_xor_sync(~0u, value, other);
    reversal.out[blockIdx.x * blockDim.x + threadIdx.x] = value;
}

#define KERNEL(name, Arguments) {#name, call<name, Arguments>, sizeof(Arguments)}

const Kernel kernels[] = {
    KERNEL(gcpp_cam_weights_f32_f32_cuda, gcpp_cuda_cam),
    KERNEL(gcpp_cam_weights_f32_f16_cuda, gcpp_cuda_cam),
    KERNEL(gcpp_cam_weights_f16_f32_cuda, gcpp_cuda_cam),
    KERNEL(gcpp_cam_weights_f16_f16_cuda, gcpp_cuda_cam),
    KERNEL(gcpp_cam_sum_f32_cuda, gcpp_cuda_cam),
    KERNEL(gcpp_cam_sum_f16_cuda, gcpp_cuda_cam),
    KERNEL(gcpp_range_f32_cuda, gcpp_cuda_range),
    KERNEL(gcpp_heatmap_f32_cuda, gcpp_cuda_heatmap),
    KERNEL(gcpp_heatmap_u8_cuda, gcpp_cuda_heatmap),
    KERNEL(gcpp_overlay_u8_cuda, gcpp_cuda_overlay),
    KERNEL(gcpp_guided_f32_cuda, gcpp_cuda_guided),
    KERNEL(gcpp_guided_f16_cuda, gcpp_cuda_guided),
    KERNEL(gcpp_preprocess_f32_cuda, gcpp_cuda_preprocess),
    KERNEL(gcpp_preprocess_f16_cuda, gcpp_cuda_preprocess),
    KERNEL(reverse_in_block, Reversal),
    KERNEL(reverse_in_warp, Reversal),
};

const Kernel &find(const std::string &name)
{
    for (const Kernel &found : kernels)
        if (name == found.name)
            return found;
    throw std::runtime_error("no kernel of this name");
}

void check(const Kernel &found, size_t bytes)
{
    const uint64_t count = uint64_t(block_size.x) * block_size.y * block_size.z;
    if (bytes != found.bytes)
        throw std::runtime_error("arguments of " + std::to_string(bytes) + " bytes instead of "
                                 + std::to_string(found.bytes));
    if (count == 0 || count > MAX_THREADS || grid_size.x == 0 || grid_size.y == 0 || grid_size.z == 0
        || grid_size.x > 0x7fffffffu || grid_size.y > 65535 || grid_size.z > 65535)
        throw std::runtime_error("a grid or block that CUDA refuses");
    threads = int(count);
}

std::mutex one_launch;

}

void wait_for_block()
{
    pause(AT_BARRIER);
}

uint64_t exchange(unsigned mask, uint64_t value, int other)
{
    const int own = current, partner = own ^ other;
    Fiber &fiber = fibers[own];
    const int bank = fiber.parity;
    fiber.parity ^= 1;
    fiber.slots[bank] = value;
    pause(mask == ~0u ? AT_SHUFFLE : DONE); /* a part of a warp is more than our kernels need */
    return partner < threads ? fibers[partner].slots[bank] : value;
}

}

/* 0, or 1 with what is wrong in `message`. */
extern "C" int gcpp_emulator_launch(const char *name, const unsigned grid[3], const unsigned block[3], unsigned shared_bytes,
                                    const void *arguments, size_t bytes, int backwards, char *message, size_t size)
{
    const std::lock_guard<std::mutex> lock(emulator::one_launch);
    try {
        emulator::grid_size = {grid[0], grid[1], grid[2]};
        emulator::block_size = {block[0], block[1], block[2]};
        emulator::kernel = &emulator::find(name);
        emulator::arguments = arguments;
        emulator::check(*emulator::kernel, bytes);
        if (shared_bytes)
            throw std::runtime_error("dynamic shared memory, which none of the kernels takes");
        emulator::run_grid(backwards != 0);
        return 0;
    } catch (const std::exception &error) {
        emulator::started = 0; /* threads that wait for ever are given up */
        snprintf(message, size, "%s: %s", name, error.what());
        return 1;
    }
}
