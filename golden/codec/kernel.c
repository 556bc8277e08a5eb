/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Encoders and decoders of specification sections 3 to 6, 10, 12 and 18 for runs of whole float32
 * groups, and of the formats of section 9 by tables. golden/codec/kernel.py compiles this file. The
 * results are, bit for bit, those of the definitions in golden/units/quantization_engine.py,
 * weight_encoder.py and decoder.py and in golden/formats. `compare_values` serves
 * golden/codec/blocked.py.
 *
 * Loops are written for the compiler to vectorize. Sizes are constants wherever they are
 * inlined: see DISPATCH at the end.
 */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

enum { INFINITE = 0x7F800000, SCALE_MAX = 254, SCALE_NAN = 255 };

INLINE uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

INLINE float float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Bits of the largest magnitude of a group. */
INLINE uint32_t largest_of(const float *x, int group)
{
    uint32_t largest = 0;
    for (int i = 0; i < group; i++) {
        uint32_t magnitude = bits_of(x[i]) & 0x7FFFFFFF;
        largest = magnitude > largest ? magnitude : largest;
    }
    return largest;
}

/* Scale code of a finite group. A rule is where the mantissa field moves the exponent: up from
 * `up` on, down below `down`. */
INLINE int scale_code(uint32_t largest, uint32_t up, uint32_t down)
{
    uint32_t mantissa = largest & 0x7FFFFF;
    int code = (int)(largest >> 23) - 2 + (mantissa >= up) - (mantissa < down);
    return code < 0 ? 0 : code > SCALE_MAX ? SCALE_MAX : code;
}

/* What magnitudes are multiplied by to be in units of a scale of at most 253, the largest of a
 * finite group: a power of two, so that only what is far below all decision points is rounded. */
INLINE float inverse(int scale)
{
    return float_of((uint32_t)(254 - scale) << 23);
}

/* E2M1 code of a magnitude in units of `step`, by the decision points; ties go to even codes.
 * The points' products with steps of at most 8 bits are exact. */
INLINE int32_t e2m1(float u, float step)
{
    return (u > 0.25f * step) + (u >= 0.75f * step) + (u > 1.25f * step) + (u >= 1.75f * step)
        + (u > 2.5f * step) + (u >= 3.5f * step) + (u > 5.0f * step);
}

/* Twice the value of that code. */
INLINE int32_t e2m1_halves(float u, float step)
{
    return (u > 0.25f * step) + (u >= 0.75f * step) + (u > 1.25f * step) + (u >= 1.75f * step)
        + 2 * ((u > 2.5f * step) + (u >= 3.5f * step)) + 4 * (u > 5.0f * step);
}

/* Twice the value of an E2M1 code with its sign: magnitudes 0, 1, 2, 3, 4, 6, 8, 12. */
INLINE float e2m1_doubled(uint8_t code)
{
    int32_t c = code & 7;
    float magnitude = (float)(c + (c > 4) + (c > 5) + 3 * (c > 6));
    return float_of(bits_of(magnitude) | (uint32_t)(code & 8) << 28);
}

/* E2M3 code of a magnitude. Its sum with a large power of two is rounded to a multiple of E2M3's
 * quantum in that binade, to nearest, ties to even: the sum's last place is that quantum. */
INLINE int32_t e2m3(float v)
{
    int32_t binade = (v >= 2) + (v >= 4);
    uint32_t large = (uint32_t)(147 + binade) << 23;
    int32_t code = (int32_t)(bits_of(v + float_of(large)) - large) + 8 * binade;
    return code < 31 ? code : 31;
}

INLINE uint8_t sign_of(float x)
{
    return bits_of(x) >> 28 & 8;
}

/* Elem-EM. If `metadata` is null, only elements and scales are written, which are MXFP4. */
INLINE void activations(const float *x, size_t groups, uint32_t up, uint32_t down,
                        uint8_t *elements, uint8_t *metadata, uint8_t *scales,
                        int group, int subgroup)
{
    int count = group / subgroup;
    for (size_t g = 0; g < groups; g++, x += group, elements += group) {
        uint32_t largest = largest_of(x, group);
        int bad = largest >= INFINITE;
        int scale = bad ? SCALE_NAN : scale_code(largest, up, down);
        scales[g] = (uint8_t)scale;
        if (bad) {
            memset(elements, 0, (size_t)group);
            if (metadata)
                memset(metadata + g * count, 0, (size_t)count);
            continue;
        }
        float factor = inverse(scale);
        if (!metadata) {
            for (int i = 0; i < group; i++)
                elements[i] = (uint8_t)(sign_of(x[i]) | e2m1(fabsf(x[i]) * factor, 1));
            continue;
        }
        /* The largest key of a subgroup is its top-1's: by code, then by lane, lowest first. Its
         * metadata come along. */
        int32_t keys[32];
        for (int i = 0; i < group; i++) {
            float v = fabsf(x[i]) * factor;
            int32_t code = e2m1(v, 1);
            int32_t meta = e2m3(v) + 1 - 4 * code;
            meta = meta < 0 ? 0 : meta > 3 ? 3 : meta;
            keys[i] = code << 7 | (31 - i % subgroup) << 2 | meta;
            elements[i] = (uint8_t)(sign_of(x[i]) | code);
        }
        for (int j = 0; j < count; j++) {
            int32_t top = 0;
            for (int i = 0; i < subgroup; i++) {
                int32_t key = keys[j * subgroup + i];
                top = key > top ? key : top;
            }
            metadata[g * count + j] = top & 3;
        }
    }
}

