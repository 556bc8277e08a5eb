# SPDX-License-Identifier: BSD-2-Clause
"""Scale rules of the MX formats: which power of two a group's largest magnitude gives its scale.

A rule is two limits of the mantissa field of the largest magnitude, as in
`golden.codec.numbers.MANTISSA_LIMITS`: from the first on, the scale is one binade above that of
"floor"; below the second, one binade lower. With M the largest value of the element, 2**emax its
binade and A the largest magnitude, exponents of the scale are

============  ==============================================  =================
Rule          Exponent                                        Elsewhere
============  ==============================================  =================
"floor"       floor(log2(A)) - emax                           OCP, torchao FLOOR
"ceil"        ceil(log2(A / M)): nothing saturates            torchao RCEIL
"rtn1"        round(log2(A / M))                              M2XFP's Table 8
"rtn2"        round(log2(A)) - emax                           M2XFP's Table 8
"even"        floor(log2(A')) - emax, A' rounded to the       torchao EVEN
              element's mantissa, ties up
"ceil-log2"   ceil(log2(A)) - emax                            torchao CEIL
============  ==============================================  =================

A group whose largest magnitude is a float32 subnormal has scale code 0 under every rule.
"""

import numpy as np

from ..codec import numbers
from ..codec.arrays import Int32Array, UInt32Array
from .minifloats import Codec

RULES = (*numbers.RULES, "even", "ceil-log2")
"""Rules of the formats whose elements are E2M1, E2M3, E3M2, E4M3, E5M2 or INT8 under E8M0."""


def check_rule(rule: str) -> None:
    """Raises ValueError unless a rule is one of `RULES`."""
    if rule not in RULES:
        raise ValueError(f"rule must be one of {RULES}, not {rule!r}")


def limits(rule: str, element: Codec) -> tuple[int, int]:
    """The two limits of a rule.

    Parameters
    ----------
    rule : str
        One of `RULES`.
    element : Codec
        Elements of the format.

    Returns
    -------
    up, down : int
        Limits of a float32's mantissa field.

    Raises
    ------
    ValueError
        If the rule is not offered.
    """
    check_rule(rule)
    # The largest value is this many times its binade, and its neighbour a quantum lower.
    finite = element.values[: element.count]
    binade = 2.0 ** np.floor(np.log2(element.largest))
    significand = element.largest / binade
    mantissa = int(np.log2(binade / (finite[-1] - finite[-2])))
    never = 0x800000
    return {
        "floor": (never, 0),
        "ceil": (int((significand - 1) * 2**23) + 1, 0),
        # At 1 the significand of a largest value would have to be above the root of 2 to round up.
        "rtn1": (never, max(0, numbers.first_mantissa_above(significand / np.sqrt(2.0)))),
        "rtn2": (numbers.SQRT2, 0),
        "even": (never - (1 << 22 - mantissa), 0),
        "ceil-log2": (1, 0),
    }[rule]


def scale_codes(largest: UInt32Array, rule: str, element: Codec, emax: int) -> Int32Array:
    """E8M0 codes of groups' scales.

    Parameters
    ----------
    largest : uint32 array
        Bits of each group's largest float32 magnitude, finite.
    rule : str
        One of `RULES`.
    element : Codec
        Elements of the format.
    emax : int
        Exponent of the element's uppermost binade.

    Returns
    -------
    int32 array
        Codes 0 to 254.
    """
    up, down = limits(rule, element)
    exponent, mantissa = (largest >> 23).astype(np.int32), largest & 0x7FFFFF
    offset = np.where(mantissa >= up, 1, np.where(mantissa < down, -1, 0))
    return np.where(exponent == 0, 0, np.clip(exponent - emax + offset, 0, numbers.SCALE_MAX))
