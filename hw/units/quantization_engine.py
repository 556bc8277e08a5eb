# SPDX-License-Identifier: BSD-2-Clause
"""The encoder of activations: 32 values to a group record per cycle.

Ranking: every value is placed by how many binades its exponent is below M, the largest exponent of
the group. Exponents fall into blocks of four, which share their upper six bits. The first stage
compares upper bits only; the second one subtracts the two low bits, and the borrow tells the rest.
Here M has the low bits 01::

    low bits of an exponent  11 10 01 00 | 11 10 01 00 | 11 10 01 00
    block                     top block  | next block  | third block
    binades below M                 0  1 |  2  3  4  5 |  6  7  8  9
    borrow of the low bits          no   | yes  |  no  | yes  |  no
    of these two makes        in_window: 0 to 3 | below_window: 4 to 7 | neither

"""

from dataclasses import dataclass
from functools import reduce
from math import ceil, sqrt
from operator import or_

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..lib.arithmetic import largest
from ..lib.formats import (
    FLOATS,
    GROUP,
    SCALE_NAN,
    SUBGROUP,
    SUBGROUPS,
    Codes,
    PlainRecord,
    Record,
    check_metadata,
    values_layout,
)
from ..lib.stream_register import StreamRegister
from ..lib.top1_select import select_top1


@dataclass(frozen=True, kw_only=True)
class ScaleRule:
    """How a scale follows from the largest magnitude of a group. Specification section 5.

    The scale's exponent is that of ``floor``, plus ``base``, plus 1 if the mantissa of the largest
    magnitude reaches ``bound``.

    Parameters
    ----------
    name : str
    base : int
        0, or -1 where the scale may be lower than that of ``floor``.
    bound : int or None
        Least 23-bit mantissa field from which 1 is added. None where the mantissa does not matter.
    """

    name: str
    base: int = 0
    bound: int | None = None

    @property
    def moves_top(self):
        """Whether the top binade may be another than that of the largest exponent."""
        return self.bound is not None

    @property
    def lowers_top(self):
        """Whether the top binade may be below that of the largest exponent."""
        return self.base < 0


FLOOR = ScaleRule(name="floor")
# "Above 1.5" is the next float32.
CEIL = ScaleRule(name="ceil", bound=(1 << 22) + 1)
RTN1 = ScaleRule(name="rtn1", base=-1, bound=ceil((1.5 / sqrt(2) - 1) * 2**23))
RTN2 = ScaleRule(name="rtn2", bound=ceil((sqrt(2) - 1) * 2**23))

RULES = {rule.name: rule for rule in (FLOOR, CEIL, RTN1, RTN2)}
"""Scale rules by name."""


def _ranked(metadata, rule):
    """Payload behind the first stage: the largest exponent, and the values relative to it.

    ``in_top_block``, ``in_next_block`` and ``in_third_block`` say in which block an exponent is,
    see the module's diagram. ``in_next_block`` means nothing where ``in_top_block`` is set.
    ``in_third_block`` has only the lanes of `_lanes_below_window`. ``mantissa`` has the upper bits,
    and ``rest`` is whether any bit follows them.
    """
    lanes = _lanes_below_window(metadata, rule)
    return data.StructLayout({
        "values": data.ArrayLayout(data.StructLayout({
            "in_top_block": 1,
            "in_next_block": 1,
            "low": 2,
            "normal": 1,
            "mantissa": 5 if metadata else 3,
            "rest": 1,
            "sign": 1,
        }), GROUP),
        **({"in_third_block": len(lanes)} if lanes else {}),
        "maximum": 8,
        **({"bound_reached": 1} if rule.moves_top else {}),
    })


def _rounded(metadata):
    """Payload behind the second stage: the record with each lane's metadata, were it the top-1."""
    return data.StructLayout({
        "elements": data.ArrayLayout(4, GROUP),
        **({"metadata": data.ArrayLayout(2, GROUP)} if metadata else {}),
        "scale": 8,
    })


def _lanes_below_window(metadata, rule):
    """Lanes of which it matters how far they are below the window, four binades and more below M.

    There codes are 0, and ties go to the lowest lane: only lane 0 of a subgroup can be a top-1 with
    code 0. Under a rule that lowers the top, values are up to one place nearer to it than to M, so
    that all lanes matter.
    """
    if rule.lowers_top:
        return [*range(GROUP)]
    return [*range(0, GROUP, SUBGROUP)] if metadata else []


