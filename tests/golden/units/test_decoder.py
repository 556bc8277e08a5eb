# SPDX-License-Identifier: BSD-2-Clause
"""The reference of the decoder."""

import numpy as np
import pytest

from golden import Quantized, dequantize, quantize_activations
from tests.support import oracle

KINDS = ["activation", "weight"]
SIZES = [(g, s) for g in (16, 32) for s in (4, 8, 16, 32) if s <= g]


def check(q):
    """Compares every group's bits with exact fractions."""
    decoded = dequantize(q)
    assert decoded.dtype == np.float32
    rows = decoded.view(np.uint32).reshape(-1, q.scales.shape[-1], q.group).tolist()
    for row, records in zip(rows, oracle.records(q), strict=True):
        for bits, record in zip(row, records, strict=True):
            assert bits == oracle.decode(q.kind, *record), record
    return decoded


def quantized(kind, elements, metadata, scales, **sizes):
    planes = [np.array(plane, np.uint8) for plane in (elements, metadata, scales)]
    return Quantized(kind=kind, shape=planes[0].shape, elements=planes[0], metadata=planes[1],
                     scales=planes[2], **sizes)


@pytest.mark.parametrize("kind", KINDS)
def test_every_code_and_metadata_at_every_scale(kind):
    # Subgroup: a code on a lane that moves with the scale, among zeros. All 16 x 4 of them.
    codes = np.repeat(np.arange(16, dtype=np.uint8), 4)
    elements = np.zeros((256, 64, 4), np.uint8)
    for scale in range(256):
        elements[scale, :, scale % 4] = codes
    metadata = np.tile(np.arange(4, dtype=np.uint8), (256, 16))
    scales = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 8, axis=1)
    check(quantized(kind, elements.reshape(256, 256), metadata, scales, subgroup=4))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("group, subgroup", SIZES)
def test_random_records(kind, group, subgroup):
    rng = np.random.default_rng([group, subgroup])
    elements = rng.integers(0, 16, (40, 3 * group))
    # Small and equal magnitudes, too, so that the top-1 is often tied.
    elements[:20] &= rng.choice([8, 9, 10, 12], (20, 1))
    check(quantized(kind, elements, rng.integers(0, 4, (40, 3 * group // subgroup)),
                    rng.choice([0, 1, 2, 100, 127, 200, 251, 252, 253, 254, 255], (40, 3)),
                    group=group, subgroup=subgroup))


@pytest.mark.parametrize("meta, top", [(0, 3.75), (1, 4), (2, 4.5), (3, 5)])
def test_top1_is_the_first_of_equal_magnitudes(meta, top):
    elements = [1, 14, 6, 14, 6, 2, 8, 0] + [0] * 24
    decoded = check(quantized("activation", [elements], [[meta, 1, 1, 1]], [[127]]))
    assert decoded[0, :8].tolist() == [0.5, -top, 4, -4, 4, 1, 0, 0]


@pytest.mark.parametrize("c, refinements", [
    (0, [0, 0, 1, 2]), (1, [-1, 0, 1, 2]), (2, [-1, 0, 1, 2]), (3, [-1, 0, 1, 2]),
    (4, [-1, 0, 2, 4]), (5, [-2, 0, 2, 4]), (6, [-2, 0, 4, 8]), (7, [-4, 0, 4, 8])])
def test_refinements_of_section_7(c, refinements):
    elements = [[0] * 9 + [c] + [0] * 22]
    values = [dequantize(quantized("activation", elements, [[1, meta, 1, 1]], [[127]]))[0]
              for meta in range(4)]
    # A zero's top-1 is the subgroup's first lane.
    top = 9 if c else 8
    plain = [0, 0.5, 1, 1.5, 2, 3, 4, 6][c]
    assert [8 * (v[top] - plain) for v in values] == refinements
    assert not any(np.delete(v, top).any() for v in values)


@pytest.mark.parametrize("elements, meta, bits", [
    # A zero code with metadata 0, which no encoder emits, reads as 0; its sign stays.
    ([0, 8], 0, [0, 0x80000000]),
    ([8, 0], 0, [0x80000000, 0]),
    ([8, 0], 1, [0x80000000, 0]),
    ([8, 0], 2, [0xBE000000, 0]),
    ([0, 8], 3, [0x3E800000, 0x80000000]),
])
def test_zero_codes(elements, meta, bits):
    decoded = check(quantized("activation", [elements + [0] * 30], [[meta, 1, 1, 1]], [[127]]))
    assert decoded[0, :2].view(np.uint32).tolist() == bits


@pytest.mark.parametrize("kind, code, meta, scale, bits", [
    ("activation", 7, 3, 254, 0x7F800000),
    ("activation", 15, 3, 254, 0xFF800000),
    ("activation", 3, 0, 254, 0x7F300000),
    ("activation", 3, 3, 254, 0x7F600000),
    ("activation", 4, 0, 254, 0x7F700000),
    ("activation", 4, 1, 254, 0x7F800000),
    ("weight", 3, 1, 254, 0x7F700000),
    ("weight", 3, 2, 254, 0x7F800000),
    ("weight", 15, 3, 253, 0xFF800000),
    ("weight", 15, 0, 252, 0xFF400000),
    ("activation", 8, 2, 0, 0x80080000),
    ("activation", 1, 0, 0, 0x00180000),
    ("weight", 9, 1, 0, 0x80280000),
    ("weight", 7, 3, 0, 0x01A80000),
    ("weight", 7, 3, 255, 0x7FC00000),
    ("activation", 15, 0, 255, 0x7FC00000),
])
def test_extremes(kind, code, meta, scale, bits):
    decoded = check(quantized(kind, [[code] + [0] * 31], [[meta, 1, 1, 1]], [[scale]]))
    assert decoded[0, 0].view(np.uint32) == bits


@pytest.mark.parametrize("shape", [(1,), (2, 33), (3, 1, 63), (2, 3, 64)])
def test_original_shape(shape):
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    padded = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, -shape[-1] % 32)])
    decoded = dequantize(quantize_activations(x))
    assert decoded.shape == shape
    assert decoded.flags.c_contiguous
    whole = check(quantize_activations(padded))
    assert decoded.tobytes() == whole[..., :shape[-1]].tobytes()


@pytest.mark.parametrize("q", [None, np.zeros((1, 32), np.float32), Quantized])
def test_wrong_type(q):
    with pytest.raises(TypeError) as error:
        dequantize(q)
    assert str(error.value) == f"q must be a Quantized or Blocks, not {type(q).__name__}"
