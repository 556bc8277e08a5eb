# SPDX-License-Identifier: BSD-2-Clause
"""RaZeR (arXiv 2501.04052): NVFP4 whose code of -0 is a special value."""

from functools import partial

import numpy as np

from ..units.nvfp4_quantizer import GROUP
from .compiled import Choice, FloatScaled
from .design_space import signed
from .float_scale import chosen, e2m1_doubled, least_error, over, scaled
from .format import Format, assemble, scaled_values
from .minifloats import E2M1, UE3M3, UE4M3, Codec

RAZER = Codec(name="E2M1, 5", bits=4, sign="bit", count=8,
              values=np.where(np.arange(16) == 8, 5, E2M1.values))
"""E2M1 with 5 in place of -0, or with another special value that spare bits of the scale select."""

OUTLIERS = tuple(n / 2 for n in range(13, 32))
"""Larger special values that are offered for RaZeR's weights: 5 bits hold twice the value."""


def _quantize(x, *, specials, scale, least, tensor_scale=None):
    """Groups of E2M1 whose code of -0 is one of some special values, by the least squared error.

    A special value is 5 or above 6, of either sign, and takes what is at least as near to it as to
    its neighbours. The scale has the group's largest magnitude at 6, or at a special value above
    it, and a code of at least ``least``. Zeros have no sign.
    """
    groups, v, bad, tensor_scale, t = scaled(x, tensor_scale, 6 * scale.largest)
    largest, negative = v.max(axis=-1), np.signbit(groups)
    unit = scale.values[1]
    tried = []
    for special in specials:
        magnitude = abs(special)
        # Between 4 and 6, or above 6.
        low, high = (4.5, 5.5) if magnitude == 5 else ((6 + magnitude) / 2, np.inf)
        scales = scale.magnitude_codes(largest / (max(6, magnitude) * t))
        scales = np.where(largest > 0, np.maximum(scales, least), 0)
        u = over(v, (scale.decode(scales) * t)[..., None])
        takes = (u >= low) & (u <= high) & (negative == (special < 0))
        codes = E2M1.magnitude_codes(u)
        values = np.where(takes, int(2 * magnitude), e2m1_doubled(codes))
        codes = np.where(takes, 8, np.where(codes == 0, 0, signed(groups, codes)))
        tried.append((np.where(scales[..., None] == 0, 0, codes), scales,
                      values * (scale.decode(scales) / unit).astype(np.int64)[..., None]))
    codes, scales, values = map(np.stack, zip(*tried, strict=True))
    best = least_error(v, t, values, int(2 / unit))
    scales = chosen(scales, best) | best << scale.bits
    return assemble(x, chosen(codes, best), scales, bad, scale.nan, tensor_scale=tensor_scale)


def _dequantize(q, *, specials, scale):
    special = np.array(specials)[q.scales >> scale.bits].repeat(GROUP, axis=-1)
    return scaled_values(q, np.where(q.elements == 8, special, E2M1.decode(q.elements)),
                         scale.decode(q.scales & 2**scale.bits - 1) * float(q.tensor_scale))


def _format(name, specials, scale, least):
    return Format(
        name=name, group=GROUP, element=RAZER, scale=scale, tensor_scale=True,
        encoder=partial(_quantize, specials=specials, scale=scale, least=least),
        decoder=partial(_dequantize, specials=specials, scale=scale),
        compiled=FloatScaled(
            scale, [Choice(top=max(6, abs(special)), special=special, selector=i << scale.bits)
                    for i, special in enumerate(specials)],
            unit=int(2 / scale.values[1]), least=least,
            tables=[(np.where(np.arange(16) == 8, s, E2M1.values), 1) for s in specials]),
        special_groups=np.stack([np.where(np.arange(16) == 8, s, E2M1.values) for s in specials]))


def razer_activations() -> Format:
    """RaZeR's activations: NVFP4 whose code of -0 is 5, or -5 where the scale's sign bit is set.

    The special value takes magnitudes from 4.5 to 5.5, both ends included. The sign of the lower
    squared error wins; the positive sign wins a tie.

    Returns
    -------
    Format
    """
    return _format("RaZeR activations", (5, -5), UE4M3, 0)


def razer_weights(outlier: float = 8) -> Format:
    """RaZeR's weights: an E3M3 scale and two bits that select a special value.

    In place of -0 there is 5, -5, ``outlier`` or ``-outlier``; two bits above the scale's six
    select it. With the first two the group's largest magnitude is at 6, with the others at
    ``outlier``. The least squared error wins; the first value wins a tie. The tensor scale has the
    largest magnitude at 6 * 28. A scale is at least 2**-5, the smallest one, unless the group is
    zero.

    The sources leave some choices open. This project takes these:

    - ``outlier`` is chosen for each model, and is no part of the record. The authors' code has 8.
    - The authors' code rounds scales below 1/4 to E4M3, for which six bits are too few. Here such
      scales are multiples of 2**-5, subnormals of E3M3 with a bias of 3.
    - The largest scale is 28, as in that code. The uppermost code, which would be 30, is NaN.
    - The two bits number the special values in the order in which that code tries them.
    - A magnitude halfway between the special value and another value becomes the special value, as
      in the activations. That code takes the lower of the two.

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
        If ``outlier`` is not one of these.
    """
    if outlier not in OUTLIERS:
        raise ValueError(f"outlier must be a multiple of 0.5 from {OUTLIERS[0]} to {OUTLIERS[-1]}, "
                         f"not {outlier!r}")
    name = "RaZeR weights" if outlier == 8 else f"RaZeR weights {outlier:g}"
    return _format(name, (5, -5, outlier, -outlier), UE3M3, 1)


FORMATS = (razer_activations(), razer_weights())
"""RaZeR's formats."""
