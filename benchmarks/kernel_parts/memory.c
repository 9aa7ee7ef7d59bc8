/* Streams memory as fast as this machine does: the limit that benchmarks/kernels.py holds the kernels against.
 *
 * stream() reads `read` bytes and writes `written` bytes, a line of both in turn in their proportion, as a kernel does
 * that reads an input and writes an output. Where both are the same it is a copy. Compiled with -march=native, so in the
 * widest vectors that the compiler takes. Buffers are aligned to 64 bytes and end with a whole line.
 */
#include <stddef.h>
#include <stdint.h>

typedef uint64_t line __attribute__((vector_size(64)));

enum { AHEAD = 4 /* lines at a time: sums of their own, so that no addition waits for another */ };

static size_t lines_of(size_t bytes)
{
    return (bytes + sizeof(line) - 1) / sizeof(line);
}

static void read_lines(const line *from, size_t count, line sum[AHEAD])
{
    size_t i = 0;
    for (; i + AHEAD <= count; i += AHEAD)
        for (int k = 0; k < AHEAD; k++)
            sum[k] ^= from[i + k];
    for (; i < count; i++)
        sum[0] ^= from[i];
}

static void write_lines(line *to, size_t count, line value)
{
    for (size_t i = 0; i < count; i++)
        to[i] = value;
}

static void copy_lines(line *to, const line *from, size_t count)
{
    for (size_t i = 0; i < count; i++)
        to[i] = from[i];
}

/* Returns something of all that was read, so that no read is left out. */
uint64_t stream(const void *source, size_t read, void *destination, size_t written)
{
    const size_t reads = lines_of(read), writes = lines_of(written);
    const size_t copied = reads < writes ? reads : writes, more = reads < writes ? writes - reads : reads - writes;
    const size_t step = 64; /* lines of the smaller side at a time: 4 KiB */
    const line *from = source;
    line *to = destination;
    line sum[AHEAD] = {{0}};
    for (size_t done = 0, extra = 0; done < copied || extra < more;) {
        const size_t count = copied - done < step ? copied - done : step;
        copy_lines(to, from, count);
        to += count;
        from += count;
        done += count;
        const size_t until = copied ? (size_t)((double)more * (double)done / (double)copied) : more;
        if (reads > writes) {
            read_lines(from, until - extra, sum);
            from += until - extra;
        } else {
            write_lines(to, until - extra, sum[0]);
            to += until - extra;
        }
        extra = until;
    }
    const line all = sum[0] ^ sum[1] ^ sum[2] ^ sum[3];
    return all[0] ^ all[1] ^ all[2] ^ all[3] ^ all[4] ^ all[5] ^ all[6] ^ all[7];
}
