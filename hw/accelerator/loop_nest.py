# SPDX-License-Identifier: BSD-2-Clause
"""The loops of a plan as a stream of steps, which every feeder of the accelerator follows.

Implements the loops of specification sections 14.6 to 14.8.
"""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..lib.stream_queue import StreamQueue
from .planner import INTERLEAVE, plan_layout

LOOPS = ("weights", "activations", "products")
"""Streams whose order a `LoopNest` can give."""


def step_layout(config):
    """Payload of a step of a `LoopNest`.

    The flags say whether the step lies in the first or in the last round of a loop.
    """
    return data.StructLayout({
        # Round of the innermost loop.
        "index": range(max(config.rows, config.columns)),
        "index_last": 1,
        "tile_first": 1,
        "tile_last": 1,
        "group_first": 1,
        "group_last": 1,
        "bundle_first": 1,
        "bundle_last": 1,
        # The last step of the plan.
        "last": 1,
    })


class LoopNest(wiring.Component):
    """Goes through the loops of a plan, one step per cycle.

    Each loop has its registers::

        for each block of rows              blocks, larger: those to come;  block_rows
            for each bundle of its tiles    left: tiles to come;  bundle: tiles of this one;  first
                for each group along K      group
                    for each tile           tile
                        for each index      index

    The innermost loop depends on ``loops``:

    ============= ====================================== ==========================================
    loops         rounds of the index                    other loops
    ============= ====================================== ==========================================
    "weights"     transfers of a tile's weights          all
    "activations" rows of the block                      one tile per bundle; one bundle per block
                                                         if the plan is resident
    "products"    rows of the block                      all
    ============= ====================================== ==========================================

    A bundle has so many tiles that at least `INTERLEAVE` rows lie between two sums of the same
    element: one tile, if the block has that many rows.

    A plan goes through these states; its first step comes ``latency`` cycles after it is taken::

                  plan taken             first block entered            last step taken
        idle ------------------> entering ------------------> active ------------------> idle

    Entering a block loads the registers of all loops below it, entering a bundle those of the
    bundle. After the first block both happen in the cycle of the step before, which loses none.

    Parameters
    ----------
    config : Config
    loops : str
        One of `LOOPS`.

    Members
    -------
    i : In(stream.Signature(plan_layout(config)))
        Plans. One whose code is not DONE gives no step.
    o : Out(stream.Signature(step_layout(config)))

    Raises
    ------
    ValueError
        If ``loops`` is none of `LOOPS`.
    """

    # By default; one more with a queue behind the loops.
    latency = 2

    def __init__(self, config, *, loops):
        if loops not in LOOPS:
            raise ValueError(f"Loops must be one of {', '.join(LOOPS)}, not {loops!r}")
        self.config = config
        self.loops = loops
        self.latency += config.queued
        super().__init__({
            "i": In(stream.Signature(plan_layout(config))),
            "o": Out(stream.Signature(step_layout(config))),
        })

    def elaborate(self, platform):
        m = Module()

        entering = Signal()
        active = Signal()
        plan = _Plan(self.config)
        steps, empty = self.o, None
        if self.config.queued:
            m.submodules.steps = queue = StreamQueue(step_layout(self.config), depth=2)
            wiring.connect(m, queue.o, wiring.flipped(self.o))
            steps, empty = queue.i, queue.level == 0
        self._take_plan(m, plan, entering, active, empty)
        coming = _NextBlock(m, self.config, plan)
        at = _Position(self.config)
        last = self._last_rounds(m, plan, at)
        self._give_step(m, steps, at, last, active)
        self._advance(m, steps, plan, coming, at, last, entering, active)

        return m

    def _take_plan(self, m, plan, entering, active, empty):
        """Takes a plan while there is none, and no step of the one before."""
        given = self.i.payload
        free = ~entering & ~active
        m.d.comb += self.i.ready.eq(free if empty is None else free & empty)
        with m.If(self.i.ready):
            m.d.sync += [
                entering.eq(self.i.valid & (given.code.as_value() == 0)),
                plan.groups.eq(given.groups),
                plan.tiles.eq(given.tiles),
                plan.rows.eq(given.rows),
                plan.resident.eq(given.resident),
                plan.blocks.eq(given.blocks),
                plan.larger.eq(given.larger),
            ]

    def _last_rounds(self, m, plan, at):
        """Whether each loop is in its last round, from the innermost one to that of blocks."""
        config = self.config
        weights, activations = self.loops == "weights", self.loops == "activations"
        count = config.columns // config.weight_width if weights else at.block_rows
        once = plan.resident if activations else 0
        index_last = Signal()
        tile_last = Signal()
        group_last = Signal()
        bundle_last = Signal()
        block_last = Signal()
        m.d.comb += [
            index_last.eq(at.index == count - 1),
            tile_last.eq((at.tile == at.bundle - 1) | activations),
            group_last.eq(at.group == plan.groups - 1),
            bundle_last.eq((at.left == 0) | once),
            block_last.eq(plan.blocks == 0),
        ]
        return index_last, tile_last, group_last, bundle_last, block_last

    def _give_step(self, m, steps, at, last, active):
        """Drives the stream of steps with the present position."""
        index_last, tile_last, group_last, bundle_last, block_last = last
        step = steps.payload
        m.d.comb += [
            steps.valid.eq(active),
            step.index.eq(at.index),
            step.index_last.eq(index_last),
            step.tile_first.eq(at.tile == 0),
            step.tile_last.eq(tile_last),
            step.group_first.eq(at.group == 0),
            step.group_last.eq(group_last),
            step.bundle_first.eq(at.first),
            step.bundle_last.eq(bundle_last),
            step.last.eq(
                index_last & tile_last & group_last & bundle_last & block_last),
        ]

    def _advance(self, m, steps, plan, coming, at, last, entering, active):
        """Goes on by a step, and enters a bundle or a block where the loops below are through."""
        index_last, tile_last, group_last, bundle_last, block_last = last
        enter_block = Signal()
        enter_bundle = Signal()
        next_left = Signal(range(INTERLEAVE + 1))
        m.d.comb += [
            next_left.eq(Mux(at.left < at.bundle_width, at.left, at.bundle_width)),
            enter_block.eq(entering),
        ]
        with m.If(active & steps.ready):
            m.d.sync += at.index.eq(at.index + 1)
            with m.If(index_last):
                m.d.sync += [at.index.eq(0), at.tile.eq(at.tile + 1)]
            with m.If(index_last & tile_last):
                m.d.sync += [at.tile.eq(0), at.group.eq(at.group + 1)]
            with m.If(index_last & tile_last & group_last):
                m.d.sync += at.group.eq(0)
                m.d.comb += [enter_bundle.eq(~bundle_last), enter_block.eq(bundle_last)]
        with m.If(enter_bundle):
            m.d.sync += [at.first.eq(0), at.bundle.eq(next_left), at.left.eq(at.left - next_left)]
        with m.If(enter_block):
            m.d.sync += [
                entering.eq(0),
                active.eq(~block_last),
                plan.blocks.eq(plan.blocks - 1),
                plan.larger.eq(plan.larger - coming.more),
                at.block_rows.eq(coming.next_rows),
                at.bundle_width.eq(coming.next_width),
                at.bundle.eq(coming.next_bundle),
                at.left.eq(plan.tiles - coming.next_bundle),
                at.first.eq(1),
                at.tile.eq(0),
                at.group.eq(0),
                at.index.eq(0),
            ]


