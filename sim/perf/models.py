# SPDX-License-Identifier: BSD-2-Clause
"""Language models as lists of matrix products."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from .settings import Choice, Number, Ranges, checked, packaged, read

PAPER = "llama2-7b", "opt-6.7b", "falcon-7b", "llama3-8b", "mistral-7b", "llama3-70b"
"""The six models of the paper's Fig. 13, in the order of the authors' log."""

_SWITCH = Choice((True, False))

RANGES: Ranges = {
    "layers": Number(1, 1000, whole=True),
    "hidden": Number(1, (1 << 20) - 1, whole=True),
    "ffn": Number(1, (1 << 20) - 1, whole=True),
    "heads": Number(1, 4096, whole=True),
    "kv_heads": Number(1, 4096, whole=True),
    "head_dim": Number(1, 4096, whole=True),
    "vocabulary": Number(1, (1 << 20) - 1, whole=True),
    "gated": _SWITCH, "tied": _SWITCH, "fused": _SWITCH,
}
"""Fields of a model in a TOML file; all but the last three must be there."""


@dataclass(frozen=True)
class Gemm:
    """Equal products of ``m`` x ``k`` activations with ``n`` x ``k`` weights.

    Attributes
    ----------
    name : str
        Of the layer, such as "q", "down" or "scores".
    m, k, n : int
        Sizes, at least 1.
    count : int
        How many such products there are.
    weights : bool
        Whether the ``n`` x ``k`` operand is weights; else it is a part of the KV cache.
    """

    name: str
    m: int
    k: int
    n: int
    count: int = 1
    weights: bool = True

    @property
    def macs(self) -> int:
        """Multiplications of all of them."""
        return self.m * self.k * self.n * self.count

    def halves(self) -> "Gemm":
        """The same at 8 bits, as `sim.perf.machine.Machine.wide` takes it."""
        return replace(self, k=2 * self.k)


@dataclass(frozen=True, kw_only=True)
class Model:
    """Dimensions of a decoder-only transformer.

    Attributes
    ----------
    name : str
    layers, hidden, ffn : int
        Blocks, width between them, and width inside their MLP.
    heads, kv_heads, head_dim : int
        Query heads, key and value heads, and the width of each.
    vocabulary : int
    gated : bool
        Whether the MLP has a gate.
    tied : bool
        Whether the head is the embedding.
    fused : bool
        Whether query, key and value are one matrix.

    Raises
    ------
    ValueError
        If a field is out of its range, or ``heads`` is no multiple of ``kv_heads``.
    """

    name: str
    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    gated: bool = True
    tied: bool = False
    fused: bool = False

    def __post_init__(self) -> None:
        checked({field: getattr(self, field) for field in RANGES}, RANGES, f"{self.name}.")
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.name}.heads must be a multiple of the {self.kv_heads} "
                             f"kv_heads, not {self.heads}")

    def linear(self, m: int) -> list[Gemm]:
        """The linear layers of one block, for ``m`` rows of activations."""
        query, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        inputs = [("qkv", query + 2 * keys)] if self.fused else [
            ("q", query), ("k", keys), ("v", keys)]
        inner = ["gate", "up"] if self.gated else ["up"]
        return [*(Gemm(name, m, self.hidden, n) for name, n in inputs),
                Gemm("o", m, query, self.hidden),
                *(Gemm(name, m, self.hidden, self.ffn) for name in inner),
                Gemm("down", m, self.ffn, self.hidden)]

    @property
    def macs_per_token(self) -> int:
        """Multiplications of one token in the linear layers of one block."""
        return sum(gemm.macs for gemm in self.linear(1))

    @property
    def weights(self) -> int:
        """Weights of all linear layers, with the head."""
        return self.layers * self.macs_per_token + self.hidden * self.vocabulary

    @property
    def cached(self) -> int:
        """Elements that a token adds to the KV cache, in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim


def packaged_models() -> dict[str, Model]:
    """The models that this package knows, by name."""
    return {name: Model(name=name, **fields) for name, fields in packaged("models").items()}


def find_models(names: Sequence[str]) -> list[Model]:
    """Models by their names, or from TOML files that have one table per model.

    Parameters
    ----------
    names : sequence of str
        A name that ends in ``.toml`` is a file.

    Raises
    ------
    ValueError
        If there is no such model, or a file is not as it should be.
    """
    known, found = packaged_models(), []
    for name in names:
        if name.endswith(".toml"):
            found += _from_file(Path(name))
        elif name in known:
            found.append(known[name])
        else:
            raise ValueError(f"--model must be FILE.toml or one of {', '.join(known)}, "
                             f"not {name!r}")
    return found


def _from_file(path: Path) -> list[Model]:
    tables: dict[str, Any] = read(path, "--model")
    if not tables:
        raise ValueError(f"--model must be a file with a table for each model, not {path}")
    needed = [field.name for field in fields(Model) if field.name in RANGES][:7]
    models = []
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise ValueError(f"{name} must be a table with the fields of a model, not {table!r}")
        checked(table, RANGES, f"{name}.")
        if missing := [field for field in needed if field not in table]:
            raise ValueError(f"{name}.{missing[0]} must be given in {path}")
        models.append(Model(name=name, **table))
    return models
