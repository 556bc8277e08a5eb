# SPDX-License-Identifier: BSD-2-Clause
"""What tools read to find the files of a unit: filelist, FuseSoC core and Bender manifest."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from golden.output import locked

from ..tools.files import write
from .registers import LIBRARY, VENDOR

BENDER = "Bender.yml"


def filelist(sources: Sequence[str]) -> str:
    """The Verilog files, a line each, as simulators and synthesizers take them with ``-f``."""
    return "".join(f"{source}\n" for source in sources)


def fusesoc(description: Mapping[str, Any]) -> str:
    """The FuseSoC core of a unit (CAPI2).

    Parameters
    ----------
    description : dict
        With "files", see `hw.kit.files`.

    Returns
    -------
    str
        With the targets ``default`` and ``lint``, and ``sim`` if there is a testbench.
    """
    name, files = description["unit"], description["files"]
    top = description["axi"]["module"] if description["axi"] else name
    version = description["versions"]["m2xfp-rtl"]
    models = files["memory_models"]
    # The flag `macros` leaves the models out, for a chip that has macros.
    rtl = 'rtl, "!macros? (memory_models)"' if models else "rtl"
    lines = ["CAPI=2:",
             "# SPDX-License-Identifier: BSD-2-Clause",
             f"name: {VENDOR}:{LIBRARY}:{name}:{version}",
             f"description: {json.dumps(description['summary'] or name)}",
             "",
             "filesets:",
             "  rtl:",
             "    files:",
             *(f"      - {file}" for file in files["verilog"] if file not in models),
             "    file_type: verilogSource",
             *(["  memory_models:", "    files:", *(f"      - {file}" for file in models),
                "    file_type: verilogSource"] if models else []),
             "  constraints:",
             "    files:",
             f"      - {files['sdc'][-1]}",
             "    file_type: SDC"]
    bench = files["testbench"]
    if bench:
        # FuseSoC keeps sources in a folder of the core; the vectors are read from where it runs.
        lines += ["  bench:",
                  "    files:",
                  *(f"      - {file}: {{file_type: user, copyto: {file}}}"
                    if file.endswith(".hex") else f"      - {file}: "
                    "{file_type: systemVerilogSource}" for file in bench)]
    lines += ["",
              "targets:",
              "  default:",
              f"    filesets: [{rtl}, constraints]",
              f"    toplevel: {top}",
              "  lint:",
              f"    filesets: [{rtl}]",
              "    flow: lint",
              "    flow_options:",
              "      tool: verilator",
              # Verilator 5.006 sees a loop in `mac_array`; 5.48 and Yosys know that there is none.
              "      verilator_options: [-Wall, -Wno-UNOPTFLAT]",
              f"    toplevel: {top}"]
    if bench:
        lines += ["  sim:",
                  f"    filesets: [{rtl}, bench]",
                  "    flow: sim",
                  "    flow_options:",
                  "      tool: icarus",
                  "      iverilog_options: [-g2012]",
                  "      mode: binary",
                  "      verilator_options: [--timing, -Wno-UNOPTFLAT]",
                  f"    toplevel: {name}_tb"]
    return "\n".join([*lines, ""])


def bender(folder: Path) -> Path | None:
    """Writes the Bender manifest of a folder: one package with a target for each unit.

    The units are those with a description ``NAME.json`` whose Verilog is there, so it grows with
    each run of `hw.generate` into the folder.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    Path or None
        The manifest; None if there is no unit.
    """
    # Others may generate into the folder: the last of them sees the units of all.
    with locked(folder):
        return _bender(folder)


def _is_source(folder, name):
    try:
        return (isinstance(name, str) and name.isprintable() and Path(name).name == name
                and (folder / name).is_file())
    except OSError:
        # It is too long, for example.
        return False


def _bender(folder):
    units = {}
    for path in sorted(folder.glob("*.json")):
        try:
            description = json.loads(path.read_text(encoding="utf-8"))
            files = description["files"]
            lists = [files[kind] for kind in ("verilog", "testbench", "memory_models")]
            unit = description["unit"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            # Some other file, such as the figures of `python -m hw`.
            continue
        if unit == path.stem and all(
                isinstance(names, list) and all(_is_source(folder, name) for name in names)
                for names in lists):
            units[unit] = description
    if not units:
        return None
    lines = ["# SPDX-License-Identifier: BSD-2-Clause",
             "# Each unit is a target of its own name: bender script verilator -t UNIT",
             "package:",
             f"  name: {VENDOR}_{LIBRARY}",
             "  authors: [m2xfp-rtl]",
             "",
             "sources:"]
    for unit, description in units.items():
        files = description["files"]
        lines += [f"  - target: {unit}",
                  "    files:",
                  *(f"      - {file}" for file in files["verilog"]
                    if file not in files["memory_models"])]
        if files["memory_models"]:
            lines += [f"  - target: all({unit}, not(macros))",
                      "    files:",
                      *(f"      - {file}" for file in files["memory_models"])]
        if bench := [file for file in files["testbench"] if file.endswith(".sv")]:
            lines += [f"  - target: all({unit}, simulation)",
                      "    files:",
                      *(f"      - {file}" for file in bench)]
    write(folder / BENDER, "\n".join([*lines, ""]))
    return folder / BENDER
