# SPDX-License-Identifier: BSD-2-Clause
"""NVFP4 and its variants: groups of 16 under a floating-point scale, tensors under a float32 one.

NVFP4 itself is encoded by its unit's reference, `golden.units.nvfp4_quantizer`.
"""

from functools import partial
from typing import Any

import numpy as np

from ..codec import blocked
from ..codec.arrays import Float32Array, FloatArray
from ..codec.numbers import FLOAT32_NAN, e2m1_integers, groups_of
from ..codec.quantized import Blocks
from ..units.nvfp4_quantizer import (
    E4M3_VALUES,
    GROUP,
    SCALE_MAX,
    SCALE_NAN,
    TENSOR_SCALE_MIN,
    quantize_nvfp4,
)
from .compiled import Choice, FloatScaled
from .design_space import signed
from .float_scale import (
    chosen,
    e2m1_doubled,
    group_scales,
    least_error,
    neighbours,
    over,
    scale_integers,
    scaled,
)
from .format import Format, assemble, scaled_values
from .minifloats import E2M1, INT4, UE4M3, UE5M3, Codec


def tensor_scale_of(x: FloatArray) -> np.float32:
    """A tensor's scale: its largest magnitude / (6 * 448), rounded to float32.

    The largest block scale is then about 448. NaN and infinities do not count, because their groups
    have no scale.

    Parameters
    ----------
    x : array of float32, float16 or bfloat16, shape (..., K)

    Returns
    -------
    float32
        At least `golden.units.nvfp4_quantizer.TENSOR_SCALE_MIN`.
    """
    groups = groups_of(x, "x", GROUP)
    largest = np.abs(groups).max(initial=0, where=np.isfinite(groups))
    return max(np.float32(np.float64(largest) / (6 * 448)), TENSOR_SCALE_MIN)


def dequantize_nvfp4(q: Blocks) -> Float32Array:
    """Decodes a tensor in NVFP4; each value is rounded once to float32.

    Parameters
    ----------
    q : Blocks
        As `golden.units.nvfp4_quantizer.quantize_nvfp4` returns it.

    Returns
    -------
    float32 array, shape ``q.shape``
    """
    scales = q.scales.repeat(GROUP, axis=-1)
    factors = E4M3_VALUES[np.minimum(scales, SCALE_MAX)] / 2 * np.float64(q.tensor_scale)
    # The integers have no -0; its sign comes from the code.
    values = np.copysign(e2m1_integers(q.elements) * factors, np.where(q.elements & 8, -1, 1))
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    values[scales == SCALE_NAN] = FLOAT32_NAN
    return values[..., : q.shape[-1]]


def _quantize_nvfp4(x, *, tensor_scale=None):
    return quantize_nvfp4(x, tensor_scale_of(x) if tensor_scale is None else tensor_scale)


def _quantize_one_scale(x, *, element, scale, tensor_scale=None):
    """Groups under one scale: the largest magnitude over the element's largest value."""
    top = element.largest
    groups, v, bad, tensor_scale, t = scaled(x, tensor_scale, top * scale.largest)
    scales, steps = group_scales(v, t, scale, top)
    codes = element.encode(np.copysign(over(v, steps), groups))
    return assemble(x, np.where(steps == 0, 0, codes), scales, bad, scale.nan,
                    tensor_scale=tensor_scale)


def _quantize_ue5m3(x):
    return _quantize_one_scale(x, element=E2M1, scale=UE5M3, tensor_scale=np.float32(1))


def _dequantize_one_scale(q, *, element, scale):
    return scaled_values(q, element.decode(q.elements),
                         scale.decode(q.scales) * float(q.tensor_scale))


def _quantize_four_over_six(x, *, tensor_scale=None):
    """NVFP4 whose groups have the largest magnitude at 6 or at 4 (arXiv 2512.02010).

    The scale of the lower squared error wins; 6 wins a tie. The tensor scale is that of 6 * 256, so
    that 1.5 times the largest scale has a code.
    """
    groups, v, bad, tensor_scale, t = scaled(x, tensor_scale, 6 * 256)
    tried = []
    for top in (6, 4):
        scales, steps = group_scales(v, t, UE4M3, top)
        tried.append((scales, E2M1.magnitude_codes(over(v, steps))))
    scales, codes = map(np.stack, zip(*tried, strict=True))
    values = e2m1_doubled(codes) * scale_integers(scales)[..., None]
    four = least_error(v, t, values, 2 * 512) == 1
    scales = np.where(four, scales[1], scales[0])
    elements = signed(groups, np.where(four[..., None], codes[1], codes[0]))
    return assemble(x, np.where(scales[..., None] == 0, 0, elements), scales, bad, UE4M3.nan,
                    tensor_scale=tensor_scale)


def _quantize_if4(x, *, tensor_scale=None):
    """NVFP4 whose groups are E2M1 or integers times 6/7, by the lower squared error.

    Both have the largest magnitude at 6 and share a scale. The scale's sign bit selects integers,
    -7 to 7 in two's complement. E2M1 wins ties.
    """
    groups, v, bad, tensor_scale, t = scaled(x, tensor_scale, 6 * UE4M3.largest)
    scales, steps = group_scales(v, t, UE4M3, 6)
    # 7 * v and 6 * t are exact.
    codes = np.stack([E2M1.magnitude_codes(over(v, steps)),
                      INT4.magnitude_codes(over(7 * v, 6 * steps))])
    values = np.stack([7 * e2m1_doubled(codes[0]), 12 * codes[1]])
    values *= scale_integers(scales)[..., None]
    integer = least_error(v, t, values, 14 * 512) == 1
    elements = np.where(integer[..., None],
                        np.where(np.signbit(groups), -codes[1], codes[1]) & 15,
                        signed(groups, codes[0]))
    return assemble(x, np.where(steps == 0, 0, elements), scales | integer << 7, bad, UE4M3.nan,
                    tensor_scale=tensor_scale)


