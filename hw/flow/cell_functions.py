# SPDX-License-Identifier: BSD-2-Clause
"""Boolean functions as Liberty files write them, evaluated on arrays."""

import operator
import re
from collections.abc import Callable, Sequence
from functools import reduce
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
    tree = _tree(text)
    return frozenset(_pins(tree)), _evaluator(tree)


def plain(text: str) -> str:
    """Writes a function with the operators that every reader knows: ``! & | ^`` and parentheses.

    Parameters
    ----------
    text : str
        As in `function`.

    Returns
    -------
    str
    """
    return _written(_tree(text))


def exclusive(conditions: Sequence[str]) -> list[tuple[str, tuple[int, ...]]]:
    """Turns conditions into conditions that exclude each other.

    Parameters
    ----------
    conditions : list of str
        Functions, as in `function`, which may overlap or stand twice.

    Returns
    -------
    list of (str, tuple of int)
        A condition and the numbers of the given ones that hold with it: the given ones themselves
        if no two of them can hold at once, else one for each set of them that can.
    """
    trees = [*map(_tree, conditions)]
    pins = sorted(set().union(*map(_pins, trees)))
    mask = (1 << (1 << len(pins))) - 1
    values = {name: sum(1 << n for n in range(1 << len(pins)) if n >> i & 1)
              for i, name in enumerate(pins)} | {"0": 0, "1": mask}
    # Bit n of a word says whether a condition holds in assignment n of the pins.
    words = [_evaluator(tree)(values) & mask for tree in trees]
    if sum(word.bit_count() for word in words) == reduce(operator.or_, words, 0).bit_count():
        return [(text, (i,)) for i, text in enumerate(conditions)]
    together = {tuple(i for i, word in enumerate(words) if word >> n & 1)
                for n in range(1 << len(pins))} - {()}
    return [("&".join(f"{'' if i in chosen else '!'}({text})"
                      for i, text in enumerate(conditions)), chosen)
            for chosen in sorted(together)]


def sense(text: str, pin: str) -> str:
    """How a function follows one of its pins, in the words of Liberty's ``timing_sense``.

    Parameters
    ----------
    text : str
        As in `function`.
    pin : str

    Returns
    -------
    str
        ``"positive_unate"`` if the result never falls when the pin rises, ``"negative_unate"``
        if it never rises, else ``"non_unate"``; that also if the pin is not in the function.
    """
    pins, evaluate = function(text)
    if pin not in pins:
        return "non_unate"
    # Bit n of a word is the value in assignment n of the other pins.
    others = sorted(pins - {pin})
    mask = (1 << (1 << len(others))) - 1
    values = {name: sum(1 << n for n in range(1 << len(others)) if n >> i & 1)
              for i, name in enumerate(others)}
    low, high = (evaluate(values | {"0": 0, "1": mask, pin: mask * level}) & mask
                 for level in (0, 1))
    if not low & ~high:
        return "positive_unate"
    return "non_unate" if high & ~low else "negative_unate"


# A tree is the name of a pin or a constant, ("!", tree), or (operator, trees).
_OPERATORS: dict[str, Callable] = {"|": operator.or_, "&": operator.and_, "^": operator.xor}


def _tree(text):
    parser = _Parser(re.findall(r"[A-Za-z_][\w\[\]]*|[^\s\"]", text))
    tree = parser.disjunction()
    if parser.tokens:
        raise ValueError(f"{text!r} is not a Boolean function")
    return tree


def _pins(tree):
    if isinstance(tree, str):
        return {tree} - {"0", "1"}
    if tree[0] == "!":
        return _pins(tree[1])
    return set().union(*map(_pins, tree[1]))


def _evaluator(tree):
    if isinstance(tree, str):
        return lambda values: values[tree]
    if tree[0] == "!":
        inner = _evaluator(tree[1])
        return lambda values: ~inner(values)
    operate, inner = _OPERATORS[tree[0]], [*map(_evaluator, tree[1])]
    return lambda values: reduce(operate, (term(values) for term in inner))


def _written(tree, outermost=True):
    if isinstance(tree, str):
        return tree
    if tree[0] == "!":
        return f"!{_written(tree[1], False)}"
    joined = f" {tree[0]} ".join(_written(term, False) for term in tree[1])
    return joined if outermost else f"({joined})"


class _Parser:
    """Recursive descent; each method parses one level of precedence."""

    def __init__(self, tokens):
        self.tokens = tokens[::-1]
        self.depth = 0

    def next(self):
        return self.tokens[-1] if self.tokens else ""

    def disjunction(self):
        terms = [self.conjunction()]
        while self.next() in ("|", "+") and self.tokens:
            self.tokens.pop()
            terms.append(self.conjunction())
        return _joined("|", terms)

    def conjunction(self):
        terms = [self.difference()]
        # Two operands side by side are an AND.
        while self.next() not in ("", "|", "+", ")"):
            if self.next() in "&*":
                self.tokens.pop()
            terms.append(self.difference())
        return _joined("&", terms)

    def difference(self):
        terms = [self.operand()]
        while self.next() == "^":
            self.tokens.pop()
            terms.append(self.operand())
        return _joined("^", terms)

    def operand(self):
        inverted = False
        while self.next() == "!":
            self.tokens.pop()
            inverted = not inverted
        token = self.tokens.pop() if self.tokens else "its end"
        if token == "(":
            self.depth += 1
            if self.depth > _DEEPEST:
                raise ValueError(f"A Boolean function must have at most {_DEEPEST} parentheses "
                                 "within each other")
            found = self.disjunction()
            self.depth -= 1
            if self.next() != ")":
                raise ValueError("A Boolean function lacks a )")
            self.tokens.pop()
        elif token in ("0", "1") or re.match(r"[A-Za-z_]", token) and token != "its end":
            found = token
        else:
            raise ValueError(f"A Boolean function has {token} where an operand must be")
        while self.next() == "'":
            self.tokens.pop()
            inverted = not inverted
        if not inverted:
            return found
        return found[1] if found[0] == "!" else ("!", found)


# A level takes some frames of Python's stack, here and where functions are evaluated.
_DEEPEST = 50


def _joined(sign, terms):
    return terms[0] if len(terms) == 1 else (sign, terms)
