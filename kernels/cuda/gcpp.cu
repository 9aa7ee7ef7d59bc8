/* The one translation unit of the CUDA kernels: a single module, by nvcc when the package is built, or by NVRTC. */
#include "cam.cu"
#include "maps.cu"
#include "preprocess.cu"
