/* cam over a batch: one map at a time, by the function for the dtypes at hand; large ones in blocks of channels.
 *
 * How a map is cut depends on its size alone, and blocks are added in their order, so that any number of threads gives
 * the same bits.
 */
#include <stdlib.h>

#include "pool.h"
#include "rows.h"

enum { BLOCK_ELEMENTS = 1 << 17 /* 512 KiB of float32: much more than waking a thread is worth */, MOST_BLOCKS = 16 };

typedef struct {
    const gcpp_cam_arguments *arguments;
    gcpp_cam_map map;
    int32_t blocks; /* of channels, to each map */
    float *sums;    /* maps x blocks x positions, where there are several blocks */
    int64_t *poles; /* maps x blocks */
} cam_call;

static size_t size_of(gcpp_dtype dtype)
{
    return dtype == GCPP_FLOAT32 ? sizeof(float) : sizeof(uint16_t);
}

static int32_t blocks_of(const gcpp_cam_arguments *arguments)
{
    const ptrdiff_t blocks = arguments->channels * arguments->positions / BLOCK_ELEMENTS;
    return blocks < 2 ? 1 : blocks < MOST_BLOCKS ? (int32_t)blocks : MOST_BLOCKS;
}

/* One block of one map. */
static void map_block(void *context, int32_t part, int32_t slot)
{
    const cam_call *const call = context;
    const gcpp_cam_arguments *const arguments = call->arguments;
    const size_t positions = (size_t)arguments->positions, channels = (size_t)arguments->channels;
    const size_t n = (size_t)(part / call->blocks), blocks = (size_t)call->blocks, block = (size_t)part % blocks;
    const size_t first = channels * block / blocks, last = channels * (block + 1) / blocks;
    const size_t slopes = arguments->constant_gradients ? 1 : positions;
    const size_t of_picture = (n / (size_t)arguments->targets * channels + first) * positions;
    const size_t of_map = (n * channels + first) * slopes;
    const char *const a = (const char *)arguments->activations + of_picture * size_of(arguments->activations_dtype);
    const char *const g = (const char *)arguments->gradients + of_map * size_of(arguments->gradients_dtype);
    float *const out = blocks > 1 ? call->sums + (size_t)part * positions : arguments->out + n * positions;
    (void)slot;
    call->poles[part] = call->map(a, g, out, arguments->weights ? arguments->weights + n * channels + first : NULL,
                                  (ptrdiff_t)(last - first), arguments->positions, arguments->rule,
                                  arguments->constant_gradients, arguments->relu && blocks == 1,
                                  1 / arguments->gradient_scale);
}

/* The map, from the sums of its blocks. */
static void add_blocks(const cam_call *call, const float *sums, float *out)
{
    const ptrdiff_t positions = call->arguments->positions;
    for (ptrdiff_t i = 0; i < positions; i++)
        out[i] = sums[i] + sums[positions + i];
    for (int32_t block = 2; block < call->blocks; block++)
        for (ptrdiff_t i = 0; i < positions; i++)
            out[i] += sums[block * positions + i];
    if (call->arguments->relu)
        for (ptrdiff_t i = 0; i < positions; i++)
            out[i] = out[i] < 0 ? 0 : out[i]; /* a NaN stays */
}

static void finish_map(const cam_call *call, size_t n)
{
    const gcpp_cam_arguments *const arguments = call->arguments;
    const size_t blocks = (size_t)call->blocks, positions = (size_t)arguments->positions;
    int64_t poles = 0;
    for (size_t block = 0; block < blocks; block++)
        poles += call->poles[n * blocks + block];
    if (arguments->poles)
        arguments->poles[n] = poles;
    if (blocks > 1)
        add_blocks(call, call->sums + n * blocks * positions, arguments->out + n * positions);
}

int gcpp_cam(const gcpp_rows *rows, int32_t threads, const gcpp_cam_arguments *arguments)
{
    cam_call call = {arguments, rows->cam[arguments->activations_dtype][arguments->gradients_dtype],
                     blocks_of(arguments), NULL, NULL};
    const size_t maps = (size_t)arguments->batch * (size_t)arguments->targets, parts = maps * (size_t)call.blocks;
    const size_t elements = (size_t)arguments->channels * (size_t)arguments->positions;
    const size_t bytes = maps * elements * size_of(arguments->gradients_dtype);
    const size_t sums = call.blocks > 1 ? parts * (size_t)arguments->positions : 0;
    char *const scratch = malloc(parts * sizeof(int64_t) + sums * sizeof(float) + 1);
    if (!scratch)
        return GCPP_NO_MEMORY;
    call.poles = (int64_t *)(void *)scratch;
    call.sums = (float *)(void *)(call.poles + parts);
    gcpp_in_parts(gcpp_useful_threads(threads, bytes), (int32_t)parts, map_block, &call);
    for (size_t n = 0; n < maps; n++)
        finish_map(&call, n);
    free(scratch);
    return GCPP_OK;
}
