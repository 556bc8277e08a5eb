# SPDX-License-Identifier: BSD-2-Clause
"""Decoding of an activation subgroup's top-1, for the tiles that multiply it."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..lib.arithmetic import largest
from ..lib.dot_product import Refinement
from ..lib.formats import SUBGROUP, Codes
from ..lib.pipeline import Stages
from ..lib.top1_select import lowest, select_top1


class Top1Decode(wiring.Component):
    """Finds the top-1 of an activation subgroup and what its metadata add to it.

    All tiles that share the activations share one of these. Exact: the refinement of an E2M1
    element to E2M3 is 0 or plus or minus a power of two, up to 8 eighths, so that its exponent has
    two bits. Combinational; with a ``cut`` of latency 1. Specification sections 7.3 and 8.4.

    Parameters
    ----------
    cut : bool
        Whether there is a register behind the largest magnitude, before what its metadata add, for
        an FPGA.

    Members
    -------
    codes : In(Codes)
        FP4 codes of the subgroup.
    meta : In(2)
        Its metadata bits.
    lane : Out(8)
        Lane of the top-1, one-hot; ties go to the lowest.
    refinement : Out(Refinement)
        Added to the top-1's value, in units of 1/8.
    enable : In(1)
        Moves the register. With a ``cut`` only.
    """

    def __init__(self, *, cut=False):
        self._cut = cut
        self.latency = int(cut)
        super().__init__({
            "codes": In(Codes),
            "meta": In(2),
            "lane": Out(SUBGROUP),
            "refinement": Out(Refinement),
            **({"enable": In(1)} if cut else {}),
        })

    def elaborate(self, platform):
        m = Module()

        codes = [self.codes[i] for i in range(SUBGROUP)]
        signs, meta = Cat(self.codes[i][3] for i in range(SUBGROUP)), self.meta
        if self._cut:
            is_largest, code = largest(m, [code[:3] for code in codes], name="magnitude")
            held = Stages(m, [self.enable]).cut("selected", is_largest=is_largest, code=code,
                                                signs=signs, meta=meta)
            code, signs, meta = held.code, held.signs, held.meta
            lane = Signal(SUBGROUP, name="selected_lane")
            m.d.comb += lane.eq(lowest(held.is_largest))
        else:
            lane, code = select_top1(m, codes)
        sign = Signal()
        m.d.comb += [
            self.lane.eq(lane),
            sign.eq((lane & signs).any()),
        ]

        # Metadata 2 and 3 add one or two quanta of E2M3, which double with every binade. Metadata 0
        # takes one away, a quantum of the next lower code's binade. Metadata 1 stands for the plain
        # element; so does 0 of element 0, as nothing is below it. Shifts by metadata and element:
        #        0   0.5  1   1.5  2   3   4   6
        # 0      -   0    0   0    0   1   1   2
        # 2      0   0    0   0    1   1   2   2
        # 3      1   1    1   1    2   2   3   3
        low, middle, high = code
        down = Cat(high & (middle ^ low), high & middle & low)
        one = Cat(high & ~middle, high & middle)
        two = Cat(~high | middle, high)
        zero = Signal()
        m.d.comb += [
            zero.eq(~meta[1] & (meta[0] | ~code.any())),
            self.refinement.zero.eq(zero),
            self.refinement.shift.eq(
                Mux(meta[1], Mux(meta[0], two, one), down & ~meta[0].replicate(2))),
            self.refinement.negative.eq((sign ^ ~meta[1]) & ~zero),
        ]

        return m
