"""Pictures of what the accelerator does over time."""

from dataclasses import dataclass

import numpy as np

LANES = {"weights in": ("i_weight",), "activations in": ("i_activation", "i_value"),
         "compute": (), "results out": ("o", "o_record")}
"""The streams of each bar; the array's own has none."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Windows:
    """A run divided into windows of time.

    Attributes
    ----------
    edges : int64 array
        Cycles in which windows begin, and the end of the last one.
    utilisation : float array
        Share of the array's multiplications in each that count.
    activity : dict of str to float array
        For each of `LANES`, the share of cycles with a transfer, or in which an activation enters
        the array.
    """

    edges: np.ndarray
    utilisation: np.ndarray
    activity: dict


def windows(times, rows, macs, *, cycles, peak, count=400):
    """Divides a run into windows.

    A tile of weights meets one activation per cycle, the last one in its cycle of ``o_trace``; all
    pauses since the tile before are taken to lie in front of the first one.

    Parameters
    ----------
    times : dict of str to array
        Cycles of the streams' transfers, with "o_trace".
    rows, macs : array
        Activations and multiplications of each tile, see `sim.gemm.tiles`.
    cycles : int
        Of the run.
    peak : int
        Multiplications that the array can do in a cycle.
    count : int
        Windows, unless there are fewer cycles.

    Returns
    -------
    Windows
    """
    edges = np.linspace(0, cycles, min(count, cycles) + 1).round().astype(np.int64)
    widths = np.diff(edges)
    after = np.asarray(times["o_trace"], np.int64) + 1

    def during(amounts):
        # What has been done by each cycle: it grows while a tile meets its activations.
        done = np.cumsum(amounts)
        reached = np.interp(edges, np.stack([after - rows, after], -1).reshape(-1),
                            np.stack([done - amounts, done], -1).reshape(-1))
        return np.diff(reached) / widths

    activity = {}
    for lane, streams in LANES.items():
        moves = [np.asarray(times[name], np.int64) for name in streams if name in times]
        activity[lane] = sum(np.histogram(of, edges)[0] for of in moves) / widths if streams \
            else during(rows)
    return Windows(edges=edges, utilisation=during(macs) / peak, activity=activity)


def draw(path, windows, *, title, ends=(), names=()):
    """Draws utilisation and activity over time to a PNG or SVG file.

    Parameters
    ----------
    path : path
    windows : Windows
    title : str
    ends : sequence of int
        Cycle after each command's last one.
    names : sequence of str
        What to call each command, where there are several.
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

    # One bar per lane, the first on top; where nothing moves it stays white.
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
    figure.savefig(path, dpi=150)
