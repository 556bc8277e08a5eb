# SPDX-License-Identifier: BSD-2-Clause
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import add, increment
from .formats import FLOAT32_NAN, SCALE_NAN, check_metadata
from .pipeline import Control, hold


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

Scale = data.StructLayout({"exponent": 9, "nan": 1})
"""Sum of a group's two scale codes, and whether either is NaN."""


def term_layout(metadata):
    """Layout of a group sum as a float, with or without metadata."""
    return data.StructLayout({
        # The leading one is in the top bit; only zero has none.
        "significand": 18 if metadata else 13,
        "negative": 1,
        # Of that bit, biased as in float32. It is 17 - zeros places above 2**(Xw + Xx - 260):
        # Xw + Xx - 116 - zeros is in -133..394, NaN scales included. Without metadata it is
        # 12 - zeros places above 2**(Xw + Xx - 256), which is within.
        "exponent": signed(10),
        "nan": 1,
    })


_MANTISSA = 24
"""Bits of a float32 significand."""

_GUARD = 3
"""Bits kept below it, the last of them sticky: a difference of operands more than one place apart
loses at most one leading bit, after which a guard and a sticky bit are left."""

_Terms = data.StructLayout({
    # The operand with the larger exponent and the other, moved right; sticky bit last.
    "large": _MANTISSA,
    "small": _MANTISSA + _GUARD,
    "large_negative": 1,
    "small_negative": 1,
    # Of the larger one, at least 1: at most 394.
    "exponent": 9,
    "nan": 1,
})

