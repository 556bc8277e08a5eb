# SPDX-License-Identifier: BSD-2-Clause
"""Golden plans: every product once and in order, within the buffers."""

from collections import Counter

import numpy as np
import pytest

from golden.accelerator.planner import CONFIGS, Config, interleave, plan

SHAPES = [(1, 1, 1), (1, 32, 32), (1, 70, 300), (3, 33, 5), (7, 2100, 40), (8, 100, 33),
          (15, 64, 9), (17, 400, 70), (40, 64, 64), (65, 2048, 40), (100, 2100, 3), (301, 40, 33)]
SIZES = {"tiny": CONFIGS["tiny"], "lite": CONFIGS["lite"],
         "narrow": Config(columns=8, activations=64, rows=16, weight_width=8)}


def products(division):
    """Row, group and tile of every product in the order of the plan, and the first of a bundle."""
    for block in division.blocks:
        for bundle in division.bundles(len(block)):
            for group in range(division.groups):
                for tile in bundle:
                    for row in block:
                        yield row, group, tile


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("shape", SHAPES)
def test_everything_once_and_in_order(name, shape):
    m, k, n = shape
    config = SIZES[name]
    division = plan(config, m, k, n)
    order = [*products(division)]
    assert Counter(order) == Counter(
        (row, group, tile) for row in range(m) for group in range(-(-k // 32))
        for tile in range(-(-n // config.columns)))

    # Groups ascend for every sum, and what is not the bundle's only sums lies eight apart.
    last = {}
    for step, (row, group, tile) in enumerate(order):
        before, when = last.get((row, tile), (-1, -8))
        assert group == before + 1
        if len(division.bundles(m)) > 2:
            assert step - when >= 8 or tile >= division.tiles - 7
        last[row, tile] = group, step

    # The streams' orders are those of the products.
    tiles = [(tile, group) for i, (row, group, tile) in enumerate(order)
             if i == 0 or order[i - 1][1:] != (group, tile) or row < order[i - 1][0]]
    tile, group = division.weight_order()
    assert [*zip(tile.tolist(), group.tolist(), strict=True)] == tiles
    results = [(row, tile) for row, group, tile in order if group == division.groups - 1]
    assert [*zip(*(part.tolist() for part in division.result_order()), strict=True)] == results
    arrivals, known = [], set()
    for row, group, tile in order:
        key = (row, group) if division.resident else (row, group, tile // interleave(
            next(len(block) for block in division.blocks if row in block)))
        if key not in known:
            known.add(key)
            arrivals.append((row, group))
    assert [*zip(*(part.tolist() for part in division.activation_order()), strict=True)] == arrivals


@pytest.mark.parametrize("name", SIZES)
def test_blocks_fit(name):
    config = SIZES[name]
    rng = np.random.default_rng(0)
    for _ in range(300):
        m, k, n = (int(2 ** (bits * rng.random())) for bits in (11, 18, 8))
        division = plan(config, m, k, n)
        sizes = [len(block) for block in division.blocks]
        assert division.blocks[0].start == 0 and sum(sizes) == m
        assert max(sizes) - min(sizes) <= 1 and min(sizes) > 0
        assert max(sizes) <= config.rows
        bundles = division.bundles(max(sizes))
        assert max(map(len, bundles)) * max(sizes) <= config.rows
        if division.resident:
            assert max(sizes) * division.groups <= config.activations
        # Weights come more often than the rows ask for only if the activations then stay.
        assert len(sizes) == -(-m // config.rows) or division.resident


@pytest.mark.parametrize("rows", range(1, 20))
def test_interleave(rows):
    width = interleave(rows)
    assert rows * width >= 8 and (width == 1 or rows * width <= 14)
