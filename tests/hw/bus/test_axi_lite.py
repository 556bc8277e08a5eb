# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""Registers on AXI4-Lite: the bus, the registers, the C header, and products by register."""

import dataclasses
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from amaranth import Fragment

import sim
from golden import quantize_activations, quantize_weights
from golden.accelerator.accelerator import execute, streams
from hw.accelerator.config import CONFIGS
from hw.accelerator.planner import Result, Source, Status
from hw.bus.axi_accelerator import AxiAccelerator
from hw.bus.axi_lite import ADDRESS, QUEUE, CommandRegisters, register_map
from hw.bus.register_map import Field, Register, RegisterMap
from hw.verilog import emit, equivalence
from tests.support.axi_bus import Bus, RegisterStreams, simulate

OKAY, SLVERR = 0, 2

# Written out here once more, so that the table cannot change unnoticed.
ID, VERSION, CONFIG, ACTIVATIONS, WEIGHTS, ROWS = 0x00, 0x04, 0x08, 0x0C, 0x10, 0x14
M, K, N, COMMAND, STATUS, RESULT, POP = 0x20, 0x24, 0x28, 0x2C, 0x30, 0x34, 0x38
CYCLES_LOW, CYCLES_HIGH, PENDING, MASK = 0x40, 0x44, 0x48, 0x4C
HALT, HALT_ON, WATCHDOG = 0x50, 0x54, 0x58
DONE, FREE, FAILED, MISFRAMED = 1, 2, 4, 8
ALL = (ID, VERSION, CONFIG, ACTIVATIONS, WEIGHTS, ROWS, M, K, N, COMMAND, STATUS, RESULT, POP,
       CYCLES_LOW, CYCLES_HIGH, PENDING, MASK, HALT, HALT_ON, WATCHDOG)
HALTING, HALTED = 1 << 24, 1 << 25
FAILED_HALTS, MARK_HALTS = 1, 2
ABORTED, TIMEOUT, BAD_MARK = 6, 7, 14
CONSTANTS = {ID: 0x4D325846, VERSION: 0x00010005,
             CONFIG: 32 | 4 << 8 | 1 << 16 | 1 << 18, ACTIVATIONS: 64, WEIGHTS: 64, ROWS: 16}


class Model:
    """What `CommandRegisters` of configuration tiny does, transfer by transfer."""

    def __init__(self):
        self.sizes = {M: 0, K: 0, N: 0}
        self.commands = []
        self.running = 0
        self.codes = []
        self.failed = False
        self.mask = 0
        self.halt_on = 3
        self.watchdog = 0
        self.halting = False
        self.rest = False

    def write(self, address, data, strobe):
        address &= ~3
        if address in self.sizes:
            mask = sum(0xFF << 8 * i for i in range(4) if strobe >> i & 1) & 0xFFFFF
            self.sizes[address] = self.sizes[address] & ~mask | data & mask
        elif address == COMMAND and strobe & 1:
            if self.running + len(self.codes) == QUEUE:
                return SLVERR
            self.running += 1
            self.commands.append((*self.sizes.values(), data & 3, data >> 4 & 3))
            if self.halting:
                self.end(ABORTED)
        elif address == POP and strobe & 1 and data & 1:
            self.codes = self.codes[1:]
        elif address == PENDING and strobe & 1 and data & FAILED:
            self.failed = False
        elif address == MASK and strobe & 1:
            self.mask = data & (DONE | FREE | FAILED | MISFRAMED)
        elif address == HALT_ON and strobe & 1:
            self.halt_on = data & 3
        elif address == WATCHDOG:
            mask = sum(0xFF << 8 * i for i in range(4) if strobe >> i & 1)
            self.watchdog = self.watchdog & ~mask | data & mask
        elif address == HALT and strobe & data & 1:
            self.halt()
        elif address == HALT and strobe & 1 and data & 2 and self.halting:
            if not self.halted:
                return SLVERR
            self.halting = False
        return OKAY if address in (*self.sizes, COMMAND, POP, PENDING, MASK, HALT, HALT_ON,
                                   WATCHDOG) else SLVERR

    def end(self, code):
        self.running -= 1
        self.codes.append(code)
        self.failed |= code != 0
        if code and self.halt_on & 1:
            self.halt()

    def halt(self):
        self.halting = True
        while self.running:
            self.end(ABORTED)

    @property
    def halted(self):
        return self.halting and self.rest

    @property
    def pending(self):
        free = self.running + len(self.codes) < QUEUE
        return DONE * bool(self.codes) | FREE * free | FAILED * self.failed

    @property
    def interrupt(self):
        return bool(self.pending & self.mask)

    def read(self, address):
        address &= ~3
        values = CONSTANTS | self.sizes | {
            STATUS: QUEUE - self.running - len(self.codes) | self.running << 8
            | len(self.codes) << 16 | HALTING * self.halting | HALTED * self.halted,
            RESULT: (1 << 31 | self.codes[0]) if self.codes else 0,
            PENDING: self.pending, MASK: self.mask, HALT_ON: self.halt_on,
            WATCHDOG: self.watchdog}
        return (values[address], OKAY) if address in values else (0, SLVERR)


