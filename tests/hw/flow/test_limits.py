# SPDX-License-Identifier: BSD-2-Clause
"""Hold times, wires, corners, largest loads and slews: by hand, and as in OpenSTA."""

import json
import re
import shutil
import subprocess
from dataclasses import asdict

import pytest

from hw import registry, synth
from hw.flow import mapping, timing
from hw.flow.liberty import find_library
from hw.flow.wire_load import WireLoad
from hw.tools.errors import ToolError
from tests.hw.flow import test_liberty_mutants as mutants
from tests.support.netlists import CELLS, LOAD, OPENSTA, liberty, module, opensta, read, table

HOLD = f"""timing () {{ related_pin : "CK"; timing_type : hold_rising;
    {table("rise_constraint", 0.05, 0.3, 0, "setup")}
    {table("fall_constraint", 0.06, 0.3, 0, "setup")} }}"""
WITH_HOLD = CELLS | {"DFF": CELLS["DFF"].replace("pin (D) {", f"pin (D) {{ {HOLD}")}
REGISTERS = module(["input clk d", "output q"], ("r0", "DFF", {"CK": "clk", "D": "d", "Q": "s"}),
                   ("u0", "INV", {"A": "s", "Y": "n"}), ("r1", "DFF", {"CK": "clk", "D": "n",
                                                                       "Q": "q"}))


def wires(resistance, tree=""):
    conditions = tree and f"""operating_conditions (typical) {{ voltage : 1; tree_type : {tree}; }}
        default_operating_conditions : typical;"""
    return f"""{conditions}
        wire_load (short) {{ capacitance : 1; fanout_length (1, 0.5); }}
        wire_load (long) {{ capacitance : 1.5; resistance : {resistance}; slope : 2;
            fanout_length (2, 4); fanout_length (1, 1.5); fanout_length (4, 5); }}
        default_wire_load : long;"""


def test_hold(tmp_path):
    found = timing.examine(REGISTERS, read(tmp_path, liberty(WITH_HOLD)))
    slew_s = 0.01 + 0.001 * 2
    slew_n = 0.01 + 0.5 * slew_s + 0.001 * 1
    rising = 0.12 + 0.002 * 2 + 0.02 + 0.1 * slew_s + 0.002 * 1 - (0.05 + 0.3 * slew_n)
    falling = 0.1 + 0.002 * 2 + 0.03 + 0.1 * slew_s + 0.001 * 1 - (0.06 + 0.3 * slew_n)
    assert found.hold_slack_ns == pytest.approx(min(rising, falling), abs=1e-12)
    assert found.hold_endpoint == "q"
    assert found.violations == []
    # Without a path from register to register, and without hold times.
    alone = module(["input clk d", "output q"], ("r", "DFF", {"CK": "clk", "D": "d", "Q": "q"}))
    assert timing.examine(alone, read(tmp_path, liberty(WITH_HOLD))).hold_slack_ns is None
    assert timing.examine(REGISTERS, read(tmp_path, liberty())).hold_slack_ns is None


def test_hold_with_wires(tmp_path):
    read(tmp_path, liberty(WITH_HOLD, wires(0.2)))
    found = timing.examine(REGISTERS, find_library(str(tmp_path / "tiny.lib"), "", "long"))
    wire = 1.5 * 1.5
    slew_s = 0.01 + 0.001 * (2 + wire)
    slew_n = 0.01 + 0.5 * slew_s + 0.001 * (1 + wire)
    # Of the inverter's pin and of the register's.
    wires_take = 1.5 * 0.2 * ((wire + 2) + (wire + 1)) / 1000
    rising = (0.12 + 0.002 * (2 + wire) + 0.02 + 0.1 * slew_s + 0.002 * (1 + wire)
              - (0.05 + 0.3 * slew_n))
    falling = (0.1 + 0.002 * (2 + wire) + 0.03 + 0.1 * slew_s + 0.001 * (1 + wire)
               - (0.06 + 0.3 * slew_n))
    assert found.hold_slack_ns == pytest.approx(min(rising, falling) + wires_take, abs=1e-12)


@pytest.mark.parametrize("fanout, length", [(0, 0), (1, 1.5), (2, 4), (3, 4.5), (4, 5), (6, 9)])
def test_length_of_wires(tmp_path, fanout, length):
    read(tmp_path, liberty(head=wires(0)))
    model = WireLoad.of(find_library(str(tmp_path / "tiny.lib"), "", "default"))
    assert model.length(fanout) == pytest.approx(length)


