#include "files.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LARGEST_SIDE = 1 << 15 }; /* of a picture: its bytes fit in 32 bits */

void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("explain: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

void *allocate(size_t count, size_t element_bytes)
{
    void *const memory = calloc(count ? count : 1, element_bytes);
    if (!memory)
        fail("no memory for %zu elements of %zu bytes", count, element_bytes);
    return memory;
}

uint8_t *read_file(const char *path, size_t *bytes)
{
    FILE *const file = fopen(path, "rb");
    if (!file)
        fail("%s: cannot be read (%s)", path, strerror(errno));
    size_t room = 1 << 16, got;
    uint8_t *content = allocate(room, 1);
    *bytes = 0;
    while ((got = fread(content + *bytes, 1, room - *bytes, file)) > 0) {
        *bytes += got;
        if (*bytes < room)
            continue;
        room *= 2;
        uint8_t *const larger = realloc(content, room);
        if (!larger)
            fail("%s: no memory for its %zu bytes and more", path, *bytes);
        content = larger;
    }
    if (ferror(file))
        fail("%s: cannot be read (%s)", path, strerror(errno));
    fclose(file);
    return content;
}

float *read_floats(const char *path, size_t *count)
{
    size_t bytes;
    uint8_t *const content = read_file(path, &bytes);
    if (bytes % sizeof(float))
        fail("%s: %zu bytes are not a whole number of float32", path, bytes);
    *count = bytes / sizeof(float);
    float *const values = allocate(*count, sizeof(float));
    memcpy(values, content, bytes);
    free(content);
    for (size_t i = 0; i < *count; i++)
        if (!isfinite(values[i]))
            fail("%s: number %zu is not finite", path, i);
    return values;
}

static int is_space(int byte)
{
    return byte == ' ' || (byte >= '\t' && byte <= '\r');
}

/* The next number of a PPM's head, behind spaces and comments; -1 where there is none, or a huge one. */
static long next_number(const uint8_t *content, size_t bytes, size_t *at)
{
    while (*at < bytes && (is_space(content[*at]) || content[*at] == '#')) {
        if (content[*at] == '#')
            while (*at < bytes && content[*at] != '\n')
                ++*at;
        else
            ++*at;
    }
    long number = -1;
    for (; *at < bytes && content[*at] >= '0' && content[*at] <= '9'; ++*at) {
        number = (number < 0 ? 0 : number) * 10 + (content[*at] - '0');
        if (number > LARGEST_SIDE)
            return -1;
    }
    return number;
}

picture read_ppm(const char *path)
{
    size_t bytes, at = 2;
    uint8_t *const content = read_file(path, &bytes);
    if (bytes < 2 || content[0] != 'P' || content[1] != '6')
        fail("%s: expected a binary PPM, which begins with P6", path);
    const long width = next_number(content, bytes, &at), height = next_number(content, bytes, &at);
    const long largest = next_number(content, bytes, &at);
    if (width < 1 || height < 1)
        fail("%s: expected a width and a height of 1 to %d", path, (int)LARGEST_SIDE);
    if (largest != 255)
        fail("%s: expected one byte a value (255 behind the size)", path);
    const size_t wanted = (size_t)width * (size_t)height * 3;
    at++; /* one space */
    if (at > bytes || bytes - at < wanted)
        fail("%s: expected %zu bytes of pixels, found %zu", path, wanted, at > bytes ? (size_t)0 : bytes - at);
    memmove(content, content + at, wanted);
    return (picture){(int32_t)height, (int32_t)width, content};
}

void write_ppm(const char *path, const picture *picture)
{
    const size_t bytes = (size_t)picture->height * (size_t)picture->width * 3;
    FILE *const file = fopen(path, "wb");
    if (!file)
        fail("%s: cannot be written (%s)", path, strerror(errno));
    fprintf(file, "P6\n%d %d\n255\n", (int)picture->width, (int)picture->height);
    const size_t written = fwrite(picture->rgb, 1, bytes, file);
    if (fclose(file) != 0 || written != bytes)
        fail("%s: cannot be written whole", path);
}
