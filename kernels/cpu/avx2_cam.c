/* cam with AVX2, FMA and F16C, for every pair of dtypes. */
#if defined(__x86_64__)
#include "avx2.h"

#include <math.h>
#include <math.h>
#include <string.h>

#include "avx2_rows.h"
#include "half.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))
#define FOUR_TIMES _Pragma("GCC unroll 4") /* else what is kept for each of four channels goes through memory */

enum { LEAST_POSITIONS = LANES /* tail_f16 needs a whole vector */ };

typedef __m256 vector;

/* The last positions % 8 elements of a channel. */
typedef struct {
    __m256i mask;   /* of the lanes below count */
    __m256i rotate; /* brings the last `count` of eight lanes to the front */
    ptrdiff_t count;
} tail_mask;

static inline tail_mask tail_of(ptrdiff_t positions)
{
    const ptrdiff_t count = positions % LANES;
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return (tail_mask){_mm256_cmpgt_epi32(_mm256_set1_epi32((int)count), lane),
                       _mm256_add_epi32(lane, _mm256_set1_epi32((int)(LANES - count))), count};
}

static inline vector tail_load(const float *from, tail_mask tail)
{
    return _mm256_maskload_ps(from, tail.mask);
}

static inline void tail_store(float *to, vector values, tail_mask tail)
{
    _mm256_maskstore_ps(to, tail.mask, values);
}

static inline vector keep_tail(vector values, tail_mask tail)
{
    return _mm256_and_ps(values, _mm256_castsi256_ps(tail.mask));
}

static inline vector tail_f32(const float *channel, ptrdiff_t positions, tail_mask tail)
{
    return tail_load(channel + positions - tail.count, tail);
}

/* There is no masked load of 16-bit elements: the last eight are loaded, and rotated. The channel has eight or more. */
static inline vector tail_f16(const uint16_t *channel, ptrdiff_t positions, tail_mask tail)
{
    return keep_tail(_mm256_permutevar8x32_ps(load8_f16(channel + positions - LANES), tail.rotate), tail);
}

static inline vector vector_zero(void)
{
    return _mm256_setzero_ps();
}

static inline vector vector_set(float value)
{
    return _mm256_set1_ps(value);
}

static inline vector vector_load(const float *from)
{
    return _mm256_loadu_ps(from);
}

static inline void vector_store(float *to, vector values)
{
    _mm256_storeu_ps(to, values);
}

static inline vector vector_add(vector one, vector other)
{
    return _mm256_add_ps(one, other);
}

static inline vector vector_fma(vector one, vector other, vector sum)
{
    return _mm256_fmadd_ps(one, other, sum);
}

/* Element `index` of four in every lane. */
static inline vector vector_spread(__m128 four, int index)
{
    return _mm256_permutevar8x32_ps(_mm256_castps128_ps256(four), _mm256_set1_epi32(index));
}

/* The sum of the lanes of each, in order. */
static inline __m128 sums_of_lanes(vector a, vector b, vector c, vector d)
{
    const __m256 ac = _mm256_add_ps(_mm256_permute2f128_ps(a, c, 0x20), _mm256_permute2f128_ps(a, c, 0x31));
    const __m256 bd = _mm256_add_ps(_mm256_permute2f128_ps(b, d, 0x20), _mm256_permute2f128_ps(b, d, 0x31));
    /* two partial sums of each: of a and b in the lower half, of c and d in the upper one */
    const __m256 pairs = _mm256_add_ps(_mm256_shuffle_ps(ac, bd, 0x44), _mm256_shuffle_ps(ac, bd, 0xee));
    const __m128 lower = _mm256_castps256_ps128(pairs), upper = _mm256_extractf128_ps(pairs, 1);
    return _mm_add_ps(_mm_shuffle_ps(lower, upper, 0x88), _mm_shuffle_ps(lower, upper, 0xdd));
}

/* Where quick terms went beyond what an estimate can do: poles, and the largest product of two d. */
typedef struct {
    __m256 pole, largest;
} suspicion;

static inline suspicion nothing_suspicious(void)
{
    return (suspicion){_mm256_setzero_ps(), _mm256_setzero_ps()};
}

static inline int is_suspicious(suspicion found)
{
    /* above 2^126 the estimate is 0 */
    const __m256 huge = _mm256_cmp_ps(found.largest, _mm256_set1_ps(0x1p126f), _CMP_GT_OQ);
    return _mm256_movemask_ps(_mm256_or_ps(found.pole, huge));
}

static inline __m256 size8(__m256 values)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), values);
}

static inline __m256 is_pole8(__m256 denominator)
{
    return _mm256_cmp_ps(size8(denominator), _mm256_set1_ps(GCPP_POLE), _CMP_LT_OQ);
}

/* The numerator of a term: max returns its second operand for a NaN, which so stays. */
static ALWAYS_INLINE __m256 numerator8(__m256 gradient, gcpp_rule rule)
{
    return rule == GCPP_GRADCAM_PLUS_PLUS ? _mm256_max_ps(_mm256_setzero_ps(), gradient) : gradient;
}

