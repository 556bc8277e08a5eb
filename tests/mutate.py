# SPDX-License-Identifier: BSD-2-Clause
"""The tests' own test: ``python -m tests.mutate --help``.

Puts one fault at a time into the source of a component and runs the short tests of its unit, which
must fail. Where they pass, the Verilog of the faulty component is compared with that of the right
one by a formal proof; faults that change nothing are called equivalent.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

from tqdm import tqdm

from golden import command
from hw.tools.files import write
from tests.support.mutants import KINDS, mutants

ROOT = Path(__file__).resolve().parents[1]

COPIED = ("golden", "hw", "sim", "tests", "pyproject.toml")

_ENGINES = ["tests/hw/units/test_quantization_engine.py"]
_TILES = ["tests/hw/units/test_pe_tile.py", "tests/hw/units/test_sg_pe_tile.py",
          "tests/hw/units/test_nvfp4_pe_tile.py"]
_ADDERS = ["tests/hw/lib/test_float_adder.py", "tests/hw/units/test_group_accumulator.py"]
_MACHINE = ["tests/hw/accelerator/test_accelerator.py"]

_AS_NEW = "tests/hw/test_reset.py::test_as_new_after_reset[{}]"

TESTS = {
    "hw/lib/arithmetic.py": [*_ENGINES, "tests/hw/units/test_top1.py", *_TILES, *_ADDERS,
                             "tests/hw/units/test_nvfp4_quantizer.py"],
    "hw/lib/buffer.py": [_AS_NEW.format("buffer")],
    "hw/lib/dot_product.py": _TILES,
    "hw/lib/float_adder.py": ["tests/hw/units/test_group_accumulator.py"],
    "hw/lib/formats.py": ["tests/hw/units/test_decoder.py", *_ENGINES],
    "hw/lib/pipeline.py": _ENGINES,
    "hw/lib/skid_buffer.py": [_AS_NEW.format("skid_buffer")],
    "hw/lib/stream.py": [],
    "hw/lib/stream_queue.py": [_AS_NEW.format("stream_queue")],
    "hw/lib/stream_register.py": [_AS_NEW.format("stream_register")],
    "hw/lib/top1_select.py": ["tests/hw/units/test_top1.py", "tests/hw/units/test_top1_decode.py"],
    "hw/units/decoder.py": [_AS_NEW.format("decoder")],
    "hw/units/group_accumulator.py": [_AS_NEW.format("group_accumulator")],
    "hw/units/group_dot.py": ["tests/hw/units/test_group_mac.py"],
    "hw/units/group_mac.py": [],
    "hw/units/mac_array.py": [],
    "hw/units/nvfp4_pe_tile.py": [],
    "hw/units/nvfp4_quantizer.py": [],
    "hw/units/pe_tile.py": [],
    "hw/units/quantization_engine.py": [],
    "hw/units/sg_pe_tile.py": [],
    "hw/units/top1.py": [],
    "hw/units/top1_decode.py": [],
    "hw/units/weight_encoder.py": [],
    "hw/accelerator/accelerator.py": [],
    "hw/accelerator/activation_feeder.py": [_AS_NEW.format("activation_feeder"), *_MACHINE],
    "hw/accelerator/loop_nest.py": [_AS_NEW.format("loop_nest_products")],
    "hw/accelerator/partial_sums.py": _MACHINE,
    "hw/accelerator/planner.py": [_AS_NEW.format("planner")],
    "hw/accelerator/weight_feeder.py": [_AS_NEW.format("weight_feeder"), *_MACHINE],
    "hw/bus/axi_accelerator.py": ["tests/hw/bus/test_axi_lite.py"],
    "hw/bus/axi_lite.py": [_AS_NEW.format("axi_lite")],
    "hw/bus/uart.py": [],
    "hw/bus/uart_link.py": [],
}
"""Tests of each module besides those that have its name."""

_TINY = 'CONFIGS["tiny"]'
COMPONENTS = {
    "hw/lib/arithmetic.py": ["QuantizationEngine()", "PETile()", "GroupAccumulator()"],
    "hw/lib/buffer.py": ["Buffer(8, depth=8, banks=2)"],
    "hw/lib/dot_product.py": ["PETile()", "SgPETile()", "SgPETile(special=True)",
                              "Nvfp4PETile()"],
    "hw/lib/float_adder.py": ["GroupAccumulator()", "GroupAccumulator(depth=8)"],
    "hw/lib/formats.py": ["Decoder()", "QuantizationEngine()"],
    "hw/lib/pipeline.py": ["QuantizationEngine()", "QuantizationEngine(depth=3)",
                           "PETile(depth=2)"],
    "hw/lib/skid_buffer.py": ["SkidBuffer(8)"],
    "hw/lib/stream_queue.py": ["StreamQueue(8, depth=4)"],
    "hw/lib/stream_register.py": ["StreamRegister(8)"],
    "hw/lib/top1_select.py": ["Top1()", "Top1Decode()", "QuantizationEngine()"],
    "hw/units/decoder.py": ["Decoder()", 'Decoder(kind="weight")', 'Decoder(kind="special")'],
    "hw/units/group_accumulator.py": ["GroupAccumulator()", "GroupAccumulator(metadata=False)",
                                      "GroupAccumulator(depth=8)"],
    "hw/units/group_dot.py": ["GroupMac()"],
    "hw/units/group_mac.py": ["GroupMac()"],
    "hw/units/mac_array.py": ["MacArray(columns=2)", "MacArray(columns=8, weight_width=8)"],
    "hw/units/nvfp4_pe_tile.py": ["Nvfp4PETile()", "Nvfp4PETile(lanes=16)"],
    "hw/units/nvfp4_quantizer.py": ["Nvfp4Quantizer()"],
    "hw/units/pe_tile.py": ["PETile()", "PETile(depth=2)", "PETile(metadata=False)"],
    "hw/units/quantization_engine.py": [
        "QuantizationEngine()", 'QuantizationEngine(input="bfloat16")',
        'QuantizationEngine(input="float16")', 'QuantizationEngine(rule="ceil")',
        'QuantizationEngine(rule="rtn1")', 'QuantizationEngine(rule="rtn2")',
        "QuantizationEngine(depth=3)", "QuantizationEngine(metadata=False)"],
    "hw/units/sg_pe_tile.py": ["SgPETile()", "SgPETile(special=True)", "SgPETile(depth=1)"],
    "hw/units/top1.py": ["Top1()", "Top1(lanes=2)"],
    "hw/units/top1_decode.py": ["Top1Decode()"],
    "hw/units/weight_encoder.py": ["WeightEncoder()", 'WeightEncoder(encoding="sg-threshold")'],
    "hw/accelerator/activation_feeder.py": [f"ActivationFeeder({_TINY})"],
    "hw/accelerator/loop_nest.py": [f'LoopNest({_TINY}, loops="{loops}")'
                                    for loops in ("weights", "activations", "products")],
    "hw/accelerator/partial_sums.py": [f"PartialSums({_TINY})"],
    "hw/accelerator/planner.py": [f"Planner({_TINY})", 'Planner(CONFIGS["lite"])'],
    "hw/accelerator/weight_feeder.py": [_AS_NEW.format("weight_feeder"), f"WeightFeeder({_TINY})"],
    "hw/bus/axi_lite.py": [f"CommandRegisters({_TINY})"],
}
"""Components whose Verilog tells whether a fault in a module changes anything."""

_PROOF = """
import sys
from pathlib import Path
from hw.accelerator.activation_feeder import ActivationFeeder
from hw.accelerator.config import CONFIGS
from hw.accelerator.loop_nest import LoopNest
from hw.accelerator.partial_sums import PartialSums
from hw.accelerator.planner import Planner
from hw.accelerator.weight_feeder import WeightFeeder
from hw.bus.axi_lite import CommandRegisters
from hw.lib import *
from hw.lib.buffer import Buffer
from hw.lib.skid_buffer import SkidBuffer
from hw.lib.stream_queue import StreamQueue
from hw.lib.stream_register import StreamRegister
from hw.units import *
from hw.verilog.emit import verilog
from hw.verilog.equivalence import prove
what, folder, *components = sys.argv[1:]
for number, component in enumerate(components):
    path = Path(folder) / f"{number}.v"
    if what == "emit":
        path.write_text(verilog(eval(component), "unit"))
    else:
        prove(eval(component), "unit", path.read_text())