def registers():
    return CommandRegisters(CONFIGS["tiny"])


def simulate_with_line(component, *benches):
    """Runs testbenches; in every cycle the interrupt line must be what the registers say."""
    fragment = Fragment.get(component, None)
    words = {signal.name: signal for statement in fragment.statements["comb"]
             for signal in statement._lhs_signals()}
    pending, mask = (words[f"interrupt_{name}"] for name in ("pending", "mask"))
    seen = set()

    async def line(ctx):
        while True:
            *_, events, enabled, level = await ctx.tick().sample(pending, mask, component.o_irq)
            assert level == ((events & enabled) != 0)
            seen.add(level)

    simulate(fragment, *benches, line)
    assert seen == {0, 1}


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long)
                                       for seed in (1, 2))])
def test_random_transfers(seed):
    component = registers()
    rng = np.random.default_rng(seed)
    model = Model()
    # Reads and writes, in the same words more often than not, and whether they met what is rare.
    met = {"full": 0, "partial": 0, "unmapped": 0, "popped": 0, "cleared": 0, "raised": 0,
           "lowered": 0, "halted": 0, "refused": 0, "resumed": 0}

    async def bench(ctx):
        bus = Bus(ctx, component, rng)
        before = False
        # Nothing times out.
        ctx.set(component.i_moved, 1)
        for _ in range(800):
            kind = rng.integers(4)
            halting, ended = model.halting, len(model.codes)
            if rng.random() < 0.3:
                model.rest = not model.rest
                ctx.set(component.i_rest, model.rest)
            address = int(rng.choice(ALL)) + int(rng.integers(4)) if rng.random() < 0.9 \
                else int(rng.integers(1 << ADDRESS))
            if kind == 0:
                # The command that the machine has had longest ends.
                if model.running:
                    code = int(rng.integers(6)) * (rng.random() < 0.5)
                    await bus.pause()
                    ctx.set(component.i_status.payload, code)
                    ctx.set(component.i_status.valid, 1)
                    await ctx.tick().until(component.i_status.ready)
                    ctx.set(component.i_status.valid, 0)
                    model.end(code)
            elif kind == 1:
                if address & ~3 not in (CYCLES_LOW, CYCLES_HIGH):
                    assert await bus.read(address) == model.read(address), hex(address)
                    met["unmapped"] += address >= 0x5C
            else:
                if rng.random() < 0.7:
                    address = int(rng.choice([COMMAND, POP, PENDING, MASK, HALT, HALT_ON],
                                             p=(.3, .2, .2, .2, .05, .05)))
                data, strobe = int(rng.integers(1 << 32)), int(rng.integers(16))
                if model.halting and rng.random() < 0.3:
                    address = HALT
                if address == HALT and rng.random() < 0.8:
                    data, strobe = 1 + model.halting, 1
                order = ("aw, w", "w, aw")[rng.integers(2)]
                codes, failed = len(model.codes), model.failed
                expected = model.write(address, data, strobe)
                assert await bus.write(address, data, strobe=strobe, order=order) == expected
                met["full"] += address == COMMAND and expected == SLVERR
                met["partial"] += address & ~3 in (M, K, N) and strobe not in (0, 15)
                met["popped"] += len(model.codes) < codes
                met["cleared"] += model.failed < failed
                met["refused"] += address == HALT and expected == SLVERR
                met["resumed"] += model.halting < halting
            if model.halting and len(model.codes) > ended:
                # Commands leave, and end.
                await ctx.tick().repeat(8 * (len(model.codes) - ended))
            met["halted"] += halting < model.halting
            assert ctx.get(component.o_irq) == model.interrupt
            met["raised"] += before < model.interrupt
            met["lowered"] += before > model.interrupt
            before = model.interrupt
        for address in (M, K, N, STATUS, RESULT, PENDING, MASK, HALT_ON, WATCHDOG):
            assert await bus.read(address) == model.read(address)
        # Commands on their way have time to leave.
        for _ in range(100):
            await ctx.tick()

    taken = []

    async def machine(ctx):
        slow, fast = Bus(ctx, component, np.random.default_rng(seed + 100)), Bus(ctx, component)
        while True:
            await slow.pause()
            command = await (fast if ctx.get(component.o_halt) else slow).receive("o_command")
            taken.append(tuple(command[name] for name in ("m", "k", "n", "source", "result")))

    simulate_with_line(component, bench, machine)
    assert taken == model.commands and len(taken) > 12
    assert not [name for name, count in met.items() if count < 5], met


