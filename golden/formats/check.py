# SPDX-License-Identifier: BSD-2-Clause
"""Checks that every code and every scale of the formats round-trips, ``python -m golden check``.

The command also prints the value of every code.
"""

import re
import sys
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from ..codec.numbers import e2m1_integers, e2m3_integers, round_magnitude
from ..command import Parser, run
from ..units.nvfp4_quantizer import E4M3_VALUES
from . import catalogue
from .format import Format
from .minifloats import CODECS, E2M1, E2M3, UE4M3, Codec


@run
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 1 if a check failed, else 0."""
    parser().parse_args(arguments)
    for codec in CODECS.values():
        print(table(codec) + "\n")
    failed = 0
    for name, wrong in check().items():
        failed += bool(wrong)
        for line in wrong:
            print(f"error: {line}", file=sys.stderr)
        exceptions = CODECS[name].never_encoded if name in CODECS else {}
        # Those with a sign read alike.
        text = ", ".join(f"0x{a:02x} as 0x{b:02x}" for a, b in exceptions.items())
        print(f"{name}: {'FAILED' if wrong else 'ok'}"
              + (f" (never written, comes back otherwise: {text})" if text else ""))
    print(f"{failed} of {len(CODECS)} codes and {len(catalogue.FORMATS)} formats failed")
    return int(failed > 0)


def parser() -> Parser:
    """The command's parser."""
    return Parser(prog="python -m golden check",
                  description="Prints the value of every code, and proves that every code and "
                              "every scale of every format round-trips.")


