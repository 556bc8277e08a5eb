# SPDX-License-Identifier: BSD-2-Clause
"""Reference of a group's dot product (specification section 7)."""

import numpy as np

from ..codec.arrays import Int32Array
from ..codec.quantized import Quantized
from .decoder import element_integers


def group_dot(a: Quantized, w: Quantized) -> Int32Array:
    """Dot products of pairs of records, without their scales: exact integers.

    Parameters
    ----------
    a, w : Quantized
        Activations and weights of shape (n, group): one group per row.

    Returns
    -------
    int32 array, shape (n,)
        Group sums G in units of 1/64.
    """
    return (element_integers(a).astype(np.int32) * element_integers(w)).sum(-1, dtype=np.int32)
