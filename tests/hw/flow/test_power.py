# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""Power: cases worked out by hand, gate simulation against slower ones, and OpenSTA."""

import functools
import json
import re
import shutil

import numpy as np
import pytest

from hw import registry, synth
from hw.flow import mapping, measurement, power
from hw.flow.activity import KINDS, REAL, activity
from hw.flow.cell_functions import function
from hw.flow.gate_simulation import LANES, Activity
from hw.flow.liberty import find_library
from hw.lib.stream_register import StreamRegister
from hw.report import text_tables
from hw.tools.errors import ToolError
from tests.support.netlists import CELLS, LOAD, liberty, module, opensta, read, table

VOLTS = 2.0
TEMPLATE = f"""nom_voltage : {VOLTS}; leakage_power_unit : "1uW";
    power_lut_template (energy) {{ variable_1 : input_transition_time;
        variable_2 : total_output_net_capacitance; index_1 ("0, 1"); index_2 ("0, 100"); }}"""


def energy(related, rise, fall, when=""):
    """Rise and fall are (energy, per slew, per load)."""
    related = related and f'related_pin : "{related}";'
    when = when and f'when : "{when}";'
    tables = (table(f"{edge}_power", *given, template="energy")
              for edge, given in (("rise", rise), ("fall", fall)))
    return f"internal_power () {{ {related} {when} {' '.join(tables)} }}"


def leakage(value, when=""):
    return f'leakage_power () {{ {when and f"when : {chr(34)}{when}{chr(34)};"} value : {value}; }}'


def extended(kind, cell="", **pins):
    """A cell of the small library with more in it and in its pins."""
    text = CELLS[kind]
    for name, content in pins.items():
        text = re.sub(rf"(pin \({name}\) {{)", rf"\1 {content}", text)
    return text.replace("{ area", f"{{ {cell} area", 1)


POWER_CELLS = CELLS | {
    # Inputs fall slower than they rise.
    "BUF_X2": CELLS["BUF_X2"].replace(table("fall_transition", 0.01, 0.5, 0.001),
                                      table("fall_transition", 0.03, 0.5, 0.001)),
    "INV": extended("INV", leakage(3, "A") + leakage(5, "!A"),
                    Y=energy("A", (1, 10, 0.1), (2, 20, 0.2))),
    "NAND": extended("NAND", leakage(7, "A & B") + leakage(1),
                     Y=energy("A", (1, 0, 0), (2, 0, 0), "B")
                     + energy("B", (4, 0, 0), (8, 0, 0), "A")),
    "DFF": extended("DFF", "cell_leakage_power : 4;" + leakage(2, "CK & Q") + leakage(6, "!CK"),
                    D=energy("", (1, 0, 0), (2, 0, 0), "CK") + energy("", (50, 0, 0), (50, 0, 0),
                                                                    "!CK"),
                    CK=energy("", (3, 0, 0), (5, 0, 0), "D & Q") + energy(
                        "", (7, 0, 0), (11, 0, 0), "D & !Q"),
                    Q=energy("CK", (20, 0, 0), (40, 0, 0))),
}


@pytest.fixture
def tiny(tmp_path):
    return read(tmp_path, liberty(POWER_CELLS, TEMPLATE))


def bits(seed, cycles, *names):
    rng = np.random.default_rng(seed)
    return {name: rng.integers(0, 2, (LANES, cycles, 1), np.uint8) for name in names}


def given(inputs, outputs, *, latency=0, settle=0):
    cycles = next(iter(inputs.values())).shape[1]
    return Activity(inputs=inputs, outputs=outputs, latency=latency, settle=settle,
                   cycles=cycles - settle - 1)


def rates(values, settle=0):
    """Rises and falls per cycle."""
    change = np.diff(values[:, settle:, 0].astype(int), axis=1)
    return (change > 0).mean(), (change < 0).mean()


CHAIN = module(["input a", "output y"], ("u0", "INV", {"A": "a", "Y": "n"}),
               ("u1", "INV", {"A": "n", "Y": "y"}))


