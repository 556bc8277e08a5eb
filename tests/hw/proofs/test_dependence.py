# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""Claims by what a value depends on hold where they should, and nowhere else."""

import pytest
from amaranth import Array, Cat, Mux, Signal

from hw.lib.stream_register import StreamRegister
from hw.proofs.circuit import circuit
from hw.proofs.dependence import apart, originates, steady
from hw.proofs.faults import Fault
from hw.proofs.harness import Harness
from hw.proofs.proof import Proof, _counterexample
from hw.proofs.streams import Opened

NO_FAULT = Fault("hw.lib.stream_register", "with m.If(self.i.ready)", "with m.If(~self.i.ready)")


def proven(build):
    """Whether claims hold by induction; without the witnesses and the fault of a proof."""
    harness = build()
    built = circuit(harness)
    for search in harness.searches:
        built = search(harness, built)
    proof = Proof(name="x.y", claim="", build=build, depth=1, fault=NO_FAULT)
    return _counterexample(harness, built, proof) is None


def held(moved_by):
    """A register that keeps its value without ``enable``, and a value made of it."""
    harness = Harness()
    enable, given = harness.input("enable"), harness.input("given", 8)
    stalled, held = Signal(), Signal(8)
    harness.m.d.sync += stalled.eq(~enable)
    with harness.m.If(moved_by(enable, given)):
        harness.m.d.sync += held.eq(given)
    steady(harness, "steady", held * 3 + 1, stalled)
    return harness


def test_what_is_held_is_steady():
    assert proven(lambda: held(lambda enable, given: enable))
    assert not proven(lambda: held(lambda enable, given: enable | given[0]))


@pytest.mark.parametrize("path", [False, True])
def test_path(path):
    harness = Harness()
    ready, other = harness.input("ready"), harness.input("other")
    kept = Signal()
    harness.m.d.sync += kept.eq(ready)
    apart(harness, "apart", kept ^ other ^ (ready if path else 0), ready)
    assert circuit(harness).outputs["claim_apart"] == [0 if path else 1]


def two_places(chosen):
    """Two places, of which one is dirty; ``chosen`` says which one is read."""
    harness = Harness()
    number, given = harness.input("number"), harness.input("given", 8)
    places = [Signal(8, name=f"place{n}") for n in range(2)]
    for n, place in enumerate(places):
        with harness.m.If(number == n):
            harness.m.d.sync += place.eq(given)
    filled = Signal()
    harness.m.d.sync += filled.eq(filled | (number == 1))
    originates(harness, "origin", Array(places)[chosen(harness)] + 1, filled,
               {"given": number == 0}, [filled])
    return harness


def test_origin():
    assert proven(lambda: two_places(lambda harness: 1))
    assert not proven(lambda: two_places(lambda harness: harness.input("chosen")))


def test_origin_of_what_was_before_the_reset():
    def build(stale):
        harness = Harness()
        kept = Signal(8, reset_less=True)
        with harness.m.If(harness.input("enable")):
            harness.m.d.sync += kept.eq(harness.input("given", 8))
        originates(harness, "origin", Cat(kept, Mux(kept[0], 1, 2)), 1, {"given": 0}, [],
                   stale=stale)
        return harness

    assert proven(lambda: build(False))
    assert not proven(lambda: build(True))


def test_signals_of_a_component():
    opened = Opened(StreamRegister(8))
    assert opened.signal("valid", register=True) is opened.signal("valid")
    with pytest.raises(KeyError, match="there are 0 signals lost"):
        opened.signal("lost")
    with pytest.raises(KeyError, match="there are 0 submodules part"):
        opened.signal("part.valid")
