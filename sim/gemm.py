# SPDX-License-Identifier: BSD-2-Clause
"""Measures matrix products on the accelerator: cycles, utilisation, mismatches."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from ml_dtypes import bfloat16

from golden import Quantized, quantize_activations, quantize_weights
from golden.accelerator import planner
from hw.accelerator.config import Config

from .accelerator import Product, accelerate, golden_config

TYPES: dict[Any, Any] = {"float32": np.float32, "float16": np.float16, "bfloat16": bfloat16}

# Elements that are quantized at a time; each takes about a hundred bytes meanwhile.
_AT_ONCE = 1 << 20


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """The results of a run of commands, and its duration.

    Attributes
    ----------
    config : golden.accelerator.planner.Config
    commands : list of dict
        As `sim.accelerator.accelerate` took them.
    products : list of sim.accelerator.Product
    engine : str
    build_s, run_s : float
        Duration of the build and of the simulation in seconds.
    cycles : int
        Cycles from the first input to the last status.
    times : dict of str to uint64 array
        Cycles of the transfers on all streams.
    """

    config: planner.Config
    commands: Sequence[dict[str, Any]]
    products: list[Product]
    engine: str
    build_s: float
    run_s: float
    cycles: int
    times: dict[str, np.ndarray]

    @property
    def peak(self) -> int:
        """Multiplications per cycle of the whole array."""
        return self.config.group * self.config.columns

    @property
    def utilisation(self) -> float:
        """Useful multiplications over those that the array could do."""
        return utilisation(self.config, self.commands, self.cycles)

    @property
    def ends(self) -> np.ndarray:
        """The cycle after the last cycle of each command."""
        return self.times["o_status"].astype(np.int64) + 1

    @property
    def mismatches(self) -> int:
        """Rows of results of all commands that differ from golden's."""
        return sum(product.mismatches for product in self.products)


def measure(commands: Sequence[dict[str, Any]], *, config: Config | str,
            progress: Callable[[int, int], Any] | None = None, **options: Any) -> Measured:
    """Runs commands on the accelerator of a configuration and measures the run.

    Parameters
    ----------
    commands : list of dict
        As `sim.accelerator.accelerate` takes them; the accelerator must be able to run them.
    config : Config or str
        As `accelerate` takes it.
    progress : callable, optional
        Called with the number of outputs received and their total.
    **options
        As `accelerate` takes them.

    Returns
    -------
    Measured
    """
    chosen = golden_config(config)
    total = _outputs(chosen, commands, options.get("trace", False))
    statistics: dict[str, Any] = {}
    times: dict[str, np.ndarray] = {}

    def report(received: int) -> None:
        if progress:
            progress(received, total)

    products = accelerate(commands, config=config, statistics=statistics, times=times,
                          progress=report, **options)
    return Measured(config=chosen, commands=commands, products=products, times=times,
                    **statistics)


def utilisation(config: planner.Config, commands: Sequence[dict[str, Any]], cycles: int) -> float:
    """Useful multiplications, M * N * K, over those that the array could do in the cycles."""
    useful = sum(command["m"] * command["k"] * command["n"] for command in commands)
    return useful / (config.group * config.columns * cycles)


def tiles(config: planner.Config,
          commands: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Work of the array on each tile of weights, in the order of ``o_trace``.

    Parameters
    ----------
    config : Config
    commands : list of dict
        The accelerator must be able to run them.

    Returns
    -------
    rows, macs : int64 arrays
        Activations that meet a tile, one in each cycle, and the useful multiplications: those in
        columns of the product and of elements along its K.
    """
    rows, macs = [], []
    for command in commands:
        plan = _plan(config, command)
        tile, group = plan.weight_order()
        own = np.repeat([len(block) for block in plan.blocks], plan.tiles * plan.groups)
        columns = np.minimum(command["n"] - tile * config.columns, config.columns)
        elements = np.minimum(command["k"] - group * config.group, config.group)
        rows.append(own)
        macs.append(own * columns * elements)
    return np.concatenate(rows), np.concatenate(macs)


def random_product(m: int, k: int, n: int, *, config: Config | str, source: int, result: int,
                   seed: int) -> dict[str, Any]:
    """A command with random operands, with heavy tails like those of language models.

    Parameters
    ----------
    m, k, n : int
    config : Config or str
    source, result : int
        From `golden.accelerator.planner.SOURCES`, without KEPT, and from `RESULTS`.
    seed : int

    Returns
    -------
    dict
    """
    rng = np.random.default_rng(seed)
    x = rng.standard_t(3, (m, k)).astype(np.float32)
    chosen = golden_config(config)
    command = {"m": m, "k": k, "n": n, "source": source, "result": result,
               "w": _quantized(partial(quantize_weights, encoding=chosen.weight_encoding),
                               rng.standard_t(5, (n, k)).astype(np.float32))}
    if source == planner.VALUES:
        return command | {"x": x.astype(TYPES[chosen.input])}
    return command | {"a": _quantized(partial(quantize_activations, encoding=chosen.encoding), x)}


def memory(config: planner.Config, m: int, k: int, n: int, source: int, result: int) -> int:
    """Approximate number of bytes that a product's operands, streams and results take."""
    plan = planner.plan(config, m, k, n)
    weights = len(plan.blocks) * plan.groups * (
        (plan.tiles - 1) * plan.transfers + plan.last_transfers) * config.weight_width
    # This does not build the order of activations; the blocks differ by at most one row.
    activations = sum(len(block) * plan.groups * (
        1 if plan.resident else -(-plan.tiles // planner.interleave(len(block))))
        for block in plan.blocks)
    # Codes are a byte each and are copied on the way to the simulator. Random numbers take twelve
    # bytes. The results are there three times: golden's, those expected and those received.
    of_group = config.group / 32
    return int(of_group * (170 * weights + (700 if source == planner.VALUES else 170) * activations)
               + 12 * (m + n) * k + 24 * m * n
               + m * plan.tiles * (24 * config.columns if result == planner.VALUES_OUT
                                   else 200 * of_group))


def physical_memory() -> int | None:
    """Bytes of this computer's memory, or None if the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _plan(config, command):
    return planner.plan(config, *(command[name] for name in "mkn"))


def _outputs(config, commands, trace):
    """Transfers on all output streams: rows of results, statuses, and tiles if traced."""
    total = len(commands)
    for command in commands:
        plan = _plan(config, command)
        if command["result"] != planner.KEEP:
            total += command["m"] * plan.tiles
        if trace:
            total += len(plan.blocks) * plan.tiles * plan.groups
    return total


def _quantized(quantize, x):
    """Quantizes a matrix, a large one in parts, which takes less memory."""
    count = max(1, _AT_ONCE // x.shape[1])
    parts = [quantize(x[start : start + count]) for start in range(0, len(x), count)]
    planes = {name: np.concatenate([getattr(part, name) for part in parts])
              for name in ("elements", "metadata", "scales")}
    return Quantized(kind=parts[0].kind, encoding=parts[0].encoding, group=parts[0].group,
                     shape=x.shape, **planes)
