"""Carry-save addition: synthesis does not restructure adders, so the structure is given."""

from amaranth import *


def compress(m, rows, *, width, name):
    """Adds rows down to two that have the same sum, without carry propagation.

    A tree of full adders per bit; the earliest rows go in first. Bits that are constant cost
    nothing: synthesis removes them.

    Parameters
    ----------
    m : Module
    rows : list of Value
        Unsigned; bits beyond ``width`` are dropped.
    width : int
        Width of the sums, which are modulo 2**width.
    name : str
        Prefix of the signals' names.

    Returns
    -------
    list of two Signal
    """
    rows = list(rows)
    for level in range(len(rows) - 2):
        a, b, c, *rows = rows
        half, total, carry = (Signal(width, name=f"{name}_{part}{level}")
                              for part in ("half", "sum", "carry"))
        m.d.comb += [
            half.eq(a ^ b),
            total.eq(half ^ c),
            carry.eq(((a & b) | (half & c)) << 1),
        ]
        rows += [total, carry]
    return rows
