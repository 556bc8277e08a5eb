# SPDX-License-Identifier: BSD-2-Clause
"""Proves claims about the units: ``python -m hw.prove --help``."""

import importlib.util
import json
import os
import signal
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from golden import command
from golden.interrupts import temporary_folder

from .proofs.outcome import Outcome
from .tools import yosys
from .tools.errors import ToolError
from .tools.files import write
from .tools.progress import progress


@command.run
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; see ``--help``. Returns the exit status."""
    parser = command.Parser(
        prog="python -m hw.prove",
        description="Proves claims about the units for all inputs. Each proof must also find the "
                    "fault that belongs to it, and show that its claims are not about nothing.")
    parser.add_argument("names", metavar="UNIT|PROOF", nargs="*", help="default: all")
    parser.add_argument("--quick", action="store_true", help="only those that the tests run")
    parser.add_argument("--list", action="store_true", help="list the claims and what is open")
    parser.add_argument("--jobs", metavar="N", type=int, default=os.cpu_count() or 1,
                        help="proofs at a time (default: cores)")
    parser.add_argument("--minutes", metavar="M", type=float, default=10,
                        help="give a proof up after so long: it is open (default: %(default)g)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the result as JSON")
    parser.add_argument("--markdown", metavar="FILE", type=Path,
                        help="also write the table as the documentation has it")
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        raise ValueError(f"--jobs must be at least 1, not {options.jobs}")
    if not 0 < options.minutes < 1e6:
        raise ValueError(f"--minutes must be above 0, not {options.minutes:g}")
    for option in "json", "markdown":
        if path := getattr(options, option):
            command.check_output(path, f"--{option}")
    if importlib.util.find_spec("pysat") is None:
        raise command.Failure("hw.prove needs python-sat: pip install 'm2xfp-rtl[prove]'")
    from .proofs.catalogue import HOLES, PROOFS

    known = PROOFS.keys() | {proof.unit for proof in PROOFS.values()}
    for name in options.names:
        if name not in known:
            raise ValueError(f"UNIT|PROOF must be one of {', '.join(sorted(known))}, not {name!r}")
    chosen = [proof for proof in PROOFS.values()
              if (not options.names or {proof.name, proof.unit} & {*options.names})
              and (proof.quick or not options.quick)]
    if options.list:
        for proof in chosen:
            print(f"{proof.name}: {proof.claim}")
        for unit, hole in HOLES.items():
            print(f"open: {unit}: {hole}")
        return
    if not chosen:
        raise ValueError(f"--quick has no proof of {', '.join(options.names)}")
    rows = prove([proof.name for proof in chosen], options.jobs, options.minutes)
    print(table(rows))
    for row in rows:
        if row["cycles"]:
            print(f"\n{row['name']}: {row['verdict']}\n{trace(row['cycles'])}")
    if options.json:
        write(options.json, json.dumps(rows, indent=1) + "\n")
    if options.markdown:
        write(options.markdown, markdown(rows))
    if bad := [row["name"] for row in rows if not row["good"]]:
        raise command.Failure(f"not proven: {', '.join(bad)}")


def prove(names: Sequence[str], jobs: int, minutes: float) -> list[dict[str, Any]]:
    """Carries out proofs, some at a time, each in a process of its own.

    Returns a row for each, in their order. A proof that takes longer is ended: it is open.
    """
    yosys.prepare()
    with (temporary_folder() as folder, ThreadPoolExecutor(jobs) as pool,
          progress("prove", "proof", len(names)) as done):
        def one(name):
            result = _carry_out(name, minutes, str(folder))
            done(name)
            return result

        return [*pool.map(one, names)]


def _carry_out(name, minutes, folder):
    """The row of one proof, from a process of its own."""
    context = get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(name, there, folder))
    process.start()
    there.close()
    try:
        if not here.poll(60 * minutes):
            return row(name, Outcome(verdict="open", seconds=60 * minutes, witness="open",
                                     fault="open"))
        answer = here.recv()
    except EOFError:
        raise command.Failure(f"{name}: the process of the proof ended, with status "
                              f"{process.exitcode}") from None
    finally:
        with suppress(ProcessLookupError, PermissionError):
            # With the Yosys that it may run.
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.kill()
        process.join()
        here.close()
    if isinstance(answer, BaseException):
        raise answer
    return answer


def _answer(name, there, folder):
    os.setpgid(0, 0)
    tempfile.tempdir = folder
    from .proofs.proof import run

    try:
        there.send(row(name, run(_proof(name))))
    except ToolError as error:
        there.send(error)


def _proof(name):
    from .proofs.catalogue import PROOFS

    return PROOFS[name]


def row(name: str, outcome: Outcome) -> dict[str, Any]:
    """The row of a proof in the report."""
    proof = _proof(name)
    return {"name": name, "unit": proof.unit, "claim": proof.claim, "engine": proof.engine,
            "seconds": round(outcome.seconds, 2), "verdict": outcome.verdict,
            "bug": str(proof.fault), "found": outcome.fault, "witness": outcome.witness,
            "good": outcome.good, "cycles": outcome.cycles}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The report as text."""
    width = max(len(row["name"]) for row in rows)
    lines = [f"{'proof':{width}}  {'engine':17} {'seconds':>7}  verdict       fault      witnesses"]
    lines += [f"{row['name']:{width}}  {row['engine']:17} {row['seconds']:7.1f}  "
              f"{row['verdict']:12}  {row['found']:9}  {row['witness']}" for row in rows]
    good = sum(row["good"] for row in rows)
    seconds = sum(row["seconds"] for row in rows)
    return "\n".join([*lines, f"{good} of {len(rows)} proven, in {seconds:.0f} s of processor time "
                              "without faults and witnesses"])


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The report as a table in Markdown: proof, claim, engine, seconds, verdict and fault."""
    lines = ["| proof | claim | engine | s | verdict | fault |", "|---|---|---|---|---|---|"]
    for row in rows:
        # A bar ends a cell, also in code.
        fault = row["bug"].replace("|", "\\|")
        found = "" if row["found"] == "found" else f": {row['found']}"
        lines.append(f"| `{row['name']}` | {row['claim']} | {row['engine']} | "
                     f"{row['seconds']:.1f} | {row['verdict']} | `{fault}`{found} |")
    return "\n".join(lines) + "\n"


def trace(cycles: Sequence[dict[str, int]]) -> str:
    """A counterexample as text: values of the ports in each cycle, in hexadecimal.

    Claims and assumptions are left out where they hold in all cycles, and so are witnesses.
    """
    lines = []
    for name in sorted(cycles[0]):
        values = [cycle[name] for cycle in cycles]
        if name == "clk" or name.startswith("witness_") or (
                name.startswith(("claim_", "assume_")) and all(values)):
            continue
        lines.append([name, *(f"{value:x}" for value in values)])
    lines.insert(0, ["cycle", *map(str, range(len(cycles)))])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join([f"{name:{widths[0]}}", *(
        f"{value:>{width}}" for value, width in zip(values, widths[1:], strict=True))])
        for name, *values in lines)


if __name__ == "__main__":
    raise SystemExit(main())
