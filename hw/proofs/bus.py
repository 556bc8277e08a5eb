# SPDX-License-Identifier: BSD-2-Clause
"""Proofs of the registers on the AXI4-Lite bus (specification section 15)."""

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

from amaranth.hdl import Array, C, Cat, Mux, Shape, Signal, Value
from amaranth.lib import data

from ..accelerator.config import CONFIGS
from ..accelerator.planner import Command
from ..bus.axi_lite import QUEUE, WIDTH, Code, CommandRegisters, Response
from .dependence import apart
from .faults import Fault
from .harness import Harness
from .proof import Proof
from .streams import Opened, connect

_STORED = "M", "K", "N", "INTERRUPT_MASK", "HALT_ON", "WATCHDOG"
"""Registers that hold what software writes."""


def _register(harness, name, shape, init=0):
    """A register of the model, and its next value, which is the same until something sets it."""
    present = Signal(shape, name=name, init=init)
    following = Signal(shape, name=f"{name}_following")
    harness.m.d.comb += following.eq(present)
    harness.m.d.sync += present.eq(following)
    return present, following


class _Queue:
    """A queue in the form of a list: the oldest entry is entry 0."""

    def __init__(self, harness, name, shape):
        self._m = harness.m
        width = Shape.cast(shape).width
        self.entries = [Signal(width, name=f"{name}_entry{n}") for n in range(QUEUE)]
        self.level = Signal(range(QUEUE + 1), name=f"{name}_level")

    def move(self, put, given, take):
        """Moves the queue on by a cycle."""
        kept = self.level - take
        self._m.d.sync += self.level.eq(kept + put)
        for n, entry in enumerate(self.entries):
            after = self.entries[n + 1] if n + 1 < QUEUE else C(0)
            self._m.d.sync += entry.eq(Mux(put & (kept == n), given, Mux(take, after, entry)))

    def equals(self, unit, path):
        """Whether a `StreamQueue` holds the same."""
        places = Array(unit.signal(f"{path}.place{n}") for n in range(QUEUE))
        first, free = unit.signal(f"{path}.first"), unit.signal(f"{path}.free")
        level = unit.signal(f"{path}.level")
        same = [(level == self.level), (self.level <= QUEUE), (first + level)[:2] == free]
        same += [(self.level <= n) | (places[(first + n)[:2]] == entry)
                 for n, entry in enumerate(self.entries)]
        return Cat(same).all()


def _channel(harness, name, taken, payload, frees):
    """Holds a payload from its transfer until it is used; returns whether there is one, and it."""
    full, full_next = _register(harness, f"{name}_full", 1)
    held = Signal(len(Value.cast(payload)), name=f"{name}_kept")
    with harness.m.If(taken):
        harness.m.d.sync += held.eq(payload)
    harness.m.d.comb += full_next.eq(taken | (full & ~frees))
    return full, held


