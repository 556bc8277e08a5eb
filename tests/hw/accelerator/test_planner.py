# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""Plans and statuses of commands against golden, and wrong configurations."""

import dataclasses

import numpy as np
import pytest
from amaranth import ResetInserter, Signal

import sim
from golden.accelerator import planner
from hw.accelerator.config import CONFIGS, Config
from hw.accelerator.planner import SIZE, Planner, Result, Source, Status, plan_layout
from hw.bus.axi_lite import register_map
from tests.support.marks import longer
from tests.support.testbench import simulate


def commands(rng, count, config):
    """Sizes of all magnitudes, limits of the machine, and chains."""
    def sizes():
        exact = np.minimum(2 ** rng.integers(0, SIZE + 1, count), (1 << SIZE) - 1)
        return np.where(rng.random(count) < 0.5, exact, rng.integers(0, exact + 1))

    m, k, n = sizes(), sizes(), sizes()
    # As many rows as just fit, or one more.
    near = rng.random(count) < 0.3
    group = config.group
    k = np.where(near, group * rng.integers(1, 40, count), k)
    m = np.where(near, config.activations // np.maximum(k // group, 1) + rng.integers(0, 2, count),
                 m)
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


# Groups of 64: with an engine and a row of results that is a group, or without.
WIDE = {"encoding": "sg-special64", "activations": 64, "weights": 64, "rows": 16}
MACHINES = CONFIGS | {
    "wide": Config(columns=64, weight_width=8, engine="sg-special64", **WIDE),
    "wide of 32 columns": Config(columns=32, engine="sg-special64", **WIDE)}


@pytest.mark.parametrize("config", [
    "tiny", "lite", "wide", *map(longer, ("paper", "decode", "wide of 32 columns"))])
def test_golden(config):
    machine = MACHINES[config]
    chosen = sim.golden_config(machine)
    given = commands(np.random.default_rng(0), 60, chosen)
    plans = sim.run(Planner(machine), {"i": given}, stalls=0.3)["o"]
    codes = {*expected_codes(chosen, given, plans)}
    # Nothing is kept unless a row is a group; there is no machine without an engine here.
    assert codes == ({0, 1, 2, 3} if config in ("lite", "wide of 32 columns")
                     else {*planner.STATUSES})


def expected_codes(chosen, given, plans):
    """Compares plans with golden and returns their statuses."""
    kept, codes = None, []
    for i in range(len(given["m"])):
        command = {name: int(values[i]) for name, values in given.items()}
        plan = {name: int(values[i]) for name, values in plans.items()}
        code = planner.check(chosen, **command, kept=kept)
        codes.append(code)
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
    return codes


def test_edges():
    """Each limit met and missed by one, on tiny: 64 records, 16 rows, 8 transfers a tile."""
    records, kept = Source.RECORDS.value, Source.KEPT.value
    values, keep = Result.VALUES.value, Result.KEEP.value
    rows = [
        # Nothing was kept before the first command.
        (1, 1, 1, kept, values, Status.NOT_KEPT),
        # As many rows fit as it takes transfers to load a tile, and one less.
        (9, 32 * 8, 1, records, values, Status.DONE),
        (9, 32 * 9, 1, records, values, Status.DONE),
        # The buffer's room, and one row more.
        (7, 32 * 9, 1, records, values, Status.DONE),
        (12, 32 * 4, 32, records, keep, Status.DONE),
        (13, 32 * 4, 32, records, keep, Status.TOO_LARGE),
        # What was kept stays when a command fails, but for one row or column more or less.
        (11, 32, 1, kept, values, Status.NOT_KEPT),
        (12, 31, 1, kept, values, Status.NOT_KEPT),
        (12, 33, 1, kept, values, Status.NOT_KEPT),
        (12, 32, 33, kept, keep, Status.DONE),
        (12, 33, 1, kept, values, Status.DONE),
        # The last one kept nothing, with the sizes of the one before.
        (12, 33, 1, kept, values, Status.NOT_KEPT),
        # The output buffer's rows, where the other buffer has room for more.
        (16, 32, 32, records, keep, Status.DONE),
        (17, 32, 32, records, keep, Status.TOO_LARGE),
        (16, 32, 32, kept, values, Status.DONE),
        (16, 32, 32, kept, values, Status.NOT_KEPT),
        # Sizes that fill their bits.
        (MOST, MOST, MOST, records, values, Status.DONE),
        (MOST, 1, 1, records, values, Status.DONE),
    ]
    columns = zip(*[row[:5] for row in rows], strict=True)
    given = dict(zip(("m", "k", "n", "source", "result"), map(np.array, columns), strict=True))
    plans = sim.run(Planner(CONFIGS["tiny"]), {"i": given})["o"]
    assert expected_codes(planner.CONFIGS["tiny"], given, plans) == [row[5].value for row in rows]


