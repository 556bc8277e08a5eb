# SPDX-License-Identifier: BSD-2-Clause
"""Adds scaled group sums to float32 values, with one rounding (specification section 7).

`Normalizer` makes a float of a group's integer sum and its two scale codes. `TermAdder` adds that
float, the term, to a float32 in five steps, each a function here: order, align, add, normalize,
round.

The adder has one path. Adders with a near and a far path keep two cases apart: in the near path,
an effective subtraction of operands whose exponents differ by at most one, many leading bits may
cancel, but alignment moves by at most one place; in the far path alignment moves by any number of
places, but normalization by at most one. Here both cases pass one shifter for the alignment and
one for the normalization.
"""

from types import SimpleNamespace

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import carry_chain_add, carry_skip_add, carry_skip_increment
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

SpecialSum = group_sum(20)
"""With a group sum of Sg-special in units of 1/64: at most 4 * 100352 = 401408 < 2**19."""

WideSum = group_sum(23)
"""With a group sum of Sg-special64 in units of 1/64: at most 8 * 401408 = 3211264 < 2**22."""

PlainSum = group_sum(14)
"""With a group sum of MXFP4 in units of 1/4: at most 32 * 144 = 4608 < 2**13 in magnitude."""

SUMS = {"elem-em": GroupSum, "sg-em": GroupSum, "sg-special": SpecialSum, "sg-special64": WideSum}
"""Layouts of group sums by the encoding of the activations."""

Scale = data.StructLayout({"exponent": 9, "nan": 1})
"""Sum of a group's two scale codes, at most 510 < 2**9, and whether either is NaN."""


def term_layout(metadata, special=False, wide=False):
    """Layout of a group sum as a float; with special values it is a place wider.

    In groups of 64 (``wide``) it is three more.
    """
    return data.StructLayout({
        # As wide as a group sum's magnitude. The leading one is in the top bit; only zero has none.
        "significand": 22 if wide else 19 if special else 18 if metadata else 13,
        "negative": 1,
        # Exponent of the top bit, biased as in float32. With z leading zeros in the magnitude, that
        # bit is worth 2**(17 - z) units of 2**(Xw + Xx - 260): the field is Xw + Xx - 116 - z, from
        # -133 to 394 with the NaN scales. Without metadata it is 2**(12 - z) units of
        # 2**(Xw + Xx - 256): the field is Xw + Xx - 117 - z, within that range. With special values
        # it is Xw + Xx - 115 - z, where both scale codes are at least 96: from 58 to 395. In groups
        # of 64 it is Xw + Xx - 112 - z, from 58 to 398 likewise.
        "exponent": signed(10),
        "nan": 1,
    })


RowTerm = data.StructLayout({
    # The leading one is in the top bit; only zero has none. Rounded to odd.
    "significand": 24,
    "negative": 1,
    # Exponent of the top bit, biased as in float32: 107 to 154, of four groups to 155, or less if
    # the row is zero.
    "exponent": 8,
    "nan": 1,
})
"""A row of NVFP4, two or four groups under their scales, as a float. Specification section 9.5."""

_MANTISSA = 24
"""Bits of a float32 significand, with the leading one."""

_GUARD = 3
"""Bits kept below the significand, the last of them sticky.

A difference of operands more than one place apart loses at most one leading bit, so that a guard
bit and a sticky bit are left."""

_LOWER = 10
"""Bits of the sum that are added before the register behind the alignment."""

_COARSE = 3
"""The coarse normalization moves by multiples of 2**3 places, the fine one by less than that."""

_HALF = 12
"""Bits of the lower half of a mantissa, which is incremented apart from the upper half."""

_ALIGNMENT = 5
"""Bits of the alignment shift. 2**5 = 32 places are more than the 27 bits of an operand."""

_WIDTH = _MANTISSA + _GUARD
"""Bits of an aligned operand."""

