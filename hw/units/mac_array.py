# SPDX-License-Identifier: BSD-2-Clause
"""The weight-stationary array of columns."""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..lib.float_adder import Normalizer, TermAdder, of_codes, scale_sum, wide_scale_sum
from ..lib.formats import (
    SUBGROUP,
    SUBGROUPS,
    PlainRecord,
    Record,
    WideRecord,
    check_encoding,
    check_metadata,
    check_plain,
    decode_e2m1,
    has_specials,
    is_wide,
    record_of,
    special_scale,
)
from ..lib.pipeline import Control, Stages, check_depth
from ..lib.shadow_tile import check_columns, shadow_tile, stationary_weights
from ..lib.stream import gate, join, link
from ..lib.stream_register import StreamRegister
from .group_dot import GroupDot, PlainRow, Row
from .sg_group_dot import SgGroupDot, decode_row, factor_row
from .top1_decode import Top1Decode
from .wide_group_dot import WideGroupDot

Activation = data.StructLayout({"record": Record, "last": 1})
"""A group record of activations, and whether it is the last that meets the present weights."""

LATENCIES = {5: (5, 3), 13: (13, 7), 17: (17, 10)}
"""For each depth, the latency to the results, and to the accumulators that are taken.

With metadata; without, all but the first depth have one register less.
"""

ENTRIES = {5: 1, 13: 1, 17: 2}
"""For each depth, the registers of an activation before it meets the weights."""

PlainActivation = data.StructLayout({"record": PlainRecord, "last": 1})
"""The same without metadata."""

WideActivation = data.StructLayout({"record": WideRecord, "last": 1})
"""The same in Sg-special64, of 64 elements."""


