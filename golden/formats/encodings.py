# SPDX-License-Identifier: BSD-2-Clause
"""Encodings of activations with factors, by definition (specification sections 4, 10 to 12, 18)."""

from dataclasses import replace

import numpy as np

from ..codec.arrays import FloatArray
from ..codec.numbers import SPECIAL_ENCODINGS, default_group, groups_of
from ..codec.quantized import Quantized
from ..units import quantization_engine, weight_encoder
from ..units.decoder import element_integers, other_zeros
from ..units.quantization_engine import assemble, group_scales, scaled_magnitudes
from ..units.weight_encoder import best_factors
from . import sg_special


def definition(x: FloatArray, *, encoding: str, group: int | None = None, subgroup: int = 8,
               rule: str = "floor") -> Quantized:
    """Encodes whole tensors of activations step by step, in any encoding but Elem-EM.

    `quantize_activations` gives the same bits faster; it also checks the parameters.
    """
    group = default_group(encoding) if group is None else group
    if encoding == "sg-em":
        q = weight_encoder.definition(x, group=group, subgroup=subgroup, rule=rule)
        return replace(q, kind="activation", encoding="sg-em")
    if encoding == "mixed":
        return _mixed(x, group, subgroup)
    if encoding in SPECIAL_ENCODINGS:
        return sg_special.definition(x, kind="activation", adaptive=False, group=group,
                                     subgroup=subgroup, encoding=encoding)

    groups = groups_of(x, "x", group)
    scales, bad = group_scales(groups, "threshold")
    u = scaled_magnitudes(groups, scales, bad).reshape(*scales.shape, -1, subgroup)
    # u is below 11, so that the bounds that make the comparison exact hold here, too.
    codes, factors, _ = best_factors(u, 1.0)
    return assemble("activation", x.shape, groups, codes, factors, scales, bad, subgroup,
                    encoding="sg-em")


def _mixed(x, group, subgroup):
    """Sg-threshold, or Elem-EM in groups where it has the lower squared error and can be marked.

    The difference of the errors is the sum of (a - b) * (a + b - 2 * u) over the elements; a and b
    are their values in the two encodings, u the values before. An element adds to it only if a or b
    is not 0. The unit is an eighth of Sg-threshold's scale, which is Elem-EM's scale or half of it.
    In this unit a and b are integers below 2**7, and u is above 1/2, so that with its 24 bits it is
    a multiple of 2**-24. All terms and partial sums are multiples of 2**-23 and below 2**20 in
    magnitude, and exact in float64 in any order.
    """
    factored = definition(x, encoding="sg-threshold", group=group, subgroup=subgroup)
    refined = quantization_engine.definition(x, group=group, subgroup=subgroup)
    zeros = other_zeros(refined)

    shape = (*factored.scales.shape, group)
    scales = factored.scales.astype(np.int32)
    doublings = refined.scales.astype(np.int32) - scales
    groups = groups_of(x, "x", group)
    finite = np.where(np.isfinite(groups).all(axis=-1, keepdims=True), groups, 0)
    u = np.ldexp(finite.astype(np.float64), 130 - scales[..., None])
    a = element_integers(factored).reshape(shape)
    b = element_integers(refined).reshape(shape) << doublings[..., None]
    lower = ((a - b) * (a + b - 2 * u)).sum(axis=-1) > 0
    # In a NaN group all is 0.
    chosen = lower & zeros.reshape(shape).any(axis=-1)

    marked = np.where(zeros, 8, refined.elements)
    unmarked = np.where(factored.elements == 8, 0, factored.elements)

    def choose(one, other):
        count = one.shape[-1] // chosen.shape[-1]
        return np.where(chosen.repeat(count, axis=-1), one, other).astype(np.uint8)

    return replace(factored, encoding="mixed", elements=choose(marked, unmarked),
                   metadata=choose(refined.metadata, factored.metadata),
                   scales=choose(refined.scales, factored.scales))
