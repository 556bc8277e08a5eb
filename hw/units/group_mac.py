# SPDX-License-Identifier: BSD-2-Clause
"""Dot product and accumulation of one group: one column, for streams of records."""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..lib.float_adder import SUMS, Normalizer, TermAdder, scale_sum
from ..lib.formats import (
    SUBGROUP,
    SUBGROUPS,
    Record,
    WideRecord,
    check_encoding,
    decode_e2m1,
    has_specials,
    is_wide,
    record_of,
    special_scale,
)
from ..lib.pipeline import Control, Stages, check_depth
from ..lib.stream import link
from ..lib.stream_register import StreamRegister
from .group_accumulator import GroupAccumulator
from .group_dot import GroupDot, Row
from .pe_tile import PETile
from .sg_group_dot import SgGroupDot, decode_row, factor_row
from .sg_pe_tile import SgPETile
from .top1_decode import Top1Decode
from .wide_group_dot import WideGroupDot

GroupOperands = data.StructLayout({"activation": Record, "weight": Record, "acc": 32})
"""Two group records and the float32 that their dot product is added to."""

WideOperands = data.StructLayout({"activation": WideRecord, "weight": WideRecord, "acc": 32})
"""The same in Sg-special64."""

_Rest = data.StructLayout({"activation_scale": 8, "weight_scale": 8, "acc": 32})


