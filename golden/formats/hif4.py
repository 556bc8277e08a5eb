# SPDX-License-Identifier: BSD-2-Clause
"""HiFloat4 (arXiv 2602.11287): 64 elements under a scale and two levels of shared exponents."""

import numpy as np

from ..codec.arrays import Float32Array, FloatArray
from ..codec.numbers import finite_groups, groups_of
from ..codec.quantized import Blocks
from .format import Format, assemble, scaled_values
from .minifloats import E6M2, S1P2

GROUP = 64
"""Elements per scale."""

SUBGROUP = 8
"""Elements per three metadata bits."""

SEVENTH = 73 / 512
"""1/7 in bfloat16: 7 is the largest value in units of the scale."""


def _significant(v, bits):
    """Rounds magnitudes to a number of significant bits: to nearest, ties to even."""
    fraction, exponent = np.frexp(v)
    return np.ldexp(np.rint(np.ldexp(fraction, bits)), exponent - bits)


def quantize_hif4(x: FloatArray) -> Blocks:
    """Quantizes a tensor to HiF4, as the authors' code converts bfloat16.

    The scale is the product of the largest magnitude and 1/7 in bfloat16. It is rounded to
    bfloat16, clamped to 2**-48 and 1.5 * 2**15, and rounded to E6M2. The scale's reciprocal in
    bfloat16 brings magnitudes to units of the scale. If one of eight elements is 4 or more, the
    eight share an exponent of 1 and are halved. If one of four elements is then 2 or more, so do
    the four. Elements are rounded to quarters: to nearest, ties away from zero, saturating at 1.75.
    All products are exact: those of bfloat16 in float32, as in the authors' code, those of other
    types in float64.

    Parameters
    ----------
    x : array of float32, float16 or bfloat16, shape (..., K)

    Returns
    -------
    Blocks
        Metadata of eight elements: their exponent in bit 0, that of each four in bits 1 and 2.
    """
    groups = groups_of(x, "x", GROUP)
    bad = ~finite_groups(groups)
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
    return assemble(x, codes, E6M2.encode(scale), bad, E6M2.nan, format="HiF4",
                    metadata=eight | four[..., 0] << 1 | four[..., 1] << 2)


def dequantize_hif4(q: Blocks) -> Float32Array:
    """Decodes a tensor in HiF4; each value is rounded once to float32.

    Parameters
    ----------
    q : Blocks

    Returns
    -------
    float32 array, shape ``q.shape``
    """
    assert q.metadata is not None
    exponents = (q.metadata & 1)[..., None] + (q.metadata[..., None] >> np.array([1, 2]) & 1)
    values = np.ldexp(S1P2.decode(q.elements).reshape(*exponents.shape, 4),
                      exponents[..., None].astype(np.int32))
    return scaled_values(q, values, E6M2.decode(q.scales))


HIF4 = Format(name="HiF4", group=GROUP, subgroup=SUBGROUP, metadata_bits=3, element=S1P2,
              scale=E6M2, shared_exponents=2, encoder=quantize_hif4, decoder=dequantize_hif4)
