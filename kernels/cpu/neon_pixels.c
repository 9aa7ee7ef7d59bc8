/* Rows of preprocess with NEON, eight columns a turn. */
#if defined(__aarch64__)
#include "neon.h"

#include <string.h>

#include "neon_rows.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))

enum { COLUMNS = 8, VECTOR_BYTES = 4 /* what one lane loads: a shorter row is left to the scalar code */ };

typedef struct {
    float32x4_t low, high;
} float8;

static inline float8 float8_of_u16(uint16x8_t values)
{
    return (float8){vcvtq_f32_u32(vmovl_u16(vget_low_u16(values))), vcvtq_f32_u32(vmovl_high_u16(values))};
}

static inline float8 float8_of_s16(int16x8_t values)
{
    return (float8){vcvtq_f32_s32(vmovl_s16(vget_low_s16(values))), vcvtq_f32_s32(vmovl_high_s16(values))};
}

/* first + difference * share, as exact as subtracting floats: the integers are. */
static inline void store_mixed8(float8 first, float8 difference, const float *share, float *out)
{
    vst1q_f32(out, vfmaq_f32(first.low, difference.low, vld1q_f32(share)));
    vst1q_f32(out + LANES, vfmaq_f32(first.high, difference.high, vld1q_f32(share + LANES)));
}

/* Four pixels, each in the low bits of its lane. No load leaves the row (gcpp_columns). */
static inline uint8x16_t gather_pixels4(const uint8_t *row, const int32_t *offset, const int32_t *shift)
{
    uint32_t pixels[4];
    for (int i = 0; i < 4; i++)
        memcpy(pixels + i, row + offset[i], VECTOR_BYTES);
    const uint32x4_t loaded = {pixels[0], pixels[1], pixels[2], pixels[3]};
    return vreinterpretq_u8_u32(vshlq_u32(loaded, vnegq_s32(vld1q_s32(shift))));
}

static inline uint8x16x2_t gather_pixels8(const uint8_t *row, const int32_t *offset, const int32_t *shift)
{
    return (uint8x16x2_t){{gather_pixels4(row, offset, shift), gather_pixels4(row, offset + 4, shift + 4)}};
}

/* One byte of each pixel. */
static inline uint8x8_t plane8(uint8x16x2_t pixels, int32_t plane)
{
    static const uint8_t bytes[4][COLUMNS] = {{0, 4, 8, 12, 16, 20, 24, 28},
                                              {1, 5, 9, 13, 17, 21, 25, 29},
                                              {2, 6, 10, 14, 18, 22, 26, 30},
                                              {3, 7, 11, 15, 19, 23, 27, 31}};
    return vqtbl2_u8(pixels, vld1_u8(bytes[plane]));
}

static ALWAYS_INLINE int32_t packed_columns(const uint8_t *row, int32_t planes, const gcpp_columns *columns, float *out,
                                            ptrdiff_t stride)
{
    int32_t i = 0;
    for (; i + COLUMNS <= columns->count; i += COLUMNS) {
        const uint8x16x2_t first = gather_pixels8(row, columns->first_offset + i, columns->first_shift + i);
        const uint8x16x2_t second = gather_pixels8(row, columns->second_offset + i, columns->second_shift + i);
        for (int32_t plane = 0; plane < planes; plane++) {
            const uint8x8_t one = plane8(first, plane), two = plane8(second, plane);
            store_mixed8(float8_of_u16(vmovl_u8(one)), float8_of_s16(vreinterpretq_s16_u16(vsubl_u8(two, one))),
                         columns->share + i, out + plane * stride + i);
        }
    }
    return i;
}

void gcpp_pixels_packed_u8_neon(const uint8_t *row, const gcpp_pixel_layout *layout, const gcpp_columns *columns,
                                float *out, ptrdiff_t stride)
{
    int32_t i = 0;
    /* the count of planes is a constant in each copy */
    if (layout->row_bytes < VECTOR_BYTES)
        ;
    else if (layout->planes == 1)
        i = packed_columns(row, 1, columns, out, stride);
    else if (layout->planes == 3)
        i = packed_columns(row, 3, columns, out, stride);
    else
        i = packed_columns(row, 4, columns, out, stride);
    const gcpp_columns rest = columns_from(columns, i);
    gcpp_pixels_packed_u8_scalar(row, layout, &rest, out + i, stride);
}

