"""Formats that M2XFP is compared with, and its own design space, through one interface.

`FORMATS` lists them. Each cuts the last axis into groups, whose tail is padded with +0, and rounds
every element once: to nearest, ties to the even code, saturating at the largest magnitude.
Float32 subnormals are exact. A group that holds NaN or an infinity becomes a NaN group: its scale
is the code of NaN, all else 0. An all-zero group has scale code 0. The sign of a zero is kept by
elements with a sign bit, but under an E4M3 or E5M3 scale of 0 all elements are +0. Values read
back rounded once to float32, where what is beyond its range reads as an infinity.

Not here, as what is known to this project leaves a choice open that changes results:

- Sg-EE, of one or two bits: whether the extra exponent raises or lowers a subgroup's scale.
- Elem-EM top-2: how the metadata bits are divided between the two elements.
- HiF4: how the encoder finds the scale and both levels of shared exponents.
- MXFP4+: what becomes of the block maximum's implied exponent where the scale is clamped.
- RaZeR: which special values there are.
- Adaptive M2-NVFP4: which neighbours of an E4M3 scale are tried.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

import numpy as np

from .decoder import dequantize
from .formats import (
    FLOAT32_NAN,
    SCALE_MAX,
    e2m1_integers,
    e2m3_integers,
    groups_of,
    round_magnitude,
)
from .minifloats import (
    E2M1,
    E2M3,
    E3M2,
    E4M3,
    E5M2,
    E8M0,
    INT4,
    INT8,
    S1P1,
    S1P3,
    UE4M3,
    UE5M3,
    Codec,
)
from .mxfp4 import quantize_mxfp4
from .nvfp4 import TENSOR_SCALE_MIN, dequantize_nvfp4, quantize_nvfp4, tensor_scale_of
from .quantization_engine import check_rule, group_scales, quantize_activations, scaled_magnitudes
from .top1 import top1
from .weight_encoder import quantize_weights

SUBGROUPS = (2, 4, 8, 16, 32)
"""Subgroup sizes of the design space; a subgroup divides its group."""


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
        Codes of elements. IF4 has INT4, too.
    scale : Codec
        Codes of scales, each stored in 8 bits.
    quantize : callable
        Encodes an array of float32, float16 or bfloat16 of shape (..., K). Options: ``rule`` where
        E2M1 is under E8M0 (specification section 5), ``tensor_scale``, a float32, where there is
        one; MXFP4 and M2XFP have those of the codec, whose other sizes take other bits.
    dequantize : callable
        Decodes what ``quantize`` gave, to float32.
    subgroup : int, optional
        Elements per metadata.
    metadata_bits : int
        Bits of metadata per subgroup.
    tensor_scale : bool
        Whether there is a float32 scale per tensor, which does not count as bits per element.
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


def _blocks(x, codes, scales, bad, nan, *, metadata=None, tensor_scale=None):
    """Blanks NaN groups and flattens the planes of groups to rows along K."""
    def plane(p):
        p = np.where(bad[..., None], 0, p.reshape(*bad.shape, -1))
        return p.astype(np.uint8).reshape(*x.shape[:-1], -1)

    return Blocks(elements=plane(codes), shape=x.shape, tensor_scale=tensor_scale,
                  scales=np.where(bad, nan, scales).astype(np.uint8),
                  metadata=None if metadata is None else plane(metadata))


def _values(q, values, scales):
    """Elements' values times their groups' scales, both float64, as float32 of the original shape.

    The product is exact. A NaN scale makes its group NaN.
    """
    scales = scales.repeat(q.elements.shape[-1] // q.scales.shape[-1], axis=-1)
    with np.errstate(over="ignore", invalid="ignore"):
        result = (values.reshape(q.elements.shape) * scales).astype(np.float32)
    result[np.isnan(scales)] = FLOAT32_NAN
    return np.ascontiguousarray(result[..., : q.shape[-1]])


# Elements under a power of two.

def _quantize_mx(x, *, codec, emax, group=32):
    """MX by the OCP specification: the scale puts the largest magnitude into the last binade."""
    groups, scales, bad = _floor_scales(x, group, emax)
    v = np.copysign(scaled_magnitudes(groups, scales, bad), groups)
    return _blocks(x, codec.encode(np.where(bad[..., None], 0, v)), scales, bad, E8M0.nan)


def _floor_scales(x, group, emax):
    """Groups, their E8M0 codes floor(log2(amax)) - emax + 127, at least 0, and which are NaN."""
    groups = groups_of(x, "x", group)
    largest = (groups.view(np.uint32) & 0x7FFFFFFF).max(axis=-1)
    exponent = (largest >> 23).astype(np.int32)
    # A subnormal's field is 0, as is its scale.
    return groups, np.clip(exponent - emax, 0, SCALE_MAX), largest >= 0x7F800000


def _dequantize_mx(q, *, codec):
    return _values(q, codec.decode(q.elements), E8M0.decode(q.scales))


def _mx(name, codec, emax):
    return Format(name=name, group=32, element=codec, scale=E8M0,
                  quantize=partial(_quantize_mx, codec=codec, emax=emax),
                  dequantize=partial(_dequantize_mx, codec=codec))


def _quantize_mxfp4(x, **options):
    elements, scales = quantize_mxfp4(x, **options)
    return Blocks(elements=elements, scales=scales, shape=x.shape)


def _quantize_smx(x, *, codec):
    groups, scales, bad = _floor_scales(x, 16, 0)
    pairs = scaled_magnitudes(groups, scales, bad).reshape(*scales.shape, -1, 2)
    lower = pairs.max(axis=-1) < 1
    v = np.ldexp(pairs, lower[..., None].astype(np.int32)).reshape(groups.shape)
    return _blocks(x, codec.encode(np.copysign(v, groups)), scales, bad, E8M0.nan, metadata=lower)


def _dequantize_smx(q, *, codec):
    values = np.ldexp(codec.decode(q.elements), -q.metadata.repeat(2, axis=-1).astype(np.int32))
    return _values(q, values, E8M0.decode(q.scales))


def _smx(name, codec):
    """Shared microexponents (arXiv 2302.08007; specification section 9).

    The scale is 2**floor(log2(amax)). The bit of a pair halves its scale where both elements,
    before they are rounded, lie below the group's scale.
    """
    return Format(name=name, group=16, subgroup=2, metadata_bits=1, element=codec, scale=E8M0,
                  quantize=partial(_quantize_smx, codec=codec),
                  dequantize=partial(_dequantize_smx, codec=codec))


# The design space of M2XFP: E2M1 under a power of two, with metadata.

def _start(x, subgroup, rule):
    """Groups of 32, scale codes by a rule, which are NaN, and magnitudes in units of the scale."""
    check_rule(rule)
    groups = groups_of(x, "x", 32)
    scales, bad = group_scales(groups, rule)
    u = scaled_magnitudes(groups, scales, bad).reshape(*scales.shape, -1, subgroup)
    return groups, scales, bad, u


def _check_subgroup(subgroup, group):
    sizes = tuple(n for n in SUBGROUPS if n <= group)
    if subgroup not in sizes:
        raise ValueError(f"subgroup must be one of {sizes}, not {subgroup!r}")


def _best_scale(start, adaptive, encode):
    """Codes, metadata and scales of groups by ``encode``: the least squared error over scales.

    ``encode`` takes a scale relative to the first one and gives codes (..., subgroups, subgroup),
    metadata (..., subgroups) and the squared error less what all scales share (...), exact.
    """
    codes, metadata, least = encode(1.0)
    scales = start
    if adaptive:
        # Of equal errors, the lowest scale's.
        for bias, wins in (-1, np.less_equal), (1, np.less):
            other = encode(2.0**bias)
            better = wins(other[2], least) & (start + bias >= 0) & (start + bias <= SCALE_MAX)
            codes = np.where(better[..., None, None], other[0], codes)
            metadata = np.where(better[..., None], other[1], metadata)
            least = np.where(better, other[2], least)
            scales = np.where(better, start + bias, scales)
    return codes, metadata, scales


def _refine(v):
    """Elem-EM of subgroups of magnitudes in units of their scale: codes and metadata."""
    codes = round_magnitude(v, 1)
    lane = top1(codes)[..., None]
    refined = round_magnitude(np.take_along_axis(v, lane, -1), 3).astype(np.int16)
    first = 4 * np.take_along_axis(codes, lane, -1).astype(np.int16)
    return codes, (np.clip(refined + 1, first, first + 3) - first)[..., 0].astype(np.uint8)


def _refined(codes, metadata):
    """Magnitudes of Elem-EM subgroups in units of the scale, float64."""
    magnitudes = np.abs(e2m1_integers(codes)) / 2
    lane = top1(codes)[..., None]
    code = 4 * (np.take_along_axis(codes, lane, -1) & 7) + metadata[..., None]
    np.put_along_axis(magnitudes, lane, e2m3_integers(np.maximum(code, 1) - 1) / 8, -1)
    return magnitudes


def _signed(groups, codes):
    """E2M1 codes of groups, with the elements' own signs."""
    return codes.reshape(groups.shape) | np.signbit(groups).astype(np.uint8) << 3


