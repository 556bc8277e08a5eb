# SPDX-License-Identifier: BSD-2-Clause
"""Both ends of a serial line: a UART with eight data bits, no parity and one stop bit."""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

LEAST_DIVISOR = 4
"""Fewest cycles per bit: the middle of a bit must be a cycle of its own, off its edges."""


def _check(divisor):
    if type(divisor) is not int or divisor < LEAST_DIVISOR:
        raise ValueError(f"Divisor must be an integer of at least {LEAST_DIVISOR}, "
                         f"not {divisor!r}")


class UartReceiver(wiring.Component):
    """Takes bytes from a serial line.

    A bit is sampled in its middle. A byte whose stop bit is low is dropped, and the line must be
    high before the next start bit; a start bit that has ended before its middle is none.

    Parameters
    ----------
    divisor : int, at least 4
        Cycles per bit.

    Members
    -------
    rx : In(1)
        The line, which may change at any time: two registers bring it to the clock.
    o : Out(stream.Signature(8, always_ready=True))
        Given in the middle of the stop bit.

    Raises
    ------
    ValueError
        If the divisor is too small.
    """

    latency = 2

    def __init__(self, *, divisor):
        _check(divisor)
        self.divisor = divisor
        super().__init__({
            "rx": In(1, init=1),
            "o": Out(stream.Signature(8, always_ready=True)),
        })

    def elaborate(self, platform):
        m = Module()

        first = Signal(init=1)
        level = Signal(init=1)
        m.d.sync += [first.eq(self.rx), level.eq(first)]

        timer = Signal(range(self.divisor), reset_less=True)
        left = Signal(range(8), reset_less=True)
        bits = Signal(8, reset_less=True)
        over = Signal()
        m.d.comb += [over.eq(timer == 0), self.o.payload.eq(bits)]
        m.d.sync += timer.eq(Mux(over, self.divisor - 1, timer - 1))
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += timer.eq(self.divisor // 2 - 1)
                with m.If(~level):
                    m.next = "START"
            with m.State("START"):
                m.d.sync += left.eq(7)
                with m.If(over):
                    m.next = "DATA"
                    with m.If(level):
                        m.next = "IDLE"
            with m.State("DATA"):
                with m.If(over):
                    m.d.sync += [bits.eq(Cat(bits[1:], level)), left.eq(left - 1)]
                    with m.If(left == 0):
                        m.next = "STOP"
            with m.State("STOP"):
                with m.If(over):
                    m.d.comb += self.o.valid.eq(level)
                    m.next = "REST"
                    with m.If(level):
                        m.next = "IDLE"
            with m.State("REST"):
                with m.If(level):
                    m.next = "IDLE"

        return m


class UartTransmitter(wiring.Component):
    """Sends bytes on a serial line.

    A byte takes ten bits of ``divisor`` cycles, and one cycle more.

    Parameters
    ----------
    divisor : int, at least 4
        Cycles per bit.

    Members
    -------
    i : In(stream.Signature(8))
    tx : Out(1)
        The line, from a register.

    Raises
    ------
    ValueError
        If the divisor is too small.
    """

    latency = 1

    def __init__(self, *, divisor):
        _check(divisor)
        self.divisor = divisor
        super().__init__({
            "i": In(stream.Signature(8)),
            "tx": Out(1, init=1),
        })

    def elaborate(self, platform):
        m = Module()

        timer = Signal(range(self.divisor), reset_less=True)
        # Data bits and the stop bit that are still to come after the bit on the line.
        left = Signal(range(11))
        bits = Signal(8, reset_less=True)
        m.d.comb += self.i.ready.eq(left == 0)
        with m.If(left == 0):
            m.d.sync += timer.eq(self.divisor - 1)
            with m.If(self.i.valid):
                m.d.sync += [self.tx.eq(0), bits.eq(self.i.payload), left.eq(10)]
        with m.Elif(timer == 0):
            m.d.sync += [
                timer.eq(self.divisor - 1),
                self.tx.eq(bits[0]),
                # The stop bit, and the line at rest, follow.
                bits.eq(Cat(bits[1:], 1)),
                left.eq(left - 1),
            ]
        with m.Else():
            m.d.sync += timer.eq(timer - 1)

        return m
