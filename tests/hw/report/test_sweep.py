# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""Sweeps over units' parameters: what is measured, kept, printed and drawn."""

import csv
import dataclasses
import functools
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from amaranth import Module

from hw import registry, synth
from hw.flow import emitted, mapping, measurement
from hw.flow.liberty import find_library
from hw.report import pareto, sweep
from hw.report.sweep import Point
from hw.tools import cache, yosys
from tests.support.imports import ROOT, reached


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the command runs, with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("M2XFP_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


once = functools.cache(find_library)


@pytest.fixture
def measured(monkeypatch):
    """Points measured, which takes no time."""
    calls = []

    def measure(name, settings, library, flatten=False, inspect=None, fresh=None):
        calls.append((name, *settings))
        lanes = registry.parameters(name, settings).get("lanes", 1)
        return {**dict.fromkeys(sweep.FIGURES, 1), "hierarchical": False, "cells": len(calls),
                "area_um2": lanes, "area_timed_um2": 2 * lanes,
                "paths": {"in-out": {"delay_ns": 1 / lanes}}}

    monkeypatch.setattr(measurement, "measure", measure)
    monkeypatch.setattr(sweep, "_prepare", lambda: None)
    monkeypatch.setattr(sweep, "find_library", once)
    return calls


def rows(path="build/sweep.csv"):
    with open(path, newline="") as file:
        return [*csv.DictReader(file)]


def test_figures_and_second_run(folder, capsys, monkeypatch):
    arguments = ["top1", "--sweep", "lanes=4,2"]
    assert synth.main(arguments) == 0
    first = capsys.readouterr()
    assert "sweep: top1 lanes=" in first.err and "(2/2)" in first.err
    library = find_library()
    written = json.loads((folder / "build" / "sweep.json").read_text())
    assert list(written["units"]) == ["top1 lanes=4", "top1 lanes=2"]
    assert (written["failed"], written["library"]["sha256"]) == ({}, library.sha256)
    unit = written["units"]["top1 lanes=4"]
    assert unit["parameters"] == {"lanes": 4}
    four, two = rows()
    assert (four["unit"], four["lanes"], two["lanes"]) == ("top1", "4", "2")
    assert four["area_um2"] == str(unit["area_um2"])
    assert four["slowest_path_ns"] == str(unit["io_delay_ns"])
    assert (four["pareto"], two["pareto"], four["error"]) == ("", "", "")
    line = first.out.splitlines()[2].split()
    assert line == ["top1", "4", str(unit["cells"]), f"{unit['area_um2']:.0f}",
                    f"{unit['area_timed_um2']:.0f}", f"{unit['io_delay_ns']:.3f}",
                    f"{unit['fmax_io_mhz']:.0f}"]

    def refuse(*arguments, **options):
        raise AssertionError("Yosys was called")

    monkeypatch.setattr(yosys, "run", refuse)
    monkeypatch.setattr(yosys, "_start", refuse)
    text = (folder / "build" / "sweep.csv").read_text()
    assert synth.main([*arguments, "--csv", "again/points.csv"]) == 0
    assert capsys.readouterr().out == first.out
    assert (folder / "again" / "points.csv").read_text() == text
    assert not [*folder.glob("**/*.part")]


def test_combinations(folder, measured):
    assert synth.main(["pe_tile", "--set", "depth=2", "--sweep", "metadata=False,True"]) == 0
    assert sorted(measured) == [("pe_tile", "depth=2", "metadata=False"),
                                ("pe_tile", "depth=2", "metadata=True")]
    assert [(row["depth"], row["metadata"]) for row in rows()] == [("2", "False"), ("2", "True")]
    assert [point.label for point in sweep.points(
        ["group_accumulator", "pe_tile"], [], ["metadata=True,False"])] == [
        "group_accumulator metadata=True", "group_accumulator metadata=False",
        "pe_tile metadata=True", "pe_tile metadata=False"]
    assert len(sweep.points(["quantization_engine"], [], ["input=float32,bfloat16,float16",
                                                          "rule=floor,ceil"])) == 6


def test_only_what_is_new_is_measured(folder, measured):
    for values, new in (("2,4", 2), ("4,8", 1), ("8,2", 0)):
        del measured[:]
        assert synth.main(["top1", "--sweep", f"lanes={values}"]) == 0
        assert len(measured) == new
    assert synth.main(["top1", "--sweep", "lanes=8,2", "--fresh"]) == 0
    assert synth.main(["top1", "--sweep", "lanes=8,2", "--flatten"]) == 0
    assert len(measured) == 2
    assert synth.main(["top1", "--sweep", "lanes=8,2"]) == 0
    assert len(measured) == 2


def test_damaged_entry_is_measured_again(folder, measured):
    arguments = ["top1", "--sweep", "lanes=2,4"]
    assert synth.main(arguments) == 0
    before = rows()
    path, other = (folder / "cache").glob("*/figures.json")
    path.write_text(path.read_text()[:-20])
    other.unlink()
    del measured[:]
    assert synth.main(arguments) == 0
    assert len(measured) == 2 and len(rows()) == len(before)
    assert cache.intact(path) and cache.intact(other)


def test_what_figures_depend_on(folder, monkeypatch):
    library = find_library()
    point = Point("top1", ("lanes=2",))
    key = sweep.key_of(point, library, False)
    assert key == sweep.key_of(point, library, False)
    assert key != sweep.key_of(Point("top1", ("lanes=4",)), library, False)
    assert key != sweep.key_of(point, dataclasses.replace(library, sha256="0"), False)
    with monkeypatch.context() as patch:
        patch.setattr(mapping, "TIMING", mapping.TIMING.replace("100", "200"))
        assert key != sweep.key_of(point, library, False)
    assert key == sweep.key_of(point, library, True)
    with monkeypatch.context() as patch:
        patch.setitem(registry.UNITS, "top1", dataclasses.replace(
            registry.UNITS["top1"], hierarchical=True))
        assert key != sweep.key_of(point, library, False)
        assert key == sweep.key_of(point, library, True)
    # A component that does not come with the package counts by what it is made of.
    with monkeypatch.context() as patch:
        class Other(registry.Top1):
            pass

        patch.setitem(registry.UNITS, "top1", dataclasses.replace(
            registry.UNITS["top1"], component=Other))
        assert key == sweep.key_of(point, library, False)
        patch.setattr(Other, "elaborate", lambda self, platform: Module())
        assert key != sweep.key_of(point, library, False)


def test_every_source_counts():
    """A file that a figure is made with, wherever it is moved to, is part of the figure's key."""
    def hardware(start):
        return {path for path in reached(ROOT / start) if ROOT / "hw" in path.parents}

    components = hardware("hw/registry.py")
    flow = hardware("hw/flow/measurement.py") - components
    assert len(flow) >= 10 and flow <= set(sweep._tools())
    assert components <= {*emitted.files(*emitted.DESIGN), ROOT / "hw/__init__.py",
                          ROOT / "hw/registry.py"}
    # Power depends on the stimuli and on golden, too.
    assert len(sweep._activity()) >= len([path for path in ROOT.glob("golden/**/*.py")])
    with pytest.raises(yosys.ToolError, match="no source file matches hw/gone/"):
        emitted.files("hw/gone/*.py")


def test_one_bad_point(folder, capsys, monkeypatch, measured):
    measure = measurement.measure

    def failing(name, settings, library, flatten=False, inspect=None):
        if settings == ("lanes=4",):
            raise yosys.ToolError("top1: Yosys: ERROR: no\nmore")
        if settings == ("lanes=8",):
            raise KeyError("lost")
        return measure(name, settings, library, flatten)

    monkeypatch.setattr(measurement, "measure", failing)
    assert synth.main(["top1", "--sweep", "lanes=2,4,8"]) == 1
    out, err = capsys.readouterr()
    assert err.splitlines()[-1] == "error: 2 of 3 points failed"
    assert re.search(r"^top1 +4( +-){5}  top1: Yosys: ERROR: no$", out, re.M)
    assert re.search(r"^top1 +8( +-){5}  KeyError: 'lost'$", out, re.M)
    assert [row["error"] for row in rows()] == ["", "top1: Yosys: ERROR: no", "KeyError: 'lost'"]
    assert [row["area_um2"] for row in rows()] == ["2", "", ""]
    written = json.loads((folder / "build" / "sweep.json").read_text())
    assert list(written["failed"]) == ["top1 lanes=4", "top1 lanes=8"]
    # What failed is tried again, and nothing else.
    del measured[:]
    monkeypatch.setattr(measurement, "measure", measure)
    assert synth.main(["top1", "--sweep", "lanes=2,4,8"]) == 0
    assert len(measured) == 2


def test_all_points_fail(folder, capsys, monkeypatch):
    def failing(*arguments):
        raise yosys.ToolError("no")

    monkeypatch.setattr(measurement, "measure", failing)
    monkeypatch.setattr(sweep, "_prepare", lambda: None)
    assert synth.main(["top1_decode", "--set", "x=1", "--sweep", "y=1"]) == 2
    assert "Parameter of top1_decode must be one of: none, not 'x'" in capsys.readouterr().err
    assert synth.main(["top1", "--sweep", "lanes=4", "--plot", "a.png"]) == 1
    assert capsys.readouterr().err.endswith("error: 1 of 1 points failed\n")
    assert not (folder / "a.png").exists()


def test_interrupted(folder, capsys, monkeypatch, measured):
    """What is done is kept, and Yosys is ended, not waited for."""
    measure = measurement.measure
    sleeping = []

    def slow(name, settings, library, flatten=False, inspect=None):
        if settings == ("lanes=2",):
            return measure(name, settings, library, flatten)
        while not sleeping:
            time.sleep(0.01)
        raise yosys.ToolError("ended")

    def interrupt(jobs):
        done = next(job for job, point in jobs.items() if point.settings == ("lanes=2",))
        done.result()
        yield done
        raise KeyboardInterrupt

    monkeypatch.setattr(measurement, "measure", slow)
    monkeypatch.setattr(sweep, "as_completed", interrupt)
    monkeypatch.setattr(yosys, "stop", lambda: sleeping.append(True))
    arguments = ["top1", "--sweep", "lanes=2,4,8"]
    assert synth.main(arguments) == 130
    out, err = capsys.readouterr()
    assert (out, err.splitlines()[1:]) == ("", [
        "interrupted: 1 of 3 points are done and kept; the same command goes on from there"])
    assert not (folder / "build" / "sweep.csv").exists()
    assert len([*(folder / "cache").glob("*/figures.json")]) == 1


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_signal(folder):
    """Yosys, which would take longer, ends with the command."""
    root = ROOT
    process = subprocess.Popen(
        [sys.executable, "-c", "import signal, sys, hw.synth, hw.tools.yosys\n"
         # Whoever runs the tests may ignore it.
         "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
         "def started(*arguments, **options):\n"
         "    process = start(*arguments, **options)\n"
         "    print('started', process.pid, flush=True)\n"
         "    return process\n"
         "start, hw.tools.yosys._start = hw.tools.yosys._start, started\n"
         "hw.tools.yosys.prepare = lambda: None\n"
         "sys.exit(hw.synth.main(['pe_tile', '--sweep', 'depth=0']))"],
        env={**os.environ, "PYTHONPATH": str(root)}, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE)
    pid = int(process.stdout.readline().split()[1])
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.count("\n")) == (130, 1)
    assert err.startswith("interrupted: 0 of 1 points")
    assert time.monotonic() - begin < 20
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


