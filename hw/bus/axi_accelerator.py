# SPDX-License-Identifier: BSD-2-Clause
"""The accelerator with its commands on an AXI4-Lite bus (specification sections 14 and 15)."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from ..accelerator.accelerator import Accelerator, data_streams
from ..accelerator.config import configuration
from .axi_lite import CHANNELS, CommandRegisters, register_map


class AxiAccelerator(wiring.Component):
    """`Accelerator` that software commands through registers on an AXI4-Lite bus.

    `CommandRegisters` describes the registers, `Accelerator` the streams of data.

    Parameters
    ----------
    config : Config or str
        As for `Accelerator`.

    Members
    -------
    i_aw, i_w, o_b, i_ar, o_r
        As in `CommandRegisters`.
    i_weight, i_activation, i_value, o, o_record
        As in `Accelerator`; the configuration decides which of them there are.
    o_irq : Out(1)
        As in `CommandRegisters`.

    Raises
    ------
    ValueError
        If there is no configuration of that name.
    """

    # From the write of a command to its first result.
    latency = CommandRegisters.latency + Accelerator.latency

    def __init__(self, *, config="paper"):
        self.config = configuration(config)
        self.registers = register_map(self.config)
        super().__init__(CHANNELS | data_streams(self.config) | {"o_irq": Out(1)})

    def elaborate(self, platform):
        m = Module()

        m.submodules.registers = registers = CommandRegisters(self.config)
        m.submodules.accelerator = accelerator = Accelerator(config=self.config)
        wiring.connect(m, registers.o_command, accelerator.i_command)
        wiring.connect(m, accelerator.o_status, registers.i_status)
        if self.config.framed:
            wiring.connect(m, accelerator.o_misframed, registers.i_misframed)
        m.d.comb += self.o_irq.eq(registers.o_irq)
        for name in CHANNELS:
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(registers, name))
        for name in data_streams(self.config):
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(accelerator, name))

        return m
