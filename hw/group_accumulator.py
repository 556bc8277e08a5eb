# SPDX-License-Identifier: BSD-2-Clause
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import add, increment
from .formats import FLOAT32_NAN, SCALE_NAN, check_metadata
from .pipeline import Control, Stages, check_depth


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

_Ordered = data.StructLayout({
    # The operand with the larger exponent, and the other with a place below.
    "large": _MANTISSA,
    "small": _MANTISSA + 1,
    "large_negative": 1,
    "small_negative": 1,
    # Of the larger one, at least 1: at most 394.
    "exponent": 9,
    "nan": 1,
    # Places to move the smaller one, or whether they are too many.
    "amount": 5,
    "far": 1,
})

_LOWER = 10
"""Bits of a sum that are added as soon as the operands are aligned."""

_Aligned = data.StructLayout({
    # The lower bits' sum with its carry, and the operands' upper bits: the small one's with their
    # sign relative to the large one, inverted if negative.
    "lower": _LOWER + 1,
    "large": _MANTISSA + _GUARD - _LOWER,
    "small": signed(_MANTISSA + _GUARD + 1 - _LOWER),
    # Sign of the large one, and its exponent.
    "negative": 1,
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


_COARSE = 3
"""A sum is normalized by multiples of 2**3 places first."""

_Moved = data.StructLayout({
    "magnitude": _MANTISSA + _GUARD + 1,
    "inverted": 1,
    # Multiples of eight places that it was moved by, and whether it may move as it likes.
    "places": 5 - _COARSE,
    "free": 1,
    "negative": 1,
    "exponent": 9,
    "nan": 1,
})


_HALF = 12
"""Bits of the lower half of a mantissa."""

_Settled = data.StructLayout({
    "mantissa": _MANTISSA - 1,
    "exponent": 9,
    # Whether to round up, and whether a carry passes the lower half of the mantissa.
    "up": 1,
    "passes": 1,
    "negative": 1,
    "nan": 1,
})


class GroupAccumulator(wiring.Component):
    """Adds a scaled group sum to a float32: acc + G * 2**(Xw + Xx - 260), rounded once.

    Rounds to nearest, ties to even, with gradual underflow and overflow to infinity. An exact
    zero is +0; an infinite ``acc`` stays; a NaN scale or ``acc`` gives 0x7FC00000. Latency
    ``depth``, one sum per cycle. Specification section 7.

    Parameters
    ----------
    metadata : bool
        Whether the sum is one of operands with metadata. Without, it is narrower, in units of 1/4:
        acc + G * 2**(Xw + Xx - 256).
    depth : int
        Pipeline registers: 3 for 500 MHz in a 45 nm library, 8 for 1 GHz.

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
    ValueError
        If ``depth`` is not 3 or 8.
    """

    latency = 3

    def __init__(self, *, metadata=True, depth=3):
        check_metadata(metadata)
        check_depth(depth, (3, 8))
        self.has_metadata = metadata
        self.latency = depth
        super().__init__({
            "i": In(stream.Signature(GroupSum if metadata else PlainSum)),
            "o": Out(stream.Signature(32)),
        })

    def elaborate(self, platform):
        m = Module()

        fine = self.latency == 8
        m.submodules.control = control = Control(self.latency)
        m.submodules.normalize = normalize = Normalize(metadata=self.has_metadata, fine=fine)
        m.submodules.add = add = TermAdder(metadata=self.has_metadata, fine=fine)
        before, after = control.enable[: normalize.latency], control.enable[normalize.latency:]
        i = self.i.payload
        acc = i.acc
        beside = Stages(m, before)
        for stage in range(normalize.latency):
            acc, = beside.cut(**{f"acc{stage}": acc})
        m.d.comb += [
            control.i_valid.eq(self.i.valid),
            self.i.ready.eq(control.i_ready),
            self.o.valid.eq(control.o_valid),
            control.o_ready.eq(self.o.ready),

            normalize.sum.eq(i.sum),
            normalize.scale.eq(scale_sum(i.activation_scale, i.weight_scale)),
            normalize.enable.eq(before),
            add.term.eq(normalize.o),
            add.acc.eq(acc),
            add.enable.eq(after),
            self.o.payload.eq(add.o),
        ]

        return m


def scale_sum(activation_scale, weight_scale):
    """Both scale codes as a `Scale`, bits in its order."""
    codes = activation_scale, weight_scale
    exponent = (activation_scale + weight_scale)[:9]
    return Cat(exponent, (codes[0] == SCALE_NAN) | (codes[1] == SCALE_NAN))


def _normalize(m, value, stages, *, free=None, limit=None, fill=None):
    """Moves a value's leading one towards its top bit, by powers of two of places.

    Parameters
    ----------
    m : Module
    value : Value
    stages : range
        Exponents of the powers. From all stages of a value, which may be done in several steps, its
        leading one comes to the top; zero moves as far as it may.
    free : Value, optional
        Whether the limit has a power of two that no stage before has used.
    limit : Value, optional
        The most places to move in all stages together.
    fill : Value, optional
        Bit that comes in from below; 0 if not given.

    Returns
    -------
    moved : Value
        As wide as ``value``.
    places : Value
        Whether it moved, for each of the stages, the smallest first.
    free : Value
    """
    # The largest power of two first. A limit has one that it lacks to spare for all smaller ones
    # as soon as one of its own was not used.
    fill = C(0, 1) if fill is None else fill
    places = []
    for stage in reversed(stages):
        before, before_free = value, free
        value = Signal(len(before), name=f"moved{stage}")
        move = Signal(name=f"move{stage}")
        may = 1 if limit is None else before_free | limit[stage]
        m.d.comb += [
            move.eq(~before[-(1 << stage):].any() & may),
            value.eq(Mux(move, Cat(fill.replicate(1 << stage), before), before)),
        ]
        places.insert(0, move)
        if limit is not None:
            free = Signal(name=f"free{stage}")
            m.d.comb += free.eq(before_free | (limit[stage] & ~move))
    return value, Cat(places), free


class Normalize(wiring.Component):
    """A group sum as a float, with its leading one in the top bit.

    Latency 1, or 2 if ``fine``.

    Parameters
    ----------
    metadata : bool
    fine : bool

    Members
    -------
    sum : In(signed(19))
        Without metadata ``In(signed(14))``.
    scale : In(Scale)
    enable : In(latency)
        Moves each stage.
    o : Out(term_layout(metadata))
    """

    def __init__(self, *, metadata, fine=False):
        self.fine = fine
        self.latency = 1 + fine
        # A sum's units are 2**(Xw + Xx - unit).
        self.unit, layout = (260, GroupSum) if metadata else (256, PlainSum)
        super().__init__({
            "sum": In(layout["sum"].shape),
            "scale": In(Scale),
            "enable": In(self.latency),
            "o": Out(term_layout(metadata)),
        })

    def elaborate(self, platform):
        m = Module()
        stages = Stages(m, self.enable)

        # One bit less than the sum has: its lowest value does not occur.
        bits = len(self.sum) - 1
        magnitude = Signal(bits)
        negative = self.sum < 0
        m.d.comb += magnitude.eq(Mux(negative, -self.sum, self.sum))
        most = (bits - 1).bit_length()
        moved, high, _ = _normalize(m, magnitude, range(3, most))
        scale = self.scale
        if self.fine:
            moved, high, negative, scale = stages.cut(
                moved=moved, places=high, moved_negative=negative, moved_scale=scale)
        significand, low, _ = _normalize(m, moved, range(3))

        term = Signal(self.o.shape())
        m.d.comb += [
            term.significand.eq(significand),
            term.negative.eq(negative),
            term.exponent.eq(scale.exponent - (self.unit - (bits - 1) - 127) - Cat(low, high)),
            term.nan.eq(scale.nan),
        ]
        m.d.comb += self.o.eq(stages.cut(term=term)[0])

        return m


class TermAdder(wiring.Component):
    """Adds a term to a float32, rounded once; corners as in `GroupAccumulator`.

    Latency 2, or 6 if ``fine``.

    Parameters
    ----------
    metadata : bool
    fine : bool

    Members
    -------
    term : In(term_layout(metadata))
    acc : In(32)
    enable : In(latency)
        Moves each stage.
    o : Out(32)
    """

    def __init__(self, *, metadata, fine=False):
        self.fine = fine
        self.latency = 6 if fine else 2
        super().__init__({
            "term": In(term_layout(metadata)),
            "acc": In(32),
            "enable": In(self.latency),
            "o": Out(32),
        })

    def elaborate(self, platform):
        m = Module()
        stages = Stages(m, self.enable)

        def cut(name, value):
            return stages.cut(**{name: value})[0] if self.fine else value

        ordered = cut("ordered", _order(m, self.term, self.acc))
        terms = cut("aligned", _align(m, ordered))
        total, = stages.cut(total=_add(m, terms))
        settled = cut("settled", _settle(m, cut("moved", _move(m, total))))
        m.d.comb += self.o.eq(stages.cut(result=_round(m, settled))[0])

        return m


def _order(m, term, acc):
    """Orders a term and the float32 it is added to by exponent."""
    o = Signal(_Ordered)
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
    amount = Signal(11)
    m.d.comb += [
        distance.eq(acc_exponent - term.exponent),
        # An infinite accumulator stays, with its sign, however large the term. Nor does it
        # move for zero, whose exponent means nothing.
        swap.eq((distance < 0) & significand[-1] & ~acc_special),
        # The complement is one less than the negative, so the accumulator is moved one place
        # beforehand.
        amount.eq(distance ^ swap.replicate(11)),
        o.small.eq(Mux(swap, acc_significand, term_aligned << 1)),
        o.large.eq(Mux(swap, term_aligned, acc_significand)),
        o.large_negative.eq(Mux(swap, term.negative, acc[31])),
        o.small_negative.eq(Mux(swap, acc[31], term.negative)),
        o.exponent.eq(Mux(swap, term.exponent, acc_exponent)),
        o.nan.eq(term.nan | (acc_special & acc[:23].any())),

        # From 32 places on, nothing is left of 27 bits but the sticky one. Nor may anything
        # be left beside an infinite accumulator: a term of its exponent could turn its sign.
        o.amount.eq(amount[:5]),
        o.far.eq(amount[5:].any() | acc_special),
    ]
    return o


def _align(m, i):
    """Moves the smaller operand to where the larger one is, and begins to add."""
    o = Signal(_Aligned)
    lost = C(0, 1)
    shifted = i.small << (_GUARD - 1)
    for place in reversed(range(5)):
        value, shift = shifted, i.amount[place]
        shifted = Signal(_MANTISSA + _GUARD, name=f"shifted{place}")
        some = Signal(name=f"lost{place}")
        m.d.comb += [
            shifted.eq(Mux(shift, value >> (1 << place), value)),
            some.eq(lost | (shift & value[: 1 << place].any())),
        ]
        lost = some
    subtract = Signal()
    large = Signal(_MANTISSA + _GUARD)
    # Sticky bit last, and a bit for the sign.
    small = Signal(signed(_MANTISSA + _GUARD + 1))
    m.d.comb += [
        subtract.eq(i.large_negative ^ i.small_negative),
        large.eq(i.large << _GUARD),
        small.eq(Mux(i.far, i.small.any(), shifted | lost) ^ subtract.replicate(len(small))),
        # The inverted operand's one comes in as a carry.
        o.lower.eq(add(m, Cat(large[:_LOWER], C(0, 1)), Cat(small[:_LOWER], C(0, 1)),
                       carry=subtract, name="lower_sum")),
        o.large.eq(large[_LOWER:]),
        o.small.eq(small[_LOWER:]),
        o.negative.eq(i.large_negative),
        o.exponent.eq(i.exponent),
        o.nan.eq(i.nan),
    ]
    return o


def _add(m, i):
    """Adds the upper bits of aligned operands."""
    o = Signal(_Sum)
    m.d.comb += [
        o.total.eq(Cat(i.lower[:-1], add(m, Cat(i.large, C(0, 2)), Cat(i.small, i.small[-1]),
                                         carry=i.lower[-1], name="total"))),
        o.negative.eq(i.negative),
        o.exponent.eq(i.exponent),
        o.nan.eq(i.nan),
    ]
    return o


def _move(m, i):
    """Moves a sum's leading one to its top eight bits, or as far as to exponent 1."""
    o = Signal(_Moved)
    # Of a difference d below zero -1 - d is taken; what is missing is added on rounding.
    width = len(o.magnitude)
    inverted = i.total[-1]
    magnitude = Signal(width)
    m.d.comb += magnitude.eq(i.total[:-1] ^ inverted.replicate(width))
    moved, places, free = _normalize(m, magnitude, range(_COARSE, 5), free=i.exponent[5:].any(),
                                     limit=i.exponent, fill=inverted)
    m.d.comb += [
        o.magnitude.eq(moved),
        o.inverted.eq(inverted),
        o.places.eq(places),
        o.free.eq(free),
        # Equal magnitudes cancel to +0. Zeros of equal sign are not negative: a group's zero
        # never is.
        o.negative.eq((i.negative ^ inverted) & i.total.any()),
        o.exponent.eq(i.exponent),
        o.nan.eq(i.nan),
    ]
    return o


def _settle(m, i):
    """Normalizes, and tells whether to round up."""
    o = Signal(_Settled)
    # The leading one goes to the top bit, whose exponent is one above the operands', but
    # no further than down to exponent 1.
    normalized, places, _ = _normalize(m, i.magnitude, range(_COARSE), free=i.free,
                                       limit=i.exponent, fill=i.inverted)

    # guard sticky last | up
    #   0      -     -  | 0
    #   1      0     0  | 0  tie, even already
    #   1      0     1  | 1  tie, to even
    #   1      1     -  | 1
    # A difference d below zero, rounded, is its upper bits d' and up; -d' - up is the inverted bits
    # and 1 - up.
    last = len(normalized) - _MANTISSA
    low = normalized[: last + 1] ^ i.inverted.replicate(last + 1)
    m.d.comb += [
        o.up.eq((low[last - 1] & (low[: last - 1].any() | low[last])) ^ i.inverted),
        # Without the leading one.
        o.mantissa.eq(normalized[last:-1]),
        o.passes.eq(normalized[last : last + _HALF].all()),
        o.exponent.eq(Mux(normalized[-1], i.exponent + 1 - Cat(places, i.places), 0)),
        o.negative.eq(i.negative),
        o.nan.eq(i.nan),
    ]
    return o


def _round(m, i):
    """Rounds to nearest even and packs a float32."""
    o = Signal(32)
    # A carry out of the mantissa runs into the exponent, also from the largest subnormal into the
    # smallest normal, and from the largest normal to where infinity is.
    lower = increment(m, i.mantissa[:_HALF], i.up, name="lower")
    upper = increment(m, Cat(i.mantissa[_HALF:], i.exponent[:8]), i.up & i.passes, name="upper")
    with m.If(i.nan):
        m.d.comb += o.eq(FLOAT32_NAN)
    with m.Elif(i.exponent >= 255):
        m.d.comb += o.eq(Cat(C(0x7F800000, 31), i.negative))
    with m.Else():
        m.d.comb += o.eq(Cat(lower, upper, i.negative))
    return o
