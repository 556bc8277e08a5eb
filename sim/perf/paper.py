# SPDX-License-Identifier: BSD-2-Clause
"""The paper's assumptions: what its 1.91x and 1.75x follow from.

All machines have 1024 multipliers of 4 bits. To be as accurate as M2XFP, a rival runs a share f8 of
the multiplications at 8 bits, and such a product takes four of its multipliers. So M2XFP is
1 + 3 * f8 times as fast.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, geometric_mean
from typing import Any

from .counting import Rules, count
from .models import PAPER, Gemm, find_models
from .settings import packaged

BASE = "MX-OliVe"
"""The machine to which latency and energy are normalised."""

OURS = "M2XFP"

PARTS = "static", "DRAM", "buffer", "core"
"""Parts of the energy: DRAM's background power, its accesses, the buffers', and the array."""


@dataclass(frozen=True)
class Run:
    """A model on a machine.

    Attributes
    ----------
    cycles : int
    energy : dict of str to float
        In nJ, by `PARTS`.
    """

    cycles: int
    energy: dict[str, float]

    @property
    def total(self) -> float:
        """Energy of all parts in nJ."""
        return sum(self.energy.values())


@functools.cache
def inputs() -> dict[str, Any]:
    """What the authors state or use, see ``data/paper.toml``."""
    return packaged("paper")


def machines() -> list[str]:
    """The names of the machines, M2XFP last."""
    return [*inputs()["machines"]]


def share(machine: str, model: str) -> float:
    """Share of a model's multiplications that a machine does at 8 bits, f8."""
    work = {8: 0, 4: 0}
    for macs, bits, blocks in ((g.macs, b, n) for g, b, n in layers(machine, model)):
        work[bits] += macs * blocks
    return work[8] / (work[8] + work[4])


def run(machine: str, model: str) -> Run:
    """Cycles and energy of a model's linear layers on a machine.

    Parameters
    ----------
    machine : str
        One of `machines`.
    model : str
        One of `sim.perf.models.PAPER`.
    """
    given = inputs()
    array, costs = given["machines"][machine], given["fj_per_bit"]
    cycles, energy = 0, dict.fromkeys(PARTS, 0.0)
    for gemm, bits, blocks in layers(machine, model):
        counted = count(gemm.m, gemm.k, gemm.n, Rules(
            side=array["side"], packed=array["wide"] // bits, bits=bits,
            output_bits=given["output_bits"],
            # Bits of a half: bytes times eight over two.
            buffers=tuple(4 * given["buffers"][name]
                          for name in ("weights", "activations", "outputs")),
            interface_bits=given["interface_bits"],
            costs=(*(costs[f"{operand}_{way}"] for operand in ("weight", "activation", "output")
                     for way in ("read", "write")),
                   1e3 * given["dram"]["read_pj"], 1e3 * given["dram"]["write_pj"])))
        cycles += blocks * counted.cycles
        energy["DRAM"] += blocks * 1e-3 * (counted.dram_read * given["dram"]["read_pj"]
                                           + counted.dram_written * given["dram"]["write_pj"])
        energy["buffer"] += blocks * 1e-6 * counted.buffer_energy
    # A mW for a cycle of the clock in MHz is so many nJ.
    energy["static"] = cycles * given["dram"]["background_mw"] / given["clock_mhz"]
    energy["core"] = _core(machine, array["pe_uw"], cycles)
    return Run(cycles, energy)


def _core(machine: str, pe_uw: float, cycles: int) -> float:
    """Energy of an array in nJ."""
    return (cycles * inputs()["machines"][machine]["side"] ** 2 * pe_uw * 1e-3
            / inputs()["clock_mhz"])


def layers(machine: str, model: str, rows: int | None = None) -> list[tuple[Gemm, int, int]]:
    """The linear layers of a model with their bits, and how many blocks have them so.

    Parameters
    ----------
    machine, model : str
    rows : int, optional
        Rows of activations; by default as many as the authors have.
    """
    given = inputs()
    [dimensions] = find_models([model])
    groups = [(blocks, names.split())
              for blocks, names in given["eight_bit"][machine].get(model, [])]
    groups.append((given["blocks"][model] - sum(blocks for blocks, _ in groups), []))
    return [(gemm, 8 if gemm.name in names else 4, blocks)
            for blocks, names in groups if blocks
            for gemm in dimensions.linear(rows or given["tokens"])]


def runs(models: Sequence[str] = PAPER) -> dict[str, dict[str, Run]]:
    """All machines on the models: by model, then by machine."""
    return {model: {machine: run(machine, model) for machine in machines()} for model in models}


def means(ratios: Sequence[float]) -> dict[str, float]:
    """The arithmetic and the geometric mean of ratios over models."""
    return {"arithmetic": fmean(ratios), "geometric": geometric_mean(ratios)}


def gains(found: Mapping[str, Mapping[str, Run]], rival: str) -> dict[str, list[float]]:
    """How many times faster M2XFP is, and how much less energy it takes, by model.

    Parameters
    ----------
    found : mapping
        From `runs`.
    rival : str
    """
    return {"latency": [of[rival].cycles / of[OURS].cycles for of in found.values()],
            "energy": [of[rival].total / of[OURS].total for of in found.values()]}


def ratio_of_means(found: Mapping[str, Mapping[str, Run]], rival: str) -> float:
    """The mean energy of a rival over that of M2XFP, both normalised model by model."""
    return (fmean(of[rival].total / of[BASE].total for of in found.values())
            / fmean(of[OURS].total / of[BASE].total for of in found.values()))


def variants(found: Mapping[str, Mapping[str, Run]], rival: str = "MicroScopiQ"
             ) -> dict[str, list[float]]:
    """Energy of a rival over M2XFP's, by model, under other assumptions than the authors'.

    Parameters
    ----------
    found : mapping
        From `runs`.
    rival : str
        The published report of its power is MicroScopiQ's.
    """
    given = inputs()
    other = given["variants"]
    report = {OURS: other["m2xfp_report_uw"], "MicroScopiQ": other["microscopiq_report_uw"]}

    def leaking(machine: str, run: Run) -> Run:
        power = other["buffer_leakage_mw"] / given["clock_mhz"]
        return replace(run, energy=run.energy | {"leakage": run.cycles * power})

    def reported(machine: str, run: Run) -> Run:
        return replace(run, energy=run.energy | {"core": _core(machine, report[machine],
                                                               run.cycles)})

    def without(*parts: str) -> Any:
        return lambda machine, run: replace(
            run, energy={part: of for part, of in run.energy.items() if part not in parts})

    def both(*changes: Any) -> Any:
        return lambda machine, run: functools.reduce(
            lambda so_far, change: change(machine, so_far), changes, run)

    changes = {"as the log": both(),
               "with the buffers' leakage": leaking,
               "without DRAM background": without("static"),
               "core power of the 28 nm reports": reported,
               "the same without DRAM background": both(reported, without("static")),
               "the same, buffers and core alone": both(reported, without("static", "DRAM"))}
    return {name: [change(rival, of[rival]).total / change(OURS, of[OURS]).total
                   for of in found.values()] for name, change in changes.items()}
