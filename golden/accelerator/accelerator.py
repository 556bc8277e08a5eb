# SPDX-License-Identifier: BSD-2-Clause
"""Reference of the accelerator (specification section 14).

`execute` says how commands end and what they compute. `streams` puts their operands and results
in the order of the accelerator's ports. `accelerator` goes from input streams to output streams.
"""

from dataclasses import replace

import numpy as np

from ..codec.numbers import FLOATS, default_group
from ..codec.quantized import Quantized, check_quantized
from ..units.group_mac import Decoded, matmul
from ..units.quantization_engine import quantize_activations
from ..units.sg_engine import sg_engine
from . import planner


def weight_transfers(config, plan, w):
    """Weight records in the order in which a plan takes them, divided into transfers.

    Specification section 14.7.

    Parameters
    ----------
    config : Config
    plan : Plan
    w : Quantized
        Weights of shape (N, K).

    Returns
    -------
    dict of str to uint8 array, shape (transfers, weight_width, ...)
        "elements", "metadata" and "scale". Records beyond N, which fill the last transfer of a
        partial tile, are zeros.
    """
    places = _weight_places(config, plan)
    return {name: _padded(plane, plan.tiles * config.columns)[places]
            for name, plane in records(w).items()}


def _weight_places(config, plan):
    """Row of W and group of every weight record, two arrays of shape (transfers, weight_width)."""
    tile, group = plan.weight_order()
    transfers = np.where(tile == plan.tiles - 1, plan.last_transfers, plan.transfers)
    # The tile of each transfer, and the number of the transfer in its tile.
    which = np.repeat(np.arange(len(tile)), transfers)
    index = np.arange(len(which)) - np.repeat(np.cumsum(transfers) - transfers, transfers)
    row = (tile[which] * config.columns + index * config.weight_width)[:, None] \
        + np.arange(config.weight_width)
    return row, np.broadcast_to(group[which][:, None], row.shape)


def activation_records(plan, a):
    """Activation records in the order in which a plan takes them; ``a`` has shape (M, K)."""
    order = plan.activation_order()
    return {name: plane[order] for name, plane in records(a).items()}


def value_groups(config, plan, x):
    """Groups of values in the order in which a plan takes them (specification section 14.7).

    Parameters
    ----------
    config : Config
    plan : Plan
    x : array, shape (M, K)

    Returns
    -------
    array of the same type, shape (groups, config.group)
        K is filled up with +0 to whole groups.
    """
    padded = np.zeros((len(x), plan.groups * config.group), x.dtype)
    padded[:, : x.shape[1]] = x
    return padded.reshape(len(x), plan.groups, config.group)[plan.activation_order()]


def result_rows(config, plan, y):
    """Rows of results in the order in which they leave, shape (rows, columns).

    Specification section 14.8. Columns beyond N are +0.
    """
    padded = np.zeros((len(y), plan.tiles * config.columns), y.dtype)
    padded[:, : y.shape[1]] = y
    return padded.reshape(len(y), plan.tiles, config.columns)[plan.result_order()]


def quantized(config, x):
    """Activations as the configuration's engine quantizes these values."""
    if config.engine is None:
        return quantize_activations(x)
    return sg_engine(x, encoding=config.engine)


def result_records(config, plan, y):
    """Quantized rows of results in the order in which they leave, by planes of group records."""
    q = quantized(config, y)
    return {name: plane[plan.result_order()] for name, plane in records(q).items()}


def weights_of(config, plan, transfers, n, k):
    """The N x K weights that these transfers carry; the inverse of `weight_transfers`."""
    row, group = _weight_places(config, plan)
    planes = {}
    for name, plane in transfers.items():
        matrix = np.zeros((plan.tiles * config.columns, plan.groups, *plane.shape[2:]), np.uint8)
        # Records beyond N fill a transfer, may hold anything and are cut off.
        matrix[row, group] = plane
        planes[name] = matrix[:n]
    return _quantized(planes, "weight", config.weight_encoding, (n, k))


def activations_of(config, plan, given, m, k):
    """The M x K activations that these records carry; the inverse of `activation_records`."""
    return _placed(config, given, plan.activation_order(), plan.groups, (m, k))


def result_of(config, plan, given, m, n):
    """The M x N quantized result that these records carry; the inverse of `result_records`."""
    return _placed(config, given, plan.result_order(), plan.tiles, (m, n))


def _placed(config, given, order, groups, shape):
    """Activations whose records come in this order."""
    planes = {}
    for name, plane in given.items():
        planes[name] = np.zeros((shape[0], groups, *plane.shape[1:]), np.uint8)
        planes[name][order] = plane
    return _quantized(planes, "activation", config.encoding, shape)


