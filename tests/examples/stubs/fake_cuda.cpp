// A STAND-IN for libcuda, so that the C++ example runs where there is no GPU: device memory is host memory, work is done
// when it is enqueued, a graph is a list of the calls that were recorded. Kernels go to the emulator of tests/kernels, by
// `emulate`. What the process leaves behind makes it end with 3. FAKE_INTEGRATED: as a Jetson. FAKE_REFUSES_CAPTURE.
#include <cuda.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "fake.h"

extern "C" bool emulate(const char* name, const unsigned grid[3], const unsigned block[3], const void* arguments);
extern "C" size_t emulated_arguments(const char* name);  // bytes of a kernel's struct; 0 for an unknown kernel

std::map<std::string, int> live;

namespace {

std::vector<Work>* recording = nullptr;
bool refuses_capture() { return std::getenv("FAKE_REFUSES_CAPTURE") != nullptr; }

void* take(size_t bytes, const char* kind) {
    ++live[kind];
    return std::calloc(bytes ? bytes : 1, 1);
}

void give(void* memory, const char* kind) {
    --live[kind];
    std::free(memory);
}

void* pointer(CUdeviceptr address) { return reinterpret_cast<void*>(address); }

struct AtExit {  // what the example left behind
    ~AtExit() {
        for (const auto& [kind, count] : live)
            if (count != 0) {
                std::fprintf(stderr, "LEAK: %d x %s\n", count, kind.c_str());
                std::_Exit(3);
            }
    }
} at_exit;

}  // namespace

CUresult enqueue(Work work) {
    if (recording)
        recording->push_back(std::move(work));
    else
        work();
    return CUDA_SUCCESS;
}

FAKE CUresult cuInit(unsigned) { return CUDA_SUCCESS; }
FAKE CUresult cuGetErrorString(CUresult, const char** text) { return *text = "a fault of the fake", CUDA_SUCCESS; }
FAKE CUresult cuDeviceGet(CUdevice* device, int) { return *device = 0, CUDA_SUCCESS; }
FAKE CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute, CUdevice) {
    return *value = std::getenv("FAKE_INTEGRATED") != nullptr, CUDA_SUCCESS;
}
FAKE CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice) {
    ++live["context"];
    return *context = reinterpret_cast<CUcontext>(&live), CUDA_SUCCESS;
}
FAKE CUresult cuDevicePrimaryCtxRelease(CUdevice) { return --live["context"], CUDA_SUCCESS; }
FAKE CUresult cuCtxPushCurrent(CUcontext) { return ++live["current context"], CUDA_SUCCESS; }
FAKE CUresult cuCtxPopCurrent(CUcontext* context) { return --live["current context"], *context = nullptr, CUDA_SUCCESS; }
FAKE CUresult cuMemAlloc(CUdeviceptr* address, size_t bytes) {
    return *address = reinterpret_cast<CUdeviceptr>(take(bytes, "device memory")), CUDA_SUCCESS;
}
FAKE CUresult cuMemFree(CUdeviceptr address) { return give(pointer(address), "device memory"), CUDA_SUCCESS; }
FAKE CUresult cuMemHostAlloc(void** memory, size_t bytes, unsigned) {
    return *memory = take(bytes, "host memory"), CUDA_SUCCESS;
}
FAKE CUresult cuMemFreeHost(void* memory) { return give(memory, "host memory"), CUDA_SUCCESS; }
FAKE CUresult cuMemHostGetDevicePointer(CUdeviceptr* address, void* memory, unsigned) {
    return *address = reinterpret_cast<CUdeviceptr>(memory), CUDA_SUCCESS;
}
FAKE CUresult cuMemcpyHtoD(CUdeviceptr to, const void* from, size_t bytes) {
    return std::memcpy(pointer(to), from, bytes), CUDA_SUCCESS;
}
FAKE CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void* from, size_t bytes, CUstream) {
    return enqueue([=] { std::memcpy(pointer(to), from, bytes); });
}
FAKE CUresult cuMemcpyDtoHAsync(void* to, CUdeviceptr from, size_t bytes, CUstream) {
    return enqueue([=] { std::memcpy(to, pointer(from), bytes); });
}
FAKE CUresult cuStreamCreate(CUstream* stream, unsigned) {
    return *stream = static_cast<CUstream>(take(1, "stream")), CUDA_SUCCESS;
}
FAKE CUresult cuStreamDestroy(CUstream stream) { return give(stream, "stream"), CUDA_SUCCESS; }
FAKE CUresult cuStreamSynchronize(CUstream) {
    return recording ? CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED : CUDA_SUCCESS;
}
FAKE CUresult cuStreamBeginCapture(CUstream, CUstreamCaptureMode) {
    ++live["graph"];
    return recording = new std::vector<Work>, CUDA_SUCCESS;
}
FAKE CUresult cuStreamEndCapture(CUstream, CUgraph* graph) {
    std::vector<Work>* recorded = recording;
    recording = nullptr;
    if (refuses_capture()) {
        --live["graph"];
        delete recorded;
        return *graph = nullptr, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    }
    return *graph = reinterpret_cast<CUgraph>(recorded), CUDA_SUCCESS;
}
FAKE CUresult cuGraphInstantiate(CUgraphExec* executable, CUgraph graph, unsigned long long) {
    ++live["executable graph"];
    auto* copy = new std::vector<Work>(*reinterpret_cast<std::vector<Work>*>(graph));
    return *executable = reinterpret_cast<CUgraphExec>(copy), CUDA_SUCCESS;
}
FAKE CUresult cuGraphDestroy(CUgraph graph) {
    --live["graph"];
    return delete reinterpret_cast<std::vector<Work>*>(graph), CUDA_SUCCESS;
}
FAKE CUresult cuGraphExecDestroy(CUgraphExec executable) {
    --live["executable graph"];
    return delete reinterpret_cast<std::vector<Work>*>(executable), CUDA_SUCCESS;
}
FAKE CUresult cuGraphLaunch(CUgraphExec executable, CUstream) {
    for (const Work& work : *reinterpret_cast<std::vector<Work>*>(executable)) work();
    return CUDA_SUCCESS;
}
FAKE CUresult cuModuleLoadData(CUmodule* module, const void*) {
    return *module = static_cast<CUmodule>(take(1, "module")), CUDA_SUCCESS;
}
FAKE CUresult cuModuleUnload(CUmodule module) { return give(module, "module"), CUDA_SUCCESS; }
FAKE CUresult cuModuleGetFunction(CUfunction* function, CUmodule, const char* name) {
    static std::map<std::string, int> names;
    if (emulated_arguments(name) == 0) return CUDA_ERROR_NOT_FOUND;
    *function = reinterpret_cast<CUfunction>(const_cast<char*>(names.emplace(name, 0).first->first.c_str()));
    return CUDA_SUCCESS;
}
FAKE CUresult cuLaunchKernel(CUfunction function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                             unsigned bz, unsigned, CUstream, void** parameters, void**) {
    const std::string name = reinterpret_cast<const char*>(function);
    const auto* bytes = static_cast<const uint8_t*>(parameters[0]);
    const std::vector<uint8_t> arguments(bytes, bytes + emulated_arguments(name.c_str()));
    return enqueue([=] {
        const unsigned grid[3] = {gx, gy, gz}, block[3] = {bx, by, bz};
        if (!emulate(name.c_str(), grid, block, arguments.data())) std::_Exit(4);
    });
}
