# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""The array against golden: tiles of weights, order, stalls, reset in flight."""

import numpy as np
import pytest
from amaranth.hdl import Fragment, ResetInserter, Signal
from amaranth.sim import Simulator

import sim
from golden import matmul, quantize_activations, quantize_weights, reference, stimuli
from hw.lib.formats import has_specials, is_wide
from hw.tools import packing
from hw.units.mac_array import ENTRIES, MacArray
from tests.support import oracle
from tests.support.compare import check
from tests.support.marks import longer
from tests.support.testbench import shared, simulate


def operands(q):
    return {"elements": q.elements.reshape(*q.scales.shape, q.group),
            "metadata": q.metadata.reshape(*q.scales.shape, -1), "scale": q.scales}


def one_each(records):
    """Transfers of one record."""
    return {name: plane[:, None] for name, plane in records.items()}


def tile(planes, group):
    return {name: plane[:, group] for name, plane in planes.items()}


def group_steps(a, w):
    """Inputs of the array for a product whose rows of weights fit it: a tile per group."""
    rows, groups = a.scales.shape
    x, y = operands(a), operands(w)

    def joined(tiles):
        return {name: np.concatenate([t[name] for t in tiles]) for name in tiles[0]}

    acc = [np.zeros((rows, len(w.scales)), np.uint32)]
    for g in range(1, groups):
        def head(q, g=g):
            columns = q.group * g
            return {"kind": q.kind, "encoding": q.encoding, "shape": (q.shape[0], columns),
                    "elements": q.elements[:, :columns], "group": q.group,
                    "metadata": q.metadata[:, : columns // 8], "scales": q.scales[:, :g]}
        acc.append(matmul(type(a)(**head(a)), type(w)(**head(w))).view(np.uint32))
    last = np.tile(np.arange(rows) == rows - 1, groups).astype(np.uint8)
    return {"i_weight": one_each(joined([tile(y, g) for g in range(groups)])),
            "i_activation": {"record": joined([tile(x, g) for g in range(groups)]), "last": last},
            "i_acc": np.concatenate(acc)}


METADATA = pytest.mark.parametrize("metadata", [True, False])


@METADATA
@pytest.mark.parametrize("columns, weight_width, stalls, count, depth", [
    (1, 1, 0.5, 40, 5), (2, 2, 0.0, 12, 5), (1, 1, 0.3, 20, 13),
    *(pytest.param(*case, 5, marks=pytest.mark.long) for case in [
        (1, 1, 0.0, 200), (1, 1, 0.5, 200), (3, 1, 0.0, 120), (3, 1, 0.4, 120), (4, 1, 0.8, 40),
        (3, 3, 0.3, 120), (4, 2, 0.3, 80), (4, 4, 0.0, 80)]),
    *(pytest.param(*case, depth, marks=pytest.mark.long) for depth in (13, 17)
      for case in [(1, 1, 0.5, 100), (3, 1, 0.0, 60), (4, 2, 0.3, 60)])])
def test_golden(columns, weight_width, stalls, count, metadata, depth):
    parameters = {"columns": columns, "weight_width": weight_width, "metadata": metadata,
                  "depth": depth}
    inputs = stimuli.mac_array(np.random.default_rng(columns), count, **parameters)
    expected = reference.mac_array(inputs, **parameters)
    check(shared(MacArray, **parameters), inputs, expected, stalls=stalls, outputs=count)


@pytest.mark.parametrize("encoding, depth, columns, stalls, count", [
    ("sg-em", 5, 1, 0.3, 40), longer("sg-special", 5, 1, 0.3, 40), ("sg-special", 13, 1, 0.3, 20),
    ("sg-special64", 5, 1, 0.3, 12), longer("sg-special64", 13, 1, 0.3, 20),
    *(longer(encoding, depth, columns, stalls, 80 // columns // (1 + is_wide(encoding)))
      for encoding in ("sg-em", "sg-special", "sg-special64") for depth in (5, 13, 17)
      for columns, stalls in ((1, 0), (3, 0.4)))])
def test_encodings(encoding, depth, columns, stalls, count):
    parameters = {"columns": columns, "weight_width": 1, "metadata": True, "depth": depth,
                  "encoding": encoding}
    inputs = stimuli.mac_array(np.random.default_rng(columns), count, **parameters)
    expected = reference.mac_array(inputs, **parameters)
    check(shared(MacArray, **parameters), inputs, expected, stalls=stalls, outputs=count)


KINDS = {"elem-em": ("activation", "weight"), "sg-em": ("weight", "weight"),
         "sg-special": ("special", "special"), "sg-special64": ("special64", "special64")}


@pytest.mark.parametrize("encoding", [
    "elem-em", longer("sg-em"), "sg-special", longer("sg-special64")])
def test_matrix_product_against_rational_arithmetic(encoding):
    rng = np.random.default_rng(3)
    k = 192 if encoding == "sg-special64" else 96
    x, y = (rng.standard_normal(shape).astype(np.float32) for shape in ((5, k), (2, k)))
    a = quantize_activations(x, encoding=encoding)
    w = quantize_weights(y, encoding=encoding if has_specials(encoding) else "sg-em")
    out = sim.run(MacArray(columns=2, encoding=encoding), group_steps(a, w), outputs=15,
                  stalls=0.2)["o"]
    expected = oracle.matmul(oracle.records(a), oracle.records(w), *KINDS[encoding])
    assert out[-5:].tolist() == expected.tolist()


@pytest.mark.parametrize("encoding, element, scale, total", [
    ("sg-em", 7, 127, 225792), ("sg-special", 8, 4 * 31 + 2, 401408),
    ("sg-special64", 8, 4 * 31 + 2, 3211264)])
@pytest.mark.parametrize("depth", [5, pytest.param(13, marks=pytest.mark.long),
                                   pytest.param(17, marks=pytest.mark.long)])
def test_largest_sums(encoding, element, scale, total, depth):
    """All elements of the largest magnitude under the largest factors, of either sign."""
    # The selector 2 is +8 and 3 is -8; of Sg-EM the code's own sign bit turns it.
    special, wide = has_specials(encoding), encoding == "sg-special64"
    group = 64 if wide else 32
    signs = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    activation, weight = (
        {"elements": np.repeat(element + 8 * signs[:, side : side + 1] * (not special), group,
                               axis=1),
         "metadata": np.full((4, group // 8), 7 if wide else 3),
         "scale": scale + signs[:, side] * special}
        for side in range(2))
    inputs = {"i_weight": one_each(weight), "i_acc": np.zeros((4, 1), np.uint32),
              "i_activation": {"record": activation, "last": np.ones(4, np.uint8)}}
    expected = np.where(signs[:, 0] == signs[:, 1], total, -total).astype(np.float32) / 64
    check(shared(MacArray, columns=1, depth=depth, encoding=encoding), inputs,
          {"o": expected.view(np.uint32)[:, None]}, outputs=4)


def test_encodings_that_there_are():
    with pytest.raises(ValueError, match="^Encoding must be 'elem-em', 'sg-em', 'sg-special' or "
                                         "'sg-special64', not 'mixed'$"):
        MacArray(encoding="mixed")
    with pytest.raises(ValueError, match="^Encoding must be 'elem-em' without metadata, "
                                         "not 'sg-em'$"):
        MacArray(metadata=False, encoding="sg-em")


def test_plain_records_against_metadata_that_do_nothing():
    """MXFP4 is what M2XFP is with factors of one and nothing refined."""
    parameters = {"columns": 2, "weight_width": 1}
    inputs = stimuli.mac_array(np.random.default_rng(4), 300, **parameters, metadata=False)
    plain = reference.mac_array(inputs, **parameters, metadata=False)["o"]
    inputs["i_weight"]["metadata"] = np.zeros((len(inputs["i_weight"]["scale"]), 1, 4), np.uint8)
    inputs["i_activation"]["record"]["metadata"] = np.ones((300, 4), np.uint8)
    assert plain.tolist() == reference.mac_array(inputs, **parameters, metadata=True)["o"].tolist()


def test_plain_matrix_product_against_rational_arithmetic():
    rng = np.random.default_rng(5)
    a = quantize_activations(rng.standard_normal((5, 96)).astype(np.float32))
    w = quantize_weights(rng.standard_normal((2, 96)).astype(np.float32))
    a.metadata[:], w.metadata[:] = 1, 0
    inputs = group_steps(a, w)
    del inputs["i_weight"]["metadata"], inputs["i_activation"]["record"]["metadata"]
    out = sim.run(MacArray(columns=2, metadata=False), inputs, outputs=15, stalls=0.2)["o"]
    expected = oracle.matmul(oracle.records(a), oracle.records(w))
    assert out[-5:].tolist() == expected.tolist()


def test_plain_records_hold_no_metadata():
    def widths(array):
        members = array.signature.members
        return [members[name].signature.members["payload"].shape.size
                for name in ("i_weight", "i_activation")]

    assert widths(MacArray(columns=2)) == [144, 145]
    assert widths(MacArray(columns=2, metadata=False)) == [136, 137]
    assert widths(MacArray(columns=2, encoding="sg-special64")) == [288, 289]


def cycles(array, inputs, count):
    """Cycles from the first activation offered to the last output, everything always offered."""
    found = []
    streams = {}
    for name in ("i_weight", "i_activation", "i_acc"):
        member = array.signature.members[name]
        shape = member.signature.members["payload"].shape
        streams[name] = packing.to_integers(packing.to_bits(shape, inputs[name], name))

    def driver(name):
        async def drive(ctx):
            port = getattr(array, name)
            for payload in streams[name]:
                ctx.set(port.payload.as_value(), payload)
                ctx.set(port.valid, 1)
                while not (await ctx.tick().sample(port.ready))[-1]:
                    pass
            ctx.set(port.valid, 0)
        return drive

    async def monitor(ctx):
        ctx.set(array.o.ready, 1)
        cycle = 0
        while len(found) < count:
            _, _, valid = await ctx.tick().sample(array.o.valid)
            cycle += 1
            if valid:
                found.append(cycle)

    simulator = Simulator(array)
    simulator.add_clock(1e-9)
    for name in streams:
        simulator.add_testbench(driver(name), background=True)
    simulator.add_testbench(monitor)
    simulator.run()
    return found


@pytest.mark.parametrize("metadata, depth, latency, encoding", [
    (True, 5, 5, "elem-em"), *(longer(*case) for case in [
        (False, 5, 5, "elem-em"), (True, 13, 13, "elem-em"), (False, 13, 12, "elem-em"),
        (True, 17, 17, "elem-em"), (False, 17, 16, "elem-em"), (True, 5, 5, "sg-special64"),
        (True, 13, 13, "sg-special64")])])
def test_no_stall_in_steady_state(metadata, depth, latency, encoding):
    """Tiles as long as loading one takes: after the first, an output leaves every cycle."""
    columns, tiles = 3, 4
    rng = np.random.default_rng(0)
    inputs = stimuli.mac_array(rng, columns * tiles, columns=columns, weight_width=1,
                               metadata=metadata, encoding=encoding)
    inputs["i_activation"]["last"][:] = np.tile([0, 0, 1], tiles)
    weights = stimuli.records(rng, columns * tiles, wide=encoding == "sg-special64")
    if not metadata:
        del weights["metadata"]
    inputs["i_weight"] = one_each(weights)
    array = MacArray(columns=columns, metadata=metadata, depth=depth, encoding=encoding)
    assert array.latency == latency
    found = cycles(array, inputs, columns * tiles)
    assert np.diff(found).tolist() == [1] * (columns * tiles - 1)
    # The first tile takes its load and one cycle for the swap, in which the activation waits in the
    # last register before the tiles.
    assert found[0] == columns + 1 + array.latency - (ENTRIES[depth] - 1)


@pytest.mark.parametrize("metadata, depth, encoding", [
    (True, 5, "elem-em"), longer(False, 5, "elem-em"), longer(True, 5, "sg-special64"),
    longer(True, 13, "sg-special64"),
    *(longer(metadata, depth, "elem-em") for metadata in (True, False) for depth in (13, 17))])
def test_reset_in_flight(metadata, depth, encoding):
    """After a reset the array waits for weights again and computes as if new."""
    rng = np.random.default_rng(1)
    parameters = {"columns": 2, "weight_width": 1, "metadata": metadata, "encoding": encoding}
    inputs = stimuli.mac_array(rng, 6, **parameters)
    inputs["i_activation"]["last"][:] = 0
    expected = reference.mac_array(inputs, **parameters)["o"]
    array = MacArray(depth=depth, **parameters)
    reset = Signal()
    rows = {name: packing.to_integers(packing.to_bits(
        array.signature.members[name].signature.members["payload"].shape, inputs[name], name))
        for name in inputs}
    received = []

    async def offer(ctx, cycles):
        """Offers all inputs from the first one on; returns the results of these cycles."""
        results = []
        position = dict.fromkeys(rows, 0)
        for _ in range(cycles):
            for name in rows:
                port = getattr(array, name)
                ctx.set(port.valid, position[name] < len(rows[name]))
                if position[name] < len(rows[name]):
                    ctx.set(port.payload.as_value(), rows[name][position[name]])
            taken = {name: ctx.get(getattr(array, name).ready)
                     and position[name] < len(rows[name]) for name in rows}
            if ctx.get(array.o.valid):
                results.append([ctx.get(value) for value in array.o.payload])
            await ctx.tick()
            for name in rows:
                position[name] += bool(taken[name])
        return results

    async def bench(ctx):
        ctx.set(array.o.ready, 1)
        # Within the first tile, while a second one waits, and amid results.
        for cycle in 1, 2, 3, 9:
            await offer(ctx, cycle)
            for name in rows:
                ctx.set(getattr(array, name).valid, 0)
            ctx.set(reset, 1)
            await ctx.tick()
            ctx.set(reset, 0)
            received.append(await offer(ctx, 10 + depth + 6))

    simulate(ResetInserter(reset)(Fragment.get(array, None)), bench)
    assert received == [expected.tolist()] * 4


@pytest.mark.parametrize("columns", [0, -1, 2.0, True])
def test_wrong_columns(columns):
    with pytest.raises(ValueError, match=f"Columns must be a positive integer, not {columns!r}"):
        MacArray(columns=columns)


@pytest.mark.parametrize("weight_width", [0, 3, 8, 1.0])
def test_wrong_weight_width(weight_width):
    with pytest.raises(ValueError, match="Weight width must be a divisor of 4 columns, "
                                         f"not {weight_width!r}"):
        MacArray(columns=4, weight_width=weight_width)
