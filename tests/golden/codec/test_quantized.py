# SPDX-License-Identifier: BSD-2-Clause
"""Quantized tensors: their checks, planes and records."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golden import Quantized
from tests.support import oracle

PLANES = ["elements", "metadata", "scales"]
SIZES = [(g, s) for g in (16, 32) for s in (4, 8, 16, 32) if s <= g]


def planes(shape, group=32, subgroup=8, rng=None):
    *lead, k = shape
    groups = -(-k // group)
    rng = rng or np.random.default_rng(0)
    return {"elements": rng.integers(0, 16, (*lead, groups * group), np.uint8),
            "metadata": rng.integers(0, 4, (*lead, groups * group // subgroup), np.uint8),
            "scales": rng.integers(0, 256, (*lead, groups), np.uint8)}


def random_quantized(shape, group=32, subgroup=8, kind="weight", rng=None):
    return Quantized(kind=kind, shape=shape, group=group, subgroup=subgroup,
                     **planes(shape, group, subgroup, rng))


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(shape=st.lists(st.integers(1, 4), max_size=2), k=st.integers(1, 100),
       sizes=st.sampled_from(SIZES), how=st.sampled_from(
           [("activation", None), ("activation", "sg-em"), ("activation", "mixed"),
            ("activation", "sg-special"), ("weight", "sg-em"), ("weight", "sg-special")]),
       seed=st.integers(0, 99))
def test_unpack_reads_what_pack_writes(shape, k, sizes, how, seed):
    group, subgroup = sizes
    kind, encoding = how
    q = dataclasses.replace(random_quantized((*shape, k), group, subgroup, kind,
                                             np.random.default_rng(seed)), encoding=encoding)
    packed = q.pack()
    assert all(type(plane) is bytes for plane in packed)
    read = Quantized.unpack(*packed, kind=kind, shape=q.shape, group=group, subgroup=subgroup,
                            encoding=encoding)
    for field in dataclasses.fields(Quantized):
        assert np.array_equal(getattr(read, field.name), getattr(q, field.name)), field.name
    assert read.shape == q.shape
    views = [memoryview(plane) for plane in packed]
    again = Quantized.unpack(*views, kind=kind, shape=q.shape, group=group, subgroup=subgroup)
    assert again.pack() == packed


@pytest.mark.parametrize("group, subgroup", SIZES)
def test_packed_planes_bit_for_bit(group, subgroup):
    q = random_quantized((3, 2 * group - 1), group, subgroup)

    def plane(rows, width):
        packed = b""
        for row in rows.tolist():
            row_bits = sum(code << width * i for i, code in enumerate(row))
            packed += row_bits.to_bytes(-(-width * len(row) // 8), "little")
        return packed

    assert q.pack() == (plane(q.elements, 4), plane(q.metadata, 2), plane(q.scales, 8))


@pytest.mark.parametrize("group, subgroup", SIZES)
def test_records_bit_for_bit(group, subgroup):
    q = random_quantized((2, 3, 2 * group), group, subgroup)
    subgroups = group // subgroup
    size = {(32, 8): 18, (16, 8): 10, (32, 4): 19, (16, 4): 10, (32, 16): 18, (32, 32): 18,
            (16, 16): 10}[group, subgroup]
    records = q.records()
    assert records.dtype == np.uint8
    assert records.shape == (2, 3, 2, size)
    for i in np.ndindex(2, 3, 2):
        elements = q.elements[i[:2]][i[2] * group:][:group].tolist()
        metadata = q.metadata[i[:2]][i[2] * subgroups:][:subgroups].tolist()
        scale = int(q.scales[i])
        bits = scale << 4 * group + 2 * subgroups
        for lane, code in enumerate(elements):
            bits |= code << 4 * lane
        for j, meta in enumerate(metadata):
            bits |= meta << 4 * group + 2 * j
        assert records[i].tobytes() == bits.to_bytes(size, "little"), i
        assert oracle.record(elements, metadata, scale) == bits


def test_record_by_hand():
    # Elements 1 .. 15, 0, 1 .. 15, 0; metadata 3, 2, 1, 0; scale 0xA5: 144 bits.
    elements = np.array([[i % 16 for i in range(1, 33)]], np.uint8)
    q = Quantized(kind="activation", shape=(1, 32), elements=elements,
                  metadata=np.array([[3, 2, 1, 0]], np.uint8), scales=np.array([[0xA5]], np.uint8))
    halves = bytes.fromhex("21 43 65 87 a9 cb ed 0f")
    assert q.records()[0, 0].tobytes() == halves + halves + bytes([0b00011011, 0xA5])
    assert q.pack() == (halves + halves, bytes([0b00011011]), bytes([0xA5]))


def test_frozen():
    q = random_quantized((1, 32))
    for field in dataclasses.fields(q):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(q, field.name, getattr(q, field.name))


def test_positional_arguments_are_refused():
    with pytest.raises(TypeError, match="positional"):
        Quantized("weight", *planes((1, 32)).values(), (1, 32))


@pytest.mark.parametrize("change, message", [
    ({"kind": "weights"}, "kind must be one of ('activation', 'weight'), not 'weights'"),
    ({"kind": None}, "kind must be one of ('activation', 'weight'), not None"),
    ({"encoding": "elem-em"},
     "encoding of kind 'weight' must be one of ('sg-em', 'sg-special'), not 'elem-em'"),
    ({"kind": "activation", "encoding": "sg-threshold"},
     "encoding of kind 'activation' must be one of ('elem-em', 'sg-em', 'mixed', "
     "'sg-special'), not 'sg-threshold'"),
    ({"group": 8}, "group must be one of (16, 32), not 8"),
    ({"subgroup": 5}, "subgroup must be one of (4, 8, 16, 32), not 5"),
    ({"group": 16, "subgroup": 32}, "subgroup must divide group 16, not 32"),
    *(({"shape": shape},
       f"shape must be a tuple of at least one positive integer, not {shape!r}")
      for shape in [(), [2, 40], (2, 0), (-2, 40), (2, 40.0), 40, None]),
    ({"shape": (2, 65)},
     "elements must have shape (2, 96) for a tensor of shape (2, 65), not (2, 64)"),
    ({"shape": (2, 32)},
     "elements must have shape (2, 32) for a tensor of shape (2, 32), not (2, 64)"),
    ({"shape": (3, 40)},
     "elements must have shape (3, 64) for a tensor of shape (3, 40), not (2, 64)"),
    ({"subgroup": 4},
     "metadata must have shape (2, 16) for a tensor of shape (2, 40), not (2, 8)"),
    ({"scales": np.zeros((2, 1), np.uint8)},
     "scales must have shape (2, 2) for a tensor of shape (2, 40), not (2, 1)"),
    ({"elements": np.full((2, 64), 16, np.uint8)}, "elements must be at most 15, not 16"),
    ({"metadata": np.full((2, 8), 4, np.uint8)}, "metadata must be at most 3, not 4"),
])
def test_wrong_value(change, message):
    arguments = {"kind": "weight", "shape": (2, 40), **planes((2, 40)), **change}
    with pytest.raises(ValueError) as error:
        Quantized(**arguments)
    assert str(error.value) == message


@pytest.mark.parametrize("name", PLANES)
@pytest.mark.parametrize("plane, kind", [
    (np.zeros((2, 64), np.int8), "int8"), (np.zeros((2, 64)), "float64"), ([0], "list"),
    (None, "NoneType")])
def test_wrong_plane_type(name, plane, kind):
    arguments = {"kind": "weight", "shape": (2, 40), **planes((2, 40)), name: plane}
    with pytest.raises(TypeError) as error:
        Quantized(**arguments)
    assert str(error.value) == f"{name} must be a uint8 array, not {kind}"


@pytest.mark.parametrize("index, name, size", [(0, "elements", 64), (1, "metadata", 4),
                                               (2, "scales", 4)])
@pytest.mark.parametrize("extra", [-1, 1])
def test_unpack_of_wrong_length(index, name, size, extra):
    packed = list(random_quantized((2, 40)).pack())
    packed[index] = bytes(size + extra)
    with pytest.raises(ValueError) as error:
        Quantized.unpack(*packed, kind="weight", shape=(2, 40))
    assert str(error.value) == (f"{name} must hold {size} bytes for a tensor of shape (2, 40), "
                                f"not {size + extra}")


@pytest.mark.parametrize("change, message", [
    ({"kind": 1}, "kind must be one of ('activation', 'weight'), not 1"),
    ({"group": 64}, "group must be one of (16, 32), not 64"),
    ({"subgroup": 64}, "subgroup must be one of (4, 8, 16, 32), not 64"),
    ({"group": 16, "subgroup": 32}, "subgroup must divide group 16, not 32"),
    ({"shape": (2, -40)},
     "shape must be a tuple of at least one positive integer, not (2, -40)"),
])
def test_unpack_of_wrong_value(change, message):
    packed = random_quantized((2, 40)).pack()
    with pytest.raises(ValueError) as error:
        Quantized.unpack(*packed, **{"kind": "weight", "shape": (2, 40), **change})
    assert str(error.value) == message
