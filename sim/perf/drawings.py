# SPDX-License-Identifier: BSD-2-Clause
"""The model's results as drawings, with Matplotlib."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from golden.output import save_figure
from hw.report import pareto
from hw.report.figures import FORMATS, stacked_axes

from . import paper, tables
from .machine import Machine
from .models import PAPER
from .predict import Prediction
from .rivals import Entry

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PARTS = {
    "array and engines": ("array", "accumulators", "top-1 and engines", "array idle"),
    "leakage and control": ("array leakage", "control"),
    "SRAM": ("SRAM",), "SRAM leakage": ("SRAM leakage",), "DRAM": ("DRAM",),
    "DRAM background": ("DRAM background",), "link": ("link",)}
"""What the drawings show of the energy, and the parts of `sim.perf.predict.ENERGIES` in each."""

_PART_COLORS = {
    "array and engines": "#332288", "core": "#332288", "leakage and control": "#88ccee",
    "SRAM": "#117733", "buffer": "#117733", "SRAM leakage": "#a8d5ae", "DRAM": "#cc6677",
    "DRAM background": "#e8c4c9", "static": "#e8c4c9", "link": "#999933"}
"""A light colour is what stands, the dark one beside it what works."""

_COLORS = {
    **FORMATS, "Sg-EM": FORMATS["M2XFP Sg-EM"], "Sg-special": FORMATS["M2XFP Sg-special"],
    "MXFP8": "#000000", "MX-OliVe": "#9c755f", "MX-ANT": "#bab0ac", "MX-M-ANT": "#79706e",
    "MicroScopiQ": "#4e4e4e"}

_LINES = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999933"
_MARKERS = "osD^vPX*"

Bars = Mapping[str, Mapping[str, tuple[float, Mapping[str, float]]]]
"""By model, then by format or design: time, and energy by part."""


def of_paper(models: Sequence[str] = PAPER) -> Bars:
    """The paper's assumptions, as its Fig. 13 has them: MX-OliVe is 1."""
    found = {}
    for model, runs in paper.runs(models).items():
        base = runs[paper.BASE]
        found[model] = {name: (run.cycles / base.cycles,
                               {part: of / base.total for part, of in run.energy.items()})
                        for name, run in runs.items()}
    return found


def of_entries(entries: Mapping[str, Sequence[Entry]]) -> Bars:
    """Formats and designs on our hardware: the first of each model is 1."""
    return {model: {one.name: (one.cycles / first.cycles,
                               {part: of / first.joules for part, of in grouped(one.energy).items()
                                if part != "link"})
                    for one in [first, *others]}
            for model, (first, *others) in entries.items()}


def grouped(energy: Mapping[str, float]) -> dict[str, float]:
    """Energy by `PARTS`."""
    return {name: sum(energy[part] for part in of) for name, of in PARTS.items()}


def with_mean(bars: Bars) -> Bars:
    """The same with the arithmetic mean over the models, if there are several."""
    if len(bars) < 2:
        return bars
    models = [*bars.values()]
    mean = {name: (fmean(of[name][0] for of in models),
                   {part: fmean(of[name][1][part] for of in models) for part in models[0][name][1]})
            for name in models[0]}
    return {**bars, "mean": mean}


def normalised(studies: Mapping[str, Bars]) -> "Figure":
    """Draws normalised time, and energy by part, of each model on each format or design.

    Parameters
    ----------
    studies : mapping
        By title, which says what is 1.
    """
    figure, panels = stacked_axes(13, 5.6 * len(studies), [2, 3] * len(studies))
    for place, (title, bars) in enumerate(studies.items()):
        _study(panels[2 * place:2 * place + 2], title, with_mean(bars))
    return figure


