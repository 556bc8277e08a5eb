# SPDX-License-Identifier: BSD-2-Clause
"""Power of a mapped netlist under given activity, estimated before layout.

The netlist is simulated gate by gate and without delays, 64 independent runs at a time, one in
each bit of a word; its outputs must equal those of the golden model. The power is the sum of

- switching power: C V^2 / 2 for each toggle of a net, where C is the capacitance of the pins that
  the net drives and of the load of an output port. The net of an input port does not count,
  because the unit does not drive it. The clock pins of the flip-flops count;
- internal power: from the library's ``internal_power`` tables over slew and load, taken from the
  timing analysis. A toggle of an output takes the mean energy of the arcs whose input toggled in
  the same cycle and whose condition holds afterwards. Everything that follows a clock edge has
  settled before the clock falls;
- leakage: by the state of each cell if the library has leakage by state. The clock is high half
  of the time.

Wires, the clock tree, glitches (a net toggles at most once per cycle) and memories are left out.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from golden.codec.numbers import default_group

from .. import registry
from ..tools.errors import ToolError
from . import timing
from .activity import KINDS
from .activity import activity as activity_of
from .cell_functions import exclusive, function
from .gate_simulation import LANES, Activity, Netlist, given, simulate
from .liberty import Library

CLOCK = 500.0
"""Default clock, MHz."""

UNITS = tuple(name for name in registry.UNITS if name != "accelerator")
"""Units whose power is estimated. The accelerator spends most of its power in memories."""


# By unit: the name of an operation, and the number of operations in an output. The other units
# count outputs.
_OPERATIONS = {
    "decoder": ("value", lambda kind="activation": 64 if kind == "special64" else 32),
    "quantization_engine": ("value", lambda **_: 32),
    "weight_encoder": ("value", lambda **_: 32),
    "sg_engine": ("value", lambda encoding, **_: default_group(encoding)),
    "nvfp4_quantizer": ("value", lambda **_: 16),
    "pe_tile": ("MAC", lambda **_: 8),
    "sg_pe_tile": ("MAC", lambda **_: 8),
    "nvfp4_pe_tile": ("MAC", lambda lanes: lanes),
    "group_mac": ("MAC", lambda encoding="elem-em", **_: default_group(encoding)),
    "mac_array": ("MAC",
                  lambda columns, encoding="elem-em", **_: default_group(encoding) * columns),
    "nvfp4_array": ("MAC", lambda columns, groups=2, **_: 16 * groups * columns),
}

# Largest number of cells evaluated together, which bounds the memory needed.
_CHUNK = 4096

_EDGES = "rise_power", "fall_power"


def estimate(module: dict[str, Any], library: Library, activity: Activity, *,
             clock_mhz: float = CLOCK) -> dict[str, Any]:
    """Estimates the power of a netlist under an activity.

    Parameters
    ----------
    module : dict
        A module of Yosys' ``write_json``, flat and of the library's cells only.
    library : Library
    activity : Activity
    clock_mhz : float
        Clock, or rate of evaluations of a netlist without flip-flops.

    Returns
    -------
    dict
        Powers in uW: ``switching_uw``, ``internal_uw``, their sum ``dynamic_uw``,
        ``leakage_uw`` and ``total_uw``. ``flip_flops_uw`` is the part of the dynamic power inside
        flip-flops and in the load of their clock pins; ``clock_uw`` is the part of that which the
        clock alone causes, whether or not a state toggles. ``energy_fj`` is the total energy of
        one cycle. ``toggles`` is the mean number of toggles of a net in a cycle, ``cycles`` the
        number of counted cycles of all lanes together, ``rate`` the outputs in each of them, and
        ``checked`` the number of outputs compared with those of the golden model, in all cycles.

    Raises
    ------
    ToolError
        If the outputs differ from the golden model's, an input runs out, or the netlist or the
        library has something that is not supported.
    """
    netlist = Netlist(module, library)
    trace, driver = simulate(netlist, activity)
    return _Power(netlist, _Traced(trace, activity.settle)).figures(clock_mhz) | {
        "cycles": LANES * activity.cycles, "checked": driver.checked,
        "rate": driver.counted / (LANES * activity.cycles)}


def estimate_uniform(module: dict[str, Any], library: Library, density: float, *,
                     clock_mhz: float = CLOCK) -> dict[str, Any]:
    """Estimates the power of a netlist if all nets toggle equally often, whatever its logic.

    Other tools do so if they are given no activity, so their results can be compared with these.

    Parameters
    ----------
    module, library, clock_mhz
        As in `estimate`.
    density : float
        Toggles of every net in a cycle; states are equally likely.

    Returns
    -------
    dict
        As `estimate` returns it, without ``cycles``, ``rate`` and ``checked``.
    """
    return _Power(Netlist(module, library), _Uniform(density)).figures(clock_mhz)


class _Traced:
    """Rates of edges and states per cycle, counted in a trace."""

    def __init__(self, trace, first):
        self.trace = trace[first:]
        self.cycles = LANES * (len(self.trace) - 1)

    def edges(self, rows):
        """How often nets rise and fall."""
        return np.concatenate([self._edges(self.trace[:, rows[low:low + _CHUNK]])
                               for low in range(0, len(rows), _CHUNK)] or [np.zeros((0, 2))])

    def _edges(self, values):
        before, after = values[:-1], values[1:]
        return np.stack([self.rate(~before & after), self.rate(before & ~after)], axis=1)

    def rate(self, words):
        return np.bitwise_count(words).sum(axis=0, dtype=np.int64) / self.cycles

    def chunks(self, kind):
        """Slices of the cells of one type, with the rates in each."""
        for low in range(0, kind.count, _CHUNK):
            chosen = slice(low, low + _CHUNK)
            yield chosen, _TracedCells(self, kind, {
                pin: self.trace[:, rows[chosen]] for pin, rows in kind.pins.items()})


class _TracedCells:
    def __init__(self, trace, kind, values):
        self.rate, self.clock = trace.rate, kind.clock
        self.values = values
        self.toggles = {pin: words[:-1] ^ words[1:] for pin, words in values.items()}
        self.ones = np.full_like(next(iter(self.toggles.values())), ~np.uint64(0))
        before, after = ({pin: words[part] for pin, words in values.items()}
                         for part in (slice(None, -1), slice(1, None)))
        # The clock rises on the old values, and is high while the new ones settle.
        self.before = given(kind, before | {self.clock: ~self.ones})
        self.after = given(kind, after | {self.clock: self.ones})
        self.low = self.after | {self.clock: ~self.ones}

    def edges(self, pin, edge, when, related):
        """Rate of a pin's edge while a condition holds and another pin toggles."""
        if pin == self.clock:
            # It rises and falls in every cycle.
            return self.rate(when(self.before if edge == timing.RISE else self.after) & self.ones)
        happens = self.toggles[pin] & (self.after[pin] ^ (~self.ones if edge == timing.RISE
                                                          else self.ones))
        if related and related != self.clock:
            happens = happens & self.toggles[related]
        return self.rate(happens & when(self.after))

    def share(self, when):
        """Share of the time in which a condition holds."""
        states = [self.after, self.low] if self.clock else [self.after]
        return sum(self.rate(when(state) & self.ones) for state in states) / len(states)