"""


@command.run
def main(arguments=None):
    """Command line; see ``--help``. Returns the exit status."""
    parser = command.Parser(
        prog="python -m tests.mutate",
        description="Puts faults into the components and says which of them the tests find.")
    parser.add_argument("modules", metavar="MODULE", nargs="*",
                        help="such as hw/units/top1.py; default: all that have tests")
    parser.add_argument("--kind", choices=list(KINDS), help="only faults of this kind")
    parser.add_argument("--count", metavar="N", type=int,
                        help="faults for each module, chosen at random; default: all")
    parser.add_argument("--sample", metavar="N", type=int,
                        help="faults of all modules together, chosen at random")
    parser.add_argument("--seed", metavar="N", type=int, default=0,
                        help="of the choice (default: 0)")
    parser.add_argument("--minutes", metavar="N", type=int,
                        help="stop after this time; what was not tried is said")
    parser.add_argument("--jobs", metavar="N", type=int, default=os.cpu_count() or 1,
                        help="tests at a time (default: cores)")
    parser.add_argument("--list", action="store_true", help="list the faults, and try none")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the result as JSON")
    options = parser.parse_args(arguments)
    for module in options.modules:
        if module not in TESTS:
            raise ValueError(f"MODULE must be one of {', '.join(TESTS)}, not {module}")
    for name in ("count", "sample", "minutes", "jobs"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, not {value}")
    if options.json:
        command.check_output(options.json, "--json")
    chosen = choose(options.modules or [*TESTS], options.kind, options.count, options.sample,
                    options.seed)
    if options.list:
        for module, mutant in chosen:
            print(f"{module}: {mutant}")
        return
    print(f"{len(chosen)} faults, seed {options.seed}", flush=True)
    rows = try_all(chosen, options.jobs, options.minutes)
    print(table(rows))
    for row in rows:
        if row["verdict"] == "alive":
            print(f"alive: {row['module']}: {row['fault']}")
    if options.json:
        write(options.json, json.dumps({"seed": options.seed, "faults": rows}, indent=1) + "\n")
    if any(row["verdict"] == "alive" for row in rows):
        raise command.Failure("faults are alive: tests are missing")


def choose(modules, kind, count, sample, seed):
    """Pairs of a module and one of its mutants."""
    generator = random.Random(seed)
    chosen = []
    for module in modules:
        found = [mutant for mutant in mutants((ROOT / module).read_text(encoding="utf-8"))
                 if kind in (None, mutant.kind)]
        if count and count < len(found):
            found = spread(found, count, generator)
        chosen += [(module, mutant) for mutant in found]
    if sample and sample < len(chosen):
        chosen = sorted(generator.sample(chosen, sample),
                        key=lambda pair: (modules.index(pair[0]), pair[1].start))
    return chosen


def spread(found, count, generator):
    """Mutants of all kinds, as evenly as there are: most are operators and constants."""
    kinds = {kind: [mutant for mutant in found if mutant.kind == kind] for kind in KINDS}
    for each in kinds.values():
        generator.shuffle(each)
    taken = []
    while len(taken) < count:
        for each in kinds.values():
            if each and len(taken) < count:
                taken.append(each.pop())
    return sorted(taken, key=lambda mutant: mutant.start)


def try_all(chosen, jobs, minutes=None):
    """What became of each fault, as dictionaries, in the order given."""
    limit = time.monotonic() + 60 * minutes if minutes else None
    with tempfile.TemporaryDirectory() as scratch:
        free = Queue()
        for number in range(jobs):
            free.put(copy(Path(scratch) / str(number)))
        # Tests of a module without a fault, which the first that tries one of its faults runs.
        baselines = {module: Baseline(module) for module, _ in chosen}

        def attempt(pair):
            module, mutant = pair
            if limit and time.monotonic() > limit:
                return row(module, mutant, "not tried")
            tree = free.get()
            try:
                seconds = baselines[module].seconds(tree)
                return row(module, mutant, verdict(tree, module, mutant, seconds))
            finally:
                free.put(tree)

        with ThreadPoolExecutor(jobs) as pool:
            return [*tqdm(pool.map(attempt, chosen), "faults", len(chosen), disable=None)]


class Baseline:
    """How long a module's tests take without a fault, measured when it is asked for first."""

    def __init__(self, module):
        self.module = module
        self._lock = threading.Lock()
        self._seconds = None

    def seconds(self, tree):
        """Seconds, in a copy of the sources without a fault."""
        with self._lock:
            if self._seconds is None:
                start = time.monotonic()
                status, text = run(tree, tests_of(self.module), None)
                if status:
                    raise command.Failure(
                        f"tests of {self.module} fail without a fault: {text}")
                self._seconds = time.monotonic() - start
        return self._seconds


