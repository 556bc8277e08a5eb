# SPDX-License-Identifier: BSD-2-Clause
"""Forks, joins and gates of handshakes: nothing lost, repeated or reordered."""

import itertools

import numpy as np
import pytest
from amaranth import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

import sim
from hw.lib.stream import Handshake, chain, fork, gate, join, link
from hw.lib.stream_register import StreamRegister
from tests.support.compare import check
from tests.support.testbench import simulate


class Forked(wiring.Component):
    """Copies a stream of bytes to so many others, each behind a register."""

    latency = 1

    def __init__(self, sinks):
        self.sinks = sinks
        super().__init__({"i": In(stream.Signature(8)),
                          **{f"o_{n}": Out(stream.Signature(8)) for n in range(sinks)}})

    def elaborate(self, platform):
        m = Module()

        registers = [StreamRegister(8) for _ in range(self.sinks)]
        for n, register in enumerate(registers):
            m.submodules[f"register{n}"] = register
            m.d.comb += register.i.payload.eq(self.i.payload)
            wiring.connect(m, register.o, wiring.flipped(getattr(self, f"o_{n}")))
        fork(m, self.i, [register.i for register in registers])

        return m


class Joined(wiring.Component):
    """Packs transfers of so many streams of bytes into one transfer, behind a register."""

    latency = 1

    def __init__(self, sources):
        self.sources = sources
        super().__init__({**{f"i_{n}": In(stream.Signature(8)) for n in range(sources)},
                          "o": Out(stream.Signature(8 * sources))})

    def elaborate(self, platform):
        m = Module()

        sources = [getattr(self, f"i_{n}") for n in range(self.sources)]
        m.submodules.register = register = StreamRegister(8 * self.sources)
        join(m, sources, register.i)
        m.d.comb += register.i.payload.eq(Cat(source.payload for source in sources))
        wiring.connect(m, register.o, wiring.flipped(self.o))

        return m


class Gated(wiring.Component):
    """A stream of bytes behind a gate that opens one cycle after a byte is there."""

    i: In(stream.Signature(8))
    o: Out(stream.Signature(8))

    latency = 1

    def elaborate(self, platform):
        m = Module()

        opened = Signal()
        with m.If(self.i.valid):
            m.d.sync += opened.eq(~(self.i.ready & opened))
        gate(m, self.i, self.o, opened)
        m.d.comb += self.o.payload.eq(self.i.payload)

        return m


class Row(wiring.Component):
    """Registers in a row."""

    def __init__(self, latency):
        self.latency = latency
        super().__init__({"i": In(stream.Signature(8)), "o": Out(stream.Signature(8))})

    def elaborate(self, platform):
        m = Module()

        registers = [StreamRegister(8) for _ in range(self.latency)]
        chain(m, registers, name="register")
        wiring.connect(m, wiring.flipped(self.i), registers[0].i)
        wiring.connect(m, registers[-1].o, wiring.flipped(self.o))

        return m


@pytest.mark.parametrize("stalls", [0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("sinks", [2, 3])
def test_fork_gives_everything_to_all(sinks, stalls):
    payloads = np.arange(100)
    check(Forked(sinks), {"i": payloads}, {f"o_{n}": payloads for n in range(sinks)},
          stalls=stalls)


@pytest.mark.parametrize("stalls", [0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("sources", [2, 3])
def test_join_takes_one_of_each(sources, stalls):
    rows = np.random.default_rng(sources).integers(0, 256, (sources, 100))
    check(Joined(sources), {f"i_{n}": row for n, row in enumerate(rows)},
          {"o": sum(row << 8 * n for n, row in enumerate(rows))}, stalls=stalls)


@pytest.mark.parametrize("stalls", [0, 0.5, 0.9])
def test_gate_stalls_while_shut(stalls):
    payloads = np.arange(100)
    check(Gated(), {"i": payloads}, {"o": payloads}, stalls=stalls)


def test_gate_lets_through_while_open():
    times = {}
    sim.run(Gated(), {"i": np.arange(10)}, times=times)
    assert times["o"].tolist() == [*range(1, 20, 2)]


@pytest.mark.parametrize("stalls", [0, 0.5])
@pytest.mark.parametrize("length", [1, 2, 4])
def test_chain(length, stalls):
    payloads, times = np.arange(50), {}
    check(Row(length), {"i": payloads}, {"o": payloads}, stalls=stalls, times=times)
    if not stalls:
        assert times["o"].tolist() == [*range(length, length + 50)]


class _Handshakes(wiring.Component):
    """All handshakes as ports."""

    def __init__(self, connect, sources, sinks):
        self.connect = connect
        super().__init__({"i": In(Handshake).array(sources), "o": Out(Handshake).array(sinks)})

    def elaborate(self, platform):
        m = Module()

        self.connect(m, self.i, self.o)
        # The simulator wants a clock.
        m.d.sync += Signal().eq(self.i[0].valid)

        return m


@pytest.mark.parametrize("connect, sources, sinks", [
    (lambda m, i, o: link(m, i[0], o[0]), 1, 1),
    *((lambda m, i, o: fork(m, i[0], o), 1, n) for n in (2, 3)),
    *((lambda m, i, o: join(m, i, o[0]), n, 1) for n in (2, 3)),
])
def test_a_transfer_happens_on_all_streams_or_on_none(connect, sources, sinks):
    component = _Handshakes(connect, sources, sinks)

    async def bench(ctx):
        happened = set()
        for bits in itertools.product((0, 1), repeat=sources + sinks):
            for port, bit in zip((*(i.valid for i in component.i), *(o.ready for o in component.o)),
                                 bits, strict=True):
                ctx.set(port, bit)
            moves = [ctx.get(port.valid & port.ready) for port in (*component.i, *component.o)]
            assert moves == [all(bits)] * len(moves)
            # No output depends on its own stream's input.
            for port in (*component.i, *component.o):
                given, seen = ((port.valid, port.ready) if port in component.i else
                               (port.ready, port.valid))
                before = ctx.get(seen)
                ctx.set(given, not ctx.get(given))
                assert ctx.get(seen) == before
                ctx.set(given, not ctx.get(given))
            happened.add(moves[0])
        assert happened == {0, 1}

    simulate(component, bench)
