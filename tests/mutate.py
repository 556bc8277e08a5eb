# SPDX-License-Identifier: BSD-2-Clause
"""The tests' own test: ``python -m tests.mutate --help``.

Puts one fault at a time into the source of a component and runs the short tests of its unit, which
must fail. Where they pass, the Verilog of the faulty component is compared with that of the right
one by a formal proof, or the faulty one is proven to meet a plain specification; such faults change
nothing and are called equivalent.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import Queue

from tqdm import tqdm

from golden import command
from hw.tools.files import write
from tests.hw.test_ports import WIDTHS
from tests.support.mutants import KINDS, mutants

ROOT = Path(__file__).resolve().parents[1]

COPIED = ("golden", "hw", "sim", "tests", "pyproject.toml")

_ENGINES = ["tests/hw/units/test_quantization_engine.py"]
_TILES = ["tests/hw/units/test_pe_tile.py", "tests/hw/units/test_sg_pe_tile.py",
          "tests/hw/units/test_nvfp4_pe_tile.py"]
_ADDERS = ["tests/hw/lib/test_float_adder.py", "tests/hw/units/test_group_accumulator.py"]
_MACHINE = ["tests/hw/accelerator/test_accelerator.py"]
_FLAGS = "tests/hw/test_ports.py::test_flags_are_bits"

_AS_NEW = "tests/hw/test_reset.py::test_as_new_after_reset[{}]"

_LINK = [_AS_NEW.format(part)
         for part in ("frame_receiver", "frame_sender", "link_input", "link_output")]

TESTS = {
    "hw/lib/arithmetic.py": [*_ENGINES, "tests/hw/units/test_top1.py", *_TILES, *_ADDERS,
                             "tests/hw/units/test_nvfp4_quantizer.py",
                             "tests/hw/units/test_sg_engine.py"],
    "hw/lib/buffer.py": [_AS_NEW.format("buffer")],
    "hw/lib/cleared.py": [],
    "hw/lib/dot_product.py": _TILES,
    "hw/lib/factor_trial.py": ["tests/hw/units/test_sg_engine.py"],
    "hw/lib/float_adder.py": ["tests/hw/units/test_group_accumulator.py"],
    "hw/lib/formats.py": ["tests/hw/units/test_decoder.py", *_ENGINES],
    "hw/lib/group_choice.py": [],
    "hw/lib/group_scale.py": [],
    "hw/lib/magnitude.py": ["tests/hw/units/test_sg_engine.py"],
    "hw/lib/pipeline.py": _ENGINES,
    "hw/lib/shadow_tile.py": ["tests/hw/units/test_mac_array.py"],
    "hw/lib/skid_buffer.py": [_AS_NEW.format("skid_buffer")],
    "hw/lib/stream.py": [],
    "hw/lib/stream_queue.py": [_AS_NEW.format("stream_queue")],
    "hw/lib/stream_register.py": [_AS_NEW.format("stream_register")],
    "hw/lib/top1_select.py": ["tests/hw/units/test_top1.py", "tests/hw/units/test_top1_decode.py"],
    "hw/lib/widen.py": ["tests/hw/units/test_quantization_engine.py"],
    "hw/units/decoder.py": [_AS_NEW.format("decoder")],
    "hw/units/group_accumulator.py": [_AS_NEW.format("group_accumulator")],
    "hw/units/group_dot.py": ["tests/hw/units/test_group_mac.py"],
    "hw/units/group_mac.py": [],
    "hw/units/mac_array.py": [],
    "hw/units/nvfp4_array.py": [],
    "hw/units/nvfp4_pe_tile.py": [],
    "hw/units/nvfp4_quantizer.py": [],
    "hw/units/pe_tile.py": [],
    "hw/units/quantization_engine.py": [],
    "hw/units/sg_engine.py": [],
    "hw/units/sg_group_dot.py": ["tests/hw/units/test_mac_array.py",
                                  "tests/hw/test_ports.py::test_all_dot_products_take_as_long"],
    "hw/units/wide_group_dot.py": [],
    "hw/units/sg_pe_tile.py": [],
    "hw/units/top1.py": [],
    "hw/units/top1_decode.py": [],
    "hw/units/weight_encoder.py": [],
    "hw/accelerator/accelerator.py": [],
    "hw/accelerator/activation_feeder.py": [_AS_NEW.format("activation_feeder"), *_MACHINE,
                                            _FLAGS],
    "hw/accelerator/loop_nest.py": [_AS_NEW.format("loop_nest_products"), _FLAGS],
    "hw/accelerator/partial_sums.py": _MACHINE,
    "hw/accelerator/planner.py": [_AS_NEW.format("planner"), _FLAGS,
                                  "tests/hw/test_ports.py::test_widths_of_a_plan"],
    "hw/accelerator/weight_feeder.py": [_AS_NEW.format("weight_feeder"), *_MACHINE],
    "hw/bus/axi_accelerator.py": [],
    "hw/bus/axi_lite.py": [_AS_NEW.format("axi_lite")],
    "hw/bus/uart.py": [_AS_NEW.format("uart_receiver"), _AS_NEW.format("uart_transmitter")],
    "hw/bus/uart_link.py": _LINK,
}
"""Tests of each module besides those that have its name."""

_WHOLE = "tests/hw/accelerator/test_accelerator.py::"
# The short tests of the engine take 16 cycles for a group; with fewer there are other paths.
_ENGINE = [f"tests/hw/units/test_sg_engine.py::test_{test}" for test in (
    "groups[sg-threshold-16-4]", "groups[sg-special-16-6]", "groups[sg-special64-16-24]", "stalls",
    "groups[sg-threshold-4-4]", "groups[sg-special-1-4]", "handshake[sg-threshold-2]",
    "values_that_are_withdrawn[sg-threshold-2]")]
LONGER = {
    "hw/units/sg_engine.py": _ENGINE,
    "hw/units/wide_group_dot.py": [
        "tests/hw/test_ports.py::test_all_dot_products_take_as_long",
        *(f"tests/hw/units/test_mac_array.py::test_encodings[sg-special64-{case}]"
          for case in ("5-1-0.3-12", "13-1-0.3-20", "17-1-0-40"))],
    "hw/accelerator/accelerator.py": [
        f"{_WHOLE}test_own_configuration_without_engine",
        f"{_WHOLE}test_marks_of_the_last_transfer[2]", "tests/hw/accelerator/test_sequences.py"],
    "hw/bus/uart_link.py": ["tests/hw/bus/test_uart_link.py", *_LINK],
}
"""Modules that are too large for short tests, and tests among the longer ones."""

_TINY = 'CONFIGS["tiny"]'
COMPONENTS = {
    "hw/lib/arithmetic.py": ["QuantizationEngine()", "PETile()", "GroupAccumulator()",
                             "SgEngine(cycles=16)"],
    "hw/lib/buffer.py": ["Buffer(8, depth=8, banks=2)"],
    "hw/lib/dot_product.py": ["PETile()", "SgPETile()", "SgPETile(special=True)",
                              "Nvfp4PETile()"],
    "hw/lib/factor_trial.py": ["SgEngine(cycles=16)", 'SgEngine(cycles=16, encoding="sg-special")',
                               'SgEngine(cycles=16, encoding="sg-special64")'],
    "hw/lib/float_adder.py": ["GroupAccumulator()", "GroupAccumulator(depth=8)"],
    "hw/lib/formats.py": ["Decoder()", "QuantizationEngine()"],
    "hw/lib/group_choice.py": ['SgEngine(cycles=16, encoding="sg-em")',
                               'SgEngine(cycles=16, encoding="sg-special")',
                               'SgEngine(cycles=1, encoding="sg-special")',
                               'SgEngine(cycles=16, encoding="sg-special64")'],
    "hw/lib/group_scale.py": ["SgEngine(cycles=16)", 'SgEngine(cycles=16, encoding="sg-em")',
                              'SgEngine(cycles=16, encoding="sg-special")',
                              'SgEngine(cycles=1, encoding="sg-special")',
                              'SgEngine(cycles=16, encoding="sg-special64")'],
    "hw/lib/magnitude.py": ["SgEngine(cycles=16)", 'SgEngine(cycles=16, encoding="sg-em")',
                            'SgEngine(cycles=16, encoding="sg-special")',
                            'SgEngine(cycles=16, encoding="sg-special64")'],
    "hw/lib/pipeline.py": ["QuantizationEngine()", "QuantizationEngine(depth=3)",
                           "PETile(depth=2)"],
    "hw/lib/shadow_tile.py": ["MacArray(columns=2)"],
    "hw/lib/skid_buffer.py": ["SkidBuffer(8)"],
    "hw/lib/stream_queue.py": ["StreamQueue(8, depth=4)"],
    "hw/lib/stream_register.py": ["StreamRegister(8)"],
    "hw/lib/stream.py": ["GroupMac()", "MacArray(columns=2)", "QuantizationEngine()"],
    "hw/lib/top1_select.py": ["Top1()", "Top1Decode()", "QuantizationEngine()"],
    "hw/lib/widen.py": ['QuantizationEngine(input="float16")'],
    "hw/units/decoder.py": ["Decoder()", 'Decoder(kind="weight")', 'Decoder(kind="special")',
                            'Decoder(kind="special64")'],
    "hw/units/group_accumulator.py": ["GroupAccumulator()", "GroupAccumulator(metadata=False)",
                                      "GroupAccumulator(depth=8)"],
    "hw/units/group_dot.py": ["GroupMac()"],
    "hw/units/group_mac.py": ["GroupMac()"],
    "hw/units/mac_array.py": ["MacArray(columns=2)", "MacArray(columns=8, weight_width=8)"],
    "hw/units/nvfp4_array.py": ["Nvfp4Array(columns=2)", "Nvfp4Array(columns=8, weight_width=8)"],
    "hw/units/nvfp4_pe_tile.py": ["Nvfp4PETile()", "Nvfp4PETile(lanes=16)"],
    "hw/units/nvfp4_quantizer.py": ["Nvfp4Quantizer()"],
    "hw/units/pe_tile.py": ["PETile()", "PETile(depth=2)", "PETile(metadata=False)"],
    "hw/units/quantization_engine.py": [
        "QuantizationEngine()", 'QuantizationEngine(input="bfloat16")',
        'QuantizationEngine(input="float16")', 'QuantizationEngine(rule="ceil")',
        'QuantizationEngine(rule="rtn1")', 'QuantizationEngine(rule="rtn2")',
        "QuantizationEngine(depth=3)", "QuantizationEngine(metadata=False)"],
    "hw/units/sg_engine.py": ["SgEngine(cycles=16)", "SgEngine(cycles=2)",
                              'SgEngine(cycles=16, encoding="sg-em")',
                              'SgEngine(cycles=16, encoding="sg-special")',
                              'SgEngine(cycles=1, encoding="sg-special")',
                              'SgEngine(cycles=16, encoding="sg-special64")'],
    "hw/units/sg_group_dot.py": [
        f"MacArray(columns=1, depth={depth}, encoding='{encoding}')"
        for depth in (5, 13, 17) for encoding in ("sg-em", "sg-special")],
    "hw/units/wide_group_dot.py": [
        f"MacArray(columns=1, depth={depth}, encoding='sg-special64')" for depth in (5, 13, 17)],
    "hw/units/sg_pe_tile.py": ["SgPETile()", "SgPETile(special=True)", "SgPETile(depth=1)",
                               "SgPETile(special=True, exponent=True)"],
    "hw/units/top1.py": ["Top1()", "Top1(lanes=2)"],
    "hw/units/top1_decode.py": ["Top1Decode()"],
    "hw/units/weight_encoder.py": ["WeightEncoder()", 'WeightEncoder(encoding="sg-threshold")'],
    "hw/accelerator/accelerator.py": ['Accelerator(config="tiny")', 'Accelerator(config="lite")'],
    "hw/accelerator/activation_feeder.py": [f"ActivationFeeder({_TINY})"],
    "hw/accelerator/loop_nest.py": [f'LoopNest({_TINY}, loops="{loops}")'
                                    for loops in ("weights", "activations", "products")],
    "hw/accelerator/partial_sums.py": [f"PartialSums({_TINY})"],
    "hw/accelerator/planner.py": [f"Planner({_TINY})", 'Planner(CONFIGS["lite"])'],
    "hw/accelerator/weight_feeder.py": [f"WeightFeeder({_TINY})"],
    "hw/bus/axi_accelerator.py": ['AxiAccelerator(config="tiny")'],
    "hw/bus/axi_lite.py": [f"CommandRegisters({_TINY})"],
    "hw/bus/uart.py": ["UartReceiver(divisor=4)", "UartTransmitter(divisor=4)"],
    "hw/bus/uart_link.py": ["UartLink(Pair(), identity=b'pair', divisor=4, buffer=32)"],
}
"""Components whose Verilog tells whether a fault in a module changes anything."""

CLAIMS = {
    "hw/lib/arithmetic.py": ["pe_tile", "sg_pe_tile", "group_accumulator.adds_near",
                             "group_accumulator.term"],
    "hw/lib/dot_product.py": ["pe_tile", "sg_pe_tile"],
    "hw/lib/float_adder.py": ["group_accumulator"],
    "hw/units/pe_tile.py": ["pe_tile"],
    "hw/units/sg_pe_tile.py": ["sg_pe_tile"],
}
"""Proofs of `hw.prove` against plain specifications, for faults that rearrange adders: there a
comparison of two circuits takes too long."""

_PROOF = """
import sys
from pathlib import Path
from hw.accelerator.accelerator import Accelerator
from hw.accelerator.activation_feeder import ActivationFeeder
from hw.accelerator.config import CONFIGS
from hw.accelerator.loop_nest import LoopNest
from hw.accelerator.partial_sums import PartialSums
from hw.accelerator.planner import Planner
from hw.accelerator.weight_feeder import WeightFeeder
from hw.bus.axi_accelerator import AxiAccelerator
from hw.bus.axi_lite import CommandRegisters
from hw.bus.uart import UartReceiver, UartTransmitter
from hw.bus.uart_link import UartLink
from hw.lib import *
from hw.lib.buffer import Buffer
from hw.lib.skid_buffer import SkidBuffer
from hw.lib.stream_queue import StreamQueue
from hw.lib.stream_register import StreamRegister
from hw.units import *
from hw.verilog.emit import verilog
from hw.verilog.equivalence import prove
from tests.support.serial_line import Pair
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
    parser.add_argument("--again", metavar="FILE", type=Path, action="append", default=[],
                        help="try the faults again that are alive in what --json wrote, and keep "
                             "the others' verdicts; repeatable")
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
    if options.again and (options.modules or options.kind or options.count or options.sample):
        raise ValueError("--again must come without MODULE, --kind, --count and --sample")
    known = [row for path in options.again for row in read(path)]
    if options.again:
        chosen = alive(known)
    else:
        chosen = choose(options.modules or [*TESTS], options.kind, options.count, options.sample,
                        options.seed)
    if options.list:
        for module, mutant in chosen:
            print(f"{module}: {mutant}")
        return
    print(f"{len(chosen)} faults, seed {options.seed}", flush=True)
    rows = try_all(chosen, options.jobs, options.minutes)
    if known:
        tried = iter(rows)
        rows = [next(tried) if row["verdict"] == "alive" else row for row in known]
    print(table(rows))
    for row in rows:
        if row["verdict"] == "alive":
            print(f"alive: {row['module']}: {row['fault']}")
    if options.json:
        write(options.json, json.dumps({"seed": options.seed, "faults": rows}, indent=1) + "\n")
    if any(row["verdict"] == "alive" for row in rows):
        raise command.Failure("faults are alive: tests are missing")


