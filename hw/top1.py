# SPDX-License-Identifier: BSD-2-Clause
from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .formats import SUBGROUP


def knockout(codes):
    """Lane and code of the largest-magnitude FP4 code; ties go to the lowest lane.

    Parameters
    ----------
    codes : list of Value, 4 bits each
        A power of two of them.

    Returns
    -------
    lane : Value
    code : Value
    """
    # E2M1 magnitudes order like the low three bits of their codes, so nothing is decoded.
    # Neighbours play a knockout; the right one must be strictly larger, so ties go left.
    lanes = range(len(codes))
    players = [(Const(lane, lanes), codes[lane]) for lane in lanes]
    while len(players) > 1:
        players = [
            [Mux(right[1][:3] > left[1][:3], b, a) for a, b in zip(left, right, strict=True)]
            for left, right in zip(players[::2], players[1::2], strict=True)
        ]
    return players[0]


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

        m.d.comb += self.lane.eq(knockout([self.codes[i] for i in range(self.lanes)])[0])

        return m
