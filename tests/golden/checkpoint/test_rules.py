# SPDX-License-Identifier: BSD-2-Clause
"""Which tensors of floats are quantized, and along which axis."""

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from golden import dequantize, quantize_weights
from golden.checkpoint import Model, plan, rules, sources
from golden.checkpoint.convert import convert, main
from golden.checkpoint.planes import restore


@pytest.mark.parametrize(("name", "reason"), [
    # Names of published models; of those that are quantized, some resemble the others.
    ("model.layers.0.self_attn.q_proj.weight", ""), ("model.layers.0.mlp.gate_proj.weight", ""),
    ("blk.0.ffn_gate.weight", ""), ("blk.0.ffn_gate_exps.weight", ""), ("output.weight", ""),
    ("lm_head.weight", ""), ("transformer.h.0.attn.c_attn.weight", ""),
    ("model.layers.0.block_sparse_moe.experts.0.w1.weight", ""),
    ("model.layers.1.mlp.shared_expert.up_proj.weight", ""),
    ("model.layers.0.mlp.experts.gate_up_proj", ""), ("mlp.fc_in.weight", ""),
    ("model.layers.0.block_sparse_moe.gate.weight", "router"),
    ("model.layers.0.mlp.gate.weight", "router"), ("model.layers.0.mlp.router.weight", "router"),
    ("blk.0.ffn_gate_inp.weight", "router"), ("mlp.shared_expert_gate.weight", "router"),
    ("model.embed_tokens.weight", "embedding"), ("token_embd.weight", "embedding"),
    ("transformer.wte.weight", "embedding"), ("shared.weight", "embedding"),
    ("transformer.wpe.weight", "embedding"),
    ("decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", "embedding"),
    ("vision.patch_embedding.weight", "embedding"), ("vision.cls_token", "embedding"),
    ("qformer.query_tokens", "embedding"), ("x.tokenwise.weight", ""),
    ("vision.position_ids", "position table"), ("encoder.pos_emb", "position table"),
    ("position_embd.weight", "embedding"), ("rope_freqs.weight", "position table"),
    ("model.layers.0.self_attn.rotary_emb.inv_freq", "position table"),
    ("freqs_cis", "position table"), ("cos_cached", "position table"),
    ("model.norm.weight", "norm"), ("model.layers.0.input_layernorm.weight", "norm"),
    ("transformer.h.0.ln_1.weight", "norm"), ("blk.0.attn_norm.weight", "norm"),
    ("model.layers.0.mlp.down_proj.codebooks", "codebook"), ("q_proj.centroids.weight", "codebook"),
    ("x.weight.quant_map", "codebook"),
    ("mlp.experts.gate_up_proj_bias", "bias, scale or zero point"),
    ("mlp.gate.e_score_correction_bias", "bias, scale or zero point"),
    ("x.weight_scale", "bias, scale or zero point"), ("x.scales", "bias, scale or zero point"),
    ("x.weight_scale_2", "bias, scale or zero point"), ("x.biased.weight", ""),
    ("x.weight_scale_inv", "bias, scale or zero point"), ("scale_proj.weight", ""),
])
def test_names(name, reason):
    assert rules.reason_of_name(name) == reason


def floats(**shapes):
    return {name.replace("__", "."): np.zeros(shape, np.float32)
            for name, shape in shapes.items()}


def decided(path, tensors, **options):
    save_file(tensors, path / "in")
    with Model(path / "in") as model:
        found = plan(model, **options)
    return {weight.name: weight for weight in found.weights}, found.left


@pytest.mark.parametrize(("up", "down", "swapped"), [
    # gpt-oss, where both sizes are the same, and Llama 4; then (E, out, in).
    ((2, 96, 192), (2, 96, 96), True), ((2, 64, 320), (2, 160, 64), True),
    ((2, 192, 96), (2, 96, 96), False), ((2, 320, 64), (2, 64, 160), False),
    ((2, 64, 128), (2, 96, 64), None)])
def test_experts_reduce_along_the_inner_axis(tmp_path, up, down, swapped):
    """Each projection's output is the other's input."""
    weights, left = decided(tmp_path, floats(a__gate_up_proj=up, a__down_proj=down))
    if swapped is None:
        assert left == dict.fromkeys(("a.gate_up_proj", "a.down_proj"),
                                     "its reduction axis is not known")
        return
    assert [weight.transposed for weight in weights.values()] == [swapped] * 2
    for name, shape in ("a.gate_up_proj", up), ("a.down_proj", down):
        assert weights[name].shape == ((shape[0], *shape[:0:-1]) if swapped else shape)


def test_biases_tell_the_axis_of_experts(tmp_path):
    """Also where the other projection is in no sight."""
    weights, _ = decided(tmp_path, floats(
        a__gate_up_proj=(2, 96, 320), a__gate_up_proj_bias=(2, 320),
        b__gate_up_proj=(2, 320, 96), b__gate_up_proj_bias=(2, 320)))
    assert {name: weight.transposed for name, weight in weights.items()} == {
        "a.gate_up_proj": True, "b.gate_up_proj": False}


@pytest.mark.parametrize(("others", "config", "swapped"), [
    (dict(h__c_attn__weight=(64, 192), h__c_attn__bias=(192,)), {}, True),
    # Linear layers of the same names (StarCoder).
    (dict(h__c_attn__weight=(192, 64), h__c_attn__bias=(192,)), {}, False),
    ({}, {"model_type": "gpt2"}, True), ({}, {}, None)])
