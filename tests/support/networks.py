# SPDX-License-Identifier: BSD-2-Clause
"""Networks that nobody trained, as small as they come, for tests of what runs real ones."""

from types import SimpleNamespace

import pytest

from golden.models import pretrained


def llama():
    """Two blocks, with a head; 50 tokens."""
    torch, transformers = _packages()
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
        initializer_range=0.5)).eval()


def bert():
    """Two blocks, with a pooler; 50 tokens."""
    torch, transformers = _packages()
    torch.manual_seed(0)
    return transformers.BertModel(transformers.BertConfig(
        vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, initializer_range=0.5)).eval()


def _packages():
    torch, transformers = (pytest.importorskip(name, reason="needs the extra models")
                           for name in ("torch", "transformers"))
    # Threads that wait for one another cost more here than they save.
    torch.set_num_threads(1)
    return torch, transformers


def model(network):
    """A model whose text is numbers."""
    def tokenizer(text, max_length=None, return_tensors=None, **options):
        tokens = [int(word) for word in text.split()][:max_length]
        if return_tensors:
            import torch

            return {"input_ids": torch.tensor([tokens])}
        return SimpleNamespace(input_ids=tokens)

    return pretrained.Model(name="tiny", reference="random", network=network, tokenizer=tokenizer,
                        linears=pretrained.block_linears(network))
