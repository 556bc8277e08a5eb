# SPDX-License-Identifier: BSD-2-Clause
"""The commands of `sim`, and the main job's options."""

import re
import subprocess
import sys

import numpy as np
import pytest

import sim.__main__ as command
from golden import dequantize, quantize_activations, quantize_weights
from golden.models import smollm2
from sim.lockstep import lockstep


def refused(arguments, capsys):
    assert command.main(arguments) != 0
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


@pytest.mark.long
def test_lockstep_has_no_mismatches(capsys):
    assert command.main(["lockstep", "--tokens", "2", "--rows", "2", "--stalls", "0.2"]) == 0
    printed = capsys.readouterr().out
    assert "quantization_engine: 36 groups, 0 mismatches" in printed
    assert "group_mac: 72 group dot products, 0 mismatches" in printed


def test_lockstep_counts_mismatches(monkeypatch):
    """Against a model with another scale rule, groups and products differ."""
    monkeypatch.setattr("sim.lockstep.quantize_activations",
                        lambda x: quantize_activations(x, rule="ceil"))
    data = smollm2.load()
    result = lockstep(data.activations[:2, :64], data.weights[:2, :64])
    assert result.group_mismatches > 0
    assert result.product_mismatches > 0


@pytest.mark.long
def test_lockstep_pads_a_partial_group():
    rng = np.random.default_rng(5)
    x, w = (rng.standard_normal((2, 40)).astype(np.float32) for _ in range(2))
    result = lockstep(x, w)
    assert (result.groups, result.products) == (4, 8)
    assert result.group_mismatches == result.product_mismatches == 0


@pytest.mark.long
def test_errors_on_real_data():
    """Worked out here from decoded operands, in another way than the command does."""
    data = smollm2.load()
    x, w = data.activations[:2], data.weights[:2]
    result = lockstep(x, w)
    exact = np.einsum("mk,nk->mn", x, w, dtype=np.float64)
    decoded = np.einsum("mk,nk->mn", dequantize(quantize_activations(x)),
                        dequantize(quantize_weights(w)), dtype=np.float64)
    assert result.errors["M2XFP"][2] == pytest.approx(
        ((decoded - exact) ** 2).sum() / (exact**2).sum(), rel=1e-12)
    # Four outputs are too few to compare; the operands are not.
    assert result.errors["M2XFP"][0] < result.errors["MXFP4"][0]
    assert result.errors["M2XFP"][1] < result.errors["MXFP4"][1]


@pytest.mark.parametrize(("arguments", "text"), [
    (["lockstep", "--tokens", "0"], "--tokens must be within 1 and 32, not 0"),
    (["lockstep", "--rows", "257"], "--rows must be within 1 and 256, not 257"),
    (["lockstep", "--stalls", "1"], "--stalls must be at least 0 and below 1, not 1.0"),
    (["cosim", "no_such"], "Unit must be one of top1, .*, not 'no_such'"),
    (["cosim", "--set", "lanes=4"], "--set lanes=4 needs exactly one unit, not "),
    (["cosim", "top1", "--set", "lanes=3"], "top1: Lane count must be a power of two of "),
    (["cosim", "top1", "--set", "depth=3"], "Parameter of top1 must be one of: lanes, not 'depth'"),
    (["cosim", "top1", "--set", "lanes=x"], "top1's lanes must be one of 8, 2, .*, not 'x'"),
    (["cosim", "top1", "--set", "lanes=4", "--set", "lanes=8"],
     "top1's lanes must be set once, not again to '8'"),
    (["cosim", "top1", "decoder", "top1"], "Each unit must be given once, not 'top1' again"),
    (["cycles", "--m", "1", "--k", "1", "--n", "1", "--set", "config.columns=3"],
     "config.columns: columns must be a power of two, not 3"),
    (["cosim", "top1", "--count", "0"], "--count must be at least 1, not 0"),
    (["cosim", "top1", "--vcd", "/no/such/folder/x.vcd"],
     "--vcd must lie in a folder that exists, not /no/such/folder"),
])
def test_errors_are_one_line(arguments, text, capsys):
    assert re.search(text, refused(arguments, capsys))


def test_vcd(tmp_path, capsys):
    assert command.main(["cosim", "top1", "--count", "3", "--vcd", str(tmp_path / "a.vcd")]) == 0
    assert (tmp_path / "a.vcd").read_text().count("$var") > 2
    assert command.main(["cosim", "top1", "top1_decode", "--count", "3",
                         "--vcd", str(tmp_path / "b.vcd")]) == 0
    assert {path.name for path in tmp_path.glob("b.*")} == {
        "b.top1.vcd", "b.top1.gtkw", "b.top1_decode.vcd", "b.top1_decode.gtkw"}
    # Each file is tried before the first unit runs.
    (tmp_path / "c.top1_decode.gtkw").mkdir()
    capsys.readouterr()
    assert command.main(["cosim", "top1", "top1_decode", "--count", "3",
                         "--vcd", str(tmp_path / "c.vcd")]) == 2
    assert capsys.readouterr().out == ""


def test_main_job_refuses_bad_options():
    done = subprocess.run([sys.executable, "-m", "hw", "--no-such"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.long
def test_lockstep_in_processes():
    """Parts of the groups in processes of their own give what one process gives."""
    layer = smollm2.load()
    operands = layer.activations[:1, :192], layer.weights[:1, :192]
    seen = []
    whole = lockstep(*operands, engine="amaranth")
    parts = lockstep(*operands, engine="amaranth", processes=2,
                              progress=lambda *step: seen.append(step))
    assert parts == whole and parts.groups == 6 and parts.group_mismatches == 0
    assert [step[1] for step in seen if step[0] == "quantization_engine"] == [3, 6]
    with pytest.raises(ValueError, match="processes must be 1 with vcd or stalls, not 2"):
        lockstep(*operands, stalls=0.5, processes=2)
