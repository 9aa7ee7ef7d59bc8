/* Rows of heatmap, overlay and guided with AVX2, and the AVX2 table. */
#if defined(__x86_64__)
#include "avx2.h"

#include "avx2_rows.h"

void gcpp_widen_f32_avx2(const float *row, const gcpp_columns *columns, float *out)
{
    int32_t i = 0;
    for (; i + LANES <= columns->count; i += LANES) {
        const __m256 first = _mm256_i32gather_ps(row, load8_i32(columns->first + i), 4);
        const __m256 second = _mm256_i32gather_ps(row, load8_i32(columns->second + i), 4);
        _mm256_storeu_ps(out + i, mix8(first, second, _mm256_loadu_ps(columns->share + i)));
    }
    const gcpp_columns rest = columns_from(columns, i);
    gcpp_widen_f32_scalar(row, &rest, out + i);
}

static inline __m256 value8(const float *upper, const float *lower, __m256 share)
{
    const __m256 value = mix8(_mm256_loadu_ps(upper), _mm256_loadu_ps(lower), share);
    /* max returns its second operand for a NaN, which so becomes 0 */
    return _mm256_min_ps(_mm256_max_ps(value, _mm256_setzero_ps()), _mm256_set1_ps(1));
}

void gcpp_value_f32_avx2(const float *upper, const float *lower, float share, float *out, int32_t count)
{
    const __m256 shares = _mm256_set1_ps(share);
    int32_t i = 0;
    for (; i + LANES <= count; i += LANES)
        _mm256_storeu_ps(out + i, value8(upper + i, lower + i, shares));
    gcpp_value_f32_scalar(upper + i, lower + i, share, out + i, count - i);
}

/* round(255 v), which packing clips to 0 and more: NaN and what is below 0 are below 0 as integers. */
static inline __m256i byte8(const float *upper, const float *lower, __m256 share)
{
    const __m256 value = mix8(_mm256_loadu_ps(upper), _mm256_loadu_ps(lower), share), all = _mm256_set1_ps(255);
    /* min returns its second operand for a NaN, which so stays */
    return _mm256_cvtps_epi32(_mm256_min_ps(all, _mm256_mul_ps(value, all)));
}

static inline void value32_u8(const float *upper, const float *lower, __m256 share, uint8_t *out)
{
    const __m256i in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7); /* packing works within halves */
    const __m256i low = _mm256_packs_epi32(byte8(upper, lower, share), byte8(upper + LANES, lower + LANES, share));
    const __m256i high = _mm256_packs_epi32(byte8(upper + 2 * LANES, lower + 2 * LANES, share),
                                            byte8(upper + 3 * LANES, lower + 3 * LANES, share));
    const __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), in_order);
    _mm256_storeu_si256((__m256i *)(void *)out, bytes);
}

void gcpp_value_u8_avx2(const float *upper, const float *lower, float share, uint8_t *out, int32_t count)
{
    const __m256 shares = _mm256_set1_ps(share);
    int32_t i = 0;
    for (; i + 4 * LANES <= count; i += 4 * LANES)
        value32_u8(upper + i, lower + i, shares, out + i);
    if (i < count && count >= 4 * LANES) { /* the last ones again, with those before them */
        i = count - 4 * LANES;
        value32_u8(upper + i, lower + i, shares, out + i);
        return;
    }
    gcpp_value_u8_scalar(upper + i, lower + i, share, out + i, count - i);
}

/* The colours of eight pixels: pixels 0, 1, 4, 5 in `low` and 2, 3, 6, 7 in `high`, as unpacking bytes orders them. */
typedef struct {
    __m256i low, high;
} colors8;

static inline colors8 look_up_colors8(const uint8_t *index, const gcpp_color *colors)
{
    return (colors8){load4_i64(colors + index[0], colors + index[1], colors + index[4], colors + index[5]),
                     load4_i64(colors + index[2], colors + index[3], colors + index[6], colors + index[7])};
}

/* Sixteen bytes, as the high halves of 16-bit lanes, times 16-bit shares, plus their colours in 8.8. */
static inline __m256i blend16(__m256i frame, __m256i color, __m256i keep)
{
    return _mm256_srli_epi16(_mm256_add_epi16(_mm256_mulhi_epu16(frame, keep), color), 8);
}

static inline __m256i blend_pixels8(__m256i frame, colors8 colors, __m256i keep)
{
    const __m256i zero = _mm256_setzero_si256();
    return _mm256_packus_epi16(blend16(_mm256_unpacklo_epi8(zero, frame), colors.low, keep),
                               blend16(_mm256_unpackhi_epi8(zero, frame), colors.high, keep));
}

static inline short at_most_65535(int32_t share)
{
    return (short)(share < 65535 ? share : 65535); /* 65536 does not fit; after rounding the result is the same */
}

