# SPDX-License-Identifier: BSD-2-Clause
"""The map in CONTRIBUTING names files, sections and tests that are there."""

import ast
import re

import pytest

from tests.support.imports import ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
ROWS = [[cell.strip(" `") for cell in line.strip("|").split("|")]
        for line in TEXT.split("### Ten questions")[1].split("## Rules")[0].splitlines()
        if line.startswith("| ") and not line.startswith("| question")]
SECTIONS = {number for path in (ROOT / "docs/specification").glob("*.md")
            for number in re.findall(r"^## (\d+\.\d+)", path.read_text(encoding="utf-8"), re.M)}


def test_ten_questions():
    assert len(ROWS) == 10 and {len(row) for row in ROWS} == {5}


@pytest.mark.parametrize("question, golden, rtl, section, test", ROWS)
def test_the_answer_is_there(question, golden, rtl, section, test):
    assert golden == "no reference" or (ROOT / golden).is_file()
    assert (ROOT / rtl).is_file() and section in SECTIONS
    path, name = test.split("::")
    tree = ast.parse((ROOT / "tests" / path).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_rooms_are_there():
    rooms = re.findall(r"^\| \d+ \| (.*?) \|", TEXT, re.M)
    assert len(rooms) == 11
    for room in re.findall(r"`([\w/.]+)`", " ".join(rooms)):
        assert (ROOT / room).exists()
