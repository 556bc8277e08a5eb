"""All figures on one HTML page: ``python -m hw.synth --report FILE``.

The page needs nothing else: no network, no script, no file beside it.
"""

import base64
import io
import json
import shlex
import sys
from html import escape
from itertools import product
from pathlib import Path

from golden.command import check_matplotlib

from .. import registry
from ..flow import hierarchy_area, measurement, power, timing
from ..flow.liberty import find_library
from ..tools import cache as kept
from ..tools.files import make_folder, write
from ..tools.progress import progress
from ..tools.yosys import ToolError
from . import comparison, pareto, sweep
from .sweep import Interrupted, Point

BROKEN_DOWN = (Point("mac_array", ("columns=4",)), Point("group_mac", ()),
               Point("quantization_engine", ()), Point("accelerator", ("config=lite",)))
"""Units whose area is broken down by submodule."""

COLUMNS = "4"
"""Of the arrays in which formats are compared."""

FORMATS = {"MXFP4": "#0072b2", "NVFP4": "#d55e00", "M2XFP": "#009e73", "M2XFP Sg-EM": "#56b4e9",
           "M2XFP Sg-special": "#cc79a7"}
"""Formats and their colours in all drawings."""

# Told apart also by those who do not see all colours, and not the formats'; the rest is grey.
_COLORS = ("#332288", "#88ccee", "#117733", "#ddcc77", "#cc6677", "#44aa99", "#882255", "#999933",
           "#aa4499")

_METADATA = {"M2XFP": (), "MXFP4": ("metadata=False",)}

# Figure, unit in which it is, value, and what of ours does the same.
_PAPER = (
    ("PE tile, MXFP4", "um2", 2057.6, Point("pe_tile", ("metadata=False",))),
    ("PE tile, NVFP4", "um2", 2104.7, Point("nvfp4_pe_tile", ())),
    ("PE tile, M2XFP", "um2", 2140.1, Point("pe_tile", ())),
    ("top-1 decode unit", "um2", 82.91, Point("top1_decode", ())),
    ("quantization engine", "um2", 2451.47, Point("quantization_engine", ())),
    ("PE tile, M2XFP", "mW", 0.211, Point("pe_tile", ())),
    ("quantization engine", "mW", 0.663, Point("quantization_engine", ())),
)

# Area A in um2 and delay T in ns of what others have published as RTL.
_OTHERS = (
    ("paper's authors: top-1 detection", 172.9, 0.57, "ties between +x and -x go wrong"),
    ("paper's authors: encode unit, 1 subgroup", 419.5, 0.96,
     "no bias and clamp: 85 % of subgroups read back wrong"),
    ("paper's authors: quantization engine, 32 lanes, 4 encode units, combinational", 6886, 3.2,
     "17 % of FP4 codes wrong (subnormal range), no NaN"),
    ("paper's authors: PE tile with FP32 add", 7387, 5.28,
     "missing multiplier filled in; FP32 adder, multiplier and pipeline wrong"),
    ("the same for NVFP4", 6848, 4.84, ""),
    ("NVFP4 quantization engine, 32 lanes", 134387, 26, ""),
    ("cv32e40x-mxdotp M2XFP4 engine, 16 MACs, fused FP32, 5 stages", 12747, 2.62,
     "6373 um2 per 8 MACs; exact on 20,000 vectors; no NaN scale; flushes subnormal results"),
    ("the same, MXFP4", 10046, 2.08, "5023 um2 per 8 MACs"),
    ("MX-for-FPGA exact FP4 dot product, 8 lanes", 927, 1.04, "no metadata, integer out"),
    ("MX-for-FPGA bfloat16 to MXFP4, 32 lanes", 9433, 2.29, ""),
    ("nvfp4 16-lane dot product to FP32", 3562, 2.41, "formally verified; UE4M3 scales"),
)


class _Html(str):
    """Text that is HTML already; all other is escaped."""


