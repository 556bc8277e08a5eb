# SPDX-License-Identifier: BSD-2-Clause
"""Models of shards: folders, indices and configurations."""

import json
import os

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from golden import dequantize, quantize_weights
from golden.checkpoint import Model, plan, planes
from golden.checkpoint.convert import main
from golden.output import new_folder
from tests.support.checkpoints import raw

RNG = np.random.default_rng(0)
SHARDS = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"


def index(folder, **more):
    names = {name: shard for shard in SHARDS for name in load_file(folder / shard)} | more
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": names}))


@pytest.fixture
def published(tmp_path):
    """A folder as it is published, in NVFP4 whose scales lie in the other shard."""
    folder = tmp_path / "model"
    (folder / "templates").mkdir(parents=True)
    first = {"a.weight": ("U8", RNG.integers(0, 256, (4, 32), np.uint8)),
             "a.weight_scale_2": ("F32", np.float32(0.5)),
             "b.weight": ("BF16", RNG.standard_normal((4, 64)).astype(ml_dtypes.bfloat16))}
    second = {"a.weight_scale": ("F8_E4M3", RNG.integers(0, 127, (4, 4), np.uint8)),
              "lm_head.weight": ("F32", RNG.standard_normal((4, 64), np.float32)),
              "norm.weight": ("F32", np.ones(64, np.float32))}
    for name, tensors in zip(SHARDS, (first, second), strict=True):
        raw(folder / name, tensors, {"format": "pt"})
    names = {name: shard for shard, tensors in zip(SHARDS, (first, second), strict=True)
             for name in tensors}
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": names}))
    (folder / "config.json").write_text(json.dumps({
        "model_type": "llama", "quantization_config": {"quant_method": "modelopt",
                                                       "ignore": ["lm_head"]}}))
    for name in "tokenizer.json", "templates/chat.jinja", "README.md":
        (folder / name).write_text(f"text of {name}")
    for name in "pytorch_model.bin", "consolidated.safetensors", "hf_quant_config.json":
        (folder / name).write_text("{}")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x").write_text("x")
    return folder


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("by_index", [False, True])
def test_a_folder_is_converted_shard_by_shard(published, tmp_path, by_index, capsys):
    out, back = tmp_path / "out", tmp_path / "back"
    source = published / INDEX if by_index else published
    assert main([str(source), str(out), "--verify"]) == 0
    printed = capsys.readouterr().out
    assert "copied (the configuration ignores 'lm_head'): lm_head.weight" in printed
    assert ("files that are not copied: consolidated.safetensors, hf_quant_config.json, "
            "pytorch_model.bin") in printed
    others = {"tokenizer.json", "templates/chat.jinja", "README.md"}
    assert files(out) == {*SHARDS, INDEX, "config.json", *others,
                          *(f"{shard}.json" for shard in SHARDS)}
    for name in others:
        assert (out / name).read_text() == f"text of {name}"
    written = {shard: load_file(out / shard) for shard in SHARDS}
    assert set(written[SHARDS[0]]) == {f"{name}.weight.{plane}" for name in "ab"
                                       for plane in ("elements", "metadata", "scales")}
    assert set(written[SHARDS[1]]) == {"lm_head.weight", "norm.weight"}
    stated = json.loads((out / INDEX).read_text())
    assert stated["weight_map"] == {name: shard for shard, tensors in written.items()
                                    for name in tensors}
    assert stated["metadata"]["total_size"] == sum(
        tensor.nbytes for tensors in written.values() for tensor in tensors.values())
    config = json.loads((out / "config.json").read_text())
    assert config["model_type"] == "llama"
    assert config["quantization_config"].items() >= {
        "quant_method": "m2xfp", "format": "m2xfp", "rule": "floor", "group_size": 32,
        "source": {"quant_method": "modelopt", "ignore": ["lm_head"]}}.items()

    # The whole is checked again, and each shard, and the way back.
    assert main([str(out), "--verify"]) == 0
    assert "2 tensors in planes, 2 copied" in capsys.readouterr().out
    assert main([str(out / SHARDS[0]), "--verify"]) == 0
    assert main([str(out), str(back), "--dequantize"]) == 0
    assert files(back) == {*SHARDS, INDEX, "config.json", *others}
    assert json.loads((back / "config.json").read_text()) == {"model_type": "llama"}
    b = np.frombuffer(published.joinpath(SHARDS[0]).read_bytes()[-512:], ml_dtypes.bfloat16)
    read = load_file(back / SHARDS[0])
    assert np.array_equal(read["b.weight"], dequantize(quantize_weights(b.reshape(4, 64))))
    assert set(read) == {"a.weight", "b.weight"}
    assert set(json.loads((back / INDEX).read_text())["weight_map"]) == {
        "a.weight", "b.weight", "lm_head.weight", "norm.weight"}


def test_a_changed_shard_is_found_out(published, tmp_path, capsys):
    assert main([str(published), str(tmp_path / "out")]) == 0
    file = tmp_path / "out" / SHARDS[1]
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert main([str(tmp_path / "out"), "--verify"]) == 1
    assert "'norm.weight' has another digest" in capsys.readouterr().err
    assert main([str(tmp_path / "out"), str(tmp_path / "back"), "--dequantize"]) == 1
    assert not (tmp_path / "back").exists()


def test_nothing_to_verify(tmp_path, capsys):
    """A shard of scales is no converted model."""
    raw(tmp_path / "in", {"a.weight_scale": ("F8_E4M3", np.ones((4, 4), np.uint8))})
    assert main([str(tmp_path / "in"), str(tmp_path / "out"), "--verify"]) == 1
    assert "holds no weight to quantize" in capsys.readouterr().err
    planes.write(tmp_path / "out", {}, {"a": np.ones(3, np.float32)})
    assert main([str(tmp_path / "out"), "--verify"]) == 1
    assert "holds no tensor in planes" in capsys.readouterr().err


