# SPDX-License-Identifier: BSD-2-Clause
"""Tables of the units as Markdown, from the registry, the tests and a synthesis report.

`units` puts them into the pages. ``python docs/_ext/unit_tables.py --readme README.md`` writes the
README's table of figures.
"""

import argparse
import ast
import inspect
import json
import re
import shlex
import sys
from functools import cache
from pathlib import Path

from amaranth import Shape
from amaranth.hdl import ShapeCastable
from amaranth.lib import data, wiring

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from hw import registry  # noqa: E402
from hw.accelerator.config import CONFIGS  # noqa: E402
from hw.bus.axi_lite import register_map  # noqa: E402
from hw.tools.files import write  # noqa: E402

OFFERED = registry.UNITS | registry.ASSEMBLIES
FIGURES = ROOT / "docs" / "figures.json"
COMMAND = "python -m hw.synth --json docs/figures.json"
README_HEAD = "| unit | cells | area um2 | delay ns | clock MHz |"
README_UNITS = {
    "pe_tile": "8 MACs",
    "quantization_engine": "32 values",
    "group_accumulator": "",
    "mac_array": "32 columns, 1024 MACs",
    "accelerator": "config `paper`, without memories",
}


# Parameters and ports

def parameters(name):
    """Parameters with defaults and offered values."""
    unit = OFFERED[name]
    if not unit.parameters:
        return "This unit has no parameters."
    meaning = entries(name, "Parameters")
    lines = ["| parameter | default | also offered | meaning |", "|---|---|---|---|"]
    for parameter, (default, *others) in unit.parameters.items():
        lines.append(f"| `{parameter}` | `{default}` | {', '.join(f'`{o}`' for o in others)} | "
                     f"{cell(meaning.get(parameter, ''))} |")
    return "\n".join(lines)


def latency(name):
    """Latency and rate with the defaults, and with each setting that changes one of them."""
    rows = ["| setting | latency | rate |", "|---|---|---|"]
    default = timing(registry.build(name, units=OFFERED))
    rows.append(f"| defaults | {' | '.join(default)} |")
    for setting in settings(name):
        found = timing(registry.build(name, [setting], units=OFFERED))
        if found != default:
            rows.append(f"| `{setting}` | {' | '.join(found)} |")
    return "\n".join(rows)


def timing(component):
    """Latency and rate of a component, as words."""
    cycles = getattr(component, "cycles", 1)
    if not component.latency:
        return "0, combinational", "no clock"
    return (f"{component.latency} cycle{'s' * (component.latency > 1)}",
            "1 transfer per cycle" if cycles == 1 else f"1 transfer in {cycles} cycles")


def settings(name):
    """Every other offered value, each alone, as a setting."""
    return [setting for setting, in registry.each_alone(name)]


def ports(name):
    """Ports with the defaults, then how each other setting changes them."""
    meaning = entries(name, "Members")
    members = _members(name)
    lines = ["| port | direction | bits | payload | meaning |", "|---|---|---|---|---|"]
    lines += [f"| `{port}` | {' | '.join(described)} | {cell(meaning.get(port, ''))} |"
              for port, described in members.items()]
    changes = []
    for setting in settings(name):
        other = _members(name, setting)
        said = [f"without `{port}`" for port in members if port not in other]
        said += [f"with `{port}`, {_words(described)}"
                 for port, described in other.items() if port not in members]
        said += [f"`{port}` is {_words(described)}"
                 for port, described in other.items() if described != members.get(port, described)]
        if said:
            changes.append(f"- `{setting}`: {'; '.join(said)}.")
    if changes:
        lines += ["", "Other settings change the ports:", "", *changes]
    return "\n".join(lines)


def _members(name, *chosen):
    """Direction, bits and payload of each port, as words."""
    component = registry.build(name, chosen, units=OFFERED)
    found = {}
    for port, member in component.signature.members.items():
        stream = member.is_signature
        shape = member.signature.members["payload"].shape if stream else member.shape
        direction = "in" if member.flow == wiring.In else "out"
        found[port] = (direction + ",\N{NO-BREAK SPACE}stream" * stream,
                       str(Shape.cast(shape).width), payload(shape))
    return found


