# SPDX-License-Identifier: BSD-2-Clause
"""Reference of the weight encoder: Sg-EM with an adaptive scale (specification section 4).

`quantize_weights` also offers Sg-special and Sg-special64.
"""

import numpy as np

from ..codec import blocked
from ..codec.arrays import Float64Array, FloatArray, UInt8Array
from ..codec.numbers import (
    SCALE_MAX,
    SPECIAL_ENCODINGS,
    check_sizes,
    check_tensor,
    check_threads,
    default_group,
    e2m1_integers,
    groups_of,
    round_magnitude,
)
from ..codec.quantized import ENCODINGS, Quantized
from .quantization_engine import (
    assemble,
    check_own_rule,
    check_rule,
    group_scales,
    scaled_magnitudes,
)


def quantize_weights(w: FloatArray, *, group: int | None = None, subgroup: int = 8,
                     rule: str = "floor", adaptive: bool = True, encoding: str = "sg-em",
                     threads: int = 1) -> Quantized:
    """Quantizes weights to M2XFP with the least squared error over factors and scales.

    Every subgroup has a factor of 1, 1.25, 1.5 or 1.75. If adaptive, the encoder tries three
    neighbouring scales for every group. Ties go to the lowest factor, and then to the lowest scale.
    Errors are compared exactly. Elements are rounded to nearest, ties to even. A group that holds
    NaN or an infinity becomes a NaN group: its scale is 255, all its other codes are 0.

    In Sg-special (specification section 12) code 8 is a special value instead of -0, and the
    encoder also takes the best of four special values; see `quantize_activations`. If adaptive, it
    tries two scales: that of "floor" and the next lower one. Decoder, tile, array and accelerator
    read Sg-special where they are built for it. Sg-special64 (section 18) is the same in groups of
    64 with factors up to 3.5; its scales are one lower. Decoder and tile read it.

    Parameters
    ----------
    w : array of float32, float16 or bfloat16, shape (..., K)
        Weights. Groups lie along the last axis, which is padded with +0 to whole groups.
    group : int, optional
        Elements per scale: 16 or 32, which is the default. Sg-special64 has 64 only.
    subgroup : int
        Elements per two metadata bits: 4, 8, 16 or 32, dividing ``group``. Sg-special64 has 8 only.
    rule : str
        Rule of the first scale: "floor", "ceil", "rtn1" or "rtn2" (section 5). Sg-special and
        Sg-special64 take only the default.
    adaptive : bool
        Whether the encoder also tries the next lower and the next higher scale.
    encoding : str
        "sg-em", "sg-special" or "sg-special64".
    threads : int
        Threads that share the work, at least 1. The result does not depend on it.

    Returns
    -------
    Quantized
        Of kind "weight".

    Raises
    ------
    TypeError
        If ``w`` is not an array of a supported type, or ``threads`` is not an integer.
    ValueError
        If ``w`` is empty, or a size, the rule, the encoding or the number of threads is not
        offered.
    """
    group = default_group(encoding) if group is None else group
    check_sizes(group, subgroup, encoding)
    check_rule(rule)
    if encoding not in ENCODINGS["weight"]:
        raise ValueError(f"encoding must be one of {ENCODINGS['weight']}, not {encoding!r}")
    if encoding in SPECIAL_ENCODINGS:
        check_own_rule(rule, encoding)
    check_threads(threads)
    check_tensor(w, "w")
    planes = blocked.encode(w, group, subgroup, rule, threads, encoding=encoding, adaptive=adaptive)
    return Quantized(kind="weight", shape=w.shape, group=group, subgroup=subgroup,
                     encoding=encoding, **planes)


def definition(w: FloatArray, *, group: int = 32, subgroup: int = 8, rule: str = "floor",
               adaptive: bool = True) -> Quantized:
    """Encodes whole tensors in Sg-EM step by step, as the specification defines it.

    `quantize_weights` gives the same bits faster; it also checks the parameters.
    """
    groups = groups_of(w, "w", group)
    start, bad = group_scales(groups, rule)
    u = scaled_magnitudes(groups, start, bad).reshape(*start.shape, -1, subgroup)

    best_excess = np.full(start.shape, np.inf)
    scales = start
    codes = np.zeros(u.shape, np.uint8)
    metadata = np.zeros(u.shape[:-1], np.uint8)
    for bias in (-1, 0, 1) if adaptive else (0,):
        candidate, factors, excess = best_factors(u, 2.0**bias)
        offered = (start + bias >= 0) & (start + bias <= SCALE_MAX)
        better = offered & (excess < best_excess)
        best_excess = np.where(better, excess, best_excess)
        scales = np.where(better, start + bias, scales)
        codes = np.where(better[..., None, None], candidate, codes)
        metadata = np.where(better[..., None], factors, metadata)

    return assemble("weight", w.shape, groups, codes, metadata, scales, bad, subgroup)


def best_factors(u: Float64Array, scale: float) -> tuple[UInt8Array, UInt8Array, Float64Array]:
    """Finds the factors of least squared error at a scale.

    The excess is the squared error less the sum of ``u**2``, which all candidates share: the sum of
    q * (q - 2 * u) over the elements' values q. An element adds to it only if q is not 0, and then
    u is at least 1/8. There u is a multiple of 2**-26 and q of 2**-4, so that every term and every
    partial sum is a multiple of 2**-29 and below 2**15 in magnitude. It is exact in float64 in any
    order, so that errors are compared exactly.

    Parameters
    ----------
    u : float64 array, shape (..., subgroups, subgroup)
        Magnitudes in units of the group's first scale.
    scale : float
        The scale in the same units.

    Returns
    -------
    codes : uint8 array, shape (..., subgroups, subgroup)
        Without signs.
    factors : uint8 array, shape (..., subgroups)
        Metadata, 0 to 3; the lowest on a tie.
    excess : float64 array, shape (...)
        Of whole groups.
    """
    best = np.full(u.shape[:-1], np.inf)
    codes = np.zeros(u.shape, np.uint8)
    factors = np.zeros(u.shape[:-1], np.uint8)
    for k in range(4):
        # The rounding of the quotient changes no code: at a tie the quotient is exact, and
        # elsewhere the 24 bits of u keep it 2**-24 away from every tie.
        step = scale * (4 + k) / 4
        candidate = round_magnitude(u / step, 1)
        q = e2m1_integers(candidate) * (step / 2)
        excess = np.sum(q * (q - 2 * u), axis=-1)
        better = excess < best
        best = np.where(better, excess, best)
        codes = np.where(better[..., None], candidate, codes)
        factors = np.where(better, np.uint8(k), factors)
    return codes, factors, best.sum(axis=-1)
