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
        By the distance of a value from the near end of a magnitude's sixteenth.
    width : int
        Bits of an error. Values that are farther have the largest one, or, with special values, the
        last one of ``errors`` and one more bit above it.
    specials : tuple of int
        Magnitudes of special values: none, one, or both that a signal chooses from.
    """

    place: int
    largest: int
    errors: tuple
    width: int
    specials: tuple = ()

    @property
    def magnitude_width(self):
        """Bits of a magnitude in units of 1/32 of the lowest scale, see `hw.lib.magnitude`."""
        return (2 * (self.largest << self.place) - 1).bit_length()

    @property
    def sum_width(self):
        """Bits of the sum of the errors of a subgroup's 8 elements."""
        return self.width + 3


# The far end is one more.
_PRODUCTS = tuple(min(n * (n + 1) // 2, 1023) for n in range(64))

# With a bit less, rounded to nearest.
_ROUNDED_PRODUCTS = tuple((n * (n + 1) + 2) // 4 for n in range(32))

SCALES = {
    "sg-threshold": ((Scale(place=0, largest=16 * 11, width=7, errors=tuple(
        min((n + 1)**2 // 8, 127) for n in range(32))),),),
    # No value is farther than 31 under the middle scale, and 13 under the highest one.
    "sg-em": tuple((Scale(place=place, largest=256 >> place, errors=errors,
                          width=max(errors).bit_length()),)
                   for place, errors in enumerate(_PRODUCTS[:n] for n in (64, 32, 14))),
    "sg-special": tuple((Scale(place=0, largest=256, errors=_PRODUCTS[:32], width=10,
                               specials=(special,)),) for special in (5, 8)),
}
"""By encoding, the scales that are tried at once, the lowest one first. In Sg-special one for each
special value and its opposite, which magnitudes are in units of. Each has four factors."""

SCALES_IN_TURN = {
    "sg-special": ((Scale(place=0, largest=256, errors=_PRODUCTS[:32], width=10,
                          specials=(5, 8)),),),
    "sg-special64": (tuple(Scale(place=place, largest=256, errors=_ROUNDED_PRODUCTS, width=9,
                                 specials=(5, 8)) for place in range(2)),),
}
"""The same where one special value is tried after the other. In Sg-special64 factors have a bit of
exponent: four of them are those of twice the scale."""


class Trial(wiring.Component):
    """Rounds a magnitude under one factor and scale, and finds its error. Combinational.

    Parameters
    ----------
    k : int
        The factor is 1 + k / 4.
    scale : Scale

    Members
    -------
    magnitude : In(scale.magnitude_width)
        As in `hw.lib.magnitude`.
    code : Out(3)
    error : Out(scale.width)
    """

    latency = 0

    def __init__(self, k, scale):
        self.k = k
        self.scale = scale
        super().__init__({"magnitude": In(scale.magnitude_width), "code": Out(3),
                          "error": Out(scale.width)})

    def elaborate(self, platform):
        m = Module()

        magnitude = _shifted(m, self.magnitude, self.scale)
        code, value = _round(m, magnitude, 4 + self.k, self.scale)
        m.d.comb += [
            self.code.eq(code),
            self.error.eq(_error(m, magnitude[1:], value, self.scale,
                                 _far(m, magnitude[1:], _largest(self.k), self.scale))),
        ]

        return m


class SpecialTrial(wiring.Component):
    """Rounds as `Trial` where there is a special value, and finds errors for both of its signs.

    Combinational. Specification sections 10.8 and 12.3.

    Parameters
    ----------
    k : int
        The factor is 1 + k / 4.
    scale : Scale
        One with one or two special values.

    Members
    -------
    eight : In(1)
        Whether the special value is 8, not 5. Only where the scale has both.
    magnitude : In(scale.magnitude_width)
        As in `hw.lib.magnitude`.
    sign : In(1)
    code : Out(3)
        Without the special value.
    takes : Out(1)
        Whether the magnitude is nearest to the special value. Ties go to its neighbours.
    errors : Out(data.ArrayLayout(scale.width, 2))
        Where the special value is positive, and where it is negative. Only the one of the
        magnitude's own sign may be taken.
    """

    latency = 0

    def __init__(self, k, scale):
        self.k = k
        self.scale = scale
        super().__init__({**({"eight": In(1)} if len(scale.specials) > 1 else {}),
                          "magnitude": In(scale.magnitude_width), "sign": In(1), "code": Out(3),
                          "takes": Out(1), "errors": Out(data.ArrayLayout(scale.width, 2))})

    def elaborate(self, platform):
        m = Module()

        factor, scale = 4 + self.k, self.scale
        magnitude = _shifted(m, self.magnitude, scale)
        cut = magnitude[1:]
        code, value = _round(m, magnitude, factor, scale)
        nearest = []
        for special in scale.specials:
            low, high = SPECIAL_BOUNDS[special]
            nearest.append((magnitude > 2 * factor * low) & (cut < factor * high if high else 1))
        m.d.comb += [self.code.eq(code), self.takes.eq(self._either(*nearest))]

        # The value is chosen before its error is looked up, as it has fewer bits. Magnitudes that
        # are nearest to 5 are not far from it.
        specials = [4 * factor * special for special in scale.specials]
        special = Signal(len(value))
        m.d.comb += special.eq(self._either(*(value % 2**len(special) for value in specials)))
        far = _far(m, cut, _largest(self.k), scale)
        far_special = _far(m, cut, specials[-1], scale, name="far_special")
        for negative in range(2):
            takes = Signal(name=f"takes{negative}")
            m.d.comb += [
                takes.eq(self.takes & (self.sign == negative)),
                self.errors[negative].eq(_error(
                    m, cut, Mux(takes, special, value), scale, Mux(takes, far_special, far),
                    suffix=str(negative))),
            ]

        return m

    def _either(self, five, eight=None):
        """Of what is known by special value, that of this one."""
        return five if eight is None else Mux(self.eight, eight, five)


class Choice(wiring.Component):
    """Finds the factor of the least sum of errors, the lowest one of equal sums. Combinational.

    Parameters
    ----------
    width : int
        Bits of a sum.
    exponents : int
        1, or 2 if factors have a bit of exponent. Sums of the upper four factors are in units four
        times as large then.

    Members
    -------
    totals : In(data.ArrayLayout(width, 4 * exponents))
        By factor.
    large : In(1)
        Whether only the upper factors count. Only with two exponents.
    factor : Out(1 + exponents)
    least : Out(width), or two bits more with two exponents
        The sum of that factor.
    """

    latency = 0

    def __init__(self, width, exponents=1):
        self.width = width
        self.exponents = exponents
        super().__init__({
            "totals": In(data.ArrayLayout(width, FACTORS * exponents)),
            **({"large": In(1)} if exponents > 1 else {}),
            "factor": Out(1 + exponents),
            "least": Out(width + 2 * (exponents - 1)),
        })

    def elaborate(self, platform):
        m = Module()

        found = [self._least_of_four(m, exponent) for exponent in range(self.exponents)]
        if self.exponents == 1:
            (factor, least), = found
            m.d.comb += [self.factor.eq(factor), self.least.eq(least)]
            return m
        (lower_factor, lower), (upper_factor, upper) = found
        takes_upper = Signal()
        lower, upper = Cat(lower, C(0, 2)), Cat(C(0, 2), upper)
        m.d.comb += [
            takes_upper.eq(greater(m, lower, upper, name="exponent") | self.large),
            self.factor.eq(Cat(Mux(takes_upper, upper_factor, lower_factor), takes_upper)),
            self.least.eq(Mux(takes_upper, upper, lower)),
        ]

        return m

    def _least_of_four(self, m, exponent):
        """The best of four factors, and its sum."""
        suffix = f"_{exponent}" if exponent else ""
        upper = [Signal(name=f"upper{pair}{suffix}") for pair in range(2)]
        least = [Signal(self.width, name=f"least{pair}{suffix}") for pair in range(2)]
        for pair in range(2):
            a, b = (self.totals[FACTORS * exponent + 2 * pair + n] for n in range(2))
            m.d.comb += [
                upper[pair].eq(greater(m, a, b, name=f"first{pair}{suffix}")),
                least[pair].eq(Mux(upper[pair], b, a)),
            ]
        last = Signal(name=f"last{suffix}")
        m.d.comb += last.eq(greater(m, *least, name=f"second{suffix}"))
        return Cat(Mux(last, upper[1], upper[0]), last), Mux(last, least[1], least[0])


def _shifted(m, given, scale):
    """A magnitude under a scale. Under a higher one what is shifted out follows, too."""
    place = scale.place
    magnitude = Signal(len(given) - place)
    m.d.comb += magnitude.eq(Cat(given[: 1 + place].any(), given[1 + place :]))
    return magnitude


def _largest(k):
    """The largest value in sixteenths."""
    return 2 * (4 + k) * _HALVES[-1]


def _round(m, magnitude, factor, scale):
    """The code of a magnitude under a scale, and its value.

    Of the value in sixteenths the lower bits: as many as tell the distance, and one for its sign. A
    value is below or above the magnitude by no more than there are errors, or it is saturated.
    """
    # In sixteenths, and whether there is more.
    cut = magnitude[1:]
    reached = [Signal(name=f"reached{n}") for n in range(1, len(_HALVES))]
    m.d.comb += [bit.eq(cut >= factor * point if even else magnitude > 2 * factor * point)
                 for bit, (point, even) in zip(reached, _POINTS, strict=True)]
    code = [Signal(name=f"code{n}") for n in range(len(_HALVES))]
    m.d.comb += [bit.eq(below & ~above) for bit, below, above in
                 zip(code, [C(1, 1), *reached], [*reached, C(0, 1)], strict=True)]
    value = Signal((len(scale.errors) - 1).bit_length() + 1)
    m.d.comb += value.eq(_encoded(code, [2 * factor * halves % 2**len(value)
                                         for halves in _HALVES], len(value)))
    return Cat(Cat(code[1::2]).any(), Cat(code[2:4], code[6:]).any(), reached[3]), value


def _far(m, cut, largest, scale, *, name="beyond"):
    """Whether a magnitude is farther above the largest value than there are errors."""
    bound = largest + 2 ** (len(scale.errors) - 1).bit_length()
    if bound >= scale.largest:
        return C(0, 1)
    far = Signal(name=name)
    m.d.comb += far.eq(cut >= bound)
    return far


def _error(m, cut, value, scale, far, *, suffix=""):
    """The error of a magnitude under a value.

    Parameters
    ----------
    m : Module
    cut : Value
        The magnitude in sixteenths.
    value : Value
        That of `_round`.
    scale : Scale
    far : Value
        That of `_far`.
    suffix : str
        Of the signals' names.
    """
    bits = len(value) - 1
    difference = Signal(bits + 1, name=f"difference{suffix}")
    distance = Signal(bits, name=f"distance{suffix}")
    m.d.comb += difference.eq(cut[: bits + 1] - value)
    # From the near end of the sixteenth.
    near = difference[:bits] ^ difference[bits].replicate(bits)
    errors = scale.errors
    if scale.specials:
        m.d.comb += distance.eq(near | far.replicate(bits))
        return Cat(lookup(distance, errors, width=scale.width - 1), far)
    m.d.comb += distance.eq(near)
    error = lookup(distance, [*errors, *errors[-1:] * (2**bits - len(errors))], width=scale.width)
    return error | far.replicate(scale.width)


def _encoded(hot, values, width):
    """The value whose bit is set."""
    return Cat(reduce(or_, (bit for bit, value in zip(hot, values, strict=True)
                            if value >> place & 1), C(0, 1)) for place in range(width))