_Ordered = data.StructLayout({
    # Significand of the operand with the larger exponent.
    "larger": _MANTISSA,
    # Significand of the other operand, with one place below.
    "smaller": _MANTISSA + 1,
    "larger_negative": 1,
    "smaller_negative": 1,
    # Biased exponent of the larger operand, 1 to 398: subnormals have 1.
    "exponent": 9,
    # The result is NaN.
    "nan": 1,
    # Places to move the smaller operand down by.
    "alignment_shift": _ALIGNMENT,
    # The smaller operand is below all places that are kept: it counts as a sticky bit.
    "below_window": 1,
})
"""Operands in the order of their exponents."""

_Aligned = data.StructLayout({
    # Sum of the operands' lower bits, with its carry.
    "lower_sum": _LOWER + 1,
    # Upper bits of the operands. The smaller one is inverted in an effective subtraction, so that
    # it has a sign.
    "larger": _WIDTH - _LOWER,
    "smaller": signed(_WIDTH + 1 - _LOWER),
    # Sign of the larger operand.
    "negative": 1,
    "exponent": 9,
    "nan": 1,
})
"""Operands with the same unit in the last place, their lower bits added."""

_Total = data.StructLayout({
    # The larger operand plus or minus the smaller one: one bit more than the operands have for the
    # carry, and one for the sign of a difference below zero.
    "total": signed(_WIDTH + 2),
    "negative": 1,
    "exponent": 9,
    "nan": 1,
})
"""The sum, relative to the sign of the larger operand."""

_Coarse = data.StructLayout({
    # The total without its sign: d, or -1 - d of a difference d below zero.
    "magnitude": _WIDTH + 1,
    "inverted": 1,
    # It has been moved up by so many times 2**3 places: 0 to 3, as all 28 bits may be zero.
    "coarse_shift": 5 - _COARSE,
    # The exponent allows all further shifts.
    "unlimited": 1,
    # Sign of the result.
    "negative": 1,
    "exponent": 9,
    "nan": 1,
})
"""The sum with its leading one in the top eight bits, or as near to them as exponent 1 allows."""

_Normalized = data.StructLayout({
    # Without the leading one.
    "mantissa": _MANTISSA - 1,
    # 0 if the sum is subnormal, at most 399.
    "exponent": 9,
    "round_up": 1,
    # All bits of the mantissa's lower half are set: a carry passes it.
    "carry_passes": 1,
    "negative": 1,
    "nan": 1,
})
"""The sum with its leading one in the top bit, and whether to round it up."""


def _bundle(layout, **values):
    """Values as a view of a layout, which names them in this order."""
    assert [*values] == [name for name, _ in layout]
    assert [len(value) for value in values.values()] == [field.width for _, field in layout]
    return data.View(layout, Cat(values.values()))


def scale_sum(activation_scale, weight_scale):
    """Adds both scale codes of a group, as a `Scale`."""
    nan = (activation_scale == SCALE_NAN) | (weight_scale == SCALE_NAN)
    return data.View(Scale, Cat(activation_scale + weight_scale, nan))


WideScale = data.StructLayout({"exponent": 7, "nan": 1})
"""Sum of the exponents e of two groups of Sg-special64, and whether either is NaN."""


def wide_scale_sum(activation_scale, weight_byte):
    """Adds the scales of groups of Sg-special64, as a `WideScale`.

    Parameters
    ----------
    activation_scale : Value
        E8M0 code, from `special_scale`: 96 + e, with e of six bits, or 255.
    weight_byte : Value
        The scale byte of a record.
    """
    exponent = Cat(activation_scale[:5], activation_scale[7])
    # Above five bits the code is 011 for e below 32, else 100; only NaN has both upper bits.
    nan = activation_scale[6:].all() | (weight_byte == SCALE_NAN)
    return data.View(WideScale, Cat(exponent + weight_byte[2:], nan))


def of_codes(scale):
    """The `Scale` of a `WideScale`: both codes are 96 more than their exponents."""
    return data.View(Scale, Cat((scale.exponent + 2 * 96)[:9], scale.nan))


