# SPDX-License-Identifier: BSD-2-Clause
"""``python -m hw.prove``: the short proofs, the page, and what is refused."""

import importlib.util
import json
from pathlib import Path

import pytest

from hw import prove
from hw.proofs.catalogue import HOLES, PROOFS


def test_quick_proofs(tmp_path, capsys):
    report = tmp_path / "proofs.json"
    assert prove.main(["--quick", "--json", str(report)]) == 0
    rows = json.loads(report.read_text())
    quick = [proof.name for proof in PROOFS.values() if proof.quick]
    assert [row["name"] for row in rows] == quick
    assert {(row["verdict"], row["found"], row["witness"]) for row in rows} == {
        ("proven", "found", "all found")}
    assert f"{len(quick)} of {len(quick)} proven" in capsys.readouterr().out


def test_list(capsys):
    assert prove.main(["--list", "top1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("top1.selection: Of all 2^32 subgroups")
    assert sum(line.startswith("open: ") for line in lines) == len(HOLES) > 3


def test_page():
    page = " ".join((Path(__file__).parents[2] / "docs/proofs.md").read_text().split())
    for proof in PROOFS.values():
        assert f"| `{proof.name}` | {proof.claim} |" in page
    for unit, hole in HOLES.items():
        assert f"- `{unit}`: {hole}" in page


def test_markdown():
    row = {"name": "a.b", "claim": "All.", "engine": "SAT", "seconds": 1.26, "verdict": "proven",
           "bug": "x: a | b -> a", "found": "not found"}
    assert prove.markdown([row]).splitlines()[2] == (
        "| `a.b` | All. | SAT | 1.3 | proven | `x: a \\| b -> a`: not found |")


def test_too_long_is_open(capsys):
    assert prove.main(["top1.selection", "--minutes", "1e-9"]) == 1
    out, err = capsys.readouterr()
    assert "open" in out and err.endswith("error: not proven: top1.selection\n")


@pytest.mark.parametrize("arguments, complaint", [
    (["top2"], "UNIT|PROOF must be one of "),
    (["--jobs", "0"], "--jobs must be at least 1, not 0"),
    (["--jobs", "two"], "argument --jobs: invalid int value: 'two'"),
    (["--minutes", "0"], "--minutes must be above 0, not 0"),
    (["--minutes", "nan"], "--minutes must be above 0, not nan"),
    (["--quick", "decoder"], "--quick has no proof of decoder"),
])
def test_wrong_use(arguments, complaint, capsys):
    try:
        status = prove.main(arguments)
    except SystemExit as error:
        status = error.code
    out, err = capsys.readouterr()
    assert status == 2 and out == ""
    assert err.startswith(f"error: {complaint}") and err.count("\n") == 1


def test_without_the_solver(monkeypatch, capsys):
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec",
                        lambda name, *more: None if name == "pysat" else there(name, *more))
    assert prove.main(["top1"]) == 1
    assert capsys.readouterr().err == (
        "error: hw.prove needs python-sat: pip install 'm2xfp-rtl[prove]'\n")


def test_trace():
    cycles = [{"clk": 0, "a": 1, "claim_x": 1, "claim_y": 1, "witness_z": 0, "assume_w": 1},
              {"clk": 0, "a": 255, "claim_x": 0, "claim_y": 1, "witness_z": 0, "assume_w": 1}]
    assert prove.trace(cycles).splitlines() == [
        "cycle    0   1", "a        1  ff", "claim_x  1   0"]
