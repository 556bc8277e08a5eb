# SPDX-License-Identifier: BSD-2-Clause
"""The reference of the quantization engine."""

import ml_dtypes
import numpy as np
import pytest
from gfloat import compute_scale_amax, quantize_block
from gfloat.formats import format_info_mxfp4_e2m1
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from golden import dequantize, quantize_activations
from tests.support import oracle

TYPES = [np.float32, np.float16, ml_dtypes.bfloat16]
RULES = ["floor", "ceil", "rtn1", "rtn2"]
SIZES = [(g, s) for g in (16, 32) for s in (4, 8, 16, 32) if s <= g]


def group_of(*values, size=32):
    return np.array([[*values, *[0] * (size - len(values))]], np.float32)


def check(q, x, **options):
    """Compares every group with the oracle; rows must already be whole groups."""
    rows = oracle.records(q)
    with np.errstate(invalid="ignore"):  # Signalling NaN.
        x = x.astype(np.float64)
    inputs = x.reshape(len(rows), -1, q.group).tolist()
    for row, groups in zip(rows, inputs, strict=True):
        for record, group in zip(row, groups, strict=True):
            expected = oracle.encode_activations(group, subgroup=q.subgroup, **options)
            assert record == expected, group


@pytest.mark.parametrize("group, subgroup", SIZES)
@pytest.mark.parametrize("rule", RULES)
def test_against_oracle(rule, group, subgroup):
    rng = np.random.default_rng([RULES.index(rule), group, subgroup])
    x = oracle.hard_groups(rng, 200, group)
    q = quantize_activations(x, group=group, subgroup=subgroup, rule=rule)
    assert (q.kind, q.shape, q.group, q.subgroup) == ("activation", x.shape, group, subgroup)
    check(q, x, rule=rule)


@pytest.mark.parametrize("dtype", TYPES)
def test_types_against_oracle(dtype):
    rng = np.random.default_rng(1)
    x = oracle.hard_groups(rng, 500, 32, dtype)
    # Plain random bits too, half of them with NaN and Inf.
    raw = rng.integers(0, 1 << 8 * x.dtype.itemsize, (200, 32), f"u{x.dtype.itemsize}").view(dtype)
    raw[::2] = np.where(np.isfinite(raw[::2].astype(np.float32)), raw[::2], 1)
    x = np.concatenate([x, raw])
    q = quantize_activations(x)
    assert 0 < np.count_nonzero(q.scales == 255) <= 100
    check(q, x)


def test_every_finite_float16_and_bfloat16():
    for dtype, limit in (np.float16, 0x7C00), (ml_dtypes.bfloat16, 0x7F80):
        # Neighbouring magnitudes share a group, alternating in sign.
        x = np.arange(limit, dtype=np.uint16).view(dtype).reshape(-1, 32)
        x = x * np.array([1, -1] * 16, dtype)
        check(quantize_activations(x), x)


@pytest.mark.parametrize("x, c, meta, decoded", [
    # The specification's examples.
    (3.6, 6, 0, 3.75), (4.6, 6, 2, 4.5), (7.9, 7, 3, 7.0), (0.1, 0, 2, 0.125),
    # Subnormal codes of E2M1 and E2M3, and ties.
    (0.0, 0, 1, 0.0), (0.5, 1, 1, 0.5), (0.25, 0, 3, 0.25), (0.375, 1, 0, 0.375),
    (0.0625, 0, 1, 0.0), (0.1875, 0, 3, 0.25), (0.74, 1, 3, 0.75), (0.75, 2, 0, 0.875),
    (1.25, 2, 3, 1.25), (1.75, 4, 0, 1.875), (2.5, 4, 3, 2.5), (3.5, 6, 0, 3.75),
    (5.0, 6, 3, 5.0), (5.2, 7, 0, 5.5), (5.75, 7, 1, 6.0), (7.0, 7, 3, 7.0), (7.5, 7, 3, 7.0),
])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("lane", [0, 5])
def test_examples(x, c, meta, decoded, sign, lane):
    # A four in the second subgroup sets the scale to 1, whatever is in the first.
    group = group_of()
    group[0, lane], group[0, 8] = sign * x, 4
    if c == 0 and lane > 0:
        # Where all codes are zero, the top-1 is the first lane.
        meta, decoded = 1, 0.0
    q = quantize_activations(group)
    assert q.scales.tolist() == [[127]]
    assert q.elements[0, lane] == c + (8 if sign < 0 else 0)
    assert q.metadata.tolist() == [[meta, 1, 1, 1]]
    back = dequantize(q)
    assert back[0, lane] == sign * decoded
    assert np.signbit(back[0, lane]) == (sign < 0)
    assert np.delete(back, lane, 1).tolist() == np.delete(group_of(*[0] * 8, 4), lane, 1).tolist()


