# SPDX-License-Identifier: BSD-2-Clause
"""The output buffer with the partial sums of the accelerator (specification section 14.8)."""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..lib.buffer import Buffer
from ..lib.stream_register import StreamRegister
from ..units.mac_array import MacArray
from .activation_feeder import sum_layout


def result_layout(config):
    """A row of results of one tile, float32 bits, and whether it is the last of the command."""
    return data.StructLayout({"values": data.ArrayLayout(32, config.columns), "last": 1})


class PartialSums(wiring.Component):
    """Gives the array its accumulators, and stores the array's sums until they are results.

    A tag says of each row of the array which partial sum it adds to. It travels beside the data,
    one stage for each of the array's registers::

        i_sum -> ahead 0 .. n -+-> buffer (read) -+-> meeting -+-> o_acc -> array -+
                               |                  |            |                   |
                               +-> beside --------+            +-> inside 0 .. n --+-> tag and sum
                                                                                       |
             buffer (write) <----- not final ------------------------------------------+
             result -> o    <----- final ----------------------------------------------+

    A sum that starts from zero is masked to zero after the read.

    Parameters
    ----------
    config : Config

    Members
    -------
    i_sum : In(stream.Signature(sum_layout(config)))
        For each row of the array, in order, the partial sum that it adds to.
    o_acc : Out(stream.Signature(data.ArrayLayout(32, config.columns)))
        Accumulators for the array, float32 bits.
    i : In(stream.Signature(data.ArrayLayout(32, config.columns)))
        Sums from the array, float32 bits.
    o : Out(stream.Signature(result_layout(config)))
        Results, one cycle after ``i``.
    columns : In(range(config.columns + 1))
        Columns of the last tile, which may be a partial tile. Columns that it does not have give
        +0 as a result, whatever the array computes for them.
    retired : Out(1)
        A row came back from the array. A read in the next cycle finds it.
    """

    # To the array, which takes an accumulator some cycles after its activation; by default.
    latency = MacArray.acc_latency

    def __init__(self, config):
        self.config = config
        self.latency = config.acc_latency
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

        m.submodules.beside = beside = StreamRegister(sum_layout(self.config))
        m.submodules.buffer = buffer = Buffer(self.i.payload.shape(), depth=self.config.rows,
                                              banks=self.config.output_banks)
        self._read(m, buffer, beside)
        meeting = self._mask(m, buffer, beside)
        known = self._accompany(m, meeting)
        self._write(m, buffer, known)

        return m

    def _read(self, m, buffer, beside):
        """Reads the sum of a row, so late that it meets its activation in the array."""
        # The cycles of the buffer and of the register behind it are the last two before that.
        delays = [StreamRegister(sum_layout(self.config)) for _ in range(self.latency - 2)]
        ahead = _chain(m, "ahead", delays)
        wiring.connect(m, wiring.flipped(self.i_sum), delays[0].i)
        # A row that starts from zero may read anything, so its address does no harm.
        m.d.comb += [
            buffer.i.valid.eq(ahead.o.valid),
            buffer.i.payload.eq(ahead.o.payload.row),
            ahead.o.ready.eq(buffer.i.ready),
            beside.i.valid.eq(ahead.o.valid),
            beside.i.payload.eq(ahead.o.payload),
        ]

    def _mask(self, m, buffer, beside):
        """Zeroes the sums that start, and keeps this and the read out of the adders' path."""
        row = self.o_acc.payload.shape()
        m.submodules.meeting = meeting = StreamRegister(
            data.StructLayout({"accs": row, "known": sum_layout(self.config)}))
        acc = Value.cast(buffer.o.payload)
        m.d.comb += [
            meeting.i.valid.eq(buffer.o.valid),
            Value.cast(meeting.i.payload.accs).eq(
                acc & (~beside.o.payload.first).replicate(len(acc))),
            meeting.i.payload.known.eq(beside.o.payload),
            buffer.o.ready.eq(meeting.i.ready),
            beside.o.ready.eq(meeting.i.ready),
        ]
        return meeting

    def _accompany(self, m, meeting):
        """Gives accumulators to the array; the tag goes through as many registers as it has."""
        inside = [StreamRegister(sum_layout(self.config))
                  for _ in range(self.config.array_latency - self.latency)]
        m.d.comb += [
            self.o_acc.valid.eq(meeting.o.valid & inside[0].i.ready),
            self.o_acc.payload.eq(meeting.o.payload.accs),
            meeting.o.ready.eq(self.o_acc.ready & inside[0].i.ready),
            inside[0].i.valid.eq(meeting.o.valid & self.o_acc.ready),
            inside[0].i.payload.eq(meeting.o.payload.known),
        ]
        return _chain(m, "inside", inside).o

    def _write(self, m, buffer, known):
        """Gives out the results, and writes all other sums back."""
        # The register breaks the path from the array's last stage to the result's quantization.
        m.submodules.result = result = StreamRegister(result_layout(self.config))
        wiring.connect(m, result.o, wiring.flipped(self.o))
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
        for n in range(self.config.columns):
            present = Signal(name=f"present{n}")
            m.d.comb += [
                present.eq(~known.payload.partial | (self.columns >= n + 1)),
                result.i.payload["values"][n].eq(self.i.payload[n] & present.replicate(32)),
            ]


def _chain(m, name, registers):
    """Adds registers as submodules, each behind the one before, and returns the last one."""
    for n, register in enumerate(registers):
        m.submodules[f"{name}{n}"] = register
        if n:
            wiring.connect(m, registers[n - 1].o, register.i)
    return registers[-1]
