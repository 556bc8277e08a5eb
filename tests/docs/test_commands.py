# SPDX-License-Identifier: BSD-2-Clause
"""The command reference and the API reference."""

import argparse
import re
from pathlib import Path

import api_text
import command_text
import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "commands.md").read_text()
DESCRIBED = [tuple(words.split()) for words in re.findall(r"^```\{command\} (.*)$", PAGE, re.M)]


def programs():
    """The name of every command's parser, from the sources."""
    found = set()
    for folder in ("benchmarks", "golden", "hw", "sim"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            found |= set(re.findall(r'prog="python -m ([\w. ]+)"', path.read_text()))
    return found


def test_every_command_is_described():
    described = {command_text.parser(*words).prog for words in DESCRIBED}
    assert len(described) == len(DESCRIBED)
    assert {f"python -m {name}" for name in programs()} == described


@pytest.mark.parametrize("words", DESCRIBED, ids=" ".join)
def test_description_has_every_option(words):
    parser = command_text.parser(*words)
    text = command_text.markdown(parser)
    assert text.startswith(f"### `{parser.prog}`\n")
    for option in options(parser):
        assert f"`{option}" in text or f", {option}" in text


def options(parser):
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield name
                yield from options(below)
        elif not isinstance(action, argparse._HelpAction):
            yield from action.option_strings


def test_parsers_are_taken_without_running():
    with pytest.raises(SystemExit):
        command_text.parser("sim").parse_args(["--no-such"])


def test_text():
    assert command_text._text("of --power, see python -m hw") == \
        "of `--power`, see `python -m hw`"


@pytest.mark.parametrize("line, escaped", [
    ("2**(x - 127)", r"2\*\*(x - 127)"),
    ("|G| <= 131712", r"\|G\| <= 131712"),
    ("``2**k`` of `Top1`", "``2**k`` of `Top1`"),
    ("name_ and snake_case", r"name\_ and snake_case"),
])
def test_escape(line, escaped):
    assert api_text.escape(line) == escaped


def test_blocks_are_not_escaped():
    lines = ["Use::", "", "    a ** b", "", "a ** b"]
    api_text.escape_all(lines)
    assert lines == ["Use::", "", "    a ** b", "", r"a \*\* b"]


def test_package_s_names_are_described_once():
    text = api_text.markdown("hw.lib")
    assert text.count("automodule:: hw.lib\n") == 1
    left = text.split("automodule:: hw.lib.buffer\n")
    assert len(left) == 1 or "Buffer" in left[1].split("```")[0]


PACKAGES = [package for path in sorted((ROOT / "docs" / "reference" / "api").glob("*.md"))
            for package in re.findall(r"^```\{api\} (\S+)$", path.read_text(), re.M)]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_fence_of_a_package_is_one(package):
    """Backticks behind a fence of backticks make it running text."""
    fences = re.findall(r"^(```|~~~)(.+)$", api_text.markdown(package), re.M)
    assert ("```", "{eval-rst}") in fences
    assert [rest for mark, rest in fences if mark == "```" and "`" in rest] == []
