# SPDX-License-Identifier: BSD-2-Clause
"""Testbench of the AXI machine in cocotb: products over AXI4-Lite and AXI4-Stream.

`run.py` starts it in a simulator. The bus models are those of cocotbext-axi. Operands, their order
and the results that must come are golden's.
"""

import random

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, FallingEdge, RisingEdge, with_timeout
from cocotbext.axi import (
    AxiLiteBus,
    AxiLiteMaster,
    AxiResp,
    AxiStreamBus,
    AxiStreamFrame,
    AxiStreamSink,
    AxiStreamSource,
)

from golden import quantize_activations, quantize_weights
from golden.accelerator.accelerator import execute, streams
from golden.accelerator.planner import CONFIGS, RECORDS, VALUES, VALUES_OUT

# Registers and bits of specification section 15.1.
ID, M, K, N, COMMAND, STATUS, RESULT, POP = 0x00, 0x20, 0x24, 0x28, 0x2C, 0x30, 0x34, 0x38
INTERRUPT_PENDING, INTERRUPT_MASK, HALT_ON = 0x48, 0x4C, 0x54
DONE, FAILED = 1, 4

MACHINE = CONFIGS["lite"]


def record_bytes(stream):
    """Records of a stream as bytes, 18 each (section 13.3)."""
    elements = stream["elements"].reshape(-1, 16, 2)
    metadata = stream["metadata"].reshape(-1, 4)
    low = elements[..., 0] | elements[..., 1] << 4
    meta = (metadata << np.array([0, 2, 4, 6], np.uint8)).sum(1, dtype=np.uint8)
    return np.column_stack([low, meta, stream["scale"].reshape(-1)]).tobytes()


def product(rng, m, k, n, source):
    """A command with random operands."""
    x = rng.standard_normal((m, k)).astype(np.float32)
    w = rng.standard_normal((n, k)).astype(np.float32)
    return {"m": m, "k": k, "n": n, "source": source, "result": VALUES_OUT, "x": x,
            "a": quantize_activations(x), "w": quantize_weights(w)}


def pauses(seed):
    """Pauses in three of eight cycles."""
    generator = random.Random(seed)
    while True:
        yield generator.random() < 3 / 8


async def reset(dut):
    """One cycle of reset, which is enough; before it all outputs are undefined."""
    cocotb.start_soon(Clock(dut.aclk, 10, "ns").start())
    dut.aresetn.value = 0
    await RisingEdge(dut.aclk)
    # The models of the buses come up after this, as they take no X.
    await FallingEdge(dut.aclk)
    dut.aresetn.value = 1


class Bench:
    """The machine with a model at each of its interfaces."""

    def __init__(self, dut):
        self.dut = dut
        clock = {"clock": dut.aclk, "reset": dut.aresetn, "reset_active_level": False}
        self.registers = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi"), **clock)
        self.inputs = {name: AxiStreamSource(AxiStreamBus.from_prefix(dut, f"s_axis_{name}"),
                                             **clock)
                       for name in ("weight", "activation", "value")}
        self.results = AxiStreamSink(AxiStreamBus.from_prefix(dut, "m_axis"), **clock)
        for seed, end in enumerate((*self.inputs.values(), self.results)):
            end.set_pause_generator(pauses(seed))

    async def write(self, register, value):
        """Writes a register; returns the response."""
        return (await self.registers.write(register, value.to_bytes(4, "little"))).resp

    async def read(self, register):
        """Reads a register."""
        return int.from_bytes((await self.registers.read(register, 4)).data, "little")

    async def start(self, command):
        """Asks for a product."""
        for register, name in ((M, "m"), (K, "k"), (N, "n")):
            assert await self.write(register, command[name]) == AxiResp.OKAY
        word = command["source"] | command["result"] << 4
        assert await self.write(COMMAND, word) == AxiResp.OKAY

    async def finish(self):
        """Waits for the interrupt; returns the status of the oldest command."""
        while not self.dut.irq.value:
            await RisingEdge(self.dut.aclk)
        result = await self.read(RESULT)
        assert result >> 31, "an interrupt without a result"
        assert await self.write(POP, 1) == AxiResp.OKAY
        return result & 15


@cocotb.test()
async def products(dut):
    """Three commands, one of which cannot run: all statuses and results are golden's."""
    await reset(dut)
    bench = Bench(dut)
    assert await bench.read(ID) == int.from_bytes(b"M2XF", "big")
    assert await bench.write(ID, 0) == AxiResp.SLVERR
    assert await bench.write(INTERRUPT_MASK, DONE) == AxiResp.OKAY
    # The command that cannot run does not halt the machine: no operands are sent for it.
    assert await bench.write(HALT_ON, 0) == AxiResp.OKAY

    rng = np.random.default_rng(0)
    commands = [product(rng, 3, 40, 6, VALUES), product(rng, 2, 33, 5, RECORDS)]
    commands.insert(1, commands[0] | {"m": 0})
    inputs, outputs = streams(MACHINE, commands, execute(MACHINE, commands))
    for command in commands:
        await bench.start(command)
    # One frame each: the operands of all commands that run follow each other.
    frames = {"weight": record_bytes(inputs["i_weight"]),
              "activation": record_bytes(inputs["i_activation"]),
              "value": inputs["i_value"].astype("<u4").tobytes()}
    for name, data in frames.items():
        await bench.inputs[name].send(AxiStreamFrame(data))

    found = [await with_timeout(bench.finish(), 100, "us") for _ in commands]
    assert found == outputs["o_status"].tolist() == [0, 1, 0]
    assert await bench.read(INTERRUPT_PENDING) & FAILED

    # `tlast` ends the results of a command, so each is a frame.
    ends = np.flatnonzero(outputs["o"]["last"]) + 1
    expected = np.split(outputs["o"]["values"].astype("<u4"), ends)[:-1]
    for rows in expected:
        frame = await with_timeout(bench.results.recv(), 100, "us")
        assert bytes(frame.tdata) == rows.tobytes()
    await ClockCycles(dut.aclk, 50)
    assert bench.results.empty() and all(end.empty() for end in bench.inputs.values())
    dut._log.info("%d results equal golden's", sum(rows.size for rows in expected))
