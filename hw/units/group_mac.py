# SPDX-License-Identifier: BSD-2-Clause
"""Dot product and accumulation of one group: one column, for streams of records."""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..lib.float_adder import GroupSum
from ..lib.formats import SUBGROUP, SUBGROUPS, Record
from ..lib.stream import link
from ..lib.stream_register import StreamRegister
from .group_accumulator import GroupAccumulator
from .pe_tile import PETile
from .top1_decode import Top1Decode

GroupOperands = data.StructLayout({"activation": Record, "weight": Record, "acc": 32})
"""Two group records and the float32 that their dot product is added to."""

_Rest = data.StructLayout({"activation_scale": 8, "weight_scale": 8, "acc": 32})


class GroupMac(wiring.Component):
    """Multiplies two group records and adds their dot product to a float32.

    It does what one column of `MacArray` does, with all operands of a group on one stream. The dot
    product is exact inside the group and rounded once, on accumulation; corner cases are those of
    `GroupAccumulator`. Latency 5; one group per cycle. Specification section 7.

    Members
    -------
    i : In(stream.Signature(GroupOperands))
        Both records and the float32 bits.
    o : Out(stream.Signature(32))
        Float32 bits.
    """

    i: In(stream.Signature(GroupOperands))
    o: Out(stream.Signature(32))

    latency = 2 + GroupAccumulator.latency

    def elaborate(self, platform):
        m = Module()

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
