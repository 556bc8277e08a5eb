# SPDX-License-Identifier: BSD-2-Clause
"""What is in a checkpoint: which tensors are weights, and their values.

Weights are tensors of float32, float16 or bfloat16 with two axes or more, unless their names end as
those of biases, scales or zero points, and weights in MXFP4 and NVFP4 under the names that other
tools give them.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from ..codec.arrays import Float32Array, UInt8Array
from ..units.nvfp4_quantizer import E4M3_VALUES
from ..units.nvfp4_quantizer import GROUP as NVFP4_GROUP
from ..units.nvfp4_quantizer import SCALE_MAX as NVFP4_SCALE_MAX
from .safetensors import BadFile, Reader

BLOCK = 2**20
"""Elements that are read or written at a time, but at least one row."""

GROUP = 32
"""Elements per scale of MXFP4 and M2XFP."""

DTYPES = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16),
          "BF16": np.dtype(ml_dtypes.bfloat16)}
"""Types of values that are quantized, by their names in a file."""

_E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
_LOW_NIBBLE_FIRST = np.arange(0, 8, 4, dtype=np.uint8)

# Endings of names of tensors that are no weights. They have two axes, too, if there are experts or
# blocks of weights.
_NO_WEIGHTS = ("bias", "scale", "scales", "scale_2", "scale_inv", "zero_point")


@dataclass(frozen=True, kw_only=True)
class Weight:
    """A weight in a checkpoint.

    Attributes
    ----------
    name : str
    shape : tuple of int
        Shape (..., K).
    dtype : str
        "F32", "F16", "BF16", "MXFP4" or "NVFP4".
    parts : tuple of str
        Names of the tensors that hold it: the values; or codes, scales and, in NVFP4, the tensor
        scale.
    swizzled : bool
        Whether the scales are 128x4-swizzled.
    note : str
        How the tensors were read.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    parts: tuple[str, ...]
    swizzled: bool = False
    note: str = ""


def weights_of(reader: Reader, *, swizzled: bool = False) -> list[Weight]:
    """Finds the weights in a file.

    Parameters
    ----------
    reader : Reader
    swizzled : bool
        Whether scales of NVFP4 are 128x4-swizzled if their shape does not tell.

    Returns
    -------
    list of Weight

    Raises
    ------
    BadFile
        If tensors that belong together do not fit.
    """
    tensors = reader.tensors
    weights = []
    for name, tensor in tensors.items():
        base = name.removesuffix("_packed")
        if tensor.dtype in DTYPES and len(tensor.shape) >= 2 and not name.endswith(_NO_WEIGHTS):
            if 0 in tensor.shape:
                raise BadFile(f"{reader.path}: {name!a} must have at least one element, "
                              f"not shape {list(tensor.shape)}")
            weights.append(Weight(name=name, shape=tensor.shape, dtype=tensor.dtype,
                                  parts=(name,)))
        elif tensor.dtype == "U8" and name.endswith("_blocks"):
            weights.append(_mxfp4(reader, name))
        elif tensor.dtype == "U8" and (name.endswith(".weight_packed") or (
                name.endswith(".weight") and f"{name}_scale" in tensors
                and tensors[f"{name}_scale"].dtype == "F8_E4M3")):
            weights.append(_nvfp4(reader, name, base, swizzled))
    return weights


def _require(reader, name, dtype, shapes, owner):
    """Raises BadFile unless there is such a tensor."""
    tensor = reader.tensors.get(name)
    shapes = [tuple(shape) for shape in shapes]
    if tensor is None or tensor.dtype != dtype or tensor.shape not in shapes:
        found = "is missing" if tensor is None else f"not {tensor.dtype} {list(tensor.shape)}"
        wanted = " or ".join(str(list(shape)) for shape in dict.fromkeys(shapes))
        raise BadFile(f"{reader.path}: {owner!a} needs {name!a} of {dtype} {wanted}"
                      f"{', ' if tensor else ', which '}{found}")


def _mxfp4(reader, name):
    shape = reader.tensors[name].shape
    if len(shape) < 2 or shape[-1] != GROUP // 2 or 0 in shape:
        raise BadFile(f"{reader.path}: {name!a} must have the shape (..., groups, 16) of MXFP4 "
                      f"with at least one element, not {list(shape)}")
    stem = name.removesuffix("_blocks")
    _require(reader, f"{stem}_scales", "U8", [shape[:-1]], name)
    return Weight(name=stem, shape=(*shape[:-2], shape[-2] * GROUP), dtype="MXFP4",
                  parts=(name, f"{stem}_scales"), note="elements in the low nibble come first")


