/* One map with vectors, for one instruction set and one pair of dtypes.
 *
 * An instruction set's cam file defines the vectors (avx2_cam.c says which types and functions are needed) and includes
 * this with GCPP_CAM_MAP (the function's name), GCPP_CAM_SCALAR (the scalar one), GCPP_CAM_NAME (names of its parts),
 * GCPP_A and GCPP_G (element types), GCPP_LOAD_A and GCPP_LOAD_G (a vector of elements), GCPP_TAIL_A and GCPP_TAIL_G
 * (the last positions % LANES of a channel, other lanes 0), GCPP_LOAD_ONE_G (element to float), GCPP_LOAD_FOUR_G (four).
 *
 * Four channels are taken together: the steps from sums to weights are done for all four in one register, and `out` is
 * read and written once for the four. One pass over memory: ΣA of a channel is needed before its weight, and the four
 * are still in L1.
 *
 * The terms of four vectors are added up as fractions, n/d + m/e = (n·e + m·d) / (d·e), and their sum is divided by an
 * estimate of 1 / d and one step of Newton's (22 bits or more), a division being the slowest instruction here. What
 * that cannot do, infinite or enormous products of d, gives a NaN or is flagged, and so is a pole: the four channels are
 * then done again, with divisions, and poles are counted.
 */

static inline vector GCPP_CAM_NAME(sums)(const GCPP_A *activations, ptrdiff_t positions, tail_mask tail)
{
    vector part[2] = {vector_zero(), GCPP_TAIL_A(activations, positions, tail)};
    ptrdiff_t i = 0;
    for (; i + 2 * LANES <= positions; i += 2 * LANES) {
        part[0] = vector_add(part[0], GCPP_LOAD_A(activations + i));
        part[1] = vector_add(part[1], GCPP_LOAD_A(activations + i + LANES));
    }
    if (i + LANES <= positions)
        part[0] = vector_add(part[0], GCPP_LOAD_A(activations + i));
    return vector_add(part[0], part[1]);
}

/* The terms of a channel's weight, in LANES partial sums; `clamped` is max(ΣA, 0) in every lane. */
static ALWAYS_INLINE vector GCPP_CAM_NAME(terms)(const GCPP_G *gradients, ptrdiff_t positions, tail_mask tail,
                                                 vector clamped, gcpp_rule rule, suspicion *found)
{
    const GCPP_G *g = gradients;
    vector part = vector_zero();
    ptrdiff_t left = positions;
    for (; left >= 4 * LANES; left -= 4 * LANES, g += 4 * LANES) {
        const fraction one = fraction_of(GCPP_LOAD_G(g), GCPP_LOAD_G(g + LANES), clamped, rule, found);
        const fraction other = fraction_of(GCPP_LOAD_G(g + 2 * LANES), GCPP_LOAD_G(g + 3 * LANES), clamped, rule, found);
        part = add_fraction(part, fraction_sum(one, other, rule), rule, found);
    }
    const vector last = GCPP_TAIL_G(gradients, positions, tail); /* lanes of 0 add 0, or NaN where every lane does */
    if (left < 2 * LANES) {
        const vector before = left >= LANES ? GCPP_LOAD_G(g) : vector_zero();
        return add_fraction(part, fraction_of(before, last, clamped, rule, found), rule, found);
    }
    const vector before = left >= 3 * LANES ? GCPP_LOAD_G(g + 2 * LANES) : vector_zero();
    const fraction one = fraction_of(GCPP_LOAD_G(g), GCPP_LOAD_G(g + LANES), clamped, rule, found);
    const fraction other = fraction_of(before, last, clamped, rule, found);
    return add_fraction(part, fraction_sum(one, other, rule), rule, found);
}

