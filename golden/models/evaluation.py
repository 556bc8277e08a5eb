"""What quantized operands cost a real model: its losses, embeddings and layers' outputs.

All linear layers of the blocks multiply quantized weights and activations; embeddings, norms and
the head are left as they are. A weight is quantized once. Activations are quantized as they come,
along the axis that the product sums over. Where a format has a scale per tensor, that of a weight
is the weight's and that of activations the one of all tokens that run together, which are one
sequence: as from a calibration that knew it.

With the cache, attention multiplies quantized operands, too: keys and values in the weights'
format, queries and probabilities in that of the activations. A value's groups lie along the
sequence, as its product sums over that.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import golden

from ..formats.catalogue import FORMATS
from ..formats.format import Format
from .pretrained import captured, quantized, quantized_attention

PIECE = 2**17
"""Elements that are quantized at a time: what comes between nearly fits the cache."""

TOKENS = 256
"""Tokens whose logits are held at a time."""


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """Formats of both operands of the linear layers.

    Attributes
    ----------
    name : str
    weights, activations : Format or None
        None leaves them as they are.
    """

    name: str
    weights: Format | None
    activations: Format | None

    @property
    def bits(self):
        """Bits per element of weights and of activations."""
        return tuple(32 if f is None else f.bits_per_element
                     for f in (self.weights, self.activations))


_PAIRS = {
    "M2XFP": ("M2XFP weights", "M2XFP activations"),
    "M2XFP fixed": ("M2XFP weights fixed", "M2XFP activations"),
    "Sg-EM": ("M2XFP weights", "M2XFP weights"),
    "Elem-EM": ("M2XFP activations", "M2XFP activations"),
    "Sg-special": ("M2XFP Sg-special weights", "M2XFP Sg-special"),
}
"""Names of weights' and activations' formats."""

FLOAT = Scheme(name="float", weights=None, activations=None)


def scheme(name):
    """A scheme by name.

    Parameters
    ----------
    name : str
        "M2XFP", "M2XFP fixed" (its weights), "Sg-EM", "Elem-EM" or "Sg-special" (both operands),
        the name of one of `golden.formats.catalogue.FORMATS` for both, or two of them as
        "WEIGHTS/ACTIVATIONS", where "float" leaves one as it is.

    Returns
    -------
    Scheme

    Raises
    ------
    ValueError
        If there is no such format.
    """
    pair = _PAIRS.get(name) or (name.split("/") if "/" in name else (name, name))
    known = {"float": None} | FORMATS
    if len(pair) != 2 or not all(part in known for part in pair):
        raise ValueError(f"format must be {', '.join(_PAIRS)}, one that `python -m golden formats` "
                         f"lists, or two as WEIGHTS/ACTIVATIONS, not {name!r}")
    return Scheme(name=name, weights=known[pair[0]], activations=known[pair[1]])


def round_trip(f, x, *, threads=1):
    """Values of a tensor in a format, as of ``f.round_trip``, in pieces that threads share.

    Parameters
    ----------
    f : Format or None
        None returns ``x``.
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


def tensor_scale(f, x):
    """The scale that a format with one per tensor takes for a tensor.

    It depends on the largest finite magnitude alone.

    Returns
    -------
    float32
    """
    largest = np.abs(x).max(initial=np.float32(0), where=np.isfinite(x))
    return f.quantize(np.full(1, largest)).tensor_scale


