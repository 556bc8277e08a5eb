# SPDX-License-Identifier: BSD-2-Clause
"""The decoded top-1 against golden: every code with every metadata."""

from itertools import combinations, product

import numpy as np
import pytest

from hw.units.top1_decode import Top1Decode
from tests.support.compare import check
from tests.support.testbench import shared

# Section 7: 8 * (X' - X) by magnitude code, for metadata 0..3.
REFINEMENTS = [(0, 0, 1, 2), (-1, 0, 1, 2), (-1, 0, 1, 2), (-1, 0, 1, 2),
               (-1, 0, 2, 4), (-2, 0, 2, 4), (-2, 0, 4, 8), (-4, 0, 4, 8)]


def refinement(code, meta):
    """Shift, negative and zero."""
    eighths = REFINEMENTS[code % 8][meta] * (-1 if code >= 8 else 1)
    return (0, 0, 1) if eighths == 0 else (abs(eighths).bit_length() - 1, int(eighths < 0), 0)


def check_rows(rows):
    """Rows of codes, metadata and the lane that is expected."""
    codes, meta, lanes = zip(*rows, strict=True)
    shift, negative, zero = np.array([refinement(c[lane], m) for c, m, lane in rows]).T
    check(shared(Top1Decode), {"codes": np.array(codes), "meta": np.array(meta)},
          {"lane": 1 << np.array(lanes),
           "refinement": {"shift": shift, "negative": negative, "zero": zero}})


def test_every_code_and_metadata_in_every_lane():
    rows = []
    for code, meta, lane in product(range(16), range(4), range(8)):
        # The others are the next smaller magnitude, of either sign.
        codes = [max(code % 8 - 1, 0) | (i & 1) << 3 for i in range(8)]
        codes[lane] = code
        rows.append((codes, meta, lane if code % 8 else 0))
    check_rows(rows)


def test_ties_take_the_lowest_lane_and_its_sign():
    rows = []
    for (first, second), sign, meta in product(combinations(range(8), 2), (0, 8), (0, 2)):
        codes = [0] * 8
        codes[first], codes[second] = 7 | sign, 15 ^ sign
        rows.append((codes, meta, first))
    check_rows(rows)


@pytest.mark.parametrize("code, meta, shift, negative, zero", [
    # What section 3 says a decoder reads: 0 for c = 0 with either 0 or 1 ...
    (0, 0, 0, 0, 1),
    (8, 0, 0, 0, 1),
    (8, 1, 0, 0, 1),
    # ... 0.25 for c = 0 with 3, 0.375 for 0.5 with 0, -0.625 for -0.5 with 2 ...
    (0, 3, 1, 0, 0),
    (1, 0, 0, 1, 0),
    (9, 2, 0, 1, 0),
    # ... 1.875 for 2 with 0, 5.5 for 6 with 0, -5.5 for -6 with 0, 7 for 6 with 3.
    (4, 0, 0, 1, 0),
    (7, 0, 2, 1, 0),
    (15, 0, 2, 0, 0),
    (7, 3, 3, 0, 0),
])
def test_refinement(code, meta, shift, negative, zero):
    assert refinement(code, meta) == (shift, negative, zero)
    check(shared(Top1Decode), {"codes": np.array([[0, code, 0, 0, 0, 0, 0, 0]]),
                         "meta": np.array([meta])},
          {"lane": np.array([2 if code % 8 else 1]),
           "refinement": {"shift": np.array([shift]), "negative": np.array([negative & ~zero]),
                          "zero": np.array([zero])}})
