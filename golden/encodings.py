"""Sg-EM for activations, step by step: a subgroup factor in place of a refined element."""

from dataclasses import replace

from . import weight_encoder
from .formats import groups_of
from .quantization_engine import assemble, group_scales, scaled_magnitudes
from .weight_encoder import best_factors


def definition(x, *, encoding, group=32, subgroup=8, rule="floor"):
    """The encoders "sg-threshold" and "sg-em" of `quantize_activations`, which gives the same.

    Parameters are checked there.
    """
    if encoding == "sg-em":
        q = weight_encoder.definition(x, group=group, subgroup=subgroup, rule=rule)
        return replace(q, kind="activation", encoding="sg-em")

    groups = groups_of(x, "x", group)
    scales, bad = group_scales(groups, "threshold")
    u = scaled_magnitudes(groups, scales, bad).reshape(*scales.shape, -1, subgroup)
    # Below 11, so that the bounds that make the comparison exact hold all the same.
    codes, factors, _ = best_factors(u, 1.0)
    return assemble("activation", x.shape, groups, codes, factors, scales, bad, subgroup,
                    encoding="sg-em")
