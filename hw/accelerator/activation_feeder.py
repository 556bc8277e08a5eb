# SPDX-License-Identifier: BSD-2-Clause
"""The activation buffer, and the order in which activations meet weights.

Implements the order of activations of specification section 14.7, and section 14.5 (kept results).
"""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..lib.buffer import Buffer
from ..lib.skid_buffer import SkidBuffer
from ..lib.stream_register import StreamRegister
from .loop_nest import LoopNest
from .planner import INTERLEAVE, Source, plan_layout


def sum_layout(config):
    """Partial sum that a row of the array adds to."""
    return data.StructLayout({
        # Row of the output buffer.
        "row": range(config.rows),
        # The sum starts from zero with this product.
        "first": 1,
        # The sum is a result after this product.
        "final": 1,
        # It belongs to the last tile, which may be a partial tile.
        "partial": 1,
        # It is the last result of the command.
        "last": 1,
    })


def product_layout(config):
    """An activation on its way into the array."""
    return data.StructLayout({
        "record": config.record,
        # The last activation that meets the present tile of weights.
        "last": 1,
        "sum": sum_layout(config),
    })


def activation_layout(config):
    """Payload of a stream of activations: a record, in a framed configuration with a mark."""
    record = config.record
    return data.StructLayout({"record": record, "last": 1}) if config.framed else record


