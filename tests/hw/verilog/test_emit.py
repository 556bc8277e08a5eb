# SPDX-License-Identifier: BSD-2-Clause
"""Emitted Verilog in other simulators against golden."""

import numpy as np
import pytest

from hw import generate, registry
from tests.support.compare import SMALL
from tests.support.verilog_bench import (
    build,
    missing,
    read_vectors,
    run,
    write_bench,
    write_vectors,
)

COUNT = 150

# The bench has one output. The accelerator has several; its Verilog is run by test_accelerator.
UNITS = [name for name in registry.UNITS if name != "accelerator"]
QUICK = ["top1", "top1_decode", "pe_tile", "sg_pe_tile", "group_accumulator"]


@pytest.mark.parametrize("names", [
    pytest.param(QUICK, id="quick"),
    pytest.param([name for name in UNITS if name not in QUICK], id="others",
                 marks=pytest.mark.long),
])
@pytest.mark.parametrize("simulator", [
    "iverilog", pytest.param("verilator", marks=pytest.mark.long)])
def test_emitted_verilog_in_another_simulator(simulator, names, tmp_path):
    reason = missing(simulator)
    if reason:
        pytest.skip(reason)

    for name in names:
        unit = registry.UNITS[name]
        parameters = registry.parameters(name, SMALL.get(name, []))
        component = unit.component(**parameters)
        inputs = unit.stimuli(np.random.default_rng(0), COUNT, **parameters)
        text = generate.verilog(component, name)
        write_bench(tmp_path, name, component, text, inputs, unit.reference(inputs, **parameters))
    program = build(simulator, tmp_path, names)
    assert run(program, tmp_path) == {name: f"PASS {COUNT}" for name in names}

    # The benches can fail: one wrong bit at a time, in another vector of each unit.
    wrong = {}
    for index, name in enumerate(names, start=COUNT // 2 - 3):
        path = tmp_path / f"{name}.out.hex"
        vectors = read_vectors(path)
        vectors[index] ^= 1
        write_vectors(path, vectors)
        wrong[name] = f"FAIL at {index}"
    assert run(program, tmp_path) == wrong