def test_chain_of_inverters(tiny):
    a = bits(1, 9, "a")["a"]
    figures = power.estimate(CHAIN, tiny, given({"a": a}, {"y": a}), clock_mhz=100)
    rise, fall = rates(a)

    # n bears an input of 2 fF and falls when a rises; y bears the output.
    switching = (rise + fall) * (2 + LOAD) * VOLTS**2 / 2
    rising_a, falling_a = 0.01 + 0.001 * 2, 0.03 + 0.001 * 2
    rising_n, falling_n = (0.01 + 0.5 * slew + 0.001 * 2 for slew in (falling_a, rising_a))
    internal = (rise * (2 + 20 * rising_a + 0.2 * 2) + fall * (1 + 10 * falling_a + 0.1 * 2)
                + rise * (1 + 10 * falling_n + 0.1 * LOAD)
                + fall * (2 + 20 * rising_n + 0.2 * LOAD))
    # One of the two has a 1 at any time; in uW.
    assert {name: pytest.approx(value, rel=1e-12) for name, value in figures.items()} == {
        "switching_uw": switching / 10, "internal_uw": internal / 10,
        "dynamic_uw": (switching + internal) / 10, "leakage_uw": 8, "flip_flops_uw": 0,
        "clock_uw": 0, "total_uw": (switching + internal) / 10 + 8,
        "energy_fj": switching + internal + 80, "toggles": rise + fall,
        "cycles": 8 * LANES, "checked": 9 * LANES, "rate": 1}


def test_capacitance_of_each_edge(tiny):
    """A pin that takes 3 fF while it rises and 4 while it falls; ports' own nets do not count."""
    gates = module(["input a b", "output y"], ("u", "INV", {"A": "a", "Y": "n"}),
                   ("v", "NAND", {"A": "b", "B": "n", "Y": "y"}))
    for a, load in (((1, 0), 3), ((0, 1), 4)):
        a = np.tile(np.array(a, np.uint8)[:, None], (LANES, 1, 1))
        figures = power.estimate(gates, tiny, given({"a": a, "b": a * 0 + 1}, {"y": a}),
                                 clock_mhz=1000)
        assert figures["switching_uw"] == pytest.approx((load + LOAD) * VOLTS**2 / 2)


@pytest.mark.parametrize("level, expected", [(0, 5 + 3), (1, 3 + 5)])
def test_leakage_by_state(tiny, level, expected):
    a = np.full((LANES, 3, 1), level, np.uint8)
    chain = module(["input a", "output y"], ("u0", "INV", {"A": "a", "Y": "y"}))
    figures = power.estimate(chain, tiny, given({"a": a}, {"y": 1 - a}))
    assert figures["leakage_uw"] == figures["total_uw"] == (3 if level else 5)
    figures = power.estimate(CHAIN, tiny, given({"a": a}, {"y": a}))
    assert figures["leakage_uw"] == figures["total_uw"] == expected


SUPPLIES = "".join(f"pg_pin ({name}) {{ pg_type : {kind}; }} " for name, kind in (
    ("VDD", "primary_power"), ("VPB", "primary_power"), ("VAON", "backup_power"),
    ("VSS", "primary_ground")))


def of(supply, text):
    """A leakage or energy of a supply."""
    return text.replace("{", f'{{ related_pg_pin : "{supply}";', 1)


@pytest.mark.parametrize("given_leakage, low, high", [
    # Once for each supply: what leaks out of the ground or into a backup supply is not counted.
    (of("VDD", leakage(10, "A")) + of("VSS", leakage(7, "A")) + of("VDD", leakage(20, "!A"))
     + of("VAON", leakage(9, "!A")) + "cell_leakage_power : 15;", 20, 10),
    # Two supplies of the cell add up; the second has a value for the rest.
    (of("VDD", leakage(10, "A")) + of("VDD", leakage(20, "!A")) + of("VPB", leakage(1, "A"))
     + of("VPB", leakage(2)), 22, 11),
    # The leakage of the whole cell counts once, where the first supply has no condition.
    (of("VDD", leakage(10, "A")) + of("VPB", leakage(1, "A")) + "cell_leakage_power : 15;", 15, 11),
    # Twice the same condition; conditions that overlap; all of the time and a part of it.
    (leakage(10, "A") + leakage(10, "A") + leakage(20, "!A"), 20, 10),
    (leakage(10, "A") + leakage(14, "!!A") + "cell_leakage_power : 5;", 5, 12),
    (leakage(10, "A | !A") + leakage(20, "A"), 10, 15),
    (leakage(3) + leakage(5), 4, 4),
    ("", 0, 0), ("cell_leakage_power : 6;", 6, 6),
])
def test_leakage_by_supply_and_condition(tmp_path, given_leakage, low, high):
    cell = extended("INV", SUPPLIES + given_leakage)
    library = read(tmp_path, liberty(POWER_CELLS | {"INV": cell}, TEMPLATE))
    gate = module(["input a", "output y"], ("u", "INV", {"A": "a", "Y": "y"}))
    for level, expected in ((0, low), (1, high)):
        a = np.full((LANES, 3, 1), level, np.uint8)
        figures = power.estimate(gate, library, given({"a": a}, {"y": 1 - a}))
        assert figures["leakage_uw"] == pytest.approx(expected, rel=1e-12)
        assert str(figures["leakage_uw"]) != "-0.0"


