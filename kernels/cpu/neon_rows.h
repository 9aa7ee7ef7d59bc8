/* The NEON kernels that lie in another file than their table. */
#ifndef GCPP_NEON_ROWS_H
#define GCPP_NEON_ROWS_H

#include "rows.h"

GCPP_DECLARE_CAM(gcpp_cam_f32_f32_neon);
GCPP_DECLARE_CAM(gcpp_cam_f32_f16_neon);
GCPP_DECLARE_CAM(gcpp_cam_f16_f32_neon);
GCPP_DECLARE_CAM(gcpp_cam_f16_f16_neon);

void gcpp_pixels_packed_u8_neon(const uint8_t *row, const gcpp_pixel_layout *layout, const gcpp_columns *columns,
                                float *out, ptrdiff_t stride);
void gcpp_pixels_gray_u16_neon(const uint8_t *row, const gcpp_pixel_layout *layout, const gcpp_columns *columns,
                               float *out, ptrdiff_t stride);
void gcpp_pixels_nv12_u8_neon(const uint8_t *row, const gcpp_pixel_layout *layout, const gcpp_columns *columns,
                              float *out, ptrdiff_t stride);
void gcpp_finish_f32_neon(const float *upper, const float *lower, float share, float scale, float bias, void *out,
                          int32_t count);
void gcpp_finish_f16_neon(const float *upper, const float *lower, float share, float scale, float bias, void *out,
                          int32_t count);

#endif
