# SPDX-License-Identifier: BSD-2-Clause
"""The library that the mapper gets says what was read, and nothing else."""

import pytest

from hw import registry
from hw.flow import mapped_library, mapping
from hw.flow.liberty import find_library
from hw.flow.partition import partition
from hw.tools import yosys
from hw.verilog.emit import verilog
from tests.support.netlists import CELLS, liberty, read


@pytest.mark.parametrize("path", ["tiny", pytest.param("nangate45", marks=pytest.mark.long)])
def test_it_reads_as_it_was_written(path, tmp_path):
    library = read(tmp_path, liberty()) if path == "tiny" else find_library()
    text = mapped_library.text(library)
    (tmp_path / "again.lib").write_text(text)
    again = find_library(str(tmp_path / "again.lib"))
    assert mapped_library.text(again) == text
    used = {name: cell for name, cell in library.cells.items() if not cell.unused}
    assert [*again.cells] == [*used]
    for name, cell in used.items():
        found = again.cells[name]
        assert (found.area, found.inputs, found.max_capacitance) == (
            cell.area, cell.inputs, cell.max_capacitance)
        assert found.flip_flop == cell.flip_flop
        assert sorted((arc.pin, arc.related, arc.kind, arc.sense) for arc in found.arcs) == sorted(
            (arc.pin, arc.related, arc.kind, arc.sense) for arc in cell.arcs)


@pytest.mark.parametrize("mark, used", [("true", False), ('"true"', False), ('"false"', True),
                                        ("false", True)])
def test_dont_use(tmp_path, mark, used):
    cell = CELLS["NAND"].replace("{ area", f"{{ dont_use : {mark}; area")
    text = mapped_library.text(read(tmp_path, liberty(CELLS | {"NAND": cell})))
    assert ('cell ("NAND")' in text) == used


def test_netlists_are_kept_by_what_was_read_of_the_library(tmp_path, monkeypatch):
    keys = []
    monkeypatch.setattr(mapping.cache, "digest", lambda *texts: keys.append(texts) or "key")
    monkeypatch.setattr(mapping.cache, "read", lambda path: "{}")
    text = liberty()
    for other in (text, text.replace("a comment", "another"),
                  text.replace("area : 2;", "area : 3;"),
                  text.replace("{ area : 2;", "{ dont_use : true; area : 2;")):
        mapping.Part("", ("top",), ()).mapped(read(tmp_path, other))
    assert keys[0] == keys[1]
    assert len({*keys}) == 3


@pytest.mark.long
def test_figures_of_the_default_library_are_those_of_its_file():
    """Yosys and ABC make the same netlists from the file itself."""
    library = find_library()
    for name in ("top1", "pe_tile"):
        text = verilog(registry.build(name, ()), name)
        part = mapping.Part.of(text, name, partition(text, name))
        mapped = part.mapped(library)
        commands = mapping.script("part0", (), ())
        inputs = {"start.il": mapping.START, "unit.v": part.text, "cells.lib": library.path,
                  "drive.txt": mapping.DRIVE.format(driver=library.driver, load=5.0)}
        _, files = yosys.run(commands, inputs=inputs, outputs=["area.il", "timed.il"])
        for goal in mapping.GOALS:
            assert files[f"{goal}.il"].endswith(mapped[f"{goal}.il"])
