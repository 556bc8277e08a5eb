# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""The page of all figures: its contents, its independence, its errors, and areas of submodules."""

import dataclasses
import functools
import re
import sys
from html import unescape
from html.parser import HTMLParser

import pytest
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw import registry, synth
from hw.flow import fpga, hierarchy_area, measurement, partition, power
from hw.flow.liberty import find_library
from hw.lib.buffer import Bank
from hw.report import comparison, gather, html, sweep
from hw.report.sweep import Point

once = functools.cache(find_library)

# The page must escape each of these characters.
NASTY = "<b>&\"'"


def figures(point, power):
    """A made-up result of a measurement; points differ in their areas."""
    chosen = registry.parameters(point.unit, point.settings)
    unit = registry.UNITS[point.unit]
    area = 1000.0 + 10 * len(point.label) + 3 * len(point.unit)
    tiles = unit.tiles and unit.tiles(**chosen)
    activity = dict.fromkeys(("toggles", "switching_uw", "internal_uw", "flip_flops_uw", "clock_uw",
                             "leakage_uw", "total_uw", "energy_fj", "energy_per_operation_fj"), 7.5)
    activity["checked"] = 64
    result = {
        "hierarchical": unit.hierarchical, "script": f"synth -top {NASTY}\n", "memory_bits": 0,
        "parameters": {key: str(value) if isinstance(value, str) else value
                       for key, value in chosen.items()},
        "tiles": tiles, "area_per_tile_um2": tiles and area / tiles, "cells": 9, "area_um2": area,
        "sequential_area_um2": area / 4, "flip_flops": 5, "area_timed_um2": 1.1 * area,
        "delay_ns": 1.25, "path_class": "reg-reg", "startpoint": f"from{NASTY}",
        "endpoint": "to", "io_delay_ns": 0.75, "fmax_io_mhz": 800.0,
        "path": [{"cell": "AND2_X1", "pin": "A1->ZN", "edge": "rise", "arrival_ns": 1.25,
                  "net": f"net{NASTY}"}],
        "paths": {"reg-reg": {"delay_ns": 1.25}},
    }
    if power:
        result["power"] = {"clock_mhz": 500.0, "voltage_v": 1.1, "operation": "MAC",
                           "operations": 8, "real": activity, "random": activity}
    return result


def make_up(folder, monkeypatch):
    """Replaces synthesis; returns the points that the command asks for, with and without power."""
    asked = {True: [], False: []}

    def run(points, library, *, power=False):
        asked[power] += points
        return {point: figures(point, power) for point in points}, {}

    monkeypatch.chdir(folder)
    monkeypatch.setenv("M2XFP_CACHE_DIR", str(folder / "cache"))
    monkeypatch.setattr(html, "find_library", once)
    monkeypatch.setattr(sweep, "run", run)
    parts = {name: {"module": f"m{name}", "instances": number, "area_um2": area}
             for name, number, area in (("", 1, 100.0), ("column / tile", 4, 300.0),
                                        (f"x{NASTY}", 1, 0.0))}
    monkeypatch.setattr(gather, "_break_down", lambda library: dict.fromkeys(
        gather.BROKEN_DOWN, parts))
    return asked


@pytest.fixture
def made_up(tmp_path, monkeypatch):
    return make_up(tmp_path, monkeypatch)


class Page(HTMLParser):
    """Tags with their attributes, and the rows of all tables by section."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.rows, self.section, self.cell = [], [], {}, None, None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        if tag == "section":
            self.section = self.rows.setdefault(dict(attributes)["id"], [])
        elif tag == "tr":
            self.section.append([])
        elif tag in ("td", "th"):
            self.cell = ""

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag in ("td", "th"):
            self.section[-1].append(self.cell.strip())
            self.cell = None

    def handle_data(self, text):
        if self.cell is not None:
            self.cell += text


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page of figures that are made up, parsed, and the points that were asked for."""
    pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        asked = make_up(folder, patch)
        assert synth.main(["--report", "new/report.html"]) == 0
    assert [path.name for path in (folder / "new").iterdir()] == ["report.html"]
    text = (folder / "new" / "report.html").read_text(encoding="utf-8")
    return text, Page(text), asked


@pytest.mark.long
def test_page_stands_alone(page):
    text, parsed, _ = page
    assert parsed.open == []
    assert not re.search(r"(?i)https?:|@import|url\(|<script|<link", text)
    sources = [value for _, attributes in parsed.tags for key, value in attributes.items()
               if key in ("src", "href", "data", "srcset", "action")]
    assert all(source.startswith(("#", "data:image/png;base64,iVBOR")) for source in sources)
    anchors = {attributes["id"] for _, attributes in parsed.tags if "id" in attributes}
    assert {source[1:] for source in sources if source.startswith("#")} == anchors
    assert sum(tag == "img" for tag, _ in parsed.tags) == len(gather.deep_units()) + 2 + 3


