# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""The Sg engine against the oracle: all magnitudes, the choice of factors, groups, handshakes."""

import itertools

import numpy as np
import pytest
from amaranth import ResetInserter, Signal, Value

from golden import reference, stimuli
from golden.codec.numbers import FLOATS, default_group
from hw.lib.factor_trial import SCALES, SCALES_IN_TURN, Choice, SpecialTrial, Trial
from hw.units.sg_engine import CYCLES, ENCODINGS, SgEngine
from sim.engines.amaranth import Simulated
from tests.support import oracle
from tests.support.compare import check

NAN, INF = float("nan"), float("inf")
ULP = 2.0**-149
LARGEST = float(np.finfo(np.float32).max)

# A scale whose code is 0.
ONE = 2.0**-127


@pytest.mark.parametrize("encoding, number", [
    ("sg-threshold", 0), ("sg-em", 0), ("sg-em", 1), ("sg-em", 2)])
@pytest.mark.parametrize("k", range(4))
def test_all_magnitudes(encoding, number, k):
    """Under each factor and scale. What follows the sixteenths stands for all between them."""
    scale, = SCALES[encoding][number]
    # Below a quarter of the lowest of several scales there are none.
    magnitudes = np.array([n for n in range(2 * scale.largest << number)
                           if encoding == "sg-threshold" or n == 0 or n >= 8])
    lowest = None if encoding == "sg-threshold" else 3
    tried = [oracle.cut_errors([n / 32 * 8 * ONE], 3 + number, lowest)[k]
             for n in magnitudes.tolist()]
    errors, codes = zip(*((error, code) for error, (code,) in tried), strict=True)
    check(Trial(k, scale), {"magnitude": magnitudes},
          {"code": np.array(codes), "error": np.array(errors)})


SPECIAL_SCALES = [
    *(pytest.param("sg-special", scale, id=f"only {scale.specials[0]}")
      for scale, in SCALES["sg-special"]),
    *(pytest.param(encoding, scale, id=f"{encoding}-{scale.place}")
      for encoding, (scales,) in SCALES_IN_TURN.items() for scale in scales)]


