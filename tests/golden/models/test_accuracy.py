# SPDX-License-Identifier: BSD-2-Clause
"""The command that runs real models, on small ones; statistics and tables on made-up figures."""

import json
import sys
from argparse import Namespace

import numpy as np
import pytest

from golden.formats.catalogue import FORMATS
from golden.models import accuracy, accuracy_report, evaluation, hooks, pretrained
from golden.models.evaluation import FLOAT, Evaluation, scheme
from tests.support import networks


def same(found, expected):
    return np.allclose(found, expected, rtol=1e-12, atol=1e-15)


# Statistics.


def test_mean():
    assert same(accuracy.mean([1, 2, 6]), [3, np.sqrt((4 + 1 + 9) / 2 / 3)])


def test_removed():
    # Residuals are 1 - .5, 1 - 1 and 1 - 1.5 over a mean of 2.
    assert same(accuracy.removed([1, 1, 1], [1, 2, 3]), [0.5, 0.25 / np.sqrt(3)])
    # What is alike in all sequences has no error, however different these are.
    assert same(accuracy.removed([0.3, 3, 30], [1, 10, 100]), [0.7, 0])
    assert accuracy.removed([2.0, 4.0], [1.0, 2.0])[0] == -1


def test_removed_is_what_a_jackknife_finds():
    rng = np.random.default_rng(0)
    reference = rng.normal(10, 1, 1000)
    losses = 0.3 * reference + rng.normal(0, 1, 1000)
    shares = [1 - np.delete(losses, i).mean() / np.delete(reference, i).mean()
              for i in range(1000)]
    share, error = accuracy.removed(losses, reference)
    assert share == 1 - losses.mean() / reference.mean()
    assert error == pytest.approx(999 * np.std(shares, ddof=1) / np.sqrt(1000), rel=0.01)


def test_rank_agreement():
    right = np.array([[9, 1, 2, 3], [1, 9, 3, 2], [2, 3, 9, 1], [3, 2, 1, 9]])
    assert accuracy.rank_agreement(right**3, right) == pytest.approx([1] * 4)
    found = right.copy()
    found[0, 1:] = 3, 2, 1
    found[1, 0], found[1, 3] = 2, 1
    # A text's similarity with itself, here the lowest, does not count.
    found[2, 2] = 0
    assert accuracy.rank_agreement(found, right) == pytest.approx([-1, 0.5, 1, 1])


LAYERS = ("model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj",
          "model.layers.1.self_attn.q_proj")


def layers(*outputs):
    return {name: {"weights": 0.01 * error, "activations": 0.02 * error, "outputs": error}
            for name, error in zip(LAYERS, outputs, strict=True)}


MEASURED = {
    "float": {"nll": [1.0, 2.0], "kl": [0.0, 0.0], "layers": None},
    "MXFP4": {"nll": [2.0, 4.0], "kl": [0.9, 2.1], "layers": layers(3, 5, 7)},
    "NVFP4": {"nll": [1.5, 3.0], "kl": [0.4, 0.6], "layers": layers(1, 2, 3)},
    "M2XFP": {"nll": [1.6, 2.8], "kl": [0.5, 0.5], "layers": layers(1, 1, 1)},
}


def test_summary():
    reference, mxfp4, nvfp4, m2xfp = accuracy.summary(MEASURED)
    assert reference == {"format": "float", "perplexity": np.exp(1.5)}
    assert mxfp4["removed"] == [0, 0]
    assert nvfp4["removed"] == [0.5, 0]
    assert nvfp4["below_nvfp4"] == [0, 0]
    assert same(m2xfp["loss"], [0.7, 0.1])
    assert same(m2xfp["removed"], accuracy.removed([0.6, 0.8], [1, 2]))
    assert same(m2xfp["below_nvfp4"], [0.05, 0.15])
    assert same(m2xfp["perplexity"], np.exp(2.2))
    assert same(mxfp4["kl"], [1.5, 0.6])
    assert mxfp4["bits"] == (4.25, 4.25)
    assert same([mxfp4["outputs"], mxfp4["activations"]], [5, 0.1])
    assert mxfp4["kinds"] == {"mlp.up_proj": 4, "self_attn.q_proj": 7}