def _dequantize_if4(q):
    integer = (q.scales >> 7).astype(bool).repeat(GROUP, axis=-1)
    values = np.where(integer, 6 * INT4.decode(q.elements), E2M1.decode(q.elements))
    # A quotient by 7 of 34 bits is never so close to a tie of float32 that float64 would hide it.
    scales = UE4M3.decode(q.scales & 127)
    values = values * (scales * float(q.tensor_scale)).repeat(GROUP, axis=-1)
    return scaled_values(q, np.where(integer, values / 7, values),
                         np.where(np.isnan(scales), np.nan, 1.0))


_BIASES = (0, -1, 1, -2, 2, -3, 3, -4, 4)


def _quantize_searched(x, *, tensor_scale=None):
    """NVFP4 whose groups take the best of nine scales, by the least squared error.

    The scales are NVFP4's and those of the four codes below and above it. Errors are compared
    exactly. Ties go to the scale that is nearest to NVFP4's, and then to the lower one. The tensor
    scale is that of NVFP4.
    """
    groups, v, bad, tensor_scale, t = scaled(x, tensor_scale, 6 * UE4M3.largest)
    start, _ = group_scales(v, t, UE4M3, 6)
    scales = neighbours(start, _BIASES)
    near = _near_least(v, t, scales)
    best = near.argmax(axis=0)
    undecided = near.sum(axis=0) > 1
    v_undecided, tried = v[undecided], scales[:, undecided]
    codes = E2M1.magnitude_codes(over(v_undecided, (UE4M3.decode(tried) * t)[..., None]))
    best[undecided] = least_error(
        v_undecided, t, e2m1_doubled(codes) * scale_integers(tried)[..., None], 2 * 512)
    scales = chosen(scales, best)
    steps = (UE4M3.decode(scales) * t)[..., None]
    elements = signed(groups, E2M1.magnitude_codes(over(v, steps)))
    return assemble(x, np.where(steps == 0, 0, elements), scales, bad, UE4M3.nan,
                    tensor_scale=tensor_scale)


def _near_least(v, t, scales):
    """Tells in float32 which scales (count, ...) may have the least squared error; at least one."""
    # In units of the first scale, or of the smallest one if that is 0. A magnitude whose square is
    # too large for float32 gives no number, and then every scale may be the best.
    unit = UE4M3.decode(np.maximum(scales[0], 1))
    with np.errstate(over="ignore", invalid="ignore"):
        # Element i of all groups side by side in row i.
        u = (v / (unit * t)[..., None]).astype(np.float32).reshape(-1, v.shape[-1]).T.copy()
        errors = np.empty((len(scales), u.shape[1]), np.float32)
        for tried, error in zip(UE4M3.decode(scales) / unit, errors, strict=True):
            step = tried.reshape(-1).astype(np.float32)
            values = blocked.e2m1_codes(u, step, halves=True) * (step / 2)
            error[...] = np.square(values - u).sum(axis=0)
        # Above the sum of the roundings of values, of differences and of 16 squares.
        slack = np.square(u).sum(axis=0) * np.float32(2.0**-18)
        far = errors - slack > (errors + slack).min(axis=0)
    return ~far.reshape(scales.shape)


def _format(name: str, quantize: Any, *, element: Codec = E2M1, scale: Codec = UE4M3,
            tensor_scale: bool = True, dequantize: Any = None,
            choices: tuple[Choice, ...] = (Choice(top=6),), **options: Any) -> Format:
    return Format(name=name, group=GROUP, element=element, scale=scale,
                  tensor_scale=tensor_scale, encoder=quantize,
                  decoder=dequantize or partial(_dequantize_one_scale, element=element,
                                                scale=scale),
                  compiled=FloatScaled(scale, choices, **options))


FORMATS = (
    _format("NVFP4", _quantize_nvfp4, dequantize=dequantize_nvfp4),
    _format("NVFP4 searched", _quantize_searched, unit=2 * 512,
            choices=tuple(Choice(top=6, bias=bias) for bias in _BIASES)),
    _format("NVFP4 four-over-six", _quantize_four_over_six, unit=2 * 512,
            choices=(Choice(top=6), Choice(top=4))),
    _format("NVFP4-UE5M3", _quantize_ue5m3, scale=UE5M3, tensor_scale=False),
    _format("NVINT4", partial(_quantize_one_scale, element=INT4, scale=UE4M3), element=INT4,
            choices=(Choice(top=7, element=INT4),), tables=((INT4.values, 1),)),
    _format("IF4", _quantize_if4, dequantize=_dequantize_if4, unit=14 * 512,
            choices=(Choice(top=6, weight=7),
                     Choice(top=6, element=INT4, ratio=(7, 6), weight=12, selector=128)),
            tables=((E2M1.values, 1), (6 * INT4.values, 7))),
)
"""NVFP4 and its variants."""