class MacArray(wiring.Component):
    """Multiplies activation groups by a stationary tile of weights, one group per cycle.

    A tile is one weight record per column, ``weight_width`` records per transfer. It stays until
    the activation marked ``last``. Meanwhile the next tile is loaded; if it is complete by then,
    it takes over in the same cycle and no cycle is lost. Each column adds its dot product to an
    accumulator that comes in on ``i_acc`` and leaves on ``o``, in the order of the activations.
    Dot products are exact inside the group and rounded once, on accumulation; corner cases are
    those of `GroupAccumulator`.

    The latency from ``i_activation`` to ``o`` is ``depth``, one less for a depth of 13 or 17
    without metadata. ``i_acc`` is taken 3 cycles after its activation; at a depth of 13 it is 7
    cycles, at 17 it is 10, without metadata one less. Specification sections 7 and 8.

    Parameters
    ----------
    columns : int, at least 1
        Columns, N.
    weight_width : int
        Weight records per transfer, W; divides ``columns``.
    metadata : bool
        Whether records have metadata. Otherwise the array multiplies plain MXFP4, to compare
        with: payloads are ``PlainRecord`` and ``PlainActivation``, and nothing is refined.
    depth : int
        Pipeline registers: 5 for 500 MHz in a 45 nm library, 13 for 1 GHz, 17 for an ECP5 FPGA.
        Without metadata the latter two need, and have, one less.
    encoding : str
        That of the activations: "elem-em", "sg-em", "sg-special" or "sg-special64". Weights have
        factors in all of them, and special values with the latter two. With "sg-special64" a group
        has 64 elements, of which a column multiplies all in a cycle: payloads are ``WideRecord``
        and ``WideActivation``.

    Members
    -------
    i_weight : In(stream.Signature(data.ArrayLayout(Record, W)))
        Weight records, column 0 first; the first of the next tile may follow at once.
    i_activation : In(stream.Signature(Activation))
        An activation record, which all columns multiply, and ``last``, which ends the use of the
        tile.
    i_acc : In(stream.Signature(data.ArrayLayout(32, columns)))
        Float32 bits, column 0 in the least significant ones.
    o : Out(stream.Signature(data.ArrayLayout(32, columns)))
        Float32 bits.

    Raises
    ------
    TypeError
        If ``metadata`` is not a bool.
    ValueError
        If ``columns`` is not a positive integer, ``weight_width`` does not divide it, ``depth`` is
        not 5, 13 or 17, there is no such encoding, or there is no metadata and ``encoding`` is not
        "elem-em".
    """

    # From an activation to its results, and to the accumulators that it takes: the defaults.
    latency = 5
    acc_latency = 3

    def __init__(self, *, columns=32, weight_width=1, metadata=True, depth=5, encoding="elem-em"):
        check_columns(columns, weight_width)
        check_metadata(metadata)
        check_depth(depth, tuple(LATENCIES))
        check_encoding(encoding)
        check_plain(metadata, encoding)
        if depth != MacArray.latency:
            plain = not metadata
            self.latency, self.acc_latency = (count - plain for count in LATENCIES[depth])
        self._depth = depth
        self.columns = columns
        self.weight_width = weight_width
        self.has_metadata = metadata
        self.encoding = encoding
        record = record_of(encoding) if metadata else PlainRecord
        activation = (WideActivation if is_wide(encoding) else
                      Activation if metadata else PlainActivation)
        accs = data.ArrayLayout(32, columns)
        super().__init__({
            "i_weight": In(stream.Signature(data.ArrayLayout(record, weight_width))),
            "i_activation": In(stream.Signature(activation)),
            "i_acc": In(stream.Signature(accs)),
            "o": Out(stream.Signature(accs)),
        })

    def elaborate(self, platform):
        m = Module()

        # Activations: codes and top-1s are decoded once for all columns.
        factored, special = self.encoding != "elem-em", has_specials(self.encoding)
        layout = (factor_row(special, is_wide(self.encoding)) if factored else
                  Row if self.has_metadata else PlainRow)
        m.submodules.row = row = StreamRegister(data.StructLayout({"row": layout, "last": 1}))
        record = self.i_activation.payload.record
        given, finest = self.i_activation, self._depth == 17
        if finest:
            m.submodules.selected = selected = StreamRegister(self.i_activation.payload.shape())
            link(m, self.i_activation, selected.i)
            m.d.comb += selected.i.payload.eq(self.i_activation.payload)
            given = selected.o
        staged = row.i.payload
        link(m, given, row.i)
        m.d.comb += [
            staged.last.eq(given.payload.last),
            staged.row.scale.eq(special_scale(given.payload.record.scale) if special else
                                given.payload.record.scale),
        ]
        if factored:
            decode_row(m, staged.row, given.payload.record)
        for j in () if factored else range(SUBGROUPS):
            lanes = range(SUBGROUP * j, SUBGROUP * (j + 1))
            codes = [given.payload.record.elements[n] for n in lanes]
            m.d.comb += [operand.eq(decode_e2m1(code)) for operand, code in
                         zip(staged.row.operands[j], codes, strict=True)]
            if not self.has_metadata:
                continue
            m.submodules[f"top1_decode{j}"] = top1 = Top1Decode(cut=finest)
            if finest:
                m.d.comb += top1.enable.eq(selected.i.ready)
            m.d.comb += [
                top1.codes.eq(Cat(record.elements[n] for n in lanes)),
                top1.meta.eq(record.metadata[j]),
                staged.row.lanes[j].eq(top1.lane),
                staged.row.refinements[j].eq(top1.refinement),
            ]

        tile = shadow_tile(m, self.i_weight, self.columns // self.weight_width)

        # All columns move alike. One pipeline makes each group's sum a float; the other one, where
        # accumulators join, adds and rounds.
        ahead = ENTRIES[self._depth]
        m.submodules.multiply = multiply = Control(self.acc_latency - ahead, rigid=finest)
        m.submodules.add = add = Control(self.latency - self.acc_latency, rigid=finest)
        gate(m, row.o, multiply.i, tile.present)
        join(m, [multiply.o, self.i_acc], add.i)
        link(m, add.o, self.o)
        m.d.comb += tile.consumed.eq(row.o.valid & row.o.ready & row.o.payload.last)
        for n in range(self.columns):
            m.submodules[f"column{n}"] = column = _Column(
                metadata=self.has_metadata, fine=self.latency > 5, finest=finest,
                encoding=self.encoding)
            m.d.comb += [
                column.weight.eq(self.i_weight.payload[n % self.weight_width]),
                column.load.eq(tile.load & (tile.position == n // self.weight_width)),
                column.swap.eq(tile.swap),
                column.row.eq(row.o.payload.row),
                column.enable.eq(Cat(multiply.enable, add.enable)),
                column.acc.eq(self.i_acc.payload[n]),
                self.o.payload[n].eq(column.o),
            ]

        return m


class _Column(wiring.Component):
    """Holds the weights of one column, and computes and accumulates its dot products.

    Parameters
    ----------
    metadata : bool
        Whether records have metadata.
    fine : bool
        Whether there are registers for 1 GHz.
    finest : bool
        Whether there are, besides, those for an FPGA.
    encoding : str
        That of the activations.

    Members
    -------
    weight : In(Record or PlainRecord)
        Goes into the shadow register with ``load``.
    load, swap : In(1)
        ``swap`` makes the shadow's record the present one.
    row : In(Row, PlainRow or factor_row(special))
        The activation group.
    enable : In(latency)
        Moves each stage.
    acc : In(32)
        Float32 bits. It is taken together with the group that enters the adder.
    o : Out(32)
        Float32 bits.
    """

    def __init__(self, *, metadata, fine, finest=False, encoding="elem-em"):
        self.has_special = special = has_specials(encoding)
        cuts = {"fine": fine, "finest": finest}
        self.is_wide = wide = is_wide(encoding)
        self.dot = (GroupDot(metadata=metadata, **cuts) if encoding == "elem-em" else
                    WideGroupDot(**cuts) if wide else SgGroupDot(special=special, **cuts))
        self.is_paired = wide and not fine
        self.normalize = Normalizer(metadata=metadata, special=special, wide=wide,
                                    paired=self.is_paired, **cuts)
        self.add = TermAdder(self.normalize.o.shape(), **cuts)
        self.latency = self.dot.latency + self.normalize.latency + self.add.latency
        super().__init__({
            "weight": In(record_of(encoding) if metadata else PlainRecord),
            "load": In(1),
            "swap": In(1),
            "row": In(self.dot.row.shape()),
            "enable": In(self.latency),
            "acc": In(32),
            "o": Out(32),
        })

    def elaborate(self, platform):
        m = Module()

        moves = {"load": self.load, "swap": self.swap}
        if self.is_wide:
            stationary, five = stationary_weights(m, self.weight, **moves,
                                                  beside=lambda record: ~record.scale[1])
            m.d.comb += self.dot.five.eq(five)
        else:
            stationary = stationary_weights(m, self.weight, **moves)

        m.submodules.dot = dot = self.dot
        m.submodules.normalize = normalize = self.normalize
        m.submodules.add = add = self.add
        enables = iter(self.enable)
        for part in (dot, normalize, add):
            m.d.comb += part.enable.eq(Cat(next(enables) for _ in range(part.latency)))

        # The scales wait until the group's sum is there.
        if self.is_wide:
            scale = wide_scale_sum(self.row.scale, stationary.scale)
        else:
            scale = scale_sum(self.row.scale, special_scale(stationary.scale)
                              if self.has_special else stationary.scale)
        scale = Stages(m, self.enable).delay("scale", scale, dot.latency)
        m.d.comb += [
            dot.row.eq(self.row),
            dot.weight.eq(stationary),
            normalize.sum.eq(dot.sum),
            normalize.scale.eq(of_codes(scale) if self.is_wide else scale),
            add.term.eq(normalize.o),
            add.acc.eq(self.acc),
            self.o.eq(add.o),
        ]
        if self.is_paired:
            m.d.comb += normalize.less.eq(dot.less)

        return m
