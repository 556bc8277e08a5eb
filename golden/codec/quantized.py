# SPDX-License-Identifier: BSD-2-Clause
"""Quantized tensors, and how those in M2XFP lie in memory (specification section 13)."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .arrays import UInt8Array
from .numbers import check_sizes

KINDS = ("activation", "weight")
"""Sides of a product."""

ENCODINGS = {"activation": ("elem-em", "sg-em", "mixed", "sg-special"),
             "weight": ("sg-em", "sg-special")}
"""Meanings that metadata may have, by kind; the first is the default."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Blocks:
    """A tensor of codes in groups along the last axis, each group under a scale.

    This is the form of a tensor in any format; `Quantized` is that of M2XFP.

    Attributes
    ----------
    elements : uint8 array, shape (..., Kpad)
        One code per byte.
    scales : uint8 array, shape (..., Kpad / group)
        Code of each group's scale.
    shape : tuple of int
        Shape (..., K) of the tensor before K was padded to whole groups.
    metadata : uint8 array, shape (..., Kpad / subgroup), optional
        Metadata of each subgroup.
    tensor_scale : float32 or float32 array of shape (..., 1), optional
        Factor of every value, or of every value of a row.
    """

    elements: UInt8Array
    scales: UInt8Array
    shape: tuple[int, ...]
    metadata: UInt8Array | None = None
    tensor_scale: np.float32 | NDArray[np.float32] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Quantized(Blocks):
    """A tensor in M2XFP: FP4 codes, metadata and scales, in groups along the last axis.

    Attributes
    ----------
    kind : str
        "activation" or "weight": the side of a product.
    elements : uint8 array, shape (..., Kpad)
        FP4 codes, one per byte.
    metadata : uint8 array, shape (..., Kpad / subgroup)
        Two metadata bits of each subgroup.
    scales : uint8 array, shape (..., Kpad / group)
        E8M0 scale code of each group; 255 is NaN. In Sg-special the six upper bits are the E8M0
        code less 96, and the two lower bits select the special value.
    shape : tuple of int
        Shape (..., K) of the tensor before K was padded to whole groups.
    group, subgroup : int
        Elements per group and per subgroup.
    encoding : str, optional
        Meaning of the metadata. The default is "elem-em" for activations and "sg-em" for weights.

        - "elem-em": the refinement of each subgroup's largest element (specification section 3).
        - "sg-em": the factor of each subgroup (section 4).
        - "mixed": a choice of these two per group, which a code of -0 marks (section 11).
        - "sg-special": the factor of each subgroup, and code 8 is a special value (section 12).

    Raises
    ------
    TypeError
        If a plane is not a uint8 array.
    ValueError
        If ``kind``, ``encoding`` or a size is not offered, or if the planes do not fit ``shape`` or
        hold values above 15 (elements) or 3 (metadata).
    """

    kind: str
    metadata: UInt8Array = field()
    group: int = 32
    subgroup: int = 8
    encoding: str | None = None
    tensor_scale: None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {KINDS}, not {self.kind!r}")
        offered = ENCODINGS[self.kind]
        if self.encoding is None:
            object.__setattr__(self, "encoding", offered[0])
        elif self.encoding not in offered:
            raise ValueError(f"encoding of kind {self.kind!r} must be one of {offered}, "
                             f"not {self.encoding!r}")
        check_sizes(self.group, self.subgroup)
        *lead, k = _checked_shape(self.shape)
        groups = -(-k // self.group)
        for name, limit, length in [
            ("elements", 15, groups * self.group),
            ("metadata", 3, groups * self.group // self.subgroup),
            ("scales", 255, groups),
        ]:
            plane = getattr(self, name)
            if getattr(plane, "dtype", None) != np.uint8:
                raise TypeError(f"{name} must be a uint8 array, "
                                f"not {getattr(plane, 'dtype', type(plane).__name__)}")
            if plane.shape != (*lead, length):
                raise ValueError(f"{name} must have shape {(*lead, length)} "
                                 f"for a tensor of shape {self.shape}, not {plane.shape}")
            if plane.max() > limit:
                raise ValueError(f"{name} must be at most {limit}, not {plane.max()}")

    def pack(self) -> tuple[bytes, bytes, bytes]:
        """Packs the three planes as they lie in memory (specification section 13.1).

        Returns
        -------
        elements, metadata, scales : bytes
            Rows follow each other. Each row is contiguous along K and filled up to a whole byte.
            A byte holds two elements, four metadata or one scale; the first code is in the least
            significant bits.
        """
        return (_pack(self.elements, 4).tobytes(), _pack(self.metadata, 2).tobytes(),
                self.scales.tobytes())

    @classmethod
    def unpack(cls, elements: bytes, metadata: bytes, scales: bytes, *, kind: str,
               shape: tuple[int, ...], group: int = 32, subgroup: int = 8,
               encoding: str | None = None) -> "Quantized":
        """Makes a tensor from the planes that `pack` gave.

        Parameters
        ----------
        elements, metadata, scales : bytes-like
            The three planes.
        kind : str
            "activation" or "weight".
        shape : tuple of int
            Shape (..., K) of the tensor.
        group, subgroup : int
            Elements per group and per subgroup.
        encoding : str, optional
            As in the class; the planes do not tell it.

        Returns
        -------
        Quantized

        Raises
        ------
        ValueError
            If a plane's length does not fit ``shape``, or a size, ``kind`` or ``encoding`` is not
            offered.
        """
        check_sizes(group, subgroup)
        *lead, k = _checked_shape(shape)
        groups = -(-k // group)

        def read(name, plane, bits, length):
            rows = -(-length * bits // 8)
            expected = rows * int(np.prod(lead, dtype=int))
            if len(plane) != expected:
                raise ValueError(f"{name} must hold {expected} bytes "
                                 f"for a tensor of shape {shape}, not {len(plane)}")
            return _unpack(np.frombuffer(plane, np.uint8).reshape(*lead, rows), bits, length)

        return cls(kind=kind, shape=tuple(shape), group=group, subgroup=subgroup,
                   encoding=encoding,
                   elements=read("elements", elements, 4, groups * group),
                   metadata=read("metadata", metadata, 2, groups * group // subgroup),
                   scales=read("scales", scales, 8, groups))

    def records(self) -> UInt8Array:
        """Packs each group into a record, as streams carry it (specification section 13.3).

        Returns
        -------
        uint8 array, shape (..., groups, record bytes)
            Elements, then metadata, then the scale, from the least significant bit of the first
            byte on; 18 bytes at the default sizes. Where the fields do not fill the last byte
            (subgroups of 16 or 32), its upper bits are 0.
        """
        groups = (*self.scales.shape, -1)
        fields = [(self.elements.reshape(groups), 4), (self.metadata.reshape(groups), 2),
                  (self.scales.reshape(groups), 8)]
        return np.packbits(np.concatenate([_bits(f, width) for f, width in fields], axis=-1),
                           axis=-1, bitorder="little")


def check_quantized(q: object, name: str, kind: str | None = None,
                    encoding: str | None = None) -> None:
    """Checks an argument that must be a `Quantized`.

    Parameters
    ----------
    q : object
        The argument.
    name : str
        Its name, for errors.
    kind, encoding : str, optional
        The kind and the encoding that it must have.

    Raises
    ------
    TypeError
        If it is not a Quantized.
    ValueError
        If it has another kind or encoding.
    """
    if not isinstance(q, Quantized):
        raise TypeError(f"{name} must be a Quantized, not {type(q).__name__}")
    if kind is not None and q.kind != kind:
        raise ValueError(f"{name} must be of kind {kind!r}, not {q.kind!r}")
    if encoding is not None and q.encoding != encoding:
        raise ValueError(f"{name} must be of encoding {encoding!r}, not {q.encoding!r}")


def _checked_shape(shape):
    if not (isinstance(shape, tuple) and shape and all(
            isinstance(n, (int, np.integer)) and n >= 1 for n in shape)):
        raise ValueError(f"shape must be a tuple of at least one positive integer, not {shape!r}")
    return shape


def _bits(codes, width):
    """Bits of ``width``-bit codes along the last axis, least significant first."""
    bits = codes[..., None] >> np.arange(width, dtype=np.uint8) & 1
    return bits.reshape(*codes.shape[:-1], -1)


# Bytes that are packed or unpacked at a time.
_BLOCK = 2**16


def _pack(codes, width):
    """Packs codes of ``width`` bits, 8 / ``width`` to a byte; fills up each row."""
    count = 8 // width
    if count == 1:
        return codes
    tail = -codes.shape[-1] % count
    if tail:
        codes = np.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, tail)])
    # Little-endian words of the codes that share a byte: code i comes down from bit 8 * i.
    words = np.ascontiguousarray(codes).reshape(-1).view(f"<u{count}")
    packed = np.empty(words.size, np.uint8)
    for start in range(0, words.size, _BLOCK):
        part = words[start: start + _BLOCK]
        joined = part.copy()
        for i in range(1, count):
            joined |= part >> (8 - width) * i
        # The upper bytes of each word are cut off.
        packed[start: start + _BLOCK] = joined
    return packed.reshape(*codes.shape[:-1], -1)


def _unpack(plane, width, length):
    """Reads the first ``length`` codes of each row from bytes that `_pack` gave."""
    count = 8 // width
    if count == 1:
        return plane.copy()
    packed = plane.reshape(-1)
    words = np.empty(packed.size, f"<u{count}")
    # One code's bits in each byte.
    mask = sum((2**width - 1) << 8 * i for i in range(count))
    for start in range(0, packed.size, _BLOCK):
        part = packed[start: start + _BLOCK].astype(words.dtype)
        spread = part.copy()
        for i in range(1, count):
            spread |= part << (8 - width) * i
        spread &= mask
        words[start: start + _BLOCK] = spread
    codes = words.view(np.uint8).reshape(*plane.shape[:-1], -1)
    return np.ascontiguousarray(codes[..., :length])
