/* One map with NEON, for one pair of dtypes. neon_cam.c includes this with GCPP_CAM_MAP (the function's name),
 * GCPP_CAM_SCALAR (the scalar one), GCPP_CAM_NAME (names of its parts), GCPP_A and GCPP_G (element types), GCPP_LOAD_A
 * and GCPP_LOAD_G (four elements), GCPP_LOAD_ONE_G (the element at an address).
 *
 * Channels are taken four at a time, so that their sums end in the lanes of one vector, and the map is read and written
 * once for the four; where four are too large for L1, and at the end, one at a time. */

/* ΣA of a channel in four partial sums. */
static inline float32x4_t GCPP_CAM_NAME(sum)(const GCPP_A *activations, ptrdiff_t positions, tail4 tail)
{
    float32x4_t part[UNROLLED] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
    ptrdiff_t i = 0;
    for (; i + UNROLLED * LANES <= positions; i += UNROLLED * LANES)
        for (int v = 0; v < UNROLLED; v++)
            part[v] = vaddq_f32(part[v], GCPP_LOAD_A(activations + i + v * LANES));
    for (; i + LANES <= positions; i += LANES)
        part[0] = vaddq_f32(part[0], GCPP_LOAD_A(activations + i));
    if (tail.count)
        part[1] = vaddq_f32(part[1], keep_tail(GCPP_LOAD_A(activations + positions - LANES), tail));
    return vaddq_f32(vaddq_f32(part[0], part[1]), vaddq_f32(part[2], part[3]));
}

/* The terms of a channel's weight in four partial sums; `clamped` is max(ΣA, 0). */
static ALWAYS_INLINE float32x4_t GCPP_CAM_NAME(terms)(const GCPP_G *gradients, ptrdiff_t positions, tail4 tail,
                                                      float clamped, gcpp_rule rule, uint32x4_t *poles)
{
    const float32x4_t sum = vdupq_n_f32(clamped), zero = vdupq_n_f32(0);
    float32x4_t part[UNROLLED] = {zero, zero, zero, zero};
    ptrdiff_t i = 0;
    for (; i + UNROLLED * LANES <= positions; i += UNROLLED * LANES)
        for (int v = 0; v < UNROLLED; v++)
            part[v] = add_cam_term4(part[v], GCPP_LOAD_G(gradients + i + v * LANES), sum, rule, poles);
    for (; i + LANES <= positions; i += LANES)
        part[0] = add_cam_term4(part[0], GCPP_LOAD_G(gradients + i), sum, rule, poles);
    if (tail.count) {
        uint32x4_t found = vdupq_n_u32(0);
        const float32x4_t last = GCPP_LOAD_G(gradients + positions - LANES);
        part[1] = vaddq_f32(part[1], keep_tail(add_cam_term4(zero, last, sum, rule, &found), tail));
        *poles = vaddq_u32(*poles, vandq_u32(found, tail.mask));
    }
    return vaddq_f32(vaddq_f32(part[0], part[1]), vaddq_f32(part[2], part[3]));
}

/* `sum` and four positions of `count` channels, 1 or 4, known where this is inlined. */
static ALWAYS_INLINE float32x4_t GCPP_CAM_NAME(add_channels4)(float32x4_t sum, const GCPP_A *activations,
                                                              ptrdiff_t positions, int count, const float weight[4])
{
    for (int c = 0; c < count; c++)
        sum = vfmaq_n_f32(sum, GCPP_LOAD_A(activations + c * positions), weight[c]);
    return sum;
}

static ALWAYS_INLINE void GCPP_CAM_NAME(accumulate)(const GCPP_A *a, ptrdiff_t positions, tail4 tail, int count,
                                                    float32x4_t weights, float *out)
{
    const float weight[4] = {vgetq_lane_f32(weights, 0), vgetq_lane_f32(weights, 1), vgetq_lane_f32(weights, 2),
                             vgetq_lane_f32(weights, 3)};
    const ptrdiff_t end = positions - LANES;
    /* taken before the others are written: a load across two stores waits for both */
    const float32x4_t last =
        GCPP_CAM_NAME(add_channels4)(vld1q_f32(out + end), a + end, positions, count, weight);
    ptrdiff_t i = 0;
    for (; i + UNROLLED * LANES <= positions; i += UNROLLED * LANES)
        for (ptrdiff_t v = i; v < i + UNROLLED * LANES; v += LANES)
            vst1q_f32(out + v, GCPP_CAM_NAME(add_channels4)(vld1q_f32(out + v), a + v, positions, count, weight));
    for (; i + LANES <= positions; i += LANES)
        vst1q_f32(out + i, GCPP_CAM_NAME(add_channels4)(vld1q_f32(out + i), a + i, positions, count, weight));
    store_tail(out + positions, last, tail);
}

