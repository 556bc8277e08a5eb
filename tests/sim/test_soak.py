# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""The soak: rounds that can be run again, mismatches that say how, runs that go on."""

import json

import numpy as np
import pytest

import sim
from golden.accelerator import planner
from hw.accelerator.accelerator import Accelerator
from sim import soak
from sim.__main__ import main
from sim.accelerator import Product
from sim.engines.build import compiler


@pytest.fixture
def pretended(monkeypatch):
    """Runs end as golden says, with what the test changes; nothing is simulated."""
    given = []

    def accelerate(commands, *, component, statistics, engine, stalls, seed):
        given.append((commands, stalls, seed))
        statistics |= {"cycles": 1000, "run_s": 0.0, "build_s": 0.0}
        return [Product(code=planner.DONE if "w" in command else planner.BAD_SIZE, y=None, rows=1,
                        mismatches=0) for command in commands]

    monkeypatch.setattr(soak, "accelerate", accelerate)
    monkeypatch.setattr(soak, "cycles", lambda *a, **k: 1000)
    return given


def test_rounds(pretended):
    tallies = soak.soak(["column"], least=3000, seed=5)
    tally = tallies["column"]
    # First commands alone, then together.
    assert {len(commands) for commands, _, _ in pretended} == {1}
    assert tally.rounds == 1 and tally.cycles == 1000 * tally.commands >= 3000
    assert tally.timed == tally.statuses["DONE"] < tally.commands
    soak.soak(["column"], least=10**6, seed=5, before=tallies, minutes=1e-9)
    assert tally.rounds == 1
    pretended.clear()
    for number in range(1, 5):
        soak.run_round("column", number, 5, tally)
    together = [*pretended]
    assert [isinstance(stalls, dict) for _, stalls, _ in together] == [False, False, True, True]
    assert together[0][1] == 0 < together[1][1]
    assert {*together[2][1]} == {*Accelerator(config=soak.MACHINES["column"]).signature.members}
    pretended.clear()
    # The same round again, by itself.
    soak.run_round("column", 4, 5, soak.Tally())
    again, = pretended
    assert again[1:] == together[3][1:]
    assert [command["m"] for command in again[0]] == [command["m"] for command in together[3][0]]


def test_mismatches_say_how_to_see_them_again(pretended, monkeypatch):
    right = soak.accelerate

    def differing(commands, **options):
        products = right(commands, **options)
        return [*products[:-1], Product(code=planner.DONE, y=None, rows=1, mismatches=2)]

    monkeypatch.setattr(soak, "accelerate", differing)
    with pytest.raises(soak.Mismatch, match="^mismatch: python -m sim soak --config column --seed "
                                            "7 --round 1: 2 transfers differ for .* x .* x .*"):
        soak.run_round("column", 1, 7, soak.Tally())

    def stopping(commands, **options):
        raise sim.Deadlock("No transfer for 1 cycles")

    monkeypatch.setattr(soak, "accelerate", stopping)
    with pytest.raises(soak.Mismatch, match="--round 1: No transfer for 1 cycles"):
        soak.run_round("column", 1, 7, soak.Tally())
    monkeypatch.setattr(soak, "accelerate", right)
    monkeypatch.setattr(soak, "cycles", lambda *a, **k: 1001)
    with pytest.raises(soak.Mismatch, match="--round 0: 1000 cycles, not 1001, for"):
        soak.run_round("column", 0, 7, soak.Tally())


def test_resume(pretended, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(soak, "digests", lambda names: dict.fromkeys(names, "abc"))
    path = tmp_path / "soak.json"
    words = ["soak", "--config", "column", "--seed", "3", "--json", str(path), "--cycles"]
    assert main([*words, "1000"]) == 0
    first = json.loads(path.read_text())
    assert first["command"] == "python -m sim soak --config column --cycles 1000 --seed 3"
    assert first["machines"]["column"]["rounds"] == 1 and first["verilog"] == {"column": "abc"}
    assert main([*words, str(first["machines"]["column"]["cycles"] + 1), "--resume"]) == 0
    assert json.loads(path.read_text())["machines"]["column"]["rounds"] == 2
    monkeypatch.setattr(soak, "digests", lambda names: dict.fromkeys(names, "changed"))
    assert main([*words, "10", "--resume"]) == 2
    assert "--resume needs a soak of the same seed and of the same machines" \
        in capsys.readouterr().err


@pytest.mark.parametrize("words, text", [
    (["--cycles", "0"], "--cycles must be at least 1, not 0"),
    (["--minutes", "0"], "--minutes must be above 0, not 0.0"),
    (["--round", "3"], "--round must be at least 0, with one --config, not 3 with 0"),
    (["--config", "column", "--config", "column"], "given once"),
    (["--resume"], "--resume needs a file that is there, --json FILE"),
])
def test_wrong_use(words, text, capsys):
    assert main(["soak", *words]) == 2
    assert text in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.skipif(not compiler(), reason="no C++ compiler")
def test_a_short_soak():
    tally = soak.soak(["column"], least=60_000, seed=1)["column"]
    assert tally.cycles >= 60_000 and tally.timed and tally.rows
    assert {"DONE", "BAD_SIZE", "BAD_SOURCE", "BAD_RESULT"} <= {*tally.statuses}
    assert sum(tally.statuses.values()) == tally.commands
    assert np.isfinite(tally.simulated_s) and 0 < tally.simulated_s < tally.total_s
