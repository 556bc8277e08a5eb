# SPDX-License-Identifier: BSD-2-Clause
"""Reference of the Sg engine: factors by errors of a few bits (specification section 10.6).

`golden.quantize_activations` chooses them by exact errors, and in Sg-EM the scales, too. Elements
under a factor and a scale are the same.
"""

import functools

import numpy as np

from ..codec.arrays import (
    BoolArray,
    Float32Array,
    Float64Array,
    FloatArray,
    IntArray,
    UInt8Array,
)
from ..codec.numbers import (
    SCALE_NAN,
    SPECIAL_ENCODINGS,
    SPECIAL_LIMITS,
    SPECIAL_SCALES,
    SPECIALS,
    default_group,
    e2m1_integers,
    groups_of,
    round_magnitude,
    special_scale_codes,
)
from ..codec.quantized import Quantized
from .quantization_engine import assemble, group_scales, scaled_magnitudes

SUBGROUP = 8

PLACES = 4
"""Bits of a magnitude behind the point that errors see, in units of the scale."""

ERROR_PLACES = {"sg-threshold": 5, "sg-em": 7, "sg-special": 7, "sg-special64": 6}
"""By encoding, bits of an element's squared error behind the point."""

RULES = {"sg-threshold": "threshold", "sg-em": "floor"}
"""By encoding, the rule of the first scale."""

BIASES = {"sg-threshold": (0,), "sg-em": (-1, 0, 1)}
"""By encoding, the scales that are tried, from the first one."""

ENCODINGS = (*BIASES, *SPECIAL_ENCODINGS)
"""Encodings of the unit. Sg-special and Sg-special64 have scales of their own."""


def definition(x: FloatArray, *, encoding: str = "sg-threshold", places: int = PLACES,
               error_places: int | None = None) -> Quantized:
    """Encodes whole tensors step by step, as the specification defines it.

    `sg_engine` gives the same bits faster.

    Parameters
    ----------
    x : array of float32, float16 or bfloat16, shape (..., K)
        Groups of 32, or 64 in Sg-special64, lie along the last axis, which is padded with +0 to
        whole groups.
    encoding : str
        "sg-threshold", "sg-em", "sg-special" or "sg-special64".
    places, error_places : int
        In the place of `PLACES` and `ERROR_PLACES`, to see what they cost.

    Returns
    -------
    Quantized
        An activation in the encoding Sg-EM, Sg-special or Sg-special64.
    """
    groups = groups_of(x, "x", default_group(encoding))
    if encoding in SPECIAL_ENCODINGS:
        return _special(x.shape, groups, encoding, places, error_places)
    start, bad = group_scales(groups, RULES[encoding])
    u = scaled_magnitudes(groups, start, bad).reshape(*start.shape, -1, SUBGROUP)
    # Below this all codes are 0 under all scales. The errors do not see it.
    seen = np.where(u < 2.0 ** (BIASES[encoding][0] - 2), 0, u)

    best = np.full(start.shape, np.iinfo(np.int64).max)
    scales = start
    codes = np.zeros(u.shape, np.uint8)
    factors = np.zeros(u.shape[:-1], np.uint8)
    for bias in BIASES[encoding]:
        least = np.full(u.shape[:-1], np.iinfo(np.int64).max)
        kept, of_least = np.zeros_like(codes), np.zeros_like(factors)
        for k in range(4):
            candidate, distances = trial(seen / 2.0**bias, k, places)
            total = cut_errors(distances, encoding, places, error_places).sum(axis=-1)
            better = total < least
            least = np.where(better, total, least)
            kept = np.where(better[..., None], candidate, kept)
            of_least = np.where(better, np.uint8(k), of_least)
        # In units of the lowest scale.
        total = least.sum(axis=-1) << 2 * (bias - BIASES[encoding][0])
        better = (total < best) & (start + bias >= 0)
        best = np.where(better, total, best)
        scales = np.where(better, start + bias, scales)
        codes = np.where(better[..., None, None], kept, codes)
        factors = np.where(better[..., None], of_least, factors)

    return assemble("activation", x.shape, groups, codes, factors, scales, bad, SUBGROUP, "sg-em")