def test_streams_stall_at_random():
    """Addresses and data are offered independently of each other and of the answers."""
    rng = np.random.default_rng(5)
    model = Model()
    writes = {"addr": rng.choice([M, K, N, ID, 0x100], 200), "prot": rng.integers(0, 8, 200)}
    # Four commands fit; statuses are for these only.
    writes["addr"][[20, 40, 60, 80, 100]] = COMMAND
    data = {"data": rng.integers(0, 1 << 32, 200), "strb": rng.integers(0, 16, 200)}
    data["strb"][[20, 40, 60, 80, 100]] = 0b0001
    reads = {"addr": rng.choice([*CONSTANTS, COMMAND, POP, 0xFFC], 150),
             "prot": rng.integers(0, 8, 150)}
    answers = [model.write(int(a), int(d), int(s))
               for a, d, s in zip(writes["addr"], data["data"], data["strb"], strict=True)]
    expected = np.array([model.read(int(address)) for address in reads["addr"]])
    assert answers[100] == SLVERR and len(model.commands) == QUEUE
    for stalls in (0, 0.3, 0.7):
        outputs = sim.run(
            RegisterStreams(CONFIGS["tiny"]), {
                "i_aw": writes, "i_w": data, "i_ar": reads, "i_status": np.zeros(QUEUE, np.uint8)},
            outputs={"o_b": 200, "o_r": 150, "o_command": QUEUE}, stalls=stalls, seed=1)
        assert outputs["o_b"]["resp"].tolist() == answers
        np.testing.assert_array_equal(outputs["o_r"]["data"], expected[:, 0])
        np.testing.assert_array_equal(outputs["o_r"]["resp"], expected[:, 1])
        commands = zip(*(outputs["o_command"][name].tolist()
                         for name in ("m", "k", "n", "source", "result")), strict=True)
        assert [*commands] == model.commands


def test_timing():
    """Latencies as documented; valid waits for no ready, and nothing is answered early."""
    component = registers()

    async def bench(ctx):
        async def cycles_until(signal):
            count = 0
            while not ctx.get(signal):
                await ctx.tick()
                count += 1
                assert count < 20
            return count

        bus = Bus(ctx, component)
        # Data alone waits for its address, without an answer.
        await bus.send("i_w", data=1, strb=1)
        for _ in range(5):
            await ctx.tick()
        assert not ctx.get(component.o_b.valid)
        await bus.send("i_aw", addr=COMMAND)
        # `send` ends a cycle after the transfer.
        assert 1 + await cycles_until(component.o_command.valid) == component.latency == 2
        assert ctx.get(component.o_b.valid)
        # The next write has both of its parts, but is not done before this one is answered.
        await bus.send("i_aw", addr=M)
        await bus.send("i_w", data=77, strb=15)
        assert not ctx.get(component.i_aw.ready) and not ctx.get(component.i_w.ready)
        assert await bus.read(M) == (0, OKAY)
        assert (await bus.receive("o_b")).resp.value == OKAY
        assert (await bus.receive("o_b")).resp.value == OKAY
        assert await bus.read(M) == (77, OKAY)
        await bus.send("i_ar", addr=ID)
        assert await cycles_until(component.o_r.valid) == 0
        for _ in range(5):
            assert not ctx.get(component.i_ar.ready)
            await ctx.tick()

    simulate(component, bench)


def test_no_more_commands_than_places():
    component = registers()

    async def bench(ctx):
        bus = Bus(ctx, component)
        assert await bus.write(HALT_ON, 0) == OKAY
        for n in range(QUEUE):
            assert await bus.read(STATUS) == (QUEUE - n | n << 8, OKAY)
            assert await bus.write(COMMAND, n & 3) == OKAY
        assert await bus.write(COMMAND, 0) == SLVERR
        # Without byte 0 there is no command, so nothing to refuse.
        assert await bus.write(COMMAND, 0, strobe=0b1110) == OKAY
        # One that has left and has ended keeps its place until its result is popped.
        assert await out(bus) == 0
        ctx.set(component.i_status.payload, Status.NOT_KEPT)
        ctx.set(component.i_status.valid, 1)
        await ctx.tick()
        ctx.set(component.i_status.valid, 0)
        assert await bus.read(STATUS) == (QUEUE - 1 << 8 | 1 << 16, OKAY)
        assert await bus.write(COMMAND, 0) == SLVERR
        assert await bus.read(RESULT) == (1 << 31 | Status.NOT_KEPT.value, OKAY)
        for data, strobe in ((0, 15), (1, 0b1110), (2, 15)):
            assert await bus.write(POP, data, strobe=strobe) == OKAY
            assert await bus.read(RESULT) == (1 << 31 | Status.NOT_KEPT.value, OKAY)
        assert await bus.write(POP, 1) == OKAY
        assert await bus.read(RESULT) == (0, OKAY)
        assert await bus.write(POP, 1) == OKAY
        assert await bus.read(STATUS) == (1 | QUEUE - 1 << 8, OKAY)
        assert await bus.write(COMMAND, 2) == OKAY
        assert [await out(bus) for _ in range(QUEUE)] == [1, 2, 3, 2]
        assert not ctx.get(component.o_command.valid)

    async def out(bus):
        return (await bus.receive("o_command")).source

    simulate(component, bench)


