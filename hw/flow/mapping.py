# SPDX-License-Identifier: BSD-2-Clause
"""Maps units onto a cell library with Yosys, for area and for delay."""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from amaranth.lib import wiring

from ..tools import cache, yosys
from ..tools.yosys import ToolError
from ..verilog.emit import hierarchy, verilog, without_comments
from . import mapped_library, timing
from .liberty import Library
from .partition import partition

# Yosys numbers objects without a name and sorts netlists by name. From this number on all numbers
# have equally many digits, so that the order does not depend on the commands before.
START = "autoidx 1000000\n"
BEGIN = "# start.il: autoidx 1000000\nread_rtlil start.il\n"

# The flow measures the Verilog that users get. `proc` comes before all else: `opt` before it
# would delete logic.
COMMON = """\
read_verilog unit.v
{blackboxes}{kept}proc
synth -flatten -top {top}
dfflibmap -liberty cells.lib
opt
delete t:$scopeinfo
"""

# With several modules, ABC runs on one after the other.
AREA = """\
abc -liberty cells.lib
"""

# Yosys' default script, with the mapper amap instead of &nf.
AMAP = """\
abc -liberty cells.lib -script +strash;&get,-n;&fraig,-x;&put;scorr;dc2;dretime;strash;&get,-n;\
&dch,-f;&put;amap,-m
"""

# Only with a driver and a load does ABC buffer and size; 100 ps is less than any unit takes.
TIMING = """\
abc -liberty cells.lib -constr drive.txt -D 100
"""

# Changes nothing in a flat netlist.
FINISH = """\
setattr -mod -unset keep_hierarchy *
flatten
delete t:$scopeinfo
opt_clean
"""

DRIVE = "set_driving_cell {driver}\nset_load {load}\n"


def netlists(name: str, component: wiring.Component, library: Library, *,
             hierarchical: bool = False) -> tuple[dict[str, Any], dict[str, Any]]:
    """Maps a component as `map_twice` maps its Verilog.

    Parameters
    ----------
    name : str
        Of the top module.
    component : Component
    library : Library
    hierarchical : bool
        Whether the modules that `hw.flow.partition.partition` chooses are mapped by themselves.

    Returns
    -------
    area, timed : dict
        As `map_twice` returns them, with the pins of the memories as ports.

    Raises
    ------
    ToolError
        If Yosys fails or a module holds logic beside a memory.
    """
    text = verilog(component, name)
    sizes = memory_sizes(text, name)
    modules = map_twice(name, text, partition(text, name) if hierarchical else (), sizes, library)
    for module in modules:
        open_memories(module, sizes)
    return modules


def map_twice(name: str, text: str, kept: Collection[str], memories: Collection[str],
              library: Library, *, amap: bool = False, fresh: set[Path] | None = None,
              ) -> tuple[dict[str, Any], dict[str, Any]]:
    """Maps Verilog for area and for delay.

    Every kept module and the top are mapped each in a run of Yosys of their own, with the kept
    modules below them as black boxes. The netlist of a run depends only on its module, so it is
    kept in the user's cache: a module that several units share is mapped once.

    Parameters
    ----------
    name : str
        Of the top module.
    text : str
        Verilog as `hw.verilog.emit.verilog` emits it.
    kept, memories : collection of str
        As in `common_script`.
    library : Library
    amap : bool
        Whether ABC's ``amap`` maps for area, which gives smaller areas than the mapper that Yosys
        runs.
    fresh : set of Path, optional
        As in `hw.tools.cache.forget`.

    Returns
    -------
    area, timed : dict
        Modules of Yosys' ``write_json``, flat.

    Raises
    ------
    ToolError
        If Yosys fails.
    """
    alone = [module for module in kept if module not in memories]
    area, timed = GOALS
    parts = [Part.of(text, module, {*alone, *memories}) for module in (name, *alone)]
    if not alone:
        files = parts[0].mapped(library, amap, fresh=fresh)
        return parts[0].netlist(files[f"{area}.json"]), parts[0].netlist(files[f"{timed}.json"])
    with ThreadPoolExecutor(len(parts)) as pool:
        jobs = [pool.submit(part.mapped, library, amap, fresh=fresh, urgent=True) for part in parts]
        mapped = [job.result() for job in jobs]
        stubs = "".join(stub(text, memory) for memory in memories)
        linked = [pool.submit(_link, name, goal, parts, mapped, stubs) for goal in GOALS]
        return linked[0].result(), linked[1].result()


