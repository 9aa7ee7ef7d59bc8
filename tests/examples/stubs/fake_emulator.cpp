// Hands the fake driver's launches to the emulator of the kernels (tests/kernels/emulator).
#include "gcpp_cuda.h"

#include <cstdio>
#include <cstring>

extern "C" int gcpp_emulator_launch(const char* name, const unsigned grid[3], const unsigned block[3],
                                    unsigned shared_bytes, const void* arguments, size_t bytes, int backwards,
                                    char* message, size_t size);

// Bytes of a kernel's struct; 0 for an unknown kernel.
extern "C" size_t emulated_arguments(const char* name) {
    static const struct {
        const char* start;
        size_t bytes;
    } kernels[] = {{"gcpp_cam_", sizeof(gcpp_cuda_cam)},         {"gcpp_range_", sizeof(gcpp_cuda_range)},
                   {"gcpp_overlay_", sizeof(gcpp_cuda_overlay)}, {"gcpp_preprocess_", sizeof(gcpp_cuda_preprocess)}};
    for (const auto& kernel : kernels)
        if (std::strncmp(name, kernel.start, std::strlen(kernel.start)) == 0) return kernel.bytes;
    return 0;
}

extern "C" bool emulate(const char* name, const unsigned grid[3], const unsigned block[3], const void* arguments) {
    char message[512];
    if (gcpp_emulator_launch(name, grid, block, 0, arguments, emulated_arguments(name), 0, message, sizeof message) == 0)
        return true;
    std::fprintf(stderr, "%s\n", message);
    return false;
}