def _words(described):
    direction, bits, parts = described
    return f"{direction}, {bits} bit{'s' * (bits != '1')}" + (f": {parts}" if parts else "")


def payload(shape):
    """The parts of a shape, as words: fields with their bits, lowest first."""
    if isinstance(shape, data.ArrayLayout):
        inner = payload(shape.elem_shape)
        return f"{shape.length} × " + (f"({inner})" if inner else str(_width(shape.elem_shape)))
    if isinstance(shape, data.Layout):
        return ", ".join(f"`{key}` {_field(field.shape)}" for key, field in shape)
    if isinstance(shape, type) and issubclass(shape, data.Struct):
        return payload(Shape.cast(shape) if not isinstance(shape, ShapeCastable) else
                       data.Layout.cast(shape))
    return "signed" if Shape.cast(shape).signed else ""


def _field(shape):
    inner = payload(shape)
    if isinstance(shape, data.ArrayLayout) or not inner:
        return inner or str(_width(shape))
    return f"{_width(shape)}{' ' if inner == 'signed' else ': ('}{inner}" + ")" * (
        inner != "signed")


def _width(shape):
    return Shape.cast(shape).width


# Docstrings

def entries(name, section):
    """What a unit's docstring says of each parameter or member, as Markdown."""
    text = inspect.getdoc(OFFERED[name].component)
    found = re.search(rf"^{section}\n-+\n(.*?)(?=^\S[^\n]*\n-+\n|\Z)", text, re.M | re.S)
    if not found:
        return {}
    meaning = {}
    for block in re.split(r"\n(?=\S)", found[1].strip("\n")):
        head, *body = block.split("\n")
        said = markdown(" ".join(line.strip() for line in body))
        meaning |= dict.fromkeys(re.split(r",\s*", head.split(" : ")[0].strip()), said)
    return meaning


def markdown(text):
    """Text of a docstring as Markdown."""
    text = re.sub(r":\w+(?::\w+)?:`~?([^`]*)`", r"`\1`", text).replace("``", "`")
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([*_<])", r"\\\1", part)
                   for part in parts).strip()


def cell(text):
    """Text for a cell of a table."""
    return text.replace("|", r"\|").replace("\n", " ")


# Figures

@cache
def report(path=FIGURES):
    """The tracked synthesis report."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def basis(report):
    """The library and the versions that figures rest on, in one sentence."""
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    return f"Library {report['library']['name']}; {versions}."


def figures(name):
    """Area and timing of one unit, beside the command that prints them."""
    if name not in registry.UNITS:
        return ("`python -m hw.synth` measures units, and this is an assembly of one unit and its "
                "registers. The area is that of {doc}`accelerator`, with a few hundred flip-flops "
                "more.")
    whole = report()
    unit = whole["units"][name]
    chosen = " ".join(f"--set {key}={value}" for key, value in unit["parameters"].items())
    rows = [("area mapped for area (A)", f"{unit['area_um2']:,.0f} µm²"),
            ("cells (A)", f"{unit['cells']:,}"),
            ("flip-flops", f"{unit['flip_flops']:,}, "
             f"{unit['sequential_area_um2'] / unit['area_um2']:.0%} of the area"),
            ("area mapped for delay (T)", f"{unit['area_timed_um2']:,.0f} µm²"),
            (f"longest path (T), {unit['path_class']}", f"{unit['delay_ns']:.2f} ns"),
            ("longest path from or to a port (T)", f"{unit['io_delay_ns']:.2f} ns"),
            ("clock with registered ports", f"{unit['fmax_io_mhz']:.0f} MHz")]
    if unit.get("area_per_tile_um2") is not None:
        rows.append((f"area (A) for each of {unit['tiles']} tiles of 8 MACs",
                     f"{unit['area_per_tile_um2']:,.0f} µm²"))
    if unit["memory_bits"]:
        rows.append((f"memories, not in the area: {unit['memories']}",
                     f"{unit['memory_bits']:,} bits"))
    lines = ["| figure | value |", "|---|---:|", *(f"| {key} | {value} |" for key, value in rows)]
    how = ("mapped module by module" if unit["hierarchical"] else "mapped as a whole")
    return "\n".join([
        f"`python -m hw.synth {name}{' ' + chosen if chosen else ''}` prints these figures "
        f"({how}).", "", *lines, "", basis(whole)])


def readme_figures():
    """The README's table: five units of different sizes."""
    whole = report()
    rows = [README_HEAD, "|---" * 5 + "|"]
    for name, size in README_UNITS.items():
        unit = whole["units"][name]
        label = f"`{name}`, {size}" if size else f"`{name}`"
        rows.append(f"| {label} | {unit['cells']} | {unit['area_um2']:.0f} | "
                    f"{unit['delay_ns']:.2f} | {unit['fmax_io_mhz']:.0f} |")
    return "\n".join(rows)


