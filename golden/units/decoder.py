"""Decoder (specification sections 3 and 4)."""

from dataclasses import replace

import numpy as np

from ..codec import blocked
from ..codec.numbers import (
    FLOAT32_NAN,
    SCALE_NAN,
    check_threads,
    e2m1_integers,
    e2m3_integers,
    split_scales,
)
from ..codec.quantized import check_quantized
from .top1 import top1


def scale_codes(q):
    """E8M0 codes of the groups' scales.

    Parameters
    ----------
    q : Quantized

    Returns
    -------
    uint8 array, shape (..., Kpad / group)
    """
    return split_scales(q.scales)[0] if q.encoding == "sg-special" else q.scales


def element_integers(q):
    """Elements in units of 1/8 of the group's scale, exact.

    Parameters
    ----------
    q : Quantized

    Returns
    -------
    int16 array, shape (..., Kpad)
        Refined elements of Elem-EM, -56..56, or those of Sg-EM times their subgroup's factor,
        -84..84, with special values -112..112.
    """
    if q.encoding == "mixed":
        refined, factored = (element_integers(replace(q, encoding=encoding))
                             for encoding in ("elem-em", "sg-em"))
        marks = (q.elements == 8) & other_zeros(q)
        marked = marks.reshape(*q.scales.shape, q.group).any(axis=-1)
        return np.where(marked.repeat(q.group, axis=-1), refined, factored)

    elements = q.elements.reshape(*q.metadata.shape, q.subgroup)
    plain = e2m1_integers(elements).astype(np.int16)
    if q.encoding == "sg-special":
        _, specials = split_scales(q.scales)
        count = q.group // q.subgroup
        plain = np.where(elements == 8, specials.repeat(count, axis=-1)[..., None], plain)
    if q.encoding in ("sg-em", "sg-special"):
        # (2 * value) * (4 + k), so in units of 1/2 * 1/4.
        integers = plain * (4 + q.metadata[..., None].astype(np.int16))
    else:
        lane = top1(elements)[..., None]
        code = 4 * (np.take_along_axis(elements, lane, -1) & 7) + q.metadata[..., None]
        refined = e2m3_integers(np.maximum(code, 1) - 1).astype(np.int16)
        negative = np.take_along_axis(elements, lane, -1) >= 8
        integers = 4 * plain
        np.put_along_axis(integers, lane, np.where(negative, -refined, refined), -1)
    return integers.reshape(q.elements.shape)


def other_zeros(q):
    """Which elements are 0 and not their subgroup's top-1: a bool array, shape (..., Kpad)."""
    elements = q.elements.reshape(*q.metadata.shape, q.subgroup)
    top = np.arange(q.subgroup) == top1(elements)[..., None]
    return ((elements & 7 == 0) & ~top).reshape(q.elements.shape)


def dequantize(q, *, threads=1):
    """Decodes a quantized tensor, exactly.

    Float32 holds every value, down to its subnormals, but those beyond its range, which read as
    infinities. A negative zero code reads as -0, but as +0 where encodings are mixed, and in
    Sg-special as the group's special value; a NaN group reads as NaN (0x7FC00000).

    Parameters
    ----------
    q : Quantized
    threads : int
        Threads that share the work, at least 1; the result does not depend on it.

    Returns
    -------
    float32 array
        Of the original shape: the padding is cut off.

    Raises
    ------
    TypeError
        If ``q`` is not a Quantized, or ``threads`` no integer.
    ValueError
        If ``threads`` is below 1.
    """
    check_quantized(q, "q")
    check_threads(threads)
    return blocked.decode(q, threads)


def definition(q):
    """The decoder as the specification has it; `dequantize` gives the same at speed."""
    scales = scale_codes(q).repeat(q.group, axis=-1)
    integers = element_integers(q)
    with np.errstate(over="ignore"):
        values = np.ldexp(integers.astype(np.float64), scales.astype(np.int32) - 130).astype(
            np.float32)
    if q.encoding in ("elem-em", "sg-em"):
        values[(integers == 0) & (q.elements >= 8)] = -0.0
    values[scales == SCALE_NAN] = FLOAT32_NAN
    return np.ascontiguousarray(values[..., : q.shape[-1]])