@pytest.mark.long
def test_everything_is_on_the_page(page):
    text, parsed, _ = page
    rows = parsed.rows
    names = [row[0].rstrip("*") for row in rows["units"]]
    assert names[1:len(registry.UNITS) + 1] == [*registry.UNITS]
    pe_tile = figures(Point("pe_tile", ()), False)
    row = next(row for row in rows["units"] if row[0] == "pe_tile")
    assert row[2:9] == ["9", f"{pe_tile['area_um2']:.0f}", f"{pe_tile['area_timed_um2']:.0f}",
                        "5", "25%", "1.250", "reg-reg"]
    tiles = [row for row in rows["units"] if row[0] == "mac_array columns=4*"]
    assert [row[2] for row in tiles] == ["16"]
    assert {row[0] for row in rows["curves"] if len(row) == 6} >= {"MXFP4", "M2XFP", "4", "16"}
    assert [row[1] for row in rows["formats"][1:]].count("NVFP4") == 4
    assert sum(row[1] == "random" for row in rows["power"]) == len(
        [name for name in registry.UNITS if name != "accelerator"])
    published = {row[0]: row for row in rows["published"]}
    assert published["quantization engine"][1:3] == ["mW", "0.663"]
    assert published["PE tile, NVFP4"][2:4] == ["2104.7", "1.02"]
    assert "cv32e40x-mxdotp M2XFP4 engine, 16 MACs, fused FP32, 5 stages" in published
    assert "not printed by this command" in text and "nothing here is scaled" in text
    assert len([row for row in rows["paths"] if row[0] == "AND2_X1"]) == len(registry.UNITS)
    described = measurement.describe(once())
    assert ["its sha256", described["library"]["sha256"]] in rows["flow"]
    assert all([key, value] in rows["flow"] for key, value in described["versions"].items())
    assert "python -m hw.synth --report new/report.html" in text
    assert described["script"]["timing"] in unescape(text)


def test_ours_are_measured(page):
    """Figures beside the paper's are those of the run, and their ratios."""
    _, parsed, asked = page
    tiles = [row for row in parsed.rows["published"] if row[0].startswith("PE tile")]
    # Of NVFP4 half a tile of 16 lanes.
    areas = [share * figures(Point(*point), False)["area_um2"] for point, share in (
        (("pe_tile", ("metadata=False",)), 1), (("nvfp4_pe_tile", ("lanes=16",)), 1 / 2),
        (("pe_tile", ()), 1))]
    assert tiles[1][4] == "nvfp4_pe_tile lanes=16, 0.5 of it"
    assert [row[5:] for row in tiles[:3]] == [[f"{area:.1f}", f"{area / areas[0]:.2f}"]
                                             for area in areas]
    assert tiles[3][5] == "0.007"
    # Nothing is measured twice.
    both = asked[True] + asked[False]
    assert len(both) == len({(point.unit, str(registry.parameters(point.unit, point.settings)))
                             for point in both})


def test_depths_are_those_of_the_registry():
    for name, unit in registry.UNITS.items():
        if "depth" in unit.parameters:
            found = gather.depths(name)
            assert {depth for format, depth, _ in found if format == "M2XFP"} == {
                *unit.parameters["depth"]}
            for format, depth, point in found:
                chosen = registry.parameters(point.unit, point.settings)
                assert chosen["depth"] == depth
                assert chosen.get("metadata", True) == (format == "M2XFP")
    assert gather.point("pe_tile", ["depth=0", "metadata=True"]) == Point("pe_tile", ())


def test_breakdown_is_drawn_in_full(page):
    text, parsed, _ = page
    rows = parsed.rows["breakdown"]
    assert [row[1:] for row in rows[1:5]] == [
        ["column / tile", "mcolumn / tile", "4", "75.0", "300.0", "75.0%"],
        ["in the unit itself", "m", "1", "100.0", "100.0", "25.0%"],
        [f"x{NASTY}", f"mx{NASTY}", "1", "0.0", "0.0", "0.0%"],
        ["sum", "", "", "", "400.0", ""]]
    bars = [attributes for tag, attributes in parsed.tags if tag == "rect"]
    assert [(bar["x"], bar["width"]) for bar in bars[:2]] == [("0.000%", "75.000%"),
                                                               ("75.000%", "25.000%")]


