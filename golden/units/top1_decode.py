# SPDX-License-Identifier: BSD-2-Clause
"""Reference of the decoding of a subgroup's largest element (specification sections 3 and 7)."""

import numpy as np

from ..codec.arrays import BoolArray, UInt8Array
from .top1 import top1

# Refinement 8 * (X' - X) of the top-1 by its magnitude code c and its metadata (specification
# section 7). Section 3 gives the refined value: that of E2M3 code max(4c + meta, 1) - 1.
DELTAS = np.array([
    [0, 0, 1, 2],    # 0:   0,     0,    0.125, 0.25
    [-1, 0, 1, 2],   # 0.5: 0.375, 0.5,  0.625, 0.75
    [-1, 0, 1, 2],   # 1:   0.875, 1,    1.125, 1.25
    [-1, 0, 1, 2],   # 1.5: 1.375, 1.5,  1.625, 1.75
    [-1, 0, 2, 4],   # 2:   1.875, 2,    2.25,  2.5
    [-2, 0, 2, 4],   # 3:   2.75,  3,    3.25,  3.5
    [-2, 0, 4, 8],   # 4:   3.75,  4,    4.5,   5
    [-4, 0, 4, 8],   # 6:   5.5,   6,    6.5,   7
], np.int8)


def top1_decode(codes: UInt8Array, metadata: UInt8Array
                ) -> tuple[UInt8Array, UInt8Array, BoolArray, BoolArray]:
    """Selects the top-1 of subgroups and decodes its refinement to a signed power of two.

    Parameters
    ----------
    codes : uint8 array, shape (..., subgroup)
        FP4 codes.
    metadata : uint8 array, shape (...)
        Metadata, 0 to 3.

    Returns
    -------
    lane : uint8 array, shape (...)
        Lane of the top-1.
    shift : uint8 array, shape (...)
        Exponent of the refinement in units of 1/8, 0 to 3; 0 where the refinement is zero.
    negative : bool array, shape (...)
        Whether the refinement, with the element's sign, is below zero.
    zero : bool array, shape (...)
        Whether the refinement is zero.
    """
    codes = np.asarray(codes)
    lane = top1(codes)
    code = np.take_along_axis(codes, lane[..., None].astype(np.intp), -1)[..., 0]
    delta = DELTAS[code & 7, metadata]
    zero = delta == 0
    shift = np.log2(np.where(zero, 1, np.abs(delta))).astype(np.uint8)
    return lane, shift, ((delta < 0) ^ (code >> 3 == 1)) & ~zero, zero
