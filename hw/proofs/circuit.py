# SPDX-License-Identifier: BSD-2-Clause
"""A harness as a circuit of ANDs and registers, and its cycles as clauses for a SAT solver."""

from collections.abc import Iterable
from dataclasses import dataclass

from amaranth.back import rtlil
from amaranth.hdl import Fragment
from pysat.solvers import Solver

from ..tools import yosys
from .harness import CONSTANT, Harness

SOLVER = "cadical195"

# Registers have no initial value: only the reset gives them one.
_READ = """
{verilog}read_rtlil harness.il
hierarchy -top harness
proc
setattr -unset init w:*
flatten
memory_map
opt -full -nodffe -nosdff
techmap
opt -full -nodffe -nosdff
dffunmap
setundef -anyseq -undriven
simplemap
aigmap
opt_clean
write_aiger -ascii -symbols circuit.aag
"""

@dataclass(frozen=True)
class Circuit:
    """ANDs, registers and ports of a flat harness.

    Literals are those of AIGER: twice the number of a variable, plus 1 if it is inverted.

    Attributes
    ----------
    inputs : dict of str to list of int
        Variables of each input's bits, least significant first.
    outputs : dict of str to list of int
        Literals of each output's bits.
    registers : list of tuple of int
        Variable, and the literal of its next value.
    gates : list of tuple of int
        Variable, and the two literals of which it is the AND; in an order in which each comes
        behind those it reads.
    names : dict of int to str
        Signals of which the registers are bits, by the registers' variables, where Yosys knows.
    """

    inputs: dict[str, list[int]]
    outputs: dict[str, list[int]]
    registers: list[tuple[int, int]]
    gates: list[tuple[int, int, int]]
    names: dict[int, str]


def circuit(harness: Harness) -> Circuit:
    """Converts a harness."""
    ports = {name: (signal, None) for name, signal in harness.ports().items()}
    design = Fragment.get(harness, None).prepare(ports, hierarchy=("harness",))
    text = rtlil.convert_fragment(design, emit_src=False)[0]
    files = {f"module{n}.v": module for n, module in enumerate(harness.verilog)}
    script = _READ.format(verilog="".join(f"read_verilog {name}\n" for name in files))
    _, written = yosys.run(script, inputs={"harness.il": text} | files, outputs=["circuit.aag"])
    built = _parsed(written["circuit.aag"])
    for analysis in harness.analyses:
        built = analysis(built)
    return built


def _parsed(text):
    lines = iter(text.splitlines())
    _, _, inputs, registers, outputs, gates, *others = next(lines).split()
    if any(map(int, others)):
        raise ValueError("A harness must have no formal cells")
    read = [int(next(lines)) for _ in range(int(inputs))]
    held = [[*map(int, next(lines).split())] for _ in range(int(registers))]
    driven = [int(next(lines)) for _ in range(int(outputs))]
    logic = [tuple(map(int, next(lines).split())) for _ in range(int(gates))]
    names = {"i": read, "o": driven}
    words: dict[int, str] = {}
    ports: dict[str, dict[str, dict[int, int]]] = {"i": {}, "o": {}}
    for line in lines:
        if line == "c":
            break
        place, _, name = line.partition(" ")
        kind = place[0]
        if kind in ports:
            name, _, bit = name.partition("[")
            ports[kind].setdefault(name, {})[int(bit[:-1] or 0) if bit else 0] = (
                names[kind][int(place[1:])])
        elif kind == "l":
            words[held[int(place[1:])][0] >> 1] = _word(name)
    listed = {kind: {name: [bits[i] for i in sorted(bits)] for name, bits in found.items()}
              for kind, found in ports.items()}
    return Circuit(inputs={name: [bit >> 1 for bit in bits]
                           for name, bits in listed["i"].items()},
                   outputs=listed["o"],
                   registers=[(one >> 1, after) for one, after, *_ in held],
                   gates=[(out >> 1, left, right) for out, left, right in logic],
                   names=words)


def _word(name):
    """The signal of a bit that has one or more names."""
    name = name.partition(" ")[0]
    return name.rpartition("[")[0] if name.endswith("]") else name


TRUE = 1
"""The literal of a clause that always holds; its negation never does."""


