# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""The runner: faults of streams, deadlocks, inputs refused, stalls, times, mismatches."""

import numpy as np
import pytest
from amaranth import Module, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

import sim
from hw.lib.stream_register import StreamRegister
from hw.tools.packing import from_words, to_words
from hw.units.group_accumulator import GroupAccumulator
from hw.units.pe_tile import PETile
from hw.units.top1 import Top1
from tests.support.components import Sleeper, Source, Sums, Watched


class Faulty(wiring.Component):
    """A stream register with a fault.

    "swallow" gives nothing, "refuse" takes nothing, "stop" takes no more than three; "change" and
    "withdraw" break their word while stalled; "repeat" gives everything twice; "invent" goes on.
    """

    i: In(stream.Signature(8))
    o: Out(stream.Signature(8))

    latency = 1

    def __init__(self, fault):
        self.fault = fault
        super().__init__()

    def elaborate(self, platform):
        m = Module()

        m.submodules.register = register = StreamRegister(8)
        wiring.connect(m, wiring.flipped(self.i), register.i)
        wiring.connect(m, register.o, wiring.flipped(self.o))
        count = Signal(8)
        again = Signal()
        match self.fault:
            case "swallow":
                m.d.comb += [self.o.valid.eq(0), register.o.ready.eq(1)]
            case "refuse":
                m.d.comb += [self.i.ready.eq(0), register.i.valid.eq(0)]
            case "stop":
                with m.If(count == 3):
                    m.d.comb += [self.i.ready.eq(0), register.i.valid.eq(0)]
                with m.Elif(self.i.valid & self.i.ready):
                    m.d.sync += count.eq(count + 1)
            case "change":
                m.d.sync += count.eq(count + 1)
                m.d.comb += self.o.payload.eq(count)
            case "withdraw":
                m.d.sync += count.eq(count + 1)
                with m.If(count[0]):
                    m.d.comb += [self.o.valid.eq(0), register.o.ready.eq(0)]
            case "repeat":
                with m.If(self.o.valid & self.o.ready):
                    m.d.sync += again.eq(~again)
                m.d.comb += register.o.ready.eq(self.o.ready & again)
            case "invent":
                with m.If(self.o.valid & self.o.ready):
                    m.d.sync += count.eq(count + 1)
                with m.If(count == 4):
                    m.d.comb += self.o.valid.eq(1)

        return m