static inline uint16x8_t gather8_u16(const uint16_t *row, const int32_t *index)
{
    uint16x8_t values = vld1q_dup_u16(row + index[0]);
    values = vld1q_lane_u16(row + index[1], values, 1);
    values = vld1q_lane_u16(row + index[2], values, 2);
    values = vld1q_lane_u16(row + index[3], values, 3);
    values = vld1q_lane_u16(row + index[4], values, 4);
    values = vld1q_lane_u16(row + index[5], values, 5);
    values = vld1q_lane_u16(row + index[6], values, 6);
    return vld1q_lane_u16(row + index[7], values, 7);
}

static inline float8 scaled8(float8 values, float factor)
{
    return (float8){vmulq_n_f32(values.low, factor), vmulq_n_f32(values.high, factor)};
}

void gcpp_pixels_gray_u16_neon(const uint8_t *row, const gcpp_pixel_layout *layout, const gcpp_columns *columns,
                               float *out, ptrdiff_t stride)
{
    const uint16_t *const pixels = (const uint16_t *)(const void *)row;
    int32_t i = 0;
    for (; i + COLUMNS <= columns->count; i += COLUMNS) {
        const uint16x8_t one = gather8_u16(pixels, columns->first + i), two = gather8_u16(pixels, columns->second + i);
        const int32x4_t low = vreinterpretq_s32_u32(vsubl_u16(vget_low_u16(two), vget_low_u16(one)));
        const int32x4_t high = vreinterpretq_s32_u32(vsubl_high_u16(two, one));
        const float8 difference = {vcvtq_f32_s32(low), vcvtq_f32_s32(high)};
        store_mixed8(scaled8(float8_of_u16(one), 1.0f / 257), scaled8(difference, 1.0f / 257), columns->share + i,
                     out + i);
    }
    const gcpp_columns rest = columns_from(columns, i);
    gcpp_pixels_gray_u16_scalar(row, layout, &rest, out + i, stride);
}

static inline uint8x8_t gather8_u8(const uint8_t *row, const int32_t *index)
{
    uint8x8_t values = vld1_dup_u8(row + index[0]);
    values = vld1_lane_u8(row + index[1], values, 1);
    values = vld1_lane_u8(row + index[2], values, 2);
    values = vld1_lane_u8(row + index[3], values, 3);
    values = vld1_lane_u8(row + index[4], values, 4);
    values = vld1_lane_u8(row + index[5], values, 5);
    values = vld1_lane_u8(row + index[6], values, 6);
    return vld1_lane_u8(row + index[7], values, 7);
}

/* U and V of eight pixels: the pair of bytes at x rounded down to even. */
static inline uint8x8x2_t gather_chroma8(const uint8_t *chroma, const int32_t *x)
{
    uint8x8x2_t pairs = vld2_dup_u8(chroma + (x[0] & ~1));
    pairs = vld2_lane_u8(chroma + (x[1] & ~1), pairs, 1);
    pairs = vld2_lane_u8(chroma + (x[2] & ~1), pairs, 2);
    pairs = vld2_lane_u8(chroma + (x[3] & ~1), pairs, 3);
    pairs = vld2_lane_u8(chroma + (x[4] & ~1), pairs, 4);
    pairs = vld2_lane_u8(chroma + (x[5] & ~1), pairs, 5);
    pairs = vld2_lane_u8(chroma + (x[6] & ~1), pairs, 6);
    return vld2_lane_u8(chroma + (x[7] & ~1), pairs, 7);
}

typedef struct {
    float32x4_t plane[3];
} color4;

static inline float32x4_t byte_range4(float32x4_t value)
{
    return vminq_f32(vmaxq_f32(value, vdupq_n_f32(0)), vdupq_n_f32(255));
}

