# SPDX-License-Identifier: BSD-2-Clause
"""Proofs about circuits without state: all inputs, in cases and in steps."""

import random
from collections.abc import Iterator
from itertools import product

from .circuit import Circuit
from .diagrams import Functions
from .graph import FALSE, TRUE, Clauses, Graph, copy, simulate, sweep, unroll
from .harness import Harness

_PATTERNS = 1024


class Question:
    """What is to be shown of a graph: that under assumptions all claims hold.

    Attributes
    ----------
    graph : Graph
    ports : dict of str to list of int
        Literals of the harness's ports.
    """

    def __init__(self, graph: Graph, ports: dict[str, list[int]]) -> None:
        self.graph = graph
        self.ports = ports
        self._clauses: Clauses | None = None
        self._functions: Functions | None = None

    def clauses(self) -> Clauses:
        """The graph for a SAT solver; `close` frees it."""
        if self._clauses is None:
            self._clauses = Clauses(self.graph)
        return self._clauses

    def functions(self, harness: Harness) -> Functions:
        """The graph as decision diagrams."""
        if self._functions is None:
            self._functions = Functions(self.graph, _order(self, harness))
        return self._functions

    def close(self) -> None:
        """Frees what `clauses` returned."""
        if self._clauses is not None:
            self._clauses.close()
            self._clauses = None

    def given(self, values: dict[str, int]) -> "Question":
        """Puts constants in the place of ports that are inputs."""
        given = {literal >> 1: TRUE if value >> place & 1 else FALSE
                 for name, value in values.items()
                 for place, literal in enumerate(self.ports[name])}
        roots = [bit for bits in self.ports.values() for bit in bits]
        graph, literal, _ = copy(self.graph, roots, given)
        return Question(graph, {name: [literal(bit) for bit in bits]
                                for name, bits in self.ports.items()})


def question(harness: Harness, circuit: Circuit, after: int) -> Question:
    """Makes a question of a harness's circuit, ``after`` cycles in which its inputs stay."""
    graph = Graph()
    ports = unroll(circuit, graph, after)
    return Question(graph, {name: ports[name] for name in ports if name not in ("clk", "rst")})


def cases(harness: Harness, asked: Question) -> Iterator[tuple[dict[str, int], Question]]:
    """The cases of a harness, but those that the assumptions rule out at once."""
    names = [*harness.cases]
    if not names:
        yield {}, asked
        return
    for values in product(*(range(1 << len(asked.ports[name])) for name in names)):
        chosen = dict(zip(names, values, strict=True))
        # The assumptions first: they cost less than the whole.
        few = {name: asked.ports[name] for name in [*names, *harness.assumptions]}
        ruled = Question(asked.graph, few).given(chosen)
        if any(ruled.ports[name][0] == FALSE for name in harness.assumptions):
            continue
        yield chosen, asked.given(chosen)


def refute(harness: Harness, asked: Question, engine: str) -> dict[str, int] | None:
    """Searches inputs under which a claim does not hold though all assumptions do.

    Parameters
    ----------
    harness : Harness
    asked : Question
    engine : str
        "SAT", "sweep" or "diagrams".

    Returns
    -------
    dict of str to int or None
        Values of the ports, or None if the claims are proven. Behind a cut that does not say
        enough, they may be values that no run has.
    """
    if all(asked.ports[name][0] == TRUE for name in harness.claims):
        return None
    assumed = [*harness.assumptions]
    for name, cut in harness.cuts.items():
        asked = _merged(asked, name, assumed, engine, harness)
        for guarantee in [cut.fits, *cut.guarantees]:
            found = _find(asked, asked.ports[guarantee][0] ^ 1, assumed, engine, harness)
            if found is not None:
                return found
        asked.close()
        asked = _cut(asked, name)
        assumed += cut.guarantees
    if engine == "sweep":
        asked.close()
        names = [*harness.claims, *assumed]
        graph, literal, _ = sweep(asked.graph, [asked.ports[name][0] for name in names])
        asked = Question(graph, {name: [literal(asked.ports[name][0])] for name in names})
    for name in harness.claims:
        found = _find(asked, asked.ports[name][0] ^ 1, assumed, engine, harness)
        if found is not None:
            return found
    asked.close()
    return None


def happens(harness: Harness, asked: Question, name: str) -> bool:
    """Whether there are inputs under which all assumptions and a witness hold."""
    return _exists(harness, asked, asked.ports[name][0])


def fails(harness: Harness, asked: Question) -> bool:
    """Whether there are inputs under which all assumptions hold, and not all claims."""
    graph = asked.graph
    return _exists(harness, asked, graph.all(asked.ports[name][0] for name in harness.claims) ^ 1)


def _exists(harness, asked, literal):
    wanted = [literal, *(asked.ports[name][0] for name in harness.assumptions)]
    if FALSE in wanted:
        return False
    # Random inputs find most faults in no time.
    graph, rng = asked.graph, random.Random(1)
    nodes = graph.cone(wanted)
    count = 4096
    ones = (1 << count) - 1
    values = simulate(graph, nodes, {node: rng.getrandbits(count) for node in nodes
                                     if not graph.nodes[node]}, ones)
    hits = ones
    for bit in wanted:
        hits &= values[bit >> 1] ^ (ones if bit & 1 else 0)
    if hits:
        return True
    clauses = Clauses(graph)
    try:
        return clauses.find(wanted) is not False
    finally:
        clauses.close()


