# SPDX-License-Identifier: BSD-2-Clause
"""The commands that run a language model on the accelerator: ``generate`` and ``perplexity``."""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from golden.command import Failure
from golden.models import language, pretrained
from golden.models.tokens import SYSTEM, conversation
from hw.accelerator.config import CONFIGS, Config
from hw.lib.formats import ENCODINGS
from hw.registry import add_settings, parameters, settings_of
from hw.tools.progress import counting

from .attention import TAILS, ChipAttention, bytes_per_token
from .cycles import utilisation
from .driver import Driver, Golden, Machine, Tally
from .engines.build import ENGINES, compiler
from .language import Speaker, Text, perplexity
from .machines import Axi, Compiled

CONFIG = "decode"
"""The configuration that the commands take by default."""


def add_options(command: argparse.ArgumentParser) -> None:
    """Adds the options that both commands have."""
    command.add_argument("--model", default="smollm2", metavar="smollm2|FOLDER|FILE",
                         help="SmolLM2-135M-Instruct, the folder of a Llama checkpoint, or a file "
                              "of planes that golden calibrate wrote (default: smollm2)")
    command.add_argument("--base", default="smollm2", metavar="smollm2|FOLDER",
                         help="model whose sizes and tokenizer a file of planes has (default: "
                              "smollm2)")
    command.add_argument("--encoding", choices=ENCODINGS,
                         help="of the activations; with the others than elem-em the host encodes "
                              "them, unless --set config.engine=NAME says what does on chip "
                              f"(default: the configuration's, {ENCODINGS[0]})")
    command.add_argument("--head", choices=("chip", "host"), default="chip",
                         help="where the last product is computed: in RTL, or in float32 on the "
                              "host (default: chip)")
    command.add_argument("--attention", choices=("host", "chip"), default="host",
                         help="where attention's two products are computed: by the host in "
                              "float32, or in RTL with keys and values in planes (default: host)")
    command.add_argument("--tail", choices=TAILS, default=TAILS[0],
                         help="values of a group of tokens that is not full, with --attention "
                              "chip: encoded again for each pass, or multiplied by the host "
                              f"(default: {TAILS[0]})")
    where = command.add_mutually_exclusive_group()
    where.add_argument("--golden", action="store_true",
                       help="run the golden model in place of RTL, which takes seconds and gives "
                            "the same")
    where.add_argument("--axi", action="store_true",
                       help="drive the RTL through its AXI registers")
    command.add_argument("--engine", default="auto", choices=("auto", *ENGINES),
                         help="what compiles the RTL (default: auto, the faster one)")
    add_settings(command, parameter="config.FIELD")
    command.set_defaults(stalls=0.0, vcd=None)


def add_generate(command: argparse.ArgumentParser) -> None:
    """Adds the options of ``generate``."""
    command.add_argument("--prompt", action="append", default=[], metavar="TEXT",
                         help="what the model answers (default: What is the capital of France?); "
                              "repeat it for several texts at a time")
    command.add_argument("--tokens", type=int, default=16, metavar="N",
                         help="tokens to generate at most (default: 16)")
    command.add_argument("--template", choices=("chat", "plain"),
                         help="whether the prompt is a question in a conversation, or a text to go "
                              "on with (default: chat if the model has the tokens for it)")
    command.add_argument("--system", metavar="TEXT", default=SYSTEM,
                         help="what comes before the question; '' for nothing (default: what "
                              "SmolLM2 was trained with)")
    add_options(command)


def add_perplexity(command: argparse.ArgumentParser) -> None:
    """Adds the options of ``perplexity``."""
    command.add_argument("--tokens", type=int, default=256, metavar="N",
                         help="first tokens of the text, at least 2 (default: 256)")
    command.add_argument("--text", type=Path, metavar="FILE", help="UTF-8 text (default: news)")
    command.add_argument("--step", type=int, metavar="N",
                         help="tokens of a pass (default: all in one)")
    add_options(command)


def generate(options: argparse.Namespace) -> int:
    """Runs ``generate``; returns the exit status."""
    if options.tokens < 1:
        raise ValueError(f"--tokens must be at least 1, not {options.tokens}")
    if not all(options.prompt):
        raise ValueError("--prompt must be a text, not ''")
    with _open(options) as run:
        texts = options.prompt or ["What is the capital of France?"]
        prompts = [run.encoded(text, options) for text in texts]
        for text, tokens in zip(texts, prompts, strict=True):
            if not len(tokens):
                raise ValueError(f"--prompt must have tokens of the model, not {text!r}")
        room = run.model.sizes.context - max(map(len, prompts))
        if options.tokens > room:
            raise ValueError(f"--tokens must be at most {room}, what a context of "
                             f"{run.model.sizes.context} leaves, not {options.tokens}")
        run.load()
        return run.generate(prompts, options.tokens)


