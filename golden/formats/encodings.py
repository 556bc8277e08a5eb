"""Other encodings of activations, step by step: a subgroup factor, or what is better of both."""

from dataclasses import replace

import numpy as np

from ..codec.numbers import groups_of
from ..units import quantization_engine, weight_encoder
from ..units.decoder import element_integers, other_zeros
from ..units.quantization_engine import assemble, group_scales, scaled_magnitudes
from ..units.weight_encoder import best_factors
from . import sg_special


def definition(x, *, encoding, group=32, subgroup=8, rule="floor"):
    """All encoders of `quantize_activations` but "elem-em", step by step: the same bits.

    Parameters are checked there.
    """
    if encoding == "sg-em":
        q = weight_encoder.definition(x, group=group, subgroup=subgroup, rule=rule)
        return replace(q, kind="activation", encoding="sg-em")
    if encoding == "mixed":
        return _mixed(x, group, subgroup)
    if encoding == "sg-special":
        return sg_special.definition(x, kind="activation", adaptive=False, group=group,
                                     subgroup=subgroup)

    groups = groups_of(x, "x", group)
    scales, bad = group_scales(groups, "threshold")
    u = scaled_magnitudes(groups, scales, bad).reshape(*scales.shape, -1, subgroup)
    # Below 11, so that the bounds that make the comparison exact hold all the same.
    codes, factors, _ = best_factors(u, 1.0)
    return assemble("activation", x.shape, groups, codes, factors, scales, bad, subgroup,
                    encoding="sg-em")


def _mixed(x, group, subgroup):
    """Sg-threshold, and Elem-EM in groups where that has the lower squared error and a mark.

    The errors' difference is the sum of (a - b) * (a + b - 2 * u) over the elements, a and b their
    values in either encoding and u what they were. An element adds to it only where a or b is not
    0. In eighths of Sg-threshold's scale, which is that of Elem-EM or half of it, a and b are
    integers below 2**7, and u is then above 1/2, so with its 24 bits a multiple of 2**-24. So all
    terms and partial sums are multiples of 2**-23 below 2**20 in magnitude: exact in float64,
    whatever the order.
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
