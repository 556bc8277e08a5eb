# SPDX-License-Identifier: BSD-2-Clause
"""What formats, or ways of mapping, cost side by side."""


def format_units(columns):
    """What the formats are compared by.

    Parameters
    ----------
    columns : str
        Columns of the arrays.

    Returns
    -------
    list of tuple
        What is built, of which format, the unit and its settings, and how many of it do the same
        work as one of MXFP4, which comes first.
    """
    plain, array = "metadata=False", f"columns={columns}"
    return [
        ("tile, 8 MACs", "MXFP4", "pe_tile", (plain,), 1),
        ("tile, 8 MACs", "NVFP4", "nvfp4_pe_tile", (), 1),
        ("tile, 8 MACs", "NVFP4", "nvfp4_pe_tile", ("lanes=16",), 1 / 2),
        ("tile, 8 MACs", "M2XFP", "pe_tile", (), 1),
        ("tile, 8 MACs", "M2XFP Sg-EM", "sg_pe_tile", (), 1),
        ("tile, 8 MACs", "M2XFP Sg-special", "sg_pe_tile", ("special=True",), 1),
        ("quantizer, 32 values", "MXFP4", "quantization_engine", (plain,), 1),
        ("quantizer, 32 values", "NVFP4", "nvfp4_quantizer", (), 2),
        ("quantizer, 32 values", "M2XFP", "quantization_engine", (), 1),
        (f"array, columns: {columns}", "MXFP4", "mac_array", (array, plain), 1),
        (f"array, columns: {columns}", "M2XFP", "mac_array", (array,), 1),
    ]


FLATTEN = "--flatten"
"""Stands among the settings of a unit that is mapped as a whole."""


def mapping_units(columns):
    """An array mapped module by module and as a whole; as of `format_units`."""
    array = f"columns={columns}"
    return [(f"array, columns: {columns}", "by module", "mac_array", (array,), 1),
            (f"array, columns: {columns}", "flattened", "mac_array", (array, FLATTEN), 1)]


AMAP = "--amap"
"""Stands among the settings of a unit whose area is that of ABC's other mapper."""


def mapper_units(columns):
    """Units mapped for area as Yosys does and by ABC's ``amap``; as of `format_units`."""
    plain, array = "metadata=False", f"columns={columns}"
    units = [
        ("tile, MXFP4", "pe_tile", (plain,)),
        ("tile, M2XFP", "pe_tile", ()),
        ("engine's core, MXFP4", "quantization_engine", ("depth=0", plain)),
        ("engine's core, M2XFP", "quantization_engine", ("depth=0",)),
        (f"array, columns: {columns}, MXFP4", "mac_array", (array, plain)),
        (f"array, columns: {columns}, M2XFP", "mac_array", (array,)),
    ]
    return [(part, mapper, name, settings + marked, 1) for part, name, settings in units
            for mapper, marked in (("&nf", ()), ("amap", (AMAP,)))]


def compare(rows, results):
    """Areas, delays and, where there are any, energies.

    Parameters
    ----------
    rows : list of tuple
        What `format_units`, `mapping_units` or `mapper_units` gives.
    results : dict
        As of `hw.report.text_tables.table`, units by `label`.

    Returns
    -------
    energies : bool
        Whether there are any.
    compared : list of tuple
        Part, format, unit with its settings, count, the figures and their ratios as texts. The
        figures are area in um2, delay in ns and, with energies, that in fJ.
    """
    energies = all("power" in unit for unit in results["units"].values())
    compared, base, before = [], None, None
    for part, format, name, settings, count in rows:
        unit = results["units"][label(name, settings)]
        figures = (count * unit["area_um2"], 1000 / unit["fmax_io_mhz"])
        if energies:
            # Of one MAC or value, so that it does not matter how many units there are.
            figures += unit["power"]["real"]["energy_per_operation_fj"],
        if part != before:
            base = figures
        compared.append((part, format, label(name, settings) + "*" * unit["hierarchical"], count,
                         figures, [f"{figure / of:.2f}"
                                   for figure, of in zip(figures, base, strict=True)]))
        before = part
    return energies, compared


def label(name, settings):
    """A unit's name and settings in one text."""
    return " ".join((name, *settings))
