# SPDX-License-Identifier: BSD-2-Clause
"""Runs real data through the RTL in lockstep with the golden model."""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from multiprocessing import get_context
from typing import Any

import numpy as np

from golden import dequantize, interrupts, matmul, quantize_activations, quantize_weights
from golden.formats.mxfp4 import mxfp4_round_trip
from golden.units.decoder import element_integers
from golden.units.group_accumulator import accumulate
from hw.units.group_mac import GroupMac
from hw.units.quantization_engine import QuantizationEngine

from .runner import mismatches, run


@dataclass(frozen=True, kw_only=True)
class Lockstep:
    """Counts and errors of a lockstep run.

    Attributes
    ----------
    groups, group_mismatches : int
        Activation groups quantized, and the number of their records that differ from golden's.
    products, product_mismatches : int
        Dot products of groups accumulated, and the number of results that differ.
    errors : dict of str to tuple of float
        For each format, the squared error of activations, weights and outputs over the squares
        of the float values.
    """

    groups: int
    group_mismatches: int
    products: int
    product_mismatches: int
    errors: dict[str, tuple[float, float, float]]


def lockstep(activations: np.ndarray, weights: np.ndarray, *, stalls: float = 0.0, seed: int = 0,
             engine: str = "auto", vcd: Sequence[Any] | None = None, processes: int = 1,
             progress: Callable[[str, int, int], Any] | None = None,
             report: Callable[[str, int, int], Any] | None = None) -> Lockstep:
    """Runs a linear layer through the quantization engine and the dot-product unit.

    Every result is compared with golden's.

    Parameters
    ----------
    activations : float32 array, shape (M, K)
    weights : float32 array, shape (N, K)
    stalls, seed, engine
        As in `sim.run`.
    vcd : pair of path, optional
        Waveform files of the two units.
    processes : int
        Processes among which the groups of the quantization engine are divided. Each simulates a
        unit of its own, so more than one excludes ``vcd`` and other stalls.
    progress : callable, optional
        Called with a unit's name, its transfers so far and their total.
    report : callable, optional
        Called with a unit's name, its transfers and how many of them differ, as soon as they are
        known.

    Returns
    -------
    Lockstep
    """
    if processes > 1 and (vcd or stalls):
        raise ValueError(f"processes must be 1 with vcd or stalls, not {processes}")
    files = vcd or (None, None)
    quantized, weight = quantize_activations(activations), quantize_weights(weights)

    records = _records(quantized)
    groups = _padded(activations).view(np.uint32).reshape(-1, 32)
    advance = _for_unit(progress, "quantization_engine", len(groups))
    if processes > 1:
        outputs = _quantize_in_parts(groups, engine, processes, advance)
    else:
        outputs = run(QuantizationEngine(), {"i": groups}, stalls=stalls, seed=seed, engine=engine,
                      vcd=files[0], progress=advance)
    group_mismatches = mismatches(outputs["o"], _flat(records))
    report = report or (lambda unit, transfers, wrong: None)
    report("quantization_engine", len(groups), int(group_mismatches.sum()))

    # The dot products take the engine's records. The accumulator of each step is golden's result of
    # the step before; as long as no step differs, it is also the unit's own result.
    given = {name: plane.reshape(records[name].shape) for name, plane in outputs["o"].items()}
    inputs, expected = _steps(quantized, weight, given)
    outputs = run(GroupMac(), {"i": inputs}, stalls=stalls, seed=seed, engine=engine,
                  vcd=files[1],
                  progress=_for_unit(progress, "group_mac", len(expected)))
    product_mismatches = mismatches(outputs["o"], expected)
    report("group_mac", len(expected), int(product_mismatches.sum()))

    product = matmul(quantized, weight)
    last = expected.reshape(-1, *product.shape)[-1]
    if not np.array_equal(last, product.view(np.uint32)):
        raise AssertionError("golden.matmul and its own group steps differ")
    return Lockstep(
        groups=len(groups), group_mismatches=int(group_mismatches.sum()),
        products=len(expected), product_mismatches=int(product_mismatches.sum()),
        errors=_errors(activations, weights, {
            "M2XFP": (dequantize(quantized), dequantize(weight)),
            "MXFP4": (mxfp4_round_trip(activations), mxfp4_round_trip(weights)),
        }))


def _quantize_in_parts(groups, engine, processes, advance):
    """Outputs of the quantization engine, with a part of the groups in each of some processes."""
    parts, done = np.array_split(groups, processes), []
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        with interrupts.shielded():
            parts = pool.map(_quantize, parts, repeat(engine))
        for outputs in parts:
            done.append(outputs["o"])
            if advance:
                advance(sum(len(planes["scale"]) for planes in done))
    return {"o": {name: np.concatenate([planes[name] for planes in done]) for name in done[0]}}


def _quantize(groups, engine):
    return run(QuantizationEngine(), {"i": groups}, engine=engine)


def _padded(x):
    padded = np.zeros((len(x), x.shape[1] + -x.shape[1] % 32), np.float32)
    padded[:, : x.shape[1]] = x
    return padded


def _records(q):
    """Planes of a quantized matrix, each of shape (rows, groups, ...)."""
    return {"elements": q.elements.reshape(*q.scales.shape, 32),
            "metadata": q.metadata.reshape(*q.scales.shape, 4),
            "scale": q.scales}


def _flat(records):
    return {name: plane.reshape(-1, *plane.shape[2:]) for name, plane in records.items()}


def _steps(quantized, weight, given):
    """Inputs of every accumulation step, groups outermost, and their results as float32 bits."""
    rows, columns, steps = len(quantized.scales), len(weight.scales), quantized.scales.shape[1]
    x = element_integers(quantized).reshape(rows, steps, 32).astype(np.int32)
    y = element_integers(weight).reshape(columns, steps, 32).astype(np.int32)
    results = [np.zeros((rows, columns), np.float32)]
    for g in range(steps):
        results.append(accumulate(results[-1], x[:, g] @ y[:, g].T,
                                  quantized.scales[:, g, None], weight.scales[None, :, g]))
    results = np.stack(results).view(np.uint32)

    def spread(planes, axis, shape):
        # (rows or columns, steps, ...) to every (step, row, column).
        moved = {name: np.moveaxis(plane, 1, 0) for name, plane in planes.items()}
        return {name: np.broadcast_to(np.expand_dims(plane, axis), (*shape, *plane.shape[2:]))
                .reshape(-1, *plane.shape[2:]) for name, plane in moved.items()}

    shape = (steps, rows, columns)
    return {"activation": spread(given, 2, shape), "weight": spread(_records(weight), 1, shape),
            "acc": results[:-1].reshape(-1)}, results[1:].reshape(-1)


def _errors(activations, weights, decoded):
    def relative(approximate, exact):
        exact = exact.astype(np.float64)
        return float(np.sum((approximate - exact) ** 2) / np.sum(exact**2))

    exact = activations.astype(np.float64) @ weights.astype(np.float64).T
    return {name: (relative(x, activations), relative(w, weights),
                   relative(x.astype(np.float64) @ w.astype(np.float64).T, exact))
            for name, (x, w) in decoded.items()}


def _for_unit(progress, unit, total):
    return None if progress is None else lambda received: progress(unit, received, total)
