# SPDX-License-Identifier: BSD-2-Clause
"""Evaluates calibrated models: losses with 4-bit weights and activations, beside rival formats."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from tqdm import tqdm

from ..codec.arrays import Int64Array
from ..formats.nvfp4 import dequantize_nvfp4
from ..units.decoder import dequantize
from .calibrate import RAZER, Calibrated
from .evaluation import FLOAT, Evaluation, scheme
from .pretrained import Model

BEFORE = {
    "MXFP4": "MXFP4",
    "NVFP4": "NVFP4",
    "RaZeR": "RaZeR weights/RaZeR activations",
    "M2XFP": "M2XFP",
    "M2XFP, Sg-threshold": "M2XFP weights/M2XFP Sg-threshold",
    "M2XFP, Sg-special": "Sg-special",
    "M2XFP, Sg-special64": "Sg-special64",
}
"""Schemes of `golden.models.evaluation` for the original model, by label."""

AFTER_NVFP4 = {
    "calibrated NVFP4": "float/NVFP4",
    "calibrated NVFP4, searched": "float/NVFP4 searched",
}
"""Schemes for the weights calibrated for NVFP4, by label."""

AFTER_RAZER = {"calibrated RaZeR": "float/RaZeR activations"}
"""Schemes for the weights calibrated for RaZeR, by label."""

AFTER = {
    "calibrated M2XFP": "float/M2XFP activations",
    "calibrated M2XFP, Sg-threshold": "float/M2XFP Sg-threshold",
    "calibrated M2XFP, Sg-EM": "float/M2XFP weights",
    "calibrated M2XFP, mixed": "float/M2XFP mixed",
}
"""Schemes for the weights calibrated for M2XFP, by label."""

AFTER_SPECIAL = {"calibrated M2XFP, Sg-special": "float/M2XFP Sg-special"}
"""Schemes for the weights calibrated for Sg-special, by label."""

AFTER_SPECIAL64 = {"calibrated M2XFP, Sg-special64": "float/M2XFP Sg-special64"}
"""Schemes for the weights calibrated for Sg-special64, by label."""

LABELS = (*BEFORE, *AFTER_NVFP4, *AFTER_RAZER, *AFTER, *AFTER_SPECIAL, *AFTER_SPECIAL64)
"""All rows of the table, in its order."""

RIVALS = (*AFTER_NVFP4, *AFTER_RAZER)
"""Rows that calibrated models are compared with."""


def evaluate(model: Model, result: Calibrated, texts: Sequence[Int64Array], *,
             labels: Collection[str] = LABELS) -> list[dict[str, list[tuple[float, float]]]]:
    """Runs a model with weights and activations of its blocks' layers in four bits.

    Parameters
    ----------
    model : golden.models.pretrained.Model
        It has the calibrated weights afterwards.
    result : golden.models.calibrate.Calibrated
        With the weights for rival formats.
    texts : sequence of int64 arrays, shape (sequences, length)
    labels : collection of str
        Which of `LABELS` are run.

    Returns
    -------
    list of dict of str to list of (float, float)
        One dict per text. By label, two figures in nats for every sequence: the increase of the
        mean negative log-likelihood over the original model's, and the divergence from the original
        model's predictions.
    """
    import torch

    evaluation = Evaluation(model)
    found: list[dict[str, list[tuple[float, float]]]] = [{} for _ in texts]
    with tqdm(total=sum(map(len, texts)) * (1 + len(labels)), unit="sequence", leave=False,
              disable=None) as bar:
        def losses(chosen, tokens):
            for row in tokens:
                yield evaluation.losses(chosen, row)
                bar.update()

        def run(schemes):
            # All texts under one scheme after the other: each scheme quantizes the weights once.
            for name, chosen in schemes.items():
                if name not in labels:
                    continue
                for tokens, base, pairs in zip(texts, right, found, strict=True):
                    pairs[name] = [(loss["nll"] - start, loss["kl"]) for loss, start in
                                   zip(losses(scheme(chosen), tokens), base, strict=True)]

        def put(weights):
            model.network.load_state_dict(
                {name: torch.from_numpy(values.copy())
                 for name, values in (weights | result.others).items()}, strict=False)

        # This also keeps the original model's predictions.
        right = [[loss["nll"] for loss in losses(FLOAT, tokens)] for tokens in texts]
        run(BEFORE)
        put({name: dequantize_nvfp4(q) for name, q in result.nvfp4.items()})
        run(AFTER_NVFP4)
        put({name: RAZER.dequantize(q) for name, q in result.razer.items()})
        run(AFTER_RAZER)
        put({name: dequantize(q) for name, q in result.special.items()})
        run(AFTER_SPECIAL)
        put({name: dequantize(q) for name, q in result.special64.items()})
        run(AFTER_SPECIAL64)
        put({name: dequantize(q) for name, (_, q) in result.weights.items()})
        run(AFTER)
    return found


def losses_table(found: Mapping[str, Sequence[tuple[float, float]]], text: str) -> str:
    """Tables of a text's losses: means and differences, with standard errors.

    The differences are those of calibrated models from those of `RIVALS`, sequence by sequence.
    What was not run is left out.

    Parameters
    ----------
    found : mapping of str to sequence of (float, float)
        What `evaluate` gives for a text.
    text : str
        The text's name.
    """
    pairs = {name: np.array(found[name]) for name in LABELS if name in found}
    worst = pairs["MXFP4"][:, 0].mean() if "MXFP4" in pairs else np.nan

    def mean(values):
        return f"{values.mean():.3f} +- {values.std(ddof=1) / len(values)**0.5:.3f}"

    lines = [f"{f'on {text}':<32}{'loss over float':>15}{'KL':>8}    MXFP4's removed"]
    for name, values in pairs.items():
        loss, kl = values.T
        removed = f"{1 - loss.mean() / worst:.0%}" if worst == worst else ""
        lines.append(f"{name:<32}{mean(loss):>15}{kl.mean():>8.3f}{removed:>19}".rstrip())

    def differences(cells):
        return "".join(f"{cell:>17}" for cell in cells)

    rivals = [name for name in RIVALS if name in pairs]
    others = [name for name in pairs if name not in BEFORE and [name] != rivals[:1]]
    if rivals and others:
        lines += [f"{'less':<32}" + "".join(f"{rival:>34}" for rival in rivals),
                  f"{'':<32}" + differences(["loss", "KL"] * len(rivals))]
        lines += [f"{name:<32}" + differences(mean(values) for rival in rivals
                                              for values in (pairs[name] - pairs[rival]).T)
                  for name in others]
    return "\n".join(lines)
