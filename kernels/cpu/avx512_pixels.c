/* Rows of preprocess with AVX-512. What is not here is no faster than with AVX2. */
#if defined(__x86_64__)
#include "avx512.h"

#include "avx2_rows.h"
#include "avx512_rows.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))

enum { VECTOR_BYTES = 4, PAIR_BYTES = 8 /* what one lane loads: a shorter row is left to the AVX2 code */ };

static inline __m512i load16_i32(const int32_t *values)
{
    return _mm512_loadu_si512((const void *)values);
}

static inline __m512 mix16(__m512 first, __m512 second, __m512 share)
{
    return _mm512_fmadd_ps(_mm512_sub_ps(second, first), share, first);
}

/* One byte of each lane. */
static ALWAYS_INLINE __m512 plane16(__m512i pixels, int32_t plane)
{
    const __m512i byte = _mm512_and_si512(_mm512_srli_epi32(pixels, (unsigned)(8 * plane)), _mm512_set1_epi32(255));
    return _mm512_cvtepi32_ps(byte);
}

static inline __m128i load_two(const uint8_t *row, int32_t a, int32_t b)
{
    const __m128i first = _mm_loadl_epi64((const __m128i *)(const void *)(row + a));
    return _mm_castpd_si128(_mm_loadh_pd(_mm_castsi128_pd(first), (const double *)(const void *)(row + b)));
}

/* Eight pixels of up to 32 bits, with their neighbours, loaded one by one and shifted down: a gather takes longer. */
static inline __m512i load_pairs8(const uint8_t *row, const int32_t *offset, const int32_t *shift)
{
    const __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(load_two(row, offset[0], offset[1])),
                                                load_two(row, offset[2], offset[3]), 1);
    const __m256i high = _mm256_inserti128_si256(_mm256_castsi128_si256(load_two(row, offset[4], offset[5])),
                                                 load_two(row, offset[6], offset[7]), 1);
    const __m256i shifts = _mm256_loadu_si256((const __m256i *)(const void *)shift);
    return _mm512_srlv_epi64(_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1), _mm512_cvtepi32_epi64(shifts));
}

/* pixel_bytes and planes are constants where this is inlined. */
static ALWAYS_INLINE int32_t pixels_of_color(const uint8_t *row, int32_t pixel_bytes, int32_t planes,
                                             const gcpp_columns *columns, float *out, ptrdiff_t stride)
{
    const __m512i low_halves =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    int32_t i = 0;
    for (; i + LANES <= columns->count; i += LANES) {
        const int32_t *const offset = columns->pair_offset + i, *const shift = columns->pair_shift + i;
        const __m512i a = load_pairs8(row, offset, shift), b = load_pairs8(row, offset + 8, shift + 8);
        const unsigned bits = (unsigned)(8 * pixel_bytes);
        const __m512i first = _mm512_permutex2var_epi32(a, low_halves, b);
        const __m512i second =
            _mm512_permutex2var_epi32(_mm512_srli_epi64(a, bits), low_halves, _mm512_srli_epi64(b, bits));
        const __m512 share = _mm512_loadu_ps(columns->share + i);
        for (int32_t plane = 0; plane < planes; plane++)
            _mm512_storeu_ps(out + plane * stride + i, mix16(plane16(first, plane), plane16(second, plane), share));
    }
    return i;
}

void gcpp_pixels_packed_u8_avx512(const uint8_t *row, const gcpp_pixel_layout *layout, const gcpp_columns *columns,
                                  float *out, ptrdiff_t stride)
{
    int32_t done = 0;
    if (layout->row_bytes >= PAIR_BYTES && layout->pixel_bytes == 3)
        done = pixels_of_color(row, 3, 3, columns, out, stride);
    else if (layout->row_bytes >= PAIR_BYTES && layout->pixel_bytes == 4 && layout->planes == 3)
        done = pixels_of_color(row, 4, 3, columns, out, stride);
    const gcpp_columns rest = columns_from(columns, done);
    gcpp_pixels_packed_u8_avx2(row, layout, &rest, out + done, stride);
}

typedef struct {
    __m512 plane[3];
} color16;

static inline __m512 byte_range16(__m512 value)
{
    return _mm512_min_ps(_mm512_max_ps(value, _mm512_setzero_ps()), _mm512_set1_ps(255));
}

/* Red, green and blue of sixteen pixels: BT.601, limited range (reference.py). */
static inline color16 color_of_nv12(__m512i luma_byte, __m512i chroma)
{
    const __m512 excess = _mm512_sub_ps(plane16(luma_byte, 0), _mm512_set1_ps(16));
    const __m512 luma = _mm512_mul_ps(_mm512_max_ps(excess, _mm512_setzero_ps()), _mm512_set1_ps(1.164f));
    const __m512 u = _mm512_sub_ps(plane16(chroma, 0), _mm512_set1_ps(128));
    const __m512 v = _mm512_sub_ps(plane16(chroma, 1), _mm512_set1_ps(128));
    const __m512 red = _mm512_fmadd_ps(v, _mm512_set1_ps(1.596f), luma);
    const __m512 less_red = _mm512_fnmadd_ps(v, _mm512_set1_ps(0.813f), luma);
    const __m512 green = _mm512_fnmadd_ps(u, _mm512_set1_ps(0.391f), less_red);
    const __m512 blue = _mm512_fmadd_ps(u, _mm512_set1_ps(2.018f), luma);
    return (color16){{byte_range16(red), byte_range16(green), byte_range16(blue)}};
}

/* As with AVX2: a pixel or its chroma, and its neighbour's above it. */
static inline __m512i gather16(const uint8_t *row, __m512i start, int32_t row_bytes)
{
    const __m512i offset = _mm512_min_epi32(start, _mm512_set1_epi32(row_bytes - VECTOR_BYTES));
    const __m512i loaded = _mm512_i32gather_epi32(offset, (const void *)row, 1);
    return _mm512_srlv_epi32(loaded, _mm512_slli_epi32(_mm512_sub_epi32(start, offset), 3));
}

void gcpp_pixels_nv12_u8_avx512(const uint8_t *row, const gcpp_pixel_layout *layout, const gcpp_columns *columns,
                                float *out, ptrdiff_t stride)
{
    const __m512i one = _mm512_set1_epi32(1);
    int32_t i = 0;
    for (; layout->row_bytes >= VECTOR_BYTES && i + LANES <= columns->count; i += LANES) {
        const __m512i x = load16_i32(columns->first + i);
        const __m512i luma = gather16(row, x, layout->row_bytes);
        const __m512i chroma = gather16(layout->chroma, _mm512_andnot_si512(one, x), layout->row_bytes);
        const __m512i odd = _mm512_slli_epi32(_mm512_and_si512(x, one), 4); /* its neighbour has the next two */
        const color16 first = color_of_nv12(luma, chroma);
        const color16 second = color_of_nv12(_mm512_srli_epi32(luma, 8), _mm512_srlv_epi32(chroma, odd));
        const __m512 share = _mm512_loadu_ps(columns->share + i);
        for (int32_t plane = 0; plane < 3; plane++)
            _mm512_storeu_ps(out + plane * stride + i, mix16(first.plane[plane], second.plane[plane], share));
    }
    const gcpp_columns rest = columns_from(columns, i);
    gcpp_pixels_nv12_u8_avx2(row, layout, &rest, out + i, stride);
}

GCPP_AVX512_END
#endif