class QuantizationEngine(wiring.Component):
    """Quantizes 32 values to an activation's group record: Elem-EM or plain MXFP4.

    Elements are rounded to nearest, ties to even, saturating; subnormals are exact. A group that
    holds NaN or an infinity becomes a NaN group: scale 255, all else 0. Specification sections 3, 5
    and 6. Without metadata the record is that of MXFP4, for comparison; its elements and scale are
    the same.

    Latency ``depth``; one group per cycle. The first stage finds the largest exponent and ranks the
    others. The second one finds the scale and rounds every element, with the metadata that it would
    have as the top-1. The third one selects the top-1s.

    Parameters
    ----------
    depth : int
        Pipeline registers: 0 is combinational, 2 holds the record and the elements before the
        top-1 are selected, 3 also cuts behind the largest exponent.
    input : str
        Type of the values: "float32", "bfloat16" or "float16".
    rule : str
        Scale rule: "floor", "ceil", "rtn1" or "rtn2".
    metadata : bool
        Whether records have metadata.

    Members
    -------
    i : In(stream.Signature(data.ArrayLayout(width, 32)))
        Bits of the values, element 0 in the least significant ones. Where ``depth`` is 0 it is
        the payload alone.
    o : Out(stream.Signature(Record))
        Of `PlainRecord` without metadata. Where ``depth`` is 0 it is the payload alone.

    Raises
    ------
    TypeError
        If ``metadata`` is not a bool.
    ValueError
        If ``depth``, ``input`` or ``rule`` is not one of these.
    """

    def __init__(self, *, depth=2, input="float32", rule="floor", metadata=True):
        if type(depth) is not int or depth not in (0, 2, 3):
            raise ValueError(f"Pipeline depth must be 0, 2 or 3, not {depth!r}")
        if input not in FLOATS:
            raise ValueError(f"Input must be one of {', '.join(FLOATS)}, not {input!r}")
        if rule not in RULES:
            raise ValueError(f"Rule must be one of {', '.join(RULES)}, not {rule!r}")
        check_metadata(metadata)
        self.depth = depth
        self.input = input
        self.rule = RULES[rule]
        self.has_metadata = metadata
        values, record = values_layout(input), Record if metadata else PlainRecord
        super().__init__({
            "i": In(stream.Signature(values) if depth else values),
            "o": Out(stream.Signature(record) if depth else record),
        })

    @property
    def latency(self):
        return self.depth

    def elaborate(self, platform):
        m = Module()

        source, payload = self.i, self.i.payload if self.depth else self.i
        for name, stage, shape, depth in (
                ("ranked", self._rank, _ranked(self.has_metadata, self.rule), 3),
                ("rounded", self._round, _rounded(self.has_metadata), 2),
                ("encoded", self._encode, Record if self.has_metadata else PlainRecord, 2)):
            result = Signal(shape, name=name)
            stage(m, payload, result)
            payload = result
            if self.depth >= depth:
                m.submodules[f"hold_{name}"] = register = StreamRegister(shape)
                m.d.comb += [
                    register.i.payload.eq(result),
                    register.i.valid.eq(source.valid),
                    source.ready.eq(register.i.ready),
                ]
                source, payload = register.o, register.o.payload
        if self.depth:
            wiring.connect(m, source, wiring.flipped(self.o))
        else:
            m.d.comb += self.o.eq(payload)

        return m

    def _rank(self, m, values, ranked):
        """First stage: the largest exponent, and the block of each exponent."""
        pairs = [self._unpacked(m, n, value) for n, value in enumerate(values)]
        exponents = [exponent for exponent, _ in pairs]

        in_top_block, in_next_block, is_largest, maximum = _blocks(m, exponents)
        third_block = Signal(6)
        large = Signal()
        m.d.comb += [
            ranked.maximum.eq(maximum),
            third_block.eq(maximum[2:] - 2),
            large.eq(maximum[3:].any()),
        ]
        reached = []
        for n, (exponent, mantissa) in enumerate(pairs):
            value = ranked["values"][n]
            kept = len(value.mantissa)
            m.d.comb += [
                value.in_top_block.eq(in_top_block[n]),
                value.in_next_block.eq(in_next_block[n]),
                value.low.eq(exponent[:2]),
                # No value in the window below an exponent of 8 or more is subnormal.
                value.normal.eq(exponent[:3].any() | large),
                value.mantissa.eq(mantissa[-kept:]),
                value.rest.eq(mantissa[:-kept].any()),
                value.sign.eq(values[n][-1]),
            ]
            if self.rule.moves_top:
                # Of a narrower mantissa, the bound rounded up.
                bound = -(-self.rule.bound >> (23 - len(mantissa)))
                reached.append(is_largest[n] & (mantissa >= bound))
        # An exponent with all bits of the third block's number is in that block or above it. The
        # next block is ruled out here. In the top block the bit is not asked for, as there is no
        # borrow. If M is in block 0 or 1, the number wraps around, above every exponent there.
        if lanes := _lanes_below_window(self.has_metadata, self.rule):
            m.d.comb += ranked.in_third_block.eq(Cat(
                ~in_next_block[n] & (exponents[n][2:] | ~third_block).all() for n in lanes))
        if reached:
            m.d.comb += ranked.bound_reached.eq(Cat(reached).any())

    def _unpacked(self, m, i, value):
        """A value's exponent with the bias of float32, and its mantissa."""
        layout = FLOATS[self.input]
        if layout.exponent == 8:
            return value[layout.mantissa:-1], value[:layout.mantissa]
        m.submodules[f"widen{i}"] = widen = _Widen()
        m.d.comb += widen.value.eq(value[:-1])
        return widen.exponent, widen.mantissa

    def _round(self, m, ranked, rounded):
        """Second stage: the scale, and every element with its metadata."""
        nonfinite = Signal()
        largest = Signal(8)
        top = Signal(8)
        maximum = ranked.maximum
        m.d.comb += [
            nonfinite.eq(maximum.all()),
            # At least 2: scale code 0.
            largest.eq(Cat(maximum[0] & maximum[1:].any(), maximum[1] | ~maximum[2:].any(),
                           maximum[2:])),
            rounded.scale.eq(Mux(nonfinite, SCALE_NAN, top - 2)),
        ]
        # Where the rule adds 1 to a largest exponent of 1, the scale is 0 all the same.
        if not self.rule.moves_top:
            m.d.comb += top.eq(largest)
        else:
            unclamped = Signal(signed(10))
            m.d.comb += [
                unclamped.eq(maximum + self.rule.base + ranked.bound_reached),
                # At most 255, except in a NaN group, which is blanked.
                top.eq(Mux(unclamped < 2, 2, unclamped)),
            ]

        lanes = _lanes_below_window(self.has_metadata, self.rule)
        for n, value in enumerate(ranked["values"]):
            m.submodules[f"round{n}"] = element = _Round(
                ranked=value.shape(), rule=self.rule, below_window=n in lanes,
                metadata=self.has_metadata)
            m.d.comb += [
                element.value.eq(value),
                element.largest.eq(largest),
                element.blank.eq(nonfinite),
                rounded.elements[n].eq(element.element),
            ]
            if n in lanes:
                m.d.comb += element.in_third_block.eq(ranked.in_third_block[lanes.index(n)])
            if self.rule.moves_top:
                # They are at most 1 apart.
                m.d.comb += element.top_shifted.eq(top[0] ^ largest[0])
            if self.has_metadata:
                m.d.comb += rounded.metadata[n].eq(element.meta)

    def _encode(self, m, rounded, record):
        """Third stage: a subgroup gets the metadata of its top-1. Without metadata, nothing."""
        m.d.comb += [record.elements.eq(rounded.elements), record.scale.eq(rounded.scale)]
        if not self.has_metadata:
            return
        for j in range(SUBGROUPS):
            m.submodules[f"select{j}"] = select = _Select()
            lanes = range(SUBGROUP * j, SUBGROUP * (j + 1))
            m.d.comb += [select.codes[i].eq(rounded.elements[n]) for i, n in enumerate(lanes)]
            m.d.comb += [select.candidates[i].eq(rounded.metadata[n]) for i, n in enumerate(lanes)]
            m.d.comb += record.metadata[j].eq(select.meta)