def test_conv1d(tmp_path, others, config, swapped):
    """A square matrix goes by its siblings' biases, or by the configuration."""
    tensors = floats(h__c_proj__weight=(64, 64), h__c_proj__bias=(64,), **others)
    save_file(tensors, tmp_path / "in")
    with Model(tmp_path / "in") as model:
        assert rules.transposed(model.tensors, "h.c_proj.weight", config) is swapped
        if others:
            assert rules.transposed(model.tensors, "h.c_attn.weight", config) is swapped


def test_other_matrices_go_by_their_biases(tmp_path):
    weights, _ = decided(tmp_path, floats(
        a__weight=(64, 96), a__bias=(96,), b__weight=(64, 96), b__bias=(64,), c__weight=(64, 96),
        d__weight=(64, 64), d__bias=(64,), e__weight=(64, 96), e__bias=(7,)))
    assert {name: weight.transposed for name, weight in weights.items()} == {
        "a.weight": True, "b.weight": False, "c.weight": False, "d.weight": False,
        "e.weight": False}


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
@pytest.mark.parametrize("threads", [1, 3])
def test_transposed_weights(tmp_path, dtype, threads, monkeypatch, capsys):
    """Planes are those of (E, out, in); the way back gives (E, in, out)."""
    monkeypatch.setattr(sources, "BLOCK", 1000)
    rng = np.random.default_rng(0)
    experts = rng.standard_normal((3, 40, 70)).astype(dtype)
    conv = rng.standard_normal((64, 96)).astype(dtype)
    save_file({"m.experts.gate_up_proj": experts, "m.experts.gate_up_proj_bias":
               np.zeros((3, 70), dtype), "c.weight": conv, "c.bias": np.zeros(96, dtype)},
              tmp_path / "in")
    assert main([*map(str, (tmp_path / "in", tmp_path / "out")), "--verify",
                 "--threads", str(threads)]) == 0
    printed = capsys.readouterr().out
    assert "m.experts.gate_up_proj  3 x 40 x 70     1" in printed
    assert "c.weight                64 x 96         0" in printed
    written = load_file(tmp_path / "out")
    restore(tmp_path / "out", tmp_path / "back", dtype="source", threads=threads)
    back = load_file(tmp_path / "back")
    for name, stored in ("m.experts.gate_up_proj", experts), ("c.weight", conv):
        q = quantize_weights(np.ascontiguousarray(stored.swapaxes(-1, -2)))
        assert written[f"{name}.elements"].tobytes() == q.pack()[0]
        assert back[name].dtype == stored.dtype
        assert np.array_equal(back[name], dequantize(q).swapaxes(-1, -2).astype(dtype))


def test_include_and_exclude(tmp_path, capsys):
    tensors = floats(model__embed__weight=(4, 64), model__norm__weight=(64,), a__weight=(4, 64),
                     b__weight=(4, 64), short__weight=(64, 4), c__gate_up_proj=(2, 32, 64))
    weights, left = decided(tmp_path, tensors, include=["*embed*", "short.*", "*norm*", "c.*"],
                            exclude=["b.*"])
    assert set(weights) == {"model.embed.weight", "a.weight", "short.weight", "c.gate_up_proj"}
    # What cannot be done is left alone though it is asked for.
    assert left == {"model.norm.weight": "one axis", "b.weight": "--exclude"}
    assert weights["c.gate_up_proj"].shape == (2, 32, 64)
    # Exclusion is stronger.
    weights, left = decided(tmp_path, tensors, include=["a.*"], exclude=["a.weight"])
    assert left["a.weight"] == "--exclude"
    for option in "--include", "--exclude":
        assert main([str(tmp_path / "in"), "--list", option, "none*"]) == 2
        assert capsys.readouterr().err == (
            f"error: {option} must match the name of a tensor, not 'none*'\n")


def test_list(tmp_path, capsys):
    save_file(floats(model__embed__weight=(4, 64), a__weight=(64, 96), a__bias=(96,)),
              tmp_path / "in")
    assert main([str(tmp_path / "in"), "--list"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "tensor              dtype  shape    verdict",
        "a.bias              F32    96       copied: one axis",
        "a.weight            F32    64 x 96  quantized, as 64 x 96 along axis 0",
        "model.embed.weight  F32    4 x 64   copied: embedding"]
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_threads_change_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "BLOCK", 200)
    rng = np.random.default_rng(1)
    save_file({f"{i}.weight": rng.standard_normal((i + 3, 50), np.float32) for i in range(4)},
              tmp_path / "in")
    for threads in 1, 2, 5:
        convert(tmp_path / "in", tmp_path / "out", threads=threads, verify=True)
        written = (tmp_path / "out").read_bytes()
        assert written == (tmp_path / "first").read_bytes() if threads > 1 else (
            (tmp_path / "first").write_bytes(written))


@pytest.mark.parametrize(("name", "shape", "reason"), [
    ("conv.weight", (64, 1, 4), "fewer than 32 elements along the reduction axis"),
    ("conv2.weight", (64, 3, 64, 64), "more than three axes"),
    ("x.weight", (4, 31), "fewer than 32 elements along the reduction axis")])
def test_shapes(tmp_path, name, shape, reason):
    _, left = decided(tmp_path, {name: np.zeros(shape, np.float32)})
    assert left == {name: reason}