MOST = (1 << SIZE) - 1


def test_edges_in_groups_of_64():
    """Each limit met and missed by one where a group has 64 elements: 64 records, 16 rows."""
    records, kept, keep = Source.RECORDS.value, Source.KEPT.value, Result.KEEP.value
    given = {"m": [12, 13, 12, 12, 12, 1], "k": [64 * 4, 64 * 4, 64 * 4 + 1, 64, 65, MOST],
             "n": [64, 64, 64, 65, 64, MOST],
             "source": [records, records, records, kept, kept, records],
             "result": [keep, keep, keep, keep, 0, 0]}
    given = {name: np.array(values) for name, values in given.items()}
    plans = sim.run(Planner(MACHINES["wide"]), {"i": given})["o"]
    codes = expected_codes(sim.golden_config(MACHINES["wide"]), given, plans)
    assert codes == [code.value for code in (
        Status.DONE, Status.TOO_LARGE, Status.TOO_LARGE, Status.DONE, Status.DONE, Status.DONE)]
    assert plans["groups"].tolist()[3:] == [1, 2, 1 << SIZE - 6]


def test_largest_buffers():
    """The planner's divider holds the largest sizes that a configuration takes."""
    config = Config(activations=1 << SIZE - 1, weights=64, rows=MOST)
    chosen = sim.golden_config(config)
    given = {"m": np.array([MOST, MOST, MOST, 1 << 18, 1 << 18, (1 << 18) + 1, 5]),
             "k": np.array([MOST, 1, 33, 1, 32, 32, 77]), "n": np.array([MOST, 9, 1, 1, 32, 9, 9]),
             "source": np.zeros(7, int), "result": np.array([0, 0, 0, 2, 2, 2, 2])}
    plans = sim.run(Planner(config), {"i": given})["o"]
    codes = expected_codes(chosen, given, plans)
    assert codes == [planner.DONE] * 5 + [planner.TOO_LARGE, planner.DONE]


def test_reset_forgets_what_is_kept():
    reset = Signal()
    unit = Planner(CONFIGS["tiny"])
    codes = []

    async def bench(ctx):
        ctx.set(unit.o.ready, 1)
        for source, result, resets in ((0, 2, False), (2, 2, False), (2, 0, True)):
            if resets:
                ctx.set(reset, 1)
                await ctx.tick()
                ctx.set(reset, 0)
            ctx.set(unit.i.payload, {"m": 3, "k": 5, "n": 5, "source": source, "result": result})
            ctx.set(unit.i.valid, 1)
            await ctx.tick().until(unit.i.ready)
            ctx.set(unit.i.valid, 0)
            plan, = await ctx.tick().sample(unit.o.payload).until(unit.o.valid)
            codes.append(plan.code)

    simulate(ResetInserter(reset)(unit), bench)
    assert codes == [Status.DONE, Status.DONE, Status.NOT_KEPT]


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
        # Golden takes the hardware's as they are.
        assert planner.configuration(config) == planner.CONFIGS[name]


