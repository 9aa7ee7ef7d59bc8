/* cam in plain C99, for every pair of dtypes. */
#include <math.h>

#include "half.h"
#include "scalar.h"

enum { GCPP_PARTS = 8 }; /* partial sums: a smaller error than one running sum */

static inline float gcpp_cam_total(const float part[GCPP_PARTS])
{
    return ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]));
}

/* By its bits: written as a choice, the compiler branches on the sign, which is a coin toss: 302 instead of 80 µs for
 * 1280 channels of 7 x 7 (gcc 12). */
static inline float positive_part(float value)
{
    const uint32_t bits = gcpp_bits_from_float(value);
    return gcpp_float_from_bits(bits & ((bits >> 31) - 1));
}

/* What one position adds to the weight of its channel (Eq. 3, 5, 29). */
static inline float gcpp_cam_term(float gradient, float sum, gcpp_rule rule, int64_t *poles)
{
    if (rule == GCPP_GRADCAM)
        return gradient;
    const float clamped = sum < 0 ? 0 : sum; /* a NaN stays */
    const float denominator = 2 + clamped * gradient;
    if (rule == GCPP_GRADCAM_PLUS_PLUS)
        return positive_part(gradient) / denominator; /* a NaN stays, in the denominator */
    if (fabsf(denominator) < GCPP_POLE) {
        ++*poles;
        return 0;
    }
    return gradient / denominator;
}

#define GCPP_FLOAT_OF_FLOAT(value) (value)

#define GCPP_CAM_MAP gcpp_cam_f32_f32_scalar
#define GCPP_CAM_NAME(part) part##_f32_f32
#define GCPP_A float
#define GCPP_G float
#define GCPP_LOAD_A GCPP_FLOAT_OF_FLOAT
#define GCPP_LOAD_G GCPP_FLOAT_OF_FLOAT
#include "scalar_cam_template.h"

#undef GCPP_CAM_MAP
#undef GCPP_CAM_NAME
#undef GCPP_G
#undef GCPP_LOAD_G
#define GCPP_CAM_MAP gcpp_cam_f32_f16_scalar
#define GCPP_CAM_NAME(part) part##_f32_f16
#define GCPP_G uint16_t
#define GCPP_LOAD_G gcpp_float_from_half
#include "scalar_cam_template.h"

#undef GCPP_CAM_MAP
#undef GCPP_CAM_NAME
#undef GCPP_A
#undef GCPP_LOAD_A
#define GCPP_CAM_MAP gcpp_cam_f16_f16_scalar
#define GCPP_CAM_NAME(part) part##_f16_f16
#define GCPP_A uint16_t
#define GCPP_LOAD_A gcpp_float_from_half
#include "scalar_cam_template.h"

#undef GCPP_CAM_MAP
#undef GCPP_CAM_NAME
#undef GCPP_G
#undef GCPP_LOAD_G
#define GCPP_CAM_MAP gcpp_cam_f16_f32_scalar
#define GCPP_CAM_NAME(part) part##_f16_f32
#define GCPP_G float
#define GCPP_LOAD_G GCPP_FLOAT_OF_FLOAT
#include "scalar_cam_template.h"