def _normalize(m, value, stages, *, unlimited=None, limit=None, fill=None):
    """Shifts a value up until its leading one is in the top bit, by powers of two of places.

    Parameters
    ----------
    m : Module
    value : Value
    stages : range
        Exponents of the powers. The leading one gets to the top if all powers below the value's
        width are tried, the largest first, in one call or in several; zero moves as far as it may.
    unlimited : Value, optional
        Whether earlier stages have left a power of two of the limit unused.
    limit : Value, optional
        The most places to shift by in all stages together.
    fill : Value, optional
        Bit that comes in from below; 0 if not given.

    Returns
    -------
    normalized : Value
        As wide as ``value``.
    shift : Value
        The places that it was shifted by: the sum of ``2**stage`` over its bits, the bit of the
        first stage lowest.
    unlimited : Value
    """
    # The largest power of two first. Once one power of the limit was not used, that one is more
    # than all smaller powers together: the limit does not bind any more.
    fill = C(0, 1) if fill is None else fill
    shifts = []
    for stage in reversed(stages):
        before, before_unlimited = value, unlimited
        value = Signal(len(before), name=f"normalized{stage}")
        shift = Signal(name=f"shift{stage}")
        allowed = 1 if limit is None else before_unlimited | limit[stage]
        m.d.comb += [
            shift.eq(~before[-(1 << stage):].any() & allowed),
            value.eq(Mux(shift, Cat(fill.replicate(1 << stage), before), before)),
        ]
        shifts.insert(0, shift)
        if limit is not None:
            unlimited = Signal(name=f"unlimited{stage}")
            m.d.comb += unlimited.eq(before_unlimited | (limit[stage] & ~shift))
    return value, Cat(shifts), unlimited


class Normalizer(wiring.Component):
    """Makes a float of a group sum, with its leading one in the top bit. Nothing is rounded.

    Latency 1, or 2 if ``fine``, or 3 if ``finest``.

    Parameters
    ----------
    metadata : bool
        Whether the sum is one of operands with metadata.
    fine : bool
        Whether there is a register inside, for 1 GHz.
    finest : bool
        Whether there is, besides, one behind the magnitude, for an FPGA.
    special : bool
        Whether the operands have special values, too.
    wide : bool
        Whether they are groups of 64, in Sg-special64.
    paired : bool
        Whether the sum less one comes along, so that the negated sum takes no carry.

    Members
    -------
    sum : In(signed(19))
        In units of 1/64; with special values ``In(signed(20))``, in groups of 64
        ``In(signed(23))``; without metadata ``In(signed(14))``, in units of 1/4.
    less : In
        As ``sum``, one less; if ``paired``.
    scale : In(Scale)
    enable : In(latency)
        Moves each stage.
    o : Out(term_layout(metadata, special, wide))
    """

    def __init__(self, *, metadata, fine, finest=False, special=False, wide=False, paired=False):
        self.is_paired = paired
        self.fine = fine
        self._finest = finest
        self.latency = 1 + fine + finest
        # A sum's units are 2**(Xw + Xx - unit).
        self.unit, layout = ((260, WideSum) if wide else (260, SpecialSum) if special else
                             (260, GroupSum) if metadata else (256, PlainSum))
        super().__init__({
            "sum": In(layout["sum"].shape),
            **({"less": In(layout["sum"].shape)} if paired else {}),
            "scale": In(Scale),
            "enable": In(self.latency),
            "o": Out(term_layout(metadata, special, wide)),
        })

    def elaborate(self, platform):
        m = Module()
        stages = Stages(m, self.enable)

        # One bit less than the sum has: its lowest value does not occur.
        bits = len(self.sum) - 1
        magnitude = Signal(bits)
        negative = self.sum < 0
        negated = ~self.less if self.is_paired else -self.sum
        m.d.comb += magnitude.eq(Mux(negative, negated, self.sum))
        most = (bits - 1).bit_length()
        scale, middle = self.scale, most - 1
        if self._finest:
            held = stages.cut("magnitude", value=magnitude, negative=negative, scale=scale)
            magnitude, negative, scale = held.value, held.negative, held.scale
            middle -= 1
        coarse, high, _ = _normalize(m, magnitude, range(middle, most))
        if self.fine:
            held = stages.cut("coarse", value=coarse, shift=high, negative=negative, scale=scale)
            coarse, high, negative, scale = held.value, held.shift, held.negative, held.scale
        significand, low, _ = _normalize(m, coarse, range(middle))

        # The shift is the count of leading zeros.
        term = Signal(self.o.shape())
        m.d.comb += [
            term.significand.eq(significand),
            term.negative.eq(negative),
            term.exponent.eq(scale.exponent - (self.unit - (bits - 1) - 127) - Cat(low, high)),
            term.nan.eq(scale.nan),
        ]
        m.d.comb += self.o.eq(stages.hold("normalized", term))

        return m


