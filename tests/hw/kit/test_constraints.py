# SPDX-License-Identifier: BSD-2-Clause
"""Timing constraints, as OpenSTA reads them."""

import re
import shutil
import subprocess

import pytest

from hw import registry
from hw.flow import mapping, timing
from hw.flow.liberty import find_library
from hw.kit import constraints
from tests.support import descriptions
from tests.support.netlists import opensta


def describe(name, **options):
    return descriptions.describe(registry.build(name), name, **options)


def commands(text):
    """Commands with the ports they name."""
    return [(line.split(" [get_ports")[0], *re.findall(r"\{(\w+)\}", line))
            for line in text.splitlines() if line and not line.startswith("#")]


def test_every_port_has_a_time():
    description = describe("decoder")
    text = constraints.sdc(description)
    assert commands(text) == [
        ("create_clock -name clock -period 2.000",),
        *(("set_input_delay 0.000 -clock clock", port)
          for port in ("rst", "i__payload", "i__valid", "o__ready")),
        *(("set_output_delay 0.000 -clock clock", port)
          for port in ("i__ready", "o__payload", "o__valid"))]
    description = describe("decoder", axi=True)
    text = constraints.sdc(description, axi=True)
    assert "[get_ports aclk]" in text
    assert {name for _, *names in commands(text) for name in names} == {
        port["name"] for port in description["axi"]["ports"]} - {"aclk"}


def test_combinational_units_have_a_virtual_clock():
    assert commands(constraints.sdc(describe("top1", clocked=False))) == [
        ("create_clock -name virtual -period 2.000",),
        ("set_input_delay 0.000 -clock virtual", "codes"),
        ("set_output_delay 0.000 -clock virtual", "lane")]


@pytest.mark.long
@pytest.mark.skipif(shutil.which("sta") is None, reason="OpenSTA is not installed")
@pytest.mark.parametrize("name, clocked", [("top1", False), ("group_accumulator", True)])
def test_opensta_finds_the_delays_of_the_figures(name, clocked, tmp_path):
    library = find_library()
    _, netlist = mapping.netlists(name, registry.build(name), library)
    # Writes the files; what it reports is not used.
    opensta(name, netlist, library, "", tmp_path)
    text = constraints.sdc(describe(name, clocked=clocked))
    # With what the comments at the end say of the library of the figures.
    text, count = re.subn(r"^# (set_driving_cell|set_load)", r"\1", text, flags=re.M)
    assert count
    (tmp_path / "unit.sdc").write_text(text)
    (tmp_path / "run.tcl").write_text(
        f"read_liberty cells.lib\nread_verilog unit.v\nlink_design {name}\nread_sdc unit.sdc\n"
        "check_setup -verbose\nreport_checks -path_delay max -digits 6\nexit\n")
    done = subprocess.run(["sta", "-no_splash", "-exit", "run.tcl"], cwd=tmp_path, text=True,
                          capture_output=True)
    assert done.returncode == 0 and "arning" not in done.stdout + done.stderr
    slack, = re.findall(r"(\S+)\s+slack", done.stdout)
    slowest = max(path.delay_ns for path in timing.analyse(netlist, library).values())
    assert constraints.PERIOD - float(slack) == pytest.approx(slowest, rel=1e-3)
