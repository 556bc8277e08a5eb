# SPDX-License-Identifier: BSD-2-Clause
"""The stream register: full rate, held payloads, reset."""

import numpy as np
import pytest
from amaranth import Module, ResetInserter, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.lib.stream_register import StreamRegister
from tests.support.compare import check
from tests.support.testbench import simulate


class Chain(wiring.Component):
    """Three registers in a row."""

    i: In(stream.Signature(8))
    o: Out(stream.Signature(8))

    latency = 3

    def elaborate(self, platform):
        m = Module()

        m.submodules.first = first = StreamRegister(8)
        m.submodules.second = second = StreamRegister(8)
        m.submodules.third = third = StreamRegister(8)
        wiring.connect(m, wiring.flipped(self.i), first.i)
        wiring.connect(m, first.o, second.i)
        wiring.connect(m, second.o, third.i)
        wiring.connect(m, third.o, wiring.flipped(self.o))

        return m


@pytest.mark.parametrize("stalls", [0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("component", [lambda: StreamRegister(8), Chain])
def test_nothing_is_lost_repeated_or_reordered(component, stalls):
    payloads = np.arange(256)
    check(component(), {"i": payloads}, {"o": payloads}, stalls=stalls)


@pytest.mark.parametrize("shape, payloads", [
    (signed(5), np.arange(-16, 16)),
    (1, np.array([1, 0, 1, 1])),
    (data.ArrayLayout(4, 2), np.array([[1, 15], [8, 0]])),
    (data.StructLayout({"low": 64, "high": signed(3)}),
     {"low": np.array([0, 2**64 - 1], np.uint64), "high": np.array([-4, 3])}),
])
def test_payload_shapes(shape, payloads):
    check(StreamRegister(shape), {"i": payloads}, {"o": payloads}, stalls=0.3)


def test_lone_beat():
    check(StreamRegister(8), {"i": np.array([165])}, {"o": np.array([165])})
    check(Chain(), {"i": np.array([165])}, {"o": np.array([165])})


def test_handshake():
    register = StreamRegister(8)

    async def bench(ctx):
        i, o = register.i, register.o
        # Empty: ready, whether or not the output is.
        assert (ctx.get(i.ready), ctx.get(o.valid)) == (1, 0)
        ctx.set(i.valid, 1)
        ctx.set(i.payload, 17)
        await ctx.tick()

        # Full and stalled: valid does not wait for ready, the payload is held, no other enters.
        ctx.set(i.payload, 34)
        for _ in range(3):
            assert (ctx.get(i.ready), ctx.get(o.valid), ctx.get(o.payload)) == (0, 1, 17)
            await ctx.tick()

        # Being emptied: ready in the same cycle, and the next payload follows at once.
        ctx.set(o.ready, 1)
        assert (ctx.get(i.ready), ctx.get(o.payload)) == (1, 17)
        await ctx.tick()
        ctx.set(i.valid, 0)
        assert (ctx.get(o.valid), ctx.get(o.payload)) == (1, 34)
        await ctx.tick()
        assert (ctx.get(i.ready), ctx.get(o.valid)) == (1, 0)

    simulate(register, bench)


def test_chain_closes_its_bubbles_while_stalled():
    chain = Chain()

    async def bench(ctx):
        # Every other cycle brings a beat; all three stages fill up all the same.
        for beat in range(3):
            assert ctx.get(chain.i.ready)
            ctx.set(chain.i.valid, 1)
            ctx.set(chain.i.payload, beat)
            await ctx.tick()
            ctx.set(chain.i.valid, 0)
            await ctx.tick()
        assert not ctx.get(chain.i.ready)
        ctx.set(chain.o.ready, 1)
        for beat in range(3):
            assert (ctx.get(chain.o.valid), ctx.get(chain.o.payload)) == (1, beat)
            await ctx.tick()
        assert not ctx.get(chain.o.valid)

    simulate(chain, bench)


def test_reset_in_mid_flight():
    chain = Chain()
    reset = Signal()

    async def bench(ctx):
        ctx.set(chain.i.valid, 1)
        ctx.set(chain.i.payload, 1)
        await ctx.tick().repeat(2)
        ctx.set(reset, 1)
        await ctx.tick()
        ctx.set(reset, 0)
        assert not ctx.get(chain.o.valid)

        # Of what was under way nothing comes out, only what is taken afterwards.
        ctx.set(chain.i.payload, 2)
        ctx.set(chain.o.ready, 1)
        seen = []
        for _ in range(6):
            seen.append((ctx.get(chain.o.valid), ctx.get(chain.o.payload)))
            await ctx.tick()
            ctx.set(chain.i.valid, 0)
        assert [payload for valid, payload in seen if valid] == [2]
        assert seen[3] == (1, 2)

    simulate(ResetInserter(reset)(chain), bench)
