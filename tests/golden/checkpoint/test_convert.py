# SPDX-License-Identifier: BSD-2-Clause
"""Checkpoints to planes and back, and the container."""

import json
import re
import subprocess
import sys
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
import safetensors
from safetensors.numpy import load_file, save_file

from golden import Quantized, dequantize, quantize_weights
from golden.checkpoint import convert, planes, sources
from golden.checkpoint.layout import read_manifest
from golden.checkpoint.safetensors import BITS, Reader
from golden.codec.quantized import _pack as pack_codes
from golden.formats.mxfp4 import mxfp4_round_trip, quantize_mxfp4
from golden.formats.nvfp4 import dequantize_nvfp4, tensor_scale_of
from golden.output import replacing
from golden.units.nvfp4_quantizer import quantize_nvfp4
from tests.support.checkpoints import container, raw, swizzled

E4M3 = ml_dtypes.float8_e4m3fn


def run(*arguments):
    return convert.main([str(argument) for argument in arguments])


def refused(capsys, *arguments, status=1):
    assert run(*arguments) == status
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


def bits(array):
    return array.view(f"u{array.itemsize}")


@pytest.fixture
def checkpoint(tmp_path):
    """Floats of all types, one with a partial last group and special values, and what is copied."""
    rng = np.random.default_rng(0)
    w = rng.standard_t(3, (5, 70)).astype(np.float32)
    w[1, 3], w[2, 40], w[3, :3] = np.nan, -np.inf, [-0.0, 1e-45, 3e38]
    tensors = {
        "a.weight": w,
        "b": rng.standard_normal((3, 2, 64)).astype(np.float16),
        "c": rng.standard_normal((2, 33)).astype(ml_dtypes.bfloat16),
        "norm": rng.standard_normal(7).astype(np.float32),
        "ids": np.arange(6).reshape(2, 3),
        "odd": np.arange(3, dtype=np.uint8),
    }
    path = tmp_path / "in.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})
    return path, tensors


