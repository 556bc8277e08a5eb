# SPDX-License-Identifier: BSD-2-Clause
"""Reference of the array for NVFP4 and RaZeR (specification sections 8.18 and 9.5)."""

import numpy as np

from ..codec.arrays import (
    BoolArray,
    Float32Array,
    Float64Array,
    Int32Array,
    Int64Array,
    IntArray,
    UInt8Array,
)
from ..codec.numbers import FLOAT32_NAN, e2m1_integers
from .nvfp4_pe_tile import nvfp4_pe_tile
from .nvfp4_quantizer import GROUP

_KEPT = 24
"""Bits to which a row's sum is rounded."""

ENCODINGS = "nvfp4", "razer"

SPECIALS = np.array([10, -10, 16, -16], np.int32)
"""What code 8 is in RaZeR, in halves, by the selector above the scale."""


def row_sums(activations: UInt8Array, weights: UInt8Array, activation_scales: UInt8Array,
             weight_scales: UInt8Array, encoding: str = "nvfp4") -> tuple[Int64Array, BoolArray]:
    """Dot products of rows of several groups, exact.

    Parameters
    ----------
    activations, weights : uint8 array, shape (..., 16 * groups)
        FP4 codes.
    activation_scales, weight_scales : uint8 array, shape (..., groups)
        Scale bytes: E4M3 codes without sign, in RaZeR a bit above them in activations; its weights
        have E3M3 codes and two bits above them.
    encoding : str
        "nvfp4" or "razer".

    Returns
    -------
    sum : int64 array, shape (...)
        In units of 2**-20, below 2**52 in magnitude.
    nan : bool array, shape (...)
        Whether a scale is NaN.
    """
    tile = nvfp4_pe_tile if encoding == "nvfp4" else _razer_tile
    totals, bad = [], []
    for group in range(weight_scales.shape[-1]):
        part = slice(GROUP * group, GROUP * (group + 1))
        sums, shift, nan = tile(activations[..., part], weights[..., part],
                                activation_scales[..., group], weight_scales[..., group])
        totals.append(sums.astype(np.int64) << shift.astype(np.int64))
        bad.append(nan)
    return np.sum(totals, axis=0), np.any(bad, axis=0)


def _razer_tile(activations, weights, activation_scale, weight_scale):
    """`nvfp4_pe_tile` for RaZeR's codes and scale bytes."""
    significand, exponent, nan = zip(*(
        (np.where(scale < 8, scale, 8 | scale & 7).astype(np.int32),
         np.maximum(scale >> 3, 1).astype(np.int32) - 1, scale == largest)
        for scale, largest in ((activation_scale & 127, 127), (weight_scale & 63, 63))),
        strict=True)
    total = (_razer_halves(activations, activation_scale >> 7)
             * _razer_halves(weights, weight_scale >> 6)).sum(-1, dtype=np.int32)
    # The smallest scale of weights is 2**-5, not 2**-9.
    return (total * significand[0] * significand[1], exponent[0] + exponent[1] + 4,
            nan[0] | nan[1])


def _razer_halves(codes: UInt8Array, selector: UInt8Array) -> Int32Array:
    """Values of codes in halves."""
    return np.where(codes == 8, SPECIALS[selector][..., None], e2m1_integers(codes))


def row_terms(total: Int64Array) -> Float64Array:
    """Rounds rows' sums to odd, to 24 bits.

    A sum that 24 bits do not hold becomes the one of its two neighbours that is odd.

    Parameters
    ----------
    total : int64 array
        In units of 2**-20, below 2**52 in magnitude.

    Returns
    -------
    float64 array
        Exactly the rounded sums.
    """
    magnitude = np.abs(total)
    # Exact in float64, whose exponent is then the number of bits.
    bits = np.frexp(magnitude.astype(np.float64))[1].astype(np.int64)
    dropped = np.maximum(bits - _KEPT, 0)
    kept = magnitude >> dropped
    kept |= kept << dropped != magnitude
    return np.ldexp(np.copysign(kept.astype(np.float64), total), (dropped - 20).astype(np.int32))


def nvfp4_array(activations: UInt8Array, weights: UInt8Array, activation_scales: UInt8Array,
                weight_scales: UInt8Array, last: IntArray, acc: Float32Array,
                encoding: str = "nvfp4") -> Float32Array:
    """Adds each activation's dot products with the weights of all columns to accumulators.

    The array holds one row of weights per column, a tile. After the last activation of a tile it
    goes on to the next tile. Tensor scales are not applied.

    Parameters
    ----------
    activations : uint8 array, shape (n, 16 * groups)
        FP4 codes, one row of two or four groups each.
    weights : uint8 array, shape (tiles, columns, 16 * groups)
        FP4 codes likewise.
    activation_scales : uint8 array, shape (n, groups)
        Scale bytes, see `row_sums`.
    weight_scales : uint8 array, shape (tiles, columns, groups)
        Scale bytes likewise.
    last : int array, shape (n,)
        1 where an activation is the last one of its tile, else 0.
    acc : float32 array, shape (n, columns)
        Accumulators.
    encoding : str
        "nvfp4" or "razer".

    Returns
    -------
    float32 array, shape (n, columns)
        acc plus the row's sum, which is rounded to odd to 24 bits, rounded to nearest, ties to
        even. NaN is 0x7FC00000.
    """
    last = np.asarray(last, np.int64)
    # An activation meets the next tile after each one that was the last of its tile.
    tiles = np.cumsum(last) - last
    total, bad = row_sums(activations[:, None], weights[tiles], activation_scales[:, None],
                          weight_scales[tiles], encoding)
    # Both operands have 24 bits, so the sum in float64, rounded to 53, never makes a tie of
    # float32 (see `accumulate`). Terms are multiples of 2**-20, so no sum with one is subnormal.
    with np.errstate(invalid="ignore"):
        result = (np.asarray(acc, np.float32).astype(np.float64) + row_terms(total)).astype(
            np.float32)
    return np.where(bad | np.isnan(result), FLOAT32_NAN, result)
