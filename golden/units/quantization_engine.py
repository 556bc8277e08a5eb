# SPDX-License-Identifier: BSD-2-Clause
"""Reference of the quantization engine: Elem-EM for activations (specification section 3).

`quantize_activations` also offers the other encodings of the same record.
"""

import numpy as np

from ..codec import blocked
from ..codec.arrays import BoolArray, Float32Array, Float64Array, FloatArray, IntArray, UInt8Array
from ..codec.numbers import (
    RULES,
    SCALE_NAN,
    check_sizes,
    check_tensor,
    check_threads,
    default_group,
    groups_of,
    round_magnitude,
    scale_codes,
)
from ..codec.quantized import Quantized
from .top1 import top1

ENCODINGS = {"elem-em": "elem-em", "sg-threshold": "sg-em", "sg-em": "sg-em", "mixed": "mixed",
             "sg-special": "sg-special", "sg-special64": "sg-special64"}
"""By encoder of activations, the encoding that its result is decoded by."""


def quantize_activations(x: FloatArray, *, group: int | None = None, subgroup: int = 8,
                         rule: str = "floor", encoding: str = "elem-em", threads: int = 1
                         ) -> Quantized:
    """Quantizes activations to M2XFP.

    Elements are rounded to nearest, ties to even. They saturate at 6 times the scale, times the
    factor if there is one. Float32 subnormals are exact. A group that holds NaN or an infinity
    becomes a NaN group: its scale is 255, all its other codes are 0. The encodings differ in the
    metadata of each subgroup:

    - "elem-em": a refinement of the subgroup's largest element, as in the paper's Algorithm 1
      (specification section 3). The quantization engine does this.
    - "sg-threshold": a factor of 1, 1.25, 1.5 or 1.75 that has the least squared error; ties go to
      the lowest factor. The scale is one lower than that of "floor" where the significand of the
      group's largest magnitude is below 1.375 (section 10). The weight encoder offers this.
    - "sg-em": a factor under a scale that is searched as `quantize_weights` does (section 4).
    - "mixed": "elem-em" in groups that have a lower squared error with it, "sg-threshold" in all
      others. A code of -0 marks the former, so that zeros have no sign (section 11).
    - "sg-special": a factor; and code 8, in the place of -0, is the one of the special values 5,
      -5, 8 and -8 that has the least squared error in the group. Scales are 2**-31 to 2**32, which
      has every float16 in range; beyond this range elements saturate or become zero (section 12).
    - "sg-special64": the same in groups of 64, with factors of 1 to 1.75 and of 2 to 3.5, three
      metadata bits per subgroup (section 18).

    Errors are compared exactly.

    Parameters
    ----------
    x : array of float32, float16 or bfloat16, shape (..., K)
        Activations. Groups lie along the last axis, which is padded with +0 to whole groups.
    group : int, optional
        Elements per scale: 16 or 32, which is the default. Sg-special64 has 64 only.
    subgroup : int
        Elements per two metadata bits: 4, 8, 16 or 32, dividing ``group``. Sg-special64 has 8 only.
    rule : str
        Scale rule: "floor", "ceil", "rtn1" or "rtn2" (section 5). All encodings
        but Elem-EM and Sg-EM have rules of their own and take only the default.
    encoding : str
        "elem-em", "sg-threshold", "sg-em", "mixed", "sg-special" or "sg-special64".
    threads : int
        Threads that share the work, at least 1. The result does not depend on it.

    Returns
    -------
    Quantized
        Of kind "activation". Its encoding has the name of the argument, but it is "sg-em" for
        "sg-threshold".

    Raises
    ------
    TypeError
        If ``x`` is not an array of a supported type, or ``threads`` is not an integer.
    ValueError
        If ``x`` is empty, or a size, the rule, the encoding or the number of threads is not
        offered.
    """
    group = default_group(encoding) if group is None else group
    check_sizes(group, subgroup, encoding)
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


def definition(x: FloatArray, *, group: int = 32, subgroup: int = 8, rule: str = "floor"
               ) -> Quantized:
    """Encodes whole tensors in Elem-EM step by step, as the specification defines it.

    `quantize_activations` gives the same bits faster; it also checks the parameters.
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


def check_rule(rule: str) -> None:
    """Raises ValueError unless the scale rule is offered."""
    if rule not in RULES:
        raise ValueError(f"rule must be one of {RULES}, not {rule!r}")


def check_own_rule(rule: str, encoding: str) -> None:
    """Raises ValueError unless an encoding with a rule of its own gets the default."""
    if rule != "floor":
        raise ValueError(f"rule must be 'floor' with encoding {encoding!r}, which has its own, "
                         f"not {rule!r}")


def group_scales(groups: Float32Array, rule: str) -> tuple[IntArray, BoolArray]:
    """Scale codes of groups under a rule.

    Parameters
    ----------
    groups : float32 array, shape (..., group)
    rule : str

    Returns
    -------
    scales : int32 array, shape (...)
    bad : bool array, shape (...)
        Whether a group holds NaN or an infinity. Its scale has no meaning.
    """
    largest = (groups.view(np.uint32) & 0x7FFFFFFF).max(axis=-1)
    return scale_codes(largest, rule), largest >= 0x7F800000


def scaled_magnitudes(groups: Float32Array, scales: IntArray, bad: BoolArray) -> Float64Array:
    """Magnitudes of groups in units of their scales, exact; 0 throughout a NaN group."""
    finite = np.where(bad[..., None], 0, np.abs(groups)).astype(np.float64)
    return np.ldexp(finite, 127 - scales[..., None])


def assemble(kind: str, shape: tuple[int, ...], groups: Float32Array, codes: UInt8Array,
             metadata: UInt8Array, scales: IntArray, bad: BoolArray, subgroup: int,
             encoding: str | None = None) -> Quantized:
    """Joins signs and codes, clears NaN groups and flattens the planes to rows along K."""
    signs = np.signbit(groups).astype(np.uint8) << 3
    elements = np.where(bad[..., None], 0, signs | codes.reshape(groups.shape))
    metadata = np.where(bad[..., None], 0, metadata.reshape(*scales.shape, -1))
    rows = (*shape[:-1], -1)
    return Quantized(kind=kind, shape=shape, group=groups.shape[-1], subgroup=subgroup,
                     encoding=encoding,
                     elements=elements.reshape(rows), metadata=metadata.reshape(rows),
                     scales=np.where(bad, SCALE_NAN, scales).astype(np.uint8))
