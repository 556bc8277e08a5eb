# SPDX-License-Identifier: BSD-2-Clause
"""Quantized tensors: their checks, planes and records."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golden import Quantized, dequantize, quantize_activations, quantize_weights
from golden.codec.quantized import Blocks
from golden.formats import FORMATS
from golden.formats.razer import razer_weights
from golden.units.nvfp4_quantizer import quantize_nvfp4
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
     "encoding of kind 'weight' must be one of ('sg-em', 'sg-special', "
     "'sg-special64'), not 'elem-em'"),
    ({"kind": "activation", "encoding": "sg-threshold"},
     "encoding of kind 'activation' must be one of ('elem-em', 'sg-em', 'mixed', "
     "'sg-special', 'sg-special64'), not 'sg-threshold'"),
    ({"encoding": "sg-special64"}, "group must be 64 with encoding 'sg-special64', not 32"),
    ({"encoding": "sg-special64", "group": 64, "subgroup": 16},
     "subgroup must be 8 with encoding 'sg-special64', not 16"),
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


def same(a, b):
    return a.shape == b.shape and a.tobytes() == b.tobytes()


# One of each encoding, each width of code, and with and without metadata and a tensor scale.
SOME = ["MXFP4", "M2XFP activations", "M2XFP mixed", "M2XFP Sg-special weights", "MXFP6 E2M3",
        "MXFP4+", "SMX6", "NVFP4", "RaZeR weights", "M2-NVFP4 Sg-EM-8", "HiF4"]


def some(name, shape=(3, 4, 150)):
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    x[-1, 0] = np.nan
    return FORMATS[name].quantize(x)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_dequantized(name):
    q = some(name, (2, 70))
    values = FORMATS[name].dequantize(q)
    assert same(dequantize(q), values) and same(q.dequantize(), values)


def test_formats_that_a_function_makes_are_dequantized():
    form = razer_weights(9)
    q = form.quantize(np.linspace(-9, 9, 32, dtype=np.float32))
    assert q.format == "RaZeR weights 9"
    assert same(dequantize(q), form.dequantize(q))


def test_nvfp4_under_a_scale_per_row_is_dequantized():
    x = np.random.default_rng(0).standard_normal((3, 40), np.float32)
    scale = np.array([[1], [0.5], [2]], np.float32)
    q = quantize_nvfp4(x, scale)
    for row in range(3):
        assert same(q.dequantize()[row], quantize_nvfp4(x[row], scale[row, 0]).dequantize())
        assert same(q[row].dequantize(), q.dequantize()[row])
    assert q[:1] == quantize_nvfp4(x[:1], scale[:1])


@pytest.mark.parametrize("name", [None, "MXFP5"])
def test_unknown_format(name):
    q = dataclasses.replace(some("MXFP4"), format=name)
    with pytest.raises(ValueError, match="^format must be the name of a format of "
                                         f"golden.formats.FORMATS, not {name!r}$"):
        dequantize(q)


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("key", [
    0, -1, slice(1, 3), (1, 2), (slice(None, None, -2), 1), ..., (..., slice(64, None)), (2, ...),
    (slice(1), slice(2, 0, -1), slice(64, 128)), (0, 0, slice(-22, None)), np.int64(1)])
def test_a_slice_has_the_values_of_the_slice(name, key):
    q = some(name)
    if isinstance(key, tuple) and key[-1] == slice(-22, None) and 128 % (
            q.elements.shape[-1] // q.scales.shape[-1]):
        pytest.skip("no whole group")
    part = q[key]
    assert type(part) is type(q)
    assert same(part.dequantize(), q.dequantize()[key])
    assert np.shares_memory(part.elements, q.elements)


def test_rows_are_iterated():
    q = some("NVFP4")
    assert [row == q[i] for i, row in enumerate(q)] == [True] * 3


@pytest.mark.parametrize("key, error, message", [
    (3, IndexError, "out of bounds"),
    ((0, 0, 0, 0), IndexError, "a tensor of 3 axes takes at most 3 indices, not (0, 0, 0, 0)"),
    ((..., ...), IndexError, "at most 3 indices, not (Ellipsis, Ellipsis)"),
    (None, TypeError, "an index must be an integer or a slice, not None"),
    (True, TypeError, "an index must be an integer or a slice, not True"),
    ([0, 1], TypeError, "an index must be an integer or a slice, not [0, 1]"),
    (np.array([0]), TypeError, "an index must be an integer or a slice, not array([0])"),
    (1.0, TypeError, "an index must be an integer or a slice, not 1.0"),
    ((0, 0, 0), TypeError, "the last axis takes slices of whole groups of 32, not 0"),
    (slice(3, 3), IndexError, "a slice must hold at least one element, not slice(3, 3, None) "
                              "of shape (3, 4, 150)"),
    ((..., slice(0, 0)), IndexError, "a slice must hold at least one element"),
    ((..., slice(64, 32)), IndexError, "a slice must hold at least one element"),
    *(((..., key), ValueError, "a slice of the last axis must begin and end between groups of 32 "
       f"and have step 1, not {key}") for key in (slice(1, 32), slice(0, 149), slice(0, 150, 2),
                                                  slice(None, None, -1))),
])
def test_wrong_slices(key, error, message):
    with pytest.raises(error) as raised:
        some("MXFP6 E2M3")[key]
    assert message in str(raised.value)


def test_equality_is_that_of_every_code():
    x = np.random.default_rng(0).standard_normal((2, 40), np.float32)
    q = quantize_activations(x)
    assert q == quantize_activations(x) and not q != quantize_activations(x)
    for name in PLANES:
        plane = getattr(q, name).copy()
        plane[1, 0] ^= 1
        assert q != dataclasses.replace(q, **{name: plane})
    assert q != q[:1] and q != q[0]
    assert q != quantize_activations(x, subgroup=16)
    assert q != dataclasses.replace(q, encoding="sg-em")
    assert quantize_weights(x) != dataclasses.replace(quantize_weights(x), kind="activation",
                                                      encoding="sg-em")
    assert (q == x) is False and (x == q) is False and (q == FORMATS["MXFP4"].quantize(x)) is False
    with pytest.raises(TypeError, match="unhashable"):
        hash(q)


def test_equality_of_other_formats():
    x = np.random.default_rng(0).standard_normal((2, 40), np.float32)
    q = FORMATS["NVFP4"].quantize(x)
    assert q == FORMATS["NVFP4"].quantize(x)
    assert q != dataclasses.replace(q, format="NVFP4 searched")
    assert q != dataclasses.replace(q, tensor_scale=np.nextafter(q.tensor_scale, np.float32(9)))
    assert q != dataclasses.replace(q, tensor_scale=None)
    assert FORMATS["MXFP4"].quantize(x) != FORMATS["MXFP6 E2M3"].quantize(x)


def test_sizes_in_bytes():
    q = random_quantized((3, 40))
    assert q.nbytes == 3 * (64 + 8 + 2) and q.packed_nbytes == 3 * (32 + 2 + 2)
    assert q.packed_nbytes == sum(map(len, q.pack()))
    odd = random_quantized((3, 40), 32, 16)
    assert odd.packed_nbytes == sum(map(len, odd.pack()))
    assert random_quantized((3, 40), 32, 32).packed_nbytes == 3 * (32 + 1 + 2)
    x = np.ones((3, 40), np.float32)
    nv = FORMATS["NVFP4"].quantize(x)
    assert nv.nbytes == 3 * (48 + 3) + 4 and nv.packed_nbytes == 3 * (24 + 3) + 4
    assert FORMATS["MXFP8 E4M3"].quantize(x).packed_nbytes == 3 * (64 + 2)


def test_representations_are_short():
    x = np.ones((300, 4000), np.float32)
    assert repr(quantize_weights(x)) == \
        "Quantized(weight, sg-em, group=32, subgroup=8, shape=(300, 4000))"
    assert repr(FORMATS["NVFP4"].quantize(x)) == "Blocks('NVFP4', shape=(300, 4000))"


@pytest.mark.parametrize("name", SOME)
def test_load_reads_what_save_writes(name, tmp_path):
    q = some(name)
    q.save(tmp_path / "q.safetensors")
    for read in (type(q).load(tmp_path / "q.safetensors"), Blocks.load(tmp_path / "q.safetensors")):
        assert type(read) is type(q) and read == q
    assert [path.name for path in tmp_path.iterdir()] == ["q.safetensors"]


@pytest.mark.parametrize("group, subgroup", SIZES)
def test_load_drops_what_fills_up_bytes(group, subgroup, tmp_path):
    q = random_quantized((3, 2 * group - 1), group, subgroup)
    q.save(tmp_path / "q")
    assert Quantized.load(tmp_path / "q") == q


def test_files_are_those_of_safetensors(tmp_path):
    from safetensors import numpy, safe_open

    q = some("M2XFP activations")
    q.save(tmp_path / "q")
    tensors = numpy.load_file(tmp_path / "q")
    assert b"".join(tensors[name].tobytes() for name in PLANES) == b"".join(q.pack())
    assert (tmp_path / "q").stat().st_size - q.packed_nbytes < 500
    with safe_open(tmp_path / "q", "numpy") as file:
        assert json.loads(file.metadata()["golden"])["kind"] == "activation"
    some("NVFP4").save(tmp_path / "q")
    assert numpy.load_file(tmp_path / "q")["tensor_scale"] == some("NVFP4").tensor_scale


def rewritten(path, change):
    """A file whose header was changed."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8: 8 + length])
    described = json.loads(header["__metadata__"]["golden"])
    change(header, described)
    if "__metadata__" in header:
        header["__metadata__"]["golden"] = json.dumps(described)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length:])