def test_summary_of_sentences():
    measured = {name: {"cosine": cosine, "rank": [0.8, 1.0], "layers": layers(1, 1, 1)}
                for name, cosine in [("MXFP4", [0.9, 0.8]), ("NVFP4", [0.95, 0.95])]}
    mxfp4, nvfp4 = accuracy.summary(measured)
    assert same(mxfp4["loss"], [0.15, 0.05])
    assert same(nvfp4["removed"][0], 2 / 3)
    assert same(nvfp4["rank"], [0.9, 0.1])
    assert "perplexity" not in nvfp4


def test_tables():
    options = Namespace(model="smollm2", sequences=2, length=1024, kv=True)
    texts = list(accuracy_report.tables(accuracy.summary(MEASURED), options))
    assert texts == ["""\
SmolLM2-135M-Instruct, reference = dequantized Q4_1; 2 x 1024 tokens of lee_background.cor
all linear layers of the blocks: weights and activations; K and V as weights, Q and P as \
activations""", """\
format  bits  perplexity    NLL increase  MXFP4's removed  NVFP4's minus it              KL
float               4.48
MXFP4   4.25       20.09  1.500 +- 0.500                    -0.750 +- 0.250  1.500 +- 0.600
NVFP4    4.5        9.49  0.750 +- 0.250    50.0 +- 0.0 %                    0.500 +- 0.100
M2XFP    4.5        9.03  0.700 +- 0.100    53.3 +- 8.9 %    0.050 +- 0.150  0.500 +- 0.000""", """\
relative squared error  weights  activations  outputs  outputs of:      up       q
MXFP4                    0.0500       0.1000   5.0000               4.0000  7.0000
NVFP4                    0.0200       0.0400   2.0000               1.5000  3.0000
M2XFP                    0.0100       0.0200   1.0000               1.0000  1.0000"""]


# Drawings and the design space.


def texts_of(monkeypatch, draw, *arguments, **options):
    """All that stands in a drawing."""
    from matplotlib.text import Text

    figures = []
    make = accuracy_report._figure
    monkeypatch.setattr(accuracy_report, "_figure",
                        lambda *size: figures.append(make(*size)) or figures[0])
    draw(*arguments, **options)
    return [text.get_text() for text in figures[0].findobj(Text)]


def test_bars(tmp_path, monkeypatch):
    options = Namespace(model="smollm2", sequences=2, length=1024, kv=False)
    texts = texts_of(monkeypatch, accuracy_report.draw, tmp_path / "bars.svg",
                     accuracy.summary(MEASURED), options)
    # MXFP4 removes nothing of its own loss, by definition.
    assert [text for text in texts if text.endswith(" %")] == ["50.0 %", "53.3 %"]
    assert {"NVFP4", "M2XFP"} < set(texts)
    assert "MXFP4" not in texts
    assert (tmp_path / "bars.svg").stat().st_size > 10_000


@pytest.mark.long
def test_pareto(tmp_path, monkeypatch):
    errors = {name: (f.bits_per_element, 5 - f.bits_per_element / 2)
              for name, f in FORMATS.items() if f.bits_per_element < 5}
    texts = texts_of(monkeypatch, accuracy_report.draw_pareto, tmp_path / "space.svg", errors,
                     title="A title")
    families = ["Elem-EM", "Elem-EM adaptive", "Elem-EM top-2", "Elem-EM top-2 adaptive",
                *(f"{kind}{bits} {end}" for kind in ("Sg-EM", "Sg-EE") for bits in ("", " 1-bit")
                  for end in ("adaptive", "fixed"))]
    for text, count in [("A title", 1), ("weights", 1), ("activations", 1), ("Pareto front", 1),
                        *((family, 1) for family in families), ("NVFP4", 2), ("MXFP4+", 2)]:
        assert texts.count(text) == count, text
    assert (tmp_path / "space.svg").stat().st_size > 10_000


