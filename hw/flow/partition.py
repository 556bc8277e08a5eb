# SPDX-License-Identifier: BSD-2-Clause
"""Chooses the modules of a large unit that are mapped by themselves."""

import re
from functools import cache

from ..verilog.emit import hierarchy

LARGEST = 12_288
"""Bits of signals, in a module and all below it, up to which it is mapped as a whole."""


def partition(text: str, top: str) -> list[str]:
    """Chooses modules to keep, so that none is too large to be mapped as a whole.

    Parameters
    ----------
    text : str
        Verilog as `hw.verilog.emit.verilog` emits it.
    top : str
        Name of the top module.

    Returns
    -------
    list of str
        The largest modules that can be mapped as a whole, and those above them, without the top.
    """
    bodies, children = hierarchy(text)

    @cache
    def size(name):
        ranges = re.findall(r"^  (?:input +|output +)?(?:wire|reg)\b(?: +signed)?"
                            r"(?: +\[(\d+):(\d+)\])? +[\w\\]+", bodies[name], re.M)
        return (sum(int(high or 0) - int(low or 0) + 1 for high, low in ranges)
                + sum(map(size, children[name])))

    kept: list[str] = []

    def split(parent):
        for child in children[parent]:
            if child not in kept:
                kept.append(child)
                if size(child) > LARGEST:
                    split(child)

    if size(top) > LARGEST:
        split(top)
    return kept
