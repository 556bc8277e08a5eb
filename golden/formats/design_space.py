# SPDX-License-Identifier: BSD-2-Clause
"""The design space around M2XFP: E2M1 under a power of two, with metadata per subgroup."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..codec.arrays import Float32Array, Float64Array, UInt8Array
from ..codec.numbers import SCALE_MAX, e2m1_integers, e2m3_integers, groups_of, round_magnitude
from ..codec.quantized import Blocks
from ..units.quantization_engine import check_rule, group_scales, scaled_magnitudes
from ..units.top1 import top1
from .format import Format, assemble, scaled_values
from .minifloats import E2M1, E8M0

SUBGROUPS = (2, 4, 8, 16, 32)
"""Subgroup sizes of the design space; a subgroup divides its group."""


def _start(x, subgroup, rule):
    """Groups of 32, their scale codes, a mask of NaN groups, and magnitudes in scales."""
    check_rule(rule)
    groups = groups_of(x, "x", 32)
    scales, bad = group_scales(groups, rule)
    u = scaled_magnitudes(groups, scales, bad).reshape(*scales.shape, -1, subgroup)
    return groups, scales, bad, u


def check_subgroup(subgroup: int, group: int) -> None:
    """Raises ValueError unless a subgroup size is offered and divides the group."""
    sizes = tuple(n for n in SUBGROUPS if n <= group)
    if subgroup not in sizes:
        raise ValueError(f"subgroup must be one of {sizes}, not {subgroup!r}")


def _best_scale(start, adaptive, encode):
    """Encodes groups under the scale of the least squared error: codes, metadata and scales.

    ``encode`` takes a scale in units of the first one. It returns codes (..., subgroups, subgroup),
    metadata (..., subgroups) and the squared error less a term that all scales share (...), exact.
    """
    codes, metadata, least = encode(1.0)
    scales = start
    if adaptive:
        # Ties go to the lowest scale.
        for bias, wins in (-1, np.less_equal), (1, np.less):
            other = encode(2.0**bias)
            better = wins(other[2], least) & (start + bias >= 0) & (start + bias <= SCALE_MAX)
            codes = np.where(better[..., None, None], other[0], codes)
            metadata = np.where(better[..., None], other[1], metadata)
            least = np.where(better, other[2], least)
            scales = np.where(better, start + bias, scales)
    return codes, metadata, scales


def _largest(codes, count):
    """Lanes of the ``count`` largest E2M1 codes of subgroups, in descending order.

    Ties go to the lowest lane.
    """
    if count == 1:
        return top1(codes)[..., None]
    return np.argsort(7 - (codes & 7), axis=-1, kind="stable")[..., :count]


def refine(v: Float64Array, top: int = 1) -> tuple[UInt8Array, UInt8Array]:
    """Encodes subgroups in Elem-EM.

    Parameters
    ----------
    v : float64 array, shape (..., subgroup)
        Magnitudes in units of their scale.
    top : int
        Number of refined elements.

    Returns
    -------
    codes : uint8 array, shape (..., subgroup)
        Without signs.
    metadata : uint8 array, shape (...)
        Two bits per refined element; the largest element has the lowest two.
    """
    codes = round_magnitude(v, 1)
    lanes = _largest(codes, top)
    refined = round_magnitude(np.take_along_axis(v, lanes, -1), 3).astype(np.int16)
    first = 4 * np.take_along_axis(codes, lanes, -1).astype(np.int16)
    each = np.clip(refined + 1, first, first + 3) - first
    return codes, (each << 2 * np.arange(top)).sum(axis=-1).astype(np.uint8)


def refined(codes: UInt8Array, metadata: UInt8Array, top: int = 1) -> Float64Array:
    """Decodes what `refine` gave to magnitudes in units of the scale."""
    magnitudes = np.abs(e2m1_integers(codes)) / 2
    lanes = _largest(codes, top)
    each = metadata[..., None] >> 2 * np.arange(top) & 3
    code = 4 * (np.take_along_axis(codes, lanes, -1) & 7) + each
    np.put_along_axis(magnitudes, lanes, e2m3_integers(np.maximum(code, 1) - 1) / 8, -1)
    return magnitudes


def signed(groups: Float32Array, codes: NDArray[Any]) -> NDArray[Any]:
    """Gives E2M1 codes the signs of their groups' elements."""
    return codes.reshape(groups.shape) | np.signbit(groups).astype(np.uint8) << 3