def _quantize_elem_em(x, *, subgroup, adaptive, rule="floor"):
    groups, start, bad, u = _start(x, subgroup, rule)

    def encode(scale):
        codes, metadata = _refine(u / scale)
        q = _refined(codes, metadata) * scale
        # Exact: terms are 0 or, as u is then above 2**-5, multiples of 2**-31 and below 2**9.
        return codes, metadata, np.sum(q * (q - 2 * u), axis=(-2, -1))

    codes, metadata, scales = _best_scale(start, adaptive, encode)
    return _blocks(x, _signed(groups, codes), scales, bad, E8M0.nan, metadata=metadata)


def _dequantize_elem_em(q, *, subgroup, decode_scales):
    codes = q.elements.reshape(*q.metadata.shape, subgroup)
    values = np.copysign(_refined(codes, q.metadata), np.where(codes & 8, -1.0, 1.0))
    return _values(q, values, decode_scales(q))


def _e8m0_scales(q):
    return E8M0.decode(q.scales)


def elem_em(subgroup=8, *, adaptive=False):
    """Elem-EM (specification section 3) with other subgroups.

    Parameters
    ----------
    subgroup : int
        One of `SUBGROUPS`.
    adaptive : bool
        The encoder also tries the next lower and the next higher scale and takes that of the
        least squared error after refinement, compared exactly; ties go to the lowest scale.

    Returns
    -------
    Format
    """
    _check_subgroup(subgroup, 32)
    return Format(name=f"Elem-EM-{subgroup}{' adaptive' if adaptive else ''}", group=32,
                  element=E2M1, scale=E8M0, subgroup=subgroup, metadata_bits=2,
                  quantize=partial(_quantize_elem_em, subgroup=subgroup, adaptive=adaptive),
                  dequantize=partial(_dequantize_elem_em, subgroup=subgroup,
                                     decode_scales=_e8m0_scales))


