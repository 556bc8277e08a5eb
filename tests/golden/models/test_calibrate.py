# SPDX-License-Identifier: BSD-2-Clause
"""Channel scales change nothing but the numbers that are rounded; the command, on small models."""

import json
from pathlib import Path

import numpy as np
import pytest

from golden import __main__ as command
from golden import dequantize, quantize_activations, quantize_weights
from golden.checkpoint import planes
from golden.checkpoint.safetensors import BadFile, Reader
from golden.codec.quantized import Quantized
from golden.formats.catalogue import FORMATS
from golden.formats.nvfp4 import dequantize_nvfp4, tensor_scale_of
from golden.models import calibrate, calibrate_evaluation, hooks, pretrained
from golden.models.gptq import gptq, gptq_nvfp4, gptq_razer
from golden.units.nvfp4_quantizer import quantize_nvfp4

HEADS, GROUPS, HEAD = 6, 2, 8
PREFIX = "model.layers.0."


def block(rng, hidden=40, inner=72):
    """Weights of a block and biases of its attention, with channels of unlike sizes."""
    def matrix(rows, columns):
        w = rng.standard_normal((rows, columns)) * 2.0 ** rng.uniform(-3, 3, columns)
        return w.astype(np.float32)

    values = GROUPS * HEAD
    tensors = {
        "input_layernorm.weight": matrix(1, hidden)[0],
        "post_attention_layernorm.weight": matrix(1, hidden)[0],
        "self_attn.q_proj.weight": matrix(HEADS * HEAD, hidden),
        "self_attn.k_proj.weight": matrix(values, hidden),
        "self_attn.v_proj.weight": matrix(values, hidden),
        "self_attn.v_proj.bias": matrix(1, values)[0],
        "self_attn.q_proj.bias": matrix(1, HEADS * HEAD)[0],
        "self_attn.o_proj.weight": matrix(hidden, HEADS * HEAD),
        "mlp.gate_proj.weight": matrix(inner, hidden),
        "mlp.up_proj.weight": matrix(inner, hidden),
        "mlp.down_proj.weight": matrix(hidden, inner),
    }
    return {PREFIX + name: tensor for name, tensor in tensors.items()}


