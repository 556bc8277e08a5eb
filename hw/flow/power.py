# SPDX-License-Identifier: BSD-2-Clause
"""Power of a mapped netlist under given activity, estimated before layout.

The netlist is simulated gate by gate and without delays, 64 independent runs at a time, one in
each bit of a word; what comes out must be what the golden model says. From the toggles and states
of all nets come

- switching power: C V^2 / 2 for each toggle of a net, C being the pins that it drives and the load
  of an output port. An input's net counts for whoever drives it, which is not the unit; the clock
  pins of the flip-flops are counted;
- internal power: the library's ``internal_power`` tables over slew and load, which are those of
  the timing analysis. A toggle of an output has the mean energy of the arcs whose input toggled in
  the same cycle and whose condition holds after it. All that follows a clock edge has settled
  before the clock falls;
- leakage: by the state of each cell, where the library tells it by state. The clock is high half
  the time.

Left out are wires, the clock tree, glitches (a net toggles once per cycle at most) and memories.
"""

from functools import partial

import numpy as np

from .. import registry
from ..tools.errors import ToolError
from . import timing
from .activity import KINDS
from .activity import activity as activity_of
from .cell_functions import function
from .gate_simulation import LANES, Netlist, given, simulate

CLOCK = 500.0
"""MHz."""

UNITS = tuple(name for name in registry.UNITS if name != "accelerator")
"""Units whose power is estimated. Most of what the accelerator takes goes into its memories."""

# What a unit does in a cycle, and how often; of the others, outputs are counted.
_OPERATIONS = {
    "decoder": ("value", lambda **_: 32),
    "quantization_engine": ("value", lambda **_: 32),
    "weight_encoder": ("value", lambda **_: 32),
    "nvfp4_quantizer": ("value", lambda **_: 16),
    "pe_tile": ("MAC", lambda **_: 8),
    "sg_pe_tile": ("MAC", lambda **_: 8),
    "nvfp4_pe_tile": ("MAC", lambda lanes: lanes),
    "group_mac": ("MAC", lambda **_: 32),
    "mac_array": ("MAC", lambda columns, **_: 32 * columns),
}

# Cells of one type looked at together, which bounds the memory it takes.
_CHUNK = 4096

_EDGES = "rise_power", "fall_power"


def estimate(module, library, activity, *, clock_mhz=CLOCK):
    """Estimates what a netlist takes under an activity.

    Parameters
    ----------
    module : dict
        A module of Yosys' ``write_json``, flat and of the library's cells only.
    library : Library
    activity : Activity
    clock_mhz : float
        Clock, or rate of evaluations if nothing is clocked.

    Returns
    -------
    dict
        Powers in uW: ``switching_uw``, ``internal_uw``, their sum ``dynamic_uw``,
        ``leakage_uw`` and ``total_uw``. Of the dynamic power, ``flip_flops_uw`` is internal to
        flip-flops or goes into their clock pins' load, and of that ``clock_uw`` is spent whether
        or not anything toggles: the clock pins, tables and load. ``energy_fj`` is the total of one
        cycle, ``toggles`` the mean number of a net's toggles in a cycle, ``cycles`` the number of
        cycles that count, of all lanes together, ``rate`` the outputs in each of them, ``checked``
        the number of outputs that were compared with those of the golden model, in all cycles.

    Raises
    ------
    ToolError
        If the outputs differ from the golden model's, an input runs out, or the netlist or the
        library has what is not supported.
    """
    netlist = Netlist(module, library)
    trace, driver = simulate(netlist, activity)
    return _Power(netlist, _Traced(trace, activity.settle)).figures(clock_mhz) | {
        "cycles": LANES * activity.cycles, "checked": driver.checked,
        "rate": driver.counted / (LANES * activity.cycles)}


def estimate_uniform(module, library, density, *, clock_mhz=CLOCK):
    """Estimates what a netlist takes if all nets toggle equally often, whatever its logic.

    This is what tools do without activity; it serves to compare the use of the tables with theirs.

    Parameters
    ----------
    module, library, clock_mhz
        As in `estimate`.
    density : float
        Toggles of every net in a cycle; states are equally likely.

    Returns
    -------
    dict
        As of `estimate`, without ``cycles``, ``rate`` and ``checked``.
    """
    return _Power(Netlist(module, library), _Uniform(density)).figures(clock_mhz)


