# SPDX-License-Identifier: BSD-2-Clause
"""The command that measures the codec; not what it measures."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from benchmarks import codec, rivals
from golden.codec import kernel
from golden.formats import FORMATS

OPERATIONS = {"MXFP4", "activations", "weights", "decode activations", "decode weights", "pack",
              "unpack", "matmul"}


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    monkeypatch.setenv("M2XFP_NUMPY", "")


def without_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)


@pytest.mark.long
@pytest.mark.skipif(not kernel.compiler(), reason="needs a C compiler")
def test_figures(tmp_path, monkeypatch, capsys):
    without_torch(monkeypatch)
    file = tmp_path / "bench.json"
    assert codec.main(["--size", "256x256", "--runs", "1", "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "PyTorch is not installed" in printed
    assert "times torch" not in printed
    assert "2 threads instead of one, compiled" in printed
    written = json.loads(file.read_text())
    assert (written["size"], written["runs"], written["threads"]) == ([256, 256], 1, 2)
    assert set(written["operations"]) == OPERATIONS
    for operation, figures in written["operations"].items():
        assert list(figures) == ["compiled", "NumPy"]
        assert written["differing"][operation] == {"NumPy": 0}
        for engine, figure in figures.items():
            assert figure["wall_s"] > 0
            assert figure["cpu_s"] >= 0
            elements = 256 * 256 if operation != "matmul" else 16 * 64 * 256
            assert figure["elements_per_cpu_s"] == elements / max(figure["cpu_s"], 1e-9)
            assert figure["peak_extra_bytes"] is None or figure["peak_extra_bytes"] >= 0
            assert ("threads_speedup" in figure) == (engine == "compiled"
                                                     and operation in codec.THREADED)


@pytest.mark.long
def test_small_tensors_have_no_compiled_figures(monkeypatch, capsys):
    without_torch(monkeypatch)
    assert codec.main(["--size", "16x32", "--runs", "1", "--threads", "1"]) == 0
    printed = capsys.readouterr().out
    assert "compiled" not in printed
    assert "threads instead" not in printed
    assert printed.splitlines()[1].startswith("16x32 is small: fixed costs count, and no ratio ")
    assert "formats: " not in printed


@pytest.mark.long
def test_rows_of_formats(tmp_path, monkeypatch, capsys):
    """In a tensor that counts as large: of each format, and of each package that has it."""
    without_torch(monkeypatch)
    monkeypatch.setattr(codec, "SMALL", 1)
    fake = {"MXFP4": (lambda: np.ones(4), lambda q: q), "NVFP4": (lambda: (q := np.ones(4), q),
                                                                  lambda q: q[0])}
    monkeypatch.setattr(rivals, "PACKAGES", {"other": lambda x: fake, "gguf": lambda x: {
        "M2XFP weights": fake["MXFP4"]}, "gone": rivals.torchao})
    file = tmp_path / "bench.json"
    assert codec.main(["--size", "16x32", "--runs", "2", "--threads", "1", "--json", str(file),
                       "--formats", "rivals"]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("formats: "))
    rows = [line[:48].split("  ") for line in lines[start + 2: start + 8]]
    assert [[cell.strip() for cell in row if cell.strip()] for row in rows] == [
        ["MXFP4", "golden"], ["MXFP4", "other"], ["M2XFP weights", "golden"],
        ["M2XFP weights", "gguf Q4_0"], ["NVFP4", "golden"], ["NVFP4", "other"]]
    assert lines[start + 8] == "not installed: gone (pip install 'm2xfp-rtl[bench]')"
    figures = json.loads(file.read_text())["formats"]
    assert list(figures) == ["MXFP4", "M2XFP weights", "NVFP4"]
    assert {figure["runs"] for package in figures.values() for operations in package.values()
            for figure in operations.values()} == {2}


def test_slow_operations_run_once(monkeypatch):
    monkeypatch.setattr(codec, "SLOW", -1)
    kept = {}
    figures = codec._measure({"a": lambda: np.ones(3)}, 5, kept)
    assert figures["a"]["runs"] == 1 and kept["a"].tolist() == [1, 1, 1]


def test_every_format_has_a_row():
    assert codec.names_of("all", {}) == list(FORMATS)
    listed = codec.names_of("listed", {})
    assert len(listed) == 35 and {"HiF4", "IF4", "M2XFP mixed", "RaZeR weights"} <= {*listed}


def test_other_packages_compute_the_formats():
    """Where they are installed: errors are about those of this project."""
    x = codec.heavy_tails(16, 256)
    packages, _ = rivals.installed(x)
    if not packages:
        pytest.skip("needs torchao, compressed-tensors or gguf")
    for package, calls in packages.items():
        for name, (quantize, dequantize) in calls.items():
            values = np.asarray(dequantize(quantize()))
            assert values.shape == x.shape
            theirs, ours = (np.square(v - x).sum() for v in (values, FORMATS[name].round_trip(x)))
            # Where scales are those of "ceil", nothing saturates and errors are lower.
            limit = 2 if (package, name) in rivals.NOT_THE_SAME else 1.15
            assert ours / 2 < theirs < ours * limit, (package, name)


class Other(codec.Golden):
    """An engine whose weights, and whatever else is wanted, are wrong."""

    def __init__(self, *others):
        super().__init__(numpy=True)
        self.others = others

    def prepare(self, x, *operands):
        operations = super().prepare(x, *operands)
        for name in ("weights", *self.others):
            operations[name] = lambda threads, right=operations[name]: [
                plane ^ 1 for plane in right(threads)]
        return operations


@pytest.mark.long
def test_results_that_differ_are_an_error(monkeypatch, capsys):
    arguments = ["--size", "16x32", "--runs", "1", "--threads", "1"]
    # PyTorch compares errors that were rounded.
    monkeypatch.setattr(codec, "Torch", Other)
    assert codec.main(arguments) == 0
    assert "torch's weights differ in 592 values" in capsys.readouterr().out
    monkeypatch.setattr(codec, "Torch", lambda: Other("MXFP4"))
    assert codec.main(arguments) == 1
    assert capsys.readouterr().err == "error: MXFP4: torch differs in 528 values\n"


def test_memory_is_what_a_call_takes_beyond_its_result():
    def call(threads, extra):
        result = np.ones(10_000_000, np.uint8)
        return result[: len(np.ones(extra, np.uint8)) + len(result)],

    taken = [codec.peak(partial(call, extra=extra))[1] for extra in (0, 50_000_000)]
    if taken[0] is None:
        pytest.skip("measured on Linux only")
    assert taken[0] < 5_000_000
    assert 45_000_000 < taken[1] < 55_000_000


def test_torch_agrees():
    pytest.importorskip("torch")
    engines = {"NumPy": codec.Golden(numpy=True), "torch": codec.Torch()}
    _, differing = codec.measure(engines, codec.heavy_tails(64, 64), 1, 1)
    assert not list(codec.wrong(differing))


@pytest.mark.parametrize("arguments, message", [
    (["--size", "64"], "--size must be rows x columns, such as 4096x4096, not 64"),
    (["--size", "0x64"], "--size must be rows x columns, such as 4096x4096, not 0x64"),
    (["--size", "24x64"], "--size must have a multiple of 16 rows and of 32 columns, not 24x64"),
    (["--threads", "0"], "--threads must be at least 1, not 0"),
    (["--runs", "0"], "--runs must be at least 1, not 0"),
    (["--formats", "mx"], "--formats must be listed, rivals, all or none, not mx"),
    (["--json", "/no/such/folder/x.json"],
     "--json must lie in a folder that exists, not /no/such/folder"),
])
def test_wrong_options(arguments, message, capsys):
    try:
        status = codec.main(arguments)
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    assert message in capsys.readouterr().err


def test_command(monkeypatch):
    monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "benchmarks.codec", "--size", "16x32", "--runs", "1"],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    assert "medians of 1 run" in done.stdout
    assert done.stderr == ""