ERRORS = {"MXFP4": (0.4, 0.4), "NVFP4": (0.2, 0.1), "IF4": (0.2, 0.3), "Sg-EM-4 fixed": (0.2, 0.05),
          "SMX4": (0.5, 0.3)}


def test_front():
    # 4, 4.25, 4.5, 4.5 and 4.75 bits; the first of equals, which must be better than less bits.
    assert accuracy_report.front(ERRORS, 0) == ["SMX4", "MXFP4", "NVFP4"]
    assert accuracy_report.front(ERRORS, 1) == ["SMX4", "NVFP4", "Sg-EM-4 fixed"]


def test_pareto_table():
    assert accuracy_report.pareto_table(ERRORS) == """\
format         bits    weights  activations
SMX4              4  0.50000 *    0.30000 *
MXFP4          4.25  0.40000 *    0.40000
NVFP4           4.5  0.20000 *    0.10000 *
IF4             4.5  0.20000      0.30000
Sg-EM-4 fixed  4.75  0.20000      0.05000 *"""


# What is quantized.


@pytest.mark.parametrize("name", ["MXFP4", "NVFP4", "NVFP4 four-over-six", "NVINT4", "IF4",
                                  "M2XFP weights", "M2-NVFP4 Sg-EM-8"])
def test_round_trip_in_pieces(monkeypatch, name):
    rng = np.random.default_rng(1)
    x = rng.standard_t(3, (3, 20, 70)).astype(np.float32)
    x[1, 3, 5] = 1e4
    f = FORMATS[name]
    expected = f.round_trip(x)
    monkeypatch.setattr(evaluation, "PIECE", 300)
    for threads in (1, 3):
        found = evaluation.round_trip(f, x, threads=threads)
        assert np.array_equal(found.view(np.uint32), expected.view(np.uint32))
    assert evaluation.round_trip(None, x) is x
    if f.tensor_scale:
        x[0, 0, 0] = np.nan
        assert evaluation.tensor_scale(f, x) == f.quantize(x).tensor_scale


def test_scheme():
    assert scheme("M2XFP").weights is FORMATS["M2XFP weights"]
    assert scheme("M2XFP").activations is FORMATS["M2XFP activations"]
    assert scheme("NVFP4").activations is FORMATS["NVFP4"]
    mixed = scheme("MXFP4/float")
    assert (mixed.weights, mixed.activations, mixed.bits) == (FORMATS["MXFP4"], None, (4.25, 32))
    assert scheme("M2XFP") == scheme("M2XFP")
    assert scheme("float") == FLOAT


@pytest.mark.parametrize("name", ["", "FP4", "MXFP4/", "MXFP4/NVFP4/IF4", "M2XFP/MXFP4"])
def test_unknown_scheme(name):
    with pytest.raises(ValueError, match=r"format must be M2XFP, .* or two as WEIGHTS/ACTIVATIONS, "
                                         f"not '{name}'$"):
        scheme(name)


# Going on.


def test_record(tmp_path, capsys):
    file = tmp_path / "figures.json"
    settings = {"code": "a", "kv": False}
    record = accuracy.Record(file, settings)
    record.add("one", {"nll": 1 / 3})
    record.save(summary=[1])
    assert json.loads(file.read_text()) == {
        "settings": settings, "figures": {"one": {"nll": 1 / 3}}, "summary": [1]}
    again = accuracy.Record(file, settings)
    assert again.has("one")
    assert again.get("one") == {"nll": 1 / 3}
    assert not again.has("two")
    assert not accuracy.Record(file, settings, fresh=True).has("one")
    assert not capsys.readouterr().err
    assert not accuracy.Record(file, settings | {"code": "b"}).has("one")
    assert capsys.readouterr().err == (
        f"{file} has figures of other settings, versions or code: starting over\n")
    # Until there is a figure, nothing is lost; a figure that cannot be written leaves the others.
    with pytest.raises(TypeError):
        again.add("two", object())
    assert accuracy.Record(file, settings).has("one")
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"settings": {}}',
                                  '{"settings": 1, "figures": 2}'])
