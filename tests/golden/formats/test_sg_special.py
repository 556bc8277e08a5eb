# SPDX-License-Identifier: BSD-2-Clause
"""Sg-special and Sg-special64, factors and a special value for -0, against rational arithmetic."""

import dataclasses
from functools import cache, partial

import ml_dtypes
import numpy as np
import pytest

from golden import Quantized, dequantize, matmul, quantize_activations, quantize_weights
from golden.accelerator.accelerator import execute
from golden.accelerator.planner import CONFIGS
from golden.codec import blocked, kernel
from golden.formats import sg_special
from golden.units import decoder, group_mac
from golden.units.decoder import element_integers
from tests.support import oracle
from tests.support.marks import longer

SIZES = [(g, s) for g in (16, 32) for s in (4, 8, 16, 32) if s <= g]

GROUPS = {"sg-special": 32, "sg-special64": 64}
"""Default group by encoding."""

# By kind and encoding: the encoder, its encoding and kind, and whether it tries two scales.
ENCODERS = {f"{name} {encoding}": (partial(encode, encoding=encoding, **options), encoding, kind,
                                   adaptive)
            for encoding in GROUPS for name, encode, options, kind, adaptive in (
                ("activations", quantize_activations, {}, "activation", False),
                ("weights", quantize_weights, {}, "weight", True),
                ("weights fixed", quantize_weights, {"adaptive": False}, "weight", False))}
encoders = pytest.mark.parametrize("name", ENCODERS)
# Those, with each size that they offer.
CASES = [(name, *sizes) for name in ENCODERS
         for sizes in ([(64, 8)] if name.endswith("64") else SIZES)]

needs_compiler = pytest.mark.skipif(not kernel.compiler(), reason="needs a C compiler")


@pytest.fixture(params=[pytest.param("compiled", marks=needs_compiler), "numpy"])
def engine(request, monkeypatch):
    """Each way to compute, for tensors of any size."""
    monkeypatch.setattr(blocked, "COMPILED_FROM", 0)
    monkeypatch.setenv("M2XFP_NUMPY", "1" if request.param == "numpy" else "")


@cache
def encoded(inputs, group, subgroup, adaptive, wide):
    """The oracle's records of groups in float64 bytes; every engine is given the same groups."""
    return [oracle.encode_sg_special(values, subgroup=subgroup, adaptive=adaptive, wide=wide)
            for values in np.frombuffer(inputs).reshape(-1, group).tolist()]


def check(x, name, **options):
    """Compares every group with the oracle, and its values; rows must be whole groups."""
    encode, encoding, kind, adaptive = ENCODERS[name]
    q = encode(x, **options)
    assert (q.kind, q.encoding, q.shape) == (kind, encoding, x.shape)
    with np.errstate(invalid="ignore"):  # Signalling NaN.
        inputs = x.astype(np.float64).reshape(-1, q.group)
    expected = encoded(inputs.tobytes(), q.group, q.subgroup, adaptive, q.group == 64)
    records = [record for row in oracle.records(q) for record in row]
    values = dequantize(q).view(np.uint32).reshape(-1, q.group).tolist()
    for record, wanted, group, bits in zip(records, expected, inputs, values, strict=True):
        assert record == wanted, group
        assert bits == oracle.decode(KINDS[encoding], *record)
    return q


@pytest.mark.parametrize("name, group, subgroup", CASES)
def test_against_oracle(engine, group, subgroup, name):
    count = 28 if group == 64 else 70
    x = oracle.hard_groups(np.random.default_rng([group, subgroup]), count, group)
    q = check(x, name, group=group, subgroup=subgroup)
    # Every special value, and scales at both ends.
    assert set((q.scales & 3).ravel().tolist()) == {0, 1, 2, 3}
    assert {0, 63} < set((q.scales >> 2).ravel().tolist())


