# SPDX-License-Identifier: BSD-2-Clause
"""Exponents and mantissas of floating-point values, with the exponent of float32."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .formats import FLOATS


class Widen(wiring.Component):
    """Widens a float16 magnitude to float32's exponent, with ten bits of mantissa: exact.

    Combinational.

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

        # The significand of a subnormal moves up until its leading one is in the hidden place.
        # A normal one stays, as its leading one is there.
        exponent, normal = self.value[10:], self.value[10:].any()
        significand = Cat(self.value[:10], normal)
        shifts = []
        for stage in reversed(range(4)):
            before, significand = significand, Signal(11, name=f"normalized{stage}")
            shift = Signal(name=f"shift{stage}")
            m.d.comb += [
                shift.eq(~before[-(1 << stage):].any()),
                significand.eq(Mux(shift, before << (1 << stage), before)),
            ]
            shifts.insert(0, shift)
        m.d.comb += self.mantissa.eq(significand[:10])

        # Biases differ by 112: 16 times 7, so that the low four bits stay. A subnormal has 113 less
        # its shift, which is 1 to 10; 113 is 16 times 7 and 1. Zero has a shift of 15.
        places = Cat(shifts)
        with m.If(exponent.all()):
            m.d.comb += self.exponent.eq(255)
        with m.Elif(normal):
            m.d.comb += self.exponent.eq(
                Cat(exponent[:4], (~exponent[4]).replicate(3), exponent[4]))
        with m.Elif(places < 12):
            m.d.comb += self.exponent.eq(Cat((1 - places)[:4], places == 1, C(3, 2)))

        return m


def unpacked(m, value, input, *, number):
    """A value's exponent with the bias of float32, and its mantissa.

    Parameters
    ----------
    m : Module
        Receives a `Widen` if the format is float16.
    value : Value
        With its sign.
    input : str
        Format of the value, one of `FLOATS`.
    number : int
        Of the value, in names.
    """
    layout = FLOATS[input]
    if layout.exponent == 8:
        return value[layout.mantissa:-1], value[:layout.mantissa]
    m.submodules[f"widen{number}"] = widen = Widen()
    m.d.comb += widen.value.eq(value[:-1])
    return widen.exponent, widen.mantissa
