# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""Each reset, in a simulator with X, in proofs, and in the files of `hw.generate`."""

import json

import numpy as np
import pytest
from amaranth import Module, ResetSignal, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from golden import stimuli
from golden.accelerator.accelerator import execute, streams
from hw import generate, registry
from hw.tools import yosys
from hw.verilog import Style, emit, equivalence
from sim import golden_config
from tests.hw.test_generate import Sample, lint
from tests.support.verilog_bench import build, missing, run, write_bench

STYLES = [Style(level="low"), Style(reset="async"), Style(reset="async", level="low")]
LIST = "always @(posedge clk or negedge rst_n)"

needs_iverilog = pytest.mark.skipif(missing("iverilog") is not None,
                                    reason=str(missing("iverilog")))


def label(style):
    return f"{style.reset}-{style.level}"


def make(style=STYLES[2]):
    return emit.verilog(Sample(init=3, reset_less=False), "sample", None, style)


def prove(text, style=STYLES[2]):
    equivalence.prove(Sample(init=3, reset_less=False), "sample", text, style)


@pytest.mark.parametrize("style", [
    pytest.param(style, id=label(style), marks=[pytest.mark.long] * (style is not STYLES[2]))
    for style in STYLES])
def test_sample(style, tmp_path):
    text = make(style)
    (tmp_path / "sample.v").write_text(text)
    assert lint(tmp_path / "sample.v", "sample") == ""
    assert f"\n// {style.about[0]}\n" in text
    assert text.count(f"or {'neg' if style.level == 'low' else 'pos'}edge {style.reset_port}") == (
        2 * style.asynchronous)
    prove(text, style)


@pytest.mark.parametrize("old, new, complaint", [
    # A reset that waits for the clock, one at the wrong level, another value, and none.
    pytest.param(LIST, "always @(posedge clk)", "reaches something else", id="edge"),
    pytest.param("if (!rst_n) begin\n      count", "if (!rst_n | i__valid) begin\n      count",
                 "another reset|reaches something else|Multiple edge", id="more",
                 marks=pytest.mark.long),
    pytest.param("count <= 6'd3", "count <= 6'd2", "unproven", id="value",
                 marks=pytest.mark.long),
])
def test_proof_finds_a_wrong_asynchronous_reset(old, new, complaint):
    text = make()
    assert old in text
    with pytest.raises(yosys.ToolError, match=complaint):
        prove(text.replace(old, new, 1))


@pytest.mark.long
@pytest.mark.parametrize("given", STYLES, ids=label)
@pytest.mark.parametrize("wanted", [Style(), *STYLES], ids=label)
def test_proof_tells_styles_apart(given, wanted):
    if given != wanted:
        with pytest.raises(yosys.ToolError):
            prove(make(given), wanted)


class Resets(wiring.Component):
    """A register whose synchronous reset has two causes, and logic that reads the reset."""

    x: In(1)
    y: Out(4)
    z: Out(1)

    def elaborate(self, platform):
        m = Module()
        count = Signal(4, init=9)
        m.d.sync += count.eq(count + 1)
        with m.If(self.x):
            m.d.sync += count.eq(count.init)
        m.d.comb += [self.y.eq(count), self.z.eq(ResetSignal())]
        return m


@pytest.mark.long
def test_a_reset_that_is_read():
    style = Style(level="low")
    equivalence.prove(Resets(), "resets", emit.verilog(Resets(), "resets", None, style), style)


class Clash(wiring.Component):
    """A port with the name of the other reset."""

    rst_n: In(1)
    y: Out(1)

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.y.eq(self.rst_n)
        return m


def test_a_name_that_clashes():
    with pytest.raises(ValueError, match="^clash has a rst_n of its own"):
        emit.verilog(Clash(), "clash", None, Style(level="low"))


def simulate(name, settings, count, styles, folder, *, spoil=None, cycles=None):
    """What the benches of a unit in several styles print, by their labels."""
    unit = registry.UNITS[name]
    parameters = registry.parameters(name, settings)
    component = unit.component(**parameters)
    if name == "accelerator":
        config = golden_config(parameters["config"])
        commands = stimuli.products(np.random.default_rng(0), count, config, largest=2**10)
        with np.errstate(all="ignore"):
            inputs, expected = streams(config, commands, execute(config, commands))
    else:
        inputs = unit.stimuli(np.random.default_rng(0), count, **parameters)
        expected = unit.reference(inputs, **parameters)
    names = {style: label(style).replace("-", "_") for style in styles}
    for style, module in names.items():
        text = emit.verilog(component, module, None, style)
        write_bench(folder, module, component, spoil(text) if spoil else text, inputs, expected,
                    style=style, cycles=cycles)
    return run(build("iverilog", folder, [*names.values()]), folder)


@needs_iverilog
def test_reset_from_unknown_registers(tmp_path):
    assert simulate("group_accumulator", [], 60, STYLES[2:], tmp_path) == {
        "async_low": "PASS 60"}
    # Without its event the pulse does nothing.
    printed = simulate("group_accumulator", [], 60, STYLES[2:], tmp_path,
                       spoil=lambda text: text.replace(LIST, "always @(posedge clk)"))
    assert printed["async_low"].startswith("FAIL")


@needs_iverilog
@pytest.mark.long
@pytest.mark.parametrize("name, settings, count", [
    ("weight_encoder", [], 20), ("accelerator", ["config=lite"], 12)])
def test_reset_of_machines_from_unknown_registers(name, settings, count, tmp_path):
    found = simulate(name, settings, count, [STYLES[0], STYLES[2]], tmp_path, cycles=20_000)
    assert found.keys() == {"sync_low", "async_low"}
    assert {text.split()[0] for text in found.values()} == {"PASS"}
    assert {int(text.split()[1]) >= count for text in found.values()} == {True}


@pytest.mark.long
def test_files(tmp_path):
    style = Style(reset="async", level="low")
    paths = generate.generate("group_accumulator", (), tmp_path, axi=True, style=style)
    description = json.loads(paths[1].read_text())
    assert description["reset"].items() >= {
        "name": "rst_n", "active": "low", "synchronous": False}.items()
    assert description["axi"]["reset"] == {
        "name": "aresetn", "active": "low", "synchronous": False}
    assert "    .rst_n(aresetn),\n" in paths[2].read_text()
    assert lint(paths[2], "group_accumulator_axi", paths[0]) == ""


@pytest.mark.long
def test_lint_of_the_whole_machine_is_silent(tmp_path):
    paths = generate.generate("axi_accelerator", ["config=lite"], tmp_path, axi=True,
                              style=STYLES[2])
    assert lint(paths[2], "axi_accelerator_axi", paths[0]) == ""


@pytest.mark.long
@pytest.mark.parametrize("style", STYLES, ids=label)
def test_a_unit_is_equivalent(style):
    equivalence.prove(registry.build("weight_encoder"), "weight_encoder", style=style)


@pytest.mark.parametrize("options, complaint", [
    (["--reset", "none"], "error: --reset must be one of sync, async, not 'none'\n"),
    (["--reset-level", "1"], "error: --reset-level must be one of high, low, not '1'\n")])
def test_complaints(options, complaint, capsys):
    assert generate.main(["top1", *options]) == 2
    assert capsys.readouterr() == ("", complaint)
