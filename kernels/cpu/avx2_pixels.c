/* Rows of preprocess with AVX2. */
#if defined(__x86_64__)
#include "avx2.h"

#include "avx2_rows.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))

enum { VECTOR_BYTES = 4, PAIR_BYTES = 8 /* what one lane loads: a shorter row is left to the scalar code */ };

/* Eight pixels of up to 16 bits, each in the low bits of its lane with its neighbour above it, which is the column's
 * second pixel or has no share. No load leaves the row (gcpp_columns). */
static inline __m256i gather_pixels8(const uint8_t *row, const int32_t *offset, const int32_t *shift)
{
    const __m256i loaded = _mm256_i32gather_epi32((const int *)(const void *)row, load8_i32(offset), 1);
    return _mm256_srlv_epi32(loaded, load8_i32(shift));
}

/* One byte of each lane. */
static inline __m256 plane8(__m256i pixels, int32_t plane)
{
    const __m256i byte = _mm256_and_si256(_mm256_srli_epi32(pixels, 8 * plane), _mm256_set1_epi32(255));
    return _mm256_cvtepi32_ps(byte);
}

/* Four pixels of up to 32 bits, with their neighbours. */
static inline __m256i load_pairs4(const uint8_t *row, int32_t a, int32_t b, int32_t c, int32_t d)
{
    return load4_i64(row + a, row + b, row + c, row + d);
}

/* Eight pixels and their neighbours, each in 32 bits of its lane. */
typedef struct {
    __m256i first, second;
} pairs8;

static inline __m256i low_halves8(__m256i one, __m256i other)
{
    return _mm256_castps_si256(_mm256_shuffle_ps(_mm256_castsi256_ps(one), _mm256_castsi256_ps(other), 0x88));
}

static ALWAYS_INLINE pairs8 load_pairs8(const uint8_t *row, const int32_t *offset, const int32_t *shift,
                                        int32_t pixel_bits)
{
    /* in the order that brings the pixels into theirs when low halves are taken within 128 bits */
    const __m256i shifts = load8_i32(shift);
    const __m256i outer = _mm256_cvtepi32_epi64(_mm256_castsi256_si128(_mm256_permute4x64_epi64(shifts, 0x08)));
    const __m256i inner = _mm256_cvtepi32_epi64(_mm256_castsi256_si128(_mm256_permute4x64_epi64(shifts, 0x0d)));
    const __m256i a = _mm256_srlv_epi64(load_pairs4(row, offset[0], offset[1], offset[4], offset[5]), outer);
    const __m256i b = _mm256_srlv_epi64(load_pairs4(row, offset[2], offset[3], offset[6], offset[7]), inner);
    return (pairs8){low_halves8(a, b),
                    low_halves8(_mm256_srli_epi64(a, pixel_bits), _mm256_srli_epi64(b, pixel_bits))};
}

static int32_t pixels_of_bytes(const uint8_t *row, const gcpp_pixel_layout *layout, const gcpp_columns *columns,
                               float *out)
{
    int32_t i = 0;
    for (; layout->row_bytes >= VECTOR_BYTES && i + LANES <= columns->count; i += LANES) {
        const __m256i pixels = gather_pixels8(row, columns->first_offset + i, columns->first_shift + i);
        const __m256 share = _mm256_loadu_ps(columns->share + i);
        _mm256_storeu_ps(out + i, mix8(plane8(pixels, 0), plane8(pixels, 1), share));
    }
    return i;
}

/* pixel_bytes and planes are constants where this is inlined: shifts by them are then cheap. */
static ALWAYS_INLINE int32_t pixels_of_color(const uint8_t *row, int32_t row_bytes, int32_t pixel_bytes,
                                             int32_t planes, const gcpp_columns *columns, float *out,
                                             ptrdiff_t stride)
{
    int32_t i = 0;
    for (; row_bytes >= PAIR_BYTES && i + LANES <= columns->count; i += LANES) {
        const pairs8 pairs = load_pairs8(row, columns->pair_offset + i, columns->pair_shift + i, 8 * pixel_bytes);
        const __m256 share = _mm256_loadu_ps(columns->share + i);
        for (int32_t plane = 0; plane < planes; plane++)
            _mm256_storeu_ps(out + plane * stride + i,
                             mix8(plane8(pairs.first, plane), plane8(pairs.second, plane), share));
    }
    return i;
}

void gcpp_pixels_packed_u8_avx2(const uint8_t *row, const gcpp_pixel_layout *layout, const gcpp_columns *columns,
                                float *out, ptrdiff_t stride)
{
    int32_t done;
    if (layout->pixel_bytes == 1)
        done = pixels_of_bytes(row, layout, columns, out);
    else if (layout->pixel_bytes == 3)
        done = pixels_of_color(row, layout->row_bytes, 3, 3, columns, out, stride);
    else if (layout->planes == 3)
        done = pixels_of_color(row, layout->row_bytes, 4, 3, columns, out, stride);
    else
        done = pixels_of_color(row, layout->row_bytes, 4, 4, columns, out, stride);
    const gcpp_columns rest = columns_from(columns, done);
    gcpp_pixels_packed_u8_scalar(row, layout, &rest, out + done, stride);
}