def _blocks(m, exponents):
    """The largest of the exponents, and which ones are in its block or the next one.

    Parameters
    ----------
    m : Module
    exponents : list of Value
        Eight bits each.

    Returns
    -------
    in_top_block, in_next_block : Value
        A bit per exponent, see the module's diagram. ``in_next_block`` means nothing for exponents
        in the top block.
    is_largest : Value
        A bit per exponent, set where it is the largest.
    maximum : Value
    """
    is_largest, maximum = largest(m, exponents, name="maximum")
    count = len(exponents)
    bits = [Cat(exponent[place] for exponent in exponents) for place in range(8)]
    # An exponent that has all upper bits of the largest one is in its block, as none is greater.
    in_top_block = C(1).replicate(count)
    for place in reversed(range(2, 8)):
        still = Signal(count, name=f"in_top_block{place}")
        m.d.comb += still.eq(in_top_block & (bits[place] | ~maximum[place].replicate(count)))
        in_top_block = still
    # In the same way, one that has all bits of the next block's number is in that block or in the
    # top one. The number wraps around where the top block is 0: there all are in the top block.
    next_block = Signal(6)
    in_next_block = Signal(count)
    m.d.comb += [
        next_block.eq(maximum[2:] - 1),
        in_next_block.eq(~reduce(or_, (~bits[2 + place] & next_block[place].replicate(count)
                                       for place in reversed(range(6))))),
    ]
    return in_top_block, in_next_block, is_largest, maximum


