# SPDX-License-Identifier: BSD-2-Clause
"""Liberty files and static timing: cases worked out by hand, and agreement with OpenSTA."""

import re
import shutil

import numpy as np
import pytest

from hw import registry
from hw.flow import mapping, timing
from hw.flow.liberty import find_library
from hw.tools.errors import ToolError
from tests.support.netlists import LOAD, liberty, module, opensta, pin, read


@pytest.fixture
def tiny(tmp_path):
    return read(tmp_path, liberty())


def test_chain_of_inverters(tiny):
    paths = timing.analyse(module(["input a", "output y"], ("u0", "INV", {"A": "a", "Y": "n"}),
                                  ("u1", "INV", {"A": "n", "Y": "y"})), tiny)

    # Of the driver only what the load of 2 fF adds; a falls, n rises, y falls (and the reverse).
    slew_a = 0.01 + 0.001 * 2
    slew_n = 0.01 + 0.5 * slew_a + 0.001 * 2
    rising_n = 0.004 * 2 + 0.02 + 0.1 * slew_a + 0.002 * 2
    falling_n = 0.003 * 2 + 0.03 + 0.1 * slew_a + 0.001 * 2
    falling_y = rising_n + 0.03 + 0.1 * slew_n + 0.001 * LOAD
    rising_y = falling_n + 0.02 + 0.1 * slew_n + 0.002 * LOAD
    (kind, path), = paths.items()
    assert (kind, path.startpoint, path.endpoint) == ("in-out", "a", "y")
    assert path.delay_ns == pytest.approx(max(falling_y, rising_y), abs=1e-12)
    assert [(step["cell"], step["pin"], step["edge"], step["net"]) for step in path.steps] == [
        ("", "input", "rise", "a"), ("INV", "A->Y", "fall", "n"), ("INV", "A->Y", "rise", "y")]
    assert rising_y > falling_y


def test_register_to_register(tiny):
    clocked = module(["input clk d", "output q"],
                     ("r0", "DFF", {"CK": "clk", "D": "d", "Q": "s"}),
                     ("u0", "INV", {"A": "s", "Y": "n"}),
                     ("r1", "DFF", {"CK": "clk", "D": "n", "Q": "q"}))
    paths = timing.analyse(clocked, tiny)

    slew_s = 0.01 + 0.001 * 2
    slew_n = 0.01 + 0.5 * slew_s + 0.001 * 1
    rising = 0.12 + 0.002 * 2 + 0.02 + 0.1 * slew_s + 0.002 * 1 + 0.03 + 0.2 * slew_n
    falling = 0.1 + 0.002 * 2 + 0.03 + 0.1 * slew_s + 0.001 * 1 + 0.04 + 0.2 * slew_n
    assert paths["reg-reg"].delay_ns == pytest.approx(max(rising, falling), abs=1e-12)
    assert (paths["reg-reg"].startpoint, paths["reg-reg"].endpoint) == ("s", "q")
    assert paths["reg-reg"].steps[-1]["pin"] == "D setup"
    assert paths["reg-out"].delay_ns == pytest.approx(0.12 + 0.002 * LOAD, abs=1e-12)
    assert paths["in-reg"].delay_ns == pytest.approx(0.004 + 0.04 + 0.2 * 0.011, abs=1e-12)
    assert (paths["in-reg"].startpoint, paths["in-reg"].endpoint) == ("d", "s")
    assert "in-out" not in paths

    period, ports = timing.unit_delay(paths)
    assert period is paths["reg-reg"] and ports is paths["reg-out"]
    del paths["reg-reg"]
    assert timing.unit_delay(paths) == (ports, ports)
    assert timing.unit_delay({}) == (None, None)


