# SPDX-License-Identifier: BSD-2-Clause
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .formats import FLOAT32_NAN, SCALE_NAN, check_metadata
from .stream_register import StreamRegister


def group_sum(width):
    """Layout of a group sum of ``width`` bits, its scales, and the float32 it is added to."""
    return data.StructLayout({
        "sum": signed(width),
        "activation_scale": 8,
        "weight_scale": 8,
        "acc": 32,
    })


GroupSum = group_sum(19)
"""With a group sum G in units of 1/64: at most 131712 < 2**18 in magnitude."""

PlainSum = group_sum(14)
"""With a group sum of MXFP4 in units of 1/4: at most 32 * 144 = 4608 < 2**13 in magnitude."""

_MANTISSA = 24
"""Bits of a float32 significand."""

_GUARD = 3
"""Bits kept below it, the last of them sticky: a difference of operands more than one place apart
loses at most one leading bit, after which a guard and a sticky bit are left."""

_Exponent = signed(11)
"""Biased exponents before their range is checked, of a term's leading bit 17 - zeros places above
2**(Xw + Xx - 260): Xw + Xx - 116 - zeros is in -133..394 (NaN scales included), and one more may
come from the sum. Without metadata, 12 - zeros places above 2**(Xw + Xx - 256), it is within."""

_Terms = data.StructLayout({
    # The operand with the larger exponent and the other, moved right; sticky bit last.
    "large": _MANTISSA + _GUARD,
    "small": _MANTISSA + _GUARD,
    "large_negative": 1,
    "small_negative": 1,
    "exponent": _Exponent,
    "nan": 1,
    "infinite": 1,
})

_Sum = data.StructLayout({
    "magnitude": _MANTISSA + _GUARD + 1,
    "negative": 1,
    "exponent": _Exponent,
    "nan": 1,
    "infinite": 1,
})


class GroupAccumulator(wiring.Component):
    """Adds a scaled group sum to a float32: acc + G * 2**(Xw + Xx - 260), rounded once.

    Rounds to nearest, ties to even, with gradual underflow and overflow to infinity. An exact
    zero is +0; an infinite ``acc`` stays; a NaN scale or ``acc`` gives 0x7FC00000. One sum per
    cycle, three pipeline stages. Specification section 7.

    Parameters
    ----------
    metadata : bool
        Whether the sum is one of operands with metadata. Without, it is narrower, in units of 1/4:
        acc + G * 2**(Xw + Xx - 256).

    Members
    -------
    i : In(stream.Signature(GroupSum))
        Without metadata ``PlainSum``.
    o : Out(stream.Signature(32))
        Float32 bits.

    Raises
    ------
    TypeError
        If ``metadata`` is not a bool.
    """

    latency = 3

    def __init__(self, *, metadata=True):
        check_metadata(metadata)
        self.has_metadata = metadata
        super().__init__({
            "i": In(stream.Signature(GroupSum if metadata else PlainSum)),
            "o": Out(stream.Signature(32)),
        })

    def elaborate(self, platform):
        m = Module()

        m.submodules.align = align = _Align(metadata=self.has_metadata)
        m.submodules.align_register = align_register = StreamRegister(_Terms)
        m.submodules.add = add = _Add()
        m.submodules.add_register = add_register = StreamRegister(_Sum)
        m.submodules.round = round_ = _Round()
        m.submodules.round_register = round_register = StreamRegister(32)
        m.d.comb += [
            align.i.eq(self.i.payload),
            align_register.i.payload.eq(align.o),
            align_register.i.valid.eq(self.i.valid),
            self.i.ready.eq(align_register.i.ready),

            add.i.eq(align_register.o.payload),
            add_register.i.payload.eq(add.o),
            add_register.i.valid.eq(align_register.o.valid),
            align_register.o.ready.eq(add_register.i.ready),

            round_.i.eq(add_register.o.payload),
            round_register.i.payload.eq(round_.o),
            round_register.i.valid.eq(add_register.o.valid),
            add_register.o.ready.eq(round_register.i.ready),
        ]
        wiring.connect(m, round_register.o, wiring.flipped(self.o))

        return m