def _nvfp4(reader, name, base, swizzled):
    tensor = reader.tensors[name]
    if (len(tensor.shape) != 2 or 0 in tensor.shape
            or tensor.shape[1] % (NVFP4_GROUP // 2)):
        raise BadFile(f"{reader.path}: {name!a} must have the shape (N, K / 2) of NVFP4 "
                      f"with K a multiple of {NVFP4_GROUP}, not {list(tensor.shape)}")
    rows, groups = tensor.shape[0], tensor.shape[1] * 2 // NVFP4_GROUP
    linear, padded = (rows, groups), (-(-rows // 128) * 128, -(-groups // 4) * 4)
    _require(reader, f"{base}_scale", "F8_E4M3", [linear, padded], name)
    shape = reader.tensors[f"{base}_scale"].shape
    if linear != padded:
        swizzled = shape == padded
        layout = "padded, so assumed 128x4-swizzled" if swizzled else "row by row, as not padded"
    else:
        layout = ("128x4-swizzled, as the option says" if swizzled
                  else "assumed row by row, as their shape does not tell")

    scales = [s for s in (f"{base}_scale_2", f"{base}_global_scale") if s in reader.tensors]
    if len(scales) != 1:
        raise BadFile(f"{reader.path}: {name!a} needs one of {base + '_scale_2'!a} and "
                      f"{base + '_global_scale'!a}, not {'both' if scales else 'none'}")
    _require(reader, scales[0], "F32", [(), (1,)], name)
    value, = np.frombuffer(reader.read(scales[0]), "<f4")
    if not (np.isfinite(value) and value > 0):
        raise BadFile(f"{reader.path}: {scales[0]!a} must be finite and above 0, not {value}")
    if scales[0].endswith("_2"):
        how = "multiplies (ModelOpt's weight_scale_2)"
    else:
        how = "divides (compressed-tensors' weight_global_scale)"
    return Weight(name=base, shape=(rows, groups * NVFP4_GROUP), dtype="NVFP4",
                  parts=(name, f"{base}_scale", scales[0]), swizzled=swizzled,
                  note=f"scales {layout}; tensor scale {how}; elements in the low nibble first")


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


def blocks(reader: Reader, weight: Weight
           ) -> Iterator[tuple[int, Float32Array, tuple[UInt8Array, UInt8Array] | None]]:
    """Reads a weight some rows at a time.

    Parameters
    ----------
    reader : Reader
    weight : Weight

    Yields
    ------
    start : int
        First row.
    values : float32 array, shape (rows, K)
    kept : tuple of uint8 arrays, or None
        Codes and scales of MXFP4, one per byte.
    """
    *lead, k = weight.shape
    rows, step = math.prod(lead), max(1, BLOCK // k)
    if weight.dtype == "NVFP4":
        scales = _nvfp4_scales(reader, weight)
        tensor_scale = np.float64(np.frombuffer(reader.read(weight.parts[2]), "<f4")[0])
        divides = not weight.parts[2].endswith("_2")

    def part(index: int, width: int) -> UInt8Array:
        data = reader.read(weight.parts[index], start * width, min(start + step, rows) * width)
        return np.frombuffer(data, np.uint8).reshape(-1, width)

    for start in range(0, rows, step):
        if weight.dtype in DTYPES:
            dtype = DTYPES[weight.dtype]
            yield start, part(0, k * dtype.itemsize).view(dtype).astype(np.float32), None
            continue
        codes = part(0, k // 2)[..., None] >> _LOW_NIBBLE_FIRST & np.uint8(15)
        codes = codes.reshape(-1, k)
        if weight.dtype == "MXFP4":
            exponents = part(1, k // GROUP)
            factors = np.ldexp(1.0, exponents.astype(np.int32) - 127)
            factors[exponents == 255] = np.nan
            kept = codes, exponents
        else:
            block = scales[start: start + step]
            factors = np.where(block > NVFP4_SCALE_MAX, np.nan,
                               E4M3_VALUES[np.minimum(block, NVFP4_SCALE_MAX)])
            kept = None
        values = _E2M1[codes].reshape(*factors.shape, -1) * factors[..., None]
        if weight.dtype == "NVFP4":
            # Exact in float64, except a quotient, which is rounded in float64 first.
            values = values / tensor_scale if divides else values * tensor_scale
        with np.errstate(over="ignore"):
            yield start, values.reshape(-1, k).astype(np.float32), kept


def _nvfp4_scales(reader, weight):
    name = weight.parts[1]
    rows, k = weight.shape
    scales = np.frombuffer(reader.read(name), np.uint8).reshape(reader.tensors[name].shape)
    if weight.swizzled:
        scales = linear_scales(scales, rows, k // NVFP4_GROUP)
    if scales.max() > 127:
        raise BadFile(f"{reader.path}: {name!a} must have no negative scales")
    return scales
