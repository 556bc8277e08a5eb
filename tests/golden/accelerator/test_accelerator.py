import numpy as np
import pytest

import sim
from golden import matmul, quantize_activations, quantize_weights, stimuli
from golden.accelerator import planner
from golden.accelerator.accelerator import accelerator, execute, result_matrix, streams


def command(rng, m, k, n, source=0, result=0):
    x = rng.standard_normal((m, k)).astype(np.float32)
    return {"m": m, "k": k, "n": n, "source": source, "result": result,
            "w": quantize_weights(rng.standard_normal((n, k)).astype(np.float32)),
            "x": x, "a": quantize_activations(x)}


@pytest.mark.parametrize("config", planner.CONFIGS)
def test_streams_hold_all_that_the_results_need(config):
    """Reading the streams back gives the operands, and so the same results again."""
    config = planner.CONFIGS[config]
    commands = stimuli.products(np.random.default_rng(1), 40, config)
    with np.errstate(all="ignore"):
        executed = execute(config, commands)
        inputs, outputs = streams(config, commands, executed)
        again = accelerator(config, inputs)
    assert {code for code, _, _ in executed} > {planner.DONE}
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
