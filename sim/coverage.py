# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""Coverage of the emitted Verilog: lines, branches, bits that toggle, states of control machines.

Verilator counts while a unit's stimuli run and every output is compared with golden, so that only
what was also checked is covered.

=========  ======================================================================================
Lines      Of ``always`` blocks and of choices; plain assignments are always evaluated.
Branches   Both sides of each ``if`` and ``?:``, and each item of a ``case``.
Toggles    Both edges of each bit of each signal. Not counted are memories, and wires that only
           gather bits that nothing reads.
States     Each state of each control machine.
=========  ======================================================================================
"""

import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from golden import stimuli
from hw import registry
from hw.tools.packing import length
from hw.verilog.emit import verilog

from . import bus, waivers
from .accelerator import accelerate, golden_config
from .evidence import digest, head
from .runner import SimulationError, mismatches, run

KINDS = ("lines", "branches", "toggles", "states")

SMALL = {"mac_array": ["columns=4"], "nvfp4_array": ["columns=4"], "accelerator": ["config=tiny"],
         "axi_accelerator": ["config=lite"]}
"""Settings of units whose defaults take long to build; their modules are those of the defaults."""

# Stalls of the rounds that a unit's stimuli run in.
_STALLS = (0.0, 0.3, 0.8)

# Commands of a round of an accelerator, and products of elements up to which one is drawn.
_COMMANDS = 24
_LARGEST = 2**16


@dataclass(frozen=True, order=True)
class Point:
    """One thing that can be covered.

    Attributes
    ----------
    module : str
        Without the unit's name, which begins all others: "" is the unit itself.
    kind : str
        One of `KINDS`.
    line : int
        Of the module, which begins with line 1.
    what : str
        The outcome of a branch such as "else", a bit with its edge, a state, or "".
    text : str
        The line of Verilog.
    """

    module: str
    kind: str
    line: int
    what: str
    text: str


@dataclass
class Coverage:
    """What the runs of a unit covered.

    Attributes
    ----------
    unit : str
    settings : list of str
        Parameters other than the defaults.
    digest : str
        SHA-256 of the unit's Verilog without its header.
    transfers : int
        Results that were compared.
    counts : dict of Point to int
        How often each point was seen.
    waived : dict of Point to Waiver
        Points that cannot be seen.
    """

    unit: str
    settings: list[str]
    digest: str = ""
    transfers: int = 0
    counts: dict[Point, int] = field(default_factory=dict)
    waived: dict[Point, waivers.Waiver] = field(default_factory=dict)

    def missed(self, *kinds: str) -> list[Point]:
        """Points of these kinds that were not seen and are not waived."""
        return sorted(point for point, count in self.counts.items()
                      if not count and point.kind in kinds and point not in self.waived)

    def figures(self) -> dict[str, dict[str, list[int]]]:
        """Points seen, waived and all, by module and kind."""
        found: dict[str, dict[str, list[int]]] = defaultdict(
            lambda: {kind: [0, 0, 0] for kind in KINDS})
        for point, count in self.counts.items():
            cell = found[point.module][point.kind]
            cell[0] += bool(count)
            cell[1] += point in self.waived
            cell[2] += 1
        return dict(sorted(found.items()))


def measure(name: str, settings: Sequence[str] = (), *, count: int = 500, seed: int = 0,
            progress: Callable[[int, int], Any] | None = None) -> Coverage:
    """Runs a unit's stimuli, compares every output with golden, and counts what was covered.

    Parameters
    ----------
    name : str
        Of a unit or an assembly in the registry.
    settings : sequence of str
        As in `hw.registry.parameters`.
    count : int
        Transfers of each of three rounds, which differ in their stalls. An accelerator runs a tenth
        of them as commands, at least 24, and its registers the same through the bus.
    seed : int
    progress : callable, optional
        Called with the rounds that are done and their total.

    Returns
    -------
    Coverage

    Raises
    ------
    ValueError
        If the registry does not offer the unit or a setting, or a waiver matches nothing that was
        missed, or what was seen.
    SimulationError
        If an output is not golden's, or there is no Verilator or C++ compiler.
    """
    units = registry.offered()
    chosen = registry.parameters(name, settings, units=units)
    component = units[name].component(**chosen)
    result = Coverage(name, list(settings), digest(component, name))
    text = verilog(component, "unit")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "coverage.dat"
        for number, stalls in enumerate(_STALLS):
            rng = np.random.default_rng(list(f"{seed} {name} {number}".encode()))
            options: dict[str, Any] = {"stalls": stalls, "seed": seed + number, "coverage": path}
            if name == "axi_accelerator":
                result.transfers += bus.run(component, rng, max(_COMMANDS, count // 10), **options)
            elif name == "accelerator":
                result.transfers += _commands(component, rng, max(_COMMANDS, count // 10), options)
            else:
                result.transfers += _transfers(component, units[name], chosen, rng, count, options)
            for point, seen in points(path, text).items():
                result.counts[point] = result.counts.get(point, 0) + seen
            if progress:
                progress(number + 1, len(_STALLS))
    result.waived = waivers.apply(" ".join([name, *settings]), result.counts, text)
    return result


def _transfers(component, unit, chosen, rng, count, options):
    """Runs a unit's stimuli; returns the number of results."""
    inputs = unit.stimuli(rng, count, **chosen)
    expected = unit.reference(inputs, **chosen)
    counts = {port: length(rows) for port, rows in (inputs | expected).items()}
    outputs = run(component, inputs, outputs={port: counts[port] for port in expected}
                  if len({*counts.values()}) > 1 else None,
                  **options)
    if wrong := int(mismatches(outputs, expected).sum()):
        raise SimulationError(f"{wrong} of {count} transfers differ from golden's")
    return count


