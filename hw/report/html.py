# SPDX-License-Identifier: BSD-2-Clause
"""All figures on one HTML page: ``python -m hw.synth --report FILE``.

The page needs nothing else: no network, no script, no file beside it.
"""

import shlex
from html import escape
from typing import Any

from golden import command

from .. import registry
from ..flow import power, timing
from ..flow.fpga import find_family
from ..flow.liberty import find_library
from ..tools import cache as kept
from ..tools.errors import ToolError
from ..tools.files import make_folder, write
from . import comparison, figures, fpga, gather, published, sweep, text_tables
from .markup import COLORS as _COLORS
from .markup import document
from .markup import images as _images
from .markup import line as _line
from .markup import pre as _pre
from .markup import stack as _stack
from .markup import swatch as _swatch
from .markup import table as _table
from .markup import text as _text
from .sweep import Point


def main(options: Any) -> None:
    """Writes the page that the options of `hw.synth` ask for.

    Parameters
    ----------
    options : argparse.Namespace
        With ``report``, the file, and ``library``.

    Raises
    ------
    ValueError
        If there are other options, or matplotlib is missing.
    ToolError
        If the library cannot be read, a tool fails or the page cannot be written.
    Interrupted
        If the user stops it.
    """
    path = options.report
    _refuse_options(options)
    command.check_matplotlib("--report")
    library = find_library(options.library, options.driver)
    make_folder(path.parent, f"write --report {path}")
    command.check_output(path, "--report")
    kept.prepare("keep points")
    family = None if options.fpga is None else find_family(options.fpga)
    try:
        results = gather.results(library)
        if family:
            results["fpga"] = fpga.gathered(family)
    except KeyboardInterrupt:
        raise command.Interrupted("interrupted: what is done is kept; the same command goes on "
                                  "from there") from None
    words = ["python", "-m", "hw.synth", "--report", str(path)]
    if options.library != "nangate45":
        words += ["--library", options.library]
    if options.driver:
        words += ["--driver", options.driver]
    if options.fpga is not None:
        words += ["--fpga", options.fpga]
    try:
        write(path, page(results | {"command": shlex.join(words)}))
    except OSError as error:
        raise ToolError(f"cannot write --report {path}: {error.strerror}") from None
    print(f"Report in {path}.")


def _refuse_options(options):
    for name in ("units", "config", "set", "flatten", "amap", "compare", "columns", "power",
                 "clock", "json", "sweep", "csv", "plot", "fresh", "scheduler", "map_options",
                 "seed"):
        if (given := getattr(options, name)) not in (None, False, []):
            raise ValueError("--report chooses units itself; leave out "
                             + (given[0] if name == "units" else f"--{name.replace('_', '-')}"))


def page(results: dict[str, Any]) -> str:
    """Makes the page from figures.

    Parameters
    ----------
    results : dict
        From `gather.results`, with the text of the ``command`` and, for a section of it, ``fpga``
        from `hw.report.fpga.gathered`.

    Returns
    -------
    str
        HTML.
    """
    sections = (("units", "Units", _units), ("breakdown", "Area by submodule", _breakdown),
                ("curves", "Delay and area over depth and columns", _curves),
                ("formats", "Formats side by side", _formats), ("power", "Power", _power),
                *([("fpga", "On an FPGA", _fpga)] if "fpga" in results else []),
                ("published", "Published figures", _published), ("paths", "Slowest paths", _paths),
                ("flow", "How it was measured", _flow))
    library = results["library"]["name"]
    return document("m2xfp-rtl: area, timing and power", (
        f"Library {library}, before layout, without wires and clock tree. A: mapped for area. T: "
        "mapped for delay. The end of the page describes the flow, which is the same for all "
        "figures."), [(key, title, "".join(make(results))) for key, title, make in sections])


