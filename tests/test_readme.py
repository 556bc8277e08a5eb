# SPDX-License-Identifier: BSD-2-Clause
"""The README says what the code does."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import unit_tables

from hw import registry
from hw.lib import formats

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_figures_are_current():
    """They equal what the generator makes of the tracked report, ``docs/figures.json``."""
    assert unit_tables.insert(README) == README
    assert len(re.findall(r"^\| `", unit_tables.readme_figures(), re.M)) == 5


def test_figures_that_differ_are_found():
    figures = unit_tables.report()["units"]["pe_tile"]
    old = f"| {figures['cells']} | {figures['area_um2']:.0f} |"
    wrong = README.replace(old, f"| {figures['cells'] + 1} | {figures['area_um2']:.0f} |")
    assert wrong != README
    assert unit_tables.insert(wrong) == README


def test_table_is_required():
    with pytest.raises(ValueError, match="one table with the head .*, not 0"):
        unit_tables.insert("no table")


def test_length():
    assert len(README.splitlines()) <= 220


def test_every_unit_has_a_figure():
    figures = (ROOT / "docs" / "synthesis.md").read_text().split("## The recipe")[0]
    assert re.findall(r"^\| `(\w+)`", figures, re.M) == list(registry.UNITS)


def test_examples_run():
    examples = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(examples) == 2
    for example in examples:
        subprocess.run([sys.executable, "-W", "error", "-c", example], cwd=ROOT, check=True)


def test_both_sides_agree_on_the_constants():
    from golden.codec import numbers as model

    assert formats.SCALE_NAN == model.SCALE_NAN
    assert formats.FLOAT32_NAN == int(model.FLOAT32_NAN.view("u4"))
    assert formats.GROUP in model.GROUPS
    assert formats.SUBGROUP in model.SUBGROUPS
