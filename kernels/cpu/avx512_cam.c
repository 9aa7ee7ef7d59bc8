/* cam with AVX-512, for every pair of dtypes. */
#if defined(__x86_64__)
#include "avx512.h"

#include <math.h>
#include <string.h>

#include "avx512_rows.h"
#include "half.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))
#define FOUR_TIMES _Pragma("GCC unroll 4") /* else what is kept for each of four channels goes through memory */

enum { LEAST_POSITIONS = 1 };

typedef __m512 vector;
typedef __mmask16 tail_mask; /* of the last positions % 16 elements of a channel */

static inline tail_mask tail_of(ptrdiff_t positions)
{
    return (tail_mask)((1u << positions % LANES) - 1);
}

static inline vector tail_load(const float *from, tail_mask tail)
{
    return _mm512_maskz_loadu_ps(tail, from);
}

static inline void tail_store(float *to, vector values, tail_mask tail)
{
    _mm512_mask_storeu_ps(to, tail, values);
}

static inline vector keep_tail(vector values, tail_mask tail)
{
    return _mm512_maskz_mov_ps(tail, values);
}

static inline vector tail_f32(const float *channel, ptrdiff_t positions, tail_mask tail)
{
    return tail_load(channel + positions / LANES * LANES, tail);
}

static inline vector tail_f16(const uint16_t *channel, ptrdiff_t positions, tail_mask tail)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(tail, channel + positions / LANES * LANES));
}

static inline vector vector_zero(void)
{
    return _mm512_setzero_ps();
}

static inline vector vector_set(float value)
{
    return _mm512_set1_ps(value);
}

static inline vector vector_load(const float *from)
{
    return _mm512_loadu_ps(from);
}

static inline void vector_store(float *to, vector values)
{
    _mm512_storeu_ps(to, values);
}

static inline vector vector_add(vector one, vector other)
{
    return _mm512_add_ps(one, other);
}

static inline vector vector_fma(vector one, vector other, vector sum)
{
    return _mm512_fmadd_ps(one, other, sum);
}

/* Element `index` of four in every lane. */
static inline vector vector_spread(__m128 four, int index)
{
    return _mm512_permutexvar_ps(_mm512_set1_epi32(index), _mm512_castps128_ps512(four));
}

/* The sum of the lanes of each, in order. */
static inline __m128 sums_of_lanes(vector a, vector b, vector c, vector d)
{
    const __m512 ab = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
    const __m512 cd = _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee));
    /* four partial sums of each, in a quarter of its own */
    const __m512 four = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
    const __m512 two = _mm512_add_ps(four, _mm512_permute_ps(four, 0x4e));
    const __m512 one = _mm512_add_ps(two, _mm512_permute_ps(two, 0xb1));
    const __m512i quarters = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    return _mm512_castps512_ps128(_mm512_permutexvar_ps(quarters, one));
}

typedef __mmask16 suspicion; /* where quick terms met a pole; estimates may be denormal, so that no d is too large */

static inline suspicion nothing_suspicious(void)
{
    return 0;
}

static inline int is_suspicious(suspicion found)
{
    return found;
}

static inline __mmask16 is_pole16(__m512 denominator)
{
    return _mm512_cmp_ps_mask(_mm512_abs_ps(denominator), _mm512_set1_ps(GCPP_POLE), _CMP_LT_OQ);
}

/* The numerator of a term: max returns its second operand for a NaN, which so stays. */
static ALWAYS_INLINE __m512 numerator16(__m512 gradient, gcpp_rule rule)
{
    return rule == GCPP_GRADCAM_PLUS_PLUS ? _mm512_max_ps(_mm512_setzero_ps(), gradient) : gradient;
}

/* Of terms that are being added up: sums of fractions are fractions, and one inverse serves for four. */
typedef struct {
    __m512 numerator, denominator;
} fraction;

/* What two times 16 positions add to the weight of their channel (Eq. 3, 5, 29). */
static ALWAYS_INLINE fraction fraction_of(vector one, vector other, vector clamped, gcpp_rule rule, suspicion *found)
{
    const __m512 two = _mm512_set1_ps(2);
    if (rule == GCPP_GRADCAM)
        return (fraction){_mm512_add_ps(one, other), two};
    const __m512 d = _mm512_fmadd_ps(clamped, one, two), e = _mm512_fmadd_ps(clamped, other, two);
    if (rule == GCPP_GRADCAM_PLUS_PLUS_SIGNED)
        *found = (suspicion)(*found | is_pole16(d) | is_pole16(e));
    return (fraction){_mm512_fmadd_ps(numerator16(one, rule), e, _mm512_mul_ps(numerator16(other, rule), d)),
                      _mm512_mul_ps(d, e)};
}

static ALWAYS_INLINE fraction fraction_sum(fraction f, fraction g, gcpp_rule rule)
{
    if (rule == GCPP_GRADCAM)
        return (fraction){_mm512_add_ps(f.numerator, g.numerator), f.denominator};
    return (fraction){_mm512_fmadd_ps(f.numerator, g.denominator, _mm512_mul_ps(g.numerator, f.denominator)),
                      _mm512_mul_ps(f.denominator, g.denominator)};
}

