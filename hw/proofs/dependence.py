# SPDX-License-Identifier: BSD-2-Clause
"""What a value depends on: logic beside a circuit that follows changes and origins bit by bit.

Beside each bit goes a mark. The mark of an AND is set if one of its operands is marked and the
other one, if it is not marked, is 1: an unmarked 0 hides the other operand. A bit without a mark
does not depend on any marked one, whatever the logic computes, so a solver need not understand it.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from amaranth.hdl import Signal, Value, ValueLike

from .circuit import Circuit, Cycles
from .harness import Harness

FALSE, TRUE = 0, 1
"""Literals of AIGER."""


def steady(harness: Harness, name: str, value: ValueLike, when: ValueLike) -> None:
    """Claims that while ``when`` no bit of a value differs from what it was in the cycle before."""
    shown, condition = _show(harness, f"steady_{name}", value, when)
    harness.claim(name, 1)
    harness.analyses.append(partial(_steady, f"claim_{name}", shown, condition))


def apart(harness: Harness, name: str, value: ValueLike, *sources: Signal) -> None:
    """Claims that no combinational path leads from inputs of the harness to a value."""
    shown, = _show(harness, f"apart_{name}", value)
    harness.claim(name, 1)
    harness.analyses.append(partial(_apart, f"claim_{name}", shown,
                                    [source.name for source in sources]))


def originates(harness: Harness, name: str, value: ValueLike, when: ValueLike,
               dirty: dict[str, ValueLike], places: Sequence[ValueLike],
               single: Sequence[str] = (), stale: bool = True) -> None:
    """Claims that while ``when`` no bit of a value depends on a dirty input.

    Parameters
    ----------
    harness : Harness
    name : str
    value, when : ValueLike
    dirty : dict of str to ValueLike
        For names of inputs, which of their bits are dirty in this cycle; a single bit is that of
        all.
    places : sequence of ValueLike
        Conditions under which some registers are not dirty, such as that a stage holds the
        transfer that is watched. Which registers that are is found, and claimed as well.
    single : sequence of str
        Registers whose bits are looked at one by one, as some of them control the unit.
    stale : bool
        Whether what registers hold before the reset is dirty, too.
    """
    shown, condition = _show(harness, f"origin_{name}", value, when)
    spots = [_show(harness, f"origin_{name}_place{n}", place)[0] for n, place in enumerate(places)]
    marks = {source: _show(harness, f"origin_{name}_{source}", mark)[0]
             for source, mark in dirty.items()}
    harness.claim(name, 1)
    for n in range(len(places) + 1):
        harness.claim(f"{name}_place{n}", 1)
    harness.analyses.append(partial(_originates, f"claim_{name}", shown, condition, marks,
                                    stale))
    harness.searches.append(partial(_search, f"claim_{name}", spots, single))


def _show(harness, name, *values):
    """Adds outputs of the harness that an analysis reads; returns their names."""
    names = []
    for number, value in enumerate(values):
        value = Value.cast(value)
        signal = Signal(len(value), name=f"{name}_{number}")
        harness.m.d.comb += signal.eq(value)
        harness.shown[signal.name] = signal
        names.append(signal.name)
    return names


class _Logic:
    """A circuit to which gates and registers are added."""

    def __init__(self, circuit: Circuit) -> None:
        self.inputs = circuit.inputs
        self.outputs = dict(circuit.outputs)
        self.registers = list(circuit.registers)
        self.gates = list(circuit.gates)
        self.names = dict(circuit.names)
        self._last = max([0, *(bit for bits in self.inputs.values() for bit in bits),
                          *(one for one, _ in self.registers), *(gate[0] for gate in self.gates)])
        self._known: dict[tuple[int, int], int] = {}

    def circuit(self) -> Circuit:
        return Circuit(inputs=self.inputs, outputs=self.outputs, registers=self.registers,
                       gates=self.gates, names=self.names)

    def variable(self) -> int:
        self._last += 1
        return self._last

    def conjunction(self, left: int, right: int) -> int:
        if left > right:
            left, right = right, left
        if left == FALSE or left == right ^ 1:
            return FALSE
        if left == TRUE or left == right:
            return right
        if (left, right) not in self._known:
            out = self.variable()
            self.gates.append((out, left, right))
            self._known[left, right] = out << 1
        return self._known[left, right]

    def disjunction(self, left: int, right: int) -> int:
        return self.conjunction(left ^ 1, right ^ 1) ^ 1

    def any(self, literals: Sequence[int]) -> int:
        found = FALSE
        for literal in literals:
            found = self.disjunction(found, literal)
        return found

    def differs(self, left: int, right: int) -> int:
        return self.disjunction(self.conjunction(left, right ^ 1),
                                self.conjunction(left ^ 1, right))

    def marked(self, left: int, right: int, left_mark: int, right_mark: int) -> int:
        """The mark of an AND, see the module's docstring."""
        if left_mark == FALSE and right_mark == FALSE:
            return FALSE
        return self.any([self.conjunction(left_mark, right_mark),
                         self.conjunction(left_mark, right),
                         self.conjunction(right_mark, left)])


