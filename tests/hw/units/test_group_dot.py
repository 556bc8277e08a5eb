# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""A row of tiles against golden: sums of a group with and without metadata."""

import numpy as np
import pytest

from hw.units.group_dot import GroupDot
from tests.hw.units.test_top1_decode import refinement
from tests.support.oracle import E2M1_HALVES, E2M3_EIGHTHS
from tests.support.testbench import simulate


def expected(group, *, metadata):
    """Section 7 in integers: sixty-fourths, or quarters without metadata."""
    total = 0
    for i, (x, w) in enumerate(zip(group["x"], group["w"], strict=True)):
        lane, meta, k = (group[name][i // 8] for name in ("lane", "meta", "k"))
        eighths = 4 * E2M1_HALVES[x % 8]
        if metadata and i % 8 == lane:
            eighths = E2M3_EIGHTHS[max(4 * (x % 8) + meta, 1) - 1]
        product = eighths * E2M1_HALVES[w % 8] * (4 + k if metadata else 1)
        total += -product if (x ^ w) & 8 else product
    return total if metadata else total // 4


def inputs(group, *, metadata):
    """The unit's ``row`` and ``weight``."""
    row = {"operands": [[{"mantissa": x & 1, "normal": x & 6 != 0, "upper": x >> 2 & 1,
                          "top": x & 6 == 6, "negative": x >> 3}
                         for x in group["x"][8 * j : 8 * j + 8]] for j in range(4)]}
    weight = {"elements": group["w"]}
    if metadata:
        refinements = [refinement(group["x"][8 * j + lane], meta) for j, (lane, meta) in
                       enumerate(zip(group["lane"], group["meta"], strict=True))]
        row |= {"lanes": [1 << lane for lane in group["lane"]],
                "refinements": [{"shift": shift, "negative": negative, "zero": zero}
                                for shift, negative, zero in refinements]}
        weight["metadata"] = group["k"]
    return {"row": row, "weight": weight}


def group(x, w, *, lane=(0,) * 4, meta=(1,) * 4, k=(0,) * 4):
    return {"x": x, "w": w, "lane": lane, "meta": meta, "k": k}


def one(value, place, rest=0, *, count=32):
    return [value if i == place else rest for i in range(count)]


def extremes(most):
    """Makes the largest sums: by all signs of operands, and one subgroup against the others.

    They are four subgroups of 12 * (56 + 7 * 48) * 7 sixty-fourths, or 32 products of 12 * 12
    quarters.
    """
    limits = {"lane": [0, 7, 3, 4], "meta": [3] * 4, "k": [3] * 4}
    for x, w, total in ((7, 7, most), (15, 7, -most), (7, 15, -most), (15, 15, most)):
        yield group([x] * 32, [w] * 32, **limits), total
    for j in range(4):
        yield group([7] * 32, [15 if i // 8 == j else 7 for i in range(32)], **limits), most // 2


def single_products():
    """A subgroup and lane, an element of 3 and a quarter there, and its weight's factor."""
    for number in range(16):
        j, lane, k = number % 4, number * 5 % 8, number // 4
        place = 8 * j + lane
        yield group(one(5, place), one(10, place), lane=one(lane, j, count=4),
                    meta=one(2, j, 1, count=4), k=one(k, j, 3 - k, count=4)), -52 * (4 + k)


def random_groups(count):
    """The lanes need not be those of a top-1."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield group(*(rng.integers(0, limit, width).tolist()
                      for limit, width in ((16, 32), (16, 32))),
                    **{name: rng.integers(0, limit, 4).tolist()
                       for name, limit in (("lane", 8), ("meta", 4), ("k", 4))})


@pytest.mark.parametrize("metadata, fine, latency", [
    (True, False, 1), (False, False, 1), (True, True, 4), (False, True, 3)])
def test_dot_products(metadata, fine, latency):
    unit = GroupDot(metadata=metadata, fine=fine)
    assert unit.latency == latency
    directed = [*extremes(131712 if metadata else 4608), *(single_products() if metadata else ())]
    groups = [group for group, _ in directed] + [*random_groups(10)]
    sums = [expected(group, metadata=metadata) for group in groups]
    assert sums[: len(directed)] == [total for _, total in directed]

    async def bench(ctx):
        def offer(number):
            for port, value in inputs(groups[number], metadata=metadata).items():
                ctx.set(getattr(unit, port), value)

        # One group per cycle.
        ctx.set(unit.enable, (1 << latency) - 1)
        for number in range(len(groups) + latency - 1):
            offer(min(number, len(groups) - 1))
            await ctx.tick()
            done = number - latency + 1
            assert done < 0 or ctx.get(unit.sum) == sums[done], groups[done]

        # Each stage takes what the one before has, with its own enable alone; now all have the
        # last group.
        rng = np.random.default_rng(1)
        held = [len(groups) - 1] * latency
        seen = set()
        for number in range(6 * latency):
            offer(number % len(groups))
            enables = (rng.random(latency) < 0.7).tolist()
            ctx.set(unit.enable, sum(enable << stage for stage, enable in enumerate(enables)))
            held = [new if enable else old for enable, new, old in
                    zip(enables, [number % len(groups), *held], held, strict=False)]
            await ctx.tick()
            assert ctx.get(unit.sum) == sums[held[-1]]
            seen.add(held[-1])
        assert len(seen) > 2

    simulate(unit, bench)