def test_status_waits_for_a_command():
    component = registers()

    async def bench(ctx):
        ctx.set(component.i_status.payload, Status.NOT_KEPT)
        ctx.set(component.i_status.valid, 1)
        for _ in range(5):
            assert not ctx.get(component.i_status.ready)
            await ctx.tick()
        bus = Bus(ctx, component)
        assert await bus.write(HALT_ON, 0) == OKAY
        assert await bus.read(PENDING) == (FREE, OKAY)
        assert await bus.write(COMMAND, 0) == OKAY
        assert await bus.read(STATUS) == (QUEUE - 1 | 1 << 8, OKAY)
        assert not ctx.get(component.i_status.ready)
        await bus.receive("o_command")
        await ctx.tick()
        assert await bus.read(STATUS) == (QUEUE - 1 | 1 << 16, OKAY)
        assert not ctx.get(component.i_status.ready)

    simulate(component, bench)


def test_interrupt():
    """Each event raises the line if its bit of the mask is 1, and only then."""
    component = registers()

    async def bench(ctx):
        async def line():
            return ctx.get(component.o_irq)

        async def end(code):
            ctx.set(component.i_status.payload, code)
            ctx.set(component.i_status.valid, 1)
            await ctx.tick().until(component.i_status.ready)
            ctx.set(component.i_status.valid, 0)

        bus = Bus(ctx, component)
        assert await bus.write(HALT_ON, 0) == OKAY
        ctx.set(component.o_command.ready, 1)
        # Nothing is masked in, though `free` is pending from reset on.
        assert await bus.read(PENDING) == (FREE, OKAY) and not await line()
        assert await bus.write(MASK, 0xFFFFFFFF) == OKAY
        assert await bus.read(MASK) == (DONE | FREE | FAILED | MISFRAMED, OKAY) and await line()
        assert await bus.write(MASK, FREE) == OKAY
        for _ in range(QUEUE):
            assert await bus.read(PENDING) == (FREE, OKAY) and await line()
            assert await bus.write(COMMAND, 0) == OKAY
        assert await bus.read(PENDING) == (0, OKAY) and not await line()
        # There is nothing to pop, and so nothing becomes free.
        assert await bus.write(MASK, FREE | DONE) == OKAY
        assert await bus.write(POP, 1) == OKAY and not await line()
        assert await bus.write(MASK, DONE | FAILED) == OKAY and not await line()

        # A result: a level that only POP takes back.
        await end(Status.DONE)
        assert ctx.get(component.o_irq)
        assert await bus.read(PENDING) == (DONE, OKAY)
        assert await bus.write(PENDING, DONE) == OKAY and await line()
        assert await bus.write(MASK, FAILED) == OKAY and not await line()
        assert await bus.write(MASK, DONE | FAILED) == OKAY and await line()
        assert await bus.write(POP, 1) == OKAY and not await line()
        assert await bus.read(PENDING) == (FREE, OKAY)

        # A failure stays, also when its result is popped, until a 1 in byte 0 clears it.
        await end(Status.TOO_LARGE)
        assert await bus.write(POP, 1) == OKAY and await line()
        for data, strobe in ((~FAILED & 0xFFFFFFFF, 15), (FAILED, 0b1110)):
            assert await bus.write(PENDING, data, strobe=strobe) == OKAY
            assert await bus.read(PENDING) == (FREE | FAILED, OKAY) and await line()
        assert await bus.write(PENDING, FAILED) == OKAY and not await line()
        assert await bus.read(PENDING) == (FREE, OKAY)

        # One that comes in the very cycle of the clear is not lost.
        await end(Status.BAD_SIZE)
        ctx.set(component.i_status.payload, Status.BAD_SIZE)
        await bus.send("i_aw", addr=PENDING)
        await bus.send("i_w", data=FAILED, strb=1)
        ctx.set(component.i_status.valid, 1)
        await ctx.tick()
        ctx.set(component.i_status.valid, 0)
        assert (await bus.receive("o_b")).resp.value == OKAY
        assert await bus.read(PENDING) == (DONE | FREE | FAILED, OKAY)

    simulate_with_line(component, bench)


@pytest.mark.parametrize("number, encoding", [*enumerate(("elem-em", "sg-em", "sg-special",
                                                          "sg-special64"))])
def test_encoding(number, encoding):
    """CONFIG says it, and that there is no engine for it."""
    config = dataclasses.replace(CONFIGS["tiny"], encoding=encoding, input=None)
    register, = (one for one in register_map(config).registers if one.name == "CONFIG")
    reset = {field.name: field.reset for field in register.fields}
    assert (reset["encoding"], reset["input"], reset["quantizes"]) == (number, 0, number == 0)


