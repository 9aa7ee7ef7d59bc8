/* Rows of heatmap and overlay with AVX-512, and its tables. What is not here is no faster than with AVX2. */
#if defined(__x86_64__)
#include "avx512.h"

#include "avx2_rows.h"
#include "avx512_rows.h"

static inline __m512 mix16(const float *upper, const float *lower, __m512 share)
{
    const __m512 first = _mm512_loadu_ps(upper);
    return _mm512_fmadd_ps(_mm512_sub_ps(_mm512_loadu_ps(lower), first), share, first);
}

/* round(255 v), which packing clips to 0 and more: NaN and what is below 0 are below 0 as integers. */
static inline __m512i byte16(const float *upper, const float *lower, __m512 share)
{
    const __m512 all = _mm512_set1_ps(255);
    /* min returns its second operand for a NaN, which so stays */
    return _mm512_cvtps_epi32(_mm512_min_ps(all, _mm512_mul_ps(mix16(upper, lower, share), all)));
}

static inline void value64_u8(const float *upper, const float *lower, __m512 share, uint8_t *out)
{
    const __m512i in_order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i low = _mm512_packs_epi32(byte16(upper, lower, share), byte16(upper + LANES, lower + LANES, share));
    const __m512i high = _mm512_packs_epi32(byte16(upper + 2 * LANES, lower + 2 * LANES, share),
                                            byte16(upper + 3 * LANES, lower + 3 * LANES, share));
    const __m512i bytes = _mm512_packus_epi16(low, high); /* packing works within quarters */
    _mm512_storeu_si512((void *)out, _mm512_permutexvar_epi32(in_order, bytes));
}

static void gcpp_value_u8_avx512(const float *upper, const float *lower, float share, uint8_t *out, int32_t count)
{
    const __m512 shares = _mm512_set1_ps(share);
    int32_t i = 0;
    for (; i + 4 * LANES <= count; i += 4 * LANES)
        value64_u8(upper + i, lower + i, shares, out + i);
    if (i < count && count >= 4 * LANES) { /* the last ones again, with those before them */
        i = count - 4 * LANES;
        value64_u8(upper + i, lower + i, shares, out + i);
        return;
    }
    gcpp_value_u8_avx2(upper + i, lower + i, share, out + i, count - i);
}

#define GCPP_TABLE_AVX512(name, blend)                                                           \
    {                                                                                            \
        .isa = name,                                                                             \
        .cam = {{gcpp_cam_f32_f32_avx512, gcpp_cam_f32_f16_avx512},                              \
                {gcpp_cam_f16_f32_avx512, gcpp_cam_f16_f16_avx512}},                             \
        .widen_f32 = gcpp_widen_f32_avx2,                                                        \
        .value_f32 = gcpp_value_f32_avx2,                                                        \
        .value_u8 = gcpp_value_u8_avx512,                                                        \
        .blend_u8 = blend,                                                                       \
        .multiply_f32 = gcpp_multiply_f32_avx2,                                                  \
        .multiply_f16 = gcpp_multiply_f16_avx2,                                                  \
        .pixels_packed = gcpp_pixels_packed_u8_avx512,                                           \
        .pixels_gray16 = gcpp_pixels_gray_u16_avx2,                                              \
        .pixels_nv12 = gcpp_pixels_nv12_u8_avx512,                                               \
        .finish_f32 = gcpp_finish_f32_avx2,                                                      \
        .finish_f16 = gcpp_finish_f16_avx2,                                                      \
    }

const gcpp_rows gcpp_rows_avx512 = GCPP_TABLE_AVX512("avx512", gcpp_blend_u8_avx2);
const gcpp_rows gcpp_rows_avx512vbmi = GCPP_TABLE_AVX512("avx512vbmi", gcpp_blend_u8_avx512vbmi);

GCPP_AVX512_END
#endif
