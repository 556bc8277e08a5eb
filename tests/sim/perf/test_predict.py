# SPDX-License-Identifier: BSD-2-Clause
"""Models, machines and predictions."""

import json
import re
from pathlib import Path

import pytest

import sim
import sim.__main__ as command
from sim.engines.build import compiler
from sim.perf import Gemm, Job, find_machine, find_models, paper, predict, rivals, validate
from sim.perf.machine import formats
from sim.perf.models import PAPER, packaged_models
from sim.perf.predict import moved, predict_layer
from sim.perf.settings import packaged
from tests.support.imports import ROOT

# What the models' pages say. Of OPT there are biases, positions and norms with two vectors; of
# Falcon norms with two; of all others one vector per norm.
PARAMETERS = {"llama2-7b": 6_738_415_616, "llama3-8b": 8_030_261_248,
              "llama3-70b": 70_553_706_496, "mistral-7b": 7_241_732_096,
              "opt-6.7b": 6_658_473_984, "falcon-7b": 6_921_720_704,
              "llama3.1-405b": 405_853_388_800, "smollm2-135m": 134_515_008}


@pytest.mark.parametrize("name", packaged_models())
def test_published_number_of_parameters(name):
    model = packaged_models()[name]
    norms = {"opt-6.7b": 4 * model.hidden + 5 * model.hidden + model.ffn,
             "falcon-7b": 2 * model.hidden}.get(name, 2 * model.hidden)
    ends = {"opt-6.7b": 2050 * model.hidden + 2 * model.hidden,
            "falcon-7b": 2 * model.hidden}.get(name, model.hidden)
    embedding = model.vocabulary * model.hidden
    assert model.weights + (not model.tied) * embedding + model.layers * norms + ends \
        == PARAMETERS[name]


