# SPDX-License-Identifier: BSD-2-Clause
"""The model data that the package carries, and the command that makes it."""

import hashlib
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from golden.models import smollm2

DATA = Path(smollm2.__file__).with_name("data")


@pytest.fixture(scope="module")
def mlp():
    return smollm2.load_mlp()


def digest(array):
    return hashlib.sha256(array.astype("<f4").tobytes()).hexdigest()


@pytest.mark.parametrize(("name", "shape", "expected"), [
    ("activations", (32, 576), "6f0d6a4e6cdcf1edab33de0c015f369712b34b5395765865f3cb3280e4cb62df"),
    ("up", (1536, 576), "29d043b58afc04d42f40dc1728e3cc6913b51b79efc2cdc06e2b00c6defc9337"),
    ("down", (576, 1536), "21fbbb46ff2b699d1c581fdf92b2feb3ab620f273d573de5e03909e105fd4188"),
])
def test_arrays(mlp, name, shape, expected):
    array = getattr(mlp, name)
    assert array.dtype == np.float32
    assert array.shape == shape
    assert np.isfinite(array).all()
    assert digest(array) == expected


def test_origin(mlp):
    assert mlp.layer == 15
    assert mlp.tensors == ("model.layers.15.mlp.up_proj.weight",
                           "model.layers.15.mlp.down_proj.weight")
    assert mlp.text == "first 32 tokens of lee_background.cor in gensim 4.4.0"


def test_slice(mlp):
    taken = smollm2.load()
    assert np.array_equal(taken.activations, mlp.activations)
    assert taken.weights.dtype == np.float32
    assert taken.weights.shape == (256, 576)
    assert digest(taken.weights) == (
        "a9940d3f894d54eacc063ac493e7213221e6c386fbb583e66740e4bdb1416966")
    assert (taken.layer, taken.tensor, taken.text) == (mlp.layer, mlp.tensors[0], mlp.text)


def by_the_book(data):
    """Q4_1 one weight at a time. Python's floats hold the sums exactly, so only the end rounds."""
    values = []
    for scale, minimum, *codes in struct.iter_unpack("<ee16B", data):
        values += [minimum + scale * (code % 16) for code in codes]
        values += [minimum + scale * (code // 16) for code in codes]
    return np.array(values, np.float64).astype(np.float32)


@pytest.mark.parametrize("name", ["up", "down"])
def test_weights_by_the_book(mlp, name):
    assert same_bits(getattr(mlp, name).ravel(), by_the_book(blocks(mlp, name).tobytes()))


@pytest.mark.parametrize("name", ["up", "down"])
def test_weights_by_gguf(mlp, name):
    gguf = pytest.importorskip("gguf")
    rows = blocks(mlp, name).view(np.uint8)
    assert same_bits(getattr(mlp, name),
                     gguf.dequantize(rows, gguf.GGMLQuantizationType.Q4_1))


@pytest.mark.parametrize("name", ["up", "down"])
def test_blocks_use_all_codes(mlp, name):
    # A block's scale and minimum come from its extremes, so that these have the first and the
    # last code. Misread bytes would not.
    codes = np.stack([blocks(mlp, name)["codes"] % 16, blocks(mlp, name)["codes"] // 16])
    assert (codes.min(axis=(0, -1)) == 0).all()
    assert (codes.max(axis=(0, -1)) == 15).all()


def test_dequantize():
    # Ties of float32 and both of their sides, subnormal scales, an exact zero.
    def exact(scale, minimum, code):
        return np.float32(float(Fraction(scale) * code + Fraction(minimum)))

    scales, minima = [2.0**-15, 2.0**-24, 1.0, 2.0**-10], [2048.0, -1025.0, -8.0, 65504.0]
    codes = np.arange(16, dtype=np.uint8)
    array = np.zeros((2, 2), smollm2.BLOCK)
    array["scale"] = np.reshape(scales, (2, 2))
    array["minimum"] = np.reshape(minima, (2, 2))
    array["codes"] = codes | (15 - codes) << 4
    expected = [[exact(s, m, int(c)) for c in (*codes, *codes[::-1])]
                for s, m in zip(scales, minima, strict=True)]
    assert same_bits(smollm2.dequantize(array), np.reshape(np.array(expected), (2, 64)))


@pytest.mark.parametrize(("value", "text"), [([1], "list"), (np.zeros(3), "float64")])
def test_dequantize_refuses_other_types(value, text):
    with pytest.raises(TypeError, match=f"blocks must be an array of BLOCK, not of {text}"):
        smollm2.dequantize(value)


def blocks(mlp, name):
    return getattr(mlp, f"{name}_blocks")


def same_bits(left, right):
    return np.array_equal(left.view(np.uint32), right.view(np.uint32))


def test_size():
    assert sum(file.stat().st_size for file in DATA.iterdir()) < 1_200_000


def test_licence_is_whole():
    text = (DATA / "LICENSE-Apache-2.0.txt").read_text(encoding="utf-8")
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def run(blocked, *arguments):
    """Runs the module where ``blocked`` cannot be imported."""
    program = (f"import runpy, sys; sys.modules[{blocked!r}] = None; "
               "runpy.run_module('golden', run_name='__main__', alter_sys=True)")
    return subprocess.run([sys.executable, "-c", program, "smollm2", *arguments],
                          cwd=DATA.parents[2], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True)


@pytest.mark.parametrize("package", ["accelerate", "gguf", "torch", "transformers"])
def test_missing_extra(package, tmp_path):
    file = tmp_path / "mlp.npz"
    result = run(package, "-o", str(file))
    assert result.returncode == 1
    assert result.stdout == ""
    line, = result.stderr.splitlines()
    names, _, rest = line.removeprefix("error: ").partition(" must be installed to run the model: ")
    assert package in names.split(", ")
    assert rest == "pip install 'm2xfp-rtl[models]'"
    assert not file.exists()


def test_missing_folder(tmp_path):
    result = run("torch", "-o", str(tmp_path / "none" / "mlp.npz"))
    assert result.returncode == 2
    line, = result.stderr.splitlines()
    assert line == f"error: --output must lie in a folder that exists, not {tmp_path / 'none'}"
