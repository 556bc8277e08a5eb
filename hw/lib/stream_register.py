# SPDX-License-Identifier: BSD-2-Clause
"""A register of a stream."""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out


class StreamRegister(wiring.Component):
    """Holds one payload of a stream: one pipeline stage.

    It accepts a payload whenever it is empty or its own payload leaves, so a chain of registers
    moves one payload per cycle and closes its bubbles while stalled. Latency 1. ``i.ready``
    depends combinationally on ``o.ready``; `SkidBuffer` breaks that path.

    Parameters
    ----------
    shape : ShapeLike
        Shape of the payload.

    Members
    -------
    i : In(stream.Signature(shape))
    o : Out(stream.Signature(shape))
    """

    latency = 1

    def __init__(self, shape):
        self.shape = shape
        super().__init__({
            "i": In(stream.Signature(shape)),
            "o": Out(stream.Signature(shape)),
        })

    def elaborate(self, platform):
        m = Module()

        valid = Signal()
        payload = Signal(self.shape, reset_less=True)
        m.d.comb += [
            self.i.ready.eq(~valid | self.o.ready),
            self.o.valid.eq(valid),
            self.o.payload.eq(payload),
        ]
        with m.If(self.i.ready):
            m.d.sync += [valid.eq(self.i.valid), payload.eq(self.i.payload)]

        return m
