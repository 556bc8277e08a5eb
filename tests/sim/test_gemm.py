# SPDX-License-Identifier: BSD-2-Clause
"""The commands that run whole products, and their plots."""

import re
import sys

import numpy as np
import pytest

import sim.__main__ as command
from golden import matmul, quantize_weights
from golden.accelerator import planner
from sim import gemm, plot

SMALL = ["gemm", "--config", "lite", "--m", "3", "--k", "40", "--n", "7"]


def refused(arguments, capsys):
    try:
        status = command.main(arguments)
    except SystemExit as stop:
        status = stop.code
    assert status != 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    return printed.err


@pytest.mark.long
@pytest.mark.parametrize("source", ["records", "values"])
def test_gemm_prints_a_report(source, capsys):
    assert command.main([*SMALL, "--source", source, "--stalls", "0.2", "--seed", "3"]) == 0
    first, engine, done, cycles, speed = capsys.readouterr().out.splitlines()
    assert first == f"M x K x N = 3 x 40 x 7 on config lite: {source} in, values out"
    assert re.fullmatch(r"  engine (verilator|cxxrtl|amaranth), built or loaded in \d+\.\d s",
                        engine)
    assert done == "  command: DONE, 6 rows of results, 0 mismatches against golden"
    count, share = re.fullmatch(
        r"  (\d+) cycles, utilisation (\d+\.\d) % of 128 MACs per cycle", cycles).groups()
    assert float(share) == pytest.approx(100 * 3 * 40 * 7 / (128 * int(count)), abs=0.05)
    assert re.fullmatch(r"  simulated in \d+\.\d\d s, [\d,]+ cycles/s", speed)


def test_seed_decides_the_data():
    options = {"config": "lite", "source": planner.RECORDS, "result": planner.VALUES_OUT}
    first, same, other = (gemm.random_product(2, 40, 3, seed=seed, **options)
                          for seed in (0, 0, 1))
    assert first["a"].records().tobytes() == same["a"].records().tobytes()
    for name in "aw":
        assert first[name].records().tobytes() != other[name].records().tobytes()


def test_quantizing_in_parts_changes_nothing(monkeypatch):
    x = np.random.default_rng(0).standard_t(3, (7, 40)).astype(np.float32)
    monkeypatch.setattr(gemm, "_AT_ONCE", 80)
    parts = gemm._quantized(quantize_weights, x)
    assert parts.shape == (7, 40)
    assert parts.records().tobytes() == quantize_weights(x).records().tobytes()


@pytest.mark.long
def test_gemm_counts_mismatches(monkeypatch, capsys):
    def wrong(a, w):
        y = matmul(a, w)
        y[1, 2] = np.nextafter(y[1, 2], np.float32(np.inf))
        return y

    monkeypatch.setattr("golden.accelerator.accelerator.matmul", wrong)
    assert command.main(SMALL) == 1
    assert "DONE, 6 rows of results, 1 mismatches" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "text"), [
    (["--m", "0"], "--m must be within 1 and 1048575, not 0"),
    (["--k", "1048576"], "--k must be within 1 and 1048575, not 1048576"),
    (["--n", "-1"], "--n must be within 1 and 1048575, not -1"),
    (["--n", "x"], "argument --n: invalid int value: 'x'"),
    (["--config", "huge"], "config must be one of paper, .*, not 'huge'"),
    (["--source", "kept"], "argument --source: invalid choice: 'kept'.*records"),
    (["--result", "records"], "--result must be values with config lite, not records"),
    (["--stalls", "1"], "--stalls must be at least 0 and below 1, not 1.0"),
    (["--plot", "a.pdf"], "--plot must end in .png or .svg, not a.pdf"),
    (["--plot", "/no/such/folder/a.png"],
     "--plot must lie in a folder that exists, not /no/such/folder"),
    (["--vcd", "/no/such/folder/a.vcd"], "--vcd must lie in a folder that exists"),
    (["--m", "1000000", "--k", "1000000", "--n", "1000000"],
     r"must be such that .* fit half of this computer's \d+ GB, not 1000000 x 1000000 x 1000000"),
])
def test_errors_of_gemm_are_one_line(arguments, text, capsys):
    if "fit half" in text and gemm.physical_memory() is None:
        pytest.skip("this machine does not say how much memory it has")
    assert re.search(text, refused([*SMALL, *arguments], capsys))


@pytest.mark.parametrize(("arguments", "text"), [
    (["--tokens", "0"], "--tokens must be within 1 and 32 with config paper, not 0"),
    (["--tokens", "33"], "--tokens must be within 1 and 32 with config paper, not 33"),
    # The activation buffer of 2048 records holds 31 times 18 + 48.
    (["--config", "decode"], "--tokens must be within 1 and 31 with config decode, not 32"),
    (["--config", "lite"], "--config must be one that .* keeps results, with 32 columns, not lite"),
    (["--set", "config.encoding=sg-special64", "--set", "config.engine=sg-special64"],
     "--config must be one that .* keeps results, with 64 columns, not "),
    (["--config", "tiny", "--set", "config.encoding=sg-special64", "--set", "config.columns=64",
      "--set", "config.engine=sg-special64", "--set", "config.activations=32"],
     "activations must be at least 64, not 32"),
    (["--config", "tiny", "--set", "config.encoding=sg-special64", "--set", "config.columns=64",
      "--set", "config.engine=sg-special64", "--tokens", "2"],
     "--tokens must be within 1 and 1 with config "),
    (["--config", "tiny"],
     "--config must be one whose activation buffer holds the 66 records of a token, not tiny, "
     "which holds 64"),
])
def test_errors_of_layer_are_one_line(arguments, text, capsys):
    assert re.search(text, refused(["layer", *arguments], capsys))


