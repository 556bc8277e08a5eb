# SPDX-License-Identifier: BSD-2-Clause
"""The skid buffer: nothing lost, repeated or reordered; its handshake."""

import numpy as np
import pytest
from amaranth import Module
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.lib.skid_buffer import SkidBuffer
from hw.lib.stream_register import StreamRegister
from tests.support.compare import check
from tests.support.testbench import simulate


class Between(wiring.Component):
    """One between two registers."""

    latency = 2

    def __init__(self, shape):
        self.shape = shape
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()

        m.submodules.before = before = StreamRegister(self.shape)
        m.submodules.skid = skid = SkidBuffer(self.shape)
        m.submodules.behind = behind = StreamRegister(self.shape)
        wiring.connect(m, wiring.flipped(self.i), before.i)
        wiring.connect(m, before.o, skid.i)
        wiring.connect(m, skid.o, behind.i)
        wiring.connect(m, behind.o, wiring.flipped(self.o))

        return m


@pytest.mark.parametrize("stalls", [0, 0.1, 0.5, 0.9])
def test_nothing_is_lost_repeated_or_reordered(stalls):
    payloads = np.arange(256)
    check(Between(8), {"i": payloads}, {"o": payloads}, stalls=stalls)


def test_structures():
    rows = {"a": np.arange(7), "b": np.arange(7)[::-1]}
    check(Between(data.StructLayout({"a": 3, "b": 5})), {"i": rows}, {"o": rows}, stalls=0.3)


def test_handshake():
    skid = SkidBuffer(8)
    i, o = skid.i, skid.o

    async def bench(ctx):
        def state():
            return ctx.get(i.ready), ctx.get(o.valid)

        # What can go on goes through in the same cycle, one per cycle.
        ctx.set(o.ready, 1)
        assert state() == (1, 0)
        ctx.set(i.valid, 1)
        for payload in 3, 4:
            ctx.set(i.payload, payload)
            assert (*state(), ctx.get(o.payload)) == (1, 1, payload)
            await ctx.tick()

        # Ready does not fall in the cycle in which the output stalls: one more is taken and held.
        ctx.set(o.ready, 0)
        ctx.set(i.payload, 5)
        assert (*state(), ctx.get(o.payload)) == (1, 1, 5)
        await ctx.tick()
        ctx.set(i.payload, 6)
        for _ in range(3):
            assert (*state(), ctx.get(o.payload)) == (0, 1, 5)
            await ctx.tick()

        # It leaves without waiting for the input, which is ready from the next cycle on.
        ctx.set(o.ready, 1)
        assert (*state(), ctx.get(o.payload)) == (0, 1, 5)
        await ctx.tick()
        assert (*state(), ctx.get(o.payload)) == (1, 1, 6)
        ctx.set(i.valid, 0)
        assert state() == (1, 0)
        await ctx.tick()
        assert state() == (1, 0)

    simulate(skid, bench)