GOALS = "area", "timed"


def _link(name, goal, parts, mapped, stubs):
    """Links the netlists of a unit's parts into the flat netlist of the unit."""
    inputs = {f"part{i}.il": part.named(files[f"{goal}.il"])
              for i, (part, files) in enumerate(zip(parts, mapped, strict=True))}
    _, files = yosys.run(link_script(name, len(parts)), inputs={**inputs, "memories.v": stubs},
                         outputs=["flat.json"], urgent=True)
    return json.loads(files["flat.json"])["modules"][name]


@dataclass(frozen=True)
class Part:
    """A module that is mapped in a run of Yosys of its own.

    Attributes
    ----------
    text : str
        Verilog of the module and of all modules that are flattened into it; black boxes are
        modules without contents. The modules are numbered from the part's own on in the order in
        which they appear, so that equal parts of different units have equal texts.
    names : tuple of str
        The modules' names in the unit, by number.
    boxes : tuple of int
        Numbers of the black boxes.
    """

    text: str
    names: tuple[str, ...]
    boxes: tuple[int, ...]

    @classmethod
    def of(cls, text: str, module: str, closed: Collection[str]) -> "Part":
        """Takes a part out of a unit's Verilog.

        Parameters
        ----------
        text : str
            Verilog of the unit.
        module : str
            The module that the part begins at.
        closed : collection of str
            Modules that are black boxes where the part holds them.

        Returns
        -------
        Part
        """
        bodies, children = hierarchy(text)
        names = {module: None}
        for name in (queue := [module]):
            if name == module or name not in closed:
                found = [child for child in children[name] if child not in names]
                names |= dict.fromkeys(found)
                queue += dict.fromkeys(found)
        numbers = {name: f"part{i}" for i, name in enumerate(names)}

        def number(match):
            return f"{match[1]}{numbers.get(match[2], match[2])}{match[3]}"

        boxes = tuple(i for i, name in enumerate(names) if i and name in closed)
        texts = [stub(text, name) if i in boxes else "module " + bodies[name]
                 for i, name in enumerate(names)]
        plain = "".join(f"{without_comments(body).rstrip()}\n" for body in texts)
        plain = re.sub(r"^(module )(\w+)( \()", number, plain, flags=re.M)
        plain = re.sub(r"^(  )(\w+)( \S+ +\($)", number, plain, flags=re.M)
        return cls(plain, tuple(names), boxes)

    def mapped(self, library: Library, amap: bool = False, *, fresh: set[Path] | None = None,
               urgent: bool = False) -> dict[str, str]:
        """Maps the part unless the cache has its netlists.

        Parameters
        ----------
        library, amap, fresh
            As in `map_twice`.
        urgent : bool
            As in `hw.tools.yosys.run`.

        Returns
        -------
        dict of str to str
            By file name, ``area`` and ``timed`` each as RTLIL (``.il``) and as JSON (``.json``).

        Raises
        ------
        ToolError
            If Yosys fails or the cache cannot be written.
        """
        commands = script("part0", (), [f"part{i}" for i in self.boxes], amap=amap)
        inputs = {"start.il": START, "unit.v": self.text, "drive.txt": _drive(library)}
        cells = mapped_library.text(library)
        path = cache.folder() / cache.digest(
            "part", commands, *inputs.values(), cells, yosys.version(),
            metadata.version("yowasp-runtime"), Path(__file__).read_text(encoding="utf-8"),
        ) / "netlists.json"

        def build(folder):
            names = [f"{goal}.{kind}" for goal in GOALS for kind in ("il", "json")]
            _, files = yosys.run(commands, outputs=names, urgent=urgent,
                                 inputs={**inputs, "cells.lib": cells})
            for goal in GOALS:
                files[f"{goal}.il"] = _only(files[f"{goal}.il"])
                files[f"{goal}.json"] = json.dumps(
                    json.loads(files[f"{goal}.json"])["modules"]["part0"])
            (folder / path.name).write_text(json.dumps(files), encoding="utf-8")

        cache.forget(path, fresh)
        while (text := cache.read(path)) is None:
            try:
                cache.publish(path, build)
            except OSError as error:
                raise ToolError(f"cannot keep netlists in {cache.folder()}: {error.strerror}; "
                                "M2XFP_CACHE_DIR sets another folder") from None
        return json.loads(text)

    def netlist(self, text: str) -> dict[str, Any]:
        """Reads a netlist of the part from JSON, with the names that black boxes have in the unit.

        Parameters
        ----------
        text : str
            A module of Yosys' ``write_json``.

        Returns
        -------
        dict
        """
        module = json.loads(text)
        numbered = {f"part{i}": self.names[i] for i in self.boxes}
        for cell in module["cells"].values():
            cell["type"] = numbered.get(cell["type"], cell["type"])
        return module

    def named(self, text: str) -> str:
        """Gives the modules in RTLIL of the part the names that they have in the unit."""
        return re.sub(r"^(module|  cell) \\part(\d+)\b",
                      lambda match: f"{match[1]} \\{self.names[int(match[2])]}", text, flags=re.M)


