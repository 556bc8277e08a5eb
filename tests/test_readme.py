"""The README says what the code does."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from hw import registry
from hw.lib import formats
from hw.report import tables

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_tables_are_current():
    current = {"units": tables.units(), "registers": tables.registers()}
    assert tables.insert(README, current) == README


def test_every_unit_has_a_figure():
    figures = README.split("<!-- figures: ")[1].split("<!-- end of figures -->")[0]
    assert re.findall(r"^\| `(\w+)`", figures, re.M) == list(registry.UNITS)


def test_examples_run():
    examples = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(examples) == 3
    for example in examples:
        subprocess.run([sys.executable, "-W", "error", "-c", example], cwd=ROOT, check=True)


def test_markers_are_required():
    with pytest.raises(ValueError, match="one pair of markers for units, not 0"):
        tables.insert("no markers", {"units": ""})


def test_both_sides_agree_on_the_constants():
    from golden.codec import numbers as model

    assert formats.SCALE_NAN == model.SCALE_NAN
    assert formats.FLOAT32_NAN == int(model.FLOAT32_NAN.view("u4"))
    assert formats.GROUP in model.GROUPS
    assert formats.SUBGROUP in model.SUBGROUPS
