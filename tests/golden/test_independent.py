# SPDX-License-Identifier: BSD-2-Clause
"""Formats against torchao, fouroversix and TOSA's reference model, where those are installed.

Last compared with torchao 0.18.0, compressed-tensors 0.20.1, fouroversix 1.0.5 and tosa-tools
2026.8.0, on torch 2.13.0:

    pip install torchao compressed-tensors tosa-tools
    SKIP_CUDA_BUILD=1 pip install --no-deps --no-build-isolation fouroversix

Bits are compared, without tolerance. Inputs that the other side treats otherwise by definition, and
those where its float32 arithmetic may leave the side of a decision point that the exact quotient is
on, are left out; each test says which.
"""

import importlib
import warnings
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest

from golden.formats.catalogue import FORMATS
from tests.support import oracle

MX = {
    "MXFP4": ml_dtypes.float4_e2m1fn, "MXFP6 E2M3": ml_dtypes.float6_e2m3fn,
    "MXFP6 E3M2": ml_dtypes.float6_e3m2fn, "MXFP8 E4M3": ml_dtypes.float8_e4m3fn,
    "MXFP8 E5M2": ml_dtypes.float8_e5m2,
}


def magnitudes(dtype):
    """Finite values of all codes without sign, by rising code."""
    bits = ml_dtypes.finfo(dtype).bits
    values = np.arange(2 ** (bits - 1), dtype=np.uint8).view(dtype).astype(np.float64)
    return values[np.isfinite(values)]


def decisions(values):
    return (values[:-1] + values[1:]) / 2


E2M1 = magnitudes(ml_dtypes.float4_e2m1fn)
E4M3 = magnitudes(ml_dtypes.float8_e4m3fn)
INT4 = np.arange(8.0)
MX_VALUES = {name: magnitudes(dtype) for name, dtype in MX.items()}
MX_VALUES["MXINT8"] = np.arange(128) / 64


def internals(package, names):
    """What is named "module:attribute"; skips where there is no package or no such thing in it."""
    pytest.importorskip(package, reason=f"needs the package {package}")
    found = SimpleNamespace()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in names:
                module, attribute = name.split(":")
                setattr(found, attribute, getattr(importlib.import_module(module), attribute))
    except (ImportError, AttributeError) as error:
        pytest.skip(f"{package} has moved what is compared: {error}")
    return found


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="needs torch")


@pytest.fixture(scope="module")
def torchao():
    formats = "torchao.prototype.mx_formats."
    return internals("torchao", [formats + name for name in (
        "mx_tensor:to_mx", "nvfp4_tensor:nvfp4_quantize", "config:ScaleCalculationMode",
        "constants:DTYPE_FP6_E2M3", "constants:DTYPE_FP6_E3M2")])


@pytest.fixture(scope="module")
def fouroversix():
    return internals("fouroversix", [
        "fouroversix.quantize.pytorch.reference:quantize_to_fp4", "fouroversix.utils:DataType",
        "fouroversix.utils:ScaleRule"])


@pytest.fixture(scope="module")
def tosa():
    return internals("tosa_reference_model", [
        "tosa_reference_model:run", "tosa_reference_model:GraphStatus", *(
            f"tosa_serializer:{name}" for name in (
                "TosaSerializer", "TosaSerializerAttribute", "BlockSize", "DType", "Op"))])


def octets(tensor, torch):
    return tensor.contiguous().view(torch.uint8).numpy()


def nibbles(packed, torch):
    """Codes of four bits, of which the first is the lower half of its byte."""
    packed = octets(packed, torch)
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(len(packed), -1)


def assert_same(x, ours, theirs, compared):
    """Codes, or scales of one group per row, where they are to be compared."""
    assert ours.shape == theirs.shape
    assert np.mean(np.broadcast_to(compared, ours.shape)) > 0.5
    wrong = (ours != theirs) & compared
    for row in np.flatnonzero(wrong.any(axis=-1))[:1]:
        pytest.fail(f"{x[row].tolist()}: {ours[row].tolist()} here, {theirs[row].tolist()} there")