@pytest.mark.parametrize(("arguments", "encode"), [
    ([], quantize_weights),
    (["--fixed", "--rule", "ceil"],
     lambda w: quantize_weights(w, rule="ceil", adaptive=False)),
    (["--format", "sg-special", "--fixed"],
     lambda w: quantize_weights(w, encoding="sg-special", adaptive=False)),
    (["--format", "sg-special64"], lambda w: quantize_weights(w, encoding="sg-special64")),
])
def test_planes(checkpoint, tmp_path, arguments, encode, monkeypatch, capsys):
    """Read by another implementation, they are what the encoder gives."""
    # One row at a time.
    monkeypatch.setattr(sources, "BLOCK", 64)
    path, tensors = checkpoint
    out = tmp_path / "out.safetensors"
    assert run(path, out, "--verify", *arguments) == 0
    written = load_file(out)
    for name in "a.weight", "b", "c":
        q = encode(tensors[name])
        for plane, data in zip(("elements", "metadata", "scales"), q.pack(), strict=True):
            assert written[f"{name}.{plane}"].tobytes() == data
            assert written[f"{name}.{plane}"].shape[:-1] == tensors[name].shape[:-1]
    for name in "norm", "ids", "odd":
        assert np.array_equal(written[name], tensors[name])
    assert len(written) == 12
    with Reader(out) as file:
        assert all(t.start % (BITS[t.dtype] // 8) == 0 for t in file.tensors.values())
    assert int.from_bytes(out.read_bytes()[:8], "little") % 8 == 0
    with safetensors.safe_open(out, "numpy") as file:
        metadata = file.metadata()
    assert metadata["format"] == "pt"
    manifest = json.loads(metadata["m2xfp"])
    assert manifest == json.loads((tmp_path / "out.safetensors.json").read_text())
    assert set(manifest["copied"]) == {"ids", "norm", "odd"}
    w = tensors["b"].astype(np.float64)
    expected = np.square(dequantize(encode(tensors["b"])) - w).sum() / np.square(w).sum()
    assert manifest["tensors"]["b"]["relative_squared_error"] == pytest.approx(expected, rel=1e-9)
    # NaN has no error; finite neighbours of it have.
    assert manifest["tensors"]["a.weight"]["relative_squared_error"] is None
    printed = capsys.readouterr().out
    assert f"{expected:.5f}" in printed and "not finite" in printed
    assert "copied (one axis): norm\n" in printed
    assert manifest["left_alone"] == {
        "ids": "I64 is no type of weights", "norm": "one axis", "odd": "U8 is no type of weights"}


def test_plain_mxfp4(checkpoint, tmp_path):
    path, tensors = checkpoint
    out = tmp_path / "out.safetensors"
    assert run(path, out, "--format", "mxfp4", "--rule", "rtn1") == 0
    written = load_file(out)
    assert "b.metadata" not in written
    elements, scales = quantize_mxfp4(tensors["b"], rule="rtn1")
    assert np.array_equal(written["b.elements"], elements[..., ::2] | elements[..., 1::2] << 4)
    assert np.array_equal(written["b.scales"], scales)
    back = tmp_path / "back.safetensors"
    assert run(out, back, "--dequantize") == 0
    assert np.array_equal(load_file(back)["b"], mxfp4_round_trip(tensors["b"], rule="rtn1"))


@pytest.mark.parametrize("dtype, encoding", [
    ("float32", "sg-em"), ("source", "sg-em"), ("float32", "sg-special"),
    ("float32", "sg-special64")])
def test_back(checkpoint, tmp_path, dtype, encoding, monkeypatch):
    monkeypatch.setattr(sources, "BLOCK", 64)
    path, tensors = checkpoint
    out, back = tmp_path / "out.safetensors", tmp_path / "back.safetensors"
    format = {"sg-em": "m2xfp"}.get(encoding, encoding)
    assert run(path, out, "--format", format) == 0
    assert run(out, back, "--dequantize", "--dtype", dtype) == 0
    with safetensors.safe_open(back, "numpy") as file:
        assert file.metadata() == {"format": "pt"}
    read = load_file(back)
    assert set(read) == set(tensors)
    for name in "a.weight", "b", "c":
        expected = dequantize(quantize_weights(tensors[name], encoding=encoding))
        if dtype == "source":
            expected = expected.astype(tensors[name].dtype)
        assert read[name].dtype == expected.dtype
        assert np.array_equal(bits(read[name]), bits(expected))
    assert np.array_equal(read["ids"], tensors["ids"])


def gpt_oss(path):
    """Every code under scales of every kind, the largest and the NaN included."""
    rng = np.random.default_rng(1)
    blocks = rng.integers(0, 256, (2, 3, 4, 16), np.uint8)
    scales = rng.integers(0, 255, (2, 3, 4), np.uint8)
    scales[0, 0] = [0, 1, 254, 255]
    raw(path, {"mlp.up_blocks": ("U8", blocks), "mlp.up_scales": ("U8", scales),
               # Not a weight, though it has two axes.
               "mlp.up_bias": ("BF16", np.ones((2, 3), ml_dtypes.bfloat16))})
    codes = np.stack([blocks & 15, blocks >> 4], -1).reshape(2, 3, 4, 32)
    values = codes.view(ml_dtypes.float4_e2m1fn).astype(np.float64)
    factors = scales.view(ml_dtypes.float8_e8m0fnu).astype(np.float64)[..., None]
    with np.errstate(over="ignore"):
        return blocks, scales, (values * factors).astype(np.float32).reshape(2, 3, 128)


def test_mxfp4_becomes_sg_special(tmp_path):
    """Code 8 is another value there, so that the values are encoded anew."""
    path, out = tmp_path / "in", tmp_path / "out"
    *_, values = gpt_oss(path)
    assert run(path, out, "--format", "sg-special", "--verify") == 0
    q = quantize_weights(values, encoding="sg-special")
    assert load_file(out)["mlp.up.elements"].tobytes() == q.pack()[0]
    with Reader(out) as file:
        manifest = read_manifest(file)
    assert manifest["rule"] == "own" and "e - 31" in manifest["value"]
    assert "selector" in manifest["encoding"]["scales"]


@pytest.mark.parametrize("format", ["m2xfp", "mxfp4"])
def test_mxfp4_is_kept(tmp_path, format, capsys):
    path, out, back = (tmp_path / name for name in ("in", "out", "back"))
    blocks, scales, values = gpt_oss(path)
    assert run(path, out, "--format", format, "--verify") == 0
    assert "MXFP4                 0.00000  yes" in capsys.readouterr().out
    written = load_file(out)
    assert written["mlp.up.elements"].tobytes() == blocks.tobytes()
    assert written["mlp.up.scales"].tobytes() == scales.tobytes()
    assert written["mlp.up_bias"].shape == (2, 3)
    assert not written.get("mlp.up.metadata", np.zeros(1)).any()
    assert run(out, back, "--dequantize") == 0
    read = load_file(back)["mlp.up"]
    assert read.shape == (2, 3, 128)
    same = (bits(read) == bits(values)) | (np.isnan(read) & np.isnan(values))
    assert same.all()


def test_lossless_is_found_out(tmp_path, monkeypatch):
    """What was MXFP4's values in bfloat16 is lossless as MXFP4, but one bit makes it not."""
    # The first block is the one that differs.
    monkeypatch.setattr(sources, "BLOCK", 64)
    w = mxfp4_round_trip(np.random.default_rng(2).standard_normal((2, 64)).astype(np.float32))
    off = w.copy()
    off[0, 5] = np.nextafter(off[0, 5], np.float32(np.inf))
    save_file({"same": w.astype(ml_dtypes.bfloat16), "off": off,
               "zero": np.full((1, 32), -0.0, np.float32)}, tmp_path / "in")
    assert run(tmp_path / "in", tmp_path / "out", "--format", "mxfp4") == 0
    tensors = json.loads((tmp_path / "out.json").read_text())["tensors"]
    assert {name: t["lossless"] for name, t in tensors.items()} == {
        "same": True, "off": False, "zero": True}


@pytest.mark.parametrize(("rows", "layout", "options", "note"), [
    (5, "linear", [], "scales row by row, as not padded"),
    (130, "swizzled", [], "scales padded, so assumed 128x4-swizzled"),
    (128, "linear", [], "scales assumed row by row, as their shape does not tell"),
    (128, "swizzled", ["--swizzled"], "scales 128x4-swizzled, as the option says"),
])
@pytest.mark.parametrize("convention", ["ModelOpt", "compressed-tensors"])
def test_nvfp4(tmp_path, rows, layout, options, note, convention, monkeypatch, capsys):
    monkeypatch.setattr(sources, "BLOCK", 1000)
    x = np.random.default_rng(3).standard_t(3, (rows, 128)).astype(np.float32)
    x[2, :16] = np.nan
    # A power of two, so that multiplier and divisor are the same.
    scale = np.float32(2.0 ** np.floor(np.log2(tensor_scale_of(x[:1]))))
    q = quantize_nvfp4(x, scale)
    scales = swizzled(q.scales) if layout == "swizzled" else q.scales
    packed = pack_codes(q.elements, 4)
    if convention == "ModelOpt":
        tensors = {"x.weight": ("U8", packed), "x.weight_scale_2": ("F32", np.array(scale)),
                   "x.input_scale": ("F32", np.float32([1]))}
    else:
        tensors = {"x.weight_packed": ("U8", packed),
                   "x.weight_global_scale": ("F32", 1 / scale[None])}
    raw(tmp_path / "in", tensors | {"x.weight_scale": ("F8_E4M3", scales)})
    assert run(tmp_path / "in", tmp_path / "out", "--verify", *options) == 0
    printed = capsys.readouterr().out
    assert note in printed
    assert ("multiplies (ModelOpt" if convention == "ModelOpt" else "divides (compr") in printed
    expected = quantize_weights(dequantize_nvfp4(q))
    written = load_file(tmp_path / "out")
    for plane, data in zip(("elements", "metadata", "scales"), expected.pack(), strict=True):
        assert written[f"x.weight.{plane}"].tobytes() == data
    manifest = json.loads((tmp_path / "out.json").read_text())
    assert list(manifest["copied"]) == ["x.input_scale"] * (convention == "ModelOpt")
    assert manifest["tensors"]["x.weight"]["lossless"] is False


def test_lossless_nvfp4(tmp_path):
    """With powers of two as scales that pairs of groups share."""
    codes = np.random.default_rng(4).integers(0, 256, (3, 16), np.uint8) | 0x77
    raw(tmp_path / "in", {"x.weight": ("U8", codes),
                          "x.weight_scale": ("F8_E4M3", np.full((3, 2), 0.5, E4M3)),
                          "x.weight_scale_2": ("F32", np.float32([0.25]))})
    assert run(tmp_path / "in", tmp_path / "out", "--format", "mxfp4") == 0
    entry = json.loads((tmp_path / "out.json").read_text())["tensors"]["x.weight"]
    assert (entry["lossless"], entry["relative_squared_error"]) == (True, 0)


def folder(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("place", [
    "golden.checkpoint.planes.dequantize", "os.fsync", "os.replace"])
def test_failures_leave_no_trace(checkpoint, tmp_path, error, place, monkeypatch, capsys):
    path, _ = checkpoint
    out = tmp_path / "out.safetensors"
    out.write_bytes(b"old")
    (tmp_path / "out.safetensors.json").write_bytes(b"old too")
    before, mode = folder(tmp_path), out.stat().st_mode
    calls = []

    def fail(*arguments, **options):
        calls.append(arguments)
        if place == "golden.checkpoint.planes.dequantize" and len(calls) < 3:
            return dequantize(*arguments, **options)
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(place, fail)
        assert run(path, out) == (130 if isinstance(error, KeyboardInterrupt) else 1)
    assert calls and folder(tmp_path) == before
    assert capsys.readouterr().err.count("\n") == 1
    assert run(path, out) == 0
    assert set(folder(tmp_path)) == set(before)
    assert out.stat().st_mode == mode


def test_verify(checkpoint, tmp_path, monkeypatch, capsys):
    path, _ = checkpoint
    out = tmp_path / "out.safetensors"
    assert run(path, out) == 0
    assert run(out, "--verify") == 0
    assert "3 tensors in planes, 3 copied" in capsys.readouterr().out
    whole = out.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    # Somewhere in every tensor.
    for position in range(start, len(whole), 60):
        out.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1:])
        assert "differs from its manifest: " in refused(capsys, out, "--verify")
        assert "differs from its manifest: " in refused(capsys, out, tmp_path / "x",
                                                        "--dequantize")
    out.write_bytes(whole)
    (tmp_path / "out.safetensors.json").write_text("{}")
    assert "is not the manifest in the file" in refused(capsys, out, "--verify")
    # Values that were not what was written.
    monkeypatch.setattr(Quantized, "pack", lambda q: (bytes(len(q.elements) * (
        q.elements.shape[1] // 2)), bytes(q.metadata.size // 4), q.scales.tobytes()))
    assert "was not written: values of 'a.weight' are not those" in refused(
        capsys, path, tmp_path / "new", "--verify")
    assert not (tmp_path / "new").exists()


def test_memory(tmp_path, monkeypatch):
    """That of a block, whatever the tensors' sizes."""
    monkeypatch.setattr(sources, "BLOCK", 2**15)
    monkeypatch.setenv("M2XFP_NUMPY", "1")
    save_file({"a": np.ones((512, 512), np.float32), "b": np.zeros(2**20, np.float32)},
              tmp_path / "in")
    tracemalloc.start()
    try:
        convert.convert(tmp_path / "in", tmp_path / "out", format="mxfp4", verify=True)
        planes.restore(tmp_path / "out", tmp_path / "back")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Smaller than the smaller of the tensors, and 48 bytes of each element of a block.
    assert most < 1.6e6


def entry(dtype="F32", shape=(2, 2), offsets=(0, 16)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


DATA = bytes(16)


@pytest.mark.parametrize(("content", "text"), [
    (b"", "is not a safetensors file: 0 bytes are too few"),
    (b"PK\x03\x04 some other file", "must have at most 100000000 bytes"),
    (container(b"", length=100_000_001), "must have at most 100000000 bytes, not 100000001"),
    (container({"a": entry()}, DATA)[:20], "is truncated: its header ends at byte"),
    (container({"a": entry()}, DATA)[:-1], "is truncated: it must have"),
    (container({"a": entry()}, DATA + b"x"), "has bytes after its tensors"),
    (container(b"{"), "header must be JSON"),
    (container(b"\xff"), "header must be JSON"),
    (container(b"[" * 100_000), "header must be JSON"),
    (container(b'{"a": 1, "a": 2}'), "a comes twice"),
    (container(b"[]"), "must be a JSON object"),
    (container({"__metadata__": {"a": 1}}), "metadata that are not texts"),
    (container({"a": 3}), "'a' without exactly dtype, shape and data_offsets"),
    (container({"a": entry() | {"more": 1}}, DATA), "'a' without exactly"),
    (container({"a": entry("F33")}, DATA), "'a' whose dtype must be one of BOOL, .* not 'F33'"),
    (container({"a": entry(["F32"])}, DATA), "'a' whose dtype must be one of"),
    (container({"a": entry(shape=[2, -2])}, DATA), "'a' whose shape must be whole numbers"),
    (container({"a": entry(shape=[2, True])}, DATA), "'a' whose shape must be whole numbers"),
    (container({"a": entry(offsets=[0, 16.0])}, DATA), "'a' whose data_offsets must be whole"),
    (container({"a": entry(offsets=[0, 12])}, DATA), "'a' whose data_offsets must be two"),
    (container({"a": entry(offsets=[16, 0])}, DATA), "'a' whose data_offsets must be two"),
    (container({"a": entry("F4", [3], [0, 1])}, b"x"), r"the bits of F4 \[3\] apart"),
    (container({"a": entry(shape=[10**4000])}, DATA), "the bits of F32 .* apart"),
    (container({"a": entry(offsets=[0, 16, 32])}, DATA), "must be two"),
    (container({"a": entry(), "b": entry(offsets=[8, 24])}, bytes(24)), "'b' that overlaps"),
    (container({"a": entry(offsets=[4, 20])}, bytes(20)), "'a' that leaves a hole before it"),
    (container({"new\nline": 3}), r"'new\\nline' without"),
    (container({}), "holds no weight to quantize; --list says why"),
    (container({"a": entry(shape=[2, 0], offsets=[0, 0])}), "holds no weight to quantize"),
    (container({"__metadata__": {"m2xfp": "{}"}, "a": entry()}, DATA), "holds planes already"),
    (container({"a_blocks": entry("U8", [1, 16])}, DATA),
     "'a_blocks' needs 'a_scales', which is missing"),
    (container({"a_blocks": entry("U8", [1, 16]), "a_scales": entry("F32", [1], [16, 20])},
               bytes(20)), r"'a_blocks' needs 'a_scales' of U8 or F8_E8M0 \[1\], not F32 \[1\]"),
    (container({"a_blocks": entry("U8", [2, 8])}, DATA), "'a_blocks' must have the shape"),
    (container({"a.weight_packed": entry("U8", [2, 8])}, DATA),
     "'a.weight_packed' needs 'a.weight_scale', which is missing; if it lies in another shard, "
     "name the folder or the index; --exclude leaves it alone"),
    (container({"a.weight_packed": entry("U8", [2, 8]),
                "a.weight_scale": entry("F8_E4M3", [2, 2], [16, 20])}, bytes(20)),
     r"'a.weight_packed' needs 'a.weight_scale' of F8_E4M3 \[2, 1\] or \[128, 4\], not F8_E4M3"),
    (container({"a.weight_packed": entry("U8", [4, 4]),
                "a.weight_scale": entry("F8_E4M3", [4, 1], [16, 20])}, bytes(20)),
     r"K a multiple of 16, not \[4, 4\]"),
])
def test_bad_files(content, text, tmp_path, capsys):
    path = tmp_path / "in"
    path.write_bytes(content)
    assert re.search(text, refused(capsys, path, tmp_path / "out"))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("others", "text"), [
    ({}, "needs one of 'a.weight_scale_2' and 'a.weight_global_scale', not none"),
    ({"a.weight_scale_2": 1, "a.weight_global_scale": 1}, "not both"),
    ({"a.weight_scale_2": 0}, "'a.weight_scale_2' must be finite and above 0, not 0.0"),
    ({"a.weight_global_scale": np.inf}, "must be finite and above 0, not inf"),
    ({"a.weight_scale_2": 1, "negative": 1}, "'a.weight_scale' must have no negative scales"),
])
def test_bad_nvfp4(others, text, tmp_path, capsys):
    scale = np.full((2, 1), -1 if "negative" in others else 1, E4M3)
    raw(tmp_path / "in", {"a.weight": ("U8", np.zeros((2, 8), np.uint8)),
                          "a.weight_scale": ("F8_E4M3", scale)}
        | {name: ("F32", np.float32(value)) for name, value in others.items()})
    assert text in refused(capsys, tmp_path / "in", tmp_path / "out")
    assert list(tmp_path.iterdir()) == [tmp_path / "in"]


@pytest.mark.parametrize("change", [
    lambda m: m.pop("tensors"),
    lambda m: m.update(format="fp3"),
    lambda m: m.update(group=16),
    lambda m: m["tensors"]["b"].update(shape=[3, 2, 0]),
    lambda m: m["tensors"]["b"].update(shape=[3, 2, 97]),
    lambda m: m["tensors"]["b"].update(shape=7),
    lambda m: m["tensors"]["b"]["planes"].pop("scales"),
    lambda m: m["tensors"]["b"].pop("values_sha256"),
    lambda m: m["copied"].pop("norm"),
    lambda m: m["copied"].update(none="0"),
    lambda m: m.update(tensors=[1]),
    lambda m: m.update(copied=["ids", "norm", "odd"]),
    lambda m: m["tensors"]["b"].update(source_dtype=[]),
    lambda m: m["tensors"]["b"].update(transposed=1),
    lambda m: m["tensors"]["b"].update(shape=[3, 96], transposed=True),
    lambda m: m.update(left_alone=["ids"]),
])
def test_bad_manifests(change, checkpoint, tmp_path, capsys):
    path, _ = checkpoint
    out = tmp_path / "out"
    convert.convert(path, out)
    with safetensors.safe_open(out, "numpy") as file:
        manifest = json.loads(file.metadata()["m2xfp"])
    change(manifest)
    save_file(load_file(out), out, metadata={"m2xfp": json.dumps(manifest)})
    assert "has a manifest that does not fit it" in refused(capsys, out, tmp_path / "x",
                                                            "--dequantize")
    assert not (tmp_path / "x").exists()


def test_bad_places(checkpoint, tmp_path, capsys):
    path, _ = checkpoint
    assert "No such file" in refused(capsys, tmp_path / "none", tmp_path / "out")
    assert "holds neither NAME.safetensors.index.json nor a safetensors file" in refused(
        capsys, tmp_path / "..", tmp_path / "out")
    assert "OUT must be a regular file, not the folder" in refused(capsys, path, tmp_path, status=2)
    assert "OUT must be another file than IN" in refused(capsys, path, path, status=2)
    assert "folder that exists" in refused(capsys, path, tmp_path / "no" / "out", status=2)
    assert "has no manifest" in refused(capsys, path, "--verify")
    assert "has no manifest" in refused(capsys, path, tmp_path / "out", "--dequantize")
    assert list(tmp_path.iterdir()) == [path]
    # Where the manifest has no place, what was there stays.
    (tmp_path / "out").write_text("before")
    (tmp_path / "out.json").mkdir()
    assert f"not the folder {tmp_path / 'out.json'}" in refused(capsys, path, tmp_path / "out",
                                                                status=2)
    assert (tmp_path / "out").read_text() == "before"
    assert sorted(tmp_path.iterdir()) == [path, tmp_path / "out", tmp_path / "out.json"]
    # Nor does the manifest take the place of what is converted.
    path = path.rename(tmp_path / "in.json")
    assert f"than IN, not {path}" in refused(capsys, path, tmp_path / "in", status=2)
    load_file(path)


def test_no_folder_is_replaced(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text("before")
    second.mkdir()
    with pytest.raises(ValueError, match="not the folder .*b$"), replacing(first, second):
        pass
    assert first.read_text() == "before" and sorted(tmp_path.iterdir()) == [first, second]


@pytest.mark.parametrize(("arguments", "text"), [
    (["in"], "OUT must be given"),
    (["in", "out", "--dequantize", "--verify"], "--verify must not come with --dequantize"),
    (["in", "out", "--dtype", "source"], "--dtype must come with --dequantize"),
    (["in", "out", "--dequantize", "--fixed"], "must come with a conversion"),
    (["in", "out", "--format", "mxfp4", "--fixed"], "--fixed must come with --format m2xfp"),
    (["in", "out", "--format", "sg-special", "--rule", "ceil"],
     "--rule must come with --format m2xfp or mxfp4, not sg-special, which has its own"),
    (["in", "out", "--format", "sg-special64", "--rule", "ceil"],
     "--rule must come with --format m2xfp or mxfp4, not sg-special64, which has its own"),
    (["in", "out", "--rule", "up"], "invalid choice: 'up'"),
    (["in", "out", "--list"], "--list must come without OUT, --verify and --dequantize"),
    (["in", "--verify", "--include", "a"], "--include and --exclude must come with a conversion"),
    (["in", "out", "--dequantize", "--swizzled"], "must come with a conversion or --list"),
    (["in", "out", "--threads", "0"], "--threads must be 1 to 4 per processor, not 0"),
    (["in", "out", "--threads", "99999"], "per processor, not 99999"),
])
def test_bad_options(arguments, text, capsys):
    with pytest.raises(SystemExit, match="2"):
        run(*arguments)
    assert text in capsys.readouterr().err


def test_command(checkpoint, tmp_path):
    path, _ = checkpoint
    done = subprocess.run([sys.executable, "-W", "error", "-m", "golden", "convert", path,
                           tmp_path / "out"], capture_output=True, text=True, check=True)
    assert "copied (one axis): norm" in done.stdout
    assert done.stderr == ""