class _Widen(wiring.Component):
    """Widens a float16 magnitude to float32's exponent, with ten bits of mantissa: exact.

    Combinational.

    Members
    -------
    value : In(15)
    exponent : Out(8)
        0 for zero, 255 for NaN and infinities.
    mantissa : Out(10)
    """

    value: In(15)
    exponent: Out(8)
    mantissa: Out(10)

    def elaborate(self, platform):
        m = Module()

        exponent, mantissa = self.value[10:], self.value[:10]
        # Biases differ by 112. A subnormal m * 2**-24 is normal in float32; its leading one,
        # n places below 2**-14, is dropped.
        with m.If(exponent.all()):
            m.d.comb += [self.exponent.eq(255), self.mantissa.eq(mantissa)]
        with m.Elif(exponent != 0):
            m.d.comb += [self.exponent.eq(exponent + 112), self.mantissa.eq(mantissa)]
        with m.Else():
            with m.Switch(mantissa):
                for n in range(1, 11):
                    with m.Case("0" * (n - 1) + "1" + "-" * (10 - n)):
                        m.d.comb += [
                            self.exponent.eq(113 - n),
                            self.mantissa.eq(mantissa << n),
                        ]

        return m


class _Round(wiring.Component):
    """Rounds a value to its element, and finds the metadata that it has if it is the top-1.

    Combinational. Specification sections 1.2, 1.4 and 3.5.

    Parameters
    ----------
    ranked : Layout
        Of the value, see `_ranked`.
    rule : ScaleRule
    below_window : bool
        Whether places below the window matter, see `_lanes_below_window`.
    metadata : bool

    Members
    -------
    value : In(ranked)
    largest : In(2)
        Low bits of the largest exponent, which is taken to be at least 2.
    in_third_block : In(1)
        See `_ranked`; with ``below_window``.
    top_shifted : In(1)
        Whether the top binade is one above that of the largest exponent or, under a rule that
        lowers it, one below. Only with a rule that moves the top.
    blank : In(1)
        Gives 0.
    element : Out(4)
        FP4 code.
    meta : Out(2)
        With metadata. Means nothing for code 0 without ``below_window``.
    """

    def __init__(self, *, ranked, rule, below_window, metadata):
        self.rule = rule
        self.below_window = below_window
        self.has_metadata = metadata
        super().__init__({
            "value": In(ranked),
            "largest": In(2),
            **({"in_third_block": In(1)} if below_window else {}),
            **({"top_shifted": In(1)} if rule.moves_top else {}),
            "blank": In(1),
            "element": Out(4),
            **({"meta": Out(2)} if metadata else {}),
        })

    def elaborate(self, platform):
        m = Module()

        value, h = self.value, self.value.normal
        at, saturated = self._places(m)

        # The magnitude is h.mmm * 2**(2 - place) in units of the scale; subnormals have h = 0.
        # Below 2 codes count halves (E2M1) or eighths (E2M3): fixed point. Above, they are the
        # exponent's code and the mantissa, which lies as it does in 1 to 2. Under scale code 0 a
        # subnormal lies below 2 at 1 place. Rows: which bit of the significand, h being bit 0,
        # is the last one of the E2M1 code.
        low = Signal()
        same = Signal()
        m.d.comb += [low.eq(at[1] & ~h), same.eq(at[0] | (at[1] & h) | at[2])]
        rows = [(low, 2), (same, 1), *((at[place], 3 - place) for place in range(3, len(at)))]
        bits = [h, *reversed(value.mantissa)]
        columns = 4 if self.has_metadata else 2
        window = [Signal(name=f"window{column}") for column in range(columns)]
        for column, bit in enumerate(window):
            m.d.comb += bit.eq(reduce(or_, (
                row & bits[first + column] for row, first in rows if first + column >= 0)))
        # Bits that follow the window; all rows but the first have the last one behind it.
        sticky = Signal()
        behind = [value.rest, bits[-1] & ~low]
        for n in range(1, len(bits) - 1):
            shifted = [row for row, first in rows if first + columns <= n]
            if shifted:
                behind.append(bits[n] & reduce(or_, shifted))
        m.d.comb += sticky.eq(reduce(or_, behind))

        # odd guard rest | code
        #  0    0    -   | as it is
        #  0    1    0   | as it is: tie, even already
        #  0    1    1   | 1 more
        #  1    0    -   | as it is
        #  1    1    -   | 1 more, a tie to even; code 7 saturates
        odd, guard, *lower = window
        rest = Signal()
        carry = Signal()
        upper = Signal(2)
        code = Signal(3)
        m.d.comb += [
            rest.eq(Cat(*lower, sticky).any()),
            carry.eq(odd & guard & ~at[0]),
            upper.eq(Cat(at[0] | (at[2] & h) | (low & bits[1]), at[0] | (at[1] & h))),
            code.eq(Cat((odd | (guard & rest)) & ~carry, upper[0] ^ carry,
                        upper[1] | (upper[0] & carry)) | saturated.replicate(3)),
            self.element.eq(Cat(code, value.sign & ~self.blank)),
        ]
        if self.has_metadata:
            self._refine(m, window, sticky, at[0], saturated)

        return m

    def _places(self, m):
        """How many binades below the top one the value is, one-hot, and whether it is above.

        Subnormals have exponent 1.
        """
        value = self.value
        exponent = Signal(2)
        difference = Signal(3)
        in_window = Signal()
        next_below = Signal()
        borrow = difference[2]
        m.d.comb += [
            exponent.eq(value.low | ~value.normal),
            difference.eq(self.largest - exponent),
            # In the top block there is no borrow, as no value is above the largest one.
            in_window.eq((value.in_top_block | (value.in_next_block & borrow)) & ~self.blank),
            next_below.eq(value.in_next_block & ~value.in_top_block & ~self.blank),
        ]
        last = 6 if self.below_window and self.has_metadata else 4
        count = last + (2 if self.rule.lowers_top else 1)
        at = [Signal(name=f"at{place}") for place in range(count)]
        # Place 4, the first below the window, needs no borrow: its low bits are equal.
        below_window = next_below
        if self.below_window:
            below_window = Signal()
            m.d.comb += below_window.eq(Mux(borrow, self.in_third_block & ~self.blank, next_below))
        m.d.comb += [place.eq((in_window if n < 4 else below_window) & (difference[:2] == n % 4))
                     for n, place in enumerate(at)]
        if not self.rule.moves_top:
            return at, C(0, 1)
        # Places below the top: one more where it is above the largest exponent, one less where it
        # is below. Then the values in the largest binade saturate.
        lowers = self.rule.lowers_top
        saturated = at[0] & self.top_shifted if lowers else C(0, 1)
        shifted = at[1:] if lowers else [C(0, 1), *at]
        below_top = [Signal(name=f"below_top{place}") for place in range(last + 1)]
        m.d.comb += [place.eq(Mux(self.top_shifted, after, before))
                     for place, after, before in zip(below_top, shifted, at, strict=False)]
        return below_top, saturated

    def _refine(self, m, window, sticky, top, saturated):
        """Metadata: the E2M3 code plus 1, less four times the E2M1 code, clamped to 0..3."""
        # Below the E2M1 code the E2M3 code has the bits guard and last, and is rounded up by 1 if
        # round, which is next & (last | sticky). Where the E2M1 code was rounded up, it has taken 4
        # away. The clamp (section 3.5) bounds the sum.
        # guard  E2M1 code   | meta
        #   0    as it is    | last + round + 1
        #   1    1 more      | 2 + last + round - 3, at least 0
        #   1    as it is    | 3, at most: a tie to even, or saturated
        odd, guard, last, next = window
        more = Signal()
        most = Signal()
        meta = Signal(2)
        m.d.comb += [
            more.eq(last | (next & sticky)),
            most.eq(guard & Mux(odd, top, ~Cat(last, next, sticky).any())),
            meta.eq(Cat((last & next) | ~(guard | more) | most, (more & ~guard) | most)
                    | saturated.replicate(2)),
            self.meta.eq(meta & ~self.blank.replicate(2) if self.below_window else meta),
        ]


class _Select(wiring.Component):
    """Selects the metadata of a subgroup's top-1. Combinational.

    Members
    -------
    codes : In(Codes)
        FP4 codes.
    candidates : In(data.ArrayLayout(2, 8))
        Metadata by lane, each as if it were the top-1's.
    meta : Out(2)
    """

    codes: In(Codes)
    candidates: In(data.ArrayLayout(2, SUBGROUP))
    meta: Out(2)

    def elaborate(self, platform):
        m = Module()

        lane, _ = select_top1(m, [self.codes[i] for i in range(SUBGROUP)])
        m.d.comb += self.meta.eq(reduce(or_, (
            meta & selected.replicate(2)
            for meta, selected in zip(self.candidates, lane, strict=True))))

        return m