def read(path):
    """The rows that ``--json`` wrote."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["faults"]
    except (ValueError, KeyError, TypeError):
        raise command.Failure(f"{path} is not what --json writes") from None


def alive(rows):
    """Pairs of a module and a mutant, for the rows whose faults are alive."""
    modules = {row["module"] for row in rows}
    found = {(module, str(mutant), mutant.start): mutant for module in modules
             for mutant in mutants((ROOT / module).read_text(encoding="utf-8"))}
    chosen = []
    for row in rows:
        if row["verdict"] == "alive":
            key = row["module"], row["fault"], row.get("at")
            if key not in found:
                raise command.Failure(f"{row['module']} no longer has {row['fault']}")
            chosen.append((row["module"], found[key]))
    return chosen


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
                status, text = run(tree, arguments_of(self.module), None)
                if status:
                    raise command.Failure(
                        f"tests of {self.module} fail without a fault: {text}")
                self._seconds = time.monotonic() - start
        return self._seconds


def row(module, mutant, what):
    """One row of the result."""
    return {"module": module, "kind": mutant.kind, "fault": str(mutant), "at": mutant.start,
            "verdict": what}


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
    ports = [f"tests/hw/test_ports.py::test_widths[{path.stem}]"] * (path.stem in WIDTHS)
    return list(dict.fromkeys([own] * (ROOT / own).exists() + TESTS[module] + ports))


def arguments_of(module):
    """What pytest is called with."""
    return [*LONGER[module], "-m", ""] if module in LONGER else tests_of(module)


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
        status, _ = run(tree, arguments_of(module), 30 + 4 * seconds)
        if status:
            return "killed"
        emitted = tree / "emitted"
        shutil.rmtree(emitted, ignore_errors=True)
        emitted.mkdir()
        components = COMPONENTS.get(module, [])
        if not components or called(tree, "-c", _PROOF, "emit", emitted, *components):
            return "alive"
        path.write_text(right, encoding="utf-8")
        if not called(tree, "-c", _PROOF, "prove", emitted, *components):
            return "equivalent"
        claims = CLAIMS.get(module)
        path.write_text(mutant.applied(right), encoding="utf-8")
        if claims and not called(tree, "-m", "hw.prove", "--jobs", "1", *claims):
            return "equivalent"
    finally:
        path.write_text(right, encoding="utf-8")
    return "alive"


def called(tree, *words):
    """Exit status of Python in a copy; 1 if it takes more than five minutes."""
    process = subprocess.Popen([sys.executable, *words], cwd=tree, env=environment(tree),
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        return process.wait(timeout=300)
    except subprocess.TimeoutExpired:
        return 1
    finally:
        # With what it has started.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


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
