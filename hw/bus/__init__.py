# SPDX-License-Identifier: BSD-2-Clause
"""Units on buses: the accelerator's registers on AXI4-Lite, and any unit behind a UART."""

from .axi_accelerator import AxiAccelerator
from .axi_lite import CommandRegisters
from .register_map import Field, Register, RegisterMap
from .uart import UartReceiver, UartTransmitter
from .uart_link import UartLink

__all__ = [
    "AxiAccelerator",
    "CommandRegisters",
    "Field",
    "Register",
    "RegisterMap",
    "UartLink",
    "UartReceiver",
    "UartTransmitter",
]
