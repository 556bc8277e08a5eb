# SPDX-License-Identifier: BSD-2-Clause
"""Measures area, timing and power of the units with open tools: ``python -m hw.synth --help``."""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

from golden import command, interrupts

from . import registry
from .flow import measurement, power
from .flow.liberty import Library, find_library
from .report import comparison, fpga, html, silicon, sweep, text_tables
from .tools import cache, yosys
from .tools.errors import ToolError
from .tools.files import make_folder, write
from .tools.progress import progress


@command.run
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line, see ``--help``, and returns the exit status."""
    parser = command.Parser(prog="python -m hw.synth", description="Area and timing of the units.")
    parser.add_argument("units", metavar="UNIT", nargs="*", help="default: all units")
    parser.add_argument("--library", metavar="nangate45|FILE.lib", action="append",
                        help="cell library in the Liberty format, also compressed by gzip; several "
                             "--library make one library (default: nangate45)")
    parser.add_argument("--driver", metavar="CELL", default="",
                        help="the buffer that drives inputs and large loads (default: BUF_X2 or "
                             "the cheapest buffer for logic)")
    parser.add_argument("--wire-load", metavar="MODEL|default", default="",
                        help="time with wires as this wire-load model of the library estimates "
                             "them (default: without wires)")
    parser.add_argument("--corner", metavar="FILE.lib", action="append", default=[],
                        help="time with this library, too: the same cells at another corner "
                             "(repeatable; several files of one corner with commas between them)")
    parser.add_argument("--json", metavar="FILE", type=Path,
                        help="all figures with the slowest paths (default: build/synth.json; "
                             "with --compare, --sweep, --power or --fpga build/formats.json, "
                             "build/silicon.json, build/mapping.json, build/mappers.json, "
                             "build/sweep.json, build/power.json, build/ecp5.json or "
                             "build/ice40.json)")
    registry.add_settings(parser)
    parser.add_argument("--flatten", action="store_true",
                        help="map as a whole also the units that are mapped module by module, "
                             "which takes long")
    parser.add_argument("--amap", action="store_true",
                        help="map for area with ABC's amap instead of &nf, which Yosys runs: "
                             "smaller, and not to be compared with areas from elsewhere")
    parser.add_argument("--compare", metavar="formats|silicon|mapping|mappers",
                        help="instead of units, what MXFP4, NVFP4 and M2XFP cost, or what their "
                             "arrays cost and a model loses with them, or an array mapped module "
                             "by module and flattened, or the areas of both of ABC's mappers")
    parser.add_argument("--columns", metavar="N",
                        help="columns of the arrays that --compare builds (default: 4)")
    parser.add_argument("--power", action="store_true",
                        help="also estimate power under real and under random activity")
    parser.add_argument("--clock", metavar="MHZ", help="of --power (default: 500)")
    parser.add_argument("--report", metavar="FILE", type=Path,
                        help="instead of units, all figures on one HTML page (extra plot)")
    sweep.add_options(parser)
    fpga.add_options(parser)
    options = parser.parse_args(arguments)
    options.library = ",".join(options.library or ["nangate45"])
    options.set = registry.settings_of(options)
    if options.report is not None:
        for given, option in ((options.wire_load, "--wire-load"), (options.corner, "--corner")):
            if given:
                raise ValueError(f"--report is without wires and at one corner; leave out {option}")
        html.main(options)
        return 0
    if options.fpga is None:
        fpga.refuse_options(options)
    if options.json is None:
        kind = options.compare or options.fpga or ("sweep" if options.sweep else
                                                   "power" if options.power else "synth")
        options.json = Path("build", f"{kind}.json")
    if options.fpga is not None:
        return fpga.main(options)
    # Energies are half of what is compared there.
    options.power |= options.compare == "silicon"
    inspect = power.inspector(options.clock) if options.power else None
    if options.power and options.amap:
        raise ValueError("--power is of what is mapped for delay; leave out --amap")
    if options.clock is not None and not options.power:
        raise ValueError(f"--clock {options.clock} needs --power")
    if not options.sweep:
        sweep.refuse_options(options, plot=options.compare == "silicon")
    if options.compare is not None:
        return _compare(options, inspect)
    if options.columns is not None:
        raise ValueError(f"--columns {options.columns} needs --compare")
    if options.sweep:
        return sweep.main(options)
    names = registry.unique(options.units or (power.UNITS if options.power else registry.UNITS))
    if options.set and len(names) != 1:
        raise ValueError(f"--set {options.set[0]} needs exactly one unit, not {len(names)}")
    for name in names:
        registry.parameters(name, options.set)
        if options.power:
            power.check(name)
    library = _library(options)
    _prepare(options.json)
    jobs = {name: (name, options.set, options.flatten, options.amap) for name in names}
    report(jobs, library, options.json, inspect=inspect, fresh=options.fresh)
    return 0


def _library(options):
    """Reads the library and names its cells with logic that nothing is mapped to."""
    library = find_library(options.library, options.driver, options.wire_load, options.corner)
    for name, reason in library.left_out.items():
        print(f"{name} is left out: {reason}", file=sys.stderr)
    return library


def _prepare(path):
    """Tries the outputs and prepares Yosys, so that nothing of it fails after the work."""
    make_folder(path.parent, f"write --json {path}")
    command.check_output(path, "--json")
    cache.prepare("keep figures")
    yosys.prepare()


def _compare(options, inspect):
    compared = {"formats": ("format", comparison.format_units),
                "silicon": ("format", silicon.units),
                "mapping": ("mapping", comparison.mapping_units),
                "mappers": ("mapper", comparison.mapper_units)}
    if options.compare not in compared:
        raise ValueError(f"--compare must be one of {', '.join(compared)}, not {options.compare!r}")
    if options.units or options.set or options.sweep or options.flatten or options.amap:
        given = (options.units[0] if options.units else
                 f"--set {options.set[0]}" if options.set else
                 f"--sweep {options.sweep[0]}" if options.sweep else
                 "--flatten" if options.flatten else "--amap")
        raise ValueError(f"--compare chooses units itself; leave out {given}")
    if options.corner:
        raise ValueError("--compare times at one corner; leave out --corner")
    title, choose = compared[options.compare]
    rows = choose("4" if options.columns is None else options.columns)
    jobs = {}
    for _, _, name, settings, _ in rows:
        marks = comparison.FLATTEN, comparison.AMAP
        jobs[comparison.label(name, settings)] = (
            name, [text for text in settings if text not in marks],
            *(mark in settings for mark in marks))
    for name, settings, *_ in jobs.values():
        registry.parameters(name, settings)
    if options.plot:
        command.check_plot(options.plot)
    library = _library(options)
    _prepare(options.json)
    units = _synthesize_all(jobs, library, inspect=inspect, fresh=options.fresh)
    results = {"units": units, **measurement.describe(library)}
    if options.compare == "silicon":
        losses = silicon.accuracy()
        columns = registry.parameters("mac_array", rows[0][3])["columns"]
        found = silicon.points(rows, columns, results, losses)
        print(silicon.table(found, columns, results, losses), flush=True)
        results |= {"accuracy": losses, "points": [asdict(one) for one in found]}
    else:
        print(text_tables.comparison(rows, results, title), flush=True)
    _write(options.json, results)
    if options.plot:
        try:
            silicon.draw(options.plot, found, columns, results, losses)
        except OSError as error:
            raise ToolError(f"cannot write --plot {options.plot}: {error.strerror}") from None
        print(f"Plot in {options.plot}.")
    return 0


def report(jobs: Mapping[str, tuple[str, Sequence[str], bool, bool]], library: Library, path: Path,
           *, inspect: Callable[..., dict[str, Any]] | None = None, fresh: bool = False,
           ready: Callable[[str], object] | None = None,
           before: Callable[[], object] | None = None) -> None:
    """Prints the figures of units, each line as soon as it is known, and writes all as JSON.

    Parameters
    ----------
    jobs : dict of str to tuple
        By label: name, settings, whether to flatten and whether to map with ``amap``.
    library : Library
    path : Path
        Of the JSON file.
    inspect : callable, optional
        From `hw.flow.power.inspector`, for a table of power.
    fresh : bool
        Whether to measure again the units that the cache has.
    ready : callable, optional
        Called with a unit's name before it is measured; may wait.
    before : callable, optional
        Called before anything is printed; may wait.

    Raises
    ------
    ToolError
        If the file cannot be written, or if Yosys or a simulation fails with a unit; the others'
        figures are printed and written before.
    """
    def show(label, unit):
        if not shown:
            if before:
                before()
            print("\n".join(text_tables.head(jobs)))
        shown.append(label)
        print(text_tables.line(label, unit, jobs), flush=True)

    shown: list[str] = []
    failed: dict[str, ToolError] = {}
    units = _synthesize_all(jobs, library, inspect=inspect, fresh=fresh, ready=ready,
                            show=None if inspect else show, failed=failed)
    if failed and not units:
        raise next(iter(failed.values()))
    amap = any(amap for *_, amap in jobs.values())
    results = {"units": units, **measurement.describe(library, amap=amap)}
    print(text_tables.power_table(results) if inspect else text_tables.notes(results), flush=True)
    if failed:
        results["failed"] = {label: str(error) for label, error in failed.items()}
    _write(path, results)
    if failed:
        raise ToolError(f"{len(failed)} of {len(jobs)} units failed: "
                        f"{'; '.join(map(str, failed.values()))}")


def _write(path, results):
    try:
        write(path, json.dumps(results, indent=2) + "\n")
    except OSError as error:
        raise ToolError(f"cannot write --json {path}: {error.strerror}") from None


def _synthesize_all(units, library, *, inspect=None, fresh=False, show=None, ready=None,
                    failed=None):
    """Measures units with `hw.report.sweep.figures`; returns the figures by label.

    `units` is the `jobs` of `report`. `show` is called with label and figures, in the order of the
    units, as soon as they are known; `ready` with the name before a unit is measured. `failed`
    gets the errors of units that fail, by label; without it the first one is raised.
    """
    def measure(name, settings, flatten, amap):
        if ready:
            ready(name)
        return sweep.figures(name, settings, library, flatten=flatten, amap=amap,
                             inspect=inspect, fresh=forgotten)

    # Yosys runs as processes of its own and as many as there are cores, so threads may wait.
    results, forgotten, shown = {}, set() if fresh else None, 0
    with progress("synth", "unit", len(units)) as step, ThreadPoolExecutor(32) as pool:
        jobs = {pool.submit(measure, *unit): label for label, unit in units.items()}
        try:
            for done in as_completed(jobs):
                label = jobs[done]
                try:
                    results[label] = done.result()
                except ToolError as error:
                    if failed is None:
                        raise
                    failed[label] = error
                step(label)
                while show and shown < len(units) and (
                        (label := [*units][shown]) in results or label in failed):
                    if label in results:
                        with step.aside():
                            show(label, results[label])
                    shown += 1
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            # A job may be about to start Yosys.
            while any(job.running() for job in jobs) and not interrupts.seen():
                yosys.stop()
                time.sleep(0.1)
            raise
    return {label: results[label] for label in units if label in results}


if __name__ == "__main__":
    sys.exit(main())
