# SPDX-License-Identifier: BSD-2-Clause
"""The top of a bitstream: clock, reset, pins, and the unit behind its serial line."""

from amaranth import ClockDomain, ClockSignal, Const, Elaboratable, Instance, Module, Mux, Signal
from amaranth.lib import io
from amaranth.lib.cdc import ResetSynchronizer

# Of Lattice's ECP5 family: limits of the phase detector and of the oscillator, in hertz.
_PFD = 3.125e6, 400e6
_VCO = 400e6, 800e6


def pll(source, wanted):
    """Dividers of an ECP5's PLL whose output comes nearest to a frequency from below.

    Parameters
    ----------
    source, wanted : float
        In hertz.

    Returns
    -------
    tuple of (float, int, int, int)
        The frequency; the dividers of input, feedback and output.

    Raises
    ------
    ValueError
        If there are none.
    """
    found = [(source * feedback / divider, divider, feedback, output)
             for divider in range(1, 129) if _PFD[0] <= source / divider <= _PFD[1]
             for feedback in range(1, 81) if source * feedback / divider <= wanted * 1.0000001
             for output in range(1, 129)
             if _VCO[0] <= source * feedback / divider * output <= _VCO[1]]
    if not found:
        raise ValueError(f"a PLL must be able to make {wanted / 1e6:g} MHz from "
                         f"{source / 1e6:g} MHz, at least 3.125 MHz")
    # Of equal frequencies the one with the fastest phase detector.
    return max(found, key=lambda choice: (choice[0], -choice[1], -abs(choice[0] * choice[3] - 6e8)))


def clock(family, source, wanted):
    """The frequency of the unit's clock on a board, and how it is made.

    Parameters
    ----------
    family : str
        ``ecp5`` or ``ice40``.
    source, wanted : float
        Frequency of the board's clock, and the most that is wanted, in hertz.

    Returns
    -------
    tuple of (float, tuple or int or None)
        The frequency, and the PLL's dividers, or the exponent of a division by a power of two, or
        None for the board's clock itself.
    """
    if source <= wanted * 1.0000001:
        return source, None
    if family == "ecp5":
        frequency, *dividers = pll(source, wanted)
        return frequency, tuple(dividers)
    exponent = 1
    while source / 2**exponent > wanted * 1.0000001:
        exponent += 1
    return source / 2**exponent, exponent


class Clock(Elaboratable):
    """Drives the ``sync`` domain from a board's clock, which the ``board`` domain is.

    Parameters
    ----------
    family : str
    frequency : float
        In hertz.
    how : tuple, int or None
        From `clock`.
    """

    def __init__(self, family, frequency, how):
        self.family = family
        self.frequency = frequency
        self.how = how

    def elaborate(self, platform):
        m = Module()

        m.submodules.pin = pin = io.Buffer("i", platform.request(platform.default_clk, dir="-"))
        reset = Const(0)
        if platform.default_rst is not None:
            m.submodules.button = button = io.Buffer(
                "i", platform.request(platform.default_rst, dir="-"))
            reset = button.i
        m.d.comb += ClockSignal("board").eq(pin.i)
        if self.family == "ecp5":
            unlocked = self._pll(m, pin.i)
        else:
            unlocked = self._divider(m, platform, pin.i)
        m.submodules.reset = ResetSynchronizer(reset | unlocked, domain="sync")

        return m

    def _pll(self, m, source):
        """Gives the clock through a PLL; returns whether it is not locked yet."""
        if self.how is None:
            m.d.comb += ClockSignal("sync").eq(source)
            return Const(0)
        divider, feedback, output = self.how
        clock = Signal()
        locked = Signal()
        m.submodules.pll = Instance(
            "EHXPLLL", a_FREQUENCY_PIN_CLKOP=f"{self.frequency / 1e6:g}",
            p_CLKI_DIV=divider, p_CLKFB_DIV=feedback, p_CLKOP_DIV=output,
            p_CLKOP_ENABLE="ENABLED", p_CLKOP_CPHASE=output - 1, p_FEEDBK_PATH="CLKOP",
            i_CLKI=source, i_CLKFB=clock, i_RST=0, i_STDBY=0, o_CLKOP=clock, o_LOCK=locked)
        m.d.comb += ClockSignal("sync").eq(clock)
        return ~locked

    def _divider(self, m, platform, source):
        """Divides the clock; returns whether the memories are not there yet.

        Memories of the iCE40 read as zeros for some microseconds after configuration.
        """
        count = Signal(10)
        over = Signal()
        m.d.comb += over.eq(count.all())
        m.d.board += count.eq(Mux(over, count, count + 1))
        if self.how is None:
            m.d.comb += ClockSignal("sync").eq(source)
            return ~over
        divided = Signal(self.how)
        clock = Signal()
        m.d.board += divided.eq(divided + 1)
        m.submodules.buffer = Instance("SB_GB", i_USER_SIGNAL_TO_GLOBAL_BUFFER=divided[-1],
                                       o_GLOBAL_BUFFER_OUTPUT=clock)
        platform.add_clock_constraint(clock, self.frequency)
        m.d.comb += ClockSignal("sync").eq(clock)
        return ~over


class Top(Elaboratable):
    """A unit behind the serial line of a board.

    Parameters
    ----------
    clock : Clock
    link : hw.bus.uart_link.UartLink
    """

    def __init__(self, clock, link):
        self.clock = clock
        self.link = link

    def elaborate(self, platform):
        m = Module()

        m.domains.board = ClockDomain("board", reset_less=True)
        m.domains.sync = ClockDomain("sync")
        m.submodules.clock = self.clock
        m.submodules.link = self.link
        pins = platform.request("uart", dir={
            io_.name: "-" for io_ in platform.lookup("uart").ios})
        m.submodules.rx = rx = io.Buffer("i", pins.rx)
        m.submodules.tx = tx = io.Buffer("o", pins.tx)
        m.d.comb += [self.link.rx.eq(rx.i), tx.o.eq(self.link.tx)]

        return m
