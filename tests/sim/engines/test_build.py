# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""Libraries are built once and kept; a build that fails is one line."""

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import sim
from sim.engines import build
from sim.engines.protocol import SimulationError
from tests.sim.engines.test_compiled import (  # fixtures among them
    ENGINES,
    Rebel,
    compiled_fast,
    needs_compiler,
    no_tools,
    run,
)
from tests.support.builds import PORTIONS

__all__ = ["compiled_fast", "no_tools"]


@needs_compiler
@pytest.mark.parametrize("engine", ENGINES)
def test_cache(engine, monkeypatch, request):
    inputs = {"i": np.arange(4)}
    run(Rebel(), inputs, engine=engine)
    request.getfixturevalue("no_tools")
    run(Rebel(), inputs, engine=engine)
    monkeypatch.setattr(build, "_FLAGS", [*build._FLAGS, "-DOTHER"])
    with pytest.raises(AssertionError, match="was called"):
        run(Rebel(), inputs, engine=engine)


def test_large_designs_are_divided(tmp_path):
    sizes = {"a": 400_000, "b": 200_000, "c": 100_000, "d": 50_000}
    for name, size in sizes.items():
        (tmp_path / name).write_bytes(bytes(size))
    units = PORTIONS(tmp_path, [*sizes])
    assert sorted(map(sorted, units)) == [["a"], ["b"], ["c", "d"]]
    assert PORTIONS(tmp_path, ["c"]) == [["c"]]


@needs_compiler
@pytest.mark.long
@pytest.mark.parametrize("engine", ENGINES)
def test_files_of_a_divided_design_fit_together(engine, tmp_path, monkeypatch):
    monkeypatch.setenv("M2XFP_CACHE_DIR", str(tmp_path))
    parts = []
    monkeypatch.setattr(build, "_portions", lambda folder, files: (
        parts.extend(files), [[file] for file in files])[1])
    run(Rebel(), {"i": np.arange(4)}, engine=engine)
    # CXXRTL makes one file of so small a design.
    assert len(parts) > (engine == "verilator")


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """Builds in an empty cache: what takes seconds to compile comes from the session's cache."""
    library, calls = build.library(Rebel(), "cxxrtl"), []

    def compile_(*arguments):
        calls.append(arguments)
        time.sleep(0.3)  # Another one has time to come.
        shutil.copy(library, arguments[-1] / library.name)

    monkeypatch.setattr(build, "_compile", compile_)
    monkeypatch.setenv("M2XFP_CACHE_DIR", str(tmp_path))
    return calls


@needs_compiler
def test_damaged_cache_entry_is_rebuilt(tmp_path, calls):
    inputs = {"i": np.arange(4)}
    for count in 1, 2:
        run(Rebel(), inputs, engine="cxxrtl")
        assert len(calls) == count
        # The old file stays as it is for whom has loaded it.
        path, = tmp_path.glob("*/unit.so")
        path.unlink()
        path.write_bytes(b"not a library")
    assert {path.name for path in tmp_path.iterdir()} == {path.parent.name, "locks"}


@needs_compiler
@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_nothing_is_loaded_from_a_folder_of_many(tmp_path, calls):
    inputs = {"i": np.arange(4)}
    run(Rebel(), inputs, engine="cxxrtl")
    assert len(calls) == 1
    tmp_path.chmod(0o777)
    with pytest.raises(SimulationError, match=r"others may write there \(mode 0777.*; "
                                               "M2XFP_CACHE_DIR sets another folder$"):
        run(Rebel(), inputs, engine="cxxrtl")


@needs_compiler
def test_what_is_being_built_is_waited_for(calls):
    components = Rebel(), Rebel()
    with ThreadPoolExecutor() as pool:
        assert len({*pool.map(lambda c: build.library(c, "cxxrtl"), components)}) == 1
    assert len(calls) == 1


def test_compiler(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: name if name == "clang++" else None)
    monkeypatch.setenv("CXX", "")
    assert build.compiler() == ["clang++"]
    monkeypatch.setenv("CXX", "none")
    assert build.compiler() == ["clang++"]
    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setenv("CXX", "ccache g++ -g")
    assert build.compiler() == ["ccache", "g++", "-g"]


@needs_compiler
def test_failed_build(monkeypatch):
    monkeypatch.setattr(build, "_FLAGS", [*build._FLAGS, "-fno-such-option"])
    with pytest.raises(sim.SimulationError, match=r"^\S+: .*error.*-fno-such-option.*$"):
        sim.run(Rebel(), {"i": np.arange(4)}, engine="cxxrtl")


def test_repeated_modules_share_code():
    def module(name, lines, *children):
        return "\n".join([f"module {name}(clk);", *["  wire x;"] * lines,
                          *[f"  {child} {child}{i} (" for i, child in enumerate(children)],
                          "endmodule\n"])

    leaf, tile = module("leaf", 600), module("tile", 300, *["leaf"] * 4)
    assert build._shared(leaf + tile + module("unit", 9, *["tile"] * 4)) == []
    assert build._shared(leaf + tile + module("unit", 9, *["tile"] * 32)) == ["tile"]
