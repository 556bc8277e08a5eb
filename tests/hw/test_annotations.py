# SPDX-License-Identifier: BSD-2-Clause
"""The flow, the tools, the reports and the simulation have types; mypy checks them."""

import pytest

from tests.support.annotations import functions, missing
from tests.support.imports import ROOT

FOLDERS = ("hw/flow", "hw/report", "hw/tools", "sim", "sim/engines")
FILES = [*(path for folder in FOLDERS for path in sorted(ROOT.joinpath(folder).glob("*.py"))),
         ROOT / "hw/generate.py"]


# Files that are still without. They leave this list as soon as they have annotations.
LATER = {ROOT / name for name in (
    "hw/flow/emitted.py",
    "hw/flow/mapping.py", "hw/flow/measurement.py", "hw/flow/partition.py", "hw/report/sweep.py",
    "hw/report/text_tables.py", "hw/tools/cache.py", "hw/tools/progress.py",
    "hw/tools/yosys.py")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_public_functions_have_annotations(path):
    assert (missing(path) != []) == (path in LATER)


def test_they_are_found(tmp_path):
    path = tmp_path / "module.py"
    path.write_text("def f(x: int, *more: int, y: int = 1, **rest: int) -> int: ...\n"
                    "def g(x) -> int: ...\n"
                    "def h(x: int): ...\n"
                    "def i(*x) -> None: ...\n"
                    "def _j(x): ...\n"
                    "class A:\n"
                    "    def __init__(self, x): ...\n"
                    "    def b(self) -> None: ...\n"
                    "    @staticmethod\n"
                    "    def c(x) -> None: ...\n"
                    "    def _d(self, x): ...\n"
                    "class _B:\n"
                    "    def e(self, x): ...\n")
    assert missing(path) == ["g", "h", "i", "A.__init__", "A.c"]
    assert sum(len([*functions(path)]) for path in FILES) > 80


def test_packages_say_that_they_have_types():
    for package in ("hw", "sim"):
        assert ROOT.joinpath(package, "py.typed").is_file()
