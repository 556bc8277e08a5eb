# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""Halts of the machine (specification section 15.9): nothing of before them is seen after them."""

import dataclasses
from collections import Counter
from functools import cache

import numpy as np
import pytest
from amaranth import ResetInserter, Shape, Signal

from golden import quantize_activations, quantize_weights
from golden.accelerator import planner
from golden.codec.numbers import FLOATS
from hw.accelerator.config import CONFIGS, Config
from hw.bus.axi_accelerator import AxiAccelerator
from sim.engines.amaranth import Simulated
from tests.support.axi_machine import HALT, HALTED, HALTING, RESUME, Machine, expectation, last

DONE, BAD_SIZE, ABORTED, TIMEOUT, MISFRAMED = 0, 1, 6, 7, 14
FREE = 4
SLVERR = 2

SIZES = {"activations": 64, "weights": 64, "rows": 16, "framed": True}
SMALL = Config(columns=1, input=None, **SIZES)


@cache
def simulated(config):
    component = AxiAccelerator(config=config)
    return component, Simulated(component)


def products(rng, config, count):
    """Small commands that run; with 32 columns some keep their result for the next one."""
    commands, kept = [], None
    for number in range(count):
        m, k, n = (int(rng.integers(1, high)) for high in (5, 70, 2 * config.columns + 2))
        source = int(rng.integers(1 + (config.input is not None)))
        if kept:
            (m, k), source = kept, planner.KEPT
        result = int(rng.choice(planner.RESULTS if config.quantizes else [planner.VALUES_OUT]))
        if number == count - 1:
            result = min(result, planner.RECORDS_OUT)
        kept = (m, n) if result == planner.KEEP else None
        x, w = (rng.standard_normal(shape, np.float32) for shape in ((m, k), (n, k)))
        commands.append({
            "m": m, "k": k, "n": n, "source": source, "result": result,
            "w": quantize_weights(w, adaptive=False), "a": quantize_activations(x),
            "x": x.astype(FLOATS[config.input or "float32"])})
    return commands


def spoil(kind, rng, component, machine, commands):
    """Queues the operands of commands, and makes one fail.

    Returns the codes that may come, as a list of lists, and the packets of each command.
    """
    expected = expectation(component, commands)
    for _, inputs, _ in expected:
        for name, payloads in inputs.items():
            machine.queues[name] += payloads
    packets = [results for _, _, results in expected]
    count = len(commands)
    codes = [[DONE] * count]
    if kind == "failed":
        # Its operands are sent all the same, and so are those of the commands behind it.
        which = int(rng.integers(count))
        commands[which] = commands[which] | {"m": 0}
        codes = [[DONE] * which + [BAD_SIZE] + [ABORTED] * (count - which - 1)]
    elif kind == "halted":
        codes = [[DONE] * ended + [ABORTED] * (count - ended) for ended in range(count + 1)]
    elif kind == "short":
        machine.queues["i_weight"].pop()
        codes = [[DONE] * (count - 1) + [TIMEOUT]]
    elif kind == "misframed":
        which = int(rng.integers(count))
        name, payloads = list(expected[which][1].items())[rng.integers(len(expected[which][1]))]
        if not payloads:
            name = "i_weight"
        start = sum(len(inputs[name]) for _, inputs, _ in expected[:which])
        place = start + int(rng.integers(len(expected[which][1][name])))
        machine.queues[name][place] ^= last(component, name)
        # Weights come ahead of their command.
        codes = [[DONE] * ended + [MISFRAMED] + [ABORTED] * (count - ended - 1)
                 for ended in range(which + 1)]
    return codes, packets


def check_packets(component, machine, codes, packets):
    """All results of commands that are done, and of the next one at most a part, which ends."""
    assert not any(machine.open.values())
    found = machine.packets
    done = codes.index(next(filter(None, codes), None)) if any(codes) else len(codes)
    wanted = [packet for results in packets[:done] for packet in results]
    assert found[: len(wanted)] == wanted
    rest = found[len(wanted):]
    if not rest:
        return 0
    (name, given), = rest
    (stream, whole), = packets[done]
    assert name == stream
    if given == whole:
        return 0
    *rows, end = given
    assert rows == whole[: len(rows)] and end == last(component, name)
    return 1