class _Uniform:
    """Rates of edges and states per cycle if all nets toggle equally often."""

    def __init__(self, density):
        self.density = density

    def edges(self, rows):
        return np.full((len(rows), 2), self.density / 2)

    def chunks(self, kind):
        yield slice(None), _UniformCells(self.density, kind)


class _UniformCells:
    def __init__(self, density, kind):
        self.density, self.kind = density, kind
        free = [*kind.cell.inputs, *kind.names[:1]]
        numbers = np.arange(2 ** len(free))
        values = {pin: (numbers >> i & 1).astype(bool) for i, pin in enumerate(free)}
        self.states = given(kind, values) | {"0": ~(numbers >= 0), "1": numbers >= 0}
        for pin, evaluate in kind.functions.items():
            self.states[pin] = evaluate(self.states)

    def edges(self, pin, edge, when, related):
        often = 1.0 if pin == self.kind.clock else self.density / 2
        return often * self.share(when)

    def share(self, when):
        return np.full(self.kind.count, np.mean(when(self.states) & self.states["1"]))


class _Power:
    """Energies of one cycle, in fJ."""

    def __init__(self, netlist, rates):
        self.netlist, self.library = netlist, netlist.library
        self.volts = self.library.voltage
        driven = netlist.driven()
        edges = rates.edges(driven)
        self.toggles = float(edges.sum() / max(1, len(driven)))
        self.switching = self._charge(edges, netlist.loads[driven])
        self.internal = self.flip_flops = self.clock = self.leakage = 0.0
        for name, kind in netlist.kinds.items():
            power = self.library.power(name)
            if kind.clock:
                pins = np.full((kind.count, 2), self.library.cells[name].inputs[kind.clock])
                load = self._charge(np.ones((kind.count, 2)), pins)
                self.switching += load
                self.clock += load
                self.flip_flops += load
            for chosen, cells in rates.chunks(kind):
                self.leakage += self._leakage(power, cells)
                for pin in dict.fromkeys(arc.pin for arc in power.arcs):
                    energy = sum(self._internal(kind, power, pin, edge, chosen, cells)
                                 for edge in (timing.RISE, timing.FALL))
                    self.internal += energy
                    self.flip_flops += energy * bool(kind.clock)
                    self.clock += energy * bool(kind.clock and pin == kind.clock)

    def _charge(self, edges, loads):
        return float((edges * loads).sum()) * self.volts ** 2 / 2

    def _internal(self, kind, power, pin, edge, chosen, cells):
        """Internal energy of one edge of one pin, from all supplies."""
        found = 0.0
        arcs = [arc for arc in power.arcs if arc.pin == pin and _EDGES[edge] in arc.tables]
        for supply in dict.fromkeys(arc.supply for arc in arcs):
            found += self._internal_of(kind, power, pin, edge, chosen, cells,
                                       [arc for arc in arcs if arc.supply == supply])
        return found

    def _internal_of(self, kind, power, pin, edge, chosen, cells, arcs):
        energies = np.stack([self._energies(kind, power, arc, edge, chosen) for arc in arcs])
        if pin in kind.functions:
            rates = np.stack([cells.edges(pin, edge, _when(arc.when), arc.related)
                              for arc in arcs])
            # Several inputs may have toggled, or only inputs without an arc.
            total = rates.sum(axis=0)
            weights = np.where(total > 0, rates / np.where(total > 0, total, 1), 1 / len(arcs))
            mean = (weights * energies).sum(axis=0)
            return float((cells.edges(pin, edge, _when(""), "") * mean).sum())
        # What has no condition holds while no other does; of several that hold, the mean counts.
        rest = "&".join(f"!({arc.when})" for arc in arcs if arc.when) or "1"
        found = 0.0
        for when, which in exclusive([arc.when or rest for arc in arcs]):
            rate = cells.edges(pin, edge, _when(when), arcs[0].related)
            found += float((rate * energies[[*which]].mean(axis=0)).sum())
        return found

    def _energies(self, kind, power, arc, edge, chosen):
        """Energy of one edge in each cell."""
        pin, related = kind.pins[arc.pin][chosen], kind.pins[arc.related or arc.pin][chosen]
        slews, loads = self.netlist.electrical(related)[0], self.netlist.electrical(pin)[1]
        if arc.related == kind.clock and arc.related:
            slew = np.zeros(len(pin))
        elif not arc.related:
            slew = np.zeros(len(pin)) if arc.pin == kind.clock else slews[:, edge]
        else:
            senses = {(a.pin, a.related): a.sense for a in kind.cell.arcs}
            sense = senses.get((arc.pin, arc.related), "non_unate")
            starts = [start for start, end in timing.SENSES[sense] if end == edge]
            slew = slews[:, starts].mean(axis=1)
        table = np.full(len(pin), arc.tables[_EDGES[edge]])
        return power.lookup(table, slew, loads[:, edge])

    def _leakage(self, power, cells):
        total = 0.0
        for leakage in power.leakage:
            shares = [(cells.share(_when(when)), value) for when, value in leakage.states]
            rest = cells.share(_when("")) - sum(share for share, _ in shares)
            # The shares are rounded.
            watts = np.maximum(rest, 0.0) * leakage.other
            total += float((watts + sum(share * value for share, value in shares)).sum())
        return total

    def figures(self, clock_mhz):
        """The powers and energies that `estimate` returns."""
        # fJ times MHz are nW.
        switching, internal, flip_flops, clock = (
            energy * clock_mhz / 1000
            for energy in (self.switching, self.internal, self.flip_flops, self.clock))
        leakage = self.leakage / 1000
        dynamic = switching + internal
        total = dynamic + leakage
        return {"switching_uw": switching, "internal_uw": internal, "dynamic_uw": dynamic,
                "flip_flops_uw": flip_flops, "clock_uw": clock, "leakage_uw": leakage,
                "total_uw": total, "energy_fj": total / clock_mhz * 1000, "toggles": self.toggles}


