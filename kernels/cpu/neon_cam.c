/* cam with NEON, for every pair of dtypes. */
#if defined(__aarch64__)
#include "neon.h"

#include <string.h>

#include "neon_rows.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))

enum { FOUR_FIT = 1024 /* positions: 16 KiB of four channels' activations, half of the smallest L1 */ };

static inline float one_f32(const float *value)
{
    return *value;
}

static inline float one_f16(const uint16_t *value)
{
    return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vld1_dup_u16(value))), 0);
}

/* The last positions % 4 elements of a channel, as lanes of its last four. */
typedef struct {
    uint32x4_t mask;
    ptrdiff_t count;
} tail4;

static inline tail4 tail_of(ptrdiff_t positions)
{
    static const uint32_t lane[LANES] = {0, 1, 2, 3};
    const ptrdiff_t count = positions % LANES;
    return (tail4){vcgeq_u32(vld1q_u32(lane), vdupq_n_u32((uint32_t)(LANES - count))), count};
}

static inline float32x4_t keep_tail(float32x4_t values, tail4 tail)
{
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(values), tail.mask));
}

static inline void store_tail(float *end, float32x4_t values, tail4 tail)
{
    if (tail.count == 1)
        vst1q_lane_f32(end - 1, values, 3);
    if (tail.count >= 2)
        vst1_f32(end - 2, vget_high_f32(values));
    if (tail.count == 3)
        vst1q_lane_f32(end - 3, values, 1);
}

/* The sum of the lanes of each vector. */
static inline float32x4_t sums_of_lanes(const float32x4_t part[4])
{
    return vpaddq_f32(vpaddq_f32(part[0], part[1]), vpaddq_f32(part[2], part[3]));
}

/* 1 / value by an estimate and two steps of Newton's, within two units in the last place: six instructions that are
 * pipelined, where a core divides one vector at a time. Infinity gives 0, and 0 infinity. */
static inline float32x4_t inverse4(float32x4_t value)
{
    float32x4_t inverse = vrecpeq_f32(value);
    inverse = vmulq_f32(inverse, vrecpsq_f32(value, inverse));
    return vmulq_f32(inverse, vrecpsq_f32(value, inverse));
}

/* `part` and what four positions add to the weight of their channel (Eq. 3, 5, 29). */
static ALWAYS_INLINE float32x4_t add_cam_term4(float32x4_t part, float32x4_t gradient, float32x4_t clamped,
                                               gcpp_rule rule, uint32x4_t *poles)
{
    if (rule == GCPP_GRADCAM)
        return vaddq_f32(part, gradient);
    const float32x4_t denominator = vfmaq_f32(vdupq_n_f32(2), clamped, gradient);
    const float32x4_t inverse = inverse4(denominator);
    if (rule == GCPP_GRADCAM_PLUS_PLUS) /* a NaN stays */
        return vfmaq_f32(part, vmaxq_f32(gradient, vdupq_n_f32(0)), inverse);
    const uint32x4_t pole = vcaltq_f32(denominator, vdupq_n_f32(GCPP_POLE));
    *poles = vsubq_u32(*poles, pole); /* a lane of a mask is 0 or -1 */
    const float32x4_t term = vmulq_f32(gradient, inverse);
    return vaddq_f32(part, vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(term), pole)));
}

/* Weights of four channels whose positions all have the same term. */
static ALWAYS_INLINE float32x4_t constant_weights4(float32x4_t gradient, float32x4_t clamped, ptrdiff_t positions,
                                                   gcpp_rule rule, uint32x4_t *poles)
{
    const float32x4_t term = add_cam_term4(vdupq_n_f32(0), gradient, clamped, rule, poles);
    return rule == GCPP_GRADCAM ? term : vmulq_n_f32(term, (float)positions);
}

static inline void relu_in_place(float *out, ptrdiff_t positions)
{
    ptrdiff_t i = 0;
    for (; i + LANES <= positions; i += LANES) /* a NaN stays */
        vst1q_f32(out + i, vmaxq_f32(vld1q_f32(out + i), vdupq_n_f32(0)));
    for (; i < positions; i++)
        out[i] = out[i] < 0 ? 0 : out[i];
}

#define GCPP_CAM_MAP gcpp_cam_f32_f32_neon
#define GCPP_CAM_SCALAR gcpp_cam_f32_f32_scalar
#define GCPP_CAM_NAME(part) part##_f32_f32
#define GCPP_A float
#define GCPP_LOAD_A vld1q_f32
#define GCPP_G float
#define GCPP_LOAD_G vld1q_f32
#define GCPP_LOAD_ONE_G one_f32
#include "neon_cam_template.h"

#undef GCPP_CAM_MAP
#undef GCPP_CAM_SCALAR
#undef GCPP_CAM_NAME
#undef GCPP_G
#undef GCPP_LOAD_G
#undef GCPP_LOAD_ONE_G
#define GCPP_CAM_MAP gcpp_cam_f32_f16_neon
#define GCPP_CAM_SCALAR gcpp_cam_f32_f16_scalar
#define GCPP_CAM_NAME(part) part##_f32_f16
#define GCPP_G uint16_t
#define GCPP_LOAD_G load4_f16
#define GCPP_LOAD_ONE_G one_f16
#include "neon_cam_template.h"

#undef GCPP_CAM_MAP
#undef GCPP_CAM_SCALAR
#undef GCPP_CAM_NAME
#undef GCPP_A
#undef GCPP_LOAD_A
#define GCPP_CAM_MAP gcpp_cam_f16_f16_neon
#define GCPP_CAM_SCALAR gcpp_cam_f16_f16_scalar
#define GCPP_CAM_NAME(part) part##_f16_f16
#define GCPP_A uint16_t
#define GCPP_LOAD_A load4_f16
#include "neon_cam_template.h"

#undef GCPP_CAM_MAP
#undef GCPP_CAM_SCALAR
#undef GCPP_CAM_NAME
#undef GCPP_G
#undef GCPP_LOAD_G
#undef GCPP_LOAD_ONE_G
#define GCPP_CAM_MAP gcpp_cam_f16_f32_neon
#define GCPP_CAM_SCALAR gcpp_cam_f16_f32_scalar
#define GCPP_CAM_NAME(part) part##_f16_f32
#define GCPP_G float
#define GCPP_LOAD_G vld1q_f32
#define GCPP_LOAD_ONE_G one_f32
#include "neon_cam_template.h"

#endif