FILES = "Library", "cannot write"


@pytest.mark.parametrize("arguments, message", [
    (["--sweep", "lanes=4"], "--sweep needs a unit, one or more of top1, "),
    (["top1", "--sweep", "lanes"], "--sweep must be of the form parameter=value,value, not 'lan"),
    (["top1", "--sweep", "lanes=4,3"], "top1: Lane count must be a power of two of at least 2, no"),
    (["top1", "--sweep", "lanes=4,4"], "--sweep must give each value once, not 'lanes=4,4'"),
    (["top1", "top1", "--sweep", "lanes=4"], "Each unit must be given once, not 'top1' again"),
    (["top1", "--sweep", "lanes="], "top1's lanes must be one of 8, 2, 4, 16, 32, not ''"),
    (["top1", "--sweep", "lanes=4", "lanes=8"], "--sweep must give a new parameter, not 'lanes'"),
    (["top1", "--set", "lanes=4", "--sweep", "lanes=8"], "must give a new parameter, not 'lanes'"),
    (["top1", "--set", "lanes", "--sweep", "lanes=8"], "--set must be of the form parameter=v"),
    (["pe_tile", "--sweep", "subgroup=4"],
     "Parameter of pe_tile must be one of: depth, metadata, not 'subgroup'"),
    (["top1", "decoder", "--sweep", "lanes=4"], "Parameter of decoder must be one of: kind, not"),
    (["no_such", "--sweep", "lanes=4"], "Unit must be one of top1, "),
    (["top1", "--csv", "a.csv"], "--csv needs --sweep"),
    (["top1", "--plot", "a.png"], "--plot needs --sweep or --compare silicon"),
    (["--compare", "formats", "--scheduler", "tcp://host:1"], "--scheduler needs --sweep"),
    (["--compare", "formats", "--sweep", "lanes=4"], "leave out --sweep lanes=4"),
    (["top1", "--sweep", "lanes=4", "--power"], "--sweep does not estimate power; leave out --po"),
    (["top1", "--sweep", "lanes=4", "--amap"], "--sweep maps as Yosys does; leave out --amap"),
    (["top1", "--sweep", "lanes=4", "--plot", "a.pdf"], "--plot must end in .png or .svg, not a."),
    (["top1", "--sweep", "lanes=4", "--plot", "no/a.png"], "a folder that exists, not no"),
    (["top1", "--sweep", "lanes=4", "--library", "no.lib"], "Library no.lib: No such file"),
    (["top1", "--sweep", "lanes=4", "--csv", "file/a.csv"], "cannot write --csv file/a.csv: "),
    (["top1", "--sweep", "lanes=4", "--json", "file/a.json"], "cannot write --json file/a.json: "),
])
def test_errors_are_one_line(arguments, message, folder, capsys, measured):
    (folder / "file").touch()
    # A file that cannot be read or written is a failure, all else is wrong use.
    assert synth.main(arguments) == (1 if message.startswith(FILES) else 2)
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), measured) == ("", 1, [])
    assert message in err


