# SPDX-License-Identifier: BSD-2-Clause
"""Writes YAML that every reader of YAML 1.1 and 1.2 understands alike."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

# What needs no quotes: no reader takes such a word for something else than text.
_PLAIN = re.compile(r"[A-Za-z_./][\w./-]*(, [A-Za-z_][\w]*|, \d+)*")
_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "y", "n", ".inf", ".nan"}


def dumped(value: Mapping[Any, Any] | Sequence[Any], comment: str = "") -> str:
    """A document.

    Parameters
    ----------
    value : mapping or sequence
        Of texts, numbers, true and false, mappings and sequences. Sequences of simple values are
        written in one line.
    comment : str
        Lines in front of it, each behind a ``#``.
    """
    lines = [f"# {line}".rstrip() for line in comment.splitlines()]
    return "\n".join([*lines, *_block(value), ""])


def _block(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [line for name, of in value.items() for line in _entry(f"{_scalar(name)}:", of)]
    lines = []
    for of in value:
        first, *rest = _block(of) if _nested(of) else [_inline(of)]
        lines += [f"- {first}", *(f"  {line}" for line in rest)]
    return lines


def _entry(start: str, value: Any) -> list[str]:
    if not _nested(value):
        return [f"{start} {_inline(value)}"]
    return [start, *(f"  {line}" for line in _block(value))]


def _nested(value: Any) -> bool:
    """Whether a value takes lines of its own."""
    if isinstance(value, Mapping):
        return bool(value)
    return isinstance(value, list | tuple) and any(
        isinstance(of, Mapping | list | tuple) or isinstance(of, str) and ", " in of
        for of in value)


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_scalar(of) for of in value)}]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        text = f"{value:.12g}"
        # A number without a point before its exponent is text in YAML 1.1.
        return re.sub(r"^(-?\d+)(e|$)", r"\1.0\2", text)
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return json.dumps(value)