/* Of terms that are being added up: sums of fractions are fractions, and one inverse serves for four. */
typedef struct {
    __m256 numerator, denominator;
} fraction;

/* What two times 8 positions add to the weight of their channel (Eq. 3, 5, 29). */
static ALWAYS_INLINE fraction fraction_of(vector one, vector other, vector clamped, gcpp_rule rule, suspicion *found)
{
    const __m256 two = _mm256_set1_ps(2);
    if (rule == GCPP_GRADCAM)
        return (fraction){_mm256_add_ps(one, other), two};
    const __m256 d = _mm256_fmadd_ps(clamped, one, two), e = _mm256_fmadd_ps(clamped, other, two);
    if (rule == GCPP_GRADCAM_PLUS_PLUS_SIGNED)
        found->pole = _mm256_or_ps(found->pole, _mm256_or_ps(is_pole8(d), is_pole8(e)));
    return (fraction){_mm256_fmadd_ps(numerator8(one, rule), e, _mm256_mul_ps(numerator8(other, rule), d)),
                      _mm256_mul_ps(d, e)};
}

static ALWAYS_INLINE fraction fraction_sum(fraction f, fraction g, gcpp_rule rule)
{
    if (rule == GCPP_GRADCAM)
        return (fraction){_mm256_add_ps(f.numerator, g.numerator), f.denominator};
    return (fraction){_mm256_fmadd_ps(f.numerator, g.denominator, _mm256_mul_ps(g.numerator, f.denominator)),
                      _mm256_mul_ps(f.denominator, g.denominator)};
}

static ALWAYS_INLINE vector add_fraction(vector sum, fraction f, gcpp_rule rule, suspicion *found)
{
    if (rule == GCPP_GRADCAM)
        return _mm256_add_ps(sum, f.numerator);
    const __m256 estimate = _mm256_rcp_ps(f.denominator);
    const __m256 newton = _mm256_fnmadd_ps(f.denominator, estimate, _mm256_set1_ps(2));
    found->largest = _mm256_max_ps(size8(f.denominator), found->largest);
    return _mm256_fmadd_ps(_mm256_mul_ps(f.numerator, estimate), newton, sum);
}

/* The same of eight positions by division; poles are 0, and counted. */
static ALWAYS_INLINE vector exact_term(vector gradient, vector clamped, gcpp_rule rule, int64_t *poles)
{
    const __m256 denominator = _mm256_fmadd_ps(clamped, gradient, _mm256_set1_ps(2));
    const __m256 term = _mm256_div_ps(numerator8(gradient, rule), denominator);
    if (rule == GCPP_GRADCAM_PLUS_PLUS)
        return term;
    const __m256 pole = is_pole8(denominator);
    *poles += __builtin_popcount((unsigned)_mm256_movemask_ps(pole));
    return _mm256_andnot_ps(pole, term);
}

static inline void relu_in_place(float *out, ptrdiff_t positions)
{
    ptrdiff_t i = 0;
    for (; i + LANES <= positions; i += LANES) /* a NaN stays */
        _mm256_storeu_ps(out + i, _mm256_max_ps(_mm256_setzero_ps(), _mm256_loadu_ps(out + i)));
    for (; i < positions; i++)
        out[i] = out[i] < 0 ? 0 : out[i];
}

static inline __m128 load4_f16(const uint16_t *values)
{
    return _mm_cvtph_ps(_mm_loadl_epi64((const __m128i *)(const void *)values));
}

#define GCPP_FLOAT_OF_FLOAT(value) (value)

#define GCPP_CAM_MAP gcpp_cam_f32_f32_avx2
#define GCPP_CAM_SCALAR gcpp_cam_f32_f32_scalar
#define GCPP_CAM_NAME(part) part##_f32_f32
#define GCPP_A float
#define GCPP_LOAD_A _mm256_loadu_ps
#define GCPP_TAIL_A tail_f32
#define GCPP_G float
#define GCPP_LOAD_G _mm256_loadu_ps
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
#define GCPP_CAM_MAP gcpp_cam_f32_f16_avx2
#define GCPP_CAM_SCALAR gcpp_cam_f32_f16_scalar
#define GCPP_CAM_NAME(part) part##_f32_f16
#define GCPP_G uint16_t
#define GCPP_LOAD_G load8_f16
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
#define GCPP_CAM_MAP gcpp_cam_f16_f16_avx2
#define GCPP_CAM_SCALAR gcpp_cam_f16_f16_scalar
#define GCPP_CAM_NAME(part) part##_f16_f16
#define GCPP_A uint16_t
#define GCPP_LOAD_A load8_f16
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
#define GCPP_CAM_MAP gcpp_cam_f16_f32_avx2
#define GCPP_CAM_SCALAR gcpp_cam_f16_f32_scalar
#define GCPP_CAM_NAME(part) part##_f16_f32
#define GCPP_G float
#define GCPP_LOAD_G _mm256_loadu_ps
#define GCPP_TAIL_G tail_f32
#define GCPP_LOAD_ONE_G GCPP_FLOAT_OF_FLOAT
#define GCPP_LOAD_FOUR_G _mm_loadu_ps
#include "vector_cam_template.h"

GCPP_AVX2_END
#endif
