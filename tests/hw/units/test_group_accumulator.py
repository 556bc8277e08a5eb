# SPDX-License-Identifier: BSD-2-Clause
"""The accumulator against golden: ties, cancellation, subnormals, overflow, special values."""

from functools import cache
from itertools import product

import numpy as np
import pytest

from hw import registry
from hw.units.group_accumulator import GroupAccumulator
from sim.engines import build
from tests.support import bubbles
from tests.support.compare import check
from tests.support.oracle import accumulate
from tests.support.side_by_side import SideBySide
from tests.support.testbench import shared

ONE = 0x3F800000
INF = 0x7F800000
NAN = 0x7FC00000
LARGEST = 0x7F7FFFFF
MINUS = 0x80000000
G_MOST = 131712


def split(total):
    """Two scale codes with this sum."""
    return min(total, 254), max(total - 254, 0)


DEPTHS = registry.UNITS["group_accumulator"].parameters["depth"]


@cache
def accumulators():
    """Every accumulator, in one component, so that all tests share what is built."""
    return SideBySide({name(metadata, depth): GroupAccumulator(metadata=metadata, depth=depth)
                       for metadata in (True, False) for depth in DEPTHS})


def name(metadata, depth):
    return f"{'metadata' if metadata else 'plain'}_{depth}"


def check_rows(rows, bits, *, metadata=True, **options):
    """Rows of acc, G and both scale codes, at every depth."""
    acc, total, activation, weight = np.array(rows).T
    given = {"acc": acc, "sum": total, "activation_scale": activation, "weight_scale": weight}
    tested = [name(metadata, depth) for depth in DEPTHS]
    # The others are given nothing and must stay silent.
    nothing = {field: column[:0] for field, column in given.items()}
    inputs = {f"{unit}_i": given if unit in tested else nothing for unit in accumulators().units}
    expected = {f"{unit}_o": np.array(bits if unit in tested else [], np.uint32)
                for unit in accumulators().units}
    check(accumulators(), inputs, expected, engine=build.preferred("auto"),
          outputs={stream: len(rows) for stream, rows in expected.items()}, **options)


