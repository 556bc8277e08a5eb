# SPDX-License-Identifier: BSD-2-Clause
"""Serial lines to a board, real and simulated, for `sim.link.Link`."""

import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
from amaranth import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from golden.command import Failure
from hw.bus.uart import UartReceiver, UartTransmitter
from hw.bus.uart_link import UartLink

from .engines import build, compiled
from .engines.protocol import PERIOD


class LineError(Failure):
    """The line cannot be opened, or failed; the text is one line for the user."""


class Wire(wiring.Component):
    """A board with the host's UART in front of it: bytes outside, the levels of two wires inside.

    Parameters
    ----------
    link : hw.bus.uart_link.UartLink

    Members
    -------
    i : In(stream.Signature(8))
        Bytes to the board.
    o : Out(stream.Signature(8, always_ready=True))
        Bytes from the board.
    """

    flat = True

    def __init__(self, link: UartLink) -> None:
        self.link = link
        self.latency = link.latency + 20 * link.divisor
        super().__init__({
            "i": In(stream.Signature(8)),
            "o": Out(stream.Signature(8, always_ready=True)),
        })

    def elaborate(self, platform: Any) -> Module:
        """Connects the two UARTs and the board."""
        m = Module()

        m.submodules.link = self.link
        m.submodules.sender = sender = UartTransmitter(divisor=self.link.divisor)
        m.submodules.receiver = receiver = UartReceiver(divisor=self.link.divisor)
        wiring.connect(m, wiring.flipped(self.i), sender.i)
        wiring.connect(m, receiver.o, wiring.flipped(self.o))
        m.d.comb += [self.link.rx.eq(sender.tx), receiver.rx.eq(self.link.tx)]

        return m


class SimulatedLine:
    """The line to a simulated board, cycle by cycle on both wires.

    Parameters
    ----------
    link : hw.bus.uart_link.UartLink
    baud : int
        Rate that ``now`` assumes.
    engine : str
        As `sim.run` takes it; "auto" compiles if it can.
    noise : callable, optional
        Takes bytes on their way in either direction and returns those that arrive.

    Attributes
    ----------
    engine : str
        The engine that runs.
    late : float
        Seconds that an answer may take beyond its time on the line.
    """

    # Bytes on the line between two looks of the host.
    STEP = 8

    late = 0.0

    def __init__(self, link: UartLink, *, baud: int, engine: str = "auto",
                 noise: Callable[[bytes], bytes] | None = None) -> None:
        self.engine = build.preferred(engine)
        self._per_second = baud * link.divisor
        self._cycles = self.STEP * 10 * link.divisor
        self._noise = noise or bytes
        wire = Wire(link)
        if self.engine == "amaranth":
            self._run: Any = _Simulated(wire)
        else:
            try:
                self._run = _Compiled(compiled.load(wire, self.engine))
            except build.BuildError as error:
                raise LineError(str(error)) from None

    @property
    def now(self) -> float:
        """Seconds at the rate of the line."""
        return self._run.cycle / self._per_second

    @property
    def waiting(self) -> int:
        """Bytes that are still to go onto the line."""
        return self._run.waiting

    def exchange(self, data: bytes) -> bytes:
        """Sends bytes and lets a short time pass; returns the bytes that came in it."""
        self._run.put(self._noise(data))
        return self._noise(self._run.advance(self._cycles))

    def close(self) -> None:
        """Ends the simulation."""
        self._run.close()


class _Compiled:
    """A `Wire` in a compiled library."""

    SIZE = 1 << 14

    def __init__(self, library):
        self._library = library
        self._given = np.zeros(self.SIZE, np.uint32)
        self._taken = np.zeros(self.SIZE, np.uint32)
        # The end of a run is that all payloads have come, which is never.
        self._ends = (compiled.End * 2)(
            compiled.End(rows=self._given.ctypes.data, pauses=bytes(PERIOD), total=0),
            compiled.End(rows=self._taken.ctypes.data, pauses=bytes(PERIOD), total=self.SIZE + 1))
        self._job = compiled.Job(latency=1, patience=1 << 62, period=PERIOD, first=-1)
        self._pending = bytearray()
        self._engine = library.start(self._ends, self._job)

    @property
    def cycle(self):
        return self._job.cycle

    @property
    def waiting(self):
        source = self._ends[0]
        return len(self._pending) + source.total - source.done

    def put(self, data):
        self._pending += data

    def advance(self, cycles):
        source, sink = self._ends
        if source.done == source.total:
            source.done = source.total = 0
        count = min(len(self._pending), self.SIZE - source.total)
        self._given[source.total : source.total + count] = np.frombuffer(
            bytes(self._pending[:count]), np.uint8)
        del self._pending[:count]
        source.total += count
        sink.done = 0
        self._library.advance(self._engine, cycles)
        return self._taken[: sink.done].astype(np.uint8).tobytes()

    def close(self):
        self._library.stop(self._engine)


