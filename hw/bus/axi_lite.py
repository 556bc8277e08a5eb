# SPDX-License-Identifier: BSD-2-Clause
"""Registers of the accelerator on an AXI4-Lite bus (specification section 15)."""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.enum import Enum
from amaranth.lib.wiring import In, Out

from ..accelerator.accelerator import Misframed
from ..accelerator.planner import SIZE, Command, Result, Source, Status
from ..lib.formats import ENCODINGS
from ..lib.stream_queue import StreamQueue
from ..lib.stream_register import StreamRegister
from .register_map import WIDTH, Field, Register, RegisterMap

ADDRESS = 12
"""Bits of an address: 4 KB, the least range that tools give to a slave."""

QUEUE = 4
"""Commands on their way at a time, from the write of COMMAND to the write of POP."""


class Response(Enum, shape=2):
    """Response of a transfer on the bus (specification section 15.3)."""

    OKAY = 0
    SLVERR = 2
    """Nothing was read or written."""


class Code(Enum, shape=4):
    """How a command ended, in the register RESULT (specification sections 14.3 and 15.9).

    The first six are those of `Status`. The others are given to commands that a halt ended.
    """

    DONE = 0
    BAD_SIZE = 1
    BAD_SOURCE = 2
    BAD_RESULT = 3
    NOT_KEPT = 4
    TOO_LARGE = 5
    ABORTED = 6
    """The machine halted, for another reason than those below."""
    TIMEOUT = 7
    """It halted as nothing had moved for as many cycles as WATCHDOG says."""
    MISFRAMED = 14
    """It halted as an operand was marked wrongly. In three bits this is ABORTED."""


class Input(Enum, shape=2):
    """Type of the values that are quantized on the way in, in the register CONFIG."""

    NONE = 0
    FLOAT32 = 1
    BFLOAT16 = 2
    FLOAT16 = 3


class Encoding(Enum, shape=2):
    """Encoding of the activations, in the register CONFIG; `ENCODINGS` in their order."""

    ELEM_EM = 0
    SG_EM = 1
    SG_SPECIAL = 2
    SG_SPECIAL64 = 3


class Engine(Enum, shape=3):
    """What quantizes values and results, in the register CONFIG.

    NONE is the quantization engine of Elem-EM, or, in other encodings, nothing.
    """

    NONE = 0
    SG_THRESHOLD = 1
    SG_EM = 2
    SG_SPECIAL = 3
    SG_SPECIAL64 = 4