def test_unknown_supply(tmp_path):
    cell = extended("INV", of("VDD", leakage(1)))
    library = read(tmp_path, liberty(POWER_CELLS | {"INV": cell}, TEMPLATE))
    with pytest.raises(ToolError, match=r"tiny.lib, line \d+: related_pg_pin VDD is not a pg_pin"):
        power.estimate_uniform(CHAIN, library, 0.1)


@pytest.mark.parametrize("arcs, rise, fall", [
    # Supplies add up, whatever they are.
    (of("VDD", energy("A", (1, 0, 0), (2, 0, 0))) + of("VSS", energy("A", (4, 0, 0), (8, 0, 0))),
     5, 10),
    # Of one supply, what stands twice counts once.
    (energy("A", (1, 0, 0), (2, 0, 0)) * 2, 1, 2),
    (energy("A", (1, 0, 0), (2, 0, 0), "A") + energy("A", (3, 0, 0), (6, 0, 0), "!A"), 3, 2),
    (of("VDD", energy("A", (1, 0, 0), (2, 0, 0))) * 2
     + of("VSS", energy("A", (1, 0, 0), (2, 0, 0))), 2, 4),
])
def test_output_energies_by_supply(tmp_path, arcs, rise, fall):
    cell = extended("INV", SUPPLIES, Y=arcs)
    library = read(tmp_path, liberty(POWER_CELLS | {"INV": cell}, TEMPLATE))
    gate = module(["input a", "output y"], ("u", "INV", {"A": "a", "Y": "y"}))
    for values, expected in (((0, 1), fall), ((1, 0), rise)):
        a = np.tile(np.array(values, np.uint8)[:, None], (LANES, 1, 1))
        figures = power.estimate(gate, library, given({"a": a}, {"y": 1 - a}), clock_mhz=1000)
        assert figures["internal_uw"] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("arcs, without_b, with_b", [
    (of("VDD", energy("", (1, 0, 0), (1, 0, 0))) + of("VSS", energy("", (4, 0, 0), (4, 0, 0))),
     5, 5),
    (energy("", (1, 0, 0), (1, 0, 0)) * 3, 1, 1),
    (energy("", (1, 0, 0), (1, 0, 0), "B") + energy("", (3, 0, 0), (3, 0, 0), "B | !B"), 3, 2),
    # Without a condition: where no other holds.
    (energy("", (1, 0, 0), (1, 0, 0), "B") + energy("", (3, 0, 0), (3, 0, 0)), 3, 1),
])
def test_input_energies_by_supply_and_condition(tmp_path, arcs, without_b, with_b):
    cell = extended("NAND", SUPPLIES, A=arcs)
    library = read(tmp_path, liberty(POWER_CELLS | {"NAND": cell}, TEMPLATE))
    gate = module(["input a b", "output y"], ("u", "NAND", {"A": "a", "B": "b", "Y": "y"}))
    for b, expected in ((0, without_b), (1, with_b)):
        a = np.tile(np.array((0, 1), np.uint8)[:, None], (LANES, 1, 1))
        b = np.full_like(a, b)
        figures = power.estimate(gate, library, given({"a": a, "b": b}, {"y": 1 - (a & b)}),
                                 clock_mhz=1000)
        assert figures["internal_uw"] == pytest.approx(expected, rel=1e-12)


ASYNCHRONOUS = {
    "clear": ('clear : "!RN";', "1"), "preset": ('preset : "S";', "0"),
}


@pytest.mark.parametrize("kind", ASYNCHRONOUS)
def test_asynchronous_pins_are_tied_off(tmp_path, kind):
    attribute, level = ASYNCHRONOUS[kind]
    name = "RN" if kind == "clear" else "S"
    cell = POWER_CELLS["DFF"].replace("clocked_on", f"{attribute} clocked_on").replace(
        "pin (CK)", f"pin ({name}) {{ direction : input; capacitance : 1; }} pin (CK)")
    library = read(tmp_path, liberty(POWER_CELLS | {"DFF": cell}, TEMPLATE))
    plain = read(tmp_path, liberty(POWER_CELLS, TEMPLATE))
    clocked = module(["input clk d", "output q"], ("r", "DFF", {"CK": "clk", "D": "d", "Q": "q"}))
    d = bits(2, 40, "d")["d"]
    inputs = given({"d": d}, {"q": d}, latency=1, settle=3)
    expected = power.estimate(clocked, plain, inputs)
    connections = clocked["cells"]["r"]["connections"]
    connections[name] = [level]
    assert power.estimate(clocked, library, inputs) == expected
    for other in (str(1 - int(level)), "d"):
        connections[name] = [other] if other != "d" else connections["D"]
        with pytest.raises(ToolError, match=f"r is DFF, whose {kind} '!?{name}' is not tied off"):
            power.estimate(clocked, library, inputs)


