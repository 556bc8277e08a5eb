# SPDX-License-Identifier: BSD-2-Clause
"""Proofs of the stream rules (specification section 16)."""

from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace

from amaranth.hdl import C, Cat, Elaboratable, Fragment, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..lib.formats import has_specials
from ..lib.pipeline import Control
from ..lib.skid_buffer import SkidBuffer
from ..lib.stream_queue import StreamQueue
from ..lib.stream_register import StreamRegister
from ..units.decoder import Decoder
from ..units.group_accumulator import GroupAccumulator
from ..units.group_mac import GroupMac
from ..units.mac_array import ENTRIES, MacArray
from ..units.nvfp4_quantizer import Nvfp4Quantizer
from ..units.quantization_engine import QuantizationEngine
from ..units.sg_engine import SgEngine
from ..units.weight_encoder import ENCODINGS, WeightEncoder
from .dependence import apart, originates, steady
from .faults import Fault
from .harness import Harness
from .proof import Proof


class Opened(Elaboratable):
    """A component whose inner signals a harness can read.

    Parameters
    ----------
    component : Component
    """

    def __init__(self, component) -> None:
        self._fragment = Fragment.get(component, None)

    def signal(self, path: str, *, register: bool = False) -> Signal:
        """A signal by the names of the submodules that hold it and its own, such as ``a.b.valid``.

        With ``register`` it is one that a clock edge sets.

        Raises
        ------
        KeyError
            If there is none, or more than one.
        """
        fragment, (*modules, name) = self._fragment, path.split(".")
        for module in modules:
            found = [part for part, part_name, *_ in fragment.subfragments if part_name == module]
            if len(found) != 1:
                raise KeyError(f"{path}: there are {len(found)} submodules {module}")
            fragment, = found
        matching = {key: signal for key, signal in _signals(fragment).items()
                    if signal.name == name}
        if register:
            matching = {id(signal): signal for signal in fragment.statements["sync"]._lhs_signals()
                        if signal.name == name}
        elif len(matching) > 1:
            # Those of its parts are ports.
            for part, *_ in fragment.subfragments:
                matching = {key: matching[key] for key in matching.keys() - _signals(part).keys()}
        if len(matching) != 1:
            raise KeyError(f"{path}: there are {len(matching)} signals {name}")
        return next(iter(matching.values()))

    def elaborate(self, platform):
        """Returns the component's fragment."""
        return self._fragment


def _signals(fragment):
    """Signals that a fragment itself reads or drives, by identity."""
    return {id(signal): signal for statements in fragment.statements.values()
            for signal in [*statements._lhs_signals(), *statements._rhs_signals()]}


def offer(harness, name, stream):
    """Drives an input stream by a far end that keeps the rules and is otherwise free.

    Returns whether a payload is taken in this cycle.
    """
    m = harness.m
    valid = harness.input(f"{name}_valid")
    payload = harness.input(f"{name}_payload", Value.cast(stream.payload).shape())
    m.d.comb += [stream.valid.eq(valid), Value.cast(stream.payload).eq(payload)]
    held, waits = Signal.like(payload, name=f"{name}_held"), Signal(name=f"{name}_waits")
    m.d.sync += [held.eq(payload), waits.eq(valid & ~stream.ready)]
    harness.assume(f"{name}_holds", ~waits | (valid & (payload == held)))
    return valid & stream.ready


def take(harness, name, stream, *, exact=False):
    """Takes an output stream at any time, and claims that it keeps the rules.

    That a payload stays follows from where it comes from, or, if ``exact``, from its bits.
    Returns whether a payload is given in this cycle.
    """
    m = harness.m
    ready = harness.input(f"{name}_ready")
    m.d.comb += stream.ready.eq(ready)
    waits = Signal(name=f"{name}_waits")
    m.d.sync += waits.eq(stream.valid & ~stream.ready)
    harness.claim(f"{name}_valid_stays", ~waits | stream.valid)
    if exact:
        payload = Value.cast(stream.payload)
        held = Signal.like(payload, name=f"{name}_held")
        m.d.sync += held.eq(payload)
        harness.claim(f"{name}_payload_stays", ~waits | (payload == held))
    else:
        steady(harness, f"{name}_payload_stays", stream.payload, waits)
    apart(harness, f"{name}_valid_waits_not", stream.valid, ready)
    harness.witness(f"{name}_waits", waits)
    return stream.valid & stream.ready


