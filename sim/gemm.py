"""Matrix products through the accelerator, measured."""

import os
from dataclasses import dataclass

import numpy as np
from ml_dtypes import bfloat16

from golden import Quantized, quantize_activations, quantize_weights
from golden.accelerator import planner

from .accelerator import accelerate

TYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": bfloat16}

# Elements that are quantized at a time, each of which takes some hundred bytes meanwhile.
_AT_ONCE = 1 << 20


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """What a run of commands gave, and how long it took.

    Attributes
    ----------
    config : golden.accelerator.planner.Config
    commands : list of dict
        As `sim.accelerator.accelerate` took them.
    products : list of sim.accelerator.Product
    engine : str
    build_s, run_s : float
        Seconds of building and of simulation.
    cycles : int
        From the first input to the last status.
    times : dict of str to uint64 array
        Cycles of all streams' transfers.
    """

    config: planner.Config
    commands: list
    products: list
    engine: str
    build_s: float
    run_s: float
    cycles: int
    times: dict

    @property
    def peak(self):
        """Multiplications per cycle of the whole array."""
        return 32 * self.config.columns

    @property
    def utilisation(self):
        """Share of the array's multiplications that are the products' own."""
        return utilisation(self.config, self.commands, self.cycles)

    @property
    def ends(self):
        """Cycle after each command's last one."""
        return self.times["o_status"].astype(np.int64) + 1

    @property
    def mismatches(self):
        return sum(product.mismatches for product in self.products)


def measure(commands, *, config, progress=None, **options):
    """Runs commands through the accelerator of a configuration and measures that.

    Parameters
    ----------
    commands : list of dict
        As of `sim.accelerator.accelerate`; all must be legal.
    config : str
        Name of a configuration.
    progress : callable, optional
        Called with the outputs received and their total.
    **options
        As of `accelerate`.

    Returns
    -------
    Measured
    """
    chosen = planner.CONFIGS[config]
    total = _outputs(chosen, commands, options.get("trace", False))
    statistics, times = {}, {}
    products = accelerate(
        commands, config=config, statistics=statistics, times=times,
        progress=progress and (lambda received: progress(received, total)), **options)
    return Measured(config=chosen, commands=commands, products=products, times=times,
                    **statistics)


def utilisation(config, commands, cycles):
    """Useful multiplications, of M, N and K as they are, over those that the array could do."""
    useful = sum(command["m"] * command["k"] * command["n"] for command in commands)
    return useful / (32 * config.columns * cycles)


def tiles(config, commands):
    """What the array does with each tile of weights, in the order of ``o_trace``.

    Parameters
    ----------
    config : Config
    commands : list of dict
        All legal.

    Returns
    -------
    rows, macs : int64 arrays
        Activations that a tile meets, a cycle each, and the multiplications that count: those of
        columns that the product has and of elements along its K.
    """
    rows, macs = [], []
    for command in commands:
        plan = _plan(config, command)
        tile, group = plan.weight_order()
        own = np.repeat([len(block) for block in plan.blocks], plan.tiles * plan.groups)
        columns = np.minimum(command["n"] - tile * config.columns, config.columns)
        elements = np.minimum(command["k"] - group * 32, 32)
        rows.append(own)
        macs.append(own * columns * elements)
    return np.concatenate(rows), np.concatenate(macs)


def random_product(m, k, n, *, config, source, result, seed):
    """A command with random operands whose tails are heavy, as those of language models are.

    Parameters
    ----------
    m, k, n : int
    config : str
    source, result : int
        Of `golden.accelerator.planner.SOURCES`, other than KEPT, and `RESULTS`.
    seed : int

    Returns
    -------
    dict
    """
    rng = np.random.default_rng(seed)
    x = rng.standard_t(3, (m, k)).astype(np.float32)
    command = {"m": m, "k": k, "n": n, "source": source, "result": result,
               "w": _quantized(quantize_weights, rng.standard_t(5, (n, k)).astype(np.float32))}
    if source == planner.VALUES:
        return command | {"x": x.astype(TYPES[planner.CONFIGS[config].input])}
    return command | {"a": _quantized(quantize_activations, x)}


def memory(config, m, k, n, source, result):
    """Bytes that a product's operands, streams and results take together, about."""
    plan = planner.plan(config, m, k, n)
    weights = len(plan.blocks) * plan.groups * (
        (plan.tiles - 1) * plan.transfers + plan.last_transfers) * config.weight_width
    # Without building the order: blocks differ by one row at most.
    activations = sum(len(block) * plan.groups * (
        1 if plan.resident else -(-plan.tiles // planner.interleave(len(block))))
        for block in plan.blocks)
    # Codes are a byte each, with copies on the way to the simulator; random numbers take twelve
    # bytes; of the results there are the golden ones, those to expect and those received.
    return (170 * weights + (700 if source == planner.VALUES else 170) * activations
            + 12 * (m + n) * k + 24 * m * n
            + m * plan.tiles * (24 * config.columns if result == planner.VALUES_OUT else 200))


def physical_memory():
    """Bytes of this computer's memory, or None where it does not say."""
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
    """A quantized matrix; large ones are quantized in parts, which takes less memory."""
    count = max(1, _AT_ONCE // x.shape[1])
    parts = [quantize(x[start : start + count]) for start in range(0, len(x), count)]
    planes = {name: np.concatenate([getattr(part, name) for part in parts])
              for name in ("elements", "metadata", "scales")}
    return Quantized(kind=parts[0].kind, encoding=parts[0].encoding, shape=x.shape, **planes)
