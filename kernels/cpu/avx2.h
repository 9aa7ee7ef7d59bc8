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

/* The columns from `start` on, for the scalar code that finishes a row. */
static inline gcpp_columns columns_from(const gcpp_columns *columns, int32_t start)
{
    return (gcpp_columns){columns->first + start,
                          columns->second + start,
                          columns->share + start,
                          columns->count - start,
                          columns->first_offset + start,
                          columns->first_shift + start,
                          columns->second_offset + start,
                          columns->second_shift + start};
}

#endif