/* The same with divisions, for what the quick terms cannot do; poles add 0 and are counted. */
static __attribute__((noinline)) float GCPP_CAM_NAME(exact_terms)(const GCPP_G *gradients, ptrdiff_t positions,
                                                                  tail_mask tail, float clamped, gcpp_rule rule,
                                                                  int64_t *poles)
{
    const vector clamp = vector_set(clamped);
    vector part = keep_tail(exact_term(GCPP_TAIL_G(gradients, positions, tail), clamp, rule, poles), tail);
    for (ptrdiff_t i = 0; i + LANES <= positions; i += LANES)
        part = vector_add(part, exact_term(GCPP_LOAD_G(gradients + i), clamp, rule, poles));
    float total[4];
    _mm_storeu_ps(total, sums_of_lanes(part, vector_zero(), vector_zero(), vector_zero()));
    return total[0];
}

/* max(ΣA, 0) of `count` channels, 1 or 4, known where this is inlined. */
static ALWAYS_INLINE __m128 GCPP_CAM_NAME(clamped)(const GCPP_A *a, ptrdiff_t positions, tail_mask tail, int count,
                                                   gcpp_rule rule, float unscale)
{
    vector part[4] = {vector_zero(), vector_zero(), vector_zero(), vector_zero()};
    if (rule == GCPP_GRADCAM)
        return _mm_setzero_ps();
    FOUR_TIMES
    for (int c = 0; c < count; c++)
        part[c] = GCPP_CAM_NAME(sums)(a + c * positions, positions, tail);
    const __m128 sums = _mm_mul_ps(sums_of_lanes(part[0], part[1], part[2], part[3]), _mm_set1_ps(unscale));
    return _mm_max_ps(_mm_setzero_ps(), sums); /* max returns its second operand for a NaN, which so stays */
}

/* Weights of channels whose gradients are constant: every position has the same term. */
static ALWAYS_INLINE __m128 GCPP_CAM_NAME(constant_weights)(const GCPP_G *g, ptrdiff_t positions, int count,
                                                            __m128 clamped, gcpp_rule rule, int64_t *poles)
{
    const __m128 gradients = count == 4 ? GCPP_LOAD_FOUR_G(g) : _mm_set_ss(GCPP_LOAD_ONE_G(g[0]));
    const __m128 denominator = _mm_fmadd_ps(clamped, gradients, _mm_set1_ps(2));
    const __m128 size = _mm_andnot_ps(_mm_set1_ps(-0.0f), denominator);
    const __m128 pole = _mm_cmplt_ps(size, _mm_set1_ps(GCPP_POLE));
    const __m128 all = _mm_set1_ps((float)positions);
    if (rule == GCPP_GRADCAM)
        return _mm_mul_ps(gradients, all);
    if (rule == GCPP_GRADCAM_PLUS_PLUS) /* max returns its second operand for a NaN, which so stays */
        return _mm_mul_ps(_mm_div_ps(_mm_max_ps(_mm_setzero_ps(), gradients), denominator), all);
    *poles += positions * __builtin_popcount((unsigned)_mm_movemask_ps(pole));
    return _mm_mul_ps(_mm_andnot_ps(pole, _mm_div_ps(gradients, denominator)), all);
}

/* Before the scale and the mean. */
static ALWAYS_INLINE __m128 GCPP_CAM_NAME(weights)(const GCPP_G *g, ptrdiff_t positions, tail_mask tail, int count,
                                                   __m128 clamped, gcpp_rule rule, int64_t *poles)
{
    suspicion found = nothing_suspicious();
    vector part[4] = {vector_zero(), vector_zero(), vector_zero(), vector_zero()};
    FOUR_TIMES
    for (int c = 0; c < count; c++)
        part[c] = GCPP_CAM_NAME(terms)(g + c * positions, positions, tail, vector_spread(clamped, c), rule, &found);
    const __m128 quick = sums_of_lanes(part[0], part[1], part[2], part[3]);
    const __m128 size = _mm_andnot_ps(_mm_set1_ps(-0.0f), quick);
    const int endless = _mm_movemask_ps(_mm_cmpnlt_ps(size, _mm_set1_ps(INFINITY)));
    if (rule == GCPP_GRADCAM || !(endless | is_suspicious(found)))
        return quick;
    float weights[4] = {0}, clamps[4];
    _mm_storeu_ps(clamps, clamped);
    FOUR_TIMES
    for (int c = 0; c < count; c++)
        weights[c] = GCPP_CAM_NAME(exact_terms)(g + c * positions, positions, tail, clamps[c], rule, poles);
    return _mm_loadu_ps(weights);
}