def row(module, mutant, what):
    """One row of the result."""
    return {"module": module, "kind": mutant.kind, "fault": str(mutant), "verdict": what}


def copy(tree):
    """A copy of the sources in which faults are put."""
    tree.mkdir()
    for name in COPIED:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, tree / name)
    return tree


def tests_of(module):
    """The short tests of a module: those that have its name, and others of `TESTS`."""
    path = Path("tests", module)
    own = path.with_name(f"test_{path.name}").as_posix()
    return list(dict.fromkeys([own] * (ROOT / own).exists() + TESTS[module]))


def environment(tree):
    """Environment of a process that imports a copy."""
    return os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}


def run(tree, tests, seconds):
    """Exit status and last line of a run of tests; 1 if they take too long."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-n", "0", "-p", "no:cacheprovider",
             "--basetemp", str(tree / "temporary"), *tests],
            cwd=tree, env=environment(tree), timeout=seconds, text=True, check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except subprocess.TimeoutExpired:
        return 1, "takes too long"
    return done.returncode, (done.stdout.splitlines() or [""])[-1]


def verdict(tree, module, mutant, seconds):
    """"killed", "equivalent" or "alive"."""
    path = tree / module
    right = path.read_text(encoding="utf-8")
    path.write_text(mutant.applied(right), encoding="utf-8")
    try:
        # A fault may stop a simulation for ever. Other tests on the same cores take time, too.
        status, _ = run(tree, tests_of(module), 30 + 8 * seconds)
        if status:
            return "killed"
        emitted = tree / "emitted"
        shutil.rmtree(emitted, ignore_errors=True)
        emitted.mkdir()
        components = COMPONENTS.get(module, [])
        if not components or prover("emit", tree, emitted, components):
            return "alive"
    finally:
        path.write_text(right, encoding="utf-8")
    return "alive" if prover("prove", tree, emitted, components) else "equivalent"


def prover(what, tree, folder, components):
    """Exit status of one half of the proof."""
    return subprocess.run([sys.executable, "-c", _PROOF, what, folder, *components], cwd=tree,
                          env=environment(tree), stdin=subprocess.DEVNULL,
                          capture_output=True, check=False).returncode


def table(rows):
    """Verdicts for each module, as text."""
    verdicts = ("killed", "equivalent", "alive", "not tried")
    counts = {}
    for entry in rows:
        counts.setdefault(entry["module"], Counter())[entry["verdict"]] += 1
    counts["all"] = sum(counts.values(), Counter())
    width = max(map(len, counts))
    lines = [" " * width + "".join(f"{name:>12}" for name in ("faults", *verdicts, "share"))]
    for module, counter in counts.items():
        # Of those that change something, the share that is found.
        tried = counter["killed"] + counter["alive"]
        share = f"{100 * counter['killed'] / tried:.1f}%" if tried else "-"
        lines.append(f"{module:{width}}{counter.total():12}"
                     + "".join(f"{counter[name]:12}" for name in verdicts) + f"{share:>12}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
