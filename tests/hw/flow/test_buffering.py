# SPDX-License-Identifier: BSD-2-Clause
"""Buffers for nets with many readers."""

import pytest

from hw.flow import timing
from hw.flow.buffering import FANOUT, buffer_nets
from tests.support.netlists import CELLS, liberty, module, read


@pytest.fixture
def tiny(tmp_path):
    return read(tmp_path, liberty(CELLS))


def readers(count, net="a"):
    """One inverter that drives a net, and those that read it."""
    reading = [(f"u{i}", "INV", {"A": net, "Y": f"y{i}"}) for i in range(count)]
    outputs = " ".join(f"y{i}" for i in range(count))
    return module(["input a", f"output {outputs}"], *reading)


def sources(netlist):
    """What every cell's input hangs on, past all buffers, and how many they are."""
    driven = {cell["connections"]["Z"][0]: cell["connections"]["A"][0]
              for cell in netlist["cells"].values() if cell["type"] == "BUF_X2"}
    found = {}
    for name, cell in netlist["cells"].items():
        if cell["type"] != "BUF_X2":
            net, depth = cell["connections"]["A"][0], 0
            while net in driven:
                net, depth = driven[net], depth + 1
            found[name] = net, depth
    return found


def loads(netlist, library):
    found = {}
    for cell in netlist["cells"].values():
        for pin, capacitance in library.cells[cell["type"]].inputs.items():
            net = cell["connections"][pin][0]
            found[net] = found.get(net, 0) + max(capacitance)
    return found


# An inverter's input is two of the buffer's: 16 of them are the most that a net bears.
@pytest.mark.parametrize("count, buffers, depth", [
    (1, 0, 0), (16, 0, 0), (17, 2, 1), (32, 2, 1), (33, 3, 1), (512, 32, 1), (513, 35, 2)])
def test_tree(tiny, count, buffers, depth):
    netlist = readers(count)
    before = netlist["ports"]["a"]["bits"][0]
    assert buffer_nets(netlist, tiny) == buffers
    assert len(netlist["cells"]) == count + buffers
    assert set(sources(netlist).values()) == {(before, depth)}
    assert max(loads(netlist, tiny).values()) <= FANOUT


def test_readers_are_divided_evenly_and_in_order(tiny):
    netlist = readers(40)
    buffer_nets(netlist, tiny)
    nets = [netlist["cells"][f"u{i}"]["connections"]["A"][0] for i in range(40)]
    assert sorted(nets) == nets
    assert sorted(nets.count(net) for net in set(nets)) == [13, 13, 14]


def test_large_pins(tmp_path):
    """Readers that are each too much for a net: two to a buffer, and it ends."""
    large = CELLS["INV"].replace("capacitance : 2", "capacitance : 100")
    library = read(tmp_path, liberty(CELLS | {"INV": large}))
    netlist = readers(5)
    assert buffer_nets(netlist, library) == 2
    assert {depth for _, depth in sources(netlist).values()} == {1}


def test_clock_stays_whole(tiny):
    registers = [(f"r{i}", "DFF", {"CK": "clk", "D": "d", "Q": f"q{i}"}) for i in range(40)]
    outputs = " ".join(f"q{i}" for i in range(40))
    netlist = module(["input clk d", f"output {outputs}"], *registers)
    clock = netlist["ports"]["clk"]["bits"]
    # D is an input of the buffer's size: 40 of them take two buffers, and the clock none.
    assert buffer_nets(netlist, tiny) == 2
    assert {cell["connections"]["CK"][0] for cell in netlist["cells"].values()
            if cell["type"] == "DFF"} == set(clock)


def test_delay(tiny):
    slow, fast = readers(512), readers(512)
    buffer_nets(fast, tiny)
    slow, fast = (timing.analyse(netlist, tiny)["in-out"].delay_ns for netlist in (slow, fast))
    # The driver's 4 ps per fF for 1024 fF; now 32 fF and again 32 behind a buffer.
    assert slow > 4 * fast and 0.256 < fast