def test_plot_needs_matplotlib(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "--plot needs matplotlib: pip install 'm2xfp-rtl[plot]'" in refused(
        [*SMALL, "--plot", str(tmp_path / "a.png")], capsys)


@pytest.mark.long
def test_plot(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    file = tmp_path / "a.png"
    assert command.main([*SMALL, "--plot", str(file)]) == 0
    assert file.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.endswith(f"  plot in {file}\n")


def test_plot_as_svg(tmp_path):
    """Several commands, and one of the streams idle."""
    pytest.importorskip("matplotlib")
    times = {"i_weight": [0, 1], "i_activation": [0, 5], "o": [], "o_trace": [3, 8]}
    shown = plot.windows(times, np.array([2, 3]), np.array([20, 30]), cycles=10, peak=10)
    plot.draw(tmp_path / "a.svg", shown, title="Title", ends=[5, 10], names=["up", "down"])
    assert "</svg>" in (tmp_path / "a.svg").read_text()


def test_utilisation():
    config = planner.CONFIGS["paper"]
    commands = [{"m": 2, "k": 33, "n": 31}, {"m": 1, "k": 1, "n": 2}]
    assert gemm.utilisation(config, commands, 4) == (2 * 33 * 31 + 2) / (32 * 32 * 4)


WIDE = planner.Config(columns=64, activations=64, rows=16, encoding="sg-special64",
                      engine="sg-special64")


@pytest.mark.parametrize("config", [*planner.CONFIGS, "wide"])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (1, 33, 70), (3, 40, 300), (17, 64, 33),
                                   (300, 3000, 65)])
def test_tiles_make_up_the_product(config, sizes):
    m, k, n = sizes
    config, group = planner.CONFIGS.get(config, WIDE), 64 if config == "wide" else 32
    one = {"m": m, "k": k, "n": n}
    rows, macs = gemm.tiles(config, [one])
    assert macs.sum() == m * k * n
    assert (macs <= rows * group * config.columns).all() and (macs > 0).all()
    assert rows.sum() == m * -(-k // group) * -(-n // config.columns)
    both = gemm.tiles(config, [one, {"m": 1, "k": 1, "n": 1}])
    assert both[1].tolist() == [*macs, 1]


@pytest.mark.long
def test_tiles_are_those_of_the_trace():
    """The array takes as many cycles for a tile as it meets activations."""
    one = gemm.random_product(300, 40, 9, config="lite", source=planner.RECORDS,
                              result=planner.VALUES_OUT, seed=0)
    seen = []
    measured = gemm.measure([one], config="lite", trace=True,
                            progress=lambda *counts: seen.append(counts))
    assert measured.mismatches == 0
    rows, _ = gemm.tiles(measured.config, [one])
    assert rows.tolist() == [150] * 12
    ends = measured.times["o_trace"].astype(int)
    assert np.diff(ends).tolist() == rows[1:].tolist()
    assert measured.ends.tolist() == [measured.cycles]
    # Rows of three tiles along N, tiles of weights, and the status.
    assert seen[-1] == (300 * 3 + 12 + 1,) * 2


def test_windows():
    """Two tiles of 4 and 2 activations; the second one waits two cycles and is half empty."""
    times = {"i_weight": [0, 1, 2, 3, 7], "i_activation": [0], "i_value": [], "o": [9],
             "o_trace": [5, 9]}
    shown = plot.windows(times, np.array([4, 2]), np.array([40, 10]), cycles=10, peak=10, count=5)
    assert shown.edges.tolist() == [0, 2, 6, 8, 10]
    assert shown.utilisation.tolist() == [0, 1, 0, 0.5]
    assert {lane: shares.tolist() for lane, shares in shown.activity.items()} == {
        "weights in": [1, 0.5, 0.5, 0], "activations in": [0.5, 0, 0, 0],
        "compute": [0, 1, 0, 1], "results out": [0, 0, 0, 0.5]}


@pytest.mark.parametrize("count", [30, 100, 400])
def test_windows_show_no_ripple(count):
    """Tiles that are all alike, each after a wait, whatever the number of windows."""
    ends = 20 + np.arange(1, 151) * 7
    shown = plot.windows({"i_weight": [], "o_trace": ends}, np.full(150, 4), np.full(150, 40),
                         cycles=int(ends[-1]) + 1, peak=10, count=count)
    # All but the first tile's load and the end of the run: whole tiles, or tiles and waits.
    inner = {*np.round(shown.utilisation[1:-2], 12)}
    assert inner == ({0.0, 1.0} if count == 400 else {round(40 / (7 * 10), 12)})
    assert 20 < len(shown.utilisation) <= count


@pytest.mark.parametrize("count", [1, 3, 7, 400])
def test_windows_keep_the_sum(count):
    """Together they have all that was done, and none has more than is possible."""
    rng = np.random.default_rng(count)
    rows = rng.integers(1, 20, 50)
    ends = np.cumsum(rows + rng.integers(0, 5, 50)) + 6
    macs = rows * rng.integers(1, 129, 50)
    times = {"i_weight": rng.permutation(900)[:300], "i_activation": [], "o": [], "o_trace": ends}
    cycles = int(ends[-1]) + 10
    shown = plot.windows(times, rows, macs, cycles=cycles, peak=128, count=count)
    assert len(shown.utilisation) <= count
    widths = np.diff(shown.edges)
    assert (shown.utilisation * widths).sum() * 128 == pytest.approx(macs.sum())
    assert (shown.activity["compute"] * widths).sum() == pytest.approx(rows.sum())
    assert shown.utilisation.max() < 1 + 1e-9
    assert shown.activity["compute"].max() < 1 + 1e-9
