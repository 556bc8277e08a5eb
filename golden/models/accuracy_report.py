# SPDX-License-Identifier: BSD-2-Clause
"""Tables and drawings of the figures of `golden.models.accuracy`."""

import re
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from ..formats.catalogue import FORMATS
from ..output import save_figure

NAMES = {"smollm2": "SmolLM2-135M-Instruct", "minilm": "all-MiniLM-L6-v2"}
REFERENCES = {"smollm2": "dequantized Q4_1", "minilm": "float32"}
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = "osD^v<>phPX*"


def what(options: Namespace) -> str:
    """Describes the model, its text and the quantized operands in two lines."""
    text = (f"{options.sequences} x {options.length} tokens" if options.model == "smollm2"
            else f"{options.sequences} articles of at most {options.length} tokens")
    attention = "; K and V as weights, Q and P as activations" if options.kv else ""
    return (f"{NAMES[options.model]}, reference = {REFERENCES[options.model]}; "
            f"{text} of lee_background.cor\n"
            f"all linear layers of the blocks: weights and activations{attention}")


def tables(rows: Sequence[Mapping[str, Any]], options: Namespace) -> Iterator[str]:
    """Writes a description, a table of losses, and a table of errors by kind of layer.

    Parameters
    ----------
    rows : sequence of dict
        What `golden.models.accuracy.summary` returns.
    options : argparse.Namespace
        Options of the command.

    Yields
    ------
    str
    """
    yield what(options)

    language = options.model == "smollm2"
    digits = 3 if language else 4
    columns: dict[str, Any] = {"format": lambda row: row["format"]}
    columns["bits"] = lambda row: "/".join(f"{b:g}" for b in dict.fromkeys(row["bits"]))
    if language:
        columns["perplexity"] = lambda row: f"{row['perplexity']:.2f}"
    columns["NLL increase" if language else "1 - cosine"] = lambda row: _pair(row["loss"], digits)
    columns["MXFP4's removed"] = lambda row: "" if row["format"] == "MXFP4" else (
        f"{_pair([100 * value for value in row['removed']], 1)} %")
    columns["NVFP4's minus it"] = lambda row: "" if row["format"] == "NVFP4" else (
        _pair(row["below_nvfp4"], digits))
    columns["KL" if language else "rank agreement"] = lambda row: (
        _pair(row["kl" if language else "rank"], 3))
    cells = [[cell(row) if "loss" in row or name in ("format", "perplexity") else ""
              for name, cell in columns.items()] for row in rows]
    yield table([*columns], cells)

    rows = [row for row in rows if "loss" in row]
    head = ["relative squared error", "weights", "activations", "outputs", "outputs of:"]
    kinds = list(rows[0]["kinds"])
    yield table([*head, *(_short(kind) for kind in kinds)], [
        [row["format"], *(f"{row[name]:.4f}" for name in head[1:4]), "",
         *(f"{row['kinds'][kind]:.4f}" for kind in kinds)] for row in rows])


def _pair(pair, digits):
    """A mean and its standard error."""
    return f"{pair[0]:.{digits}f} +- {pair[1]:.{digits}f}"


