# SPDX-License-Identifier: BSD-2-Clause
"""Units with streams in one component, so that all of them are built and run at once."""

from amaranth import Module
from amaranth.lib import wiring


class SideBySide(wiring.Component):
    """Runs units next to each other, each between streams of its own.

    Parameters
    ----------
    units : dict of str to wiring.Component
        By name. Stream ``s`` of unit ``u`` is stream ``u_s`` here.
    """

    latency = 1

    def __init__(self, units):
        self.units = units
        super().__init__({f"{name}_{stream}": member for name, unit in units.items()
                          for stream, member in unit.signature.members.items()})

    def elaborate(self, platform):
        m = Module()
        for name, unit in self.units.items():
            m.submodules[name] = unit
            for stream, member in unit.signature.members.items():
                inner, outer = getattr(unit, stream), getattr(self, f"{name}_{stream}")
                if member.flow == wiring.In:
                    wiring.connect(m, wiring.flipped(outer), inner)
                else:
                    wiring.connect(m, inner, wiring.flipped(outer))
        return m
