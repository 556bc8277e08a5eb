# SPDX-License-Identifier: BSD-2-Clause
"""A small library and netlists of it, and OpenSTA."""

import json
import re
import subprocess

from hw.flow import timing
from hw.flow.liberty import find_library
from hw.tools import yosys

LOAD = timing.OUTPUT_LOAD


def table(kind, base, slew, load, template="delay"):
    """Linear over slew (0 to 1 ns) and load (0 to 100 fF), so interpolation is exact."""
    rows = ", ".join(f'"{base + slew * s}, {base + slew * s + load * 100}"' for s in (0, 1))
    return f"{kind} ({template}) {{ values ({rows}); }}"


def arc(related, sense, rise, fall, kind="combinational"):
    """Rise and fall are (delay, per slew, per load), transitions 0.01 + 0.5 slew + 0.001 load."""
    return f"""timing () {{ related_pin : "{related}"; timing_sense : {sense}; timing_type : {kind};
        {table("cell_rise", *rise)} {table("cell_fall", *fall)}
        {table("rise_transition", 0.01, 0.5, 0.001)} {table("fall_transition", 0.01, 0.5, 0.001)}
        }}"""


def pin(name, direction, *content):
    return f"pin ({name}) {{ direction : {direction}; {' '.join(content)} }}"


NEGATIVE = "negative_unate"
CELLS = {
    "INV": f"""cell (INV) {{ area : 1; {pin("A", "input", "capacitance : 2;")}
        {pin("Y", "output", 'function : "!A";',
             arc("A", NEGATIVE, (0.02, 0.1, 0.002), (0.03, 0.1, 0.001)))} }}""",
    "NAND": f"""cell (NAND) {{ area : 2; {pin("A", "input", "capacitance : 2;")}
        {pin("B", "input", "rise_capacitance : 3; fall_capacitance : 4; capacitance : 3;")}
        {pin("Y", "output", 'function : "!(A & B)";',
             arc("A", NEGATIVE, (0.02, 0.1, 0.002), (0.02, 0.1, 0.002)),
             arc("B", NEGATIVE, (0.02, 0.1, 0.002), (0.5, 0.1, 0.002)))} }}""",
    "BUF_X2": f"""cell (BUF_X2) {{ area : 1.5; {pin("A", "input", "capacitance : 1;")}
        {pin("Z", "output", 'function : "A";',
             arc("A", "positive_unate", (0.05, 0, 0.003), (0.05, 0, 0.004)))} }}""",
    "DFF": f"""cell (DFF) {{ area : 5; ff (IQ, IQN) {{ next_state : "D"; clocked_on : "CK"; }}
        {pin("D", "input", "capacitance : 1;", f'''timing () {{ related_pin : "CK";
             timing_type : setup_rising; {table("rise_constraint", 0.03, 0.2, 0, "setup")}
             {table("fall_constraint", 0.04, 0.2, 0, "setup")} }}''')}
        {pin("CK", "input", "capacitance : 1; clock : true;")}
        {pin("Q", "output", 'function : "IQ";',
             arc("CK", "non_unate", (0.1, 0, 0.002), (0.12, 0, 0.002), "rising_edge"))} }}""",
    "DLH": """cell (DLH) { area : 3; latch (IQ, IQN) { enable : "G"; data_in : "D"; } }""",
}


def liberty(cells=CELLS, head=""):
    return f"""/* a comment {{ */ library (tiny) {{
        time_unit : "1ns"; capacitive_load_unit (1, ff); {head}
        lu_table_template (delay) {{ variable_1 : input_net_transition;
            variable_2 : total_output_net_capacitance;
            index_1 ("0, 1"); index_2 ("0, 100"); }}
        lu_table_template (setup) {{ variable_1 : constrained_pin_transition;
            variable_2 : related_pin_transition; index_1 ("0, 1"); index_2 ("0, 100"); }}
        {" ".join(cells.values())} }}"""


def read(folder, text):
    path = folder / "tiny.lib"
    path.write_text(text)
    return find_library(str(path))


def module(ports, *cells):
    """A netlist of (name, type, pins); nets have names, port directions are "input a b" texts."""
    nets = {}

    def bit(net):
        return nets.setdefault(net, len(nets) + 2)

    directions = [line.split() for line in ports]
    return {
        "ports": {net: {"direction": direction, "bits": [bit(net)]}
                  for direction, *names in directions for net in names},
        "cells": {name: {"type": kind, "connections": {p: [bit(n)] for p, n in pins.items()}}
                  for name, kind, pins in cells},
        "netnames": {net: {"bits": [number], "hide_name": 0} for net, number in nets.items()},
    }


OPENSTA = """read_liberty cells.lib
read_verilog unit.v
link_design {name}
create_clock -name clk -period {period} {clock}
set ins [list]
foreach p [all_inputs] {{ if {{[get_property $p full_name] != "clk"}} {{ lappend ins $p }} }}
set_input_delay 0 -clock clk $ins
set_driving_cell -lib_cell {driver} $ins
set_output_delay 0 -clock clk [all_outputs]
set_load {load} [all_outputs]
"""


def opensta(name, netlist, library, commands, folder, *, period=0):
    """What OpenSTA prints at the commands, after a netlist with its clock and loads."""
    design = json.dumps({"modules": {name: netlist}})
    _, files = yosys.run("read_json unit.json\nwrite_verilog -noattr unit.v\n",
                         inputs={"unit.json": design}, outputs=["unit.v"])
    # It does not read signed ports, and would add the default wires without a word.
    (folder / "unit.v").write_text(re.sub(r"(put|wire) signed\b", r"\1", files["unit.v"]))
    # Numbers are in the library's units.
    text = library.path.read_text()
    (folder / "cells.lib").write_text(re.sub(r"default_wire_load *:.*", "", text))
    clock = "[get_ports clk]" if "clk" in netlist["ports"] else ""
    script = OPENSTA.format(name=name, clock=clock, driver=library.driver,
                            load=LOAD / library.header.ff, period=period)
    (folder / "run.tcl").write_text(script + commands + "exit\n")
    return subprocess.run(["sta", "-no_splash", "-exit", "run.tcl"], cwd=folder, text=True,
                          capture_output=True, check=True).stdout
