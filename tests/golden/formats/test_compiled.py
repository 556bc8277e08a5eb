# SPDX-License-Identifier: BSD-2-Clause
"""The formats in blocks, compiled or not, give the codes of their own encoders in NumPy."""

import dataclasses

import ml_dtypes
import numpy as np
import pytest

from golden.codec import blocked, kernel
from golden.formats import catalogue, minifloats
from golden.formats.catalogue import FORMATS
from golden.formats.razer import razer_weights
from golden.units.nvfp4_quantizer import TENSOR_SCALE_MIN
from tests.support import oracle

COMPILED = [name for name, form in FORMATS.items() if form.compiled]
# And those that have no part of the kernel: one of each kind.
BLOCKED = [*COMPILED, "HiF4", "M2-NVFP4 Sg-EM-4 adaptive", "Elem-EM-8 top-2", "Sg-EE-4 adaptive"]


@pytest.fixture(params=["compiled", "numpy"])
def way(request, monkeypatch):
    """Tensors of any size go through the kernel, or through NumPy."""
    if request.param == "compiled" and not kernel.compiler():
        pytest.skip("needs a C compiler")
    monkeypatch.setenv("M2XFP_NUMPY", "" if request.param == "compiled" else "1")
    monkeypatch.setattr(blocked, "COMPILED_FROM", 1)
    # Several blocks.
    for size in ("BLOCK", "COMPILED_BLOCK"):
        monkeypatch.setattr(blocked, size, 1024)
    return request.param


def hard(group, count, seed=0):
    """Groups around every decision, of any bits, of few bits, and special ones."""
    rng = np.random.default_rng(seed)
    shape = count, group
    special = np.zeros((6, group), np.float32)
    special[1], special[2, 3], special[3, 2] = -0.0, np.nan, -np.inf
    special[4], special[5, 1] = np.finfo(np.float32).max, 2.0**-149
    any_bits = rng.integers(0, 2**32, shape, np.uint32).view(np.float32)
    scaled = np.ldexp(rng.standard_normal(shape), rng.integers(-149, 127, (count, 1)))
    return np.concatenate([
        oracle.hard_groups(rng, count, group).astype(np.float32), special,
        (rng.standard_t(3, shape) * 2.0 ** rng.integers(-8, 9, (count, 1))).astype(np.float32),
        any_bits, (rng.integers(-32, 33, shape) / 8).astype(np.float32), scaled.astype(np.float32),
    ])


def assert_same(q, expected):
    for name in ("elements", "metadata", "scales"):
        ours, theirs = getattr(q, name), getattr(expected, name)
        assert (ours is None) == (theirs is None), name
        if ours is not None:
            assert ours.dtype == np.uint8 and ours.shape == theirs.shape
            wrong = np.argwhere(ours != theirs)[:1]
            assert not len(wrong), (name, wrong)
    assert q.shape == expected.shape and q.tensor_scale == expected.tensor_scale


def same_bits(a, b):
    return a.shape == b.shape and a.tobytes() == b.tobytes()


def scales_of(form):
    scales = [1.0, 2.0**-10 * 1.37, 2.0**-115, 2.0**100]
    return [{}, *({"tensor_scale": np.float32(s)} for s in scales if form.tensor_scale)]


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.parametrize("name", BLOCKED)
def test_codes_and_values(name, way):
    form = FORMATS[name]
    x = hard(form.group, 20)
    for options in scales_of(form):
        q = form.quantize(x, **options)
        with np.errstate(invalid="ignore"):
            expected = form.encoder(x, **options)
        assert_same(q, expected)
        assert q.format == name
        assert same_bits(form.dequantize(q), form.decoder(expected))


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.parametrize("seed", range(1, 5))
@pytest.mark.parametrize("name", COMPILED)
def test_many_codes_and_values(name, seed, way):
    form = FORMATS[name]
    x = hard(form.group, 3000, seed)
    for options in scales_of(form):
        q = form.quantize(x, **options)
        with np.errstate(invalid="ignore"):
            expected = form.encoder(x, **options)
        assert_same(q, expected)
        assert same_bits(form.dequantize(q), form.decoder(expected))


