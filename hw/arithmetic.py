"""Arithmetic in structures that synthesis does not find by itself."""

from amaranth import *


def compress(m, rows, *, width, name):
    """Adds rows down to two that have the same sum, without carry propagation.

    Full adders, column by column: each takes the three bits that arrive first, until at most two
    are left.

    Parameters
    ----------
    m : Module
    rows : list of (int, Value, float)
        The place of a row's lowest bit; the row, unsigned, of which bits beyond ``width`` are
        dropped; when it arrives, in delays of an exclusive or.
    width : int
        Width of the sums, which are modulo 2**width.
    name : str
        Prefix of the signals' names.

    Returns
    -------
    list of two Value
    """
    columns = [[] for _ in range(width + 1)]
    for place, row, arrival in rows:
        for column, bit in zip(columns[place:width], row, strict=False):
            column.append((arrival, bit))
    for place, column in enumerate(columns[:width]):
        while len(column) > 2:
            column.sort(key=lambda entry: entry[0])
            (_, a), (second, b), (third, c) = column[:3]
            half, total, carry = (Signal(name=f"{name}{place}_{part}{len(column)}")
                                  for part in ("half", "sum", "carry"))
            m.d.comb += [
                half.eq(a ^ b),
                total.eq(half ^ c),
                carry.eq((a & b) | (half & c)),
            ]
            # The third may be as much later as the first two take to meet. A carry is one and a
            # half exclusive ors away, or half of one.
            del column[:3]
            column.append((max(second + 2, third + 1), total))
            columns[place + 1].append((max(second + 1.5, third + 0.5), carry))
    return [Cat(column[i][1] if i < len(column) else C(0, 1) for column in columns[:width])
            for i in range(2)]


def add(m, a, b, *, carry=None, name):
    """Adds two equally wide values and a carry, modulo their width.

    Carries skip pairs of bits: smaller and faster, from some 20 bits on, than what synthesis
    makes of an addition.

    Parameters
    ----------
    m : Module
    a, b : Value
        Bits; signs are not looked at.
    carry : Value, optional
        One bit.
    name : str
        Signal's name and prefix of others'.

    Returns
    -------
    Signal
        As wide as ``a``.
    """
    width = len(a)
    result = Signal(width, name=name)
    both = Signal(width, name=f"{name}_both")
    either = Signal(width, name=f"{name}_either")
    m.d.comb += [both.eq(a & b), either.eq(a ^ b)]
    carries = [C(0, 1) if carry is None else carry]
    for start in range(0, width, 2):
        into = carries[-1]
        generates, propagates = C(0, 1), C(1, 1)
        for place in range(start, min(start + 2, width)):
            below, all_below = generates, propagates
            generates, propagates, out = (Signal(name=f"{name}_{part}{place}") for part in
                                          ("generates", "propagates", "carry"))
            m.d.comb += [
                generates.eq(both[place] | (either[place] & below)),
                propagates.eq(either[place] & all_below),
                out.eq(generates | (propagates & into)),
            ]
            carries.append(out)
    m.d.comb += result.eq(either ^ Cat(carries[:-1]))
    return result


def increment(m, value, by, *, name):
    """A value plus one bit, modulo its width.

    Carries skip blocks of four bits. Of an addition synthesis makes a chain that is bit by bit.

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
    """The largest of unsigned values, and all that equal it, by elimination.

    From the top bit down, values that lack a bit which another one still in play has drop out;
    whether any has it is that bit of the largest. Half the area of a tournament of comparisons,
    which carries values from match to match.

    Parameters
    ----------
    m : Module
    values : list of Value, equally wide
    name : str
        Prefix of the signals' names.

    Returns
    -------
    left : Value
        A bit per value, set where it is the largest.
    maximum : Value
    """
    # A signal per bit: bits that depend on each other within one would look like a loop.
    maximum = []
    left = C(-1, len(values))
    for place in reversed(range(len(values[0]))):
        bits = Signal(len(values), name=f"{name}_bits{place}")
        still = Signal(len(values), name=f"{name}_left{place}")
        bit = Signal(name=f"{name}{place}")
        m.d.comb += [
            bits.eq(Cat(value[place] for value in values) & left),
            bit.eq(bits.any()),
            still.eq(bits | (left & ~bit.replicate(len(values)))),
        ]
        left = still
        maximum.insert(0, bit)
    return left, Cat(maximum)


def greater(m, a, b, *, name):
    """Whether one of two equally wide unsigned values is greater than the other.

    A tree of pairs of bits, greater and not less, of parts that double. A subtraction, which is
    what synthesis takes for a comparison, has an exclusive or in place of each "not less".

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
    """
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
