# SPDX-License-Identifier: BSD-2-Clause
"""Checkpoint files made by hand."""

import json

import numpy as np


def container(header, data=b"", length=None):
    """A file by hand."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def raw(path, tensors, metadata=None):
    """Writes arrays by dtype name, those included that NumPy does not know."""
    header, data = {"__metadata__": metadata} if metadata else {}, b""
    for name, (dtype, array) in tensors.items():
        end = len(data) + array.nbytes
        # Two to a byte.
        shape = [*array.shape[:-1], 2 * array.shape[-1]] if dtype == "F4" else list(array.shape)
        header[name] = {"dtype": dtype, "shape": shape,
                        "data_offsets": [len(data), end]}
        data += array.tobytes()
    path.write_bytes(container(header, data))
    return path


def swizzled(scales):
    """As a kernel would write it, one scale after another."""
    rows, columns = -(-scales.shape[0] // 128) * 128, -(-scales.shape[1] // 4) * 4
    plane = np.zeros(rows * columns, np.uint8)
    for r, c in np.ndindex(scales.shape):
        tile = (r // 128) * (columns // 4) + c // 4
        plane[tile * 512 + r % 32 * 16 + r % 128 // 32 * 4 + c % 4] = scales[r, c]
    return plane.reshape(rows, columns)
