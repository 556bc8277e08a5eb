# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""What is told of a component that the tools cannot take."""

import numpy as np
import pytest
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

import sim
from hw import generate
from hw.accelerator.accelerator import Accelerator
from hw.accelerator.config import configuration
from hw.units.top1 import Top1


class Wire(wiring.Component):
    """Not a unit: it has no latency of its own."""

    i: In(4)
    o: Out(4)

    def elaborate(self, platform):
        raise AssertionError("elaborated")


def with_latency(latency):
    component = Wire()
    component.latency = latency
    return component


WRONG = [
    (lambda: Top1, TypeError, "^component must be an instance, not the class Top1$"),
    (lambda: "top1", TypeError, "^component must be a wiring.Component, not 'top1'$"),
    (Wire, TypeError, "^Wire must have the attribute latency, .*, not None$"),
    (lambda: with_latency("1"), TypeError, "^Wire must have the attribute latency, .*, not '1'$"),
    (lambda: with_latency(True), TypeError, "^Wire must have the attribute latency, .*, not True$"),
    (lambda: with_latency(-1), ValueError, "^latency of Wire must be at least 0, not -1$"),
]


@pytest.mark.parametrize(("make", "error", "text"), WRONG)
@pytest.mark.parametrize("tool", [
    lambda component: sim.run(component, {"i": np.arange(3)}),
    lambda component: generate.describe(component, "wire", ""),
])
def test_components(tool, make, error, text):
    with pytest.raises(error, match=text):
        tool(make())


@pytest.mark.parametrize("wrong", [{"columns": 4}, ["paper"], None, 4])
@pytest.mark.parametrize("take", [
    configuration, sim.golden_config, lambda config: Accelerator(config=config),
    lambda config: sim.cycles(config, 1, 1, 1),
    lambda config: sim.accelerate([{}], config=config),
])
def test_configs(take, wrong):
    with pytest.raises(TypeError, match="^config must be a Config or one of paper, decode, lite"):
        take(wrong)


@pytest.mark.parametrize(("call", "error", "text"), [
    (lambda: sim.accelerate([{}], component=Accelerator), TypeError,
     "^component must be an Accelerator, not <class "),
    (lambda: sim.accelerate([], config="tiny"), ValueError, "^commands must be at least one"),
    (lambda: sim.utilisation("tiny", 1, 1, 1, 0), ValueError, "^cycles must be at least 1, not 0$"),
    (lambda: sim.scale_sim(0, 1, 1), ValueError, "^m must be an integer of at least 1, not 0$"),
    (lambda: sim.scale_sim(1, 1, 1, columns=0), ValueError, "^columns must be an integer of at"),
])
def test_other_arguments(call, error, text):
    with pytest.raises(error, match=text):
        call()


@pytest.mark.parametrize(("options", "error", "text"), [
    ({"inputs": [1]}, TypeError, "^inputs must be a mapping of ports to arrays, not "),
    ({"inputs": None}, TypeError, "^inputs must be a mapping of ports to arrays, not None$"),
    ({"inputs": {1: [2]}}, ValueError, "^inputs must be codes, not 1$"),
    ({"stalls": "x"}, ValueError, "^stalls must be at least 0 and below 1, not 'x'$"),
    ({"patience": "x"}, TypeError, "^patience must be an integer, not 'x'$"),
    ({"outputs": {"lane": 1}}, TypeError, "^outputs must be an integer for ports that are not"),
])
def test_options_of_a_run(options, error, text):
    with pytest.raises(error, match=text):
        sim.run(Top1(), **{"inputs": {"codes": np.zeros((2, 8), int)}} | options)