def _units(results):
    """The table of units, and the table of areas per tile."""
    rows, tiles = [], []
    for name in registry.UNITS:
        unit = results["measured"][gather.point(name)]
        share = unit["sequential_area_um2"] / unit["area_um2"] if unit["area_um2"] else 0
        rows.append((_starred(name, unit), _parameters(unit), unit["cells"],
                     f"{unit['area_um2']:.0f}", f"{unit['area_timed_um2']:.0f}",
                     unit["flip_flops"], f"{share:.0%}", _ns(unit["delay_ns"]),
                     _line(unit["path_class"] or "-"), _ns(unit["io_delay_ns"]),
                     "-" if unit["fmax_io_mhz"] is None else f"{unit['fmax_io_mhz']:.0f}",
                     unit["memory_bits"] or ""))
    for chosen in gather.unique([*(gather.point(name) for name in registry.UNITS),
                                 *gather.array_points()]):
        unit = results["measured"][chosen]
        if unit["tiles"]:
            tiles.append((_starred(chosen.label, unit), _parameters(unit), unit["tiles"],
                          f"{unit['area_per_tile_um2']:.0f}",
                          f"{unit['area_timed_um2'] / unit['tiles']:.0f}",
                          f"{unit['flip_flops'] / unit['tiles']:.1f}"))
    yield _table(("unit", "parameters", "cells", "area A um2", "area T um2", "flip-flops",
                  "their share of A", "delay T ns", "path", "I/O delay T ns",
                  "clock with registered ports MHz", "memory bits, not in area"), rows,
                 left=(0, 1, 8))
    yield _text("Delay: the clock period, from register to register with clock-to-output and "
                "setup times; in a unit without such paths, the slowest of in-reg, reg-out and "
                "in-out. I/O delay: the slowest of in-reg, reg-out and in-out. Inputs arrive at 0 "
                f"ns behind {results['library']['driver']}; the load on an output is "
                f"{timing.OUTPUT_LOAD:g} fF. *: mapped module by module; no logic is shared and no "
                "cell is sized across modules. Memories are left out; their pins count as ports.")
    yield "<h3>For each 8-MAC tile, with all that is around it</h3>"
    yield _table(("unit", "parameters", "tiles", "area A um2", "area T um2", "flip-flops"), tiles,
                 left=(0, 1))


def _breakdown(results):
    yield _text("Area A of all instances of a submodule, without its own submodules. Here all "
                "units are mapped module by module, so that no logic is shared across modules, "
                "and the name of each cell of the flat netlist tells its instance. Elsewhere on "
                "this page, units without * are mapped as a whole, so the sum here differs from "
                "their area there.")
    for chosen, parts in results["parts"].items():
        unit = results["measured"][chosen]
        total = sum(part["area_um2"] for part in parts.values())
        ordered = sorted(parts.items(), key=lambda item: -item[1]["area_um2"])
        colored = [(name, part, _COLORS[i] if i < len(_COLORS) else "#bbb")
                   for i, (name, part) in enumerate(ordered)]
        yield f"<h3>{escape(_starred(chosen.label, unit))}: {total:.0f} um2</h3>"
        yield _stack([(name or "in the unit itself", part["area_um2"] / (total or 1), color)
                      for name, part, color in colored])
        rows = [(_swatch(color), name or "in the unit itself", part["module"], part["instances"],
                 f"{part['area_um2'] / part['instances']:.1f}", f"{part['area_um2']:.1f}",
                 f"{part['area_um2'] / (total or 1):.1%}") for name, part, color in colored]
        rows.append(("", "sum", "", "", "", f"{total:.1f}", ""))
        if not unit["hierarchical"]:
            rows.append(("", "mapped as a whole", "", "", "", f"{unit['area_um2']:.1f}", ""))
        yield _table(("", "submodule", "module", "instances", "each um2", "area A um2", "share"),
                     rows, left=(0, 1, 2))