def main_job() -> int:
    """Ends the main job with a short sentence, if nothing must be fetched for it.

    Returns
    -------
    int
        Exit status: 0 without mismatches.
    """
    needed = [what for what, there in (
        ("a C++ compiler", compiler()),
        ("pip install '.[language]'", pretrained.importable("tokenizers")),
        ("the model, which the command downloads", pretrained.at_hand(pretrained.SMOLLM2))
    ) if not there]
    if needed:
        print(f"\npython -m sim generate lets a language model speak through the RTL. It needs "
              f"{'; '.join(needed)}.")
        return 0
    parser = argparse.ArgumentParser()
    add_generate(parser)
    print()
    # No system's message: a prompt of eleven tokens.
    return generate(parser.parse_args(["--prompt", "Hello!", "--system", ""]))


def measure_perplexity(options: argparse.Namespace) -> int:
    """Runs ``perplexity``; returns the exit status."""
    if options.tokens < 2:
        raise ValueError(f"--tokens must be at least 2, not {options.tokens}")
    if options.step is not None and options.step < 1:
        raise ValueError(f"--step must be at least 1, not {options.step}")
    with _open(options) as run:
        try:
            text = options.text.read_text("utf-8") if options.text else pretrained.news()
        except UnicodeDecodeError:
            raise ValueError(f"--text must be UTF-8, which {options.text} is not") from None
        tokens = run.model.tokens.encode(text)
        most = min(len(tokens), run.model.sizes.context)
        if options.tokens > most:
            raise ValueError(f"--tokens must be at most {most} for this text and model, "
                             f"not {options.tokens}")
        run.load()
        return run.perplexity(tokens[: options.tokens])


def _open(options):
    config = _config(options)
    if not options.golden and not compiler():
        raise Failure("RTL needs a C++ compiler here: set CXX, or install g++ or clang++; --golden "
                      "needs none")
    return _Run(options, config)


def _config(options) -> Config:
    """The configuration with its encoding; that of the host's where there is no engine."""
    words = settings_of(options)
    if options.config is None:
        words = [f"config={CONFIG}", *words]
    config = parameters("accelerator", words)["config"]
    config = CONFIGS[config] if isinstance(config, str) else config
    if options.encoding in (None, config.encoding):
        return config
    return dataclasses.replace(config, encoding=options.encoding, input=None, engine=None)


