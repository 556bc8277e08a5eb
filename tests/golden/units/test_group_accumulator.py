# SPDX-License-Identifier: BSD-2-Clause
"""The reference of the group accumulator."""

import numpy as np
import pytest

from golden.units.group_accumulator import accumulate
from tests.support import oracle

LIMIT = 131712


def check(acc, total, activation_scale, weight_scale):
    """Compares bits with exact fractions; arguments are equally long integer sequences."""
    acc = np.array(acc, np.uint32)
    total = np.array(total, np.int32)
    scales = np.array(activation_scale, np.uint8), np.array(weight_scale, np.uint8)
    result = accumulate(acc.view(np.float32), total, *scales)
    assert result.dtype == np.float32
    vectors = zip(acc.tolist(), total.tolist(), *(s.tolist() for s in scales), strict=True)
    for bits, vector in zip(result.view(np.uint32).tolist(), vectors, strict=True):
        expected = oracle.accumulate(*vector)
        assert bits == expected, (hex(bits), hex(expected), hex(vector[0]), *vector[1:])


def totals(rng, count):
    magnitudes = rng.integers(0, LIMIT + 1, count) >> rng.integers(0, 18, count)
    return np.where(rng.random(count) < 0.5, -magnitudes, magnitudes)


def test_any_scales_and_any_accumulator():
    rng = np.random.default_rng(0)
    check(rng.integers(0, 1 << 32, 4000, np.uint32), totals(rng, 4000),
          *rng.integers(0, 256, (2, 4000)))


@pytest.mark.parametrize("low, high", [(-260, -150), (-175, -120), (-120, 80), (80, 140),
                                       (90, 249)])
def test_accumulators_near_the_term(low, high):
    # From far below the term to far above it; subnormal and overflowing ones included.
    rng = np.random.default_rng(low + 300)
    total = totals(rng, 4000)
    exponent = rng.integers(low, high, 4000)
    with np.errstate(over="ignore"):
        acc = np.ldexp(rng.standard_normal(4000), exponent + rng.integers(-30, 48, 4000))
        acc = acc.astype(np.float32)
    check(acc.view(np.uint32), total, *split(rng, exponent))


@pytest.mark.parametrize("low, high", [(-175, -120), (-120, 108), (105, 130)])
def test_cancellation(low, high):
    # The accumulator is the term with the other sign, or a few units in the last place beside it.
    rng = np.random.default_rng(low + 300)
    total = totals(rng, 4000)
    exponent = rng.integers(low, high, 4000)
    with np.errstate(over="ignore"):
        acc = np.ldexp(-total.astype(np.float64), exponent).astype(np.float32).view(np.uint32)
    acc = np.where(acc & 0x7FFFFFFF == 0, acc, acc + rng.integers(-3, 4, 4000).astype(np.uint32))
    check(acc, total, *split(rng, exponent))


@pytest.mark.parametrize("low, high", [(1, 200), (0, 2), (200, 254), (253, 255)])
def test_ties_and_their_neighbours(low, high):
    # Half a unit in the accumulator's last place, or a term that is just beside it.
    rng = np.random.default_rng(low)
    field = rng.integers(low, high, 6000)
    acc = (field << 23 | rng.integers(0, 1 << 23, 6000) | rng.choice([0, 1 << 31], 6000))
    acc = np.where(rng.random(6000) < 0.2, acc & ~0x7FFFFF, acc)
    acc = np.where(rng.random(6000) < 0.2, acc | 0x7FFFFF, acc)
    # Half a unit is 2**(e - 151): the sum is 2**width plus -1, 0 or 1.
    width = rng.integers(0, 17, 6000)
    total = (1 << width) * rng.choice([1, 2, 3], 6000) // rng.choice([1, 2], 6000)
    total = total + rng.integers(-1, 2, 6000)
    total *= rng.choice([-1, 1], 6000)
    check(acc, total, *split(rng, np.maximum(field, 1) - 151 - width))


def split(rng, exponent):
    """Two scale codes with Xw + Xx - 260 = ``exponent``."""
    both = exponent + 260
    assert both.min() >= 0 and both.max() <= 508
    first = rng.integers(np.maximum(both - 254, 0), np.minimum(both, 254) + 1)
    return first, both - first


ONE, TINY, LARGEST, INFINITY = 0x3F800000, 0x00000001, 0x7F7FFFFF, 0x7F800000
NEGATIVE = 0x80000000


