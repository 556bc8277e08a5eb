# SPDX-License-Identifier: BSD-2-Clause
"""Proofs about decoding (specification sections 1, 3.6, 4.1, 6.2 and 7.3)."""

from functools import partial

from amaranth import *

from ..units.decoder import Decoder
from ..units.top1_decode import Top1Decode
from .faults import Fault
from .harness import Harness
from .proof import Proof
from .selection import tops
from .tiles import halves

_REFINEMENTS = (
    (0, 0, 1, 2),
    (-1, 0, 1, 2),
    (-1, 0, 1, 2),
    (-1, 0, 1, 2),
    (-1, 0, 2, 4),
    (-2, 0, 2, 4),
    (-2, 0, 4, 8),
    (-4, 0, 4, 8))
"""Eighths that metadata add to a top-1, by magnitude code: section 7.3."""

_E2M3 = tuple(m if e == 0 else (8 + m) << (e - 1) for e in range(4) for m in range(8))
"""Eight times the values of E2M3 codes: section 1.3."""


def _top1_decode(*, cut):
    harness = Harness()
    m = harness.m
    m.submodules.unit = unit = Top1Decode(cut=cut)
    codes, meta = harness.input("codes", 32), harness.input("meta", 2)
    m.d.comb += [Value.cast(unit.codes).eq(codes), unit.meta.eq(meta)]
    if cut:
        m.d.comb += unit.enable.eq(1)
    refinement = unit.refinement
    value = Mux(refinement.zero, 0, Mux(refinement.negative, -(C(1, 4) << refinement.shift),
                                        C(1, 4) << refinement.shift))
    for lane, top in enumerate(tops([codes.word_select(lane, 4)[:3] for lane in range(8)])):
        code = codes.word_select(lane, 4)
        table = Array(Array(Const(entry, signed(5)) for entry in row) for row in _REFINEMENTS)
        entry = table[code[:3]][meta]
        harness.claim(f"lane{lane}", unit.lane[lane] == top)
        harness.claim(f"value{lane}", ~top | (value == Mux(code[3], -entry, entry)))
        harness.witness(f"lane{lane}", top & (value == -8))
    harness.claim("zero", ~refinement.zero | (~refinement.negative & (refinement.shift == 0)))
    return harness


def _decoder(kind):
    harness = Harness()
    m = harness.m
    m.submodules.unit = unit = Decoder(kind=kind)
    record = Signal(unit.i.payload.shape())
    elements, metadata = harness.input("elements", 128), harness.input("metadata", 8)
    scale = harness.input("scale", 8)
    m.d.comb += [
        Value.cast(record.elements).eq(elements), Value.cast(record.metadata).eq(metadata),
        record.scale.eq(scale),
        unit.i.payload.eq(record), unit.i.valid.eq(1), unit.o.ready.eq(1),
    ]
    nan = scale == 255
    harness.claim("valid", unit.o.valid)
    for j in range(4):
        codes = [elements.word_select(8 * j + lane, 4) for lane in range(8)]
        meta = metadata.word_select(j, 2)
        refined = tops([code[:3] for code in codes])
        for lane, code in enumerate(codes):
            place = 8 * j + lane
            # Eighths of the value, in units of the scale.
            if kind == "activation":
                least = Mux(Cat(meta, code[:3]) == 0, 1, Cat(meta, code[:3]))
                top = Array(Const(value, 6) for value in _E2M3)[(least - 1)[:5]]
                eighths = Mux(refined[lane], top, abs(halves(code)) * 4)
            else:
                eighths = abs(halves(code)) * (4 + meta)
            bits = Value.cast(unit.o.payload)[32 * place:32 * place + 32]
            harness.claim(f"element{place}", _is_float32(bits, eighths, code[3], scale, nan))
    first = Value.cast(unit.o.payload)[:32]
    harness.witness("nan", first == 0x7FC00000)
    harness.witness("subnormal", (first[23:31] == 0) & first[:23].any())
    harness.witness("infinity", (first == 0xFF800000) & ~nan)
    harness.witness("normal", first == 0x3F800000)
    return harness


def _is_float32(bits, eighths, negative, scale, nan):
    """Whether float32 bits are those of eighths * 2**(scale - 130), or what stands for it."""
    field, mantissa, sign = bits[23:31], bits[:23], bits[31]
    significand = Mux(field == 0, mantissa, mantissa | 1 << 23)
    # In units of 2**-149 the float32 is significand * 2**(field - 1), field being at least 1, and
    # the value eighths * 2**(scale + 19).
    places = (scale + 19) - (Mux(field == 0, 1, field) - 1)
    exact = (places >= 0) & (places < 24) & (significand == eighths << places[:5]) & (field != 255)
    # 2**128 is eighths * 2**(scale - 130) with eighths of 2**(258 - scale).
    beyond = (scale >= 252) & (eighths >= (C(1, 7) << (258 - scale)[:3]))
    infinity = (field == 255) & (mantissa == 0)
    number = Mux(eighths == 0, (field == 0) & (mantissa == 0), Mux(beyond, infinity, exact))
    return Mux(nan, bits == 0x7FC00000, (sign == negative) & number)


PROOFS = [
    Proof(name="top1_decode.refinement", build=partial(_top1_decode, cut=False),
          fault=Fault("hw.units.top1_decode", "down & ~meta[0].replicate(2)",
                      "one & ~meta[0].replicate(2)"),
          claim="The lane is the top-1's and the refinement that of the specification's table, "
                "with the element's sign, for all codes and metadata"),
    Proof(name="top1_decode.refinement_cut", build=partial(_top1_decode, cut=True), after=1,
          fault=Fault("hw.units.top1_decode", "zero.eq(~meta[1] & (meta[0] | ~code.any()))",
                      "zero.eq(~meta[1] & meta[0])"),
          claim="The same with a register, one enabled cycle later"),
    *(Proof(name=f"decoder.values_{kind}", build=partial(_decoder, kind), after=1,
            fault=fault, claim="All 32 values are exact, or infinities beyond the range, for all "
                               f"records of kind {kind}, NaN records included")
      for kind, fault in (
          ("activation", Fault("hw.units.decoder", "refined.eq(Mux(biased == 0, 0, biased - 1))",
                               "refined.eq(biased - 1)")),
          ("weight", Fault("hw.units.decoder", "(self.eighths << self.scale[:2])[:10]",
                           "(self.eighths << self.scale[:1])[:10]")))),
]
