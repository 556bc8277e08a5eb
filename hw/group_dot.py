# SPDX-License-Identifier: BSD-2-Clause
from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import add, compress
from .formats import SUBGROUP, SUBGROUPS, Codes, PlainRecord, Record
from .pipeline import hold
from .subgroup_dot import SubgroupDot, scale_rows
from .top1_decode import Refinement

Row = data.StructLayout({
    "codes": data.ArrayLayout(Codes, SUBGROUPS),
    "lanes": data.ArrayLayout(SUBGROUP, SUBGROUPS),
    "refinements": data.ArrayLayout(Refinement, SUBGROUPS),
    "scale": 8,
})
"""An activation group with its top-1s decoded."""

PlainRow = data.StructLayout({"codes": data.ArrayLayout(Codes, SUBGROUPS), "scale": 8})
"""The same without metadata."""


class GroupDot(wiring.Component):
    """Dot product of an activation and a weight group without their scales: an exact integer.

    Latency 1, one group per cycle in which ``enable`` is set. With metadata, two numbers that add
    up to the sum are held: the stage behind has the time to do so. Specification section 7.

    Parameters
    ----------
    metadata : bool

    Members
    -------
    row : In(Row or PlainRow)
    weight : In(Record or PlainRecord)
    enable : In(1)
    sum : Out(signed(19))
        Units of 1/64, at most 131712 in magnitude; without metadata ``Out(signed(14))``, units of
        1/4, at most 4608.
    """

    latency = 1

    def __init__(self, *, metadata=True):
        self.has_metadata = metadata
        super().__init__({
            "row": In(Row if metadata else PlainRow),
            "weight": In(Record if metadata else PlainRecord),
            "enable": In(1),
            "sum": Out(signed(19) if metadata else signed(14)),
        })

    def elaborate(self, platform):
        m = Module()

        tiles = [SubgroupDot(metadata=self.has_metadata) for _ in range(SUBGROUPS)]
        for j, tile in enumerate(tiles):
            m.submodules[f"tile{j}"] = tile
            m.d.comb += [
                tile.activations.eq(self.row.codes[j]),
                tile.weights.eq(Cat(self.weight.elements[SUBGROUP * j + i]
                                    for i in range(SUBGROUP))),
            ]
            if self.has_metadata:
                m.d.comb += [
                    tile.lane.eq(self.row.lanes[j]),
                    tile.refinement.eq(self.row.refinements[j]),
                ]
        if not self.has_metadata:
            total = Signal(signed(14))
            m.d.comb += [
                total.eq(sum(tile.dot for tile in tiles)),
                self.sum.eq(hold(m, total, self.enable, "held_sum")),
            ]
            return m

        # Signs counted the other way round make each base 2**16 larger and each addend 2**14:
        # 5 * 2**16 in all, which 2**17 + 2**16 completes to 2**19. Both are free in an addend.
        bases, addends = [], []
        for j, tile in enumerate(tiles):
            base = Signal(signed(17), name=f"base{j}")
            addend = Signal(signed(15), name=f"addend{j}")
            rows = scale_rows(tile.dot, self.weight.metadata[j])
            m.d.comb += [base.eq(rows[0]), addend.eq(rows[1])]
            bases.append(Cat(base[:16], ~base[16]))
            addends.append(Cat(addend[:14], ~addend[14]))
        addends[0] = Cat(addends[0], C(0, 1), C(3, 2))
        low, high = compress(m, addends + bases, width=19, name="sum")
        low = hold(m, low, self.enable, "held_low")
        # A carry never goes to the lowest place.
        high = hold(m, high[1:], self.enable, "held_high") << 1
        m.d.comb += self.sum.eq(add(m, low, high, name="total"))

        return m