def main(options):
    """Does what the options of `hw.synth` say; returns the exit status."""
    path = options.report
    try:
        _refuse_options(options)
        check_matplotlib("--report")
        library = find_library(options.library)
        make_folder(path.parent, f"write {path}")
        if path.is_dir():
            raise ToolError(f"cannot write {path}: Is a directory")
        make_folder(kept.folder(), "keep points in {}; M2XFP_CACHE_DIR sets another folder")
        results = gather(library)
        command = ["python", "-m", "hw.synth", "--report", str(path)]
        if options.library != "nangate45":
            command += ["--library", options.library]
        text = page(results | {"command": shlex.join(command)})
        try:
            write(path, text)
        except OSError as error:
            raise ToolError(f"cannot write {path}: {error.strerror}") from None
    except Interrupted as error:
        print(error, file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("interrupted: what is done is kept; the same command goes on from there",
              file=sys.stderr)
        return 130
    except (ValueError, ToolError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"Report in {path}.")
    return 0


def _refuse_options(options):
    for name in ("units", "set", "flatten", "amap", "compare", "columns", "power", "clock", "json",
                 "sweep", "csv", "plot", "fresh", "scheduler"):
        if (given := getattr(options, name)) not in (None, False, []):
            raise ValueError("--report chooses units itself; leave out "
                             + (given[0] if name == "units" else f"--{name}"))


def gather(library):
    """Measures all that the page shows, unless the cache has it.

    Parameters
    ----------
    library : Library

    Returns
    -------
    dict
        ``measured``, dict of Point to what `hw.flow.measurement.measure` gives; ``parts``, dict of
        Point to what `hw.flow.hierarchy_area.areas` gives; and what `hw.flow.measurement.describe`
        gives.

    Raises
    ------
    Interrupted, KeyboardInterrupt
        When the user ends it.
    ToolError
        If anything fails.
    """
    estimated = _unique([*(point(name) for name in power.UNITS),
                         *(point(name, settings)
                           for _, _, name, settings, _ in comparison.format_units(COLUMNS))])
    others = _unique([*(point(name) for name in registry.UNITS), *BROKEN_DOWN, *_array_points(),
                      *(chosen for unit in _deep_units() for _, _, chosen in _depths(unit))])
    measured = {}
    for points, with_power in ((estimated, True), ([p for p in others if p not in estimated],
                                                   False)):
        results, failed = sweep.run(points, library, power=with_power)
        for failure in failed.values():
            raise ToolError(failure)
        measured |= results
    return {"measured": measured, "parts": _break_down(library), **measurement.describe(library)}


def _unique(points):
    return list(dict.fromkeys(points))


def point(name, settings=()):
    """A unit with a choice of parameters, the settings that are defaults left out."""
    defaults = registry.parameters(name)
    return Point(name, tuple(setting for setting in settings
                             if registry.parameters(name, [setting]) != defaults))


def _deep_units():
    return [name for name, unit in registry.UNITS.items() if "depth" in unit.parameters]


def _depths(name):
    """Format, depth and point for every depth that a unit offers."""
    offered = registry.UNITS[name].parameters
    formats = (_METADATA if "metadata" in offered else
               {"NVFP4" if name.startswith("nvfp4") else "M2XFP": ()})
    return [(format, depth, point(name, (*settings, f"depth={depth}")))
            for (format, settings), depth in product(formats.items(), sorted(offered["depth"]))]


def _array_points():
    return [point("mac_array", (f"columns={columns}",))
            for columns in sorted(registry.UNITS["mac_array"].parameters["columns"])]


def _break_down(library):
    parts = {}
    with progress("breakdown", "unit", len(BROKEN_DOWN)) as step:
        for chosen in BROKEN_DOWN:
            key = kept.digest("areas", sweep.key_of(chosen, library, False),
                              *sweep.sources([Path(hierarchy_area.__file__)]))
            path = kept.folder() / key / "areas.json"
            if (text := kept.read(path)) is None:
                component = registry.build(chosen.unit, chosen.settings)
                text = json.dumps(hierarchy_area.areas(chosen.unit, component, library))
                kept.store(path, text)
            parts[chosen] = json.loads(text)
            step(chosen.label)
    return parts


def page(results):
    """The page.

    Parameters
    ----------
    results : dict
        What `gather` gives, with ``command``.

    Returns
    -------
    str
        HTML.
    """
    sections = (("units", "Units", _units), ("breakdown", "Area by submodule", _breakdown),
                ("curves", "Delay and area over depth and columns", _curves),
                ("formats", "Formats side by side", _formats), ("power", "Power", _power),
                ("published", "Published figures", _published), ("paths", "Slowest paths", _paths),
                ("flow", "How it was measured", _flow))
    links = " ".join(f'<a href="#{key}">{escape(title)}</a>' for key, title, _ in sections)
    library = results["library"]["name"]
    return "\n".join([
        "<!DOCTYPE html>", '<html lang="en">', "<head>", '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        "<title>m2xfp-rtl: area, timing and power</title>", f"<style>{_STYLE}</style>", "</head>",
        "<body>", "<h1>m2xfp-rtl: area, timing and power</h1>",
        _text(f"Library {library}, before layout: without wires and clock tree. A: mapped for "
              "area. T: mapped for delay. All from one flow; see the end of the page."),
        f"<nav>{links}</nav>",
        *(f'<section id="{key}">\n<h2>{escape(title)}</h2>\n{"".join(make(results))}\n</section>'
          for key, title, make in sections),
        "</body>", "</html>", ""])


def _units(results):
    """The table of units, and what they are per tile."""
    rows, tiles = [], []
    for name in registry.UNITS:
        unit = results["measured"][point(name)]
        share = unit["sequential_area_um2"] / unit["area_um2"] if unit["area_um2"] else 0
        rows.append((_starred(name, unit), _parameters(unit), unit["cells"],
                     f"{unit['area_um2']:.0f}", f"{unit['area_timed_um2']:.0f}",
                     unit["flip_flops"], f"{share:.0%}", _ns(unit["delay_ns"]),
                     _line(unit["path_class"] or "-"), _ns(unit["io_delay_ns"]),
                     "-" if unit["fmax_io_mhz"] is None else f"{unit['fmax_io_mhz']:.0f}",
                     unit["memory_bits"] or ""))
    for chosen in _unique([*(point(name) for name in registry.UNITS), *_array_points()]):
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
    yield _text(f"Delay: from register to register, with clock-to-output and setup, the clock "
                "period; in a unit without such paths the slowest of in-reg, reg-out and in-out. "
                "I/O delay: the slowest of these. Inputs arrive at 0 ns behind "
                f"{results['library']['driver']}; outputs bear {timing.OUTPUT_LOAD:g} fF. "
                "*: mapped module by module; nothing is shared or sized across modules. Memories "
                "are left out, their pins count as ports.")
    yield "<h3>For each 8-MAC tile, with all that is around it</h3>"
    yield _table(("unit", "parameters", "tiles", "area A um2", "area T um2", "flip-flops"), tiles,
                 left=(0, 1))


def _breakdown(results):
    yield _text("Area A of all instances of a submodule, without the submodules that it has in "
                "turn. All units are mapped module by module here, nothing being shared across "
                "modules, and each cell of the flat netlist counts for the instance that its name "
                "tells. Units without * are mapped as a whole everywhere else on this page, which "
                "is why their sum differs from their area there.")
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
    measured = results["measured"]
    for name in _deep_units():
        rows = []
        for format, depth, chosen in _depths(name):
            unit = measured[chosen]
            rows.append((format, depth, f"{unit['area_um2']:.0f}", f"{unit['area_timed_um2']:.0f}",
                         unit["flip_flops"], _ns(sweep.slowest(unit))))
        yield f"<h3>{escape(name)} over its pipeline depth</h3>"
        yield _table(("format", "depth", "area A um2", "area T um2", "flip-flops",
                      "slowest path T ns"), rows, left=(0,))
    if _deep_units():
        yield _image(_draw_depths(measured), "Area T over the slowest path, one point per depth")
    rows = []
    for chosen in _array_points():
        unit = measured[chosen]
        rows.append((unit["parameters"]["columns"], unit["tiles"], f"{unit['area_um2']:.0f}",
                     f"{unit['area_per_tile_um2']:.0f}",
                     f"{unit['area_timed_um2'] / unit['tiles']:.0f}", _ns(sweep.slowest(unit))))
    yield "<h3>mac_array* over its columns</h3>"
    yield _table(("columns", "8-MAC tiles", "area A um2", "A per tile um2", "T per tile um2",
                  "slowest path T ns"), rows, left=())
    yield _image(_draw_columns(measured), "Area per tile and slowest path over columns")
    yield _text("Slowest path: of all, ports included.")


def _formats(results):
    compared = _compared(results)[1]
    rows = []
    for part, format, label, count, figures, ratios in compared:
        texts = (f"{figure:.{digits}f}" for figure, digits in zip(figures, (0, 3, 1), strict=True))
        rows.append((part, _line(f"{_swatch(FORMATS[format])} {escape(format)}"), label,
                     f"{count:g}", *(text for pair in zip(texts, ratios, strict=True)
                                     for text in pair)))
    yield _table(("", "format", "unit", "count", "area A um2", "ratio", "delay T ns", "ratio",
                  "energy fJ", "ratio"), rows, left=(0, 1, 2))
    yield _text("Area: of so many units (count) as do the same work. Delay: the slowest path of "
                "all, ports included. Energy: of one MAC or one quantized value under real "
                "traffic. Ratio: to MXFP4.")
    yield _image(_draw_formats(compared), "Area, delay and energy of each format")


def _compared(results):
    rows = [(part, format, name, point(name, settings).settings, count)
            for part, format, name, settings, count in comparison.format_units(COLUMNS)]
    units = {Point(name, settings).label: results["measured"][Point(name, settings)]
             for _, _, name, settings, _ in rows}
    return comparison.compare(rows, {"units": units})


def _power(results):
    units = {"units": {name: results["measured"][point(name)] for name in power.UNITS}}
    head, below, *rows = power.rows(units)
    # The text's two lines of head, in one.
    head = [" ".join(filter(None, pair)).replace(") uW", " uW)")
            for pair in zip(head, below, strict=True)]
    yield _table(head, rows, left=(0, 1, 11))
    yield _text(" ".join((*power.legend(units), *power.COLUMNS)))


def _published(results):
    rows, bases = [], {}
    for what, unit, value, chosen in _PAPER:
        mine = results["measured"][chosen]
        ours = (mine["area_um2"] if unit == "um2" else
                mine["power"]["real"]["total_uw"] / 1000)
        # Ratios of formats are what two nodes have in common.
        tile = what.startswith("PE tile") and unit == "um2"
        base = bases.setdefault("tile", (value, ours)) if tile else None
        digits = 3 if unit == "mW" else 1
        rows.append((what, unit, f"{value:g}", f"{value / base[0]:.2f}" if base else "",
                     chosen.label, f"{ours:.{digits}f}",
                     f"{ours / base[1]:.2f}" if base else ""))
    array = results["measured"][point("mac_array")]
    rows.append(("-", "um2", "-", "", "mac_array, for each 8-MAC tile",
                 f"{array['area_per_tile_um2']:.1f}", ""))
    yield "<h3>The paper's, 28 nm, 500 MHz</h3>"
    clock = f"{power.CLOCK:g}"
    yield _text("Hu et al., M2XFP, ASPLOS 2026: 28 nm with proprietary tools. Ours: "
                f"{results['library']['name']} with open tools, area A, power under real traffic "
                f"at {clock} MHz. The nodes differ and nothing here is scaled from one to the "
                "other; compare ratios inside a column, not one column with the other. Our "
                "pe_tile gives an exact integer and does not accumulate; the figure of mac_array "
                "includes all accumulators, of which four tiles share one.")
    yield _table(("figure", "in", "paper, 28 nm", "ratio to MXFP4", "our unit",
                  f"ours, {results['library']['name']}", "ratio to MXFP4"), rows, left=(0, 1, 4))
    yield "<h3>Open RTL of others</h3>"
    yield _text("Measured once with the same recipes, quoted; not printed by this command: Yosys "
                "0.70 and Nangate 45 nm, area A and delay T as above, the delay without "
                "clock-to-output and setup. Remarks are what our tests of it found.")
    yield _table(("unit", "area A um2", "delay T ns", "remark"),
                 [(name, f"{area:g}", f"{delay:g}", remark)
                  for name, area, delay, remark in _OTHERS], left=(0, 3))


def _paths(results):
    for name in registry.UNITS:
        unit = results["measured"][point(name)]
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
    yield _text("What is mapped is the emitted Verilog. The scripts of all units, with places for "
                "a unit's name and options:")
    for kind, text in scripts.items():
        yield f"<h3>{escape(kind)}</h3>" + _pre(text)
    yield "<h3>All that Yosys does for a unit</h3>"
    for name in registry.UNITS:
        yield (f"<details><summary>{escape(name)}</summary>"
               f"{_pre(results['measured'][point(name)]['script'])}</details>\n")


def _starred(name, unit):
    return name + "*" * unit["hierarchical"]


def _parameters(unit):
    return ", ".join(f"{key}={value}" for key, value in unit["parameters"].items())


def _ns(delay):
    return "-" if delay is None else f"{delay:.3f}"


def _text(text):
    return f"<p>{escape(text)}</p>\n"


def _pre(text):
    return f"<pre>{escape(text)}</pre>\n"


def _table(head, rows, *, left):
    def line(tag, cells):
        return "<tr>" + "".join(
            f"<{tag}{'' if i in left else ' class=n'}>"
            f"{cell if isinstance(cell, _Html) else escape(str(cell))}</{tag}>"
            for i, cell in enumerate(cells)) + "</tr>\n"

    body = "".join(line("td", row) for row in rows)
    top = f"<thead>{line('th', head)}</thead>" if any(head) else ""
    return f"<div class=wide><table>{top}<tbody>\n{body}</tbody></table></div>\n"


def _line(html):
    """Text of a cell that is not broken."""
    return _Html(f"<span class=line>{html}</span>")


def _swatch(color):
    return _Html(f'<span class=swatch style="background:{color}"></span>')


def _stack(shares):
    """A bar of parts with name, share and colour."""
    parts, left = [], 0.0
    for name, share, color in shares:
        parts.append(f'<rect x="{100 * left:.3f}%" width="{100 * share:.3f}%" height="100%" '
                     f'fill="{color}" stroke="white"><title>{escape(name)} {share:.1%}</title>'
                     "</rect>")
        left += share
    return ('<svg class=stack role="img" aria-label="Shares, as in the table below">'
            f'{"".join(parts)}</svg>\n')


def _image(figure, text):
    """A drawing inside the page."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150, metadata={"Software": None})
    data = base64.b64encode(file.getvalue()).decode()
    return f'<img alt="{escape(text)}" src="data:image/png;base64,{data}">\n'


def _figure(width, height, rows, columns, **options):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for each in axes.flat:
        each.spines[["top", "right"]].set_visible(False)
        each.grid(color="0.9", linewidth=0.8)
        each.set_axisbelow(True)
    return figure, axes


_AREA = "area {} (\N{MICRO SIGN}m\N{SUPERSCRIPT TWO})"


def _draw_depths(measured):
    names = _deep_units()
    figure, (axes,) = _figure(max(6, 5 * len(names)), 4.2, 1, len(names))
    labels = {}
    for name, each in zip(names, axes, strict=True):
        for format, color in FORMATS.items():
            points = [(depth, sweep.slowest(measured[chosen]), measured[chosen]["area_timed_um2"])
                      for of, depth, chosen in _depths(name) if of == format]
            if not points:
                continue
            depths, delays, areas = zip(*points, strict=True)
            each.plot(delays, areas, "o-", color=color, label=format)
            corners = [*zip(delays, areas, strict=True)]
            texts, lines = labels.setdefault(each, ([], []))
            texts += [(f"depth {depth}", *corner)
                      for depth, corner in zip(depths, corners, strict=True)]
            lines += zip(corners, corners[1:], strict=False)
        each.set_title(name)
        each.margins(x=0.2, y=0.15)
        each.set_xlabel("slowest path T (ns)")
        each.set_ylabel(_AREA.format("T"))
        each.yaxis.set_major_formatter("{x:,.0f}")
        each.legend(frameon=False)
    for each, (texts, lines) in labels.items():
        pareto.label(figure, each, texts, lines)
    return figure


def _draw_columns(measured):
    points = [measured[chosen] for chosen in _array_points()]
    labels = [str(unit["parameters"]["columns"]) for unit in points]
    figure, ((area, delay),) = _figure(10, 3.8, 1, 2)
    for axes, values, label, digits in (
            (area, [unit["area_per_tile_um2"] for unit in points],
             _AREA.format("A for each 8-MAC tile"), 0),
            (delay, [sweep.slowest(unit) for unit in points], "slowest path T (ns)", 2)):
        axes.plot(labels, values, "o-", color=FORMATS["M2XFP"])
        for x, value in zip(labels, values, strict=True):
            axes.annotate(f"{value:,.{digits}f}", (x, value), (0, 8), ha="center",
                          textcoords="offset points", fontsize=9)
        axes.set_xlabel("columns of mac_array")
        axes.set_ylabel(label)
        axes.set_ylim(0, 1.2 * max(values))
        axes.yaxis.set_major_formatter("{x:,.0f}" if digits == 0 else "{x:g}")
    return figure


def _draw_formats(compared):
    parts = {}
    for part, format, label, _, figures, _ in compared:
        parts.setdefault(part, []).append((format, label, figures))
    figure, axes = _figure(11, 1.2 + 0.42 * len(compared) + 0.6 * len(parts), len(parts), 3,
                           height_ratios=[len(rows) + 1 for rows in parts.values()])
    titles = (_AREA.format("A"), "slowest path T (ns)", "energy of one MAC or value (fJ)")
    for (part, rows), line in zip(parts.items(), axes, strict=True):
        formats = [format for format, _, _ in rows]
        # A format that is there twice is told apart by what the unit is set to.
        names = [f"{format}, {label.partition(' ')[2]}" if formats.index(format) < i else format
                 for i, (format, label, _) in enumerate(rows)]
        for number, (each, digits) in enumerate(zip(line, (0, 2, 0), strict=True)):
            values = [figures[number] for _, _, figures in rows]
            bars = each.barh(range(len(rows)), values, height=0.7,
                             color=[FORMATS[format] for format in formats])
            each.bar_label(bars, [f"{value:,.{digits}f}" for value in values], padding=3,
                           fontsize=9)
            each.set_yticks(range(len(rows)), names if number == 0 else [""] * len(rows))
            each.tick_params(axis="y", length=0)
            each.invert_yaxis()
            each.set_xlim(0, 1.25 * max(values))
            each.xaxis.set_major_formatter("{x:,g}")
            each.grid(visible=False, axis="y")
        line[0].set_title(part, loc="left", fontsize=10, fontweight="bold")
    for each, title in zip(axes[-1], titles, strict=True):
        each.set_xlabel(title)
    return figure


_STYLE = """
body { margin: 2em auto; max-width: 75em; padding: 0 1em; color: #222; background: #fff;
       font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.6em; } h2 { font-size: 1.3em; margin-top: 2em; border-bottom: 1px solid #ccc; }
h3 { font-size: 1.05em; margin-top: 1.5em; } p { max-width: 60em; }
nav a { margin-right: 1em; }
.wide { overflow-x: auto; } table { border-collapse: collapse; margin: .6em 0; }
th, td { padding: .2em .7em; text-align: left; vertical-align: bottom;
         border-bottom: 1px solid #e4e4e4; }
th { border-bottom: 2px solid #888; } .n { text-align: right;
     font-variant-numeric: tabular-nums; }
img { max-width: 100%; height: auto; } .stack { width: 100%; height: 2.2em; }
span.line { white-space: nowrap; }
.swatch { display: inline-block; width: .9em; height: .9em; }
pre { background: #f5f5f5; padding: .7em; overflow-x: auto; }
details { margin: .3em 0; } summary { cursor: pointer; overflow-wrap: anywhere; }
"""
