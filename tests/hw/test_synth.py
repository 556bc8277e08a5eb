# SPDX-License-Identifier: BSD-2-Clause
"""The synthesis report's command line, its table and its JSON."""

import dataclasses
import json
import time

import pytest
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw import registry, synth
from hw.flow import mapping, measurement, partition, power
from hw.flow.liberty import find_library
from hw.flow.power import amount
from hw.lib.buffer import Bank
from hw.report import comparison, sweep, text_tables
from hw.tools import yosys
from hw.tools.yosys import ToolError
from hw.verilog import emit

RESULT = {
    "cells", "area_um2", "sequential_area_um2", "flip_flops", "area_timed_um2", "delay_ns",
    "fmax_mhz", "path_class", "startpoint", "endpoint", "io_delay_ns", "fmax_io_mhz", "path",
    "paths", "cells_by_type", "synthesis_s", "parameters", "script", "hierarchical", "tiles",
    "area_per_tile_um2", "memories", "memory_bits", "hold_slack_ns", "violations", "fanout_buffers",
}


class Register(wiring.Component):
    """One inverting register, with or without feedback."""

    def __init__(self, *, feedback):
        self.feedback = feedback
        super().__init__({"a": In(1), "y": Out(1)})

    def elaborate(self, platform):
        m = Module()
        held = Signal(init=1)
        m.d.sync += held.eq(~(self.a & held) if self.feedback else ~self.a)
        m.d.comb += self.y.eq(held)
        return m


def test_row_and_json(tmp_path, capsys):
    path = tmp_path / "new" / "synth.json"
    assert synth.main(["top1", "--set", "lanes=4", "--json", str(path)]) == 0
    out, err = capsys.readouterr()
    assert "synth: top1 (1/1)" in err

    written = json.loads(path.read_text())
    assert set(written) == {"units", "library", "versions", "script"}
    assert written["library"]["name"] == "NangateOpenCellLibrary"
    assert set(written["script"]) == {"area", "timing", "drive.txt"}
    assert list(tmp_path.glob("**/*.*")) == [path]
    unit = written["units"]["top1"]
    assert set(unit) == RESULT
    assert "synth -flatten -top top1\n" in unit["script"] and "{" not in unit["script"]
    assert unit["parameters"] == {"lanes": 4}
    assert unit["cells"] == sum(unit["cells_by_type"].values())
    library = find_library()
    area = sum(number * library.cells[kind].area for kind, number in unit["cells_by_type"].items())
    assert unit["area_um2"] == pytest.approx(area)
    assert (unit["path_class"], unit["flip_flops"], unit["sequential_area_um2"]) == ("in-out", 0, 0)
    assert unit["fmax_mhz"] == pytest.approx(1000 / unit["delay_ns"], rel=1e-4)
    assert unit["delay_ns"] == unit["io_delay_ns"] == unit["path"][-1]["arrival_ns"]
    assert unit["startpoint"].startswith("codes[") and unit["endpoint"].startswith("lane[")

    row, = (line for line in out.splitlines() if line.startswith("top1 "))
    assert row.split()[1:3] == [str(unit["cells"]), f"{unit['area_um2']:.0f}"]
    assert f"{unit['delay_ns']:.3f}  in-out" in row
    assert row.endswith(f"{unit['startpoint']} -> {unit['endpoint']}")
    # Neither the report nor the file names a place on this machine.
    assert "/" not in out.replace("I/O", "").replace("(1/1)", "")
    assert str(library.path.parent) not in path.read_text()


