# SPDX-License-Identifier: BSD-2-Clause
"""Selection of a subgroup's top-1, the element whose magnitude the metadata refine."""

from amaranth import *

from .arithmetic import largest


def select_top1(m, codes):
    """Selects the largest-magnitude FP4 (E2M1) code; ties go to the lowest lane.

    The sign is ignored. E2M1 magnitudes order like the low three bits of their codes, so nothing is
    decoded. Combinational. Specification section 3.4.

    Parameters
    ----------
    m : Module
        Takes the logic.
    codes : list of Value
        FP4 codes, or their low three bits.

    Returns
    -------
    lane : Value
        The selected lane, one-hot.
    magnitude : Value
        The low three bits of the selected code.
    """
    is_largest, magnitude = largest(m, [code[:3] for code in codes], name="magnitude")
    return lowest(is_largest), magnitude


def lowest(lanes):
    """The lowest of some lanes, one-hot; ``lanes`` has a bit per lane."""
    return Cat(lanes[i] & ~lanes[:i].any() for i in range(len(lanes)))