def test_arcs_by_what_toggled(tiny):
    """Only a, only b, and both; what stands under no condition leaks otherwise."""
    gate = module(["input a b", "output y"], ("u", "NAND", {"A": "a", "B": "b", "Y": "y"}))

    def internal(*rows):
        ports = {name: np.tile(np.array(column, np.uint8)[:, None], (LANES, 1, 1))
                 for name, column in zip("ab", zip(*rows, strict=True), strict=True)}
        figures = power.estimate(gate, tiny, given(ports, {"y": 1 - (ports["a"] & ports["b"])}))
        leaked = [7 if a and b else 1 for a, b in rows[1:]]
        assert figures["leakage_uw"] == pytest.approx(np.mean(leaked))
        return figures["internal_uw"] / power.CLOCK * 1000 * (len(rows) - 1)

    assert internal((0, 1), (1, 1)) == pytest.approx(2)
    assert internal((1, 0), (1, 1)) == pytest.approx(8)
    assert internal((0, 0), (1, 1)) == pytest.approx((2 + 8) / 2)
    assert internal((1, 1), (1, 0), (1, 1)) == pytest.approx(4 + 8)
    # No arc's condition holds afterwards: the mean of all.
    assert internal((1, 1), (0, 0)) == pytest.approx((1 + 4) / 2)
    assert internal((0, 1), (0, 0), (1, 0)) == 0


def test_flip_flop(tiny):
    clocked = module(["input clk d", "output q"], ("r", "DFF", {"CK": "clk", "D": "d", "Q": "q"}))
    d = bits(2, 40, "d")["d"]
    settle = 3
    figures = power.estimate(clocked, tiny, given({"d": d}, {"q": d}, latency=1, settle=settle),
                             clock_mhz=1000)
    q = np.concatenate([np.zeros_like(d[:, :1]), d[:, :-1]], axis=1)
    rise, fall = rates(q, settle)
    data_rise, data_fall = rates(d, settle)
    d, q = d[:, settle:, 0], q[:, settle:, 0]

    # The clock rises on what was there and falls on what has come; D toggles while it is high.
    clock = np.mean(np.select([d & q == 1, d & ~q & 1 == 1], [3, 7], 0)[:, :-1]
                    + np.select([d & q == 1, d & ~q & 1 == 1], [5, 11], 0)[:, 1:])
    load = 1 * VOLTS**2
    internal = data_rise * 1 + data_fall * 2 + rise * 20 + fall * 40 + clock
    assert figures["clock_uw"] == pytest.approx(clock + load)
    assert figures["internal_uw"] == pytest.approx(internal)
    assert figures["flip_flops_uw"] == pytest.approx(internal + load)
    assert figures["switching_uw"] == pytest.approx((rise + fall) * LOAD * VOLTS**2 / 2 + load)
    # The clock is low half the time.
    assert figures["leakage_uw"] == pytest.approx(6 / 2 + (4 - 2 * q[:, 1:].mean()) / 2)
    assert figures["checked"] == 39 * LANES


def test_functions_of_all_cells():
    checked = 0
    for cell in find_library().cells.values():
        for text in cell.functions.values():
            if not text or cell.flip_flop or cell.latch:
                continue
            pins, evaluate = function(text)
            assert pins <= set(cell.inputs)
            for number in range(2 ** len(pins)):
                values = {pin: number >> i & 1 for i, pin in enumerate(sorted(pins))}
                # These functions have brackets wherever Python's order is another one.
                expected = eval(text.replace("!", "~"), {}, dict(values)) if pins else int(text)
                words = {pin: -value for pin, value in values.items()} | {"0": 0, "1": -1}
                assert evaluate(words) & 1 == expected & 1
                checked += 1
    assert checked > 500


