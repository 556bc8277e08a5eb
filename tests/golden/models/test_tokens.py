# SPDX-License-Identifier: BSD-2-Clause
"""Tokens and the template of a conversation."""

import numpy as np
import pytest

from golden.command import Failure
from golden.models import language, pretrained, tokens

pytest.importorskip("tokenizers", reason="needs the extra language")

ENTRIES = {
    "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "1", "2", "12", "a",
                              "b", "Ġ", "Ġa", "ab", "Ã", "¤"],
    "tokenizer.ggml.token_type": [3, 3, 3] + [1] * 10,
    "tokenizer.ggml.merges": ["1 2", "Ġ a", "a b"],
    "tokenizer.ggml.eos_token_id": 2}


def test_gguf():
    """Digits stand alone, spaces belong to the next word, and control tokens are whole."""
    made = tokens.of_gguf(ENTRIES)
    assert made.encode("ab12 a<|im_end|>ba").tolist() == [10, 3, 4, 9, 2, 7, 6]
    assert made.encode("ä").tolist() == [11, 12]
    assert made.decode([10, 3, 4, 9, 2, 7, 11, 12]) == "ab12 abä"
    assert made.decode([11]) == "\N{REPLACEMENT CHARACTER}"
    assert made.end == {0, 2}
    assert made.chats
    assert made.encode("").dtype == np.int64


def test_other_tokenizers_are_refused():
    with pytest.raises(Failure, match="^the tokenizer of a GGUF file must be gpt2 with smollm, "
                                      "not \\('gpt2', 'llama-bpe'\\)$"):
        tokens.of_gguf(ENTRIES | {"tokenizer.ggml.pre": "llama-bpe"})


def test_without_the_template_s_tokens():
    made = tokens.of_gguf(ENTRIES | {"tokenizer.ggml.tokens": ["<|endoftext|>", "x", "y"]
                                     + ENTRIES["tokenizer.ggml.tokens"][3:]})
    assert not made.chats


@pytest.mark.long
@pytest.mark.parametrize("system", [tokens.SYSTEM, "Answer in one word."])
def test_the_template_is_the_model_s(system):
    """Rendered by the template in the model's file."""
    jinja2 = pytest.importorskip("jinja2")
    import json

    from golden.checkpoint import GgufReader

    file, = (pretrained.fetch(pretrained.SMOLLM2) / name for name in pretrained.SMOLLM2.files)
    with GgufReader(file) as reader:
        template = json.loads(reader.metadata["gguf"])["tokenizer.chat_template"]
    messages = [{"role": "user", "content": "Who are you?"}]
    if system != tokens.SYSTEM:
        messages.insert(0, {"role": "system", "content": system})
    expected = jinja2.Template(template).render(messages=messages, add_generation_prompt=True)
    assert tokens.conversation("Who are you?", system) == expected


@pytest.mark.long
def test_a_conversation_without_system():
    with language.load("smollm2") as model:
        found = model.tokens.encode(tokens.conversation("Hi", ""))
    # <|im_start|>user, a line, the question, <|im_end|>, and the same of the answer.
    assert found.tolist()[0] == 1 and (found == 1).sum() == 2 and (found == 2).sum() == 1
