# SPDX-License-Identifier: BSD-2-Clause
"""Proofs about the encoder of activations (specification sections 1.2, 1.4, 3, 5 and 6.1)."""

from functools import reduce

from amaranth import *

from ..units.quantization_engine import QuantizationEngine
from .faults import Fault
from .harness import Harness
from .proof import Proof
from .selection import tops

_E2M1_POINTS = tuple(zip((4, 12, 20, 28, 40, 56, 80), (0, 1, 0, 1, 0, 1, 0), strict=True))
"""Sixteenths at which the E2M1 code rises, and whether it does so at the point itself: 1.2."""

_E2M3 = tuple(m if e == 0 else (8 + m) << (e - 1) for e in range(4) for m in range(8))

_E2M3_POINTS = tuple((_E2M3[code] + _E2M3[code + 1], code & 1) for code in range(31))
"""The same of E2M3 codes: 1.4."""


def _fields(bits):
    """Exponent, at least 1, and 24-bit significand of a float32; its exponent field."""
    field, mantissa = bits[23:31], bits[:23]
    return Mux(field == 0, 1, field), Cat(mantissa, field != 0), field


def _code(sixteenths, points):
    """How many points a value is past, in halves of sixteenths; the lowest bit is sticky."""
    past = [sixteenths >= 2 * point if rises else sixteenths > 2 * point
            for point, rises in points]
    return reduce(lambda a, b: a + b, past)


def _engine():
    harness = Harness()
    m = harness.m
    m.submodules.unit = unit = QuantizationEngine(depth=0)
    values = [harness.input(f"value{lane}", 32) for lane in range(32)]
    m.d.comb += Value.cast(unit.i).eq(Cat(values))
    o = unit.o
    fields = []
    for lane, value in enumerate(values):
        exponent, significand, field = (Signal(width, name=f"{name}{lane}") for name, width in
                                        (("exponent", 8), ("significand", 24), ("field", 8)))
        m.d.comb += [place.eq(part) for place, part in
                     zip((exponent, significand, field), _fields(value), strict=True)]
        fields.append((exponent, significand, field))
    largest = C(0, 8)
    for lane, (_, _, field) in enumerate(fields):
        most = Signal(8, name=f"most{lane}")
        m.d.comb += most.eq(Mux(field > largest, field, largest))
        largest = most
    largest = harness.cut("largest", 8, largest, *(
        lambda value, field=field: field <= value for _, _, field in fields),
        lambda value: Cat(field == value for _, _, field in fields).any())
    scale = Signal(8)
    m.d.comb += scale.eq(Mux(largest < 2, 0, largest - 2))
    nan = largest == 255
    harness.claim("scale", o.scale == Mux(nan, 255, scale))
    codes = []
    for lane, (exponent, significand, _) in enumerate(fields):
        # A value is significand * 2**(exponent - 150); in sixteenths of the scale that is
        # significand * 2**(-16 - places), below 2**8. From 9 places on it is below all points.
        places = scale + 3 - exponent
        shifted = Signal(33, name=f"shifted{lane}")
        sixteenths, code = Signal(9, name=f"sixteenths{lane}"), Signal(3, name=f"code{lane}")
        m.d.comb += [shifted.eq(significand << Mux(places > 9, 0, 9 - places)[:4]),
                     sixteenths.eq(Cat(shifted[:25].any(), shifted[25:])),
                     code.eq(_code(sixteenths, _E2M1_POINTS))]
        sign = values[lane][-1]
        harness.claim(f"element{lane}", o.elements[lane] == Mux(nan, 0, Cat(code, sign)))
        codes.append((code, sixteenths))
    harness.witness("nan", nan & (Value.cast(o) == 0xFF << len(Value.cast(o)) - 8))
    harness.witness("saturated", ~nan & (o.elements[0] == 15))
    harness.witness("small", (o.scale == 0) & (o.elements[31] == 1))
    for j in range(4):
        selected = tops([o.elements[8 * j + lane][:3] for lane in range(8)])
        for lane, top in enumerate(selected):
            code, sixteenths = codes[8 * j + lane]
            refined = Signal(5, name=f"refined{j}_{lane}")
            m.d.comb += refined.eq(_code(sixteenths, _E2M3_POINTS))
            least = Cat(C(0, 2), code)
            meta = Mux(refined + 1 < least, 0, Mux(refined + 1 > least + 3, 3,
                                                  refined + 1 - least))
            harness.claim(f"metadata{8 * j + lane}",
                          ~top | (o.metadata[j] == Mux(nan, 0, meta)))
            harness.witness(f"metadata{8 * j + lane}", top & ~nan & (o.metadata[j] == 0))
    return harness


PROOFS = [
    Proof(name="quantization_engine.groups", build=_engine, fault=Fault(
              "hw.units.quantization_engine", "(odd | (guard & rest)) & ~carry",
              "(odd | guard) & ~carry"),
          claim="For all float32 values the scale is that of the largest exponent, elements are "
                "rounded to E2M1, and metadata are those of the top-1's rounding to E2M3, clamped; "
                "a group with NaN or an infinity is blank"),
]
