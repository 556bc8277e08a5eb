# SPDX-License-Identifier: BSD-2-Clause
"""Sequences of commands for an accelerator, as a state machine of hypothesis."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from golden import stimuli
from golden.accelerator import planner
from golden.codec.numbers import FLOATS

SOURCES = (planner.RECORDS, planner.VALUES, planner.KEPT, 3)
RESULTS = (planner.VALUES_OUT, planner.RECORDS_OUT, planner.KEEP, 3)


class Commands(RuleBasedStateMachine):
    """Collects commands; `check` is given all of them at the end.

    Sizes are drawn from the limits of the configuration and beside them, sources and results from
    all codes, legal or not. What is kept from one command to the next is the state.
    """

    config = planner.Config(columns=32, activations=64, rows=16, weight_width=4, input="float32")
    largest = 2**17

    def __init__(self):
        super().__init__()
        self.commands = []
        self.kept = None

    def sizes(limit):
        """Sizes about a limit, and small ones."""
        near = sorted({max(0, limit + step) for step in (-1, 0, 1)})
        return st.one_of(st.integers(1, 5), st.sampled_from([0, 31, 32, 33, *near]))

    @rule(m=sizes(16), k=st.one_of(sizes(64), st.sampled_from([96, 512, 2048, 2049])), n=sizes(64),
          source=st.sampled_from(SOURCES), result=st.sampled_from(RESULTS),
          seed=st.integers(0, 2**32 - 1))
    def give(self, m, k, n, source, result, seed):
        """Any command."""
        self._give(m, k, n, source, result, seed)

    @precondition(lambda self: self.kept)
    @rule(n=sizes(32), result=st.sampled_from(RESULTS[:3]), seed=st.integers(0, 2**32 - 1),
          off=st.sampled_from([0, 0, 0, 1]))
    def go_on(self, n, result, seed, off):
        """A command that takes what the one before kept, or almost."""
        m, k = self.kept
        self._give(m + off, k, n, planner.KEPT, result, seed)

    def _give(self, m, k, n, source, result, seed):
        if m * k * n > self.largest:
            return
        command = {"m": m, "k": k, "n": n, "source": source, "result": result}
        if planner.check(self.config, m, k, n, source, result, self.kept) == planner.DONE:
            rng = np.random.default_rng(seed)
            command["w"] = stimuli._matrix(rng, "weight", "sg-em", n, k)
            if source == planner.RECORDS:
                command["a"] = stimuli._matrix(rng, "activation", "elem-em", m, k)
            elif source == planner.VALUES:
                values = stimuli.groups(rng, -(-m * k // 32)).reshape(-1)[: m * k].reshape(m, k)
                with np.errstate(over="ignore", invalid="ignore"):
                    command["x"] = values.astype(FLOATS[self.config.input])
            self.kept = (m, n) if result == planner.KEEP else None
        self.commands.append(command)

    def teardown(self):
        """Runs what was collected."""
        if self.commands:
            with np.errstate(all="ignore"):
                self.check(self.commands)

    def check(self, commands):
        """Raises AssertionError if something is wrong."""
        raise NotImplementedError
