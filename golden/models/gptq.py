# SPDX-License-Identifier: BSD-2-Clause
"""GPTQ (arXiv 2210.17323) for M2XFP, NVFP4 and RaZeR: weights of the least output error."""

import numpy as np

from ..codec.arrays import FloatArray, UInt8Array
from ..codec.blocked import takes_special
from ..codec.numbers import (
    SCALE_MAX,
    SCALE_NAN,
    SPECIAL_ENCODINGS,
    SPECIAL_LIMITS,
    SPECIAL_SCALES,
    SPECIALS,
    check_sizes,
    check_tensor,
    default_group,
    e2m1_integers,
    round_magnitude,
    special_scale_codes,
    split_scales,
)
from ..codec.quantized import ENCODINGS, Blocks, Quantized
from ..formats.minifloats import UE3M3
from ..formats.nvfp4 import tensor_scale_of
from ..units.nvfp4_quantizer import E4M3_VALUES, GROUP, TENSOR_SCALE_MIN, quantize_nvfp4
from ..units.nvfp4_quantizer import SCALE_MAX as NVFP4_SCALE_MAX
from ..units.weight_encoder import quantize_weights


def gptq(weights: FloatArray, hessian: FloatArray, *, damping: float = 0.01,
         group: int | None = None, subgroup: int = 8, encoding: str = "sg-em") -> Quantized:
    """Quantizes weights so that a layer's outputs change least.

    Columns are rounded in ascending order. Later columns are updated so that they compensate for
    each column's error. The scale and the factors of a group are found when its first column is
    due, from its updated weights. They are searched as `quantize_weights` does, but the squared
    error of each column is weighted by its effect on the outputs after compensation. If these
    weights are equal, as with uncorrelated inputs of one size, the result is that of
    `quantize_weights`. Special values are found in the same way.

    All arithmetic is in float64. If an updated weight lies within a rounding error of a decision
    point, another linear algebra library may round it otherwise.

    Parameters
    ----------
    weights : array of float32, float16 or bfloat16, shape (N, K)
        Finite weights.
    hessian : array of float32 or float64, shape (K, K)
        Sum or mean of the products of inputs, ``x.T @ x``. If it is all zeros, all inputs have the
        same weight.
    damping : float
        Share of the diagonal's mean that is added to the diagonal; above 0.
    group, subgroup : int
        As in `quantize_weights`.
    encoding : str
        "sg-em", "sg-special" or "sg-special64".

    Returns
    -------
    Quantized
        Of kind "weight".

    Raises
    ------
    TypeError
        If an argument is not an array of a supported type.
    ValueError
        If a shape does not fit, if a value is not finite, if a size or the encoding is not offered,
        if ``damping`` is not above 0, or if ``hessian`` is not a sum of products.
    """
    group = default_group(encoding) if group is None else group
    check_sizes(group, subgroup, encoding)
    if encoding not in ENCODINGS["weight"]:
        raise ValueError(f"encoding must be one of {ENCODINGS['weight']}, not {encoding!r}")
    _check(weights, hessian, damping)
    scales: list[UInt8Array] = []
    metadata: list[UInt8Array] = []

    def choose(block, costs):
        if encoding in SPECIAL_ENCODINGS:
            scale, k = _best_sg_special(block, costs, subgroup, encoding)
            code, doubled = split_scales(scale)
            special = doubled // 2
            factors = np.array(SPECIAL_ENCODINGS[encoding].factors)[k]
        else:
            scale, k = _best_sg_em(block, costs, subgroup)
            code, special, factors = scale, None, 1 + k / 4
        scales.append(scale)
        metadata.append(k)
        return np.ldexp(factors.repeat(subgroup, axis=1), code.astype(np.int32) - 127), special

    elements = _rounded(weights, hessian, damping, group, choose)
    return Quantized(kind="weight", shape=weights.shape, group=group, subgroup=subgroup,
                     encoding=encoding, elements=elements, metadata=np.hstack(metadata),
                     scales=np.hstack(scales))


