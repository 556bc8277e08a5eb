# SPDX-License-Identifier: BSD-2-Clause
"""Language models that nobody trained, as folders of a checkpoint."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from golden.models.llama import JOINED, Sizes

SIZES = Sizes(layers=2, width=64, hidden=96, heads=4, kv_heads=2, head=16, vocabulary=20,
              context=40, theta=100.0, epsilon=1e-5)

WORDS = [*"abcdefghijklmnop", "<|im_start|>", "<|im_end|>", *"qr"]
"""Tokens, by number."""

CONFIG = {
    "model_type": "llama", "hidden_act": "silu", "hidden_size": 64, "intermediate_size": 96,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 20,
    "max_position_embeddings": 40, "rope_theta": 100.0, "rms_norm_eps": 1e-5, "eos_token_id": 17,
    "tie_word_embeddings": False}


def tensors(seed=0):
    """Random tensors of a model, by name, in float32."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return (rng.standard_normal(shape) * 0.3).astype(np.float32)

    made = {"model.embed_tokens.weight": normal(SIZES.vocabulary, SIZES.width),
            "lm_head.weight": normal(SIZES.vocabulary, SIZES.width),
            "model.norm.weight": 1 + normal(SIZES.width)}
    for layer in range(SIZES.layers):
        prefix = f"model.layers.{layer}"
        for part in (part for parts in JOINED.values() for part in parts):
            made[f"{prefix}.{part}.weight"] = normal(*SIZES.shapes[part])
        for norm in ("input_layernorm", "post_attention_layernorm"):
            made[f"{prefix}.{norm}.weight"] = 1 + normal(SIZES.width)
    return made


def folder(path, *, config=CONFIG, drop=()):
    """Writes a model's folder; needs the package tokenizers."""
    tokenizers = pytest.importorskip("tokenizers", reason="needs the extra language")
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    save_file({name: values for name, values in tensors().items() if name not in drop},
              path / "model.safetensors")
    made = tokenizers.Tokenizer(tokenizers.models.BPE(
        {word: number for number, word in enumerate(WORDS)}, []))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    made.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    made.save(str(path / "tokenizer.json"))
    return path