def test_memory_of_the_paper():
    """144 KB, 144 KB and 36 KB; with records of 36 bytes the first two are twice as large."""
    assert CONFIGS["paper"].memory_bits == (144 + 144 + 36) * 1024 * 8
    wide = dataclasses.replace(CONFIGS["paper"], encoding="sg-special64", input=None)
    assert wide.memory_bits == (288 + 288 + 36) * 1024 * 8


def test_rows_of_a_plan_fit():
    for config in CONFIGS.values():
        assert plan_layout(config)["rows"].width >= config.rows.bit_length()


@pytest.mark.parametrize("setting, text", [
    ({"columns": 3}, "columns must be a power of two, not 3"),
    ({"columns": 64}, "columns must be at most 32, not 64"),
    ({"columns": 64, "encoding": "sg-special", "input": None},
     "columns must be at most 32, not 64"),
    ({"columns": 128, "encoding": "sg-special64", "input": None},
     "columns must be at most 64, not 128"),
    ({"encoding": "mixed"}, "Encoding must be 'elem-em', 'sg-em', 'sg-special' or 'sg-special64', "
                            "not 'mixed'"),
    ({"encoding": "sg-special64"}, "input must be None with the encoding 'sg-special64' and "
                                   "without an engine, not 'float32'"),
    ({"encoding": "sg-special64", "engine": "sg-special"},
     "engine must be None or 'sg-special64' with the encoding 'sg-special64', not 'sg-special'"),
    ({"encoding": "sg-special64", "engine": "sg-special64", "engine_cycles": 1},
     "engine_cycles must be at least 2 with the engine 'sg-special64', not 1"),
    ({"encoding": "sg-special64", "engine": "sg-special64", "engine_cycles": 16},
     "engine_cycles must be one of 1, 2, 4, 8, not 16"),
    ({"activations": 96}, "activations must be a power of two, not 96"),
    ({"activations": 32}, "activations must be at least 64, not 32"),
    ({"weights": 0}, "weights must be a power of two, not 0"),
    ({"weights": 1}, "weights must be a multiple of 1, at least twice, not 1"),
    ({"weights": 4, "weight_width": 4}, "weights must be a multiple of 4, at least twice, not 4"),
    ({"weight_width": 8, "columns": 4}, "weight_width must be at most the 4 columns, not 8"),
    ({"rows": 15}, "rows must be an integer of at least 16, not 15"),
    ({"rows": 17, "output_banks": 2}, "rows must be a multiple of 2, at least twice, not 17"),
    ({"activations": 1 << 20}, "activations must be at most 524288, not 1048576"),
    ({"weights": 1 << 32}, "weights must be at most 2147483648, not 4294967296"),
    ({"rows": 1 << 20}, "rows must be at most 1048575, not 1048576"),
    ({"input": "float8"}, "input must be None, 'float32', 'bfloat16' or 'float16', not 'float8'"),
])
def test_wrong_config(setting, text):
    """Each field one beyond what it may be."""
    with pytest.raises(ValueError) as error:
        Config(**({"activations": 64, "weights": 64, "rows": 16} | setting))
    assert str(error.value) == text


@pytest.mark.parametrize("setting", [
    {"columns": 1}, {"columns": 32}, {"activations": 1 << 19}, {"activations": 64}, {"weights": 2},
    {"weights": 1 << 31}, {"weight_width": 32}, {"rows": 16}, {"rows": (1 << 20) - 1},
    {"activation_banks": 32}, {"weight_banks": 32}, {"rows": 16, "output_banks": 8},
    WIDE | {"input": None, "columns": 64, "weight_width": 32},
    WIDE | {"engine": "sg-special64", "columns": 1, "engine_cycles": 2},
])
def test_bounds_of_a_config(setting):
    config = Config(**({"activations": 64, "weights": 64, "rows": 16} | setting))
    assert register_map(config).describe()
    assert Planner(config).signature
