# SPDX-License-Identifier: BSD-2-Clause
"""The weight buffer of the accelerator (order of weights: specification section 14.7)."""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..lib.buffer import Buffer
from ..lib.stream_register import StreamRegister
from .loop_nest import LoopNest
from .planner import plan_layout


def weights_layout(config):
    """Payload of a stream of weights: records, in a framed configuration with a mark."""
    records = data.ArrayLayout(config.record, config.weight_width)
    return data.StructLayout({"records": records, "last": 1}) if config.framed else records


class WeightFeeder(wiring.Component):
    """Queues weights in front of the array, and fills partial tiles up to whole ones.

    Takes weights whenever there is room, also before their plan. The array always loads a whole
    tile, so ``columns`` records leave per tile, one transfer per cycle, in the order of the plan.
    A transfer without any column of the matrix takes nothing from the queue, and records beyond
    the matrix hold anything: `PartialSums` gives zero for their columns.

    ``level`` counts the transfers in the ring, from ``read`` up to ``written``.

    In a framed configuration the mark of the last transfer goes through the buffer beside the
    records and is checked behind it: a transfer that follows a marked one in the same plan, and a
    plan whose last transfer is not marked, are misframed.

    Parameters
    ----------
    config : Config

    Members
    -------
    i_plan : In(stream.Signature(plan_layout(config)))
    i : In(stream.Signature(weights_layout(config)))
        Records of a tile, column 0 first; whole transfers, also for a partial tile.
    o : Out(stream.Signature(data.ArrayLayout(config.record, config.weight_width)))
        Records of whole tiles, column 0 first.
    misframed : Out(1)
        A mark is missing or too early. Only in a framed configuration.
    """

    # Into the buffer and out of it.
    latency = 1 + Buffer.latency

    def __init__(self, config):
        self.config = config
        transfer = data.ArrayLayout(config.record, config.weight_width)
        super().__init__({
            "i_plan": In(stream.Signature(plan_layout(config))),
            "i": In(stream.Signature(weights_layout(config))),
            "o": Out(stream.Signature(transfer)),
        } | ({"misframed": Out(1)} if config.framed else {}))

    def elaborate(self, platform):
        m = Module()
        config = self.config
        width = config.weight_width
        depth = config.weights // width

        m.submodules.loops = loops = LoopNest(config, loops="weights")
        m.submodules.buffer = buffer = Buffer(self.i.payload.shape(), depth=depth,
                                              banks=config.weight_banks)
        # Columns of the last tile along N, which is the last one of the last bundle.
        columns = Signal(range(config.columns + 1), reset_less=True)
        wiring.connect(m, wiring.flipped(self.i_plan), loops.i)
        with m.If(self.i_plan.ready):
            m.d.sync += columns.eq(self.i_plan.payload.columns)

        written = Signal(range(depth))
        read = Signal(range(depth))
        level = Signal(range(depth + 1))
        put = Signal()
        m.d.comb += [
            self.i.ready.eq(level != depth),
            put.eq(self.i.valid & self.i.ready),
            buffer.write.eq(put),
            buffer.address.eq(written),
            buffer.row.eq(self.i.payload),
        ]

        # Whether the transfer has a column of the matrix, and whether it can go.
        step = loops.o.payload
        wanted = Signal()
        available = Signal()
        take = Signal()
        m.d.comb += [
            wanted.eq(~(step.tile_last & step.bundle_last) | (step.index * width < columns)),
            available.eq(~wanted | (level != 0)),
            buffer.i.valid.eq(loops.o.valid & available),
            buffer.i.payload.eq(read),
            loops.o.ready.eq(buffer.i.ready & available),
            take.eq(loops.o.valid & loops.o.ready & wanted),
        ]
        m.d.sync += level.eq(level + put - take)
        with m.If(put):
            m.d.sync += written.eq(written + 1)
        with m.If(take):
            m.d.sync += read.eq(read + 1)

        if config.framed:
            self._check_frames(m, buffer, step, wanted)
        else:
            wiring.connect(m, buffer.o, wiring.flipped(self.o))

        return m

    def _check_frames(self, m, buffer, step, wanted):
        """Gives the records behind the buffer, and checks their marks there."""
        m.submodules.tag = tag = StreamRegister(data.StructLayout({"wanted": 1, "last": 1}))
        # Whether the transfer before, of the same plan, was marked.
        before = Signal()
        marked = Signal()
        m.d.comb += [
            # The tag goes beside the buffer, with the same handshakes.
            tag.i.valid.eq(buffer.i.valid),
            tag.i.payload.wanted.eq(wanted),
            tag.i.payload.last.eq(step.last),
            tag.o.ready.eq(self.o.ready),
            buffer.o.ready.eq(self.o.ready),
            self.o.valid.eq(buffer.o.valid),
            self.o.payload.eq(buffer.o.payload.records),
            marked.eq(Mux(tag.o.payload.wanted, buffer.o.payload.last, before)),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.comb += self.misframed.eq((tag.o.payload.wanted & before)
                                          | (tag.o.payload.last & ~marked))
            m.d.sync += before.eq(marked & ~tag.o.payload.last)
