# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""Runs random commands on accelerators against golden, round after round, for as long as wanted."""

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from golden import stimuli
from golden.accelerator import planner
from golden.command import Failure
from hw.accelerator.accelerator import Accelerator
from hw.accelerator.config import CONFIGS, Config
from hw.accelerator.planner import Status

from .accelerator import accelerate, golden_config
from .cycles import RESULTS, SOURCES, cycles
from .engines import build
from .evidence import digest, head
from .runner import SimulationError

MACHINES = {
    **CONFIGS,
    # Marks on the operands, another type of values, one record of weights at a time.
    "framed": dataclasses.replace(CONFIGS["tiny"], framed=True, input="bfloat16", weight_width=1),
    # The pipeline of FPGAs, with queues behind the control.
    "deep": dataclasses.replace(CONFIGS["tiny"], framed=True, input="float16", weight_width=8,
                                array_depth=17, engine_depth=8),
    # No engine at all, a medium pipeline, a weight buffer of two tiles.
    "records": Config(columns=2, activations=64, weights=4, rows=16, input=None, array_depth=13),
    # A single column, so that most cycles are those of the control.
    "column": Config(columns=1, activations=64, weights=16, rows=16, input="float16", framed=True),
}
"""Configurations by name: those of the registry, and variants of which every limit is close."""

SHARES = {"tiny": 6, "lite": 16, "records": 26, "column": 52}
"""Percent of the cycles of a soak that each machine runs, unless machines are named.

A cycle of 32 columns takes ten times as long as one of a single column.
"""

# Commands of a round, and the products of elements up to which one is drawn.
_COMMANDS = 100
_LARGEST = (2**12, 2**14, 2**16, 2**18, 2**20)

# Rounds of a kind return after so many rounds of a machine: commands one by one, whose cycles are
# compared; all streams without pauses; the same probability of a pause on all; another on each.
_KINDS = ("alone", "free", "even", "uneven", "uneven")


@dataclass
class Tally:
    """What a soak has done on one machine.

    Attributes
    ----------
    rounds, commands, cycles, rows : int
        Rounds and commands that were run, cycles that the machine ran for them, and transfers of
        results that were compared.
    timed : int
        Commands whose number of cycles was compared with the closed form.
    statuses : Counter
        Commands by the name of the status with which they ended.
    simulated_s, total_s : float
        Seconds of simulation, and seconds with stimuli, golden and comparison, but not the build.
    """

    rounds: int = 0
    commands: int = 0
    cycles: int = 0
    rows: int = 0
    timed: int = 0
    statuses: Counter = field(default_factory=Counter)
    simulated_s: float = 0.0
    total_s: float = 0.0


class Mismatch(Failure):
    """The machine does not do what golden does; the text says how to see it again."""


def soak(machines: Sequence[str] = (), *, least: int, seed: int = 0,
         minutes: float | None = None, before: dict[str, Tally] | None = None,
         progress: Callable[[int, int], Any] | None = None,
         keep: Callable[[dict[str, Tally]], Any] | None = None) -> dict[str, Tally]:
    """Runs rounds of random commands until machines have run a number of cycles.

    Each round draws its own commands from the seed, the machine and the number of the round, so
    that it can be run again alone. Sizes, sources and results are random, some commands cannot run,
    and some form chains. Weights and values are offered as early as their stream takes them. A
    quarter of the rounds run without pauses; in the others streams pause, all alike or each with
    its own probability.

    Parameters
    ----------
    machines : sequence of str
        Names in `MACHINES`, which take the same share of the cycles each. Without any, those of
        `SHARES` do, with those shares.
    least : int
        Cycles of all machines together.
    seed : int
    minutes : float, optional
        Time after which no further round begins.
    before : dict of str to Tally, optional
        What an earlier run with the same seed and machines did; this one goes on from there.
    progress : callable, optional
        Called with the cycles that were run and their total.
    keep : callable, optional
        Called with the tallies after each minute, so that they survive what ends the run.

    Returns
    -------
    dict of str to Tally
        By machine.

    Raises
    ------
    Mismatch
        If an output, a status or a number of cycles differs from golden's, or a stream breaks its
        rules or stops.
    """
    shares = {name: 1 for name in machines} or SHARES
    tallies = {name: (before or {}).get(name) or Tally() for name in shares}
    components = {name: Accelerator(config=MACHINES[name]) for name in shares}
    kept = time.monotonic()
    limit = None if minutes is None else kept + 60 * minutes
    while (done := sum(tally.cycles for tally in tallies.values())) < least:
        if limit is not None and time.monotonic() > limit:
            break
        name = min(shares, key=lambda name: tallies[name].cycles / shares[name])
        run_round(name, tallies[name].rounds, seed, tallies[name], component=components[name])
        if progress:
            progress(min(done, least), least)
        if keep and time.monotonic() > kept + 60:
            keep(tallies)
            kept = time.monotonic()
    return tallies


