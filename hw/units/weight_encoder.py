# SPDX-License-Identifier: BSD-2-Clause
"""The encoder of weights: one group record at a time, with the best factor of each subgroup."""

from functools import reduce
from operator import or_

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..lib.arithmetic import carry_skip_add, compress, greater, largest
from ..lib.formats import (
    GROUP,
    SCALE_NAN,
    SUBGROUP,
    SUBGROUPS,
    Record,
    e2m1_significand,
    values_layout,
)
from ..lib.pipeline import Register

ENCODINGS = "sg-em", "sg-threshold"

_FACTORS = 4

# U is a magnitude relative to the scale that is tried, below 16, in units of 2**-25: 29 bits. A U
# of at most 1/4 has the code 0 under every factor and adds nothing. The 24 bits of a larger one's
# significand reach no lower than 2**-25. Decision points times a factor are multiples of 1/16,
# which is U's bit 21.
_SIXTEENTH = 21

# A sum over lanes of twice an element, at most 12, times U is below 8 * 12 * 2**29 < 2**36.
_SUM = 36

_Work = data.StructLayout({"measures": 1, "settles": 1, "tries": 1, "writes": 1})
"""The kind of work of a token. At most one bit is set. Without one the token is a bubble."""

_Token = data.StructLayout({"work": _Work, "subgroup": SUBGROUPS, "factor": 2, "scale": 2})
"""Tells a stage what to do: the kind of work, the subgroup (one-hot), the metadata of the factor
and which of the scales, the lowest one being 0."""

_Place = data.StructLayout({"below": 3, "in_range": 1, "normal": 1})
"""Where a value is under a scale: how many binades below 8 times the scale, modulo 8; whether these
are less than 8; whether the value is not subnormal."""


