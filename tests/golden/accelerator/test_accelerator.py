# SPDX-License-Identifier: BSD-2-Clause
"""The accelerator's reference: streams that carry commands, chains, and operands with padding."""

from dataclasses import replace

import numpy as np
import pytest

import sim
from golden import Quantized, matmul, quantize_activations, quantize_weights, stimuli
from golden.accelerator import planner
from golden.accelerator.accelerator import accelerator, execute, result_matrix, streams
from golden.units.sg_engine import sg_engine


def command(rng, m, k, n, source=0, result=0, wide=False):
    x = rng.standard_normal((m, k)).astype(np.float32)
    encoding = {"encoding": "sg-special64"} if wide else {}
    return {"m": m, "k": k, "n": n, "source": source, "result": result,
            "w": quantize_weights(rng.standard_normal((n, k)).astype(np.float32),
                                  **encoding),
            "x": x, "a": quantize_activations(x, **encoding)}


# Groups of 64, and what encodes them.
WIDE = planner.Config(columns=64, activations=64, rows=16, weight_width=8,
                      encoding="sg-special64", engine="sg-special64")


def filled(rng, inputs, k):
    """Input streams whose operands, of one group along K, hold anything in the lanes beyond K."""
    def lanes(codes):
        return np.concatenate([codes[..., :k], rng.integers(
            0, 16, (*codes.shape[:-1], codes.shape[-1] - k), np.uint8)], axis=-1)

    largest = 7 if inputs["i_weight"]["elements"].shape[-1] == 64 else 3
    changed = {
        name: inputs[name] | {"elements": lanes(inputs[name]["elements"]), "metadata": rng.integers(
            0, largest + 1, inputs[name]["metadata"].shape, np.uint8)}
        for name in ("i_weight", "i_activation")}
    if "i_value" in inputs:
        values = changed["i_value"] = inputs["i_value"].copy()
        values[:, k:] = rng.standard_normal(values[:, k:].shape).astype(np.float32).view(np.uint32)
    return inputs | changed


@pytest.mark.parametrize("config", [*planner.CONFIGS, "wide"])
def test_streams_hold_all_that_the_results_need(config):
    """Reading the streams back gives the operands, and so the same results again."""
    config = planner.CONFIGS.get(config, WIDE)
    commands = stimuli.products(np.random.default_rng(1), 40, config)
    with np.errstate(all="ignore"):
        executed = execute(config, commands)
        inputs, outputs = streams(config, commands, executed)
        again = accelerator(config, inputs)
    assert {code for code, _, _ in executed} > {planner.DONE}
    assert not sim.mismatches(again, outputs).any()


def test_marks_of_the_last_transfer():
    """A framed machine's operands are the same, with a mark at the end of each command's."""
    rng = np.random.default_rng(5)
    config = planner.CONFIGS["tiny"]
    framed = replace(config, framed=True)
    commands = [command(rng, 3, 40, 33), command(rng, 2, 70, 8, source=planner.VALUES),
                command(rng, 2, 32, 64, result=planner.KEEP), command(rng, 1, 1, 1) | {"n": 0},
                command(rng, 2, 64, 8, source=planner.KEPT)]
    executed = execute(config, commands)
    plain, outputs = streams(config, commands, executed)
    marked, also = streams(framed, commands, executed)
    # Transfers of each command: two groups of 8 and 1, three of 2, one of 16, two of 2.
    assert np.flatnonzero(marked["i_weight"]["last"]).tolist() == [17, 23, 39, 43]
    assert np.flatnonzero(marked["i_activation"]["last"]).tolist() == [5, 7]
    assert np.flatnonzero(marked["i_value"]["last"]).tolist() == [5]
    for name, field in (("i_weight", "records"), ("i_activation", "record"), ("i_value", "values")):
        assert not sim.mismatches({name: marked[name][field]}, {name: plain[name]}).any()
    assert also.pop("o_misframed")["weight"].size == 0
    assert not sim.mismatches(also, outputs).any()
    again = accelerator(framed, marked)
    assert again.pop("o_misframed")["activation"].size == 0
    assert not sim.mismatches(again, outputs).any()


def test_chain_is_two_products_with_a_quantization_between():
    rng = np.random.default_rng(2)
    config = planner.CONFIGS["tiny"]
    up = command(rng, 3, 70, 40, source=planner.VALUES, result=planner.KEEP)
    down = command(rng, 3, 40, 50, source=planner.KEPT)
    (_, _, hidden), (code, division, y) = execute(config, [up, down])
    assert code == planner.DONE
    assert np.array_equal(hidden, matmul(up["a"], up["w"]))
    assert np.array_equal(y, matmul(quantize_activations(hidden), down["w"]))
    rows = streams(config, [up, down], execute(config, [up, down]))[1]["o"]["values"]
    assert np.array_equal(result_matrix(config, division, rows.view(np.float32), 50), y)


