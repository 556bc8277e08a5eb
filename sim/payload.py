"""Arrays to bits and back, along the shapes of Amaranth's ports."""

from collections.abc import Mapping

import numpy as np
from amaranth import Shape
from amaranth.lib import data


def to_bits(shape, value, name):
    """Bits of an array of payloads.

    Parameters
    ----------
    shape : ShapeLike
        Shape of the payload; a leaf has at most 64 bits.
    value : array of integers, or mapping of them for a structure
        One payload per entry of the first axis; array layouts add an axis each.
    name : str
        What to call the value in errors.

    Returns
    -------
    uint8 array, shape (n, width)
        Least significant bit first.

    Raises
    ------
    TypeError
        If the value's form does not follow the shape.
    ValueError
        If an array's length or a number is out of range.
    """
    bits = _bits(shape, value, name)
    if bits.ndim != 2:
        raise ValueError(f"{name} must have one axis for its rows and one for each array layout, "
                         f"not {bits.ndim - 2:+} more")
    return bits


def _bits(shape, value, name):
    """Bits of an array of payloads, shape (..., width)."""
    if isinstance(shape, data.StructLayout):
        if not isinstance(value, Mapping) or set(value) != set(shape.members):
            raise TypeError(f"{name} must be a mapping with keys {', '.join(shape.members)}, "
                            f"not {_form(value)}")
        fields = [_bits(field, value[key], f"{name}.{key}")
                  for key, field in shape.members.items()]
        rows = [field.shape[:-1] for field in fields]
        if len(set(rows)) > 1:
            raise ValueError(f"{name} must have fields of equally many rows, not {rows}")
        return np.concatenate(fields, axis=-1)
    if isinstance(shape, data.ArrayLayout):
        bits = _bits(shape.elem_shape, value, name)
        if bits.ndim < 3 or bits.shape[-2] != shape.length:
            raise ValueError(f"{name} must have {shape.length} entries along its last axis, "
                             f"not shape {bits.shape[:-1]}")
        return bits.reshape(*bits.shape[:-2], bits.shape[-2] * bits.shape[-1])

    leaf = Shape.cast(shape)
    value = np.asarray(value)
    if value.dtype.kind not in "iub":
        raise TypeError(f"{name} must be an array of integers, not {_form(value)}")
    low, high = (-1 << leaf.width - 1, 1 << leaf.width - 1) if leaf.signed else (0, 1 << leaf.width)
    if value.size and not (low <= int(value.min()) and int(value.max()) < high):
        raise ValueError(f"{name} must be within {low} and {high - 1}, "
                         f"not {value.min()} to {value.max()}")
    places = np.arange(leaf.width, dtype=np.uint64)
    return (value.astype(np.uint64)[..., None] >> places & np.uint64(1)).astype(np.uint8)


def from_bits(shape, bits):
    """The array or mapping whose bits these are; the inverse of `to_bits`."""
    if isinstance(shape, data.StructLayout):
        fields, start = {}, 0
        for key, field in shape.members.items():
            width = Shape.cast(field).width
            fields[key] = from_bits(field, bits[..., start : start + width])
            start += width
        return fields
    if isinstance(shape, data.ArrayLayout):
        return from_bits(shape.elem_shape, bits.reshape(*bits.shape[:-1], shape.length, -1))

    leaf = Shape.cast(shape)
    size = next(size for size in (8, 16, 32, 64) if size >= leaf.width)
    value = (bits.astype(np.uint64) << np.arange(leaf.width, dtype=np.uint64)).sum(
        axis=-1, dtype=np.uint64)
    if not leaf.signed:
        return value.astype(f"u{size // 8}")
    # Moved to the top of the word and back, the sign bit fills it.
    spare = 64 - leaf.width
    return ((value << np.uint64(spare)).view(np.int64) >> spare).astype(f"i{size // 8}")


def to_integers(bits):
    """Rows of bits as Python integers."""
    return [int.from_bytes(row.tobytes(), "little")
            for row in np.packbits(bits, axis=-1, bitorder="little")]


def from_integers(integers, width):
    """Python integers as rows of ``width`` bits."""
    size = -(-width // 8)
    plane = np.frombuffer(b"".join(n.to_bytes(size, "little") for n in integers), np.uint8)
    return np.unpackbits(plane.reshape(len(integers), size), axis=-1, count=width,
                         bitorder="little")


def _form(value):
    if isinstance(value, Mapping):
        return f"a mapping with keys {', '.join(map(str, value))}"
    return str(getattr(value, "dtype", type(value).__name__))
