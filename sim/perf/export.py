# SPDX-License-Identifier: BSD-2-Clause
"""Writes area, power and energy per action as files that other tools read.

One folder has a file, or a few, for each tool: hwcomponents (which AccelForge asks), Timeloop 4
with Accelergy's tables, ZigZag, Stream, and BitFusion. All have the figures of `sim.perf.costs`.
"""

import csv
import io
import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from golden.output import new_folder

from . import costs, export_zigzag
from .costs import Part
from .machine import Machine
from .yaml import dumped


def export(folder: Path, machine: Machine, command: str) -> list[str]:
    """Writes the folder, whole or not at all.

    Parameters
    ----------
    folder : Path
        Nothing may be there.
    machine : Machine
    command : str
        The command line, for the files' heads.

    Returns
    -------
    list of str
        Names of the files in it.

    Raises
    ------
    ValueError
        If a tool cannot state the format's bits.
    """
    contents = files(machine, command)
    with new_folder(folder) as part:
        for name, text in contents.items():
            path = part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return [*contents]


def files(machine: Machine, command: str) -> dict[str, str]:
    """The contents of the files, by their names inside the folder."""
    found, head = costs.parts(machine), _head(machine, command)
    name = costs.prefix(machine)
    package = f"hwcomponents/hwcomponents_{name}"
    contents = {
        "README.md": _readme(machine, found, command),
        "costs.json": json.dumps(_all(machine, found, command), indent=1) + "\n",
        "hwcomponents/pyproject.toml": _PROJECT.format(name=name, format=machine.format),
        f"{package}/__init__.py": _models(machine, found, command),
        "timeloop/components.yaml": dumped(_compound(machine, found), head),
        f"timeloop/{name}.table.yaml": dumped(
            {"name": f"{name}_tables", "technology": "45nm", "accuracy": 100,
             "path_to_data_dir": "./data"}, head),
    }
    for part in _timeloop_parts(machine, found):
        contents[f"timeloop/data/{part.name}_table.csv"] = _table(machine, part)
    contents |= {f"zigzag/{name}": dumped(value, f"{head}\n{comment}") for name, value, comment
                 in export_zigzag.zigzag(machine, found)}
    contents |= {f"stream/{name}": dumped(value, f"{head}\n{comment}") for name, value, comment
                 in export_zigzag.stream(machine, found)}
    contents["bitfusion/systolic_array_synth.csv"] = _bitfusion(machine, found)
    return contents


def _head(machine: Machine, command: str) -> str:
    return (f"{command}\nm2xfp-rtl, {machine.format} on {machine.name}. Sources of the figures are "
            "in README.md and costs.json.")


def _all(machine: Machine, found: Sequence[Part], command: str) -> dict[str, Any]:
    return {"command": command, "format": machine.format, "bits": machine.hardware.bits,
            "clock_mhz": machine.clock_mhz, "columns": machine.config.columns, **costs.run(),
            "units": {"area": "um2", "power": "mW", "energy": "pJ", "width": "bit"},
            "parts": [asdict(part) for part in found]}


# hwcomponents: a package with one class for each part, found by installing it.

_PROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "hwcomponents-{name}"
version = "1.0"
description = "Area, energy and leakage of {format} hardware of m2xfp-rtl, for hwcomponents"
dependencies = ["hwcomponents>=1.0.91"]

[tool.setuptools]
packages = ["hwcomponents_{name}"]
"""

_MODULE = '''\
"""{text}

Energies are in joules, powers in watts, areas in square metres. `leak_power` is the power that is
there all the time: leakage, and the clock of what waits. Throughputs are of one action per clock
cycle, latencies are a cycle, without the depth of pipelines; DRAM's is its own.