class ActivationFeeder(wiring.Component):
    """Holds activations in a ring buffer and gives them in the order of all products.

    A record comes in once and is given as often as the plan says, one per cycle. The records of
    a command arrive first; those that its result keeps are appended while the command runs, in
    the order in which the next command reads them::

          block_start   group_start                        written
               |             |                                |
        .......|=============|============|===================|...............
               |<-- present block, arriving -->|<-- kept ---->|    free
                             ^ address         ``level`` records are held,
                                               the last ``fresh`` of them never given

    ``address`` goes through the rows of a group once per tile of the bundle, starting from
    ``group_start`` each time, then on to the next group. If the plan is resident, it goes back
    to ``block_start`` for the next bundle. A record leaves (``level`` falls) with its last tile.

    Two things hold a product back: its record has not arrived yet, or its partial sum may still
    be in flight in the array. Products are counted from here to ``retired``. Between two products
    for the same sum lie all other sums of the bundle, so a product may go if at most as many
    products are in flight as the bundle has sums, less one.

    Parameters
    ----------
    config : Config

    Members
    -------
    i_plan : In(stream.Signature(plan_layout(config)))
        Taken when the products of the plan before have been given. It must not be offered before
        all records that the command before keeps have come in. Unless its source is KEPT, it
        empties the ring.
    i : In(stream.Signature(activation_layout(config)))
        Activations of sources RECORDS and VALUES.
    i_kept : In(stream.Signature(config.record))
        Results to be kept. They wait until all activations of the command have arrived.
    retired : In(1)
        A product was added to its sum, which can be read again.
    o : Out(stream.Signature(product_layout(config)))
    misframed : Out(1)
        The mark of an activation is not that of the last one of its command: it is missing or too
        early. Only in a framed configuration.
    """

    # Into the buffer and out of it.
    latency = 1 + Buffer.latency

    def __init__(self, config):
        self.config = config
        super().__init__({
            "i_plan": In(stream.Signature(plan_layout(config))),
            "i": In(stream.Signature(activation_layout(config))),
            "i_kept": In(stream.Signature(config.record)),
            "retired": In(1),
            "o": Out(stream.Signature(product_layout(config))),
        } | ({"misframed": Out(1)} if config.framed else {}))

    def elaborate(self, platform):
        m = Module()
        config = self.config

        m.submodules.arrivals = arrivals = LoopNest(config, loops="activations")
        m.submodules.products = products = LoopNest(config, loops="products")
        m.submodules.buffer = buffer = Buffer(config.record, depth=config.activations,
                                              banks=config.activation_banks)
        # Records in the ring, and those of them that have never been given.
        level = Signal(range(config.activations + 1))
        fresh = Signal(range(config.activations + 1))
        begin, comes, stays = self._begin(m, arrivals, products)
        written, put = self._store(m, arrivals, buffer, begin, comes, level)
        once, give = self._count(m, products, begin, comes, stays, put, level, fresh)
        row, known = self._order_sums(m, products.o.payload, give)
        address = self._order_records(m, products.o.payload, begin, comes, stays, written, give)
        ready = Signal()
        m.d.comb += ready.eq(known & (~once | (fresh != 0)))
        self._give(m, products, buffer, ready, address, row)

        return m

    def _begin(self, m, arrivals, products):
        """Takes a plan: whether it begins, whether its activations arrive, whether they stay."""
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
        return begin, comes, stays

    def _store(self, m, arrivals, buffer, begin, comes, level):
        """Writes records into the ring: what arrives first, then what is kept."""
        depth = self.config.activations
        written = Signal(range(depth))
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
            buffer.row.eq(Mux(arriving, self.i.payload.record if self.config.framed
                              else self.i.payload, self.i_kept.payload)),
        ]
        if self.config.framed:
            m.d.comb += self.misframed.eq(self.i.valid & self.i.ready & (
                self.i.payload.last != arrivals.o.payload.last))
        with m.If(begin):
            m.d.sync += arriving.eq(comes)
        with m.Elif(arrivals.o.valid & arrivals.o.ready & arrivals.o.payload.last):
            m.d.sync += arriving.eq(0)
        with m.If(put):
            m.d.sync += written.eq(written + 1)
        return written, put

    def _count(self, m, products, begin, comes, stays, put, level, fresh):
        """Counts the records of the ring: whether a product's record is new, whether it is given.

        A record is fresh for the first tile that meets it and leaves with the last one. Unless it
        stays, that means the first and last tile of a bundle, as every bundle has its own records.
        """
        step = products.o.payload
        once = Signal()
        leaves = Signal()
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
        return once, give

    def _order_sums(self, m, step, give):
        """Row of the output buffer for a product, and whether its sum is known to be back."""
        # Products in flight, at most twice as many as an element's sum needs rows between. A deep
        # array has more.
        limit = 2 * INTERLEAVE
        while limit - 1 < self.config.round_trip + 1:
            limit *= 2
        flying = Signal(range(limit))
        row = Signal(range(self.config.rows))
        # One less than the sums of the bundle.
        rows = Signal(range(self.config.rows), reset_less=True)
        row_last = Signal()
        known = Signal()
        m.d.comb += [
            row_last.eq(step.index_last & step.tile_last),
            # The sums of a bundle begin with its first group, so nothing is read for that.
            known.eq((step.group_first | (flying <= rows)) & (flying != limit - 1)),
        ]
        m.d.sync += flying.eq(flying + give - self.retired)
        with m.If(give):
            m.d.sync += row.eq(Mux(row_last, 0, row + 1))
            with m.If(step.group_first):
                m.d.sync += rows.eq(row)
        return row, known

    def _order_records(self, m, step, begin, comes, stays, written, give):
        """Address of the record of a product.

        The tiles of a bundle go through the same records, groups follow each other, and bundles
        start over in a block that stays.
        """
        depth = self.config.activations
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
        return address

    def _give(self, m, products, buffer, ready, address, row):
        """Reads records and gives them together with their sums."""
        step = products.o.payload
        product = product_layout(self.config)
        tag = data.StructLayout({name: product[name].shape for name in ("last", "sum")})
        m.submodules.tag = held = StreamRegister(tag)
        # Breaks the combinational path from the ready of a kept result through the array.
        m.submodules.given = given = SkidBuffer(product)
        m.d.comb += [
            buffer.i.valid.eq(products.o.valid & ready),
            buffer.i.payload.eq(address),
            products.o.ready.eq(buffer.i.ready & ready),
            held.i.valid.eq(buffer.i.valid),
            held.i.payload.last.eq(step.index_last),
            held.i.payload.sum.row.eq(row),
            held.i.payload.sum.first.eq(step.group_first),
            held.i.payload.sum.final.eq(step.group_last),
            held.i.payload.sum.partial.eq(step.tile_last & step.bundle_last),
            held.i.payload.sum.last.eq(step.last),
            held.o.ready.eq(given.i.ready),
            buffer.o.ready.eq(given.i.ready),
            given.i.valid.eq(buffer.o.valid),
            given.i.payload.record.eq(buffer.o.payload),
            given.i.payload.last.eq(held.o.payload.last),
            given.i.payload.sum.eq(held.o.payload.sum),
        ]
        wiring.connect(m, given.o, wiring.flipped(self.o))
