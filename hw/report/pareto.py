# SPDX-License-Identifier: BSD-2-Clause
"""Pareto fronts of area over delay, and their drawings."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from golden.output import save_figure


def front(points: Sequence[Sequence[float]]) -> list[bool]:
    """Whether each point is on the Pareto front.

    A point is on the front if no other point is at least as good in both coordinates and better
    in one. Equal points are both on the front.

    Parameters
    ----------
    points : sequence of (float, float)
        Delay and area, or any two quantities that should be small.

    Returns
    -------
    list of bool
    """
    return [not any(x <= point[0] and y <= point[1] and (x, y) != tuple(point) for x, y in points)
            for point in points]


def draw(path: Path, groups: dict[str, list[tuple[str, float, float]]], *, title: str) -> None:
    """Draws area over delay with the Pareto front of each group to a PNG or SVG file.

    A group is of points that do the same job; one of a single point has no front.

    Parameters
    ----------
    path : path
    groups : dict of str to list of (str, float, float)
        Label, delay in ns and area in um2 of each point; there is at least one point.
    title : str
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=12)
    axes = figure.subplots()
    areas = [area for group in groups.values() for _, _, area in group]
    if max(areas) > 8 * min(areas):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.margins(0.14)
    for (name, group), color in zip(groups.items(), _colors(), strict=False):
        on_fronts = front([point[1:] for point in group])
        rivals = len(group) > 1
        for (_, x, y), on_front in zip(group, on_fronts, strict=True):
            axes.plot(x, y, "o", color=color, markerfacecolor=color if on_front else "white",
                      markersize=7, zorder=3)
        axes.plot([], [], "o-" if rivals else "o", color=color, label=name if not rivals else
                  f"{name}: Pareto front" if len(groups) > 1 else "Pareto front")
    if any(len(group) > 1 for group in groups.values()):
        axes.plot([], [], "o", color="0.4", markerfacecolor="white", label="other points")
    # The limits come from the points; the fronts extend to the edges and do not change them.
    right, top = axes.get_xlim()[1], axes.get_ylim()[1]
    axes.set_autoscale_on(False)
    lines: list[tuple] = []
    for group, color in zip(groups.values(), _colors(), strict=False):
        points = [point[1:] for point in group]
        if len(points) == 1:
            continue
        best = sorted({point for point, on_front in zip(points, front(points), strict=True)
                       if on_front})
        # At each delay the front is the smallest area of all points up to that delay.
        corners = [(best[0][0], top), *(corner for (x, y), (end, _) in zip(
            best, [*best[1:], (right, 0)], strict=True) for corner in ((x, y), (end, y)))]
        axes.plot(*zip(*corners, strict=True), color=color, linewidth=1.2, alpha=0.7, zorder=2)
        lines += zip(corners, corners[1:], strict=False)
    axes.set_xlabel("slowest path, ports included, mapped for delay (ns)")
    axes.set_ylabel("area, mapped for delay (\N{MICRO SIGN}m\N{SUPERSCRIPT TWO})")
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    label(figure, axes, [point for group in groups.values() for point in group], lines)
    save_figure(figure, path)


def _colors() -> Iterator[str]:
    while True:
        yield from ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def label(figure: Any, axes: Any, points: Sequence[tuple[str, float, float]],
          lines: Sequence[tuple]) -> None:
    """Writes each label at the place where it covers least of the other labels, points and lines.

    Parameters
    ----------
    figure, axes
        Matplotlib's; the axes have their final limits.
    points : list of (str, float, float)
        Label and coordinates.
    lines : list of ((float, float), (float, float))
        Ends of the lines in the drawing.
    """
    figure.draw_without_rendering()
    places = axes.transData.transform([point[1:] for point in points])
    size = 5 * figure.dpi / 72
    taken = [(x - size, y - size, x + size, y + size) for x, y in places]
    for line in lines:
        (left, low), (right, high) = sorted(map(tuple, axes.transData.transform(line)))
        taken.append((left - 2, min(low, high) - 2, right + 2, max(low, high) + 2))
    edges = axes.bbox.extents
    for text, x, y in points:
        def free(choice, text=text, x=x, y=y):
            dx, dy, align = choice
            note = axes.annotate(text, (x, y), (dx, dy), textcoords="offset points", ha=align,
                                 va="center", fontsize=8)
            box = note.get_window_extent().extents
            note.remove()
            over = sum(_overlap(box, other) for other in taken)
            outside = (box[2] - box[0]) * (box[3] - box[1]) - _overlap(box, edges)
            return over + 3 * outside, abs(dx) + abs(dy)

        choices = [(sign * dx, dy, align) for dx in (9, 22) for dy in (0, 9, -9, 20, -20, 32, -32)
                   for sign, align in ((1, "left"), (-1, "right"))]
        choices += [(0, dy, "center") for dy in (14, -14)]
        dx, dy, align = min(choices, key=free)
        far = abs(dx) + abs(dy) > 20
        note = axes.annotate(
            text, (x, y), (dx, dy), textcoords="offset points", ha=align, va="center", fontsize=8,
            arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.6} if far else None)
        taken.append(note.get_window_extent().extents)


def _overlap(one, other):
    """Area that two rectangles share; each is left, low, right and high."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0) * max(height, 0)
