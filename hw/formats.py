"""The format's constants and payload layouts (specification sections 1 and 2)."""

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

Codes = data.ArrayLayout(4, SUBGROUP)
"""FP4 (E2M1) codes of a subgroup, element 0 in the least significant bits."""

Record = data.StructLayout({
    "elements": data.ArrayLayout(4, GROUP),
    "metadata": data.ArrayLayout(2, SUBGROUPS),
    "scale": 8,
})
"""A group record, 144 bits."""

PlainRecord = data.StructLayout({"elements": data.ArrayLayout(4, GROUP), "scale": 8})
"""A group record of plain MXFP4, without metadata: 136 bits."""

NVFP4_GROUP = 16
"""Elements per block scale of NVFP4."""

NVFP4_SCALE_MAX = 0x7E
"""E4M3 code of 448, the largest scale."""

NVFP4_SCALE_NAN = 0x7F

Nvfp4Record = data.StructLayout({"elements": data.ArrayLayout(4, NVFP4_GROUP), "scale": 8})
"""A group of NVFP4: 72 bits. The scale is an E4M3 code whose sign bit is 0."""


DecodedE2M1 = data.StructLayout({
    "mantissa": 1,
    # Whether the exponent is at least 1, at least 2, or 3.
    "normal": 1,
    "upper": 1,
    "top": 1,
    "negative": 1,
})
"""What multiplies of an FP4 code."""


def decode_e2m1(code):
    """An FP4 code as a `DecodedE2M1`."""
    return data.View(DecodedE2M1, Cat(code[0], code[1:3].any(), code[2], code[1:3].all(), code[3]))


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