def _cone(circuit, literals):
    """Gates in their order, and the other variables, on which literals depend combinationally."""
    operands = {out: (left, right) for out, left, right in circuit.gates}
    seen, waiting = set(), [literal >> 1 for literal in literals]
    while waiting:
        one = waiting.pop()
        if one not in seen and one:
            seen.add(one)
            waiting += [literal >> 1 for literal in operands.get(one, ())]
    return [gate for gate in circuit.gates if gate[0] in seen], seen - operands.keys()


def _steady(claim, value, when, circuit):
    logic = _Logic(circuit)
    bits = circuit.outputs[value]
    gates, leaves = _cone(circuit, bits)
    after, operands = dict(circuit.registers), {out: pair for out, *pair in circuit.gates}
    marks = {0: FALSE}
    for leaf in sorted(leaves):
        one = logic.variable()
        if leaf in after:
            logic.registers.append((one, _moves(logic, operands, after[leaf], leaf << 1)))
            marks[leaf] = one << 1
        else:
            logic.registers.append((one, leaf << 1))
            marks[leaf] = logic.differs(one << 1, leaf << 1)
    for out, left, right in gates:
        marks[out] = logic.marked(left, right, marks[left >> 1], marks[right >> 1])
    moves = logic.any([marks[bit >> 1] for bit in bits])
    logic.outputs[claim] = [logic.conjunction(moves, circuit.outputs[when][0]) ^ 1]
    return logic.circuit()


def _moves(logic, operands, after, register):
    """Whether a register's next value differs from its present one, without one if it is held."""
    if after == register:
        return FALSE
    # A multiplexer is the inversion of an AND of inversions.
    parts = operands.get(after >> 1, ()) if after & 1 else ()
    pairs = [operands.get(part >> 1) for part in parts if part & 1]
    if len(pairs) == 2 and None not in pairs:
        for held, other in pairs, pairs[::-1]:
            for select in held:
                if register in held and select != register and select ^ 1 in other:
                    given, = [literal for literal in other if literal != select ^ 1] or [TRUE]
                    return logic.conjunction(select ^ 1,
                                             _moves(logic, operands, given, register))
    return logic.differs(after, register)


def _apart(claim, value, sources, circuit):
    _, leaves = _cone(circuit, circuit.outputs[value])
    apart = leaves.isdisjoint(bit for source in sources for bit in circuit.inputs.get(source, ()))
    return replace(circuit, outputs=circuit.outputs | {claim: [TRUE if apart else FALSE]})


def _originates(claim, value, when, marks, stale, circuit):
    logic = _Logic(circuit)
    part = _relevant(circuit, circuit.outputs[value])
    sources = {}
    for source, mark in marks.items():
        shown = circuit.outputs[mark]
        # Yosys leaves an input out that nothing reads.
        for place, bit in enumerate(circuit.inputs.get(source, ())):
            sources[bit] = shown[place if len(shown) > 1 else 0]
    dirty = _stained(part, {*sources}, stale)
    runs = TRUE if stale else circuit.inputs["rst"][0] << 1 ^ 1
    found = {0: FALSE} | sources
    # A mark of a register takes the mark of the register's next value.
    found |= {one: logic.variable() << 1 for one in dirty}
    for out, left, right in part.gates:
        found[out] = logic.marked(left, right, found.get(left >> 1, FALSE),
                                  found.get(right >> 1, FALSE))
    words: dict[str, list[int]] = {}
    for one, after in part.registers:
        if one in dirty:
            logic.registers.append((
                found[one] >> 1, logic.conjunction(found.get(after >> 1, FALSE), runs)))
            words.setdefault(circuit.names.get(one, f"${one}"), []).append(found[one])
    stains = logic.any([found.get(bit >> 1, FALSE) for bit in circuit.outputs[value]])
    logic.outputs[claim] = [logic.conjunction(stains, circuit.outputs[when][0]) ^ 1]
    for word, bits in words.items():
        logic.outputs[f"{claim}.{word}"] = [logic.any(bits), *bits]
    return logic.circuit()


