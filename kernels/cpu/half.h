/* float16 in software, for machines without conversion instructions. Rounds to nearest, ties to even. */
#ifndef GCPP_HALF_H
#define GCPP_HALF_H

#include "arithmetic.h"

static inline float gcpp_float_from_half(uint16_t half)
{
    /* The exponent is re-biased by a multiplication, which makes the denormals right too. */
    const uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    const uint32_t magnitude = (uint32_t)(half & 0x7fffu) << 13;
    const float finite = gcpp_float_from_bits(magnitude) * 0x1p112f;
    const uint32_t bits = (half & 0x7c00u) == 0x7c00u ? magnitude | 0x7f800000u : gcpp_bits_from_float(finite);
    return gcpp_float_from_bits(sign | bits);
}

static inline uint16_t gcpp_half_from_float(float value)
{
    const uint32_t bits = gcpp_bits_from_float(value);
    const uint32_t sign = bits >> 16 & 0x8000u;
    const uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) /* NaN stays one */
        return (uint16_t)(sign | 0x7e00u);
    if (magnitude >= 0x477ff000u) /* 65520 and more round to infinity */
        return (uint16_t)(sign | 0x7c00u);
    if (magnitude < 0x38800000u) { /* below 2^-14: adding 0.5 leaves the denormal's bits, rounded, at the end */
        const float shifted = gcpp_float_from_bits(magnitude) + 0.5f;
        return (uint16_t)(sign | (gcpp_bits_from_float(shifted) - 0x3f000000u));
    }
    const uint32_t odd = magnitude >> 13 & 1u;
    return (uint16_t)(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13));
}

#endif