@pytest.mark.parametrize("name", ["MXFP8 E4M3", "MXINT8", "SMX6", "MXFP4+", "NVFP4", "IF4"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_other_types_and_partial_groups(name, dtype, way):
    form = FORMATS[name]
    x = np.random.default_rng(0).standard_t(3, (3, 7, 50)).astype(
        {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}[dtype])
    q, expected = form.quantize(x, threads=2), form.encoder(x)
    assert_same(q, expected)
    assert same_bits(form.dequantize(q, threads=2), form.decoder(expected))
    turned = x.transpose(2, 0, 1)
    assert_same(form.quantize(turned), form.encoder(turned))


@pytest.mark.parametrize("name", COMPILED)
def test_every_code_is_decoded(name, way):
    """Also codes that no encoder gives: NaN, infinities, the lowest of two's complement."""
    form = FORMATS[name]
    elements = np.resize(np.arange(2**form.element.bits, dtype=np.uint8), (256, max(
        form.group, 2**form.element.bits)))
    count = elements.shape[-1] // form.group
    # A scale byte per row, and the same elements under each.
    scales = np.arange(form._scales, dtype=np.uint8)[:, None].repeat(count, 1)
    q = form.quantize(np.zeros((len(scales), elements.shape[1]), np.float32))
    changed = {"elements": elements[: len(scales)], "scales": scales}
    if q.metadata is not None:
        rng = np.random.default_rng(0)
        changed["metadata"] = rng.integers(0, 2, q.metadata.shape, np.uint8)
    q = dataclasses.replace(q, **changed)
    if form.tensor_scale:
        q = dataclasses.replace(q, tensor_scale=np.float32(0.37))
    with np.errstate(all="ignore"):
        ours, theirs = form.dequantize(q), form.decoder(q)
    # A NaN that an element is has no bits of its own.
    nan = np.isnan(theirs) & (scales != scales.max()).repeat(form.group, 1)
    assert np.isnan(ours[nan]).all() and same_bits(ours[~nan], theirs[~nan])


@pytest.mark.parametrize("name", ["NVFP4 four-over-six", "NVFP4 searched", "IF4", "RaZeR weights"])
def test_ties_of_choices_are_decided_as_in_numpy(name, way):
    """Errors that are equal, or differ by less than float64 shows."""
    form, one = FORMATS[name], np.float32(1)
    x = (np.random.default_rng(0).integers(-24, 25, (2000, 16)) / 4).astype(np.float32)
    x[:, 0] = 6
    x[1000:, 1] = np.nextafter(x[1000:, 1], np.float32(9))
    q = form.quantize(x, tensor_scale=one)
    if way == "compiled":
        out = q.elements.copy(), None, q.scales.copy()
        undecided = form.compiled.encode(kernel.load(), x, out, tensor_scale=one)
        assert 0 < undecided.sum() < 1500
    assert_same(q, form.encoder(x, tensor_scale=one))


@pytest.mark.parametrize("exponent, mantissa", [(2, 2), (3, 1), (4, 2), (3, 4)])
def test_further_elements_need_no_code(exponent, mantissa, way):
    """Such as that of the page on adding a format: the tables are enough."""
    codec = minifloats._minifloat("new", exponent, mantissa, sign="bit",
                                  bias=2 ** (exponent - 1) - 1)
    form = catalogue._mx("new", codec, 2 ** (exponent - 1))
    x = hard(32, 20)
    q = form.quantize(x, rule="even")
    with np.errstate(invalid="ignore"):
        expected = form.encoder(x, rule="even")
    assert_same(q, expected)
    assert same_bits(form.dequantize(q), form.decoder(q))


def test_formats_of_functions_are_compiled(way):
    for outlier in (6.5, 9, 15.5):
        form = razer_weights(outlier)
        x = hard(16, 20)
        with np.errstate(invalid="ignore"):
            assert_same(form.quantize(x), form.encoder(x))


def test_the_tensor_scale_is_that_of_finite_values(way):
    x = hard(16, 20)
    for name in ("NVFP4", "RaZeR weights", "M2-NVFP4 Elem-EM-8"):
        with np.errstate(invalid="ignore"):
            expected = FORMATS[name].encoder(x)
        assert FORMATS[name].quantize(x).tensor_scale == expected.tensor_scale
        for value in (0, np.nan):
            q = FORMATS[name].quantize(np.full((2, 16), value, np.float32))
            assert q.tensor_scale == TENSOR_SCALE_MIN


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf, 2.0**-116])
def test_unusable_tensor_scales_of_nvfp4(scale, way):
    """The unit makes NaN groups of them."""
    q = FORMATS["NVFP4"].quantize(np.ones((2, 16), np.float32), tensor_scale=np.float32(scale))
    assert (q.scales == 0x7F).all() and not q.elements.any()


