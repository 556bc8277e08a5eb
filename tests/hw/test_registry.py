# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""Every unit of the registry against its golden reference."""

import dataclasses
from functools import cache

import numpy as np
import pytest
from amaranth import ResetInserter, Signal
from amaranth.lib import wiring

from hw import registry
from hw.accelerator.config import Config
from hw.lib.stream_register import StreamRegister
from hw.units.decoder import Decoder
from hw.units.group_accumulator import GroupAccumulator
from hw.units.mac_array import MacArray
from hw.units.pe_tile import PETile
from hw.units.quantization_engine import QuantizationEngine
from hw.units.sg_pe_tile import SgPETile
from hw.units.top1 import Top1
from sim.engines.amaranth import simulated
from tests.support.compare import check
from tests.support.testbench import simulate

# Transfers per run, for a second or less each: corner cases are in the tests of each unit. The
# longer checks have as many times more.
MORE = 2
ROWS = {
    "top1": 800,
    "top1_decode": 400,
    "decoder": 60,
    "quantization_engine": 30,
    "pe_tile": 40,
    "sg_pe_tile": 40,
    "weight_encoder": 3,
    "sg_engine": 6,
    "nvfp4_quantizer": 20,
    "nvfp4_pe_tile": 40,
    "group_accumulator": 150,
    "group_mac": 20,
    "mac_array": 8,
    "nvfp4_array": 8,
}


# Each other value of the engine's parameters once, as an engine takes seconds; the longer checks
# have each of them alone.
TOGETHER = {"quantization_engine": [
    {"input": "bfloat16", "rule": "ceil", "metadata": False, "depth": 0},
    {"input": "float16", "rule": "rtn1", "depth": 3},
    {"rule": "rtn2", "depth": 8},
]}


def configurations():
    """Every unit with its defaults, with each parameter alone at each other value, and together."""
    for name, unit in registry.UNITS.items():
        default = registry.parameters(name)
        yield name, default
        for parameter, values in unit.parameters.items():
            for value in values[1:]:
                yield name, default | {parameter: value}
        for several in TOGETHER.get(name, ()):
            yield name, default | several


def build(name, parameters):
    return registry.UNITS[name].component(**parameters)


# An array of many columns is the same columns again, and slow without being compiled; the longer
# checks of .ci/run have all of it. Here it is generated and linted, see test_generate.
# The accelerator has its own tests.
QUICK = [c for c in configurations() if c[1].get("columns", 1) == 1 and c[0] != "accelerator"]


LONG = ("group_accumulator", 10), ("group_mac", 13), ("group_mac", 17)


def is_long(name, parameters):
    if name in TOGETHER:
        default = registry.parameters(name)
        assert {*default} == {key for several in TOGETHER[name] for key in several}
        return len(parameters.items() - default.items()) == 1
    return (name, parameters.get("depth")) in LONG or name == "sg_engine" or (
        # As wide as the default, or read as an array does, which has tests of its own.
        name.startswith("group_") and parameters.get("encoding", "elem-em") != "elem-em")


def case(name, parameters, *rest):
    settings = [f"{key}={value}" for key, value in parameters.items()]
    # Their parts are those of other depths, or of the array.
    marks = [pytest.mark.long] * is_long(name, parameters)
    return pytest.param(name, parameters, *rest, marks=marks,
                        id="-".join(map(str, (name, *settings, *rest))))


# Each is built once here, as all workers read this file.
BUILT = [(c, build(*c)) for c in QUICK]
CLOCKED = [c for c, component in BUILT if component.latency]
# These take many cycles for one transfer, and have their own tests.
STREAMED = [c for c, component in BUILT if component.latency
            and {"i", "o"} <= component.signature.members.keys()
            and c[0] not in ("weight_encoder", "sg_engine")]
TILES = [c for c in CLOCKED if c[0] in ("pe_tile", "sg_pe_tile")]


