# SPDX-License-Identifier: BSD-2-Clause
"""The decoder: one group record to its float32 values per cycle."""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..lib.formats import (
    FLOAT32_NAN,
    GROUP,
    SCALE_NAN,
    SUBGROUP,
    WIDE_GROUP,
    Record,
    WideRecord,
    e2m1_shift,
    e2m1_significand,
    special_scale,
)
from ..lib.stream_register import StreamRegister
from ..lib.top1_select import select_top1

KINDS = ("activation", "weight", "special", "special64")
"""Records that a decoder reads."""


class Decoder(wiring.Component):
    """Turns group records back into 32 float32 values.

    Nothing is rounded: every value is exact, subnormals included. A value beyond the range of
    float32 becomes an infinity. A negative zero keeps its sign; Sg-special and Sg-special64
    have none. A NaN group gives 0x7FC00000 in all elements. Latency 1, one group per cycle.
    Specification sections 3.6, 4.1, 6.2, 8.5, 12 and 18.

    Parameters
    ----------
    kind : str
        "activation" (Elem-EM), "weight" (Sg-EM), or "special" (Sg-special) or "special64"
        (Sg-special64) of either operand. The last one has payloads of its own: ``WideRecord`` and
        64 values.

    Members
    -------
    i : In(stream.Signature(Record))
        Group records of the kind ``kind``.
    o : Out(stream.Signature(data.ArrayLayout(32, 32)))
        Float32 bits, element 0 in the least significant ones.

    Raises
    ------
    ValueError
        If ``kind`` is none of these.
    """

    latency = 1

    def __init__(self, *, kind="activation"):
        if kind not in KINDS:
            raise ValueError(f"Kind must be 'activation', 'weight', 'special' or 'special64', "
                             f"not {kind!r}")
        self.kind = kind
        wide = kind == "special64"
        self._record, self._group = (WideRecord, WIDE_GROUP) if wide else (Record, GROUP)
        super().__init__({
            "i": In(stream.Signature(self._record)),
            "o": Out(stream.Signature(data.ArrayLayout(32, self._group))),
        })

    def elaborate(self, platform):
        m = Module()

        # The record is held, not the values: a seventh of the flip-flops.
        m.submodules.register = register = StreamRegister(self._record)
        wiring.connect(m, wiring.flipped(self.i), register.i)
        record = register.o.payload
        m.d.comb += [
            self.o.valid.eq(register.o.valid),
            register.o.ready.eq(self.o.ready),
        ]

        scale = record.scale
        special_kind, wide = self.kind.startswith("special"), self.kind == "special64"
        if special_kind:
            scale = Signal(8)
            m.d.comb += scale.eq(special_scale(record.scale))

        for j in range(self._group // SUBGROUP):
            codes = [record.elements[SUBGROUP * j + i] for i in range(SUBGROUP)]
            metadata = record.metadata[j]
            if self.kind == "activation":
                # The top-1 has the E2M3 code 4c + metadata - 1, at least 0.
                # biased  | refined
                #   0     | 0: metadata 0 of code 0, which only NaN groups have
                #   n     | n - 1: 5 bits, at most 30; in eighths at most 56, 6 bits
                lane, magnitude = select_top1(m, codes)
                biased = Signal(5, name=f"biased{j}")
                refined = Signal(5, name=f"refined{j}")
                top = Signal(6, name=f"top{j}")
                m.d.comb += [
                    biased.eq(Cat(metadata, magnitude)),
                    refined.eq(Mux(biased == 0, 0, biased - 1)),
                    top.eq(_e2m3_eighths(refined)),
                ]
            for i, code in enumerate(codes):
                m.submodules[f"float{SUBGROUP * j + i}"] = float32 = _Float32(8 if wide else 7)
                m.d.comb += [
                    float32.negative.eq(code[3]),
                    float32.scale.eq(scale),
                    self.o.payload[SUBGROUP * j + i].eq(float32.bits),
                ]
                if self.kind == "activation":
                    m.d.comb += float32.eighths.eq(Mux(
                        lane[i], top, e2m1_significand(code) << e2m1_shift(code) << 2))
                else:
                    # Twice the value (at most 12, of a special one 16) times 4 + k (at most 7):
                    # eighths, below 2**7. An exponent doubles them.
                    halves = e2m1_significand(code) << e2m1_shift(code)
                    if special_kind:
                        # 5, -5, 8 or -8, by the byte's two lower bits.
                        special = code == 8
                        halves = Mux(special, Mux(record.scale[1], 16, 10), halves)
                        m.d.comb += float32.negative.eq(Mux(special, record.scale[0], code[3]))
                    eighths = halves * (4 + metadata[:2])
                    m.d.comb += float32.eighths.eq(
                        Mux(metadata[2], eighths << 1, eighths) if wide else eighths)

        return m


def _e2m3_eighths(code):
    """Eight times an E2M3 magnitude, 6 bits, at most 60."""
    exponent = code[3:]
    return Cat(code[:3], exponent.any()) << Mux(exponent == 0, 0, exponent - 1)[:2]


class _Float32(wiring.Component):
    """Makes the float32 of a small integer times a power of two: eighths * 2**(scale - 130).

    Exact, but for values beyond the range, which become infinities. Combinational.

    Parameters
    ----------
    width : int
        Bits of the integer, 7 or 8.

    Members
    -------
    eighths : In(width)
    negative : In(1)
    scale : In(8)
        E8M0 code.
    bits : Out(32)
    """

    def __init__(self, width):
        super().__init__({
            "eighths": In(width),
            "negative": In(1),
            "scale": In(8),
            "bits": Out(32),
        })

    def elaborate(self, platform):
        m = Module()

        # Moved up until bit 6 is set, eighths is 2**6 times a significand in [1, 2). The biased
        # exponent is that of the leading one: scale - 130 + 6 - zeros + 127, from -3 to 258, ten
        # bits with a sign. With at most 6 zeros only scales below 4 give an exponent under 1.
        # Eight bits have one place, and at most one zero, more.
        # case              | float32
        # scale is NaN      | the NaN
        # eighths is 0      | a zero with the sign
        # exponent >= 255   | an infinity: beyond the range
        # exponent <= 0     | subnormal, exact: 2**-130 is a multiple of 2**-149
        # else              | normal, exact: 7 or 8 bits of 24
        width = len(self.eighths)
        zeros = Signal(range(width))
        with m.Switch(self.eighths):
            for n in range(width):
                with m.Case("0" * n + "1" + "-" * (width - 1 - n)):
                    m.d.comb += zeros.eq(n)
        significand = Signal(width)
        exponent = Signal(signed(10))
        m.d.comb += [
            significand.eq(self.eighths << zeros),
            exponent.eq(self.scale + (width - 4) - zeros),
        ]

        with m.If(self.scale == SCALE_NAN):
            m.d.comb += self.bits.eq(FLOAT32_NAN)
        with m.Elif(self.eighths == 0):
            m.d.comb += self.bits.eq(self.negative << 31)
        with m.Elif(exponent >= 255):
            m.d.comb += self.bits.eq(Cat(C(0x7F800000, 31), self.negative))
        with m.Elif(exponent <= 0):
            # Subnormal: in units of 2**-149 it is eighths * 2**(scale + 19).
            m.d.comb += self.bits.eq(Cat(
                C(0, 19), (self.eighths << self.scale[:2])[:10], C(0, 2), self.negative))
        with m.Else():
            m.d.comb += self.bits.eq(Cat(C(0, 24 - width), significand[:-1], exponent[:8],
                                         self.negative))

        return m
