/* The AVX-512 tables. */
#if defined(__x86_64__)
#include "avx512.h"

#include "avx2_rows.h"
#include "avx512_rows.h"

#define GCPP_TABLE_AVX512(name)                                                                                     \
    {                                                                                                               \
        .isa = name, .cam = {{gcpp_cam_f32_f32_avx512, gcpp_cam_f32_f16_avx512},                                    \
                             {gcpp_cam_f16_f32_avx512, gcpp_cam_f16_f16_avx512}},                                   \
        .widen_f32 = gcpp_widen_f32_avx2, .value_f32 = gcpp_value_f32_avx2, .value_u8 = gcpp_value_u8_avx2,         \
        .blend_u8 = gcpp_blend_u8_avx2, .multiply_f32 = gcpp_multiply_f32_avx2,                                     \
        .multiply_f16 = gcpp_multiply_f16_avx2, .pixels_packed = gcpp_pixels_packed_u8_avx2,                        \
        .pixels_gray16 = gcpp_pixels_gray_u16_avx2, .pixels_nv12 = gcpp_pixels_nv12_u8_avx2,                        \
        .finish_f32 = gcpp_finish_f32_avx2, .finish_f16 = gcpp_finish_f16_avx2,                                     \
    }

const gcpp_rows gcpp_rows_avx512 = GCPP_TABLE_AVX512("avx512");
const gcpp_rows gcpp_rows_avx512vbmi = GCPP_TABLE_AVX512("avx512vbmi");

GCPP_AVX512_END
#endif
