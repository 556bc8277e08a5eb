# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""The output buffer: sums, results, partial tiles, timing."""

from collections import deque

import numpy as np
import pytest

from hw.accelerator.partial_sums import PartialSums
from hw.units.mac_array import MacArray
from tests.hw.accelerator.test_loop_nest import CONFIG
from tests.support.testbench import simulate

# From an accumulator that the array takes to its result.
ARRAY = MacArray.latency - MacArray.acc_latency


def commands(rng, count):
    """Rows, numbered by the sums of a group, that are added up over several groups each."""
    found = []
    for number in range(count):
        sums, groups = int(rng.integers(8, 17)), int(rng.integers(1, 5))
        partial = bool(rng.integers(2))
        for group in range(groups):
            for row in range(sums):
                last = group == groups - 1
                found.append({"row": row, "first": group == 0, "final": last,
                              "partial": partial and row >= sums // 2,
                              "last": number == count - 1 and last and row == sums - 1})
    return found


@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("stalls", [0, 0.4])
def test_sums(stalls, columns):
    unit = PartialSums(CONFIG)
    rng = np.random.default_rng(columns)
    todo = commands(rng, 6)
    expected, received = [], []
    times = {"i_sum": [], "o_acc": [], "i": [], "o": []}

    def pauses():
        return bool(rng.random() < stalls)

    async def bench(ctx):
        sums, before = {}, {}
        array = deque()
        given = met = back = cycle = 0
        ctx.set(unit.columns, columns)
        while len(received) < sum(step["final"] for step in todo):
            # As the feeder of activations does, only sums that are back.
            step = todo[given] if given < len(todo) else None
            offer = step and (step["first"] or before[step["row"]] < back) and not pauses()
            ctx.set(unit.i_sum.valid, bool(offer))
            if step:
                ctx.set(unit.i_sum.payload, step)
            takes = not pauses()
            ctx.set(unit.o_acc.ready, takes)
            ready = not pauses()
            ctx.set(unit.o.ready, ready)
            comes = bool(array) and array[0][0] <= cycle
            ctx.set(unit.i.valid, comes)
            if comes:
                ctx.set(unit.i.payload, array[0][1])

            if offer and ctx.get(unit.i_sum.ready):
                before[step["row"]] = given
                given += 1
                times["i_sum"].append(cycle)
            done = comes and ctx.get(unit.i.ready)
            assert ctx.get(unit.retired) == done
            if takes and ctx.get(unit.o_acc.valid):
                step = todo[met]
                assert list(ctx.get(unit.o_acc.payload)) == (
                    [0] * 4 if step["first"] else sums[step["row"]]), met
                # What the array makes of it.
                new = rng.integers(0, 1 << 32, 4).tolist()
                array.append((cycle + ARRAY, new))
                sums[step["row"]] = new
                if step["final"]:
                    kept = columns if step["partial"] else 4
                    expected.append((new[:kept] + [0] * (4 - kept), step["last"]))
                met += 1
                times["o_acc"].append(cycle)
            if done:
                array.popleft()
                back += 1
                times["i"].append(cycle)
            if ready and ctx.get(unit.o.valid):
                received.append((list(ctx.get(unit.o.payload["values"])),
                                 ctx.get(unit.o.payload.last)))
                times["o"].append(cycle)
            await ctx.tick()
            cycle += 1
            assert cycle < 20 * len(todo)
        assert met == back == len(todo)

    simulate(unit, bench)
    assert received == expected
    if not stalls:
        assert times["o_acc"][0] - times["i_sum"][0] == PartialSums.latency
        results = [time for time, step in zip(times["i"], todo, strict=True) if step["final"]]
        assert times["o"] == [time + 1 for time in results]
        # The first sums of all follow each other in every cycle.
        assert np.diff(times["o_acc"][:8]).tolist() == [1] * 7


def test_stalled_result_stops_results_only():
    unit = PartialSums(CONFIG)

    async def bench(ctx):
        ctx.set(unit.columns, 4)
        ctx.set(unit.o_acc.ready, 1)
        ctx.set(unit.i.valid, 1)
        ctx.set(unit.i_sum.valid, 1)
        retired = 0
        # A result that nobody takes, then a sum that goes back, then results for ever.
        for number in range(12):
            ctx.set(unit.i_sum.payload, {"row": 0, "first": 1, "final": number != 1, "partial": 0,
                                         "last": 0})
            retired += ctx.get(unit.retired)
            await ctx.tick()
        assert retired == 2
        for _ in range(3):
            assert (ctx.get(unit.i.ready), ctx.get(unit.retired)) == (0, 0)
            assert ctx.get(unit.o.valid)
            await ctx.tick()
        # Room for one as soon as the result is taken.
        ctx.set(unit.o.ready, 1)
        assert (ctx.get(unit.i.ready), ctx.get(unit.retired)) == (1, 1)

    simulate(unit, bench)


def test_nothing_is_a_result_that_was_not_announced():
    unit = PartialSums(CONFIG)

    async def bench(ctx):
        ctx.set(unit.columns, 4)
        ctx.set(unit.o_acc.ready, 1)
        ctx.set(unit.o.ready, 1)
        ctx.set(unit.i.valid, 1)
        ctx.set(unit.i_sum.payload, {"row": 0, "first": 1, "final": 1, "partial": 0, "last": 1})
        results = retired = 0
        for cycle in range(12):
            ctx.set(unit.i_sum.valid, cycle == 2)
            results += ctx.get(unit.o.valid)
            retired += ctx.get(unit.retired)
            await ctx.tick()
        assert (results, retired) == (1, 1)

    simulate(unit, bench)


def test_rows_are_those_of_the_array():
    sums, array = PartialSums(CONFIG), MacArray(columns=CONFIG.columns)
    assert sums.o_acc.payload.shape() == array.i_acc.payload.shape()
    assert sums.i.payload.shape() == array.o.payload.shape()
