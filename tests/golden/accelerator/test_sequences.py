# SPDX-License-Identifier: BSD-2-Clause
"""Golden's two views of the accelerator agree after every sequence of commands."""

import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from golden.accelerator import planner
from golden.accelerator.accelerator import accelerator, execute, streams
from tests.support.sequences import Commands


class Golden(Commands):
    """Commands as a list, and as streams of transfers."""

    def check(self, commands):
        executed = execute(self.config, commands)
        assert [status for status, _, _ in executed] == [
            planner.DONE if "w" in command else status
            for command, (status, _, _) in zip(commands, executed, strict=True)]
        inputs, expected = streams(self.config, commands, executed)
        _same(accelerator(self.config, inputs), expected)


def _same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        if isinstance(one[name], dict):
            _same(one[name], other[name])
        else:
            assert np.array_equal(one[name], other[name])


@pytest.mark.parametrize("count, steps", [(2, 3), pytest.param(150, 8, marks=pytest.mark.long)])
def test_sequences(count, steps):
    run_state_machine_as_test(Golden, settings=settings(
        max_examples=count, stateful_step_count=steps, deadline=None, derandomize=True))
