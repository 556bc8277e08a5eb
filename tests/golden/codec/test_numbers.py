# SPDX-License-Identifier: BSD-2-Clause
"""Codes, rounding and scale rules against gfloat, ml_dtypes and exact arithmetic."""

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from gfloat import RoundMode, decode_float, round_ndarray
from gfloat.formats import (
    format_info_binary32,
    format_info_ocp_e2m1,
    format_info_ocp_e2m3,
    format_info_ocp_e8m0,
)

from golden.codec import numbers
from golden.codec.quantized import Quantized
from golden.units.decoder import dequantize
from tests.support import oracle

MAGNITUDES = [(1, format_info_ocp_e2m1, ml_dtypes.float4_e2m1fn),
              (3, format_info_ocp_e2m3, ml_dtypes.float6_e2m3fn)]


def bits(x):
    return np.asarray(x, np.float32).view(np.uint32)


def test_e2m1_codes():
    codes = np.arange(16, dtype=np.uint8)
    integers = numbers.e2m1_integers(codes)
    assert integers.dtype == np.int8
    others = [decode_float(format_info_ocp_e2m1, c).fval for c in codes.tolist()]
    assert (integers / 2).tolist() == others
    assert (integers / 2).tolist() == codes.view(ml_dtypes.float4_e2m1fn).astype(float).tolist()


def test_e2m3_codes():
    codes = np.arange(32, dtype=np.uint8)
    integers = numbers.e2m3_integers(codes)
    assert integers.dtype == np.int8
    others = [decode_float(format_info_ocp_e2m3, c).fval for c in codes.tolist()]
    assert (integers / 8).tolist() == others
    assert (integers / 8).tolist() == codes.view(ml_dtypes.float6_e2m3fn).astype(float).tolist()


def test_e2m1_code_is_four_times_as_much_in_e2m3():
    codes = np.arange(8)
    assert np.array_equal(4 * numbers.e2m1_integers(codes), numbers.e2m3_integers(4 * codes))


@pytest.mark.parametrize("kind, meta", [("activation", 1), ("weight", 0)])
def test_e8m0_codes(kind, meta):
    codes = np.arange(256, dtype=np.uint8)
    # Metadata that leaves ones as they are: a decoded one is the scale itself.
    ones = Quantized(kind=kind, shape=(256, 32), elements=np.full((256, 32), 2, np.uint8),
                     metadata=np.full((256, 4), meta, np.uint8), scales=codes[:, None])
    scales = dequantize(ones)[:, 0]
    others = [decode_float(format_info_ocp_e8m0, c).fval for c in codes.tolist()]
    assert bits(scales).tolist() == bits(others).tolist()
    theirs = codes.view(ml_dtypes.float8_e8m0fnu).astype(np.float32)
    assert bits(scales).tolist() == bits(theirs).tolist()


def every_float16():
    every = np.arange(0x7C00, dtype=np.uint16).view(np.float16)
    return every.astype(np.float32)


def million_float32():
    rng = np.random.default_rng(0)
    anything = rng.integers(0, 0x7F800000, 400_000, np.uint32)
    in_range = rng.integers(*bits([2.0**-6, 16]), 400_000, np.uint32)
    # Within two units in the last place of the ties: multiples of 1/32.
    ties = bits(rng.integers(1, 257, 200_000) / 32) + rng.integers(-2, 3, 200_000, np.int32)
    return np.concatenate([anything, in_range, ties.astype(np.uint32)]).view(np.float32)


@pytest.mark.parametrize("magnitudes", [every_float16, million_float32])
@pytest.mark.parametrize("mantissa, info, dtype", MAGNITUDES)
def test_rounding_is_that_of_ml_dtypes_and_gfloat(mantissa, info, dtype, magnitudes):
    v = magnitudes()
    codes = numbers.round_magnitude(v.astype(np.float64), mantissa)
    assert codes.dtype == np.uint8
    theirs = v.astype(dtype)
    wrong = np.flatnonzero(codes != theirs.view(np.uint8))
    assert wrong.size == 0, (v[wrong[:4]], codes[wrong[:4]], theirs[wrong[:4]])
    # gfloat returns values; float64 keeps its significands exact.
    rounded = round_ndarray(info, v.astype(np.float64), RoundMode.TiesToEven, sat=True)
    values = codes.view(dtype).astype(np.float64)
    wrong = np.flatnonzero(values != rounded)
    assert wrong.size == 0, (v[wrong[:4]], values[wrong[:4]], rounded[wrong[:4]])


@pytest.mark.parametrize("mantissa, values, unit", [
    (1, oracle.E2M1_HALVES, 0.5), (3, oracle.E2M3_EIGHTHS, 0.125)])