/* Eight pixels of three bytes, as four bytes each. Loads bytes 0 to 23. */
static inline __m256i load_pixels8_x3(const uint8_t *pixels)
{
    const __m128i head = _mm_loadu_si128((const __m128i *)(const void *)pixels);
    const __m128i rest = _mm_loadu_si128((const __m128i *)(const void *)(pixels + 8));
    const __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(head), rest, 1);
    const __m256i spread = _mm256_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1, 4, 5, 6, -1, 7, 8, 9,
                                            -1, 10, 11, 12, -1, 13, 14, 15, -1);
    return _mm256_shuffle_epi8(both, spread);
}

/* The inverse: stores bytes 0 to 23. */
static inline void store_pixels8_x3(uint8_t *out, __m256i pixels)
{
    const __m256i pack = _mm256_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1, 0, 1, 2, 4, 5, 6, 8, 9,
                                          10, 12, 13, 14, -1, -1, -1, -1);
    const __m256i packed = _mm256_shuffle_epi8(pixels, pack);
    const __m128i rest = _mm256_extracti128_si256(packed, 1);
    _mm_storeu_si128((__m128i *)(void *)out, _mm256_castsi256_si128(packed)); /* bytes 12 to 15 come next */
    _mm_storel_epi64((__m128i *)(void *)(out + 12), rest);
    _mm_storeu_si32(out + 20, _mm_srli_si128(rest, 8));
}

static int32_t blend_x3(const uint8_t *frame, const uint8_t *index, const gcpp_color *colors, int32_t keep,
                        uint8_t *out, int32_t count)
{
    const __m256i keeps = _mm256_set1_epi16(at_most_65535(keep));
    int32_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        const __m256i pixels = load_pixels8_x3(frame + 3 * (ptrdiff_t)i);
        store_pixels8_x3(out + 3 * (ptrdiff_t)i, blend_pixels8(pixels, look_up_colors8(index + i, colors), keeps));
    }
    return i;
}

static int32_t blend_x4(const uint8_t *frame, const uint8_t *index, const gcpp_color *colors, int32_t keep,
                        uint8_t *out, int32_t count)
{
    const short k = at_most_65535(keep), all = at_most_65535(65536); /* the fourth channel stays */
    const __m256i keeps = _mm256_setr_epi16(k, k, k, all, k, k, k, all, k, k, k, all, k, k, k, all);
    int32_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        const __m256i pixels = _mm256_loadu_si256((const __m256i *)(const void *)(frame + 4 * (ptrdiff_t)i));
        const __m256i blended = blend_pixels8(pixels, look_up_colors8(index + i, colors), keeps);
        _mm256_storeu_si256((__m256i *)(void *)(out + 4 * (ptrdiff_t)i), blended);
    }
    return i;
}

void gcpp_blend_u8_avx2(const uint8_t *frame, int32_t channels, const uint8_t *index, const gcpp_color *colors,
                               int32_t keep, uint8_t *out, int32_t count)
{
    const int32_t done = (channels == 3 ? blend_x3 : blend_x4)(frame, index, colors, keep, out, count);
    const ptrdiff_t first = (ptrdiff_t)done * channels;
    gcpp_blend_u8_scalar(frame + first, channels, index + done, colors, keep, out + first, count - done);
}

void gcpp_multiply_f32_avx2(const float *value, const void *image, float *out, int32_t count)
{
    const float *const pixels = image;
    int32_t i = 0;
    for (; i + LANES <= count; i += LANES)
        _mm256_storeu_ps(out + i, _mm256_mul_ps(_mm256_loadu_ps(value + i), _mm256_loadu_ps(pixels + i)));
    gcpp_multiply_f32_scalar(value + i, pixels + i, out + i, count - i);
}

void gcpp_multiply_f16_avx2(const float *value, const void *image, float *out, int32_t count)
{
    const uint16_t *const pixels = image;
    int32_t i = 0;
    for (; i + LANES <= count; i += LANES)
        _mm256_storeu_ps(out + i, _mm256_mul_ps(_mm256_loadu_ps(value + i), load8_f16(pixels + i)));
    gcpp_multiply_f16_scalar(value + i, pixels + i, out + i, count - i);
}

const gcpp_rows gcpp_rows_avx2 = {
    .isa = "avx2",
    .cam = {{gcpp_cam_f32_f32_avx2, gcpp_cam_f32_f16_avx2}, {gcpp_cam_f16_f32_avx2, gcpp_cam_f16_f16_avx2}},
    .widen_f32 = gcpp_widen_f32_avx2,
    .value_f32 = gcpp_value_f32_avx2,
    .value_u8 = gcpp_value_u8_avx2,
    .blend_u8 = gcpp_blend_u8_avx2,
    .multiply_f32 = gcpp_multiply_f32_avx2,
    .multiply_f16 = gcpp_multiply_f16_avx2,
    .pixels_packed = gcpp_pixels_packed_u8_avx2,
    .pixels_gray16 = gcpp_pixels_gray_u16_avx2,
    .pixels_nv12 = gcpp_pixels_nv12_u8_avx2,
    .finish_f32 = gcpp_finish_f32_avx2,
    .finish_f16 = gcpp_finish_f16_avx2,
};

GCPP_AVX2_END
#endif