def _when(text):
    return function(text)[1] if text else lambda values: values["1"]


def check(name: str) -> None:
    """Raises ValueError for a unit whose power is not estimated."""
    if name in registry.UNITS and name not in UNITS:
        raise ValueError(f"--power is for all units but {name}, whose memories are left out")


def inspector(clock: str | None = None) -> Callable[..., dict[str, Any]]:
    """The function with which `hw.flow.measurement` measures power.

    Parameters
    ----------
    clock : str, optional
        MHz.

    Returns
    -------
    callable
        Takes a unit's name and settings, a netlist and the library. Returns a dictionary:
        ``clock_mhz``, ``voltage_v``, the name of an ``operation``, the number of ``operations`` in
        an output, and under ``real`` and ``random`` the result of `estimate` for that activity,
        with ``energy_per_operation_fj``. Raises ToolError as `estimate` does, or if the unit has
        no activity.

    Raises
    ------
    ValueError
        If the clock is not a number above 0.
    """
    try:
        clock_mhz = CLOCK if clock is None else float(clock)
    except ValueError:
        clock_mhz = 0.0
    if not 0 < clock_mhz < float("inf"):
        raise ValueError(f"--clock must be a number above 0, not {clock!r}")
    return partial(_inspect, clock_mhz)


def _inspect(clock_mhz, name, settings, module, library):
    what, number = _OPERATIONS.get(name, ("output", lambda **_: 1))
    number = number(**registry.parameters(name, settings))
    result = {"clock_mhz": clock_mhz, "voltage_v": library.voltage, "operation": what,
              "operations": number}
    for kind in KINDS:
        chosen = activity_of(name, settings, kind)
        if chosen is None:
            raise ToolError("Power: there is no activity for this unit")
        figures = estimate(module, library, chosen, clock_mhz=clock_mhz)
        result[kind] = figures | {
            "energy_per_operation_fj": figures["energy_fj"] / (number * figures["rate"])}
    return result


