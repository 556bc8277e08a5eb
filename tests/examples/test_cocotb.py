# SPDX-License-Identifier: BSD-2-Clause
"""The testbench in cocotb passes on what is emitted, and fails on a wrong bit."""

import importlib.util
import os
import subprocess
import sys

import pytest

from tests.support.imports import ROOT
from tests.support.verilog_bench import missing

FOLDER = ROOT / "examples/cocotb"
REASON = missing("iverilog") or next(
    (f"the package {name} is not installed" for name in ("cocotb", "cocotbext")
     if importlib.util.find_spec(name) is None), None)


def run(*arguments):
    # As from a command line: cocotb's runner does other things under pytest.
    environment = {name: value for name, value in os.environ.items()
                   if name != "PYTEST_CURRENT_TEST"}
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=FOLDER, text=True,
                          capture_output=True, env=environment | {"PYTHONPATH": str(ROOT)})


@pytest.mark.skipif(REASON is not None, reason=str(REASON))
@pytest.mark.long
def test_products(tmp_path):
    done = run("run.py", "icarus", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "40 results equal golden's" in done.stdout
    assert done.stdout.splitlines()[-1] == "1 tests, 0 failed"

    # A machine whose results have one bit wrong.
    path = tmp_path / "axi_accelerator_axi.v"
    text = path.read_text()
    assert text.count("m_axis_tdata = ") == 1
    path.write_text(text.replace("m_axis_tdata = ", "m_axis_tdata = 128'h1000 ^ "))
    done = run("-c", "import sys, pathlib, run; "
                     f"print(*run.simulate('icarus', pathlib.Path({str(tmp_path)!r})))")
    assert done.stdout.splitlines()[-1] == "1 1"
    assert "bytes(frame.tdata) == rows.tobytes()" in done.stdout
