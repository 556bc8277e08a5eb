# SPDX-License-Identifier: BSD-2-Clause
"""The machine as ZigZag and Stream read it.

Both describe memories from the innermost to DRAM. The array holds a weight in each MAC, and adds
the 32 products of a column before they go to the accumulators. What a step takes is the energy of
its MACs, so that the registers of the weights cost nothing more.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

from .costs import Part
from .machine import Machine

_MOST = 64
"""Largest number of parts of a bit."""

File = tuple[str, Any, str]


def unit(machine: Machine) -> int:
    """How many parts of a bit are counted, so that the bits of an element are an integer.

    Raises
    ------
    ValueError
        If no number up to 64 does.
    """
    bits = Fraction(machine.hardware.bits).limit_denominator(_MOST)
    results = Fraction(machine.traffic["result_bits"]).limit_denominator(_MOST)
    for name, given, found in (("format.bits", machine.hardware.bits, bits),
                               ("traffic.result_bits", machine.traffic["result_bits"], results)):
        if found != given or _MOST % found.denominator:
            raise ValueError(f"{name} must be a multiple of 1/{_MOST} with --export, not {given}")
    return max(bits.denominator, results.denominator)


def units(machine: Machine, bits: float) -> int:
    """So many bits in parts of a bit, rounded down but not to nothing."""
    return max(1, int(bits * unit(machine)))


def element(machine: Machine) -> int:
    """Parts of a bit of an element."""
    return units(machine, machine.hardware.bits)


def zigzag(machine: Machine, found: Sequence[Part]) -> Iterator[File]:
    """The files of ZigZag: their names, contents and comments."""
    columns = machine.config.columns
    scale = unit(machine)
    comment = (f"Sizes and bandwidths in 1/{scale} bit: an element has {element(machine)}. "
               "Energies in pJ, areas in um2.")
    memories = _memories(machine, found, scale, element(machine))
    yield "accelerator.yaml", {
        "name": found[0].name, "memories": memories, **_array(machine, found)}, comment
    yield "mapping.yaml", [{
        "name": "default", "spatial_mapping": {"D1": ["C, 32"], "D2": [f"K, {columns}"]},
        "memory_operand_links": {"O": "O", "W": "I2", "I": "I1"}}], (
            "Elements of a group over D1, columns over D2.")
    yield "workload.yaml", [{
        "id": 0, "name": "product", "operator_type": "Gemm",
        "equation": "O[b][k]+=W[k][c]*I[b][c]", "dimension_relations": [],
        "loop_dims": ["B", "K", "C"], "loop_sizes": [2048, 4096, 4096],
        "operand_precision": {"W": element(machine), "I": element(machine),
                              "O": units(machine, 32),
                              "O_final": units(machine, machine.traffic["result_bits"])},
        "operand_source": {"I": 0, "W": 0}}], comment


def stream(machine: Machine, found: Sequence[Part]) -> Iterator[File]:
    """The files of Stream 2: the chip, a core for the array, and one for DRAM."""
    bits = 4 if machine.hardware.bits < 8 else 8
    # An element of so many bits where the memory has those of the format.
    scale = bits / machine.hardware.bits
    comment = (f"An element of {machine.hardware.bits:g} bits counts as {bits} bits: sizes and "
               "bandwidths of operands and\nof DRAM are smaller by as much, at the same energy "
               "for an access.")
    memories = _memories(machine, found, scale, bits, sums=1)
    dram = memories.pop("dram")
    yield "chip.yaml", {
        "name": found[0].name,
        "cores": {**{place: "./cores/array.yaml" for place in range(machine.arrays)},
                  machine.arrays: "./cores/dram.yaml"},
        "offchip_core_id": machine.arrays, "unit_energy_cost": 0.0,
        "core_connectivity": [{
            "type": "bus", "cores": [*range(machine.arrays + 1)],
            "bandwidth": float(dram["ports"][0]["bandwidth_max"])}]}, comment
    yield "cores/array.yaml", {
        "name": "array", "type": "zigzag.compute", "memories": memories, **_array(machine, found),
        "operand_precision": {"input": f"int{bits}", "accumulator": "fp32"}}, comment
    yield "cores/dram.yaml", {
        "name": "dram", "type": "zigzag.offchip", "memories": {"dram": dram},
        "operational_array": {"unit_energy": 0.0, "unit_area": 0.0, "dimensions": ["D1", "D2"],
                              "sizes": [0, 0]}}, comment


def _array(machine: Machine, found: Sequence[Part]) -> dict[str, Any]:
    [array] = [part for part in found if part.kind == "compute"]
    return {"operational_array": {
        # A step with the clock of its cycle, as nothing stands here.
        "unit_energy": machine.step_pj / machine.slots,
        "unit_area": array.area_um2 / machine.slots, "dimensions": ["D1", "D2"],
        "sizes": [machine.LANES, machine.config.columns]}}


def _memories(machine: Machine, found: Sequence[Part], scale: float, element: int,
              sums: float | None = None) -> dict[str, dict[str, Any]]:
    """The memories, lowest first.

    Parameters
    ----------
    machine : Machine
    found : sequence of Part
    scale : float
        Parts that a bit counts as, in memories of operands and in DRAM.
    element : int
        Parts of an element.
    sums : float, optional
        Parts that a bit counts as in the output buffer; by default as elsewhere.
    """
    config, buffers = machine.config, {part.name.split("_", 1)[-1]: part for part in found
                                       if part.kind == "buffer"}
    record = machine.LANES * element
    by_name = {what: next(part for name, part in buffers.items() if name.endswith(f"{what}_buffer"))
               for what in ("activation", "weight", "output")}
    row = int(by_name["output"].width * (sums or scale))
    [dram] = [part for part in found if part.kind == "dram"]
    wide = max(1, int(dram.width * scale))
    weights = config.weight_width
    every = ["D1", "D2"]
    return {
        # One that is used, and one that comes for the next tile.
        "weight_registers": _memory(2 * element, 0.0, 0.0, 0.0, ["I2"], [], [
            _port("r_port_1", "read", element, element, ["I2, tl"]),
            _port("w_port_1", "write", element, element, ["I2, fh"])]),
        "activation_buffer": _memory(
            config.activations * record, *_costs(by_name["activation"], 1), ["I1"], every, [
                _port("r_port_1", "read", record, record, ["I1, tl"]),
                _port("w_port_1", "write", record, record, ["I1, fh"])]),
        "weight_buffer": _memory(
            config.weights * record, *_costs(by_name["weight"], weights), ["I2"], every, [
                _port("r_port_1", "read", record, weights * record, ["I2, tl"]),
                _port("w_port_1", "write", record, weights * record, ["I2, fh"])]),
        "output_buffer": _memory(
            config.rows * row, *_costs(by_name["output"], 1), ["O"], every, [
                _port("r_port_1", "read", row, row, ["O, tl", "O, th"]),
                _port("w_port_1", "write", row, row, ["O, fh", "O, fl"])]),
        "dram": _memory(
            1 << 50, *_costs(dram, 1), ["I1", "I2", "O"], every, [
                _port("rw_port_1", "read_write", min(wide, 64), wide,
                      [f"{operand}, {way}" for operand in ("I1", "I2") for way in ("fh", "tl")]
                      + [f"O, {way}" for way in ("fh", "tl", "fl", "th")])])}


def _costs(part: Part, records: int) -> tuple[float, float, float]:
    """Energy of the widest read and write, and area."""
    return records * part.actions["read"], records * part.actions["write"], part.area_um2


def _memory(size: int, read: float, write: float, area: float, operands: list[str],
            served: list[str], ports: list[dict[str, Any]]) -> dict[str, Any]:
    return {"size": size, "r_cost": read, "w_cost": write, "area": area, "latency": 1,
            "auto_cost_extraction": False, "operands": operands, "ports": ports,
            "served_dimensions": served}


def _port(name: str, kind: str, low: int, high: int, allocation: list[str]) -> dict[str, Any]:
    return {"name": name, "type": kind, "bandwidth_min": low, "bandwidth_max": high,
            "allocation": allocation}
