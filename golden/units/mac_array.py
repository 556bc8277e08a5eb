# SPDX-License-Identifier: BSD-2-Clause
"""Reference of the array of columns (specification sections 7 and 8.12)."""

import numpy as np

from ..codec.arrays import Float32Array, IntArray, UInt8Array
from .group_accumulator import accumulate


def mac_array(activations: IntArray, weights: IntArray, activation_scales: UInt8Array,
              weight_scales: UInt8Array, last: IntArray, acc: Float32Array) -> Float32Array:
    """Adds each activation's dot products with the weights of all columns to accumulators.

    The array holds one group of weights per column, a tile. After the last activation of a tile it
    goes on to the next tile.

    Parameters
    ----------
    activations : int array, shape (n, group)
        Elements in units of 1/8 of their scale (`decoder.element_integers`), one group per row.
    weights : int array, shape (tiles, columns, group)
        Elements likewise.
    activation_scales : uint8 array, shape (n,)
        Scale codes.
    weight_scales : uint8 array, shape (tiles, columns)
        Scale codes.
    last : int array, shape (n,)
        1 where an activation is the last one of its tile, else 0.
    acc : float32 array, shape (n, columns)
        Accumulators.

    Returns
    -------
    float32 array, shape (n, columns)
    """
    last = np.asarray(last, np.int64)
    # An activation meets the next tile after each one that was the last of its tile.
    tiles = np.cumsum(last) - last
    total = np.einsum("mk,mnk->mn", activations.astype(np.int32),
                      weights.astype(np.int32)[tiles])
    return accumulate(acc, total, activation_scales[:, None], weight_scales[tiles])