class _Plan:
    """Registers of the plan under way, fields as in `plan_layout`.

    ``blocks`` and ``larger`` count down: blocks that come after the present one, and how many of
    them have one row more.
    """

    def __init__(self, config):
        layout = plan_layout(config)
        self.groups = Signal(layout["groups"].shape, reset_less=True)
        self.tiles = Signal(layout["tiles"].shape, reset_less=True)
        self.rows = Signal(layout["rows"].shape, reset_less=True)
        self.resident = Signal(reset_less=True)
        self.blocks = Signal(layout["blocks"].shape, reset_less=True)
        self.larger = Signal(layout["larger"].shape, reset_less=True)


class _NextBlock:
    """Rows of the next block, tiles of its bundles, and tiles of its first bundle.

    The widths for both possible numbers of rows are there before it is known which one it is.
    """

    def __init__(self, m, config, plan):
        rows = plan_layout(config)["rows"].shape
        # Whether the block is one of the larger ones.
        self.more = Signal()
        row_more = Signal(rows)
        width_rows = Signal(range(INTERLEAVE + 1))
        width_more = Signal(range(INTERLEAVE + 1))
        self.next_rows = Signal(rows)
        self.next_width = Signal(range(INTERLEAVE + 1))
        self.next_bundle = Signal(range(INTERLEAVE + 1))
        m.d.comb += [
            self.more.eq(plan.larger != 0),
            row_more.eq(plan.rows + 1),
            width_rows.eq(_bundle_width(plan.rows)),
            width_more.eq(_bundle_width(row_more)),
            self.next_rows.eq(Mux(self.more, row_more, plan.rows)),
            self.next_width.eq(Mux(self.more, width_more, width_rows)),
            self.next_bundle.eq(
                Mux(plan.tiles < self.next_width, plan.tiles, self.next_width)),
        ]


def _bundle_width(rows):
    """Tiles per bundle: 1 for 8 and more rows, 2 for 4 to 7, 4 for 2 or 3, and 8 for one."""
    return Mux(rows[3:].any(), 1, Mux(rows[2], INTERLEAVE // 4,
                                      Mux(rows[1], INTERLEAVE // 2, INTERLEAVE)))


class _Position:
    """Registers of the loops, see `LoopNest`."""

    def __init__(self, config):
        layout = plan_layout(config)
        self.block_rows = Signal(layout["rows"].shape, reset_less=True)
        # Tiles of a whole bundle of the block, and of the present one.
        self.bundle_width = Signal(range(INTERLEAVE + 1), reset_less=True)
        self.bundle = Signal(range(INTERLEAVE + 1), reset_less=True)
        # Tiles that come after the present bundle.
        self.left = Signal(layout["tiles"].shape, reset_less=True)
        # Whether the present bundle is the first one of the block.
        self.first = Signal(reset_less=True)
        self.tile = Signal(range(INTERLEAVE), reset_less=True)
        self.group = Signal(layout["groups"].shape, reset_less=True)
        self.index = Signal(step_layout(config)["index"].shape, reset_less=True)
