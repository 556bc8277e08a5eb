# SPDX-License-Identifier: BSD-2-Clause
"""The accelerator on a bus: AXI4-Lite registers and their map."""

from .axi_accelerator import AxiAccelerator
from .axi_lite import CommandRegisters
from .register_map import Field, Register, RegisterMap

__all__ = [
    "AxiAccelerator",
    "CommandRegisters",
    "Field",
    "Register",
    "RegisterMap",
]