def _quantize_elem_em(x, *, subgroup, top, adaptive, rule="floor"):
    groups, start, bad, u = _start(x, subgroup, rule)

    def encode(scale):
        codes, metadata = refine(u / scale, top)
        q = refined(codes, metadata, top) * scale
        # Exact: a term is 0, or u is above 2**-5 and the term a multiple of 2**-31 below 2**9.
        return codes, metadata, np.sum(q * (q - 2 * u), axis=(-2, -1))

    codes, metadata, scales = _best_scale(start, adaptive, encode)
    return assemble(x, signed(groups, codes), scales, bad, E8M0.nan, metadata=metadata)


def dequantize_elem_em(q: Blocks, *, subgroup: int,
                       decode_scales: Callable[[Blocks], Float64Array], top: int = 1
                       ) -> Float32Array:
    """Decodes a tensor in Elem-EM; each value is rounded once to float32.

    Parameters
    ----------
    q : Blocks
    subgroup : int
        Elements per subgroup.
    decode_scales : callable
        Gives the values of the groups' scales.
    top : int
        Number of refined elements per subgroup.

    Returns
    -------
    float32 array, shape ``q.shape``
    """
    assert q.metadata is not None
    codes = q.elements.reshape(*q.metadata.shape, subgroup)
    values = np.copysign(refined(codes, q.metadata, top), np.where(codes & 8, -1.0, 1.0))
    return scaled_values(q, values, decode_scales(q))


def _e8m0_scales(q):
    return E8M0.decode(q.scales)


def elem_em(subgroup: int = 8, *, top: int = 1, adaptive: bool = False) -> Format:
    """Elem-EM (specification section 3) with other subgroups, and with two refined elements.

    The paper leaves open how top-2's metadata are divided and which element is the second. Here
    each of the two elements has two bits, which mean what top-1's bits mean; the first element has
    the lower two. The first element is that of top-1. The second is the largest of the others, by
    the same rule, so that a decoder finds both by their codes. One bit per element is not offered:
    nothing says which two of the four refinements it would select.

    Parameters
    ----------
    subgroup : int
        One of `SUBGROUPS`.
    top : int
        Number of refined elements per subgroup, 1 or 2; each takes two metadata bits.
    adaptive : bool
        Whether the encoder also tries the next lower and the next higher scale. It takes the scale
        of the least squared error after refinement, compared exactly; ties go to the lowest scale.

    Returns
    -------
    Format

    Raises
    ------
    ValueError
        If an argument is not offered.
    """
    check_subgroup(subgroup, 32)
    if top not in (1, 2):
        raise ValueError(f"top must be 1 or 2, not {top!r}")
    name = f"Elem-EM-{subgroup}{' top-2' if top == 2 else ''}{' adaptive' if adaptive else ''}"
    return Format(name=name, group=32, element=E2M1, scale=E8M0, subgroup=subgroup,
                  metadata_bits=2 * top,
                  encoder=partial(_quantize_elem_em, subgroup=subgroup, top=top,
                                   adaptive=adaptive),
                  decoder=partial(dequantize_elem_em, subgroup=subgroup, top=top,
                                     decode_scales=_e8m0_scales))


def _quantize_sg(x, *, subgroup, factors, adaptive, rule="floor"):
    groups, start, bad, u = _start(x, subgroup, rule)

    def encode(scale):
        codes = np.zeros(u.shape, np.uint8)
        metadata = np.zeros(u.shape[:-1], np.uint8)
        least = np.full(u.shape[:-1], np.inf)
        for k, factor in enumerate(factors):
            # Exact, as in the weight encoder. Under the smallest step, 1/16, a term is 0, or u is
            # above 2**-6 and the term a multiple of 2**-33 below 2**10.
            step = scale * factor
            candidate = round_magnitude(u / step, 1)
            q = e2m1_integers(candidate) * (step / 2)
            excess = np.sum(q * (q - 2 * u), axis=-1)
            better = excess < least
            codes = np.where(better[..., None], candidate, codes)
            metadata = np.where(better, np.uint8(k), metadata)
            least = np.minimum(least, excess)
        return codes, metadata, least.sum(axis=-1)

    codes, metadata, scales = _best_scale(start, adaptive, encode)
    return assemble(x, signed(groups, codes), scales, bad, E8M0.nan, metadata=metadata)