static ALWAYS_INLINE void GCPP_CAM_NAME(accumulate)(const GCPP_A *a, ptrdiff_t positions, tail_mask tail, int count,
                                                    __m128 weights, float *out)
{
    vector factor[4];
    FOUR_TIMES
    for (int c = 0; c < count; c++)
        factor[c] = vector_spread(weights, c);
    ptrdiff_t i = 0;
    for (; i + LANES <= positions; i += LANES) {
        vector sum = vector_load(out + i);
        FOUR_TIMES
        for (int c = 0; c < count; c++)
            sum = vector_fma(factor[c], GCPP_LOAD_A(a + c * positions + i), sum);
        vector_store(out + i, sum);
    }
    if (i < positions) {
        /* masked, not overlapping: the next load must find its bytes in one store to be forwarded them */
        vector sum = tail_load(out + i, tail);
        FOUR_TIMES
        for (int c = 0; c < count; c++)
            sum = vector_fma(factor[c], GCPP_TAIL_A(a + c * positions, positions, tail), sum);
        tail_store(out + i, sum, tail);
    }
}

/* Adds channels to `out`, `count` at a time; `channels` is a multiple. Sums are taken a step ahead of weights, and maps
 * a step behind: what a step needs is long computed when it comes. */
static ALWAYS_INLINE int64_t GCPP_CAM_NAME(groups)(const GCPP_A *a, const GCPP_G *g, float *out, float *weights,
                                                   ptrdiff_t channels, ptrdiff_t positions, int count, gcpp_rule rule,
                                                   int constant_gradients, float unscale)
{
    const tail_mask tail = tail_of(positions);
    const __m128 share = _mm_set1_ps(rule == GCPP_GRADCAM ? unscale / (float)positions : unscale);
    const ptrdiff_t slopes = constant_gradients ? 1 : positions;
    __m128 clamped = _mm_setzero_ps(), chosen = _mm_setzero_ps();
    int64_t poles = 0;
    for (ptrdiff_t k = -count; k <= channels; k += count) { /* k: the group whose weights are taken */
        __m128 ahead = _mm_setzero_ps(), found = _mm_setzero_ps();
        if (k + count < channels)
            ahead = GCPP_CAM_NAME(clamped)(a + (k + count) * positions, positions, tail, count, rule, unscale);
        if (k >= count)
            GCPP_CAM_NAME(accumulate)(a + (k - count) * positions, positions, tail, count, chosen, out);
        if (k >= 0 && k < channels) {
            const GCPP_G *const own = g + k * slopes;
            found = constant_gradients
                        ? GCPP_CAM_NAME(constant_weights)(own, positions, count, clamped, rule, &poles)
                        : GCPP_CAM_NAME(weights)(own, positions, tail, count, clamped, rule, &poles);
            found = _mm_mul_ps(found, share);
            if (weights && count == 4)
                _mm_storeu_ps(weights + k, found);
            else if (weights)
                _mm_store_ss(weights + k, found);
        }
        clamped = ahead;
        chosen = found;
    }
    return poles;
}

static ALWAYS_INLINE int64_t GCPP_CAM_NAME(map)(const GCPP_A *a, const GCPP_G *g, float *out, float *weights,
                                                ptrdiff_t channels, ptrdiff_t positions, gcpp_rule rule,
                                                int constant_gradients, float unscale)
{
    const ptrdiff_t most = channels / 4 * 4;
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
    if (positions < LEAST_POSITIONS)
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
