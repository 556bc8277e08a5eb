# SPDX-License-Identifier: BSD-2-Clause
"""The Python examples of the pages run; `tests/test_specification.py` has the specification's.

A page's examples run in their order, each with what those before it have made, and so do the
commands that write Verilog.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = {str(path.relative_to(ROOT / "docs")): path.read_text()
         for path in sorted((ROOT / "docs").rglob("*.md")) if path.parent.name != "specification"}


# These show edits of files of the tree, piece by piece, and not programs.
EDITS = {"adding-a-unit.md", "adding-a-format.md"}


def examples(text):
    """Blocks of Python, sessions and commands of a page in their order."""
    found = re.findall(r"^```(?:python|pycon)\n(.*?)^```$|^    (python -m hw\.generate [^\n]*)$",
                       text, re.M | re.S)
    return [block or command for block, command in found]


RUN = """
import doctest, shlex, subprocess, sys
names = {"__name__": "__main__"}
for text in eval(sys.stdin.read()):
    if text.startswith(">>>"):
        test = doctest.DocTestParser().get_doctest(text, names, "page", "page", 0)
        found = doctest.DocTestRunner().run(test, clear_globs=False)
        names.update(test.globs)
        if found.failed or not found.attempted:
            sys.exit(1)
    elif text.startswith("python -m "):
        subprocess.run([sys.executable, *shlex.split(text)[1:]], check=True)
    else:
        exec(compile(text, "page", "exec"), names)
"""


def run(texts, folder):
    return subprocess.run([sys.executable, "-W", "error", "-c", RUN], input=repr(texts),
                          text=True, cwd=folder, capture_output=True,
                          env=os.environ | {"PYTHONPATH": str(ROOT)})


LONG = "encodings.md", "getting-started.md"


@pytest.mark.parametrize("page", [
    pytest.param(page, marks=pytest.mark.long) if page in LONG else page
    for page, text in PAGES.items() if "```python" in text and page not in EDITS])
def test_examples_run(page, tmp_path):
    done = run(examples(PAGES[page]), tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("texts", [["1 / 0"], [">>> 1 + 1\n3\n"], ["a = 1", ">>> a\n2\n"],
                                   [">>> # nothing\n"], ["python -m hw.generate no_such"]])
def test_wrong_examples_are_found(texts, tmp_path):
    assert run(texts, tmp_path).returncode != 0


def test_later_examples_have_the_names_of_earlier_ones(tmp_path):
    assert run(["a = 1", ">>> a\n1\n", "assert a == 1"], tmp_path).returncode == 0