_Sum = data.StructLayout({
    # Of the large operand and, with its sign relative to that, the small one: one bit for the
    # carry and one that tells a difference below zero.
    "total": signed(_MANTISSA + _GUARD + 2),
    # Sign of the large one, and its exponent.
    "negative": 1,
    "exponent": 9,
    "nan": 1,
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

        m.submodules.control = control = Control(self.latency)
        m.submodules.normalize = normalize = Normalize(metadata=self.has_metadata)
        m.submodules.add = add = TermAdder(metadata=self.has_metadata)
        i = self.i.payload
        m.d.comb += [
            control.i_valid.eq(self.i.valid),
            self.i.ready.eq(control.i_ready),
            self.o.valid.eq(control.o_valid),
            control.o_ready.eq(self.o.ready),

            normalize.sum.eq(i.sum),
            normalize.scale.eq(scale_sum(i.activation_scale, i.weight_scale)),
            add.term.eq(hold(m, normalize.o, control.enable[0], "term")),
            add.acc.eq(hold(m, i.acc, control.enable[0], "acc")),
            add.enable.eq(control.enable[1:]),
            self.o.payload.eq(add.o),
        ]

        return m


def scale_sum(activation_scale, weight_scale):
    """Both scale codes as a `Scale`, bits in its order."""
    codes = activation_scale, weight_scale
    exponent = (activation_scale + weight_scale)[:9]
    return Cat(exponent, (codes[0] == SCALE_NAN) | (codes[1] == SCALE_NAN))


def normalize(m, value, *, limit=None, fill=None):
    """Moves a value's leading one to its top bit; of zero, everything to where it was.

    Parameters
    ----------
    m : Module
    value : Signal
    limit : Value, optional
        The most places to move.
    fill : Value, optional
        Bit that comes in from below; 0 if not given.

    Returns
    -------
    moved : Value
        As wide as ``value``.
    places : Value
        By how many, where there was a one.
    """
    # The largest power of two first. A limit has one that it lacks to spare for all smaller ones
    # as soon as one of its own was not used.
    stages = (len(value) - 1).bit_length()
    fill = C(0, 1) if fill is None else fill
    free = C(1, 1) if limit is None else limit[stages:].any()
    places = Signal(stages)
    for stage in reversed(range(stages)):
        before, before_free = value, free
        value = Signal.like(before, name=f"moved{stage}")
        move = Signal(name=f"move{stage}")
        m.d.comb += [
            move.eq(~before[-(1 << stage):].any()
                    & (before_free if limit is None else before_free | limit[stage])),
            value.eq(Mux(move, Cat(fill.replicate(1 << stage), before), before)),
            places[stage].eq(move),
        ]
        if limit is not None:
            free = Signal(name=f"free{stage}")
            m.d.comb += free.eq(before_free | (limit[stage] & ~move))
    return value, places


class Normalize(wiring.Component):
    """A group sum as a float, with its leading one in the top bit. Combinational."""

    def __init__(self, *, metadata):
        # A sum's units are 2**(Xw + Xx - unit).
        self.unit, layout = (260, GroupSum) if metadata else (256, PlainSum)
        super().__init__({
            "sum": In(layout["sum"].shape),
            "scale": In(Scale),
            "o": Out(term_layout(metadata)),
        })

    def elaborate(self, platform):
        m = Module()

        # One bit less than the sum has: its lowest value does not occur.
        bits = len(self.sum) - 1
        magnitude = Signal(bits)
        m.d.comb += magnitude.eq(Mux(self.sum < 0, -self.sum, self.sum))
        significand, zeros = normalize(m, magnitude)
        m.d.comb += [
            self.o.significand.eq(significand),
            self.o.negative.eq(self.sum < 0),
            self.o.exponent.eq(self.scale.exponent - (self.unit - (bits - 1) - 127) - zeros),
            self.o.nan.eq(self.scale.nan),
        ]

        return m


class TermAdder(wiring.Component):
    """Adds a term to a float32, rounded once; corners as in `GroupAccumulator`.

    Parameters
    ----------
    metadata : bool

    Members
    -------
    term : In(term_layout(metadata))
    acc : In(32)
    enable : In(2)
        Moves the sum's register and the result's.
    o : Out(32)
    """

    latency = 2

    def __init__(self, *, metadata):
        self.has_metadata = metadata
        super().__init__({
            "term": In(term_layout(metadata)),
            "acc": In(32),
            "enable": In(self.latency),
            "o": Out(32),
        })

    def elaborate(self, platform):
        m = Module()

        terms = _align(m, self.term, self.acc)
        total = hold(m, _add(m, terms), self.enable[0], "sum")
        m.d.comb += self.o.eq(hold(m, _round(m, total), self.enable[1], "result"))

        return m


def _align(m, term, acc):
    """Orders a term and the float32 it is added to by exponent and aligns them."""
    o = Signal(_Terms)
    significand = term.significand
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
    distance = Signal(signed(11))
    swap = Signal()
    term_aligned = Cat(C(0, _MANTISSA - len(significand)), significand)
    small = Signal(_MANTISSA + _GUARD)
    amount = Signal(11)
    m.d.comb += [
        distance.eq(acc_exponent - term.exponent),
        # An infinite accumulator stays, with its sign, however large the term. Nor does it
        # move for zero, whose exponent means nothing.
        swap.eq((distance < 0) & significand[-1] & ~acc_special),
        # The complement is one less than the negative, so the accumulator, whose guard bits
        # are free, is moved one place beforehand.
        amount.eq(distance ^ swap.replicate(11)),
        small.eq(Mux(swap, Cat(C(0, _GUARD - 1), acc_significand),
                     Cat(C(0, _GUARD), term_aligned))),
        o.large.eq(Mux(swap, term_aligned, acc_significand)),
        o.large_negative.eq(Mux(swap, term.negative, acc[31])),
        o.small_negative.eq(Mux(swap, acc[31], term.negative)),
        o.exponent.eq(Mux(swap, term.exponent, acc_exponent)),
    ]

    # From 32 places on, nothing is left of 27 bits but the sticky one. Nor may anything
    # be left beside an infinite accumulator: a term of its exponent could turn its sign.
    far = Signal()
    lost = C(0, 1)
    shifted = small
    for place in reversed(range(5)):
        value, shift = shifted, amount[place]
        shifted = Signal(_MANTISSA + _GUARD, name=f"shifted{place}")
        some = Signal(name=f"lost{place}")
        m.d.comb += [
            shifted.eq(Mux(shift, value >> (1 << place), value)),
            some.eq(lost | (shift & value[: 1 << place].any())),
        ]
        lost = some
    m.d.comb += [
        far.eq(amount[5:].any() | acc_special),
        o.small.eq(Mux(far, small.any(), shifted | lost)),
    ]

    m.d.comb += o.nan.eq(term.nan | (acc_special & acc[:23].any()))
    return o


def _add(m, i):
    """Adds two aligned operands."""
    o = Signal(_Sum)
    subtract = Signal()
    large = Signal(_MANTISSA + _GUARD)
    small = Signal(signed(_MANTISSA + _GUARD + 1))
    m.d.comb += [
        subtract.eq(i.large_negative ^ i.small_negative),
        large.eq(i.large << _GUARD),
        small.eq(i.small ^ subtract.replicate(len(small))),
        o.total.eq(add(m, Cat(large, C(0, 2)), Cat(small, small[-1]), carry=subtract,
                       name="total")),
        o.negative.eq(i.large_negative),
        o.exponent.eq(i.exponent),
        o.nan.eq(i.nan),
    ]
    return o


def _round(m, i):
    """Normalizes, rounds to nearest even and packs a float32."""
    o = Signal(32)
    # Of a difference d below zero -1 - d is taken; what is missing is added on rounding.
    width = _MANTISSA + _GUARD + 1
    inverted = i.total[-1]
    magnitude = Signal(width)
    # Equal magnitudes cancel to +0. Zeros of equal sign are not negative: a group's zero never is.
    negative = Signal()
    m.d.comb += [
        magnitude.eq(i.total[:-1] ^ inverted.replicate(width)),
        negative.eq((i.negative ^ inverted) & i.total.any()),
    ]

    # The leading one goes to the top bit, whose exponent is one above the operands', but
    # no further than down to exponent 1.
    normalized, zeros = normalize(m, magnitude, limit=i.exponent, fill=inverted)
    exponent = Signal(9)
    m.d.comb += exponent.eq(Mux(normalized[-1], i.exponent + 1 - zeros, 0))

    # guard sticky last | up
    #   0      -     -  | 0
    #   1      0     0  | 0  tie, even already
    #   1      0     1  | 1  tie, to even
    #   1      1     -  | 1
    # A difference d below zero, rounded, is its upper bits d' and up; -d' - up is the inverted bits
    # and 1 - up.
    last = width - _MANTISSA
    low = normalized[: last + 1] ^ inverted.replicate(last + 1)
    up = Signal()
    m.d.comb += up.eq((low[last - 1] & (low[: last - 1].any() | low[last])) ^ inverted)

    # The leading one is dropped; a carry out of the mantissa runs into the exponent, also
    # from the largest subnormal into the smallest normal, and into infinity.
    rounded = increment(m, Cat(normalized[last:-1], exponent), up, name="rounded")
    overflow = rounded[23:] >= 255
    with m.If(i.nan):
        m.d.comb += o.eq(FLOAT32_NAN)
    with m.Elif(overflow):
        m.d.comb += o.eq(Cat(C(0x7F800000, 31), negative))
    with m.Else():
        m.d.comb += o.eq(Cat(rounded[:31], negative))
    return o
