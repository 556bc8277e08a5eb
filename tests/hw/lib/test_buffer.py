# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""Buffers: what is written is read, in every engine; their Verilog and its proof."""

import re

import numpy as np
import pytest
from amaranth import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

import sim
from hw.lib.buffer import Bank, Buffer
from hw.tools import yosys
from hw.verilog import emit, equivalence
from tests.hw.test_generate import lint
from tests.sim.engines.test_compiled import QUICK_ENGINES, needs_compiler
from tests.support.marks import longer
from tests.support.testbench import simulate


class Written(wiring.Component):
    """A buffer whose rows come by a stream, one per cycle, and never wait."""

    latency = 1

    def __init__(self, shape, *, depth, banks=1):
        self.shape = shape
        self.depth = depth
        self.banks = banks
        write = data.StructLayout({"address": range(depth), "row": shape})
        super().__init__({
            "i_write": In(stream.Signature(write, always_ready=True)),
            "i": In(stream.Signature(range(depth))),
            "o": Out(stream.Signature(shape)),
        })

    def elaborate(self, platform):
        m = Module()

        m.submodules.buffer = buffer = Buffer(self.shape, depth=self.depth, banks=self.banks)
        m.d.comb += [
            buffer.write.eq(self.i_write.valid),
            buffer.address.eq(self.i_write.payload.address),
            buffer.row.eq(self.i_write.payload.row),
        ]
        wiring.connect(m, wiring.flipped(self.i), buffer.i)
        wiring.connect(m, buffer.o, wiring.flipped(self.o))

        return m


SIZES = [(24, 1), (24, 2), (24, 4), (6, 2), (2, 1), (32, 4)]


@pytest.mark.parametrize("stalls", [0, 0.5])
@pytest.mark.parametrize("depth, banks", SIZES)
def test_reads_what_was_written(depth, banks, stalls):
    rng = np.random.default_rng(depth + banks)
    buffer = Buffer(16, depth=depth, banks=banks)
    rows = rng.integers(1 << 16, size=depth)
    expected, received, requested = [], [], 0

    async def bench(ctx):
        nonlocal requested
        # All rows first, as none may be read before; then both ports at random.
        ctx.set(buffer.write, 1)
        for address, row in enumerate(rows.tolist()):
            ctx.set(buffer.address, address)
            ctx.set(buffer.row, row)
            await ctx.tick()
        waiting = held = None
        for _ in range(1000):
            address, row = int(rng.integers(depth)), int(rng.integers(1 << 16))
            write = bool(rng.random() < 0.5)
            if waiting is None and rng.random() >= stalls:
                waiting = int(rng.integers(depth))
            # What is read while it is written may be anything.
            write = write and address != waiting
            ctx.set(buffer.write, write)
            ctx.set(buffer.address, address)
            ctx.set(buffer.row, row)
            ctx.set(buffer.i.valid, waiting is not None)
            ctx.set(buffer.i.payload, waiting or 0)
            ready = bool(rng.random() >= stalls)
            ctx.set(buffer.o.ready, ready)
            offered = ctx.get(buffer.o.payload) if ctx.get(buffer.o.valid) else None
            # Latency 1, and nothing changes while stalled.
            assert (offered is not None) == (len(expected) > len(received))
            assert held in (None, offered)
            held = None if ready else offered
            if ready and offered is not None:
                received.append(offered)
            if waiting is not None and ctx.get(buffer.i.ready):
                expected.append(int(rows[waiting]))
                waiting = None
            if write:
                rows[address] = row
            await ctx.tick()

    simulate(buffer, bench)
    assert len(received) > (900 if stalls == 0 else 150)
    assert received == expected[:len(received)]


@needs_compiler
@pytest.mark.parametrize("engine", QUICK_ENGINES)
@pytest.mark.parametrize("width, depth, banks", [
    (16, 24, 2), longer(1024, 288, 1), longer(144, 8192, 1)])
