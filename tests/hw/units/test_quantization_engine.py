# SPDX-License-Identifier: BSD-2-Clause
"""The quantization engine against golden: rules, input types, ties, subnormals, special values."""

from functools import cache

import numpy as np
import pytest

import sim
from golden import stimuli
from golden.reference import FLOATS
from hw.units.quantization_engine import QuantizationEngine
from tests.support.compare import check
from tests.support.marks import longer
from tests.support.oracle import encode_activations
from tests.support.testbench import shared

NAN, INF = float("nan"), float("inf")


def bits_of(groups, input):
    with np.errstate(invalid="ignore"):
        x = np.array(groups, np.float32).astype(FLOATS[input])
    return x.view(f"u{x.dtype.itemsize}")


def check_records(groups, records, *, input="float32", rule="floor", **options):
    """Groups as numbers, exact in the input's type, and records: elements, metadata, scale."""
    elements, metadata, scales = zip(*records, strict=True)
    check(shared(QuantizationEngine, input=input, rule=rule), {"i": bits_of(groups, input)},
          {"o": {"elements": np.array(elements), "metadata": np.array(metadata),
                 "scale": np.array(scales)}}, **options)


def check_oracle(bits, *, input, rule="floor"):
    dtype = FLOATS[input]
    records = [encode_activations(group, rule=rule)
               for group in bits.view(dtype).astype(np.float64).tolist()]
    elements, metadata, scales = zip(*records, strict=True)
    check(shared(QuantizationEngine, input=input, rule=rule), {"i": bits},
          {"o": {"elements": np.array(elements), "metadata": np.array(metadata),
                 "scale": np.array(scales)}})


def pad(*values):
    return [*values] + [0] * (32 - len(values))


def subgroups(*parts):
    """A group of up to four subgroups, each filled up with +0."""
    return pad(*(value for part in parts for value in [*part] + [0] * (8 - len(part))))


# Values in units of the scale, held at 127 by a 4 in the last subgroup, and the first subgroup's
# codes and metadata.
SUBGROUPS = {
    "subnormal_codes": [
        ([0.5], [1], 1), ([-0.5], [9], 1), ([0.375], [1], 0), ([0.625], [1], 2), ([0.25], [0], 3),
        ([0.125], [0], 2), ([0.0625], [0], 1), ([0.1875], [0], 3), ([0.4375], [1], 1),
        ([0.3125], [1], 0),  # f = 2, which is no neighbour of 0.5: clamped
        ([2.0**-149], [0], 1), ([0.5, 0.5, -0.5], [1, 1, 9], 1),
    ],
    "ties_of_elements": [
        ([4, 0.25, 0.75, 1.25, 1.75, 2.5, 3.5, -0.25], [6, 0, 2, 2, 4, 4, 6, 8], 1),
        ([6, -0.75, -1.25, -1.75, -2.5, -3.5, -5, 5], [7, 10, 10, 12, 12, 14, 14, 6], 1),
    ],
    "one_past_a_tie": [
        ([6, 0.28125, 0.78125, 1.28125, 1.78125, 2.515625, 3.515625, 5.03125],
         [7, 1, 2, 3, 4, 5, 6, 7], 1),
        ([6, 0.21875, 0.71875, 1.21875, 1.71875, 2.484375, 3.484375, 4.96875],
         [7, 0, 1, 2, 3, 4, 5, 6], 1),
    ],
    "ties_of_the_top_1": [
        ([4.25], [6], 1), ([4.75], [6], 3), ([5.25], [7], 0), ([5.75], [7], 1), ([6.25], [7], 1),
        ([6.75], [7], 3), ([7.25], [7], 3), ([2.125], [4], 1), ([2.375], [4], 3), ([3.125], [5], 1),
        ([3.375], [5], 3), ([1.0625], [2], 1), ([1.1875], [2], 3),
    ],
    "saturation": [([7.5], [7], 3), ([7.9375], [7], 3), ([-7], [15], 3),
                   ([7.75, 7.9375], [7, 7], 3)],
    "clamped_from_below": [([3.5], [6], 0), ([1.75], [4], 0), ([0.75], [2], 0),
                           ([5.125], [7], 0)],
    "zeros": [([0.0, -0.0], [0, 8], 1), ([-0.0] * 8, [8] * 8, 1), ([-0.03125], [8], 1)],
    # Codes tie, so that the lower index is refined, though another is larger or positive.
    "ties_between_elements": [
        ([2.625, 3.375], [5, 5], 0), ([3.375, 2.625], [5, 5], 3), ([-6, 6.5], [15, 7], 1),
        ([6.5, -6], [7, 15], 2), ([0, 0.125, 0.1875], [0, 0, 0], 1), ([-6, 6], [15, 7], 1),
    ],
}
ULP = 2.0**-149
LARGEST = float(np.finfo(np.float32).max)
NOTHING = [0] * 32, [0] * 4, 255

