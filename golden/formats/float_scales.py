"""Formats of groups of 16 under a floating-point scale: NVFP4 and what was made of it.

A scale's product with a tensor scale has 28 significant bits and a magnitude 24, with small factors
a few more. Their float64 quotient therefore lies on a decision point, of at most 6 bits, only if
the exact one does, and on the same side of it otherwise: its own rounding decides nothing.
"""

from fractions import Fraction
from functools import partial

import numpy as np

from ..codec import blocked
from ..codec.numbers import e2m1_integers, groups_of
from .design_space import (
    SG_EM_FACTORS,
    check_subgroup,
    dequantize_elem_em,
    dequantize_sg,
    refine,
    refined,
    signed,
)
from .format import Format, assemble, scaled_values
from .minifloats import E2M1, INT4, UE3M3, UE4M3, UE5M3, Codec
from .nvfp4 import TENSOR_SCALE_MIN, dequantize_nvfp4, quantize_nvfp4, tensor_scale_of


def _scaled(x, tensor_scale, top):
    """Groups, magnitudes (0 in NaN groups), NaN groups and the tensor scale, also as float64.

    The tensor scale is the one given or the largest magnitude over ``top``, as float32.
    """
    groups = groups_of(x, "x", 16)
    finite = np.isfinite(groups)
    if tensor_scale is None:
        largest = np.float64(np.abs(groups).max(initial=0, where=finite))
        tensor_scale = max(np.float32(largest / top), TENSOR_SCALE_MIN)
    elif getattr(tensor_scale, "dtype", None) != np.float32 or np.ndim(tensor_scale):
        raise TypeError("tensor_scale must be one float32, not "
                        f"{getattr(tensor_scale, 'dtype', type(tensor_scale).__name__)}")
    elif not TENSOR_SCALE_MIN <= tensor_scale < np.inf:
        raise ValueError(f"tensor_scale must be finite and at least {TENSOR_SCALE_MIN}, "
                         f"not {tensor_scale}")
    bad = ~finite.all(axis=-1)
    v = np.where(bad[..., None], 0, np.abs(groups)).astype(np.float64)
    return groups, v, bad, tensor_scale, np.float64(tensor_scale)


def _over(v, steps):
    """Quotients of magnitudes, 0 where the step is 0."""
    return v / np.where(steps == 0, np.inf, steps)


def _group_scales(v, t, codec, top):
    """Codes of the scales that put groups' largest magnitudes at ``top``, and steps (..., 1)."""
    scales = codec.magnitude_codes(v.max(axis=-1) / (top * t))
    return scales, (codec.decode(scales) * t)[..., None]


def _quantize_nv(x, *, element, scale, tensor_scale=None):
    """One scale per group: the largest magnitude over the element's largest."""
    top = element.largest
    groups, v, bad, tensor_scale, t = _scaled(x, tensor_scale, top * scale.largest)
    scales, steps = _group_scales(v, t, scale, top)
    codes = element.encode(np.copysign(_over(v, steps), groups))
    return assemble(x, np.where(steps == 0, 0, codes), scales, bad, scale.nan,
                    tensor_scale=tensor_scale)


def _quantize_ue5m3(x):
    return _quantize_nv(x, element=E2M1, scale=UE5M3, tensor_scale=np.float32(1))


def _dequantize_nv(q, *, element, scale):
    return scaled_values(q, element.decode(q.elements),
                         scale.decode(q.scales) * float(q.tensor_scale))


def _nv(name, quantize, *, element=E2M1, scale=UE4M3, tensor_scale=True, dequantize=None):
    return Format(name=name, group=16, element=element, scale=scale,
                  tensor_scale=tensor_scale, quantize=quantize,
                  dequantize=dequantize or partial(_dequantize_nv, element=element, scale=scale))