def dequantize_sg(q: Blocks, *, subgroup: int, factors: tuple[float, ...],
                  decode_scales: Callable[[Blocks], Float64Array]) -> Float32Array:
    """Decodes a tensor whose metadata select factors; each value is rounded once to float32.

    Parameters
    ----------
    q : Blocks
    subgroup : int
        Elements per subgroup.
    factors : tuple of float
        Factors by metadata.
    decode_scales : callable
        Gives the values of the groups' scales.

    Returns
    -------
    float32 array, shape ``q.shape``
    """
    assert q.metadata is not None
    values = E2M1.decode(q.elements) * np.array(factors)[q.metadata].repeat(subgroup, axis=-1)
    return scaled_values(q, values, decode_scales(q))


def _sg(kind, factors, *, subgroup, adaptive):
    """A format whose metadata select one of 2 or 4 factors of a subgroup's scale."""
    check_subgroup(subgroup, 32)
    name = f"{kind}-{subgroup}{' 1-bit' if len(factors) == 2 else ''}"
    return Format(name=f"{name}{' adaptive' if adaptive else ' fixed'}", group=32,
                  element=E2M1, scale=E8M0, subgroup=subgroup, metadata_bits=len(factors) // 2,
                  encoder=partial(_quantize_sg, subgroup=subgroup, factors=factors,
                                   adaptive=adaptive),
                  decoder=partial(dequantize_sg, subgroup=subgroup, factors=factors,
                                     decode_scales=_e8m0_scales))


def _check_bits(bits):
    if bits not in (1, 2):
        raise ValueError(f"bits must be 1 or 2, not {bits!r}")


SG_EM_FACTORS = (1, 1.25, 1.5, 1.75)
"""Factors in Sg-EM by metadata."""


def sg_em(subgroup: int = 8, *, bits: int = 2, adaptive: bool = True) -> Format:
    """Sg-EM (specification section 4) with other subgroups.

    Parameters
    ----------
    subgroup : int
        One of `SUBGROUPS`.
    bits : int
        Metadata bits per subgroup, 1 or 2; with 1, the factors are 1 and 1.5.
    adaptive : bool
        Whether the encoder tries three scales.

    Returns
    -------
    Format

    Raises
    ------
    ValueError
        If an argument is not offered.
    """
    _check_bits(bits)
    return _sg("Sg-EM", SG_EM_FACTORS[::4 // 2**bits], subgroup=subgroup, adaptive=adaptive)


def sg_ee(subgroup: int = 8, *, bits: int = 2, adaptive: bool = True) -> Format:
    """Sg-EE: metadata are an extra exponent of a subgroup's scale; factors go down to 1/2 or 1/8.

    The paper leaves open whether the exponent raises or lowers the scale. Here metadata ``k`` lower
    it by ``k`` binades, as SMX does. They cannot raise it: a group's scale already fits its largest
    element. A lowered scale may lie below E8M0's lowest. The encoder takes the ``k`` of the least
    squared error; ties go to the lowest ``k``.

    Parameters
    ----------
    subgroup : int
        One of `SUBGROUPS`.
    bits : int
        Metadata bits per subgroup, 1 or 2; with 1, the scale can be halved.
    adaptive : bool
        Whether the encoder tries three scales of the group, as Sg-EM does.

    Returns
    -------
    Format

    Raises
    ------
    ValueError
        If an argument is not offered.
    """
    _check_bits(bits)
    return _sg("Sg-EE", tuple(2.0**-k for k in range(2**bits)), subgroup=subgroup,
               adaptive=adaptive)
