# SPDX-License-Identifier: BSD-2-Clause
"""Formats that M2XFP is compared with, and its own design space, through one interface.

`FORMATS` lists them. Each format divides the last axis into groups; the axis is padded with +0 to
whole groups. Each element is rounded once: to nearest, ties to the even code, saturating at the
largest magnitude. HiF4 rounds ties away from zero; RaZeR rounds those beside its special value to
it. Float32 subnormals are exact. A group that holds NaN or an infinity becomes a NaN group: its
scale is the code of NaN, all its other codes are 0. An all-zero group has scale code 0. Elements
with a sign bit keep the sign of a zero, except in RaZeR, M2XFP mixed, Sg-special and
Sg-special64, and under an E3M3, E4M3 or E5M3 scale of 0, where all elements are +0. Decoded values
are rounded once to float32; those beyond its range become infinities.

Some papers leave open a choice that changes results. The format's docstring then names the choice
and what this project took: `sg_ee`, `elem_em` (top-2), `mxfp4_plus`, `razer.razer_weights` and
`m2_nvfp4.m2_nvfp4` (adaptive).
"""

from functools import partial

import numpy as np

from ..codec.numbers import SPECIALS, default_group, groups_of, metadata_bits
from ..codec.quantized import DECODERS, Blocks
from ..units.decoder import dequantize
from ..units.quantization_engine import quantize_activations, scaled_magnitudes
from ..units.weight_encoder import quantize_weights
from . import m2_nvfp4, nvfp4, razer
from .compiled import INDEX, PAIRS, Scaled
from .design_space import SUBGROUPS, elem_em, sg_ee, sg_em
from .format import Format, assemble, scaled_values
from .hif4 import HIF4
from .minifloats import E0M3, E2M1, E2M3, E3M2, E4M3, E5M2, E6M0, E8M0, INT8, S1P1, S1P3
from .mxfp4 import quantize_mxfp4
from .rules import scale_codes


def _quantize_mx(x, *, codec, emax, rule="floor"):
    """MX: with "floor", the largest magnitude lies in the uppermost binade, as OCP defines it."""
    groups, scales, bad = _scales(x, 32, codec, emax, rule)
    v = np.copysign(scaled_magnitudes(groups, scales, bad), groups)
    return assemble(x, codec.encode(v), scales, bad, E8M0.nan)


def _scales(x, group, codec, emax, rule="floor"):
    """Groups, their scale codes and a mask of NaN groups."""
    groups = groups_of(x, "x", group)
    largest = (groups.view(np.uint32) & 0x7FFFFFFF).max(axis=-1)
    return groups, scale_codes(largest, rule, codec, emax), largest >= 0x7F800000


def _dequantize_mx(q, *, codec):
    return scaled_values(q, codec.decode(q.elements), E8M0.decode(q.scales))


def _mx(name, codec, emax):
    return Format(name=name, group=32, element=codec, scale=E8M0,
                  encoder=partial(_quantize_mx, codec=codec, emax=emax),
                  decoder=partial(_dequantize_mx, codec=codec), compiled=Scaled(codec, emax))


def _quantize_mxfp4(x, **options):
    elements, scales = quantize_mxfp4(x, **options)
    return Blocks(elements=elements, scales=scales, shape=x.shape)


def _quantize_smx(x, *, codec):
    groups, scales, bad = _scales(x, 16, codec, 0)
    pairs = scaled_magnitudes(groups, scales, bad).reshape(*scales.shape, -1, 2)
    lower = pairs.max(axis=-1) < 1
    v = np.ldexp(pairs, lower[..., None].astype(np.int32)).reshape(groups.shape)
    return assemble(x, codec.encode(np.copysign(v, groups)), scales, bad, E8M0.nan, metadata=lower)


def _dequantize_smx(q, *, codec):
    values = np.ldexp(codec.decode(q.elements), -q.metadata.repeat(2, axis=-1).astype(np.int32))
    return scaled_values(q, values, E8M0.decode(q.scales))


def _smx(name, codec):
    """Shared microexponents (arXiv 2302.08007; specification section 9).

    The scale is 2**floor(log2(amax)). The bit of a pair halves its scale if both elements, before
    rounding, are below the group's scale in magnitude.
    """
    return Format(name=name, group=16, subgroup=2, metadata_bits=1, element=codec, scale=E8M0,
                  encoder=partial(_quantize_smx, codec=codec),
                  decoder=partial(_dequantize_smx, codec=codec),
                  compiled=Scaled(codec, 0, group=16, kind=PAIRS))


def _quantize_mxfp4_plus(x):
    groups, scales, bad = _scales(x, 32, E2M1, 2)
    v = np.copysign(scaled_magnitudes(groups, scales, bad), groups)
    lane = np.abs(v).argmax(axis=-1)[..., None]
    largest = np.take_along_axis(v, lane, -1)
    extended = np.abs(largest) >= 4
    codes = E2M1.encode(v)
    np.put_along_axis(codes, lane, np.where(extended, E0M3.encode(largest),
                                            E2M1.encode(largest)), -1)
    return assemble(x, codes, scales, bad, E8M0.nan, metadata=np.where(extended, lane, 32))