def rows(results: dict[str, Any]) -> list[Sequence[str]]:
    """Rows of a table: two rows of headings, then one row for each unit and activity.

    Parameters
    ----------
    results : dict
        As `hw.report.text_tables.table` takes it, with the power of each unit.

    Returns
    -------
    list of tuple of str
    """
    lines: list[Sequence[str]] = [
        ("unit", "activity", "toggles", "switching", "internal", "(flip-flops", "clock)",
         "leakage", "total", "per cycle", "", ""),
        ("", "", "", "uW", "uW", "uW", "uW", "uW", "uW", "fJ", "fJ per", "")]
    for name, unit in results["units"].items():
        measured = unit["power"]
        slow = unit["delay_ns"] is not None and unit["delay_ns"] * measured["clock_mhz"] > 1000
        label = name + "*" * unit["hierarchical"] + "!" * slow
        for kind in ("real", "random"):
            figures = measured[kind]
            lines.append((
                label, kind, f"{figures['toggles']:.3f}",
                *(amount(figures[f"{part}_uw"], 1) for part in (
                    "switching", "internal", "flip_flops", "clock", "leakage", "total")),
                amount(figures["energy_fj"], 0), amount(figures["energy_per_operation_fj"], 1),
                measured["operation"]))
            label = ""
    return lines


def amount(value: float, digits: int) -> str:
    """Writes a figure with so many decimals, and with more if these would say little.

    Parameters
    ----------
    value : float
    digits : int
        Decimals of figures of the size that they have in 45 nm.

    Returns
    -------
    str
        With three digits that count if the figure is below 20 units of the last decimal.
    """
    if not value or abs(value) >= 20 * 10.0 ** -digits:
        return f"{value:.{digits}f}"
    return f"{value:.{2 - math.floor(math.log10(abs(value)))}f}"


COLUMNS = (
    "random: the unit's own stimuli. toggles: mean number of toggles of a net in a cycle.",
    "(flip-flops: the part of switching and internal power in flip-flops and their clock pins.",
    "clock): the part of that which the clock causes even if no state changes.",
    "!: the unit is slower than the clock.",
)
"""Lines that explain the columns of `rows`."""


def legend(results: dict[str, Any]) -> list[str]:
    """Lines that say how power and energy were estimated, and which parts are left out."""
    units = results["units"].values()
    first = next(iter(units))["power"]
    checked = sum(unit["power"][kind]["checked"] for unit in units
                  for kind in ("real", "random"))
    return [
        f"power: of the netlist mapped for delay, at {first['clock_mhz']:g} MHz and "
        f"{first['voltage_v']:g} V, simulated gate by gate.",
        f"{checked} outputs were compared with the golden model's, and all are equal. The estimate "
        "is",
        "made before layout, without wires, clock tree, glitches and memories.",
        "real: a layer of SmolLM2; the weights stay while 32 tokens pass.",
    ]
