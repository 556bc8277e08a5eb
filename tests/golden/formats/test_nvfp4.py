import ml_dtypes
import numpy as np
import pytest
from gfloat import RoundMode, round_float
from gfloat.formats import format_info_ocp_e2m1, format_info_ocp_e4m3

from golden import stimuli
from golden.formats.nvfp4 import (
    E4M3_VALUES,
    SCALE_NAN,
    TENSOR_SCALE_MIN,
    dequantize_nvfp4,
    nvfp4_tile,
    quantize_nvfp4,
    tensor_scale_of,
)
from tests.support import oracle

ONE = np.float32(1)
TYPES = [np.float32, np.float16, ml_dtypes.bfloat16]


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


def test_against_oracle():
    i = stimuli.nvfp4_quantizer(np.random.default_rng(0), 2000)["i"]
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


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_not_finite(special, dtype):
    x = np.full((1, 48), 6, dtype)
    x[0, 21] = special
    q = quantize_nvfp4(x, ONE)
    assert q.scales.tolist() == [[0x38, SCALE_NAN, 0x38]]
    assert q.elements[0].tolist() == [7] * 16 + [0] * 16 + [7] * 16
    back = dequantize_nvfp4(q).view(np.uint32)
    assert (back[0, 16:32] == oracle.NAN).all()
    assert (back[0, :16] == np.float32(6).view(np.uint32)).all()
    assert tensor_scale_of(x) == np.float32(6 / 2688)


def test_tensor_scale():
    assert tensor_scale_of(np.array([1, -2688], np.float32)) == 1
    assert tensor_scale_of(np.array([3], np.float16)) == np.float32(3 / 2688)
    for nothing in (np.zeros(5, np.float32), np.full(5, np.nan, np.float32)):
        assert tensor_scale_of(nothing) == TENSOR_SCALE_MIN
    # The largest group's scale is 448, up to the tensor scale's rounding.
    x = np.random.default_rng(2).standard_normal((8, 64)).astype(np.float32)
    assert quantize_nvfp4(x, tensor_scale_of(x)).scales.max() == 0x7E


def test_round_trip():
    x = np.random.default_rng(3).standard_normal((5, 40)).astype(np.float32)
    q = quantize_nvfp4(x, tensor_scale_of(x))
    assert (q.shape, q.elements.shape, q.scales.shape) == ((5, 40), (5, 48), (5, 3))
    back = dequantize_nvfp4(q)
    assert back.shape == x.shape
    values = q.elements.view(ml_dtypes.float4_e2m1fn).astype(float)
    values *= q.scales.view(ml_dtypes.float8_e4m3fn).astype(float).repeat(16, axis=-1)
    expected = (values * float(q.tensor_scale)).astype(np.float32)[:, :40]
    assert back.tobytes() == expected.tobytes()
    # Half a step of the coarsest binade, and what the scale's rounding makes saturate.
    largest = np.abs(np.pad(x, ((0, 0), (0, 8)))).reshape(5, 3, 16).max(-1).repeat(16, -1)[:, :40]
    assert (np.abs(back - x) <= largest * 0.19).all()


def test_tile_against_values():
    i = stimuli.nvfp4_pe_tile(np.random.default_rng(4), 500, lanes=16)
    total, shift, nan = nvfp4_tile(i["activations"], i["weights"], i["activation_scale"],
                                   i["weight_scale"])
    x, w = (i[name].view(ml_dtypes.float4_e2m1fn).astype(float)
            for name in ("activations", "weights"))
    scale = np.prod([i[name].view(ml_dtypes.float8_e4m3fn).astype(float)
                     for name in ("activation_scale", "weight_scale")], axis=0)
    assert np.array_equal(nan, np.isnan(scale))
    assert 0 < nan.sum() < 500
    value = np.ldexp(total.astype(float), shift.astype(int) - 20)
    assert np.array_equal(value[~nan], ((x * w).sum(-1) * scale)[~nan])
    assert np.abs(total).max() <= 518400


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
