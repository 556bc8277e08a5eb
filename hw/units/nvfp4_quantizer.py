# SPDX-License-Identifier: BSD-2-Clause
"""A quantizer to NVFP4, for comparison with the encoders of M2XFP."""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..lib.arithmetic import greater
from ..lib.formats import NVFP4_GROUP, NVFP4_SCALE_MAX, NVFP4_SCALE_NAN, Nvfp4Record
from ..lib.stream_register import StreamRegister

Nvfp4Values = data.StructLayout({
    "values": data.ArrayLayout(32, NVFP4_GROUP),
    "tensor_scale": 32,
})
"""Bits of a group's float32 values, element 0 in the least significant ones, and of their scale."""

_LEAST_TENSOR_SCALE = 12
"""Biased exponent of 2**-115."""

_Measured = data.StructLayout({
    "values": data.ArrayLayout(32, NVFP4_GROUP),
    "tensor_scale": 31,
    "largest": 31,
    "bad": 1,
})

_Scaled = data.StructLayout({
    "values": data.ArrayLayout(32, NVFP4_GROUP),
    "tensor_scale": 31,
    "scale": 7,
})

_Limit = data.StructLayout({"mantissa": 23, "sticky": 1, "binade": 2})
"""A multiple of the step: float32 mantissa rounded down, whether bits follow, binades above."""

# Decision points between neighbouring E2M1 codes in sixteenths, multiple * 2**power: 4, 12, 20 ...
_POINTS = ((4, 0), (6, 1), (5, 2), (7, 2), (5, 3), (7, 3), (5, 4))

_MULTIPLES = (4, 5, 6, 7)


class Nvfp4Quantizer(wiring.Component):
    """Quantizes 16 float32 values to NVFP4 under a given tensor scale, for comparison.

    The block scale is largest magnitude / (6 * tensor scale), rounded once to E4M3: to nearest,
    ties to even, subnormals included, at most 448. Elements are value / (scale * tensor scale),
    rounded once to E2M1: to nearest, ties to even, saturating. Where the scale is 0, elements are
    +0. A group that holds NaN or an infinity has scale 0x7F and elements +0. A group has these,
    too, unless its tensor scale is finite, positive and at least 2**-115; under such a scale
    subnormal values are 0.

    The tensor scale is the factor that decoding multiplies by, amax / (6 * 448), as checkpoints
    store it; kernels that divide take its reciprocal instead. Here nothing is divided: magnitudes
    are compared with exact multiples of the scales, which a group's elements share. The stages are
    the largest magnitude, the block scale, the elements. Latency 3, one group per cycle.
    Specification sections 8.16 and 9.2.

    Members
    -------
    i : In(stream.Signature(Nvfp4Values))
        Float32 bits of the values of a group and of its tensor scale.
    o : Out(stream.Signature(Nvfp4Record))
        The elements of the group and its block scale.
    """

    i: In(stream.Signature(Nvfp4Values))
    o: Out(stream.Signature(Nvfp4Record))

    latency = 3

    def elaborate(self, platform):
        m = Module()

        m.submodules.measured = measured = StreamRegister(_Measured)
        m.submodules.scaled = scaled = StreamRegister(_Scaled)
        m.submodules.rounded = rounded = StreamRegister(Nvfp4Record)
        m.d.comb += [
            measured.i.valid.eq(self.i.valid),
            self.i.ready.eq(measured.i.ready),
            scaled.i.valid.eq(measured.o.valid),
            measured.o.ready.eq(scaled.i.ready),
            rounded.i.valid.eq(scaled.o.valid),
            scaled.o.ready.eq(rounded.i.ready),
        ]
        wiring.connect(m, rounded.o, wiring.flipped(self.o))
        self._measure(m, self.i.payload, measured.i.payload)
        m.submodules.scale = scale = _Scale()
        m.d.comb += [
            scale.tensor_scale.eq(measured.o.payload.tensor_scale),
            scale.largest.eq(measured.o.payload.largest),
            scale.bad.eq(measured.o.payload.bad),
            scaled.i.payload.values.eq(measured.o.payload.values),
            scaled.i.payload.tensor_scale.eq(measured.o.payload.tensor_scale),
            scaled.i.payload.scale.eq(scale.scale),
        ]
        self._round(m, scaled.o.payload, rounded.i.payload)

        return m

    def _measure(self, m, i, measured):
        """First stage: the largest magnitude, by a tournament."""
        players = [value[:31] for value in i.values]
        while len(players) > 1:
            winners = []
            for k, (left, right) in enumerate(zip(players[::2], players[1::2], strict=True)):
                winner = Signal(31, name=f"winner{len(players) // 2}_{k}")
                wins = greater(m, right, left, name=winner.name)
                m.d.comb += winner.eq(Mux(wins, right, left))
                winners.append(winner)
            players = winners
        exponent = i.tensor_scale[23:31]
        m.d.comb += [
            measured.values.eq(i.values),
            measured.tensor_scale.eq(i.tensor_scale[:31]),
            measured.largest.eq(players[0]),
            measured.bad.eq(players[0][23:].all() | i.tensor_scale[31] | exponent.all()
                            | (exponent < _LEAST_TENSOR_SCALE)),
        ]

    def _round(self, m, scaled, record):
        """Third stage: the elements, by comparison with multiples of scale * tensor scale."""
        # A subnormal scale is brought to a leading one, too.
        scale = Signal(4)
        raised = Signal(signed(6))
        with m.If(scaled.scale[3:].any()):
            m.d.comb += [scale.eq(Cat(scaled.scale[:3], C(1, 1))), raised.eq(scaled.scale[3:])]
        for n in range(1, 4):
            with m.Elif(scaled.scale[3 - n]):
                m.d.comb += [scale.eq(scaled.scale[:3] << n), raised.eq(1 - n)]

        # The step of the elements, 2**26 to 2**28; times a multiple below 2**31.
        step = Signal(28)
        m.d.comb += step.eq(scale * Cat(scaled.tensor_scale[:23], C(1, 1)))
        limits = {multiple: Signal(_Limit, name=f"limit{multiple}") for multiple in _MULTIPLES}
        times = {4: step << 2, 5: (step << 2) + step, 6: (step << 2) + (step << 1),
                 7: (step << 3) - step}
        for multiple, limit in limits.items():
            product = Signal(31, name=f"product{multiple}")
            m.d.comb += product.eq(times[multiple])
            for binade, condition in ((2, product[30]), (1, product[29]), (0, 1)):
                with m.If(condition) if binade == 2 else m.Elif(condition):
                    m.d.comb += [
                        limit.mantissa.eq(product[5 + binade:28 + binade]),
                        limit.sticky.eq(product[:5 + binade].any()),
                        limit.binade.eq(binade),
                    ]

        # Exponent of a product below 2**29: from 1, so that subnormal values are below it, to 260.
        least = Signal(9)
        blank = Signal()
        m.d.comb += [
            least.eq(scaled.tensor_scale[23:] + raised - 9),
            blank.eq((scaled.scale == 0) | (scaled.scale == NVFP4_SCALE_NAN)),
            record.scale.eq(scaled.scale),
        ]
        for i in range(NVFP4_GROUP):
            m.submodules[f"compare{i}"] = compare = _Compare()
            m.d.comb += [
                compare.value.eq(scaled.values[i][:31]),
                compare.least.eq(least),
                compare.blank.eq(blank),
                *(getattr(compare, f"limit{multiple}").eq(limit)
                  for multiple, limit in limits.items()),
                record.elements[i].eq(Cat(compare.code, scaled.values[i][31] & ~blank)),
            ]


