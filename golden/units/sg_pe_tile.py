# SPDX-License-Identifier: BSD-2-Clause
"""Reference of the PE tile for factors on both sides (specification sections 4, 12 and 18)."""

import numpy as np

from ..codec.arrays import Int32Array, UInt8Array
from ..codec.numbers import SPECIALS, e2m1_integers


def sg_pe_tile(activations: UInt8Array, weights: UInt8Array, activation_metadata: UInt8Array,
               weight_metadata: UInt8Array, *, activation_special: UInt8Array | None = None,
               weight_special: UInt8Array | None = None) -> Int32Array:
    """Dot products of subgroups, times the factors of both operands, exact.

    Parameters
    ----------
    activations, weights : uint8 array, shape (..., subgroup)
        FP4 codes.
    activation_metadata, weight_metadata : uint8 array, shape (...)
        Metadata, 0 to 7: the factor is (4 + k) / 4 * 2**h, k the two lower bits, h the third one.
    activation_special, weight_special : uint8 array, shape (...), optional
        Selectors of the special value that code 8 stands for: 0 for +5, 1 for -5, 2 for +8 and 3
        for -8. Without selectors, code 8 is -0.

    Returns
    -------
    int32 array, shape (...)
        In units of 1/64; of 8 elements at most 56448 in magnitude, or 100352 with special values,
        and four times that with third bits.
    """
    x = _halves(activations, activation_special)
    w = _halves(weights, weight_special)
    metadata = (np.asarray(m, np.int32) for m in (activation_metadata, weight_metadata))
    factors = [(4 + (m & 3)) << (m >> 2) for m in metadata]
    return (x * w).sum(-1, dtype=np.int32) * factors[0] * factors[1]


def _halves(codes, special):
    """Values of codes in units of 1/2."""
    values = e2m1_integers(codes).astype(np.int32)
    if special is None:
        return values
    specials = 2 * np.array(SPECIALS, np.int32)[np.asarray(special)]
    return np.where(np.asarray(codes) == 8, specials[..., None], values)
