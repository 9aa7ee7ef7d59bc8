/* A libcuda.so.1 whose device memory is host memory: so that PyCUDA and cuda-bindings themselves, and what our driver
 * asks of them, run on a machine without a GPU. Work is done at once, or noted down while its stream is captured.
 *
 * Kernels: any name; each takes {float *source; float *target; uint64_t count} and doubles. FAKE_LOST=n makes the n-th
 * launch fail for good. fake_report() says what was not given back, and what was done out of turn.
 */
#define _GNU_SOURCE
#include <cuda.h>
#undef cuGetProcAddress
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct op {
    int kind; /* 0 copy, 1 zero, 2 kernel */
    char *target;
    const char *source;
    size_t bytes, target_pitch, source_pitch, rows;
    struct op *next;
} op;

struct CUstream_st { int capturing, invalid; op *first, **last; };
struct CUgraph_st { op *first; };
struct CUgraphExec_st { op *first; };

static int retained, memory, pinned, streams, events, modules, graphs, executables, launches, lost, strays;
static __thread CUcontext stack[8];
static __thread int depth;
static int the_context;

#define CURRENT do { if (!depth) { strays++; return CUDA_ERROR_INVALID_CONTEXT; } if (lost) return CUDA_ERROR_ILLEGAL_ADDRESS; } while (0)
/* What a capture on this thread forbids. */
static struct CUstream_st *capturing;
#define UNCAPTURED do { if (capturing) { capturing->invalid = 1; return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED; } } while (0)

const char *fake_report(void)
{
    static char text[256];
    snprintf(text, sizeof text, "retained=%d depth=%d memory=%d pinned=%d streams=%d events=%d modules=%d graphs=%d "
             "executables=%d strays=%d", retained, depth, memory, pinned, streams, events, modules, graphs, executables,
             strays);
    return text;
}

static void run(const op *one)
{
    if (one->kind == 0)
        for (size_t row = 0; row < one->rows; row++)
            memcpy(one->target + row * one->target_pitch, one->source + row * one->source_pitch, one->bytes);
    else if (one->kind == 1)
        memset(one->target, 0, one->bytes);
    else
        for (size_t i = 0; i < one->bytes; i++)
            ((float *)one->target)[i] = 2 * ((const float *)one->source)[i];
}

static CUresult give(CUstream stream, op one)
{
    CURRENT;
    if (!stream->capturing) {
        run(&one);
        return CUDA_SUCCESS;
    }
    op *kept = malloc(sizeof *kept);
    *kept = one;
    kept->next = NULL;
    *stream->last = kept;
    stream->last = &kept->next;
    return CUDA_SUCCESS;
}

CUresult cuInit(unsigned flags) { (void)flags; return CUDA_SUCCESS; }
CUresult cuDriverGetVersion(int *version) { *version = 13000; return CUDA_SUCCESS; }
CUresult cuDeviceGetCount(int *count) { *count = 1; return CUDA_SUCCESS; }
CUresult cuDeviceGet(CUdevice *device, int ordinal) { *device = ordinal; return ordinal ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS; }
CUresult cuDeviceGetName(char *name, int size, CUdevice device) { (void)device; snprintf(name, size, "Fake GPU"); return CUDA_SUCCESS; }
CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice device) { (void)device; *major = 8, *minor = 7; return CUDA_SUCCESS; }
CUresult cuDeviceTotalMem(size_t *bytes, CUdevice device) { (void)device; *bytes = 1 << 30; return CUDA_SUCCESS; }
CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute name, CUdevice device)
{
    (void)device;
    *value = name == CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT ? 16 : name == CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE ? 3200000
           : name == CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH ? 256 : 0;
    return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) { (void)device; retained++; *context = (CUcontext)&the_context; return CUDA_SUCCESS; }
