/* The AVX2 kernels that lie in another file than their table, or serve in the one of AVX-512 too. */
#ifndef GCPP_AVX2_ROWS_H
#define GCPP_AVX2_ROWS_H

#include "rows.h"

GCPP_DECLARE_CAM(gcpp_cam_f32_f32_avx2);
GCPP_DECLARE_CAM(gcpp_cam_f32_f16_avx2);
GCPP_DECLARE_CAM(gcpp_cam_f16_f32_avx2);
GCPP_DECLARE_CAM(gcpp_cam_f16_f16_avx2);

void gcpp_widen_f32_avx2(const float *row, const gcpp_columns *columns, float *out);
void gcpp_value_f32_avx2(const float *upper, const float *lower, float share, float *out, int32_t count);
void gcpp_value_u8_avx2(const float *upper, const float *lower, float share, uint8_t *out, int32_t count);
void gcpp_blend_u8_avx2(const uint8_t *frame, int32_t channels, const uint8_t *index, const gcpp_color *colors,
                        int32_t keep, uint8_t *out, int32_t count);
void gcpp_multiply_f32_avx2(const float *value, const void *image, float *out, int32_t count);
void gcpp_multiply_f16_avx2(const float *value, const void *image, float *out, int32_t count);
void gcpp_pixels_packed_u8_avx2(const uint8_t *row, const gcpp_pixel_layout *layout, const gcpp_columns *columns,
                                float *out, ptrdiff_t stride);
void gcpp_pixels_gray_u16_avx2(const uint8_t *row, const gcpp_pixel_layout *layout, const gcpp_columns *columns,
                               float *out, ptrdiff_t stride);
void gcpp_pixels_nv12_u8_avx2(const uint8_t *row, const gcpp_pixel_layout *layout, const gcpp_columns *columns,
                                float *out, ptrdiff_t stride);
void gcpp_finish_f32_avx2(const float *upper, const float *lower, float share, float scale, float bias, void *out,
                            int32_t count);
void gcpp_finish_f16_avx2(const float *upper, const float *lower, float share, float scale, float bias, void *out,
                            int32_t count);

#endif
