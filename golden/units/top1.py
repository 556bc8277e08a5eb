# SPDX-License-Identifier: BSD-2-Clause
"""Reference of the selection of a subgroup's largest element (specification section 3)."""

import numpy as np

from ..codec.arrays import UInt8Array


def top1(codes: UInt8Array) -> UInt8Array:
    """Selects the FP4 code of the largest magnitude along the last axis.

    Ties go to the lowest lane.

    Parameters
    ----------
    codes : uint8 array, shape (..., lanes)
        FP4 codes.

    Returns
    -------
    uint8 array, shape (...)
        Lanes.
    """
    return np.argmax(np.asarray(codes) & 0b111, axis=-1).astype(np.uint8)
