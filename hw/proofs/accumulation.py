# SPDX-License-Identifier: BSD-2-Clause
"""Proofs about the addition of group sums in float32 (specification sections 7.6 to 7.8).

A sum is first made a float, the *term*; then the term is added. Each is proven alone, and that the
accumulator is the two behind each other.

The rounding is compared with that of an exact integer. Its lowest place is that of the operand
which reaches further down, so its width grows with the distance of the exponents; there is a case
for each distance up to 32 binades. Beyond that the smaller operand is less than a quarter of the
larger one's last place, also where that is a power of two: the sum rounds to the larger operand.
"""

from functools import partial

from amaranth import *

from ..lib.float_adder import Normalizer, TermAdder, term_layout
from ..units.group_accumulator import GroupAccumulator
from .faults import Fault
from .harness import Harness
from .proof import Proof

_NEAR = 32
"""Distances from -32 to 31 binades are the cases."""

_WIDTH = 58
"""Bits of the exact sum: 24 moved up by at most 25 places, 18 by at most 38."""


def _normalizer(*, metadata, fine=False, finest=False):
    harness = Harness()
    m = harness.m
    m.submodules.unit = unit = Normalizer(metadata=metadata, fine=fine, finest=finest)
    total = harness.input("sum", unit.sum.shape())
    exponent, nan = harness.input("exponent", 9), harness.input("nan")
    m.d.comb += [unit.sum.eq(total), unit.scale.exponent.eq(exponent), unit.scale.nan.eq(nan),
                 unit.enable.eq(-1)]
    # The lowest value is no group sum.
    harness.assume("sum", total != -1 << len(total) - 1)
    # The significand's top bit is worth 2**(exponent - 127), and the sum's unit
    # 2**(Xw + Xx - 260), without metadata 2**(Xw + Xx - 256).
    top = len(total) - 2
    zeros = (exponent - (260 if metadata else 256) + 127 + top) - unit.o.exponent
    moved = (zeros >= 0) & (zeros <= top) & (
        unit.o.significand == abs(total) << zeros[:5]) & unit.o.significand[-1]
    harness.claim("value", Mux(total == 0, unit.o.significand == 0, moved))
    harness.claim("sign", unit.o.negative == (total < 0))
    harness.claim("nan", unit.o.nan == nan)
    harness.witness("one", (total == -1) & moved)
    harness.witness("most", (total == (1 << top + 1) - 1) & moved)
    return harness