@pytest.mark.parametrize("text, expected", [
    ("A | B & C", lambda a, b, c: a | (b & c)), ("A + B * !C", lambda a, b, c: a | (b & ~c)),
    ("A B' + C", lambda a, b, c: (a & ~b) | c), ("A & B ^ C", lambda a, b, c: a & (b ^ c)),
    ("!(A ^ B)' & !!C", lambda a, b, c: (a ^ b) & c), ("A & 1 | 0", lambda a, b, c: a),
])
def test_order_of_operators(text, expected):
    a, b, c = 0b00001111, 0b00110011, 0b01010101
    found = function(text)[1]({"A": a, "B": b, "C": c, "0": 0, "1": -1})
    assert found & 255 == expected(a, b, c) & 255


@pytest.mark.parametrize("text", ["", "A &", "(A", "A)", "A | | B", "A $ B"])
def test_refused_functions(text):
    with pytest.raises(ValueError, match="Boolean function"):
        function(text)


@functools.cache
def netlist(name, *settings):
    unit = registry.UNITS[name]
    return mapping.netlists(name, registry.build(name, settings), find_library(),
                          hierarchical=unit.hierarchical)[1]


@functools.cache
def stream():
    """A register between two streams, and what it is simulated with."""
    gates = mapping.netlists("top", StreamRegister(4), find_library())[1]
    payloads = np.random.default_rng(3).integers(0, 2, (LANES, 20, 4), np.uint8)
    return gates, Activity(inputs={"i": payloads}, outputs={"o": payloads}, latency=1, settle=3,
                          cycles=16)


def slowly(netlist, library, inputs, cycles):
    """Every net's values, one vector after another, with Python's own evaluation."""
    values = {"0": 0, "1": 1, "x": 0}
    waiting = [(cell["connections"], library.cells[cell["type"]].functions)
               for cell in netlist["cells"].values()]
    rows = []
    for cycle in range(cycles):
        nets = dict(values)
        for name, words in inputs.items():
            nets |= zip(netlist["ports"][name]["bits"], words[cycle].tolist(), strict=True)
        left = waiting
        while left:
            after = []
            for pins, functions in left:
                try:
                    names = {pin: nets[bit[0]] for pin, bit in pins.items()
                             if pin not in functions}
                except KeyError:
                    after.append((pins, functions))
                    continue
                for pin, text in functions.items():
                    if pins.get(pin):
                        nets[pins[pin][0]] = eval(text.replace("!", "~"), {}, names) & 1
            assert len(after) < len(left)
            left = after
        rows.append(nets)
    return rows


@pytest.mark.long
def test_toggles_against_one_vector_after_another():
    library = find_library()
    gates, chosen = netlist("top1"), activity("top1")
    found = power.estimate(gates, library, chosen)
    toggles = 0
    for lane in range(0, LANES, 16):
        rows = slowly(gates, library, {name: plane[lane] for name, plane in chosen.inputs.items()},
                      chosen.cycles + 1)
        driven = {bit for cell in gates["cells"].values()
                  for pin in library.cells[cell["type"]].functions
                  for bit in cell["connections"].get(pin, []) if isinstance(bit, int)}
        toggles += sum(before[net] != after[net] for before, after in
                       zip(rows[:-1], rows[1:], strict=True) for net in driven)
    # Of four lanes alone: the others repeat them.
    part = {kind: {name: np.repeat(plane[::16], 16, axis=0) for name, plane in planes.items()}
            for kind, planes in (("inputs", chosen.inputs), ("outputs", chosen.outputs))}
    alone = power.estimate(gates, library, Activity(**part, latency=0, settle=0,
                                                   cycles=chosen.cycles))
    assert alone["toggles"] == pytest.approx(toggles / 4 / chosen.cycles / len(driven), rel=1e-12)
    assert alone["toggles"] != found["toggles"]


TILE = "pe_tile", ("depth=1",)


@pytest.mark.parametrize("kind", KINDS)
def test_netlist_equals_golden(kind):
    name, settings = TILE
    figures = power.estimate(netlist(name, *settings), find_library(),
                             activity(name, settings, kind))
    assert (figures["rate"], figures["cycles"]) == (1, 64 * LANES)
    assert figures["checked"] == (64 + 3) * LANES
    assert figures["total_uw"] == pytest.approx(sum(
        figures[f"{part}_uw"] for part in ("switching", "internal", "leakage")))
    assert 0 < figures["clock_uw"] < figures["flip_flops_uw"] < figures["dynamic_uw"]


