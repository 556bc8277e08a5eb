"""Activation encoder: Elem-EM (specification section 3), and others of the same record."""

import numpy as np

from ..codec import blocked
from ..codec.numbers import (
    RULES,
    SCALE_NAN,
    check_sizes,
    check_tensor,
    check_threads,
    groups_of,
    round_magnitude,
    scale_codes,
)
from ..codec.quantized import Quantized
from .top1 import top1

ENCODINGS = {"elem-em": "elem-em", "sg-threshold": "sg-em", "sg-em": "sg-em", "mixed": "mixed",
             "sg-special": "sg-special"}
"""How activations are encoded, and the encoding by which each is read."""


def quantize_activations(x, *, group=32, subgroup=8, rule="floor", encoding="elem-em", threads=1):
    """Quantizes activations to M2XFP.

    Elements are rounded to nearest, ties to even, saturating at 6 times the scale (times the
    factor). Float32 subnormals are exact. A group that holds NaN or an infinity becomes a NaN
    group: scale 255, all else 0. What the metadata say of each subgroup:

    - "elem-em", the paper's Algorithm 1 and what the hardware does: its largest element, refined.
    - "sg-threshold": a factor of 1, 1.25, 1.5 or 1.75, by the least squared error, the lowest on a
      tie; the scale is fixed, one lower than that of "floor" where the largest magnitude's
      significand is below 1.375.
    - "sg-em": a factor and the group's scale, searched as `quantize_weights` does.
    - "mixed": those of "elem-em" in groups where the squared error is then lower, and those of
      "sg-threshold" in the others. Zeros have no sign: they tell which.
    - "sg-special": a factor, and a special value, 5, -5, 8 or -8, that the group has in the place
      of -0, by the least squared error. Scales are 2**-31 to 2**32, so that every float16 is in
      range; beyond it elements saturate, or become zero.

    Errors are compared exactly. ``docs/encodings.md`` says what hardware would take.

    Parameters
    ----------
    x : array of float32, float16 or bfloat16, shape (..., K)
        Activations; groups lie along the last axis, whose tail is padded with +0.
    group : int
        Elements per scale: 16 or 32.
    subgroup : int
        Elements per two metadata bits: 4, 8, 16 or 32, dividing ``group``.
    rule : str
        Scale rule: "floor", "ceil", "rtn1" or "rtn2" (specification section 5). Sg-threshold,
        mixed and Sg-special have their own, and take only the default.
    encoding : str
        "elem-em", "sg-threshold", "sg-em", "mixed" or "sg-special".
    threads : int
        Threads that share the work, at least 1; the result does not depend on it.

    Returns
    -------
    Quantized
        Of kind "activation", and of the encoding of that name; of "sg-threshold" it is "sg-em".

    Raises
    ------
    TypeError
        If ``x`` is not an array of a supported type, or ``threads`` no integer.
    ValueError
        If ``x`` is empty, or a size, the rule, the encoding or the number of threads is not
        offered.
    """
    check_sizes(group, subgroup)
    check_rule(rule)
    if encoding not in ENCODINGS:
        raise ValueError(f"encoding must be one of {tuple(ENCODINGS)}, not {encoding!r}")
    if encoding not in ("elem-em", "sg-em"):
        check_own_rule(rule, encoding)
        rule = "threshold"
    check_threads(threads)
    check_tensor(x, "x")
    planes = blocked.encode(x, group, subgroup, rule, threads, encoding=ENCODINGS[encoding],
                         adaptive=encoding == "sg-em")
    return Quantized(kind="activation", shape=x.shape, group=group, subgroup=subgroup,
                     encoding=ENCODINGS[encoding], **planes)


def definition(x, *, group=32, subgroup=8, rule="floor"):
    """Elem-EM as the specification has it, step by step, for whole tensors at once.

    `quantize_activations` gives the same at speed. Parameters are checked there.
    """
    groups = groups_of(x, "x", group)
    scales, bad = group_scales(groups, rule)

    v = scaled_magnitudes(groups, scales, bad).reshape(*scales.shape, -1, subgroup)
    codes = round_magnitude(v, 1)
    lane = top1(codes)[..., None]
    refined = round_magnitude(np.take_along_axis(v, lane, -1), 3).astype(np.int16)
    first = 4 * np.take_along_axis(codes, lane, -1).astype(np.int16)
    metadata = (np.clip(refined + 1, first, first + 3) - first).astype(np.uint8)

    return assemble("activation", x.shape, groups, codes, metadata, scales, bad, subgroup)


def check_rule(rule):
    """Raises ValueError unless the scale rule is offered."""
    if rule not in RULES:
        raise ValueError(f"rule must be one of {RULES}, not {rule!r}")


def check_own_rule(rule, encoding):
    """Raises ValueError unless the rule is the default, for an encoding that has one of its own."""
    if rule != "floor":
        raise ValueError(f"rule must be 'floor' with encoding {encoding!r}, which has its own, "
                         f"not {rule!r}")


def group_scales(groups, rule):
    """Scale codes of float32 groups (..., group), and which groups hold NaN or an infinity."""
    largest = (groups.view(np.uint32) & 0x7FFFFFFF).max(axis=-1)
    return scale_codes(largest, rule), largest >= 0x7F800000


def scaled_magnitudes(groups, scales, bad):
    """Magnitudes in units of the scale, float64, exact; 0 throughout a NaN group."""
    finite = np.where(bad[..., None], 0, np.abs(groups)).astype(np.float64)
    return np.ldexp(finite, 127 - scales[..., None])


def assemble(kind, shape, groups, codes, metadata, scales, bad, subgroup, encoding=None):
    """Joins signs and codes, blanks NaN groups and flattens the planes to rows along K."""
    signs = np.signbit(groups).astype(np.uint8) << 3
    elements = np.where(bad[..., None], 0, signs | codes.reshape(groups.shape))
    metadata = np.where(bad[..., None], 0, metadata.reshape(*scales.shape, -1))
    rows = (*shape[:-1], -1)
    return Quantized(kind=kind, shape=shape, group=groups.shape[-1], subgroup=subgroup,
                     encoding=encoding,
                     elements=elements.reshape(rows), metadata=metadata.reshape(rows),
                     scales=np.where(bad, SCALE_NAN, scales).astype(np.uint8))
