# SPDX-License-Identifier: BSD-2-Clause
"""Mutated libraries, held against OpenSTA's and Yosys' own readers: equal figures or an error.

A mutant drops, repeats, reorders or rescales a group or an attribute of a small library. OpenSTA
times a netlist of all of its cells with the mutant's file; Yosys adds up the areas. This flow must
find the same figures, or refuse the file, or name the cells that it leaves out.
"""

import json
import random
import re
import shutil
import subprocess

import pytest

from hw.flow import timing
from hw.flow.liberty import find_library
from hw.flow.liberty_text import Group, read
from hw.tools import yosys
from hw.tools.errors import ToolError
from tests.support.netlists import LOAD, OPENSTA, arc, module, pin, table

DELAY, SLOW = (0.02, 0.1, 0.002), (0.03, 0.15, 0.004)


def _setup(kind, rise, fall):
    return f"""timing () {{ related_pin : "CK"; timing_type : {kind};
        {table("rise_constraint", *rise, template="check")}
        {table("fall_constraint", *fall, template="check")} }}"""


BASE = f"""library (mutant) {{
  delay_model : table_lookup;
  time_unit : "1ns"; voltage_unit : "1V"; current_unit : "1mA"; leakage_power_unit : "1nW";
  pulling_resistance_unit : "1kohm"; capacitive_load_unit (1, ff);
  nom_voltage : 1.1; nom_process : 1; nom_temperature : 25;
  default_input_pin_cap : 1.5; default_output_pin_cap : 0.25; default_inout_pin_cap : 1;
  input_threshold_pct_rise : 50; input_threshold_pct_fall : 50;
  output_threshold_pct_rise : 50; output_threshold_pct_fall : 50;
  slew_lower_threshold_pct_rise : 20; slew_upper_threshold_pct_rise : 80;
  slew_lower_threshold_pct_fall : 20; slew_upper_threshold_pct_fall : 80;
  slew_derate_from_library : 1;
  operating_conditions (typical) {{ process : 1; voltage : 1.1; temperature : 25; }}
  default_operating_conditions : typical;
  lu_table_template (delay) {{ variable_1 : input_net_transition;
    variable_2 : total_output_net_capacitance; index_1 ("0, 1"); index_2 ("0, 100"); }}
  lu_table_template (load) {{ variable_1 : total_output_net_capacitance; index_1 ("0, 40, 90"); }}
  lu_table_template (check) {{ variable_1 : constrained_pin_transition;
    variable_2 : related_pin_transition; index_1 ("0, 1"); index_2 ("0, 100"); }}
  cell (INV) {{ area : 1; {pin("A", "input", "capacitance : 2;")}
    {pin("Y", "output", 'function : "!A"; max_capacitance : 90;',
         arc("A", "negative_unate", DELAY, SLOW))} }}
  cell (BUF) {{ area : 1.5; dont_use : false; {pin("A", "input", "capacitance : 1;")}
    {pin("Z", "output", 'function : "A"; capacitance : 0.5;', '''timing () { related_pin : "A";
      timing_sense : positive_unate; cell_rise (load) { values ("0.1, 0.2, 0.4"); }
      cell_fall (scalar) { values ("0.3"); } rise_transition (load) { index_1 ("0, 50, 70");
      values ("0.02, 0.2, 0.4"); } fall_transition (scalar) { values ("0.05"); } }''')} }}
  cell (NAND) {{ area : 2; {pin("A", "input", "capacitance : 2;")}
    {pin("B", "input", "rise_capacitance : 3; fall_capacitance : 4; capacitance : 3;")}
    {pin("Y", "output", 'function : "!(A & B)";', arc("A", "negative_unate", DELAY, DELAY),
         arc("B", "negative_unate", DELAY, SLOW))} }}
  cell (XOR) {{ area : 3; {pin("A", "input", "capacitance : 2.5;")}
    {pin("B", "input", '''rise_capacitance_range (1, 3); fall_capacitance_range (2, 4);
         capacitance : 2; rise_capacitance : 3; fall_capacitance : 4;''')}
    {pin("Y", "output", 'function : "A ^ B";', arc("A", "non_unate", SLOW, DELAY),
         arc("B", "positive_unate", DELAY, SLOW).replace("timing ()", "timing (one)"),
         arc("B", "negative_unate", SLOW, DELAY))} }}
  cell (DFF) {{ area : 5; ff (IQ, IQN) {{ next_state : "D"; clocked_on : "CK"; }}
    {pin("D", "input", "capacitance : 1;", _setup("setup_rising", (0.03, 0.2, 0), (0.04, 0.2, 0)),
         _setup("hold_rising", (0.01, 0.1, 0), (0.02, 0.1, 0)))}
    {pin("CK", "input", "capacitance : 1; clock : true;")}
    {pin("Q", "output", 'function : "IQ";', arc("CK", "non_unate", DELAY, SLOW, "rising_edge"))}
    {pin("QN", "output", 'function : "IQN";',
         arc("CK", "non_unate", SLOW, DELAY, "rising_edge"))} }}
}}
"""

