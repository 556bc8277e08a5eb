# SPDX-License-Identifier: BSD-2-Clause
"""Cycles, traffic and energy of a model on a machine.

Cycles of an array are those of `sim.cycles`, which is exact. DRAM works at the same time, as all
buffers are double: a product takes the longer of both, and DRAM's latency once.
"""

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from golden.accelerator.planner import interleave, plan

from ..accelerator import golden_config
from ..cycles import cycles
from .machine import Machine
from .models import Gemm
from .workload import Job

ENERGIES = ("array", "accumulators", "top-1 and engines", "array idle", "array leakage", "control",
            "SRAM", "SRAM leakage", "DRAM", "DRAM background", "link")
"""Parts of the energy."""


@dataclass(frozen=True, kw_only=True)
class Moves:
    """What a product moves; records are groups of 32 elements.

    Attributes
    ----------
    weights, activations : int
        Records that come from DRAM.
    results : int
        Elements that go to DRAM.
    steps : int
        Cycles in which an array works, which read an activation each.
    loads : int
        Weight records that go from the buffer into an array.
    sums_read, sums_written : int
        Rows of partial sums that the output buffer gives and takes.
    """

    weights: int
    activations: int
    results: int
    steps: int
    loads: int
    sums_read: int
    sums_written: int


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A product of a model, with all its copies.

    Attributes
    ----------
    gemm : Gemm
    copies : int
        Blocks that have it.
    array_cycles, memory_cycles, cycles : int
        Cycles in which the array is busy with the product, in which DRAM is, and of the product.
    read_bits, written_bits : float
        DRAM traffic.
    sram : dict of str to int
        Bits read from and written to operand and output buffers.
    energy : dict of str to float
        In pJ, by `ENERGIES`.
    """

    gemm: Gemm
    copies: int
    array_cycles: int
    memory_cycles: int
    cycles: int
    read_bits: float
    written_bits: float
    sram: dict[str, int]
    energy: dict[str, float]

    @property
    def macs(self) -> int:
        """Multiplications."""
        return self.copies * self.gemm.macs

    @property
    def bits(self) -> float:
        """DRAM traffic in both directions."""
        return self.read_bits + self.written_bits


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A job on a machine.

    Attributes
    ----------
    job : Job
    machine : Machine
    layers : list of Layer
        Of one chip.
    link_cycles : int
        In which chips exchange their sums.
    link_pj : float
        Energy of that, on one chip.
    """

    job: Job
    machine: Machine
    layers: list[Layer]
    link_cycles: int = 0
    link_pj: float = 0.0
    energy: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        energy = totals_of(self.layers)
        # Everything leaks while chips wait for each other.
        for part, of in _waiting(self.machine, self.link_cycles).items():
            energy[part] += of
        energy["link"] += self.link_pj
        object.__setattr__(self, "energy", energy)

    @property
    def cycles(self) -> int:
        """Cycles of all."""
        return sum(layer.cycles for layer in self.layers) + self.link_cycles

    @property
    def attention(self) -> float:
        """Share of the cycles in the products of attention."""
        return sum(layer.cycles for layer in self.layers if not layer.gemm.weights) / self.cycles

    @property
    def bounds(self) -> tuple[int, int]:
        """Cycles if all of DRAM's and the array's work overlapped, and if none did."""
        array = sum(layer.array_cycles for layer in self.layers)
        memory = sum(layer.memory_cycles for layer in self.layers)
        return max(array, memory), array + memory

    @property
    def seconds(self) -> float:
        """Time."""
        return 1e-6 * self.cycles / self.machine.clock_mhz

    @property
    def macs(self) -> int:
        """Multiplications of all chips."""
        return self.machine.chips["count"] * sum(layer.macs for layer in self.layers)

    @property
    def utilisation(self) -> float:
        """Multiplications over those that the arrays could do."""
        return self.macs / (self.machine.chips["count"] * self.machine.peak * self.cycles)

    @property
    def bytes(self) -> float:
        """DRAM traffic of a chip."""
        return sum(layer.bits for layer in self.layers) / 8

    @property
    def joules(self) -> float:
        """Energy of all chips."""
        return 1e-12 * self.machine.chips["count"] * sum(self.energy.values())

    @property
    def tokens_per_second(self) -> float:
        """Tokens of all sequences."""
        return self.job.rows / self.seconds


def predict(job: Job, machine: Machine) -> Prediction:
    """Predicts a job.

    Parameters
    ----------
    job : Job
    machine : Machine

    Returns
    -------
    Prediction

    Raises
    ------
    ValueError
        If the machine cannot run one of its products.
    """
    chips = machine.chips
    layers = [_predict_layer(gemm, machine, copies)
              for gemm, copies in job.gemms(chips, causal=machine.attention["causal"])]
    if chips["count"] == 1:
        return Prediction(job=job, machine=machine, layers=layers)
    bits = job.exchanged(chips) * machine.traffic["result_bits"]
    nanoseconds = bits / (8 * chips["link_gbs"]) + job.hops(chips) * chips["link_ns"]
    return Prediction(job=job, machine=machine, layers=layers,
                      link_cycles=math.ceil(1e-3 * nanoseconds * machine.clock_mhz),
                      link_pj=bits * chips["link_pj"])


def _predict_layer(gemm: Gemm, machine: Machine, copies: int) -> Layer:
    """Predicts a layer of a job, in the bits that the machine has for it."""
    if machine.attention.get(f"{gemm.name}_bits", 4) == 4 or gemm.weights:
        return predict_layer(gemm, machine, copies)
    return replace(predict_layer(gemm.halves(), machine.wide(), copies), gemm=gemm)


