# SPDX-License-Identifier: BSD-2-Clause
"""Liberty files as foundries and tools write them: read alike, or refused in one line."""

import gzip
import re

import pytest

from hw.flow import mapped_library, timing
from hw.flow.liberty import find_library
from hw.flow.liberty_text import Group, LibertyError, numbers
from hw.tools.errors import ToolError
from tests.support.netlists import CELLS, LOAD, arc, liberty, module, pin, read

PLAIN = liberty()


def figures(library):
    """All that is read of a library, but its name: as the mapper gets it, and the leakage."""
    return mapped_library.text(library)


SPELLINGS = {
    "newlines end attributes": lambda text: text.replace(";", "\n"),
    "newlines end attributes, blanks before them": lambda text: text.replace(";", " \t\r\n"),
    "carriage returns alone": lambda text: text.replace("\n", "\r"),
    "one line": lambda text: text.replace("\n", " "),
    "continued lines": lambda text: re.sub(r', (?=[\d"])', ", \\\\\n   ", text),
    "continued lines with blanks": lambda text: text.replace(", ", ", \\ \t\r\n"),
    "newlines in strings": lambda text: text.replace("!(A & B)", "!(A\n   & B)"),
    "byte order mark": lambda text: "\ufeff" + text,
    "line comments": lambda text: "// made by a script\n" + text.replace(";", "; // { \"\n"),
    "comments in statements": lambda text: text.replace(" : ", " /* : */ : /* } */ "),
    "comment with a newline": lambda text: text.replace(";", " /* \n */ ;"),
    "parentheses": lambda text: re.sub(r'(clocked_on|next_state|function) : "(.+?)"',
                                       r'\1 : "((\2))"', text),
    "no quotes": lambda text: re.sub(r'(clocked_on|next_state|function) : "(.+?)"',
                                     r"\1 : (\2)", text),
    "no quotes, two lines": lambda text: text.replace('"!(A & B)"', "!(A\n & B)").replace(
        '"!A"', "!\nA\n"),
    "other operators": lambda text: text.replace("!(A & B)", "(A*B)'").replace("!A", "A'"),
    "names with quotes": lambda text: re.sub(r"(pin|cell|library) \((\w+)\)", r'\1("\2")', text),
    "quotes around all values": lambda text: re.sub(r": ([\w.]+);", r': "\1";', text),
    "no blanks": lambda text: re.sub(r" *([{}();:,]) *", r"\1", text),
    "semicolons behind groups": lambda text: text.replace("}", "};;"),
    "escaped quotes": lambda text: text.replace('time_unit', 'comment : "\\"{";time_unit', 1),
    "several related pins": lambda text: text.replace('related_pin : "CK"', 'related_pin : " CK "'),
    "dont_use is false": lambda text: text.replace("{ area", '{ dont_use : "false"; area'),
    "numbers with exponents": lambda text: text.replace("area : 2;", "area : +20E-1;"),
    "an attribute twice": lambda text: text.replace("area : 2;", "area : 2; area : 2;"),
    "not ASCII": lambda text: text.replace("a comment", "ein Schloß, 城"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings(tmp_path, spelling):
    odd = SPELLINGS[spelling](PLAIN)
    assert odd != PLAIN
    path = tmp_path / "odd.lib"
    path.write_bytes(odd.encode())
    assert figures(find_library(str(path))) == figures(read(tmp_path, PLAIN))
    path.write_bytes(gzip.compress(odd.encode()))
    assert figures(find_library(str(path))) == figures(read(tmp_path, PLAIN))


def test_what_files_have_besides(tmp_path):
    """Lines of published libraries that say nothing to this flow."""
    head = """define (process_corner, operating_conditions, string);
        define_cell_area (pads, slots)
        technology (cmos)
        voltage_map ("VDD", 1.0);
        date : "$Date: 10 Feb 2011; {18:11} $";
        input_voltage (cmos) { vil : 0.3 * VDD ; vih : 0.7 * VDD; vimin : -0.5 ; vimax : VDD + 0.5 }
        active_input_ccb (some:ck);
        active_input_ccb (some:d, \\
                          some:e);
        power_down_function : !VDD+VSS ;
        wire_load_selection ("routing") { wire_load_from_area (0, 1.2e+06, 0_1k); }
        library_features (report_delay_calculation, report_power_calculation) ;
        default_wire_load_mode : "top";"""
    assert figures(read(tmp_path, liberty(head=head))) == figures(read(tmp_path, PLAIN))


def test_latin_1(tmp_path):
    path = tmp_path / "old.lib"
    path.write_bytes(PLAIN.replace("a comment", "µ").encode("latin-1"))
    assert figures(find_library(str(path))) == figures(read(tmp_path, PLAIN))


def test_newline_ends_what_was_misread(tmp_path):
    """An input whose direction ends with its line was taken as an output."""
    text = PLAIN.replace("pin (B) { direction : input;", "pin (B) { direction : input\n")
    assert read(tmp_path, text).cells["NAND"].inputs == {"A": (2, 2), "B": (3, 4)}


@pytest.mark.parametrize("units", [
    'time_unit : "10ps"; capacitive_load_unit (10, ff);',
    "time_unit : 0.01ns; capacitive_load_unit (0.00001, nf);",
    'time_unit : "10 ps"; capacitive_load_unit (1e-5, "nF");',
])
def test_units(tmp_path, units):
    text = PLAIN.replace('time_unit : "1ns"; capacitive_load_unit (1, ff);', units)
    plain, odd = read(tmp_path, PLAIN), read(tmp_path, text)
    assert odd.cells["NAND"].inputs["B"] == pytest.approx((30, 40), rel=1e-12)
    number, = {arc.tables["cell_rise"] for arc in odd.cells["INV"].arcs}
    for found, axis, factor in zip(odd.tables.tables[number], plain.tables.tables[number],
                                   (0.01, 10, 0.01), strict=True):
        assert found == pytest.approx(axis * factor, rel=1e-12)


def test_several_files_make_one_library(tmp_path):
    parts = {"gates.lib": liberty({k: v for k, v in CELLS.items() if k != "DFF"}),
             "registers.lib.gz": liberty({"DFF": CELLS["DFF"]})}
    for name, text in parts.items():
        content = text.encode()
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    paths = [str(tmp_path / name) for name in parts]
    library = find_library(",".join(paths))
    # The order of cells differs, the cells do not.
    cells = re.compile(r"^  cell .*?^  }$", re.M | re.S)
    assert sorted(cells.findall(figures(library))) == sorted(
        cells.findall(figures(read(tmp_path, PLAIN))))
    assert [source.path.name for source in library.sources] == [*parts]
    assert library.sha256 not in {source.sha256 for source in library.sources}

    (tmp_path / "registers.lib.gz").write_text(PLAIN)
    with pytest.raises(ToolError, match=r"registers.lib.gz, line \d+: cell \(INV\) is also in "
                                        r"gates.lib, line \d+"):
        find_library(",".join(paths))


def test_file_name_with_comma(tmp_path):
    path = tmp_path / "fast,hot.lib"
    path.write_text(PLAIN)
    assert find_library(str(path)).path == path


def test_units_of_each_file(tmp_path):
    (tmp_path / "gates.lib").write_text(liberty({k: v for k, v in CELLS.items() if k != "DFF"}))
    other = liberty({"DFF": CELLS["DFF"]}).replace("(1, ff)", "(1, pf)").replace('"1ns"', '"1ps"')
    (tmp_path / "registers.lib").write_text(other)
    library = find_library(f"{tmp_path}/gates.lib,{tmp_path}/registers.lib")
    assert (library.cells["INV"].inputs["A"], library.cells["DFF"].inputs["D"]) == (
        (2, 2), (1000, 1000))


def test_include_file(tmp_path):
    (tmp_path / "parts").mkdir()
    included = tmp_path / "parts" / "nand.inc"
    included.write_text(CELLS["NAND"].partition("{")[2].rpartition("}")[0])
    text = PLAIN.replace(CELLS["NAND"], 'cell (NAND) { include_file ("parts/nand.inc"); }')
    assert figures(read(tmp_path, text)) == figures(read(tmp_path, PLAIN))

    # A change of the included file is seen.
    included.write_text(included.read_text().replace("area : 2", "area : 7"))
    changed = read(tmp_path, text)
    assert changed.cells["NAND"].area == 7
    assert changed.sha256 != read(tmp_path, PLAIN).sha256

    included.write_text("\n\n" + included.read_text().replace("area : 7", "area : two"))
    with pytest.raises(LibertyError, match="nand.inc, line 3: area must be a number, not 'two'"):
        read(tmp_path, text)
    included.write_text('include_file ("nand.inc");')
    with pytest.raises(LibertyError, match="nand.inc, line 1: include_file nand.inc includes "):
        read(tmp_path, text)
    included.unlink()
    with pytest.raises(LibertyError, match="include_file parts/nand.inc: No such file"):
        read(tmp_path, text)


INVERTER = CELLS["INV"]
LINES = "\n" * 100
REFUSED = {
    # Not in the format at all.
    "": "line 1: not in the Liberty format",
    "module top(); endmodule": "line 1: not in the Liberty format",
    PLAIN[:-200]: "not in the Liberty format",
    PLAIN + "}": r"line \d+: not in the Liberty format: a } too many",
    PLAIN + LINES + "library (b) { }": "a file holds one library",
    PLAIN.replace("/* a comment { */", "/* a comment {"): "line 1: .* a comment without an end",
    PLAIN + LINES + '"': r"line 1\d\d: .* a string without an end",
}
CHANGED = [
    ("area : 1;", "", r"cell \(INV\) has no area"),
    ("area : 1;", "area : ;", "area must have one value that ends with ;"),
    ("area : 1;", "area : 1 2;", "area must have one value that ends with ;"),
    ("area : 1;", "area : 1_0;", "area must be a number, not '1_0'"),
    ("area : 1;", "area : nan;", "area must be a number, not 'nan'"),
    ("area : 1;", "area : 1; area : 2;", r"area stands again in cell \(INV\), with another"),
    ("area : 1;", "area : 1; dont_use : maybe;", "dont_use must be true or false, not 'maybe'"),
    ("pin (A) { direction : input;", "pin (A) {", r"direction of pin \(A\) of cell \(INV\) must"
                                                  " be input or output, and is missing"),
    ("direction : input;", "direction : imput;", "must be input or output, not 'imput'"),
    ("direction : input;", "direction : input capacitance : 2;", "direction must have one value"),
    ("capacitance : 2;", "", r"pin \(A\) has no capacitance"),
    ("capacitance : 2;", "capacitance : 2; } pin (A) { direction : input;", "stands twice"),
    ('function : "!A";', "", r"pin \(Y\) of cell \(INV\) has no function"),
    ('function : "!A";', 'function : "!A &";', r"function of pin \(Y\): A Boolean function has "),
    ('function : "!A";', 'function : "!B";', r"function of pin \(Y\) has B, which is not a pin"),
    ('related_pin : "A";', "", r"timing of pin Y of cell \(INV\) has no related_pin"),
    ('related_pin : "A";', 'related_pin : "B";', r"related_pin B is not a pin of cell \(INV\)"),
    ("negative_unate", "none", "timing_sense of cell .* must be positive_unate, .* not 'none'"),
    ("timing_type : combinational", "timing_type : combinatorial",
     "timing_type 'combinatorial' of cell"),
    ("cell_rise (delay)", "cell_rise (delays)", "has the template delays, which the file does not"),
    ("cell_rise (delay)", "other (delay)", "must have both cell_rise and rise_transition"),
    ("cell_rise (delay)", "cell_fall (delay)", "cell_fall stands twice in one timing"),
    ("cell_rise (delay) { values", "cell_rise (delay) { value", "has no values"),
    ('"0.02, ', '"0.02 ', None),
    ('"0.02, ', '"', r"values of cell_rise \(delay\) must be 2 times 2, not 1 \+ 2"),
    ('"0.02, ', '"0.02, two, ', "values must be numbers, not 'two'"),
    ('cell_rise (delay) {', 'cell_rise (delay) { index_1 ("1, 1");', "index_1 must increase"),
]


@pytest.mark.parametrize("text, message", REFUSED.items())
def test_what_is_not_liberty(tmp_path, text, message):
    with pytest.raises(LibertyError, match=message) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("old, new, message", CHANGED)
def test_messages_name_file_and_line(tmp_path, old, new, message):
    assert old in INVERTER
    text = PLAIN.replace(INVERTER, LINES + INVERTER.replace(old, new, 1))
    first = text[:text.index("cell (INV)")].count("\n") + 1
    if message is None:
        assert figures(read(tmp_path, text)) == figures(read(tmp_path, PLAIN))
        return
    with pytest.raises(LibertyError) as caught:
        read(tmp_path, text)
    found = re.fullmatch(f"Library tiny.lib, line (\\d+): .*{message}.*", str(caught.value))
    line = int(found[1])
    assert first <= line <= first + INVERTER.count("\n")


@pytest.mark.parametrize("head, message", [
    ("delay_model : polynomial;", "delay_model must be table_lookup, not polynomial"),
    ("voltage_unit : 1X;", "voltage_unit must be a number with one of v, mv, uv, not '1X'"),
    ("leakage_power_unit : nothing;", "leakage_power_unit must be a number with one of w, mw, "),
    ("nom_voltage : high;", None),
])
def test_refused_heads(tmp_path, head, message):
    text = liberty(head=head)
    if message is None:
        with pytest.raises(LibertyError, match="nom_voltage must be a number, not 'high'"):
            _ = read(tmp_path, text).voltage
        return
    with pytest.raises(LibertyError, match=f"line 2: {message}"):
        read(tmp_path, text)


@pytest.mark.parametrize("cells, message", [
    ({k: v for k, v in CELLS.items() if k != "DFF"}, "has no flip-flop$"),
    ({k: v for k, v in CELLS.items() if k != "BUF_X2"},
     "has no buffer to drive the inputs with that logic may be mapped to$"),
    ({"DLH": CELLS["DLH"]}, "has no flip-flop$"),
    (CELLS | {"DFF": CELLS["DFF"].replace("(setup)", "(delay)")},
     "has no flip-flop; DFF is left out: Library tiny.lib, line .* tables over input_net_trans"),
])
def test_what_is_needed(tmp_path, cells, message):
    with pytest.raises(ToolError, match=message):
        read(tmp_path, liberty(cells))


def test_missing_file(tmp_path):
    with pytest.raises(ToolError, match="none.lib: No such file or directory; give nangate45 or"):
        find_library(str(tmp_path / "none.lib"))
    with pytest.raises(ToolError, match=r"none.lib: No such file"):
        find_library(f"{tmp_path}/none.lib,nangate45")


PAD = f"""cell (PAD) {{ area : 900; {pin("A", "input", "capacitance : 2;")}
    {pin("Y", "output", 'function : "A";', arc("A", "positive_unate", (0, 0, 0), (0, 0, 0)))} }}"""


@pytest.mark.parametrize("old, new, reason", [
    ("(delay)", "(odd)", r"tables over input_net_transition, output_net_length are not supported"),
    ('related_pin : "A"', 'related_bus_pins : "A"', "related_bus_pins .* is not supported"),
    ('"A";', '"A & A | B";', None),
    ("timing () {", 'timing () { } other () {', None),
])
def test_what_is_not_supported_in_a_cell_that_is_not_needed(tmp_path, old, new, reason):
    head = """lu_table_template (odd) { variable_1 : input_net_transition;
        variable_2 : output_net_length; index_1 ("0, 1"); index_2 ("0, 100"); }"""
    text = liberty(CELLS | {"PAD": PAD.replace(old, new)}, head)
    if reason is None:
        with pytest.raises(LibertyError, match=r"line \d+"):
            read(tmp_path, text)
        return
    library = read(tmp_path, text)
    assert re.fullmatch(fr"Library tiny.lib, line \d+: .*{reason}", library.left_out["PAD"])
    assert 'cell ("PAD")' not in figures(library)
    assert figures(library) == figures(read(tmp_path, liberty(CELLS)))


def test_path_without_timing(tmp_path):
    """A gate whose output has no timing from one of its inputs would hide the path."""
    alone = arc("B", "negative_unate", (0.02, 0.1, 0.002), (0.5, 0.1, 0.002))
    assert alone in CELLS["NAND"]
    library = read(tmp_path, liberty(CELLS | {"NAND": CELLS["NAND"].replace(alone, "")}))
    assert "has no timing from B to Y" in library.left_out["NAND"]
    library = read(tmp_path, liberty(CELLS | {"D2": re.sub(
        "rising_edge", "clear", CELLS["DFF"].replace("(DFF)", "(D2)"))}))
    assert "has no timing from its clock to Q" in library.left_out["D2"]
    library = read(tmp_path, liberty(CELLS | {"D2": re.sub(
        "setup_rising", "recovery_rising", CELLS["DFF"].replace("(DFF)", "(D2)"))}))
    assert "has no setup time of D" in library.left_out["D2"]


@pytest.mark.parametrize("cell, what", [
    (PAD.replace("area", "pad_cell : true; area"), "a pad"),
    (PAD.replace("area", "is_level_shifter : true; area"), "a level shifter"),
    (PAD.replace("area", "is_isolation_cell : true; area"), "an isolation cell"),
    (PAD.replace("area", 'clock_gating_integrated_cell : "latch_posedge"; area'), "a clock gate"),
    (PAD.replace("area", 'statetable ("A", "IQ") { table : "L : - : L"; } area'),
     "a cell with a state table"),
    (PAD.replace("pin (A)", "bus (A)"), "a cell of several bits"),
    (PAD.replace("direction : output", "direction : inout"), "neither input nor output"),
    (PAD.replace("area", "dont_use : true; area"), "not to be used"),
    (PAD.replace("area : 900", "dont_use : true"), r"cell \(PAD\) has no area"),
    ("cell (FILL) { area : 1; }", "a cell without an output"),
    (f"cell (ROM) {{ {pin('Q', 'output')} }}", "a cell without a function of Q"),
])
def test_cells_that_logic_is_not_mapped_to(tmp_path, cell, what):
    library = read(tmp_path, liberty(CELLS | {"PAD": cell}))
    assert library.left_out == {}
    added, = library.cells.keys() - CELLS.keys()
    assert re.search(what, library.cells[added].unused)
    assert figures(library) == figures(read(tmp_path, PLAIN))


def _buffer(name, area, extra=""):
    return CELLS["BUF_X2"].replace("BUF_X2", name).replace("area : 1.5;", f"area : {area}; {extra}")


@pytest.mark.parametrize("others, driver", [
    ({}, "BUF_X2"), ({"B1": _buffer("B1", 1)}, "BUF_X2"),
])
def test_driver_is_that_of_the_published_figures(tmp_path, others, driver):
    assert read(tmp_path, liberty(CELLS | others)).driver == driver


@pytest.mark.parametrize("special", [
    _buffer("DLYBUF", 1), _buffer("B1", 1, "dont_use : true;"),
    _buffer("B1", 1, "is_level_shifter : true;"), _buffer("CLKBUF_X1", 1),
    _buffer("sky130_fd_sc_hd__dlygate4sd1_1", 1), _buffer("sky130_fd_sc_hd__clkdlybuf4s15_1", 1),
    _buffer("gf180mcu_fd_sc_mcu7t5v0__dlya_1", 1), _buffer("HB1xp67_ASAP7_75t_R", 1),
    _buffer("sg13g2_dlygate4sd1_1", 1), _buffer("buf_hold_1", 1), _buffer("DEL2X1", 1),
    _buffer("B1", 1, 'cell_footprint : "clkbuf";'),
])
def test_cheapest_buffer_for_logic(tmp_path, special):
    """The driver is no buffer for clocks, delays, hold times or levels, and none not to use."""
    cells = {k: v for k, v in CELLS.items() if k != "BUF_X2"}
    names = "BUFX4", "BUFx2_ASAP7_75t_R", "sky130_fd_sc_hd__buf_1", "BUFFD2", "BUF_X16"
    many = {name: _buffer(name, 3 + i) for i, name in enumerate(names)}
    library = read(tmp_path, liberty(cells | {"special": special} | many))
    assert library.driver == "BUFX4"
    # Without any other it is taken, unless logic may not be mapped to it.
    text = liberty(cells | {"special": special})
    if "is_level" in special or "dont_use" in special:
        with pytest.raises(ToolError, match="has no buffer to drive the inputs with"):
            read(tmp_path, text)
    else:
        assert special.startswith(f"cell ({read(tmp_path, text).driver})")


def test_chosen_driver(tmp_path):
    text = liberty(CELLS | {"B1": _buffer("B1", 1, "dont_use : true;")})
    read(tmp_path, text)
    assert find_library(str(tmp_path / "tiny.lib"), "B1").driver == "B1"
    assert find_library(str(tmp_path / "tiny.lib")).driver == "BUF_X2"
    with pytest.raises(ValueError, match="^--driver must be a buffer of tiny, one of B1, BUF_X2, "
                                         "not 'INV'$"):
        find_library(str(tmp_path / "tiny.lib"), "INV")


def test_last_of_cells_with_one_name(tmp_path):
    library = read(tmp_path, liberty(CELLS | {"again": INVERTER.replace("area : 1", "area : 7")}))
    assert library.cells["INV"].area == 7


@pytest.mark.parametrize("function, sense", [
    ("!(A & B)", "negative_unate"), ("A & !B", "positive_unate"), ("B & !A", "negative_unate"),
    ("A ^ B", "non_unate"), ("A & B | A & !B", "positive_unate"),
])
def test_missing_sense_is_that_of_the_function(tmp_path, function, sense):
    cell = CELLS["NAND"].replace("timing_sense : negative_unate;", "").replace("!(A & B)", function)
    library = read(tmp_path, liberty(CELLS | {"NAND": cell}))
    assert {arc.sense for arc in library.cells["NAND"].arcs if arc.related == "A"} == {sense}


def test_both_edges_follow_a_clock_whatever_the_sense(tmp_path):
    clocked = CELLS["DFF"].replace("timing_sense : non_unate", "timing_sense : positive_unate")
    assert clocked != CELLS["DFF"]
    library = read(tmp_path, liberty(CELLS | {"DFF": clocked}))
    assert {arc.sense for arc in library.cells["DFF"].arcs if arc.pin == "Q"} == {"non_unate"}


def test_output_pin_bears_itself(tmp_path):
    gate = module(["input a", "output y"], ("u", "INV", {"A": "a", "Y": "y"}))
    for own, load in (("", LOAD), ("capacitance : 7;", LOAD + 7),
                      ("rise_capacitance : 7; fall_capacitance : 7;", LOAD + 7)):
        cell = INVERTER.replace("pin (Y) {", f"pin (Y) {{ {own}")
        library = read(tmp_path, liberty(CELLS | {"INV": cell}))
        plain = timing.analyse(gate, read(tmp_path, PLAIN), output_load=load)
        assert timing.analyse(gate, library)["in-out"].delay_ns == pytest.approx(
            plain["in-out"].delay_ns, abs=1e-12)


def test_capacitances(tmp_path):
    def inputs(text, head=""):
        cell = INVERTER.replace("capacitance : 2;", text)
        return read(tmp_path, liberty(CELLS | {"INV": cell}, head)).cells["INV"].inputs["A"]

    assert inputs("rise_capacitance : 3; capacitance : 2;") == (3, 2)
    assert inputs("rise_capacitance_range (1, 4); fall_capacitance_range (2, 5);") == (4, 5)
    assert inputs("rise_capacitance_range (1, 4); rise_capacitance : 3; capacitance : 2;") == (3, 2)
    assert inputs("", "default_input_pin_cap : 6;") == (6, 6)


def test_groups():
    group = Group("pin", ("A", "B"), None)
    assert (str(group), group.find("x"), group.get("x", "y"), group.all("z")) == (
        "pin (A, B)", None, "y", [])


def test_other_blanks_between_numbers():
    with pytest.raises(LibertyError, match=r"values must be numbers, not '1\\x852'"):
        numbers("1\x852", "cells.lib:1", "values")
