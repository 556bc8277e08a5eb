# SPDX-License-Identifier: BSD-2-Clause
"""Measures units over their parameters: ``python -m hw.synth UNIT --sweep ...``.

The cache keeps each point as soon as it is measured, so an interrupted sweep does not measure it
again.
"""

import argparse
import csv
import hashlib
import io
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from golden import interrupts
from golden.command import Interrupted, check_output, check_plot

from .. import registry
from ..flow import measurement
from ..flow.emitted import emitted, files, sources
from ..flow.liberty import Library, find_library, paths_of
from ..flow.power import amount, inspector
from ..tools import cache as kept
from ..tools import yosys
from ..tools.cluster import Cluster
from ..tools.files import make_folder, write
from ..tools.progress import progress
from ..tools.yosys import ToolError
from . import pareto, text_tables
from .comparison import label

FIGURES = ("cells", "flip_flops", "area_um2", "sequential_area_um2", "area_timed_um2", "delay_ns",
           "path_class", "io_delay_ns", "fmax_mhz", "fmax_io_mhz", "memory_bits",
           "area_per_tile_um2", "hierarchical", "synthesis_s")
"""Entries of `hw.flow.measurement.measure` that become columns of the CSV file."""

FLOW = ("hw/verilog/*.py", "hw/flow/*.py", "hw/tools/*.py")
"""Sources of the flow that turns a component into figures."""


