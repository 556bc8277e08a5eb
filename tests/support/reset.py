# SPDX-License-Identifier: BSD-2-Clause
"""Resets in flight: behind one, a component is as new."""

import numpy as np
from amaranth import ResetInserter, Signal, Value
from amaranth.lib import stream, wiring

from sim.engines.amaranth import Simulated


def check_reset(component, *, payloads=None, ignored=(), cycles=60, times=5, seed=0):
    """Resets a component at random times; what it then does must be what it does when new.

    Of three resets the second comes in the cycle behind a transfer on an input stream, and the
    third in the cycle of one.

    Inputs are random. Streams keep their rules: what is offered stays until it is taken. All
    outputs are compared in every cycle, payloads where they are valid.

    Parameters
    ----------
    component : Component
    payloads : dict of str to callable, optional
        ``payloads[name](rng)`` is a payload, as an integer, of the input stream ``name``; by
        default all bits are random.
    ignored : sequence of str
        Outputs that are not compared; of streams, their payload.
    cycles : int
        Cycles that are compared after each reset.
    times : int
        Resets.
    """
    payloads = (payloads or {}) | dict.fromkeys(ignored)
    reset = Signal()
    bench = Simulated(ResetInserter(reset)(component))
    streams, plain = _ports(component)
    rng = np.random.default_rng(seed)
    new = _run(bench, component, streams, plain, payloads, 0, cycles, reset, seed)
    for number in range(times):
        before = int(rng.integers(1, cycles))
        again = _run(bench, component, streams, plain, payloads, before, cycles, reset,
                     (seed, number + 1), ("", "behind", "in")[number % 3])
        for cycle, (one, other) in enumerate(zip(new, again, strict=True)):
            assert one == other, f"cycle {cycle} after a reset in cycle {before}"


def _ports(component):
    """Streams with their direction, and other members with theirs; names are attributes."""
    streams, plain = {}, {}
    for name, member in component.signature.members.items():
        if member.is_signature and isinstance(member.signature, stream.Signature):
            streams[name] = member.flow
        elif not member.is_signature:
            plain[name] = member.flow
    return streams, plain


def _run(bench, component, streams, plain, payloads, before, cycles, reset, seed, transfer=""):
    """Outputs of every cycle after the reset, or from the start if ``before`` is 0.

    With ``transfer`` the reset waits for a transfer on an input stream, for a hundred cycles at
    most: it comes "behind" or "in" its cycle.
    """
    found = []

    async def run(ctx):
        if before:
            await _drive(ctx, component, streams, plain, payloads, before,
                         np.random.default_rng(seed), 100 if transfer else 0,
                         reset if transfer == "in" else None)
            if not ctx.get(reset):
                ctx.set(reset, 1)
                await ctx.tick()
            ctx.set(reset, 0)
        # The same inputs from here on, whatever was before.
        found.extend(await _drive(ctx, component, streams, plain, payloads, cycles,
                                  np.random.default_rng(0)))

    bench.run(run)
    return found


async def _drive(ctx, component, streams, plain, payloads, cycles, rng, longest=0, reset=None):
    """Drives random inputs, and returns the outputs of each cycle.

    Goes on for up to ``longest`` cycles more, until something is taken; a ``reset`` is set then.
    """
    inputs = [name for name, flow in streams.items() if flow == wiring.In]
    for name in inputs:
        ctx.set(getattr(component, name).valid, 0)
    offered = set()
    found = []
    for cycle in range(cycles + longest):
        for name, flow in plain.items():
            if flow == wiring.In:
                port = Value.cast(getattr(component, name))
                ctx.set(port, _bits(rng, len(port)))
        for name, flow in streams.items():
            port = getattr(component, name)
            if flow == wiring.In:
                # The numbers do not depend on what the component takes.
                offer = rng.random() < 0.7
                payload = (payloads[name](rng) if name in payloads
                           else _bits(rng, len(Value.cast(port.payload))))
                if name not in offered:
                    ctx.set(Value.cast(port.payload), payload)
                    ctx.set(port.valid, int(offer))
                    if offer:
                        offered.add(name)
            elif isinstance(port.ready, Signal):
                ctx.set(port.ready, int(rng.random() < 0.6))
        seen = []
        for name, flow in (streams | plain).items():
            port = getattr(component, name)
            if name in plain:
                if flow == wiring.Out and name not in payloads:
                    seen.append((name, ctx.get(Value.cast(port))))
            elif flow == wiring.In:
                seen.append((name, ctx.get(port.ready)))
            else:
                valid = ctx.get(port.valid)
                seen.append((name, valid, valid and name not in payloads
                             and ctx.get(Value.cast(port.payload))))
        taken = {name for name in offered if ctx.get(getattr(component, name).ready)}
        offered -= taken
        found.append(seen)
        ends = longest and cycle >= cycles - 1 and taken
        if ends and reset is not None:
            ctx.set(reset, 1)
        await ctx.tick()
        if ends:
            break
    return found


def _bits(rng, width):
    return int.from_bytes(rng.bytes(-(-width // 8)), "little") & ((1 << width) - 1)

