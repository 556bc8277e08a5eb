# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""The weight buffer: partial tiles, weights ahead of their plan, timing."""

import dataclasses

import numpy as np
import pytest

import sim
from hw.accelerator.loop_nest import LoopNest
from hw.accelerator.weight_feeder import WeightFeeder
from tests.hw.accelerator.test_loop_nest import CONFIG, PLANS, plan, stack, steps
from tests.support.testbench import simulate

PARTIAL = [each | {"columns": 1 + i % 4} for i, each in enumerate(PLANS)]


WIDE = dataclasses.replace(CONFIG, encoding="sg-special64")


def transfers(rng, count, wide=False):
    """Records by twos."""
    return {"elements": rng.integers(0, 16, (count, 2, 64 if wide else 32)),
            "metadata": rng.integers(0, 8 if wide else 4, (count, 2, 8 if wide else 4)),
            "scale": rng.integers(0, 256, (count, 2))}


def wanted(plans):
    """How many of each transfer's two columns the matrices have."""
    return [max(0, min(2, each["columns"] - 2 * step["index"]))
            if step["tile_last"] and step["bundle_last"] else 2
            for each in plans for step in steps(each, "weights")]


@pytest.mark.parametrize("stalls, config", [(0, CONFIG), (0.5, CONFIG), (0.5, WIDE)])
def test_tiles_are_filled_up(stalls, config):
    needed = wanted(PARTIAL)
    assert {*needed} == {0, 1, 2}
    taken = sum(columns > 0 for columns in needed)
    given = transfers(np.random.default_rng(0), taken, config is WIDE)
    times = {}
    found = sim.run(WeightFeeder(config), {"i_plan": stack(PARTIAL), "i": given},
                    outputs={"o": len(needed)}, stalls=stalls, times=times)["o"]
    assert len(times["i"]) == taken
    source = iter(range(taken))
    for number, columns in enumerate(needed):
        if columns:
            row = next(source)
            for name, plane in given.items():
                assert (found[name][number, :columns] == plane[row, :columns]).all(), number


async def feed(ctx, feeder, plans, scale, last, rng):
    """Gives plans to a framed feeder; scales that it gave, and how many wrong marks it found."""
    plan, sent, found, scales = 0, 0, 0, []
    rows = len(wanted(plans))
    for _ in range(20 * rows):
        ctx.set(feeder.i_plan.valid, plan < len(plans))
        if plan < len(plans):
            ctx.set(feeder.i_plan.payload, plans[plan])
        if not ctx.get(feeder.i.valid) and sent < len(last) and rng.random() < 0.7:
            ctx.set(feeder.i.valid, 1)
            ctx.set(feeder.i.payload.records[0].scale, int(scale[sent]))
            ctx.set(feeder.i.payload.last, int(last[sent]))
        ctx.set(feeder.o.ready, rng.random() < 0.7)
        plan += ctx.get(feeder.i_plan.valid) and ctx.get(feeder.i_plan.ready)
        taken = ctx.get(feeder.i.valid) and ctx.get(feeder.i.ready)
        sent += taken
        if ctx.get(feeder.o.valid) and ctx.get(feeder.o.ready):
            scales.append(ctx.get(feeder.o.payload[0].scale))
        found += ctx.get(feeder.misframed)
        await ctx.tick()
        if taken:
            ctx.set(feeder.i.valid, 0)
        if len(scales) == rows:
            break
    return scales, found


def test_marks_of_the_last_transfer():
    """Each mark that is missing or too early is found, and no record changes."""
    rng = np.random.default_rng(3)
    feeder = WeightFeeder(dataclasses.replace(CONFIG, framed=True))
    plans = PARTIAL[:4]
    needed = wanted(plans)
    counts = [sum(columns > 0 for columns in wanted([each])) for each in plans]
    ends = np.cumsum(counts)
    scale = rng.integers(0, 256, ends[-1])
    order = iter(scale)
    expected = [next(order) if columns else None for columns in needed]
    # Marks that are changed, and how many faults these are.
    changes = [({}, 0), ({ends[0] - 1: 0}, 1), ({ends[-1] - 1: 0}, 1), ({ends[2] - 3: 1}, 1),
               ({ends[1] - 2: 1, ends[1] - 1: 0}, 2),
               (dict.fromkeys(range(ends[0], ends[1]), 1), counts[1] - 1)]

    async def bench(ctx):
        for change, faults in changes:
            last = np.isin(np.arange(ends[-1]), ends - 1).astype(int)
            last[[*change]] = [*change.values()]
            scales, found = await feed(ctx, feeder, plans, scale, last, rng)
            assert found == faults, change
            assert all(a == b for a, b in zip(scales, expected, strict=True) if b is not None)

    simulate(feeder, bench)


def test_one_transfer_per_cycle():
    one = plan(groups=5, tiles=2, blocks=1, rows=9)
    times = {}
    sim.run(WeightFeeder(CONFIG), {"i_plan": stack([one]),
                                   "i": transfers(np.random.default_rng(1), 20)},
            outputs={"o": 20}, times=times)
    start = LoopNest.latency + 1
    assert times["o"].tolist() == [*range(start, start + 20)]


def test_takes_weights_before_their_plan():
    feeder = WeightFeeder(CONFIG)

    async def bench(ctx):
        # As many transfers as the buffer holds.
        ctx.set(feeder.i.valid, 1)
        for number in range(4):
            assert ctx.get(feeder.i.ready)
            ctx.set(feeder.i.payload[0].scale, 10 + number)
            await ctx.tick()
        for _ in range(3):
            assert (ctx.get(feeder.i.ready), ctx.get(feeder.o.valid)) == (0, 0)
            await ctx.tick()

        # They come in order once there is a plan, and each makes room for another one.
        ctx.set(feeder.i_plan.payload, plan(groups=3, tiles=1, blocks=1, rows=8))
        ctx.set(feeder.i_plan.valid, 1)
        ctx.set(feeder.o.ready, 1)
        ctx.set(feeder.i.payload[0].scale, 14)
        assert ctx.get(feeder.i_plan.ready)
        await ctx.tick()
        ctx.set(feeder.i_plan.valid, 0)
        seen, room = [], 0
        for _ in range(12):
            room += ctx.get(feeder.i.ready)
            if ctx.get(feeder.o.valid):
                seen.append(ctx.get(feeder.o.payload[0].scale))
            await ctx.tick()
        assert seen == [10, 11, 12, 13, 14, 14] and room > 5

    simulate(feeder, bench)


def test_latency():
    # Into the buffer and out of it, when the plan is there before.
    feeder = WeightFeeder(CONFIG)

    async def bench(ctx):
        ctx.set(feeder.i_plan.payload, plan(groups=1, tiles=1, blocks=1, rows=8))
        ctx.set(feeder.i_plan.valid, 1)
        ctx.set(feeder.o.ready, 1)
        await ctx.tick()
        ctx.set(feeder.i_plan.valid, 0)
        await ctx.tick().repeat(5)
        ctx.set(feeder.i.valid, 1)
        for _ in range(WeightFeeder.latency):
            assert not ctx.get(feeder.o.valid)
            await ctx.tick()
        assert ctx.get(feeder.o.valid)

    simulate(feeder, bench)
