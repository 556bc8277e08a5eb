# SPDX-License-Identifier: BSD-2-Clause
"""The closed form of cycles against the RTL, and the command that prints it."""

import dataclasses

import numpy as np
import pytest

import sim
import sim.__main__ as command
from golden.accelerator import planner
from hw.accelerator.accelerator import Accelerator
from hw.accelerator.config import CONFIGS
from sim.engines.build import compiler, fastest

SOURCES = {"records": 0, "values": 1}
RESULTS = {"values": 0, "records": 1, "keep": 2}

# Shapes with partial tiles, tiny shapes, few rows with few and many tiles, blocks of one and of two
# sizes, larger than the activation buffer (K above 256 at 4 rows) and larger than one row of it (K
# above 2048).
SHAPES = [
    (1, 1, 1), (1, 32, 32), (1, 33, 33), (1, 500, 1), (1, 500, 33), (1, 96, 250), (1, 64, 260),
    (1, 2100, 40), (2, 32, 32), (2, 70, 100), (2, 300, 65), (3, 64, 130), (3, 2080, 33),
    (4, 500, 40), (5, 96, 97), (6, 200, 100), (7, 33, 33), (7, 160, 64), (8, 100, 31),
    (9, 300, 70), (12, 2500, 9), (15, 64, 100), (16, 128, 64), (17, 32, 33), (17, 400, 40),
    (23, 1, 300), (31, 70, 65), (33, 129, 33), (40, 64, 64), (64, 96, 96), (97, 300, 20),
    (130, 33, 100), (200, 64, 33),
]