def _stained(circuit, sources, stale):
    """Registers that may be marked: what follows from sources and from what no reset sets."""
    # 1, 0, or None where it may be either, while the reset is active.
    level: dict[int, int | None] = {0: 0} | {bit: 1 for bit in circuit.inputs.get("rst", ())}

    def value(literal):
        known = level.get(literal >> 1)
        return known if known is None else known ^ (literal & 1)

    for out, left, right in circuit.gates:
        one, other = value(left), value(right)
        level[out] = 0 if 0 in (one, other) else None if None in (one, other) else 1
    marked = sources | {one for one, after in circuit.registers
                        if stale and value(after) is None}
    before = 0
    while len(marked) > before:
        before = len(marked)
        marked |= {one for one, after in circuit.registers if after >> 1 in marked}
        for out, left, right in circuit.gates:
            if left >> 1 in marked or right >> 1 in marked:
                marked.add(out)
    return marked & {one for one, _ in circuit.registers}


def _relevant(circuit, literals):
    """The circuit without the gates and registers on which literals never depend."""
    after = dict(circuit.registers)
    needed: set[int] = set()
    waiting = [*literals]
    while waiting:
        _, leaves = _cone(circuit, waiting)
        waiting = [after[one] for one in leaves - needed if one in after]
        needed |= leaves
    registers = [(one, literal) for one, literal in circuit.registers if one in needed]
    gates, _ = _cone(circuit, [*literals, *(literal for _, literal in registers)])
    return replace(circuit, registers=registers, gates=gates)


def _search(claim, places, single, harness, circuit):
    """Finds which registers are never marked at each place, as claims that hold by induction.

    Starts with all of them, and leaves out those that a step, from a cycle in which the others
    hold, or the reset does not keep.
    """
    words = {name: bits for name, bits in circuit.outputs.items()
             if name.startswith(f"{claim}.")}
    # The word's own mark, or that of each of its bits where some of them control the unit.
    alive = {(place, word, bit) for place in [None, *places] for word, bits in words.items()
             for bit in (range(1, len(bits)) if word.partition(".")[2] in single else [0])}
    for reset in True, False:
        alive = _kept(alive, harness, circuit, reset)
    logic = _Logic(circuit)
    for number, place in enumerate([None, *places]):
        marks = logic.any([circuit.outputs[word][bit] for spot, word, bit in sorted(
            alive, key=str) if spot == place])
        where = TRUE if place is None else circuit.outputs[place][0]
        logic.outputs[f"{claim}_place{number}"] = [logic.conjunction(marks, where) ^ 1]
    return logic.circuit()


def _kept(alive, harness, circuit, reset):
    run = Cycles(circuit)
    try:
        run.add(reset=reset)

        def require(cycle, names):
            for name in names:
                run.require(run.bits(name, cycle))

        def broken(candidate, cycle):
            place, word, bit = candidate
            mark = run.bits(word, cycle)[bit]
            return mark if place is None else run.both(mark, run.bits(place, cycle)[0])

        chosen = {}
        if not reset:
            require(0, [*harness.assumptions, *harness.claims])
            for candidate in alive:
                chosen[candidate] = run.variable()
                run.require([-chosen[candidate], -broken(candidate, 0)])
        run.add(reset=False)
        require(1, harness.assumptions)
        wrong = {candidate: broken(candidate, 1) for candidate in alive}
        while True:
            some = run.variable()
            run.require([-some, *(wrong[candidate] for candidate in alive)])
            if not run.find([some, *(chosen[candidate] for candidate in alive
                                     if candidate in chosen)]):
                return alive
            alive = {candidate for candidate in alive if not run.holds(wrong[candidate])}
            run.require([-some])
    finally:
        run.close()
