# SPDX-License-Identifier: BSD-2-Clause
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.enum import Enum
from amaranth.lib.wiring import In, Out

from ..lib.formats import GROUP

SIZE = 20
"""Bits of M, K and N."""

INTERLEAVE = 8
"""Rows that are in flight between a partial sum's reading and its being written back."""


class Source(Enum, shape=2):
    """Where a command's activations come from."""

    RECORDS = 0
    """Group records from outside."""
    VALUES = 1
    """Values from outside, quantized on the way in."""
    KEPT = 2
    """The result that the command before kept."""


class Result(Enum, shape=2):
    """What happens to a command's result."""

    VALUES = 0
    """It leaves as float32."""
    RECORDS = 1
    """It is quantized and leaves as group records."""
    KEEP = 2
    """It is quantized and stays as the next command's activations."""


class Status(Enum, shape=3):
    """How a command ended."""

    DONE = 0
    BAD_SIZE = 1
    """M, K or N is 0."""
    BAD_SOURCE = 2
    """The source does not exist, or not on this machine."""
    BAD_RESULT = 3
    """The result does not exist, or not on this machine."""
    NOT_KEPT = 4
    """The source is KEPT, but the command before did not keep a result of M rows, K columns."""
    TOO_LARGE = 5
    """The result is KEEP, but does not fit beside the activations."""


Command = data.StructLayout({"m": SIZE, "k": SIZE, "n": SIZE, "source": 2, "result": 2})
"""Multiply M x K activations by N x K weights, see `Source` and `Result`."""


