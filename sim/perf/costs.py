# SPDX-License-Identifier: BSD-2-Clause
"""Area, power and energy per action of a machine's parts, with where each figure comes from.

This is what `sim.perf.export` writes for other tools. Every energy is the one that
`sim.perf.predict` charges. Tools add up actions and a power that is there all the time, and have no
idle energy. So the clock of an array, which runs whether the array works or waits, is a part of
the standing power here, and an action is what comes on top of it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from .machine import Machine, formats
from .settings import packaged


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a machine, as often as it is there.

    Attributes
    ----------
    name : str
        With the format's name in front where the format decides the figures.
    kind : str
        "compute", "encoder", "buffer", "control" or "dram".
    text : str
        What it does.
    count : int
        How many a chip has.
    area_um2 : float
        Of one.
    leakage_mw, clock_mw : float
        Standing power of one: its leakage, and what its clock takes while nothing toggles.
    actions : dict of str to float
        Energy in pJ of one action, on top of the standing power.
    width : int
        Bits that a read or a write moves; 0 for what is not a memory.
    bits : int
        Capacity; 0 for what is not a memory, and for DRAM, whose size nothing here depends on.
    source : str
        The run or the tool that the figures come from.
    """

    name: str
    kind: str
    text: str
    count: int
    area_um2: float
    leakage_mw: float
    clock_mw: float
    actions: dict[str, float]
    width: int = 0
    bits: int = 0
    source: str

    @property
    def standing_mw(self) -> float:
        """Power of one that is there all the time."""
        return self.leakage_mw + self.clock_mw


def prefix(machine: Machine) -> str:
    """The format's name as tools take it in names of classes and files."""
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in machine.format.lower())


def parts(machine: Machine) -> list[Part]:
    """The parts of a machine's chip: array, encoders, buffers, control and DRAM.

    Parameters
    ----------
    machine : Machine
    """
    return [_array(machine), _engine(machine), *_buffers(machine), _control(machine),
            _dram(machine)]


def mac(machine: Machine) -> Part:
    """One MAC of the array: its part of the array's area, power and energy.

    A step costs what it costs, also with lanes that have nothing to do. So this is right for whole
    groups and whole tiles.
    """
    array = _array(machine)
    return replace(array, name=f"{prefix(machine)}_mac", count=array.count * machine.slots,
                   text=f"one of the {machine.slots} MACs of {array.name}, with its part of the "
                        "accumulators and registers",
                   area_um2=array.area_um2 / machine.slots,
                   leakage_mw=array.leakage_mw / machine.slots,
                   clock_mw=array.clock_mw / machine.slots,
                   actions={"compute": array.actions["step"] / machine.slots})


def record_bits(machine: Machine) -> int:
    """Bits of a group of 32 elements with its metadata and scales, rounded up."""
    return math.ceil(32 * machine.hardware.bits)


def run() -> dict[str, Any]:
    """Library, tools and conditions of the synthesis, see ``data/hardware.toml``."""
    return packaged("hardware")["run"]


def synthesis(machine: Machine, which: str) -> str:
    """The command that printed the figures of the ``array`` or the ``engine``.

    It says so where figures are given by the user in place of those.
    """
    stored = formats().get(machine.format)
    own = [name for name in machine.hardware.__dataclass_fields__
           if name.startswith(which) or which == "array" and name in ("leakage_uw", "clock_uw")]
    if stored is None or any(getattr(machine.hardware, name) != stored[name] for name in own):
        return "given by the user, in the table format of --config or in --set"
    if stored.get("assumed"):
        return f"assumed: {stored[which]}"
    of = run()
    return (f"python -m hw.synth {stored[which]}, area, and the same with --power; "
            f"{of['library']}, {of['tools']}")


