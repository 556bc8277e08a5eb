"""What formats of groups under a scale have in common."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..codec.numbers import FLOAT32_NAN
from .minifloats import Codec


@dataclass(frozen=True, kw_only=True, eq=False)
class Blocks:
    """A tensor in one of the formats.

    Attributes
    ----------
    elements : uint8 array, shape (..., Kpad)
        One code per byte.
    scales : uint8 array, shape (..., Kpad / group)
        Code of each group's scale.
    shape : tuple of int
        Shape (..., K) before K was padded to whole groups.
    metadata : uint8 array, shape (..., Kpad / subgroup), optional
        Metadata of each subgroup.
    tensor_scale : float32, optional
        Multiplies every value.
    """

    elements: np.ndarray
    scales: np.ndarray
    shape: tuple
    metadata: np.ndarray | None = None
    tensor_scale: np.float32 | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Format:
    """A format: what it stores, its encoder and its decoder.

    Attributes
    ----------
    name : str
    group : int
        Elements per scale.
    element : Codec
        Codes of elements. IF4 has INT4, too, MXFP4+ E0M3, RaZeR and Sg-special other special
        values.
    scale : Codec
        Codes of scales, each stored in 8 bits; in what is left some select a special value.
    quantize : callable
        Encodes an array of float32, float16 or bfloat16 of shape (..., K). Options: ``rule`` where
        E2M1 is under E8M0 (specification section 5), but for MXFP4+, ``tensor_scale``, a float32,
        where there is one; MXFP4 and M2XFP have those of the codec, whose other sizes take other
        bits.
    dequantize : callable
        Decodes what ``quantize`` gave, to float32.
    subgroup : int, optional
        Elements per metadata.
    metadata_bits : int
        Bits of metadata per subgroup.
    tensor_scale : bool
        Whether there is a float32 scale per tensor, which does not count as bits per element.
    shared_exponents : int
        Binades by which metadata can raise elements, for which the scale makes room.
    zero_signs : bool
        Whether zeros keep the sign that their codes have.
    special_groups : float64 array, shape (count, group), optional
        Groups, in units of the scale, that have values beside those of ``element``.
    """

    name: str
    group: int
    element: Codec
    scale: Codec
    quantize: Callable
    dequantize: Callable
    subgroup: int | None = None
    metadata_bits: int = 0
    tensor_scale: bool = False
    shared_exponents: int = 0
    zero_signs: bool = True
    special_groups: np.ndarray | None = None

    @property
    def bits_per_element(self):
        """Bits of a group's record per element."""
        metadata = self.metadata_bits / self.subgroup if self.subgroup else 0
        return self.element.bits + 8 / self.group + metadata

    def round_trip(self, x, **options):
        """Values of a tensor after quantization.

        Parameters
        ----------
        x : array of float32, float16 or bfloat16, shape (..., K)
        **options
            Of ``quantize``.

        Returns
        -------
        float32 array
            Of the shape of ``x``.
        """
        return self.dequantize(self.quantize(x, **options))


def assemble(x, codes, scales, bad, nan, *, metadata=None, tensor_scale=None):
    """Blanks NaN groups and flattens the planes of groups to rows along K."""
    def plane(p):
        p = np.where(bad[..., None], 0, p.reshape(*bad.shape, -1))
        return p.astype(np.uint8).reshape(*x.shape[:-1], -1)

    return Blocks(elements=plane(codes), shape=x.shape, tensor_scale=tensor_scale,
                  scales=np.where(bad, nan, scales).astype(np.uint8),
                  metadata=None if metadata is None else plane(metadata))


def scaled_values(q, values, scales):
    """Elements' values times their groups' scales, both float64, as float32 of the original shape.

    The product is exact. A NaN scale makes its group NaN.
    """
    scales = scales.repeat(q.elements.shape[-1] // q.scales.shape[-1], axis=-1)
    with np.errstate(over="ignore", invalid="ignore"):
        result = (values.reshape(q.elements.shape) * scales).astype(np.float32)
    result[np.isnan(scales)] = FLOAT32_NAN
    return np.ascontiguousarray(result[..., : q.shape[-1]])
