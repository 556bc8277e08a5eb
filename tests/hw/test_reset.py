# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: BSD-2-Clause
"""Every register with a reset, reset in flight: the component is then as new.

The tests of `MacArray`, `WeightEncoder` and all units with one input and one output do the same.
"""

import pytest
from amaranth.lib import data

from hw.accelerator.activation_feeder import ActivationFeeder
from hw.accelerator.config import CONFIGS
from hw.accelerator.loop_nest import LOOPS, LoopNest
from hw.accelerator.planner import Command, Planner
from hw.accelerator.weight_feeder import WeightFeeder
from hw.bus.axi_lite import AddressChannel, CommandRegisters, WriteChannel
from hw.lib import Buffer, SkidBuffer, StreamQueue, StreamRegister
from hw.units import Decoder, GroupAccumulator
from tests.support.reset import check_reset

TINY = CONFIGS["tiny"]


def command(rng):
    """A small command; now and then one that fails."""
    return _packed(Command, m=int(rng.integers(0, 20)), k=int(rng.integers(1, 200)),
                   n=int(rng.integers(1, 100)), source=int(rng.integers(0, 4)),
                   result=int(rng.integers(0, 4)))


def address(rng):
    """A register's address, or any."""
    return _packed(AddressChannel, addr=4 * int(rng.integers(0, 24)), prot=0)


def word(rng):
    """All bytes of a small number."""
    return _packed(WriteChannel, data=int(rng.integers(0, 16)), strb=15)


def _packed(layout, **fields):
    return data.Const(layout, sum(value << layout[name].offset
                                  for name, value in fields.items())).as_value().value


CASES = {
    "stream_register": (lambda: StreamRegister(8), {}, 60),
    "stream_queue": (lambda: StreamQueue(8, depth=4), {}, 60),
    "skid_buffer": (lambda: SkidBuffer(8), {}, 60),
    "buffer": (lambda: Buffer(8, depth=8, banks=2), {}, 60),  # its memory is not reset
    "decoder": (Decoder, {}, 20),
    "group_accumulator": (GroupAccumulator, {}, 40),
    "planner": (lambda: Planner(TINY), {"i": command}, 200),
    **{f"loop_nest_{loops}": (lambda loops=loops: LoopNest(TINY, loops=loops), {}, 100)
       for loops in LOOPS},
    "weight_feeder": (lambda: WeightFeeder(TINY), {}, 80),
    "activation_feeder": (lambda: ActivationFeeder(TINY), {}, 80),
    "axi_lite": (lambda: CommandRegisters(TINY),
                 {"i_aw": address, "i_ar": address, "i_w": word}, 150),
}


@pytest.mark.parametrize("case", CASES)
def test_as_new_after_reset(case):
    component, payloads, cycles = CASES[case]
    check_reset(component(), payloads=payloads, cycles=cycles,
                ignored=["o"] if case == "buffer" else [])
