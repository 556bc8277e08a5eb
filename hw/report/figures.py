# SPDX-License-Identifier: BSD-2-Clause
"""Drawings of the report, with Matplotlib."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..flow.power import amount
from . import pareto
from .comparison import DIGITS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = {"MXFP4": "#0072b2", "NVFP4": "#d55e00", "RaZeR": "#e69f00", "M2XFP": "#009e73",
           "M2XFP Sg-EM": "#56b4e9", "M2XFP Sg-special": "#cc79a7", "M2XFP Sg-special64": "#882255"}
"""Formats and their colours in all drawings."""

WIDTH = 5
"""Inches of each drawing: small enough that its text can be read on a phone."""

_AREA = "area {} (\N{MICRO SIGN}m\N{SUPERSCRIPT TWO})"


def depths(name: str, curves: Mapping[str, Sequence[tuple[int, float, float]]]) -> "Figure":
    """Draws a unit's area over its delay, one line per format.

    Parameters
    ----------
    name : str
        Of the unit.
    curves : dict of str to list of (int, float, float)
        By format: depth, delay in ns and area T in um2.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = _figure(WIDTH, 4)
    texts: list[tuple[str, float, float]] = []
    lines: list[tuple] = []
    for format, color in FORMATS.items():
        if format not in curves:
            continue
        steps, delays, areas = zip(*curves[format], strict=True)
        axes.plot(delays, areas, "o-", color=color, label=format)
        corners = [*zip(delays, areas, strict=True)]
        texts += [(f"depth {depth}", *corner)
                  for depth, corner in zip(steps, corners, strict=True)]
        lines += zip(corners, corners[1:], strict=False)
    axes.set_title(name)
    axes.margins(x=0.28, y=0.15)
    axes.set_xlabel("slowest path T (ns)")
    axes.set_ylabel(_AREA.format("T"))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.legend(frameon=False)
    pareto.label(figure, axes, texts, lines)
    return figure


def columns(points: Sequence[tuple[int, float, float]]) -> "list[Figure]":
    """Draws the array's area per tile, and its slowest path, over its columns.

    Parameters
    ----------
    points : list of (int, float, float)
        Columns, area A of each 8-MAC tile in um2 and slowest path in ns.

    Returns
    -------
    list of matplotlib.figure.Figure
    """
    drawn = []
    labels = [str(number) for number, _, _ in points]
    for values, text, digits in (
            ([size for _, size, _ in points], _AREA.format("A for each 8-MAC tile"), DIGITS[0]),
            ([slowest for _, _, slowest in points], "slowest path T (ns)", DIGITS[1])):
        figure, axes = _figure(WIDTH, 3.6)
        axes.plot(labels, values, "o-", color=FORMATS["M2XFP"])
        for x, value in zip(labels, values, strict=True):
            axes.annotate(amount(value, digits), (x, value), (0, 8), ha="center",
                          textcoords="offset points", fontsize=9)
        axes.set_xlabel("columns of mac_array")
        axes.set_ylabel(text)
        axes.set_ylim(0, 1.2 * max(values))
        axes.yaxis.set_major_formatter("{x:,.0f}" if digits == 0 else "{x:g}")
        drawn.append(figure)
    return drawn


def formats(compared: Sequence[tuple]) -> "list[Figure]":
    """Draws area, delay and energy of each format, with the digits of the table.

    Parameters
    ----------
    compared : list of tuple
        The rows that `hw.report.comparison.compare` returns, with energies.

    Returns
    -------
    list of matplotlib.figure.Figure
        One for each figure.
    """
    parts: dict[str, list] = {}
    for part, format, label, _, figures, _ in compared:
        parts.setdefault(part, []).append((format, label, figures))
    drawn = []
    for number, (title, digits) in enumerate(zip((
            _AREA.format("A"), "slowest path T (ns)", "energy of one MAC or value (fJ)"),
            DIGITS, strict=True)):
        figure, panels = stacked_axes(WIDTH, 1.2 + 0.36 * len(compared) + 0.6 * len(parts),
                                      [len(rows) + 1 for rows in parts.values()])
        for (part, rows), axes in zip(parts.items(), panels, strict=True):
            names = [format for format, _, _ in rows]
            # A format that occurs twice is told apart by the unit's settings.
            labels = [f"{format}, {label.partition(' ')[2]}" if names.index(format) < i else format
                      for i, (format, label, _) in enumerate(rows)]
            values = [figures[number] for _, _, figures in rows]
            bars = axes.barh(range(len(rows)), values, height=0.7,
                             color=[FORMATS[format] for format in names])
            axes.bar_label(bars, [amount(value, digits) for value in values], padding=3,
                           fontsize=9)
            axes.set_yticks(range(len(rows)), labels)
            axes.tick_params(axis="y", length=0)
            axes.invert_yaxis()
            axes.set_xlim(0, 1.3 * max(values))
            axes.xaxis.set_major_locator(_locator())
            axes.xaxis.set_major_formatter("{x:,g}")
            axes.grid(visible=False, axis="y")
            axes.set_title(part, loc="left", fontsize=10, fontweight="bold")
        panels[-1].set_xlabel(title)
        drawn.append(figure)
    return drawn


def _locator():
    from matplotlib.ticker import MaxNLocator
    return MaxNLocator(4)


def _figure(width: float, height: float) -> tuple:
    """A figure with its axes."""
    figure, (axes,) = stacked_axes(width, height, [1])
    return figure, axes


def stacked_axes(width: float, height: float, ratios: Sequence[float]) -> tuple:
    """A figure with axes one below the other, whose heights have these ratios."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(ratios), 1, squeeze=False, height_ratios=ratios)[:, 0]
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="0.9", linewidth=0.8)
        axes.set_axisbelow(True)
    return figure, panels