def table(codec: Codec) -> str:
    """The values of a codec's codes as text.

    Codes with a sign bit that is set are left out: they have the same magnitudes.
    """
    codes = np.arange(len(codec.values) // (1 + (codec.sign == "bit")))
    if codec.name == "E8M0":
        cells = ["NaN" if c == codec.nan else f"2^{c - 127}" for c in codes]
    else:
        # All digits.
        cells = ["NaN" if v != v else repr(v).removesuffix(".0")
                 for v in codec.values[codes].tolist()]
    columns = 16 if codec.name == "E8M0" else 8
    width = max(map(len, cells))
    digits = 2 if codec.bits > 4 else 1
    note = ", sign in the uppermost bit" if codec.sign == "bit" else ""
    lines = [f"{codec.name}: {codec.bits} bits{note}"]
    for start in range(0, len(cells), columns):
        row = " ".join(f"{cell:>{width}}" for cell in cells[start: start + columns])
        lines.append(f"  0x{start:0{digits}x}  {row}")
    return "\n".join(lines)


def check_codec(codec: Codec) -> list[str]:
    """Checks a codec's values, round trips, ties and corners.

    Parameters
    ----------
    codec : Codec

    Returns
    -------
    list of str
        One line per wrong code, empty if all is right.
    """
    codes = np.arange(2**codec.bits)
    with np.errstate(invalid="ignore"):
        back = codec.encode(codec.decode(codes)).tolist()
    wrong = []
    for code in codes.tolist():
        value, expected = float(codec.values[code]), _value(codec, code)
        if repr(value) != repr(expected):
            wrong.append(f"{codec.name} 0x{code:02x} is {value}, not {expected}")
        expected = codec.never_encoded.get(code, code)
        if back[code] != expected:
            wrong.append(f"{codec.name} 0x{code:02x} comes back as 0x{back[code]:02x}, "
                         f"not 0x{expected:02x}")

    lower = codes[: codec.count - 1]
    middle = (codec.values[lower] + codec.values[lower + 1]) / 2
    largest = codec.count - 1
    corners = [(np.nextafter(middle, 0), lower), (middle, lower + (lower & 1)),
               (np.nextafter(middle, np.inf), lower + 1),
               (np.array([1.5 * codec.largest, 2.0**1000]), np.array([largest, largest]))]
    for v, expected in corners:
        wrong += _differences(codec, v, expected)
        if codec.sign == "bit":
            wrong += _differences(codec, -v, expected | 1 << codec.bits - 1)
        elif codec.sign == "two":
            wrong += _differences(codec, -v, -expected & 2**codec.bits - 1)
    return wrong


def _differences(codec, v, expected):
    return [f"{codec.name} of {a} is 0x{b:02x}, not 0x{c:02x}" for a, b, c in
            zip(v.tolist(), codec.encode(v).tolist(), expected.tolist(), strict=True) if b != c]


def _value(codec, code):
    """A code's value, worked out from its fields and not from the codec's table."""
    name = codec.name
    if codec.sign == "two":
        signed = code - (code >> codec.bits - 1 << codec.bits)
        # MXINT8 has six bits behind the point.
        return signed / (64 if codec.bits == 8 else 1)
    negative = codec.sign == "bit" and code >> codec.bits - 1
    magnitude = code & 2 ** (codec.bits - 1) - 1 if codec.sign == "bit" else code
    if name.startswith("S1P"):
        value = Fraction(magnitude, 2 ** int(name[3:]))
    else:
        e_bits, m_bits = map(int, re.search(r"E(\d)M(\d)", name).groups())
        exponent, mantissa = divmod(magnitude, 2**m_bits)
        if name == "E8M0":
            value = None if code == 255 else Fraction(2) ** (code - 127)
        elif name == "E6M0":
            value = Fraction(2) ** (code - 31)
        elif name == "E6M2":
            value = None if code == 255 else (1 + Fraction(mantissa, 4)) * Fraction(2) ** (
                exponent - 48)
        elif name == "E5M2" and exponent == 31:
            value = np.inf if mantissa == 0 else None
        elif name == "E0M3":
            value = 4 + Fraction(mantissa, 2)
        elif (name in ("E4M3", "UE3M3", "UE4M3", "UE5M3")
              and magnitude == 2 ** (e_bits + m_bits) - 1):
            value = None
        else:
            bias = 2 ** (e_bits - 1) - 1
            hidden = Fraction(mantissa, 2**m_bits) + (exponent > 0)
            value = hidden * Fraction(2) ** (max(exponent, 1) - bias)
    if value is None:
        return float("nan")
    return -float(value) if negative else float(value)


def check_codec_of_m2xfp() -> list[str]:
    """Compares the codecs with the tables and the rounding that M2XFP's codec and NVFP4 use.

    Returns
    -------
    list of str
        One line per difference, empty if there is none.
    """
    wrong = []
    for codec, values in (E2M1, e2m1_integers(np.arange(8)) / 2), (
            E2M3, e2m3_integers(np.arange(32)) / 8), (UE4M3, E4M3_VALUES):
        if codec.values[: codec.count].tolist() != values.tolist():
            wrong.append(f"{codec.name} has other values elsewhere")
    # Sixteenths are ties of both; some lie beyond the largest value.
    v = np.arange(16 * 20) / 16
    for codec, mantissa in (E2M1, 1), (E2M3, 3):
        if (codec.magnitude_codes(v) != round_magnitude(v, mantissa)).any():
            wrong.append(f"{codec.name} is rounded otherwise elsewhere")
    return wrong


def check_format(form: Format) -> list[str]:
    """Checks that a format gives back the values that it can represent.

    Every element code stands beside the largest element, under every scale that is not 0 and under
    which the largest element is within float32. The group must read back as itself, and so must
    groups of special values. IF4's integers are not tried: times 6/7 they are no float32.

    Parameters
    ----------
    form : Format

    Returns
    -------
    list of str
        One line per wrong scale, empty if all is right.
    """
    element, scale = form.element, form.scale
    values = np.delete(element.values, list(element.never_encoded))
    values = values[np.isfinite(values)]
    # Every pair holds the largest one, so that groups and subgroups of any size do.
    row = np.stack([np.full(len(values), element.largest), values], axis=1).reshape(-1)
    row = np.concatenate([row, np.full(-len(row) % form.group, element.largest)])
    row *= 2.0**form.shared_exponents
    if form.special_groups is not None:
        row = np.concatenate([row, form.special_groups.reshape(-1)])
    scales = scale.values[: scale.count]
    scales = scales[(scales > 0) & (scales * row.max() < 2.0**128)]
    x = (scales[:, None] * row).astype(np.float32)
    if not form.zero_signs:
        # -0 becomes +0.
        x += 0
    options = {"tensor_scale": np.float32(1)} if form.tensor_scale else {}
    differ = (form.round_trip(x, **options).view(np.uint32) != x.view(np.uint32)).any(axis=-1)
    return [f"{form.name} changes values under scale {s:g}" for s in scales[differ].tolist()]


def check() -> dict[str, list[str]]:
    """Runs all checks.

    Returns
    -------
    dict of str to list of str
        What is wrong, by the name of the codec or format.
    """
    results = {codec.name: check_codec(codec) for codec in CODECS.values()}
    results["M2XFP's codec"] = check_codec_of_m2xfp()
    return results | {form.name: check_format(form) for form in catalogue.FORMATS.values()}