def test_wrong_netlist_is_found():
    name, settings = TILE
    broken = json.loads(json.dumps(netlist(name, *settings)))
    kinds = [cell for cell in broken["cells"].values() if cell["type"] == "NAND2_X1"]
    kinds[0]["type"] = "NOR2_X1"
    with pytest.raises(ToolError, match=r"\d+ of \d+ outputs of the netlist differ from those of"):
        power.estimate(broken, find_library(), activity(name, settings))


def test_streams():
    gates, chosen = stream()
    figures = power.estimate(gates, find_library(), chosen)
    assert (figures["rate"], figures["checked"]) == (1, 19 * LANES)
    assert figures["flip_flops_uw"] > 0

    other = chosen.outputs["o"].copy()
    other[5, 7, 2] ^= 1
    with pytest.raises(ToolError, match="1 of 1216 outputs of the netlist differ from those of"):
        power.estimate(gates, find_library(), Activity(**vars(chosen) | {"outputs": {"o": other}}))
    dead = json.loads(json.dumps(gates))
    dead["ports"]["o__valid"]["bits"] = ["0"]
    with pytest.raises(ToolError, match="the netlist gave no outputs in 16 cycles"):
        power.estimate(dead, find_library(), chosen)


def test_activity_must_suffice(tiny):
    a = bits(1, 4, "a")["a"]
    short = Activity(inputs={"a": a}, outputs={"y": a}, latency=0, settle=0, cycles=4)
    with pytest.raises(ToolError, match="the activity ends before cycle 5"):
        power.estimate(CHAIN, tiny, short)
    gates, chosen = stream()
    short = Activity(**vars(chosen) | {"cycles": 17})
    with pytest.raises(ToolError, match="the activity on i ends before cycle 20"):
        power.estimate(gates, find_library(), short)


@pytest.mark.parametrize("name, settings", [
    ("pe_tile", ()), ("pe_tile", ("metadata=False",)), ("nvfp4_pe_tile", ("lanes=16",)),
    ("sg_pe_tile", ("special=True",)), ("sg_pe_tile", ("special=True", "exponent=True")),
])
def test_weights_rest(name, settings):
    """The tile's weights are another row's or group's after 32 tokens, its activations always."""
    chosen = activity(name, settings)
    change = {port: (np.diff(chosen.inputs[port].astype(int), axis=1) != 0).any(axis=2)
              for port in ("weights", "activations")}
    weights = change["weights"].mean(axis=0) > 0
    assert np.flatnonzero(weights).tolist() == list(range(31, chosen.cycles, 32))
    assert change["activations"].mean() > 0.9


def test_all_units_have_activity():
    assert tuple(REAL) and set(REAL) == set(power.UNITS)
    for name in power.UNITS:
        for kind in KINDS:
            settings = ("columns=1",) * name.endswith("_array")
            assert activity(name, settings, kind).cycles >= 9
    assert activity("accelerator") is None
    with pytest.raises(ValueError, match="Activity must be one of real, random, not 'idle'"):
        activity("top1", kind="idle")


def test_unit_without_activity(monkeypatch):
    monkeypatch.delitem(REAL, "top1")
    with pytest.raises(ToolError, match="there is no activity for this unit"):
        power.inspector()("top1", (), netlist("top1"), find_library())


@pytest.mark.long
@pytest.mark.parametrize("name, settings", [
    *((name, ("columns=1",) if name.endswith("_array") else ()) for name in power.UNITS),
    # Each parameter once.
    ("mac_array", ("columns=1", "metadata=False", "depth=13")),
    ("quantization_engine", ("metadata=False",)),
    ("quantization_engine", ("input=bfloat16",)),
    ("pe_tile", ("depth=2",)), ("nvfp4_pe_tile", ("lanes=16",)),
    ("sg_pe_tile", ("special=True",)),
    ("sg_pe_tile", ("special=True", "exponent=True")), ("decoder", ("kind=weight",)),
    ("decoder", ("kind=special64",)), ("group_accumulator", ("metadata=False",)),
])
def test_every_netlist_equals_golden(name, settings):
    """Under the harder stimuli; under real ones `python -m hw.synth --power` compares them."""
    figures = power.estimate(netlist(name, *settings), find_library(),
                             activity(name, settings, "random"))
    assert figures["rate"] == 1 / getattr(registry.build(name, settings), "cycles", 1)


def test_refused_cells(tmp_path):
    cell = POWER_CELLS["INV"].replace("pin (Y) {", 'pin (Y) { three_state : "A";')
    library = read(tmp_path, liberty(POWER_CELLS | {"INV": cell}, TEMPLATE))
    with pytest.raises(ToolError, match="u0 is INV, a cell with a three-state output"):
        power.estimate_uniform(CHAIN, library, 0.1)