def _curves(results):
    measured, curves = results["measured"], {}
    for name in gather.deep_units():
        rows, curves[name] = [], {}
        for format, depth, chosen in gather.depths(name):
            unit, slowest = measured[chosen], sweep.slowest(measured[chosen])
            rows.append((format, depth, f"{unit['area_um2']:.0f}", f"{unit['area_timed_um2']:.0f}",
                         unit["flip_flops"], _ns(slowest)))
            curves[name].setdefault(format, []).append((depth, slowest, unit["area_timed_um2"]))
        yield f"<h3>{escape(name)} over its pipeline depth</h3>"
        yield _table(("format", "depth", "area A um2", "area T um2", "flip-flops",
                      "slowest path T ns"), rows, left=(0,))
    yield _images([figures.depths(name, of_unit) for name, of_unit in curves.items()],
                  "Area T over the slowest path, one point per depth")
    rows, points = [], []
    for chosen in gather.array_points():
        unit, slowest = measured[chosen], sweep.slowest(measured[chosen])
        columns = unit["parameters"]["columns"]
        rows.append((columns, unit["tiles"], f"{unit['area_um2']:.0f}",
                     f"{unit['area_per_tile_um2']:.0f}",
                     f"{unit['area_timed_um2'] / unit['tiles']:.0f}", _ns(slowest)))
        points.append((columns, unit["area_per_tile_um2"], slowest))
    yield "<h3>mac_array* over its columns</h3>"
    yield _table(("columns", "8-MAC tiles", "area A um2", "A per tile um2", "T per tile um2",
                  "slowest path T ns"), rows, left=())
    yield _images(figures.columns(points), "Area per tile and slowest path over columns")
    yield _text("Slowest path: of all paths, including those from and to ports.")


def _formats(results):
    compared = _compared(results)[1]
    rows = []
    for part, format, label, count, values, ratios in compared:
        texts = (power.amount(value, digits)
                 for value, digits in zip(values, comparison.DIGITS, strict=True))
        rows.append((part, _line(f"{_swatch(figures.FORMATS[format])} {escape(format)}"), label,
                     f"{count:g}", *(text for pair in zip(texts, ratios, strict=True)
                                     for text in pair)))
    yield _table(("", "format", "unit", "count", "area A um2", "ratio", "delay T ns", "ratio",
                  "energy fJ", "ratio"), rows, left=(0, 1, 2))
    yield _text("Area: of all units of the row; the count makes the rows of a part do the same "
                "work. Delay: the slowest of all paths, including those from and to ports. Energy: "
                "of one MAC or one quantized value under real activity. Ratio: to MXFP4.")
    yield _images(figures.formats(compared), "Area, delay and energy of each format")


def _compared(results):
    rows = [(part, format, name, gather.point(name, settings).settings, count)
            for part, format, name, settings, count in comparison.format_units(gather.COLUMNS)]
    units = {Point(name, settings).label: results["measured"][Point(name, settings)]
             for _, _, name, settings, _ in rows}
    return comparison.compare(rows, {"units": units})


def _power(results):
    units = {"units": {name: results["measured"][gather.point(name)] for name in power.UNITS}}
    head, below, *rows = power.rows(units)
    # The two rows of headings of the text table, in one row.
    head = [" ".join(filter(None, pair)).replace(") uW", " uW)")
            for pair in zip(head, below, strict=True)]
    yield _table(head, rows, left=(0, 1, 11))
    yield _text(" ".join((*power.legend(units), *power.COLUMNS)))


def _fpga(results):
    units = results["fpga"]["units"]
    yield _table(("unit", "LUTs", "flip-flops", "multipliers", "block RAMs", "Fmax MHz",
                  "clock with registered ports MHz", "path", "slowest path"),
                 [(*row[:7], _line(row[7]), row[9]) for label, unit in units.items()
                  for row in [fpga.cells(label, unit)]], left=(0, 7, 8))
    yield _text(" ".join(fpga.legend(results["fpga"])).strip())


