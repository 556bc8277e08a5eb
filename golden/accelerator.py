"""The accelerator's operands and results in the order of its streams."""

import numpy as np

from . import planner
from .group_mac import matmul
from .quantization_engine import quantize_activations


def weight_transfers(machine, plan, w):
    """Weight records in the order and the transfers in which a plan takes them.

    Parameters
    ----------
    machine : Machine
    plan : Plan
    w : Quantized
        Weights of shape (N, K).

    Returns
    -------
    dict of str to uint8 array, shape (transfers, weight_width, ...)
        "elements", "metadata" and "scale". Records beyond N, which fill the last transfer of a
        tile, are zeros.
    """
    tile, group = plan.weight_order()
    rows = plan.tiles * machine.columns
    transfers = np.where(tile == plan.tiles - 1, plan.last_transfers, plan.transfers)
    # Each transfer's tile, and its number in that.
    which = np.repeat(np.arange(len(tile)), transfers)
    index = np.arange(len(which)) - np.repeat(np.cumsum(transfers) - transfers, transfers)
    row = (tile[which] * machine.columns + index * machine.weight_width)[:, None] \
        + np.arange(machine.weight_width)
    return {name: _padded(plane, rows)[row, group[which][:, None]]
            for name, plane in records(w).items()}


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


def result_rows(machine, plan, y):
    """Rows of results in the order in which they leave, shape (rows, columns)."""
    padded = np.zeros((len(y), plan.tiles * machine.columns), y.dtype)
    padded[:, : y.shape[1]] = y
    return padded.reshape(len(y), plan.tiles, machine.columns)[plan.result_order()]


def result_records(plan, y):
    """The same rows as group records."""
    q = quantize_activations(y)
    return {name: plane[plan.result_order()] for name, plane in records(q).items()}


def result_matrix(machine, plan, rows, n):
    """The M x N matrix that leaves as these rows; the inverse of `result_rows`."""
    row, tile = plan.result_order()
    y = np.zeros((plan.blocks[-1].stop, plan.tiles, machine.columns), rows.dtype)
    y[row, tile] = rows
    return y.reshape(len(y), -1)[:, :n]


def records(q):
    """Planes of a quantized matrix by group: shapes (rows, groups, ...)."""
    return {"elements": q.elements.reshape(*q.scales.shape, q.group),
            "metadata": q.metadata.reshape(*q.scales.shape, -1),
            "scale": q.scales}


def execute(machine, operands):
    """What the accelerator does with commands.

    Parameters
    ----------
    machine : Machine
    operands : list of dict
        Each with "m", "k", "n", "source" and "result" of a command and, if it is legal, its
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
    for command in operands:
        size = tuple(command[name] for name in "mkn")
        code = planner.check(machine, *size, command["source"], command["result"],
                             kept and kept.shape)
        if code != planner.DONE:
            results.append((code, None, None))
            continue
        if command["source"] == planner.KEPT:
            a = kept
        elif command["source"] == planner.VALUES:
            a = quantize_activations(command["x"])
        else:
            a = command["a"]
        y = matmul(a, command["w"])
        kept = quantize_activations(y) if command["result"] == planner.KEEP else None
        results.append((code, planner.plan(machine, *size), y))
    return results


def _padded(plane, rows):
    padded = np.zeros((rows, *plane.shape[1:]), plane.dtype)
    padded[: len(plane)] = plane
    return padded