def gptq_nvfp4(weights: FloatArray, hessian: FloatArray, *, damping: float = 0.01) -> Blocks:
    """Quantizes weights to NVFP4 as `gptq` does to M2XFP, so that the comparison is fair.

    The tensor scale is that of the given weights. A group's scale is the best of five neighbours;
    `quantize_nvfp4` gives the middle one for the updated weights. Errors are weighted as in `gptq`.
    Ties go to the scale nearest to the middle.

    Parameters
    ----------
    weights, hessian, damping
        As in `gptq`.

    Returns
    -------
    Blocks

    Raises
    ------
    TypeError, ValueError
        As in `gptq`.
    """
    _check(weights, hessian, damping)
    tensor_scale, scales = tensor_scale_of(weights), []

    def choose(block, costs):
        scales.append(_best_nvfp4(block, costs, tensor_scale))
        return (E4M3_VALUES[scales[-1]] * np.float64(tensor_scale)).repeat(GROUP, axis=1), None

    elements = _rounded(weights, hessian, damping, GROUP, choose)
    return Blocks(elements=elements, scales=np.hstack(scales), tensor_scale=tensor_scale,
                  shape=weights.shape, format="NVFP4")


def gptq_razer(weights: FloatArray, hessian: FloatArray, *, damping: float = 0.01) -> Blocks:
    """Quantizes weights to RaZeR (`golden.formats.razer.razer_weights`) as `gptq` does to M2XFP.

    For each special value five neighbouring scales are tried, as in `gptq_nvfp4`. Ties go to the
    first special value.

    Parameters
    ----------
    weights, hessian, damping
        As in `gptq`.

    Returns
    -------
    Blocks
        In the format "RaZeR weights".

    Raises
    ------
    TypeError, ValueError
        As in `gptq`.
    """
    _check(weights, hessian, damping)
    largest = np.abs(weights.astype(np.float64)).max()
    tensor_scale = max(np.float32(largest / (6 * UE3M3.largest)), TENSOR_SCALE_MIN)
    scales = []

    def choose(block, costs):
        codes, selectors = _best_razer(block, costs, tensor_scale)
        scales.append(codes | selectors << UE3M3.bits)
        steps = UE3M3.decode(codes) * np.float64(tensor_scale)
        return steps.repeat(GROUP, axis=1), np.array(SPECIALS)[selectors]

    elements = _rounded(weights, hessian, damping, GROUP, choose)
    return Blocks(elements=elements, scales=np.hstack(scales), tensor_scale=tensor_scale,
                  shape=weights.shape, format="RaZeR weights")


def _best_razer(block, costs, tensor_scale):
    """Scales and selectors of the least cost of a group, shape (N, 1)."""
    magnitudes = np.abs(block.astype(np.float64))
    negative = np.signbit(block)
    largest = magnitudes.max(axis=1, keepdims=True)
    best = np.full((len(block), 1), np.inf)
    scales, selectors = np.zeros((2, len(block), 1), np.uint8)
    for selector, special in enumerate(SPECIALS):
        start = UE3M3.magnitude_codes(largest / (max(6, abs(special)) * np.float64(tensor_scale)))
        for bias in (0, -1, 1, -2, 2):
            code = np.clip(start + bias, 1, UE3M3.count - 1)
            plain, own = _squares(magnitudes, UE3M3.decode(code) * np.float64(tensor_scale),
                                  abs(special))
            total = _sums(np.where(negative == (special < 0), own, plain) * costs, GROUP)
            # An all-zero group keeps scale 0.
            better = (total < best) & (largest > 0)
            best = np.where(better, total, best)
            scales = np.where(better, code, scales)
            selectors = np.where(better, selector, selectors)
    return scales.astype(np.uint8), selectors.astype(np.uint8)


