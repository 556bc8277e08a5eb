# SPDX-License-Identifier: BSD-2-Clause
"""The reference of the weight encoder."""

import ml_dtypes
import numpy as np
import pytest

from golden import dequantize, quantize_weights
from tests.support import oracle
from tests.support.marks import longer

TYPES = [np.float32, np.float16, ml_dtypes.bfloat16]
RULES = ["floor", "ceil", "rtn1", "rtn2"]
SIZES = [(g, s) for g in (16, 32) for s in (4, 8, 16, 32) if s <= g]


def check(w, **options):
    """Compares every group with the brute force; rows must be whole groups."""
    q = quantize_weights(w, **options)
    assert (q.kind, q.shape) == ("weight", w.shape)
    options.pop("group", None)
    rows = oracle.records(q)
    inputs = w.astype(np.float64).reshape(len(rows), -1, q.group).tolist()
    for row, groups in zip(rows, inputs, strict=True):
        for record, group in zip(row, groups, strict=True):
            assert record == oracle.encode_weights(group, **options), group
    return q


@pytest.mark.parametrize("group, subgroup", SIZES)
@pytest.mark.parametrize("adaptive", [True, False])
@pytest.mark.parametrize("count", [60, longer(150)])
def test_against_brute_force(group, subgroup, adaptive, count):
    rng = np.random.default_rng([group, subgroup])
    w = oracle.hard_groups(rng, count, group)
    check(w, group=group, subgroup=subgroup, adaptive=adaptive)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("count", [40, longer(80)])
def test_types_and_rules_against_brute_force(dtype, rule, count):
    rng = np.random.default_rng(RULES.index(rule))
    check(oracle.hard_groups(rng, count, 32, dtype), rule=rule)