def values_of(plan, groups, m):
    """The values that these groups carry, with their padding: shape (M, groups * group)."""
    x = np.zeros((m, plan.groups, groups.shape[1]), groups.dtype)
    x[plan.activation_order()] = groups
    return x.reshape(m, -1)


def result_matrix(config, plan, rows, n):
    """The M x N matrix that these rows carry; the inverse of `result_rows`."""
    row, tile = plan.result_order()
    y = np.zeros((plan.blocks[-1].stop, plan.tiles, config.columns), rows.dtype)
    y[row, tile] = rows
    return y.reshape(len(y), -1)[:, :n]


def records(q):
    """Planes of a quantized matrix by group: shapes (rows, groups, ...)."""
    return {"elements": q.elements.reshape(*q.scales.shape, q.group),
            "metadata": q.metadata.reshape(*q.scales.shape, -1),
            "scale": q.scales}


def execute(config, commands):
    """Status, plan and product of each command.

    Parameters
    ----------
    config : Config
    commands : list of dict
        Each has the fields "m", "k", "n", "source" and "result". A legal command also has its
        operands: "w", weights as `matmul` takes them, and, unless its source is KEPT, either "a",
        Quantized activations (source RECORDS), or "x", an array of values (source VALUES).

    Returns
    -------
    list of tuple
        (status, plan, product) of each command. Plan and product, a float32 array of shape (M, N),
        are None unless the status is DONE.
    """
    machine = Machine(config)
    return [machine.execute(command) for command in commands]


class Machine:
    """An accelerator that executes one command after the other.

    Parameters
    ----------
    config : Config

    Attributes
    ----------
    kept : Quantized or None
        The result that the last command kept.
    """

    def __init__(self, config):
        self.config = config
        self.kept = None

    def execute(self, command):
        """Status, plan and product of a command, as in `execute`."""
        status, plan, y = _status(self.config, command, self.kept), None, None
        if status == planner.DONE:
            plan = planner.plan(self.config, *(command[name] for name in "mkn"))
            a = _activations(self.config, command, self.kept)
            y, self.kept = _product(self.config, command, a)
        return status, plan, y


_FIELDS = ("m", "k", "n", "source", "result")


def _status(config, command, kept):
    return planner.check(config, *(command[name] for name in _FIELDS), kept and kept.shape)


def _activations(config, command, kept):
    """Activations of a legal command: those that are kept, its values quantized, or its records."""
    if command["source"] == planner.KEPT:
        return kept
    if command["source"] == planner.VALUES:
        return quantized(config, command["x"])
    check_quantized(command["a"], "a", "activation", config.encoding)
    return command["a"]


def _product(config, command, a):
    """Product of a legal command, and what the command keeps for the next one."""
    w = command["w"]
    check_quantized(w.q if isinstance(w, Decoded) else w, "w", "weight", config.weight_encoding)
    y = matmul(a, w)
    return y, quantized(config, y) if command["result"] == planner.KEEP else None


def streams(config, commands, executed):
    """Input streams that carry commands to the accelerator, and output streams that answer.

    Parameters
    ----------
    config : Config
    commands : list of dict
        As `execute` takes them.
    executed : list of tuple
        As `execute` returned it for these commands.

    Returns
    -------
    inputs, outputs : dict of str to array or dict
        By port, one row per transfer. In a framed configuration the last transfer of each command
        is marked on the streams of its operands, and no mark is wrong.
    """
    return _inputs(config, commands, executed), answers(config, commands, executed)


def _inputs(config, commands, executed):
    """Commands and their operands by port. Commands that do not run have no operands."""
    inputs = {
        "i_command": [{name: np.zeros(0, np.int64) for name in _FIELDS}],
        "i_weight": [_no_records(config, config.weight_width)],
        "i_activation": [_no_records(config)],
    }
    if config.input is not None:
        size = np.dtype(FLOATS[config.input]).itemsize
        inputs["i_value"] = [np.zeros((0, config.group), f"u{size}")]
    for command, (status, plan, _) in zip(commands, executed, strict=True):
        inputs["i_command"].append({name: np.array([command[name]]) for name in _FIELDS})
        if status != planner.DONE:
            continue
        inputs["i_weight"].append(weight_transfers(config, plan, command["w"]))
        if command["source"] == planner.RECORDS:
            inputs["i_activation"].append(activation_records(plan, command["a"]))
        elif command["source"] == planner.VALUES:
            groups = value_groups(config, plan, command["x"])
            inputs["i_value"].append(groups.view(f"u{groups.itemsize}"))
    joined = {name: _joined(parts) for name, parts in inputs.items()}
    if config.framed:
        joined |= {name: _marked(name, joined[name], inputs[name]) for name in _UNMARKED
                   if name in inputs}
    return joined


# The field of a framed stream's payload beside its mark.
_UNMARKED = {"i_weight": "records", "i_activation": "record", "i_value": "values"}


