# SPDX-License-Identifier: BSD-2-Clause
"""The command ``python -m sim perf``."""

import argparse
import json
import os
import shlex
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from golden.command import check_folder, check_matplotlib, check_output, check_plot
from golden.output import remove_left
from hw.tools.files import write
from hw.tools.progress import counting

from . import drawings, page, paper, rivals, tables
from .export import export
from .machine import Machine, find_machine
from .models import PAPER, find_models, packaged_models
from .predict import Prediction, predict
from .settings import merged
from .spread import predictions
from .validate import validate
from .workload import PHASES, Job

_DEFAULTS = {"phase": "prefill", "seq": 2048, "batch": 1}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this command to a parser."""
    parser.add_argument("--model", nargs="+", metavar="NAME|FILE.toml",
                        help="models, or files with tables of models (default: llama3-8b; with "
                             "--paper and --against the paper's six): "
                             + ", ".join(packaged_models()))
    parser.add_argument("--phase", default="prefill", choices=PHASES,
                        help="a whole prompt, or one token per sequence (default: prefill)")
    parser.add_argument("--seq", type=int, default=2048, metavar="N",
                        help="tokens of the prompt, or in the cache (default: 2048)")
    parser.add_argument("--batch", type=int, default=1, metavar="N",
                        help="sequences (default: 1)")
    parser.add_argument("--attention", action="store_true",
                        help="also the products of attention, with a cache in the format")
    parser.add_argument("--head", action="store_true", help="also the head, for the last tokens")
    parser.add_argument("--config", default="paper", metavar="NAME|FILE.toml",
                        help="configuration of the accelerator, or a file with a machine's tables "
                             "(default: paper)")
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.FIELD=VALUE",
                        help="set a field of the machine, such as dram.bandwidth_gbs=128 "
                             "(repeatable)")
    parser.add_argument("--against", metavar="NAME,...",
                        help="compare formats and designs with M2XFP, or all")
    parser.add_argument("--paper", action="store_true",
                        help="the paper's assumptions, beside ours with complete hardware")
    parser.add_argument("--sweep", metavar="NAME=VALUE,...",
                        help="one line for each value of seq, batch or TABLE.FIELD")
    parser.add_argument("--validate", action="store_true",
                        help="simulate small products of each kind: cycles and records must be "
                             "the model's exactly")
    parser.add_argument("--export", type=Path, metavar="FOLDER",
                        help="only write area, power and energy per action of the machine, for "
                             "hwcomponents, Timeloop, ZigZag, Stream and BitFusion")
    parser.add_argument("--jobs", type=int, metavar="N",
                        help="processes at a time for --sweep and --report (default: as many as "
                             "there are cores, if that is quicker)")
    parser.add_argument("--dask", metavar="ADDRESS",
                        help="predict for --sweep and --report on the workers of a Dask scheduler, "
                             "such as tcp://host:8786")
    parser.add_argument("--plot", type=Path, metavar="FILE",
                        help="also draw what is printed, as .png or .svg")
    parser.add_argument("--report", type=Path, metavar="FILE.html",
                        help="only write one page: layers, roofline, energy by part, comparison, "
                             "and scaling over --sweep or several sweeps (default: the paper's six "
                             "models)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures")


def act(options: argparse.Namespace) -> int:
    """Runs the command with its options; returns the exit status."""
    _check(options)
    changes = _changes(options.set)
    if options.export:
        return _export(options, changes)
    machine = find_machine(options.config, changes)
    jobs = _jobs(options)
    if options.validate:
        return _validate(jobs, machine)
    if options.report:
        return _report(options, jobs, machine, changes)
    if options.paper:
        results: Any = _paper(options, jobs, machine, changes)
    elif options.against is not None:
        results = _against(options, jobs, machine)
    elif options.sweep:
        results = _sweep(options, changes)
    else:
        results = _predict(options, jobs, machine)
    if options.json:
        write(options.json, json.dumps(results, indent=1) + "\n")
    return 0


def _check(options: argparse.Namespace) -> None:
    """Refuses options that do not go together, and outputs that cannot be written."""
    if options.sweep and (options.paper or options.against is not None) and not options.report:
        raise ValueError("--sweep must be without --paper and --against")
    for name, others in (("export", ("validate", "paper", "against", "sweep", "json", "plot",
                                     "report", "jobs", "dask")),
                         ("report", ("validate", "paper", "json", "plot")),
                         ("validate", ("json", "plot", "jobs", "dask"))):
        for other in others:
            if getattr(options, name) and getattr(options, other) not in (None, False):
                raise ValueError(f"--{other} must be left out with --{name}")
    if options.jobs is not None and options.dask is not None:
        raise ValueError("--jobs must be left out with --dask")
    for name in ("jobs", "dask"):
        if getattr(options, name) is not None and not (options.sweep or options.report):
            raise ValueError(f"--{name} needs --sweep or --report")
    if options.jobs is not None and options.jobs < 1:
        raise ValueError(f"--jobs must be at least 1, not {options.jobs}")
    if options.json:
        check_output(options.json, "--json")
    if options.plot:
        check_plot(options.plot)
    if options.report:
        if options.report.suffix.lower() != ".html":
            raise ValueError(f"--report must end in .html, not {options.report.name}")
        check_output(options.report, "--report")
        check_matplotlib("--report")


def _export(options: argparse.Namespace, changes: dict[str, Any]) -> int:
    """Writes a folder for other tools and says what is in it."""
    folder = options.export
    if os.path.lexists(folder):
        remove_left(folder)
        raise ValueError(f"--export must be a new folder, not {folder}, which exists")
    check_folder(folder, "--export")
    machine = find_machine(options.config, changes)
    # Names alone: folders of a machine mean nothing elsewhere.
    written = export(folder, machine, _line(options, "--export", folder))
    print(f"{len(written)} files for {machine.format} on {machine.name} in {folder}; start with "
          "README.md")
    return 0


def _line(options: argparse.Namespace, option: str, path: Path) -> str:
    """The command line of what a machine's file says; folders of this computer are left out."""
    words = ["python", "-m", "sim", "perf", option, path.name, "--config",
             Path(options.config).name, *(f"--set={word}" for word in options.set)]
    if options.model:
        words += ["--model", *(Path(model).name for model in options.model)]
    for name in ("phase", "seq", "batch"):
        if getattr(options, name) != _DEFAULTS[name]:
            words += [f"--{name}", str(getattr(options, name))]
    words += [f"--{name}" for name in ("attention", "head") if getattr(options, name)]
    words += [f"--{name}={getattr(options, name)}" for name in ("against", "sweep")
              if getattr(options, name) is not None]
    return shlex.join(words)