def _only(text):
    """Drops the black boxes from RTLIL of a part."""
    start = text.index("\nmodule \\part0\n")
    return text[start:text.index("\nend\n", start) + 5]


def stub(text: str, name: str) -> str:
    """Returns Verilog of a module that has the ports of a module of `text` and no contents."""
    body = without_comments(hierarchy(text)[0][name])
    return f"module {body.partition(');')[0]});\nendmodule\n"


def script(name: str, kept: Collection[str], memories: Collection[str], *,
           amap: bool = False) -> str:
    """Returns all commands that Yosys runs for a unit.

    If modules are kept, the same commands run for each of them and for the top, and the results
    are linked at the end.

    Parameters
    ----------
    name, kept, memories, amap
        As in `map_twice`.

    Returns
    -------
    str
    """
    text = (BEGIN + common_script(name, (), memories) + "design -save common\n"
            + (AMAP if amap else AREA) + FINISH + "write_rtlil area.il\nwrite_json area.json\n"
            "design -load common\n" + TIMING + FINISH
            + "write_rtlil timed.il\nwrite_json timed.json\n")
    kept = [module for module in kept if module not in memories]
    if not kept:
        return text
    return (f"# Each in a run of its own, with the others as black boxes: {' '.join(kept)} {name}\n"
            f"{text}# Then together, for area and for delay:\n{link_script(name, 1 + len(kept))}")


def link_script(name: str, parts: int) -> str:
    """Returns the commands that link the netlists of a unit's parts into one.

    Parameters
    ----------
    name : str
        Of the top module.
    parts : int
        Number of parts.

    Returns
    -------
    str
    """
    return ("".join(f"read_rtlil part{i}.il\n" for i in range(parts))
            + f"read_verilog memories.v\nhierarchy -top {name}\n" + FINISH
            + "write_json flat.json\n")


def common_script(name: str, kept: Iterable[str], memories: Iterable[str]) -> str:
    """Returns the commands that run before any mapping.

    Parameters
    ----------
    name : str
        Of the top module.
    kept : collection of str
        Modules that are mapped by themselves; all others are flattened into those that hold them.
    memories : collection of str
        Modules that hold memories. They stay black boxes.

    Returns
    -------
    str
    """
    return COMMON.format(
        top=name, blackboxes="".join(f"blackbox {kind}\n" for kind in memories),
        kept="".join(f"setattr -mod -set keep_hierarchy 1 {kind}\n" for kind in kept))


def scripts(library: Library, *, amap: bool = False) -> dict[str, str]:
    """Returns the scripts that all units have in common.

    Parameters
    ----------
    library : Library
    amap : bool
        As in `map_twice`.

    Returns
    -------
    dict of str to str
        ``area`` and ``timing``, with placeholders for a unit's name and options, and
        ``drive.txt``, the constraints of ABC.
    """
    return {"area": BEGIN + COMMON + (AMAP if amap else AREA) + FINISH,
            "timing": BEGIN + COMMON + TIMING + FINISH, "drive.txt": _drive(library)}