class _Scale(wiring.Component):
    """Finds the block scale of a group, largest / (6 * tensor scale).

    Combinational. Specification section 9.2.

    Members
    -------
    tensor_scale, largest : In(31)
        Float32 without signs.
    bad : In(1)
        Gives NaN.
    scale : Out(7)
        E4M3 without its sign.
    """

    tensor_scale: In(31)
    largest: In(31)
    bad: In(1)
    scale: Out(7)

    def elaborate(self, platform):
        m = Module()

        # With significands of 24 bits, 3 * divisor and 4 or 8 * largest are brought to a quotient
        # in 1 to 2. A subnormal largest has no leading one, but gives 0 by its exponent alone.
        tripled = Signal(26)
        divisor = Signal(26)
        largest = Signal(26)
        small = Signal()
        low = Signal()
        numerator = Signal(27)
        rest = Signal(26)
        exponent = Signal(signed(10))
        significand = Cat(self.tensor_scale[:23], C(1, 1))
        m.d.comb += [
            tripled.eq(significand + (significand << 1)),
            small.eq(~tripled[25]),
            divisor.eq(Mux(small, tripled << 1, tripled)),
            largest.eq(Cat(C(0, 2), self.largest[:23], C(1, 1))),
            low.eq(greater(m, divisor, largest, name="low")),
            numerator.eq(Mux(low, largest << 1, largest)),
            rest.eq(numerator - divisor),
            # The scale's biased exponent: of E4M3 the bias is 7; 1 and more are normal.
            exponent.eq(self.largest[23:] - self.tensor_scale[23:] + 4 + small - low),
        ]

        # In sixteenths of a normal quotient what is above its leading one, and in 2**-10 a
        # subnormal one: either is rounded at the odd multiples of the divisor.
        normal = Signal()
        dividend = Signal(30)
        m.d.comb += normal.eq(exponent > 0)
        with m.If(normal):
            m.d.comb += dividend.eq(rest << 4)
        for places in range(4):
            with m.Elif(exponent == -places):
                m.d.comb += dividend.eq(numerator << (3 - places))
        multiples = [Signal(30, name=f"multiple{odd}") for odd in range(1, 16, 2)]
        past = Signal(8)
        m.d.comb += [
            multiple.eq(value) for multiple, value in zip(multiples, (
                divisor, divisor + (divisor << 1), divisor + (divisor << 2),
                (divisor << 3) - divisor, (divisor << 3) + divisor, (divisor << 3) + multiples[1],
                (divisor << 3) + multiples[2], (divisor << 4) - divisor), strict=True)]
        for code, multiple in enumerate(multiples):
            # A tie goes to the even code.
            m.d.comb += past[code].eq(
                ~greater(m, multiple, dividend, name=f"past{code}") if code & 1 else
                greater(m, dividend, multiple, name=f"past{code}"))

        # The mantissa is how many points are past; all eight carry into the exponent. Its field is
        # at least 0. With d = divisor, the dividend below the points d, 3 d, 5 d ... 15 d:
        # point after mantissa  | at the point
        # 0, 2, 4, 6            | stays: even
        # 1, 3, 5               | 1 more: 2, 4, 6 are even
        # 7                     | 1 more: 0 of the next exponent is even
        code = Signal(13)
        upper = Mux(normal, exponent[:9], 0)
        m.d.comb += code.eq(Cat(
            (past[0] & ~past[1]) | (past[2] & ~past[3]) | (past[4] & ~past[5])
            | (past[6] & ~past[7]),
            (past[1] & ~past[3]) | (past[5] & ~past[7]),
            past[3] & ~past[7],
            upper + past[7],
        ))
        m.d.comb += self.scale.eq(Mux(code > NVFP4_SCALE_MAX, NVFP4_SCALE_MAX, code[:7]))
        with m.If(self.bad):
            m.d.comb += self.scale.eq(NVFP4_SCALE_NAN)

        return m


