# SPDX-License-Identifier: BSD-2-Clause
from functools import reduce
from math import ceil, sqrt
from operator import or_

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import largest
from .formats import (
    GROUP,
    SCALE_NAN,
    SUBGROUP,
    SUBGROUPS,
    PlainRecord,
    Record,
    check_metadata,
)
from .stream_register import StreamRegister
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

_Magnitude = data.StructLayout({"code": 5, "guard": 1, "sticky": 1})
"""A magnitude in units of the scale: E2M3 code rounded down, next bit, whether any bit follows."""

_PlainMagnitude = data.StructLayout({"code": 3, "guard": 1, "sticky": 1})
"""The same with an E2M1 code, which is all that elements without metadata need."""


def _aligned(magnitude):
    """Payload between the stages, with magnitudes of either layout."""
    return data.StructLayout({
        "magnitudes": data.ArrayLayout(magnitude, GROUP),
        "signs": GROUP,
        "scale": 8,
    })


def values_layout(input):
    """Payload of a group's values of a type, as of `QuantizationEngine`."""
    return data.ArrayLayout(1 + sum(_FLOATS[input]), GROUP)


class QuantizationEngine(wiring.Component):
    """Quantizes 32 values to an activation's group record: Elem-EM or plain MXFP4.

    Elements are rounded to nearest, ties to even, saturating; subnormals are exact. A group
    that holds NaN or an infinity becomes a NaN group: scale 255, all else 0. Latency 2, one
    group per cycle. Specification sections 3, 5 and 6. Without metadata elements and scale are the
    same, and nothing else is there: MXFP4, for comparison.

    Parameters
    ----------
    input : str
        Type of the values: "float32", "bfloat16" or "float16".
    rule : str
        Scale rule: "floor", "ceil", "rtn1" or "rtn2".
    metadata : bool
        Whether records have metadata.

    Members
    -------
    i : In(stream.Signature(data.ArrayLayout(width, 32)))
        Bits of the values, element 0 in the least significant ones.
    o : Out(stream.Signature(Record))
        Of `PlainRecord` without metadata.

    Raises
    ------
    TypeError
        If ``metadata`` is not a bool.
    ValueError
        If ``input`` or ``rule`` is not one of these.
    """

    latency = 2

    def __init__(self, *, input="float32", rule="floor", metadata=True):
        if input not in _FLOATS:
            raise ValueError(f"Input must be one of {', '.join(_FLOATS)}, not {input!r}")
        if rule not in _RULES:
            raise ValueError(f"Rule must be one of {', '.join(_RULES)}, not {rule!r}")
        check_metadata(metadata)
        self.input = input
        self.rule = rule
        self.has_metadata = metadata
        super().__init__({
            "i": In(stream.Signature(values_layout(input))),
            "o": Out(stream.Signature(Record if metadata else PlainRecord)),
        })

    def elaborate(self, platform):
        m = Module()

        m.submodules.aligned = aligned = StreamRegister(_aligned(
            _Magnitude if self.has_metadata else _PlainMagnitude))
        m.submodules.encoded = encoded = StreamRegister(self.o.payload.shape())
        m.d.comb += [
            aligned.i.valid.eq(self.i.valid),
            self.i.ready.eq(aligned.i.ready),
            encoded.i.valid.eq(aligned.o.valid),
            aligned.o.ready.eq(encoded.i.ready),
        ]
        wiring.connect(m, encoded.o, wiring.flipped(self.o))
        self._scale_and_align(m, aligned.i.payload)
        encode = self._encode if self.has_metadata else self._encode_plain
        encode(m, aligned.o.payload, encoded.i.payload)

        return m

    def _scale_and_align(self, m, aligned):
        """First stage: the group's scale, and every magnitude in units of it."""
        values = [self._unpacked(m, i) for i in range(GROUP)]

        # Two levels of elimination are faster than one over all lanes, and hardly larger.
        maxima = [
            largest(m, [exponent for exponent, _ in values[start : start + SUBGROUP]],
                    name=f"maximum{start}")[1]
            for start in range(0, GROUP, SUBGROUP)
        ]
        _, maximum = largest(m, maxima, name="maximum")
        bad = Signal()
        m.d.comb += bad.eq(maximum.all())

        # Where the rule adds 1 to a largest exponent of 1, the scale is 0 all the same.
        offset = 0
        if _RULES[self.rule] is not None:
            base, bound = _RULES[self.rule]
            reached = Signal()
            m.d.comb += reached.eq(Cat(
                (exponent == maximum) & (mantissa >= -(-bound >> (23 - len(mantissa))))
                for exponent, mantissa in values).any())
            offset = reached + base
        places = _places(self.has_metadata)
        scale = Signal(8)
        top = Signal(8)
        least = Signal(8)
        unclamped = Signal(signed(10))
        m.d.comb += [
            unclamped.eq(maximum - 2 + offset),
            scale.eq(Mux(unclamped < 0, 0, unclamped)),
            # At most 253 + 2, but in a NaN group, which is blanked.
            top.eq(scale + 2),
            least.eq(Mux(top < places, 0, top - places)),
            aligned.scale.eq(Mux(bad, SCALE_NAN, scale)),
        ]

        for i, (exponent, mantissa) in enumerate(values):
            m.submodules[f"align{i}"] = align = _Align(
                mantissa=len(mantissa), saturating=self.rule == "rtn1",
                metadata=self.has_metadata)
            m.d.comb += [
                align.exponent.eq(exponent),
                align.mantissa.eq(mantissa),
                align.top.eq(top),
                align.least.eq(least),
                align.blank.eq(bad),
                aligned.magnitudes[i].eq(align.magnitude),
                aligned.signs[i].eq(self.i.payload[i][-1] & ~bad),
            ]

    def _unpacked(self, m, i):
        """Biased exponent as of float32 and mantissa of a value."""
        exponent_bits, mantissa_bits = _FLOATS[self.input]
        value = self.i.payload[i]
        if exponent_bits == 8:
            return value[mantissa_bits:-1], value[:mantissa_bits]
        m.submodules[f"widen{i}"] = widen = _Widen()
        m.d.comb += widen.value.eq(value[:-1])
        return widen.exponent, widen.mantissa

    def _encode(self, m, aligned, record):
        """Second stage: FP4 codes, each subgroup's top-1 and its metadata."""
        nan = Signal()
        m.d.comb += [nan.eq(aligned.scale.all()), record.scale.eq(aligned.scale)]
        for j in range(SUBGROUPS):
            m.submodules[f"encode{j}"] = encode = _EncodeSubgroup()
            m.d.comb += record.metadata[j].eq(Mux(nan, 0, encode.meta))
            for i in range(SUBGROUP):
                element = SUBGROUP * j + i
                m.d.comb += [
                    encode.magnitudes[i].eq(aligned.magnitudes[element]),
                    record.elements[element].eq(Cat(encode.codes[i], aligned.signs[element])),
                ]

    def _encode_plain(self, m, aligned, record):
        """Second stage without metadata: rounds to FP4 codes."""
        m.d.comb += record.scale.eq(aligned.scale)
        for i, magnitude in enumerate(aligned.magnitudes):
            code = Signal(3, name=f"code{i}")
            m.d.comb += [
                code.eq(magnitude.code
                        + _rounds_up(magnitude.code, magnitude.guard, magnitude.sticky)),
                record.elements[i].eq(Cat(code, aligned.signs[i])),
            ]