def test_rounding_of_float64_ties(mantissa, values, unit):
    # Ties and their float64 neighbours: nothing narrows them before they are rounded.
    ties = unit * (np.array(values[1:]) + values[:-1]) / 2
    lower = np.arange(len(ties))
    assert numbers.round_magnitude(ties, mantissa).tolist() == (lower + lower % 2).tolist()
    below, above = np.nextafter(ties, 0), np.nextafter(ties, np.inf)
    assert numbers.round_magnitude(below, mantissa).tolist() == lower.tolist()
    assert numbers.round_magnitude(above, mantissa).tolist() == (lower + 1).tolist()


@pytest.mark.parametrize("rule", numbers.RULES)
def test_scale_codes(rule):
    # Around every threshold of section 5 and at both ends, under every exponent.
    thresholds = [int(m * 2**23) - 2**23 for m in (1, 1.5 / 2**0.5, 2**0.5, 1.5, 2)]
    mantissas = sorted({t + d for t in thresholds for d in (-2, -1, 0, 1, 2)
                        if 0 <= t + d < 2**23})
    magnitudes = np.array([e << 23 | m for e in range(255) for m in mantissas], np.uint32)
    codes = numbers.scale_codes(magnitudes, rule)
    for pattern, code in zip(magnitudes.tolist(), codes.tolist(), strict=True):
        assert code == oracle.scale_code([float(oracle.fraction(pattern))], rule), hex(pattern)


@pytest.mark.parametrize("value, rule, code", [
    (6.0, "floor", 127), (7.99, "floor", 127), (8.0, "floor", 128), (0.0, "floor", 0),
    (2.0**-126, "floor", 0), (2.0**-149, "floor", 0), (2.0**-124, "floor", 1),
    (3.4028234663852886e38, "floor", 252), (3.4028234663852886e38, "ceil", 253),
    (6.0, "ceil", 127), (6.1, "ceil", 128), (4.2, "rtn1", 126), (4.3, "rtn1", 127),
    (5.6, "rtn2", 127), (5.7, "rtn2", 128),
])
def test_scale_codes_by_hand(value, rule, code):
    assert numbers.scale_codes(bits([value]), rule).tolist() == [code]
    assert oracle.scale_code([value], rule) == code


def test_oracle_rounds_to_float32_as_others():
    rng = np.random.default_rng(1)
    values = np.concatenate([
        np.ldexp(rng.standard_normal(2000), rng.integers(-152, 130, 2000)),
        [0.0, 1 + 2.0**-24, 1 + 3 * 2.0**-24, 2.0**-150, 3 * 2.0**-150, 2.0**-151,
         2.0**-126 - 2.0**-150, 2.0**128 - 2.0**103, np.nextafter(2.0**128 - 2.0**103, 0), 2.0**200,
         2 - 2.0**-24, -(2.0**-150)]])
    with np.errstate(over="ignore"):
        casts = values.astype(np.float32)
    gfloats = round_ndarray(format_info_binary32, values, RoundMode.TiesToEven)
    for value, cast, other in zip(values.tolist(), bits(casts).tolist(), bits(gfloats).tolist(),
                                  strict=True):
        # The fraction of a negative value that rounds to zero keeps its sign.
        assert oracle.float32(Fraction(value)) == cast == other, value


@pytest.mark.parametrize("group, subgroup, message", [
    (64, 8, r"group must be one of \(16, 32\), not 64"),
    ("32", 8, r"group must be one of \(16, 32\), not '32'"),
    (32, 2, r"subgroup must be one of \(4, 8, 16, 32\), not 2"),
    (16, 32, "subgroup must divide group 16, not 32"),
])
def test_wrong_sizes(group, subgroup, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        numbers.check_sizes(group, subgroup)


@pytest.mark.parametrize("group, subgroup", [(g, s) for g in (16, 32) for s in (4, 8, 16, 32)
                                             if s <= g])
def test_offered_sizes(group, subgroup):
    assert numbers.check_sizes(group, subgroup) is None


@pytest.mark.parametrize("x, kind", [
    ([1.0], "list"), (1.0, "float"), (None, "NoneType"), (np.float32(1), "float32"),
    (np.zeros(4), "float64"), (np.zeros(4, np.int32), "int32"), (np.zeros(4, bool), "bool"),
    (np.zeros(4, ml_dtypes.float8_e4m3fn), "float8_e4m3fn"),
])
def test_wrong_type(x, kind):
    with pytest.raises(TypeError, match="^it must be a NumPy array of one of float32, float16, "
                                        f"bfloat16, not {kind}$"):
        numbers.groups_of(x, "it", 32)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (0, 3)])
def test_wrong_shape(shape):
    with pytest.raises(ValueError) as error:
        numbers.groups_of(np.zeros(shape, np.float32), "it", 32)
    assert str(error.value) == f"it must have at least one axis and one element, not shape {shape}"


def test_groups_are_padded_with_positive_zeros():
    x = np.arange(-70, 0, dtype=np.float16).reshape(2, 35)
    groups = numbers.groups_of(x, "x", 16)
    assert groups.dtype == np.float32
    assert groups.shape == (2, 3, 16)
    assert np.array_equal(groups.reshape(2, 48)[:, :35], x)
    assert not bits(groups.reshape(2, 48)[:, 35:]).any()
