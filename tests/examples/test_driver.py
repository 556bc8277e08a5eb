# SPDX-License-Identifier: BSD-2-Clause
"""The driver in C against golden: plans, order and packing by themselves, products on the machine.

`driver_check.c` runs the first three on arrays. `examples/driver/simulation.cpp` drives a simulated
AXI machine with them.
"""

import ctypes
import dataclasses
import re
import shutil
import struct
import subprocess

import ml_dtypes
import numpy as np
import pytest

from golden import Quantized
from golden.accelerator import planner
from golden.accelerator.accelerator import (
    activation_records,
    quantized,
    result_records,
    result_rows,
    value_groups,
    weight_transfers,
)
from golden.codec.numbers import FLOATS
from hw.accelerator.config import CONFIGS
from hw.bus.axi_lite import register_map
from tests.support import axi_model
from tests.support.imports import ROOT
from tests.support.programs import load

beats, example = load("beats.py"), load("driver/jobs.py")
DRIVER = ROOT / "examples/driver"
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wconversion",
          "-Wsign-conversion"]
SANITIZED = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
INPUTS = (None, "float32", "bfloat16", "float16")

pytestmark = pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is not installed")


def compiled(folder, *arguments):
    subprocess.run(["gcc", *STRICT, *map(str, arguments)], cwd=folder, check=True)


def test_registers_are_those_that_are_generated():
    assert (DRIVER / "m2xfp_registers.h").read_text() == register_map(CONFIGS["paper"]).header()


def test_freestanding(tmp_path):
    """It calls nothing but what every compiler brings."""
    compiled(tmp_path, "-ffreestanding", "-c", DRIVER / "m2xfp.c", "-o", "m2xfp.o")
    if shutil.which("nm"):
        done = subprocess.run(["nm", "-u", "m2xfp.o"], cwd=tmp_path, check=True, text=True,
                              capture_output=True)
        assert done.stdout.split() == []


def test_the_function_of_the_page(tmp_path):
    page = (ROOT / "docs/c-driver.md").read_text(encoding="utf-8")
    function, = re.findall(r"^```c\n(.*?)^```$", page, re.M | re.S)
    (tmp_path / "product.c").write_text(function)
    compiled(tmp_path, "-fsyntax-only", "-I", DRIVER, "product.c")


# Plans, order and packing

SIZES = planner.Config(columns=8, activations=64, rows=16, weight_width=2, input="bfloat16")
MACHINES = [planner.CONFIGS["tiny"], planner.CONFIGS["lite"], planner.CONFIGS["decode"], SIZES,
            dataclasses.replace(SIZES, columns=1, weight_width=1, input="float16"),
            dataclasses.replace(SIZES, input=None),
            dataclasses.replace(SIZES, encoding="sg-special64", engine="sg-special64"),
            dataclasses.replace(SIZES, columns=64, encoding="sg-special64", engine="sg-special64")]


def packed(records):
    """Records of a stream, planes of shape (transfers, ..., 32 or 64), as bytes."""
    elements, metadata = records["elements"], records["metadata"]
    low = elements[..., ::2] | elements[..., 1::2] << 4
    bits = 3 if metadata.shape[-1] == 8 else 2
    meta = (metadata.astype(np.uint32) << bits * np.arange(metadata.shape[-1])).sum(-1)
    meta = np.stack([meta >> 8 * byte & 255 for byte in range(3 if bits == 3 else 1)], -1)
    return np.concatenate([low, meta.astype(np.uint8), records["scale"][..., None]], -1).tobytes()


