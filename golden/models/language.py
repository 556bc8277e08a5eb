# SPDX-License-Identifier: BSD-2-Clause
"""Reads language models of the Llama architecture without PyTorch.

A model is "smollm2", a folder of a checkpoint, or a file of planes as ``python -m golden
calibrate`` writes it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint import BadFile, Model, Weight, open_rows
from ..checkpoint.layout import ENCODINGS, FORMATS, KEY, read_manifest
from ..checkpoint.model import CONFIG
from ..checkpoint.values import BLOCKS, DTYPES
from ..codec.arrays import Float32Array
from ..codec.quantized import Quantized
from ..command import Failure
from . import tokens
from .llama import JOINED, Llama, Sizes
from .pretrained import SMOLLM2, fetch
from .smollm2 import BLOCK, dequantize

FAMILIES = ("llama", "mistral")
"""Model types of config.json that are read."""

_GGUF = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
         "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
         "post_attention_layernorm": "ffn_norm"}


class Language:
    """An open language model. It is a context manager, which closes its files.

    Attributes
    ----------
    name : str
    reference : str
        Form of its weights.
    sizes : Sizes
    tokens : Tokens
    network : Llama
        Norms and embedding in float32.
    """

    def __init__(self, name: str, reference: str, source: "_Source", base: "_Base") -> None:
        self.name = name
        self.reference = reference
        self.sizes, self.tokens = base
        if self.tokens.count > self.sizes.vocabulary:
            raise BadFile(f"{source.model.path}: the tokenizer must have at most the model's "
                          f"{self.sizes.vocabulary} tokens, not {self.tokens.count}")
        self._source = source
        norms = [self._floats(f"model.layers.{layer}.{norm}.weight", (self.sizes.width,))
                 for layer in range(self.sizes.layers)
                 for norm in ("input_layernorm", "post_attention_layernorm")]
        norms.append(self._floats("model.norm.weight", (self.sizes.width,)))
        embedding = self._floats("model.embed_tokens.weight",
                                 (self.sizes.vocabulary, self.sizes.width))
        self.network = Llama(self.sizes, embedding, norms)

    def __enter__(self) -> "Language":
        return self

    def __exit__(self, *error: object) -> None:
        self._source.model.__exit__(*error)

    @property
    def products(self) -> list[str]:
        """Names of the products with weights, in their order, without the head."""
        return [f"{layer}.{name}" for layer in range(self.sizes.layers) for name in JOINED]

    def weight(self, name: str) -> Float32Array | Quantized:
        """The weight of a product: the joined rows of its linear layers.

        Parameters
        ----------
        name : str
            One of `products`, or "head".

        Returns
        -------
        float32 array or Quantized, shape (N, K)
            Quantized where the file holds planes.

        Raises
        ------
        BadFile
            If it is not there, or has another shape than the configuration says.
        """
        if name == "head":
            if "lm_head.weight" in self._source:
                return self._floats("lm_head.weight", (self.sizes.vocabulary, self.sizes.width))
            return self.network.embedding
        layer, _, product = name.partition(".")
        parts: list[Any] = []
        for part in JOINED[product]:
            parts.append(self._source.read(f"model.layers.{layer}.{part}.weight"))
            self._check(f"layer {layer}'s {part}", parts[-1].shape, self.sizes.shapes[part])
        if not isinstance(parts[0], Quantized):
            return np.concatenate(parts)
        elements, metadata, scales = (np.concatenate([getattr(part, plane) for part in parts])
                                      for plane in ("elements", "metadata", "scales"))
        return Quantized(kind="weight", encoding=parts[0].encoding, elements=elements,
                         metadata=metadata, scales=scales, shape=(len(scales), parts[0].shape[1]))

    def _floats(self, name, shape):
        values = self._source.read(name)
        self._check(name, values.shape, shape)
        return values

    def _check(self, name, found, expected):
        if found != expected:
            raise BadFile(f"{self._source.model.path}: {name} must have the shape "
                          f"{list(expected)}, not {list(found)}")


_Base = tuple[Sizes, tokens.Tokens]


class _Source:
    """Tensors of an open checkpoint by their names in `transformers`."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._planes: dict[str, tuple[str, tuple[int, ...]]] = {}
        for reader in model.shards.values():
            if KEY in reader.metadata:
                manifest = read_manifest(reader)
                self._planes |= {name: (manifest["format"], tuple(entry["shape"]))
                                 for name, entry in manifest["tensors"].items()}

    def __contains__(self, name: str) -> bool:
        return name in self.model.tensors or name in self._planes

    def read(self, name: str) -> Any:
        """A float32 array, or a Quantized of a tensor in planes."""
        if name in self._planes:
            return self._quantized(name, *self._planes[name])
        return self._values(name)

    def _quantized(self, name, format, shape):
        planes = {plane: self.model.read(f"{name}.{plane}") for plane in FORMATS[format]}
        # MXFP4 has factors of 1: metadata 0.
        planes.setdefault("metadata", bytes(len(planes["elements"]) // 16))
        return Quantized.unpack(**planes, kind="weight", shape=shape, encoding=ENCODINGS[format])

    def _values(self, name):
        if name not in self.model.tensors:
            raise BadFile(f"{self.model.path} has no tensor {name!a}")
        tensor = self.model.tensors[name]
        if tensor.packed == "Q4_1":
            data = np.frombuffer(self.model.read(name), np.uint8).view(BLOCK)
            return dequantize(data.reshape(*tensor.shape[:-1], -1))
        *lead, width = tensor.shape
        dtype, k = tensor.dtype, width
        if tensor.packed in BLOCKS:
            elements, size = BLOCKS[tensor.packed]
            dtype, k = tensor.packed, width // size * elements
        elif tensor.packed or dtype not in DTYPES:
            raise BadFile(f"{self.model.path} has a tensor {name!a} that must be in planes, floats "
                          f"or Q4_1, not {tensor.packed or dtype}")
        weight = Weight(name=name, shape=(*lead, k), dtype=dtype, parts=(name,),
                        packed=tensor.packed)
        values, _ = open_rows(self.model, weight)(0, weight.rows)
        return np.array(values, np.float32).reshape(weight.shape)


class _Gguf(_Source):
    """A GGUF file of llama.cpp, whose rows of queries and keys are in another order."""

    def __init__(self, model: Model, sizes: Sizes) -> None:
        super().__init__(model)
        self._heads = {"attn_q": sizes.heads, "attn_k": sizes.kv_heads}

    def __contains__(self, name: str) -> bool:
        return super().__contains__(_gguf_name(name))

    def read(self, name: str) -> Any:
        """The tensor, with the rows of each head's halves one after the other."""
        own = _gguf_name(name)
        values = super().read(own)
        for part, heads in self._heads.items():
            if f".{part}." in own:
                pairs = values.reshape(heads, -1, 2, values.shape[-1])
                return pairs.swapaxes(1, 2).reshape(values.shape)
        return values


def _gguf_name(name):
    for theirs, ours in (("model.embed_tokens.", "token_embd."), ("model.norm.", "output_norm."),
                         ("lm_head.", "output.")):
        name = name.replace(theirs, ours)
    for theirs, ours in _GGUF.items():
        name = name.replace(f".{theirs}.", f".{ours}.")
    return name.replace("model.layers.", "blk.")


def load(model: str, base: str = "smollm2") -> Language:
    """Opens a language model.

    Parameters
    ----------
    model : str
        "smollm2"; a folder with a config.json, a tokenizer.json and safetensors files of floats or
        planes; or a safetensors file of planes.
    base : str
        Where such a file's sizes and tokenizer come from: "smollm2" or a folder.

    Returns
    -------
    Language

    Raises
    ------
    ValueError
        If ``model`` or ``base`` is nothing of this.
    Failure
        If it cannot be read, is of another architecture, or is not to be had.
    """
    tokens.require()
    path = Path(model)
    if model != "smollm2" and path.is_file():
        given = _Source(Model(path))
        try:
            return Language(path.name, f"planes, sizes of {base}", given, _base(base))
        except BaseException:
            given.model.__exit__(None, None, None)
            raise
    opened = _smollm2() if model == "smollm2" else Model(_folder(path, "--model"))
    try:
        if model == "smollm2":
            found = _of_gguf(opened)
            return Language("SmolLM2-135M-Instruct", "dequantized Q4_1",
                            _Gguf(opened, found[0]), found)
        return Language(path.resolve().name, "the checkpoint", _Source(opened),
                        _of_config(opened))
    except BaseException:
        opened.__exit__(None, None, None)
        raise


def _folder(path, option):
    if not (path / CONFIG).is_file():
        raise ValueError(f"{option} must be smollm2, a folder with a {CONFIG} or a safetensors "
                         f"file of planes, not {path}")
    return path


def _base(base):
    if base == "smollm2":
        with _smollm2() as model:
            return _of_gguf(model)
    with Model(_folder(Path(base), "--base")) as model:
        return _of_config(model)


def _smollm2():
    file, = SMOLLM2.files
    return Model(fetch(SMOLLM2) / file)


def _of_gguf(model: Model) -> _Base:
    entries = json.loads(model.metadata["gguf"])
    width, heads = entries["llama.embedding_length"], entries["llama.attention.head_count"]
    sizes = Sizes(layers=entries["llama.block_count"], width=width,
                  hidden=entries["llama.feed_forward_length"], heads=heads,
                  kv_heads=entries["llama.attention.head_count_kv"], head=width // heads,
                  vocabulary=entries["llama.vocab_size"], context=entries["llama.context_length"],
                  theta=entries["llama.rope.freq_base"],
                  epsilon=entries["llama.attention.layer_norm_rms_epsilon"])
    return sizes, tokens.of_gguf(entries)


def _of_config(model: Model) -> _Base:
    config, where = model.config, f"{model.path / CONFIG}"
    if (family := config.get("model_type")) not in FAMILIES:
        raise Failure(f"{where} must have a model_type of {', '.join(FAMILIES)}, not {family!r}")
    for field, allowed in (("hidden_act", ("silu",)), ("attention_bias", (False, None)),
                           ("mlp_bias", (False, None)), ("sliding_window", (None,))):
        if (value := config.get(field)) not in allowed:
            raise Failure(f"{where} must have {field} {allowed[0]}, not {value!r}")
    theta = _theta(config, where)
    try:
        width, heads = config["hidden_size"], config["num_attention_heads"]
        sizes = Sizes(layers=config["num_hidden_layers"], width=width,
                      hidden=config["intermediate_size"], heads=heads,
                      kv_heads=config.get("num_key_value_heads") or heads,
                      head=config.get("head_dim") or width // heads,
                      vocabulary=config["vocab_size"],
                      context=config["max_position_embeddings"], theta=theta,
                      epsilon=config["rms_norm_eps"])
    except (KeyError, TypeError, ZeroDivisionError, ValueError) as error:
        raise Failure(f"{where} must have the sizes of a model: {type(error).__name__}, "
                      f"{error}") from None
    end: Any = config.get("eos_token_id")
    ends = end if isinstance(end, list) else [end]
    if not all(type(token) is int for token in ends):
        raise Failure(f"{where} must have an eos_token_id of integers, not {end!r}")
    return sizes, tokens.of_folder(model.path, set(ends))


def _theta(config: Mapping[str, Any], where: str) -> float:
    """Base of the rotary positions, which no other rule may scale."""
    rope: Any = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise Failure(f"{where} must have rope_parameters that are a JSON object, not {rope!r}")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise Failure(f"{where} must have rotary positions of type default, not {kind!r}")
    return rope.get("rope_theta", config.get("rope_theta", 10000.0))
