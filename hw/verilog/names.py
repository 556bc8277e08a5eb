# SPDX-License-Identifier: BSD-2-Clause
"""The names by which the bits of a netlist are declared."""

from collections import defaultdict
from dataclasses import dataclass

from .operators import Bits


@dataclass
class Signal:
    """A name of the design and its bits."""

    name: str
    bits: Bits
    rank: str
    """"input", "output", "own", "field" (of a signal of one of the others) or "child" (the port of
    a submodule)."""

    def __post_init__(self):
        self.index = {}
        for i, bit in enumerate(self.bits):
            if isinstance(bit, int):
                self.index.setdefault(bit, i)


class Names:
    """For every bit that has a name, the one under which it is declared.

    A bit has the names of all signals that it is a part of. Ports come first. Then a signal that
    is exactly the result of an operator, or the vector that several results make up, provided that
    it has no other bits; then a field, or the port of a submodule.

    Parameters
    ----------
    signals : list of Signal
    drivers : list of list of bit
        Results of operators and outputs of submodules.
    whole : list of list of bit
        Results that must not be divided: outputs of submodules, and registers.
    stored : set of int
        Bits that are registers. Verilog declares them apart from others.
    banned : set of str
        Vectors that must not be used, as some of their bits depend on others.

    Attributes
    ----------
    of : dict of int to (str, int)
        Name and place of each bit.
    composed : set of str
        Vectors of which some bits have other names, from which they are assigned.
    """

    def __init__(self, signals, drivers, whole, stored, banned):
        self.of: dict[int, tuple[str, int]] = {}
        self.composed: set[str] = set()
        self.signals = {signal.name: signal for signal in signals}
        self._stored = stored
        self._whole = {bit: bits for bits in whole for bit in bits if isinstance(bit, int)}
        having = defaultdict(list)
        for signal in signals:
            for bit in signal.index:
                having[bit].append(signal)
        for signal in signals:
            if signal.rank == "input":
                self._claim(signal, signal.index)
        for rank in ("output", "own"):
            for bits in drivers:
                self._exact(bits, having, (rank,), banned)
            if rank == "output":
                for signal in signals:
                    if (signal.rank == rank and signal.name not in banned
                            and self._uniform(signal)):
                        self._claim(signal, [bit for bits in drivers for bit in bits
                                             if bit in signal.index])
        driven = {bit for bits in drivers for bit in bits if isinstance(bit, int)}
        wide = [signal for rank in ("own", "child") for signal in sorted(
            signals, key=lambda signal: (-len(signal.index), signal.name)) if signal.rank == rank]
        for signal in wide[:sum(signal.rank == "own" for signal in wide)]:
            self._complete(signal, driven, banned)
        for signal in wide[:sum(signal.rank == "own" for signal in wide)]:
            self._compose(signal, driven, banned)
        for rank in ("field", "child", "child field"):
            for bits in drivers:
                self._exact(bits, having, (rank,), banned)
        for signal in wide:
            if signal.rank == "child":
                self._complete(signal, driven, banned)
        # A result of which only some bits have a name.
        for bits in drivers:
            self._pieces(bits, having, banned)

    def _uniform(self, signal):
        """Whether all bits of a signal are registers, or none, and no result is divided."""
        return len({bit in self._stored for bit in signal.index}) == 1 and (
            signal.rank == "output" or all(
                other in signal.index for bit in signal.index if bit not in self.of
                for other in self._whole.get(bit, ()) if isinstance(other, int)))

    def _compose(self, signal, driven, banned):
        """Gives bits the name of a signal most parts of which are results without a name.

        Its other bits are assigned from the names that they have.
        """
        if (signal.name in banned or not self._uniform(signal) or len(signal.bits) < 2
                or len(signal.index) < len(signal.bits)):
            return
        free = [bit in driven and bit not in self.of for bit in signal.bits]
        if not any(free) or not all(bit in driven or bit in self.of for bit in signal.index):
            return
        starts = [i for i, bit in enumerate(free) if i == 0 or bit != free[i - 1]]
        mine = sum(free[i] for i in starts)
        if any(bit in self._stored for bit in signal.index) or (
                len(starts) - mine > mine // 2 + 1):
            return
        self._claim(signal, [bit for bit, own in zip(signal.bits, free, strict=True) if own])
        self.composed.add(signal.name)

    def _claim(self, signal, bits):
        for bit in bits:
            self.of.setdefault(bit, (signal.name, signal.index[bit]))

    def _exact(self, bits, having, ranks, banned):
        """Gives a result the name of a signal that has no other bits."""
        free = [bit for bit in bits if isinstance(bit, int)]
        if not free or any(bit in self.of for bit in free):
            return
        for signal in having.get(free[0], ()):
            if (signal.rank in ranks and len(signal.index) == len(free)
                    and [signal.index.get(bit) for bit in free]
                    == [*range(signal.index[free[0]], signal.index[free[0]] + len(free))]):
                self._claim(signal, free)
                return

    def _complete(self, signal, driven, banned):
        """Gives bits the name of a signal all bits of which are results without a name."""
        places = sorted(signal.index.values())
        if (signal.index and signal.name not in banned and self._uniform(signal)
                and all(bit in driven and bit not in self.of for bit in signal.index)
                and places == [*range(places[0], places[0] + len(places))]):
            self._claim(signal, signal.index)

    def _pieces(self, bits, having, banned):
        """Gives parts of a result the names of signals that have no other bits."""
        start = 0
        while start < len(bits):
            bit = bits[start]
            if not isinstance(bit, int) or bit in self.of:
                start += 1
                continue
            best = None
            for signal in having.get(bit, ()):
                count = len(signal.index)
                part = bits[start:start + count]
                if (signal.name not in banned and len(part) == count
                        and all(isinstance(b, int) and b not in self.of for b in part)
                        and [signal.index.get(b) for b in part]
                        == [*range(signal.index[bit], signal.index[bit] + count)]
                        and (best is None or count > len(best.index))):
                    best = signal
            if best is None:
                start += 1
            else:
                self._claim(best, best.index)
                start += len(best.index)