def _drive(library):
    """Constraints of ABC: the driver and the load that it sizes for."""
    return DRIVE.format(driver=library.driver, load=timing.OUTPUT_LOAD)


def memory_sizes(text: str, name: str) -> dict[str, int]:
    """Finds the modules that hold a memory.

    Parameters
    ----------
    text : str
        Verilog as `hw.verilog.emit.verilog` emits it.
    name : str
        Of the top module.

    Returns
    -------
    dict of str to int
        Bits of memory by module.

    Raises
    ------
    ToolError
        If such a module is the top or holds logic beside its memory.
    """
    sizes = {}
    for module in re.split(r"^(?=module )", without_comments(text), flags=re.M)[1:]:
        found = re.findall(r"^  reg \[(\d+):0\] \w+ \[0:(\d+)\];$", module, flags=re.M)
        if not found:
            continue
        kind = re.findall(r"^module (\w+)", module)[0]
        # The rest, without declarations, renames and the two clocked blocks, is logic.
        rest = re.sub(_MEMORY_ALONE, "", module, flags=re.M | re.X)
        if kind == name or re.search(r"\w", rest):
            raise ToolError(f"{kind} holds a memory, which must be in a module of its own "
                            "below the top")
        sizes[kind] = sum((int(high) + 1) * (int(last) + 1) for high, last in found)
    return sizes


_MEMORY_ALONE = r"""
    ^ (?: module [ ] \w+ [ ] \( | \); | endmodule | [ ]+end | \s+ wire[ ]unused [ ] .*
    | [ ]+ (?: input | output | wire | reg ) [ ] [^=]*? [,;]?
    | [ ]+ assign [ ] \w+ [ ] = [ ] \w+;
    | [ ]+ always [ ] @\(posedge[ ]clk\) [ ] begin
    | [ ]+ (?: if [ ] \(\w+\) [ ] )? \w+ \[\w+\] [ ] <= [ ] \w+;
    | [ ]+ (?: if [ ] \(\w+\) [ ] )? \w+ [ ] <= [ ] \w+ \[\w+\];
    ) $
"""


def open_memories(module: dict[str, Any], memories: Collection[str]) -> Counter[str]:
    """Replaces the memories of a flat netlist by ports, in place.

    A memory's clock and reset do not become ports.

    Parameters
    ----------
    module : dict
        As `map_twice` returns it.
    memories : collection of str
        Modules that hold memories.

    Returns
    -------
    Counter of str
        Number of memories by module.
    """
    found: Counter[str] = Counter()
    for name, cell in [*module["cells"].items()]:
        if cell["type"] not in memories:
            continue
        found[cell["type"]] += 1
        del module["cells"][name]
        for pin, bits in cell["connections"].items():
            if pin not in ("clk", "rst"):
                given = cell["port_directions"][pin] == "output"
                port = {"direction": "input" if given else "output", "bits": bits}
                module["ports"][f"{name}.{pin}"] = port
                module["netnames"][f"{name}.{pin}"] = {"hide_name": 0, "bits": bits,
                                                       "attributes": {}}
    return found


def count_cells(module: Mapping[str, Any], library: Library,
                ) -> tuple[Counter[str], float, float, int]:
    """Counts the cells of a flat netlist.

    Parameters
    ----------
    module : dict
        As `map_twice` returns it, without memories.
    library : Library

    Returns
    -------
    cells : Counter of str
        By type.
    area, sequential : float
        Of all cells and of the flip-flops, um2.
    registers : int
        Number of flip-flops.

    Raises
    ------
    ToolError
        If a cell is a latch or is not in the library.
    """
    cells = Counter(cell["type"] for cell in module["cells"].values())
    for kind in cells:
        if kind not in library.cells:
            raise ToolError(f"Yosys left {kind}, which is not a cell of {library.name}")
        if library.cells[kind].unused and not library.cells[kind].arcs:
            raise ToolError(f"the unit has {kind}, {library.cells[kind].unused}")
    area = {kind: number * library.cells[kind].area for kind, number in cells.items()}
    registers = [kind for kind in cells if library.cells[kind].flip_flop]
    return (cells, sum(area.values()), sum(area[kind] for kind in registers),
            sum(cells[kind] for kind in registers))