def connect(harness, component, *, exact=()):
    """Drives a component's inputs, and claims the rules of its output streams.

    Plain inputs may be anything. Of streams in ``exact`` the payload's bits are compared.

    Returns
    -------
    dict of str to Value
        Whether a transfer happens, for each stream.
    """
    moves = {}
    for name, member in component.signature.members.items():
        port = getattr(component, name)
        if member.is_signature and isinstance(member.signature, stream.Signature):
            moves[name] = (offer(harness, name, port) if member.flow == wiring.In
                           else take(harness, name, port, exact=name in exact))
        elif not member.is_signature and member.flow == wiring.In:
            harness.m.d.comb += Value.cast(port).eq(harness.input(name, Value.cast(port).shape()))
    return moves


def follow(harness, component, moves, inside, depth, places=None, *, source="i", sink="o", clean=(),
           stale=True):
    """Claims that transfers leave as they came: none is lost, repeated or reordered.

    One transfer is watched, any one. Behind all that came before it, one leaves that depends on it
    alone.

    Parameters
    ----------
    harness : Harness
    component : Component
    moves : dict of str to Value
        Whether a transfer happens, for each stream.
    inside : Value
        How many are in the unit.
    depth : int
        How many can be.
    places : callable, optional
        ``places(ahead)`` gives conditions under which each of the unit's registers holds the
        transfer that is watched, with so many in front of it. Without, none is watched.
    source, sink : str
        Names of the streams.
    clean : range
        Bits of the payload that control the unit; what they do is not followed.
    stale : bool
        See `originates`.

    Returns
    -------
    Signal
        How many entered and have not left.
    """
    m = harness.m
    taken, given = moves[source], moves[sink]
    level = Signal(range(depth + 2), name=f"{source}_level")
    m.d.sync += level.eq(level + taken - given)
    harness.claim(f"{source}_none_lost_or_repeated", level == inside)
    harness.claim(f"{source}_none_invented", ~given | (level != 0) | taken)
    harness.witness(f"{source}_full", level == depth)
    if places is None:
        return level

    # How many are in front of the one that is watched.
    ahead = Signal.like(level, name=f"{source}_ahead")
    watched, over = Signal(name=f"{source}_watched"), Signal(name=f"{source}_over")
    mark = Signal(name=f"{source}_mark")
    leaves = Signal(name=f"{source}_leaves")
    m.d.comb += [
        mark.eq(harness.input(f"{source}_chosen") & taken & ~watched & ~over),
        leaves.eq(Mux(watched, ahead == 0, mark & (level == 0))),
    ]
    m.d.sync += watched.eq((watched | mark) & ~(given & leaves))
    with m.If(mark):
        m.d.sync += [over.eq(1), ahead.eq(level - given)]
    with m.Elif(given):
        m.d.sync += ahead.eq(ahead - 1)
    harness.claim(f"{source}_in_front", ~watched | (ahead < level))
    payload = Value.cast(getattr(component, source).payload)
    dirty = Cat(C(0) if bit in clean else ~mark for bit in range(len(payload)))
    port = getattr(component, sink)
    originates(harness, f"{source}_order", port.payload, port.valid & leaves,
               {f"{source}_payload": dirty},
               [watched & place for place in places(ahead)], stale=stale)
    harness.witness(f"{source}_watched", given & leaves)
    return level


def _holding(stages):
    """Which of the stages, from the input on, holds the transfer with so many in front of it."""
    def places(ahead):
        return [stage & (ahead == sum(stages[number + 1:], C(0)))
                for number, stage in enumerate(stages)]
    return places


def comes(harness, component, level, given, stages, *, sink="o"):
    """Claims that a transfer leaves in time, if the far end takes everything.

    Of the cycles in which it does, at most as many pass without a transfer as there are stages.
    """
    m = harness.m
    port = getattr(component, sink)
    late = Signal(range(len(stages) + 2), name=f"{sink}_late")
    m.d.sync += late.eq(Mux(given | (level == 0), 0, late + port.ready))
    for number in range(len(stages)):
        behind = stages[len(stages) - 1 - number:]
        harness.claim(f"{sink}_comes{number}", ~behind[0] | Cat(behind[1:]).any()
                      | (late + number < len(stages)))


