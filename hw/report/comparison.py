# SPDX-License-Identifier: BSD-2-Clause
"""Compares the area, delay and energy of formats, or of ways of mapping."""

from collections.abc import Sequence
from typing import Any

Row = tuple[str, str, str, tuple[str, ...], float]
"""Part, format or way of mapping, unit, its settings, and number of units."""


def format_units(columns: str) -> list[Row]:
    """The units by which the formats are compared.

    Parameters
    ----------
    columns : str
        Columns of the arrays.

    Returns
    -------
    list of tuple
        Part, format, unit, settings, and the number of such units that do the same work as one
        unit of MXFP4, which is the first of its part.
    """
    plain, array = "metadata=False", f"columns={columns}"
    return [
        ("tile, 8 MACs", "MXFP4", "pe_tile", (plain,), 1),
        ("tile, 8 MACs", "NVFP4", "nvfp4_pe_tile", (), 1),
        ("tile, 8 MACs", "NVFP4", "nvfp4_pe_tile", ("lanes=16",), 1 / 2),
        ("tile, 8 MACs", "M2XFP", "pe_tile", (), 1),
        ("tile, 8 MACs", "M2XFP Sg-EM", "sg_pe_tile", (), 1),
        ("tile, 8 MACs", "M2XFP Sg-special", "sg_pe_tile", ("special=True",), 1),
        ("tile, 8 MACs", "M2XFP Sg-special64", "sg_pe_tile", ("special=True", "exponent=True"), 1),
        ("quantizer, 32 values", "MXFP4", "quantization_engine", (plain,), 1),
        ("quantizer, 32 values", "NVFP4", "nvfp4_quantizer", (), 2),
        ("quantizer, 32 values", "M2XFP", "quantization_engine", (), 1),
        ("quantizer, 32 values", "M2XFP Sg-EM", "sg_engine", ("cycles=1",), 1),
        (f"array, columns: {columns}", "MXFP4", "mac_array", (array, plain), 1),
        (f"array, columns: {columns}", "NVFP4", "nvfp4_array", (array,), 1),
        # A column has 64 multipliers, here and in Sg-special64.
        (f"array, columns: {columns}", "NVFP4", "nvfp4_array", (array, "groups=4"), 1 / 2),
        (f"array, columns: {columns}", "RaZeR", "nvfp4_array", (array, "encoding=razer"), 1),
        (f"array, columns: {columns}", "M2XFP", "mac_array", (array,), 1),
        (f"array, columns: {columns}", "M2XFP Sg-EM", "mac_array", (array, "encoding=sg-em"), 1),
        (f"array, columns: {columns}", "M2XFP Sg-special", "mac_array",
         (array, "encoding=sg-special"), 1),
        (f"array, columns: {columns}", "M2XFP Sg-special64", "mac_array",
         (array, "encoding=sg-special64"), 1 / 2),
    ]


DIGITS = 0, 3, 1
"""Digits behind the point of areas in um2, delays in ns and energies in fJ."""

FLATTEN = "--flatten"
"""Among the settings, this marks a unit that is mapped as a whole."""


def mapping_units(columns: str) -> list[Row]:
    """An array mapped module by module and as a whole, in the form of `format_units`."""
    array = f"columns={columns}"
    return [(f"array, columns: {columns}", "by module", "mac_array", (array,), 1),
            (f"array, columns: {columns}", "flattened", "mac_array", (array, FLATTEN), 1)]


AMAP = "--amap"
"""Among the settings, this marks a unit that ABC maps for area with ``amap``."""


def mapper_units(columns: str) -> list[Row]:
    """Units mapped for area with ABC's ``&nf`` and ``amap``, in the form of `format_units`."""
    plain, array = "metadata=False", f"columns={columns}"
    units: list[tuple[str, str, tuple[str, ...]]] = [
        ("tile, MXFP4", "pe_tile", (plain,)),
        ("tile, M2XFP", "pe_tile", ()),
        ("engine's core, MXFP4", "quantization_engine", ("depth=0", plain)),
        ("engine's core, M2XFP", "quantization_engine", ("depth=0",)),
        (f"array, columns: {columns}, MXFP4", "mac_array", (array, plain)),
        (f"array, columns: {columns}, M2XFP", "mac_array", (array,)),
    ]
    return [(part, mapper, name, settings + marked, 1) for part, name, settings in units
            for mapper, marked in (("&nf", ()), ("amap", (AMAP,)))]


def compare(rows: Sequence[Row], results: dict[str, Any]) -> tuple[bool, list[tuple]]:
    """Areas, delays and, if they were estimated, energies, with ratios.

    Parameters
    ----------
    rows : list of tuple
        From `format_units`, `mapping_units` or `mapper_units`.
    results : dict
        As `hw.report.text_tables.table` takes it, units by `label`.

    Returns
    -------
    energies : bool
        Whether the results have energies.
    compared : list of tuple
        Part, format, unit with its settings, count, figures, and ratios as texts. The figures are
        area in um2, delay in ns and, if the results have it, energy in fJ. Ratios are to the
        first row of the part.
    """
    energies = all("power" in unit for unit in results["units"].values())
    compared: list[tuple] = []
    base: tuple[float, ...] = ()
    before = None
    for part, format, name, settings, count in rows:
        unit = results["units"][label(name, settings)]
        figures: tuple[float, ...] = (count * unit["area_um2"], 1000 / unit["fmax_io_mhz"])
        if energies:
            # The energy of one MAC or value does not depend on the number of units.
            figures += unit["power"]["real"]["energy_per_operation_fj"],
        if part != before:
            base = figures
        compared.append((part, format, label(name, settings) + "*" * unit["hierarchical"], count,
                         figures, [f"{figure / of:.2f}"
                                   for figure, of in zip(figures, base, strict=True)]))
        before = part
    return energies, compared


def label(name: str, settings: Sequence[str]) -> str:
    """A unit's name and settings in one text."""
    return " ".join((name, *settings))