def test_largest_slew_goes_on_with_latest_arrival(tiny):
    # Input a is quick but its slew is large, for all the inverters that hang on it.
    heavy = [(f"l{i}", "INV", {"A": "a", "Y": f"x{i}"}) for i in range(400)]
    gates = module(["input a b", "output y"], ("u", "NAND", {"A": "a", "B": "b", "Y": "n"}),
                   ("v", "INV", {"A": "n", "Y": "y"}), *heavy)
    path = timing.analyse(gates, tiny)["in-out"]

    load_b = np.array([3, 4])
    slew_a, slew_b = 0.01 + 0.001 * 802, 0.01 + 0.001 * load_b
    arrivals_a = 0.004 * 802 + 0.02 + 0.1 * slew_a + 0.002 * 2
    falling_b = 0.003 * load_b[0] + 0.5 + 0.1 * slew_b[0] + 0.002 * 2
    slew_n = 0.01 + 0.5 * slew_a + 0.001 * 2
    assert arrivals_a > falling_b
    assert path.delay_ns == pytest.approx(
        arrivals_a + 0.03 + 0.1 * slew_n + 0.001 * LOAD, abs=1e-12)

    # From b alone the arrival is b's, the slew at the second gate is still a's.
    gates["ports"]["a"]["direction"] = "inout"
    path = timing.analyse(gates, tiny)["in-out"]
    rising_y = falling_b + 0.02 + 0.1 * (0.01 + 0.5 * slew_b[0] + 0.002) + 0.002 * LOAD
    assert path.delay_ns == pytest.approx(rising_y, abs=1e-12)


def test_constants_and_direct_connections(tiny):
    netlist = module(["input a", "output y z"], ("u", "NAND", {"A": "a", "B": "one", "Y": "y"}))
    netlist["cells"]["u"]["connections"]["B"] = ["1"]
    netlist["ports"]["z"]["bits"] = netlist["ports"]["a"]["bits"]
    path = timing.analyse(netlist, tiny)["in-out"]
    # Net a bears the gate and the output z.
    slew = 0.01 + 0.001 * (2 + LOAD)
    assert path.delay_ns == pytest.approx(
        0.004 * (2 + LOAD) + 0.02 + 0.1 * slew + 0.002 * LOAD, abs=1e-12)
    assert timing.analyse(module(["output y"]), tiny) == {}


def test_refused_netlists(tiny):
    loop = module(["input a", "output y"], ("u", "NAND", {"A": "a", "B": "x", "Y": "y"}),
                  ("v", "INV", {"A": "y", "Y": "x"}))
    with pytest.raises(ToolError, match="2 gates form a loop, through "):
        timing.analyse(loop, tiny)
    with pytest.raises(ToolError, match=r"u is \$and, not a cell of the library"):
        timing.analyse(module([], ("u", "$and", {})), tiny)
    with pytest.raises(ToolError, match="u is DLH, a latch"):
        timing.analyse(module([], ("u", "DLH", {})), tiny)
    clocks = [(f"r{i}", "DFF", {"CK": f"c{i}", "D": "d", "Q": f"q{i}"}) for i in range(2)]
    with pytest.raises(ToolError, match="more than one clock"):
        timing.analyse(module(["input c0 c1 d"], *clocks), tiny)


def test_lookup(tiny):
    arc = tiny.cells["INV"].arcs[0]
    numbers = np.full(3, arc.tables["cell_rise"])
    slew, load = np.array([0.5, -0.2, 3.0]), np.array([50.0, 200.0, 0.0])
    np.testing.assert_allclose(tiny.lookup(numbers, slew, load), 0.02 + 0.1 * slew + 0.002 * load)


