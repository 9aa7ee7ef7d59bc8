/* Runs the kernels of a 64-bit ARM build on arrays that come through stdin, under qemu-user. __init__.py is the other end.
 *
 * A request is the name of a kernel and of an instruction set (16 bytes each), the count of blocks, the blocks, and the
 * kernel's arguments in the order in which the functions below read them. A block is (offset in a page, size, writable,
 * bytes): it is laid out at that offset between pages that may not be touched, and read-only unless writable. A number
 * is an int64 or a double; an array is (block, offset in it), block -1 for none. The reply is a status and the bytes of
 * the writable blocks. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "gcpp.h"

enum { PAGE = 4096, SENTINEL = 0xA5, MAX_BLOCKS = 8, NAME = 16, NO_SUCH_ISA = -2, WRITTEN_OUTSIDE = -3 };

typedef struct {
    uint8_t *memory; /* a forbidden page, `reach` bytes, a forbidden page */
    size_t reach, offset, size;
    int64_t is_writable;
} block;

static block blocks[MAX_BLOCKS];

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void take(void *bytes, size_t size)
{
    if (fread(bytes, 1, size, stdin) != size)
        fail("the request ends early");
}

static void give(const void *bytes, size_t size)
{
    if (fwrite(bytes, 1, size, stdout) != size)
        fail("the reply is not taken");
}

static int64_t integer(void)
{
    int64_t value;
    take(&value, sizeof value);
    return value;
}

static double real(void)
{
    double value;
    take(&value, sizeof value);
    return value;
}

static void *array(void)
{
    const int64_t index = integer(), offset = integer();
    return index < 0 ? NULL : blocks[index].memory + PAGE + blocks[index].offset + offset;
}

static gcpp_axis axis(void)
{
    const double scale = real(), offset = real();
    const int64_t start = integer(), stop = integer();
    return (gcpp_axis){scale, offset, (int32_t)start, (int32_t)stop};
}

static gcpp_map map(void)
{
    gcpp_map self;
    self.values = array();
    self.height = (int32_t)integer();
    self.width = (int32_t)integer();
    self.rows = axis();
    self.columns = axis();
    self.low = real();
    self.high = real();
    return self;
}

static gcpp_picture picture(void)
{
    gcpp_picture self;
    self.pixels = array();
    self.height = (int32_t)integer();
    self.width = (int32_t)integer();
    self.channels = (int32_t)integer();
    self.row_stride_bytes = (ptrdiff_t)integer();
    return self;
}

static int run_cam(const gcpp_rows *rows)
{
    gcpp_cam_arguments self;
    self.activations = array();
    self.gradients = array();
    self.out = array();
    self.weights = array();
    self.poles = array();
    self.batch = (ptrdiff_t)integer();
    self.targets = (ptrdiff_t)integer();
    self.channels = (ptrdiff_t)integer();
    self.positions = (ptrdiff_t)integer();
    self.activations_dtype = (gcpp_dtype)integer();
    self.gradients_dtype = (gcpp_dtype)integer();
    self.rule = (gcpp_rule)integer();
    self.constant_gradients = (int)integer();
    self.relu = (int)integer();
    self.gradient_scale = (float)real();
    gcpp_cam(rows, &self);
    return GCPP_OK;
}

static int run_heatmap(const gcpp_rows *rows)
{
    const gcpp_map small = map();
    void *const out = array();
    const int64_t dtype = integer(), height = integer(), width = integer();
    return gcpp_heatmap(rows, 1, &small, out, (gcpp_dtype)dtype, (int32_t)height, (int32_t)width);
}

static int run_overlay(const gcpp_rows *rows)
{
    const gcpp_map small = map();
    const gcpp_picture frame = picture();
    const uint8_t *const palette = array();
    const double alpha = real(), dim = real();
    const gcpp_picture out = picture();
    return gcpp_overlay(rows, 1, &small, &frame, palette, alpha, dim, &out);
}

static int run_guided(const gcpp_rows *rows)
{
    const gcpp_map small = map();
    const void *const image = array();
    const int64_t dtype = integer();
    float *const out = array();
    const int64_t channels = integer(), height = integer(), width = integer();
    return gcpp_guided(rows, 1, &small, image, (gcpp_dtype)dtype, out, (int32_t)channels, (int32_t)height,
                       (int32_t)width);
}

static int run_preprocess(const gcpp_rows *rows)
{
    gcpp_preprocess_arguments self;
    self.frame = array();
    self.row_stride_bytes = (ptrdiff_t)integer();
    self.height = (int32_t)integer();
    self.width = (int32_t)integer();
    self.format = (gcpp_format)integer();
    self.color = (gcpp_format)integer();
    self.rows = axis();
    self.columns = axis();
    self.scale = array();
    self.bias = array();
    self.fill = array();
    self.out = array();
    self.out_height = (int32_t)integer();
    self.out_width = (int32_t)integer();
    self.out_dtype = (gcpp_dtype)integer();
    return gcpp_preprocess(rows, 1, &self);
}

static const struct {
    const char *name;
    int (*run)(const gcpp_rows *rows);
} kernels[] = {
    {"cam", run_cam},
    {"heatmap", run_heatmap},
    {"overlay", run_overlay},
    {"guided", run_guided},
    {"preprocess", run_preprocess},
};

static int run(const char *kernel, const char *isa)
{
    const gcpp_rows *const rows = gcpp_rows_for(isa);
    for (size_t i = 0; i < sizeof kernels / sizeof *kernels; i++)
        if (rows && strcmp(kernels[i].name, kernel) == 0)
            return kernels[i].run(rows);
    return NO_SUCH_ISA;
}

static void open_block(block *self)
{
    self->offset = (size_t)integer();
    self->size = (size_t)integer();
    self->is_writable = integer();
    const size_t pages = (self->offset + self->size + PAGE - 1) / PAGE;
    self->reach = PAGE * (pages ? pages : 1);
    self->memory = mmap(NULL, self->reach + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (self->memory == MAP_FAILED || mprotect(self->memory + PAGE, self->reach, PROT_READ | PROT_WRITE))
        fail("no memory for an array");
    memset(self->memory + PAGE, SENTINEL, self->reach);
    take(self->memory + PAGE + self->offset, self->size);
    if (!self->is_writable && mprotect(self->memory + PAGE, self->reach, PROT_READ))
        fail("an array cannot be made read-only");
}

static int is_written_outside(const block *self)
{
    const uint8_t *const start = self->memory + PAGE;
    for (size_t i = 0; i < self->reach; i++)
        if ((i < self->offset || i >= self->offset + self->size) && start[i] != SENTINEL)
            return 1;
    return 0;
}

int main(void)
{
    char kernel[NAME + 1] = "", isa[NAME + 1] = "";
    while (fread(kernel, 1, NAME, stdin) == NAME) {
        take(isa, NAME);
        const int64_t count = integer();
        for (int64_t i = 0; i < count; i++)
            open_block(&blocks[i]);
        int32_t status = run(kernel, isa);
        for (int64_t i = 0; i < count; i++)
            if (is_written_outside(&blocks[i]))
                status = WRITTEN_OUTSIDE;
        give(&status, sizeof status);
        for (int64_t i = 0; i < count; i++) {
            if (blocks[i].is_writable)
                give(blocks[i].memory + PAGE + blocks[i].offset, blocks[i].size);
            munmap(blocks[i].memory, blocks[i].reach + 2 * PAGE);
        }
        fflush(stdout);
    }
    return 0;
}
