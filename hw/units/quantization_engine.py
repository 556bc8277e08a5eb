# SPDX-License-Identifier: BSD-2-Clause
from functools import reduce
from math import ceil, sqrt
from operator import or_

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..lib.arithmetic import largest
from ..lib.formats import (
    GROUP,
    SCALE_NAN,
    SUBGROUP,
    SUBGROUPS,
    Codes,
    PlainRecord,
    Record,
    check_metadata,
)
from ..lib.stream_register import StreamRegister
from .top1 import select_top1

# Exponent and mantissa bits.
_FLOATS = {"float32": (8, 23), "bfloat16": (8, 7), "float16": (5, 10)}

# A rule adds to floor's exponent when the largest magnitude's significand reaches a bound (of
# 2**-23, so that "above 1.5" is the next float32), from a base that is one lower for rtn1.
_RULES = {
    "floor": None,
    "ceil": (0, (1 << 22) + 1),
    "rtn1": (-1, ceil((1.5 / sqrt(2) - 1) * 2**23)),
    "rtn2": (0, ceil((sqrt(2) - 1) * 2**23)),
}


def _ranked(metadata, rule):
    """Payload behind the first stage: the largest exponent, and the values relative to it.

    ``equal``, ``close`` and ``far`` are about the upper six bits of an exponent: whether they are
    those of the largest one, one less (which says nothing where they are equal), two less.
    ``mantissa`` has upper bits, the first one at the top, and ``rest`` is whether any bit follows
    them.
    """
    return data.StructLayout({
        "values": data.ArrayLayout(data.StructLayout({
            "equal": 1,
            "close": 1,
            "low": 2,
            "normal": 1,
            "mantissa": 5 if metadata else 3,
            "rest": 1,
            "sign": 1,
        }), GROUP),
        **({"far": len(_deep(metadata, rule))} if _deep(metadata, rule) else {}),
        "maximum": 8,
        **({"reached": 1} if _RULES[rule] else {}),
    })


def _rounded(metadata):
    """Payload behind the second stage: the record with each lane's metadata, were it the top-1."""
    return data.StructLayout({
        "elements": data.ArrayLayout(4, GROUP),
        **({"metadata": data.ArrayLayout(2, GROUP)} if metadata else {}),
        "scale": 8,
    })


def _deep(metadata, rule):
    """Lanes that matter further than four binades below the largest exponent.

    There codes are 0, and ties go to the lowest lane: a top-1 with code 0 is lane 0. Under rtn1
    values may be one place nearer to the top than to the largest exponent.
    """
    if rule == "rtn1":
        return [*range(GROUP)]
    return [*range(0, GROUP, SUBGROUP)] if metadata else []


def values_layout(input):
    """Payload of a group's values of a type, as of `QuantizationEngine`."""
    return data.ArrayLayout(1 + sum(_FLOATS[input]), GROUP)