@pytest.mark.parametrize("values, elements, metadata, scale", [
    pytest.param([], [0] * 8, 1, 0, id="all zero"),
    pytest.param([-0.0, 0, -0.0], [8, 0, 8] + [0] * 5, 1, 0, id="negative zeros"),
    pytest.param([2.0**-149], [0] * 8, 1, 0, id="smallest subnormal"),
    pytest.param([2.0**-130], [0] * 8, 2, 0, id="subnormal, refined only"),
    pytest.param([-(2.0**-128), 2.0**-127], [9, 2] + [0] * 6, 1, 0, id="subnormal group"),
    pytest.param([-6, 6], [15, 7] + [0] * 6, 1, 127, id="-6 first"),
    pytest.param([6, -6], [7, 15] + [0] * 6, 1, 127, id="6 first"),
    pytest.param([5.1, -7.9], [7, 15] + [0] * 6, 0, 127, id="tie of codes, not of values"),
    pytest.param([4, -5], [6, 14] + [0] * 6, 1, 127, id="5 is a tie, down"),
    pytest.param([1.0, 0], [6, 0] + [0] * 6, 1, 125, id="one"),
    pytest.param([0.5, -0.5], [6, 14] + [0] * 6, 1, 124, id="halves"),
    pytest.param([1, 1.25, 1.5], [6, 6, 7] + [0] * 5, 1, 125, id="largest code last"),
    pytest.param([3.4028234663852886e38], [7] + [0] * 7, 3, 252, id="largest float32"),
])
def test_directed_subgroups(values, elements, metadata, scale):
    q = quantize_activations(group_of(*values))
    assert q.elements[0, :8].tolist() == elements
    assert not q.elements[0, 8:].any()
    assert q.metadata.tolist() == [[metadata, 1, 1, 1]]
    assert q.scales.tolist() == [[scale]]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("special", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("lane", [0, 7, 31])
def test_not_finite(special, lane, dtype):
    x = np.ones((1, 96), dtype)
    x[0, 32 + lane] = special
    q = quantize_activations(x)
    assert q.scales.tolist() == [[125, 255, 125]]
    assert not q.elements[0, 32:64].any()
    assert not q.metadata[0, 4:8].any()
    assert q.elements[0, :32].tolist() == q.elements[0, 64:].tolist() == [6] * 32
    back = dequantize(q).view(np.uint32)
    assert (back[0, 32:64] == oracle.NAN).all()
    assert (back[0, :32] == np.float32(1).view(np.uint32)).all()


def test_signalling_nan():
    x = np.full((1, 32), 0xFF800001, np.uint32).view(np.float32)
    q = quantize_activations(x)
    assert (q.scales.tolist(), q.elements.any(), q.metadata.any()) == ([[255]], False, False)


@pytest.mark.parametrize("shape", [(1,), (31,), (33,), (2, 3, 70), (1, 1, 1, 5), (4, 64)])
@pytest.mark.parametrize("group", [16, 32])
def test_shapes(shape, group):
    rng = np.random.default_rng(2)
    x = rng.standard_normal(shape).astype(np.float32)
    q = quantize_activations(x, group=group)
    tail = -shape[-1] % group
    padded = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, tail)])
    assert q.shape == shape
    assert q.elements.shape == padded.shape
    check(q, padded)
    assert dequantize(q).shape == shape


def test_input_is_neither_changed_nor_needed_contiguous():
    x = np.random.default_rng(3).standard_normal((64, 6)).astype(np.float32)
    kept = x.copy()
    q, contiguous = quantize_activations(x.T), quantize_activations(kept.T.copy())
    assert x.tobytes() == kept.tobytes()
    assert q.pack() == contiguous.pack()


def test_elements_and_scales_are_the_mxfp4_of_gfloat():
    rng = np.random.default_rng(4)
    x = oracle.hard_groups(rng, 1000, 32)
    q = quantize_activations(x)
    values = q.elements.view(ml_dtypes.float4_e2m1fn).astype(np.float64)
    values *= q.scales.view(ml_dtypes.float8_e8m0fnu).astype(np.float64)
    for group, ours in zip(x.astype(np.float64), values, strict=True):
        theirs = quantize_block(format_info_mxfp4_e2m1, group, compute_scale_amax)
        assert ours.tobytes() == theirs.tobytes(), group.tolist()


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
NEAR = st.floats(-8, 8, width=32)
GROUPS = hnp.arrays(np.float32, (1, 32), elements=FLOATS | NEAR)
bounded = settings(max_examples=200, deadline=None, derandomize=True, database=None)


