"""The quantized tensor and its storage (specification section 2)."""

from dataclasses import dataclass

import numpy as np

from .numbers import check_sizes

KINDS = ("activation", "weight")

ENCODINGS = {"activation": ("elem-em", "sg-em", "mixed", "sg-special"),
             "weight": ("sg-em", "sg-special")}
"""What metadata may mean, by kind; the first is the default."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Quantized:
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
        code less 96, and the two lower ones select the special value.
    shape : tuple of int
        Shape (..., K) of the tensor before K was padded to whole groups.
    group, subgroup : int
        Elements per group and per subgroup.
    encoding : str, optional
        What the metadata mean: "elem-em", the refinement of a subgroup's largest element
        (specification section 3), the default of activations; "sg-em", the factor of a subgroup
        (section 4), the default of weights; "mixed", the first in groups that have code 8, -0,
        in an element that is not its subgroup's top-1, and the second in all others; or
        "sg-special", a factor, while code 8 is a special value (docs/encodings.md).

    Raises
    ------
    TypeError
        If a plane is not a uint8 array.
    ValueError
        If ``kind``, ``encoding`` or a size is not offered, or the planes do not fit ``shape``, or
        hold values above 15 (elements) or 3 (metadata).
    """

    kind: str
    elements: np.ndarray
    metadata: np.ndarray
    scales: np.ndarray
    shape: tuple
    group: int = 32
    subgroup: int = 8
    encoding: str | None = None

    def __post_init__(self):
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

    def pack(self):
        """The three planes as they lie in memory.

        Returns
        -------
        elements, metadata, scales : bytes
            Row by row, each row contiguous along K and filled to a whole byte: two elements per
            byte and four metadata per byte, the first in the least significant bits, and one
            scale per byte.
        """
        return (_pack(self.elements, 4).tobytes(), _pack(self.metadata, 2).tobytes(),
                self.scales.tobytes())

    @classmethod
    def unpack(cls, elements, metadata, scales, *, kind, shape, group=32, subgroup=8,
               encoding=None):
        """Reads what `pack` wrote.

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
            As of the class; the planes do not tell.

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

    def records(self):
        """Group records, as the RTL's streams carry them.

        Returns
        -------
        uint8 array, shape (..., groups, record bytes)
            Little-endian: elements, then metadata, then scale; 18 bytes at the default sizes.
            Where the fields do not fill the last byte (subgroups of 16 or 32), zeros do.
        """
        groups = (*self.scales.shape, -1)
        fields = [(self.elements.reshape(groups), 4), (self.metadata.reshape(groups), 2),
                  (self.scales.reshape(groups), 8)]
        return np.packbits(np.concatenate([_bits(f, width) for f, width in fields], axis=-1),
                           axis=-1, bitorder="little")


def check_quantized(q, name, kind=None, encoding=None):
    """Raises TypeError or ValueError unless ``q`` is a Quantized (of that kind and encoding)."""
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
    """Codes of a byte each, as many to a byte as it holds; rows are filled up."""
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
        # The other bytes are cut off.
        packed[start: start + _BLOCK] = joined
    return packed.reshape(*codes.shape[:-1], -1)


def _unpack(plane, width, length):
    """The first codes of each row of what `_pack` gave."""
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