class TermAdder(wiring.Component):
    """Adds a term to a float32 and rounds once; corner cases are those of `GroupAccumulator`.

    Latency 2, or 6 if ``fine``, or 7 if ``finest``.

    Parameters
    ----------
    layout : data.StructLayout
        That of the term: `term_layout` or `RowTerm`.
    fine : bool
        Whether there is a register behind each step, for 1 GHz.
    finest : bool
        Whether there is, besides, one before the rounding is decided, for an FPGA.

    Members
    -------
    term : In(layout)
    acc : In(32)
        Float32 bits.
    enable : In(latency)
        Moves each stage.
    o : Out(32)
        Float32 bits.
    """

    def __init__(self, layout, *, fine, finest=False):
        self.fine = fine
        self._finest = finest
        self.latency = 6 + finest if fine else 2
        super().__init__({
            "term": In(layout),
            "acc": In(32),
            "enable": In(self.latency),
            "o": Out(32),
        })

    def elaborate(self, platform):
        m = Module()
        stages = Stages(m, self.enable)

        def hold_fine(name, values):
            return stages.hold(name, values) if self.fine else values

        # An FPGA has carry chains.
        adder = carry_chain_add if self._finest else carry_skip_add
        ordered = hold_fine("ordered", _order(m, self.term, self.acc))
        aligned = hold_fine("aligned", _align(m, ordered, adder))
        total = stages.hold("total", _add(m, aligned, adder))
        coarse = hold_fine("coarse", _normalize_coarse(m, total))
        moved = _move_fine(m, coarse)
        if self._finest:
            moved = SimpleNamespace(**vars(stages.cut("moved", **vars(moved))))
        normalized = hold_fine("normalized", _decide(m, moved))
        m.d.comb += self.o.eq(stages.hold("result", _round(m, normalized)))

        return m


def _order(m, term, acc):
    """Orders a term and the float32 it is added to by exponent, as `_Ordered`."""
    acc_biased = acc[23:31]
    acc_special = acc_biased.all()
    acc_exponent = Signal(8)
    acc_significand = Signal(_MANTISSA)
    m.d.comb += [
        # Subnormals share exponent 1 and lack the leading one.
        acc_exponent.eq(acc_biased | (acc_biased == 0)),
        acc_significand.eq(Cat(acc[:23], acc_biased.any())),
    ]

    # The operand with the larger exponent stays. A term below exponent 1 meets an accumulator of at
    # least that, so it is denormalized in the alignment and never comes up again: results below the
    # normal range are already in units of 2**-149.
    #
    # Exponents are 1 to 255 and -133 to 398, so their difference is -397 to 388. Amaranth counts
    # eleven bits for the difference of eight unsigned and ten signed bits.
    distance = Signal(signed(11))
    term_larger = Signal()
    term_significand = Cat(C(0, _MANTISSA - len(term.significand)), term.significand)
    places = Signal(11)
    larger = Signal(_MANTISSA)
    smaller = Signal(_MANTISSA + 1)
    larger_negative = Signal()
    smaller_negative = Signal()
    exponent = Signal(9)
    nan = Signal()
    below_window = Signal()
    m.d.comb += [
        distance.eq(acc_exponent - term.exponent),
        # An infinite accumulator stays, with its sign, however large the term. Nor does the
        # accumulator move for a zero term, whose exponent means nothing.
        term_larger.eq((distance < 0) & term.significand[-1] & ~acc_special),
        # A distance below zero is not negated but inverted, which gives one place less: the
        # accumulator is one place lower than a term from the start.
        places.eq(distance ^ term_larger.replicate(11)),
        smaller.eq(Mux(term_larger, acc_significand, term_significand << 1)),
        larger.eq(Mux(term_larger, term_significand, acc_significand)),
        larger_negative.eq(Mux(term_larger, term.negative, acc[31])),
        smaller_negative.eq(Mux(term_larger, acc[31], term.negative)),
        exponent.eq(Mux(term_larger, term.exponent, acc_exponent)),
        nan.eq(term.nan | (acc_special & acc[:23].any())),

        # From 32 places on, nothing is left of 27 bits but the sticky one. Nor may more than that
        # be left beside an infinite accumulator: a term of its exponent could turn its sign.
        below_window.eq(places[_ALIGNMENT:].any() | acc_special),
    ]
    return _bundle(_Ordered, larger=larger, smaller=smaller, larger_negative=larger_negative,
                   smaller_negative=smaller_negative, exponent=exponent, nan=nan,
                   alignment_shift=places[:_ALIGNMENT], below_window=below_window)


