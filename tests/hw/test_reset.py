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
from hw.accelerator.planner import Command, Planner, plan_layout
from hw.accelerator.weight_feeder import WeightFeeder
from hw.bus.axi_lite import AddressChannel, CommandRegisters, WriteChannel
from hw.bus.uart import UartReceiver, UartTransmitter
from hw.bus.uart_link import FrameReceiver, FrameSender, LinkInput, LinkOutput
from hw.lib import Buffer, SkidBuffer, StreamQueue, StreamRegister
from hw.units import Decoder, GroupAccumulator, SgEngine
from tests.support.reset import check_reset

TINY = CONFIGS["tiny"]


def command(rng):
    """A small command; now and then one that fails."""
    return packed(Command, m=int(rng.integers(0, 20)), k=int(rng.integers(1, 200)),
                  n=int(rng.integers(1, 100)), source=int(rng.integers(0, 4)),
                  result=int(rng.integers(0, 4)))


def plan(rng):
    """A small plan; now and then one of a command that failed."""
    return packed(plan_layout(TINY), code=int(rng.random() < 0.2),
                  source=int(rng.integers(0, 4)), result=int(rng.integers(0, 4)),
                  columns=int(rng.integers(1, 5)), resident=int(rng.integers(0, 2)),
                  **{name: int(rng.integers(1, 4))
                     for name in ("groups", "tiles", "blocks", "rows", "larger")})


def address(rng):
    """A register's address, or any."""
    return packed(AddressChannel, addr=4 * int(rng.integers(0, 26)), prot=0)


def word(rng):
    """All bytes of a small number."""
    return packed(WriteChannel, data=int(rng.integers(0, 16)), strb=15)


def packed(layout, **fields):
    return data.Const(layout, sum(value << layout[name].offset
                                  for name, value in fields.items())).as_value().value


CASES = {
    "stream_register": (lambda: StreamRegister(8), {}, 60),
    "stream_queue": (lambda: StreamQueue(8, depth=4), {}, 60),
    "skid_buffer": (lambda: SkidBuffer(8), {}, 60),
    "buffer": (lambda: Buffer(8, depth=8, banks=2), {}, 60),  # its memory is not reset
    "decoder": (Decoder, {}, 20),
    "group_accumulator": (GroupAccumulator, {}, 40),
    "sg_engine": (lambda: SgEngine(cycles=16), {}, 44),
    "planner": (lambda: Planner(TINY), {"i": command}, 200),
    **{f"loop_nest_{loops}": (lambda loops=loops: LoopNest(TINY, loops=loops), {"i": plan}, 60)
       for loops in LOOPS},
    "weight_feeder": (lambda: WeightFeeder(TINY), {}, 80),
    "activation_feeder": (lambda: ActivationFeeder(TINY), {}, 80),
    "uart_receiver": (lambda: UartReceiver(divisor=4), {}, 80),
    "uart_transmitter": (lambda: UartTransmitter(divisor=4), {}, 80),
    "frame_receiver": (FrameReceiver, {}, 80),
    "frame_sender": (lambda: FrameSender(3, frame=4), {}, 120),
    "link_input": (lambda: LinkInput(16, buffer=32), {}, 80),
    "link_output": (lambda: LinkOutput(16, buffer=32), {}, 120),
    "axi_lite": (lambda: CommandRegisters(TINY),
                 {"i_aw": address, "i_ar": address, "i_w": word}, 150),
}


# What comes from memories and registers without reset, and means nothing behind one.
IGNORED = {"buffer": ["o"], "frame_receiver": ["header"], "link_output": ["byte"],
           "link_input": ["o"]}


@pytest.mark.parametrize("case", CASES)
def test_as_new_after_reset(case):
    component, payloads, cycles = CASES[case]
    check_reset(component(), payloads=payloads, cycles=cycles, ignored=IGNORED.get(case, []))