class _Align(wiring.Component):
    """Normalizes the group sum, orders both operands by exponent and aligns them."""

    def __init__(self, *, metadata):
        # A sum's units are 2**(Xw + Xx - unit).
        self.unit, layout = (260, GroupSum) if metadata else (256, PlainSum)
        super().__init__({"i": In(layout), "o": Out(_Terms)})

    def elaborate(self, platform):
        m = Module()

        total = self.i.sum
        # One bit less than the sum has: its lowest value does not occur.
        bits = len(total) - 1
        scale = Signal(9)
        magnitude = Signal(bits)
        m.d.comb += [
            scale.eq(self.i.activation_scale + self.i.weight_scale),
            magnitude.eq(Mux(total < 0, -total, total)),
        ]

        # The term as a float: leading one in the top bit. Only zero has none: its exponent is then
        # the smallest of all, and the accumulator passes unchanged.
        term = Signal(bits)
        term_exponent = Signal(_Exponent)
        term_zero = Signal()
        zeros = Signal(range(bits))
        with m.Switch(magnitude):
            for n in range(bits):
                with m.Case("0" * n + "1" + "-" * (bits - 1 - n)):
                    m.d.comb += zeros.eq(n)
            with m.Default():
                m.d.comb += term_zero.eq(1)
        m.d.comb += [
            term.eq(magnitude << zeros),
            # Of the top bit, biased as in float32.
            term_exponent.eq(scale - (self.unit - (bits - 1) - 127) - zeros),
        ]

        acc = self.i.acc
        acc_biased = acc[23:31]
        acc_special = acc_biased.all()
        acc_exponent = Signal(8)
        acc_significand = Signal(_MANTISSA)
        m.d.comb += [
            # Subnormals share exponent 1 and lack the leading one.
            acc_exponent.eq(acc_biased | (acc_biased == 0)),
            acc_significand.eq(Cat(acc[:23], acc_biased.any())),
        ]

        # Whichever has the larger exponent stays. A term below exponent 1 meets an accumulator
        # of at least that, so it is denormalized here and never comes up again: results below
        # the normal range are already in units of 2**-149.
        distance = Signal(signed(12))
        swap = Signal()
        term_aligned = Cat(C(0, _MANTISSA - bits + _GUARD), term)
        acc_aligned = Cat(C(0, _GUARD), acc_significand)
        small = Signal(_MANTISSA + _GUARD)
        amount = Signal(12)
        m.d.comb += [
            distance.eq(acc_exponent - term_exponent),
            # An infinite accumulator stays, with its sign, however large the term.
            swap.eq((distance < 0) & ~term_zero & ~acc_special),
            amount.eq(Mux(swap, -distance, distance)),
            small.eq(Mux(swap, acc_aligned, term_aligned)),
            self.o.large.eq(Mux(swap, term_aligned, acc_aligned)),
            self.o.large_negative.eq(Mux(swap, total < 0, acc[31])),
            self.o.small_negative.eq(Mux(swap, acc[31], total < 0)),
            self.o.exponent.eq(Mux(swap, term_exponent, acc_exponent)),
        ]

        # From 32 places on, nothing is left of 27 bits but the sticky one. Nor may anything
        # be left beside an infinite accumulator: a term of its exponent could turn its sign.
        shifted = Signal(_MANTISSA + _GUARD)
        lost = Signal(31)
        far = Signal()
        m.d.comb += [
            far.eq(amount[5:].any() | acc_special),
            Cat(lost, shifted).eq(Cat(C(0, 31), small) >> amount[:5]),
            self.o.small.eq(Mux(far, 0, shifted) | Mux(far, small.any(), lost.any())),
        ]

        nan_scale = (self.i.activation_scale == SCALE_NAN) | (self.i.weight_scale == SCALE_NAN)
        m.d.comb += [
            self.o.nan.eq(nan_scale | (acc_special & acc[:23].any())),
            self.o.infinite.eq(acc_special),
        ]

        return m


class _Add(wiring.Component):
    """Adds two aligned operands in sign and magnitude."""

    i: In(_Terms)
    o: Out(_Sum)

    def elaborate(self, platform):
        m = Module()

        i, o = self.i, self.o
        subtract = Signal()
        # One bit for the carry and one for the sign of a difference.
        total = Signal(signed(_MANTISSA + _GUARD + 2))
        m.d.comb += [
            subtract.eq(i.large_negative ^ i.small_negative),
            total.eq(Mux(subtract, i.large - i.small, i.large + i.small)),
            o.magnitude.eq(Mux(total < 0, -total, total)),
            # Equal magnitudes cancel to +0; two zeros of equal sign keep it only if both are
            # negative, and a group's zero never is.
            o.negative.eq(Mux(subtract, (i.large_negative ^ (total < 0)) & total.any(),
                              i.large_negative)),
            o.exponent.eq(i.exponent),
            o.nan.eq(i.nan),
            o.infinite.eq(i.infinite),
        ]

        return m


class _Round(wiring.Component):
    """Normalizes, rounds to nearest even and packs a float32."""

    i: In(_Sum)
    o: Out(32)

    def elaborate(self, platform):
        m = Module()

        i = self.i
        width = _MANTISSA + _GUARD + 1

        # The leading one goes to the top bit, whose exponent is one above the operands', but
        # no further than down to exponent 1.
        zeros = Signal(range(width + 1))
        with m.Switch(i.magnitude):
            for n in range(width):
                with m.Case("0" * n + "1" + "-" * (width - 1 - n)):
                    m.d.comb += zeros.eq(n)
            with m.Default():
                m.d.comb += zeros.eq(width)
        # Zero has no leading one to bring up.
        limited = Signal()
        amount = Signal(range(width + 1))
        normalized = Signal(width)
        exponent = Signal(_Exponent)
        m.d.comb += [
            limited.eq((i.exponent < zeros) | (i.magnitude == 0)),
            amount.eq(Mux(limited, i.exponent[:5], zeros)),
            normalized.eq(i.magnitude << amount),
            exponent.eq(Mux(limited, 0, i.exponent + 1 - zeros)),
        ]

        # guard sticky last | up
        #   0      -     -  | 0
        #   1      0     0  | 0  tie, even already
        #   1      0     1  | 1  tie, to even
        #   1      1     -  | 1
        guard = normalized[width - _MANTISSA - 1]
        sticky = normalized[: width - _MANTISSA - 1].any()
        last = normalized[width - _MANTISSA]
        up = guard & (sticky | last)

        # The leading one is dropped; a carry out of the mantissa runs into the exponent, also
        # from the largest subnormal into the smallest normal, and into infinity.
        rounded = Signal(_Exponent.width + 23)
        m.d.comb += rounded.eq(Cat(normalized[width - _MANTISSA : width - 1], exponent) + up)
        overflow = rounded[23:] >= 255
        with m.If(i.nan):
            m.d.comb += self.o.eq(FLOAT32_NAN)
        with m.Elif(i.infinite | overflow):
            m.d.comb += self.o.eq(Cat(C(0x7F800000, 31), i.negative))
        with m.Else():
            m.d.comb += self.o.eq(Cat(rounded[:31], i.negative))

        return m
