# SPDX-License-Identifier: BSD-2-Clause
"""Modules that are mapped by themselves: once for all units, and linked to what one run gives."""

import json
import multiprocessing
import os
from collections import Counter

import pytest
from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.flow import mapping, partition, timing
from hw.flow.liberty import find_library
from hw.tools import yosys
from hw.verilog.emit import verilog


class Inner(wiring.Component):
    """A register behind some logic, and an output that a parent may leave open."""

    def __init__(self, factor):
        self.factor = factor
        super().__init__({"a": In(6), "y": Out(6), "spare": Out(6)})

    def elaborate(self, platform):
        m = Module()
        held = Signal(6)
        m.d.sync += held.eq(self.a * self.factor + held)
        m.d.comb += [self.y.eq(held), self.spare.eq(held ^ self.a)]
        return m


class Outer(wiring.Component):
    """Several of them in a row, all but the last alike."""

    def __init__(self, *factors):
        self.factors = factors
        super().__init__({"a": In(6), "y": Out(6), "through": Out(6)})

    def elaborate(self, platform):
        m = Module()
        value = self.a
        for i, factor in enumerate(self.factors):
            m.submodules[f"inner{i}"] = inner = Inner(factor)
            m.d.comb += inner.a.eq(value)
            value = inner.y
        m.d.comb += [self.y.eq(value ^ self.a), self.through.eq(self.a)]
        return m


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """What Yosys is asked to do, with an empty cache and every module by itself."""
    monkeypatch.setenv("M2XFP_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(partition, "LARGEST", 1)
    scripts = []

    def run(script, **options):
        scripts.append(script)
        return there(script, **options)

    there = yosys.run
    monkeypatch.setattr(yosys, "run", run)
    return scripts


def twice(name, component, library, **options):
    text = verilog(component, name)
    return mapping.map_twice(name, text, partition.partition(text, name), (), library, **options)


def parts(scripts):
    return [script for script in scripts if "synth " in script]


@pytest.mark.long
def test_a_module_is_mapped_once(runs):
    library = find_library()
    twice("first", Outer(3, 3), library)
    assert len(parts(runs)) == 2
    del runs[:]
    # The same module with another name and number, beside a new one and under a new top.
    found = twice("second", Outer(5, 3), library)
    assert len(parts(runs)) == 2
    del runs[:]
    assert twice("second", Outer(5, 3), library) == found
    assert not parts(runs)


@pytest.mark.long
def test_damaged_and_foreign_entries(runs, tmp_path):
    library = find_library()
    found = twice("top", Outer(3), library)
    first, second = (tmp_path / "cache").glob("*/netlists.json")
    first.write_text(first.read_text().replace("_X1", "_X2"))
    second.with_name("sha256").unlink()
    del runs[:]
    assert twice("top", Outer(3), library) == found
    assert len(parts(runs)) == 2
    del runs[:]
    forgotten = set()
    assert twice("top", Outer(3), library, fresh=forgotten) == found
    assert len(parts(runs)) == len(forgotten) == 2
    assert twice("top", Outer(3), library, fresh=forgotten) == found
    assert len(parts(runs)) == 2


@pytest.mark.long
def test_linked_as_in_one_run(runs):
    """The netlist is that of one run over the whole design that keeps the modules apart."""
    library = find_library()
    text = verilog(Outer(3, 3, 5), "top")
    kept = partition.partition(text, "top")
    assert len(kept) == 2
    linked = mapping.map_twice("top", text, kept, (), library)
    for commands, module in zip((mapping.AREA, mapping.TIMING), linked, strict=True):
        _, files = yosys.run(
            mapping.BEGIN + mapping.common_script("top", kept, ()) + commands + mapping.FINISH
            + "write_json flat.json\n", outputs=["flat.json"],
            inputs={"start.il": mapping.START, "unit.v": text, "cells.lib": library.path,
                    "drive.txt": mapping._drive(library)})
        whole = json.loads(files["flat.json"])["modules"]["top"]
        assert types(whole) == types(module) and types(module)["DFF_X1"] == 18
        assert whole["ports"].keys() == module["ports"].keys()
        delays = [{kind: (path.delay_ns, path.startpoint, path.endpoint)
                   for kind, path in timing.analyse(netlist, library).items()}
                  for netlist in (whole, module)]
        assert delays[0] == delays[1] and len(delays[0]) == 4


def types(module):
    return Counter(cell["type"] for cell in module["cells"].values())


def _map(folder, queue):
    os.environ["M2XFP_CACHE_DIR"] = folder
    runs = []

    def run(script, **options):
        runs.append(script)
        return there(script, **options)

    there, yosys.run = yosys.run, run
    text = verilog(Inner(3), "top")
    found = mapping.map_twice("top", text, (), (), find_library())
    queue.put((len(parts(runs)), json.dumps(found)))


@pytest.mark.long
def test_two_processes_share_the_work(tmp_path):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    workers = [context.Process(target=_map, args=(str(tmp_path), queue)) for _ in range(2)]
    for worker in workers:
        worker.start()
    (first, one), (second, other) = (queue.get(timeout=120) for _ in workers)
    for worker in workers:
        worker.join()
    assert one == other and first + second == 1