@pytest.mark.parametrize("tree, wire", [
    ("best_case_tree", 0), ("balanced_tree", 4 * 0.2 / 2 * (4 * 1.5 / 2 + 2) / 1000),
    ("worst_case_tree", 4 * 0.2 * (4 * 1.5 + 4) / 1000), ("", 4 * 0.2 / 2 * (3 + 2) / 1000),
])
def test_wires(tmp_path, tree, wire):
    """An input with two readers, and their outputs with one each; resistance in kohm."""
    gates = module(["input a", "output y z"], ("u", "INV", {"A": "a", "Y": "y"}),
                   ("v", "INV", {"A": "a", "Y": "z"}))
    read(tmp_path, liberty(head=wires(0.2, tree)))
    library = find_library(str(tmp_path / "tiny.lib"), "", "long")
    path = timing.analyse(gates, library)["in-out"]
    load_a, load_y = 4 + 4 * 1.5, LOAD + 1.5 * 1.5
    last = 0 if tree == "best_case_tree" else 1.5 * 0.2 * load_y / 1000
    slew = 0.01 + 0.001 * load_a
    assert path.delay_ns == pytest.approx(
        0.004 * load_a + wire + 0.02 + 0.1 * slew + 0.002 * load_y + last, abs=1e-12)


def test_refused_wires(tmp_path):
    read(tmp_path, liberty(head=wires(0)))
    with pytest.raises(ValueError, match="^--wire-load must be one of short, long or default, "
                                         "which is long in tiny, not 'middle'$"):
        find_library(str(tmp_path / "tiny.lib"), "", "middle")
    read(tmp_path, liberty(head=wires(0).replace("(2, 4)", "(2)")))
    library = find_library(str(tmp_path / "tiny.lib"), "", "long")
    with pytest.raises(ToolError, match=r"line \d+: fanout_length must be two numbers"):
        timing.analyse(REGISTERS, library)
    read(tmp_path, liberty(head=wires(0, "any_tree")))
    library = find_library(str(tmp_path / "tiny.lib"), "", "long")
    with pytest.raises(ToolError, match=r"line \d+: tree_type must be one of best_case_tree, "):
        timing.analyse(REGISTERS, library)


def test_largest_loads_and_slews(tmp_path):
    chain = module(["input a", "output y"], ("u0", "INV", {"A": "a", "Y": "n"}),
                   ("u1", "INV", {"A": "n", "Y": "y"}))
    inverter = CELLS["INV"].replace("pin (Y) {", "pin (Y) { max_capacitance : 4;").replace(
        "pin (A) {", "pin (A) { max_transition : 0.0125;")
    library = read(tmp_path, liberty(CELLS | {"INV": inverter}, "default_max_transition : 0.0225;"))
    slew_n = 0.01 + 0.5 * 0.012 + 0.001 * 2
    slew_y = 0.01 + 0.5 * slew_n + 0.001 * LOAD
    assert slew_n < 0.0225 < slew_y
    assert [asdict(one) for one in timing.examine(chain, library).violations] == [
        {"kind": "max_capacitance", "cell": "INV", "pin": "Y", "net": "y", "value": LOAD,
         "limit": 4.0},
        {"kind": "max_transition", "cell": "INV", "pin": "A", "net": "n",
         "value": pytest.approx(slew_n), "limit": 0.0125},
        {"kind": "max_transition", "cell": "INV", "pin": "Y", "net": "y",
         "value": pytest.approx(slew_y), "limit": 0.0225}]
    heavy = liberty(CELLS, "default_max_capacitance : 4.5;")
    found, = timing.examine(chain, read(tmp_path, heavy)).violations
    assert (found.kind, found.net, found.limit) == ("max_capacitance", "y", 4.5)


@pytest.mark.long
def test_corners(tmp_path, capsys):
    """The netlist is mapped at the first corner and timed at each."""
    typical = find_library()
    text = typical.path.read_text()
    for name, unit in (("slow", "1.5ns"), ("fast", "0.5ns")):
        # All tables are over axes in that unit, too, so all delays without load scale with it.
        (tmp_path / f"{name}.lib").write_text(re.sub(r'time_unit\s*: "1ns"',
                                                     f'time_unit : "{unit}"', text))
    path = tmp_path / "synth.json"
    assert synth.main(["top1", "--set", "lanes=4", "--json", str(path),
                       "--corner", str(tmp_path / "slow.lib"),
                       "--corner", str(tmp_path / "fast.lib")]) == 0
    written = json.loads(path.read_text())
    corners = written["units"]["top1"]["corners"]
    delays = {name: corner["delay_ns"] for name, corner in corners.items()}
    assert [*delays] == ["stdcells", "slow", "fast"]
    assert delays["slow"] == pytest.approx(1.5 * delays["stdcells"], rel=1e-3)
    assert delays["fast"] == pytest.approx(0.5 * delays["stdcells"], rel=1e-3)
    assert [*written["library"]["corners"]] == ["slow", "fast"]
    out = capsys.readouterr().out
    row = next(line for line in out.splitlines()[4:] if line.startswith("top1"))
    assert row.split()[1:] == [*(f"{delay:.3f}" if delay >= 0.02 else f"{delay:.4f}"
                                 for delay in delays.values()), "-", "-", "-"]


