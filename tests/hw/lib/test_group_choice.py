# SPDX-License-Identifier: BSD-2-Clause
"""The choice among what was tried for a group, as components by themselves."""

import itertools

import numpy as np
import pytest
from amaranth import Cat, Module
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

import sim
from hw.lib.group_choice import best_scale, best_special, keep_better
from tests.support.compare import check

WIDTH, RECORD = 6, 3


class BestScale(wiring.Component):
    latency = 0

    def __init__(self):
        super().__init__({"sums": In(data.ArrayLayout(WIDTH, 3)), "floor": In(8),
                          "record": Out(RECORD), "scale": Out(8)})

    def elaborate(self, platform):
        m = Module()
        record, scale = best_scale(m, list(self.sums), [1, 2, 4], self.floor, [0, 1, 2])
        m.d.comb += [self.record.eq(record), self.scale.eq(scale)]
        return m


def test_best_scale():
    """The least sum of squares; of equal ones that of the lowest scale."""
    rng = np.random.default_rng(0)
    sums = np.concatenate([
        np.array([*itertools.product((0, 1, 4, 16, 63), repeat=3)]),
        rng.integers(0, 64, (400, 3)),
        # Equal ones in the units of all.
        [[16 * a, 4 * b, c] for a, b, c in itertools.product(range(4), repeat=3)]])
    floor = rng.choice([2, 3, 4, 130, 254, 255], len(sums), p=[0.2, 0.2, 0.2, 0.2, 0.1, 0.1])
    weighted = sums * [1, 4, 16]
    # Code -1 there is not.
    weighted[floor == 2, 0] = 1 << 20
    best = weighted.argmin(axis=1)
    assert np.bincount(best).min() > 40
    check(BestScale(), {"sums": sums, "floor": floor},
          {"record": 1 << best, "scale": np.where(floor == 255, 255, floor - 3 + best)})


class BestSpecial(wiring.Component):
    latency = 0

    def __init__(self, in_turn):
        self.in_turn = in_turn
        self.count = 3 if in_turn else 4
        super().__init__({"sums": In(data.ArrayLayout(WIDTH, self.count)), "scale": In(8),
                          **({"five": In(1)} if in_turn else {}),
                          "record": Out(4), "byte": Out(8)})

    def elaborate(self, platform):
        m = Module()
        record, byte = best_special(m, list(self.sums), [1, 2, 4, 8][: self.count], self.scale,
                                    self.five if self.in_turn else None)
        m.d.comb += [self.record.eq(record), self.byte.eq(byte)]
        return m


@pytest.mark.parametrize("in_turn", [False, True])
def test_best_special(in_turn):
    """The first least sum, in units of each one's scale; the byte of -8 is never that of NaN."""
    rng = np.random.default_rng(1)
    count = 3 if in_turn else 4
    sums = np.concatenate([
        np.array([*itertools.product((0, 1, 4, 5, 63), repeat=count)]),
        rng.integers(0, 64, (1000, count))])
    exponent = rng.choice([0, 1, 30, 62, 63], len(sums))
    # The scale of 5 and -5 is not twice the largest one.
    doubled = rng.integers(0, 2, len(sums)) & (exponent != 63)
    nonfinite = rng.random(len(sums)) < 0.05
    five = rng.integers(0, 2, len(sums)) * in_turn
    weighted = sums.copy()
    weighted[:, : count - 2] *= np.where(doubled, 4, 1)[:, None]
    weighted[exponent == 63, -1] = 1 << 20
    best = weighted.argmin(axis=1)
    assert np.bincount(best).min() > 100
    of_eight = best >= count - 2
    sign = np.where(of_eight, best == count - 1, five if in_turn else best == 1)
    byte = 4 * (exponent + np.where(of_eight, 0, doubled)) + 2 * of_eight + sign
    inputs = {"sums": sums, "scale": exponent + 64 * doubled + 128 * nonfinite}
    check(BestSpecial(in_turn), inputs | ({"five": five} if in_turn else {}),
          {"record": 1 << best, "byte": np.where(nonfinite, 255, byte)})


class KeepBetter(wiring.Component):
    """Two registers of four subgroups each, which leave one after the other."""

    latency = 1

    def __init__(self):
        record = data.StructLayout({"elements": 8, "metadata": 4})
        super().__init__({
            "sums": In(data.ArrayLayout(WIDTH, 2)), "records": In(data.ArrayLayout(record, 2)),
            "leaves": In(1), "first": In(1), "enable": In(1),
            "total": Out(WIDTH), "record": Out(12), "second": Out(1)})

    def elaborate(self, platform):
        m = Module()
        total, record, second = keep_better(
            m, list(self.sums), [(one.elements, one.metadata) for one in self.records],
            enable=self.leaves & self.enable, first=self.first, steps=4)
        m.d.comb += [self.total.eq(total), Cat(self.record).eq(record), self.second.eq(second)]
        return m


def test_keep_better():
    """All subgroups are those of the group whose sum was less when its first one left."""
    rng = np.random.default_rng(2)
    groups = 60
    sums = rng.integers(0, 8, (groups, 2))
    assert (sums[:, 0] == sums[:, 1]).any()
    records = rng.integers(0, 1 << 12, (groups, 2))
    rows = {"sums": [], "records": [], "leaves": [], "first": []}
    for total, (a, b) in zip(sums, records, strict=True):
        parts = [[value & 255, value >> 8] for value in (int(a), int(b))]
        for step in range(4):
            # Sums that come behind the first do not count, nor does what stays.
            rows["sums"].append(total if step == 0 else total[::-1])
            rows["records"].append([elements >> 2 * step | metadata >> step << 8
                                    for elements, metadata in parts])
            rows["leaves"].append(1)
            rows["first"].append(step == 0)
        rows["sums"].append(total[::-1])
        rows["records"].append([0, 0])
        rows["leaves"].append(0)
        rows["first"].append(1)
    second = sums[:, 1] < sums[:, 0]
    expected = {"total": sums.min(axis=1), "record": np.where(second, records[:, 1], records[:, 0]),
                "second": second}
    given = {name: np.array(values) for name, values in rows.items()}
    packed = given.pop("records")
    given["records"] = {"elements": packed & 255, "metadata": packed >> 8}
    found = sim.run(KeepBetter(), given)
    for name, values in expected.items():
        # Whole behind a group's last subgroup, and until the next one's first.
        for cycle in (3, 4):
            assert np.ravel(found[name])[cycle::5].tolist() == values.tolist(), (name, cycle)
