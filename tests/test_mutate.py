# SPDX-License-Identifier: BSD-2-Clause
"""The faults that the tests are tested with."""

import ast
import json
from collections import Counter

import pytest

from tests import mutate
from tests.support.mutants import KINDS, mutants

SOURCE = '''"""1 + 1 here is text."""
SIZE = 4


class Unit:
    def __init__(self, size):
        if size < 1:
            raise ValueError(f"{size + 1}")

    def elaborate(self, platform):
        count = Signal(SIZE + 1)
        name = Signal(Shape)
        with m.If(count == 3):
            m.d.sync += count.eq(~count)
        m.d.comb += [name.eq(1), other.eq(2)]
'''


def test_faults_of_a_source():
    found = [str(mutant) for mutant in mutants(SOURCE)]
    assert found == [
        "line 11: width: SIZE + 1 -> max(Shape.cast(SIZE + 1).width - 1, 1)",
        "line 11: operator: + -> -",
        "line 11: constant: 1 -> 0",
        "line 11: constant: 1 -> 2",
        "line 11: reset: ) -> , reset_less=True)",
        "line 13: condition: count == 3 -> 0",
        "line 13: condition: count == 3 -> 1",
        "line 13: operator: == -> !=",
        "line 13: constant: 3 -> 2",
        "line 13: constant: 3 -> 4",
        "line 14: statement: m.d.sync += count.eq(~count) -> pass",
        "line 14: stage: sync -> comb",
        "line 14: operator: ~ -> ",
        "line 15: statement: name.eq(1) -> *()",
        "line 15: constant: 1 -> 0",
        "line 15: constant: 1 -> 2",
        "line 15: statement: other.eq(2) -> *()",
        "line 15: constant: 2 -> 1",
        "line 15: constant: 2 -> 3",
    ]


@pytest.mark.parametrize("module", [
    "hw/lib/stream_queue.py", "hw/units/top1.py",
    *(pytest.param(module, marks=pytest.mark.long) for module in mutate.TESTS)])
def test_each_fault_is_a_program_with_one_difference(module):
    source = (mutate.ROOT / module).read_text(encoding="utf-8")
    tree = ast.dump(ast.parse(source))
    for mutant in mutants(source):
        assert source[mutant.start:mutant.end] == mutant.before != mutant.text
        assert ast.dump(ast.parse(mutant.applied(source))) != tree, mutant


def test_all_components_have_faults_and_tests():
    rooms = ("lib", "units", "accelerator", "bus")
    modules = {path.relative_to(mutate.ROOT).as_posix() for room in rooms
               for path in (mutate.ROOT / "hw" / room).glob("*.py")}
    # These are tables and sizes, without logic.
    assert modules - {*mutate.TESTS} == {
        *(f"hw/{room}/__init__.py" for room in rooms),
        "hw/accelerator/config.py", "hw/bus/register_map.py"}
    for module in mutate.TESTS:
        tests = mutate.LONGER.get(module) or mutate.tests_of(module)
        assert tests, module
        for test in tests:
            assert (mutate.ROOT / test.partition("::")[0]).exists(), test


def test_sample():
    modules = ["hw/lib/stream_queue.py", "hw/units/weight_encoder.py", "hw/accelerator/planner.py"]
    chosen = mutate.choose(modules, None, None, 100, 1)
    assert len(chosen) == 100 and {mutant.kind for _, mutant in chosen} == {*KINDS}
    assert chosen == mutate.choose(modules, None, None, 100, 1)
    assert chosen != mutate.choose(modules, None, None, 100, 2)


def test_count_takes_all_kinds():
    chosen = mutate.choose(["hw/accelerator/planner.py"], None, 14, None, 0)
    kinds = Counter(mutant.kind for _, mutant in chosen)
    assert len(chosen) == 14 and kinds.keys() == {*KINDS}


def test_those_alive_are_tried_again(tmp_path, monkeypatch, capsys):
    chosen = mutate.choose(["hw/lib/stream_queue.py"], None, 9, None, 0)
    path = tmp_path / "result.json"
    rows = [mutate.row(*pair, verdict) for pair, verdict in zip(
        chosen, ["killed", "alive", "equivalent"] * 3, strict=True)]
    path.write_text(json.dumps({"seed": 0, "faults": rows}))
    assert mutate.alive(mutate.read(path)) == chosen[1::3]
    monkeypatch.setattr(mutate, "try_all", lambda pairs, *_: [
        mutate.row(*pair, "killed") for pair in pairs])
    again = tmp_path / "again.json"
    assert mutate.main(["--again", str(path), "--json", str(again)]) == 0
    verdicts = [row["verdict"] for row in json.loads(again.read_text())["faults"]]
    assert verdicts == ["killed", "killed", "equivalent"] * 3
    rows[1]["at"] += 1
    path.write_text(json.dumps({"seed": 0, "faults": rows}))
    assert mutate.main(["--again", str(path)]) == 1
    path.write_text("[]")
    assert mutate.main(["--again", str(path)]) == 1
    err = capsys.readouterr().err
    assert "hw/lib/stream_queue.py no longer has line " in err
    assert "result.json is not what --json writes" in err


@pytest.mark.parametrize("arguments, text", [
    (["--again", "x", "--count", "3"],
     "--again must come without MODULE, --kind, --count and --sample"),
    (["hw/units/top2.py"], "MODULE must be one of hw/lib/arithmetic.py, "),
    (["--count", "0"], "--count must be at least 1, not 0"),
    (["--json", "/nowhere/x"], "--json must lie in a folder that exists, not /nowhere"),
])
def test_wrong_use(arguments, text, capsys):
    assert mutate.main([*arguments, "--list"]) == 2
    assert text in capsys.readouterr().err


@pytest.mark.long
def test_verdicts(tmp_path, monkeypatch, capsys):
    """A fault that a test finds, one that changes nothing, and one that no test looks for."""
    source = (mutate.ROOT / "hw/lib/stream_queue.py").read_text(encoding="utf-8")
    killed = next(m for m in mutants(source) if (m.before, m.text) == ("!=", "=="))
    dead = source.replace("        put = Signal()\n", "        put = Signal()\n        one = 5\n")
    assert dead != source
    equivalent, = [m for m in mutants(dead) if (m.before, m.text) == ("5", "6")]
    assert mutate.run(mutate.ROOT, [], 1)  # no tests are no success
    tree = mutate.copy(tmp_path / "tree")
    assert mutate.verdict(tree, "hw/lib/stream_queue.py", killed, 5) == "killed"
    (tree / "hw/lib/stream_queue.py").write_text(dead, encoding="utf-8")
    assert mutate.verdict(tree, "hw/lib/stream_queue.py", equivalent, 5) == "equivalent"
    monkeypatch.setitem(mutate.TESTS, "hw/lib/stream_queue.py", [])
    monkeypatch.setattr(mutate, "tests_of", lambda module: ["tests/hw/lib/test_formats.py"])
    assert mutate.main(["hw/lib/stream_queue.py", "--kind", "reset", "--json",
                        str(tmp_path / "result.json")]) == 1
    written = json.loads((tmp_path / "result.json").read_text())
    assert [row["verdict"] for row in written["faults"]] == ["alive"] * 2
    assert capsys.readouterr().out.count("alive: hw/lib/stream_queue.py: line ") == 2
