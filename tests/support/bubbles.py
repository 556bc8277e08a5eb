# SPDX-License-Identifier: BSD-2-Clause
"""Whether bubbles of a stalled pipeline are filled."""

from amaranth.sim import Simulator


def held(unit, count):
    """Transfers that a unit with streams ``i`` and ``o`` holds when its output stalls for long.

    There is a bubble behind the first one.

    Parameters
    ----------
    unit : wiring.Component
    count : int
        Cycles that the next transfers are offered for.
    """
    taken = 0

    async def bench(ctx):
        nonlocal taken
        for cycle in range(count):
            ctx.set(unit.i.valid, cycle != 1)
            taken += ctx.get(unit.i.valid & unit.i.ready)
            await ctx.tick()

    simulator = Simulator(unit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return taken
