# SPDX-License-Identifier: BSD-2-Clause
"""Arithmetic in structures that synthesis does not find by itself."""

from dataclasses import dataclass
from itertools import zip_longest

from amaranth import *


def compress(m, rows, *, width, name, words=True, until=None):
    """Adds rows down to two rows that have the same sum, without carry propagation.

    The rows go through a tree of full adders, column by column: each adder takes the three bits of
    its column that arrive first, until at most two bits are left.

    Parameters
    ----------
    m : Module
    rows : list of (int, Value, float)
        The place of a row's lowest bit; the row, unsigned, whose bits beyond ``width`` are dropped;
        when it arrives, in delays of an exclusive or.
    width : int
        Width of the sums, which are modulo 2**width.
    name : str
        Prefix of the signals' names.
    words : bool
        Whether adders that do not depend on each other are described as one word over all columns,
        which simulators take faster, or column by column, of which synthesis may make less.
    until : float, optional
        When a register comes: adders whose sums would arrive later are left out.

    Returns
    -------
    list of Value
        Two, or as many as ``until`` leaves.
    """
    columns = [[] for _ in range(width + 1)]
    for number, (place, row, arrival) in enumerate(rows):
        word = Signal(len(row), name=f"{name}_row{number}")
        m.d.comb += word.eq(row)
        for index, column in enumerate(columns[place : min(place + len(row), width)]):
            column.append(_Bit(arrival, word=word, index=index))
    levels = {}
    for place, column in enumerate(columns[:width]):
        while len(column) > 2:
            column.sort(key=lambda bit: bit.arrival)
            _, second, third = (bit.arrival for bit in column[:3])
            if until is not None and max(second + 2.5, third + 1.5) > until:
                break
            operands, column[:3] = column[:3], []
            level = max(bit.level for bit in operands) + 1
            # The third may be later, as the first two have to meet. The sum counts for more than
            # two exclusive ors.
            total = _Bit(max(second + 2.5, third + 1.5), level)
            carry = _Bit(max(second + 2, third + 0.5), level)
            column.append(total)
            columns[place + 1].append(carry)
            ranks = levels.setdefault((level, 0 if words else place), {}).setdefault(place, [])
            ranks.append((operands, total, carry))

    most = max(2, *map(len, columns[:width]))

    # The adders of a level do not depend on each other: they make a word, which simulators take
    # at once. Neighbours in it are of neighbouring columns, as their operands are.
    for (level, column), of_place in sorted(levels.items()):
        adders = [adder for rank in zip_longest(*of_place.values()) for adder in rank if adder]
        a, b, c = (_gather(bits) for bits in zip(*(operands for operands, _, _ in adders),
                                                 strict=True))
        first, second, third, half, total, carry = (
            Signal(len(adders), name=f"{name}_{part}{level}" + ("" if words else f"_{column}"))
            for part in ("a", "b", "c", "half", "sum", "carry"))
        m.d.comb += [
            first.eq(a),
            second.eq(b),
            third.eq(c),
            half.eq(first ^ second),
            total.eq(half ^ third),
            carry.eq((first & second) | (half & third)),
        ]
        for index, (_, *made) in enumerate(adders):
            for bit, bit.word in zip(made, (total, carry), strict=True):
                bit.index = index
    return [_gather([column[i] if i < len(column) else _Bit(0, word=C(0, 1), index=0)
                     for column in columns[:width]]) for i in range(most)]


@dataclass
class _Bit:
    """A bit of a tree: when it arrives, which level of adders makes it, and where it is."""

    arrival: float
    level: int = 0
    word: Value | None = None
    index: int | None = None


def _gather(bits):
    """Concatenates bits, neighbours of the same word as one slice."""
    runs = []
    for bit in bits:
        if runs and runs[-1][0] is bit.word and runs[-1][2] == bit.index:
            runs[-1][2] += 1
        else:
            runs.append([bit.word, bit.index, bit.index + 1])
    return Cat(word[start:stop] for word, start, stop in runs)


def carry_skip_add(m, a, b, *, carry, name):
    """Adds two equally wide values and a carry, modulo 2**width.

    Carries skip pairs of bits. From some 20 bits on that is smaller and faster than what synthesis
    makes of an addition.

    Parameters
    ----------
    m : Module
    a, b : Value
        Taken as plain bits, whether signed or not.
    carry : Value
        One bit.
    name : str
        Signal's name and prefix of others'.

    Returns
    -------
    Signal
        As wide as ``a``.
    """
    width = len(a)
    result, both, either, generates, propagates, evens, odds = (
        Signal(width, name=name + part) for part in
        ("", "_both", "_either", "_generates", "_propagates", "_evens", "_odds"))
    m.d.comb += [
        both.eq(a & b),
        either.eq(a ^ b),
        # Of each place together with the one below; what leaves the top place is dropped.
        generates.eq(both | (either & (both << 1))),
        propagates.eq(either & (either << 1)),
    ]
    carries = [carry]
    for place in range(1, width - 1, 2):
        out = Signal(name=f"{name}_carry{place}")
        m.d.comb += out.eq(generates[place] | (propagates[place] & carries[-1]))
        carries.append(out)
    m.d.comb += [
        # Carries into the lower places of pairs, then into the upper ones.
        evens.eq(Cat(Cat(out, C(0, 1)) for out in carries)),
        odds.eq(((both | (either & evens)) & sum(1 << place for place in range(0, width, 2))) << 1),
        result.eq(either ^ (evens | odds)),
    ]
    return result


