# SPDX-License-Identifier: BSD-2-Clause
"""Maps units onto a cell library with Yosys, for area and for delay."""

import json
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from ..tools import cache, yosys
from ..tools.yosys import ToolError
from ..verilog.emit import hierarchy, verilog
from . import timing
from .partition import partition

# Yosys numbers what has no name and sorts netlists by name. All numbers have equally many digits
# from here on, so that the order does not depend on what a run did before.
START = "autoidx 1000000\n"
BEGIN = "# start.il: autoidx 1000000\nread_rtlil start.il\n"

# What is measured is the Verilog that is delivered. `proc` comes before all else: `opt` before it
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

# What Yosys' default script does, with another mapper in the place of &nf.
AMAP = """\
abc -liberty cells.lib -script +strash;&get,-n;&fraig,-x;&put;scorr;dc2;dretime;strash;&get,-n;\
&dch,-f;&put;amap,-m
"""

# Only with a driver and a load does ABC buffer and size; 100 ps is less than any unit takes.
TIMING = """\
abc -liberty cells.lib -constr drive.txt -D 100
"""

# Changes nothing in what is flat already.
FINISH = """\
setattr -mod -unset keep_hierarchy *
flatten
delete t:$scopeinfo
opt_clean
"""

DRIVE = "set_driving_cell {driver}\nset_load {load}\n"


def netlists(name, component, library, *, hierarchical=False):
    """Maps a component as `map_twice` does its Verilog; the memories' pins are ports then."""
    text = verilog(component, name)
    sizes = memory_sizes(text, name)
    modules = map_twice(name, text, partition(text, name) if hierarchical else (), sizes, library)
    for module in modules:
        open_memories(module, sizes)
    return modules


def map_twice(name, text, kept, memories, library, *, amap=False, fresh=None):
    """Maps Verilog for area and for delay.

    Every module that is kept, and the top, is mapped in a run of its own, with those it holds as
    black boxes. What a run gives depends on nothing but its module, so it is kept in the user's
    cache: a module that stands in several units is mapped once.

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
        Whether area is that of ABC's ``amap``, which takes less of it than what Yosys runs.
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
    parts = [Part.of(text, module, {*alone, *memories}) for module in (name, *alone)]
    if not alone:
        mapped = parts[0].mapped(library, amap, fresh=fresh)
        return tuple(json.loads(mapped[f"{goal}.json"]) for goal in GOALS)
    with ThreadPoolExecutor(len(parts)) as pool:
        jobs = [pool.submit(part.mapped, library, amap, fresh=fresh, urgent=True) for part in parts]
        mapped = [job.result() for job in jobs]
        stubs = "".join(stub(text, memory) for memory in memories)
        return tuple(pool.map(lambda goal: _link(name, goal, parts, mapped, stubs), GOALS))


GOALS = "area", "timed"


def _link(name, goal, parts, mapped, stubs):
    """The flat netlist of a unit from those of its parts."""
    inputs = {f"part{i}.il": part.named(files[f"{goal}.il"])
              for i, (part, files) in enumerate(zip(parts, mapped, strict=True))}
    _, files = yosys.run(link_script(name, len(parts)), inputs={**inputs, "memories.v": stubs},
                         outputs=["flat.json"], urgent=True)
    return json.loads(files["flat.json"])["modules"][name]


@dataclass(frozen=True)
class Part:
    """A module that is mapped in a run of its own.

    Attributes
    ----------
    text : str
        Verilog of the module and all that becomes part of it, black boxes as modules without
        contents. Modules are numbered as they are met, the part's own first, so that equal parts
        of different units have equal texts.
    names : tuple of str
        The modules' names in the unit, by number.
    boxes : tuple of int
        Numbers of those that are black boxes.
    """

    text: str
    names: tuple
    boxes: tuple

    @classmethod
    def of(cls, text, module, closed):
        """The part that begins at a module and ends at those that are closed."""
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
        plain = re.sub(r"^`line .*\n", "", "".join(texts), flags=re.M)
        plain = re.sub(r"^(module )(\w+)(\()", number, plain, flags=re.M)
        plain = re.sub(r"^(  )(\w+)( \S+ +\($)", number, plain, flags=re.M)
        return cls(plain, tuple(names), boxes)

    def mapped(self, library, amap=False, *, fresh=None, urgent=False):
        """Netlists by file name, as RTLIL and as JSON, from the cache or mapped now."""
        commands = script("part0", (), [f"part{i}" for i in self.boxes], amap=amap)
        inputs = {"start.il": START, "unit.v": self.text, "drive.txt": _drive(library)}
        path = cache.folder() / cache.digest(
            "part", commands, *inputs.values(), library.sha256, yosys.version(),
            metadata.version("yowasp-runtime"), Path(__file__).read_text(encoding="utf-8"),
        ) / "netlists.json"

        def build(folder):
            names = [f"{goal}.{kind}" for goal in GOALS for kind in ("il", "json")]
            _, files = yosys.run(commands, inputs={**inputs, "cells.lib": library.path},
                                 outputs=names, urgent=urgent)
            for goal in GOALS:
                files[f"{goal}.il"] = _only(files[f"{goal}.il"])
                files[f"{goal}.json"] = json.dumps(
                    json.loads(files[f"{goal}.json"])["modules"]["part0"])
            (folder / path.name).write_text(json.dumps(files), encoding="utf-8")

        cache.forget(path, fresh)
        if (text := cache.read(path)) is None:
            try:
                cache.publish(path, build)
                text = path.read_text(encoding="utf-8")
            except OSError as error:
                raise ToolError(f"cannot keep netlists in {cache.folder()}: {error.strerror}; "
                                "M2XFP_CACHE_DIR sets another folder") from None
        return json.loads(text)

    def named(self, text):
        """RTLIL of the part with the names of the unit's modules."""
        return re.sub(r"^(module|  cell) \\part(\d+)\b",
                      lambda match: f"{match[1]} \\{self.names[int(match[2])]}", text, flags=re.M)


