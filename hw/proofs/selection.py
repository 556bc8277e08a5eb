# SPDX-License-Identifier: BSD-2-Clause
"""Proofs about the top-1 (specification section 3.4)."""

from functools import partial

from amaranth import *

from ..units.top1 import Top1
from .faults import Fault
from .harness import Harness
from .proof import Proof


def tops(magnitudes):
    """Whether each magnitude is the largest, and the first of equals."""
    return [Cat(*(before < one for before in magnitudes[:lane]),
                *(after <= one for after in magnitudes[lane + 1:])).all()
            for lane, one in enumerate(magnitudes)]


def _top1(lanes):
    harness = Harness()
    harness.m.submodules.unit = unit = Top1(lanes=lanes)
    codes = harness.input("codes", unit.codes.shape().size)
    harness.m.d.comb += unit.codes.eq(codes)
    for lane, top in enumerate(tops([codes.word_select(lane, 4)[:3] for lane in range(lanes)])):
        harness.claim(f"lane{lane}", (unit.lane == lane) == top)
        harness.witness(f"lane{lane}", unit.lane == lane)
    return harness


PROOFS = [
    Proof(name="top1.selection", quick=True, build=partial(_top1, 8),
          claim="Of all 2^32 subgroups the lane is that of the largest magnitude, the lowest of "
                "equals",
          fault=Fault("hw.lib.top1_select", "~lanes[:i].any()", "~lanes[i + 1:].any()")),
    *(Proof(name=f"top1.selection_{lanes}", build=partial(_top1, lanes),
            claim=f"The same of {lanes} lanes",
            fault=Fault("hw.lib.arithmetic", "bits & is_largest", "bits & before"))
      for lanes in (2, 4, 16)),
]
