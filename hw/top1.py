# SPDX-License-Identifier: BSD-2-Clause
from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .formats import SUBGROUP


def knockout(m, codes):
    """Lane and code of the largest-magnitude FP4 code; ties go to the lowest lane.

    Parameters
    ----------
    m : Module
    codes : list of Value, 4 bits each
        A power of two of them.

    Returns
    -------
    lane : Value
    code : Value
    """
    # E2M1 magnitudes order like the low three bits of their codes, so nothing is decoded.
    # Neighbours play a knockout; the right one must be strictly larger, so ties go left. Each
    # match won adds a bit to the lane.
    players = [(C(0, 0), code) for code in codes]
    match = 0
    while len(players) > 1:
        winners = []
        for (left_lane, left), (right_lane, right) in zip(players[::2], players[1::2], strict=True):
            right_wins = Signal(name=f"right_wins{match}")
            code = Signal(4, name=f"winner{match}")
            lane = Signal(len(left_lane) + 1, name=f"lane{match}")
            m.d.comb += [
                right_wins.eq(right[:3] > left[:3]),
                code.eq(Mux(right_wins, right, left)),
                lane.eq(Cat(Mux(right_wins, right_lane, left_lane), right_wins)),
            ]
            winners.append((lane, code))
            match += 1
        players = winners
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

        m.d.comb += self.lane.eq(knockout(m, [self.codes[i] for i in range(self.lanes)])[0])

        return m