{command}
"""

from hwcomponents import ActionCost, ComponentModel, action
'''

_CLASS = '''

class {title}(ComponentModel):
    """{text}
    """

    component_name = "{name}"
    priority = 0.9

    def __init__(self{parameters}) -> None:
        super().__init__(leak_power={leak}, area={area})
'''

_ACTION = '''
    @action{bits}
    def {name}(self) -> ActionCost:
        """{text}."""
        return ActionCost(energy={energy}, latency={latency}, throughput={throughput})
'''


def _models(machine: Machine, found: Sequence[Part], command: str) -> str:
    text = _MODULE.format(text=f"Hardware of m2xfp-rtl for {machine.format}, on {machine.name}.",
                          command=command)
    return text + "".join(_model(machine, part) for part in [*found, costs.mac(machine)])


def _model(machine: Machine, part: Part) -> str:
    cycle = 1e-6 / machine.clock_mhz
    latency = 1e-9 * machine.dram["latency_ns"] if part.kind == "dram" else cycle
    # The width is the caller's; energies are per bit then.
    about = f"{part.text[0].upper()}{part.text[1:]}. Source: {part.source}."
    text = _CLASS.format(title=_title(part.name), name=part.name,
                         text=textwrap.fill(about, 92, subsequent_indent="    "),
                         parameters=f", width: int = {part.width}" * bool(part.width),
                         leak=_number(1e-3 * part.standing_mw), area=_number(1e-12 * part.area_um2))
    if part.width:
        text += "        self.width = width\n"
    for name, energy in part.actions.items():
        per_bit = f"{_number(1e-12 * energy / part.width)} * self.width" if part.width else None
        text += _ACTION.format(
            name=name, bits='(bits_per_action="width")' * bool(part.width),
            text=f"{name.capitalize()}s `width` bits" if part.width else _ACTIONS[name],
            energy=per_bit or _number(1e-12 * energy), latency=_number(latency),
            throughput=_number(1 / cycle))
    return text


def _number(value: float) -> str:
    """A number with twelve digits, as a float in Python."""
    return repr(float(f"{value:.12g}"))


_ACTIONS = {"step": "Multiplies a group of activations with a group of weights of each column",
            "compute": "Multiplies and adds once",
            "encode": "Encodes one value"}


def _title(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


# Timeloop 4: compound components, and the tables that Accelergy's table plug-in reads.

def _timeloop_parts(machine: Machine, found: Sequence[Part]) -> list[Part]:
    """Timeloop counts single MACs."""
    return [costs.mac(machine) if part.kind == "compute" else part for part in found]


def _compound(machine: Machine, found: Sequence[Part]) -> dict[str, Any]:
    return {"compound_components": {"version": 0.4, "classes": [
        _class(machine, part) for part in _timeloop_parts(machine, found)]}}


def _class(machine: Machine, part: Part) -> dict[str, Any]:
    """A class with one subcomponent, which is in the tables; its actions are the table's."""
    attributes: dict[str, Any] = {"technology": "45nm",
                                  "global_cycle_seconds": 1e-6 / machine.clock_mhz}
    if part.width:
        attributes |= {"width": part.width, "datawidth": part.width}
    if part.bits:
        attributes["depth"] = part.bits // part.width
    return {"name": part.name, "attributes": attributes,
            "subcomponents": [{"name": "table", "class": f"{part.name}_table",
                               "attributes": {name: name for name in attributes}}],
            "actions": [{"name": name, "subcomponents": [
                {"name": "table", "actions": [{"name": name}]}]}
                for name in _energies(machine, part)]}


def _energies(machine: Machine, part: Part) -> dict[str, float]:
    """Actions as Timeloop names them: a storage's update is a write, and all leak each cycle."""
    energies = dict(part.actions)
    if "write" in energies:
        energies["update"] = energies["write"]
    # mW over MHz are nJ per cycle.
    return energies | {"leak": 1e3 * part.standing_mw / machine.clock_mhz}