def _least_error(v, t, candidates, unit):
    """Which candidate has the least sum of (v - candidate * t / unit)**2 along the last axis.

    Parameters
    ----------
    v : float64 array, shape (..., n)
    t : float64
        With a float32's significand.
    candidates : int64 array, shape (count, ..., n)
    unit : int

    Returns
    -------
    int array, shape (...)
        Ties go to the first.
    """
    # The error less the sum of v**2, over t / unit**2. Both terms of the difference are exact.
    a, b = candidates * t, 2.0 * unit * v
    excess = np.sum(candidates * (a - b), axis=-1)
    best = excess.argmin(axis=0)
    # Far above what one difference, a product and the additions of n <= 32 terms can be off.
    slack = np.sum(candidates * (a + b), axis=-1) * 2.0**-45
    near = excess - slack <= (excess + slack).min(axis=0)
    chosen = np.take_along_axis(candidates, best[None, ..., None], 0)
    different = (candidates != chosen).any(axis=-1)
    # A tie of equal candidates is the first's already.
    for index in zip(*np.nonzero((near & different).any(axis=0)), strict=True):
        best[index] = _exactly_least(v[index], t, candidates[(slice(None), *index)], unit)
    return best


def _exactly_least(v, t, candidates, unit):
    t = Fraction(float(t))
    v = [2 * unit * Fraction(value) for value in v.tolist()]
    excess = [sum(q * (q * t - value) for q, value in zip(candidate, v, strict=True))
              for candidate in candidates.tolist()]
    return excess.index(min(excess))


def _scale_integers(scales):
    """UE4M3 scales in units of 2**-9, int64."""
    return (UE4M3.decode(scales) * 512).astype(np.int64)


def _quantize_four_over_six(x, *, tensor_scale=None):
    """NVFP4 whose groups have the largest magnitude at 6 or at 4 (arXiv 2512.02010).

    The scale of the lower squared error wins, 6 on a tie. The tensor scale is that of 6 * 256, so
    that 1.5 times the largest scale has a code.
    """
    groups, v, bad, tensor_scale, t = _scaled(x, tensor_scale, 6 * 256)
    tried = []
    for top in (6, 4):
        scales, steps = _group_scales(v, t, UE4M3, top)
        tried.append((scales, E2M1.magnitude_codes(_over(v, steps))))
    scales, codes = map(np.stack, zip(*tried, strict=True))
    values = _e2m1_doubled(codes) * _scale_integers(scales)[..., None]
    four = _least_error(v, t, values, 2 * 512) == 1
    scales = np.where(four, scales[1], scales[0])
    elements = signed(groups, np.where(four[..., None], codes[1], codes[0]))
    return assemble(x, np.where(scales[..., None] == 0, 0, elements), scales, bad, UE4M3.nan,
                    tensor_scale=tensor_scale)


def _e2m1_doubled(codes):
    """Twice the value of E2M1 codes, int64."""
    return e2m1_integers(codes).astype(np.int64)


def _quantize_if4(x, *, tensor_scale=None):
    """NVFP4 whose groups are E2M1 or integers times 6/7, by the lower squared error.

    Both have the largest magnitude at 6, so they share a scale. Its sign bit selects integers,
    -7 to 7 in two's complement. E2M1 wins ties.
    """
    groups, v, bad, tensor_scale, t = _scaled(x, tensor_scale, 6 * UE4M3.largest)
    scales, steps = _group_scales(v, t, UE4M3, 6)
    # 7 * v and 6 * t are exact.
    codes = np.stack([E2M1.magnitude_codes(_over(v, steps)),
                      INT4.magnitude_codes(_over(7 * v, 6 * steps))])
    values = np.stack([7 * _e2m1_doubled(codes[0]), 12 * codes[1]])
    values *= _scale_integers(scales)[..., None]
    integer = _least_error(v, t, values, 14 * 512) == 1
    elements = np.where(integer[..., None],
                        np.where(np.signbit(groups), -codes[1], codes[1]) & 15,
                        signed(groups, codes[0]))
    return assemble(x, np.where(steps == 0, 0, elements), scales | integer << 7, bad, UE4M3.nan,
                    tensor_scale=tensor_scale)


def _dequantize_if4(q):
    integer = (q.scales >> 7).astype(bool).repeat(16, axis=-1)
    values = np.where(integer, 6 * INT4.decode(q.elements), E2M1.decode(q.elements))
    # A quotient by 7 of 34 bits is not so close to a tie of float32 that float64 would hide it.
    scales = UE4M3.decode(q.scales & 127)
    values = values * (scales * float(q.tensor_scale)).repeat(16, axis=-1)
    return scaled_values(q, np.where(integer, values / 7, values),
                         np.where(np.isnan(scales), np.nan, 1.0))


RAZER = Codec(name="E2M1, 5", bits=4, sign="bit", count=8,
              values=np.where(np.arange(16) == 8, 5, E2M1.values))
