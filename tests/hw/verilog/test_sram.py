# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""Memories as instances: proofs, simulation with X, files and the memory list."""

import json
import re

import numpy as np
import pytest
from amaranth import Module
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from golden import stimuli
from golden.accelerator.accelerator import execute, streams
from hw import generate, registry
from hw.lib.buffer import Bank, Buffer
from hw.tools import yosys
from hw.verilog import Style, emit, equivalence, sram
from sim import golden_config
from tests.hw.test_generate import lint, verible
from tests.support.verilog_bench import build, missing, run, write_bench

STYLE = Style(sram=True)

needs_iverilog = pytest.mark.skipif(missing("iverilog") is not None,
                                    reason=str(missing("iverilog")))


def prove(component):
    equivalence.prove(component, "unit", style=STYLE)


def test_proof():
    prove(Buffer(5, depth=10, banks=2))


@pytest.mark.long
@pytest.mark.parametrize("old, new, complaint", [
    ("<= rows[read_address]", "<= ~rows[read_address]", "unproven"),
    # Without its enable a read port has another row than the one that was read last.
    ("if (read) begin\n      if", "if (1'b1) begin\n      if", "unproven"),
    ("if (write) begin", "if (1'b1) begin", "unproven"),
    ("posedge clk) begin\n    if (write)", "negedge clk) begin\n    if (write)",
     "another WR_CLK_POLARITY"),
])
def test_proof_finds_a_wrong_model(old, new, complaint, monkeypatch):
    models = sram.models("unit", emit.verilog(Bank(5, depth=3), "unit", None, STYLE))
    assert all(old in text for text in models.values())
    wrong = {name: text.replace(old, new) for name, text in models.items()}
    monkeypatch.setattr(sram, "models", lambda name, text: wrong)
    with pytest.raises(yosys.ToolError, match=complaint):
        prove(Bank(5, depth=3))


@pytest.mark.long
@pytest.mark.parametrize("width, depth", [(1, 2), (7, 12)])
def test_models_of_all_sizes(width, depth, tmp_path):
    text = emit.verilog(Bank(width, depth=depth), "unit", None, STYLE)
    models = sram.models("unit", text)
    assert [*models] == [f"unit_sram_{depth}x{width}"]
    (tmp_path / "unit.v").write_text(text)
    path = tmp_path / f"unit_sram_{depth}x{width}.v"
    path.write_text(*models.values())
    assert lint(tmp_path / "unit.v", "unit", path) == ""
    assert verible(path) == ""


MODEL_BENCH = """
module bench;
  reg clk = 0, write = 0, read = 0;
  reg [3:0] write_address, read_address;
  reg [6:0] write_row;
  wire [6:0] read_row;

  unit_sram_12x7 dut (
    .clk(clk), .write(write), .write_address(write_address), .write_row(write_row),
    .read(read), .read_address(read_address), .read_row(read_row)
  );

  task step(input w, input [3:0] to, input [6:0] row, input r, input [3:0] from);
    begin
      write = w; write_address = to; write_row = row; read = r; read_address = from;
      #1 clk = 1;
      #1 clk = 0;
      $write(" %h", read_row);
    end
  endtask

  initial begin
    $write("unit:");
    step(1, 11, 7'h55, 0, 0);  // nothing was read
    step(1, 0, 7'h2a, 1, 11);  // a write elsewhere
    step(0, 0, 7'h00, 0, 0);   // held
    step(1, 0, 7'h13, 1, 0);   // both at one address
    step(0, 0, 7'h00, 1, 0);   // the row is stored nonetheless
    step(0, 0, 7'h7f, 1, 5);   // never written
    $display;
  end
endmodule
"""


@needs_iverilog
def test_contract_in_simulation(tmp_path):
    text = emit.verilog(Bank(7, depth=12), "unit", None, STYLE)
    (tmp_path / "unit.v").write_text(*sram.models("unit", text).values())
    (tmp_path / "bench_unit.v").write_text(MODEL_BENCH.replace("module bench", "module bench_unit"))
    program = build("iverilog", tmp_path, ["unit"])
    assert run(program, tmp_path) == {"unit": "xx 55 55 xx 13 xx"}


