# SPDX-License-Identifier: BSD-2-Clause
"""Drawings have the figures of the tables, and the page has all of it and stands alone."""

import re
from html.parser import HTMLParser

import pytest

import sim.__main__ as command
from sim.perf import Job, drawings, find_machine, find_models, page, paper, predict, rivals
from sim.perf.models import PAPER
from sim.perf.predict import ENERGIES
from tests.sim.perf import authors_log as log


def entries_of(names):
    machine = find_machine("paper")
    return {model.name: rivals.compare(Job(model=model), machine, rivals.everything())
            for model in find_models(names)}


def heights(axes, label):
    """Heights of the bars with a colour of the legend, in order."""
    [handle] = [of for of, name in zip(*axes.get_legend_handles_labels(), strict=True)
                if name == label]
    color = handle.patches[0].get_facecolor()
    return [bar.get_height() for bar in axes.patches
            if bar.get_facecolor() == color and bar.get_y() >= 0]


def test_parts_are_all_of_the_energy():
    assert sorted(part for of in drawings.PARTS.values() for part in of) == sorted(ENERGIES)


def test_paper_s_figure():
    """The bars of Fig. 13 are those of the authors' log, and the last group is their mean."""
    figure = drawings.normalised({"one": drawings.of_paper()})
    upper, lower = figure.axes
    for place, name in enumerate(log.MACHINES):
        found = heights(upper, name)
        expected = [log.LATENCY[model][place] for model in PAPER]
        assert found[:-1] == pytest.approx(expected, abs=1e-4)
        assert found[-1] == pytest.approx(sum(expected) / 6, abs=1e-4)
    # Four parts, for each machine in each group, first all groups of MX-OliVe.
    assert len(lower.patches) == 5 * 7 * (4 + 1)
    for place, part in enumerate(paper.PARTS):
        *ours, mean = heights(lower, part)[-7:]
        assert ours == pytest.approx([log.PARTS[model][place] for model in PAPER], abs=1e-4)
        assert mean == pytest.approx(sum(ours) / 6)


def test_our_figure():
    entries = entries_of(["llama3-8b"])
    figure = drawings.normalised({"one": drawings.of_entries(entries), "two": drawings.of_paper()})
    upper, lower = figure.axes[:2]
    [found] = entries.values()
    for one in found:
        # One model has no mean.
        assert heights(upper, one.name) == [one.cycles / found[0].cycles]
    stacked = sum(bar.get_height() for bar in lower.patches if bar.get_y() >= 0)
    assert stacked == pytest.approx(sum(one.joules for one in found) / found[0].joules)
    names = upper.get_legend_handles_labels()[1]
    colors = {upper.containers[i].patches[0].get_facecolor() for i in range(len(names))}
    assert len(colors) == len(names) == len(rivals.everything())


def test_roofline_and_energy():
    machine = find_machine("decode")
    [model] = find_models(["llama3-8b"])
    found = [predict(Job(model=model, phase="decode", batch=batch), machine) for batch in (1, 64)]
    figure = drawings.prediction(found)
    roof, energy = figure.axes
    *marks, line = roof.get_lines()
    for one, of in zip(found, marks, strict=True):
        assert len(of.get_xdata()) == len(one.layers)
        for x, y, layer in zip(*of.get_data(), one.layers, strict=True):
            assert x == pytest.approx(layer.macs / (layer.bits / 8))
            assert y == pytest.approx(1e-9 * layer.macs / (layer.cycles / 500e6))
            assert y <= 1.0001 * min(512, 64 * x)
    assert line.get_ydata()[-1] == 512 and line.get_ydata()[0] == pytest.approx(
        64 * line.get_xdata()[0])
    assert [text.get_text() for text in roof.get_legend().get_texts()] == [
        "llama3-8b, decode 2048 x 1", "llama3-8b, decode 2048 x 64"]
    for row, one in enumerate(found):
        widths = [bar.get_width() for bar in energy.patches
                  if round(bar.get_y() + bar.get_height() / 2) == row]
        assert sum(widths) == pytest.approx(1e3 * one.joules / one.job.rows)


