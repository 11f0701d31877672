"""Attention over long sequences, block by block of the query's rows.

The scores of all positions against all others grow with the square of the length; held
for the backward pass they are most of a model's memory.  Here a block of rows is attended
from scores to result before the next one begins, nothing of it is kept but the result,
and the backward pass computes the block anew (Rabe and Staats 2021, "Self-attention does
not need O(n²) memory").  With a causal mask a block meets the keys it may see, no others,
which saves half of the work.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

from graphflow.autograd.function import Function
from graphflow.autograd.modes import GradMode
from graphflow.dispatch import apply
from graphflow.functions.elementwise import add, mul, sub
from graphflow.functions.products import matmul
from graphflow.functions.reductions import reduce
from graphflow.functions.shaping import cat, narrow, reshape, transpose
from graphflow.ir.types import broadcast_shapes
from graphflow.mode import mode
from graphflow.nn.functional.attention_weights import attention_weights, causal_mask
from graphflow.nn.functional.dropout import dropped
from graphflow.nn.functional.padding import pad
from graphflow.records import dataclass
from graphflow.rng import Draw, default_generator
from graphflow.tensor import Tensor

LEAST_BYTES = 16 << 20
"""Scores of fewer bytes stay about in the last-level cache: they are attended at once."""
BLOCK_BYTES = 8 << 20
"""About the scores of a block: with their gradients they are still in the cache."""
LEAST_ROWS, MOST_BLOCKS = 128, 32
"""Products of fewer rows are slow; more blocks make a program long."""


def rows_of_a_block(lead: Sequence[Any], length: int, source: int, itemsize: int) -> int:
    """Rows of the query a block has, for scores [*lead, length, source]; all of them where
    the scores are small, or extents are not known yet."""
    if any(type(extent) is not int for extent in (*lead, length, source)):
        return length
    row: int = prod(lead) * source * itemsize
    if row * length <= LEAST_BYTES:
        return length
    rows = max(LEAST_ROWS, BLOCK_BYTES // row, -(-length // MOST_BLOCKS))
    return min(length, -(-rows // 16) * 16)


@dataclass(frozen=True)
class Blocks:
    """How attention is cut: ``rows`` of the query at a time, and what applies to all blocks."""

    rows: int
    scale: float
    mask: Tensor | None
    causal: bool
    dropout_p: Any
    draws: list[Draw]

    def ranges(self, length: int, source: int) -> list[tuple[int, int, int]]:
        """First row, last row and number of keys of every block."""
        starts = range(0, length, self.rows)
        ends = [min(length, start + self.rows) for start in starts]
        return [(a, b, min(b, source) if self.causal else source) for a, b in zip(starts, ends)]

    def weights(
        self, query: Tensor, key: Tensor, first: int, most: int, token: Tensor | None = None
    ) -> Tensor:
        """The weights of the rows ``query``, whose first is at position ``first`` of ``most``."""
        mask, count = self.mask, query.shape[-2]
        if self.causal:
            lead = broadcast_shapes(query.shape[:-2], key.shape[:-2])
            mask = causal_mask((*lead, count, key.shape[-2]), first, most, token)
        elif mask is not None and mask.ndim > 1 and mask.shape[-2] != 1:
            mask = narrow(mask, -2, first, count)
        return attention_weights(query, key, mask, self.scale, whole=self.causal)


class Blockwise(Function):
    """``Blockwise.apply(query, key, value, blocks)``: the result and its gradients.

    The mask has none: a mask that wants a gradient is attended at once.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, blocks: Blocks) -> Tensor:
        """The blocks' results, one under the other."""
        ctx.save_for_backward(query, key, value)
        ctx.blocks, done = blocks, []
        # A trace keeps what it records, for gradients that are taken of the graph.
        with GradMode(mode.tracer is not None):
            most = max(query.shape[-2], key.shape[-2])
            for first, last, seen in blocks.ranges(query.shape[-2], key.shape[-2]):
                rows = narrow(query, -2, first, last - first)
                found = blocks.weights(rows, narrow(key, -2, 0, seen), first, most)
                if blocks.dropout_p is not None:
                    blocks.draws.append(default_generator.draw())
                    found = dropped(found, blocks.dropout_p, blocks.draws[-1])
                done.append(matmul(found, narrow(value, -2, 0, seen)))
            return cat(done, -2)

    @staticmethod
    def backward(ctx: Any, ct: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Block by block from the last one, each after the one before it."""
        blocks, (query, key, value) = ctx.blocks, ctx.saved_tensors
        source = key.shape[-2]
        keys, values, queries = Total(source), Total(source), []
        token = _token(ct)
        for number, (first, last, seen) in _backwards(blocks.ranges(query.shape[-2], source)):
            rows = apply("after", narrow(query, -2, first, last - first), token)
            upper = apply("after", narrow(ct, -2, first, last - first), token)
            k, v = narrow(key, -2, 0, seen), narrow(value, -2, 0, seen)
            weights = blocks.weights(rows, k, first, max(query.shape[-2], source), token)
            used, flow = weights, matmul(upper, transpose(v, -2, -1))
            if blocks.dropout_p is not None:
                draw = blocks.draws[number].again(token)
                used = dropped(weights, blocks.dropout_p, draw)
                flow = dropped(flow, blocks.dropout_p, draw)
            # As in softmax: d out[i] / d score[j] = out[i] * (δ[i,j] - out[j]).
            mean = reduce("reduce_sum", mul(weights, flow), -1, True)
            scores = mul(mul(weights, sub(flow, mean)), blocks.scale)
            queries.append(matmul(scores, k))
            values.add(matmul(transpose(used, -2, -1), upper))
            keys.add(matmul(transpose(scores, -2, -1), rows))
            token = _token(queries[-1], keys.open, values.open)
        return cat(queries[::-1], -2), keys.whole(), values.whole(), None


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