@pytest.mark.parametrize("change", [
    lambda header, d: header.pop("__metadata__"),
    lambda header, d: header.pop("scales"),
    lambda header, d: header["scales"].update(dtype="I8"),
    lambda header, d: header["scales"].update(data_offsets=[0, 6]),
    lambda header, d: header["scales"].update(shape=[3, -2]),
    lambda header, d: d.update({"class": "dict"}),
    lambda header, d: d.pop("kind"),
    lambda header, d: d.update(kind="both"),
    lambda header, d: d.update(shape=[3, 41, 1]),
    lambda header, d: d.update(shape=3),
    lambda header, d: d.update(bits={"elements": 4, "scales": 8}),
    lambda header, d: d["bits"].update(elements=3),
    lambda header, d: d.update(more=1),
])
def test_files_with_another_header_are_refused(change, tmp_path):
    path = tmp_path / "q"
    random_quantized((3, 40)).save(path)
    rewritten(path, lambda header, d: None)
    assert Quantized.load(path) == random_quantized((3, 40))
    rewritten(path, change)
    with pytest.raises(ValueError) as error:
        Quantized.load(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_blocks_that_do_not_fit_their_shape_are_refused(tmp_path):
    path = tmp_path / "q"
    some("MXFP8 E4M3").save(path)
    for shape in [(3, 4, 161), (3, 4, 128), (3, 5, 150), (3, 150), ()]:
        rewritten(path, lambda header, d, shape=shape: d.update(shape=list(shape)))
        with pytest.raises(ValueError, match="does not hold a quantized tensor"):
            Blocks.load(path)


@pytest.mark.parametrize("change", [
    lambda data: data[:-1], lambda data: data + b"0", lambda data: b"", lambda data: data[:7],
    lambda data: b"9" * 99])
def test_cut_and_foreign_files_are_refused(change, tmp_path):
    path = tmp_path / "q"
    random_quantized((3, 40)).save(path)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match="is not a file of a quantized tensor"):
        Quantized.load(path)


def test_quantized_load_refuses_other_formats(tmp_path):
    some("NVFP4").save(tmp_path / "q")
    with pytest.raises(ValueError, match="holds a tensor in 'NVFP4', which Quantized.load "):
        Quantized.load(tmp_path / "q")


def test_save_replaces_files_only(tmp_path):
    q = random_quantized((3, 40))
    (tmp_path / "q").write_text("before")
    q.save(tmp_path / "q")
    assert Quantized.load(tmp_path / "q") == q
    with pytest.raises(ValueError, match="must be a regular file, not the folder "):
        q.save(tmp_path)
    with pytest.raises(ValueError, match="must be a regular file, not the device /dev/null"):
        q.save("/dev/null")
    with pytest.raises(FileNotFoundError):
        q.save(tmp_path / "no" / "q")
    assert [path.name for path in tmp_path.iterdir()] == ["q"]