def _best_sg_em(block, costs, subgroup):
    """Scales, shape (N, 1), and factors, shape (N, subgroups), of the least cost of a group.

    Ties go to the lowest factor and then the lowest scale.
    """
    start = quantize_weights(block, group=block.shape[1], subgroup=subgroup, adaptive=False).scales
    magnitudes = np.abs(block.astype(np.float64))
    best, scales = np.full(len(block), np.inf), start
    factors = np.zeros((len(block), block.shape[1] // subgroup), np.uint8)
    for bias in (-1, 0, 1):
        code = np.clip(start.astype(np.int32) + bias, 0, SCALE_MAX)
        errors = np.stack([
            _cost(magnitudes, np.ldexp((4.0 + k) / 4, code - 127), costs, subgroup)
            for k in range(4)])
        total = errors.min(axis=0).sum(axis=-1)
        better = total < best
        best = np.where(better, total, best)
        scales = np.where(better[:, None], code, scales)
        factors = np.where(better[:, None], errors.argmin(axis=0), factors)
    return scales.astype(np.uint8), factors.astype(np.uint8)


def _best_sg_special(block, costs, subgroup, encoding):
    """Scale bytes, shape (N, 1), and factors, shape (N, subgroups), of the least cost of a group.

    Ties are decided as in `golden.formats.sg_special`.
    """
    special_encoding = SPECIAL_ENCODINGS[encoding]
    magnitudes = np.abs(block.astype(np.float64))
    negative = np.signbit(block)
    largest = np.abs(block).max(axis=1).view(np.uint32)[:, None]
    best = np.full(len(block), np.inf)
    scales = np.zeros((len(block), 1), np.uint8)
    factors = np.zeros((len(block), block.shape[1] // subgroup), np.uint8)
    for magnitude in SPECIAL_LIMITS:
        for limit in 0x800000, 0:
            code = special_scale_codes(largest, limit, special_encoding.lower)
            errors = [[], []]
            for factor in special_encoding.factors:
                steps = np.ldexp(factor, code - 127)
                plain, special = _squares(magnitudes, steps, magnitude)
                for own, of in zip((~negative, negative), errors, strict=True):
                    of.append(_sums(np.where(own, special, plain) * costs, subgroup))
            for special, tried in zip((magnitude, -magnitude), errors, strict=True):
                byte = code - SPECIAL_SCALES[0] << 2 | SPECIALS.index(special)
                total = np.min(tried, axis=0).sum(axis=-1)
                better = (total < best) & (byte[:, 0] != SCALE_NAN)
                best = np.where(better, total, best)
                scales = np.where(better[:, None], byte, scales)
                factors = np.where(better[:, None], np.argmin(tried, axis=0), factors)
    return scales.astype(np.uint8), factors.astype(np.uint8)


def _best_nvfp4(block, costs, tensor_scale):
    """Scales of the least cost of a group, shape (N, 1)."""
    start = quantize_nvfp4(block, tensor_scale).scales
    magnitudes = np.abs(block.astype(np.float64))
    best, scales = np.full((len(block), 1), np.inf), start
    for bias in (0, -1, 1, -2, 2):
        code = np.clip(start.astype(np.int32) + bias, 0, NVFP4_SCALE_MAX)
        total = _cost(magnitudes, E4M3_VALUES[code] * np.float64(tensor_scale), costs, GROUP)
        scales = np.where(total < best, code, scales)
        best = np.minimum(best, total)
    return scales.astype(np.uint8)


def _cost(magnitudes, steps, costs, size):
    """Costs of the errors of every ``size`` elements under steps; a step of 0 makes all codes 0."""
    errors, _ = _squares(magnitudes, np.where(steps > 0, steps, np.inf), None)
    return _sums(errors * costs, size)


def _squares(magnitudes, steps, special):
    """Squared errors of E2M1 codes, without and with a special value's magnitude."""
    u = magnitudes / steps
    finite = np.where(np.isfinite(steps), steps, 0)
    plain = (e2m1_integers(round_magnitude(u, 1)) * (finite / 2) - magnitudes)**2
    if special is None:
        return plain, None
    takes = takes_special(magnitudes, steps, special)
    return plain, np.where(takes, (special * finite - magnitudes)**2, plain)


def _sums(values, size):
    return values.reshape(len(values), -1, size).sum(axis=-1)


def _check(weights, hessian, damping):
    check_tensor(weights, "weights")
    if weights.ndim != 2:
        raise ValueError(f"weights must be a matrix, not of shape {weights.shape}")
    k = weights.shape[1]
    if not isinstance(hessian, np.ndarray) or hessian.dtype not in (np.float32, np.float64):
        raise TypeError("hessian must be a NumPy array of float32 or float64, "
                        f"not {getattr(hessian, 'dtype', type(hessian).__name__)}")
    if hessian.shape != (k, k):
        raise ValueError(f"hessian must have shape {(k, k)} for weights of {weights.shape}, "
                         f"not {hessian.shape}")
    for name, array in ("weights", weights), ("hessian", hessian):
        if not np.isfinite(array.astype(np.float64)).all():
            raise ValueError(f"{name} must be finite")
    if not 0 < damping < np.inf:
        raise ValueError(f"damping must be finite and above 0, not {damping!r}")


def _rounded(weights, hessian, damping, group, choose):
    """E2M1 codes of weights, column after column, shape (N, Kpad).

    ``choose`` is called for each group in ascending order. It gets the group's updated weights, a
    float32 array of shape (N, group) whose padding is 0, and the cost of a squared error in each of
    its columns, a float64 array of shape (group,). It returns the steps of the elements, a float64
    array of shape (N, group), and the values of code 8, of shape (N, 1), or None. Where a step is
    0, codes are 0.
    """
    rows, k = weights.shape
    feedback, costs = _feedback(hessian.astype(np.float64), damping)
    # Columns are contiguous, and the padding's codes stay 0.
    padded = -(-k // group) * group
    costs = np.pad(costs / costs.max(), (0, padded - k))
    w = np.zeros((padded, rows))
    w[:k] = weights.T
    elements = np.zeros((rows, padded), np.uint8)
    errors = np.zeros((group, rows))
    for start in range(0, k, group):
        count = min(group, k - start)
        block = w[start : start + group]
        steps, special = choose(np.ascontiguousarray(block.T, np.float32),
                                costs[start : start + group])
        steps = steps.T
        codes = np.zeros((group, rows), np.uint8)
        for i in range(count):
            codes[i], halves = _codes(block[i], steps[i], special)
            errors[i] = block[i] - halves * (steps[i] / 2)
            following = feedback[start + i, start + i + 1 : start + count]
            block[i + 1 : count] -= following[:, None] * errors[i]
        w[start + count : k] -= feedback[start : start + count, start + count :].T @ errors[:count]
        elements[:, start : start + group] = codes.T
    return elements


def _codes(values, steps, special):
    """Codes of values, and twice the codes' values in units of the steps."""
    held, negative = steps > 0, np.signbit(values)
    u = np.abs(values) / np.where(held, steps, np.inf)
    codes = round_magnitude(u, 1)
    if special is None:
        codes |= (negative & held).astype(np.uint8) << 3
        return codes, e2m1_integers(codes)
    special = special[:, 0]
    codes |= (negative & (codes > 0)).astype(np.uint8) << 3
    takes = takes_special(np.abs(values), steps, np.abs(special)) & held
    codes[takes & (negative == (special < 0))] = 8
    return codes, np.where(codes == 8, 2 * special, e2m1_integers(codes))


def _feedback(hessian, damping):
    """Shares (i, j) of column i's error that columns j > i compensate, and the cost of its square.

    The best compensation is the conditional minimum of the quadratic form. With ``hessian = V @
    V.T`` and V upper triangular, it is row i of V's inverse over its diagonal, and an error e adds
    (V[i, i] * e)**2 to the form.
    """
    mean = np.trace(hessian) / len(hessian)
    hessian = (hessian + hessian.T) / 2
    hessian[np.diag_indices(len(hessian))] += damping * mean if mean > 0 else 1
    try:
        # The usual factor is lower triangular: turned round, it is V.
        v = np.linalg.cholesky(hessian[::-1, ::-1])[::-1, ::-1]
    except np.linalg.LinAlgError:
        raise ValueError("hessian must be a sum of products of inputs, so that no direction has "
                         "a negative error") from None
    inverse = np.linalg.inv(v)
    return inverse / np.diag(inverse)[:, None], np.diag(v)**2