def run(tensors, x):
    """What a block computes, but for its sums with the inputs and softmax; and linears' inputs."""
    def norm(name, x):
        return x / np.sqrt((x**2).mean(-1, keepdims=True)) * tensors[f"{PREFIX}{name}.weight"]

    def linear(name, x):
        inputs[PREFIX + name] = x
        y = x @ tensors[f"{PREFIX}{name}.weight"].T.astype(np.float64)
        return y + tensors.get(f"{PREFIX}{name}.bias", 0)

    inputs = {}
    h = norm("input_layernorm", x)
    q = linear("self_attn.q_proj", h).reshape(len(x), GROUPS, HEADS // GROUPS, HEAD)
    k, v = (linear(f"self_attn.{name}_proj", h).reshape(len(x), GROUPS, HEAD) for name in "kv")
    scores = np.einsum("igcd,jgd->gcij", q, k) / 100
    mixed = np.einsum("gcij,jgd->igcd", scores, v).reshape(len(x), -1)
    h = norm("post_attention_layernorm", linear("self_attn.o_proj", mixed))
    gate = linear("mlp.gate_proj", h)
    return linear("mlp.down_proj", gate / (1 + np.exp(-gate)) * linear("mlp.up_proj", h)), inputs


def hessians_of(inputs):
    return {name: x.T @ x for name, x in inputs.items()
            if name.rpartition(".")[2] in ("q_proj", "o_proj", "gate_proj", "down_proj")}


def test_scales_change_nothing():
    rng = np.random.default_rng(0)
    tensors = block(rng)
    x = rng.standard_normal((50, 40)) * 2.0 ** rng.uniform(-4, 4, 40)
    before, inputs = run(tensors, x)
    hessians = hessians_of(inputs)
    originals = {name: tensor.copy() for name, tensor in tensors.items()}
    given = dict(tensors)
    scales = calibrate.scale_block(given, hessians, prefix=PREFIX, head=HEAD)
    # The arrays that were given are left alone.
    assert all(np.array_equal(tensors[name], originals[name]) for name in tensors)
    after, inputs = run(given, x)
    # Powers of two are exact, in whatever order sums are taken.
    assert np.allclose(after, before, rtol=1e-12, atol=0)
    for name, expected in hessians_of(inputs).items():
        assert np.allclose(hessians[name], expected, rtol=1e-9, atol=1e-12)
    assert {name: len(s) for name, s in scales.items()} == {
        f"{PREFIX}mlp.up_proj": 72, f"{PREFIX}self_attn.v_proj": GROUPS * HEAD,
        f"{PREFIX}input_layernorm": 40, f"{PREFIX}post_attention_layernorm": 40}
    for s in scales.values():
        assert (np.frexp(s)[0] == 0.5).all()
        assert len(set(s)) > 2
    # Each channel of values is scaled by what all of its queries' outputs were.
    values = originals[f"{PREFIX}self_attn.v_proj.bias"] / given[f"{PREFIX}self_attn.v_proj.bias"]
    assert np.array_equal(values, scales[f"{PREFIX}self_attn.v_proj"])
    columns = (given[f"{PREFIX}self_attn.o_proj.weight"]
               / originals[f"{PREFIX}self_attn.o_proj.weight"])[0].reshape(GROUPS, -1, HEAD)
    assert np.array_equal(columns, values.reshape(GROUPS, 1, HEAD).repeat(HEADS // GROUPS, 1))


def test_channel_scales():
    inputs = np.array([1, 2.0**16, 2.0**-16, 0, 4, 1])
    weights = np.array([1, 1, 1, 5, 0, 2.0**12])
    # rms**0.5 is mean square**0.25; the geometric mean, of the four that are used, is 2**-0.75.
    assert calibrate.channel_scales(inputs, weights).tolist() == [2, 2.0**5, 2.0**-3, 1, 1, 0.25]
    assert calibrate.channel_scales(inputs * 2.0**20, weights / 2.0**6).tolist() == [
        2, 2.0**5, 2.0**-3, 1, 1, 0.25]
    dead = np.zeros(3)
    assert calibrate.channel_scales(dead, dead).tolist() == [1, 1, 1]


def test_sequences_of_both_ends():
    def tokenizer(text):
        return type("Tokens", (), {"input_ids": list(map(int, text.split()))})

    first, last = calibrate.sequences(tokenizer, "9 1 2 3 4 5 6", first=1, last=2, length=2)
    assert (first.tolist(), last.tolist()) == ([[9, 1]], [[3, 4], [5, 6]])
    first, last = calibrate.sequences(tokenizer, "9 1 2 3 4 5 6", first=0, last=1, length=7)
    assert (len(first), len(last)) == (0, 1)
    with pytest.raises(calibrate.Unsupported,
                       match="^the text must have at least 4 x 2 tokens, not 7$"):
        calibrate.sequences(tokenizer, "9 1 2 3 4 5 6", first=1, last=3, length=2)
    with pytest.raises(calibrate.Unsupported, match="^a/b must have at least 4 x 2 tokens, not 3$"):
        calibrate.sequences(tokenizer, "9 1 2", first=4, last=0, length=2, name=Path("a/b"))


def test_losses_table():
    names = [*calibrate_evaluation.BEFORE, *calibrate_evaluation.AFTER_NVFP4,
             *calibrate_evaluation.AFTER_RAZER, *calibrate_evaluation.AFTER,
             *calibrate_evaluation.AFTER_SPECIAL, *calibrate_evaluation.AFTER_SPECIAL64]
    found = {name: [(5.0, 1.0), (7.0, 1.0)] for name in names} | {
        "calibrated NVFP4": [(1.0, 0.5), (3.0, 0.6)],
        "calibrated NVFP4, searched": [(0.5, 0.5), (1.5, 0.7)],
        "calibrated RaZeR": [(0.0, 0.5), (2.0, 0.6)],
        "calibrated M2XFP": [(1.0, 0.5), (2.0, 0.7)]}
    head, *rows = calibrate_evaluation.losses_table(found, "words").splitlines()
    assert head.split()[:2] == ["on", "words"]
    rows, heads, less = rows[: len(names)], rows[len(names) :][:2], rows[len(names) + 2 :]
    cells = {row[:32].strip(): row[32:].replace("+-", "").split() for row in rows}
    assert list(cells) == names
    # Standard errors are half of what two values are apart.
    assert cells["MXFP4"] == ["6.000", "1.000", "1.000", "0%"]
    assert cells["calibrated NVFP4"] == ["2.000", "1.000", "0.550", "67%"]
    assert cells["calibrated M2XFP"] == ["1.500", "0.500", "0.600", "75%"]
    assert [line.split() for line in heads] == [
        ["less", "calibrated", "NVFP4", "calibrated", "NVFP4,", "searched", "calibrated", "RaZeR"],
        ["loss", "KL"] * 3]
    # Those of the differences, not of the means.
    cells = {row[:32].strip(): row[32:].replace("+-", "").split() for row in less}
    assert list(cells) == ["calibrated NVFP4, searched", *calibrate_evaluation.AFTER_RAZER,
                           *calibrate_evaluation.AFTER, *calibrate_evaluation.AFTER_SPECIAL,
                           *calibrate_evaluation.AFTER_SPECIAL64]
    assert cells["calibrated NVFP4, searched"] == [
        "-1.000", "0.500", "0.050", "0.050", *["0.000"] * 5, "0.500", "0.050", "0.050"]
    assert cells["calibrated M2XFP"] == [
        "-0.500", "0.500", "0.050", "0.050", "0.500", "0.000", "0.000", "0.000",
        "0.500", "0.500", "0.050", "0.050"]
    # Of some rows, differences from those rivals that are there.
    some = {name: found[name] for name in ("calibrated M2XFP", "calibrated RaZeR")}
    _, *rows = calibrate_evaluation.losses_table(some, "words").splitlines()
    assert [row.replace("+-", "").split() for row in rows] == [
        ["calibrated", "RaZeR", "1.000", "1.000", "0.550"],
        ["calibrated", "M2XFP", "1.500", "0.500", "0.600"],
        ["less", "calibrated", "RaZeR"], ["loss", "KL"],
        ["calibrated", "M2XFP", "0.500", "0.500", "0.050", "0.050"]]
    del some["calibrated RaZeR"]
    assert len(calibrate_evaluation.losses_table(some, "words").splitlines()) == 2


def test_planes_are_written_as_convert_does(tmp_path):
    rng = np.random.default_rng(1)
    w = rng.standard_normal((6, 70)).astype(np.float32)
    q = gptq(w, np.cov(rng.standard_normal((70, 90))))
    norm = rng.standard_normal(70).astype(np.float32)
    path = tmp_path / "out.safetensors"
    manifest = planes.write(path, {"a.weight": (w, q)}, {"norm.weight": norm}, note="calibrated")
    assert planes.check(path) == (manifest, [])
    assert manifest["tensors"]["a.weight"]["note"] == "calibrated"
    with Reader(path) as reader:
        parts = [reader.read(f"a.weight.{name}") for name in ("elements", "metadata", "scales")]
        assert Quantized.unpack(*parts, kind="weight", shape=w.shape).pack() == q.pack()
        assert reader.read("norm.weight") == norm.tobytes()
    other = quantize_weights(w, encoding="sg-special")
    with pytest.raises(ValueError, match="^w must be of encoding 'sg-em', not 'sg-special'$"):
        planes.write(path, {"a": (w, q), "w": (w, other)}, {})
    special = planes.write(tmp_path / "special", {"w": (w, other)}, {})
    assert special["format"] == "sg-special"
    assert planes.check(tmp_path / "special") == (special, [])
    wide = planes.write(tmp_path / "special64", {
        "w": (w, quantize_weights(w, encoding="sg-special64"))}, {})
    assert (wide["format"], wide["group"], wide["bits"]["metadata"]) == ("sg-special64", 64, 3)
    assert planes.check(tmp_path / "special64") == (wide, [])
    error = float(np.sum((dequantize(q).astype(float) - w) ** 2) / np.sum(w.astype(float) ** 2))
    assert manifest["tensors"]["a.weight"]["relative_squared_error"] == pytest.approx(error)
    with pytest.raises(BadFile, match="two tensors would both be written as 'a.scales'"):
        planes.write(path, {"a": (w, q)}, {"a.scales": norm})
    assert planes.check(path) == (manifest, [])


@pytest.mark.parametrize("arguments, code, message", [
    (["x", "-o", "out", "--length", "1"], 2, "--length must be at least 2, not 1"),
    (["x", "-o", "out", "--evaluate", "1"], 2, "--evaluate must be at least 2, not 1"),
    (["x", "-o", "out", "--encoding", "sg-special", "--evaluate", "2"], 2,
     "--evaluate must come with --encoding sg-em, not sg-special: it compares all encodings"),
    (["x", "-o", "out", "--encoding", "mixed"], 2,
     "argument --encoding: invalid choice: 'mixed'"),
    (["x", "-o", "out", "--sequences", "-1"], 2, "--sequences must be at least 1, not -1"),
    (["x", "-o", "out", "--evaluate-text", "text"], 2,
     "--evaluate-text must come with --evaluate N, the sequences of each text"),
    (["x", "-o", "out", "--evaluate-row", "NVFP4"], 2,
     "--evaluate-row must come with --evaluate N, the sequences of each text"),
    (["x", "-o", "out", "--evaluate", "2", "--evaluate-row", "NVFP5"], 2,
     "--evaluate-row must be one of 'MXFP4', 'NVFP4', "),
    (["x", "-o", "out", "--text", "text", "--evaluate", "2", "--evaluate-text", "none"], 1,
     "none: No such file or directory"),
    (["x", "-o", "out", "--text", "text", "--evaluate", "2", "--evaluate-text", "bad"], 1,
     "bad must be text in UTF-8"),
    (["x", "-o", "none/out"], 2, "-o must lie in a folder that exists, not none"),
    (["x", "-o", "out", "--text", "none"], 1, "none: No such file or directory"),
    (["x", "-o", "out", "--text", "bad"], 1, "bad must be text in UTF-8"),
    (["x", "-o", "out", "--text", "text"], 1,
     "MODEL must be smollm2 or a folder with a config.json, not x"),
])
def test_command_complains_in_one_line(tmp_path, monkeypatch, capsys, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad").write_bytes(b"\xff")
    (tmp_path / "text").write_text("a")
    try:
        assert command.main(["calibrate", *arguments]) == code
    except SystemExit as stop:
        assert stop.code == code
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith(f"error: {message}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad", "text"]


def test_missing_extra(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(pretrained.sys.modules, "torch", None)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "text").write_text("a")
    assert command.main(["calibrate", str(tmp_path), "-o", str(tmp_path / "out"), "--text",
                         str(tmp_path / "text")]) == 1
    assert "torch" in capsys.readouterr().err


# With torch, on models of random weights.


@pytest.fixture(scope="module")
def torch():
    torch = pytest.importorskip("torch", reason="needs torch")
    # Threads that wait for one another cost more here than they save.
    torch.set_num_threads(1)
    return torch


WORDS = [f"w{i}" for i in range(50)]


def checkpoint(folder, family="llama", **options):
    """A folder with a small model of random weights, and a tokenizer of words."""
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    tokenizers = pytest.importorskip("tokenizers", reason="needs tokenizers")
    import torch

    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(
        family, vocab_size=len(WORDS), hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, max_position_embeddings=64,
        initializer_range=0.1, **options)
    network = transformers.AutoModelForCausalLM.from_config(config)
    for name, parameter in network.named_parameters():
        if "norm" in name or "bias" in name:
            torch.nn.init.uniform_(parameter, 0.2, 5)
    network.save_pretrained(folder)
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(
        {word: i for i, word in enumerate(WORDS)}, unk_token="w0"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family, options", [
    ("llama", {}),
    *(pytest.param(family, options, marks=pytest.mark.long) for family, options in [
        ("llama", {"tie_word_embeddings": True}), ("qwen2", {}), ("qwen3", {}), ("mistral", {})]),
])
def test_scaled_models_compute_what_they_did(torch, tmp_path, family, options):
    model = calibrate.load(checkpoint(tmp_path / "model", family, **options))
    tokens = np.random.default_rng(2).integers(0, len(WORDS), (3, 20))
    with torch.inference_mode():
        before = model.network(torch.from_numpy(tokens)).logits
    result = calibrate.calibrate(model, tokens, feedback=False)
    with torch.inference_mode():
        assert torch.equal(model.network(torch.from_numpy(tokens)).logits, before)
        scaled = {name: torch.from_numpy(w) for name, (w, _) in result.weights.items()}
        scaled |= {name: torch.from_numpy(w) for name, w in result.others.items()}
        different = sum(not torch.equal(scaled[name], tensor)
                        for name, tensor in model.network.state_dict().items() if name in scaled)
        assert different >= 14
        missing = model.network.load_state_dict(scaled, strict=False)
        assert not missing.unexpected_keys
        assert missing.missing_keys == ["lm_head.weight"] * bool(options)
        after = model.network(torch.from_numpy(tokens)).logits
    assert torch.allclose(after, before, rtol=1e-4, atol=1e-4)
    assert len(result.weights) == 14


def test_evaluation(torch, tmp_path):
    folder = checkpoint(tmp_path / "model")
    tokens, others = np.random.default_rng(4).integers(0, len(WORDS), (2, 2, 24))

    def loss(network, row):
        log = network(torch.from_numpy(row[None])).logits[0].log_softmax(-1)
        return -log[:-1].gather(1, torch.from_numpy(row[1:, None])).mean().item()

    model = calibrate.load(folder)
    with torch.inference_mode():
        right = [[loss(model.network, row) for row in text] for text in (tokens, others)]
    plain = calibrate.calibrate(model, tokens)
    assert plain.nvfp4 == plain.razer == plain.special == plain.special64 == {}
    result = calibrate.calibrate(model, tokens, rivals=True)
    evaluated = calibrate_evaluation.evaluate(model, result, [tokens, others])
    assert len(evaluated) == 2

    def check(name, quantize, weights=None):
        with hooks.quantized(model.linears, activations=quantize, weights=weights), \
                torch.inference_mode():
            for found, text, bases in zip(evaluated, (tokens, others), right, strict=True):
                expected = [loss(model.network, row) - base
                            for row, base in zip(text, bases, strict=True)]
                losses, divergences = zip(*found[name], strict=True)
                assert losses == pytest.approx(expected, abs=1e-4)
                assert min(divergences) > 0

    for shown, encoding in (("", "elem-em"), (", Sg-threshold", "sg-threshold"),
                            (", Sg-EM", "sg-em"), (", mixed", "mixed")):
        check(f"calibrated M2XFP{shown}", lambda name, x, encoding=encoding: dequantize(
            quantize_activations(x, encoding=encoding)))
    for shown, quantize in (
            ("", lambda name, x: dequantize_nvfp4(quantize_nvfp4(x, tensor_scale_of(x)))),
            (", searched", lambda name, x: FORMATS["NVFP4 searched"].round_trip(x))):
        check(f"calibrated NVFP4{shown}", quantize,
              lambda name, w: dequantize_nvfp4(result.nvfp4[f"{name}.weight"]))
    check("calibrated RaZeR", lambda name, x: FORMATS["RaZeR activations"].round_trip(x),
          lambda name, w: calibrate.RAZER.dequantize(result.razer[f"{name}.weight"]))
    for encoding, weights in ("sg-special", result.special), ("sg-special64", result.special64):
        check(f"calibrated M2XFP, {encoding.capitalize()}",
              lambda name, x, encoding=encoding: dequantize(
                  quantize_activations(x, encoding=encoding)),
              lambda name, w, weights=weights: dequantize(weights[f"{name}.weight"]))
    again, _ = calibrate_evaluation.evaluate(calibrate.load(folder), result, [tokens, others],
                                             labels=["RaZeR", "calibrated RaZeR"])
    assert again == {name: evaluated[0][name] for name in ("RaZeR", "calibrated RaZeR")}
    assert torch.equal(model.linears["model.layers.0.mlp.up_proj"].weight, torch.from_numpy(
        dequantize(result.weights["model.layers.0.mlp.up_proj.weight"][1])))


def test_rivals_get_the_same_help(torch, tmp_path):
    """Scales and inputs of each layer, and a tensor scale of its own where there is one."""
    model = calibrate.load(checkpoint(tmp_path / "model"))
    tokens = np.random.default_rng(5).integers(0, len(WORDS), (2, 24))
    seen = {}

    def see(name, x):
        seen[name] = seen.get(name, 0) + x.T @ x

    with hooks.captured(model.linears, see), torch.inference_mode():
        for row in tokens:
            model.network(torch.from_numpy(row[None]))
    result = calibrate.calibrate(model, tokens, scaling=False, rivals=True)
    assert result.nvfp4.keys() == result.weights.keys()
    for name, linear in model.linears.items():
        w = linear.weight.detach().numpy()
        expected = gptq_nvfp4(w, seen[name], damping=calibrate.DAMPING)
        q = result.nvfp4[f"{name}.weight"]
        assert np.array_equal(q.elements, expected.elements)
        assert (q.scales == expected.scales).all()
        assert q.tensor_scale == tensor_scale_of(w)
        expected = gptq_razer(w, seen[name], damping=calibrate.DAMPING)
        q = result.razer[f"{name}.weight"]
        assert np.array_equal(q.elements, expected.elements)
        assert np.array_equal(q.scales, expected.scales)
        for encoding, found in ("sg-special", result.special), ("sg-special64", result.special64):
            assert found[f"{name}.weight"] == gptq(w, seen[name], damping=calibrate.DAMPING,
                                                   encoding=encoding)
    scaled = calibrate.calibrate(model, tokens, feedback=False, rivals=True)
    for name, (w, _) in scaled.weights.items():
        expected = quantize_nvfp4(w, tensor_scale_of(w))
        assert np.array_equal(scaled.nvfp4[name].elements, expected.elements)
        assert scaled.special[name] == quantize_weights(w, encoding="sg-special")
        assert scaled.special64[name] == quantize_weights(w, encoding="sg-special64")


def test_command(torch, tmp_path, monkeypatch, capsys):
    folder, out = checkpoint(tmp_path / "model"), tmp_path / "out.safetensors"
    rng = np.random.default_rng(3)
    text = tmp_path / "text"
    text.write_text(" ".join(rng.choice(WORDS, 400)))
    arguments = ["calibrate", str(folder), "-o", str(out), "--text", str(text), "--sequences",
                 "6", "--length", "50"]
    with monkeypatch.context() as patch:
        # It takes time, and nothing shows it.
        patch.delattr(calibrate, "gptq_nvfp4")
        assert command.main(arguments) == 0
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 8
    manifest, differences = planes.check(out)
    assert differences == []
    assert len(manifest["tensors"]) == 14
    report = json.loads((tmp_path / "out.safetensors.calibration.json").read_text())
    assert (report["sequences"], report["length"], report["text"]) == (6, 50, "text")
    for errors in report["output_error"].values():
        assert 0 < errors["calibrated"] < errors["plain"]
    assert len(report["scales"]) == 8
    special = tmp_path / "special"
    words = [str(special) if word == str(out) else word for word in arguments]
    assert command.main([*words, "--encoding", "sg-special", "--no-gptq"]) == 0
    assert planes.check(special)[0]["format"] == "sg-special"
    # What comes of going back is a checkpoint of the same model, near to it.
    restored = tmp_path / "restored"
    restored.mkdir()
    (restored / "config.json").write_bytes((folder / "config.json").read_bytes())
    for name in folder.iterdir():
        if name.name.startswith("tokenizer"):
            (restored / name.name).write_bytes(name.read_bytes())
    planes.restore(out, restored / "model.safetensors")
    tokens = torch.from_numpy(rng.integers(0, len(WORDS), (2, 30)))
    with torch.inference_mode():
        logits = [calibrate.load(place).network(tokens).logits for place in (folder, restored)]
    # In 4 bits; with scales on one side only they would have nothing in common.
    assert 0 < torch.linalg.norm(logits[1] - logits[0]) < 0.6 * torch.linalg.norm(logits[0])

    # Without either, weights are those of `quantize_weights`, and so are losses.
    capsys.readouterr()
    other = tmp_path / "other"
    other.write_text(" ".join(rng.choice(WORDS, 150)))
    arguments += ["--no-gptq", "--no-scaling", "--evaluate", "2"]
    assert command.main([*arguments, "--evaluate-text", str(other)]) == 0
    *_, one, two = capsys.readouterr().out.split("\n\n")
    losses = []
    for printed, name in (one, "text"), (two, "other"):
        head, *lines = printed.splitlines()
        assert head.startswith(f"on {name} ")
        cells = {line[:32].strip(): line[32:] for line in lines[:16]}
        losses.append(cells)
        for same in ("NVFP4", "RaZeR", "M2XFP", "M2XFP, Sg-threshold", "M2XFP, Sg-special",
                     "M2XFP, Sg-special64"):
            assert cells[same] == cells[f"calibrated {same}"]
        assert len(set(cells.values())) == 10
    assert losses[0] != losses[1]
    other.write_text("w1 " * 99)
    assert command.main([*arguments, "--evaluate-text", str(other)]) == 1
    assert capsys.readouterr().err == (
        f"error: {other} must have at least 2 x 50 tokens, not 99\n")
    report = json.loads((tmp_path / "out.safetensors.calibration.json").read_text())
    assert report["scales"] == {}
    for errors in report["output_error"].values():
        assert errors["calibrated"] == pytest.approx(errors["plain"], rel=1e-4)


@pytest.mark.long
def test_other_families(torch, tmp_path, capsys):
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    folder = checkpoint(tmp_path / "model")
    config = transformers.GPT2Config(vocab_size=50, n_embd=32, n_layer=1, n_head=2, n_positions=32)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    text = tmp_path / "text"
    text.write_text("w1 " * 100)
    arguments = ["calibrate", str(folder), "-o", str(tmp_path / "out"), "--text", str(text),
                 "--sequences", "1", "--length", "8"]
    assert command.main(arguments) == 1
    assert capsys.readouterr().err == (
        "error: MODEL must be of type llama, mistral, qwen2, qwen3, not gpt2\n")
    (folder / "model.safetensors").write_bytes(b"damaged")
    assert command.main(arguments) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"error: {folder} cannot be loaded: ")
    assert err.count("\n") == 1