async def one_halt(ctx, component, rng, kind, machine, most):
    """Commands of which one fails; the machine is then empty, and goes on. Returns what was met."""
    machine.packets = []
    machine.ready = float(rng.choice([0.2, 0.7, 1]))
    commands = products(rng, component.config, int(rng.integers(1, most + 1)))
    codes, packets = spoil(kind, rng, component, machine, commands)
    assert await machine.write("WATCHDOG", 400 if kind == "short" else 0) == 0
    for command in commands:
        await machine.start(command)
    if kind == "halted":
        await machine.cycles(int(rng.integers(400 * rng.random() + 1)))
        # Often in the midst of a packet.
        while rng.random() < 0.995 and not any(machine.open.values()):
            await machine.tick()
        machine.takes = bool(rng.integers(2))
        assert await machine.write("HALT", HALT) == 0
    found = [await machine.finish() for _ in commands]
    assert found in codes
    # They end also if nobody takes the results; a row that is offered then waits.
    waits = any(payload is not None for payload in machine.held.values())
    assert not (waits and await machine.read("STATUS") & HALTED and not machine.takes)
    waits = waits and not machine.takes
    machine.takes = True
    if kind == "good":
        assert await machine.write("HALT", RESUME) == 0
        assert await machine.read("STATUS") == FREE
        assert await machine.write("HALT", HALT) == 0
    assert await machine.read("STATUS") & HALTING
    # A command of a machine that has halted ends, and takes nothing.
    await machine.start(commands[0])
    assert await machine.finish(4) == ABORTED
    await machine.rest()
    await machine.cycles(20)
    cut = check_packets(component, machine, found, packets)
    pending = await machine.read("PENDING")
    assert pending & 4 and bool(pending & 8) == (kind == "misframed")
    assert await machine.write("PENDING", 12) == 0
    assert await machine.read("STATUS") == HALTING | HALTED | FREE
    assert await machine.write("HALT", RESUME) == 0
    assert await machine.read("STATUS") == FREE
    return {"cut": cut, "waits": waits, "done": found.count(DONE),
            "ended": len(found) - found.count(DONE)}


def check(config, kinds, seed=0, most=FREE):
    """Halts of these kinds one after the other; returns how often it met what is counted."""
    component, simulator = simulated(config)
    rng = np.random.default_rng(seed)
    met = Counter()

    async def run(ctx):
        machine = Machine(ctx, component, rng)
        for kind in kinds:
            met.update(await one_halt(ctx, component, rng, kind, machine, most))

    simulator.run(run)
    return met


def test_halts():
    met = check(SMALL, ("failed", "halted", "good"), most=2)
    assert met["done"] and met["ended"]


def test_reset_amid_a_packet():
    """It is forgotten: a halt behind the reset has no packet to end."""
    reset = Signal()
    component = AxiAccelerator(config=SMALL)
    rng = np.random.default_rng(2)

    async def run(ctx):
        machine = Machine(ctx, component, rng)
        x, w = (rng.standard_normal((rows, 32), np.float32) for rows in (4, 2))
        command = {"m": 4, "k": 32, "n": 2, "source": planner.RECORDS,
                   "result": planner.VALUES_OUT, "a": quantize_activations(x),
                   "w": quantize_weights(w)}
        for _, inputs, _ in expectation(component, [command]):
            for name, payloads in inputs.items():
                machine.queues[name] += payloads
        await machine.start(command)
        while machine.open["o"] is None:
            await machine.tick()
        for queue in machine.queues.values():
            queue.clear()
        ctx.set(reset, 1)
        await ctx.tick()
        ctx.set(reset, 0)
        for port in (component.i_weight, component.i_activation):
            ctx.set(port.valid, 0)
        machine = Machine(ctx, component, rng)
        assert await machine.write("HALT", HALT) == 0
        await machine.rest(limit=20)
        assert not machine.packets

    Simulated(ResetInserter(reset)(component)).run(run)


def test_the_interrupt_is_a_bit():
    assert Shape.cast(AxiAccelerator(config=SMALL).signature.members["o_irq"].shape).width == 1


@pytest.mark.long
def test_halts_of_all_kinds():
    """Each is followed by commands that run."""
    kinds = [kind for bad in ("failed", "halted", "short", "halted", "misframed")
             for kind in (bad, "good")]
    met = check(SMALL, 3 * kinds, seed=1)
    assert met["done"] > 30 and met["ended"] > 15 and met["cut"] > 2 and met["waits"]


@pytest.mark.long
def test_halts_with_two_streams_of_results():
    """Results as records, values that are quantized, kept results, operands without marks."""
    config = dataclasses.replace(CONFIGS["tiny"], input="bfloat16")
    met = check(config, ("halted", "good", "short", "good"), seed=4, most=2)
    assert met["done"] > 2 and met["ended"] > 1
