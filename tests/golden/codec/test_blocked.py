# SPDX-License-Identifier: BSD-2-Clause
"""The codec at speed gives the bits of its definitions, compiled or not."""

import ctypes
import subprocess

import ml_dtypes
import numpy as np
import pytest

from golden import Quantized, dequantize, matmul, quantize_activations, quantize_weights, stimuli
from golden.codec import blocked, kernel
from golden.formats.mxfp4 import mxfp4_round_trip, quantize_mxfp4
from golden.units import decoder, group_mac, quantization_engine, weight_encoder
from tests.support import oracle

RULES = ["floor", "ceil", "rtn1", "rtn2"]
TYPES = [np.float32, np.float16, ml_dtypes.bfloat16]
SIZES = [(g, s) for g in (16, 32) for s in (4, 8, 16, 32) if s <= g]

needs_compiler = pytest.mark.skipif(not kernel.compiler(), reason="needs a C compiler")


@pytest.fixture(params=[pytest.param("compiled", marks=needs_compiler), "numpy"])
def engine(request, monkeypatch):
    """Each way to compute, for tensors of any size."""
    monkeypatch.setattr(blocked, "COMPILED_FROM", 0)
    monkeypatch.setenv("M2XFP_NUMPY", "1" if request.param == "numpy" else "")
    assert (kernel.load() is None) == (request.param == "numpy")


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """A kernel that was neither built nor loaded yet; built soon, as it is not run."""
    monkeypatch.setattr(kernel, "_FLAGS", [*kernel._FLAGS, "-O0"])
    monkeypatch.setenv("M2XFP_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("M2XFP_NUMPY", raising=False)
    kernel._load.cache_clear()
    yield tmp_path
    kernel._load.cache_clear()


def same(q, expected):
    for name in ("elements", "metadata", "scales"):
        plane, wanted = getattr(q, name), getattr(expected, name)
        assert plane.dtype == np.uint8
        assert plane.shape == wanted.shape
        wrong = np.argwhere(plane != wanted)
        assert wrong.size == 0, (name, wrong[0])
    assert (q.kind, q.shape, q.group, q.subgroup) == (
        expected.kind, expected.shape, expected.group, expected.subgroup)


def hard(rng, group, dtype=np.float32):
    """Rows of groups where rounding goes wrong, NaN, infinities and any bits among them."""
    with np.errstate(over="ignore", invalid="ignore"):
        x = stimuli.groups(rng, 400).reshape(-1, group).astype(dtype)
        # Candidates for weights are often equally wrong.
        grid = rng.choice([0, 1, 2, 3, 5, 7, 10, 14, 18], (400, group)) / 2
    bits = rng.integers(0, 256, (100, group * x.itemsize), np.uint8).view(dtype)
    return np.concatenate([x, oracle.hard_groups(rng, 400, group, dtype), grid.astype(dtype), bits])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("group, subgroup", SIZES)
def test_encoders(engine, group, subgroup, rule):
    x = hard(np.random.default_rng([group, subgroup, RULES.index(rule)]), group)
    options = {"group": group, "subgroup": subgroup, "rule": rule}
    a = quantize_activations(x, **options)
    same(a, quantization_engine.definition(x, **options))
    elements, scales = quantize_mxfp4(x, group=group, rule=rule)
    assert np.array_equal(elements, a.elements)
    assert np.array_equal(scales, a.scales)
    for adaptive in (True, False):
        same(quantize_weights(x, **options, adaptive=adaptive),
             weight_encoder.definition(x, **options, adaptive=adaptive))


@pytest.mark.parametrize("dtype", TYPES[1:])
def test_narrow_types(engine, dtype):
    x = hard(np.random.default_rng(0), 32, dtype)
    same(quantize_activations(x), quantization_engine.definition(x))
    same(quantize_weights(x), weight_encoder.definition(x))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("subgroup", [4, 8, 16])
def test_weights_of_bfloat16(engine, rule, subgroup):
    """The kernel adds their errors in float32, if that is exact."""
    x = hard(np.random.default_rng([subgroup, RULES.index(rule)]), 32, TYPES[-1])
    # Runs of 512 elements with and without a value that is no bfloat16.
    mixed = x.astype(np.float32)
    mixed[::40, 3] *= np.float32(1.0000001)
    for values in x, mixed:
        for adaptive in (True, False):
            options = {"rule": rule, "subgroup": subgroup, "adaptive": adaptive}
            same(quantize_weights(values, **options), weight_encoder.definition(values, **options))


@pytest.mark.parametrize("size", [1, 31, 1000, 2**13 + 5])
@pytest.mark.parametrize("at", [0, -1])
def test_comparison(engine, size, at):
    """Each kind of value at either end."""
    a = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    b = (a * np.float32(1.01)).astype(np.float32)
    square = sum(float(value)**2 for value in a)
    exact = sum((float(y) - float(x))**2 for x, y in zip(a, b, strict=True))
    assert blocked.compare(a, b) == pytest.approx((exact, square, False), rel=1e-12)
    assert blocked.compare(a, a) == pytest.approx((0, square, True), rel=1e-12)
    minus_nan = np.uint32(0xFFC00001).view(np.float32)
    for x, y, error, same in [
        (0, -0.0, 0, False), (-0.0, -0.0, 0, True), (np.nan, minus_nan, 0, True),
        (np.inf, np.inf, 0, True), (np.inf, 1, np.inf, False), (1, np.inf, np.inf, False),
        (-np.inf, np.inf, np.inf, False), (1, np.nan, np.nan, False), (np.nan, 1, np.nan, False),
        (1e-45, 4e-45, 2.0**-296, False), (3e38, -3e38, 36e76, False),
    ]:
        c, d = a.copy(), a.copy()
        c[at], d[at] = x, y
        finite = float(c[at])**2 if np.isfinite(x) else 0
        assert blocked.compare(c, d) == pytest.approx(
            (error, square - float(a[at])**2 + finite, same), rel=1e-6, abs=1e-300, nan_ok=True)


@pytest.mark.parametrize("size", [2**16, 2**16 + 2**13 + 5])
def test_comparison_is_the_same_without_a_compiler(size, monkeypatch):
    """The sums, too, to the last bit: manifests of checkpoints state them."""
    if kernel.load() is None:
        pytest.skip("needs a C compiler")
    rng = np.random.default_rng(size)
    a = rng.standard_t(2, size).astype(np.float32)
    b = (a * rng.uniform(0.8, 1.2, size)).astype(np.float32)
    compiled = blocked.compare(a, b)
    monkeypatch.setenv("M2XFP_NUMPY", "1")
    assert blocked.compare(a, b) == compiled


@pytest.mark.parametrize("kind", ["activation", "weight"])
@pytest.mark.parametrize("group, subgroup", SIZES)
def test_decoder(engine, group, subgroup, kind):
    rng = np.random.default_rng([group, subgroup])
    # Every scale, each with many elements and metadata.
    shape = (256, 10 * group)
    q = Quantized(kind=kind, shape=shape, group=group, subgroup=subgroup,
                  elements=rng.integers(0, 16, shape, np.uint8),
                  metadata=rng.integers(0, 4, (256, 10 * group // subgroup), np.uint8),
                  scales=np.arange(256, dtype=np.uint8)[:, None].repeat(10, 1))
    assert dequantize(q).tobytes() == decoder.definition(q).tobytes()


def layouts(rng):
    """Tensors of all kinds of shapes and strides."""
    x = rng.standard_t(2, (6, 5, 96)).astype(np.float32)
    yield x
    yield x[:, :, 5:]
    yield x[:, ::3, ::-1]
    yield x.transpose(1, 2, 0)
    yield np.asfortranarray(x[0])
    yield x[0, 0]
    yield x[:1, :1, :1]
    yield x.reshape(-1)[:-7]
    yield x.reshape(2, 1, -1)[:, :, :-40]
    yield x.astype(np.float16)[:, :, 1:]
    read_only = x.copy()
    read_only.flags.writeable = False
    yield read_only
    unaligned = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32)
    assert not unaligned.flags.aligned
    yield unaligned.reshape(x.shape)


@pytest.mark.parametrize("threads", [1, 3])
def test_blocks_and_threads(engine, monkeypatch, threads):
    """Blocks of a few groups: parts of rows, whole rows, rows with a partial group."""
    monkeypatch.setattr(blocked, "BLOCK", 192)
    monkeypatch.setattr(blocked, "COMPILED_BLOCK", 192)
    for x in layouts(np.random.default_rng(1)):
        before = x.tobytes()
        for quantize, definition in [
                (quantize_activations, quantization_engine.definition),
                (quantize_weights, weight_encoder.definition)]:
            expected = definition(x)
            q = quantize(x, threads=threads)
            same(q, expected)
            values = dequantize(q, threads=threads)
            assert values.shape == x.shape
            assert values.flags.c_contiguous
            assert values.tobytes() == decoder.definition(expected).tobytes()
        assert x.tobytes() == before


def test_planes_with_strides(engine):
    q = quantize_weights(np.random.default_rng(2).standard_normal((8, 64)).astype(np.float32))
    turned = Quantized(kind="weight", shape=q.shape, elements=np.asfortranarray(q.elements),
                       metadata=np.asfortranarray(q.metadata), scales=np.asfortranarray(q.scales))
    assert dequantize(turned).tobytes() == dequantize(q).tobytes()
    assert turned.pack() == q.pack()


def test_errors_in_threads_are_raised(monkeypatch):
    monkeypatch.setattr(blocked, "BLOCK", 192)
    monkeypatch.setattr(blocked, "_activations", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        quantize_activations(np.ones((100, 32), np.float32), threads=2)


def test_strict_floating_point_errors_change_nothing(engine):
    x = hard(np.random.default_rng(3), 32)
    with np.errstate(all="raise"):
        q = quantize_activations(x), quantize_weights(x)
        values = [dequantize(one) for one in q]
    assert values[0].tobytes() == decoder.definition(quantization_engine.definition(x)).tobytes()


def test_mxfp4_round_trip(engine):
    x = hard(np.random.default_rng(4), 32)
    q = quantize_activations(x)
    plain = Quantized(kind="weight", shape=x.shape, elements=q.elements,
                      metadata=np.zeros_like(q.metadata), scales=q.scales)
    assert mxfp4_round_trip(x).tobytes() == decoder.definition(plain).tobytes()


@pytest.mark.parametrize("low, high", [(110, 140), (60, 80), (40, 58), (170, 200), (0, 256)])
def test_matmul(monkeypatch, low, high):
    """Products in float32 and exact steps, within and beyond the range where the former are."""
    monkeypatch.setattr(group_mac, "_TILE", 16)
    rng = np.random.default_rng([low, high])

    def operand(kind, rows):
        groups = 40
        # Most columns of groups stay clear of the extremes.
        centre = rng.integers(low, high, groups)
        scales = np.clip(centre + rng.integers(-3, 4, (rows, groups)), 0, 255)
        elements = rng.integers(0, 16, (rows, groups * 32), np.uint8)
        empty = rng.random((rows, groups)) < 0.2
        elements[empty.repeat(32, 1)] = 0
        scales[empty] = 0
        return Quantized(kind=kind, shape=elements.shape, elements=elements,
                         metadata=rng.integers(0, 4, (rows, groups * 4), np.uint8),
                         scales=scales.astype(np.uint8))

    for _ in range(5):
        a, w = operand("activation", 33), operand("weight", 40)
        assert matmul(a, w).tobytes() == group_mac.definition(a, w).tobytes()


def test_matmul_of_usual_scales_is_float32_throughout(monkeypatch):
    """Also where groups are all zeros, whose scale is 0."""
    monkeypatch.setattr(group_mac, "accumulate", None)
    x = np.random.default_rng(5).standard_normal((4, 96)).astype(np.float32)
    x[1, 32:64] = 0
    matmul(quantize_activations(x), quantize_weights(x))


@pytest.mark.parametrize("threads, error, message", [
    (0, ValueError, "threads must be at least 1, not 0"),
    (-1, ValueError, "threads must be at least 1, not -1"),
    (2.0, TypeError, "threads must be an integer, not float"),
    (None, TypeError, "threads must be an integer, not NoneType"),
])
def test_wrong_threads(threads, error, message):
    x = np.ones((1, 32), np.float32)
    for function, argument in [(quantize_activations, x), (quantize_weights, x),
                               (quantize_mxfp4, x), (dequantize, quantize_weights(x))]:
        with pytest.raises(error) as raised:
            function(argument, threads=threads)
        assert str(raised.value) == message


@pytest.mark.long
@needs_compiler
def test_kernel_compiles_in_silence(tmp_path):
    source = kernel.resources.files("golden.codec").joinpath("kernel.c")
    done = subprocess.run(
        [*kernel.compiler(), *kernel._FLAGS, "-Wall", "-Wextra", "-Werror", str(source),
         "-o", tmp_path / "kernel.so"], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""


@needs_compiler
def test_kernel_is_built_once_and_for_large_tensors(fresh):
    quantize_activations(np.ones((1, 32), np.float32))
    assert not (fresh / "cache").exists()
    x = np.ones((1, blocked.COMPILED_FROM), np.float32)
    quantize_activations(x)
    library, = (fresh / "cache").iterdir()
    built = library.stat().st_mtime_ns
    kernel._load.cache_clear()
    assert isinstance(kernel.load(), ctypes.CDLL)
    assert library.stat().st_mtime_ns == built


@needs_compiler
def test_damaged_library_is_built_again(fresh, monkeypatch):
    kernel.load()
    library, = (fresh / "cache").iterdir()
    # Elsewhere: what is loaded would be found again by its path.
    monkeypatch.setenv("M2XFP_CACHE_DIR", str(fresh / "other"))
    damaged = fresh / "other" / library.name
    damaged.parent.mkdir(mode=0o700)
    # Of a library that was cut off, the part that is missing would be a SIGBUS.
    for content in (b"damaged", library.read_bytes()[:8192]):
        # A new file, as the one before is in use.
        damaged.unlink(missing_ok=True)
        damaged.write_bytes(content)
        kernel._load.cache_clear()
        assert isinstance(kernel.load(), ctypes.CDLL)
        assert [path.read_bytes() for path in damaged.parent.iterdir()] == [library.read_bytes()]


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@needs_compiler
def test_compiler_without_this_machines_instructions(fresh, monkeypatch):
    command = " ".join(kernel.compiler())
    monkeypatch.setenv("CC", script(fresh / "plain", f"""
        case "$*" in *-march=native*) exit 1;; esac
        exec {command} "$@\""""))
    assert isinstance(kernel.load(), ctypes.CDLL)


@pytest.mark.parametrize("text", ["exit 1", "case $* in *-dM*) exit 0;; esac; exit 1"])
def test_broken_compiler(fresh, monkeypatch, text):
    monkeypatch.setenv("CC", script(fresh / "broken", text))
    assert kernel.load() is None


def test_command_with_an_open_quote(monkeypatch):
    found = kernel.compiler()
    monkeypatch.setenv("CC", "gcc '-O3")
    assert kernel.compiler() == found


def test_folder_that_cannot_be_made(fresh, monkeypatch):
    (fresh / "file").write_text("")
    monkeypatch.setenv("M2XFP_CACHE_DIR", str(fresh / "file" / "cache"))
    assert kernel.load() is None


def test_no_compiler(fresh, monkeypatch):
    monkeypatch.setattr(kernel.shutil, "which", lambda _: None)
    assert kernel.load() is None
    x = np.ones((1, blocked.COMPILED_FROM), np.float32)
    same(quantize_activations(x), quantization_engine.definition(x))
