# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""Neighbours that withdraw or change what they offer, on every input stream there is.

They may spoil their own transfer. No output comes of nothing, and nothing later is wrong.
"""

import pytest

from hw import registry
from hw.accelerator.accelerator import Accelerator
from hw.accelerator.config import CONFIGS, Config
from hw.accelerator.loop_nest import LOOPS, LoopNest
from hw.accelerator.planner import Command, Planner, plan_layout
from hw.lib import SkidBuffer, StreamQueue, StreamRegister
from hw.units import SgEngine, WeightEncoder
from tests.hw.test_reset import command, packed
from tests.support.axi_bus import RegisterStreams
from tests.support.unruly import check_unruly

TINY = CONFIGS["tiny"]
SMALL = Config(columns=1, input="bfloat16", activations=64, weights=64, rows=16)


def plan(rng):
    """A plan with few steps."""
    return packed(plan_layout(TINY), source=0, groups=int(rng.integers(1, 3)),
                  tiles=int(rng.integers(1, 4)), columns=int(rng.integers(1, 33)),
                  blocks=1, rows=int(rng.integers(1, 4)))


PARTS = {
    "stream_register": (lambda: StreamRegister(8), {}),
    "stream_queue": (lambda: StreamQueue(8, depth=4), {}),
    "skid_buffer": (lambda: SkidBuffer(8), {}),
    "planner": (lambda: Planner(TINY), {"payloads": {"i": command}, "cycles": 600}),
    **{f"loop_nest_{loops}": (lambda loops=loops: LoopNest(TINY, loops=loops),
                             {"payloads": {"i": plan}, "endless": True, "cycles": 600})
       for loops in LOOPS},
}

STREAMED = [name for name in registry.UNITS
            if name not in ("weight_encoder", "sg_engine", "accelerator")
            and all(member.is_signature
                    for member in registry.build(name).signature.members.values())]


@pytest.mark.parametrize("part", [
    name if name.startswith(("stream", "skid")) else pytest.param(name, marks=pytest.mark.long)
    for name in PARTS])
def test_parts(part):
    component, options = PARTS[part]
    count = check_unruly(component(), **options)
    assert count["broken"] > 3 and count["o"] > 3


@pytest.mark.long
@pytest.mark.parametrize("name", STREAMED)
def test_units(name):
    settings = ["columns=4"] if name.endswith("_array") else []
    count = check_unruly(registry.build(name, settings), cycles=150)
    assert count["broken"] > 5 and count["o"] > 10


@pytest.mark.long
@pytest.mark.parametrize("encoding", ["sg-em", "sg-threshold"])
def test_weight_encoder(encoding):
    """Its values wait while it works: a record may be wrong, but no other one."""
    unit = WeightEncoder(encoding=encoding)
    count = check_unruly(unit, cycles=20 * unit.cycles, drain=3 * unit.cycles,
                         breaks=1 / unit.cycles, own=["o"])
    assert count["broken"] > 8 and count["o"] > 4


@pytest.mark.long
@pytest.mark.parametrize("cycles", [1, 2, 16])
def test_sg_engine(cycles):
    """Values wait here, too, where a group takes more than one cycle."""
    unit = SgEngine(cycles=cycles)
    count = check_unruly(unit, cycles=20 * unit.latency, drain=3 * unit.latency,
                         breaks=1 / unit.latency, own=["o"])
    assert count["broken"] > 4 and count["o"] > 4


@pytest.mark.long
def test_accelerator():
    """Its commands, weights, activations and values, all at once."""
    def small(rng):
        sizes = {name: int(rng.integers(1, high)) for name, high in (("m", 4), ("k", 70), ("n", 4))}
        return packed(Command, **sizes, source=int(rng.integers(0, 3)), result=0)

    component = Accelerator(config=SMALL)
    count = check_unruly(component, payloads={"i_command": small}, cycles=1500, drain=1000,
                         breaks=0.1)
    assert count["broken"] > 100 and count["o_status"] > 5 and count["o"] > 10


@pytest.mark.long
def test_registers():
    """Addresses and data of writes and reads; each answer is that to what was taken."""
    component = RegisterStreams(TINY)

    def address(rng):
        return int(rng.choice([0x20, 0x24, 0x28, 0x4C, 0x100]))

    def word(rng):
        return int(rng.integers(1 << 32)) | int(rng.integers(16)) << 32

    def constant(rng):
        return int(rng.choice([0x00, 0x04, 0x08, 0x0C, 0x10, 0x14, 0xFFC]))

    count = check_unruly(component, cycles=1500, payloads={
        "i_aw": address, "i_w": word, "i_ar": constant, "i_status": lambda rng: 0})
    assert count["broken"] > 100 and count["o_b"] > 100 and count["o_r"] > 100
    assert not count["o_command"]