def _published(results):
    rows, base = [], None
    for figure in published.PAPER:
        ours = figure.measured(results["measured"])
        if base is None:
            base = figure.value, ours
        digits = 3 if figure.unit == "mW" else 1
        rows.append((figure.name, figure.unit, f"{figure.value:g}",
                     f"{figure.value / base[0]:.2f}" if figure.is_tile else "",
                     figure.label, f"{ours:.{digits}f}",
                     f"{ours / base[1]:.2f}" if figure.is_tile else ""))
    array = results["measured"][gather.point("mac_array")]
    rows.append(("-", "um2", "-", "", "mac_array, for each 8-MAC tile",
                 f"{array['area_per_tile_um2']:.1f}", ""))
    yield "<h3>The paper's, 28 nm, 500 MHz</h3>"
    clock = f"{power.CLOCK:g}"
    yield _text("Hu et al., M2XFP, ASPLOS 2026: 28 nm with proprietary tools. Ours: "
                f"{results['library']['name']} with open tools, area A, power under real activity "
                f"at {clock} MHz. The nodes differ, and nothing here is scaled from one to the "
                "other: compare ratios inside a column, not one column with the other. Our "
                "pe_tile computes an exact integer and does not accumulate. The figure of "
                "mac_array includes all accumulators; four tiles share one.")
    yield _table(("figure", "in", "paper, 28 nm", "ratio to MXFP4", "our unit",
                  f"ours, {results['library']['name']}", "ratio to MXFP4"), rows, left=(0, 1, 4))
    yield "<h3>Open RTL of others</h3>"
    yield _text("We measured these figures once with the same recipes, Yosys 0.70 and Nangate 45 "
                "nm; they are quoted here, not printed by this command. Area A and delay T are as "
                "above, but the delay is without clock-to-output and setup times. The remarks say "
                "what our tests of this RTL found.")
    yield _table(("unit", "area A um2", "delay T ns", "remark"),
                 [(other.name, f"{other.area_um2:g}", f"{other.delay_ns:g}", other.remark)
                  for other in published.OPEN_RTL], left=(0, 3))


def _paths(results):
    for name in registry.UNITS:
        unit = results["measured"][gather.point(name)]
        if not unit["path"]:
            yield _text(f"{name}: no path.")
            continue
        yield (f"<details><summary>{escape(_starred(name, unit))}: {_ns(unit['delay_ns'])} ns, "
               f"{escape(unit['path_class'])}, {escape(unit['startpoint'])} to "
               f"{escape(unit['endpoint'])}</summary>\n")
        yield _table(("cell", "pins", "edge", "arrival ns", "net"), [
            (step["cell"], step["pin"], step["edge"], _ns(step["arrival_ns"]), step["net"])
            for step in unit["path"]], left=(0, 1, 2, 4))
        yield "</details>\n"


def _flow(results):
    library, scripts = results["library"], results["script"]
    yield _text("Command:") + _pre(results["command"])
    yield _table(("", ""), [("library", library["name"]), ("its sha256", library["sha256"]),
                            *results["versions"].items()], left=(0, 1))
    if different := text_tables.unlike_published():
        yield _text(different.strip())
    yield _text("The flow maps the emitted Verilog. These are the scripts for all units, with "
                "placeholders for a unit's name and options:")
    for kind, text in scripts.items():
        yield f"<h3>{escape(kind)}</h3>" + _pre(text)
    yield "<h3>The complete Yosys script of each unit</h3>"
    for name in registry.UNITS:
        yield (f"<details><summary>{escape(name)}</summary>"
               f"{_pre(results['measured'][gather.point(name)]['script'])}</details>\n")


def _starred(name, unit):
    return name + "*" * unit["hierarchical"]


def _parameters(unit):
    return ", ".join(f"{key}={value}" for key, value in unit["parameters"].items())


def _ns(delay):
    return "-" if delay is None else f"{delay:.3f}"
