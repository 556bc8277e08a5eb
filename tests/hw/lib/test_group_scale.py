# SPDX-License-Identifier: BSD-2-Clause
"""The scales of encoders with factors, at every bound."""

import numpy as np
import pytest
from amaranth import Module
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.lib.group_scale import find_scale
from tests.support.compare import check

VALUES = 4

# Exponents of float32 of the top binade under the lowest and the highest scale: 8 to 16 times it,
# or 16 to 32 times. Scales go from 2**-31 to 2**32. Specification sections 12.1 and 18.4.
LIMITS = {"sg-special": (127 - 31 + 3, 127 + 32 + 3), "sg-special64": (127 - 31 + 4, 127 + 32 + 4)}


class FindScale(wiring.Component):
    latency = 0

    def __init__(self, encoding, in_turn=False):
        self.encoding, self.in_turn = encoding, in_turn
        super().__init__({
            "values": In(data.ArrayLayout(31, VALUES)), **({"eight": In(1)} if in_turn else {}),
            "floor": Out(8), "raised": Out(1), "nonfinite": Out(1), "scale": Out(8)})

    def elaborate(self, platform):
        m = Module()
        found = find_scale(m, [(value[23:], value[:23]) for value in self.values], self.encoding,
                           eight=self.eight if self.in_turn else None)
        m.d.comb += [self.floor.eq(found.floor), self.raised.eq(found.raised),
                     self.nonfinite.eq(found.nonfinite), self.scale.eq(found.scale)]
        return m


def magnitudes(rng):
    """Bits of values, of which one at a bound of exponent and mantissa is the largest or not."""
    bounds = sorted({*range(6), *(limit + n for pair in LIMITS.values() for limit in pair
                                  for n in range(-2, 3)), 126, 127, 128, 253, 254, 255})
    ones = 1 << 23
    mantissas = [0, *(part * ones // 8 + n for part in (3, 7) for n in (-1, 0, 1)), ones - 1]
    rows = []
    for exponent in bounds:
        for mantissa in mantissas:
            row = rng.integers(0, (exponent << 23) + 1, VALUES)
            # Another one of the same exponent whose mantissa says nothing.
            row[0], row[1] = exponent << 23 | mantissa, exponent << 23 | rng.choice([0, 5])
            rows.append(rng.permutation(row))
    return np.array(rows)


def most(values):
    """Exponent of the largest magnitude, and its eighths of the mantissa, rounded down."""
    largest = values.max(axis=1)
    return largest >> 23, (largest & (1 << 23) - 1) >> 20


def test_limits():
    assert LIMITS == {"sg-special": (99, 162), "sg-special64": (100, 163)}


def test_threshold():
    """The largest magnitude is below 11 times the scale; 2**-127 is the lowest scale."""
    values = magnitudes(np.random.default_rng(0))
    exponent, eighths = most(values)
    floor, raised = np.maximum(exponent, 3), (eighths >= 3) & (exponent >= 3)
    check(FindScale("sg-threshold"), {"values": values}, {
        "floor": floor, "raised": raised, "nonfinite": exponent == 255,
        "scale": np.where(exponent == 255, 255, floor - 3 + raised)})


def test_searched():
    values = magnitudes(np.random.default_rng(1))
    exponent, _ = most(values)
    floor = np.maximum(exponent, 2)
    check(FindScale("sg-em"), {"values": values}, {
        "floor": floor, "raised": np.zeros(len(values), int), "nonfinite": exponent == 255,
        "scale": floor})


@pytest.mark.parametrize("in_turn", [False, True])
@pytest.mark.parametrize("encoding", LIMITS)
def test_special_values(encoding, in_turn):
    """At most 15, or 30, times the scale of 8 and -8, and 11, or 22, times that of 5 and -5."""
    rng = np.random.default_rng(2)
    values, (bottom, top) = magnitudes(rng), LIMITS[encoding]
    exponent, eighths = most(values)
    within = (exponent >= bottom) & (exponent < top)
    reaches, beyond_five = within & (eighths == 7), within & (eighths >= 3)
    limited = np.clip(exponent, bottom, top)
    eight = rng.integers(0, 2, len(values))
    check(FindScale(encoding, in_turn),
          {"values": values} | ({"eight": eight} if in_turn else {}),
          {"floor": limited,
           "raised": np.where(eight, reaches, beyond_five) if in_turn else reaches,
           "nonfinite": exponent == 255,
           "scale": limited - bottom + reaches + 64 * (beyond_five & ~reaches)
           + 128 * (exponent == 255)})
