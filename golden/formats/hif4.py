"""HiFloat4 (arXiv 2602.11287): 64 elements under a scale and two levels of shared exponents."""

import numpy as np

from ..codec.numbers import groups_of
from .format import Format, assemble, scaled_values
from .minifloats import E6M2, S1P2

GROUP = 64
SUBGROUP = 8

SEVENTH = 73 / 512
"""1/7 in bfloat16: 7 is the largest value in units of the scale."""


def _significant(v, bits):
    """Magnitudes rounded to so many significant bits, to nearest, ties to even."""
    fraction, exponent = np.frexp(v)
    return np.ldexp(np.rint(np.ldexp(fraction, bits)), exponent - bits)


def quantize_hif4(x):
    """Quantizes a tensor to HiF4, as the authors' code converts bfloat16.

    The scale is the largest magnitude times 1/7 in bfloat16, rounded to bfloat16, clamped to
    2**-48 and 1.5 * 2**15, and rounded to E6M2. Its reciprocal in bfloat16 brings magnitudes to
    units of the scale. Eight elements of which one is 4 or more share an exponent of one, and so do
    four of which one is 2 or more after that. Elements are rounded to quarters, ties away from
    zero, saturating at 1.75. Of bfloat16 all products are exact in float32, as there; those of
    other types are exact here, too.

    Parameters
    ----------
    x : array of float32, float16 or bfloat16, shape (..., K)

    Returns
    -------
    Blocks
        Metadata per eight elements: their exponent in bit 0, those of either four in 1 and 2.
    """
    groups = groups_of(x, "x", GROUP)
    bad = ~np.isfinite(groups).all(axis=-1)
    v = np.where(bad[..., None], 0, np.abs(groups)).astype(np.float64)
    scale = np.clip(_significant(v.max(axis=-1) * SEVENTH, 8), E6M2.values[0], E6M2.largest)
    scale = _significant(scale, 3)

    v *= _significant(1 / scale, 8)[..., None]
    v = v.reshape(*scale.shape, -1, 2, 4)
    eight = v.max(axis=(-2, -1)) >= 4
    v = np.ldexp(v, -eight[..., None, None].astype(np.int32))
    four = v.max(axis=-1) >= 2
    v = np.ldexp(v, -four[..., None].astype(np.int32))
    codes = np.minimum(np.floor(4 * v + 0.5), 7).astype(np.uint8).reshape(groups.shape)
    codes |= np.signbit(groups).astype(np.uint8) << 3
    return assemble(x, codes, E6M2.encode(scale), bad, E6M2.nan,
                    metadata=eight | four[..., 0] << 1 | four[..., 1] << 2)


def dequantize_hif4(q):
    exponents = (q.metadata & 1)[..., None] + (q.metadata[..., None] >> np.array([1, 2]) & 1)
    values = np.ldexp(S1P2.decode(q.elements).reshape(*exponents.shape, 4),
                      exponents[..., None].astype(np.int32))
    return scaled_values(q, values, E6M2.decode(q.scales))


HIF4 = Format(name="HiF4", group=GROUP, subgroup=SUBGROUP, metadata_bits=3, element=S1P2,
              scale=E6M2, shared_exponents=2, quantize=quantize_hif4, dequantize=dequantize_hif4)
