# SPDX-License-Identifier: BSD-2-Clause
"""The reference of the NVFP4 quantizer against an oracle, gfloat and worked-out codes."""

import ml_dtypes
import numpy as np
import pytest
from gfloat import RoundMode, round_float
from gfloat.formats import format_info_ocp_e2m1, format_info_ocp_e4m3

from golden import stimuli
from golden.units.nvfp4_quantizer import E4M3_VALUES, quantize_nvfp4
from tests.support import oracle
from tests.support.marks import longer

ONE = np.float32(1)


def quantized(group, tensor_scale=ONE):
    """Elements and scale of one group, filled up with +0."""
    x = np.array([[*group, *[0] * (16 - len(group))]], np.float32)
    q = quantize_nvfp4(x, tensor_scale)
    return q.elements[0].tolist(), int(q.scales[0, 0])


def pad(*codes):
    return [*codes] + [0] * (16 - len(codes))


def test_scales_are_e4m3():
    codes = np.arange(127, dtype=np.uint8)
    assert E4M3_VALUES.tolist() == codes.view(ml_dtypes.float8_e4m3fn).astype(float).tolist()


@pytest.mark.parametrize("count", [800, longer(2000)])
def test_against_oracle(count):
    i = stimuli.nvfp4_quantizer(np.random.default_rng(0), count)["i"]
    x, tensor_scale = i["values"].view(np.float32), i["tensor_scale"].view(np.float32)
    q = quantize_nvfp4(x, tensor_scale[:, None])
    with np.errstate(invalid="ignore"):  # Signalling NaN.
        rows = zip(x.astype(float).tolist(), tensor_scale.astype(float).tolist(),
                   q.elements.tolist(), q.scales[:, 0].tolist(), strict=True)
    for group, unit, elements, scale in rows:
        assert (elements, scale) == oracle.encode_nvfp4(group, unit), (group, unit)
    # All codes occur, and all kinds of scales.
    assert len(np.unique(q.elements)) == 16
    assert len(np.unique(q.scales)) > 100


def test_against_gfloat():
    # Quotients are exact in float64: largest magnitudes are multiples of 3 under powers of two.
    rng = np.random.default_rng(1)
    for _ in range(300):
        unit = np.float32(2.0 ** rng.integers(-100, 100))
        x = np.round(rng.standard_normal(16) * 2.0 ** rng.integers(0, 12))
        x[rng.integers(16)] = 3 * np.abs(x).max()
        x = np.ldexp(x.astype(np.float32), int(np.log2(unit)) - 4)
        q = quantize_nvfp4(x, unit)
        scale = round_float(format_info_ocp_e4m3, float(np.abs(x).max()) / 6 / float(unit),
                            RoundMode.TiesToEven, sat=True)
        assert E4M3_VALUES[q.scales[0]] == scale
        if scale:
            # E4M3's significand has four bits: these are not exact, but no tie or near one.
            values = [round_float(format_info_ocp_e2m1, float(v) / (scale * float(unit)),
                                  RoundMode.TiesToEven, sat=True) for v in x]
            assert q.elements.view(ml_dtypes.float4_e2m1fn).astype(float).tolist() == values


@pytest.mark.parametrize("largest, scale", [
    # In units of 6: normal, with ties to the even code, and saturation.
    (1, 0x38), (1.0625, 0x38), (1.0626, 0x39), (1.1875, 0x3A), (1.1874, 0x39), (1.9375, 0x40),
    (1.9374, 0x3F), (448, 0x7E), (432, 0x7E), (431.9, 0x7D), (464, 0x7E), (465, 0x7E),
    (2.0**100, 0x7E),
    # Subnormal.
    (2**-6, 8), (7 * 2**-9, 7), (7.5 * 2**-9, 8), (7.49 * 2**-9, 7), (6.5 * 2**-9, 6),
    (5.5 * 2**-9, 6), (3 * 2**-9, 3), (2.5 * 2**-9, 2), (1.5 * 2**-9, 2), (1.49 * 2**-9, 1),
    (2**-9, 1), (2**-10, 0), (1.001 * 2**-10, 1), (2.0**-30, 0), (2.0**-149 / 6, 0), (0, 0),
])
@pytest.mark.parametrize("unit", [1.0, 1.25, 1.5, 2.0**-9])
def test_scale(largest, scale, unit):
    # The product is exact but for the values with many digits, which are no ties.
    assert quantized([-6 * largest * unit], np.float32(unit))[1] == scale


@pytest.mark.parametrize("unit", [1.0, 2.0**-115, 2.0**120])
def test_ties_of_elements(unit):
    x = np.ldexp([6, 0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5, -0.25, -5, -0.0], int(np.log2(unit)))
    assert quantized(x, np.float32(unit)) == (
        pad(7, 0, 2, 2, 4, 4, 6, 6, 8, 14, 8), 0x38)
    below, above = (np.nextafter(x.astype(np.float32), np.float32(end)) for end in (0, np.inf))
    assert quantized([6 * unit, *below[1:8]], np.float32(unit)) == (
        pad(7, 0, 1, 2, 3, 4, 5, 6), 0x38)
    assert quantized([6 * unit, *above[1:8]], np.float32(unit)) == (
        pad(7, 1, 2, 3, 4, 5, 6, 7), 0x38)


@pytest.mark.parametrize("group, unit, record", [
    pytest.param([], 1, (pad(), 0), id="zeros"),
    pytest.param([-0.0, 0], 1, (pad(), 0), id="zeros are positive under scale 0"),
    pytest.param([-(2.0**-9), 2.0**-9], 1, (pad(), 0), id="rounds to scale 0"),
    pytest.param([-6, -0.0], 1, (pad(15, 8), 0x38), id="-0 stays"),
    pytest.param([5000, -2700, 448], 1, (pad(7, 15, 2), 0x7E), id="saturates"),
    pytest.param([8.99 * 2**-9, -1 * 2**-9], 1, (pad(7, 10), 1), id="saturates at scale 1"),
    pytest.param([2.0**-149], 2.0**-115, (pad(), 0), id="subnormal"),
    pytest.param([6 * 2.0**-124, 2.0**-126, -(2.0**-126) - 2.0**-149], 2.0**-115,
                 (pad(7, 0, 9), 1), id="least step"),
    pytest.param([1], 2.0**-116, (pad(), 0x7F), id="tensor scale too small"),
    pytest.param([1], 0, (pad(), 0x7F), id="tensor scale 0"),
    pytest.param([1], -1, (pad(), 0x7F), id="tensor scale negative"),
    pytest.param([1], np.inf, (pad(), 0x7F), id="tensor scale infinite"),
    pytest.param([1], np.nan, (pad(), 0x7F), id="tensor scale NaN"),
])
def test_directed(group, unit, record):
    assert quantized(group, np.float32(unit)) == record


@pytest.mark.parametrize("x, scale, error, message", [
    ([1.0], ONE, TypeError, "x must be a NumPy array of one of float32, float16, bfloat16, "
                            "not list"),
    (np.zeros((1, 0), np.float32), ONE, ValueError,
     "x must have at least one axis and one element, not shape (1, 0)"),
    (np.zeros(16, np.float32), 1.0, TypeError, "tensor_scale must be float32, not float"),
    (np.zeros(16, np.float32), np.float64(1), TypeError,
     "tensor_scale must be float32, not float64"),
])
def test_wrong_input(x, scale, error, message):
    with pytest.raises(error) as raised:
        quantize_nvfp4(x, scale)
    assert str(raised.value) == message
