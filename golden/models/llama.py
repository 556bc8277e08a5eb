# SPDX-License-Identifier: BSD-2-Clause
"""A language model of the Llama architecture in NumPy, with a cache of keys and values.

The caller computes the products with weights, and may compute attention. All else is here, in
float32: embedding, norms, rotary positions, attention and the gate of the MLP.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..codec.arrays import Float32Array, IntArray

JOINED = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "o": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
"""Products of a block by name, and the linear layers whose rows they join: all take one input."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of a model.

    Attributes
    ----------
    layers : int
        Blocks.
    width, hidden : int
        Elements of the residual stream, and of the MLP's inner layer.
    heads, kv_heads : int
        Heads of queries, and of keys and values.
    head : int
        Elements of a head.
    vocabulary : int
        Tokens that there are.
    context : int
        Tokens that the model was trained to see.
    theta, epsilon : float
        Base of the rotary positions; what norms add to the mean square.
    """

    layers: int
    width: int
    hidden: int
    heads: int
    kv_heads: int
    head: int
    vocabulary: int
    context: int
    theta: float
    epsilon: float

    def __post_init__(self) -> None:
        for name in ("layers", "width", "hidden", "heads", "kv_heads", "head", "vocabulary",
                     "context"):
            if type(value := getattr(self, name)) is not int or value < 1:
                raise ValueError(f"{name} must be an integer of at least 1, not {value!r}")
        for name in ("theta", "epsilon"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 < value < 1e38:
                raise ValueError(f"{name} must be a number above 0 and below 1e38, not {value!r}")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads must be a multiple of the {self.kv_heads} kv_heads, "
                             f"not {self.heads}")
        if self.head % 2:
            raise ValueError(f"head must be even, not {self.head}")

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Rows and columns of the linear layers of a block, by name."""
        queries, keys = self.heads * self.head, self.kv_heads * self.head
        return {"self_attn.q_proj": (queries, self.width),
                "self_attn.k_proj": (keys, self.width),
                "self_attn.v_proj": (keys, self.width),
                "self_attn.o_proj": (self.width, queries),
                "mlp.gate_proj": (self.hidden, self.width),
                "mlp.up_proj": (self.hidden, self.width),
                "mlp.down_proj": (self.width, self.hidden)}


Linear = Callable[[str, np.ndarray], np.ndarray]
"""Takes a product's name, such as "3.qkv", and inputs (rows, K); returns outputs (rows, N)."""


class Cache:
    """Keys and values of one stream of tokens, as the model computed them.

    Parameters
    ----------
    sizes : Sizes
    dtype : type
        Of what is stored.

    Attributes
    ----------
    length : int
        Tokens that all blocks have seen.
    """

    def __init__(self, sizes: Sizes, dtype: Any = np.float32) -> None:
        self.length = 0
        shape = sizes.layers, sizes.kv_heads, 64, sizes.head
        self._keys, self._values = np.zeros(shape, dtype), np.zeros(shape, dtype)

    def put(self, layer: int, keys: np.ndarray, values: np.ndarray
            ) -> tuple[np.ndarray, np.ndarray]:
        """Stores the new tokens' keys and values of a block; gives those of all tokens.

        Parameters
        ----------
        layer : int
        keys, values : array, shape (tokens, kv_heads, head)

        Returns
        -------
        keys, values : array, shape (kv_heads, tokens, head)
        """
        end = self.length + len(keys)
        if end > self._keys.shape[2]:
            # Twice the room, so that a long stream is copied a few times only.
            self._keys, self._values = (np.concatenate([old, np.zeros_like(old)], axis=2)
                                        for old in (self._keys, self._values))
            return self.put(layer, keys, values)
        self._keys[layer, :, self.length : end] = keys.swapaxes(0, 1)
        self._values[layer, :, self.length : end] = values.swapaxes(0, 1)
        return self._keys[layer, :, :end], self._values[layer, :, :end]


Attend = Callable[[int, np.ndarray, np.ndarray, np.ndarray, Cache], np.ndarray]
"""Takes a block's number, queries, keys and values of new tokens, and the cache; as `attention`."""


