# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""The tile of NVFP4 against golden: all scales, all codes."""

from itertools import product

import numpy as np
import pytest

from hw.units.nvfp4_pe_tile import Nvfp4PETile
from tests.support.compare import check
from tests.support.marks import longer
from tests.support.oracle import E2M1_HALVES, E4M3_UNITS
from tests.support.testbench import shared

HALVES = [*E2M1_HALVES, *(-value for value in E2M1_HALVES)]
ONE = 0x38
LANES = pytest.mark.parametrize("lanes", [8, 16])


def one(code, lane, lanes):
    return [code if i == lane else 0 for i in range(lanes)]


def check_rows(rows, outputs, *, lanes=8):
    """Rows of activations, weights and their scales; sums, shifts and whether NaN."""
    names = ("activations", "weights", "activation_scale", "weight_scale")
    inputs = dict(zip(names, map(np.array, zip(*rows, strict=True)), strict=True))
    expected = zip(("sum", "shift", "nan"), map(np.array, zip(*outputs, strict=True)), strict=True)
    check(shared(Nvfp4PETile, lanes=lanes), inputs, dict(expected))


# Amaranth's simulator takes most of a minute for 16 lanes.
@pytest.mark.parametrize("lanes", [8, longer(16)])
def test_every_product(lanes):
    # In units of 1/4; scales of 1 have the significand 8 and the exponent 6 of 2**-9 each.
    codes = [*product(range(16), range(16))]
    check_rows([(one(x, i % lanes, lanes), one(w, i % lanes, lanes), ONE, ONE)
                for i, (x, w) in enumerate(codes)],
               [(64 * HALVES[x] * HALVES[w], 12, 0) for x, w in codes], lanes=lanes)


@pytest.mark.long
def test_every_pair_of_scales():
    # sum * 2**(shift - 20) is the product of the values: of the scales, with 1.5 times -1.
    scales = [*product(range(127), range(0, 127, 3)), *product(range(0, 127, 3), range(127))]
    inputs = {"activations": np.array([one(3, 2, 8)] * len(scales)),
              "weights": np.array([one(10, 2, 8)] * len(scales)),
              "activation_scale": np.array([x for x, _ in scales]),
              "weight_scale": np.array([w for _, w in scales])}
    sums, shifts = [], []
    for x, w in scales:
        shift = sum(max(scale // 8 - 1, 0) for scale in (x, w))
        # Units of 2**-9 each; 1.5 is 6 quarters.
        exact, rest = divmod(6 * E4M3_UNITS[x] * E4M3_UNITS[w], 2**shift)
        assert rest == 0
        sums.append(-exact)
        shifts.append(shift)
    check(shared(Nvfp4PETile), inputs, {"sum": np.array(sums), "shift": np.array(shifts),
                                  "nan": np.zeros(len(scales))})


@LANES
def test_extremes(lanes):
    limit = lanes * 144 * 225
    rows = [([x] * lanes, [w] * lanes, 0x77, 0x77) for x, w in product((7, 15), repeat=2)]
    check_rows(rows, [(sign * limit, 26, 0) for sign in (1, -1, -1, 1)], lanes=lanes)


@LANES
@pytest.mark.parametrize("activation_scale, weight_scale, total, shift, nan", [
    (0, 0, 0, 0, 0), (0, 0x7E, 0, 14, 0), (1, 1, 144, 0, 0), (1, 7, 7 * 144, 0, 0),
    (7, 8, 56 * 144, 0, 0), (8, 8, 64 * 144, 0, 0), (8, 0x10, 64 * 144, 1, 0),
    (0x7E, 0x7E, 14 * 14 * 144, 28, 0),
    (0x7F, 0x38, 15 * 8 * 144, 20, 1), (0x38, 0x7F, 15 * 8 * 144, 20, 1),
    (0x7F, 0, 0, 14, 1), (0x7F, 0x7F, 225 * 144, 28, 1),
])
def test_scales(lanes, activation_scale, weight_scale, total, shift, nan):
    check_rows([(one(7, lanes - 1, lanes), one(7, lanes - 1, lanes), activation_scale,
                 weight_scale)], [(total, shift, nan)], lanes=lanes)


@pytest.mark.parametrize("lanes", [4, 0, True, "8", 8.0])
def test_wrong_lanes(lanes):
    with pytest.raises(ValueError) as raised:
        Nvfp4PETile(lanes=lanes)
    assert str(raised.value) == f"Lane count must be 8 or 16, not {lanes!r}"


def test_scales_have_no_sign():
    tile = Nvfp4PETile()
    assert (len(tile.activation_scale), len(tile.weight_scale)) == (7, 7)