/* Elements that are worked on at a time: all intermediate results fit the innermost cache. */
enum { RUN = 512 };

/* Adds to each subgroup's excess that of a step: the squared error less the sum of u**2, as in
 * golden/units/weight_encoder.py. Exact. */
INLINE void add_excess(const float *u, int all, int subgroup, float step, double *excess)
{
    for (int i = 0; i < subgroup; i++)
        for (int n = 0; n < all; n++) {
            float magnitude = u[i * all + n];
            double q = e2m1_halves(magnitude, step) * (step / 2);
            excess[n] += q * (q - 2 * (double)magnitude);
        }
}

/* a - b * c, where that is exact, so that it does not matter whether it is rounded once or twice. */
INLINE float minus_product(float a, float b, float c)
{
#ifdef __FMA__
    return __builtin_fmaf(-b, c, a);
#else
    return a - b * c;
#endif
}

/* The same in float, for values of bfloat16 in subgroups of at most 8. The nearest code is the one of
 * the least excess, so no code is looked for. A magnitude whose q is not 0 is at least step / 4 and
 * has 8 significant bits: in units of 2**b, the power of two in `step`, it is a multiple of 2**-9 and
 * below 2**5, and q is a multiple of 2**-3 and at most 10.5. An excess is then a multiple of 2**-11,
 * the least is above -2**9.2, and sums of eight fit in 24 bits. Below step / 4 an excess may be
 * rounded, but not below 0. */
INLINE void add_excess_narrow(const float *u, int all, int subgroup, float step, float *excess)
{
    const float magnitudes[7] = {0.5f, 1, 1.5f, 2, 3, 4, 6};
    for (int i = 0; i < subgroup; i++)
        for (int n = 0; n < all; n++) {
            float magnitude = u[i * all + n], least = 0;
            for (int j = 0; j < 7; j++) {
                float q = magnitudes[j] * step;
                float tried = minus_product(q * q, 2 * q, magnitude);
                least = tried < least ? tried : least;
            }
            excess[n] += least;
        }
}

/* Encodes at most RUN elements in Sg-EM. */
INLINE void weights_run(const float *x, int groups, uint32_t up, uint32_t down, int adaptive,
                        uint8_t *elements, uint8_t *metadata, uint8_t *scales,
                        int group, int subgroup)
{
    enum { SUBGROUPS = RUN / 4, GROUPS = RUN / 16 };
    int count = group / subgroup;
    /* Subgroups side by side, so that all of them sum up at once: element i of subgroup n is
     * u[i * all + n]. */
    int all = RUN / subgroup;
    float u[RUN], steps[SUBGROUPS];
    int starts[GROUPS];
    double best[SUBGROUPS], total[GROUPS];
    float best_step[SUBGROUPS];
    int32_t best_factor[SUBGROUPS];

    uint32_t all_bits = 0;
    for (int i = 0; i < groups * group; i++)
        all_bits |= bits_of(x[i]);
    int narrow = subgroup <= 8 && !(all_bits & 0xFFFF);

    memset(u, 0, sizeof u);
    for (int g = 0; g < groups; g++) {
        uint32_t largest = largest_of(x + g * group, group);
        starts[g] = largest >= INFINITE ? SCALE_NAN : scale_code(largest, up, down);
        if (starts[g] == SCALE_NAN)
            continue;
        float factor = inverse(starts[g]);
        for (int j = 0; j < count; j++)
            for (int i = 0; i < subgroup; i++)
                u[i * all + g * count + j] = fabsf(x[(g * count + j) * subgroup + i]) * factor;
    }

    for (int g = 0; g < groups; g++)
        total[g] = INFINITY;
    for (int bias = adaptive ? -1 : 0; bias <= (adaptive ? 1 : 0); bias++) {
        for (int n = 0; n < all; n++)
            best[n] = INFINITY;
        for (int k = 0; k < 4; k++) {
            float step = (float)(4 + k) / 4 * (bias < 0 ? 0.5f : (float)(1 << bias));
            double excess[SUBGROUPS] = {0};
            if (narrow) {
                float sums[SUBGROUPS] = {0};
                add_excess_narrow(u, all, subgroup, step, sums);
                for (int n = 0; n < all; n++)
                    excess[n] = sums[n];
            } else {
                add_excess(u, all, subgroup, step, excess);
            }
            for (int n = 0; n < all; n++) {
                int better = excess[n] < best[n];
                best[n] = better ? excess[n] : best[n];
                best_factor[n] = better ? k : best_factor[n];
                best_step[n] = better ? step : best_step[n];
            }
        }
        for (int g = 0; g < groups; g++) {
            double sum = 0;
            for (int j = 0; j < count; j++)
                sum += best[g * count + j];
            if (starts[g] == SCALE_NAN || starts[g] + bias < 0 || starts[g] + bias > SCALE_MAX
                || !(sum < total[g]))
                continue;
            total[g] = sum;
            scales[g] = (uint8_t)(starts[g] + bias);
            for (int j = 0; j < count; j++) {
                steps[g * count + j] = best_step[g * count + j];
                metadata[g * count + j] = (uint8_t)best_factor[g * count + j];
            }
        }
    }

    for (int g = 0; g < groups; g++) {
        if (starts[g] == SCALE_NAN) {
            scales[g] = SCALE_NAN;
            memset(metadata + g * count, 0, (size_t)count);
            memset(elements + g * group, 0, (size_t)group);
            continue;
        }
        /* One step per element, so that the loop over elements is a flat one. */
        float factor = inverse(starts[g]), spread[32];
        for (int j = 0; j < count; j++)
            for (int i = 0; i < subgroup; i++)
                spread[j * subgroup + i] = steps[g * count + j];
        const float *values = x + g * group;
        for (int i = 0; i < group; i++)
            elements[g * group + i] =
                (uint8_t)(sign_of(values[i]) | e2m1(fabsf(values[i]) * factor, spread[i]));
    }
}

