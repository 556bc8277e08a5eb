# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""The weight encoder against golden: factors, scales, what one bit decides, resets in a group."""

from functools import cache

import numpy as np
import pytest
from amaranth import ResetInserter, Signal, Value

import sim
from golden import reference, stimuli
from hw.units.weight_encoder import WeightEncoder
from sim.engines import build
from sim.engines.amaranth import Simulated
from tests.support import oracle
from tests.support.compare import check

NAN, INF = float("nan"), float("inf")
ULP = 2.0**-149
LARGEST = float(np.finfo(np.float32).max)
CYCLES = {"sg-em": 64, "sg-threshold": 27}
ENCODE = {"sg-em": oracle.encode_weights, "sg-threshold": oracle.encode_sg_threshold}
ENCODINGS = pytest.mark.parametrize("encoding", CYCLES)


# A group takes Amaranth's simulator a tenth of a second and more.
ENGINE = build.preferred("auto")


@cache
def encoder(encoding):
    """One component of an encoding for all runs, which is emitted and built once."""
    return WeightEncoder(encoding=encoding)


def expected(x, encoding):
    """Records of groups by the oracle."""
    with np.errstate(invalid="ignore"):
        groups = x.astype(float).tolist()
    elements, metadata, scales = zip(*map(ENCODE[encoding], groups), strict=True)
    return {"elements": np.array(elements), "metadata": np.array(metadata),
            "scale": np.array(scales)}


def check_groups(x, encoding, **options):
    check(encoder(encoding), {"i": x.view(np.uint32)},
          {"o": expected(x, encoding)}, outputs=len(x), engine=ENGINE, **options)


def pad(*values):
    return [*values] + [0.0] * (32 - len(values))


def spread(*values):
    """Values in the first lanes of all subgroups, in turn."""
    return [value for number in range(4) for value in pad(*values[number::4])[:8]]


def tied(encoding, count):
    """Groups in which candidates with errors are equally good: of factors and, in Sg-EM, scales."""
    rng = np.random.default_rng(2)
    groups = {"factor": [], "scale": []}
    wanted = groups if encoding == "sg-em" else ["factor"]
    noise = (8 * oracle.UNIT) ** 2 // 1000
    while any(len(groups[kind]) < count for kind in wanted):
        x = rng.choice([1, 2, 3, 5, 7, 10, 11, 13, 14, 17], 32) / 2
        # The others round to zero, but fill the last places of sums of squares.
        x = np.where(rng.random(32) < rng.choice([0.05, 0.1, 0.2, 0.5]), x,
                     rng.standard_normal(32) / 2**11)
        x = (x * rng.choice([-1, 1], 32)).astype(np.float32).tolist()
        tried = (oracle.weight_errors(x) if encoding == "sg-em" else
                 {0: oracle.factor_errors(x, oracle.encode_sg_threshold(x)[2])})
        errors = [[[error for error, _ in part.values()] for part in parts]
                  for parts in tried.values()]
        totals = [sum(map(min, parts)) for parts in errors]
        if min(totals) > noise and totals.count(min(totals)) > 1:
            groups["scale"].append(x)
        elif any(min(e) > noise and e.count(min(e)) > 1 for parts in errors for e in parts):
            groups["factor"].append(x)
    return [x for kind in wanted for x in groups[kind][:count]]


def near_points():
    """Decision points of all factors and their neighbours, under a scale that a 6 or 5.5 holds."""
    points = np.array([[point * factor / 16 for point in (1, 3, 5, 7, 10, 14, 20)]
                       for factor in (4, 5, 6, 7)], np.float32)
    x = np.zeros((9, 4, 8), np.float32)
    for row, power in enumerate((-2, -1, 0)):
        for move in (-1, 0, 1):
            near = (points.view(np.int32) + np.int32(move)).view(np.float32)
            x[3 * row + move, :, 1:] = np.ldexp(near, power)
    x[:, :, 0] = 6.0, 5.5, 0, -5.25
    return x.reshape(-1, 32).tolist()


def one_bit_past():
    """An element a bit beside a decision point, among others that make its factor the best."""
    exact = [6, 4, 3, 2, 1.5, 1, 0.5]
    return [[value * factor / 4 for factor in (4, 5, 6, 7) for value in
             [*exact, (point + sign * 2.0**-bit / factor) / 4]]
            for point in (1, 3, 5, 7, 10, 14, 20) for bit in range(1, 8) for sign in (1, -1)]


BY_HAND = {
    "sg-em": [
        # 8 is 4 * 2 under scale 128, and 6 * 1.25 is off; under 127 all but 6 would be.
        ([8.0], 128, 0, [6]), ([-7.5], 127, 1, [15]),
        # Of scales and factors without error the lower: 6, not 3 * 2; 6 * 1, not 4 * 1.5.
        ([6.0], 127, 0, [7]), ([0.0, -0.0], 0, 0, [0, 8]), ([2.0**-127], 0, 0, [2]),
        ([3 * 2.0**-127], 0, 0, [5]),
    ],
    "sg-threshold": [
        ([11.0], 128, 3, [5]), ([-5.5], 127, 3, [13]), ([10.5, -10.5, -0.0], 127, 3, [7, 15, 8]),
        ([0.0, -0.0], 0, 0, [0, 8]), ([2.0**-126], 0, 0, [4]),
    ],
}