def test_chain_in_groups_of_64():
    """The engine encodes the values, which are filled up to 64, and what is kept."""
    rng = np.random.default_rng(2)
    up = command(rng, 3, 70, 40, source=planner.VALUES, result=planner.KEEP, wide=True)
    down = command(rng, 3, 40, 65, source=planner.KEPT, wide=True)
    executed = execute(WIDE, [up, down])
    (_, _, hidden), (_, division, y) = executed
    assert np.array_equal(hidden, matmul(sg_engine(up["x"], encoding="sg-special64"), up["w"]))
    assert np.array_equal(y, matmul(sg_engine(hidden, encoding="sg-special64"), down["w"]))
    inputs, outputs = streams(WIDE, [up, down], executed)
    values = np.zeros((3, 128), np.float32)
    values[:, :70] = up["x"]
    assert np.array_equal(inputs["i_value"].view(np.float32),
                          values.reshape(3, 2, 64).swapaxes(0, 1).reshape(6, 64))
    # Two groups of 40 weights, one of 65: transfers of eight records.
    assert {name: plane.shape for name, plane in inputs["i_weight"].items()} == {
        "elements": (19, 8, 64), "metadata": (19, 8, 8), "scale": (19, 8)}
    rows = outputs["o"]["values"]
    assert np.array_equal(result_matrix(WIDE, division, rows.view(np.float32), 65), y)


def test_only_what_was_kept_just_before_is_there():
    rng = np.random.default_rng(3)
    config = planner.CONFIGS["tiny"]
    keep = command(rng, 2, 32, 64, result=planner.KEEP)
    use = command(rng, 2, 64, 8, source=planner.KEPT)
    wrong = {**use, "n": 0}
    codes = [code for code, _, _ in execute(config, [use, keep, wrong, use, use])]
    # A command that cannot run leaves what was kept; one that runs does not.
    assert codes == [planner.NOT_KEPT, planner.DONE, planner.BAD_SIZE, planner.DONE,
                     planner.NOT_KEPT]


@pytest.mark.parametrize("k, wide", [(1, False), (31, False), (33, True), (63, True)])
def test_lanes_beyond_k_are_multiplied(k, wide):
    """Values and records with padding other than +0 give the product of all lanes of a group."""
    rng = np.random.default_rng(4)
    config = replace(WIDE, columns=4, weight_width=1) if wide else planner.CONFIGS["lite"]
    commands = [command(rng, 3, k, 4, source=source, wide=wide)
                for source in (planner.VALUES, planner.RECORDS)]
    inputs, plain = streams(config, commands, execute(config, commands))
    assert not sim.mismatches(accelerator(config, inputs), plain).any()
    inputs = filled(rng, inputs, k)
    found = accelerator(config, inputs)["o"]["values"].view(np.float32)

    values = inputs["i_value"].view(np.float32)
    values = sg_engine(values, encoding="sg-special64") if wide else quantize_activations(values)
    for number, a in enumerate((values, quantized("activation", inputs["i_activation"]))):
        rows = slice(3 * number, 3 * number + 3)
        w = quantized("weight", {name: plane[4 * number : 4 * number + 4, 0]
                                 for name, plane in inputs["i_weight"].items()})
        assert np.array_equal(found[rows], matmul(a, w))
        assert (found[rows] != plain["o"]["values"].view(np.float32)[rows]).any()


def quantized(kind, record):
    """A matrix of one group along K from its records."""
    group = record["elements"].shape[1]
    return Quantized(kind=kind, shape=record["elements"].shape, elements=record["elements"],
                     metadata=record["metadata"], scales=record["scale"][:, None], group=group,
                     encoding="sg-special64" if group == 64 else None)


def test_weights_beyond_n_are_ignored():
    """Records that only fill the last transfer of a partial tile may hold anything, even NaN."""
    rng = np.random.default_rng(5)
    config = planner.CONFIGS["tiny"]
    commands = [command(rng, 2, 64, 33)]
    inputs, outputs = streams(config, commands, execute(config, commands))
    filling = np.arange(config.weight_width) > 0
    # Two tiles of 8 transfers and of 1, for each of two groups.
    last = slice(8, None, 9)
    for name, largest in (("elements", 15), ("metadata", 3), ("scale", 255)):
        inputs["i_weight"][name][last, filling] = largest
    assert not sim.mismatches(accelerator(config, inputs), outputs).any()