class Pair(wiring.Component):
    """Two registers, the second one's data inverted twice on the way through both components."""

    def __init__(self):
        super().__init__({"a": In(1), "y": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.first = first = Register(feedback=False)
        m.submodules.second = second = Register(feedback=False)
        m.d.comb += [first.a.eq(self.a), second.a.eq(first.y), self.y.eq(second.y)]
        return m


@pytest.mark.long
def test_module_by_module(monkeypatch):
    """Both ways the netlist is flat, with paths through several modules."""
    monkeypatch.setattr(partition, "LARGEST", 1)
    results = {}
    for hierarchical in (False, True):
        results[hierarchical] = result = measurement.synthesize(
            "top", Pair(), find_library(), hierarchical=hierarchical)
        assert result["hierarchical"] == hierarchical
        assert (result["path_class"], result["flip_flops"]) == ("reg-reg", 2)
        assert result["startpoint"].startswith("first")
    # Flat, nothing keeps an inverter from going to the other side of a register's output.
    assert results[True]["area_um2"] >= results[False]["area_um2"]


class Logic(wiring.Component):
    """Registers on both sides of a memory that is elsewhere."""

    def __init__(self):
        super().__init__({"x": In(12), "address": In(5), "y": Out(12),
                          "write_row": Out(12), "read_row": In(12)})

    def elaborate(self, platform):
        m = Module()
        held = Signal(12)
        m.d.sync += [held.eq(self.x + held), self.y.eq(self.read_row ^ held)]
        m.d.comb += self.write_row.eq(held * 5)
        return m


class Holder(wiring.Component):
    """The same with two memories, one of which gives the rows."""

    def __init__(self):
        super().__init__({"x": In(12), "address": In(5), "y": Out(12), "z": Out(12)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.logic = logic = Logic()
        m.d.comb += [logic.x.eq(self.x), logic.address.eq(self.address), self.y.eq(logic.y)]
        for name in ("first", "second"):
            m.submodules[name] = bank = Bank(12, depth=24)
            m.d.comb += [bank.write.eq(self.x[0]), bank.read.eq(self.x[1]),
                         bank.write_address.eq(self.address), bank.read_address.eq(self.address),
                         bank.write_row.eq(logic.write_row)]
            m.d.comb += (logic.read_row if name == "first" else self.z).eq(bank.read_row)
        return m


@pytest.mark.parametrize("hierarchical", [pytest.param(False, marks=pytest.mark.long), True])
def test_memories_are_left_out(hierarchical, monkeypatch):
    monkeypatch.setattr(partition, "LARGEST", 1)
    library = find_library()
    logic, holder = (measurement.synthesize("top", component, library, hierarchical=hierarchical)
                     for component in (Logic(), Holder()))
    assert (logic["memories"], logic["memory_bits"]) == (0, 0)
    assert (holder["memories"], holder["memory_bits"]) == (2, 2 * 24 * 12)
    assert holder["flip_flops"] == logic["flip_flops"] == 24
    assert holder["sequential_area_um2"] == logic["sequential_area_um2"]
    # Mapped as a whole, the order of the nets, which has changed, decides between equal choices.
    assert holder["area_um2"] == pytest.approx(logic["area_um2"], rel=0 if hierarchical else 0.02)
    # From the memories' pins and to them.
    assert holder["paths"]["in-reg"]["startpoint"]
    endpoint = holder["paths"]["reg-out"]["endpoint"]
    assert endpoint.startswith(("first.write_row[", "second.write_row["))
    assert "blackbox top_bank\n" in holder["script"] and "blackbox" not in logic["script"]

    results = {"units": {"top": holder | {"tiles": None, "area_per_tile_um2": None,
                                          "parameters": {}}}, **measurement.describe(library)}
    assert "\ntop: 576 bits in 2 memories, not in its area.\n" in text_tables.table(results)


def test_memories_are_alone_in_their_modules(monkeypatch):
    with pytest.raises(ToolError, match="^top: top holds a memory, which must be in a module of "):
        measurement.synthesize("top", Bank(4, depth=8), find_library())

    def text(component, name):
        return emit.verilog(component, name).replace(
            "memory[read_address];", "memory[read_address] & write_row;")

    monkeypatch.setattr(measurement, "verilog", text)
    with pytest.raises(ToolError, match="^top: top_bank holds a memory, which must be in a mod"):
        measurement.synthesize("top", Holder(), find_library())


def test_kept_and_fresh(tmp_path, capsys, monkeypatch):
    """Figures come from the cache unless they are to be fresh; a damaged one is measured again."""
    monkeypatch.setenv("M2XFP_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "synth.json"
    runs = []

    def run(script, **options):
        runs.append(script)
        return there(script, **options)

    there = yosys.run
    monkeypatch.setattr(yosys, "run", run)

    def measured(*options):
        del runs[:]
        assert synth.main(["top1_decode", "--json", str(path), *options]) == 0
        unit = json.loads(path.read_text())["units"]["top1_decode"]
        del unit["synthesis_s"]
        return unit, len(runs)

    first, number = measured()
    assert number == 2
    assert measured() == (first, 0)
    assert measured("--fresh") == (first, 2)
    for name, repeated in (("figures.json", 0), ("netlists.json", 1), ("unit.v", 1)):
        kept, = (tmp_path / "cache").glob(f"*/{name}")
        kept.write_text(kept.read_text()[:-20])
        if name == "netlists.json":
            figures, = (tmp_path / "cache").glob("*/figures.json")
            figures.write_text("{}")
        assert measured() == (first, repeated)
    capsys.readouterr()


def test_lines_come_as_soon_as_they_are_known(tmp_path, capsys, monkeypatch):
    shown = []

    def figures(name, *arguments, **options):
        # The second is done before the first, the third waits for the first to be printed.
        if name == "top1":
            while "second" not in shown:
                time.sleep(0.01)
        if name == "pe_tile":
            while not any("top1 " in text for text in shown):
                shown.append(capsys.readouterr().out)
                time.sleep(0.01)
        else:
            shown.append("second")
        return known

    library = find_library()
    known = measurement.synthesize("top", Register(feedback=True), library)
    known |= {"parameters": {}, "tiles": None, "area_per_tile_um2": None}
    monkeypatch.setattr(sweep, "figures", figures)
    arguments = ["top1", "decoder", "pe_tile", "--json", str(tmp_path / "synth.json")]
    assert synth.main(arguments) == 0
    out = "".join(text for text in shown if text != "second") + capsys.readouterr().out
    results = json.loads((tmp_path / "synth.json").read_text())
    assert out == text_tables.table(results) + "\n"
    assert [line.split()[0] for line in out.splitlines()[2:5]] == ["top1", "decoder", "pe_tile"]


def test_area_per_tile(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(registry.UNITS, "top1", dataclasses.replace(
        registry.UNITS["top1"], tiles=lambda lanes: lanes // 2, hierarchical=True))
    path = tmp_path / "synth.json"
    assert synth.main(["top1", "--set", "lanes=4", "--json", str(path)]) == 0
    unit = json.loads(path.read_text())["units"]["top1"]
    assert (unit["hierarchical"], unit["tiles"]) == (True, 2)
    assert unit["area_per_tile_um2"] == pytest.approx(unit["area_um2"] / 2, abs=1e-3)
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("top1* ") for line in lines)
    each = amount(unit["area_per_tile_um2"], 0)
    assert any(line.startswith(f"top1: {each} um2 for each of its 2") for line in lines), lines


def test_tiles_of_the_array():
    unit = registry.UNITS["mac_array"]
    assert [unit.tiles(columns=columns, weight_width=1, metadata=metadata)
            for columns, metadata in ((1, True), (32, False))] == [4, 128]


@pytest.mark.long
def test_same_figures_again(tmp_path, monkeypatch):
    figures = []
    for folder in "first", "second":
        # The second time nothing is kept either.
        monkeypatch.setenv("M2XFP_CACHE_DIR", str(tmp_path / folder))
        figures.append(measurement.synthesize("top", Register(feedback=True), find_library()))
    first, second = figures
    del first["synthesis_s"], second["synthesis_s"]
    assert first == second


@pytest.mark.parametrize("feedback, kind", [(True, "reg-reg"), (False, "reg-out")])
def test_class_of_path(feedback, kind):
    result = measurement.synthesize("top", Register(feedback=feedback), find_library())
    assert result["path_class"] == kind
    assert result["flip_flops"] == 1
    assert 0 < result["sequential_area_um2"] < result["area_um2"]
    assert ("reg-reg" in result["paths"]) == feedback
    assert result["io_delay_ns"] == max(
        path["delay_ns"] for key, path in result["paths"].items() if key != "reg-reg")
    assert result["fmax_io_mhz"] <= result["fmax_mhz"]


def test_foreign_cells_are_refused():
    class Foreign(wiring.Component):
        y: Out(1)

        def elaborate(self, platform):
            m = Module()
            m.submodules.x = Instance("MYSTERY", o_Y=self.y)
            return m

    with pytest.raises(ToolError, match="^top: "):
        measurement.synthesize("top", Foreign(), find_library())


def test_comparison_of_formats(tmp_path, capsys, monkeypatch):
    # One small unit in place of the many: what is built, and how it is counted and related.
    rows = [("tile", "MXFP4", "top1", ("lanes=4",), 1), ("tile", "NVFP4", "top1", (), 1 / 2),
            ("array", "MXFP4", "top1", ("lanes=2",), 1), ("array", "M2XFP", "top1", (), 2)]
    asked = []
    monkeypatch.setattr(comparison, "format_units", lambda columns: asked.append(columns) or rows)
    path = tmp_path / "new" / "formats.json"
    assert synth.main(["--compare", "formats", "--json", str(path)]) == 0
    assert asked == ["4"]
    units = json.loads(path.read_text())["units"]
    assert list(units) == ["top1 lanes=4", "top1", "top1 lanes=2"]
    assert units["top1 lanes=4"]["parameters"] == {"lanes": 4}

    lines = [line.split() for line in capsys.readouterr().out.splitlines()[2:6]]
    area = {label: unit["area_um2"] for label, unit in units.items()}
    delay = {label: unit["delay_ns"] for label, unit in units.items()}
    four, eight, two = ("top1 lanes=4", "top1", "top1 lanes=2")
    for line, start, label, count, base in [
            (lines[0], ["tile", "MXFP4"], four, 1, four), (lines[1], ["NVFP4"], eight, 0.5, four),
            (lines[2], ["array", "MXFP4"], two, 1, two), (lines[3], ["M2XFP"], eight, 2, two)]:
        assert line[:len(start)] == start
        assert line[len(start):] == [
            *label.split(), f"{count:g}", amount(count * area[label], 0),
            f"{count * area[label] / area[base]:.2f}", f"{delay[label]:.3f}",
            f"{delay[label] / delay[base]:.2f}"]


def test_flattened(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(registry.UNITS, "top1", dataclasses.replace(
        registry.UNITS["top1"], hierarchical=True))
    path = tmp_path / "synth.json"
    assert synth.main(["top1", "--set", "lanes=2", "--flatten", "--json", str(path)]) == 0
    unit = json.loads(path.read_text())["units"]["top1"]
    assert not unit["hierarchical"] and "synth -flatten -top top1\n" in unit["script"]
    assert "\ntop1 " in capsys.readouterr().out


@pytest.mark.long
def test_other_mapper(tmp_path, capsys):
    path = tmp_path / "synth.json"
    units = []
    for options in [], ["--amap"]:
        assert synth.main(["top1_decode", *options, "--json", str(path)]) == 0
        written = json.loads(path.read_text())
        unit = written["units"]["top1_decode"]
        area, timed = unit["script"].split("design -load common\n")
        for script in area, written["script"]["area"]:
            assert (";amap,-m\n" in script) == bool(options)
        assert "amap" not in timed
        printed = capsys.readouterr().out
        assert f" {unit['area_um2']:.0f} " in printed
        assert ("The areas come from ABC's amap" in printed) == bool(options)
        units.append(unit)
    plain, other = units
    assert other["area_um2"] < plain["area_um2"]
    assert other["area_timed_um2"] == plain["area_timed_um2"]


@pytest.mark.long
def test_other_mapper_is_right():
    library = find_library()
    text = emit.verilog(registry.build("pe_tile", []), "pe_tile")
    netlist, _ = mapping.map_twice("pe_tile", text, (), {}, library, amap=True)
    found = power.inspector()("pe_tile", [], netlist, library)
    assert found["real"]["checked"] > 1000 and found["random"]["checked"] > 1000
    # Of a gate that is another one, the simulation says so.
    gate = next(cell for cell in netlist["cells"].values() if cell["type"] == "XOR2_X1")
    gate["type"] = "XNOR2_X1"
    gate["connections"]["ZN"] = gate["connections"].pop("Z")
    with pytest.raises(ToolError, match="differ from those of the golden model"):
        power.inspector()("pe_tile", [], netlist, library)


@pytest.mark.long
def test_mapping_by_module_is_like_flattened(tmp_path, capsys):
    """What makes a large array's area known: little is lost at the borders of modules."""
    path = tmp_path / "mapping.json"
    assert synth.main(["--compare", "mapping", "--columns", "4", "--json", str(path)]) == 0
    units = json.loads(path.read_text())["units"]
    assert list(units) == ["mac_array columns=4", "mac_array columns=4 --flatten"]
    modules, flat = units.values()
    assert (modules["hierarchical"], flat["hierarchical"]) == (True, False)
    assert "Each in a run of its own" in modules["script"]
    assert "Each in a run of its own" not in flat["script"]
    assert modules["area_um2"] == pytest.approx(flat["area_um2"], rel=0.03)
    first, second = capsys.readouterr().out.splitlines()[2:4]
    assert first.split()[3:6] == ["by", "module", "mac_array"]
    area = second.split()
    assert area[-4:-2] == [f"{flat['area_um2']:.0f}",
                           f"{flat['area_um2'] / modules['area_um2']:.2f}"]


def test_compared_units_are_offered():
    rows = comparison.format_units("16")
    assert [format for _, format, *_ in rows].count("M2XFP") == 3
    for _, _, name, settings, _ in rows:
        assert name in registry.UNITS
        chosen = registry.parameters(name, settings)
        assert chosen.get("columns", 16) == 16
    # The first of each part is what the others are compared with.
    parts = [part for part, *_ in rows]
    assert {rows[parts.index(part)][1] for part in parts} == {"MXFP4"}


def test_mappers_are_compared(tmp_path, capsys, monkeypatch):
    rows = comparison.mapper_units("16")
    assert len(rows) == 12
    for plain, other in zip(rows[::2], rows[1::2], strict=True):
        assert (plain[1], other[1]) == ("&nf", "amap")
        assert other[3] == (*plain[3], "--amap") and (plain[0], plain[2]) == (other[0], other[2])
        assert registry.parameters(plain[2], plain[3]).get("columns", 16) == 16

    monkeypatch.setattr(comparison, "mapper_units",
                        lambda columns: [("tile", "&nf", "top1", (), 1),
                                         ("tile", "amap", "top1", ("--amap",), 1)])
    path = tmp_path / "mappers.json"
    assert synth.main(["--compare", "mappers", "--json", str(path)]) == 0
    first, second = json.loads(path.read_text())["units"].values()
    assert ("amap" in first["script"], "amap" in second["script"]) == (False, True)
    line = capsys.readouterr().out.splitlines()[3].split()
    assert line[:4] == ["amap", "top1", "--amap", "1"]
    assert line[4:6] == [f"{second['area_um2']:.0f}",
                         f"{second['area_um2'] / first['area_um2']:.2f}"]


FILES = "Library", "cannot write", "pyproject.toml", "no.toml"


@pytest.mark.parametrize("arguments, message", [
    (["--compare", "units"],
     "--compare must be one of formats, silicon, mapping, mappers, not 'units'"),
    (["--compare", ""], "--compare must be one of formats, silicon, mapping, mappers, not ''"),
    (["top1", "--power", "--amap"], "--power is of what is mapped for delay; leave out --amap"),
    (["--compare", "mapping", "--flatten"],
     "--compare chooses units itself; leave out --flatten"),
    (["--compare", "mappers", "--amap"], "--compare chooses units itself; leave out --amap"),
    (["top1", "--compare", "formats"], "--compare chooses units itself; leave out top1"),
    (["--compare", "formats", "--set", "lanes=4"],
     "--compare chooses units itself; leave out --set lanes=4"),
    (["--compare", "formats", "--columns", "0"],
     "mac_array: Columns must be a positive integer, not 0 "),
    (["top1", "top1"], "Each unit must be given once, not 'top1' again"),
    (["top1", "--set", "lanes=4", "--set", "lanes=4"], "lanes must be set once, not again to '4'"),
    (["top1", "--config", "lite"], "must be one of: lanes, not 'config'"),
    (["accelerator", "--config", "no.toml"], "no.toml: No such file or directory"),
    (["top1", "--columns", "4"], "--columns 4 needs --compare"),
    (["topp1"], "Unit must be one of top1, "),
    (["top1", "--set", "lanes=3"], "top1: Lane count must be a power of two"),
    (["top1", "--set", "lane=3"], "must be one of: lanes, not 'lane'"),
    (["--set", "lanes=4"], "--set lanes=4 needs exactly one unit, not "),
    (["top1", "--wire-load", "long"], "--wire-load must be one of 1K_hvratio_1_4, "),
    (["top1", "--corner", "no.lib"], "Library no.lib: No such file or directory; give nangate45"),
    (["top1", "--sweep", "lanes=4", "--corner", "no.lib"], "--sweep times at one corner; leave"),
    (["--compare", "formats", "--corner", "no.lib"], "--compare times at one corner; leave out"),
    (["--report", "no.html", "--corner", "no.lib"], "--report is without wires and at one corner"),
    (["top1", "--driver", "INV_X1"], "--driver must be a buffer of NangateOpenCellLibrary, one of"),
    (["top1", "--library", "no.lib"], "Library no.lib: No such file or directory; give nangate45"),
    (["top1", "--library", "pyproject.toml"], "pyproject.toml, line 1: not in the Liberty format"),
    (["top1", "--json", "pyproject.toml/x.json"], "cannot write --json pyproject.toml/x.json: "),
])
def test_errors_are_one_line(arguments, message, capsys):
    # A file that cannot be read or written is a failure, all else is wrong use.
    assert synth.main(arguments) == (1 if message.startswith(FILES) else 2)
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err


@pytest.mark.parametrize("arguments", [["top1"], ["--compare", "formats"]])
def test_table_is_printed_whatever_happens_to_the_file(arguments, tmp_path, capsys, monkeypatch):
    """The file's folder has gone meanwhile."""
    figures = {"hierarchical": False, "cells": 1, "area_um2": 2.0, "sequential_area_um2": 1.0,
               "area_timed_um2": 3.0, "delay_ns": None, "fmax_io_mhz": 500, "synthesis_s": 1,
               "startpoint": None, "area_per_tile_um2": None, "memory_bits": 0, "script": "",
               "violations": [], "hold_slack_ns": None}
    monkeypatch.setattr(synth.sweep, "figures", lambda *_, **options: figures)

    def write(path, text):
        raise OSError(2, "No such file or directory")

    monkeypatch.setattr(synth, "write", write)
    assert synth.main([*arguments, "--json", str(tmp_path / "a.json")]) == 1
    out, err = capsys.readouterr()
    assert "Library NangateOpenCellLibrary" in out
    assert err.splitlines()[-1] == (
        f"error: cannot write --json {tmp_path / 'a.json'}: No such file or directory")


def test_outputs_are_tried_first(tmp_path, capsys, monkeypatch):
    def figures(*_, **options):
        raise AssertionError("measured")

    monkeypatch.setattr(synth.sweep, "figures", figures)
    assert synth.main(["top1", "--json", str(tmp_path)]) == 2
    (tmp_path / "file").touch()
    monkeypatch.setenv("M2XFP_CACHE_DIR", str(tmp_path / "file" / "cache"))
    assert synth.main(["top1", "--json", str(tmp_path / "a.json")]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"error: --json must be a regular file, not the folder {tmp_path}",
        f"error: cannot keep figures in {tmp_path / 'file' / 'cache'}; M2XFP_CACHE_DIR sets "
        "another folder: Not a directory"]


def test_unknown_option_is_one_line(capsys):
    with pytest.raises(SystemExit) as caught:
        synth.main(["--libary", "x"])
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
