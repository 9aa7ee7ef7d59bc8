/* Several threads for one call: a small pool that all calls share.
 *
 * The calling thread works itself and needs nobody: helpers join while there are parts left, and where there are none,
 * because they are busy with the call of another thread or cannot be started, the call is done alone. So calls cannot
 * wait for each other. Helpers are started when first needed, as many as the largest call asks for, take no signals and
 * sleep in between; they end with the process. A child of fork() begins with none.
 */
#ifndef GCPP_POOL_H
#define GCPP_POOL_H

#include <stddef.h>
#include <stdint.h>

enum { GCPP_MAX_THREADS = 64 };

/* Does one part. slot: 0 to threads - 1, another for each thread at work, for scratch of its own. */
typedef void (*gcpp_part)(void *context, int32_t part, int32_t slot);

/* How many threads are worth it for so many bytes read and written: 1 to `threads`. */
int32_t gcpp_useful_threads(int32_t threads, size_t bytes);

/* Into how many parts to cut rows for so many threads: several each, since a helper may come late. */
static inline int32_t gcpp_parts_for(int32_t threads)
{
    return threads < 2 ? 1 : 4 * threads;
}

/* Where part `part` of so many begins among `count` rows; that of part + 1 is where it ends. */
static inline int32_t gcpp_part_start(int32_t part, int32_t parts, int32_t count)
{
    return (int32_t)((int64_t)count * part / parts);
}

/* Does parts 0 to `parts` - 1, each once, on up to `threads` threads; returns when all are done. */
void gcpp_in_parts(int32_t threads, int32_t parts, gcpp_part work, void *context);

#endif
