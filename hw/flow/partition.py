# SPDX-License-Identifier: BSD-2-Clause
"""Which modules of a large unit are mapped by themselves."""

import re
from functools import cache

from ..verilog.emit import hierarchy

LARGEST = 16_384
"""Bits of signals, in a module and all below it, up to which it is mapped as a whole."""


def partition(text, top):
    """Modules to keep so that none is too large to be mapped as a whole.

    Parameters
    ----------
    text : str
        Verilog as `hw.verilog.emit.verilog` emits it.
    top : str

    Returns
    -------
    list of str
        The largest modules that can be mapped as a whole, and those above them, without the top.
    """
    bodies, children = hierarchy(text)

    @cache
    def size(name):
        widths = re.findall(r"^  (?:wire|reg)(?: signed)?(?: \[(\d+):0\])? [^\s;]+ *(?:=.*)?;",
                            bodies[name], re.M)
        return sum(int(width or 0) + 1 for width in widths) + sum(map(size, children[name]))

    kept = []

    def split(parent):
        for child in children[parent]:
            if child not in kept:
                kept.append(child)
                if size(child) > LARGEST:
                    split(child)

    if size(top) > LARGEST:
        split(top)
    return kept
