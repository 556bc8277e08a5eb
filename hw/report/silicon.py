# SPDX-License-Identifier: BSD-2-Clause
"""Accuracy over silicon: what an array of each format costs, and what a real model loses with it.

Areas, delays and energies are measured here, of arrays of one shape in one flow. Losses are those
of a stored evaluation, in `ACCURACY`, which names its command: it takes a model and some time.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from golden.output import save_figure

from ..flow.power import legend
from .comparison import Row, label
from .pareto import front
from .pareto import label as write_labels
from .text_tables import aligned, tools_line

ACCURACY = "accuracy.json"
"""File of the stored evaluation, beside this module: what `COMMAND` wrote on the day `DATE`."""

COMMAND = ("python -m golden accuracy --formats 'M2XFP,Sg-EM,Sg-special,Sg-special64,RaZeR "
           "weights/RaZeR activations' --json accuracy.json")
DATE = "2026-11-30"

PART = "array"

LEFT_OUT = (
    "Left out: buffers, decoders and encoders around the array; the tensor scales of NVFP4 and "
    "RaZeR; formats without an array here.")

RAZER = "RaZeR weights/RaZeR activations"
"""RaZeR's name in the evaluation: its operands have a format each."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A format's array and the model's loss with it.

    Attributes
    ----------
    format : str
    unit : str
        With its settings; a mark if it was mapped module by module.
    area_um2 : float
        Of all of the array, for each 8 MACs.
    delay_ns : float
        The slowest path, ports included, mapped for delay.
    energy_fj : float
        Of a MAC, under real activity.
    kl, kl_error : float
        Divergence of the float model's predictions from the format's, in nats, and its standard
        error.
    over_nvfp4, over_nvfp4_error : float
        How much more than NVFP4's that is, paired by sequence, and its standard error.
    """

    format: str
    unit: str
    area_um2: float
    delay_ns: float
    energy_fj: float
    kl: float
    kl_error: float
    over_nvfp4: float
    over_nvfp4_error: float


def units(columns: str) -> list[Row]:
    """The arrays, in the form of `hw.report.comparison.format_units`."""
    array = f"columns={columns}"
    return [
        (PART, "MXFP4", "mac_array", (array, "metadata=False"), 1),
        (PART, "NVFP4", "nvfp4_array", (array,), 1),
        (PART, "RaZeR", "nvfp4_array", (array, "encoding=razer"), 1),
        # A column has 64 multipliers, here and in Sg-special64.
        (PART, "NVFP4-64", "nvfp4_array", (array, "groups=4"), 1 / 2),
        (PART, "M2XFP", "mac_array", (array,), 1),
        (PART, "Sg-EM", "mac_array", (array, "encoding=sg-em"), 1),
        (PART, "Sg-special", "mac_array", (array, "encoding=sg-special"), 1),
        (PART, "Sg-special64", "mac_array", (array, "encoding=sg-special64"), 1 / 2),
    ]


def accuracy() -> dict[str, Any]:
    """The stored evaluation.

    Returns
    -------
    dict
        "model", "text", "sequences", "command", "date", "digest" of what the command wrote, and by
        format, under "formats", the last four attributes of a `Point`.
    """
    written = resources.files(__package__).joinpath(ACCURACY).read_bytes()
    content = json.loads(written)
    settings = content["settings"]
    model, text = (name.partition(".")[0] for name in settings["sources"])
    figures = content["figures"]
    sequences = sum(name.startswith("float: sequence ") for name in figures)
    losses = {row["format"]: [figures[f"{row['format']}: sequence {n}"]["kl"]
                              for n in range(sequences)]
              for row in content["summary"] if "kl" in row}
    if RAZER in losses:
        losses["RaZeR"] = losses.pop(RAZER)
    # An array with longer rows multiplies the same operands.
    losses["NVFP4-64"] = losses["NVFP4"]
    formats = {}
    for format, values in losses.items():
        kl, kl_error = _mean(values)
        over, over_error = _mean([a - b for a, b in zip(values, losses["NVFP4"], strict=True)])
        formats[format] = {"kl": kl, "kl_error": kl_error, "over_nvfp4": over,
                           "over_nvfp4_error": over_error}
    return {
        "model": model, "text": f"{sequences} x {settings['length']} tokens of {text}",
        "sequences": sequences, "command": COMMAND, "date": DATE,
        "digest": hashlib.sha256(written).hexdigest(), "formats": formats}


def _mean(values):
    """Mean and standard error."""
    return fmean(values), stdev(values) / len(values) ** 0.5


def points(rows: list[Row], columns: int, results: Mapping[str, Any],
           losses: Mapping[str, Any]) -> list[Point]:
    """The formats' arrays with their losses.

    Parameters
    ----------
    rows : list of tuple
        From `units`.
    columns : int
        Columns of the arrays, of 32 MACs each, or of as many as a row's count says.
    results : mapping
        As `hw.report.text_tables.table` takes it, with power.
    losses : mapping
        From `accuracy`.
    """
    found = []
    for _, format, name, settings, count in rows:
        unit = results["units"][label(name, settings)]
        found.append(Point(
            format=format, unit=label(name, settings) + "*" * unit["hierarchical"],
            area_um2=count * unit["area_um2"] / (4 * columns), delay_ns=1000 / unit["fmax_io_mhz"],
            energy_fj=unit["power"]["real"]["energy_per_operation_fj"],
            **losses["formats"][format]))
    return found


def fronts(found: list[Point]) -> tuple[list[bool], list[bool]]:
    """Whether each point is on the front of loss over area, and of loss over energy."""
    return (front([(one.area_um2, one.kl) for one in found]),
            front([(one.energy_fj, one.kl) for one in found]))


def caption(losses: Mapping[str, Any], columns: int) -> str:
    """What the losses and the silicon are of, in one line."""
    return (f"{losses['model']} on {losses['text']}; arrays of {columns} column"
            f"{'s' * (columns > 1)} of 32 MACs, of 64 for Sg-special64 and NVFP4-64")


def table(found: list[Point], columns: int, results: dict[str, Any],
          losses: Mapping[str, Any]) -> str:
    """The points as text."""
    by_area, by_energy = fronts(found)
    lines: list[tuple[str, ...]] = [
        ("format", "unit", "area A", "delay T", "energy", "KL", "over NVFP4's", "front of area",
         "of energy"),
        ("", "", "um2 per 8 MACs", "ns", "fJ per MAC", "nats", "nats", "", "")]
    for one, area, energy in zip(found, by_area, by_energy, strict=True):
        lines.append((one.format, one.unit, f"{one.area_um2:.0f}", f"{one.delay_ns:.3f}",
                      f"{one.energy_fj:.1f}", f"{one.kl:.3f} +- {one.kl_error:.3f}",
                      f"{one.over_nvfp4:.3f} +- {one.over_nvfp4_error:.3f}",
                      "yes" if area else "no", "yes" if energy else "no"))
    return "\n".join([
        *aligned(lines, left=(0, 1)), "",
        f"KL: {caption(losses, columns)}.",
        "over NVFP4's: paired by sequence, with the standard error.",
        f"It was measured by: {losses['command']} ({losses['date']}, SHA-256 of the result "
        f"{losses['digest'][:16]}...).",
        "front: no other format is at least as good in both and better in one. *: mapped module "
        "by module.", LEFT_OUT, *legend(results), tools_line(results)])


def draw(path: Path, found: list[Point], columns: int, results: Mapping[str, Any],
         losses: Mapping[str, Any]) -> None:
    """Draws the losses over area and over energy, with their fronts, to a PNG or SVG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"Accuracy over silicon\n{caption(losses, columns)}", fontsize=11)
    panels = figure.subplots(1, 2, sharey=True)
    quantities = "area_um2", "energy_fj"
    titles = ("area of the array per 8 MACs (\N{MICRO SIGN}m\N{SUPERSCRIPT TWO})",
              "energy of a MAC, real activity (fJ)")
    placed = [[(getattr(one, quantity), one.kl) for one in found] for quantity in quantities]
    for axes, places, on_front, title in zip(panels, placed, fronts(found), titles, strict=True):
        axes.set_yscale("log")
        axes.margins(0.2)
        for (x, y), one, best in zip(places, found, on_front, strict=True):
            color = "#0072b2" if best else "0.45"
            axes.errorbar(x, y, yerr=one.kl_error, fmt="o", color=color, capsize=3, markersize=7,
                          markerfacecolor=color if best else "white", zorder=3)
        axes.set_xlabel(title)
        axes.grid(color="0.9", linewidth=0.8, which="both")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
    panels[0].set_ylabel("KL from the float model (nats)")
    figure.supxlabel(f"Filled: on the front. Library {results['library']['name']}.\n{LEFT_OUT}",
                     fontsize=8, color="0.3")
    # The limits come from the points; the fronts extend to the edges and do not change them.
    for axes, places, on_front in zip(panels, placed, fronts(found), strict=True):
        right, top = axes.get_xlim()[1], axes.get_ylim()[1]
        axes.set_autoscale_on(False)
        steps = sorted(place for place, best in zip(places, on_front, strict=True) if best)
        corners = [(steps[0][0], top)]
        for (x, y), (end, _) in zip(steps, [*steps[1:], (right, 0.0)], strict=True):
            corners += [(x, y), (end, y)]
        axes.plot(*zip(*corners, strict=True), color="#0072b2", linewidth=1.2, alpha=0.6, zorder=2)
        write_labels(figure, axes, [(one.format, *place) for one, place in
                                    zip(found, places, strict=True)],
                     [*zip(corners, corners[1:], strict=False)])
    save_figure(figure, path)
