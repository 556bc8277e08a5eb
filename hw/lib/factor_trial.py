# SPDX-License-Identifier: BSD-2-Clause
"""Trials of subgroup factors: codes, errors of a few bits, the least sum. Section 10.6."""

from dataclasses import dataclass
from functools import reduce
from operator import or_

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import greater, lookup

FACTORS = 4
"""Factors that are tried, 1 + k / 4."""

# By code: its decision point from the code below, in units of a quarter of the factor, and whether
# a magnitude at the point has the code, as it is even.
_POINTS = ((1, False), (3, True), (5, False), (7, True), (10, False), (14, True), (20, False))

SPECIAL_BOUNDS = {5: (18, 22), 8: (28, None)}
"""By special value, in the same unit: magnitudes between both bounds are nearest to it."""

# By code: twice its magnitude.
_HALVES = 0, 1, 2, 3, 4, 6, 8, 12


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A scale that is tried: what magnitudes under it are, and errors. Specification section 10.6.

    Parameters
    ----------
    place : int
        How often it is twice the lowest scale.
    largest : int
        Magnitudes are below it, in sixteenths of the scale.
    errors : tuple of int
        By the distance of a value from the near end of a magnitude's sixteenth. Farther ones have
        the largest error.
    special : int
        Magnitude of the special value, 0 if there is none.
    """

    place: int
    largest: int
    errors: tuple
    special: int = 0

    @property
    def width(self):
        """Bits of an error."""
        return max(self.errors).bit_length()

    @property
    def sum_width(self):
        """Bits of the sum of the errors of a subgroup's 8 elements."""
        return self.width + 3


