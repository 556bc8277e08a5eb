# SPDX-License-Identifier: BSD-2-Clause
"""Tokens of a language model, by the package `tokenizers`, and the template of a conversation."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..codec.arrays import Int64Array
from ..command import Failure
from .pretrained import Unavailable, importable

BEGIN, END = "<|im_start|>", "<|im_end|>"
"""Tokens around a message, in the template that is known."""

SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
"""What SmolLM2's own template begins with."""

_CONTROL = 3


class Tokens:
    """Text to tokens and back.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
    end : set of int
        Tokens that end a text.
    """

    def __init__(self, tokenizer: Any, end: set[Any]) -> None:
        self._tokenizer = tokenizer
        self.end = end

    @property
    def chats(self) -> bool:
        """Whether the tokens of the template are there."""
        return all(self._tokenizer.token_to_id(token) is not None for token in (BEGIN, END))

    @property
    def count(self) -> int:
        """Tokens that there are."""
        return self._tokenizer.get_vocab_size()

    def encode(self, text: str) -> Int64Array:
        """Tokens of a text; nothing is put before or after it."""
        return np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, np.int64)

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of some tokens. Bytes that are no character yet are U+FFFD."""
        return self._tokenizer.decode(list(tokens), skip_special_tokens=True)


def conversation(prompt: str, system: str = SYSTEM) -> str:
    """The template of a conversation in which the user has said one thing.

    Parameters
    ----------
    prompt : str
    system : str
        What comes before it; nothing if it is empty.

    Returns
    -------
    str
    """
    before = f"{BEGIN}system\n{system}{END}\n" if system else ""
    return f"{before}{BEGIN}user\n{prompt}{END}\n{BEGIN}assistant\n"


def require() -> None:
    """Raises `Unavailable` unless the package `tokenizers` is installed."""
    if not importable("tokenizers"):
        raise Unavailable("tokenizers must be installed to generate text: "
                          "pip install 'm2xfp-rtl[language]'")


def of_gguf(entries: Mapping[str, Any]) -> Tokens:
    """The tokens that the entries of a GGUF file describe.

    Parameters
    ----------
    entries : mapping of str to object
        From `golden.checkpoint.gguf.GgufReader`.

    Returns
    -------
    Tokens

    Raises
    ------
    Failure
        If they are not byte-level pairs, split as SmolLM's are.
    Unavailable
        If `tokenizers` is not installed.
    """
    require()
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    found = entries.get("tokenizer.ggml.model"), entries.get("tokenizer.ggml.pre")
    if found != ("gpt2", "smollm"):
        raise Failure(f"the tokenizer of a GGUF file must be gpt2 with smollm, not {found}")
    texts = entries["tokenizer.ggml.tokens"]
    merges = [tuple(pair.split(" ", 1)) for pair in entries["tokenizer.ggml.merges"]]
    made = Tokenizer(models.BPE({text: index for index, text in enumerate(texts)}, merges))
    made.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False)])
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(text, special=True) for text, kind in zip(
        texts, entries["tokenizer.ggml.token_type"], strict=True) if kind == _CONTROL])
    return Tokens(made, {entries["tokenizer.ggml.eos_token_id"], made.token_to_id("<|endoftext|>")})


def of_folder(folder: Path, end: set[int]) -> Tokens:
    """The tokens of a checkpoint's tokenizer.json.

    Parameters
    ----------
    folder : Path
    end : set of int
        Tokens that end a text.

    Returns
    -------
    Tokens

    Raises
    ------
    Failure
        If there is no such file, or `tokenizers` cannot read it.
    Unavailable
        If `tokenizers` is not installed.
    """
    require()
    from tokenizers import Tokenizer

    file = folder / "tokenizer.json"
    try:
        return Tokens(Tokenizer.from_file(str(file)), end)
    except Exception as error:  # The library raises a bare Exception.
        raise Failure(f"{file} must be a tokenizer: {str(error)[:100]}") from None