@pytest.mark.parametrize("option", ["--csv", "--json", "--plot"])
def test_outputs_are_tried_first(option, folder, capsys, measured):
    (folder / "a.png").mkdir()
    assert synth.main(["top1", "--sweep", "lanes=4", option, "a.png"]) == 2
    assert capsys.readouterr() == (
        "", f"error: {option} must be a regular file, not the folder a.png\n")
    assert measured == []


@pytest.mark.parametrize("lost", ["sweep.csv", "sweep.json"])
def test_table_is_printed_whatever_happens_to_a_file(lost, folder, capsys, monkeypatch, measured):
    written = []

    def write(path, text):
        if path.name == lost:
            raise OSError(28, "No space left on device")
        written.append(path.name)

    monkeypatch.setattr(sweep, "write", write)
    assert synth.main(["top1", "--sweep", "lanes=4"]) == 1
    out, err = capsys.readouterr()
    assert out.startswith("unit") and "\ntop1" in out
    assert re.search(f"^error: cannot write --(csv|json) build/{lost}: No space left on device$",
                     err, re.M)
    assert written == [name for name in ("sweep.csv", "sweep.json") if name != lost]


def test_table_is_printed_although_the_cache_is_full(folder, capsys, monkeypatch, measured):
    keep = cache.publish

    def publish(path, build):
        if path.name in ("unit.v", "figures.json"):
            raise OSError(28, "No space left on device")
        keep(path, build)

    monkeypatch.setattr(cache, "publish", publish)
    assert synth.main(["top1", "--sweep", "lanes=4"]) == 0
    out, err = capsys.readouterr()
    assert "\ntop1" in out and len(rows()) == 1
    assert err.count("warning: ") == 1
    assert (f"warning: results are not kept: {folder / 'cache'} cannot be written: No space left "
            "on device\n") in err