class Cycles:
    """Cycles of a circuit, one after the other, as clauses of a SAT solver.

    A literal here is that of the solver: the number of a variable, negative if it is inverted.

    Parameters
    ----------
    circuit : Circuit
    """

    def __init__(self, circuit: Circuit) -> None:
        self._circuit = circuit
        self._gates = {out: (left, right) for out, left, right in circuit.gates}
        self._registers = dict(circuit.registers)
        self._solver = Solver(SOLVER)
        self._variables = TRUE
        self._solver.add_clause([TRUE])
        self._ands: dict[tuple[int, int], int] = {}
        self._constants = {name: [self._new() for _ in bits]
                           for name, bits in circuit.inputs.items() if name.startswith(CONSTANT)}
        self._cycles: list[dict[int, int]] = []
        self._model: list[int] = []
        self._assumed: list[int] = []

    def __len__(self) -> int:
        return len(self._cycles)

    def _new(self):
        self._variables += 1
        return self._variables

    def add(self, *, reset: bool) -> None:
        """Adds a cycle. Before the first one the registers may hold anything.

        Parameters
        ----------
        reset : bool
            Whether the reset is active in it.
        """
        values = {0: -TRUE}
        for name, bits in self._circuit.inputs.items():
            for place, bit in enumerate(bits):
                if name == "clk":
                    values[bit] = -TRUE
                elif name == "rst":
                    values[bit] = TRUE if reset else -TRUE
                elif name in self._constants:
                    values[bit] = self._constants[name][place]
                else:
                    values[bit] = self._new()
        self._cycles.append(values)

    def _literal(self, cycle, literal):
        """A literal of AIGER in a cycle. Its logic becomes clauses only now that it is needed."""
        waiting = [(cycle, literal >> 1)]
        while waiting:
            cycle_of, variable = waiting[-1]
            values = self._cycles[cycle_of]
            if variable in values:
                waiting.pop()
            elif variable in self._gates:
                left, right = self._gates[variable]
                one, other = _known(values, left), _known(values, right)
                if -TRUE in (one, other):
                    values[variable] = -TRUE
                elif one is None:
                    waiting.append((cycle_of, left >> 1))
                elif other is None:
                    waiting.append((cycle_of, right >> 1))
                else:
                    values[variable] = self._and(one, other)
            elif not cycle_of:
                values[variable] = self._new()
            else:
                after = self._registers[variable]
                value = _known(self._cycles[cycle_of - 1], after)
                if value is None:
                    waiting.append((cycle_of - 1, after >> 1))
                else:
                    values[variable] = value
        return _known(self._cycles[cycle], literal)

    def _and(self, left, right):
        if left == right or right == TRUE:
            return left
        if left == TRUE:
            return right
        if left == -right or -TRUE in (left, right):
            return -TRUE
        key = (left, right) if left < right else (right, left)
        if key not in self._ands:
            out = self._ands[key] = self._new()
            for clause in (-out, left), (-out, right), (out, -left, -right):
                self._solver.add_clause(clause)
        return self._ands[key]

    def bits(self, name: str, cycle: int) -> list[int]:
        """Literals of an output, or an input, in a cycle."""
        if name in self._circuit.outputs:
            return [self._literal(cycle, literal) for literal in self._circuit.outputs[name]]
        return [self._cycles[cycle][variable] for variable in self._circuit.inputs[name]]

    def require(self, literals: Iterable[int]) -> None:
        """Leaves only runs in which one of these is so."""
        self._solver.add_clause([*literals])

    def variable(self) -> int:
        """A new variable, which nothing restricts."""
        return self._new()

    def both(self, left: int, right: int) -> int:
        """The literal that is so if two others are."""
        return self._and(left, right)

    def holds(self, literal: int) -> bool:
        """Whether a literal is so in the run that was found last."""
        return (self._model[abs(literal) - 1] > 0) == (literal > 0)

    def find(self, literals: Iterable[int]) -> bool:
        """Whether there is a run in which all of these are so."""
        self._assumed = [*literals]
        found = bool(self._solver.solve(assumptions=self._assumed))
        self._model = (self._solver.get_model() or []) if found else []
        return found

    def values(self, names: Iterable[str]) -> list[dict[str, int]]:
        """Values of ports in each cycle of the run that was found last."""
        names = list(names)
        bits = [{name: self.bits(name, cycle) for name in names} for cycle in range(len(self))]
        # Some of their logic may be new to the solver.
        self.find(self._assumed)
        return [{name: sum(self.holds(bit) << place for place, bit in enumerate(found))
                 for name, found in cycle.items()} for cycle in bits]

    def close(self) -> None:
        """Frees the solver."""
        self._solver.delete()


def _known(values, literal):
    """A literal of AIGER among these values, or None."""
    value = values.get(literal >> 1)
    return -value if value is not None and literal & 1 else value