@pytest.mark.parametrize("old, new, message", [
    ('clocked_on : "CK"', 'clocked_on : "!CK"', "clocked by '!CK', which must be a pin"),
    ('clocked_on : "CK"', 'clocked_on : "CK"; clear : "!D"', "whose clear '!D' is not tied off"),
])
def test_refused_flip_flops(tmp_path, old, new, message):
    library = read(tmp_path, liberty(
        POWER_CELLS | {"DFF": POWER_CELLS["DFF"].replace(old, new)}, TEMPLATE))
    clocked = module(["input clk d", "output q"], ("r", "DFF", {"CK": "clk", "D": "d", "Q": "q"}))
    with pytest.raises(ToolError, match=message):
        power.estimate_uniform(clocked, library, 0.1)


def test_voltage(tmp_path, tiny):
    assert (tiny.voltage, find_library().voltage) == (VOLTS, 1.1)
    with pytest.raises(ToolError, match="tiny does not state its voltage"):
        _ = read(tmp_path, liberty(POWER_CELLS, TEMPLATE.replace("nom_voltage", "other"))).voltage
    conditions = """default_operating_conditions : slow; voltage_unit : "1mV";
        operating_conditions (slow) { voltage : 900; }"""
    assert read(tmp_path, liberty(head=TEMPLATE + conditions)).voltage == pytest.approx(0.9)


def test_command(tmp_path, capsys):
    path = tmp_path / "power.json"
    assert synth.main(["top1", "--power", "--clock", "250", "--json", str(path)]) == 0
    out = capsys.readouterr().out
    written = json.loads(path.read_text())
    assert set(written) == {"units", "library", "versions", "script"}
    unit = written["units"]["top1"]
    assert unit["area_um2"] > 0
    measured = unit["power"]
    assert (measured["clock_mhz"], measured["voltage_v"]) == (250, 1.1)
    assert (measured["operation"], measured["operations"]) == ("output", 1)
    fresh = power.estimate(netlist("top1"), find_library(), activity("top1"), clock_mhz=250)
    assert measured["real"] == fresh | {"energy_per_operation_fj": fresh["energy_fj"]}
    rows = {line.split()[-11]: line.split() for line in out.splitlines()[2:4]}
    assert set(rows) == set(KINDS)
    for kind, row in rows.items():
        figures = measured[kind]
        assert row[-10:] == [
            f"{figures['toggles']:.3f}", *(f"{figures[f'{part}_uw']:.1f}" for part in (
                "switching", "internal", "flip_flops", "clock", "leakage", "total")),
            f"{figures['energy_fj']:.0f}", f"{figures['energy_fj']:.1f}", "output"]
    checked = measured["real"]["checked"] + measured["random"]["checked"]
    assert f"\n{checked} outputs were compared with the golden model's, and all are equal." in out
    for left_out in ("wires", "clock tree", "glitches", "memories"):
        assert left_out in out


def test_unit_that_fails_keeps_the_others(tmp_path, capsys, monkeypatch):
    monkeypatch.delitem(REAL, "top1")
    path = tmp_path / "power.json"
    assert synth.main(["top1", "top1_decode", "--power", "--json", str(path)]) == 1
    out, err = capsys.readouterr()
    assert re.search(r"^top1_decode +real +\d", out, re.M)
    assert err.splitlines()[-1] == ("error: 1 of 2 units failed: top1: Power: there is no "
                                    "activity for this unit")
    written = json.loads(path.read_text())
    assert [*written["units"]] == ["top1_decode"]
    assert written["failed"] == {"top1": "top1: Power: there is no activity for this unit"}


@pytest.mark.parametrize("value, digits, text", [
    (71.022, 0, "71"), (20, 0, "20"), (5.3456, 0, "5.35"), (0.04512, 0, "0.0451"), (0, 0, "0"),
    (0, 1, "0.0"), (2.04, 1, "2.0"), (0.0312, 1, "0.0312"), (-0.5, 1, "-0.500"), (0.47, 3, "0.470"),
    (0.0123, 3, "0.0123"),
])
def test_digits_that_mean_something(value, digits, text):
    assert power.amount(value, digits) == text


