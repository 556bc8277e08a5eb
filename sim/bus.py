# SPDX-License-Identifier: BSD-2-Clause
"""Drives the accelerator behind its AXI4-Lite registers, on a compiled engine, with coverage.

The transfers on the bus depend on what was read before, so the bus is driven cycle by cycle; the
streams of operands and results run beside it as in `sim.run`.
"""

from pathlib import Path

import numpy as np

from golden import stimuli
from golden.accelerator.accelerator import execute, streams
from hw.bus.axi_accelerator import AxiAccelerator
from hw.bus.axi_lite import CHANNELS, QUEUE, Code, Response
from hw.tools.packing import from_words, length, to_words

from .accelerator import golden_config
from .engines import build, compiled
from .engines.protocol import (
    PERIOD,
    Deadlock,
    Pauses,
    ProtocolError,
    SimulationError,
    payload_shape,
    payload_width,
)
from .runner import mismatches

# Transfers on each channel of the bus, and cycles that one may take.
_MOST = 1 << 17
_PATIENCE = 100_000

_LARGEST = 2**16


def run(component: AxiAccelerator, rng: np.random.Generator, count: int, *, stalls: float,
        seed: int, coverage: Path) -> int:
    """Runs random commands through the registers and compares every result with golden.

    Between the commands, registers are read and written at random, also at addresses without a
    register and in some of their bytes only. Commands are written until the queue is full, and one
    more is refused. Registers that this does not know are read, but not written.

    Parameters
    ----------
    component : AxiAccelerator
    rng : Generator
    count : int
        Commands.
    stalls, seed, coverage
        As in `sim.run`.

    Returns
    -------
    int
        Transfers that were compared: results, statuses and what was read.

    Raises
    ------
    SimulationError
        If something is not as it must be, or nothing moves any more.
    """
    config = golden_config(component.config)
    commands = stimuli.products(rng, count, config, largest=_LARGEST) + stimuli.edges(rng, config)
    with np.errstate(all="ignore"):
        executed = execute(config, commands)
    inputs, expected = streams(config, commands, executed)
    codes = expected["o_status"].tolist()
    # The registers take these two streams.
    for stream in ("o_status", "o_misframed"):
        expected.pop(stream, None)
    del inputs["i_command"]
    with _Session(component, inputs, {name: length(rows) for name, rows in expected.items()},
                  stalls=stalls, seed=seed, coverage=coverage) as session:
        master = _Master(session, component, rng)
        # Commands that fail are among others that run.
        master.store("HALT_ON", 0)
        master.look_around(200)
        master.run(commands, codes)
        session.finish(expected)
        master.look_around(200)
        master.halt()
        wrong = sum(int(mismatches(session.outputs(name), rows).sum())
                    for name, rows in expected.items())
    if wrong:
        raise SimulationError(f"{wrong} transfers of {count} commands differ from golden's")
    return master.compared + sum(length(rows) for rows in expected.values())