"""E2M1 with 5 in place of -0, or another special value, which the scale's further bits select."""


def _quantize_razer(x, *, specials, scale, least, tensor_scale=None):
    """Groups of E2M1 whose code of -0 is one of some special values, by the least squared error.

    A special value is 5 or above 6, of either sign, and takes what is at least as near to it as to
    its neighbours. The scale has the group's largest magnitude at 6, or at a special value above
    it, and a code of at least ``least``. Zeros have no sign.
    """
    groups, v, bad, tensor_scale, t = _scaled(x, tensor_scale, 6 * scale.largest)
    largest, negative = v.max(axis=-1), np.signbit(groups)
    unit = scale.values[1]
    tried = []
    for special in specials:
        magnitude = abs(special)
        # Between 4 and 6, or above 6.
        low, high = (4.5, 5.5) if magnitude == 5 else ((6 + magnitude) / 2, np.inf)
        scales = scale.magnitude_codes(largest / (max(6, magnitude) * t))
        scales = np.where(largest > 0, np.maximum(scales, least), 0)
        u = _over(v, (scale.decode(scales) * t)[..., None])
        takes = (u >= low) & (u <= high) & (negative == (special < 0))
        codes = E2M1.magnitude_codes(u)
        values = np.where(takes, int(2 * magnitude), _e2m1_doubled(codes))
        codes = np.where(takes, 8, np.where(codes == 0, 0, signed(groups, codes)))
        tried.append((np.where(scales[..., None] == 0, 0, codes), scales,
                      values * (scale.decode(scales) / unit).astype(np.int64)[..., None]))
    codes, scales, values = map(np.stack, zip(*tried, strict=True))
    best = _least_error(v, t, values, int(2 / unit))
    scales = _chosen(scales, best) | best << scale.bits
    return assemble(x, _chosen(codes, best), scales, bad, scale.nan, tensor_scale=tensor_scale)


def _chosen(candidates, best):
    """Of candidates (count, ..., further axes) those of indices (...)."""
    index = best.reshape(1, *best.shape, *[1] * (candidates.ndim - best.ndim - 1))
    return np.take_along_axis(candidates, index, 0)[0]


def _dequantize_razer(q, *, specials, scale):
    special = np.array(specials)[q.scales >> scale.bits].repeat(16, axis=-1)
    return scaled_values(q, np.where(q.elements == 8, special, E2M1.decode(q.elements)),
                         scale.decode(q.scales & 2**scale.bits - 1) * float(q.tensor_scale))


def _razer(name, specials, scale, least):
    return Format(
        name=name, group=16, element=RAZER, scale=scale, tensor_scale=True,
        quantize=partial(_quantize_razer, specials=specials, scale=scale, least=least),
        dequantize=partial(_dequantize_razer, specials=specials, scale=scale),
        special_groups=np.stack([np.where(np.arange(16) == 8, s, E2M1.values) for s in specials]))


def razer_activations():
    """RaZeR's activations (arXiv 2501.04052): NVFP4 whose code of -0 is 5, or -5.

    The latter where the scale's sign bit is set. 5 takes what lies from 4.5 to 5.5, both ends
    included. The sign of the lower squared error wins, the positive one on a tie.

    Returns
    -------
    Format
    """
    return _razer("RaZeR activations", (5, -5), UE4M3, 0)


OUTLIERS = tuple(n / 2 for n in range(13, 32))
"""Larger special values offered for RaZeR's weights: 5 bits hold twice of one."""


