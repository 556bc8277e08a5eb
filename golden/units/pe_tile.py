# SPDX-License-Identifier: BSD-2-Clause
"""Reference of the PE tile (specification section 7)."""

import numpy as np

from ..codec.arrays import BoolArray, Int32Array, UInt8Array
from ..codec.numbers import e2m1_integers


def pe_tile(activations: UInt8Array, weights: UInt8Array, metadata: UInt8Array, *,
            lane: UInt8Array, shift: UInt8Array, negative: BoolArray, zero: BoolArray
            ) -> Int32Array:
    """Dot products of subgroups with a refined activation, times the weights' factor, exact.

    Parameters
    ----------
    activations, weights : uint8 array, shape (..., subgroup)
        FP4 codes.
    metadata : uint8 array, shape (...)
        The weights' metadata k, 0 to 3.
    lane, shift, negative, zero : uint8, uint8, bool and bool array, shape (...)
        Lane and refinement of the largest activation, as `top1_decode.top1_decode` returns them.

    Returns
    -------
    int32 array, shape (...)
        P * (4 + k) in units of 1/64; of 8 elements at most 32928 in magnitude.
    """
    x = e2m1_integers(activations).astype(np.int32)
    w = e2m1_integers(weights).astype(np.int32)
    top = np.take_along_axis(w, np.asarray(lane)[..., None].astype(np.intp), -1)[..., 0]
    refinement = np.where(zero, 0, np.where(negative, -top, top) << shift)
    return (4 * (x * w).sum(-1) + refinement) * (4 + np.asarray(metadata, np.int32))


def plain_pe_tile(activations: UInt8Array, weights: UInt8Array) -> Int32Array:
    """Dot products of MXFP4 codes without metadata, exact.

    Parameters
    ----------
    activations, weights : uint8 array, shape (..., count)
        FP4 codes.

    Returns
    -------
    int32 array, shape (...)
        In units of 1/4; at most 144 per element in magnitude.
    """
    x = e2m1_integers(activations).astype(np.int32)
    return (x * e2m1_integers(weights)).sum(-1, dtype=np.int32)