class QuantizationEngine(wiring.Component):
    """Quantizes 32 values to an activation's group record: Elem-EM or plain MXFP4.

    Elements are rounded to nearest, ties to even, saturating; subnormals are exact. A group
    that holds NaN or an infinity becomes a NaN group: scale 255, all else 0. Specification
    sections 3, 5 and 6. Without metadata elements and scale are the same, and nothing else is
    there: MXFP4, for comparison.

    Latency ``depth``; one group per cycle.

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
        if input not in _FLOATS:
            raise ValueError(f"Input must be one of {', '.join(_FLOATS)}, not {input!r}")
        if rule not in _RULES:
            raise ValueError(f"Rule must be one of {', '.join(_RULES)}, not {rule!r}")
        check_metadata(metadata)
        self.depth = depth
        self.input = input
        self.rule = rule
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
        """First stage: the largest exponent, and which exponents are near it."""
        pairs = [self._unpacked(m, n, value) for n, value in enumerate(values)]
        exponents = [exponent for exponent, _ in pairs]

        equal, close, left, maximum = _near(m, exponents)
        far = Signal(6)
        large = Signal()
        m.d.comb += [
            ranked.maximum.eq(maximum),
            far.eq(maximum[2:] - 2),
            large.eq(maximum[3:].any()),
        ]
        reached = []
        for n, (exponent, mantissa) in enumerate(pairs):
            value = ranked["values"][n]
            kept = len(value.mantissa)
            m.d.comb += [
                value.equal.eq(equal[n]),
                value.close.eq(close[n]),
                value.low.eq(exponent[:2]),
                # No value near an exponent of 8 or more is subnormal.
                value.normal.eq(exponent[:3].any() | large),
                value.mantissa.eq(mantissa[-kept:]),
                value.rest.eq(mantissa[:-kept].any()),
                value.sign.eq(values[n][-1]),
            ]
            if _RULES[self.rule] is not None:
                _, bound = _RULES[self.rule]
                reached.append(left[n] & (mantissa >= -(-bound >> (23 - len(mantissa)))))
        # What has all bits of two less is that or one less; or equal, and then not asked, as it has
        # no borrow. Wrapped around, two less than 0 or 1 is above every exponent there.
        if deep := _deep(self.has_metadata, self.rule):
            m.d.comb += ranked.far.eq(Cat(
                ~close[n] & (exponents[n][2:] | ~far).all() for n in deep))
        if reached:
            m.d.comb += ranked.reached.eq(Cat(reached).any())

    def _unpacked(self, m, i, value):
        """Biased exponent as of float32 and mantissa of a value."""
        exponent_bits, mantissa_bits = _FLOATS[self.input]
        if exponent_bits == 8:
            return value[mantissa_bits:-1], value[:mantissa_bits]
        m.submodules[f"widen{i}"] = widen = _Widen()
        m.d.comb += widen.value.eq(value[:-1])
        return widen.exponent, widen.mantissa

    def _round(self, m, ranked, rounded):
        """Second stage: the scale, and every element with its metadata."""
        bad = Signal()
        reference = Signal(8)
        top = Signal(8)
        maximum = ranked.maximum
        m.d.comb += [
            bad.eq(maximum.all()),
            # At least 2: scale code 0.
            reference.eq(Cat(maximum[0] & maximum[1:].any(), maximum[1] | ~maximum[2:].any(),
                             maximum[2:])),
            rounded.scale.eq(Mux(bad, SCALE_NAN, top - 2)),
        ]
        # Where the rule adds 1 to a largest exponent of 1, the scale is 0 all the same.
        if _RULES[self.rule] is None:
            m.d.comb += top.eq(reference)
        else:
            base, _ = _RULES[self.rule]
            unclamped = Signal(signed(10))
            m.d.comb += [
                unclamped.eq(maximum + base + ranked.reached),
                # At most 255, but in a NaN group, which is blanked.
                top.eq(Mux(unclamped < 2, 2, unclamped)),
            ]

        deep = _deep(self.has_metadata, self.rule)
        for n, value in enumerate(ranked["values"]):
            m.submodules[f"round{n}"] = element = _Round(
                ranked=value.shape(), rule=self.rule, deep=n in deep, metadata=self.has_metadata)
            m.d.comb += [
                element.value.eq(value),
                element.reference.eq(reference),
                element.blank.eq(bad),
                rounded.elements[n].eq(element.element),
            ]
            if n in deep:
                m.d.comb += element.far.eq(ranked.far[deep.index(n)])
            if _RULES[self.rule] is not None:
                m.d.comb += element.moved.eq(top[0] ^ reference[0])
            if self.has_metadata:
                m.d.comb += rounded.metadata[n].eq(element.meta)

    def _encode(self, m, rounded, record):
        """Third stage: each subgroup's metadata are its top-1's. Without metadata, nothing."""
        m.d.comb += [record.elements.eq(rounded.elements), record.scale.eq(rounded.scale)]
        if not self.has_metadata:
            return
        for j in range(SUBGROUPS):
            m.submodules[f"select{j}"] = select = _Select()
            lanes = range(SUBGROUP * j, SUBGROUP * (j + 1))
            m.d.comb += [select.codes[i].eq(rounded.elements[n]) for i, n in enumerate(lanes)]
            m.d.comb += [select.candidates[i].eq(rounded.metadata[n]) for i, n in enumerate(lanes)]
            m.d.comb += record.metadata[j].eq(select.meta)


def _near(m, exponents):
    """The largest of the exponents, and which ones are near it.

    Parameters
    ----------
    m : Module
    exponents : list of Value
        Eight bits each.

    Returns
    -------
    equal, close : Value
        A bit per exponent: whether its upper six bits are those of the largest, and whether they
        are one less; of those that are equal, ``close`` says nothing.
    left : Value
        A bit per exponent, set where it is the largest.
    maximum : Value
    """
    left, maximum = largest(m, exponents, name="maximum")
    count = len(exponents)
    bits = [Cat(exponent[place] for exponent in exponents) for place in range(8)]
    # Nothing is greater than the largest, and what has all bits of a number is not less than it.
    equal = C(1).replicate(count)
    for place in reversed(range(2, 8)):
        still = Signal(count, name=f"equal{place}")
        m.d.comb += still.eq(equal & (bits[place] | ~maximum[place].replicate(count)))
        equal = still
    # Wrapped around where the largest's upper bits are 0: there all are equal.
    lower = Signal(6)
    close = Signal(count)
    m.d.comb += [
        lower.eq(maximum[2:] - 1),
        close.eq(~reduce(or_, (~bits[2 + place] & lower[place].replicate(count)
                               for place in reversed(range(6))))),
    ]
    return equal, close, left, maximum


class _Widen(wiring.Component):
    """Float16 magnitude to float32's exponent, with ten bits of mantissa: exact.

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

    Parameters
    ----------
    ranked : Layout
        Of the value, see `_ranked`.
    rule : str
        Scale rule.
    deep : bool
        Whether more than four binades matter, see `_deep`.
    metadata : bool

    Members
    -------
    value : In(ranked)
    reference : In(2)
        Low bits of the largest exponent, which is taken to be at least 2.
    far : In(1)
        See `_ranked`; for a value that is deep.
    moved : In(1)
        Whether the top binade is not the largest exponent's: above it or, of rtn1, below. Not for
        the rule floor, under which they are the same.
    blank : In(1)
        Gives 0.
    element : Out(4)
        FP4 code.
    meta : Out(2)
        With metadata. Of no meaning for code 0 unless the value is deep.
    """

    def __init__(self, *, ranked, rule, deep, metadata):
        self.rule = rule
        self.deep = deep
        self.has_metadata = metadata
        super().__init__({
            "value": In(ranked),
            "reference": In(2),
            **({"far": In(1)} if deep else {}),
            **({"moved": In(1)} if _RULES[rule] else {}),
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
        near = Signal()
        further = Signal()
        borrow = difference[2]
        m.d.comb += [
            exponent.eq(value.low | ~value.normal),
            difference.eq(self.reference - exponent),
            # One that is equal is not above.
            near.eq((value.equal | (value.close & borrow)) & ~self.blank),
            further.eq(value.close & ~value.equal & ~self.blank),
        ]
        last = 6 if self.deep and self.has_metadata else 4
        count = last + (2 if self.rule == "rtn1" else 1)
        at = [Signal(name=f"at{place}") for place in range(count)]
        if self.deep:
            deep = Signal()
            m.d.comb += deep.eq(Mux(borrow, self.far & ~self.blank, further))
            further = deep
        m.d.comb += [place.eq((near if n < 4 else further) & (difference[:2] == n % 4))
                     for n, place in enumerate(at)]
        if self.rule == "floor":
            return at, C(0, 1)
        saturated = at[0] & self.moved if self.rule == "rtn1" else C(0, 1)
        moved = at[1:] if self.rule == "rtn1" else [C(0, 1), *at]
        below_top = [Signal(name=f"below_top{place}") for place in range(last + 1)]
        m.d.comb += [place.eq(Mux(self.moved, after, before))
                     for place, after, before in zip(below_top, moved, at, strict=False)]
        return below_top, saturated

    def _refine(self, m, window, sticky, top, saturated):
        """Metadata: the E2M3 code plus 1, less four times the E2M1 code, clamped to 0..3."""
        # What the E2M3 code has below the E2M1 code is guard and last, and is rounded: by 1 if
        # round. That of the E2M1 code takes 4 away.
        # guard            | meta
        #   0              | last + round + 1
        #   1, rounded up  | 2 + last + round - 3, at least 0
        #   1, not so      | 3, at most: a tie to even, or saturated
        odd, guard, last, next = window
        more = Signal()
        most = Signal()
        meta = Signal(2)
        m.d.comb += [
            more.eq(last | (next & sticky)),
            most.eq(guard & Mux(odd, top, ~Cat(last, next, sticky).any())),
            meta.eq(Cat((last & next) | ~(guard | more) | most, (more & ~guard) | most)
                    | saturated.replicate(2)),
            self.meta.eq(meta & ~self.blank.replicate(2) if self.deep else meta),
        ]


class _Select(wiring.Component):
    """Metadata of a subgroup's top-1.

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
