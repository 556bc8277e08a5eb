# SPDX-License-Identifier: BSD-2-Clause
from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .formats import SUBGROUP, Codes
from .top1 import select_top1

Refinement = data.StructLayout({"shift": 2, "negative": 1, "zero": 1})
"""What the top-1's metadata adds to its element: plus or minus 2**shift eighths, or nothing.

``negative`` includes the element's own sign; it and ``shift`` are 0 where ``zero`` is set.
"""


class Top1Decode(wiring.Component):
    """Finds the top-1 of an activation subgroup and what its metadata add to it.

    All tiles that share the activations share one of these. Exact: the refinement of an E2M1
    element to E2M3 is 0 or plus or minus a power of two. Combinational. Specification section 7.

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
    """

    codes: In(Codes)
    meta: In(2)
    lane: Out(SUBGROUP)
    refinement: Out(Refinement)

    latency = 0

    def elaborate(self, platform):
        m = Module()

        lane, code = select_top1(m, [self.codes[i] for i in range(SUBGROUP)])
        sign = Signal()
        m.d.comb += [
            self.lane.eq(lane),
            sign.eq((lane & Cat(self.codes[i][3] for i in range(SUBGROUP))).any()),
        ]
        meta = self.meta

        # Rows: shift by code. Metadata 2 and 3 add one or two quanta of E2M3, which double with
        # every binade; metadata 0 takes one away, a quantum of the next lower code's binade.
        up = Signal(2)
        down = Signal(2)
        with m.Switch(code):
            for value, (lower, upper) in enumerate([
                (0, 0),  # 0
                (0, 0),  # 0.5
                (0, 0),  # 1
                (0, 0),  # 1.5
                (0, 1),  # 2
                (1, 1),  # 3
                (1, 2),  # 4
                (2, 2),  # 6
            ]):
                with m.Case(value):
                    m.d.comb += [down.eq(lower), up.eq(upper)]

        # Metadata 1 stands for the plain element, and so does 0 where there is nothing below.
        refinement = self.refinement
        m.d.comb += refinement.zero.eq((meta == 1) | ((meta == 0) & (code == 0)))
        with m.If(meta[1]):
            # At most 2 + 1: two bits hold it.
            m.d.comb += [refinement.shift.eq(up + meta[0]), refinement.negative.eq(sign)]
        with m.Elif(~refinement.zero):
            m.d.comb += [refinement.shift.eq(down), refinement.negative.eq(~sign)]

        return m
