/* Where did the network look? Activations and gradients in, a picture out: the kernels in a C program, without Python.
 *
 * The network is run by somebody else (ONNX Runtime has a C interface); what it gave is read from files here. A frame
 * takes two calls: gcpp_cam makes the small map, gcpp_overlay draws it onto the frame at its size.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "files.h"
#include "gcpp.h"

static const char usage[] =
    "usage: explain [OPTIONS] ACTIVATIONS GRADIENTS CxHxW PALETTE FRAME.ppm OVERLAY.ppm\n"
    "\n"
    "ACTIVATIONS, GRADIENTS  raw float32 of C x H x W numbers; gradients may be C numbers, constant over space\n"
    "PALETTE                 256 colours of three bytes, RGB, from no evidence to most\n"
    "--rule NAME             gradcam, gradcam++ (the default) or gradcam++-signed\n"
    "--no-relu               keep what speaks against the class\n"
    "--gradient-scale S      the gradients are stored times S (1)\n"
    "--rows A                where the frame's rows lie on the map's: SCALE,OFFSET,START,STOP (all of the map under\n"
    "--columns A             all of the frame); and its columns. Frame pixels outside [START, STOP) are dimmed\n"
    "--alpha A               how much of the colours, 0 to 1 (0.5)\n"
    "--dim D                 brightness that is left of what the network did not see, 0 to 1 (0.4)\n"
    "--threads N             how many may work on the frame, 1 to 64 (1)\n"
    "GCPP_ISA, in the environment, names the instruction set; else it is the best that this processor has.\n"
    "inputs.py writes such files from an explained model, and the options that go with them.\n";

typedef struct {
    const char *activations, *gradients, *shape, *palette, *frame, *overlay;
    const char *rule, *rows, *columns;
    double gradient_scale, alpha, dim, threads;
    int relu;
} options;

typedef struct {
    int32_t channels, height, width;
} map_shape;

/* ---- what was asked for ---- */

static void fail_usage(const char *why, const char *word)
{
    fprintf(stderr, "explain: %s%s; explain --help says how it is called\n", why, word);
    exit(2);
}

/* A finite number at the beginning of `text`, and what comes behind it; NULL where there is none. */
static const char *parse_number(const char *text, double *number)
{
    char *end;
    *number = strtod(text, &end);
    return end == text || !isfinite(*number) ? NULL : end;
}

static double number_option(const char *name, const char *text, double low, double high)
{
    double number;
    const char *const end = parse_number(text, &number);
    if (!end || *end || number < low || number > high)
        fail("%s: expected a number from %g to %g, found %s", name, low, high, text);
    return number;
}

static options parse_options(int count, char **words)
{
    options asked = {.rule = "gradcam++", .gradient_scale = 1, .alpha = 0.5, .dim = 0.4, .threads = 1, .relu = 1};
    const char **const places[] = {&asked.activations, &asked.gradients, &asked.shape,
                                   &asked.palette,     &asked.frame,     &asked.overlay};
    const struct {
        const char *name;
        const char **text;
        double *number, low, high;
    } known[] = {
        {"--rule", &asked.rule, NULL, 0, 0},
        {"--rows", &asked.rows, NULL, 0, 0},
        {"--columns", &asked.columns, NULL, 0, 0},
        {"--gradient-scale", NULL, &asked.gradient_scale, ldexp(1, -100), ldexp(1, 100)}, /* as gcpp.h has it */
        {"--alpha", NULL, &asked.alpha, 0, 1},
        {"--dim", NULL, &asked.dim, 0, 1},
        {"--threads", NULL, &asked.threads, 1, 64},
    };
    const size_t options_known = sizeof known / sizeof *known, needed = sizeof places / sizeof *places;
    size_t placed = 0;
    for (int i = 1; i < count; i++) {
        size_t option = 0;
        while (option < options_known && strcmp(words[i], known[option].name) != 0)
            option++;
        if (option < options_known) {
            if (++i == count)
                fail_usage("a value is missing behind ", known[option].name);
            if (known[option].text)
                *known[option].text = words[i];
            else
                *known[option].number = number_option(known[option].name, words[i], known[option].low, known[option].high);
        } else if (strcmp(words[i], "--no-relu") == 0) {
            asked.relu = 0;
        } else if (strncmp(words[i], "--", 2) == 0) {
            fail_usage("unknown option ", words[i]);
        } else if (placed < needed) {
            *places[placed++] = words[i];
        } else {
            fail_usage("one file too many: ", words[i]);
        }
    }
    if (placed < needed)
        fail_usage("files are missing", "");
    if (asked.threads > floor(asked.threads))
        fail("--threads: expected a whole number, found %g", asked.threads);
    return asked;
}