# acc, G, x (so that G counts 2**x), result.
SUMS = {
    "one_plus_nothing": [
        (ONE, 0, -6, ONE), (ONE, 0, 248, ONE), (ONE, 0, -260, ONE),
        (MINUS | ONE, 0, 0, MINUS | ONE), (1, 0, 248, 1), (MINUS | 1, 0, -260, MINUS | 1),
        (LARGEST, 0, 248, LARGEST),
    ],
    "a_quarter": [  # 0.5 * 0.5, G in units of 1/64
        (0, 16, -6, 0x3E800000), (0, -16, -6, 0xBE800000), (MINUS, 16, -6, 0x3E800000),
        (ONE, 16, -6, 0x3FA00000), (MINUS | ONE, 16, -6, 0xBF400000),
    ],
    "zeros": [
        (0, 0, -6, 0), (MINUS, 0, -6, 0), (MINUS, 0, 248, 0), (MINUS, 0, -260, 0), (0, 0, 248, 0),
    ],
    "cancellation": [
        (ONE, -64, -6, 0), (MINUS | ONE, 64, -6, 0), (0x4500A000, -G_MOST, -6, 0),
        (1, -1, -149, 0), (MINUS | 1, 1, -149, 0), (0x00800000, -1, -126, 0),
        (0x3F800001, -64, -6, 0x34000000),              # 2**-23 is left
        (0x3F7FFFFF, -64, -6, 0xB3800000),              # -2**-24
        (0x3F800000, -65535, -16, 0x37800000),          # 2**-16
        (0x4E800000, -1, 0, 0x4E800000),                # 2**30 - 1: far below half an ulp
        (0x4B800000, -1, 0, 0x4B7FFFFF),                # 2**24 - 1 is exact
    ],
    "ties": [
        (ONE, 1, -24, ONE), (0x3F800001, 1, -24, 0x3F800002), (0x3F800002, 1, -24, 0x3F800002),
        (ONE, 3, -24, 0x3F800002), (MINUS | ONE, -1, -24, MINUS | ONE),
        (0xBF800001, -1, -24, 0xBF800002),
        (ONE, -1, -25, ONE), (0x3F800001, -1, -24, ONE), (0x3F7FFFFF, 1, -25, ONE),
        (0x3F7FFFFE, 1, -25, 0x3F7FFFFE), (ONE, -3, -25, 0x3F7FFFFE),
    ],
    "beyond_and_short_of_ties": [
        (ONE, 65537, -40, 0x3F800001), (ONE, 65535, -40, ONE), (0x3F800001, 65535, -40, 0x3F800001),
        (0x3F800001, 65537, -40, 0x3F800002), (ONE, -65537, -41, 0x3F7FFFFF),
        (ONE, -65535, -41, ONE), (ONE, 1, -200, ONE), (ONE, -1, -200, ONE), (ONE, -1, -260, ONE),
        (MINUS | ONE, 65537, -41, 0xBF7FFFFF), (0, 131071, -17, 0x3F7FFF80),
        # The term is the larger one: acc is rounded away from under it.
        (1, 64, -6, ONE), (MINUS | 1, 64, -6, ONE), (0x33800000, 64, -6, ONE),
        (0x33800001, 64, -6, 0x3F800001), (0xB3000000, 64, -6, ONE),
        (0xB3000001, 64, -6, 0x3F7FFFFF), (0x33800000, 131071, -17, 0x3F7FFF81),
    ],
    "carry": [
        (0x3FFFFFFF, 1, -24, 0x40000000), (0x3FFFFFFF, 1, -23, 0x40000000),
        (ONE, 64, -6, 0x40000000), (0x3FFFFFFF, 64, -6, 0x40400000),
    ],
    "subnormal_results": [
        (0, 1, -149, 1), (0, -1, -149, MINUS | 1), (0, 131071, -149, 131071), (1, 1, -149, 2),
        (0, 1, -150, 0), (0, 3, -150, 2), (0, 5, -150, 2), (0, 3, -151, 1), (0, 2, -151, 0),
        (0, 65537, -166, 1), (0, 65536, -166, 0), (1, 1, -150, 2), (2, 1, -150, 2),
        (2, -1, -150, 2), (1, -1, -150, 0), (3, -1, -150, 2), (1, -1, -151, 1),
        (0x007FFFFF, 1, -149, 0x00800000), (0x007FFFFF, 1, -150, 0x00800000),
        (0x00800000, -1, -149, 0x007FFFFF), (0x00800000, -1, -150, 0x00800000),
        (0x00800000, -3, -150, 0x007FFFFE), (0x00FFFFFF, -1, -126, 0x007FFFFF),
        (0x01000000, -1, -126, 0x00800000), (0x01000000, -1, -149, 0x00FFFFFF),
        (0x01000000, -1, -150, 0x01000000),
    ],
    "tiny": [
        (0, 1, -260, 0), (0, -1, -260, MINUS), (0, -1, -150, MINUS), (0, -65536, -166, MINUS),
        (MINUS, -1, -260, MINUS), (MINUS, 1, -260, 0), (0, -65537, -166, MINUS | 1),
        (1, -1, -260, 1), (MINUS | 1, 1, -260, MINUS | 1),
    ],
    "overflow": [
        (LARGEST, 1, 103, INF), (MINUS | LARGEST, -1, 103, MINUS | INF),
        (LARGEST, 131071, 86, LARGEST), (LARGEST, 1, 102, LARGEST), (LARGEST, 1, 104, INF),
        (LARGEST, 1, -260, LARGEST), (0x7F7FFFFE, 1, 103, 0x7F7FFFFE),
        (0x7F7FFFFE, 1, 104, LARGEST), (0, 1, 127, 0x7F000000), (0, 1, 128, INF),
        (0, -1, 128, MINUS | INF),
        (0, 131071, 111, 0x7F7FFF80), (0, 65536, 112, INF), (0, G_MOST, 248, INF),
        (ONE, -G_MOST, 248, MINUS | INF), (0, 131071, 112, INF), (LARGEST, 1, 127, INF),
        (MINUS | LARGEST, -87381, 112, MINUS | INF),
    ],
    "term_beyond_float32_comes_back": [
        (MINUS | LARGEST, 1, 128, 0x73800000), (LARGEST, -1, 128, 0xF3800000),  # 2**104
        (MINUS | LARGEST, 65537, 112, 0x77808000),      # 2**112 + 2**104
        (0xFF000000, 1, 128, 0x7F000000),               # 2**128 - 2**127
        (0xF3800000, 1, 128, LARGEST),                  # 2**128 - 2**104
        (0xF3000000, 1, 128, INF),                      # 2**128 - 2**103: a tie, to even
        (0xF3000001, 1, 128, LARGEST), (0xF2FFFFFF, 1, 128, INF), (MINUS | ONE, 1, 128, INF),
    ],
    "infinite_accumulator": [
        (sign | INF, g, x, sign | INF)
        for sign in (0, MINUS) for g in (0, 1, -1, G_MOST, -G_MOST)
        for x in (-260, -6, 110, 111, 127, 128, 129, 248)
    ],
    "nan_accumulator": [
        (acc, g, x, NAN)
        for acc in (NAN, 0xFFC00000, 0x7F800001, 0xFF800001, 0x7FFFFFFF, 0xFFFFFFFF)
        for g, x in ((0, -6), (64, -6), (-G_MOST, 248))
    ],
}