def test_units_templates_and_one_axis(tmp_path):
    # The same delay of 1 ns + load / fF, written in other units and layouts.
    def cell(name, values, template):
        return f"""cell ({name}) {{ area : 1; {pin("A", "input", "capacitance : 0.002;")}
            {pin("Y", "output", f'''timing () {{ related_pin : "A";
                 cell_rise ({template}) {{ values ({values}); }}
                 rise_transition (scalar) {{ values ("1"); }} }} function : "A";''')} }}"""

    text = f"""library (units) {{ time_unit : "1ps"; capacitive_load_unit (1, pf);
        lu_table_template (by_load) {{ variable_1 : total_output_net_capacitance;
            index_1 ("0, 0.010"); }}
        lu_table_template (load_first) {{ variable_1 : total_output_net_capacitance;
            variable_2 : input_net_transition; index_1 ("0, 0.005, 0.010"); index_2 ("0, 9"); }}
        {cell("ONE", '"1000, 11000"', "by_load")}
        {cell("TWO", '"1000, 1000", "6000, 6000", "11000, 11000"', "load_first")}
        {cell("FLAT", '"3000"', "scalar")}
        {cell("B", '"3000"', "scalar").replace("area : 1", "area : 2")}
        cell (FF) {{ area : 1; ff (IQ, IQN) {{ clocked_on : "CK"; next_state : "D"; }}
            {pin("CK", "input", "capacitance : 0;")}
            {pin("D", "input", '''capacitance : 0; timing () { related_pin : "CK";
                 timing_type : setup_rising; rise_constraint (scalar) { values ("1"); } }''')}
            {pin("Q", "output", '''function : "IQ"; timing () { related_pin : "CK";
                 timing_type : rising_edge; cell_rise (scalar) { values ("1"); }
                 rise_transition (scalar) { values ("1"); } }''')} }} }}"""
    library = read(tmp_path, text)
    load = np.array([0.0, 3.0, 8.0, 12.0])
    for name in ("ONE", "TWO"):
        number = library.cells[name].arcs[0].tables["cell_rise"]
        found = library.lookup(np.full(4, number), np.full(4, 0.003), load)
        np.testing.assert_allclose(found, 1 + load)
    number = library.cells["FLAT"].arcs[0].tables["cell_rise"]
    np.testing.assert_allclose(library.lookup(np.full(4, number), load, load), 3.0)
    assert library.cells["ONE"].inputs == {"A": (2.0, 2.0)}
    assert library.driver == "FLAT"


def test_nangate45():
    library = find_library()
    assert library.name == "NangateOpenCellLibrary"
    assert library.driver == "BUF_X2"
    assert len(library.cells) == 135
    inverter = library.cells["INV_X1"]
    assert inverter.area == 0.532
    # A point of the first table, as printed in the file.
    flip_flop = library.cells["DFF_X1"]
    assert flip_flop.flip_flop and not inverter.flip_flop and library.cells["DLH_X1"].latch
    assert flip_flop.inputs["D"] == (1.14029, 1.062342)
    number, = (arc.tables["cell_rise"] for arc in flip_flop.arcs if arc.pin == "Q")
    found = library.lookup(np.array([number]), np.array([0.0409838]), np.array([7.59125]))
    assert found[0] == pytest.approx(0.110903, abs=1e-12)


FROM_TO = {
    "in-out": "-from $ins -to [all_outputs]",
    "in-reg": "-from $ins -to [all_registers -data_pins]",
    "reg-out": "-from [all_registers -clock_pins] -to [all_outputs]",
    "reg-reg": "-from [all_registers -clock_pins] -to [all_registers -data_pins]",
}


def delays(name, netlist, library, kinds, folder):
    """Delay of the slowest path of each kind in OpenSTA, ns."""
    commands = "".join(f"puts <{kind}>\nreport_checks -digits 6 -path_delay max {FROM_TO[kind]}\n"
                       for kind in kinds)
    log = opensta(name, netlist, library, commands, folder)
    return {kind: -float(re.search(r"(\S+)\s+slack", part)[1])
            for kind, part in zip(kinds, re.split(r"<\S+>\n", log)[1:], strict=True)}


@pytest.mark.skipif(shutil.which("sta") is None, reason="OpenSTA is not installed")
@pytest.mark.parametrize("name, settings, kinds", [
    pytest.param("top1_decode", (), ["in-out"], marks=pytest.mark.long),
    pytest.param("top1", ["lanes=32"], ["in-out"], marks=pytest.mark.long),
    pytest.param("group_accumulator", (), list(FROM_TO), marks=pytest.mark.long),
])
def test_agreement_with_opensta(name, settings, kinds, tmp_path):
    library = find_library()
    _, netlist = mapping.netlists(name, registry.build(name, settings), library)
    ours = {kind: path.delay_ns for kind, path in timing.analyse(netlist, library).items()}
    theirs = delays(name, netlist, library, kinds, tmp_path)
    assert sorted(ours) == sorted(kinds)
    assert ours == pytest.approx(theirs, rel=1e-3)
