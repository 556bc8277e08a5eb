# SPDX-License-Identifier: BSD-2-Clause
"""The RTL gives what golden gives, after every sequence of commands."""

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

import sim
from hw.accelerator.accelerator import Accelerator
from sim.engines.build import compiler
from tests.support.sequences import Commands


class Compiled(Commands):
    """The tiny configuration as it is emitted; the ends of its streams pause at random."""

    component = None
    config = sim.golden_config("tiny")

    def check(self, commands):
        seed = len(commands)
        products = sim.accelerate(commands, component=self.component, seed=seed,
                                  stalls=(0.0, 0.3, 0.7)[seed % 3])
        assert [product.mismatches for product in products] == [0] * len(commands)


@pytest.mark.long
@pytest.mark.skipif(not compiler(), reason="32 columns are slow on Amaranth's simulator")
def test_sequences():
    Compiled.component = Accelerator(config="tiny")
    run_state_machine_as_test(Compiled, settings=settings(
        max_examples=25, stateful_step_count=12, deadline=None, derandomize=True))