@pytest.mark.parametrize("number, engine, columns", [
    (1, "sg-threshold", 32), (2, "sg-em", 32), (3, "sg-special", 32), (4, "sg-special64", 64)])
def test_engine(number, engine, columns):
    """CONFIG says which engine there is, and that it quantizes rows of a group."""
    encoding = engine if engine in ("sg-special", "sg-special64") else "sg-em"
    config = dataclasses.replace(CONFIGS["tiny"], encoding=encoding, engine=engine,
                                 columns=columns)
    register, = (one for one in register_map(config).registers if one.name == "CONFIG")
    reset = {field.name: field.reset for field in register.fields}
    assert (reset["engine"], reset["input"], reset["quantizes"]) == (number, 1, 1)
    assert reset["columns"] == columns


def test_misframed():
    """A wrong mark of an operand is an event like a failure, where operands have marks."""
    config = dataclasses.replace(CONFIGS["tiny"], framed=True)
    component = CommandRegisters(config)

    async def bench(ctx):
        bus = Bus(ctx, component)
        assert await bus.read(CONFIG) == (CONSTANTS[CONFIG] | 1 << 19, OKAY)
        assert await bus.write(HALT_ON, FAILED_HALTS) == OKAY
        assert await bus.write(MASK, MISFRAMED) == OKAY
        for name in ("weight", "activation"):
            ctx.set(component.i_misframed.payload, {name: 1})
            await ctx.tick().repeat(3)
            assert not ctx.get(component.o_irq)
            ctx.set(component.i_misframed.valid, 1)
            await ctx.tick()
            ctx.set(component.i_misframed.valid, 0)
            await ctx.tick().repeat(3)
            assert ctx.get(component.o_irq)
            assert await bus.read(PENDING) == (FREE | MISFRAMED, OKAY)
            assert await bus.write(PENDING, FAILED) == OKAY
            assert await bus.read(PENDING) == (FREE | MISFRAMED, OKAY)
            assert await bus.write(PENDING, MISFRAMED) == OKAY
            assert await bus.read(PENDING) == (FREE, OKAY)

    simulate_with_line(component, bench)


def test_causes_of_a_halt():
    """What halts the machine, the codes that commands then get, and to the cycle when."""
    component = CommandRegisters(dataclasses.replace(CONFIGS["tiny"], framed=True))

    async def bench(ctx):
        bus = Bus(ctx, component)

        async def begin(count=2):
            for _ in range(count):
                assert await bus.write(COMMAND, 0) == OKAY

        async def ended(*codes):
            """The codes of all commands; the machine then rests and goes on."""
            await ctx.tick().repeat(10)
            assert await bus.read(STATUS) == (
                QUEUE - len(codes) | len(codes) << 16 | HALTING, OKAY)
            assert await bus.write(HALT, 2) == SLVERR
            for code in codes:
                assert await bus.read(RESULT) == (1 << 31 | code, OKAY)
                assert await bus.write(POP, 1) == OKAY
            # A command of a machine that halts ends, and later than those before.
            await begin(1)
            await ctx.tick().repeat(5)
            assert await bus.read(RESULT) == (1 << 31 | ABORTED, OKAY)
            assert await bus.write(POP, 1) == OKAY
            ctx.set(component.i_rest, 1)
            assert await bus.read(STATUS) == (QUEUE | HALTING | HALTED, OKAY)
            assert await bus.write(HALT, 2, strobe=0b1110) == OKAY and ctx.get(component.o_halt)
            assert await bus.write(HALT, 3) == OKAY and ctx.get(component.o_halt)
            assert await bus.write(HALT, 2) == OKAY and not ctx.get(component.o_halt)
            assert await bus.write(PENDING, FAILED | MISFRAMED) == OKAY
            ctx.set(component.i_rest, 0)

        async def pulse(valid):
            ctx.set(valid, 1)
            await ctx.tick()
            ctx.set(valid, 0)

        async def silent():
            """Cycles until it halts."""
            for count in range(200):
                if ctx.get(component.o_halt):
                    return count
                await ctx.tick()

        ctx.set(component.o_command.ready, 1)
        ctx.set(component.i_misframed.payload, {"weight": 1})
        await begin()
        assert await bus.write(HALT, 1, strobe=0b1110) == OKAY and not ctx.get(component.o_halt)
        assert await bus.write(HALT, 2) == OKAY and not ctx.get(component.o_halt)
        assert await bus.write(HALT, 1) == OKAY and ctx.get(component.o_halt)
        # What comes while it halts is no cause, and no event.
        await pulse(component.i_misframed.valid)
        assert await bus.read(PENDING) == (DONE | FREE | FAILED, OKAY)
        await ended(ABORTED, ABORTED)

        ctx.set(component.i_status.payload, Status.DONE)
        await begin(3)
        await pulse(component.i_status.valid)
        ctx.set(component.i_status.payload, Status.TOO_LARGE)
        await pulse(component.i_status.valid)
        assert ctx.get(component.o_halt)
        await ended(Status.DONE.value, Status.TOO_LARGE.value, ABORTED)

        await begin()
        await pulse(component.i_misframed.valid)
        assert ctx.get(component.o_halt)
        await ctx.tick().repeat(5)
        assert (await bus.read(PENDING))[0] & (FAILED | MISFRAMED) == FAILED | MISFRAMED
        await ended(BAD_MARK, ABORTED)

        # A wrong mark beside the end of the only command leaves no code behind.
        await begin(1)
        ctx.set(component.i_status.payload, Status.DONE)
        ctx.set(component.i_misframed.valid, 1)
        await pulse(component.i_status.valid)
        ctx.set(component.i_misframed.valid, 0)
        await ended(Status.DONE.value)

        # Neither halts it where HALT_ON says so.
        assert await bus.write(HALT_ON, 0) == OKAY
        ctx.set(component.i_status.payload, Status.BAD_SIZE)
        await begin(1)
        await pulse(component.i_misframed.valid)
        await pulse(component.i_status.valid)
        assert await bus.read(PENDING) == (DONE | FREE | FAILED | MISFRAMED, OKAY)
        assert await bus.write(POP, 1) == OKAY and not ctx.get(component.o_halt)

        # No command, no watchdog; then each kind of event starts the count over.
        assert await bus.write(WATCHDOG, 9) == OKAY
        await ctx.tick().repeat(20)
        assert not ctx.get(component.o_halt)
        assert await bus.write(WATCHDOG, 60) == OKAY
        await begin(3)
        for event in (component.i_moved, component.i_status.valid):
            await ctx.tick().repeat(40)
            await pulse(event)
        assert await silent() == 60
        await ended(Status.BAD_SIZE.value, TIMEOUT, ABORTED)
        await begin(1)
        await ctx.tick().repeat(40)
        await begin(1)
        await ctx.tick().repeat(40)
        assert await bus.write(WATCHDOG, 70) == OKAY and await silent() == 70
        await ended(TIMEOUT, ABORTED)
        # Also while it halts a new value counts from the next command on.
        assert await bus.write(WATCHDOG, 0) == OKAY
        await begin()
        assert await silent() is None

    simulate(component, bench)