def _adder(part, *, metadata=True, fine=False, finest=False):
    harness = Harness()
    m = harness.m
    m.submodules.unit = unit = TermAdder(term_layout(metadata), fine=fine,
                                               finest=finest)
    acc, negative, nan = harness.input("acc", 32), harness.input("negative"), C(0, 1)
    bits = len(unit.term.significand)
    # A term is zero or has its leading one in the top bit.
    nonzero, below = harness.input("nonzero"), harness.input("below", bits - 1)
    significand = Cat(below & nonzero.replicate(bits - 1), nonzero)
    field, mantissa, sign = acc[23:31], acc[:23], acc[31]
    lowest = Signal(8, name="acc_exponent")
    m.d.comb += lowest.eq(Mux(field == 0, 1, field))
    if part == "near":
        distance = harness.case("distance", 6) - _NEAR
        exponent = lowest - distance
    else:
        exponent = harness.input("exponent", signed(10))
        harness.assume("exponent", (exponent >= -133) & (exponent <= 394))
        distance = lowest - exponent
    if part == "special":
        nan = harness.input("nan")
    m.d.comb += [unit.term.significand.eq(significand), unit.term.negative.eq(negative & nonzero),
                 unit.term.exponent.eq(exponent), unit.term.nan.eq(nan), unit.acc.eq(acc),
                 unit.enable.eq(-1)]
    if part == "special":
        special = field == 255
        acc_nan = special & (mantissa != 0)
        harness.claim("nan", ~(nan | acc_nan) | (unit.o == 0x7FC00000))
        harness.claim("infinity", nan | acc_nan | ~special | (unit.o == acc))
        harness.witness("nan", nan & (unit.o == 0x7FC00000))
        harness.witness("infinity", unit.o == 0xFF800000)
        return harness
    harness.assume("finite", field != 255)
    if part == "far":
        harness.assume("far", (distance < -_NEAR) | (distance >= _NEAR) | ~nonzero)
        zero = (field == 0) & (mantissa == 0)
        term = Cat(Mux(exponent >= 255, 0, significand[:-1] << 24 - bits)[:23],
                   Mux(exponent >= 255, 255, exponent)[:8], negative)
        rounded = Mux(~nonzero, Mux(zero, 0, acc),
                      Mux(distance < 0, term, Mux(zero, negative << 31, acc)))
        harness.claim("larger", unit.o == rounded)
        harness.witness("acc", nonzero & (unit.o == acc))
        harness.witness("infinity", unit.o == 0xFF800000)
        return harness

    # The accumulator is (1.)mantissa * 2**(lowest - 150), the term
    # significand * 2**(exponent - 126 - bits). The lower last place is that of the sum.
    offset = distance - (24 - bits)
    up_acc = Mux(offset > 0, offset, 0)[:6]
    up_term = Mux(offset < 0, -offset, 0)[:6]
    acc_value, term_value = Signal(_WIDTH, name="acc_value"), Signal(_WIDTH, name="term_value")
    exact, size = Signal(signed(_WIDTH + 1), name="exact"), Signal(_WIDTH, name="size")
    m.d.comb += [
        acc_value.eq(Cat(mantissa, field != 0) << up_acc),
        term_value.eq(significand << up_term),
        exact.eq(Mux(sign, -acc_value, acc_value) + Mux(negative, -term_value, term_value)),
        size.eq(Mux(exact < 0, -exact, exact)),
    ]
    last = lowest - up_acc
    # The leading one moves to the top, but a unit of 2**-149 no further than to its place there.
    zeros = C(_WIDTH - 1, 6)
    for place in range(_WIDTH):
        zeros = Mux(size[place], _WIDTH - 1 - place, zeros)
    below = _WIDTH - 24
    most = last + below - 1
    places = Signal(6, name="places")
    moved = Signal(_WIDTH, name="moved")
    m.d.comb += [places.eq(Mux(zeros > most, most, zeros)), moved.eq(size << places)]
    kept, guard, sticky = moved[below:], moved[below - 1], moved[:below - 1].any()
    up = guard & (sticky | kept[0])
    # Exponent field less 1, and a significand that adds 1 to it where it has its leading one.
    number = Signal(34, name="number")
    m.d.comb += number.eq(((last + below - 1 - places)[:10].as_unsigned() << 23) + kept + up)
    rounded = Mux(exact == 0, 0, Cat(
        Mux(number >= 0x7F800000, 0x7F800000, number)[:31], exact < 0))
    harness.claim("sum", unit.o == rounded)
    harness.witness("subnormal", (unit.o[23:31] == 0) & (unit.o[:23] == 12345) & nonzero)
    harness.witness("infinity", unit.o == 0xFF800000)
    harness.witness("cancelled", nonzero & (unit.o == 0))
    return harness


def _parts(*, metadata=True):
    """The accumulator beside its two parts."""
    harness = Harness()
    m = harness.m
    m.submodules.unit = unit = GroupAccumulator(metadata=metadata)
    m.submodules.normalizer = normalizer = Normalizer(metadata=metadata, fine=False)
    m.submodules.adder = adder = TermAdder(term_layout(metadata), fine=False)
    i = _offered(harness, unit)
    m.d.comb += [
        normalizer.sum.eq(i.sum), normalizer.enable.eq(-1), adder.enable.eq(-1),
        normalizer.scale.exponent.eq(i.activation_scale + i.weight_scale),
        normalizer.scale.nan.eq((i.activation_scale == 255) | (i.weight_scale == 255)),
        adder.term.eq(normalizer.o), adder.acc.eq(i.acc),
    ]
    harness.claim("parts", unit.o.valid & (unit.o.payload == adder.o))
    harness.witness("one", unit.o.payload == 0x3F800000)
    return harness


def _offered(harness, unit):
    """Gives inputs to an accumulator, whose output is always taken."""
    for name, field in unit.i.payload.shape():
        if name not in harness.inputs:
            harness.input(name, field.shape)
        harness.m.d.comb += unit.i.payload[name].eq(harness.inputs[name])
    harness.m.d.comb += [unit.i.valid.eq(1), unit.o.ready.eq(1)]
    return unit.i.payload