def carry_chain_add(m, a, b, *, carry, name):
    """Adds as `carry_skip_add` does, in the form that an FPGA's carry chain takes.

    Parameters
    ----------
    m : Module
    a, b : Value
        Equally wide; taken as plain bits, whether signed or not.
    carry : Value
        One bit.
    name : str
        Signal's name.

    Returns
    -------
    Signal
        As wide as ``a``.
    """
    # The carry goes in at a place below, where it meets a one.
    total = Signal(len(a) + 1, name=f"{name}_chain")
    result = Signal(len(a), name=name)
    m.d.comb += [total.eq(Cat(C(1, 1), a) + Cat(carry, b)), result.eq(total[1:])]
    return result


def carry_skip_increment(m, value, by, *, name):
    """Adds one bit to a value, modulo 2**width.

    Carries skip blocks of four bits. Synthesis of an addition makes a chain of single bits.

    Parameters
    ----------
    m : Module
    value : Value
    by : Value
        One bit.
    name : str
        Signal's name and prefix of others'.

    Returns
    -------
    Signal
        As wide as ``value``.
    """
    width = len(value)
    bits = Signal(width, name=f"{name}_bits")
    carries = Signal(width, name=f"{name}_carries")
    result = Signal(width, name=name)
    full = Signal(width // 4 + 1, name=f"{name}_full")
    m.d.comb += [
        bits.eq(value),
        full.eq(Cat(bits[block : block + 4].all() for block in range(0, width, 4))),
        carries.eq(Cat(full[: place // 4].all() & bits[place // 4 * 4 : place].all()
                       for place in range(width))),
        result.eq(bits ^ (carries & by.replicate(width))),
    ]
    return result


def largest(m, values, *, name):
    """Finds the largest of unsigned values, and all that equal it, by elimination.

    From the top bit down, a value drops out if it lacks a bit that another value still in play has;
    the largest value has each bit that any value in play has. This takes half the area of a
    tournament of comparisons, which carries values from match to match. Bits are found in pairs:
    whether any value has the lower bit is computed for both cases of the upper one, and does not
    wait for it.

    Parameters
    ----------
    m : Module
    values : list of Value, equally wide
    name : str
        Prefix of the signals' names.

    Returns
    -------
    is_largest : Value
        A bit per value, set where it is the largest.
    maximum : Value
        As wide as a value.
    """
    # A signal per bit: bits that depend on each other within one would look like a loop.
    maximum = []
    before = upper = is_largest = C(1).replicate(len(values))
    for place in reversed(range(len(values[0]))):
        bits, held, still = (Signal(len(values), name=f"{name}_{part}{place}")
                             for part in ("bits", "held", "is_largest"))
        bit = Signal(name=f"{name}{place}")
        lower = len(maximum) % 2
        m.d.comb += [
            bits.eq(Cat(value[place] for value in values)),
            held.eq(bits & is_largest),
            bit.eq(Mux(maximum[0], (bits & upper).any(), (bits & before).any()) if lower else
                   held.any()),
            still.eq(is_largest & ~(bit.replicate(len(values)) & ~bits)),
        ]
        before, upper, is_largest = is_largest, held, still
        maximum.insert(0, bit)
    return is_largest, Cat(maximum)


def greater(m, a, b, *, name):
    """Compares two equally wide unsigned values.

    Each node of a tree knows of its part of the bits whether ``a`` is greater and whether it is not
    less; parts double from level to level. A subtraction, which synthesis makes of a comparison,
    has an exclusive or in place of each "not less".

    Parameters
    ----------
    m : Module
    a, b : Value
    name : str
        Prefix of the signals' names.

    Returns
    -------
    Value
        Whether ``a`` is greater than ``b``.

    Raises
    ------
    ValueError
        If their widths differ: the wider one's upper bits would be lost.
    """
    if len(a) != len(b):
        raise ValueError(f"{name} must compare values of one width, not of {len(a)} and {len(b)}")
    more, least = a & ~b, a | ~b
    level = 0
    while len(more) > 1:
        # Neighbours in pairs from the top down, as the lowest part may be alone.
        pairs = [(i - 1, i) for i in range(len(more) - 1, 0, -2)][::-1]
        alone = [0] if len(more) % 2 else []
        more_held, least_held = (Signal(len(more), name=f"{name}_{part}{level}")
                                 for part in ("more", "least"))
        m.d.comb += [more_held.eq(more), least_held.eq(least)]
        more = Cat(*(more_held[i] for i in alone),
                   *(more_held[high] | (least_held[high] & more_held[low]) for low, high in pairs))
        least = Cat(*(least_held[i] for i in alone),
                    *(least_held[high] & least_held[low] for low, high in pairs))
        level += 1
    return more


def lookup(index, values, *, width):
    """Looks a value up in a table of constants.

    Each bit is a tree of multiplexers whose leaves are 0, 1 or the lowest bit of the index. Of that
    synthesis makes less than of a table of cases.

    Parameters
    ----------
    index : Value
    values : list of int, 2**len(index) of them
    width : int
        Bits of the values.

    Returns
    -------
    Value
    """
    def tree(bits, names):
        low, high = bits[: len(bits) // 2], bits[len(bits) // 2 :]
        if len(set(bits)) == 1:
            return C(bits[0], 1)
        if low == high:
            return tree(low, names[:-1])
        if all(a != b for a, b in zip(low, high, strict=True)):
            return names[-1] ^ tree(low, names[:-1]) if len(bits) > 2 else names[0] ^ bits[0]
        return Mux(names[-1], tree(high, names[:-1]), tree(low, names[:-1]))

    return Cat(tree([value >> place & 1 for value in values], list(index))[0]
               for place in range(width))
