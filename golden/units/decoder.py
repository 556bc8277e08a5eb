# SPDX-License-Identifier: BSD-2-Clause
"""Reference of the decoder (specification sections 3, 4, 11, 12 and 18)."""

from dataclasses import replace

import numpy as np

from ..codec.arrays import BoolArray, Float32Array, Int16Array, UInt8Array
from ..codec.numbers import (
    FLOAT32_NAN,
    SCALE_NAN,
    SPECIAL_ENCODINGS,
    e2m1_integers,
    e2m3_integers,
    split_scales,
)
from ..codec.quantized import Blocks, Quantized
from .top1 import top1


def scale_codes(q: Quantized) -> UInt8Array:
    """E8M0 codes of the groups' scales, also where bytes select special values.

    Parameters
    ----------
    q : Quantized

    Returns
    -------
    uint8 array, shape (..., Kpad / group)
    """
    return split_scales(q.scales)[0] if q.encoding in SPECIAL_ENCODINGS else q.scales


def element_integers(q: Quantized) -> Int16Array:
    """Values of elements in units of 1/8 of the group's scale, exact.

    Parameters
    ----------
    q : Quantized

    Returns
    -------
    int16 array, shape (..., Kpad)
        Elem-EM gives -56 to 56; the largest element of a subgroup is refined. Sg-EM gives -84 to
        84, Sg-special -112 to 112 and Sg-special64 -224 to 224; elements are multiplied by their
        subgroup's factor.
    """
    if q.encoding == "mixed":
        refined, factored = (element_integers(replace(q, encoding=encoding))
                             for encoding in ("elem-em", "sg-em"))
        marks = (q.elements == 8) & other_zeros(q)
        marked = marks.reshape(*q.scales.shape, q.group).any(axis=-1)
        return np.where(marked.repeat(q.group, axis=-1), refined, factored)

    elements = q.elements.reshape(*q.metadata.shape, q.subgroup)
    plain = e2m1_integers(elements).astype(np.int16)
    if q.encoding in SPECIAL_ENCODINGS:
        _, specials = split_scales(q.scales)
        count = q.group // q.subgroup
        plain = np.where(elements == 8, specials.repeat(count, axis=-1)[..., None], plain)
        quarters = 4 * np.array(SPECIAL_ENCODINGS[q.encoding].factors)
        integers = plain * quarters.astype(np.int16)[q.metadata][..., None]
    elif q.encoding == "sg-em":
        # The product of 2 * value and 4 + k has units of 1/2 * 1/4.
        integers = plain * (4 + q.metadata[..., None].astype(np.int16))
    else:
        lane = top1(elements)[..., None]
        code = 4 * (np.take_along_axis(elements, lane, -1) & 7) + q.metadata[..., None]
        refined = e2m3_integers(np.maximum(code, 1) - 1).astype(np.int16)
        negative = np.take_along_axis(elements, lane, -1) >= 8
        integers = 4 * plain
        np.put_along_axis(integers, lane, np.where(negative, -refined, refined), -1)
    return integers.reshape(q.elements.shape)


def other_zeros(q: Quantized) -> BoolArray:
    """Tells which elements are 0 and not their subgroup's top-1.

    Code 8 in such an element marks a group of Elem-EM in mixed (specification section 11).

    Parameters
    ----------
    q : Quantized

    Returns
    -------
    bool array, shape (..., Kpad)
    """
    elements = q.elements.reshape(*q.metadata.shape, q.subgroup)
    top = np.arange(q.subgroup) == top1(elements)[..., None]
    return ((elements & 7 == 0) & ~top).reshape(q.elements.shape)


def dequantize(q: Blocks, *, threads: int = 1) -> Float32Array:
    """Decodes a quantized tensor of any format to float32.

    In M2XFP every value is a float32 number, subnormals included, unless it is beyond float32's
    range and becomes an infinity. Code 8 gives -0 in Elem-EM and Sg-EM, +0 in mixed, and the
    group's special value in Sg-special and Sg-special64. A NaN group gives NaN (0x7FC00000).
    Values of other formats are rounded once to float32.

    Parameters
    ----------
    q : Quantized or Blocks
        As any function of this package returns it.
    threads : int
        Threads that share the work, at least 1. The result does not depend on it.

    Returns
    -------
    float32 array, shape ``q.shape``
        Without the padding.

    Raises
    ------
    TypeError
        If ``q`` is not a quantized tensor, or ``threads`` is not an integer.
    ValueError
        If ``threads`` is below 1, or if the format of ``q`` is not known.
    """
    if not isinstance(q, Blocks):
        raise TypeError(f"q must be a Quantized or Blocks, not {type(q).__name__}")
    return q.dequantize(threads=threads)


def definition(q: Quantized) -> Float32Array:
    """The decoder as the specification defines it; `dequantize` gives the same bits faster."""
    scales = scale_codes(q).repeat(q.group, axis=-1)
    integers = element_integers(q)
    with np.errstate(over="ignore"):
        values = np.ldexp(integers.astype(np.float64), scales.astype(np.int32) - 130).astype(
            np.float32)
    if q.encoding in ("elem-em", "sg-em"):
        values[(integers == 0) & (q.elements >= 8)] = -0.0
    values[scales == SCALE_NAN] = FLOAT32_NAN
    return np.ascontiguousarray(values[..., : q.shape[-1]])
