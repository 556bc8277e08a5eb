# SPDX-License-Identifier: BSD-2-Clause
"""The accelerator with its commands on an AXI4-Lite bus (specification sections 14 and 15)."""

from functools import reduce
from operator import and_, or_

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..accelerator.accelerator import Accelerator, data_streams
from ..accelerator.config import configuration
from ..lib.cleared import Cleared
from .axi_lite import CHANNELS, CommandRegisters, register_map


class AxiAccelerator(wiring.Component):
    """`Accelerator` that software commands through registers on an AXI4-Lite bus.

    `CommandRegisters` describes the registers, `Accelerator` the streams of data.

    When the registers halt the machine, operands and commands are taken and thrown away, and each
    stream of results comes to its end: a row that is offered stays until it is taken, as a stream
    must; if a packet has then begun and not ended, a row of zeros with ``last`` ends it. When this
    has happened on all of them the accelerator is kept in reset until the registers resume, and so
    is empty. Specification section 15.9.

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
        accelerator = Accelerator(config=self.config)
        clear = Signal()
        m.submodules.accelerator = Cleared(accelerator, clear)
        halt = registers.o_halt
        _take_or_discard(m, registers.o_command, accelerator.i_command, halt)
        # The registers take no status while they halt.
        wiring.connect(m, accelerator.o_status, registers.i_status)
        if self.config.framed:
            wiring.connect(m, accelerator.o_misframed, registers.i_misframed)
        m.d.comb += self.o_irq.eq(registers.o_irq)
        for name in CHANNELS:
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(registers, name))

        closed, ended = [], []
        for name, member in data_streams(self.config).items():
            port, inner = getattr(self, name), getattr(accelerator, name)
            if member.flow == In:
                _take_or_discard(m, port, inner, halt)
            else:
                for signals, signal in zip((closed, ended), self._end(m, name, port, inner, halt),
                                           strict=True):
                    signals.append(signal)
        m.d.comb += [
            clear.eq(halt & reduce(and_, closed)),
            registers.i_rest.eq(reduce(and_, ended)),
            registers.i_moved.eq(reduce(or_, (
                getattr(self, name).valid & getattr(self, name).ready
                for name in data_streams(self.config)))),
        ]

        return m

    def _end(self, m, name, port, inner, halt):
        """Connects a stream of results, and brings it to its end when the machine halts.

        Returns
        -------
        closed : Signal
            The accelerator's results reach the port no longer. It means something during a halt.
        ended : Value
            Nor is a packet open.
        """
        closed = Signal(reset_less=True, name=f"{name}_closed")
        opened = Signal(name=f"{name}_opened")
        cut = Signal(name=f"{name}_cut")
        with m.If(port.valid & port.ready):
            m.d.sync += opened.eq(~port.payload.last)
        # What is offered in a cycle of a halt may have been offered before, and stays.
        m.d.sync += closed.eq(halt & (closed | ~inner.valid | port.ready))
        m.d.comb += [
            cut.eq(halt & closed),
            port.valid.eq(Mux(cut, opened, inner.valid)),
            inner.ready.eq(port.ready & ~cut),
        ]
        payload, given = Value.cast(port.payload), Value.cast(inner.payload)
        m.d.comb += payload.eq(given & ~cut.replicate(len(given)))
        with m.If(cut):
            m.d.comb += port.payload.last.eq(1)
        return closed, closed & ~opened


def _take_or_discard(m, source, sink, discard):
    """Connects a stream, or takes its transfers and gives them to nobody."""
    m.d.comb += [
        sink.valid.eq(source.valid & ~discard),
        Value.cast(sink.payload).eq(Value.cast(source.payload)),
        source.ready.eq(sink.ready | discard),
    ]
