# SPDX-License-Identifier: BSD-2-Clause
"""Programs of `examples/` as modules; the folder is no package."""

import importlib.util

from tests.support.imports import ROOT


def load(path):
    """A program of the examples, such as "beats.py", as a module."""
    path = ROOT / "examples" / path
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