def _pipeline(make, stages, *, ordered=True):
    """The rules of a unit with streams ``i`` and ``o`` and these registers between them."""
    harness = Harness()
    component = make()
    harness.m.submodules.unit = unit = Opened(component)
    moves = connect(harness, component)
    held = [unit.signal(stage) for stage in stages]
    level = follow(harness, component, moves, sum(held), len(held),
                   _holding(held) if ordered else None)
    comes(harness, component, level, moves["o"], held)
    harness.claim("i_is_taken", ~component.o.ready | component.i.ready)
    return harness


def _control(stages, *, rigid):
    """The rules of `Control`, with a tag in registers that it moves."""
    harness = Harness()
    m = harness.m
    component = Control(stages, rigid=rigid)
    m.submodules.unit = unit = Opened(component)
    tagged = Tagged(component)
    moves = connect(harness, tagged)
    tag = tagged.i.payload
    for stage in range(stages):
        held = Signal.like(tag, reset_less=True, name=f"tag{stage}")
        with m.If(component.enable[stage]):
            m.d.sync += held.eq(tag)
        tag = held
    m.d.comb += tagged.o.payload.eq(tag)
    valid = [unit.signal(f"valid{stage}") for stage in range(stages)]
    level = follow(harness, tagged, moves, sum(valid), stages, _holding(valid))
    comes(harness, tagged, level, moves["o"], valid)
    harness.claim("i_is_taken", ~tagged.o.ready | tagged.i.ready)
    return harness


class Tagged:
    """A component with handshakes ``i`` and ``o``, as one with payloads beside them."""

    def __init__(self, component) -> None:
        self.signature = wiring.Signature({"i": In(stream.Signature(8)),
                                           "o": Out(stream.Signature(8))})
        self.i, self.o = (SimpleNamespace(valid=port.valid, ready=port.ready,
                                          payload=Signal(8, name=f"tag_{name}"))
                          for name, port in (("i", component.i), ("o", component.o)))


def _skid_buffer():
    harness = Harness()
    component = SkidBuffer(8)
    harness.m.submodules.unit = unit = Opened(component)
    # The payload stays the same where it comes from moves.
    moves = connect(harness, component, exact="o")
    full = unit.signal("full")
    level = follow(harness, component, moves, full, 1, lambda ahead: [full])
    harness.claim("o_comes", component.o.valid | ~(level | component.i.valid).any())
    harness.claim("i_is_taken", component.i.ready | (level != 0))
    apart(harness, "i_ready_apart", component.i.ready, harness.inputs["o_ready"])
    return harness


def _stream_queue(depth):
    harness = Harness()
    component = StreamQueue(8, depth=depth)
    harness.m.submodules.unit = unit = Opened(component)
    moves = connect(harness, component)
    first, free = unit.signal("first"), unit.signal("free")
    level = follow(harness, component, moves, component.level, depth,
                   lambda ahead: [(first + ahead)[:len(first)] == place for place in range(depth)])
    harness.claim("ring", (first + level)[:len(first)] == free)
    harness.claim("o_comes", component.o.valid == (level != 0))
    harness.claim("i_is_taken", component.i.ready == (level != depth))
    harness.claim("level", level <= depth)
    apart(harness, "i_ready_apart", component.i.ready, harness.inputs["o_ready"])
    return harness


def _mac_array(depth):
    """The rules of the array of one column: activations, accumulators and tiles of weights."""
    harness = Harness()
    m = harness.m
    component = MacArray(columns=1, depth=depth)
    m.submodules.unit = unit = Opened(component)
    moves = connect(harness, component)
    entry = ["selected.valid"] * (ENTRIES[depth] - 1) + ["row.valid"]
    first, second = component.acc_latency - ENTRIES[depth], depth - component.acc_latency
    multiply = [unit.signal(f"multiply.valid{stage}") for stage in range(first)]
    add = [unit.signal(f"add.valid{stage}") for stage in range(second)]
    entering = [unit.signal(stage) for stage in entry]
    # The uppermost bit ends the use of a tile.
    width = len(Value.cast(component.i_activation.payload))
    held = [*entering, *multiply, *add]
    follow(harness, component, moves, sum(held), len(held), _holding(held), source="i_activation",
           clean=range(width - 1, width), stale=False)
    level = follow(harness, component, moves, sum(add), second, _holding(add), source="i_acc",
                   stale=False)
    comes(harness, component, level, moves["o"], add)

    # A tile is the present one from the last activation of the tile before to its own last one.
    full, present, swap, consumed = (
        unit.signal(name) for name in ("full", "present", "swap", "consumed"))
    shadow, used, over, mark = (Signal(name=f"tile_{name}")
                                for name in ("shadow", "used", "over", "mark"))
    m.d.comb += mark.eq(harness.input("tile_chosen") & moves["i_weight"] & ~over)
    m.d.sync += [over.eq(over | mark), shadow.eq(mark | (shadow & ~swap)),
                 used.eq((shadow & swap) | (used & ~(consumed | swap)))]
    met = used
    places = [shadow, used]
    for control, stages in ("multiply", multiply), ("add", add):
        for number, stage in enumerate(stages):
            tag = Signal(name=f"tile_{control}{number}")
            with m.If(unit.signal(f"{control}.enable{number}")):
                m.d.sync += tag.eq(met)
            places.append(stage & tag)
            met = tag
    harness.claim("tile_waits", ~shadow | (full & over))
    harness.claim("tile_is_met", ~used | (present & over & ~shadow))
    harness.claim("tile_is_taken", component.i_weight.ready == (~full | swap))
    harness.claim("tile_swaps", swap == (full & (~present | consumed)))
    harness.claim("joined", (moves["i_acc"] == (multiply[-1] & component.i_acc.valid
                                                & unit.signal("add.enable0"))))
    originates(harness, "tile_order", component.o.payload, component.o.valid & met,
               {"i_weight_payload": ~mark}, places, stale=False)
    harness.witness("tile_met", component.o.valid & met)
    return harness


