# SPDX-License-Identifier: BSD-2-Clause
"""Draws utilisation and activity of the accelerator over time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from golden.output import save_figure

LANES = {"weights in": ("i_weight",), "activations in": ("i_activation", "i_value"),
         "compute": (), "results out": ("o", "o_record")}
"""The streams of each bar; the bar of the array has none."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Windows:
    """A run divided into windows of time.

    Attributes
    ----------
    edges : int64 array
        First cycle of each window, and the end of the last window.
    utilisation : float array
        Useful multiplications in each window over those that the array could do.
    activity : dict of str to float array
        For each of `LANES`, the share of cycles with a transfer, or with an activation that enters
        the array.
    """

    edges: np.ndarray
    utilisation: np.ndarray
    activity: dict[str, np.ndarray]


def windows(times: Mapping[str, np.ndarray], rows: np.ndarray, macs: np.ndarray, *, cycles: int,
            peak: int, count: int = 400) -> Windows:
    """Divides a run into windows, each of whole tiles of weights.

    Windows of equal lengths would hold now more and now fewer waits between tiles, and show a
    ripple that is not there.

    A tile of weights meets one activation per cycle, the last one in the tile's cycle of
    ``o_trace``. All pauses since the tile before count as before the tile's first activation.

    Parameters
    ----------
    times : dict of str to array
        Cycles of the streams' transfers, with "o_trace".
    rows, macs : array
        Activations and multiplications of each tile, see `sim.gemm.tiles`.
    cycles : int
        Length of the run.
    peak : int
        Multiplications that the array can do in a cycle.
    count : int
        Largest number of windows.

    Returns
    -------
    Windows
    """
    after = np.asarray(times["o_trace"], np.int64) + 1
    edges = _edges(after, rows, cycles, count)
    widths = np.diff(edges)

    def during(amounts):
        # The amount done until each cycle grows linearly while a tile meets its activations.
        done = np.cumsum(amounts)
        reached = np.interp(edges, np.stack([after - rows, after], -1).reshape(-1),
                            np.stack([done - amounts, done], -1).reshape(-1))
        return np.diff(reached) / widths

    activity: dict[str, Any] = {}
    for lane, streams in LANES.items():
        moves = [np.asarray(times[name], np.int64) for name in streams if name in times]
        activity[lane] = sum(np.histogram(of, edges)[0] for of in moves) / widths if streams \
            else during(rows)
    return Windows(edges=edges, utilisation=during(macs) / peak, activity=activity)


def _edges(after, rows, cycles, count):
    """Ends of tiles, and their first activations if that is not too many, equally many a window."""
    marks = np.unique(np.concatenate([after - rows, after]))
    if len(marks) >= count:
        marks = np.unique(after)
    marks = marks[(marks > 0) & (marks < cycles)]
    if count == 1 or not len(marks):
        return np.array([0, cycles], np.int64)
    return np.array([0, *marks[:: -(-len(marks) // (count - 1))], cycles], np.int64)


def draw(path: Path, windows: Windows, *, title: str, ends: Sequence[int] = (),
         names: Sequence[str] = ()) -> None:
    """Draws utilisation and activity over time to a PNG or SVG file.

    Parameters
    ----------
    path : path
    windows : Windows
    title : str
    ends : sequence of int
        The cycle after the last cycle of each command.
    names : sequence of str
        Labels of the commands, if there are several.
    """
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure
    from matplotlib.ticker import StrMethodFormatter

    figure = Figure(figsize=(10, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=12)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))

    upper.stairs(100 * windows.utilisation, windows.edges, fill=True, color="#0072b2")
    upper.set_ylim(0, 116 if names else 104)
    upper.set_yticks(range(0, 101, 20))
    upper.set_ylabel("utilisation (% of peak MACs)")
    upper.grid(axis="y", color="0.85", linewidth=0.8)
    upper.set_axisbelow(True)
    for start, end, name in zip((0, *ends), ends, names, strict=False):
        upper.text((start + end) / 2, 107, name, ha="center", va="center", fontsize=9)
    for axes in (upper, lower):
        for end in ends[:-1]:
            axes.axvline(end, color="#d55e00", linestyle="--", linewidth=1.2)

    # One bar per lane, the first on top; cycles without activity stay white.
    busy = ListedColormap(colormaps["Blues"](np.linspace(0.25, 1, 256)))
    lanes = [*LANES]
    shares = 100 * np.stack([windows.activity[lane] for lane in lanes])
    for position, share in enumerate(shares):
        mesh = lower.pcolormesh(windows.edges, (position - 0.36, position + 0.36),
                                np.ma.masked_equal(share[None], 0), cmap=busy,
                                vmin=0, vmax=100, rasterized=True)
    lower.set_ylim(len(lanes) - 0.5, -0.5)
    lower.set_yticks(range(len(lanes)), lanes)
    lower.tick_params(axis="y", length=0)
    lower.set_xlim(0, windows.edges[-1])
    lower.set_xlabel("time (cycles)")
    lower.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    figure.colorbar(mesh, ax=lower, label="cycles active (%)", ticks=range(0, 101, 25))
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)