def _study(panels: Sequence[Any], title: str, bars: Bars) -> None:
    upper, lower = panels
    names = [*next(iter(bars.values()))]
    parts = [*next(iter(bars.values()))[names[0]][1]]
    width = 0.86 / len(names)
    places = {name: (i - (len(names) - 1) / 2) * width for i, name in enumerate(names)}
    groups = range(len(bars))
    for name in names:
        xs = [group + places[name] for group in groups]
        upper.bar(xs, [of[name][0] for of in bars.values()], 0.92 * width, color=_COLORS[name],
                  label=name)
        below = [0.0] * len(bars)
        for part in parts:
            heights = [of[name][1][part] for of in bars.values()]
            lower.bar(xs, heights, 0.92 * width, below, color=_PART_COLORS[part],
                      label=part if name == names[0] else None)
            below = [sum(pair) for pair in zip(below, heights, strict=True)]
    top = max(sum(energy.values()) for of in bars.values() for _, energy in of.values())
    # A strip of each bar's own colour, as the stack has the colours of the parts.
    strip = 0.045 * top
    for name in names:
        lower.bar([group + places[name] for group in groups], strip, 0.92 * width, -1.3 * strip,
                  color=_COLORS[name])
    lower.set_ylim(-1.5 * strip, 1.04 * top)
    for axes, label in ((upper, "time"), (lower, "energy")):
        axes.set_xticks(groups, bars)
        axes.set_xlim(-0.5, len(bars) - 0.5)
        axes.tick_params(axis="x", length=0)
        axes.grid(visible=False, axis="x")
        axes.axhline(1, color="0.4", linewidth=0.8, linestyle=":")
        axes.set_ylabel(label)
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=9)
    upper.set_title(title, loc="left", fontsize=11, fontweight="bold")


def prediction(found: Sequence[Prediction]) -> "Figure":
    """Draws the roofline, and below it the energy of a token by part."""
    bars = 0.42 * len(found)
    figure, (upper, lower) = stacked_axes(7, 6.8 + bars, [4.2, 0.8 + bars])
    _roofline(figure, upper, found)
    _breakdown(figure, lower, found)
    return figure


def roofline(found: Sequence[Prediction]) -> "Figure":
    """Draws what each layer reaches over its MACs per byte, below the machine's roof.

    Parameters
    ----------
    found : sequence of Prediction
        On one machine.
    """
    figure, (axes,) = stacked_axes(7, 4.8, [1])
    _roofline(figure, axes, found)
    return figure


def _roofline(figure: "Figure", axes: Any, found: Sequence[Prediction]) -> None:
    machine = found[0].machine
    chips = machine.chips["count"]
    peak = chips * machine.peak * machine.clock_mhz * 1e-3
    slope = chips * machine.dram["bandwidth_gbs"]
    points, lowest, highest = [], peak / slope / 4, 4 * peak / slope
    for one, color, marker in zip(found, cycle(_LINES), cycle(_MARKERS), strict=False):
        layers = [layer for layer in tables.by_name(one.layers) if layer.bits]
        xs = [8 * layer.macs / layer.bits for layer in layers]
        ys = [chips * layer.macs / layer.cycles * machine.clock_mhz * 1e-3 for layer in layers]
        axes.plot(xs, ys, marker, color=color, label=name_of(one, found), alpha=0.8, zorder=3)
        points += [(layer.gemm.name, x, y) for layer, x, y in zip(layers, xs, ys, strict=True)]
        lowest, highest = min([lowest, *xs]), max([highest, *xs])
    ends = (lowest / 2, max(peak / slope, lowest / 2), highest * 2)
    roof = [min(peak, x * slope) for x in ends]
    axes.plot(ends, roof, color="0.3", linewidth=1.4, zorder=2)
    axes.set_title(f"{machine.name}: {peak:,.4g} GMAC/s, {slope:,.4g} GB/s", fontsize=10)
    _logarithmic(axes, "x")
    _logarithmic(axes, "y")
    axes.set_ylim(min([min(roof), *(y for *_, y in points)]) / 1.6, 2 * peak)
    axes.set_xlabel("MACs per byte of DRAM traffic")
    axes.set_ylabel("GMAC/s")
    axes.legend(frameon=False, loc="lower right", fontsize=9)
    if len(found) == 1:
        corners = [*zip(ends, roof, strict=True)]
        pareto.label(figure, axes, _apart(points), [*zip(corners, corners[1:], strict=False)])


def _apart(points: Sequence[tuple[str, float, float]]) -> list[tuple[str, float, float]]:
    """Points that lie together have one label."""
    found: dict[tuple[float, float], list[str]] = {}
    for name, x, y in points:
        near = next((of for of in found if abs(of[0] / x - 1) < 0.1 and abs(of[1] / y - 1) < 0.1),
                    (x, y))
        found.setdefault(near, []).append(name)
    return [(", ".join(dict.fromkeys(names)), x, y) for (x, y), names in found.items()]


