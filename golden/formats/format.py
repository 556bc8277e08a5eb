# SPDX-License-Identifier: BSD-2-Clause
"""The interface of all formats, and arithmetic that they share."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..codec.arrays import BoolArray, Float32Array, Float64Array, FloatArray
from ..codec.blocked import address, decoded, each_group, group_rows, library_for
from ..codec.numbers import FLOAT32_NAN, check_tensor, check_threads
from ..codec.quantized import Blocks, Quantized
from ..units.nvfp4_quantizer import TENSOR_SCALE_MIN
from .compiled import FloatScaled, Scaled
from .minifloats import Codec


@dataclass(frozen=True, kw_only=True, eq=False)
class Format:
    """A format: what it stores, its encoder and its decoder.

    Attributes
    ----------
    name : str
    group : int
        Elements per scale.
    element : Codec
        Codes of elements. IF4 also has INT4, MXFP4+ also E0M3; RaZeR and Sg-special have further
        special values.
    scale : Codec
        Codes of scales. Each is stored in 8 bits; some formats select a special value in spare
        bits.
    encoder : callable
        Encodes an array in NumPy as `quantize` does, without naming the format.
    decoder : callable
        Decodes such `Blocks` to a float32 array.
    compiled : Scaled or FloatScaled, optional
        Does the same in the compiled kernel.
    whole : bool
        Whether ``encoder`` is fast itself, and takes threads.
    subgroup : int, optional
        Elements per subgroup.
    metadata_bits : int
        Bits of metadata per subgroup.
    tensor_scale : bool
        Whether there is a float32 scale per tensor, which does not count as bits per element.
    shared_exponents : int
        Binades by which metadata can raise elements. The scale leaves room for them.
    zero_signs : bool
        Whether zeros keep their sign.
    special_groups : float64 array, shape (count, group), optional
        Groups, in units of the scale, with values that ``element`` does not have.
    """

    name: str
    group: int
    element: Codec
    scale: Codec
    encoder: Callable[..., Any]
    decoder: Callable[..., Float32Array]
    subgroup: int | None = None
    metadata_bits: int = 0
    tensor_scale: bool = False
    shared_exponents: int = 0
    zero_signs: bool = True
    special_groups: Float64Array | None = None
    compiled: Scaled | FloatScaled | None = None
    whole: bool = False

    @property
    def bits_per_element(self) -> float:
        """Bits of a group's record over its elements."""
        metadata = self.metadata_bits / self.subgroup if self.subgroup else 0
        return self.element.bits + 8 / self.group + metadata

    def quantize(self, x: FloatArray, *, threads: int = 1, **options: Any) -> Any:
        """Quantizes a tensor, some rows at a time.

        Parameters
        ----------
        x : array of float32, float16 or bfloat16, shape (..., K)
        threads : int
            Threads that share the work, at least 1. The result does not depend on it.
        **options
            ``rule`` in MXFP4, MXFP6, MXFP8 and MXINT8 (`golden.formats.rules`), and in M2XFP and
            its design space (specification section 5); ``tensor_scale``, a float32, where there is
            a tensor scale. MXFP4 and M2XFP take the options of the codec; with other sizes they
            have other bits per element than is said here.

        Returns
        -------
        Blocks or Quantized
            A Quantized in the formats of M2XFP.
        """
        if self.whole:
            q = self.encoder(x, threads=threads, **options)
        else:
            check_threads(threads)
            check_tensor(x, "x")
            # A tensor scale per row has no groups that can be told from each other.
            per_row = np.ndim(options.get("tensor_scale", 0)) > 0
            q = (self.encoder(x, **options) if per_row
                 else self._encoded(x, threads, options))
        return q if isinstance(q, Quantized) else replace(q, format=self.name)

    def _encoded(self, x, threads, options):
        library = library_for(x.size) if self.compiled else None
        largest = 0.0
        if self.tensor_scale and options.get("tensor_scale") is None:
            largest = _largest_finite(x, self.group, library_for(x.size))
        # One group tells what planes there are, the tensor scale, and which option is wrong.
        first = self.encoder(np.full((1, self.group), largest, np.float32), **options)
        if self.tensor_scale:
            options = {**options, "tensor_scale": first.tensor_scale}
            if not TENSOR_SCALE_MIN <= first.tensor_scale < np.inf:
                library = None
        groups = prod(x.shape[:-1]) * -(-x.shape[-1] // self.group)
        planes = [None if plane is None else np.empty((groups, plane.size), np.uint8)
                  for plane in (first.elements, first.metadata, first.scales)]

        def work(part, values):
            out = tuple(None if plane is None else plane[part] for plane in planes)
            rows: Any = slice(None)
            if library is not None:
                rows = self.compiled.encode(library, values, out, **options)
                if rows is None or not rows.any():
                    return
                values = values[rows]
            # Of a NaN that signals.
            with np.errstate(invalid="ignore"):
                q = self.encoder(values, **options)
            for plane, given in zip(out, (q.elements, q.metadata, q.scales), strict=True):
                if plane is not None:
                    plane[rows] = given

        each_group(work, x, self.group, threads, compiled=library is not None)
        elements, metadata, scales = (
            None if plane is None else plane.reshape(*x.shape[:-1], -1) for plane in planes)
        return replace(first, elements=elements, metadata=metadata, scales=scales, shape=x.shape)

    def dequantize(self, q: Any, *, threads: int = 1) -> Float32Array:
        """Decodes what `quantize` gave, some rows at a time.

        Parameters
        ----------
        q : Blocks or Quantized
        threads : int
            As in `quantize`.

        Returns
        -------
        float32 array, shape ``q.shape``

        Raises
        ------
        ValueError
            If the planes do not fit the shape, or an element or a scale has more bits than the
            format.
        """
        if isinstance(q, Quantized):
            return self.decoder(q, threads=threads)
        check_threads(threads)
        self._check_planes(q)
        for name, plane, limit in [("elements", q.elements, 2**self.element.bits), (
                "scales", q.scales, self._scales)]:
            if plane.max() >= limit:
                raise ValueError(f"{name} must be below {limit} in {self.name}, not {plane.max()}")
        if np.ndim(q.tensor_scale):
            return self.decoder(q)
        group = q.elements.shape[-1] // q.scales.shape[-1]
        planes = [None if plane is None else group_rows(plane, q.scales.size)
                  for plane in (q.elements, q.metadata, q.scales)]
        library = None
        if self.compiled and group == self.group:
            library = library_for(prod(q.shape))

        def work(part, out):
            some = tuple(None if plane is None else plane[part] for plane in planes)
            if library is not None:
                self.compiled.decode(library, some, out, q.tensor_scale)
            else:
                elements, metadata, scales = some
                out[...] = self.decoder(replace(q, elements=elements, metadata=metadata,
                                                scales=scales, shape=out.shape))

        return decoded(work, q.shape, group, threads, compiled=library is not None)

    def _check_planes(self, q):
        """Raises ValueError unless the planes have the sizes that the kernel and NumPy rely on."""
        group = q.elements.shape[-1] // q.scales.shape[-1]
        widths = {"elements": group, "scales": 1}
        if self.metadata_bits:
            assert self.subgroup is not None
            widths["metadata"] = group // self.subgroup
        lead, groups = q.shape[:-1], -(-q.shape[-1] // max(group, 1))
        for name, width in widths.items():
            plane = getattr(q, name)
            if getattr(plane, "dtype", None) != np.uint8 or plane.shape != (*lead, groups * width):
                given = getattr(plane, "shape", None)
                raise ValueError(f"{name} must be uint8 of shape {(*lead, groups * width)} for a "
                                 f"tensor of shape {q.shape} in {self.name}, not of {given}")

    @property
    def _scales(self):
        """How many scale bytes there are, with the selectors beside the code."""
        if isinstance(self.compiled, FloatScaled):
            return self.compiled.selectors << self.scale.bits
        return 256

    def round_trip(self, x: FloatArray, **options: Any) -> Float32Array:
        """Quantizes and dequantizes a tensor.

        Parameters
        ----------
        x : array of float32, float16 or bfloat16, shape (..., K)
        **options
            Options of ``quantize``.

        Returns
        -------
        float32 array
            Of the shape of ``x``.
        """
        return self.dequantize(self.quantize(x, **options))


def _largest_finite(x, group, library):
    """The largest magnitude that is finite; 0 if none is."""
    found = [np.uint32(0)]

    def work(part, values):
        if library is not None:
            found.append(np.uint32(library.largest_finite(address(values), values.size)))
        else:
            bits = values.view(np.uint32) & np.uint32(0x7FFFFFFF)
            bits[bits >= 0x7F800000] = 0
            found.append(bits.max())

    each_group(work, x, group, 1, compiled=library is not None)
    return max(found).view(np.float32)


def assemble(x: FloatArray, codes: NDArray[Any], scales: NDArray[Any], bad: BoolArray,
             nan: Any, *, metadata: NDArray[Any] | None = None,
             tensor_scale: np.float32 | None = None, format: str | None = None) -> Blocks:
    """Clears NaN groups and flattens the planes of groups to rows along K.

    Parameters
    ----------
    x : array, shape (..., K)
        The tensor that was encoded.
    codes : int array, shape (..., groups, group)
        Elements.
    scales : int array, shape (..., groups)
    bad : bool array, shape (..., groups)
        Which groups are NaN.
    nan : int
        The scale's code of NaN.
    metadata : int array, shape (..., groups, subgroups), optional
    tensor_scale : float32, optional
    format : str, optional
        Name of the format.
    """
    def plane(p):
        p = np.where(bad[..., None], 0, p.reshape(*bad.shape, -1))
        return p.astype(np.uint8).reshape(*x.shape[:-1], -1)

    return Blocks(elements=plane(codes), shape=x.shape, tensor_scale=tensor_scale, format=format,
                  scales=np.where(bad, nan, scales).astype(np.uint8),
                  metadata=None if metadata is None else plane(metadata))


def scaled_values(q: Blocks, values: Float64Array, scales: Float64Array) -> Float32Array:
    """Multiplies elements by their groups' scales.

    Parameters
    ----------
    q : Blocks
    values : float64 array, shape of ``q.elements``
        Values of elements in units of the scale.
    scales : float64 array, shape of ``q.scales``
        A NaN makes its group NaN.

    Returns
    -------
    float32 array, shape ``q.shape``
        Each product is exact in float64 and rounded once.
    """
    scales = scales.repeat(q.elements.shape[-1] // q.scales.shape[-1], axis=-1)
    with np.errstate(over="ignore", invalid="ignore"):
        result = (values.reshape(q.elements.shape) * scales).astype(np.float32)
    result[np.isnan(scales)] = FLOAT32_NAN
    return np.ascontiguousarray(result[..., : q.shape[-1]])