def razer_weights(outlier=8):
    """RaZeR's weights (arXiv 2501.04052): an E3M3 scale and two bits that select a special value.

    In place of -0 it is 5, -5, ``outlier`` or ``-outlier``, by two bits above the scale's six. With
    the first two the group's largest magnitude is at 6, with the others at ``outlier``; the least
    squared error wins, the first on a tie. The tensor scale has the largest magnitude at 6 * 28. A
    scale is at least 2**-5, the smallest one, unless the group is zero.

    The sources leave open, and here it is taken so:

    - ``outlier`` is chosen for each model, and no part of the record; the authors' code has 8.
    - That code rounds scales below 1/4 to E4M3, of which six bits hold too few. Here they are
      multiples of 2**-5, subnormals of E3M3 with a bias of 3.
    - The largest scale is 28, as in that code; that of the uppermost code, which would be 30, is
      NaN.
    - The order of the two bits' values is that in which the code tries them.
    - What is as near to the special value as to another becomes the special value, as in the
      activations; the code takes the lower of two.

    Parameters
    ----------
    outlier : float
        The larger special value, a multiple of 0.5 from 6.5 to 15.5.

    Returns
    -------
    Format

    Raises
    ------
    ValueError
        If ``outlier`` is something else.
    """
    if outlier not in OUTLIERS:
        raise ValueError(f"outlier must be a multiple of 0.5 from {OUTLIERS[0]} to {OUTLIERS[-1]}, "
                         f"not {outlier!r}")
    name = "RaZeR weights" if outlier == 8 else f"RaZeR weights {outlier:g}"
    return _razer(name, (5, -5, outlier, -outlier), UE3M3, 1)


def _nv_scales(q):
    return UE4M3.decode(q.scales) * float(q.tensor_scale)


def _m2_elem_em(v, scales, t):
    """Codes, metadata and, in units of t / (8 * 512), values of subgroups (..., n, subgroup)."""
    steps = (UE4M3.decode(scales) * t)[..., None, None]
    codes, metadata = refine(_over(v, steps))
    values = (8 * refined(codes, metadata)).astype(np.int64)
    return codes, metadata, values * _scale_integers(scales)[..., None, None]


def _m2_sg_em(v, scales, t):
    steps = (UE4M3.decode(scales) * t)[..., None, None]
    codes = np.stack([E2M1.magnitude_codes(_over(4 * v, k * steps)) for k in range(4, 8)])
    values = _e2m1_doubled(codes) * np.arange(4, 8).reshape(4, *[1] * v.ndim)
    values *= _scale_integers(scales)[..., None, None]
    metadata = _least_error(v, t, values, 8 * 512)
    return _chosen(codes, metadata).astype(np.uint8), metadata, _chosen(values, metadata)


def _neighbours(scales, biases):
    """UE4M3 codes that are so much further, shape (count, ...); those beyond either end are it."""
    biases = np.array(biases).reshape(-1, *[1] * scales.ndim)
    return np.clip(scales + biases, 0, UE4M3.count - 1)


def _quantize_m2_nvfp4(x, *, encode, subgroup, adaptive, tensor_scale=None):
    groups, v, bad, tensor_scale, t = _scaled(x, tensor_scale, 6 * UE4M3.largest)
    start, _ = _group_scales(v, t, UE4M3, 6)
    scales = start[None]
    if adaptive:
        # By rising scale. Below the smallest one all is 0, which is never better.
        scales = _neighbours(start, (-1, 0, 1))
    codes, metadata, values = map(np.stack, zip(*(
        encode(v.reshape(*start.shape, -1, subgroup), tried, t) for tried in scales), strict=True))
    best = np.zeros(start.shape, np.intp)
    if adaptive:
        best = _least_error(v, t, values.reshape(-1, *v.shape), 8 * 512)
    scales = _chosen(scales, best)
    elements = np.where(scales[..., None] == 0, 0, signed(groups, _chosen(codes, best)))
    return assemble(x, elements, scales, bad, UE4M3.nan, metadata=_chosen(metadata, best),
                    tensor_scale=tensor_scale)


def m2_nvfp4(kind, subgroup=8, *, adaptive=False):
    """NVFP4 with M2XFP's metadata: two bits per subgroup of a group of 16.

    Scales are those of NVFP4. Sg-EM takes the factor of the least squared error, the lowest on a
    tie. Two bits per 8 elements are 4.75 bits per element; the 5 bits of specification section 9
    are two per 4.

    The paper leaves open which scales an adaptive encoder tries. Here those are NVFP4's and the
    ones of the next lower and the next higher code, as M2XFP tries neighbouring exponents. The
    largest scale, 448, has none above it.

    Parameters
    ----------
    kind : str
        "Elem-EM" or "Sg-EM".
    subgroup : int
        Elements per two metadata bits: 2, 4, 8 or 16.
    adaptive : bool
        The encoder tries three scales and takes that of the least squared error, compared exactly;
        ties go to the lowest scale.

    Returns
    -------
    Format
    """
    check_subgroup(subgroup, 16)
    if kind not in ("Elem-EM", "Sg-EM"):
        raise ValueError(f"kind must be 'Elem-EM' or 'Sg-EM', not {kind!r}")
    if kind == "Elem-EM":
        encode, dequantize = _m2_elem_em, dequantize_elem_em
    else:
        encode, dequantize = _m2_sg_em, partial(dequantize_sg, factors=SG_EM_FACTORS)
    return Format(name=f"M2-NVFP4 {kind}-{subgroup}{' adaptive' if adaptive else ''}", group=16,
                  element=E2M1, scale=UE4M3, tensor_scale=True, subgroup=subgroup,
                  metadata_bits=2,
                  quantize=partial(_quantize_m2_nvfp4, encode=encode, subgroup=subgroup,
                                   adaptive=adaptive),
                  dequantize=partial(dequantize, subgroup=subgroup, decode_scales=_nv_scales))


