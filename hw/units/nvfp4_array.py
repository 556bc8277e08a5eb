# SPDX-License-Identifier: BSD-2-Clause
"""The weight-stationary array for NVFP4 and RaZeR, to compare with."""

from dataclasses import dataclass, replace
from functools import reduce
from operator import or_

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..lib.arithmetic import carry_skip_add, carry_skip_increment, compress
from ..lib.dot_product import add_products, e2m1_products
from ..lib.float_adder import RowTerm, TermAdder
from ..lib.formats import (
    NVFP4_GROUP,
    NVFP4_SCALE_NAN,
    DecodedE2M1,
    DecodedSpecial,
    decode_e2m1,
    decode_special,
    nvfp4_row,
)
from ..lib.pipeline import Control, Register, Stages
from ..lib.shadow_tile import check_columns, shadow_tile, stationary_weights
from ..lib.stream import gate, join, link
from ..lib.stream_register import StreamRegister


def nvfp4_activation(groups):
    """A row of activations, and whether it is the last that meets the present weights."""
    return data.StructLayout({"record": nvfp4_row(groups), "last": 1})

_Digits = data.ArrayLayout(3, 2)
"""A significand of four bits as two digits, the lower one first: whether it is 1, 2 or 3."""


@dataclass(frozen=True, kw_only=True)
class _Encoding:
    """What the encodings' arrays differ in.

    Attributes
    ----------
    groups : int
        Groups in a row, 2 or 4.
    operand : data.StructLayout
        Of a decoded element.
    weight_scale : int
        Bits of a weight's scale, without a selector.
    held : int
        Bits of a weight's scale byte that a column holds.
    places : int
        The largest difference of two groups' exponents, each of which is an activation's, 0 to 14,
        and a weight's.
    sum : int
        Bits of a group's sum, signed.
    unit : int
        Group sums are in units of 2**-unit: quarters under the smallest scales.
    """

    operand: data.StructLayout
    weight_scale: int
    held: int
    places: int
    sum: int
    unit: int
    groups: int = 2

    def decoded(self, m, codes, selector, *, name):
        """Elements of these codes; ``selector`` chooses the special value, if there is one."""
        if self.operand is DecodedE2M1:
            return [decode_e2m1(code) for code in codes]
        return [decode_special(m, code, selector, name=f"{name}_{n}")
                for n, code in enumerate(codes)]

    @property
    def weight_nan(self):
        """The weights' scale that is NaN: the uppermost code."""
        return (1 << self.weight_scale) - 1

    @property
    def row_sum(self):
        """Shape of a row's sum: a group's, as many places below, and the carries."""
        return signed(self.sum + self.places + self.groups // 2)

    @property
    def stationary(self):
        """A row of weights as a column holds it."""
        return data.StructLayout({
            "elements": data.ArrayLayout(data.ArrayLayout(4, NVFP4_GROUP), self.groups),
            "scales": data.ArrayLayout(self.held, self.groups),
        })

    @property
    def row(self):
        """A row of activations with codes and scales decoded. All columns share it."""
        return data.StructLayout({
            "operands": data.ArrayLayout(data.ArrayLayout(self.operand, NVFP4_GROUP),
                                         self.groups),
            "digits": data.ArrayLayout(_Digits, self.groups),
            "exponents": data.ArrayLayout(4, self.groups),
            # Of two groups the first exponent less the second one: -14 to 14.
            **({"difference": signed(5)} if self.groups == 2 else {}),
            "nan": 1,
        })


_ENCODINGS = {
    # Weights' exponents are 0 to 14, too. A sum is at most 16 * 144 * 15 * 15 = 518400 < 2**19.
    "nvfp4": _Encoding(operand=DecodedE2M1, weight_scale=7, held=7, places=28, sum=20, unit=20),
    # Weights' exponents are 0 to 6. The largest weight is 8 and the largest activation 6, so a sum
    # is at most 16 * 192 * 15 * 15 = 691200 < 2**20.
    "razer": _Encoding(operand=DecodedSpecial, weight_scale=6, held=8, places=20, sum=21, unit=16),
}


class Nvfp4Array(wiring.Component):
    """Multiplies activation rows by a stationary tile of NVFP4 or RaZeR weights, a row per cycle.

    It is the counterpart of `MacArray`, to compare with: a row is 32 elements, two groups of 16
    with an E4M3 scale each, or 64 elements, four groups. In RaZeR the code of -0 is a special
    value, and weights have E3M3 scales. A tile is one row of weights per column, ``weight_width``
    rows per transfer; it stays until the activation marked ``last``, and the next one loads
    meanwhile. Each column adds its dot product to an accumulator that comes in on ``i_acc`` and
    leaves on ``o``, in the order of the activations. Tensor scales are not applied: whoever takes
    the results of a whole product multiplies them by both, in float32.

    Products, the groups' sums and their sum, a row's, are exact. The row's sum is rounded to odd to
    24 bits, and the accumulator to nearest, ties to even: one rounding per row. Where the
    sum's exponent is greater than the row's by two or more, the result is that of a single
    rounding. An exact zero is +0; an infinite accumulator stays; a NaN scale or accumulator gives
    0x7FC00000.

    The latency from ``i_activation`` to ``o`` is 6. ``i_acc`` is taken 4 cycles after its
    activation. With four groups both are one more. Specification sections 8.18 and 9.5.

    Parameters
    ----------
    columns : int, at least 1
        Columns, N.
    weight_width : int
        Rows of weights per transfer, W; divides ``columns``.
    encoding : str
        "nvfp4" or "razer". Scale bytes of RaZeR have a selector of the special value above the
        scale: one bit in activations, 5 or -5, and two in weights, 5, -5, 8 or -8.
    groups : int
        Groups in a row, 2 or 4. Four share one accumulator, as the groups of 64 in Sg-special64 do.

    Members
    -------
    i_weight : In(stream.Signature(data.ArrayLayout(nvfp4_row(groups), W)))
        Rows of weights, column 0 first; the first of the next tile may follow at once.
    i_activation : In(stream.Signature(nvfp4_activation(groups)))
        A row of activations, which all columns multiply, and ``last``, which ends the use of the
        tile.
    i_acc : In(stream.Signature(data.ArrayLayout(32, columns)))
        Float32 bits, column 0 in the least significant ones.
    o : Out(stream.Signature(data.ArrayLayout(32, columns)))
        Float32 bits.

    Raises
    ------
    ValueError
        If ``columns`` is not a positive integer, ``weight_width`` does not divide it, there is no
        such encoding, or ``groups`` is not 2 or 4.
    """

    latency = 6
    acc_latency = 4

    def __init__(self, *, columns=32, weight_width=1, encoding="nvfp4", groups=2):
        check_columns(columns, weight_width)
        if encoding not in _ENCODINGS:
            raise ValueError(f"Encoding must be 'nvfp4' or 'razer', not {encoding!r}")
        if type(groups) is not int or groups not in (2, 4):
            raise ValueError(f"Groups must be 2 or 4, not {groups!r}")
        self.encoding = encoding
        self.groups = groups
        self.columns = columns
        self.weight_width = weight_width
        if groups == 4:
            self.latency, self.acc_latency = 7, 5
        accs = data.ArrayLayout(32, columns)
        super().__init__({
            "i_weight": In(stream.Signature(data.ArrayLayout(nvfp4_row(groups), weight_width))),
            "i_activation": In(stream.Signature(nvfp4_activation(groups))),
            "i_acc": In(stream.Signature(accs)),
            "o": Out(stream.Signature(accs)),
        })

    def elaborate(self, platform):
        m = Module()

        encoding = replace(_ENCODINGS[self.encoding], groups=self.groups)
        # Activations: codes and scales are decoded once for all columns.
        m.submodules.row = row = StreamRegister(data.StructLayout({
            "row": encoding.row, "last": 1}))
        link(m, self.i_activation, row.i)
        given, decoded = self.i_activation.payload.record, row.i.payload.row
        significands, exponents = zip(*(
            _decode_scale(m, given.scales[g][:7], name=f"activation{g}")
            for g in range(self.groups)), strict=True)
        if self.groups == 2:
            m.d.comb += decoded.difference.eq(exponents[0] - exponents[1])
        m.d.comb += [
            row.i.payload.last.eq(self.i_activation.payload.last),
            decoded.nan.eq(reduce(or_, (scale[:7] == NVFP4_SCALE_NAN for scale in given.scales))),
        ]
        for g in range(self.groups):
            codes = [given.elements[NVFP4_GROUP * g + n] for n in range(NVFP4_GROUP)]
            # Activations have no larger special value.
            operands = encoding.decoded(m, codes, Cat(given.scales[g][7], C(0, 1)),
                                        name=f"activation{g}")
            m.d.comb += [
                *(decoded.operands[g][n].eq(operand) for n, operand in enumerate(operands)),
                decoded.digits[g].eq(_digits(significands[g])),
                decoded.exponents[g].eq(exponents[g]),
            ]

        tile = shadow_tile(m, self.i_weight, self.columns // self.weight_width)

        # All columns move alike. One pipeline makes each row's sum a float; the other one, where
        # accumulators join, adds and rounds.
        m.submodules.multiply = multiply = Control(self.acc_latency - 1)
        m.submodules.add = add = Control(self.latency - self.acc_latency)
        gate(m, row.o, multiply.i, tile.present)
        join(m, [multiply.o, self.i_acc], add.i)
        link(m, add.o, self.o)
        m.d.comb += tile.consumed.eq(row.o.valid & row.o.ready & row.o.payload.last)
        # Columns multiply by the activations' significands in their second stage. These are the
        # same for all, so one register brings them there.
        m.submodules.digits = digits = Register(data.ArrayLayout(_Digits, self.groups))
        m.d.comb += [
            digits.i.eq(row.o.payload.row.digits),
            digits.enable.eq(multiply.enable[0]),
        ]
        for n in range(self.columns):
            m.submodules[f"column{n}"] = column = _Column(encoding)
            weight = self.i_weight.payload[n % self.weight_width]
            m.d.comb += [
                column.weight.elements.as_value().eq(weight.elements.as_value()),
                *(held.eq(scale[: encoding.held]) for held, scale in
                  zip(column.weight.scales, weight.scales, strict=True)),
                column.load.eq(tile.load & (tile.position == n // self.weight_width)),
                column.swap.eq(tile.swap),
                column.row.eq(row.o.payload.row),
                column.digits.eq(digits.o),
                column.enable.eq(Cat(multiply.enable, add.enable)),
                column.acc.eq(self.i_acc.payload[n]),
                self.o.payload[n].eq(column.o),
            ]

        return m


def _decode_scale(m, scale, *, name):
    """Splits an E4M3 or E3M3 code into a significand of four bits and an exponent from 0 on.

    The exponent is the code's, above its three lowest bits, less 1, but 0 for subnormals. So the
    scale is significand * 2**exponent times the smallest one, 2**-9 or 2**-5.
    """
    normal = Signal(name=f"{name}_normal")
    exponent = Signal(len(scale) - 3, name=f"{name}_exponent")
    m.d.comb += [normal.eq(scale[3:].any()), exponent.eq(scale[3:] - normal)]
    return Cat(scale[:3], normal), exponent


def _digits(significand):
    """Two digits of two bits each, one-hot: `_Digits`."""
    return Cat(Cat(low & ~high, high & ~low, low & high)
               for low, high in (significand[:2], significand[2:]))


def _times(m, value, digits, *, width, name):
    """Multiplies a signed value by a significand.

    Three times the value is made by one addition. Each digit then chooses one of 0, 1, 2 and 3
    times; there are two rows to add, where a row for each bit would make four.
    """
    bits = len(value) + 2
    tripled = Signal(signed(bits), name=f"{name}_tripled")
    m.d.comb += tripled.eq(value + (value << 1))
    choices = (Cat(value, value[-1].replicate(2)), Cat(C(0, 1), value, value[-1]), tripled)
    rows = []
    for digit, place in zip(digits, ("low", "high"), strict=True):
        row = Signal(signed(bits), name=f"{name}_{place}")
        m.d.comb += row.eq(reduce(or_, (choice & chosen.replicate(bits) for choice, chosen in
                                        zip(choices, digit, strict=True))))
        rows.append(row)
    total = Signal(signed(width), name=name)
    m.d.comb += total.eq(rows[0] + (rows[1] << 2))
    return total


class _Column(wiring.Component):
    """Holds the weights of one column, and computes and accumulates its dot products.

    Latency 5, or 6 with four groups in a row.

    Members
    -------
    weight : In(encoding.stationary)
        Goes into the shadow register with ``load``.
    load, swap : In(1)
        ``swap`` makes the shadow's row the present one.
    row : In(encoding.row)
        The activations.
    digits : In(data.ArrayLayout(_Digits, groups))
        Those of the row in the second stage.
    enable : In(latency)
        Moves each stage.
    acc : In(32)
        Float32 bits. It is taken together with the row that enters the adder.
    o : Out(32)
        Float32 bits.
    """

    def __init__(self, encoding):
        self.encoding = encoding
        self.normalize = _Normalize(encoding)
        self.add = TermAdder(RowTerm, fine=False)
        self.latency = 2 + encoding.groups // 2 + self.add.latency
        super().__init__({
            "weight": In(encoding.stationary),
            "load": In(1),
            "swap": In(1),
            "row": In(encoding.row),
            "digits": In(data.ArrayLayout(_Digits, encoding.groups)),
            "enable": In(self.latency),
            "acc": In(32),
            "o": Out(32),
        })

    def elaborate(self, platform):
        m = Module()

        stationary = stationary_weights(m, self.weight, load=self.load, swap=self.swap)

        scales = [scale[: self.encoding.weight_scale] for scale in stationary.scales]
        significands, exponents = zip(*(
            _decode_scale(m, scale, name=f"weight{g}") for g, scale in enumerate(scales)),
            strict=True)
        compare = self._compare_two if self.encoding.groups == 2 else self._place_four
        beside = compare(m, exponents)
        nan = Signal()
        m.d.comb += nan.eq(self.row.nan | reduce(or_, (
            scale == self.encoding.weight_nan for scale in scales)))

        # A group's dot product in units of 1/4 has 13 bits, as 16 * 144 = 2304 < 2**12, or 16 * 192
        # = 3072, and times the weights' significand 17.
        scaled = []
        for g in range(self.encoding.groups):
            weights = self.encoding.decoded(
                m, [stationary.elements[g][n] for n in range(NVFP4_GROUP)],
                stationary.scales[g][self.encoding.weight_scale :], name=f"weight{g}")
            m.submodules[f"dot{g}"] = dot = _Dot(self.encoding.operand)
            m.d.comb += [dot.weights.eq(Cat(weights)), dot.activations.eq(self.row.operands[g])]
            factor = Signal(_Digits, name=f"weight{g}_digits")
            m.d.comb += factor.eq(_digits(significands[g]))
            scaled.append(_times(m, dot.o, factor, width=17, name=f"scaled{g}"))

        stages = Stages(m, self.enable)
        held = stages.cut("scaled", **{f"scaled{g}": value for g, value in enumerate(scaled)},
                          **beside, nan=nan)
        held = (self._add_two if self.encoding.groups == 2 else self._add_four)(m, stages, held)

        m.submodules.normalize = normalize = self.normalize
        m.d.comb += [
            normalize.sum.eq(held.sum),
            normalize.exponent.eq(held.exponent),
            normalize.nan.eq(held.nan),
        ]

        term = stages.hold("normalized", normalize.o)
        m.submodules.add = add = self.add
        m.d.comb += [
            add.enable.eq(Cat(stages.enables)),
            add.term.eq(term),
            add.acc.eq(self.acc),
            self.o.eq(add.o),
        ]

        return m

    def _compare_two(self, m, exponents):
        """Stage 1: which of both groups is to move down and how far, before there are sums."""
        difference = Signal(signed(6))
        second_larger = Signal()
        shift = Signal(5)
        exponent = Signal(5)
        m.d.comb += [
            difference.eq(self.row.difference + (exponents[0] - exponents[1])),
            second_larger.eq(difference < 0),
            shift.eq(Mux(second_larger, -difference, difference)),
            # Of the group that stays.
            exponent.eq(Mux(second_larger, self.row.exponents[1], self.row.exponents[0])
                        + Mux(second_larger, exponents[1], exponents[0])),
        ]
        return {"second_larger": second_larger, "shift": shift, "exponent": exponent}

    def _add_two(self, m, stages, held):
        """Stage 2: adds both groups. Returns a row's sum, its exponent, and whether it is NaN."""
        # The group that stays is the first one from here on.
        stays, moves = (Signal.like(held.scaled0, name=name) for name in ("stays", "moves"))
        digits = [Signal(_Digits, name=f"{name}_digits") for name in ("stays", "moves")]
        m.d.comb += [
            stays.eq(Mux(held.second_larger, held.scaled1, held.scaled0)),
            moves.eq(Mux(held.second_larger, held.scaled0, held.scaled1)),
            digits[0].eq(Mux(held.second_larger, self.digits[1], self.digits[0])),
            digits[1].eq(Mux(held.second_larger, self.digits[0], self.digits[1])),
        ]
        m.submodules.align = align = _Align(self.encoding)
        m.d.comb += [
            align.stays.eq(_times(m, stays, digits[0], width=self.encoding.sum,
                                  name="sum_stays")),
            align.moves.eq(_times(m, moves, digits[1], width=self.encoding.sum,
                                  name="sum_moves")),
            align.shift.eq(held.shift),
        ]

        return stages.cut("row_sum", sum=align.o, exponent=held.exponent, nan=held.nan)

    def _place_four(self, m, exponents):
        """Stage 1: how far each of four groups is to move up."""
        places = {}
        for g, exponent in enumerate(exponents):
            places[f"place{g}"] = place = Signal(5, name=f"place{g}")
            m.d.comb += place.eq(self.row.exponents[g] + exponent)
        return places

    def _add_four(self, m, stages, held):
        """Stages 2 and 3: adds four groups, as `_add_two` does two; the exponent is a constant.

        Each group moves up by its own exponent. That takes four shifters, but no comparison and no
        exponent beside the sum. Groups that were added by two and two, each pair as `_add_two` does
        it, would have sums of 28 places more.
        """
        groups = range(self.encoding.groups)
        sums = {f"sum{g}": _times(m, getattr(held, f"scaled{g}"), self.digits[g],
                                  width=self.encoding.sum, name=f"sum{g}") for g in groups}
        places = {f"place{g}": getattr(held, f"place{g}") for g in groups}
        held = stages.cut("sums", nan=held.nan, **sums, **places)
        m.submodules.place = place = _Place(self.encoding)
        m.d.comb += [*(place.sums[g].eq(getattr(held, f"sum{g}")) for g in groups),
                     *(place.places[g].eq(getattr(held, f"place{g}")) for g in groups)]
        held = stages.cut("row_sum", sum=place.o, nan=held.nan)
        held.exponent = C(self.encoding.places, 5)
        return held


class _Dot(wiring.Component):
    """Computes the dot product of a group without its scales. Combinational.

    Members
    -------
    activations, weights : In(data.ArrayLayout(operand, 16))
    o : Out(signed(13))
        In units of 1/4.
    """

    def __init__(self, operand):
        operands = data.ArrayLayout(operand, NVFP4_GROUP)
        super().__init__({"activations": In(operands), "weights": In(operands),
                          "o": Out(signed(13))})

    def elaborate(self, platform):
        m = Module()

        low, high = add_products(m, e2m1_products(m, list(self.weights), list(self.activations)))
        m.d.comb += self.o.eq(carry_skip_add(m, low, high, carry=C(0, 1), name="dot"))

        return m


class _Align(wiring.Component):
    """Adds the sums of both groups of a row, exactly. Combinational.

    The group whose scales have the larger exponents stays; the other one moves down, by up to
    ``encoding.places``. The sum has as many places below, so that nothing is lost.

    Members
    -------
    stays, moves : In(signed(encoding.sum))
    shift : In(5)
        Places by which the other one moves down.
    o : Out(encoding.row_sum)
        In units of 2**-places of the group that stays.
    """

    def __init__(self, encoding):
        self.places = encoding.places
        super().__init__({
            "stays": In(signed(encoding.sum)),
            "moves": In(signed(encoding.sum)),
            "shift": In(5),
            "o": Out(encoding.row_sum),
        })

    def elaborate(self, platform):
        m = Module()

        shifted = self.moves
        # Places by which it does not move down, up to 31 in all, are places by which it moves up.
        # The smallest powers go first, while there are few bits.
        for stage in range(5):
            before = shifted
            shifted = Signal(signed(len(before) + (1 << stage)), name=f"moved{stage}")
            m.d.comb += shifted.eq(Mux(self.shift[stage], before, before << (1 << stage)))
        # The sum is now 31 places up, less those to move down by: at most 28, or 20. So the lowest
        # three or eleven places are 0.
        moved = shifted[31 - self.places :]
        # The group that stays has nothing in the lowest places.
        upper = Signal(signed(len(self.stays) + 1))
        m.d.comb += [
            upper.eq(self.stays + moved[self.places :].as_signed()),
            self.o.eq(Cat(moved[: self.places], upper)),
        ]

        return m


class _Place(wiring.Component):
    """Adds the sums of four groups, exactly. Combinational.

    Members
    -------
    sums : In(data.ArrayLayout(signed(encoding.sum), 4))
    places : In(data.ArrayLayout(5, 4))
        Places by which each moves up, at most ``encoding.places``.
    o : Out(encoding.row_sum)
    """

    def __init__(self, encoding):
        self.most = encoding.places
        super().__init__({
            "sums": In(data.ArrayLayout(signed(encoding.sum), encoding.groups)),
            "places": In(data.ArrayLayout(5, encoding.groups)),
            "o": Out(encoding.row_sum),
        })

    def elaborate(self, platform):
        m = Module()

        rows, excess = [], 0
        for g, (moved, places) in enumerate(zip(self.sums, self.places, strict=True)):
            # The smallest powers go first, while there are few bits.
            width = len(moved)
            for stage in range(5):
                before, width = moved, min(width + (1 << stage), len(self.sums[g]) + self.most)
                moved = Signal(signed(width), name=f"moved{g}_{stage}")
                m.d.comb += moved.eq(Mux(places[stage], before << (1 << stage), before))
            # With its sign inverted a row counts half its range too much.
            rows.append((0, Cat(moved[:-1], ~moved[-1]), 0))
            excess += 1 << width - 1
        correction = -excess % (1 << len(self.o))
        place = (correction & -correction).bit_length() - 1
        rows.append((place, C(correction >> place, (correction >> place).bit_length()), 0))
        low, high = compress(m, rows, width=len(self.o), name="row")
        m.d.comb += self.o.eq(carry_skip_add(m, low, high, carry=C(0, 1), name="total"))

        return m


class _Normalize(wiring.Component):
    """Makes a float of a row's sum, rounded to odd. Combinational.

    Of all bits the 24 from the leading one on are kept; the lowest of them is set if any of those
    below was.

    Members
    -------
    sum : In(encoding.row_sum)
        In magnitude at most as many group sums as there are, so below the largest power of two.
    exponent : In(5)
        Of the group that stays, or the largest there is: the value is
        sum * 2**(exponent - unit - places).
    nan : In(1)
    o : Out(RowTerm)
    """

    def __init__(self, encoding):
        self.encoding = encoding
        super().__init__({
            "sum": In(encoding.row_sum),
            "exponent": In(5),
            "nan": In(1),
            "o": Out(RowTerm),
        })

    def elaborate(self, platform):
        m = Module()

        bits = len(self.sum) - 1
        negative = self.sum[-1]
        inverted = Signal(bits)
        m.d.comb += inverted.eq(self.sum[:-1] ^ negative.replicate(bits))
        magnitude = carry_skip_increment(m, inverted, negative, name="magnitude")

        # The largest power of two first. As many bits stay as later stages can still bring up.
        kept = len(self.o.significand)
        value, sticky, shifts = magnitude, C(0, 1), []
        for stage in reversed(range(6)):
            before, before_sticky = value, sticky
            shifted = Signal(len(before), name=f"normalized{stage}")
            shift = Signal(name=f"shift{stage}")
            sticky = Signal(name=f"sticky{stage}")
            dropped = max(0, len(before) - (kept + (1 << stage) - 1))
            m.d.comb += [
                shift.eq(~before[-(1 << stage):].any()),
                shifted.eq(Mux(shift, before << (1 << stage), before)),
                sticky.eq(before_sticky | shifted[:dropped].any()),
            ]
            value = shifted[dropped:]
            shifts.insert(0, shift)

        # What the top bit is worth, less the shift: 2**(exponent - 1), or 2**(exponent + 4).
        bias = 127 + bits - 1 - self.encoding.unit - self.encoding.places
        m.d.comb += [
            self.o.significand.eq(value | sticky),
            self.o.negative.eq(negative),
            self.o.exponent.eq(self.exponent + bias - Cat(shifts)),
            self.o.nan.eq(self.nan),
        ]

        return m
