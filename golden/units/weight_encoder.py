"""Weight encoder: Sg-EM with adaptive shared scale (specification section 4), and Sg-special."""

import numpy as np

from ..codec import blocked
from ..codec.numbers import (
    SCALE_MAX,
    check_sizes,
    check_tensor,
    check_threads,
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


def quantize_weights(w, *, group=32, subgroup=8, rule="floor", adaptive=True, encoding="sg-em",
                     threads=1):
    """Quantizes weights to M2XFP (Sg-EM): the least squared error over factors and scales.

    Every subgroup takes the factor 1, 1.25, 1.5 or 1.75 and, if adaptive, every group one of
    three neighbouring scales; ties go to the lowest factor and then the lowest scale. Errors
    are compared exactly. Elements are rounded to nearest, ties to even. A group that holds NaN
    or an infinity becomes a NaN group: scale 255, all else 0.

    Sg-special, which the hardware does not read, also has a special value in the place of -0, and
    takes the best of four; see `quantize_activations`. Adaptive, it tries two scales, that of the
    floor rule and the next lower one.

    Parameters
    ----------
    w : array of float32, float16 or bfloat16, shape (..., K)
        Weights; groups lie along the last axis, whose tail is padded with +0.
    group : int
        Elements per scale: 16 or 32.
    subgroup : int
        Elements per two metadata bits: 4, 8, 16 or 32, dividing ``group``.
    rule : str
        Rule of the starting scale: "floor", "ceil", "rtn1" or "rtn2" (section 5). Sg-special takes
        only the default.
    adaptive : bool
        Also try the next lower and the next higher scale.
    encoding : str
        "sg-em" or "sg-special".
    threads : int
        Threads that share the work, at least 1; the result does not depend on it.

    Returns
    -------
    Quantized
        Of kind "weight".

    Raises
    ------
    TypeError
        If ``w`` is not an array of a supported type, or ``threads`` no integer.
    ValueError
        If ``w`` is empty, or a size, the rule, the encoding or the number of threads is not
        offered.
    """
    check_sizes(group, subgroup)
    check_rule(rule)
    if encoding not in ENCODINGS["weight"]:
        raise ValueError(f"encoding must be one of {ENCODINGS['weight']}, not {encoding!r}")
    if encoding == "sg-special":
        check_own_rule(rule, encoding)
    check_threads(threads)
    check_tensor(w, "w")
    planes = blocked.encode(w, group, subgroup, rule, threads, encoding=encoding, adaptive=adaptive)
    return Quantized(kind="weight", shape=w.shape, group=group, subgroup=subgroup,
                     encoding=encoding, **planes)


def definition(w, *, group=32, subgroup=8, rule="floor", adaptive=True):
    """The encoder as the specification has it, step by step, for whole tensors at once.

    `quantize_weights` gives the same at speed. Parameters are checked there.
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


def best_factors(u, scale):
    """Best codes and factors of subgroups (..., subgroup) at a scale, and the groups' excess.

    The excess is the squared error less the sum of ``u**2``, which all candidates share: the
    sum of q * (q - 2 * u) over the elements' values q. An element adds to it only where q is
    not 0, hence u >= 1/8; there u is a multiple of 2**-26 and q of 2**-4, so that every term
    and every partial sum is a multiple of 2**-29 below 2**15 in magnitude: exact in float64,
    whatever the order. Errors are therefore compared exactly.
    """
    best = np.full(u.shape[:-1], np.inf)
    codes = np.zeros(u.shape, np.uint8)
    factors = np.zeros(u.shape[:-1], np.uint8)
    for k in range(4):
        # The quotient's rounding decides nothing: at a tie the quotient is exact, and elsewhere
        # the 24 bits of u keep it 2**-24 away.
        step = scale * (4 + k) / 4
        candidate = round_magnitude(u / step, 1)
        q = e2m1_integers(candidate) * (step / 2)
        excess = np.sum(q * (q - 2 * u), axis=-1)
        better = excess < best
        best = np.where(better, excess, best)
        codes = np.where(better[..., None], candidate, codes)
        factors = np.where(better, np.uint8(k), factors)
    return codes, factors, best.sum(axis=-1)