def _array(machine: Machine) -> Part:
    hardware, columns = machine.hardware, machine.config.columns
    scaled = "" if columns == 32 else f"; {columns} columns as their part of 32"
    # The clock runs all the time; a step adds what a working cycle takes beyond it.
    return Part(name=f"{prefix(machine)}_array", kind="compute",
                text=f"32 x {columns} MACs of {machine.format} with float32 accumulators; a step "
                     f"multiplies 32 activations with 32 weights of {columns} columns",
                count=machine.arrays, area_um2=hardware.array_um2 * machine.part,
                leakage_mw=1e-3 * hardware.leakage_uw * machine.part,
                clock_mw=1e-3 * machine.idle_pj * machine.clock_mhz,
                actions={"step": machine.step_pj - machine.idle_pj},
                source=synthesis(machine, "array") + scaled)


def _engine(machine: Machine) -> Part:
    hardware = machine.hardware
    return Part(name=f"{prefix(machine)}_engine", kind="encoder",
                text=f"encodes a group of 32 values in {machine.format} per cycle; the energy of a "
                     "value has the leakage and the clock of a busy encoder in it",
                count=2 * machine.arrays, area_um2=hardware.engine_um2, leakage_mw=0.0,
                clock_mw=0.0, actions={"encode": 1e-3 * hardware.engine_fj},
                source=synthesis(machine, "engine"))


def _buffers(machine: Machine) -> list[Part]:
    config, record = machine.config, record_bits(machine)
    name, held = prefix(machine), "the same energy per bit, leakage and area by capacity"

    def operands(what: str, records: int) -> Part:
        # Slots are those of 4.5 bits, whatever the format.
        return _buffer(machine, f"{name}_{what}_buffer", f"{records} records of {what}s",
                       "operand", records, 144, record, f"{_memory(machine, 'operand')}; {held}")

    return [operands("activation", config.activations), operands("weight", config.weights),
            _buffer(machine, f"{name}_output_buffer",
                    f"{config.rows} rows of {config.columns} partial sums in float32", "output",
                    config.rows, 32 * config.columns, 32 * config.columns,
                    f"{_memory(machine, 'output')}; {held}")]


def _buffer(machine: Machine, name: str, text: str, kind: str, rows: int, slot: int, width: int,
            source: str) -> Part:
    sram, kilobytes = machine.sram, rows * slot / 8192
    return Part(name=name, kind="buffer", text=text, count=machine.arrays,
                area_um2=1e6 * kilobytes * sram[f"{kind}_mm2"],
                leakage_mw=kilobytes * sram[f"{kind}_leakage_mw"], clock_mw=0.0,
                actions={way: width * sram[f"{kind}_{way}_pj"] for way in ("read", "write")},
                width=width, bits=rows * width, source=source)


def _control(machine: Machine) -> Part:
    shared = machine.shared
    return Part(name=f"{prefix(machine)}_control", kind="control",
                text="planner, loop nest and feeders",
                count=machine.arrays, area_um2=shared["control_um2"], leakage_mw=0.0,
                clock_mw=1e-3 * shared["control_uw"] * machine.clock_mhz / machine.REFERENCE_MHZ,
                actions={},
                source="area: the accelerator without memories, less the array and two engines, "
                       "python -m hw.synth; power: assumed to be the array's per area")


def _dram(machine: Machine) -> Part:
    dram = machine.dram
    width = max(1, math.floor(machine.bits_per_cycle))
    return Part(name=f"{prefix(machine)}_dram", kind="dram",
                text=f"{dram['bandwidth_gbs']:g} GB/s for a chip", count=1, area_um2=0.0,
                leakage_mw=dram["background_mw"], clock_mw=0.0,
                actions={"read": width * dram["read_pj"], "write": width * dram["write_pj"]},
                width=width, source=_memory(machine, "dram"))


def _memory(machine: Machine, kind: str) -> str:
    """Where the figures of a memory come from, unless the user gave others."""
    table, start = ("dram", "") if kind == "dram" else ("sram", kind)
    given: Mapping[str, float] = getattr(machine, table)
    stored = packaged("machine")[table]
    own = [name for name in stored if name.startswith(start)
           and name not in ("bandwidth_gbs", "latency_ns")]
    if any(given[name] != stored[name] for name in own):
        return f"given by the user, in the table {table} of --config or in --set"
    return run()[table]
