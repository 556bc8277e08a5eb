# SPDX-License-Identifier: BSD-2-Clause
"""The scales of encoders with subgroup factors, by a group's largest magnitude."""

from dataclasses import dataclass

from amaranth import *

from .arithmetic import largest
from .formats import SCALE_NAN
from .magnitude import TOP_EXPONENTS


@dataclass(frozen=True, kw_only=True)
class GroupScale:
    """What the largest magnitude of a group says.

    Parameters
    ----------
    floor, raised : Value
        As of `Align`.
    nonfinite : Value
        Whether the group holds NaN or an infinity.
    scale : Value
        Eight bits that go on to the record. In Sg-threshold the scale, or 255 in a NaN group; in
        Sg-EM 3 more than the lowest scale, or 255. In Sg-special and Sg-special64 six bits of the
        exponent of the lower scale, whether that of 5 and -5 is twice as large, whether it is a NaN
        group.
    """

    floor: Value
    raised: Value
    nonfinite: Value
    scale: Value

    @property
    def doubled(self):
        """Of Sg-special and Sg-special64: whether the scale of 5 and -5 is twice the lower one."""
        return self.scale[6]


def find_scale(m, values, encoding, *, eight=None):
    """Finds the scales of a group. Specification sections 10.1, 10.7, 12.4 and 18.4.

    Parameters
    ----------
    m : Module
    values : list of (Value, Value)
        Exponents with the bias of float32, and mantissas.
    encoding : str
        That of `SgEngine`.
    eight : Value, optional
        Of Sg-special and Sg-special64: whether magnitudes are to be in units of the scale of 8 and
        -8, not in those of 5 and -5. By default they are in units of the lower scale, which is
        the former one.

    Returns
    -------
    GroupScale
    """
    is_largest, maximum = largest(m, [exponent for exponent, _ in values], name="maximum")
    large = maximum[2:].any()
    floor = Signal(8)
    raised = Signal()
    nonfinite = Signal()
    scale = Signal(8)
    m.d.comb += nonfinite.eq(maximum.all())
    if encoding == "sg-threshold":
        # The top binade, 8 to 16 times the scale, is that of the largest exponent, or the next one
        # if the largest magnitude is at least 5.5 times the scale in its own. It is at least 3,
        # where the scale's code is 0.
        reached = Cat(mantissa[-1] | mantissa[-3:-1].all() for _, mantissa in values)
        m.d.comb += [
            floor.eq(Cat(maximum[:2] | (~large).replicate(2), maximum[2:])),
            raised.eq((is_largest & reached).any() & (large | maximum[:2].all())),
            scale.eq(Mux(nonfinite, SCALE_NAN, floor - 3 + raised)),
        ]
    elif encoding == "sg-em":
        # The top binade, 8 to 16 times the lowest scale, is that of the largest exponent. It is at
        # least 2, where that scale's code would be -1.
        m.d.comb += [
            floor.eq(Cat(maximum[0] & maximum[1:].any(), maximum[1] | ~large, maximum[2:])),
            scale.eq(floor),
        ]
    else:
        limited, reaches, beyond_five = _special_scales(m, values, is_largest, maximum, encoding)
        m.d.comb += [
            floor.eq(limited),
            raised.eq(reaches if eight is None else Mux(eight, reaches, beyond_five)),
            scale.eq(Cat((limited - TOP_EXPONENTS[encoding][0] + reaches)[:6],
                         beyond_five & ~reaches, nonfinite)),
        ]
    return GroupScale(floor=floor, raised=raised, nonfinite=nonfinite, scale=scale)


def _special_scales(m, values, is_largest, maximum, encoding):
    """The scales of Sg-special and Sg-special64.

    Under the scale of 8 and -8, which is the lower one, the largest magnitude is 7.5 to 15, or
    twice that in Sg-special64; under that of 5 and -5 it is 5.5 to 11.

    Returns
    -------
    limited : Value
        The largest exponent, within `TOP_EXPONENTS`.
    reaches : Value
        Whether the top binade under the lower scale is the next one.
    beyond_five : Value
        The same under the scale of 5 and -5. It is 1 wherever ``reaches`` is.
    """
    bottom, top = TOP_EXPONENTS[encoding]
    within = Signal()
    five = Signal()
    eight = Signal()
    m.d.comb += [
        within.eq((maximum >= bottom) & (maximum < top)),
        # 1.375 and 1.875 times a power of two.
        five.eq((is_largest & Cat(mantissa[-1] | mantissa[-3:-1].all()
                                  for _, mantissa in values)).any()),
        eight.eq((is_largest & Cat(mantissa[-3:].all() for _, mantissa in values)).any()),
    ]
    limited = Mux(within, maximum, Mux(maximum[7], top, bottom))
    return limited, within & eight, within & five
