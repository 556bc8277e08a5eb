# SPDX-License-Identifier: BSD-2-Clause
"""The matrix products of a model in a phase, on one of several chips."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .models import Gemm, Model

PHASES = "prefill", "decode"

MOST = (1 << 20) - 1
"""Largest size of a command, as its registers hold it."""

QUERIES = 256
"""Rows of queries that attention takes at once in a prefill; keys behind them are left out."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be predicted.

    Attributes
    ----------
    model : Model
    phase : str
        "prefill": all tokens of a prompt at once. "decode": one token per sequence.
    seq : int
        Tokens of a prompt; in decoding, tokens in the KV cache.
    batch : int
        Sequences.
    attention : bool
        Whether the products of attention run on the arrays too, with a cache in the format.
    head : bool
        Whether the head runs, for the last token of each sequence.

    Raises
    ------
    ValueError
        If a size is out of its range.
    """

    model: Model
    phase: str = "prefill"
    seq: int = 2048
    batch: int = 1
    attention: bool = False
    head: bool = False

    def __post_init__(self) -> None:
        if self.phase not in PHASES:
            raise ValueError(f"--phase must be one of {', '.join(PHASES)}, not {self.phase!r}")
        for name in ("seq", "batch"):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= MOST:
                raise ValueError(f"--{name} must be within 1 and {MOST}, not {value!r}")
        if self.rows > MOST:
            raise ValueError(f"--seq times --batch must be at most {MOST} in a prefill, "
                             f"not {self.rows}")

    @property
    def rows(self) -> int:
        """Rows of activations in the linear layers."""
        return self.batch * (self.seq if self.phase == "prefill" else 1)

    def gemms(self, chips: Mapping[str, Any], *, causal: bool = True) -> list[tuple[Gemm, int]]:
        """The products of one chip, and how many blocks have each.

        Queries, keys, values and the MLP's inner layers are divided by their columns, the layers
        behind them by their rows. A key head is copied where there are more chips than key heads.

        Raises
        ------
        ValueError
            If the chips do not divide the model.
        """
        part = self._part(chips["count"])
        found = [(gemm, self.model.layers) for gemm in part.linear(self.rows)]
        if self.attention:
            found += [(gemm, self.model.layers) for gemm in self._attention(part, causal)]
        if self.head:
            columns = -(-self.model.vocabulary // chips["count"])
            found.append((Gemm("head", self.batch, self.model.hidden, columns), 1))
        return found

    def exchanged(self, chips: Mapping[str, Any]) -> int:
        """Elements that a chip sends in all sums over chips, as rings do them."""
        count = chips["count"]
        sums = 2 * self.model.layers * self.rows * self.model.hidden
        return -(-2 * (count - 1) * sums // count)

    def hops(self, chips: Mapping[str, Any]) -> int:
        """Messages that follow each other in all sums over chips."""
        return 2 * self.model.layers * 2 * (chips["count"] - 1)

    def _part(self, count: int) -> Model:
        model = self.model
        for name in ("heads", "ffn"):
            if getattr(model, name) % count:
                raise ValueError(f"chips.count must divide the {getattr(model, name)} {name} of "
                                 f"{model.name}, not {count}")
        if model.kv_heads % count and count % model.kv_heads:
            raise ValueError(f"chips.count must divide the {model.kv_heads} kv_heads of "
                             f"{model.name} or be a multiple of them, not {count}")
        return Model(**{**vars(model), "heads": model.heads // count, "ffn": model.ffn // count,
                        "kv_heads": max(1, model.kv_heads // count)})

    def _attention(self, part: Model, causal: bool) -> list[Gemm]:
        """Products of queries with keys, and of probabilities with values.

        All query heads of a key head are rows of one product. In a causal prefill the keys behind a
        block of queries are left out.
        """
        shared, count = part.heads // part.kv_heads, part.kv_heads * self.batch
        if self.phase == "decode":
            pieces = [(shared, self.seq)]
        else:
            pieces = [(shared * (min(start + QUERIES, self.seq) - start),
                       min(start + QUERIES, self.seq) if causal else self.seq)
                      for start in range(0, self.seq, QUERIES)]
        return [gemm for rows, context in pieces for gemm in (
            Gemm("scores", rows, part.head_dim, context, count, weights=False),
            Gemm("values", rows, context, part.head_dim, count, weights=False))]