CUresult cuDevicePrimaryCtxRelease(CUdevice device) { (void)device; retained--; return CUDA_SUCCESS; }
CUresult cuCtxPushCurrent(CUcontext context) { stack[depth++] = context; return CUDA_SUCCESS; }
CUresult cuCtxPopCurrent(CUcontext *context)
{
    if (!depth) return CUDA_ERROR_INVALID_CONTEXT;
    if (lost && getenv("FAKE_LOST_POP")) return CUDA_ERROR_ILLEGAL_ADDRESS;
    *context = stack[--depth];
    return CUDA_SUCCESS;
}
CUresult cuCtxGetDevice(CUdevice *device) { *device = 0; return CUDA_SUCCESS; }
CUresult cuCtxSynchronize(void) { CURRENT; UNCAPTURED; return CUDA_SUCCESS; }
CUresult cuGetErrorString(CUresult error, const char **text)
{
    *text = error == CUDA_ERROR_ILLEGAL_ADDRESS ? "an illegal memory access was encountered" : error == CUDA_ERROR_OUT_OF_MEMORY ? "out of memory" : "an error";
    return CUDA_SUCCESS;
}
CUresult cuMemAlloc(CUdeviceptr *address, size_t bytes)
{
    CURRENT; UNCAPTURED;
    if (bytes > (1u << 30)) return CUDA_ERROR_OUT_OF_MEMORY;
    memory++;
    *address = (CUdeviceptr)malloc(bytes);
    return CUDA_SUCCESS;
}
CUresult cuMemFree(CUdeviceptr address) { CURRENT; memory--; free((void *)address); return CUDA_SUCCESS; }
CUresult cuMemGetInfo(size_t *left, size_t *total) { *left = 123456, *total = 1 << 30; return CUDA_SUCCESS; }
CUresult cuMemHostAlloc(void **address, size_t bytes, unsigned flags) { (void)flags; CURRENT; UNCAPTURED; pinned++; *address = malloc(bytes); return CUDA_SUCCESS; }
CUresult cuMemFreeHost(void *address) { CURRENT; pinned--; free(address); return CUDA_SUCCESS; }
CUresult cuMemHostGetDevicePointer(CUdeviceptr *address, void *host, unsigned flags) { (void)flags; *address = (CUdeviceptr)host; return CUDA_SUCCESS; }
CUresult cuStreamCreate(CUstream *stream, unsigned flags) { CURRENT; streams += flags == CU_STREAM_NON_BLOCKING; *stream = calloc(1, sizeof **stream); return CUDA_SUCCESS; }
CUresult cuStreamDestroy(CUstream stream) { CURRENT; streams--; free(stream); return CUDA_SUCCESS; }
CUresult cuStreamSynchronize(CUstream stream) { (void)stream; CURRENT; UNCAPTURED; return CUDA_SUCCESS; }
CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags) { (void)stream, (void)event, (void)flags; CURRENT; return CUDA_SUCCESS; }
CUresult cuEventCreate(CUevent *event, unsigned flags) { (void)flags; CURRENT; events++; *event = malloc(1); return CUDA_SUCCESS; }
CUresult cuEventDestroy(CUevent event) { CURRENT; events--; free(event); return CUDA_SUCCESS; }
#undef cuEventRecord
CUresult cuEventRecord(CUevent event, CUstream stream) { (void)event, (void)stream; CURRENT; return CUDA_SUCCESS; }
CUresult cuEventSynchronize(CUevent event) { (void)event; CURRENT; return CUDA_SUCCESS; }
CUresult cuEventElapsedTime(float *ms, CUevent start, CUevent stop) { (void)start, (void)stop; *ms = 1.5f; return CUDA_SUCCESS; }
CUresult cuEventElapsedTime_v2(float *ms, CUevent start, CUevent stop);

#undef cuMemcpyHtoDAsync
#undef cuMemcpyDtoHAsync
#undef cuMemcpyDtoDAsync
#undef cuMemsetD8Async
#undef cuMemcpy2DAsync
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr target, const void *source, size_t bytes, CUstream stream) { return give(stream, (op){0, (char *)target, source, bytes, 0, 0, 1, 0}); }
CUresult cuMemcpyDtoHAsync_v2(void *target, CUdeviceptr source, size_t bytes, CUstream stream) { return give(stream, (op){0, target, (char *)source, bytes, 0, 0, 1, 0}); }
CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr target, CUdeviceptr source, size_t bytes, CUstream stream) { return give(stream, (op){0, (char *)target, (char *)source, bytes, 0, 0, 1, 0}); }
CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D *copy, CUstream stream)
{
    return give(stream, (op){0, (char *)copy->dstDevice, (char *)copy->srcDevice, copy->WidthInBytes, copy->dstPitch, copy->srcPitch, copy->Height, 0});
}
CUresult cuMemsetD8Async(CUdeviceptr target, unsigned char value, size_t bytes, CUstream stream) { (void)value; return give(stream, (op){1, (char *)target, 0, bytes, 0, 0, 1, 0}); }

CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned count, CUjit_option *options, void **values)
{
    (void)options; CURRENT; UNCAPTURED;
    for (unsigned i = 0; i < count; i++) /* the logs' sizes come back in the values */
        if (options[i] == CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES || options[i] == CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES) values[i] = 0;
    if (memcmp(image, "image", 5)) return CUDA_ERROR_INVALID_IMAGE;
    modules++;
    *module = malloc(1);
    return CUDA_SUCCESS;
}
CUresult cuModuleUnload(CUmodule module) { CURRENT; modules--; free(module); return CUDA_SUCCESS; }
CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name)
{
    (void)module; CURRENT;
    *function = (CUfunction)&the_context;
    return strncmp(name, "gcpp_", 5) ? CUDA_ERROR_NOT_FOUND : CUDA_SUCCESS;
}
#undef cuLaunchKernel
CUresult cuLaunchKernel(CUfunction function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                        unsigned shared, CUstream stream, void **parameters, void **extra)
{
    (void)function, (void)shared, (void)parameters; CURRENT;
    struct { const char *source; char *target; unsigned long long count; } arguments;
    if (gx * gy * gz == 0 || bx * by * bz == 0 || bx * by * bz > 1024) return CUDA_ERROR_INVALID_VALUE;
    if (extra[0] != CU_LAUNCH_PARAM_BUFFER_POINTER || *(size_t *)extra[3] != sizeof arguments) return CUDA_ERROR_INVALID_VALUE;
    if (++launches == atoi(getenv("FAKE_LOST") ? getenv("FAKE_LOST") : "0")) { lost = 1; return CUDA_ERROR_ILLEGAL_ADDRESS; }
    memcpy(&arguments, extra[1], sizeof arguments);
    return give(stream, (op){2, arguments.target, arguments.source, arguments.count, 0, 0, 1, 0});
}

#undef cuStreamBeginCapture
#undef cuStreamEndCapture
#undef cuGraphLaunch
CUresult cuStreamBeginCapture_v2(CUstream stream, CUstreamCaptureMode mode)
{
    CURRENT;
    if (mode != CU_STREAM_CAPTURE_MODE_THREAD_LOCAL || stream->capturing) return CUDA_ERROR_INVALID_VALUE;
    stream->capturing = 1, stream->invalid = 0, stream->first = NULL, stream->last = &stream->first, capturing = stream;
    return CUDA_SUCCESS;
}
CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph)
{
    CURRENT;
    if (!stream->capturing) return CUDA_ERROR_ILLEGAL_STATE;
    stream->capturing = 0, capturing = NULL, *graph = NULL;
    if (stream->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    graphs++;
    *graph = malloc(sizeof **graph);
    (*graph)->first = stream->first;
    return CUDA_SUCCESS;
}
CUresult cuGraphInstantiateWithFlags(CUgraphExec *executable, CUgraph graph, unsigned long long flags)
{
    (void)flags; CURRENT;
    executables++;
    *executable = malloc(sizeof **executable);
    (*executable)->first = graph->first;
    return CUDA_SUCCESS;
}
CUresult cuGraphDestroy(CUgraph graph) { CURRENT; graphs--; free(graph); return CUDA_SUCCESS; }
CUresult cuGraphExecDestroy(CUgraphExec executable) { CURRENT; executables--; free(executable); return CUDA_SUCCESS; }
CUresult cuGraphLaunch(CUgraphExec executable, CUstream stream)
{
    CURRENT;
    for (op *one = executable->first; one; one = one->next) { CUresult result = give(stream, *one); if (result) return result; }
    return CUDA_SUCCESS;
}

/* cuda-bindings asks for every function here. */
static CUresult find(const char *name, void **address)
{
    static const char *ENDS[] = {"_v3", "_v2", "", "WithFlags"};
    char full[256];
    for (int i = 0; i < 4; i++) {
        snprintf(full, sizeof full, "%s%s", name, ENDS[i]);
        if ((*address = dlsym(RTLD_DEFAULT, full)) != NULL) return CUDA_SUCCESS;
    }
    return CUDA_ERROR_NOT_FOUND;
}
CUresult cuGetProcAddress_v2(const char *name, void **address, int version, cuuint64_t flags, CUdriverProcAddressQueryResult *status)
{
    (void)version, (void)flags;
    CUresult result = find(name, address);
    if (status) *status = result ? CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND : CU_GET_PROC_ADDRESS_SUCCESS;
    return result;
}
CUresult cuGetProcAddress(const char *name, void **address, int version, cuuint64_t flags) { return cuGetProcAddress_v2(name, address, version, flags, NULL); }
