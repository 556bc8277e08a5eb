"""NVFP4, for comparison: groups of 16 under an E4M3 scale, tensors under a float32 one."""

from dataclasses import dataclass

import numpy as np

from ..codec.numbers import FLOAT32_NAN, e2m1_integers, groups_of
from ..units.pe_tile import plain_pe_tile

GROUP = 16
"""Elements per block scale."""

SCALE_MAX = 0x7E
"""E4M3 code of 448, the largest scale."""

SCALE_NAN = 0x7F

TENSOR_SCALE_MIN = np.float32(2.0**-115)
"""Smallest tensor scale: under it every float32 subnormal rounds to 0, whatever its group."""

E4M3_VALUES = np.array([m / 512 if e == 0 else (8 + m) / 8 * 2.0 ** (e - 7)
                        for e in range(16) for m in range(8)][: SCALE_MAX + 1])
"""Values of the E4M3 codes without sign."""

_E2M1_VALUES = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantizedNvfp4:
    """A tensor in NVFP4, in groups along the last axis.

    Attributes
    ----------
    elements : uint8 array, shape (..., Kpad)
        FP4 codes, one per byte.
    scales : uint8 array, shape (..., Kpad / 16)
        E4M3 code of each group's scale, sign 0; 0x7F is NaN.
    tensor_scale : float32
        Multiplies every value.
    shape : tuple of int
        Shape (..., K) before K was padded to whole groups.
    """

    elements: np.ndarray
    scales: np.ndarray
    tensor_scale: np.float32
    shape: tuple


def tensor_scale_of(x):
    """A tensor's scale: its largest magnitude / (6 * 448), rounded to float32.

    So the largest block scale is about 448. At least `TENSOR_SCALE_MIN`; NaN and infinities do
    not count, as their groups have no scale.

    Parameters
    ----------
    x : array of float32, float16 or bfloat16, shape (..., K)

    Returns
    -------
    float32
    """
    groups = groups_of(x, "x", GROUP)
    largest = np.abs(groups).max(initial=0, where=np.isfinite(groups))
    return max(np.float32(np.float64(largest) / (6 * 448)), TENSOR_SCALE_MIN)


def quantize_nvfp4(x, tensor_scale):
    """Quantizes a tensor to NVFP4 under a given tensor scale.

    A group's scale s is its largest magnitude / (6 * tensor_scale), rounded once to E4M3: to
    nearest, ties to even, subnormals included, at most 448. Elements are x / (s * tensor_scale),
    rounded once to E2M1: to nearest, ties to even, saturating at 6, with the sign of x. Where s is
    0, every element is +0. A group that holds NaN or an infinity has scale 0x7F and elements +0,
    and so has every group under a tensor scale that is not one.

    Nothing is divided and no quotient rounded: magnitudes are compared with products of the
    decision points, which are exact.

    Parameters
    ----------
    x : array of float32, float16 or bfloat16, shape (..., K)
        Groups lie along the last axis, whose tail is padded with +0.
    tensor_scale : float32 or float32 array
        For all of ``x``, or of shape (..., 1). Finite and at least `TENSOR_SCALE_MIN`, else it is
        no scale.

    Returns
    -------
    QuantizedNvfp4

    Raises
    ------
    TypeError
        If ``x`` is not an array of a supported type, or ``tensor_scale`` not float32.
    ValueError
        If ``x`` is empty.
    """
    groups = groups_of(x, "x", GROUP)
    if getattr(tensor_scale, "dtype", None) != np.float32:
        raise TypeError("tensor_scale must be float32, not "
                        f"{getattr(tensor_scale, 'dtype', type(tensor_scale).__name__)}")
    usable = np.isfinite(tensor_scale) & (tensor_scale >= TENSOR_SCALE_MIN)
    bad = ~np.isfinite(groups).all(axis=-1) | ~usable
    magnitudes = np.where(bad[..., None], 0, np.abs(groups)).astype(np.float64)
    # Float64 is exact: decision points have at most 5 significant bits, 6 times that 7, a scale 4.
    unit = np.where(usable, tensor_scale, 1).astype(np.float64)

    # Six times a scale's decision point is the group's largest magnitude where s changes.
    midpoints = (E4M3_VALUES[:-1] + E4M3_VALUES[1:]) / 2
    scales = _round(magnitudes.max(axis=-1), 6 * unit[..., None] * midpoints)
    decisions = (_E2M1_VALUES[:-1] + _E2M1_VALUES[1:]) / 2
    step = (E4M3_VALUES[scales] * unit)[..., None, None]
    codes = _round(magnitudes, step * decisions)

    elements = np.where(scales[..., None] == 0, 0,
                        codes | np.signbit(groups).astype(np.uint8) << 3)
    return QuantizedNvfp4(elements=elements.astype(np.uint8).reshape(*x.shape[:-1], -1),
                          scales=np.where(bad, SCALE_NAN, scales).astype(np.uint8),
                          tensor_scale=tensor_scale, shape=x.shape)


def _round(magnitudes, points):
    """Codes of magnitudes by the points between codes, along the last axis; ties to even codes."""
    codes = np.zeros(magnitudes.shape, np.uint8)
    for i in range(points.shape[-1]):
        # At a point the even one of its two codes holds: the upper one, where the lower is odd.
        reached = np.greater_equal if i % 2 else np.greater
        codes += reached(magnitudes, points[..., i])
    return codes


def dequantize_nvfp4(q):
    """Values of a tensor in NVFP4, each rounded once to float32.

    Parameters
    ----------
    q : QuantizedNvfp4

    Returns
    -------
    float32 array, shape ``q.shape``
    """
    scales = q.scales.repeat(GROUP, axis=-1)
    factors = E4M3_VALUES[np.minimum(scales, SCALE_MAX)] / 2 * np.float64(q.tensor_scale)
    # -0 stays: the integers do not have it.
    values = np.copysign(e2m1_integers(q.elements) * factors, np.where(q.elements & 8, -1, 1))
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    values[scales == SCALE_NAN] = FLOAT32_NAN
    return values[..., : q.shape[-1]]


def nvfp4_tile(activations, weights, activation_scale, weight_scale):
    """Dot products of NVFP4 codes with their block scales, exact.

    Parameters
    ----------
    activations, weights : uint8 array, shape (..., count)
        FP4 codes.
    activation_scale, weight_scale : uint8 array, shape (...)
        E4M3 codes without sign.

    Returns
    -------
    sum : int32 array, shape (...)
    shift : uint8 array, shape (...)
        The value is sum * 2**(shift - 20).
    nan : bool array, shape (...)
        Whether a scale is NaN. The others are then what 480 instead of it gives.
    """
    significand, exponent = zip(*(
        (np.where(scale < 8, scale, 8 | scale & 7).astype(np.int32), np.maximum(scale >> 3, 1) - 1)
        for scale in map(np.asarray, (activation_scale, weight_scale))), strict=True)
    total = plain_pe_tile(activations, weights) * significand[0] * significand[1]
    nan = (activation_scale == SCALE_NAN) | (weight_scale == SCALE_NAN)
    return total, (exponent[0] + exponent[1]).astype(np.uint8), nan