def test_energy_is_that_of_all_chips():
    [model] = find_models(["llama3.1-405b"])
    one = predict(Job(model=model), find_machine("paper", {"chips": {"count": 8}}))
    axes = drawings.breakdown([one]).axes[0]
    assert sum(bar.get_width() for bar in axes.patches) == pytest.approx(
        1e3 * one.joules / one.job.rows)


def test_labels_name_each_layer_once():
    [model] = find_models(["llama3-8b"])
    one = predict(Job(model=model, attention=True, head=True), find_machine("paper"))
    axes = drawings.roofline([one]).axes[0]
    named = [name for text in axes.texts for name in text.get_text().split(", ")]
    assert sorted(named) == sorted({layer.gemm.name for layer in one.layers})


@pytest.mark.parametrize("name, values, scale", [
    ("batch", ["1", "8", "64"], "log"), ("accelerator.format", ["M2XFP", "MXFP4"], "linear"),
    ("dram.background_mw", ["0", "100"], "linear")])
def test_scaling(name, values, scale):
    machine, models = find_machine("decode"), find_models(["llama3-8b", "mistral-7b"])
    found = [(value, predict(Job(model=model, phase="decode", batch=2 + place), machine))
             for place, value in enumerate(values) for model in models]
    panels = drawings.scaling(name, found).axes
    for axes, of in zip(panels, (lambda one: one.tokens_per_second,
                                 lambda one: 1e3 * one.joules / one.job.rows,
                                 lambda one: 100 * one.utilisation), strict=True):
        assert axes.get_xscale() == scale
        assert [text.get_text() for text in axes.get_xticklabels()] == values
        for model, line in zip(models, axes.get_lines(), strict=True):
            assert line.get_label() == model.name
            assert list(line.get_ydata()) == [of(one) for _, one in found
                                              if one.job.model == model]


@pytest.mark.parametrize("value, text", [(1870.4, "1,870"), (29.84, "29.8"), (0.42, "0.42"),
                                         (999.9, "1,000"), (0.00123, "0.00123")])
def test_amounts_have_no_exponents(value, text):
    assert drawings._amount(value) == text


@pytest.mark.parametrize("ending, words", [
    ("svg", []), ("png", ["--against", "mxfp4,mxfp8,mx-ant", "--model", "llama3-8b"]),
    pytest.param("png", ["--paper"], marks=pytest.mark.long),
    ("svg", ["--sweep", "batch=1,2", "--phase", "decode"])])
def test_plot(words, ending, tmp_path, capsys):
    path = tmp_path / f"a.{ending}"
    assert command.main(["perf", *words]) == 0
    printed = capsys.readouterr().out
    assert command.main(["perf", *words, "--plot", str(path)]) == 0
    assert capsys.readouterr().out == printed
    start = path.read_bytes()[:8]
    assert start == b"\x89PNG\r\n\x1a\n" if ending == "png" else start.startswith(b"<?xml")