def _dequantize_mxfp4_plus(q):
    extended = (np.arange(32) == q.metadata[..., None]).reshape(q.elements.shape)
    values = np.where(extended, E0M3.decode(q.elements), E2M1.decode(q.elements))
    return scaled_values(q, values, E8M0.decode(q.scales))


def mxfp4_plus() -> Format:
    """MXFP4+ (arXiv 2510.14557): MXFP4 whose largest element has three bits of mantissa.

    MXFP4's scale has a group's largest magnitude in the uppermost binade. An index of 8 bits names
    the element; it is the first one if several are largest. The element's exponent bits are then
    free for the mantissa: it is 4, 4.5 and so on to 7.5 times the scale (E0M3), rounded to nearest,
    ties to even, saturating. The other elements are those of MXFP4.

    The sources leave open the case of a scale that is clamped to 2**-127. The largest magnitude is
    then below the uppermost binade; it may be zero. Here the index, which needs 5 bits, is then 32,
    and no element is extended. Any index above 31 would do.

    Returns
    -------
    Format
    """
    # Largest elements, each beside E2M1 that is not larger.
    others = E2M1.values[np.abs(E2M1.values) <= 4]
    return Format(name="MXFP4+", group=32, element=E2M1, scale=E8M0, subgroup=32, metadata_bits=8,
                  encoder=_quantize_mxfp4_plus, decoder=_dequantize_mxfp4_plus,
                  compiled=Scaled(E2M1, 2, kind=INDEX),
                  special_groups=np.stack([np.append(v, np.resize(others, 31))
                                           for v in E0M3.values]))


def _m2xfp(name, quantize, *, element=E2M1, scale=E8M0, group=32, metadata_bits=2, **options):
    return Format(name=name, group=group, element=element, scale=scale, subgroup=8,
                  metadata_bits=metadata_bits, encoder=quantize, decoder=dequantize, whole=True,
                  **options)


def _m2xfp_mixed():
    # Refined elements, each beside 1 and zeros. These groups are decoded as Elem-EM.
    refined = [v for v in E2M3.values[: E2M3.count] if 4 <= v <= 7]
    return _m2xfp("M2XFP mixed", partial(quantize_activations, encoding="mixed"),
                  zero_signs=False,
                  special_groups=np.stack([np.pad([v, 1], (0, 30)) for v in refined]))


def _m2xfp_special(name, quantize, encoding="sg-special"):
    # Values that every scale offers. -8 lacks the highest scale, whose byte is NaN's.
    specials = [s for s in SPECIALS if s != -8]
    group = default_group(encoding)
    return _m2xfp(name, partial(quantize, encoding=encoding), element=razer.RAZER, scale=E6M0,
                  group=group, metadata_bits=metadata_bits(encoding), zero_signs=False,
                  special_groups=np.stack([np.resize([s, *E2M1.values[:8]], group)
                                           for s in specials]))


FORMATS = {f.name: f for f in (
    Format(name="MXFP4", group=32, element=E2M1, scale=E8M0,
           encoder=_quantize_mxfp4, decoder=partial(_dequantize_mx, codec=E2M1),
           compiled=Scaled(E2M1, 2), whole=True),
    _m2xfp("M2XFP activations", quantize_activations),
    _m2xfp("M2XFP Sg-threshold", partial(quantize_activations, encoding="sg-threshold")),
    _m2xfp_mixed(),
    _m2xfp_special("M2XFP Sg-special", quantize_activations),
    _m2xfp_special("M2XFP Sg-special weights", quantize_weights),
    _m2xfp_special("M2XFP Sg-special64", quantize_activations, "sg-special64"),
    _m2xfp_special("M2XFP Sg-special64 weights", quantize_weights, "sg-special64"),
    _m2xfp("M2XFP weights", quantize_weights),
    _m2xfp("M2XFP weights fixed", partial(quantize_weights, adaptive=False)),
    mxfp4_plus(),
    _mx("MXFP6 E2M3", E2M3, 2),
    _mx("MXFP6 E3M2", E3M2, 4),
    _mx("MXFP8 E4M3", E4M3, 8),
    _mx("MXFP8 E5M2", E5M2, 15),
    _mx("MXINT8", INT8, 0),
    _smx("SMX4", S1P1),
    _smx("SMX6", S1P3),
    *nvfp4.FORMATS, *razer.FORMATS, *m2_nvfp4.FORMATS,
    HIF4,
    *(elem_em(n, top=top, adaptive=adaptive)
      for top in (1, 2) for adaptive in (False, True) for n in SUBGROUPS),
    *(sg(n, bits=bits, adaptive=adaptive) for sg in (sg_em, sg_ee)
      for bits in (2, 1) for adaptive in (True, False) for n in SUBGROUPS),
)}
"""All formats by name.

M2XFP's formats are the codec itself. The last ones are the design space around it, in which M2XFP
is Elem-EM-8, Sg-EM-8 adaptive and Sg-EM-8 fixed.
"""

# Also those that only a function makes, so that their tensors are read from files.
DECODERS.update({f.name: f.dequantize for f in (
    *(razer.razer_weights(outlier) for outlier in razer.OUTLIERS),
    *(m2_nvfp4.m2_nvfp4(kind, n, adaptive=adaptive) for kind in ("Elem-EM", "Sg-EM")
      for n in SUBGROUPS[:4] for adaptive in (False, True)),
    *FORMATS.values(),
)})
