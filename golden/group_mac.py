"""Dot products of groups and the matrix product (specification section 7)."""

import numpy as np

from .decoder import element_integers
from .group_accumulator import accumulate
from .quantized import check_quantized


def matmul(a, w):
    """Matrix product of quantized activations and weights, as the hardware computes it.

    Exact inside a group; one fused float32 rounding per group, groups in ascending order of K,
    starting from +0.

    Parameters
    ----------
    a : Quantized
        Activations of shape (M, K).
    w : Quantized
        Weights of shape (N, K).

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
    for name, q, kind in (("a", a, "activation"), ("w", w, "weight")):
        check_quantized(q, name, kind)
        if len(q.shape) != 2:
            raise ValueError(f"{name} must be a matrix, not of shape {q.shape}")
    if a.shape[1] != w.shape[1]:
        raise ValueError(f"w must have a's K of {a.shape[1]}, not {w.shape[1]}")
    if a.group != w.group:
        raise ValueError(f"w must have a's group of {a.group}, not {w.group}")

    # No partial sum exceeds 32 * 56 * 84 < 2**24: float32 matrix products of these integers
    # are exact.
    x = element_integers(a).astype(np.float32).reshape(*a.scales.shape, a.group)
    y = element_integers(w).astype(np.float32).reshape(*w.scales.shape, w.group)
    acc = np.zeros((a.shape[0], w.shape[0]), np.float32)
    for g in range(a.scales.shape[1]):
        acc = accumulate(acc, x[:, g] @ y[:, g].T, a.scales[:, g, None], w.scales[None, :, g])
    return acc


def group_mac(a, w, acc):
    """One group step for pairs of records.

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
    total = (element_integers(a).astype(np.int32) * element_integers(w)).sum(-1)
    return accumulate(acc, total, a.scales[:, 0], w.scales[:, 0])
