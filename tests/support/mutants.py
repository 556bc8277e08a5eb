# SPDX-License-Identifier: BSD-2-Clause
"""Mutants of a component's source: small faults that its tests must find."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

BINARY = {ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.BitAnd: ("&", "|"), ast.BitOr: ("|", "&"),
          ast.BitXor: ("^", "|"), ast.LShift: ("<<", ">>"), ast.RShift: (">>", "<<")}
COMPARED = {ast.Eq: ("==", "!="), ast.NotEq: ("!=", "=="), ast.Lt: ("<", "<="),
            ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">")}
DOMAINS = ("comb", "sync")
CONDITIONS = ("If", "Elif")

KINDS = {
    "operator": "another operator: + and -, & and |, < and <=, ==, and !=, << and >>; no ~",
    "constant": "an integer one larger or smaller",
    "condition": "the condition of m.If or m.Elif always or never holds",
    "width": "a signal one bit narrower",
    "reset": "a register without its reset",
    "stage": "an assignment at the clock edge becomes combinational",
    "statement": "an assignment is left out",
}


@dataclass(frozen=True)
class Mutant:
    """A source with one fault.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    line : int
        Where the fault is, from 1.
    start, end : int
        Characters of the source that ``text`` replaces.
    before, text : str
    """

    kind: str
    line: int
    start: int
    end: int
    before: str
    text: str

    def applied(self, source: str) -> str:
        """The faulty source."""
        return source[:self.start] + self.text + source[self.end:]

    def __str__(self) -> str:
        def short(text):
            text = " ".join(text.split())
            return text if len(text) <= 60 else f"{text[:57]}..."

        return f"line {self.line}: {self.kind}: {short(self.before)} -> {short(self.text)}"


def mutants(source: str) -> list[Mutant]:
    """All mutants of a source, in its order.

    What Python itself checks stays as it is: docstrings, statements that raise, and conditions of
    which nothing follows but an error.

    Parameters
    ----------
    source : str
        A module of `hw`.
    """
    tree = ast.parse(source)
    place = _Places(source)
    stored = _stored(tree)
    found = []
    for node in _nodes(tree):
        for kind, (start, end), text in _faults(node, place, stored):
            found.append(Mutant(kind, place.line(start), start, end, source[start:end], text))
    return sorted(set(found), key=lambda mutant: (mutant.start, mutant.end, mutant.text))


class _Places:
    """Characters of a source at which its nodes begin and end."""

    def __init__(self, source):
        self.source = source
        self._starts = [0]
        for line in source.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        self._lines = source.splitlines()

    def _at(self, line, column):
        # The columns of `ast` are in bytes.
        text = self._lines[line - 1] if line <= len(self._lines) else ""
        return self._starts[line - 1] + len(text.encode()[:column].decode())

    def span(self, node):
        return (self._at(node.lineno, node.col_offset),
                self._at(node.end_lineno, node.end_col_offset))

    def line(self, start):
        return self.source.count("\n", 0, start) + 1

    def between(self, left, right, token):
        """Where an operator stands between its operands."""
        start, end = self.span(left)[1], self.span(right)[0]
        at = self.source.find(token, start, end)
        return None if at < 0 else (at, at + len(token))


def _nodes(tree) -> Iterator[ast.AST]:
    """Nodes in the bodies of functions that may hold a fault."""
    waiting: list[tuple[ast.AST, bool]] = [(tree, False)]
    while waiting:
        node, inside = waiting.pop()
        if inside:
            yield node
        if isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr | ast.arguments):
            continue
        if isinstance(node, ast.If) and all(isinstance(each, ast.Raise) for each in node.body):
            waiting += [(child, inside) for child in node.orelse]
            continue
        inside = inside or isinstance(node, ast.FunctionDef)
        waiting += [(child, inside) for child in ast.iter_child_nodes(node)
                    if child not in getattr(node, "decorator_list", ())]


def _stored(tree):
    """Names that are assigned at the clock edge, or in a list that a function returns."""
    names = set()
    for node in ast.walk(tree):
        if (isinstance(node, ast.AugAssign) and _domain(node.target) == "sync"
                or isinstance(node, ast.Return) and isinstance(node.value, ast.List)):
            for call in ast.walk(node.value):
                if (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)
                        and call.func.attr == "eq"):
                    names.add(_name(call.func.value))
    return names - {None}


def _domain(target):
    """The domain of ``m.d.comb`` or ``m.d.sync``, or None."""
    if (isinstance(target, ast.Attribute) and isinstance(target.value, ast.Attribute)
            and target.value.attr == "d" and target.attr in DOMAINS):
        return target.attr
    return None


def _name(node):
    return getattr(node, "id", None) or getattr(node, "attr", None)


def _faults(node, place, stored):
    """Kind, span and text of the faults at a node."""
    if isinstance(node, ast.BinOp) and type(node.op) in BINARY:
        before, after = BINARY[type(node.op)]
        if span := place.between(node.left, node.right, before):
            yield "operator", span, after
    elif isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in COMPARED:
        before, after = COMPARED[type(node.ops[0])]
        if span := place.between(node.left, node.comparators[0], before):
            yield "operator", span, after
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Invert):
        start, _ = place.span(node)
        yield "operator", (start, start + 1), ""
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        for value in (node.value + 1, node.value - 1):
            yield "constant", place.span(node), str(value) if value >= 0 else f"({value})"
    elif isinstance(node, ast.With):
        call = node.items[0].context_expr
        if isinstance(call, ast.Call) and _name(call.func) in CONDITIONS and call.args:
            for value in "1", "0":
                yield "condition", place.span(call.args[0]), value
    elif isinstance(node, ast.AugAssign) and _domain(node.target):
        yield from _of_assignment(node, place)
    elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and (
            _name(node.value.func) == "Signal"):
        yield from _of_signal(node, place, stored)


def _of_assignment(node, place):
    start, end = place.span(node)
    if _domain(node.target) == "sync":
        at = place.span(node.target)[1]
        yield "stage", (at - len("sync"), at), "comb"
    if isinstance(node.value, ast.List) and len(node.value.elts) > 1:
        for element in node.value.elts:
            first, last = place.span(element)
            yield "statement", (first, last), "*()"
    elif "\n" not in place.source[start:end] or isinstance(node.value, ast.Call):
        yield "statement", (start, end), "pass"


def _of_signal(node, place, stored):
    call = node.value
    words = {keyword.arg for keyword in call.keywords}
    start, end = place.span(call)
    if {"reset_less", "init"}.isdisjoint(words) and _name(node.targets[0]) in stored:
        comma = ", " if call.args or call.keywords else ""
        yield "reset", (end - 1, end), f"{comma}reset_less=True)"
    if call.args and _plain(call.args[0]):
        first, last = place.span(call.args[0])
        text = place.source[first:last]
        yield "width", (first, last), f"max(Shape.cast({text}).width - 1, 1)"


def _plain(shape):
    """Whether a shape is a number of bits."""
    if isinstance(shape, ast.Constant):
        return shape.value not in (0, 1)
    if isinstance(shape, ast.Name):
        return shape.id.isupper()
    return isinstance(shape, ast.BinOp) or (
        isinstance(shape, ast.Call) and _name(shape.func) in ("range", "len", "bits_for"))
