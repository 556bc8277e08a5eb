# SPDX-License-Identifier: BSD-2-Clause
"""Evaluates models with quantized operands: losses, embeddings and errors of layers' outputs.

All linear layers of the blocks multiply quantized weights and activations. Embeddings, norms and
the head stay as they are. Each weight is quantized once. Activations are quantized when the network
runs, along the axis that the product sums over. Some formats have a scale per tensor: a weight has
its own, and activations have one for all tokens that run together, which are one sequence. This is
the result of a perfect calibration.

With ``kv`` attention multiplies quantized operands, too: keys and values in the weights' format,
queries and probabilities in the activations' format. A value's groups lie along the sequence,
because its product sums over the sequence.
"""

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import golden

from ..codec.arrays import Float32Array, Int64Array
from ..formats.catalogue import FORMATS
from ..formats.format import Format
from .hooks import captured, quantized, quantized_attention
from .pretrained import Model

PIECE = 2**17
"""Elements that are quantized at a time: intermediate results nearly fit the cache."""

TOKENS = 256
"""Tokens whose logits are in memory at a time."""


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """Formats of both operands of the linear layers.

    Attributes
    ----------
    name : str
    weights, activations : Format or None
        With None the operand is not quantized.
    """

    name: str
    weights: Format | None
    activations: Format | None

    @property
    def bits(self) -> tuple[float, ...]:
        """Bits per element of weights and of activations."""
        return tuple(32 if f is None else f.bits_per_element
                     for f in (self.weights, self.activations))


_PAIRS = {
    "M2XFP": ("M2XFP weights", "M2XFP activations"),
    "M2XFP fixed": ("M2XFP weights fixed", "M2XFP activations"),
    "Sg-EM": ("M2XFP weights", "M2XFP weights"),
    "Elem-EM": ("M2XFP activations", "M2XFP activations"),
    "Sg-special": ("M2XFP Sg-special weights", "M2XFP Sg-special"),
    "Sg-special64": ("M2XFP Sg-special64 weights", "M2XFP Sg-special64"),
}
"""By name, the formats of weights and activations."""

FLOAT = Scheme(name="float", weights=None, activations=None)
"""The scheme of the model as it is."""


def scheme(name: str) -> Scheme:
    """Finds a scheme by name.

    Parameters
    ----------
    name : str
        "M2XFP", "M2XFP fixed" (fixed weights), "Sg-EM", "Elem-EM", "Sg-special" or "Sg-special64"
        (both operands); a name in `golden.formats.catalogue.FORMATS` for both operands; or two such
        names as "WEIGHTS/ACTIVATIONS". "float" leaves an operand as it is.

    Returns
    -------
    Scheme

    Raises
    ------
    ValueError
        If there is no such format.
    """
    pair = _PAIRS.get(name) or (name.split("/") if "/" in name else (name, name))
    known: dict[str, Format | None] = {"float": None, **FORMATS}
    if len(pair) != 2 or not all(part in known for part in pair):
        raise ValueError(f"format must be {', '.join(_PAIRS)}, one that `python -m golden formats` "
                         f"lists, or two as WEIGHTS/ACTIVATIONS, not {name!r}")
    return Scheme(name=name, weights=known[pair[0]], activations=known[pair[1]])


def round_trip(f: Format | None, x: Float32Array, *, threads: int = 1) -> Float32Array:
    """Quantizes and dequantizes a tensor as ``f.round_trip`` does, in pieces that threads share.

    Parameters
    ----------
    f : Format or None
        With None the result is ``x``.
    x : array of float32, shape (..., K)
    threads : int
        At least 1.

    Returns
    -------
    float32 array
        Of the shape of ``x``.
    """
    if f is None:
        return x
    rows = np.ascontiguousarray(x).reshape(-1, x.shape[-1])
    options = {"tensor_scale": tensor_scale(f, rows)} if f.tensor_scale else {}
    values = np.empty_like(rows)
    step = max(1, PIECE // rows.shape[1])

    def work(start):
        part = slice(start, start + step)
        values[part] = f.round_trip(rows[part], **options)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(0, len(rows), step)))
    return values.reshape(x.shape)


def tensor_scale(f: Format, x: Float32Array) -> np.float32:
    """The scale that a format with a scale per tensor has for a tensor.

    It depends only on the largest finite magnitude.
    """
    largest: np.float32 = np.abs(x).max(initial=np.float32(0), where=np.isfinite(x))
    return f.quantize(np.full(1, largest)).tensor_scale


