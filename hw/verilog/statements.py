# SPDX-License-Identifier: BSD-2-Clause
"""Statements of a clocked block."""

from .expressions import WIDTH, Chain, Choice, Text, Unary


def assignment(target, value, indent):
    """Lines of a clocked block that give a register a value."""
    pad = " " * indent
    if value.flat == target:
        return []
    if not isinstance(value, Choice) or len(value.cases) == 1 and not _keeps(value, target) and (
            len(value.flat) < WIDTH - indent - len(target) - 8):
        head = f"{pad}{target} <= "
        return [f"{head}{value.layout(len(head), indent + 4)};"]
    lines: list[str] = []
    if state := _state(value):
        lines.append(f"{pad}case ({state})")
        # The netlist has them from the last one on; only one can hold.
        for condition, result in reversed(value.cases):
            lines += _branch(f"{pad}  {condition.parts[1].flat}:", target, result, indent + 2)
        lines += _branch(f"{pad}  default:", target, value.default, indent + 2)
        return [*lines, f"{pad}endcase"]
    (first, result), *others = value.cases
    if result.flat == target:
        rest = Choice(tuple(others), value.default) if others else value.default
        head = f"{pad}if ("
        unless = Unary("~", first)
        return [f"{head}{unless.layout(len(head), indent + 4)}) begin",
                *assignment(target, rest, indent + 2), f"{pad}end"]
    for condition, result in value.cases:
        head = f"{pad}if (" if not lines else f"{pad}end else if ("
        lines.append(f"{head}{condition.layout(len(head), indent + 4)}) begin")
        lines += assignment(target, result, indent + 2)
    if rest := assignment(target, value.default, indent + 2):
        lines += [f"{pad}end else begin", *rest]
    return [*lines, f"{pad}end"]


def _branch(head, target, value, indent):
    """Lines of a branch of a case statement."""
    lines = assignment(target, value, indent + 2)
    if not lines:
        return [f"{head} begin end"]
    if len(lines) == 1 and len(head) + len(lines[0].strip()) + 1 <= WIDTH:
        return [f"{head} {lines[0].strip()}"]
    return [f"{head} begin", *lines, f"{' ' * indent}end"]


def _keeps(value, target):
    """Whether a register keeps its value in one of the cases."""
    return any(result.flat == target for result in (
        value.default, *(result for _, result in value.cases)))


def _state(value):
    """The signal whose value decides between several cases, if one does.

    Each case has another value, so that their order means nothing.
    """
    names = {condition.parts[0].flat if isinstance(condition, Chain)
             and condition.operator == "==" and isinstance(condition.parts[1], Text) else None
             for condition, _ in value.cases}
    if len(value.cases) == 1 or len(names) > 1 or None in names:
        return None
    values = {condition.parts[1].flat for condition, _ in value.cases}
    return names.pop() if len(values) == len(value.cases) else None
