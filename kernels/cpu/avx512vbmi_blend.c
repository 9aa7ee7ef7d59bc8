/* Blending with AVX-512 VBMI: the palette stays in registers, and 64 pixels are looked up at once.
 *
 * A color is two bytes, in 8.8 fixed point. Its bytes come from tables of 256, by two permutations of 128 each; then
 * those of 64 pixels, blue, green and red apart, are brought into the order of the frame. Arithmetic is on 16-bit lanes,
 * even and odd bytes apart, and the same as everywhere: bits are those of the scalar code.
 */
#if defined(__x86_64__)
#define GCPP_AVX512_VBMI
#include "avx512.h"

#include "avx2_rows.h"
#include "avx512_rows.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))

static ALWAYS_INLINE __mmask64 first_of64(int32_t count)
{
    return count < 64 ? ((uint64_t)1 << count) - 1 : ~(uint64_t)0;
}

/* One byte of a color, by index. */
typedef struct {
    __m512i part[4];
} table256;

static inline __m512i load64(const uint8_t *bytes)
{
    return _mm512_loadu_si512((const void *)bytes);
}

static inline table256 load_table(const uint8_t bytes[256])
{
    return (table256){{load64(bytes), load64(bytes + 64), load64(bytes + 128), load64(bytes + 192)}};
}

static ALWAYS_INLINE __m512i look_up(const table256 *table, __m512i index)
{
    const __m512i below = _mm512_permutex2var_epi8(table->part[0], index, table->part[1]);
    const __m512i above = _mm512_permutex2var_epi8(table->part[2], index, table->part[3]);
    return _mm512_mask_blend_epi8(_mm512_movepi8_mask(index), below, above);
}

/* Where the bytes of an interleaved vector come from: pixel of the first two planes (64 and more: the second), and of
 * the third with the lanes that take it. */
typedef struct {
    uint8_t pair[64], third[64];
    uint64_t takes_third;
} order64;

#define FOUR(entry, byte) entry(byte), entry(byte + 1), entry(byte + 2), entry(byte + 3)
#define SIXTEEN(entry, byte) \
    FOUR(entry, byte), FOUR(entry, byte + 4), FOUR(entry, byte + 8), FOUR(entry, byte + 12)
#define ALL(entry, byte) \
    {SIXTEEN(entry, byte), SIXTEEN(entry, byte + 16), SIXTEEN(entry, byte + 32), SIXTEEN(entry, byte + 48)}
#define PAIR(byte) ((byte) % 3 == 1 ? 64 : 0) + (byte) / 3
#define THIRD(byte) (byte) / 3

/* Of the three vectors that 64 pixels fill. */
static const order64 orders[] = {{ALL(PAIR, 0), ALL(THIRD, 0), 0x4924924924924924u},
                                 {ALL(PAIR, 64), ALL(THIRD, 64), 0x2492492492492492u},
                                 {ALL(PAIR, 128), ALL(THIRD, 128), 0x9249249249249249u}};

static ALWAYS_INLINE __m512i interleave(const __m512i planes[3], const order64 *order)
{
    const __m512i pair = _mm512_permutex2var_epi8(planes[0], load64(order->pair), planes[1]);
    return _mm512_mask_permutexvar_epi8(pair, order->takes_third, load64(order->third), planes[2]);
}

/* Bytes where the mask says so, else those of the other: as one operation on bits. */
static ALWAYS_INLINE __m512i choose(__m512i mask, __m512i one, __m512i other)
{
    return _mm512_ternarylogic_epi32(mask, one, other, 0xca);
}

/* 64 bytes of the frame times `keep`, and their colors' low and high bytes: blended. */
static ALWAYS_INLINE __m512i blend64(__m512i frame, __m512i low, __m512i high, __m512i keep)
{
    const __m512i upper = _mm512_set1_epi16((short)0xff00);
    const __m512i even = _mm512_mulhi_epu16(_mm512_slli_epi16(frame, 8), keep);
    const __m512i odd = _mm512_mulhi_epu16(_mm512_and_si512(frame, upper), keep);
    const __m512i even_color = choose(upper, _mm512_slli_epi16(high, 8), low);
    const __m512i odd_color = choose(upper, high, _mm512_srli_epi16(low, 8));
    const __m512i even_byte = _mm512_srli_epi16(_mm512_add_epi16(even, even_color), 8);
    return choose(upper, _mm512_add_epi16(odd, odd_color), even_byte);
}

/* Up to 64 pixels. */
static ALWAYS_INLINE void blend_pixels64(const uint8_t *frame, const uint8_t *index, const table256 tables[3][2],
                                         __m512i keep, uint8_t *out, int32_t count)
{
    const __mmask64 pixels = first_of64(count);
    const __m512i indices = _mm512_maskz_loadu_epi8(pixels, index);
    __m512i low[3], high[3];
    for (int c = 0; c < 3; c++) {
        low[c] = look_up(&tables[c][0], indices);
        high[c] = look_up(&tables[c][1], indices);
    }
    for (int32_t part = 0; part < 3 && 64 * part < 3 * count; part++) {
        const __mmask64 bytes = first_of64(3 * count - 64 * part);
        const __m512i old = _mm512_maskz_loadu_epi8(bytes, frame + 64 * part);
        const __m512i blended = blend64(old, interleave(low, &orders[part]), interleave(high, &orders[part]), keep);
        _mm512_mask_storeu_epi8(out + 64 * part, bytes, blended);
    }
}

/* A color of three bytes; with a fourth, gathering colors as they are is no slower. */
void gcpp_blend_u8_avx512vbmi(const uint8_t *frame, int32_t channels, const uint8_t *index, const gcpp_color *colors,
                              int32_t keep, uint8_t *out, int32_t count)
{
    const gcpp_palette *const palette = (const gcpp_palette *)(const void *)colors; /* they are its first member */
    const __m512i keeps = _mm512_set1_epi16((short)(keep < 65535 ? keep : 65535)); /* rounded, the same as 65536 */
    table256 tables[3][2];
    int32_t i = 0;
    if (channels != 3) {
        gcpp_blend_u8_avx2(frame, channels, index, colors, keep, out, count);
        return;
    }
    for (int c = 0; c < 3; c++)
        for (int byte = 0; byte < 2; byte++)
            tables[c][byte] = load_table(palette->bytes[c][byte]);
    for (; i + 64 <= count; i += 64)
        blend_pixels64(frame + 3 * (ptrdiff_t)i, index + i, tables, keeps, out + 3 * (ptrdiff_t)i, 64);
    if (i < count)
        blend_pixels64(frame + 3 * (ptrdiff_t)i, index + i, tables, keeps, out + 3 * (ptrdiff_t)i, count - i);
}

GCPP_AVX512_END
#endif
