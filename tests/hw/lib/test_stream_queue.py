# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""The stream queue: order, level, handshake, wrong depths."""

import numpy as np
import pytest
from amaranth import Module
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.lib.stream_queue import StreamQueue
from tests.support.compare import check
from tests.support.testbench import simulate


class Queue(wiring.Component):
    """A queue without its level, so that all ports are streams."""

    latency = 1

    def __init__(self, shape, depth):
        self.shape = shape
        self.depth = depth
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()

        m.submodules.queue = queue = StreamQueue(self.shape, depth=self.depth)
        wiring.connect(m, wiring.flipped(self.i), queue.i)
        wiring.connect(m, queue.o, wiring.flipped(self.o))

        return m


@pytest.mark.parametrize("stalls", [0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("depth", [2, 4, 8])
def test_nothing_is_lost_repeated_or_reordered(depth, stalls):
    payloads = np.arange(256)
    check(Queue(8, depth), {"i": payloads}, {"o": payloads}, stalls=stalls)


def test_structures():
    rows = {"a": np.arange(7), "b": np.arange(7)[::-1]}
    check(Queue(data.StructLayout({"a": 3, "b": 5}), 4), {"i": rows}, {"o": rows}, stalls=0.3)


def test_level_and_handshake():
    queue = StreamQueue(8, depth=4)

    async def bench(ctx):
        def state():
            return ctx.get(queue.i.ready), ctx.get(queue.o.valid), ctx.get(queue.level)

        for _ in range(2):
            assert state() == (1, 0, 0)
            ctx.set(queue.i.valid, 1)
            for n in range(4):
                assert state() == (1, n > 0, n)
                ctx.set(queue.i.payload, n)
                await ctx.tick()
            # Full; one that is taken makes room from the next cycle on.
            assert state() == (0, 1, 4)
            ctx.set(queue.o.ready, 1)
            assert state() == (0, 1, 4)
            await ctx.tick()
            assert state() == (1, 1, 3)
            # In and out at once.
            ctx.set(queue.i.payload, 4)
            await ctx.tick()
            assert state() == (1, 1, 3)
            ctx.set(queue.i.valid, 0)
            for n in range(2, 5):
                assert ctx.get(queue.o.payload) == n
                await ctx.tick()
            ctx.set(queue.o.ready, 0)

    simulate(queue, bench)


@pytest.mark.parametrize("depth", [0, 1, 3, -2, "4", 4.0])
def test_wrong_depth(depth):
    with pytest.raises(ValueError, match=f"^Depth must be a power of two of at least 2, not "
                                         f"{depth!r}$"):
        StreamQueue(8, depth=depth)