AddressChannel = data.StructLayout({"addr": ADDRESS, "prot": 3})
WriteChannel = data.StructLayout({"data": WIDTH, "strb": WIDTH // 8})
ResponseChannel = data.StructLayout({"resp": Response})
ReadChannel = data.StructLayout({"data": WIDTH, "resp": Response})

CHANNELS = {
    "i_aw": In(stream.Signature(AddressChannel)),
    "i_w": In(stream.Signature(WriteChannel)),
    "o_b": Out(stream.Signature(ResponseChannel)),
    "i_ar": In(stream.Signature(AddressChannel)),
    "o_r": Out(stream.Signature(ReadChannel)),
}
"""The channels of an AXI4-Lite slave, as streams."""

_FUNCTIONS = """
/* Asks for a product. Returns 0, or -1 if a size is too large or no command is free. */
static inline int m2xfp_start(volatile uint32_t *base, uint32_t m, uint32_t k, uint32_t n,
                              uint32_t source, uint32_t result)
{
    if (m > M2XFP_M_SIZE_MASK || k > M2XFP_K_SIZE_MASK || n > M2XFP_N_SIZE_MASK)
        return -1;
    if (!(base[M2XFP_STATUS_OFFSET / 4] & M2XFP_STATUS_FREE_MASK))
        return -1;
    base[M2XFP_M_OFFSET / 4] = m;
    base[M2XFP_K_OFFSET / 4] = k;
    base[M2XFP_N_OFFSET / 4] = n;
    base[M2XFP_COMMAND_OFFSET / 4] = source << M2XFP_COMMAND_SOURCE_SHIFT
                                     | result << M2XFP_COMMAND_RESULT_SHIFT;
    return 0;
}

/* Takes the result of the oldest command. Returns its code, or -1 if it has not ended. */
static inline int m2xfp_finish(volatile uint32_t *base)
{
    uint32_t result = base[M2XFP_RESULT_OFFSET / 4];

    if (!(result & M2XFP_RESULT_VALID_MASK))
        return -1;
    base[M2XFP_POP_OFFSET / 4] = M2XFP_POP_POP_MASK;
    return (int)((result & M2XFP_RESULT_CODE_MASK) >> M2XFP_RESULT_CODE_SHIFT);
}

/* Halts the machine: commands that run end with ABORTED, and operands are thrown away. */
static inline void m2xfp_stop(volatile uint32_t *base)
{
    base[M2XFP_HALT_OFFSET / 4] = M2XFP_HALT_HALT_MASK;
}

/*
 * Lets a machine go on that has halted. Returns 0, or -1 while it has not yet come to rest. Before
 * this nothing of old commands may be left in the senders of operands.
 */
static inline int m2xfp_go_on(volatile uint32_t *base)
{
    uint32_t status = base[M2XFP_STATUS_OFFSET / 4];

    if (!(status & M2XFP_STATUS_HALTED_MASK))
        return status & M2XFP_STATUS_HALTING_MASK ? -1 : 0;
    base[M2XFP_HALT_OFFSET / 4] = M2XFP_HALT_RESUME_MASK;
    return 0;
}

/* Events that are pending, as M2XFP_INTERRUPT_PENDING_..._MASK; also those that are masked. */
static inline uint32_t m2xfp_pending(const volatile uint32_t *base)
{
    return base[M2XFP_INTERRUPT_PENDING_OFFSET / 4];
}

/* Lets these events raise the interrupt line, and no others. */
static inline void m2xfp_unmask(volatile uint32_t *base, uint32_t events)
{
    base[M2XFP_INTERRUPT_MASK_OFFSET / 4] = events;
}

/* Clears those of these events that stay pending until they are cleared. */
static inline void m2xfp_clear(volatile uint32_t *base, uint32_t events)
{
    base[M2XFP_INTERRUPT_PENDING_OFFSET / 4] = events;
}

/* Cycles in which the machine had commands, since its reset. */
static inline uint64_t m2xfp_cycles(const volatile uint32_t *base)
{
    uint64_t low = base[M2XFP_CYCLES_LOW_OFFSET / 4];

    return (uint64_t)base[M2XFP_CYCLES_HIGH_OFFSET / 4] << 32 | low;
}
"""


def register_map(config):
    """The registers of `CommandRegisters` for a configuration, specification section 15.1.

    Parameters
    ----------
    config : Config

    Returns
    -------
    RegisterMap
    """
    return RegisterMap(name="m2xfp", functions=_FUNCTIONS,
                       registers=(*_constants(config), *_COMMANDS))


EVENTS = (
    Field(name="done", lsb=0, width=1, access="ro",
          description="A result waits; 0 once all are popped"),
    Field(name="free", lsb=1, width=1, access="ro", reset=1,
          description="A command can be written"),
    Field(name="failed", lsb=2, width=1, access="w1c",
          description="A command ended with a code other than DONE; a written 1 clears it"),
    Field(name="misframed", lsb=3, width=1, access="w1c",
          description="The last transfer of a command's operands was not marked, or another one "
                      "was; a written 1 clears it; 0 where `CONFIG.framed` is 0"),
)
"""Fields of INTERRUPT_PENDING."""


def _word(name, offset, access, *fields):
    return Register(name=name, offset=offset, access=access, fields=fields)


def _constant(name, offset, field, value, description):
    return _word(name, offset, "ro", Field(
        name=field, lsb=0, width=WIDTH, reset=value, description=description))


def _operand(name, offset, description):
    return _word(name, offset, "rw", Field(
        name="size", lsb=0, width=SIZE, description=f"{name} of the next command: {description}"))


def _constants(config):
    """Registers that never change: what this is and with which sizes it was built."""
    given = Input[config.input.upper()] if config.input else Input.NONE
    engine = Engine[config.engine.upper().replace("-", "_")] if config.engine else Engine.NONE
    return (
        _constant("ID", 0x00, "letters", int.from_bytes(b"M2XF", "big"), "M2XF in ASCII"),
        _word("VERSION", 0x04, "ro",
              Field(name="minor", lsb=0, width=16, reset=5,
                    description="Counts additions to this table"),
              Field(name="major", lsb=16, width=16, reset=1,
                    description="Counts changes that old drivers do not survive")),
        _word("CONFIG", 0x08, "ro",
              Field(name="columns", lsb=0, width=8, reset=config.columns,
                    description="Columns of the array, float32 values per transfer of results"),
              Field(name="weight_width", lsb=8, width=8, reset=config.weight_width,
                    description="Weight records per transfer"),
              Field(name="input", lsb=16, width=2, reset=given.value, values=Input,
                    description="Type of the values that source VALUES takes"),
              Field(name="quantizes", lsb=18, width=1, reset=int(config.quantizes),
                    description="Whether there are results RECORDS and KEEP"),
              Field(name="framed", lsb=19, width=1, reset=int(config.framed),
                    description="Whether operand streams mark the last transfer of a command"),
              Field(name="encoding", lsb=20, width=2, reset=ENCODINGS.index(config.encoding),
                    values=Encoding, description="Encoding of the activations"),
              Field(name="engine", lsb=22, width=3, reset=engine.value,
                    values=Engine, description="What encodes values and results in factors")),
        _constant("ACTIVATIONS", 0x0C, "size", config.activations,
                  "Group records that the activation buffer holds"),
        _constant("WEIGHTS", 0x10, "size", config.weights,
                  "Group records that the weight buffer holds"),
        _constant("ROWS", 0x14, "size", config.rows,
                  "Rows of partial sums that the output buffer holds"),
    )


_COMMANDS = (
    _operand("M", 0x20, "rows of activations"),
    _operand("K", 0x24, "length of the dot products"),
    _operand("N", 0x28, "rows of weights"),
    _word("COMMAND", 0x2C, "wo",
          Field(name="source", lsb=0, width=2, values=Source,
                description="Where activations come from; a write starts a command of this, M, "
                            "K and N, or is answered with SLVERR if `free` is 0"),
          Field(name="result", lsb=4, width=2, values=Result,
                description="What happens to the result")),
    _word("STATUS", 0x30, "ro",
          Field(name="free", lsb=0, width=8, reset=QUEUE,
                description="Commands that can be written before a result is popped"),
          Field(name="running", lsb=8, width=8,
                description="Commands that were written and have not ended"),
          Field(name="waiting", lsb=16, width=8,
                  description="Commands that have ended and whose result was not popped"),
          Field(name="halting", lsb=24, width=1,
                description="Whether the machine halts: it runs no command"),
          Field(name="halted", lsb=25, width=1,
                description="Whether it has come to rest and can resume")),
    _word("RESULT", 0x34, "ro",
          Field(name="code", lsb=0, width=4, values=Code,
                description="How the oldest of those that wait ended, 0 if none does"),
          Field(name="valid", lsb=31, width=1, description="Whether one waits")),
    _word("POP", 0x38, "wo",
          Field(name="pop", lsb=0, width=1,
                description="1 makes way for the next result; without effect if none waits")),
    _word("CYCLES_LOW", 0x40, "ro",
          Field(name="cycles", lsb=0, width=WIDTH,
                description="Cycles since reset in which a command was running, lower half")),
    _word("CYCLES_HIGH", 0x44, "ro",
          Field(name="cycles", lsb=0, width=WIDTH,
                description="Upper half, as it was when the lower one was last read")),
    _word("INTERRUPT_PENDING", 0x48, "rw", *EVENTS),
    _word("INTERRUPT_MASK", 0x4C, "rw", *(
        Field(name=event.name, lsb=event.lsb, width=1,
              description=f"1 lets `{event.name}` raise the interrupt line") for event in EVENTS)),
    _word("HALT", 0x50, "wo",
          Field(name="halt", lsb=0, width=1, description="1 halts the machine"),
          Field(name="resume", lsb=1, width=1,
                description="1 ends the halt if `halted` is 1, and is answered with SLVERR while "
                            "only `halting` is; without effect beside a 1 in `halt`")),
    _word("HALT_ON", 0x54, "rw",
          Field(name="failed", lsb=0, width=1, reset=1,
                description="1 halts the machine when a command ends with a code other than DONE"),
          Field(name="misframed", lsb=1, width=1, reset=1,
                description="1 halts it at a wrong mark of an operand; without effect where "
                            "`CONFIG.framed` is 0")),
    _word("WATCHDOG", 0x58, "rw",
          Field(name="cycles", lsb=0, width=WIDTH,
                description="Cycles in which a command runs and nothing moves after which the "
                            "machine halts; 0 for never")),
)
"""Registers through which software starts and follows commands."""


class CommandRegisters(wiring.Component):
    """AXI4-Lite slave through which software starts commands and reads how they ended.

    A write of COMMAND starts a command with the present M, K and N. At most `QUEUE` commands are
    on their way at a time, until a write of POP takes their result; so a status never waits for
    software, and neither queue overflows::

             write COMMAND       o_command    i_status         write POP
        free -------------> commands --> accelerator --> results --------> free
                            |<------- running ------->|<- waiting ->|

    A register is written in the bytes that ``strb`` selects; COMMAND, POP and HALT act if byte 0,
    which has all their fields, is among them. The lowest two bits of an address and ``prot`` are
    ignored. These get SLVERR and have no effect: addresses without a register, writes of a
    read-only register, reads of a write-only one (which give 0), commands beyond `QUEUE`, and a
    resume before the machine has come to rest.

    Address and data of a write come in any order; each direction has one transfer outstanding.
    A write is answered two cycles after it is complete, a read in the next cycle. No output
    depends combinationally on an input. Specification sections 15.3 to 15.6.

    ``o_irq`` is 1 in those cycles in which an event is pending whose bit in INTERRUPT_MASK is 1
    (section 15.8). It is computed a cycle before and comes from a register, so it has no glitches,
    and it is 0 again when the write that took its last reason away is answered.

    While ``o_halt`` is 1 the machine halts (section 15.9): whoever is behind ``o_command`` takes
    commands and throws them away, and each ends here, one per cycle. No status is taken. ``o_halt``
    is 1 from the cycle after one of these on:

    ====================================================== ======================================
    cause                                                  code of the oldest command that is left
    ====================================================== ======================================
    a write of HALT.halt                                   ``ABORTED``
    a status other than DONE, if HALT_ON.failed is 1       ``ABORTED``
    ``i_misframed``, if HALT_ON.misframed is 1             ``MISFRAMED``
    WATCHDOG.cycles cycles in which nothing moves          ``TIMEOUT``
    ====================================================== ======================================

    The commands behind that one get ``ABORTED``. A write of HALT.resume ends the halt if ``i_rest``
    is 1 and all commands have ended.

    Parameters
    ----------
    config : Config
        Sizes of the accelerator, for the constant registers.

    Members
    -------
    i_aw, i_ar : In(stream.Signature(AddressChannel))
        Addresses of writes and of reads.
    i_w : In(stream.Signature(WriteChannel))
        Data of writes.
    o_b : Out(stream.Signature(ResponseChannel))
        Responses to writes.
    o_r : Out(stream.Signature(ReadChannel))
        Data of reads.
    o_command : Out(stream.Signature(Command))
    i_status : In(stream.Signature(Status))
        Statuses of the commands that have left, in their order. None is taken before.
    i_misframed : In(stream.Signature(Misframed, always_ready=True))
        Marks of operands that are missing or too early. Only in a framed configuration.
    i_moved : In(1)
        An operand or a result was transferred in this cycle.
    i_rest : In(1)
        The machine is empty, and its outputs have nothing left to give.
    o_halt : Out(1)
        The machine shall empty itself. A level, from a register.
    o_irq : Out(1)
        A level.
    """

    # From the write of COMMAND to the command.
    latency = 2

    def __init__(self, config):
        self.config = config
        self.registers = register_map(config)
        members = {
            "o_command": Out(stream.Signature(Command)),
            "i_status": In(stream.Signature(Status)),
        }
        if config.framed:
            members["i_misframed"] = In(stream.Signature(Misframed, always_ready=True))
        super().__init__(CHANNELS | members | {
            "i_moved": In(1), "i_rest": In(1), "o_halt": Out(1), "o_irq": Out(1)})

    def elaborate(self, platform):
        m = Module()

        table = {register.name: register for register in self.registers.registers}
        words, stored = self._words(m, table)
        m.submodules.commands = commands = StreamQueue(Command, depth=QUEUE)
        m.submodules.results = results = StreamQueue(Code, depth=QUEUE)
        wiring.connect(m, commands.o, wiring.flipped(self.o_command))
        push = Signal()
        pop = Signal()
        # What a write does to the halt, and whether it sets the watchdog.
        halt = Signal()
        resume = Signal()
        rewound = Signal()
        # The code of the next command that a halt ends.
        reason = Signal(Code, init=Code.ABORTED)
        taken, ended, cycles = self._track(m, words, commands, results, push, pop, reason)
        address, written, write, answered = self._take_write(m)
        coming = self._coming(m, stored)
        response = self._write(m, table, words, stored, coming, taken, push, pop, address, written,
                               write)
        self._write_halt(m, table, words, response, address, written, write, halt, resume, rewound)
        taken_next = Signal(range(QUEUE + 1))
        waiting_next = Signal(range(QUEUE + 1))
        popped = Signal()
        m.d.comb += [
            popped.eq(pop & results.o.valid),
            # Neither overflows: a command has its place in both queues.
            taken_next.eq(taken + push - popped),
            waiting_next.eq(results.level + ended - popped),
        ]
        failed = Signal()
        m.d.comb += failed.eq(ended & (results.i.payload != Code.DONE))
        self._interrupt(m, words, coming, failed, taken_next, waiting_next)
        self._halt(m, words, push, ended, failed, halt, resume, rewound, reason)
        self._command(m, table, words, commands, written)
        self._answer_write(m, write, answered, response)
        self._read(m, table, words, cycles)

        return m

    def _words(self, m, table):
        """Readable registers by name, and the stored fields of those that software writes.

        Software writes all fields of a register with access "rw" but its read-only ones.
        """
        # Fields that nothing drives are constants.
        words = {name: Signal(register.layout, name=name.lower(),
                              init={field.name: field.reset for field in register.fields})
                 for name, register in table.items() if register.access != "wo"}
        stored = {name: {field.name: Signal(field.width, init=field.reset,
                                            name=f"{name.lower()}_{field.name}")
                         for field in register.fields if self._stores(field)}
                  for name, register in table.items() if register.access == "rw"}
        m.d.comb += [words[name][field].eq(value)
                     for name, fields in stored.items() for field, value in fields.items()]
        return words, stored

    def _stores(self, field):
        """Whether a field of a register that software writes has a register of its own."""
        return field.access == "w1c" and (field.name != "misframed" or self.config.framed) \
            or field.access is None

    def _track(self, m, words, commands, results, push, pop, reason):
        """Follows commands from push to pop: registers STATUS, RESULT and the cycle counter.

        Returns how many are on their way, whether one ends now, and the cycles in which at least
        one was running.
        """
        # A command has its place in both queues from its push on, so neither is ever full when it
        # is given something.
        running = Signal(range(QUEUE + 1))
        taken = Signal(range(QUEUE + 1))
        left = Signal()
        ended = Signal()
        m.d.comb += [
            taken.eq(running + results.level),
            commands.i.valid.eq(push),
            # Only commands that have left can end. While the machine halts they do so at once.
            left.eq(running != commands.level),
            self.i_status.ready.eq(left & ~self.o_halt),
            ended.eq(left & (self.i_status.valid | self.o_halt)),
            results.i.valid.eq(ended),
            Value.cast(results.i.payload).eq(
                Mux(self.o_halt, reason.as_value(), self.i_status.payload.as_value())),
            results.o.ready.eq(pop),
        ]
        m.d.sync += running.eq(running + push - ended)
        cycles = Signal(2 * WIDTH)
        with m.If(running != 0):
            m.d.sync += cycles.eq(cycles + 1)
        m.d.comb += [
            words["STATUS"].free.eq(QUEUE - taken),
            words["STATUS"].running.eq(running),
            words["STATUS"].waiting.eq(results.level),
            words["STATUS"].halting.eq(self.o_halt),
            words["STATUS"].halted.eq(self.o_halt & self.i_rest & (running == 0)),
            words["RESULT"].valid.eq(results.o.valid),
            words["CYCLES_LOW"].cycles.eq(cycles[:WIDTH]),
        ]
        with m.If(results.o.valid):
            m.d.comb += words["RESULT"].code.eq(results.o.payload)
        return taken, ended, cycles

    def _coming(self, m, stored):
        """Next values of the stored fields of the interrupt registers, by register and field."""
        coming = {}
        for name in ("INTERRUPT_PENDING", "INTERRUPT_MASK"):
            coming[name] = {field: Signal(name=f"{name.lower()}_{field}_next")
                            for field in stored[name]}
            for field, value in stored[name].items():
                m.d.comb += coming[name][field].eq(value)
                m.d.sync += value.eq(coming[name][field])
        return coming

    def _take_write(self, m):
        """Collects address and data of a write.

        Returns both payloads, whether the write happens in this cycle, and the register that says
        whether the response before is still to be taken.
        """
        m.submodules.address = address = StreamRegister(AddressChannel)
        m.submodules.data = written = StreamRegister(WriteChannel)
        wiring.connect(m, wiring.flipped(self.i_aw), address.i)
        wiring.connect(m, wiring.flipped(self.i_w), written.i)
        # A write waits until the response before is taken.
        answered = Signal()
        write = Signal()
        m.d.comb += [
            self.o_b.valid.eq(answered),
            write.eq(address.o.valid & written.o.valid & ~answered),
            address.o.ready.eq(write),
            written.o.ready.eq(write),
        ]
        return address.o.payload, written.o.payload, write, answered

    def _write(self, m, table, words, stored, coming, taken, push, pop, address, written, write):
        """Does what a write asks for, and returns the response to it."""
        word = written.data
        strobe = written.strb
        response = Signal(Response)
        m.d.comb += response.eq(Response.SLVERR)
        strobed = Signal(WIDTH)
        m.d.comb += strobed.eq(Cat(bit.replicate(8) for bit in strobe))
        with m.Switch(address.addr[2:]):
            for name, register in table.items():
                if register.access == "rw":
                    with m.Case(register.offset >> 2):
                        m.d.comb += response.eq(Response.OKAY)
                        with m.If(write):
                            values = self._values(register, words[name], word, strobed)
                            # The values of the interrupt registers are seen before they are stored.
                            m.d.comb += [coming[name][field].eq(values[field])
                                         for field in coming.get(name, ())]
                            m.d.sync += [value.eq(values[field])
                                         for field, value in stored[name].items()
                                         if name not in coming]
            with m.Case(table["COMMAND"].offset >> 2):
                with m.If(~strobe[0] | (taken != QUEUE)):
                    m.d.comb += [response.eq(Response.OKAY), push.eq(write & strobe[0])]
            with m.Case(table["POP"].offset >> 2):
                fields = data.View(table["POP"].layout, word)
                m.d.comb += [response.eq(Response.OKAY), pop.eq(write & strobe[0] & fields.pop)]
        return response

    def _values(self, register, present, word, strobed):
        """Fields of a register after a write of the bytes that are strobed."""
        merged = data.View(register.layout, (word & strobed) | (present.as_value() & ~strobed))
        ones = data.View(register.layout, word & strobed)
        return {field.name: present[field.name] & ~ones[field.name] if field.access == "w1c"
                else merged[field.name] for field in register.fields}

    def _interrupt(self, m, words, coming, failed, taken_next, waiting_next):
        """Events: those that are levels, and those that stay until software clears them.

        An event that comes in the cycle in which it is cleared is pending after that.
        """
        sticky = coming["INTERRUPT_PENDING"]
        pending = words["INTERRUPT_PENDING"]
        m.d.comb += [
            pending.done.eq(words["RESULT"].valid),
            pending.free.eq(words["STATUS"].free != 0),
        ]
        with m.If(failed):
            m.d.comb += sticky["failed"].eq(1)
        if self.config.framed:
            # What leaves a machine that empties itself is no event.
            with m.If(self.i_misframed.valid & ~self.o_halt):
                m.d.comb += sticky["misframed"].eq(1)
        events = sticky | {"done": waiting_next != 0, "free": taken_next != QUEUE}
        raised = [event & coming["INTERRUPT_MASK"][name] for name, event in events.items()]
        m.d.sync += self.o_irq.eq(Cat(raised).any())

    def _write_halt(self, m, table, words, response, address, written, write, halt, resume,
                    rewound):
        """Does what a write of HALT asks for, and sees a write of WATCHDOG."""
        fields = data.View(table["HALT"].layout, written.data)
        status = words["STATUS"]
        begins = fields.halt & written.strb[0]
        ends = fields.resume & ~fields.halt & written.strb[0]
        with m.If(address.addr[2:] == table["HALT"].offset >> 2):
            with m.If(~(ends & status.halting & ~status.halted)):
                m.d.comb += response.eq(Response.OKAY)
            m.d.comb += [halt.eq(write & begins), resume.eq(write & ends & status.halted)]
        # A cycle later, when the register has its new value.
        m.d.sync += rewound.eq(write & (address.addr[2:] == table["WATCHDOG"].offset >> 2))

    def _halt(self, m, words, push, ended, failed, halt, resume, rewound, reason):
        """Begins and ends halts.

        The watchdog counts down while a command runs and nothing moves. It starts over with every
        transfer, when a command is written or ends, and when software sets it.
        """
        limit = words["WATCHDOG"].cycles
        left = Signal(WIDTH)
        waits = Signal()
        expired = Signal()
        status = words["STATUS"]
        m.d.comb += [
            waits.eq((status.running != 0) & ~(self.i_moved | push | ended | rewound)),
            expired.eq(waits & (left == 1)),
        ]
        with m.If(~waits | self.o_halt):
            m.d.sync += left.eq(limit)
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)

        misframed = Signal()
        if self.config.framed:
            m.d.comb += misframed.eq(self.i_misframed.valid & words["HALT_ON"].misframed)
        with m.If(self.o_halt):
            with m.If(resume):
                m.d.sync += self.o_halt.eq(0)
            # The reason is for one command only, if there is one.
            with m.If(ended | (status.running == 0)):
                m.d.sync += reason.eq(Code.ABORTED)
        with m.Elif(halt | expired | misframed | (failed & words["HALT_ON"].failed)):
            m.d.sync += self.o_halt.eq(1)
            with m.If(misframed):
                m.d.sync += reason.eq(Code.MISFRAMED)
            with m.Elif(expired):
                m.d.sync += reason.eq(Code.TIMEOUT)

    def _command(self, m, table, words, commands, written):
        """The command that a write of COMMAND pushes."""
        fields = data.View(table["COMMAND"].layout, written.data)
        command = commands.i.payload
        m.d.comb += [
            command.m.eq(words["M"].size),
            command.k.eq(words["K"].size),
            command.n.eq(words["N"].size),
            command.source.eq(fields.source),
            command.result.eq(fields.result),
        ]

    def _answer_write(self, m, write, answered, response):
        """Keeps the response until the master takes it."""
        answer = Signal(Response, reset_less=True)
        m.d.comb += self.o_b.payload.resp.eq(answer)
        with m.If(write):
            m.d.sync += [answered.eq(1), answer.eq(response)]
        with m.Elif(self.o_b.ready):
            m.d.sync += answered.eq(0)

    def _read(self, m, table, words, cycles):
        """Reads a register into the answer; CYCLES_LOW stores the upper half of the counter."""
        fetched = Signal()
        read = Signal()
        found = Signal(ReadChannel)
        m.d.comb += [
            self.o_r.valid.eq(fetched),
            self.i_ar.ready.eq(~fetched),
            read.eq(self.i_ar.valid & self.i_ar.ready),
            found.resp.eq(Response.SLVERR),
        ]
        with m.Switch(self.i_ar.payload.addr[2:]):
            for name, value in words.items():
                with m.Case(table[name].offset >> 2):
                    m.d.comb += [found.data.eq(value), found.resp.eq(Response.OKAY)]
                    if name == "CYCLES_LOW":
                        with m.If(read):
                            m.d.sync += words["CYCLES_HIGH"].cycles.eq(cycles[WIDTH:])
        kept = Signal(ReadChannel, reset_less=True)
        m.d.comb += self.o_r.payload.eq(kept)
        with m.If(read):
            m.d.sync += [fetched.eq(1), kept.eq(found)]
        with m.Elif(self.o_r.ready):
            m.d.sync += fetched.eq(0)