/* "512x7x7": sides of 1 and more, whose product is a size that can be asked for. */
static map_shape parse_shape(const char *text)
{
    long sides[3];
    const char *at = text;
    for (int side = 0; side < 3; side++) {
        char *end;
        errno = 0;
        sides[side] = strtol(at, &end, 10);
        const int is_number = *at >= '0' && *at <= '9' && errno == 0 && sides[side] >= 1 && sides[side] <= 1 << 20;
        if (!is_number || *end != (side < 2 ? 'x' : '\0'))
            fail("%s: expected a shape such as 512x7x7 (channels, height, width), each 1 to %d", text, 1 << 20);
        at = end + 1;
    }
    return (map_shape){(int32_t)sides[0], (int32_t)sides[1], (int32_t)sides[2]};
}

static gcpp_rule parse_rule(const char *name)
{
    static const char *const names[] = {"gradcam", "gradcam++", "gradcam++-signed"}; /* in the order of gcpp_rule */
    for (int rule = 0; rule < 3; rule++)
        if (strcmp(name, names[rule]) == 0)
            return (gcpp_rule)rule;
    fail("--rule: expected gradcam, gradcam++ or gradcam++-signed, found %s", name);
}

/* One side of the frame on the same side of the map; without a text all of the one under all of the other. */
static gcpp_axis parse_axis(const char *name, const char *text, int32_t frame_side, int32_t map_side)
{
    if (!text)
        return (gcpp_axis){(double)map_side / frame_side, 0, 0, frame_side};
    double numbers[4];
    const char *at = text;
    for (int i = 0; i < 4; i++) {
        at = parse_number(at, &numbers[i]);
        if (!at || *at != (i < 3 ? ',' : '\0'))
            fail("%s: expected SCALE,OFFSET,START,STOP, found %s", name, text);
        at++;
    }
    if (!(0 <= numbers[2] && numbers[2] <= numbers[3] && numbers[3] <= frame_side))
        fail("%s: expected 0 <= START <= STOP <= %d, the frame's side, found %s", name, (int)frame_side, text);
    return (gcpp_axis){numbers[0], numbers[1], (int32_t)numbers[2], (int32_t)numbers[3]};
}

/* The table that GCPP_ISA names, else the best for this processor; names it in *isa. */
static const gcpp_rows *choose_kernels(const char **isa)
{
    static const char *const best_first[] = {"avx512vbmi", "avx512", "avx2", "neon", "scalar"};
    const char *const asked = getenv("GCPP_ISA");
    const gcpp_rows *rows = NULL;
    if (asked && *asked) {
        *isa = asked;
        rows = gcpp_rows_for(asked);
        if (!rows)
            fail("GCPP_ISA=%s is not available here", asked);
        return rows;
    }
    for (size_t i = 0; !rows; i++) /* "scalar" is always there */
        rows = gcpp_rows_for(*isa = best_first[i]);
    return rows;
}

/* ---- the work ---- */

