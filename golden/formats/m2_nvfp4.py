# SPDX-License-Identifier: BSD-2-Clause
"""NVFP4 with M2XFP's metadata: two bits per subgroup of a group of 16."""

from functools import partial

import numpy as np

from ..units.nvfp4_quantizer import GROUP
from .design_space import (
    SG_EM_FACTORS,
    check_subgroup,
    dequantize_elem_em,
    dequantize_sg,
    refine,
    refined,
    signed,
)
from .float_scale import (
    chosen,
    e2m1_doubled,
    group_scales,
    least_error,
    neighbours,
    over,
    scale_integers,
    scaled,
)
from .format import Format, assemble
from .minifloats import E2M1, UE4M3


def _scales(q):
    return UE4M3.decode(q.scales) * float(q.tensor_scale)


def _encode_elem_em(v, scales, t):
    """Codes, metadata and, in units of t / (8 * 512), values of subgroups (..., n, subgroup)."""
    steps = (UE4M3.decode(scales) * t)[..., None, None]
    codes, metadata = refine(over(v, steps))
    values = (8 * refined(codes, metadata)).astype(np.int64)
    return codes, metadata, values * scale_integers(scales)[..., None, None]


def _encode_sg_em(v, scales, t):
    """The same in Sg-EM."""
    steps = (UE4M3.decode(scales) * t)[..., None, None]
    codes = np.stack([E2M1.magnitude_codes(over(4 * v, k * steps)) for k in range(4, 8)])
    values = e2m1_doubled(codes) * np.arange(4, 8).reshape(4, *[1] * v.ndim)
    values *= scale_integers(scales)[..., None, None]
    metadata = least_error(v, t, values, 8 * 512)
    return chosen(codes, metadata).astype(np.uint8), metadata, chosen(values, metadata)


def _quantize(x, *, encode, subgroup, adaptive, tensor_scale=None):
    groups, v, bad, tensor_scale, t = scaled(x, tensor_scale, 6 * UE4M3.largest)
    start, _ = group_scales(v, t, UE4M3, 6)
    scales = start[None]
    if adaptive:
        # In ascending order. Below the smallest scale all is 0, which is never better.
        scales = neighbours(start, (-1, 0, 1))
    codes, metadata, values = map(np.stack, zip(*(
        encode(v.reshape(*start.shape, -1, subgroup), tried, t) for tried in scales), strict=True))
    best = np.zeros(start.shape, np.intp)
    if adaptive:
        best = least_error(v, t, values.reshape(-1, *v.shape), 8 * 512)
    scales = chosen(scales, best)
    elements = np.where(scales[..., None] == 0, 0, signed(groups, chosen(codes, best)))
    return assemble(x, elements, scales, bad, UE4M3.nan, metadata=chosen(metadata, best),
                    tensor_scale=tensor_scale)


def m2_nvfp4(kind: str, subgroup: int = 8, *, adaptive: bool = False) -> Format:
    """NVFP4 with Elem-EM's or Sg-EM's metadata.

    Scales are those of NVFP4. Sg-EM takes the factor of the least squared error; ties go to the
    lowest factor. Two bits per 8 elements are 4.75 bits per element; the 5 bits of specification
    section 9 are two per 4.

    The paper leaves open which scales an adaptive encoder tries. Here it tries NVFP4's scale and
    those of the next lower and the next higher code, as M2XFP tries neighbouring exponents. The
    largest scale, 448, has none above it.

    Parameters
    ----------
    kind : str
        "Elem-EM" or "Sg-EM".
    subgroup : int
        Elements per two metadata bits: 2, 4, 8 or 16.
    adaptive : bool
        Whether the encoder tries three scales and takes that of the least squared error, compared
        exactly. Ties go to the lowest scale.

    Returns
    -------
    Format

    Raises
    ------
    ValueError
        If ``kind`` or ``subgroup`` is not one of these.
    """
    check_subgroup(subgroup, GROUP)
    if kind not in ("Elem-EM", "Sg-EM"):
        raise ValueError(f"kind must be 'Elem-EM' or 'Sg-EM', not {kind!r}")
    encode, dequantize = _encode_elem_em, dequantize_elem_em
    if kind == "Sg-EM":
        encode, dequantize = _encode_sg_em, partial(dequantize_sg, factors=SG_EM_FACTORS)
    return Format(name=f"M2-NVFP4 {kind}-{subgroup}{' adaptive' if adaptive else ''}", group=GROUP,
                  element=E2M1, scale=UE4M3, tensor_scale=True, subgroup=subgroup,
                  metadata_bits=2,
                  encoder=partial(_quantize, encode=encode, subgroup=subgroup, adaptive=adaptive),
                  decoder=partial(dequantize, subgroup=subgroup, decode_scales=_scales))


FORMATS = tuple(m2_nvfp4(kind, subgroup, adaptive=adaptive) for adaptive in (False, True)
                for kind in ("Elem-EM", "Sg-EM") for subgroup in (8, 4))
"""The formats that are compared."""
