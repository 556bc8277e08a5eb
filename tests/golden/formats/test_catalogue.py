# SPDX-License-Identifier: BSD-2-Clause
"""Formats for comparison, against gfloat, ml_dtypes and fractions that share nothing with them."""

import dataclasses
import math
import re
from fractions import Fraction
from pathlib import Path

import gfloat.block
import ml_dtypes
import numpy as np
import pytest
from gfloat import RoundMode, decode_float, formats, round_float

from golden import __main__ as command
from golden.formats import catalogue, check, design_space, float_scale, minifloats
from golden.formats.m2_nvfp4 import m2_nvfp4 as m2_nvfp4_format
from golden.formats.razer import razer_weights
from tests.support import oracle
from tests.support.marks import longer

MX = {
    "MXFP4": formats.format_info_mxfp4_e2m1, "MXFP6 E2M3": formats.format_info_mxfp6_e2m3,
    "MXFP6 E3M2": formats.format_info_mxfp6_e3m2, "MXFP8 E4M3": formats.format_info_mxfp8_e4m3,
    "MXFP8 E5M2": formats.format_info_mxfp8_e5m2, "MXINT8": formats.format_info_mxint8,
}


def magnitudes(info, count):
    return [Fraction(decode_float(info, code).fval) for code in range(count)]


E2M1 = magnitudes(formats.format_info_ocp_e2m1, 8)
E2M3 = magnitudes(formats.format_info_ocp_e2m3, 32)
E4M3 = magnitudes(formats.format_info_ocp_e4m3, 127)
E5M3 = [Fraction(8 * (e > 0) + m, 8) * Fraction(2) ** (max(e, 1) - 15)
        for e in range(32) for m in range(8)][:255]
E3M3 = [Fraction(8 * (e > 0) + m, 8) * Fraction(2) ** (max(e, 1) - 3)
        for e in range(8) for m in range(8)][:63]
INT4 = [Fraction(i) for i in range(8)]


def nearest(v, values):
    """Code of the nearest value; of two, the even one."""
    return min(range(len(values)), key=lambda c: (abs(v - values[c]), c % 2))


def rounded(group, values, step):
    return [step * values[nearest(v / step, values)] for v in group]


def error(group, values):
    return sum((v - q) ** 2 for v, q in zip(group, values, strict=True))


def parts(group, size):
    return [group[i: i + size] for i in range(0, len(group), size)]


def mx_step(group, emax, bias=0, rule=None):
    """Scale of a group of magnitudes; None if a biased one has no code."""
    amax = float(max(group))
    if rule:
        code = oracle.scale_code([amax], rule)
    else:
        code = max(math.frexp(amax)[1] - 1 - emax + 127, 0) if amax else 0
    return Fraction(2) ** (code + bias - 127) if 0 <= code + bias <= 254 else None


def elem_em(group, step, subgroup, top=1):
    result = []
    for part in parts(group, subgroup):
        codes = [nearest(v / step, E2M1) for v in part]
        values = [step * E2M1[c] for c in codes]
        for i in sorted(range(len(part)), key=lambda i, codes=codes: (-codes[i], i))[:top]:
            code = min(max(nearest(part[i] / step, E2M3) + 1, 4 * codes[i]), 4 * codes[i] + 3)
            values[i] = step * E2M3[max(code, 1) - 1]
        result += values
    return result


def sg(group, steps, subgroup):
    result = []
    for part in parts(group, subgroup):
        tried = [rounded(part, E2M1, step) for step in steps]
        result += min(tried, key=lambda values, part=part: error(part, values))
    return result


def sg_em(group, step, subgroup, bits=2):
    return sg(group, [step * (1 + Fraction(k, 2**bits)) for k in range(2**bits)], subgroup)


def sg_ee(group, step, subgroup, bits=2):
    return sg(group, [step / 2**k for k in range(2**bits)], subgroup)


def adaptive(group, encode, rule="floor", **options):
    steps = [mx_step(group, 2, bias, rule) for bias in (-1, 0, 1)]
    tried = [encode(group, step, **options) for step in steps if step is not None]
    return min(tried, key=lambda values: error(group, values))


def nv_step(group, t, top=6, scales=E4M3):
    return t * scales[nearest(max(group) / (top * t), scales)]


def nv(group, t, values=E2M1, **options):
    step = nv_step(group, t, **options)
    return rounded(group, values, step) if step else None


def four_over_six(group, t):
    tried = [values for top in (6, 4) if (values := nv(group, t, top=top))]
    if not nv_step(group, t) and tried:
        tried.insert(0, [Fraction(0)] * 16)
    return min(tried, key=lambda values: error(group, values)) if tried else None


def if4(group, t):
    step = nv_step(group, t)
    if not step:
        return None
    return min((rounded(group, E2M1, step), rounded(group, INT4, step * Fraction(6, 7))),
               key=lambda values: error(group, values))


def best_scale(group, t, encode, biases):
    """Values and code of the E4M3 scale of the least error; of equals the first."""
    code = nearest(max(group) / (6 * t), E4M3)
    codes = [code + bias for bias in biases if bias == 0 or 0 <= code + bias <= 126]
    # A scale of 0 has zeros alone.
    tried = [(encode(group, t * E4M3[c]) if c else [Fraction(0)] * 16, c) for c in codes]
    return min(tried, key=lambda item: error(group, item[0]))


def m2_nvfp4(group, t, encode, subgroup, adaptive=False):
    values, code = best_scale(group, t, lambda g, step: encode(g, step, subgroup),
                              (-1, 0, 1) if adaptive else (0,))
    return values if code else None


def searched(group, t):
    return best_scale(group, t, lambda g, step: rounded(g, E2M1, step),
                      sorted(range(-4, 5), key=lambda bias: (abs(bias), bias)))


def nvfp4_searched(group, t):
    values, code = searched(group, t)
    return values if code else None


