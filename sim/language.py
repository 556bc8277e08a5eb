# SPDX-License-Identifier: BSD-2-Clause
"""A language model whose products with weights a driver runs on an accelerator."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from golden.codec.arrays import Int64Array
from golden.models.language import Language
from golden.models.llama import Attend, Cache, loss

from .driver import Driver, Layer

Progress = Callable[[str, int, int], object]
"""Takes a product's name, and how many of a pass's products are done and their number."""


class Speaker:
    """A language model on an accelerator.

    Parameters
    ----------
    model : Language
    driver : Driver
    head : bool
        Whether the head is a product on the accelerator, too. Otherwise the host computes it in
        float32, with the weight as it is.
    attend : callable, optional
        Attention, as `golden.models.llama.Llama.forward` takes it.
    progress : callable, optional
        Called when a weight is loaded or a product done.

    Attributes
    ----------
    passes : int
        Products of a pass through the model.
    """

    def __init__(self, model: Language, driver: Driver, *, head: bool = True,
                 attend: Attend | None = None, progress: Progress | None = None) -> None:
        self.model = model
        self.driver = driver
        self.progress = progress
        self._attend = attend
        names = model.products + ["head"] * head
        self.passes = len(names)
        self._layers: dict[str, Layer] = {}
        for name in names:
            self._layers[name] = driver.load(model.weight(name), threads=os.cpu_count() or 1)
            self._tell(name, len(self._layers))
        # No file of planes has the head in planes.
        self._host_head: Any = None if head else model.weight("head")
        self._done = 0

    def hidden(self, streams: Sequence[tuple[Int64Array, Cache]]) -> np.ndarray:
        """Runs the blocks on new tokens; see `golden.models.llama.Llama.forward`."""
        self._done = 0
        return self.model.network.forward(streams, self._linear, self._attend)

    def logits(self, hidden: np.ndarray) -> np.ndarray:
        """The head's outputs, float32 of shape (rows, vocabulary)."""
        if self._host_head is not None:
            return hidden @ self._host_head.T
        return self._linear("head", hidden)

    def generate(self, prompts: Sequence[Int64Array], count: int
                 ) -> Iterator[tuple[int, int, bool]]:
        """Continues prompts with the likeliest tokens, all prompts together.

        The first pass takes all tokens of the prompts; each later one takes the last token of each
        text that has not ended.

        Parameters
        ----------
        prompts : sequence of int64 array
        count : int
            Tokens of each text at most.

        Yields
        ------
        stream, token : int
            Number of the prompt, and its text's next token.
        last : bool
            Whether the text has ended: with a token of `Tokens.end`, or for want of room.
        """
        caches = [self.model.network.cache() for _ in prompts]
        given = dict(enumerate(prompts))
        for number in range(count):
            hidden = self.hidden([(tokens, caches[stream]) for stream, tokens in given.items()])
            ends = np.cumsum([len(tokens) for tokens in given.values()]) - 1
            chosen = self.logits(hidden[ends]).argmax(axis=-1)
            found = dict(zip(given, chosen.tolist(), strict=True))
            given = {}
            for stream, token in found.items():
                last = token in self.model.tokens.end or number == count - 1
                if not last:
                    given[stream] = np.array([token])
                yield stream, token, last
            if not given:
                return

    def _linear(self, name, x):
        y = self.driver.product(self._layers[name], x)
        self._done += 1
        self._tell(name, self._done)
        return y

    def _tell(self, name, done):
        if self.progress:
            self.progress(name, done, self.passes)


@dataclass
class Text:
    """A text that grows token by token.

    Attributes
    ----------
    tokens : list of int
    """

    tokens: list[int] = field(default_factory=list)
    _shown: int = 0

    def add(self, token: int, decode: Callable[[Sequence[int]], str]) -> str:
        """Adds a token; returns the characters that are complete since the call before."""
        self.tokens.append(token)
        text = decode(self.tokens)
        # A character may take the bytes of several tokens.
        whole = text.rstrip("\N{REPLACEMENT CHARACTER}")
        new = whole[self._shown :]
        self._shown = max(self._shown, len(whole))
        return new


def perplexity(speaker: Speaker, tokens: Int64Array, step: int | None = None
               ) -> tuple[float, float]:
    """Mean negative log-likelihood and perplexity of a text's tokens after the first one.

    Parameters
    ----------
    speaker : Speaker
    tokens : int64 array
        At least two.
    step : int, optional
        Tokens of a pass; all by default.

    Returns
    -------
    nll, perplexity : float
        Of float32 logits, in float64.
    """
    cache = speaker.model.network.cache()
    given = tokens[:-1]
    logits = [speaker.logits(speaker.hidden([(given[start : start + step], cache)]))
              for step in [step or len(given)] for start in range(0, len(given), step)]
    nll = loss(np.concatenate(logits), tokens[1:])
    return nll, float(np.exp(nll))
