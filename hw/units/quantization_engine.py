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

from ..lib.arithmetic import greater, largest
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
from ..lib.pipeline import Control, Stages
from ..lib.stream import link
from ..lib.stream_register import StreamRegister
from ..lib.top1_select import select_top1
from ..lib.widen import unpacked


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
            "mantissa": _kept(metadata),
            "rest": 1,
            "sign": 1,
        }), GROUP),
        **({"in_third_block": len(lanes)} if lanes else {}),
        "maximum": 8,
        **({"bound_reached": 1} if rule.moves_top else {}),
    })


def _led(metadata, rule, leaders):
    """Payload while the largest exponent is sought: values, and the largest of so many parts.

    ``exponent`` has the bias of float32; ``mantissa`` and ``rest`` are those of `_ranked`;
    ``bound_reached`` is whether the mantissa reaches the rule's bound.
    """
    return data.StructLayout({
        "values": data.ArrayLayout(data.StructLayout({
            "exponent": 8,
            "mantissa": _kept(metadata),
            "rest": 1,
            "sign": 1,
            **({"bound_reached": 1} if rule.moves_top else {}),
        }), GROUP),
        "leaders": data.ArrayLayout(8, leaders),
    })


def _placed(metadata, rule):
    """Payload inside the second stage: what `_Place` finds of each value, and the scale."""
    lanes = _lanes_below_window(metadata, rule)
    return data.StructLayout({
        "values": data.StructLayout({
            f"lane{n}": _place(metadata, below_window=n in lanes) for n in range(GROUP)}),
        "scale": 8,
    })


def _place(metadata, *, below_window):
    """A value and its place: ``at`` is one-hot, see `_Round`."""
    return data.StructLayout({
        "at": _last_place(metadata, below_window) + 1,
        "saturated": 1,
        "blank": 1,
        "normal": 1,
        "mantissa": _kept(metadata),
        "rest": 1,
        "sign": 1,
    })


def _kept(metadata):
    """Bits of the mantissa that are kept; the others matter only together."""
    return 5 if metadata else 3


def _last_place(metadata, below_window):
    """The lowest place that is told apart, in binades below the top one."""
    return 6 if below_window and metadata else 4


_Finalist = data.StructLayout({"magnitude": 3, "metadata": 2})
"""The top-1 of some lanes: its code's magnitude, and its metadata."""