INLINE void weights(const float *x, size_t groups, uint32_t up, uint32_t down, int adaptive,
                    uint8_t *elements, uint8_t *metadata, uint8_t *scales,
                    int group, int subgroup)
{
    size_t step = (size_t)(RUN / group), count = (size_t)(group / subgroup);
    for (size_t g = 0; g < groups; g += step) {
        int some = (int)(groups - g < step ? groups - g : step);
        weights_run(x + g * (size_t)group, some, up, down, adaptive, elements + g * (size_t)group,
                    metadata + g * count, scales + g, group, subgroup);
    }
}

/* The lowest and the highest E8M0 code of a scale in Sg-special. */
enum { SPECIAL_LOW = 96, SPECIAL_HIGH = 159 };

/* Groups of 64 are those of Sg-special64: it has eight factors in place of four, which go twice as
 * high, and scales that are one lower. */
INLINE int is_wide(int group)
{
    return group == 64;
}

/* The factor of metadata: 1 to 1.75, then 2 to 3.5. */
INLINE float factor_of_metadata(int k)
{
    return (float)(4 + (k & 3)) / 4 * (float)(1 + (k >> 2));
}

/* E8M0 code of a group: floor, or one lower where the mantissa is below `limit`; `lower` more. */
INLINE int special_scale(uint32_t largest, uint32_t limit, int lower)
{
    int code = (int)(largest >> 23) - 2 - lower - ((largest & 0x7FFFFF) < limit);
    return code < SPECIAL_LOW ? SPECIAL_LOW : code > SPECIAL_HIGH ? SPECIAL_HIGH : code;
}

/* Whether a special value of 5 or 8 is nearer than other codes. */
INLINE int takes_special(float u, float step, int magnitude)
{
    return magnitude == 8 ? u > 7 * step : (u > 4.5f * step) & (u < 5.5f * step);
}

INLINE float at_most(float most, float u)
{
    return u < most ? u : most;
}

/* Adds to subgroups' excess without special values, and to its change by them: in total, and by
 * those below zero. */
INLINE void add_special(const float *restrict u, const float *restrict negative, int all,
                        int subgroup, int magnitude, float step, double *restrict excess,
                        double *restrict gain, double *restrict below)
{
    float value = (float)magnitude * step;
    for (int i = 0; i < subgroup; i++)
        for (int n = 0; n < all; n++) {
            float v = u[i * all + n];
            float q = (float)e2m1_halves(v, step) * (step / 2);
            float taken = takes_special(v, step, magnitude) ? value : q;
            double plain = q * (q - 2 * (double)v);
            double less = taken * (taken - 2 * (double)v) - plain;
            excess[n] += plain;
            gain[n] += less;
            below[n] += less * (double)negative[i * all + n];
        }
}