/* The map, height x width floats, from files that have its shape; the caller's to free. */
static float *make_map(const gcpp_rows *kernels, const options *asked, map_shape shape)
{
    size_t activation_count, gradient_count;
    const size_t channels = (size_t)shape.channels, positions = (size_t)shape.height * (size_t)shape.width;
    if (positions > SIZE_MAX / sizeof(float) / channels)
        fail("%s: too large for this machine", asked->shape);
    float *const activations = read_floats(asked->activations, &activation_count);
    float *const gradients = read_floats(asked->gradients, &gradient_count);
    if (activation_count != channels * positions)
        fail("%s: expected %zu float32 for %s, found %zu", asked->activations, channels * positions, asked->shape,
             activation_count);
    if (gradient_count != channels * positions && gradient_count != channels)
        fail("%s: expected %zu float32 for %s, or %zu that are constant, found %zu", asked->gradients,
             channels * positions, asked->shape, channels, gradient_count);
    float *const map = allocate(positions, sizeof(float));
    const gcpp_cam_arguments arguments = {
        .activations = activations,
        .gradients = gradients,
        .out = map,
        .batch = 1,
        .targets = 1,
        .channels = shape.channels,
        .positions = (ptrdiff_t)positions,
        .activations_dtype = GCPP_FLOAT32,
        .gradients_dtype = GCPP_FLOAT32,
        .rule = parse_rule(asked->rule),
        .constant_gradients = gradient_count != channels * positions,
        .relu = asked->relu,
        .gradient_scale = (float)asked->gradient_scale,
    };
    gcpp_cam(kernels, &arguments);
    free(activations);
    free(gradients);
    return map;
}

/* Draws the map onto the frame, between its lowest and its highest value; returns the position of the highest. */
static size_t draw_map(const gcpp_rows *kernels, const options *asked, const float *map, map_shape shape, picture *frame)
{
    const size_t positions = (size_t)shape.height * (size_t)shape.width;
    size_t lowest = 0, highest = 0;
    for (size_t i = 0; i < positions; i++) {
        if (!isfinite(map[i]))
            fail("the map overflows at position %zu: such activations are too large for float32", i);
        lowest = map[i] < map[lowest] ? i : lowest;
        highest = map[i] > map[highest] ? i : highest;
    }
    size_t colors;
    uint8_t *const palette = read_file(asked->palette, &colors);
    if (colors != 256 * 3)
        fail("%s: expected a palette of 768 bytes, found %zu", asked->palette, colors);
    const gcpp_map small = {
        .values = map,
        .height = shape.height,
        .width = shape.width,
        .rows = parse_axis("--rows", asked->rows, frame->height, shape.height),
        .columns = parse_axis("--columns", asked->columns, frame->width, shape.width),
        .low = map[lowest],
        .high = map[highest],
    };
    const gcpp_picture pixels = {frame->rgb, frame->height, frame->width, 3, (ptrdiff_t)3 * frame->width};
    /* onto the frame itself: the output may be the input */
    if (gcpp_overlay(kernels, (int32_t)asked->threads, &small, &pixels, palette, asked->alpha, asked->dim, &pixels))
        fail("no memory for the kernel's scratch block");
    free(palette);
    return highest;
}

int main(int count, char **words)
{
    if (count == 2 && strcmp(words[1], "--help") == 0)
        return fputs(usage, stdout) < 0;
    const options asked = parse_options(count, words);
    const char *isa;
    const gcpp_rows *const kernels = choose_kernels(&isa);
    const map_shape shape = parse_shape(asked.shape);
    picture frame = read_ppm(asked.frame);
    float *const map = make_map(kernels, &asked, shape);
    const size_t peak = draw_map(kernels, &asked, map, shape, &frame), width = (size_t)shape.width;
    write_ppm(asked.overlay, &frame);
    printf("peak %.9g at row %zu, column %zu of %d x %d\n", (double)map[peak], peak / width, peak % width,
           (int)shape.height, (int)shape.width);
    printf("kernels %s\n", isa);
    free(map);
    free(frame.rgb);
    return 0;
}
