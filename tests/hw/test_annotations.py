# SPDX-License-Identifier: BSD-2-Clause
"""The flow, the tools, the reports and the simulation have types; mypy checks them."""

import pytest

from tests.support.annotations import functions, missing
from tests.support.imports import ROOT

FOLDERS = ("hw/flow", "hw/kit", "hw/report", "hw/tools", "sim", "sim/engines")
FILES = [*(path for folder in FOLDERS for path in sorted(ROOT.joinpath(folder).glob("*.py"))),
         *(ROOT / "hw" / name for name in ("__main__.py", "generate.py", "synth.py"))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_public_functions_have_annotations(path):
    assert missing(path) == {}


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
                    "    def e(self, x): ...\n"
                    "def k(self, a: int, b, *c, d=1) -> int: ...\n"
                    "l = lambda x: x\n"
                    "if True:\n"
                    "    def m(x: int): ...\n"
                    "try:\n"
                    "    async def n(x): ...\n"
                    "except OSError:\n"
                    "    def o(x, /, y: int, *, z): ...\n")
    assert missing(path) == {
        "g": ["x"], "h": ["return"], "i": ["x"], "A.__init__": ["x", "return"], "A.c": ["x"],
        "k": ["self", "b", "c", "d"], "l": ["x", "return"], "m": ["return"], "n": ["x", "return"],
        "o": ["x", "z", "return"]}
    assert sum(len([*functions(path)]) for path in FILES) > 80


def test_packages_say_that_they_have_types():
    for package in ("hw", "sim"):
        assert ROOT.joinpath(package, "py.typed").is_file()
