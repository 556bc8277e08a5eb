# SPDX-License-Identifier: BSD-2-Clause
"""Static timing analysis of a mapped netlist, without wires or with a wire-load model.

Delays and slews come from the library's tables over input slew and output load. Rising and falling
edges are separate. At every net, the latest arrival and the largest slew of each edge propagate, as
in OpenSTA. The clock is ideal: it reaches every flip-flop at 0 ns with a slew of 0. Inputs arrive
at 0 ns behind the library's driver; the delay that the load adds to the driver counts, its delay
without load does not (`set_driving_cell` of OpenSTA and of ABC). Hold times are checked from
register to register, with the same slews as setup times. Asynchronous set, reset and their recovery
times are not checked.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..tools.errors import ToolError
from .liberty import Library
from .wire_load import WireLoad

OUTPUT_LOAD = 5.0
"""Load on every output port, fF."""

CLASSES = "reg-reg", "in-reg", "reg-out", "in-out"
"""Kinds of path, from and to registers and ports."""

RISE, FALL = 0, 1
EDGES = "rise", "fall"
SENSES = {
    "positive_unate": ((RISE, RISE), (FALL, FALL)),
    "negative_unate": ((RISE, FALL), (FALL, RISE)),
    "non_unate": ((RISE, RISE), (RISE, FALL), (FALL, RISE), (FALL, FALL)),
}
COMBINATIONAL = "combinational", "combinational_rise", "combinational_fall"


@dataclass(frozen=True, kw_only=True)
class Path:
    """The slowest path of its kind.

    Attributes
    ----------
    kind : str
        One of ``CLASSES``.
    delay_ns : float
        From the clock edge or the input to the output or, with the setup time, to the next edge.
    startpoint, endpoint : str
        Ports, or registers by the name of their output.
    steps : list of dict
        The pins on the path: ``cell``, ``pin``, ``edge``, ``arrival_ns`` and ``net``, which is
        empty if the net has no name in the source.
    """

    kind: str
    delay_ns: float
    startpoint: str
    endpoint: str
    steps: list[dict[str, Any]]


@dataclass(frozen=True)
class Violation:
    """A pin beyond a limit of the library.

    Attributes
    ----------
    kind : str
        ``"max_capacitance"`` in fF or ``"max_transition"`` in ns.
    cell, pin, net : str
        Type of the cell, its pin, and the net if it has a name.
    value, limit : float
    """

    kind: str
    cell: str
    pin: str
    net: str
    value: float
    limit: float


@dataclass(frozen=True)
class Timing:
    """All that timing analysis finds.

    Attributes
    ----------
    paths : dict of str to Path
        As `analyse` returns them.
    hold_slack_ns : float or None
        By how much the fastest path from register to register is slower than the hold time of its
        end; negative if it is too fast, None without such a path.
    hold_endpoint : str
        The register where it ends.
    violations : list of Violation
        The worst first.
    """

    paths: dict[str, Path]
    hold_slack_ns: float | None
    hold_endpoint: str
    violations: list[Violation]


def examine(module: dict[str, Any], library: Library, *,
            output_load: float = OUTPUT_LOAD) -> Timing:
    """Finds the slowest paths, the hold slack, and pins beyond the limits of the library.

    Parameters and errors as in `analyse`.

    Returns
    -------
    Timing
    """
    analysis = _Analysis(module, library, output_load)
    slack, endpoint = analysis.hold()
    return Timing(analysis.paths(), slack, endpoint, analysis.violations())


def analyse(module: dict[str, Any], library: Library, *,
            output_load: float = OUTPUT_LOAD) -> dict[str, Path]:
    """Finds the slowest path of each kind.

    Parameters
    ----------
    module : dict
        A module of Yosys' ``write_json``, flat and of the library's cells only.
    library : Library
    output_load : float
        Load on every output port, fF.

    Returns
    -------
    dict of str to Path
        By kind; a kind without a path is missing.

    Raises
    ------
    ToolError
        If a cell is not in the library or is a latch, or there is a second clock or a loop of
        gates.
    """
    return _Analysis(module, library, output_load).paths()


def slews_and_loads(module: dict[str, Any], library: Library, *,
                    output_load: float = OUTPUT_LOAD) -> tuple[np.ndarray, np.ndarray]:
    """Slews and loads of every net; parameters and errors as in `analyse`.

    Returns
    -------
    slews : array of float, shape (nets, 2)
        Largest slew of the rising and of the falling edge, ns; 0 if no edge arrives.
    loads : array of float, shape (nets, 2)
        fF while the net rises and while it falls. The rows of both are the nets' numbers; the last
        row stands for everything that is not connected.
    """
    analysis = _Analysis(module, library, output_load)
    slews = analysis.slew.reshape(-1, 2)
    return np.where(np.isfinite(slews), slews, 0.0), analysis.loads


def unit_delay(paths: Mapping[str, Path]) -> tuple[Path | None, Path | None]:
    """The path that sets a unit's clock, and the slowest path from or to a port.

    Parameters
    ----------
    paths : dict of str to Path

    Returns
    -------
    period : Path or None
        The slowest path from register to register; without one, the slowest of all.
    ports : Path or None
    """
    ports = max((path for kind, path in paths.items() if kind != "reg-reg"),
                key=lambda path: path.delay_ns, default=None)
    return paths.get("reg-reg", ports), ports


class _Analysis:
    """Arrivals and slews of all nets.

    A net has two nodes, 2 * net + edge. The edges through all gates are one array, sorted by the
    level of the net where they end, so that a level is one step of array arithmetic.
    """

    def __init__(self, module, library, output_load):
        self.module = module
        self.library = library
        self._read_cells()
        self._sum_loads(output_load)
        self._sort_by_level()
        self._propagate()

    def _read_cells(self):
        by_type = {}
        for name, cell in self.module["cells"].items():
            if cell["type"] != "$scopeinfo":
                by_type.setdefault(cell["type"], []).append((name, cell["connections"]))
        bits = [bit for port in self._all_ports() for bit in port["bits"]]
        bits += [bit for cells in by_type.values() for _, pins in cells
                 for pin in pins.values() for bit in pin]
        self.by_type = by_type
        self.nets = 1 + max((bit for bit in bits if isinstance(bit, int)), default=1)
        self.loads = np.zeros((self.nets + 1, 2))
        # An edge through a gate is six numbers: from, to, cell, delay table, slew table, arc.
        self.names, self.arcs, self.outputs, self.checks = [], [], {}, []
        self.holds = []
        # Of each net the number of its readers; of each edge the capacitance of its reader.
        self.fanout = np.zeros(self.nets + 1)
        self.readers = [np.zeros(0)]
        clocks, edges = set(), [np.zeros((0, 6), dtype=np.int64)]
        for kind, cells in sorted(by_type.items()):
            edges += self._read_type(kind, cells, clocks)
        if len(clocks) > 1:
            raise ToolError("Timing: the flip-flops have more than one clock")
        self.clock = clocks.pop() if clocks else None
        self.edges, self.readers = np.concatenate(edges), np.concatenate(self.readers)

    def _all_ports(self, direction=None):
        return [port for port in self.module["ports"].values()
                if direction in (None, port["direction"])]

    def _read_type(self, kind, cells, clocks):
        """Yields the edges of all cells of one type, an array over the cells for each arc."""
        cell = self.library.cells.get(kind)
        if cell is None or cell.unused and not cell.arcs:
            what = cell.unused if cell else "not a cell of the library"
            raise ToolError(f"Timing: {cells[0][0]} is {kind}, {what}")
        first = len(self.names)
        self.names += [(name, kind) for name, _ in cells]
        pins = {}
        for pin in [*cell.inputs, *cell.functions]:
            # Constants and open pins share a net of their own, at which no edge arrives.
            nets = [connections.get(pin, ["x"])[0] for _, connections in cells]
            pins[pin] = np.array([net if isinstance(net, int) else self.nets for net in nets])
        for pin, capacitance in (cell.inputs | cell.loads).items():
            np.add.at(self.loads, pins[pin], capacitance)
        for pin in cell.inputs:
            np.add.at(self.fanout, pins[pin], 1)
        numbers = np.arange(first, first + len(cells))
        for arc in cell.arcs:
            if arc.kind == "setup_rising":
                self.checks.append((pins[arc.pin], numbers, arc))
            elif arc.kind == "hold_rising":
                self.holds.append((pins[arc.pin], numbers, arc))
            elif arc.kind in ("setup_falling", "falling_edge"):
                raise ToolError(f"Timing: {cells[0][0]} is {kind}, not clocked by the rising edge")
            if arc.kind == "rising_edge":
                clocks |= set(pins[arc.related].tolist())
                for number, net in zip(numbers.tolist(), pins[arc.pin].tolist(), strict=True):
                    if net < self.nets:
                        self.outputs.setdefault(number, net)
                yield from self._edges(arc, np.full(len(cells), self.nets), pins[arc.pin], numbers,
                                       (0.0, 0.0))
            elif arc.kind in COMBINATIONAL:
                yield from self._edges(arc, pins[arc.related], pins[arc.pin], numbers,
                                       cell.inputs.get(arc.related, (0.0, 0.0)))

    def _edges(self, arc, sources, targets, numbers, capacitance):
        used = targets < self.nets
        for start, end in SENSES[arc.sense]:
            tables = [arc.tables.get(name.format(EDGES[end])) for name in
                      ("cell_{}", "{}_transition")]
            # Only the rising edge of the clock starts a flip-flop.
            if None in tables or (arc.kind == "rising_edge" and start == FALL):
                continue
            self.arcs.append(arc)
            self.readers.append(np.full(int(used.sum()), capacitance[start]))
            same = [np.full(len(numbers), x) for x in (*tables, len(self.arcs) - 1)]
            yield np.stack([2 * sources + start, 2 * targets + end, numbers, *same], axis=1)[used]

    def _sum_loads(self, output_load):
        for port in self._all_ports("output"):
            for bit in port["bits"]:
                if isinstance(bit, int):
                    self.loads[bit] += output_load
                    self.fanout[bit] += 1
        self.output_load = output_load
        self.wires = WireLoad.of(self.library)
        if self.wires:
            # The clock is ideal, and the last row stands for no net.
            self.fanout[[self.nets, *([] if self.clock is None else [self.clock])]] = 0
            self.loads += (self.wires.length(self.fanout) * self.wires.capacitance)[:, None]

    def _wire(self, nodes, readers):
        """Delay of the wires from nodes to readers with these capacitances."""
        if self.wires is None:
            return 0.0
        nets = np.minimum(nodes // 2, self.nets)
        return self.wires.delay(self.fanout[nets], self.loads[nets, nodes % 2], readers)

    def _sort_by_level(self):
        sources, targets = self.edges[:, 0] // 2, self.edges[:, 1] // 2
        inner = sources < self.nets
        pairs = np.unique(np.stack([sources[inner], targets[inner]], axis=1), axis=0)
        first = np.searchsorted(pairs[:, 0], np.arange(self.nets + 1))
        waiting = np.bincount(pairs[:, 1], minlength=self.nets)
        level = np.zeros(self.nets, dtype=np.int64)
        ready = np.flatnonzero(waiting == 0)
        depth = 0
        while len(ready):
            level[ready] = depth
            after = np.concatenate([pairs[first[net]:first[net + 1], 1] for net in ready])
            np.subtract.at(waiting, after, 1)
            ready = np.unique(after[waiting[after] == 0])
            depth += 1
        if waiting.any():
            self._refuse_loop(pairs[(waiting[pairs] > 0).all(axis=1)])
        order = np.lexsort((self.edges[:, 1], level[targets]))
        self.edges, self.level, self.readers = self.edges[order], level, self.readers[order]
        self.starts = np.searchsorted(level[targets[order]], np.arange(depth + 1))

    def _refuse_loop(self, pairs):
        # Every net that still waits has another before it, so walking back must close a loop.
        before = dict(zip(pairs[:, 1].tolist(), pairs[:, 0].tolist(), strict=True))
        net, seen = next(iter(before)), []
        while net not in seen:
            seen.append(net)
            net = before[net]
        names = self.net_names()
        loop = [names.get(net, "") for net in seen[seen.index(net):]]
        through = ", ".join(name for name in loop if name) or "nets without a name"
        raise ToolError(f"Timing: {len(loop)} gates form a loop, through {through}")

    def _propagate(self):
        size = 2 * (self.nets + 1)
        self.slew = np.full(size, -np.inf)
        # Row 0: arrivals from registers; row 1: arrivals from inputs.
        self.arrival = np.full((2, size), -np.inf)
        self.delay = np.zeros(len(self.edges))
        self._start()
        loads = self.loads.reshape(-1)
        for low, high in zip(self.starts[:-1], self.starts[1:], strict=True):
            sources, targets, _, delays, slews, _ = self.edges[low:high].T
            known = np.isfinite(self.slew[sources])
            slew = np.where(known, self.slew[sources], 0.0)
            load = loads[targets]
            delay = self.library.lookup(delays, slew, load)
            slew = np.where(known, self.library.lookup(slews, slew, load), -np.inf)
            delay = delay + self._wire(sources, self.readers[low:high])
            self.delay[low:high] = delay
            # Edges that end at the same node are adjacent.
            groups = np.flatnonzero(np.diff(targets, prepend=-1))
            if not len(groups):
                continue
            ends = targets[groups]
            self.slew[ends] = np.maximum.reduceat(slew, groups)
            self.arrival[:, ends] = np.maximum.reduceat(
                self.arrival[:, sources] + delay, groups, axis=1)

    def hold(self):
        """The smallest slack of hold times from register to register, and where the path ends."""
        early = np.full(len(self.slew), np.inf)
        early[2 * self.nets + RISE] = 0.0
        for low, high in zip(self.starts[:-1], self.starts[1:], strict=True):
            sources, targets = self.edges[low:high, 0], self.edges[low:high, 1]
            if high > low:
                np.minimum.at(early, targets, early[sources] + self.delay[low:high])
        worst, where = None, ""
        for nets, numbers, arc in self.holds:
            for edge in (RISE, FALL):
                table = arc.tables.get(f"{EDGES[edge]}_constraint")
                nodes = 2 * nets + edge
                reached = np.isfinite(early[nodes])
                if table is None or not reached.any():
                    continue
                nodes, cells = nodes[reached], numbers[reached]
                kind = self.library.cells[self.names[cells[0]][1]]
                hold = self.library.lookup(np.full(len(nodes), table), self.slew[nodes],
                                           np.zeros(len(nodes)))
                slack = early[nodes] + self._wire(nodes, kind.inputs[arc.pin][edge]) - hold
                i = int(slack.argmin())
                if worst is None or slack[i] < worst:
                    worst, where = float(slack[i]), self._register(cells[i], self.net_names())
        return worst, where

    def violations(self):
        """Pins whose load or slew is larger than the library allows."""
        names, found = self.net_names(), []
        slews = self.slew.reshape(-1, 2).max(axis=1)
        loads = self.loads.max(axis=1)
        for kind, cells in sorted(self.by_type.items()):
            cell = self.library.cells[kind]
            group, header = cell.header.group, cell.header
            for pin in (*cell.inputs, *cell.functions):
                nets = np.array([net for _, pins in cells for net in pins.get(pin, ["x"])[:1]
                                 if isinstance(net, int) and net != self.clock], dtype=int)
                limits = {"max_transition": (slews, cell.max_transition, header.ns)}
                if pin in cell.functions:
                    limits["max_capacitance"] = loads, cell.max_capacitance, header.ff
                for attribute, (values, given, unit) in limits.items():
                    default = group.number(f"default_{attribute}", np.inf) * unit
                    limit = given.get(pin, default)
                    beyond = nets[values[nets] > limit * (1 + 1e-9)]
                    found += [Violation(attribute, kind, pin, names.get(net, ""),
                                        float(values[net]), limit) for net in beyond.tolist()]
        return sorted(found, key=lambda one: (one.kind, -one.value / one.limit, one.net, one.pin))

    def _start(self):
        """Sets arrivals and slews of the clock and of the inputs, behind their driver."""
        start = 2 * self.nets + RISE
        self.slew[start] = self.arrival[0, start] = 0.0
        nets = {bit for port in self._all_ports("input") for bit in port["bits"]} - {self.clock}
        nets = np.array(sorted(nets), dtype=np.int64)
        for arc in self.library.cells[self.library.driver].arcs:
            for _, end in SENSES[arc.sense]:
                load = self.loads[nets, end]
                delays, slews = (np.full(len(nets), arc.tables[name.format(EDGES[end])])
                                 for name in ("cell_{}", "{}_transition"))
                lookup, zero = self.library.lookup, np.zeros(len(nets))
                self.slew[2 * nets + end] = lookup(slews, zero, load)
                self.arrival[1, 2 * nets + end] = (
                    lookup(delays, zero, load) - lookup(delays, zero, zero))

    def net_names(self):
        """Names that the source gives to nets; a port's name comes first, then the shortest."""
        names = {}
        ports = self.module["ports"]
        visible = [(name not in ports, name.count("."), len(name), name)
                   for name, net in self.module["netnames"].items() if not net["hide_name"]]
        for *_, name in sorted(visible):
            net = self.module["netnames"][name]
            for i, bit in enumerate(net["bits"], start=net.get("offset", 0)):
                names.setdefault(bit, f"{name}[{i}]" if len(net["bits"]) > 1 else name)
        return names

    def paths(self):
        """The slowest path of each kind."""
        names = self.net_names()
        paths = {}
        for kind, (origin, ends) in zip(
            CLASSES, [(0, self._to_registers), (1, self._to_registers),
                      (0, self._to_outputs), (1, self._to_outputs)], strict=True,
        ):
            slowest = max(ends(origin, names), default=None)
            if slowest and np.isfinite(slowest[0]):
                delay, node, endpoint, setup = slowest
                startpoint, steps = self._trace(origin, node, names)
                if setup:
                    cell, pin = setup
                    steps.append({"cell": cell, "pin": f"{pin} setup", "edge": EDGES[node % 2],
                                  "arrival_ns": delay, "net": ""})
                paths[kind] = Path(kind=kind, delay_ns=delay, startpoint=startpoint,
                                   endpoint=endpoint, steps=steps)
        return paths

    def _to_outputs(self, origin, names):
        for port in self._all_ports("output"):
            for bit in port["bits"]:
                if isinstance(bit, int):
                    for node in (2 * bit, 2 * bit + 1):
                        wire = self._wire(np.array([node]), self.output_load)
                        yield (float(np.sum(self.arrival[origin, node] + wire)), node, names[bit],
                               ())

    def _to_registers(self, origin, names):
        for nets, numbers, arc in self.checks:
            for edge in (RISE, FALL):
                table = arc.tables.get(f"{EDGES[edge]}_constraint")
                nodes = 2 * nets + edge
                reached = np.isfinite(self.arrival[origin, nodes])
                if table is None or not reached.any():
                    continue
                nodes, cells = nodes[reached], numbers[reached]
                setup = self.library.lookup(np.full(len(nodes), table), self.slew[nodes],
                                            np.zeros(len(nodes)))
                kind = self.library.cells[self.names[cells[0]][1]]
                total = (self.arrival[origin, nodes] + setup
                         + self._wire(nodes, kind.inputs[arc.pin][edge]))
                i = int(total.argmax())
                yield (float(total[i]), int(nodes[i]), self._register(cells[i], names),
                       (self.names[cells[i]][1], arc.pin))

    def _register(self, number, names):
        return names.get(self.outputs.get(number), self.names[number][0])

    def _trace(self, origin, node, names):
        steps = []
        while True:
            low, high = self._edges_to(node)
            sources = self.edges[low:high, 0]
            arrivals = self.arrival[origin, sources] + self.delay[low:high]
            net = names.get(node // 2, "")
            if not np.isfinite(arrivals.max(initial=-np.inf)):
                steps.append(self._step("", "input", node, origin, net))
                return net, steps[::-1]
            edge = self.edges[low + int(arrivals.argmax())]
            number, arc = edge[2], self.arcs[edge[5]]
            steps.append(self._step(
                self.names[number][1], f"{arc.related}->{arc.pin}", node, origin, net))
            node = edge[0]
            if node // 2 == self.nets:
                return self._register(number, names), steps[::-1]

    def _edges_to(self, node):
        level = self.level[node // 2]
        low, high = self.starts[level:level + 2]
        return low + np.searchsorted(self.edges[low:high, 1], [node, node + 1])

    def _step(self, cell, pin, node, origin, net):
        return {"cell": cell, "pin": pin, "edge": EDGES[node % 2],
                "arrival_ns": float(self.arrival[origin, node]), "net": net}
