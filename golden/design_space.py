"""The design space around M2XFP: E2M1 under a power of two, with metadata per subgroup."""

from functools import partial

import numpy as np

from .blocks import Format, assemble, scaled_values
from .formats import SCALE_MAX, e2m1_integers, e2m3_integers, groups_of, round_magnitude
from .minifloats import E2M1, E8M0
from .quantization_engine import check_rule, group_scales, scaled_magnitudes
from .top1 import top1

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


def refine(v):
    """Elem-EM of subgroups of magnitudes in units of their scale: codes and metadata."""
    codes = round_magnitude(v, 1)
    lane = top1(codes)[..., None]
    refined = round_magnitude(np.take_along_axis(v, lane, -1), 3).astype(np.int16)
    first = 4 * np.take_along_axis(codes, lane, -1).astype(np.int16)
    return codes, (np.clip(refined + 1, first, first + 3) - first)[..., 0].astype(np.uint8)


def refined(codes, metadata):
    """Magnitudes of Elem-EM subgroups in units of the scale, float64."""
    magnitudes = np.abs(e2m1_integers(codes)) / 2
    lane = top1(codes)[..., None]
    code = 4 * (np.take_along_axis(codes, lane, -1) & 7) + metadata[..., None]
    np.put_along_axis(magnitudes, lane, e2m3_integers(np.maximum(code, 1) - 1) / 8, -1)
    return magnitudes


def signed(groups, codes):
    """E2M1 codes of groups, with the elements' own signs."""
    return codes.reshape(groups.shape) | np.signbit(groups).astype(np.uint8) << 3


def _quantize_elem_em(x, *, subgroup, adaptive, rule="floor"):
    groups, start, bad, u = _start(x, subgroup, rule)

    def encode(scale):
        codes, metadata = refine(u / scale)
        q = refined(codes, metadata) * scale
        # Exact: terms are 0 or, as u is then above 2**-5, multiples of 2**-31 and below 2**9.
        return codes, metadata, np.sum(q * (q - 2 * u), axis=(-2, -1))

    codes, metadata, scales = _best_scale(start, adaptive, encode)
    return assemble(x, signed(groups, codes), scales, bad, E8M0.nan, metadata=metadata)


def dequantize_elem_em(q, *, subgroup, decode_scales):
    codes = q.elements.reshape(*q.metadata.shape, subgroup)
    values = np.copysign(refined(codes, q.metadata), np.where(codes & 8, -1.0, 1.0))
    return scaled_values(q, values, decode_scales(q))


def _e8m0_scales(q):
    return E8M0.decode(q.scales)


def elem_em(subgroup=8, *, adaptive=False):
    """Elem-EM (specification section 3) with other subgroups.

    Parameters
    ----------
    subgroup : int
        One of `SUBGROUPS`.
    adaptive : bool
        The encoder also tries the next lower and the next higher scale and takes that of the
        least squared error after refinement, compared exactly; ties go to the lowest scale.

    Returns
    -------
    Format
    """
    check_subgroup(subgroup, 32)
    return Format(name=f"Elem-EM-{subgroup}{' adaptive' if adaptive else ''}", group=32,
                  element=E2M1, scale=E8M0, subgroup=subgroup, metadata_bits=2,
                  quantize=partial(_quantize_elem_em, subgroup=subgroup, adaptive=adaptive),
                  dequantize=partial(dequantize_elem_em, subgroup=subgroup,
                                     decode_scales=_e8m0_scales))


def _quantize_sg_em(x, *, subgroup, bits, adaptive, rule="floor"):
    groups, start, bad, u = _start(x, subgroup, rule)

    def encode(scale):
        codes = np.zeros(u.shape, np.uint8)
        factors = np.zeros(u.shape[:-1], np.uint8)
        least = np.full(u.shape[:-1], np.inf)
        for k in range(2**bits):
            # Exact, as in the weight encoder.
            step = scale * (1 + k / 2**bits)
            candidate = round_magnitude(u / step, 1)
            q = e2m1_integers(candidate) * (step / 2)
            excess = np.sum(q * (q - 2 * u), axis=-1)
            better = excess < least
            codes = np.where(better[..., None], candidate, codes)
            factors = np.where(better, np.uint8(k), factors)
            least = np.minimum(least, excess)
        return codes, factors, least.sum(axis=-1)

    codes, metadata, scales = _best_scale(start, adaptive, encode)
    return assemble(x, signed(groups, codes), scales, bad, E8M0.nan, metadata=metadata)


def dequantize_sg_em(q, *, subgroup, bits, decode_scales):
    factors = 1 + q.metadata.repeat(subgroup, axis=-1) / 2**bits
    return scaled_values(q, E2M1.decode(q.elements) * factors, decode_scales(q))


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
    check_subgroup(subgroup, 32)
    if bits not in (1, 2):
        raise ValueError(f"bits must be 1 or 2, not {bits!r}")
    name = f"Sg-EM-{subgroup}{' 1-bit' if bits == 1 else ''}{' adaptive' if adaptive else ' fixed'}"
    return Format(name=name, group=32, element=E2M1, scale=E8M0, subgroup=subgroup,
                  metadata_bits=bits,
                  quantize=partial(_quantize_sg_em, subgroup=subgroup, bits=bits,
                                   adaptive=adaptive),
                  dequantize=partial(dequantize_sg_em, subgroup=subgroup, bits=bits,
                                     decode_scales=_e8m0_scales))
