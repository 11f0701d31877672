"""Generation, token by token: a cache of keys and values that lives in state, and sampling.

Programs are compiled for a few tokens, for one token, and for a piece of the prompt.  They
find where they are in a tensor and write in place, so that tokens cost one call, and
neither the length of the prompt nor the position compiles anything again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import graphflow as gf
from graphflow import nn

PIECES = 8, 32
"""Positions of the prompt that are read at once: of a short one, of others."""
AT_ONCE = 4
"""Tokens that are written by one call, while so many are wanted."""


class Cache(nn.Module):
    """Keys and values ``[batch, heads, length, features]`` of every layer, and a position."""

    position: gf.Tensor

    def __init__(self, layers: int, batch: int, heads: int, length: int, features: int) -> None:
        super().__init__()
        self.length = length
        for layer in range(layers):
            for kind in ("keys", "values"):
                self.register_buffer(f"{kind}{layer}", gf.zeros(batch, heads, length, features))
        self.register_buffer("position", gf.zeros((), dtype=gf.int64))

    def places(self, count: int) -> gf.Tensor:
        """The next ``count`` positions."""
        return self.position + gf.arange(count)

    def extend(self, layer: int, keys: gf.Tensor, values: gf.Tensor) -> tuple[gf.Tensor, gf.Tensor]:
        """Write keys and values of the next positions; those of all positions."""
        places = self.places(keys.shape[2])
        found = []
        for kind, rows in (("keys", keys), ("values", values)):
            stored = getattr(self, f"{kind}{layer}")
            stored.index_copy_(2, places, rows)
            found.append(stored)
        return found[0], found[1]

    def mask(self, count: int) -> gf.Tensor:
        """Bool ``[count, length]``: the next positions look at themselves and what came before."""
        return gf.arange(self.length) <= self.places(count).unsqueeze(1)


def keep_top_k(logits: gf.Tensor, k: int) -> gf.Tensor:
    """Scores ``[batch, vocabulary]`` with all but the ``k`` highest of a row at -inf."""
    least = gf.topk(logits, min(k, logits.shape[-1])).values[:, -1:]
    return logits.masked_fill(logits < least, -math.inf)


def keep_top_p(logits: gf.Tensor, p: float) -> gf.Tensor:
    """Scores with all at -inf but the likeliest, as many as make up the probability ``p``.

    Holtzman et al., "The Curious Case of Neural Text Degeneration", 2020.
    """
    ordered = gf.sort(logits, descending=True).values
    shares = gf.softmax(ordered, -1)
    kept = gf.cumsum(shares, -1) - shares < p  # what comes before does not make it up yet
    kept = kept | (gf.arange(logits.shape[-1]) == 0)
    least = ordered.masked_fill(~kept, math.inf).amin(-1, keepdim=True)
    return logits.masked_fill(logits < least, -math.inf)


def sample(
    logits: gf.Tensor,
    temperature: gf.Tensor | float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    greedy: bool = False,
) -> gf.Tensor:
    """One token ``[batch, 1]`` a row of scores ``[batch, vocabulary]``."""
    if greedy:
        return logits.argmax(-1, keepdim=True)
    logits = logits / temperature
    if top_k is not None:
        logits = keep_top_k(logits, top_k)
    if top_p is not None:
        logits = keep_top_p(logits, top_p)
    return gf.multinomial(gf.softmax(logits, -1), 1)


class Generation:
    """Writes on behind prompts with a model, for ``batch`` texts of up to ``length`` tokens.

    ``model(tokens, cache)`` gives scores ``[batch, count, vocabulary]`` of the tokens
    ``[batch, count]`` that come next, and extends the cache by them.
    """

    def __init__(self, model: Any, cache: Cache, batch: int, compiled: bool = True) -> None:
        self.model, self.cache, self.compiled = model, cache, compiled
        self.tokens = gf.zeros(batch, cache.length + 1, dtype=gf.int64)
        self.programs: dict[Any, Callable[..., Any]] = {}

    def __call__(
        self,
        prompt: gf.Tensor,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        greedy: bool = False,
    ) -> gf.Tensor:
        """The prompt ``[batch, count]`` and the tokens after it."""
        self._check(prompt, max_new_tokens, temperature, top_k, top_p)
        count, training = prompt.shape[1], self.model.training
        if training:
            self.model.eval()
        with gf.no_grad():
            self._read(prompt)
            heat = gf.tensor(temperature, dtype=gf.float32)
            several, single = divmod(max_new_tokens, AT_ONCE)
            for calls, tokens in ((several, AT_ONCE), (single, 1)):
                if calls:
                    write = self._program(tokens, top_k, top_p, greedy)
                    for _ in range(calls):
                        write(heat)
        if training:
            self.model.train()
        return self.tokens[:, : count + max_new_tokens].clone()

    def _check(
        self,
        prompt: gf.Tensor,
        new: int,
        temperature: float,
        top_k: int | None,
        top_p: float | None,
    ) -> None:
        batch = self.tokens.shape[0]
        if prompt.ndim != 2 or prompt.shape[0] != batch or not prompt.shape[1]:
            raise ValueError(f"a prompt [{batch}, at least 1] is needed, not {list(prompt.shape)}")
        if new < 0 or prompt.shape[1] + new > self.cache.length + 1:
            raise ValueError(
                f"{prompt.shape[1]} tokens and {new} more do not fit the cache of "
                f"{self.cache.length} positions"
            )
        if temperature <= 0:
            raise ValueError(f"temperature should be above 0, not {temperature}")
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k should be at least 1, not {top_k}")
        if top_p is not None and not 0 < top_p <= 1:
            raise ValueError(f"top_p should be above 0 and at most 1, not {top_p}")

    def _read(self, prompt: gf.Tensor) -> None:
        """Fill the cache with all of the prompt but its last token, piece by piece.

        The last piece may reach beyond the prompt: those rows are written again before
        anything looks at them.
        """
        last = prompt.shape[1] - 1
        self.tokens.zero_()
        self.tokens[:, : last + 1] = prompt
        piece = min(PIECES[last > PIECES[0]], self.cache.length)
        read = self._compiled(piece, self._read_piece)
        for begin in range(0, last, piece):
            begin = min(begin, self.cache.length - piece)  # the last may overlap the one before
            self.cache.position.fill_(begin)
            read(self.tokens[:, begin : begin + piece].clone())
        self.cache.position.fill_(last)

    def _read_piece(self, tokens: gf.Tensor) -> None:
        self.model(tokens, self.cache)

    def _program(self, count: int, top_k: int | None, top_p: float | None, greedy: bool) -> Any:
        def write(temperature: gf.Tensor) -> None:
            token = self.tokens.index_select(1, self.cache.places(1))
            for _ in range(count):
                logits = self.model(token, self.cache)[:, -1]
                token = sample(logits, temperature, top_k, top_p, greedy)
                self.cache.position += 1
                self.tokens.index_copy_(1, self.cache.places(1), token)

        return self._compiled((count, top_k, top_p, greedy), write)

    def _compiled(self, key: Any, function: Callable[..., Any]) -> Callable[..., Any]:
        if not self.compiled:
            return function
        if key not in self.programs:
            self.programs[key] = gf.compile(function)
        return self.programs[key]