/* Encodes at most RUN elements in Sg-special or Sg-special64. */
INLINE void special_run(const float *x, int groups, int adaptive, uint8_t *elements,
                        uint8_t *metadata, uint8_t *scales, int group, int subgroup)
{
    enum { SUBGROUPS = RUN / 4, GROUPS = RUN / 16 };
    int count = group / subgroup, lower = is_wide(group), factors = is_wide(group) ? 8 : 4;
    /* Magnitudes over the scale count as at most this. */
    float most = is_wide(group) ? 32 : 16;
    /* Subgroups side by side, as in weights_run; codes and steps are those that are tried. */
    int all = RUN / subgroup;
    float u[RUN], steps[SUBGROUPS], step_of[2][SUBGROUPS];
    uint32_t largest[GROUPS];
    int lowest[GROUPS], codes[GROUPS];
    double total[GROUPS], best[2][SUBGROUPS];
    int32_t factor_of[2][SUBGROUPS];
    /* 1 where the element is negative. */
    float negative[RUN];

    memset(u, 0, sizeof u);
    memset(negative, 0, sizeof negative);
    for (int g = 0; g < groups; g++) {
        largest[g] = largest_of(x + g * group, group);
        lowest[g] = special_scale(largest[g], 0x800000, lower);
        total[g] = INFINITY;
        for (int j = g * count; j < (g + 1) * count; j++)
            for (int i = 0; i < subgroup; i++)
                negative[i * all + j] = (float)(bits_of(x[j * subgroup + i]) >> 31);
    }

    for (int large = 0; large < 2; large++)
        for (int scale = 0; scale < (adaptive ? 2 : 1); scale++) {
            uint32_t limit = large ? 0x700000 : 0x300000;
            if (adaptive)
                limit = scale ? 0 : 0x800000;
            for (int g = 0; g < groups; g++) {
                if (largest[g] >= INFINITE)
                    continue;
                codes[g] = special_scale(largest[g], limit, lower);
                float factor = inverse(codes[g]);
                for (int j = g * count; j < (g + 1) * count; j++)
                    for (int i = 0; i < subgroup; i++)
                        u[i * all + j] = at_most(most, fabsf(x[j * subgroup + i]) * factor);
            }
            for (int sign = 0; sign < 2; sign++)
                for (int n = 0; n < all; n++)
                    best[sign][n] = INFINITY;
            for (int k = 0; k < factors; k++) {
                float step = factor_of_metadata(k);
                double excess[SUBGROUPS] = {0}, gain[SUBGROUPS] = {0}, below[SUBGROUPS] = {0};
                /* With a constant magnitude: three times as fast. */
                if (large)
                    add_special(u, negative, all, subgroup, 8, step, excess, gain, below);
                else
                    add_special(u, negative, all, subgroup, 5, step, excess, gain, below);
                for (int sign = 0; sign < 2; sign++)
                    for (int n = 0; n < all; n++) {
                        double tried = excess[n] + (sign ? below[n] : gain[n] - below[n]);
                        int better = tried < best[sign][n];
                        best[sign][n] = better ? tried : best[sign][n];
                        factor_of[sign][n] = better ? k : factor_of[sign][n];
                        step_of[sign][n] = better ? step : step_of[sign][n];
                    }
            }
            for (int sign = 0; sign < 2; sign++)
                for (int g = 0; g < groups; g++) {
                    if (largest[g] >= INFINITE)
                        continue;
                    double sum = 0;
                    for (int j = g * count; j < (g + 1) * count; j++)
                        sum += best[sign][j];
                    sum *= codes[g] > lowest[g] ? 4 : 1;
                    int byte = (codes[g] - SPECIAL_LOW) << 2 | large << 1 | sign;
                    if (!(sum < total[g]) || byte == SCALE_NAN)
                        continue;
                    total[g] = sum;
                    scales[g] = (uint8_t)byte;
                    for (int j = g * count; j < (g + 1) * count; j++) {
                        steps[j] = step_of[sign][j];
                        metadata[j] = (uint8_t)factor_of[sign][j];
                    }
                }
        }

    for (int g = 0; g < groups; g++) {
        if (largest[g] >= INFINITE) {
            scales[g] = SCALE_NAN;
            memset(metadata + g * count, 0, (size_t)count);
            memset(elements + g * group, 0, (size_t)group);
            continue;
        }
        float factor = inverse(SPECIAL_LOW + (scales[g] >> 2));
        int magnitude = scales[g] & 2 ? 8 : 5;
        uint8_t special = scales[g] & 1 ? 8 : 0;
        for (int j = g * count; j < (g + 1) * count; j++)
            for (int i = j * subgroup; i < (j + 1) * subgroup; i++) {
                float v = at_most(most, fabsf(x[i]) * factor);
                int code = e2m1(v, steps[j]);
                int taken = takes_special(v, steps[j], magnitude) & (sign_of(x[i]) == special);
                elements[i] = (uint8_t)(taken ? 8 : code ? code | sign_of(x[i]) : 0);
            }
    }
}

INLINE void special(const float *x, size_t groups, int adaptive, uint8_t *elements,
                    uint8_t *metadata, uint8_t *scales, int group, int subgroup)
{
    size_t step = (size_t)(RUN / group), count = (size_t)(group / subgroup);
    for (size_t g = 0; g < groups; g += step) {
        int some = (int)(groups - g < step ? groups - g : step);
        special_run(x + g * (size_t)group, some, adaptive, elements + g * (size_t)group,
                    metadata + g * count, scales + g, group, subgroup);
    }
}

/* The encodings that groups are decoded by, numbered as in golden/codec/blocked.py. */
enum { ELEM_EM, SG_EM, SG_SPECIAL, SG_SPECIAL64 };

