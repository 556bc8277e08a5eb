# SPDX-License-Identifier: BSD-2-Clause
"""Slow, exact references, written from the specification alone and sharing nothing with `golden`.

One group at a time, in Python integers and fractions. Magnitudes are integers in units of 2**-160,
of which every float32, every scale and every decoded value is a multiple.
"""

import math
from fractions import Fraction
from functools import cache

import ml_dtypes
import numpy as np

NAN = 0x7FC00000
UNIT = 2**160
E2M1_HALVES = [0, 1, 2, 3, 4, 6, 8, 12]
E2M3_EIGHTHS = [m if e == 0 else (8 + m) * 2 ** (e - 1) for e in range(4) for m in range(8)]


def units(x):
    """Magnitude of a Python float in units of 2**-160, exact for every float32."""
    numerator, denominator = abs(x).as_integer_ratio()
    assert UNIT % denominator == 0
    return numerator * (UNIT // denominator)


def scale_units(scale):
    """2**(X - 127) in units of 2**-160."""
    return 2 ** (33 + scale)


def nearest(magnitude, values, step):
    """Code c whose value ``values[c] * step`` is nearest to ``magnitude``; of two, the even one."""
    return min(range(len(values)), key=lambda c: (abs(magnitude - values[c] * step), c % 2))


def scale_code(group, rule="floor"):
    """E8M0 code of a finite group (sections 3 and 5)."""
    amax = max(map(units, group))
    if amax == 0:
        return 0
    e = amax.bit_length() - 1
    m = Fraction(amax, 2**e)
    d = {"floor": 0, "ceil": int(m > Fraction(3, 2)), "rtn1": -int(m**2 < Fraction(9, 8)),
         "rtn2": int(m**2 >= 2)}[rule]
    return min(max(e - 160 - 2 + d + 127, 0), 254)


def _signs(group):
    return [8 if math.copysign(1, x) < 0 else 0 for x in group]


def _cut(values, size):
    return [values[i:i + size] for i in range(0, len(values), size)]


def encode_activations(group, *, subgroup=8, rule="floor"):
    """Elements, metadata and scale of a group of Python floats (sections 3, 5 and 6)."""
    if not all(map(math.isfinite, group)):
        return [0] * len(group), [0] * (len(group) // subgroup), 255
    scale = scale_code(group, rule)
    codes = [nearest(2 * units(x), E2M1_HALVES, scale_units(scale)) for x in group]
    metadata = []
    for part, part_codes in zip(_cut(group, subgroup), _cut(codes, subgroup), strict=True):
        c = max(part_codes)
        f = nearest(8 * units(part[part_codes.index(c)]), E2M3_EIGHTHS, scale_units(scale))
        metadata.append(min(max(f + 1, 4 * c), 4 * c + 3) - 4 * c)
    return [s + c for s, c in zip(_signs(group), codes, strict=True)], metadata, scale


# Of codes without sign and NaN, in units of 2**-9.
E4M3_UNITS = [int(512 * value) for value in
              np.arange(127, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(float)]


def encode_nvfp4(group, tensor_scale):
    """Elements and scale of a group of NVFP4, of Python floats (`golden.units.nvfp4_quantizer`)."""
    if not (all(map(math.isfinite, group)) and math.isfinite(tensor_scale)
            and tensor_scale >= 2.0**-115):
        return [0] * len(group), 0x7F
    magnitudes = [abs(Fraction(x)) for x in group]
    unit = Fraction(tensor_scale)
    scale = nearest(max(magnitudes) / 6, E4M3_UNITS, unit / 512)
    if scale == 0:
        return [0] * len(group), 0
    step = unit * E4M3_UNITS[scale] / 512
    return [s + nearest(2 * x, E2M1_HALVES, step)
            for s, x in zip(_signs(group), magnitudes, strict=True)], scale


def factor_errors(group, scale, subgroup=8):
    """Squared errors of every factor, and its codes: [{k: (error, codes)} per subgroup]."""
    candidates = []
    for part in _cut([8 * units(x) for x in group], subgroup):
        tried = {}
        for k in range(4):
            step = (4 + k) * scale_units(scale)
            codes = [nearest(x, E2M1_HALVES, step) for x in part]
            errors = [x - E2M1_HALVES[c] * step for x, c in zip(part, codes, strict=True)]
            tried[k] = sum(e * e for e in errors), codes
        candidates.append(tried)
    return candidates


def weight_errors(group, *, subgroup=8, rule="floor", adaptive=True):
    """Squared errors of every candidate, and its codes: {b: [{k: (error, codes)} per subgroup]}."""
    start = scale_code(group, rule)
    return {b: factor_errors(group, start + b, subgroup)
            for b in ((-1, 0, 1) if adaptive else (0,)) if 0 <= start + b <= 254}


def encode_weights(group, *, subgroup=8, rule="floor", adaptive=True):
    """Elements, metadata and scale of a group of Python floats (section 4)."""
    if not all(map(math.isfinite, group)):
        return [0] * len(group), [0] * (len(group) // subgroup), 255
    tried = weight_errors(group, subgroup=subgroup, rule=rule, adaptive=adaptive)
    best_k = {b: [min(range(4), key=lambda k, part=part: (part[k][0], k)) for part in parts]
              for b, parts in tried.items()}
    b = min(tried, key=lambda b: (sum(part[k][0] for part, k in zip(tried[b], best_k[b],
                                                                    strict=True)), b))
    codes = [c for part, k in zip(tried[b], best_k[b], strict=True) for c in part[k][1]]
    return ([s + c for s, c in zip(_signs(group), codes, strict=True)], best_k[b],
            scale_code(group, rule) + b)


def encode_sg_threshold(group, *, subgroup=8):
    """Elements, metadata and scale of a group of Python floats (specification section 10)."""
    if not all(map(math.isfinite, group)):
        return [0] * len(group), [0] * (len(group) // subgroup), 255
    amax = max(map(units, group))
    scale = 0
    # The largest scale under which the largest magnitude is at least 11/2.
    while 2 * amax >= 11 * scale_units(scale + 1):
        scale += 1
    tried = factor_errors(group, scale, subgroup)
    best = [min(range(4), key=lambda k, part=part: (part[k][0], k)) for part in tried]
    codes = [c for part, k in zip(tried, best, strict=True) for c in part[k][1]]
    return [s + c for s, c in zip(_signs(group), codes, strict=True)], best, scale


def _ends(x, k, scale):
    """Code of a magnitude; distances of its value from both ends of its sixteenth of the scale."""
    sixteenth = scale_units(scale) // 16
    step = 2 * (4 + k)
    code = nearest(x, E2M1_HALVES, step * sixteenth)
    lower = x // sixteenth
    return code, *sorted(abs(E2M1_HALVES[code] * step - end) for end in (lower, lower + 1))


def cut_errors(part, scale, lowest=None):
    """By the factor, a subgroup's sum of errors as the Sg engine cuts them, and its codes.

    In Sg-threshold (specification section 10.6) or, with the lowest scale, in Sg-EM (section 10.7).
    """
    tried = []
    for k in range(4):
        total, codes = 0, []
        for x in map(units, part):
            if lowest is not None and 4 * x < scale_units(lowest):
                x = 0
            code, near, far = _ends(x, k, scale)
            codes.append(code)
            total += min(far**2 // 8, 127) if lowest is None else min(near * far // 2, 1023)
        tried.append((total, codes))
    return tried


def encode_sg_engine(group, encoding="sg-threshold"):
    """Elements, metadata and scale of a group of Python floats (sections 10.6 to 10.8, 18.10)."""
    if not all(map(math.isfinite, group)):
        return [0] * len(group), [0] * (len(group) // 8), 255
    if encoding.startswith("sg-special"):
        return encode_sg_special(group, cut=True, wide=encoding == "sg-special64")
    if encoding == "sg-threshold":
        scales, lowest = [encode_sg_threshold(group)[2]], None
    else:
        lowest = scale_code(group) - 1
        scales = [scale for scale in range(lowest, lowest + 3) if scale >= 0]
    best = None
    for scale in scales:
        tried = [cut_errors(part, scale, lowest) for part in _cut(group, 8)]
        factors = [min(range(4), key=lambda k, part=part: (part[k][0], k)) for part in tried]
        total = 4**scale * sum(part[k][0] for part, k in zip(tried, factors, strict=True))
        if best is None or total < best[0]:
            codes = [c for part, k in zip(tried, factors, strict=True) for c in part[k][1]]
            best = total, [s + c for s, c in zip(_signs(group), codes, strict=True)], factors, scale
    return best[1:]


def encode_mixed(group, *, subgroup=8):
    """Elements, metadata and scale of a group of Python floats (specification section 11)."""
    codes, factors, scale = encode_sg_threshold(group, subgroup=subgroup)
    factored = [0 if c == 8 else c for c in codes], factors, scale
    if scale == 255:
        return factored
    codes, metadata, scale = encode_activations(group, subgroup=subgroup)
    zeros = _other_zeros(codes, subgroup)
    refined = [8 if z else c for c, z in zip(codes, zeros, strict=True)], metadata, scale
    return refined if any(zeros) and error(group, refined) < error(group, factored) else factored


def _other_zeros(codes, subgroup):
    """Which codes of a group are of value 0 and not the first of their subgroup's largest."""
    zeros = []
    for part in _cut([c % 8 for c in codes], subgroup):
        top = part.index(max(part))
        zeros += [c == 0 and i != top for i, c in enumerate(part)]
    return zeros


SPECIALS = [5, -5, 8, -8]


def encode_sg_special(group, *, subgroup=8, adaptive=False, wide=False, cut=False):
    """Elements, metadata and scale byte of a group of Python floats (specification section 12).

    If ``wide`` those of Sg-special64 (section 18); by errors that are ``cut`` (sections 10.8 and
    18.10).
    """
    if not all(map(math.isfinite, group)):
        return [0] * len(group), [0] * (len(group) // subgroup), 255
    amax = max(map(units, group))

    def highest(least):
        """The largest scale offered under which the largest magnitude is at least so much."""
        scale = 96
        while scale < 159 and amax >= least * scale_units(scale + 1):
            scale += 1
        return scale

    double = 2 if wide else 1
    signed = [8 * units(x) * (-1) ** (x < 0) for x in group]
    best = None
    for magnitude, least in (5, Fraction(11, 2)), (8, Fraction(15, 2)):
        for scale in [highest(8 * double), highest(4 * double)] if adaptive else [
                highest(least * double)]:
            for selector in range(4):
                if abs(SPECIALS[selector]) != magnitude or (scale, selector) == (159, 3):
                    continue
                tried = [min((cut_special_error(part, scale, k, SPECIALS[selector],
                                                highest(Fraction(15, 2) * double), wide,
                                                highest(8 * double))
                              if cut else
                              _special_error(part, scale, k, SPECIALS[selector], 16 * double)
                              for k in range(4 * double)), key=lambda found: found[0])
                         for part in _cut(signed, subgroup)]
                total = sum(found[0] for found in tried)
                if best is None or total < best[0]:
                    best = total, tried, 4 * (scale - 96) + selector
    _, tried, byte = best
    return [c for found in tried for c in found[2]], [found[1] for found in tried], byte


def _special_error(part, scale, k, special, most):
    """Squared error of a subgroup in units of 2**-163, the factor and the codes.

    A magnitude counts as at most ``most`` times the scale.
    """
    unit = scale_units(scale)
    # In eighths of the scale.
    quarters = int(4 * _factor(k))
    offered = {c: (-1) ** (c // 8) * E2M1_HALVES[c % 8] * quarters for c in range(16)}
    offered[8] = 2 * special * quarters
    # Of equal values the special one comes last, and even codes come before odd ones.
    offered = {c: offered[c] * unit for c in sorted(offered, key=lambda c: (c == 8, c % 2, c))}
    codes, total = [], 0
    for x in part:
        v = max(min(x, 8 * most * unit), -8 * most * unit)
        errors = {c: abs(v - value) for c, value in offered.items()}
        code = min(errors, key=errors.get)
        codes.append(code)
        total += errors[code] ** 2
    return total, k, codes


def cut_special_error(part, scale, k, special, lowest, wide=False, binade=None):
    """As `_special_error`, with errors that are cut (sections 10.8 and 18.10).

    Magnitudes below a quarter of the scale ``binade``, or of the lowest one, count as 0.
    """
    unit, low, total = scale_units(scale), scale_units(lowest), 0
    small = low if binade is None else scale_units(binade)
    double = 2 if wide else 1
    codes = _special_error(part, scale, k, special, 16 * double)[2]
    step = unit * 2 ** (k // 4)
    # In eighths of a unit.
    for x, code in zip(map(abs, part), codes, strict=True):
        x = 0 if x < 2 * small else min(x, 128 * double * low - 1)
        if k < 4 and x >= 128 * unit:
            return math.inf, k, codes
        halves = 2 * abs(special) if code == 8 else E2M1_HALVES[code % 8]
        value, lower = 2 * halves * (4 + k % 4), 2 * x // step
        ends = abs(value - lower), abs(value - lower - 1)
        if min(ends) >= 32:
            total += 504 if wide else 1008
        else:
            total += (math.prod(ends) + 2) // 4 if wide else math.prod(ends) // 2
    return total * 4 ** (scale + k // 4), k, codes


def e8m0(kind, scale):
    """E8M0 code of a scale byte."""
    return 96 + scale // 4 if kind.startswith("special") and scale != 255 else scale


def error(group, record, kind="mixed"):
    """Squared error of a record of Python floats, in units of (2**-163)**2."""
    step = 8 * scale_units(e8m0(kind, record[2]))
    return sum((8 * units(x) * (-1) ** (x < 0) - v * step) ** 2
               for x, v in zip(group, values(kind, *record), strict=True))


def _factor(k):
    """Factor of metadata; those of three bits have a bit of exponent."""
    return (1 + Fraction(k % 4, 4)) * 2 ** (k // 4)


@cache
def _weight(code, k):
    value = Fraction(E2M1_HALVES[code % 8], 2) * _factor(k)
    return -value if code >= 8 else value


def values(kind, elements, metadata, scale=None):
    """Values of a group in units of its scale (sections 3, 4, 10 to 12 and 18).

    With special values the scale says which.
    """
    if kind.startswith("special"):
        special = SPECIALS[scale % 4]
        return [special * _factor(k) if code == 8 else _weight(code, k)
                for part, k in zip(_cut(elements, len(elements) // len(metadata)), metadata,
                                   strict=True) for code in part]
    subgroup = len(elements) // len(metadata)
    if kind == "mixed":
        marks = [c == 8 and zero for c, zero in zip(elements, _other_zeros(elements, subgroup),
                                                    strict=True)]
        kind = "activation" if any(marks) else "weight"
    decoded = []
    for part, meta in zip(_cut(elements, subgroup), metadata, strict=True):
        if kind == "weight":
            decoded += [_weight(code, meta) for code in part]
            continue
        new = [_weight(code, 0) for code in part]
        magnitudes = [code % 8 for code in part]
        c = max(magnitudes)
        top = magnitudes.index(c)
        refined = Fraction(E2M3_EIGHTHS[max(4 * c + meta, 1) - 1], 8)
        new[top] = -refined if part[top] >= 8 else refined
        decoded += new
    return decoded


def decode(kind, elements, metadata, scale):
    """Float32 bits of a group."""
    if scale == 255:
        return [NAN] * len(elements)
    factor = Fraction(scale_units(e8m0(kind, scale)), UNIT)
    return [float32(value * factor, code >= 8 and kind != "mixed")
            for value, code in zip(values(kind, elements, metadata, scale), elements, strict=True)]


def float32(value, negative_zero=False):
    """Float32 bits of a fraction, rounded once: gradual underflow, overflow to infinity."""
    if value == 0:
        return negative_zero << 31
    magnitude = abs(value)
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    exponent -= Fraction(2) ** exponent > magnitude
    exponent = max(exponent, -126)
    # The significand's leading one counts as one exponent, so that carries need no care.
    bits = ((exponent + 126) << 23) + round(magnitude / Fraction(2) ** (exponent - 23))
    return (value < 0) << 31 | min(bits, 0x7F800000)


def fraction(bits):
    """Exact value of a finite float32, given its bits."""
    exponent, mantissa = bits >> 23 & 255, bits & 0x7FFFFF
    magnitude = mantissa + (0 if exponent == 0 else 2**23)
    return (-1) ** (bits >> 31) * Fraction(magnitude) * Fraction(2) ** (max(exponent, 1) - 150)


def accumulate(acc, total, activation_scale, weight_scale):
    """Float32 bits of acc + G * 2**(Xw + Xx - 260), given acc's bits (sections 6 and 7)."""
    magnitude = acc & 0x7FFFFFFF
    if 255 in (activation_scale, weight_scale) or magnitude > 0x7F800000:
        return NAN
    if magnitude == 0x7F800000:
        return acc
    term = total * Fraction(2) ** (activation_scale + weight_scale - 260)
    # An exact zero sum is +0: a group's zero is +0, so that two zeros never are both negative.
    return float32(fraction(acc) + term)


def group_sum(activation, weight, kind="activation", weight_kind="weight"):
    """G of two records, in units of 1/64."""
    return _dot(_eighths(kind, activation), _eighths(weight_kind, weight))


def _eighths(kind, record):
    """Values of a record, each in units of 1/8 of its scale."""
    scaled = [8 * value for value in values(kind, *record)]
    assert all(value.denominator == 1 for value in scaled)
    return [int(value) for value in scaled]


def _dot(x, w):
    return sum(a * b for a, b in zip(x, w, strict=True))


def matmul(activations, weights, kind="activation", weight_kind="weight"):
    """Float32 bits of a product: rows of records on either side (section 7).

    ``kind`` says how activations are read: as such, with factors as "weight", "mixed", "special" or
    "special64"; ``weight_kind`` how weights are: as such, "special" or "special64".
    """
    result = []
    x_rows, w_rows = ([[(_eighths(side, record), e8m0(side, record[2])) for record in row]
                       for row in rows]
                      for side, rows in ((kind, activations), (weight_kind, weights)))
    for x_row in x_rows:
        for w_row in w_rows:
            acc = 0
            for (x, x_scale), (w, w_scale) in zip(x_row, w_row, strict=True):
                acc = accumulate(acc, _dot(x, w), x_scale, w_scale)
            result.append(acc)
    return np.array(result, np.uint32).reshape(len(activations), len(weights))


def record(elements, metadata, scale):
    """A group record as one integer (section 2)."""
    bits = scale
    for width, fields in (2, metadata), (4, elements):
        for field in reversed(fields):
            bits = bits << width | field
    return bits


def records(q):
    """The records of a quantized tensor, rows of (elements, metadata, scale) lists."""
    rows = q.scales.shape[-1]
    planes = (q.elements.reshape(-1, rows, q.group).tolist(),
              q.metadata.reshape(-1, rows, q.group // q.subgroup).tolist(),
              q.scales.reshape(-1, rows).tolist())
    return [list(zip(*row, strict=True)) for row in zip(*planes, strict=True)]


def hard_groups(rng, count, size, dtype=np.float32):
    """Finite groups where rounding goes wrong: ties, their neighbours, tails, zeros, extremes."""
    limits = ml_dtypes.finfo(dtype)
    low, high = limits.minexp - limits.nmant, limits.maxexp
    # Sixteenths hit every decision point of E2M1 and E2M3.
    mantissas = np.where(rng.random((count, 1)) < 0.6, rng.integers(-127, 128, (count, size)) / 16,
                         rng.standard_t(2, (count, size)))
    mantissas *= rng.random((count, size)) < rng.choice([0.03, 0.3, 1], (count, 1))
    mantissas = np.where(mantissas == 0, rng.choice([0.0, -0.0], mantissas.shape), mantissas)
    choices = [(low, high - 2), (low, low + 8), (high - 8, high - 2), (-4, 4), (0, 1)]
    exponents = np.choose(rng.integers(0, len(choices), count),
                          [rng.integers(*choice, count) for choice in choices])
    x = np.ldexp(mantissas, exponents[:, None])
    x = np.clip(x, -float(limits.max), float(limits.max)).astype(dtype)
    bits = x.view(f"u{x.dtype.itemsize}")
    nudged = (bits + rng.choice([-1, 1], bits.shape).astype(bits.dtype)).view(dtype)
    usable = (x != 0) & np.isfinite(nudged.astype(np.float32)) & (rng.random(x.shape) < 0.2)
    return np.where(usable, nudged, x)


def nvfp4_row(x, x_scales, w, w_scales):
    """Sum of the products of two rows of NVFP4 as a fraction, or None if a scale is NaN."""
    if 0x7F in (*x_scales, *w_scales):
        return None
    signed = [*E2M1_HALVES, *(-value for value in E2M1_HALVES)]
    return sum(Fraction(signed[a] * signed[b] * E4M3_UNITS[x_scales[i // 16]]
                        * E4M3_UNITS[w_scales[i // 16]], 2**20)
               for i, (a, b) in enumerate(zip(x, w, strict=True)))


def razer_row(x, x_scales, w, w_scales):
    """`nvfp4_row` of RaZeR: 5 or -5 in place of -0, and of weights 5, -5, 8 or -8."""
    if any(scale & 0x7F == 0x7F for scale in x_scales) or any(
            scale & 0x3F == 0x3F for scale in w_scales):
        return None
    signed = [*E2M1_HALVES, *(-value for value in E2M1_HALVES)]

    def value(code, byte, bits):
        return [10, -10, 16, -16][byte >> bits] if code == 8 else signed[code]

    def e3m3(code):
        # 2**-5 is the smallest; there is no sign.
        return Fraction(code & 7 if code < 8 else 8 + (code & 7), 32) * 2 ** max((code >> 3) - 1, 0)

    return sum(Fraction(value(a, x_scales[i // 16], 7) * value(b, w_scales[i // 16], 6), 4)
               * Fraction(E4M3_UNITS[x_scales[i // 16] & 0x7F], 2**9)
               * e3m3(w_scales[i // 16] & 0x3F)
               for i, (a, b) in enumerate(zip(x, w, strict=True)))


def to_odd(value):
    """A fraction, rounded to odd to 24 bits: truncated, and then odd if anything was lost."""
    magnitude = abs(value)
    if not magnitude:
        return magnitude
    step = Fraction(2) ** -60
    while magnitude >= step * 2**24:
        step *= 2
    kept = magnitude // step
    rounded = (kept | (kept * step != magnitude)) * step
    return rounded if value > 0 else -rounded


def nvfp4_array(inputs, columns, encoding="nvfp4"):
    """Outputs of the array for NVFP4 or RaZeR, lists of float32 bits (section 9.5)."""
    row_of = {"nvfp4": nvfp4_row, "razer": razer_row}[encoding]
    record, last = inputs["i_activation"]["record"], inputs["i_activation"]["last"]
    elements, scales = (
        inputs["i_weight"][name].reshape(-1, columns, record[name].shape[1]).tolist()
        for name in ("elements", "scales"))
    rows, tile = [], 0
    for x, x_scales, end, accs in zip(record["elements"].tolist(), record["scales"].tolist(), last,
                                      inputs["i_acc"].tolist(), strict=True):
        rows.append([])
        for w, w_scales, acc in zip(elements[tile], scales[tile], accs, strict=True):
            total = row_of(x, x_scales, w, w_scales)
            if total is None or acc & 0x7FFFFFFF > 0x7F800000:
                rows[-1].append(NAN)
            elif acc & 0x7FFFFFFF == 0x7F800000:
                rows[-1].append(acc)
            else:
                rows[-1].append(float32(fraction(acc) + to_odd(total)))
        tile += int(end)
    return rows
