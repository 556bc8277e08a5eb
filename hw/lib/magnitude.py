# SPDX-License-Identifier: BSD-2-Clause
"""Magnitudes of values in units of their group's scale, of eight bits and one for the rest."""

from functools import reduce
from operator import or_

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

# Bits of the mantissa that U has apart from its sticky bit: U has 8 bits in sixteenths, one of
# which is the hidden one.
KEPT = 7

# The highest binade of U is 8 to 16. In the sixth one below, U is less than 1/4: there the code is
# 0 under every factor and scale.
_PLACES = 6

TOP_EXPONENTS = 99, 162
"""Exponents of float32 of the binade from 8 to 16 under the lowest and the highest scale of
Sg-special."""

Magnitude = data.StructLayout({"odd": 9, "sign": 1})
"""A magnitude below 16 in units of 1/32 of the lowest scale, rounded to odd: eight bits in
sixteenths, and whether anything follows them. In this form every decision of every factor is exact,
under higher scales, too."""


class Align(wiring.Component):
    """Aligns a value with the scale of its group. Combinational.

    Parameters
    ----------
    reduced : Layout
        Of the value: exponent, the mantissa's upper bits, whether the rest is not 0, sign.
    clears : bool
        Whether it matters that magnitudes below 1/4 are 0: if several scales are tried. Under each
        factor of one scale they have the same error.
    bounded : bool
        Whether the scales are those of Sg-special: magnitudes of 16 or more become the largest one,
        and a subnormal is below 1/4.

    Members
    -------
    value : In(reduced)
    floor : In(8)
        The largest exponent, at least 3, or 2 in Sg-EM. In Sg-special it is limited to 99 to 162.
    raised : In(1)
        Whether the top binade, 8 to 16 times the scale, is one above that of the largest exponent.
    blank : In(1)
        Gives +0.
    magnitude : Out(Magnitude)
        0 if it is below 1/4, but for subnormals where that does not matter.
    """

    def __init__(self, reduced, *, clears, bounded=False):
        self.clears = clears
        self.bounded = bounded
        super().__init__({
            "value": In(reduced),
            "floor": In(8),
            "raised": In(1),
            "blank": In(1),
            "magnitude": Out(Magnitude),
        })

    def elaborate(self, platform):
        m = Module()

        # Exponents fall into blocks of eight, which share their upper five bits. None is above
        # `floor`, so that one with all bits of the top block's number is in the top block, and one
        # with all bits of the next block's number is in that or in the top block. Where the top
        # block is 0 the number of the next one wraps around: no exponent has it.
        value = self.value
        normal = Signal()
        next_block = Signal(5)
        in_window = Signal()
        # Subnormals have exponent 1.
        difference = Signal(4)
        borrow = difference[3]
        m.d.comb += [
            normal.eq(1 if self.bounded else value.exponent.any()),
            difference.eq(self.floor[:3] - Cat(value.exponent[0] | ~normal, value.exponent[1:3])),
            next_block.eq(self.floor[3:] - 1),
            in_window.eq(Mux(borrow, (value.exponent[3:] | ~next_block).all(),
                             (value.exponent[3:] | ~self.floor[3:]).all()) & ~self.blank),
        ]
        below = [in_window & (difference[:3] == n) for n in range(_PLACES)]
        at = [Signal(name=f"at{place}") for place in range(_PLACES)]
        m.d.comb += [place.eq(Mux(self.raised, before, same)) for place, before, same in
                     zip(at, [C(0, 1), *below], below, strict=False)]

        # Each place has the significand one bit lower.
        significand = [normal, *reversed(value.mantissa)]
        window = [reduce(or_, (at[place] & significand[column - place]
                               for place in range(min(column + 1, _PLACES))))
                  for column in range(1 + KEPT)]
        behind = [value.rest & Cat(at).any()]
        for n in range(2 + KEPT - _PLACES, 1 + KEPT):
            behind.append(significand[n] & Cat(at[1 + KEPT - n:]).any())
        odd = Cat(reduce(or_, behind), *reversed(window))
        if self.clears:
            # A subnormal's place says nothing of its leading zeros.
            odd = Cat(odd[:3] & Cat(window[:-2]).any().replicate(3), odd[3:])
        if self.bounded:
            beyond = Signal()
            m.d.comb += beyond.eq((value.exponent > TOP_EXPONENTS[1]) & ~self.blank)
            odd |= beyond.replicate(len(odd))
        m.d.comb += [
            self.magnitude.odd.eq(odd),
            self.magnitude.sign.eq(value.sign & ~self.blank),
        ]

        return m