def test_cache_that_cannot_be_written(folder, capsys, measured, monkeypatch):
    (folder / "file").touch()
    monkeypatch.setenv("M2XFP_CACHE_DIR", str(folder / "file" / "cache"))
    assert synth.main(["top1", "--sweep", "lanes=4"]) == 1
    assert re.fullmatch("error: cannot keep points in .*file.cache; M2XFP_CACHE_DIR sets another "
                        "folder: .*\n", capsys.readouterr().err)


def test_front():
    points = [(1, 9), (2, 5), (2, 6), (3, 5), (4, 1), (4, 1), (5, 1), (0.5, 10)]
    assert pareto.front(points) == [True, True, False, False, True, True, False, True]
    assert pareto.front([(1, 1)]) == [True]
    assert pareto.front([]) == []


def test_points_of_other_jobs_are_no_rivals(folder, measured, capsys):
    """`measured` gives the more lanes the less delay and the more area, and one size otherwise."""
    assert synth.main(["top1", "--sweep", "lanes=4,8"]) == 0
    assert [row["pareto"] for row in rows()] == ["", ""]
    assert "  front" not in capsys.readouterr().out.partition("\n\n")[0]

    def result(delay, area):
        return {"paths": {"in-out": {"delay_ns": delay}} if delay else {}, "area_timed_um2": area}

    tile = {"0": result(2, 10), "1": result(1, 12), "2": result(1, 13)}
    results = {Point("pe_tile", (f"depth={depth}",)): figures for depth, figures in tile.items()}
    # Smaller and faster than all of them; but it does less.
    results[Point("pe_tile", ("depth=2", "metadata=False"))] = result(0.5, 1)
    results[Point("group_accumulator", ())] = result(9, 99)
    results[Point("sg_pe_tile", ("depth=0",))] = result(None, 0)
    results[Point("sg_pe_tile", ("depth=1",))] = result(9, 99)
    assert sweep.fronts(results) == {Point("pe_tile", ("depth=0",)), Point("pe_tile", ("depth=1",))}


