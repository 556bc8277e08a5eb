# SPDX-License-Identifier: BSD-2-Clause
"""Error feedback, against the conditional minimum solved anew for every column."""

from functools import partial

import ml_dtypes
import numpy as np
import pytest

from golden import dequantize, quantize_weights
from golden.formats import catalogue
from golden.formats.nvfp4 import dequantize_nvfp4, tensor_scale_of
from golden.models.gptq import gptq, gptq_nvfp4, gptq_razer
from golden.units.nvfp4_quantizer import quantize_nvfp4


def hessian_of(rng, k, decay=10):
    x = rng.standard_normal((4 * k, k)) * np.exp(-np.arange(k) / decay)
    x = x @ rng.standard_normal((k, k))
    return x.T @ x


def output_error(values, w, hessian):
    d = values.astype(np.float64) - w
    return float(np.sum(d @ hessian * d))


def plain_nvfp4(w):
    return quantize_nvfp4(w, tensor_scale_of(w))


SPECIAL = {"encoding": "sg-special"}

RAZER = catalogue.FORMATS["RaZeR weights"]

FORMATS = pytest.mark.parametrize("plain, tuned, values", [
    (RAZER.quantize, gptq_razer, RAZER.dequantize),
    (quantize_weights, gptq, dequantize), (plain_nvfp4, gptq_nvfp4, dequantize_nvfp4),
    (partial(quantize_weights, **SPECIAL), partial(gptq, **SPECIAL), dequantize),
], ids=["RaZeR", "Sg-EM", "NVFP4", "Sg-special"])


def same(left, right):
    """Whether all planes agree, and what goes with them."""
    return all(np.array_equal(value, getattr(right, name)) for name, value in vars(left).items())


GRID = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])


GRID = np.concatenate([-GRID[:0:-1], GRID])


def nearest(part, offered):
    """Of the values offered to each element, along the last axis, the nearest one."""
    offered = np.broadcast_to(offered, (*part.shape, offered.shape[-1]))
    found = np.abs(part[..., None] - offered).argmin(axis=-1)[..., None]
    return np.take_along_axis(offered, found, -1)[..., 0]


def cost(part, step, costs):
    return float((((part - nearest(part, GRID * step)) ** 2) * costs).sum())


def grids(steps_of):
    """Values offered to each element, shape (rows, columns, count), of its step."""
    return lambda part, costs: steps_of(part, costs)[..., None] * GRID


def sg_em_grids(subgroup):
    return grids(_sg_em_steps(subgroup))


def sg_special_grids(subgroup, wide=False):
    factors = [1, 1.25, 1.5, 1.75, *([2, 2.5, 3, 3.5] if wide else [])]

    def offered(part, costs):
        rows = []
        for row in part.astype(np.float64):
            floor = 2.0 ** (np.floor(np.log2(np.abs(row).max())) - 2)
            groups = list(zip(row.reshape(-1, subgroup), costs.reshape(-1, subgroup), strict=True))
            best = None
            for magnitude in 5, 8:
                for scale in (floor / 4, floor / 2) if wide else (floor / 2, floor):
                    for special in magnitude, -magnitude:
                        tried = []
                        for x, c in groups:
                            values = [np.append(GRID, special) * scale * factor
                                      for factor in factors]
                            errors = [float(((x - nearest(x, v)) ** 2 * c).sum()) for v in values]
                            k = int(np.argmin(errors))
                            tried.append((errors[k], values[k]))
                        total = sum(error for error, _ in tried)
                        if best is None or total < best[0]:
                            best = total, np.repeat([v for _, v in tried], subgroup, axis=0)
            rows.append(best[1])
        return np.array(rows)
    return offered


