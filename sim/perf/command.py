# SPDX-License-Identifier: BSD-2-Clause
"""The command ``python -m sim perf``."""

import argparse
import json
import os
import shlex
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from golden.command import check_folder, check_output
from golden.output import remove_left
from hw.tools.files import write
from hw.tools.progress import counting

from . import paper, rivals, tables
from .export import export
from .machine import Machine, find_machine
from .models import PAPER, find_models, packaged_models
from .predict import Prediction, predict
from .settings import merged
from .validate import validate
from .workload import PHASES, Job


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
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures")


def act(options: argparse.Namespace) -> int:
    """Runs the command with its options; returns the exit status."""
    if options.json:
        if options.validate:
            raise ValueError("--json must be left out with --validate")
        check_output(options.json, "--json")
    changes = _changes(options.set)
    if options.export:
        return _export(options, changes)
    machine = find_machine(options.config, changes)
    jobs = _jobs(options)
    if options.validate:
        return _validate(jobs, machine)
    if options.sweep and (options.paper or options.against is not None):
        raise ValueError("--sweep must be without --paper and --against")
    if options.paper:
        results: Any = _paper(options, jobs, machine, changes)
    elif options.against is not None:
        names = rivals.everything() if options.against == "all" else rivals.find(
            options.against.split(","))
        results = _compare(jobs, machine, names)
    elif options.sweep:
        results = _sweep(options, changes)
    else:
        results = _predict(jobs, machine)
    if options.json:
        write(options.json, json.dumps(results, indent=1) + "\n")
    return 0


def _export(options: argparse.Namespace, changes: dict[str, Any]) -> int:
    """Writes a folder for other tools and says what is in it."""
    folder = options.export
    for name in ("validate", "paper", "against", "sweep", "json"):
        if getattr(options, name) not in (None, False):
            raise ValueError(f"--{name} must be left out with --export")
    if os.path.lexists(folder):
        remove_left(folder)
        raise ValueError(f"--export must be a new folder, not {folder}, which exists")
    check_folder(folder, "--export")
    machine = find_machine(options.config, changes)
    # Names alone: folders of a machine mean nothing elsewhere.
    words = ["python", "-m", "sim", "perf", "--export", folder.name, "--config",
             Path(options.config).name, *(f"--set={word}" for word in options.set)]
    written = export(folder, machine, shlex.join(words))
    print(f"{len(written)} files for {machine.format} on {machine.name} in {folder}; start with "
          "README.md")
    return 0


def _paper(options: argparse.Namespace, jobs: Sequence[Job], machine: Machine,
           changes: dict[str, Any]) -> dict[str, Any]:
    """Prints the paper's assumptions, then ours with and without DRAM background."""
    print(tables.assumptions())
    results: dict[str, Any] = {"assumptions": {
        model: {name: vars(run) for name, run in of.items()}
        for model, of in paper.runs().items()}}
    for name, background in (("ours", machine.dram["background_mw"]),
                             ("ours without DRAM background", 0.0)):
        print()
        results[name] = _compare(jobs, find_machine(options.config, merged(
            changes, {"dram": {"background_mw": background}})), rivals.everything())
    return results


def _jobs(options: argparse.Namespace) -> list[Job]:
    many = options.paper or options.against is not None
    if many and (options.attention or options.head):
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
    name, equals, values = options.sweep.partition("=")
    if not equals or not values:
        raise ValueError(f"--sweep must be NAME=VALUE,..., not {options.sweep!r}")
    found = []
    for value in values.split(","):
        own, over = argparse.Namespace(**vars(options)), changes
        if name in ("seq", "batch"):
            if not value.isdecimal():
                raise ValueError(f"--sweep {name} must have integers, not {value!r}")
            setattr(own, name, int(value))
        else:
            over = merged(changes, _changes([f"{name}={value}"], "--sweep"))
        machine = find_machine(options.config, over)
        found += [(value, predict(job, machine)) for job in _jobs(own)]
    print(tables.sweep(name, found))
    return [as_json(one) | {"sweep": {name: value}} for value, one in found]


def _predict(jobs: Sequence[Job], machine: Machine) -> list[dict[str, Any]]:
    predictions = [predict(job, machine) for job in jobs]
    print("\n\n".join(tables.prediction(one) for one in predictions))
    return [as_json(one) for one in predictions]


def _compare(jobs: Sequence[Job], machine: Machine, names: Sequence[str]
             ) -> dict[str, list[dict[str, Any]]]:
    entries = {job.model.name: rivals.compare(job, machine, [rivals.OURS, *(
        name for name in names if name != rivals.OURS)]) for job in jobs}
    print(tables.comparison(entries, machine))
    return {model: [vars(entry) for entry in found] for model, found in entries.items()}


def as_json(one: Prediction) -> dict[str, Any]:
    """A prediction with all its figures, for a file."""
    job, machine = one.job, one.machine
    return {
        "model": job.model.name, "phase": job.phase, "seq": job.seq, "batch": job.batch,
        "attention": job.attention, "head": job.head, "machine": machine.name,
        "format": machine.format, "arrays": machine.arrays,
        "columns": machine.config.columns, "clock_mhz": machine.clock_mhz,
        "chips": dict(machine.chips), "dram": dict(machine.dram), "cycles": one.cycles,
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
