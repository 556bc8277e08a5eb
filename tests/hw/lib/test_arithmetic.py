# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""Comparison as a tree."""

import pytest
from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

import sim
from hw.lib.arithmetic import greater


class Comparison(wiring.Component):
    """Whether ``a`` is greater than ``b``."""

    latency = 0

    def __init__(self, width):
        super().__init__({"a": In(width), "b": In(width), "o": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.o.eq(greater(m, self.a, self.b, name="pair"))
        return m


@pytest.mark.parametrize("width", [1, 2, 3, 5])
def test_all_pairs(width):
    pairs = [(a, b) for a in range(1 << width) for b in range(1 << width)]
    a, b = zip(*pairs, strict=True)
    found = sim.run(Comparison(width), {"a": a, "b": b})["o"]
    assert [bool(one) for one in found] == [a > b for a, b in pairs]


def test_widths_that_differ():
    with pytest.raises(ValueError, match="^pair must compare values of one width, not of 4 and 5$"):
        greater(Module(), Signal(4), Signal(5), name="pair")
