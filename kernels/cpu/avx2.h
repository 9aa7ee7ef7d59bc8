/* Vectors of eight floats. Included first by the avx2_*.c files, which hold nothing on other machines. */
#ifndef GCPP_AVX2_H
#define GCPP_AVX2_H

#include <immintrin.h>

#include "scalar.h"

/* clang has no GCC target pragma: an attribute on every function to the end of the file does the same there. */
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,popcnt"))), apply_to = function)
#define GCPP_AVX2_END _Pragma("clang attribute pop")
#else
#pragma GCC target("avx2,fma,f16c,popcnt")
#define GCPP_AVX2_END
#endif

enum { LANES = 8 };

static inline __m256 mix8(__m256 first, __m256 second, __m256 share)
{
    return _mm256_fmadd_ps(_mm256_sub_ps(second, first), share, first);
}

static inline __m256i load8_i32(const int32_t *values)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)values);
}

static inline __m256 load8_f16(const uint16_t *values)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)values));
}

/* 64 bits from each of four places, aligned in no way. One by one: a gather takes longer (overlay of 1080p: 1.06 ms
 * with gathers, 0.93 so), and much longer on processors that guard it against leaks. */
static inline __m256i load4_i64(const void *a, const void *b, const void *c, const void *d)
{
    const __m128d low = _mm_castsi128_pd(_mm_loadl_epi64((const __m128i *)a));
    const __m128d high = _mm_castsi128_pd(_mm_loadl_epi64((const __m128i *)c));
    return _mm256_castpd_si256(_mm256_insertf128_pd(
        _mm256_castpd128_pd256(_mm_loadh_pd(low, (const double *)b)), _mm_loadh_pd(high, (const double *)d), 1));
}

#endif
