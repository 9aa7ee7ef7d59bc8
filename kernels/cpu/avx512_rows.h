/* The AVX-512 kernels that lie in another file than their table. */
#ifndef GCPP_AVX512_ROWS_H
#define GCPP_AVX512_ROWS_H

#include "rows.h"

GCPP_DECLARE_CAM(gcpp_cam_f32_f32_avx512);
GCPP_DECLARE_CAM(gcpp_cam_f32_f16_avx512);
GCPP_DECLARE_CAM(gcpp_cam_f16_f32_avx512);
GCPP_DECLARE_CAM(gcpp_cam_f16_f16_avx512);

#endif
