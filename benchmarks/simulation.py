# SPDX-License-Identifier: BSD-2-Clause
"""Cycles per second of the array on each simulation engine: ``python -m benchmarks.simulation``.

Each engine is built with an empty cache. It then runs random records without stalls; the weights
change every 32 activations. Outputs that differ between engines are an error.
"""

import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

import sim
from golden import command
from golden.interrupts import temporary_folder
from hw.tools import yosys
from hw.tools.progress import counting
from hw.units.mac_array import MacArray
from sim.engines import build

TILE = 32
"""Activations per tile of weights; the largest array has as many columns."""


@command.run
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; see ``--help``. Returns the exit status."""
    parser = command.Parser(prog="python -m benchmarks.simulation", description=__doc__)
    parser.add_argument("--columns", type=int, nargs="+", default=[4, 32], metavar="N",
                        help="sizes of the array, up to 32 (default: 4 32)")
    parser.add_argument("--engines", nargs="+", default=list(build.ENGINES),
                        choices=build.ENGINES, help="compiled engines (default: all)")
    parser.add_argument("--cycles", type=int, default=50_000, metavar="N",
                        help="approximate number for the compiled engines (default: 50000)")
    parser.add_argument("--slow-cycles", type=int, default=320, metavar="N",
                        help="approximate number for Amaranth's simulator with 4 columns; fewer "
                             "with more columns (default: 320)")
    options = parser.parse_args(arguments)
    if not all(1 <= columns <= TILE for columns in options.columns):
        raise ValueError(f"--columns must be within 1 and {TILE}, not "
                         f"{', '.join(map(str, options.columns))}")
    for name, cycles in (("--cycles", options.cycles), ("--slow-cycles", options.slow_cycles)):
        if cycles < 1:
            raise ValueError(f"{name} must be at least 1, not {cycles}")
    if build.compiler() is None:
        raise command.Failure("no C++ compiler: set CXX, or install g++ or clang++")

    yosys.prepare()
    print("columns  engine       build s   cycles   run s    cycles/s   times Amaranth's")
    for columns in options.columns:
        inputs = stimuli(columns, -(-options.cycles // TILE))
        few = max(1, options.slow_cycles * 4 // columns // TILE)
        expected, slow = measure(columns, "amaranth", inputs, few)
        for engine in ("amaranth", *options.engines):
            figures = slow
            if engine != "amaranth":
                outputs, figures = measure(columns, engine, inputs, -(-options.cycles // TILE))
                if not np.array_equal(outputs[: len(expected)], expected):
                    raise command.Failure(f"{engine} and amaranth differ")
            print(f"{columns:>7}  {figures['engine']:<10}{figures['build_s']:>10.1f}"
                  f"{figures['cycles']:>9}{figures['run_s']:>8.2f}{figures['rate']:>12,.0f}"
                  f"{figures['rate'] / slow['rate']:>12,.0f}", flush=True)


def measure(columns: int, engine: str, inputs: dict[str, Any],
            tiles: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Outputs and statistics of a run over the first tiles; "rate" is in cycles per second."""
    count = tiles * TILE
    inputs = {
        "i_weight": {name: plane[: tiles * columns] for name, plane in inputs["weight"].items()},
        "i_activation": {
            "record": {name: plane[:count] for name, plane in inputs["activation"].items()},
            "last": np.arange(count) % TILE == TILE - 1,
        },
        "i_acc": inputs["acc"][:count],
    }
    figures: dict[str, Any] = {}
    with temporary_folder() as folder, \
            counting(f"{columns} columns, {engine}", "activation") as progress:
        # The cache is empty, so that the build is measured.
        os.environ["M2XFP_CACHE_DIR"] = str(folder)
        outputs = sim.run(MacArray(columns=columns), inputs, outputs=count, engine=engine,
                          statistics=figures,
                          progress=lambda received: progress(received, count))
    figures["rate"] = figures["cycles"] / figures["run_s"]
    return outputs["o"], figures


def stimuli(columns: int, tiles: int) -> dict[str, Any]:
    """Random weights, activations and accumulators for a number of tiles."""
    generator = np.random.default_rng(0)

    def records(*shape):
        return {"elements": generator.integers(0, 16, (*shape, 32), dtype=np.uint8),
                "metadata": generator.integers(0, 4, (*shape, 4), dtype=np.uint8),
                "scale": generator.integers(110, 144, shape, dtype=np.uint8)}

    return {"weight": records(tiles * columns, 1), "activation": records(tiles * TILE),
            "acc": generator.integers(0, 1 << 30, (tiles * TILE, columns), dtype=np.uint32)}


if __name__ == "__main__":
    sys.exit(main())