def all_figures():
    """Area and timing of all units in one table."""
    whole = report()
    rows = ["| unit | cells | area A µm² | flip-flops' share | area T µm² | delay T ns | path | "
            "I/O delay T ns | clock with registered ports MHz |", "|---" + "|---:" * 5 + "|---"
            + "|---:" * 2 + "|"]
    for name, unit in whole["units"].items():
        share = unit["sequential_area_um2"] / unit["area_um2"]
        mark = r" \*" if unit["hierarchical"] else ""
        rows.append(f"| {{doc}}`{name} </units/{name}>`{mark} | "
                    f"{unit['cells']:,} | {unit['area_um2']:,.0f} | {share:.0%} | "
                    f"{unit['area_timed_um2']:,.0f} | {unit['delay_ns']:.2f} | "
                    f"{unit['path_class']} | {unit['io_delay_ns']:.2f} | "
                    f"{unit['fmax_io_mhz']:.0f} |")
    return "\n".join([f"`{COMMAND}` prints these figures; `*` marks units that are mapped module "
                      "by module.", "", *rows, "", basis(whole)])


# Verification

def verification(name):
    """Reference, stimuli, tests and proofs of a unit, as the tree has them."""
    unit = OFFERED[name]
    component = unit.component
    rows = ["| kind | where |", "|---|---|"]
    if name in registry.UNITS:
        reference = unit.reference
        own = ROOT / "golden" / "units" / f"{name}.py"
        where = [_where(reference)]
        if own.exists():
            where.append(f"definitions in `{own.relative_to(ROOT)}`")
        rows.append(f"| golden reference | {', '.join(where)} |")
        rows.append(f"| random stimuli | {_where(unit.stimuli)} |")
    for kind, folder in (("tests of the unit", "tests/hw"), ("tests of the reference",
                                                             "tests/golden")):
        for path in sorted((ROOT / folder).rglob(f"test_{name}.py")):
            rows.append(f"| {kind} | `{path.relative_to(ROOT)}`: {_count(tests(path))}, "
                        "listed below |")
    for path, names in whole_registry().items():
        if name in registry.UNITS:
            rows.append(f"| tests over all units | `{path}`: {_count(names)} |")
    others = [path for path in naming(name, component.__name__)
              if path.name != f"test_{name}.py" and str(path) not in whole_registry()]
    if others:
        rows.append("| other tests that name it | "
                    + ", ".join(f"`{path}`" for path in others) + " |")
    for command in proofs():
        if name in shlex.split(command):
            rows.append(f"| proof that the Verilog is equivalent, in `.ci/run` | `{command}` |")
    if name in test_proofs():
        rows.append("| proof that the Verilog is equivalent, in the tests | "
                    "`tests/hw/test_generate.py`: `test_equivalent_to_the_component` |")
    lines = [*rows]
    for folder in ("tests/hw", "tests/golden"):
        for path in sorted((ROOT / folder).rglob(f"test_{name}.py")):
            lines += ["", f"`{path.relative_to(ROOT)}`:", ""]
            lines += [f"- `{test}`" + (f": {markdown(said)}" if said else "")
                      for test, said in tests(path).items()]
    return "\n".join(lines)