void gcpp_pixels_gray_u16_avx2(const uint8_t *row, const gcpp_pixel_layout *layout, const gcpp_columns *columns,
                               float *out, ptrdiff_t stride)
{
    const __m256i mask = _mm256_set1_epi32(65535);
    int32_t i = 0;
    for (; layout->row_bytes >= VECTOR_BYTES && i + LANES <= columns->count; i += LANES) {
        const __m256i pixels = gather_pixels8(row, columns->first_offset + i, columns->first_shift + i);
        const __m256 mixed = mix8(_mm256_cvtepi32_ps(_mm256_and_si256(pixels, mask)),
                                  _mm256_cvtepi32_ps(_mm256_srli_epi32(pixels, 16)),
                                  _mm256_loadu_ps(columns->share + i));
        _mm256_storeu_ps(out + i, _mm256_mul_ps(mixed, _mm256_set1_ps(1.0f / 257)));
    }
    const gcpp_columns rest = columns_from(columns, i);
    gcpp_pixels_gray_u16_scalar(row, layout, &rest, out + i, stride);
}

typedef struct {
    __m256 plane[3];
} color8;

static inline __m256 byte_range8(__m256 value)
{
    return _mm256_min_ps(_mm256_max_ps(value, _mm256_setzero_ps()), _mm256_set1_ps(255));
}

/* U and V of eight pixels, those of the even pixel at x or before it, and above them those of the next two pixels. */
static inline __m256i gather_chroma8(const uint8_t *chroma, __m256i x, int32_t row_bytes)
{
    const __m256i start = _mm256_andnot_si256(_mm256_set1_epi32(1), x);
    const __m256i offset = _mm256_min_epi32(start, _mm256_set1_epi32(row_bytes - VECTOR_BYTES));
    const __m256i loaded = _mm256_i32gather_epi32((const int *)(const void *)chroma, offset, 1);
    return _mm256_srlv_epi32(loaded, _mm256_slli_epi32(_mm256_sub_epi32(start, offset), 3));
}

/* Red, green and blue of eight pixels: BT.601, limited range (reference.py). */
static inline color8 color_of_nv12(__m256i luma_byte, __m256i chroma)
{
    const __m256 excess = _mm256_sub_ps(plane8(luma_byte, 0), _mm256_set1_ps(16));
    const __m256 luma = _mm256_mul_ps(_mm256_max_ps(excess, _mm256_setzero_ps()), _mm256_set1_ps(1.164f));
    const __m256 u = _mm256_sub_ps(plane8(chroma, 0), _mm256_set1_ps(128));
    const __m256 v = _mm256_sub_ps(plane8(chroma, 1), _mm256_set1_ps(128));
    const __m256 red = _mm256_fmadd_ps(v, _mm256_set1_ps(1.596f), luma);
    const __m256 less_red = _mm256_fnmadd_ps(v, _mm256_set1_ps(0.813f), luma);
    const __m256 green = _mm256_fnmadd_ps(u, _mm256_set1_ps(0.391f), less_red);
    const __m256 blue = _mm256_fmadd_ps(u, _mm256_set1_ps(2.018f), luma);
    return (color8){{byte_range8(red), byte_range8(green), byte_range8(blue)}};
}

void gcpp_pixels_nv12_u8_avx2(const uint8_t *row, const gcpp_pixel_layout *layout, const gcpp_columns *columns,
                              float *out, ptrdiff_t stride)
{
    int32_t i = 0;
    for (; layout->row_bytes >= VECTOR_BYTES && i + LANES <= columns->count; i += LANES) {
        const __m256i x = load8_i32(columns->first + i);
        const __m256i luma = gather_pixels8(row, columns->first_offset + i, columns->first_shift + i);
        const __m256i chroma = gather_chroma8(layout->chroma, x, layout->row_bytes);
        /* the neighbour of an odd pixel has the next two */
        const __m256i odd = _mm256_slli_epi32(_mm256_and_si256(x, _mm256_set1_epi32(1)), 4);
        const color8 one = color_of_nv12(luma, chroma);
        const color8 two = color_of_nv12(_mm256_srli_epi32(luma, 8), _mm256_srlv_epi32(chroma, odd));
        const __m256 share = _mm256_loadu_ps(columns->share + i);
        for (int32_t plane = 0; plane < 3; plane++)
            _mm256_storeu_ps(out + plane * stride + i, mix8(one.plane[plane], two.plane[plane], share));
    }
    const gcpp_columns rest = columns_from(columns, i);
    gcpp_pixels_nv12_u8_scalar(row, layout, &rest, out + i, stride);
}

static inline __m256 finish8(const float *upper, const float *lower, __m256 share, __m256 scale, __m256 bias)
{
    return _mm256_fmadd_ps(mix8(_mm256_loadu_ps(upper), _mm256_loadu_ps(lower), share), scale, bias);
}

void gcpp_finish_f32_avx2(const float *upper, const float *lower, float share, float scale, float bias, void *out,
                          int32_t count)
{
    const __m256 shares = _mm256_set1_ps(share), scales = _mm256_set1_ps(scale), biases = _mm256_set1_ps(bias);
    float *const values = out;
    int32_t i = 0;
    for (; i + LANES <= count; i += LANES)
        _mm256_storeu_ps(values + i, finish8(upper + i, lower + i, shares, scales, biases));
    gcpp_finish_f32_scalar(upper + i, lower + i, share, scale, bias, values + i, count - i);
}

void gcpp_finish_f16_avx2(const float *upper, const float *lower, float share, float scale, float bias, void *out,
                          int32_t count)
{
    const __m256 shares = _mm256_set1_ps(share), scales = _mm256_set1_ps(scale), biases = _mm256_set1_ps(bias);
    uint16_t *const values = out;
    int32_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        const __m256 finished = finish8(upper + i, lower + i, shares, scales, biases);
        const __m128i halves = _mm256_cvtps_ph(finished, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        _mm_storeu_si128((__m128i *)(void *)(values + i), halves);
    }
    gcpp_finish_f16_scalar(upper + i, lower + i, share, scale, bias, values + i, count - i);
}

GCPP_AVX2_END
#endif