def _only(text):
    """RTLIL of the part alone, without its black boxes."""
    start = text.index("\nmodule \\part0\n")
    return text[start:text.index("\nend\n", start) + 5]


def stub(text, name):
    """Verilog of a module's ports alone."""
    body = hierarchy(text)[0][name]
    ports = re.findall(r"^  (?:input|output) .*;$", body, re.M)
    return "module " + "\n".join([body.partition(";")[0] + ";", *ports, "endmodule", ""])


def script(name, kept, memories, *, amap=False):
    """All that Yosys does for a unit; parameters as in `map_twice`.

    Of a unit with modules that are kept, the commands for each of them are alike, and all are
    linked at the end.
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


def link_script(name, parts):
    """How the netlists of a unit's parts become one."""
    return ("".join(f"read_rtlil part{i}.il\n" for i in range(parts))
            + f"read_verilog memories.v\nhierarchy -top {name}\n" + FINISH
            + "write_json flat.json\n")


def common_script(name, kept, memories):
    """What comes before any mapping.

    Parameters
    ----------
    name : str
        Of the top module.
    kept : collection of str
        Modules that are mapped by themselves; all others become part of those that hold them.
    memories : collection of str
        Modules that stay as they are.

    Returns
    -------
    str
    """
    return COMMON.format(
        top=name, blackboxes="".join(f"blackbox {kind}\n" for kind in memories),
        kept="".join(f"setattr -mod -set keep_hierarchy 1 {kind}\n" for kind in kept))


def scripts(library, *, amap=False):
    """The scripts of all units by what they map for, with places for a unit's name and options."""
    return {"area": BEGIN + COMMON + (AMAP if amap else AREA) + FINISH,
            "timing": BEGIN + COMMON + TIMING + FINISH, "drive.txt": _drive(library)}


def _drive(library):
    """Driver and load that ABC sizes for."""
    return DRIVE.format(driver=library.driver, load=timing.OUTPUT_LOAD)


def memory_sizes(text, name):
    """Bits of each module that holds a memory, which must hold nothing else."""
    sizes = {}
    for module in re.split(r"^(?=module )", text, flags=re.M)[1:]:
        found = re.findall(r"^  reg \[(\d+):0\] \w+ \[0:(\d+)\];$", module, flags=re.M)
        if not found:
            continue
        kind = re.match(r"module (\w+)", module)[1]
        # What remains without declarations, names for names and the two clocked blocks is logic.
        rest = re.sub(_MEMORY_ALONE, "", module, flags=re.M | re.X)
        if kind == name or re.search(r"\w", rest):
            raise ToolError(f"{kind} holds a memory, which must be in a module of its own "
                            "below the top")
        sizes[kind] = sum((int(high) + 1) * (int(last) + 1) for high, last in found)
    return sizes


_MEMORY_ALONE = r"""
    ^ (?: module .* | endmodule | `line .* | [ ]+end | \s+ wire[ ]unused .*
    | [ ]+ (?: input | output | wire | reg ) [ ] [^=]*;
    | [ ]+ assign [ ] \w+ [ ] = [ ] \w+;
    | [ ]+ always [ ] @\(posedge[ ]clk\) [ ] begin
    | [ ]+ if [ ] \(\w+\) (?: [ ] begin )?
    | [ ]+ \w+ \[\w+\] [ ] <= [ ] \w+;
    | [ ]+ \w+ [ ] <= [ ] \w+ \[\w+\];
    ) $
"""


def open_memories(module, memories):
    """Replaces the memories of a flat netlist by ports; returns their number by module.

    The clock and the reset, which a memory does not need, end here.
    """
    found = Counter()
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


def count_cells(module, library):
    """Cells by type, their area, the flip-flops' area and number; refuses all that is unmapped."""
    cells = Counter(cell["type"] for cell in module["cells"].values())
    for kind in cells:
        if kind not in library.cells:
            raise ToolError(f"Yosys left {kind}, which is not a cell of {library.name}")
        if library.cells[kind].latch:
            raise ToolError(f"the unit has a latch, {kind}")
    area = {kind: number * library.cells[kind].area for kind, number in cells.items()}
    registers = [kind for kind in cells if library.cells[kind].flip_flop]
    return (cells, sum(area.values()), sum(area[kind] for kind in registers),
            sum(cells[kind] for kind in registers))
