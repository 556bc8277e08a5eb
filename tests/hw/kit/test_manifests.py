# SPDX-License-Identifier: BSD-2-Clause
"""Filelists, FuseSoC cores and the Bender manifest of a folder."""

import json
import shutil
import subprocess
import sys

import pytest
import yaml

from hw import generate, kit
from hw.kit import manifests
from tests.support.faults import break_a_bit


def emit(folder, name, unit="top1", **options):
    paths = generate.generate(unit, ["lanes=4"] * (unit == "top1"), folder, module=name, **options)
    return json.loads((folder / f"{name}.json").read_text()), [path.name for path in paths]


@pytest.fixture(scope="module")
def emitted(tmp_path_factory):
    """Folder, description and files of a unit with all that it can have."""
    folder = tmp_path_factory.mktemp("unit")
    return folder, *emit(folder, "unit", "group_accumulator", axi=True, vectors=3)


def test_files_are_those_that_are_listed(emitted):
    folder, description, names = emitted
    files = description["files"]
    listed = [*files["verilog"], files["filelist"], *files["sdc"], files["fusesoc"],
              *files["testbench"], "unit.json"]
    assert sorted(names) == sorted(listed) == sorted(path.name for path in folder.iterdir())
    assert (folder / "unit.f").read_text() == "unit.v\nunit_axi.v\n"
    assert files["systemrdl"] is files["ipxact"] is None
    assert files["testbench"] == ["unit_tb.sv", "unit_tb_i.hex", "unit_tb_o.hex"]


def test_core(emitted, tmp_path):
    folder, description, _ = emitted
    text = (folder / "unit.core").read_text()
    assert text.startswith("CAPI=2:\n")
    core = yaml.safe_load(text)
    assert core["name"] == f"m2xfp:rtl:unit:{description['versions']['m2xfp-rtl']}"
    assert core["filesets"]["rtl"]["files"] == description["files"]["verilog"]
    assert core["filesets"]["constraints"]["files"] == ["unit_axi.sdc"]
    bench = core["filesets"]["bench"]["files"]
    assert [*{name: None for file in bench for name in file}] == description["files"]["testbench"]
    assert {name: target["toplevel"] for name, target in core["targets"].items()} == {
        "default": "unit_axi", "lint": "unit_axi", "sim": "unit_tb"}
    # Without a testbench there is nothing to simulate.
    emit(tmp_path, "unit")
    core = yaml.safe_load((tmp_path / "unit.core").read_text())
    assert {*core["targets"]} == {"default", "lint"}
    assert core["filesets"]["constraints"]["files"] == ["unit.sdc"]


def test_bender(tmp_path):
    assert kit.bender(tmp_path) is None
    emit(tmp_path, "first")
    emit(tmp_path, "second", vectors=2)
    (tmp_path / "synth.json").write_text('{"units": []}')
    (tmp_path / "list.json").write_text("[1, 2]")
    (tmp_path / "broken.json").write_text("{")
    emit(tmp_path, "gone")
    (tmp_path / "gone.v").unlink()
    # As with `--sram`.
    path = tmp_path / "first.json"
    description = json.loads(path.read_text())
    description["files"]["memory_models"].append("first_sram_2x3.v")
    description["files"]["verilog"].append("first_sram_2x3.v")
    path.write_text(json.dumps(description))
    (tmp_path / "first_sram_2x3.v").touch()
    path = kit.bender(tmp_path)
    assert path == tmp_path / "Bender.yml"
    manifest = yaml.safe_load(path.read_text())
    assert manifest["package"]["name"] == "m2xfp_rtl"
    assert manifest["sources"] == [
        {"target": "first", "files": ["first.v"]},
        {"target": "all(first, not(macros))", "files": ["first_sram_2x3.v"]},
        {"target": "second", "files": ["second.v"]},
        {"target": "all(second, simulation)", "files": ["second_tb.sv"]}]


def test_kept_files_are_all_of_a_unit(tmp_path, monkeypatch):
    """The main job writes what an earlier run kept; the manifest is of the folder."""
    monkeypatch.setenv("M2XFP_CACHE_DIR", str(tmp_path / "cache"))
    first, second = tmp_path / "first", tmp_path / "second"
    assert not generate.write_kept("top1", second)
    generate.generate_and_keep("top1", first)
    second.mkdir()
    assert generate.write_kept("top1", second)
    assert {path.name: path.read_text() for path in first.iterdir()} == {
        path.name: path.read_text() for path in second.iterdir()}
    assert (first / "top1.core").is_file() and not (first / "Bender.yml").exists()
    kit.bender(second)
    assert yaml.safe_load((second / "Bender.yml").read_text())["sources"] == [
        {"target": "top1", "files": ["top1.v"]}]


def test_models_of_memories_can_be_left_out():
    """A chip has macros in their place."""
    description = {"unit": "a", "summary": "b", "axi": None, "versions": {"m2xfp-rtl": "1.0"},
                   "files": {"verilog": ["a.v", "a_sram_2x3.v"], "sdc": ["a.sdc"],
                             "memory_models": ["a_sram_2x3.v"], "testbench": ["a_tb.sv"]}}
    core = yaml.safe_load(manifests.fusesoc(description))
    assert core["filesets"]["rtl"]["files"] == ["a.v"]
    assert core["filesets"]["memory_models"]["files"] == ["a_sram_2x3.v"]
    assert all(target["filesets"][:2] == ["rtl", "!macros? (memory_models)"]
               for target in core["targets"].values())


def fusesoc(folder, work, name, *options):
    return subprocess.run(
        [sys.executable, "-m", "fusesoc.main", "--cores-root", str(folder), "run", *options, name],
        cwd=work, capture_output=True, text=True)


@pytest.mark.long
@pytest.mark.skipif(shutil.which("iverilog") is None, reason="iverilog is not installed")
def test_fusesoc_simulates_and_finds_a_wrong_bit(tmp_path):
    if shutil.which("make") is None:
        pytest.skip("make, which FuseSoC runs, is not installed")
    folder, work = tmp_path / "cores", tmp_path / "work"
    work.mkdir()
    emit(folder, "good", "decoder", axi=True, vectors=20)
    emit(folder, "bad", vectors=20)
    break_a_bit(folder / "bad.v")
    done = fusesoc(folder, work, "good", "--target=sim")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "good_tb: PASS: 20 of 20 i, 20 of 20 o" in done.stdout
    done = fusesoc(folder, work, "bad", "--target=sim")
    assert done.returncode != 0 and "bad_tb: FAIL" in done.stdout
    if shutil.which("verilator"):
        done = fusesoc(folder, work, "good", "--target=lint")
        assert done.returncode == 0, done.stdout + done.stderr


def test_core_texts_are_quoted():
    description = {"unit": "a", "summary": 'Says: "x" #1', "axi": None,
                   "versions": {"m2xfp-rtl": "1.0"},
                   "files": {"verilog": ["a.v"], "sdc": ["a.sdc"], "memory_models": [],
                             "testbench": []}}
    assert yaml.safe_load(manifests.fusesoc(description))["description"] == 'Says: "x" #1'
