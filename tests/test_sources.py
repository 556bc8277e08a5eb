# SPDX-License-Identifier: BSD-2-Clause
"""Every source file says its licence and what it is for."""

import ast

import pytest

from tests.support.imports import ROOT

FOLDERS = ("benchmarks", "docs", "examples", "golden", "hw", "sim", "tests")
LICENCE = "SPDX-License-Identifier: BSD-2-Clause"
PRAGMA = "# amaranth:"


def files(*suffixes):
    found = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*"))
             if path.suffix in suffixes]
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in found]


@pytest.mark.parametrize("path", files(".py"))
def test_python(path):
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    # Amaranth reads its pragma in the first line only.
    assert [number for number, line in enumerate(lines) if line.startswith(PRAGMA)] in ([], [0])
    assert lines[int(lines[0].startswith(PRAGMA))] == f"# {LICENCE}"
    assert ast.get_docstring(ast.parse(text))


@pytest.mark.parametrize("path", files(".c", ".cpp", ".h"))
def test_c(path):
    assert path.read_text(encoding="utf-8").splitlines()[0] in (
        f"// {LICENCE}", f"/* {LICENCE} */", f"/* {LICENCE}")


def test_all_folders_have_files():
    assert len(files(".py")) > 200 and len(files(".c", ".cpp", ".h")) >= 4
