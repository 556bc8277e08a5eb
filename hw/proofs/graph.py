# SPDX-License-Identifier: BSD-2-Clause
"""A circuit without registers as a graph of ANDs, each of which is there once."""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence

from pysat.solvers import Solver

from .circuit import SOLVER, Circuit

FALSE, TRUE = 0, 1
"""Literals of the constants. A literal is twice the number of a node, plus 1 if it is inverted."""

_PATTERNS = 1024
"""Random inputs whose values tell nodes apart."""

_CONFLICTS = 2000
"""After so many conflicts of the solver, two nodes are taken to differ."""


class Graph:
    """Inputs and ANDs. Node 0 is the constant; each node comes behind those it reads."""

    def __init__(self) -> None:
        self.nodes: list[tuple[int, int] | None] = [None]
        self._known: dict[tuple[int, int], int] = {}

    def input(self) -> int:
        """Adds an input; returns its literal."""
        self.nodes.append(None)
        return 2 * (len(self.nodes) - 1)

    def both(self, a: int, b: int) -> int:
        """Returns the literal of an AND, without a new node where that can be."""
        if a > b:
            a, b = b, a
        if a == TRUE or a == b:
            return b
        if a == FALSE or a == b ^ 1:
            return FALSE
        key = a, b
        found = self._known.get(key)
        if found is None:
            self.nodes.append(key)
            found = self._known[key] = 2 * (len(self.nodes) - 1)
        return found

    def all(self, literals: Iterable[int]) -> int:
        """Returns the literal of the AND of several."""
        result = TRUE
        for literal in literals:
            result = self.both(result, literal)
        return result

    def same(self, a: int, b: int) -> int:
        """Returns the literal that is 1 where two are equal."""
        return self.both(self.both(a, b ^ 1) ^ 1, self.both(a ^ 1, b) ^ 1)

    def cone(self, roots: Iterable[int]) -> list[int]:
        """Nodes that these literals depend on, in the graph's order."""
        found, waiting = set(), [root >> 1 for root in roots]
        while waiting:
            node = waiting.pop()
            if node in found:
                continue
            found.add(node)
            read = self.nodes[node]
            if read:
                waiting += [read[0] >> 1, read[1] >> 1]
        return sorted(found)


def unroll(circuit: Circuit, graph: Graph, after: int) -> dict[str, list[int]]:
    """Adds a circuit to a graph, with its inputs as they are for some cycles.

    Parameters
    ----------
    circuit : Circuit
    graph : Graph
    after : int
        Clock edges for which the inputs keep their values. What registers hold at first becomes
        inputs. The reset is not active.

    Returns
    -------
    dict of str to list of int
        Literals of each port after these cycles.
    """
    values = {0: FALSE}
    for name, bits in circuit.inputs.items():
        for bit in bits:
            values[bit] = FALSE if name in ("clk", "rst") else graph.input()
    held = {variable: graph.input() for variable, _ in circuit.registers}
    for cycle in range(after + 1):
        values |= held
        for variable, left, right in circuit.gates:
            values[variable] = graph.both(values[left >> 1] ^ (left & 1),
                                          values[right >> 1] ^ (right & 1))
        if cycle < after:
            held = {variable: values[new >> 1] ^ (new & 1) for variable, new in circuit.registers}
    return ({name: [values[bit] for bit in bits] for name, bits in circuit.inputs.items()}
            | {name: [values[bit >> 1] ^ (bit & 1) for bit in bits]
               for name, bits in circuit.outputs.items()})


def copy(graph: Graph, roots: Sequence[int], given: Mapping[int, int] | None = None,
         ) -> tuple[Graph, Callable[[int], int], dict[int, int]]:
    """Copies what some literals depend on.

    Parameters
    ----------
    graph : Graph
    roots : sequence of int
    given : mapping of int to int, optional
        Nodes in whose place constants stand: `FALSE` or `TRUE`.

    Returns
    -------
    graph : Graph
    literal : callable
        Returns the new literal of an old one.
    inputs : dict of int to int
        New node of each old input.
    """
    new, place = Graph(), {0: FALSE}
    inputs: dict[int, int] = {}
    for node in graph.cone(roots):
        if given and node in given:
            place[node] = given[node]
        elif read := graph.nodes[node]:
            a, b = read
            place[node] = new.both(place[a >> 1] ^ (a & 1), place[b >> 1] ^ (b & 1))
        elif node:
            place[node] = new.input()
            inputs[node] = place[node] >> 1
    return new, lambda literal: place[literal >> 1] ^ (literal & 1), inputs


def simulate(graph: Graph, nodes: Sequence[int], inputs: Mapping[int, int], ones: int,
             ) -> dict[int, int]:
    """Values of nodes for many inputs at once, one in each bit of an integer.

    Parameters
    ----------
    graph : Graph
    nodes : sequence of int
        From `Graph.cone`.
    inputs : mapping of int to int
        Values of input nodes.
    ones : int
        All bits set.
    """
    values = {0: 0}
    for node in nodes:
        if read := graph.nodes[node]:
            a, b = read
            left, right = values[a >> 1], values[b >> 1]
            values[node] = (left ^ ones if a & 1 else left) & (right ^ ones if b & 1 else right)
        elif node:
            values[node] = inputs[node]
    return values