def _align(m, i, adder):
    """Moves the smaller operand to where the larger one is, and begins to add, as `_Aligned`."""
    sticky = C(0, 1)
    shifted = i.smaller << (_GUARD - 1)
    for stage in reversed(range(_ALIGNMENT)):
        before, before_sticky, shift = shifted, sticky, i.alignment_shift[stage]
        shifted = Signal(_WIDTH, name=f"shifted{stage}")
        sticky = Signal(name=f"sticky{stage}")
        m.d.comb += [
            shifted.eq(Mux(shift, before >> (1 << stage), before)),
            sticky.eq(before_sticky | (shift & before[: 1 << stage].any())),
        ]
    effective_subtraction = Signal()
    larger = Signal(_WIDTH)
    # The sticky bit is in the last place. A bit above is the sign of the inverted operand.
    smaller = Signal(signed(_WIDTH + 1))
    m.d.comb += [
        effective_subtraction.eq(i.larger_negative ^ i.smaller_negative),
        larger.eq(i.larger << _GUARD),
        smaller.eq(Mux(i.below_window, i.smaller.any(), shifted | sticky)
                   ^ effective_subtraction.replicate(len(smaller))),
    ]
    # The one that completes the negation comes in as a carry. Both operands get a zero above, where
    # the sum's carry comes out.
    lower_sum = adder(m, Cat(larger[:_LOWER], C(0, 1)), Cat(smaller[:_LOWER], C(0, 1)),
                      carry=effective_subtraction, name="lower_sum")
    return _bundle(_Aligned, lower_sum=lower_sum, larger=larger[_LOWER:], smaller=smaller[_LOWER:],
                   negative=i.larger_negative, exponent=i.exponent, nan=i.nan)


def _add(m, i, adder):
    """Adds the upper bits of aligned operands, as `_Total`."""
    total = Signal(signed(_WIDTH + 2))
    # The larger operand gets two zeros above, the smaller one a copy of its sign.
    upper = adder(m, Cat(i.larger, C(0, 2)), Cat(i.smaller, i.smaller[-1]),
                  carry=i.lower_sum[-1], name="upper_sum")
    m.d.comb += total.eq(Cat(i.lower_sum[:-1], upper))
    return _bundle(_Total, total=total, negative=i.negative, exponent=i.exponent, nan=i.nan)


def _normalize_coarse(m, i):
    """Shifts a sum's leading one into the top eight bits, but not below exponent 1: `_Coarse`."""
    inverted = i.total[-1]
    magnitude = Signal(_WIDTH + 1)
    negative = Signal()
    m.d.comb += [
        magnitude.eq(i.total[:-1] ^ inverted.replicate(_WIDTH + 1)),
        # Equal magnitudes cancel to +0. Zeros of equal sign are not negative: a group's zero never
        # is.
        negative.eq((i.negative ^ inverted) & i.total.any()),
    ]
    # The top bit's exponent is one above the operands'. As many places further down as the
    # operands' exponent says, bits have exponent 1, so that is the limit; from 2**5 on it allows
    # anything.
    normalized, coarse_shift, unlimited = _normalize(
        m, magnitude, range(_COARSE, 5), unlimited=i.exponent[5:].any(), limit=i.exponent,
        fill=inverted)
    return _bundle(_Coarse, magnitude=normalized, inverted=inverted, coarse_shift=coarse_shift,
                   unlimited=unlimited, negative=negative, exponent=i.exponent, nan=i.nan)


