/* One map in plain C99, for one pair of dtypes. scalar_cam.c includes this with GCPP_CAM_MAP (the function's name),
 * GCPP_CAM_NAME (names of its parts), GCPP_A and GCPP_G (element types), GCPP_LOAD_A and GCPP_LOAD_G (element to
 * float). */

static float GCPP_CAM_NAME(sum)(const GCPP_A *activations, ptrdiff_t positions)
{
    float part[GCPP_PARTS] = {0};
    ptrdiff_t i = 0;
    for (; i + GCPP_PARTS <= positions; i += GCPP_PARTS)
        for (int lane = 0; lane < GCPP_PARTS; lane++)
            part[lane] += GCPP_LOAD_A(activations[i + lane]);
    for (; i < positions; i++)
        part[0] += GCPP_LOAD_A(activations[i]);
    return gcpp_cam_total(part);
}

static float GCPP_CAM_NAME(weight)(const GCPP_A *activations, const GCPP_G *gradients, ptrdiff_t positions,
                                   gcpp_rule rule, int constant_gradients, float unscale, int64_t *poles)
{
    const float sum = rule == GCPP_GRADCAM ? 0 : GCPP_CAM_NAME(sum)(activations, positions) * unscale;
    if (constant_gradients) { /* every position has the same term */
        int64_t pole = 0;
        const float term = gcpp_cam_term(GCPP_LOAD_G(gradients[0]), sum, rule, &pole);
        *poles += pole * positions;
        return rule == GCPP_GRADCAM ? term : term * (float)positions;
    }
    float part[GCPP_PARTS] = {0};
    ptrdiff_t i = 0;
    for (; i + GCPP_PARTS <= positions; i += GCPP_PARTS)
        for (int lane = 0; lane < GCPP_PARTS; lane++)
            part[lane] += gcpp_cam_term(GCPP_LOAD_G(gradients[i + lane]), sum, rule, poles);
    for (; i < positions; i++)
        part[0] += gcpp_cam_term(GCPP_LOAD_G(gradients[i]), sum, rule, poles);
    const float total = gcpp_cam_total(part);
    return rule == GCPP_GRADCAM ? total / (float)positions : total;
}

int64_t GCPP_CAM_MAP(const void *activations, const void *gradients, float *out, float *weights,
                            ptrdiff_t channels, ptrdiff_t positions, gcpp_rule rule, int constant_gradients, int relu,
                            float unscale)
{
    const GCPP_A *a = activations;
    const GCPP_G *g = gradients;
    int64_t poles = 0;
    for (ptrdiff_t i = 0; i < positions; i++)
        out[i] = 0;
    for (ptrdiff_t k = 0; k < channels; k++) {
        const float weight =
            positions ? GCPP_CAM_NAME(weight)(a, g, positions, rule, constant_gradients, unscale, &poles) * unscale : 0;
        /* one pass: ΣA of a channel is needed before its weight, and the channel is still in L1 */
        for (ptrdiff_t i = 0; i < positions; i++)
            out[i] += weight * GCPP_LOAD_A(a[i]);
        if (weights)
            weights[k] = weight;
        a += positions;
        g += constant_gradients ? 1 : positions;
    }
    if (relu)
        for (ptrdiff_t i = 0; i < positions; i++)
            out[i] = out[i] < 0 ? 0 : out[i]; /* a NaN stays */
    return poles;
}
