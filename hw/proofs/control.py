# SPDX-License-Identifier: BSD-2-Clause
"""Proofs of the accelerator's control (specification section 14)."""

from collections.abc import Sequence
from functools import partial

from amaranth.hdl import C, Cat, Mux, Signal, Value

from ..accelerator.activation_feeder import ActivationFeeder
from ..accelerator.config import CONFIGS, SIZE, Config
from ..accelerator.loop_nest import LOOPS, LoopNest
from ..accelerator.planner import INTERLEAVE, Command, Planner, Result, Source, Status
from ..accelerator.weight_feeder import WeightFeeder
from .dependence import apart, originates
from .faults import Fault
from .harness import Harness
from .proof import Proof
from .streams import Opened, connect

_BEGIN, _DIVIDE, _PLAN = (1, 3, 5, 7), (2, 4, 6, 8), 9
"""States of the planner in their order: each division begins, then is done; 0 takes a command."""


class _Division:
    """Follows the planner's divider: the quotient of a division, and that times the divisor.

    No solver multiplies well. But the bits of the quotient come from the highest down, so the
    product is doubled, and the divisor is added where the bit is 1: Horner's scheme.
    """

    def __init__(self, harness, unit):
        m = harness.m
        self.dividend, self.divisor, self.remainder, self.quotient, self.step = (
            unit.signal(name) for name in ("dividend", "divisor", "remainder", "quotient", "step"))
        state = unit.signal("fsm_state")
        self.begins = Cat(state == begin for begin in _BEGIN).any()
        self.divides = Cat(state == divide for divide in _DIVIDE).any()
        # What is divided, the bits of the quotient that are known, and their product.
        self.whole, self.bits, self.product = (
            Signal(SIZE, name=f"division_{name}") for name in ("whole", "bits", "product"))
        self.given = Signal(SIZE)
        coming = Signal(SIZE + 1)
        bit = Signal()
        m.d.comb += [coming.eq(Cat(self.dividend[-1], self.remainder)),
                     bit.eq(coming >= self.divisor)]
        with m.If(self.begins):
            m.d.sync += [self.whole.eq(self.given), self.bits.eq(0), self.product.eq(0)]
        with m.Elif(self.divides):
            m.d.sync += [self.bits.eq(Cat(bit, self.bits)),
                         self.product.eq((self.product << 1) + Mux(bit, self.divisor, 0))]
        # After as many steps, so many upper bits of the dividend are divided.
        step, left, known = Signal(range(SIZE + 1)), Signal(range(SIZE + 1)), Signal(SIZE)
        ended = state == _PLAN
        for begin in _BEGIN[1:]:
            ended |= state == begin
        m.d.comb += [step.eq(Mux(self.divides, self.step, SIZE)), left.eq(SIZE - step),
                     known.eq((1 << step) - 1)]
        at_work = self.divides | ended
        harness.claim("divider_steps", ~self.divides | (self.step < SIZE))
        harness.claim("divider_rest", ~at_work | (self.dividend == (self.whole << step)[:SIZE]))
        harness.claim("divider_bits", ~at_work | (((self.quotient ^ self.bits) & known) == 0))
        harness.claim("divider_known", ~at_work | ((self.bits & ~known) == 0))
        harness.claim("divider_product", ~at_work | (self.divisor == 0)
                      | (self.product + self.remainder == self.whole >> left))
        harness.claim("divider_zero", ~at_work | (self.bits != 0) | (self.product == 0))
        harness.claim("divider_least", ~at_work | (self.divisor == 0)
                      | (self.product >= self.bits))
        harness.claim("divider_remainder", ~at_work | (self.divisor == 0)
                      | (self.remainder < self.divisor))