def _move_fine(m, i):
    """Shifts a sum's leading one to the top bit, but not below exponent 1: subnormal then."""
    normalized, fine_shift, _ = _normalize(m, i.magnitude, range(_COARSE), unlimited=i.unlimited,
                                           limit=i.exponent, fill=i.inverted)
    return SimpleNamespace(normalized=normalized, inverted=i.inverted, fine_shift=fine_shift,
                           coarse_shift=i.coarse_shift, exponent=i.exponent, negative=i.negative,
                           nan=i.nan)


def _decide(m, i):
    """Decides the rounding of a sum whose leading one is in the top bit, as `_Normalized`."""
    normalized = i.normalized
    # Of 28 bits the upper 24 are kept. Rounding to nearest, ties to even, of the magnitude:
    # guard sticky odd | up
    #   0      0     -  | 0  exact
    #   0      1     -  | 0  below one half
    #   1      0     0  | 0  tie, even already
    #   1      0     1  | 1  tie, to even
    #   1      1     -  | 1  above one half
    # An inverted sum is ~d, with d < 0 and ones shifted in. Its bits inverted again are those of d,
    # for which the table decides: the rounded value is d' + up, where d' are the upper bits. Its
    # magnitude is -d' - up = ~d' + (1 - up), so the kept bits ~d' go up where d' does not.
    last = len(normalized) - _MANTISSA
    low = normalized[: last + 1] ^ i.inverted.replicate(last + 1)
    guard, sticky, odd = low[last - 1], low[: last - 1].any(), low[last]
    round_up = Signal()
    carry_passes = Signal()
    exponent = Signal(9)
    m.d.comb += [
        round_up.eq((guard & (sticky | odd)) ^ i.inverted),
        carry_passes.eq(normalized[last : last + _HALF].all()),
        # The top bit's exponent is one above that of the operands, less the shift: at most 399. A
        # sum without a one in the top bit is subnormal.
        exponent.eq(Mux(normalized[-1], i.exponent + 1 - Cat(i.fine_shift, i.coarse_shift), 0)),
    ]
    return _bundle(_Normalized, mantissa=normalized[last:-1], exponent=exponent, round_up=round_up,
                   carry_passes=carry_passes, negative=i.negative, nan=i.nan)


def _round(m, i):
    """Rounds a normalized sum and packs it as a float32, 32 bits."""
    o = Signal(32, name="rounded")
    # exponent  mantissa  round_up | result
    #     0     not 2**23 - 1  -   | subnormal or zero
    #     0     2**23 - 1      0   | the largest subnormal
    #     0     2**23 - 1      1   | the carry makes exponent 1: the smallest normal number
    #  1..253       -          -   | normal; a carry makes the exponent one larger
    #    254    not 2**23 - 1  -   | normal
    #    254    2**23 - 1      0   | the largest normal number
    #    254    2**23 - 1      1   | the carry makes exponent 255, mantissa 0: infinity
    #  255..        -          -   | infinity
    # One increment over mantissa and exponent does all rows but the last.
    lower = carry_skip_increment(m, i.mantissa[:_HALF], i.round_up, name="lower")
    upper = carry_skip_increment(m, Cat(i.mantissa[_HALF:], i.exponent[:8]),
                                 i.round_up & i.carry_passes, name="upper")
    with m.If(i.nan):
        m.d.comb += o.eq(FLOAT32_NAN)
    with m.Elif(i.exponent >= 255):
        m.d.comb += o.eq(Cat(C(0x7F800000, 31), i.negative))
    with m.Else():
        m.d.comb += o.eq(Cat(lower, upper, i.negative))
    return o
