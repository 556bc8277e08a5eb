# SPDX-License-Identifier: BSD-2-Clause
"""Codes of elements and scales: tables of their values, encoding and decoding."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..codec.arrays import Float64Array, Int64Array, IntArray, UInt8Array


@dataclass(frozen=True, kw_only=True, eq=False)
class Codec:
    """A set of codes of a few bits, and their values.

    Attributes
    ----------
    name : str
    bits : int
        Width of a code.
    sign : str
        "bit": the uppermost bit is the sign, so that there is a -0. "two": two's complement.
        "none": there are no negative values.
    values : float64 array, shape (2**bits,)
        Value of every code.
    count : int
        Number of finite magnitudes. Their codes are 0 to ``count - 1``.
    nan : int, optional
        The code that NaN is encoded as; the quiet one if there are several.
    """

    name: str
    bits: int
    sign: str
    values: Float64Array
    count: int
    nan: int | None = None

    @property
    def largest(self) -> float:
        """The largest finite value."""
        return float(self.values[self.count - 1])

    @property
    def never_encoded(self) -> dict[int, int]:
        """Codes that `encode` never gives, and by each the code that its value is encoded as.

        These are further codes of NaN, and the lowest code of two's complement, whose value has no
        counterpart above zero.
        """
        others = {}
        if self.nan is not None:
            others = {int(c): self.nan for c in np.flatnonzero(np.isnan(self.values))
                      if c != self.nan}
        if self.sign == "two":
            others[self.count] = self.count + 1
        return others

    def encode(self, v: ArrayLike) -> UInt8Array:
        """Rounds values to codes: to nearest, ties to the even code.

        Values saturate at the largest finite magnitude. An infinity has a code of its own in E5M2;
        elsewhere it saturates, too.

        Parameters
        ----------
        v : float64 array

        Returns
        -------
        uint8 array

        Raises
        ------
        ValueError
            If a value has no code: NaN, or a negative value.
        """
        v = np.asarray(v, np.float64)
        negative = np.signbit(v) & ~np.isnan(v)
        if self.sign == "none" and (negative & (v != 0)).any():
            raise ValueError(f"{self.name} has no code for negative values, "
                             f"not for {v[negative][0]}")
        codes = self.magnitude_codes(np.abs(v))
        if self.sign == "bit":
            infinite = np.flatnonzero(np.isposinf(self.values))
            if len(infinite):
                codes = np.where(np.isinf(v), infinite[0], codes)
            codes = codes | negative << (self.bits - 1)
        elif self.sign == "two":
            codes = np.where(negative, -codes, codes) & 2**self.bits - 1
        if (nan := np.isnan(v)).any():
            if self.nan is None:
                raise ValueError(f"{self.name} has no code for NaN")
            codes = np.where(nan, self.nan, codes)
        return codes.astype(np.uint8)

    def magnitude_codes(self, v: Float64Array) -> Int64Array:
        """Rounds magnitudes to codes without sign."""
        values = self.values[: self.count]
        # A sum of neighbours has one bit more than they have: it is exact.
        points = (values[:-1] + values[1:]) / 2
        # Between two points both searches give the code. At a point they give its two codes.
        below = np.searchsorted(points, v, "left")
        return np.where(below & 1, np.searchsorted(points, v, "right"), below)

    def decode(self, codes: IntArray) -> Float64Array:
        """Values of codes."""
        return self.values[codes]


def _minifloat(name, exponent_bits, mantissa_bits, *, sign, bias, count=None, infinity=False):
    """A floating-point codec with gradual underflow; codes from ``count`` on are not finite."""
    codes = np.arange(2 ** (exponent_bits + mantissa_bits))
    exponent, mantissa = codes >> mantissa_bits, codes & 2**mantissa_bits - 1
    significand = np.where(exponent == 0, mantissa, mantissa + 2**mantissa_bits)
    values = np.ldexp(significand.astype(np.float64),
                      np.maximum(exponent, 1) - bias - mantissa_bits)
    count = len(values) if count is None else count
    nan = count if count < len(values) else None
    values[count:] = np.nan
    if infinity:
        values[count] = np.inf
        nan = count + 2 ** (mantissa_bits - 1)
    if sign == "bit":
        values = np.concatenate([values, -values])
    return Codec(name=name, bits=exponent_bits + mantissa_bits + (sign == "bit"), sign=sign,
                 values=values, count=count, nan=nan)


def _integer(bits, fraction):
    """Two's complement with ``fraction`` bits behind the point."""
    codes = np.arange(2**bits)
    values = np.where(codes < 2 ** (bits - 1), codes, codes - 2**bits) / 2**fraction
    return Codec(name=f"INT{bits}", bits=bits, sign="two", values=values, count=2 ** (bits - 1))


def _fixed(fraction):
    """Sign and magnitude with one bit before the point and ``fraction`` behind it."""
    magnitudes = np.arange(2 ** (fraction + 1)) / 2**fraction
    return Codec(name=f"S1P{fraction}", bits=fraction + 2, sign="bit", count=len(magnitudes),
                 values=np.concatenate([magnitudes, -magnitudes]))


E2M1 = _minifloat("E2M1", 2, 1, sign="bit", bias=1)
E2M3 = _minifloat("E2M3", 2, 3, sign="bit", bias=1)
E3M2 = _minifloat("E3M2", 3, 2, sign="bit", bias=3)
E4M3 = _minifloat("E4M3", 4, 3, sign="bit", bias=7, count=0x7F)
E5M2 = _minifloat("E5M2", 5, 2, sign="bit", bias=15, count=0x7C, infinity=True)
E0M3 = Codec(name="E0M3", bits=4, sign="bit", count=8,
             values=np.concatenate([E2M3.values[24:32], E2M3.values[56:]]))
"""The uppermost binade of E2M3. There is no zero; the exponent is implied."""
INT4 = _integer(4, 0)
INT8 = _integer(8, 6)
"""MXINT8's elements, with six bits behind the point."""
S1P1 = _fixed(1)
S1P2 = _fixed(2)
S1P3 = _fixed(3)

E8M0 = Codec(name="E8M0", bits=8, sign="none", count=255, nan=255,
             values=np.append(np.ldexp(1.0, np.arange(255) - 127), np.nan))
E6M0 = Codec(name="E6M0", bits=6, sign="none", count=64,
             values=np.ldexp(1.0, np.arange(64) - 31))
"""The exponent of Sg-special's scales."""
UE3M3 = _minifloat("UE3M3", 3, 3, sign="none", bias=3, count=0x3F)
UE4M3 = _minifloat("UE4M3", 4, 3, sign="none", bias=7, count=0x7F)
UE5M3 = _minifloat("UE5M3", 5, 3, sign="none", bias=15, count=0xFF)
E6M2 = Codec(name="E6M2", bits=8, sign="none", count=255, nan=255,
             values=np.append(np.ldexp(1 + np.arange(255) % 4 / 4, np.arange(255) // 4 - 48),
                              np.nan))
"""HiF4's scales, without zero and subnormals."""

CODECS = {codec.name: codec
          for codec in (E2M1, E2M3, E3M2, E4M3, E5M2, E0M3, INT4, INT8, S1P1, S1P2, S1P3, E8M0,
                        E6M0, UE3M3, UE4M3, UE5M3, E6M2)}
"""All codecs by name."""
