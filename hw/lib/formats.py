# SPDX-License-Identifier: BSD-2-Clause
"""Number formats: constants, payload layouts and decoding of codes. Specification sections 1, 2."""

from dataclasses import dataclass

from amaranth import *
from amaranth.lib import data

GROUP = 32
"""Elements per group: they share one scale."""

SUBGROUP = 8
"""Elements per subgroup: they share two metadata bits."""

SUBGROUPS = GROUP // SUBGROUP

SCALE_NAN = 255
"""E8M0 code of a NaN scale."""

FLOAT32_NAN = 0x7FC00000
"""The only NaN that leaves any unit."""


@dataclass(frozen=True, kw_only=True)
class FloatFormat:
    """Field widths of a binary floating-point type. Specification section 1.6.

    Parameters
    ----------
    exponent, mantissa : int
        Bits of the biased exponent and of the mantissa without its leading one.
    """

    exponent: int
    mantissa: int

    @property
    def width(self):
        """Bits of a value: sign, exponent and mantissa."""
        return 1 + self.exponent + self.mantissa


FLOATS = {
    "float32": FloatFormat(exponent=8, mantissa=23),
    "bfloat16": FloatFormat(exponent=8, mantissa=7),
    "float16": FloatFormat(exponent=5, mantissa=10),
}
"""Types of values that encoders take."""


def values_layout(input, group=GROUP):
    """Layout of the values of a group.

    Parameters
    ----------
    input : str
        Type of the values, one of `FLOATS`.
    group : int
        Elements per group.

    Returns
    -------
    data.ArrayLayout
        Element 0 is in the least significant bits.
    """
    return data.ArrayLayout(FLOATS[input].width, group)


Codes = data.ArrayLayout(4, SUBGROUP)
"""FP4 (E2M1) codes of a subgroup, element 0 in the least significant bits."""

Record = data.StructLayout({
    "elements": data.ArrayLayout(4, GROUP),
    "metadata": data.ArrayLayout(2, SUBGROUPS),
    "scale": 8,
})
"""A group record, 144 bits."""

WIDE_GROUP = 64
"""Elements per group of Sg-special64."""

