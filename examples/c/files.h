/* Files of the example, read whole and checked: raw floats and bytes of a known count, and binary PPM pictures. */
#ifndef FILES_H
#define FILES_H

#include <stddef.h>
#include <stdint.h>

/* RGB, rows packed. */
typedef struct {
    int32_t height, width;
    uint8_t *rgb; /* height * width * 3 */
} picture;

/* Prints "explain: ...", one line, and ends the program with status 1. */
void fail(const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 1, 2), noreturn))
#endif
    ;

/* Memory for `count` elements, at least one; ends the program where there is none. The caller frees it. */
void *allocate(size_t count, size_t element_bytes);

/* The file's bytes, the caller's to free. */
uint8_t *read_file(const char *path, size_t *bytes);

/* Little-endian float32, as NumPy's tofile() writes them on a little-endian machine, all of them finite. */
float *read_floats(const char *path, size_t *count);

picture read_ppm(const char *path);

void write_ppm(const char *path, const picture *picture);

#endif
