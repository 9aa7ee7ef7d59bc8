/* One map with AVX2, for one pair of dtypes. avx2_cam.c includes this with GCPP_CAM_MAP (the function's name),
 * GCPP_CAM_SCALAR (the scalar one), GCPP_CAM_NAME (names of its parts), GCPP_A and GCPP_G (element types), GCPP_LOAD_A
 * and GCPP_LOAD_G (eight elements), GCPP_TAIL_A and GCPP_TAIL_G (the last 1 to 7 of a channel, other lanes 0). */

static inline float GCPP_CAM_NAME(sum)(const GCPP_A *activations, ptrdiff_t positions, tail8 tail)
{
    __m256 part[2] = {_mm256_setzero_ps(), GCPP_TAIL_A(activations, positions, tail)};
    ptrdiff_t i = 0;
    for (; i + 2 * LANES <= positions; i += 2 * LANES) {
        part[0] = _mm256_add_ps(part[0], GCPP_LOAD_A(activations + i));
        part[1] = _mm256_add_ps(part[1], GCPP_LOAD_A(activations + i + LANES));
    }
    if (i + LANES <= positions)
        part[0] = _mm256_add_ps(part[0], GCPP_LOAD_A(activations + i));
    return sum_of_lanes(_mm256_add_ps(part[0], part[1]));
}

/* The terms of a channel's weight, added up; `clamped` is max(ΣA, 0). */
static ALWAYS_INLINE float GCPP_CAM_NAME(terms)(const GCPP_G *gradients, ptrdiff_t positions, tail8 tail,
                                                __m256 clamped, gcpp_rule rule, int64_t *poles)
{
    const __m256 last = cam_term8(GCPP_TAIL_G(gradients, positions, tail), clamped, rule, poles);
    __m256 part[2] = {_mm256_setzero_ps(), _mm256_and_ps(last, _mm256_castsi256_ps(tail.mask))};
    ptrdiff_t i = 0;
    for (; i + 2 * LANES <= positions; i += 2 * LANES) {
        part[0] = _mm256_add_ps(part[0], cam_term8(GCPP_LOAD_G(gradients + i), clamped, rule, poles));
        part[1] = _mm256_add_ps(part[1], cam_term8(GCPP_LOAD_G(gradients + i + LANES), clamped, rule, poles));
    }
    if (i + LANES <= positions)
        part[0] = _mm256_add_ps(part[0], cam_term8(GCPP_LOAD_G(gradients + i), clamped, rule, poles));
    return sum_of_lanes(_mm256_add_ps(part[0], part[1]));
}

static inline void GCPP_CAM_NAME(accumulate)(const GCPP_A *activations, ptrdiff_t positions, tail8 tail, float weight,
                                             float *out)
{
    const __m256 factor = _mm256_set1_ps(weight);
    ptrdiff_t i = 0;
    for (; i + LANES <= positions; i += LANES)
        _mm256_storeu_ps(out + i, _mm256_fmadd_ps(factor, GCPP_LOAD_A(activations + i), _mm256_loadu_ps(out + i)));
    if (tail.count) {
        /* masked, not overlapping: the next channel's load must find its bytes in one store to be forwarded them */
        const __m256 old = _mm256_maskload_ps(out + i, tail.mask);
        _mm256_maskstore_ps(out + i, tail.mask,
                            _mm256_fmadd_ps(factor, GCPP_TAIL_A(activations, positions, tail), old));
    }
}

static ALWAYS_INLINE int64_t GCPP_CAM_NAME(map)(const GCPP_A *a, const GCPP_G *g, float *out, float *weights,
                                                ptrdiff_t channels, ptrdiff_t positions, gcpp_rule rule,
                                                int constant_gradients, float unscale)
{
    const tail8 tail = tail_of(positions);
    int64_t poles = 0;
    for (ptrdiff_t k = 0; k < channels; k++, a += positions, g += constant_gradients ? 1 : positions) {
        const float sum = rule == GCPP_GRADCAM ? 0 : GCPP_CAM_NAME(sum)(a, positions, tail) * unscale;
        float weight;
        if (constant_gradients)
            weight = cam_constant_weight(GCPP_LOAD_ONE_G(g[0]), sum, positions, rule, &poles);
        else
            weight = GCPP_CAM_NAME(terms)(g, positions, tail, clamp8(sum), rule, &poles);
        if (!constant_gradients && rule == GCPP_GRADCAM)
            weight /= (float)positions;
        weight *= unscale;
        /* one pass: ΣA of a channel is needed before its weight, and the channel is still in L1 */
        GCPP_CAM_NAME(accumulate)(a, positions, tail, weight, out);
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
