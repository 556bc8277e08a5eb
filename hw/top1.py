# SPDX-License-Identifier: BSD-2-Clause
from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .formats import SUBGROUP


def select_top1(m, codes):
    """Finds the largest-magnitude FP4 code; ties go to the lowest lane.

    E2M1 magnitudes order like the low three bits of their codes, so nothing is decoded. From the
    top bit down, lanes that lack a bit which another lane still in play has drop out; whether any
    has it is that bit of the largest magnitude. That takes a third less area than a knockout of
    pairs, which carries codes from match to match.

    Parameters
    ----------
    m : Module
    codes : list of Value, 4 bits each

    Returns
    -------
    lane : Signal
        One-hot.
    magnitude : Signal
        Three bits.
    """
    lanes = len(codes)
    magnitude = Signal(3)
    largest = C(-1, lanes)
    for place in (2, 1, 0):
        bits = Signal(lanes, name=f"bits{place}")
        left = Signal(lanes, name=f"left{place}")
        m.d.comb += [
            bits.eq(Cat(code[place] for code in codes) & largest),
            magnitude[place].eq(bits.any()),
            left.eq(bits | (largest & ~magnitude[place].replicate(lanes))),
        ]
        largest = left
    lane = Signal(lanes, name="top1_lane")
    m.d.comb += lane.eq(Cat(largest[i] & ~largest[:i].any() for i in range(lanes)))
    return lane, magnitude


class Top1(wiring.Component):
    """Selects the largest-magnitude FP4 (E2M1) code of a subgroup.

    The sign is ignored; ties go to the lowest lane. Combinational. Specification section 3.

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
