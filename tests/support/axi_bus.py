# SPDX-License-Identifier: BSD-2-Clause
"""A master of AXI4-Lite registers in an Amaranth testbench."""

from amaranth import Module
from amaranth.lib import wiring
from amaranth.sim import Simulator

from hw.bus.axi_lite import CommandRegisters


class RegisterStreams(wiring.Component):
    """The streams of `CommandRegisters` alone, as nothing else may stand beside streams.

    Nothing moves, and the machine is at rest. ``o_irq`` is there if it is asked for.
    """

    def __init__(self, config, *, irq=False):
        self.inner = CommandRegisters(config)
        self.latency = self.inner.latency
        self.irq = irq
        members = self.inner.signature.members
        super().__init__({name: member for name, member in members.items()
                          if member.is_signature or irq and name == "o_irq"})

    def elaborate(self, platform):
        m = Module()
        m.submodules.inner = self.inner
        m.d.comb += self.inner.i_rest.eq(1)
        for name, member in self.signature.members.items():
            if member.is_signature:
                wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(self.inner, name))
        if self.irq:
            m.d.comb += self.o_irq.eq(self.inner.o_irq)
        return m


class Bus:
    """Drives the channels of a component in an Amaranth testbench."""

    def __init__(self, ctx, component, rng=None):
        self.ctx = ctx
        self.component = component
        self.rng = rng

    async def pause(self):
        """A random number of cycles, often none."""
        if self.rng is not None:
            for _ in range(max(0, int(self.rng.integers(-3, 5)))):
                await self.ctx.tick()

    async def send(self, name, **fields):
        port = getattr(self.component, name)
        for field, value in fields.items():
            self.ctx.set(getattr(port.payload, field), value)
        self.ctx.set(port.valid, 1)
        await self.ctx.tick().until(port.ready)
        self.ctx.set(port.valid, 0)

    async def receive(self, name):
        """A payload, which must be held while it is not taken."""
        port = getattr(self.component, name)
        while not self.ctx.get(port.valid):
            await self.ctx.tick()
        before = self.ctx.get(port.payload.as_value())
        await self.pause()
        assert self.ctx.get(port.valid) and self.ctx.get(port.payload.as_value()) == before
        self.ctx.set(port.ready, 1)
        payload = self.ctx.get(port.payload)
        await self.ctx.tick()
        self.ctx.set(port.ready, 0)
        return payload

    async def write(self, address, data, *, strobe=0xF, order="aw, w"):
        channels = {"aw": ("i_aw", {"addr": address}), "w": ("i_w", {"data": data, "strb": strobe})}
        for channel in order.split(", "):
            name, fields = channels[channel]
            assert not self.ctx.get(self.component.o_b.valid)
            await self.send(name, **fields)
            await self.pause()
        return (await self.receive("o_b")).resp.value

    async def read(self, address):
        await self.send("i_ar", addr=address)
        payload = await self.receive("o_r")
        return payload.data, payload.resp.value


def simulate(component, *benches, limit=100_000):
    """Runs testbenches until the first one ends, which must be within some cycles."""
    ended = []

    async def first(ctx):
        await benches[0](ctx)
        ended.append(True)

    async def clock(ctx):
        for _ in range(limit):
            await ctx.tick()
            if ended:
                return
        raise AssertionError(f"not ended after {limit} cycles")

    simulator = Simulator(component)
    simulator.add_clock(1e-9)
    simulator.add_testbench(clock)
    simulator.add_testbench(first)
    for bench in benches[1:]:
        simulator.add_testbench(bench, background=True)
    simulator.run()
