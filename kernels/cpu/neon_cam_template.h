/* One map with NEON, for one pair of dtypes. neon_cam.c includes this with GCPP_CAM_MAP (the function's name),
 * GCPP_CAM_SCALAR (the scalar one), GCPP_CAM_NAME (names of its parts), GCPP_A and GCPP_G (element types), GCPP_LOAD_A
 * and GCPP_LOAD_G (four elements), GCPP_LOAD_ONE_A and GCPP_LOAD_ONE_G (the element at an address). */

static inline float GCPP_CAM_NAME(sum)(const GCPP_A *activations, ptrdiff_t positions)
{
    float32x4_t part[UNROLLED] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
    float rest = 0;
    ptrdiff_t i = 0;
    for (; i + UNROLLED * LANES <= positions; i += UNROLLED * LANES)
        for (int v = 0; v < UNROLLED; v++)
            part[v] = vaddq_f32(part[v], GCPP_LOAD_A(activations + i + v * LANES));
    for (; i + LANES <= positions; i += LANES)
        part[0] = vaddq_f32(part[0], GCPP_LOAD_A(activations + i));
    for (; i < positions; i++)
        rest += GCPP_LOAD_ONE_A(activations + i);
    return sum_of_parts(part) + rest;
}

/* The terms of a channel's weight, added up; `clamped` is max(ΣA, 0). */
static ALWAYS_INLINE float GCPP_CAM_NAME(terms)(const GCPP_G *gradients, ptrdiff_t positions, float clamped,
                                                gcpp_rule rule, int64_t *poles)
{
    const float32x4_t sum = vdupq_n_f32(clamped);
    float32x4_t part[UNROLLED] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
    uint32x4_t count = vdupq_n_u32(0);
    float rest = 0;
    ptrdiff_t i = 0;
    for (; i + UNROLLED * LANES <= positions; i += UNROLLED * LANES)
        for (int v = 0; v < UNROLLED; v++)
            part[v] = add_cam_term4(part[v], GCPP_LOAD_G(gradients + i + v * LANES), sum, rule, &count);
    for (; i + LANES <= positions; i += LANES)
        part[0] = add_cam_term4(part[0], GCPP_LOAD_G(gradients + i), sum, rule, &count);
    for (; i < positions; i++)
        rest += gcpp_cam_term(GCPP_LOAD_ONE_G(gradients + i), clamped, rule, poles);
    *poles += (int64_t)vaddlvq_u32(count);
    return sum_of_parts(part) + rest;
}

static inline void GCPP_CAM_NAME(accumulate)(const GCPP_A *activations, ptrdiff_t positions, float weight, float *out)
{
    ptrdiff_t i = 0;
    for (; i + UNROLLED * LANES <= positions; i += UNROLLED * LANES)
        for (int v = 0; v < UNROLLED * LANES; v += LANES)
            vst1q_f32(out + i + v,
                      vfmaq_n_f32(vld1q_f32(out + i + v), GCPP_LOAD_A(activations + i + v), weight));
    for (; i + LANES <= positions; i += LANES)
        vst1q_f32(out + i, vfmaq_n_f32(vld1q_f32(out + i), GCPP_LOAD_A(activations + i), weight));
    for (; i < positions; i++)
        out[i] += weight * GCPP_LOAD_ONE_A(activations + i);
}

static ALWAYS_INLINE int64_t GCPP_CAM_NAME(map)(const GCPP_A *a, const GCPP_G *g, float *out, float *weights,
                                                ptrdiff_t channels, ptrdiff_t positions, gcpp_rule rule,
                                                int constant_gradients, float unscale)
{
    int64_t poles = 0;
    for (ptrdiff_t k = 0; k < channels; k++, a += positions, g += constant_gradients ? 1 : positions) {
        const float sum = rule == GCPP_GRADCAM ? 0 : GCPP_CAM_NAME(sum)(a, positions) * unscale;
        const float clamped = sum < 0 ? 0 : sum; /* a NaN stays */
        float weight;
        if (constant_gradients)
            weight = cam_constant_weight(GCPP_LOAD_ONE_G(g), clamped, positions, rule, &poles);
        else
            weight = GCPP_CAM_NAME(terms)(g, positions, clamped, rule, &poles);
        if (!constant_gradients && rule == GCPP_GRADCAM)
            weight /= (float)positions;
        weight *= unscale;
        /* one pass: ΣA of a channel is needed before its weight, and the channel is still in L1 */
        GCPP_CAM_NAME(accumulate)(a, positions, weight, out);
        if (weights)
            weights[k] = weight;
    }
    return poles;
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