# Every cell on paths from and to registers and ports.
NETLIST = module(
    ["input clk a b", "output y z"],
    ("r0", "DFF", {"CK": "clk", "D": "a", "Q": "q", "QN": "qn"}),
    ("u0", "NAND", {"A": "q", "B": "b", "Y": "n0"}),
    ("u1", "XOR", {"A": "n0", "B": "qn", "Y": "n1"}),
    ("u2", "INV", {"A": "n1", "Y": "n2"}), ("u3", "BUF", {"A": "n2", "Z": "n3"}),
    ("u4", "XOR", {"A": "b", "B": "n3", "Y": "y"}),
    ("u5", "NAND", {"A": "n3", "B": "n1", "Y": "d"}),
    ("r1", "DFF", {"CK": "clk", "D": "d", "Q": "p", "QN": "z"}),
    ("u6", "INV", {"A": "p", "Y": "s"}),
    ("r2", "DFF", {"CK": "clk", "D": "s", "Q": "t", "QN": "tn"}))
AREA = {"INV": 2, "BUF": 1, "NAND": 2, "XOR": 2, "DFF": 3}
CLASSES = {
    "in-out": "-from $ins -to [all_outputs]",
    "in-reg": "-from $ins -to [all_registers -data_pins]",
    "reg-out": "-from [all_registers -clock_pins] -to [all_outputs]",
    "reg-reg": "-from [all_registers -clock_pins] -to [all_registers -data_pins]",
}


_BARE = re.compile(r"[a-zA-Z_]\w*|-?[\d.e+-]+")


def written(group, depth=0):
    """A group as text."""
    blank = "  " * depth
    lines = [f"{blank}{group.kind} ({', '.join(group.arguments)}) {{"]
    for item in group.items:
        if isinstance(item, Tree):
            lines += written(item, depth + 1)
        else:
            name, values, simple = item
            # OpenSTA 2.0.17 reads a table's single number as nothing unless it is in quotes.
            bare = not name.startswith(("values", "index"))
            quoted = ", ".join(value if bare and _BARE.fullmatch(value) else f'"{value}"'
                               for value in values)
            lines.append(f"{blank}  {name} : {quoted};" if simple else
                         f"{blank}  {name} ({quoted});")
    return [*lines, f"{blank}}}"]


_RANKS = {"delay_model": 0, "time_unit": 0, "voltage_unit": 0, "capacitive_load_unit": 0,
          "operating_conditions": 1, "direction": 0, "capacitance": 1, "values": 9,
          "lu_table_template": 2.5, "cell": 9}


class Tree:
    """A group whose attributes and groups are in one list."""

    def __init__(self, kind, arguments, items):
        self.kind, self.arguments, self.items = kind, arguments, items

    @classmethod
    def of(cls, group: Group):
        complex_ones = {"capacitive_load_unit", "values", "rise_capacitance_range",
                        "fall_capacitance_range", "index_1", "index_2"}
        items = [(found.place.statement, (name, found.values, name not in complex_ones))
                 for name, several in group.attributes.items() for found in several]
        items += [(inner.place.statement, cls.of(inner)) for inner in group.groups]
        return cls(group.kind, group.arguments, [item for _, item in sorted(
            items, key=lambda item: item[0])])

    def in_order(self):
        """The same in the order that OpenSTA needs: it reads a file once, from top to bottom.

        A template that follows its use is unknown to it, an index that follows the values is
        ignored, and a pin's capacitance overrides those of its edges if it follows them. Nothing
        of that is so in Liberty.
        """
        def rank(item):
            kind, group = (item.kind, 1) if isinstance(item, Tree) else (item[0], 0)
            return (_RANKS.get(kind, 2 + group), kind in ("rise_capacitance", "fall_capacitance"))

        items = [item.in_order() if isinstance(item, Tree) else item for item in self.items]
        # It takes garbage from `values` that stand twice.
        once = [item for i, item in enumerate(items)
                if isinstance(item, Tree) or item not in items[:i]]
        return Tree(self.kind, self.arguments, sorted(once, key=rank))

    def all(self):
        yield self
        for item in self.items:
            if isinstance(item, Tree):
                yield from item.all()


def _scaled(values, factor):
    return tuple(re.sub(r"(?<![\w.])-?\d+(\.\d+)?(?![\w.])",
                        lambda number: f"{float(number[0]) * factor:.12g}", value)
                 for value in values)


