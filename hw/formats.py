"""The format's constants and payload layouts (specification sections 1 and 2)."""

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