def test_record_of_something_else(tmp_path, text):
    file = tmp_path / "figures.json"
    file.write_text(text)
    with pytest.raises(ValueError, match="figures.json exists and is no file of figures$"):
        accuracy.Record(file, {})
    assert file.read_text() == text


def test_measured_goes_on(tmp_path):
    keys = {(name, part): f"{name}: {part}" for name in ("MXFP4", "float") for part in "ab"}
    calls = []

    def prepare():
        def measure(chosen, part):
            calls.append((chosen.name, part))
            if len(calls) == 3:
                raise KeyboardInterrupt
            return f"{chosen.name} {part}"

        return measure

    file = tmp_path / "figures.json"
    with pytest.raises(KeyboardInterrupt):
        accuracy._measured(keys, prepare, accuracy.Record(file, {}))
    assert len(json.loads(file.read_text())["figures"]) == 2
    for _ in range(2):
        found = accuracy._measured(keys, prepare, accuracy.Record(file, {}))
        assert found == {key: " ".join(key) for key in keys}
    assert calls == [("MXFP4", "a"), ("MXFP4", "b"), ("float", "a"), ("float", "a"), ("float", "b")]


# The command.


@pytest.mark.parametrize("arguments, text", [
    (["--sequences", "1"], "--sequences must be at least 2, not 1"),
    (["--model", "minilm", "--sequences", "2"], "--sequences must be at least 3, not 2"),
    (["--length", "0"], "--length must be at least 2, not 0"),
    (["--model", "minilm", "--length", "513"],
     "--length must be at most 512, which minilm takes, not 513"),
    (["--formats", "M2XFP,FP4"], "or two as WEIGHTS/ACTIVATIONS, not 'FP4'"),
    (["--formats", "float"], "--formats must not have float alone"),
    (["--model", "gpt2"], "argument --model: invalid choice: 'gpt2'"),
    (["--plot", "bars.txt"], "--plot must end in .png or .svg, not bars.txt"),
    (["--pareto", "none/space.png"], "--pareto must lie in a folder that exists, not none"),
    (["--json", "none/figures.json"], "--json must lie in a folder that exists, not none"),
])
def test_wrong_arguments(capsys, arguments, text):
    try:
        status = accuracy.main(arguments)
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    line, = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert text in line


def test_missing_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert accuracy.main([]) == 1
    line, = capsys.readouterr().err.splitlines()
    assert "torch" in line
    assert line.endswith("must be installed to run the model: pip install 'm2xfp-rtl[models]'")


@pytest.fixture
def tiny(monkeypatch):
    """Small networks in the places of the real ones; how often one was loaded."""
    loaded = []
    text = "\n".join(" ".join(str((i * i + 3 * j) % 50) for i in range(60)) for j in range(10))

    def load(make):
        loaded.append(make)
        return networks.model(make())

    networks.llama()
    monkeypatch.setattr(pretrained, "require", lambda: None)
    monkeypatch.setattr(pretrained, "smollm2", lambda: load(networks.llama))
    monkeypatch.setattr(pretrained, "minilm", lambda: load(networks.bert))
    monkeypatch.setattr(pretrained, "news", lambda: text)
    return loaded