def check_reference(component, name, parameters, stalls, times=1):
    unit = registry.UNITS[name]
    rows = ROWS[name] * times
    if parameters.get("encoding") == "sg-special64":
        rows = max(rows // 2, 2)
    if parameters.get("lanes", 0) > 8:
        # As many gates more, and they are evaluated more often.
        rows = rows * 4 // parameters["lanes"]
    # With and without stalls the stimuli differ.
    inputs = unit.stimuli(np.random.default_rng(int(10 * stalls)), rows, **parameters)
    check(component, inputs, unit.reference(inputs, **parameters), stalls=stalls, outputs=rows)


@pytest.mark.parametrize("name, parameters, stalls", [
    case(*c, stalls) for c in QUICK if c not in STREAMED
    for stalls in ((0.4,) if c in CLOCKED else (0,))])
def test_reference(name, parameters, stalls):
    check_reference(build(name, parameters), name, parameters, stalls)


@pytest.mark.long
@pytest.mark.parametrize("name, parameters", [case(*c) for c in QUICK])
def test_reference_with_more_rows(name, parameters):
    component = build(name, parameters)
    for stalls in (0.4,) if component.latency else (0,):
        check_reference(component, name, parameters, stalls, MORE)


class Resettable(wiring.Component):
    """A component whose reset is a signal; its ports are the component's own."""

    def __init__(self, component):
        super().__init__(component.signature)
        self.component, self.latency = component, component.latency
        self.reset = Signal()
        for port in component.signature.members:
            setattr(self, port, getattr(component, port))

    def elaborate(self, platform):
        return ResetInserter(self.reset)(self.component)


@cache
def streamed(name, *parameters):
    return Resettable(build(name, dict(parameters)))


# One unit after the other, as all tests of one share its simulator.
each_streamed = pytest.mark.parametrize("name, parameters", [case(*c) for c in STREAMED],
                                        scope="module")


@each_streamed
def test_reference_with_stalls(name, parameters):
    check_reference(streamed(name, *parameters.items()), name, parameters, 0.4)


async def idle(ctx):
    pass


@each_streamed
def test_latency_and_throughput(name, parameters):
    component = streamed(name, *parameters.items())
    # A beat that is alone, a gap, then beats back to back.
    offers = [1] + [0] * 9 + [1] * 12 + [0] * component.latency
    valids = []

    async def run(ctx):
        ctx.set(component.o.ready, 1)
        for offer in offers:
            ctx.set(component.i.valid, offer)
            assert ctx.get(component.i.ready)
            valids.append(ctx.get(component.o.valid))
            await ctx.tick()

    simulated(component, True).run(run)
    assert valids == [0] * component.latency + offers[:-component.latency]


@pytest.mark.parametrize("name, parameters", [case(*c) for c in TILES])
def test_latency_and_throughput_of_tile(name, parameters):
    tile = build(name, parameters)
    # 1 times 1 in one lane is 64/64 or, without metadata, 4/4, by the sign of the weight.
    unit = 64 if parameters.get("metadata", True) else 4
    signs = [1, 0, 0, 0, 1, -1, 1, 1, -1]
    sums = []

    async def bench(ctx):
        ctx.set(tile.enable, 1)
        ctx.set(tile.activations[0], 2)
        if parameters.get("metadata"):
            ctx.set(tile.refinement.zero, 1)
        for sign in signs + [0] * tile.latency:
            ctx.set(tile.weights[0], {1: 2, 0: 0, -1: 10}[sign])
            sums.append(ctx.get(tile.sum))
            await ctx.tick()

    simulate(tile, bench)
    assert sums == [0] * tile.latency + [unit * sign for sign in signs]


@each_streamed
def test_valid_does_not_wait_and_reset_empties(name, parameters):
    component = streamed(name, *parameters.items())
    latency = component.latency

    async def run(ctx):
        for _ in range(2):
            ctx.set(component.o.ready, 0)
            ctx.set(component.i.valid, 1)
            # As many beats as there are stages fit, then the input is refused.
            taken = []
            for _ in range(latency + 3):
                taken.append(ctx.get(component.i.ready))
                await ctx.tick()
            assert taken == [1] * latency + [0] * 3
            assert ctx.get(component.o.valid)

            ctx.set(component.i.valid, 0)
            ctx.set(component.reset, 1)
            await ctx.tick()
            ctx.set(component.reset, 0)
            ctx.set(component.o.ready, 1)
            for _ in range(latency + 3):
                assert not ctx.get(component.o.valid)
                await ctx.tick()

            # A lone beat comes through as ever.
            ctx.set(component.i.valid, 1)
            seen = []
            for _ in range(latency + 2):
                seen.append(ctx.get(component.o.valid))
                await ctx.tick()
                ctx.set(component.i.valid, 0)
            assert seen == [0] * latency + [1, 0]

    simulated(component, True).run(run)


@pytest.mark.parametrize("build, error, text", [
    (lambda: Top1(lanes=0), ValueError, "Lane count must be a power of two of at least 2, not 0"),
    (lambda: Top1(lanes=1), ValueError, "Lane count must be a power of two of at least 2, not 1"),
    (lambda: Top1(lanes=6), ValueError, "Lane count must be a power of two of at least 2, not 6"),
    (lambda: Top1(lanes=-8), ValueError, "Lane count must be a power of two of at least 2, not -8"),
    (lambda: Top1(lanes="8"), TypeError, "Lane count must be an integer, not '8'"),
    (lambda: Top1(lanes=8.0), TypeError, "Lane count must be an integer, not 8.0"),
    (lambda: Decoder(kind="scale"), ValueError,
     "Kind must be 'activation', 'weight', 'special' or 'special64', not 'scale'"),
    (lambda: Decoder(kind=None), ValueError,
     "Kind must be 'activation', 'weight', 'special' or 'special64', not None"),
    (lambda: QuantizationEngine(input="float64"), ValueError,
     "Input must be one of float32, bfloat16, float16, not 'float64'"),
    (lambda: QuantizationEngine(rule="even"), ValueError,
     "Rule must be one of floor, ceil, rtn1, rtn2, not 'even'"),
    (lambda: QuantizationEngine(depth=1), ValueError, "Pipeline depth must be 0, 2, 3 or 8, not 1"),
    (lambda: QuantizationEngine(depth="2"), ValueError,
     "Pipeline depth must be 0, 2, 3 or 8, not '2'"),
    (lambda: QuantizationEngine(metadata=1), TypeError, "Metadata must be True or False, not 1"),
    (lambda: PETile(depth=3), ValueError, "Pipeline depth must be 0, 1 or 2, not 3"),
    (lambda: PETile(depth=-1), ValueError, "Pipeline depth must be 0, 1 or 2, not -1"),
    (lambda: PETile(depth="1"), ValueError, "Pipeline depth must be 0, 1 or 2, not '1'"),
    (lambda: PETile(metadata=0), TypeError, "Metadata must be True or False, not 0"),
    (lambda: GroupAccumulator(metadata="False"), TypeError,
     "Metadata must be True or False, not 'False'"),
    (lambda: MacArray(metadata=None), TypeError, "Metadata must be True or False, not None"),
    (lambda: StreamRegister("wide"), TypeError,
     "Object 'wide' cannot be converted to an Amaranth shape"),
])
def test_wrong_parameter(build, error, text):
    with pytest.raises(error) as info:
        build()
    assert str(info.value) == text


@pytest.mark.parametrize("component", [Top1, Decoder, QuantizationEngine, PETile, SgPETile,
                                       GroupAccumulator, MacArray])
def test_parameters_are_keywords(component):
    with pytest.raises(TypeError, match="takes 1 positional argument"):
        component(1)


@pytest.mark.parametrize("name, settings, text", [
    ("top2", [], f"Unit must be one of {', '.join(registry.UNITS)}, not 'top2'"),
    ("top1", ["lanes"], "Setting must be of the form parameter=value, not 'lanes'"),
    ("top1", ["width=4"], "Parameter of top1 must be one of: lanes, not 'width'"),
    ("top1_decode", ["depth=1"], "Parameter of top1_decode must be one of: none, not 'depth'"),
    ("top1", ["lanes=x"], "top1's lanes must be one of 8, 2, 4, 16, 32, not 'x'"),
    ("pe_tile", ["depth=1", "depth=2"], "pe_tile's depth must be set once, not again to '2'"),
    ("pe_tile", ["metadata=no"], "pe_tile's metadata must be one of True, False, not 'no'"),
    ("pe_tile", ["depth="], "pe_tile's depth must be one of 0, 1, 2, not ''"),
])
def test_registry_error(name, settings, text):
    for function in registry.parameters, registry.build:
        with pytest.raises(ValueError) as info:
            function(name, settings)
        assert str(info.value) == text


def test_registry_settings():
    assert registry.parameters("quantization_engine") == {
        "input": "float32", "rule": "floor", "metadata": True, "depth": 2}
    assert registry.parameters("quantization_engine", ["rule=rtn2", "input=float16"]) == {
        "input": "float16", "rule": "rtn2", "metadata": True, "depth": 2}


def test_registry_builds():
    tile = registry.build("pe_tile", ["depth=2"])
    assert isinstance(tile, PETile)
    simulate(tile, idle)
    assert tile.depth == tile.latency == 2


def test_helper_names_the_failing_row():
    expected = {"lane": np.array([0, 1, 1])}
    with pytest.raises(AssertionError, match=r"1 rows of 3 differ, first row 2:\n"
                       r"  input codes = \['0x5', '0x4'\]\n"
                       r"  output lane = \['0x0'\]\n  expected lane = \['0x1'\]"):
        check(Top1(lanes=2), {"codes": np.array([[1, 9], [8, 1], [5, 4]])}, expected)


# What is not offered.


def setting(name, *texts):
    return registry.parameters(name, texts, units=registry.offered())


def test_integers_that_are_not_offered():
    """Whatever the unit takes, and no more."""
    assert setting("top1", "lanes=64") == {"lanes": 64}
    assert setting("mac_array", "columns=3")["columns"] == 3
    assert setting("mac_array", "columns=24", "weight_width=8")["weight_width"] == 8


@pytest.mark.parametrize("name, parameters, rows", [
    ("top1", ("lanes=64",), 20), ("mac_array", ("columns=2", "weight_width=2"), 4),
    ("mac_array", ("columns=3", "metadata=False"), 2),
])
@pytest.mark.long
def test_reference_of_what_is_not_offered(name, parameters, rows):
    unit, chosen = registry.UNITS[name], registry.parameters(name, parameters)
    inputs = unit.stimuli(np.random.default_rng(0), rows, **chosen)
    check(unit.component(**chosen), inputs, unit.reference(inputs, **chosen), outputs=rows)


FIELDS = "activations = 512\nweights = 512\nrows = 64\ncolumns = 8\n"


@pytest.fixture
def file(tmp_path):
    def write(text):
        (tmp_path / "sizes.toml").write_text(text)
        return f"config={tmp_path / 'sizes.toml'}"

    return write


@pytest.mark.parametrize("name", ["accelerator", "axi_accelerator"])
def test_configurations_that_are_not_offered(name, file):
    sizes = Config(activations=512, weights=512, rows=64, columns=8)
    assert setting(name, file(FIELDS)) == {"config": sizes}
    assert setting(name, "config.columns=4", "config.weights=1024", file(FIELDS)) == {
        "config": dataclasses.replace(sizes, columns=4, weights=1024)}
    assert setting(name, "config.input=none") == {
        "config": dataclasses.replace(registry.CONFIGS["paper"], input=None)}
    assert setting(name, file(FIELDS + 'input = "none"')) == {
        "config": dataclasses.replace(sizes, input=None)}
    assert setting(name, "config=lite", "config.input=float16")["config"] == dataclasses.replace(
        registry.CONFIGS["lite"], input="float16")
    framed = {"config": dataclasses.replace(sizes, framed=True)}
    assert setting(name, file(FIELDS + "framed = true")) == framed
    assert setting(name, file(FIELDS), "config.framed=true") == framed
    special = {"config": dataclasses.replace(sizes, encoding="sg-special", input=None)}
    assert setting(name, file(FIELDS), "config.encoding=sg-special", "config.input=none") == special
    assert setting(name, "config.framed=false") == {"config": registry.CONFIGS["paper"]}
    assert registry.build(name, [file(FIELDS)], units=registry.offered()).config == sizes


def test_golden_takes_configurations_that_are_not_offered():
    """Stimuli and reference of an accelerator that has no name."""
    unit, chosen = registry.UNITS["accelerator"], setting("accelerator", "config.columns=8")
    inputs = unit.stimuli(np.random.default_rng(0), 1, **chosen)
    # Eight results a row, in place of 32.
    assert unit.reference(inputs, **chosen)["o"]["values"].shape[1] == 8
    assert unit.tiles(**chosen) == 32


@pytest.mark.parametrize("texts, message", [
    (("config=x",), "accelerator's config must be one of paper, decode, lite, tiny, a file that "
                    "ends in .toml, not 'x'"),
    (("config.columns=3",), "config.columns: columns must be a power of two, not 3"),
    (("config.columns=x",), "config.columns: columns must be a power of two, not 'x'"),
    (("config.colums=4",), "config.colums must have fields out of columns, activations, weights, "
                           "rows, weight_width, activation_banks, weight_banks, output_banks, "
                            "input, framed, array_depth, engine_depth, encoding, engine, "
                            "engine_cycles, not 'colums'"),
    (("config.framed=1",), "config.framed: framed must be true or false, not 1"),
    (("config.framed=yes",), "config.framed: framed must be true or false, not 'yes'"),
    (("config.encoding=sg-em",), "config.encoding: input must be None with the encoding 'sg-em' "
                                 "and without an engine, not 'float32'"),
    (("config.encoding=sg-em", "config.engine=sg-special"),
     "config.encoding, config.engine: engine must be None or 'sg-threshold' or 'sg-em' with the "
     "encoding 'sg-em', not 'sg-special'"),
    (("config.engine=sg-em",),
     "config.engine: engine must be None with the encoding 'elem-em', not 'sg-em'"),
    (("config.engine_cycles=16",),
     "config.engine_cycles: engine_cycles must be one of 1, 2, 4, 8, not 16"),
    (("config.encoding=mixed",), "config.encoding: Encoding must be 'elem-em', 'sg-em', "
                                 "'sg-special' or 'sg-special64', not 'mixed'"),
    (("config.encoding=sg-special64", "config.engine=sg-special64", "config.engine_cycles=1"),
     "config.encoding, config.engine, config.engine_cycles: engine_cycles must be at least 2 with "
     "the engine 'sg-special64', not 1"),
    (("config.array_depth=6",), "config.array_depth: array_depth must be one of 5, 13, 17, not 6"),
    (("config.engine_depth=0",), "config.engine_depth: engine_depth must be one of 2, 3, 8, not 0"),
    (("config.rows=32", "config.rows=64"), "accelerator's config.rows must be set once, not again "
                                           "to '64'"),
    (("config=lite", "config=tiny"), "accelerator's config must be set once, not again to 'tiny'"),
    (("config.weight_width=64",), "config.weight_width: weight_width must be at most the 32 "
                                  "columns, not 64"),
])
def test_wrong_configurations(texts, message):
    with pytest.raises(ValueError) as info:
        setting("accelerator", *texts)
    assert str(info.value) == message


@pytest.mark.parametrize("text, message", [
    ("columns = ", "sizes.toml must be TOML: "),
    ("columns = 4", "sizes.toml must have the fields activations, weights, rows, too"),
    (FIELDS + "depth = 1", "sizes.toml must have fields out of columns, .*, not 'depth'"),
    (FIELDS + "weight_width = 1.5", "sizes.toml: weight_width must be a power of two, not 1.5"),
])
def test_wrong_files(text, message, file):
    with pytest.raises(ValueError, match=message):
        setting("accelerator", file(text))


@pytest.mark.parametrize("name, text, message", [
    ("top1", "lanes=6", "top1: Lane count must be a power of two of at least 2, not 6 (tested are "
                        "lanes: 8, 2, 4, 16, 32)"),
    ("top1", "lanes=-4", "top1: Lane count must be a power of two of at least 2, not -4 (tested "
                         "are lanes: 8, 2, 4, 16, 32)"),
    ("top1", "lanes=99999999999", "top1's lanes must be one of 8, 2, 4, 16, 32, not '99999999999'"),
    ("pe_tile", "metadata=1", "pe_tile's metadata must be one of True, False, not '1'"),
    ("pe_tile", "config.columns=1", "Parameter of pe_tile must be one of: depth, metadata, not "
                                    "'config.columns'"),
])
def test_wrong_values(name, text, message):
    with pytest.raises(ValueError) as info:
        setting(name, text)
    assert str(info.value) == message


def test_units_given_twice():
    with pytest.raises(ValueError, match="^Each unit must be given once, not 'top1' again$"):
        registry.select(["top1", "decoder", "top1"])
