# SPDX-License-Identifier: BSD-2-Clause
"""Timing constraints of a unit as SDC, with the assumptions of the project's own figures."""

from collections.abc import Mapping
from typing import Any

PERIOD = 2.0
"""Clock period in ns: 500 MHz, which the default depths are made for in 45 nm."""


def sdc(description: Mapping[str, Any], *, axi: bool = False) -> str:
    """The constraints of a unit, or of the AXI wrapper around it.

    Inputs arrive at the clock edge and outputs have the whole period, as `hw.flow.timing` assumes:
    the unit's neighbours have registers on its ports. A combinational unit has a virtual clock.

    Parameters
    ----------
    description : dict
        Description of the unit, see `hw.generate.describe`.
    axi : bool
        Whether the constraints are those of the AXI wrapper.

    Returns
    -------
    str
        Plain commands of SDC, without Tcl of any other kind.
    """
    part = description["axi"] if axi else description
    top = part["module"] if axi else part["unit"]
    clock, reset = part["clock"], part["reset"]
    ports = part["ports"]
    known = {entry["name"] for entry in (clock, reset) if entry}
    inputs = [port["name"] for port in ports
              if port["direction"] == "input" and port["name"] not in known]
    outputs = [port["name"] for port in ports if port["direction"] == "output"]
    lines = ["# SPDX-License-Identifier: BSD-2-Clause",
             f"# {top}: timing constraints",
             "#",
             "# Set the period to yours; units are those of your library, here ns. Inputs come",
             "# from registers without delay and outputs go to registers: change both delays to",
             "# what your neighbours need.",
             ""]
    if clock:
        name = "clock"
        lines.append(f"create_clock -name clock -period {PERIOD:.3f} "
                     f"[get_ports {clock['name']}]")
        # An asynchronous one must end synchronously, so it has a time, too.
        inputs = [reset["name"], *inputs]
    else:
        name = "virtual"
        lines.append(f"create_clock -name virtual -period {PERIOD:.3f}")
    lines += ["",
              *_ports(f"set_input_delay 0.000 -clock {name}", inputs),
              *_ports(f"set_output_delay 0.000 -clock {name}", outputs),
              "",
              "# The published figures have these besides, in the Nangate 45 nm library (fF):",
              *_ports("# set_driving_cell -lib_cell BUF_X2 -pin Z", inputs),
              *_ports("# set_load 5.0", outputs)]
    return "\n".join([*lines, ""])


def _ports(command, names):
    """A command on each of some ports."""
    # Brackets of buses are part of what `get_ports` takes by the name of the whole port.
    return [f"{command} [get_ports {{{name}}}]" for name in names]
