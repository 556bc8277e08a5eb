# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""The tile of Elem-EM against golden: every product, every refinement, every depth."""

from itertools import product

import numpy as np
import pytest

from hw.units.pe_tile import PETile
from tests.hw.units.test_top1_decode import refinement
from tests.support.compare import check
from tests.support.marks import longer
from tests.support.oracle import E2M1_HALVES, E2M3_EIGHTHS
from tests.support.testbench import shared, simulate

DEPTHS = pytest.mark.parametrize("depth", [0, 1, 2])


def transfer(activations, weights, k=0, *, lane=0, meta=1):
    """One row of a tile's inputs, refinement by the activations' top-1 and its metadata."""
    shift, negative, zero = refinement(activations[lane], meta)
    return {"activations": activations, "weights": weights, "meta": k, "lane": 1 << lane,
            "refinement": {"shift": shift, "negative": negative, "zero": zero}}


def stack(rows):
    return {name: stack([row[name] for row in rows]) if name == "refinement"
            else np.array([row[name] for row in rows]) for name in rows[0]}


def check_rows(rows, sums, *, depth=0, **options):
    check(shared(PETile, depth=depth), stack(rows), {"sum": np.array(sums)}, **options)


def one(code, lane=0, rest=0):
    return [code if i == lane else rest for i in range(8)]


@pytest.mark.parametrize("factors", [1, longer(4)])
def test_every_product(factors):
    """With one factor for each, such that all meet each operand, or with all factors."""
    # Section 7 in integers: 2 * W times 8 * X' times 4 + k, and every lane has its turn.
    rows, sums = [], []
    for row, (x, w, meta, i) in enumerate(product(range(16), range(16), range(4),
                                                  range(factors))):
        # Lanes change less often than what takes the simulator less time.
        lane, k = row // 4 % 8, (x + w + meta + i) % 4
        rows.append(transfer(one(x, lane), one(w, lane), k, lane=lane, meta=meta))
        sign = -1 if (x ^ w) & 8 else 1
        refined = E2M3_EIGHTHS[max(4 * (x % 8) + meta, 1) - 1]
        sums.append(sign * E2M1_HALVES[w % 8] * refined * (4 + k))
    check_rows(rows, sums)


@DEPTHS
def test_extremes(depth):
    # 12 * (56 + 7 * 48) * 7, by all signs of the operands.
    rows = [transfer([x] * 8, [w] * 8, 3, lane=lane, meta=3)
            for x, w, lane in product((7, 15), (7, 15), (0, 7))]
    check_rows(rows, [32928] * 2 + [-32928] * 4 + [32928] * 2, depth=depth)


def test_every_plain_product():
    # In units of 1/4, and every lane has its turn.
    codes = [*product(range(16), range(16))]
    inputs = {"activations": np.array([one(x, row % 8) for row, (x, _) in enumerate(codes)]),
              "weights": np.array([one(w, row % 8) for row, (_, w) in enumerate(codes)])}
    halves = [*E2M1_HALVES, *(-value for value in E2M1_HALVES)]
    check(shared(PETile, metadata=False), inputs,
          {"sum": np.array([halves[x] * halves[w] for x, w in codes])})


@DEPTHS
@pytest.mark.parametrize("stalls", [0, 0.5])
def test_plain_dot_product(depth, stalls):
    # The limits, 8 * 12 * 12, and values of all lanes together.
    rows = [([x] * 8, [w] * 8) for x, w in product((7, 15), repeat=2)]
    rows += [([1, 2, 3, 4, 5, 6, 7, 8], [7, 15, 1, 9, 0, 8, 2, 3]), ([0] * 8, [15] * 8)]
    check(shared(PETile, depth=depth, metadata=False),
          {"activations": np.array([x for x, _ in rows]),
           "weights": np.array([w for _, w in rows])},
          {"sum": np.array([1152, -1152, -1152, 1152, 12 - 24 + 3 - 4 + 24, 0])}, stalls=stalls)