/* Decodes groups to float32 values. */
INLINE void decode(int encoding, const uint8_t *elements, const uint8_t *metadata,
                   const uint8_t *scales, size_t groups, float *values, int group, int subgroup)
{
    int count = group / subgroup;
    for (size_t g = 0; g < groups; g++, elements += group, metadata += count, values += group) {
        if (scales[g] == SCALE_NAN) {
            for (int i = 0; i < group; i++)
                values[i] = float_of(0x7FC00000);
            continue;
        }
        int has_special = encoding == SG_SPECIAL || encoding == SG_SPECIAL64;
        int code_of_scale = has_special ? SPECIAL_LOW + (scales[g] >> 2) : scales[g];
        /* Of scale 0, 2**-127, a subnormal. Products are multiples of 2**-130, so exact. */
        float scale = float_of(code_of_scale ? (uint32_t)code_of_scale << 23 : 0x400000);
        for (int i = 0; i < group; i++)
            values[i] = e2m1_doubled(elements[i]);
        if (has_special) {
            float doubled = (scales[g] & 2 ? 16.0f : 10.0f) * (scales[g] & 1 ? -1.0f : 1.0f);
            for (int i = 0; i < group; i++)
                values[i] = elements[i] == 8 ? doubled : values[i];
        }
        for (int j = 0; j < count; j++) {
            const uint8_t *codes = elements + j * subgroup;
            float *out = values + j * subgroup;
            /* Doubled values are halved, not their factor: half of it may be no float. */
            float factor = encoding == ELEM_EM ? scale
                : scale * factor_of_metadata(metadata[j] & (encoding == SG_SPECIAL64 ? 7 : 3));
            for (int i = 0; i < subgroup; i++)
                out[i] = 0.5f * out[i] * factor;
            if (encoding != ELEM_EM)
                continue;
            int top = 0;
            for (int i = 0; i < subgroup; i++) {
                int key = (codes[i] & 7) << 5 | (31 - i);
                top = key > top ? key : top;
            }
            int lane = 31 - (top & 31), code = 4 * (top >> 5) + (metadata[j] & 3);
            code = code ? code - 1 : 0;
            int eighths = code < 8 ? code : (8 + (code & 7)) << ((code >> 3) - 1);
            out[lane] = copysignf((float)eighths / 8, codes[lane] < 8 ? 1.0f : -1.0f) * scale;
        }
    }
}

/* Other formats: elements of a table-driven kind under a power of two, or under a floating-point
 * scale and a tensor scale. golden/formats/compiled.py fills these structures. */

/* An element in units of its scale: the quantum is 2**-mantissa in the lowest binade, whose
 * exponent field is `low`, and doubles with each binade up to `high`. */
struct element {
    int mantissa;
    uint32_t low, high;
    int32_t largest;
    /* Place of the sign bit, or 8 for two's complement of 8 bits. */
    int sign;
};

/* Metadata: none; a bit by which both elements of a pair lie under half the scale; or the index of
 * the largest element, whose exponent is then implied. */
enum { NO_METADATA, PAIRS, INDEX };

/* Code of a magnitude without sign, by the sum of e2m3(). */
INLINE int32_t magnitude_code(float u, int mantissa, uint32_t low, uint32_t high, int32_t largest)
{
    uint32_t binade = bits_of(u) & INFINITE;
    binade = binade < low ? low : binade > high ? high : binade;
    uint32_t large = binade + ((uint32_t)(23 - mantissa) << 23);
    int32_t code = (int32_t)(bits_of(u + float_of(large)) - large)
        + (int32_t)((binade - low) >> (23 - mantissa));
    return code < largest ? code : largest;
}

INLINE void scaled_group(const float *x, struct element e, int emax, uint32_t up, uint32_t down,
                         int kind, uint8_t *elements, uint8_t *metadata, uint8_t *scale, int group)
{
    uint32_t largest = largest_of(x, group);
    int count = kind == PAIRS ? group / 2 : kind == INDEX;
    if (largest >= INFINITE) {
        *scale = SCALE_NAN;
        memset(elements, 0, (size_t)group);
        if (count)
            memset(metadata, 0, (size_t)count);
        return;
    }
    uint32_t mantissa = largest & 0x7FFFFF;
    int code = (int)(largest >> 23) - emax + (mantissa >= up) - (mantissa < down);
    code = code < 0 || largest < 0x800000 ? 0 : code > SCALE_MAX ? SCALE_MAX : code;
    *scale = (uint8_t)code;
    /* 2**-127, a subnormal, has another pattern. */
    float factor = code == SCALE_MAX ? float_of(0x400000) : inverse(code);
    float u[64];
    for (int i = 0; i < group; i++)
        u[i] = fabsf(x[i]) * factor;
    if (kind == PAIRS)
        for (int j = 0; j < group / 2; j++) {
            int lower = (u[2 * j] < 1) & (u[2 * j + 1] < 1);
            metadata[j] = (uint8_t)lower;
            u[2 * j] *= (float)(1 + lower);
            u[2 * j + 1] *= (float)(1 + lower);
        }
    if (e.sign == 8)
        for (int i = 0; i < group; i++) {
            int32_t c = magnitude_code(u[i], e.mantissa, e.low, e.high, e.largest);
            elements[i] = (uint8_t)(bits_of(x[i]) >> 31 ? -c : c);
        }
    else
        for (int i = 0; i < group; i++)
            elements[i] = (uint8_t)(magnitude_code(u[i], e.mantissa, e.low, e.high, e.largest)
                                    | (int32_t)(bits_of(x[i]) >> 31 << e.sign));
    if (kind == INDEX) {
        int lane = 0;
        while (lane < group && (bits_of(x[lane]) & 0x7FFFFFFF) != largest)
            lane++;
        metadata[0] = (uint8_t)(u[lane] >= 4 ? lane : group);
        if (u[lane] >= 4) {
            /* Halves above 4: 0 to 7. */
            int32_t c = magnitude_code(u[lane] - 4, 1, 127u << 23, 127u << 23, 7);
            elements[lane] = (uint8_t)(c | sign_of(x[lane]));
        }
    }
}

