/* Rows of heatmap, overlay and guided with NEON, and the NEON table. */
#if defined(__aarch64__)
#include "neon.h"

#include "neon_rows.h"

enum { BYTES = 16 };

static inline float32x4_t gather4_f32(const float *row, const int32_t *index)
{
    float32x4_t values = vld1q_dup_f32(row + index[0]);
    values = vld1q_lane_f32(row + index[1], values, 1);
    values = vld1q_lane_f32(row + index[2], values, 2);
    return vld1q_lane_f32(row + index[3], values, 3);
}

static void gcpp_widen_f32_neon(const float *row, const gcpp_columns *columns, float *out)
{
    int32_t i = 0;
    for (; i + LANES <= columns->count; i += LANES)
        vst1q_f32(out + i, mix4(gather4_f32(row, columns->first + i), gather4_f32(row, columns->second + i),
                                vld1q_f32(columns->share + i)));
    const gcpp_columns rest = columns_from(columns, i);
    gcpp_widen_f32_scalar(row, &rest, out + i);
}

/* Clipped to [0, 1]: of a number and a NaN maxnm gives the number, so that NaN becomes 0. */
static inline float32x4_t value4(const float *upper, const float *lower, float32x4_t share)
{
    const float32x4_t value = mix4(vld1q_f32(upper), vld1q_f32(lower), share);
    return vminq_f32(vmaxnmq_f32(value, vdupq_n_f32(0)), vdupq_n_f32(1));
}

static void gcpp_value_f32_neon(const float *upper, const float *lower, float share, float *out, int32_t count)
{
    const float32x4_t shares = vdupq_n_f32(share);
    int32_t i = 0;
    for (; i + UNROLLED * LANES <= count; i += UNROLLED * LANES)
        for (int32_t v = i; v < i + UNROLLED * LANES; v += LANES)
            vst1q_f32(out + v, value4(upper + v, lower + v, shares));
    for (; i + LANES <= count; i += LANES)
        vst1q_f32(out + i, value4(upper + i, lower + i, shares));
    gcpp_value_f32_scalar(upper + i, lower + i, share, out + i, count - i);
}

/* round(255 v), clipped to 16 bits by the conversion and the narrowing, which also make a NaN 0. */
static inline uint16x4_t byte4(const float *upper, const float *lower, float32x4_t share)
{
    const float32x4_t value = mix4(vld1q_f32(upper), vld1q_f32(lower), share);
    return vqmovn_u32(vcvtnq_u32_f32(vmulq_n_f32(value, 255)));
}

static inline uint8x8_t byte8(const float *upper, const float *lower, float32x4_t share)
{
    return vqmovn_u16(vcombine_u16(byte4(upper, lower, share), byte4(upper + LANES, lower + LANES, share)));
}

static void gcpp_value_u8_neon(const float *upper, const float *lower, float share, uint8_t *out, int32_t count)
{
    const float32x4_t shares = vdupq_n_f32(share);
    int32_t i = 0;
    for (; i + BYTES <= count; i += BYTES)
        vst1q_u8(out + i,
                 vcombine_u8(byte8(upper + i, lower + i, shares), byte8(upper + i + 8, lower + i + 8, shares)));
    gcpp_value_u8_scalar(upper + i, lower + i, share, out + i, count - i);
}

/* What a blend keeps of a frame, a 16-bit share as two bytes for each of sixteen. */
typedef struct {
    uint8x16_t high, low;
} keep16;

static inline keep16 keep_of(int32_t share, int32_t channels)
{
    static const uint8_t fourth[BYTES] = {0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255};
    const uint8x16_t stays = vdupq_n_u8(channels == 4 ? 255 : 0);
    const uint8x16_t mask = vandq_u8(vld1q_u8(fourth), stays); /* the fourth channel keeps all */
    share = share < 65535 ? share : 65535; /* 65536 does not fit; after rounding the result is the same */
    return (keep16){vorrq_u8(vdupq_n_u8((uint8_t)(share >> 8)), mask), vorrq_u8(vdupq_n_u8((uint8_t)share), mask)};
}

/* The colours of four pixels, two in each half: one load a pixel. A palette in registers does not pay: its 256 16-bit
 * entries are eight tables of vqtbl4q a channel, 24 lookups and 96 loads of tables for 16 pixels. */
typedef struct {
    uint16x8_t low, high;
} colors4;

static inline uint16x8_t colors_of_two(const uint8_t *index, const gcpp_color *colors)
{
    return vcombine_u16(vld1_u16(colors[index[0]].channel), vld1_u16(colors[index[1]].channel));
}

static inline colors4 gather_colors4(const uint8_t *index, const gcpp_color *colors)
{
    return (colors4){colors_of_two(index, colors), colors_of_two(index + 2, colors)};
}

/* Four pixels of four bytes in 8.8 fixed point: frame * keep >> 8 is frame * high + (frame * low >> 8), exactly. */
static inline colors4 blend_pixels4(uint8x16_t frame, colors4 colors, keep16 keep)
{
    colors.low = vsraq_n_u16(colors.low, vmull_u8(vget_low_u8(frame), vget_low_u8(keep.low)), 8);
    colors.low = vmlal_u8(colors.low, vget_low_u8(frame), vget_low_u8(keep.high));
    colors.high = vsraq_n_u16(colors.high, vmull_high_u8(frame, keep.low), 8);
    colors.high = vmlal_high_u8(colors.high, frame, keep.high);
    return colors;
}

