# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""The accelerator against golden and rational arithmetic: all configurations, stalls, resets."""

import dataclasses

import numpy as np
import pytest
from amaranth.hdl import Fragment, ResetInserter, Signal

import sim
from golden import Quantized, quantize_activations, quantize_weights, stimuli
from golden.accelerator import planner
from golden.accelerator.accelerator import accelerator, execute, streams
from golden.codec.numbers import FLOATS
from golden.models import smollm2
from hw.accelerator.accelerator import Accelerator
from hw.accelerator.config import CONFIGS, Config
from hw.tools.packing import to_bits, to_integers
from sim.cycles import RESULTS, SOURCES
from sim.engines.build import compiler
from sim.gemm import random_product
from tests.golden.accelerator.test_accelerator import filled
from tests.support import oracle
from tests.support.testbench import simulate

needs_compiler = pytest.mark.skipif(
    not compiler(), reason="no C++ compiler, and 32 columns are slow on Amaranth's simulator")


def command(m, k, n, *, source=planner.RECORDS, result=planner.VALUES_OUT, **operands):
    return {"m": m, "k": k, "n": n, "source": source, "result": result, **operands}


def run(commands, component, **options):
    """Runs commands; all must end as golden says, with golden's results."""
    with np.errstate(all="ignore"):
        products = sim.accelerate(commands, component=component, **options)
    assert [product.mismatches for product in products] == [0] * len(commands)
    return products


def normal(rng, kind, rows, k):
    quantize = quantize_weights if kind == "weight" else quantize_activations
    return quantize(rng.standard_normal((rows, k)).astype(np.float32))


# Sizes of machines with groups of 64.
WIDE = {"encoding": "sg-special64", "activations": 64, "weights": 64, "rows": 16}


def wide(rng, kind, rows, k):
    quantize = quantize_weights if kind == "weight" else quantize_activations
    return quantize(rng.standard_normal((rows, k)).astype(np.float32), encoding="sg-special64")


def directed():
    """Extreme scales, NaN groups, cancellation, and real data through a chain."""
    rng = np.random.default_rng(0)
    a, w = normal(rng, "activation", 5, 96), normal(rng, "weight", 40, 96)
    for scale in (0, 1, 100, 200, 253, 254):
        yield command(5, 96, 40, a=with_scales(a, scale), w=with_scales(w, 254 - scale))
        yield command(5, 96, 40, a=with_scales(a, scale), w=with_scales(w, scale),
                      result=planner.RECORDS_OUT)
    scales = a.scales.copy()
    scales[1, 2] = scales[3, 0] = 255
    yield command(5, 96, 40, a=with_scales(a, scales), w=w)
    yield command(5, 96, 40, a=with_scales(a, scales), w=w, result=planner.RECORDS_OUT)
    scales = w.scales.copy()
    scales[7, 1] = scales[39, 0] = 255
    yield command(5, 96, 40, a=a, w=with_scales(w, scales))
    yield command(5, 96, 40, a=a, w=with_scales(w, scales), result=planner.RECORDS_OUT)
    # The second half of K takes the first away again, in order or the other way round.
    x = rng.standard_normal((9, 64)).astype(np.float32)
    v = rng.standard_normal((33, 64)).astype(np.float32)
    for second in (-x, np.roll(-x, 32, axis=1)):
        both = quantize_activations(np.concatenate([x, second], axis=1))
        twice = quantize_weights(np.concatenate([v, v], axis=1))
        yield command(9, 128, 33, a=both, w=twice)
    layer = smollm2.load_mlp()
    tokens, up, down = layer.activations[:3], layer.up[:64], layer.down[:40, :64]
    yield command(3, 576, 64, source=planner.VALUES, result=planner.KEEP, x=tokens,
                  w=quantize_weights(up))
    yield command(3, 64, 40, source=planner.KEPT, w=quantize_weights(down))


def with_scales(q, scales):
    return Quantized(kind=q.kind, shape=q.shape, elements=q.elements, metadata=q.metadata,
                     scales=np.full_like(q.scales, 0) + np.uint8(scales))


@needs_compiler
@pytest.mark.long
def test_tiny_against_golden():
    component = Accelerator(config="tiny")
    config = sim.golden_config("tiny")
    for seed, stalls in ((0, 0.0), (1, 0.5)):
        commands = stimuli.products(np.random.default_rng(seed), 40, config)
        products = run(commands, component, stalls=stalls, seed=seed)
        assert {product.code for product in products} >= {planner.DONE, planner.NOT_KEPT}
        assert sum(product.rows for product in products) > 130
    run([*directed()], component, stalls=0.2)

    # Records that fill the last transfer of a partial tile are ignored.
    commands = [command(2, 40, 33, w=normal(np.random.default_rng(4), "weight", 33, 40),
                        a=normal(np.random.default_rng(5), "activation", 2, 40))]
    inputs, outputs = streams(config, commands, execute(config, commands))
    filling = inputs["i_weight"]["scale"] == 0
    assert filling.sum() == 2 * 3
    inputs["i_weight"]["scale"][filling] = 255
    given = sim.run(component, inputs, engine=sim.engines.build.fastest(),
                    outputs={"o": 4, "o_record": 0, "o_status": 1})
    assert not sim.mismatches(given, outputs).any()