def _planner(name):
    """The plan of any command is the one that section 14 defines."""
    harness = Harness()
    m = harness.m
    config = CONFIGS[name]
    component = Planner(config)
    m.submodules.unit = unit = Opened(component)
    moves = connect(harness, component)
    state = unit.signal("fsm_state")
    command, busy, age = Signal(Command), Signal(), Signal(range(Planner.latency + 1))
    m.d.sync += [busy.eq(moves["i"] | (busy & ~moves["o"])),
                 age.eq(Mux(busy & (age != Planner.latency), age + 1, 0))]
    with m.If(moves["i"]):
        m.d.sync += [command.eq(component.i.payload), age.eq(1)]
    with m.Elif(component.o.valid):
        m.d.sync += age.eq(age)
    harness.claim("state", state <= _PLAN)
    harness.claim("busy", busy == (state != 0))
    harness.claim("i_is_taken", component.i.ready == ~busy)
    apart(harness, "i_ready_apart", component.i.ready, harness.inputs["o_ready"])
    harness.claim("command_is_held", ~busy | (Value.cast(unit.signal("command"))
                                               == command.as_value()))

    # Each state has its cycle, so every command is planned in the same time.
    division = _Division(harness, unit)
    cycle = Signal.like(age)
    with m.Switch(state):
        for number in range(4):
            with m.Case(_BEGIN[number]):
                m.d.comb += cycle.eq(1 + number * (SIZE + 1))
            with m.Case(_DIVIDE[number]):
                m.d.comb += cycle.eq(2 + number * (SIZE + 1) + division.step)
        with m.Case(_PLAN):
            m.d.comb += cycle.eq(Planner.latency)
    harness.claim("cycle", ~busy | (age == cycle))
    harness.claim("planned", component.o.valid == (busy & (age == Planner.latency)))

    # Sizes.
    plan = component.o.payload
    groups, tiles = unit.signal("groups"), unit.signal("tiles")
    valid_size = (command.m != 0) & (command.k != 0) & (command.n != 0)
    harness.claim("groups", ~busy | ((config.group * groups >= command.k)
                                     & (config.group * groups < command.k + config.group)))
    harness.claim("tiles", ~busy | ((config.columns * tiles >= command.n)
                                    & (config.columns * tiles < command.n + config.columns)))

    # The quotients. Each is what a division left behind.
    room, fit, bundled, rows = (Signal(SIZE, name=f"{what}_quotient")
                                for what in ("room", "fit", "blocks", "rows"))
    rest = Signal(SIZE)
    for quotient, after in ((room, _BEGIN[1]), (fit, _BEGIN[2]), (bundled, _BEGIN[3])):
        with m.If(state == after):
            m.d.sync += quotient.eq(division.bits)
    with m.If(state == _BEGIN[3]):
        m.d.sync += rest.eq(division.whole - division.product)
    resident, limit, blocks = Signal(), Signal(SIZE), Signal(SIZE)
    load = config.columns // config.weight_width
    fit_now = Mux(state == _BEGIN[2], division.bits, fit)
    m.d.comb += [
        rows.eq(division.bits),
        resident.eq((command.m <= fit_now) | (fit_now >= load)),
        limit.eq(Mux(resident & (fit_now < config.rows), fit_now, config.rows)),
        blocks.eq(Mux(state == _BEGIN[3], division.bits + (division.whole != division.product),
                      bundled + (rest != 0))),
    ]
    operands = ((config.activations, groups + tiles), (config.activations, groups),
                (command.m, limit), (command.m, blocks))
    with m.Switch(state):
        for begin, (whole, _) in zip(_BEGIN, operands, strict=True):
            with m.Case(begin):
                m.d.comb += division.given.eq(whole)
    # The operands of the division before, while the next one begins.
    for number, (whole, by) in enumerate(operands):
        here = (state == _DIVIDE[number]) | (state == (_BEGIN + (_PLAN,))[number + 1])
        harness.claim(f"operands{number}", ~here | ~valid_size | (
            (division.whole == whole) & (division.divisor == by)))
    harness.claim("room_is_kept", ~valid_size | (state <= _BEGIN[1])
                  | (unit.signal("room") == room))
    harness.claim("resident_is_kept", ~valid_size | (state <= _BEGIN[2])
                  | (unit.signal("resident") == resident))

    harness.claim("blocks", ~valid_size | (state < _BEGIN[3]) | (blocks != 0))

    # The table of section 14.3, from the bottom up.
    kept, kept_m, kept_n = Signal(), Signal(SIZE), Signal(SIZE)
    code = Signal(Status)
    m.d.comb += code.eq(Status.DONE)
    with m.If((command.result == Result.KEEP.value)
              & ((command.m > room) | (command.m > config.rows))):
        m.d.comb += code.eq(Status.TOO_LARGE)
    with m.If((command.source == Source.KEPT.value)
              & ~(kept & (kept_m == command.m) & (kept_n == command.k))):
        m.d.comb += code.eq(Status.NOT_KEPT)
    results = [Result.VALUES, Result.RECORDS, Result.KEEP] if config.quantizes else [Result.VALUES]
    with m.If(~Cat(command.result == result.value for result in results).any()):
        m.d.comb += code.eq(Status.BAD_RESULT)
    sources = ([Source.RECORDS] + [Source.VALUES] * (config.input is not None)
               + [Source.KEPT] * config.quantizes)
    with m.If(~Cat(command.source == source.value for source in sources).any()):
        m.d.comb += code.eq(Status.BAD_SOURCE)
    with m.If(~valid_size):
        m.d.comb += code.eq(Status.BAD_SIZE)
    with m.If(moves["o"] & (code == Status.DONE)):
        m.d.sync += [kept.eq(command.result == Result.KEEP.value),
                     kept_m.eq(command.m), kept_n.eq(command.n)]
    harness.claim("kept", unit.signal("kept") == kept)
    harness.claim("kept_sizes", ~kept | ((unit.signal("kept_m") == kept_m)
                                         & (unit.signal("kept_n") == kept_n)))

    planned = component.o.valid
    runs = planned & (code == Status.DONE)
    last = command.n - config.columns * (tiles - 1)
    harness.claim("code", ~planned | (Value.cast(plan.code) == code.as_value()))
    for name, same in {
            "source": Value.cast(plan.source) == command.source,
            "result": Value.cast(plan.result) == command.result,
            "groups": plan.groups == groups, "tiles": plan.tiles == tiles,
            "columns": plan.columns == last, "blocks": plan.blocks == blocks,
            "rows": plan.rows == rows[:len(plan.rows)], "resident": plan.resident == resident,
            # With one row more in the larger blocks, they are all M rows.
            "all_rows": division.product + plan.larger == command.m,
            "larger": plan.larger < blocks}.items():
        harness.claim(f"plan_{name}", ~runs | same)
    for one in (Status.DONE, Status.TOO_LARGE) if config.quantizes else (Status.DONE,):
        harness.witness(one.name.lower(), planned & (code == one))
    return harness


