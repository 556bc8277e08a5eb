# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""The activation buffer: order of products, kept results, sums in flight, timing."""

import dataclasses
from collections import deque

import numpy as np
import pytest

from hw.accelerator.activation_feeder import ActivationFeeder
from hw.accelerator.planner import INTERLEAVE, Source
from tests.hw.accelerator.test_loop_nest import CONFIG, PLANS, plan, steps
from tests.support.marks import longer
from tests.support.testbench import simulate


def products(plan):
    """Of every product the number of its record and the expected fields; the number of records."""
    found, start, count = [], 0, 0
    sizes = iter([plan["rows"] + (block < plan["larger"]) for block in range(plan["blocks"])])
    for step in steps(plan, "products"):
        if step["index"] == 0 and step["tile_first"]:
            row = 0
            if step["group_first"]:
                group = 0
                if step["bundle_first"]:
                    rows = next(sizes)
                # A resident block's records serve all its bundles.
                if step["bundle_first"] or not plan["resident"]:
                    start = count
        record = start + group * rows + step["index"]
        count = max(count, record + 1)
        found.append((record, step["index_last"], row, step["group_first"], step["group_last"],
                      step["tile_last"] and step["bundle_last"], step["last"]))
        row += 1
        group += step["index_last"] and step["tile_last"]
    return found, count


class Bench:
    """Gives plans and records, takes products and retires them, at random."""

    def __init__(self, plans, *, stalls, seed=0, config=CONFIG):
        self.feeder = ActivationFeeder(config)
        self.wide = config.encoding == "sg-special64"
        self.plans = plans
        self.stalls = stalls
        self.rng = np.random.default_rng(seed)
        self.expected, self.arriving, self.kept = [], [], []
        for each in plans:
            found, count = products(each)
            records = [self.record() for _ in range(count)]
            self.expected.append([(records[record], *fields) for record, *fields in found])
            kept = each["source"] == Source.KEPT.value
            self.arriving.append([] if kept else records)
            if self.kept:
                # What the command before keeps is what this one takes.
                self.kept[-1] = records if kept else []
            self.kept.append([])

    def record(self):
        return {"elements": self.rng.integers(0, 16, 64 if self.wide else 32).tolist(),
                "metadata": (self.rng.integers(0, 8, 8) if self.wide else
                             self.rng.integers(0, 4, 4)).tolist(),
                "scale": int(self.rng.integers(0, 256))}

    def pauses(self):
        return bool(self.rng.random() < self.stalls)

    async def run(self, ctx):
        feeder, o = self.feeder, self.feeder.o
        begun = done = retired = cycle = 0
        sums = []
        given, flying = [], deque()
        arriving, kept = deque(), deque()
        total = sum(map(len, self.expected))
        flat = [product for each in self.expected for product in each]
        while done < total or flying:
            # When all that the command before keeps is in.
            offer = begun < len(self.plans) and not kept and not self.pauses()
            ctx.set(feeder.i_plan.valid, offer)
            if offer:
                ctx.set(feeder.i_plan.payload, self.plans[begun])
            inputs = []
            for port, records in (feeder.i, arriving), (feeder.i_kept, kept):
                ctx.set(port.valid, bool(records) and not self.pauses())
                if records:
                    ctx.set(port.payload, records[0])
                inputs.append((port, records))
            ready = not self.pauses()
            ctx.set(o.ready, ready)
            back = bool(flying) and flying[0] <= cycle and not self.pauses()
            ctx.set(feeder.retired, back)

            for port, records in inputs:
                if ctx.get(port.valid) and ctx.get(port.ready):
                    records.popleft()
            if offer and ctx.get(feeder.i_plan.ready):
                assert not arriving
                arriving.extend(self.arriving[begun])
                kept.extend(self.kept[begun])
                begun += 1
            if ready and ctx.get(o.valid):
                payload = ctx.get(o.payload)
                found = ({"elements": [*payload.record.elements],
                          "metadata": [*payload.record.metadata], "scale": payload.record.scale},
                         payload.last, *(payload.sum[name] for name in
                                         ("row", "first", "final", "partial", "last")))
                assert found == flat[done], done
                row, first = found[2:4]
                # The sum's product before this one has been added up.
                assert first or sums[row] < retired
                sums = [*sums, None] if row >= len(sums) else sums
                sums[row] = done
                given.append(cycle)
                flying.append(cycle + 3)
                done += 1
            if back:
                flying.popleft()
                retired += 1
            await ctx.tick()
            cycle += 1
            assert cycle < 40 * total + 200
        for _ in range(5):
            assert not ctx.get(o.valid)
            await ctx.tick()
        self.given = given

    def simulate(self):
        simulate(self.feeder, self.run)