class TwoReaders(wiring.Component):
    """A memory that no instance can take the place of."""

    write: In(1)
    address: In(3)
    row: In(4)
    first: Out(4)
    second: Out(4)

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = rows = memory.Memory(shape=4, depth=8, init=[])
        write, reads = rows.write_port(), [rows.read_port() for _ in range(2)]
        m.d.comb += [write.en.eq(self.write), write.addr.eq(self.address), write.data.eq(self.row)]
        for port, output in zip(reads, (self.first, self.second), strict=True):
            m.d.comb += [port.addr.eq(self.address), output.eq(port.data)]
        return m


def test_a_memory_that_does_not_fit():
    emit.verilog(TwoReaders(), "two")
    with pytest.raises(ValueError, match="^Memory memory of two must have one port to write whole"):
        emit.verilog(TwoReaders(), "two", None, STYLE)


@needs_iverilog
@pytest.mark.long
@pytest.mark.parametrize("old, new, result", [
    ("", "", "PASS"),
    # Each part of the contract is needed: a row must stay without a read.
    ("    if (read) begin\n      if", "    if (!read) read_row <= 128'bx; else begin\n      if",
     "FAIL")])
def test_accelerator_against_golden(old, new, result, tmp_path):
    """A row that comes out as X, as it is written meanwhile, reaches no output."""
    config = golden_config("lite")
    commands = stimuli.products(np.random.default_rng(1), 10, config, largest=2**10)
    with np.errstate(all="ignore"):
        inputs, expected = streams(config, commands, execute(config, commands))
    component = registry.build("accelerator", ["config=lite"])
    text = emit.verilog(component, "accelerator", None, STYLE)
    models = "".join(sram.models("accelerator", text).values())
    assert old in models
    write_bench(tmp_path, "accelerator", component, text + models.replace(old, new), inputs,
                expected, cycles=20_000)
    printed = run(build("iverilog", tmp_path, ["accelerator"]), tmp_path)["accelerator"]
    assert printed.startswith(result)


@pytest.mark.long
@pytest.mark.parametrize("split", [False, True])
def test_files(split, tmp_path):
    # One column: the proof takes a quarter of the time that it takes for the four of "lite".
    settings = ["config=lite", "config.columns=1"]
    paths = generate.generate("accelerator", settings, tmp_path, style=STYLE, split=split,
                              module="lite", proof=not split)
    description = json.loads((tmp_path / "lite.json").read_text())
    found = {(entry["depth"], entry["width"]): entry for entry in description["memories"]}
    assert {size: entry["instances"] for size, entry in found.items()} == {
        (256, 32): ["sums.buffer.bank0.memory"], (256, 144): ["weights.buffer.bank0.memory"],
        (1024, 144): ["activations.buffer.bank0.memory"]}
    models = [f"lite_sram_{depth}x{width}" for depth, width in sorted(found)]
    assert [entry["module"] for entry in description["memories"]] == models
    text = "".join(path.read_text() for path in paths if path.suffix == ".v")
    assert len(re.findall(r"^  reg .*\[0:", text, re.M)) == len(models)
    assert text.count("waive-start unpacked") == len(models)
    files = [path.name for path in paths if "_sram" in path.name]
    assert files == [f"{model}.v" for model in models]
    if split:
        assert {*files} < {*(tmp_path / "lite.f").read_text().split()}
    verilog = [path for path in paths if path.suffix == ".v"]
    assert lint(verilog[0], "lite", *verilog[1:]) == ""
    assert verible(*verilog) == ""
    # The list without instances has the same memories.
    plain = emit.verilog(registry.build("accelerator", settings), "lite")
    assert [entry | {"module": None, "ports": None} for entry in description["memories"]] == (
        sram.listed("lite", plain))