/* Weights of `count` channels, in the first lanes, before the scale and the mean. */
static ALWAYS_INLINE float32x4_t GCPP_CAM_NAME(weights)(const GCPP_A *a, const GCPP_G *g, ptrdiff_t positions,
                                                        tail4 tail, int count, gcpp_rule rule, int constant_gradients,
                                                        float unscale, int64_t *poles)
{
    const float32x4_t zero = vdupq_n_f32(0);
    float32x4_t part[4] = {zero, zero, zero, zero}, found;
    uint32x4_t lanes = vdupq_n_u32(0);
    for (int c = 0; c < count && rule != GCPP_GRADCAM; c++)
        part[c] = GCPP_CAM_NAME(sum)(a + c * positions, positions, tail);
    const float32x4_t clamped = vmaxq_f32(vmulq_n_f32(sums_of_lanes(part), unscale), zero); /* a NaN stays */
    if (constant_gradients) {
        found = count == 4 ? GCPP_LOAD_G(g) : vsetq_lane_f32(GCPP_LOAD_ONE_G(g), zero, 0);
        found = constant_weights4(found, clamped, positions, rule, &lanes);
        *poles += (int64_t)vaddlvq_u32(lanes) * positions;
        return found;
    }
    const float clamps[4] = {vgetq_lane_f32(clamped, 0), vgetq_lane_f32(clamped, 1), vgetq_lane_f32(clamped, 2),
                             vgetq_lane_f32(clamped, 3)};
    for (int c = 0; c < count; c++)
        part[c] = GCPP_CAM_NAME(terms)(g + c * positions, positions, tail, clamps[c], rule, &lanes);
    *poles += (int64_t)vaddlvq_u32(lanes);
    return sums_of_lanes(part);
}

/* Adds channels to `out`, `count` at a time; `channels` is a multiple. One pass over memory: ΣA of a channel is needed
 * before its weight, and the channel is still in L1. */
static ALWAYS_INLINE int64_t GCPP_CAM_NAME(groups)(const GCPP_A *a, const GCPP_G *g, float *out, float *weights,
                                                   ptrdiff_t channels, ptrdiff_t positions, int count, gcpp_rule rule,
                                                   int constant_gradients, float unscale)
{
    const tail4 tail = tail_of(positions);
    const ptrdiff_t slopes = constant_gradients ? 1 : positions;
    const float share = !constant_gradients && rule == GCPP_GRADCAM ? unscale / (float)positions : unscale;
    int64_t poles = 0;
    for (ptrdiff_t k = 0; k < channels; k += count, a += count * positions, g += count * slopes) {
        const float32x4_t found = vmulq_n_f32(
            GCPP_CAM_NAME(weights)(a, g, positions, tail, count, rule, constant_gradients, unscale, &poles), share);
        GCPP_CAM_NAME(accumulate)(a, positions, tail, count, found, out);
        if (weights && count == 4)
            vst1q_f32(weights + k, found);
        else if (weights)
            vst1q_lane_f32(weights + k, found, 0);
    }
    return poles;
}

static ALWAYS_INLINE int64_t GCPP_CAM_NAME(map)(const GCPP_A *a, const GCPP_G *g, float *out, float *weights,
                                                ptrdiff_t channels, ptrdiff_t positions, gcpp_rule rule,
                                                int constant_gradients, float unscale)
{
    const ptrdiff_t most = positions <= FOUR_FIT ? channels / 4 * 4 : 0;
    const int64_t poles =
        GCPP_CAM_NAME(groups)(a, g, out, weights, most, positions, 4, rule, constant_gradients, unscale);
    return poles
           + GCPP_CAM_NAME(groups)(a + most * positions, g + most * (constant_gradients ? 1 : positions), out,
                                   weights ? weights + most : NULL, channels - most, positions, 1, rule,
                                   constant_gradients, unscale);
}

int64_t GCPP_CAM_MAP(const void *activations, const void *gradients, float *out, float *weights, ptrdiff_t channels,
                     ptrdiff_t positions, gcpp_rule rule, int constant_gradients, int relu, float unscale)
{
    int64_t poles;
    if (positions < LANES)
        return GCPP_CAM_SCALAR(activations, gradients, out, weights, channels, positions, rule, constant_gradients,
                               relu, unscale);
    memset(out, 0, (size_t)positions * sizeof(float));
    /* the rule is a constant in each copy, so that no branch is left in the loops over positions */
    if (rule == GCPP_GRADCAM)
        poles = GCPP_CAM_NAME(map)(activations, gradients, out, weights, channels, positions, GCPP_GRADCAM,
                                   constant_gradients, unscale);
    else if (rule == GCPP_GRADCAM_PLUS_PLUS && positions == 49) /* 7 x 7, the last layer of most networks, unrolled */
        poles = GCPP_CAM_NAME(map)(activations, gradients, out, weights, channels, 49, GCPP_GRADCAM_PLUS_PLUS,
                                   constant_gradients, unscale);
    else if (rule == GCPP_GRADCAM_PLUS_PLUS)
        poles = GCPP_CAM_NAME(map)(activations, gradients, out, weights, channels, positions, GCPP_GRADCAM_PLUS_PLUS,
                                   constant_gradients, unscale);
    else
        poles = GCPP_CAM_NAME(map)(activations, gradients, out, weights, channels, positions,
                                   GCPP_GRADCAM_PLUS_PLUS_SIGNED, constant_gradients, unscale);
    if (relu)
        relu_in_place(out, positions);
    return poles;
}
