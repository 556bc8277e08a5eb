# SPDX-License-Identifier: BSD-2-Clause
"""Graphs of ANDs: constants, equal nodes, and searches by both engines."""

import random

import pytest

from hw.proofs.diagrams import Functions
from hw.proofs.graph import FALSE, TRUE, Clauses, Graph, copy, simulate, sweep


def either(graph, a, b):
    return graph.same(a, b) ^ 1


def other_sum(graph, a, b, carry):
    """A full adder by the majority, and its sum by that."""
    total = graph.both(graph.both(a ^ 1, b ^ 1) ^ 1, graph.both(graph.both(a, b), TRUE) ^ 1)
    most = graph.both(graph.both(a, b) ^ 1, graph.both(total, carry) ^ 1) ^ 1
    three = graph.all([a, b, carry])
    any_one = graph.all([a ^ 1, b ^ 1, carry ^ 1]) ^ 1
    return graph.both(graph.both(any_one, most ^ 1) ^ 1, three ^ 1) ^ 1, most


def adders(width, *, wrong=None):
    """Whether two adders differ, and the inputs of both, lowest bits first."""
    graph = Graph()
    a, b = ([graph.input() for _ in range(width)] for _ in range(2))
    first = second = FALSE
    same = TRUE
    for place in range(width):
        total = either(graph, either(graph, a[place], b[place]), first)
        first = graph.both(graph.both(a[place], b[place]) ^ 1,
                           graph.both(first, graph.both(a[place] ^ 1, b[place] ^ 1) ^ 1) ^ 1) ^ 1
        other, carry = other_sum(graph, a[place], b[place], second)
        second = carry ^ (place == wrong)
        same = graph.both(same, graph.same(total, other))
    return graph, same ^ 1, (a, b)


def test_constants_and_equal_nodes_make_no_new_ones():
    graph = Graph()
    a, b = graph.input(), graph.input()
    made = graph.both(a, b)
    assert graph.both(b, a) == made and len(graph.nodes) == 4
    assert [graph.both(a, a), graph.both(a, a ^ 1), graph.both(a, TRUE), graph.both(a, FALSE)] == [
        a, FALSE, a, FALSE]
    fixed, literal, inputs = copy(graph, [made], {a >> 1: TRUE})
    assert literal(made) == 2 * inputs[b >> 1] and len(fixed.nodes) == 2


@pytest.mark.parametrize("wrong", [None, 5])
def test_engines_agree_on_adders(wrong):
    graph, differ, (a, b) = adders(8, wrong=wrong)
    levels = {bit >> 1: level for level, bit in
              enumerate(bit for pair in zip(a, b, strict=True) for bit in pair)}
    swept, literal, _ = sweep(graph, [differ])
    clauses = Clauses(graph)
    found = [clauses.find([differ]), Functions(graph, levels).find([differ]),
             literal(differ) != FALSE]
    clauses.close()
    assert [one is not False for one in found] == [wrong is not None] * 3
    for ones in found[:2] if wrong else ():
        inputs = {bit >> 1: int(bit >> 1 in ones) for bit in a + b}
        assert simulate(graph, graph.cone([differ]), inputs, 1)[differ >> 1] ^ (differ & 1) == 1


def test_sweep_keeps_functions():
    rng = random.Random(7)
    graph = Graph()
    free = [graph.input() for _ in range(6)]
    literals = [*free]
    for _ in range(120):
        literals.append(graph.both(rng.choice(literals) ^ rng.randrange(2),
                                   rng.choice(literals) ^ rng.randrange(2)))
    roots = literals[-20:]
    swept, literal, inputs = sweep(graph, roots)
    ones = (1 << 64) - 1
    tables = [sum((case >> place & 1) << case for case in range(64)) for place in range(6)]
    before = simulate(graph, graph.cone(roots), {bit >> 1: table for bit, table in
                                                 zip(free, tables, strict=True)}, ones)
    after = simulate(swept, swept.cone(map(literal, roots)),
                     {inputs[bit >> 1]: table for bit, table in zip(free, tables, strict=True)
                      if bit >> 1 in inputs}, ones)
    assert len(swept.nodes) < len(graph.nodes)
    for root in roots:
        new = literal(root)
        assert (before[root >> 1] ^ (ones * (root & 1))) == after[new >> 1] ^ (ones * (new & 1))
