# SPDX-License-Identifier: BSD-2-Clause
"""Components for tests of the simulation."""

from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.lib.stream_register import StreamRegister


class Sums(wiring.Component):
    """Adds as many bytes as each length says, and copies every byte.

    A length of 15 raises an alarm besides. Lengths and bytes may have different rates, as may the
    three outputs.
    """

    i_length: In(stream.Signature(4))
    i_byte: In(stream.Signature(8))
    o_copy: Out(stream.Signature(8))
    o_sum: Out(stream.Signature(12))
    o_alarm: Out(stream.Signature(1))

    latency = 1

    def elaborate(self, platform):
        m = Module()

        left = Signal(4)
        total = Signal(12)
        busy = Signal()
        copying = Signal()
        alarm = Signal()
        m.d.comb += [
            copying.eq(busy & (left != 0)),
            self.i_length.ready.eq(~busy),
            self.i_byte.ready.eq(copying & self.o_copy.ready),
            self.o_copy.payload.eq(self.i_byte.payload),
            self.o_copy.valid.eq(copying & self.i_byte.valid),
            self.o_sum.payload.eq(total),
            self.o_sum.valid.eq(busy & (left == 0)),
            self.o_alarm.payload.eq(1),
            self.o_alarm.valid.eq(alarm),
        ]
        with m.If(self.o_alarm.ready):
            m.d.sync += alarm.eq(0)
        with m.If(self.i_length.valid & self.i_length.ready):
            m.d.sync += [left.eq(self.i_length.payload), total.eq(0), busy.eq(1)]
            with m.If(self.i_length.payload == 15):
                m.d.sync += alarm.eq(1)
        with m.If(self.i_byte.valid & self.i_byte.ready):
            m.d.sync += [left.eq(left - 1), total.eq(total + self.i_byte.payload)]
        with m.If(self.o_sum.valid & self.o_sum.ready):
            m.d.sync += busy.eq(0)

        return m


class Sleeper(wiring.Component):
    """Gives every payload so many cycles after the first one in which it could."""

    i: In(stream.Signature(8))
    o: Out(stream.Signature(8))

    latency = 1

    def elaborate(self, platform):
        m = Module()

        awake = Signal()
        slept = Signal(8)
        m.d.comb += [
            awake.eq(slept == self.i.payload),
            self.o.payload.eq(self.i.payload),
            self.o.valid.eq(self.i.valid & awake),
            self.i.ready.eq(self.o.ready & awake),
        ]
        with m.If(self.i.valid & ~awake):
            m.d.sync += slept.eq(slept + 1)
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += slept.eq(0)

        return m


class Watched(wiring.Component):
    """Gives every payload, and tells of each odd one as it is taken, which nothing can hold up."""

    i: In(stream.Signature(8))
    o: Out(stream.Signature(8))
    o_odd: Out(stream.Signature(8, always_ready=True))

    latency = 1

    def elaborate(self, platform):
        m = Module()

        m.submodules.register = register = StreamRegister(8)
        wiring.connect(m, wiring.flipped(self.i), register.i)
        wiring.connect(m, register.o, wiring.flipped(self.o))
        m.d.comb += [
            self.o_odd.payload.eq(self.o.payload),
            self.o_odd.valid.eq(self.o.valid & self.o.ready & self.o.payload[0]),
        ]

        return m


class Source(wiring.Component):
    """Counts, without any input."""

    o: Out(stream.Signature(8))

    latency = 1

    def __init__(self, count):
        self.count = count
        super().__init__()

    def elaborate(self, platform):
        m = Module()

        m.d.comb += self.o.valid.eq(self.o.payload < self.count)
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += self.o.payload.eq(self.o.payload + 1)

        return m