class _Simulated:
    """A `Wire` on Amaranth's simulator."""

    def __init__(self, wire):
        self._wire = wire
        self._pending = bytearray()
        self._taken = bytearray()
        self.cycle = 0
        self._simulator = Simulator(wire)
        self._simulator.add_clock(1e-6)
        self._simulator.add_testbench(self._bench, background=True)

    @property
    def waiting(self):
        return len(self._pending)

    def put(self, data):
        self._pending += data

    async def _bench(self, ctx):
        i, o = self._wire.i, self._wire.o
        while True:
            ctx.set(i.valid, bool(self._pending))
            if self._pending:
                ctx.set(i.payload, self._pending[0])
            _, _, ready, valid, payload = await ctx.tick().sample(i.ready, o.valid, o.payload)
            self.cycle += 1
            if ready and self._pending:
                del self._pending[0]
            if valid:
                self._taken.append(payload)

    def advance(self, cycles):
        end = self.cycle + cycles
        while self.cycle < end:
            self._simulator.advance()
        taken = bytes(self._taken)
        self._taken.clear()
        return taken

    def close(self):
        pass


class SerialLine:
    """A serial port.

    Parameters
    ----------
    port : str
        Name of the port, or a URL that pyserial knows.
    baud : int

    Raises
    ------
    LineError
        If pyserial is not installed, or the port cannot be opened.
    """

    late = 0.1

    # Seconds in which a byte may come before the host looks at what it has to send.
    PATIENCE = 0.002

    def __init__(self, port: str, baud: int) -> None:
        if not find_spec("serial"):
            raise LineError("serial ports need pyserial: pip install 'm2xfp-rtl[boards]'")
        import serial
        self.engine = port
        self._port = port
        self._error = serial.SerialException
        try:
            self._serial = serial.serial_for_url(port, baudrate=baud, timeout=self.PATIENCE)
            self._serial.reset_input_buffer()
        except (serial.SerialException, ValueError, OSError) as error:
            raise LineError(f"cannot open PORT {port}: {error}") from None

    @property
    def now(self) -> float:
        """Seconds of a clock that only goes forward."""
        return time.monotonic()

    @property
    def waiting(self) -> int:
        """Bytes that the port has not sent yet, as far as it tells."""
        try:
            return self._serial.out_waiting
        except (AttributeError, OSError):
            return 0

    def exchange(self, data: bytes) -> bytes:
        """Sends bytes; returns the bytes that have come, after a short wait if there are none."""
        try:
            if data:
                self._serial.write(data)
            return self._serial.read(max(1, self._serial.in_waiting))
        except (self._error, OSError) as error:
            raise LineError(f"PORT {self._port} failed: {error}") from None

    def close(self) -> None:
        """Closes the port."""
        self._serial.close()


class Noise:
    """Damages, drops or doubles bytes at random.

    Parameters
    ----------
    probability : float
        Of each byte.
    seed : int

    Attributes
    ----------
    count : int
        Bytes that were damaged, dropped or doubled.
    """

    def __init__(self, probability: float, seed: int) -> None:
        self.probability = probability
        self.count = 0
        self._rng = np.random.default_rng(seed)

    def __call__(self, data: bytes) -> bytes:
        """Returns the bytes that arrive."""
        hit = np.flatnonzero(self._rng.random(len(data)) < self.probability)
        if not len(hit):
            return data
        self.count += len(hit)
        pieces = [bytes([byte]) for byte in data]
        for place in hit.tolist():
            kind, bit = self._rng.integers(3), self._rng.integers(8)
            byte = data[place]
            pieces[place] = (b"", bytes([byte, byte]), bytes([byte ^ 1 << int(bit)]))[int(kind)]
        return b"".join(pieces)
