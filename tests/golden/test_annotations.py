# SPDX-License-Identifier: BSD-2-Clause
"""Every public function, method and class of the golden model is annotated."""

import inspect
from pathlib import Path

import pytest

import golden
from tests.support.annotations import functions, missing
from tests.support.imports import ROOT

FOLDERS = [ROOT / "golden" / name for name in ("checkpoint", "codec", "formats", "models", "units")]
FILES = [ROOT / "golden/command.py",
         *(path for folder in FOLDERS for path in sorted(folder.glob("*.py")))]


def test_all_are_seen():
    found = {".".join([*path.relative_to(ROOT).with_suffix("").parts, name])
             for path in FILES for name, _ in functions(path)}
    assert len(found) > 150
    assert {"golden.command.run", "golden.codec.quantized.Quantized.pack",
            "golden.codec.quantized.Quantized.unpack", "golden.models.pretrained.smollm2",
            "golden.formats.format.Format.bits_per_element", "golden.models.accuracy.main",
            "golden.checkpoint.safetensors.Reader.__init__"} <= found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_public_functions_are_annotated(path):
    assert missing(path) == {}


@pytest.mark.parametrize("name", golden.__all__)
def test_exports_are_annotated(name):
    value = inspect.unwrap(getattr(golden, name))
    path = Path(inspect.getsourcefile(value))
    expected = f"{name}.unpack" if inspect.isclass(value) else value.__name__
    assert expected in dict(functions(path))
    assert missing(path) == {}
