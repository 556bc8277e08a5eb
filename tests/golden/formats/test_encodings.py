# SPDX-License-Identifier: BSD-2-Clause
"""Activations with a subgroup factor, and mixed ones, against rational arithmetic."""

import dataclasses

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from golden import Quantized, dequantize, matmul, quantize_activations, quantize_weights
from golden.accelerator.accelerator import execute
from golden.accelerator.planner import CONFIGS
from golden.codec import blocked, kernel
from golden.formats import encodings
from golden.units import decoder, group_mac
from golden.units.decoder import element_integers
from tests.support import oracle
from tests.support.marks import longer

SIZES = [(g, s) for g in (16, 32) for s in (4, 8, 16, 32) if s <= g]
PLANES = ["elements", "metadata", "scales"]
SG = ["sg-threshold", "sg-em"]
ORACLES = {"sg-threshold": (oracle.encode_sg_threshold, "sg-em", "weight"),
           "mixed": (oracle.encode_mixed, "mixed", "mixed")}

needs_compiler = pytest.mark.skipif(not kernel.compiler(), reason="needs a C compiler")


@pytest.fixture(params=[pytest.param("compiled", marks=needs_compiler), "numpy"])
def engine(request, monkeypatch):
    """Each way to compute, for tensors of any size."""
    monkeypatch.setattr(blocked, "COMPILED_FROM", 0)
    monkeypatch.setenv("M2XFP_NUMPY", "1" if request.param == "numpy" else "")


def check(x, encoding="sg-threshold", **options):
    """Compares every group with the oracle, and its values; rows must be whole groups."""
    encode, read_as, kind = ORACLES[encoding]
    q = quantize_activations(x, encoding=encoding, **options)
    assert (q.kind, q.encoding, q.shape) == ("activation", read_as, x.shape)
    with np.errstate(invalid="ignore"):  # Signalling NaN.
        inputs = x.astype(np.float64).reshape(-1, q.group).tolist()
    records = [record for row in oracle.records(q) for record in row]
    values = dequantize(q).view(np.uint32).reshape(-1, q.group).tolist()
    for record, group, bits in zip(records, inputs, values, strict=True):
        assert record == encode(group, subgroup=q.subgroup), group
        assert bits == oracle.decode(kind, *record)
    return q


@pytest.mark.parametrize("encoding", ORACLES)
@pytest.mark.parametrize("group, subgroup", SIZES)
def test_against_oracle(engine, group, subgroup, encoding):
    x = oracle.hard_groups(np.random.default_rng([group, subgroup]), 60, group)
    check(x, encoding, group=group, subgroup=subgroup)


@pytest.mark.parametrize("encoding", ORACLES)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("count", [30, longer(80)])
def test_any_bits(dtype, encoding, count):
    rng = np.random.default_rng(1)
    raw = rng.integers(0, 256, (count, 32 * np.dtype(dtype).itemsize), np.uint8).view(dtype)
    # Subnormals, and exponents that are far apart.
    small = np.ldexp(rng.integers(-1023, 1024, (count, 32)) / 1024,
                     rng.integers(-149, -120, (count, 1)))
    q = check(np.concatenate([raw, small.astype(dtype)]), encoding)
    assert 255 in q.scales
    assert {0, 1, 2, 3} == set(q.metadata.ravel().tolist())


def test_sg_threshold_takes_exact_ties():
    """Errors of several factors are often equal on a coarse grid; the lowest wins."""
    rng = np.random.default_rng(2)
    x = rng.choice([1, 3, 5, 7, 10, 11, 13, 17], (400, 16)) / 2
    # The others round to zero at every factor, but fill the last places of sums of squares.
    small = rng.standard_normal(x.shape) / 2**11
    x = np.where(rng.random(x.shape) < rng.choice([0.1, 0.2, 0.5, 0.8], (400, 1)), x, small)
    x = (x * rng.choice([-1, 1], x.shape)).astype(np.float32)
    ties = 0
    for group in x.tolist():
        scale = oracle.encode_sg_threshold(group)[2]
        for tried in oracle.factor_errors(group, scale):
            errors = [error for error, _ in tried.values()]
            ties += min(errors) > (8 * oracle.UNIT) ** 2 // 1000 and errors.count(min(errors)) > 1
    assert ties > 20
    check(x, group=16)


