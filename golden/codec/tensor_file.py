# SPDX-License-Identifier: BSD-2-Clause
"""Files of one quantized tensor: a safetensors container with a few arrays and a description.

Such a file is small enough to be read at once. `golden.checkpoint.safetensors` reads and writes
whole checkpoints, a part of a tensor at a time.
"""

import json
import os
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..output import replacing

KEY = "golden"
"""Name of the description in the file's metadata."""

DTYPES: dict[str, np.dtype[Any]] = {"U8": np.dtype(np.uint8), "F32": np.dtype("<f4")}
"""Types of the arrays, by their names in the file."""


def write(path: str | os.PathLike[str], arrays: dict[str, NDArray[Any]],
          description: dict[str, Any]) -> None:
    """Writes arrays and their description; an existing file is replaced at the end.

    Parameters
    ----------
    path : path-like
    arrays : dict of str to uint8 or float32 array
    description : dict
        What JSON can hold.

    Raises
    ------
    OSError
        If the file cannot be written.
    ValueError
        If there is something at ``path`` that is not a regular file.
    """
    header: dict[str, Any] = {"__metadata__": {KEY: json.dumps(description)}}
    names = {dtype: name for name, dtype in DTYPES.items()}
    end = 0
    # The float32 first, so that it is aligned.
    ordered = sorted(arrays.items(), key=lambda item: -item[1].itemsize)
    for name, array in ordered:
        header[name] = {"dtype": names[array.dtype], "shape": list(array.shape),
                        "data_offsets": [end, end + array.nbytes]}
        end += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    with replacing(path) as (file,):
        file.write(len(text).to_bytes(8, "little") + text)
        for _, array in ordered:
            file.write(np.ascontiguousarray(array).data)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Reads what `write` wrote.

    Returns
    -------
    arrays : dict of str to array
    description : dict

    Raises
    ------
    ValueError
        If the file was not written by `write`.
    OSError
        If it cannot be read.
    """
    data = Path(path).read_bytes()
    try:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8: 8 + length])
        description = json.loads(header.pop("__metadata__")[KEY])
        if not isinstance(description, dict):
            raise ValueError("the description must be a JSON object")
        arrays, end = {}, 0
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            start, stop = entry["data_offsets"]
            dtype, shape = DTYPES[entry["dtype"]], tuple(entry["shape"])
            if start != end or stop - start != prod(shape) * dtype.itemsize:
                raise ValueError(f"{name} must lie behind the tensor before it")
            arrays[name] = np.frombuffer(data, dtype, prod(shape), 8 + length + start
                                         ).reshape(shape)
            end = stop
        if 8 + length + end != len(data):
            raise ValueError(f"it must have {8 + length + end} bytes, not {len(data)}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{os.fspath(path)} is not a file of a quantized tensor: "
                         f"{type(error).__name__}, {str(error)[:100]}") from None
    return arrays, description
