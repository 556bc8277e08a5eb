# SPDX-License-Identifier: BSD-2-Clause
"""Weights as files hold them, and their values.

All arithmetic is float32, as in the libraries that wrote the files: a factor is the scale of a
group, times the tensor scale or divided by it, rounded once; a value is an element times its
factor, rounded once. Products of E2M1, or of FP8 under E8M0, are exact.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import ml_dtypes
import numpy as np

from ..codec.arrays import Float32Array, UInt8Array
from ..codec.quantized import _unpack as unpack_codes
from .safetensors import BadFile

GROUP = 32
"""Elements per scale of MXFP4 and M2XFP."""

NVFP4_GROUP = 16
"""Elements per scale of NVFP4."""

DTYPES = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16),
          "BF16": np.dtype(ml_dtypes.bfloat16)}
"""Types of values that are quantized, by their names in a file."""

_BYTES = np.arange(256, dtype=np.uint8)


def _table(dtype):
    return _BYTES.view(dtype).astype(np.float32)


_ELEMENTS = {
    "E2M1": np.arange(16, dtype=np.uint8).view(ml_dtypes.float4_e2m1fn).astype(np.float32),
    "F8_E4M3": _table(ml_dtypes.float8_e4m3fn), "F8_E5M2": _table(ml_dtypes.float8_e5m2)}
_E8M0 = _table(ml_dtypes.float8_e8m0fnu)

Rows = Callable[[int, int], tuple[Float32Array, tuple[UInt8Array, UInt8Array] | None]]
"""Reads some rows: float32 values of shape (rows, K), and in MXFP4 the codes and scales, one per
byte, which are kept. Threads may call it."""


@dataclass(frozen=True, kw_only=True)
class Scales:
    """Scales that lie in a tensor of their own.

    Attributes
    ----------
    name : str
    block : tuple of int
        Rows and columns of the weight that share a scale.
    swizzled : bool
        Whether they are 128x4-swizzled.
    tensor_scale : str
        Name of the tensor scale, one for all or one per matrix; "" if there is none.
    divides : bool
        Whether the tensor scale divides.
    """

    name: str
    block: tuple[int, int]
    swizzled: bool = False
    tensor_scale: str = ""
    divides: bool = False


@dataclass(frozen=True, kw_only=True)
class Weight:
    """A weight in a checkpoint.

    Attributes
    ----------
    name : str
    shape : tuple of int
        Shape (..., K), the reduction axis last.
    dtype : str
        "F32", "F16", "BF16", "MXFP4", "NVFP4", "MXFP8", "FP8" or "Q8_0".
    parts : tuple of str
        Names of the tensors that hold it; the first has the values or codes.
    transposed : bool
        Whether it is stored as (..., K, N).
    elements : str
        Type of the codes: "E2M1", "F8_E4M3", "F8_E5M2", or "" of values and of blocks of GGUF.
    scales : Scales, optional
    packed : str
        Type of the blocks, in GGUF.
    note : str
        How the tensors were read.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    parts: tuple[str, ...]
    transposed: bool = False
    elements: str = ""
    scales: Scales | None = None
    packed: str = ""
    note: str = ""

    @property
    def rows(self) -> int:
        """Rows along the reduction axis."""
        return prod(self.shape[:-1])


def open_rows(model: Any, weight: Weight) -> Rows:
    """Prepares reading a weight's values.

    All scales of NVFP4 and FP8 and swizzled ones of MXFP4 are held; of a transposed weight two
    matrices.

    Parameters
    ----------
    model : Model or Reader
    weight : Weight

    Raises
    ------
    BadFile
        If scales are not what they must be.
    """
    if weight.packed:
        return _open_blocks(model, weight)
    if weight.scales is not None:
        return _open_scaled(model, weight, weight.scales)
    return _open_floats(model, weight)


def _open_floats(model, weight):
    name, = weight.parts
    dtype = DTYPES[weight.dtype]
    k = weight.shape[-1]

    def values(data):
        if dtype == np.float32:
            return data
        return data.astype(np.float32)

    if not weight.transposed:
        width = k * dtype.itemsize
        return lambda start, stop: (values(np.frombuffer(
            model.read(name, start * width, stop * width), dtype).reshape(-1, k)), None)

    rows = weight.shape[-2]
    size = k * rows * dtype.itemsize

    @lru_cache(maxsize=2)
    def matrix(index):
        return np.frombuffer(model.read(name, index * size, (index + 1) * size),
                             dtype).reshape(k, rows)

    def read(start, stop):
        parts = []
        while start < stop:
            index, first = divmod(start, rows)
            last = min(first + stop - start, rows)
            parts.append(matrix(index)[:, first:last].T)
            start += last - first
        return np.ascontiguousarray(values(np.concatenate(parts))), None

    return read