class _Compare(wiring.Component):
    """Finds the E2M1 code of a magnitude by comparison with the decision points.

    All seven points are powers of two times four multiples. So four comparisons of mantissas and
    seven of three-bit exponents are enough. Combinational. Specification section 1.2.

    Members
    -------
    value : In(31)
        A float32 without its sign.
    limit4, limit5, limit6, limit7 : In(_Limit)
        Multiples of a sixteenth of the step.
    least : In(9)
        Exponent of the binade from which limits count.
    blank : In(1)
        Gives 0.
    code : Out(3)
    """

    value: In(31)
    limit4: In(_Limit)
    limit5: In(_Limit)
    limit6: In(_Limit)
    limit7: In(_Limit)
    least: In(9)
    blank: In(1)
    code: Out(3)

    def elaborate(self, platform):
        m = Module()

        mantissa, exponent = self.value[:23], self.value[23:]
        limits = {multiple: getattr(self, f"limit{multiple}") for multiple in _MULTIPLES}

        # Decision points in sixteenths of the step, and the code of a tie, which is even:
        # point         |  4    12    20    28    40    56    80
        # multiple      |  4     6     5     7     5     7     5
        # between codes | 0, 1  1, 2  2, 3  3, 4  4, 5  5, 6  6, 7
        # tie           |  0     2     2     4     4     6     6
        # So ties at multiples 4 and 5 go down, at 6 and 7 up.
        larger = {multiple: Signal(name=f"larger{multiple}") for multiple in _MULTIPLES}
        for multiple, limit in limits.items():
            up = multiple >= 6
            m.d.comb += larger[multiple].eq(greater(
                m, Cat(C(1, 1), mantissa) if up else mantissa,
                Cat(limit.sticky, limit.mantissa) if up else limit.mantissa,
                name=f"compare{multiple}"))

        # Binades above the least. Limits are in binades 0 to 6: 2 of a multiple and 4 of its power.
        place = Signal(3)
        below = Signal()
        beyond = Signal()
        m.d.comb += [
            place.eq(exponent[:3] - self.least[:3]),
            below.eq((exponent < self.least) | self.blank),
            beyond.eq(exponent > self.least + 6),
        ]
        above = Signal(7)
        for point, (multiple, power) in enumerate(_POINTS):
            binade = Signal(3, name=f"binade{point}")
            m.d.comb += [
                binade.eq(limits[multiple].binade + power),
                above[point].eq(~below & (beyond | (
                    Cat(larger[multiple], place) > Cat(C(0, 1), binade)))),
            ]

        # The code is the number of points that the magnitude is above.
        m.d.comb += self.code.eq(Cat(
            (above[0] & ~above[1]) | (above[2] & ~above[3]) | (above[4] & ~above[5]) | above[6],
            (above[1] & ~above[3]) | above[5],
            above[3],
        ))

        return m