/* Red, green and blue of four pixels: BT.601, limited range (reference.py). excess: of Y over 16. */
static inline color4 color_of_nv12(float32x4_t excess, float32x4_t u, float32x4_t v)
{
    const float32x4_t luma = vmulq_n_f32(excess, 1.164f);
    const float32x4_t green = vfmsq_n_f32(vfmsq_n_f32(luma, v, 0.813f), u, 0.391f);
    return (color4){{byte_range4(vfmaq_n_f32(luma, v, 1.596f)), byte_range4(green),
                     byte_range4(vfmaq_n_f32(luma, u, 2.018f))}};
}

typedef struct {
    color4 low, high;
} color8;

static inline float8 chroma8(uint8x8_t bytes)
{
    return float8_of_s16(vreinterpretq_s16_u16(vsubl_u8(bytes, vdup_n_u8(128))));
}

static inline color8 gather_nv12(const uint8_t *row, const uint8_t *chroma, const int32_t *x)
{
    const uint8x8x2_t pairs = gather_chroma8(chroma, x);
    const float8 excess = float8_of_u16(vmovl_u8(vqsub_u8(gather8_u8(row, x), vdup_n_u8(16))));
    const float8 u = chroma8(pairs.val[0]), v = chroma8(pairs.val[1]);
    return (color8){color_of_nv12(excess.low, u.low, v.low), color_of_nv12(excess.high, u.high, v.high)};
}

void gcpp_pixels_nv12_u8_neon(const uint8_t *row, const gcpp_pixel_layout *layout, const gcpp_columns *columns,
                              float *out, ptrdiff_t stride)
{
    int32_t i = 0;
    for (; i + COLUMNS <= columns->count; i += COLUMNS) {
        const color8 one = gather_nv12(row, layout->chroma, columns->first + i);
        const color8 two = gather_nv12(row, layout->chroma, columns->second + i);
        const float32x4_t low = vld1q_f32(columns->share + i), high = vld1q_f32(columns->share + i + LANES);
        for (int32_t plane = 0; plane < 3; plane++) {
            float *const values = out + plane * stride + i;
            vst1q_f32(values, mix4(one.low.plane[plane], two.low.plane[plane], low));
            vst1q_f32(values + LANES, mix4(one.high.plane[plane], two.high.plane[plane], high));
        }
    }
    const gcpp_columns rest = columns_from(columns, i);
    gcpp_pixels_nv12_u8_scalar(row, layout, &rest, out + i, stride);
}

/* What a row of the network's input is made with. */
typedef struct {
    float32x4_t share, scale, bias;
} finish4;

static inline finish4 finish_of(float share, float scale, float bias)
{
    return (finish4){vdupq_n_f32(share), vdupq_n_f32(scale), vdupq_n_f32(bias)};
}

static inline float32x4_t finished4(const float *upper, const float *lower, finish4 with)
{
    return vfmaq_f32(with.bias, mix4(vld1q_f32(upper), vld1q_f32(lower), with.share), with.scale);
}

void gcpp_finish_f32_neon(const float *upper, const float *lower, float share, float scale, float bias, void *out,
                          int32_t count)
{
    const finish4 with = finish_of(share, scale, bias);
    float *const values = out;
    int32_t i = 0;
    for (; i + UNROLLED * LANES <= count; i += UNROLLED * LANES)
        for (int32_t v = i; v < i + UNROLLED * LANES; v += LANES)
            vst1q_f32(values + v, finished4(upper + v, lower + v, with));
    gcpp_finish_f32_scalar(upper + i, lower + i, share, scale, bias, values + i, count - i);
}

void gcpp_finish_f16_neon(const float *upper, const float *lower, float share, float scale, float bias, void *out,
                          int32_t count)
{
    const finish4 with = finish_of(share, scale, bias);
    uint16_t *const values = out;
    int32_t i = 0;
    for (; i + UNROLLED * LANES <= count; i += UNROLLED * LANES)
        for (int32_t v = i; v < i + UNROLLED * LANES; v += LANES)
            vst1_u16(values + v, vreinterpret_u16_f16(vcvt_f16_f32(finished4(upper + v, lower + v, with))));
    gcpp_finish_f16_scalar(upper + i, lower + i, share, scale, bias, values + i, count - i);
}

#endif