def test_one_file_of_a_folder_lacks_scales(published, tmp_path, capsys):
    assert main([str(published / SHARDS[0]), str(tmp_path / "out"), "--verify"]) == 1
    assert "'a.weight' needs 'a.weight_scale', which is missing; if it lies in another shard" in (
        capsys.readouterr().err)


def test_shards_without_an_index(published, tmp_path):
    (published / INDEX).unlink()
    (published / "consolidated.safetensors").unlink()
    (published / "config.json").unlink()
    assert main([str(published), str(tmp_path / "out")]) == 0
    # One is written nevertheless.
    assert set(json.loads((tmp_path / "out" / INDEX).read_text())["weight_map"].values()) == {
        *SHARDS}
    assert not (tmp_path / "out" / "config.json").exists()


@pytest.mark.parametrize(("ignored", "names"), [
    (["lm_head"], {"lm_head.weight"}), (["model.layers.1"], {"model.layers.1.q.weight"}),
    (["q"], {"model.layers.1.q.weight", "model.layers.10.q.weight"}),
    (["*layers.1*"], {"model.layers.1.q.weight", "model.layers.10.q.weight"}),
    (["re:.*layers.1[.].*"], {"model.layers.1.q.weight"}),
    (["re:.*experts$"], {"model.experts.gate_up_proj", "model.experts.down_proj"}),
    (["model.experts"], {"model.experts.gate_up_proj", "model.experts.down_proj"}),
    (["layers", "head", "Linear", 3, ""], set())])
@pytest.mark.parametrize("place", ["ignore", "modules_to_not_convert", "exclude_modules"])
def test_what_the_configuration_ignores(tmp_path, ignored, names, place):
    save_file({name: np.zeros((4, 64), np.float32) for name in (
        "lm_head.weight", "model.layers.1.q.weight", "model.layers.10.q.weight")} | {
        "model.experts.gate_up_proj": np.zeros((2, 64, 64), np.float32),
        "model.experts.down_proj": np.zeros((2, 32, 64), np.float32)},
        tmp_path / "model.safetensors")
    if place == "exclude_modules":
        (tmp_path / "hf_quant_config.json").write_text(
            json.dumps({"quantization": {"quant_algo": "NVFP4", place: ignored}}))
    else:
        (tmp_path / "config.json").write_text(json.dumps({"quantization_config": {place: ignored}}))
    with Model(tmp_path) as model:
        decided = plan(model)
        assert {name for name, why in decided.left.items() if "ignores" in why} == names
        assert {*decided.left} == names
        # It can be asked for.
        assert not plan(model, include=["*"]).left


def change_index(folder, **changes):
    (folder / INDEX).write_text(json.dumps({"weight_map": changes}))


@pytest.mark.parametrize(("change", "text"), [
    (lambda f: (f / SHARDS[1]).unlink(), f"{SHARDS[1]}: No such file"),
    (lambda f: (f / INDEX).write_text("{"), f"{INDEX} must be JSON"),
    (lambda f: (f / INDEX).write_text("[]"), f"{INDEX} must be a JSON object"),
    (lambda f: (f / INDEX).write_text("{}"), "must have a weight_map of names to shards"),
    (lambda f: change_index(f, a=3), "must have a weight_map of names to shards"),
    (lambda f: change_index(f, a="../x"), "must name shards in its own folder, not '../x'"),
    (lambda f: change_index(f, c=SHARDS[0]), f"{SHARDS[0]} has no tensor 'c'"),
    (lambda f: (f / "other.safetensors.index.json").write_text("{}"), "has no tensor"),
    (lambda f: (f / SHARDS[1]).write_bytes((f / SHARDS[0]).read_bytes()), "has a tensor 'a.weight"),
    (lambda f: (f / "config.json").write_text("nothing"), "config.json must be JSON"),
    (lambda f: (f / "config.json").write_text('{"quantization_config": 3}'),
     "must have a quantization_config that is a JSON object"),
    (lambda f: (f / "config.json").write_text('{"quantization_config": {"ignore": ["re:("]}}'),
     "the configuration ignores 're:(', which is no regular expression"),
])
def test_bad_models(published, tmp_path, change, text, capsys):
    if "other" in text or text == "has no tensor":
        change_index(published, none=SHARDS[0])
    change(published)
    assert main([str(published), str(tmp_path / "out")]) == 1
    assert text in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_two_indices(published, tmp_path, capsys):
    (published / INDEX).rename(published / "a.safetensors.index.json")
    (published / "b.safetensors.index.json").write_text("{}")
    assert main([str(published), "--list"]) == 1
    assert "must hold one index of shards, not 2: name one, such as" in capsys.readouterr().err
    assert main([str(published / "a.safetensors.index.json"), "--list"]) == 0


def test_only_new_folders_are_written(published, tmp_path, capsys):
    for place in published, tmp_path, published / "config.json":
        assert main([str(published), str(place)]) == 2
        assert "OUT must be a new folder" in capsys.readouterr().err
    assert main([str(published), str(tmp_path / "none" / "out")]) == 2
    # Not even where one appears meanwhile, and an error leaves nothing.
    with pytest.raises(FileExistsError), new_folder(tmp_path / "out") as folder:
        (folder / "x").touch()
        (tmp_path / "out").mkdir()
    assert sorted(os.listdir(tmp_path)) == ["model", "out"]


def test_in_must_be_a_regular_file(tmp_path, capsys):
    os.mkfifo(tmp_path / "in")
    assert main([str(tmp_path / "in"), str(tmp_path / "out")]) == 1
    assert "must be a regular file" in capsys.readouterr().err
