# SPDX-License-Identifier: BSD-2-Clause
"""One proof, and how it is carried out."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from ..tools.errors import ToolError
from .cases import cases, fails, happens, question, refute
from .circuit import TRUE, Circuit, Cycles, circuit
from .faults import Fault
from .harness import Harness
from .outcome import Outcome


@dataclass(frozen=True, kw_only=True)
class Proof:
    """A claim about a unit, for all inputs.

    Attributes
    ----------
    name : str
        ``unit.what``, such as ``top1.selection``.
    claim : str
        One sentence: what is so, against which specification.
    build : callable
        ``build()`` returns the `Harness`, with everything that it holds made anew.
    depth : int
        0 if the harness has no registers: one cycle with any inputs is then all there is. Otherwise
        the induction's: the claims hold in the first ``depth`` cycles after a reset, and in the
        cycle behind any ``depth`` in which they hold.
    after : int
        For a circuit whose registers only delay: cycles for which the inputs stay as they are,
        whatever the registers held before. The claims, with a ``depth`` of 0, are about the last
        one.
    solver : str
        With a ``depth`` of 0: "SAT"; "sweep", which merges equal nodes before; or "diagrams", for
        sums of many operands.
    reach : int
        Cycles after the reset in which the witnesses happen and the fault shows.
    fault : Fault
        A fault that this proof finds.
    quick : bool
        Whether it is one of those that the tests run.
    """

    name: str
    claim: str
    build: Callable[[], Harness]
    fault: Fault
    depth: int = 0
    after: int = 0
    solver: str = "SAT"
    reach: int = 0
    quick: bool = False

    @property
    def unit(self) -> str:
        """The unit that the claim is about."""
        return self.name.partition(".")[0]

    @property
    def engine(self) -> str:
        """How it is proven, in a few words."""
        if self.depth:
            return f"induction of {self.depth}"
        return {"SAT": "SAT", "sweep": "SAT sweeping", "diagrams": "decision diagrams"}[self.solver]


def run(proof: Proof) -> Outcome:
    """Carries out a proof, its witnesses and its fault."""
    start = _processor_time()
    harness = proof.build()
    built = circuit(harness)
    for search in harness.searches:
        built = search(harness, built)
    if bool(built.registers) != bool(proof.depth or proof.after):
        raise ToolError(f"{proof.name}: depth must be {'at least 1' * bool(built.registers) or 0}, "
                        f"not {proof.depth}, as there are {len(built.registers)} registers")
    cycles = _counterexample(harness, built, proof)
    seconds = _processor_time() - start
    verdict = "proven"
    if cycles is not None:
        verdict = "fails" if cycles[0].get("rst", 1) else "no induction"
    return Outcome(verdict=verdict, seconds=seconds, cycles=cycles or [],
                   witness=_missing(harness, built, proof), fault=_find(proof))


def _processor_time():
    """Seconds of this process and of those that it has waited for, such as Yosys."""
    return sum(os.times()[:4])


def _counterexample(harness, built, proof):
    """A run in which a claim fails, or None. It begins with the reset, or is a step."""
    depth = proof.depth
    if not depth:
        for _, asked in cases(harness, question(harness, built, proof.after)):
            found = refute(harness, asked, proof.solver)
            if found is not None:
                return [found]
        return None
    return (_fails(harness, built, before=depth, reset=True, bounded=True)
            or _fails(harness, built, before=depth, reset=False, bounded=False))


def _fails(harness, built, *, before, reset, bounded):
    """Searches a run in which a claim fails.

    With ``bounded`` in any of the ``before`` cycles after the reset, otherwise in the cycle behind
    ``before`` in which all claims hold.
    """
    run = _start(built, reset)
    try:
        for number in range(before if bounded else before + 1):
            _add(run, harness)
            last = len(run) - 1
            claims = {name: run.bits(name, last)[0] for name in harness.claims}
            if bounded or number == before:
                for claim in claims.values():
                    if run.find([-claim]):
                        return run.values(built.inputs.keys() | built.outputs.keys())
            # What is proven, or the hypothesis of the step.
            for claim in claims.values():
                run.require([claim])
        return None
    finally:
        run.close()


def _start(built: Circuit, reset: bool) -> Cycles:
    run = Cycles(built)
    if reset:
        run.add(reset=True)
    return run


def _add(run, harness):
    """Adds a cycle without reset in which all assumptions hold."""
    run.add(reset=False)
    for name in harness.assumptions:
        run.require(run.bits(name, len(run) - 1))


def _missing(harness, built, proof):
    """Names of the witnesses that no run has."""
    missing = {*harness.witnesses} or {"none is named"}
    if not proof.depth:
        asked = question(harness, built, proof.after)
        missing -= {name for name in harness.witnesses if happens(harness, asked, name)}
        return "missing: " + ", ".join(sorted(missing)) if missing else "all found"
    run = _start(built, True)
    try:
        first = len(run)
        for _ in range(proof.reach + 1):
            _add(run, harness)
        # Most of what can happen can also happen late, and is found at once there.
        for cycle in reversed(range(first, len(run))):
            missing -= {name for name in missing & {*harness.witnesses}
                        if run.find(run.bits(name, cycle))}
        return "missing: " + ", ".join(sorted(missing)) if missing else "all found"
    finally:
        run.close()


def _find(proof):
    """Whether a run from the reset on shows the proof's fault."""
    with proof.fault.present():
        harness = proof.build()
        built = circuit(harness)
    if not proof.depth:
        asked = question(harness, built, proof.after)
        return "found" if fails(harness, asked) else "not found"
    run = _start(built, True)
    try:
        for _ in range(proof.reach + 1):
            _add(run, harness)
            claims = [run.bits(name, len(run) - 1)[0] for name in harness.claims]
            if any(run.find([-claim]) for claim in claims if claim != TRUE):
                return "found"
        return "not found"
    finally:
        run.close()
