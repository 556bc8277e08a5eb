# SPDX-License-Identifier: BSD-2-Clause
"""Commands of the accelerator, their check, and the plan by which they run.

Implements specification sections 14.1 to 14.3 (commands and statuses), 14.5 (what is kept) and
14.6 (planning).
"""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.enum import Enum
from amaranth.lib.wiring import In, Out

from .config import SIZE

INTERLEAVE = 8
"""Rows in flight from the read of a partial sum to its write back: the array's round trip."""


class Source(Enum, shape=2):
    """Where the activations of a command come from (specification section 14.2)."""

    RECORDS = 0
    """Group records on ``i_activation``."""
    VALUES = 1
    """Values on ``i_value``, quantized on the way in."""
    KEPT = 2
    """The result that the command before kept."""


class Result(Enum, shape=2):
    """What happens to the result of a command (specification section 14.2)."""

    VALUES = 0
    """It leaves as float32 on ``o``."""
    RECORDS = 1
    """It is quantized and leaves as group records on ``o_record``."""
    KEEP = 2
    """It is quantized and stays as the activations of the next command."""


class Status(Enum, shape=3):
    """How a command ended (specification section 14.3).

    `Planner` has the table of conditions.
    """

    DONE = 0
    """The command ran and its last result is out or kept. All others did not run."""
    BAD_SIZE = 1
    """M, K or N is 0."""
    BAD_SOURCE = 2
    """The source does not exist, or this configuration does not have it."""
    BAD_RESULT = 3
    """The result does not exist, or this configuration does not have it."""
    NOT_KEPT = 4
    """The source is KEPT, but the command before did not keep a result of M rows, K columns."""
    TOO_LARGE = 5
    """The result is KEEP, but does not fit into the buffer beside the activations."""


Command = data.StructLayout({"m": SIZE, "k": SIZE, "n": SIZE, "source": 2, "result": 2})
"""Multiplies M x K activations by N x K weights, see `Source` and `Result`.

Specification section 14.1. Source and result are plain bits here, as a command may hold values
that the enumerations do not have.
"""