def exact(q):
    """Decoded float64 values, and the same without the refinement, in units of the scale."""
    scale = np.ldexp(1.0, q.scales.astype(int) - 127)
    plain = q.elements.view(ml_dtypes.float4_e2m1fn).astype(np.float64)
    return dequantize(q).astype(np.float64) / scale, plain, scale


@bounded
@given(GROUPS)
def test_top1_stays_the_largest(x):
    refined, plain, _ = exact(quantize_activations(x))
    for part, codes in zip(np.abs(refined).reshape(4, 8), np.abs(plain).reshape(4, 8),
                           strict=True):
        top = codes.argmax()
        # Only the top-1 is refined, and not past any neighbouring code.
        assert np.delete(part, top).tolist() == np.delete(codes, top).tolist()
        assert part[top] > max(codes[codes < codes[top]], default=-1)
        above = [v for v in (0.5, 1, 1.5, 2, 3, 4, 6) if v > codes[top]]
        assert part[top] < min(above, default=7.5)


@bounded
@given(GROUPS)
def test_error_bounds(x):
    refined, plain, scale = exact(quantize_activations(x))
    v = x / scale
    # Half a step of one mantissa bit, also where 8 saturates to 6.
    assert (np.abs(plain - v) <= np.maximum(np.abs(v), 1) / 4).all()
    # Refinement never hurts, and it halves what saturation costs.
    assert (np.abs(refined - v) <= np.abs(plain - v)).all()
    tops = [8 * j + np.abs(plain[0, 8 * j:8 * j + 8]).argmax() for j in range(4)]
    assert (np.abs(refined - v)[0, tops] <= 1).all()


@bounded
@given(GROUPS)
def test_decoded_values_are_quantized_to_themselves(x):
    q = quantize_activations(x)
    again = quantize_activations(dequantize(q))
    tops = (q.elements.reshape(4, 8) & 7).max(axis=1)
    # Where 4c + 3 reads back as 4c + 2, which is a tie, an odd c becomes the even c + 1.
    stable = (tops % 2 == 0) | (tops == 7) | (q.metadata[0] != 3)
    assert again.scales.tolist() == q.scales.tolist()
    assert np.array_equal(again.metadata[0, stable], q.metadata[0, stable])
    assert np.array_equal(again.elements.reshape(4, 8)[stable], q.elements.reshape(4, 8)[stable])


@pytest.mark.parametrize("x, error, message", [
    ([[1.0] * 32], TypeError, "x must be a NumPy array of one of float32, float16, bfloat16, "
                              "not list"),
    (np.zeros((1, 32)), TypeError, "x must be a NumPy array of one of float32, float16, bfloat16, "
                                   "not float64"),
    (np.float32(1), TypeError, "x must be a NumPy array of one of float32, float16, bfloat16, "
                               "not float32"),
    (np.zeros((), np.float32), ValueError,
     "x must have at least one axis and one element, not shape ()"),
    (np.zeros((3, 0), np.float32), ValueError,
     "x must have at least one axis and one element, not shape (3, 0)"),
])
def test_wrong_input(x, error, message):
    with pytest.raises(error) as raised:
        quantize_activations(x)
    assert str(raised.value) == message


@pytest.mark.parametrize("options, message", [
    ({"group": 64}, "group must be one of (16, 32), not 64"),
    ({"subgroup": 1}, "subgroup must be one of (4, 8, 16, 32), not 1"),
    ({"group": 16, "subgroup": 32}, "subgroup must divide group 16, not 32"),
    ({"rule": "even"}, "rule must be one of ('floor', 'ceil', 'rtn1', 'rtn2'), not 'even'"),
    ({"rule": None}, "rule must be one of ('floor', 'ceil', 'rtn1', 'rtn2'), not None"),
])
def test_wrong_option(options, message):
    with pytest.raises(ValueError) as raised:
        quantize_activations(np.zeros((1, 32), np.float32), **options)
    assert str(raised.value) == message


def test_options_are_keywords():
    with pytest.raises(TypeError, match="positional"):
        quantize_activations(np.zeros((1, 32), np.float32), 32)
