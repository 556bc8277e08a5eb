"""The accelerator: what it does with commands, and the order of its streams."""

import numpy as np

from ..codec.numbers import FLOATS
from ..codec.quantized import Quantized, check_quantized
from ..units.group_mac import matmul
from ..units.quantization_engine import quantize_activations
from . import planner


def weight_transfers(config, plan, w):
    """Weight records in the order and the transfers in which a plan takes them.

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
        tile, are zeros.
    """
    places = _weight_places(config, plan)
    return {name: _padded(plane, plan.tiles * config.columns)[places]
            for name, plane in records(w).items()}


def _weight_places(config, plan):
    """Row and group of every weight record that comes in, shapes (transfers, weight_width)."""
    tile, group = plan.weight_order()
    transfers = np.where(tile == plan.tiles - 1, plan.last_transfers, plan.transfers)
    # Each transfer's tile, and its number in that.
    which = np.repeat(np.arange(len(tile)), transfers)
    index = np.arange(len(which)) - np.repeat(np.cumsum(transfers) - transfers, transfers)
    row = (tile[which] * config.columns + index * config.weight_width)[:, None] \
        + np.arange(config.weight_width)
    return row, np.broadcast_to(group[which][:, None], row.shape)


def activation_records(plan, a):
    """Activation records in the order in which a plan takes them; ``a`` has shape (M, K)."""
    order = plan.activation_order()
    return {name: plane[order] for name, plane in records(a).items()}


def value_groups(plan, x):
    """Groups of values in the order in which a plan takes them.

    Parameters
    ----------
    plan : Plan
    x : array, shape (M, K)

    Returns
    -------
    array of the same type, shape (groups, 32)
        K is filled up with +0 to whole groups.
    """
    padded = np.zeros((len(x), plan.groups * 32), x.dtype)
    padded[:, : x.shape[1]] = x
    return padded.reshape(len(x), plan.groups, 32)[plan.activation_order()]


def result_rows(config, plan, y):
    """Rows of results in the order in which they leave, shape (rows, columns)."""
    padded = np.zeros((len(y), plan.tiles * config.columns), y.dtype)
    padded[:, : y.shape[1]] = y
    return padded.reshape(len(y), plan.tiles, config.columns)[plan.result_order()]


def result_records(plan, y):
    """The same rows as group records."""
    q = quantize_activations(y)
    return {name: plane[plan.result_order()] for name, plane in records(q).items()}


def weights_of(config, plan, transfers, n, k):
    """The N x K weights that come in as these transfers; the inverse of `weight_transfers`."""
    row, group = _weight_places(config, plan)
    planes = {}
    for name, plane in transfers.items():
        matrix = np.zeros((plan.tiles * config.columns, plan.groups, *plane.shape[2:]), np.uint8)
        # Those that only fill a transfer may have anything.
        matrix[row, group] = plane
        planes[name] = matrix[:n]
    return _quantized(planes, "weight", (n, k))


def activations_of(plan, given, m, k):
    """The M x K activations that come in as these records; inverse of `activation_records`."""
    planes = {}
    for name, plane in given.items():
        planes[name] = np.zeros((m, plan.groups, *plane.shape[1:]), np.uint8)
        planes[name][plan.activation_order()] = plane
    return _quantized(planes, "activation", (m, k))


def values_of(plan, groups, m):
    """The values that come in as these groups, with their padding; inverse of `value_groups`."""
    x = np.zeros((m, plan.groups, 32), groups.dtype)
    x[plan.activation_order()] = groups
    return x.reshape(m, -1)


def result_matrix(config, plan, rows, n):
    """The M x N matrix that leaves as these rows; the inverse of `result_rows`."""
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
    """What the accelerator does with commands.

    Parameters
    ----------
    config : Config
    commands : list of dict
        Each with the fields "m", "k", "n", "source" and "result" and, if it is legal, its
        operands: "w", Quantized weights, and, unless the source is KEPT, "a", Quantized
        activations, or "x", an array of values.

    Returns
    -------
    list of tuple
        For each command the code with which it ends and, if that is DONE, its plan and its
        product as a float32 array; else twice None.
    """
    kept = None
    results = []
    for command in commands:
        code = _code(config, command, kept)
        if code != planner.DONE:
            results.append((code, None, None))
            continue
        plan, y, kept = _product(config, command, kept)
        results.append((code, plan, y))
    return results


def _code(config, command, kept):
    return planner.check(config, *(command[name] for name in _FIELDS), kept and kept.shape)


def _product(config, command, kept):
    """Plan and product of a legal command, and what it keeps."""
    if command["source"] == planner.KEPT:
        a = kept
    elif command["source"] == planner.VALUES:
        a = quantize_activations(command["x"])
    else:
        a = command["a"]
        check_quantized(a, "a", "activation", "elem-em")
    # The only encodings that tiles read.
    check_quantized(command["w"], "w", "weight", "sg-em")
    y = matmul(a, command["w"])
    keeps = command["result"] == planner.KEEP
    return (planner.plan(config, *(command[name] for name in "mkn")), y,
            quantize_activations(y) if keeps else None)


