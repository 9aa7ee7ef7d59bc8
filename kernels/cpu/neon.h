/* Vectors of four floats. Included first by the neon_*.c files, which hold nothing on other machines.
 *
 * What every 64-bit ARM core has (ARMv8.0-A, Advanced SIMD): float16 is converted, never computed with. */
#ifndef GCPP_NEON_H
#define GCPP_NEON_H

#include <arm_neon.h>

#include "scalar.h"

enum { LANES = 4, UNROLLED = 4 /* vectors a turn of a loop */ };

static inline float32x4_t mix4(float32x4_t first, float32x4_t second, float32x4_t share)
{
    return vfmaq_f32(first, vsubq_f32(second, first), share);
}

static inline float32x4_t load4_f16(const uint16_t *values)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(values)));
}

#endif
