# SPDX-License-Identifier: BSD-2-Clause
"""Writes jobs for `simulation.cpp`: ``python examples/driver/jobs.py CONFIG JOBS EXPECTED``.

The jobs are random commands with their operands. EXPECTED is what the simulation must write as its
results, computed by golden.
"""

import struct
import sys
from pathlib import Path

import numpy as np

from golden import command as command_line
from golden import quantize_activations, quantize_weights, stimuli
from golden.accelerator import planner
from golden.accelerator.accelerator import execute, quantized
from golden.codec.numbers import FLOATS


def planes(q):
    """The three planes of a quantized matrix, one after the other."""
    return b"".join(map(bytes, q.pack()))


def command(rng, config, m, k, n, source=planner.RECORDS, result=planner.VALUES_OUT):
    """A command with operands, whether it uses them or not."""
    fields = {"m": m, "k": k, "n": n, "source": source, "result": result}
    if not (m and k and n):
        return fields
    x = rng.standard_normal((m, k)).astype(np.float32)
    w = quantize_weights(rng.standard_normal((n, k)).astype(np.float32), adaptive=False,
                         encoding=config.weight_encoding)
    return fields | {"w": w, "x": x.astype(FLOATS[config.input]),
                     "a": quantize_activations(x, encoding=config.encoding)}


def word(*numbers):
    """The head of a job."""
    return np.array([*numbers, *[0] * (6 - len(numbers))], "<u4").tobytes()


def script(config, runs):
    """Jobs for `simulation.cpp`, what it must write, and the statuses that there are.

    Each run is the number of cycles after which it is given up, or None, and its commands. A reset
    comes after each. Commands that fail do not halt the machine, as the driver knows of them
    before and sends no operands.
    """
    jobs, expected, statuses = [], [], []
    for cycles, commands in runs:
        with np.errstate(over="ignore", invalid="ignore"):
            executed = execute(config, commands)
        if any(status for status, _, _ in executed):
            jobs.append(word(4, 0))
        for command, (status, _, y) in zip(commands, executed, strict=True):
            jobs.append(word(0, *(command[name] for name in ("m", "k", "n", "source", "result"))))
            if status == planner.DONE:
                jobs.append(planes(command["w"]))
                if command["source"] == planner.RECORDS:
                    jobs.append(planes(command["a"]))
                elif command["source"] == planner.VALUES:
                    jobs.append(command["x"].astype(np.float32).tobytes())
            if cycles is None:
                statuses.append(status)
                expected.append(struct.pack("<i", status))
                if status == planner.DONE and command["result"] == planner.VALUES_OUT:
                    expected.append(y.tobytes())
                elif status == planner.DONE and command["result"] == planner.RECORDS_OUT:
                    with np.errstate(over="ignore", invalid="ignore"):
                        expected.append(planes(quantized(config, y)))
        jobs += [word(2, cycles)] if cycles is not None else [word(1), word(2)]
    return jobs, expected, statuses


@command_line.run
def main(arguments=None):
    parser = command_line.Parser(prog="jobs.py", description="Writes jobs for the simulation.")
    parser.add_argument("config", choices=planner.CONFIGS)
    parser.add_argument("jobs", metavar="JOBS", type=Path)
    parser.add_argument("expected", metavar="EXPECTED", type=Path)
    options = parser.parse_args(arguments)
    config = planner.CONFIGS[options.config]
    commands = stimuli.products(np.random.default_rng(0), 12, config)
    jobs, expected, statuses = script(config, [(None, commands)])
    # Events: a result waited, and where a command did not run, one failed.
    events = 1 | 4 * any(statuses)
    options.jobs.write_bytes(b"".join(jobs))
    options.expected.write_bytes(b"".join(expected) + events.to_bytes(4, "little"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
