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
from .machine import Hardware, Machine, formats
from .predict import Layer, predict_layer, totals_of
from .workload import Job

OURS = "M2XFP"

EIGHT = "MXFP8"

SCALE_BITS = 0.25
"""Per element, of a scale of eight bits for 32 elements, which the rivals have too."""


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
    wider = wide(four)
    # The encoder takes a value, of which a product has two halves.
    wider = replace(wider, hardware=replace(wider.hardware,
                                            engine_fj=four.hardware.engine_fj / 2))
    layers = [predict_layer(replace(gemm, k=2 * gemm.k), wider, blocks)
              for gemm in job.model.linear(job.rows)]
    area = four.area_mm2
    return _entry(EIGHT, four, layers, 8 + SCALE_BITS, area["arrays"] + area["engines"], None)


def _design(name: str, job: Job, machine: Machine, blocks: int) -> Entry:
    ours = machine.with_format(OURS)
    given = paper.inputs()["machines"]
    # Power of an array of equally many multipliers of 4 bits.
    power = given[name]["pe_uw"] / 4 / given[OURS]["pe_uw"]
    narrow = replace(ours, name=name, format=name, hardware=_scaled(
        ours.hardware, power, bits=4 + SCALE_BITS))
    wider = wide(narrow)
    layers, weights, bits = [], 0, 0.0
    for gemm, precision, copies in paper.layers(name, job.model.name, job.rows):
        layers.append(predict_layer(gemm, narrow, copies) if precision == 4 else
                      predict_layer(replace(gemm, k=2 * gemm.k), wider, copies))
        weights += copies * gemm.k * gemm.n
        bits += copies * gemm.k * gemm.n * (precision + SCALE_BITS)
    return _entry(name, narrow, layers, bits / weights, None, None)


def wide(machine: Machine) -> Machine:
    """The machine while it multiplies 8 bits: 16 x 16 products per cycle in place of 32 x 32.

    A group of 32 elements of 8 bits is as long as two of 4 bits, and takes two cycles. So a product
    with ``k`` of 8 bits is one with ``2 * k`` halves of elements, on half the columns, at the same
    power. Buffers hold as many bits as before.
    """
    config = machine.config
    if config.columns < 2:
        raise ValueError(f"accelerator.columns must be at least 2 with --against, "
                         f"not {config.columns}")
    columns = config.columns // 2
    return replace(machine, config=replace(
        config, columns=columns, rows=2 * config.rows,
        weight_width=min(config.weight_width, columns)),
        hardware=_scaled(machine.hardware, 2, bits=(8 + SCALE_BITS) / 2))


def _scaled(hardware: Hardware, power: float, *, bits: float) -> Hardware:
    """Hardware with other powers and bits, whose encoder is left out."""
    return replace(hardware, bits=bits, engine_fj=0.0,
                   **{name: power * getattr(hardware, name)
                      for name in ("array_uw", "leakage_uw", "clock_uw")})


def _entry(name: str, machine: Machine, layers: Sequence[Layer], bits: float,
           area: float | None, kl: float | None) -> Entry:
    return Entry(name=name, bits=bits, cycles=sum(layer.cycles for layer in layers),
                 energy={part: 1e-12 * of for part, of in totals_of(layers).items()},
                 traffic=sum(layer.bits for layer in layers) / 8, array_mm2=area, kl=kl)
