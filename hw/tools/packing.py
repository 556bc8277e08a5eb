# SPDX-License-Identifier: BSD-2-Clause
"""Converts arrays to the bits of Amaranth's ports, and back."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from amaranth import Shape
from amaranth.lib import data

# Largest number of bits held as a byte each. Long runs then take little more memory than their
# words.
_SLICE = 1 << 20


def to_words(shape: Any, value: Any, name: str) -> np.ndarray:
    """Packs an array of payloads into words.

    Parameters
    ----------
    shape : ShapeLike
        Shape of the payload; a leaf has at most 64 bits.
    value : array of integers, or mapping of them for a structure
        One payload per entry of the first axis; array layouts add an axis each.
    name : str
        Name of the value in errors.

    Returns
    -------
    uint32 array, shape (n, words)
        Least significant word first; the last word is padded with zeros.

    Raises
    ------
    TypeError
        If the value's form does not follow the shape.
    ValueError
        If an array's length or a number is out of range.
    """
    value, count = _checked(shape, value, name)
    width = Shape.cast(shape).width
    words = np.zeros((count, -(-width // 32)), np.uint32)
    size = -(-width // 8)
    for rows in _slices(count, width):
        plane = words[rows].view(np.uint8)
        bits = np.empty((len(plane), width), np.uint8)
        _fill(bits, shape, value, rows)
        plane[:, :size] = np.packbits(bits, axis=-1, bitorder="little")
    return words


def from_words(shape: Any, words: np.ndarray) -> Any:
    """Unpacks words into an array or mapping; the inverse of `to_words`."""
    count, width = len(words), Shape.cast(shape).width
    value = _empty(shape, (count,))
    for rows in _slices(count, width):
        plane = np.ascontiguousarray(words[rows]).view(np.uint8)
        _take(value, shape, np.unpackbits(plane, axis=-1, count=width, bitorder="little"), rows)
    return value


def to_bits(shape: Any, value: Any, name: str) -> np.ndarray:
    """Unpacks an array of payloads into bits, a byte each.

    Parameters and errors are those of `to_words`.

    Returns
    -------
    uint8 array, shape (n, width)
        Least significant bit first.
    """
    value, count = _checked(shape, value, name)
    width = Shape.cast(shape).width
    bits = np.empty((count, width), np.uint8)
    for rows in _slices(count, width):
        _fill(bits[rows], shape, value, rows)
    return bits


def length(value: Any) -> int:
    """Number of payloads in an array or mapping of them."""
    return length(next(iter(value.values()))) if isinstance(value, Mapping) else len(value)


def to_integers(bits: np.ndarray) -> list[int]:
    """Converts rows of bits (uint8) or of words (uint32) to Python integers."""
    rows = bits if bits.dtype == np.uint32 else np.packbits(bits, axis=-1, bitorder="little")
    return [int.from_bytes(row.tobytes(), "little") for row in rows]


def from_integers(integers: Sequence[int], width: int) -> np.ndarray:
    """Converts Python integers of ``width`` bits to rows of words."""
    words = -(-width // 32)
    return np.frombuffer(b"".join(n.to_bytes(4 * words, "little") for n in integers),
                         np.uint32).reshape(len(integers), words)


def _checked(shape, value, name):
    """Checks a value; returns it with arrays as leaves, and its number of rows."""
    value, axes = _arrays(shape, value, name)
    if len(axes) != 1:
        raise ValueError(f"{name} must have one axis for its rows and one for each array layout, "
                         f"not {len(axes) - 1:+} more")
    return value, axes[0]


def _arrays(shape, value, name):
    """The value with arrays as leaves, and the axes before those of ``shape``."""
    if isinstance(shape, data.StructLayout):
        if not isinstance(value, Mapping) or set(value) != set(shape.members):
            raise TypeError(f"{name} must be a mapping with keys {', '.join(shape.members)}, "
                            f"not {_form(value)}")
        fields = {key: _arrays(field, value[key], f"{name}.{key}")
                  for key, field in shape.members.items()}
        rows = [axes for _, axes in fields.values()]
        if len(set(rows)) > 1:
            raise ValueError(f"{name} must have fields of equally many rows, not {rows}")
        return {key: arrays for key, (arrays, _) in fields.items()}, rows[0]
    if isinstance(shape, data.ArrayLayout):
        arrays, axes = _arrays(shape.elem_shape, value, name)
        if len(axes) < 2 or axes[-1] != shape.length:
            raise ValueError(f"{name} must have {shape.length} entries along its last axis, "
                             f"not shape {axes}")
        return arrays, axes[:-1]

    leaf = Shape.cast(shape)
    value = np.asarray(value)
    if value.dtype.kind not in "iub":
        raise TypeError(f"{name} must be an array of integers, not {_form(value)}")
    low, high = (-1 << leaf.width - 1, 1 << leaf.width - 1) if leaf.signed else (0, 1 << leaf.width)
    if value.size and not (low <= int(value.min()) and int(value.max()) < high):
        raise ValueError(f"{name} must be within {low} and {high - 1}, "
                         f"not {value.min()} to {value.max()}")
    return value, value.shape


def _empty(shape, axes):
    """An array or mapping that `_take` fills."""
    if isinstance(shape, data.StructLayout):
        return {key: _empty(field, axes) for key, field in shape.members.items()}
    if isinstance(shape, data.ArrayLayout):
        return _empty(shape.elem_shape, (*axes, shape.length))
    leaf = Shape.cast(shape)
    return np.empty(axes, f"<{'i' if leaf.signed else 'u'}{_size(leaf)}")


def _fill(bits, shape, value, rows):
    """Copies rows of a value into bits, shape (..., width)."""
    for part, leaf, array in _leaves(bits, shape, value):
        size = _size(leaf)
        plane = array[rows].astype(f"<u{size}", order="C").reshape(-1).view(np.uint8)
        # Unpacking all bits and copying some is faster than NumPy's `count`.
        plane = np.unpackbits(plane, bitorder="little").reshape(*part.shape[:-1], 8 * size)
        part[...] = plane[..., : leaf.width]


def _take(value, shape, bits, rows):
    """Copies bits, shape (..., width), into rows of a value."""
    for part, leaf, array in _leaves(bits, shape, value):
        plane = np.zeros((*part.shape[:-1], 8 * _size(leaf)), np.uint8)
        plane[..., : leaf.width] = part
        if leaf.signed:
            plane[..., leaf.width :] = part[..., -1:]
        array[rows] = np.packbits(plane, bitorder="little").view(array.dtype).reshape(
            part.shape[:-1])


def _leaves(bits, shape, value):
    """Yields the bits, a view, the shape and the array of each leaf."""
    if isinstance(shape, data.StructLayout):
        start = 0
        for key, field in shape.members.items():
            width = Shape.cast(field).width
            yield from _leaves(bits[..., start : start + width], field, value[key])
            start += width
    elif isinstance(shape, data.ArrayLayout):
        width = Shape.cast(shape.elem_shape).width
        yield from _leaves(bits.reshape(*bits.shape[:-1], shape.length, width), shape.elem_shape,
                           value)
    else:
        yield bits, Shape.cast(shape), value


def _size(leaf):
    """Bytes of the smallest integer type that holds a leaf."""
    return next(size for size in (1, 2, 4, 8) if 8 * size >= leaf.width)


def _slices(count, width):
    rows = max(1, _SLICE // max(1, width))
    return [slice(start, min(start + rows, count)) for start in range(0, count, rows)]


def _form(value):
    if isinstance(value, Mapping):
        return f"a mapping with keys {', '.join(map(str, value))}"
    return str(getattr(value, "dtype", type(value).__name__))
