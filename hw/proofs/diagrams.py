# SPDX-License-Identifier: BSD-2-Clause
"""Binary decision diagrams: sums of many operands, whose carries a SAT solver does not see."""

from collections.abc import Iterable, Mapping

from .graph import FALSE, TRUE, Graph


class Diagrams:
    """Decision diagrams in one order of the inputs; equal functions have the same one.

    An edge is twice a diagram's number, plus 1 if it is inverted; 0 and 1 are the constants, as in
    `Graph`. A diagram's upper edge is never inverted.
    """

    def __init__(self) -> None:
        # Level, and the edges for 0 and 1 of its input. The constant is below all levels.
        self._level = [1 << 30]
        self._low = [0]
        self._high = [0]
        self._unique: dict[tuple[int, int, int], int] = {}
        self._ands: dict[tuple[int, int], int] = {}

    def __len__(self) -> int:
        return len(self._level)

    def input(self, level: int) -> int:
        """The diagram of the input at a level."""
        return self._node(level, FALSE, TRUE)

    def _node(self, level, low, high):
        if low == high:
            return low
        inverted = low & 1
        key = level, low ^ inverted, high ^ inverted
        found = self._unique.get(key)
        if found is None:
            self._level.append(level)
            self._low.append(key[1])
            self._high.append(key[2])
            found = self._unique[key] = 2 * (len(self._level) - 1)
        return found ^ inverted

    def both(self, a: int, b: int) -> int:
        """The diagram of an AND."""
        if a > b:
            a, b = b, a
        if a == TRUE or a == b:
            return b
        if a == FALSE or a == b ^ 1:
            return FALSE
        key = a, b
        found = self._ands.get(key)
        if found is None:
            i, j = a >> 1, b >> 1
            level = self._level[i]
            other = self._level[j]
            sign, sign2 = a & 1, b & 1
            if level <= other:
                low, high = self._low[i] ^ sign, self._high[i] ^ sign
            else:
                low = high = a
            if other <= level:
                low2, high2 = self._low[j] ^ sign2, self._high[j] ^ sign2
                level = other
            else:
                low2 = high2 = b
            found = self._ands[key] = self._node(
                level, self.both(low, low2), self.both(high, high2))
        return found

    def inputs(self, edge: int) -> dict[int, bool]:
        """Values of inputs, by level, under which a diagram that is not 0 is 1."""
        chosen = {}
        while edge > 1:
            node, sign = edge >> 1, edge & 1
            low = self._low[node] ^ sign
            chosen[self._level[node]] = low == FALSE
            edge = self._high[node] ^ sign if low == FALSE else low
        return chosen


class Functions:
    """Diagrams of a graph's nodes, made as they are asked for.

    Parameters
    ----------
    graph : Graph
    levels : mapping of int to int
        Level of each input node in the diagrams' order.
    """

    def __init__(self, graph: Graph, levels: Mapping[int, int]) -> None:
        self._graph = graph
        self._levels = levels
        self._diagrams = Diagrams()
        self._edges = {0: FALSE}

    def find(self, literals: Iterable[int]) -> set[int] | bool:
        """Searches inputs under which all of some literals are 1.

        Returns the inputs that are 1 then, or False if there are none.
        """
        both, edges = self._diagrams.both, self._edges
        literals = [*literals]
        waiting = [node for node in self._graph.cone(literals) if node not in edges]
        for node in waiting:
            if read := self._graph.nodes[node]:
                a, b = read
                edges[node] = both(edges[a >> 1] ^ (a & 1), edges[b >> 1] ^ (b & 1))
            else:
                edges[node] = self._diagrams.input(self._levels[node])
        result = TRUE
        for literal in literals:
            result = both(result, edges[literal >> 1] ^ (literal & 1))
        if result == FALSE:
            return False
        chosen = self._diagrams.inputs(result)
        return {node for node, level in self._levels.items() if chosen.get(level)}