_Finals = data.StructLayout({
    "elements": data.ArrayLayout(4, GROUP),
    "finalists": data.ArrayLayout(data.ArrayLayout(_Finalist, 2), SUBGROUPS),
    "scale": 8,
})
"""Payload inside the third stage: the record, with two lanes of each subgroup left."""


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
    have as the top-1. The third one selects the top-1s. With a depth of 8 there are registers
    inside the stages, and tournaments find the largest exponent and the top-1s.

    Parameters
    ----------
    depth : int
        Pipeline registers: 0 is combinational, 2 holds the record and the elements before the
        top-1 are selected, 3 also cuts behind the largest exponent, 8 is for 100 MHz on an ECP5
        FPGA.
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
        if type(depth) is not int or depth not in (0, 2, 3, 8):
            raise ValueError(f"Pipeline depth must be 0, 2, 3 or 8, not {depth!r}")
        if input not in FLOATS:
            raise ValueError(f"Input must be one of {', '.join(FLOATS)}, not {input!r}")
        if rule not in RULES:
            raise ValueError(f"Rule must be one of {', '.join(RULES)}, not {rule!r}")
        check_metadata(metadata)
        self.depth = depth
        # Whether all registers move at once, see `Control`.
        self.rigid = depth == 8
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
        if self.rigid:
            m.submodules.control = control = Control(self.depth, rigid=True)
            stages = Stages(m, control.enable)
            link(m, self.i, control.i)
            source = control.o
        for name, stage, shape, depth in self._fine_stages() if self.rigid else (
                ("ranked", self._rank, _ranked(self.has_metadata, self.rule), 3),
                ("rounded", self._round, _rounded(self.has_metadata), 2),
                ("encoded", self._encode, Record if self.has_metadata else PlainRecord, 2)):
            result = Signal(shape, name=name)
            stage(m, payload, result)
            payload = result
            if self.rigid:
                payload = stages.hold(f"hold_{name}", result)
            elif self.depth >= depth:
                m.submodules[f"hold_{name}"] = register = StreamRegister(shape)
                m.d.comb += [
                    register.i.payload.eq(result),
                    register.i.valid.eq(source.valid),
                    source.ready.eq(register.i.ready),
                ]
                source, payload = register.o, register.o.payload
        if self.rigid:
            link(m, source, self.o)
            m.d.comb += self.o.payload.eq(payload)
        elif self.depth:
            wiring.connect(m, source, wiring.flipped(self.o))
        else:
            m.d.comb += self.o.eq(payload)

        return m

    def _fine_stages(self):
        """Name, function, result and depth of each step between two registers."""
        metadata, rule = self.has_metadata, self.rule
        record = Record if metadata else PlainRecord
        return (
            ("reduced", self._reduce, _led(metadata, rule, GROUP // 2), 8),
            ("led", self._lead, _led(metadata, rule, GROUP // 8), 8),
            ("maximum", self._lead, _led(metadata, rule, 1), 8),
            ("ranked", self._rank_led, _ranked(metadata, rule), 8),
            ("placed", self._place, _placed(metadata, rule), 8),
            ("rounded", self._round_placed, _rounded(metadata), 8),
            ("finals", self._play, _Finals if metadata else record, 8),
            ("encoded", self._encode_finals, record, 8))

    def _reduce(self, m, values, led):
        """Reduces each value to what matters of it, and plays the first round for the largest."""
        exponents = []
        for n, value in enumerate(values):
            exponent, mantissa = unpacked(m, value, self.input, number=n)
            reduced = led["values"][n]
            kept = len(reduced.mantissa)
            exponents.append(reduced.exponent)
            m.d.comb += [
                reduced.exponent.eq(exponent),
                reduced.mantissa.eq(mantissa[-kept:]),
                reduced.rest.eq(mantissa[:-kept].any()),
                reduced.sign.eq(value[-1]),
            ]
            if self.rule.moves_top:
                m.d.comb += reduced.bound_reached.eq(self._reaches_bound(mantissa))
        m.d.comb += [leader.eq(Mux(right > left, right, left)) for leader, left, right in
                     zip(led.leaders, exponents[::2], exponents[1::2], strict=True)]

    def _lead(self, m, before, led):
        """Plays further rounds for the largest exponent."""
        leaders = list(before.leaders)
        while len(leaders) > len(led.leaders):
            pairs = zip(leaders[::2], leaders[1::2], strict=True)
            leaders = [Signal(8, name=f"leader{len(leaders) // 2}_{n}")
                       for n in range(len(leaders) // 2)]
            m.d.comb += [leader.eq(Mux(right > left, right, left))
                         for leader, (left, right) in zip(leaders, pairs, strict=True)]
        m.d.comb += [led["values"].eq(before["values"]),
                     *(held.eq(leader) for held, leader in zip(led.leaders, leaders,
                                                               strict=True))]

    def _rank_led(self, m, led, ranked):
        """Ranks the values when the largest exponent is known."""
        values, maximum = led["values"], led.leaders[0]
        exponents = [value.exponent for value in values]
        in_top_block, in_next_block = _blocks(m, exponents, maximum)
        third_block, large = self._ranks(m, ranked, maximum)
        for n, value in enumerate(values):
            m.d.comb += self._ranked_value(
                ranked["values"][n], in_top_block[n], in_next_block[n], value.exponent, large,
                value.mantissa, value.rest, value.sign)
        self._third_block(m, ranked, exponents, in_next_block, third_block)
        if self.rule.moves_top:
            m.d.comb += ranked.bound_reached.eq(Cat(
                (value.exponent == maximum) & value.bound_reached for value in values).any())

    def _rank(self, m, values, ranked):
        """First stage: the largest exponent, and the block of each exponent."""
        pairs = [unpacked(m, value, self.input, number=n) for n, value in enumerate(values)]
        exponents = [exponent for exponent, _ in pairs]

        is_largest, maximum = largest(m, exponents, name="maximum")
        in_top_block, in_next_block = _blocks(m, exponents, maximum)
        third_block, large = self._ranks(m, ranked, maximum)
        reached = []
        for n, (exponent, mantissa) in enumerate(pairs):
            value = ranked["values"][n]
            kept = len(value.mantissa)
            m.d.comb += self._ranked_value(
                value, in_top_block[n], in_next_block[n], exponent, large, mantissa[-kept:],
                mantissa[:-kept].any(), values[n][-1])
            if self.rule.moves_top:
                reached.append(is_largest[n] & self._reaches_bound(mantissa))
        self._third_block(m, ranked, exponents, in_next_block, third_block)
        if reached:
            m.d.comb += ranked.bound_reached.eq(Cat(reached).any())

    def _reaches_bound(self, mantissa):
        # Of a narrower mantissa, the bound rounded up.
        bound = -(-self.rule.bound >> (23 - len(mantissa)))
        return mantissa >= bound

    def _ranks(self, m, ranked, maximum):
        """Puts the largest exponent into the result.

        Returns the number of the third block, and whether the exponent is 8 or more.
        """
        third_block = Signal(6)
        large = Signal()
        m.d.comb += [
            ranked.maximum.eq(maximum),
            third_block.eq(maximum[2:] - 2),
            large.eq(maximum[3:].any()),
        ]
        return third_block, large

    def _ranked_value(self, value, in_top_block, in_next_block, exponent, large, mantissa, rest,
                      sign):
        """Assignments of a ranked value."""
        return [
            value.in_top_block.eq(in_top_block),
            value.in_next_block.eq(in_next_block),
            value.low.eq(exponent[:2]),
            # No value in the window below an exponent of 8 or more is subnormal.
            value.normal.eq(exponent[:3].any() | large),
            value.mantissa.eq(mantissa),
            value.rest.eq(rest),
            value.sign.eq(sign),
        ]

    def _third_block(self, m, ranked, exponents, in_next_block, third_block):
        """Puts it into the result which exponents are in the third block."""
        # An exponent with all bits of the third block's number is in that block or above it. The
        # next block is ruled out here. In the top block the bit is not asked for, as there is no
        # borrow. If M is in block 0 or 1, the number wraps around, above every exponent there.
        if lanes := _lanes_below_window(self.has_metadata, self.rule):
            m.d.comb += ranked.in_third_block.eq(Cat(
                ~in_next_block[n] & (exponents[n][2:] | ~third_block).all() for n in lanes))

    def _round(self, m, ranked, rounded):
        """Second stage: the scale, and every element with its metadata."""
        for n, element in enumerate(self._rounds(m, ranked, rounded.scale, part=None)):
            m.d.comb += rounded.elements[n].eq(element.element)
            if self.has_metadata:
                m.d.comb += rounded.metadata[n].eq(element.meta)

    def _place(self, m, ranked, placed):
        """First part of the second stage: the scale, and each value's place."""
        for n, element in enumerate(self._rounds(m, ranked, placed.scale, part="place")):
            m.d.comb += placed["values"][f"lane{n}"].eq(element.placed)

    def _round_placed(self, m, placed, rounded):
        """Second part of the second stage: every element with its metadata."""
        m.d.comb += rounded.scale.eq(placed.scale)
        for n in range(GROUP):
            m.submodules[f"round{n}"] = element = self._round_of(n, part="code")
            m.d.comb += [
                element.placed.eq(placed["values"][f"lane{n}"]),
                rounded.elements[n].eq(element.element),
            ]
            if self.has_metadata:
                m.d.comb += rounded.metadata[n].eq(element.meta)

    def _round_of(self, n, *, part):
        """The component that rounds the value of a lane, or a part of it."""
        lanes = _lanes_below_window(self.has_metadata, self.rule)
        return _Round(ranked=_ranked(self.has_metadata, self.rule)["values"].shape.elem_shape,
                      rule=self.rule, below_window=n in lanes, metadata=self.has_metadata,
                      part=part)

    def _rounds(self, m, ranked, scale, *, part):
        """Finds the scale, and gives each value to a `_Round`."""
        nonfinite = Signal()
        largest = Signal(8)
        top = Signal(8)
        maximum = ranked.maximum
        m.d.comb += [
            nonfinite.eq(maximum.all()),
            # At least 2: scale code 0.
            largest.eq(Cat(maximum[0] & maximum[1:].any(), maximum[1] | ~maximum[2:].any(),
                           maximum[2:])),
            scale.eq(Mux(nonfinite, SCALE_NAN, top - 2)),
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
            m.submodules[f"{part or 'round'}{n}"] = element = self._round_of(n, part=part)
            m.d.comb += [
                element.value.eq(value),
                element.largest.eq(largest),
                element.blank.eq(nonfinite),
            ]
            if n in lanes:
                m.d.comb += element.in_third_block.eq(ranked.in_third_block[lanes.index(n)])
            if self.rule.moves_top:
                # They are at most 1 apart.
                m.d.comb += element.top_shifted.eq(top[0] ^ largest[0])
            yield element

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

    def _play(self, m, rounded, finals):
        """First part of the third stage: two rounds for the top-1 of each subgroup."""
        m.d.comb += [finals.elements.eq(rounded.elements), finals.scale.eq(rounded.scale)]
        if not self.has_metadata:
            return
        for j in range(SUBGROUPS):
            players = [Signal(_Finalist, name=f"player{j}_{i}") for i in range(SUBGROUP)]
            lanes = range(SUBGROUP * j, SUBGROUP * (j + 1))
            for player, n in zip(players, lanes, strict=True):
                m.d.comb += [player.magnitude.eq(rounded.elements[n][:3]),
                             player.metadata.eq(rounded.metadata[n])]
            while len(players) > len(finals.finalists[j]):
                players = _play_round(m, players, name=f"round{j}_{len(players) // 2}")
            m.d.comb += [held.eq(player) for held, player in
                         zip(finals.finalists[j], players, strict=True)]

    def _encode_finals(self, m, finals, record):
        """Second part of the third stage: the last round."""
        m.d.comb += [record.elements.eq(finals.elements), record.scale.eq(finals.scale)]
        if not self.has_metadata:
            return
        for j in range(SUBGROUPS):
            winner, = _play_round(m, list(finals.finalists[j]), name=f"final{j}")
            m.d.comb += record.metadata[j].eq(winner.metadata)


def _play_round(m, players, *, name):
    """Half of the players, each the larger one of two neighbours; ties go to the lower lane."""
    winners = []
    for n, (left, right) in enumerate(zip(players[::2], players[1::2], strict=True)):
        winner = Signal(_Finalist, name=f"{name}_{n}")
        wins = greater(m, right.magnitude, left.magnitude, name=f"{name}_{n}_wins")
        m.d.comb += winner.eq(Mux(wins, Value.cast(right), Value.cast(left)))
        winners.append(winner)
    return winners


def _blocks(m, exponents, maximum):
    """Which exponents are in the block of the largest one or in the next one.

    Parameters
    ----------
    m : Module
    exponents : list of Value
        Eight bits each.
    maximum : Value
        The largest of them.

    Returns
    -------
    in_top_block, in_next_block : Value
        A bit per exponent, see the module's diagram. ``in_next_block`` means nothing for exponents
        in the top block.
    """
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
    return in_top_block, in_next_block


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
    part : str, optional
        "place" for what finds the place, "code" for what rounds behind that; all if not given.

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
    placed : Out(_place(...)), of part "code" In
        The value and its place. Part "place" has it in place of ``element`` and ``meta``, part
        "code" in place of all inputs.
    """

    def __init__(self, *, ranked, rule, below_window, metadata, part=None):
        self.rule = rule
        self.below_window = below_window
        self.has_metadata = metadata
        self.part = part
        placed = _place(metadata, below_window=below_window)
        super().__init__({
            **({"placed": In(placed)} if part == "code" else {
                "value": In(ranked),
                "largest": In(2),
                **({"in_third_block": In(1)} if below_window else {}),
                **({"top_shifted": In(1)} if rule.moves_top else {}),
                "blank": In(1),
            }),
            **({"placed": Out(placed)} if part == "place" else {
                "element": Out(4),
                **({"meta": Out(2)} if metadata else {}),
            }),
        })

    def elaborate(self, platform):
        m = Module()

        if self.part == "place":
            at, saturated = self._places(m)
            m.d.comb += [
                self.placed.at.eq(Cat(at)), self.placed.saturated.eq(saturated),
                self.placed.blank.eq(self.blank),
                *(self.placed[name].eq(self.value[name])
                  for name in ("normal", "mantissa", "rest", "sign")),
            ]
            return m
        if self.part == "code":
            value, blank = self.placed, self.placed.blank
            at, saturated = list(value.at), value.saturated
        else:
            value, blank = self.value, self.blank
            at, saturated = self._places(m)
        self._code(m, value, at, saturated, blank)

        return m

    def _code(self, m, value, at, saturated, blank):
        """The element, and its metadata, of a value whose place is known."""
        h = value.normal

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
            self.element.eq(Cat(code, value.sign & ~blank)),
        ]
        if self.has_metadata:
            self._refine(m, window, sticky, at[0], saturated, blank)

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
        last = _last_place(self.has_metadata, self.below_window)
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

    def _refine(self, m, window, sticky, top, saturated, blank):
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
            self.meta.eq(meta & ~blank.replicate(2) if self.below_window else meta),
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
