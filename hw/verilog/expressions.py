# SPDX-License-Identifier: BSD-2-Clause
"""Verilog expressions as trees, and their text on lines of limited length.

Verilog lets the context decide the width and the sign of an operand. No tree here relies on that:
the operands of an operator have the operator's width, those of a comparison have equal widths, and
what is signed says so. A tree therefore means the same wherever it stands.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

WIDTH = 100
"""Longest line of emitted Verilog."""

_TAIL = 3
"""Columns kept free for what closes a line."""


class Expression:
    """A tree. It has its text on one line, and a layout on several.

    Attributes
    ----------
    flat : str
        Text on one line.
    signed : bool
        Whether Verilog takes it as signed.
    atomic : bool
        Whether it needs no parentheses as an operand.
    """

    flat: str
    signed = False
    atomic = True

    def layout(self, column: int, indent: int) -> str:
        """Text that starts at a column, with further lines at an indentation."""
        if column + len(self.flat) + _TAIL <= WIDTH:
            return self.flat
        return self._broken(column, indent)

    def _broken(self, column: int, indent: int) -> str:
        return self.flat

    def operand(self) -> "Expression":
        """The tree as an operand of an operator."""
        return self if self.atomic else Parentheses(self)


@dataclass(frozen=True)
class Text(Expression):
    """A name, a slice of a name, or a number."""

    flat: str
    signed: bool = False


def number(value: int, width: int) -> Text:
    """A literal: decimal where it is small, all ones as a replication, else hexadecimal."""
    if width > 64 and value in (0, (1 << width) - 1):
        return Text(f"{{{width}{{1'b{value & 1}}}}}")
    if width == 1:
        return Text(f"1'b{value}")
    return Text(f"{width}'d{value}" if value < 16 else f"{width}'h{value:x}")


@dataclass(frozen=True)
class Parentheses(Expression):
    """A tree in parentheses."""

    inner: Expression

    @cached_property
    def flat(self):
        """Text on one line."""
        return f"({self.inner.flat})"

    @property
    def signed(self):
        """Whether Verilog takes it as signed."""
        return self.inner.signed

    def _broken(self, column, indent):
        return f"({self.inner.layout(column + 1, indent)})"


@dataclass(frozen=True)
class Unary(Expression):
    """An operator before its operand: bitwise, arithmetic or a reduction."""

    operator: str
    inner: Expression
    atomic = True

    @cached_property
    def flat(self):
        """Text on one line."""
        return self.operator + self._operand.flat

    @cached_property
    def _operand(self):
        # No two operators in a row: "~&x" is another operator than "~" before "&x".
        plain = self.inner.atomic and not isinstance(self.inner, Unary)
        return self.inner if plain else Parentheses(self.inner)

    @property
    def signed(self):
        """Whether Verilog takes it as signed."""
        return self.operator in ("~", "-") and self.inner.signed

    def operand(self):
        """The tree as an operand of an operator."""
        # Behind a binary operator a reduction would look like another operator: "a & &b".
        return self if self.operator in ("~", "~|") else Parentheses(self)

    def _broken(self, column, indent):
        return self.operator + self._operand.layout(column + len(self.operator), indent)


@dataclass(frozen=True)
class Chain(Expression):
    """Operands joined by an operator, which Verilog evaluates from left to right."""

    operator: str
    parts: tuple[Expression, ...]
    atomic = False

    @cached_property
    def flat(self):
        """Text on one line."""
        return f" {self.operator} ".join(part.flat for part in self._operands)

    @cached_property
    def _operands(self):
        return [part.operand() for part in self.parts]

    @property
    def signed(self):
        """Whether Verilog takes it as signed."""
        return self.operator not in COMPARISONS and all(part.signed for part in self.parts)

    def _broken(self, column, indent):
        first, *rest = self._operands
        return _fill([first, *rest], f" {self.operator} ", f"{self.operator} ", column, indent)


COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")


def chain(operator: str, parts: Iterable[Expression]) -> Expression:
    """Joins operands by an associative operator; parts that are such chains become one with it."""
    flat: list[Expression] = []
    for part in parts:
        flat += part.parts if isinstance(part, Chain) and part.operator == operator else [part]
    flat = _joined(operator, flat) if operator in "&|" else flat
    return flat[0] if len(flat) == 1 else Chain(operator, tuple(flat))


def _joined(operator, parts):
    """Parts in which three or more bits of a vector that are side by side are a reduction."""
    places: dict[str, set[int]] = {}
    others: list[Expression | str] = []
    for part in parts:
        reduced = isinstance(part, Unary) and part.operator == operator
        text = part.inner.flat if reduced else part.flat
        found = re.fullmatch(r"(\w+)\[(\d+)(?::(\d+))?\]", text)
        if not found or (found[3] is not None) != reduced:
            others.append(part)
            continue
        name, high, low = found[1], int(found[2]), int(found[3] or found[2])
        if name not in places:
            others.append(name)
        places.setdefault(name, set()).update(range(low, high + 1))
    result: list[Expression] = []
    for part in others:
        if isinstance(part, Expression):
            result.append(part)
            continue
        bits = sorted(places[part], reverse=True)
        while bits:
            count = next((i for i, bit in enumerate(bits) if bit != bits[0] - i), len(bits))
            run, bits = bits[:count], bits[count:]
            if count > 2:
                result.append(Unary(operator, Text(f"{part}[{run[0]}:{run[-1]}]")))
            else:
                result += [Text(f"{part}[{bit}]") for bit in run]
    return result


@dataclass(frozen=True)
class Choice(Expression):
    """The value of the first condition that holds, else the last value."""

    cases: tuple[tuple[Expression, Expression], ...]
    default: Expression
    atomic = False

    @cached_property
    def flat(self):
        """Text on one line."""
        cases = "".join(f"{condition.flat} ? {value.flat} : " for condition, value in self._cases)
        return cases + self._default.flat

    @cached_property
    def _cases(self):
        return [(condition.operand(), value.operand()) for condition, value in self.cases]

    @cached_property
    def _default(self):
        return self.default.operand()

    @property
    def signed(self):
        """Whether Verilog takes it as signed."""
        return all(value.signed for _, value in self.cases) and self.default.signed

    def _broken(self, column, indent):
        pad = " " * indent
        text = ""
        for i, (condition, value) in enumerate(self._cases):
            start, column = ("", column) if i == 0 else (f"\n{pad}: ", indent + 2)
            text += start + condition.layout(column, indent + 2)
            place = column_after(column, text)
            if place + 3 + len(value.flat) + _TAIL <= WIDTH:
                text += f" ? {value.flat}"
            else:
                text += f"\n{pad}  ? {value.layout(indent + 4, indent + 4)}"
        return f"{text}\n{pad}: {self._default.layout(indent + 2, indent + 2)}"


def choice(condition: Expression, value: Expression, default: Expression) -> Choice:
    """A choice between two values; one that stands behind it continues it."""
    if isinstance(default, Choice):
        return Choice(((condition, value), *default.cases), default.default)
    return Choice(((condition, value),), default)


@dataclass(frozen=True)
class Concatenation(Expression):
    """Parts from the most significant one down."""

    parts: tuple[Expression, ...]

    @cached_property
    def flat(self):
        """Text on one line."""
        return "{" + ", ".join(part.flat for part in self.parts) + "}"

    def _broken(self, column, indent):
        if column > indent + 30:
            pad = " " * indent
            return (f"{{\n{pad}{_fill(self.parts, ', ', '', indent, indent)}\n"
                    f"{pad[:-2]}}}")
        return "{" + _fill(self.parts, ", ", "", column + 1, indent) + "}"


@dataclass(frozen=True)
class Replication(Expression):
    """A part that is repeated."""

    count: int
    part: Expression

    @cached_property
    def flat(self):
        """Text on one line."""
        return f"{{{self.count}{{{self.part.flat}}}}}"

    def _broken(self, column, indent):
        head = f"{{{self.count}{{"
        return f"{head}{self.part.layout(column + len(head), indent)}}}}}"


@dataclass(frozen=True)
class Call(Expression):
    """$signed or $unsigned of a tree."""

    function: str
    inner: Expression

    @cached_property
    def flat(self):
        """Text on one line."""
        return f"{self.function}({self.inner.flat})"

    @property
    def signed(self):
        """Whether Verilog takes it as signed."""
        return self.function == "$signed"

    def _broken(self, column, indent):
        return f"{self.function}({self.inner.layout(column + len(self.function) + 1, indent)})"


@dataclass(frozen=True)
class Select(Expression):
    """Bits of a vector from an offset on."""

    name: str
    offset: Expression
    width: int

    @cached_property
    def flat(self):
        """Text on one line."""
        size = "" if self.width == 1 else f" +: {self.width}"
        return f"{self.name}[{self.offset.flat}{size}]"

    def _broken(self, column, indent):
        size = "" if self.width == 1 else f" +: {self.width}"
        return f"{self.name}[{self.offset.layout(column + len(self.name) + 1, indent)}{size}]"


def column_after(column: int, text: str) -> int:
    """Column behind a text that began at a column."""
    *_, last = text.split("\n")
    return len(last) if "\n" in text else column + len(text)


def _fill(parts, joint, start, column, indent):
    """Parts with a joint between them, as many on a line as fit; lines begin with ``start``."""
    text = ""
    for i, part in enumerate(parts):
        place = column_after(column, text)
        if i == 0:
            text += part.layout(place, indent + 2)
        elif place + len(joint) + len(part.flat) + _TAIL <= WIDTH:
            text += joint + part.flat
        else:
            end = joint.rstrip() if not start else ""
            text += f"{end}\n{' ' * indent}{start}"
            text += part.layout(indent + len(start), indent + 2)
    return text
