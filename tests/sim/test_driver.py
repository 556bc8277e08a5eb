# SPDX-License-Identifier: BSD-2-Clause
"""What a host does between commands, on each machine."""

import dataclasses

import numpy as np
import pytest

from golden import matmul, quantize_activations, quantize_weights
from golden.command import Failure
from golden.units.sg_engine import sg_engine
from hw.accelerator.config import CONFIGS
from sim import cycles
from sim.driver import Driver, Golden, Tally
from sim.engines import build
from sim.machines import Axi, Compiled

TINY = CONFIGS["tiny"]
SHAPES = [(96, 64), (40, 96), (200, 40)]


def weights():
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape, dtype=np.float32) for shape in SHAPES]


def values(m, k=64):
    return np.random.default_rng(m).standard_normal((m, k), dtype=np.float32)


def chained(x):
    """The three products, one after the other, each result quantized."""
    for w in weights():
        y = matmul(quantize_activations(x), quantize_weights(w))
        x = y
    return y


def equal(found, expected):
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))


def test_a_product_is_golden_s():
    driver = Driver(Golden(TINY))
    layer = driver.load(weights()[0])
    equal(driver.product(layer, values(3)),
          matmul(quantize_activations(values(3)), quantize_weights(weights()[0])))
    expected = cycles("tiny", 3, 64, 96)
    assert driver.tally == Tally(commands=1, products=3 * 64 * 96, cycles=expected,
                                 closed=expected)


def test_results_are_kept_where_they_fit():
    """Of 20 rows none fits the 16 rows of sums; of one both do."""
    for m, kept in (1, 2), (16, 0), (20, 0):
        driver = Driver(Golden(TINY))
        equal(driver.chain([*map(driver.load, weights())], values(m)), chained(values(m)))
        assert (driver.tally.kept, driver.tally.commands) == (kept, 3)


def test_layers_that_do_not_follow_each_other():
    driver = Driver(Golden(TINY))
    first, second, _ = map(driver.load, weights())
    with pytest.raises(ValueError, match="^layers must take what the one before gives, 40 "
                                         "columns, not 64$"):
        driver.chain([first, second, first], values(1))


def test_values_are_rounded_to_the_machine_s_type():
    driver = Driver(Golden(dataclasses.replace(TINY, input="float16")))
    equal(driver.product(driver.load(weights()[0]), values(3)),
          matmul(quantize_activations(values(3).astype(np.float16)),
                 quantize_weights(weights()[0])))


@pytest.mark.parametrize("encoding", ["sg-em", "sg-special", "sg-special64"])
def test_the_host_encodes_where_there_is_no_engine(encoding):
    driver = Driver(Golden(dataclasses.replace(TINY, encoding=encoding, input=None)))
    a = sg_engine(values(3), encoding="sg-em") if encoding == "sg-em" \
        else quantize_activations(values(3), encoding=encoding)
    w = quantize_weights(weights()[0], encoding=encoding)
    equal(driver.product(driver.load(weights()[0]), values(3)), matmul(a, w))
    equal(driver.product(driver.load(w), values(3)), matmul(a, w))


def test_chain_in_groups_of_64():
    """Results stay on chip where rows of 64 columns are groups."""
    config = dataclasses.replace(TINY, columns=64, encoding="sg-special64", engine="sg-special64")
    driver = Driver(Golden(config))
    layers = [driver.load(weight) for weight in weights()]
    given = values(16)
    y = driver.chain(layers, given)
    for weight in weights():
        a = sg_engine(given, encoding="sg-special64")
        given = matmul(a, quantize_weights(weight, encoding="sg-special64"))
    equal(y, given)
    assert (driver.tally.kept, driver.tally.mismatches) == (2, 0)


def test_weights_in_another_encoding():
    w = quantize_weights(weights()[0], encoding="sg-special")
    with pytest.raises(ValueError, match="^weights must be in sg-em for activations in elem-em, "
                                         "not in sg-special$"):
        Driver(Golden(TINY)).load(w)


def test_a_machine_that_cannot_keep():
    driver = Driver(Golden("lite"))
    layers = [*map(driver.load, weights())]
    with pytest.raises(Failure, match="^the machine cannot run 1 x 64 x 96: BAD_RESULT$"):
        driver.chain(layers, values(1))


class Wrong(Golden):
    """A machine that gives golden's results but one bit."""

    def run(self, command, layer, executed, progress):
        from golden.accelerator.accelerator import answers
        from sim.accelerator import golden_config

        super().run(command, layer, executed, progress)
        given = answers(golden_config(self.config), [command], [executed])
        given["o"]["values"][4, 3] ^= 1
        return given


def test_a_wrong_bit_is_a_mismatch():
    driver = Driver(Wrong(TINY))
    layer = driver.load(weights()[0])
    y = driver.product(layer, values(3))
    assert (driver.tally.mismatches, driver.tally.rows) == (1, 9)
    # What the machine gave goes on, and not golden's.
    expected = matmul(quantize_activations(values(3)), quantize_weights(weights()[0]))
    assert (y.view(np.uint32) != expected.view(np.uint32)).sum() == 1


# With one column it is built in seconds, but keeps no results.
NARROW = dataclasses.replace(TINY, columns=1, weight_width=1)

MACHINES = {
    "compiled": lambda: Compiled(TINY),
    "framed, bfloat16": lambda: Compiled(dataclasses.replace(
        NARROW, framed=True, input="bfloat16")),
    "sg-special": lambda: Compiled(dataclasses.replace(
        NARROW, encoding="sg-special", input=None)),
    "sg-special64, framed": lambda: Compiled(dataclasses.replace(
        NARROW, framed=True, encoding="sg-special64", input=None)),
    "AXI": lambda: Axi(dataclasses.replace(TINY, framed=True)),
}


@pytest.mark.long
@pytest.mark.skipif(not build.compiler(), reason="needs a C++ compiler")
@pytest.mark.parametrize("name", MACHINES)
def test_machines_do_what_golden_does(name):
    """Products of one simulation: rows of several blocks, kept results, a restart in between."""
    with MACHINES[name]() as machine:
        driver, golden = Driver(machine), Driver(Golden(machine.config))
        layers, theirs = ([*map(one.load, weights())] for one in (driver, golden))
        for m in (1, 5, 20):
            for count in (1, 3) if driver.config.quantizes else (1,):
                equal(driver.chain(layers[:count], values(m)),
                      golden.chain(theirs[:count], values(m)))
        driver.restart()
        equal(driver.product(layers[2], values(40, 40)), golden.product(theirs[2], values(40, 40)))
    tally, expected = driver.tally, golden.tally
    assert tally.mismatches == 0
    assert tally.rows > 300
    assert (tally.commands, tally.kept, tally.closed) == (
        expected.commands, expected.kept, expected.closed)
    assert tally.cycles == tally.closed
