# SPDX-License-Identifier: BSD-2-Clause
"""The accelerator: array, buffers, quantization engines and the control that drives them.

Implements the commands of specification section 14.
"""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..lib.formats import values_layout
from ..lib.stream import chain
from ..lib.stream_queue import StreamQueue
from ..lib.stream_register import StreamRegister
from ..units.mac_array import MacArray
from ..units.quantization_engine import QuantizationEngine
from ..units.sg_engine import SgEngine
from .activation_feeder import ActivationFeeder, activation_layout, product_layout
from .config import configuration
from .loop_nest import LoopNest
from .partial_sums import PartialSums, result_layout
from .planner import Command, Planner, Result, Source, Status, plan_layout
from .weight_feeder import WeightFeeder, weights_layout

Misframed = data.StructLayout({"weight": 1, "activation": 1})
"""Operands whose marks are not those of their command: weights; activations or values."""


def result_record_layout(config):
    """A group record of results, and whether it is the last one of the command."""
    return data.StructLayout({"record": config.record, "last": 1})


def data_streams(config):
    """Members of an accelerator that carry operands and results, by name."""
    members = {
        "i_weight": In(stream.Signature(weights_layout(config))),
        "i_activation": In(stream.Signature(activation_layout(config))),
    }
    if config.input is not None:
        values = values_layout(config.input, config.group)
        members["i_value"] = In(stream.Signature(
            data.StructLayout({"values": values, "last": 1}) if config.framed else values))
    members["o"] = Out(stream.Signature(result_layout(config)))
    if config.quantizes:
        members["o_record"] = Out(stream.Signature(result_record_layout(config)))
    return members


