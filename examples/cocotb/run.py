# SPDX-License-Identifier: BSD-2-Clause
"""Simulates the AXI machine in cocotb: ``python examples/cocotb/run.py [icarus|verilator] [DIR]``.

Writes the machine's Verilog to the folder, ``build/cocotb`` if none is given, and runs the
testbench `product.py` on it. cocotb takes Verilator from 5.036 on.
"""

import sys
from pathlib import Path

from cocotb_tools.check_results import get_results
from cocotb_tools.runner import get_runner

from hw.generate import generate

HERE = Path(__file__).parent
TOP = "axi_accelerator_axi"


def simulate(simulator, folder):
    """Runs the testbench on the Verilog in a folder; returns the numbers of tests and failures."""
    runner = get_runner(simulator)
    runner.build(sources=[folder / f"{TOP}.v", folder / "axi_accelerator.v"], hdl_toplevel=TOP,
                 build_dir=folder / "sim_build", timescale=("1ns", "1ps"), always=True,
                 build_args=["-g2005"] if simulator == "icarus" else ["-Wno-fatal"])
    return get_results(runner.test(
        test_module="product", hdl_toplevel=TOP, build_dir=folder / "sim_build", test_dir=HERE,
        results_xml=str(folder / "results.xml")))


def main(simulator="icarus", folder="build/cocotb"):
    folder = Path(folder).resolve()
    generate("axi_accelerator", ["config=lite"], folder, axi=True)
    tests, failed = simulate(simulator, folder)
    print(f"{tests} tests, {failed} failed")
    return int(failed > 0 or tests == 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