def test_plain_tile_has_no_metadata_ports():
    assert set(PETile(metadata=False, depth=1).signature.members) == {
        "activations", "weights", "enable", "sum"}


@DEPTHS
@pytest.mark.parametrize("activations, weights, k, meta, sixty_fourths", [
    (one(1), one(1), 0, 1, 16),               # 0.5 * 0.5 = 0.25
    (one(9), one(1), 0, 1, -16),              # -0.5 * 0.5
    (one(1), one(1), 1, 1, 20),               # 0.5 * (0.5 * 1.25) = 0.3125
    (one(1), one(1), 0, 0, 12),               # 0.375 * 0.5
    (one(0), one(7), 0, 2, 48),               # 0.125 * 6: a code of zero is refined
    (one(8), one(7), 0, 3, -96),              # -0.25 * 6
    (one(2), one(2), 0, 1, 64),               # 1 * 1 + 0 * 0
    (one(2), one(2, rest=8), 0, 1, 64),       # 1 * 1 + 0 * -0
    (one(3), one(3), 0, 1, 144),              # 1.5 * 1.5 = 2.25
    (one(2), [2, 7, 7, 7, 7, 7, 7, 7], 3, 1, 112),
    ([8] * 8, [15] * 8, 3, 1, 0),
    ([15, 7, 0, 0, 0, 0, 0, 0], [2] * 8, 0, 3, -64),   # -7 + 6
    ([7, 15, 0, 0, 0, 0, 0, 0], [2] * 8, 0, 1, 0),     # 6 - 6
    ([7, 7, 7, 7, 15, 15, 15, 15], [7] * 8, 2, 1, 0),
    ([1] * 8, [9] * 8, 0, 1, -128),
])
def test_dot_product(depth, activations, weights, k, meta, sixty_fourths):
    check_rows([transfer(activations, weights, k, meta=meta)], [sixty_fourths], depth=depth)


@DEPTHS
def test_refinement_takes_its_own_lane_s_weight(depth):
    # Zero codes with 0.25 in one lane: a quarter of that lane's weight.
    weights = [1, 2, 3, 4, 13, 14, 15, 9]
    quarters = [8, 16, 24, 32, -48, -64, -96, -8]
    check_rows([transfer([0] * 8, weights, lane=lane, meta=3) for lane in range(8)], quarters,
               depth=depth)


@DEPTHS
@pytest.mark.parametrize("stalls", [0, 0.5])
def test_operands_of_one_transfer_stay_together(depth, stalls):
    # Each transfer differs from its neighbours in one operand only.
    rows, sums = [], []
    for i in range(24):
        rows.append(transfer(one(2), one(2), i % 4))
        sums.append(16 * (4 + i % 4))
    for i in range(24):
        rows.append(transfer(one(i % 4), one(2)))
        sums.append([0, 32, 64, 96][i % 4])
    for i in range(24):
        rows.append(transfer(one(2), one(10 if i % 2 else 2)))
        sums.append(-64 if i % 2 else 64)
    for i in range(24):
        rows.append(transfer(one(7), one(2), meta=i % 4))
        sums.append([352, 384, 416, 448][i % 4])
    check_rows(rows, sums, depth=depth, stalls=stalls)


@pytest.mark.parametrize("depth", [1, 2])
def test_nothing_moves_without_enable(depth):
    tile = PETile(depth=depth)

    async def bench(ctx):
        def apply(row):
            for name, value in row.items():
                ctx.set(getattr(tile, name), value)

        apply(transfer(one(2), one(2), 1))
        ctx.set(tile.enable, 1)
        await ctx.tick().repeat(depth)
        apply(transfer(one(7), one(15), 3, meta=3))
        ctx.set(tile.enable, 0)
        for _ in range(4):
            assert ctx.get(tile.sum) == 80
            await ctx.tick()

        # Nor has anything entered: the next enabled cycle brings what came before the pause.
        ctx.set(tile.enable, 1)
        apply(transfer(one(0), one(0)))
        await ctx.tick()
        assert ctx.get(tile.sum) == (80 if depth == 2 else 0)

    simulate(tile, bench)
