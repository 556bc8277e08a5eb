# SPDX-License-Identifier: BSD-2-Clause
"""A serial line to a simulated board, at its two pins: no part of the hardware is the other end."""

import numpy as np
from amaranth import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from sim.engines.amaranth import Simulated


class Pair(wiring.Component):
    """Two independent streams through a register each: one of odd width, one of bytes."""

    latency = 1

    def __init__(self):
        super().__init__({"i": In(stream.Signature(20)), "j": In(stream.Signature(8)),
                          "o": Out(stream.Signature(20)), "p": Out(stream.Signature(8))})

    def elaborate(self, platform):
        m = Module()
        for source, sink, other in ((self.i, self.o, 0x5A5A5), (self.j, self.p, 0x7E)):
            m.d.comb += source.ready.eq(~sink.valid | sink.ready)
            with m.If(source.ready):
                m.d.sync += [sink.valid.eq(source.valid), sink.payload.eq(source.payload ^ other)]
        return m


class Levels:
    """Turns bytes into the levels of a line and back, and spoils some on the way.

    Parameters
    ----------
    divisor : int
        Cycles per bit.
    noise : float
        Probability that a byte loses a bit to noise, is lost, or is doubled.
    seed : int
    """

    def __init__(self, divisor, noise=0.0, seed=0):
        self.divisor = divisor
        self.noise = noise
        self.hits = 0
        self._rng = np.random.default_rng(seed)
        # Of the byte that is coming in: cycles and levels since its start bit.
        self._age, self._bits = None, []

    def _spoiled(self, byte):
        """The levels of ten bits that stand for a byte, for each time that it is on the line."""
        bits = [0, *(byte >> n & 1 for n in range(8)), 1]
        if self._rng.random() >= self.noise:
            return [bits]
        self.hits += 1
        kind = self._rng.integers(3)
        if kind == 0:
            bits[self._rng.integers(10)] ^= 1
            return [bits]
        return [bits] * (0 if kind == 1 else 2)

    def encode(self, data):
        """One level per cycle."""
        return [level for byte in data for bits in self._spoiled(byte)
                for level in bits for _ in range(self.divisor)]

    def decode(self, level):
        """Takes the level of a cycle; returns the bytes that end in it."""
        if self._age is None:
            if level:
                return b""
            self._age, self._bits = 0, []
        self._age += 1
        if self._age % self.divisor == self.divisor // 2 + 1:
            self._bits.append(level)
        if len(self._bits) < 10:
            return b""
        self._age = None
        byte = sum(bit << n for n, bit in enumerate(self._bits[1:9]))
        return b"".join(bytes([sum(bit << n for n, bit in enumerate(bits[1:9]))])
                        for bits in self._spoiled(byte) if bits[0] == 0 and bits[9] == 1)


def converse(board, host, *, divisor, noise=0.0, seed=0, limit):
    """Runs a board until the host is done.

    Parameters
    ----------
    board : Component
        With the pins ``rx`` and ``tx``.
    host : callable
        Takes the bytes that came and the cycle; returns the bytes to send, or None at the end.
    divisor, noise, seed
        As in `Levels`.
    limit : int
        Cycles after which the run is a deadlock.

    Returns
    -------
    cycles, hits : int
        Duration, and the bytes that noise hit.
    """
    out, back = Levels(divisor, noise, seed), Levels(divisor, noise, seed + 1000)
    cycles = 0

    async def bench(ctx):
        nonlocal cycles
        levels, came = [], b""
        while (data := host(came, cycles)) is not None:
            levels, came = out.encode(data) or [1] * (5 * divisor), b""
            for level in levels:
                ctx.set(board.rx, level)
                came += back.decode(ctx.get(board.tx))
                await ctx.tick()
            cycles += len(levels)
            assert cycles < limit, "nothing moves any more"

    Simulated(board).run(bench)
    return cycles, out.hits + back.hits