@pytest.mark.parametrize("model, words", [
    ("smollm2", ["3 x 20 tokens", "float", "perplexity", "gate", "K and V as weights"]),
    ("minilm", ["3 articles of at most 20", "rank agreement", "intermediate"]),
])
def test_command(tiny, tmp_path, capsys, model, words):
    file = tmp_path / "figures.json"
    arguments = ["--model", model, "--sequences", "3", "--length", "20", "--json", str(file),
                 "--formats", "M2XFP,MXFP4/MXFP8 E4M3"]
    if model == "smollm2":
        arguments.append("--kv")
    assert accuracy.main([*arguments, "--plot", str(tmp_path / "bars.png")]) == 0
    printed = capsys.readouterr().out
    for word in (*words, "MXFP4 ", "NVFP4 ", "M2XFP ", "MXFP4/MXFP8 E4M3  4.25/8.25"):
        assert word in printed
    assert (tmp_path / "bars.png").stat().st_size > 10_000
    rows = {row["format"]: row for row in json.loads(file.read_text())["summary"]}
    assert 0 < rows["M2XFP"]["weights"] < rows["MXFP4"]["weights"] < 0.1
    assert 0 < rows["MXFP4/MXFP8 E4M3"]["activations"] < rows["NVFP4"]["activations"] < 0.1
    # All is there.
    assert accuracy.main(arguments) == 0
    assert capsys.readouterr().out == printed
    assert len(tiny) == 1
    # More of it: what was measured stays.
    assert accuracy.main([*arguments, "--sequences", "4"]) == 0
    assert len(tiny) == 2
    assert accuracy.main([*arguments, "--sequences", "11", "--length", "100"]) == 2
    assert "must be at most" in capsys.readouterr().err


