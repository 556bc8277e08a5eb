# SPDX-License-Identifier: BSD-2-Clause
"""Boolean functions as Liberty files write them, evaluated on arrays."""

import re
from collections.abc import Callable
from typing import Any


def function(text: str) -> tuple[frozenset[str], Callable[[dict[str, Any]], Any]]:
    """Parses a Liberty ``function`` or ``when`` into a function of the pins' values.

    Parameters
    ----------
    text : str
        Pins and the constants ``0`` and ``1``. Operators from the tightest: ``!`` before or ``'``
        behind an operand; ``^``; ``&``, ``*`` or nothing for AND; ``|`` or ``+``.

    Returns
    -------
    pins : frozenset of str
        The pins in the text.
    evaluate : callable
        Takes a mapping of these pins, and of ``"0"`` and ``"1"``, to arrays of bool or of
        integers; returns such an array. Every bit of an integer is a value of its own.

    Raises
    ------
    ValueError
        If the text is not a Boolean function.
    """
    tokens = re.findall(r"[A-Za-z_][\w\[\]]*|[^\s\"]", text)
    parser = _Parser(tokens)
    evaluate = parser.disjunction()
    if parser.tokens:
        raise ValueError(f"{text!r} is not a Boolean function")
    return frozenset(parser.pins), evaluate


class _Parser:
    """Recursive descent; each method parses one level of precedence."""

    def __init__(self, tokens):
        self.tokens = tokens[::-1]
        self.pins = set()

    def next(self):
        return self.tokens[-1] if self.tokens else ""

    def disjunction(self):
        terms = [self.conjunction()]
        while self.next() in ("|", "+") and self.tokens:
            self.tokens.pop()
            terms.append(self.conjunction())
        return _joined(terms, lambda a, b: a | b)

    def conjunction(self):
        terms = [self.difference()]
        # Two operands side by side are an AND.
        while self.next() not in ("", "|", "+", ")"):
            if self.next() in "&*":
                self.tokens.pop()
            terms.append(self.difference())
        return _joined(terms, lambda a, b: a & b)

    def difference(self):
        terms = [self.operand()]
        while self.next() == "^":
            self.tokens.pop()
            terms.append(self.operand())
        return _joined(terms, lambda a, b: a ^ b)

    def operand(self):
        token = self.tokens.pop() if self.tokens else "its end"
        if token == "!":
            inner = self.operand()
            return lambda values: ~inner(values)
        if token == "(":
            found = self.disjunction()
            if self.next() != ")":
                raise ValueError("A Boolean function lacks a )")
            self.tokens.pop()
        elif token in ("0", "1") or re.match(r"[A-Za-z_]", token) and token != "its end":
            if token not in ("0", "1"):
                self.pins.add(token)

            def found(values):
                return values[token]
        else:
            raise ValueError(f"A Boolean function has {token} where an operand must be")
        while self.next() == "'":
            self.tokens.pop()
            found = _negated(found)
        return found


def _negated(inner):
    return lambda values: ~inner(values)


def _joined(terms, operator):
    if len(terms) == 1:
        return terms[0]

    def evaluate(values):
        result = terms[0](values)
        for term in terms[1:]:
            result = operator(result, term(values))
        return result

    return evaluate
