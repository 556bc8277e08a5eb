# SPDX-License-Identifier: BSD-2-Clause
"""Definition of Sg-special and Sg-special64: factors, and a special value for -0.

Specification sections 12 and 18.
"""

import numpy as np

from ..codec.arrays import FloatArray
from ..codec.numbers import (
    SCALE_NAN,
    SPECIAL_ENCODINGS,
    SPECIAL_LIMITS,
    SPECIAL_SCALES,
    SPECIALS,
    default_group,
    e2m1_integers,
    finite_groups,
    groups_of,
    round_magnitude,
    special_scale_codes,
)
from ..codec.quantized import Quantized


def definition(x: FloatArray, *, kind: str, adaptive: bool, group: int | None = None,
               subgroup: int = 8, encoding: str = "sg-special") -> Quantized:
    """Encodes whole tensors step by step, as specification sections 12 and 18 define it.

    `quantize_activations` and, adaptive or not, `quantize_weights` give the same bits faster; they
    also check the parameters.
    """
    group = default_group(encoding) if group is None else group
    special_encoding = SPECIAL_ENCODINGS[encoding]
    lower, most = special_encoding.lower, special_encoding.most
    groups = groups_of(x, "x", group)
    finite = finite_groups(groups)
    groups = np.where(finite[..., None], groups, np.float32(0))
    largest = np.abs(groups).max(axis=-1).view(np.uint32)
    lowest, floor = (special_scale_codes(largest, limit, lower) for limit in (0x800000, 0))
    shape = (*finite.shape, group // subgroup)

    best = np.full(finite.shape, np.inf)
    scales = np.zeros(finite.shape, np.uint8)
    elements = np.zeros(groups.shape, np.uint8)
    metadata = np.zeros(shape, np.uint8)
    for magnitude, limit in SPECIAL_LIMITS.items():
        fixed = special_scale_codes(largest, limit, lower)
        for code in (lowest, floor) if adaptive else (fixed,):
            # Under the highest scale magnitudes may be above 16 or 32. They count as that.
            u = np.minimum(np.ldexp(np.abs(groups).astype(np.float64), 127 - code[..., None]), most)
            v = np.copysign(u, groups).reshape(*shape, subgroup)
            for special in (magnitude, -magnitude):
                selector = SPECIALS.index(special)
                codes, factors, excess = _best_factors(v, special, special_encoding.factors)
                excess = np.ldexp(excess, 2 * (code - lowest))
                # The byte of the highest scale and the last special value is NaN's.
                byte = code - SPECIAL_SCALES[0] << 2 | selector
                better = (excess < best) & (byte != SCALE_NAN)
                best = np.where(better, excess, best)
                scales = np.where(better, byte, scales)
                elements = np.where(better[..., None], codes.reshape(groups.shape), elements)
                metadata = np.where(better[..., None], factors, metadata)

    def plane(values, bad):
        kept = finite.reshape(*finite.shape, *[1] * (values.ndim - finite.ndim))
        return np.where(kept, values, bad).astype(np.uint8).reshape(*x.shape[:-1], -1)

    return Quantized(kind=kind, encoding=encoding, shape=x.shape, group=group,
                     subgroup=subgroup, elements=plane(elements, 0), metadata=plane(metadata, 0),
                     scales=plane(scales, SCALE_NAN))


def _best_factors(v, special, offered):
    """Best codes and factors of subgroups (..., subgroup), and the groups' excess.

    The excess is that of `weight_encoder.best_factors`, and it is exact, too. Values q are
    multiples of 1/8 up to 28. Where q is not 0, v is above 1/4 and at most 32, and with its 24 bits
    a multiple of 2**-25. All terms are multiples of 2**-28, and partial sums are below 2**17.
    """
    u = np.abs(v)
    best = np.full(v.shape[:-1], np.inf)
    codes = np.zeros(v.shape, np.uint8)
    factors = np.zeros(v.shape[:-1], np.uint8)
    for k, step in enumerate(offered):
        # Nearer to the special value than to its neighbours: 4 and 6 for 5, or 6 for 8. A tie goes
        # to the neighbour.
        low, high = (4.5, 5.5) if abs(special) == 5 else (7, np.inf)
        takes = (u > low * step) & (u < high * step) & (np.signbit(v) == (special < 0))
        code = round_magnitude(u / step, 1)
        q = np.where(takes, abs(special), e2m1_integers(code) / 2) * step
        excess = np.sum(q * (q - 2 * u), axis=-1)
        better = excess < best
        best = np.where(better, excess, best)
        # Zeros have no sign.
        code = np.where(takes, 8, code | (np.signbit(v) & (code > 0)).astype(np.uint8) << 3)
        codes = np.where(better[..., None], code, codes)
        factors = np.where(better, np.uint8(k), factors)
    return codes, factors, best.sum(axis=-1)