def _command_registers():
    """A plain model of the registers beside them: what it does, they do, in every cycle."""
    harness = Harness()
    m = harness.m
    component = CommandRegisters(replace(CONFIGS["tiny"], framed=True))
    m.submodules.unit = unit = Opened(component)
    moves = connect(harness, component, exact=("o_b", "o_r", "o_command"))
    table = {register.name: register for register in component.registers.registers}

    # A write happens once both halves are there and the answer before is taken.
    go = Signal()
    answered, answered_next = _register(harness, "answered", 1)
    address_full, address = _channel(harness, "aw", moves["i_aw"], component.i_aw.payload, go)
    data_full, written = _channel(harness, "w", moves["i_w"], component.i_w.payload, go)
    word, strobe = written[:WIDTH], written[WIDTH:]
    strobed = Cat(bit.replicate(8) for bit in strobe)
    m.d.comb += [
        go.eq(address_full & data_full & ~answered),
        answered_next.eq(go | (answered & ~component.o_b.ready)),
    ]
    at = {name: address[2:12] == register.offset >> 2 for name, register in table.items()}

    model = SimpleNamespace(
        commands=_Queue(harness, "commands", Command), results=_Queue(harness, "results", Code),
        running=Signal(range(QUEUE + 1)))
    on_way = model.running + model.results.level
    push, pop = Signal(), Signal()
    halts, halted = Signal(), Signal()
    resumes = strobe[0] & word[1] & ~word[0]
    m.d.comb += halted.eq(halts & component.i_rest & (model.running == 0))
    refused = Mux(at["COMMAND"], strobe[0] & (on_way == QUEUE),
                  at["HALT"] & resumes & halts & ~halted)
    m.d.comb += [
        push.eq(go & at["COMMAND"] & strobe[0] & ~refused),
        pop.eq(go & at["POP"] & strobe[0] & word[0] & (model.results.level != 0)),
    ]
    stored = {}
    for name in _STORED:
        mask = sum(field.mask for field in table[name].fields)
        reset = sum(field.reset << field.lsb for field in table[name].fields)
        stored[name] = Signal(WIDTH, name=f"{name.lower()}_stored", init=reset)
        with m.If(go & at[name]):
            m.d.sync += stored[name].eq(((word & strobed) | (stored[name] & ~strobed)) & mask)
        harness.claim(f"unused_{name.lower()}", (stored[name] & ~C(mask, WIDTH)) == 0)
    asked = data.View(table["COMMAND"].layout, word)
    given = Signal(Command)
    m.d.comb += [given.m.eq(stored["M"]), given.k.eq(stored["K"]), given.n.eq(stored["N"]),
                 given.source.eq(asked.source), given.result.eq(asked.result)]
    # While it halts, commands that have left end without a status.
    ended, code, reason = Signal(), Signal(4), Signal(4, init=Code.ABORTED.value)
    left = model.running != model.commands.level
    m.d.comb += [ended.eq(left & (component.i_status.valid | halts)),
                 code.eq(Mux(halts, reason, Value.cast(component.i_status.payload)))]
    failed = ended & (code != Code.DONE.value)
    m.d.sync += model.running.eq(model.running + push - ended)
    model.commands.move(push, given, moves["o_command"])
    model.results.move(ended, code, pop)
    cycles = Signal(2 * WIDTH, name="cycles_counted")
    m.d.sync += cycles.eq(cycles + (model.running != 0))

    # The watchdog counts cycles in which nothing moves; three more causes halt the machine.
    count, rewound = Signal(WIDTH, name="watchdog_count"), Signal()
    waits = (model.running != 0) & ~(component.i_moved | push | ended | rewound)
    expired, misframed = waits & (count == 1), component.i_misframed.valid & stored["HALT_ON"][1]
    m.d.sync += rewound.eq(go & at["WATCHDOG"])
    with m.If(halts | ~waits):
        m.d.sync += count.eq(stored["WATCHDOG"])
    with m.Else():
        m.d.sync += count.eq(Mux(count == 0, 0, count - 1))
    with m.If(halts):
        m.d.sync += halts.eq(~(go & at["HALT"] & resumes & halted))
        with m.If(ended | (model.running == 0)):
            m.d.sync += reason.eq(Code.ABORTED.value)
    with m.Elif(misframed | expired | (failed & stored["HALT_ON"][0])
                | (go & at["HALT"] & strobe[0] & word[0])):
        m.d.sync += [halts.eq(1), reason.eq(Mux(
            misframed, Code.MISFRAMED.value, Mux(expired, Code.TIMEOUT.value, reason)))]
    harness.claim("halts", component.o_halt == halts)
    harness.claim("same_reason", Value.cast(unit.signal("reason")) == reason)
    harness.claim("reason_at_work", halts | (reason == Code.ABORTED.value))
    harness.claim("same_rewound", unit.signal("rewound") == rewound)
    harness.claim("same_watchdog", unit.signal("watchdog_cycles") == stored["WATCHDOG"])
    harness.claim("same_count", unit.signal("left", register=True) == count)
    for lsb, name in enumerate(("failed", "misframed")):
        harness.claim(f"same_halt_on_{name}", unit.signal(f"halt_on_{name}")
                      == stored["HALT_ON"][lsb])

    # Answers to writes.
    writable = Cat(at[name] for name, register in table.items() if register.access != "ro").any()
    answer = Signal(2)
    with m.If(go):
        m.d.sync += answer.eq(Mux(writable & ~refused, Response.OKAY.value, Response.SLVERR.value))
    harness.claim("write_is_answered", component.o_b.valid == answered)
    harness.claim("write_answer", ~answered | (Value.cast(component.o_b.payload) == answer))
    harness.claim("aw_is_taken", component.i_aw.ready == (~address_full | go))
    harness.claim("w_is_taken", component.i_w.ready == (~data_full | go))

    # Events: a cycle in which one comes and is cleared leaves it.
    fields = {field.name: field.lsb for field in table["INTERRUPT_PENDING"].fields}
    sticky = {}
    for name, comes in (("failed", failed),
                        ("misframed", component.i_misframed.valid & ~halts)):
        sticky[name] = Signal(name=f"{name}_pending")
        cleared = go & at["INTERRUPT_PENDING"] & (word & strobed)[fields[name]]
        m.d.sync += sticky[name].eq(comes | (sticky[name] & ~cleared))
    pending = (((model.results.level != 0) << fields["done"])
               | ((on_way != QUEUE) << fields["free"])
               | sum(value << fields[name] for name, value in sticky.items()))
    events = sum(1 << lsb for lsb in fields.values())
    harness.claim("interrupt", component.o_irq
                  == ((pending & stored["INTERRUPT_MASK"] & events) != 0))

    # Reads.
    high = Signal(WIDTH)
    read, place = moves["i_ar"], component.i_ar.payload.addr[2:]
    values = {name: C(sum(field.reset << field.lsb for field in register.fields), WIDTH)
              for name, register in table.items() if register.offset < table["M"].offset}
    values |= stored | {
        "STATUS": (QUEUE - on_way) | (model.running << 8) | (model.results.level << 16)
        | (halts << 24) | (halted << 25),
        "RESULT": Mux(model.results.level != 0, model.results.entries[0] | (1 << 31), 0),
        "CYCLES_LOW": cycles[:WIDTH], "CYCLES_HIGH": high, "INTERRUPT_PENDING": pending}
    found, response = Signal(WIDTH), Signal(2, init=Response.SLVERR.value)
    known = Signal()
    m.d.comb += [response.eq(Response.SLVERR.value), known.eq(1)]
    with m.Switch(place):
        for name, register in table.items():
            with m.Case(register.offset >> 2):
                if register.access != "wo":
                    m.d.comb += response.eq(Response.OKAY.value)
                    m.d.comb += found.eq(values[name]) if name in values else known.eq(0)
    with m.If(read & (place == table["CYCLES_LOW"].offset >> 2)):
        m.d.sync += high.eq(cycles[WIDTH:])
    fetched, fetched_next = _register(harness, "fetched", 1)
    m.d.comb += fetched_next.eq(read | (fetched & ~component.o_r.ready))
    expected = Signal(WIDTH + 2)
    compared = Signal()
    with m.If(read):
        m.d.sync += [expected.eq(Cat(found, response)), compared.eq(known)]
    harness.claim("read_is_answered", component.o_r.valid == fetched)
    harness.claim("ar_is_taken", component.i_ar.ready == ~fetched)
    harness.claim("read_answer", ~fetched | ~compared
                  | (Value.cast(component.o_r.payload) == expected))

    # Commands and statuses.
    harness.claim("command_leaves", component.o_command.valid == (model.commands.level != 0))
    harness.claim("command", ~component.o_command.valid
                  | (Value.cast(component.o_command.payload) == model.commands.entries[0]))
    harness.claim("status_is_taken", component.i_status.ready
                  == (left & ~halts))
    harness.claim("levels", (on_way <= QUEUE) & (model.commands.level <= model.running))

    # What the claims rest on: the unit's own state is that of the model.
    for path, value in (("address.valid", address_full), ("data.valid", data_full),
                        ("running", model.running), ("cycles", cycles),
                        ("interrupt_pending_failed", sticky["failed"]),
                        ("interrupt_pending_misframed", sticky["misframed"])):
        harness.claim(f"same_{path.replace('.', '_')}", unit.signal(path) == value)
    harness.claim("same_address", ~address_full | (Value.cast(unit.signal("address.payload"))
                                                   == address))
    harness.claim("same_data", ~data_full | (Value.cast(unit.signal("data.payload")) == written))
    harness.claim("same_high", Value.cast(unit.signal("cycles_high")) == high)
    for name in ("M", "K", "N"):
        harness.claim(f"same_{name.lower()}", unit.signal(f"{name.lower()}_size") == stored[name])
    for name, lsb in fields.items():
        harness.claim(f"same_mask_{name}", unit.signal(f"interrupt_mask_{name}")
                      == stored["INTERRUPT_MASK"][lsb])
    harness.claim("same_commands", model.commands.equals(unit, "commands"))
    harness.claim("same_results", model.results.equals(unit, "results"))

    for name, port in (("aw_ready", component.i_aw.ready), ("w_ready", component.i_w.ready),
                       ("ar_ready", component.i_ar.ready), ("b_valid", component.o_b.valid),
                       ("r_valid", component.o_r.valid), ("irq", component.o_irq),
                       ("command_valid", component.o_command.valid),
                       ("status_ready", component.i_status.ready), ("halt", component.o_halt)):
        apart(harness, f"{name}_from_register", port, *harness.inputs.values())
    harness.witness("refused", go & refused)
    harness.witness("expired", expired & ~halts)
    harness.witness("resumed", go & at["HALT"] & resumes & halted)
    harness.witness("popped", pop)
    harness.witness("stale_answer", go & moves["i_aw"])
    harness.witness("interrupted", component.o_irq & sticky["failed"])
    return harness


HOLES = {
    "axi_accelerator.machine": "that the machine behind the registers empties itself in a halt: "
                               "`i_rest` and `i_moved` may be anything here",
    "axi_wrapper.registers": "the AXI4-Lite part of the wrapper, which only renames ports",
}
"""What is not proven, by subject."""

PROOFS: Sequence[Proof] = [
    Proof(name="axi_accelerator.registers", depth=1, reach=14,
          claim="In every cycle the registers do what a plain model of section 15 does, under any "
                "master that keeps the rules of AXI4-Lite: one answer to each request, in order, "
                "behind address and data, SLVERR where nothing happens, written values read back; "
                "halts, their reasons and the watchdog",
          build=_command_registers,
          fault=Fault("hw.bus.axi_lite", "taken_next.eq(taken + push - popped)",
                      "taken_next.eq(taken + push)")),
]