@dataclass(frozen=True)
class Point:
    """A unit with a choice of parameters.

    Attributes
    ----------
    unit : str
    settings : tuple of str
        As in `registry.parameters`.
    """

    unit: str
    settings: tuple[str, ...]

    @property
    def label(self) -> str:
        """Name of the point, from `hw.report.comparison.label`."""
        return label(self.unit, self.settings)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that only sweeps have."""
    parser.add_argument("--sweep", metavar="PARAMETER=VALUE,...", nargs="+", action="extend",
                        help="the units with every combination of these values")
    parser.add_argument("--csv", metavar="FILE", type=Path,
                        help="figures of a sweep (default: build/sweep.csv)")
    parser.add_argument("--plot", metavar="FILE", type=Path,
                        help="draw a sweep's areas over delays, or what --compare silicon "
                             "compares, as PNG or SVG (extra plot)")
    parser.add_argument("--fresh", action="store_true",
                        help="measure again what the cache has")
    parser.add_argument("--scheduler", metavar="ADDRESS",
                        help="sweep on the workers of a Dask scheduler, such as tcp://host:8786 "
                             "(extra cluster)")


def refuse_options(options: argparse.Namespace, *, plot: bool = False) -> None:
    """Raises ValueError if an option is given that only sweeps have.

    Parameters
    ----------
    options : Namespace
    plot : bool
        Whether something else is drawn.
    """
    for name in ("csv", "plot", "scheduler"):
        if getattr(options, name) is not None and not (plot and name == "plot"):
            raise ValueError(f"--{name} needs --sweep" + " or --compare silicon" * (name == "plot"))


def main(options: argparse.Namespace) -> int:
    """Runs a sweep, prints its table and writes its files.

    Parameters
    ----------
    options : Namespace
        The options of `hw.synth`.

    Returns
    -------
    int
        The exit status 0.

    Raises
    ------
    ValueError
        If an option is wrong or does not go with ``--sweep``.
    ToolError
        If a point failed or a file cannot be written, when all else has been done.
    """
    table_path = options.csv or Path("build", "sweep.csv")
    if options.power:
        raise ValueError("--sweep does not estimate power; leave out --power")
    if options.amap:
        raise ValueError("--sweep maps as Yosys does; leave out --amap")
    if options.corner:
        raise ValueError("--sweep times at one corner; leave out --corner")
    if not options.units:
        raise ValueError("--sweep needs a unit, one or more of " + ", ".join(registry.UNITS))
    chosen = points(options.units, options.set, options.sweep)
    if options.plot:
        check_plot(options.plot)
    library = find_library(options.library, options.driver, options.wire_load)
    for option, path in (("--csv", table_path), ("--json", options.json)):
        make_folder(path.parent, f"write {option} {path}")
        check_output(path, option)
    kept.prepare("keep points")
    cluster = Cluster(options.scheduler) if options.scheduler is not None else None
    try:
        results, failed = run(chosen, library, source=options.library, flatten=options.flatten,
                              fresh=options.fresh, cluster=cluster)
    finally:
        if cluster:
            cluster.close()
    described = measurement.describe(library)
    print(table(chosen, results, failed, described), flush=True)
    errors = []
    for option, path, text in (("--csv", table_path, as_csv(chosen, results, failed)),
                               ("--json", options.json, _as_json(results, failed, described))):
        try:
            write(path, text)
        except OSError as error:
            errors.append(f"cannot write {option} {path}: {error.strerror}")
    if options.plot and results:
        try:
            _draw(options.plot, results, library)
        except ToolError as error:
            errors.append(str(error))
    if failed:
        errors.append(f"{len(failed)} of {len(chosen)} points failed")
    if errors:
        raise ToolError("; ".join(errors))
    return 0


def points(units: Iterable[str], fixed: Iterable[str], sweeps: Iterable[str]) -> list[Point]:
    """Lists the points of a sweep.

    Parameters
    ----------
    units : iterable of str
    fixed : iterable of str
        Texts of the form "parameter=value".
    sweeps : iterable of str
        Texts of the form "parameter=value,value".

    Returns
    -------
    list of Point
        Units and values in the order given; the last parameter changes fastest.

    Raises
    ------
    ValueError
        If a unit has not all of the parameters and values, or a unit, a parameter or a value is
        given twice.
    """
    values: dict[str, list[str]] = {}
    for option, form, texts in (("--set", "value", fixed), ("--sweep", "value,value", sweeps)):
        for text in texts:
            parameter, equals, given = text.partition("=")
            if not equals:
                raise ValueError(f"{option} must be of the form parameter={form}, not {text!r}")
            if parameter in values:
                raise ValueError(f"{option} must give a new parameter, not {parameter!r} again")
            values[parameter] = given.split(",") if option == "--sweep" else [given]
            if len({*values[parameter]}) < len(values[parameter]):
                raise ValueError(f"{option} must give each value once, not {text!r}")
    found = [Point(unit, tuple(map("=".join, zip(values, choice, strict=True))))
             for unit in registry.unique(units) for choice in product(*values.values())]
    for point in found:
        registry.parameters(point.unit, point.settings)
    return found


def run(points: Sequence[Point], library: Library, *, source: str = "nangate45",
        flatten: bool = False, fresh: bool = False, power: bool = False,
        cluster: Cluster | None = None) -> tuple[dict[Point, dict[str, Any]], dict[Point, str]]:
    """Measures the points that the cache does not have, several at a time.

    Parameters
    ----------
    points : list of Point
    library : Library
    source : str
        Argument of `hw.flow.liberty.find_library` that gives the library.
    flatten : bool
        As in `hw.flow.measurement.measure`.
    fresh : bool
        Whether to measure again the points that the cache has.
    power : bool
        Whether to estimate power too, on this machine only.
    cluster : Cluster, optional
        Measures the points on its workers instead of on this machine.

    Returns
    -------
    results : dict of Point to dict
        Figures from `hw.flow.measurement.measure`, in the order of the points.
    failed : dict of Point to str
        One line for each point that has no result, with the reason.

    Raises
    ------
    Interrupted
        On a KeyboardInterrupt.
    """
    estimated = inspector() if power else None
    forgotten: set[Path] | None = set() if fresh else None

    def job(point):
        def measure():
            if cluster:
                key = key_of(point, library, flatten)
                return cluster.run(_measure_there, point, _absolute(source),
                                   library.chosen_driver, library.wire_load, flatten, key)
            return _measure(point, library, flatten, estimated, forgotten)

        return _kept(key_of(point, library, flatten, power), measure, forgotten)

    # Yosys runs as processes of its own, and workers are elsewhere: threads are enough.
    workers = len(points) if cluster else os.cpu_count()
    jobs: dict[Future, Point] = {}
    results: dict[Point, dict[str, Any]] = {}
    failed: dict[Point, str] = {}
    with progress("sweep", "point", len(points)) as step, ThreadPoolExecutor(workers) as pool:
        try:
            jobs.update((pool.submit(job, point), point) for point in points)
            for done in as_completed(jobs):
                point = jobs[done]
                if error := done.exception():
                    failed[point] = _line(error)
                else:
                    results[point] = done.result()
                step(point.label)
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            # A job may be about to start Yosys.
            while any(job.running() for job in jobs) and not interrupts.seen():
                cluster.stop() if cluster else yosys.stop()
                time.sleep(0.1)
            ready = sum(job.done() and not job.cancelled() and not job.exception() for job in jobs)
            raise Interrupted(f"interrupted: {ready} of {len(points)} points are done and kept; "
                              "the same command goes on from there") from None
    return ({point: results[point] for point in points if point in results},
            {point: failed[point] for point in points if point in failed})


def figures(name: str, settings: Sequence[str], library: Library, *, flatten: bool = False,
            amap: bool = False, inspect: Callable[..., dict[str, Any]] | None = None,
            fresh: set[Path] | None = None) -> dict[str, Any]:
    """Measures a unit as `hw.flow.measurement.measure` does, unless the cache has its figures.

    With an ``inspect`` the cache of figures is not used.

    Parameters
    ----------
    name, settings, library, flatten, amap, inspect, fresh
        As in `hw.flow.measurement.measure`.

    Returns
    -------
    dict
    """
    def measure():
        return measurement.measure(name, settings, library, flatten=flatten, amap=amap,
                                   inspect=inspect, **_unless_none(fresh=fresh))

    if inspect:
        return measure()
    return _kept(key_of(Point(name, tuple(settings)), library, flatten, amap=amap), measure, fresh)


def _kept(key, measure, forgotten):
    """Takes figures from the cache or, if it has none under the key, measures and keeps them."""
    path = kept.folder() / key / "figures.json"
    kept.forget(path, forgotten)
    if (text := kept.read(path)) is None:
        text = json.dumps(measure())
        kept.store(path, text)
    return json.loads(text)


def _measure(point, library, flatten, estimated=None, forgotten=None):
    with _first:
        _prepare()
    return measurement.measure(point.unit, point.settings, library, flatten=flatten,
                               inspect=estimated, **_unless_none(fresh=forgotten))


def _unless_none(**options):
    return {name: value for name, value in options.items() if value is not None}


_first = threading.Lock()


@cache
def _prepare():
    yosys.prepare()


def _measure_there(point, source, driver, wire_load, flatten, key):
    """Measures a point on a worker of a cluster."""
    library = _library(source, driver, wire_load)
    if key_of(point, library, flatten) != key:
        raise ToolError("the worker's version of this project, its library or its tools are not "
                        "those of the sweep")
    return _measure(point, library, flatten)


_library = cache(find_library)


def _absolute(source):
    """A library's name that means the same in every folder."""
    if source == "nangate45":
        return source
    return ",".join(str(path.absolute()) for path in paths_of(source))