@pytest.mark.parametrize("values, scale, factor, codes", [
    # 11 is 1.375 * 8, from where on the scale is that of the floor rule; 3 * 1.75 is next to 5.5.
    ([11.0], 128, 3, [5]), ([np.nextafter(np.float32(11), np.float32(0))], 127, 3, [7]),
    ([-5.5], 127, 3, [13]), ([8.0], 127, 1, [7]), ([7.5], 127, 1, [7]), ([6.0], 127, 0, [7]),
    # 10.5 is 6 * 1.75, the largest that a factor reaches.
    ([10.5, -10.5], 127, 3, [7, 15]), ([10.9], 127, 3, [7]),
    # All zero: scale 0; the signs stay.
    ([0.0, -0.0], 0, 0, [0, 8]), ([2.0**-149], 0, 0, [0]),
    # 2**-127 is the lowest scale; below it nothing is lower.
    ([2.0**-126], 0, 0, [4]), ([2.75 * 2.0**-126], 0, 3, [5]),
    ([3.4028234663852886e38], 252, 1, [7]),
])
def test_sg_threshold_by_hand(values, scale, factor, codes):
    x = np.zeros((1, 32), np.float32)
    x[0, : len(values)] = values
    q = check(x)
    assert (q.scales.tolist(), q.metadata[0].tolist()) == ([[scale]], [factor, 0, 0, 0])
    assert q.elements[0, : len(codes)].tolist() == codes


def test_mixed_takes_the_lower_error():
    """Of normal values about a third are better refined, unless they have no zero to say so."""
    x = np.random.default_rng(8).standard_normal((300, 32)).astype(np.float32)
    x[100:] *= np.where(np.abs(x[100:]) < 0.3, 0, 1)
    q = check(x, "mixed")
    both = [quantize_activations(x, encoding=encoding) for encoding in ("elem-em", "sg-threshold")]
    refined = (dequantize(q) == dequantize(both[0])).all(axis=1)
    assert 20 < refined.sum() < 200
    assert (dequantize(q)[~refined] == dequantize(both[1])[~refined]).all()
    better = [np.square(dequantize(one).astype(float) - x).sum(axis=1) for one in both]
    without = (both[0].elements & 7 != 0).all(axis=1)
    assert (without & (better[0] < better[1])).any()


def test_mixed_compares_exactly(monkeypatch):
    """Where errors are equal, the last bit of one element decides."""
    monkeypatch.setenv("M2XFP_NUMPY", "1")
    rng = np.random.default_rng(9)
    x = (rng.integers(-64, 65, (10000, 32)) / 16).astype(np.float32)
    x[rng.random(x.shape) < 0.5] = 0
    a, b = (dequantize(quantize_activations(x, encoding=encoding)).astype(float)
            for encoding in ("elem-em", "sg-threshold"))
    # Squares of multiples of 1/16.
    equal = np.square(a - x).sum(axis=1) == np.square(b - x).sum(axis=1)
    rows = np.flatnonzero(equal & (a != b).any(axis=1))
    lane = rows, np.where(a != b, np.abs(x), np.inf)[rows].argmin(axis=1)
    taken = []
    for end in -np.inf, np.inf:
        nudged = x.copy()
        nudged[lane] = np.nextafter(x[lane], np.float32(end))
        taken.append((dequantize(check(nudged[rows], "mixed")) == a[rows]).all(axis=1))
    # Most, as a few lie where codes begin.
    assert (taken[0] != taken[1]).sum() > 30


