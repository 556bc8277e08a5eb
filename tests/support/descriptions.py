# SPDX-License-Identifier: BSD-2-Clause
"""Descriptions of components without their Verilog, which takes longer to make."""

from hw import generate
from hw.verilog.axi_wrapper import wrap

TEXT = "module {name} (\n  input  wire {clock}\n);\nendmodule\n"


def describe(component, name, *, clocked=True, axi=False):
    """As `hw.generate` describes it; of the Verilog it matters only that there is a clock."""
    text = TEXT.format(name=name, clock="clk" if clocked else "none")
    description = generate.describe(component, name, text)
    return description | ({"axi": {"file": f"{name}_axi.v", **wrap(description)[1]}} if axi else {})
