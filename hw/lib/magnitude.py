# SPDX-License-Identifier: BSD-2-Clause
"""Magnitudes of values in units of their group's scale, of eight bits and one for the rest."""

from functools import reduce
from operator import or_

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

TOP_EXPONENTS = {"sg-special": (99, 162), "sg-special64": (100, 163)}
"""Exponents of float32 of the top binade under the lowest and the highest scale of Sg-special, from
8 to 16 times the scale, and of Sg-special64, from 16 to 32 times."""


def magnitude_layout(encoding):
    """Layout of a magnitude below 16, or 32 in Sg-special64, in units of the lowest scale.

    It is in units of 1/32, rounded to odd: eight or nine bits in sixteenths, and whether anything
    follows them. In this form every decision of every factor is exact, under higher scales, too.
    """
    return data.StructLayout({"odd": _bits(encoding) + 1, "sign": 1})


def reduced_layout(encoding):
    """Layout of what a value's magnitude is made of.

    Exponent, the mantissa's upper bits, whether the rest is not 0, sign.
    """
    return data.StructLayout({"exponent": 8, "mantissa": _bits(encoding) - 1, "rest": 1, "sign": 1})


def _bits(encoding):
    """Bits of a magnitude in sixteenths, of which the hidden one is the first."""
    return 9 if encoding == "sg-special64" else 8


class Align(wiring.Component):
    """Aligns a value with the scale of its group. Combinational.

    Parameters
    ----------
    encoding : str
        That of `SgEngine`. If several scales are tried, small magnitudes are 0; under each factor
        of one scale they have the same error. In Sg-EM these are those below 1/4 of the lowest
        scale, in Sg-special those more than 5 binades below the largest one, in Sg-special64 more
        than 6. In the latter two magnitudes that the scale is too low for become the largest one,
        and a subnormal is 0.

    Members
    -------
    value : In(reduced_layout(encoding))
    floor : In(8)
        The largest exponent, at least 3, or 2 in Sg-EM. In Sg-special and Sg-special64 it is
        limited to `TOP_EXPONENTS`.
    raised : In(1)
        Whether the top binade, 8 to 16 times the scale, is one above that of the largest exponent.
        In Sg-special64 it is 16 to 32 times the scale.
    blank : In(1)
        Gives +0.
    magnitude : Out(magnitude_layout(encoding))
        In Sg-threshold a small one is 0, but for subnormals, where that does not matter.
    """

    def __init__(self, encoding):
        self.encoding = encoding
        self._bits = _bits(encoding)
        super().__init__({
            "value": In(reduced_layout(encoding)),
            "floor": In(8),
            "raised": In(1),
            "blank": In(1),
            "magnitude": Out(magnitude_layout(encoding)),
        })

    def elaborate(self, platform):
        m = Module()

        # In the last of these binades magnitudes are 1/4 to 1/2 of the scale.
        places = self._bits - 2
        top = TOP_EXPONENTS.get(self.encoding)
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
            normal.eq(1 if top else value.exponent.any()),
            difference.eq(self.floor[:3] - Cat(value.exponent[0] | ~normal, value.exponent[1:3])),
            next_block.eq(self.floor[3:] - 1),
            in_window.eq(Mux(borrow, (value.exponent[3:] | ~next_block).all(),
                             (value.exponent[3:] | ~self.floor[3:]).all()) & ~self.blank),
        ]
        below = [in_window & (difference[:3] == n) for n in range(places)]
        if not top:
            at = [Signal(name=f"at{place}") for place in range(places)]
            m.d.comb += [place.eq(Mux(self.raised, before, same)) for place, before, same in
                         zip(at, [C(0, 1), *below], below, strict=False)]
            below = at

        # Each place has the significand one bit lower.
        significand = [normal, *reversed(value.mantissa)]
        window = [reduce(or_, (below[place] & significand[column - place]
                               for place in range(min(column + 1, places))))
                  for column in range(self._bits)]
        behind = [value.rest & Cat(below).any()]
        for n in range(1 + self._bits - places, self._bits):
            behind.append(significand[n] & Cat(below[self._bits - n:]).any())
        odd = Cat(reduce(or_, behind), *reversed(window))
        if self.encoding == "sg-em":
            # A subnormal's place says nothing of its leading zeros.
            odd = Cat(odd[:3] & Cat(window[:-2]).any().replicate(3), odd[3:])
        if top:
            # Whether the binade is raised is known last.
            beyond = Signal()
            m.d.comb += beyond.eq((value.exponent > top[1]) & ~self.blank)
            odd = Mux(self.raised, Cat(odd[:2].any(), odd[2:]), odd) | beyond.replicate(len(odd))
        m.d.comb += [
            self.magnitude.odd.eq(odd),
            self.magnitude.sign.eq(value.sign & ~self.blank),
        ]

        return m