def _special(shape: tuple[int, ...], groups: Float32Array, encoding: str, places: int = PLACES,
             error_places: int | None = None) -> Quantized:
    """The definition in Sg-special and Sg-special64 (specification sections 10.8 and 18.10)."""
    own = SPECIAL_ENCODINGS[encoding]
    bits = (groups.view(np.uint32) & 0x7FFFFFFF).max(axis=-1)
    bad = bits >= 0x7F800000
    by_special = {special: special_scale_codes(bits, limit, own.lower)
                  for special, limit in SPECIAL_LIMITS.items()}
    lowest = by_special[8]
    # Magnitudes of 16, or 32, or more count as what is just below.
    u = np.minimum(scaled_magnitudes(groups, lowest, bad), own.most - 2.0**-6)
    # Those of more than 5, or 6, binades below the largest one count as 0.
    binade = special_scale_codes(bits, 0x800000, own.lower)
    u = np.where(u < np.ldexp(0.25, binade - lowest)[..., None], 0, u)
    u = u.reshape(*lowest.shape, -1, SUBGROUP)
    negative = np.signbit(groups).reshape(u.shape)

    best = np.full(lowest.shape, np.iinfo(np.int64).max)
    scales = np.zeros(lowest.shape, np.uint8)
    codes = np.zeros(u.shape, np.uint8)
    factors = np.zeros(u.shape[:-1], np.uint8)
    for selector, special in enumerate(SPECIALS):
        code = by_special[abs(special)]
        v = np.ldexp(u, (lowest - code)[..., None, None])
        kept, of_least, least = _special_factors(v, negative, special, encoding, places,
                                                 error_places)
        # In units of the lower scale.
        total = least.sum(axis=-1) << 2 * (code - lowest)
        byte = code - SPECIAL_SCALES[0] << 2 | selector
        better = (total < best) & (byte != SCALE_NAN)
        best = np.where(better, total, best)
        scales = np.where(better, byte, scales).astype(np.uint8)
        codes = np.where(better[..., None, None], kept, codes)
        factors = np.where(better[..., None], of_least, factors)

    # Codes have their signs.
    elements = np.where(bad[..., None], 0, codes.reshape(groups.shape))
    metadata = np.where(bad[..., None], 0, factors)
    rows = (*shape[:-1], -1)
    return Quantized(kind="activation", shape=shape, group=groups.shape[-1], subgroup=SUBGROUP,
                     encoding=encoding, elements=elements.reshape(rows),
                     metadata=metadata.reshape(rows),
                     scales=np.where(bad, SCALE_NAN, scales).astype(np.uint8))


def _special_factors(u: Float64Array, negative: BoolArray, special: int, encoding: str,
                     places: int, error_places: int | None
                     ) -> tuple[UInt8Array, UInt8Array, IntArray]:
    """Codes with signs, factors and sums of errors of subgroups under a special value."""
    least = np.full(u.shape[:-1], np.iinfo(np.int64).max)
    kept = np.zeros(u.shape, np.uint8)
    of_least = np.zeros(u.shape[:-1], np.uint8)
    low, high = (4.5, 5.5) if abs(special) == 5 else (7, np.inf)
    # The lower factors are too low. In Sg-special nothing is as large.
    large = (u >= 16).any(axis=-1)
    for m in range(len(SPECIAL_ENCODINGS[encoding].factors)):
        exponent, k = divmod(m, 4)
        v, step = u / 2**exponent, (4 + k) / 4
        candidate, distances = trial(v, k, places)
        nearest = (v > low * step) & (v < high * step) & (negative == (special < 0))
        value = abs(special) * (4 + k) * 2**places // 4
        distances = np.where(nearest, _distances(v, value, places), distances)
        # In units of the scale, and not of twice the scale.
        total = cut_errors(distances, encoding, places, error_places).sum(axis=-1) << 2 * exponent
        better = (total < least) & ((exponent > 0) | ~large)
        least = np.where(better, total, least)
        # Zeros have no sign.
        signed = candidate | (negative & (candidate > 0)).astype(np.uint8) << 3
        kept = np.where(better[..., None], np.where(nearest, 8, signed), kept).astype(np.uint8)
        of_least = np.where(better, np.uint8(m), of_least)
    return kept, of_least, least


def trial(u: Float64Array, k: int, places: int = PLACES) -> tuple[UInt8Array, IntArray]:
    """Codes of magnitudes under a factor, and how far their values are.

    Parameters
    ----------
    u : float64 array
        Magnitudes in units of the scale, exact.
    k : int
        The factor is 1 + k / 4.
    places : int
        As in `definition`.

    Returns
    -------
    codes : uint8 array
        Without signs.
    distances : int64 array
        In units of 2**-places: a magnitude is known to lie in an interval of that length, and this
        is the distance of its value from the far end.
    """
    codes = round_magnitude(u / ((4 + k) / 4), 1)
    # Values are multiples of 1/8.
    value = e2m1_integers(codes).astype(np.int64) * (4 + k) * 2**places // 8
    return codes, _distances(u, value, places)


def _distances(u: Float64Array, value: IntArray | int, places: int) -> IntArray:
    """Distances of values, in units of 2**-places, from the far ends of magnitudes' intervals."""
    cut = np.floor(u * 2**places).astype(np.int64)
    return np.where(value <= cut, cut + 1 - value, value - cut)


