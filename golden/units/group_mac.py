# SPDX-License-Identifier: BSD-2-Clause
"""Reference of a group's multiply-accumulate, and the matrix product (specification section 7)."""

from dataclasses import replace

import numpy as np

from ..codec.arrays import Float32Array
from ..codec.numbers import SCALE_NAN
from ..codec.quantized import Quantized, check_quantized
from .decoder import dequantize, element_integers, scale_codes
from .group_accumulator import accumulate
from .group_dot import group_dot


class Decoded:
    """A quantized matrix that `matmul` need not decode again, for many products with it.

    Parameters
    ----------
    q : Quantized

    Attributes
    ----------
    q : Quantized
    values : float32 array, shape (rows, Kpad)
        Decoded values with their padding.
    bounds : tuple of int arrays, shape (K / group,)
        Lowest and highest scale of each group of columns. Scales of groups that are all zeros do
        not count. The code of NaN exceeds all bounds.
    """

    def __init__(self, q: Quantized) -> None:
        self.q = q
        self.values = dequantize(replace(q, shape=q.elements.shape))
        used = (self.values.reshape(*q.scales.shape, q.group) != 0).any(-1)
        scales = scale_codes(q).astype(np.int32)
        self.bounds = (scales.min(0, initial=SCALE_NAN, where=used),
                       scales.max(0, initial=0, where=used))


def matmul(a: Quantized, w: Quantized | Decoded) -> Float32Array:
    """Matrix product of quantized activations and weights, as the hardware computes it.

    The accumulator starts from +0. Groups are added in ascending order of K. Sums within a group
    are exact; each group is added with one rounding to float32 (`accumulate`).

    Parameters
    ----------
    a : Quantized
        Activations of shape (M, K), in any encoding. With factors on both sides group sums are at
        most 225792 in magnitude, below 2**18; with special values 401408, below 2**19, and in
        Sg-special64 3211264, below 2**22.
    w : Quantized or Decoded
        Weights of shape (N, K), in any encoding with groups of the same size.

    Returns
    -------
    float32 array, shape (M, N)

    Raises
    ------
    TypeError
        If an operand is not a Quantized.
    ValueError
        If an operand is of the wrong kind or not a matrix, or K or the group sizes differ.
    """
    decoded = w if isinstance(w, Decoded) else None
    w = w.q if isinstance(w, Decoded) else w
    for name, q, kind in (("a", a, "activation"), ("w", w, "weight")):
        check_quantized(q, name, kind)
        if len(q.shape) != 2:
            raise ValueError(f"{name} must be a matrix, not of shape {q.shape}")
    if a.shape[1] != w.shape[1]:
        raise ValueError(f"w must have a's K of {a.shape[1]}, not {w.shape[1]}")
    if a.group != w.group:
        raise ValueError(f"w must have a's group of {a.group}, not {w.group}")

    # Within these bounds a group's products and partial sums, which have at most 19 bits, are
    # normal float32 numbers. Float32 matrix products of decoded groups are then exact, and the one
    # rounding is that of a float32 addition. Zeros do no harm at any scale. In Sg-special64 sums
    # have 22 bits and no scale is near the upper bounds.
    operands = Decoded(a), decoded or Decoded(w)
    x, y = (operand.values for operand in operands)
    (x_low, x_high), (y_low, y_high) = (operand.bounds for operand in operands)
    plain = (x_low + y_low >= 134) & (x_high + y_high <= 368) & (x_high <= 250) & (y_high <= 250)
    integers = [] if plain.all() else [element_integers(q).astype(np.float32) for q in (a, w)]
    scales = [scale_codes(q) for q in (a, w)]

    result = np.zeros((len(x), len(y)), np.float32)
    for top in range(0, len(x), _TILE):
        for left in range(0, len(y), _TILE):
            rows, columns = slice(top, top + _TILE), slice(left, left + _TILE)
            acc = result[rows, columns]
            term = np.empty_like(acc)
            for g, fits in enumerate(plain.tolist()):
                lanes = slice(g * a.group, (g + 1) * a.group)
                if fits:
                    with np.errstate(over="ignore"):
                        acc += np.matmul(x[rows, lanes], y[columns, lanes].T, out=term)
                else:
                    total = integers[0][rows, lanes] @ integers[1][columns, lanes].T
                    acc[...] = accumulate(acc, total, scales[0][rows, g, None],
                                          scales[1][None, columns, g])
    return result


# Rows and columns of results that stay in the cache from group to group.
_TILE = 256


def definition(a: Quantized, w: Quantized) -> Float32Array:
    """The product as the specification defines it; `matmul` gives the same bits faster."""
    # No partial sum exceeds 32 * 112 * 112 or 64 * 224 * 224 < 2**24: float32 matrix products of
    # these integers are exact.
    x = element_integers(a).astype(np.float32).reshape(*a.scales.shape, a.group)
    y = element_integers(w).astype(np.float32).reshape(*w.scales.shape, w.group)
    x_scales, y_scales = scale_codes(a), scale_codes(w)
    acc = np.zeros((a.shape[0], w.shape[0]), np.float32)
    for g in range(a.scales.shape[1]):
        acc = accumulate(acc, x[:, g] @ y[:, g].T, x_scales[:, g, None], y_scales[None, :, g])
    return acc


def group_mac(a: Quantized, w: Quantized, acc: Float32Array) -> Float32Array:
    """Adds the dot products of pairs of records to accumulators.

    Parameters
    ----------
    a, w : Quantized
        Activations and weights of shape (n, group): one group per row.
    acc : float32 array, shape (n,)
        Accumulators.

    Returns
    -------
    float32 array, shape (n,)
    """
    return accumulate(acc, group_dot(a, w), scale_codes(a)[:, 0], scale_codes(w)[:, 0])