def razer_grids(w):
    tensor_scale = np.float64(np.float32(np.abs(w).max().astype(np.float64) / 168))
    scales = [(m if e == 0 else (8 + m) * 2.0 ** (e - 1)) / 32
              for e in range(8) for m in range(8)][:-1]

    def offered(part, costs):
        rows = []
        for row in part.astype(np.float64):
            best = None
            for special in 5, -5, 8, -8:
                wanted = np.abs(row).max() / (max(6, abs(special)) * tensor_scale)
                start = min(range(63), key=lambda code: (abs(scales[code] - wanted), code % 2))
                for bias in 0, -1, 1, -2, 2:
                    code = min(max(start + bias, 1), 62)
                    values = np.append(GRID, special) * scales[code] * tensor_scale
                    error = float(((row - nearest(row, values)) ** 2 * costs).sum())
                    if best is None or error < best[0]:
                        best = error, values
            rows.append(best[1])
        return np.array(rows)[:, None].repeat(16, 1)
    return offered


def _sg_em_steps(subgroup):
    def steps(part, costs):
        rows = []
        for row in part.astype(np.float64):
            scale = 2.0 ** (np.floor(np.log2(np.abs(row).max())) - 2)
            groups = list(zip(row.reshape(-1, subgroup), costs.reshape(-1, subgroup), strict=True))
            best = [[min((cost(x, scale * bias * (1 + k / 4), c), scale * bias * (1 + k / 4))
                         for k in range(4)) for x, c in groups] for bias in (0.5, 1, 2)]
            found = min(best, key=lambda subgroups: sum(error for error, _ in subgroups))
            rows.append(np.repeat([step for _, step in found], subgroup))
        return np.array(rows)
    return steps


def nvfp4_grids(w):
    return grids(_nvfp4_steps(w))


def _nvfp4_steps(w):
    tensor_scale = np.float64(np.float32(np.abs(w).max().astype(np.float64) / 2688))
    offered = np.arange(0x7F, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float64)

    def steps(part, costs):
        rows = []
        for row in part.astype(np.float64):
            # The cast would make NaN of what is above 464.
            start = np.minimum(np.abs(row).max() / (6 * tensor_scale), 448)
            start = int(start.astype(ml_dtypes.float8_e4m3fn).view(np.uint8))
            neighbours = sorted(range(max(start - 2, 0), min(start + 2, 0x7E) + 1),
                                key=lambda code: abs(code - start))
            rows.append(offered[min(neighbours, key=lambda code: cost(
                row, offered[code] * tensor_scale, costs))] * tensor_scale)
        return np.array(rows)[:, None].repeat(16, 1)
    return steps


