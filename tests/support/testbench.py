# SPDX-License-Identifier: BSD-2-Clause
"""Testbenches on Amaranth's simulator."""

from amaranth.sim import Simulator


def simulate(design, bench):
    """Runs a clocked design until its testbench ends."""
    simulator = Simulator(design)
    simulator.add_clock(1e-9)
    simulator.add_testbench(bench)
    simulator.run()


class Bench:
    """A clocked design for several testbenches, of which each finds it in its initial state.

    For a large design, Amaranth's simulator takes longer to construct than to run.
    """

    def __init__(self, design):
        self.simulator = Simulator(design)
        self.simulator.add_clock(1e-9)
        self.simulator.add_testbench(self._run)
        self.used = False

    def run(self, bench):
        """Runs the design until this testbench ends."""
        self.bench = bench
        if self.used:
            self.simulator.reset()
        self.used = True
        self.simulator.run()

    async def _run(self, ctx):
        await self.bench(ctx)