# The far end is one more. In Sg-EM no value is farther than 31 under the middle scale, and 13 under
# the highest one.
SCALES = {
    "sg-threshold": (Scale(place=0, largest=16 * 11, errors=tuple(
        min((n + 1)**2 // 8, 127) for n in range(32))),),
    "sg-em": tuple(
        Scale(place=place, largest=256 >> place, errors=tuple(
            min(n * (n + 1) // 2, 1023) for n in range(count)))
        for place, count in enumerate((64, 32, 14))),
    "sg-special": tuple(
        Scale(place=0, largest=256, special=special, errors=tuple(
            min(n * (n + 1) // 2, 1023) for n in range(64)))
        for special in (5, 8)),
}
"""By encoding, the scales that are tried, the lowest one first. In Sg-special one for each special
value and its opposite, which magnitudes are in units of."""


class Trial(wiring.Component):
    """Rounds a magnitude under one factor and scale, and finds its error. Combinational.

    Parameters
    ----------
    k : int
        The factor is 1 + k / 4.
    scale : Scale

    Members
    -------
    magnitude : In(9)
        As in `Magnitude`.
    code : Out(3)
    error : Out(scale.width)
    """

    latency = 0

    def __init__(self, k, scale):
        self.k = k
        self.scale = scale
        super().__init__({"magnitude": In(9), "code": Out(3), "error": Out(scale.width)})

    def elaborate(self, platform):
        m = Module()

        # Under a higher scale what is shifted out follows, too.
        place = self.scale.place
        magnitude = Signal(9 - place)
        m.d.comb += magnitude.eq(Cat(self.magnitude[: 1 + place].any(),
                                     self.magnitude[1 + place :]))
        # In sixteenths, and whether there is more.
        cut = magnitude[1:]
        factor = 4 + self.k
        reached = [Signal(name=f"reached{n}") for n in range(1, len(_HALVES))]
        m.d.comb += [bit.eq(cut >= factor * point if even else magnitude > 2 * factor * point)
                     for bit, (point, even) in zip(reached, _POINTS, strict=True)]
        code = [Signal(name=f"code{n}") for n in range(len(_HALVES))]
        m.d.comb += [
            *(bit.eq(below & ~above) for bit, below, above in
              zip(code, [C(1, 1), *reached], [*reached, C(0, 1)], strict=True)),
            self.code.eq(Cat(Cat(code[1::2]).any(), Cat(code[2:4], code[6:]).any(), reached[3])),
        ]

        # A value is below or above the magnitude by no more than there are errors, or it is
        # saturated and the error is the largest one. So the lower bits tell, and one for the sign.
        values = [2 * factor * halves for halves in _HALVES]
        bits = (len(self.scale.errors) - 1).bit_length()
        value = Signal(bits + 1)
        m.d.comb += value.eq(_encoded(code, [v % 2**len(value) for v in values], len(value)))
        m.d.comb += self.error.eq(_error(m, cut, value, self.scale, largest=values[-1]))

        return m


class SpecialTrial(wiring.Component):
    """Tells if a magnitude is nearest to the special value, and finds its error. Combinational.

    Specification sections 10.8 and 12.3.

    Parameters
    ----------
    k : int
        The factor is 1 + k / 4.
    scale : Scale
        One with a special value.

    Members
    -------
    magnitude : In(9)
        As in `Magnitude`.
    takes : Out(1)
        Ties go to the neighbours of the special value.
    error : Out(scale.width)
        Of the special value. Undefined where the magnitude is not nearest to it.
    """

    latency = 0

    def __init__(self, k, scale):
        self.k = k
        self.scale = scale
        super().__init__({"magnitude": In(9), "takes": Out(1), "error": Out(scale.width)})

    def elaborate(self, platform):
        m = Module()

        cut = self.magnitude[1:]
        factor = 4 + self.k
        value = 4 * factor * self.scale.special
        low, high = SPECIAL_BOUNDS[self.scale.special]
        takes = self.magnitude > 2 * factor * low
        farthest = self.scale.largest - 1 - value
        if high is not None:
            takes &= cut < factor * high
            farthest = factor * high - 1 - value
        m.d.comb += self.takes.eq(takes)

        # From the near end of the sixteenth; below the value, one less than the difference.
        farthest = max(farthest, value - factor * low - 1)
        bits = min(farthest, len(self.scale.errors) - 1).bit_length()
        held = Signal(bits + 1, name="value")
        m.d.comb += [
            held.eq(value % 2**len(held)),
            self.error.eq(_error(m, cut, held, self.scale,
                                 largest=value if farthest >= 2**bits else self.scale.largest)),
        ]

        return m


class Choice(wiring.Component):
    """Finds the factor of the least sum of errors, the lowest one of equal sums. Combinational.

    Parameters
    ----------
    width : int
        Bits of a sum.

    Members
    -------
    totals : In(data.ArrayLayout(width, 4))
        By factor.
    factor : Out(2)
    least : Out(width)
        The sum of that factor.
    """

    latency = 0

    def __init__(self, width):
        self.width = width
        super().__init__({
            "totals": In(data.ArrayLayout(width, FACTORS)),
            "factor": Out(2),
            "least": Out(width),
        })

    def elaborate(self, platform):
        m = Module()

        upper = [Signal(name=f"upper{pair}") for pair in range(2)]
        least = [Signal(self.width, name=f"least{pair}") for pair in range(2)]
        for pair in range(2):
            a, b = self.totals[2 * pair], self.totals[2 * pair + 1]
            m.d.comb += [
                upper[pair].eq(greater(m, a, b, name=f"first{pair}")),
                least[pair].eq(Mux(upper[pair], b, a)),
            ]
        last = Signal()
        m.d.comb += [
            last.eq(greater(m, *least, name="second")),
            self.factor.eq(Cat(Mux(last, upper[1], upper[0]), last)),
            self.least.eq(Mux(last, least[1], least[0])),
        ]

        return m


def _error(m, cut, value, scale, *, largest):
    """The error of a magnitude under a value.

    Parameters
    ----------
    m : Module
    cut : Value
        The magnitude in sixteenths.
    value : Value
        The value in sixteenths: so many lower bits as tell the distance, and one for its sign.
    scale : Scale
    largest : int
        The largest value in sixteenths. Magnitudes that are farther above it than these bits tell
        have the largest error.
    """
    bits = len(value) - 1
    errors = scale.errors[: 2**bits]
    difference = Signal(bits + 1)
    distance = Signal(bits)
    m.d.comb += [
        difference.eq(cut[: bits + 1] - value),
        # From the near end of the sixteenth.
        distance.eq(difference[:bits] ^ difference[bits].replicate(bits)),
    ]
    error = lookup(distance, [*errors, *errors[-1:] * (2**bits - len(errors))], width=scale.width)
    if largest + 2**bits < scale.largest:
        beyond = Signal()
        m.d.comb += beyond.eq(cut >= largest + 2**bits)
        error |= beyond.replicate(scale.width)
    return error


def _encoded(hot, values, width):
    """The value whose bit is set."""
    return Cat(reduce(or_, (bit for bit, value in zip(hot, values, strict=True)
                            if value >> place & 1), C(0, 1)) for place in range(width))
