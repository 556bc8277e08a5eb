# SPDX-License-Identifier: BSD-2-Clause
"""Number formats: codes, rounding and scale rules (specification sections 1 and 5)."""

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import ArrayLike

from .arrays import (
    BoolArray,
    Float32Array,
    Float64Array,
    FloatArray,
    Int8Array,
    Int32Array,
    UInt8Array,
    UInt32Array,
)

GROUPS = (16, 32)
"""Offered group sizes."""

SUBGROUPS = (4, 8, 16, 32)
"""Offered subgroup sizes; a subgroup divides its group."""

SCALE_BIAS = 127
SCALE_MAX = 254
SCALE_NAN = 255

FLOAT32_NAN = np.uint32(0x7FC00000).view(np.float32)
"""The only NaN that any function returns."""

FLOAT_TYPES = tuple(np.dtype(t) for t in (np.float32, np.float16, ml_dtypes.bfloat16))
"""Input types; each is exact in float32."""

FLOATS = {dtype.name: dtype for dtype in FLOAT_TYPES}
"""Input types by name."""

RULES = ("floor", "ceil", "rtn1", "rtn2")
"""Scale rules (specification section 5)."""


def first_mantissa_above(m: float) -> int:
    """Smallest float32 mantissa field whose significand is above the irrational ``m``."""
    return int(np.ceil((m - 1) * 2**23))


SQRT2 = first_mantissa_above(np.sqrt(2.0))
THREE_HALVES_OVER_SQRT2 = first_mantissa_above(1.5 / np.sqrt(2.0))

MANTISSA_LIMITS = {
    "floor": (0x800000, 0),
    "ceil": (0x400001, 0),
    "rtn1": (0x800000, THREE_HALVES_OVER_SQRT2),
    "rtn2": (SQRT2, 0),
    # Sg-threshold's own (section 10): below a significand of 1.375, the factors reach the largest
    # magnitude under the next lower scale.
    "threshold": (0x800000, 0x300000),
    # Of MXFP4 alone (`golden.formats.rules`).
    "even": (0x600000, 0),
    "ceil-log2": (1, 0),
}
"""By rule, two limits of the float32 mantissa field of a group's largest magnitude.

From the first limit on, the scale's exponent is one higher; below the second, it is one lower.
"""

SPECIALS = (5, -5, 8, -8)
"""Values of code 8 in Sg-special, by the two lower bits of a scale byte (section 12)."""

SPECIAL_LIMITS = {5: 0x300000, 8: 0x700000}
"""By the special value's magnitude, a limit of the float32 mantissa field.

Where the field of a group's largest magnitude is below the limit (a significand of 1.375 or 1.875),
the scale is one lower than that of "floor".
"""

SPECIAL_SCALES = (96, 159)
"""Lowest and highest E8M0 code of a scale in Sg-special, whose exponent has six bits."""


@dataclass(frozen=True, kw_only=True)
class SpecialEncoding:
    """An encoding with special values (specification sections 12 and 18).

    Attributes
    ----------
    factors : tuple of float
        Factors of a subgroup by metadata, in ascending order.
    lower : int
        How much lower scale codes are than in Sg-special, as factors go higher.
    most : float
        Magnitudes over the scale count as at most this.
    """

    factors: tuple[float, ...]
    lower: int
    most: float


SPECIAL_ENCODINGS = {
    "sg-special": SpecialEncoding(factors=(1.0, 1.25, 1.5, 1.75), lower=0, most=16.0),
    "sg-special64": SpecialEncoding(factors=(1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5), lower=1,
                                    most=32.0),
}
"""Encodings with special values by name. Their scale bytes are alike."""


def split_scales(scales: UInt8Array) -> tuple[UInt8Array, Int8Array]:
    """Splits scale bytes of Sg-special into scales and special values (specification section 12).

    The six upper bits hold the exponent, the two lower bits select the special value.

    Parameters
    ----------
    scales : uint8 array

    Returns
    -------
    codes : uint8 array
        E8M0 codes; 255 in a NaN group.
    specials : int8 array
        Twice the value of code 8.
    """
    codes = np.where(scales == SCALE_NAN, SCALE_NAN, SPECIAL_SCALES[0] + (scales >> 2))
    return codes.astype(np.uint8), np.array(SPECIALS, np.int8)[scales & 3] * np.int8(2)


def metadata_bits(encoding: str | None) -> int:
    """Metadata bits of a subgroup in an encoding: 3 in Sg-special64, 2 in all others."""
    return 3 if encoding == "sg-special64" else 2


def special_scale_codes(magnitude_bits: UInt32Array, limit: int, lower: int = 0) -> Int32Array:
    """E8M0 codes of groups' scales in Sg-special (specification section 12).

    Parameters
    ----------
    magnitude_bits : uint32 array
        Bits of each group's largest float32 magnitude, finite.
    limit : int
        Where the mantissa field is below this limit, the code is one lower than that of "floor".
    lower : int
        How much lower all codes are, that of `SpecialEncoding`.

    Returns
    -------
    int32 array
        Within `SPECIAL_SCALES`.
    """
    codes = (magnitude_bits >> 23).astype(np.int32) - 2 - lower
    return np.clip(codes - ((magnitude_bits & 0x7FFFFF) < limit), *SPECIAL_SCALES)


def e2m1_integers(codes: ArrayLike) -> Int8Array:
    """Values of E2M1 codes in units of 1/2, as integers from -12 to 12.

    Parameters
    ----------
    codes : uint8 array
        Codes 0 to 15; bit 3 is the sign.

    Returns
    -------
    int8 array
        A code of -0 gives 0.
    """
    magnitudes = np.array([0, 1, 2, 3, 4, 6, 8, 12], np.int8)
    codes = np.asarray(codes)
    return np.where(codes & 8, -magnitudes[codes & 7], magnitudes[codes & 7])