class Evaluation:
    """Runs a model under one scheme after the other.

    Parameters
    ----------
    model : golden.models.pretrained.Model
    kv : bool
        Whether attention multiplies quantized operands, too.
    """

    def __init__(self, model: Model, *, kv: bool = False) -> None:
        import torch

        self.torch: Any = torch
        self.model = model
        self.kv = kv
        self.threads = torch.get_num_threads()
        # A language model has its blocks in the network's `model`; an encoder has only blocks.
        self.base = getattr(model.network, "model", model.network)
        self.scheme = FLOAT
        self.weights: dict[str, Float32Array] = {}
        # The unquantized model's last hidden states by sequence. Logits would be 85 times larger.
        self.hidden: dict[bytes, Any] = {}

    def select(self, scheme: Scheme) -> None:
        """Selects a scheme and quantizes the weights in its format."""
        if scheme != self.scheme:
            self.weights.clear()
            for name, linear in self.model.linears.items():
                weight = linear.weight.detach().numpy()
                self.weights[name] = round_trip(scheme.weights, weight, threads=self.threads)
            self.scheme = scheme

    def _activations(self, name, x):
        return round_trip(self.scheme.activations, x, threads=self.threads)

    def _attention(self, kind, x):
        f = self.scheme.weights if kind in ("key", "value") else self.scheme.activations
        return round_trip(f, x, threads=self.threads)

    def _run(self, run):
        """Calls a function while the network is quantized, and returns its result."""
        with ExitStack() as stack:
            stack.enter_context(self.torch.inference_mode())
            if self.scheme != FLOAT:
                stack.enter_context(quantized(
                    self.model.linears, weights=lambda name, weight: self.weights[name],
                    activations=self._activations))
                if self.kv:
                    stack.enter_context(quantized_attention(self.model.network, self._attention))
            return run()

    def losses(self, scheme: Scheme, tokens: Int64Array) -> dict[str, float]:
        """Losses of a language model on a sequence.

        Parameters
        ----------
        scheme : Scheme
        tokens : int64 array, shape (length,)

        Returns
        -------
        dict of str to float
            "nll": mean negative log-likelihood of all tokens but the first, in nats. "kl": mean
            Kullback-Leibler divergence from the unquantized model's predictions, in nats.
        """
        ids = self.torch.from_numpy(tokens)
        expected = self._float_hidden(tokens)
        if scheme == FLOAT:
            hidden = expected
        else:
            self.select(scheme)
            hidden = self._run(lambda: self._hidden(ids))
        nll = kl = 0.0
        with self.torch.inference_mode():
            for start in range(0, len(ids) - 1, TOKENS):
                part = slice(start, min(start + TOKENS, len(ids) - 1))
                log = self.model.network.lm_head(hidden[part]).log_softmax(-1)
                following = ids[part.start + 1: part.stop + 1, None]
                nll -= log.gather(-1, following).double().sum().item()
                if scheme != FLOAT:
                    right = self.model.network.lm_head(expected[part]).log_softmax(-1)
                    kl += (right.exp() * (right - log)).double().sum().item()
        return {"nll": nll / (len(ids) - 1), "kl": kl / (len(ids) - 1)}

    def _hidden(self, ids):
        return self.base(input_ids=ids[None], use_cache=False).last_hidden_state[0]

    def _float_hidden(self, tokens):
        key = tokens.tobytes()
        if key not in self.hidden:
            with self.torch.inference_mode():
                self.hidden[key] = self._hidden(self.torch.from_numpy(tokens))
        return self.hidden[key]

    def embeddings(self, scheme: Scheme, texts: Sequence[str], *, length: int) -> Float32Array:
        """Embeddings of texts: means over their tokens, scaled to length 1.

        Parameters
        ----------
        scheme : Scheme
        texts : sequence of str
        length : int
            Tokens after which a text is cut.

        Returns
        -------
        float32 array, shape (texts, hidden size)
        """
        self.select(scheme)
        inputs = [self.encode(text, length) for text in texts]
        states = self._run(lambda: [self.base(**i).last_hidden_state[0] for i in inputs])
        found = np.stack([state.mean(0).numpy() for state in states])
        return found / np.linalg.norm(found, axis=-1, keepdims=True)

    def encode(self, text: str, length: int) -> Any:
        """Makes inputs of the network, a batch of one, from the first tokens of a text."""
        return self.model.tokenizer(text, truncation=True, max_length=length, return_tensors="pt")

    def inputs(self, tokens: Int64Array) -> dict[str, Any]:
        """Makes inputs of the network, a batch of one, from tokens."""
        return {"input_ids": self.torch.from_numpy(tokens)[None]}

    def layers(self, scheme: Scheme, inputs: Sequence[Mapping[str, Any]]
               ) -> dict[str, dict[str, float]]:
        """Relative squared errors of every layer, given the unquantized model's inputs.

        Parameters
        ----------
        scheme : Scheme
        inputs : sequence of mapping of str to torch.Tensor
            Inputs of the network, a batch of one each.

        Returns
        -------
        dict of str to dict of str to float
            By layer, the sums of squared errors over the sums of squares of its "weights",
            "activations" and "outputs".
        """
        self.select(scheme)
        weights = {name: linear.weight.detach().numpy()
                   for name, linear in self.model.linears.items()}
        totals, last = {name: np.zeros((2, 2)) for name in weights}, (None, None)

        def see(name, x):
            nonlocal last
            # A tensor that several layers take is quantized once.
            if last[0] is None or not np.shares_memory(last[0], x):
                last = x, self._activations(name, x)
            outputs = (self._product(*pair) for pair in (
                (last[1], self.weights[name]), (x, weights[name])))
            totals[name] += squares(last[1], x), squares(*outputs)

        with self.torch.inference_mode(), captured(self.model.linears, see):
            for one in inputs:
                self.base(**one)
        return {name: dict(zip(("weights", "activations", "outputs"), (
            squared / total for squared, total in (
                squares(self.weights[name], weights[name]), *totals[name].tolist())),
            strict=True)) for name in weights}

    def samples(self, inputs: Mapping[str, Any], *, rows: int
                ) -> tuple[list[tuple[Float32Array, np.float32]],
                           list[tuple[Float32Array, np.float32]]]:
        """Takes evenly spaced rows of all weights and of all inputs of linear layers.

        Parameters
        ----------
        inputs : mapping of str to torch.Tensor
            Inputs of the network, a batch of one.
        rows : int
            Rows of each tensor, at most.

        Returns
        -------
        weights, activations : list of (float32 array of shape (rows, K), float32)
            Rows, and the largest magnitude of the whole tensor.
        """
        def sample(x):
            # From the middle of each part. The first token differs from all others and would count
            # too much.
            count = min(rows, len(x))
            return x[(2 * np.arange(count) + 1) * len(x) // (2 * count)], np.abs(x).max()

        activations, last = [], None

        def see(name, x):
            nonlocal last
            if last is None or not np.shares_memory(last, x):
                last = x
                activations.append(sample(x))

        with self.torch.inference_mode(), captured(self.model.linears, see):
            self.base(**inputs)
        return [sample(linear.weight.detach().numpy())
                for linear in self.model.linears.values()], activations

    def _product(self, x, weight):
        return (self.torch.from_numpy(x) @ self.torch.from_numpy(weight).T).numpy()


def sample_error(f: Format, samples: Sequence[tuple[Float32Array, np.float32]]) -> float:
    """Relative squared error of a format on rows of tensors; the mean over the tensors.

    Parameters
    ----------
    f : Format
    samples : sequence of (float32 array, float32)
        As `Evaluation.samples` returns them.

    Returns
    -------
    float
    """
    ratios = []
    for rows, largest in samples:
        options = {"tensor_scale": tensor_scale(f, np.asarray(largest))} if f.tensor_scale else {}
        squared, total = squares(f.round_trip(rows, **options), rows)
        ratios.append(squared / total)
    return float(np.mean(ratios))


def squares(values: Float32Array, reference: Float32Array) -> tuple[float, float]:
    """Sums of the squared errors of values and of the reference's squares, in float64."""
    error, square = (float(np.square(a, dtype=np.float64).sum())
                     for a in (np.subtract(values, reference), reference))
    return error, square


def code() -> str:
    """Digest of the golden model's code, except of the module that only shows figures."""
    total = hashlib.sha256()
    root = Path(golden.__file__).parent
    for file in sorted([*root.rglob("*.py"), *root.rglob("*.c")]):
        if file.name != "accuracy_report.py":
            total.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes())
    return total.hexdigest()[:16]