@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize("config", ["paper", "decode"])
def test_bytes_are_conserved(config, phase):
    machine = find_machine(config)
    [model] = find_models(["llama3-8b"])
    one = predict(Job(model=model, phase=phase, attention=True), machine)
    record = 144
    for layer in one.layers:
        gemm, moves = layer.gemm, moved(layer.gemm, machine)
        groups = -(-gemm.k // 32)
        # What comes from DRAM goes into the buffers, and everything is needed at least once.
        assert layer.sram["operand_write"] == layer.read_bits
        assert moves.weights >= gemm.count * groups * gemm.n
        assert moves.activations >= gemm.count * groups * gemm.m
        assert layer.read_bits == layer.copies * record * (moves.weights + moves.activations)
        assert layer.written_bits == layer.copies * gemm.count * gemm.m * gemm.n * 16
        assert layer.energy["DRAM"] == pytest.approx(3.92 * layer.bits)
    assert one.bytes == sum(layer.bits for layer in one.layers) / 8
    low, high = one.bounds
    assert low <= one.cycles <= high + 50 * sum(
        layer.copies for layer in one.layers)


def test_metadata_and_scales_are_traffic():
    gemm = Gemm("q", 32, 4096, 4096)
    bits = {name: predict_layer(gemm, find_machine("paper").with_format(name)).read_bits
            for name in ("M2XFP", "MXFP4")}
    assert bits["M2XFP"] / bits["MXFP4"] == 4.5 / 4.25


def test_products_of_8_bits_move_their_bits_in_the_same_buffers():
    machine = find_machine("paper")
    wide = machine.wide()
    assert wide.kilobytes == machine.kilobytes and wide.slots == machine.slots // 2
    # One block of rows and all records of weights once: 8.25 bits for each element.
    layer = predict_layer(Gemm("q", 32, 2 * 4096, 4096), wide)
    assert layer.read_bits == 8.25 * (32 + 4096) * 4096
    narrow = predict_layer(Gemm("q", 32, 4096, 4096), machine)
    assert layer.array_cycles == pytest.approx(4 * narrow.array_cycles, rel=1e-2)
    assert machine.wide().leakage_mw == machine.leakage_mw


def attending(**attention):
    [model] = find_models(["llama3-8b"])
    one = predict(Job(model=model, seq=1024, attention=True),
                  find_machine("paper", {"attention": attention}))
    return {name: [layer for layer in one.layers if layer.gemm.name == name]
            for name in ("scores", "values")}, one


def test_attention_at_8_bits():
    """Four times the cycles; operands of 8.25 bits where they had 4.5; the same products."""
    (four, _), (eight, one) = attending(), attending(values_bits=8)
    assert four["scores"] == eight["scores"]
    for narrow, wide in zip(four["values"], eight["values"], strict=True):
        assert wide.gemm == narrow.gemm
        assert wide.array_cycles == pytest.approx(4 * narrow.array_cycles, rel=1e-2)
        assert wide.written_bits == narrow.written_bits
        # How often they come is the planner's matter: buffers hold fewer elements.
        of = wide.gemm
        assert wide.read_bits >= 8.25 * wide.copies * of.count * of.k * (of.m + of.n)
        assert narrow.read_bits < wide.read_bits
    assert one.attention == sum(layer.cycles for layers in eight.values() for layer in layers
                                ) / one.cycles


def test_attention_to_all_keys():
    (causal, _), (all_keys, _) = attending(), attending(causal=False)
    for name, dimension in (("scores", "n"), ("values", "k")):
        assert [getattr(layer.gemm, dimension) for layer in causal[name]] == [256, 512, 768, 1024]
        assert [getattr(layer.gemm, dimension) for layer in all_keys[name]] == 4 * [1024]
        assert [layer.gemm.m for layer in all_keys[name]] == [
            layer.gemm.m for layer in causal[name]]


def test_mxfp8_is_mxfp4_s_array_at_8_bits():
    """Four times the cycles, 8.25 bits of each value, the array's power, and the encoder once."""
    machine = find_machine("paper")
    [model] = find_models(["llama3-8b"])
    job = Job(model=model)
    four, eight = rivals.compare(job, machine, ["MXFP4", "MXFP8"])
    assert eight.cycles == pytest.approx(4 * four.cycles, rel=1e-3)
    assert eight.bits == 8.25 and eight.array_mm2 == four.array_mm2
    # Half the accumulators; the rest of the same power is the array's.
    for parts in (("array", "accumulators"), ("array leakage",), ("control",),
                  ("DRAM background",)):
        energies = [sum(one.energy[part] for part in parts) for one in (four, eight)]
        assert energies[1] == pytest.approx(4 * energies[0], rel=1e-3)
    assert eight.energy["top-1 and engines"] == pytest.approx(four.energy["top-1 and engines"])
    # So few rows fit: each operand comes once.
    small = Job(model=model, seq=4)
    four, eight = rivals.compare(small, machine, ["MXFP4", "MXFP8"])
    results = 2 * sum(gemm.m * gemm.n for gemm in model.linear(4))
    assert (eight.traffic - results) / (four.traffic - results) == pytest.approx(8.25 / 4.25)


def test_cycles_are_those_of_the_closed_form():
    """Below DRAM's bandwidth only its latency is added; ZigZag gives 33,555,503."""
    layer = predict_layer(Gemm("q", 2048, 4096, 4096), find_machine("paper"))
    assert layer.cycles == sim.cycles("paper", 2048, 4096, 4096, source="records") + 50
    assert layer.cycles == pytest.approx(33_555_503, rel=0.02)
    slow = find_machine("paper", {"dram": {"bandwidth_gbs": 1.0}})
    layer = predict_layer(Gemm("q", 2048, 4096, 4096), slow)
    assert layer.cycles == -(-layer.bits // slow.bits_per_cycle) + 50


@pytest.mark.parametrize("field, values", [
    ("seq", (128, 256, 1024, 2048)), ("batch", (1, 2, 4, 16))])
def test_more_work_takes_longer(field, values):
    [model] = find_models(["smollm2-135m"])
    found = [predict(Job(**{"model": model, "seq": 128, "attention": True, field: value}),
                     find_machine("paper")) for value in values]
    for of in (lambda one: one.cycles, lambda one: one.bytes, lambda one: one.joules):
        assert sorted(map(of, found)) == list(map(of, found))


@pytest.mark.parametrize("table, field, values", [
    ("dram", "bandwidth_gbs", (1.0, 16.0, 64.0, 512.0)), ("accelerator", "arrays", (1, 2, 4, 16))])
def test_more_hardware_is_no_slower(table, field, values):
    [model] = find_models(["llama3-8b"])
    found = [predict(Job(model=model), find_machine("paper", {table: {field: value}})).cycles
             for value in values]
    assert sorted(found, reverse=True) == found


def test_chips_divide_the_work():
    [model] = find_models(["llama3.1-405b"])
    one, eight = (predict(Job(model=model), find_machine("paper", {"chips": {"count": count}}))
                  for count in (1, 8))
    assert eight.macs == one.macs and eight.link_cycles > 0
    assert one.cycles / 8 < eight.cycles < one.cycles


def test_stored_figures_are_those_of_the_documents():
    units = json.loads((ROOT / "docs/figures.json").read_text())["units"]
    stored, shared = formats(), packaged("hardware")["shared"]
    assert stored["M2XFP"]["array_um2"] == round(units["mac_array"]["area_um2"])
    assert stored["NVFP4"]["array_um2"] == round(units["nvfp4_array"]["area_um2"])
    assert shared["control_um2"] == round(
        units["accelerator"]["area_um2"] - units["mac_array"]["area_um2"]
        - 2 * units["quantization_engine"]["area_um2"])
    assert shared["control_uw"] == pytest.approx(
        shared["control_um2"] * stored["M2XFP"]["array_uw"] / stored["M2XFP"]["array_um2"], abs=1)
    power = (ROOT / "docs/power.md").read_text()
    for name, unit in (("M2XFP", "mac_array"), ("NVFP4", "nvfp4_array")):
        row = re.search(rf"{unit}\* +real +(.*) MAC", power).group(1).split()
        figures = (stored[name][of] for of in ("clock_uw", "leakage_uw", "array_uw"))
        assert [float(row[place]) for place in (4, 5, 6)] == list(figures)
    # RaZeR's stand in a sentence: area per tile, energy per MAC at 32 columns.
    area, energy = re.search(r"RaZeR's (\d+) um2, [\d.]+ ns and ([\d.]+) fJ", power).groups()
    assert round(stored["RaZeR"]["array_um2"] / 128) == int(area)
    assert round(stored["RaZeR"]["array_uw"] / 500 / 1024 * 1e3, 1) == float(energy)
    losses = dict(re.findall(r"(?m)^(\S+) .*  (\d\.\d{3}) \+- .*  -?\d\.\d{3} \+-",
                             (ROOT / "docs/silicon.md").read_text()))
    assert {name: float(losses[name]) for name in stored} == {
        name: of["kl"] for name, of in stored.items()}


def refused(arguments, capsys):
    assert command.main(["perf", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    return printed.err


@pytest.mark.parametrize("arguments, text", [
    (["--model", "gpt-9"], "--model must be FILE.toml or one of llama2-7b, .*, not 'gpt-9'"),
    (["--seq", "0"], "--seq must be within 1 and 1048575, not 0"),
    (["--seq", "65536", "--batch", "64"], "--seq times --batch must be at most 1048575"),
    (["--config", "huge"], "--config must be FILE.toml or one of paper, .*, not 'huge'"),
    (["--set", "dram.bandwidth_gbs=-3"],
     "dram.bandwidth_gbs must be a number within 0.001 and 1e.06, not -3"),
    (["--set", "dram.speed=1"], "dram.speed must be one of bandwidth_gbs, "),
    (["--set", "accelerator.columns=33"], "accelerator.columns must be a power of two, not 33"),
    (["--set", "chips.count=3"], "chips.count must divide the 32 heads of llama3-8b, not 3"),
    (["--set", "accelerator.format=FP3"], "accelerator.format must be one of MXFP4, .*'FP3'"),
    (["--set", "attention.values_bits=6"], "attention.values_bits must be one of 4, 8, not 6"),
    (["--set", "attention.causal=1"], "attention.causal must be one of true, false, not 1"),
    (["--set", "attention.scores_bits=8", "--set", "accelerator.columns=1", "--set",
      "accelerator.weight_width=1", "--attention"],
     "accelerator.columns must be at least 2 for products of 8 bits, not 1"),
    (["--set", "seq"], "--set must be TABLE.FIELD=VALUE, not 'seq'"),
    (["--sweep", "batch=x"], "--sweep batch must have integers, not 'x'"),
    (["--sweep", "batch"], "--sweep must be NAME=VALUE,..., not 'batch'"),
    (["--validate", "--json", "x.json"], "--json must be left out with --validate"),
    (["--against", "tpu"], "--against must be of M2XFP, .*, not 'tpu'"),
    (["--against", "mx-ant", "--model", "smollm2-135m"],
     "--against must be of MXFP4, .*, MXFP8 with smollm2-135m, .* not 'MX-ANT'"),
])
def test_errors_are_one_line(arguments, text, capsys):
    assert re.search(text, refused(arguments, capsys))


@pytest.mark.parametrize("content, text", [
    ("x = ", "--model must be a TOML file, not .*mine.toml: Invalid value"),
    ("[mine]\nlayers = 0", "mine.layers must be an integer within 1 and 1000, not 0"),
    ("[mine]\nlayer = 1", "mine.layer must be one of layers, hidden, "),
    ("[mine]\nlayers = 1", "mine.hidden must be given in "),
])
def test_bad_files(content, text, tmp_path, capsys):
    path = Path(tmp_path / "mine.toml")
    path.write_text(content)
    assert re.search(text, refused(["--model", str(path)], capsys))


def test_command(tmp_path, capsys):
    path = tmp_path / "found.json"
    assert command.main(["perf", "--model", "smollm2-135m", "--json", str(path)]) == 0
    [found] = json.loads(path.read_text())
    assert f"{found['cycles']:,} cycles" in capsys.readouterr().out
    assert found["cycles"] == sum(layer["cycles"] for layer in found["layers"])


def test_sweep(tmp_path, capsys):
    path = tmp_path / "found.json"
    arguments = ["perf", "--phase", "decode", "--model", "llama3-8b", "--json", str(path)]
    assert command.main([*arguments, "--sweep", "batch=1,8"]) == 0
    found = json.loads(path.read_text())
    assert [one["batch"] for one in found] == [1, 8]
    assert all(f"{one['cycles']:,}" in capsys.readouterr().out for one in found[:1])
    assert command.main([*arguments, "--sweep", "dram.bandwidth_gbs=4,256"]) == 0
    slow, fast = json.loads(path.read_text())
    assert slow["dram"]["bandwidth_gbs"] == 4 and slow["cycles"] > fast["cycles"]


def test_paper_command(tmp_path, capsys):
    path = tmp_path / "found.json"
    assert command.main(["perf", "--paper", "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    assert {*found} == {"assumptions", "ours", "ours without DRAM background"}
    for model in PAPER:
        ours, without = found["ours"][model], found["ours without DRAM background"][model]
        assert {one["energy"]["DRAM background"] for one in without} == {0}
        assert min(one["energy"]["DRAM background"] for one in ours) > 0
        for one in ours:
            if one["name"] in paper.machines():
                speedup = one["cycles"] / ours[0]["cycles"]
                assert speedup == pytest.approx(1 + 3 * paper.share(one["name"], model), rel=1e-3)
    printed = capsys.readouterr().out
    assert re.search(r"latency, arithmetic mean .* 1\.9124\n", printed)
    assert re.search(r"energy, ratio of the normalised means .* 1\.7545\n", printed)


@pytest.mark.long
@pytest.mark.skipif(not compiler(), reason="needs a C++ compiler")
def test_model_agrees_with_rtl():
    [model] = find_models(["smollm2-135m"])
    checks = [*validate.validate([Job(model=model, seq=300, attention=True)],
                                 find_machine("tiny"))]
    assert len(checks) >= 3
    assert all(check.equal for check in checks)