def _report(options: argparse.Namespace, jobs: Sequence[Job], machine: Machine,
            changes: dict[str, Any]) -> int:
    """Writes the page."""
    sweeps = [(options.sweep, options)] if options.sweep else [
        (words, argparse.Namespace(**{**vars(options), **own})) for words, own in page.SWEEPS]
    plans = [(words, *_points(argparse.Namespace(**{**vars(own), "sweep": words}), changes))
             for words, own in sweeps]
    compared = None
    if page.comparable(jobs, machine):
        known = rivals.everything() if page.known(jobs) else [rivals.OURS, *rivals.own()]
        compared = _named(options.against, known)
    with counting("report", "prediction") as progress:
        found = predictions(
            [*((job, machine) for job in jobs), *(point for *_, points in plans
                                                  for point in points)],
            jobs=options.jobs, address=options.dask, progress=progress)
    rest = iter(found[len(jobs):])
    scaled = [(words, [(value, next(rest)) for value in values]) for words, values, _ in plans]
    entries = None if compared is None else _entries(jobs, machine, compared)
    write(options.report, page.page(found[:len(jobs)], entries, scaled,
                                    _line(options, "--report", options.report)))
    print(f"Report in {options.report}.")
    return 0


def _paper(options: argparse.Namespace, jobs: Sequence[Job], machine: Machine,
           changes: dict[str, Any]) -> dict[str, Any]:
    """Prints the paper's assumptions, then ours with and without DRAM background."""
    print(tables.assumptions())
    results: dict[str, Any] = {"assumptions": {
        model: {name: vars(run) for name, run in of.items()}
        for model, of in paper.runs().items()}}
    studies = {"The paper's assumptions: MX-OliVe = 1": drawings.of_paper()}
    for name, background in (("ours", machine.dram["background_mw"]),
                             ("ours without DRAM background", 0.0)):
        print()
        own = find_machine(options.config, merged(
            changes, {"dram": {"background_mw": background}}))
        entries = _entries(jobs, own, rivals.everything())
        print(tables.comparison(entries, own))
        studies[drawings.title(own)] = drawings.of_entries(entries)
        results[name] = _all(entries)
    if options.plot:
        drawings.save(drawings.normalised(studies), options.plot)
    return results


def _jobs(options: argparse.Namespace) -> list[Job]:
    many = options.paper or options.against is not None or options.report is not None
    if many and not options.report and (options.attention or options.head):
        raise ValueError("--attention and --head must be left out with --paper and --against")
    models = find_models(options.model or (PAPER if many else ["llama3-8b"]))
    return [Job(model=model, phase=options.phase, seq=options.seq, batch=options.batch,
                attention=options.attention, head=options.head) for model in models]


def _changes(words: Sequence[str], option: str = "--set") -> dict[str, Any]:
    """The tables that the words of an option give."""
    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        table, point, field = name.partition(".")
        if not equals or not point or not field:
            raise ValueError(f"{option} must be TABLE.FIELD=VALUE, not {word!r}")
        try:
            read = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            read = value
        found = merged(found, {table: {field: read}})
    return found