def cut_errors(distances: IntArray, encoding: str, places: int = PLACES,
               error_places: int | None = None) -> IntArray:
    """Squared errors by the distances of `trial`, in units of 2**-error_places.

    In Sg-threshold the square of the distance, below 4. In the others, where errors under different
    scales are compared, the product of the distances from both ends, which is the square to be
    expected but for a constant, below 8. It is rounded down, in Sg-special64 to nearest, ties up,
    which saves a bit. In Sg-special and Sg-special64 a value that is two units of the scale or more
    away from all of the interval has a large one, which hardware has in sight: the error of the
    next smaller distance, and 4.
    """
    of_encoding = ERROR_PLACES[encoding] if error_places is None else error_places
    squares = distances**2 if encoding == "sg-threshold" else distances * (distances - 1)
    largest = ((4 if encoding == "sg-threshold" else 8) << of_encoding) - 1
    if encoding not in SPECIAL_ENCODINGS:
        return np.minimum(squares << of_encoding >> 2 * places, largest)
    half = (1 << 2 * places) // 2 if encoding == "sg-special64" else 0
    farthest = 2 << places
    far = distances > farthest
    squares = np.where(far, farthest * (farthest - 1), squares)
    return ((squares << of_encoding) + half >> 2 * places) + (far << of_encoding + 2)


@functools.cache
def _tables(encoding: str) -> tuple[UInt8Array, IntArray]:
    """Codes and errors by scale, factor and the magnitude in 1/32 of the lowest scale.

    Magnitudes are rounded to odd. Decision points and ends of intervals are even numbers of the
    lowest scale's 1/32, and of a higher scale's all the more. An odd number stands for all that
    lies between its even neighbours.
    """
    u = np.arange(512) / 32
    u[:8] = 0
    codes, errors = [], []
    for scale in range(len(BIASES[encoding])):
        for k in range(4):
            code, distances = trial(u / 2**scale, k)
            codes.append(code)
            errors.append(cut_errors(distances, encoding).astype(np.int16))
    return np.stack(codes).reshape(-1, 4, 512), np.stack(errors).reshape(-1, 4, 512)


def sg_engine(x: FloatArray, *, encoding: str = "sg-threshold") -> Quantized:
    """Encodes a tensor with subgroup factors that are chosen by errors of a few bits.

    A magnitude counts with four bits behind the point, in units of the scale that is tried, and its
    error with seven bits, in Sg-EM with ten. The factor with the lowest sum over the subgroup is
    taken; ties go to the lowest one. In Sg-EM the best one of three scales is taken in the same
    way. Elements are rounded exactly under them.

    Parameters
    ----------
    x : array of float32, float16 or bfloat16, shape (..., K)
        Groups of 32, or 64 in Sg-special64, lie along the last axis, which is padded with +0 to
        whole groups.
    encoding : str
        "sg-threshold", "sg-em", "sg-special" (section 10.8) or "sg-special64" (section 18.10).

    Returns
    -------
    Quantized
        An activation in the encoding Sg-EM, Sg-special or Sg-special64.

    Raises
    ------
    TypeError
        If ``x`` is not an array of a supported type.
    ValueError
        If ``x`` is empty or the encoding is not offered.
    """
    if encoding not in ENCODINGS:
        raise ValueError(f"encoding must be one of {ENCODINGS}, not {encoding!r}")
    groups = groups_of(x, "x", default_group(encoding))
    if encoding in SPECIAL_ENCODINGS:
        return _special(x.shape, groups, encoding)
    scales, bad = group_scales(groups, RULES[encoding])
    lowest = scales + BIASES[encoding][0]
    magnitudes = np.where(bad[..., None], 0, groups.view(np.uint32) & 0x7FFFFFFF)
    exponents = (magnitudes >> 23).astype(np.int32)
    significands = magnitudes & 0x7FFFFF | (exponents > 0).astype(np.uint32) << 23
    # A value is its significand times 2**(exponent - 150), and the scale is 2**(X - 127). X is at
    # least the exponent less 3, so that places are at least 15; from 24 on nothing is left.
    places = np.minimum(18 + lowest[..., None] - np.maximum(exponents, 1), 31).astype(np.uint32)
    kept = significands >> places
    odd = kept | (kept << places != significands)

    parts = odd.reshape(*scales.shape, -1, SUBGROUP)
    codes, errors = _tables(encoding)
    # By scale and factor, and then by scale.
    sums = np.stack([[np.take(table, parts).sum(axis=-1) for table in of_scale]
                     for of_scale in errors])
    totals = np.stack([sums[n].min(axis=0).sum(axis=-1) << 2 * n for n in range(len(sums))])
    totals[0] = np.where(lowest < 0, np.iinfo(np.int64).max, totals[0])
    # The first ones of the lowest.
    best = totals.argmin(axis=0)
    factors = np.take_along_axis(sums.argmin(axis=1), best[None, ..., None], 0)[0].astype(np.uint8)
    elements = codes[best[..., None, None], factors[..., None], parts]
    return assemble("activation", x.shape, groups, elements, factors, lowest + best, bad, SUBGROUP,
                    "sg-em")
