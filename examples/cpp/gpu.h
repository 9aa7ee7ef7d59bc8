// The few parts of CUDA's driver interface that a frame needs, each freed by its owner.
#pragma once

#include <cuda.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

inline void check(CUresult result, const char* what) {
    if (result == CUDA_SUCCESS) return;
    const char* text = nullptr;
    cuGetErrorString(result, &text);
    throw std::runtime_error(std::string(what) + ": " + (text ? text : "unknown CUDA error"));
}

// The primary context of the first GPU, current on this thread while it lives.
class Gpu {
public:
    Gpu() {
        check(cuInit(0), "cuInit");
        check(cuDeviceGet(&device_, 0), "cuDeviceGet");
        check(cuDevicePrimaryCtxRetain(&context_, device_), "cuDevicePrimaryCtxRetain");
        check(cuCtxPushCurrent(context_), "cuCtxPushCurrent");
        int value = 0;
        check(cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_INTEGRATED, device_), "cuDeviceGetAttribute");
        integrated = value != 0;
    }
    ~Gpu() {
        CUcontext popped;
        cuCtxPopCurrent(&popped);
        cuDevicePrimaryCtxRelease(device_);
    }
    Gpu(const Gpu&) = delete;
    bool integrated = false;  // a Jetson: the GPU reads the host's memory where it lies

private:
    CUdevice device_ = 0;
    CUcontext context_ = nullptr;
};

class DeviceMemory {
public:
    explicit DeviceMemory(size_t bytes) : bytes(bytes) { check(cuMemAlloc(&address, bytes ? bytes : 1), "cuMemAlloc"); }
    ~DeviceMemory() { cuMemFree(address); }
    DeviceMemory(const DeviceMemory&) = delete;
    CUdeviceptr address = 0;
    const size_t bytes;
};

// What crosses between host and GPU: page-locked, and on an integrated GPU mapped, so that nothing is copied.
class SharedMemory {
public:
    SharedMemory(const Gpu& gpu, size_t bytes) : bytes(bytes), mapped_(gpu.integrated) {
        check(cuMemHostAlloc(&host_, bytes, mapped_ ? CU_MEMHOSTALLOC_DEVICEMAP : 0), "cuMemHostAlloc");
        check(mapped_ ? cuMemHostGetDevicePointer(&address, host_, 0) : cuMemAlloc(&address, bytes), "memory");
    }
    ~SharedMemory() {
        if (!mapped_) cuMemFree(address);
        cuMemFreeHost(host_);
    }
    SharedMemory(const SharedMemory&) = delete;
    uint8_t* host() const { return static_cast<uint8_t*>(host_); }
    void send(CUstream stream) const {
        if (!mapped_) check(cuMemcpyHtoDAsync(address, host_, bytes, stream), "copy in");
    }
    void fetch(CUstream stream) const {
        if (!mapped_) check(cuMemcpyDtoHAsync(host_, address, bytes, stream), "copy out");
    }
    CUdeviceptr address = 0;
    const size_t bytes;

private:
    const bool mapped_;
    void* host_ = nullptr;
};

class Stream {
public:
    Stream() { check(cuStreamCreate(&handle, CU_STREAM_NON_BLOCKING), "cuStreamCreate"); }
    ~Stream() { cuStreamDestroy(handle); }
    Stream(const Stream&) = delete;
    void wait() const { check(cuStreamSynchronize(handle), "the frame"); }
    CUstream handle = nullptr;
};

struct Size {
    unsigned x = 1, y = 1, z = 1;
};

// Kernels of a fatbin, by name. Each takes one struct by value.
class Kernels {
public:
    explicit Kernels(const std::vector<uint8_t>& image) { check(cuModuleLoadData(&module_, image.data()), "the fatbin"); }
    ~Kernels() { cuModuleUnload(module_); }
    Kernels(const Kernels&) = delete;

    template <typename Arguments>
    void launch(const std::string& name, Size grid, Size block, const Arguments& arguments, const Stream& stream) const {
        CUfunction function;
        check(cuModuleGetFunction(&function, module_, name.c_str()), name.c_str());
        void* parameters[] = {const_cast<Arguments*>(&arguments)};
        check(cuLaunchKernel(function, grid.x, grid.y, grid.z, block.x, block.y, block.z, 0, stream.handle, parameters,
                             nullptr),
              name.c_str());
    }

private:
    CUmodule module_ = nullptr;
};

// A frame's work, recorded once and replayed. Where recording is refused, `recorded` is false and the work is done anew.
class Frame {
public:
    Frame(const Stream& stream, std::function<void()> work) : stream_(stream), work_(std::move(work)) {
        work_();  // before it is recorded: TensorRT finishes its own set-up in the first run
        stream_.wait();
        CUgraph graph = nullptr;
        check(cuStreamBeginCapture(stream_.handle, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL), "cuStreamBeginCapture");
        try {
            work_();
        } catch (const std::runtime_error&) {  // the capture is ended below, whatever happened
        }
        recorded = cuStreamEndCapture(stream_.handle, &graph) == CUDA_SUCCESS && graph != nullptr &&
                   cuGraphInstantiate(&executable_, graph, 0) == CUDA_SUCCESS;
        if (graph) cuGraphDestroy(graph);
    }
    ~Frame() {
        if (executable_) cuGraphExecDestroy(executable_);
    }
    Frame(const Frame&) = delete;
    void run() const {
        if (recorded)
            check(cuGraphLaunch(executable_, stream_.handle), "cuGraphLaunch");
        else
            work_();
        stream_.wait();
    }
    bool recorded = false;

private:
    const Stream& stream_;
    const std::function<void()> work_;
    CUgraphExec executable_ = nullptr;
};
