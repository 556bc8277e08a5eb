# SPDX-License-Identifier: BSD-2-Clause
"""Scale rules of the MX formats, against fractions and what each rule promises."""

import math
from fractions import Fraction

import numpy as np
import pytest

from golden.codec import blocked, kernel, numbers
from golden.formats import rules
from golden.formats.catalogue import FORMATS
from golden.formats.minifloats import E2M1, INT8
from tests.support import oracle

MX = {"MXFP4": 2, "MXFP6 E2M3": 2, "MXFP6 E3M2": 4, "MXFP8 E4M3": 8, "MXFP8 E5M2": 15, "MXINT8": 0}
MANTISSA = {"MXFP4": 1, "MXFP6 E2M3": 3, "MXFP6 E3M2": 2, "MXFP8 E4M3": 3, "MXFP8 E5M2": 2,
            "MXINT8": 6}


def floor_log2(v):
    """Of a positive fraction, exact."""
    e = v.numerator.bit_length() - v.denominator.bit_length()
    return e if Fraction(2) ** e <= v else e - 1


def rounded_log2(v):
    """To nearest; never halfway, as 2**(n + 1/2) is irrational."""
    return (floor_log2(v * v) + 1) // 2


def exponent(amax, rule, name):
    """Exponent of the scale by the rule's formula."""
    largest, emax = Fraction(FORMATS[name].element.largest), MX[name]
    if rule == "floor":
        return floor_log2(amax) - emax
    if rule == "ceil":
        return -floor_log2(largest / amax)
    if rule == "rtn1":
        return rounded_log2(amax / largest)
    if rule == "rtn2":
        return rounded_log2(amax) - emax
    if rule == "ceil-log2":
        return -floor_log2(1 / amax) - emax
    unit = Fraction(2) ** (floor_log2(amax) - MANTISSA[name])
    return floor_log2(math.floor(amax / unit + Fraction(1, 2)) * unit) - emax


def magnitudes():
    rng = np.random.default_rng(0)
    # Around every significand at which a rule changes, and others.
    points = [1, 1.0606602, 1.2374369, 1.3258252, 1.4142135, 1.40325, 1.5, 1.75, 1.875, 1.9375,
              1.984375, 1.9921875, 1.96875]
    at = np.array(points, np.float32).view(np.uint32)[:, None] + np.arange(-3, 4)
    bits = np.concatenate([at.reshape(-1), rng.integers(0x3F800000, 0x40000000, 50)])
    exponents = np.array([-126, -120, -60, -1, 0, 1, 60, 126])
    return np.ldexp(bits.astype(np.uint32).view(np.float32), exponents[:, None]).reshape(-1)


@pytest.mark.parametrize("rule", rules.RULES)
@pytest.mark.parametrize("name", MX)
def test_scales_and_elements(name, rule, monkeypatch):
    amax = magnitudes()
    amax = amax[amax >= 2.0**-126]
    x = np.zeros((len(amax), 32), np.float32)
    rng = np.random.default_rng(1)
    x[:] = amax[:, None] * rng.uniform(-1, 1, x.shape)
    x[:, 7] = amax * rng.choice([-1, 1], len(amax))
    q = FORMATS[name].quantize(x, rule=rule)
    expected = [min(max(exponent(Fraction(float(a)), rule, name) + 127, 0), 254) for a in amax]
    assert q.scales[:, 0].tolist() == expected
    # Elements are those of the values in units of the scale.
    element = FORMATS[name].element
    u = np.ldexp(x.astype(np.float64), 127 - q.scales.astype(np.int32))
    assert np.array_equal(q.elements, element.encode(u))
    if kernel.compiler():
        monkeypatch.setattr(blocked, "COMPILED_FROM", 1)
        monkeypatch.delenv("M2XFP_NUMPY", raising=False)
        compiled = FORMATS[name].quantize(x, rule=rule)
        assert np.array_equal(compiled.scales, q.scales)
        assert np.array_equal(compiled.elements, q.elements)


def test_rules_promise_what_they_say():
    x = oracle.hard_groups(np.random.default_rng(0), 200, 32).astype(np.float32)
    x = x[(np.abs(x).max(axis=1) < 2.0**100) & (np.abs(x).max(axis=1) > 2.0**-100)]
    for name, form in FORMATS.items():
        if name not in MX:
            continue
        top = form.element.largest * np.ldexp(1.0, form.quantize(x, rule="ceil").scales.astype(int)
                                              - 127)
        # Nothing saturates, and the next lower scale would.
        largest = np.abs(x).max(axis=1, keepdims=True)
        assert (largest <= top).all() and (largest > top / 2).all()


@pytest.mark.parametrize("name", MX)
@pytest.mark.parametrize("rule", rules.RULES)
def test_subnormal_groups_have_the_lowest_scale(name, rule):
    x = np.full((1, 32), np.nextafter(np.float32(2.0**-126), np.float32(0)))
    assert FORMATS[name].quantize(x, rule=rule).scales.tolist() == [[0]]


def test_limits_of_e2m1_are_those_of_the_codec():
    for rule in rules.RULES:
        assert rules.limits(rule, E2M1) == numbers.MANTISSA_LIMITS[rule]
    assert rules.limits("ceil", INT8) == (0x7E0001, 0)


@pytest.mark.parametrize("name", MX)
def test_unknown_rule(name):
    with pytest.raises(ValueError) as error:
        FORMATS[name].quantize(np.ones(32, np.float32), rule="rceil")
    assert str(error.value) == ("rule must be one of ('floor', 'ceil', 'rtn1', 'rtn2', 'even', "
                                "'ceil-log2'), not 'rceil'")