@pytest.mark.parametrize("name", SUMS)
def test_sum(name):
    check_rows([(acc, g, *split(x + 260)) for acc, g, x, _ in SUMS[name]],
               [bits for *_, bits in SUMS[name]])


def test_nan_scale():
    rows = [(acc, g, *scales)
            for acc in (0, ONE, INF, MINUS | INF, NAN, 1) for g in (0, 64, -1)
            for scales in ((255, 127), (127, 255), (255, 255), (0, 255), (255, 254))]
    check_rows(rows, [NAN] * len(rows))


def test_largest_sum_and_scales():
    # G = 131712 = 2**6 * 2058; 2058 = 0x4500A000.
    check_rows([(0, G_MOST, 127, 127), (0, -G_MOST, 127, 127), (ONE, G_MOST, 254, 0),
                (ONE, -G_MOST, 0, 254), (0, G_MOST, 0, 0), (0, G_MOST, 254, 254)],
               [0x4500A000, 0xC500A000, 0x4500B000, 0xC5009000, 0, INF])


@pytest.mark.parametrize("acc", [0, 0x80000001, 0x007FFFFF, 0x00800000, 0x3F800001, 0xBFFFFFFF,
                                 0x7F7FFFFF, 0xFF7FFFFE])
def test_every_exponent(acc):
    totals = np.resize([1, -1, 131071, -131071, 87381, -43691], 509).tolist()
    rows = [(acc, g, *split(scale)) for scale, g in enumerate(totals)]
    check_rows(rows, [accumulate(*row) for row in rows])


@pytest.mark.parametrize("acc", [0, 0x80000001, 0x00800000, 0x3F800001, 0xFF7FFFFE])
def test_every_exponent_without_metadata(acc):
    # The sum's limits are 32 * 12 * 12 quarters; oracle counts sixty-fourths.
    totals = np.resize([1, -1, 4608, -4608, 4095, -2731, 0], 509).tolist()
    rows = [(acc, g, *split(scale)) for scale, g in enumerate(totals)]
    check_rows(rows, [accumulate(acc, 16 * g, *scales) for acc, g, *scales in rows],
               metadata=False)


@pytest.mark.parametrize("acc, depth", [
    (0x80000001, 3), (0x3F800001, 3),
    *(pytest.param(acc, depth, marks=pytest.mark.long) for depth in DEPTHS
      for acc in (0, 0x80000001, 0x00800000, 0x3F800001, 0xFF7FFFFE))])
def test_every_exponent_in_groups_of_64(acc, depth):
    # The sum's limits are 64 * 16 * 16 quarters times 14 * 14 sixteenths.
    totals = np.resize([1, -1, 3211264, -3211264, 2097151, -2796203, 0], 509).tolist()
    rows = [(acc, g, *split(scale)) for scale, g in enumerate(totals)]
    acc, total, activation, weight = np.array(rows).T
    check(shared(GroupAccumulator, depth=depth, encoding="sg-special64"),
          {"i": {"acc": acc, "sum": total, "activation_scale": activation, "weight_scale": weight}},
          {"o": np.array([accumulate(*row) for row in rows])}, stalls=0.3)


@pytest.mark.parametrize("stalls", [0, 0.5])
def test_fields_of_one_transfer_stay_together(stalls):
    # Neighbours differ in one field at a time, back to back.
    rows = [(ONE, 64, 127, 127 + i % 2) for i in range(12)]
    rows += [(ONE, 64, 127 + i % 2, 127) for i in range(12)]
    rows += [(0x40400000 if i % 2 else ONE, 64, 127, 127) for i in range(12)]
    rows += [(ONE, 128 if i % 2 else 64, 127, 127) for i in range(12)]
    rows += [(NAN if i % 3 == 0 else INF if i % 3 == 1 else ONE, 64, 127, 127) for i in range(12)]
    two, three, four = 0x40000000, 0x40400000, 0x40800000
    check_rows(rows, [two, three] * 12 + [two, four] * 6 + [two, three] * 6 + [NAN, INF, two] * 4,
               stalls=stalls)


def test_both_scales_count_alike():
    pairs = [*product((0, 1, 100, 127, 200, 254), repeat=2)]
    rows = [(0, 3, *pair) for pair in pairs]
    check_rows(rows, [accumulate(*row) for row in rows])


@pytest.mark.parametrize("depth", DEPTHS)
def test_bubbles_are_filled_but_for_the_deepest_pipeline(depth):
    assert bubbles.held(GroupAccumulator(depth=depth), 2 * depth) == depth - (depth == 10)