class GroupMac(wiring.Component):
    """Multiplies two group records and adds their dot product to a float32.

    It does what one column of `MacArray` does, with all operands of a group on one stream. The dot
    product is exact inside the group and rounded once, on accumulation; corner cases are those of
    `GroupAccumulator`. Latency ``depth``; one group per cycle. Specification section 7.

    Parameters
    ----------
    depth : int
        Pipeline registers, as in `MacArray`: 5 for 500 MHz in a 45 nm library, 13 for 1 GHz, 17 for
        100 MHz on an ECP5 FPGA.
    encoding : str
        As in `MacArray`.

    Members
    -------
    i : In(stream.Signature(GroupOperands))
        Both records and the float32 bits. In Sg-special64 its payload is a ``WideOperands``.
    o : Out(stream.Signature(32))
        Float32 bits.

    Raises
    ------
    ValueError
        If ``depth`` is not 5, 13 or 17, or there is no such encoding.
    """

    def __init__(self, *, depth=5, encoding="elem-em"):
        check_depth(depth, (5, 13, 17))
        check_encoding(encoding)
        self.encoding = encoding
        self.has_special = has_specials(encoding)
        self.latency = depth
        self._operands = WideOperands if is_wide(encoding) else GroupOperands
        super().__init__({
            "i": In(stream.Signature(self._operands)),
            "o": Out(stream.Signature(32)),
        })

    def elaborate(self, platform):
        m = Module()

        if self.latency > 5:
            self._fine(m, finest=self.latency == 17)
            return m
        # The tiles hold their dot products while a register beside them holds scales and float32:
        # its ``i.ready`` moves both.
        m.submodules.rest = rest = StreamRegister(_Rest)
        m.submodules.summed = summed = StreamRegister(
            SUMS[self.encoding])
        m.submodules.accumulator = accumulator = GroupAccumulator(encoding=self.encoding)
        activation, weight = self.i.payload.activation, self.i.payload.weight
        link(m, self.i, rest.i)
        m.d.comb += [
            rest.i.payload.activation_scale.eq(self._scale(activation)),
            rest.i.payload.weight_scale.eq(self._scale(weight)),
            rest.i.payload.acc.eq(self.i.payload.acc),
        ]

        tiles = []
        for j in range(len(weight.metadata)):
            lanes = range(SUBGROUP * j, SUBGROUP * (j + 1))
            if self.encoding == "elem-em":
                m.submodules[f"top1_decode{j}"] = top1 = Top1Decode()
                m.submodules[f"tile{j}"] = tile = PETile(depth=1)
                m.d.comb += [
                    top1.codes.eq(Cat(activation.elements[i] for i in lanes)),
                    top1.meta.eq(activation.metadata[j]),
                    tile.activations.eq(top1.codes),
                    tile.lane.eq(top1.lane),
                    tile.refinement.eq(top1.refinement),
                ]
            else:
                m.submodules[f"tile{j}"] = tile = SgPETile(
                    depth=1, special=self.has_special, exponent=is_wide(self.encoding))
                m.d.comb += [
                    tile.activations.eq(Cat(activation.elements[i] for i in lanes)),
                    tile.activation_meta.eq(activation.metadata[j]),
                ]
                if self.has_special:
                    m.d.comb += [
                        tile.activation_special.eq(activation.scale[:2]),
                        tile.weight_special.eq(weight.scale[:2]),
                    ]
            m.d.comb += [
                tile.weights.eq(Cat(weight.elements[i] for i in lanes)),
                tile.meta.eq(weight.metadata[j]),
                tile.enable.eq(rest.i.ready),
            ]
            tiles.append(tile)

        link(m, rest.o, summed.i)
        m.d.comb += [
            # Four sums of at most 32928, 56448 or 100352 in magnitude: 2**18 or, of Sg-special,
            # 2**19 are more. Two bits wider than a sum. In Sg-special64 eight of at most 401408,
            # and three bits wider: 2**22 is more.
            summed.i.payload.sum.eq(sum(tile.sum for tile in tiles)),
            summed.i.payload.activation_scale.eq(rest.o.payload.activation_scale),
            summed.i.payload.weight_scale.eq(rest.o.payload.weight_scale),
            summed.i.payload.acc.eq(rest.o.payload.acc),
        ]
        wiring.connect(m, summed.o, accumulator.i)
        wiring.connect(m, accumulator.o, wiring.flipped(self.o))

        return m

    def _scale(self, record):
        """E8M0 code of a record's scale."""
        return special_scale(record.scale) if self.has_special else record.scale

    def _fine(self, m, *, finest):
        """Connects the parts of a column of the array, with a register behind each step."""
        activation = self.i.payload.activation
        factored, special = self.encoding != "elem-em", self.has_special
        wide = is_wide(self.encoding)
        layout = factor_row(special, wide) if factored else Row
        m.submodules.decoded = decoded = StreamRegister(
            data.StructLayout({"row": layout, "weight": record_of(self.encoding), "acc": 32}))
        row, given = decoded.i.payload.row, self.i
        if finest:
            m.submodules.selected = selected = StreamRegister(self._operands)
            link(m, self.i, selected.i)
            m.d.comb += selected.i.payload.eq(self.i.payload)
            given = selected.o
        link(m, given, decoded.i)
        m.d.comb += [
            row.scale.eq(self._scale(given.payload.activation)),
            decoded.i.payload.weight.eq(given.payload.weight),
            decoded.i.payload.acc.eq(given.payload.acc),
        ]
        if factored:
            decode_row(m, row, given.payload.activation)
        for j in () if factored else range(SUBGROUPS):
            lanes = range(SUBGROUP * j, SUBGROUP * (j + 1))
            m.submodules[f"top1_decode{j}"] = top1 = Top1Decode(cut=finest)
            if finest:
                m.d.comb += top1.enable.eq(selected.i.ready)
            m.d.comb += [
                top1.codes.eq(Cat(activation.elements[n] for n in lanes)),
                top1.meta.eq(activation.metadata[j]),
                row.lanes[j].eq(top1.lane),
                row.refinements[j].eq(top1.refinement),
                *(operand.eq(decode_e2m1(given.payload.activation.elements[n]))
                  for operand, n in zip(row.operands[j], lanes, strict=True)),
            ]

        cuts = {"fine": True, "finest": finest}
        m.submodules.dot = dot = (WideGroupDot(**cuts) if wide else
                                  SgGroupDot(special=special, **cuts) if factored else
                                  GroupDot(metadata=True, **cuts))
        m.submodules.normalize = normalize = Normalizer(
            metadata=True, special=special, wide=wide, **cuts)
        m.submodules.add = add = TermAdder(normalize.o.shape(), **cuts)
        m.submodules.control = control = Control(
            dot.latency + normalize.latency + add.latency, rigid=finest)
        link(m, decoded.o, control.i)
        link(m, control.o, self.o)
        enables = iter(control.enable)
        for part in (dot, normalize, add):
            m.d.comb += part.enable.eq(Cat(next(enables) for _ in range(part.latency)))

        # The scales wait for the group's sum, the float32 until that is normalized.
        held = decoded.o.payload
        scale = scale_sum(held.row.scale, self._scale(held.weight))
        m.d.comb += [
            dot.row.eq(held.row),
            dot.weight.eq(held.weight),
            *([dot.five.eq(~held.weight.scale[1])] if wide else []),
            normalize.sum.eq(dot.sum),
            normalize.scale.eq(Stages(m, control.enable).delay("scale", scale, dot.latency)),
            add.term.eq(normalize.o),
            add.acc.eq(Stages(m, control.enable).delay(
                "acc", held.acc, dot.latency + normalize.latency)),
            self.o.payload.eq(add.o),
        ]