def near(quotients, values):
    """Whether quotients are within a part in 2**20 of a decision point, or on it.

    At most eight float32 roundings, which are those of both sides, move a quotient by half of it.
    """
    points = decisions(values)
    distance = np.abs(quotients[..., None] - points).min(axis=-1)
    return distance <= 2.0**-20 * quotients


def largest_of(x):
    return np.abs(x).max(axis=-1, keepdims=True).astype(np.float64)


def power_of_two(v):
    return np.frexp(v)[0] == 0.5


def at_all_decisions(values, size):
    """Groups under a scale of 1 with all decision points and their neighbours, of both signs."""
    points = decisions(values).astype(np.float32)
    points = np.concatenate([points, np.nextafter(points, np.float32(np.inf)),
                             np.nextafter(points, np.float32(0))])
    points = np.concatenate([points, -points])
    rest = np.resize(points, (-(-len(points) // (size - 1)), size - 1))
    return np.insert(rest, 0, np.float32(values[-1]), axis=1)


def mx_groups(name, count):
    rng = np.random.default_rng(1)
    tails = rng.standard_t(2, (count, 32)) * 2.0 ** rng.integers(-60, 61, (count, 1))
    at_decisions = at_all_decisions(MX_VALUES[name], 32)
    x = [oracle.hard_groups(rng, count, 32), tails, np.zeros((2, 32)) * [[1], [-1]],
         *(at_decisions * 2.0**e for e in (-100, -1, 0, 7, 100))]
    return np.concatenate(x).astype(np.float32)


def to_mx(x, name, rule, torchao, torch):
    dtype = {
        "MXFP4": "float4_e2m1fn_x2", "MXFP8 E4M3": "float8_e4m3fn", "MXFP8 E5M2": "float8_e5m2",
    }.get(name)
    if dtype is None:
        dtype = getattr(torchao, f"DTYPE_{name[2:].replace(' ', '_')}")
    else:
        dtype = getattr(torch, dtype)
    scales, codes = torchao.to_mx(torch.from_numpy(x), dtype, 32,
                                  getattr(torchao.ScaleCalculationMode, rule))
    return octets(scales, torch), (nibbles if name == "MXFP4" else octets)(codes, torch)


@pytest.mark.parametrize("name", MX)
def test_mx_against_torchao(name, torchao, torch):
    x = mx_groups(name, 8000)
    q = FORMATS[name].quantize(x)
    scales, codes = to_mx(x, name, "FLOOR", torchao, torch)
    assert_same(x, q.scales, scales, True)
    # Under a scale of 2**-127 torchao divides by 2**-126.
    assert_same(x, q.elements, codes, (q.scales > 0) | (x == 0))
    # NaN groups have the same scale; their elements are 0 here and anything there. A group with an
    # infinity, a NaN group here, has a number for a scale there.
    x[:, 5] = np.nan
    assert_same(x, FORMATS[name].quantize(x).scales,
                to_mx(x, name, "FLOOR", torchao, torch)[0], True)


def test_mxfp4_ceil_against_torchao(torchao, torch):
    x = mx_groups("MXFP4", 8000)
    q = FORMATS["MXFP4"].quantize(x, rule="ceil")
    scales, codes = to_mx(x, "MXFP4", "RCEIL", torchao, torch)
    # The logarithm there is a float32 of up to 7 bits before the point: a largest magnitude less
    # than a part in 2**18 above 1.5 times a power of two counts as if on it.
    significand = 2 * np.frexp(largest_of(x))[0]
    compared = (significand <= 1.5) | (significand > 1.5 * (1 + 2.0**-18))
    assert_same(x, q.scales, scales, compared)
    # What has a scale of 2**-127 is not scaled there.
    assert_same(x, q.elements, codes, compared & ((q.scales > 0) | (x == 0)))


@pytest.mark.parametrize("rule, theirs", [("even", "EVEN"), ("ceil-log2", "CEIL")])
@pytest.mark.parametrize("name", MX)
def test_other_rules_against_torchao(name, rule, theirs, torchao, torch):
    x = mx_groups(name, 4000)
    q = FORMATS[name].quantize(x, rule=rule)
    scales, codes = to_mx(x, name, theirs, torchao, torch)
    # A largest magnitude that is subnormal has the lowest scale here under every rule.
    assert_same(x, q.scales, scales, largest_of(x) >= 2.0**-126)
    assert_same(x, q.elements, codes, (q.scales > 0) | (x == 0))


@pytest.mark.parametrize("name", MX)
def test_ceil_of_all_formats_against_torchao(name, torchao, torch):
    x = mx_groups(name, 4000)
    q = FORMATS[name].quantize(x, rule="ceil")
    scales, codes = to_mx(x, name, "RCEIL", torchao, torch)
    # As for MXFP4 above; and the largest value over its binade is this.
    top = 2 * np.frexp(MX_VALUES[name][-1])[0]
    significand = 2 * np.frexp(largest_of(x))[0]
    compared = (significand <= top) | (significand > top * (1 + 2.0**-18))
    assert_same(x, q.scales, scales, compared)
    assert_same(x, q.elements, codes, compared & ((q.scales > 0) | (x == 0)))


@pytest.mark.parametrize("name, bits", [("MXFP4", 4), ("MXFP6 E2M3", 6), ("MXFP8 E4M3", 8)])
def test_rules_against_compressed_tensors(name, bits, torch):
    mxfp = internals("compressed_tensors", [
        "compressed_tensors.quantization.utils.mxfp_utils:generate_mx_scales"])
    x = mx_groups(name, 4000)
    # Beyond 2**127 their rounding gives an infinity.
    x = x[(largest_of(x)[:, 0] >= 2.0**-100) & (largest_of(x)[:, 0] < 2.0**127)]
    theirs = mxfp.generate_mx_scales(torch.from_numpy(largest_of(x).astype(np.float32)),
                                     num_bits=bits).numpy()
    # For E4M3 they round to the mantissa of E2M1, whose largest value over its binade is not 1.75.
    ours = FORMATS[name].quantize(x, rule="ceil" if bits == 8 else "even").scales
    higher = (bits == 8) & (2 * np.frexp(largest_of(x))[0] == 1.75)
    assert_same(x, (ours + higher).astype(np.float32), theirs, True)
    assert higher.any() == (bits == 8)


def test_mxfp4_ceil_against_fouroversix(fouroversix, torch):
    x = mx_groups("MXFP4", 8000)
    q = FORMATS["MXFP4"].quantize(x, rule="ceil")
    codes, scales, _ = fouroversix.quantize_to_fp4(
        torch.from_numpy(x), fp4_format=fouroversix.DataType.mxfp4,
        scale_rule=fouroversix.ScaleRule.static_6, use_blackwell_scale_layout=False)
    # There zeros are divided by zero, and the least scale of others is 2**-126.
    compared = q.scales > 0
    assert_same(x, q.scales, octets(scales, torch)[:, None], compared)
    # There a zero has no sign.
    assert_same(x, q.elements, nibbles(codes, torch), compared & (x != 0))


def from_tosa(x, name, tosa):
    """Values of a tensor cast there to a format and back."""
    dtype = {"MXFP4": "FP4E2M1", "MXINT8": name}.get(name, name[2:].replace(" ", ""))
    graph = tosa.TosaSerializer("")
    i = graph.addPlaceholder(x.shape, tosa.DType.FP32, None)
    o = graph.addOutput(x.shape, tosa.DType.FP32)
    blocks = [graph.addIntermediate(x.shape, getattr(tosa.DType, dtype)).name,
              graph.addIntermediate([len(x), x.shape[1] // 32], tosa.DType.FP8UE8M0).name]
    to, back = tosa.TosaSerializerAttribute(), tosa.TosaSerializerAttribute()
    to.CastToBlockScaledAttribute(tosa.BlockSize.BLOCK_SIZE_32)
    back.CastFromBlockScaledAttribute(tosa.BlockSize.BLOCK_SIZE_32)
    graph.addOperator(tosa.Op.CAST_TO_BLOCK_SCALED, [i.name], blocks, to)
    graph.addOperator(tosa.Op.CAST_FROM_BLOCK_SCALED, blocks, [o.name], back)
    (values,), status = tosa.run(bytes(graph.serialize()), [x])
    assert status == tosa.GraphStatus.TOSA_VALID
    return values.reshape(x.shape)


@pytest.mark.parametrize("name", MX_VALUES)
def test_mx_against_tosa(name, tosa):
    x = mx_groups(name, 8000)
    # There a largest magnitude that would be rounded past the largest element has the next scale.
    lower, upper = MX_VALUES[name][-2:]
    scales = FORMATS[name].quantize(x).scales.astype(np.float64)
    compared = largest_of(x) < (upper + (upper - lower) / 2) * np.exp2(scales - 127)
    ours = FORMATS[name].round_trip(x)
    assert_same(x, ours.view(np.uint32), from_tosa(x, name, tosa).view(np.uint32), compared)
    x[::2, 5] = np.nan
    assert_same(x, np.isnan(FORMATS[name].round_trip(x)), np.isnan(from_tosa(x, name, tosa)), True)


def nv_groups(tensor_scale, tops=(6,), most=448, count=4000):
    """Groups of 16 with all scales up to ``most``, and at all decision points of E2M1."""
    rng = np.random.default_rng(2)
    exponents = rng.integers(-14, 10, (count, 1))
    x = [rng.standard_t(2, (count, 16)) * 2.0**exponents, np.zeros((1, 16))]
    x += [at_all_decisions(E2M1, 16) * 2.0**k for k in range(-6, 9)]
    # Largest magnitudes at all decision points of scales, and beside them.
    largest = np.outer(tops, decisions(E4M3[E4M3 <= most])).ravel()
    largest = np.concatenate([largest, np.nextafter(largest.astype(np.float32), np.float32(0))])
    x.append(largest[:, None] * np.insert(rng.uniform(-1, 1, (len(largest), 15)), 0, 1, axis=1))
    return (np.concatenate(x) * tensor_scale).astype(np.float32)


def quotients_of(x, steps):
    return np.divide(np.abs(x), steps, out=np.zeros(x.shape), where=steps > 0)


@pytest.mark.parametrize("tensor_scale", [1.0, 2.0**-30, 2.0**20, 0.3, 1 / 2688, 777.7])
def test_nvfp4_against_torchao(tensor_scale, torchao, torch):
    t = np.float32(tensor_scale)
    x = nv_groups(t)
    q = FORMATS["NVFP4"].quantize(x, tensor_scale=t)
    scales, codes = torchao.nvfp4_quantize(torch.from_numpy(x), 16, torch.tensor(t))
    t = np.float64(t)
    # The smallest scale there is 2**-6. Its quotient by the tensor scale is rounded twice.
    compared = (q.scales >= 8) & (power_of_two(t) | ~near(largest_of(x) / (6 * t), E4M3))
    assert_same(x, q.scales, octets(scales, torch), compared)
    assert len(np.unique(q.scales[compared])) == 0x7F - 8
    # Elements are multiplied by a reciprocal, which is exact for powers of two.
    steps = E4M3[q.scales] * t
    compared = compared & (power_of_two(steps) | ~near(quotients_of(x, steps), E2M1))
    assert_same(x, q.elements, nibbles(codes, torch), compared)


NV = {"NVFP4": (6, 448), "NVFP4 four-over-six": (6, 256), "IF4": (6, 448), "NVINT4": (7, 448)}
"""Largest element and largest scale under a tensor scale that belongs to the tensor."""


def of_fouroversix(x, name, amax, fouroversix, torch):
    dtype = {"NVFP4 four-over-six": "nvfp4"}.get(name, name.lower())
    rule = "mse" if name in ("NVFP4 four-over-six", "IF4") else "static_6"
    codes, scales, _ = fouroversix.quantize_to_fp4(
        torch.from_numpy(x), None if amax is None else torch.tensor(np.float32(amax)),
        fp4_format=getattr(fouroversix.DataType, dtype),
        scale_rule=getattr(fouroversix.ScaleRule, rule), use_blackwell_scale_layout=False)
    return octets(scales, torch)[:, None], nibbles(codes, torch)


def values_at(x, steps, values):
    """Magnitudes after rounding under steps, of which a tie may go either way."""
    codes = np.searchsorted(decisions(values), quotients_of(x, steps))
    return steps * values[codes]


def is_decided(x, candidates):
    """Whether of two candidates the same one is better by errors that float32 has rounded."""
    difference = slack = 0
    for sign, values in zip((1, -1), candidates, strict=True):
        error = np.abs(np.abs(x) - values)
        difference = difference + sign * (error**2).sum(axis=-1, keepdims=True)
        # A value there is off by a few parts in 2**24, one that is rounded to a wrong side by what
        # `near` allows, and the sum by less than that.
        slack = slack + (2.0**-17 * error * (error + values)
                         + 2.0**-40 * values**2).sum(axis=-1, keepdims=True)
    return np.abs(difference) >= slack


@pytest.mark.parametrize("tensor_scale", [1.0, 2.0**-30, 2.0**20, None])
@pytest.mark.parametrize("name", NV)
def test_nv_against_fouroversix(name, tensor_scale, fouroversix, torch):
    top, most = NV[name]
    # Powers of two are exact there, too. What a tensor itself gives is a float32 on both sides, of
    # which one is rounded as a reciprocal.
    exact = tensor_scale is not None
    t = np.float32(tensor_scale if exact else 0.3)
    x = nv_groups(t, (top, 4), most)
    x = np.clip(x, -top * most * t, top * most * t)
    q = FORMATS[name].quantize(x, **({"tensor_scale": t} if exact else {}))
    scales, codes = of_fouroversix(x, name, top * most * t if exact else None, fouroversix, torch)

    t = np.float64(q.tensor_scale)
    largest = largest_of(x)
    compared = exact | ~near(largest / (top * t), E4M3)
    steps = (largest / (top * t)).astype(ml_dtypes.float8_e4m3fn).astype(np.float64) * t
    if top == 6:
        # What is at least 7 times its scale, which then is 2**-9 or 2**-8, overflows there.
        compared = compared & (quotients_of(largest, steps) < 7 * (1 - 2.0**-20))
    if name == "NVFP4 four-over-six":
        # The scale there is 1.5 times a rounded sixth: exact at decision points, which have few
        # bits, but not beside them.
        quarter = largest / (4 * t)
        compared &= (exact & np.isin(quarter, decisions(E4M3))) | ~near(quarter, E4M3)
        other = quarter.astype(ml_dtypes.float8_e4m3fn).astype(np.float64) * t
        tried = values_at(x, steps, E2M1), values_at(x, other, E2M1)
        # The same values have the same errors.
        same = (tried[0] == tried[1]).all(axis=-1, keepdims=True)
        compared &= same | is_decided(x, tried)
    elif name == "IF4":
        tried = values_at(x, steps, E2M1), values_at(x, steps * 6 / 7, INT4)
        compared &= (steps == 0) | is_decided(x, tried)
    assert_same(x, q.scales, scales, compared)

    steps = E4M3[q.scales & 127] * t
    away = (exact & power_of_two(steps)) | ~near(quotients_of(x, steps), E2M1)
    if name in ("IF4", "NVINT4"):
        integer = (q.scales >= 128) | (name == "NVINT4")
        factor = 7 / top
        whole = (exact & (factor == 1) & power_of_two(steps)) | \
            ~near(factor * quotients_of(x, steps), INT4)
        away = np.where(integer, whole, away)
    # There a zero has no sign.
    assert_same(x, q.elements, codes, compared & away & (x != 0))


def test_equal_errors_of_four_and_six_against_fouroversix(fouroversix, torch):
    # Under scales from 1 to 16, whole numbers have errors of multiples of 1/16 up to 16, and sums
    # of 16 squares 20 bits: all are exact there.
    rng = np.random.default_rng(3)
    x = np.round(rng.uniform(6, 65, (20000, 1)) * rng.uniform(-1, 1, (20000, 16)) ** 3)
    x = x[np.abs(x).max(axis=-1) >= 6].astype(np.float32)
    t = np.float32(1)
    q = FORMATS["NVFP4 four-over-six"].quantize(x, tensor_scale=t)
    scales, codes = of_fouroversix(x, "NVFP4 four-over-six", 6 * 256, fouroversix, torch)
    assert_same(x, q.scales, scales, True)
    away = power_of_two(E4M3[q.scales]) | ~near(quotients_of(x, E4M3[q.scales]), E2M1)
    # There a zero has no sign.
    assert_same(x, q.elements, codes, away & (x != 0))
