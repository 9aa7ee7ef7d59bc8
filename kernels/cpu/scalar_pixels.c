/* Rows of preprocess in plain C99. */
#include "half.h"
#include "scalar.h"

void gcpp_pixels_packed_u8_scalar(const uint8_t *row, const gcpp_pixel_layout *layout, const gcpp_columns *columns,
                                  float *out, ptrdiff_t stride)
{
    for (int32_t i = 0; i < columns->count; i++) {
        const uint8_t *const first = row + (ptrdiff_t)columns->first[i] * layout->pixel_bytes;
        const uint8_t *const second = row + (ptrdiff_t)columns->second[i] * layout->pixel_bytes;
        for (int32_t plane = 0; plane < layout->planes; plane++)
            out[plane * stride + i] = gcpp_mix(first[plane], second[plane], columns->share[i]);
    }
}

void gcpp_pixels_gray_u16_scalar(const uint8_t *row, const gcpp_pixel_layout *layout, const gcpp_columns *columns,
                                 float *out, ptrdiff_t stride)
{
    const uint16_t *const pixels = (const uint16_t *)(const void *)row;
    (void)layout;
    (void)stride;
    for (int32_t i = 0; i < columns->count; i++)
        out[i] = gcpp_mix(pixels[columns->first[i]], pixels[columns->second[i]], columns->share[i]) * (1.0f / 257);
}

void gcpp_pixels_nv12_u8_scalar(const uint8_t *row, const gcpp_pixel_layout *layout, const gcpp_columns *columns,
                                float *out, ptrdiff_t stride)
{
    for (int32_t i = 0; i < columns->count; i++) {
        float first[3], second[3];
        gcpp_color_of_nv12(row[columns->first[i]], layout->chroma + (columns->first[i] & ~1), first);
        gcpp_color_of_nv12(row[columns->second[i]], layout->chroma + (columns->second[i] & ~1), second);
        for (int32_t plane = 0; plane < 3; plane++)
            out[plane * stride + i] = gcpp_mix(first[plane], second[plane], columns->share[i]);
    }
}

void gcpp_finish_f32_scalar(const float *upper, const float *lower, float share, float scale, float bias, void *out,
                            int32_t count)
{
    float *const values = out;
    for (int32_t i = 0; i < count; i++)
        values[i] = gcpp_mix(upper[i], lower[i], share) * scale + bias;
}

void gcpp_finish_f16_scalar(const float *upper, const float *lower, float share, float scale, float bias, void *out,
                            int32_t count)
{
    uint16_t *const values = out;
    for (int32_t i = 0; i < count; i++)
        values[i] = gcpp_half_from_float(gcpp_mix(upper[i], lower[i], share) * scale + bias);
}
