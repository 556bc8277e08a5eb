# SPDX-License-Identifier: BSD-2-Clause
"""Adds scaled group sums to float32 values: group sums as floats, and a rounding adder."""

from types import SimpleNamespace

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import carry_skip_add, carry_skip_increment
from .formats import FLOAT32_NAN, SCALE_NAN
from .pipeline import Stages


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

_LOWER = 10
"""Bits of a sum that are added as soon as the operands are aligned."""

_COARSE = 3
"""A sum is normalized by multiples of 2**3 places first."""

_HALF = 12
"""Bits of the lower half of a mantissa."""


def scale_sum(activation_scale, weight_scale):
    """Both scale codes as a `Scale`."""
    nan = (activation_scale == SCALE_NAN) | (weight_scale == SCALE_NAN)
    return data.View(Scale, Cat(activation_scale + weight_scale, nan))


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

    def __init__(self, *, metadata, fine):
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
        moved, high, _ = _normalize(m, magnitude, range(most - 1, most))
        scale = self.scale
        if self.fine:
            held = stages.cut("moved", value=moved, places=high, negative=negative, scale=scale)
            moved, high, negative, scale = held.value, held.places, held.negative, held.scale
        significand, low, _ = _normalize(m, moved, range(most - 1))

        term = Signal(self.o.shape())
        m.d.comb += [
            term.significand.eq(significand),
            term.negative.eq(negative),
            term.exponent.eq(scale.exponent - (self.unit - (bits - 1) - 127) - Cat(low, high)),
            term.nan.eq(scale.nan),
        ]
        m.d.comb += self.o.eq(stages.cut("normalized", term=term).term)

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

    def __init__(self, *, metadata, fine):
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

        def cut(stage, values):
            return stages.cut(stage, **vars(values))

        def cut_fine(stage, values):
            return cut(stage, values) if self.fine else values

        ordered = cut_fine("ordered", _order(m, self.term, self.acc))
        total = cut("total", _add(m, cut_fine("aligned", _align(m, ordered))))
        settled = cut_fine("settled", _settle(m, cut_fine("moved", _move(m, total))))
        m.d.comb += self.o.eq(stages.cut("result", o=_round(m, settled)).o)

        return m


def _order(m, term, acc):
    """Orders a term and the float32 it is added to by exponent.

    Returns
    -------
    SimpleNamespace
        ``large`` and ``small``, the significands, the small one with a place below;
        ``large_negative``, ``small_negative``; ``exponent`` of the large one, 1 to 394; ``nan``;
        ``amount`` of places to move the small one by, or ``far`` if they are too many.
    """
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
    large = Signal(_MANTISSA)
    small = Signal(_MANTISSA + 1)
    large_negative = Signal()
    small_negative = Signal()
    exponent = Signal(9)
    nan = Signal()
    far = Signal()
    m.d.comb += [
        distance.eq(acc_exponent - term.exponent),
        # An infinite accumulator stays, with its sign, however large the term. Nor does it
        # move for zero, whose exponent means nothing.
        swap.eq((distance < 0) & significand[-1] & ~acc_special),
        # The complement is one less than the negative, so the accumulator is moved one place
        # beforehand.
        amount.eq(distance ^ swap.replicate(11)),
        small.eq(Mux(swap, acc_significand, term_aligned << 1)),
        large.eq(Mux(swap, term_aligned, acc_significand)),
        large_negative.eq(Mux(swap, term.negative, acc[31])),
        small_negative.eq(Mux(swap, acc[31], term.negative)),
        exponent.eq(Mux(swap, term.exponent, acc_exponent)),
        nan.eq(term.nan | (acc_special & acc[:23].any())),

        # From 32 places on, nothing is left of 27 bits but the sticky one. Nor may anything
        # be left beside an infinite accumulator: a term of its exponent could turn its sign.
        far.eq(amount[5:].any() | acc_special),
    ]
    return SimpleNamespace(large=large, small=small, large_negative=large_negative,
                           small_negative=small_negative, exponent=exponent, nan=nan,
                           amount=amount[:5], far=far)