def razer(row, t, specials=(5, -5), scales=E4M3, least=0):
    """Special values in place of -0; of a group with its signs."""
    group = [abs(Fraction(v)) for v in row]
    tried = []
    for special in specials:
        code = nearest(max(group) / (max(6, abs(special)) * t), scales)
        step = t * scales[max(code, least)]
        if not step or not max(group):
            return None
        value = step * abs(Fraction(special))
        tried.append([value if (x < 0) == (special < 0) and abs(v - value) <= abs(v - q) else q
                      for x, v, q in zip(row, group, rounded(group, E2M1, step), strict=True)])
    return min(tried, key=lambda values: error(group, values))


def mxfp4_plus(group):
    step = mx_step(group, 2)
    values = rounded(group, E2M1, step)
    if max(group) >= 4 * step:
        top = group.index(max(group))
        values[top] = rounded([group[top]], E2M3[24:], step)[0]
    return values


def significant(v, bits):
    """A fraction rounded to so many significant bits, ties to even."""
    unit = Fraction(2) ** (math.floor(math.log2(v)) - bits + 1)
    return round(v / unit) * unit


def hif4(group):
    largest = max(group)
    scale = Fraction(2) ** -48
    if largest:
        scale = max(scale, min(significant(largest * Fraction(73, 512), 8), Fraction(49152)))
        scale = significant(scale, 3)
    reciprocal = significant(1 / scale, 8)
    result = []
    for eight in parts(group, 8):
        one = 2 if max(eight) * reciprocal >= 4 else 1
        for four in parts(eight, 4):
            factor = one * (2 if max(four) * reciprocal / one >= 2 else 1)
            result += [min(math.floor(4 * v * reciprocal / factor + Fraction(1, 2)), 7)
                       * scale * factor / 4 for v in four]
    return result


def smx(group, mantissa):
    scale = mx_step(group, 0)
    values = [Fraction(m, 2 ** (mantissa - 1)) for m in range(2**mantissa)]
    result = []
    for pair in parts(group, 2):
        result += rounded(pair, values, scale / 2 if max(pair) < scale else scale)
    return result


def bits_of(group, values, integers=False):
    """Float32 bits, with the signs of the elements; None stands for a scale of 0."""
    if values is None:
        return [0] * len(group)
    return [oracle.float32(-q if x < 0 else q, math.copysign(1, x) < 0 and not integers)
            for x, q in zip(group, values, strict=True)]


def groups(count, size, seed=0):
    """Hard groups, and such that only a format with a wide scale can hold."""
    rng = np.random.default_rng(seed)
    plain = rng.standard_t(3, (count, size)) * 2.0 ** rng.integers(-8, 9, (count, 1))
    return np.concatenate([oracle.hard_groups(rng, count, size), plain.astype(np.float32)])


def assert_bits(form, x, expected, **options):
    with np.errstate(over="raise"):
        back = form.round_trip(x, **options)
    assert back.dtype == np.float32
    for row, got, want in zip(x.tolist(), back.view(np.uint32).tolist(), expected, strict=True):
        assert got == want, (form.name, row)


# Codes.


@pytest.mark.parametrize("name, dtype", [
    ("E2M1", ml_dtypes.float4_e2m1fn), ("E2M3", ml_dtypes.float6_e2m3fn),
    ("E3M2", ml_dtypes.float6_e3m2fn), ("E4M3", ml_dtypes.float8_e4m3fn),
    ("E5M2", ml_dtypes.float8_e5m2), ("E8M0", ml_dtypes.float8_e8m0fnu),
])
def test_codecs_against_ml_dtypes(name, dtype):
    codec = minifloats.CODECS[name]
    codes = np.arange(2**codec.bits, dtype=np.uint8)
    values = codes.view(dtype).astype(np.float64)
    assert codec.decode(codes).view(np.uint64)[~np.isnan(values)].tolist() == \
        values.view(np.uint64)[~np.isnan(values)].tolist()
    assert np.array_equal(np.isnan(codec.values), np.isnan(values))
    if name == "E8M0":
        return
    rng = np.random.default_rng(1)
    x = rng.choice([-1, 1], 20000) * codec.largest * 2.0 ** rng.uniform(-22, 0, 20000)
    ties = (codec.values[: codec.count - 1] + codec.values[1: codec.count]) / 2
    x = np.concatenate([x, ties, -ties, [0.0, -0.0]]).astype(np.float32)
    assert np.array_equal(codec.encode(x), x.astype(dtype).view(np.uint8))


def test_integers_and_unsigned():
    codes = np.arange(16, dtype=np.uint8)
    assert minifloats.INT4.values.tolist() == codes.view(ml_dtypes.int4).astype(float).tolist()
    assert minifloats.INT8.values.tolist() == \
        [decode_float(formats.format_info_ocp_int8, code).fval for code in range(256)]
    assert minifloats.UE5M3.values[:255].tolist() == [float(v) for v in E5M3]
    assert np.isnan(minifloats.UE5M3.values[255])
    assert minifloats.UE4M3.values[:127].tolist() == [float(v) for v in E4M3]
    assert minifloats.UE3M3.values[:63].tolist() == [float(v) for v in E3M3]
    assert minifloats.UE3M3.largest == 28 and np.isnan(minifloats.UE3M3.values[63])
    assert minifloats.E0M3.values[:8].tolist() == [float(v) for v in E2M3[24:]]
    assert minifloats.S1P1.values.tolist() == [0, 0.5, 1, 1.5, 0, -0.5, -1, -1.5]


