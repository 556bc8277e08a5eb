# SPDX-License-Identifier: BSD-2-Clause
"""Testbenches on Amaranth's simulator."""

import functools
import inspect

from sim.engines.amaranth import Simulated


def simulate(design, bench):
    """Runs a clocked design until its testbench ends."""
    Simulated(design).run(bench)


def shared(component, **parameters):
    """One component for all tests that run it with these parameters, and so one simulator."""
    bound = inspect.signature(component).bind(**parameters)
    bound.apply_defaults()
    return _component(component, tuple(bound.kwargs.items()))


@functools.lru_cache(maxsize=32)
def _component(component, parameters):
    return component(**dict(parameters))
