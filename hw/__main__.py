# SPDX-License-Identifier: BSD-2-Clause
"""Runs the main job, ``python -m hw``: Verilog of all units, lockstep on real data, area, timing.

All parts but the last run side by side. On a machine's first run Yosys compiles itself for a
minute; meanwhile the units are elaborated and the quantization engine, which needs no Yosys, runs
in lockstep. At the end a language model says a sentence, if what it needs is installed.
"""

import multiprocessing
import os
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

from golden import command, interrupts

from . import generate, kit, synth
from .flow.liberty import find_library
from .registry import UNITS
from .tools import cache, yosys
from .tools.files import make_folder


@command.run
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line, see ``--help``, and returns the exit status."""
    parser = command.Parser(
        prog="python -m hw", description=__doc__.partition("\n")[0],
        epilog="See also python -m hw.generate, python -m hw.synth and python -m sim.")
    parser.add_argument("-o", default="build", metavar="DIR", help="folder for all output")
    parser.add_argument("--vcd", type=Path, metavar="FILE",
                        help="write waveforms of the lockstep, to FILE's name with the unit's "
                             "name before the ending")
    options = parser.parse_args(arguments)
    if options.vcd:
        command.check_folder(options.vcd, "--vcd")
    library = find_library()
    if not options.o:
        raise ValueError("-o must be a folder, not ''")
    if options.vcd:
        command.check_output(options.vcd, "--vcd")
    make_folder(Path(options.o), f"write to -o {options.o}")
    cache.prepare("keep results")
    command.check_output(Path(options.o, "synth.json"), "-o")
    return _all(Path(options.o), options.vcd, library)


def _all(directory, vcd, library):
    context = multiprocessing.get_context("spawn")
    prepared = context.Event()
    yosys.wait_for(prepared)
    preparation = _in_background(_prepare, prepared)
    print(f"Verilog and descriptions in {directory}/\n  {', '.join(UNITS)}\n", flush=True)
    lockstep = _in_background(_lockstep, vcd)
    missing = [name for name in UNITS if not generate.write_kept(name, directory)]
    # The largest first. Each process may have to wait for Yosys when it has elaborated a unit.
    missing.sort(key=lambda name: not UNITS[name].hierarchical)
    with ProcessPoolExecutor(3, context, yosys.wait_for, [prepared]) as pool:
        with interrupts.shielded():
            emission = {name: pool.submit(generate.generate_and_keep, name, directory)
                        for name in missing}

        def ready(name):
            preparation.result()
            if name in emission:
                emission[name].result()

        def before():
            lockstep.result()
            print("\nArea and timing", flush=True)

        try:
            synth.report({name: (name, (), False, False) for name in UNITS}, library,
                         directory / "synth.json", ready=ready, before=before)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    kit.bender(directory)
    return lockstep.result() or _sentence()


def _in_background(function, *arguments):
    """Calls a function in a thread that ends with the process; returns a future of its result."""
    future: Future = Future()

    def run():
        try:
            future.set_result(function(*arguments))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def _prepare(prepared):
    try:
        yosys.prepare()
    finally:
        prepared.set()


def _lockstep(vcd):
    # Here, because simulation rests on the units and not the other way round.
    from golden.models import smollm2
    from sim.__main__ import report_lockstep
    return report_lockstep(smollm2.load(), tokens=32, rows=16, vcd=vcd,
                           processes=1 if vcd else os.cpu_count() or 1)


def _sentence():
    from sim.generate import main_job
    return main_job()


if __name__ == "__main__":
    sys.exit(main())