def name_of(one: Prediction, among: Sequence[Prediction]) -> str:
    """The model's name, with what else tells it from the others."""
    job = one.job
    several = {(of.job.phase, of.job.seq, of.job.batch) for of in among}
    if len(several) == 1:
        return job.model.name
    return f"{job.model.name}, {job.phase} {job.seq} x {job.batch}"


def breakdown(found: Sequence[Prediction]) -> "Figure":
    """Draws the energy of a token by part, a bar for each prediction."""
    figure, (axes,) = stacked_axes(7, 1.7 + 0.42 * len(found), [1])
    _breakdown(figure, axes, found)
    return figure


def _breakdown(figure: "Figure", axes: Any, found: Sequence[Prediction]) -> None:
    rows = range(len(found))
    # Of all chips.
    energies = [{part: 1e-9 * one.machine.chips["count"] * of / one.job.rows
                 for part, of in grouped(one.energy).items()} for one in found]
    left = [0.0] * len(found)
    for part in PARTS:
        widths = [of[part] for of in energies]
        if any(widths):
            axes.barh(rows, widths, 0.7, left, color=_PART_COLORS[part], label=part)
        left = [sum(pair) for pair in zip(left, widths, strict=True)]
    for row, total in zip(rows, left, strict=True):
        axes.annotate(_amount(total), (total, row), (3, 0), textcoords="offset points",
                      va="center", fontsize=9)
    axes.set_yticks(rows, [name_of(one, found) for one in found])
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, 1.13 * max(left))
    axes.set_xlabel("mJ per token")
    axes.xaxis.set_major_formatter("{x:,g}")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3,
                  frameon=False, fontsize=9)


def scaling(name: str, found: Sequence[tuple[str, Prediction]], title: str = "") -> "Figure":
    """Draws tokens per second, energy and use over the values of a sweep, a line per model."""
    figure, panels = stacked_axes(7, 7.2, [1, 1, 1])
    values = [*dict.fromkeys(value for value, _ in found)]
    numbers = _numbers(values)
    xs = numbers if numbers is not None else [*range(len(values))]
    models = [*dict.fromkeys(one.job.model.name for _, one in found)]
    for axes, (label, of) in zip(panels, (
            ("tokens/s", lambda one: one.tokens_per_second),
            ("mJ per token", lambda one: 1e3 * one.joules / one.job.rows),
            ("use of the arrays (%)", lambda one: 100 * one.utilisation)), strict=True):
        for model, color, marker in zip(models, cycle(_LINES), cycle(_MARKERS), strict=False):
            own = {value: of(one) for value, one in found if one.job.model.name == model}
            axes.plot(xs, [own[value] for value in values], f"{marker}-", color=color, label=model,
                      markersize=5)
        axes.set_ylabel(label)
        if numbers is not None and min(numbers) > 0 and max(numbers) > 8 * min(numbers):
            axes.set_xscale("log", base=2)
        axes.set_xticks(xs, values)
        axes.minorticks_off()
    for axes in panels[:2]:
        lines = [y for line in axes.get_lines() for y in line.get_ydata()]
        if max(lines) > 8 * min(lines) > 0:
            _logarithmic(axes, "y")
        else:
            axes.set_ylim(0, 1.08 * max(lines))
    panels[0].set_title(title, fontsize=10)
    panels[2].set_ylim(0, 105)
    panels[2].set_xlabel(name)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3,
                  frameon=False, fontsize=9)
    return figure


def _logarithmic(axes: Any, which: str) -> None:
    """Makes an axis logarithmic, with plain numbers beside it."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    getattr(axes, f"set_{which}scale")("log")
    axis = getattr(axes, f"{which}axis")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _amount(value)))
    axis.set_minor_formatter(NullFormatter())


def _amount(value: float) -> str:
    """A number with three digits; a large one has no exponent."""
    return f"{value:,.0f}" if value >= 999.5 else f"{value:.3g}"


def _numbers(values: Sequence[str]) -> list[float] | None:
    try:
        return [float(value) for value in values]
    except ValueError:
        return None


def title(machine: Machine) -> str:
    """What a comparison on a machine is called."""
    power = machine.dram["background_mw"]
    return (f"Our hardware, {machine.name}: M2XFP = 1, "
            + (f"DRAM background {power:g} mW" if power else "without DRAM background"))


def save(figure: "Figure", path: Path) -> None:
    """Writes a drawing, as PNG or SVG."""
    save_figure(figure, path)