def _places(metadata):
    """Binades below the top one that do not round to 0 for certain: as far as half a quantum."""
    return 6 if metadata else 4


def _rounds_up(code, guard, sticky):
    """Whether an E2M1 code that was rounded down is rounded up."""
    # guard sticky last | up
    #   0     -     -   | 0
    #   1     0     0   | 0  tie, even already
    #   1     0     1   | 1  tie, to even
    #   1     1     -   | 1
    # Code 7 is 6, the largest: it saturates.
    return guard & (sticky | code[0]) & ~code.all()


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


class _Align(wiring.Component):
    """A magnitude in units of its group's scale, as a code rounded down and what is cut off.

    Parameters
    ----------
    mantissa : int
        Mantissa bits, at least 7.
    saturating : bool
        Whether the exponent may be ``top`` + 1, which gives the largest code.
    metadata : bool
        Whether the code is one of E2M3; else it is one of E2M1.

    Members
    -------
    exponent : In(8)
        As of float32: 0 for subnormals.
    mantissa : In(mantissa)
    top : In(8)
        Exponent of the binade that E2M3 ends with: the scale code + 2.
    least : In(8)
        Smallest exponent that does not round to 0 for certain: ``top`` - 6 or, of E2M1,
        ``top`` - 4, at least 0.
    blank : In(1)
        Gives 0.
    magnitude : Out(_Magnitude)
        Of `_PlainMagnitude` without metadata.
    """

    def __init__(self, *, mantissa, saturating, metadata):
        self.saturating = saturating
        self.has_metadata = metadata
        super().__init__({
            "exponent": In(8),
            "mantissa": In(mantissa),
            "top": In(8),
            "least": In(8),
            "blank": In(1),
            "magnitude": Out(_Magnitude if metadata else _PlainMagnitude),
        })

    def elaborate(self, platform):
        m = Module()

        # The magnitude is h.mmm * 2**(2 - places) in units of the scale; subnormals have h = 0
        # and exponent 1. From 7 places on it is below 1/16 and rounds to 0 (of E2M1: from 5 on,
        # below 1/4). A comparison with a bound that all lanes share and a difference of three
        # bits replace one of eight.
        h = Signal()
        exponent = Signal(8)
        places = Signal(3)
        near = Signal()
        m.d.comb += [
            h.eq(self.exponent.any()),
            exponent.eq(self.exponent | ~h),
            places.eq(self.top[:3] - exponent[:3]),
            near.eq((exponent >= self.least) & ~self.blank),
        ]
        last = _places(self.has_metadata)
        at = [Signal(name=f"at{place}") for place in range(last + 1)]
        for place in range(last + 1):
            # Nothing near is at more places: a bit that only tells one from them is spared.
            telling = [bit for bit in range(3) if place >> bit & 1 or place | 1 << bit <= last]
            m.d.comb += at[place].eq(near & Cat(
                places[bit] == (place >> bit & 1) for bit in telling).all())

        m1, m2, m3, m4, m5 = reversed(self.mantissa[-5:])
        # Whether any bit follows the fifth, the fourth ...
        after = [self.mantissa[:-5].any()]
        for i, bit in enumerate((m5, m4, m3, m2, m1)):
            any_after = Signal(name=f"after{i}")
            m.d.comb += any_after.eq(bit | after[-1])
            after.append(any_after)

        # Below 2 an E2M3 code counts eighths: fixed point. Above, it is the exponent's code and
        # the mantissa, which lies as it does in 1 to 2. Under scale code 0 a subnormal lies below
        # 2 at 1 place. Rows: the code's three lower bits, guard, sticky.
        # An E2M1 code, which counts halves, is its upper three bits.
        zero = C(0, 1)
        subnormal = at[1] & ~h
        same = at[0] | (at[1] & h) | at[2]
        if self.has_metadata:
            rows = [
                (same, (m1, m2, m3, m4, after[1])),
                (subnormal, (m2, m3, m4, m5, after[0])),
                (at[3], (h, m1, m2, m3, after[2])),
                (at[4], (zero, h, m1, m2, after[3])),
                (at[5], (zero, zero, h, m1, after[4])),
                (at[6], (zero, zero, zero, h, after[5])),
            ]
        else:
            rows = [
                (same, (m1, m2, after[3])),
                (subnormal, (m2, m3, after[2])),
                (at[3], (h, m1, after[4])),
                (at[4], (zero, h, after[5])),
            ]
        columns = zip(*(row for _, row in rows), strict=True)
        *lower, guard, sticky = (
            reduce(or_, (selected & bit for (selected, _), bit in zip(rows, column, strict=True)))
            for column in columns)
        upper = Cat(at[0] | (at[2] & h) | (subnormal & m1), at[0] | (at[1] & h))
        code = Cat(*reversed(lower), upper)
        if self.saturating:
            code = code | ((exponent > self.top) & ~self.blank).replicate(len(code))
        m.d.comb += self.magnitude.eq(Cat(code, guard, sticky))

        return m


