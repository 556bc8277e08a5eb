# amaranth: UnusedElaboratable=no
from functools import cache

import numpy as np
import oracle
import pytest
from amaranth import ResetInserter, Signal
from compare import check
from testbench import simulate

from golden import stimuli, twins
from hw.weight_encoder import WeightEncoder

NAN, INF = float("nan"), float("inf")
ULP = 2.0**-149
LARGEST = float(np.finfo(np.float32).max)
CYCLES = {"sg-em": 64, "sg-threshold": 27}
ENCODE = {"sg-em": oracle.encode_weights, "sg-threshold": oracle.encode_sg_threshold}
ENCODINGS = pytest.mark.parametrize("encoding", CYCLES)


def expected(x, encoding):
    elements, metadata, scales = zip(
        *(ENCODE[encoding](group) for group in x.astype(float).tolist()), strict=True)
    return {"o": {"elements": np.array(elements), "metadata": np.array(metadata),
                  "scale": np.array(scales)}}


def check_groups(x, encoding, **options):
    x = np.array(x, np.float32)
    check(WeightEncoder(encoding=encoding), {"i": x.view(np.uint32)}, expected(x, encoding),
          outputs=len(x), **options)


def pad(*values):
    return [*values] + [0.0] * (32 - len(values))


def spread(*values):
    """Values in the first lanes of different subgroups."""
    return [value for number in range(4) for value in
            [*values[number::4], *[0.0] * (8 - len(values[number::4]))]]


@ENCODINGS
def test_not_finite(encoding):
    groups = [pad(*[1.0] * i, bad, 2.0) for i, bad in zip((0, 9, 22, 30), (NAN, INF, -INF, NAN),
                                                         strict=True)]
    groups += [[-1.0] * 31 + [INF], pad(1.0, -2.0), pad(ULP, NAN), pad(LARGEST)]
    check_groups(groups, encoding)


@ENCODINGS
def test_zeros_and_the_lower_end(encoding):
    groups = [[0.0] * 32, [-0.0] * 32, [0.0, -0.0] * 16, pad(ULP), pad(-(2.0**-126) + ULP)]
    # Scales 0, 1 and 2, of Sg-EM also from one above; subnormals beside normal values.
    for power in (-129, -128, -127, -126, -125, -124, -123):
        groups.append(spread(2.0**power, -1.5 * 2.0**power, 2.0**-127, 3 * 2.0**-130, 1.375 *
                             2.0**power, -0.0, 2.0**-128 + ULP, -5 * 2.0**-131))
    check_groups(groups, encoding)


@ENCODINGS
def test_upper_end(encoding):
    groups = [pad(LARGEST), pad(-LARGEST, 2.0**126), pad(2.0**127), pad(1.75 * 2.0**127, 2.0**124)]
    check_groups(groups, encoding)


@pytest.mark.parametrize("encoding, values, scale, factor, codes", [
    ("sg-threshold", [11.0], 128, 3, [5]), ("sg-threshold", [-5.5], 127, 3, [13]),
    ("sg-threshold", [10.5, -10.5, -0.0], 127, 3, [7, 15, 8]),
    ("sg-threshold", [0.0, -0.0], 0, 0, [0, 8]), ("sg-threshold", [2.0**-126], 0, 0, [4]),
    # 8 is 4 * 2 under scale 128, and 6 * 1.25 is off; under 127 all but 6 would be.
    ("sg-em", [8.0], 128, 0, [6]), ("sg-em", [-7.5], 127, 1, [15]),
    # Of two scales and factors without error the lower: 6, not 3 * 2; 6 * 1, not 4 * 1.5.
    ("sg-em", [6.0], 127, 0, [7]), ("sg-em", [0.0, -0.0], 0, 0, [0, 8]),
    ("sg-em", [2.0**-127], 0, 0, [2]), ("sg-em", [3 * 2.0**-127], 0, 0, [5]),
])
def test_by_hand(encoding, values, scale, factor, codes):
    x = np.array([pad(*values)], np.float32)
    elements, metadata, scales = expected(x, encoding)["o"].values()
    assert (scales.tolist(), metadata[0].tolist()) == ([scale], [factor, 0, 0, 0])
    assert elements[0, : len(codes)].tolist() == codes
    check_groups(x, encoding)