def test_refused_corners(tmp_path):
    for name, cells in (("a", CELLS), ("b", {k: v for k, v in CELLS.items() if k != "NAND"})):
        (tmp_path / f"{name}.lib").write_text(liberty(cells))
    with pytest.raises(ToolError, match="^Corner b lacks cells of a, such as NAND$"):
        find_library(str(tmp_path / "a.lib"), corners=[str(tmp_path / "b.lib")])
    with pytest.raises(ValueError, match="^--corner must give files of different names, not a, a$"):
        find_library(str(tmp_path / "a.lib"), corners=[str(tmp_path / "a.lib")])


needs_opensta = pytest.mark.skipif(shutil.which("sta") is None, reason="OpenSTA is not installed")


@needs_opensta
@pytest.mark.long
@pytest.mark.parametrize("resistance", [0, 0.01])
def test_agreement_with_opensta(resistance, tmp_path):
    """Wires, hold slack and slews beyond the limit, on a netlist of all kinds of cells.

    OpenSTA takes no notice of `tree_type` unless it is told so: its wires are balanced. With
    resistance it times the driver with an effective capacitance, this flow with all of it.
    """
    mutants.design(tmp_path)
    head = wires(resistance).replace("default_wire", "default_max_transition : 0.05; default_wire")
    (tmp_path / "cells.lib").write_text(mutants.BASE.replace(
        "default_operating_conditions : typical;", head))
    library = find_library(str(tmp_path / "cells.lib"), "", "default")
    found = timing.examine(mutants.NETLIST, library)
    script = OPENSTA.format(name="top", clock="[get_ports clk]", driver=library.driver, load=LOAD,
                            period=0)
    script += "".join(f"puts <{kind}>\nreport_checks -digits 6 -path_delay max {which}\n"
                      for kind, which in mutants.CLASSES.items())
    script += (f"puts <hold>\nreport_checks -digits 6 -path_delay min "
               f"{mutants.CLASSES['reg-reg']}\nputs <slews>\n"
               "report_check_types -max_transition -all_violators -digits 6\nexit\n")
    (tmp_path / "run.tcl").write_text(script)
    log = subprocess.run(["sta", "-no_splash", "-exit", "run.tcl"], cwd=tmp_path, text=True,
                         capture_output=True, check=True).stdout
    *parts, slews = re.split(r"<\S+>\n", log)[1:]
    slacks = [float(re.search(r"(\S+)\s+slack", part)[1]) for part in parts]
    exact = {"abs": 2e-6} if resistance == 0 else {"rel": 0.005}
    assert [found.paths[kind].delay_ns for kind in mutants.CLASSES] == pytest.approx(
        [-slack for slack in slacks[:4]], **exact)
    assert found.hold_slack_ns == pytest.approx(slacks[4], **exact)
    if resistance == 0:
        pins = re.findall(r"^(\w+)/(\w+) +0.05\S* +(\S+)", slews, re.M)
        types = {name: cell["type"] for name, cell in mutants.NETLIST["cells"].items()}
        expected = sorted((types[name], pin, float(slew)) for name, pin, slew in pins)
        assert expected
        assert sorted((one.cell, one.pin, round(one.value, 6))
                      for one in found.violations) == expected


@needs_opensta
@pytest.mark.long
def test_wires_and_hold_of_a_unit_agree_with_opensta(tmp_path):
    name = "group_accumulator"
    library = find_library("nangate45", "", "default")
    _, netlist = mapping.netlists(name, registry.build(name, ()), library)
    found = timing.examine(netlist, library)
    model = library.group.get("default_wire_load")
    log = opensta(name, netlist, library, f"""set_wire_load_model -name {model}
        puts <max>\nreport_checks -digits 6 -path_delay max {mutants.CLASSES['reg-reg']}
        puts <min>\nreport_checks -digits 6 -path_delay min {mutants.CLASSES['reg-reg']}\n""",
                  tmp_path)
    late, early = (float(re.search(r"(\S+)\s+slack", part)[1])
                   for part in re.split(r"<\S+>\n", log)[1:])
    assert found.paths["reg-reg"].delay_ns == pytest.approx(-late, rel=0.005)
    # OpenSTA uses an effective capacitance where wires have a resistance, and a slack is a small
    # difference of delays; without resistance both agree to the last digit, see above.
    assert found.hold_slack_ns == pytest.approx(early, rel=0.01)