def test_text_is_escaped(page):
    text, parsed, _ = page
    assert "<b>" not in text
    assert f"net{NASTY}" in {cell for row in parsed.rows["paths"] for cell in row}


class Register(wiring.Component):
    """Adds up."""

    def __init__(self):
        super().__init__({"a": In(4), "y": Out(4)})

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.y.eq(self.a + self.y)
        return m


class Lane(wiring.Component):
    """Two sums and logic between them."""

    def __init__(self):
        super().__init__({"a": In(4), "b": In(4), "y": Out(4)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.sum0 = left = Register()
        m.submodules.sum1 = right = Register()
        m.d.comb += [left.a.eq(self.a), right.a.eq(self.b), self.y.eq(left.y ^ right.y)]
        return m


class Tree(wiring.Component):
    """Three lanes and a memory."""

    def __init__(self):
        super().__init__({"a": In(4), "y": Out(4), "row": Out(4)})

    def elaborate(self, platform):
        m = Module()
        last = self.a
        for i in range(3):
            m.submodules[f"lane{i}"] = lane = Lane()
            m.d.comb += [lane.a.eq(last), lane.b.eq(self.a)]
            last = lane.y
        m.submodules.bank = bank = Bank(4, depth=4)
        m.d.comb += [bank.write.eq(1), bank.read.eq(1), bank.write_address.eq(self.a),
                     bank.read_address.eq(self.a), bank.write_row.eq(last),
                     self.row.eq(bank.read_row)]
        m.d.sync += self.y.eq(last & self.y | self.a)
        return m


@pytest.mark.long
def test_submodules_areas_are_the_units(monkeypatch):
    library = once()
    parts = hierarchy_area.areas("top", Tree(), library)
    assert {name: (part["module"], part["instances"]) for name, part in parts.items()} == {
        "": ("top", 1), "lane": ("top_lane", 3), "lane / sum": ("top_register", 6)}
    # However small, every module is mapped by itself.
    monkeypatch.setattr(partition, "LARGEST", 1)
    unit = measurement.synthesize("top", Tree(), library, hierarchical=True)
    assert sum(part["area_um2"] for part in parts.values()) == pytest.approx(unit["area_um2"],
                                                                             abs=0.01)
    # Every instance is the same netlist.
    alone = measurement.synthesize("top", Register(), library)["area_um2"]
    assert parts["lane / sum"]["area_um2"] == pytest.approx(6 * alone)
    exclusive = parts["lane"]["area_um2"] / 3
    assert exclusive == pytest.approx(4 * library.cells["XOR2_X1"].area)


def test_names_of_instances():
    """Only what is alike is counted together."""
    assert hierarchy_area._names({
        "tile0": "a", "tile1": "a", "top1": "b", "row_1": "c", "x0": "d", "x10": "e", "x9": "e",
    }) == {"tile0": "tile", "tile1": "tile", "top1": "top1", "row_1": "row_1",
           "x0": "x0", "x10": "x9, ...", "x9": "x9, ..."}


@pytest.mark.parametrize("arguments, message", [
    (["top1"], "--report chooses units itself; leave out top1"),
    (["--power"], "--report chooses units itself; leave out --power"),
    (["--json", "a.json"], "--report chooses units itself; leave out --json"),
    (["--sweep", "lanes=4"], "--report chooses units itself; leave out --sweep"),
    (["--amap"], "--report chooses units itself; leave out --amap"),
    (["--library", "no.lib"], "Library no.lib: No such file"),
    (["--report", "file/a.html"], "cannot write --report file/a.html: "),
    (["--report", "folder"], "--report must be a regular file, not the folder folder"),
])
def test_errors_are_one_line(arguments, message, made_up, tmp_path, capsys, monkeypatch):
    if "--library" in arguments:
        monkeypatch.setattr(html, "find_library", find_library)
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    status = 2 if "leave out" in message or "must be" in message else 1
    assert synth.main(["--report", "report.html", *arguments]) == status
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), made_up[True]) == ("", 1, [])
    assert message in err
    assert {path.name for path in tmp_path.iterdir()} - {"cache"} == {"file", "folder"}


