# SPDX-License-Identifier: BSD-2-Clause
"""Reference of the group accumulator (specification section 7)."""

import numpy as np
from numpy.typing import ArrayLike

from ..codec.arrays import Float32Array
from ..codec.numbers import FLOAT32_NAN, SCALE_NAN


def accumulate(acc: ArrayLike, total: ArrayLike, activation_scale: ArrayLike,
               weight_scale: ArrayLike) -> Float32Array:
    """Adds group sums to float32 accumulators with one rounding (specification section 7).

    Shapes broadcast.

    Parameters
    ----------
    acc : float32 array
        Accumulators.
    total : int array
        Group sums G in units of 1/64, below 2**22 in magnitude.
    activation_scale, weight_scale : uint8 array
        Scale codes; 255 makes the result NaN.

    Returns
    -------
    float32 array
        acc + G * 2**(Xw + Xx - 260), rounded once to nearest, ties to even, with gradual
        underflow and overflow to infinity. NaN is 0x7FC00000.
    """
    exponent = np.asarray(activation_scale, np.int32) + np.asarray(weight_scale, np.int32) - 260
    term = np.ldexp(np.asarray(total, np.float64), exponent)

    # Accumulator and term are exact in float64. Their sum may be rounded to 53 bits, but this
    # cannot turn it into a tie of float32: that takes fewer than 2 * 24 + 2 bits (Figueroa, "When
    # is double rounding innocuous?", 1995). Under gradual underflow ties are odd multiples of
    # 2**-150, and what is rounded away is below 2**-177: a term of 22 bits near a tie has no such
    # bits.
    with np.errstate(invalid="ignore", over="ignore"):
        result = (np.asarray(acc, np.float32).astype(np.float64) + term).astype(np.float32)

    bad = (np.asarray(activation_scale) == SCALE_NAN) | (np.asarray(weight_scale) == SCALE_NAN)
    return np.where(bad | np.isnan(result), FLOAT32_NAN, result)