def _weight_encoder(encoding):
    """The rules of the encoder, whose groups stay at its input while it works on them."""
    harness = Harness()
    m = harness.m
    component = WeightEncoder(encoding=encoding)
    m.submodules.unit = unit = Opened(component)
    moves = connect(harness, component)
    full, begins, decided = (unit.signal(name) for name in ("full", "sequencer.begins", "decided"))
    whole, tries = component.cycles, 16 * component.scales
    write = whole - 5

    waits = Signal()
    m.d.sync += waits.eq(component.i.valid & ~component.i.ready)
    # Cycle of a group, 0 while there is none.
    cycle = Signal(range(whole))
    with m.If((cycle != 0) | begins):
        m.d.sync += cycle.eq(Mux(cycle == whole - 1, 0, cycle + 1))
    stages = 6 if component.adaptive else 5

    def token(stage):
        """What the token of a stage must be: the kind of work, its subgroup, factor and scale."""
        after, number = Signal(range(whole), name=f"after{stage}"), Signal(6, name=f"try{stage}")
        there = cycle >= stage
        m.d.comb += [after.eq(cycle - stage), number.eq(after - 5)]
        measures = there & (after < 4) & ((after != 0) | begins | (stage != 0))
        settles = there & (after == 4)
        trying = there & (after > 4) & (after < 5 + tries)
        writes = there & (after >= write) & (after < write + 4)
        place = Mux(trying, number[2:4], Mux(writes, after - write, Mux(measures, after, 0)))
        return measures, settles, trying, writes, 1 << place[:2], number[:2], number[4:]

    measures, settles, trying, writes, subgroup, factor, scale = token(0)
    phase = unit.signal("sequencer.phase_state")
    harness.claim("cycle", cycle < whole)
    harness.claim("phase", phase == Mux(settles, 1, Mux(trying, 2, Mux(writes, 4, Mux(
        (cycle > 4) & (cycle < write), 3, 0)))))
    harness.claim("subgroup", unit.signal("sequencer.subgroup") == subgroup)
    harness.claim("factor", unit.signal("sequencer.factor") == Mux(trying, factor, 0))
    if component.adaptive:
        harness.claim("scale", unit.signal("sequencer.scale") == Mux(trying, scale, 0))
    for stage in range(1, stages):
        measures, settles, trying, writes, subgroup, factor, scale = token(stage)
        work = Value.cast(unit.signal(f"token{stage}.work"))
        held = Value.cast(unit.signal(f"token{stage}.held"))[4:]
        # What is left of the group before does nothing any more.
        harness.claim(f"token{stage}", Mux(cycle >= stage,
                                           work == Cat(measures, settles, trying, writes),
                                           work[:3] == 0) & ((stage > 1) | (cycle != 0)
                                                             | (work == 0)))
        harness.claim(f"token{stage}_subgroup", ~(trying | writes) | (held[:4] == subgroup))
        harness.claim(f"token{stage}_factor", ~trying | (
            held[4:6] == factor) & ((held[6:8] == scale) | (not component.adaptive)))
    harness.claim("decided", decided == (cycle == write - 1))
    if not component.adaptive:
        harness.claim("last_factor", unit.signal("last", register=True)
                      == (trying & (factor == 3)))
    harness.claim("full", ~full | (cycle == 0))
    harness.claim("values_stay", (cycle == 0) | waits)
    harness.claim("i_is_taken", component.i.ready == (cycle == whole - 1))
    harness.claim("o_comes", component.o.valid == full)
    apart(harness, "i_ready_apart", component.i.ready, harness.inputs["o_ready"])
    harness.claim("begins", (cycle != 0) | (begins == (component.i.valid
                                                       & (~full | component.o.ready))))
    level = Signal(2)
    m.d.sync += level.eq(level + moves["i"] - moves["o"])
    harness.claim("none_lost_or_repeated", level == full)
    harness.witness("begins_again", full & begins)
    return harness