GROUPS = {
    "by_hand": lambda encoding: [pad(*values) for values, *_ in BY_HAND[encoding]],
    # NaN groups leave nothing behind.
    "not_finite": lambda _: [
        *(pad(*[1.0] * i, bad, 2.0) for i, bad in [(0, NAN), (9, INF), (22, -INF), (30, NAN)]),
        [-1.0] * 31 + [INF], pad(1.0, -2.0), pad(ULP, NAN), pad(LARGEST)],
    "zeros": lambda _: [[0.0] * 32, [-0.0] * 32, [0.0, -0.0] * 16, pad(ULP),
                        pad(-(2.0**-126) + ULP)],
    # Scales from 0 on; subnormals beside normal values.
    "lower_end": lambda _: [
        spread(2.0**power, -1.5 * 2.0**power, 2.0**-127, 3 * 2.0**-130, 1.375 * 2.0**power, -0.0,
               2.0**-128 + ULP, -5 * 2.0**-131) for power in range(-129, -122)],
    "upper_end": lambda _: [pad(LARGEST), pad(-LARGEST, 2.0**126), pad(2.0**127),
                            pad(1.75 * 2.0**127, 2.0**124)],
    # The most that a group gains, and the least with the lowest scale.
    "a_group_before": lambda _: [[LARGEST] * 32, pad(10.5), [-LARGEST] * 32, pad(-10.5)],
    "ties_between_codes": lambda _: near_points(),
    "one_bit_past_a_tie": lambda _: one_bit_past(),
    "ties_between_candidates": lambda encoding: tied(encoding, 8),
}


@cache
def encoded(encoding):
    """Groups with their records, all in one run, by name."""
    groups = {name: np.array(make(encoding), np.float32) for name, make in GROUPS.items()}
    x = np.concatenate([*groups.values()])
    o = sim.run(encoder(encoding), {"i": x.view(np.uint32)}, outputs=len(x),
                engine=ENGINE)["o"]
    ends = np.cumsum([len(x) for x in groups.values()])
    parts = {field: np.split(rows, ends[:-1]) for field, rows in o.items()}
    return {name: (x, {field: parts[field][n] for field in parts})
            for n, (name, x) in enumerate(groups.items())}


# Building an encoder takes most of the time.
@pytest.mark.parametrize("encoding", ["sg-em", pytest.param("sg-threshold",
                                                            marks=pytest.mark.long)])
@pytest.mark.parametrize("name", GROUPS)
def test_groups(name, encoding):
    x, given = encoded(encoding)[name]
    wanted = expected(x, encoding)
    for row, group in enumerate(x.tolist()):
        for field in wanted:
            assert given[field][row].tolist() == wanted[field][row].tolist(), (field, group)


@pytest.mark.parametrize("encoding", ["sg-em", pytest.param("sg-threshold",
                                                            marks=pytest.mark.long)])
def test_by_hand(encoding):
    records = encoded(encoding)["by_hand"][1]
    elements, metadata, scales = (records[name].tolist() for name in
                                  ("elements", "metadata", "scale"))
    for n, (_, scale, factor, codes) in enumerate(BY_HAND[encoding]):
        assert (scales[n], metadata[n], elements[n][: len(codes)]) == (
            scale, [factor, 0, 0, 0], codes)


@ENCODINGS
@pytest.mark.parametrize("stalls", [0, 0.6])
def test_random(encoding, stalls):
    rng = np.random.default_rng(int(10 * stalls))
    x = np.concatenate([oracle.hard_groups(rng, 60, 32),
                        rng.standard_normal((30, 32)).astype(np.float32),
                        rng.integers(0, 1 << 32, (10, 32), np.uint32).view(np.float32)])
    times = {}
    check_groups(x, encoding, stalls=stalls, times=times)
    if not stalls:
        assert times["o"].tolist() == [CYCLES[encoding] * (1 + n) for n in range(len(x))]


@pytest.mark.long
@ENCODINGS
@pytest.mark.parametrize("stalls", [0, 0.3])
def test_many(encoding, stalls):
    rng = np.random.default_rng(5)
    inputs = stimuli.weight_encoder(rng, 2000, encoding=encoding)
    x = np.concatenate([inputs["i"], oracle.hard_groups(rng, 1000, 32).view(np.uint32)])
    check(encoder(encoding), {"i": x},
          reference.weight_encoder({"i": x}, encoding=encoding), outputs=len(x), stalls=stalls,
          engine=ENGINE)


@pytest.mark.long
@ENCODINGS
def test_many_ties(encoding):
    check_groups(np.array(tied(encoding, 100), np.float32), encoding)