def test_pareto_command(tiny, tmp_path, capsys, monkeypatch):
    names = ("MXFP4", "NVFP4", "MXFP8 E4M3", "M2XFP weights", "Sg-EM-8 fixed", "Sg-EM-16 fixed")
    monkeypatch.setattr(accuracy, "FORMATS", {name: FORMATS[name] for name in names})
    assert accuracy.main(["--pareto", str(tmp_path / "space.png"), "--length", "40",
                          "--json", str(tmp_path / "figures.json")]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    # Of at most 5.25 bits, and each once.
    assert sorted(row.split("  ")[0] for row in rows) == [
        "MXFP4", "NVFP4", "Sg-EM-16 fixed", "Sg-EM-8 fixed"]
    assert (tmp_path / "space.png").stat().st_size > 10_000


# Real computations on small networks.


def ids(*shape):
    return np.random.default_rng(3).integers(0, 50, shape)


def test_losses():
    model = networks.model(networks.llama())
    import torch

    tokens = ids(600)
    run = Evaluation(model)
    plain = run.losses(FLOAT, tokens)
    with torch.inference_mode():
        batch = torch.from_numpy(tokens)[None]
        expected = model.network(batch, labels=batch).loss.item()
    assert plain["nll"] == pytest.approx(expected, rel=1e-6)
    assert plain["kl"] == 0
    coarse, fine = (run.losses(scheme(name), tokens) for name in ("MXFP4", "MXFP8 E4M3"))
    assert 0 < fine["kl"] < coarse["kl"] / 4
    assert run.losses(scheme("MXFP4"), tokens) == coarse
    assert Evaluation(model, kv=True).losses(scheme("MXFP4"), tokens)["kl"] > coarse["kl"]
    assert run.losses(FLOAT, tokens) == plain

    # Only weights: what a network with other weights does.
    found = run.losses(scheme("MXFP4/float"), tokens)
    with torch.inference_mode():
        right = model.network(batch).logits[0, :-1].log_softmax(-1).double()
    for linear in model.linears.values():
        values = FORMATS["MXFP4"].round_trip(linear.weight.detach().numpy())
        linear.weight.data = torch.from_numpy(values)
    assert Evaluation(model).losses(FLOAT, tokens)["nll"] == pytest.approx(found["nll"], rel=1e-9)
    with torch.inference_mode():
        other = model.network(batch).logits[0, :-1].log_softmax(-1).double()
    divergence = (right.exp() * (right - other)).sum(-1).mean().item()
    assert found["kl"] == pytest.approx(divergence, rel=1e-4)


def test_formats_of_attention():
    run = Evaluation(networks.model(networks.llama()), kv=True)
    run.select(scheme("MXFP4/NVFP4"))
    x = np.random.default_rng(4).standard_normal((1, 2, 3, 32), np.float32)
    for kind, name in [("key", "MXFP4"), ("value", "MXFP4"), ("query", "NVFP4"),
                       ("probabilities", "NVFP4")]:
        assert np.array_equal(run._attention(kind, x), FORMATS[name].round_trip(x))


def test_layers():
    model = networks.model(networks.llama())
    run = Evaluation(model)
    tokens = ids(2, 30)
    inputs = [run.inputs(sequence) for sequence in tokens]
    seen = {}
    with hooks.captured(model.linears,
                         lambda name, x: seen.setdefault(name, []).append(x.copy())):
        for one in inputs:
            model.network(**one)
    errors = run.layers(scheme("M2XFP"), inputs)
    assert list(errors) == list(model.linears)
    for name, error in errors.items():
        w = model.linears[name].weight.detach().numpy()
        v = FORMATS["M2XFP weights"].round_trip(w)
        x = np.concatenate(seen[name])
        y = np.concatenate([FORMATS["M2XFP activations"].round_trip(part) for part in seen[name]])
        for which, values, right in (("weights", v, w), ("activations", y, x),
                                     ("outputs", y @ v.T, x @ w.T)):
            expected = ((values - right) ** 2).sum() / (right**2).sum()
            assert error[which] == pytest.approx(expected, rel=1e-4)


def test_embeddings():
    model = networks.model(networks.bert())
    import torch

    run = Evaluation(model)
    texts = ["1 2 3 4 5", "9 8 7"]
    found = run.embeddings(FLOAT, texts, length=3)
    with torch.inference_mode():
        means = [model.network(torch.tensor([tokens])).last_hidden_state[0].mean(0).numpy()
                 for tokens in ([1, 2, 3], [9, 8, 7])]
    expected = np.array([mean / np.linalg.norm(mean) for mean in means])
    assert np.allclose(found, expected, rtol=0, atol=1e-6)
    other = run.embeddings(scheme("MXFP4"), texts, length=3)
    assert (np.abs(other - found).max(axis=1) > 1e-3).all()
    assert np.array_equal(run.embeddings(FLOAT, texts, length=3), found)


def test_samples():
    model = networks.model(networks.llama())
    run = Evaluation(model)
    weights, activations = run.samples(run.inputs(ids(30)), rows=4)
    assert len(weights) == 14
    # Query, output, gate and down projection of two blocks.
    assert len(activations) == 8
    for (rows, largest), linear in zip(weights, model.linears.values(), strict=True):
        w = linear.weight.detach().numpy()
        assert largest == np.abs(w).max()
        assert np.array_equal(rows, w[len(w) // 8:: len(w) // 4])
    f = FORMATS["NVFP4"]
    ratios = []
    for rows, largest in activations:
        values = f.round_trip(rows, tensor_scale=f.quantize(np.array([largest])).tensor_scale)
        ratios.append(np.square(values - rows).sum() / np.square(rows).sum())
    assert evaluation.sample_error(f, activations) == pytest.approx(np.mean(ratios), rel=1e-5)


@pytest.mark.long
def test_real_model():
    """Losses of the real model on its first sequence, to what other machines may round apart."""
    try:
        model, text = pretrained.smollm2(), pretrained.news()
    except pretrained.Unavailable as error:
        pytest.skip(str(error))
    tokens, = pretrained.sequences(model.tokenizer, text, count=1, length=1024)
    run = Evaluation(model)
    assert len(model.linears) == 210
    for chosen, nll, tolerance in [(FLOAT, 3.3312, 0.001), (scheme("MXFP4"), 4.7549, 0.05),
                                   (scheme("M2XFP"), 3.8645, 0.03)]:
        assert run.losses(chosen, tokens)["nll"] == pytest.approx(nll, abs=tolerance)
