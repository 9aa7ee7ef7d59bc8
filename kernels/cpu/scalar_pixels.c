/* Rows of preprocess in plain C99. */
#include "half.h"
#include "scalar.h"

static inline float mix(float first, float second, float share)
{
    return first + (second - first) * share;
}

void gcpp_pixels_packed_u8_scalar(const uint8_t *row, const gcpp_pixel_layout *layout, const gcpp_columns *columns,
                                  float *out, ptrdiff_t stride)
{
    for (int32_t i = 0; i < columns->count; i++) {
        const uint8_t *const first = row + (ptrdiff_t)columns->first[i] * layout->pixel_bytes;
        const uint8_t *const second = row + (ptrdiff_t)columns->second[i] * layout->pixel_bytes;
        for (int32_t plane = 0; plane < layout->planes; plane++)
            out[plane * stride + i] = mix(first[plane], second[plane], columns->share[i]);
    }
}

void gcpp_pixels_gray_u16_scalar(const uint8_t *row, const gcpp_pixel_layout *layout, const gcpp_columns *columns,
                                 float *out, ptrdiff_t stride)
{
    const uint16_t *const pixels = (const uint16_t *)(const void *)row;
    (void)layout;
    (void)stride;
    for (int32_t i = 0; i < columns->count; i++)
        out[i] = mix(pixels[columns->first[i]], pixels[columns->second[i]], columns->share[i]) * (1.0f / 257);
}

static inline float byte_range(float value)
{
    value = value > 0 ? value : 0;
    return value < 255 ? value : 255;
}

/* Red, green and blue of one pixel: BT.601, limited range (reference.py). */
static inline void color_of_nv12(const uint8_t *row, const uint8_t *chroma, int32_t x, float color[3])
{
    const float luma = 1.164f * (float)(row[x] > 16 ? row[x] - 16 : 0);
    const float u = (float)(chroma[x & ~1] - 128), v = (float)(chroma[x | 1] - 128);
    color[0] = byte_range(luma + 1.596f * v);
    color[1] = byte_range(luma - 0.813f * v - 0.391f * u);
    color[2] = byte_range(luma + 2.018f * u);
}

void gcpp_pixels_nv12_u8_scalar(const uint8_t *row, const gcpp_pixel_layout *layout, const gcpp_columns *columns,
                                float *out, ptrdiff_t stride)
{
    for (int32_t i = 0; i < columns->count; i++) {
        float first[3], second[3];
        color_of_nv12(row, layout->chroma, columns->first[i], first);
        color_of_nv12(row, layout->chroma, columns->second[i], second);
        for (int32_t plane = 0; plane < 3; plane++)
            out[plane * stride + i] = mix(first[plane], second[plane], columns->share[i]);
    }
}

void gcpp_finish_f32_scalar(const float *upper, const float *lower, float share, float scale, float bias, void *out,
                            int32_t count)
{
    float *const values = out;
    for (int32_t i = 0; i < count; i++)
        values[i] = mix(upper[i], lower[i], share) * scale + bias;
}

void gcpp_finish_f16_scalar(const float *upper, const float *lower, float share, float scale, float bias, void *out,
                            int32_t count)
{
    uint16_t *const values = out;
    for (int32_t i = 0; i < count; i++)
        values[i] = gcpp_half_from_float(mix(upper[i], lower[i], share) * scale + bias);
}