@pytest.mark.parametrize("values, scale, metadata, codes", [
    # 8 is 4 * 2; under Sg-threshold it would be 7.5. Of zeros the first of a subgroup is its top-1.
    ([8.0], 128, [1, 1, 1, 1], [6, *[8] * 7, 0, *[8] * 7]),
    # Only the top-1 keeps its sign.
    ([8.0, -0.0, *[0.0] * 6, -0.0], 128, [1, 1, 1, 1], [6, *[8] * 7, 8, *[8] * 7]),
    # A top-1 whose code is 0 may be refined: 0.4 is 0.2 of the scale.
    ([8.0, *[0.0] * 7, -0.4], 128, [1, 3, 1, 1], [6, *[8] * 7, 8, *[8] * 7]),
    # Exact in both: Sg-EM, whose zeros are all +0.
    ([6.0, -0.0], 127, [0, 0, 0, 0], [7] + [0] * 31), ([-0.0] * 32, 0, [0, 0, 0, 0], [0] * 32),
    # Elem-EM would be exact, but has no zero.
    ([8.0] * 32, 127, [1, 1, 1, 1], [7] * 32),
    # One that is not a top-1 is enough.
    ([8.0] * 7 + [0.0] + [8.0] * 24, 128, [1, 1, 1, 1], [6] * 7 + [8] + [6] * 24),
    # What is rounded to zero counts as one, too.
    ([8.0] * 31 + [-2.0**-20], 128, [1, 1, 1, 1], [6] * 31 + [8]),
])
def test_mixed_by_hand(engine, values, scale, metadata, codes):
    x = np.zeros((1, 32), np.float32)
    x[0, : len(values)] = values
    q = check(x, "mixed")
    assert (q.scales.tolist(), q.metadata[0].tolist()) == ([[scale]], metadata)
    assert q.elements[0, : len(codes)].tolist() == codes
    back = dequantize(q)
    # No zero has a sign.
    assert not np.signbit(back[back == 0]).any()
    assert decoder.definition(q).tobytes() == back.tobytes()
    read = Quantized.unpack(*q.pack(), kind="activation", encoding="mixed", shape=q.shape)
    assert dequantize(read).tobytes() == back.tobytes()


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("encoding", [*SG, "mixed"])
def test_not_finite(special, encoding):
    x = np.ones((1, 96), np.float32)
    x[0, 40] = special
    q = quantize_activations(x, encoding=encoding)
    assert q.scales[0, 1] == 255
    assert not q.elements[0, 32:64].any()
    assert not q.metadata[0, 4:8].any()
    back = dequantize(q)
    assert (back[0, 32:64].view(np.uint32) == oracle.NAN).all()
    # Under Sg-threshold a power of two is 6 * 1.25 eighths.
    expected = {"sg-threshold": 0.9375, "sg-em": 1, "mixed": 0.9375}[encoding]
    assert (np.delete(back, slice(32, 64)) == expected).all()


@pytest.mark.parametrize("rule", ["floor", "ceil", "rtn1", "rtn2"])
def test_sg_em_is_the_weights_search(rule):
    x = oracle.hard_groups(np.random.default_rng(3), 200, 32)
    q = quantize_activations(x, encoding="sg-em", rule=rule)
    w = quantize_weights(x, rule=rule)
    assert (q.kind, q.encoding, w.encoding) == ("activation", "sg-em", "sg-em")
    assert q.pack() == w.pack()
    assert dequantize(q).tobytes() == dequantize(w).tobytes()


def test_elem_em_is_the_default():
    x = oracle.hard_groups(np.random.default_rng(4), 50, 32)
    q = quantize_activations(x)
    assert q.encoding == "elem-em"
    assert q.pack() == quantize_activations(x, encoding="elem-em").pack()