def slowly(w, hessian, damping, group, offered_to):
    """GPTQ's values: before each column, all that are left are at the quadratic form's minimum."""
    k = w.shape[1]
    h = hessian + damping * np.trace(hessian) / k * np.eye(k)
    original = w.astype(np.float64)
    now, fixed = original.copy(), np.zeros(original.shape)
    # What is left of a column's squared error at the minimum over all later columns.
    costs = np.zeros(-(-k // group) * group)
    for column in range(k):
        later = slice(column + 1, k)
        costs[column] = h[column, column] - h[column, later] @ np.linalg.solve(
            h[later, later], h[later, column])
    for column in range(k):
        done, left = slice(0, column), slice(column, k)
        now[:, left] = original[:, left] - np.linalg.solve(
            h[left, left], h[left, done] @ (fixed - original)[:, done].T).T
        if column % group == 0:
            part = np.zeros((len(w), group), np.float32)
            part[:, : k - column] = now[:, column : column + group]
            offered = offered_to(part, costs[column : column + group])
        fixed[:, column] = nearest(now[:, column], offered[:, column % group])
    return fixed


@pytest.mark.parametrize("k, group, subgroup", [
    (96, 32, 8), (70, 32, 8), (40, 16, 4), (33, 32, 32),
])
@pytest.mark.parametrize("encoding, grids_of", [("sg-em", sg_em_grids),
                                                ("sg-special", sg_special_grids)])
def test_against_minimum_before_every_column(k, group, subgroup, encoding, grids_of):
    rng = np.random.default_rng(k)
    w = rng.standard_t(4, (12, k)).astype(np.float32)
    hessian = hessian_of(rng, k)
    q = gptq(w, hessian, damping=0.02, group=group, subgroup=subgroup, encoding=encoding)
    assert (q.kind, q.encoding, q.shape) == ("weight", encoding, w.shape)
    assert (q.group, q.subgroup) == (group, subgroup)
    assert not q.elements[:, k:].any()
    expected = slowly(w, hessian, 0.02, group, grids_of(subgroup))
    assert np.array_equal(dequantize(q), expected.astype(np.float32))


@pytest.mark.parametrize("k", [64, 90])
def test_groups_of_64_against_minimum_before_every_column(k):
    rng = np.random.default_rng(k)
    w = rng.standard_t(4, (6, k)).astype(np.float32)
    hessian = hessian_of(rng, k)
    q = gptq(w, hessian, damping=0.02, encoding="sg-special64")
    assert (q.encoding, q.group, q.subgroup, q.shape) == ("sg-special64", 64, 8, w.shape)
    assert not q.elements[:, k:].any()
    assert q.metadata.max() > 3
    expected = slowly(w, hessian, 0.02, 64, sg_special_grids(8, wide=True))
    assert np.array_equal(dequantize(q), expected.astype(np.float32))


@pytest.mark.parametrize("k", [96, 70, 16])
def test_nvfp4_against_minimum_before_every_column(k):
    rng = np.random.default_rng(k)
    w = rng.standard_t(4, (12, k)).astype(np.float32)
    hessian = hessian_of(rng, k)
    q = gptq_nvfp4(w, hessian, damping=0.02)
    assert (q.shape, q.tensor_scale) == (w.shape, tensor_scale_of(w))
    assert (q.elements.shape, q.scales.shape) == ((12, -(-k // 16) * 16), (12, -(-k // 16)))
    assert not q.elements[:, k:].any()
    expected = slowly(w, hessian, 0.02, 16, nvfp4_grids(w))
    assert np.array_equal(dequantize_nvfp4(q), expected.astype(np.float32))


@pytest.mark.parametrize("k", [96, 70, 16])
def test_razer_against_minimum_before_every_column(k):
    rng = np.random.default_rng(k)
    w = rng.standard_t(4, (12, k)).astype(np.float32)
    hessian = hessian_of(rng, k)
    q = gptq_razer(w, hessian, damping=0.02)
    assert not q.elements[:, k:].any()
    assert k < 96 or set((q.scales >> 6).ravel().tolist()) == {0, 1, 2, 3}
    expected = slowly(w, hessian, 0.02, 16, razer_grids(w))
    assert np.array_equal(RAZER.dequantize(q), expected.astype(np.float32))
    # A group of zeros has no scale.
    w[:] = 0
    assert not gptq_razer(w, hessian).scales.any()


def test_nvfp4_groups_too_small_for_a_scale():
    """Their weights become +0, and the others make up for them."""
    rng = np.random.default_rng(5)
    w, hessian = rng.standard_normal((4, 48)).astype(np.float32), hessian_of(rng, 48)
    w[:, :16] *= np.float32(2.0**-40)
    q = gptq_nvfp4(w, hessian)
    assert not q.scales[:, 0].any()
    assert not q.elements[:, :16].any()
    assert np.array_equal(dequantize_nvfp4(q),
                          slowly(w, hessian, 0.01, 16, nvfp4_grids(w)).astype(np.float32))


@pytest.mark.parametrize("shape", [(1, 1), (5, 32), (7, 100)])
@pytest.mark.parametrize("hessian", [lambda k: np.eye(k), lambda k: np.zeros((k, k), np.float32)])
def test_without_correlation_weights_are_rounded(shape, hessian):
    w = np.random.default_rng(1).standard_t(3, shape).astype(np.float32)
    w[0, 0] = -0.0
    h = hessian(shape[1])
    assert same(gptq(w, h), quantize_weights(w))
    for encoding in "sg-special", "sg-special64":
        assert same(gptq(w, h, encoding=encoding), quantize_weights(w, encoding=encoding))
    # Of NVFP4 the scales are searched.
    errors = [output_error(dequantize_nvfp4(q), w, np.eye(shape[1]))
              for q in (gptq_nvfp4(w, h), plain_nvfp4(w))]
    assert errors[0] < errors[1] or w.size == 1


@pytest.mark.parametrize("tuned, group, grids_of, values", [
    (gptq, 32, lambda w: sg_em_grids(8), dequantize),
    (gptq_nvfp4, 16, nvfp4_grids, dequantize_nvfp4),
    (partial(gptq, **SPECIAL), 32, lambda w: sg_special_grids(8), dequantize),
], ids=["Sg-EM", "NVFP4", "Sg-special"])
def test_scales_suit_the_columns_that_count(tuned, group, grids_of, values):
    rng = np.random.default_rng(6)
    w, sizes = rng.standard_t(3, (20, 96)).astype(np.float32), 4.0 ** rng.integers(-5, 6, 96)
    found = values(tuned(w, np.diag(sizes), damping=1e-9))
    assert np.array_equal(
        found, slowly(w, np.diag(sizes), 1e-9, group, grids_of(w)).astype(np.float32))
    plain = values(tuned(w, np.eye(96)))
    assert output_error(found, w, np.diag(sizes)) < 0.7 * output_error(plain, w, np.diag(sizes))


@FORMATS
def test_outputs_are_nearer(plain, tuned, values):
    rng = np.random.default_rng(2)
    w = rng.standard_normal((64, 256)).astype(np.float32)
    hessian = hessian_of(rng, 256, decay=80)
    without, with_feedback = values(plain(w)), values(tuned(w, hessian))
    assert output_error(with_feedback, w, hessian) < 0.5 * output_error(without, w, hessian)
    # The weights themselves are not.
    assert output_error(with_feedback, w, np.eye(256)) > output_error(without, w, np.eye(256))


@FORMATS
def test_inputs_are_left_alone_and_types_agree(plain, tuned, values):
    rng = np.random.default_rng(3)
    w, hessian = rng.standard_normal((4, 64)).astype(np.float16), hessian_of(rng, 64)
    kept = w.copy(), hessian.copy()
    q = tuned(w, hessian)
    assert (w == kept[0]).all()
    assert (hessian == kept[1]).all()
    assert same(q, tuned(w.astype(np.float32), hessian * 2.0**20))
    assert same(q, tuned(np.asfortranarray(w), np.asfortranarray(hessian)))


def test_dead_inputs():
    """Columns that no input reaches are rounded; the others as without them."""
    rng = np.random.default_rng(4)
    w, hessian = rng.standard_normal((4, 64)).astype(np.float32), hessian_of(rng, 64)
    hessian[32:] = 0
    hessian[:, 32:] = 0
    q = gptq(w, hessian)
    assert np.array_equal(q.elements[:, 32:], quantize_weights(w).elements[:, 32:])
    # The damping of the mean is halved by the dead half.
    alone = gptq(np.ascontiguousarray(w[:, :32]), np.ascontiguousarray(hessian[:32, :32]),
                 damping=0.005)
    assert np.array_equal(q.elements[:, :32], alone.elements)


W, H = np.ones((2, 32), np.float32), np.eye(32)


@pytest.mark.parametrize("w, hessian, options, error, message", [
    (W.tolist(), H, {}, TypeError, "weights must be a NumPy array of one of"),
    (W[0], H, {}, ValueError, r"weights must be a matrix, not of shape \(32,\)"),
    (W, H.tolist(), {}, TypeError, "hessian must be a NumPy array of float32 or float64, not list"),
    (W, H.astype(int), {}, TypeError, "hessian must be a NumPy array of .*, not int64"),
    (W, H[:31], {}, ValueError,
     r"hessian must have shape \(32, 32\) for weights of \(2, 32\), not \(31, 32\)"),
    (W * np.float32("nan"), H, {}, ValueError, "weights must be finite"),
    (W, H + np.inf, {}, ValueError, "hessian must be finite"),
    (W, -H - 1, {}, ValueError, "hessian must be a sum of products of inputs"),
    (W, H, {"damping": 0}, ValueError, "damping must be finite and above 0, not 0"),
])
@FORMATS
def test_wrong_arguments(w, hessian, options, error, message, plain, tuned, values):
    with pytest.raises(error, match=f"^{message}"):
        tuned(w, hessian, **options)


def test_wrong_group_and_encoding():
    with pytest.raises(ValueError, match=r"^group must be one of \(16, 32\), not 64"):
        gptq(W, H, group=64)
    with pytest.raises(ValueError, match="^encoding must be one of .*special64'., not 'mixed'$"):
        gptq(W, H, encoding="mixed")