@cache
def bench_of(encoding):
    """An encoder, its reset and one simulator, for all tests that look at single cycles."""
    unit, reset = WeightEncoder(encoding=encoding), Signal()
    return unit, reset, Simulated(ResetInserter(reset)(unit))


@ENCODINGS
def test_handshake(encoding):
    """Valid waits for nothing, a record stays while stalled, and reset empties."""
    unit, reset, bench = bench_of(encoding)
    assert unit.latency == unit.cycles == CYCLES[encoding]

    async def run(ctx):
        def offer(value):
            ctx.set(unit.i.valid, value is not None)
            ctx.set(unit.i.payload[0], int(np.float32(value or 0).view(np.uint32)))

        for _ in range(2):
            ctx.set(unit.o.ready, 0)
            offer(6.0)
            for cycle in range(unit.cycles):
                assert not ctx.get(unit.o.valid)
                assert ctx.get(unit.i.ready) == (cycle == unit.cycles - 1)
                await ctx.tick()
            # The next group is not taken, and changes nothing.
            offer(-2.0**20)
            for _ in range(2 * unit.cycles):
                assert ctx.get(unit.o.valid) and not ctx.get(unit.i.ready)
                assert ctx.get(unit.o.payload.elements[0]) == 7
                assert ctx.get(unit.o.payload.scale) == 127
                await ctx.tick()
            ctx.set(unit.o.ready, 1)
            await ctx.tick()
            # In the middle of it.
            for _ in range(unit.cycles // 2):
                assert not ctx.get(unit.o.valid)
                await ctx.tick()
            offer(None)
            ctx.set(reset, 1)
            await ctx.tick()
            ctx.set(reset, 0)
            for _ in range(2 * unit.cycles):
                assert not ctx.get(unit.o.valid) and not ctx.get(unit.i.ready)
                await ctx.tick()

    bench.run(run)


@pytest.mark.parametrize("encoding", [
    pytest.param("sg-em", marks=pytest.mark.long), "sg-threshold"])
def test_reset_within_a_group(encoding):
    """Wherever a group is, after a reset the next one is encoded as if it were the first."""
    unit, reset, bench = bench_of(encoding)
    x = np.random.default_rng(6).standard_normal(32).astype(np.float32)
    wanted = {field: rows[0].tolist() for field, rows in expected(x[None], encoding).items()}

    def offer(ctx, group):
        # All lanes at once, because the simulator settles after each value that is set.
        ctx.set(Value.cast(unit.i.payload), int.from_bytes(group.astype("<f4").tobytes(), "little"))

    async def run(ctx):
        ctx.set(unit.o.ready, 1)
        ctx.set(unit.i.valid, 1)
        # In measuring, trying, waiting, writing and in the last cycle.
        for cycles in (2, 9, unit.cycles - 6, unit.cycles - 3, unit.cycles - 1):
            offer(ctx, -x[::-1])
            await ctx.tick().repeat(cycles)
            ctx.set(reset, 1)
            await ctx.tick()
            ctx.set(reset, 0)
            offer(ctx, x)
            for cycle in range(unit.cycles):
                assert not ctx.get(unit.o.valid)
                assert ctx.get(unit.i.ready) == (cycle == unit.cycles - 1)
                await ctx.tick()
            assert ctx.get(unit.o.valid)
            record = unit.o.payload
            assert [ctx.get(record.elements[n]) for n in range(32)] == wanted["elements"]
            assert [ctx.get(record.metadata[j]) for j in range(4)] == wanted["metadata"]
            assert ctx.get(record.scale) == wanted["scale"]

    bench.run(run)


@ENCODINGS
def test_values_that_are_withdrawn(encoding):
    """They give no record, whenever they go, and the next ones give theirs."""
    unit, reset, bench = bench_of(encoding)

    async def run(ctx):
        ctx.set(unit.o.ready, 0)
        ctx.set(unit.i.payload[0], int(np.float32(6).view(np.uint32)))
        ctx.set(unit.i.valid, 1)
        await ctx.tick().repeat(2)
        ctx.set(unit.i.valid, 0)
        await ctx.tick().repeat(unit.cycles)
        assert not ctx.get(unit.o.valid)
        ctx.set(unit.i.valid, 1)
        await ctx.tick().repeat(unit.cycles)
        ctx.set(unit.i.valid, 0)
        assert ctx.get(unit.o.valid)
        assert ctx.get(unit.o.payload.elements[0]) == 7 and ctx.get(unit.o.payload.scale) == 127

    bench.run(run)


@pytest.mark.parametrize("encoding", ["mixed", "sg-special", None, 1])
def test_wrong_encoding(encoding):
    with pytest.raises(ValueError) as raised:
        WeightEncoder(encoding=encoding)
    assert str(raised.value) == f"Encoding must be one of sg-em, sg-threshold, not {encoding!r}"


def test_parameters_are_keywords():
    with pytest.raises(TypeError, match="takes 1 positional argument"):
        WeightEncoder("sg-em")