@pytest.mark.parametrize("encoding", [*SG, "mixed"])
@pytest.mark.parametrize("shape", [(1,), (33,), (2, 3, 70), (70, 96)])
def test_shapes_blocks_and_threads(engine, monkeypatch, encoding, shape):
    monkeypatch.setattr(blocked, "BLOCK", 192)
    monkeypatch.setattr(blocked, "COMPILED_BLOCK", 192)
    x = np.random.default_rng(5).standard_t(2, shape).astype(np.float32)
    expected = encodings.definition(x, encoding=encoding)
    for threads in 1, 3:
        q = quantize_activations(x, encoding=encoding, threads=threads)
        for field in dataclasses.fields(Quantized):
            assert np.array_equal(getattr(q, field.name), getattr(expected, field.name))
        assert dequantize(q, threads=threads).tobytes() == decoder.definition(q).tobytes()
        assert dequantize(q).shape == shape


some_groups = hnp.arrays(np.float32, (1, 32), elements=st.floats(
    width=32, allow_nan=False, allow_infinity=False) | st.floats(-8, 8, width=32))


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(some_groups)
def test_mixed_is_never_worse(x):
    """By exact errors: it is the better of both, or Sg-threshold where Elem-EM has no zero."""
    def error(encoding, kind):
        record, = oracle.records(quantize_activations(x, encoding=encoding))[0]
        return oracle.error(x[0].tolist(), record, kind)

    refined, factored = error("elem-em", "activation"), error("sg-threshold", "weight")
    found = error("mixed", "mixed")
    assert found == min(refined, factored) or (
        found == factored and (quantize_activations(x).elements & 7 != 0).all())


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(some_groups)
def test_no_factor_has_a_lower_error(x):
    q = quantize_activations(x, encoding="sg-threshold")
    values = oracle.values("weight", q.elements[0].tolist(), q.metadata[0].tolist())
    step = oracle.scale_units(int(q.scales[0, 0]))
    inputs = [oracle.units(v) * (-1) ** bool(np.signbit(v)) for v in x[0].tolist()]
    tried = oracle.factor_errors(x[0].tolist(), int(q.scales[0, 0]))
    for j in range(4):
        own = sum((8 * (a - b * step)) ** 2 for a, b in
                  zip(inputs[8 * j: 8 * j + 8], values[8 * j: 8 * j + 8], strict=True))
        assert own == min(error for error, _ in tried[j].values())


