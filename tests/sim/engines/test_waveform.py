# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""Waveforms as a viewer shows them."""

import re

import numpy as np
import pytest
from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

import sim
import sim.__main__ as command
from hw import registry
from hw.lib.stream_register import StreamRegister
from sim.engines import waveform


class TwoStages(wiring.Component):
    """A submodule's name is that of a signal, and both stages have ports of the same names."""

    i: In(stream.Signature(8))
    o: Out(stream.Signature(8))
    latency = 2

    def elaborate(self, platform):
        m = Module()

        m.submodules.first = first = StreamRegister(8)
        m.submodules.second = second = StreamRegister(8)
        wiring.connect(m, wiring.flipped(self.i), first.i)
        wiring.connect(m, first.o, second.i)
        wiring.connect(m, second.o, wiring.flipped(self.o))
        busy = Signal(name="first")
        m.d.sync += busy.eq(self.i.valid)

        return m


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("wave") / "run.vcd"
    values = np.arange(5)
    assert sim.run(TwoStages(), {"i": values}, vcd=path)["o"].tolist() == values.tolist()
    return path


def test_failure_leaves_the_waveform_up_to_there(tmp_path, monkeypatch):
    """And an interrupt, or a full disk, the one that was there."""
    path = tmp_path / "run.vcd"
    path.write_text("old")
    for error in KeyboardInterrupt, OSError:
        with pytest.raises(error):
            sim.run(TwoStages(), {"i": np.arange(5)}, vcd=path, progress=raiser(error))
        assert [*tmp_path.iterdir()] == [path]
        assert path.read_text() == "old"
    with pytest.raises(LookupError):
        sim.run(TwoStages(), {"i": np.arange(5)}, vcd=path, progress=raiser(LookupError))
    assert "\n#" in path.read_text()
    assert {file.name for file in tmp_path.iterdir()} == {"run.vcd", "run.gtkw"}


def raiser(error):
    def progress(received):
        raise error

    return progress


def scopes(text):
    """Names of the signals by the scope they are in."""
    found, path = {}, []
    for line in text.split("$enddefinitions")[0].splitlines():
        words = line.split()
        if words[:1] == ["$scope"]:
            path.append(words[2])
        elif words[:1] == ["$upscope"]:
            path.pop()
        elif words[:1] == ["$var"]:
            found.setdefault(".".join(path), []).append(words[4])
    return found


def test_scopes_and_names(written):
    text = written.read_text()
    found = scopes(text)
    assert found.keys() == {"bench.two_stages", "bench.two_stages.first", "bench.two_stages.second"}
    assert {"i__payload", "o__valid"} <= {*found["bench.two_stages.first"]}
    assert not re.search(r"\$\d", text.split("$enddefinitions")[0].replace("$end", ""))


def test_time_is_in_picoseconds(written):
    text = written.read_text()
    assert "$timescale 1 ps $end" in text
    times = [int(time) for time in re.findall(r"^#(\d+)$", text, re.M)]
    # Both edges of a clock of a nanosecond.
    assert times[:4] == [0, 500, 1000, 1500] and times == sorted({*times})


def test_what_is_shown(written):
    lines = waveform.save_file(written).read_text().splitlines()
    assert lines[0] == f'[dumpfile] "{written}"'
    shown = [line.removeprefix("bench.two_stages.") for line in lines if line.startswith("bench.")]
    assert shown == ["clk", "rst", "i__payload[7:0]", "i__valid", "i__ready",
                     "o__payload[7:0]", "o__valid", "o__ready"]
    names = scopes(written.read_text())["bench.two_stages"]
    assert {name.partition("[")[0] for name in shown} <= {*names}


@pytest.mark.parametrize("name", [*registry.UNITS, *registry.ASSEMBLIES])
def test_scope_is_the_name_of_the_unit(name):
    component = registry.offered()[name].component
    assert waveform.scope(component.__new__(component)) == name


@pytest.mark.parametrize("arguments, expected", [
    (["gemm", "--m", "64", "--k", "576", "--n", "1536"],
     r"note: --vcd is of Amaranth's simulator, which takes about \d+ min for [\d,]+ cycles\n"),
    (["lockstep"], r"note: --vcd is .* takes about \d+ min for 9,792 transfers\n"),
    (["gemm", "--m", "1", "--k", "32", "--n", "4", "--config", "lite"], ""),
])
def test_long_waveforms_are_announced(arguments, expected, tmp_path, monkeypatch, capsys):
    class Started(Exception):
        pass

    def start(*_, **options):
        raise Started

    monkeypatch.setattr(command.gemm, "measure", start)
    monkeypatch.setattr(command.gemm, "random_product", lambda m, k, n, *, source, result, **_: {
        "m": m, "k": k, "n": n, "source": source, "result": result})
    monkeypatch.setattr(command, "lockstep", start)
    with pytest.raises(Started):
        command.main([*arguments, "--vcd", str(tmp_path / "a.vcd")])
    assert re.fullmatch(expected, capsys.readouterr().err)


def test_save_file_is_tried_too(tmp_path, capsys):
    (tmp_path / "a.gtkw").mkdir()
    assert command.main(["cosim", "top1", "--vcd", str(tmp_path / "a.vcd")]) == 2
    assert "--vcd must be a regular file, not the folder " in capsys.readouterr().err
