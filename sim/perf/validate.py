# SPDX-License-Identifier: BSD-2-Clause
"""Holds the model against the RTL: cycles and records of small products, exactly."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from golden.accelerator import planner
from hw.accelerator.accelerator import Accelerator

from .. import gemm as products
from ..accelerator import golden_config
from ..cycles import cycles
from .machine import Machine
from .models import Gemm
from .predict import moved
from .workload import Job

MOST = 32_000
"""Cycles of the longest product that is simulated."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """A product in RTL beside the model.

    Attributes
    ----------
    layer : str
    gemm : Gemm
        The product that ran.
    simulated, predicted : int
        Cycles.
    records : tuple of int
        Records that the RTL took, of weights and of activations.
    expected : tuple of int
        Those of the model.
    mismatches : int
        Rows of results that differ from golden's.
    """

    layer: str
    gemm: Gemm
    simulated: int
    predicted: int
    records: tuple[int, int]
    expected: tuple[int, int]
    mismatches: int

    @property
    def equal(self) -> bool:
        """Whether all agree."""
        return (self.simulated == self.predicted and self.records == self.expected
                and not self.mismatches)


def samples(jobs: Sequence[Job], machine: Machine) -> list[Gemm]:
    """One product for each kind of product of the jobs that is small enough to simulate.

    A product is cut to a few groups, tiles and rows. It keeps the partial group and the partial
    tile at its ends, and whether it has fewer rows than a tile takes cycles to load.
    """
    found: dict[tuple[int, int, int], Gemm] = {}
    for job in jobs:
        for gemm, _ in job.gemms(machine.chips):
            small = _cut(gemm, machine)
            found.setdefault((small.m, small.k, small.n), small)
    return list(found.values())


def _cut(gemm: Gemm, machine: Machine) -> Gemm:
    columns = machine.config.columns
    m, k = min(gemm.m, 33), _end(gemm.k, 32, 2)
    n = _end(gemm.n, columns, 3)
    # The number of tiles that keeps a run short.
    while cycles(machine.config, m, k, n, source="records") > MOST and n > columns:
        n -= columns
    return Gemm(gemm.name, m, k, n)


def _end(size: int, part: int, most: int) -> int:
    """A size with the same remainder and at most so many whole parts."""
    return size if size <= most * part else most * part + size % part


def validate(jobs: Sequence[Job], machine: Machine, *, engine: str = "auto",
             progress: Callable[[int, int], None] = lambda done, total: None
             ) -> Iterator[Check]:
    """Runs the samples on the RTL.

    Parameters
    ----------
    jobs : sequence of Job
    machine : Machine
    engine : str
        As `sim.gemm.measure` takes it.
    progress : callable
        Called with the products done and their number.

    Yields
    ------
    Check
    """
    chosen, component = golden_config(machine.config), Accelerator(config=machine.config)
    small = samples(jobs, machine)
    for done, gemm in enumerate(small):
        progress(done, len(small))
        command = products.random_product(
            gemm.m, gemm.k, gemm.n, config=machine.config, source=planner.RECORDS,
            result=planner.VALUES_OUT, seed=done)
        measured = products.measure([command], config=machine.config, engine=engine,
                                    component=component)
        moves = moved(gemm, machine)
        taken = (len(measured.times["i_weight"]) * chosen.weight_width,
                 len(measured.times["i_activation"]))
        yield Check(
            layer=gemm.name, gemm=gemm, simulated=measured.cycles,
            predicted=cycles(machine.config, gemm.m, gemm.k, gemm.n, source="records"),
            records=taken, expected=(moves.weights, moves.activations),
            mismatches=measured.mismatches)
    progress(len(small), len(small))
