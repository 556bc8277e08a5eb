# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""Plans and statuses of commands against golden, and wrong configurations."""

import numpy as np
import pytest

import sim
from golden.accelerator import planner
from hw.accelerator.config import CONFIGS, Config
from hw.accelerator.planner import SIZE, Planner, Result, Source, Status, plan_layout


def commands(rng, count, config):
    """Sizes of all magnitudes, limits of the machine, and chains."""
    def sizes():
        exact = np.minimum(2 ** rng.integers(0, SIZE + 1, count), (1 << SIZE) - 1)
        return np.where(rng.random(count) < 0.5, exact, rng.integers(0, exact + 1))

    m, k, n = sizes(), sizes(), sizes()
    # As many rows as just fit, or one more.
    near = rng.random(count) < 0.3
    k = np.where(near, 32 * rng.integers(1, 40, count), k)
    m = np.where(near, config.activations // np.maximum(k // 32, 1) + rng.integers(0, 2, count), m)
    source, result = rng.integers(0, 4, count), rng.integers(0, 4, count)
    for i in range(1, count):
        if rng.random() < 0.5:
            m[i - 1] = m[i] = rng.integers(1, 24)
            n[i - 1] = k[i] = rng.integers(1, 200)
            k[i - 1] = rng.integers(1, 200)
            source[i - 1], result[i - 1], source[i] = 0, 2, 2
            # Now and then it just misses.
            m[i] += rng.random() < 0.2
            k[i] += rng.random() < 0.2
    return {"m": m, "k": k, "n": n, "source": source, "result": result}


@pytest.mark.parametrize("config", [
    "tiny", "lite", *(pytest.param(config, marks=pytest.mark.long)
                      for config in ("paper", "decode"))])
def test_golden(config):
    chosen = planner.CONFIGS[config]
    given = commands(np.random.default_rng(0), 60, chosen)
    plans = sim.run(Planner(CONFIGS[config]), {"i": given}, stalls=0.3)["o"]
    kept, codes = None, set()
    for i in range(60):
        command = {name: int(values[i]) for name, values in given.items()}
        plan = {name: int(values[i]) for name, values in plans.items()}
        code = planner.check(chosen, **command, kept=kept)
        codes.add(code)
        assert plan["code"] == code, command
        if code != planner.DONE:
            continue
        m, k, n, source, result = command.values()
        kept = (m, n) if result == planner.KEEP else None
        expected = planner.plan(chosen, m, k, n)
        sizes = [len(block) for block in expected.blocks]
        assert plan == {
            "code": code, "source": source, "result": result, "groups": expected.groups,
            "tiles": expected.tiles, "columns": n - chosen.columns * (expected.tiles - 1),
            "blocks": len(sizes), "rows": m // len(sizes), "larger": m % len(sizes),
            "resident": expected.resident,
        }, command
    # Without 32 columns nothing is kept; there is no machine without an engine here.
    assert codes == ({*planner.STATUSES} if chosen.columns == 32 else {0, 1, 2, 3})


def test_latency():
    statistics = {}
    one = {"m": [1], "k": [1], "n": [1], "source": [0], "result": [0]}
    sim.run(Planner(CONFIGS["tiny"]), {"i": one}, statistics=statistics)
    assert statistics["cycles"] - 1 == Planner.latency


def test_no_engine_no_values():
    config = Config(activations=64, weights=64, rows=16, input=None)
    one = {"m": [1], "k": [1], "n": [1], "source": [Source.VALUES.value], "result": [0]}
    assert sim.run(Planner(config), {"i": one})["o"]["code"] == [Status.BAD_SOURCE.value]


def test_both_sides_agree():
    assert [code.value for code in Status] == [*planner.STATUSES]
    assert [source.value for source in Source] == [*planner.SOURCES]
    assert [result.value for result in Result] == [*planner.RESULTS]
    for name in ("DONE", "BAD_SIZE", "BAD_SOURCE", "BAD_RESULT", "NOT_KEPT", "TOO_LARGE"):
        assert Status[name].value == getattr(planner, name)
    for name, value in (("RECORDS", planner.RECORDS), ("VALUES", planner.VALUES),
                        ("KEPT", planner.KEPT)):
        assert Source[name].value == value
    for name, value in (("VALUES", planner.VALUES_OUT), ("RECORDS", planner.RECORDS_OUT),
                        ("KEEP", planner.KEEP)):
        assert Result[name].value == value
    assert CONFIGS.keys() == planner.CONFIGS.keys()
    for name, config in CONFIGS.items():
        assert sim.golden_config(config) == planner.CONFIGS[name]


def test_memory_of_the_paper():
    """144 KB, 144 KB and 36 KB."""
    assert CONFIGS["paper"].memory_bits == (144 + 144 + 36) * 1024 * 8


def test_rows_of_a_plan_fit():
    for config in CONFIGS.values():
        assert plan_layout(config)["rows"].width >= config.rows.bit_length()


@pytest.mark.parametrize("setting, text", [
    ({"columns": 3}, "columns must be a power of two, not 3"),
    ({"columns": 64}, "columns must be at most 32, not 64"),
    ({"activations": 96}, "activations must be a power of two, not 96"),
    ({"activations": 32}, "activations must be at least 64, not 32"),
    ({"weights": 0}, "weights must be a power of two, not 0"),
    ({"weights": 1}, "weights must be a multiple of 1, at least twice, not 1"),
    ({"weights": 4, "weight_width": 4}, "weights must be a multiple of 4, at least twice, not 4"),
    ({"weight_width": 8, "columns": 4}, "weight_width must be at most the 4 columns, not 8"),
    ({"rows": 15}, "rows must be an integer of at least 16, not 15"),
    ({"rows": 17, "output_banks": 2}, "rows must be a multiple of 2, at least twice, not 17"),
    ({"input": "float8"}, "input must be None, 'float32', 'bfloat16' or 'float16', not 'float8'"),
])
def test_wrong_config(setting, text):
    with pytest.raises(ValueError) as error:
        Config(**({"activations": 64, "weights": 64, "rows": 16} | setting))
    assert str(error.value) == text