_FIELDS = ("m", "k", "n", "source", "result")


def streams(config, commands, executed):
    """The accelerator's input streams for commands, and its output streams.

    Parameters
    ----------
    config : Config
    commands : list of dict
        As of `execute`.
    executed : list of tuple
        What `execute` gave.

    Returns
    -------
    inputs, outputs : dict of str to array or dict
        By port, one row per transfer.
    """
    inputs, outputs = _empty(config)
    for command, (code, plan, y) in zip(commands, executed, strict=True):
        inputs["i_command"].append({name: np.array([command[name]]) for name in _FIELDS})
        outputs["o_status"].append(np.array([code], np.uint8))
        if code != planner.DONE:
            continue
        inputs["i_weight"].append(weight_transfers(config, plan, command["w"]))
        if command["source"] == planner.RECORDS:
            inputs["i_activation"].append(activation_records(plan, command["a"]))
        elif command["source"] == planner.VALUES:
            groups = value_groups(plan, command["x"])
            inputs["i_value"].append(groups.view(f"u{groups.itemsize}"))
        lasts = np.arange(len(y) * plan.tiles) == len(y) * plan.tiles - 1
        if command["result"] == planner.VALUES_OUT:
            rows = result_rows(config, plan, y).view(np.uint32)
            outputs["o"].append({"values": rows, "last": lasts.astype(np.uint8)})
        elif command["result"] == planner.RECORDS_OUT:
            outputs["o_record"].append({"record": result_records(plan, y),
                                        "last": lasts.astype(np.uint8)})
    return ({name: _joined(parts) for name, parts in inputs.items()},
            {name: _joined(parts) for name, parts in outputs.items()})


def accelerator(config, inputs):
    """What leaves an accelerator for all that comes in; the inverse and again of `streams`.

    Parameters
    ----------
    config : Config
    inputs : dict of str to array or dict
        As `streams` gives them.

    Returns
    -------
    dict of str to array or dict
        The outputs.
    """
    position = dict.fromkeys(inputs, 0)

    def take(name, count):
        start = position[name]
        position[name] += count
        return _rows(inputs[name], slice(start, start + count))

    kept = None
    commands, executed = [], []
    for fields in zip(*(inputs["i_command"][name].tolist() for name in _FIELDS), strict=True):
        command = dict(zip(_FIELDS, fields, strict=True))
        code, plan, y = _code(config, command, kept), None, None
        if code == planner.DONE:
            m, k, n = fields[:3]
            plan = planner.plan(config, m, k, n)
            count = len(_weight_places(config, plan)[0])
            command["w"] = weights_of(config, plan, take("i_weight", count), n, k)
            count = len(plan.activation_order()[0])
            if command["source"] == planner.RECORDS:
                command["a"] = activations_of(plan, take("i_activation", count), m, k)
            elif command["source"] == planner.VALUES:
                dtype = FLOATS[config.input]
                groups = take("i_value", count).view(dtype)
                command["x"] = values_of(plan, groups, m)[:, :k]
            _, y, kept = _product(config, command, kept)
        commands.append(command)
        executed.append((code, plan, y))
    return streams(config, commands, executed)[1]


def _empty(config):
    """Streams without any transfer, in which those of commands are put."""
    def of_records(*axes):
        return {"elements": np.zeros((0, *axes, 32), np.uint8),
                "metadata": np.zeros((0, *axes, 4), np.uint8),
                "scale": np.zeros((0, *axes), np.uint8)}

    inputs = {
        "i_command": [{name: np.zeros(0, np.int64) for name in _FIELDS}],
        "i_weight": [of_records(config.weight_width)],
        "i_activation": [of_records()],
    }
    if config.input is not None:
        size = np.dtype(FLOATS[config.input]).itemsize
        inputs["i_value"] = [np.zeros((0, 32), f"u{size}")]
    flags = np.zeros(0, np.uint8)
    outputs = {"o": [{"values": np.zeros((0, config.columns), np.uint32), "last": flags}]}
    if config.columns == 32:
        outputs["o_record"] = [{"record": of_records(), "last": flags}]
    return inputs, outputs | {"o_status": [flags]}


def _joined(parts):
    if isinstance(parts[0], dict):
        return {name: _joined([part[name] for part in parts]) for name in parts[0]}
    return np.concatenate(parts)


def _rows(stream, rows):
    if isinstance(stream, dict):
        return {name: _rows(plane, rows) for name, plane in stream.items()}
    return stream[rows]


def _quantized(planes, kind, shape):
    """The quantized matrix with these planes by group."""
    rows = len(planes["scale"])
    return Quantized(kind=kind, shape=shape, elements=planes["elements"].reshape(rows, -1),
                     metadata=planes["metadata"].reshape(rows, -1), scales=planes["scale"])


def _padded(plane, rows):
    padded = np.zeros((rows, *plane.shape[1:]), plane.dtype)
    padded[: len(plane)] = plane
    return padded