def test_parameters_of_one_job():
    for unit in registry.UNITS.values():
        assert unit.same_job & unit.parameters.keys() <= {"depth"}
    assert "depth" in registry.UNITS["pe_tile"].same_job


def test_plot(folder, capsys):
    pytest.importorskip("matplotlib")
    results = {point: {"paths": {"in-out": {"delay_ns": 3 - number % 3}},
                       "area_timed_um2": 10 + (number % 3 - 1) ** 2}
               for number, point in enumerate(sweep.points(
                   ["pe_tile"], [], ["metadata=True,False", "depth=0,1,2"]))}
    sweep._draw(folder / "a.svg", results, once())
    assert capsys.readouterr().out == f"Plot in {folder / 'a.svg'}.\n"
    content = (folder / "a.svg").read_text()
    assert all(f"<!-- {text} -->" in content for text in (
        "depth=0", "depth=2", "pe_tile metadata=True: Pareto front",
        "pe_tile metadata=False: Pareto front", "other points"))


def test_plot_of_points_that_do_not_compete(folder):
    pytest.importorskip("matplotlib")
    results = {Point("top1", (f"lanes={lanes}",)): {
        "paths": {"in-out": {"delay_ns": 1 / lanes}}, "area_timed_um2": lanes}
        for lanes in (2, 4, 32)}
    sweep._draw(folder / "a.svg", results, once())
    content = (folder / "a.svg").read_text()
    assert all(f"<!-- {text} -->" in content for text in (
        "lanes=2", "lanes=32", "top1 lanes=32"))
    assert "Pareto front" not in content and "other points" not in content


def test_plot_of_several_units(tmp_path):
    pytest.importorskip("matplotlib")
    pareto.draw(tmp_path / "a.png", {"x": [("one", 1, 1), ("two", 1, 1)], "y": [("", 2, 20)]},
                title="Title")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_plot_needs_matplotlib(folder, measured, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert synth.main(["top1", "--sweep", "lanes=4", "--plot", "a.png"]) == 2
    assert capsys.readouterr().err == ("error: --plot needs matplotlib: pip install "
                                       "'m2xfp-rtl[plot]'\n")
    assert measured == []


def test_labels_of_points():
    group = [Point("pe_tile", (f"depth={depth}", f"metadata={metadata}", "input=float32"))
             for depth in (0, 1) for metadata in (True, False)]
    assert sweep._short(group[1], group) == "depth=0, metadata=False"
    group = [Point("x", ("rule=floor", "n=1")), Point("x", ("rule=ceil", "n=1"))]
    assert sweep._short(group[1], group) == "ceil"
    assert sweep._short(group[1], group[1:]) == ""


def test_needs_distributed(folder, measured, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert synth.main(["top1", "--sweep", "lanes=2", "--scheduler", "tcp://host:1"]) == 2
    assert capsys.readouterr().err == ("error: --scheduler needs distributed: pip install "
                                       "'m2xfp-rtl[cluster]'\n")
