# SPDX-License-Identifier: BSD-2-Clause
"""What is found in a checkpoint, and the values of packed weights.

The values were compared with those that torchao 0.18, compressed-tensors 0.20 and gguf 0.19 give
for files that they wrote. Here they are computed one by one, by tables of ml_dtypes.
"""

import json

import ml_dtypes
import numpy as np
import pytest

from golden.checkpoint import Model, open_rows, plan
from golden.checkpoint.convert import main
from tests.support.checkpoints import raw, swizzled

RNG = np.random.default_rng(0)
FP8 = {"F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2}


def found(path, **options):
    """Weights by name, with their values."""
    with Model(path) as model:
        decided = plan(model, **options)
        assert decided.wrong == {}
        values = {}
        for weight in decided.weights:
            read = open_rows(model, weight)
            # In two parts, as threads do.
            half = weight.rows // 2
            parts = [read(*part)[0] for part in ((half, weight.rows), (0, half))]
            values[weight.name] = weight, np.concatenate(parts[::-1]).reshape(weight.shape)
    return values, decided.left


def one(path, **options):
    values, _ = found(path, **options)
    (weight, read), = values.values()
    return weight, read


def equal(a, b):
    """The same bits, or NaN in both."""
    return a.dtype == b.dtype == np.float32 and a.shape == b.shape and bool(
        ((a.view(np.uint32) == b.view(np.uint32)) | np.isnan(a) & np.isnan(b)).all())


def four_bits(codes):
    """Values of codes, two in a byte."""
    halves = np.stack([codes & 15, codes >> 4], -1).reshape(*codes.shape[:-1], -1)
    return halves.view(ml_dtypes.float4_e2m1fn).astype(np.float32)


def scaled(elements, factors, width, height=1):
    """Each element times the factor of its block, in float32."""
    out = np.empty_like(elements)
    for i in np.ndindex(elements.shape):
        with np.errstate(over="ignore"):
            out[i] = elements[i] * factors[(*i[:-2], i[-2] // height, i[-1] // width)]
    return out


def e8m0(scales):
    return scales.view(ml_dtypes.float8_e8m0fnu).astype(np.float32)


def random_scales(shape):
    scales = RNG.integers(100, 140, shape, np.uint8)
    special = [0, 254, 255][: scales.size - 1]
    scales.reshape(-1)[: len(special)] = special
    return scales


@pytest.mark.parametrize(("codes", "dtype"), [
    ("x.weight_packed", "U8"), ("x.weight", "U8"), ("x.weight", "F8_E8M0")])
@pytest.mark.parametrize("layout", ["linear", "swizzled"])
def test_mxfp4(tmp_path, codes, dtype, layout):
    packed = RNG.integers(0, 256, (5, 48), np.uint8)
    scales = random_scales((5, 3))
    stored = scales if layout == "linear" else swizzled(scales)
    path = raw(tmp_path / "in", {codes: ("U8", packed), "x.weight_scale": (dtype, stored)})
    weight, values = one(path)
    assert (weight.name, weight.dtype, weight.shape) == ("x.weight", "MXFP4", (5, 96))
    assert equal(values, scaled(four_bits(packed), e8m0(scales), 32))
    with Model(path) as model:
        _, (kept, kept_scales) = open_rows(model, weight)(0, 5)
    assert np.array_equal(kept_scales, scales)
    assert np.array_equal(kept[:, ::2] | kept[:, 1::2] << 4, packed)


def test_mxfp4_of_other_dtypes(tmp_path):
    """F4 of the container; and bytes that are called integers, beside E8M0."""
    packed, scales = RNG.integers(0, 256, (2, 16), np.uint8), random_scales((2, 1))
    expected = scaled(four_bits(packed), e8m0(scales), 32)
    file = tmp_path / "in"
    raw(file, {"x.weight": ("F4", packed), "x.weight_scale": ("F8_E8M0", scales)})
    assert equal(one(file)[1], expected)
    raw(file, {"x.weight": ("I8", packed), "x.scale": ("F8_E8M0", scales)})
    assert equal(one(file)[1], expected)


@pytest.mark.parametrize("convention", ["_scale_2", "_global_scale"])
def test_nvfp4_rounds_as_libraries_do(tmp_path, convention):
    """The factor is rounded to float32, and the product once more; experts have scales each."""
    packed = RNG.integers(0, 256, (2, 3, 16), np.uint8)
    scales = RNG.integers(0, 0x7F, (2, 3, 2), np.uint8)
    scales[0, 0, 0] = 0x7F
    outer = np.float32([0.0123456, 3.3333333])
    path = raw(tmp_path / "in", {
        "e.up_packed": ("U8", packed), "e.up_scale": ("F8_E4M3", scales),
        f"e.up{convention}": ("F32", outer.reshape(2, 1, 1))})
    weight, values = one(path)
    decoded = scales.view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    factors = decoded * outer[:, None, None] if convention == "_scale_2" else (
        decoded / outer[:, None, None])
    assert weight.dtype == "NVFP4"
    assert equal(values, scaled(four_bits(packed), factors, 16))


@pytest.mark.parametrize("elements", FP8)
@pytest.mark.parametrize(("dtype", "layout"), [
    ("U8", "linear"), ("F8_E8M0", "linear"), ("U8", "swizzled")])
def test_mxfp8(tmp_path, elements, dtype, layout):
    codes, scales = RNG.integers(0, 256, (3, 64), np.uint8), random_scales((3, 2))
    stored = scales if layout == "linear" else swizzled(scales)
    path = raw(tmp_path / "in", {"x.weight": (elements, codes), "x.weight_scale": (dtype, stored)})
    weight, values = one(path)
    assert weight.dtype == "MXFP8"
    assert equal(values, scaled(codes.view(FP8[elements]).astype(np.float32), e8m0(scales), 32))


@pytest.mark.parametrize(("shape", "block"), [
    ((), (6, 80)), ((1,), (6, 80)), ((6, 1), (1, 80)), ((6,), (1, 80)), ((6, 5), (1, 16)),
    ((2, 2), (3, 40)), ((1, 80), (6, 1))])
@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_fp8(tmp_path, shape, block, dtype):
    codes = RNG.integers(0, 256, (6, 80), np.uint8)
    scales = RNG.random(shape).astype(np.float32 if dtype == "F32" else ml_dtypes.bfloat16)
    path = raw(tmp_path / "in", {"x.weight": ("F8_E4M3", codes),
                                 "x.weight_scale_inv": (dtype, np.asarray(scales))})
    weight, values = one(path)
    factors = scales.astype(np.float32).reshape(6 // block[0], 80 // block[1])
    assert weight.scales.block == block
    assert equal(values, scaled(codes.view(FP8["F8_E4M3"]).astype(np.float32), factors,
                                block[1], block[0]))


@pytest.mark.parametrize("config", [
    {"weight_block_size": [4, 32]},
    {"config_groups": {"group_0": {"weights": {"block_structure": [4, 32]}}}}])
def test_fp8_in_blocks_as_the_configuration_says(tmp_path, config):
    """The last blocks are partial; a float8 scale multiplies, too."""
    codes = RNG.integers(0, 256, (6, 80), np.uint8)
    scales = random_scales((2, 3))
    raw(tmp_path / "model.safetensors", {"x.weight": ("F8_E4M3", codes),
                                         "x.weight_scale_inv": ("F8_E8M0", scales)})
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": config}))
    # Not MXFP8, of which there would be a scale per 32 elements of each row.
    weight, values = one(tmp_path)
    assert (weight.dtype, weight.scales.block) == ("FP8", (4, 32))
    assert equal(values, scaled(codes.view(FP8["F8_E4M3"]).astype(np.float32), e8m0(scales), 32, 4))


@pytest.mark.parametrize(("shape", "block"), [
    ((2, 2, 3), (4, 32)), ((2, 1, 1), (6, 80)), ((2,), (6, 80)), ((2, 6, 1), (1, 80))])
def test_fp8_of_experts(tmp_path, shape, block):
    """Blocks begin anew with each expert."""
    codes = RNG.integers(0, 256, (2, 6, 80), np.uint8)
    scales = np.float32(RNG.random(shape))
    raw(tmp_path / "model.safetensors", {"x.weight": ("F8_E4M3", codes),
                                         "x.weight_scale": ("F32", scales)})
    (tmp_path / "config.json").write_text(
        json.dumps({"quantization_config": {"weight_block_size": [4, 32]}}))
    weight, values = one(tmp_path)
    factors = scales.reshape(2, -(-6 // block[0]), -(-80 // block[1]))
    assert equal(values, scaled(codes.view(FP8["F8_E4M3"]).astype(np.float32), factors,
                                block[1], block[0]))


def torchao(kind, **data):
    return {"x.weight": json.dumps({"_type": kind, "_data": data}),
            "tensor_names": json.dumps(["x.weight"])}


@pytest.mark.parametrize("is_swizzled", [False, True])
@pytest.mark.parametrize("outer", [None, 0.0123456])
def test_torchao_nvfp4(tmp_path, is_swizzled, outer):
    packed = RNG.integers(0, 256, (130, 24), np.uint8)
    scales = RNG.integers(0, 0x7F, (130, 3), np.uint8)
    # torchao gives the swizzled plane another shape, of as many bytes.
    stored = swizzled(scales).reshape(64, 16) if is_swizzled else scales
    tensors = {"x._weight_qdata": ("U8", packed), "x._weight_scale": ("F8_E4M3", stored)}
    if outer:
        tensors["x._weight_per_tensor_scale"] = "F32", np.float32(outer)
    path = raw(tmp_path / "in", tensors, torchao("NVFP4Tensor", block_size=16,
                                                 is_swizzled_scales=is_swizzled))
    weight, values = one(path)
    factors = scales.view(FP8["F8_E4M3"]).astype(np.float32) * np.float32(outer or 1)
    assert (weight.name, weight.dtype) == ("x.weight", "NVFP4")
    assert equal(values, scaled(four_bits(packed), factors, 16))


@pytest.mark.parametrize("is_swizzled", [False, True])
@pytest.mark.parametrize(("dtype", "name"), [("U8", "MXFP4"), ("F8_E5M2", "MXFP8")])
def test_torchao_mx(tmp_path, is_swizzled, dtype, name):
    codes = RNG.integers(0, 256, (3, 32 if dtype == "U8" else 64), np.uint8)
    scales = random_scales((3, 2))
    stored = swizzled(scales).reshape(32, 16) if is_swizzled else scales
    path = raw(tmp_path / "in", {
        "x._weight_qdata": (dtype, codes), "x._weight_scale": ("F8_E8M0", stored)},
        torchao("MXTensor", block_size=32, is_swizzled_scales=is_swizzled,
                elem_dtype={"_type": "torch.dtype", "_data": "float4_e2m1fn_x2"}))
    weight, values = one(path)
    elements = four_bits(codes) if dtype == "U8" else codes.view(FP8[dtype]).astype(np.float32)
    assert weight.dtype == name
    assert equal(values, scaled(elements, e8m0(scales), 32))


def test_torchao_float8(tmp_path):
    codes, scales = RNG.integers(0, 256, (4, 64), np.uint8), np.float32(RNG.random((4, 1)))
    path = raw(tmp_path / "in", {"x._weight_qdata": ("F8_E4M3", codes),
                                 "x._weight_scale": ("F32", scales)}, torchao("Float8Tensor"))
    assert equal(one(path)[1], scaled(codes.view(FP8["F8_E4M3"]).astype(np.float32), scales, 64))


def u8(*shape):
    return "U8", np.ones(shape, np.uint8)


def f32(*shape):
    return "F32", np.ones(shape, np.float32)


@pytest.mark.parametrize(("tensors", "metadata", "text"), [
    ({"x.weight": u8(2, 8)}, {}, "'x.weight' needs 'x.weight_scale', which is missing"),
    ({"x.weight": ("F8_E4M3", u8(2, 8)[1])}, {}, "needs 'x.weight_scale', which is missing"),
    ({"x.weight": ("F4", u8(2, 8)[1])}, {}, "needs 'x.weight_scale', which is missing"),
    ({"e.up_packed": u8(2, 2, 8)}, {}, "'e.up_packed' needs 'e.up_scale', which is missing"),
    ({"e.up_blocks": u8(2, 2, 16)}, {}, "'e.up_blocks' needs 'e.up_scales', which is missing"),
    ({"x._weight_qdata": u8(2, 16)}, {}, "needs a description of 'x.weight' as torchao writes it"),
    ({"x._weight_qdata": u8(2, 16)}, {"x.weight": "{}"}, "needs a description of 'x.weight'"),
    ({"x._weight_qdata": u8(2, 16)}, torchao("MXTensor"), "needs 'x._weight_scale', which is mis"),
    ({"x._weight_qdata": u8(2, 16), "x._weight_scale": u8(2, 2)},
     torchao("MXTensor", block_size=32, elem_dtype="float4"),
     r"needs 'x._weight_scale' of F8_E8M0 or U8 with 2 scales, not U8 [2, 2]"),
    ({"x.weight": ("F8_E4M3", u8(6, 80)[1]), "x.weight_scale": f32(4, 7)}, {},
     "with a scale per matrix, row or block, not [4, 7]"),
    ({"x.weight": ("F8_E4M3", u8(2, 80)[1]), "x.weight_scale": u8(2, 2)}, {},
     "must have a multiple of 32 elements in a row of MXFP8, not 80"),
])
def test_packed_weights_without_their_scales_are_errors(tmp_path, tensors, metadata, text, capsys):
    path = raw(tmp_path / "in", tensors | {"fine.weight": f32(2, 32)}, metadata)
    with Model(path) as model:
        decided = plan(model)
        name, = decided.wrong
        assert text in decided.wrong[name]
    assert main([str(path), str(tmp_path / "out"), "--verify"]) == 1
    assert text in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert main([str(path), "--list"]) == 1
    assert f"error: {decided.wrong[name]}" in capsys.readouterr().out
    # It can be left alone.
    with Model(path) as model:
        assert plan(model, exclude=[name]).left[name] == "--exclude"


@pytest.mark.parametrize(("tensors", "reasons"), [
    # GPTQ and AWQ: scales of two axes belong to the integers beside them.
    ({"x.qweight": ("I32", np.ones((8, 64), np.int32)), "x.qzeros": ("I32", np.ones((2, 8), "i4")),
      "x.scales": ("F16", np.ones((2, 64), np.float16)), "x.extra": f32(4, 64)},
     {"x.qweight": "I32 is no type of weights", "x.qzeros": "I32 is no type of weights",
      "x.scales": "bias, scale or zero point",
      "x.extra": "part of another scheme, beside 'x.qweight' of I32"}),
    # bitsandbytes.
    ({"x.weight": u8(512, 1), "x.weight.absmax": f32(16), "x.weight.quant_map": f32(16)},
     {"x.weight": "of another scheme, that of bitsandbytes", "x.weight.absmax": "one axis",
      "x.weight.quant_map": "one axis"}),
    ({"x.weight": ("I8", np.ones((4, 64), np.int8)), "x.weight_scale": f32(4, 1)},
     {"x.weight": "integers with scales 'x.weight_scale' are not understood",
      "x.weight_scale": "bias, scale or zero point"}),
    ({"x.weight": u8(4, 32), "x.weight_scale": f32(4, 1)},
     {"x.weight": "codes of U8 with scales 'x.weight_scale' of F32 are not understood",
      "x.weight_scale": "bias, scale or zero point"}),
    ({"x.weight_packed": u8(4, 48), "x.weight_scale": u8(4, 2)},
     {"x.weight_packed": "MXFP6 is not understood", "x.weight_scale": "U8 is no type of weights"}),
    ({"x.weight_packed": ("I32", np.ones((4, 8), np.int32)), "x.weight_scale": f32(4, 1)},
     {"x.weight_packed": "I32 is no type of weights",
      "x.weight_scale": "bias, scale or zero point"}),
])
def test_other_schemes_are_left_alone(tmp_path, tensors, reasons):
    _, left = found(raw(tmp_path / "in", tensors))
    assert left == reasons


def test_packed_routers_are_left_alone_unless_asked_for(tmp_path):
    path = raw(tmp_path / "in", {
        "mlp.gate.weight": u8(4, 16), "mlp.gate.weight_scale": u8(4, 1),
        "mlp.up.weight": u8(4, 16), "mlp.up.weight_scale": u8(4, 1)})
    values, left = found(path)
    assert set(values) == {"mlp.up.weight"}
    assert left == dict.fromkeys(("mlp.gate.weight", "mlp.gate.weight_scale"), "router")
    values, left = found(path, include=["*.gate.weight"])
    assert (len(values), left) == (2, {})


def test_odd_tensors_refuse_no_file(tmp_path, capsys):
    """Empty ones, unusual names, and names that planes would take."""
    tensors = {
        "fine.weight": f32(2, 32), "empty": f32(2, 0), "empty_blocks": u8(0, 16), "": f32(1, 64),
        "new\nline\u0000": f32(2, 64), "value": f32(), "deep": f32(1, 1, 1, 64),
        "double": ("F64", np.ones((2, 64))), "short": f32(64, 4),
        "a": f32(1, 32), "a.scales": f32(3), "b_blocks": u8(1, 1, 16), "b_scales": u8(1, 1),
        "b": f32(4), "c": f32(1, 32), "c.metadata": f32(1, 32), "flat_blocks": u8(16),
        "c.metadata.elements": f32(1)}
    path = raw(tmp_path / "in", tensors)
    values, left = found(path)
    assert set(values) == {"fine.weight", "", "new\nline\u0000"}
    assert left == {
        "empty": "empty", "empty_blocks": "empty", "value": "a single value",
        "deep": "more than three axes", "double": "F64 is no type of weights",
        "short": "fewer than 32 elements along the reduction axis",
        "a": "the name 'a.scales' is taken by another tensor", "a.scales": "one axis",
        "b_blocks": "the name 'b' is taken by another tensor",
        "b_scales": "the name 'b' is taken by another tensor", "b": "one axis",
        "c.metadata": "the name 'c.metadata' is taken by another tensor",
        "c": "the name 'c.metadata' is taken by another tensor",
        "c.metadata.elements": "one axis", "flat_blocks": "U8 is no type of weights"}
    assert main([str(path), str(tmp_path / "out"), "--verify"]) == 0
    printed = capsys.readouterr().out
    assert "new\\nline\\x00" in printed
    assert main([str(tmp_path / "out"), str(tmp_path / "back"), "--dequantize"]) == 0
    with Model(tmp_path / "back") as model:
        assert set(model.tensors) == set(tensors)
