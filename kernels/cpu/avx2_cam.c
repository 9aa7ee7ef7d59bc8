/* cam with AVX2, FMA and F16C, for every pair of dtypes. */
#if defined(__x86_64__)
#include "avx2.h"

#include <math.h>
#include <string.h>

#include "avx2_rows.h"
#include "half.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))

/* The last positions % 8 elements of a channel. */
typedef struct {
    __m256i mask;   /* of the lanes below count */
    __m256i rotate; /* brings the last `count` of eight lanes to the front */
    ptrdiff_t count;
} tail8;

static inline tail8 tail_of(ptrdiff_t positions)
{
    const ptrdiff_t count = positions % LANES;
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return (tail8){_mm256_cmpgt_epi32(_mm256_set1_epi32((int)count), lane),
                   _mm256_add_epi32(lane, _mm256_set1_epi32((int)(LANES - count))), count};
}

static inline __m256 tail_f32(const float *channel, ptrdiff_t positions, tail8 tail)
{
    return _mm256_maskload_ps(channel + positions - tail.count, tail.mask);
}

/* There is no masked load of 16-bit elements: the last eight are loaded, and rotated. The channel has eight or more. */
static inline __m256 tail_f16(const uint16_t *channel, ptrdiff_t positions, tail8 tail)
{
    const __m256 rotated = _mm256_permutevar8x32_ps(load8_f16(channel + positions - LANES), tail.rotate);
    return _mm256_and_ps(rotated, _mm256_castsi256_ps(tail.mask));
}

static inline float sum_of_lanes(__m256 values)
{
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(values), _mm256_extractf128_ps(values, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

static inline __m256 clamp8(float sum)
{
    return _mm256_set1_ps(sum < 0 ? 0 : sum); /* a NaN stays */
}

/* What eight positions add to the weight of their channel (Eq. 3, 5, 29). */
static ALWAYS_INLINE __m256 cam_term8(__m256 gradient, __m256 clamped, gcpp_rule rule, int64_t *poles)
{
    if (rule == GCPP_GRADCAM)
        return gradient;
    const __m256 denominator = _mm256_fmadd_ps(clamped, gradient, _mm256_set1_ps(2));
    if (rule == GCPP_GRADCAM_PLUS_PLUS) /* max returns its second operand for a NaN, which so stays */
        return _mm256_div_ps(_mm256_max_ps(_mm256_setzero_ps(), gradient), denominator);
    const __m256 size = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), denominator);
    const __m256 pole = _mm256_cmp_ps(size, _mm256_set1_ps(GCPP_POLE), _CMP_LT_OQ);
    *poles += __builtin_popcount((unsigned)_mm256_movemask_ps(pole));
    return _mm256_andnot_ps(pole, _mm256_div_ps(gradient, denominator));
}

static inline float cam_constant_weight(float gradient, float sum, ptrdiff_t positions, gcpp_rule rule, int64_t *poles)
{
    int64_t lanes = 0;
    const __m256 term = cam_term8(_mm256_set1_ps(gradient), clamp8(sum), rule, &lanes);
    *poles += lanes / LANES * positions;
    return rule == GCPP_GRADCAM ? gradient : _mm256_cvtss_f32(term) * (float)positions;
}

static inline void relu_in_place(float *out, ptrdiff_t positions)
{
    ptrdiff_t i = 0;
    for (; i + LANES <= positions; i += LANES) /* a NaN stays */
        _mm256_storeu_ps(out + i, _mm256_max_ps(_mm256_setzero_ps(), _mm256_loadu_ps(out + i)));
    for (; i < positions; i++)
        out[i] = out[i] < 0 ? 0 : out[i];
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
#include "avx2_cam_template.h"

#undef GCPP_CAM_MAP
#undef GCPP_CAM_SCALAR
#undef GCPP_CAM_NAME
#undef GCPP_G
#undef GCPP_LOAD_G
#undef GCPP_TAIL_G
#undef GCPP_LOAD_ONE_G
#define GCPP_CAM_MAP gcpp_cam_f32_f16_avx2
#define GCPP_CAM_SCALAR gcpp_cam_f32_f16_scalar
#define GCPP_CAM_NAME(part) part##_f32_f16
#define GCPP_G uint16_t
#define GCPP_LOAD_G load8_f16
#define GCPP_TAIL_G tail_f16
#define GCPP_LOAD_ONE_G gcpp_float_from_half
#include "avx2_cam_template.h"

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
#include "avx2_cam_template.h"

#undef GCPP_CAM_MAP
#undef GCPP_CAM_SCALAR
#undef GCPP_CAM_NAME
#undef GCPP_G
#undef GCPP_LOAD_G
#undef GCPP_TAIL_G
#undef GCPP_LOAD_ONE_G
#define GCPP_CAM_MAP gcpp_cam_f16_f32_avx2
#define GCPP_CAM_SCALAR gcpp_cam_f16_f32_scalar
#define GCPP_CAM_NAME(part) part##_f16_f32
#define GCPP_G float
#define GCPP_LOAD_G _mm256_loadu_ps
#define GCPP_TAIL_G tail_f32
#define GCPP_LOAD_ONE_G GCPP_FLOAT_OF_FLOAT
#include "avx2_cam_template.h"

GCPP_AVX2_END
#endif