def test_engines_agree(engine, width, depth, banks):
    rng = np.random.default_rng(width)
    shape = data.ArrayLayout(8, width // 8)
    # Addresses are written again and again, and read in the same order or at random.
    addresses = rng.integers(depth - 12, depth, size=300)
    inputs = {"i_write": {"address": addresses,
                          "row": rng.integers(256, size=(300, width // 8), dtype=np.uint8)},
              "i": np.concatenate([addresses[:200], rng.integers(depth - 12, depth, size=100)])}
    rows = [sim.run(Written(shape, depth=depth, banks=banks), inputs, stalls=0.3, engine=chosen)
            ["o"] for chosen in ("amaranth", engine)]
    assert len({row.tobytes() for row in rows[0]}) > 30
    np.testing.assert_array_equal(*rows)


@pytest.mark.parametrize("width, depth, banks", [
    (16, 24, 1), longer(1024, 288, 1), longer(144, 8192, 1), longer(144, 8192, 8), (16, 24, 4),
    (1, 4, 2)])
def test_emission(width, depth, banks, tmp_path):
    text = emit.verilog(Buffer(width, depth=depth, banks=banks), "unit")
    (tmp_path / "unit.v").write_text(text)
    assert lint(tmp_path / "unit.v", "unit") == ""
    assert re.findall(r"^module (\w+)", text, re.M) == ["unit", "unit_bank"]
    assert f"  reg [{width - 1}:0] memory [0:{depth // banks - 1}];\n" in text
    assert "initial" not in text and "(*" not in text
    assert text == emit.verilog(Buffer(width, depth=depth, banks=banks), "unit")


@pytest.mark.parametrize("width, depth, banks", [
    longer(16, 24, 1), (4, 24, 4), longer(144, 8192, 1)])
def test_equivalence(width, depth, banks):
    equivalence.prove(Buffer(width, depth=depth, banks=banks), "unit")


@pytest.mark.parametrize("old, new, complaint", [
    ("if (write)", "if (!write)", "unproven"),
    longer("if (read)", "if (!read)", "unproven"),
    longer("if (write) ", "", "unproven"),
    ("memory[read_address]", "memory[~read_address]", "unproven"),
    longer("memory[write_address]", "memory[read_address]", "unproven"),
    longer("<= write_row", "<= ~write_row", "unproven"),
    ("<= memory[", "<= write ? write_row : memory[", "unproven"),  # a transparent port
    ("memory [0:5]", "memory [0:6]", "Memory bank0.memory has another .*SIZE"),
    ("reg [3:0] memory ", "reg [4:0] memory ", "Memory bank0.memory has another .*WIDTH"),
    ("memory[", "rows[", "Memory bank0.memory has no counterpart"),
    ("@(posedge clk) begin\n    if (write", "@(negedge clk) begin\n    if (write",
     "Memory bank0.memory has another WR_CLK_POLARITY"),
    ("@(posedge clk) begin\n    if (read) read_row <=", "@* begin\n    read_row =",
     "Register .* has no counterpart"),
])
def test_proof_finds_an_injected_bug(old, new, complaint):
    text = emit.verilog(Buffer(4, depth=12, banks=2), "unit")
    assert old in text
    bug = text.replace(old, new)
    if new == "rows[":
        bug = bug.replace("memory [", "rows [")
    with pytest.raises(yosys.ToolError, match=complaint):
        equivalence.prove(Buffer(4, depth=12, banks=2), "unit", bug)


class Other(wiring.Component):
    """Memories that are not plain."""

    address: In(4)
    row: In(8)
    read_row: Out(8)

    def __init__(self, *, init=(), domain="sync", transparent=False):
        self.options = init, domain, transparent
        super().__init__()

    def elaborate(self, platform):
        m = Module()

        init, domain, transparent = self.options
        m.submodules.rows = rows = memory.Memory(shape=8, depth=16, init=init)
        write = rows.write_port()
        read = rows.read_port(domain=domain, transparent_for=(write,) if transparent else ())
        m.d.comb += [write.en.eq(1), write.addr.eq(self.address), write.data.eq(self.row),
                     read.addr.eq(self.address), self.read_row.eq(read.data)]

        return m


@pytest.mark.parametrize("options, complaint", [
    ({"init": [0, 5]}, "Memory of Other must not have initial contents other than 0"),
    ({"domain": "comb"}, "Memory of Other must not have asynchronous read ports"),
    ({"transparent": True}, "Memory of Other must not have transparent read ports"),
])
def test_other_memories_are_refused(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        emit.verilog(Other(**options), "other")


def test_unequal_memories_are_told_apart():
    class Parent(wiring.Component):
        address: In(4)
        y: Out(24)

        def elaborate(self, platform):
            m = Module()
            for i, depth in enumerate((12, 12, 16)):
                m.submodules[f"bank{i}"] = bank = Bank(8, depth=depth)
                m.d.comb += [bank.write.eq(1), bank.write_address.eq(self.address),
                             bank.write_row.eq(self.address), bank.read.eq(1),
                             bank.read_address.eq(self.address),
                             self.y.word_select(i, 8).eq(bank.read_row)]
            return m

    text = emit.verilog(Parent(), "parent")
    assert re.findall(r"^module (\w+)", text, re.M) == ["parent", "parent_bank", "parent_bank_2"]
    equivalence.prove(Parent(), "parent", text)


@pytest.mark.parametrize("options, complaint", [
    ({"depth": 8, "banks": 3}, "^Banks must be a power of two, not 3"),
    ({"depth": 8, "banks": 0}, "^Banks must be a power of two, not 0"),
    ({"depth": 10, "banks": 4}, "^Depth must be a multiple of 4 banks, .* not 10"),
    ({"depth": 4, "banks": 4}, "^Depth must be a multiple of 4 banks, .* two rows each, not 4"),
    ({"depth": 1}, "^Depth must be a multiple of 1 banks, .* not 1"),
])
def test_wrong_parameters(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        Buffer(8, **options)
