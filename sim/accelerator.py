"""Whole matrix products through the accelerator in RTL, against golden."""

from dataclasses import dataclass

import numpy as np
from amaranth import Shape

from golden import planner
from golden.accelerator import (
    activation_records,
    execute,
    result_matrix,
    result_records,
    result_rows,
    value_groups,
    weight_transfers,
)
from hw.accelerator import Accelerator

from . import compiled
from .bench import mismatches, run
from .payload import from_words


@dataclass(frozen=True, kw_only=True, eq=False)
class Product:
    """What one command gave.

    Attributes
    ----------
    code : int
        The code with which it ended, see `hw.planner.Code`.
    y : float32 array, shape (M, N), or None
        The product, if it left as float32.
    rows, mismatches : int
        Rows of results that left, of a tile each, and how many of them differ from golden's.
    """

    code: int
    y: np.ndarray | None
    rows: int
    mismatches: int


def accelerate(commands, *, config="tiny", trace=False, engine="auto", vcd=None, **options):
    """Runs commands through the accelerator and compares every output with golden.

    Parameters
    ----------
    commands : list of dict
        As `golden.accelerator.execute` takes them.
    config : Config or str
        As of `Accelerator`.
    trace : bool
        Whether ``times`` is to have the tiles of weights too, as "o_trace".
    engine : str
        As of `sim.run`, but "auto" compiles whenever it can: on Amaranth's simulator, a machine
        of 32 columns makes some ten cycles per second.
    vcd, **options
        As of `sim.run`.

    Returns
    -------
    list of Product
        One per command.

    Raises
    ------
    ValueError
        If there is no configuration of that name.
    SimulationError
        As `sim.run`; also if the number of results is not golden's.
    """
    component = Accelerator(config=config, trace=trace)
    if engine == "auto" and not vcd and compiled.compiler():
        engine = compiled.fastest()
    inputs, expected, executed = streams(commands, component)
    if trace:
        expected["o_trace"] = np.zeros(_tiles(executed), np.uint16)
    outputs = run(component, inputs, outputs={name: _length(rows)
                                              for name, rows in expected.items()},
                  engine=engine, vcd=vcd, **options)
    wrong = {name: mismatches(outputs[name], expected[name]) for name in expected}
    return _products(_machine(component.config), commands, executed, outputs, wrong)


def streams(commands, component):
    """Inputs of an accelerator for commands, and the outputs to expect.

    Parameters
    ----------
    commands : list of dict
        As of `accelerate`.
    component : Accelerator

    Returns
    -------
    inputs, outputs : dict of str to array or dict
        As of `sim.run`.
    executed : list of tuple
        What `golden.accelerator.execute` gave.
    """
    machine = _machine(component.config)
    executed = execute(machine, commands)
    weights, activations, values, rows, records = [], [], [], [], []
    for command, (code, plan, y) in zip(commands, executed, strict=True):
        if code != planner.DONE:
            continue
        weights.append(weight_transfers(machine, plan, command["w"]))
        if command["source"] == planner.RECORDS:
            activations.append(activation_records(plan, command["a"]))
        if command["source"] == planner.VALUES:
            x = command["x"]
            values.append(value_groups(plan, x).view(f"u{x.itemsize}"))
        if command["result"] == planner.VALUES_OUT:
            given = result_rows(machine, plan, y).view(np.uint32)
            rows.append({"values": given, "last": _lasts(len(given))})
        if command["result"] == planner.RECORDS_OUT:
            given = result_records(plan, y)
            records.append({"record": given, "last": _lasts(len(given["scale"]))})

    members = component.signature.members
    empty = {name: _empty(member.signature.members["payload"].shape)
             for name, member in members.items()}
    inputs = {
        "i_command": {name: np.array([command[name] for command in commands], np.uint32)
                      for name in ("m", "k", "n", "source", "result")},
        "i_weight": _joined(empty["i_weight"], weights),
        "i_activation": _joined(empty["i_activation"], activations),
    }
    if "i_value" in members:
        inputs["i_value"] = _joined(empty["i_value"], values)
    expected = {"o": _joined(empty["o"], rows)}
    if "o_record" in members:
        expected["o_record"] = _joined(empty["o_record"], records)
    expected["o_status"] = np.array([code for code, _, _ in executed], np.uint8)
    return inputs, expected, executed


def _machine(config):
    return planner.Machine(columns=config.columns, activations=config.activations,
                           rows=config.rows, weight_width=config.weight_width,
                           input=config.input)


def _products(machine, commands, executed, outputs, wrong):
    """Distributes the outputs to the commands that gave them."""
    products, starts = [], {"o": 0, "o_record": 0}
    for number, (command, (code, plan, y)) in enumerate(zip(commands, executed, strict=True)):
        status = outputs["o_status"][number]
        missed = int(wrong["o_status"][number])
        name = {planner.VALUES_OUT: "o", planner.RECORDS_OUT: "o_record"}.get(command["result"])
        if code != planner.DONE or name is None:
            products.append(Product(code=int(status), y=None, rows=0, mismatches=missed))
            continue
        count = len(y) * plan.tiles
        own = slice(starts[name], starts[name] + count)
        starts[name] += count
        matrix = None
        if name == "o":
            rows = outputs["o"]["values"][own].view(np.float32)
            matrix = result_matrix(machine, plan, rows, command["n"])
        products.append(Product(code=int(status), y=matrix, rows=count,
                                mismatches=missed + int(wrong[name][own].sum())))
    return products


def _tiles(executed):
    """Tiles of weights that all commands together load."""
    return sum(len(plan.weight_order()[0]) for _, plan, _ in executed if plan)


def _lasts(count):
    return (np.arange(count) == count - 1).astype(np.uint8)


def _empty(shape):
    return from_words(shape, np.zeros((0, -(-Shape.cast(shape).width // 32)), np.uint32))


def _joined(empty, parts):
    """The parts one after the other, in the form of the first one, which has no rows."""
    if isinstance(empty, dict):
        return {name: _joined(rows, [part[name] for part in parts])
                for name, rows in empty.items()}
    return np.concatenate([empty, *parts]).astype(empty.dtype)


def _length(rows):
    return _length(next(iter(rows.values()))) if isinstance(rows, dict) else len(rows)
