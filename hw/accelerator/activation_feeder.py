# SPDX-License-Identifier: BSD-2-Clause
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..lib.buffer import Buffer
from ..lib.formats import Record
from ..lib.skid_buffer import SkidBuffer
from ..lib.stream_register import StreamRegister
from .loop_nest import LoopNest
from .planner import INTERLEAVE, Source, plan_layout


def sum_layout(config):
    """Which partial sum a row of the array adds to."""
    return data.StructLayout({
        # Row of the output buffer.
        "row": range(config.rows),
        # It starts from zero; it is a result, of a tile that need not have all columns; it is
        # the command's last result.
        "first": 1,
        "final": 1,
        "ragged": 1,
        "last": 1,
    })


def product_layout(config):
    """An activation on its way into the array."""
    return data.StructLayout({
        "record": Record,
        # The last one that meets the present tile of weights.
        "last": 1,
        "sum": sum_layout(config),
    })


class ActivationFeeder(wiring.Component):
    """The activation buffer: a ring that holds blocks of records, and the order of all products.

    A record comes in once and is given as often as the plan says, one per cycle. What the
    command's result keeps goes to the end of the ring, after the last of the command's own
    activations, where the next command finds it in its own order. A product whose partial sum is
    still in flight waits for it.

    Parameters
    ----------
    config : Config

    Members
    -------
    i_plan : In(stream.Signature(plan_layout(config)))
        Taken when the command before has been given; to be offered when all that it keeps has come
        in. Unless its source is KEPT, the ring is emptied.
    i : In(stream.Signature(Record))
    i_kept : In(stream.Signature(Record))
    retired : In(1)
        One of the products given has been added up.
    o : Out(stream.Signature(product_layout(config)))
    """

    # Into the buffer and out of it.
    latency = 1 + Buffer.latency

    def __init__(self, config):
        self.config = config
        super().__init__({
            "i_plan": In(stream.Signature(plan_layout(config))),
            "i": In(stream.Signature(Record)),
            "i_kept": In(stream.Signature(Record)),
            "retired": In(1),
            "o": Out(stream.Signature(product_layout(config))),
        })

    def elaborate(self, platform):
        m = Module()
        config = self.config
        depth = config.activations

        m.submodules.arrivals = arrivals = LoopNest(config, loops="activations")
        m.submodules.products = products = LoopNest(config, loops="products")
        m.submodules.buffer = buffer = Buffer(Record, depth=depth, banks=config.activation_banks)
        stays = Signal(reset_less=True)
        comes = Signal()
        begin = Signal()
        m.d.comb += [
            comes.eq(self.i_plan.payload.source.as_value() != Source.KEPT.value),
            self.i_plan.ready.eq(arrivals.i.ready & products.i.ready),
            begin.eq(self.i_plan.valid & self.i_plan.ready),
            arrivals.i.valid.eq(begin & comes),
            arrivals.i.payload.eq(self.i_plan.payload),
            products.i.valid.eq(begin),
            products.i.payload.eq(self.i_plan.payload),
        ]
        with m.If(begin):
            m.d.sync += stays.eq(self.i_plan.payload.resident)

        # The ring: what is kept comes after all that arrives.
        written = Signal(range(depth))
        level = Signal(range(depth + 1))
        # Records that have never been given.
        fresh = Signal(range(depth + 1))
        arriving = Signal()
        space = Signal()
        put = Signal()
        m.d.comb += [
            space.eq(level != depth),
            self.i.ready.eq(arrivals.o.valid & space),
            arrivals.o.ready.eq(self.i.valid & space),
            self.i_kept.ready.eq(~arriving & space),
            put.eq((self.i.valid & self.i.ready) | (self.i_kept.valid & self.i_kept.ready)),
            buffer.write.eq(put),
            buffer.address.eq(written),
            buffer.row.eq(Mux(arriving, self.i.payload, self.i_kept.payload)),
        ]
        with m.If(begin):
            m.d.sync += arriving.eq(comes)
        with m.Elif(arrivals.o.valid & arrivals.o.ready & arrivals.o.payload.last):
            m.d.sync += arriving.eq(0)
        with m.If(put):
            m.d.sync += written.eq(written + 1)

        # Products. A record is fresh for the first tile that meets it and leaves with the last.
        # In a block that does not stay, every bundle has records of its own.
        step = products.o.payload
        once = Signal()
        leaves = Signal()
        known = Signal()
        give = Signal()
        m.d.comb += [
            once.eq(step.tile_first & (step.bundle_first | ~stays)),
            leaves.eq(step.tile_last & (step.bundle_last | ~stays)),
            give.eq(products.o.valid & products.o.ready),
        ]
        with m.If(begin & comes):
            m.d.sync += [level.eq(0), fresh.eq(0)]
        with m.Else():
            m.d.sync += [
                level.eq(level + put - (give & leaves)),
                fresh.eq(fresh + put - (give & once)),
            ]

        # The sum that a product adds to was the last one to which as many products before it
        # added as there are sums in the bundle: those must not all be in flight.
        flying = Signal(range(2 * INTERLEAVE))
        row = Signal(range(config.rows))
        rows = Signal(range(config.rows), reset_less=True)
        row_last = Signal()
        m.d.comb += [
            row_last.eq(step.index_last & step.tile_last),
            # Of the first group, whose sums begin; `rows` is one less than the bundle's sums.
            known.eq((step.group_first | (flying <= rows)) & (flying != 2 * INTERLEAVE - 1)),
        ]
        m.d.sync += flying.eq(flying + give - self.retired)
        with m.If(give):
            m.d.sync += row.eq(Mux(row_last, 0, row + 1))
            with m.If(step.group_first):
                m.d.sync += rows.eq(row)

        # Tiles of a bundle go through the same records, groups follow each other, and bundles
        # start over in a block that stays.
        block_start = Signal(range(depth), reset_less=True)
        group_start = Signal(range(depth), reset_less=True)
        address = Signal(range(depth), reset_less=True)
        with m.If(begin & comes):
            m.d.sync += [block_start.eq(written), group_start.eq(written), address.eq(written)]
        with m.Elif(give):
            m.d.sync += address.eq(address + 1)
            with m.If(step.index_last):
                with m.If(~step.tile_last):
                    m.d.sync += address.eq(group_start)
                with m.Elif(step.group_last & stays & ~step.bundle_last):
                    m.d.sync += [address.eq(block_start), group_start.eq(block_start)]
                with m.Else():
                    m.d.sync += group_start.eq(address + 1)
                    with m.If(step.group_last):
                        m.d.sync += block_start.eq(address + 1)

        ready = Signal()
        tag = data.StructLayout({"last": 1, "sum": sum_layout(config)})
        m.submodules.tag = held = StreamRegister(tag)
        # Else the ready of a kept result would come round by way of the whole machine.
        m.submodules.given = given = SkidBuffer(product_layout(config))
        m.d.comb += [
            ready.eq(known & (~once | (fresh != 0))),
            buffer.i.valid.eq(products.o.valid & ready),
            buffer.i.payload.eq(address),
            products.o.ready.eq(buffer.i.ready & ready),
            held.i.valid.eq(buffer.i.valid),
            held.i.payload.last.eq(step.index_last),
            held.i.payload.sum.row.eq(row),
            held.i.payload.sum.first.eq(step.group_first),
            held.i.payload.sum.final.eq(step.group_last),
            held.i.payload.sum.ragged.eq(step.tile_last & step.bundle_last),
            held.i.payload.sum.last.eq(step.last),
            held.o.ready.eq(given.i.ready),
            buffer.o.ready.eq(given.i.ready),
            given.i.valid.eq(buffer.o.valid),
            given.i.payload.record.eq(buffer.o.payload),
            given.i.payload.last.eq(held.o.payload.last),
            given.i.payload.sum.eq(held.o.payload.sum),
        ]
        wiring.connect(m, given.o, wiring.flipped(self.o))

        return m