# Groups and their records. What an input's type lacks is left out of its test.
GROUPS = {
    "examples_of_the_specification": [
        (subgroups([3.6], [4.6], [7.9], [0.1]),
         (subgroups([6], [6], [7], [0]), [0, 2, 3, 2], 127)),
    ],
    "zero_groups": [([0.0] * 32, ([0] * 32, [1] * 4, 0)), ([-0.0] * 32, ([8] * 32, [1] * 4, 0))],
    # X is max(biased exponent - 2, 0): a power of two, its code and metadata under it.
    "scale_at_the_lower_end": [
        (pad(sign * 2.0**power), (pad(code | (8 if sign < 0 else 0)), [meta, 1, 1, 1], scale))
        for power, code, meta, scale in [
            (-128, 1, 1, 0), (-127, 2, 1, 0), (-126, 4, 1, 0), (-125, 6, 1, 0), (-124, 6, 1, 1),
            (-129, 0, 3, 0), (-130, 0, 2, 0), (-131, 0, 1, 0), (-133, 0, 1, 0)]
        for sign in (1, -1)
    ],
    "subnormals": [
        (pad(ULP), (pad(0), [1, 1, 1, 1], 0)),
        (pad(2.0**-126 - ULP), (pad(4), [1, 1, 1, 1], 0)),
        (pad(1.75 * 2.0**-127), (pad(4), [0, 1, 1, 1], 0)),
        (pad(1.25 * 2.0**-127 + ULP), (pad(3), [0, 1, 1, 1], 0)),
        (pad(1.25 * 2.0**-127), (pad(2), [3, 1, 1, 1], 0)),
        (pad(-(2.0**-131) - ULP), (pad(8), [2, 1, 1, 1], 0)),
        # Of float16: 2**-24 is 4 under scale code 101.
        (pad(2.0**-24, -(2.0**-24)), (pad(6, 14), [1, 1, 1, 1], 101)),
        (pad(0, 1023 * 2.0**-24, 2.0**-24), (pad(0, 7, 0), [3, 1, 1, 1], 110)),
    ],
    "upper_end": [
        (pad(LARGEST), (pad(7), [3, 1, 1, 1], 252)),
        (pad(-LARGEST, 2.0**127), (pad(15, 6), [3, 1, 1, 1], 252)),
        (pad(2.0**127), (pad(6), [1, 1, 1, 1], 252)),
        (pad(255 * 2.0**120), (pad(7), [3, 1, 1, 1], 252)),
        (pad(-65504), (pad(15), [3, 1, 1, 1], 140)),
    ],
    # Among them NaN beside 1, at every position; the groups around stay as they are.
    "not_finite": [
        *((pad(*[1] * i, bad), NOTHING) for i, bad in enumerate([NAN, INF, -INF, NAN] * 8)),
        (pad(1, 2), (pad(4, 6), [1, 1, 1, 1], 126)),
        *((group, NOTHING) for group in
          ([-1] * 31 + [NAN], [NAN] * 32, [INF, -INF] * 16, pad(-2.0**-14, NAN))),
        (pad(1, 2), (pad(4, 6), [1, 1, 1, 1], 126)),
    ],
    **{name: [
        (np.ldexp(subgroups(values, [], [], [4]), power).tolist(),
         (subgroups(codes, [], [], [6]), [meta, 1, 1, 1], 127 + power))
        for values, codes, meta in cases for power in (0, -9, 3) if values[0] != ULP or power == 0]
       for name, cases in SUBGROUPS.items()},
}


def representable(group, input):
    with np.errstate(over="ignore"):
        x = np.array(group, np.float32)
        return input == "float32" or np.array_equal(x, x.astype(FLOATS[input]), equal_nan=True)


def cases(name, input):
    return [case for case in GROUPS[name] if representable(case[0], input)]


@cache
def quantized(input, metadata=True):
    """Records of all groups, in one run, by name."""
    groups = [group for name in GROUPS for group, _ in cases(name, input)]
    o = sim.run(shared(QuantizationEngine, input=input, metadata=metadata),
                {"i": bits_of(groups, input)})["o"]
    fields = ("elements", "metadata", "scale") if metadata else ("elements", "scale")
    records = zip(*(o[field].tolist() for field in fields), strict=True)
    return {name: [next(records) for _ in cases(name, input)] for name in GROUPS}


def quick(*case, input):
    """A case that is among the longer checks unless its input is float32."""
    return pytest.param(*case, input, marks=[] if input == "float32" else pytest.mark.long)


@pytest.mark.parametrize("name, input", [
    quick(name, input=input) for input in FLOATS for name in GROUPS if cases(name, input)])
def test_groups(name, input):
    for (group, record), given in zip(cases(name, input), quantized(input)[name], strict=True):
        assert given == record, group


@pytest.mark.parametrize("input", [quick(input=input) for input in FLOATS])
def test_groups_without_metadata(input):
    # Elements and scales are the same in every case.
    for name in GROUPS:
        for (group, (elements, _, scale)), given in zip(
                cases(name, input), quantized(input, metadata=False)[name], strict=True):
            assert given == (elements, scale), group