def _align(m, i):
    """Moves the smaller operand to where the larger one is, and begins to add.

    Returns
    -------
    SimpleNamespace
        ``lower``, the lower bits' sum with its carry; ``large`` and ``small``, the operands' upper
        bits, the small ones with their sign relative to the large one, inverted if negative;
        ``negative``, ``exponent`` of the large one; ``nan``.
    """
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
    ]
    return SimpleNamespace(
        # The inverted operand's one comes in as a carry.
        lower=carry_skip_add(m, Cat(large[:_LOWER], C(0, 1)), Cat(small[:_LOWER], C(0, 1)),
                  carry=subtract, name="lower_sum"),
        large=large[_LOWER:], small=small[_LOWER:].as_signed(), negative=i.large_negative,
        exponent=i.exponent, nan=i.nan)


def _add(m, i):
    """Adds the upper bits of aligned operands.

    Returns
    -------
    SimpleNamespace
        ``total``, signed, of the large operand and, with its sign relative to that, the small one;
        ``negative``, ``exponent`` of the large one; ``nan``.
    """
    # One bit for the carry and one that tells a difference below zero.
    total = Signal(signed(_MANTISSA + _GUARD + 2))
    m.d.comb += total.eq(Cat(i.lower[:-1], carry_skip_add(
        m, Cat(i.large, C(0, 2)), Cat(i.small, i.small[-1]), carry=i.lower[-1],
        name="upper_total")))
    return SimpleNamespace(total=total, negative=i.negative, exponent=i.exponent, nan=i.nan)


def _move(m, i):
    """Moves a sum's leading one to its top eight bits, or as far as to exponent 1.

    Returns
    -------
    SimpleNamespace
        ``magnitude`` or, of a difference d below zero, ``inverted`` -1 - d; the multiples of eight
        ``places`` that it was moved by, and whether it is ``free`` to move further; ``negative``,
        ``exponent``, ``nan``.
    """
    width = _MANTISSA + _GUARD + 1
    inverted = i.total[-1]
    magnitude = Signal(width)
    # Equal magnitudes cancel to +0. Zeros of equal sign are not negative: a group's zero never is.
    negative = Signal()
    m.d.comb += [
        magnitude.eq(i.total[:-1] ^ inverted.replicate(width)),
        negative.eq((i.negative ^ inverted) & i.total.any()),
    ]
    moved, places, free = _normalize(m, magnitude, range(_COARSE, 5), free=i.exponent[5:].any(),
                                     limit=i.exponent, fill=inverted)
    return SimpleNamespace(magnitude=moved, inverted=inverted, places=places, free=free,
                           negative=negative, exponent=i.exponent, nan=i.nan)


def _settle(m, i):
    """Normalizes, and tells whether to round up.

    Returns
    -------
    SimpleNamespace
        ``mantissa`` without the leading one, ``exponent``; ``up``, whether to round up, and
        ``passes``, whether a carry passes the lower half of the mantissa; ``negative``, ``nan``.
    """
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
    up = Signal()
    passes = Signal()
    exponent = Signal(9)
    m.d.comb += [
        up.eq((low[last - 1] & (low[: last - 1].any() | low[last])) ^ i.inverted),
        passes.eq(normalized[last : last + _HALF].all()),
        exponent.eq(Mux(normalized[-1], i.exponent + 1 - Cat(places, i.places), 0)),
    ]
    return SimpleNamespace(mantissa=normalized[last:-1], exponent=exponent, up=up, passes=passes,
                           negative=i.negative, nan=i.nan)


def _round(m, i):
    """Rounds to nearest even and packs a float32."""
    o = Signal(32, name="rounded")
    # A carry out of the mantissa runs into the exponent, also from the largest subnormal into the
    # smallest normal, and from the largest normal to where infinity is.
    lower = carry_skip_increment(m, i.mantissa[:_HALF], i.up, name="lower")
    upper = carry_skip_increment(m, Cat(i.mantissa[_HALF:], i.exponent[:8]), i.up & i.passes,
                                 name="upper")
    with m.If(i.nan):
        m.d.comb += o.eq(FLOAT32_NAN)
    with m.Elif(i.exponent >= 255):
        m.d.comb += o.eq(Cat(C(0x7F800000, 31), i.negative))
    with m.Else():
        m.d.comb += o.eq(Cat(lower, upper, i.negative))
    return o