def e2m3_integers(codes: ArrayLike) -> Int8Array:
    """Values of E2M3 codes in units of 1/8, as integers from 0 to 60.

    Parameters
    ----------
    codes : uint8 array
        Codes without sign, 0 to 31.

    Returns
    -------
    int8 array
    """
    codes = np.asarray(codes).astype(np.int8)
    exponents = codes >> 3
    return np.where(exponents == 0, codes, (8 + (codes & 7)) << np.maximum(exponents - 1, 0))


def round_magnitude(v: Float64Array, mantissa: int) -> UInt8Array:
    """Rounds magnitudes to E2M1 or E2M3 codes: to nearest, ties to even, saturating.

    Parameters
    ----------
    v : float64 array
        Magnitudes in units of the scale, not negative.
    mantissa : int
        Mantissa bits, 1 for E2M1 and 3 for E2M3.

    Returns
    -------
    uint8 array
        Codes without sign, 0..7 or 0..31.
    """
    # Within a binade codes count quanta; adding the binade's first code makes them contiguous.
    exponent = np.where(v >= 4, 2, np.where(v >= 2, 1, 0))
    code = np.rint(np.ldexp(v, mantissa - exponent)) + (exponent << mantissa)
    return np.minimum(code, 2 ** (mantissa + 2) - 1).astype(np.uint8)


def scale_codes(magnitude_bits: UInt32Array, rule: str) -> Int32Array:
    """E8M0 scale codes of groups under a scale rule (specification section 5).

    Parameters
    ----------
    magnitude_bits : uint32 array
        Bits of each group's largest float32 magnitude, finite.
    rule : str
        One of `MANTISSA_LIMITS`.

    Returns
    -------
    int32 array
        Codes 0..254.
    """
    exponent = (magnitude_bits >> 23).astype(np.int32)
    mantissa = magnitude_bits & 0x7FFFFF
    up, down = MANTISSA_LIMITS[rule]
    offset = np.where(mantissa >= up, 1, np.where(mantissa < down, -1, 0))
    # A subnormal's exponent field is 0, so that its code is 0 under every offset, as it must be.
    return np.clip(exponent - 2 + offset, 0, SCALE_MAX)


def default_group(encoding: str | None) -> int:
    """Group size of an encoding: 64 in Sg-special64, 32 by default in all others."""
    return 64 if encoding == "sg-special64" else 32


def check_sizes(group: int, subgroup: int, encoding: str | None = None) -> None:
    """Raises ValueError, which names the argument, unless both sizes are offered and fit.

    Sg-special64 has groups of 64 and subgroups of 8 only.
    """
    if encoding == "sg-special64":
        for name, size, only in ("group", group, 64), ("subgroup", subgroup, 8):
            if size != only:
                raise ValueError(f"{name} must be {only} with encoding 'sg-special64', "
                                 f"not {size!r}")
        return
    if group not in GROUPS:
        raise ValueError(f"group must be one of {GROUPS}, not {group!r}")
    if subgroup not in SUBGROUPS:
        raise ValueError(f"subgroup must be one of {SUBGROUPS}, not {subgroup!r}")
    if subgroup > group:
        raise ValueError(f"subgroup must divide group {group}, not {subgroup!r}")


def check_threads(threads: int) -> None:
    """Raises TypeError unless ``threads`` is an integer, and ValueError unless it is positive."""
    if not isinstance(threads, (int, np.integer)):
        raise TypeError(f"threads must be an integer, not {type(threads).__name__}")
    if threads < 1:
        raise ValueError(f"threads must be at least 1, not {threads}")


def check_tensor(x: Any, name: str) -> None:
    """Checks an argument that is to be quantized.

    Parameters
    ----------
    x : object
        The argument.
    name : str
        Its name, for errors.

    Raises
    ------
    TypeError
        If it is not an array of float32, float16 or bfloat16.
    ValueError
        If it has no axis or no element.
    """
    dtype = getattr(x, "dtype", None)
    if not isinstance(x, np.ndarray) or dtype not in FLOAT_TYPES:
        offered = ", ".join(t.name for t in FLOAT_TYPES)
        raise TypeError(f"{name} must be a NumPy array of one of {offered}, "
                        f"not {dtype if dtype is not None else type(x).__name__}")
    if x.ndim == 0 or x.size == 0:
        raise ValueError(f"{name} must have at least one axis and one element, "
                         f"not shape {x.shape}")


def groups_of(x: FloatArray, name: str, group: int) -> Float32Array:
    """Checks a tensor and divides it into groups along its last axis.

    Parameters
    ----------
    x : array of float32, float16 or bfloat16, shape (..., K)
        The tensor. Conversion to float32 is exact.
    name : str
        The argument's name, for errors.
    group : int
        Elements per group; an incomplete last group is padded with +0.

    Returns
    -------
    float32 array, shape (..., ceil(K / group), group)

    Raises
    ------
    TypeError
        If ``x`` is not an array of a supported type.
    ValueError
        If ``x`` has no axis or no element.
    """
    check_tensor(x, name)
    tail = -x.shape[-1] % group
    padded = np.zeros((*x.shape[:-1], x.shape[-1] + tail), np.float32)
    padded[..., : x.shape[-1]] = x
    return padded.reshape(*x.shape[:-1], -1, group)


def finite_groups(groups: Float32Array) -> BoolArray:
    """Tells which groups hold neither NaN nor an infinity.

    Parameters
    ----------
    groups : float32 array, shape (..., group)

    Returns
    -------
    bool array, shape (...)
    """
    return (groups.view(np.uint32) & 0x7FFFFFFF).max(axis=-1) < 0x7F800000