def _table(machine: Machine, part: Part) -> str:
    """A table of pJ and um2, with the attributes that its figures depend on."""
    head = ["technology", "width"] if part.width else ["technology"]
    values = ["45nm", part.width] if part.width else ["45nm"]
    return _csv([[*head, "action", "energy", "area"],
                 *([*values, name, f"{energy:.12g}", f"{part.area_um2:.12g}"]
                   for name, energy in _energies(machine, part).items())])


# BitFusion: a row of its table of synthesized arrays.

def _bitfusion(machine: Machine, found: Sequence[Part]) -> str:
    [array] = [part for part in found if part.kind == "compute"]
    # pJ times MHz are uW.
    dynamic = 1e6 * array.clock_mw + 1e3 * array.actions["step"] * machine.clock_mhz
    leakage = 1e6 * array.leakage_mw
    bits = 4 if machine.hardware.bits < 8 else 8
    return _csv([
        ["Module", "Frequency", "N", "M", "Max Precision (bits)", "Min Precision (bits)",
         "Area (um^2)", "Leakage Power (nW)", "Dynamic Power (nW)", "Total Power (nW)"],
        ["systolic_array", round(1e6 * machine.clock_mhz), machine.LANES, machine.config.columns,
         bits, bits, *(f"{value:.12g}" for value in (array.area_um2, leakage, dynamic,
                                                     leakage + dynamic))]])


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()


def _readme(machine: Machine, found: Sequence[Part], command: str) -> str:
    rows = "".join(
        f"| {part.name} | {part.count} | {part.area_um2:,.1f} | {part.leakage_mw:.4g} | "
        f"{part.clock_mw:.4g} | "
        + ", ".join(f"{name} {energy:.5g}" for name, energy in part.actions.items())
        + f" | {part.source} |\n" for part in found)
    return _README.format(
        command=command, format=machine.format, name=machine.name, bits=machine.hardware.bits,
        clock=machine.clock_mhz, rows=rows, prefix=costs.prefix(machine), run=costs.run(),
        unit=export_zigzag.unit(machine), element=export_zigzag.element(machine),
        result=export_zigzag.units(machine, machine.traffic["result_bits"]),
        sums=export_zigzag.units(machine, 32))


_README = """\
# Costs of {format} hardware for other tools

    {command}

{format} on `{name}`, {bits:g} bits per element with metadata and scales, {clock:g} MHz. Synthesis:
{run[library]}; {run[tools]}. Nothing has wires, a clock tree or a layout.

| part | of them | area, um2 | leakage, mW | clock, mW | pJ per action | source |
|---|---|---|---|---|---|---|
{rows}
Area, power and energy are of one part. The clock of an array runs whether it works or waits, so it
is a standing power here, and a step is what comes on top. Reads and writes move the part's width in
bits, a record or a row. The energy of a value in an encoder has the encoder's leakage and clock.
A step costs the same if some of its lanes or columns have nothing to do.

- `costs.json` has all of this.
- `hwcomponents/` is a package: `pip install ./hwcomponents`. Its classes are found by name, such as
  `{prefix}_array`. Use the array or the MACs, not both. hwcomponents needs Python 3.12.
- `timeloop/components.yaml` has compound components, version 0.4. Their subcomponents are in the
  tables of Accelergy's table plug-in: name `timeloop/` as a root of `table_plug_ins` in
  `accelergy_config.yaml`. The action `leak` has the clock too.
- `zigzag/` has `accelerator.yaml`, `mapping.yaml` and a product as `workload.yaml`. Precisions are
  integers there, so all sizes count in parts of a bit, {unit} in a bit: an element has {element}, a
  result {result}, a sum {sums}. ZigZag knows no standing power and no control.
- `stream/` has the same array as a core with DRAM, for Stream 2. Its elements have 4 or 8 bits, so
  that memories and bandwidths of operands count elements of so many bits, and a result in DRAM
  counts as more.
- `bitfusion/systolic_array_synth.csv` is a row for BitFusion's simulator. It has no clock of its
  own for an array that waits, so that dynamic power is that of an array that works.
"""