def _possible(harness, config, stream):
    """Assumes of plans what the planner gives: sizes of at least 1, and blocks that fit."""
    plan = stream.payload
    runs = Value.cast(plan.code) == Status.DONE.value
    fits = plan.rows + (plan.larger != 0) <= config.rows
    spare = (plan.columns >= 1) & (plan.columns <= config.columns)
    harness.assume("plan", ~stream.valid | ~runs | (
        (plan.groups != 0) & (plan.tiles != 0) & (plan.rows != 0) & (plan.blocks != 0)
        & (plan.larger < plan.blocks) & fits & spare))
    return runs


def _loops(harness, unit, config, loops, path=""):
    """Claims that loops end: a number that counts what is to come falls with every step.

    Returns the number, which is 0 while no plan is under way.
    """
    m = harness.m

    def signal(name):
        return unit.signal(f"{path}{name}")

    active, entering = signal("active"), signal("entering")
    groups, tiles = signal("groups"), signal("tiles")
    index, tile, group, left = signal("index"), signal("tile"), signal("group"), signal("left")
    bundle, width, rows = signal("bundle"), signal("bundle_width"), signal("block_rows")
    blocks, larger = signal("blocks"), signal("larger")
    count = config.columns // config.weight_width if loops == "weights" else rows
    what = path.replace(".", "_")
    named = {
        "one_state": ~(active & entering),
        "index": ~active | (index < count),
        "tile": ~active | (tile < bundle) | (loops == "activations"),
        "group": ~active | (group < groups),
        "bundle": ~active | ((bundle != 0) & (bundle <= width) & (width <= INTERLEAVE)),
        "left": ~active | (left + bundle <= tiles),
        "block_rows": ~active | ((rows != 0) & (rows <= config.rows)),
        "later_blocks": ~(active & (blocks != 0)) & ~entering | (
            (signal("rows") != 0) & (signal("rows") + (larger != 0) <= config.rows)),
        "sizes": ~(active | entering) | ((groups != 0) & (tiles != 0)),
        "larger": ~(active | entering) | (larger <= blocks),
        "first_block": ~entering | (blocks != 0),
    }
    for name, holds in named.items():
        harness.claim(f"{what}{name}", holds)
    # Rounds that are to come, the outermost loop in the uppermost bits.
    parts = [count - 1 - index, bundle - tile, groups - 1 - group, left, blocks]
    widths = [len(index), len(bundle), len(groups), len(left), len(blocks)]
    measure = Signal(sum(widths) + 2, name=f"{what}measure")
    bits = Cat(Value.cast(part).as_unsigned()[:width] for part, width in
               zip(parts, widths, strict=True))
    with m.If(active):
        m.d.comb += measure.eq(Cat(bits, C(1, 2)))
    with m.Elif(entering):
        m.d.comb += measure.eq(C(1, 2) << sum(widths) + 1)
    return measure


