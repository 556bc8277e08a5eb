# SPDX-License-Identifier: BSD-2-Clause
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..lib.buffer import Buffer
from ..lib.stream_register import StreamRegister
from ..units.mac_array import MacArray
from .activation_feeder import sum_layout


def result_layout(config):
    """A row of results of one tile, and whether it is the command's last."""
    return data.StructLayout({"values": data.ArrayLayout(32, config.columns), "last": 1})


class PartialSums(wiring.Component):
    """The output buffer: gives the array its accumulators and takes them back until they are
    results.

    Parameters
    ----------
    config : Config

    Members
    -------
    i_sum : In(stream.Signature(sum_layout(config)))
        For each row of the array, in order, which partial sum it adds to.
    o_acc : Out(stream.Signature(data.ArrayLayout(32, config.columns)))
        To the array.
    i : In(stream.Signature(data.ArrayLayout(32, config.columns)))
        From the array.
    o : Out(stream.Signature(result_layout(config)))
        Latency 1 from ``i``.
    columns : In(range(config.columns + 1))
        Columns of a ragged tile; all others give zero as a result. What comes for them from the
        array is anything.
    retired : Out(1)
        A row came back from the array, and what reads it next will find it.
    """

    # To the array, which takes an accumulator some cycles after its activation.
    latency = MacArray.acc_latency

    def __init__(self, config):
        self.config = config
        row = data.ArrayLayout(32, config.columns)
        super().__init__({
            "i_sum": In(stream.Signature(sum_layout(config))),
            "o_acc": Out(stream.Signature(row)),
            "i": In(stream.Signature(row)),
            "o": Out(stream.Signature(result_layout(config))),
            "columns": In(range(config.columns + 1)),
            "retired": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        config = self.config

        # Delayed, so that the accumulator meets its activation in the array: the buffer's own
        # cycle and the one of the register behind it are the last before.
        layout = sum_layout(config)
        delays = [StreamRegister(layout) for _ in range(self.latency - 2)]
        ahead = delays[-1]
        m.submodules.beside = beside = StreamRegister(layout)
        m.submodules.buffer = buffer = Buffer(self.i.payload.shape(), depth=config.rows,
                                              banks=config.output_banks)
        wiring.connect(m, wiring.flipped(self.i_sum), delays[0].i)
        for n, register in enumerate(delays):
            m.submodules[f"ahead{n}"] = register
            if n:
                wiring.connect(m, delays[n - 1].o, register.i)
        # A row that starts from zero may read anything, so its address does no harm.
        m.d.comb += [
            buffer.i.valid.eq(ahead.o.valid),
            buffer.i.payload.eq(ahead.o.payload.row),
            ahead.o.ready.eq(buffer.i.ready),
            beside.i.valid.eq(ahead.o.valid),
            beside.i.payload.eq(ahead.o.payload),
        ]

        # The register parts the memory's access, and a mask over all columns, from the adders.
        row = self.o_acc.payload.shape()
        m.submodules.meeting = meeting = StreamRegister(data.StructLayout({"accs": row,
                                                                           "known": layout}))
        acc = Value.cast(buffer.o.payload)
        m.d.comb += [
            meeting.i.valid.eq(buffer.o.valid),
            Value.cast(meeting.i.payload.accs).eq(
                acc & (~beside.o.payload.first).replicate(len(acc))),
            meeting.i.payload.known.eq(beside.o.payload),
            buffer.o.ready.eq(meeting.i.ready),
            beside.o.ready.eq(meeting.i.ready),
        ]

        # What is known of a row goes along with it through the array, in as many registers.
        inside = [StreamRegister(layout) for _ in range(MacArray.latency - self.latency)]
        m.d.comb += [
            self.o_acc.valid.eq(meeting.o.valid & inside[0].i.ready),
            self.o_acc.payload.eq(meeting.o.payload.accs),
            meeting.o.ready.eq(self.o_acc.ready & inside[0].i.ready),
            inside[0].i.valid.eq(meeting.o.valid & self.o_acc.ready),
            inside[0].i.payload.eq(meeting.o.payload.known),
        ]
        for n, register in enumerate(inside):
            m.submodules[f"inside{n}"] = register
            if n:
                wiring.connect(m, inside[n - 1].o, register.i)

        # A result leaves, all else goes back. The register parts the array's last stage from
        # what quantizes the results.
        m.submodules.result = result = StreamRegister(result_layout(config))
        wiring.connect(m, result.o, wiring.flipped(self.o))
        known = inside[-1].o
        done = Signal()
        m.d.comb += [
            result.i.valid.eq(self.i.valid & known.valid & known.payload.final),
            result.i.payload.last.eq(known.payload.last),
            done.eq(self.i.valid & known.valid & (result.i.ready | ~known.payload.final)),
            self.i.ready.eq(done),
            known.ready.eq(done),
            self.retired.eq(done),
            buffer.write.eq(done & ~known.payload.final),
            buffer.address.eq(known.payload.row),
            buffer.row.eq(self.i.payload),
        ]
        for n in range(config.columns):
            present = Signal(name=f"present{n}")
            m.d.comb += [
                present.eq(~known.payload.ragged | (self.columns >= n + 1)),
                result.i.payload["values"][n].eq(self.i.payload[n] & present.replicate(32)),
            ]

        return m