def _sg_engine(encoding, cycles):
    """The rules of the engine, whose groups stay at its input for as many cycles."""
    harness = Harness()
    m = harness.m
    component = SgEngine(encoding=encoding, cycles=cycles)
    m.submodules.unit = unit = Opened(component)
    moves = connect(harness, component)
    may_move = unit.signal("moves")
    ends = unit.signal("ends")
    stages = [ends[0], ends[1], unit.signal("full")]

    # Cycle of a group; `offer` withdraws no values once they are there.
    cycle = Signal(range(cycles), name="group_cycle")
    with m.If(~component.i.valid):
        m.d.sync += cycle.eq(0)
    with m.Elif(may_move):
        m.d.sync += cycle.eq(Mux(cycle == cycles - 1, 0, cycle + 1))
    # With special values a group is gone through twice.
    passes = 2 if has_specials(encoding) and cycles > 1 else 1
    if passes > 1:
        harness.claim("special_value", unit.signal("eight", register=True)
                      == (cycle >= cycles // 2))
    if cycles > passes:
        steps = cycles // passes
        harness.claim("turn", unit.signal("turn") == 1 << (cycle % steps)[:steps.bit_length()])
    harness.claim("cycle", cycle < cycles)
    harness.claim("moves", may_move == (~component.o.valid | component.o.ready))
    harness.claim("i_is_taken", component.i.ready == (may_move & (cycle == cycles - 1)))
    # Groups are as many cycles apart.
    for number in range(len(stages)):
        harness.claim(f"apart{number}", ~stages[number]
                      | ((cycle <= number) & ~Cat(stages[number + 1:number + cycles]).any()))
    level = follow(harness, component, moves, sum(stages), -(-len(stages) // cycles))
    comes(harness, component, level, moves["o"], stages)
    harness.witness("begins_again", stages[-1] & (cycle == min(1, cycles - 1)))
    return harness


def _rules(name, make, stages, fault, *, depth_of=None, ordered=True, **options):
    ending = f"_depth{depth_of}" if depth_of else ""
    return Proof(name=f"{name}.rules{ending}", depth=1, reach=len(stages) + 3,
                 claim=_CLAIM if ordered else _UNORDERED, fault=fault,
                 build=partial(_pipeline, make, stages, ordered=ordered), **options)


def _stages(path, count):
    return [f"{path}valid{number}" for number in range(count)]


_CLAIM = ("Payloads are held, none is lost, repeated or reordered, each leaves in time, and valid "
          "waits for no ready")
_UNORDERED = ("Payloads are held, none is lost or repeated, each leaves in time, and valid waits "
              "for no ready")

_REGISTER = Fault("hw.lib.stream_register", "with m.If(self.i.ready)", "with m.If(self.i.valid)")
_MOVES = Fault("hw.lib.pipeline", "enable[stage].eq(~valid[stage] | after)",
               "enable[stage].eq(~valid[stage] | self.o.ready)")
_RIGID = Fault("hw.lib.pipeline", "enable[stage].eq(~valid[-1] | self.o.ready)",
               "enable[stage].eq(~valid[stage] | self.o.ready)")

HOLES = {
    "quantization_engine.order": "with 8 registers, that a record depends on its own group alone",
    "group_mac.order": "with 13 and 17 registers, that each sum depends on its own operands alone",
    "mac_array.streams": "rules are proven with one column, 5 registers and Elem-EM; 13 and 17 "
                         "registers, and activations with factors, are not",
    "weight_encoder.order": "that a record depends on its own group alone; proven are its cycles, "
                            "that it is held, and that none is lost or repeated",
    "sg_engine.order": "that a record depends on its own group alone, and other cycles per group",
    "decoder.kinds": "rules are proven for activations; weights and special values have the same "
                     "register",
    "buffer.streams": "the rules of its streams and its contents, but in the feeders",
    "uart_link.streams": "the rules of the serial link's streams",
}
"""What is not proven, by subject."""

PROOFS: Sequence[Proof] = [
    _rules("stream_register", partial(StreamRegister, 8), ["valid"], _REGISTER, quick=True),
    Proof(name="skid_buffer.rules", claim=_CLAIM, build=_skid_buffer, depth=1, reach=3,
          fault=Fault("hw.lib.skid_buffer", "full.eq(self.o.valid & ~self.o.ready)",
                      "full.eq(self.i.valid & ~self.o.ready)")),
    Proof(name="stream_queue.rules", claim=_CLAIM, build=partial(_stream_queue, 4), depth=1,
          reach=6, quick=True,
          fault=Fault("hw.lib.stream_queue", "self.i.ready.eq(self.level != self.depth)",
                      "self.i.ready.eq(1)")),
    Proof(name="control.rules", claim=_CLAIM, build=partial(_control, 3, rigid=False), depth=1,
          reach=6, fault=_MOVES),
    Proof(name="control.rules_rigid", claim=_CLAIM, build=partial(_control, 3, rigid=True), depth=1,
          reach=6, fault=_RIGID),
    _rules("decoder", Decoder, ["register.valid"], _REGISTER),
    _rules("quantization_engine", QuantizationEngine,
           ["hold_rounded.valid", "hold_encoded.valid"], _REGISTER),
    _rules("quantization_engine", partial(QuantizationEngine, depth=3, input="bfloat16"),
           ["hold_ranked.valid", "hold_rounded.valid", "hold_encoded.valid"], _REGISTER,
           depth_of=3),
    _rules("quantization_engine", partial(QuantizationEngine, depth=8, input="bfloat16"),
           _stages("control.", 8), _RIGID, depth_of=8, ordered=False),
    _rules("nvfp4_quantizer", Nvfp4Quantizer, ["measured.valid", "scaled.valid", "rounded.valid"],
           _REGISTER),
    _rules("group_accumulator", GroupAccumulator, _stages("control.", 3), _MOVES),
    _rules("group_accumulator", partial(GroupAccumulator, depth=8), _stages("control.", 8), _MOVES,
           depth_of=8),
    _rules("group_accumulator", partial(GroupAccumulator, depth=10), _stages("control.", 10),
           _RIGID, depth_of=10),
    _rules("group_mac", GroupMac,
           ["rest.valid", "summed.valid", *_stages("accumulator.control.", 3)], _REGISTER),
    _rules("group_mac", partial(GroupMac, depth=13),
           ["decoded.valid", *_stages("control.", 12)], _MOVES, depth_of=13, ordered=False),
    _rules("group_mac", partial(GroupMac, depth=17),
           ["selected.valid", "decoded.valid", *_stages("control.", 15)], _RIGID, depth_of=17,
           ordered=False),
    Proof(name="mac_array.rules", claim=_CLAIM, build=partial(_mac_array, 5), depth=1, reach=8,
          fault=Fault("hw.lib.shadow_tile", "swap.eq(full & (~present | consumed))",
                      "swap.eq(full & (~present | weights.valid))")),
    *(Proof(name=f"weight_encoder.rules_{encoding.replace('-', '_')}", depth=1,
            claim="Each group is taken in the last of its cycles, and its record is there in the "
                  "next; that is held, and none is lost or repeated",
            reach=66 if encoding == "sg-em" else 29, build=partial(_weight_encoder, encoding),
            fault=Fault("hw.units.weight_encoder", "self.i.ready.eq(last)",
                        "self.i.ready.eq(sequencer.token.work.settles)"))
      for encoding in ENCODINGS),
    *(Proof(name=f"sg_engine.rules_{encoding.replace('-', '_')}_cycles{cycles}", depth=1,
            claim="Each group is taken in the last of its cycles; its record leaves in time and is "
                  "held, and none is lost or repeated",
            reach=3 * cycles + 4, build=partial(_sg_engine, encoding, cycles),
            fault=Fault("hw.units.sg_engine", "full.eq(self._ends[1])", "full.eq(self._ends[0])"))
      for encoding, cycles in (("sg-threshold", 1), ("sg-em", 8), ("sg-special", 8),
                               ("sg-special64", 16))),
]