static ALWAYS_INLINE vector add_fraction(vector sum, fraction f, gcpp_rule rule, suspicion *found)
{
    if (rule == GCPP_GRADCAM)
        return _mm512_add_ps(sum, f.numerator);
    const __m512 estimate = _mm512_rcp14_ps(f.denominator);
    const __m512 newton = _mm512_fnmadd_ps(f.denominator, estimate, _mm512_set1_ps(2));
    (void)found;
    return _mm512_fmadd_ps(_mm512_mul_ps(f.numerator, estimate), newton, sum);
}

/* The same of sixteen positions by division; poles are 0, and counted. */
static ALWAYS_INLINE vector exact_term(vector gradient, vector clamped, gcpp_rule rule, int64_t *poles)
{
    const __m512 denominator = _mm512_fmadd_ps(clamped, gradient, _mm512_set1_ps(2));
    if (rule == GCPP_GRADCAM_PLUS_PLUS)
        return _mm512_div_ps(numerator16(gradient, rule), denominator);
    const __mmask16 pole = is_pole16(denominator);
    *poles += __builtin_popcount(pole);
    return _mm512_maskz_div_ps((__mmask16)~pole, gradient, denominator);
}

static inline void relu_in_place(float *out, ptrdiff_t positions)
{
    const tail_mask tail = tail_of(positions);
    ptrdiff_t i = 0;
    for (; i + LANES <= positions; i += LANES) /* a NaN stays */
        vector_store(out + i, _mm512_max_ps(_mm512_setzero_ps(), vector_load(out + i)));
    tail_store(out + i, _mm512_max_ps(_mm512_setzero_ps(), tail_load(out + i, tail)), tail);
}

static inline __m128 load4_f16(const uint16_t *values)
{
    return _mm_cvtph_ps(_mm_loadl_epi64((const __m128i *)(const void *)values));
}

#define GCPP_FLOAT_OF_FLOAT(value) (value)

#define GCPP_CAM_MAP gcpp_cam_f32_f32_avx512
#define GCPP_CAM_SCALAR gcpp_cam_f32_f32_scalar
#define GCPP_CAM_NAME(part) part##_f32_f32
#define GCPP_A float
#define GCPP_LOAD_A vector_load
#define GCPP_TAIL_A tail_f32
#define GCPP_G float
#define GCPP_LOAD_G vector_load
#define GCPP_TAIL_G tail_f32
#define GCPP_LOAD_ONE_G GCPP_FLOAT_OF_FLOAT
#define GCPP_LOAD_FOUR_G _mm_loadu_ps
#include "vector_cam_template.h"

#undef GCPP_CAM_MAP
#undef GCPP_CAM_SCALAR
#undef GCPP_CAM_NAME
#undef GCPP_G
#undef GCPP_LOAD_G
#undef GCPP_TAIL_G
#undef GCPP_LOAD_ONE_G
#undef GCPP_LOAD_FOUR_G
#define GCPP_CAM_MAP gcpp_cam_f32_f16_avx512
#define GCPP_CAM_SCALAR gcpp_cam_f32_f16_scalar
#define GCPP_CAM_NAME(part) part##_f32_f16
#define GCPP_G uint16_t
#define GCPP_LOAD_G load16_f16
#define GCPP_TAIL_G tail_f16
#define GCPP_LOAD_ONE_G gcpp_float_from_half
#define GCPP_LOAD_FOUR_G load4_f16
#include "vector_cam_template.h"

#undef GCPP_CAM_MAP
#undef GCPP_CAM_SCALAR
#undef GCPP_CAM_NAME
#undef GCPP_A
#undef GCPP_LOAD_A
#undef GCPP_TAIL_A
#define GCPP_CAM_MAP gcpp_cam_f16_f16_avx512
#define GCPP_CAM_SCALAR gcpp_cam_f16_f16_scalar
#define GCPP_CAM_NAME(part) part##_f16_f16
#define GCPP_A uint16_t
#define GCPP_LOAD_A load16_f16
#define GCPP_TAIL_A tail_f16
#include "vector_cam_template.h"

#undef GCPP_CAM_MAP
#undef GCPP_CAM_SCALAR
#undef GCPP_CAM_NAME
#undef GCPP_G
#undef GCPP_LOAD_G
#undef GCPP_TAIL_G
#undef GCPP_LOAD_ONE_G
#undef GCPP_LOAD_FOUR_G
#define GCPP_CAM_MAP gcpp_cam_f16_f32_avx512
#define GCPP_CAM_SCALAR gcpp_cam_f16_f32_scalar
#define GCPP_CAM_NAME(part) part##_f16_f32
#define GCPP_G float
#define GCPP_LOAD_G vector_load
#define GCPP_TAIL_G tail_f32
#define GCPP_LOAD_ONE_G GCPP_FLOAT_OF_FLOAT
#define GCPP_LOAD_FOUR_G _mm_loadu_ps
#include "vector_cam_template.h"

GCPP_AVX512_END
#endif