class WeightEncoder(wiring.Component):
    """Encodes 32 float32 values as a group record with a factor for each subgroup, serially.

    "sg-em" is the encoder of weights: of four factors and three scales it takes those with the
    least squared error. "sg-threshold" takes one scale, by the largest magnitude. Errors are
    compared exactly; ties go to the lowest factor, then to the lowest scale. Elements are rounded
    to nearest, ties to even, saturating; subnormals are exact. A group that holds NaN or an
    infinity becomes a NaN group: scale 255, all else 0. Specification sections 4, 6 and 10.

    One group takes ``cycles`` cycles: 64 in Sg-EM, 27 in Sg-threshold. The values are not copied.
    They stay at the input until they are encoded: ``i.ready`` follows ``i.valid``, in the last of
    these cycles. A `StreamRegister` before the unit lets their source go on. The record is valid
    from the cycle after. A group does not begin before the record of the one before is taken.
    Values that are withdrawn or changed in these cycles spoil their own record and no other one;
    there is a record for each transfer, and for nothing else.

    A sequencer issues a token in each cycle. The token moves one stage per cycle, beside the data,
    and each stage does what its own token says. There are four kinds of tokens and bubbles (``-``):

    - ``Mj`` measures: looks for the largest exponent in subgroup j.
    - ``S`` settles: the first scale follows from the largest exponent.
    - ``sjk`` (digits) tries scale s on subgroup j, under the factor with metadata k.
    - ``Wj`` writes the elements of subgroup j, under the best scale and factor.

    ===== ======================================================== =======================
    stage works on                                                 does something with
    ===== ======================================================== =======================
    0     exponents of the subgroup: places under the scale        ``Mj  S  sjk  Wj``
    1     its magnitudes: codes                                    ``sjk  Wj``
    2     codes times magnitudes and codes times codes, summed     ``sjk``
    3     difference of these sums: the excess                     ``sjk``
    4     excess times factor: best factor of the subgroup         ``sjk``
    5     sum over the subgroups: best scale (Sg-EM only)          ``s33``
    ===== ======================================================== =======================

    Which token is in which stage in which cycle of a group, in Sg-EM::

        cycle    0  1  2  3  4   5   6 ...  20  21 ...  52  53  54  55  56  57  58 59 60 61 62 63
        stage 0 M0 M1 M2 M3  S 000 001 ... 033 100 ... 233   -   -   -   -   -   - W0 W1 W2 W3  .
        stage 1  . M0 M1 M2 M3   S 000 ... 032 033 ... 232 233   -   -   -   -   -  - W0 W1 W2 W3
        stage 2                    ... 031 032 ... 231 232 233
        stage 3                    ... 030 031 ... 230 231 232 233
        stage 4                    ... 023 030 ... 223 230 231 232 233
        stage 5                    ... 022 023 ... 222 223 230 231 232 233

    Stage 5 knows the best scale at the end of cycle 57. The reference moves to it in cycle 58, and
    writing begins. In Sg-threshold there is one scale. The factor of subgroup j is known at the end
    of cycle 12 + 4 j, when ``0j3`` is in stage 4, and written from cycle 22 on, so that the last
    factor is known just in time::

        cycle    0  1  2  3  4   5   6 ...  20  21  22  23  24  25  26
        stage 0 M0 M1 M2 M3  S 000 001 ... 033   -  W0  W1  W2  W3   .
        stage 1  . M0 M1 M2 M3   S 000 ... 032 033   -  W0  W1  W2  W3
        stage 4                        ... 023 030 031 032 033

    Parameters
    ----------
    encoding : str
        "sg-em" or "sg-threshold".

    Members
    -------
    i : In(stream.Signature(data.ArrayLayout(32, 32)))
        Bits of the values, element 0 in the least significant ones.
    o : Out(stream.Signature(Record))
        The group record of the values, in the encoding ``encoding``.

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
        self.scales = 3 if self.adaptive else 1
        # Writing begins two cycles after the last token that tries is in this stage. In Sg-EM it is
        # the stage that chooses the scale. In Sg-threshold the last factor is known when that token
        # leaves stage 4, and read in the cycle after, by the fourth token that writes.
        self._awaited = 5 if self.adaptive else 0
        super().__init__({
            "i": In(stream.Signature(values_layout("float32"))),
            "o": Out(stream.Signature(Record)),
        })

    @property
    def cycles(self):
        """Cycles per group."""
        measure, settle, write = SUBGROUPS, 1, SUBGROUPS
        tries = self.scales * SUBGROUPS * _FACTORS
        # The values are taken when the last token is in stage 1.
        return measure + settle + tries + self._awaited + 1 + write + 1

    @property
    def latency(self):
        return self.cycles

    def elaborate(self, platform):
        m = Module()

        m.submodules.sequencer = sequencer = _Sequencer(scales=self.scales)
        tokens = [Signal(_Token, name="token0")]
        for stage in range(1, 6 if self.adaptive else 5):
            m.submodules[f"token{stage}"] = register = _TokenRegister()
            m.d.comb += register.i.eq(tokens[-1])
            tokens.append(register.o)

        # The values are taken, and the record is whole, with the last token that writes.
        full = Signal()
        last = Signal()
        decided = Signal()
        awaited = tokens[self._awaited]
        m.d.sync += decided.eq(awaited.work.tries & _last_of_scale(awaited)
                               & (awaited.scale == self.scales - 1))
        m.d.comb += [
            last.eq(tokens[1].work.writes & tokens[1].subgroup[-1]),
            sequencer.begins.eq(self.i.valid & (~full | self.o.ready) & ~last),
            sequencer.decided.eq(decided),
            self.i.ready.eq(last),
            self.o.valid.eq(full),
        ]
        # Values that their source has withdrawn, against the rules of streams, give no record.
        with m.If(last | self.o.ready):
            m.d.sync += full.eq(last & self.i.valid)

        # A token that writes gets the factor here: it is known by now.
        factors = Signal(data.ArrayLayout(2, SUBGROUPS), reset_less=True)
        choice = Signal(2, reset_less=True)
        m.d.comb += tokens[0].eq(sequencer.token)
        with m.If(sequencer.token.work.writes):
            m.d.comb += tokens[0].factor.eq(self._best_factor(sequencer.token, factors))

        reference, nonfinite, places = self._place(m, tokens[0], decided, choice)
        negative, *lanes = self._round(m, tokens[1], places)
        excess = self._sum(m, tokens[2], *lanes)
        self._choose(m, tokens[3:], reference, excess, factors, choice)

        # The scale, whether it is NaN and the factors stay as they are until the next group.
        elements = Signal(data.ArrayLayout(4, GROUP), reset_less=True)
        new = Cat(Cat(code, sign) for code, sign in zip(lanes[-1], negative, strict=True))
        with m.If(tokens[1].work.writes):
            m.d.sync += elements.eq(Cat(
                elements.as_value()[4 * SUBGROUP:], new & ~nonfinite.replicate(len(new))))
        record = self.o.payload
        m.d.comb += [
            record.elements.eq(elements),
            record.metadata.eq(factors.as_value() & ~nonfinite.replicate(2 * SUBGROUPS)),
            record.scale.eq(Mux(nonfinite, SCALE_NAN, reference - 3)),
        ]

        return m

    def _best_factor(self, token, factors):
        """The best factor of the token's subgroup."""
        if self.adaptive:
            return _gather(token.subgroup, [factors[j] for j in range(SUBGROUPS)])
        # Factors come in at the top and move down. While subgroups 0 to 2 are written, that of
        # subgroup 3 is still to come.
        return _gather(token.subgroup, [factors[min(j + 1, SUBGROUPS - 1)]
                                        for j in range(SUBGROUPS)])

    def _place(self, m, token, decided, choice):
        """Stage 0: the scale, and where the values of a subgroup are under it.

        Returns
        -------
        reference, nonfinite, places : Value
            Exponent of 8 times the scale, which is that of U's top bit and 3 more than the scale's
            code; whether the group has NaN or infinities; a place per lane.
        """
        values = self.i.payload
        exponents = _selected(m, [value[23:31] for value in values], token.subgroup,
                              name="exponent")

        # By the floor rule the scale's code is the largest exponent less 2, or 0. Sg-EM begins one
        # lower, so that the reference is that exponent, and at least 2; if it is 2, the lowest
        # scale does not exist. In Sg-threshold the reference is one more where the significand is
        # at least 1.375, and at least 3.
        m.submodules.hold_reference = hold = Register(9)
        reference = hold.o
        nonfinite = Signal(reset_less=True)
        ranks, before, least = exponents, reference[:8], 2
        if not self.adaptive:
            reached = Signal(reset_less=True)
            uppers = [value[22] | value[20:22].all() for value in values]
            uppers = _selected(m, uppers, token.subgroup, name="upper")
            ranks = [Cat(pair) for pair in zip(uppers, exponents, strict=True)]
            before, least = Cat(reached, before), 3 << 1
        floor = Signal(len(before))
        m.d.comb += floor.eq(Mux(token.subgroup[0], least, before))
        _, maximum = largest(m, [*ranks, floor], name="maximum")

        added = Signal(signed(3))
        if self.adaptive:
            # One up behind the last token of each scale; in the end from the one above the highest
            # scale to the chosen one.
            with m.If(decided):
                m.d.comb += added.eq(choice - self.scales)
            with m.Elif(token.work.tries & _last_of_scale(token)):
                m.d.comb += added.eq(1)
        else:
            m.d.comb += added.eq(token.work.settles & reached)
        m.d.comb += [
            hold.enable.eq(1),
            hold.i.eq(Mux(token.work.measures, maximum[-8:], reference + added)),
        ]
        if not self.adaptive:
            with m.If(token.work.measures):
                m.d.sync += reached.eq(maximum[0])
        with m.If(token.work.settles):
            m.d.sync += nonfinite.eq(reference[:8].all())

        places = Signal(data.ArrayLayout(_Place, SUBGROUP), reset_less=True)
        for lane, exponent in enumerate(exponents):
            # Subnormals have exponent 1. No exponent is above the reference.
            difference = Signal(9, name=f"difference{lane}")
            normal = exponent.any()
            m.d.comb += difference.eq(reference - Cat(exponent[0] | ~normal, exponent[1:]))
            m.d.sync += [
                places[lane].below.eq(difference[:3]),
                places[lane].in_range.eq(~difference[3:].any()),
                places[lane].normal.eq(normal),
            ]
        return reference, nonfinite, places

    def _round(self, m, token, places):
        """Stage 1: rounds the magnitudes of a subgroup under the token's factor.

        Returns
        -------
        negative : list of Value
            Signs of the lanes.
        significands, shifts, codes : list of Signal
            Twice a lane's element times its U is the significand times that of the code, times
            2**7, shifted down. Where the code is 0, the shift means nothing.
        """
        values = [Cat(value[:23], value[31]) for value in self.i.payload]
        values = _selected(m, values, token.subgroup, name="value")

        # A code's bits are decisions, each of which says which decision point comes next. Points
        # are in sixteenths for a factor of 1/4; those before an even code belong to it.
        #
        # decision        bits above   point    magnitude   is set
        # bit 2               -           7      1.75       at the point: 4 is even
        # bit 1               1          14      3.5        at the point: 6 is even
        #                     0           3      0.75       at the point: 2 is even
        # bit 0              11          20      5          above it: 6 is even
        #                    10          10      2.5        above it: 4 is even
        #                    01           5      1.25       above it: 2 is even
        #                    00           1      0.25       above it: 0 is even
        p7, p14, p3, p20, p10, p5, p1 = (
            _times(token.factor, point) for point in (7, 14, 3, 20, 10, 5, 1))
        significands, shifts, codes = [], [], []
        for lane, value in enumerate(values):
            place = places[lane]
            significand = Signal(24, name=f"significand{lane}")
            upper = Signal(8, name=f"upper{lane}")
            rest = Signal(name=f"rest{lane}")
            low, middle, high = place.below
            # U is the significand, whose first bit is that of value 8, shifted down. In sixteenths
            # it has 8 bits, and a rest. More than 5 places down the code is 0 without the rest.
            m.d.comb += [
                significand.eq(Cat(value[:23], place.normal)),
                upper.eq(significand[16:] >> place.below),
                rest.eq(significand[:16].any() | (significand[16:21] & Cat(
                    place.below.any(), middle | high, high | (middle & low), high,
                    high & (middle | low))).any()),
            ]
            bit2, bit1, bit0 = (Signal(name=f"bit{n}_{lane}") for n in (2, 1, 0))
            code = Signal(3, name=f"code{lane}")
            shift = Signal(3, name=f"shift{lane}")
            m.d.comb += [
                bit2.eq(upper >= p7),
                bit1.eq(upper >= Mux(bit2, p14, p3)),
                bit0.eq(Cat(rest, upper) > (Mux(bit2, Mux(bit1, p20, p10),
                                                Mux(bit1, p5, p1)) << 1)),
                code.eq(Cat(bit0, bit1, bit2) & place.in_range.replicate(3)),
                # `below`, plus 2, less the shift of twice the element: 2 of codes 6 and 7, 1 of
                # codes 4 and 5, else 0. A code other than 0 is at most 5 places down: at most 7.
                shift.eq(place.below + Cat(bit2 & ~bit1, ~bit2)),
            ]
            significands.append(significand)
            shifts.append(shift)
            codes.append(code)
        return [value[23] for value in values], significands, shifts, codes

    def _sum(self, m, token, *lanes):
        """Stages 2 and 3: what a factor gains in a subgroup.

        With q an element's value, 2 q = halves * (4 + k) / 4, and u its magnitude before rounding,
        a subgroup gains the sum of q * (2 u - q) over zeros: its squared error is less by that. In
        units of 2**-27 it is 4 + k times the excess, the sum of
        halves * U - halves**2 * (4 + k) * 2**21.

        Parameters
        ----------
        token : View
            Of stage 2.

        Returns
        -------
        Signal
            The excess, in stage 4.
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
            sums.i.taken.eq(_times(token.factor, square_sum)),
        ]
        # The subtrahend as its complement and 1. The excess is not negative: no lane's part is.
        place, complement = _SIXTEENTH, Cat(~sums.o.taken, C(-1, _SUM - _SIXTEENTH - 13))
        parts = compress(m, [(0, sums.o.total, 0), (0, sums.o.carries, 0), (place, complement, 0),
                             (place, C(1, 1), 0)], width=_SUM, name="less")
        m.d.sync += excess.eq(carry_skip_add(m, *parts, carry=C(0, 1), name="difference"))
        return excess

    def _choose(self, m, tokens, reference, excess, factors, choice):
        """Stages 4 and 5: the best factors and, in Sg-EM, the best scale.

        Parameters
        ----------
        tokens : list of View
            Of stages 3, 4 and 5.
        """
        before, token = tokens[:2]
        # The first factor of a subgroup replaces the best one of the subgroup before. It is found a
        # stage early, as what follows is long.
        first = Signal(reset_less=True)
        m.d.sync += first.eq(before.factor == 0)
        # A gain is at most the sum of squares, in units of 2**-27. In Sg-EM that is a group's 32,
        # each below 2**8; in Sg-threshold, where all magnitudes are below 11, a subgroup's 8, below
        # 2**10 together.
        width = 40 if self.adaptive else 37
        gained = Signal(width)
        lead = Signal(width, reset_less=True)
        lead_factor = Signal(2, reset_less=True)
        rows = [(2, excess, 0), (1, excess & token.factor[1].replicate(_SUM), 0),
                (0, excess & token.factor[0].replicate(_SUM), 0)]
        if self.adaptive:
            # All factors of a subgroup are compared by the gain of the subgroups up to this one.
            # What those before it gained is the lead that their last factor left behind.
            earlier = Signal(width)
            held = Signal(width, reset_less=True)
            follows = Signal(reset_less=True)
            m.d.sync += follows.eq((before.factor == 0) & ~before.subgroup[0])
            m.d.comb += earlier.eq((lead & follows.replicate(width))
                                   | (held & (~first).replicate(width)))
            with m.If(first):
                m.d.sync += held.eq(earlier)
            rows.append((0, earlier, 1))
        parts = compress(m, rows, width=width, name="gain")
        m.d.comb += gained.eq(carry_skip_add(m, *parts, carry=C(0, 1), name="gained_sum"))
        better = Signal()
        m.d.comb += better.eq(first | greater(m, gained, lead, name="more"))
        with m.If(better):
            m.d.sync += [lead.eq(gained), lead_factor.eq(token.factor)]

        if self.adaptive:
            self._choose_scale(m, tokens[2], reference, lead, lead_factor, factors, choice)
            return
        # With the last factor of a subgroup its best one is known, and moves in from above.
        last = Signal()
        best_factor = Signal(2)
        m.d.sync += last.eq(before.work.tries & (before.factor == _FACTORS - 1))
        m.d.comb += best_factor.eq(Mux(better, token.factor, lead_factor))
        with m.If(last):
            m.d.sync += factors.eq(Cat(factors.as_value()[2:], best_factor))

    def _choose_scale(self, m, token, reference, lead, lead_factor, factors, choice):
        """Stage 5, in Sg-EM: whether a scale gains more than those before it.

        Parameters
        ----------
        lead, lead_factor : Signal
            The best factor of the token's subgroup, and what the scale gains with it.
        """
        # The best factors of a scale, but that of subgroup 3: they move in from above.
        tried = Signal(data.ArrayLayout(2, SUBGROUPS - 1), reset_less=True)
        with m.If(token.work.tries & (token.factor == _FACTORS - 1)):
            m.d.sync += tried.eq(Cat(tried.as_value()[2:], lead_factor))

        # Under the next scale the unit of gains is four times as large. What the best one has below
        # that unit does not matter: it is beaten by no sum that it would not be beaten by with it.
        m.submodules.best = best = Register(len(lead) - 2)
        take = Signal()
        m.d.comb += [
            take.eq((token.scale == 0) | greater(m, lead, Cat(best.o, C(0, 2)), name="higher")
                    # The lowest scale does not exist if the reference began at 2. It is two more
                    # when the next scale is in this stage.
                    | ((token.scale == 1) & (reference == 4))),
            best.enable.eq(token.work.tries & _last_of_scale(token)),
            best.i.eq(Mux(take, lead, best.o) >> 2),
        ]
        with m.If(best.enable & take):
            m.d.sync += [factors.eq(Cat(tried, lead_factor)), choice.eq(token.scale)]


class _Sequencer(wiring.Component):
    """Issues the tokens of a group, one per cycle.

    Measures all subgroups, settles, tries all scales, subgroups and factors, waits until it is
    decided which are best, and writes all subgroups. Waits with bubbles.

    Parameters
    ----------
    scales : int
        How many scales are tried.

    Members
    -------
    begins : In(1)
        Lets a group begin.
    decided : In(1)
        Ends the wait: the writing begins in the next cycle.
    token : Out(_Token)
    """

    def __init__(self, *, scales):
        self.scales = scales
        super().__init__({"begins": In(1), "decided": In(1), "token": Out(_Token)})

    def elaborate(self, platform):
        m = Module()

        # All three return to where they began: nothing is cleared between groups.
        subgroup = Signal(SUBGROUPS, init=1)
        factor = Signal(range(_FACTORS))
        scale = Signal(range(self.scales))
        m.d.comb += [
            self.token.subgroup.eq(subgroup),
            self.token.factor.eq(factor),
            self.token.scale.eq(scale),
        ]

        work = self.token.work
        next_subgroup = Signal()
        with m.If(next_subgroup):
            m.d.sync += subgroup.eq(subgroup.rotate_left(1))
        last_subgroup = subgroup[-1]
        with m.FSM(name="phase"):
            with m.State("MEASURE"):
                m.d.comb += [
                    work.measures.eq(self.begins | ~subgroup[0]),
                    next_subgroup.eq(work.measures),
                ]
                with m.If(last_subgroup):
                    m.next = "SETTLE"
            with m.State("SETTLE"):
                m.d.comb += work.settles.eq(1)
                m.next = "TRY"
            with m.State("TRY"):
                m.d.comb += [work.tries.eq(1), next_subgroup.eq(factor == _FACTORS - 1)]
                m.d.sync += factor.eq(factor + 1)
                with m.If(_last_of_scale(self.token)):
                    with m.If(scale == self.scales - 1):
                        m.d.sync += scale.eq(0)
                        m.next = "WAIT"
                    with m.Else():
                        m.d.sync += scale.eq(scale + 1)
            with m.State("WAIT"):
                with m.If(self.decided):
                    m.next = "WRITE"
            with m.State("WRITE"):
                m.d.comb += [work.writes.eq(1), next_subgroup.eq(1)]
                with m.If(last_subgroup):
                    m.next = "MEASURE"

        return m


class _TokenRegister(wiring.Component):
    """Holds a token for a stage. After a reset it is a bubble. Latency 1.

    Members
    -------
    i : In(_Token)
    o : Out(_Token)
    """

    i: In(_Token)
    o: Out(_Token)

    latency = 1

    def elaborate(self, platform):
        m = Module()

        work = Signal(_Work)
        held = Signal(_Token, reset_less=True)
        m.d.sync += [work.eq(self.i.work), held.eq(self.i)]
        m.d.comb += [self.o.eq(held), self.o.work.eq(work)]

        return m


def _last_of_scale(token):
    """Whether a token that tries is the last one of its scale."""
    return token.subgroup[-1] & (token.factor == _FACTORS - 1)


def _selected(m, values, subgroup, *, name):
    """Signals for the lanes of a subgroup (one-hot), out of a value per element."""
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
    """A value times 4 + k, where k is the metadata of a factor."""
    return (value << 2) + Mux(factor[1], value << 1, 0) + Mux(factor[0], value, 0)