class Clauses:
    """Nodes of a graph as clauses of a SAT solver, added as they are asked for.

    Parameters
    ----------
    graph : Graph
    solver : str
    """

    def __init__(self, graph: Graph, solver: str = SOLVER) -> None:
        self._graph = graph
        self._limited = solver != SOLVER
        self.solver = Solver(solver)
        self.solver.add_clause([-1])
        self._added = {0}

    def literal(self, literal: int) -> int:
        """The solver's literal, behind the clauses of all that it depends on."""
        nodes, waiting = self._graph.nodes, [literal >> 1]
        while waiting:
            node = waiting.pop()
            if node in self._added:
                continue
            self._added.add(node)
            read = nodes[node]
            if read:
                out, (a, b) = node + 1, (_signed(bit) for bit in read)
                for clause in (-out, a), (-out, b), (out, -a, -b):
                    self.solver.add_clause(clause)
                waiting += [read[0] >> 1, read[1] >> 1]
        return _signed(literal)

    def find(self, literals: Sequence[int], conflicts: int | None = None) -> set[int] | None | bool:
        """Searches inputs under which all literals are 1.

        Returns the nodes that are 1 then, False if there are none, and None if the solver gave up
        after so many conflicts, which the default one never does.
        """
        wanted = [self.literal(literal) for literal in literals]
        if conflicts is not None:
            self.solver.conf_budget(conflicts)
            found = self.solver.solve_limited(assumptions=wanted)
        else:
            found = self.solver.solve(assumptions=wanted)
        if not found:
            return found
        return {one - 1 for one in self.solver.get_model() if one > 0}

    def close(self) -> None:
        """Frees the solver."""
        self.solver.delete()


def _signed(literal):
    number = (literal >> 1) + 1
    return -number if literal & 1 else number


def sweep(graph: Graph, roots: Sequence[int], conflicts: int = _CONFLICTS,
          ) -> tuple[Graph, Callable[[int], int], dict[int, int]]:
    """Copies as `copy` does, with nodes merged that a SAT solver shows to be equal.

    Nodes that are equal, or inverse, for random inputs are tried, those with the fewest nodes
    below them first. Inputs that tell two apart then tell others apart, too.
    """
    rng = random.Random(1)
    nodes = graph.cone(roots)
    free = [node for node in nodes if node and not graph.nodes[node]]
    ones = (1 << _PATTERNS) - 1
    values = simulate(graph, nodes, {node: rng.getrandbits(_PATTERNS) for node in free}, ones)
    classes: dict[int, list[int]] = {}
    new, place = Graph(), {0: FALSE}
    inputs: dict[int, int] = {}
    clauses = Clauses(new, "glucose4")
    classes[0] = [0]
    told: list[set[int]] = []

    def signature(node):
        value = values[node]
        return (value ^ ones, 1) if value & 1 else (value, 0)

    def learn():
        # Each input that told nodes apart, and neighbours of it.
        nonlocal values, ones, classes
        more, width = {}, 0
        for node in free:
            more[node] = 0
        for model in told:
            for node in free:
                one = (1 << 32) - 1 if inputs.get(node, -1) in model else 0
                noise = rng.getrandbits(32) & rng.getrandbits(32) & rng.getrandbits(32) & ~1
                more[node] |= (one ^ noise) << width
            width += 32
        told.clear()
        extra = simulate(graph, nodes, more, (1 << width) - 1)
        values = {node: values[node] | extra[node] << ones.bit_length() for node in nodes} | {0: 0}
        ones = (1 << (ones.bit_length() + width)) - 1
        classes = {}
        for node in sorted(place):
            classes.setdefault(signature(node)[0], []).append(node)

    for node in nodes:
        read = graph.nodes[node]
        if not node:
            continue
        if read is None:
            place[node] = new.input()
            inputs[node] = place[node] >> 1
        else:
            a, b = read
            before = len(new.nodes)
            literal = new.both(place[a >> 1] ^ (a & 1), place[b >> 1] ^ (b & 1))
            place[node] = literal
            if len(new.nodes) == before:
                continue
            tried: set[int] = set()
            while True:
                key, phase = signature(node)
                other = next((other for other in classes.get(key, ())
                              if other != node and place[other] >> 1 not in tried), None)
                if other is None or len(tried) >= 3:
                    break
                tried.add(place[other] >> 1)
                target = place[other] ^ phase ^ signature(other)[1]
                if target == literal:
                    break
                one = clauses.find([literal, target ^ 1], conflicts)
                two = False if one is not False else clauses.find([literal ^ 1, target], conflicts)
                if one is False and two is False:
                    a, b = clauses.literal(literal), clauses.literal(target)
                    clauses.solver.add_clause([-a, b])
                    clauses.solver.add_clause([a, -b])
                    place[node] = target
                    break
                if isinstance(model := one or two, set):
                    told.append(model)
                    if len(told) >= 4:
                        learn()
        key, _ = signature(node)
        if place[node] == 2 * (len(new.nodes) - 1):
            members = classes.setdefault(key, [])
            if node not in members:
                members.append(node)
    clauses.close()
    return new, lambda literal: place[literal >> 1] ^ (literal & 1), inputs