def test_cycles():
    component = registers()

    async def bench(ctx):
        bus = Bus(ctx, component)
        ctx.set(component.o_command.ready, 1)
        assert await bus.read(CYCLES_LOW) == (0, OKAY)
        await bus.send("i_aw", addr=COMMAND)
        await bus.send("i_w", data=0, strb=1)
        # The transfer was in the cycle before this one; it is carried out in this one.
        await ctx.tick().repeat(101)
        ctx.set(component.i_status.valid, 1)
        await ctx.tick()
        ctx.set(component.i_status.valid, 0)
        for _ in range(2):
            assert await bus.read(CYCLES_LOW) == (101, OKAY)
            assert await bus.read(CYCLES_HIGH) == (0, OKAY)

    simulate(component, bench)


def test_upper_half_of_cycles_is_that_of_the_lower_one():
    component = registers()
    fragment = Fragment.get(component, None)
    # The counter is set, as it would take hours to get there.
    cycles = next(signal for statement in fragment.statements["sync"]
                  for signal in statement._lhs_signals() if signal.name == "cycles")

    async def bench(ctx):
        bus = Bus(ctx, component)
        assert await bus.write(COMMAND, 0) == OKAY
        ctx.set(cycles, 0x1_FFFF_FFF0)
        assert await bus.read(CYCLES_LOW) == (0xFFFF_FFF0, OKAY)
        await ctx.tick().repeat(100)
        assert await bus.read(CYCLES_HIGH) == (1, OKAY)
        assert (await bus.read(CYCLES_LOW))[0] < 200
        assert await bus.read(CYCLES_HIGH) == (2, OKAY)

    simulate(fragment, bench)


def test_verilog_is_equivalent():
    text = emit.verilog(registers(), "registers")
    equivalence.prove(registers(), "registers", text)


@pytest.mark.parametrize("config", CONFIGS)
def test_constants(config):
    chosen = CONFIGS[config]
    component = CommandRegisters(chosen)

    async def bench(ctx):
        bus = Bus(ctx, component)
        word, _ = await bus.read(CONFIG)
        given = (None, "float32", "bfloat16", "float16")[word >> 16 & 3]
        assert (word & 0xFF, word >> 8 & 0xFF, given, bool(word >> 18)) == (
            chosen.columns, chosen.weight_width, chosen.input, chosen.quantizes)
        sizes = [(await bus.read(address))[0] for address in (ACTIVATIONS, WEIGHTS, ROWS)]
        assert sizes == [chosen.activations, chosen.weights, chosen.rows]

    simulate(component, bench)


