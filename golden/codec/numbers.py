"""Number formats: codes, rounding and scale rules (specification sections 1 and 5)."""

import ml_dtypes
import numpy as np

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
"""The same by name."""

RULES = ("floor", "ceil", "rtn1", "rtn2")
"""Scale rules of specification section 5."""


def _first_mantissa_above(m):
    """Smallest float32 mantissa field whose significand is above the irrational ``m``."""
    return int(np.ceil((m - 1) * 2**23))


SQRT2 = _first_mantissa_above(np.sqrt(2.0))
THREE_HALVES_OVER_SQRT2 = _first_mantissa_above(1.5 / np.sqrt(2.0))

MANTISSA_LIMITS = {
    "floor": (0x800000, 0),
    "ceil": (0x400001, 0),
    "rtn1": (0x800000, THREE_HALVES_OVER_SQRT2),
    "rtn2": (SQRT2, 0),
    # Sg-threshold's own: below 1.375 the factors reach the largest magnitude from one lower.
    "threshold": (0x800000, 0x300000),
}
"""By rule, the float32 mantissa field from which on the scale's exponent is one higher, and that
below which it is one lower."""


SPECIALS = (5, -5, 8, -8)
"""What code 8 stands for in Sg-special, by the two low bits of a group's scale byte."""

SPECIAL_LIMITS = {5: 0x300000, 8: 0x700000}
"""By its magnitude, the float32 mantissa field of the largest magnitude below which the scale is
one lower than that of "floor": 1.375 and 1.875."""

SPECIAL_SCALES = (96, 159)
"""Lowest and highest E8M0 code of a scale in Sg-special, whose exponent has six bits."""


def split_scales(scales):
    """What scale bytes of Sg-special hold: an exponent in six bits, and a selector below.

    Parameters
    ----------
    scales : uint8 array

    Returns
    -------
    codes : uint8 array
        E8M0 codes, 255 of a NaN group.
    specials : int8 array
        Twice what code 8 stands for.
    """
    codes = np.where(scales == SCALE_NAN, SCALE_NAN, SPECIAL_SCALES[0] + (scales >> 2))
    return codes.astype(np.uint8), np.array(SPECIALS, np.int8)[scales & 3] * np.int8(2)


def special_scale_codes(magnitude_bits, limit):
    """E8M0 codes of groups' scales in Sg-special.

    Parameters
    ----------
    magnitude_bits : uint32 array
        Bits of each group's largest float32 magnitude, finite.
    limit : int
        Below this mantissa field the code is one lower than that of "floor".

    Returns
    -------
    int32 array
        Within `SPECIAL_SCALES`.
    """
    codes = (magnitude_bits >> 23).astype(np.int32) - 2
    return np.clip(codes - ((magnitude_bits & 0x7FFFFF) < limit), *SPECIAL_SCALES)


def e2m1_integers(codes):
    """Twice the value of E2M1 codes, signed: int8 in -12..12."""
    magnitudes = np.array([0, 1, 2, 3, 4, 6, 8, 12], np.int8)
    codes = np.asarray(codes)
    return np.where(codes & 8, -magnitudes[codes & 7], magnitudes[codes & 7])


def e2m3_integers(codes):
    """Eight times the value of E2M3 magnitude codes 0..31: int8 in 0..60."""
    codes = np.asarray(codes).astype(np.int8)
    exponents = codes >> 3
    return np.where(exponents == 0, codes, (8 + (codes & 7)) << np.maximum(exponents - 1, 0))


def round_magnitude(v, mantissa):
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


def scale_codes(magnitude_bits, rule):
    """E8M0 scale codes of groups under a scale rule.

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
    # A subnormal's exponent field is 0: whatever its offset, it clamps to code 0, as it must.
    return np.clip(exponent - 2 + offset, 0, SCALE_MAX)


def check_sizes(group, subgroup):
    """Raises ValueError, naming the argument, unless both sizes are offered and fit."""
    if group not in GROUPS:
        raise ValueError(f"group must be one of {GROUPS}, not {group!r}")
    if subgroup not in SUBGROUPS:
        raise ValueError(f"subgroup must be one of {SUBGROUPS}, not {subgroup!r}")
    if subgroup > group:
        raise ValueError(f"subgroup must divide group {group}, not {subgroup!r}")


def check_threads(threads):
    """Raises TypeError or ValueError unless it is a number of threads."""
    if not isinstance(threads, (int, np.integer)):
        raise TypeError(f"threads must be an integer, not {type(threads).__name__}")
    if threads < 1:
        raise ValueError(f"threads must be at least 1, not {threads}")


def check_tensor(x, name):
    """Raises TypeError or ValueError, naming the argument, unless a tensor can be quantized."""
    dtype = getattr(x, "dtype", None)
    if not isinstance(x, np.ndarray) or dtype not in FLOAT_TYPES:
        offered = ", ".join(t.name for t in FLOAT_TYPES)
        raise TypeError(f"{name} must be a NumPy array of one of {offered}, "
                        f"not {dtype if dtype is not None else type(x).__name__}")
    if x.ndim == 0 or x.size == 0:
        raise ValueError(f"{name} must have at least one axis and one element, "
                         f"not shape {x.shape}")


def groups_of(x, name, group):
    """Checks a tensor and cuts it into groups along its last axis.

    Parameters
    ----------
    x : array of float32, float16 or bfloat16, shape (..., K)
        Tensor; the other two types are widened to float32, which is exact.
    name : str
        The argument's name, for errors.
    group : int
        Elements per group; a ragged tail is padded with +0.

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