class _EncodeSubgroup(wiring.Component):
    """Rounds a subgroup to FP4 and its top-1 to E2M3.

    Members
    -------
    magnitudes : In(data.ArrayLayout(_Magnitude, 8))
    codes : Out(data.ArrayLayout(3, 8))
        E2M1 magnitude codes.
    meta : Out(2)
    """

    magnitudes: In(data.ArrayLayout(_Magnitude, SUBGROUP))
    codes: Out(data.ArrayLayout(3, SUBGROUP))
    meta: Out(2)

    def elaborate(self, platform):
        m = Module()

        # An E2M3 code's upper three bits are the E2M1 code rounded down; the rest rounds it.
        up = Signal(SUBGROUP)
        for i in range(SUBGROUP):
            magnitude = self.magnitudes[i]
            lower, upper = magnitude.code[:2], magnitude.code[2:]
            rest = lower[0] | magnitude.guard | magnitude.sticky
            m.d.comb += [
                up[i].eq(_rounds_up(upper, lower[1], rest)),
                self.codes[i].eq(upper + up[i]),
            ]

        # Only the top-1 is rounded to E2M3. Its code plus the bias of 1, less four times its
        # E2M1 code, is lower + round + 1, less 4 if that was rounded up: clamped to 0..3.
        lane, _ = select_top1(m, [self.codes[i] for i in range(SUBGROUP)])
        lower = Signal(2)
        guard = Signal()
        sticky = Signal()
        top_up = Signal()
        biased = Signal(3)
        m.d.comb += [
            Cat(lower, guard, sticky, top_up).eq(reduce(or_, (
                Cat(magnitude.code[:2], magnitude.guard, magnitude.sticky, rounded_up)
                & selected.replicate(5)
                for magnitude, rounded_up, selected in zip(self.magnitudes, up, lane, strict=True)
            ))),
            biased.eq(lower + (guard & (sticky | lower[0])) + 1),
        ]
        with m.If(top_up):
            m.d.comb += self.meta.eq(Mux(biased[2], biased[:2], 0))
        with m.Else():
            m.d.comb += self.meta.eq(Mux(biased[2], 3, biased[:2]))

        return m
