"""The design space around M2XFP: E2M1 under a power of two, with metadata per subgroup."""

from functools import partial

import numpy as np

from ..codec.numbers import SCALE_MAX, e2m1_integers, e2m3_integers, groups_of, round_magnitude
from ..units.quantization_engine import check_rule, group_scales, scaled_magnitudes
from ..units.top1 import top1
from .format import Format, assemble, scaled_values
from .minifloats import E2M1, E8M0

SUBGROUPS = (2, 4, 8, 16, 32)
"""Subgroup sizes of the design space; a subgroup divides its group."""


def _start(x, subgroup, rule):
    """Groups of 32, scale codes by a rule, which are NaN, and magnitudes in units of the scale."""
    check_rule(rule)
    groups = groups_of(x, "x", 32)
    scales, bad = group_scales(groups, rule)
    u = scaled_magnitudes(groups, scales, bad).reshape(*scales.shape, -1, subgroup)
    return groups, scales, bad, u


def check_subgroup(subgroup, group):
    sizes = tuple(n for n in SUBGROUPS if n <= group)
    if subgroup not in sizes:
        raise ValueError(f"subgroup must be one of {sizes}, not {subgroup!r}")


def _best_scale(start, adaptive, encode):
    """Codes, metadata and scales of groups by ``encode``: the least squared error over scales.

    ``encode`` takes a scale relative to the first one and gives codes (..., subgroups, subgroup),
    metadata (..., subgroups) and the squared error less what all scales share (...), exact.
    """
    codes, metadata, least = encode(1.0)
    scales = start
    if adaptive:
        # Of equal errors, the lowest scale's.
        for bias, wins in (-1, np.less_equal), (1, np.less):
            other = encode(2.0**bias)
            better = wins(other[2], least) & (start + bias >= 0) & (start + bias <= SCALE_MAX)
            codes = np.where(better[..., None, None], other[0], codes)
            metadata = np.where(better[..., None], other[1], metadata)
            least = np.where(better, other[2], least)
            scales = np.where(better, start + bias, scales)
    return codes, metadata, scales


def _largest(codes, count):
    """Lanes of the largest E2M1 codes of subgroups, from the largest; ties: the lowest lane."""
    if count == 1:
        return top1(codes)[..., None]
    return np.argsort(7 - (codes & 7), axis=-1, kind="stable")[..., :count]


def refine(v, top=1):
    """Elem-EM of subgroups of magnitudes in units of their scale: codes and metadata.

    The metadata of the largest of the ``top`` refined elements are the lowest two bits.
    """
    codes = round_magnitude(v, 1)
    lanes = _largest(codes, top)
    refined = round_magnitude(np.take_along_axis(v, lanes, -1), 3).astype(np.int16)
    first = 4 * np.take_along_axis(codes, lanes, -1).astype(np.int16)
    each = np.clip(refined + 1, first, first + 3) - first
    return codes, (each << 2 * np.arange(top)).sum(axis=-1).astype(np.uint8)


def refined(codes, metadata, top=1):
    """Magnitudes of Elem-EM subgroups in units of the scale, float64."""
    magnitudes = np.abs(e2m1_integers(codes)) / 2
    lanes = _largest(codes, top)
    each = metadata[..., None] >> 2 * np.arange(top) & 3
    code = 4 * (np.take_along_axis(codes, lanes, -1) & 7) + each
    np.put_along_axis(magnitudes, lanes, e2m3_integers(np.maximum(code, 1) - 1) / 8, -1)
    return magnitudes


def signed(groups, codes):
    """E2M1 codes of groups, with the elements' own signs."""
    return codes.reshape(groups.shape) | np.signbit(groups).astype(np.uint8) << 3


def _quantize_elem_em(x, *, subgroup, top, adaptive, rule="floor"):
    groups, start, bad, u = _start(x, subgroup, rule)

    def encode(scale):
        codes, metadata = refine(u / scale, top)
        q = refined(codes, metadata, top) * scale
        # Exact: terms are 0 or, as u is then above 2**-5, multiples of 2**-31 and below 2**9.
        return codes, metadata, np.sum(q * (q - 2 * u), axis=(-2, -1))

    codes, metadata, scales = _best_scale(start, adaptive, encode)
    return assemble(x, signed(groups, codes), scales, bad, E8M0.nan, metadata=metadata)


def dequantize_elem_em(q, *, subgroup, decode_scales, top=1):
    codes = q.elements.reshape(*q.metadata.shape, subgroup)
    values = np.copysign(refined(codes, q.metadata, top), np.where(codes & 8, -1.0, 1.0))
    return scaled_values(q, values, decode_scales(q))


def _e8m0_scales(q):
    return E8M0.decode(q.scales)


