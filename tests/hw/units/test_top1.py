# SPDX-License-Identifier: BSD-2-Clause
"""The top-1 against golden: ties, signs, all pairs of codes."""

from itertools import combinations

import numpy as np
import pytest

from hw.registry import UNITS
from hw.units.top1 import Top1
from tests.support.compare import check
from tests.support.marks import longer
from tests.support.testbench import shared

LANES = sorted(UNITS["top1"].parameters["lanes"])


def first_largest(codes):
    """Section 3, step 3, as it is written."""
    magnitudes = [code % 8 for code in codes]
    return magnitudes.index(max(magnitudes))


def check_all(codes):
    codes = np.asarray(codes)
    check(shared(Top1, lanes=codes.shape[1]), {"codes": codes},
          {"lane": np.array([first_largest(row) for row in codes.tolist()])})


def test_all_pairs():
    check_all(np.indices((16, 16)).reshape(2, -1).T)


def test_all_magnitudes_of_four():
    magnitudes = np.indices((8,) * 4).reshape(4, -1).T
    check_all(magnitudes | np.random.default_rng(0).choice([0, 8], magnitudes.shape))


# 32 lanes are one more level of the same tree.
@pytest.mark.parametrize("lanes", [longer(lanes) if lanes == 32 else lanes for lanes in LANES])
def test_ties_of_all_lane_pairs(lanes):
    # 5 or -5 in both lanes, smaller magnitudes elsewhere.
    rows, expected = [], []
    for first, second in combinations(range(lanes), 2):
        row = [(lane % 5) | (lane & 8) for lane in range(lanes)]
        row[first], row[second] = 13, 5
        rows.append(row)
        expected.append(first)
    check(shared(Top1, lanes=lanes), {"codes": np.array(rows)}, {"lane": np.array(expected)})


@pytest.mark.parametrize("lanes", LANES)
def test_every_lane_wins(lanes):
    codes = np.where(np.eye(lanes, dtype=bool), 9, 8)
    check(shared(Top1, lanes=lanes), {"codes": codes}, {"lane": np.arange(lanes)})


def test_sign_is_ignored():
    # The paper's Fig. 10 ranks +6 above -6; Algorithm 1 holds. Zeros of either sign are equal.
    codes = [[0, 15, 7, 0, 0, 0, 0, 0],
             [0, 7, 15, 0, 0, 0, 0, 0],
             [15, 0, 0, 0, 0, 0, 0, 7],
             [8, 0, 8, 0, 8, 0, 8, 0],
             [0, 8, 0, 0, 0, 0, 0, 8],
             [0, 0, 0, 0, 0, 8, 9, 1]]
    check(shared(Top1), {"codes": np.array(codes)}, {"lane": np.array([1, 1, 0, 0, 0, 6])})