class Pairs(wiring.Component):
    """Sums of two successive payloads: half as many come out."""

    i: In(stream.Signature(8))
    o: Out(stream.Signature(9))

    latency = 1

    def elaborate(self, platform):
        m = Module()

        first = Signal(8)
        second = Signal()
        m.d.comb += [
            self.o.payload.eq(first + self.i.payload),
            self.o.valid.eq(self.i.valid & second),
            self.i.ready.eq(self.o.ready | ~second),
        ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [first.eq(self.i.payload), second.eq(~second)]

        return m


FOUR = {"i": np.arange(4)}


@pytest.mark.parametrize("fault, text", [
    ("swallow", "No transfer for 20 cycles: i took 4 of 4 (valid 0, ready 1); "
                "o gave 0 of 4 (valid 0, ready 1)"),
    ("refuse", "No transfer for 20 cycles: i took 0 of 4 (valid 1, ready 0); "
               "o gave 0 of 4 (valid 0, ready 1)"),
    ("stop", "No transfer for 20 cycles: i took 3 of 4 (valid 1, ready 0); "
             "o gave 3 of 4 (valid 0, ready 1)"),
])
def test_deadlock(fault, text):
    with pytest.raises(sim.Deadlock) as info:
        sim.run(Faulty(fault), FOUR, patience=20)
    assert str(info.value) == text
    with pytest.raises(sim.Deadlock):
        sim.run(Faulty(fault), FOUR, patience=20, stalls=0.5)


def test_missing_outputs_are_a_deadlock():
    with pytest.raises(sim.Deadlock, match="i took 4 of 4 .* o gave 4 of 5"):
        sim.run(Faulty(None), FOUR, outputs=5, patience=20)


@pytest.mark.parametrize("fault", ["change", "withdraw"])
def test_broken_word(fault):
    with pytest.raises(sim.ProtocolError,
                       match=r"^o withdrew or changed payload \d+ before it was taken$"):
        sim.run(Faulty(fault), {"i": np.arange(50)}, stalls=0.5)


@pytest.mark.parametrize("fault", ["repeat", "invent"])
@pytest.mark.parametrize("stalls", [0, 0.5])
def test_too_many_outputs(fault, stalls):
    with pytest.raises(sim.ProtocolError, match="^o sent more than 4 payloads$"):
        sim.run(Faulty(fault), FOUR, stalls=stalls)


def test_fewer_outputs_than_inputs():
    for stalls in 0, 0.5:
        outputs = sim.run(Pairs(), {"i": np.arange(10)}, outputs=5, stalls=stalls)
        assert outputs["o"].tolist() == [1, 5, 9, 13, 17]


LENGTHS = {"i_length": [2, 0, 3], "i_byte": [1, 2, 3, 4, 5]}
EMPTY = np.zeros(0, np.uint8)


@pytest.mark.parametrize("stalls", [0, 0.5])
def test_streams_of_different_lengths(stalls):
    counts = {"o_alarm": 0, "o_sum": 3, "o_copy": 5}
    outputs = sim.run(Sums(), LENGTHS, outputs=counts, stalls=stalls)
    assert {name: values.tolist() for name, values in outputs.items()} == {
        "o_copy": [1, 2, 3, 4, 5], "o_sum": [3, 0, 12], "o_alarm": []}
    assert {name: values.dtype for name, values in outputs.items()} == {
        "o_copy": "u1", "o_sum": "u2", "o_alarm": "u1"}


def test_streams_without_payloads():
    """An empty input, no input at all, and an empty structure."""
    outputs = sim.run(Sums(), {"i_length": [0, 0], "i_byte": EMPTY},
                      outputs={"o_copy": 0, "o_sum": 2, "o_alarm": 0})
    assert outputs["o_sum"].tolist() == [0, 0]
    statistics, times = {}, {}
    outputs = sim.run(Source(3), {}, outputs=3, statistics=statistics, times=times)
    assert outputs["o"].tolist() == times["o"].tolist() == [0, 1, 2]
    assert statistics["cycles"] == 3
    shape = data.ArrayLayout(data.StructLayout({"a": 3, "b": signed(40)}), 4)
    words = to_words(shape, {"a": np.zeros((0, 4), int), "b": np.zeros((0, 4), int)}, "x")
    assert words.shape == (0, 6)
    assert from_words(shape, words)["b"].shape == (0, 4)


@pytest.mark.parametrize("stalls", [0, 0.5])
def test_an_output_without_ready_is_always_taken(stalls):
    times = {}
    payloads = np.random.default_rng(6).integers(0, 256, 50)
    odd = payloads % 2 == 1
    outputs = sim.run(Watched(), {"i": payloads}, outputs={"o": 50, "o_odd": int(odd.sum())},
                      stalls=stalls, times=times)
    assert outputs["o_odd"].tolist() == payloads[odd].tolist()
    # It is told in the cycle in which the other output is taken, however that one stalls.
    assert times["o_odd"].tolist() == times["o"][odd].tolist()
    with pytest.raises(sim.ProtocolError, match="^o_odd sent more than 2 payloads$"):
        sim.run(Watched(), {"i": [1, 3, 5]}, outputs={"o": 3, "o_odd": 2}, stalls=stalls)


@pytest.mark.parametrize("counts, name, count", [
    # Of the first one is watched after all are complete, of the others while copies are missing.
    ({"o_copy": 15, "o_sum": 0, "o_alarm": 1}, "o_sum", 0),
    ({"o_copy": 15, "o_sum": 1, "o_alarm": 0}, "o_alarm", 0),
    ({"o_copy": 14, "o_sum": 1, "o_alarm": 1}, "o_copy", 14),
])
@pytest.mark.parametrize("stalls", [0, 0.5])
def test_complete_outputs_are_watched(counts, name, count, stalls):
    with pytest.raises(sim.ProtocolError, match=f"^{name} sent more than {count} payloads$"):
        sim.run(Sums(), {"i_length": [15], "i_byte": np.arange(15)}, outputs=counts, stalls=stalls)


def test_deadlock_names_all_streams():
    with pytest.raises(sim.Deadlock) as info:
        sim.run(Sums(), {"i_length": [2, 3, 1], "i_byte": [1, 2, 3]}, patience=20,
                outputs={"o_copy": 6, "o_sum": 3, "o_alarm": 0})
    assert str(info.value) == (
        "No transfer for 20 cycles: i_length took 2 of 3 (valid 1, ready 0); "
        "i_byte took 3 of 3 (valid 0, ready 1); o_copy gave 3 of 6 (valid 0, ready 1); "
        "o_sum gave 1 of 3 (valid 0, ready 1); o_alarm gave 0 of 0 (valid 0, ready 1)")


@pytest.mark.parametrize("stalls", [0, 0.8])
def test_an_output_may_be_silent_while_others_are_not(stalls):
    """The only sum comes after 15 copies; pauses are not counted either."""
    outputs = sim.run(Sums(), {"i_length": [15], "i_byte": np.arange(15)}, patience=2,
                      outputs={"o_copy": 15, "o_sum": 1, "o_alarm": 1}, stalls=stalls)
    assert outputs["o_sum"].tolist() == [105]


def test_patience_is_exact():
    inputs = {"i": [0, 3, 9, 2]}
    assert sim.run(Sleeper(), inputs, patience=10)["o"].tolist() == inputs["i"]
    with pytest.raises(sim.Deadlock, match="^No transfer for 9 cycles: i took 2 of 4 "):
        sim.run(Sleeper(), inputs, patience=9)
    # An input's transfer counts too: here every other cycle has no output.
    assert len(sim.run(Pairs(), {"i": np.arange(10)}, outputs=5, patience=1)["o"]) == 5


def test_times():
    times, statistics = {}, {}
    sim.run(Sums(), {"i_length": [2, 0, 1], "i_byte": [1, 2, 3, 4]}, times=times,
            outputs={"o_copy": 3, "o_sum": 3, "o_alarm": 0}, statistics=statistics)
    assert {name: cycles.tolist() for name, cycles in times.items()} == {
        "i_length": [0, 4, 6], "i_byte": [1, 2, 7], "o_copy": [1, 2, 7], "o_sum": [3, 5, 8],
        "o_alarm": []}
    assert {cycles.dtype for cycles in times.values()} == {np.dtype(np.uint64)}
    assert statistics["cycles"] == 9


def test_times_of_ports():
    times = {}
    sim.run(PETile(depth=2), TILE, times=times)
    assert times["lane"].tolist() == [0, 1]
    assert [times[name].tolist() for name in times if name not in TILE] == [[2, 3]]


ACCUMULATION = {"sum": [1, 2], "activation_scale": [1, 2], "weight_scale": [1, 2], "acc": [1, 2]}
TILE = {"activations": [[1] * 8] * 2, "lane": [1, 1], "weights": [[1] * 8] * 2, "meta": [0, 1],
        "refinement": {"shift": [0, 0], "negative": [0, 0], "zero": [1, 1]}}


@pytest.mark.parametrize("component, inputs, options, error, text", [
    (Top1, {}, {}, ValueError, "inputs must be codes, not none"),
    (Top1, {"code": [[0] * 8]}, {}, ValueError, "inputs must be codes, not code"),
    (PETile, TILE | {"enable": [1, 1]}, {}, ValueError,
     "inputs must be activations, lane, meta, refinement, weights, "
     "not activations, enable, lane, meta, refinement, weights"),
    (PETile, TILE | {"meta": [0]}, {}, ValueError,
     "inputs must have equally many rows, not [1, 2]"),
    (Top1, {"codes": [[0] * 8]}, {"outputs": 0}, ValueError, "outputs must be at least 1, not 0"),
    (PETile, TILE | {"meta": np.array([], np.uint8)}, {}, ValueError,
     "inputs must have equally many rows, not [0, 2]"),
    (Top1, {"codes": np.zeros((2, 8))}, {}, TypeError,
     "codes must be an array of integers, not float64"),
    (Top1, {"codes": "codes"}, {}, TypeError, "codes must be an array of integers, not <U5"),
    (Top1, {"codes": [[16] * 8]}, {}, ValueError, "codes must be within 0 and 15, not 16 to 16"),
    (Top1, {"codes": [[-1] * 8]}, {}, ValueError, "codes must be within 0 and 15, not -1 to -1"),
    (Top1, {"codes": [[0] * 7]}, {}, ValueError,
     "codes must have 8 entries along its last axis, not shape (1, 7)"),
    (Top1, {"codes": [0] * 8}, {}, ValueError,
     "codes must have 8 entries along its last axis, not shape (8,)"),
    (GroupAccumulator, {"i": [1, 2]}, {}, TypeError,
     "i must be a mapping with keys sum, activation_scale, weight_scale, acc, not list"),
    (GroupAccumulator, {"i": {"sum": [1], "acc": [1]}}, {}, TypeError,
     "i must be a mapping with keys sum, activation_scale, weight_scale, acc, "
     "not a mapping with keys sum, acc"),
    (GroupAccumulator, {"i": ACCUMULATION | {"sum": [262144, 0]}}, {}, ValueError,
     "i.sum must be within -262144 and 262143, not 0 to 262144"),
    (GroupAccumulator, {"i": ACCUMULATION | {"sum": [0, -262145]}}, {}, ValueError,
     "i.sum must be within -262144 and 262143, not -262145 to 0"),
    (Sums, LENGTHS, {}, ValueError, "inputs must have equally many rows, not [3, 5]"),
    (Sums, {"i_length": EMPTY, "i_byte": EMPTY}, {}, ValueError,
     "inputs must have at least one row, not 0"),
    (Sums, LENGTHS, {"outputs": {"o_sum": 3, "o_copy": 5}}, ValueError,
     "outputs must be o_copy, o_sum, o_alarm, not o_sum, o_copy"),
    (Sums, LENGTHS, {"outputs": {}}, ValueError,
     "outputs must be o_copy, o_sum, o_alarm, not none"),
    (Sums, LENGTHS, {"outputs": {"o_sum": 0, "o_copy": 0, "o_alarm": 0}}, ValueError,
     "outputs must be at least 1 for some stream, not 0 for all"),
    (Sums, LENGTHS, {"outputs": {"o_sum": -1, "o_copy": 0, "o_alarm": 0}}, ValueError,
     "outputs['o_sum'] must be at least 0, not -1"),
    (Sums, LENGTHS, {"outputs": {"o_sum": 1, "o_copy": 2.0, "o_alarm": 0}}, TypeError,
     "outputs['o_copy'] must be an integer, not 2.0"),
    (Sums, LENGTHS, {"outputs": True}, TypeError, "outputs must be an integer, not True"),
    (lambda: Source(3), {}, {}, ValueError, "outputs must be given for a component without inputs"),
    (Top1, {"codes": [[0] * 8]}, {"outputs": {"lane": 1}}, TypeError,
     "outputs must be an integer for ports that are not streams, not a mapping"),
    (Top1, {"codes": [[0] * 8]}, {"outputs": 2}, ValueError,
     "outputs must be at most 1, the rows of ports that are not streams, not 2"),
    (Top1, {"codes": [[0] * 8]}, {"patience": 0}, ValueError,
     "patience must be at least 1, not 0"),
    *[(Top1, {"codes": [[0] * 8]}, {"stalls": stalls}, ValueError,
       f"stalls must be at least 0 and below 1, not {stalls!r}") for stalls in (-0.1, 1, 1.5)],
    (lambda: StreamRegister(8), {"i": [1]}, {"stalls": {"i": 0.5}}, ValueError,
     "stalls must be of i, o, not of i"),
    (lambda: StreamRegister(8), {"i": [1]}, {"stalls": {"i": 0.5, "o": 1}}, ValueError,
     "stalls must be at least 0 and below 1, not 1"),
    (Top1, {"codes": [[0] * 8]}, {"stalls": {"codes": 0.5}}, ValueError,
     "stalls must be of no stream, not of codes"),
])
def test_wrong_input(component, inputs, options, error, text):
    with pytest.raises(error) as info:
        sim.run(component(), inputs, **options)
    assert str(info.value) == text


def test_stalls_of_each_stream():
    """Only the stream that pauses leaves gaps."""
    for paused in "io":
        times = {}
        outputs = sim.run(StreamRegister(8), {"i": np.arange(40)}, seed=1, times=times,
                          stalls={"i": 0.5 * (paused == "i"), "o": 0.5 * (paused == "o")})
        assert outputs["o"].tolist() == [*range(40)]
        gaps = np.diff(times["o"].astype(int))
        assert gaps.max() > 1
        # A source that never pauses is taken again as soon as the register is free.
        assert (paused == "i") == (times["o"][0] - times["i"][0] == 1 and
                                   bool((times["o"] - times["i"] == 1).all()))


@pytest.mark.parametrize("component, inputs", [
    # Axes too many, fields of unequal length, no rows: never a run on something else.
    (PETile, TILE | {"meta": [[0, 1], [2, 3]]}),
    (PETile, TILE | {"meta": 1}),
    (Top1, {"codes": np.zeros((2, 3, 8), np.uint8)}),
    (Top1, {"codes": np.zeros((0, 8), np.uint8)}),
    (GroupAccumulator, {"i": ACCUMULATION | {"acc": [1]}}),
    (GroupAccumulator, {"i": {name: [[1, 1], [1, 1]] for name in ACCUMULATION}}),
])
def test_wrong_form(component, inputs):
    with pytest.raises((TypeError, ValueError), match=r"^[\w.]+ must "):
        sim.run(component(), inputs)


@pytest.mark.parametrize("component, inputs", [
    (Top1, {"codes": [[0] * 8] * 3}),
    (lambda: PETile(depth=2), TILE),
    (GroupAccumulator, {"i": ACCUMULATION}),
])
def test_waveform(component, inputs, tmp_path):
    path = tmp_path / "run.vcd"
    sim.run(component(), inputs, vcd=path)
    text = path.read_text()
    assert "$enddefinitions" in text
    assert text.count("\n#") > 1
    for name in inputs:
        assert name in text


def test_progress():
    for component, stalls in (Faulty(None), 0), (Faulty(None), 0.5):
        seen = []
        sim.run(component, FOUR, stalls=stalls, progress=seen.append)
        assert seen == [1, 2, 3, 4]
    seen = []
    sim.run(PETile(depth=1), TILE, stalls=0.5, progress=seen.append)
    assert seen == [1, 2]


def cycles(stalls, seed, tmp_path):
    """Last time in the waveform."""
    path = tmp_path / "run.vcd"
    sim.run(Faulty(None), {"i": np.arange(40)}, stalls=stalls, seed=seed, vcd=path)
    return [line for line in path.read_text().splitlines() if line.startswith("#")][-1]


def test_stalls_depend_on_the_seed_alone(tmp_path):
    first = [cycles(0.5, seed, tmp_path) for seed in range(4)]
    assert first == [cycles(0.5, seed, tmp_path) for seed in range(4)]
    assert len(set(first)) > 1
    assert len({cycles(0, seed, tmp_path) for seed in range(3)}) == 1


@pytest.mark.parametrize("outputs, expected, differ", [
    ({"a": [1, 2, 3]}, {"a": [1, 5, 3]}, [False, True, False]),
    ({"a": [[1, 2], [3, 4]]}, {"a": [[1, 2], [3, 5]]}, [False, True]),
    ({"a": {"b": [1, 2], "c": [3, 4]}}, {"a": {"b": [1, 2], "c": [0, 4]}}, [True, False]),
    ({"a": [255]}, {"a": [-1]}, [True]),
    ({"a": [1, 2, 3], "b": [4], "c": []}, {"a": [1, 2, 0], "b": [5], "c": []},
     [True, False, True]),
])
def test_mismatches(outputs, expected, differ):
    assert sim.mismatches(arrays(outputs), arrays(expected)).tolist() == differ


def arrays(values):
    if isinstance(values, dict):
        return {name: arrays(value) for name, value in values.items()}
    return np.array(values)


def test_mismatches_of_another_form():
    with pytest.raises(ValueError, match=r"^outputs must have shape \(2,\), not \(1,\)$"):
        sim.mismatches({"a": np.zeros(1)}, {"a": np.zeros(2)})
    with pytest.raises(ValueError, match="^outputs must be a, not b$"):
        sim.mismatches({"b": np.zeros(1)}, {"a": np.zeros(1)})


def test_smallest_types():
    for shape, dtype in ((1, "u1"), (8, "u1"), (9, "u2"), (17, "u4"), (33, "u8"), (64, "u8"),
                         (signed(1), "i1"), (signed(9), "i2"), (signed(64), "i8")):
        outputs = sim.run(StreamRegister(shape), {"i": np.zeros(2, int)})
        assert outputs["o"].dtype == dtype
