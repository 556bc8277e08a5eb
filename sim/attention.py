# SPDX-License-Identifier: BSD-2-Clause
"""Attention whose two products run on an accelerator, with keys and values in planes.

Keys and values are the weights of the products. Groups of keys lie along a head's elements, so
each token's keys are encoded once, when they come. Groups of values lie along the tokens, as their
product sums over the tokens: a group of 32 or 64 tokens is encoded for good when it is full. Until
then its values are kept as they are, and `TAILS` says what becomes of them.
"""

from dataclasses import replace
from weakref import WeakKeyDictionary

import numpy as np

from golden import Quantized, quantize_weights
from golden.models.llama import Cache, Sizes, grouped, probabilities, ungrouped
from golden.units.sg_engine import sg_engine

from .driver import Driver, Layer

TAILS = ("again", "host")
"""What becomes of the values of a group that is not full: it is filled up with zeros and encoded
again for each pass; or the host multiplies it in float32 and adds the product."""


def encoded(x: np.ndarray, encoding: str) -> Quantized:
    """Keys or values as weights, as engines on chip encode them.

    Parameters
    ----------
    x : float32 array, shape (rows, K)
    encoding : str
        That of the machine's weights. Sg-EM is what `sg_engine` gives; the others are exact.

    Returns
    -------
    Quantized
    """
    if encoding == "sg-em":
        return replace(sg_engine(x, encoding="sg-em"), kind="weight")
    return quantize_weights(x, encoding=encoding)


class Planes:
    """Rows of weights that grow, by whole groups along K or by rows.

    Parameters
    ----------
    axis : int
        0 if rows are added, 1 if groups are.
    """

    def __init__(self, axis: int) -> None:
        self._axis = axis
        self._whole: Quantized | None = None

    def add(self, more: Quantized) -> None:
        """Adds rows or groups."""
        self._whole = self.with_more(more)

    def with_more(self, more: Quantized | None) -> Quantized:
        """All that was added, and some more that is not kept."""
        parts = [part for part in (self._whole, more) if part is not None]
        elements, metadata, scales = (
            np.concatenate([getattr(part, name) for part in parts], axis=self._axis)
            for name in ("elements", "metadata", "scales"))
        return replace(parts[0], elements=elements, metadata=metadata, scales=scales,
                       shape=(len(scales), sum(part.shape[1] for part in parts)
                              if self._axis else parts[0].shape[1]))


class _Head:
    """Keys and values of a head of one stream in one block."""

    def __init__(self) -> None:
        self.keys = Planes(0)
        self.values = Planes(1)
        self.full = 0
        self.tail: np.ndarray | None = None


class ChipAttention:
    """Attention on an accelerator; an instance is an `golden.models.llama.Attend`.

    Queries and probabilities are activations, which the machine quantizes on the way in. Softmax is
    the host's.

    Parameters
    ----------
    driver : Driver
    tail : str
        One of `TAILS`.

    Raises
    ------
    ValueError
        If there is no such tail.
    """

    def __init__(self, driver: Driver, tail: str = "again") -> None:
        if tail not in TAILS:
            raise ValueError(f"tail must be one of {', '.join(TAILS)}, not {tail!r}")
        self._driver = driver
        self._tail = tail
        self._heads: WeakKeyDictionary[Cache, dict[tuple[int, int], _Head]] = WeakKeyDictionary()

    def __call__(self, layer: int, q: np.ndarray, k: np.ndarray, v: np.ndarray,
                 cache: Cache) -> np.ndarray:
        """Attention of new tokens of a stream; see `golden.models.llama.attention`."""
        heads = self._heads.setdefault(cache, {})
        outputs = [self._head(heads.setdefault((layer, g), _Head()), queries, k[:, g], v[:, g],
                              len(q)) for g, queries in enumerate(grouped(q, k.shape[1]))]
        return ungrouped(np.stack(outputs), len(q))

    def _head(self, head, queries, keys, values, tokens):
        encoding = self._driver.config.weight_encoding
        head.keys.add(encoded(np.ascontiguousarray(keys), encoding))
        self._add_values(head, values, encoding)
        scores = self._driver.product(Layer(head.keys.with_more(None)), queries)
        shares = probabilities(scores, tokens, queries.shape[-1])
        return self._values(head, shares, encoding)

    def _add_values(self, head, values, encoding):
        """Encodes the groups that are full now; the rest is the tail."""
        tail = values if head.tail is None else np.concatenate([head.tail, values])
        group = self._driver.config.group
        full = len(tail) // group * group
        if full:
            head.values.add(encoded(np.ascontiguousarray(tail[:full].T), encoding))
            head.full += full
        head.tail = tail[full:]

    def _values(self, head, shares, encoding):
        """The product of probabilities and values."""
        full = head.full
        if self._tail == "again" or not len(head.tail):
            more = encoded(np.ascontiguousarray(head.tail.T), encoding) if len(head.tail) else None
            return self._driver.product(Layer(head.values.with_more(more)), shares)
        rest = shares[:, full:] @ head.tail
        if not full:
            return rest
        return self._driver.product(Layer(head.values.with_more(None)), shares[:, :full]) + rest


def bytes_per_token(sizes: Sizes, group: int = 32) -> tuple[float, int]:
    """Bytes of a token's keys and values in planes, and in bfloat16, in all blocks.

    Records have 18 bytes for 32 elements, or 36 for 64. Heads are padded to whole groups.
    """
    elements = sizes.layers * sizes.kv_heads * sizes.head
    record = 18 * group // 32
    keys = sizes.layers * sizes.kv_heads * -(-sizes.head // group) * record
    return keys + elements * record / group, 4 * elements