def _quantize_searched(x, *, tensor_scale=None):
    """NVFP4 whose groups take the best of nine scales, by the least squared error.

    They are NVFP4's and those of the four codes below and above it. Errors are compared exactly; of
    equals the nearest to NVFP4's wins, and then the lower. Tensor scales are those of NVFP4.
    """
    groups, v, bad, tensor_scale, t = _scaled(x, tensor_scale, 6 * UE4M3.largest)
    start, _ = _group_scales(v, t, UE4M3, 6)
    scales = _neighbours(start, (0, -1, 1, -2, 2, -3, 3, -4, 4))
    near = _near_least(v, t, scales)
    best = near.argmax(axis=0)
    open_ = near.sum(axis=0) > 1
    v_open, tried = v[open_], scales[:, open_]
    codes = E2M1.magnitude_codes(_over(v_open, (UE4M3.decode(tried) * t)[..., None]))
    best[open_] = _least_error(
        v_open, t, _e2m1_doubled(codes) * _scale_integers(tried)[..., None], 2 * 512)
    scales = _chosen(scales, best)
    steps = (UE4M3.decode(scales) * t)[..., None]
    elements = signed(groups, E2M1.magnitude_codes(_over(v, steps)))
    return assemble(x, np.where(steps == 0, 0, elements), scales, bad, UE4M3.nan,
                    tensor_scale=tensor_scale)


def _near_least(v, t, scales):
    """Which scales (count, ...) may have the least squared error, by float32: at least that one."""
    # In units of the first scale, or the smallest one. What is too large for squares in float32
    # gives no number, and nothing is said.
    unit = UE4M3.decode(np.maximum(scales[0], 1))
    with np.errstate(over="ignore", invalid="ignore"):
        # Element i of all groups side by side in row i.
        u = (v / (unit * t)[..., None]).astype(np.float32).reshape(-1, v.shape[-1]).T.copy()
        errors = np.empty((len(scales), u.shape[1]), np.float32)
        for tried, error in zip(UE4M3.decode(scales) / unit, errors, strict=True):
            step = tried.reshape(-1).astype(np.float32)
            values = blocked.e2m1_codes(u, step, halves=True) * (step / 2)
            error[...] = np.square(values - u).sum(axis=0)
        # Above what roundings of values, of differences and of 16 squares add up to.
        slack = np.square(u).sum(axis=0) * np.float32(2.0**-18)
        far = errors - slack > (errors + slack).min(axis=0)
    return ~far.reshape(scales.shape)


def _quantize_nvfp4(x, *, tensor_scale=None):
    return quantize_nvfp4(x, tensor_scale_of(x) if tensor_scale is None else tensor_scale)


FORMATS = (
    _nv("NVFP4", _quantize_nvfp4, dequantize=dequantize_nvfp4),
    _nv("NVFP4 searched", _quantize_searched),
    _nv("NVFP4 four-over-six", _quantize_four_over_six),
    _nv("NVFP4-UE5M3", _quantize_ue5m3, scale=UE5M3, tensor_scale=False),
    _nv("NVINT4", partial(_quantize_nv, element=INT4, scale=UE4M3), element=INT4),
    _nv("IF4", _quantize_if4, dequantize=_dequantize_if4),
    razer_activations(),
    razer_weights(),
    *(m2_nvfp4(kind, subgroup, adaptive=adaptive) for adaptive in (False, True)
      for kind in ("Elem-EM", "Sg-EM") for subgroup in (8, 4)),
)
"""All of them; their names are unique."""