def key_of(point: Point, library: Library, flatten: bool, power: bool = False,
           amap: bool = False) -> str:
    """Returns a digest of all that the figures of a point depend on.

    Parameters
    ----------
    point : Point
    library, flatten, power
        As in `run`.
    amap : bool
        As in `hw.flow.measurement.measure`.

    Returns
    -------
    str
        Name of the point's folder in the cache.
    """
    unit, chosen = registry.UNITS[point.unit], registry.parameters(point.unit, point.settings)
    described = measurement.describe(library, amap=amap)
    del described["versions"]["python"]
    return kept.digest(
        "figures", emitted(point.unit, point.settings), *sources(_tools()), json.dumps(described),
        f"{chosen} {unit.tiles and unit.tiles(**chosen)} {unit.hierarchical and not flatten}",
        *(_activity() if power else ()))


@cache
def _activity():
    """Digests of the sources of the activity, on which power depends too: the golden model."""
    paths = files("golden/**/*.py", "golden/**/*.c", "golden/models/data/*")
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def _tools():
    """Source files of `FLOW`."""
    return files(*FLOW)


def _line(error):
    """Describes an exception in one line."""
    text = str(error).strip().partition("\n")[0]
    if isinstance(error, ToolError | ValueError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def slowest(result: Mapping[str, Any]) -> float | None:
    """Returns the delay of the slowest path, including those at ports, in ns; None without path."""
    return max((path["delay_ns"] for path in result["paths"].values()), default=None)


def fronts(results: Mapping[Point, dict[str, Any]]) -> set[Point]:
    """Finds the points on the Pareto front of their job, of area and delay mapped for delay.

    Points do the same job if they are of one unit and differ in `Unit.same_job` only. A point alone
    is on no front.

    Parameters
    ----------
    results : dict of Point to dict
        As `run` returns them.

    Returns
    -------
    set of Point
    """
    found: set[Point] = set()
    for group in _jobs(results).values():
        if len(group) > 1:
            best = pareto.front([(delay, result["area_timed_um2"]) for result in group.values()
                                 if (delay := slowest(result)) is not None])
            found |= {point for point, is_best in zip(group, best, strict=True) if is_best}
    return found


def _jobs(results):
    """Groups the results that have a delay by what the points do."""
    jobs: dict[tuple[str, str], dict[Point, dict[str, Any]]] = {}
    for point, result in results.items():
        if slowest(result) is not None:
            chosen = {parameter: value for parameter, value
                      in registry.parameters(point.unit, point.settings).items()
                      if parameter not in registry.UNITS[point.unit].same_job}
            jobs.setdefault((point.unit, str(chosen)), {})[point] = result
    return jobs


def as_csv(points: Sequence[Point], results: Mapping[Point, dict[str, Any]],
           failed: Mapping[Point, str]) -> str:
    """Returns CSV with a row per point; the row of a point that failed has its error.

    Parameters
    ----------
    points : list of Point
    results, failed : dict of Point to dict, dict of Point to str
        As `run` returns them.

    Returns
    -------
    str
    """
    best, rivals = fronts(results), {point for job in _jobs(results).values() if len(job) > 1
                                     for point in job}
    parameters = {point: registry.parameters(point.unit, point.settings) for point in points}
    names = dict.fromkeys(name for chosen in parameters.values() for name in chosen)
    text = io.StringIO()
    writer = csv.DictWriter(text, ["unit", *names, *FIGURES, "slowest_path_ns", "pareto", "error"],
                            lineterminator="\n")
    writer.writeheader()
    for point in points:
        row = {"unit": point.unit, **parameters[point], "error": failed.get(point)}
        if result := results.get(point):
            row |= {name: result[name] for name in FIGURES}
            row |= {"slowest_path_ns": slowest(result),
                    "pareto": point in best if point in rivals else None}
        writer.writerow(row)
    return text.getvalue()


def _as_json(results, failed, described):
    return json.dumps({"units": {point.label: result for point, result in results.items()},
                       "failed": {point.label: error for point, error in failed.items()},
                       **described}, indent=2) + "\n"


def table(points: Sequence[Point], results: Mapping[Point, dict[str, Any]],
          failed: Mapping[Point, str], described: dict[str, Any]) -> str:
    """Returns a table with a line per point, and a legend.

    Parameters
    ----------
    points : list of Point
    results, failed : dict of Point to dict, dict of Point to str
        As `run` returns them.
    described : dict
        From `hw.flow.measurement.describe`.

    Returns
    -------
    str
    """
    best = fronts(results)
    names = [setting.partition("=")[0] for setting in points[0].settings]
    rows = [("unit", *names, "cells", "area A", "area T", "delay T", "clock", ""),
            ("", *("" for _ in names), "", "um2", "um2", "ns", "MHz", "")]
    for point in points:
        values = [setting.partition("=")[2] for setting in point.settings]
        if point in failed:
            rows.append((point.unit, *values, *"-----", failed[point]))
            continue
        result = results[point]
        delay = slowest(result)
        timed = ("-", "-") if delay is None else (amount(delay, 3), f"{result['fmax_io_mhz']:.0f}")
        rows.append((point.unit + "*" * result["hierarchical"], *values, str(result["cells"]),
                     amount(result["area_um2"], 0), amount(result["area_timed_um2"], 0), *timed,
                     "front" if point in best else ""))
    return "\n".join([
        *text_tables.aligned(rows, left=(0, len(rows[0]) - 1)), "",
        "A: mapped for area. T: mapped for delay, which is the slowest path of all, ports",
        "included. clock: with registers on all ports. front: of the points that do the same job,",
        "and so differ in depth only, none is at least as good in area T and delay T and better in",
        "one. *: mapped module by module.",
        text_tables.tools_line(described)])


def _draw(path, results, library):
    groups: dict[str, list[tuple[str, float | None, float]]] = {}
    for group in _jobs(results).values():
        name = next(iter(group)).unit
        all_of_unit = [point for point in results if point.unit == name]
        same = registry.UNITS[name].same_job
        kept = [setting for setting in next(iter(group)).settings
                if setting.partition("=")[0] not in same]
        groups[label(name, kept)] = [
            (_short(point, group if len(group) > 1 else all_of_unit) or name, slowest(result),
             result["area_timed_um2"]) for point, result in group.items()]
    if not groups:
        raise ToolError(f"--plot {path}: no point has a delay")
    units = dict.fromkeys(point.unit for point in results)
    title = f"{', '.join(units)}: area over delay, {library.name}"
    try:
        pareto.draw(path, groups, title=title)
    except OSError as error:
        raise ToolError(f"cannot write {path}: {error.strerror}") from None
    print(f"Plot in {path}.")


def _short(point, group):
    """Names the settings that distinguish a point from the others of its unit."""
    words = []
    for setting, *others in zip(point.settings, *(other.settings for other in group), strict=True):
        parameter, _, value = setting.partition("=")
        if set(others) != {setting}:
            named = value.isdecimal() or value in ("True", "False")
            words.append(f"{parameter}={value}" if named else value)
    return ", ".join(words)
