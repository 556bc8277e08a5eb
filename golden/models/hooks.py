# SPDX-License-Identifier: BSD-2-Clause
"""Hooks on a network's linear layers and attention: they show inputs, and quantize operands.

All is put back as it was when a context ends.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..codec.arrays import Float32Array


@contextmanager
def captured(linears: Mapping[str, Any], see: Callable[[str, Float32Array], object]
             ) -> Iterator[None]:
    """Shows the inputs of linear layers while a network runs.

    If layers take the same tensor, as the projections to query, key and value do, each shows it.

    Parameters
    ----------
    linears : mapping of str to torch.nn.Linear
        All or some of a model's linear layers, by name.
    see : callable
        Called with a layer's name and its input, a float32 array of shape (tokens, K), which must
        not be changed.
    """
    def hook(name):
        return lambda module, arguments: see(name, _rows(arguments[0]))

    with _hooked({name: (linear, hook(name)) for name, linear in linears.items()}):
        yield


@contextmanager
def quantized(linears: Mapping[str, Any], *,
              weights: Callable[[str, Float32Array], Float32Array] | None = None,
              activations: Callable[[str, Float32Array], Float32Array] | None = None
              ) -> Iterator[None]:
    """Makes linear layers compute with quantized operands.

    Parameters
    ----------
    linears : mapping of str to torch.nn.Linear
        All or some of a model's linear layers, by name.
    weights : callable, optional
        Takes a layer's name and its weight, a float32 array of shape (N, K), and returns the array
        to use instead. It is called once for each layer.
    activations : callable, optional
        The same for inputs of shape (tokens, K) when the network runs. If successive layers take
        the same tensor, it is called once, with the name of the first one.
    """
    import torch

    # Input and result of the last call.
    last = None, None

    def hook(name):
        def quantize(module, arguments):
            nonlocal last
            x, = arguments
            if last[0] is not x:
                values = activations(name, _rows(x))
                last = x, torch.from_numpy(np.ascontiguousarray(values)).reshape(x.shape)
            return (last[1],)
        return quantize

    originals = {name: linear.weight.data for name, linear in linears.items()}
    try:
        if weights is not None:
            for name, linear in linears.items():
                values = np.ascontiguousarray(weights(name, originals[name].numpy()))
                linear.weight.data = torch.from_numpy(values)
        hooks = {} if activations is None else {
            name: (linear, hook(name)) for name, linear in linears.items()}
        with _hooked(hooks):
            yield
    finally:
        for name, linear in linears.items():
            linear.weight.data = originals[name]


def _rows(x):
    return x.detach().reshape(-1, x.shape[-1]).numpy()


@contextmanager
def _hooked(hooks):
    handles = [linear.register_forward_pre_hook(hook) for linear, hook in hooks.values()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def quantized_attention(network: Any, quantize: Callable[[str, Float32Array], Float32Array]
                        ) -> Iterator[None]:
    """Makes a network's attention multiply quantized operands.

    Sequences must be whole and without padding.

    Parameters
    ----------
    network : torch.nn.Module
        A network of `transformers`.
    quantize : callable
        Takes "query", "key", "value" or "probabilities" and a float32 array, and returns the array
        to use instead. The product sums over the last axis: a head's elements for queries and keys,
        with rotary positions, and the sequence for values and probabilities.
    """
    import torch
    from transformers import AttentionInterface

    def apply(kind, x):
        values = quantize(kind, x.detach().contiguous().numpy())
        return torch.from_numpy(np.ascontiguousarray(values))

    # `transformers` passes no mask to an attention function that it does not know.
    def attention(module, query, key, value, attention_mask, scaling=None, **options):
        groups = query.shape[1] // key.shape[1]
        key = apply("key", key).repeat_interleave(groups, dim=1)
        value = apply("value", value.transpose(2, 3)).repeat_interleave(groups, dim=1)
        scores = apply("query", query) @ key.transpose(2, 3)
        scores *= query.shape[-1]**-0.5 if scaling is None else scaling
        if module.is_causal:
            scores += torch.full(scores.shape[2:], -torch.inf).triu(1)
        probabilities = apply("probabilities", scores.softmax(-1))
        return (probabilities @ value.transpose(2, 3)).transpose(1, 2).contiguous(), None

    before = network.config._attn_implementation
    AttentionInterface.register("m2xfp", attention)
    try:
        network.set_attn_implementation("m2xfp")
        yield
    finally:
        network.set_attn_implementation(before)
