# SPDX-License-Identifier: BSD-2-Clause
"""Drawings of the report, with Matplotlib."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import pareto

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = {"MXFP4": "#0072b2", "NVFP4": "#d55e00", "M2XFP": "#009e73", "M2XFP Sg-EM": "#56b4e9",
           "M2XFP Sg-special": "#cc79a7"}
"""Formats and their colours in all drawings."""

_AREA = "area {} (\N{MICRO SIGN}m\N{SUPERSCRIPT TWO})"


def depths(curves: Mapping[str, Mapping[str, Sequence[tuple[int, float, float]]]]) -> "Figure":
    """Draws area over delay, one plot per unit and one line per format.

    Parameters
    ----------
    curves : dict of str to dict of str to list of (int, float, float)
        By unit and format: depth, delay in ns and area T in um2.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, (axes,) = _figure(max(6, 5 * len(curves)), 4.2, 1, len(curves))
    labels: dict[Any, tuple[list, list]] = {}
    for (name, of_unit), each in zip(curves.items(), axes, strict=True):
        for format, color in FORMATS.items():
            if format not in of_unit:
                continue
            steps, delays, areas = zip(*of_unit[format], strict=True)
            each.plot(delays, areas, "o-", color=color, label=format)
            corners = [*zip(delays, areas, strict=True)]
            texts, lines = labels.setdefault(each, ([], []))
            texts += [(f"depth {depth}", *corner)
                      for depth, corner in zip(steps, corners, strict=True)]
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


def columns(points: Sequence[tuple[int, float, float]]) -> "Figure":
    """Draws the array's area per tile and its slowest path over its columns.

    Parameters
    ----------
    points : list of (int, float, float)
        Columns, area A of each 8-MAC tile in um2 and slowest path in ns.

    Returns
    -------
    matplotlib.figure.Figure
    """
    labels = [str(number) for number, _, _ in points]
    figure, ((area, delay),) = _figure(10, 3.8, 1, 2)
    for axes, values, label, digits in (
            (area, [size for _, size, _ in points], _AREA.format("A for each 8-MAC tile"), 0),
            (delay, [slowest for _, _, slowest in points], "slowest path T (ns)", 2)):
        axes.plot(labels, values, "o-", color=FORMATS["M2XFP"])
        for x, value in zip(labels, values, strict=True):
            axes.annotate(f"{value:,.{digits}f}", (x, value), (0, 8), ha="center",
                          textcoords="offset points", fontsize=9)
        axes.set_xlabel("columns of mac_array")
        axes.set_ylabel(label)
        axes.set_ylim(0, 1.2 * max(values))
        axes.yaxis.set_major_formatter("{x:,.0f}" if digits == 0 else "{x:g}")
    return figure


def formats(compared: Sequence[tuple]) -> "Figure":
    """Draws area, delay and energy of each format side by side.

    Parameters
    ----------
    compared : list of tuple
        The rows that `hw.report.comparison.compare` returns, with energies.

    Returns
    -------
    matplotlib.figure.Figure
    """
    parts: dict[str, list] = {}
    for part, format, label, _, figures, _ in compared:
        parts.setdefault(part, []).append((format, label, figures))
    figure, axes = _figure(11, 1.2 + 0.42 * len(compared) + 0.6 * len(parts), len(parts), 3,
                           height_ratios=[len(rows) + 1 for rows in parts.values()])
    titles = (_AREA.format("A"), "slowest path T (ns)", "energy of one MAC or value (fJ)")
    for (part, rows), line in zip(parts.items(), axes, strict=True):
        names = [format for format, _, _ in rows]
        # A format that occurs twice is told apart by the unit's settings.
        labels = [f"{format}, {label.partition(' ')[2]}" if names.index(format) < i else format
                  for i, (format, label, _) in enumerate(rows)]
        for number, (each, digits) in enumerate(zip(line, (0, 2, 0), strict=True)):
            values = [figures[number] for _, _, figures in rows]
            bars = each.barh(range(len(rows)), values, height=0.7,
                             color=[FORMATS[format] for format in names])
            each.bar_label(bars, [f"{value:,.{digits}f}" for value in values], padding=3,
                           fontsize=9)
            each.set_yticks(range(len(rows)), labels if number == 0 else [""] * len(rows))
            each.tick_params(axis="y", length=0)
            each.invert_yaxis()
            each.set_xlim(0, 1.25 * max(values))
            each.xaxis.set_major_formatter("{x:,g}")
            each.grid(visible=False, axis="y")
        line[0].set_title(part, loc="left", fontsize=10, fontweight="bold")
    for each, title in zip(axes[-1], titles, strict=True):
        each.set_xlabel(title)
    return figure


def _figure(width: float, height: float, rows: int, columns: int, **options: Any) -> tuple:
    """A figure with its axes, shape (rows, columns)."""
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
