# SPDX-License-Identifier: BSD-2-Clause
"""The examples run as they are printed, and can fail."""

import json
import os
import re
import subprocess
import sys

import pytest

from tests.support.imports import ROOT
from tests.support.programs import load

EXAMPLES = ROOT / "examples"
NOTEBOOK = json.loads((EXAMPLES / "compare_formats.ipynb").read_text(encoding="utf-8"))
CELLS = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def run(*arguments, code=0):
    result = subprocess.run(
        [sys.executable, "-W", "error", *map(str, arguments)], text=True, capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"})
    assert result.returncode == code, result.stderr
    return result.stdout


@pytest.mark.long
def test_a_top_of_two_units(tmp_path):
    printed = run(EXAMPLES / "transcoder.py", tmp_path)
    assert printed.splitlines()[0] == "160 groups, 0 mismatches against golden"
    text = (tmp_path / "transcoder.v").read_text()
    assert "module transcoder (\n" in text and "  input  wire [143:0] i__payload" in text


@pytest.mark.long
def test_a_wrong_top_is_found(tmp_path):
    text = (EXAMPLES / "transcoder.py").read_text(encoding="utf-8")
    wrong = text.replace('Decoder(kind="special")', 'Decoder(kind="weight")')
    assert wrong != text
    # A tenth of the groups is enough to find it.
    short = wrong.replace("(16, 320)", "(16, 32)")
    assert short != wrong
    (tmp_path / "wrong.py").write_text(short, encoding="utf-8")
    printed = run(tmp_path / "wrong.py", tmp_path, code=1)
    assert re.match(r"16 groups, [1-9]\d* mismatches against golden\n", printed)


@pytest.mark.long
def test_a_unit_of_ones_own(tmp_path):
    printed = run(EXAMPLES / "zero_counter.py", tmp_path)
    assert "zero_counter: 2000 transfers, 0 mismatches" in printed
    assert (tmp_path / "zero_counter.v").is_file()
    description = json.loads((tmp_path / "zero_counter.json").read_text())
    assert [stream["name"] for stream in description["streams"]] == ["i", "o"]
    figures = json.loads((tmp_path / "zero_counter_synth.json").read_text())["units"]
    assert figures["zero_counter"]["flip_flops"] == 7 and "zero_counter" in printed


def printed_by(cell):
    return "".join("".join(output["text"]) for output in cell["outputs"]
                   if output["output_type"] == "stream")


@pytest.mark.long
def test_the_notebook_prints_what_it_shows(tmp_path):
    """Its cells, one after the other, print what is stored below them."""
    mark = "== end of cell =="
    program = "\n".join("".join(cell["source"]) + f"\nprint({mark!r})" for cell in CELLS)
    path = tmp_path / "notebook.py"
    path.write_text(program, encoding="utf-8")
    parts = run(path).split(mark + "\n")
    assert len(parts) == len(CELLS) + 1 and parts.pop() == ""
    assert parts == [printed_by(cell) for cell in CELLS]
    assert sum(map(bool, parts)) >= 4


@pytest.mark.parametrize("name", ["transcoder.py", "zero_counter.py", "compare_formats.ipynb",
                                  "beats.py", "driver/", "cocotb/"])
def test_no_stranger_in_the_folder(name):
    assert {path.name for path in EXAMPLES.iterdir()} - {"__pycache__"} == {
        "README.md", "beats.py", "cocotb", "compare_formats.ipynb", "driver", "transcoder.py",
        "zero_counter.py"}
    assert f"`{name}`" in (EXAMPLES / "README.md").read_text(encoding="utf-8")


def test_the_page_of_beats_is_what_the_program_prints(capsys):
    beats = load("beats.py")
    page = (ROOT / "docs/beats.md").read_text(encoding="utf-8")
    assert beats.main([]) == 0
    assert page.partition("## The product\n\n")[2] == capsys.readouterr().out
    # Another product has other beats, and sizes that do not fit are one line.
    assert beats.main(["1", "32", "1"]) == 0
    assert capsys.readouterr().out.count("\n0: ") == 4
    assert beats.main(["1", "32", "33"]) == 2
    assert capsys.readouterr().err == ("error: sizes must be M, K and N, each from 1 to 256, and N "
                                       "at most 32, not 1 32 33\n")
