# SPDX-License-Identifier: BSD-2-Clause
"""Verilog of a netlist, written the way an engineer writes it.

Yosys' own writer gives every operator a wire. Here operators that are used once become parts of
expressions, and signals that the design names stay. A bit of the netlist is known by several names;
`hw.verilog.names` chooses the one that it is declared by. Then `_Writer` goes through the operators
from the outputs to the inputs and decides which ones need a wire, and writes the module.

Widths follow from the netlist alone, see `hw.verilog.expressions`.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .comments import section
from .expressions import (
    Call,
    Chain,
    Choice,
    Concatenation,
    Expression,
    Replication,
    Select,
    Text,
    Unary,
    chain,
    choice,
    number,
)
from .names import Names, Signal
from .operators import (
    ARITHMETIC,
    BITWISE,
    COMPARED,
    REDUCTIONS,
    REGISTERS,
    RESULT_NAMES,
    SHIFTS,
    Bits,
    Operator,
    extended,
    operator_of,
)
from .statements import assignment
from .words import WORDS

_LONGEST = 420
"""Characters up to which an expression becomes a part of another one."""

_SHORT = 49
"""Characters up to which an expression is repeated rather than given a name."""


@dataclass
class Module:
    """What the writer needs to know of a module beside its netlist.

    Attributes
    ----------
    content : dict
        The module in Yosys' JSON, with plain names.
    plain : set of str
        Names of the signals that the design itself has; others are those of fields.
    ports : dict of str to dict
        Ports of all modules in Yosys' JSON, by the module's name.
    order : list of str
        Instances in the order in which the design adds them.
    sources : dict of str to str
        File and line of the Python that made a cell, by the name of the cell.
    states : dict of str to dict of int to str
        Names of the states of a state machine, by the name of its register.
    about : list of str
        Lines of the comment above the module.
    comments : dict of str to list of str
        Lines of the comment above a port.
    """

    content: dict[str, Any]
    plain: set[str]
    ports: dict[str, dict[str, Any]]
    order: list[str]
    sources: dict[str, str] = field(default_factory=dict)
    states: dict[str, dict[int, str]] = field(default_factory=dict)
    about: list[str] = field(default_factory=list)
    comments: dict[str, list[str]] = field(default_factory=dict)


def write_module(name: str, module: Module, made: set[str] | None = None) -> str:
    """Writes a module.

    Parameters
    ----------
    name : str
    module : Module
    made : set of str, optional
        Takes the names that the writer makes up.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If the netlist has anything that cannot be emitted.
    """
    banned: set[str] = set()
    while True:
        writer = _Writer(name, module, banned)
        writer.decide()
        if not (loops := writer.loops()):
            text = writer.text()
            if made is not None:
                made |= writer.made
            return text
        banned |= loops


class _Writer:
    """Writes one module."""

    def __init__(self, name, module, banned):
        self.name = name
        self.module = module
        content = module.content
        self.taken = {*WORDS, "unused", *content["netnames"], *content["cells"],
                      *content.get("memories", {})}
        self.made: set[str] = set()
        self.ops: list[Operator] = []
        self.instances: dict[str, dict[str, Any]] = {}
        self.reads: list[dict[str, Any]] = []
        self.writes: list[dict[str, Any]] = []
        for place, (label, cell) in enumerate(content["cells"].items()):
            if not cell["type"].startswith("$"):
                self.instances[label] = cell
            elif cell["type"] == "$memrd_v2":
                self.reads.append(cell)
            elif cell["type"] == "$memwr_v2":
                self.writes.append(cell)
            else:
                op = operator_of(_number(label, place), cell)
                op.source = module.sources.get(label, "")
                self.ops.append(op)
        places = {label: place for place, label in enumerate(module.order)}
        self.instances = dict(sorted(self.instances.items(), key=lambda item: places[item[0]]))
        self.writes.sort(key=lambda cell: int(cell["parameters"]["PORTID"], 2))
        stored = {bit for op in self.ops if op.kind in REGISTERS for bit in op.out}
        stored |= {bit for cell in self.reads for bit in cell["connections"]["DATA"]}
        self.names = Names(self._signals(), self._drivers(), self._drivers()[len(self.ops):],
                            stored, banned)
        self.of = self.names.of
        for label, cell in self.instances.items():
            for port, bits in cell["connections"].items():
                free = [bit for bit in bits if isinstance(bit, int) and bit not in self.of]
                if cell["port_directions"][port] == "output" and free:
                    name = self.fresh(f"{label}_{port}")
                    self.of.update({bit: (name, i) for i, bit in enumerate(free)})
        self.enums = dict(filter(None, map(_enumeration, content["netnames"].values())))
        for state, labels in module.states.items():
            if state in content["netnames"]:
                bits = tuple(content["netnames"][state]["bits"])
                self.enums[bits] = state.removesuffix("_state"), labels
        self.constants: dict[str, tuple[str, int, int]] = {}
        self.commented: set = set()
        self.read = defaultdict(set)
        self.driver: dict[int, tuple[Operator, int]] = {}
        for op in self.ops:
            self._drives(op)
        self.aliases: dict[str, Signal] = {}
        self.starts = defaultdict(list)
        for signal in self.names.signals.values():
            names = {self.of.get(bit, ("",))[0] for bit in signal.index}
            if signal.rank == "own" and len(signal.bits) > 1 and all(
                    bit in self.of or bit in self.driver for bit in signal.index) and (
                    signal.name not in names or signal.name in self.names.composed):
                self.starts[signal.bits[0]].append(signal)

    # The netlist.

    def _signals(self):
        content, plain = self.module.content, self.module.plain
        ports = content["ports"]
        children = {f"{label}_{port}" for label, cell in self.instances.items()
                    for port in cell["connections"]}
        signals = []
        for name, net in content["netnames"].items():
            if name in ports:
                rank = ports[name]["direction"]
            elif net["hide_name"]:
                continue
            elif name in children:
                rank = "child"
            else:
                rank = "own" if name in plain else "field"
                if rank == "field" and any(name.startswith(f"{child}_") for child in children):
                    rank = "child field"
            signals.append(Signal(name, net["bits"], rank))
        return signals

    def _drivers(self):
        return ([op.out for op in self.ops]
                + [bits for cell in self.instances.values()
                   for port, bits in cell["connections"].items()
                   if cell["port_directions"][port] == "output"]
                + [cell["connections"]["DATA"] for cell in self.reads])

    def _drives(self, op):
        for i, bit in enumerate(op.out):
            if isinstance(bit, int):
                self.driver[bit] = op, i

    # Runs of bits.

    def runs(self, bits: Bits, *, whole=True) -> Iterator[tuple]:
        """Divides bits into what has a name, from the least significant one up.

        The parts are ("constant", value, width), ("name", name, low, high), ("repeated", bit,
        count), ("op", operator, low, high) and, with ``whole``, ("alias", signal).
        """
        start = 0
        while start < len(bits):
            bit = bits[start]
            end = start + 1
            if not isinstance(bit, int):
                while end < len(bits) and not isinstance(bits[end], int):
                    end += 1
                value = sum((b == "1") << i for i, b in enumerate(bits[start:end]))
                yield "constant", value, end - start
            elif whole and (signal := self._alias(bits, start)):
                end = start + len(signal.bits)
                yield "alias", signal
            elif end < len(bits) and bits[end] == bit:
                while end < len(bits) and bits[end] == bit:
                    end += 1
                yield "repeated", bit, end - start
            else:
                kind, owner, low = self._source(bit)
                while end < len(bits) and isinstance(bits[end], int) and self._source(
                        bits[end]) == (kind, owner, low + end - start) and not (
                        end + 1 < len(bits) and bits[end + 1] == bits[end]
                        and len(bits) - end > 2):
                    end += 1
                yield kind, owner, low, low + end - start - 1
            start = end

    def _source(self, bit):
        if bit in self.of:
            return "name", *self.of[bit]
        if bit not in self.driver:
            raise ValueError(f"A bit of {self.name} has no driver")
        return "op", *self.driver[bit]

    def _alias(self, bits, start):
        """The widest signal of the design, of several parts, that begins here."""
        found = [signal for signal in self.starts.get(bits[start], ())
                 if bits[start:start + len(signal.bits)] == signal.bits]
        for signal in sorted(found, key=lambda signal: -len(signal.bits)):
            parts = list(self.runs(signal.bits, whole=False))
            if signal.name in self.names.composed:
                return signal
            if len(parts) > 1 and any(part[0] != "constant" for part in parts[:-1]):
                return signal
        return None

    # Decisions.

    def decide(self):
        """Decides which operators have a wire, from the outputs to the inputs."""
        order = self._ordered()
        self._live(order)
        self.final: list[Operator] = []
        self.noted_aliases: set[str] = set()
        for label, cell in self.instances.items():
            for port, bits in cell["connections"].items():
                if cell["port_directions"][port] == "input":
                    self._note(bits, f"{label}_{port}")
        for cell in (*self.reads, *self.writes):
            memory = self._memory(cell)
            for port in ("ADDR", "EN", "DATA"):
                if port == "DATA" and cell["type"] == "$memrd_v2":
                    continue
                bits = cell["connections"][port]
                if port == "EN":
                    bits = [next(iter(group))[0] for group in _groups(bits)]
                self._note(bits, f"{memory}_{port.lower()}")
        for name, port in self.module.content["ports"].items():
            if port["direction"] == "output":
                foreign = [bit for bit in port["bits"]
                           if self.of.get(bit, ("",))[0] != name]
                self._note(foreign, name)
        self.names.composed = {
            name for name in self.names.composed if any(
                bit in self.live for bit in self.names.signals[name].bits)}
        for name in sorted(self.names.composed):
            self._note_plain([bit for bit in self.names.signals[name].bits
                              if self.of.get(bit, ("",))[0] != name], name)
        conditions = set()
        for op in reversed(order):
            for part in self._parts(op):
                self.final.append(part)
                shared = ("clock", "enable", "disable", "clear", "keep")
                for port, bits in part.operands.items():
                    if port in shared:
                        if (port, *bits) in conditions:
                            continue
                        conditions.add((port, *bits))
                        self._note(bits, f"{part.target}_{port}")
                    elif part.kind == "$pmux" and port == "B":
                        width = len(part.out)
                        for start in range(0, len(bits), width):
                            self._note(bits[start:start + width], part.target)
                    elif port == "S" and part.kind == "$pmux":
                        for bit in bits:
                            self._note([bit], part.target)
                    else:
                        self._note(bits, part.target)
        self.final.sort(key=lambda op: op.place)

    def _ordered(self):
        """All operators, each after those that it reads; registers are read by none."""
        order, state = [], {}
        for root in self.ops:
            stack = [(root, None)]
            while stack:
                op, children = stack.pop()
                if children is None:
                    if op in state:
                        continue
                    state[op] = True
                    children = iter([*dict.fromkeys(
                        self.driver[bit][0] for bits in op.operands.values() for bit in bits
                        if bit in self.driver)])
                    if op.kind in REGISTERS:
                        stack.append((op, children))
                        for child in children:
                            if child.kind not in REGISTERS:
                                stack.append((child, None))
                        continue
                for child in children:
                    if child not in state and child.kind not in REGISTERS:
                        stack += [(op, children), (child, None)]
                        break
                else:
                    order.append(op)
        registers = [op for op in order if op.kind in REGISTERS]
        return [op for op in order if op.kind not in REGISTERS] + registers

    def _live(self, order):
        """Finds the bits that an output or a submodule depends on."""
        self.live: set[int] = set()
        together = defaultdict(list)
        for bit, (name, _) in self.of.items():
            together[name].append(bit)
        for name in self.names.composed:
            together[name] = [bit for bit in self.names.signals[name].bits if isinstance(bit, int)]
        pending = [port["bits"] for port in self.module.content["ports"].values()
                   if port["direction"] == "output"]
        pending += [bits for cell in (*self.instances.values(), *self.reads, *self.writes)
                    for port, bits in cell["connections"].items()
                    if cell["port_directions"][port] == "input"]
        while pending:
            for bit in pending.pop():
                if not isinstance(bit, int) or bit in self.live:
                    continue
                self.live.add(bit)
                # All bits of a declared signal are driven.
                if bit in self.of:
                    pending.append(together[self.of[bit][0]])
                if bit in self.driver:
                    op, i = self.driver[bit]
                    op = op.part(i, i) if op.divisible else op
                    pending += op.operands.values()

    def _note(self, bits, target):
        """Notes that bits are read together on the way to a target."""
        pending = [bits]
        while pending:
            for kind, *rest in self.runs(pending.pop()):
                if kind == "alias":
                    signal, = rest
                    if signal.name not in self.noted_aliases:
                        self.noted_aliases.add(signal.name)
                        self._note_plain(signal.bits, signal.name)
                elif kind == "repeated":
                    pending.append([rest[0]])
                elif kind == "op":
                    op, low, high = rest
                    op.uses.append((low, high))
                    op.target = op.target or target

    def _note_plain(self, bits, target):
        for kind, *rest in self.runs(bits, whole=False):
            if kind == "repeated":
                self._note([rest[0]], target)
            elif kind == "op":
                op, low, high = rest
                op.uses.append((low, high))
                op.target = op.target or target

    def _parts(self, op):
        """Divides an operator into parts with one name each, and drops what nobody reads."""
        width = len(op.out)
        named = [bit in self.of if isinstance(bit, int) else None for bit in op.out]
        target = next((self.of[bit][0] for bit in op.out if bit in self.of), op.target)
        op.target = target
        used = [bit in self.live if named[i] else any(low <= i <= high for low, high in op.uses)
                for i, bit in enumerate(op.out)]
        if not any(used):
            return
        if not op.divisible:
            # The low bits of a sum do not depend on the high ones.
            if op.kind in (*ARITHMETIC, "$neg", "$pos", "$shl", "$sshl"):
                kept = max(i for i in range(width) if used[i]) + 1
                op.out = op.out[:kept]
                for port in op.operands:
                    if port == "A" or op.kind in ARITHMETIC:
                        op.operands[port] = op.operands[port][:kept]
            yield op
            self._drives(op)
            return
        # Borders between names, and of what is read.
        borders = {0, width}
        for i in range(1, width):
            last, this = (self.of.get(bit) for bit in op.out[i - 1:i + 1])
            if (last is None) != (this is None) or used[i] != used[i - 1] or (
                    last and this != (last[0], last[1] + 1)):
                borders.add(i)
        anonymous = [i for i in range(width) if used[i] and not named[i]]
        cuts = {edge for low, high in op.uses for edge in (low, high + 1)}
        cuts = {cut for cut in cuts if 0 < cut < width
                and (cut in anonymous or cut - 1 in anonymous)}
        if len(cuts) <= 8:
            borders |= cuts
        ordered = sorted(borders)
        for low, end in zip(ordered, ordered[1:], strict=False):
            if used[low] and isinstance(op.out[low], int):
                part = op.part(low, end - 1)
                part.target = self.of[op.out[low]][0] if named[low] else op.target
                part.uses = [(max(a, low) - low, min(b, end - 1) - low) for a, b in op.uses
                             if a < end and b >= low]
                self._drives(part)
                yield part

    def loops(self):
        """Vectors of several results in which some bits depend on others without a register."""
        reads = defaultdict(set)
        drivers = defaultdict(int)

        def names(bits):
            found, pending = set(), [bits]
            while pending:
                for kind, *rest in self.runs(pending.pop()):
                    if kind == "name":
                        found.add(rest[0])
                    elif kind == "repeated":
                        pending.append([rest[0]])
                    elif kind == "op":
                        found |= inner(rest[0])
                    elif kind == "alias":
                        found.add(("alias", rest[0].name))
            return found

        known: dict[int, set] = {}

        def inner(op):
            if id(op) not in known:
                known[id(op)] = set()
                known[id(op)] = {name for bits in op.operands.values() for name in names(bits)}
            return known[id(op)]

        for op in self.final:
            targets = {self.of[bit][0] for bit in op.out if bit in self.of}
            for target in targets:
                drivers[target] += 1
                if op.kind not in REGISTERS:
                    reads[target] |= inner(op)
        self.needs, self.gives = {}, {}
        for label, cell in self.instances.items():
            given, taken = set(), set()
            self.needs[label] = {name for port, bits in cell["connections"].items()
                                 if cell["port_directions"][port] == "input"
                                 for name in names(bits)}
            for port, bits in cell["connections"].items():
                if cell["port_directions"][port] == "input":
                    if not self.module.ports[cell["type"]].get("clk") or port not in (
                            "clk", "rst", "rst_n"):
                        taken |= names(bits)
                else:
                    given |= {self.of[bit][0] for bit in bits if bit in self.of}
            self.gives[label] = given
            for name in given:
                drivers[name] += 1
                reads[name] |= taken
        for name in {*self.noted_aliases, *self.names.composed}:
            signal = self.names.signals[name]
            found = set()
            for kind, *rest in self.runs(signal.bits, whole=False):
                if kind == "name":
                    found.add(rest[0])
                elif kind == "repeated":
                    found |= names([rest[0]])
                elif kind == "op":
                    found |= inner(rest[0])
            if name in self.names.composed:
                reads[name] |= found - {name}
                reads["alias", name] |= {name}
                drivers[name] += 1
            else:
                reads["alias", name] |= found
        cyclic = _cyclic(reads)
        return {name for name in cyclic if isinstance(name, str) and drivers[name] > 1
                and name in self.names.signals}

    # Expressions.

    def expression(self, bits: Bits, *, whole=True, values=None) -> Expression:
        """The tree of some bits. A constant has its name in ``values``, if it has one."""
        if values and all(bit in ("0", "1") for bit in bits):
            return self._constant(bits, values)
        parts: list[Expression] = []
        for kind, *rest in self.runs(bits, whole=whole):
            if kind == "constant":
                parts.append(number(*rest))
            elif kind == "name":
                parts.append(self._name(*rest))
            elif kind == "alias":
                parts.append(self._alias_name(rest[0]))
            elif kind == "repeated":
                parts.append(Replication(rest[1], self.expression([rest[0]])))
            else:
                parts.append(self._value(*rest, values if len(bits) == rest[2] + 1 - rest[1]
                                         else None))
        if len(parts) == 1:
            return parts[0]
        return Concatenation(tuple(reversed(parts)))

    def _constant(self, bits, values):
        """A value of an enumeration, by its name if it has one."""
        base, names = values
        value = sum((bit == "1") << i for i, bit in enumerate(bits))
        literal = number(value, len(bits))
        if value not in names:
            return literal
        name = _camel(base) + _camel(names[value])
        constant = base, value, len(bits)
        if self.constants.setdefault(name, constant) != constant or name in self.taken:
            return literal
        return Text(name)

    def root(self, bits: Bits, values=None) -> Expression:
        """The tree of bits that are assigned as a whole: it may be long."""
        (kind, *rest), *others = self.runs(bits)
        if kind == "op" and not others:
            op, low, high = rest
            if not op.name and len(op.uses) == 1 and (low, high) == (0, len(op.out) - 1):
                return self.tree(op, values)
        return self.expression(bits, values=values)

    def _name(self, name, low, high):
        """The name of bits of a declared signal."""
        self.read[name].update(range(low, high + 1))
        first, last = self.range_of(name)
        self._require(name)
        port = self.module.content["ports"].get(name)
        if (low, high) == (first, last):
            return Text(_spelled(name), bool(port and port.get("signed")))
        return Text(_spelled(name) + _place(low, high))

    def _alias_name(self, signal):
        """The name of a signal that consists of several others."""
        if signal.name in self.names.composed:
            return self._name(signal.name, 0, len(signal.bits) - 1)
        if signal.name not in self.aliases:
            self.aliases[signal.name] = signal
            value = self.expression(signal.bits, whole=False)
            self._wire(signal.name, len(signal.bits), value)
        self.read[signal.name].update(range(len(signal.bits)))
        return Text(signal.name)

    def _value(self, op, low, high, values=None):
        """The tree of bits of an operator without a name in the design."""
        full = (low, high) == (0, len(op.out) - 1)
        if not op.name:
            node = self.tree(op, values)
            repeated = len(op.uses) > 1
            if full and len(node.flat) <= (_SHORT if repeated else _LONGEST) and not (
                    repeated and op.kind in ARITHMETIC):
                return node
            op.name = self.fresh(f"{op.target}_{RESULT_NAMES[op.kind]}")
            self._wire(op.name, len(op.out), node)
        self.read[op.name].update(range(low, high + 1))
        return Text(op.name + ("" if full else _place(low, high)))

    def fresh(self, base):
        """A name that nothing else has."""
        base = re.sub(r"_+", "_", base).strip("_") if "__" not in base else base
        name, count = base, 1
        while name in self.taken:
            count += 1
            name = f"{base}_{count}"
        self.taken.add(name)
        self.made.add(name)
        return name

    def tree(self, op: Operator, values=None) -> Expression:
        """The tree of an operator, as wide as its result. ``values`` are names of its results."""
        width, get = len(op.out), op.operands
        values = self.enums.get(tuple(op.out), values)
        kind = op.kind
        if kind == "$pos":
            return self.expression(get["A"])
        if kind == "$not":
            inner = self.expression(get["A"])
            if width == 1 and isinstance(inner, Unary) and inner.operator == "|":
                # "~|" is one operator.
                return Unary("~|", inner.inner)
            return Unary("~", inner)
        if kind == "$xnor":
            return Unary("~", chain("^", map(self.expression, (get["A"], get["B"]))))
        if kind in BITWISE:
            return chain(BITWISE[kind], map(self.expression, (get["A"], get["B"])))
        if kind in ("$add", "$mul"):
            return chain(ARITHMETIC[kind], (_unsigned(self.expression(get[port]))
                                            for port in ("A", "B")))
        if kind == "$sub":
            return Chain("-", tuple(_unsigned(self.expression(get[port]))
                                    for port in ("A", "B")))
        if kind == "$neg":
            return Unary("-", self.expression(get["A"]))
        if kind == "$mux":
            return choice(self.expression(get["S"]), self.expression(get["B"], values=values),
                          self.expression(get["A"], values=values))
        if kind == "$pmux":
            value = self.expression(get["A"], values=values)
            cases = [(self.expression([bit]), self.expression(
                get["B"][i * width:(i + 1) * width], values=values))
                for i, bit in enumerate(get["S"])]
            for condition, case in reversed(cases):
                value = choice(condition, case, value)
            return value
        if kind in SHIFTS:
            return self._shift(op)
        if kind in ("$shift", "$shiftx"):
            return self._slice(op)
        # All others have one bit.
        if kind == "$logic_not":
            one = self.expression(get["A"])
            one = Unary("~", one) if len(get["A"]) == 1 else Chain("==", (one, self.expression(
                ["0"] * len(get["A"]), values=self.enums.get(tuple(get["A"])))))
        elif kind in REDUCTIONS:
            one = self._reduction(REDUCTIONS[kind], get["A"])
        elif kind in ("$logic_and", "$logic_or"):
            sides = [self._reduction("|", get[port]) for port in ("A", "B")]
            one = chain("&" if kind == "$logic_and" else "|", sides)
        elif kind in COMPARED:
            one = self._comparison(op)
        else:
            raise ValueError(f"A {kind} of {self.name} cannot be emitted")
        return one if width == 1 else Concatenation((number(0, width - 1), one))

    def _reduction(self, operator, bits):
        if len(bits) == 1:
            inner = self.expression(bits)
            return Unary("~", inner) if operator.startswith("~") else inner
        if operator in "&|^" and len(bits) <= 16:
            parts = list(self.runs(bits))
            if len(parts) == len(bits) and all(part[0] in ("name", "op") for part in parts):
                return chain(operator, [self.expression([bit]) for bit in bits])
        return Unary(operator, self.expression(bits))

    def _comparison(self, op):
        sides = [op.operands[port] for port in ("A", "B")]
        values = self.enums.get(tuple(sides[0])) or self.enums.get(tuple(sides[1]))
        left, right = (self.expression(bits, values=values) for bits in sides)
        if op.signed:
            left, right = (side if side.signed else Call("$signed", side)
                           for side in (left, right))
        else:
            left, right = _unsigned(left), _unsigned(right)
        return Chain(COMPARED[op.kind], (left, right))

    def _shift(self, op):
        width, bits = len(op.out), op.operands["A"]
        if len(bits) > width:
            # The result is a slice of the shifted operand, so that one needs a name.
            name = self.fresh(f"{op.target}_shifted")
            self._wire(name, len(bits), self._shifted(op))
            self.read[name].update(range(width))
            return Text(name + _place(0, width - 1))
        return self._shifted(op)

    def _shifted(self, op):
        value, amount = self.expression(op.operands["A"]), self.expression(op.operands["B"])
        if op.kind != "$sshr":
            return Chain(SHIFTS[op.kind], (value, amount))
        # Within an unsigned expression even >>> would fill in zeros.
        return Call("$unsigned", Chain(SHIFTS[op.kind], (
            value if value.signed else Call("$signed", value), amount)))

    def _slice(self, op):
        """Bits from a variable offset on. Beyond the operand they are zeros."""
        width, offset = len(op.out), op.operands["B"]
        reach = (1 << len(offset)) - 1 + width
        bits = extended(op.operands["A"], reach, False)
        used = self._reachable(offset, width, bits)
        value = self.expression(bits[:used])
        if not isinstance(value, Text) or not re.fullmatch(r"\w+", value.flat):
            name = self.fresh(f"{op.target}_operand")
            self._wire(name, used, value)
            self.read[name].update(range(used))
            value = Text(name)
        # As many bits as a place in the operand has.
        offset = extended(offset, max((used - 1).bit_length(), 1), False)
        return Select(value.flat, self.expression(offset), width)

    @staticmethod
    def _reachable(offset, width, bits):
        """Bits of an operand up to the last one that an offset reaches."""
        highest = sum((bit != "0") << i for i, bit in enumerate(offset))
        return min(highest + width, len(bits))

    # Statements.

    def range_of(self, name):
        """Lowest and highest declared bit of a signal."""
        return self.ranges[name]

    def _wire(self, name, width, value):
        """Declares a wire with its value."""
        self.ranges[name] = 0, width - 1
        head = f"wire {_range(width - 1, 0)}{name} = "
        self.statements.append(head + value.layout(2 + len(head), 6) + ";")

    def _require(self, name):
        """Writes what drives a signal, before a statement that reads it."""
        for item in self.by_name.pop(name, ()):
            self._write(item)

    def text(self) -> str:
        """Text of the module."""
        self._declare()
        self.statements: list[str] = []
        self.by_name = defaultdict(list)
        for op in self.final:
            for bit in op.out:
                if bit in self.of and op.kind not in REGISTERS:
                    self.by_name[self.of[bit][0]].append(op)
        for name in self.by_name:
            self.by_name[name] = [*dict.fromkeys(self.by_name[name])]
        self.done: set = set()
        named = [op for op in self.final if op.kind not in REGISTERS
                 and any(bit in self.of for bit in op.out)]
        self.waiting = [*self.instances]
        self._instances()
        for op in named:
            self._write(op)
            self._instances()
        for name in sorted(self.names.composed):
            self._require(name)
        while self.waiting:
            # These wait for each other, as handshakes do.
            self._instance(self.waiting.pop(0))
            self._instances()
        self._memories()
        self._registers()
        for name in sorted(self.names.composed):
            self._compose(name, self.names.signals[name].bits)
        self._outputs()
        return self._assemble()

    def _declare(self):
        """Finds the ranges of all signals, and which ones are declared before the statements."""
        content = self.module.content
        self.ranges = {name: (0, len(port["bits"]) - 1) for name, port in content["ports"].items()}
        self.kinds: dict[str, str] = {}
        places = defaultdict(set)
        for op in self.final:
            for bit in op.out:
                if bit in self.of:
                    places[self.of[bit][0]].add(self.of[bit][1])
        single = defaultdict(int)
        for op in self.final:
            found = dict.fromkeys(self.of.get(bit, ("",))[0] for bit in op.out)
            for name in found:
                # A result of several names is assigned to a concatenation.
                single[name] += len(found)
                if op.kind in REGISTERS:
                    self.kinds[name] = "reg"
        for op in self.final:
            if op.kind in REGISTERS and not any(bit in self.of for bit in op.out):
                # A register always has a name of its own.
                name = self.fresh(f"{op.target or self.name}_register")
                for i, bit in enumerate(op.out):
                    self.of[bit] = name, i
                    places[name].add(i)
                self.kinds[name] = "reg"
        for cell in self.instances.values():
            for port, bits in cell["connections"].items():
                if cell["port_directions"][port] != "output":
                    continue
                for bit in bits:
                    self.kinds.setdefault(self.of[bit][0], "wire")
                    places[self.of[bit][0]].add(self.of[bit][1])
        for cell in self.reads:
            for i, bit in enumerate(cell["connections"]["DATA"]):
                if bit not in self.of:
                    self.of[bit] = f"{self._memory(cell)}_read", i
                    self.taken.add(f"{self._memory(cell)}_read")
                places[self.of[bit][0]].add(self.of[bit][1])
                self.kinds[self.of[bit][0]] = "reg"
        for name in sorted(self.names.composed):
            self.ranges[name] = 0, len(self.names.signals[name].bits) - 1
            self.kinds[name] = "wire"
        for name, found in places.items():
            if name not in self.ranges:
                self.ranges[name] = min(found), max(found)
            self.kinds.setdefault(name, "wire" if single[name] > 1 else "single")

    def _target(self, bits):
        """Bits as the left side of an assignment."""
        parts = []
        for kind, name, low, high in self.runs(bits, whole=False):
            if kind != "name":
                raise ValueError(f"A result of {self.name} has no name")
            whole = (low, high) == self.ranges[name]
            parts.append(Text(_spelled(name) + ("" if whole else _place(low, high))))
        return parts[0] if len(parts) == 1 else Concatenation(tuple(reversed(parts)))

    def _write(self, item):
        """Writes an operator or an instance."""
        if item in self.done:
            return
        self.done.add(item)
        # Bits without a name beside bits with one.
        for bit in item.out:
            if isinstance(bit, int) and bit not in self.of:
                rest = [b for b in item.out if b not in self.of]
                name = self.fresh(f"{item.target}_{RESULT_NAMES[item.kind]}")
                self.kinds[name] = "wire"
                self.ranges[name] = 0, len(rest) - 1
                for i, other in enumerate(rest):
                    self.of[other] = name, i
        value = self.tree(item)
        self._section(item)
        target = self._target(item.out)
        name = self.of[item.out[0]][0]
        if (isinstance(target, Text) and target.flat == name and self.kinds[name] == "single"
                and name not in self.module.content["ports"]):
            low, high = self.ranges[name]
            head = f"wire {_range(high, low)}{name} = "
        else:
            head = f"assign {target.flat} = "
            if len(head) > 60:
                head = f"assign {target.layout(9, 6)} =\n      "
                self.statements.append(head + value.layout(6, 6) + ";")
                return
        self.statements.append(head + value.layout(2 + len(head), 6) + ";")

    def _section(self, op):
        """Writes the comment that the Python has above what made an operator, once."""
        if op.source:
            key, lines = section(op.source)
            if key and key not in self.commented:
                self.commented.add(key)
                self.statements.append("\n  ".join(f"// {line}".rstrip() for line in lines))

    def _instances(self):
        """Writes the instances whose inputs are all written."""
        while True:
            missing = {name for label in self.waiting for name in self.gives[label]}
            ready = next((label for label in self.waiting if not any(
                name in self.by_name or name in missing for name in self.needs[label])), None)
            if ready is None:
                return
            self.waiting.remove(ready)
            self._instance(ready)

    def _instance(self, label):
        """Writes an instance, with its connections in the order of the module's ports."""
        cell = self.instances[label]
        ports = self.module.ports[cell["type"]]
        lines = []
        for port in ports:
            if port not in cell["connections"]:
                raise ValueError(f"Port {port} of {label} is not connected")
            bits = cell["connections"][port]
            head = f"    .{_spelled(port)}("
            side = (self._target(bits) if cell["port_directions"][port] == "output"
                    else self.expression(bits))
            lines.append(head + side.layout(len(head), 6) + ")")
        head = f"{cell['type']} {_spelled(label)} (\n"
        self.statements.append(head + ",\n".join(lines) + "\n  );")

    @staticmethod
    def _memory(cell):
        return _identifier(cell["parameters"]["MEMID"])

    def _memories(self):
        """Writes the clocked blocks of the memories."""
        for name in self.module.content.get("memories", {}):
            writes = [cell for cell in self.writes if self._memory(cell) == name]
            lines = []
            for cell in writes:
                pins = cell["connections"]
                if not int(cell["parameters"]["CLK_POLARITY"], 2):
                    raise ValueError(f"Memory {name} is written by a falling clock edge")
                address = self.expression(pins["ADDR"]).flat
                for group in _groups(pins["EN"]):
                    enable, low = group[0]
                    high = group[-1][1]
                    part = "" if len(group) == len(pins["EN"]) else f"[{high}:{low}]"
                    guard = "" if enable == "1" else f"if ({self.expression([enable]).flat}) "
                    value = self.expression(pins["DATA"][low:high + 1])
                    lines.append(f"{guard}{name}[{address}]{part} <= "
                                 f"{value.layout(40, 6)};")
            if lines:
                self._block(pins["CLK"], lines)
        for cell in self.reads:
            pins = cell["connections"]
            if not int(cell["parameters"]["CLK_POLARITY"], 2):
                raise ValueError(f"Memory {self._memory(cell)} is read by a falling clock edge")
            enable, = pins["EN"]
            guard = "" if enable == "1" else f"if ({self.expression([enable]).flat}) "
            self._block(pins["CLK"], [
                f"{guard}{self._target(pins['DATA']).flat} <= "
                f"{self._memory(cell)}[{self.expression(pins['ADDR']).flat}];"])

    def _block(self, clock, lines):
        """Writes a clocked block."""
        body = "".join(f"    {line}\n" for line in lines)
        self.statements.append(
            f"always @(posedge {self.expression(clock).flat}) begin\n{body}  end")

    def _registers(self):
        """Writes the registers, grouped by their clock, reset and enable."""
        groups = defaultdict(list)
        for op in self.final:
            if op.kind in REGISTERS:
                key = op.kind, *((port, *op.operands[port]) for port in (
                    "clock", "enable", "disable", "clear", "keep") if port in op.operands)
                groups[key].append(op)
        for (kind, *_), ops in groups.items():
            self._group(kind, ops)

    def _group(self, kind, ops):
        """Writes registers with one clock, reset and enable."""
        first = ops[0].operands
        conditions = {port: self.expression(first[port]) for port in (
            "enable", "disable", "clear", "keep") if port in first}
        enable = conditions.get("enable") or (
            Unary("~", conditions["disable"]) if "disable" in conditions else None)
        clear = conditions.get("clear") or (
            Unary("!", conditions["keep"]) if "keep" in conditions else None)

        def assignments(indent, port):
            lines = []
            for op in ops:
                head = f"{' ' * indent}{self._target(op.out).flat} <= "
                value = self.root(op.operands[port], self.enums.get(tuple(op.out)))
                if isinstance(value, Choice) and port == "D":
                    lines += assignment(self._target(op.out).flat, value, indent)
                else:
                    lines.append(head + value.layout(len(head), indent + 4) + ";")
            return lines

        def guarded(condition, lines, indent, word="if"):
            pad = " " * indent
            head = f"{pad}{word} ("
            return [f"{head}{condition.layout(len(head), indent + 4)}) begin", *lines, f"{pad}end"]

        if kind == "$sdffce":
            inner = guarded(clear, assignments(8, "reset"), 6)
            inner[-1] += " else begin"
            lines = guarded(enable, [*inner, *assignments(8, "D"), "      end"], 4)
        elif clear is not None:
            lines = guarded(clear, assignments(6, "reset"), 4)
            if enable is None:
                lines[-1] += " else begin"
            else:
                head = "    end else if ("
                lines[-1] = f"{head}{enable.layout(len(head), 8)}) begin"
            lines += [*assignments(6, "D"), "    end"]
        elif enable is not None:
            lines = guarded(enable, assignments(6, "D"), 4)
        else:
            lines = assignments(4, "D")
        events = [f"posedge {self.expression(first['clock']).flat}"]
        if kind in ("$adff", "$adffe"):
            edge, level = ("posedge", "clear") if "clear" in first else ("negedge", "keep")
            events.append(f"{edge} {conditions[level].flat}")
        head = f"always @({' or '.join(events)}) begin"
        self.statements.append("\n".join([head, *lines, "  end"]))

    def _outputs(self):
        """Assigns outputs that are declared by other names."""
        for name, port in self.module.content["ports"].items():
            if port["direction"] == "output":
                self._compose(name, port["bits"])

    def _compose(self, name, bits):
        """Assigns the bits of a vector that have other names."""
        start = 0
        while start < len(bits):
            own = self.of.get(bits[start], ("",)) == (name, start)
            end = start
            while end < len(bits) and (self.of.get(bits[end], ("",)) == (name, end)) == own:
                end += 1
            if not own:
                part = "" if end - start == len(bits) else _place(start, end - 1)
                head = f"assign {_spelled(name)}{part} = "
                value = self.expression(bits[start:end])
                self.statements.append(head + value.layout(2 + len(head), 6) + ";")
            start = end

    def _assemble(self):
        content = self.module.content
        lines = [*(f"// {line}".rstrip() for line in self.module.about), f"module {self.name} ("]
        ports = []
        for name, port in content["ports"].items():
            kind = "reg " if self.kinds.get(name) == "reg" else "wire"
            sign = "signed " if port.get("signed") else ""
            direction = {"input": "input ", "output": "output"}[port["direction"]]
            ports.append((f"  {direction} {kind} {sign}",
                          _range(len(port["bits"]) - 1, 0).strip(), name))
        width = max(len(bits) for _, bits, _ in ports)
        for i, (head, bits, name) in enumerate(ports, 1):
            lines += [f"  // {line}" for line in self.module.comments.get(name, ())]
            lines.append(f"{head}{bits:{width}}{' ' if width else ''}{_spelled(name)}"
                         f"{',' if i < len(ports) else ''}")
        lines.append(");")
        for name, (_, value, bits) in sorted(self.constants.items(), key=lambda item: item[1]):
            lines.append(f"  localparam {_range(bits - 1, 0)}{name} = {number(value, bits).flat};")
        if self.constants:
            lines.append("")
        declared = []
        for name, kind in self.kinds.items():
            if name not in content["ports"] and kind in ("reg", "wire"):
                low, high = self.ranges[name]
                declared.append((kind, f"  {kind} {_range(high, low)}{name};"))
        for name, memory in content.get("memories", {}).items():
            declared.append(("memory", f"  reg [{memory['width'] - 1}:0] {_identifier(name)} "
                                       f"[0:{memory['size'] - 1}];"))
        for kind in ("memory", "reg", "wire"):
            found = [text for other, text in declared if other == kind]
            lines += found
        last = ""
        for statement in self.statements:
            kind = statement.split(" ", 1)[0]
            plain = ("wire", "assign")
            if last != "//" and (kind not in plain or last not in plain):
                lines.append("")
            lines.append(f"  {statement}")
            last = kind
        if unused := self._unused():
            value = Concatenation((Text("1'b0"), *map(Text, unused)))
            lines += ["", "  // Bits that nothing reads.",
                      f"  wire unused = &{value.layout(18, 6)};"]
        return "\n".join([*lines, "endmodule", ""])

    def _unused(self):
        """Bits that nothing reads."""
        found = []
        outputs = {name for name, port in self.module.content["ports"].items()
                   if port["direction"] == "output"}
        for name, (first, last) in self.ranges.items():
            if name in outputs:
                continue
            idle = [i for i in range(first, last + 1) if i not in self.read[name]]
            starts = [i for i in idle if i - 1 not in idle]
            ends = [i for i in idle if i + 1 not in idle]
            for low, high in zip(starts, ends, strict=True):
                whole = (low, high) == (first, last)
                found.append(_spelled(name) + ("" if whole else _place(low, high)))
        return found