def test_normal_weights_against_brute_force():
    w = np.random.default_rng(2).standard_normal((200, 32)).astype(np.float32)
    q = check(w)
    # Each of the three scales is best for some group, each factor for some subgroup.
    starts = [oracle.scale_code(group) for group in w.tolist()]
    assert set((q.scales[:, 0].astype(int) - starts).tolist()) == {-1, 0, 1}
    assert set(q.metadata.ravel().tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize("adaptive, count", [
    (True, 700), (False, 1400), longer(True, 1500), longer(False, 2000)])
def test_exact_ties(adaptive, count):
    # Few values on a coarse grid, so that candidates often are equally wrong.
    rng = np.random.default_rng(3)
    w = rng.choice([2, 3, 5, 7, 10, 14], (count, 16)) / 2
    # The others round to zero at every candidate, but fill the last places of sums of squares.
    small = rng.standard_normal(w.shape) / 2**11
    w = np.where(rng.random(w.shape) < rng.choice([0.1, 0.2, 0.5, 0.8], (count, 1)), w, small)
    w = (w * rng.choice([-1, 1], w.shape)).astype(np.float32)
    noise = (8 * oracle.UNIT) ** 2 // 1000
    factor_ties = scale_ties = 0
    for group in w.tolist():
        tried = oracle.weight_errors(group, adaptive=adaptive)
        best = {b: [min(e for e, _ in part.values()) for part in parts]
                for b, parts in tried.items()}
        factor_ties += sum(e > noise and [e for e, _ in part.values()].count(e) > 1
                           for b in tried for part, e in zip(tried[b], best[b], strict=True))
        sums = [sum(errors) for errors in best.values()]
        scale_ties += min(sums) > noise and sums.count(min(sums)) > 1
    # Ties of inexact candidates, which rounded sums would break.
    assert factor_ties > 50
    assert scale_ties > 20 or not adaptive
    check(w, group=16, adaptive=adaptive)


def test_near_ties():
    # Elements at ties of several candidates, some of them one unit in the last place beside.
    rng = np.random.default_rng(4)
    w = rng.choice([4.5, 6, 7.5], (300, 16)) * rng.choice([-1, 1], (300, 16))
    w = w.astype(np.float32)
    step = rng.integers(-1, 2, w.shape) * (rng.random(w.shape) < 0.2)
    w = (w.view(np.int32) + step.astype(np.int32)).view(np.float32)
    w[:, 8:] *= np.ldexp(np.float32(1), rng.integers(-6, 1, (300, 8)))
    check(w, group=16, subgroup=8)


@pytest.mark.parametrize("values, bias, factors, codes", [
    # Zero everywhere: every candidate is exact; the first scale would be -1, but X0 is 0.
    ([], 0, [0, 0, 0, 0], []),
    # 4.5 is 3 * 1.5 at b = 0 and 6 * 1.5 at b = -1, which comes first.
    ([4.5], -1, [2, 0, 0, 0], [7]),
    ([-4.5], -1, [2, 0, 0, 0], [15]),
    # 4 is 4 * 1 at b = 0 and 2 * 1 at b = 1; no factor at b = -1 makes it 8.
    ([4], 0, [0, 0, 0, 0], [6]),
    # 6 is 6 * 1 and 4 * 1.5 at b = 0: the lowest factor.
    ([6], 0, [0, 0, 0, 0], [7]),
    # 7 is 4 * 1.75 at b = 0 and 2 * 1.75 at b = 1.
    ([7], 0, [3, 0, 0, 0], [6]),
    # 7.5 is 6 * 1.25, and 5.25 is 6 * 1.75 halved.
    ([7.5], 0, [1, 0, 0, 0], [7]),
    ([5.25], -1, [3, 0, 0, 0], [7]),
    # 6 and 0.5 are exact at b = 0; b = -1 has no 12.
    ([6, 0, 0, 0, 0, 0, 0, 0, 0.5], 0, [0, 0, 0, 0], [7, 0, 0, 0, 0, 0, 0, 0, 1]),
    # 0.625 is 0.5 * 1.25: every subgroup takes its own factor.
    ([6, 0, 0, 0, 0, 0, 0, 0, 0.625], 0, [0, 1, 0, 0], [7, 0, 0, 0, 0, 0, 0, 0, 1]),
])
def test_by_hand(values, bias, factors, codes):
    w = np.zeros((1, 32), np.float32)
    w[0, :len(values)] = values
    q = check(w)
    start = 127 if values else 0
    assert q.scales.tolist() == [[start + bias]]
    assert q.metadata.tolist() == [factors]
    assert q.elements[0, :len(codes)].tolist() == codes
    assert not q.elements[0, len(codes):].any()
    assert dequantize(q).tolist() == w.tolist()


def test_lowest_scale_has_no_lower_neighbour():
    rng = np.random.default_rng(5)
    # 4.5 prefers b = -1: with X0 = 1 it has it, with X0 = 0 it has not.
    w = np.ldexp(np.full((2, 32), 4.5), [[-126], [-127]]).astype(np.float32)
    assert check(w).scales.tolist() == [[0], [0]]
    assert check(w, adaptive=False).scales.tolist() == [[1], [0]]
    small = rng.integers(0, 2**26, (200, 32)) >> rng.integers(0, 26, (200, 1))
    w = np.ldexp(small.astype(np.float64), -149).astype(np.float32)
    scales = check(np.where(rng.random(w.shape) < 0.5, -w, w)).scales
    assert {0, 1} <= set(scales.ravel().tolist())


@pytest.mark.parametrize("rule", RULES)
def test_largest_float32(rule):
    rng = np.random.default_rng(6)
    w = rng.standard_normal((150, 32))
    # Flat groups too: those near a power of two take the higher scale.
    w = np.sign(w) * np.abs(w) ** rng.choice([0.1, 1], (150, 1))
    w *= rng.uniform(0.5, 1, (150, 1)) / np.abs(w).max(axis=1, keepdims=True)
    w[0, 0] = 1
    q = check((w * float(np.finfo(np.float32).max)).astype(np.float32), rule=rule)
    assert rule != "floor" or set(q.scales.ravel().tolist()) == {251, 252, 253}


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("adaptive", [True, False])
def test_not_finite(special, adaptive):
    w = np.ones((1, 96), np.float32)
    w[0, 40] = special
    q = check(w, adaptive=adaptive)
    assert q.scales[0, 1] == 255
    assert not q.elements[0, 32:64].any()
    assert not q.metadata[0, 4:8].any()
    back = dequantize(q)
    assert (back[0, 32:64].view(np.uint32) == oracle.NAN).all()
    assert (np.delete(back, slice(32, 64)) == 1).all()


def test_signs_of_zeros_are_kept():
    w = np.array([[0.0, -0.0, 1e-6, -1e-6] * 7 + [6, -6, 3, -3]], np.float32)
    assert check(w).elements[0, :4].tolist() == [0, 8, 0, 8]


@pytest.mark.parametrize("shape", [(1,), (33,), (2, 3, 70), (1, 1, 1, 5), (2, 64)])
@pytest.mark.parametrize("group", [16, 32])
def test_shapes(shape, group):
    w = np.random.default_rng(7).standard_normal(shape).astype(np.float32)
    padded = np.pad(w, [(0, 0)] * (w.ndim - 1) + [(0, -shape[-1] % group)])
    q, whole = quantize_weights(w, group=group), check(padded, group=group)
    assert q.shape == shape
    assert q.pack() == whole.pack()
    assert dequantize(q).shape == shape


def test_decoded_values_are_quantized_to_themselves():
    w = oracle.hard_groups(np.random.default_rng(8), 500, 32)
    q = quantize_weights(w)
    decoded = dequantize(q)
    # The exact candidate must be within reach of the decoded group's own starting scale.
    starts = np.array([oracle.scale_code(group) if np.isfinite(group).all() else 999
                       for group in decoded.tolist()])
    reached = np.abs(starts - q.scales[:, 0]) <= 1
    assert reached.mean() > 0.8
    again = dequantize(quantize_weights(decoded[reached]))
    wrong = np.flatnonzero((again.view(np.uint32) != decoded[reached].view(np.uint32)).any(axis=1))
    assert wrong.size == 0, w[reached][wrong[0]].tolist()


def test_adaptive_is_never_worse_than_fixed():
    w = np.random.default_rng(9).standard_normal((500, 32)).astype(np.float32)
    errors = [((dequantize(quantize_weights(w, adaptive=adaptive)).astype(np.float64) - w) ** 2
               ).sum(axis=1) for adaptive in (True, False)]
    assert (errors[0] <= errors[1] * (1 + 1e-12)).all()
    assert (errors[0] < errors[1]).any()


@pytest.mark.parametrize("w, error, message", [
    ([[1.0] * 32], TypeError, "w must be a NumPy array of one of float32, float16, bfloat16, "
                              "not list"),
    (np.zeros((1, 32), np.int8), TypeError, "w must be a NumPy array of one of float32, float16, "
                                            "bfloat16, not int8"),
    (np.zeros((), np.float16), ValueError,
     "w must have at least one axis and one element, not shape ()"),
    (np.zeros((0, 32), np.float32), ValueError,
     "w must have at least one axis and one element, not shape (0, 32)"),
])
def test_wrong_input(w, error, message):
    with pytest.raises(error) as raised:
        quantize_weights(w)
    assert str(raised.value) == message


@pytest.mark.parametrize("options, message", [
    ({"group": 8}, "group must be one of (16, 32), not 8"),
    ({"subgroup": 64}, "subgroup must be one of (4, 8, 16, 32), not 64"),
    ({"group": 16, "subgroup": 32}, "subgroup must divide group 16, not 32"),
    ({"rule": "FLOOR"}, "rule must be one of ('floor', 'ceil', 'rtn1', 'rtn2'), not 'FLOOR'"),
])
def test_wrong_option(options, message):
    with pytest.raises(ValueError) as raised:
        quantize_weights(np.zeros((1, 32), np.float32), **options)
    assert str(raised.value) == message


def test_options_are_keywords():
    with pytest.raises(TypeError, match="positional"):
        quantize_weights(np.zeros((1, 32), np.float32), 32)