class Llama:
    """The model without its linear layers.

    Parameters
    ----------
    sizes : Sizes
    embedding : float array, shape (vocabulary, width)
    norms : sequence of float arrays, shape (width,)
        Weights of the norms: before attention and before the MLP of each block, then the last one.
        Their type is that of all computations.
    """

    def __init__(self, sizes: Sizes, embedding: np.ndarray, norms: Sequence[np.ndarray]) -> None:
        self.sizes = sizes
        self.embedding = embedding
        self.norms = norms

    def cache(self) -> Cache:
        """An empty cache of a stream."""
        return Cache(self.sizes, self.norms[0].dtype)

    def forward(self, streams: Sequence[tuple[IntArray, Cache]], linear: Linear,
                attend: Attend | None = None) -> np.ndarray:
        """Runs the blocks on the next tokens of some streams.

        Products with weights take the rows of all streams together.

        Parameters
        ----------
        streams : sequence of (int array, Cache)
            New tokens of each stream, at least one, and its cache, which grows by them.
        linear : callable
            See `Linear`.
        attend : callable, optional
            See `Attend`. The default is `attention`.

        Returns
        -------
        float array, shape (rows, width)
            Outputs of the last norm: the head's inputs.
        """
        sizes = self.sizes
        ends = np.cumsum([len(tokens) for tokens, _ in streams])
        positions = np.concatenate([cache.length + np.arange(len(tokens))
                                    for tokens, cache in streams])
        turn = rotation(sizes, positions)
        x = self.embedding[np.concatenate([tokens for tokens, _ in streams])]
        x = x.astype(self.norms[0].dtype)
        queries, keys = sizes.heads * sizes.head, sizes.kv_heads * sizes.head
        for layer in range(sizes.layers):
            joined = linear(f"{layer}.qkv", self._norm(x, 2 * layer))
            q, k, v = (part.reshape(len(x), -1, sizes.head)
                       for part in np.split(joined, [queries, queries + keys], axis=1))
            q, k = rotated(q, turn), rotated(k, turn)
            parts = [(attend or attention)(layer, q[rows], k[rows], v[rows], cache)
                     for rows, (_, cache) in zip(_slices(ends.tolist()), streams, strict=True)]
            x = x + linear(f"{layer}.o", np.concatenate(parts))
            joined = linear(f"{layer}.gate_up", self._norm(x, 2 * layer + 1))
            gate, up = np.split(joined, 2, axis=1)
            x = x + linear(f"{layer}.down", silu(gate) * up)
        for tokens, cache in streams:
            cache.length += len(tokens)
        return self._norm(x, 2 * sizes.layers)

    def _norm(self, x, index):
        mean = np.mean(x * x, axis=-1, keepdims=True)
        return x / np.sqrt(mean + x.dtype.type(self.sizes.epsilon)) * self.norms[index]


def _slices(ends: Sequence[int]) -> Iterator[slice]:
    start = 0
    for end in ends:
        yield slice(start, end)
        start = end


def attention(layer: int, q: np.ndarray, k: np.ndarray, v: np.ndarray,
              cache: Cache) -> np.ndarray:
    """Causal attention of new tokens to all tokens of their stream.

    Parameters
    ----------
    layer : int
        Number of the block.
    q : array, shape (tokens, heads, head)
        Queries with rotary positions.
    k, v : array, shape (tokens, kv_heads, head)
        Keys, with rotary positions, and values.
    cache : Cache
        Takes keys and values.

    Returns
    -------
    array, shape (tokens, heads * head)
    """
    keys, values = cache.put(layer, k, v)
    scores = grouped(q, len(keys)) @ keys.swapaxes(1, 2)
    return ungrouped(probabilities(scores, len(q), q.shape[-1]) @ values, len(q))


def grouped(q: np.ndarray, groups: int) -> np.ndarray:
    """Queries by the keys' head that they share: shape (groups, heads / groups * tokens, head)."""
    tokens, _, head = q.shape
    return q.reshape(tokens, groups, -1, head).transpose(1, 2, 0, 3).reshape(groups, -1, head)


def ungrouped(rows: np.ndarray, tokens: int) -> np.ndarray:
    """Rows in the order of `grouped`, by token again: shape (tokens, heads * head)."""
    groups, _, head = rows.shape
    return rows.reshape(groups, -1, tokens, head).transpose(2, 0, 1, 3).reshape(tokens, -1)


def probabilities(scores: np.ndarray, tokens: int, head: int) -> np.ndarray:
    """Softmax of scores, each token seeing itself and those before it.

    Parameters
    ----------
    scores : array, shape (..., heads * tokens, seen)
        Products of queries, in the order of `grouped`, and keys, without a factor.
    tokens : int
        New tokens, the last of those seen.
    head : int
        Elements of a head; scores are divided by its root.

    Returns
    -------
    array of the same shape
    """
    seen = scores.shape[-1]
    hidden = np.arange(seen) > np.arange(seen - tokens, seen)[:, None]
    scores = scores.reshape(*scores.shape[:-2], -1, tokens, seen) * scores.dtype.type(head**-0.5)
    scores = np.where(hidden, scores.dtype.type(-np.inf), scores)
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return shares.reshape(*shares.shape[:-3], -1, seen)


def rotation(sizes: Sizes, positions: IntArray) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines of rotary positions, computed in float64: shape (tokens, 1, head / 2)."""
    angles = positions[:, None] * sizes.theta ** (-np.arange(0, sizes.head, 2) / sizes.head)
    return np.cos(angles)[:, None], np.sin(angles)[:, None]


def rotated(x: np.ndarray, turn: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Turns the two halves of each head by its token's position; shape (tokens, heads, head)."""
    cosine, sine = (part.astype(x.dtype) for part in turn)
    low, high = np.split(x, 2, axis=-1)
    return np.concatenate([low * cosine - high * sine, high * cosine + low * sine], axis=-1)


def silu(x: np.ndarray) -> np.ndarray:
    """The product of each element and its logistic function."""
    with np.errstate(over="ignore"):
        return x / (1 + np.exp(-x))


def loss(logits: Float32Array, targets: IntArray) -> float:
    """Mean negative log-likelihood of tokens, in float64.

    Parameters
    ----------
    logits : float32 array, shape (rows, vocabulary)
    targets : int array, shape (rows,)
        The token that follows each row.

    Returns
    -------
    float
    """
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    found = wide[np.arange(len(targets)), targets] - np.log(np.exp(wide).sum(axis=-1))
    return float(-found.mean())