def _quantize_sg_em(x, *, subgroup, bits, adaptive, rule="floor"):
    groups, start, bad, u = _start(x, subgroup, rule)

    def encode(scale):
        codes = np.zeros(u.shape, np.uint8)
        factors = np.zeros(u.shape[:-1], np.uint8)
        least = np.full(u.shape[:-1], np.inf)
        for k in range(2**bits):
            # Exact, as in the weight encoder.
            step = scale * (1 + k / 2**bits)
            candidate = round_magnitude(u / step, 1)
            q = e2m1_integers(candidate) * (step / 2)
            excess = np.sum(q * (q - 2 * u), axis=-1)
            better = excess < least
            codes = np.where(better[..., None], candidate, codes)
            factors = np.where(better, np.uint8(k), factors)
            least = np.minimum(least, excess)
        return codes, factors, least.sum(axis=-1)

    codes, metadata, scales = _best_scale(start, adaptive, encode)
    return _blocks(x, _signed(groups, codes), scales, bad, E8M0.nan, metadata=metadata)


def _dequantize_sg_em(q, *, subgroup, bits, decode_scales):
    factors = 1 + q.metadata.repeat(subgroup, axis=-1) / 2**bits
    return _values(q, E2M1.decode(q.elements) * factors, decode_scales(q))


def sg_em(subgroup=8, *, bits=2, adaptive=True):
    """Sg-EM (specification section 4) with other subgroups.

    Parameters
    ----------
    subgroup : int
        One of `SUBGROUPS`.
    bits : int
        Metadata bits: with 1, the factors are 1 and 1.5.
    adaptive : bool
        Whether the encoder tries three scales, or is of fixed mode.

    Returns
    -------
    Format
    """
    _check_subgroup(subgroup, 32)
    if bits not in (1, 2):
        raise ValueError(f"bits must be 1 or 2, not {bits!r}")
    name = f"Sg-EM-{subgroup}{' 1-bit' if bits == 1 else ''}{' adaptive' if adaptive else ' fixed'}"
    return Format(name=name, group=32, element=E2M1, scale=E8M0, subgroup=subgroup,
                  metadata_bits=bits,
                  quantize=partial(_quantize_sg_em, subgroup=subgroup, bits=bits,
                                   adaptive=adaptive),
                  dequantize=partial(_dequantize_sg_em, subgroup=subgroup, bits=bits,
                                     decode_scales=_e8m0_scales))


