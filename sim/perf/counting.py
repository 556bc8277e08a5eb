# SPDX-License-Identifier: BSD-2-Clause
"""How the authors' simulator counts cycles and traffic of a matrix product.

BitFusion's simulator, from which theirs descends, divides a product of S x K by N x K into tiles
along its three sizes, each a power of two or the whole, and goes through the tiles in three nested
loops. It tries all tiles and all orders of the loops, and takes those of the fewest cycles, and of
the least energy among these. This module does the same with arrays.
"""

import functools
import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

# The operands, and the sizes that each depends on.
_OPERANDS = {"weights": "KN", "activations": "SK", "outputs": "SN"}


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What the count depends on beside the product.

    Attributes
    ----------
    side : int
        Rows and columns of the array.
    packed : int
        Products that a row, and a column, does at this precision in place of one.
    bits : int
        Of an element of either operand.
    output_bits : int
    buffers : tuple of int
        Bits of half the buffers of weights, activations and outputs.
    interface_bits : int
        Of DRAM bandwidth per cycle.
    costs : tuple of float
        Energy of a bit, in any unit: reads and writes of weights, activations and outputs, then
        of DRAM.
    """

    side: int
    packed: int
    bits: int
    output_bits: int
    buffers: tuple[int, int, int]
    interface_bits: int
    costs: tuple[float, ...]


@dataclass(frozen=True)
class Count:
    """Cycles and traffic of a product; traffic in bits.

    Attributes
    ----------
    cycles : int
    dram_read, dram_written : int
    buffer_energy : float
        In the unit of the costs.
    """

    cycles: int
    dram_read: int
    dram_written: int
    buffer_energy: float


@functools.cache
def count(s: int, k: int, n: int, rules: Rules) -> Count:
    """The best division of a product of ``s`` x ``k`` activations and ``n`` x ``k`` weights."""
    tile = {"S": _powers(s)[:, None, None], "K": _powers(k)[:, None], "N": _powers(n)}
    number = {name: -(-size // tile[name]) for name, size in (("S", s), ("K", k), ("N", n))}
    unit = rules.side * rules.packed
    padded = -(-tile["K"] // unit) * unit
    sizes = {"weights": padded * tile["N"] * rules.bits,
             "activations": tile["S"] * padded * rules.bits,
             "outputs": tile["S"] * tile["N"] * rules.output_bits}
    room = dict(zip(_OPERANDS, rules.buffers, strict=True))
    # The outputs are written to DRAM without a check that their tile fits.
    fits = (sizes["weights"] <= room["weights"]) & (sizes["activations"] <= room["activations"])
    compute = (number["S"] * number["K"] * number["N"] * -(-tile["S"] // unit)
               * -(-tile["N"] // unit) * tile["K"])
    work = (number["S"] * tile["S"] * number["K"] * tile["K"] * number["N"] * tile["N"])
    results = number["K"] * number["S"] * tile["S"] * number["N"] * tile["N"] * rules.output_bits

    best = None
    for order in itertools.permutations("SKN"):
        moved, first = _traffic(sizes, number, order, room)
        read, written = moved["weights"] + moved["activations"], moved["outputs"]
        start = first["weights"] + first["activations"]
        ends = np.ceil(start / rules.interface_bits) + np.ceil(
            first["outputs"] / rules.interface_bits)
        between = np.ceil((read + written - start - first["outputs"]) / rules.interface_bits)
        cycles = compute + np.maximum(0, between - compute) + ends
        w_read, w_write, a_read, a_write, o_read, o_write, d_read, d_write = rules.costs
        buffers = (work * rules.bits * (w_read + a_read) + moved["weights"] * w_write
                   + moved["activations"] * a_write + (results + written) * o_read
                   + results * o_write)
        energy = buffers + read * d_read + written * d_write
        cycles, energy = np.where(fits, cycles, np.inf), np.broadcast_to(energy, fits.shape)
        least = np.where(cycles == cycles.min(), energy, np.inf)
        place = np.unravel_index(least.argmin(), least.shape)
        if best is None or (cycles[place], energy[place]) < best[0]:
            bits = [int(np.broadcast_to(of, fits.shape)[place]) for of in (read, written)]
            best = (cycles[place], energy[place]), Count(
                int(cycles[place]), bits[0], bits[1], float(buffers[place]))
    assert best is not None
    return best[1]


def _traffic(sizes: Mapping[str, np.ndarray], number: Mapping[str, np.ndarray],
             order: tuple[str, ...], room: Mapping[str, int]
             ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Bits between DRAM and each buffer, and those of them before and after the work.

    From the innermost loop outwards, an operand stays in its buffer as long as what the loops
    inside need of it fits. From the loop on at which it does not, all loops fetch it again.
    """
    moved, first = {}, {}
    for name, size in sizes.items():
        shape = np.broadcast_shapes(size.shape, *(of.shape for of in number.values()))
        total = np.broadcast_to(size, shape)
        held, stays = total, np.ones(shape, bool)
        for loop in reversed(order):
            needed = loop in _OPERANDS[name]
            total = np.where(stays & np.bool_(not needed), total, total * number[loop])
            if needed:
                stays = stays & (total <= room[name])
                held = np.where(stays, total, held)
        moved[name] = total
        # Outputs that fit count as written while others are computed.
        first[name] = np.where(size <= room[name], 0, size) if name == "outputs" else held
    return moved, first


def _powers(size: int) -> np.ndarray:
    """Powers of two below a size, and the size."""
    return np.array([*(1 << i for i in range((size - 1).bit_length())), size], np.int64)