def plan_layout(config):
    """Payload of a plan: how a command runs on the machine."""
    return data.StructLayout({
        "code": Status,
        "source": Source,
        "result": Result,
        # Groups along K; tiles, which have as many weight records as the array has columns.
        "groups": range((1 << SIZE) // GROUP + 1),
        "tiles": range((1 << SIZE) // config.columns + 1),
        # Columns of the last tile.
        "columns": range(config.columns + 1),
        # Rows are divided into blocks, the first `larger` of them one row larger than `rows`.
        "blocks": SIZE,
        "rows": range(config.rows + 1),
        "larger": SIZE,
        # A block's activations stay in the buffer for all tiles; else they come anew for each.
        "resident": 1,
    })


class Planner(wiring.Component):
    """Checks commands and plans how they run.

    The rows of a command are divided evenly into blocks of at most as many rows as the output
    buffer holds. If all activations fit into their buffer, or as many rows of them as it takes
    cycles to load a tile of weights, a block has no more than fit. One plan takes ``latency``
    cycles.

    Parameters
    ----------
    config : Config

    Members
    -------
    i : In(stream.Signature(Command))
    o : Out(stream.Signature(plan_layout(config)))
        A command that cannot run gives a plan that says why; the first of `Status` that holds.
    """

    # Taken, four quotients of a bit per cycle each with a cycle to begin, given.
    latency = 4 * (SIZE + 1) + 1

    def __init__(self, config):
        self.config = config
        super().__init__({
            "i": In(stream.Signature(Command)),
            "o": Out(stream.Signature(plan_layout(config))),
        })

    def elaborate(self, platform):
        m = Module()
        config = self.config

        command = Signal(Command, reset_less=True)
        # What the last accepted command kept.
        kept = Signal()
        kept_m = Signal(SIZE, reset_less=True)
        kept_n = Signal(SIZE, reset_less=True)

        groups = Signal(range((1 << SIZE) // GROUP + 1))
        tiles = Signal(range((1 << SIZE) // config.columns + 1))
        m.d.comb += [
            groups.eq((command.k + GROUP - 1) >> (GROUP - 1).bit_length()),
            tiles.eq((command.n + config.columns - 1) >> (config.columns - 1).bit_length()),
        ]

        # One restoring divider finds a quotient bit per cycle, the first one first.
        dividend = Signal(SIZE, reset_less=True)
        divisor = Signal(SIZE, reset_less=True)
        remainder = Signal(SIZE, reset_less=True)
        quotient = Signal(SIZE, reset_less=True)
        step = Signal(range(SIZE))
        trial = Signal(SIZE + 1)
        difference = Signal(SIZE + 2)
        m.d.comb += [
            trial.eq(Cat(dividend[-1], remainder)),
            difference.eq(trial - divisor),
        ]
        divided = Signal()
        m.d.comb += divided.eq(step == SIZE - 1)

        def begin(a, b):
            return [dividend.eq(a), divisor.eq(b), remainder.eq(0), step.eq(0)]

        def divide():
            m.d.sync += [
                dividend.eq(dividend << 1),
                remainder.eq(Mux(difference[-1], trial, difference)),
                quotient.eq(Cat(~difference[-1], quotient)),
                step.eq(step + 1),
            ]

        load = config.columns // config.weight_width
        resident = Signal(reset_less=True)
        fits = Signal()
        limit = Signal(range(config.rows + 1))
        room = Signal(SIZE, reset_less=True)
        m.d.comb += [
            fits.eq((command.m <= quotient) | (quotient >= load)),
            limit.eq(Mux(fits & (quotient < config.rows), quotient, config.rows)),
        ]

        code = Signal(Status)
        with m.If((command.m == 0) | (command.k == 0) | (command.n == 0)):
            m.d.comb += code.eq(Status.BAD_SIZE)
        with m.Elif((command.source > Source.KEPT.value)
                    | (command.source == Source.VALUES.value) & (config.input is None)
                    | (command.source == Source.KEPT.value) & (not config.quantizes)):
            m.d.comb += code.eq(Status.BAD_SOURCE)
        with m.Elif((command.result > Result.KEEP.value)
                    | (command.result != Result.VALUES.value) & (not config.quantizes)):
            m.d.comb += code.eq(Status.BAD_RESULT)
        with m.Elif((command.source == Source.KEPT.value)
                    & ~(kept & (kept_m == command.m) & (kept_n == command.k))):
            m.d.comb += code.eq(Status.NOT_KEPT)
        with m.Elif((command.result == Result.KEEP.value)
                    & ((command.m > room) | (command.m > config.rows))):
            m.d.comb += code.eq(Status.TOO_LARGE)

        last_columns = Signal(range(config.columns + 1))
        spare = command.n[: (config.columns - 1).bit_length()]
        m.d.comb += last_columns.eq(Mux(spare == 0, config.columns, spare))

        # When it is given, the last division's operands and results are still there.
        plan = self.o.payload
        m.d.comb += [
            plan.code.eq(code),
            Value.cast(plan.source).eq(command.source),
            Value.cast(plan.result).eq(command.result),
            plan.groups.eq(groups),
            plan.tiles.eq(tiles),
            plan.columns.eq(last_columns),
            plan.blocks.eq(divisor),
            plan.rows.eq(quotient),
            plan.larger.eq(remainder),
            plan.resident.eq(resident),
        ]

        with m.FSM():
            with m.State("COMMAND"):
                m.d.comb += self.i.ready.eq(1)
                m.d.sync += command.eq(self.i.payload)
                with m.If(self.i.valid):
                    m.next = "BEGIN ROOM"
            # Rows whose activations and results fit the activation buffer together.
            with m.State("BEGIN ROOM"):
                m.d.sync += begin(config.activations, groups + tiles)
                m.next = "ROOM"
            with m.State("ROOM"):
                divide()
                with m.If(divided):
                    m.next = "BEGIN FIT"
            # Rows whose activations fit it.
            with m.State("BEGIN FIT"):
                m.d.sync += [room.eq(quotient), *begin(config.activations, groups)]
                m.next = "FIT"
            with m.State("FIT"):
                divide()
                with m.If(divided):
                    m.next = "BEGIN BLOCKS"
            with m.State("BEGIN BLOCKS"):
                m.d.sync += [resident.eq(fits), *begin(command.m, limit)]
                m.next = "BLOCKS"
            with m.State("BLOCKS"):
                divide()
                with m.If(divided):
                    m.next = "BEGIN ROWS"
            with m.State("BEGIN ROWS"):
                blocks = Signal(SIZE)
                m.d.comb += blocks.eq(quotient + (remainder != 0))
                m.d.sync += begin(command.m, blocks)
                m.next = "ROWS"
            with m.State("ROWS"):
                divide()
                with m.If(divided):
                    m.next = "PLAN"
            with m.State("PLAN"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    with m.If(code == Status.DONE):
                        m.d.sync += [
                            kept.eq(command.result == Result.KEEP.value),
                            kept_m.eq(command.m),
                            kept_n.eq(command.n),
                        ]
                    m.next = "COMMAND"

        return m