def mutant(root, rng):
    """Changes a tree in one place and says what was changed."""
    kind = rng.choice(["drop", "drop", "repeat", "repeat and scale", "reorder", "scale", "scale",
                       "move to the end"])
    group = rng.choice([tree for tree in root.all() if tree.items])
    at = rng.randrange(len(group.items))
    item = group.items[at]
    name = item.kind if isinstance(item, Tree) else item[0]
    if kind == "drop":
        del group.items[at]
    elif kind == "repeat":
        group.items.insert(rng.randrange(len(group.items) + 1), item)
    elif kind == "reorder":
        rng.shuffle(group.items)
    elif kind == "move to the end":
        group.items.append(group.items.pop(at))
    else:
        factor = rng.choice([0.1, 0.5, 1.25, 2, 10])
        other = item
        if isinstance(item, Tree):
            other = Tree(item.kind, item.arguments, [
                inner if isinstance(inner, Tree) or inner[0].startswith("index") else
                (inner[0], _scaled(inner[1], factor), inner[2]) for inner in item.items])
        else:
            other = name, _scaled(item[1], factor), item[2]
        if kind == "scale":
            group.items[at] = other
        else:
            group.items.insert(rng.choice([at, at + 1, len(group.items)]), other)
    return f"{kind} {name} in {group.kind} ({', '.join(group.arguments)})"


def mutated(seed, folder):
    """Writes a mutant; returns its file, one for OpenSTA and what was changed."""
    base = folder / "base.lib"
    base.write_text(BASE)
    tree = Tree.of(read(base)[0])
    what = mutant(tree, random.Random(seed)) if seed is not None else "nothing"
    paths = folder / f"mutant{seed}.lib", folder / f"ordered{seed}.lib"
    for path, changed in zip(paths, (tree, tree.in_order()), strict=True):
        path.write_text("\n".join(written(changed)) + "\n")
    return *paths, what


def ours(path):
    """Delays of the four kinds of path in ns, area and driver; or in a text why there are none."""
    try:
        library = find_library(str(path))
        if library.left_out:
            return str(library.left_out)
        paths = timing.analyse(NETLIST, library)
    except ToolError as error:
        assert "\n" not in str(error)
        return str(error)
    area = sum(count * library.cells[kind].area for kind, count in AREA.items())
    return {kind: path.delay_ns for kind, path in paths.items()}, area, library.driver


def theirs(path, driver, folder):
    """Delays from OpenSTA; None if it cannot read the file or finds no slew thresholds in it."""
    script = OPENSTA.replace("cells.lib", path.name).format(
        name="top", clock="[get_ports clk]", driver=driver, load=LOAD, period=0)
    script += "".join(f"puts <{kind}>\nreport_checks -digits 6 -path_delay max {which}\n"
                      for kind, which in CLASSES.items())
    (folder / "run.tcl").write_text(script + "puts <end>\nexit\n")
    run = subprocess.run(["sta", "-no_splash", "-exit", "run.tcl"], cwd=folder, text=True,
                         capture_output=True, check=False)
    if run.returncode or "Error" in run.stdout + run.stderr or "<end>" not in run.stdout:
        return None
    parts = re.split(r"<\S+>\n", run.stdout)[1:-1]
    found = {kind: re.search(r"(\S+)\s+slack", part)
             for kind, part in zip(CLASSES, parts, strict=True)}
    return {kind: -float(match[1]) for kind, match in found.items() if match}


def design(folder):
    """Writes the netlist as Verilog, and returns it as Yosys reads it."""
    netlist = json.loads(json.dumps(NETLIST))
    for cell in netlist["cells"].values():
        cell |= {"hide_name": 0, "parameters": {}, "attributes": {}, "port_directions": {
            pin: "output" if pin in ("Y", "Z", "Q", "QN") else "input"
            for pin in cell["connections"]}}
    for net in netlist["netnames"].values():
        net["attributes"] = {}
    text = json.dumps({"modules": {"top": netlist}})
    _, files = yosys.run("read_json unit.json\nwrite_verilog -noattr unit.v\n",
                         inputs={"unit.json": text}, outputs=["unit.v"])
    (folder / "unit.v").write_text(files["unit.v"])
    return text


@pytest.mark.parametrize("seeds", [range(20)])
def test_mutants_give_figures_or_one_line(seeds, tmp_path):
    """A part of the long test: that nothing but these two comes out."""
    found = [ours(mutated(seed, tmp_path)[0]) for seed in seeds]
    assert {type(result) for result in found} == {str, tuple}


@pytest.mark.skipif(shutil.which("sta") is None, reason="OpenSTA is not installed")
@pytest.mark.long
def test_mutants_against_opensta_and_yosys(tmp_path):
    text = design(tmp_path)
    areas, refused, compared = {}, 0, 0
    for seed in [None, *range(100, 220)]:
        path, ordered, what = mutated(seed, tmp_path)
        found = ours(path)
        if isinstance(found, str):
            refused += 1
            continue
        delays, area, driver = found
        areas[path] = area
        expected = theirs(ordered, driver, tmp_path)
        if expected is not None:
            compared += 1
            assert delays == pytest.approx(expected, abs=2e-6), (seed, what)
    assert compared > 60 and refused > 20

    commands = "read_json unit.json\n" + "".join(f"stat -liberty {path.name}\n" for path in areas)
    log, _ = yosys.run(commands, inputs={"unit.json": text, **{p.name: p for p in areas}})
    found = re.findall(r"Chip area for module '\\top': (\S+)", log)
    assert [*map(float, found)] == pytest.approx([*areas.values()], rel=1e-9)
