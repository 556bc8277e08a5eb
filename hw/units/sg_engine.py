# SPDX-License-Identifier: BSD-2-Clause
"""The encoder of activations with subgroup factors, at the speed of the quantization engine."""

from functools import reduce
from itertools import product
from operator import or_

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..lib.arithmetic import compress
from ..lib.factor_trial import FACTORS, SCALES, SCALES_IN_TURN, Choice, SpecialTrial, Trial
from ..lib.formats import (
    FLOATS,
    GROUP,
    SUBGROUP,
    WIDE_GROUP,
    Record,
    WideRecord,
    values_layout,
)
from ..lib.group_choice import best_scale, best_special, keep_better
from ..lib.group_scale import find_scale
from ..lib.magnitude import Align, magnitude_layout, reduced_layout
from ..lib.pipeline import Register
from ..lib.widen import unpacked

ENCODINGS = "sg-threshold", "sg-em", "sg-special", "sg-special64"

CYCLES = 1, 2, 4, 8, 16


class SgEngine(wiring.Component):
    """Quantizes 32 or 64 values to an activation's group record, with a factor for each subgroup.

    In "sg-threshold" the scale is by the largest magnitude, and the factor of a subgroup has the
    least sum of errors, which are cut to seven bits. In "sg-em" three scales are tried, and the one
    with the least sum over the group is taken; errors have up to ten bits. In "sg-special" four
    special values are tried in the place of scales; in "sg-special64" groups have 64 values, eight
    factors are tried, and errors have nine bits. Specification sections 10.6 to 10.8 and 18.10.
    Ties go to the lowest factor, then to the lowest scale or the first special value. Elements are
    rounded under them to nearest, ties to even, saturating; that is exact, also of subnormals. A
    group that holds NaN or an infinity becomes a NaN group: scale 255, all else 0.

    One group takes ``cycles`` cycles, in each of which the unit works on 32 / ``cycles`` lanes
    under all factors and scales. As each of them has its own logic, all decision points are
    constants.

    With special values and more than one cycle the unit goes through a group twice: first with 5
    and -5, then with 8 and -8. It works on twice as many lanes in a cycle, 64 / ``cycles``, or
    128 / ``cycles`` in "sg-special64". There are as many trials, but half as many sums, and a lane
    holds half as many codes.

    Values stay at the input until their last lane is taken, ``i.ready`` is 1 in the last of these
    cycles only. A copy of them would take 1024 flip-flops, or 320 behind the alignment, which then
    would need 32 shifters; twice as many of all for 64 values. The largest exponent is found anew
    in each cycle, by the same gates. A `StreamRegister` before the unit lets the source of the
    values go on. If values are withdrawn before they are taken, the unit begins with the next ones.

    Three stages, whose registers all move at once, if the record is not valid or leaves::

        stage  works on                  registers behind it
        1      all exponents             scale
               the cycle's lanes         magnitudes: 9 bits in place of 31
        2      magnitudes, four times    codes and errors under each factor, errors summed up
        3      a subgroup                its best factor and the codes under it: the record

    In "sg-em" stages 2 and 3 work under three scales. Behind stage 3 are the group's codes under
    each of them and the sums of its errors, of which the record comes without another register.
    With special values they work under both signs of one; behind stage 3 are codes and sums under
    each. While those under 8 and -8 come in, the better ones of 5 and -5 move on to a third place.
    If there is one cycle only, they work under two scales, 5 or -5 and 8 or -8 being the special
    value, and behind stage 3 are codes and sums under all four.

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
        "sg-threshold", "sg-em", "sg-special" or "sg-special64".
    cycles : int
        Cycles per group: 1, 2, 4, 8 or 16; not 1 in Sg-special64.

    Members
    -------
    i : In(stream.Signature(data.ArrayLayout(width, 32)))
        Bits of the values, element 0 in the least significant ones. In Sg-special64 there are 64.
    o : Out(stream.Signature(Record))
        The group record, in the encoding Sg-EM or Sg-special. In Sg-special64 a `WideRecord`.

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
        wide = encoding == "sg-special64"
        offered = CYCLES[wide:]
        if type(cycles) is not int or cycles not in offered:
            raise ValueError(f"Cycles must be {', '.join(map(str, offered[:-1]))} or {offered[-1]}"
                             f"{' in sg-special64' * wide}, not {cycles!r}")
        self.input = input
        self.encoding = encoding
        self.cycles = cycles
        self._group = WIDE_GROUP if wide else GROUP
        # Passes over a group: special values are tried in turn, where there is more than a cycle.
        self._in_turn = cycles > 1 and encoding in SCALES_IN_TURN
        self._steps = cycles // (1 + self._in_turn)
        self._scales = (SCALES_IN_TURN if self._in_turn else SCALES)[encoding]
        self._factors = FACTORS * len(self._scales[0])
        # What is tried at once: a scale, and whether the special value is negative.
        self._candidates = [(n, negative) for n, (scale, *_) in enumerate(self._scales)
                            for negative in range(1 + bool(scale.specials))]
        self._lanes = self._group // self._steps
        # Cycles that a subgroup takes, and subgroups that a cycle completes.
        self._parts = max(SUBGROUP // self._lanes, 1)
        self._whole = max(self._lanes // SUBGROUP, 1)
        super().__init__({
            "i": In(stream.Signature(values_layout(input, self._group))),
            "o": Out(stream.Signature(WideRecord if wide else Record)),
        })

    @property
    def latency(self):
        return self.cycles + 2

    def elaborate(self, platform):
        m = Module()

        moves = Signal()
        m.d.comb += moves.eq(~self.o.valid | self.o.ready)
        turn, last = self._sequence(m, moves)

        magnitudes, scale = self._align(m, turn, last, moves)
        totals, lanes = self._try(m, magnitudes, moves)
        sums, records = self._choose(m, totals, lanes, moves)
        if self.encoding == "sg-em":
            record, scale = best_scale(m, sums, records, scale,
                                       [scale.place for scale, in self._scales])
        elif self._in_turn:
            record, scale = best_special(m, sums, records, scale, self._five)
        elif self.encoding == "sg-special":
            record, scale = best_special(m, sums, records, scale)
        else:
            record, = records
        m.d.comb += [self.o.payload.eq(Cat(record, C(0, 8))), self.o.payload.scale.eq(scale)]

        return m

    def _sequence(self, m, moves):
        """Whose turn it is, and what each stage works on.

        Returns
        -------
        turn : Value
            One-hot: of the cycles in which a group is gone through, the one in stage 1.
        last : Value
            Whether this is a group's last cycle in stage 1.
        """
        # Withdrawn values are forgotten.
        turn = Signal(self._steps, init=1)
        if self._steps > 1:
            with m.If(~self.i.valid):
                m.d.sync += turn.eq(1)
            with m.Elif(moves):
                m.d.sync += turn.eq(turn.rotate_left(1))
        last = turn[-1]
        if self._in_turn:
            last = self._take_turns(m, turn, moves)
        # Stage 2: whether the first lanes of a subgroup are there. Stages 2 and 3: whether the last
        # ones are there, of a subgroup and of a group, and whether it is a group's first subgroup
        # under a special value.
        self._opens = Signal(name="opens")
        self._closes, self._ends, self._starts = (
            Signal(2, name=name) for name in ("closes", "ends", "starts"))
        begins = Cat(turn[n] for n in range(0, self._steps, self._parts)).any()
        completes = Cat(turn[n] for n in range(self._parts - 1, self._steps, self._parts)).any()
        full = Signal()
        with m.If(moves):
            m.d.sync += [
                self._closes.eq(Cat(self.i.valid & completes, self._closes[0])),
                self._ends.eq(Cat(self.i.valid & last, self._ends[0])),
                full.eq(self._ends[1]),
            ]
            if self._parts > 1:
                m.d.sync += self._opens.eq(begins)
            if self._searches and self._steps > 1:
                m.d.sync += self._starts.eq(Cat(turn[self._parts - 1], self._starts[0]))
        m.d.comb += [
            self.i.ready.eq(moves & last),
            self.o.valid.eq(full),
        ]
        return turn, last

    @property
    def _searches(self):
        """Whether sums of a whole group are compared."""
        return len(self._candidates) > 1

    def _take_turns(self, m, turn, moves):
        """Where 5 and -5 are tried first, and then 8 and -8. Returns whether a group ends."""
        eight = Signal()
        later = Signal(2, name="eight_later")
        with m.If(~self.i.valid):
            m.d.sync += eight.eq(0)
        with m.Elif(moves & turn[-1]):
            m.d.sync += eight.eq(~eight)
        with m.If(moves):
            m.d.sync += later.eq(Cat(eight, later[0]))
        # By stage.
        self._eight = [eight, *later]
        return turn[-1] & eight

    def _align(self, m, turn, last, moves):
        """Stage 1: the scale, and the magnitudes of the lanes whose turn it is.

        Returns
        -------
        magnitudes : list of View
        scale : Value
            `GroupScale.scale`, beside the record, and there until the record is taken.
        """
        values = [unpacked(m, value, self.input, number=n)
                  for n, value in enumerate(self.i.payload)]
        found = find_scale(m, values, self.encoding,
                           eight=self._eight[0] if self._in_turn else None)

        reduced = reduced_layout(self.encoding)
        kept = reduced["mantissa"].shape
        parts = []
        for n, (exponent, mantissa) in enumerate(values):
            if len(mantissa) < kept:
                # That of bfloat16 has seven bits.
                mantissa = Cat(C(0, kept - len(mantissa)), mantissa)
            part = Signal(reduced, name=f"reduced{n}")
            m.d.comb += [
                part.exponent.eq(exponent),
                part.mantissa.eq(mantissa[-kept:]),
                part.rest.eq(mantissa[:-kept].any()),
                part.sign.eq(self.i.payload[n][-1]),
            ]
            parts.append(part)

        magnitudes = []
        for lane in range(self._lanes):
            m.submodules[f"align{lane}"] = align = Align(self.encoding)
            chosen = reduce(or_, (part.as_value() & bit.replicate(reduced.size) for part, bit in
                                  zip(parts[lane::self._lanes], turn, strict=True)))
            m.d.comb += [
                align.value.eq(chosen if self._steps > 1 else parts[lane]),
                align.floor.eq(found.floor),
                align.raised.eq(found.raised),
                align.blank.eq(found.nonfinite),
            ]
            m.submodules[f"magnitude{lane}"] = register = Register(magnitude_layout(self.encoding))
            m.d.comb += [register.i.eq(align.magnitude), register.enable.eq(moves)]
            magnitudes.append(register.o)

        if self.encoding == "sg-special" and not self._in_turn:
            m.submodules.doubled = register = Register(1)
            m.d.comb += [register.i.eq(found.doubled), register.enable.eq(moves)]
            self._doubled = register.o

        # Where a group takes four cycles or more, its record leaves before the next group's last
        # cycle, with which the next scale comes.
        stays = self.cycles >= 4
        scale = found.scale
        for stage in range(1 if stays else 3):
            m.submodules[f"scale{stage}"] = register = Register(8)
            m.d.comb += [
                register.i.eq(scale),
                register.enable.eq(moves & last if stays else moves),
            ]
            scale = register.o
        return magnitudes, scale

    def _try(self, m, magnitudes, moves):
        """Stage 2: the lanes under all scales and factors.

        Returns
        -------
        totals : list of list of Value
            By candidate and subgroup, an array of sums by factor.
        lanes : list of View
            Of the subgroups, each a `_codes`.
        """
        layout = self._codes()
        self._large = self._find_large(m, magnitudes, moves) if self._factors > FACTORS else None
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
        for j, n in product(range(self._whole), range(self._factors * len(self._candidates))):
            name, bits = f"sum{j}_{n}", self._width(n // self._factors)
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
            totals[n // self._factors][j].append(register.o)
        return totals, lanes

    def _find_large(self, m, magnitudes, moves):
        """Whether subgroups have magnitudes that the lower factors do not reach, in stage 3."""
        found = []
        width = min(self._lanes, SUBGROUP)
        for j in range(self._whole):
            m.submodules[f"large{j}"] = register = Register(1)
            large = Cat(magnitude.odd[-1] for magnitude in magnitudes[width * j : width * (j + 1)])
            earlier = register.o & ~self._opens if self._parts > 1 else 0
            m.d.comb += [register.i.eq(large.any() | earlier), register.enable.eq(moves)]
            found.append(register.o)
        return found

    def _codes(self):
        """Layout of a lane's codes under all scales and factors.

        With special values also whether it is nearest to one.
        """
        trials = self._factors * len(self._scales)
        special = {"special": trials} if self._scales[0][0].specials else {}
        return data.StructLayout({"codes": data.ArrayLayout(3, trials), **special, "sign": 1})

    def _try_lane(self, m, lane, magnitude, held):
        """A lane in stage 2: its codes are held, its errors returned by candidate and factor."""
        odd = [magnitude.odd] * len(self._scales)
        if self.encoding == "sg-special" and not self._in_turn:
            # Under twice the lower scale what is shifted out follows, too.
            odd[0] = Signal(9, name=f"five{lane}")
            m.d.comb += odd[0].eq(Mux(self._doubled, Cat(magnitude.odd[:2].any(),
                                                         magnitude.odd[2:]), magnitude.odd))
        errors = [[] for _ in self._candidates]
        tried = [(number, scale, k) for number, scales in enumerate(self._scales)
                 for scale, k in product(scales, range(FACTORS))]
        for n, (number, scale, k) in enumerate(tried):
            trial = SpecialTrial(k, scale) if scale.specials else Trial(k, scale)
            m.submodules[f"trial{lane}_{n}"] = trial
            m.d.comb += [trial.magnitude.eq(odd[number][: scale.magnitude_width]),
                         held.codes[n].eq(trial.code)]
            if not scale.specials:
                errors[number].append(trial.error)
                continue
            m.d.comb += [trial.sign.eq(magnitude.sign), held.special[n].eq(trial.takes)]
            if self._in_turn:
                m.d.comb += trial.eight.eq(self._eight[1])
            for negative in range(2):
                errors[2 * number + negative].append(trial.errors[negative])
        return sum(errors, [])

    def _width(self, candidate):
        """Bits of the sum of errors of a subgroup."""
        return self._scales[self._candidates[candidate][0]][0].sum_width

    def _choose(self, m, totals, lanes, moves):
        """Stage 3: the best factors of each candidate.

        Returns
        -------
        sums : list of Value
            By candidate, the sum of errors of the group.
        records : list of Value
            By candidate, elements and metadata.
        """
        sums, records = [], []
        takes = Signal()
        m.d.comb += takes.eq(moves & self._closes[1])
        for number, (scale, _) in enumerate(self._candidates):
            width = self._width(number)
            elements, factors, least = [], [], []
            for j, of_factors in enumerate(totals[number]):
                m.submodules[f"choice{number}_{j}"] = choice = Choice(width,
                                                                      len(self._scales[scale]))
                if self._large:
                    m.d.comb += choice.large.eq(self._large[j])
                m.d.comb += [port.eq(total) for port, total in
                             zip(choice.totals, of_factors, strict=True)]
                factors.append(choice.factor)
                least.append(choice.least)
                elements += [self._element(choice.factor, lane, number)
                             for lane in lanes[SUBGROUP * j : SUBGROUP * (j + 1)]]
            # Subgroups come in from above.
            held = Signal(len(elements[0]) * self._group, name=f"elements{number}",
                          reset_less=True)
            metadata = Signal(len(factors[0]) * self._group // SUBGROUP, name=f"metadata{number}",
                              reset_less=True)
            with m.If(takes):
                m.d.sync += [
                    held.eq(Cat(held, *elements)[-len(held):]),
                    metadata.eq(Cat(metadata, *factors)[-len(metadata):]),
                ]
            if number == 0:
                signs = held[3::4]
            elif self.encoding == "sg-em":
                held = Cat(Cat(held[3 * n : 3 * n + 3], sign) for n, sign in enumerate(signs))
            records.append((held, metadata))
            if not self._searches:
                continue
            # Of all subgroups.
            held = Signal(len(least[0]) + (self._group // SUBGROUP - 1).bit_length(),
                          name=f"total{number}", reset_less=True)
            earlier = Signal.like(held, name=f"earlier{number}")
            if self._steps > 1:
                m.d.comb += earlier.eq(held & (~self._starts[1]).replicate(len(held)))
            with m.If(takes):
                m.d.sync += held.eq(sum(least, earlier))
            sums.append(held)
        kept_sums, kept_records = [], []
        if self._in_turn:
            total, record, self._five = keep_better(
                m, sums, records, enable=takes & self._eight[2],
                first=self._starts[1] if self._steps > self._parts else C(1, 1),
                steps=self._steps // self._parts)
            kept_sums, kept_records = [total], [record]
        return kept_sums + sums, kept_records + [Cat(record) for record in records]

    def _element(self, factor, lane, candidate):
        """A lane's code under the factor that is chosen for a candidate."""
        scale, negative = self._candidates[candidate]
        code = self._chosen(factor, lane.codes, scale)
        if self._scales[scale][0].specials:
            nearest = self._chosen(factor, lane.special, scale) & (lane.sign == negative)
            # Zeros have no sign.
            return Mux(nearest, 8, Cat(code, lane.sign & code.any()))
        # Signs are the same under all scales.
        return code if candidate else Cat(code, lane.sign)

    def _chosen(self, factor, values, scale):
        """Of values by scale and factor, the one under a factor that is chosen."""
        values = [values[self._factors * scale + k] for k in range(self._factors)]
        for bit in factor:
            values = [Mux(bit, high, low)
                      for low, high in zip(values[::2], values[1::2], strict=True)]
        return values[0]