@encoders
@pytest.mark.parametrize("count", [20, longer(60)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_any_bits(dtype, count, name):
    group = GROUPS[ENCODERS[name][1]]
    count = count // 4 if group == 64 else count
    rng = np.random.default_rng(1)
    raw = rng.integers(0, 256, (count, group * np.dtype(dtype).itemsize), np.uint8).view(dtype)
    normal = rng.standard_t(3, (count, group)) * 2.0 ** rng.integers(-8, 9, (count, 1))
    q = check(np.concatenate([raw, normal.astype(dtype)]), name)
    assert 255 in q.scales
    assert set(range(8 if group == 64 else 4)) == set(q.metadata.ravel().tolist())


@encoders
@pytest.mark.parametrize("count", [100, longer(300)])
def test_exact_ties(name, count):
    """Errors are often equal on a coarse grid: the order of what is tried decides."""
    group = 64 if name.endswith("64") else 16
    count = count // 8 if group == 64 else count
    rng = np.random.default_rng(2)
    x = rng.choice([0, 1, 2, 4, 5, 6, 7, 8, 9, 11, 14, 15], (count, group)) / 2
    # The others round to zero, but fill the last places of sums of squares.
    small = rng.standard_normal(x.shape) / 2**11
    x = np.where(rng.random(x.shape) < rng.choice([0.1, 0.2, 0.5, 0.8], (count, 1)), x, small)
    x = (x * rng.choice([-1, 1], x.shape)).astype(np.float32)
    q = check(x, name, group=group)
    # Negating a group swaps special values; where these make no difference, the first is kept.
    mirrored = check(-x, name, group=group)
    kept = (q.scales == mirrored.scales) & ((q.elements != 8).all(axis=1))[:, None]
    assert kept.sum() > count // 20


@pytest.mark.parametrize("values, scale, special, factor, codes", [
    # 5 and 8 are exact, of either sign, in whatever subgroup.
    ([5.0, 6.0, 1.0], 127, 5, 0, [8, 7, 2]), ([-5.0, -6.0, 4.0, -5.0], 127, -5, 0, [8, 15, 6, 8]),
    ([8.0, 3.0], 127, 8, 0, [8, 5]), ([-8.0, 3.0], 127, -8, 0, [8, 5]),
    # With the factor 1.75: 8.75, 10.5 and 14.
    ([8.75, 10.5], 127, 5, 3, [8, 7]), ([-14.0, 10.5, 0.875], 127, -8, 3, [8, 7, 1]),
    # 14 and 10.5 alone are 4 and 3 times 1.75 under the next scale, and 5 is tried first.
    ([-14.0, 10.5], 128, 5, 3, [14, 5]),
    # A zero has no sign, and needs no special value.
    ([-0.0, 0.0], 96, 5, 0, [0, 0]), ([6.0, -0.01], 127, 5, 0, [7, 0]),
    # Below 2**-31 and above 2**32 there is no scale. The last byte is NaN's, so that -8 is not
    # offered there.
    ([2.0**-149], 96, 5, 0, [0]), ([2.0**-32], 96, 5, 0, [1]), ([2.0**-33], 96, 5, 0, [0]),
    ([3.4e38], 159, 8, 3, [8]), ([-3.4e38], 159, 5, 3, [15]), ([14 * 2.0**32], 159, 8, 3, [8]),
])
def test_by_hand(engine, values, scale, special, factor, codes):
    x = np.zeros((1, 32), np.float32)
    x[0, : len(values)] = values
    q = check(x, "activations sg-special")
    assert decoder.scale_codes(q).tolist() == [[scale]]
    assert oracle.SPECIALS[q.scales[0, 0] & 3] == special
    assert q.metadata.tolist() == [[factor, 0, 0, 0]]
    assert q.elements[0, : len(codes)].tolist() == codes
    back = dequantize(q)
    assert not np.signbit(back[back == 0]).any()
    assert decoder.definition(q).tobytes() == back.tobytes()


@pytest.mark.parametrize("values, scale, special, factors, codes", [
    # With the factor 2: 10, 12 and 8, and 8 and 1 under half the scale.
    ([10.0, 12.0, 8.0], 127, 5, [4, 0], [8, 7, 6]), ([8.0, 1.0], 126, 8, [4, 0], [8, 2]),
    # 20, 0 and 10 quarters are 8, 0 and 4 times 2.5. 16 quarters become 15.
    ([5.0, 0.0, 2.5], 125, 8, [5, 0], [8, 0, 6]), ([5.0, 4.0], 125, 8, [5, 0], [8, 7]),
    # The next subgroup has a factor of its own: 3.5 * 6, and 1.25 * 0.5.
    ([-21.0, 14.0, 10.5, 7.0, 0, 0, 0, 0, 0.625, 2.5], 127, 5, [7, 1], [15, 6, 5, 4]),
    ([2.0**-149], 96, 5, [0, 0], [0]), ([-(2.0**-33)], 96, 5, [0, 0], [0]),
    # The largest magnitudes: 28, and below zero 21, as the last byte is NaN's.
    ([3.4e38], 159, 8, [7, 0], [8]), ([-3.4e38], 159, 5, [7, 0], [15]),
    ([28 * 2.0**32], 159, 8, [7, 0], [8]),
])
def test_by_hand_in_groups_of_64(engine, values, scale, special, factors, codes):
    x = np.zeros((1, 64), np.float32)
    x[0, : len(values)] = values
    q = check(x, "activations sg-special64")
    assert decoder.scale_codes(q).tolist() == [[scale]]
    assert oracle.SPECIALS[q.scales[0, 0] & 3] == special
    assert q.metadata[0, :2].tolist() == factors
    assert q.elements[0, : len(codes)].tolist() == codes


def test_saturated_counts_as_16(engine):
    """However large it is, an element does not decide alone: the others are 6 * 1.5."""
    x = np.full((1, 32), 9 * 2.0**32, np.float32)
    x[0, 5] = 3e38
    q = check(x, "activations sg-special", subgroup=32)
    assert (q.scales[0, 0], q.metadata[0, 0], q.elements[0, 5]) == (63 << 2 | 2, 2, 8)


def test_next_to_ties(engine):
    """Between a special value and a code the code wins, and just beyond it the special value."""
    # What other factors would move.
    others = [0.5, 1, 1.5, 2, 3, 4, 6, -0.5, -1, -1.5, -2, -3]
    for special, selector, ties in (8, 2, {7.0: (7, 8), 4.5: (6, 6), 5.5: (7, 7)}), (
            5, 0, {4.5: (6, 8), float(np.nextafter(np.float32(5.5), np.float32(0))): (8, 7)}):
        for value, codes in ties.items():
            above = np.nextafter(np.float32(value), np.float32(9))
            for v, code in zip((value, above), codes, strict=True):
                x = np.array([[*others, special, special, special, v]], np.float32)
                q = check(x, "activations sg-special", group=16, subgroup=16)
                assert (q.scales[0, 0], q.metadata[0, 0]) == (4 * 31 + selector, 0)
                assert q.elements[0, -1] == code


def test_float16_is_in_range():
    """Every float16, alone in its group, has a scale of its own and reads back nearly."""
    x = np.arange(1, 0x7C00, dtype=np.uint16).view(np.float16)[:, None].repeat(16, axis=1)
    q = quantize_activations(x, encoding="sg-special", group=16)
    codes = decoder.scale_codes(q)
    assert (codes.min(), codes.max()) == (100, 140)
    values = x.astype(np.float64)
    assert (np.abs(dequantize(q) - values) < values / 14).all()


@encoders
@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_not_finite(special, name):
    encode, encoding, _, _ = ENCODERS[name]
    group = GROUPS[encoding]
    x = np.full((1, 3 * group), 8, np.float32)
    x[0, group + 8] = special
    q = encode(x)
    assert q.scales[0, 1] == 255
    assert not q.elements[0, group : 2 * group].any()
    assert not q.metadata[0, group // 8 : group // 4].any()
    back = dequantize(q)
    assert (back[0, group : 2 * group].view(np.uint32) == oracle.NAN).all()
    assert (np.delete(back, slice(group, 2 * group)) == 8).all()


@encoders
@pytest.mark.parametrize("shape", [(1,), (33,), (2, 3, 70), (70, 96)])
def test_shapes_blocks_and_threads(engine, monkeypatch, name, shape):
    monkeypatch.setattr(blocked, "BLOCK", 192)
    monkeypatch.setattr(blocked, "COMPILED_BLOCK", 192)
    encode, encoding, kind, adaptive = ENCODERS[name]
    x = np.random.default_rng(5).standard_t(2, shape).astype(np.float32)
    expected = sg_special.definition(x, kind=kind, adaptive=adaptive, encoding=encoding)
    for threads in 1, 3:
        q = encode(x, threads=threads)
        for field in dataclasses.fields(Quantized):
            assert np.array_equal(getattr(q, field.name), getattr(expected, field.name))
        assert dequantize(q, threads=threads).tobytes() == decoder.definition(q).tobytes()
        assert dequantize(q).shape == shape


def operand(rng, kind, encoding, rows, groups, scales, group=32, subgroup=8):
    elements = rng.choice([8, *range(16)], (rows, groups * group)).astype(np.uint8)
    return Quantized(kind=kind, encoding=encoding, shape=(rows, groups * group), group=group,
                     elements=elements, subgroup=subgroup,
                     metadata=rng.integers(0, 8 if encoding == "sg-special64" else 4,
                                           (rows, groups * group // subgroup), np.uint8),
                     scales=rng.choice(scales, (rows, groups)).astype(np.uint8))


@pytest.mark.parametrize("encoding, group, subgroup", [
    *(("sg-special", *sizes) for sizes in SIZES), ("sg-special64", 64, 8)])
def test_reading(engine, encoding, group, subgroup):
    """Any codes under every scale byte, which no encoder would write."""
    rng = np.random.default_rng([group, subgroup])
    q = operand(rng, "weight", encoding, 8, 32, range(256), group, subgroup)
    q = dataclasses.replace(q, scales=np.arange(256, dtype=np.uint8).reshape(8, 32))
    back = dequantize(q)
    values = back.view(np.uint32).reshape(-1, group).tolist()
    records = [record for row in oracle.records(q) for record in row]
    for record, bits in zip(records, values, strict=True):
        assert bits == oracle.decode(KINDS[encoding], *record), record
    assert decoder.definition(q).tobytes() == back.tobytes()
    packed = q.pack()
    read = Quantized.unpack(*packed, kind="weight", encoding=encoding, shape=q.shape,
                            group=group, subgroup=subgroup)
    assert read.pack() == packed
    assert dequantize(read).tobytes() == back.tobytes()


def test_record_of_64():
    """Elements, eight times three bits, and the scale, from the lowest bit on."""
    q = operand(np.random.default_rng(0), "weight", "sg-special64", 3, 2, range(256), 64)
    records = q.records()
    assert records.shape == (3, 2, 36)
    for record, elements, metadata, scale in zip(
            records.reshape(-1, 36), q.elements.reshape(-1, 64), q.metadata.reshape(-1, 8),
            q.scales.reshape(-1), strict=True):
        expected = int(scale) << 280
        expected += sum(int(k) << 256 + 3 * j for j, k in enumerate(metadata))
        expected += sum(int(code) << 4 * i for i, code in enumerate(elements))
        assert int.from_bytes(record.tobytes(), "little") == expected
    _, metadata, _ = q.pack()
    assert metadata == records[..., 32:35].tobytes()


KINDS = {"elem-em": "activation", "sg-em": "weight", "mixed": "mixed", "sg-special": "special",
         "sg-special64": "special64"}
"""What the oracle calls them."""


def check_product(a, w):
    result = matmul(a, w)
    expected = oracle.matmul(oracle.records(a), oracle.records(w), kind=KINDS[a.encoding],
                             weight_kind=KINDS[w.encoding])
    assert np.array_equal(result.view(np.uint32), expected)
    assert result.tobytes() == group_mac.definition(a, w).tobytes()
    return result


# Scale bytes of either encoding: middle, ends, and NaN.
SPECIAL_BYTES = [range(100, 180), range(0, 12), range(240, 255), [0, 127, 254, 255]]
BYTES = {"sg-special": SPECIAL_BYTES, "sg-special64": SPECIAL_BYTES,
         "other": [range(115, 140), range(0, 20), range(240, 255), [0, 127, 254, 255]]}


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("pair", [("sg-special", "sg-special"), ("sg-special", "sg-em"),
                                  ("elem-em", "sg-special"), ("sg-em", "sg-special"),
                                  ("mixed", "sg-special"), ("sg-special64", "sg-special64")])
def test_products(pair, which):
    rng = np.random.default_rng(which)
    scales = [BYTES.get(encoding, BYTES["other"])[which] for encoding in pair]
    wide = pair[0] == "sg-special64"
    for group, subgroup, other in [(64, 8, 8)] if wide else [(32, 8, 8), (32, 4, 16), (16, 16, 4)]:
        result = check_product(
            operand(rng, "activation", pair[0], 4, 4, scales[0], group, subgroup),
            operand(rng, "weight", pair[1], 5, 4, scales[1], group, other))
        assert np.isnan(result).any() == (which == 3)


@pytest.mark.parametrize("encoding, most", [("sg-special", 401408), ("sg-special64", 3211264)])
@pytest.mark.parametrize("sign, exponents", [
    (1, (159, 159)), (1, (96, 96)), (-1, (96, 96)), (-1, (127, 133)), (-1, (159, 158))])
def test_largest_group_sum(encoding, most, sign, exponents):
    """Every element is 8 times the largest factor."""
    group = GROUPS[encoding]
    a, w = (Quantized(kind=kind, encoding=encoding, shape=(1, group), group=group,
                      scales=np.full((1, 1), 4 * (exponent - 96) + selector, np.uint8),
                      metadata=np.full((1, group // 8), 7 if group == 64 else 3, np.uint8),
                      elements=np.full((1, group), 8, np.uint8))
            for kind, exponent, selector in zip(("activation", "weight"), exponents,
                                                (2, 2 if sign > 0 else 3), strict=True))
    total = int(element_integers(a).astype(int)[0] @ element_integers(w).astype(int)[0])
    assert total == sign * most
    check_product(a, w)
    acc = np.array([sign * 1.5], np.float32)
    expected = oracle.accumulate(int(acc.view(np.uint32)[0]), total, *exponents)
    assert group_mac.group_mac(a, w, acc).view(np.uint32).tolist() == [expected]


def test_quantized_tensors_multiply():
    """Both operands have about half of the error of Sg-EM on one and Elem-EM on the other."""
    rng = np.random.default_rng(6)
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((40, 320), (50, 320)))
    exact = x.astype(np.float64) @ w.T.astype(np.float64)
    errors = {}
    for encoding in "sg-special64", "sg-special", None:
        options = {"encoding": encoding} if encoding else {}
        y = matmul(quantize_activations(x, **options), quantize_weights(w, **options))
        errors[encoding] = np.square(y - exact).mean() / np.square(exact).mean()
    assert errors["sg-special64"] < 0.96 * errors["sg-special"] < 0.7 * errors[None]


@pytest.mark.parametrize("encode, options, message", [
    (quantize_weights, {"encoding": "elem-em"},
     "encoding must be one of ('sg-em', 'sg-special', 'sg-special64'), not 'elem-em'"),
    (quantize_weights, {"encoding": None},
     "encoding must be one of ('sg-em', 'sg-special', 'sg-special64'), not None"),
    (quantize_weights, {"encoding": "sg-special64", "group": 32},
     "group must be 64 with encoding 'sg-special64', not 32"),
    (quantize_activations, {"encoding": "sg-special64", "subgroup": 16},
     "subgroup must be 8 with encoding 'sg-special64', not 16"),
    (quantize_activations, {"encoding": "sg-special", "group": 64},
     "group must be one of (16, 32), not 64"),
    (quantize_activations, {"encoding": "sg-special64", "rule": "ceil"},
     "rule must be 'floor' with encoding 'sg-special64', which has its own, not 'ceil'"),
    (quantize_weights, {"encoding": "sg-special", "rule": "ceil"},
     "rule must be 'floor' with encoding 'sg-special', which has its own, not 'ceil'"),
    (quantize_activations, {"encoding": "sg-special", "rule": "rtn2"},
     "rule must be 'floor' with encoding 'sg-special', which has its own, not 'rtn2'"),
])
def test_wrong_option(encode, options, message):
    with pytest.raises(ValueError) as raised:
        encode(np.zeros((1, 32), np.float32), **options)
    assert str(raised.value) == message


def test_hardware_reads_sg_em_weights_alone():
    x = np.ones((2, 32), np.float32)
    command = {"m": 2, "k": 32, "n": 2, "source": 0, "result": 0, "a": quantize_activations(x),
               "w": quantize_weights(x, encoding="sg-special")}
    with pytest.raises(ValueError, match="^w must be of encoding 'sg-em', not 'sg-special'$"):
        execute(CONFIGS["paper"], [command])
