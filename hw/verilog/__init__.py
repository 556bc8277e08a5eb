# SPDX-License-Identifier: BSD-2-Clause
"""Verilog of a component, the proof that it is equivalent, and AXI interfaces around it."""

from .axi_wrapper import wrap
from .emit import hierarchy, netlist, ports_of, split, verilog, versions
from .equivalence import prove
from .style import Style

__all__ = [
    "Style",
    "hierarchy",
    "netlist",
    "ports_of",
    "prove",
    "split",
    "verilog",
    "versions",
    "wrap",
]
