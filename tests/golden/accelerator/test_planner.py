# SPDX-License-Identifier: BSD-2-Clause
"""Golden plans: every product once and in order, within the buffers."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from golden.accelerator.planner import (
    BAD_RESULT,
    CONFIGS,
    DONE,
    KEEP,
    RECORDS,
    TOO_LARGE,
    Config,
    check,
    interleave,
    plan,
)

SHAPES = [(1, 1, 1), (1, 32, 32), (1, 70, 300), (3, 33, 5), (7, 2100, 40), (8, 100, 33),
          (15, 64, 9), (17, 400, 70), (40, 64, 64), (65, 2048, 40), (100, 2100, 3), (301, 40, 33)]
SIZES = {"tiny": CONFIGS["tiny"], "lite": CONFIGS["lite"],
         "narrow": Config(columns=8, activations=64, rows=16, weight_width=8),
         "wide": Config(columns=64, activations=64, rows=16, weight_width=8, input=None,
                        encoding="sg-special64")}


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
    config, group_size = SIZES[name], 64 if name == "wide" else 32
    division = plan(config, m, k, n)
    order = [*products(division)]
    assert Counter(order) == Counter(
        (row, group, tile) for row in range(m) for group in range(-(-k // group_size))
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
    starts = {block.start for block in division.blocks}
    tiles = [(tile, group) for row, group, tile in order if row in starts]
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


def test_groups_of_64():
    """In Sg-special64 a group has 64 elements, and only rows of 64 results are quantized."""
    config = replace(SIZES["wide"], engine="sg-special64")
    assert (config.group, config.weight_encoding, config.quantizes) == (64, "sg-special64", True)
    assert not SIZES["wide"].quantizes and not replace(config, columns=32).quantizes
    assert [plan(config, 1, k, 65).groups for k in (1, 64, 65, 128, 129)] == [1, 1, 2, 2, 3]
    # 64 records hold 16 rows of three groups and one of results, or 12 of four and one.
    for m, k, n, status in ((16, 192, 64, DONE), (16, 193, 64, TOO_LARGE), (12, 256, 64, DONE),
                            (13, 256, 64, TOO_LARGE), (12, 256, 65, TOO_LARGE)):
        assert check(config, m, k, n, RECORDS, KEEP, None) == status, (m, k, n)
    assert check(replace(config, columns=32), 1, 1, 1, RECORDS, KEEP, None) == BAD_RESULT


@pytest.mark.parametrize("rows", range(1, 20))
def test_interleave(rows):
    width = interleave(rows)
    assert rows * width >= 8 and (width == 1 or rows * width <= 14)