class _Traced:
    """Rates, per cycle, in a trace."""

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
        """Cells of one type, some at a time."""
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
        # The clock rises on what was there before, and is high when what follows happens.
        self.before = given(kind, before | {self.clock: ~self.ones})
        self.after = given(kind, after | {self.clock: self.ones})
        self.low = self.after | {self.clock: ~self.ones}

    def edges(self, pin, edge, when, related):
        """How often a pin has an edge while a condition holds and another pin toggles."""
        if pin == self.clock:
            # It rises and falls in every cycle.
            return self.rate(when(self.before if edge == timing.RISE else self.after) & self.ones)
        happens = self.toggles[pin] & (self.after[pin] ^ (~self.ones if edge == timing.RISE
                                                          else self.ones))
        if related and related != self.clock:
            happens = happens & self.toggles[related]
        return self.rate(happens & when(self.after))

    def share(self, when):
        """How much of the time a condition holds."""
        states = [self.after, self.low] if self.clock else [self.after]
        return sum(self.rate(when(state) & self.ones) for state in states) / len(states)


class _Uniform:
    """Rates, per cycle, if all toggle equally often."""

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
    """Energies of a cycle, in fJ."""

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
        """Of one edge of one pin."""
        arcs = [arc for arc in power.arcs if arc.pin == pin and _EDGES[edge] in arc.tables]
        if not arcs:
            return 0.0
        rates = np.stack([cells.edges(pin, edge, _when(arc.when), arc.related) for arc in arcs])
        energies = np.stack([self._energies(kind, power, arc, edge, chosen) for arc in arcs])
        if pin in kind.functions:
            # Several inputs may have toggled, or those of none of the arcs.
            total = rates.sum(axis=0)
            weights = np.where(total > 0, rates / np.where(total > 0, total, 1), 1 / len(arcs))
            mean = (weights * energies).sum(axis=0)
            return float((cells.edges(pin, edge, _when(""), "") * mean).sum())
        return float((rates * energies).sum())

    def _energies(self, kind, power, arc, edge, chosen):
        """What one edge costs each of the cells."""
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
        shares = [(cells.share(_when(when)), value) for when, value in power.leakage]
        rest = cells.share(_when("")) - sum(share for share, _ in shares)
        watts = sum(share * value for share, value in shares) + rest * power.other_leakage
        return float(watts.sum())

    def figures(self, clock_mhz):
        """What `estimate` returns of this."""
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


def check(name):
    """Raises ValueError if a unit's power is not estimated."""
    if name in registry.UNITS and name not in UNITS:
        raise ValueError(f"--power is for all units but {name}, whose memories are left out")


def inspector(clock=None):
    """What `hw.flow.measurement` measures power with.

    Parameters
    ----------
    clock : str, optional
        MHz.

    Returns
    -------
    callable
        Takes a unit's name and settings, a netlist and the library, and returns a dictionary:
        ``clock_mhz``, ``voltage_v``, the ``operation`` that energies are given for and the number
        of ``operations`` in an output, and for activities ``real`` and ``random`` what `estimate`
        gives, with ``energy_per_operation_fj``; ToolError as there, or without activity.

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


def rows(results):
    """Rows of a table, a head of two and one for each unit and activity.

    Parameters
    ----------
    results : dict
        As of `hw.report.text_tables.table`, with the power of each unit.

    Returns
    -------
    list of tuple of str
    """
    lines = [("unit", "activity", "toggles", "switching", "internal", "(flip-flops", "clock)",
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
                *(f"{figures[f'{part}_uw']:.1f}" for part in (
                    "switching", "internal", "flip_flops", "clock", "leakage", "total")),
                f"{figures['energy_fj']:.0f}", f"{figures['energy_per_operation_fj']:.1f}",
                measured["operation"]))
            label = ""
    return lines


COLUMNS = (
    "random: the unit's own stimuli. toggles: of a net in a cycle. In brackets, of the two before:",
    "internal to flip-flops and into their clock pins; of that, what the clock takes anyway.",
    "!: slower than the clock.",
)
"""Lines on the columns of `rows`."""


def legend(results):
    """Lines on what power and energy are and leave out."""
    units = results["units"].values()
    first = next(iter(units))["power"]
    checked = sum(unit["power"][kind]["checked"] for unit in units
                  for kind in ("real", "random"))
    return [
        f"power: at {first['clock_mhz']:g} MHz and {first['voltage_v']:g} V, of the netlist mapped "
        "for delay, simulated gate by gate:",
        f"{checked} outputs equal the golden model's. Estimated before layout: without wires, "
        "clock tree,",
        "glitches and memories. real: a layer of SmolLM2, weights resting for 32 tokens.",
    ]