@needs_compiler
@pytest.mark.long
@pytest.mark.parametrize("name, array_depth, engine_depth", [
    ("lite", 13, 3), ("lite", 17, 8), ("tiny", 17, 8)])
def test_deep_pipelines_against_golden(name, array_depth, engine_depth):
    """Any depth of array and engines: the same results, kept ones and stalls included."""
    config = dataclasses.replace(CONFIGS[name], array_depth=array_depth, engine_depth=engine_depth)
    component = Accelerator(config=config)
    for seed, stalls in ((0, 0.0), (1, 0.4)):
        commands = stimuli.products(np.random.default_rng(seed), 20, sim.golden_config(config))
        products = run(commands, component, stalls=stalls, seed=seed)
        assert sum(product.rows for product in products) > 25


@pytest.mark.long
@pytest.mark.parametrize("stalls", [0.0, 0.5])
def test_lite_against_golden(stalls):
    # Without a compiler fewer, at some sixty cycles per second.
    count = 60 if compiler() else 4
    commands = stimuli.products(np.random.default_rng(int(10 * stalls)), count,
                                sim.golden_config("lite"))
    run(commands, Accelerator(config="lite"), stalls=stalls)


@pytest.mark.long
def test_lite_on_amaranths_simulator():
    """Against rational arithmetic, which shares nothing with golden."""
    rng = np.random.default_rng(1)
    a, w = normal(rng, "activation", 3, 96), normal(rng, "weight", 6, 96)
    (product,) = run([command(3, 96, 6, a=a, w=w)], Accelerator(config="lite"), engine="amaranth")
    expected = oracle.matmul(oracle.records(a), oracle.records(w))
    assert product.y.view(np.uint32).tolist() == expected.tolist()


@pytest.mark.long
@pytest.mark.parametrize("k", [33, 63])
def test_lanes_beyond_k_of_64_are_multiplied(k):
    """The same in records of 64 elements."""
    rng = np.random.default_rng(6)
    machine = Config(columns=2, input=None, **WIDE)
    config = sim.golden_config(machine)
    commands = [command(2, k, 2, a=wide(rng, "activation", 2, k), w=wide(rng, "weight", 2, k))]
    inputs, plain = streams(config, commands, execute(config, commands))
    inputs = filled(rng, inputs, k)
    expected = accelerator(config, inputs)
    assert sim.mismatches({"o": expected["o"]}, {"o": plain["o"]}).all()
    found = sim.run(Accelerator(config=machine), inputs, outputs={"o": 2, "o_status": 1})
    assert not sim.mismatches(found, expected).any()


@pytest.mark.long
@pytest.mark.parametrize("k", [1, 31])
def test_lanes_beyond_k_are_multiplied(k):
    """Golden and RTL agree on padding other than +0, in values, activations and weights."""
    rng = np.random.default_rng(6)
    config = sim.golden_config("lite")
    commands = [
        command(2, k, 2, source=planner.VALUES, w=normal(rng, "weight", 2, k),
                x=rng.standard_normal((2, k)).astype(np.float32)),
        command(2, k, 2, a=normal(rng, "activation", 2, k), w=normal(rng, "weight", 2, k))]
    inputs, plain = streams(config, commands, execute(config, commands))
    inputs = filled(rng, inputs, k)
    expected = accelerator(config, inputs)
    assert sim.mismatches({"o": expected["o"]}, {"o": plain["o"]}).all()
    found = sim.run(Accelerator(config="lite"), inputs, outputs={"o": 4, "o_status": 2})
    assert not sim.mismatches(found, expected).any()


@pytest.mark.long
def test_own_configuration_without_engine():
    config = Config(columns=2, activations=64, weights=8, rows=16, weight_width=2, input=None)
    component = Accelerator(config=config)
    assert "i_value" not in component.signature.members
    rng = np.random.default_rng(2)
    a, w = normal(rng, "activation", 2, 33), normal(rng, "weight", 3, 33)
    commands = [command(2, 33, 3, a=a, w=w), command(1, 1, 1, source=planner.VALUES)]
    products = run(commands, component, engine="amaranth", stalls=0.3)
    assert [product.code for product in products] == [planner.DONE, planner.BAD_SOURCE]