@cache
def tied(encoding, count):
    """Groups in which candidates with errors are equally good: of factors and, in Sg-EM, scales."""
    rng = np.random.default_rng(2)
    groups = {"factor": [], "scale": []}
    wanted = groups if encoding == "sg-em" else ["factor"]
    while any(len(groups[kind]) < count for kind in wanted):
        x = rng.choice([1, 2, 3, 5, 7, 10, 11, 13, 14, 17], 32) / 2
        # The others round to zero, but fill the last places of sums of squares.
        x = np.where(rng.random(32) < rng.choice([0.05, 0.1, 0.2, 0.5]), x,
                     rng.standard_normal(32) / 2**11)
        x = (x * rng.choice([-1, 1], 32)).astype(np.float32)
        noise = (8 * oracle.UNIT) ** 2 // 1000
        tried = (oracle.weight_errors(x.tolist()) if encoding == "sg-em" else
                 {0: oracle.factor_errors(x.tolist(), oracle.encode_sg_threshold(x.tolist())[2])})
        totals = []
        factor_tie = False
        for parts in tried.values():
            errors = [[error for error, _ in part.values()] for part in parts]
            totals.append(sum(map(min, errors)))
            factor_tie |= any(min(e) > noise and e.count(min(e)) > 1 for e in errors)
        if min(totals) > noise and totals.count(min(totals)) > 1:
            groups["scale"].append(x)
        elif factor_tie:
            groups["factor"].append(x)
    return np.array([x for kind in wanted for x in groups[kind][:count]])


@ENCODINGS
def test_ties_between_candidates(encoding):
    check_groups(tied(encoding, 6), encoding)


@ENCODINGS
def test_ties_between_codes(encoding):
    # Decision points of all factors and their neighbours, under a scale that a 6 or a 5.5 holds.
    points = np.array([[point * factor / 16 for point in (1, 3, 5, 7, 10, 14, 20)]
                       for factor in (4, 5, 6, 7)], np.float32)
    x = np.zeros((9, 4, 8), np.float32)
    for row, power in enumerate((-2, -1, 0)):
        for move in (-1, 0, 1):
            near = (points.view(np.uint32) + np.uint32(move & 0xFFFFFFFF)).view(np.float32)
            x[3 * row + move, :, 1:] = np.ldexp(near, power)
    x[:, :, 0] = 6.0, 5.5, 0, -5.25
    check_groups(x.reshape(-1, 32), encoding)


@ENCODINGS
@pytest.mark.parametrize("stalls", [0, 0.6])
def test_random(encoding, stalls):
    rng = np.random.default_rng(int(10 * stalls))
    x = np.concatenate([oracle.hard_groups(rng, 6, 32),
                        rng.standard_normal((4, 32)).astype(np.float32),
                        rng.integers(0, 1 << 32, (2, 32), np.uint32).view(np.float32)])
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
    check(WeightEncoder(encoding=encoding), {"i": x},
          twins.weight_encoder({"i": x}, encoding=encoding), outputs=len(x), stalls=stalls)


@pytest.mark.long
@ENCODINGS
def test_many_ties(encoding):
    check_groups(tied(encoding, 100), encoding)


@ENCODINGS
def test_handshake(encoding):
    """Valid waits for nothing, a record stays while stalled, and reset empties."""
    unit = WeightEncoder(encoding=encoding)
    assert unit.latency == unit.cycles == CYCLES[encoding]
    reset = Signal()

    async def bench(ctx):
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

    simulate(ResetInserter(reset)(unit), bench)


@pytest.mark.parametrize("encoding", ["mixed", "sg-special", None, 1])
def test_wrong_encoding(encoding):
    with pytest.raises(ValueError) as raised:
        WeightEncoder(encoding=encoding)
    assert str(raised.value) == f"Encoding must be one of sg-em, sg-threshold, not {encoding!r}"


def test_parameters_are_keywords():
    with pytest.raises(TypeError, match="takes 1 positional argument"):
        WeightEncoder("sg-em")
