# SPDX-License-Identifier: BSD-2-Clause
"""Reference of the NVFP4 quantizer (specification section 8.16)."""

import numpy as np

from ..codec.arrays import Float32Array, Float64Array, FloatArray, UInt8Array
from ..codec.numbers import finite_groups, groups_of
from ..codec.quantized import Blocks

GROUP = 16
"""Elements per block scale."""

SCALE_MAX = 0x7E
"""E4M3 code of 448, the largest scale."""

SCALE_NAN = 0x7F
"""E4M3 code of NaN."""

TENSOR_SCALE_MIN = np.float32(2.0**-115)
"""Smallest tensor scale: under it every float32 subnormal is rounded to 0 in every group."""

E4M3_VALUES: Float64Array = np.array(
    [m / 512 if e == 0 else (8 + m) / 8 * 2.0 ** (e - 7)
     for e in range(16) for m in range(8)][: SCALE_MAX + 1])
"""Values of the E4M3 codes without sign."""

_E2M1_VALUES = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def quantize_nvfp4(x: FloatArray, tensor_scale: np.float32 | Float32Array) -> Blocks:
    """Quantizes a tensor to NVFP4 under a given tensor scale.

    A group's scale s is its largest magnitude / (6 * tensor_scale), rounded once to E4M3: to
    nearest, ties to even, subnormals included, at most 448. Elements are x / (s * tensor_scale),
    rounded once to E2M1: to nearest, ties to even, saturating at 6, with the sign of x. Where s is
    0, every element is +0. A group that holds NaN or an infinity has scale 0x7F and elements +0.
    So has every group whose tensor scale is not finite or is below `TENSOR_SCALE_MIN`.

    There is no division and no rounded quotient: magnitudes are compared with products of the
    decision points, which are exact.

    Parameters
    ----------
    x : array of float32, float16 or bfloat16, shape (..., K)
        Groups lie along the last axis, which is padded with +0 to whole groups.
    tensor_scale : float32 or float32 array
        One for all of ``x``, or an array of shape (..., 1).

    Returns
    -------
    Blocks
        Scales are E4M3 codes with sign 0.

    Raises
    ------
    TypeError
        If ``x`` is not an array of a supported type, or ``tensor_scale`` is not float32.
    ValueError
        If ``x`` is empty.
    """
    groups = groups_of(x, "x", GROUP)
    if getattr(tensor_scale, "dtype", None) != np.float32:
        raise TypeError("tensor_scale must be float32, not "
                        f"{getattr(tensor_scale, 'dtype', type(tensor_scale).__name__)}")
    usable = np.isfinite(tensor_scale) & (tensor_scale >= TENSOR_SCALE_MIN)
    bad = ~finite_groups(groups) | ~usable
    magnitudes = np.where(bad[..., None], 0, np.abs(groups)).astype(np.float64)
    # Float64 is exact: decision points have at most 5 significant bits, 6 times that 7, a scale 4.
    unit = np.where(usable, tensor_scale, 1).astype(np.float64)

    # Where the group's largest magnitude is 6 times a decision point of its scale, s changes.
    midpoints = (E4M3_VALUES[:-1] + E4M3_VALUES[1:]) / 2
    scales = _round(magnitudes.max(axis=-1), 6 * unit[..., None] * midpoints)
    decisions = (_E2M1_VALUES[:-1] + _E2M1_VALUES[1:]) / 2
    step = (E4M3_VALUES[scales] * unit)[..., None, None]
    codes = _round(magnitudes, step * decisions)

    elements = np.where(scales[..., None] == 0, 0,
                        codes | np.signbit(groups).astype(np.uint8) << 3)
    return Blocks(elements=elements.astype(np.uint8).reshape(*x.shape[:-1], -1),
                  scales=np.where(bad, SCALE_NAN, scales).astype(np.uint8),
                  tensor_scale=tensor_scale, shape=x.shape, format="NVFP4")


def _round(magnitudes: Float64Array, points: Float64Array) -> UInt8Array:
    """Codes of magnitudes by the points between codes, along the last axis; ties to even codes."""
    codes = np.zeros(magnitudes.shape, np.uint8)
    for i in range(points.shape[-1]):
        # A point has the even one of its two codes: the upper code if the lower one is odd.
        reached = np.greater_equal if i % 2 else np.greater
        codes += reached(magnitudes, points[..., i])
    return codes
