# SPDX-License-Identifier: BSD-2-Clause
"""Runs whole matrix products on the accelerator's RTL and compares them with golden."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from golden.accelerator import planner
from golden.accelerator.accelerator import execute, result_matrix, streams
from hw.accelerator.accelerator import Accelerator
from hw.accelerator.config import Config, configuration
from hw.tools.packing import length

from .engines import build
from .runner import SimulationError, mismatches, run


@dataclass(frozen=True, kw_only=True, eq=False)
class Product:
    """The result of one command.

    Attributes
    ----------
    code : int
        The code with which it ended, see `hw.accelerator.planner.Status`.
    y : float32 array, shape (M, N), or None
        The product, if it left the accelerator as float32.
    rows, mismatches : int
        Rows of results that left the accelerator, one tile wide, and the number of those that
        differ from golden's.
    """

    code: int
    y: np.ndarray | None
    rows: int
    mismatches: int


def accelerate(commands: Sequence[dict[str, Any]], *, config: Config | str = "paper",
               component: Accelerator | None = None, trace: bool = False, engine: str = "auto",
               vcd: Any = None, **options: Any) -> list[Product]:
    """Runs commands through the accelerator and compares every output with golden.

    Parameters
    ----------
    commands : list of dict
        As `golden.accelerator.accelerator.execute` takes them.
    config : Config or str
        As `Accelerator` takes it.
    component : Accelerator, optional
        Used in place of ``config`` and ``trace``, so that several runs build it once.
    trace : bool
        Whether ``times`` also has the tiles of weights, as "o_trace".
    engine : str
        As `sim.run` takes it, but "auto" compiles whenever it can: Amaranth's simulator runs an
        array of 32 columns at about ten cycles per second.
    vcd, **options
        As `sim.run` takes them, but the default patience is as long as the array can compute
        without a transfer.

    Returns
    -------
    list of Product
        One per command.

    Raises
    ------
    TypeError
        If the configuration or the component is none.
    ValueError
        If there is no configuration of that name, or no command.
    SimulationError
        As `sim.run` raises it; also if the number of results is not golden's.
    """
    if not commands:
        raise ValueError("commands must be at least one, not none")
    if component is None:
        component = Accelerator(config=configuration(config), trace=trace)
    if not isinstance(component, Accelerator):
        raise TypeError(f"component must be an Accelerator, not {component!r}")
    engine = build.preferred(engine, vcd)
    sizes = golden_config(component.config)
    executed = execute(sizes, commands)
    inputs, expected = streams(sizes, commands, executed)
    if component.trace:
        expected["o_trace"] = _trace(executed)
    options = {"patience": _patience(executed)} | options
    outputs = run(component, inputs, outputs={name: length(rows)
                                              for name, rows in expected.items()},
                  engine=engine, vcd=vcd, **options)
    wrong = {name: mismatches(outputs[name], expected[name]) for name in expected}
    if component.trace and wrong["o_trace"].any():
        raise SimulationError("o_trace has other tiles of weights than the plans")
    return _products(sizes, commands, executed, outputs, wrong)


def golden_config(config: Config | str) -> planner.Config:
    """Golden's configuration of the same sizes as one of the hardware, or as the one so named."""
    return planner.configuration(configuration(config))


def _products(config, commands, executed, outputs, wrong):
    """Divides the outputs among the commands that they belong to."""
    products, starts = [], {"o": 0, "o_record": 0}
    for number, (command, (code, plan, y)) in enumerate(zip(commands, executed, strict=True)):
        status = outputs["o_status"][number]
        missed = int(wrong["o_status"][number])
        name = {planner.VALUES_OUT: "o", planner.RECORDS_OUT: "o_record"}.get(command["result"])
        if code != planner.DONE or name is None:
            products.append(Product(code=int(status), y=None, rows=0, mismatches=missed))
            continue
        count = len(y) * plan.tiles
        own = slice(starts[name], starts[name] + count)
        starts[name] += count
        matrix = None
        if name == "o":
            rows = outputs["o"]["values"][own].view(np.float32)
            matrix = result_matrix(config, plan, rows, command["n"])
        products.append(Product(code=int(status), y=matrix, rows=count,
                                mismatches=missed + int(wrong[name][own].sum())))
    return products


def _patience(executed):
    """Cycles that can pass without a transfer."""
    return 1000 + sum(plan.groups * plan.tiles * max(len(block), plan.transfers, 8)
                      for _, plan, _ in executed if plan for block in plan.blocks)


def _trace(executed):
    """Rows of activations that meet each tile of weights."""
    counts = [np.repeat([len(block) for block in plan.blocks], plan.groups * plan.tiles)
              for _, plan, _ in executed if plan]
    return np.concatenate([np.zeros(0, np.int64), *counts])