def _marked(name, joined, parts):
    """A stream with a mark in the last transfer of each of its parts."""
    last = [np.arange(count) == count - 1 for count in map(_length, parts)]
    return {_UNMARKED[name]: joined, "last": np.concatenate(last).astype(np.uint8)}


def _length(rows):
    return _length(next(iter(rows.values()))) if isinstance(rows, dict) else len(rows)


def answers(config, commands, executed):
    """Output streams that answer commands, as `streams` gives them.

    Each result has the flag of the command's last one.
    """
    flags = np.zeros(0, np.uint8)
    outputs = {"o": [{"values": np.zeros((0, config.columns), np.uint32), "last": flags}]}
    if config.quantizes:
        outputs["o_record"] = [{"record": _no_records(config), "last": flags}]
    outputs["o_status"] = [flags]
    if config.framed:
        outputs["o_misframed"] = [{"weight": flags, "activation": flags}]
    for command, (status, plan, y) in zip(commands, executed, strict=True):
        outputs["o_status"].append(np.array([status], np.uint8))
        if status != planner.DONE:
            continue
        last = np.arange(len(y) * plan.tiles) == len(y) * plan.tiles - 1
        last = last.astype(np.uint8)
        if command["result"] == planner.VALUES_OUT:
            rows = result_rows(config, plan, y).view(np.uint32)
            outputs["o"].append({"values": rows, "last": last})
        elif command["result"] == planner.RECORDS_OUT:
            outputs["o_record"].append({"record": result_records(config, plan, y),
                                        "last": last})
    return {name: _joined(parts) for name, parts in outputs.items()}


def accelerator(config, inputs):
    """Output streams of an accelerator for its input streams.

    Operands are read from the streams in the order of the commands' plans. Lanes beyond K are
    quantized and multiplied like all others, whatever they hold, and weight records beyond N are
    ignored (specification section 14.7). Of an operand that comes more than once, the last copy
    counts; the specification leaves undefined what happens if the copies differ. Marks are not
    looked at, as if they were right.

    Parameters
    ----------
    config : Config
    inputs : dict of str to array or dict
        By port, one row per transfer, as `streams` gives them.

    Returns
    -------
    dict of str to array or dict
        The outputs, in the same form.
    """
    if config.framed:
        inputs = {name: rows[_UNMARKED[name]] if name in _UNMARKED else rows
                  for name, rows in inputs.items()}
    position = dict.fromkeys(inputs, 0)

    def take(name, count):
        start = position[name]
        position[name] += count
        return _rows(inputs[name], slice(start, start + count))

    kept = None
    commands, executed = [], []
    for fields in zip(*(inputs["i_command"][name].tolist() for name in _FIELDS), strict=True):
        command = dict(zip(_FIELDS, fields, strict=True))
        status, plan, y = _status(config, command, kept), None, None
        if status == planner.DONE:
            m, k, n = fields[:3]
            plan = planner.plan(config, m, k, n)
            count = len(_weight_places(config, plan)[0])
            command["w"] = weights_of(config, plan, take("i_weight", count), n, k)
            count = len(plan.activation_order()[0])
            if command["source"] == planner.RECORDS:
                command["a"] = activations_of(config, plan, take("i_activation", count), m, k)
                a = _activations(config, command, kept)
            elif command["source"] == planner.VALUES:
                values = values_of(plan, take("i_value", count).view(FLOATS[config.input]), m)
                # All lanes are quantized; the shape alone says that K ends before the last one.
                a = replace(quantized(config, values), shape=(m, k))
            else:
                a = kept
            y, kept = _product(config, command, a)
        commands.append(command)
        executed.append((status, plan, y))
    return answers(config, commands, executed)


def _no_records(config, *axes):
    """Planes of a stream of records without any transfer."""
    return {"elements": np.zeros((0, *axes, config.group), np.uint8),
            "metadata": np.zeros((0, *axes, config.group // 8), np.uint8),
            "scale": np.zeros((0, *axes), np.uint8)}


def _joined(parts):
    if isinstance(parts[0], dict):
        return {name: _joined([part[name] for part in parts]) for name in parts[0]}
    return np.concatenate(parts)


def _rows(stream, rows):
    if isinstance(stream, dict):
        return {name: _rows(plane, rows) for name, plane in stream.items()}
    return stream[rows]


def _quantized(planes, kind, encoding, shape):
    """A quantized matrix from its planes by group."""
    rows = len(planes["scale"])
    return Quantized(kind=kind, encoding=encoding, shape=shape, group=default_group(encoding),
                     elements=planes["elements"].reshape(rows, -1),
                     metadata=planes["metadata"].reshape(rows, -1), scales=planes["scale"])


def _padded(plane, rows):
    padded = np.zeros((rows, *plane.shape[1:]), plane.dtype)
    padded[: len(plane)] = plane
    return padded
