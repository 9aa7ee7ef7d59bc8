/* Vectors of sixteen floats. Included first by the avx512_*.c files, which hold nothing on other machines.
 *
 * The subset is that of servers since 2017 and of Zen 4: F, BW, DQ, VL. avx512vbmi_*.c asks for byte permutations too.
 */
#ifndef GCPP_AVX512_H
#define GCPP_AVX512_H

#include <immintrin.h>

#include "scalar.h"

/* clang has no GCC target pragma: an attribute on every function to the end of the file does the same there. */
#if defined(GCPP_AVX512_VBMI)
#define GCPP_AVX512_TARGET "avx2,fma,f16c,popcnt,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi"
#else
#define GCPP_AVX512_TARGET "avx2,fma,f16c,popcnt,avx512f,avx512bw,avx512dq,avx512vl"
#endif
#define GCPP_PRAGMA(text) _Pragma(#text)
#define GCPP_TARGET_GCC(features) GCPP_PRAGMA(GCC target(features))
#define GCPP_TARGET_CLANG(features) \
    GCPP_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#if defined(__clang__)
GCPP_TARGET_CLANG(GCPP_AVX512_TARGET)
#define GCPP_AVX512_END _Pragma("clang attribute pop")
#else
GCPP_TARGET_GCC(GCPP_AVX512_TARGET)
#define GCPP_AVX512_END
#endif

enum { LANES = 16 };

static inline __m512 load16_f16(const uint16_t *values)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)values));
}

#endif