def elem_em(subgroup=8, *, top=1, adaptive=False):
    """Elem-EM (specification section 3) with other subgroups, and with two refined elements.

    The paper leaves open how top-2's metadata are divided and which element is the second. Here
    either element has two bits, with the meaning of top-1's, the first's below the second's. The
    first is that of top-1, the second the same of the others: a decoder finds both by their codes.
    One bit for each is not offered, as nothing says which two of four refinements it would name.

    Parameters
    ----------
    subgroup : int
        One of `SUBGROUPS`.
    top : int
        Elements of a subgroup that are refined, 1 or 2; each takes two metadata bits.
    adaptive : bool
        The encoder also tries the next lower and the next higher scale and takes that of the
        least squared error after refinement, compared exactly; ties go to the lowest scale.

    Returns
    -------
    Format
    """
    check_subgroup(subgroup, 32)
    if top not in (1, 2):
        raise ValueError(f"top must be 1 or 2, not {top!r}")
    name = f"Elem-EM-{subgroup}{' top-2' if top == 2 else ''}{' adaptive' if adaptive else ''}"
    return Format(name=name, group=32, element=E2M1, scale=E8M0, subgroup=subgroup,
                  metadata_bits=2 * top,
                  quantize=partial(_quantize_elem_em, subgroup=subgroup, top=top,
                                   adaptive=adaptive),
                  dequantize=partial(dequantize_elem_em, subgroup=subgroup, top=top,
                                     decode_scales=_e8m0_scales))


def _quantize_sg(x, *, subgroup, factors, adaptive, rule="floor"):
    groups, start, bad, u = _start(x, subgroup, rule)

    def encode(scale):
        codes = np.zeros(u.shape, np.uint8)
        metadata = np.zeros(u.shape[:-1], np.uint8)
        least = np.full(u.shape[:-1], np.inf)
        for k, factor in enumerate(factors):
            # Exact, as in the weight encoder: under the smallest step, 1/16, terms are 0 or, as u
            # is then above 2**-6, multiples of 2**-33, and below 2**10.
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


def dequantize_sg(q, *, subgroup, factors, decode_scales):
    values = E2M1.decode(q.elements) * np.array(factors)[q.metadata].repeat(subgroup, axis=-1)
    return scaled_values(q, values, decode_scales(q))


def _sg(kind, factors, *, subgroup, adaptive):
    """A format whose metadata select one of 2 or 4 factors of a subgroup's scale."""
    check_subgroup(subgroup, 32)
    name = f"{kind}-{subgroup}{' 1-bit' if len(factors) == 2 else ''}"
    return Format(name=f"{name}{' adaptive' if adaptive else ' fixed'}", group=32,
                  element=E2M1, scale=E8M0, subgroup=subgroup, metadata_bits=len(factors) // 2,
                  quantize=partial(_quantize_sg, subgroup=subgroup, factors=factors,
                                   adaptive=adaptive),
                  dequantize=partial(dequantize_sg, subgroup=subgroup, factors=factors,
                                     decode_scales=_e8m0_scales))


def _check_bits(bits):
    if bits not in (1, 2):
        raise ValueError(f"bits must be 1 or 2, not {bits!r}")


SG_EM_FACTORS = (1, 1.25, 1.5, 1.75)
"""Factors of a subgroup's scale in Sg-EM, by its metadata."""


def sg_em(subgroup=8, *, bits=2, adaptive=True):
    """Sg-EM (specification section 4) with other subgroups.

    Parameters
    ----------
    subgroup : int
        One of `SUBGROUPS`.
    bits : int
        Metadata bits: with 1, the factors are 1 and 1.5.
    adaptive : bool
        Whether the encoder tries three scales, or is of fixed mode.

    Returns
    -------
    Format
    """
    _check_bits(bits)
    return _sg("Sg-EM", SG_EM_FACTORS[::4 // 2**bits], subgroup=subgroup, adaptive=adaptive)


def sg_ee(subgroup=8, *, bits=2, adaptive=True):
    """Sg-EE: metadata are an extra exponent of a subgroup's scale, of factors down to 1/2 or 1/8.

    The paper leaves open whether it raises or lowers the scale. Here metadata ``k`` lower it by
    ``k`` binades, as SMX does, and cannot raise it: a group's scale already holds its largest
    element. A lowered scale may lie below E8M0's lowest. The encoder takes the ``k`` of the least
    squared error, the lowest on a tie.

    Parameters
    ----------
    subgroup : int
        One of `SUBGROUPS`.
    bits : int
        Metadata bits: with 1, the scale can be halved.
    adaptive : bool
        Whether the encoder tries three scales of the group as Sg-EM does, or one.

    Returns
    -------
    Format
    """
    _check_bits(bits)
    return _sg("Sg-EE", tuple(2.0**-k for k in range(2**bits)), subgroup=subgroup,
               adaptive=adaptive)
