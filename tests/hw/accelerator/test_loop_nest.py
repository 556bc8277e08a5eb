# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""Loops of plans: order of steps, first and last rounds, timing."""

import numpy as np
import pytest

import sim
from hw.accelerator.config import Config
from hw.accelerator.loop_nest import LOOPS, LoopNest

CONFIG = Config(columns=4, weight_width=2, activations=64, weights=8, rows=16, input=None)

FLAGS = "tile_first", "tile_last", "group_first", "group_last", "bundle_first", "bundle_last"


def plan(*, groups, tiles, blocks, rows, larger=0, resident=0, columns=4, code=0, source=0):
    """The first ``larger`` of the blocks have a row more than ``rows``."""
    return {"code": code, "source": source, "result": 0, "groups": groups, "tiles": tiles,
            "columns": columns, "blocks": blocks, "rows": rows, "larger": larger,
            "resident": resident}


PLANS = [
    plan(groups=1, tiles=1, blocks=1, rows=1),
    plan(groups=3, tiles=2, blocks=2, rows=8),
    plan(groups=2, tiles=3, blocks=3, rows=7, larger=2),        # bundles of 1, 1 and 2 tiles
    plan(groups=2, tiles=11, blocks=1, rows=1),                 # bundles of 8 and 3
    plan(groups=1, tiles=16, blocks=1, rows=1),                 # of 8 and 8
    plan(groups=1, tiles=5, blocks=2, rows=3, larger=1),        # of 2 and of 4
    plan(groups=2, tiles=5, blocks=2, rows=2, larger=1, resident=1),
    plan(groups=1, tiles=2, blocks=1, rows=16),
    plan(groups=3, tiles=4, blocks=2, rows=9, resident=1),
]


def steps(plan, loops):
    """All steps of a plan for `CONFIG`, in order."""
    found = []
    if plan["code"]:
        return found
    for block in range(plan["blocks"]):
        rows = plan["rows"] + (block < plan["larger"])
        width = {1: 8, 2: 4, 3: 4}.get(rows, 2 if rows < 8 else 1)
        bundles = [min(width, plan["tiles"] - start) for start in range(0, plan["tiles"], width)]
        inner = 2 if loops == "weights" else rows
        if loops == "activations":
            bundles = [1] if plan["resident"] else [1] * len(bundles)
        for bundle, tiles in enumerate(bundles):
            for group in range(plan["groups"]):
                for tile in range(tiles):
                    for index in range(inner):
                        found.append({
                            "index": index, "index_last": index == inner - 1,
                            "tile_first": tile == 0, "tile_last": tile == tiles - 1,
                            "group_first": group == 0, "group_last": group == plan["groups"] - 1,
                            "bundle_first": bundle == 0, "bundle_last": bundle == len(bundles) - 1,
                            "last": False})
    found[-1]["last"] = True
    return found


def stack(rows):
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


@pytest.mark.parametrize("stalls", [0, 0.5])
@pytest.mark.parametrize("loops", LOOPS)
def test_steps(loops, stalls):
    # Plans that cannot run are passed over.
    plans = [*PLANS, plan(groups=1, tiles=1, blocks=1, rows=1, code=5), PLANS[1],
             plan(groups=0, tiles=0, blocks=0, rows=0, code=1)]
    expected = [step for each in plans for step in steps(each, loops)]
    times = {}
    found = sim.run(LoopNest(CONFIG, loops=loops), {"i": stack(plans)},
                    outputs={"o": len(expected)}, stalls=stalls, times=times)["o"]
    found = [{name: int(values[i]) for name, values in found.items()}
             for i in range(len(expected))]
    for number, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert one == other, number
    if not stalls:
        # Two cycles after the plan, then one per cycle but for the next block's first bundle.
        assert times["o"][0] == times["i"][0] + LoopNest.latency
        first = len(steps(PLANS[0], loops))
        second = len(steps(PLANS[1], loops))
        assert times["o"][first] == times["i"][1] + LoopNest.latency
        assert np.diff(times["o"][first : first + second].astype(int)).tolist() == [1] * (
            second - 1)


def test_other_loops_are_refused():
    with pytest.raises(ValueError) as error:
        LoopNest(CONFIG, loops="tiles")
    assert str(error.value) == ("Loops must be one of weights, activations, products, "
                                "not 'tiles'")
