# SPDX-License-Identifier: BSD-2-Clause
"""Figures of units on FPGAs: ``python -m hw.synth --fpga FAMILY [UNIT ...]``."""

import argparse
import csv
import io
import json
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from golden import interrupts
from golden.command import Interrupted, check_output

from .. import registry
from ..flow import fpga
from ..tools import cache, yosys
from ..tools.errors import ToolError
from ..tools.files import make_folder, write
from ..tools.progress import progress
from . import sweep, text_tables
from .sweep import Point

FIGURES = ("luts", "flip_flops", "multipliers", "block_rams", "fits", "fmax_mhz", "fmax_io_mhz",
           "path_class", "synthesis_s")
"""Entries of `hw.flow.fpga.measure` that become columns of the CSV file."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of figures on FPGAs."""
    parser.add_argument("--fpga", metavar="|".join(fpga.FAMILIES),
                        help="instead of area and timing in a cell library, LUTs, flip-flops, "
                             "multipliers, block RAMs and clock on an FPGA of this family (extra "
                             "fpga); units that do not fit are measured in smaller sizes unless "
                             "they are named")
    parser.add_argument("--map-options", metavar="OPTIONS",
                        help="of --fpga: options of Yosys' synth_ecp5 or synth_ice40, as in "
                             "--map-options='-nowidelut -nodffe' (default: "
                             + "; ".join(f"{shlex.join(family.options)} for {name}"
                                         for name, family in fpga.FAMILIES.items()) + ")")
    parser.add_argument("--seed", metavar="N",
                        help=f"of --fpga: seed of placement and routing (default: {fpga.SEED})")


def refuse_options(options: argparse.Namespace) -> None:
    """Raises ValueError if an option is given that only figures on FPGAs have."""
    for name in ("map_options", "seed"):
        if (given := getattr(options, name)) is not None:
            raise ValueError(f"--{name.replace('_', '-')} {given} needs --fpga")


def main(options: argparse.Namespace) -> int:
    """Measures units on an FPGA, prints a line for each and writes the files.

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
        If an option is wrong or does not go with ``--fpga``.
    ToolError
        If a unit failed or a file cannot be written, when all else has been done.
    """
    family = fpga.find_family(options.fpga)
    _refuse_others(options)
    chosen = _points(options)
    words = family.options if options.map_options is None else _words(options.map_options)
    seed = fpga.SEED if options.seed is None else _seed(options.seed)
    outputs = [("--json", options.json)]
    if options.sweep:
        outputs.append(("--csv", options.csv or Path("build", f"{options.fpga}.csv")))
    for option, path in outputs:
        make_folder(path.parent, f"write {option} {path}")
        check_output(path, option)
    cache.prepare("keep figures")
    yosys.prepare()
    yosys.prepare("nextpnr", family.program)

    labels = [point.label for point in chosen]
    print("\n".join(head(labels)), flush=True)
    results, failed = run(chosen, family, options=words, seed=seed, fresh=options.fresh,
                          show=lambda label, unit: print(line(label, unit, labels), flush=True))
    described = fpga.describe(family, words, seed)
    print("\n".join(legend(described)), flush=True)
    texts = {"--json": json.dumps({
        "units": {point.label: result for point, result in results.items()},
        **({"failed": {point.label: text for point, text in failed.items()}} if failed else {}),
        **described}, indent=2) + "\n", "--csv": as_csv(chosen, results, failed)}
    errors = list(failed.values())
    for option, path in outputs:
        try:
            write(path, texts[option])
        except OSError as error:
            errors.append(f"cannot write {option} {path}: {error.strerror}")
    if errors:
        raise ToolError("; ".join(errors))
    return 0


def _refuse_others(options):
    given = {"--library": options.library != "nangate45", "--driver": options.driver,
             "--wire-load": options.wire_load, "--corner": options.corner,
             "--flatten": options.flatten, "--amap": options.amap, "--power": options.power,
             "--compare": options.compare is not None, "--columns": options.columns is not None,
             "--clock": options.clock is not None, "--plot": options.plot is not None,
             "--scheduler": options.scheduler is not None,
             "--csv": options.csv is not None and not options.sweep}
    for option, is_given in given.items():
        if is_given:
            raise ValueError(f"--fpga does not take {option}"
                             + " without --sweep" * (option == "--csv"))


def _points(options):
    """The units that are measured, with their settings."""
    if options.sweep:
        if not options.units:
            raise ValueError("--sweep needs a unit, one or more of " + ", ".join(registry.UNITS))
        return sweep.points(options.units, options.set, options.sweep)
    names = registry.unique(options.units or registry.UNITS)
    if options.set and len(names) != 1:
        raise ValueError(f"--set {options.set[0]} needs exactly one unit, not {len(names)}")
    smaller = {} if options.units else fpga.SMALLER
    points = [Point(name, tuple(options.set) or smaller.get(name, ())) for name in names]
    for point in points:
        registry.parameters(point.unit, point.settings)
    return points


def _words(text):
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise ValueError(f"--map-options must be options of a Yosys command, not {text!r}: "
                         f"{error}") from None
    # They become a line of a script.
    if wrong := [word for word in words if not word.replace("-", "").replace("_", "").isalnum()]:
        raise ValueError(f"--map-options must be options of a Yosys command, not {wrong[0]!r}")
    return words


def _seed(text):
    if not (text.isascii() and text.isdecimal() and len(text) < 9):
        raise ValueError(f"--seed must be an integer of 0 to 99999999, not {text!r}")
    return int(text)


