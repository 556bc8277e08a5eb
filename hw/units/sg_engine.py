# SPDX-License-Identifier: BSD-2-Clause
"""The encoder of activations with subgroup factors, at the speed of the quantization engine."""

from functools import reduce
from itertools import product
from operator import or_

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..lib.arithmetic import compress, greater, largest
from ..lib.factor_trial import FACTORS, SCALES, Choice, SpecialTrial, Trial
from ..lib.formats import (
    FLOATS,
    GROUP,
    SCALE_NAN,
    SUBGROUP,
    SUBGROUPS,
    Record,
    values_layout,
)
from ..lib.magnitude import KEPT, TOP_EXPONENTS, Align, Magnitude
from ..lib.pipeline import Register
from ..lib.widen import Widen

ENCODINGS = "sg-threshold", "sg-em", "sg-special"

CYCLES = 1, 2, 4, 8, 16


def _codes(scales):
    """A lane's codes under all scales and factors, and whether it is nearest to a special value."""
    trials = FACTORS * len(scales)
    special = {"special": trials} if scales[0].special else {}
    return data.StructLayout({"codes": data.ArrayLayout(3, trials), **special, "sign": 1})


class SgEngine(wiring.Component):
    """Quantizes 32 values to an activation's group record with a factor for each subgroup.

    In "sg-threshold" the scale is by the largest magnitude, and the factor of a subgroup has the
    least sum of errors, which are cut to seven bits. In "sg-em" three scales are tried, and the one
    with the least sum over the group is taken; errors have up to ten bits. In "sg-special" four
    special values are tried in the place of scales. Specification sections 10.6 to 10.8. Ties go to
    the lowest factor, then to the lowest scale or the first special value. Elements are rounded
    under them to nearest, ties to even, saturating; that is exact, also of subnormals. A group that
    holds NaN or an infinity becomes a NaN group: scale 255, all else 0.

    One group takes ``cycles`` cycles, in each of which the unit works on 32 / ``cycles`` lanes
    under all factors and scales. As each of them has its own logic, all decision points are
    constants.

    Values stay at the input until their last lane is taken, ``i.ready`` is 1 in the last of these
    cycles only. A copy of them would take 1024 flip-flops, or 320 behind the alignment, which then
    would need 32 shifters in place of 32 / ``cycles``. The largest exponent is found anew in each
    cycle, by the same gates. A `StreamRegister` before the unit lets the source of the values go
    on. If values are withdrawn before they are taken, the unit begins with the next ones.

    Three stages, whose registers all move at once, if the record is not valid or leaves::

        stage  works on                  registers behind it
        1      all exponents             scale
               the cycle's lanes         magnitudes: 9 bits in place of 31
        2      magnitudes, four times    codes and errors under each factor, errors summed up
        3      a subgroup                its best factor and the codes under it: the record

    In "sg-em" stages 2 and 3 work under three scales. Behind stage 3 are the group's codes under
    each of them and the sums of its errors, of which the record comes without another register. In
    "sg-special" they work under two scales, 5 or -5 and 8 or -8 being the special value. Behind
    stage 3 are codes and sums under four special values.

    The lanes of a subgroup come in 1 to 4 cycles. Their errors are added in the register behind
    stage 2, and their codes follow each other there. With the last of them stage 3 takes the
    subgroup as a whole. Subgroups move into the record from above, so that a group is whole with
    its last subgroup. Latency ``cycles`` + 2, from the first cycle in which values are offered::

        cycle, with cycles=4   0  1  2  3  4  5  6  7
        stage 1                s0 s1 s2 s3 t0 t1 t2 t3    subgroups of groups s and t
        stage 2                   s0 s1 s2 s3 t0 t1 t2
        stage 3                      s0 s1 s2 s3 t0 t1
        record valid                          s

    Parameters
    ----------
    input : str
        Type of the values: "float32", "bfloat16" or "float16".
    encoding : str
        "sg-threshold", "sg-em" or "sg-special".
    cycles : int
        Cycles per group: 1, 2, 4, 8 or 16.

    Members
    -------
    i : In(stream.Signature(data.ArrayLayout(width, 32)))
        Bits of the values, element 0 in the least significant ones.
    o : Out(stream.Signature(Record))
        The group record, in the encoding Sg-EM, or Sg-special.

    Raises
    ------
    ValueError
        If ``input``, ``encoding`` or ``cycles`` is not one of these.
    """

    def __init__(self, *, input="float32", encoding="sg-threshold", cycles=4):
        if input not in FLOATS:
            raise ValueError(f"Input must be one of {', '.join(FLOATS)}, not {input!r}")
        if encoding not in ENCODINGS:
            raise ValueError(f"Encoding must be one of {', '.join(ENCODINGS)}, not {encoding!r}")
        if type(cycles) is not int or cycles not in CYCLES:
            raise ValueError(f"Cycles must be 1, 2, 4, 8 or 16, not {cycles!r}")
        self.input = input
        self.encoding = encoding
        self.cycles = cycles
        self._scales = SCALES[encoding]
        # What is tried: a scale, and whether the special value is negative.
        self._candidates = [(n, negative) for n, scale in enumerate(self._scales)
                            for negative in range(1 + bool(scale.special))]
        self._lanes = GROUP // cycles
        # Cycles that a subgroup takes, and subgroups that a cycle completes.
        self._parts = max(SUBGROUP // self._lanes, 1)
        self._whole = max(self._lanes // SUBGROUP, 1)
        super().__init__({
            "i": In(stream.Signature(values_layout(input))),
            "o": Out(stream.Signature(Record)),
        })

    @property
    def latency(self):
        return self.cycles + 2

    def elaborate(self, platform):
        m = Module()

        moves = Signal()
        m.d.comb += moves.eq(~self.o.valid | self.o.ready)
        turn = self._sequence(m, moves)

        magnitudes, scale = self._align(m, turn, moves)
        totals, lanes = self._try(m, magnitudes, moves)
        sums, records = self._choose(m, totals, lanes, moves)
        if self.encoding == "sg-special":
            self._choose_special(m, sums, records, scale)
        elif len(self._scales) == 1:
            m.d.comb += [self.o.payload.eq(records[0]), self.o.payload.scale.eq(scale)]
        else:
            self._choose_scale(m, sums, records, scale)

        return m

    def _sequence(self, m, moves):
        """Whose turn it is, one-hot, and what each stage works on.

        Returns
        -------
        Value
            Of the cycles of a group, the one in stage 1.
        """
        # Withdrawn values are forgotten.
        turn = Signal(self.cycles, init=1)
        if self.cycles > 1:
            with m.If(~self.i.valid):
                m.d.sync += turn.eq(1)
            with m.Elif(moves):
                m.d.sync += turn.eq(turn.rotate_left(1))
        # Stage 2: whether the first lanes of a subgroup are there. Stages 2 and 3: whether the last
        # ones are there, of a subgroup and of a group, and whether it is a group's first subgroup.
        self._opens = Signal(name="opens")
        self._closes, self._ends, self._starts = (
            Signal(2, name=name) for name in ("closes", "ends", "starts"))
        begins = Cat(turn[n] for n in range(0, self.cycles, self._parts)).any()
        completes = Cat(turn[n] for n in range(self._parts - 1, self.cycles, self._parts)).any()
        full = Signal()
        with m.If(moves):
            m.d.sync += [
                self._closes.eq(Cat(self.i.valid & completes, self._closes[0])),
                self._ends.eq(Cat(self.i.valid & turn[-1], self._ends[0])),
                full.eq(self._ends[1]),
            ]
            if self._parts > 1:
                m.d.sync += self._opens.eq(begins)
            if len(self._scales) > 1 and self.cycles > 1:
                m.d.sync += self._starts.eq(Cat(turn[self._parts - 1], self._starts[0]))
        m.d.comb += [
            self.i.ready.eq(moves & turn[-1]),
            self.o.valid.eq(full),
        ]
        return turn

    def _align(self, m, turn, moves):
        """Stage 1: the scale, and the magnitudes of the lanes whose turn it is.

        Returns
        -------
        magnitudes : list of View
        scale : Value
            Beside the record, and there until the record is taken. In Sg-EM 3 more than the lowest
            scale, or 255 in a NaN group. In Sg-special six bits of the exponent of the lower scale,
            whether that of 5 and -5 is twice as large, whether it is a NaN group.
        """
        values = [self._unpacked(m, n, value) for n, value in enumerate(self.i.payload)]
        exponents = [exponent for exponent, _ in values]

        is_largest, maximum = largest(m, exponents, name="maximum")
        large = maximum[2:].any()
        floor = Signal(8)
        raised = Signal()
        nonfinite = Signal()
        scale = Signal(8)
        m.d.comb += nonfinite.eq(maximum.all())
        if self.encoding == "sg-threshold":
            # The top binade, 8 to 16 times the scale, is that of the largest exponent, or the next
            # one if the largest magnitude is at least 5.5 times the scale in its own. It is at
            # least 3, where the scale's code is 0.
            reached = Cat(mantissa[-1] | mantissa[-3:-1].all() for _, mantissa in values)
            m.d.comb += [
                floor.eq(Cat(maximum[:2] | (~large).replicate(2), maximum[2:])),
                raised.eq((is_largest & reached).any() & (large | maximum[:2].all())),
                scale.eq(Mux(nonfinite, SCALE_NAN, floor - 3 + raised)),
            ]
        elif self.encoding == "sg-special":
            limited, reaches, doubled = self._special_scales(m, values, is_largest, maximum)
            m.d.comb += [
                floor.eq(limited),
                raised.eq(reaches),
                scale.eq(Cat((limited - TOP_EXPONENTS[0] + reaches)[:6], doubled, nonfinite)),
            ]
        else:
            # The top binade, 8 to 16 times the lowest scale, is that of the largest exponent. It is
            # at least 2, where that scale's code would be -1.
            m.d.comb += [
                floor.eq(Cat(maximum[0] & maximum[1:].any(), maximum[1] | ~large, maximum[2:])),
                scale.eq(floor),
            ]

        reduced = data.StructLayout({"exponent": 8, "mantissa": KEPT, "rest": 1, "sign": 1})
        parts = []
        for n, (exponent, mantissa) in enumerate(values):
            part = Signal(reduced, name=f"reduced{n}")
            m.d.comb += [
                part.exponent.eq(exponent),
                part.mantissa.eq(mantissa[-KEPT:]),
                part.rest.eq(mantissa[:-KEPT].any()),
                part.sign.eq(self.i.payload[n][-1]),
            ]
            parts.append(part)

        magnitudes = []
        for lane in range(self._lanes):
            m.submodules[f"align{lane}"] = align = Align(
                reduced, clears=self.encoding == "sg-em", bounded=self.encoding == "sg-special")
            chosen = reduce(or_, (part.as_value() & bit.replicate(reduced.size) for part, bit in
                                  zip(parts[lane::self._lanes], turn, strict=True)))
            m.d.comb += [
                align.value.eq(chosen if self.cycles > 1 else parts[lane]),
                align.floor.eq(floor),
                align.raised.eq(raised),
                align.blank.eq(nonfinite),
            ]
            m.submodules[f"magnitude{lane}"] = register = Register(Magnitude)
            m.d.comb += [register.i.eq(align.magnitude), register.enable.eq(moves)]
            magnitudes.append(register.o)

        if self.encoding == "sg-special":
            m.submodules.doubled = register = Register(1)
            m.d.comb += [register.i.eq(scale[6]), register.enable.eq(moves)]
            self._doubled = register.o

        # Where a group takes four cycles or more, its record leaves before the next group's last
        # cycle, with which the next scale comes.
        stays = self.cycles >= 4
        for stage in range(1 if stays else 3):
            m.submodules[f"scale{stage}"] = register = Register(8)
            m.d.comb += [
                register.i.eq(scale),
                register.enable.eq(moves & turn[-1] if stays else moves),
            ]
            scale = register.o
        return magnitudes, scale

    def _special_scales(self, m, values, is_largest, maximum):
        """The scales of Sg-special by the largest magnitude. Specification section 12.4.

        Under the scale of 8 and -8, which is the lower one, it is 7.5 to 15.

        Returns
        -------
        limited : Value
            The largest exponent, within `TOP_EXPONENTS`.
        reaches : Value
            Whether the top binade, 8 to 16 times the lower scale, is the next one.
        doubled : Value
            Whether the scale of 5 and -5 is twice the lower one.
        """
        bottom, top = TOP_EXPONENTS
        within = Signal()
        five, eight = Signal(), Signal()
        m.d.comb += [
            within.eq((maximum >= bottom) & (maximum < top)),
            # 1.375 and 1.875 times a power of two.
            five.eq((is_largest & Cat(mantissa[-1] | mantissa[-3:-1].all()
                                      for _, mantissa in values)).any()),
            eight.eq((is_largest & Cat(mantissa[-3:].all() for _, mantissa in values)).any()),
        ]
        limited = Mux(within, maximum, Mux(maximum[7], top, bottom))
        return limited, within & eight, within & five & ~eight

    def _unpacked(self, m, n, value):
        """A value's exponent with the bias of float32, and its mantissa."""
        layout = FLOATS[self.input]
        if layout.exponent == 8:
            return value[layout.mantissa:-1], value[:layout.mantissa]
        m.submodules[f"widen{n}"] = widen = Widen()
        m.d.comb += widen.value.eq(value[:-1])
        return widen.exponent, widen.mantissa

    def _try(self, m, magnitudes, moves):
        """Stage 2: the lanes under all scales and factors.

        Returns
        -------
        totals : list of list of Value
            By candidate and subgroup, an array of sums by factor.
        lanes : list of View
            Of the subgroups, each a `_codes`.
        """
        layout = _codes(self._scales)
        errors, found = [], []
        for lane, magnitude in enumerate(magnitudes):
            held = Signal(layout, name=f"codes{lane}")
            m.d.comb += held.sign.eq(magnitude.sign)
            errors.append(self._try_lane(m, lane, magnitude, held))
            found.append(held)
        # Codes of a subgroup's earlier cycles go on, to be there with its last ones.
        lanes = []
        for stage in range(self._parts):
            for lane, held in enumerate(found):
                m.submodules[f"codes{stage}_{lane}"] = register = Register(layout)
                m.d.comb += [register.i.eq(held), register.enable.eq(moves)]
                found[lane] = register.o
            lanes = found + lanes

        totals = [[[] for _ in range(self._whole)] for _ in self._candidates]
        width = min(self._lanes, SUBGROUP)
        for j, n in product(range(self._whole), range(FACTORS * len(self._candidates))):
            name, bits = f"sum{j}_{n}", self._width(n // FACTORS)
            m.submodules[name] = register = Register(bits)
            rows = [(0, of_lane[n], 0) for of_lane in errors[width * j : width * (j + 1)]]
            if self._parts > 1:
                rows.append((0, register.o & (~self._opens).replicate(bits), 0))
            total = Signal(bits, name=f"{name}_total")
            first, second = compress(m, rows, width=bits, name=name, words=False)
            m.d.comb += [
                total.eq(first + second),
                register.i.eq(total),
                register.enable.eq(moves),
            ]
            totals[n // FACTORS][j].append(register.o)
        return totals, lanes

    def _try_lane(self, m, lane, magnitude, held):
        """A lane in stage 2: its codes are held, its errors returned by candidate and factor."""
        odd = [magnitude.odd] * len(self._scales)
        if self.encoding == "sg-special":
            # Under twice the lower scale what is shifted out follows, too.
            odd[0] = Signal(9, name=f"five{lane}")
            m.d.comb += odd[0].eq(Mux(self._doubled, Cat(magnitude.odd[:2].any(),
                                                         magnitude.odd[2:]), magnitude.odd))
        errors = [[] for _ in self._candidates]
        for n, (number, k) in enumerate(product(range(len(self._scales)), range(FACTORS))):
            scale = self._scales[number]
            m.submodules[f"trial{lane}_{n}"] = trial = Trial(k, scale)
            m.d.comb += [trial.magnitude.eq(odd[number]), held.codes[n].eq(trial.code)]
            if not scale.special:
                errors[number].append(trial.error)
                continue
            m.submodules[f"special{lane}_{n}"] = special = SpecialTrial(k, scale)
            m.d.comb += [special.magnitude.eq(odd[number]), held.special[n].eq(special.takes)]
            for negative in range(2):
                takes = special.takes & (magnitude.sign == negative)
                errors[2 * number + negative].append(Mux(takes, special.error, trial.error))
        return sum(errors, [])

    def _width(self, candidate):
        """Bits of the sum of errors of a subgroup."""
        return self._scales[self._candidates[candidate][0]].sum_width

    def _choose(self, m, totals, lanes, moves):
        """Stage 3: the best factors of each candidate.

        Returns
        -------
        sums : list of Value
            By candidate, the sum of errors of the group.
        records : list of Value
            By candidate, the record; its scale is 0.
        """
        sums, records = [], []
        takes = Signal()
        m.d.comb += takes.eq(moves & self._closes[1])
        for number, (scale, negative) in enumerate(self._candidates):
            width = self._width(number)
            elements, factors, least = [], [], []
            for j, of_factors in enumerate(totals[number]):
                m.submodules[f"choice{number}_{j}"] = choice = Choice(width)
                m.d.comb += [port.eq(total) for port, total in
                             zip(choice.totals, of_factors, strict=True)]
                factors.append(choice.factor)
                least.append(choice.least)
                for lane in lanes[SUBGROUP * j : SUBGROUP * (j + 1)]:
                    code = _chosen(choice.factor, lane.codes, scale)
                    if self.encoding == "sg-special":
                        special = _chosen(choice.factor, lane.special, scale)
                        nearest = special & (lane.sign == negative)
                        # Zeros have no sign.
                        elements.append(Mux(nearest, 8, Cat(code, lane.sign & code.any())))
                    else:
                        # Signs are the same under all scales.
                        elements.append(code if number else Cat(code, lane.sign))
            # Subgroups come in from above.
            held = Signal(len(elements[0]) * GROUP, name=f"elements{number}", reset_less=True)
            metadata = Signal(2 * SUBGROUPS, name=f"metadata{number}", reset_less=True)
            with m.If(takes):
                m.d.sync += [
                    held.eq(Cat(held, *elements)[-len(held):]),
                    metadata.eq(Cat(metadata, *factors)[-len(metadata):]),
                ]
            if number == 0:
                signs = held[3::4]
            elif self.encoding == "sg-em":
                held = Cat(Cat(held[3 * n : 3 * n + 3], sign) for n, sign in enumerate(signs))
            records.append(Cat(held, metadata, C(0, 8)))
            if len(self._scales) == 1:
                continue
            # Of four subgroups.
            held = Signal(width + 2, name=f"total{number}", reset_less=True)
            earlier = Signal.like(held, name=f"earlier{number}")
            if self.cycles > 1:
                m.d.comb += earlier.eq(held & (~self._starts[1]).replicate(len(held)))
            with m.If(takes):
                m.d.sync += held.eq(sum(least, earlier))
            sums.append(held)
        return sums, records

    def _choose_scale(self, m, sums, records, floor):
        """Behind stage 3, in Sg-EM: the record under the best scale."""
        # In units of the lowest one. Of two equal sums the first one stays.
        width = max(len(total) + 2 * scale.place for total, scale in
                    zip(sums, self._scales, strict=True))
        totals = [Signal(width, name=f"weighted{n}") for n in range(len(sums))]
        better = Signal(width)
        middle, highest = Signal(), Signal()
        m.d.comb += [
            *(weighted.eq(total << 2 * scale.place) for weighted, total, scale in
              zip(totals, sums, self._scales, strict=True)),
            # The lowest scale does not exist where its code would be -1.
            middle.eq(greater(m, totals[0], totals[1], name="middle_less") | (floor == 2)),
            better.eq(Mux(middle, totals[1], totals[0])),
            highest.eq(greater(m, better, totals[2], name="highest_less")),
            self.o.payload.eq(Mux(highest, records[2],
                                  Mux(middle, records[1], records[0]))),
            self.o.payload.scale.eq(Mux(floor.all(), SCALE_NAN,
                                        floor - 3 + Mux(highest, 2, middle))),
        ]

    def _choose_special(self, m, sums, records, scale):
        """Behind stage 3, in Sg-special: the record of the best special value."""
        exponent, doubled, nonfinite = scale[:6], scale[6], scale[7]
        better = [Signal(len(sums[0]), name=f"better{n}") for n in range(2)]
        weighted = Signal(len(sums[0]) + 2)
        five, eight, last = Signal(), Signal(), Signal()
        byte = Signal(8)
        m.d.comb += [
            # Of equal sums the first one stays. The byte of the last candidate may be NaN's.
            five.eq(greater(m, sums[0], sums[1], name="five_less")),
            eight.eq(greater(m, sums[2], sums[3], name="eight_less") & ~exponent.all()),
            better[0].eq(Mux(five, sums[1], sums[0])),
            better[1].eq(Mux(eight, sums[3], sums[2])),
            # In units of the lower scale.
            weighted.eq(Mux(doubled, better[0].shift_left(2), better[0])),
            last.eq(greater(m, weighted, Cat(better[1], C(0, 2)), name="last_less")),
            byte.eq(Mux(last, Cat(eight, C(1, 1), exponent),
                        Cat(five, C(0, 1), (exponent + doubled)[:6]))),
            self.o.payload.eq(Mux(last, Mux(eight, records[3], records[2]),
                                  Mux(five, records[1], records[0]))),
            self.o.payload.scale.eq(byte | nonfinite.replicate(8)),
        ]


def _chosen(factor, values, scale):
    """Of values by scale and factor, the one under a factor that is chosen."""
    values = [values[FACTORS * scale + k] for k in range(FACTORS)]
    low, high = (Mux(factor[0], values[k + 1], values[k]) for k in (0, 2))
    return Mux(factor[1], high, low)