def measured(component, m, k, n, source, result):
    """Cycles of a command in RTL; its operands are anything."""
    config = sim.golden_config(component.config)
    plan = planner.plan(config, m, k, n)
    tile, _ = plan.weight_order()
    weights = np.where(tile == plan.tiles - 1, plan.last_transfers, plan.transfers).sum()
    arriving = len(plan.activation_order()[0])
    rng = np.random.default_rng(0)

    def records(*shape):
        return {"elements": rng.integers(0, 16, (*shape, config.group)),
                "metadata": rng.integers(0, 4, (*shape, config.group // 8)),
                "scale": rng.integers(110, 140, shape)}

    statistics = {}
    rows = m * plan.tiles
    outputs = {"o": rows if result == "values" else 0, "o_status": 1}
    if "o_record" in component.signature.members:
        outputs["o_record"] = rows if result == "records" else 0
    inputs = {
        "i_command": {"m": [m], "k": [k], "n": [n], "source": [SOURCES[source]],
                      "result": [RESULTS[result]]},
        "i_weight": records(weights, config.weight_width),
        "i_activation": records(arriving if source == "records" else 0),
    }
    if config.input:
        inputs["i_value"] = rng.integers(0, 1 << 16, (arriving if source == "values" else 0,
                                                      config.group))
    sim.run(component, inputs, outputs=outputs, engine=fastest(), patience=10_000,
            statistics=statistics)
    return statistics["cycles"]


needs_compiler = pytest.mark.skipif(not compiler(), reason="no C++ compiler to simulate with")


# Deeper pipelines of array and engines.
DEEP = ("lite", 17, 8), ("lite", 13, 3), ("tiny", 17, 8)


@needs_compiler
@pytest.mark.long
@pytest.mark.parametrize("config", [*planner.CONFIGS, *(
    pytest.param(dataclasses.replace(CONFIGS[name], array_depth=array, engine_depth=engine),
                 id=f"{name}-{array}-{engine}") for name, array, engine in DEEP)])
def test_closed_form_is_exact(config):
    component = Accelerator(config=config)
    # Of the large machines and the deeper pipelines every third shape.
    step = 1 if config in ("tiny", "lite") else 3
    for i, (m, k, n) in enumerate(SHAPES[::step]):
        source = "records" if i % 2 else "values"
        for result in ("values", "records", "keep"):
            code = planner.check(sim.golden_config(config), m, k, n, SOURCES[source],
                                 RESULTS[result], None)
            if code == planner.DONE:
                assert (measured(component, m, k, n, source, result)
                        == sim.cycles(config, m, k, n, source=source, result=result)), (m, k, n)


@needs_compiler
@pytest.mark.long
@pytest.mark.parametrize("array_depth", [5, 17])
def test_closed_form_in_groups_of_64(array_depth):
    config = dataclasses.replace(CONFIGS["lite"], columns=2, activations=64, input=None,
                                 encoding="sg-special64", array_depth=array_depth)
    component = Accelerator(config=config)
    for m, k, n in SHAPES[::3]:
        assert measured(component, m, k, n, "records", "values") \
            == sim.cycles(config, m, k, n, source="records"), (m, k, n)


@needs_compiler
@pytest.mark.long
def test_tiles_that_load_while_the_first_one_waits():
    """A tile of two transfers is there before the activations are, in the deepest pipeline."""
    config = dataclasses.replace(CONFIGS["lite"], columns=2, activations=64, input=None,
                                 array_depth=17)
    component = Accelerator(config=config)
    for m, k, n in ((1, 1, 2), (1, 32, 3), (1, 32, 33), (2, 32, 9), (1, 33, 2), (1, 33, 9),
                    (1, 33, 16), (1, 33, 17), (1, 65, 9), (1, 65, 33), (1, 200, 7)):
        assert measured(component, m, k, n, "records", "values") \
            == sim.cycles(config, m, k, n, source="records"), (m, k, n)


# Blocks of 8 rows and more: one group and several, one tile and several, one block and several.
HELD = [(8, 32, 32), (9, 33, 70), (12, 150, 33), (15, 64, 100), (10, 170, 32), (31, 70, 65)]


@needs_compiler
@pytest.mark.long
def test_engines_that_hold_back():
    """An engine of four cycles per group: results, values and both."""
    config = dataclasses.replace(CONFIGS["tiny"], encoding="sg-em", engine="sg-threshold")
    component = Accelerator(config=config)
    for m, k, n in HELD:
        for source in ("records", "values"):
            for result in ("values", "records", "keep"):
                code = planner.check(sim.golden_config(config), m, k, n, SOURCES[source],
                                     RESULTS[result], None)
                blocks = planner.plan(sim.golden_config(config), m, k, n).blocks
                if code != planner.DONE or len(blocks) > 1 and source == "values":
                    continue
                assert (measured(component, m, k, n, source, result)
                        == sim.cycles(config, m, k, n, source=source, result=result)), (
                            m, k, n, source, result)
    # It holds nothing back where nothing passes through it.
    plain = dataclasses.replace(config, engine=None, input=None)
    assert sim.cycles(config, 3, 64, 96, source="records") == sim.cycles(plain, 3, 64, 96,
                                                                         source="records")


@pytest.mark.parametrize("m, source, result", [(7, "records", "records"), (7, "values", "values"),
                                               (33, "values", "values")])
def test_no_closed_form(m, source, result):
    config = dataclasses.replace(CONFIGS["tiny"], encoding="sg-em", engine="sg-em")
    with pytest.raises(ValueError, match=f"no closed form is known of {m} x 64 x 64 with an engine "
                                         "of 4 cycles: only of blocks of at least 8 rows"):
        sim.cycles(config, m, 64, 64, source=source, result=result)


def test_large_product():
    """S = 2048, K = 4096, N = 4096: all but 127 cycles are full."""
    cycles = sim.cycles("paper", 2048, 4096, 4096)
    assert cycles == 2048 * 4096 * 4096 // 1024 + 127
    assert sim.utilisation("paper", 2048, 4096, 4096, cycles) > 0.99999


def test_one_row_is_as_fast_as_its_weights():
    for config, load in (("paper", 32), ("decode", 4)):
        cycles = sim.cycles(config, 1, 4096, 4096)
        assert 0 < cycles - 128 * 128 * load < 128


def test_scale_sim():
    """What the tool itself gave for S = 2048, K = N = 4096."""
    assert sim.scale_sim(2048, 4096, 4096) == {"output-stationary": 34_062_335,
                                               "weight-stationary": 35_094_527}
    # 64 rows and columns: twice as many of both, so about a quarter of the cycles.
    assert sim.scale_sim(2048, 4096, 4096, rows=64, columns=64) == {
        "output-stationary": 32 * 64 * (4096 + 126) - 1,
        "weight-stationary": 64 * 64 * (2048 + 190) - 1}


def test_groups_of_64():
    """An array of 64 x 64 takes a quarter of the cycles of 32 x 32."""
    config = dataclasses.replace(CONFIGS["paper"], columns=64, encoding="sg-special64", input=None)
    cycles = sim.cycles(config, 2048, 4096, 4096, source="records")
    assert 0 < cycles - 2048 * 4096 * 4096 // 4096 < 256
    assert sim.utilisation(config, 2048, 4096, 4096, cycles) > 0.9999


def test_command(capsys):
    assert command.main(["cycles", "--m", "2048", "--k", "4096", "--n", "4096"]) == 0
    assert capsys.readouterr().out == (
        "M x K x N = 2048 x 4096 x 4096 on 32 x 32\n"
        "  ideal                                33,554,432 cycles, utilisation 100.0000%\n"
        "  this accelerator, paper              33,554,559 cycles, utilisation 99.9996%\n"
        "  SCALE-Sim, output-stationary         34,062,335 cycles, utilisation 98.5089%\n"
        "  SCALE-Sim, weight-stationary         35,094,527 cycles, utilisation 95.6116%\n")
    assert command.main(["cycles", "--m", "0", "--k", "1", "--n", "1"]) == 2
    assert capsys.readouterr().err == "error: --m must be within 1 and 1048575, not 0\n"


@pytest.mark.parametrize("arguments, text", [
    (("huge", 1, 1, 1), "Config must be one of paper, decode, lite, tiny, not 'huge'"),
    (("tiny", 0, 1, 1), "m must be an integer within 1 and 1048575, not 0"),
    (("tiny", 1, 2.0, 1), "k must be an integer within 1 and 1048575, not 2.0"),
    (("tiny", 1, 1, 1 << 20), "n must be an integer within 1 and 1048575, not 1048576"),
])
def test_wrong_arguments(arguments, text):
    with pytest.raises(ValueError) as error:
        sim.cycles(*arguments)
    assert str(error.value) == text


@pytest.mark.parametrize("option, text", [
    ({"source": "disk"}, "source must be one of records, values, kept, not 'disk'"),
    ({"result": 1}, "result must be one of values, records, keep, not 1"),
    ({"result": "keep"}, "The command ends with code 5, TOO_LARGE, on tiny"),
])
def test_wrong_options(option, text):
    with pytest.raises(ValueError) as error:
        sim.cycles("tiny", 60, 32, 32, **option)
    assert str(error.value) == text