@pytest.mark.long
def test_accelerator():
    """Products of a small machine, asked for and finished by register."""
    component = AxiAccelerator(config="lite")
    rng = np.random.default_rng(0)
    commands = []
    for m, k, n in ((2, 40, 6), (0, 32, 4), (1, 32, 3)):
        x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((m, k), (n, k)))
        commands.append({"m": m, "k": k, "n": n, "source": Source.VALUES.value,
                         "result": Result.VALUES.value, "x": x, "w": quantize_weights(w)})
    commands[2] |= {"source": Source.RECORDS.value, "a": quantize_activations(commands[2]["x"])}
    config = sim.golden_config("lite")
    inputs, expected = streams(config, commands, execute(config, commands))
    codes = []

    async def driver(ctx):
        bus = Bus(ctx, component)
        # What comes behind the command that fails is meant.
        assert await bus.write(HALT_ON, 0) == OKAY
        for command in commands:
            for address, name in ((M, "m"), (K, "k"), (N, "n")):
                assert await bus.write(address, command[name]) == OKAY
            assert await bus.write(COMMAND, command["source"] | command["result"] << 4) == OKAY
        while len(codes) < len(commands):
            result, _ = await bus.read(RESULT)
            if result >> 31:
                codes.append(result & 15)
                assert await bus.write(POP, 1) == OKAY
        assert await bus.read(STATUS) == (QUEUE, OKAY)
        cycles, _ = await bus.read(CYCLES_LOW)
        assert component.latency < cycles < 2000

    rows = []

    async def results(ctx):
        bus = Bus(ctx, component)
        while True:
            row = await bus.receive("o")
            rows.append(([row["values"][i] for i in range(4)], row.last))

    simulate(component, driver, results, *(sender(component, name, inputs[name])
                                           for name in ("i_weight", "i_activation", "i_value")),
             limit=3000)
    assert codes == expected["o_status"].tolist() == [0, Status.BAD_SIZE.value, 0]
    assert [row for row, _ in rows] == expected["o"]["values"].tolist()
    assert [last for _, last in rows] == expected["o"]["last"].tolist()


def sender(component, name, rows):
    """Testbench that offers all rows of an input, one after the other."""
    def at(rows, index):
        if isinstance(rows, dict):
            return {key: at(value, index) for key, value in rows.items()}
        return rows[index].tolist()

    def settings(value):
        # Arrays of structures come as a structure of arrays.
        if name == "i_weight":
            return [{key: plane[i] for key, plane in value.items()}
                    for i in range(len(value["scale"]))]
        return value

    async def bench(ctx):
        port = getattr(component, name)
        count = len(rows["scale"]) if isinstance(rows, dict) else len(rows)
        for index in range(count):
            ctx.set(port.payload, settings(at(rows, index)))
            ctx.set(port.valid, 1)
            await ctx.tick().until(port.ready)
            ctx.set(port.valid, 0)

    return bench


def test_accelerator_configuration():
    with pytest.raises(ValueError, match="Config must be one of paper, .*, not 'huge'"):
        AxiAccelerator(config="huge")


def test_table_is_the_one_written_here():
    table = register_map(CONFIGS["tiny"]).registers
    assert [register.offset for register in table] == list(ALL)
    assert {register.offset: register.reset for register in table if register.offset < M} \
        == CONSTANTS


C_TEST = """
#include <stdio.h>
#include "m2xfp_registers.h"

int main(void)
{
    static uint32_t words[1024];
    int failed = 0;

    failed |= m2xfp_start(words, 1, 2, 3, 0, 0) != -1; /* nothing free */
    words[M2XFP_STATUS_OFFSET / 4] = 1u << M2XFP_STATUS_FREE_SHIFT;
    failed |= m2xfp_start(words, 1u << 20, 2, 3, 0, 0) != -1;
    failed |= m2xfp_start(words, 1, 1u << 20, 3, 0, 0) != -1;
    failed |= m2xfp_start(words, 1, 2, 1u << 20, 0, 0) != -1;
    failed |= m2xfp_finish(words) != -1;
    printf("%u %u ", words[M2XFP_M_OFFSET / 4], words[M2XFP_POP_OFFSET / 4]);
    failed |= m2xfp_start(words, 0xfffff, 2, 3, M2XFP_COMMAND_SOURCE_KEPT,
                          M2XFP_COMMAND_RESULT_RECORDS) != 0;
    words[M2XFP_RESULT_OFFSET / 4] = M2XFP_RESULT_VALID_MASK | M2XFP_RESULT_CODE_TOO_LARGE;
    failed |= m2xfp_finish(words) != M2XFP_RESULT_CODE_TOO_LARGE;
    m2xfp_unmask(words, M2XFP_INTERRUPT_MASK_DONE_MASK | M2XFP_INTERRUPT_MASK_FAILED_MASK);
    failed |= words[0x4c / 4] != 5;
    words[0x48 / 4] = M2XFP_INTERRUPT_PENDING_FREE_MASK;
    failed |= m2xfp_pending(words) != 2;
    m2xfp_clear(words, M2XFP_INTERRUPT_PENDING_FAILED_MASK);
    failed |= words[0x48 / 4] != 4;
    words[M2XFP_CYCLES_LOW_OFFSET / 4] = 0xfffffffeu;
    words[M2XFP_CYCLES_HIGH_OFFSET / 4] = 3;
    failed |= m2xfp_cycles(words) != 0x3fffffffeu;
    m2xfp_stop(words);
    failed |= words[0x50 / 4] != 1 || m2xfp_go_on(words) != 0 || words[0x50 / 4] != 1;
    words[M2XFP_STATUS_OFFSET / 4] = M2XFP_STATUS_HALTING_MASK;
    failed |= m2xfp_go_on(words) != -1 || words[0x50 / 4] != 1;
    words[M2XFP_STATUS_OFFSET / 4] |= M2XFP_STATUS_HALTED_MASK;
    failed |= m2xfp_go_on(words) != 0 || words[0x50 / 4] != 2;
    printf("%u %u %u 0x%x %u\\n", words[8], words[9], words[10], words[11], words[14]);
    return failed;
}
"""


