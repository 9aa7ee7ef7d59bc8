/* The scalar kernels: complete by themselves, and the tails of the vector ones. */
#ifndef GCPP_SCALAR_H
#define GCPP_SCALAR_H

#include "rows.h"

GCPP_DECLARE_CAM(gcpp_cam_f32_f32_scalar);
GCPP_DECLARE_CAM(gcpp_cam_f32_f16_scalar);
GCPP_DECLARE_CAM(gcpp_cam_f16_f32_scalar);
GCPP_DECLARE_CAM(gcpp_cam_f16_f16_scalar);

void gcpp_widen_f32_scalar(const float *row, const gcpp_columns *columns, float *out);
void gcpp_value_f32_scalar(const float *upper, const float *lower, float share, float *out, int32_t count);
void gcpp_value_u8_scalar(const float *upper, const float *lower, float share, uint8_t *out, int32_t count);
void gcpp_blend_u8_scalar(const uint8_t *frame, int32_t channels, const uint8_t *index, const gcpp_color *colors,
                          int32_t keep, uint8_t *out, int32_t count);
void gcpp_multiply_f32_scalar(const float *value, const void *image, float *out, int32_t count);
void gcpp_multiply_f16_scalar(const float *value, const void *image, float *out, int32_t count);
void gcpp_pixels_packed_u8_scalar(const uint8_t *row, const gcpp_pixel_layout *layout, const gcpp_columns *columns,
                                  float *out, ptrdiff_t stride);
void gcpp_pixels_gray_u16_scalar(const uint8_t *row, const gcpp_pixel_layout *layout, const gcpp_columns *columns,
                                 float *out, ptrdiff_t stride);
void gcpp_pixels_nv12_u8_scalar(const uint8_t *row, const gcpp_pixel_layout *layout, const gcpp_columns *columns,
                                float *out, ptrdiff_t stride);
void gcpp_finish_f32_scalar(const float *upper, const float *lower, float share, float scale, float bias, void *out,
                            int32_t count);
void gcpp_finish_f16_scalar(const float *upper, const float *lower, float share, float scale, float bias, void *out,
                            int32_t count);

/* The columns from `start` on, for the code that finishes a row. */
static inline gcpp_columns columns_from(const gcpp_columns *columns, int32_t start)
{
    return (gcpp_columns){columns->first + start,
                          columns->second + start,
                          columns->share + start,
                          columns->count - start,
                          columns->first_offset + start,
                          columns->first_shift + start,
                          columns->second_offset + start,
                          columns->second_shift + start,
                          columns->pair_offset + start,
                          columns->pair_shift + start};
}

#endif