def test_a_tensor_scale_per_row(way):
    x = hard(16, 4)
    scale = np.linspace(0.1, 2, len(x), dtype=np.float32)[:, None]
    q = FORMATS["NVFP4"].quantize(x, tensor_scale=scale)
    row = FORMATS["NVFP4"].quantize(x[5], tensor_scale=scale[5, 0])
    assert np.array_equal(q.elements[5], row.elements)
    assert same_bits(FORMATS["NVFP4"].dequantize(q)[5], FORMATS["NVFP4"].dequantize(row))


@pytest.mark.parametrize("name, change, message", [
    ("MXFP6 E2M3", {"elements": np.full((1, 32), 64, np.uint8)},
     "elements must be below 64 in MXFP6 E2M3, not 64"),
    ("NVFP4", {"scales": np.full((1, 2), 128, np.uint8)},
     "scales must be below 128 in NVFP4, not 128"),
    ("SMX4", {"elements": np.full((1, 32), 8, np.uint8)},
     "elements must be below 8 in SMX4, not 8"),
])
def test_codes_of_too_many_bits(name, change, message, way):
    q = dataclasses.replace(FORMATS[name].quantize(np.ones((1, 32), np.float32)), **change)
    with pytest.raises(ValueError, match=f"^{message}$"):
        FORMATS[name].dequantize(q)


@pytest.mark.parametrize("name, change, message", [
    ("MXFP4+", {"metadata": None}, r"metadata must be uint8 of shape \(2, 1\) .* not of None"),
    ("SMX6", {"metadata": np.zeros((2, 1), np.uint8)},
     r"metadata must be uint8 of shape \(2, 16\) .* not of \(2, 1\)"),
    ("MXFP8 E4M3", {"scales": np.zeros((1, 1), np.uint8)},
     r"scales must be uint8 of shape \(2, 1\) .* not of \(1, 1\)"),
    ("NVFP4", {"elements": np.zeros((2, 32))},
     r"elements must be uint8 of shape \(2, 32\) for a tensor of shape \(2, 32\) in NVFP4"),
    ("NVFP4", {"shape": (2, 33)}, r"elements must be uint8 of shape \(2, 48\)"),
])
def test_planes_of_other_sizes(name, change, message, way):
    q = dataclasses.replace(FORMATS[name].quantize(np.ones((2, 32), np.float32)), **change)
    with pytest.raises(ValueError, match=f"^{message}"):
        FORMATS[name].dequantize(q)


def test_wrong_threads():
    for function in (FORMATS["NVFP4"].quantize, FORMATS["MXFP8 E4M3"].round_trip):
        with pytest.raises(ValueError, match="^threads must be at least 1, not 0$"):
            function(np.ones(32, np.float32), threads=0)


@pytest.mark.parametrize("name", ["NVFP4", "RaZeR weights", "MXFP8 E5M2"])
def test_the_kernel_is_used(name, monkeypatch):
    if not kernel.compiler():
        pytest.skip("needs a C compiler")
    form = FORMATS[name]
    broken = dataclasses.replace(form, encoder=lambda x, **options: form.encoder(x, **options)
                                 if len(x) == 1 else pytest.fail("NumPy is used"))
    x = np.random.default_rng(0).standard_normal((64, 1024), np.float32)
    assert_same(broken.quantize(x), form.encoder(x))
