# SPDX-License-Identifier: BSD-2-Clause
"""The record of the least error, of those that were tried for a group. Sections 10.7 and 10.8."""

from amaranth import *

from .arithmetic import greater
from .formats import SCALE_NAN


def best_scale(m, sums, records, floor, places):
    """The record under the best scale of Sg-EM.

    Parameters
    ----------
    m : Module
    sums : list of Value
        By scale, the sum of errors of the group.
    records : list of Value
        By scale, elements and metadata.
    floor : Value
        As `GroupScale.scale`.
    places : list of int
        By scale, how often it is twice the lowest one.

    Returns
    -------
    record, scale : Value
    """
    # In units of the lowest one. Of two equal sums the first one stays.
    width = max(len(total) + 2 * place for total, place in zip(sums, places, strict=True))
    totals = [Signal(width, name=f"weighted{n}") for n in range(len(sums))]
    better = Signal(width)
    middle = Signal()
    highest = Signal()
    m.d.comb += [
        *(weighted.eq(total << 2 * place) for weighted, total, place in
          zip(totals, sums, places, strict=True)),
        # The lowest scale does not exist where its code would be -1.
        middle.eq(greater(m, totals[0], totals[1], name="middle_less") | (floor == 2)),
        better.eq(Mux(middle, totals[1], totals[0])),
        highest.eq(greater(m, better, totals[2], name="highest_less")),
    ]
    return (Mux(highest, records[2], Mux(middle, records[1], records[0])),
            Mux(floor.all(), SCALE_NAN, floor - 3 + Mux(highest, 2, middle)))


def best_special(m, sums, records, scale, five=None):
    """The record of the best special value.

    Parameters
    ----------
    m : Module
    sums, records : list of Value
        By special value, 5, -5, 8 and -8: sum of errors of the group; elements and metadata. With
        ``five`` by 5 or -5, 8 and -8.
    scale : Value
        As `GroupScale.scale`.
    five : Value, optional
        Whether the first one is that of -5. By default 5 and -5 are compared, too.

    Returns
    -------
    record, scale : Value
    """
    exponent, doubled, nonfinite = scale[:6], scale[6], scale[7]
    better = [Signal(len(sums[0]), name=f"better{n}") for n in range(2)]
    weighted = Signal(len(sums[0]) + 2)
    eight = Signal()
    last = Signal()
    byte = Signal(8)
    # Of equal sums the first one stays.
    if five is None:
        five = Signal()
        m.d.comb += [
            five.eq(greater(m, sums[0], sums[1], name="five_less")),
            better[0].eq(Mux(five, sums[1], sums[0])),
        ]
        of_five = Mux(five, records[1], records[0])
    else:
        m.d.comb += better[0].eq(sums[0])
        of_five = records[0]
    positive, negative = sums[-2:]
    m.d.comb += [
        # The byte of the last candidate may be NaN's.
        eight.eq(greater(m, positive, negative, name="eight_less") & ~exponent.all()),
        better[1].eq(Mux(eight, negative, positive)),
        # In units of the lower scale.
        weighted.eq(Mux(doubled, better[0].shift_left(2), better[0])),
        last.eq(greater(m, weighted, Cat(better[1], C(0, 2)), name="last_less")),
        byte.eq(Mux(last, Cat(eight, C(1, 1), exponent),
                    Cat(five, C(0, 1), (exponent + doubled)[:6]))),
    ]
    return (Mux(last, Mux(eight, records[-1], records[-2]), of_five),
            byte | nonfinite.replicate(8))


def keep_better(m, sums, records, *, enable, first, steps):
    """Keeps the better one of two candidates while the next ones come into their registers.

    Parameters
    ----------
    m : Module
    sums : list of two Value
        Registers of the sums of errors.
    records : list of two (Value, Value)
        Registers of elements and of metadata, from which subgroups leave at the lowest bits.
    enable : Value
        Whether they leave.
    first : Value
        Whether these are a group's first ones; the sums are then those of the group.
    steps : int
        Cycles in which a group's subgroups leave.

    Returns
    -------
    total, record, second : Value
        Of the better candidate, and whether it is the second one. All are whole with the last
        subgroup.
    """
    total = Signal.like(sums[0], name="kept_total", reset_less=True)
    held = Signal(name="kept_second", reset_less=True)
    better, second = Signal(name="second_less"), Signal(name="second_kept")
    m.d.comb += [
        # Of equal sums the first one stays.
        better.eq(greater(m, *sums, name="kept_less")),
        second.eq(Mux(first, better, held)),
    ]
    with m.If(enable & first):
        m.d.sync += [held.eq(better), total.eq(Mux(better, sums[1], sums[0]))]
    record = []
    for name, values in zip(("kept_elements", "kept_metadata"), zip(*records, strict=True),
                            strict=True):
        kept = Signal.like(values[0], name=name, reset_less=True)
        bits = len(kept) // steps
        with m.If(enable):
            m.d.sync += kept.eq(Cat(kept, Mux(second, values[1][:bits], values[0][:bits]))[bits:])
        record.append(kept)
    return total, Cat(record), held
