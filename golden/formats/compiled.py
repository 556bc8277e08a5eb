# SPDX-License-Identifier: BSD-2-Clause
"""The compiled kernel's tables: how it encodes and decodes the formats of the catalogue.

The kernel knows two kinds of formats. What they are is told by the tables of this module, which are
made from the formats' codecs: `Scaled` has elements under a power of two, `FloatScaled` groups of
16 under a floating-point scale and a tensor scale. The results are, bit for bit, those of the
formats' own encoders and decoders, which are easier to read.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..codec.arrays import BoolArray, Float32Array, Float64Array, UInt8Array
from ..codec.blocked import address
from .minifloats import E2M1, E8M0, INT4, Codec
from .rules import limits

Planes = tuple[UInt8Array, UInt8Array | None, UInt8Array]
"""Elements, metadata and scales of some groups, a row for each."""

ONE = np.float32(1)

NO_METADATA, PAIRS, INDEX = range(3)
"""The kernel's numbers of what metadata mean."""


class _Element(ctypes.Structure):
    """An element format, as kernel.c declares it."""

    _fields_ = [("mantissa", ctypes.c_int), ("low", ctypes.c_uint32), ("high", ctypes.c_uint32),
                ("largest", ctypes.c_int32), ("sign", ctypes.c_int)]


class _Choice(ctypes.Structure):
    """A way to encode a group, as kernel.c declares it."""

    _fields_ = [("top", ctypes.c_double), ("bias", ctypes.c_int), ("numerator", ctypes.c_double),
                ("denominator", ctypes.c_double), ("points", ctypes.c_double * 7),
                ("rises", ctypes.c_double * 7), ("special", ctypes.c_double),
                ("low", ctypes.c_double), ("high", ctypes.c_double), ("negative", ctypes.c_int),
                ("complement", ctypes.c_int), ("selector", ctypes.c_int)]


class _Scale(ctypes.Structure):
    """A scale format, as kernel.c declares it."""

    _fields_ = [("bias", ctypes.c_int), ("last", ctypes.c_int), ("least", ctypes.c_int),
                ("nan", ctypes.c_int), ("unit", ctypes.c_double), ("values", ctypes.c_void_p)]