class _Run:
    """An open model and a machine, for one command."""

    def __init__(self, options: argparse.Namespace, config: Config) -> None:
        self.options = options
        self.config = config
        self._stack = ExitStack()
        try:
            self.model = self._stack.enter_context(language.load(options.model, options.base))
        except BaseException:
            self._stack.close()
            raise
        self._shown: Callable[[str, int, int], Any] = lambda name, done, total: None

    def __enter__(self) -> "_Run":
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def load(self) -> None:
        """Builds the machine and loads the weights."""
        name = self.options.config or CONFIG
        print(f"{self.model.name} ({self.model.reference}) on config "
              f"{' '.join([name, *self.options.set])}, {self.config.encoding}: "
              f"{'golden model' if self.options.golden else 'RTL'}", flush=True)
        started = time.perf_counter()
        machine = self._machine()
        self.built = time.perf_counter() - started
        with counting("weights", "product") as count:
            self._shown = lambda name, done, total: count(done, total)
            self.driver = Driver(machine)
            chip = self.options.attention == "chip"
            self.speaker = Speaker(self.model, self.driver, head=self.options.head == "chip",
                                   attend=ChipAttention(self.driver, self.options.tail)
                                   if chip else None,
                                   progress=lambda *state: self._shown(*state))

    def _machine(self) -> Machine:
        if self.options.golden:
            return Golden(self.config)
        kind = Axi if self.options.axi else Compiled
        with counting("build", "part"):
            return self._stack.enter_context(kind(self.config, self.options.engine))

    def encoded(self, prompt: str, options: argparse.Namespace) -> np.ndarray:
        """Tokens of a prompt in its template."""
        chats = self.model.tokens.chats
        if options.template == "chat" and not chats:
            raise ValueError("--template must be plain for this model, whose tokenizer has no "
                             "tokens for a chat, not chat")
        chat = chats if options.template is None else options.template == "chat"
        return self.model.tokens.encode(
            conversation(prompt, options.system) if chat else prompt)

    def generate(self, prompts: list[np.ndarray], count: int) -> int:
        """Generates texts and tells what it took."""
        decode = self.model.tokens.decode
        texts = [Text() for _ in prompts]
        print(f"  {sum(map(len, prompts))} tokens of prompt", flush=True)
        tallies, started = [dataclasses.replace(self.driver.tally)], time.perf_counter()
        with _Stage("text", alone=len(texts) == 1, passes=count) as stage:
            self._shown = stage
            for stream, token, _ in self.speaker.generate(prompts, count):
                stage.add(texts[stream].add(token, decode))
                # All texts' tokens of a pass come together.
                if len(tallies) == max(len(text.tokens) for text in texts):
                    tallies.append(dataclasses.replace(self.driver.tally))
        seconds = time.perf_counter() - started
        for number, text in enumerate(texts):
            if len(texts) > 1:
                print(f"{number}: {decode(text.tokens)}")
            elif stage.held:
                print(decode(text.tokens))
        return self._report(tallies, seconds, [len(text.tokens) for text in texts])

    def perplexity(self, tokens: np.ndarray) -> int:
        """Measures the perplexity of a text, and tells what it took."""
        started = time.perf_counter()
        before = dataclasses.replace(self.driver.tally)
        with counting(f"{len(tokens)} tokens", "product") as count:
            self._shown = lambda name, done, total: count(done, total)
            nll, value = perplexity(self.speaker, tokens, self.options.step)
        print(f"  first {len(tokens)} tokens: negative log-likelihood {nll!r}, "
              f"perplexity {value!r}")
        return self._report([before, dataclasses.replace(self.driver.tally)],
                            time.perf_counter() - started, [])

    def _report(self, tallies, seconds, counts):
        whole: Tally = tallies[-1] - tallies[0]
        if not self.options.golden:
            print(f"  {whole.commands:,} commands, {whole.rows:,} rows of results, "
                  f"{whole.mismatches} mismatches against golden")
        unknown = f"no closed form is known of {whole.unknown:,} commands"
        if whole.unknown and self.options.golden:
            print(f"  no cycles: {unknown}")
        else:
            share = utilisation(self.config, whole.products, 1, 1, whole.cycles)
            same = "as the closed form says" if whole.cycles == whole.closed \
                else f"{whole.closed:,} in closed form"
            if whole.unknown:
                same += f", but {unknown}"
            print(f"  {whole.cycles:,} cycles, {same}; utilisation {100 * share:.1f} % of "
                  f"{self.driver.config.group * self.driver.config.columns} MACs per cycle")
        if self.options.attention == "chip":
            planes, plain = bytes_per_token(self.model.sizes, self.driver.config.group)
            print(f"  keys and values: {planes:,.0f} bytes per token in planes, {plain:,} in "
                  "bfloat16")
        self._speed(tallies, counts)
        if not self.options.golden:
            print(f"  built or loaded in {self.built:.1f} s, ran {seconds:.1f} s, "
                  f"{whole.cycles / seconds:,.0f} cycles/s with the host's part")
        return 1 if whole.mismatches or whole.cycles != whole.closed else 0

    def _speed(self, tallies, counts):
        """Tokens per second at the clock that synthesis gave, of the accelerator alone."""
        name = self.options.config or CONFIG
        clocks = _clocks()
        if self.options.set or name not in clocks or self.config.encoding != ENCODINGS[0]:
            return
        mhz = clocks[name]["fmax_mhz"]
        first = (tallies[1] - tallies[0]).cycles / mhz / 1000
        line = f"  at the {mhz:.0f} MHz of synthesis: first pass {first:.1f} ms"
        if len(tallies) > 2:
            cycles = (tallies[-1] - tallies[1]).cycles
            line += (f", then {(sum(counts) - len(counts)) * mhz * 1e6 / cycles:,.0f} tokens per "
                     "second")
        print(f"{line}, without the host")


def _clocks():
    """Clocks of synthesis by configuration, from ``clocks.json``, which names their commands."""
    return json.loads(resources.files(__package__).joinpath("clocks.json").read_text("utf-8"))


class _Stage:
    """Shows progress by products, and a text as it grows.

    On a terminal the text's end stands before the bar. Elsewhere the text is written as it is made.

    Parameters
    ----------
    what : str
    alone : bool
        Whether there is one text, which is shown.
    passes : int
        Passes through the model, at most.
    """

    def __init__(self, what: str, *, alone: bool, passes: int) -> None:
        self.what = what
        self._passes = passes
        self._done = 0
        self.held = sys.stderr is not None and sys.stderr.isatty()
        self._writes = alone and not self.held
        self._alone = alone
        self._text = ""
        self._count: Any = None

    def __enter__(self) -> "_Stage":
        self._context = counting(self.what, "product")
        self._count = self._context.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._context.__exit__(*error)
        if self._writes and self._text:
            print(flush=True)

    def __call__(self, name: str, done: int, total: int) -> None:
        self._done += 1
        self._count(self._done, self._passes * total)

    def add(self, text: str) -> None:
        """Shows more of the text."""
        self._text += text
        if self._writes:
            print(text, end="", flush=True)
        elif self._alone:
            self._count.title(" ".join(self._text.split())[-50:])

