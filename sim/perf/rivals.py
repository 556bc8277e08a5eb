# SPDX-License-Identifier: BSD-2-Clause
"""Other formats and other designs on the same chip.

Formats that are built here have arrays and encoders of their own, from the same flow. MicroScopiQ,
MX-ANT, MX-M-ANT and MX-OliVe are not built here: they are taken to have our buffers and control and
as many multipliers of 4 bits, of which a product of 8 bits takes four. Their shares of 8 bits are
those of the paper's authors, and so is the ratio of their arrays' power to M2XFP's.

MXFP8 is not built here either. It is taken to be what MXFP4's array would do at 8 bits by the same
rule, in its area and at its power, with MXFP4's encoder. A significand of E4M3 has four bits where
E2M1 has two, so that a product takes four times the multiplier. The wider shifts of products with
four bits of exponent are left out: true area and power are larger.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from . import paper
from .machine import SCALE_BITS, Machine, formats
from .predict import Layer, predict_layer, totals_of
from .workload import Job

OURS = "M2XFP"

EIGHT = "MXFP8"

def designs() -> list[str]:
    """Names of the designs that are not built here."""
    return [name for name in paper.machines() if name != OURS]


def own() -> list[str]:
    """Names of the formats, which need no shares of 8 bits."""
    return [*formats(), EIGHT]


def everything() -> list[str]:
    """Names of all formats and designs, M2XFP first."""
    return [OURS, *(name for name in (*own(), *designs()) if name != OURS)]


def find(names: Sequence[str]) -> list[str]:
    """Names of formats and designs as they are written here, whatever their case.

    Raises
    ------
    ValueError
        If there is no such format or design.
    """
    known = {name.lower(): name for name in everything()}
    for name in names:
        if name.lower() not in known:
            raise ValueError(f"--against must be of {', '.join(known.values())}, not {name!r}")
    return [known[name.lower()] for name in names]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One format or design in a comparison.

    Attributes
    ----------
    name : str
    bits : float
        Mean bits of a weight in DRAM.
    cycles : int
    energy : dict of str to float
        In J by part, see `sim.perf.predict.ENERGIES`.
    traffic : float
        Bytes of DRAM traffic.
    array_mm2 : float or None
        Area of arrays and engines; None if it is not known.
    kl : float or None
        Divergence from the float model, if it was measured.
    """

    name: str
    bits: float
    cycles: int
    energy: dict[str, float]
    traffic: float
    array_mm2: float | None
    kl: float | None

    @property
    def joules(self) -> float:
        """Energy of all parts."""
        return sum(self.energy.values())


def compare(job: Job, machine: Machine, names: Sequence[str]) -> list[Entry]:
    """The formats and designs on a machine, with the same job.

    The linear layers count, in so many blocks as the authors count of the model if a design has
    layers of 8 bits there.

    Parameters
    ----------
    job : Job
        Without attention and head.
    machine : Machine
        A single chip.
    names : sequence of str
        From `find`.

    Raises
    ------
    ValueError
        If a design has no shares of 8 bits for the model.
    """
    blocks = paper.inputs()["blocks"].get(job.model.name)
    wanting = [name for name in names if name in designs()]
    if wanting and blocks is None:
        raise ValueError(f"--against must be of {', '.join(own())} with {job.model.name}, "
                         f"of which no layers of 8 bits are published, not {wanting[0]!r}")
    if machine.chips["count"] != 1:
        raise ValueError(f"chips.count must be 1 with --against, not {machine.chips['count']}")
    count = blocks or job.model.layers
    return [_design(name, job, machine, count) if name in designs()
            else _eight(job, machine, count) if name == EIGHT
            else _format(name, job, machine, count) for name in names]


def _format(name: str, job: Job, machine: Machine, blocks: int) -> Entry:
    own = machine.with_format(name) if name != machine.format else machine
    layers = [predict_layer(gemm, own, blocks) for gemm in job.model.linear(job.rows)]
    area = own.area_mm2
    return _entry(name, own, layers, own.hardware.bits, area["arrays"] + area["engines"],
                  formats()[name]["kl"])


def _eight(job: Job, machine: Machine, blocks: int) -> Entry:
    four = replace(machine.with_format("MXFP4"), name=EIGHT, format=EIGHT)
    wider = four.wide()
    layers = [predict_layer(gemm.halves(), wider, blocks) for gemm in job.model.linear(job.rows)]
    area = four.area_mm2
    return _entry(EIGHT, four, layers, 8 + SCALE_BITS, area["arrays"] + area["engines"], None)


def _design(name: str, job: Job, machine: Machine, blocks: int) -> Entry:
    ours = machine.with_format(OURS)
    given = paper.inputs()["machines"]
    # Power of an array of equally many multipliers of 4 bits.
    power = given[name]["pe_uw"] / 4 / given[OURS]["pe_uw"]
    # Rivals have a scale of eight bits for 32 elements, too. Their encoders are left out.
    narrow = replace(ours, name=name, format=name, hardware=ours.hardware.scaled(
        power, bits=4 + SCALE_BITS, engine_fj=0.0))
    wider = narrow.wide()
    layers, weights, bits = [], 0, 0.0
    for gemm, precision, copies in paper.layers(name, job.model.name, job.rows):
        layers.append(predict_layer(gemm, narrow, copies) if precision == 4 else
                      predict_layer(gemm.halves(), wider, copies))
        weights += copies * gemm.k * gemm.n
        bits += copies * gemm.k * gemm.n * (precision + SCALE_BITS)
    return _entry(name, narrow, layers, bits / weights, None, None)


def _entry(name: str, machine: Machine, layers: Sequence[Layer], bits: float,
           area: float | None, kl: float | None) -> Entry:
    return Entry(name=name, bits=bits, cycles=sum(layer.cycles for layer in layers),
                 energy={part: 1e-12 * of for part, of in totals_of(layers).items()},
                 traffic=sum(layer.bits for layer in layers) / 8, array_mm2=area, kl=kl)
