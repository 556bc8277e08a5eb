# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""The sign-off list: what ran counts, what is stale or missing does not."""

import json

import pytest
import sign_off

from hw import registry
from sim import evidence

MODULES = {"": {"lines": [3, 0, 3], "branches": [1, 1, 2], "states": [0, 0, 0],
                "toggles": [7, 0, 9]}}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder of evidence; `put` writes into it."""
    monkeypatch.setattr(sign_off, "FOLDER", tmp_path)
    sign_off.load.cache_clear()
    yield tmp_path
    sign_off.load.cache_clear()


def put(folder, kind, found):
    (folder / f"{kind}.json").write_text(json.dumps(found))
    sign_off.load.cache_clear()


def entry(unit="top1", settings=(), **changes):
    return evidence.head("coverage", command="python -m x", seed=1) | {
        "unit": unit, "settings": [*settings], "verilog": "0", "transfers": 12,
        "modules": MODULES, "missed": [], "waived": [], "untoggled": {}} | changes


def test_nothing_ran(folder):
    assert sign_off.stage("top1", "D") == "D3"
    assert sign_off.stage("top1", "V") == "V1"
    text = sign_off.holes()
    for what in ("coverage was not measured", "no run against golden of the defaults, lanes=2",
                 "no faults were put into `hw/units/top1.py`", "no claim about it is proven"):
        assert f"{what}" in text
    assert "**accelerator**, V3: no soak was run" in text
    assert sign_off.soak_table() == "No soak was run."


def test_what_ran_counts(folder):
    sets = [[], *registry.each_alone("top1")]
    put(folder, "cosim", [entry(settings=settings) for settings in sets])
    put(folder, "coverage", [entry()])
    assert sign_off.stage("top1", "V") == "V2"
    assert sign_off.covered("top1").text == \
        "lines 3 of 3, branches 1 of 1, toggles 7 of 9"
    assert "`lanes=2`" in sign_off.stages()
    put(folder, "proofs", evidence.head("proofs", command="x", seed=0) | {"rows": [
        {"name": "a", "unit": "top1", "verdict": "proven", "good": True}], "verilog": {}})
    rows = [{"module": "hw/units/top1.py", "verdict": verdict}
            for verdict in ["killed"] * 99 + ["alive", "equivalent", "not tried"]]
    mutants = evidence.head("mutants", command="x", seed=0) | {
        "rows": rows, "modules": {"hw/units/top1.py": sign_off.file_digest("hw/units/top1.py")}}
    put(folder, "mutants", mutants)
    assert sign_off.stage("top1", "V") == "V3"
    put(folder, "mutants", mutants | {"rows": [*rows, rows[-3]]})
    assert sign_off.attacked("top1") == sign_off.Found("hole", "99 of 101 faults killed")
    put(folder, "mutants", mutants | {"modules": {"hw/units/top1.py": "other"}})
    assert sign_off.attacked("top1").state == "stale"
    assert sign_off.stage("top1", "V") == "V2"


def test_what_is_stale_or_missed_does_not_count(folder):
    sets = [[], *registry.each_alone("top1")]
    put(folder, "cosim", [entry(settings=settings) for settings in sets])
    for changes, state, text in (({"sources": "other"}, "stale", "lines 3 of 3"),
                                 ({"missed": ["top, line 3"]}, "hole", "1 points are missed")):
        put(folder, "coverage", [entry(**changes)])
        found = sign_off.covered("top1")
        assert found.state == state and text in found.text
        assert sign_off.stage("top1", "V") == "V1"
    assert "**top1**, V2: 1 points are missed: top, line 3" in sign_off.holes()
    put(folder, "coverage", [entry(sources="other")])
    assert "(stale)" in sign_off.coverage()
    put(folder, "cosim", [entry(settings=settings, sources="other") for settings in sets])
    assert sign_off.cosimulated("top1") == sign_off.Found("stale", "0 of 5 sets")
    assert sign_off.parameter_sets("top1") == []


def test_waivers_need_a_proof(folder):
    put(folder, "coverage", [entry(waived=["a: always. Proven."])])
    assert sign_off.waived("top1").state == "yes"
    put(folder, "coverage", [entry(waived=["a: always. Proven.", "b: so. Not proven."])])
    assert sign_off.waived("top1").text == "waived without proof: b: so. Not proven."


def test_soak_is_long_enough(folder):
    machine = {"rounds": 1, "commands": 5, "cycles": 10**8 - 1, "rows": 3, "timed": 1,
               "statuses": {"DONE": 3, "BAD_SIZE": 2}, "simulated_s": 3.0, "total_s": 4.0}
    soak = evidence.head("soak", command="python -m sim soak", seed=9) | {
        "verilog": {}, "machines": {"column": machine}}
    put(folder, "soak", soak)
    assert sign_off.soaked("accelerator").state == "hole"
    assert "| column, 1 column | 99,999,999 | 5 | 2 | 1 | 3 |" in sign_off.soak_table()
    assert "75% of the time was simulation" in sign_off.soak_table()
    put(folder, "soak", soak | {"machines": {"column": machine | {"cycles": 10**8}}})
    assert sign_off.soaked("accelerator").state == "yes"
    assert sign_off.soaked("top1") == sign_off.Found("")


def test_evidence_is_whole():
    """What the repository has can be read, and names its command, seed, versions and design."""
    sign_off.load.cache_clear()
    for path in sorted(sign_off.FOLDER.glob("*.json")):
        kept = sign_off.load(path.stem)
        for one in kept if isinstance(kept, list) else [kept]:
            assert one["kind"] == path.stem and one["command"].startswith("python -m ")
            assert type(one["seed"]) is int and one["versions"]["amaranth"]
            assert len(one["sources"]) == 64
    for make in sign_off.KINDS.values():
        assert make()


@pytest.mark.long
def test_refresh(folder):
    digest = evidence.unit_digest("top1")
    put(folder, "coverage", [entry(sources="old", verilog=digest),
                             entry("decoder", sources="old", command="python -m again")])
    assert sign_off.refresh(["coverage"]) == ["python -m again"]
    sign_off.load.cache_clear()
    assert [one["sources"] == evidence.sources() for one in sign_off.load("coverage")] \
        == [True, False]