# Elements under a floating-point scale, in groups of 16.
#
# A scale's product with a tensor scale has 28 significant bits and a magnitude 24. Their float64
# quotient therefore lies on a decision point, of at most 8 bits, only if the exact one does, and
# on the same side of it otherwise: no rounding is decided by the quotient's own.

def _scaled(x, tensor_scale, top):
    """Groups, magnitudes (0 in NaN groups), NaN groups and the tensor scale, also as float64.

    The tensor scale is the one given or the largest magnitude over ``top``, as float32.
    """
    groups = groups_of(x, "x", 16)
    finite = np.isfinite(groups)
    if tensor_scale is None:
        largest = np.float64(np.abs(groups).max(initial=0, where=finite))
        tensor_scale = max(np.float32(largest / top), TENSOR_SCALE_MIN)
    elif getattr(tensor_scale, "dtype", None) != np.float32 or np.ndim(tensor_scale):
        raise TypeError("tensor_scale must be one float32, not "
                        f"{getattr(tensor_scale, 'dtype', type(tensor_scale).__name__)}")
    elif not TENSOR_SCALE_MIN <= tensor_scale < np.inf:
        raise ValueError(f"tensor_scale must be finite and at least {TENSOR_SCALE_MIN}, "
                         f"not {tensor_scale}")
    bad = ~finite.all(axis=-1)
    v = np.where(bad[..., None], 0, np.abs(groups)).astype(np.float64)
    return groups, v, bad, tensor_scale, np.float64(tensor_scale)


def _over(v, steps):
    """Quotients of magnitudes, 0 where the step is 0."""
    return v / np.where(steps == 0, np.inf, steps)


def _group_scales(v, t, codec, top):
    """Codes of the scales that put groups' largest magnitudes at ``top``, and steps (..., 1)."""
    scales = codec.magnitude_codes(v.max(axis=-1) / (top * t))
    return scales, (codec.decode(scales) * t)[..., None]


def _quantize_nv(x, *, element, scale, tensor_scale=None):
    """One scale per group: the largest magnitude over the element's largest."""
    top = element.largest
    groups, v, bad, tensor_scale, t = _scaled(x, tensor_scale, top * scale.largest)
    scales, steps = _group_scales(v, t, scale, top)
    codes = element.encode(np.copysign(_over(v, steps), groups))
    return _blocks(x, np.where(steps == 0, 0, codes), scales, bad, scale.nan,
                   tensor_scale=tensor_scale)


def _quantize_ue5m3(x):
    return _quantize_nv(x, element=E2M1, scale=UE5M3, tensor_scale=np.float32(1))


def _dequantize_nv(q, *, element, scale):
    return _values(q, element.decode(q.elements), scale.decode(q.scales) * float(q.tensor_scale))


def _nv(name, quantize, *, element=E2M1, scale=UE4M3, tensor_scale=True, dequantize=None):
    return Format(name=name, group=16, element=element, scale=scale,
                  tensor_scale=tensor_scale, quantize=quantize,
                  dequantize=dequantize or partial(_dequantize_nv, element=element, scale=scale))


def _least_error(v, t, candidates, unit):
    """Which candidate has the least sum of (v - candidate * t / unit)**2 along the last axis.

    Parameters
    ----------
    v : float64 array, shape (..., n)
    t : float64
        With a float32's significand.
    candidates : int64 array, shape (count, ..., n)
    unit : int

    Returns
    -------
    int array, shape (...)
        Ties go to the first.
    """
    # The error less the sum of v**2, over t / unit**2. Both terms of the difference are exact.
    a, b = candidates * t, 2.0 * unit * v
    excess = np.sum(candidates * (a - b), axis=-1)
    best = excess.argmin(axis=0)
    # Far above what one difference, a product and the additions of n <= 32 terms can be off.
    slack = np.sum(candidates * (a + b), axis=-1) * 2.0**-45
    near = excess - slack <= (excess + slack).min(axis=0)
    chosen = np.take_along_axis(candidates, best[None, ..., None], 0)
    different = (candidates != chosen).any(axis=-1)
    # A tie of equal candidates is the first's already.
    for index in zip(*np.nonzero((near & different).any(axis=0)), strict=True):
        best[index] = _exactly_least(v[index], t, candidates[(slice(None), *index)], unit)
    return best