def test_fpga(made_up, monkeypatch, tmp_path):
    """Asked for, the page has a section of figures on an FPGA, and else none."""
    monkeypatch.setattr(html, "find_family", fpga.FAMILIES.get)
    # Drawings take long.
    for section in ("_breakdown", "_curves", "_formats", "_power", "_published", "_paths"):
        monkeypatch.setattr(html, section, lambda results: [])
    unit = {"luts": 1234, "flip_flops": 56, "multipliers": 0, "block_rams": 7, "fits": True,
            "fmax_mhz": 123.4, "fmax_io_mhz": 99.9, "path_class": "in-reg", "synthesis_s": 5.0,
            "paths": {"in-reg": {"startpoint": f"from{NASTY}", "endpoint": "to"}}}
    monkeypatch.setattr(html.fpga, "gathered", lambda family: {
        "units": {"top1": unit}, "device": family.device, "seed": 1, "versions": {"nextpnr": "9"},
        "script": {"yosys": "synth_ecp5 -top UNIT"}})
    assert synth.main(["--report", "without.html"]) == 0
    assert "On an FPGA" not in (tmp_path / "without.html").read_text()
    assert synth.main(["--report", "report.html", "--fpga", "ecp5"]) == 0
    text = (tmp_path / "report.html").read_text()
    assert "On an FPGA" in text and f"from{NASTY}" not in text
    row = re.search(r"<tr><td>top1</td><td class=n>1234</td>.*?</tr>", text)[0]
    assert [re.sub("<.*?>", "", cell) for cell in row.split("</td>")[1:8]] == [
        "1234", "56", "0", "7", "123.4", "99.9", "in-reg"]
    assert fpga.FAMILIES["ecp5"].device in text and "--fpga ecp5" in text


def test_needs_matplotlib(made_up, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert synth.main(["--report", "report.html"]) == 2
    assert capsys.readouterr().err == ("error: --report needs matplotlib: pip install "
                                       "'m2xfp-rtl[plot]'\n")
    assert made_up[True] == [] and not [*tmp_path.iterdir()]


def test_nothing_half_written(made_up, monkeypatch, capsys, tmp_path):
    """A point that fails leaves the page of the run before."""
    monkeypatch.setattr(sweep, "run", lambda points, library, power: (
        {}, {points[0]: "top1: no"}))
    (tmp_path / "report.html").write_text("before")
    assert synth.main(["--report", "report.html"]) == 1
    assert capsys.readouterr().err == "error: top1: no\n"
    assert (tmp_path / "report.html").read_text() == "before"
    assert not [*tmp_path.glob("*.part")]


def test_power_is_kept_apart(monkeypatch, tmp_path):
    """What is kept of a point without power does not serve where power is asked for."""
    monkeypatch.setenv("M2XFP_CACHE_DIR", str(tmp_path))
    calls = []

    def measure(name, settings, library, flatten=False, inspect=None):
        calls.append(inspect is not None)
        return {"power": 1} if inspect else {}

    monkeypatch.setattr(measurement, "measure", measure)
    monkeypatch.setattr(sweep, "_prepare", lambda: None)
    point = Point("top1", ())
    for with_power in (False, True, True, False):
        results, failed = sweep.run([point], once(), power=with_power)
        assert (results, failed) == ({point: {"power": 1} if with_power else {}}, {})
    assert calls == [False, True]


@pytest.mark.long
def test_real_page(tmp_path, monkeypatch, capsys):
    format_units = comparison.format_units
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    # Of the large units the smallest alone: the rest takes minutes.
    monkeypatch.setattr(gather, "BROKEN_DOWN", (Point("mac_array", ("columns=1",)),))
    monkeypatch.setattr(gather, "COLUMNS", "1")
    monkeypatch.setattr(power, "UNITS", ["top1"])
    monkeypatch.setattr(gather, "deep_units", lambda: ["pe_tile", "group_accumulator"])
    for name in ("accelerator", "decoder", "group_mac", "nvfp4_array", "nvfp4_quantizer",
                 "sg_engine"):
        monkeypatch.delitem(registry.UNITS, name)
    monkeypatch.setattr(comparison, "format_units", lambda columns: [
        row for row in format_units(columns)
        if row[2] in ("pe_tile", "nvfp4_pe_tile", "quantization_engine")])
    array = registry.UNITS["mac_array"]
    monkeypatch.setitem(registry.UNITS, "mac_array", dataclasses.replace(
        array, parameters=array.parameters | {"columns": (1,), "depth": (5,)}))
    assert synth.main(["--report", "report.html"]) == 0
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    rows = Page(text).rows
    # Module by module, the array is a little larger.
    array = next(row for row in rows["units"] if row[0] == "mac_array*")
    total = next(float(row[5]) for row in rows["breakdown"] if row[1] == "sum")
    assert total == pytest.approx(float(array[3]), rel=0.06)
