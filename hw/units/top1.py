# SPDX-License-Identifier: BSD-2-Clause
"""Top-1 of a subgroup: the element whose magnitude the metadata refine."""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..lib.formats import SUBGROUP
from ..lib.top1_select import select_top1


class Top1(wiring.Component):
    """Selects the largest-magnitude FP4 (E2M1) code of a subgroup.

    The sign is ignored; ties go to the lowest lane. Combinational. Specification sections 3.4 and
    8.3.

    Parameters
    ----------
    lanes : int, power of two, at least 2
        Codes per subgroup.

    Members
    -------
    codes : In(data.ArrayLayout(4, lanes))
        Codes, lane 0 in the least significant bits.
    lane : Out(range(lanes))
        Lane of the selected code.

    Raises
    ------
    TypeError
        If ``lanes`` is not an integer.
    ValueError
        If ``lanes`` is not a power of two of at least 2.
    """

    latency = 0

    def __init__(self, *, lanes=SUBGROUP):
        if not isinstance(lanes, int):
            raise TypeError(f"Lane count must be an integer, not {lanes!r}")
        if lanes < 2 or lanes.bit_count() != 1:
            raise ValueError(f"Lane count must be a power of two of at least 2, not {lanes!r}")
        self.lanes = lanes
        super().__init__({
            "codes": In(data.ArrayLayout(4, lanes)),
            "lane": Out(range(lanes)),
        })

    def elaborate(self, platform):
        m = Module()

        lane, _ = select_top1(m, [self.codes[i] for i in range(self.lanes)])
        m.d.comb += self.lane.eq(Cat(
            Cat(lane[i] for i in range(self.lanes) if i >> bit & 1).any()
            for bit in range(len(self.lane))))

        return m