def _order(asked, harness):
    """Levels of all inputs: operands bit by bit from the lowest, so that carries are few."""
    cuts = harness.cuts
    nodes = asked.graph.nodes
    keys = {}
    for name, bits in asked.ports.items():
        if name in harness.inputs or name in cuts:
            for place, bit in enumerate(bits):
                if bit > 1 and nodes[bit >> 1] is None:
                    keys.setdefault(bit >> 1, (name in cuts, place, name))
    free = [node for node, read in enumerate(nodes) if node and read is None]
    free.sort(key=lambda node: keys.get(node, (False, -1, "")))
    return {node: level for level, node in enumerate(free)}


def _find(asked, literal, assumed, engine, harness):
    assumed = [asked.ports[name][0] for name in assumed]
    if FALSE in (literal, *assumed):
        return None
    if engine == "diagrams":
        # Assumptions about many operands have large diagrams, and are often not needed.
        found = asked.functions(harness).find([literal])
        if found is False:
            return None
        if not assumed:
            return _values(asked, found)
    found = asked.clauses().find([literal, *assumed])
    return None if found is False else _values(asked, found)


def _values(asked, ones):
    """Values of all ports where these input nodes are 1."""
    nodes = asked.graph.cone(bit for bits in asked.ports.values() for bit in bits)
    values = simulate(asked.graph, nodes, {node: int(node in ones) for node in nodes}, 1)
    return {name: sum((values[bit >> 1] ^ (bit & 1)) << place for place, bit in enumerate(bits))
            for name, bits in asked.ports.items()}


def _merged(asked, name, assumed, engine, harness):
    """Puts the bits of a cut in the place of all nodes that equal them."""
    rng = random.Random(1)
    ones = (1 << _PATTERNS) - 1
    roots = [bit for bits in asked.ports.values() for bit in bits]
    nodes = asked.graph.cone(roots)
    inputs = {node: _pattern(rng) for node in nodes if not asked.graph.nodes[node]}
    values = simulate(asked.graph, nodes, inputs, ones)
    bits = [*dict.fromkeys(asked.ports[name])]
    # A guarantee says something of the bits as such.
    mine = {*asked.graph.cone([*bits, *(asked.ports[guarantee][0] for cut in harness.cuts.values()
                                        for guarantee in cut.guarantees)])}
    functions = asked.functions(harness) if engine == "diagrams" else asked.clauses()
    wanted = {}
    for bit in bits:
        if bit > 1 and asked.graph.nodes[bit >> 1]:
            value = values[bit >> 1] ^ (ones if bit & 1 else 0)
            wanted[value], wanted[value ^ ones] = bit, bit ^ 1
    same = {}
    for node in nodes:
        bit = wanted.get(values[node])
        if bit is None or bit >> 1 == node or node in mine or not asked.graph.nodes[node]:
            continue
        differ = [[2 * node, bit ^ 1], [2 * node ^ 1, bit]]
        if engine != "diagrams":
            differ = [[*pair, *(asked.ports[one][0] for one in assumed)] for pair in differ]
        if all(functions.find(pair) is False for pair in differ):
            same[node] = bit
    if not same:
        return asked
    asked.close()
    return _replaced(asked, same)


def _pattern(rng):
    """Random bits, with ever fewer ones in the first half of them and ever more in the other."""
    bits = few = rng.getrandbits(_PATTERNS // 2)
    for part in range(8):
        few &= rng.getrandbits(_PATTERNS // 2) | (1 << part * _PATTERNS // 16) - 1
    many = bits
    for part in range(4):
        many |= rng.getrandbits(_PATTERNS // 2) & ~((1 << part * _PATTERNS // 8) - 1)
    return few | many << _PATTERNS // 2


def _replaced(asked, same):
    """Replaces nodes by literals of other ones, which do not depend on them."""
    old, new, place = asked.graph, Graph(), {0: FALSE}
    # The other ones first, as they may come behind.
    for node in old.cone(same.values()):
        if node:
            read = old.nodes[node]
            place[node] = (new.both(*(place[bit >> 1] ^ (bit & 1) for bit in read)) if read
                           else new.input())
    for node, bit in same.items():
        place[node] = place[bit >> 1] ^ (bit & 1)
    return _built(asked, new, place)


def _cut(asked, name):
    """Makes the bits of a cut inputs."""
    new, place = Graph(), {0: FALSE}
    for bit in asked.ports[name]:
        if bit >> 1 not in place:
            place[bit >> 1] = new.input() ^ (bit & 1)
    return _built(asked, new, place)


def _built(asked, new, place):
    """Copies a question into a graph in which some of its nodes have a literal already."""
    old = asked.graph
    waiting = [bit >> 1 for bits in asked.ports.values() for bit in bits]
    needed = set()
    while waiting:
        node = waiting.pop()
        if node not in needed and node not in place:
            needed.add(node)
            if read := old.nodes[node]:
                waiting += [read[0] >> 1, read[1] >> 1]
    for node in sorted(needed):
        read = old.nodes[node]
        place[node] = (new.both(*(place[bit >> 1] ^ (bit & 1) for bit in read)) if read
                       else new.input())
    return Question(new, {name: [place[bit >> 1] ^ (bit & 1) for bit in bits]
                          for name, bits in asked.ports.items()})
