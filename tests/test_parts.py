# SPDX-License-Identifier: BSD-2-Clause
"""Parts of the tests: `pytest --part N/M`."""

import argparse
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests import conftest


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_parts_together_are_all_tests(parts):
    left, runs = [], []
    for number in range(1, parts + 1):
        items = [*range(20)]
        conftest.pytest_collection_modifyitems(SimpleNamespace(
            getoption=lambda name, part=(number, parts): {"part": part}[name],
            hook=SimpleNamespace(pytest_deselected=lambda items: left.extend(items))), items)
        runs.append(items)
    assert runs == [[*range(20)][number::parts] for number in range(parts)]
    assert sorted(left + sum(runs, [])) == sorted([*range(20)] * parts)


def test_wrong_part():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--part", "3/2", "--collect-only", "tests/test_parts.py"],
        cwd=Path(__file__).parents[1], text=True, capture_output=True)
    assert done.returncode == 4
    assert "argument --part: must be N/M with N from 1 to M, not '3/2'" in done.stderr


@pytest.mark.parametrize("text", ["0/2", "1", "a/b", "1/2/3", ""])
def test_no_part(text):
    with pytest.raises(argparse.ArgumentTypeError, match="must be N/M"):
        conftest._part(text)