class Accelerator(wiring.Component):
    """Multiplies matrices of any size, command by command.

    A command asks for an M x K by K x N product, bit for bit as `MacArray` accumulates it: exact
    inside a group, rounded to float32 once per group, groups in ascending K. The parts::

        i_command -> planner -> plan ---------------------------------> o_status
                        |         |
        i_weight ---> weights ----|-------------> array <----> sums ---> o
        i_activation -+           v                 ^           |
        i_value -> engine -> activations -----------+           +-> engine -> o_record
                                  ^                                     |
                                  +------------- kept ------------------+

    A plan goes to the weights at once, so these may run ahead of their command. It waits in a
    register for the activations, and stays there until its command has ended::

               code is DONE            last result out or kept              status taken
        PLAN ----------------> RUN --------------------------> STATUS ----------------> PLAN
          |                              any other code           ^
          +-------------------------------------------------------+

    Commands run one after the other. Each gives one status at its end; one that cannot run takes
    no operands. Operands come in the order of specification section 14.7, which
    `golden.accelerator.planner.Plan` computes, results in that of section 14.8. Weights are taken
    whenever there is room, activations from the start of their command on.

    Parameters
    ----------
    config : Config or str
        The sizes; a name of `CONFIGS` stands for its entry.
    trace : bool
        Adds ``o_trace``.

    Members
    -------
    i_command : In(stream.Signature(Command))
        One per product: its sizes, the source of the activations and the kind of result.
    i_weight : In(stream.Signature(weights_layout(config)))
        Weight records of a tile, column 0 first. Of a partial tile only the transfers with
        records of the matrix are sent; records beyond these fill the last one and are ignored.
    i_activation : In(stream.Signature(activation_layout(config)))
        For source RECORDS.
    i_value : In(stream.Signature(data.ArrayLayout(width, config.group)))
        For source VALUES: bits of the values of a group, of type ``config.input``. There is no
        such port if that is None.
    o : Out(stream.Signature(result_layout(config)))
        Result VALUES: float32 bits of one row of results of one tile, rows innermost. Columns
        that a partial tile does not have are +0.
    o_record : Out(stream.Signature(result_record_layout(config)))
        Result RECORDS: the same rows as group records. Only where ``config.quantizes``.
    o_status : Out(stream.Signature(Status))
        One per command, in order.
    o_misframed : Out(stream.Signature(Misframed, always_ready=True))
        Marks that are missing or too early, each once. Those of a command come before its status.
        Only in a framed configuration, in which the payloads of the operand streams have a field
        ``last`` above the others: 1 in the last transfer of a command on this stream, else 0.
    o_trace : Out(stream.Signature(range(config.rows + 1), always_ready=True))
        Activations that met a tile of weights, given as the last of them enters the array. Only
        with ``trace``.

    Raises
    ------
    ValueError
        If there is no configuration of that name.
    """

    # From a command to its first step, and from an activation to its result; by default.
    latency = Planner.latency + 1 + LoopNest.latency + 1 + MacArray.latency + 1

    def __init__(self, *, config="paper", trace=False):
        self.config = configuration(config)
        self.latency += 2 * self.config.queued + self.config.array_latency - MacArray.latency
        self.trace = trace
        members = {
            "i_command": In(stream.Signature(Command)),
            **data_streams(self.config),
            "o_status": Out(stream.Signature(Status)),
        }
        if self.config.framed:
            members["o_misframed"] = Out(stream.Signature(Misframed, always_ready=True))
        if trace:
            members["o_trace"] = Out(stream.Signature(range(self.config.rows + 1),
                                                          always_ready=True))
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        config = self.config

        m.submodules.planner = planner = Planner(config)
        m.submodules.plan = plan = StreamRegister(plan_layout(config))
        m.submodules.weights = weights = WeightFeeder(config)
        m.submodules.activations = activations = ActivationFeeder(config)
        m.submodules.array = array = MacArray(columns=config.columns,
                                              weight_width=config.weight_width,
                                              depth=config.array_depth,
                                              encoding=config.encoding)
        m.submodules.sums = sums = PartialSums(config)
        # Whether the last result of the command leaves, or is kept, in this cycle.
        done = Signal()
        command = plan.o.payload

        wiring.connect(m, wiring.flipped(self.i_command), planner.i)
        self._plans(m, planner, plan, weights)
        self._commands(m, plan, activations, done)
        wiring.connect(m, wiring.flipped(self.i_weight), weights.i)
        wiring.connect(m, weights.o, array.i_weight)
        wiring.connect(m, sums.o_acc, array.i_acc)
        wiring.connect(m, array.o, sums.i)
        self._sources(m, command, activations)
        products = self._products(m, command, activations, array, sums)
        if config.framed:
            found = self.o_misframed.payload
            m.d.comb += [
                found.weight.eq(weights.misframed),
                found.activation.eq(activations.misframed),
                self.o_misframed.valid.eq(weights.misframed | activations.misframed),
            ]
        if self.trace:
            self._trace(m, products)
        self._results(m, command, sums.o, activations, done)

        return m

    def _plans(self, m, planner, plan, weights):
        """Forks a plan to the weights and to the register of the command under way."""
        m.d.comb += [
            plan.i.valid.eq(planner.o.valid & weights.i_plan.ready),
            weights.i_plan.valid.eq(planner.o.valid & plan.i.ready),
            planner.o.ready.eq(plan.i.ready & weights.i_plan.ready),
            plan.i.payload.eq(planner.o.payload),
            weights.i_plan.payload.eq(planner.o.payload),
        ]

    def _commands(self, m, plan, activations, done):
        """Runs the command whose plan is in the register, and gives its status."""
        command = plan.o.payload
        m.d.comb += [
            activations.i_plan.payload.eq(command),
            self.o_status.payload.eq(command.code),
            plan.o.ready.eq(self.o_status.valid & self.o_status.ready),
        ]
        with m.FSM():
            with m.State("PLAN"):
                with m.If(plan.o.valid & (command.code == Status.DONE)):
                    m.d.comb += activations.i_plan.valid.eq(1)
                    m.next = "RUN"
                with m.Elif(plan.o.valid):
                    m.next = "STATUS"
            with m.State("RUN"):
                with m.If(done):
                    m.next = "STATUS"
            with m.State("STATUS"):
                m.d.comb += self.o_status.valid.eq(1)
                with m.If(self.o_status.ready):
                    m.next = "PLAN"

    def _sources(self, m, command, activations):
        """Connects the source of the command to the activation buffer."""
        if self.config.input is None:
            wiring.connect(m, wiring.flipped(self.i_activation), activations.i)
            return
        m.submodules.quantize_input = engine = _engine(self.config, self.config.input)
        if self.config.framed:
            values = self._framed_values(m, engine)
        else:
            wiring.connect(m, wiring.flipped(self.i_value), engine.i)
            values = engine.o
        with m.If(command.source == Source.VALUES):
            wiring.connect(m, values, activations.i)
        with m.Else():
            wiring.connect(m, wiring.flipped(self.i_activation), activations.i)

    def _framed_values(self, m, engine):
        """Takes values into the engine; returns the stream of its records with their marks."""
        records = stream.Signature(activation_layout(self.config)).create(path=("quantized",))
        m.d.comb += [
            engine.i.valid.eq(self.i_value.valid),
            engine.i.payload.eq(self.i_value.payload["values"]),
            self.i_value.ready.eq(engine.i.ready),
            records.valid.eq(engine.o.valid),
            records.payload.record.eq(engine.o.payload),
            engine.o.ready.eq(records.ready),
        ]
        last, enter = _beside(m, engine, self.i_value.payload.last, name="value_last")
        m.d.comb += [records.payload.last.eq(last), *enter(self.i_value.valid)]
        return records

    def _products(self, m, command, activations, array, sums):
        """Forks each activation to the array and its tag, the sum that it adds to, to the sums.

        Returns the stream that is forked.
        """
        product = activations.o
        if self.config.queued:
            m.submodules.feed = feed = StreamQueue(product_layout(self.config), depth=2)
            wiring.connect(m, activations.o, feed.i)
            product = feed.o
        m.d.comb += [
            array.i_activation.valid.eq(product.valid & sums.i_sum.ready),
            array.i_activation.payload.record.eq(product.payload.record),
            array.i_activation.payload.last.eq(product.payload.last),
            sums.i_sum.valid.eq(product.valid & array.i_activation.ready),
            sums.i_sum.payload.eq(product.payload.sum),
            product.ready.eq(sums.i_sum.ready & array.i_activation.ready),
            activations.retired.eq(sums.retired),
            sums.columns.eq(command.columns),
        ]
        return product

    def _trace(self, m, product):
        """Counts the activations that meet a tile of weights."""
        entered = Signal()
        rows = Signal(range(self.config.rows + 1))
        m.d.comb += [
            entered.eq(product.valid & product.ready),
            self.o_trace.valid.eq(entered & product.payload.last),
            self.o_trace.payload.eq(rows + 1),
        ]
        with m.If(entered):
            m.d.sync += rows.eq(Mux(product.payload.last, 0, rows + 1))

    def _results(self, m, command, results, activations, done):
        """Connects the results to where the command says."""
        last = Signal()
        m.d.comb += done.eq(last)
        if not self.config.quantizes:
            wiring.connect(m, results, wiring.flipped(self.o))
            m.d.comb += last.eq(self.o.valid & self.o.ready & self.o.payload.last)
            return
        m.submodules.quantize_result = engine = _engine(self.config, "float32")
        flag, enter = _beside(m, engine, results.payload.last, name="last")
        m.d.comb += [
            engine.i.payload.eq(results.payload["values"]),
            self.o.payload.eq(results.payload),
            self.o_record.payload.record.eq(engine.o.payload),
            self.o_record.payload.last.eq(flag),
            activations.i_kept.payload.eq(engine.o.payload),
        ]
        with m.If(command.result == Result.VALUES):
            m.d.comb += [
                self.o.valid.eq(results.valid),
                results.ready.eq(self.o.ready),
            ]
        with m.Else():
            m.d.comb += [
                engine.i.valid.eq(results.valid),
                *enter(results.valid),
                results.ready.eq(engine.i.ready),
            ]
        with m.If(command.result == Result.KEEP):
            m.d.comb += [
                activations.i_kept.valid.eq(engine.o.valid),
                engine.o.ready.eq(activations.i_kept.ready),
            ]
        with m.Else():
            m.d.comb += [
                self.o_record.valid.eq(engine.o.valid),
                engine.o.ready.eq(self.o_record.ready),
            ]
        m.d.comb += last.eq(
            (self.o.valid & self.o.ready & self.o.payload.last)
            | (engine.o.valid & engine.o.ready & flag))


