# SPDX-License-Identifier: BSD-2-Clause
"""Proofs about the encoder of weights (specification section 4.2).

The encoder works on a group for many cycles. This is about one of its stages by itself: the codes
of a subgroup under a factor.
"""

from types import SimpleNamespace

from amaranth import *

from ..lib.formats import values_layout
from ..units.weight_encoder import WeightEncoder, _Place, _Token
from .faults import Fault
from .harness import Harness
from .proof import Proof

_POINTS = tuple(zip((1, 3, 5, 7, 10, 14, 20), (0, 1, 0, 1, 0, 1, 0), strict=True))
"""Decision points in quarters, and whether a tie rises: section 1.2."""


def _codes():
    harness = Harness()
    m = harness.m
    unit = SimpleNamespace(i=SimpleNamespace(payload=Signal(values_layout("float32"))))
    token = Signal(_Token)
    values = [harness.input(f"value{lane}", 24) for lane in range(8)]
    places = [Signal(_Place, name=f"place{lane}") for lane in range(8)]
    factor = harness.input("factor", 2)
    m.d.comb += [token.factor.eq(factor), token.subgroup.eq(1)]
    for lane, value in enumerate(values):
        below, far = harness.input(f"below{lane}", 3), harness.input(f"far{lane}")
        m.d.comb += [
            unit.i.payload[lane].eq(Cat(value[:23], C(0, 8), C(0, 1))),
            Value.cast(places[lane]).eq(Cat(below, ~far, value[23])),
        ]
        # In units of the scale the magnitude is value * 2**(-20 - below); a decision point is
        # point * (4 + factor) sixteenths.
        sixteenths = Signal(31, name=f"sixteenths{lane}")
        m.d.comb += sixteenths.eq(value << (7 - below)[:3])
        past = []
        for point, rises in _POINTS:
            limit = (point * (4 + factor)) << 23
            past.append(sixteenths >= limit if rises else sixteenths > limit)
        code = Signal(3, name=f"code{lane}_expected")
        m.d.comb += code.eq(Mux(far, 0, sum(past)))
        harness.witness(f"code{lane}", code == 5)
        values[lane] = code
    _, *_, codes = WeightEncoder._round(unit, m, token, places)
    for lane, (made, code) in enumerate(zip(codes, values, strict=True)):
        harness.claim(f"code{lane}", made == code)
    return harness


PROOFS = [
    Proof(name="weight_encoder.codes", build=_codes, fault=Fault(
              "hw.units.weight_encoder", "high | (middle & low), high,", "high | middle, high,"),
          claim="A subgroup's codes are the E2M1 rounding of its magnitudes under the factor, at "
                "every place below the scale"),
]