def run_round(name: str, number: int, seed: int, tally: Tally, *,
              component: Accelerator | None = None) -> None:
    """Runs one round on a machine and adds it to a tally.

    Parameters
    ----------
    name : str
        Of the machine.
    number, seed : int
        Of the round, and of the soak that it belongs to.
    tally : Tally
    component : Accelerator, optional
        The machine, so that several rounds build it once.

    Raises
    ------
    Mismatch
        As `soak` raises it.
    """
    started = time.perf_counter()
    component = component or Accelerator(config=MACHINES[name])
    rng = np.random.default_rng(list(f"{seed} {name} {number}".encode()))
    kind = _KINDS[number % len(_KINDS)]
    sizes = golden_config(component.config)
    commands = stimuli.products(rng, _COMMANDS, sizes, largest=int(rng.choice(_LARGEST)))
    if not component.config.quantizes:
        # Most results are none that such a machine has: a fifth of those commands is enough.
        commands = [command for command in commands if "w" in command or rng.random() < 0.2]
    options = {"stalls": _stalls(rng, kind, component), "seed": int(rng.integers(1 << 31))}
    runs = [[command] for command in commands if command["source"] != planner.KEPT] \
        if kind == "alone" else [commands]
    for run in runs:
        statistics: dict[str, Any] = {}
        try:
            with np.errstate(all="ignore"):
                products = accelerate(run, component=component, statistics=statistics,
                                      engine=build.preferred("auto"), **options)
        except SimulationError as error:
            if isinstance(error, build.BuildError):
                raise
            raise _mismatch(name, number, seed, str(error)) from None
        tally.cycles += statistics["cycles"]
        tally.simulated_s += statistics["run_s"]
        for place, (command, product) in enumerate(zip(run, products, strict=True)):
            status = Status(product.code).name
            if product.mismatches:
                raise _mismatch(name, number, seed,
                                f"{product.mismatches} transfers differ for "
                                f"{_text(command)}, command {place} of {len(run)}, {status}")
            tally.commands += 1
            tally.rows += product.rows
            tally.statuses[status] += 1
        if kind == "alone" and products[0].code == planner.DONE:
            command, = run
            expected = cycles(component.config, *(command[size] for size in "mkn"),
                              source=SOURCES[command["source"]],
                              result=RESULTS[command["result"]])
            if statistics["cycles"] != expected:
                raise _mismatch(name, number, seed, f"{statistics['cycles']} cycles, not {expected}"
                                                    f", for {_text(command)}")
            tally.timed += 1
        started += statistics["build_s"]
    tally.rounds += 1
    tally.total_s += time.perf_counter() - started


def _stalls(rng, kind, component):
    """Probability of a pause of all streams, or of each by its name."""
    if kind in ("alone", "free"):
        return 0.0
    if kind == "even":
        return float(rng.choice([0.1, 0.5, 0.9]))
    return {name: float(rng.choice([0, 0, 0.2, 0.7, 0.95]))
            for name in component.signature.members}


def _mismatch(name, number, seed, what):
    return Mismatch(f"mismatch: python -m sim soak --config {name} --seed {seed} --round {number}: "
                    f"{what}")


def _text(command):
    return (f"{command['m']} x {command['k']} x {command['n']}, source {command['source']}, "
            f"result {command['result']}")


def digests(machines: Iterable[str]) -> dict[str, str]:
    """SHA-256 of each machine's Verilog, by which a change is seen."""
    return {name: digest(Accelerator(config=MACHINES[name]), "accelerator") for name in machines}


def resumed(found: dict[str, Any], machines: Iterable[str], seed: int) -> dict[str, Tally]:
    """The tallies of an earlier run, from what `evidence` returned for it.

    Raises
    ------
    ValueError
        If it had another seed or other machines, or one has changed since.
    """
    if found.get("kind") != "soak" or found["seed"] != seed \
            or found["verilog"] != digests(machines):
        raise ValueError("--resume needs a soak of the same seed and of the same machines")
    return {name: Tally(**{**tally, "statuses": Counter(tally["statuses"])})
            for name, tally in found["machines"].items()}


def evidence(tallies: dict[str, Tally], *, seed: int, words: str,
             verilog: dict[str, str]) -> dict[str, Any]:
    """What a soak did, for ``docs/evidence``.

    Parameters
    ----------
    tallies : dict of str to Tally
        As `soak` returns them.
    seed : int
    words : str
        The command.
    verilog : dict of str to str
        From `digests`.

    Returns
    -------
    dict
        All types are those of JSON.
    """
    return head("soak", command=words, seed=seed) | {
        "verilog": verilog,
        "machines": {name: {**dataclasses.asdict(tally), "statuses": dict(tally.statuses),
                            "simulated_s": round(tally.simulated_s, 1),
                            "total_s": round(tally.total_s, 1)}
                     for name, tally in tallies.items()},
    }


def table(tallies: dict[str, Tally]) -> str:
    """The tallies as lines of text."""
    lines = [f"{'machine':<10}{'cycles':>13}{'commands':>10}{'failed':>8}{'timed':>8}"
             f"{'results':>11}{'cycles/s':>10}{'simulation':>12}"]
    for name, tally in tallies.items():
        lines.append(
            f"{name:<10}{tally.cycles:>13,}{tally.commands:>10,}"
            f"{tally.commands - tally.statuses['DONE']:>8,}{tally.timed:>8,}{tally.rows:>11,}"
            f"{tally.cycles / max(tally.total_s, 1e-9):>10,.0f}"
            f"{100 * tally.simulated_s / max(tally.total_s, 1e-9):>10.0f} %")
    return "\n".join(lines)
