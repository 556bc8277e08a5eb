# SPDX-License-Identifier: BSD-2-Clause
"""The library that Yosys and ABC map to, written from what was read.

Yosys and ABC have readers of their own, which understand other files than `hw.flow.liberty` does
and some attributes differently. They get a file of the plainest kind instead: the cells that logic
may be mapped to, in ns and fF, with functions, areas, capacitances and delay tables. So the mapper
chooses among the cells that timing and power know, with the same figures.
"""

from collections.abc import Iterator
from weakref import WeakKeyDictionary

from .cell_functions import plain
from .liberty import CHECKS, Cell, Library
from .liberty_tables import Tables

_texts: "WeakKeyDictionary[Tables, str]" = WeakKeyDictionary()


def text(library: Library) -> str:
    """Returns the library as a Liberty file with all that mapping needs and nothing else.

    Parameters
    ----------
    library : Library

    Returns
    -------
    str
        The same for equal figures, whatever the files that they come from look like.
    """
    if library.tables not in _texts:
        _texts[library.tables] = "\n".join(_lines(library)) + "\n"
    return _texts[library.tables]


def _lines(library: Library) -> Iterator[str]:
    yield "library (cells) {"
    yield "  delay_model : table_lookup;"
    yield '  time_unit : "1ns"; voltage_unit : "1V"; current_unit : "1mA";'
    yield '  leakage_power_unit : "1nW"; pulling_resistance_unit : "1kohm";'
    yield "  capacitive_load_unit (1, ff);"
    sizes = sorted({values.shape for _, _, values in library.tables.tables})
    for rows, columns in sizes:
        for name, first, second in (
            ("delay", "input_net_transition", "total_output_net_capacitance"),
            ("check", "constrained_pin_transition", "related_pin_transition"),
        ):
            yield f"  lu_table_template ({name}_{rows}_{columns}) {{"
            yield f"    variable_1 : {first}; variable_2 : {second};"
            for i, size in ((1, rows), (2, columns)):
                yield f'    index_{i} ("{", ".join(map(str, range(size)))}");'
            yield "  }"
    for name, cell in library.cells.items():
        if not cell.unused:
            yield from _cell(name, cell, library.tables)
    yield "}"


def _cell(name: str, cell: Cell, tables: Tables) -> Iterator[str]:
    yield f'  cell ("{name}") {{'
    yield f"    area : {cell.area!r};"
    if cell.register:
        register = cell.register
        yield f'    ff ("{register.names[0]}", "{register.names[1]}") {{'
        for attribute, function in (("next_state", register.next_state),
                                    ("clocked_on", register.clock), ("clear", register.clear),
                                    ("preset", register.preset)):
            if function:
                yield f'      {attribute} : "{plain(function)}";'
        for attribute in ("clear_preset_var1", "clear_preset_var2"):
            if value := cell.group.all("ff")[0].get(attribute):
                yield f"      {attribute} : {value};"
        yield "    }"
    for pin in cell.group.all("pin"):
        for word in pin.arguments:
            yield f'    pin ("{word}") {{'
            if word in cell.inputs:
                rise, fall = cell.inputs[word]
                yield "      direction : input;"
                yield f"      capacitance : {max(rise, fall)!r};"
                yield f"      rise_capacitance : {rise!r}; fall_capacitance : {fall!r};"
                if cell.register and word == cell.register.clock_pin:
                    yield "      clock : true;"
            else:
                yield "      direction : output;"
                yield f'      function : "{plain(cell.functions[word])}";'
                if word in cell.max_capacitance:
                    yield f"      max_capacitance : {cell.max_capacitance[word]!r};"
            for arc in cell.arcs:
                if arc.pin == word:
                    yield "      timing () {"
                    yield f'        related_pin : "{arc.related}"; timing_type : {arc.kind};'
                    if arc.kind not in CHECKS:
                        yield f"        timing_sense : {arc.sense};"
                    for kind, number in arc.tables.items():
                        yield from _table(kind, *tables.tables[number], arc.kind in CHECKS)
                    yield "      }"
            yield "    }"
    yield "  }"


def _table(kind, slews, loads, values, check):
    name = "check" if check else "delay"
    yield f"        {kind} ({name}_{len(slews)}_{len(loads)}) {{"
    for i, axis in ((1, slews), (2, loads)):
        yield f'          index_{i} ("{_joined(axis)}");'
    rows = ", ".join(f'"{_joined(row)}"' for row in values)
    yield f"          values ({rows});"
    yield "        }"


def _joined(numbers):
    return ", ".join(map(repr, numbers.tolist()))