void encode_scaled(const float *x, size_t groups, int group, const struct element *element,
                   int emax, uint32_t up, uint32_t down, int kind, uint8_t *elements,
                   uint8_t *metadata, uint8_t *scales)
{
    struct element e = *element;
    for (size_t g = 0; g < groups; g++, x += group, elements += group) {
        if (kind == PAIRS)
            scaled_group(x, e, emax, up, down, PAIRS, elements, metadata + g * 8, scales + g, 16);
        else if (kind == INDEX)
            scaled_group(x, e, emax, up, down, INDEX, elements, metadata + g, scales + g, 32);
        else
            scaled_group(x, e, emax, up, down, NO_METADATA, elements, metadata, scales + g, 32);
    }
}

/* Decodes elements under powers of two. `values` and `factors` are those of all codes. Elements
 * that are minifloats with `shift` bits of a float32's mantissa below their own (0 if they are not)
 * are put together in place of being looked up; `unit` undoes the bias of their exponents. */
void decode_scaled(const uint8_t *elements, const uint8_t *metadata, const uint8_t *scales,
                   size_t groups, int group, int kind, const float *values, const float *factors,
                   int shift, int last, float unit, int sign, float *out)
{
    for (size_t g = 0; g < groups; g++, elements += group, out += group) {
        float factor = factors[scales[g]];
        if (scales[g] == SCALE_NAN) {
            for (int i = 0; i < group; i++)
                out[i] = float_of(0x7FC00000);
            continue;
        }
        if (kind == PAIRS) {
            const uint8_t *lower = metadata + g * 8;
            for (int i = 0; i < 16; i++)
                out[i] = values[elements[i]] * (lower[i / 2] ? 0.5f : 1.0f) * factor;
            continue;
        }
        int largest = 0, mask = (1 << sign) - 1;
        for (int i = 0; i < 32; i++) {
            int code = elements[i] & mask;
            largest = code > largest ? code : largest;
        }
        if (shift && largest <= last)
            for (int i = 0; i < 32; i++) {
                uint32_t code = elements[i];
                uint32_t bits = (code & (uint32_t)mask) << shift | (code >> sign & 1) << 31;
                out[i] = float_of(bits) * unit * factor;
            }
        else
            for (int i = 0; i < 32; i++)
                out[i] = values[elements[i]] * factor;
        if (kind == INDEX && metadata[g] < 32) {
            uint8_t code = elements[metadata[g]];
            float value = 4 + (float)(code & 7) / 2;
            out[metadata[g]] = (code & 8 ? -value : value) * factor;
        }
    }
}

/* Largest magnitude that is finite, as bits. */
uint32_t largest_finite(const float *x, size_t count)
{
    uint32_t largest = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t magnitude = bits_of(x[i]) & 0x7FFFFFFF;
        magnitude = magnitude < INFINITE ? magnitude : 0;
        largest = magnitude > largest ? magnitude : largest;
    }
    return largest;
}

/* A way to encode a group of 16 under a floating-point scale. */
struct choice {
    /* The scale has the group's largest magnitude at `top`, and a code higher by `bias`. */
    double top;
    int bias;
    /* Magnitudes are encoded that are `numerator` / `denominator` times as large. */
    double numerator, denominator;
    /* Between codes i and i + 1 lies points[i], and the value rises by rises[i]. */
    double points[7], rises[7];
    /* Code 8 is this value from `low` to `high`, of one sign, if it is not 0. */
    double special, low, high;
    int negative;
    /* The sign is a bit, or that of two's complement. */
    int complement;
    /* What is added to the scale's code. */
    int selector;
};

/* A scale with three bits of mantissa, whose values are multiples of `unit`. */
struct scale {
    int bias, last, least, nan;
    double unit;
    const double *values;
};

enum { CHOICES = 9 };