class Scaled:
    """Elements under a power of two.

    Parameters
    ----------
    element : Codec
        A minifloat, a fixed-point number, or an integer of eight bits.
    emax : int
        The exponent that a group's largest magnitude has in units of its scale.
    group : int
        Elements per scale.
    kind : int
        `NO_METADATA`, `PAIRS` or `INDEX`.
    """

    def __init__(self, element: Codec, emax: int, *, group: int = 32, kind: int = NO_METADATA
                 ) -> None:
        finite = element.values[: element.count]
        # The lowest binade has the quantum of the first code; its exponent is that of the first
        # code whose distance to the next differs, or else the highest.
        quantum = finite[1]
        differing = np.flatnonzero(np.diff(finite) != quantum)
        fixed = not len(differing)
        lowest = np.log2(finite[-1 if fixed else differing[0]])
        low = int(np.floor(lowest)) if fixed else int(lowest) - 1
        mantissa = low - int(np.log2(quantum))
        self.element, self.kind, self.group, self.emax = element, kind, group, emax
        field = 127 + low << 23
        self._element = _Element(mantissa, field, field if fixed else 254 << 23, element.count - 1,
                                 8 if element.sign == "two" else element.bits - 1)
        self._values = element.values.astype(np.float32)
        self._factors = E8M0.values.astype(np.float32)
        # A float32 with these exponent and mantissa bits is a minifloat times 2**(its bias - 127).
        self._shift = 0 if fixed else 23 - mantissa
        self._unit = 2.0 ** (126 + low)
        self._last = element.count - 1
        self._sign = element.bits - 1

    def encode(self, library: ctypes.CDLL, x: Float32Array, out: Planes, *, rule: str = "floor"
               ) -> BoolArray | None:
        """Encodes groups; ``out`` is overwritten."""
        elements, metadata, scales = out
        assert metadata is not None or self.kind == NO_METADATA
        library.encode_scaled(address(x), len(x), self.group, ctypes.byref(self._element),
                              self.emax, *limits(rule, self.element), self.kind,
                              *map(address, (elements, metadata, scales)))
        return None

    def decode(self, library: ctypes.CDLL, planes: Planes, out: Float32Array,
               tensor_scale: None = None) -> None:
        """Decodes groups; ``out`` is overwritten."""
        library.decode_scaled(*map(address, planes), len(out), self.group, self.kind,
                              address(self._values), address(self._factors), self._shift,
                              self._last, self._unit, self._sign, address(out))


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A way to encode a group under a floating-point scale.

    Attributes
    ----------
    top : float
        The scale has the group's largest magnitude here.
    bias : int
        What is added to the scale's code.
    element : Codec
        E2M1 or INT4.
    ratio : tuple of int
        Elements encode magnitudes times the first over the second of these.
    weight : int
        The error counts the element's value, in units of its quantum, this many times.
    special : float
        The value of code 8, of either sign; 0 if there is none.
    selector : int
        Bits beside the scale's code that tell this choice.
    """

    top: float
    bias: int = 0
    element: Codec = E2M1
    ratio: tuple[int, int] = (1, 1)
    weight: int = 1
    special: float = 0
    selector: int = 0

    def _structure(self) -> _Choice:
        values = self.element.values[:8]
        points, rises = (values[:-1] + values[1:]) / 2, np.diff(values) / values[1] * self.weight
        magnitude = abs(self.special)
        # Between 4 and 6, or above 6.
        low, high = (4.5, 5.5) if magnitude == 5 else ((6 + magnitude) / 2, np.inf)
        return _Choice(self.top, self.bias, *self.ratio, tuple(points), tuple(rises),
                       2 * magnitude, low, high, self.special < 0, self.element is INT4,
                       self.selector)


class FloatScaled:
    """Groups of 16 under a floating-point scale and a tensor scale.

    Parameters
    ----------
    scale : Codec
        UE3M3, UE4M3 or UE5M3.
    choices : sequence of Choice
        The one of the least squared error is taken; ties go to the first one.
    unit : float
        Errors are counted in the tensor scale over this.
    least : int
        The lowest code of a scale whose group is not zero.
    tables : sequence of (float64 array of 16, float)
        By the bits beside the scale's code, values of all codes and what they are divided by.
    """

    def __init__(self, scale: Codec, choices: Sequence[Choice], *, unit: float = 1, least: int = 0,
                 tables: Sequence[tuple[Float64Array, float]] = ((E2M1.values, 1),)) -> None:
        self._scale = scale
        self._values = np.ascontiguousarray(scale.values)
        one = int(np.flatnonzero(scale.values == 1)[0])
        assert scale.nan is not None
        self._format = _Scale(one >> 3, scale.count - 1, least, scale.nan, scale.values[1],
                              address(self._values))
        self._choices = (_Choice * len(choices))(*(choice._structure() for choice in choices))
        self._unit = unit
        self._tables = np.array([values for values, _ in tables], np.float64)
        self._divisors = np.array([divisor for _, divisor in tables], np.float64)
        self.selectors = len(tables)
        codes = np.arange(256)
        self._selected = (codes >> scale.bits).astype(np.uint8)
        self._decoded = scale.decode(codes & 2**scale.bits - 1)

    def encode(self, library: ctypes.CDLL, x: Float32Array, out: Planes, *,
               tensor_scale: np.float32 = ONE) -> BoolArray | None:
        """Encodes groups; ``out`` is overwritten, but for metadata.

        Returns
        -------
        bool array, shape (groups,)
            Groups whose choices rounding could confuse. The caller encodes them by other means.
        """
        elements, _, scales = out
        undecided = np.empty(len(x), np.bool_)
        library.encode_float_scaled(address(x), len(x), float(tensor_scale), self._unit,
                                    ctypes.byref(self._format), ctypes.byref(self._choices),
                                    len(self._choices), address(elements), address(scales),
                                    address(undecided))
        return undecided

    def decode(self, library: ctypes.CDLL, planes: Planes, out: Float32Array,
               tensor_scale: np.float32) -> None:
        """Decodes groups; ``out`` is overwritten."""
        elements, _, scales = planes
        factors = self._decoded * float(tensor_scale)
        library.decode_float_scaled(address(elements), address(scales), len(out), address(factors),
                                    address(self._selected), address(self._tables),
                                    address(self._divisors), address(out))