@pytest.mark.long
@pytest.mark.parametrize("encoding", ["sg-em", "sg-special", "sg-special64"])
@pytest.mark.parametrize("columns, array_depth", [(4, 5), (2, 17)])
def test_encodings_with_factors(encoding, columns, array_depth):
    """Any record may come, in the other encodings, too; there is no engine for results."""
    config = Config(columns=columns, activations=64, weights=64, rows=16, input=None,
                    encoding=encoding, array_depth=array_depth)
    sizes = sim.accelerator.golden_config(config)
    rng = np.random.default_rng(0)
    commands = stimuli.products(rng, 12, sizes, largest=2**12) + stimuli.edges(rng, sizes)
    component = Accelerator(config=config)
    assert not {"i_value", "o_record"} & component.signature.members.keys()
    codes = {product.code for product in run(commands, component, stalls=0.3, seed=1)}
    assert codes == {planner.DONE, planner.BAD_SIZE, planner.BAD_SOURCE, planner.BAD_RESULT}
    # Records of another encoding are refused before anything runs.
    with pytest.raises(ValueError, match=f"a must be of encoding '{encoding}'"):
        run([command(1, 32, 1, a=normal(rng, "activation", 1, 32),
                     w=normal(rng, "weight", 1, 32))], component)


ENGINES = (("sg-em", "sg-threshold", 1), ("sg-em", "sg-em", 2), ("sg-special", "sg-special", 8),
           ("sg-special64", "sg-special64", 8))


@pytest.mark.long
@pytest.mark.parametrize("encoding, engine, cycles", ENGINES)
def test_engines_of_factors_on_the_way_in(encoding, engine, cycles):
    """Values become records of the array's encoding, with their marks, under stalls, too."""
    config = Config(columns=2, activations=64, weights=8, rows=16, weight_width=2, framed=True,
                    input="bfloat16", encoding=encoding, engine=engine, engine_cycles=cycles)
    sizes = sim.golden_config(config)
    rng = np.random.default_rng(4)
    commands = [
        command(m, k, 3, w=quantize_weights(rng.standard_normal((3, k)).astype(np.float32),
                                            encoding=sizes.weight_encoding),
                source=planner.VALUES, x=rng.standard_t(3, (m, k)).astype(FLOATS["bfloat16"]))
        for m, k in ((3, 70), (1, 32))]
    commands.append(command(1, 1, 1, result=planner.RECORDS_OUT))
    products = run(commands, Accelerator(config=config), engine="amaranth", stalls=0.3)
    assert [product.code for product in products] == [planner.DONE] * 2 + [planner.BAD_RESULT]


@needs_compiler
@pytest.mark.long
@pytest.mark.parametrize("sizes", [
    {"encoding": "sg-special", "engine": "sg-special"},
    WIDE | {"columns": 64, "weight_width": 8, "engine": "sg-special64", "engine_cycles": 8}],
    ids=["sg-special", "sg-special64"])
def test_engines_of_factors_on_the_way_out(sizes):
    """Results leave, or stay for the next command, as records of the array's encoding.

    Cycles are those of the closed form. The build takes minutes, so there is one for all of this.
    """
    config = dataclasses.replace(CONFIGS["tiny"], **sizes)
    sizes = sim.golden_config(config)
    rng = np.random.default_rng(0)
    commands = stimuli.products(rng, 30, sizes, largest=2**12) + stimuli.edges(rng, sizes)
    component = Accelerator(config=config)
    for stalls in (0, 0.3):
        codes = {product.code for product in run(commands, component, stalls=stalls, seed=1)}
        assert codes == set(planner.STATUSES)
    groups = sizes.group // 32
    for m, k, n, source, result in ((8, 32, 32, "values", "keep"), (9, 33, 70, "values", "records"),
                                    (9, 150, 33, "records", "keep"),
                                    (10, 170, 32, "values", "values"),
                                    (31, 70, 65, "records", "records")):
        k, n, statistics = k * groups, n * groups, {}
        run([random_product(m, k, n, config=config, source=SOURCES.index(source),
                            result=RESULTS.index(result), seed=m)], component,
            statistics=statistics)
        assert statistics["cycles"] == sim.cycles(config, m, k, n, source=source, result=result)