def _loop_nest(name, loops):
    """Every plan ends."""
    harness = Harness()
    m = harness.m
    config = CONFIGS[name]
    component = LoopNest(config, loops=loops)
    m.submodules.unit = unit = Opened(component)
    moves = connect(harness, component)
    runs = _possible(harness, config, component.i)
    measure = _loops(harness, unit, config, loops)
    before, stepped = Signal.like(measure), Signal()
    last, began = Signal(), Signal()
    m.d.sync += [before.eq(measure), stepped.eq(moves["o"]),
                 last.eq(moves["o"] & component.o.payload.last), began.eq(moves["i"] & runs)]
    harness.claim("falls", ~stepped | (measure < before))
    harness.claim("stays", stepped | began | (before == 0) | (measure == before)
                  | (measure < before))
    harness.claim("ends_with_last", ~stepped | (last == (measure == 0)))
    harness.claim("begins", began == ((before == 0) & (measure != 0)))
    harness.claim("i_is_taken", component.i.ready == (measure == 0))
    harness.claim("steps_come", component.o.valid == unit.signal("active"))
    harness.witness("ends", last)
    harness.witness("next_block", stepped & (measure[-24:] != before[-24:]) & ~last)
    return harness


def _weight_feeder():
    """The weights' buffer: its level, the order of what it gives, and that it goes on."""
    harness = Harness()
    m = harness.m
    config = Config(columns=4, activations=64, weights=4, rows=16)
    depth = config.weights // config.weight_width
    component = WeightFeeder(config)
    m.submodules.unit = unit = Opened(component)
    moves = connect(harness, component)
    _possible(harness, config, component.i_plan)
    _loops(harness, unit, config, "weights", path="loops.")
    level, read, written, take, wanted = (
        unit.signal(name) for name in ("level", "read", "written", "take", "wanted"))
    held = Signal.like(level, name="taken_less_read")
    m.d.sync += held.eq(held + moves["i"] - take)
    harness.claim("level", (level <= depth) & (level == held))
    harness.claim("ring", (read + level)[:len(read)] == written)
    harness.claim("no_underflow", ~take | (level != 0))
    harness.claim("no_overflow", ~moves["i"] | (level != depth))
    harness.claim("i_is_taken", component.i.ready == (level != depth))
    for name in "i", "i_plan":
        apart(harness, f"{name}_ready_apart", getattr(component, name).ready,
              harness.inputs["o_ready"])
    step = unit.signal("loops.active")
    goes = step & (~wanted | (level != 0)) & component.o.ready
    harness.claim("goes_on", ~goes | (unit.signal("loops.o__ready") & unit.signal("available")))
    harness.claim("plan_is_taken", component.i_plan.ready
                  == ~(step | unit.signal("loops.entering")))

    # A transfer that is watched leaves the ring behind those in front of it, and then the buffer.
    ahead = Signal.like(level, name="ahead")
    stored, out, over, mark = (Signal(name=name) for name in ("stored", "out", "over", "mark"))
    m.d.comb += mark.eq(harness.input("chosen") & moves["i"] & ~over)
    with m.If(mark):
        m.d.sync += [over.eq(1), stored.eq(1), ahead.eq(level - take)]
    with m.Elif(take & stored):
        m.d.sync += [ahead.eq(ahead - 1), stored.eq(ahead != 0)]
    with m.If(take & stored & (ahead == 0)):
        m.d.sync += out.eq(1)
    with m.Elif(moves["o"]):
        m.d.sync += out.eq(0)
    harness.claim("in_front", ~stored | (over & (ahead < level)))
    harness.claim("out", ~out | (component.o.valid & over & ~stored))
    originates(harness, "order", component.o.payload, out, {"i_payload": ~mark},
               [out, *(stored & ((read + ahead)[:len(read)] == place) for place in range(depth))],
               stale=False)
    harness.witness("given", out & moves["o"])
    harness.witness("full", level == depth)
    return harness


