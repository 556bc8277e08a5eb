# SPDX-License-Identifier: BSD-2-Clause
"""The reference of a group's multiply-accumulate, and the matrix product."""

import itertools

import numpy as np
import pytest

from golden import Quantized, matmul, quantize_activations, quantize_weights
from golden.units.decoder import element_integers
from golden.units.group_mac import group_mac
from tests.support import oracle

SIZES = [(g, s, t) for g in (16, 32) for s in (4, 8, 16, 32) for t in (4, 8, 16, 32)
         if max(s, t) <= g]


def operand(kind, elements, metadata, scales, group=32):
    planes = [np.array(plane, np.uint8) for plane in (elements, metadata, scales)]
    return Quantized(kind=kind, shape=planes[0].shape, elements=planes[0], metadata=planes[1],
                     scales=planes[2], group=group,
                     subgroup=planes[0].shape[-1] // planes[1].shape[-1])


def random_operand(rng, kind, rows, groups, scales, group=32, subgroup=8):
    return operand(kind, rng.integers(0, 16, (rows, groups * group)),
                   rng.integers(0, 4, (rows, groups * group // subgroup)),
                   rng.choice(scales, (rows, groups)), group)


def check(a, w):
    result = matmul(a, w)
    assert result.dtype == np.float32
    assert result.shape == (a.shape[0], w.shape[0])
    expected = oracle.matmul(oracle.records(a), oracle.records(w))
    wrong = np.argwhere(result.view(np.uint32) != expected)
    assert wrong.size == 0, (wrong[0], oracle.records(a)[wrong[0][0]],
                             oracle.records(w)[wrong[0][1]])
    return result


@pytest.mark.parametrize("group, subgroup, weight_subgroup", SIZES)
def test_random_records(group, subgroup, weight_subgroup):
    rng = np.random.default_rng([group, subgroup, weight_subgroup])
    scales = np.arange(115, 140)
    check(random_operand(rng, "activation", 5, 4, scales, group, subgroup),
          random_operand(rng, "weight", 6, 4, scales, group, weight_subgroup))


@pytest.mark.parametrize("scales", [range(0, 20), range(50, 60), range(186, 200), range(240, 255),
                                    range(60, 195), [0, 127, 254, 255]])
def test_extreme_scales(scales):
    rng = np.random.default_rng(len(scales))
    result = check(random_operand(rng, "activation", 8, 5, scales),
                   random_operand(rng, "weight", 8, 5, scales))
    assert np.isnan(result).any() == (255 in scales)


def test_quantized_tensors():
    rng = np.random.default_rng(0)
    a = oracle.hard_groups(rng, 10, 70)
    w = np.ldexp(rng.standard_normal((12, 70)), rng.integers(-100, 100, (12, 1)))
    a[3, 50] = np.nan
    result = check(quantize_activations(a), quantize_weights(w.astype(np.float32)))
    assert np.isnan(result[3]).all()
    assert not np.isnan(np.delete(result, 3, 0)).any()


def single(kind, scales, codes):
    """One row of groups with one element each: lane 3, metadata that change nothing."""
    groups = len(scales)
    elements = np.zeros((1, 32 * groups), np.uint8)
    elements[0, 3::32] = codes
    metadata = np.full((1, 4 * groups), 1 if kind == "activation" else 0)
    return operand(kind, elements, metadata, [scales])


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_groups_are_added_in_ascending_order(order):
    # 1, 2**-24 and -1: the tie goes to 1 and leaves 0, if -1 comes last; else 2**-24 survives.
    scales, codes = np.array([127, 103, 127])[list(order)], np.array([2, 2, 10])[list(order)]
    a, w = single("activation", scales, codes), single("weight", [127] * 3, [2] * 3)
    assert check(a, w).tolist() == [[0.0 if order[2] == 2 else 2.0**-24]]


@pytest.mark.parametrize("x, meta, y, k, product", [
    (1, 1, 1, 0, 0.25), (2, 1, 0, 0, 0.0), (2, 1, 2, 0, 1.0), (1, 0, 1, 0, 0.1875),
    (0, 2, 1, 1, 0.078125), (7, 3, 7, 3, 73.5), (15, 3, 7, 3, -73.5), (15, 0, 15, 1, 41.25),
    (9, 3, 1, 2, -0.5625),
    # A negative zero may be refined to a negative value.
    (8, 2, 1, 1, -0.078125), (8, 0, 7, 3, 0.0),
])
def test_single_products(x, meta, y, k, product):
    a = operand("activation", [[x] + [0] * 31], [[meta, 1, 1, 1]], [[127]])
    w = operand("weight", [[y] + [0] * 31], [[k, 3, 3, 3]], [[127]])
    assert check(a, w).tolist() == [[product]]


def test_largest_group_sum():
    # Every weight is 6 * 1.75, every top-1 is 7: the bound of section 7.
    a = operand("activation", [[7] * 32], [[3] * 4], [[127]])
    w = operand("weight", [[7] * 32], [[3] * 4], [[127]])
    assert element_integers(a)[0, ::8].tolist() == [56] * 4
    assert element_integers(w).max() == 84
    assert check(a, w).tolist() == [[131712 / 64]]
    assert oracle.group_sum(*(oracle.records(q)[0][0] for q in (a, w))) == 131712


def test_infinity_and_nan_stay():
    # Overflow in the first group; the opposite term, then a NaN group cannot bring it back.
    scales = [254, 254, 127]
    a, w = single("activation", scales, [7, 15, 2]), single("weight", scales, [7, 7, 2])
    assert check(a, w).tolist() == [[np.inf]]
    a = single("activation", [254, 255, 127], [7, 2, 2])
    assert check(a, w).view(np.uint32).tolist() == [[0x7FC00000]]


def test_group_sums_do_not_depend_on_the_order_of_lanes():
    rng = np.random.default_rng(1)
    a = random_operand(rng, "activation", 4, 3, range(120, 135))
    w = random_operand(rng, "weight", 4, 3, range(120, 135))
    # Whole subgroups change places within their groups, on both sides alike.
    turned = [operand(q.kind, np.roll(q.elements.reshape(4, 3, 4, 8), 1, 2).reshape(4, -1),
                      np.roll(q.metadata.reshape(4, 3, 4), 1, 2).reshape(4, -1), q.scales)
              for q in (a, w)]
    assert matmul(*turned).tobytes() == matmul(a, w).tobytes()


def test_group_mac():
    rng = np.random.default_rng(2)
    scales = range(256)
    a, w = (random_operand(rng, kind, 1000, 1, scales) for kind in ("activation", "weight"))
    acc = rng.integers(0, 1 << 32, 1000, np.uint32)
    result = group_mac(a, w, acc.view(np.float32)).view(np.uint32).tolist()
    for i, ((x,), (y,)) in enumerate(zip(oracle.records(a), oracle.records(w), strict=True)):
        expected = oracle.accumulate(int(acc[i]), oracle.group_sum(x, y), x[2], y[2])
        assert result[i] == expected, (hex(acc[i]), x, y)


def quantized(kind, *shape, group=32):
    x = np.ones(shape, np.float32)
    return {"activation": quantize_activations, "weight": quantize_weights}[kind](x, group=group)


A, W = quantized("activation", 2, 40), quantized("weight", 3, 40)


@pytest.mark.parametrize("a, w, error, message", [
    (None, W, TypeError, "a must be a Quantized, not NoneType"),
    (A, np.ones((3, 40)), TypeError, "w must be a Quantized, not ndarray"),
    (W, W, ValueError, "a must be of kind 'activation', not 'weight'"),
    (A, A, ValueError, "w must be of kind 'weight', not 'activation'"),
    (quantized("activation", 40), W, ValueError, "a must be a matrix, not of shape (40,)"),
    (A, quantized("weight", 1, 3, 40), ValueError, "w must be a matrix, not of shape (1, 3, 40)"),
    # The same number of groups is not enough.
    (A, quantized("weight", 3, 41), ValueError, "w must have a's K of 40, not 41"),
    (A, quantized("weight", 3, 40, group=16), ValueError, "w must have a's group of 32, not 16"),
])
def test_wrong_operands(a, w, error, message):
    with pytest.raises(error) as raised:
        matmul(a, w)
    assert str(raised.value) == message
