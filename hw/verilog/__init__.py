# SPDX-License-Identifier: BSD-2-Clause
"""Verilog of a component, the proof that it is equivalent, and AXI interfaces around it."""

from .axi_wrapper import wrap
from .emit import hierarchy, netlist, ports_of, split, verilog, versions
from .equivalence import prove

__all__ = [
    "hierarchy",
    "netlist",
    "ports_of",
    "prove",
    "split",
    "verilog",
    "versions",
    "wrap",
]
