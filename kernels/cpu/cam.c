/* cam over a batch: one map at a time, by the function for the dtypes at hand.
 *
 * In the calling thread alone. A map in cache takes less time than a helper takes to come, and what is not in cache comes
 * no faster to two: 25 MB in blocks of channels took 1.21 ms on one thread and on two (a Xeon's two virtual cores, where
 * reading alone goes from 29 to 35 GB/s).
 */
#include "rows.h"

static size_t size_of(gcpp_dtype dtype)
{
    return dtype == GCPP_FLOAT32 ? sizeof(float) : sizeof(uint16_t);
}

void gcpp_cam(const gcpp_rows *rows, const gcpp_cam_arguments *arguments)
{
    const gcpp_cam_map map = rows->cam[arguments->activations_dtype][arguments->gradients_dtype];
    const size_t channels = (size_t)arguments->channels, positions = (size_t)arguments->positions;
    const size_t activations_bytes = channels * positions * size_of(arguments->activations_dtype);
    const size_t gradients_bytes =
        channels * (arguments->constant_gradients ? 1 : positions) * size_of(arguments->gradients_dtype);
    const float unscale = 1 / arguments->gradient_scale;
    const size_t targets = (size_t)arguments->targets;
    for (size_t n = 0; n < (size_t)arguments->batch * targets; n++) {
        const int64_t poles =
            map((const char *)arguments->activations + n / targets * activations_bytes,
                (const char *)arguments->gradients + n * gradients_bytes, arguments->out + n * positions,
                arguments->weights ? arguments->weights + n * channels : NULL, arguments->channels,
                arguments->positions, arguments->rule, arguments->constant_gradients, arguments->relu, unscale);
        if (arguments->poles)
            arguments->poles[n] = poles;
    }
}