def _exactly_least(v, t, candidates, unit):
    t = Fraction(float(t))
    v = [2 * unit * Fraction(value) for value in v.tolist()]
    excess = [sum(q * (q * t - value) for q, value in zip(candidate, v, strict=True))
              for candidate in candidates.tolist()]
    return excess.index(min(excess))


def _scale_integers(scales):
    """UE4M3 scales in units of 2**-9, int64."""
    return (UE4M3.decode(scales) * 512).astype(np.int64)


def _quantize_four_over_six(x, *, tensor_scale=None):
    """NVFP4 whose groups have the largest magnitude at 6 or at 4 (arXiv 2512.02010).

    The scale of the lower squared error wins, 6 on a tie. The tensor scale is that of 6 * 256, so
    that 1.5 times the largest scale has a code.
    """
    groups, v, bad, tensor_scale, t = _scaled(x, tensor_scale, 6 * 256)
    tried = []
    for top in (6, 4):
        scales, steps = _group_scales(v, t, UE4M3, top)
        tried.append((scales, E2M1.magnitude_codes(_over(v, steps))))
    scales, codes = map(np.stack, zip(*tried, strict=True))
    values = _e2m1_doubled(codes) * _scale_integers(scales)[..., None]
    four = _least_error(v, t, values, 2 * 512) == 1
    scales = np.where(four, scales[1], scales[0])
    elements = _signed(groups, np.where(four[..., None], codes[1], codes[0]))
    return _blocks(x, np.where(scales[..., None] == 0, 0, elements), scales, bad, UE4M3.nan,
                   tensor_scale=tensor_scale)


def _e2m1_doubled(codes):
    """Twice the value of E2M1 codes, int64."""
    return e2m1_integers(codes).astype(np.int64)


def _quantize_if4(x, *, tensor_scale=None):
    """NVFP4 whose groups are E2M1 or integers times 6/7, by the lower squared error.

    Both have the largest magnitude at 6, so they share a scale. Its sign bit selects integers,
    -7 to 7 in two's complement. E2M1 wins ties.
    """
    groups, v, bad, tensor_scale, t = _scaled(x, tensor_scale, 6 * UE4M3.largest)
    scales, steps = _group_scales(v, t, UE4M3, 6)
    # 7 * v and 6 * t are exact.
    codes = np.stack([E2M1.magnitude_codes(_over(v, steps)),
                      INT4.magnitude_codes(_over(7 * v, 6 * steps))])
    values = np.stack([7 * _e2m1_doubled(codes[0]), 12 * codes[1]])
    values *= _scale_integers(scales)[..., None]
    integer = _least_error(v, t, values, 14 * 512) == 1
    elements = np.where(integer[..., None],
                        np.where(np.signbit(groups), -codes[1], codes[1]) & 15,
                        _signed(groups, codes[0]))
    return _blocks(x, np.where(steps == 0, 0, elements), scales | integer << 7, bad, UE4M3.nan,
                   tensor_scale=tensor_scale)


def _dequantize_if4(q):
    integer = (q.scales >> 7).astype(bool).repeat(16, axis=-1)
    values = np.where(integer, 6 * INT4.decode(q.elements), E2M1.decode(q.elements))
    # A quotient by 7 of 34 bits is not so close to a tie of float32 that float64 would hide it.
    scales = UE4M3.decode(q.scales & 127)
    values = values * (scales * float(q.tensor_scale)).repeat(16, axis=-1)
    return _values(q, np.where(integer, values / 7, values),
                   np.where(np.isnan(scales), np.nan, 1.0))


def _nv_scales(q):
    return UE4M3.decode(q.scales) * float(q.tensor_scale)


def _quantize_m2_nvfp4_elem_em(x, *, subgroup, tensor_scale=None):
    groups, v, bad, tensor_scale, t = _scaled(x, tensor_scale, 6 * UE4M3.largest)
    scales, steps = _group_scales(v, t, UE4M3, 6)
    codes, metadata = _refine(_over(v, steps).reshape(*scales.shape, -1, subgroup))
    return _blocks(x, np.where(steps == 0, 0, _signed(groups, codes)), scales, bad, UE4M3.nan,
                   metadata=metadata, tensor_scale=tensor_scale)


