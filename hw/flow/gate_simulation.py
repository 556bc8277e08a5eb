# SPDX-License-Identifier: BSD-2-Clause
"""Gate-level simulation of a mapped netlist, without delays, against the golden model.

The library defines the function of each cell. 64 independent runs are simulated at a time, one in
each bit of a word.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..tools.errors import ToolError
from . import timing
from .cell_functions import function
from .liberty import Cell, Library

LANES = 64
"""Runs that are simulated at once."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Activity:
    """Inputs of a netlist and the outputs expected: ``LANES`` runs from reset, equally long.

    Attributes
    ----------
    inputs, outputs : dict of str to uint8 array, shape (LANES, n, width)
        Bits of every payload of a stream, or of a plain port in every cycle. The golden model
        computes the outputs. Streams are always valid and always ready, and must not run out.
    latency : int
        Cycles from a row of plain input ports to the row of outputs; not used for streams.
    settle, cycles : int
        Cycles before counting begins, and cycles that count.
    """

    inputs: dict
    outputs: dict
    latency: int
    settle: int
    cycles: int


@dataclass(frozen=True, kw_only=True)
class Kind:
    """All cells of one type.

    Attributes
    ----------
    cell : Cell
    functions : dict of str to callable
        By output pin, see `hw.flow.cell_functions.function`.
    next_state : callable or None
        Of a flip-flop.
    clock : str
        Clock pin of a flip-flop, empty for other cells.
    names : tuple of str
        Names of a flip-flop's state and of its inverse.
    pins : dict of str to int array, shape (count,)
        Row of each cell's pin among the values.
    count : int
    """

    cell: Cell
    functions: dict[str, Callable]
    next_state: Callable | None
    clock: str
    names: tuple[str, ...]
    pins: dict[str, np.ndarray]
    count: int

    @property
    def state(self) -> np.ndarray:
        """Rows of the flip-flops' states."""
        return self.pins[self.names[0]]