/* The whole bytes. */
static inline uint8x16_t bytes_of(colors4 pixels)
{
    return vuzp2q_u8(vreinterpretq_u8_u16(pixels.low), vreinterpretq_u8_u16(pixels.high));
}

/* Eight pixels a turn, as two times four of four bytes. */
static int32_t blend_x3(const uint8_t *frame, const uint8_t *index, const gcpp_color *colors, int32_t share,
                        uint8_t *out, int32_t count)
{
    enum { NO = 255 /* an index of no byte: tbl gives 0 for it, tbx what was there */ };
    static const uint8_t spread[2][BYTES] = {{0, 1, 2, NO, 3, 4, 5, NO, 6, 7, 8, NO, 9, 10, 11, NO},
                                             {4, 5, 6, NO, 7, 8, 9, NO, 10, 11, 12, NO, 13, 14, 15, NO}};
    static const uint8_t pack[3][BYTES] = {{0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, NO, NO, NO, NO},
                                           {NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, 0, 1, 2, 4},
                                           {5, 6, 8, 9, 10, 12, 13, 14}};
    const uint8x16_t spread_first = vld1q_u8(spread[0]), spread_second = vld1q_u8(spread[1]);
    const uint8x16_t pack_first = vld1q_u8(pack[0]), pack_second = vld1q_u8(pack[1]);
    const uint8x8_t pack_rest = vld1_u8(pack[2]);
    const keep16 keep = keep_of(share, 3);
    int32_t i = 0;
    for (; i + 8 <= count; i += 8, frame += 24, out += 24, index += 8) {
        const uint8x16_t first = vqtbl1q_u8(vld1q_u8(frame), spread_first);
        const uint8x16_t second = vqtbl1q_u8(vld1q_u8(frame + 8), spread_second); /* bytes 8 to 23 */
        const uint8x16_t one = bytes_of(blend_pixels4(first, gather_colors4(index, colors), keep));
        const uint8x16_t two = bytes_of(blend_pixels4(second, gather_colors4(index + 4, colors), keep));
        vst1q_u8(out, vqtbx1q_u8(vqtbl1q_u8(one, pack_first), two, pack_second));
        vst1_u8(out + BYTES, vqtbl1_u8(two, pack_rest));
    }
    return i;
}

static int32_t blend_x4(const uint8_t *frame, const uint8_t *index, const gcpp_color *colors, int32_t share,
                        uint8_t *out, int32_t count)
{
    const keep16 keep = keep_of(share, 4);
    int32_t i = 0;
    for (; i + 4 <= count; i += 4)
        vst1q_u8(out + 4 * (ptrdiff_t)i,
                 bytes_of(blend_pixels4(vld1q_u8(frame + 4 * (ptrdiff_t)i), gather_colors4(index + i, colors), keep)));
    return i;
}

static void gcpp_blend_u8_neon(const uint8_t *frame, int32_t channels, const uint8_t *index, const gcpp_color *colors,
                               int32_t keep, uint8_t *out, int32_t count)
{
    const int32_t done = (channels == 3 ? blend_x3 : blend_x4)(frame, index, colors, keep, out, count);
    const ptrdiff_t first = (ptrdiff_t)done * channels;
    gcpp_blend_u8_scalar(frame + first, channels, index + done, colors, keep, out + first, count - done);
}

static void gcpp_multiply_f32_neon(const float *value, const void *image, float *out, int32_t count)
{
    const float *const pixels = image;
    int32_t i = 0;
    for (; i + UNROLLED * LANES <= count; i += UNROLLED * LANES)
        for (int32_t v = i; v < i + UNROLLED * LANES; v += LANES)
            vst1q_f32(out + v, vmulq_f32(vld1q_f32(value + v), vld1q_f32(pixels + v)));
    gcpp_multiply_f32_scalar(value + i, pixels + i, out + i, count - i);
}

static void gcpp_multiply_f16_neon(const float *value, const void *image, float *out, int32_t count)
{
    const uint16_t *const pixels = image;
    int32_t i = 0;
    for (; i + UNROLLED * LANES <= count; i += UNROLLED * LANES)
        for (int32_t v = i; v < i + UNROLLED * LANES; v += LANES)
            vst1q_f32(out + v, vmulq_f32(vld1q_f32(value + v), load4_f16(pixels + v)));
    gcpp_multiply_f16_scalar(value + i, pixels + i, out + i, count - i);
}

const gcpp_rows gcpp_rows_neon = {
    .isa = "neon",
    .cam = {{gcpp_cam_f32_f32_neon, gcpp_cam_f32_f16_neon}, {gcpp_cam_f16_f32_neon, gcpp_cam_f16_f16_neon}},
    .widen_f32 = gcpp_widen_f32_neon,
    .value_f32 = gcpp_value_f32_neon,
    .value_u8 = gcpp_value_u8_neon,
    .blend_u8 = gcpp_blend_u8_neon,
    .multiply_f32 = gcpp_multiply_f32_neon,
    .multiply_f16 = gcpp_multiply_f16_neon,
    .pixels_packed = gcpp_pixels_packed_u8_neon,
    .pixels_gray16 = gcpp_pixels_gray_u16_neon,
    .pixels_nv12 = gcpp_pixels_nv12_u8_neon,
    .finish_f32 = gcpp_finish_f32_neon,
    .finish_f16 = gcpp_finish_f16_neon,
};

#endif
