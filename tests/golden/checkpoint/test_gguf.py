# SPDX-License-Identifier: BSD-2-Clause
"""GGUF files as sources."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from golden import quantize_weights
from golden.checkpoint import GgufReader, Model, open_rows, plan
from golden.checkpoint.convert import main

RNG = np.random.default_rng(0)
TYPES = {"F32": 0, "F16": 1, "Q8_0": 8, "Q4_K": 12, "I32": 26, "BF16": 30, "MXFP4": 39, "NVFP4": 40}


def text(string):
    data = string if isinstance(string, bytes) else string.encode()
    return struct.pack("<Q", len(data)) + data


ENTRIES = {
    "general.name": struct.pack("<I", 8) + text("model"),
    "flag": struct.pack("<I?", 7, True), "count": struct.pack("<IQ", 10, 2**40),
    "eps": struct.pack("<If", 6, 0.5), "sizes": struct.pack("<IIQ3i", 9, 5, 3, -1, 2, 3),
    "tokens": struct.pack("<IIQ", 9, 8, 2) + text("a") + text(b"\xff"),
    "nested": struct.pack("<IIQ", 9, 9, 1) + struct.pack("<IQ2B", 0, 2, 7, 8),
}


def gguf(path, tensors, entries=ENTRIES, version=3, alignment=32):
    """Tensors are (type, shape in elements, bytes)."""
    if alignment != 32:
        entries = entries | {"general.alignment": struct.pack("<II", 4, alignment)}
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(entries))
    head += b"".join(text(key) + value for key, value in entries.items())
    data = b""
    for name, (kind, shape, content) in tensors.items():
        data += bytes(-len(data) % alignment)
        head += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape[::-1],
                                         TYPES.get(kind, kind), len(data))
        data += content if isinstance(content, bytes) else content.tobytes()
    head += bytes(-len(head) % alignment)
    path.write_bytes(head + data)
    return path


E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6]


def fp4(code):
    return np.float32(-E2M1[code - 8] if code >= 8 else E2M1[code])


def mxfp4_block(block):
    """Values of 17 bytes, one by one, as ggml-common.h lays them out."""
    scale = np.ldexp(np.float32(1), int(block[0]) - 127)
    out = np.zeros(32, np.float32)
    for i in range(16):
        out[i], out[16 + i] = fp4(block[1 + i] & 15) * scale, fp4(block[1 + i] >> 4) * scale
    return out


def nvfp4_block(block):
    out = np.zeros(64, np.float32)
    for j in range(4):
        scale = float(block[j: j + 1].view(ml_dtypes.float8_e4m3fn)[0].astype(np.float32))
        for i in range(8):
            byte = block[4 + 8 * j + i]
            out[16 * j + i], out[16 * j + 8 + i] = fp4(byte & 15) * scale, fp4(byte >> 4) * scale
    return out


def q8_block(block):
    scale = block[:2].view("<f2")[0].astype(np.float32)
    return np.array([scale * np.float32(byte) for byte in block[2:].view(np.int8)])


@pytest.mark.parametrize("alignment", [32, 64])
def test_values(tmp_path, alignment):
    mx = RNG.integers(0, 256, (2, 3, 2, 17), np.uint8)
    mx[..., 0] = RNG.integers(0, 255, (2, 3, 2), np.uint8)
    mx[0, 0, :, 0] = 0, 254
    nv = RNG.integers(0, 256, (4, 1, 36), np.uint8)
    nv[..., :4] = RNG.integers(0, 0x7F, (4, 1, 4), np.uint8)
    q8 = RNG.integers(0, 256, (2, 2, 34), np.uint8)
    q8[..., :2] = RNG.random((2, 2, 1)).astype("<f2").view(np.uint8)
    floats = RNG.standard_normal((2, 64)).astype(np.float32)
    path = gguf(tmp_path / "in", {
        "blk.0.ffn_up_exps.weight": ("MXFP4", (2, 3, 64), mx), "nv.weight": ("NVFP4", (4, 64), nv),
        "q8.weight": ("Q8_0", (2, 64), q8), "f32.weight": ("F32", (2, 64), floats),
        "f16.weight": ("F16", (2, 64), floats.astype(np.float16)),
        "bf.weight": ("BF16", (2, 64), floats.astype(ml_dtypes.bfloat16))}, alignment=alignment)
    expected = {}
    for name, blocks, decode in (("blk.0.ffn_up_exps.weight", mx, mxfp4_block),
                                 ("nv.weight", nv, nvfp4_block), ("q8.weight", q8, q8_block)):
        flat = blocks.reshape(-1, blocks.shape[-1])
        with np.errstate(over="ignore"):
            expected[name] = np.stack([decode(block) for block in flat]).reshape(
                *blocks.shape[:-2], -1)
    expected |= {"f32.weight": floats, "f16.weight": floats.astype(np.float16).astype(np.float32),
                 "bf.weight": floats.astype(ml_dtypes.bfloat16).astype(np.float32)}
    with Model(path) as model:
        decided = plan(model)
        assert not (decided.left or decided.wrong)
        for weight in decided.weights:
            values = open_rows(model, weight)(0, weight.rows)[0].reshape(weight.shape)
            assert values.dtype == np.float32
            assert np.array_equal(values, expected.pop(weight.name))
    assert expected == {}


def test_conversion(tmp_path, capsys):
    """MXFP4 keeps its codes; the entries are kept, and what is not understood is copied."""
    mx = RNG.integers(0, 255, (3, 1, 17), np.uint8)
    up = RNG.standard_normal((2, 64)).astype(np.float32)
    raw = {"q4": RNG.integers(0, 256, (2, 144), np.uint8), "new": RNG.integers(0, 9, 32, np.uint8)}
    embedding = RNG.integers(0, 256, (2, 34), np.uint8)
    path = gguf(tmp_path / "in.gguf", {
        "mx.weight": ("MXFP4", (3, 32), mx), "up.weight": ("F32", (2, 64), up),
        "q4.weight": ("Q4_K", (2, 256), raw["q4"]), "new.weight": (77, (2, 32), raw["new"]),
        "token_embd.weight": ("Q8_0", (2, 32), embedding),
        "ids": ("I32", (3,), np.arange(3, dtype="<i4"))})
    out = tmp_path / "out"
    assert main([str(path), str(out), "--verify"]) == 0
    printed = capsys.readouterr().out
    assert "mx.weight  3 x 32     1  MXFP4                 0.00000  yes" in printed
    assert "copied (Q4_K of GGUF is not understood): q4.weight" in printed
    assert "copied (type 77 of GGUF is not understood): new.weight" in printed
    assert "copied (embedding): token_embd.weight" in printed
    written = load_file(out)
    codes = np.concatenate([mx[:, 0, 1:] & 15, mx[:, 0, 1:] >> 4], -1)
    assert np.array_equal(written["mx.weight.elements"], codes[:, ::2] | codes[:, 1::2] << 4)
    assert np.array_equal(written["mx.weight.scales"], mx[:, 0, :1])
    assert written["up.weight.elements"].tobytes() == quantize_weights(up).pack()[0]
    assert written["q4.weight"].tobytes() == raw["q4"].tobytes()
    assert written["new.weight"].tobytes() == raw["new"].tobytes()
    assert np.array_equal(written["token_embd.weight"], embedding)
    assert np.array_equal(written["ids"], np.arange(3))
    with safe_open(out, "numpy") as file:
        assert json.loads(file.metadata()["gguf"]) == {
            "general.name": "model", "flag": True, "count": 2**40, "eps": 0.5,
            "sizes": [-1, 2, 3], "tokens": ["a", "\udcff"], "nested": [[7, 8]]}


def whole(tmp_path, **options):
    return gguf(tmp_path / "in", {"a": ("F32", (2, 32), bytes(256))}, **options).read_bytes()


@pytest.mark.parametrize(("change", "problem"), [
    (lambda d: d[:4] + struct.pack(">I", 3) + d[8:], "must be GGUF of version 2 or 3, little-end"),
    (lambda d: d[:8] + struct.pack("<Q", 2**60) + d[16:], "is truncated"),
    (lambda d: d[:16] + struct.pack("<Q", 2**60) + d[24:], "entries do not fit in it"),
    (lambda d: d[:24] + struct.pack("<Q", 2**62) + d[32:], "is truncated: its header is not com"),
    (lambda d: d[:200], "is truncated"), (lambda d: d[:20], "is truncated"),
    (lambda d: d[:-1], "'a' that ends at byte 256 of its data, beyond 255"),
])
def test_bad_files(tmp_path, change, problem, capsys):
    path = tmp_path / "in"
    path.write_bytes(change(whole(tmp_path)))
    assert main([str(path), str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert problem in error and error.count("\n") == 1


@pytest.mark.parametrize(("tensors", "entries", "problem"), [
    ({"a": ("F32", (1,) * 5, bytes(4))}, {}, "'a' that must have at most 4 axes, not 5"),
    ({"a": ("MXFP4", (2, 48), bytes(51))}, {}, "'a' of MXFP4 whose rows must have a multiple of"),
    ({"a": ("MXFP4", (), bytes(17))}, {}, "'a' of MXFP4 whose rows must have a multiple of 32"),
    ({}, {}, "holds no weight to quantize"),
    ({}, {"x": struct.pack("<I", 13)}, "has an entry of type 13, which is not known"),
    ({}, {"general.alignment": struct.pack("<II", 4, 0)}, "a general.alignment of at least 1"),
    ({}, {"general.alignment": struct.pack("<I", 8) + text("a")}, "a general.alignment of at lea"),
    ({}, {"x": struct.pack("<IIQ", 9, 9, 1) + struct.pack("<IQ", 9, 1) * 9}, "entry of type 9"),
    ({}, {"x": struct.pack("<IIQ", 9, 0, 2**50)}, "is truncated: "),
])
def test_bad_contents(tmp_path, tensors, entries, problem, capsys):
    assert main([str(gguf(tmp_path / "in", tensors, entries)), str(tmp_path / "out")]) == 1
    assert problem in capsys.readouterr().err


def test_tensors_do_not_overlap(tmp_path):
    path = gguf(tmp_path / "in", {"a": ("F32", (32,), bytes(128)), "b": ("F32", (32,), bytes(128))})
    data = path.read_bytes().replace(struct.pack("<IQ", 0, 128), struct.pack("<IQ", 0, 64))
    path.write_bytes(data)
    with pytest.raises(ValueError, match="'a' that ends at byte 128 of its data, beyond 64"):
        GgufReader(path)
    twice = gguf(tmp_path / "in", {"a": ("F32", (8,), bytes(32)), "b": ("F32", (8,), bytes(32))})
    twice.write_bytes(twice.read_bytes().replace(text("b"), text("a")))
    with pytest.raises(ValueError, match="has two tensors 'a'"):
        GgufReader(twice)