KEPT = Source.KEPT.value


@pytest.mark.parametrize("stalls", [longer(0), 0.4])
def test_products(stalls):
    # The ring goes round several times and fills up; results are kept, also of commands on what was
    # kept.
    plans = [*PLANS, plan(groups=3, tiles=2, blocks=5, rows=8, resident=1),
             plan(groups=2, tiles=2, blocks=1, rows=9, resident=1),
             plan(groups=1, tiles=3, blocks=1, rows=9, resident=1, source=KEPT),
             plan(groups=3, tiles=2, blocks=2, rows=4, larger=1, resident=1, source=KEPT),
             plan(groups=1, tiles=1, blocks=1, rows=5)]
    Bench(plans, stalls=stalls).simulate()


@pytest.mark.parametrize("stalls", [0.2, longer(0.6)])
def test_records_of_64_elements(stalls):
    """They come in, stay for the next command, and leave as the others do."""
    plans = [plan(groups=2, tiles=2, blocks=1, rows=9, resident=1),
             plan(groups=1, tiles=2, blocks=1, rows=9, resident=1, source=KEPT)]
    config = dataclasses.replace(CONFIG, encoding="sg-special64")
    Bench(plans, stalls=stalls, config=config).simulate()


def test_one_product_per_cycle():
    bench = Bench([plan(groups=4, tiles=2, blocks=1, rows=12, resident=1)], stalls=0)
    bench.simulate()
    assert np.diff(bench.given).tolist() == [1] * 95


async def begin(ctx, feeder, given):
    """Gives a plan and everlasting records; products are taken."""
    ctx.set(feeder.i_plan.payload, given)
    ctx.set(feeder.i_plan.valid, 1)
    ctx.set(feeder.i.valid, 1)
    ctx.set(feeder.o.ready, 1)
    await ctx.tick()
    ctx.set(feeder.i_plan.valid, 0)


async def count(ctx, feeder, cycles=40):
    found = 0
    for _ in range(cycles):
        found += ctx.get(feeder.o.valid)
        await ctx.tick()
    return found


@pytest.mark.parametrize("rows, tiles, sums", [(1, 9, 8), (3, 2, 6), (8, 2, 8), (13, 1, 13)])
def test_waits_for_partial_sums_in_flight(rows, tiles, sums):
    feeder = ActivationFeeder(CONFIG)

    async def bench(ctx):
        await begin(ctx, feeder, plan(groups=3, tiles=tiles, blocks=1, rows=rows, resident=1))
        # The first group's products, whose sums begin; of the next, one for each that is back.
        assert await count(ctx, feeder) == sums
        for _ in range(3):
            ctx.set(feeder.retired, 1)
            await ctx.tick()
            ctx.set(feeder.retired, 0)
            assert await count(ctx, feeder, 5) == 1

    simulate(feeder, bench)


def test_bounds_what_is_in_flight():
    feeder = ActivationFeeder(CONFIG)

    async def bench(ctx):
        await begin(ctx, feeder, plan(groups=1, tiles=2, blocks=1, rows=16, resident=1))
        assert await count(ctx, feeder) == 2 * INTERLEAVE - 1

    simulate(feeder, bench)


def test_latency():
    # Into the buffer and out of it, when the plan is there before.
    feeder = ActivationFeeder(CONFIG)

    async def bench(ctx):
        await begin(ctx, feeder, plan(groups=1, tiles=1, blocks=1, rows=8))
        while not ctx.get(feeder.i.ready):
            await ctx.tick()
        for _ in range(ActivationFeeder.latency):
            assert not ctx.get(feeder.o.valid)
            await ctx.tick()
        assert ctx.get(feeder.o.valid)

    simulate(feeder, bench)
