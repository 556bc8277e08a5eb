# SPDX-License-Identifier: BSD-2-Clause
"""Proofs: false claims, missing witnesses and faults that are not found are told."""

import re

import pytest
from amaranth import *

from hw.lib import top1_select
from hw.proofs import proof as proofs
from hw.proofs.cases import cases, question, refute
from hw.proofs.circuit import circuit
from hw.proofs.faults import Fault
from hw.proofs.harness import Harness
from hw.proofs.proof import Proof, run
from hw.tools.errors import ToolError

ELSEWHERE = Fault("hw.lib.top1_select", "~lanes[:i].any()", "~lanes[i + 1:].any()")


def counter(*, claimed):
    """Counts 0 to 9, again and again; 10 to 15 do not occur."""
    def build():
        harness = Harness()
        count = Signal(4)
        harness.m.d.sync += count.eq(Mux(count == 9, 0, count + 1))
        harness.claim("below", count != claimed)
        harness.witness("three", count == 3)
        harness.witness("twelve", count == 12)
        return harness

    return Proof(name="counter.below", claim="", build=build, depth=5, reach=12, fault=ELSEWHERE)


def test_base_and_step_are_told_apart():
    outcome = run(counter(claimed=4))
    assert outcome.verdict == "fails" and outcome.cycles[0]["rst"] == 1
    assert outcome.witness == "missing: witness_twelve"
    assert [cycle["claim_below"] for cycle in outcome.cycles[1:]] == [1, 1, 1, 1, 0]
    true = run(counter(claimed=10))
    assert (true.verdict, true.fault, true.good) == ("proven", "not found", False)


def test_induction_that_is_too_weak():
    harness = Harness()
    count = Signal(4)
    harness.m.d.sync += count.eq(Mux(count == 9, 0, Mux(count == 14, 14, count + 1)))
    harness.claim("below", count != 15)
    harness.claim("fourteen", (count != 14) | harness.input("hidden"))
    found = proofs._counterexample(harness, circuit(harness), counter(claimed=0))
    assert found and found[0]["rst"] == 0 and found[-1]["claim_fourteen"] == 0


def sums(*, guarantee=8, most=14):
    """Two sums, of which the second begins at the first."""
    harness = Harness()
    a, b, c = (harness.input(name, 3) for name in "abc")
    made, total = Signal(4), Signal(5)
    harness.m.d.comb += [made.eq((a ^ b) + ((a & b) << 1) + 1), total.eq(made + c)]
    value = harness.cut("value", 4, a + b + 1, lambda value: value <= 7 + guarantee)
    harness.claim("sum", total == value + c)
    harness.claim("most", total <= most + 8)
    return harness


def test_cut():
    for harness, false in ((sums(), None), (sums(guarantee=7), "cut_value_guarantee0"),
                           (sums(most=13), "claim_most")):
        asked = question(harness, circuit(harness), 0)
        for solver in "SAT", "sweep", "diagrams":
            found = refute(harness, asked, solver)
            assert found is None if false is None else found[false] == 0


def test_cases_cover_all_values():
    harness = Harness()
    case, other = harness.case("case", 3), harness.input("other", 2)
    harness.assume("odd", case[0])
    harness.claim("five", (case != 5) | (other != 2))
    asked = question(harness, circuit(harness), 0)
    found = {values["case"]: refute(harness, one, "sweep") for values, one in cases(harness, asked)}
    assert [*found] == [1, 3, 5, 7]
    assert {case for case, values in found.items() if values is not None} == {5}


def test_fault_is_there_and_gone_again():
    before = top1_select.lowest.__code__
    with pytest.raises(KeyError), ELSEWHERE.present():
        assert top1_select.lowest.__code__ != before
        raise KeyError
    assert top1_select.lowest.__code__ is before


@pytest.mark.parametrize("text, count", [("lanes", "not 6 times"), ("Selection of", "no function")])
def test_fault_without_effect(text, count):
    with pytest.raises(ValueError, match=count), \
            Fault("hw.lib.top1_select", text, "other").present():
        pass


def test_registers_need_a_depth():
    wrong = counter(claimed=10)
    with pytest.raises(ToolError, match=re.escape("counter.below: depth must be at least 1")):
        run(Proof(name=wrong.name, claim="", build=wrong.build, fault=ELSEWHERE))