def _validate(jobs: Sequence[Job], machine: Machine) -> int:
    """Prints each product in RTL beside the model; returns 1 if one differs."""
    wrong = 0
    with counting("validate", "product") as progress:
        for check in validate(jobs, machine, progress=progress):
            with tqdm.external_write_mode(file=sys.stdout):
                print(tables.check(check), flush=True)
            wrong += not check.equal
    print(f"{wrong} products differ from the model")
    return 1 if wrong else 0


def _sweep(options: argparse.Namespace, changes: dict[str, Any]) -> list[dict[str, Any]]:
    """Prints a line for each model and value."""
    name = options.sweep.partition("=")[0]
    values, studies = _points(options, changes)
    with counting("sweep", "prediction") as progress:
        found = [*zip(values, predictions(studies, jobs=options.jobs, address=options.dask,
                                          progress=progress), strict=True)]
    print(tables.sweep(name, found))
    if options.plot:
        drawings.save(drawings.scaling(name, found), options.plot)
    return [as_json(one) | {"sweep": {name: value}} for value, one in found]


def _points(options: argparse.Namespace, changes: dict[str, Any]
            ) -> tuple[list[str], list[tuple[Job, Machine]]]:
    """The values of a sweep, and the job and machine of each, model by model."""
    name, equals, words = options.sweep.partition("=")
    if not equals or not words:
        raise ValueError(f"--sweep must be NAME=VALUE,..., not {options.sweep!r}")
    values, studies = [], []
    for value in words.split(","):
        own, over = argparse.Namespace(**vars(options)), changes
        if name in ("seq", "batch"):
            if not value.isdecimal():
                raise ValueError(f"--sweep {name} must have integers, not {value!r}")
            setattr(own, name, int(value))
        else:
            over = merged(changes, _changes([f"{name}={value}"], "--sweep"))
        machine = find_machine(options.config, over)
        for job in _jobs(own):
            values.append(value)
            studies.append((job, machine))
    return values, studies


def _predict(options: argparse.Namespace, jobs: Sequence[Job], machine: Machine
             ) -> list[dict[str, Any]]:
    found = [predict(job, machine) for job in jobs]
    print("\n\n".join(tables.prediction(one) for one in found))
    if options.plot:
        drawings.save(drawings.prediction(found), options.plot)
    return [as_json(one) for one in found]


def _against(options: argparse.Namespace, jobs: Sequence[Job], machine: Machine
             ) -> dict[str, list[dict[str, Any]]]:
    """Prints formats and designs beside M2XFP."""
    entries = _entries(jobs, machine, _named(options.against, rivals.everything()))
    print(tables.comparison(entries, machine))
    if options.plot:
        drawings.save(drawings.normalised({
            drawings.title(machine): drawings.of_entries(entries)}), options.plot)
    return _all(entries)


def _named(against: str | None, known: Sequence[str]) -> list[str]:
    """The formats and designs that ``--against`` names; all that are known without it."""
    return [*known] if against in (None, "all") else rivals.find(str(against).split(","))


def _entries(jobs: Sequence[Job], machine: Machine, names: Sequence[str]
             ) -> dict[str, list[rivals.Entry]]:
    """By model, M2XFP first."""
    return {job.model.name: rivals.compare(job, machine, [rivals.OURS, *(
        name for name in names if name != rivals.OURS)]) for job in jobs}


def _all(entries: Mapping[str, Sequence[rivals.Entry]]) -> dict[str, list[dict[str, Any]]]:
    return {model: [vars(entry) for entry in found] for model, found in entries.items()}


def as_json(one: Prediction) -> dict[str, Any]:
    """A prediction with all its figures, for a file."""
    job, machine = one.job, one.machine
    return {
        "model": job.model.name, "phase": job.phase, "seq": job.seq, "batch": job.batch,
        "attention": job.attention, "head": job.head, "machine": machine.name,
        "format": machine.format, "arrays": machine.arrays,
        "columns": machine.config.columns, "clock_mhz": machine.clock_mhz,
        "chips": dict(machine.chips), "dram": dict(machine.dram),
        "products_of_attention": dict(machine.attention), "cycles": one.cycles,
        "seconds": one.seconds, "tokens_per_second": one.tokens_per_second,
        "utilisation": one.utilisation, "dram_bytes": one.bytes, "joules": one.joules,
        "link_cycles": one.link_cycles, "bounds": list(one.bounds),
        "energy_pj": one.energy, "area_mm2": machine.area_mm2,
        "layers": [{"name": layer.gemm.name, "m": layer.gemm.m, "k": layer.gemm.k,
                    "n": layer.gemm.n, "times": layer.copies * layer.gemm.count,
                    "cycles": layer.cycles, "array_cycles": layer.array_cycles,
                    "memory_cycles": layer.memory_cycles, "read_bits": layer.read_bits,
                    "written_bits": layer.written_bits, "sram_bits": layer.sram,
                    "energy_pj": layer.energy} for layer in one.layers]}