class _Session:
    """A compiled component that runs a few cycles at a time.

    Parameters
    ----------
    component : wiring.Component
    inputs, counts
        Rows of the streams that run by themselves, and the payloads that are expected of them.
    stalls, seed, coverage
        As in `sim.run`.
    """

    def __init__(self, component, inputs, counts, *, stalls, seed, coverage):
        self.ports = {name: port for name, port in component.signature.members.items()
                      if port.is_signature}
        self.names = [name for flow in ("In", "Out") for name, port in self.ports.items()
                      if port.flow.name == flow]
        self.coverage = coverage
        try:
            self.library = compiled.load(component, build.COVERAGE)
        except build.BuildError as error:
            raise SimulationError(str(error)) from None
        pauses = Pauses(stalls, seed, self.ports)
        self.rows, self.pauses = {}, {}
        for name, port in self.ports.items():
            words = -(-payload_width(port) // 32)
            if name in inputs:
                self.rows[name] = to_words(payload_shape(port), inputs[name], name)
            else:
                self.rows[name] = np.zeros((counts.get(name, _MOST), words), np.uint32)
            self.pauses[name] = pauses[name]
        self.ends = (compiled.End * len(self.names))(*(
            compiled.End(rows=self.rows[name].ctypes.data, pauses=self.pauses[name],
                         # What the bus gives is appended as it comes.
                         total=0 if name in CHANNELS and name[0] == "i"
                         else len(self.rows[name])) for name in self.names))
        self.job = compiled.Job(latency=component.latency, patience=_PATIENCE, period=PERIOD,
                                first=-1)
        self.taken = {}
        self.places = {name: place for place, name in enumerate(self.names)}

    def __enter__(self):
        self.engine = self.library.start(self.ends, self.job)
        return self

    def __exit__(self, *error):
        if not error[0]:
            self.library.save(self.engine, self.coverage)
        self.library.stop(self.engine)

    def end(self, name):
        return self.ends[self.places[name]]

    def give(self, name, payload):
        """Appends a payload to an input of the bus."""
        end = self.end(name)
        words = to_words(payload_shape(self.ports[name]),
                         {field: np.array([value]) for field, value in payload.items()}, name)
        self.rows[name][end.total] = words[0]
        end.total += 1

    def take(self, name):
        """The next payload of an output of the bus; runs until it is there."""
        place = self.taken.get(name, 0)
        for _ in range(_PATIENCE):
            if self.end(name).done > place:
                self.taken[name] = place + 1
                row = from_words(payload_shape(self.ports[name]),
                                 self.rows[name][place: place + 1])
                return {field: int(value[0]) for field, value in row.items()}
            self.advance(1)
        raise Deadlock(f"{name} gave nothing in {_PATIENCE} cycles")

    def advance(self, cycles):
        match self.library.advance(self.engine, cycles):
            case self.library.DEADLOCK:
                raise Deadlock(f"No transfer for {_PATIENCE} cycles")
            case self.library.BROKEN | self.library.SURPLUS:
                sinks = [name for name, port in self.ports.items() if port.flow.name == "Out"]
                raise ProtocolError(f"{sinks[self.job.culprit]} broke the rules of streams")

    def finish(self, expected):
        """Runs until all results have come."""
        for _ in range(_PATIENCE):
            if all(self.end(name).done == self.end(name).total for name in expected):
                return
            self.advance(1)
        raise Deadlock("Results are outstanding: " + ", ".join(
            f"{name} gave {self.end(name).done} of {self.end(name).total}" for name in expected))

    def outputs(self, name):
        return from_words(payload_shape(self.ports[name]), self.rows[name])


class _Master:
    """Software at the bus."""

    WRITTEN = ("M", "K", "N", "INTERRUPT_MASK")

    def __init__(self, session, component, rng):
        self.session = session
        self.rng = rng
        self.table = {register.name: register for register in component.registers.registers}
        self.values = {name: self.table[name].reset for name in self.WRITTEN}
        self.compared = 0

    def expect(self, what, found, wanted):
        self.compared += 1
        if found != wanted:
            raise SimulationError(f"{what} must be {wanted:#x}, not {found:#x}")

    def write(self, address, data, strobe=0xF):
        """Writes, with address and data in any order; returns the response."""
        channels = [("i_aw", {"addr": address, "prot": int(self.rng.integers(8))}),
                    ("i_w", {"data": data, "strb": strobe})]
        if self.rng.random() < 0.5:
            channels.reverse()
        for channel, payload in channels:
            self.session.give(channel, payload)
            if (wait := int(self.rng.integers(-2, 4))) > 0:
                self.session.advance(wait)
        return self.session.take("o_b")["resp"]

    def read(self, address):
        """Reads; returns data and response."""
        self.session.give("i_ar", {"addr": address, "prot": int(self.rng.integers(8))})
        answer = self.session.take("o_r")
        return answer["data"], answer["resp"]

    def register(self, name):
        """Value of a register."""
        value, response = self.read(self.table[name].offset)
        self.expect(f"response to a read of {name}", response, Response.OKAY.value)
        return value

    def store(self, name, value):
        """Writes a register."""
        self.expect(f"response to a write of {name}",
                    self.write(self.table[name].offset, value), Response.OKAY.value)
        if name in self.values:
            self.values[name] = self.merged(name, value, 0xF)

    def merged(self, name, value, strobe):
        own = sum(field.mask for field in self.table[name].fields)
        mask = own & sum(0xFF << 8 * lane for lane in range(4) if strobe >> lane & 1)
        # What a constant 0 stands for is not stored either.
        return self.values[name] & ~mask | value & mask

    def look_around(self, count):
        """Reads and writes of registers at random, and where there is none."""
        by_offset = {register.offset: register for register in self.table.values()}
        for _ in range(count):
            address = int(self.rng.choice([*by_offset, *self.rng.integers(0, 1 << 12, 4)]))
            register = by_offset.get(address & ~3)
            if self.rng.random() < 0.5:
                self._read_anything(address, register)
            else:
                self._write_anything(address, register)

    def _read_anything(self, address, register):
        value, response = self.read(address)
        readable = register is not None and register.access != "wo"
        self.expect(f"response to a read of {address:#x}", response,
                    (Response.OKAY if readable else Response.SLVERR).value)
        if not readable:
            self.expect(f"data at {address:#x}", value, 0)
        elif register.name in self.values:
            self.expect(register.name, value, self.values[register.name])
        elif register.offset < self.table["M"].offset:
            self.expect(register.name, value, register.reset)

    def _write_anything(self, address, register):
        data, strobe = int(self.rng.integers(1 << 32)), int(self.rng.integers(16))
        if register is not None and register.name in self.values:
            self.expect(f"response to a write of {register.name}",
                        self.write(address, data, strobe), Response.OKAY.value)
            self.values[register.name] = self.merged(register.name, data, strobe)
        elif register is not None and register.name == "POP":
            # Nothing waits.
            self.expect("response to a write of POP", self.write(address, data, strobe),
                        Response.OKAY.value)
        elif register is not None and register.name == "COMMAND":
            self.expect("response to a write of COMMAND without byte 0",
                        self.write(address, data, strobe & ~1), Response.OKAY.value)
        elif register is None or register.access == "ro":
            self.expect(f"response to a write of {address:#x}",
                        self.write(address, data, strobe), Response.SLVERR.value)

    def run(self, commands, codes):
        """Runs commands, several on their way at a time, and compares how they end."""
        pending = self.table["INTERRUPT_PENDING"].fields
        events = {field.name: field.mask for field in pending}
        ended, written, failed = 0, 0, False
        while ended < len(commands):
            ahead = int(self.rng.integers(1, QUEUE + 1))
            while written < min(ended + ahead, len(commands)):
                self._start(commands[written])
                written += 1
            if written == ended + QUEUE:
                self.expect("response to a command too many",
                            self.write(self.table["COMMAND"].offset, 0),
                            Response.SLVERR.value)
            while not (result := self.register("RESULT")) >> 31:
                if self.rng.random() < 0.1:
                    self.register("CYCLES_LOW")
                    self.register("CYCLES_HIGH")
                    self.register("STATUS")
            self.expect(f"status of command {ended}", result & (1 << 31) - 1, codes[ended])
            self.store("POP", 0)
            self.store("POP", 1)
            failed |= bool(codes[ended])
            ended += 1
            if ended == written:
                self.expect("STATUS", self.register("STATUS"), QUEUE)
                self.expect("INTERRUPT_PENDING", self.register("INTERRUPT_PENDING"),
                            events["free"] | events["failed"] * failed)
                self.store("INTERRUPT_PENDING", events["failed"])
                failed = False
                self.look_around(4)

    def halt(self):
        """Halts the machine, which runs nothing; then the watchdog does, for want of operands.

        A command that is written while it halts is aborted.
        """
        one = {"m": 1, "k": 32, "n": 1, "source": 0, "result": 0}
        self.store("HALT", 1)
        self._start(one)
        self._ended(Code.ABORTED)
        self._resume()
        self.store("WATCHDOG", 200)
        self.expect("WATCHDOG", self.register("WATCHDOG"), 200)
        for _ in range(QUEUE):
            self._start(one)
        # The oldest has the reason; those behind it are aborted with it.
        for code in (Code.TIMEOUT, *(QUEUE - 1) * [Code.ABORTED]):
            self._ended(code)
        self._resume()

    def _ended(self, code):
        """Waits for the oldest command to end, and takes its result."""
        while not (result := self.register("RESULT")) >> 31:
            pass
        self.expect("code of a command without operands", result & (1 << 31) - 1, code.value)
        self.store("POP", 1)

    def _resume(self):
        status = {field.name: field.mask for field in self.table["STATUS"].fields}
        while not self.register("STATUS") & status["halted"]:
            pass
        self.store("HALT", 2)
        self.expect("STATUS", self.register("STATUS"), QUEUE)

    def _start(self, command):
        for name in "MKN":
            self.store(name, command[name.lower()])
        self.store("COMMAND", command["source"] | command["result"] << 4)
