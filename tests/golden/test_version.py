# SPDX-License-Identifier: BSD-2-Clause
"""The package knows its version."""

import tomllib

import golden
from tests.support.imports import ROOT


def test_version_is_that_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert golden.__version__ == project["version"]
