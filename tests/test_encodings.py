"""Activations with a subgroup factor, against rational arithmetic."""

import dataclasses

import ml_dtypes
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from golden import (
    Quantized,
    dequantize,
    encodings,
    fast,
    group_mac,
    kernel,
    matmul,
    quantize_activations,
    quantize_weights,
)
from golden.accelerator import execute
from golden.decoder import element_integers
from golden.planner import MACHINES

SIZES = [(g, s) for g in (16, 32) for s in (4, 8, 16, 32) if s <= g]
PLANES = ["elements", "metadata", "scales"]
SG = ["sg-threshold", "sg-em"]

needs_compiler = pytest.mark.skipif(not kernel.compiler(), reason="needs a C compiler")


@pytest.fixture(params=[pytest.param("compiled", marks=needs_compiler), "numpy"])
def engine(request, monkeypatch):
    """Each way to compute, for tensors of any size."""
    monkeypatch.setattr(fast, "COMPILED_FROM", 0)
    monkeypatch.setenv("M2XFP_NUMPY", "1" if request.param == "numpy" else "")


def check(x, **options):
    """Compares every group of Sg-threshold with the oracle; rows must be whole groups."""
    q = quantize_activations(x, encoding="sg-threshold", **options)
    assert (q.kind, q.encoding, q.shape) == ("activation", "sg-em", x.shape)
    with np.errstate(invalid="ignore"):  # Signalling NaN.
        inputs = x.astype(np.float64).reshape(-1, q.group).tolist()
    records = [record for row in oracle.records(q) for record in row]
    for record, group in zip(records, inputs, strict=True):
        assert record == oracle.encode_sg_threshold(group, subgroup=q.subgroup), group
    return q


@pytest.mark.parametrize("group, subgroup", SIZES)
def test_sg_threshold_against_oracle(engine, group, subgroup):
    x = oracle.hard_groups(np.random.default_rng([group, subgroup]), 60, group)
    check(x, group=group, subgroup=subgroup)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_sg_threshold_of_any_bits(dtype):
    rng = np.random.default_rng(1)
    raw = rng.integers(0, 256, (80, 32 * np.dtype(dtype).itemsize), np.uint8).view(dtype)
    # Subnormals, and exponents that are far apart.
    small = np.ldexp(rng.integers(-1023, 1024, (80, 32)) / 1024, rng.integers(-149, -120, (80, 1)))
    q = check(np.concatenate([raw, small.astype(dtype)]))
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


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("encoding", SG)
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
    expected = {"sg-threshold": 0.9375, "sg-em": 1}[encoding]
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


@pytest.mark.parametrize("encoding", SG)
@pytest.mark.parametrize("shape", [(1,), (33,), (2, 3, 70), (70, 96)])
def test_shapes_blocks_and_threads(engine, monkeypatch, encoding, shape):
    monkeypatch.setattr(fast, "BLOCK", 192)
    monkeypatch.setattr(fast, "COMPILED_BLOCK", 192)
    x = np.random.default_rng(5).standard_t(2, shape).astype(np.float32)
    expected = encodings.definition(x, encoding=encoding)
    for threads in 1, 3:
        q = quantize_activations(x, encoding=encoding, threads=threads)
        for field in dataclasses.fields(Quantized):
            assert np.array_equal(getattr(q, field.name), getattr(expected, field.name))
        assert dequantize(q).shape == shape


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(hnp.arrays(np.float32, (1, 32), elements=st.floats(width=32, allow_nan=False,
                                                        allow_infinity=False)
                  | st.floats(-8, 8, width=32)))
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


def operand(rng, kind, rows, groups, scales, group=32, subgroup=8):
    return Quantized(kind=kind, encoding="sg-em", shape=(rows, groups * group), group=group,
                     elements=rng.integers(0, 16, (rows, groups * group), np.uint8),
                     metadata=rng.integers(0, 4, (rows, groups * group // subgroup), np.uint8),
                     scales=rng.choice(scales, (rows, groups)).astype(np.uint8),
                     subgroup=subgroup)


def check_product(a, w):
    result = matmul(a, w)
    expected = oracle.matmul(oracle.records(a), oracle.records(w), kind="weight")
    assert np.array_equal(result.view(np.uint32), expected)
    assert result.tobytes() == group_mac.definition(a, w).tobytes()
    return result


@pytest.mark.parametrize("scales", [range(115, 140), range(0, 20), range(50, 60), range(186, 200),
                                    range(240, 255), [0, 127, 254, 255]])
def test_factors_on_both_sides(scales):
    rng = np.random.default_rng(len(scales))
    for group, subgroup, other in (32, 8, 8), (32, 4, 16), (16, 16, 4):
        result = check_product(
            operand(rng, "activation", 5, 4, scales, group, subgroup),
            operand(rng, "weight", 6, 4, scales, group, other))
        assert np.isnan(result).any() == (255 in scales)


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
    for encoding in SG:
        result = check_product(quantize_activations(x, encoding=encoding), q)
        assert np.abs(result - exact).mean() < 0.2 * np.abs(exact).mean()


@pytest.mark.parametrize("options, message", [
    ({"encoding": "sg"}, "encoding must be one of ('elem-em', 'sg-threshold', 'sg-em'), not 'sg'"),
    ({"encoding": None}, "encoding must be one of ('elem-em', 'sg-threshold', 'sg-em'), not None"),
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
        execute(MACHINES["paper"], [command])