INLINE uint64_t wide_bits_of(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

INLINE double double_of(uint64_t bits)
{
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Code of a scale, by the sum of e2m3(). */
INLINE int64_t float_scale_code(double v, struct scale scale)
{
    uint64_t low = (uint64_t)(1024 - scale.bias) << 52;
    uint64_t binade = wide_bits_of(v) & 0x7FF0000000000000;
    binade = binade < low ? low : binade;
    uint64_t large = binade + ((uint64_t)49 << 52);
    int64_t code = (int64_t)(wide_bits_of(v + double_of(large)) - large)
        + (int64_t)((binade - low) >> 49);
    return code < scale.last ? code : scale.last;
}

/* Encodes groups of 16 by the choice of the least squared error; ties go to the first one. Where
 * rounding could hide which one that is, `undecided` is 1 and the caller decides. `t` is the tensor
 * scale; errors are counted in units of `t` / `unit`. */
void encode_float_scaled(const float *x, size_t groups, double t, double unit,
                         const struct scale *scale_format, const struct choice *choices, int count,
                         uint8_t *elements, uint8_t *scales, uint8_t *undecided)
{
    struct scale format = *scale_format;
    for (size_t g = 0; g < groups; g++, x += 16, elements += 16) {
        uint32_t largest = largest_of(x, 16);
        undecided[g] = 0;
        if (largest >= INFINITE) {
            scales[g] = (uint8_t)format.nan;
            memset(elements, 0, 16);
            continue;
        }
        double v[16], top = float_of(largest);
        double values[CHOICES][16], excess[CHOICES], slack[CHOICES];
        uint8_t codes[CHOICES][16];
        int64_t code_of[CHOICES];
        for (int i = 0; i < 16; i++)
            v[i] = fabsf(x[i]);
        for (int c = 0; c < count; c++) {
            const struct choice *choice = &choices[c];
            int64_t code = float_scale_code(top / (choice->top * t), format) + choice->bias;
            code = code < 0 ? 0 : code > format.last ? format.last : code;
            if (largest)
                code = code < format.least ? format.least : code;
            code_of[c] = code;
            excess[c] = slack[c] = 0;
            if (!code) {
                memset(codes[c], 0, 16);
                memset(values[c], 0, sizeof values[c]);
                continue;
            }
            /* Products of a scale, a tensor scale and a point are exact. */
            double step = format.values[code] * t, points[7];
            for (int p = 0; p < 7; p++)
                points[p] = choice->points[p] * (choice->denominator * step);
            double q[16] = {0};
            int64_t n[16] = {0};
            for (int p = 0; p < 7; p++) {
                double point = points[p], rise = choice->rises[p];
                /* A tie goes to the even one of two codes. */
                if (p & 1)
                    for (int i = 0; i < 16; i++) {
                        int above = v[i] * choice->numerator >= point;
                        q[i] += above ? rise : 0;
                        n[i] += above;
                    }
                else
                    for (int i = 0; i < 16; i++) {
                        int above = v[i] * choice->numerator > point;
                        q[i] += above ? rise : 0;
                        n[i] += above;
                    }
            }
            if (choice->complement)
                for (int i = 0; i < 16; i++)
                    codes[c][i] = (uint8_t)((bits_of(x[i]) >> 31 ? -n[i] : n[i]) & 15);
            else
                for (int i = 0; i < 16; i++)
                    codes[c][i] = (uint8_t)(n[i] | sign_of(x[i]));
            if (choice->special != 0) {
                double low = choice->low * step, high = choice->high * step;
                for (int i = 0; i < 16; i++) {
                    int taken = (v[i] >= low) & (v[i] <= high)
                        & ((int)(bits_of(x[i]) >> 31) == choice->negative);
                    q[i] = taken ? choice->special : q[i];
                    codes[c][i] = taken ? 8 : codes[c][i] & 7 ? codes[c][i] : 0;
                }
            }
            if (count == 1)
                continue;
            double factor = format.values[code] / format.unit, sum = 0, bound = 0;
            for (int i = 0; i < 16; i++) {
                values[c][i] = q[i] * factor;
                double a = values[c][i] * t, b = 2 * unit * v[i];
                sum += values[c][i] * (a - b);
                bound += values[c][i] * (a + b);
            }
            excess[c] = sum;
            slack[c] = bound * 0x1p-45;
        }
        int best = 0;
        double least = excess[0] + slack[0];
        for (int c = 1; c < count; c++) {
            best = excess[c] < excess[best] ? c : best;
            least = excess[c] + slack[c] < least ? excess[c] + slack[c] : least;
        }
        for (int c = 0; c < count; c++)
            if (c != best && excess[c] - slack[c] <= least)
                for (int i = 0; i < 16; i++)
                    undecided[g] |= values[c][i] != values[best][i];
        scales[g] = (uint8_t)(code_of[best] | choices[best].selector);
        memcpy(elements, codes[best], 16);
    }
}

/* Decodes groups of 16. By scale byte, `factors` has the value of the scale, times the tensor
 * scale, and `selected` which of the tables of 16 values and which divisor its group has. */
void decode_float_scaled(const uint8_t *elements, const uint8_t *scales, size_t groups,
                         const double *factors, const uint8_t *selected, const double *tables,
                         const double *divisors, float *out)
{
    for (size_t g = 0; g < groups; g++, elements += 16, out += 16) {
        double factor = factors[scales[g]];
        const double *table = tables + 16 * selected[scales[g]];
        double divisor = divisors[selected[scales[g]]];
        if (isnan(factor))
            for (int i = 0; i < 16; i++)
                out[i] = float_of(0x7FC00000);
        else if (divisor != 1)
            for (int i = 0; i < 16; i++)
                out[i] = (float)(table[elements[i] & 15] * factor / divisor);
        else
            for (int i = 0; i < 16; i++)
                out[i] = (float)(table[elements[i] & 15] * factor);
    }
}

#define DISPATCH(function, ...) \
    switch (group << 8 | subgroup) { \
    case 16 << 8 | 4: function(__VA_ARGS__, 16, 4); break; \
    case 16 << 8 | 8: function(__VA_ARGS__, 16, 8); break; \
    case 16 << 8 | 16: function(__VA_ARGS__, 16, 16); break; \
    case 32 << 8 | 4: function(__VA_ARGS__, 32, 4); break; \
    case 32 << 8 | 8: function(__VA_ARGS__, 32, 8); break; \
    case 32 << 8 | 16: function(__VA_ARGS__, 32, 16); break; \
    case 32 << 8 | 32: function(__VA_ARGS__, 32, 32); break; \
    }

void encode_activations(const float *x, size_t groups, int group, int subgroup, uint32_t up,
                        uint32_t down, uint8_t *elements, uint8_t *metadata, uint8_t *scales)
{
    DISPATCH(activations, x, groups, up, down, elements, metadata, scales)
}

void encode_weights(const float *x, size_t groups, int group, int subgroup, uint32_t up,
                    uint32_t down, int adaptive, uint8_t *elements, uint8_t *metadata,
                    uint8_t *scales)
{
    DISPATCH(weights, x, groups, up, down, adaptive, elements, metadata, scales)
}

void encode_special(const float *x, size_t groups, int group, int subgroup, int adaptive,
                    uint8_t *elements, uint8_t *metadata, uint8_t *scales)
{
    if (is_wide(group))
        special(x, groups, adaptive, elements, metadata, scales, 64, 8);
    else
        DISPATCH(special, x, groups, adaptive, elements, metadata, scales)
}

void decode_groups(int encoding, const uint8_t *elements, const uint8_t *metadata,
                   const uint8_t *scales, size_t groups, int group, int subgroup, float *values)
{
    if (encoding == ELEM_EM)
        DISPATCH(decode, ELEM_EM, elements, metadata, scales, groups, values)
    else if (encoding == SG_EM)
        DISPATCH(decode, SG_EM, elements, metadata, scales, groups, values)
    else if (encoding == SG_SPECIAL64)
        decode(SG_SPECIAL64, elements, metadata, scales, groups, values, 64, 8);
    else
        DISPATCH(decode, SG_SPECIAL, elements, metadata, scales, groups, values)
}

/* Sums side by side, as the compiler may not reorder one. */
enum { LANES = 16 };

INLINE void compare_lanes(const float *restrict a, const float *restrict b, double *errors,
                          double *squares, uint32_t *different)
{
    for (int i = 0; i < LANES; i++) {
        uint32_t p = bits_of(a[i]), q = bits_of(b[i]);
        uint32_t both_nan = ((p & 0x7FFFFFFF) > INFINITE) & ((q & 0x7FFFFFFF) > INFINITE);
        uint32_t differ = (p != q) & !both_nan;
        different[i] += differ;
        /* Bits of +0 in place of what does not count. */
        double x = float_of(p & -differ), y = float_of(q & -differ);
        double value = float_of(p & -(uint32_t)((p & 0x7FFFFFFF) < INFINITE));
        errors[i] += (y - x) * (y - x);
        squares[i] += value * value;
    }
}

/* Compares values `a` with what they became, `b`: sums[0] is the sum of the squared differences and
 * sums[1] that of the squares of all finite a. Returns how many differ in a bit. NaN differs from
 * NaN in nothing. */
size_t compare_values(const float *a, const float *b, size_t n, double *sums)
{
    double errors[LANES] = {0}, squares[LANES] = {0};
    uint32_t different[LANES] = {0};
    float x[LANES] = {0}, y[LANES] = {0};
    size_t count = 0, whole = n - n % LANES;
    for (size_t start = 0; start < whole; start += LANES)
        compare_lanes(a + start, b + start, errors, squares, different);
    memcpy(x, a + whole, (n - whole) * sizeof *a);
    memcpy(y, b + whole, (n - whole) * sizeof *b);
    compare_lanes(x, y, errors, squares, different);
    sums[0] = sums[1] = 0;
    for (int i = 0; i < LANES; i++) {
        sums[0] += errors[i];
        sums[1] += squares[i];
        count += different[i];
    }
    return count;
}
