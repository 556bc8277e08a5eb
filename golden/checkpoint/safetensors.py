# SPDX-License-Identifier: BSD-2-Clause
"""Reads and writes the safetensors container, strictly and a part of a tensor at a time.

A file consists of the header's length in eight bytes, a header in JSON, and data. Files are read
with seek and never mapped.
"""

import json
import math
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

from ..command import Failure

HEADER_MAX = 100_000_000
"""Bytes of the longest header that is allowed; the limit of the reference implementation."""

BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U16": 16, "I16": 16, "F16": 16,
    "BF16": 16, "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}
"""Bits of an element by dtype."""


class BadFile(Failure, ValueError):
    """A file does not hold what it must hold; the text is one line for the user."""


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """Type, shape and place of a tensor in a file.

    Attributes
    ----------
    dtype : str
        One of `BITS`.
    shape : tuple of int
    start, stop : int
        Range of its bytes, counted from the end of the header.
    packed : str
        In GGUF, the name of a type that packs codes and scales into blocks, such as "MXFP4". Dtype
        and shape are then those of the bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int
    packed: str = ""


def open_regular(path: Path) -> BinaryIO:
    """Opens a file for reading.

    Raises
    ------
    BadFile
        If it is no regular file, which could not be read twice.
    OSError
        If it cannot be opened.
    """
    if path.exists() and not path.is_file():
        raise BadFile(f"{path} must be a regular file" + " and is a folder" * path.is_dir())
    return open(path, "rb")


class Reader:
    """An open file with a checked header: tensors fill the data without overlap or hole.

    It is a context manager, which closes the file.

    Parameters
    ----------
    path : path-like

    Attributes
    ----------
    path : Path
    tensors : dict of str to Tensor
        In the order of their data.
    metadata : dict of str to str

    Raises
    ------
    BadFile
        If it is not a safetensors file.
    OSError
        If it cannot be read.
    """

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, str]

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file = open_regular(self.path)
        self._lock = Lock()
        try:
            self._read_header()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def _bad(self, text):
        return BadFile(f"{self.path} {text}")

    def _read_header(self):
        size = os.fstat(self._file.fileno()).st_size
        if size < 8:
            raise self._bad(f"is not a safetensors file: {size} bytes are too few")
        length = int.from_bytes(self._file.read(8), "little")
        if length > HEADER_MAX:
            raise self._bad(f"is not a safetensors file: its header must have at most "
                            f"{HEADER_MAX} bytes, not {length}")
        if 8 + length > size:
            raise self._bad(f"is truncated: its header ends at byte {8 + length} of {size}")
        try:
            header = json.loads(self._file.read(length), object_pairs_hook=_unique)
        except (ValueError, RecursionError) as error:
            raise self._bad("is not a safetensors file: its header must be JSON "
                            f"({type(error).__name__}: {str(error)[:100]!a})") from None
        if not isinstance(header, dict):
            raise self._bad("is not a safetensors file: its header must be a JSON object")
        self.metadata = header.pop("__metadata__", {})
        if not (isinstance(self.metadata, dict)
                and all(isinstance(text, str) for text in self.metadata.values())):
            raise self._bad("has metadata that are not texts by name")
        self._data = 8 + length
        tensors = {name: self._tensor(name, entry) for name, entry in header.items()}
        self.tensors = dict(sorted(tensors.items(), key=lambda t: (t[1].start, t[1].stop)))
        end = 0
        for name, tensor in self.tensors.items():
            if tensor.start != end:
                problem = "overlaps another" if tensor.start < end else "leaves a hole before it"
                raise self._bad(f"has a tensor {name!a} that {problem}: "
                                f"it must start at byte {end}, not {tensor.start}")
            end = tensor.stop
        if self._data + end != size:
            problem = "is truncated" if self._data + end > size else "has bytes after its tensors"
            raise self._bad(f"{problem}: it must have {self._data + end} bytes, not {size}")

    def _tensor(self, name, entry):
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise self._bad(f"has a tensor {name!a} without exactly dtype, shape and data_offsets")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or dtype not in BITS:
            raise self._bad(f"has a tensor {name!a} whose dtype must be one of {', '.join(BITS)}, "
                            f"not {str(dtype)[:40]!a}")
        for what, numbers in (("shape", shape), ("data_offsets", offsets)):
            if not isinstance(numbers, list) or not all(type(n) is int and n >= 0
                                                        for n in numbers):
                raise self._bad(f"has a tensor {name!a} whose {what} must be whole numbers")
        bits = math.prod(shape) * BITS[dtype]
        if bits % 8 or len(offsets) != 2 or 8 * (offsets[1] - offsets[0]) != bits:
            raise self._bad(f"has a tensor {name!a} whose data_offsets must be two, the bits of "
                            f"{dtype} {str(shape)[:60]} apart, not {str(offsets)[:60]}")
        return Tensor(dtype=dtype, shape=tuple(shape), start=offsets[0], stop=offsets[1])

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        """Reads bytes of a tensor, all or those from ``start`` to ``stop``; threads may do so."""
        tensor = self.tensors[name]
        length = (tensor.stop - tensor.start if stop is None else stop) - start
        with self._lock:
            self._file.seek(self._data + tensor.start + start)
            data = self._file.read(length)
        if len(data) != length:
            raise self._bad(f"ended while tensor {name!a} was read")
        return data


class Writer:
    """Writes a file of tensors of known sizes, in any order and part by part.

    Tensors are laid out by the size of their elements, the largest first, so that all are aligned.

    Parameters
    ----------
    file : binary file
        An empty file, open for writing.
    tensors : mapping of str to (str, tuple of int)
        Dtype and shape by name.
    metadata : mapping of str to str
        Metadata of the length that `finish` may write at most.
    """

    def __init__(self, file: BinaryIO, tensors: Mapping[str, tuple[str, tuple[int, ...]]],
                 metadata: Mapping[str, str]) -> None:
        self._file = file
        self._header: dict[str, dict[str, Any]] = {}
        end = 0
        for name, (dtype, shape) in sorted(tensors.items(), key=lambda t: (-BITS[t[1][0]], t[0])):
            size = math.prod(shape) * BITS[dtype] // 8
            self._header[name] = {"dtype": dtype, "shape": list(shape),
                                  "data_offsets": [end, end + size]}
            end += size
        self._length = 0
        self._length = -(-len(self._encoded(metadata)) // 8) * 8
        file.truncate(8 + self._length + end)

    def put(self, name: str, data: bytes, offset: int = 0) -> None:
        """Writes bytes of a tensor, from its byte ``offset`` on.

        Raises
        ------
        ValueError
            If they do not lie within the tensor.
        """
        start, stop = self._header[name]["data_offsets"]
        if not 0 <= offset <= offset + len(data) <= stop - start:
            raise ValueError(f"data of {name!a} must lie within its {stop - start} bytes, "
                             f"not in {offset} to {offset + len(data)}")
        self._file.seek(8 + self._length + start + offset)
        self._file.write(data)

    def finish(self, metadata: Mapping[str, str]) -> None:
        """Writes the header.

        Raises
        ------
        ValueError
            If the metadata are longer than those that the file was opened with.
        """
        header = self._encoded(metadata)
        if len(header) > self._length:
            raise ValueError(f"metadata must fit the {self._length} bytes of header left for them")
        self._file.seek(0)
        self._file.write(self._length.to_bytes(8, "little") + header)
        self._file.flush()

    def _encoded(self, metadata):
        header = {"__metadata__": metadata} if metadata else {}
        text = json.dumps(header | self._header, separators=(",", ":"))
        # The container allows spaces after the header.
        return text.encode().ljust(self._length)


def _unique(pairs):
    names = dict(pairs)
    if len(names) != len(pairs):
        (twice, _), = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{twice} comes twice")
    return names
