# SPDX-License-Identifier: BSD-2-Clause
"""What an integrator's tools want beside the Verilog of a unit.

`files` makes all of it from the unit's description: filelist, FuseSoC core, constraints, registers
as SystemRDL and IP-XACT, and on demand a self-checking testbench. `bender` writes the one manifest
of a folder.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from amaranth.lib import wiring

from . import constraints, driver, manifests, registers, testbench
from .manifests import bender

__all__ = ["bender", "files"]


def files(component: wiring.Component, unit: str, parameters: Mapping[str, Any],
          description: dict[str, Any], sources: Sequence[str], *,
          vectors: int | None = None) -> dict[str, str]:
    """Makes the files beside the Verilog of a unit, and completes its description.

    Parameters
    ----------
    component : wiring.Component
    unit : str
        Name in the registry.
    parameters : dict
        From `hw.registry.parameters`.
    description : dict
        From `hw.generate.describe`, with "axi" if there is a wrapper. It gets the entries "lanes"
        (`hw.kit.driver.lanes`), "machine" (`hw.kit.driver.machine`) and "files", and the contract
        of the reset.
    sources : list of str
        Names of the Verilog files, the wrapper last.
    vectors : int, optional
        Makes also a testbench with this number of vectors, or the default number if it is 0.

    Returns
    -------
    dict of str to str
        Contents by file name.

    Raises
    ------
    ValueError
        If there can be no testbench, see `hw.kit.testbench.testbench`.
    """
    name = description["unit"]
    bench = {} if vectors is None else testbench.testbench(
        component, unit, parameters, description, vectors or None)
    description |= {
        "reset": driver.reset_contract(description),
        "lanes": driver.lanes(description),
        "machine": driver.machine(component),
    }
    made = {f"{name}.f": manifests.filelist(sources),
            f"{name}.sdc": constraints.sdc(description)}
    if description["axi"]:
        made[f"{name}_axi.sdc"] = constraints.sdc(description, axi=True)
    if description["registers"]:
        made |= {f"{name}.rdl": registers.system_rdl(description),
                 f"{name}.xml": registers.ip_xact(description, sources)}
    description["files"] = {
        "verilog": [*sources],
        # Those that macros may replace.
        "memory_models": [f"{memory['module']}.v" for memory in description["memories"]
                          if memory["module"]],
        "filelist": f"{name}.f",
        "sdc": [file for file in made if file.endswith(".sdc")],
        "fusesoc": f"{name}.core",
        "systemrdl": f"{name}.rdl" if description["registers"] else None,
        "ipxact": f"{name}.xml" if description["registers"] else None,
        "testbench": [*bench],
    }
    return made | {f"{name}.core": manifests.fusesoc(description)} | bench