def run(points: Sequence[Point], family: fpga.Family, *, options: Sequence[str],
        seed: int = fpga.SEED, fresh: bool = False,
        show: Callable[[str, dict[str, Any]], object] | None = None,
        ) -> tuple[dict[Point, dict[str, Any]], dict[Point, str]]:
    """Measures points on an FPGA, unless the cache has them.

    Parameters
    ----------
    points : list of Point
    family : Family
    options, seed
        As in `hw.flow.fpga.measure`.
    fresh : bool
        Whether to measure again what the cache has.
    show : callable, optional
        Called with label and figures, in the order of the points, as soon as they are known.

    Returns
    -------
    results : dict of Point to dict
        Figures from `hw.flow.fpga.measure`.
    failed : dict of Point to str
        One line for each point without figures.

    Raises
    ------
    Interrupted
        On a KeyboardInterrupt.
    """
    forgotten: set[Path] | None = set() if fresh else None
    results: dict[Point, dict[str, Any]] = {}
    failed: dict[Point, str] = {}
    shown = 0
    # The programs run as processes of their own and as many as there are cores: threads may wait.
    with progress("fpga", "unit", len(points)) as step, ThreadPoolExecutor(32) as pool:
        jobs = {pool.submit(fpga.figures, point.unit, point.settings, family, options=options,
                            seed=seed, fresh=forgotten): point for point in points}
        try:
            for done in as_completed(jobs):
                point = jobs[done]
                try:
                    results[point] = done.result()
                except ToolError as error:
                    failed[point] = str(error)
                step(point.label)
                while show and shown < len(points) and (
                        (point := points[shown]) in results or point in failed):
                    if point in results:
                        with step.aside():
                            show(point.label, results[point])
                    shown += 1
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            # A job may be about to start a program.
            while any(job.running() for job in jobs) and not interrupts.seen():
                yosys.stop()
                time.sleep(0.1)
            if isinstance(error, KeyboardInterrupt):
                raise Interrupted("interrupted: what is done is kept; the same command goes on "
                                  "from there") from None
            raise
    return ({point: results[point] for point in points if point in results},
            {point: failed[point] for point in points if point in failed})


def gathered(family: fpga.Family) -> dict[str, Any]:
    """Measures all units, in sizes that fit, for the report page.

    Parameters
    ----------
    family : Family

    Returns
    -------
    dict
        ``units``, figures by label, and the entries of `hw.flow.fpga.describe`.

    Raises
    ------
    ToolError
        If a unit fails.
    """
    yosys.prepare("nextpnr", family.program)
    points = [Point(name, fpga.SMALLER.get(name, ())) for name in registry.UNITS]
    results, failed = run(points, family, options=family.options)
    for error in failed.values():
        raise ToolError(error)
    return {"units": {point.label: result for point, result in results.items()},
            **fpga.describe(family, family.options, fpga.SEED)}


_HEAD = (("unit", "LUTs", "flip-flops", "mult", "RAM", "Fmax", "clock", "path", "time",
          "slowest path"),
         ("", "", "", "", "", "MHz", "MHz", "", "s", ""))

_WIDEST = "000000", "", "", "", "000.0", "000.0", "reg-reg", "0000", ""


def head(labels: Sequence[str]) -> list[str]:
    """Returns the two heading lines of a table of the units with these labels."""
    return [_aligned(row, labels) for row in _HEAD]


def line(label: str, unit: Mapping[str, Any], labels: Sequence[str]) -> str:
    """Returns a unit's line in a table of the units with these labels."""
    return _aligned(cells(label, unit), labels)


def cells(label: str, unit: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the texts of a unit's line."""
    slowest = unit["paths"].get(unit["path_class"])
    where = f"{slowest['startpoint']} -> {slowest['endpoint']}" if slowest else (
        "-" if unit["fits"] else "does not fit")
    return (label, *(str(unit[figure]) for figure in FIGURES[:4]), _mhz(unit["fmax_mhz"]),
            _mhz(unit["fmax_io_mhz"]), unit["path_class"] or "-", f"{unit['synthesis_s']:.0f}",
            where)


def _mhz(frequency):
    return "-" if frequency is None else f"{frequency:.1f}"


def _aligned(row, labels):
    widest = max(map(len, labels), default=0) * "x", *_WIDEST
    return text_tables.aligned([row, *_HEAD, widest], left=(0, 7, 9))[0]


def legend(described: Mapping[str, Any]) -> list[str]:
    """Returns the lines below a table, for what `hw.flow.fpga.describe` returns."""
    tools = ", ".join(f"{name} {version}" for name, version in described["versions"].items()
                      if name != "python")
    command = described["script"]["yosys"].splitlines()[-1].partition(" -top")[0]
    return [
        "", f"{described['device']}; {command}, then nextpnr, seed {described['seed']}, placed and "
        "routed out of context.",
        "Fmax: from register to register. clock: of all paths, with a register on each bit of each "
        "port,", "which does not count. path: the class of the slowest of all paths.",
        f"{tools}.{text_tables.unlike_published()}"]


def as_csv(points: Sequence[Point], results: Mapping[Point, dict[str, Any]],
           failed: Mapping[Point, str]) -> str:
    """Returns a CSV table with a row per point; the row of a point that failed has its error."""
    parameters = {point: registry.parameters(point.unit, point.settings) for point in points}
    names = dict.fromkeys(name for chosen in parameters.values() for name in chosen)
    text = io.StringIO()
    writer = csv.DictWriter(text, ["unit", *names, *FIGURES, "error"], lineterminator="\n")
    writer.writeheader()
    for point in points:
        figures = {name: results[point][name] for name in FIGURES} if point in results else {}
        writer.writerow({"unit": point.unit, **parameters[point], **figures,
                         "error": failed.get(point)})
    return text.getvalue()