def _quantize_m2_nvfp4_sg_em(x, *, subgroup, tensor_scale=None):
    groups, v, bad, tensor_scale, t = _scaled(x, tensor_scale, 6 * UE4M3.largest)
    scales, steps = _group_scales(v, t, UE4M3, 6)
    v, parts = (a.reshape(*scales.shape, -1, subgroup)
                for a in (v, np.broadcast_to(steps, v.shape)))
    codes = np.stack([E2M1.magnitude_codes(_over(4 * v, k * parts)) for k in range(4, 8)])
    values = _e2m1_doubled(codes) * np.arange(4, 8).reshape(4, *[1] * v.ndim)
    values *= _scale_integers(scales)[..., None, None]
    metadata = _least_error(v, t, values, 2 * 4 * 512)
    best = np.take_along_axis(codes, metadata[None, ..., None], 0)[0].astype(np.uint8)
    return _blocks(x, np.where(steps == 0, 0, _signed(groups, best)), scales, bad, UE4M3.nan,
                   metadata=metadata, tensor_scale=tensor_scale)


def m2_nvfp4(kind, subgroup=8):
    """NVFP4 with M2XFP's metadata: two bits per subgroup of a group of 16.

    Scales are those of NVFP4. Sg-EM takes the factor of the least squared error, the lowest on a
    tie, and has no other scales. Two bits per 8 elements are 4.75 bits per element; the 5 bits of
    specification section 9 are two per 4.

    Parameters
    ----------
    kind : str
        "Elem-EM" or "Sg-EM".
    subgroup : int
        Elements per two metadata bits: 2, 4, 8 or 16.

    Returns
    -------
    Format
    """
    _check_subgroup(subgroup, 16)
    if kind not in ("Elem-EM", "Sg-EM"):
        raise ValueError(f"kind must be 'Elem-EM' or 'Sg-EM', not {kind!r}")
    if kind == "Elem-EM":
        quantize, dequantize = _quantize_m2_nvfp4_elem_em, _dequantize_elem_em
    else:
        quantize, dequantize = _quantize_m2_nvfp4_sg_em, partial(_dequantize_sg_em, bits=2)
    return Format(name=f"M2-NVFP4 {kind}-{subgroup}", group=16, element=E2M1,
                  scale=UE4M3, tensor_scale=True, subgroup=subgroup, metadata_bits=2,
                  quantize=partial(quantize, subgroup=subgroup),
                  dequantize=partial(dequantize, subgroup=subgroup, decode_scales=_nv_scales))


def _quantize_nvfp4(x, *, tensor_scale=None):
    return quantize_nvfp4(x, tensor_scale_of(x) if tensor_scale is None else tensor_scale)


def _m2xfp(name, quantize):
    return Format(name=name, group=32, element=E2M1, scale=E8M0, subgroup=8,
                  metadata_bits=2, quantize=quantize, dequantize=dequantize)


FORMATS = {f.name: f for f in (
    Format(name="MXFP4", group=32, element=E2M1, scale=E8M0,
           quantize=_quantize_mxfp4, dequantize=partial(_dequantize_mx, codec=E2M1)),
    _m2xfp("M2XFP activations", quantize_activations),
    _m2xfp("M2XFP weights", quantize_weights),
    _m2xfp("M2XFP weights fixed", partial(quantize_weights, adaptive=False)),
    _nv("NVFP4", _quantize_nvfp4, dequantize=dequantize_nvfp4),
    _mx("MXFP6 E2M3", E2M3, 2),
    _mx("MXFP6 E3M2", E3M2, 4),
    _mx("MXFP8 E4M3", E4M3, 8),
    _mx("MXFP8 E5M2", E5M2, 15),
    _mx("MXINT8", INT8, 0),
    _smx("SMX4", S1P1),
    _smx("SMX6", S1P3),
    _nv("NVFP4 four-over-six", _quantize_four_over_six),
    _nv("NVFP4-UE5M3", _quantize_ue5m3, scale=UE5M3, tensor_scale=False),
    _nv("NVINT4", partial(_quantize_nv, element=INT4, scale=UE4M3), element=INT4),
    _nv("IF4", _quantize_if4, dequantize=_dequantize_if4),
    *(m2_nvfp4(kind, subgroup) for kind in ("Elem-EM", "Sg-EM") for subgroup in (8, 4)),
    *(elem_em(n, adaptive=adaptive) for adaptive in (False, True) for n in SUBGROUPS),
    *(sg_em(n, bits=bits, adaptive=adaptive)
      for bits in (2, 1) for adaptive in (True, False) for n in SUBGROUPS),
)}
"""All formats by name. The M2XFP entries are the codec itself, whose designs are Elem-EM-8,
Sg-EM-8 adaptive and Sg-EM-8 fixed; those
at the end are the design space around them, at the speed of a definition."""
