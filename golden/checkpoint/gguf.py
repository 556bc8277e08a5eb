# SPDX-License-Identifier: BSD-2-Clause
"""Reads the GGUF container of llama.cpp, version 2 or 3, a part of a tensor at a time.

A file consists of a magic number, a version and two counts; entries of key, type and value; the
name, shape, type and offset of each tensor; and data. The container is described in ggml's
docs/gguf.md.
"""

import json
import math
import os
import struct
from pathlib import Path
from typing import Any

from .safetensors import BadFile, Reader, Tensor

MAGIC = b"GGUF"

# By number: the name in safetensors of a type that has one.
_PLAIN = {0: "F32", 1: "F16", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 30: "BF16"}

# By number: name, elements and bytes of a block.
_PACKED = {
    2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136), 29: ("IQ1_M", 256, 56),
    34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18)}

_BYTES = {"F32": 4, "F16": 2, "I8": 1, "I16": 2, "I32": 4, "I64": 8, "F64": 8, "BF16": 2}

# Formats of values by type.
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q",
            11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9

# Axes of a tensor, and arrays within arrays, at most.
_DEPTH = 4


class GgufReader(Reader):
    """An open GGUF file with a checked header; its tensors are in the order of their data.

    The entries are JSON under "gguf" in `metadata`. A tensor of a packed type has the shape
    (..., bytes of a row).

    Parameters
    ----------
    path : path-like

    Raises
    ------
    BadFile
        If it is not a GGUF file.
    OSError
        If it cannot be read.
    """

    def _read_header(self):
        self._size = os.fstat(self._file.fileno()).st_size
        try:
            self._read_entries()
        except (struct.error, OverflowError, MemoryError):
            raise self._bad("is truncated: its header is not complete") from None

    def _read_entries(self):
        if self._take(4) != MAGIC:
            raise self._bad("is not a GGUF file")
        version, = self._unpack("<I")
        if version not in (2, 3):
            raise self._bad(f"must be GGUF of version 2 or 3, little-endian, not {version}")
        tensors, entries = self._unpack("<QQ")
        values = {}
        for _ in range(self._counted(entries, 13)):
            key = self._string()
            values[key] = self._value(*self._unpack("<I"))
        found = {}
        for _ in range(self._counted(tensors, 24)):
            name = self._string()
            if name in found:
                raise self._bad(f"has two tensors {name!a}")
            axes, = self._unpack("<I")
            if axes > _DEPTH:
                raise self._bad(f"has a tensor {name!a} that must have at most {_DEPTH} axes, "
                                f"not {axes}")
            # The innermost axis comes first.
            shape = self._unpack(f"<{axes}Q")[::-1]
            found[name] = shape, *self._unpack("<IQ")
        alignment = values.get("general.alignment", 32)
        if type(alignment) is not int or alignment < 1:
            raise self._bad(f"must have a general.alignment of at least 1, not {alignment!a}")
        self._data = -(-self._file.tell() // alignment) * alignment
        self.metadata = {"gguf": json.dumps(values)}
        self.tensors = {}
        order = sorted(found.items(), key=lambda t: t[1][2])
        limits = [offset for _, (_, _, offset) in order[1:]]
        limits += [self._size - self._data] * bool(order)
        for (name, (shape, kind, offset)), limit in zip(order, limits, strict=True):
            tensor = self._tensor_of(name, shape, kind, offset, limit)
            if tensor.stop > limit:
                raise self._bad(f"has a tensor {name!a} that ends at byte {tensor.stop} of its "
                                f"data, beyond {limit}")
            self.tensors[name] = tensor

    def _tensor_of(self, name, shape, kind, start, limit):
        if kind in _PLAIN:
            size = math.prod(shape) * _BYTES[_PLAIN[kind]]
            return Tensor(dtype=_PLAIN[kind], shape=shape, start=start, stop=start + size)
        if kind not in _PACKED:
            # Where it ends is not known, but it is copied whole.
            return Tensor(dtype="U8", shape=(limit - start,), start=start, stop=limit,
                          packed=f"type {kind}")
        packed, elements, size = _PACKED[kind]
        if not shape or shape[-1] % elements:
            raise self._bad(f"has a tensor {name!a} of {packed} whose rows must have a multiple "
                            f"of {elements} elements, not shape {list(shape)}")
        shape = (*shape[:-1], shape[-1] // elements * size)
        return Tensor(dtype="U8", shape=shape, start=start, stop=start + math.prod(shape),
                      packed=packed)

    def _take(self, length):
        if length > self._size - self._file.tell():
            raise self._bad("is truncated: its header is not complete")
        return self._file.read(length)

    def _counted(self, count, least):
        """A count, after a check against the bytes that so many things take at least."""
        if count * least > self._size:
            raise self._bad(f"is truncated: {count} entries do not fit in it")
        return count

    def _unpack(self, format):
        return struct.unpack(format, self._take(struct.calcsize(format)))

    def _string(self):
        # Tokens need not be UTF-8.
        return self._take(*self._unpack("<Q")).decode(errors="surrogateescape")

    def _value(self, kind: int, depth: int = 0) -> Any:
        if kind == _STRING:
            return self._string()
        if kind in _SCALARS:
            return self._unpack(_SCALARS[kind])[0]
        if kind != _ARRAY or depth == _DEPTH:
            raise self._bad(f"has an entry of type {kind}, which is not known")
        kind, count = self._unpack("<IQ")
        if kind in _SCALARS:
            return list(self._unpack(f"<{self._counted(count, 1)}{_SCALARS[kind][1]}"))
        return [self._value(kind, depth + 1) for _ in range(self._counted(count, 1))]


def is_gguf(path: Path) -> bool:
    """Tells whether a file is GGUF by its first bytes."""
    with open(path, "rb") as file:
        return file.read(4) == MAGIC


__all__ = ["BadFile", "GgufReader", "is_gguf"]