# Bounds on amax = m * 2**9, where floor gives X = 134: (m - 1) * 2**23 and what is added.
BOUNDS = {
    "floor": [(0, 0), (0x7FFFFF, 0)],
    "ceil": [(0, 0), (0x400000, 0), (0x400001, 1), (0x7FFFFF, 1)],
    # 1.5 / sqrt(2) - 1 = 508854.4 * 2**-23
    "rtn1": [(0, -1), (508854, -1), (508855, 0), (0x7FFFFF, 0)],
    # sqrt(2) - 1 = 3474675.5 * 2**-23
    "rtn2": [(0, 0), (3474675, 0), (3474676, 1), (0x7FFFFF, 1)],
}


@pytest.mark.long
@pytest.mark.parametrize("rule, input", [(rule, input) for rule in BOUNDS for input in FLOATS])
def test_without_metadata_at_random(rule, input):
    inputs = stimuli.quantization_engine(np.random.default_rng(7), 60, input=input, rule=rule,
                                         metadata=False, depth=2)
    with_metadata = sim.run(QuantizationEngine(input=input, rule=rule), inputs)["o"]
    del with_metadata["metadata"]
    check(shared(QuantizationEngine, input=input, rule=rule, metadata=False), inputs,
          {"o": with_metadata}, stalls=0.3)


@pytest.mark.parametrize("rule", BOUNDS)
def test_bounds_of_scale_rules(rule):
    # The largest magnitude decides, wherever it is, not one with more mantissa.
    amax, scales = [], []
    for mantissa, added in BOUNDS[rule]:
        amax.append((136 << 23) + mantissa)
        scales.append(134 + added)
        # At the lower end the scale stops at 0.
        for exponent in range(4):
            amax.append((exponent << 23) + mantissa)
            scales.append(max(exponent - 2 + added, 0))
    # A subnormal's significand is not below its bits: X is 0 whatever is added.
    groups = np.zeros((len(amax), 32), np.uint32)
    groups[np.arange(len(amax)), np.arange(len(amax)) % 32] = amax
    groups[:, 31] |= np.where(np.array(amax) > 0x03FFFFFF, 0x3FFFFFFF, 0).astype(np.uint32)
    quantized = [encode_activations(group, rule=rule)
                 for group in groups.view(np.float32).astype(float).tolist()]
    assert [scale for *_, scale in quantized] == scales
    check_oracle(groups, input="float32", rule=rule)


@pytest.mark.parametrize("input", ["bfloat16", "float16"])
def test_scale_rule_of_narrow_inputs(input):
    # 128 mantissas at a moderate, the lowest and subnormal exponents.
    mantissa = {"bfloat16": 7, "float16": 10}[input]
    tops = np.concatenate([np.arange(0, 3 << mantissa, 6 << mantissa - 7, np.uint16),
                           np.arange(20 << mantissa, 21 << mantissa, 2 << mantissa - 7, np.uint16)])
    groups = np.zeros((len(tops), 32), np.uint16)
    groups[:, 5] = tops | 0x8000
    check_oracle(groups, input=input, rule="ceil")


@pytest.mark.parametrize("step", [29, longer(7)])
def test_float16_is_widened_exactly(step):
    # Every subnormal, the first normals, and some of the others: 32 neighbours a group.
    others = np.arange(0x800, 0x7C00, step)
    magnitudes = np.concatenate([np.arange(0x800), others[: len(others) // 32 * 32]])
    magnitudes = magnitudes.astype(np.uint16).reshape(-1, 32)
    # With the rule of the test above, so that both share a simulator.
    check_oracle(magnitudes | (magnitudes & 1) << 15, input="float16", rule="ceil")


@pytest.mark.parametrize("stalls", [0, 0.5])
def test_fields_of_one_record_stay_together(stalls):
    # The same values at several scales, then several values, NaN groups between them.
    groups, records = [], []
    for i in range(24):
        meta, value = [(0, 3.75), (1, 4.0), (2, 4.5)][i % 3]
        groups.append(np.ldexp(subgroups([value], [], [], [4]), i % 4).tolist())
        records.append((subgroups([6], [], [], [6]), [meta, 1, 1, 1], 127 + i % 4))
        if i % 5 == 0:
            groups.append([NAN] * 32)
            records.append(([0] * 32, [0] * 4, 255))
    check_records(groups, records, stalls=stalls)


@pytest.mark.parametrize("rule", ["floor", longer("rtn1")])
def test_subnormals_beside_normal_values(rule):
    """Each exponent at the lower end as the largest one, beside all that are not above it."""
    groups = []
    for largest in range(1, 13):
        values = [exponent << 23 | mantissa for exponent in range(largest + 1)
                  for mantissa in (1, 1 << 20, 3 << 20, 5 << 20, (1 << 23) - 1)]
        # Top-1s of their own subgroups, and many together.
        for start in range(0, len(values), 3):
            groups.append(np.zeros(32, np.uint32))
            groups[-1][[0, 8, 16, 24]] = [largest << 23, *(values[start:] + values)[:3]]
        for start in range(0, len(values), 31):
            groups.append(np.array([largest << 23, *(values[start:] * 31)[:31]], np.uint32))
    check_oracle(np.array(groups), input="float32", rule=rule)