def _short(kind):
    return re.sub(r"^(self_attn|mlp|attention\.self)\.|(_proj|\.dense)$", "", kind)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligns cells in columns: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return "\n".join("  ".join(
        cell.rjust(width) if i else cell.ljust(width)
        for i, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip()
        for row in (head, *rows))


def draw(path: Path, rows: Sequence[Mapping[str, Any]], options: Namespace) -> None:
    """Draws the share of MXFP4's loss that each format removes as bars, with a line at NVFP4's.

    Parameters
    ----------
    path : Path
        File to write, PNG or SVG.
    rows, options
        As in `tables`.
    """
    from matplotlib.patheffects import withStroke

    rows = [row for row in rows if "loss" in row and row["format"] != "MXFP4"]
    nvfp4, = (100 * row["removed"][0] for row in rows if row["format"] == "NVFP4")
    figure = _figure(max(8, 2.2 + 1.2 * len(rows)), 5)
    figure.suptitle(what(options), fontsize=10)
    axes = figure.subplots()
    for i, row in enumerate(rows):
        share, error = (100 * value for value in row["removed"])
        axes.bar(i, share, 0.6, yerr=error, capsize=4, zorder=2,
                 color=COLORS[row["format"] != "NVFP4"], error_kw={"zorder": 4})
        axes.annotate(f"{share:.1f} %", (i, max(share + error, 0)), (0, 4), ha="center",
                      textcoords="offset points", fontsize=9, zorder=5,
                      path_effects=[withStroke(linewidth=3, foreground="white")])
    axes.axhline(nvfp4, color=COLORS[0], linestyle="--", linewidth=1.2, zorder=3)
    axes.axhline(0, color="0.3", linewidth=0.8)
    axes.set_xticks(range(len(rows)), [row["format"].replace("/", "/\n") for row in rows],
                    rotation=0 if len(rows) < 8 else 30)
    loss = "NLL increase" if options.model == "smollm2" else "1 - cosine"
    axes.set_ylabel(f"of MXFP4's {loss} removed (%)")
    axes.margins(y=0.1)
    _plain(axes, "y")
    save_figure(figure, path)


def _figure(width, height):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _plain(axes, grid):
    axes.grid(axis=grid, color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def front(errors: Mapping[str, Sequence[float]], operand: int) -> list[str]:
    """Finds the Pareto front: no other format has a smaller error with as many bits or fewer.

    Parameters
    ----------
    errors : mapping of str to sequence of float
        By format, the errors of weights and of activations.
    operand : int
        0 for weights, 1 for activations.

    Returns
    -------
    list of str
        Formats in ascending order of bits.
    """
    found: list[str] = []
    for name in sorted(errors, key=lambda name: (_bits(name), errors[name][operand])):
        if not found or errors[name][operand] < errors[found[-1]][operand]:
            found.append(name)
    return found


def _bits(name):
    return FORMATS[name].bits_per_element


def pareto_table(errors: Mapping[str, Sequence[float]]) -> str:
    """Errors by format as a table; a star marks those on the Pareto front.

    Parameters
    ----------
    errors : mapping of str to sequence of float
        As in `front`.

    Returns
    -------
    str
    """
    fronts = [front(errors, operand) for operand in (0, 1)]
    return table(["format", "bits", "weights", "activations"], [
        [name, f"{_bits(name):g}", *(f"{error:.5f} {'*' if name in best else ' '}"
                                     for error, best in zip(of, fronts, strict=True))]
        for name, of in sorted(errors.items(), key=lambda item: (_bits(item[0]), item[1]))])


def draw_pareto(path: Path, errors: Mapping[str, Sequence[float]], *, title: str) -> None:
    """Draws errors over bits per element: families of the design space and their Pareto front.

    Parameters
    ----------
    path : Path
        File to write, PNG or SVG.
    errors : mapping of str to sequence of float
        As in `front`.
    title : str
    """
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    families: dict[str, list[str]] = {}
    for name in errors:
        if parts := re.fullmatch(r"(Elem-EM|Sg-E[EM])-\d+(.*)", name):
            families.setdefault(parts[1] + parts[2], []).append(name)
    single = [name for name in errors if name not in sum(families.values(), [])]

    figure = _figure(12, 7)
    figure.suptitle(title, fontsize=11)
    for operand, (axes, operands) in enumerate(zip(
            figure.subplots(1, 2), ("weights", "activations"), strict=True)):
        best = front(errors, operand)
        axes.step([_bits(name) for name in best], [errors[name][operand] for name in best],
                  where="post", color="0.75", linewidth=5, zorder=1, label="Pareto front")
        for (family, names), color, marker in zip(families.items(), cycle(COLORS), MARKERS,
                                                  strict=False):
            names = sorted(names, key=_bits)
            axes.plot([_bits(name) for name in names], [errors[name][operand] for name in names],
                      color=color, marker=marker, markersize=6, linewidth=1.2, zorder=3,
                      label=family)
        for name in single:
            axes.plot(_bits(name), errors[name][operand], "k.", markersize=9, zorder=4)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("bits per element")
        axes.set_ylabel("relative squared error, mean over tensors")
        axes.set_title(operands, fontsize=11)
        _plain(axes, "both")
        axes.margins(x=0.25)
        _label(figure, axes, {name: (_bits(name), errors[name][operand]) for name in single})
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    save_figure(figure, path)


def _label(figure, axes, points):
    """Writes names to the right of points, and higher where one would cover another."""
    from matplotlib.patheffects import withStroke

    figure.draw_without_rendering()
    taken = []
    for name, point in sorted(points.items(), key=lambda item: item[1][::-1]):
        x, y = axes.transData.transform(point)
        note = axes.annotate(name, point, (9, 0), fontsize=8, va="center", zorder=5,
                             textcoords="offset points",
                             path_effects=[withStroke(linewidth=2, foreground="white")],
                             arrowprops={"arrowstyle": "-", "color": "0.5", "linewidth": 0.6})
        box = note.get_window_extent()
        above = [other.y1 for other in taken if other.x0 < box.x1 and box.x0 < other.x1
                 and other.y1 > box.y0]
        shift = max(above, default=box.y0) - box.y0
        note.xyann = 9, shift * 72 / figure.dpi
        taken.append(box.translated(0, shift))
