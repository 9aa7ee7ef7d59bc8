/* The AVX-512 kernels that lie in another file than their table. */
#ifndef GCPP_AVX512_ROWS_H
#define GCPP_AVX512_ROWS_H

#include "rows.h"

GCPP_DECLARE_CAM(gcpp_cam_f32_f32_avx512);
GCPP_DECLARE_CAM(gcpp_cam_f32_f16_avx512);
GCPP_DECLARE_CAM(gcpp_cam_f16_f32_avx512);
GCPP_DECLARE_CAM(gcpp_cam_f16_f16_avx512);

void gcpp_blend_u8_avx512vbmi(const uint8_t *frame, int32_t channels, const uint8_t *index, const gcpp_color *colors,
                              int32_t keep, uint8_t *out, int32_t count);

void gcpp_pixels_packed_u8_avx512(const uint8_t *row, const gcpp_pixel_layout *layout, const gcpp_columns *columns,
                                  float *out, ptrdiff_t stride);
void gcpp_pixels_nv12_u8_avx512(const uint8_t *row, const gcpp_pixel_layout *layout, const gcpp_columns *columns,
                                float *out, ptrdiff_t stride);

#endif
