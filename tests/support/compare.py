# SPDX-License-Identifier: BSD-2-Clause
"""Comparison of components with expected outputs, bit by bit."""

import numpy as np

import sim

SMALL = {"mac_array": ["columns=4"], "nvfp4_array": ["columns=4"], "accelerator": ["config=lite"],
         "sg_engine": ["cycles=16"]}
"""Settings of the units that are large: more columns, or lanes, show nothing new and take long."""


def check(component, inputs, expected, **options):
    """Runs a component on arrays; fails with the first row whose outputs differ."""
    outputs = sim.run(component, inputs, **options)
    wrong = np.flatnonzero(sim.mismatches(outputs, expected))
    if len(wrong):
        row = wrong[0]
        raise AssertionError(
            f"{len(wrong)} rows of {max(len(values) for _, values in _leaves(expected))} differ, "
            f"first row {row}:\n" + "\n".join(
                f"  {kind} {path} = {[hex(n) for n in np.ravel(values[row]).tolist()]}"
                for kind, arrays in (("input", inputs), ("output", outputs), ("expected", expected))
                for path, values in _leaves(arrays) if row < len(values)))


def float_bits(values):
    """Float32 bits of numbers, which must be exact in it."""
    values = np.asarray(values, np.float64)
    narrow = values.astype(np.float32)
    assert (narrow == values).all()
    return narrow.view(np.uint32)


def _leaves(arrays, path=""):
    if not isinstance(arrays, dict):
        yield path, np.asarray(arrays)
        return
    for name, values in arrays.items():
        yield from _leaves(values, f"{path}.{name}" if path else name)
