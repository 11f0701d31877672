"""Attention over long sequences in compiled programs: head by head, tile by tile.

A tile is a block of the query's rows by a block of keys, small enough for its scores to stay
with a core.  Sums of the rows are brought to a new largest score as they meet one (Milakov
and Gimelshein 2018, "Online normalizer calculation for softmax"); the backward pass computes
weights anew from the logarithms of the rows' sums (Dao et al. 2022, "FlashAttention").

All of it is loops in the program: one over heads, whose iterations know nothing of each
other, so that each thread runs whole ones by itself; in it one over blocks of rows, and one
over keys.  For gradients keys are outside and rows inside: what a block of keys receives is
added up while it is at hand, and gradients of the rows are passed on to the next block.
With a causal mask a branch leaves tiles out in which nothing is seen.  Lengths are filled up
with zeros to whole tiles, and keys that are not there are hidden.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from graphflow.functions.control import cond, scan
from graphflow.functions.control import map as map_rows
from graphflow.functions.creation import arange, full
from graphflow.functions.elementwise import (
    add,
    div,
    exp,
    le,
    log,
    logical_and,
    lt,
    maximum,
    mul,
    sub,
    where,
)
from graphflow.functions.products import matmul
from graphflow.functions.reductions import reduce
from graphflow.functions.shaping import expand, narrow, reshape, select, transpose, unsqueeze
from graphflow.ir import types as T
from graphflow.ir.types import broadcast_shapes
from graphflow.mode import mode
from graphflow.nn.functional.attention_blocks import Blocks, Cut, Recomputed
from graphflow.nn.functional.padding import pad
from graphflow.records import dataclass
from graphflow.tensor import Tensor

SIDE = 256
"""About the rows and the keys of a tile: its scores are a quarter of a megabyte."""
FILLED = 16
"""Lengths are filled up to so many rows a tile, or a multiple: whole vectors."""

Row = tuple[Tensor, ...]


@dataclass(frozen=True)
class Tiles:
    """How [length, source] scores of each of ``heads`` heads are cut."""

    heads: int
    length: int
    source: int
    scale: float
    causal: bool

    @property
    def rows(self) -> int:
        """Rows of a tile."""
        return _side(self.length)

    @property
    def keys(self) -> int:
        """Keys of a tile."""
        return _side(self.source)

    def cut(self, x: Tensor, side: int) -> Tensor:
        """``x`` [positions, ...] as a stack of blocks of ``side`` positions."""
        return reshape(x, (-1, side, *x.shape[1:]))

    def positions(self, count: int, side: int) -> Tensor:
        """The numbers of ``count`` positions, block by block."""
        return reshape(arange(-(-count // side) * side, dtype=T.int32), (-1, side))

    def _blocks(self, key: Tensor, value: Tensor) -> Row:
        """Keys and values of a head block by block, and their positions."""
        blocks = self.cut(key, self.keys), self.cut(value, self.keys)
        return *blocks, self.positions(self.source, self.keys)

    def shown(self, scores: Tensor, rows: Tensor, keys: Tensor) -> Tensor:
        """``scores`` where the row of the query may see the key; positions broadcast."""
        seen = None
        if self.causal:
            seen = le(keys, rows)
        if self.source % self.keys and not (self.causal and self.length <= self.source):
            there = lt(keys, self.source)
            seen = there if seen is None else logical_and(seen, there)
        return scores if seen is None else where(seen, scores, -math.inf)

    def where_seen(self, rows: Tensor, keys: Tensor, work: Callable[..., Row], state: Row) -> Row:
        """``work(*state)``, but ``state`` where the last row comes before the first key."""
        if not self.causal:
            return work(*state)
        some = le(select(keys, 0, 0), select(rows, 0, -1))
        found: Row = cond(some, work, lambda *same: same, *state)
        return found

    # ---- the result -----------------------------------------------------------------------

    def attended(self, tensors: Sequence[Tensor], mask: Tensor | None) -> Sequence[Tensor]:
        """The result [heads, L, Ev], and the logarithms of sums of exponentials [heads, L, 1]."""
        found: Row = map_rows(lambda head: self._head(*head), tuple(tensors))
        return found

    def _head(self, query: Tensor, key: Tensor, value: Tensor) -> Row:
        sources = self._blocks(key, value)

        def attended(item: Row) -> Row:
            rows, at = mul(item[0], self.scale), item[1]
            lowest = full((self.rows, 1), -math.inf, dtype=query.dtype)
            nothing = [full((self.rows, n), 0.0, dtype=query.dtype) for n in (1, value.shape[-1])]
            begin = (lowest, *nothing)
            top, total, out = scan(lambda *a: (self._step(rows, at, *a), None), begin, sources)[0]
            return div(out, total), add(top, log(total))

        items = self.cut(query, self.rows), self.positions(self.length, self.rows)
        out, logs = map_rows(attended, items)
        return reshape(out, (-1, value.shape[-1])), reshape(logs, (-1, 1))

    def _step(self, rows: Tensor, at: Tensor, state: Row, block: Row) -> Row:
        """Largest scores, sums of exponentials and weighted values with one more block of keys."""
        key, value, keys_at = block

        def work(top: Tensor, total: Tensor, out: Tensor) -> Row:
            scores = matmul(rows, transpose(key, -2, -1))
            scores = self.shown(scores, unsqueeze(at, 1), unsqueeze(keys_at, 0))
            new = maximum(top, reduce("reduce_max", scores.detach(), -1, True))
            used, kept = exp(sub(scores, new)), exp(sub(top, new))
            total = add(mul(total, kept), reduce("reduce_sum", used, -1, True))
            return new, total, add(mul(out, kept), matmul(used, value))

        return self.where_seen(at, keys_at, work, state)

    # ---- gradients ------------------------------------------------------------------------

    def gradients(self, tensors: Sequence[Tensor], mask: Tensor | None) -> Sequence[Tensor]:
        """The gradients of query, key and value; tensors are of whole tiles."""
        if mode.tracer is None:
            return self._gradients_after(*tensors)
        found: Row = map_rows(lambda head: self._gradients(*head), tuple(tensors))
        return found

    def _gradients_after(
        self, query: Tensor, key: Tensor, value: Tensor, ct: Tensor, logs: Tensor, mean: Tensor
    ) -> Row:
        """Those of all heads outside of the program, where a call for every tile would be slow."""
        cut = Cut(1, (self.heads,), self.rows)
        blocks = Blocks(cut, self.scale, self.causal, None, [])
        query, ct, logs, mean = (narrow(x, 1, 0, self.length) for x in (query, ct, logs, mean))
        key, value = (narrow(x, 1, 0, self.source) for x in (key, value))
        queries, *others = blocks.backward(query, key, value, ct, logs, mean, None)
        return filled(queries, self.rows), *(filled(x, self.keys) for x in others)

    def _gradients(
        self, query: Tensor, key: Tensor, value: Tensor, ct: Tensor, logs: Tensor, mean: Tensor
    ) -> Row:
        """Those of one head.  Scores lie with a row a key here: two of three products with them
        then read them as they lie."""
        rows = (
            self.cut(mul(query, self.scale), self.rows),
            self.cut(ct, self.rows),
            *(reshape(x, (-1, 1, self.rows)) for x in (logs, mean)),
            self.positions(self.length, self.rows),
        )

        def received(queries: Tensor, block: Row) -> tuple[Tensor, Row]:
            zeros = tuple(full(tuple(x.shape), 0.0, dtype=x.dtype) for x in block[:2])
            sums, queries = scan(lambda *a: self._tile(block, *a), zeros, (*rows, queries))
            return queries, sums

        begin = full(tuple(rows[0].shape), 0.0, dtype=query.dtype)
        queries, (keys, values) = scan(received, begin, self._blocks(key, value))
        queries = mul(reshape(queries, tuple(query.shape)), self.scale)
        return queries, reshape(keys, tuple(key.shape)), reshape(values, tuple(value.shape))

    def _tile(self, block: Row, sums: Row, item: Row) -> tuple[Row, Tensor]:
        """What a block of keys has received, and what one of rows has, with one more tile."""
        key, value, keys_at = block
        rows, ct, logs, mean, at, before = item

        def work(keys: Tensor, values: Tensor, queries: Tensor) -> Row:
            scores = matmul(key, transpose(rows, -2, -1))
            scores = self.shown(scores, unsqueeze(at, 0), unsqueeze(keys_at, 1))
            weights = exp(sub(scores, logs))
            # As in softmax: d out[i] / d score[j] = out[i] * (δ[i,j] - out[j]).
            inner = mul(weights, sub(matmul(value, transpose(ct, -2, -1)), mean))
            queries = add(queries, matmul(transpose(inner, -2, -1), key))
            return add(keys, matmul(inner, rows)), add(values, matmul(weights, ct)), queries

        keys, values, queries = self.where_seen(at, keys_at, work, (*sums, before))
        return (keys, values), queries


def filled(x: Tensor, side: int) -> Tensor:
    """``x`` [heads, positions, width] with zeros up to whole blocks of ``side`` positions."""
    missing = -x.shape[1] % side
    return pad(x, (0, 0, 0, missing)) if missing else x


def _side(length: int) -> int:
    """``length`` cut evenly into tiles of about ``SIDE`` positions."""
    count = max(1, (length + SIDE // 2) // SIDE)
    return -(-length // (count * FILLED)) * FILLED


def tiles_of(
    lead: Sequence[Any], length: Any, source: Any, scale: float, causal: bool
) -> Tiles | None:
    """How attention with scores [*lead, length, source] is cut into tiles; None: not at all.

    That is outside of programs, where every step of a loop would be calls of its own, with
    one head, which one thread would be busy with, and where tiles would be thin.
    """
    heads = prod(lead)
    if mode.tracer is None or heads < 2 or min(length, source) < SIDE * 3 // 4:
        return None
    return Tiles(heads, length, source, scale, causal)


def attended_in_tiles(query: Tensor, key: Tensor, value: Tensor, tiles: Tiles) -> Tensor:
    """The result, in single or double precision."""
    lead = broadcast_shapes(*(x.shape[:-2] for x in (query, key, value)))
    heads = [
        filled(reshape(expand(x, (*lead, *x.shape[-2:])), (tiles.heads, *x.shape[-2:])), side)
        for x, side in ((query, tiles.rows), (key, tiles.keys), (value, tiles.keys))
    ]
    out, _ = Recomputed.apply(*heads, None, tiles)
    if out.shape[1] != tiles.length:
        out = narrow(out, 1, 0, tiles.length)
    return reshape(out, (*lead, *out.shape[-2:]))