@pytest.mark.parametrize("acc, total, scales, result", [
    # G = 64 at scales of 1 is 1: 0.5 * 0.5, 1 + 0 and their like.
    (0, 16, 254, 0x3E800000),
    (0, 64, 254, ONE),
    (ONE, 0, 254, ONE),
    (ONE, 64, 254, 0x40000000),
    (0, LIMIT, 254, 0x4500A000),
    # 1 + 2**-24 is a tie, to even; one more unit of 2**-41 is above it, one less is below.
    (ONE, 1, 236, ONE),
    (ONE, 131072 + 1, 219, ONE + 1),
    (ONE, 131072 - 1, 219, ONE),
    (ONE + 1, 1, 236, ONE + 2),
    (ONE + 1, 131072 - 1, 219, ONE + 1),
    # Below a power of two the spacing halves: 1 - 2**-25 is a tie.
    (ONE, -1, 235, ONE),
    (ONE, -(131072 + 1), 218, ONE - 1),
    (ONE, -1, 236, ONE - 1),
    # A term far below the last place does not move the accumulator, whatever its sign.
    (ONE, -1, 0, ONE),
    (LARGEST, LIMIT, 100, LARGEST),
    # Zeros: an exact zero sum is +0.
    (NEGATIVE, 0, 254, 0),
    (0, 0, 254, 0),
    (NEGATIVE, 0, 0, 0),
    (ONE, -64, 254, 0),
    (ONE | NEGATIVE, 64, 254, 0),
    (TINY, -1, 111, 0),
    # Underflow: rounding keeps the sign; half the smallest subnormal is a tie.
    (0, -1, 0, NEGATIVE),
    (NEGATIVE, -1, 0, NEGATIVE),
    (NEGATIVE, 1, 0, 0),
    (0, 1, 110, 0),
    (0, -1, 110, NEGATIVE),
    (0, 3, 109, TINY),
    (0, 3, 110, 2),
    (0, -3, 110, NEGATIVE | 2),
    (TINY, 1, 110, 2),
    # 1 + 1.5 units is a tie to 2; a term that was rounded first, to 2, would give 3.
    (TINY, 3, 110, 2),
    (TINY, -1, 110, 0),
    (TINY, -3, 110, NEGATIVE),
    (3, -(131072 + 1), 93, 2),
    (0x00800000, -1, 110, 0x00800000),
    (0x00800000, -3, 110, 0x007FFFFE),
    (0x007FFFFF, 1, 111, 0x00800000),
    # Overflow: half a unit beyond the largest is infinite, anything less is not.
    (LARGEST, 1, 363, INFINITY),
    (LARGEST, 131071, 346, LARGEST),
    (LARGEST | NEGATIVE, -1, 363, INFINITY | NEGATIVE),
    (LARGEST | NEGATIVE, -131071, 346, LARGEST | NEGATIVE),
    (0, 1, 388, INFINITY),
    (0, 1, 387, 0x7F000000),
    (0, -LIMIT, 508, INFINITY | NEGATIVE),
    # A term beyond the largest float32 may still be cancelled.
    (0xFF000000, 1, 388, 0x7F000000),
    (LARGEST | NEGATIVE, 1, 388, 0x73800000),
    (LARGEST | NEGATIVE, 1, 389, INFINITY),
    # Infinities stay as they are, NaN is one pattern.
    (INFINITY, -LIMIT, 508, INFINITY),
    (INFINITY | NEGATIVE, LIMIT, 508, INFINITY | NEGATIVE),
    (INFINITY, 0, 0, INFINITY),
    (0x7FC00000, 1, 254, 0x7FC00000),
    (0xFFC00001, 1, 254, 0x7FC00000),
    (0x7F800001, 0, 254, 0x7FC00000),
    (0xFFFFFFFF, 0, 254, 0x7FC00000),
])
def test_by_hand(acc, total, scales, result):
    for first in {max(scales - 254, 0), scales // 2, min(scales, 254)}:
        for pair in (first, scales - first), (scales - first, first):
            given = np.array([acc], np.uint32).view(np.float32)
            ours = accumulate(given, np.array([total]), *(np.array([s], np.uint8) for s in pair))
            assert hex(ours.view(np.uint32)[0]) == hex(result), pair
            assert hex(oracle.accumulate(acc, total, *pair)) == hex(result), pair


@pytest.mark.parametrize("scales", [(255, 127), (127, 255), (255, 255), (255, 0), (0, 255)])
@pytest.mark.parametrize("acc", [0, ONE, INFINITY, INFINITY | NEGATIVE, 0x7FC00000])
@pytest.mark.parametrize("total", [0, 1, -LIMIT])
def test_nan_scale(acc, total, scales):
    check([acc], [total], [scales[0]], [scales[1]])
    given = np.array([acc], np.uint32).view(np.float32)
    result = accumulate(given, np.array([total]), *(np.array([s], np.uint8) for s in scales))
    assert result.view(np.uint32).tolist() == [0x7FC00000]


def test_shapes_broadcast():
    rng = np.random.default_rng(1)
    total = totals(rng, 12).reshape(3, 4)
    x, w = rng.integers(100, 150, (3, 1), np.uint8), rng.integers(100, 150, (1, 4), np.uint8)
    acc = rng.standard_normal((3, 4)).astype(np.float32)
    result = accumulate(acc, total, x, w)
    assert result.shape == (3, 4)
    for i in np.ndindex(3, 4):
        expected = oracle.accumulate(int(acc[i].view(np.uint32)), int(total[i]), int(x[i[0], 0]),
                                     int(w[0, i[1]]))
        assert result[i].view(np.uint32) == expected, i
