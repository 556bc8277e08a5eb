# SPDX-License-Identifier: BSD-2-Clause
"""Arithmetic that formats of groups of 16 under a floating-point scale share.

A scale's product with a tensor scale has 28 significant bits, a magnitude has 24, and small factors
add a few. A decision point has at most 6 bits. The float64 quotient of a magnitude and a step
therefore lies on a decision point only if the exact quotient does, and else on the same side of it:
the rounding of the quotient changes no code.
"""

from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..codec.arrays import (
    BoolArray,
    Float32Array,
    Float64Array,
    FloatArray,
    Int64Array,
    IntArray,
    UInt8Array,
)
from ..codec.numbers import e2m1_integers, finite_groups, groups_of
from ..units.nvfp4_quantizer import GROUP, TENSOR_SCALE_MIN
from .minifloats import UE4M3, Codec


def scaled(x: FloatArray, tensor_scale: np.float32 | None, top: float
           ) -> tuple[Float32Array, Float64Array, BoolArray, np.float32, np.float64]:
    """Divides a tensor into groups of 16 and finds its tensor scale.

    Parameters
    ----------
    x : array of float32, float16 or bfloat16, shape (..., K)
    tensor_scale : float32, optional
        By default the largest magnitude over ``top``, rounded to float32.
    top : float

    Returns
    -------
    groups : float32 array, shape (..., 16)
    v : float64 array, shape (..., 16)
        Magnitudes; 0 throughout a NaN group.
    bad : bool array, shape (...)
        Whether a group holds NaN or an infinity.
    tensor_scale : float32
    t : float64
        The same.

    Raises
    ------
    TypeError
        If ``tensor_scale`` is not a float32, or ``x`` is not an array of a supported type.
    ValueError
        If ``tensor_scale`` is not finite or too small, or ``x`` is empty.
    """
    groups = groups_of(x, "x", GROUP)
    if tensor_scale is None:
        largest = np.float64(np.abs(groups).max(initial=0, where=np.isfinite(groups)))
        tensor_scale = max(np.float32(largest / top), TENSOR_SCALE_MIN)
    elif getattr(tensor_scale, "dtype", None) != np.float32 or np.ndim(tensor_scale):
        raise TypeError("tensor_scale must be one float32, not "
                        f"{getattr(tensor_scale, 'dtype', type(tensor_scale).__name__)}")
    elif not TENSOR_SCALE_MIN <= tensor_scale < np.inf:
        raise ValueError(f"tensor_scale must be finite and at least {TENSOR_SCALE_MIN}, "
                         f"not {tensor_scale}")
    bad = ~finite_groups(groups)
    v = np.where(bad[..., None], 0, np.abs(groups)).astype(np.float64)
    return groups, v, bad, tensor_scale, np.float64(tensor_scale)


def over(v: Float64Array, steps: Float64Array) -> Float64Array:
    """Quotients of magnitudes and steps; 0 where the step is 0."""
    return v / np.where(steps == 0, np.inf, steps)


def group_scales(v: Float64Array, t: np.float64, codec: Codec, top: float
                 ) -> tuple[Int64Array, Float64Array]:
    """Codes of the scales under which groups' largest magnitudes are ``top``, and the steps.

    Parameters
    ----------
    v : float64 array, shape (..., n)
        Magnitudes.
    t : float64
        Tensor scale.
    codec : Codec
        Codes of the scales.
    top : float

    Returns
    -------
    scales : int64 array, shape (...)
    steps : float64 array, shape (..., 1)
        Scales times the tensor scale.
    """
    scales = codec.magnitude_codes(v.max(axis=-1) / (top * t))
    return scales, (codec.decode(scales) * t)[..., None]


def least_error(v: Float64Array, t: np.float64, candidates: Int64Array, unit: int) -> IntArray:
    """Finds the candidates of the least sum of (v - candidate * t / unit)**2 over the last axis.

    Errors are compared exactly.

    Parameters
    ----------
    v : float64 array, shape (..., n)
    t : float64
        With a float32's significand.
    candidates : int64 array, shape (count, ..., n)
    unit : int

    Returns
    -------
    int array, shape (...)
        Indices; ties go to the first.
    """
    # The error less the sum of v**2, over t / unit**2. Both terms of the difference are exact.
    a, b = candidates * t, 2.0 * unit * v
    excess = np.sum(candidates * (a - b), axis=-1)
    best = excess.argmin(axis=0)
    # Far above the rounding errors of a difference, a product and the additions of n <= 32 terms.
    slack = np.sum(candidates * (a + b), axis=-1) * 2.0**-45
    near = excess - slack <= (excess + slack).min(axis=0)
    chosen = np.take_along_axis(candidates, best[None, ..., None], 0)
    different = (candidates != chosen).any(axis=-1)
    # Between equal candidates the first one has been chosen already.
    for index in zip(*np.nonzero((near & different).any(axis=0)), strict=True):
        best[index] = _exactly_least(v[index], t, candidates[(slice(None), *index)], unit)
    return best


def _exactly_least(v, t, candidates, unit):
    t = Fraction(float(t))
    v = [2 * unit * Fraction(value) for value in v.tolist()]
    excess = [sum(q * (q * t - value) for q, value in zip(candidate, v, strict=True))
              for candidate in candidates.tolist()]
    return excess.index(min(excess))


def e2m1_doubled(codes: UInt8Array | Int64Array) -> Int64Array:
    """Values of E2M1 codes in units of 1/2."""
    return e2m1_integers(codes).astype(np.int64)


def scale_integers(scales: IntArray) -> Int64Array:
    """Values of UE4M3 codes in units of 2**-9."""
    return (UE4M3.decode(scales) * 512).astype(np.int64)


def chosen(candidates: NDArray[Any], best: IntArray) -> NDArray[Any]:
    """Picks from candidates (count, ..., further axes) those of the indices (...)."""
    index = best.reshape(1, *best.shape, *[1] * (candidates.ndim - best.ndim - 1))
    return np.take_along_axis(candidates, index, 0)[0]


def neighbours(scales: IntArray, biases: tuple[int, ...]) -> Int64Array:
    """UE4M3 codes at some distances from others.

    Parameters
    ----------
    scales : int array, shape (...)
    biases : tuple of int
        Distances.

    Returns
    -------
    int64 array, shape (count, ...)
        Codes beyond either end become the last one there.
    """
    offsets = np.array(biases).reshape(-1, *[1] * scales.ndim)
    return np.clip(scales + offsets, 0, UE4M3.count - 1)