def test_header(tmp_path):
    if not shutil.which("gcc"):
        pytest.skip("gcc is not installed")
    (tmp_path / "m2xfp_registers.h").write_text(register_map(CONFIGS["paper"]).header())
    (tmp_path / "test.c").write_text('#include "m2xfp_registers.h"\n' + C_TEST)
    subprocess.run(["gcc", "-std=c99", "-Wall", "-Werror", "-Wextra", "-pedantic", "-o", "test",
                    "test.c"], cwd=tmp_path, check=True)
    done = subprocess.run(["./test"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "0 0 1048575 2 3 0x12 1\n"


def test_header_and_description_say_the_same():
    table = register_map(CONFIGS["lite"])
    header = dict(re.findall(r"^#define (\w+) (\w+)$", table.header(), re.M))
    description = json.loads(json.dumps(table.describe()))
    count = 0
    for register in description:
        base = f"M2XFP_{register['name']}"
        assert int(header[f"{base}_OFFSET"].rstrip("u"), 16) == register["offset"]
        for field in register["fields"]:
            name = f"{base}_{field['name'].upper()}"
            assert int(header[f"{name}_SHIFT"]) == field["lsb"]
            assert int(header[f"{name}_MASK"].rstrip("u"), 16) \
                == (1 << field["width"]) - 1 << field["lsb"]
            for key, value in field["values"].items():
                assert header[f"{name}_{key}"] == f"{value}u"
            count += 2 + len(field["values"])
    assert len(header) == count + len(description)
    accesses = {register["name"]: [field["access"] for field in register["fields"]]
                for register in description}
    assert accesses["INTERRUPT_PENDING"] == ["ro", "ro", "w1c", "w1c"]
    assert accesses["INTERRUPT_MASK"] == ["rw"] * 4 and accesses["POP"] == ["wo"]
    # The same for every configuration, as one driver serves all of them.
    assert table.header() == register_map(CONFIGS["paper"]).header()
    assert table.header() == register_map(dataclasses.replace(CONFIGS["lite"],
                                                              framed=True)).header()


def field(**changes):
    return Field(**{"name": "a", "lsb": 0, "width": 8, "description": "A"} | changes)


def register(**changes):
    return Register(**{"name": "A", "offset": 4, "access": "rw", "fields": (field(),)} | changes)


@pytest.mark.parametrize("build, text", [
    (lambda: field(lsb=-1), "Field a must lie within 32 bits, not at bit -1 with 8 bits"),
    (lambda: field(width=0), "Field a must lie within 32 bits, not at bit 0 with 0 bits"),
    (lambda: field(lsb=25), "Field a must lie within 32 bits, not at bit 25 with 8 bits"),
    (lambda: field(reset=256), "Reset value of field a must have 8 bits, not 256"),
    (lambda: field(reset=-1), "Reset value of field a must have 8 bits, not -1"),
    (lambda: register(offset=6), "Offset of A must be a multiple of 4, not 6"),
    (lambda: register(offset=-4), "Offset of A must be a multiple of 4, not -4"),
    (lambda: register(access="r"), "Access of A must be one of ro, wo, rw, not 'r'"),
    (lambda: register(fields=(field(), field(name="b", lsb=7))),
     "Field b of A must not overlap others"),
    (lambda: field(access="rw"), "Access of field a must be one of ro, w1c, not 'rw'"),
    (lambda: register(access="ro", fields=(field(access="w1c"),)),
     "Access of A must be rw for a field with an access of its own, not 'ro'"),
    (lambda: RegisterMap(name="x", registers=(register(), register(name="B"))),
     "Offset of B must be above 0x4, not 0x4"),
])
def test_wrong_table(build, text):
    with pytest.raises(ValueError) as info:
        build()
    assert str(info.value) == text