WideRecord = data.StructLayout({
    "elements": data.ArrayLayout(4, WIDE_GROUP),
    "metadata": data.ArrayLayout(3, WIDE_GROUP // SUBGROUP),
    "scale": 8,
})
"""A group record of Sg-special64, 288 bits. Specification section 18.1."""

PlainRecord = data.StructLayout({"elements": data.ArrayLayout(4, GROUP), "scale": 8})
"""A group record of plain MXFP4, without metadata: 136 bits."""

NVFP4_GROUP = 16
"""Elements per block scale of NVFP4."""

NVFP4_SCALE_MAX = 0x7E
"""E4M3 code of 448, the largest scale."""

NVFP4_SCALE_NAN = 0x7F
"""E4M3 code of NaN."""

Nvfp4Record = data.StructLayout({"elements": data.ArrayLayout(4, NVFP4_GROUP), "scale": 8})
"""A group of NVFP4: 72 bits. The scale is an E4M3 code whose sign bit is 0."""



def nvfp4_row(groups):
    """Layout of neighbouring groups of NVFP4. Scales are E4M3 codes whose sign bit is 0."""
    return data.StructLayout({
        "elements": data.ArrayLayout(4, NVFP4_GROUP * groups),
        "scales": data.ArrayLayout(8, groups),
    })


ENCODINGS = ("elem-em", "sg-em", "sg-special", "sg-special64")
"""Meanings of activations' metadata, see `golden.Quantized`: a refined element per subgroup, a
factor per subgroup, that with special values, and that in groups of 64 with wider factors. Weights
have factors in all of them, and are as activations in the last two."""


def has_specials(encoding):
    """Whether code 8 is a special value of its group in an encoding."""
    return encoding in ("sg-special", "sg-special64")


def is_wide(encoding):
    """Whether an encoding has groups of 64."""
    return encoding == "sg-special64"


def group_of(encoding):
    """Elements per group of an encoding."""
    return WIDE_GROUP if is_wide(encoding) else GROUP


def record_of(encoding):
    """Layout of a group's record in an encoding."""
    return WideRecord if is_wide(encoding) else Record


DecodedE2M1 = data.StructLayout({
    "mantissa": 1,
    # Whether the exponent is at least 1, at least 2, or 3.
    "normal": 1,
    "upper": 1,
    "top": 1,
    "negative": 1,
})
"""An FP4 code as a multiplier takes it: mantissa, exponent as a thermometer code, sign."""


def decode_e2m1(code):
    """Decodes an FP4 code to a `DecodedE2M1`."""
    return data.View(DecodedE2M1, Cat(code[0], code[1:3].any(), code[2], code[1:3].all(), code[3]))


DecodedSpecial = data.StructLayout({
    **{name: field.shape for name, field in DecodedE2M1},
    # The significand's bit of value 4. ``normal`` is 0 where it is set, ``mantissa`` may be 1.
    "special": 1,
})
"""The fields of `DecodedE2M1` where code 8 is a special value. Specification section 12."""


def decode_special(m, code, selector, *, name, five=None):
    """Decodes an FP4 code to a `DecodedSpecial`: code 8 is a special value.

    Parameters
    ----------
    m : Module
    code : Value
    selector : Value
        The special value: 0 is +5, 1 is -5, 2 is +8, 3 is -8.
    name : str
        Prefix of the signals' names.
    five : Value, optional
        Whether the special value is +5 or -5, if a register has that beside the selector.

    Returns
    -------
    Signal
    """
    decoded = Signal(DecodedSpecial, name=name)
    nonzero = Signal(name=f"{name}_nonzero")
    negative, eight = selector
    five = ~eight if five is None else five
    # In halves 5 is 5 << 1 and 8 is 4 << 2. The shifts are those of E2M1; the significands 5 and 4
    # are not, and need the bit ``special``.
    m.d.comb += [
        nonzero.eq(code[:3].any()),
        decoded.special.eq(code[3] & ~nonzero),
        decoded.mantissa.eq(code[0] | (decoded.special & five)),
        decoded.normal.eq(code[1:3].any()),
        decoded.upper.eq(code[2] | decoded.special),
        decoded.top.eq(code[1:3].all() | (decoded.special & eight)),
        decoded.negative.eq(code[3] & (nonzero | negative)),
    ]
    return decoded


def special_scale(byte):
    """E8M0 code of the scale byte of Sg-special. Specification section 12.1.

    Parameters
    ----------
    byte : Value

    Returns
    -------
    Value
        The byte's six upper bits plus 96: 128 more where the first one is set, else 96. 255 stays.
    """
    first = byte[7]
    return Mux(byte == SCALE_NAN, SCALE_NAN, Cat(byte[2:7], ~first, ~first, first))


def check_encoding(encoding):
    """Raises ValueError unless a unit's parameter ``encoding`` is one of `ENCODINGS`."""
    if encoding not in ENCODINGS:
        allowed = f"{', '.join(map(repr, ENCODINGS[:-1]))} or {ENCODINGS[-1]!r}"
        raise ValueError(f"Encoding must be {allowed}, not {encoding!r}")


def check_plain(metadata, encoding):
    """Raises ValueError if a unit for plain MXFP4, without metadata, is to have an encoding."""
    if not metadata and encoding != ENCODINGS[0]:
        raise ValueError(f"Encoding must be {ENCODINGS[0]!r} without metadata, not {encoding!r}")


def check_metadata(metadata):
    """Raises TypeError unless a unit's parameter ``metadata`` is True or False."""
    if type(metadata) is not bool:
        raise TypeError(f"Metadata must be True or False, not {metadata!r}")


def e2m1_significand(code):
    """Two-bit significand of an FP4 code; twice its magnitude is significand << shift."""
    return Cat(code[0], code[1:3].any())


def e2m1_shift(code):
    """Shift of an FP4 code, see `e2m1_significand`: 0, 0, 1 or 2 by exponent."""
    return Cat(code[1:3] == 2, code[1:3] == 3)
