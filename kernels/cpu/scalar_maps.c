/* Rows of heatmap, overlay and guided in plain C99, and the scalar table. */
#include "half.h"
#include "scalar.h"

void gcpp_widen_f32_scalar(const float *row, const gcpp_columns *columns, float *out)
{
    for (int32_t i = 0; i < columns->count; i++)
        out[i] = gcpp_mix(row[columns->first[i]], row[columns->second[i]], columns->share[i]);
}

void gcpp_value_f32_scalar(const float *upper, const float *lower, float share, float *out, int32_t count)
{
    for (int32_t i = 0; i < count; i++)
        out[i] = gcpp_unit_interval(gcpp_mix(upper[i], lower[i], share));
}

void gcpp_value_u8_scalar(const float *upper, const float *lower, float share, uint8_t *out, int32_t count)
{
    for (int32_t i = 0; i < count; i++)
        out[i] = gcpp_byte_of_unit(gcpp_unit_interval(gcpp_mix(upper[i], lower[i], share)));
}

void gcpp_blend_u8_scalar(const uint8_t *frame, int32_t channels, const uint8_t *index, const gcpp_color *colors,
                          int32_t keep, uint8_t *out, int32_t count)
{
    for (int32_t i = 0; i < count; i++, frame += channels, out += channels) {
        const gcpp_color color = colors[index[i]];
        for (int32_t c = 0; c < 3; c++)
            out[c] = gcpp_blend(frame[c], keep, color.channel[c]);
        if (channels == 4)
            out[3] = frame[3];
    }
}

void gcpp_multiply_f32_scalar(const float *value, const void *image, float *out, int32_t count)
{
    const float *pixels = image;
    for (int32_t i = 0; i < count; i++)
        out[i] = value[i] * pixels[i];
}

void gcpp_multiply_f16_scalar(const float *value, const void *image, float *out, int32_t count)
{
    const uint16_t *pixels = image;
    for (int32_t i = 0; i < count; i++)
        out[i] = value[i] * gcpp_float_from_half(pixels[i]);
}

const gcpp_rows gcpp_rows_scalar = {
    .isa = "scalar",
    .cam = {{gcpp_cam_f32_f32_scalar, gcpp_cam_f32_f16_scalar}, {gcpp_cam_f16_f32_scalar, gcpp_cam_f16_f16_scalar}},
    .widen_f32 = gcpp_widen_f32_scalar,
    .value_f32 = gcpp_value_f32_scalar,
    .value_u8 = gcpp_value_u8_scalar,
    .blend_u8 = gcpp_blend_u8_scalar,
    .multiply_f32 = gcpp_multiply_f32_scalar,
    .multiply_f16 = gcpp_multiply_f16_scalar,
    .pixels_packed = gcpp_pixels_packed_u8_scalar,
    .pixels_gray16 = gcpp_pixels_gray_u16_scalar,
    .pixels_nv12 = gcpp_pixels_nv12_u8_scalar,
    .finish_f32 = gcpp_finish_f32_scalar,
    .finish_f16 = gcpp_finish_f16_scalar,
};
