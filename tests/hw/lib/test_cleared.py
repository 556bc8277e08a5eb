# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""Components that a signal empties: in simulation and, proven, in Verilog with every reset."""

import re

import pytest
from amaranth import Module, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.lib import Cleared, StreamQueue
from hw.verilog import emit, equivalence
from hw.verilog.style import Style
from tests.support.testbench import simulate


class Two(wiring.Component):
    """Two queues, the second of which is emptied a cycle after ``clear``."""

    i: In(stream.Signature(8))
    clear: In(1)
    o: Out(stream.Signature(8))

    latency = 2

    def elaborate(self, platform):
        m = Module()
        first, second = StreamQueue(8, depth=2), StreamQueue(8, depth=2)
        emptied = Signal()
        m.d.sync += emptied.eq(self.clear)
        m.submodules.first = first
        m.submodules.second = Cleared(second, emptied)
        wiring.connect(m, wiring.flipped(self.i), first.i)
        wiring.connect(m, first.o, second.i)
        wiring.connect(m, second.o, wiring.flipped(self.o))
        return m


def test_what_is_cleared():
    unit = Two()

    async def bench(ctx):
        ctx.set(unit.i.valid, 1)
        for number in range(1, 5):
            ctx.set(unit.i.payload, number)
            await ctx.tick().until(unit.i.ready)
        ctx.set(unit.i.valid, 0)
        await ctx.tick().repeat(3)
        assert ctx.get(unit.o.valid) and ctx.get(unit.o.payload) == 1
        ctx.set(unit.clear, 1)
        await ctx.tick()
        ctx.set(unit.clear, 0)
        assert ctx.get(unit.o.valid)
        await ctx.tick()
        assert not ctx.get(unit.o.valid)
        # Two were in each; the second one is empty at the edge at which it would take one more.
        ctx.set(unit.o.ready, 1)
        found = []
        for _ in range(8):
            if ctx.get(unit.o.valid):
                found.append(ctx.get(Value.cast(unit.o.payload)))
            await ctx.tick()
        assert found == [3, 4]

    simulate(unit, bench)


@pytest.mark.parametrize("style", [
    Style(), pytest.param(Style(reset="async", level="low"), marks=pytest.mark.long),
    pytest.param(Style(level="low"), marks=pytest.mark.long),
    pytest.param(Style(reset="async"), marks=pytest.mark.long)])
def test_verilog(style):
    text = emit.verilog(Two(), "two", style=style)
    # The queue that is cleared has an input for that, so the two are different modules.
    assert re.findall(r"^module (\w+)", text, re.M) == ["two", "two_stream_queue",
                                                        "two_stream_queue_2"]
    assert len(re.findall(r"^  input  wire +emptied\b", text, re.M)) == 1
    assert text.count(".emptied(emptied)") == 1
    equivalence.prove(Two(), "two", text, style)


class Clash(wiring.Component):
    """A queue with a port of the name that the signal has."""

    o: Out(1)

    def elaborate(self, platform):
        m = Module()
        signal = Signal(name="clear")
        m.submodules.inner = inner = Cleared(Two(), signal)
        m.d.sync += signal.eq(~signal)
        m.d.comb += [self.o.eq(inner.component.o.valid), inner.component.i.valid.eq(1)]
        return m


def test_ports_of_the_same_name_are_refused():
    with pytest.raises(ValueError, match="^Two is Cleared, so no port of it can have the name of "
                                         "that signal, clear$"):
        emit.verilog(Clash(), "clash")


@pytest.mark.parametrize("clear", [1, Signal(2, name="wide")])
def test_wrong_signal(clear):
    with pytest.raises(TypeError) as raised:
        Cleared(StreamQueue(8, depth=2), clear)
    assert str(raised.value) == f"clear must be a Signal of one bit, not {clear!r}"
