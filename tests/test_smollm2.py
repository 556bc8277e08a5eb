import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sim import smollm2

DATA = Path(smollm2.__file__).with_name("data")


@pytest.fixture(scope="module")
def taken():
    return smollm2.load()


@pytest.mark.parametrize("name, shape, digest", [
    ("activations", (32, 576), "6f0d6a4e6cdcf1edab33de0c015f369712b34b5395765865f3cb3280e4cb62df"),
    ("weights", (256, 576), "a9940d3f894d54eacc063ac493e7213221e6c386fbb583e66740e4bdb1416966"),
])
def test_arrays(taken, name, shape, digest):
    array = getattr(taken, name)
    assert array.dtype == np.float32
    assert array.shape == shape
    assert np.isfinite(array).all()
    assert hashlib.sha256(array.astype("<f4").tobytes()).hexdigest() == digest


def test_origin(taken):
    assert taken.layer == 15
    assert taken.tensor == "model.layers.15.mlp.up_proj.weight"
    assert taken.text == "first 32 tokens of lee_background.cor in gensim 4.4.0"


def test_weights_are_q4_1(taken):
    # A Q4_1 block is code * step + minimum: 4-bit codes, the other two float16. Its smallest code
    # is 0, and 15 its largest, so that its extremes give both away.
    blocks = taken.weights.reshape(-1, 32)
    assert max(len(np.unique(block)) for block in blocks) <= 16
    minimum = blocks.min(axis=1, keepdims=True)
    step = (blocks.max(axis=1, keepdims=True) - minimum) / np.float32(15)
    step = step.astype(np.float16).astype(np.float32)
    codes = np.rint((blocks - minimum) / step)
    assert (codes.min(), codes.max()) == (0, 15)
    assert np.array_equal(minimum.astype(np.float16).astype(np.float32), minimum)
    assert np.array_equal(codes * step + minimum, blocks)


def test_size():
    assert sum(file.stat().st_size for file in DATA.iterdir()) < 1_000_000


def test_licence_is_whole():
    text = (DATA / "LICENSE-Apache-2.0.txt").read_text(encoding="utf-8")
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def run(blocked, *arguments):
    """Runs the module where ``blocked`` cannot be imported."""
    program = (f"import runpy, sys; sys.modules[{blocked!r}] = None; "
               "runpy.run_module('sim.smollm2', run_name='__main__', alter_sys=True)")
    return subprocess.run([sys.executable, "-c", program, *arguments], cwd=DATA.parents[1],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True)


@pytest.mark.parametrize("package", ["accelerate", "gguf", "torch", "transformers"])
def test_missing_extra(package, tmp_path):
    file = tmp_path / "slice.npz"
    result = run(package, "-o", str(file))
    assert result.returncode == 1
    assert result.stdout == ""
    line, = result.stderr.splitlines()
    names, _, rest = line.partition(" must be installed to run the model: ")
    assert package in names.split(", ")
    assert rest == "pip install 'm2xfp-rtl[models]'"
    assert not file.exists()


def test_missing_folder(tmp_path):
    result = run("torch", "-o", str(tmp_path / "none" / "slice.npz"))
    assert result.returncode == 2
    assert "slice.npz does not exist" in result.stderr.splitlines()[-1]