def _depths(depth, *, metadata=True):
    """An accumulator of another depth beside the one of depth 3."""
    harness = Harness()
    harness.m.submodules.unit = unit = GroupAccumulator(depth=depth, metadata=metadata)
    harness.m.submodules.other = other = GroupAccumulator(metadata=metadata)
    for one in (unit, other):
        _offered(harness, one)
    harness.claim("valid", unit.o.valid)
    harness.claim("same", unit.o.payload == other.o.payload)
    harness.witness("one", unit.o.payload == 0x3F800000)
    return harness


def _plain_adder():
    """The adder of terms without metadata beside the one of wider terms."""
    harness = Harness()
    m = harness.m
    m.submodules.unit = unit = TermAdder(term_layout(False), fine=False)
    m.submodules.other = other = TermAdder(term_layout(True), fine=False)
    significand, acc = harness.input("significand", 13), harness.input("acc", 32)
    for adder in (unit, other):
        m.d.comb += [adder.acc.eq(acc), adder.enable.eq(-1)]
        for name, shape in (("negative", 1), ("exponent", signed(10)), ("nan", 1)):
            if name not in harness.inputs:
                harness.input(name, shape)
            m.d.comb += adder.term[name].eq(harness.inputs[name])
    m.d.comb += [unit.term.significand.eq(significand),
                 other.term.significand.eq(Cat(C(0, 5), significand))]
    harness.claim("same", unit.o == other.o)
    harness.witness("one", unit.o == 0x3F800000)
    return harness


_STICKY = Fault("hw.lib.float_adder", "sticky.eq(before_sticky | (shift & ", "sticky.eq((shift & ")
_UNIT = Fault("hw.lib.float_adder", "(self.unit - (bits - 1) - 127)", "(self.unit - bits - 127)")

PROOFS = [
    Proof(name="group_accumulator.term", after=1, build=partial(_normalizer, metadata=True),
          fault=_UNIT,
          claim="A group sum times its scales is the term, with its leading one in the top bit"),
    Proof(name="group_accumulator.term_plain", after=1, build=partial(_normalizer, metadata=False),
          fault=_UNIT, claim="The same without metadata"),
    Proof(name="group_accumulator.adds_near", after=2, build=partial(_adder, "near"),
          solver="sweep", fault=_STICKY,
          claim="A term and a float32 up to 32 binades apart give their exact sum, rounded once"),
    Proof(name="group_accumulator.adds_far", after=2, build=partial(_adder, "far"), fault=Fault(
              "hw.lib.float_adder", "Mux(i.below_window, i.smaller.any(), shifted | sticky)",
              "(shifted | sticky)"),
          claim="A term and a float32 further apart give the larger one, also for a zero term"),
    Proof(name="group_accumulator.adds_special", after=2, build=partial(_adder, "special"),
          fault=Fault("hw.lib.float_adder", "places[_ALIGNMENT:].any() | acc_special",
                      "places[_ALIGNMENT:].any()"),
          claim="NaN gives the one NaN; an infinite float32 stays"),
    Proof(name="group_accumulator.adds_plain", after=2, build=_plain_adder, solver="sweep",
          fault=Fault("hw.lib.float_adder", "C(0, _MANTISSA - len(term.significand))",
                      "C(0, _MANTISSA - 18)"),
          claim="Terms without metadata are added as wider ones with the same value are"),
    *(Proof(name=f"group_accumulator.parts{suffix}", after=3,
            build=partial(_parts, metadata=metadata),
            fault=Fault("hw.units.group_accumulator", "delay(\"acc\", i.acc, normalize.latency)",
                        "delay(\"acc\", i.acc + 1, normalize.latency)"),
            claim=f"{which} the accumulator adds the term of its group sum and scales")
      for suffix, metadata, which in (("", True, "With metadata"),
                                      ("_plain", False, "Without metadata"))),
    *(Proof(name=f"group_accumulator.depth{depth}{suffix}", after=depth, solver="sweep",
            build=partial(_depths, depth, metadata=metadata),
            fault=fault, claim=f"With a depth of {depth} {which} the result is the same as with 3")
      for depth, fault in (
          (8, Fault("hw.lib.float_adder", "hold_fine(\"ordered\", _order(m, self.term, self.acc))",
                    "hold_fine(\"ordered\", _order(m, self.term, self.acc ^ self.fine))")),
          (10, Fault("hw.lib.arithmetic", "total.eq(Cat(C(1, 1), a) + Cat(carry, b))",
                     "total.eq(Cat(C(0, 1), a) + Cat(carry, b))")))
      for suffix, metadata, which in (("", True, "and metadata"),
                                      ("_plain", False, "and no metadata"))),
]
