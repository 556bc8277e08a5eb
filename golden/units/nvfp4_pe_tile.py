# SPDX-License-Identifier: BSD-2-Clause
"""Reference of the NVFP4 PE tile (specification section 8.16)."""

import numpy as np

from ..codec.arrays import BoolArray, Int32Array, UInt8Array
from .nvfp4_quantizer import SCALE_NAN
from .pe_tile import plain_pe_tile


def nvfp4_pe_tile(activations: UInt8Array, weights: UInt8Array, activation_scale: UInt8Array,
                  weight_scale: UInt8Array) -> tuple[Int32Array, UInt8Array, BoolArray]:
    """Dot products of NVFP4 codes, times their block scales, exact.

    Parameters
    ----------
    activations, weights : uint8 array, shape (..., count)
        FP4 codes.
    activation_scale, weight_scale : uint8 array, shape (...)
        E4M3 codes without sign.

    Returns
    -------
    sum : int32 array, shape (...)
        The product is sum * 2**(shift - 20).
    shift : uint8 array, shape (...)
    nan : bool array, shape (...)
        Whether a scale is NaN. If so, sum and shift are those that a scale of 480 gives.
    """
    significand, exponent = zip(*(
        (np.where(scale < 8, scale, 8 | scale & 7).astype(np.int32), np.maximum(scale >> 3, 1) - 1)
        for scale in map(np.asarray, (activation_scale, weight_scale))), strict=True)
    total = plain_pe_tile(activations, weights) * significand[0] * significand[1]
    nan = (activation_scale == SCALE_NAN) | (weight_scale == SCALE_NAN)
    return total, (exponent[0] + exponent[1]).astype(np.uint8), nan