def _open_scaled(model, weight, scales):
    codes_name = weight.parts[0]
    *lead, k = weight.shape
    height, width = scales.block
    groups = -(-k // width)
    four = weight.elements == "E2M1"
    table = _ELEMENTS[weight.elements]
    codes_width = k // 2 if four else k
    mx = weight.dtype.startswith("MX")
    tensor_scale = _tensor_scale(model, weight, scales)
    if mx and not scales.swizzled:
        def factors(start, stop):
            codes = _bytes(model, scales.name, groups, start, stop)
            return _E8M0[codes], codes
    else:
        held = _held_scales(model, weight, scales, groups)
        matrix = lead[-1]
        per_matrix = -(-matrix // height)

        def factors(start, stop):
            rows = np.arange(start, stop)
            found = held[rows // matrix * per_matrix + rows % matrix // height]
            if mx:
                return _E8M0[found], found
            if tensor_scale is None:
                return found, None
            scale = tensor_scale[rows // matrix % len(tensor_scale), None] \
                if len(tensor_scale) > 1 else tensor_scale
            with np.errstate(all="ignore"):
                return (found / scale if scales.divides else found * scale), None

    def read(start, stop):
        codes = _bytes(model, codes_name, codes_width, start, stop)
        if four:
            codes = unpack_codes(codes, 4, k)
        factor, scale_codes = factors(start, stop)
        with np.errstate(all="ignore"):
            values = table[codes]
            if k % width == 0:
                values.reshape(stop - start, groups, width)[...] *= factor[..., None]
            else:
                values *= np.repeat(factor, width, axis=1)[:, :k]
        return values, (codes, scale_codes) if weight.dtype == "MXFP4" else None

    return read


def _bytes(model, name, width, start, stop):
    return np.frombuffer(model.read(name, start * width, stop * width),
                         np.uint8).reshape(-1, width)


def _held_scales(model, weight, scales, groups):
    """All scales of a weight, one row per block of rows: codes of E8M0, or float32 values."""
    tensor = model.tensors[scales.name]
    data = model.read(scales.name)
    if tensor.dtype in DTYPES:
        held = np.frombuffer(data, DTYPES[tensor.dtype]).astype(np.float32)
        if not (np.isfinite(held).all() and (held >= 0).all()):
            raise BadFile(f"{model.path}: {scales.name!a} must have finite scales of at least 0")
        return held.reshape(-1, groups)
    codes = np.frombuffer(data, np.uint8)
    if scales.swizzled:
        rows = -(-weight.rows // 128) * 128
        codes = linear_scales(codes.reshape(rows, -1), weight.rows, groups)
    codes = codes.reshape(-1, groups)
    if weight.dtype.startswith("MX"):
        return codes
    if tensor.dtype == "F8_E8M0":
        return _E8M0[codes]
    if codes.max() > 127:
        raise BadFile(f"{model.path}: {scales.name!a} must have no negative scales")
    return _ELEMENTS["F8_E4M3"][codes]


def _tensor_scale(model, weight, scales):
    if not scales.tensor_scale:
        return None
    name = scales.tensor_scale
    found = np.frombuffer(model.read(name), "<f4")
    if not (np.isfinite(found).all() and (found > 0).all()):
        wrong = found[~(np.isfinite(found) & (found > 0))][0]
        raise BadFile(f"{model.path}: {name!a} must be finite and above 0, not {wrong}")
    return found


def linear_scales(plane: UInt8Array, rows: int, groups: int) -> UInt8Array:
    """Puts the scales of a 128x4-swizzled plane into rows.

    The plane consists of tiles of 128 rows and 4 columns, 512 bytes each, row by row of tiles. Byte
    16 * (r % 32) + 4 * (r // 32) + c of a tile is the scale of its row r and column c.

    Parameters
    ----------
    plane : uint8 array, shape (R, C)
        R is a multiple of 128, C of 4.
    rows, groups : int
        Rows and columns without the padding.

    Returns
    -------
    uint8 array, shape (rows, groups)
    """
    tiles = plane.reshape(plane.shape[0] // 128, plane.shape[1] // 4, 32, 4, 4)
    return tiles.transpose(0, 3, 2, 1, 4).reshape(plane.shape)[:rows, :groups]


BLOCKS = {"MXFP4": (32, 17), "NVFP4": (64, 36), "Q8_0": (32, 34)}
"""Elements and bytes of the blocks of GGUF that are understood."""


def _open_blocks(model, weight):
    """Reads blocks of scales and codes, as ggml lays them out.

    In MXFP4 a scale is followed by 16 bytes: element i in the low nibble of byte i, element 16 + i
    in the high one. NVFP4 has four scales, then four times eight such bytes. Q8_0 has a float16
    scale and signed bytes.
    """
    name, = weight.parts
    k = weight.shape[-1]
    elements, size = BLOCKS[weight.packed]
    width = k // elements * size

    def read(start, stop):
        blocks = _bytes(model, name, width, start, stop).reshape(stop - start, -1, size)
        if weight.packed == "Q8_0":
            factors = blocks[..., :2].copy().view("<f2").astype(np.float32)
            return (blocks[..., 2:].view(np.int8) * factors).reshape(-1, k), None
        count = 1 if weight.packed == "MXFP4" else 4
        pairs = blocks[..., count:].reshape(stop - start, -1, elements // count // 2)
        codes = np.concatenate([pairs & np.uint8(15), pairs >> np.uint8(4)], axis=-1)
        scales = np.ascontiguousarray(blocks[..., :count]).reshape(stop - start, -1)
        with np.errstate(all="ignore"):
            values = _ELEMENTS["E2M1"][codes]
            values *= (_E8M0[scales] if count == 1 else _UE4M3[scales])[..., None]
        codes = codes.reshape(-1, k)
        return values.reshape(-1, k), (codes, scales) if count == 1 else None

    return read


# ggml ignores the sign, and takes the code of NaN as 0.
_UE4M3 = np.abs(_ELEMENTS["F8_E4M3"])
_UE4M3 = np.where(np.isnan(_UE4M3), np.float32(0), _UE4M3)