def _commands(component, rng, count, options):
    """Runs random commands on an accelerator; returns the number of results."""
    config = golden_config(component.config)
    commands = stimuli.products(rng, count, config, largest=_LARGEST) + stimuli.edges(rng, config)
    with np.errstate(all="ignore"):
        products = accelerate(commands, component=component, **options)
    if wrong := sum(product.mismatches for product in products):
        raise SimulationError(f"{wrong} transfers of {count} commands differ from golden's")
    return len(commands) + sum(product.rows for product in products)


_FIELD = re.compile("\x01([^\x02]*)\x02([^\x01']*)")


def points(path: Path, text: str) -> dict[Point, int]:
    """Reads a file that Verilator wrote.

    Parameters
    ----------
    path : Path
    text : str
        The Verilog of which it is, with "unit" as the name of the top module.

    Returns
    -------
    dict of Point to int
        How often each point was seen.
    """
    lines = text.splitlines()
    starts: dict[str, int] = {}
    for number, line in enumerate(lines):
        if found := re.match(r"module (\w+)", line):
            starts[found[1]] = number
    counts: dict[Point, int] = defaultdict(int)

    def add(module, kind, line, what, seen):
        if (source := lines[line - 1].strip()).startswith("wire unused = "):
            return
        if source.startswith("default:"):
            # Which case it is of.
            before = next(place for place in range(line - 1, 0, -1)
                          if lines[place].lstrip().startswith("case "))
            source = f"{lines[before].strip()} {lines[before + 1].strip()} ... {source}"
        if source.startswith("end else if"):
            # Others may have the same condition.
            source = f"{source} {lines[line].strip()}"
        name = module.removeprefix("unit").removeprefix("_")
        counts[Point(name, kind, line - starts[module], what, source)] += seen

    for entry in path.read_text(encoding="utf-8").splitlines():
        if not entry.startswith("C "):
            continue
        fields = dict(_FIELD.findall(entry))
        seen = int(entry.rpartition(" ")[2])
        page, _, module = fields["page"].partition("/")
        place, what = int(fields["l"]), fields["o"]
        if page == "v_toggle":
            add(module, "toggles", place, what.replace("___05F", "__"), seen)
        elif page == "v_user":
            add(module, "states", place, " ".join(what.split("_")[1:]), seen)
        else:
            if what != "block":
                add(module, "branches", place, what, seen)
            # Of a condition within an expression there is no line of its own.
            if not what.startswith("cond_"):
                for spanned in _numbers(fields.get("S", "")):
                    add(module, "lines", spanned, "", seen)
    return dict(counts)


def _numbers(text):
    """Numbers of a list such as "3,5-7"."""
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def table(coverage: Iterable[Coverage]) -> str:
    """Figures of each module as lines of text, and what was missed."""
    lines = []
    for each in coverage:
        title = " ".join([each.unit, *each.settings])
        lines.append(f"{title}: {each.transfers:,} results compared")
        lines.append(f"  {'module':<28}" + "".join(f"{kind:>16}" for kind in KINDS))
        for module, cells in each.figures().items():
            lines.append(f"  {module or '(top)':<28}" + "".join(
                f"{cell(*cells[kind]):>16}" for kind in KINDS))
        for point in each.missed("lines", "branches", "states"):
            lines.append(f"  missed: {place(point)}: {point.text}")
    return "\n".join(lines)


def place(point: Point) -> str:
    """Where a point is, in words."""
    what = f" ({point.what})" if point.what else ""
    return f"{point.module or 'top'}, line {point.line} of the module{what}"


def cell(seen: int, waived: int, total: int) -> str:
    """A figure as text: seen of all, and how many are waived."""
    return (f"{seen}/{total}" + f" +{waived}w" * bool(waived)) if total else "-"


def evidence(coverage: Coverage, *, count: int, seed: int) -> dict[str, Any]:
    """What was covered, for ``docs/evidence``; all types are those of JSON."""
    words = " ".join(["python -m sim coverage", coverage.unit,
                      *(f"--set {setting}" for setting in coverage.settings),
                      f"--count {count} --seed {seed}"])
    return head("coverage", command=words, seed=seed) | {
        "unit": coverage.unit, "settings": coverage.settings, "verilog": coverage.digest,
        "transfers": coverage.transfers, "modules": coverage.figures(),
        "missed": [f"{place(point)}: {point.text}"
                   for point in coverage.missed("lines", "branches", "states")],
        "waived": sorted({f"{place(point)}: {waiver.reason}"
                          f"{' Proven.' if waiver.always else ' Not proven.'}"
                          for point, waiver in coverage.waived.items()}),
        "untoggled": untoggled(coverage),
    }


def untoggled(coverage: Coverage) -> dict[str, str]:
    """Bits of which at least one edge was not seen, by module, such as ``sum[17:15], valid``."""
    bits: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for point in coverage.missed("toggles"):
        name, _, index = point.what.rpartition(":")[0].partition("[")
        bits[point.module][name].add(int(index.rstrip("]").rpartition("[")[2] or -1))
    return {module or coverage.unit: ", ".join(
        name + _ranges(numbers - {-1}) for name, numbers in sorted(names.items()))
        for module, names in sorted(bits.items())}


def _ranges(numbers):
    """Numbers of bits as ranges such as ``[7:4,0]``, or nothing."""
    ranges: list[list[int]] = []
    for number in sorted(numbers, reverse=True):
        if ranges and ranges[-1][1] == number + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    texts = [f"{high}:{low}" if high > low else str(high) for high, low in ranges]
    return f"[{','.join(texts)}]" if texts else ""
