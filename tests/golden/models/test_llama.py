# SPDX-License-Identifier: BSD-2-Clause
"""The language model in NumPy, against its formulas written out, and against transformers."""

import dataclasses
import math

import numpy as np
import pytest

from golden.models import llama
from golden.models.llama import JOINED, Llama, loss
from tests.support import networks, speakers
from tests.support.speakers import SIZES

TENSORS = {name: values.astype(np.float64) for name, values in speakers.tensors().items()}


def network():
    norms = [TENSORS[f"model.layers.{layer}.{norm}.weight"] for layer in range(SIZES.layers)
             for norm in ("input_layernorm", "post_attention_layernorm")]
    return Llama(SIZES, TENSORS["model.embed_tokens.weight"],
                 [*norms, TENSORS["model.norm.weight"]])


def linear(name, x):
    layer, product = name.split(".")
    return np.concatenate([x @ TENSORS[f"model.layers.{layer}.{part}.weight"].T
                           for part in JOINED[product]], axis=1)


def written_out(tokens):
    """The model token by token and head by head, with complex numbers for the positions."""
    def weight(layer, part):
        return TENSORS[f"model.layers.{layer}.{part}.weight"]

    def norm(x, w):
        return w * x / math.sqrt(sum(x**2) / len(x) + SIZES.epsilon)

    def turned(x, position):
        half = SIZES.head // 2
        pairs = x[:half] + 1j * x[half:]
        pairs = pairs * np.array([np.exp(1j * position / SIZES.theta ** (2 * i / SIZES.head))
                                  for i in range(half)])
        return np.concatenate([pairs.real, pairs.imag])

    seen = {}
    rows = []
    for position, token in enumerate(tokens):
        x = TENSORS["model.embed_tokens.weight"][token]
        for layer in range(SIZES.layers):
            h = norm(x, weight(layer, "input_layernorm"))
            q, k, v = ((weight(layer, f"self_attn.{part}_proj") @ h).reshape(-1, SIZES.head)
                       for part in "qkv")
            seen[layer, position] = [turned(row, position) for row in k], v
            heads = []
            for head, query in enumerate(q):
                own = head // (SIZES.heads // SIZES.kv_heads)
                scores = np.exp([turned(query, position) @ seen[layer, p][0][own]
                                 / math.sqrt(SIZES.head) for p in range(position + 1)])
                heads.append(sum(score * seen[layer, p][1][own]
                                 for p, score in enumerate(scores / sum(scores))))
            x = x + weight(layer, "self_attn.o_proj") @ np.concatenate(heads)
            h = norm(x, weight(layer, "post_attention_layernorm"))
            gate, up = (weight(layer, f"mlp.{part}_proj") @ h for part in ("gate", "up"))
            x = x + weight(layer, "mlp.down_proj") @ (gate / (1 + np.exp(-gate)) * up)
        rows.append(norm(x, TENSORS["model.norm.weight"]))
    return np.array(rows)


TOKENS = np.random.default_rng(1).integers(0, SIZES.vocabulary, 12)


def test_forward_is_its_formulas():
    made = network()
    found = made.forward([(TOKENS, made.cache())], linear)
    np.testing.assert_allclose(found, written_out(TOKENS), rtol=0, atol=1e-12)


def test_a_cache_goes_on_where_the_tokens_before_ended():
    made = network()
    cache = made.cache()
    parts = [made.forward([(part, cache)], linear) for part in np.split(TOKENS, [5, 6, 7])]
    assert cache.length == len(TOKENS)
    np.testing.assert_allclose(np.concatenate(parts), written_out(TOKENS), rtol=0, atol=1e-12)


def test_a_cache_grows():
    made = network()
    cache = made.cache()
    tokens = np.tile(TOKENS, 12)
    parts = [made.forward([(part, cache)], linear) for part in np.split(tokens, [60, 70, 129])]
    whole = made.forward([(tokens, made.cache())], linear)
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=0, atol=1e-12)


def test_streams_do_not_see_each_other():
    made = network()
    streams = [(TOKENS[:5], made.cache()), (TOKENS[5:6], made.cache()), (TOKENS[6:], made.cache())]
    found = made.forward(streams, linear)
    expected = [written_out(tokens) for tokens, _ in streams]
    np.testing.assert_allclose(found, np.concatenate(expected), rtol=0, atol=1e-12)


def test_loss():
    logits = np.log([[0.5, 0.25, 0.25], [0.125, 0.125, 0.75]]).astype(np.float32) + 7
    assert loss(logits, np.array([0, 1])) == pytest.approx(math.log(2) / 2 + math.log(8) / 2)


@pytest.mark.parametrize(("field", "value", "text"), [
    ("layers", 0, "layers must be an integer of at least 1, not 0"),
    ("width", "64", "width must be an integer of at least 1, not '64'"),
    ("kv_heads", 3, "heads must be a multiple of the 3 kv_heads, not 4"),
    ("head", 15, "head must be even, not 15"),
    ("theta", 0.0, "theta must be a number above 0 and below 1e38, not 0.0"),
    ("theta", 10**40, f"theta must be a number above 0 and below 1e38, not {10**40}"),
    ("epsilon", float("nan"), "epsilon must be a number above 0 and below 1e38, not nan"),
])
def test_sizes_that_are_refused(field, value, text):
    with pytest.raises(ValueError, match=f"^{text}$"):
        dataclasses.replace(SIZES, **{field: value})


@pytest.mark.long
def test_against_transformers():
    """In float64; transformers computes positions in float32 all the same."""
    theirs = networks.llama().double()
    import torch

    config, state = theirs.config, {name: values.detach().numpy()
                                    for name, values in theirs.state_dict().items()}
    sizes = llama.Sizes(
        layers=2, width=32, hidden=64, heads=4, kv_heads=2, head=8, vocabulary=50,
        context=config.max_position_embeddings, theta=10000.0, epsilon=config.rms_norm_eps)
    norms = [state[f"model.layers.{layer}.{norm}.weight"] for layer in range(2)
             for norm in ("input_layernorm", "post_attention_layernorm")]
    ours = Llama(sizes, state["model.embed_tokens.weight"], [*norms, state["model.norm.weight"]])

    def products(name, x):
        layer, product = name.split(".")
        return np.concatenate([x @ state[f"model.layers.{layer}.{part}.weight"].T
                               for part in JOINED[product]], axis=1)

    tokens = np.random.default_rng(2).integers(0, 50, 100)
    with torch.inference_mode():
        expected = theirs(torch.from_numpy(tokens[None])).logits.numpy()[0]
    found = ours.forward([(tokens, ours.cache())], products) @ state["lm_head.weight"].T
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