class Netlist:
    """A mapped netlist, its cells grouped by type.

    Values are arrays with a row for every net, every open pin and every flip-flop.

    Parameters
    ----------
    module : dict
        A module of Yosys' ``write_json``, flat and of the library's cells only.
    library : Library

    Raises
    ------
    ToolError
        If a cell has no function that can be simulated.
    """

    def __init__(self, module: dict[str, Any], library: Library) -> None:
        self.library = library
        self.slews, self.loads = timing.slews_and_loads(module, library)
        self.nets = len(self.loads) - 1
        self.rows = self.nets
        # Timing has refused unknown cells, latches, second clocks and loops already.
        by_type: dict[str, list] = {}
        for name, cell in module["cells"].items():
            if cell["type"] != "$scopeinfo":
                by_type.setdefault(cell["type"], []).append((name, cell["connections"]))
        self.kinds = {kind: self._kind(kind, cells) for kind, cells in sorted(by_type.items())}
        self.ports = {name: port | {"bits": [self._row(bit) for bit in port["bits"]]}
                      for name, port in module["ports"].items()}
        self._sort_by_level()

    @property
    def clocked(self) -> bool:
        """Whether there is a flip-flop."""
        return any(kind.clock for kind in self.kinds.values())

    def _row(self, bit):
        """Row of a bit: nets have numbers from 2 on, rows 0 and 1 are constants, unknown is 0."""
        return bit if isinstance(bit, int) else int(bit == "1")

    def _kind(self, name, cells):
        cell = self.library.cells[name]
        if cell.unused and not cell.arcs:
            raise ToolError(f"Gates: {cells[0][0]} is {name}, {cell.unused}")

        def parsed(text, what):
            if not text:
                raise ToolError(f"Gates: {cells[0][0]} is {name}, which has no {what}")
            try:
                return function(text)[1]
            except ValueError as error:
                raise ToolError(f"Gates: {what} of {name}: {error}") from None

        pins = {pin: np.array([self._row(connections.get(pin, ["x"])[0])
                               for _, connections in cells]) for pin in cell.inputs}
        for pin in cell.functions:
            # An open output toggles too and needs a row.
            pins[pin] = np.array([connections[pin][0] if connections.get(pin) else self._new()
                                  for _, connections in cells])
        next_state, clock, names = None, "", ()
        if cell.register:
            register = cell.register
            clock, names = register.clock_pin, register.names
            if not clock:
                raise ToolError(f"Gates: {cells[0][0]} is {name}, clocked by {register.clock!r}, "
                                "which must be a pin")
            for what, text in (("clear", register.clear), ("preset", register.preset)):
                if text and not self._never(text, pins):
                    raise ToolError(f"Gates: {cells[0][0]} is {name}, whose {what} {text!r} is "
                                    "not tied off")
            next_state = parsed(register.next_state, "next state")
            pins[names[0]] = np.array([self._new() for _ in cells])
        return Kind(cell=cell, next_state=next_state, clock=clock, names=names, pins=pins,
                     functions={pin: parsed(text, f"function of {pin}")
                                for pin, text in cell.functions.items()}, count=len(cells))

    @staticmethod
    def _never(text, pins):
        """Whether constants on the pins keep a condition from ever holding."""
        needed, holds = function(text)
        rows = {pin: pins[pin] for pin in needed}
        if any((row > 1).any() for row in rows.values()):
            return False
        ones = next(iter(pins.values())) >= 0
        return not holds({pin: row == 1 for pin, row in rows.items()}
                         | {"0": ~ones, "1": ones}).any()

    def _new(self):
        # The row after the last net stands for everything that is not connected.
        self.rows += 1
        return self.rows

    def _sort_by_level(self):
        """Divides the cells into steps: cells of one type and of one level of logic."""
        self.rows += 1
        level = np.zeros(self.rows, dtype=np.int64)
        of_cells = {name: np.zeros(kind.count, dtype=np.int64)
                    for name, kind in self.kinds.items()}
        changed = True
        while changed:
            changed = False
            for name, kind in self.kinds.items():
                if kind.clock:
                    continue
                after = np.zeros(kind.count, dtype=np.int64)
                for pin in kind.cell.inputs:
                    np.maximum(after, level[kind.pins[pin]], out=after)
                if after.max(initial=0) > self.rows:
                    raise ToolError("Gates: gates form a loop")
                changed |= not np.array_equal(after + 1, of_cells[name])
                of_cells[name] = after + 1
                for pin in kind.functions:
                    level[kind.pins[pin]] = after + 1
        steps = []
        for name, kind in self.kinds.items():
            for depth in np.unique(of_cells[name]):
                chosen = of_cells[name] == depth
                steps.append((depth, name, kind, {pin: rows[chosen]
                                                  for pin, rows in kind.pins.items()}))
        self.steps = [(kind, pins) for _, _, kind, pins in sorted(steps, key=lambda x: x[:2])]

    def settle(self, values: np.ndarray) -> None:
        """Evaluates all gates, given the rows of the input ports and of the states."""
        values[0], values[1] = 0, ~np.uint64(0)
        for kind, pins in self.steps:
            names = given(kind, {pin: values[rows] for pin, rows in pins.items()
                                 if pin not in kind.functions})
            for pin, evaluate in kind.functions.items():
                values[pins[pin]] = evaluate(names)

    def clock(self, values: np.ndarray, after: np.ndarray) -> None:
        """Puts the next states into the values of the next cycle."""
        for kind in self.kinds.values():
            if kind.next_state:
                names = given(kind, {pin: values[rows] for pin, rows in kind.pins.items()})
                after[kind.state] = kind.next_state(names)

    def driven(self) -> np.ndarray:
        """Rows of the nets that cells drive."""
        pins = [rows for kind in self.kinds.values()
                for pin, rows in kind.pins.items() if pin in kind.functions]
        rows = np.concatenate([np.zeros(0, dtype=np.int64), *pins])
        return rows[rows < self.nets]

    def electrical(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Slews in ns and loads in fF of rows, see `hw.flow.timing.slews_and_loads`."""
        rows = np.minimum(rows, self.nets)
        return self.slews[rows], self.loads[rows]


def given(kind: Kind, values: dict[str, Any]) -> dict[str, Any]:
    """Adds the constants and, for flip-flops, the inverse of the state to values by name."""
    values |= {"0": np.uint64(0), "1": ~np.uint64(0)}
    if kind.clock:
        state, inverse = kind.names
        values[inverse] = ~values[state]
    return values


def simulate(netlist: Netlist, activity: Activity) -> "tuple[np.ndarray, _Plain | _Streams]":
    """Simulates a netlist and compares its outputs with those of the golden model.

    Returns
    -------
    trace : uint64 array, shape (cycles, rows)
        Values of all rows in all cycles, one run in each bit.
    driver
        With ``checked`` and ``counted``, the outputs compared in all and in the counted cycles.

    Raises
    ------
    ToolError
        If an output differs, there is none, or an input runs out.
    """
    cycles = activity.settle + activity.cycles + 1
    has_streams = any(f"{name}__valid" in netlist.ports for name in activity.outputs)
    driver = (_Streams if has_streams else _Plain)(netlist, activity, cycles)
    if not netlist.clocked:
        # No cycle depends on the one before, so all are simulated at once.
        values = np.zeros((netlist.rows, cycles), dtype=np.uint64)
        for cycle in range(cycles):
            driver.drive(cycle, values[:, cycle])
        netlist.settle(values)
        trace = np.ascontiguousarray(values.T)
        for cycle in range(cycles):
            driver.check(cycle, trace[cycle])
    else:
        trace = np.zeros((cycles, netlist.rows), dtype=np.uint64)
        start = np.zeros(netlist.rows, dtype=np.uint64)
        start[netlist.ports.get("rst", {"bits": []})["bits"]] = ~np.uint64(0)
        netlist.settle(start)
        netlist.clock(start, trace[0])
        for cycle in range(cycles):
            driver.drive(cycle, trace[cycle])
            netlist.settle(trace[cycle])
            driver.check(cycle, trace[cycle])
            if cycle + 1 < cycles:
                netlist.clock(trace[cycle], trace[cycle + 1])
    if driver.different:
        raise ToolError(f"Gates: {driver.different} of {driver.checked} outputs of the netlist "
                        "differ from those of the golden model")
    if not driver.counted:
        raise ToolError(f"Gates: the netlist gave no outputs in {activity.cycles} cycles")
    return trace, driver


class _Plain:
    """Drives and checks plain ports."""

    def __init__(self, netlist, activity, cycles):
        self.ports, self.latency, self.settle = netlist.ports, activity.latency, activity.settle
        self.inputs = {name: _words(bits) for name, bits in activity.inputs.items()}
        self.outputs = activity.outputs
        self.checked = self.counted = self.different = 0
        if min(map(len, self.inputs.values())) < cycles:
            raise ToolError(f"Gates: the activity ends before cycle {cycles}")

    def drive(self, cycle, values):
        for name, words in self.inputs.items():
            values[self.ports[name]["bits"]] = words[cycle]
        if "enable" in self.ports:
            values[self.ports["enable"]["bits"]] = ~np.uint64(0)

    def check(self, cycle, values):
        if cycle < self.latency:
            return
        wrong = np.zeros(LANES, dtype=bool)
        for name, expected in self.outputs.items():
            found = _lanes(values[self.ports[name]["bits"]])
            wrong |= (found != expected[:, cycle - self.latency]).any(axis=1)
        self.checked += LANES
        self.counted += LANES * (cycle > self.settle)
        self.different += int(wrong.sum())


class _Streams:
    """Drives input streams, always valid, and checks output streams, always ready."""

    def __init__(self, netlist, activity, cycles):
        self.ports = netlist.ports
        self.inputs, self.outputs = activity.inputs, activity.outputs
        self.done = {name: np.zeros(LANES, dtype=np.int64)
                     for name in (*activity.inputs, *activity.outputs)}
        self.settle = activity.settle
        self.checked = self.counted = self.different = 0
        self.lanes = np.arange(LANES)

    def _rows(self, name, part):
        return self.ports.get(f"{name}__{part}", {"bits": []})["bits"]

    def drive(self, cycle, values):
        for name in self.outputs:
            values[self._rows(name, "ready")] = ~np.uint64(0)
        for name, bits in self.inputs.items():
            if (self.done[name] >= bits.shape[1]).any():
                raise ToolError(f"Gates: the activity on {name} ends before cycle {cycle}")
            values[self._rows(name, "payload")] = _words(bits[self.lanes, self.done[name]])
            values[self._rows(name, "valid")] = ~np.uint64(0)

    def check(self, cycle, values):
        for name in self.inputs:
            self.done[name] += self._flag(name, "ready", values)
        for name, expected in self.outputs.items():
            valid = self._flag(name, "valid", values)
            found = _lanes(values[self._rows(name, "payload")])
            last = expected.shape[1] - 1
            wrong = (found != expected[self.lanes, np.minimum(self.done[name], last)]).any(axis=1)
            self.different += int((valid & (wrong | (self.done[name] > last))).sum())
            self.done[name] += valid
            self.checked += int(valid.sum())
            self.counted += int(valid.sum()) * (cycle > self.settle)

    def _flag(self, name, part, values):
        rows = self._rows(name, part)
        return _lanes(values[rows])[:, 0].astype(bool) if rows else np.ones(LANES, dtype=bool)


def _words(bits):
    """Packs bits, shape (LANES, ...), into words with one lane in each bit."""
    packed = np.moveaxis(np.packbits(bits, axis=0, bitorder="little"), 0, -1)
    return np.ascontiguousarray(packed).view("<u8")[..., 0]


def _lanes(words):
    """Unpacks n words into bits, shape (LANES, n)."""
    return np.unpackbits(words.astype("<u8").view(np.uint8).reshape(-1, LANES // 8).T, axis=0,
                         bitorder="little")
