"""Attention over long sequences: a few heads and a block of the query's rows at a time.

The scores of all positions against all others grow with the square of the length; held
for the backward pass they are most of a model's memory.  Here a block is attended from
scores to result before the next one begins (Rabe and Staats 2021, "Self-attention does
not need O(n²) memory").  What is kept of it is the result and, for every row, the
logarithm of its sum of exponentials: with that the backward pass computes weights anew
element by element, without a look at whole rows (Dao et al. 2022, "FlashAttention").
With a causal mask a block meets the keys it may see, no others, which saves half of the
work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Any, Protocol

from graphflow.autograd.function import Function
from graphflow.autograd.modes import GradMode
from graphflow.dispatch import apply
from graphflow.functions.elementwise import add, div, eq, exp, log, mul, sub, where
from graphflow.functions.products import matmul
from graphflow.functions.reductions import reduce
from graphflow.functions.shaping import cat, expand, narrow, reshape, transpose
from graphflow.ir import types as T
from graphflow.ir.types import broadcast_shapes
from graphflow.mode import mode
from graphflow.nn.functional.attention_weights import causal_mask
from graphflow.nn.functional.dropout import dropped
from graphflow.nn.functional.padding import pad
from graphflow.promotion import cast
from graphflow.records import dataclass
from graphflow.rng import Draw, default_generator
from graphflow.tensor import Tensor

LEAST_BYTES = 16 << 20
"""Scores of fewer bytes stay about in the last-level cache: they are attended at once."""
BLOCK_BYTES = 8 << 20
"""About the scores of a block: with their gradients they are still in the cache."""
MOST_BYTES = 4 << 30
"""Scores that a device has in memory at a time: every block is many calls of the host there."""
LEAST_ROWS, ROWS, MOST_BLOCKS = 128, 256, 32
"""Products of fewer rows are slow, of more no faster; more blocks make a program long."""


@dataclass(frozen=True)
class Cut:
    """``trips`` groups of heads ``lead`` one after the other, ``rows`` of the query at a time."""

    trips: int
    lead: tuple[Any, ...]
    rows: int


def cut(
    lead: Sequence[Any],
    length: Any,
    source: Any,
    itemsize: int,
    once: bool = False,
    on_device: bool = False,
) -> Cut | None:
    """How to cut attention with scores [*lead, length, source]; None: not at all.

    That is where scores are few or extents are not known yet.  ``once``: all heads in one group.
    ``on_device``: whether they are computed on a device.
    """
    if any(type(extent) is not int for extent in (*lead, length, source)):
        return None
    if on_device:
        row = prod(lead) * source * max(itemsize, 4)  # in blocks they are single precision
        if length * row <= MOST_BYTES:
            return None
        return Cut(1, tuple(lead), min(length, max(1, MOST_BYTES // row // 16) * 16))
    line = source * itemsize
    if length < LEAST_ROWS or prod(lead) * length * line <= LEAST_BYTES:
        return None
    # Each of two threads works on heads of its own; there are more while they are small.
    heads = max(2, BLOCK_BYTES // (line * min(ROWS, length)))
    trips, group = (1, tuple(lead)) if once else _grouped(tuple(lead), heads)
    best = min(ROWS, BLOCK_BYTES // (line * prod(group)))
    rows = max(LEAST_ROWS, best, -(-length // MOST_BLOCKS))
    return Cut(trips, group, min(length, -(-rows // 16) * 16))


def _grouped(lead: tuple[int, ...], least: int) -> tuple[int, tuple[int, ...]]:
    """Into how many equal parts, of what shape, to cut axes ``lead``: at least ``least`` each."""
    trips = 1
    for axis, extent in enumerate(lead):
        rest = lead[axis + 1 :]
        most = extent * prod(rest) // least
        parts = max((n for n in range(1, min(most, extent) + 1) if extent % n == 0), default=1)
        trips *= parts
        if parts < extent:
            return trips, (extent // parts, *rest)
    return trips, ()


@dataclass(frozen=True)
class Blocks:
    """How attention is cut, and what applies to all blocks."""

    cut: Cut
    scale: float
    causal: bool
    dropout_p: Any
    draws: list[Draw]

    def ranges(self, length: int, source: int) -> list[tuple[int, int, int]]:
        """First row, last row and number of keys of every block."""
        starts = range(0, length, self.cut.rows)
        ends = [min(length, start + self.cut.rows) for start in starts]
        return [(a, b, min(b, source) if self.causal else source) for a, b in zip(starts, ends)]

    def by_groups(
        self,
        attend: Callable[..., Sequence[Tensor]],
        tensors: Sequence[Tensor],
        mask: Tensor | None,
    ) -> Sequence[Tensor]:
        """``attend(*tensors, mask)`` for one group after the other along their first axis."""
        from graphflow.functions.control import map as map_rows

        if self.cut.trips == 1:
            return attend(*tensors, mask)
        if mask is None or mask.ndim == 2:
            found = map_rows(lambda group: tuple(attend(*group, mask)), tuple(tensors))
        else:
            found = map_rows(lambda group: tuple(attend(*group)), (*tensors, mask))
        return found  # type: ignore[no-any-return]

    def attended(self, tensors: Sequence[Tensor], mask: Tensor | None) -> Sequence[Tensor]:
        """See :class:`Way`.  With several trips, tensors begin with an axis of so many groups,
        but for a mask of rows and columns only."""
        return self.by_groups(self.forward, tensors, mask)

    def gradients(self, tensors: Sequence[Tensor], mask: Tensor | None) -> Sequence[Tensor]:
        """See :class:`Way`."""
        return self.by_groups(self.backward, tensors, mask)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The result, and the logarithms of the rows' sums of exponentials [..., L, 1]."""
        length, source, done, logs = query.shape[-2], key.shape[-2], [], []
        for first, last, seen in self.ranges(length, source):
            rows, k = narrow(query, -2, first, last - first), narrow(key, -2, 0, seen)
            scores = mul(matmul(rows, transpose(k, -2, -1)), self.scale)
            if self.causal:
                scores = add(scores, causal_mask(scores.shape, first, max(length, source)))
            scores = _masked(scores, _part(mask, first, last))
            top = reduce("reduce_max", scores.detach(), -1, True)
            if mask is not None:  # a row may have nothing to look at
                top = where(eq(top, -math.inf), 0.0, top)
            used = exp(sub(scores, top))
            total = reduce("reduce_sum", used, -1, True)
            if mask is not None:
                total = where(eq(total, 0.0), 1.0, total)
            if self.dropout_p is not None:
                self.draws.append(default_generator.draw())
                used = dropped(used, self.dropout_p, self.draws[-1])
            done.append(div(matmul(used, narrow(value, -2, 0, seen)), total))
            logs.append(add(top, log(total)))
        return cat(done, -2), cat(logs, -2)

    def backward(
        self, query: Tensor, key: Tensor, value: Tensor, ct: Tensor, logs: Tensor, mean: Tensor,
        mask: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """The gradients, block by block from the last one, each after the one before it.

        ``mean`` [..., L, 1]: weights times their gradients, added up over a row.  Scores lie
        here with a row a key: two of three products with them then read them as they lie.
        """
        length, source = query.shape[-2], key.shape[-2]
        keys, values, queries, token = Total(source), Total(source), [], _token(ct)
        for number, (first, last, seen) in _backwards(self.ranges(length, source)):
            count = last - first
            rows = apply("after", narrow(query, -2, first, count), token)
            upper = apply("after", narrow(ct, -2, first, count), token)
            k, v = narrow(key, -2, 0, seen), narrow(value, -2, 0, seen)
            scores = mul(matmul(k, transpose(rows, -2, -1)), self.scale)
            if self.causal:
                most = max(length, source)
                scores = add(scores, causal_mask(scores.shape, first, most, token, turned=True))
            part = _part(mask, first, last)
            scores = _masked(scores, None if part is None else transpose(part, -2, -1))
            weights = exp(sub(scores, transpose(narrow(logs, -2, first, count), -2, -1)))
            used, flow = weights, matmul(v, transpose(upper, -2, -1))
            if self.dropout_p is not None:
                draw = self.draws[number].again(token)
                used, flow = self._dropped(used, draw), self._dropped(flow, draw)
            # As in softmax: d out[i] / d score[j] = out[i] * (δ[i,j] - out[j]).
            flow = sub(flow, transpose(narrow(mean, -2, first, count), -2, -1))
            inner = mul(mul(weights, flow), self.scale)
            queries.append(matmul(transpose(inner, -2, -1), k))
            values.add(matmul(used, upper))
            keys.add(matmul(inner, rows))
            token = _token(queries[-1], keys.open, values.open)
        return cat(queries[::-1], -2), keys.whole(), values.whole()

    def _dropped(self, x: Tensor, draw: Draw) -> Tensor:
        """Dropout of what lies with a row a key, by the bits of the rows of the query."""
        return transpose(dropped(transpose(x, -2, -1), self.dropout_p, draw), -2, -1)


def _part(mask: Tensor | None, first: int, last: int) -> Tensor | None:
    """Rows of a mask, if it has several."""
    if mask is None or mask.shape[-2] == 1:
        return mask
    return narrow(mask, -2, first, last - first)


def _masked(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Scores where a mask allows them (a boolean one), or with its numbers."""
    if mask is None:
        return scores
    if mask.dtype is T.bool_:
        return where(mask, scores, -math.inf)
    return add(scores, cast(mask, scores.dtype))


def attended_in_blocks(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, blocks: Blocks
) -> Tensor:
    """The result, in single or double precision.

    The mask has no gradient: one that wants a gradient is attended at once.
    """
    if mask is not None and prod(mask.shape[:-2]) == 1:
        mask = reshape(mask, (1,) * (2 - mask.ndim) + tuple(mask.shape)[-2:])
    if blocks.cut.trips == 1:
        return Recomputed.apply(query, key, value, mask, blocks)[0]  # type: ignore[no-any-return]
    shared = mask is None or mask.ndim == 2
    given = [query, key, value] if mask is None or shared else [query, key, value, mask]
    lead = broadcast_shapes(*(x.shape[:-2] for x in given))
    into = (blocks.cut.trips, *blocks.cut.lead)
    rows = [reshape(expand(x, (*lead, *x.shape[-2:])), (*into, *x.shape[-2:])) for x in given]
    out, _ = Recomputed.apply(*rows, *([mask] if shared else []), blocks)
    return reshape(out, (*lead, *out.shape[-2:]))


class Way(Protocol):
    """How the work on large scores is cut up."""

    def attended(self, tensors: Sequence[Tensor], mask: Tensor | None) -> Sequence[Tensor]:
        """The result for query, key and value, and the rows' logarithms."""

    def gradients(self, tensors: Sequence[Tensor], mask: Tensor | None) -> Sequence[Tensor]:
        """The gradients of query, key and value.

        ``tensors``: these, the gradient of the result, the rows' logarithms, and the mean of
        weights times their gradients, added up over a row.
        """


class Recomputed(Function):
    """``Recomputed.apply(query, key, value, mask, way)``: the result, the rows' logarithms.

    The gradient computes the weights anew from the logarithms, cut up in the same ``way``.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, way: Way
    ) -> tuple[Tensor, ...]:
        """Part by part."""
        # A trace keeps what it records, for gradients that are taken of the graph.
        with GradMode(mode.tracer is not None):
            out, logs = way.attended((query, key, value), mask)
        ctx.way, ctx.mask = way, mask
        ctx.save_for_backward(query, key, value, out, logs)
        return out, logs

    @staticmethod
    def backward(ctx: Any, ct: Tensor, ct_logs: Tensor) -> tuple[Tensor | None, ...]:
        """What the weights, computed anew, pass on.

        The derivative of a row's logarithm by its scores is its weights: its gradient joins
        the mean, which is what weights are multiplied with.
        """
        query, key, value, out, logs = ctx.saved_tensors
        way: Way = ctx.way
        mean = sub(reduce("reduce_sum", mul(ct, out), -1, True), ct_logs)
        return *way.gradients((query, key, value, ct, logs, mean), ctx.mask), None, None


class Total:
    """Sums of contributions to the first rows, then to ever fewer of them.

    Rows that get no more are done: a sum is as long as the contribution added to it.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.open: Any = None
        self.done: list[Tensor] = []

    def add(self, part: Tensor) -> None:
        """Add ``part`` [..., rows, width] to the rows it has."""
        rows = part.shape[-2]
        if self.open is None:
            self.open = part
            return
        before = self.open.shape[-2]
        if rows < before:
            # A copy, for a view would keep all of the sum that it is a part of.
            self.done.append(apply("copy", narrow(self.open, -2, rows, before - rows)))
        self.open = add(part, narrow(self.open, -2, 0, rows))

    def whole(self) -> Tensor:
        """All rows; zeros where nothing was added."""
        found = cat([self.open, *self.done[::-1]], -2) if self.done else self.open
        missing = self.rows - found.shape[-2]
        return pad(found, (0, 0, 0, missing)) if missing else found


def _backwards(ranges: list[tuple[int, int, int]]) -> Iterator[tuple[int, tuple[int, int, int]]]:
    return reversed(list(enumerate(ranges)))


def _token(*computed: Tensor) -> Tensor:
    """A number that is there once all of ``computed`` are."""
    token = None
    for x in computed:
        for axis in range(x.ndim):
            x = narrow(x, axis, 0, 1)
        first = reshape(x.detach(), ())
        token = first if token is None else add(token, first)
    assert token is not None
    return token