class _Page(HTMLParser):
    """Sections, texts, and what the page would load."""

    def __init__(self, text):
        super().__init__()
        self.sections, self.loads, self.images, self.words, self.open = [], [], [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag not in ("meta", "img", "rect"):
            self.open.append(tag)
        if tag == "section":
            self.sections.append(given["id"])
        if tag == "img":
            self.images.append(given["alt"])
        self.loads += [given[name] for name in ("src", "href") if name in given
                       and not given[name].startswith(("data:", "#"))]
        assert tag not in ("script", "link")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.words += text


def report(words, tmp_path, capsys):
    path = tmp_path / "page.html"
    assert command.main(["perf", "--report", str(path), *words]) == 0
    assert capsys.readouterr().out == f"Report in {path}.\n"
    assert [*tmp_path.iterdir()] == [path]
    text = path.read_text()
    assert str(tmp_path) not in text
    found = _Page(text)
    assert found.open == [] and found.loads == []
    return found


def test_page_has_everything(tmp_path, capsys):
    found = report(["--sweep", "batch=1,4"], tmp_path, capsys)
    assert found.sections == ["models", "layers", "energy", "formats", "scaling", "costs"]
    assert len(found.images) == 6
    machine = find_machine("paper")
    for model in find_models(PAPER):
        one = predict(Job(model=model), machine)
        assert f"{model.name}: {one.cycles:,} cycles" in found.words
        for layer in one.layers:
            assert f"{layer.cycles:,}" in found.words
    assert "1.912 over MicroScopiQ" in found.words
    assert "python -m hw.synth mac_array" in found.words
    assert "python -m sim perf --report page.html --config paper --sweep=batch=1,4" in found.words
    for name in rivals.everything():
        assert name in found.words


@pytest.mark.long
def test_page_of_another_model(tmp_path, capsys):
    """No shares of 8 bits are known: formats are compared, the paper's designs are not."""
    found = report(["--model", "smollm2-135m"], tmp_path, capsys)
    assert "formats" in found.sections and "MicroScopiQ" not in found.words
    assert "MXFP8" in found.words and len(found.images) == 4 + len(page.SWEEPS)


@pytest.mark.long
def test_page_with_attention_compares_nothing(tmp_path, capsys):
    found = report(["--model", "smollm2-135m", "--attention", "--sweep", "chips.count=1,3"],
                   tmp_path, capsys)
    assert "formats" not in found.sections
    assert "scores" in found.words


@pytest.mark.long
def test_names_are_escaped(tmp_path, capsys):
    (tmp_path / "models").mkdir()
    path = tmp_path / "models" / "a.toml"
    path.write_text('["<b>x</b> & y"]\nlayers = 1\nhidden = 64\nffn = 64\nheads = 2\n'
                    'kv_heads = 2\nhead_dim = 32\nvocabulary = 64\n')
    out = tmp_path / "out"
    out.mkdir()
    found = report(["--model", str(path), "--sweep", "seq=1,2"], out, capsys)
    assert "<b>x</b> & y" in found.words


def test_sweeps_of_the_page_are_valid():
    for words, own in page.SWEEPS:
        assert re.fullmatch(r"[\w.]+=\d+(,\d+)+", words) and {*own} <= {
            "phase", "attention", "batch", "seq"}


@pytest.mark.parametrize("arguments, text", [
    (["--report", "a.pdf"], "--report must end in .html, not a.pdf"),
    (["--report", "a.html", "--plot", "a.svg"], "--plot must be left out with --report"),
    (["--report", "a.html", "--json", "a.json"], "--json must be left out with --report"),
    (["--report", "a.html", "--paper"], "--paper must be left out with --report"),
    (["--report", "no/a.html"], "--report must lie in a folder that exists, not no"),
    (["--plot", "a.pdf"], "--plot must end in .png or .svg, not a.pdf"),
    (["--plot", "a.svg", "--validate"], "--plot must be left out with --validate"),
    (["--report", "a.html", "--sweep", "batch=x"], "--sweep batch must have integers, not 'x'"),
    (["--report", "a.html", "--against", "tpu"], "--against must be of M2XFP, .*, not 'tpu'"),
])
def test_errors_are_one_line(arguments, text, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command.main(["perf", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1 and re.search(text, printed.err)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("option", ["--plot=a.svg", "--report=a.html"])
def test_needs_matplotlib(option, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("golden.command.util.find_spec", lambda name: None)
    assert command.main(["perf", option]) == 2
    assert capsys.readouterr().err == (f"error: {option.partition('=')[0]} needs matplotlib: "
                                       "pip install 'm2xfp-rtl[plot]'\n")
