# SPDX-License-Identifier: BSD-2-Clause
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .planner import INTERLEAVE, plan_layout

LOOPS = ("weights", "activations", "products")


def step_layout(config):
    """Payload of a step of a `LoopNest`."""
    return data.StructLayout({
        # Position in the innermost loop.
        "index": range(max(config.rows, config.columns)),
        # Whether the step lies in the first or in the last round of a loop.
        "index_last": 1,
        "tile_first": 1,
        "tile_last": 1,
        "group_first": 1,
        "group_last": 1,
        "bundle_first": 1,
        "bundle_last": 1,
        "last": 1,
    })


class LoopNest(wiring.Component):
    """Goes through the loops of a plan: blocks, bundles of tiles, groups, tiles, and innermost
    the transfers of a tile's weights or the rows of the block.

    A bundle has so many tiles that at least `INTERLEAVE` rows lie between two sums of the same
    element: one tile, if the block has that many rows. One step per cycle, beginning two cycles
    after the plan was taken.

    Parameters
    ----------
    config : Config
    loops : str
        "weights": innermost are the transfers of a tile's weights. "products": the block's rows.
        "activations": the rows too, but once for all tiles of a bundle, and for all bundles if
        the plan is resident.

    Members
    -------
    i : In(stream.Signature(plan_layout(config)))
        Plans to be done; one with another code is passed over.
    o : Out(stream.Signature(step_layout(config)))

    Raises
    ------
    ValueError
        If ``loops`` is none of these.
    """

    latency = 2

    def __init__(self, config, *, loops):
        if loops not in LOOPS:
            raise ValueError(f"Loops must be one of {', '.join(LOOPS)}, not {loops!r}")
        self.config = config
        self.loops = loops
        super().__init__({
            "i": In(stream.Signature(plan_layout(config))),
            "o": Out(stream.Signature(step_layout(config))),
        })

    def elaborate(self, platform):
        m = Module()
        config = self.config
        layout = plan_layout(config)

        # A plan is taken, its first block entered, then every cycle is a step.
        entering = Signal()
        active = Signal()
        groups = Signal(layout["groups"].shape, reset_less=True)
        tiles = Signal(layout["tiles"].shape, reset_less=True)
        rows = Signal(layout["rows"].shape, reset_less=True)
        resident = Signal(reset_less=True)
        # Blocks that come after the present one, and how many of them are larger.
        blocks = Signal(layout["blocks"].shape, reset_less=True)
        larger = Signal(layout["larger"].shape, reset_less=True)
        plan = self.i.payload
        m.d.comb += self.i.ready.eq(~entering & ~active)
        with m.If(self.i.ready):
            m.d.sync += [
                entering.eq(self.i.valid & (plan.code.as_value() == 0)),
                groups.eq(plan.groups),
                tiles.eq(plan.tiles),
                rows.eq(plan.rows),
                resident.eq(plan.resident),
                blocks.eq(plan.blocks),
                larger.eq(plan.larger),
            ]

        # The next block: its rows, how many tiles its bundles have, and its first bundle.
        def width(rows):
            return Mux(rows[3:].any(), 1, Mux(rows[2], INTERLEAVE // 4,
                                              Mux(rows[1], INTERLEAVE // 2, INTERLEAVE)))

        more = Signal()
        row_more = Signal(layout["rows"].shape)
        width_rows = Signal(range(INTERLEAVE + 1))
        width_more = Signal(range(INTERLEAVE + 1))
        next_rows = Signal(layout["rows"].shape)
        next_width = Signal(range(INTERLEAVE + 1))
        next_bundle = Signal(range(INTERLEAVE + 1))
        m.d.comb += [
            more.eq(larger != 0),
            row_more.eq(rows + 1),
            width_rows.eq(width(rows)),
            width_more.eq(width(row_more)),
            next_rows.eq(Mux(more, row_more, rows)),
            next_width.eq(Mux(more, width_more, width_rows)),
            next_bundle.eq(Mux(tiles < next_width, tiles, next_width)),
        ]

        # The present one.
        block_rows = Signal(layout["rows"].shape, reset_less=True)
        bundle_width = Signal(range(INTERLEAVE + 1), reset_less=True)
        bundle = Signal(range(INTERLEAVE + 1), reset_less=True)
        left = Signal(layout["tiles"].shape, reset_less=True)
        first = Signal(reset_less=True)
        tile = Signal(range(INTERLEAVE), reset_less=True)
        group = Signal(layout["groups"].shape, reset_less=True)
        index = Signal(step_layout(config)["index"].shape, reset_less=True)

        count = config.columns // config.weight_width if self.loops == "weights" else block_rows
        once = resident if self.loops == "activations" else 0
        index_last = Signal()
        tile_last = Signal()
        group_last = Signal()
        bundle_last = Signal()
        block_last = Signal()
        m.d.comb += [
            index_last.eq(index == count - 1),
            tile_last.eq((tile == bundle - 1) | (self.loops == "activations")),
            group_last.eq(group == groups - 1),
            bundle_last.eq((left == 0) | once),
            block_last.eq(blocks == 0),
            self.o.valid.eq(active),
            self.o.payload.index.eq(index),
            self.o.payload.index_last.eq(index_last),
            self.o.payload.tile_first.eq(tile == 0),
            self.o.payload.tile_last.eq(tile_last),
            self.o.payload.group_first.eq(group == 0),
            self.o.payload.group_last.eq(group_last),
            self.o.payload.bundle_first.eq(first),
            self.o.payload.bundle_last.eq(bundle_last),
            self.o.payload.last.eq(
                index_last & tile_last & group_last & bundle_last & block_last),
        ]

        enter_block = Signal()
        enter_bundle = Signal()
        next_left = Signal(range(INTERLEAVE + 1))
        m.d.comb += [
            next_left.eq(Mux(left < bundle_width, left, bundle_width)),
            enter_block.eq(entering),
        ]
        with m.If(active & self.o.ready):
            m.d.sync += index.eq(index + 1)
            with m.If(index_last):
                m.d.sync += [index.eq(0), tile.eq(tile + 1)]
            with m.If(index_last & tile_last):
                m.d.sync += [tile.eq(0), group.eq(group + 1)]
            with m.If(index_last & tile_last & group_last):
                m.d.sync += group.eq(0)
                m.d.comb += [enter_bundle.eq(~bundle_last), enter_block.eq(bundle_last)]
        with m.If(enter_bundle):
            m.d.sync += [first.eq(0), bundle.eq(next_left), left.eq(left - next_left)]
        with m.If(enter_block):
            m.d.sync += [
                entering.eq(0),
                active.eq(~block_last),
                blocks.eq(blocks - 1),
                larger.eq(larger - more),
                block_rows.eq(next_rows),
                bundle_width.eq(next_width),
                bundle.eq(next_bundle),
                left.eq(tiles - next_bundle),
                first.eq(1),
                tile.eq(0),
                group.eq(0),
                index.eq(0),
            ]

        return m
