# SPDX-License-Identifier: BSD-2-Clause
"""The interface of all formats, and arithmetic that they share."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..codec.arrays import BoolArray, Float32Array, Float64Array, FloatArray
from ..codec.numbers import FLOAT32_NAN
from ..codec.quantized import Blocks, Quantized
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
        Encodes an array as `quantize` does, without naming the format.
    decoder : callable
        Decodes such `Blocks` to a float32 array.
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

    @property
    def bits_per_element(self) -> float:
        """Bits of a group's record over its elements."""
        metadata = self.metadata_bits / self.subgroup if self.subgroup else 0
        return self.element.bits + 8 / self.group + metadata

    def quantize(self, x: FloatArray, **options: Any) -> Any:
        """Quantizes a tensor.

        Parameters
        ----------
        x : array of float32, float16 or bfloat16, shape (..., K)
        **options
            ``rule`` where E2M1 is under E8M0 (specification section 5) except in MXFP4+, and
            ``tensor_scale``, a float32, where there is a tensor scale. MXFP4 and M2XFP take the
            options of the codec; with other sizes they have other bits per element than is said
            here.

        Returns
        -------
        Blocks or Quantized
            A Quantized in the formats of M2XFP.
        """
        q = self.encoder(x, **options)
        return q if isinstance(q, Quantized) else replace(q, format=self.name)

    def dequantize(self, q: Any) -> Float32Array:
        """Decodes what `quantize` gave.

        Parameters
        ----------
        q : Blocks or Quantized

        Returns
        -------
        float32 array, shape ``q.shape``
        """
        return self.decoder(q)

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
