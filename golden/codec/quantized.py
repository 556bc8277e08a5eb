# SPDX-License-Identifier: BSD-2-Clause
"""Quantized tensors, and how those in M2XFP lie in memory (specification section 13)."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from . import tensor_file
from .arrays import Float32Array, UInt8Array
from .numbers import check_sizes, check_threads, metadata_bits

KINDS = ("activation", "weight")
"""Sides of a product."""

ENCODINGS = {"activation": ("elem-em", "sg-em", "mixed", "sg-special", "sg-special64"),
             "weight": ("sg-em", "sg-special", "sg-special64")}
"""Meanings that metadata may have, by kind; the first is the default."""


DECODERS: dict[str, Callable[..., Float32Array]] = {}
"""By the name of a format, the decoder of its `Blocks`. `golden.formats.catalogue` fills it."""

_PLANES = ("elements", "metadata", "scales")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Blocks:
    """A tensor of codes in groups along the last axis, each group under a scale.

    This is the form of a tensor in any format; `Quantized` is that of M2XFP. Two tensors are equal
    if their format, shape and every code are. ``q[rows, columns]`` is a part of the tensor, which
    shares its memory: the last axis takes slices of whole groups, the others integers and slices.

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
    format : str, optional
        Name of the format, by which `dequantize` finds the decoder.
    """

    elements: UInt8Array
    scales: UInt8Array
    shape: tuple[int, ...]
    metadata: UInt8Array | None = None
    tensor_scale: np.float32 | NDArray[np.float32] | None = None
    format: str | None = None

    def dequantize(self, *, threads: int = 1) -> Float32Array:
        """Decodes the tensor; `golden.dequantize` does the same.

        Parameters
        ----------
        threads : int
            Threads that share the work, at least 1. The result does not depend on it.

        Returns
        -------
        float32 array, shape ``shape``

        Raises
        ------
        TypeError
            If ``threads`` is not an integer.
        ValueError
            If ``threads`` is below 1, if ``format`` is none of `golden.formats.FORMATS`, or if a
            code is larger than those of the format.
        """
        check_threads(threads)
        if not isinstance(self.format, str) or self.format not in DECODERS:
            raise ValueError("format must be the name of a format of golden.formats.FORMATS, "
                             f"not {self.format!r}")
        try:
            return DECODERS[self.format](self, threads=threads)
        except IndexError:
            raise ValueError(f"codes must be those of {self.format}, which has no as large ones"
                             ) from None

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays, as in NumPy: one for each code. `packed_nbytes` has those packed."""
        scale = 0 if self.tensor_scale is None else self.tensor_scale.nbytes
        return scale + sum(plane.nbytes for plane in self._planes().values())

    @property
    def packed_nbytes(self) -> int:
        """Bytes of the packed tensor, as `save` writes it, without the file's header."""
        scale = 0 if self.tensor_scale is None else self.tensor_scale.nbytes
        return scale + sum(prod(plane.shape[:-1]) * -(-plane.shape[-1] * self._bits(name) // 8)
                           for name, plane in self._planes().items())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join([*self._described(), f'shape={self.shape}'])})"

    def _described(self):
        """What the representation says before the shape."""
        return [repr(self.format)]

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        assert isinstance(other, Blocks)
        if self._attributes() != other._attributes():
            return False
        ours, theirs = self._arrays(), other._arrays()
        return ours.keys() == theirs.keys() and all(
            array.shape == theirs[name].shape and array.tobytes() == theirs[name].tobytes()
            for name, array in ours.items())

    # As arrays, which can change, have none.
    __hash__ = None  # type: ignore[assignment]
    # NumPy does not take a tensor for an element: a comparison with an array is False.
    __array_ufunc__ = None

    def _planes(self):
        planes = {name: getattr(self, name) for name in _PLANES}
        return {name: plane for name, plane in planes.items() if plane is not None}

    def _arrays(self):
        """The planes, and the tensor scale as an array."""
        if self.tensor_scale is None:
            return self._planes()
        return self._planes() | {"tensor_scale": np.asarray(self.tensor_scale)}

    def _attributes(self):
        """What decides about the meaning of the planes, by name."""
        return {"format": self.format, "shape": self.shape}

    def _bits(self, name):
        """Bits of a code of a plane in a file: elements of four bits share a byte."""
        return 4 if name == "elements" and self.elements.max() < 16 else 8

    def __getitem__(self, key: Any) -> Self:
        keys = _full(key, len(self.shape))
        group = self.elements.shape[-1] // self.scales.shape[-1]
        columns, k = _whole_groups(keys[-1], self.shape[-1], group)
        lead = tuple(keys[:-1])

        def part(plane):
            count = plane.shape[-1] // self.scales.shape[-1]
            return plane[(*lead, slice(columns.start * count, columns.stop * count))]

        parts = {name: part(plane) for name, plane in self._planes().items()}
        if not parts["scales"].size:
            raise IndexError(f"a slice must hold at least one element, not {key!r} "
                             f"of shape {self.shape}")
        if isinstance(self.tensor_scale, np.ndarray) and self.tensor_scale.ndim:
            parts["tensor_scale"] = self.tensor_scale[lead]
        return replace(self, shape=(*parts["scales"].shape[:-1], k), **parts)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the tensor to a safetensors file, which `load` reads.

        The planes are uint8 tensors named "elements", "metadata" and "scales". Those of M2XFP are
        packed as `Quantized.pack` says. Of other formats, elements of at most four bits are packed
        alike, and all other codes have a byte each. What describes the tensor is JSON under
        "golden" in the file's metadata. An existing file is replaced at the end.

        Parameters
        ----------
        path : path-like

        Raises
        ------
        OSError
            If the file cannot be written.
        ValueError
            If there is something at ``path`` that is not a regular file.
        """
        bits = {name: self._bits(name) for name in self._planes()}
        arrays = self._arrays() | {name: _pack(plane, bits[name])
                                   for name, plane in self._planes().items()}
        tensor_file.write(path, arrays, {"class": type(self).__name__, "bits": bits,
                                         **self._attributes()})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Reads a tensor that `save` wrote.

        Parameters
        ----------
        path : path-like

        Returns
        -------
        Blocks or Quantized
            What the file holds; `Quantized.load` gives a Quantized only.

        Raises
        ------
        ValueError
            If the file is not one that `save` wrote, or if it holds another class.
        OSError
            If it cannot be read.
        """
        arrays, attributes = tensor_file.read(path)
        classes = {kind.__name__: kind for kind in (Blocks, Quantized)}
        try:
            kind = classes[attributes.pop("class")]
            widths = {"shape": tuple(attributes.pop("shape")), **attributes}
            bits = widths.pop("bits")
            *lead, _ = widths["shape"]
            planes = {}
            for name, width in bits.items():
                if width not in (2, 3, 4, 8) or arrays[name].dtype != np.uint8:
                    raise ValueError(f"{name} of {width} bits")
                planes[name] = _unpack(arrays[name], width, arrays[name].shape[-1] * 8 // width)
            if set(arrays) - set(bits) - {"tensor_scale"}:
                raise ValueError(f"tensors {sorted(arrays)}")
            if "tensor_scale" in arrays:
                scale = arrays["tensor_scale"]
                planes["tensor_scale"] = scale if scale.ndim else scale[()]
            q = kind._made(widths, planes)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise ValueError(f"{os.fspath(path)} does not hold a quantized tensor: "
                             f"{type(error).__name__}, {str(error)[:100]}") from None
        if not isinstance(q, cls):
            raise ValueError(f"{os.fspath(path)} holds a tensor in {q.format!r}, "
                             f"which {cls.__name__}.load does not read")
        return q

    @classmethod
    def _made(cls, attributes, planes):
        """A tensor from what a file holds."""
        q = cls(**attributes, **planes)
        groups = q.scales.shape[-1]
        if not _checked_shape(q.shape) or any(
                plane.shape[:-1] != q.shape[:-1] or plane.shape[-1] % groups
                for plane in q._planes().values()):
            raise ValueError("planes that do not fit the shape")
        group = q.elements.shape[-1] // groups
        if groups != -(-q.shape[-1] // group):
            raise ValueError("planes that do not fit the shape")
        return q


def _full(key, axes):
    """The indices of all axes, each an integer or a slice."""
    keys = list(key) if isinstance(key, tuple) else [key]
    for k in keys:
        if isinstance(k, (bool, np.bool_)) or not (
                k is Ellipsis or isinstance(k, (int, np.integer, slice))):
            raise TypeError(f"an index must be an integer or a slice, not {k!r}")
    dots = [i for i, k in enumerate(keys) if k is Ellipsis]
    if len(dots) > 1 or len(keys) - len(dots) > axes:
        raise IndexError(f"a tensor of {axes} axes takes at most {axes} indices, not {key!r}")
    place = dots[0] if dots else len(keys)
    keys[place: place + len(dots)] = [slice(None)] * (axes - len(keys) + len(dots))
    return keys


def _whole_groups(key, k, group):
    """Groups that a slice of the last axis of length ``k`` has, and how many elements they hold."""
    if not isinstance(key, slice):
        raise TypeError(f"the last axis takes slices of whole groups of {group}, not {key!r}")
    start, stop, step = key.indices(k)
    if step != 1 or start % group or (stop % group and stop != k):
        raise ValueError(f"a slice of the last axis must begin and end between groups of {group} "
                         f"and have step 1, not {key}")
    stop = max(start, stop)
    return slice(start // group, -(-stop // group)), stop - start


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Quantized(Blocks):
    """A tensor in M2XFP: FP4 codes, metadata and scales, in groups along the last axis.

    Attributes
    ----------
    kind : str
        "activation" or "weight": the side of a product.
    elements : uint8 array, shape (..., Kpad)
        FP4 codes, one per byte.
    metadata : uint8 array, shape (..., Kpad / subgroup)
        Two metadata bits of each subgroup, three in Sg-special64.
    scales : uint8 array, shape (..., Kpad / group)
        E8M0 scale code of each group; 255 is NaN. With special values the six upper bits are the
        E8M0 code less 96, and the two lower bits select the special value.
    shape : tuple of int
        Shape (..., K) of the tensor before K was padded to whole groups.
    group, subgroup : int
        Elements per group and per subgroup; 64 and 8 in Sg-special64.
    encoding : str, optional
        Meaning of the metadata. The default is "elem-em" for activations and "sg-em" for weights.

        - "elem-em": the refinement of each subgroup's largest element (specification section 3).
        - "sg-em": the factor of each subgroup (section 4).
        - "mixed": a choice of these two per group, which a code of -0 marks (section 11).
        - "sg-special": the factor of each subgroup, and code 8 is a special value (section 12).
        - "sg-special64": the same with wider factors and groups of 64 (section 18).

    Raises
    ------
    TypeError
        If a plane is not a uint8 array.
    ValueError
        If ``kind``, ``encoding`` or a size is not offered, or if the planes do not fit ``shape`` or
        hold values above 15 (elements) or 3 (metadata; 7 in Sg-special64).
    """

    kind: str
    metadata: UInt8Array = field()
    group: int = 32
    subgroup: int = 8
    encoding: str | None = None
    tensor_scale: None = field(default=None, init=False)
    format: None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {KINDS}, not {self.kind!r}")
        offered = ENCODINGS[self.kind]
        if self.encoding is None:
            object.__setattr__(self, "encoding", offered[0])
        elif self.encoding not in offered:
            raise ValueError(f"encoding of kind {self.kind!r} must be one of {offered}, "
                             f"not {self.encoding!r}")
        check_sizes(self.group, self.subgroup, self.encoding)
        *lead, k = _checked_shape(self.shape)
        groups = -(-k // self.group)
        for name, limit, length in [
            ("elements", 15, groups * self.group),
            ("metadata", 2 ** metadata_bits(self.encoding) - 1,
             groups * self.group // self.subgroup),
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

    def dequantize(self, *, threads: int = 1) -> Float32Array:
        """Decodes the tensor as `golden.dequantize` does."""
        from .blocked import decode

        check_threads(threads)
        return decode(self, threads)

    def _described(self):
        return [self.kind, self.encoding, f"group={self.group}", f"subgroup={self.subgroup}"]

    def _attributes(self):
        return {"kind": self.kind, "encoding": self.encoding, "shape": self.shape,
                "group": self.group, "subgroup": self.subgroup}

    def _bits(self, name):
        return {"elements": 4, "metadata": metadata_bits(self.encoding), "scales": 8}[name]

    @classmethod
    def _made(cls, attributes, planes):
        groups = -(-attributes["shape"][-1] // attributes["group"])
        # Without what fills up the last byte of a row.
        count = groups * attributes["group"] // attributes["subgroup"]
        return cls(**attributes, **planes | {"metadata": planes["metadata"][..., :count]})

    def pack(self) -> tuple[bytes, bytes, bytes]:
        """Packs the three planes as they lie in memory (specification section 13.1).

        Returns
        -------
        elements, metadata, scales : bytes
            Rows follow each other. Each row is contiguous along K and filled up to a whole byte.
            A byte holds two elements, four metadata or one scale; the first code is in the least
            significant bits. In Sg-special64 three bytes hold eight metadata.
        """
        return (_pack(self.elements, 4).tobytes(),
                _pack(self.metadata, metadata_bits(self.encoding)).tobytes(),
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
        check_sizes(group, subgroup, encoding)
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
                   metadata=read("metadata", metadata, metadata_bits(encoding),
                                 groups * group // subgroup),
                   scales=read("scales", scales, 8, groups))

    def records(self) -> UInt8Array:
        """Packs each group into a record, as streams carry it (specification section 13.3).

        Returns
        -------
        uint8 array, shape (..., groups, record bytes)
            Elements, then metadata, then the scale, from the least significant bit of the first
            byte on; 18 bytes at the default sizes, 36 in Sg-special64. Where the fields do not fill
            the last byte (subgroups of 16 or 32), its upper bits are 0.
        """
        groups = (*self.scales.shape, -1)
        fields = [(getattr(self, name).reshape(groups), self._bits(name)) for name in _PLANES]
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
    """Packs codes of ``width`` bits, the first one lowest; fills up each row to a whole byte."""
    if width == 3:
        return np.packbits(_bits(codes, 3), axis=-1, bitorder="little")
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
    if width == 3:
        bits = np.unpackbits(plane, axis=-1, count=3 * length, bitorder="little")
        places = np.arange(3, dtype=np.uint8)
        return (bits.reshape(*plane.shape[:-1], length, 3) << places).sum(-1, dtype=np.uint8)
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