@pytest.mark.long
@pytest.mark.parametrize("engine_depth", [2, 8])
def test_marks_of_the_last_transfer(engine_depth):
    """Wrong marks are found on each stream, and change no result."""
    config = Config(columns=1, activations=64, weights=4, rows=16, framed=True,
                    engine_depth=engine_depth)
    component = Accelerator(config=config)
    rng = np.random.default_rng(7)
    commands = [
        command(2, 33, 3, a=normal(rng, "activation", 2, 33), w=normal(rng, "weight", 3, 33)),
        command(3, 40, 2, source=planner.VALUES, w=normal(rng, "weight", 2, 40),
                x=rng.standard_normal((3, 40)).astype(np.float32)),
        command(0, 1, 1),
        command(1, 32, 1, a=normal(rng, "activation", 1, 32), w=normal(rng, "weight", 1, 32))]
    run(commands, component, engine="amaranth", stalls=0.3)

    sizes = sim.golden_config(config)
    inputs, expected = streams(sizes, commands, execute(sizes, commands))
    assert [inputs[name]["last"].sum() for name in ("i_weight", "i_activation", "i_value")] \
        == [3, 2, 1]
    for name, position, mark in (("i_weight", 0, 1), ("i_activation", 3, 0), ("i_value", 2, 1),
                                 ("i_value", 5, 0)):
        assert inputs[name]["last"][position] != mark
        inputs[name]["last"][position] = mark
    found = sim.run(component, inputs, engine="amaranth", outputs={
        "o": len(expected["o"]["last"]), "o_status": 4, "o_misframed": 4})
    assert {key: flags.tolist() for key, flags in found["o_misframed"].items()} == {
        "weight": [1, 0, 0, 0], "activation": [0, 1, 1, 1]}
    assert not sim.mismatches({"o": found["o"]}, {"o": expected["o"]}).any()


@pytest.mark.long
def test_reset_in_flight():
    """After a reset the machine has forgotten command and operands, and works as if new."""
    rng = np.random.default_rng(3)
    config = sim.golden_config("lite")
    commands = [command(4, 64, 6, a=normal(rng, "activation", 4, 64),
                        w=normal(rng, "weight", 6, 64))]
    inputs, outputs = streams(config, commands, execute(config, commands))
    component = Accelerator(config="lite")
    rows = {name: to_integers(to_bits(
        component.signature.members[name].signature.members["payload"].shape, values, name))
        for name, values in inputs.items()}
    reset = Signal()
    received = []

    async def bench(ctx):
        ctx.set(component.o.ready, 1)
        ctx.set(component.o_status.ready, 1)
        # In the planner, while operands come in, and with sums in flight.
        for cycles in (40, 92, 104, 200):
            position = dict.fromkeys(rows, 0)
            for _ in range(cycles):
                taken = {}
                for name, payloads in rows.items():
                    port = getattr(component, name)
                    offered = position[name] < len(payloads)
                    ctx.set(port.valid, offered)
                    if offered:
                        ctx.set(port.payload if name == "i_value" else port.payload.as_value(),
                                payloads[position[name]])
                for name in rows:
                    port = getattr(component, name)
                    taken[name] = ctx.get(port.valid) and ctx.get(port.ready)
                if cycles == 200 and ctx.get(component.o.valid):
                    received.append([ctx.get(value) for value in component.o.payload["values"]])
                await ctx.tick()
                for name in rows:
                    position[name] += bool(taken[name])
            for name in rows:
                ctx.set(getattr(component, name).valid, 0)
            ctx.set(reset, 1)
            await ctx.tick()
            ctx.set(reset, 0)

    simulate(ResetInserter(reset)(Fragment.get(component, None)), bench)
    assert received == outputs["o"]["values"].tolist()


@pytest.mark.long
def test_mismatch_is_counted(monkeypatch):
    """The comparison can fail: golden's weights differ from those that the machine got."""
    rng = np.random.default_rng(4)
    w = normal(rng, "weight", 2, 32)
    given = command(1, 32, 2, a=normal(rng, "activation", 1, 32), w=w)
    original = execute

    def other(config, commands):
        changed = Quantized(kind=w.kind, shape=w.shape, elements=w.elements ^ 8,
                            metadata=w.metadata, scales=w.scales)
        return original(config, [{**commands[0], "w": changed}])

    monkeypatch.setattr("sim.accelerator.execute", other)
    (product,) = sim.accelerate([given], config="lite", engine="amaranth")
    assert product.mismatches == product.rows == 1


@needs_compiler
@pytest.mark.long
@pytest.mark.parametrize("config", ["paper", "decode"])
def test_large_machines_against_golden(config):
    """Commands of all kinds, and one product for which there are several blocks."""
    component = Accelerator(config=config)
    rng = np.random.default_rng(5)
    commands = stimuli.products(rng, 30, sim.golden_config(config))
    run(commands, component, stalls=0.3)
    large = command(300, 300, 40, a=normal(rng, "activation", 300, 300),
                    w=normal(rng, "weight", 40, 300))
    statistics = {}
    run([large], component, statistics=statistics)
    assert statistics["cycles"] == sim.cycles(config, 300, 300, 40, source="records")


def test_wrong_config():
    with pytest.raises(ValueError, match="Config must be one of paper, decode, lite, tiny, "
                                         "not 'huge'"):
        Accelerator(config="huge")
