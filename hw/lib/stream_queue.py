# SPDX-License-Identifier: BSD-2-Clause
"""A queue of a few payloads in registers."""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out


class StreamQueue(wiring.Component):
    """Holds a few payloads of a stream in registers, and tells how many it holds.

    Latency 1; one payload per cycle. No output depends combinationally on an input, so a full queue
    accepts again in the cycle after a payload has left.

    Parameters
    ----------
    shape : ShapeLike
        Shape of the payload.
    depth : int, power of two, at least 2
        The most payloads that it holds.

    Members
    -------
    i : In(stream.Signature(shape))
    o : Out(stream.Signature(shape))
    level : Out(range(depth + 1))
        Payloads that it holds now.

    Raises
    ------
    ValueError
        If ``depth`` is not a power of two of at least 2.
    """

    latency = 1

    def __init__(self, shape, *, depth):
        if type(depth) is not int or depth < 2 or depth.bit_count() != 1:
            raise ValueError(f"Depth must be a power of two of at least 2, not {depth!r}")
        self.shape = shape
        self.depth = depth
        super().__init__({
            "i": In(stream.Signature(shape)),
            "o": Out(stream.Signature(shape)),
            "level": Out(range(depth + 1)),
        })

    def elaborate(self, platform):
        m = Module()

        put = Signal()
        take = Signal()
        m.d.comb += [
            self.i.ready.eq(self.level != self.depth),
            self.o.valid.eq(self.level != 0),
            put.eq(self.i.valid & self.i.ready),
            take.eq(self.o.valid & self.o.ready),
        ]
        m.d.sync += self.level.eq(self.level + put - take)

        # Places are used in turn. Both positions wrap by themselves: the depth is a power of two.
        first = Signal(range(self.depth))
        free = Signal(range(self.depth))
        m.d.sync += [first.eq(first + take), free.eq(free + put)]
        width = len(Value.cast(self.i.payload))
        places = [Signal(width, reset_less=True, name=f"place{n}") for n in range(self.depth)]
        for n, place in enumerate(places):
            with m.If(put & (free == n)):
                m.d.sync += place.eq(self.i.payload)
        m.d.comb += Value.cast(self.o.payload).eq(Array(places)[first])

        return m
