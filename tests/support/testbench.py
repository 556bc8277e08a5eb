# SPDX-License-Identifier: BSD-2-Clause
"""Testbenches on Amaranth's simulator."""

from amaranth.sim import Simulator


def simulate(design, bench):
    """Runs a clocked design until its testbench ends."""
    simulator = Simulator(design)
    simulator.add_clock(1e-9)
    simulator.add_testbench(bench)
    simulator.run()
