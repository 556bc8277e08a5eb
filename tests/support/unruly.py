# SPDX-License-Identifier: BSD-2-Clause
"""Neighbours that break the rules of streams: what they spoil, and what they must not."""

import numpy as np
from amaranth import Signal, Value
from amaranth.lib import stream, wiring

from sim.engines.amaranth import Simulated


def check_unruly(component, *, payloads=None, cycles=300, drain=100, breaks=0.3, own=(),
                 endless=False, seed=0):
    """Withdraws and changes what waits on every input stream; what was taken must count alone.

    A run with such neighbours notes what the component takes. A second run offers exactly that, by
    the rules. Both must give the same outputs: no more of them, no fewer, and no others. So what is
    offered in vain has no effect, and what comes later is right.

    Parameters
    ----------
    component : Component
        All of its inputs are streams.
    payloads : dict of str to callable, optional
        ``payloads[name](rng)`` is a payload of the input stream ``name``; by default any bits.
    cycles : int
        Cycles in which inputs are offered.
    drain : int
        Cycles after these, in which outputs come.
    breaks : float
        How often a payload that waits is withdrawn or changed in a cycle.
    own : sequence of str
        Output streams on which a payload may be wrong if its own transfer was spoiled. There is
        one output for each transfer of the only input.
    endless : bool
        Whether outputs go on for longer than the run; both are then compared as far as they came.
    seed : int

    Returns
    -------
    dict of str to int
        Outputs by stream, and under "broken" how often a rule was broken.
    """
    bench = Simulated(component)
    ends = {name: member.flow for name, member in component.signature.members.items()
            if member.is_signature and isinstance(member.signature, stream.Signature)}
    inputs = [name for name, flow in ends.items() if flow == wiring.In]
    outputs = [name for name in ends if name not in inputs]
    rng = np.random.default_rng(seed)
    taken = {name: [] for name in inputs}
    spoiled = {name: [] for name in inputs}
    count = {"broken": 0}

    def some(name):
        port = getattr(component, name)
        if name in (payloads or {}):
            return payloads[name](rng)
        width = len(Value.cast(port.payload))
        return int.from_bytes(rng.bytes(-(-width // 8)), "little") & ((1 << width) - 1)

    async def look(ctx, found):
        for name in outputs:
            port = getattr(component, name)
            if isinstance(port.ready, Signal):
                ctx.set(port.ready, int(rng.random() < 0.4))
        for name in outputs:
            port = getattr(component, name)
            if ctx.get(port.valid) and ctx.get(Value.cast(port.ready)):
                found[name].append(ctx.get(Value.cast(port.payload)))

    def offer(ctx, name, payload):
        port = getattr(component, name)
        ctx.set(port.valid, int(payload is not None))
        if payload is not None:
            ctx.set(Value.cast(port.payload), payload)

    async def unruly(ctx, found):
        waits, wrong = dict.fromkeys(inputs), dict.fromkeys(inputs, False)
        for cycle in range(cycles + drain):
            for name in inputs:
                if waits[name] is not None and rng.random() < breaks:
                    # Withdrawn, or another payload in its place.
                    waits[name] = None if rng.random() < 0.5 else some(name)
                    wrong[name] = True
                    count["broken"] += 1
                elif waits[name] is None and rng.random() < 0.7 and cycle < cycles:
                    waits[name] = some(name)
                offer(ctx, name, waits[name] if cycle < cycles else None)
            await look(ctx, found)
            for name in inputs:
                if cycle < cycles and waits[name] is not None and ctx.get(Value.cast(
                        getattr(component, name).ready)):
                    taken[name].append(waits[name])
                    spoiled[name].append(wrong[name])
                    waits[name], wrong[name] = None, False
            await ctx.tick()

    async def ruly(ctx, found):
        left, waits, rest = {name: [*rows] for name, rows in taken.items()}, set(), drain
        for _ in range(10 * cycles + 10 * drain):
            for name in inputs:
                if left[name] and (name in waits or rng.random() < 0.7):
                    waits.add(name)
                offer(ctx, name, left[name][0] if name in waits else None)
            await look(ctx, found)
            for name in [*waits]:
                if ctx.get(Value.cast(getattr(component, name).ready)):
                    left[name].pop(0)
                    waits.discard(name)
            await ctx.tick()
            if not any(left.values()):
                rest -= 1
                if not rest:
                    return
        raise AssertionError(f"not taken: { {name: len(rows) for name, rows in left.items()} }")

    found = []
    for run in (unruly, ruly):
        found.append({name: [] for name in outputs})
        bench.run(lambda ctx, run=run, rows=found[-1]: run(ctx, rows))
    for name in outputs:
        broken, right = (rows[name] for rows in found)
        if endless:
            broken, right = ([*rows] for rows in zip(*zip(broken, right, strict=False),
                                                     strict=True))
        assert len(broken) == len(right), f"{name}: {len(broken)} outputs, not {len(right)}"
        if name in own:
            (marks,) = spoiled.values()
            assert len(marks) == len(right)
            broken, right = ([row for row, mark in zip(rows, marks, strict=True) if not mark]
                             for rows in (broken, right))
            assert right
        assert broken == right, name
        count[name] = len(right)
    return count
