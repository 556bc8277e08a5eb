# SPDX-License-Identifier: BSD-2-Clause
"""Dot product and accumulation of one group: one column, for streams of records."""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..lib.float_adder import GroupSum, Normalizer, TermAdder, scale_sum
from ..lib.formats import SUBGROUP, SUBGROUPS, Record, decode_e2m1
from ..lib.pipeline import Control, Stages, check_depth
from ..lib.stream import link
from ..lib.stream_register import StreamRegister
from .group_accumulator import GroupAccumulator
from .group_dot import GroupDot, Row
from .pe_tile import PETile
from .top1_decode import Top1Decode

GroupOperands = data.StructLayout({"activation": Record, "weight": Record, "acc": 32})
"""Two group records and the float32 that their dot product is added to."""

_Decoded = data.StructLayout({"row": Row, "weight": Record, "acc": 32})

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

    Members
    -------
    i : In(stream.Signature(GroupOperands))
        Both records and the float32 bits.
    o : Out(stream.Signature(32))
        Float32 bits.

    Raises
    ------
    ValueError
        If ``depth`` is not 5, 13 or 17.
    """

    def __init__(self, *, depth=5):
        check_depth(depth, (5, 13, 17))
        self.latency = depth
        super().__init__({
            "i": In(stream.Signature(GroupOperands)),
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
        m.submodules.summed = summed = StreamRegister(GroupSum)
        m.submodules.accumulator = accumulator = GroupAccumulator()
        activation, weight = self.i.payload.activation, self.i.payload.weight
        link(m, self.i, rest.i)
        m.d.comb += [
            rest.i.payload.activation_scale.eq(activation.scale),
            rest.i.payload.weight_scale.eq(weight.scale),
            rest.i.payload.acc.eq(self.i.payload.acc),
        ]

        tiles = []
        for j in range(SUBGROUPS):
            m.submodules[f"top1_decode{j}"] = top1 = Top1Decode()
            m.submodules[f"tile{j}"] = tile = PETile(depth=1)
            lanes = range(SUBGROUP * j, SUBGROUP * (j + 1))
            m.d.comb += [
                top1.codes.eq(Cat(activation.elements[i] for i in lanes)),
                top1.meta.eq(activation.metadata[j]),
                tile.activations.eq(top1.codes),
                tile.lane.eq(top1.lane),
                tile.refinement.eq(top1.refinement),
                tile.weights.eq(Cat(weight.elements[i] for i in lanes)),
                tile.meta.eq(weight.metadata[j]),
                tile.enable.eq(rest.i.ready),
            ]
            tiles.append(tile)

        link(m, rest.o, summed.i)
        m.d.comb += [
            # Four sums of 17 bits: at most 4 * 32928 = 131712 < 2**18 in magnitude, 19 bits.
            summed.i.payload.sum.eq(sum(tile.sum for tile in tiles)),
            summed.i.payload.activation_scale.eq(rest.o.payload.activation_scale),
            summed.i.payload.weight_scale.eq(rest.o.payload.weight_scale),
            summed.i.payload.acc.eq(rest.o.payload.acc),
        ]
        wiring.connect(m, summed.o, accumulator.i)
        wiring.connect(m, accumulator.o, wiring.flipped(self.o))

        return m

    def _fine(self, m, *, finest):
        """Connects the parts of a column of the array, with a register behind each step."""
        activation = self.i.payload.activation
        m.submodules.decoded = decoded = StreamRegister(_Decoded)
        row, given = decoded.i.payload.row, self.i
        if finest:
            m.submodules.selected = selected = StreamRegister(GroupOperands)
            link(m, self.i, selected.i)
            m.d.comb += selected.i.payload.eq(self.i.payload)
            given = selected.o
        link(m, given, decoded.i)
        m.d.comb += [
            row.scale.eq(given.payload.activation.scale),
            decoded.i.payload.weight.eq(given.payload.weight),
            decoded.i.payload.acc.eq(given.payload.acc),
        ]
        for j in range(SUBGROUPS):
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

        m.submodules.dot = dot = GroupDot(metadata=True, fine=True, finest=finest)
        m.submodules.normalize = normalize = Normalizer(metadata=True, fine=True, finest=finest)
        m.submodules.add = add = TermAdder(metadata=True, fine=True, finest=finest)
        m.submodules.control = control = Control(
            dot.latency + normalize.latency + add.latency, rigid=finest)
        link(m, decoded.o, control.i)
        link(m, control.o, self.o)
        enables = iter(control.enable)
        for part in (dot, normalize, add):
            m.d.comb += part.enable.eq(Cat(next(enables) for _ in range(part.latency)))

        # The scales wait for the group's sum, the float32 until that is normalized.
        held = decoded.o.payload
        scale = scale_sum(held.row.scale, held.weight.scale)
        m.d.comb += [
            dot.row.eq(held.row),
            dot.weight.eq(held.weight),
            normalize.sum.eq(dot.sum),
            normalize.scale.eq(Stages(m, control.enable).delay("scale", scale, dot.latency)),
            add.term.eq(normalize.o),
            add.acc.eq(Stages(m, control.enable).delay(
                "acc", held.acc, dot.latency + normalize.latency)),
            self.o.payload.eq(add.o),
        ]