def _enumeration(net):
    """Bits of a net and its values by name, if it is an enumeration."""
    attributes = net["attributes"]
    names = {int(key.removeprefix("enum_value_"), 2): value.lstrip("\\")
             for key, value in attributes.items() if key.startswith("enum_value_")}
    return (tuple(net["bits"]), (attributes["enum_base_type"], names)) if names else None


def _camel(name):
    """A name as a part of that of a constant: TOO_LARGE becomes TooLarge."""
    words = re.findall(r"[A-Z0-9]+(?![a-z])|[A-Z]?[a-z0-9]+", name)
    return "".join(word[0].upper() + word[1:].lower() for word in words)


def _unsigned(tree):
    """A tree that Verilog takes as unsigned."""
    return Call("$unsigned", tree) if tree.signed else tree


def _spelled(name):
    """A name in Verilog: a word of the language is escaped."""
    return f"\\{name} " if name in WORDS else name


def _place(low, high):
    """Bits of a vector, behind its name."""
    return f"[{low}]" if low == high else f"[{high}:{low}]"


def _range(high, low):
    """The range in a declaration, with a blank behind it."""
    return "" if high == low == 0 else f"[{high}:{low}] "


def _number(label, place):
    """Where a cell stands: Amaranth numbers them."""
    match = re.fullmatch(r"\$(\d+)", label)
    return int(match[1]) if match else 1_000_000 + place


def _identifier(name):
    return name.lstrip("\\")


def _groups(bits):
    """Runs of equal bits, as lists of (bit, place)."""
    groups: list[list[tuple[Any, int]]] = []
    for i, bit in enumerate(bits):
        if groups and groups[-1][0][0] == bit:
            groups[-1].append((bit, i))
        else:
            groups.append([(bit, i)])
    return groups


def _cyclic(reads):
    """Nodes of a graph that lie on a cycle."""
    index, low, stack, on, found = {}, {}, [], set(), set()
    for root in [*reads]:
        if root in index:
            continue
        work = [(root, iter(reads.get(root, ())))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on.add(root)
        while work:
            node, children = work[-1]
            for child in children:
                if child not in index:
                    index[child] = low[child] = len(index)
                    stack.append(child)
                    on.add(child)
                    work.append((child, iter(reads.get(child, ()))))
                    break
                if child in on:
                    low[node] = min(low[node], index[child])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    group = []
                    while True:
                        other = stack.pop()
                        on.discard(other)
                        group.append(other)
                        if other == node:
                            break
                    if len(group) > 1 or node in reads.get(node, ()):
                        found.update(group)
    return found
