/* cam in plain C99, for every pair of dtypes. */
#include "half.h"
#include "scalar.h"

enum { GCPP_PARTS = 8 }; /* partial sums: a smaller error than one running sum */

static inline float gcpp_cam_total(const float part[GCPP_PARTS])
{
    return ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]));
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
