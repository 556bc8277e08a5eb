# SPDX-License-Identifier: BSD-2-Clause
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .formats import SUBGROUP, SUBGROUPS, Codes, PlainRecord, Record, check_metadata
from .group_accumulator import GroupAccumulator, GroupSum
from .pe_tile import PETile
from .stream_register import StreamRegister
from .top1_decode import Refinement, Top1Decode

_Row = data.StructLayout({
    "codes": data.ArrayLayout(Codes, SUBGROUPS),
    "lanes": data.ArrayLayout(SUBGROUP, SUBGROUPS),
    "refinements": data.ArrayLayout(Refinement, SUBGROUPS),
    "scale": 8,
})
"""An activation group with its top-1s decoded, as all columns share it."""

_PlainRow = data.StructLayout({"codes": data.ArrayLayout(Codes, SUBGROUPS), "scale": 8})
"""The same without metadata."""

Activation = data.StructLayout({"record": Record, "last": 1})
"""An activation's group record, and whether it is the last that meets the present weights."""

PlainActivation = data.StructLayout({"record": PlainRecord, "last": 1})
"""The same without metadata."""


class MacArray(wiring.Component):
    """Weight-stationary array: one activation group times a tile of weights, every cycle.

    A tile is one weight record per column, loaded several at a time. It stays until the
    activation marked ``last``; the next tile is loaded meanwhile and takes over in the same
    cycle, so that no cycle is lost if it is complete by then. Each column adds its dot product
    to an accumulator that comes in on ``i_acc`` and leaves on ``o``, in the order of the
    activations: exact inside the group, rounded once, corners as in `GroupAccumulator`.
    Specification sections 7 and 8.

    Latency 6 from ``i_activation`` to ``o``, one group per cycle; ``i_acc`` is taken two cycles
    after its activation. Without metadata one less: the shorter sum needs no stage of its own.

    Parameters
    ----------
    columns : int, at least 1
        Columns, N.
    weight_width : int
        Weight records per transfer, W; divides ``columns``.
    metadata : bool
        Whether records have metadata. Without, the array is one of plain MXFP4, for comparison:
        streams take ``PlainRecord`` and ``PlainActivation``, and nothing refines.

    Members
    -------
    i_weight : In(stream.Signature(data.ArrayLayout(Record, W)))
        Weight records, column 0 first; the first of the next tile may follow at once.
    i_activation : In(stream.Signature(Activation))
    i_acc : In(stream.Signature(data.ArrayLayout(32, columns)))
        Float32 bits, column 0 in the least significant ones.
    o : Out(stream.Signature(data.ArrayLayout(32, columns)))
        Float32 bits.

    Raises
    ------
    TypeError
        If ``metadata`` is not a bool.
    ValueError
        If ``columns`` is not a positive integer, or ``weight_width`` does not divide it.
    """

    latency = 3 + GroupAccumulator.latency

    def __init__(self, *, columns=32, weight_width=1, metadata=True):
        if type(columns) is not int or columns < 1:
            raise ValueError(f"Columns must be a positive integer, not {columns!r}")
        if type(weight_width) is not int or weight_width < 1 or columns % weight_width:
            raise ValueError(f"Weight width must be a divisor of {columns} columns, "
                             f"not {weight_width!r}")
        check_metadata(metadata)
        self.columns = columns
        self.weight_width = weight_width
        self.has_metadata = metadata
        if not metadata:
            self.latency -= 1
        record = Record if metadata else PlainRecord
        accs = data.ArrayLayout(32, columns)
        super().__init__({
            "i_weight": In(stream.Signature(data.ArrayLayout(record, weight_width))),
            "i_activation": In(stream.Signature(Activation if metadata else PlainActivation)),
            "i_acc": In(stream.Signature(accs)),
            "o": Out(stream.Signature(accs)),
        })

    def elaborate(self, platform):
        m = Module()

        # Activations: a subgroup's top-1 is decoded once for all columns.
        layout = _Row if self.has_metadata else _PlainRow
        m.submodules.row = row = StreamRegister(data.StructLayout({"row": layout, "last": 1}))
        record = self.i_activation.payload.record
        staged = row.i.payload
        m.d.comb += [
            row.i.valid.eq(self.i_activation.valid),
            self.i_activation.ready.eq(row.i.ready),
            staged.last.eq(self.i_activation.payload.last),
            staged.row.scale.eq(record.scale),
        ]
        for j in range(SUBGROUPS):
            codes = Cat(record.elements[SUBGROUP * j + i] for i in range(SUBGROUP))
            if not self.has_metadata:
                m.d.comb += staged.row.codes[j].eq(codes)
                continue
            m.submodules[f"top1_decode{j}"] = top1 = Top1Decode()
            m.d.comb += [
                top1.codes.eq(codes),
                top1.meta.eq(record.metadata[j]),
                staged.row.codes[j].eq(top1.codes),
                staged.row.lanes[j].eq(top1.lane),
                staged.row.refinements[j].eq(top1.refinement),
            ]

        # Weights: the shadow tile fills from column 0 on. It takes over when the present one
        # has met its last activation, or at once if there is none.
        present = Signal()
        full = Signal()
        transfers = self.columns // self.weight_width
        position = Signal(range(transfers))
        consumed = Signal()
        swap = Signal()
        load = Signal()
        load_last = Signal()
        m.d.comb += [
            swap.eq(full & (~present | consumed)),
            self.i_weight.ready.eq(~full | swap),
            load.eq(self.i_weight.valid & self.i_weight.ready),
            load_last.eq(load & (position == transfers - 1)),
        ]
        m.d.sync += [
            full.eq(load_last | (full & ~swap)),
            present.eq(swap | (present & ~consumed)),
        ]
        with m.If(load):
            m.d.sync += position.eq(Mux(load_last, 0, position + 1))

        # The tiles' registers, one stage for all columns; beyond it, accumulators join.
        multiplied = Signal()
        advance = Signal()
        fire = Signal()
        columns = [_Column(metadata=self.has_metadata) for _ in range(self.columns)]
        taken = columns[0].i_ready
        m.d.comb += [
            advance.eq(~multiplied | (self.i_acc.valid & taken)),
            row.o.ready.eq(present & advance),
            fire.eq(row.o.valid & row.o.ready),
            consumed.eq(fire & row.o.payload.last),
            self.i_acc.ready.eq(multiplied & taken),
            self.o.valid.eq(columns[0].o.valid),
        ]
        with m.If(advance):
            m.d.sync += multiplied.eq(fire)

        # All columns move alike: the first one speaks for them.
        for n, column in enumerate(columns):
            m.submodules[f"column{n}"] = column
            m.d.comb += [
                column.weight.eq(self.i_weight.payload[n % self.weight_width]),
                column.load.eq(load & (position == n // self.weight_width)),
                column.swap.eq(swap),
                column.row.eq(row.o.payload.row),
                column.advance.eq(advance),
                column.acc.eq(self.i_acc.payload[n]),
                column.i_valid.eq(multiplied & self.i_acc.valid),
                column.o.ready.eq(self.o.ready),
                self.o.payload[n].eq(column.o.payload),
            ]

        return m


class _Column(wiring.Component):
    """One column: its weights, a tile per subgroup and the accumulator.

    Parameters
    ----------
    metadata : bool

    Members
    -------
    weight : In(Record or PlainRecord)
        Goes into the shadow register with ``load``.
    load, swap : In(1)
        ``swap`` makes the shadow's record the present one.
    row : In(_Row or _PlainRow)
        The activation group.
    advance : In(1)
        Moves the tiles' registers.
    acc : In(32)
        Meets the group that is in the tiles' registers.
    i_valid : In(1)
    i_ready : Out(1)
        The group and its accumulator go on with both set.
    o : Out(stream.Signature(32))
    """

    def __init__(self, *, metadata):
        self.has_metadata = metadata
        super().__init__({
            "weight": In(Record if metadata else PlainRecord),
            "load": In(1),
            "swap": In(1),
            "row": In(_Row if metadata else _PlainRow),
            "advance": In(1),
            "acc": In(32),
            "i_valid": In(1),
            "i_ready": Out(1),
            "o": Out(stream.Signature(32)),
        })

    def elaborate(self, platform):
        m = Module()

        shadow = Signal.like(self.weight, reset_less=True)
        stationary = Signal.like(self.weight, reset_less=True)
        with m.If(self.load):
            m.d.sync += shadow.eq(self.weight)
        with m.If(self.swap):
            m.d.sync += stationary.eq(shadow)

        # The plain tiles' sum goes through the tiles' registers in one, see below.
        tiles = [PETile(depth=int(self.has_metadata), metadata=self.has_metadata)
                 for _ in range(SUBGROUPS)]
        activation_scale = Signal(8, reset_less=True)
        weight_scale = Signal(8, reset_less=True)
        with m.If(self.advance):
            m.d.sync += [activation_scale.eq(self.row.scale), weight_scale.eq(stationary.scale)]
        for j, tile in enumerate(tiles):
            m.submodules[f"tile{j}"] = tile
            m.d.comb += [
                tile.activations.eq(self.row.codes[j]),
                tile.weights.eq(Cat(stationary.elements[SUBGROUP * j + i]
                                    for i in range(SUBGROUP))),
            ]
            if self.has_metadata:
                m.d.comb += [
                    tile.lane.eq(self.row.lanes[j]),
                    tile.refinement.eq(self.row.refinements[j]),
                    tile.meta.eq(stationary.metadata[j]),
                    tile.enable.eq(self.advance),
                ]

        m.submodules.accumulator = accumulator = GroupAccumulator(metadata=self.has_metadata)
        if self.has_metadata:
            # At most 131712 < 2**18 in magnitude: 19 bits with sign.
            total = sum(tile.sum for tile in tiles)
            m.submodules.summed = summed = StreamRegister(GroupSum)
            wiring.connect(m, summed.o, accumulator.i)
            group = summed.i
        else:
            # At most 4608 < 2**13 in magnitude: 14 bits with sign. Products and their sum fit one
            # stage, so that four tiles' registers and a stage are saved.
            total = Signal(signed(14), reset_less=True)
            with m.If(self.advance):
                m.d.sync += total.eq(sum(tile.sum for tile in tiles))
            group = accumulator.i
        m.d.comb += [
            group.valid.eq(self.i_valid),
            self.i_ready.eq(group.ready),
            group.payload.sum.eq(total),
            group.payload.activation_scale.eq(activation_scale),
            group.payload.weight_scale.eq(weight_scale),
            group.payload.acc.eq(self.acc),
        ]
        wiring.connect(m, accumulator.o, wiring.flipped(self.o))

        return m
