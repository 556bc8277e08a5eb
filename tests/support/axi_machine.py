# SPDX-License-Identifier: BSD-2-Clause
"""An `AxiAccelerator` in Amaranth's simulator with a plain driver around it."""

import numpy as np
from amaranth import Value

import sim
from golden.accelerator.accelerator import execute, streams
from hw.tools.packing import to_bits, to_integers

REGISTERS = {"M": 0x20, "K": 0x24, "N": 0x28, "COMMAND": 0x2C, "STATUS": 0x30, "RESULT": 0x34,
             "POP": 0x38, "PENDING": 0x48, "HALT": 0x50, "HALT_ON": 0x54, "WATCHDOG": 0x58}
HALT, RESUME = 1, 2
HALTING, HALTED = 1 << 24, 1 << 25


class Machine:
    """Drives all ports of a machine, cycle by cycle, with random pauses.

    Operands are offered as soon as they are queued, as by a DMA that knows nothing of commands.
    Outputs must keep the rules of streams in every cycle.

    Attributes
    ----------
    queues : dict of str to list of int
        Payloads that are still to be taken, by stream of operands.
    packets : list of (str, list of int)
        Results that came, by stream; each packet but the last one has ended.
    ready : float
        How often an end of a stream moves.
    takes : bool
        Whether results are taken at all.
    """

    def __init__(self, ctx, component, rng):
        self.ctx = ctx
        self.component = component
        self.rng = rng
        self.ready = 0.7
        self.takes = True
        config = component.config
        names = ["i_weight", "i_activation", *(["i_value"] if config.input else [])]
        self.queues = {name: [] for name in names}
        self.results = ["o", *(["o_record"] if config.quantizes else [])]
        self.packets = []
        self.open = dict.fromkeys(self.results)
        self.held = dict.fromkeys(self.results)

    async def tick(self):
        """One clock cycle."""
        ctx, offered = self.ctx, {}
        for name, queue in self.queues.items():
            port = getattr(self.component, name)
            if queue and not ctx.get(port.valid) and self.rng.random() < self.ready:
                ctx.set(Value.cast(port.payload), queue[0])
                ctx.set(port.valid, 1)
            offered[name] = ctx.get(port.valid)
        for name in self.results:
            ctx.set(getattr(self.component, name).ready,
                    int(self.takes and self.rng.random() < self.ready))
        for name in self.results:
            port = getattr(self.component, name)
            payload = ctx.get(Value.cast(port.payload)) if ctx.get(port.valid) else None
            assert self.held[name] in (None, payload), f"{name} does not hold what it offers"
            taken = payload is not None and ctx.get(port.ready)
            self.held[name] = None if taken else payload
            if taken:
                self.receive(name, payload, ctx.get(port.payload.last))
        taken = [name for name, valid in offered.items()
                 if valid and ctx.get(getattr(self.component, name).ready)]
        await ctx.tick()
        for name in taken:
            self.queues[name].pop(0)
            ctx.set(getattr(self.component, name).valid, 0)

    def receive(self, name, payload, last):
        if self.open[name] is None:
            self.open[name] = []
            self.packets.append((name, self.open[name]))
        self.open[name].append(payload)
        if last:
            self.open[name] = None

    async def cycles(self, count):
        for _ in range(count):
            await self.tick()

    async def write(self, register, data):
        """Writes a register; returns the response."""
        bus = self.component
        self.ctx.set(bus.i_aw.payload.addr, REGISTERS[register])
        self.ctx.set(bus.i_w.payload, {"data": data, "strb": 15})
        waiting = [bus.i_aw, bus.i_w]
        for port in waiting:
            self.ctx.set(port.valid, 1)
        while waiting:
            taken = [port for port in waiting if self.ctx.get(port.ready)]
            await self.tick()
            for port in taken:
                self.ctx.set(port.valid, 0)
            waiting = [port for port in waiting if port not in taken]
        return (await self._answer(bus.o_b)).resp.value

    async def read(self, register):
        bus = self.component
        self.ctx.set(bus.i_ar.payload.addr, REGISTERS[register])
        self.ctx.set(bus.i_ar.valid, 1)
        while not self.ctx.get(bus.i_ar.ready):
            await self.tick()
        await self.tick()
        self.ctx.set(bus.i_ar.valid, 0)
        return (await self._answer(bus.o_r)).data

    async def _answer(self, port):
        self.ctx.set(port.ready, 1)
        while not self.ctx.get(port.valid):
            await self.tick()
        payload = self.ctx.get(port.payload)
        await self.tick()
        self.ctx.set(port.ready, 0)
        return payload

    async def start(self, command):
        for register, name in (("M", "m"), ("K", "k"), ("N", "n")):
            assert await self.write(register, command[name]) == 0
        assert await self.write("COMMAND", command["source"] | command["result"] << 4) == 0

    async def finish(self, limit=20_000):
        """The status of the oldest command."""
        for _ in range(limit):
            result = await self.read("RESULT")
            if result >> 31:
                assert await self.write("POP", 1) == 0
                return result & 15
        raise AssertionError("a command does not end")

    async def rest(self, limit=1000):
        """Waits until the machine has halted and has taken all operands."""
        for _ in range(limit):
            halted = await self.read("STATUS") & HALTED
            if halted and not any(self.queues.values()):
                return
        raise AssertionError("the machine does not come to rest")


def rows(component, name, values):
    """Payloads of a stream as integers."""
    member = component.signature.members[name].signature.members["payload"]
    return to_integers(to_bits(member.shape, values, name))


def expectation(component, commands):
    """What golden makes of commands, each on its own but for what they keep.

    Returns
    -------
    list of (int, dict, list)
        Status, operands by stream, and packets of results.
    """
    config = sim.golden_config(component.config)
    with np.errstate(over="ignore", invalid="ignore"):
        executed = execute(config, commands)
        found = []
        for command, result in zip(commands, executed, strict=True):
            inputs, outputs = streams(config, [command], [result])
            inputs, outputs = ({name: rows(component, name, values)
                                for name, values in side.items()
                                if name in component.signature.members}
                               for side in (inputs, outputs))
            found.append((result[0], inputs,
                          [(name, packet) for name, packet in outputs.items() if packet]))
    return found


def last(component, name):
    """The field ``last`` alone, as a payload of this stream."""
    member = component.signature.members[name].signature.members["payload"]
    return 1 << member.shape["last"].offset