@pytest.mark.parametrize("encoding, scale", SPECIAL_SCALES)
@pytest.mark.parametrize("k", range(4))
def test_all_magnitudes_with_special_values(encoding, scale, k):
    """Codes, whether the special value is the nearest one, errors for both of its signs."""
    given = np.array([(magnitude, sign, special) for magnitude in [0, *range(8, 512 << scale.place)]
                      for sign in range(2) for special in scale.specials])
    codes, takes, errors = [], [], []
    for magnitude, sign, special in given.tolist():
        x = (-1)**sign * (magnitude * oracle.scale_units(3) >> 2)
        # The scale is the lowest one.
        tried = [oracle.cut_special_error([x], 3, k + 4 * scale.place, signed, 3,
                                          encoding == "sg-special64")
                 for signed in (special, -special)]
        (own,), (other,) = tried[sign][2], tried[1 - sign][2]
        codes.append(other % 8)
        takes.append(own == 8)
        errors.append([total // 4**(3 + scale.place) for total, _, _ in tried])
    assert any(takes) and not all(takes)
    inputs = {"magnitude": given[:, 0], "sign": given[:, 1]}
    if len(scale.specials) > 1:
        inputs["eight"] = given[:, 2] == 8
    check(SpecialTrial(k, scale), inputs, {"code": np.array(codes), "takes": np.array(takes),
                                           "errors": np.array(errors)})


def test_choice_of_a_factor():
    totals = np.array([*itertools.product((0, 1, 6, 512, 1016), repeat=4)])
    least = [row.index(min(row)) for row in totals.tolist()]
    assert np.bincount(least).min() >= 100
    check(Choice(10), {"totals": totals}, {"factor": np.array(least), "least": totals.min(axis=1)})


def test_choice_of_a_factor_with_an_exponent():
    """The upper factors' sums count four times; of subgroups that are large they alone count."""
    rng = np.random.default_rng(0)
    totals = np.concatenate([rng.choice([0, 1, 3, 4, 5, 16, 20, 508, 1023], (2000, 8)),
                             rng.integers(0, 1024, (1000, 8))])
    large = rng.random(len(totals)) < 0.2
    weighted = totals * np.repeat([1, 4], 4)
    offered = np.where(large[:, None] & (np.arange(8) < 4), 4 * 1024, weighted)
    factor = offered.argmin(axis=1)
    assert np.bincount(factor).min() >= 50
    # Both kinds of ties: within an exponent and between them.
    assert (offered.min(axis=1) == np.sort(offered, axis=1)[:, 1]).any()
    check(Choice(10, 2), {"totals": totals, "large": large},
          {"factor": factor, "least": offered.min(axis=1)})


def expected(x, encoding="sg-threshold"):
    """Records of groups by the oracle."""
    with np.errstate(invalid="ignore"):
        groups = x.astype(float).tolist()
    elements, metadata, scales = zip(*(oracle.encode_sg_engine(group, encoding)
                                       for group in groups), strict=True)
    return {"o": {"elements": np.array(elements), "metadata": np.array(metadata),
                  "scale": np.array(scales)}}


def pad(*values):
    return [*values] + [0.0] * (32 - len(values))


def spread(*values):
    """Values in the first lanes of all subgroups, in turn."""
    return [value for number in range(4) for value in pad(*values[number::4])[:8]]


def tied():
    """Subgroups whose sums of errors are equal under two factors, not both exact."""
    rng, groups = np.random.default_rng(1), []
    while len(groups) < 3:
        x = [11.0 * ONE, *(rng.integers(0, 176, 31) / 16 * ONE)]
        parts = [[error for error, _ in oracle.cut_errors(x[n:n + 8], 1)]
                 for n in range(0, 32, 8)]
        if sum(sums.count(min(sums)) > 1 for sums in parts) > 1:
            groups.append(x)
    return groups


SPECIAL = [
    # NaN groups leave nothing behind.
    *(pad(*[1.0] * i, bad, 2.0) for i, bad in [(0, NAN), (9, INF), (30, -INF)]), pad(1.0, -2.0),
    # On both sides of the scale's bound; saturation under all factors but the last.
    [1.375] * 32, [np.nextafter(np.float32(1.375), np.float32(0))] * 32, pad(10.9, *[10.5] * 30),
    # Zeros keep their signs. Scales from 0 on, subnormals beside normal values.
    [0.0, -0.0] * 16, pad(ULP), pad(-(2.0**-126) + ULP),
    *(spread(2.0**power, -1.5 * 2.0**power, 2.0**-127, 3 * 2.0**-130, 1.375 * 2.0**power, -0.0,
             2.0**-128 + ULP, -5 * 2.0**-131) for power in range(-129, -122)),
    pad(LARGEST), pad(-LARGEST, 2.0**126), [-LARGEST] * 32,
    # A subgroup that an outlier leaves hardly anything of, at each place.
    *(spread(8.0, *(1.4375 * 2.0**-n for n in range(place, place + 8))) for place in range(4)),
    # A bit beside decision points.
    [8.0, *(point * (1 + sign * 2.0**-23) / 16 for point in (7, 14, 20, 28, 35, 42, 49, 70, 98, 140)
            for sign in (-1, 0, 1)), 0.0],
]


def groups(encoding="sg-threshold"):
    size = default_group(encoding)
    x = np.array([*SPECIAL, *tied()], np.float32)
    if size > 32:
        x = np.concatenate([x, np.roll(x, -1, axis=0)], axis=1)
    rng = np.random.default_rng(2)
    return np.concatenate([x, oracle.hard_groups(rng, 12, size),
                           rng.standard_normal((6, size)).astype(np.float32)])


def often(encoding, cycles):
    """Every how many groups: the simulator takes a fifth of a second for a group of 64."""
    if encoding == "sg-special64":
        return 6 if cycles == 16 else 24
    return 1 if cycles == 16 else 4


@pytest.mark.parametrize("encoding, cycles, step", [
    ("sg-threshold", 16, 4), ("sg-special", 16, 6), ("sg-special64", 16, 24),
    *(pytest.param(encoding, cycles, often(encoding, cycles), marks=pytest.mark.long)
      for encoding in ENCODINGS for cycles in CYCLES[encoding == "sg-special64":])])
def test_groups(encoding, cycles, step):
    x, times = groups(encoding)[::step], {}
    unit = SgEngine(cycles=cycles, encoding=encoding)
    check(unit, {"i": x.view(np.uint32)}, expected(x, encoding), outputs=len(x), times=times)
    assert unit.latency == cycles + 2
    assert times["o"].tolist() == [unit.latency + cycles * n for n in range(len(x))]


def test_stalls():
    """With three scales: the registers of all stages wait for the record."""
    x = groups()[::4]
    check(SgEngine(cycles=16, encoding="sg-em"), {"i": x.view(np.uint32)}, expected(x, "sg-em"),
          outputs=len(x), stalls=0.4)


@pytest.mark.parametrize("encoding", ["sg-em", "sg-special"])
def test_largest_sums_of_errors(encoding):
    """All values as far as can be from what the lower scales reach."""
    x = np.repeat(np.array([2 - 2.0**-20, 1.875 - 2.0**-20, 1.75, 1.375, 1.375 - 2.0**-20],
                           np.float32)[:, None], 32, axis=1)
    x[:, 1::2] *= -1
    check(SgEngine(cycles=16, encoding=encoding), {"i": x.view(np.uint32)}, expected(x, encoding),
          outputs=len(x))


@pytest.mark.long
@pytest.mark.parametrize("encoding, cycles, input", [
    *(("sg-threshold", 16, input) for input in FLOATS), ("sg-threshold", 2, "bfloat16"),
    ("sg-em", 16, "float16"), ("sg-special", 16, "bfloat16"), ("sg-special", 4, "float16"),
    ("sg-special64", 16, "float16"), ("sg-special64", 16, "bfloat16")])
def test_inputs_and_stalls(encoding, cycles, input):
    settings = {"input": input, "encoding": encoding, "cycles": cycles}
    inputs = stimuli.sg_engine(np.random.default_rng(3), 12, **settings)
    check(SgEngine(**settings), inputs, reference.sg_engine(inputs, **settings), outputs=12,
          stalls=0.4)


@pytest.mark.long
@pytest.mark.parametrize("encoding, cycles", [
    ("sg-threshold", 2), ("sg-threshold", 16), ("sg-special", 16), ("sg-special64", 16)])
def test_handshake(encoding, cycles):
    """Valid waits for nothing, a record stays while stalled, and reset empties."""
    unit, reset = SgEngine(encoding=encoding, cycles=cycles), Signal()
    x = np.random.default_rng(4).standard_normal((2, default_group(encoding))).astype(np.float32)
    wanted = expected(x, encoding)["o"]

    def offer(ctx, group):
        ctx.set(unit.i.valid, group is not None)
        if group is not None:
            ctx.set(Value.cast(unit.i.payload),
                    int.from_bytes(group.astype("<f4").tobytes(), "little"))

    def same(ctx, n):
        record = unit.o.payload
        return (ctx.get(record.scale) == wanted["scale"][n]
                and [ctx.get(e) for e in record.elements] == wanted["elements"][n].tolist()
                and [ctx.get(e) for e in record.metadata] == wanted["metadata"][n].tolist())

    async def run(ctx):
        for wait in range(1, unit.latency + 1, 3 if encoding == "sg-special64" else 1):
            # A group that a reset meets in each of its cycles, and then another one.
            offer(ctx, x[0])
            ctx.set(unit.o.ready, 0)
            await ctx.tick().repeat(wait)
            ctx.set(reset, 1)
            await ctx.tick()
            ctx.set(reset, 0)
            offer(ctx, x[1])
            for cycle in range(cycles):
                assert ctx.get(unit.i.ready) == (cycle == cycles - 1)
                assert not ctx.get(unit.o.valid)
                await ctx.tick()
            offer(ctx, None)
            await ctx.tick().repeat(2)
            for _ in range(3):
                assert ctx.get(unit.o.valid) and same(ctx, 1) and not ctx.get(unit.i.ready)
                await ctx.tick()
            ctx.set(unit.o.ready, 1)
            await ctx.tick()
            assert not ctx.get(unit.o.valid)

    Simulated(ResetInserter(reset)(unit)).run(run)


@pytest.mark.long
@pytest.mark.parametrize("encoding, cycles", [("sg-threshold", 2), ("sg-threshold", 16),
                                              ("sg-em", 8), ("sg-special", 16),
                                              ("sg-special64", 16)])
def test_values_that_are_withdrawn(encoding, cycles):
    """They give no record, whenever they go, and the next ones give theirs, in as many cycles."""
    unit = SgEngine(cycles=cycles, encoding=encoding)
    x = np.random.default_rng(5).standard_normal((2, default_group(encoding))).astype(np.float32)
    wanted = expected(x, encoding)["o"]

    async def run(ctx):
        ctx.set(unit.o.ready, 1)
        for cut in range(1, cycles, 3 if encoding == "sg-special64" else 1):
            for n, length in (0, cut), (1, cycles):
                ctx.set(Value.cast(unit.i.payload),
                        int.from_bytes(x[n].astype("<f4").tobytes(), "little"))
                ctx.set(unit.i.valid, 1)
                await ctx.tick().repeat(length)
                ctx.set(unit.i.valid, 0)
                await ctx.tick()
            await ctx.tick()
            assert ctx.get(unit.o.valid)
            assert [ctx.get(e) for e in unit.o.payload.elements] == wanted["elements"][1].tolist()
            await ctx.tick()
            for _ in range(unit.latency):
                assert not ctx.get(unit.o.valid)
                await ctx.tick()

    Simulated(unit).run(run)


@pytest.mark.parametrize("parameters, message", [
    ({"input": "float64"}, "Input must be one of float32, bfloat16, float16, not 'float64'"),
    ({"encoding": "mixed"}, "Encoding must be one of sg-threshold, sg-em, sg-special, "
                             "sg-special64, not 'mixed'"),
    ({"cycles": 3}, "Cycles must be 1, 2, 4, 8 or 16, not 3"),
    ({"cycles": True}, "Cycles must be 1, 2, 4, 8 or 16, not True"),
    ({"cycles": "4"}, "Cycles must be 1, 2, 4, 8 or 16, not '4'"),
    ({"cycles": 1, "encoding": "sg-special64"},
     "Cycles must be 2, 4, 8 or 16 in sg-special64, not 1"),
])
def test_wrong_parameters(parameters, message):
    with pytest.raises(ValueError) as raised:
        SgEngine(**parameters)
    assert str(raised.value) == message