def _activation_feeder():
    """The ring of activations: no record leaves that is not there, and none is lost."""
    harness = Harness()
    m = harness.m
    config = Config(columns=4, activations=64, weights=4, rows=16)
    depth = config.activations
    component = ActivationFeeder(config)
    m.submodules.unit = unit = Opened(component)
    moves = connect(harness, component, exact=("o",))
    _possible(harness, config, component.i_plan)
    for name in "i", "i_kept", "i_plan":
        apart(harness, f"{name}_ready_apart", getattr(component, name).ready,
              harness.inputs["o_ready"])
    plan = component.i_plan.payload
    # The planner lets a block stay if the ring holds it.
    narrow = range(depth + 1)
    groups, rows = Signal(narrow), Signal(len(plan.rows))
    m.d.comb += [groups.eq(plan.groups), rows.eq(plan.rows + (plan.larger != 0))]
    harness.assume("block_fits", ~component.i_plan.valid | ~plan.resident | (
        (plan.groups <= depth) & (groups * rows <= depth)))
    for path, loops in ("arrivals.", "activations"), ("products.", "products"):
        _loops(harness, unit, config, loops, path=path)

    level, fresh, flying, give, once = (
        unit.signal(name) for name in ("level", "fresh", "flying", "give", "once"))
    leaves, stays, put = (unit.signal(name) for name in ("leaves", "stays", "put"))
    harness.claim("levels", (fresh <= level) & (level <= depth))
    harness.claim("no_underflow", ~give | ((~leaves | (level != 0)) & (~once | (fresh != 0))))
    harness.claim("no_overflow", ~put | (level != depth))
    harness.claim("arriving", unit.signal("arriving") | ~(
        unit.signal("arrivals.active") | unit.signal("arrivals.entering")))
    harness.claim("one_writer", ~(moves["i"] & moves["i_kept"]))
    # The array gives back what it took.
    harness.assume("retired", ~component.retired | (flying != 0))
    harness.claim("flying", ~give | ~flying.all())

    # Records that have been given and have not left, by the place of the loops.
    active = unit.signal("products.active")
    at = {name: unit.signal(f"products.{name}") for name in
          ("index", "tile", "group", "left", "bundle", "block_rows", "first", "groups")}
    given = Signal.like(level, name="given")
    m.d.comb += given.eq(level - fresh)
    first_tile, last_tile = at["tile"] == 0, at["tile"] == at["bundle"] - 1
    through = Signal(range(config.rows + 1))
    m.d.comb += through.eq(at["index"])
    group, total, done = Signal(narrow), Signal(narrow), Signal(narrow)
    m.d.comb += [group.eq(at["group"]), total.eq(at["groups"][:len(group)] * at["block_rows"]),
                 done.eq(group * at["block_rows"])]
    last_bundle = at["left"] == 0
    within = Mux(at["bundle"] == 1, 0, Mux(first_tile, through, Mux(
        last_tile, at["block_rows"] - through, at["block_rows"])))
    staying = Mux(at["first"], done + Mux(first_tile, through, at["block_rows"]),
                  Mux(last_bundle, total - done - Mux(last_tile, through, 0), total))
    expected = Signal(range(4 * depth))
    m.d.comb += expected.eq(Mux(~active, 0, Mux(stays & ~(at["first"] & last_bundle), staying,
                                                within)))
    harness.claim("given", given == expected)
    entering = unit.signal("products.entering")
    block = Signal(len(at["block_rows"]))
    m.d.comb += block.eq(unit.signal("products.rows") + (unit.signal("products.larger") != 0))
    whole = at["groups"][:len(group)] * block
    harness.claim("stays", ~(active | entering) | (stays == unit.signal("products.resident")))
    harness.claim("block_stays", ~stays | ~(active | entering) | (
        (at["groups"] <= depth)
        & (~active | (at["groups"][:len(group)] * at["block_rows"] <= depth))
        & (~(entering | (unit.signal("products.blocks") != 0)) | (whole <= depth))))
    harness.witness("leaves", give & leaves & ~once)
    harness.witness("kept", moves["i_kept"])
    return harness


