# SPDX-License-Identifier: BSD-2-Clause
"""The commands that run a language model, with one that nobody trained."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import sim.__main__ as command
from golden import dequantize, quantize_activations, quantize_weights
from golden.models import language, pretrained
from golden.models.llama import loss
from sim import cycles, generate
from sim.engines import build
from sim.language import Text
from tests.support import speakers
from tests.support.speakers import SIZES

NARROW = ["--config", "tiny", "--set", "config.columns=1", "--set", "config.weight_width=1"]
PLAIN = ["--golden", "--config", "tiny", "--template", "plain"]


@pytest.fixture
def model(tmp_path):
    return str(speakers.folder(tmp_path / "model"))


def logits(folder, tokens, *, head=True):
    """By the network with quantized operands and float products: no cache, no driver."""
    def product(x, w):
        return dequantize(quantize_activations(x)) @ dequantize(quantize_weights(w)).T

    with language.load(folder) as made:
        hidden = made.network.forward([(np.array(tokens), made.network.cache())],
                                      lambda name, x: product(x, made.weight(name)))
        weight = made.weight("head")
    return product(hidden, weight) if head else hidden @ weight.T


def likeliest(folder, text, count, **options):
    with language.load(folder) as made:
        tokens = made.tokens.encode(text).tolist()
        for _ in range(count):
            tokens.append(int(logits(folder, tokens, **options)[-1].argmax()))
            if tokens[-1] in made.tokens.end:
                break
        return made.tokens.decode(tokens[len(made.tokens.encode(text)) :])


@pytest.mark.parametrize("head", ["chip", "host"])
def test_tokens_are_the_likeliest_ones(model, capsys, head):
    assert command.main(["generate", "--model", model, "--prompt", "badhack", "--tokens", "9",
                         "--head", head, *PLAIN]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "model (the checkpoint) on config tiny, elem-em: golden model"
    assert lines[1] == "  7 tokens of prompt"
    assert lines[2] == likeliest(model, "badhack", 9, head=head == "chip")


def test_cycles_are_the_closed_form_s(model, capsys):
    assert command.main(["generate", "--model", model, "--prompt", "abc", "--tokens", "1",
                         *PLAIN]) == 0
    shapes = [(3, 64, 128), (3, 64, 64), (3, 64, 192), (3, 96, 64)] * 2 + [(1, 64, 20)]
    total = sum(cycles("tiny", *shape) for shape in shapes)
    useful = sum(m * k * n for m, k, n in shapes)
    assert (f"  {total:,} cycles, as the closed form says; utilisation "
            f"{100 * useful / 1024 / total:.1f} % of 1024 MACs per cycle") in \
        capsys.readouterr().out


def test_several_texts_at_a_time(model, capsys):
    """Each is what it is alone, but its rows take fewer passes."""
    words = ["--model", model, "--tokens", "6", *PLAIN]
    prompts = ["abc", "dad", "hi"]
    alone = [likeliest(model, prompt, 6) for prompt in prompts]
    asked = [word for prompt in prompts for word in ("--prompt", prompt)]
    assert command.main(["generate", *asked, *words]) == 0
    printed = capsys.readouterr().out
    assert "  8 tokens of prompt\n" in printed
    for number, text in enumerate(alone):
        assert f"\n{number}: {text}\n" in printed


def test_a_chat(model, capsys):
    """The letters q and r are tokens, others of the template are not and vanish."""
    assert command.main(["generate", "--model", model, "--prompt", "ab", "--system", "",
                         "--tokens", "1", "--golden", "--config", "tiny"]) == 0
    with language.load(model) as made:
        count = len(made.tokens.encode(
            "<|im_start|>user\nab<|im_end|>\n<|im_start|>assistant\n"))
    assert f"  {count} tokens of prompt\n" in capsys.readouterr().out


@pytest.mark.parametrize("step", [[], ["--step", "1"], ["--step", "9"]])
def test_perplexity(model, tmp_path, capsys, step):
    """However many tokens a pass has."""
    (tmp_path / "text").write_text("abcdefghijklmnop" * 2)
    assert command.main(["perplexity", "--model", model, "--text", str(tmp_path / "text"),
                         "--tokens", "32", "--golden", "--config", "tiny", *step]) == 0
    found = re.search(r"negative log-likelihood ([\d.]+), perplexity ([\d.]+)\n",
                      capsys.readouterr().out)
    nll, value = map(float, found.groups())
    tokens = np.tile(np.arange(16), 2)
    assert nll == pytest.approx(loss(logits(model, tokens[:-1]), tokens[1:]), rel=1e-5)
    assert value == np.exp(nll)


@pytest.mark.parametrize(("words", "status", "text"), [
    (["generate", "--tokens", "0"], 2, "--tokens must be at least 1, not 0"),
    (["generate", "--prompt", ""], 2, "--prompt must be a text, not ''"),
    (["generate", "--prompt", "xyz"], 2, "--prompt must have tokens of the model, not 'xyz'"),
    (["generate", "--prompt", "abc", "--tokens", "38"], 2,
     "--tokens must be at most 37, what a context of 40 leaves, not 38"),
    (["generate", "--prompt", "a", "--set", "config.columns=3"], 2,
     "config.columns: columns must be a power of two, not 3"),
    (["perplexity", "--tokens", "1"], 2, "--tokens must be at least 2, not 1"),
    (["perplexity", "--step", "0"], 2, "--step must be at least 1, not 0"),
    (["perplexity", "--text", "TEXT", "--tokens", "9"], 2,
     "--tokens must be at most 4 for this text and model, not 9"),
])
def test_bad_use(model, tmp_path, capsys, words, status, text):
    (tmp_path / "text").write_text("abcd")
    words = [str(tmp_path / "text") if word == "TEXT" else word for word in words]
    plain = PLAIN if words[0] == "generate" else PLAIN[:3]
    assert command.main([*words, "--model", model, *plain]) == status
    assert capsys.readouterr().err == f"error: {text}\n"


def test_a_text_that_is_not_utf_8(model, tmp_path, capsys):
    (tmp_path / "text").write_bytes(b"\xff")
    assert command.main(["perplexity", "--model", model, "--text", str(tmp_path / "text"),
                         "--golden"]) == 2
    assert capsys.readouterr().err == f"error: --text must be UTF-8, which {tmp_path}/text is not\n"


def test_no_compiler(model, monkeypatch, capsys):
    monkeypatch.setattr(generate, "compiler", lambda: None)
    assert command.main(["generate", "--model", model]) == 1
    assert capsys.readouterr().err == (
        "error: RTL needs a C++ compiler here: set CXX, or install g++ or clang++; --golden needs "
        "none\n")


def test_the_package_is_missing(model, monkeypatch, capsys):
    monkeypatch.setitem(pretrained.sys.modules, "tokenizers", None)
    assert command.main(["generate", "--model", model, "--golden"]) == 1
    assert capsys.readouterr().err == ("error: tokenizers must be installed to generate text: "
                                       "pip install 'm2xfp-rtl[language]'\n")


@pytest.mark.parametrize(("lacks", "text"), [
    ("compiler", "a C++ compiler"),
    ("tokenizers", "pip install '.[language]'"),
    ("model", "the model, which the command downloads"),
])
def test_the_main_job_says_what_is_missing(monkeypatch, capsys, lacks, text):
    found(monkeypatch, compiler=lacks != "compiler", model=lacks != "model")
    if lacks == "tokenizers":
        monkeypatch.setitem(pretrained.sys.modules, "tokenizers", None)
    assert generate.main_job() == 0
    assert capsys.readouterr().out == (
        f"\npython -m sim generate lets a language model speak through the RTL. It needs {text}.\n")


def found(monkeypatch, *, compiler, model):
    monkeypatch.setattr(generate, "compiler", lambda: ["c++"] if compiler else None)
    monkeypatch.setattr(pretrained, "at_hand", lambda package: "there" if model else None)


def test_the_main_job_ends_with_a_sentence(monkeypatch, capsys):
    asked = []
    found(monkeypatch, compiler=True, model=True)
    monkeypatch.setattr(generate, "generate", lambda options: asked.append(options) or 1)
    assert generate.main_job() == 1
    options, = asked
    assert (options.prompt, options.system, options.golden) == (["Hello!"], "", False)
    assert capsys.readouterr().out == "\n"


def test_characters_of_several_tokens():
    """The bytes of a character come with several tokens; it is shown when it is whole."""
    parts = {1: b"a", 2: "\N{EURO SIGN}".encode()[:2], 3: "\N{EURO SIGN}".encode()[2:], 4: b"b"}
    text = Text()

    def decode(tokens):
        return b"".join(parts[token] for token in tokens).decode(errors="replace")

    assert [text.add(token, decode) for token in (1, 2, 3, 4)] == ["a", "", "\N{EURO SIGN}", "b"]
    assert text.tokens == [1, 2, 3, 4]


def test_clocks_are_those_of_synthesis():
    """That of the configuration whose figures are published is there, too."""
    figures = json.loads(Path("docs/figures.json").read_text())["units"]["accelerator"]
    clocks = generate._clocks()
    assert clocks["paper"]["fmax_mhz"] == figures["fmax_mhz"]
    assert {*clocks} == {"paper", "decode"}
    assert all(name in clock["command"] for name, clock in clocks.items())


def test_speed(model, capsys, monkeypatch):
    """Tokens after the first pass over their cycles, at the clock."""
    monkeypatch.setattr(generate, "_clocks", lambda: {"tiny": {"fmax_mhz": 500.0}})
    assert command.main(["generate", "--model", model, "--prompt", "abc", "--tokens", "3",
                         *PLAIN]) == 0
    shapes = [(64, 128), (64, 64), (64, 192), (96, 64)] * 2 + [(64, 20)]
    first = sum(cycles("tiny", 3 if n != 20 else 1, k, n) for k, n in shapes)
    later = sum(cycles("tiny", 1, k, n) for k, n in shapes)
    assert (f"  at the 500 MHz of synthesis: first pass {first / 500e3:.1f} ms, then "
            f"{500e6 / later:,.0f} tokens per second, without the host\n") in \
        capsys.readouterr().out


@pytest.mark.long
@pytest.mark.skipif(not build.compiler(), reason="needs a C++ compiler")
@pytest.mark.parametrize("words", [
    ["--axi"], ["--encoding", "sg-special", "--attention", "chip", "--tail", "host"],
    ["--encoding", "sg-special64", "--attention", "chip", "--tail", "host"],
    ["--attention", "chip"]], ids=["axi", "sg-special", "sg-special64", "attention"])
def test_rtl_says_what_golden_says(model, capsys, words):
    """On an array of one column, which is built in seconds."""
    words = ["--model", model, *NARROW, *words]
    plain = ["--template", "plain", "--tokens", "5", "--prompt", "abc", "--prompt", "bagelhole"]
    texts = []
    for golden in ([], ["--golden"]):
        own = [word for word in words if not (golden and word == "--axi")]
        assert command.main(["generate", *own, *plain, *golden]) == 0
        texts.append(capsys.readouterr().out)
    assert re.search(r" commands, [\d,]+ rows of results, 0 mismatches against golden\n", texts[0])
    pattern = r"^[01]: .*$"
    assert re.findall(pattern, texts[0], re.M) == re.findall(pattern, texts[1], re.M)
    assert "cycles, as the closed form says;" in texts[0]


@pytest.mark.long
@pytest.mark.skipif(not build.compiler(), reason="needs a C++ compiler")
def test_perplexity_in_rtl_is_golden_s_to_the_last_digit(model, tmp_path, capsys):
    (tmp_path / "text").write_text("abcdefghijklmnop" * 2)
    lines = []
    for golden in ([], ["--golden"]):
        assert command.main(["perplexity", "--model", model, "--text", str(tmp_path / "text"),
                             "--tokens", "32", *NARROW, *golden]) == 0
        lines.append(capsys.readouterr().out.splitlines()[1])
    assert lines[0] == lines[1]
    assert SIZES.context >= 32
