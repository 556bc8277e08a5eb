# SPDX-License-Identifier: BSD-2-Clause
"""Commands that are killed leave their outputs whole; see `tests.kill`."""

import os
from pathlib import Path

import pytest

from golden import command
from tests import kill

pytestmark = pytest.mark.skipif(os.name != "posix", reason="forks and limits of POSIX")


def verdicts(name, kinds, points):
    rows = kill.try_all([name], kinds, points, seed=0)
    assert len(rows) == points
    return {row["point"]: row["verdict"] for row in rows}


def test_a_few_points():
    assert {*verdicts("golden calibrate, its files", ["kill", "tear", "refuse"], 3).values()} == {
        "good"}


def _careless():
    for name, text in ("b", "new b"), ("a", "new" * 9):
        path = Path(kill.OUT, name)
        path.unlink(missing_ok=True)
        with path.open("x") as file:
            file.write(text)


def test_link_at_a_name_that_can_be_guessed(monkeypatch):
    def predictable():
        Path("tmp", "m2xfp").write_text("")
        Path(kill.OUT, "a").touch(exist_ok=True)

    monkeypatch.setitem(kill.CASES, "predictable", kill.Case(words=predictable))
    with pytest.raises(command.Failure, match="predictable opens tmp/m2xfp for writing, which may"):
        kill.try_all(["predictable"], ["kill"], 1, seed=0)


def _before():
    for name in "ab":
        Path(kill.OUT, name).write_text("old")


@pytest.mark.parametrize("kind, said", [
    ("kill", "b is there, and the others are not its own"), ("tear", "a is not whole")])
def test_careless_command_is_found(kind, said, monkeypatch):
    monkeypatch.setitem(kill.CASES, "careless", kill.Case(words=_careless, before=_before,
                                                          mark="b"))
    assert any(said in verdict for verdict in verdicts("careless", [kind], 6).values())


def test_wrong_use(capsys):
    assert kill.main(["no command"]) == 2
    assert "COMMAND must be one of hw.generate" in capsys.readouterr().err
    assert kill.main(["--points", "0"]) == 2
    assert kill.main(["--list"]) == 0
    assert capsys.readouterr().out.splitlines() == [*kill.CASES]


@pytest.mark.long
@pytest.mark.parametrize("name", [
    "hw.generate, two units", "hw.synth --json", "golden convert", "golden convert, folder",
    "golden accuracy --json, its record", "hw.boards, its files", "Quantized.save"])
def test_points(name):
    assert {*verdicts(name, kill.KINDS, 8).values()} <= {"good", "not tried"}
