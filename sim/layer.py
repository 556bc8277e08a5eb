# SPDX-License-Identifier: BSD-2-Clause
"""Both projections of a real MLP; the result in between stays inside the accelerator."""

from typing import Any

import numpy as np

from golden import quantize_weights
from golden.accelerator import planner
from golden.formats.mxfp4 import mxfp4_round_trip
from golden.models.smollm2 import Mlp
from hw.accelerator.config import Config

from .accelerator import golden_config
from .gemm import TYPES


def commands(mlp: Mlp, *, tokens: int, config: Config | str) -> list[dict[str, Any]]:
    """The commands of an MLP's up and down projection.

    The first command quantizes the activations on their way in and keeps its result, which is the
    source of the second command. The model multiplies by the SiLU of the gate projection in
    between; these commands do not.

    Parameters
    ----------
    mlp : golden.models.smollm2.Mlp
    tokens : int
        Rows of activations.
    config : Config or str

    Returns
    -------
    list of dict
        As `sim.accelerator.accelerate` takes them.

    Raises
    ------
    ValueError
        If the accelerator cannot keep results, or its buffer is too small for the tokens.
    """
    chosen = golden_config(config)
    hidden, width = mlp.up.shape
    if not chosen.quantizes or chosen.input is None:
        raise ValueError(f"--config must be one that quantizes values and keeps results, with "
                         f"{chosen.group} columns, not {config}")
    records = -(-width // chosen.group) + -(-hidden // chosen.group)
    most = min(chosen.rows, chosen.activations // records, len(mlp.activations))
    if not most:
        raise ValueError(f"--config must be one whose activation buffer holds the {records} "
                         f"records of a token, not {config}, which holds {chosen.activations}")
    if not 1 <= tokens <= most:
        raise ValueError(f"--tokens must be within 1 and {most} with config {config}, "
                         f"not {tokens}")
    return [{"m": tokens, "k": width, "n": hidden, "source": planner.VALUES,
             "result": planner.KEEP, "w": quantize_weights(mlp.up, encoding=chosen.weight_encoding),
             "x": mlp.activations[:tokens].astype(TYPES[chosen.input])},
            {"m": tokens, "k": hidden, "n": width, "source": planner.KEPT,
             "result": planner.VALUES_OUT,
             "w": quantize_weights(mlp.down, encoding=chosen.weight_encoding)}]


def errors(mlp: Mlp, given: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Squared errors of the outputs over the squares of the outputs in float64.

    Parameters
    ----------
    mlp : golden.models.smollm2.Mlp
    given : array, shape (tokens, K)
        The activations, which may have been rounded to a smaller type.
    y : float32 array
        The accelerator's output.

    Returns
    -------
    dict of str to float
        Errors of ``y``, under "M2XFP", and of the same layer in "MXFP4".
    """
    def product(x, w):
        return x.astype(np.float64) @ w.astype(np.float64).T

    exact = product(product(mlp.activations[: len(y)], mlp.up), mlp.down)
    between = product(mxfp4_round_trip(given), mxfp4_round_trip(mlp.up)).astype(np.float32)
    plain = product(mxfp4_round_trip(between), mxfp4_round_trip(mlp.down))
    return {name: float(((approximate - exact) ** 2).sum() / (exact**2).sum())
            for name, approximate in (("M2XFP", y), ("MXFP4", plain))}