def matrix(rng, kind, rows, k, wide):
    """A matrix of any codes."""
    group = 64 if wide else 32
    groups = -(-k // group)
    return Quantized(kind=kind, shape=(rows, k), group=group,
                     encoding="sg-special64" if wide else None,
                     elements=rng.integers(0, 16, (rows, group * groups), np.uint8),
                     metadata=rng.integers(0, 8 if wide else 4, (rows, group // 8 * groups),
                                           np.uint8),
                     scales=rng.integers(0, 256, (rows, groups), np.uint8))


def case(rng, config, m, k, n, source, result, kept, chunk):
    """What the program reads for a command, and what it must write."""
    legal = bool(m and k and n)
    head = [config.columns, config.weight_width, config.activations, config.rows,
            INPUTS.index(config.input), config.quantizes, m, k, n, source, result,
            *(kept or (0, 0)), chunk, legal, 3 * (config.encoding == "sg-special64")]
    given = [np.array(head, "<u4").tobytes()]
    expected = [struct.pack("<i", planner.check(config, m, k, n, source, result, kept))]
    if not legal:
        return given, expected
    plan = planner.plan(config, m, k, n)
    x, y = (rng.standard_normal(shape).astype(np.float32) for shape in ((m, k), (m, n)))
    wide = config.encoding == "sg-special64"
    a, w = matrix(rng, "activation", m, k, wide), matrix(rng, "weight", n, k, wide)
    given += [example.planes(w), example.planes(a), x.tobytes(),
              result_rows(config, plan, y).tobytes()]
    expected += [packed(weight_transfers(config, plan, w)), packed(activation_records(plan, a))]
    if config.input:
        expected.append(value_groups(config, plan, x.astype(FLOATS[config.input])).tobytes())
    expected.append(y.tobytes())
    if config.quantizes:
        given.append(packed(result_records(config, plan, y)))
        expected.append(example.planes(quantized(config, y)))
    return given, expected


def cases(rng, count):
    # Partial tiles, several blocks, bundles of 1, 2, 4 and 8, plans that are not resident, and
    # more groups than the buffer holds.
    shapes = [(20, 96, 40), (3, 64, 192), (1, 32, 600), (40, 40, 33), (7, 300, 70), (17, 2100, 40),
              (20, 256, 40)]
    for m, k, n in shapes:
        yield MACHINES[0], m, k, n, 0, 0, None, 3
    for m in range(1, 10):
        yield MACHINES[1], m, 40, 41, 1, 0, None, 2
    # Just too large to keep, and just not: records, and rows.
    for m, n in ((8, 256), (8, 224), (17, 32), (16, 32)):
        yield MACHINES[0], m, 32, n, 0, planner.KEEP, None, 1
    # The same in groups of 64, and a group of which one element is there.
    for m, k, n in ((8, 64, 448), (8, 64, 449), (9, 65, 5), (1, 129, 70)):
        yield MACHINES[-1], m, k, n, 0, planner.KEEP, None, 2
    # What is kept: the right size, other rows, other columns, nothing.
    for kept in ((4, 64), (5, 64), (4, 63), None):
        yield MACHINES[0], 4, 64, 8, planner.KEPT, 0, kept, 1
    for _ in range(count):
        config = MACHINES[rng.integers(len(MACHINES))]
        m, k, n = (int(high ** rng.random()) for high in (60, 400, 3 * config.columns + 30))
        if rng.random() < 0.05:
            m = 0
        kept = (m, k) if rng.random() < 0.5 else (m + 1, k) if rng.random() < 0.5 else None
        source, result = (int(rng.integers(4)) for _ in range(2))
        yield config, m, k, n, source, result, kept, int(rng.integers(1, 20))


def test_plans_order_and_packing(tmp_path):
    rng = np.random.default_rng(0)
    compiled(tmp_path, *SANITIZED, "-I", DRIVER, DRIVER / "m2xfp.c",
             ROOT / "tests/examples/driver_check.c", "-o", "check")
    given, expected, met = [], [], set()
    for arguments in cases(rng, 40):
        read, wrote = case(rng, *arguments)
        given += read
        expected += wrote
        met.add(struct.unpack("<i", wrote[0])[0])
    (tmp_path / "in").write_bytes(b"".join(given))
    subprocess.run(["./check", "in", "out"], cwd=tmp_path, check=True)
    assert met == set(planner.STATUSES)
    found, position = (tmp_path / "out").read_bytes(), 0
    for number, part in enumerate(expected):
        assert found[position : position + len(part)] == part, number
        position += len(part)
    assert position == len(found)


def test_smaller_floats(tmp_path):
    compiled(tmp_path, "-shared", "-fPIC", "-O1", DRIVER / "m2xfp.c", "-o", "m2xfp.so")
    library = ctypes.CDLL(str(tmp_path / "m2xfp.so"))
    rng = np.random.default_rng(1)
    # Every float16 and bfloat16, what lies halfway between neighbours, and its neighbours.
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    low = halves[rng.integers(0, 1 << 16, 1000)].view(np.uint32)
    brains = rng.integers(0, 1 << 16, 1000, dtype=np.uint32) << 16
    bits = np.concatenate([low + d for d in (0, 1, 0x0FFF, 0x1000, 0x1001, 0x1FFF)]
                          + [brains + d for d in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF)]
                          + [np.float32([2.0**-24, 2.0**-25, 2.0**-26, 65504, 65519.99, 65520,
                                         np.inf, -np.inf, np.nan, 3.4e38, 0, -0.0]).view(np.uint32)
                             + d for d in (0, 1)]
                          + [rng.integers(0x32800000, 0x39000000, 2000, dtype=np.uint32)])
    x = bits.astype(np.uint32).view(np.float32)
    for name, kind in (("float16", np.float16), ("bfloat16", ml_dtypes.bfloat16)):
        convert = library[f"m2xfp_to_{name}"]
        convert.argtypes, convert.restype = [ctypes.c_float], ctypes.c_uint16
        found = np.array([convert(value) for value in x.tolist()], np.uint16)
        with np.errstate(over="ignore", invalid="ignore"):
            expected = x.astype(kind)
        nan = np.isnan(x)
        assert np.isnan(found.view(kind)[nan].astype(np.float32)).all() and nan.any()
        np.testing.assert_array_equal(found[~nan], expected.view(np.uint16)[~nan])


# Products on the machine

def results(program, folder, jobs, seed):
    """Runs jobs on the machine; returns what it writes."""
    (folder / "jobs").write_bytes(b"".join(jobs))
    done = subprocess.run([program, "jobs", "results", str(seed), "log"], cwd=folder, text=True,
                          capture_output=True)
    assert done.returncode == 0, done.stderr
    return (folder / "results").read_bytes()


def check(program, folder, jobs, expected, events):
    """Runs jobs with two patterns of stalls; results and events must be those expected."""
    for seed in range(2):
        assert results(program, folder, jobs, seed) \
            == b"".join(expected) + events.to_bytes(4, "little")


def parse(written, expected):
    """Whether each of some commands is done, with its result, rather than aborted."""
    ended, expected = [], expected.copy()
    while expected:
        whole = b"".join(expected[:2])
        ended.append(written.startswith(whole))
        assert ended[-1] or written.startswith(struct.pack("<i", -1))
        written = written[len(whole) if ended[-1] else 4:]
        del expected[:2]
    assert not written
    return ended


needs_model = pytest.mark.skipif(axi_model.missing() is not None, reason=str(axi_model.missing()))
DONE, FAILED, MISFRAMED = 1, 4, 8
FIELDS = ("m", "k", "n", "source", "result")
V, R, K = planner.VALUES, planner.RECORDS, planner.KEPT
OUT, PACKED, KEEP = planner.RESULTS


@needs_model
@pytest.mark.long
def test_products_on_tiny(tmp_path):
    """Every source, result and status, partial tiles, chains, and resets at any time."""
    config = planner.CONFIGS["tiny"]
    rng = np.random.default_rng(2)

    def c(*arguments):
        return example.command(rng, config, *arguments)

    chain = [c(5, 70, 40, V, KEEP), c(5, 40, 64, K, KEEP), c(5, 64, 9, K, OUT)]
    runs = [
        # More commands than the queue holds; two blocks, a partial tile, bundles of 8, 4 and 1.
        (None, [c(20, 96, 40), c(3, 33, 70, V), c(1, 31, 300, R, PACKED), c(9, 65, 33, V, PACKED),
                c(40, 300, 40), *chain]),
        # Each that does not run, between some that do; a kept result outlives those.
        (None, [c(0, 32, 32), c(4, 32, 32, R, KEEP), c(4, 32, 8, 3, OUT), c(4, 32, 8, R, 3),
                c(5, 32, 8, K), c(8, 32, 256, R, KEEP), c(4, 0, 1), c(4, 32, 40, K, PACKED),
                c(4, 40, 8, K)]),
        # Given up while the planner works, while operands come in, with results on their way.
        *((cycles, [c(20, 96, 40), c(3, 33, 70, V, PACKED)]) for cycles in (0, 60, 150, 400, 700)),
        (300, [c(5, 70, 40, V, KEEP)]),
        # What was kept before the reset is gone.
        (None, [c(5, 40, 64, K), *chain]),
    ]
    jobs, expected, statuses = example.script(config, runs)
    assert set(statuses) == set(planner.STATUSES)
    program = axi_model.simulation(tmp_path, ["config=tiny"], "-DQUANTIZES")
    check(program, tmp_path, jobs, expected, DONE | FAILED)

    # Random commands, as the example writes them.
    assert example.main(["tiny", str(tmp_path / "random"), str(tmp_path / "expected")]) == 0
    random = (tmp_path / "random").read_bytes()
    assert results(program, tmp_path, [random], 0) == (tmp_path / "expected").read_bytes()

    # A product that is written out: what the page shows crosses the pins, and nothing else.
    shown = beats.command(*beats.SIZES)
    jobs, expected, _ = example.script(config, [(None, [shown])])
    check(program, tmp_path, jobs, expected, DONE)
    crossed = {}
    for line in (tmp_path / "log").read_text().splitlines():
        channel, rest = line.split(" ", 1)
        crossed.setdefault("s_axi" if channel in ("read", "write") else channel, []).append(
            line if channel in ("read", "write") else rest)
    written, last = beats.beats(shown)
    assert {name: [text.replace("_", "") for text in given] for name, given in written.items()} \
        == {name: [text.split()[0] for text in crossed[name]] for name in written}
    assert [text.split()[1] for text in crossed["m_axis"]] == [str(bit) for bit in last]
    accesses = [f"{kind} {address:03x} {data:08x}"
                for kind, _, address, data, _ in beats.accesses(*beats.SIZES)]
    # The driver then reads the counter of cycles. A reset ends the jobs, and it opens once more.
    assert crossed.pop("s_axi")[: len(accesses)] == accesses
    assert crossed.keys() == written.keys()

    # Halted at any time, and by the watchdog: each command has ended with its result or was
    # aborted, and those behind a halt, and behind a command that fails, have theirs.
    for halt in ((0,), (150,), (400,), (900,), (0, 3000)):
        good = [c(20, 96, 40), c(3, 33, 70, V, PACKED)]
        first, results_of_first, _ = example.script(config, [(None, good)])
        after, results_after, _ = example.script(config, [(None, chain)])
        failed = example.command(rng, config, 4, 32, 32, 3)
        bad = example.word(0, 4, 32, 32, 3, OUT)
        assert planner.check(config, *(failed[name] for name in FIELDS), None) == 2
        written = results(program, tmp_path, [*first[:-2], example.word(5, *halt), bad, *after], 0)
        tail = b"".join([struct.pack("<i", 2), *results_after])
        assert written[:-4].endswith(tail)
        ended = parse(written[: -4 - len(tail)], results_of_first)
        assert ended in {(0,): [[False, False]], (0, 3000): [[True, False]]}.get(
            halt, [[False, False], [True, False], [True, True]])

    # One bit of an operand makes another product.
    jobs[1] = bytes([jobs[1][0] ^ 4]) + jobs[1][1:]
    found = results(program, tmp_path, jobs, 0)[:-4]
    assert found[:4] == bytes(4) and found != b"".join(expected)


@needs_model
@pytest.mark.long
def test_products_on_lite_with_marks(tmp_path):
    """Four columns, no quantized results; operand streams with tlast."""
    config = planner.CONFIGS["lite"]
    rng = np.random.default_rng(3)

    def c(*arguments):
        return example.command(rng, config, *arguments)

    good = (None, [c(3, 40, 6), c(9, 64, 7, V), c(1, 33, 41), c(2, 32, 4, K), c(2, 32, 4, R, KEEP)])
    program = axi_model.simulation(tmp_path, ["config=lite", "config.framed=true"], "-DFRAMED")
    jobs, expected, statuses = example.script(config, [good])
    assert statuses == [0, 0, 0, planner.BAD_SOURCE, planner.BAD_RESULT]
    check(program, tmp_path, jobs, expected, DONE | FAILED)
    # A mark that is missing is seen, and changes nothing.
    check(program, tmp_path, [example.word(3), *jobs], expected, DONE | FAILED | MISFRAMED)


@needs_model
@pytest.mark.long
def test_products_in_groups_of_64(tmp_path):
    """Records of 36 bytes, values that an engine encodes; 64 along K met and missed by one."""
    config = dataclasses.replace(planner.CONFIGS["lite"], columns=2, encoding="sg-special64",
                                 engine="sg-special64")
    rng = np.random.default_rng(4)

    def c(*arguments):
        return example.command(rng, config, *arguments)

    runs = [(None, [c(3, 65, 5), c(9, 64, 3, V), c(1, 129, 4), c(2, 64, 4, K), c(2, 63, 4, V),
                    c(2, 64, 4, R, KEEP)])]
    program = axi_model.simulation(tmp_path, [
        "config=lite", "config.columns=2", "config.encoding=sg-special64",
        "config.engine=sg-special64", "config.engine_cycles=8"])
    jobs, expected, statuses = example.script(config, runs)
    assert statuses == [0, 0, 0, planner.BAD_SOURCE, 0, planner.BAD_RESULT]
    check(program, tmp_path, jobs, expected, DONE | FAILED)