def plan_layout(config):
    """Payload of a plan: how a command runs on an accelerator of this configuration.

    Only ``code`` means something unless it is DONE. Specification section 14.6.
    """
    return data.StructLayout({
        "code": Status,
        "source": Source,
        "result": Result,
        # Groups along K; tiles along N, of as many weight rows as the array has columns.
        "groups": range((1 << SIZE) // config.group + 1),
        "tiles": range((1 << SIZE) // config.columns + 1),
        # Columns of the last tile, which may be a partial tile.
        "columns": range(config.columns + 1),
        # Blocks of rows; the first `larger` of them have one row more than `rows`.
        "blocks": SIZE,
        "rows": range(config.rows + 1),
        "larger": SIZE,
        # The activations of a block come once and stay in the buffer for all bundles; otherwise
        # they come again for each bundle.
        "resident": 1,
    })


class Planner(wiring.Component):
    """Checks commands and plans how they run.

    The status of a command is that of the first condition that holds, from the top:

    ======================================================================== ==============
    condition                                                                status
    ======================================================================== ==============
    M, K or N is 0                                                           ``BAD_SIZE``
    source above KEPT; VALUES without input type; KEPT where not quantized   ``BAD_SOURCE``
    result above KEEP; RECORDS or KEEP where results are not quantized       ``BAD_RESULT``
    source KEPT, and no M x K result is kept                                 ``NOT_KEPT``
    result KEEP, and M > room or M > rows of the output buffer               ``TOO_LARGE``
    otherwise                                                                ``DONE``
    ======================================================================== ==============

    The plan follows from four divisions, which one divider does one after the other:

    ============ ========================================= =====================================
    state        quotient                                  what it decides
    ============ ========================================= =====================================
    ``ROOM``     room = activations / (groups + tiles)     rows that fit with their results kept
    ``FIT``      fit = activations / groups                resident, and the limit of a block
    ``BLOCKS``   blocks = M / limit, rounded up            number of blocks
    ``ROWS``     rows = M / blocks, remainder ``larger``   rows of each block
    ============ ========================================= =====================================

    A plan is resident if M rows fit, or at least as many as it takes cycles to load a tile of
    weights. The limit is then the smaller of fit and the rows of the output buffer, otherwise the
    latter. Takes ``latency`` cycles per command. Specification sections 14.3 and 14.6.

    Parameters
    ----------
    config : Config

    Members
    -------
    i : In(stream.Signature(Command))
    o : Out(stream.Signature(plan_layout(config)))
        One plan per command, also for a command that cannot run: its ``code`` says why.
    """

    # One cycle to take the command, then four quotients: one cycle to begin and one per bit.
    latency = 4 * (SIZE + 1) + 1

    def __init__(self, config):
        self.config = config
        super().__init__({
            "i": In(stream.Signature(Command)),
            "o": Out(stream.Signature(plan_layout(config))),
        })

    def elaborate(self, platform):
        m = Module()

        command = Signal(Command, reset_less=True)
        kept = _Kept(self.config.rows)
        groups, tiles = self._sizes(m, command)
        divider = _Divider(m)
        # The first two quotients decide these.
        room = Signal(SIZE, reset_less=True)
        resident = Signal(reset_less=True)
        fits, limit = self._block_limit(m, command, divider.quotient)
        code = self._status(m, command, kept, room)
        self._plan(m, command, code, groups, tiles, divider, resident)

        with m.FSM():
            with m.State("COMMAND"):
                m.d.comb += self.i.ready.eq(1)
                m.d.sync += command.eq(self.i.payload)
                with m.If(self.i.valid):
                    m.next = "BEGIN ROOM"
            with m.State("BEGIN ROOM"):
                m.d.sync += divider.begin(self.config.activations, groups + tiles)
                m.next = "ROOM"
            divider.state(m, "ROOM", then="BEGIN FIT")
            with m.State("BEGIN FIT"):
                m.d.sync += [room.eq(divider.quotient),
                             *divider.begin(self.config.activations, groups)]
                m.next = "FIT"
            divider.state(m, "FIT", then="BEGIN BLOCKS")
            with m.State("BEGIN BLOCKS"):
                m.d.sync += [resident.eq(fits), *divider.begin(command.m, limit)]
                m.next = "BLOCKS"
            divider.state(m, "BLOCKS", then="BEGIN ROWS")
            with m.State("BEGIN ROWS"):
                blocks = Signal(SIZE)
                m.d.comb += blocks.eq(divider.quotient + (divider.remainder != 0))
                m.d.sync += divider.begin(command.m, blocks)
                m.next = "ROWS"
            divider.state(m, "ROWS", then="PLAN")
            with m.State("PLAN"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    with m.If(code == Status.DONE):
                        m.d.sync += kept.update(command)
                    m.next = "COMMAND"

        return m

    def _sizes(self, m, command):
        """Groups along K and tiles along N, each rounded up."""
        columns, group = self.config.columns, self.config.group
        groups = Signal(range((1 << SIZE) // group + 1))
        tiles = Signal(range((1 << SIZE) // columns + 1))
        m.d.comb += [
            groups.eq((command.k + group - 1) >> (group - 1).bit_length()),
            tiles.eq((command.n + columns - 1) >> (columns - 1).bit_length()),
        ]
        return groups, tiles

    def _block_limit(self, m, command, fit):
        """Whether the plan is resident, and the most rows of a block, while ``fit`` is there."""
        config = self.config
        # Cycles in which a tile of weights is loaded: with as many rows, the array never waits.
        load = config.columns // config.weight_width
        fits = Signal()
        limit = Signal(range(config.rows + 1))
        m.d.comb += [
            fits.eq((command.m <= fit) | (fit >= load)),
            limit.eq(Mux(fits & (fit < config.rows), fit, config.rows)),
        ]
        return fits, limit

    def _status(self, m, command, kept, room):
        """The table of conditions in the class's docstring, from the top."""
        config = self.config
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
                    & ~kept.matches(command)):
            m.d.comb += code.eq(Status.NOT_KEPT)
        with m.Elif((command.result == Result.KEEP.value)
                    & ((command.m > room) | (command.m > config.rows))):
            m.d.comb += code.eq(Status.TOO_LARGE)
        return code

    def _plan(self, m, command, code, groups, tiles, divider, resident):
        """Drives the payload of ``o``, which is valid after the last division."""
        columns = self.config.columns
        last_columns = Signal(range(columns + 1))
        spare = command.n[: (columns - 1).bit_length()]
        m.d.comb += last_columns.eq(Mux(spare == 0, columns, spare))
        plan = self.o.payload
        m.d.comb += [
            plan.code.eq(code),
            Value.cast(plan.source).eq(command.source),
            Value.cast(plan.result).eq(command.result),
            plan.groups.eq(groups),
            plan.tiles.eq(tiles),
            plan.columns.eq(last_columns),
            # The last division was M / blocks: its operand and its results are still there.
            plan.blocks.eq(divider.divisor),
            plan.rows.eq(divider.quotient),
            plan.larger.eq(divider.remainder),
            plan.resident.eq(resident),
        ]


class _Kept:
    """Whether the last command that ran kept its result, and the rows and columns of that.

    ``rows`` are the most that are kept; the rows of a result that is not kept may be cut.
    """

    def __init__(self, rows):
        self.kept = Signal()
        self.kept_m = Signal(range(rows + 1), reset_less=True)
        self.kept_n = Signal(SIZE, reset_less=True)

    def matches(self, command):
        """Whether M x K activations are kept."""
        return self.kept & (self.kept_m == command.m) & (self.kept_n == command.k)

    def update(self, command):
        """Assignments for a command that runs."""
        return [
            self.kept.eq(command.result == Result.KEEP.value),
            self.kept_m.eq(command.m),
            self.kept_n.eq(command.n),
        ]


class _Divider:
    """Restoring divider: one bit of the quotient per cycle, most significant bit first.

    ``quotient`` and ``remainder`` are there in the cycle after the last step.
    """

    def __init__(self, m):
        self.dividend = Signal(SIZE, reset_less=True)
        self.divisor = Signal(SIZE, reset_less=True)
        self.remainder = Signal(SIZE, reset_less=True)
        self.quotient = Signal(SIZE, reset_less=True)
        self.step = Signal(range(SIZE), reset_less=True)
        # The remainder with the dividend's next bit has one bit more, its difference a sign too.
        self.trial = Signal(SIZE + 1)
        self.difference = Signal(SIZE + 2)
        m.d.comb += [
            self.trial.eq(Cat(self.dividend[-1], self.remainder)),
            self.difference.eq(self.trial - self.divisor),
        ]
        self.divided = Signal()
        m.d.comb += self.divided.eq(self.step == SIZE - 1)

    def begin(self, dividend, divisor):
        """Assignments of the cycle before the first step."""
        return [self.dividend.eq(dividend), self.divisor.eq(divisor), self.remainder.eq(0),
                self.step.eq(0)]

    def state(self, m, name, *, then):
        """Adds the state that makes all steps of a division and goes on to ``then``."""
        negative = self.difference[-1]
        with m.State(name):
            m.d.sync += [
                self.dividend.eq(self.dividend << 1),
                self.remainder.eq(Mux(negative, self.trial, self.difference)),
                self.quotient.eq(Cat(~negative, self.quotient)),
                self.step.eq(self.step + 1),
            ]
            with m.If(self.divided):
                m.next = then