def operand(rng, kind, rows, groups, scales, group=32, subgroup=8, encoding="sg-em"):
    elements = rng.integers(0, 16, (rows, groups * group), np.uint8)
    if encoding == "mixed":
        # Half of the rows have few marks, or none.
        keep = rng.random(elements.shape) < np.where(np.arange(rows) % 2, 1, 0.02)[:, None]
        elements[(elements == 8) & ~keep] = 0
    return Quantized(kind=kind, encoding=encoding, shape=(rows, groups * group), group=group,
                     elements=elements,
                     metadata=rng.integers(0, 4, (rows, groups * group // subgroup), np.uint8),
                     scales=rng.choice(scales, (rows, groups)).astype(np.uint8),
                     subgroup=subgroup)


def check_product(a, w):
    result = matmul(a, w)
    expected = oracle.matmul(oracle.records(a), oracle.records(w),
                             kind="mixed" if a.encoding == "mixed" else "weight")
    assert np.array_equal(result.view(np.uint32), expected)
    assert result.tobytes() == group_mac.definition(a, w).tobytes()
    return result


@pytest.mark.parametrize("scales", [range(115, 140), range(0, 20), range(50, 60), range(186, 200),
                                    range(240, 255), [0, 127, 254, 255]])
@pytest.mark.parametrize("encoding", ["sg-em", "mixed"])
def test_factors_on_both_sides(scales, encoding):
    rng = np.random.default_rng(len(scales))
    for group, subgroup, other in (32, 8, 8), (32, 4, 16), (16, 16, 4):
        result = check_product(
            operand(rng, "activation", 5, 4, scales, group, subgroup, encoding),
            operand(rng, "weight", 6, 4, scales, group, other))
        assert np.isnan(result).any() == (255 in scales)


@pytest.mark.parametrize("group, subgroup", SIZES)
def test_reading_mixed(engine, group, subgroup):
    """Any codes, which no encoder would write."""
    q = operand(np.random.default_rng([group, subgroup]), "activation", 20, 3, range(256), group,
                subgroup, "mixed")
    back = dequantize(q)
    values = back.view(np.uint32).reshape(-1, group).tolist()
    records = [record for row in oracle.records(q) for record in row]
    for record, bits in zip(records, values, strict=True):
        assert bits == oracle.decode("mixed", *record), record
    assert decoder.definition(q).tobytes() == back.tobytes()


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("exponent", [254, 134, 133, 368, 369, 0])
def test_largest_group_sum(sign, exponent):
    """Every element is 6 * 1.75: exact also where a float32 product is at its limits."""
    def largest(kind, code, scale):
        return Quantized(kind=kind, encoding="sg-em", shape=(1, 32), scales=np.full((1, 1), scale,
                         np.uint8), metadata=np.full((1, 4), 3, np.uint8),
                         elements=np.full((1, 32), code, np.uint8))

    scale = min(exponent, 200)
    a = largest("activation", 7 if sign > 0 else 15, scale)
    w = largest("weight", 7, exponent - scale)
    total = int(element_integers(a).astype(int)[0] @ element_integers(w).astype(int)[0])
    assert total == sign * 225792
    assert oracle.group_sum(*(oracle.records(q)[0][0] for q in (a, w)), kind="weight") == total
    result = check_product(a, w)
    assert exponent != 254 or result.tolist() == [[sign * 225792 / 64]]
    acc = np.array([sign * 1.5], np.float32)
    expected = oracle.accumulate(int(acc.view(np.uint32)[0]), total, scale, exponent - scale)
    assert group_mac.group_mac(a, w, acc).view(np.uint32).tolist() == [expected]


def test_quantized_tensors_multiply():
    rng = np.random.default_rng(6)
    x, w = (rng.standard_t(3, shape).astype(np.float32) for shape in ((6, 100), (5, 100)))
    exact = x.astype(np.float64) @ w.T.astype(np.float64)
    q = quantize_weights(w)
    for encoding in (*SG, "mixed"):
        result = check_product(quantize_activations(x, encoding=encoding), q)
        assert np.abs(result - exact).mean() < 0.2 * np.abs(exact).mean()


@pytest.mark.parametrize("options, message", [
    ({"encoding": "sg"},
     "encoding must be one of ('elem-em', 'sg-threshold', 'sg-em', 'mixed', 'sg-special', "
     "'sg-special64'), not 'sg'"),
    ({"encoding": None},
     "encoding must be one of ('elem-em', 'sg-threshold', 'sg-em', 'mixed', 'sg-special', "
     "'sg-special64'), not None"),
    ({"encoding": "mixed", "rule": "rtn1"},
     "rule must be 'floor' with encoding 'mixed', which has its own, not 'rtn1'"),
    ({"encoding": "sg-threshold", "rule": "ceil"},
     "rule must be 'floor' with encoding 'sg-threshold', which has its own, not 'ceil'"),
    ({"rule": "threshold"},
     "rule must be one of ('floor', 'ceil', 'rtn1', 'rtn2'), not 'threshold'"),
])
def test_wrong_option(options, message):
    with pytest.raises(ValueError) as raised:
        quantize_activations(np.zeros((1, 32), np.float32), **options)
    assert str(raised.value) == message


def test_hardware_reads_elem_em_alone():
    x = np.ones((2, 32), np.float32)
    command = {"m": 2, "k": 32, "n": 2, "source": 0, "result": 0, "w": quantize_weights(x),
               "a": quantize_activations(x, encoding="sg-threshold")}
    with pytest.raises(ValueError, match="^a must be of encoding 'elem-em', not 'sg-em'$"):
        execute(CONFIGS["paper"], [command])
