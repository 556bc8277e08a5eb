# SPDX-License-Identifier: BSD-2-Clause
from functools import reduce
from operator import or_

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..lib.arithmetic import carry_skip_add, compress, greater, largest
from ..lib.formats import GROUP, SCALE_NAN, SUBGROUP, SUBGROUPS, Record, e2m1_significand
from ..lib.pipeline import Register
from .quantization_engine import values_layout

ENCODINGS = "sg-em", "sg-threshold"

# U is a magnitude relative to the scale that is tried, below 16, in units of 2**-25: 29 bits. What
# is at most 1/4 has the code 0 under every factor and adds nothing; of what is more, the 24 bits of
# a significand reach no lower. Decision points times a factor are multiples of 1/16, U's bit 21.
_SIXTEENTH = 21

# A sum over lanes of twice an element, at most 12, times U is below 8 * 12 * 2**29 < 2**36.
_SUM = 36

# Steps up to this one look for the largest exponent; see `WeightEncoder.elaborate`.
_FIRST = 11
_SETTLE = 15

_Place = data.StructLayout({"below": 3, "near": 1, "normal": 1})
"""Where a value is under a scale: how many binades below 8 times it, whether that is all, and
whether the value is not subnormal."""


class WeightEncoder(wiring.Component):
    """Encodes 32 float32 values as a group record with a factor for each subgroup, serially.

    "sg-em" is the encoder of weights: of four factors and three scales those with the least squared
    error. "sg-threshold" takes one scale, by the largest magnitude. Errors are compared exactly;
    ties go to the lowest factor, then to the lowest scale. Elements are rounded to nearest, ties to
    even, saturating; subnormals are exact. A group that holds NaN or an infinity becomes a NaN
    group: scale 255, all else 0. Specification sections 4 and 6, and ``docs/encodings.md``.

    One group every ``cycles``: 64 in Sg-EM, 27 in Sg-threshold. The values are not copied, they
    stay at the input until they are encoded: ``i.ready`` follows ``i.valid``, in the last of these
    cycles; a `StreamRegister` before it lets their source go on. The record is there in the cycle
    after. A group is not begun before the record of the one before is taken.

    Parameters
    ----------
    encoding : str
        "sg-em" or "sg-threshold".

    Members
    -------
    i : In(stream.Signature(data.ArrayLayout(32, 32)))
        Bits of the values, element 0 in the least significant ones.
    o : Out(stream.Signature(Record))

    Raises
    ------
    ValueError
        If ``encoding`` is not one of these.
    """

    def __init__(self, *, encoding="sg-em"):
        if encoding not in ENCODINGS:
            raise ValueError(f"Encoding must be one of {', '.join(ENCODINGS)}, not {encoding!r}")
        self.encoding = encoding
        self.adaptive = encoding == "sg-em"
        # First step of the last pass. With one scale, the last factor is known just in time.
        self._last_pass = 70 if self.adaptive else 33
        super().__init__({
            "i": In(stream.Signature(values_layout("float32"))),
            "o": Out(stream.Signature(Record)),
        })

    @property
    def cycles(self):
        """Cycles per group."""
        return self._last_pass + SUBGROUPS + 1 - _FIRST

    @property
    def latency(self):
        return self.cycles

    def elaborate(self, platform):
        m = Module()

        # A step is a cycle; a stage of the pipeline works on what the one before did in the step
        # before:
        #   0  exponents of a subgroup: how far they are below the scale's
        #   1  its magnitudes, and their codes
        #   2  the sums over its lanes of codes times magnitudes, in carry-save form, and of codes
        #      times codes
        #   3  their difference
        #   4  what that gains, and whether it is the best
        # In steps 11 to 14 stage 0 looks for the largest exponent. From step 16 on the step's two
        # lowest bits are the factor, the next two the subgroup, and what is above them counts
        # scales from 1 on; to stage 4 the factor is the same, and the subgroup one more. The last
        # pass, which encodes what was chosen, has stages 0 and 1 only.
        step = Signal(7, init=_FIRST)
        full = Signal()
        begin = Signal()
        last = Signal()
        m.d.comb += [
            begin.eq((step == _FIRST) & self.i.valid & (~full | self.o.ready)),
            last.eq(step == self._last_pass + SUBGROUPS),
            self.i.ready.eq(last),
            self.o.valid.eq(full),
        ]
        with m.If(last):
            m.d.sync += step.eq(_FIRST)
        with m.Elif((step != _FIRST) | begin):
            m.d.sync += step.eq(step + 1)
        with m.If(last | self.o.ready):
            m.d.sync += full.eq(last)

        # The subgroup of stage 0, one-hot. Every pass goes around and ends where it began.
        subgroup = Signal(SUBGROUPS, init=1)
        in_last_pass = Signal()
        factors = Signal(data.ArrayLayout(2, SUBGROUPS), reset_less=True)
        choice = Signal(2, reset_less=True)
        m.d.comb += in_last_pass.eq((step >= self._last_pass) & ~last)
        tried = (step > _SETTLE) & (step < (64 if self.adaptive else 32))
        with m.If(begin | ((step > _FIRST) & (step < _SETTLE)) | (tried & (step[:2] == 3))
                  | in_last_pass):
            m.d.sync += subgroup.eq(subgroup.rotate_left(1))

        reference, bad, places = self._place(m, step, begin, subgroup, choice)
        negative, *lanes = self._round(m, step, subgroup, in_last_pass, factors, places)
        excess = self._sum(m, step, *lanes)
        self._choose(m, step, reference, excess, factors, choice)

        # The scale, whether it is NaN and the factors stay as they are until the next group.
        elements = Signal(data.ArrayLayout(4, GROUP), reset_less=True)
        writes = Signal()
        new = Cat(Cat(code, sign) for code, sign in zip(lanes[-1], negative, strict=True))
        m.d.sync += writes.eq(in_last_pass)
        with m.If(writes):
            m.d.sync += elements.eq(Cat(
                elements.as_value()[4 * SUBGROUP:], new & ~bad.replicate(len(new))))
        record = self.o.payload
        m.d.comb += [
            record.elements.eq(elements),
            record.metadata.eq(factors.as_value() & ~bad.replicate(2 * SUBGROUPS)),
            record.scale.eq(Mux(bad, SCALE_NAN, reference - 3)),
        ]

        return m

    def _place(self, m, step, begin, subgroup, choice):
        """Stage 0.

        Returns
        -------
        reference, bad, places : Signal
            Exponent of 8 times the scale, which is that of U's top bit and 3 more than the scale's
            code; whether the group has NaN or infinities; a place per lane.
        """
        values = self.i.payload
        exponents = _selected(m, [value[23:31] for value in values], subgroup, name="exponent")

        # By the floor rule the scale's code is the largest exponent less 2, or 0. Sg-EM begins one
        # lower, so that the reference is that exponent, and at least 2; if it is 2, the scale does
        # not exist. In Sg-threshold the reference is one more where the significand is at least
        # 1.375, and at least 3.
        reference = Signal(9, reset_less=True)
        bad = Signal(reset_less=True)
        ranks, before, least = exponents, reference[:8], 2
        if not self.adaptive:
            reached = Signal(reset_less=True)
            uppers = [value[22] | value[20:22].all() for value in values]
            uppers = _selected(m, uppers, subgroup, name="upper")
            ranks = [Cat(pair) for pair in zip(uppers, exponents, strict=True)]
            before, least = Cat(reached, before), 3 << 1
        floor = Signal(len(before))
        m.d.comb += floor.eq(Mux(step == _FIRST, least, before))
        _, maximum = largest(m, [*ranks, floor], name="maximum")

        added = Signal(signed(3))
        if self.adaptive:
            with m.If(step == self._last_pass - 1):
                # From the highest scale to the chosen one.
                m.d.comb += added.eq(choice - 2)
            with m.Elif((step == 31) | (step == 47)):
                m.d.comb += added.eq(1)
        else:
            m.d.comb += added.eq((step == _SETTLE) & reached)
        with m.If(step >= _SETTLE):
            m.d.sync += reference.eq(reference + added)
        with m.Elif((step != _FIRST) | begin):
            m.d.sync += reference.eq(maximum[-8:])
            if not self.adaptive:
                m.d.sync += reached.eq(maximum[0])
        with m.If(step == _SETTLE):
            m.d.sync += bad.eq(reference[:8].all())

        places = Signal(data.ArrayLayout(_Place, SUBGROUP), reset_less=True)
        for lane, exponent in enumerate(exponents):
            # Subnormals have exponent 1. No exponent is above the reference.
            difference = Signal(9, name=f"difference{lane}")
            normal = exponent.any()
            m.d.comb += difference.eq(reference - Cat(exponent[0] | ~normal, exponent[1:]))
            m.d.sync += [
                places[lane].below.eq(difference[:3]),
                places[lane].near.eq(~difference[3:].any()),
                places[lane].normal.eq(normal),
            ]
        return reference, bad, places

    def _round(self, m, step, subgroup, in_last_pass, factors, places):
        """Stage 1.

        Returns
        -------
        negative : list of Value
            Signs of the lanes.
        significands, shifts, codes : list of Signal
            Twice a lane's element times its U is the significand times that of the code, times
            2**7, shifted down. Where the code is 0, the shift means nothing.
        """
        chosen = Signal(SUBGROUPS, reset_less=True)
        factor = Signal(2, reset_less=True)
        # With one scale, factors move down one more as the last one is found.
        found = _gather(subgroup, [factors[i if self.adaptive else min(i + 1, SUBGROUPS - 1)]
                                   for i in range(SUBGROUPS)])
        m.d.sync += [
            chosen.eq(subgroup),
            factor.eq(Mux(in_last_pass, found, step[:2])),
        ]
        values = [Cat(value[:23], value[31]) for value in self.i.payload]
        values = _selected(m, values, chosen, name="value")

        significands, shifts, codes = [], [], []
        points = [_times(factor, point) for point in (7, 14, 3, 20, 10, 5, 1)]
        for lane, value in enumerate(values):
            place = places[lane]
            significand = Signal(24, name=f"significand{lane}")
            upper = Signal(8, name=f"upper{lane}")
            rest = Signal(name=f"rest{lane}")
            low, middle, high = place.below
            # U is the significand, whose first bit is that of value 8, shifted down.
            m.d.comb += [
                significand.eq(Cat(value[:23], place.normal)),
                upper.eq(significand[16:] >> place.below),
                rest.eq(significand[:16].any() | (significand[16:21] & Cat(
                    place.below.any(), middle | high, high | (middle & low), high,
                    high & (middle | low))).any()),
            ]
            # A code's bits are decisions, each of which says what the next one is about. Ties go
            # to the even code: the upper bits' up, the last one's down.
            half, quarter, last = (Signal(name=f"{name}{lane}")
                                   for name in ("half", "quarter", "last"))
            code = Signal(3, name=f"code{lane}")
            shift = Signal(3, name=f"shift{lane}")
            m.d.comb += [
                half.eq(upper >= points[0]),
                quarter.eq(upper >= Mux(half, points[1], points[2])),
                last.eq(Cat(rest, upper) > (Mux(half, Mux(quarter, points[3], points[4]),
                                                Mux(quarter, points[5], points[6])) << 1)),
                code.eq(Cat(last, quarter, half) & place.near.replicate(3)),
                # Less what twice the element is shifted up by, and 2 more. What has a code other
                # than 0 is at most 5 places down.
                shift.eq(place.below + Cat(half & ~quarter, ~half)),
            ]
            significands.append(significand)
            shifts.append(shift)
            codes.append(code)
        return [value[23] for value in values], significands, shifts, codes

    def _sum(self, m, step, *lanes):
        """Stages 2 and 3.

        With q an element's value, 2 q = halves * (4 + k) / 4, and u what it was, a subgroup gains
        the sum of q * (2 u - q) over zeros, which is less squared error. In units of 2**-27 it is
        4 + k times the sum of halves * U - halves**2 * (4 + k) * 2**21.

        Returns
        -------
        Signal
            That sum.
        """
        rows, squares = [], []
        for lane, given in enumerate(zip(*lanes, strict=True)):
            value, shift, code = (Signal.like(part, name=f"held_{part.name}", reset_less=True)
                                  for part in given)
            m.d.sync += [value.eq(given[0]), shift.eq(given[1]), code.eq(given[2])]
            # Twice the element is 0, 1, 2 or 3, shifted up. The product is added up before it is
            # shifted, which halves the rows of the sum.
            first, second = (value & bit.replicate(len(value)) for bit in e2m1_significand(code))
            product = Signal(24 + 2, name=f"product{lane}")
            shifted = Signal(24 + 2 + 7, name=f"shifted{lane}")
            m.d.comb += [
                product.eq(first + (second << 1)),
                shifted.eq((product << 7) >> shift),
            ]
            rows.append((0, shifted, 0))
            # 0, 1, 4, 9, 16, 36, 64 or 144: bit 0, and bits from 2 on.
            square = Signal(7, name=f"square{lane}")
            m.d.comb += square.eq(Cat(
                (code == 1) | (code == 3), (code == 2) | (code == 5), code == 3,
                (code == 4) | (code == 7), code == 5, code == 6, code == 7))
            squares += [(0, square[0], 0), (2, square[1:], 0)]

        m.submodules.sums = sums = Register(data.StructLayout({
            "total": _SUM,
            "carries": _SUM,
            # At most 7 * 8 * 144 = 8064.
            "taken": 13,
        }))
        total, carries = compress(m, rows, width=_SUM, name="sum")
        # At most 8 * 144.
        square_sum = Signal(11)
        excess = Signal(_SUM, reset_less=True)
        m.d.comb += [
            sums.enable.eq(1),
            sums.i.total.eq(total),
            sums.i.carries.eq(carries),
            square_sum.eq(sum(compress(m, squares, width=11, name="squares", words=False))),
            # Two stages behind the step.
            sums.i.taken.eq(_times(step[:2] ^ 2, square_sum)),
        ]
        # Less what is taken: its complement and 1. Not negative, as no lane's part is.
        place, complement = _SIXTEENTH, Cat(~sums.o.taken, C(-1, _SUM - _SIXTEENTH - 13))
        parts = compress(m, [(0, sums.o.total, 0), (0, sums.o.carries, 0), (place, complement, 0),
                             (place, C(1, 1), 0)], width=_SUM, name="less")
        m.d.sync += excess.eq(carry_skip_add(m, *parts, carry=C(0, 1), name="difference"))
        return excess

    def _choose(self, m, step, reference, excess, factors, choice):
        """Stage 4: factors and, in Sg-EM, which of the scales."""
        factor = step[:2]
        # All is at most the sum of squares, in units of 2**-27. In Sg-EM that is a group's 32, each
        # below 2**8; in Sg-threshold, where all is below 11, a subgroup's 8, below 2**10 together.
        width = 40 if self.adaptive else 37
        gained = Signal(width)
        lead = Signal(width, reset_less=True)
        lead_factor = Signal(2, reset_less=True)
        first = Signal(reset_less=True)
        m.d.sync += first.eq(step[:2] == 3)
        rows = [(2, excess, 0), (1, excess & factor[1].replicate(_SUM), 0),
                (0, excess & factor[0].replicate(_SUM), 0)]
        if self.adaptive:
            # What the subgroups before gained: what leads with their last factor.
            before = Signal(width)
            done = Signal(width, reset_less=True)
            follows = Signal(reset_less=True)
            m.d.sync += follows.eq((step[:2] == 3) & (step[2:4] != 0))
            m.d.comb += before.eq((lead & follows.replicate(width))
                                  | (done & (~first).replicate(width)))
            with m.If(first):
                m.d.sync += done.eq(before)
            rows.append((0, before, 1))
        m.d.comb += gained.eq(carry_skip_add(
            m, *compress(m, rows, width=width, name="gain"), carry=C(0, 1), name="gained_sum"))
        better = Signal()
        found = Signal(2)
        m.d.comb += [
            # The first one is there to be beaten.
            better.eq(first | greater(m, gained, lead, name="more")),
            found.eq(Mux(better, factor, lead_factor)),
        ]
        with m.If(better):
            m.d.sync += [lead.eq(gained), lead_factor.eq(factor)]
        if not self.adaptive:
            with m.If((factor == 3) & (step >= 20)):
                m.d.sync += factors.eq(Cat(factors.as_value()[2:], found))
            return

        present = Signal(data.ArrayLayout(2, SUBGROUPS), reset_less=True)
        with m.If(factor == 3):
            m.d.sync += present.eq(Cat(present.as_value()[2:], found))

        # Steps 36, 52 and 68, after the last factor of the last subgroup. Under the next scale the
        # unit is four times as large. What the best one has beyond it does not matter: it is beaten
        # by no sum that it would not be with it.
        m.submodules.best = best = Register(width - 2)
        number = step[4:] - 2
        take = Signal()
        m.d.comb += [
            take.eq((number == 0) | greater(m, lead, Cat(best.o, C(0, 2)), name="higher")
                    # The lowest scale does not exist.
                    | ((number == 1) & (reference == 4))),
            best.enable.eq((step[:4] == 4) & (step >= 36)),
            best.i.eq(Mux(take, lead, best.o) >> 2),
        ]
        with m.If(best.enable & take):
            m.d.sync += [factors.eq(present), choice.eq(number)]


def _selected(m, values, subgroup, *, name):
    """Signals for the lanes of a subgroup, out of a value per element."""
    signals = []
    for lane in range(SUBGROUP):
        signal = Signal(len(values[0]), name=f"{name}{lane}")
        m.d.comb += signal.eq(_gather(subgroup, values[lane::SUBGROUP]))
        signals.append(signal)
    return signals


def _gather(hot, values):
    """The value whose bit is set."""
    return reduce(or_, (value & bit.replicate(len(value))
                        for bit, value in zip(hot, values, strict=True)))


def _times(factor, value):
    """A value times 4 + k."""
    return (value << 2) + Mux(factor[1], value << 1, 0) + Mux(factor[0], value, 0)