@pytest.mark.parametrize("arguments, message", [
    (["--power", "accelerator"], "--power is for all units but accelerator, whose memories"),
    (["--power", "top1", "--clock", "0"], "--clock must be a number above 0, not '0'"),
    (["--power", "top1", "--clock", "fast"], "--clock must be a number above 0, not 'fast'"),
    (["--power", "top1", "--clock", "inf"], "--clock must be a number above 0, not 'inf'"),
    (["top1", "--clock", "100"], "--clock 100 needs --power"),
    (["--power", "topp1"], "Unit must be one of top1, "),
])
def test_errors_are_one_line(arguments, message, capsys):
    assert synth.main(arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err


def test_comparison():
    rows = [("tile", "MXFP4", "top1", ("lanes=4",), 1), ("tile", "M2XFP", "top1", (), 2)]
    figures = {"area_um2": 10, "fmax_io_mhz": 1000, "hierarchical": False}
    units = {label: figures | {"power": {"clock_mhz": 500, "voltage_v": 1.1, "real": {
        "checked": 64, "energy_per_operation_fj": value}, "random": {"checked": 36}}}
        for label, value in (("top1 lanes=4", 20.0), ("top1", 25.0))}
    results = {"units": units, **measurement.describe(find_library())}
    lines = text_tables.comparison(rows, results, "format").splitlines()
    assert lines[0].split()[-2:] == ["energy", "ratio"]
    # Of an operation, so it does not matter how many units do it.
    assert [line.split()[-4:] for line in lines[2:4]] == [["1.000", "1.00", "20.0", "1.00"],
                                                          ["1.000", "1.00", "25.0", "1.25"]]
    assert ("\n200 outputs were compared with the golden model's, and all are equal."
            in text_tables.comparison(rows, results, "format"))


def report(name, netlist, density, folder):
    """Internal, switching and leakage power in OpenSTA, uW, by group and in total."""
    log = opensta(name, netlist, find_library(),
                  f"set_power_activity -global -activity {density} -duty 0.5\n"
                  "report_power -digits 6\n", folder, period=1000 / power.CLOCK)
    return {group: [1e6 * float(word) for word in figures.split()[:3]] for group, figures in
            re.findall(r"^(Sequential|Combinational|Total)((?:\s+[\d.e+-]+){4})", log, re.M)}


needs_opensta = pytest.mark.skipif(shutil.which("sta") is None, reason="OpenSTA is not installed")


@needs_opensta
def test_agreement_with_opensta(tmp_path):
    """All nets toggle equally often, as OpenSTA assumes it without activity."""
    name, settings = TILE
    library, gates = find_library(), netlist(name, *settings)
    ours = power.estimate_uniform(gates, library, 0.2)
    internal, switching, leaks = report(name, gates, 0.2, tmp_path)["Total"]
    assert ours["leakage_uw"] == pytest.approx(leaks, rel=1e-5)
    # It takes the larger capacitance of the two edges for both, and leaves out the clock pins.
    load = ours["clock_uw"] - power.estimate_uniform(gates, library, 0)["internal_uw"]
    assert 1 < switching / (ours["switching_uw"] - load) < 1.06

    # Without toggles the clock is left: exactly the same tables.
    internal, switching, _ = report(name, gates, 0, tmp_path)["Total"]
    assert switching == 0
    assert internal == pytest.approx(power.estimate_uniform(gates, library, 0)["internal_uw"],
                                     rel=1e-4)


@needs_opensta
def test_energies_agree_with_opensta(tmp_path):
    """Cells whose energies have no conditions, each behind and before others.

    OpenSTA 2.0.17 adds the energies of rise and fall at each edge of an output; later versions
    take their mean, as this does.
    """
    library = find_library()
    kinds = "INV_X1", "BUF_X4", "NAND2_X1", "INV_X8", "NOR2_X1", "NAND2_X4", "BUF_X2"
    cells, nets = [], ["a", "b"]
    for i, kind in enumerate(kinds):
        cell = library.cells[kind]
        assert not any(arc.when for arc in library.power(kind).arcs)
        pins = dict(zip(cell.inputs, nets[-len(cell.inputs):], strict=True))
        nets.append(f"n{i}" if i + 1 < len(kinds) else "y")
        output, = cell.functions
        cells.append((f"u{i}", kind, {**pins, output: nets[-1]}))
    gates = module(["input a b", "output y"], *cells)
    for cell in gates["cells"].values():
        cell |= {"hide_name": 0, "parameters": {}, "attributes": {}, "port_directions": {
            pin: "output" if pin in library.cells[cell["type"]].functions else "input"
            for pin in cell["connections"]}}
    for net in gates["netnames"].values():
        net["attributes"] = {}
    internal = report("top", gates, 0.2, tmp_path)["Total"][0]
    assert 2 * power.estimate_uniform(gates, library, 0.2)["internal_uw"] == pytest.approx(
        internal, rel=0.005)