def _count(tests):
    return f"{len(tests)} test{'s' * (len(tests) != 1)}"


def _where(function):
    path = Path(inspect.getsourcefile(inspect.unwrap(function))).relative_to(ROOT)
    return f"`{function.__name__}` in `{path}`"


@cache
def tests(path):
    """Tests of a file with the first line of their docstrings."""
    return {node.name: (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ")
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


@cache
def _test_files():
    return {path.relative_to(ROOT): path.read_text(encoding="utf-8")
            for path in sorted((ROOT / "tests").rglob("test_*.py"))}


@cache
def whole_registry():
    """Files of tests that go through the registry's units, with their tests."""
    return {str(path): tests(ROOT / path) for path, text in _test_files().items()
            if "hw" in path.parts and "report" not in path.parts
            and ("for name in registry.UNITS" in text or "in registry.UNITS.items()" in text)}


def naming(name, component):
    """Files of tests that name a unit or its component."""
    word = re.compile(rf"[\"']{name}[\"']|\b{component}\b")
    return [path for path, text in _test_files().items() if word.search(text)]


@cache
def proofs():
    """The commands of ``.ci/run`` that prove units."""
    text = (ROOT / ".ci" / "run").read_text(encoding="utf-8").replace("\\\n", " ")
    return [re.sub(r"-W error |\s*-o \S+", "", " ".join(line.split()))
            for line in text.splitlines() if "hw.generate" in line and "--prove" in line]


@cache
def test_proofs():
    """Units that the tests prove: all but those that the test's parameters leave out."""
    tree = ast.parse((ROOT / "tests/hw/test_generate.py").read_text(encoding="utf-8"))
    test, = (node for node in tree.body if isinstance(node, ast.FunctionDef)
             and node.name == "test_equivalent_to_the_component")
    left_out = {node.value for decorator in test.decorator_list for node in ast.walk(decorator)
                if isinstance(node, ast.Constant)}
    return [name for name in registry.UNITS if name not in left_out]


# The list of units, configurations and registers

def units():
    """All units with what they do."""
    rows = ["| unit | what it does | latency |", "|---|---|---|"]
    for name, unit in OFFERED.items():
        component = registry.build(name, units=OFFERED)
        rows.append(f"| {{doc}}`{name} </units/{name}>` | {unit.summary} | "
                    f"{timing(component)[0]} |")
    return "\n".join(rows)


def configurations():
    """The configurations of the accelerator."""
    fields = list(vars(next(iter(CONFIGS.values()))))
    rows = [f"| field | {' | '.join(f'`{name}`' for name in CONFIGS)} |",
            "|---|" + "---:|" * len(CONFIGS)]
    rows += [f"| `{field}` | "
             + " | ".join(str(getattr(config, field)) for config in CONFIGS.values()) + " |"
             for field in fields]
    rows.append("| bits of all buffers | "
                + " | ".join(f"{config.memory_bits:,}" for config in CONFIGS.values()) + " |")
    return "\n".join(rows)


def registers():
    """The registers of the accelerator in the paper's configuration."""
    return register_map(CONFIGS["paper"]).markdown()


# The README

def insert(text):
    """A text with the README's figures in place of the table that has their heads."""
    text, found = re.subn(rf"(?m)^{re.escape(README_HEAD)}\n(?:\|.*\n)+",
                          lambda _: readme_figures() + "\n", text)
    if found != 1:
        raise ValueError(f"Text must have one table with the head {README_HEAD!r}, not {found}")
    return text


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--readme", type=Path, metavar="FILE",
                        help="write them into this file's table, instead of to stdout")
    options = parser.parse_args(arguments)
    if options.readme is None:
        print(readme_figures())
    else:
        write(options.readme, insert(options.readme.read_text(encoding="utf-8")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
