# SPDX-License-Identifier: BSD-2-Clause
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..lib.formats import Record
from ..lib.stream_register import StreamRegister
from ..units.mac_array import MacArray
from ..units.quantization_engine import QuantizationEngine, values_layout
from .activation_feeder import ActivationFeeder
from .config import configuration
from .loop_nest import LoopNest
from .partial_sums import PartialSums, result_layout
from .planner import Command, Planner, Result, Source, Status, plan_layout
from .weight_feeder import WeightFeeder

ResultRecord = data.StructLayout({"record": Record, "last": 1})
"""A group record of a result, and whether it is the command's last."""

RESULT_ENGINE_DEPTH = 2
"""Pipeline registers of the engine that quantizes results."""


def data_streams(config):
    """Members of an accelerator that carry operands and results."""
    members = {
        "i_weight": In(stream.Signature(data.ArrayLayout(Record, config.weight_width))),
        "i_activation": In(stream.Signature(Record)),
    }
    if config.input is not None:
        members["i_value"] = In(stream.Signature(values_layout(config.input)))
    members["o"] = Out(stream.Signature(result_layout(config)))
    if config.quantizes:
        members["o_record"] = Out(stream.Signature(ResultRecord))
    return members


class Accelerator(wiring.Component):
    """Multiplies matrices of any size: array, buffers, quantization engines and control.

    A command asks for an M x K by K x N product, bit for bit as `MacArray` accumulates it: exact
    inside a group, rounded once per group, groups in ascending K. Operands come in the order of
    the plan (see `golden.accelerator.planner.Plan`), each tile of weights as often as there are
    blocks of rows, activations as often as the plan says. Weights are taken whenever there is room,
    also ahead of their command; activations from the command's start to its end. Commands run one
    after the other, each gives one status at its end; one that cannot run gives that at once and
    takes no operands. Specification section 8.

    Parameters
    ----------
    config : Config or str
        The sizes; a name of `CONFIGS` stands for its entry.
    trace : bool
        Adds ``o_trace``.

    Members
    -------
    i_command : In(stream.Signature(Command))
    i_weight : In(stream.Signature(data.ArrayLayout(Record, config.weight_width)))
        Weight records of a tile, column 0 first. Columns that the last tile does not have are
        not sent, except for those that fill a transfer, which are ignored.
    i_activation : In(stream.Signature(Record))
        For source RECORDS.
    i_value : In(stream.Signature(data.ArrayLayout(width, 32)))
        For source VALUES: bits of a group's values, of type ``config.input``. Where that is None,
        there is no such port.
    o : Out(stream.Signature(result_layout(config)))
        Result VALUES: float32 bits of one row of results and one tile, rows innermost; columns
        that the tile does not have are zero.
    o_record : Out(stream.Signature(ResultRecord))
        Result RECORDS: the same rows as group records. Only with 32 columns.
    o_status : Out(stream.Signature(Status))
    o_trace : Out(stream.Signature(range(config.rows + 1), always_ready=True))
        Rows of activations that have gone through a tile, as the last of them enters the array.
        Only with ``trace``.

    Raises
    ------
    ValueError
        If there is no configuration of that name.
    """

    # A command's way to its first step and that of an activation through the machine.
    latency = Planner.latency + 1 + LoopNest.latency + 1 + MacArray.latency + 1

    def __init__(self, *, config="paper", trace=False):
        self.config = configuration(config)
        self.trace = trace
        members = {
            "i_command": In(stream.Signature(Command)),
            **data_streams(self.config),
            "o_status": Out(stream.Signature(Status)),
        }
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
                                              weight_width=config.weight_width)
        m.submodules.sums = sums = PartialSums(config)

        # A plan goes to the weights, which may be a command ahead, and stays in its register
        # until its command has ended.
        wiring.connect(m, wiring.flipped(self.i_command), planner.i)
        m.d.comb += [
            plan.i.valid.eq(planner.o.valid & weights.i_plan.ready),
            weights.i_plan.valid.eq(planner.o.valid & plan.i.ready),
            planner.o.ready.eq(plan.i.ready & weights.i_plan.ready),
            plan.i.payload.eq(planner.o.payload),
            weights.i_plan.payload.eq(planner.o.payload),
        ]
        done = Signal()
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

        wiring.connect(m, wiring.flipped(self.i_weight), weights.i)
        wiring.connect(m, weights.o, array.i_weight)
        wiring.connect(m, sums.o_acc, array.i_acc)
        wiring.connect(m, array.o, sums.i)
        self._sources(m, command, activations)

        # An activation enters the array together with what is to become of it.
        product = activations.o
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
        if self.trace:
            entered = Signal()
            rows = Signal(range(config.rows + 1))
            m.d.comb += [
                entered.eq(product.valid & product.ready),
                self.o_trace.valid.eq(entered & product.payload.last),
                self.o_trace.payload.eq(rows + 1),
            ]
            with m.If(entered):
                m.d.sync += rows.eq(Mux(product.payload.last, 0, rows + 1))

        self._results(m, command, sums.o, activations, done)

        return m

    def _sources(self, m, command, activations):
        """Connects what the command says to the activation buffer."""
        if self.config.input is None:
            wiring.connect(m, wiring.flipped(self.i_activation), activations.i)
            return
        m.submodules.quantize_input = engine = QuantizationEngine(input=self.config.input)
        wiring.connect(m, wiring.flipped(self.i_value), engine.i)
        with m.If(command.source == Source.VALUES):
            wiring.connect(m, engine.o, activations.i)
        with m.Else():
            wiring.connect(m, wiring.flipped(self.i_activation), activations.i)

    def _results(self, m, command, results, activations, done):
        """Connects the results to where the command says."""
        # Whether the last result leaves, in this cycle.
        last = Signal()
        m.d.comb += done.eq(last)
        if not self.config.quantizes:
            wiring.connect(m, results, wiring.flipped(self.o))
            m.d.comb += last.eq(self.o.valid & self.o.ready & self.o.payload.last)
            return
        m.submodules.quantize_result = engine = QuantizationEngine(depth=RESULT_ENGINE_DEPTH)
        # Whether a record is the last goes along with it.
        lasts = [StreamRegister(1) for _ in range(engine.latency)]
        for n, register in enumerate(lasts):
            m.submodules[f"last{n}"] = register
            if n:
                wiring.connect(m, lasts[n - 1].o, register.i)
        m.d.comb += [
            engine.i.payload.eq(results.payload["values"]),
            lasts[0].i.payload.eq(results.payload.last),
            self.o.payload.eq(results.payload),
            self.o_record.payload.record.eq(engine.o.payload),
            self.o_record.payload.last.eq(lasts[-1].o.payload),
            activations.i_kept.payload.eq(engine.o.payload),
            lasts[-1].o.ready.eq(engine.o.ready),
        ]
        with m.If(command.result == Result.VALUES):
            m.d.comb += [
                self.o.valid.eq(results.valid),
                results.ready.eq(self.o.ready),
            ]
        with m.Else():
            m.d.comb += [
                engine.i.valid.eq(results.valid),
                lasts[0].i.valid.eq(results.valid),
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
            | (engine.o.valid & engine.o.ready & lasts[-1].o.payload))