class Evaluation:
    """A model under one scheme after the other.

    Parameters
    ----------
    model : golden.models.pretrained.Model
    kv : bool
        Whether attention multiplies quantized operands, too.
    """

    def __init__(self, model, *, kv=False):
        import torch

        self.torch = torch
        self.model = model
        self.kv = kv
        self.threads = torch.get_num_threads()
        # A language model's blocks lie in its network's `model`; an encoder is nothing else.
        self.base = getattr(model.network, "model", model.network)
        self.scheme, self.weights = FLOAT, {}
        # Of the unquantized model: last hidden states by sequence, as logits are 85 times larger.
        self.hidden = {}

    def select(self, scheme):
        """Quantizes the weights in a scheme's format, once."""
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
        """What the quantized network gives."""
        with ExitStack() as stack:
            stack.enter_context(self.torch.inference_mode())
            if self.scheme != FLOAT:
                stack.enter_context(quantized(
                    self.model.linears, weights=lambda name, weight: self.weights[name],
                    activations=self._activations))
                if self.kv:
                    stack.enter_context(quantized_attention(self.model.network, self._attention))
            return run()

    def losses(self, scheme, tokens):
        """Losses of a language model on a sequence.

        Parameters
        ----------
        scheme : Scheme
        tokens : ndarray of int64, shape (length,)

        Returns
        -------
        dict of str to float
            "nll": mean negative log-likelihood of every token but the first, in nats. "kl": mean
            Kullback-Leibler divergence of the unquantized model's predictions from these.
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

    def embeddings(self, scheme, texts, *, length):
        """Embeddings of texts: means over their tokens, of length 1.

        Parameters
        ----------
        scheme : Scheme
        texts : list of str
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

    def encode(self, text, length):
        """A text as the network's inputs, a batch of one, cut after some tokens."""
        return self.model.tokenizer(text, truncation=True, max_length=length, return_tensors="pt")

    def inputs(self, tokens):
        """Tokens as the network's inputs, a batch of one."""
        return {"input_ids": self.torch.from_numpy(tokens)[None]}

    def layers(self, scheme, inputs):
        """Relative squared errors of every layer with the inputs that the unquantized model has.

        Parameters
        ----------
        scheme : Scheme
        inputs : list of dict of str to torch.Tensor
            Of the network, a batch of one each.

        Returns
        -------
        dict of str to dict of str to float
            By layer: "weights", "activations" and "outputs", the sums of squared errors over the
            sums of squares.
        """
        self.select(scheme)
        weights = {name: linear.weight.detach().numpy()
                   for name, linear in self.model.linears.items()}
        totals, last = {name: np.zeros((2, 2)) for name in weights}, (None, None)

        def see(name, x):
            nonlocal last
            # Layers that take the same tensor quantize it once.
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

    def samples(self, inputs, *, rows):
        """Evenly spaced rows of all weights and of all that goes into the linear layers.

        Parameters
        ----------
        inputs : dict of str to torch.Tensor
            Of the network, a batch of one.
        rows : int
            At most so many of each tensor.

        Returns
        -------
        weights, activations : list of (float32 array of shape (rows, K), float32)
            The second is the largest magnitude of the whole tensor.
        """
        def sample(x):
            # The middle of each part: the first token, unlike all others, would count too much.
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


def sample_error(f, samples):
    """Mean over tensors of a format's relative squared error on some of their rows.

    Parameters
    ----------
    f : Format
    samples : list of (float32 array, float32)
        As of `Evaluation.samples`.

    Returns
    -------
    float
    """
    ratios = []
    for rows, largest in samples:
        options = {"tensor_scale": tensor_scale(f, largest)} if f.tensor_scale else {}
        squared, total = squares(f.round_trip(rows, **options), rows)
        ratios.append(squared / total)
    return float(np.mean(ratios))


def squares(values, reference):
    """Sums of squared errors and of squares, in float64."""
    return tuple(float(np.square(a, dtype=np.float64).sum())
                 for a in (np.subtract(values, reference), reference))


def code():
    """Digest of the golden model's code, which decides the figures, but for that which shows them.

    Returns
    -------
    str
    """
    total = hashlib.sha256()
    root = Path(golden.__file__).parent
    for file in sorted([*root.rglob("*.py"), *root.rglob("*.c")]):
        if file.name != "accuracy_report.py":
            total.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes())
    return total.hexdigest()[:16]