@pytest.mark.parametrize("name, v, message", [
    ("E2M1", np.nan, "E2M1 has no code for NaN"),
    ("INT4", np.nan, "INT4 has no code for NaN"),
    ("UE4M3", -1.0, "UE4M3 has no code for negative values, not for -1.0"),
])
def test_values_without_code(name, v, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        minifloats.CODECS[name].encode(np.array([0.5, v]))


def test_specials():
    def encode(name, *v):
        return minifloats.CODECS[name].encode(np.array(v)).tolist()

    assert encode("E4M3", np.nan, np.inf, -np.inf, 1e9, -0.0) == [0x7F, 0x7E, 0xFE, 0x7E, 0x80]
    assert encode("E5M2", np.nan, np.inf, -np.inf, 1e9, -1e9) == [0x7E, 0x7C, 0xFC, 0x7B, 0xFB]
    assert encode("E2M1", np.inf, -7, -0.0) == [7, 15, 8]
    assert encode("INT4", 9, -9, -0.0, 2.5, -3.5) == [7, 9, 0, 2, 12]
    assert encode("E8M0", np.nan, 2.0**-127, 1.5, 3.0) == [255, 0, 128, 128]
    assert encode("UE5M3", np.nan, -0.0, np.inf) == [255, 0, 254]


# Formats.


def test_bits_per_element():
    """Those of the records of the formats' papers."""
    bits = {
        "MXFP4": 4.25, "MXFP6 E2M3": 6.25, "MXFP6 E3M2": 6.25, "MXFP8 E4M3": 8.25,
        "MXFP8 E5M2": 8.25, "MXINT8": 8.25, "NVFP4": 4.5, "NVFP4 four-over-six": 4.5,
        "NVFP4-UE5M3": 4.5, "IF4": 4.5, "RaZeR activations": 4.5, "RaZeR weights": 4.5,
        "HiF4": 4.5, "NVINT4": 4.5, "SMX4": 4, "SMX6": 6, "MXFP4+": 4.5,
        "M2XFP activations": 4.5, "M2XFP Sg-threshold": 4.5, "M2XFP mixed": 4.5,
        "M2XFP weights": 4.5, "M2XFP weights fixed": 4.5, "NVFP4 searched": 4.5,
        "M2XFP Sg-special": 4.5, "M2XFP Sg-special weights": 4.5,
        "M2XFP Sg-special64": 4.5, "M2XFP Sg-special64 weights": 4.5,
    }
    for end in ("", " adaptive"):
        for n, b in (8, 4.75), (4, 5):
            bits |= {f"M2-NVFP4 {kind}-EM-{n}{end}": b for kind in ("Elem", "Sg")}
    for n in (2, 4, 8, 16, 32):
        for end in ("", " adaptive"):
            bits |= {f"Elem-EM-{n}{end}": 4.25 + 2 / n, f"Elem-EM-{n} top-2{end}": 4.25 + 4 / n}
        for sub in (f"{kind}-{n}" for kind in ("Sg-EM", "Sg-EE")):
            for end in ("adaptive", "fixed"):
                bits |= {f"{sub} {end}": 4.25 + 2 / n, f"{sub} 1-bit {end}": 4.25 + 1 / n}
    assert {name: form.bits_per_element for name, form in catalogue.FORMATS.items()} == bits
    assert all(form.name == name for name, form in catalogue.FORMATS.items())


@pytest.mark.parametrize("name", MX)
def test_mx_against_gfloat(name):
    x = groups(25, 32)
    # Beyond that, float32 has no value for what saturates or rounds up.
    x = x[np.abs(x).max(axis=-1) < 2.0**126]
    expected = []
    for row in x.astype(np.float64):
        scale = gfloat.block.compute_scale_amax(MX[name].etype.emax, row)
        back = gfloat.block.quantize_block(MX[name], row, lambda emax, vals, s=scale: s)
        if name == "MXINT8":
            # gfloat has a value below -127 / 64; and zeros here have no sign.
            back = np.maximum(back, -127 / 64 * scale) + 0.0
        expected.append(back.astype(np.float32).view(np.uint32).tolist())
    assert_bits(catalogue.FORMATS[name], x, expected)


# In the short run each format has one rule, and each rule three formats.
@pytest.mark.parametrize("name, rule", [
    (name, rule) if place == number % 3 else longer(name, rule)
    for place, rule in enumerate(["ceil", "rtn1", "rtn2"])
    for number, name in enumerate([
        "MXFP4", "M2XFP activations", "Elem-EM-4", "Elem-EM-8 adaptive", "Sg-EM-4 fixed",
        "Sg-EM-8 1-bit adaptive", "M2XFP weights", "Elem-EM-8 top-2 adaptive",
        "Sg-EE-8 adaptive"])])
def test_rules(name, rule):
    encode = {
        "MXFP4": lambda g, step: rounded(g, E2M1, step),
        "M2XFP activations": lambda g, step: elem_em(g, step, 8),
        "Elem-EM-4": lambda g, step: elem_em(g, step, 4),
        "Elem-EM-8 adaptive": lambda g, step: adaptive(g, elem_em, rule, subgroup=8),
        "Sg-EM-4 fixed": lambda g, step: sg_em(g, step, 4),
        "Sg-EM-8 1-bit adaptive": lambda g, step: adaptive(g, sg_em, rule, subgroup=8, bits=1),
        "M2XFP weights": lambda g, step: adaptive(g, sg_em, rule, subgroup=8),
        "Elem-EM-8 top-2 adaptive": lambda g, step: adaptive(g, elem_em, rule, subgroup=8, top=2),
        "Sg-EE-8 adaptive": lambda g, step: adaptive(g, sg_ee, rule, subgroup=8),
    }[name]
    x = groups(6, 32, seed=3)
    x = x[np.abs(x).max(axis=-1) < 2.0**125]
    expected = []
    for row in x.tolist():
        group = [abs(Fraction(v)) for v in row]
        expected.append(bits_of(row, encode(group, mx_step(group, 2, rule=rule))))
    assert_bits(catalogue.FORMATS[name], x, expected, rule=rule)


DESIGNS = [
    ("Elem-EM-{}", lambda g, n: elem_em(g, mx_step(g, 2), n)),
    ("Elem-EM-{} adaptive", lambda g, n: adaptive(g, elem_em, subgroup=n)),
    ("Elem-EM-{} top-2", lambda g, n: elem_em(g, mx_step(g, 2), n, 2)),
    ("Elem-EM-{} top-2 adaptive", lambda g, n: adaptive(g, elem_em, subgroup=n, top=2)),
    ("Sg-EM-{} fixed", lambda g, n: sg_em(g, mx_step(g, 2), n)),
    ("Sg-EM-{} adaptive", lambda g, n: adaptive(g, sg_em, subgroup=n)),
    ("Sg-EM-{} 1-bit fixed", lambda g, n: sg_em(g, mx_step(g, 2), n, 1)),
    ("Sg-EM-{} 1-bit adaptive", lambda g, n: adaptive(g, sg_em, subgroup=n, bits=1)),
    ("Sg-EE-{} fixed", lambda g, n: sg_ee(g, mx_step(g, 2), n)),
    ("Sg-EE-{} adaptive", lambda g, n: adaptive(g, sg_ee, subgroup=n)),
    ("Sg-EE-{} 1-bit fixed", lambda g, n: sg_ee(g, mx_step(g, 2), n, 1)),
    ("Sg-EE-{} 1-bit adaptive", lambda g, n: adaptive(g, sg_ee, subgroup=n, bits=1)),
]


# In the short run each design has two sizes of subgroups, and each size four designs or more.
@pytest.mark.parametrize("name, encode, n", [
    ((*case, n) if (number + place) % 5 in (0, 2) else longer(*case, n))
    for number, case in enumerate(DESIGNS) for place, n in enumerate([2, 4, 8, 16, 32])])
def test_design_space(name, encode, n):
    x = groups(4, 32, seed=n)
    x = x[np.abs(x).max(axis=-1) < 2.0**125]
    assert_bits(catalogue.FORMATS[name.format(n)], x, [
        bits_of(row, encode([abs(Fraction(v)) for v in row], n)) for row in x.tolist()])


def test_m2xfp_lies_in_the_design_space():
    """The same records from the codec and from the definitions with a free subgroup."""
    x = np.concatenate([groups(300, 32, seed=4), np.full((1, 32), np.nan, np.float32)])
    for codec, design in (("M2XFP activations", "Elem-EM-8"),
                          ("M2XFP weights", "Sg-EM-8 adaptive"),
                          ("M2XFP weights fixed", "Sg-EM-8 fixed")):
        a, b = (catalogue.FORMATS[name].quantize(x) for name in (codec, design))
        for plane in ("elements", "metadata", "scales"):
            assert np.array_equal(getattr(a, plane), getattr(b, plane))
        assert np.array_equal(catalogue.FORMATS[codec].dequantize(a).view(np.uint32),
                              catalogue.FORMATS[design].dequantize(b).view(np.uint32))


def first(form, *group, **options):
    """A group that begins so and goes on with zeros: the record, and what is read back first."""
    x = np.zeros(form.group, np.float32)
    x[: len(group)] = group
    q = form.quantize(x, **options)
    return q, form.dequantize(q)[: len(group)].tolist()


def test_top2_directed():
    """The larger's metadata are below the smaller's; of equal codes the first two are refined."""
    form = design_space.elem_em(4, top=2)
    for group in (6.5, 2.75), (2.75, 6.5):
        q, back = first(form, *group)
        assert (q.metadata[0], back) == (2, list(group))
    assert first(form, 1, 4.5, 4.5, 4.5, 6)[1] == [1, 4.5, 4.5, 4, 6]
    # The second may be refined from 0.
    q, back = first(form, 6, 0.2, 0.2)
    assert (q.metadata[0], back) == (1 | 3 << 2, [6, 0.25, 0])
    q, back = first(design_space.elem_em(2, top=2), 5, 7.5, -0.0, 0.125)
    assert back == [5, 7, 0, 0.125]


def test_sg_ee_directed():
    """Metadata count binades down, the fewest of equal errors; also below the lowest scale."""
    def lowered(*group, bits=2):
        form = design_space.sg_ee(2, bits=bits, adaptive=False)
        q, back = first(form, *group)
        return q.metadata[: len(group) // 2].tolist(), back

    group = [6, 0.5, 0.75, 0, 0.375, 0.125, -0.1875, 0.0625, 0, 0]
    assert lowered(*group) == ([0, 1, 2, 3, 0], group)
    assert lowered(*group, bits=1) == (
        [0, 1, 0, 1, 0], [6, 0.5, 0.75, 0, 0.5, 0, -0.25, 0, 0, 0])
    # 0.25 is a tie of 0 and 0.5, and so is 0.0625 in the lowest binade.
    assert lowered(6, 0, 0.03125, 0.03125) == ([0, 0], [6, 0, 0, 0])
    tiny = [2.0**-131, -3 * 2.0**-131]
    assert lowered(*tiny) == ([3], tiny)


@pytest.mark.parametrize("fixed, adaptive", [
    (name.replace(" adaptive", "" if "Elem" in name else " fixed"), name) for name in (
        "Elem-EM-8 top-2 adaptive", "Sg-EE-8 adaptive", "Sg-EE-4 1-bit adaptive")
] + [(f"M2-NVFP4 {kind}", f"M2-NVFP4 {kind} adaptive") for kind in ("Elem-EM-8", "Sg-EM-4")]
  + [("NVFP4", "NVFP4 searched")])
def test_adaptive_is_never_worse(fixed, adaptive):
    """By exact errors; and better for some groups."""
    forms = [catalogue.FORMATS[name] for name in (fixed, adaptive)]
    x = np.random.default_rng(15).standard_normal((40, forms[0].group)).astype(np.float32)
    options = {"tensor_scale": np.float32(2.0**-8)} if forms[0].tensor_scale else {}
    better = 0
    for row in x:
        group = [Fraction(v) for v in row.tolist()]
        without, with_it = (error(group, map(Fraction, form.round_trip(row, **options).tolist()))
                            for form in forms)
        assert with_it <= without
        better += with_it < without
    assert better > 3


def test_mxfp4_plus():
    x = groups(60, 32, seed=16)
    rng = np.random.default_rng(17)
    # Largest elements on the ties of eighths, at scales around the lowest.
    x[::2] = rng.choice([0, 0.25, 1, 3.5], x[::2].shape)
    x[::2, 7] = rng.integers(-32, 33, len(x[::2])) / 4
    x[::4] *= 2.0 ** rng.choice([-130, -128, -127, -126, -125, 3], (len(x[::4]), 1))
    x = x[np.abs(x).max(axis=-1) < 2.0**126]
    assert_bits(catalogue.FORMATS["MXFP4+"], x, [
        bits_of(row, mxfp4_plus([abs(Fraction(v)) for v in row])) for row in x.tolist()])


@pytest.mark.parametrize("v, code, value", [
    (4, 0, 4), (4.25, 0, 4), (4.75, 2, 5), (5.25, 2, 5), (6.75, 6, 7), (7.25, 6, 7),
    (7.26, 7, 7.5), (7.75, 7, 7.5), (7.99, 7, 7.5),
])
def test_mxfp4_plus_directed(v, code, value):
    """The first of the largest elements is extended, the others saturate at 6."""
    for sign, bit in (1, 0), (-1, 8):
        q, back = first(catalogue.FORMATS["MXFP4+"], 1.2, sign * v, -v, v)
        plain = 4 if v <= 5 else 6
        assert (q.metadata.tolist(), q.elements[1]) == ([1], code | bit)
        assert back == [1, sign * value, -plain, plain]


def test_mxfp4_plus_under_the_lowest_scale():
    """What is below 4 in units of it is a number of MXFP4."""
    form = catalogue.FORMATS["MXFP4+"]
    unit = 2.0**-127
    q, back = first(form, 3.5 * unit, -2.75 * unit)
    assert (q.scales.tolist(), q.metadata.tolist()) == ([0], [32])
    assert back == [4 * unit, -3 * unit]
    q, back = first(form, -0.5 * unit, -4.5 * unit)
    assert (q.scales.tolist(), q.metadata.tolist()) == ([0], [1])
    assert back == [-0.5 * unit, -4.5 * unit]
    q = form.quantize(np.full(32, -0.0, np.float32))
    assert (q.scales.tolist(), q.metadata.tolist(), set(q.elements)) == ([0], [32], {8})
    assert np.signbit(form.dequantize(q)).all()


@pytest.mark.parametrize("name, mantissa", [("SMX4", 2), ("SMX6", 4)])
def test_smx(name, mantissa):
    x = groups(60, 16, seed=5)
    assert_bits(catalogue.FORMATS[name], x, [
        bits_of(row, smx([abs(Fraction(v)) for v in row], mantissa)) for row in x.tolist()])


NV = {
    "NVFP4": nv,
    "NVFP4 searched": nvfp4_searched,
    "NVFP4 four-over-six": four_over_six,
    "NVINT4": lambda g, t: nv(g, t, INT4, top=7),
    "IF4": if4,
    **{f"M2-NVFP4 {kind}-{n}": lambda g, t, encode=encode, n=n: m2_nvfp4(g, t, encode, n)
       for kind, encode in (("Elem-EM", elem_em), ("Sg-EM", sg_em)) for n in (8, 4)},
    **{f"M2-NVFP4 {kind}-{n} adaptive":
       lambda g, t, encode=encode, n=n: m2_nvfp4(g, t, encode, n, adaptive=True)
       for kind, encode in (("Elem-EM", elem_em), ("Sg-EM", sg_em)) for n in (8, 4)},
}


@pytest.mark.parametrize("name", NV)
@pytest.mark.parametrize("count", [10, longer(25)])
def test_under_a_tensor_scale(name, count):
    x = groups(count, 16, seed=6)
    rng = np.random.default_rng(7)
    for row in x:
        exponent = int(np.clip(np.frexp(np.abs(row).max())[1] + rng.integers(-12, 12), -114, 100))
        t = np.float32(np.ldexp(rng.choice([0.5, 0.75, rng.uniform(0.5, 1)]), exponent))
        group = [abs(Fraction(v)) for v in row.tolist()]
        values = NV[name](group, Fraction(float(t)))
        expected = bits_of(row.tolist(), values, integers=name == "NVINT4")
        if name == "IF4":
            # A zero's sign tells only which kind won.
            signed = catalogue.FORMATS[name].quantize(row, tensor_scale=t).scales[0] >> 7 == 0
            expected = [0 if b == 1 << 31 and not signed else b for b in expected]
        assert_bits(catalogue.FORMATS[name], row[None], [expected], tensor_scale=t)


def test_razer():
    x = groups(40, 16, seed=11)
    rng = np.random.default_rng(12)
    # Many on the borders of what 5 takes.
    x[::3] = rng.choice([6, 5.5, -5.5, 4.5, -4.5, 5, -5, 0.1, -0.1], x[::3].shape)
    specials = 0
    for row in x:
        t = np.float32(np.ldexp(rng.choice([0.5, 0.75]), max(np.frexp(row.max())[1] - 8, -114)))
        bits = bits_of(row.tolist(), razer(row.tolist(), Fraction(float(t))))
        assert_bits(catalogue.FORMATS["RaZeR activations"], row[None],
                    [[0 if b == 1 << 31 else b for b in bits]], tensor_scale=t)
        q = catalogue.FORMATS["RaZeR activations"].quantize(row, tensor_scale=t)
        specials += int((q.elements == 8).any()) * (1 + 1000 * int(q.scales[0] >> 7))
    assert specials % 1000 > 10 and specials // 1000 > 5


@pytest.mark.parametrize("outlier", [8, longer(6.5), longer(15.5)])
def test_razer_weights(outlier):
    form = razer_weights(outlier)
    x = groups(40, 16, seed=18)
    rng = np.random.default_rng(19)
    # Many on the borders of what the special values take.
    border = (6 + outlier) / 2
    values = [6, outlier, border, 5.5, 4.5, 5, 0.1]
    x[::3] = rng.choice([*values, *(-v for v in values)], x[::3].shape)
    chosen, codes = [], []
    for row in x:
        # Scales around the smallest, the largest, and between.
        exponent = int(np.frexp(np.abs(row).max())[1] - rng.choice([8, 7, 4, 0, -2, -6]))
        t = np.float32(np.ldexp(rng.choice([0.5, 0.75]), int(np.clip(exponent, -114, 100))))
        bits = bits_of(row.tolist(), razer(row.tolist(), Fraction(float(t)),
                                           (5, -5, outlier, -outlier), E3M3, 1))
        assert_bits(form, row[None], [[0 if b == 1 << 31 else b for b in bits]], tensor_scale=t)
        q = form.quantize(row, tensor_scale=t)
        chosen.append(int(q.scales[0] >> 6) if (q.elements == 8).any() else -1)
        codes.append(int(q.scales[0] & 63))
    assert set(range(4)) <= set(chosen)
    assert {0, 1, 62} < set(codes) <= set(range(63))


def test_razer_weights_directed():
    form = catalogue.FORMATS["RaZeR weights"]

    def quantize(*group):
        q, back = first(form, *group, tensor_scale=np.float32(1))
        return q.scales[0] >> 6, form.scale.values[q.scales[0] & 63], back

    # In the order 5, -5, 8, -8; of equal errors the first.
    assert quantize(6, 5, -4) == (0, 1, [6, 5, -4])
    assert quantize(6, 4, -5) == (1, 1, [6, 4, -5])
    assert quantize(6, 4, -3) == (0, 1, [6, 4, -3])
    ones = [1] * 14
    # 7 is a tie of 6 and 8.
    assert quantize(8, 7, *ones) == (2, 1, [8, 8, *ones])
    assert quantize(-8, -7, *ones) == (3, 1, [-8, -8, *ones])
    # Clamped scales: saturated, and rounded to zero.
    assert quantize(1000) == (2, 28, [224])
    assert quantize(2.0**-9, -0.0) == (0, 2.0**-5, [0, 0])
    assert quantize(0, -0.0) == (0, 0, [0, 0])
    assert quantize(np.nan)[0] == 0


def test_m2_nvfp4_adaptive_directed():
    """Neighbouring codes of scales, and none beyond the last."""
    def quantize(*group, kind="Elem-EM"):
        form = m2_nvfp4_format(kind, 8, adaptive=True)
        q, back = first(form, *group, tensor_scale=np.float32(1))
        return q.scales[0], back

    # The scale of NVFP4 is 1 in the first three.
    assert quantize(6, 6, 6) == (0x38, [6, 6, 6])
    assert quantize(*[5.625] * 8, 6) == (0x37, [5.625] * 8 + [6.09375])
    assert quantize(6.2, *[4.5] * 7)[0] == 0x39
    assert quantize(448 * 7, kind="Sg-EM") == (0x7E, [448 * 7])
    # NVFP4's scale is 0 in these; the smallest one is better for the first.
    assert quantize(2.0**-9, -0.0) == (1, [2.0**-9, 0])
    assert quantize(2.0**-14, 0) == (0, [0, 0])
    assert quantize(0, -0.0) == (0, [0, 0])


def test_hif4():
    x = groups(30, 64, seed=13)
    rng = np.random.default_rng(14)
    # Borders of the shared exponents and of roundings, at scales around the limits.
    grid = rng.choice([0, 1, 3, 5, 7, 8, 9, 13, 15, 16, 17, 31, 32, 33, 55, 56], (60, 64)) / 8
    grid = grid * rng.choice([-1, 1], grid.shape) * 2.0 ** rng.choice(
        [-51, -49, -48, -47, 0, 13, 15, 16, 17], (60, 1))
    x = np.concatenate([x, grid.astype(np.float32)])
    x = x[np.abs(x).max(axis=-1) < 2.0**100]
    assert_bits(catalogue.FORMATS["HiF4"], x, [
        bits_of(row, hif4([abs(Fraction(v)) for v in row])) for row in x.tolist()])


def test_hif4_directed():
    """7 is both exponents and 1.75; a tie goes away from zero; what is larger saturates."""
    x = np.zeros(64, np.float32)
    x[:10] = [7, 0.5, -1.5, 3, 1, 0.875, -0.125, 0, 0.125, 0.12]
    q = catalogue.FORMATS["HiF4"].quantize(x)
    assert q.scales.tolist() == [4 * 48]
    assert q.metadata.tolist() == [3, *[0] * 7]
    assert q.elements[:10].tolist() == [7, 1, 10, 3, 2, 2, 8, 0, 1, 0]
    x *= np.float32(2.0**20)
    assert catalogue.FORMATS["HiF4"].round_trip(x)[0] == 7 * 49152


def test_ue5m3():
    x = groups(40, 16, seed=8)
    assert_bits(catalogue.FORMATS["NVFP4-UE5M3"], x, [
        bits_of(row, nv([abs(Fraction(v)) for v in row], 1, scales=E5M3)) for row in x.tolist()])


@pytest.mark.parametrize("name, divisor", [
    ("NVFP4", 6 * 448), ("NVFP4 searched", 6 * 448), ("NVFP4 four-over-six", 6 * 256),
    ("NVINT4", 7 * 448), ("IF4", 6 * 448), ("RaZeR activations", 6 * 448),
    ("M2-NVFP4 Elem-EM-8", 6 * 448), ("M2-NVFP4 Sg-EM-4", 6 * 448),
    ("M2-NVFP4 Sg-EM-4 adaptive", 6 * 448), ("RaZeR weights", 6 * 28),
])
def test_tensor_scale(name, divisor):
    x = groups(10, 16, seed=9)[10:]
    x[0, 0] = np.nan
    q = catalogue.FORMATS[name].quantize(x)
    assert q.tensor_scale == np.float32(float(np.nanmax(np.abs(x))) / divisor)
    with pytest.raises(TypeError, match="^tensor_scale must be (one )?float32, not float$"):
        catalogue.FORMATS[name].quantize(x, tensor_scale=1.0)
    if name != "NVFP4":
        with pytest.raises(ValueError, match="^tensor_scale must be finite and at least .*, not 0"):
            catalogue.FORMATS[name].quantize(x, tensor_scale=np.float32(0))


def test_searched_takes_exact_ties():
    """Of equal errors the nearest scale to NVFP4's wins, then the lower."""
    rng = np.random.default_rng(20)
    form, unit = catalogue.FORMATS["NVFP4 searched"], np.float32(0.5)
    x = np.zeros((200, 16), np.float32)
    x[:, :2] = rng.integers(1, 33, (200, 2)) / 2
    codes = form.quantize(x, tensor_scale=unit).scales[:, 0].tolist()
    moved, ties = 0, []
    for row, code in zip(x.tolist(), codes, strict=True):
        # Zeros have no error.
        group = [Fraction(v) for v in row[:2]]
        assert code == searched(group, Fraction(1, 2))[1], row
        start = nearest(max(group) / 3, E4M3)
        least, *others = sorted(error(group, rounded(group, E2M1, E4M3[start + bias] / 2))
                                for bias in range(-4, 5))
        moved += code != start
        if least == others[0]:
            ties.append(row)
    assert moved > 50 and len(ties) > 20
    # The last bit of one element decides.
    for lane, end in (0, np.inf), (0, -np.inf), (1, np.inf), (1, -np.inf):
        x = np.array(ties, np.float32)
        x[:, lane] = np.nextafter(x[:, lane], np.float32(end))
        codes = form.quantize(x, tensor_scale=unit).scales[:, 0].tolist()
        assert codes == [searched([Fraction(v) for v in row[:2]], Fraction(1, 2))[1]
                         for row in x.tolist()]


def test_searched_directed():
    def scale(*group, tensor_scale=1.0):
        q, back = first(catalogue.FORMATS["NVFP4 searched"], *group,
                        tensor_scale=np.float32(tensor_scale))
        return q.scales[0], back

    # 6 is also 4 * 1.5.
    assert scale(6) == (0x38, [6])
    # Four codes up, and one down or up.
    assert scale(6, 4.5, 4.5) == (0x3C, [6, 4.5, 4.5])
    assert scale(39, 32) == (0x4D - 1, [36, 36])
    # From a scale that rounds to 0, and none beyond the last.
    assert scale(2.0**-9, -0.0) == (1, [2.0**-9, 0])
    assert scale(0, -0.0) == (0, [0, 0])
    assert scale(6 * 448) == (0x7E, [6 * 448])
    assert scale(6 * 500) == (0x7E, [6 * 448])
    # No square of it is a float32.
    assert scale(2.0**127, 2.0**100, tensor_scale=2.0**-115)[0] == 0x7E


def test_four_over_six_directed():
    def scale(*group):
        x = np.array([*group, *[0] * (16 - len(group))], np.float32)
        form = catalogue.FORMATS["NVFP4 four-over-six"]
        return form.quantize(x, tensor_scale=np.float32(1)).scales[0]

    # 6 = 6 * 1 = 4 * 1.5 is a tie, at which 6 holds; 4.5 is 3 * 1.5 and no multiple of 1.
    assert scale(6) == 0x38
    assert scale(6, 4.5) == 0x3C
    assert scale(6, 4) == 0x38


def test_if4_directed():
    def quantize(*group):
        x = np.array([*group, *[0] * (16 - len(group))], np.float32)
        q = catalogue.FORMATS["IF4"].quantize(x, tensor_scale=np.float32(1))
        return q.scales[0], q.elements[:2].tolist()

    assert quantize(6, 0) == (0x38, [7, 0])
    assert quantize(-6, 36 / 7) == (0xB8, [9, 6])
    assert quantize(-6, 4) == (0x38, [15, 6])


def test_smx_directed():
    """A pair keeps the group's scale from 1 on; below, it takes half of it, and may saturate."""
    x = np.array([1.5, 0, 1, 0.25, 0.99, 0.125, -0.75, -0.0, 0.5, 0.374], np.float32)
    assert catalogue.FORMATS["SMX4"].round_trip(x).tolist() == [
        1.5, 0, 1, 0, 0.75, 0, -0.75, 0, 0.5, 0.25]


def test_smallest_errors_are_exact():
    """The second element decides by 2**-22 beside errors of 2**40."""
    candidates = np.array([[2**20, 1], [2**20, 2]])[:, None]
    for v, best in ((1.5 - 2.0**-23, 0), (1.5, 0), (1.5 + 2.0**-23, 1)):
        found = float_scale.least_error(np.array([[2.0**21, v]]), np.float64(1), candidates, 1)
        assert found.tolist() == [best]


@pytest.mark.parametrize("form", catalogue.FORMATS.values(), ids=lambda form: form.name)
def test_padding_zeros_and_specials(form):
    # Zeros, a group with NaN or an infinity, and a partial group.
    x = np.zeros((2, 3 * form.group - 5), np.float32)
    x[0, form.group + 3] = np.nan
    x[1, form.group + 4] = -np.inf
    x[:, form.group + 5] = x[:, -1] = -6
    q = form.quantize(x)
    assert q.elements.shape == (2, 3 * form.group) and q.scales.shape == (2, 3)
    assert q.scales[:, 0].tolist() == [0, 0]
    # E6M0 has none: where it is part of a byte, that is all ones.
    nan = 255 if form.scale.nan is None else form.scale.nan
    assert q.scales[:, 1].tolist() == [nan] * 2
    assert not q.elements[:, form.group: 2 * form.group].any()
    if form.metadata_bits:
        assert q.metadata.shape == (2, 3 * form.group // form.subgroup)
        assert not q.metadata.reshape(2, 3, -1)[:, 1].any()
    options = {"tensor_scale": np.float32(1)} if form.tensor_scale else {}
    back = form.round_trip(x, **options)
    assert back.shape == x.shape
    back = back.view(np.uint32)
    assert not back[:, : form.group].any()
    assert (back[:, form.group: 2 * form.group] == oracle.NAN).all()
    # 6 / 7 is no E4M3 or E6M2 scale; the nearest is 0.875.
    last = np.float32(-6.125 if form.name in ("NVINT4", "HiF4") else -6)
    assert (back[:, -1] == last.view(np.uint32)).all()
    # Other types and one axis.
    half = np.array([1, -6, 0.5], np.float16)
    assert np.array_equal(form.round_trip(half), form.round_trip(half.astype(np.float32)))


def test_codes_are_within_their_bits():
    for form in catalogue.FORMATS.values():
        q = form.quantize(groups(100, form.group, seed=10)[100:])
        codes = np.flatnonzero(np.isfinite(form.element.values))
        assert set(np.unique(q.elements)) <= set(codes) - set(form.element.never_encoded)
        assert q.elements.max() == codes.max()
        if form.name == "MXFP4+":
            assert q.metadata.max() == 31
        elif form.name.startswith("Sg-EE-32"):
            # The largest element hardly lets the scale of all be lowered.
            assert q.metadata.max() < 2**form.metadata_bits
        elif form.metadata_bits:
            assert q.metadata.max() == 2**form.metadata_bits - 1


@pytest.mark.parametrize("make, message", [
    (lambda: design_space.elem_em(3), r"subgroup must be one of \(2, 4, 8, 16, 32\), not 3"),
    (lambda: design_space.sg_em("8"), r"subgroup must be one of \(2, 4, 8, 16, 32\), not '8'"),
    (lambda: design_space.sg_em(bits=3), "bits must be 1 or 2, not 3"),
    (lambda: design_space.sg_ee(bits=0), "bits must be 1 or 2, not 0"),
    (lambda: design_space.sg_ee(64), r"subgroup must be one of \(2, 4, 8, 16, 32\), not 64"),
    (lambda: design_space.elem_em(top=3), "top must be 1 or 2, not 3"),
    (lambda: razer_weights(6),
     "outlier must be a multiple of 0.5 from 6.5 to 15.5, not 6"),
    (lambda: razer_weights("8"),
     "outlier must be a multiple of 0.5 from 6.5 to 15.5, not '8'"),
    (lambda: m2_nvfp4_format("Sg-EM", 32),
     r"subgroup must be one of \(2, 4, 8, 16\), not 32"),
    (lambda: m2_nvfp4_format("Sg-EE"), "kind must be 'Elem-EM' or 'Sg-EM', not 'Sg-EE'"),
    (lambda: design_space.elem_em().round_trip(np.ones(3, np.float32), rule="even"),
     r"rule must be one of \('floor', 'ceil', 'rtn1', 'rtn2'\), not 'even'"),
])
def test_wrong_parameters(make, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        make()


@pytest.mark.parametrize("form", catalogue.FORMATS.values(), ids=lambda form: form.name)
def test_wrong_type(form):
    with pytest.raises(TypeError, match="x must be a NumPy array of one of|w must be a NumPy"):
        form.round_trip([1.0])


# The command.


def test_check(capsys):
    assert command.main(["check"]) == 0
    printed = capsys.readouterr().out
    names = [*minifloats.CODECS, "M2XFP's codec", *catalogue.FORMATS]
    assert [m[1] for m in re.finditer(r"^(.+): ok", printed, re.M)] == names
    assert "  0x0    0 0.5   1 1.5   2   3   4   6\n" in printed
    assert re.search("^  0x78 +256 +288 +320 +352 +384 +416 +448 +NaN$", printed, re.M)


def test_check_fails(monkeypatch, capsys):
    wrong = minifloats.E2M3.values.copy()
    wrong[5] = 0.6
    codec = minifloats.Codec(name="E2M3", bits=6, sign="bit", count=32, values=wrong)
    assert check.check_codec(codec) == ["E2M3 0x05 is 0.6, not 0.625"]
    monkeypatch.setitem(minifloats.CODECS, "E2M3", codec)
    assert command.main(["check"]) == 1
    out, err = capsys.readouterr()
    assert err == "error: E2M3 0x05 is 0.6, not 0.625\n"
    assert "E2M3: FAILED\n" in out and "\n1 of 17 codes and" in out


def test_check_sees_a_wrong_format():
    """Values that leave under another scale than they came in."""
    form = catalogue.FORMATS["MXFP6 E2M3"]
    other = dataclasses.replace(form, decoder=catalogue.FORMATS["MXFP8 E5M2"].decoder,
                                compiled=None)
    assert check.check_format(form) == []
    wrong = check.check_format(other)
    assert len(wrong) == 253
    assert wrong[2] == "MXFP6 E2M3 changes values under scale 2.35099e-38"


def test_check_sees_wrong_special_values():
    """Which are in no other group: 8 that reads as 9, and the index of another element."""
    form = razer_weights()
    other = dataclasses.replace(form, decoder=razer_weights(9).decoder, compiled=None)
    assert check.check_format(form) == []
    assert len(check.check_format(other)) == 62
    form = catalogue.FORMATS["MXFP4+"]
    other = dataclasses.replace(form, encoder=catalogue.FORMATS["MXFP4"].quantize,
                                decoder=catalogue.FORMATS["MXFP4"].dequantize,
                                metadata_bits=0, compiled=None)
    assert len(check.check_format(other)) == 253


def test_check_sees_a_code_that_does_not_come_back(monkeypatch):
    encode = minifloats.Codec.encode
    monkeypatch.setattr(minifloats.Codec, "encode", lambda self, v: encode(self, v + 0.0))
    assert check.check_codec(minifloats.E2M1) == ["E2M1 0x08 comes back as 0x00, not 0x08"]


def test_check_sees_a_wrong_rounding(monkeypatch):
    """Rounding ties up, or dropping the sign, is found in every codec."""
    encode = minifloats.Codec.magnitude_codes

    def up(self, v):
        values = self.values[: self.count]
        return np.searchsorted((values[:-1] + values[1:]) / 2, v, "right")

    monkeypatch.setattr(minifloats.Codec, "magnitude_codes", up)
    assert all(map(check.check_codec, minifloats.CODECS.values()))
    monkeypatch.setattr(minifloats.Codec, "magnitude_codes", encode)
    assert not any(map(check.check_codec, minifloats.CODECS.values()))


def test_formats_command(capsys):
    assert command.main(["formats"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(catalogue.FORMATS)
    assert lines[1].split() == ["MXFP4", "32", "E2M1", "E8M0", "4.25"]
    page = (Path(__file__).parents[3] / "docs" / "formats.md").read_text()
    shown = page.split("    python -m golden formats\n")[1].split("```text\n")[1].split("```")[0]
    # All but the design space.
    assert shown.splitlines() == [line for line in lines if not re.match("Elem-EM|Sg-E", line)]


def test_command_complains_in_one_line(capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(["chekc"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_e2m1_ties_against_gfloat():
    for v in np.arange(-130, 131) / 16:
        code = int(minifloats.E2M1.encode(np.array([v]))[0])
        want = round_float(formats.format_info_ocp_e2m1, v, RoundMode.TiesToEven, sat=True)
        assert minifloats.E2M1.values[code] == want