def predict_layer(gemm: Gemm, machine: Machine, copies: int = 1) -> Layer:
    """Predicts equal products, ``copies`` times as many as the product has itself."""
    array_cycles = _array_cycles(gemm, machine)
    moves = moved(gemm, machine)
    record = 32 * machine.hardware.bits
    on_chip = not gemm.weights and machine.traffic["scores"] == "chip"
    stay = {"values": "activations", "scores": "results"}.get(gemm.name) if on_chip else None
    read = record * (moves.weights + (0 if stay == "activations" else moves.activations))
    written = 0.0 if stay == "results" else moves.results * machine.traffic["result_bits"]
    memory_cycles = math.ceil((read + written) / machine.bits_per_cycle)
    latency = math.ceil(1e-3 * machine.dram["latency_ns"] * machine.clock_mhz)
    total = max(array_cycles, memory_cycles) + latency
    sram = _sram_bits(moves, machine)
    energy = dict.fromkeys(ENERGIES, 0.0)
    energy |= _waiting(machine, total) | _working(gemm, moves, machine)
    energy["array idle"] = machine.idle_pj * (machine.arrays * total - moves.steps)
    energy["SRAM"] = sum(bits * machine.sram[f"{name}_pj"] for name, bits in sram.items())
    energy["DRAM"] = read * machine.dram["read_pj"] + written * machine.dram["write_pj"]
    return Layer(
        gemm=gemm, copies=copies, array_cycles=copies * array_cycles,
        memory_cycles=copies * memory_cycles, cycles=copies * total, read_bits=copies * read,
        written_bits=copies * written,
        sram={name: copies * bits for name, bits in sram.items()},
        energy={name: copies * of for name, of in energy.items()})


def _array_cycles(gemm: Gemm, machine: Machine) -> int:
    """Cycles until the last of a chip's arrays is done.

    Equal products are divided among the arrays. Where there are fewer products than arrays,
    several arrays share the columns of one.
    """
    together = max(1, machine.arrays // gemm.count)
    rounds = -(-gemm.count // (machine.arrays // together))
    tiles = -(-gemm.n // machine.config.columns)
    columns = min(gemm.n, -(-tiles // together) * machine.config.columns)
    # Records and results as they are in the default; this changes no cycle of the array.
    return rounds * cycles(machine.config, gemm.m, gemm.k, columns, source="records")


def moved(gemm: Gemm, machine: Machine) -> Moves:
    """What a product and its copies in ``gemm.count`` move, as the planner divides it."""
    return _moved(golden_config(machine.config), gemm)


@functools.cache
def _moved(config: Any, gemm: Gemm) -> Moves:
    divided = plan(config, gemm.m, gemm.k, gemm.n)
    per_pass = ((divided.tiles - 1) * divided.transfers + divided.last_transfers)
    weights = len(divided.blocks) * divided.groups * per_pass * config.weight_width
    arriving = sum(len(block) * divided.groups * (
        1 if divided.resident else -(-divided.tiles // interleave(len(block))))
        for block in divided.blocks)
    steps = gemm.m * divided.groups * divided.tiles
    count = gemm.count
    return Moves(weights=count * weights, activations=count * arriving,
                 results=count * gemm.m * gemm.n, steps=count * steps, loads=count * weights,
                 # The buffer is read for the first group too, and the sum is masked.
                 sums_read=count * steps,
                 sums_written=count * gemm.m * divided.tiles * (divided.groups - 1))


def _sram_bits(moves: Moves, machine: Machine) -> dict[str, int]:
    row = 32 * machine.config.columns
    record = math.ceil(32 * machine.hardware.bits)
    return {"operand_read": record * (moves.steps + moves.loads),
            "operand_write": record * (moves.weights + moves.activations),
            "output_read": row * moves.sums_read, "output_write": row * moves.sums_written}


def _working(gemm: Gemm, moves: Moves, machine: Machine) -> dict[str, float]:
    """Dynamic energy of arrays and engines."""
    shared, per_step = machine.shared, machine.part / machine.REFERENCE_MHZ
    accumulators = 32 * shared["accumulator_uw"] * per_step
    # Four subgroups of an activation, once for all columns.
    top1 = 4 * shared["top1_uw"] / machine.REFERENCE_MHZ * (machine.format == "M2XFP")
    return {"array": moves.steps * (machine.step_pj - accumulators - top1),
            "accumulators": moves.steps * accumulators,
            # Each value is encoded once, however often it comes.
            "top-1 and engines": moves.steps * top1
            + 1e-3 * machine.hardware.engine_fj * gemm.m * gemm.k * gemm.count}


def _waiting(machine: Machine, total: int) -> dict[str, float]:
    """What takes energy all the time, also while nothing else happens."""
    leakage = machine.leakage_mw
    power = {"array leakage": leakage["array"], "SRAM leakage": leakage["sram"],
             "control": 1e-3 * machine.arrays * machine.shared["control_uw"]
             * machine.clock_mhz / machine.REFERENCE_MHZ,
             "DRAM background": machine.dram["background_mw"]}
    energy = {name: 1e3 * of * total / machine.clock_mhz for name, of in power.items()}
    return energy | {"array idle": machine.idle_pj * machine.arrays * total}


def totals_of(layers: Iterable[Layer]) -> dict[str, float]:
    """Energy in pJ of several layers by part."""
    layers = list(layers)
    return {part: sum(layer.energy[part] for layer in layers) for part in ENERGIES}