HOLES = {
    "accelerator.blocks": "that the planner's blocks have at most as many rows as the output "
                          "buffer: the proof of a plan compares the bits that the plan has, and "
                          "those of loops and buffers assume it",
    "accelerator.order": "that products read the right records of the ring (addresses), and that "
                         "loops give the steps of section 14.7 in their order and number",
    "accelerator.ends": "that every command ends: proven are the planner, the loops' measure and "
                        "the buffers' levels, not the whole with array and engines between them",
    "accelerator.partial_sums": "that a sum is read behind its write; its accumulators keep the "
                                "rules only beside an array whose stages move as its own do",
    "accelerator.sizes": "buffers are proven for one small configuration, the planner for `paper` "
                         "and `lite`, loops for `tiny`; marks of framed streams are not",
}
"""What is not proven, by subject."""

PROOFS: Sequence[Proof] = [
    Proof(name=f"accelerator.planner_{name}", depth=1, reach=Planner.latency + 2,
          claim="Every command is planned in 85 cycles, with the status and the plan of sections "
                "14.3 and 14.6; quotients are those of exact division",
          build=partial(_planner, name),
          fault=Fault("hw.accelerator.planner", "self.difference.eq(self.trial - self.divisor)",
                      "self.difference.eq(self.trial - self.divisor - 1)"))
    for name in ("paper", "lite")
] + [
    Proof(name=f"accelerator.loops_{loops}", depth=1, reach=13 if loops == "weights" else 5,
          claim="Every plan ends: what is to come falls with each step, in the order of the loops, "
                "and is 0 behind the step that is marked as the last",
          build=partial(_loop_nest, "tiny", loops),
          fault=Fault("hw.accelerator.loop_nest", "plan.blocks.eq(plan.blocks - 1)",
                      "plan.blocks.eq(plan.blocks)"))
    for loops in LOOPS
] + [
    Proof(name="accelerator.weight_feeder", depth=1, reach=9, build=_weight_feeder,
          claim="The weights' buffer never over- or underflows, gives what came in its order, and "
                "goes on when it can",
          fault=Fault("hw.accelerator.weight_feeder", "available.eq(~wanted | (level != 0))",
                      "available.eq(1)")),
    Proof(name="accelerator.activation_feeder", depth=1, reach=9, build=_activation_feeder,
          claim="The ring of activations never over- or underflows, and at each place of the loops "
                "as many records are in use as the loops say",
          fault=Fault("hw.accelerator.activation_feeder",
                      "level.eq(level + put - (give & leaves))", "level.eq(level + put - give)")),
]