def _engine(config, input):
    """The engine that writes records in the array's encoding, of values of the given type."""
    if config.engine is None:
        return QuantizationEngine(input=input, depth=config.engine_depth)
    return SgEngine(input=input, encoding=config.engine, cycles=config.engine_cycles)


def _beside(m, engine, flag, *, name):
    """Takes a flag beside an engine, through as many registers, moved as its own are, or a queue.

    Returns the flag at the engine's output, and a function that gives the assignments by which the
    flag enters when the engine's input is valid.
    """
    if isinstance(engine, SgEngine):
        # It holds three groups at most, besides the values that wait at its input.
        m.submodules[name] = queue = StreamQueue(1, depth=4)
        m.d.comb += [
            queue.i.payload.eq(flag),
            queue.o.ready.eq(engine.o.valid & engine.o.ready),
        ]
        return queue.o.payload, lambda valid: [queue.i.valid.eq(valid & engine.i.ready)]
    if engine.rigid:
        flags = Signal(engine.latency, name=name, reset_less=True)
        with m.If(engine.i.ready):
            m.d.sync += flags.eq(Cat(flag, flags))
        return flags[-1], lambda valid: []
    registers = [StreamRegister(1) for _ in range(engine.latency)]
    chain(m, registers, name=name)
    m.d.comb += [
        registers[0].i.payload.eq(flag),
        registers[-1].o.ready.eq(engine.o.ready),
    ]
    return registers[-1].o.payload, lambda valid: [registers[0].i.valid.eq(valid)]
