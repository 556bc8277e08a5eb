# SPDX-License-Identifier: BSD-2-Clause
"""From Verilog to figures: mapping, timing, power."""

from .liberty import find_library
from .measurement import measure, synthesize
from .power import estimate

__all__ = [
    "estimate",
    "find_library",
    "measure",
    "synthesize",
]
