# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""The quantizer of NVFP4 against golden: scales, ties, saturation, special values."""

import numpy as np
import pytest

from golden import stimuli
from hw.units.nvfp4_quantizer import Nvfp4Quantizer
from tests.support.compare import check
from tests.support.oracle import encode_nvfp4
from tests.support.testbench import shared

NAN, INF = float("nan"), float("inf")


def bits(values):
    with np.errstate(invalid="ignore"):
        return np.array(values, np.float32).view(np.uint32)


def check_groups(groups, units, records=None, **options):
    """Groups as numbers, filled up with +0, and tensor scales; elements and scales."""
    groups = [[*group] + [0] * (16 - len(group)) for group in groups]
    oracle = [encode_nvfp4(group, unit) for group, unit in zip(groups, units, strict=True)]
    if records is not None:
        given = [([*elements] + [0] * (16 - len(elements)), scale) for elements, scale in records]
        assert given == oracle
    elements, scales = zip(*oracle, strict=True)
    check(shared(Nvfp4Quantizer), {"i": {"values": bits(groups), "tensor_scale": bits(units)}},
          {"o": {"elements": np.array(elements), "scale": np.array(scales)}}, **options)


def test_ties_of_elements():
    groups, units, records = [], [], []
    points = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5]
    for unit in (2.0**-115, 2.0**-3, 1.0, 2.0**120):
        for signs in (1, -1):
            x = np.array([6, *points, *points[::-1]], np.float32) * np.float32(signs * unit)
            for end, codes in ((None, [0, 2, 2, 4, 4, 6, 6]), (0, range(7)), (INF, range(1, 8))):
                moved = x if end is None else np.nextafter(x, np.float32(signs * end))
                moved[0] = x[0]
                sign = 0 if signs > 0 else 8
                groups.append(moved.astype(float).tolist())
                units.append(unit)
                records.append(([sign + code for code in (7, *codes, *reversed(codes))], 0x38))
    check_groups(groups, units, records)


@pytest.mark.long
def test_every_scale():
    # Each scale's largest magnitude, and both sides of every point between two of them; with
    # tensor scales that have few bits, these are exact.
    groups, units = [], []
    values = [m if e == 0 else (8 + m) << e - 1 for e in range(16) for m in range(8)][:127]
    for i, (low, high) in enumerate(zip([*values[:-1], 448 * 512], values[1:] + [480 * 512],
                                        strict=True)):
        unit = [1.0, 1.25, 1.875, 2.0**-20][i % 4]
        for largest in (2 * low, low + high):
            exact = np.float32(6 * largest * unit / 1024)
            assert exact == 6 * largest * unit / 1024
            for moved in (exact, np.nextafter(exact, np.float32(0)),
                          np.nextafter(exact, np.float32(INF))):
                groups.append([0.3 * moved, -moved, 0.7 * moved])
                units.append(unit)
    groups = [np.array(group, np.float32).astype(float).tolist() for group in groups]
    check_groups(groups, units)


@pytest.mark.long
def test_significands_of_both_scales():
    # Every scale's significand times many tensor scales, with values around the decision points.
    rng = np.random.default_rng(0)
    units = rng.uniform(1, 4, 400).astype(np.float32)
    scales = rng.integers(1, 16, 400) * 2.0 ** rng.integers(-9, 6, 400)
    points = np.array([6, 0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5] * 2)
    x = (points * scales[:, None] * units[:, None]).astype(np.float32)
    x[:, 8:] = np.nextafter(x[:, 8:], np.float32(INF))
    x *= rng.choice(np.array([1, -1], np.float32), x.shape)
    check_groups(x.astype(float).tolist(), units.astype(float).tolist())


@pytest.mark.long
@pytest.mark.parametrize("groups, unit, records", [
    pytest.param([[], [-0.0], [-0.0] * 16], 1, [([], 0)] * 3, id="zeros"),
    pytest.param([[6, -0.0]], 1, [([7, 8], 0x38)], id="negative zero"),
    pytest.param([[5000, -2700, 448], [1e38, -3e38]], 1, [([7, 15, 2], 0x7E), ([7, 15], 0x7E)],
                 id="saturation"),
    pytest.param([[8.5 * 2**-9, -(2**-9)], [6 * 2**-10], [6.001 * 2**-10]], 1,
                 [([7, 10], 1), ([], 0), ([5], 1)], id="subnormal scales"),
    pytest.param([[2.0**-149, -(2.0**-127)], [6 * 2.0**-124, 2.0**-126, -(2.0**-125), 2.0**-127]],
                 2.0**-115, [([], 0), ([7, 0, 9], 1)], id="subnormal values"),
    pytest.param([[6 * i for i in range(16)]], 2.0**-115, None, id="far beyond"),
    *(pytest.param([[1, 2], [1]], unit, [([], 0x7F)] * 2, id=f"tensor scale {unit}")
      for unit in (0.0, -1.0, 2.0**-116, 2.0**-149, NAN, INF, -INF)),
])
def test_directed(groups, unit, records):
    check_groups(groups, [unit] * len(groups), records)


@pytest.mark.long
def test_not_finite():
    groups = [[*[6] * i, bad] for i, bad in enumerate([NAN, INF, -INF, NAN] * 4)]
    records = [([], 0x7F)] * 16
    # The groups around stay as they are.
    for at in (0, 7, 18):
        groups.insert(at, [6, -1])
        records.insert(at, ([7, 10], 0x38))
    check_groups(groups, [1] * 19, records)


@pytest.mark.parametrize("stalls, count", [
    pytest.param(0, 400, marks=pytest.mark.long),
    pytest.param(0.5, 400, marks=pytest.mark.long),
    (0.5, 60),
])
def test_at_random(stalls, count):
    inputs = stimuli.nvfp4_quantizer(np.random.default_rng(1), count)["i"]
    with np.errstate(invalid="ignore"):
        groups = inputs["values"].view(np.float32).astype(float).tolist()
        units = inputs["tensor_scale"].view(np.float32).astype(float).tolist()
    check_groups(groups, units, stalls=stalls)


@pytest.mark.parametrize("stalls", [0, 0.5])
def test_operands_of_one_group_stay_together(stalls):
    # Neighbours differ in the tensor scale only, in one value only, or hold NaN.
    groups, units, records = [], [], []
    for i in range(24):
        groups.append([6, 3, NAN] if i % 5 == 4 else [6, 3])
        units.append(2.0 ** (i % 3))
        records.append(([], 0x7F) if i % 5 == 4 else ([7, 5], 0x38 - 8 * (i % 3)))
    for i in range(24):
        groups.append([6, [0.5, -1, 4][i % 3]])
        units.append(1)
        records.append(([7, [1, 10, 6][i % 3]], 0x38))
    check_groups(groups, units, records, stalls=stalls)
