"""Passes over a row that run only in rows whose condition asks for what they fold."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from lowering import evaluate
from test_lower_cases import agree, leaf, numbers, spread

import graphflow.ir.ops  # noqa: F401  (registers the operations)
from graphflow.ir.build import NODES as b
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.ir.types import int64

Array = np.ndarray[Any, Any]


def row_sum(x: Node) -> Node:
    return b.reduce_sum(x, axes=(1,))


def far_from_mean(x: Node) -> Node:
    """The sum of squares around the mean, for which rows are read twice."""
    d = x - spread(row_sum(x) * (1.0 / int(x.shape[1])), x)
    return row_sum(d * d)


def text_of(body: Graph, *arrays: Array) -> str:
    return "\n".join(call.kernel.source for call in evaluate(body, list(arrays))[1])


ROWS = numbers(9, 70) + np.float32([[3], [0], [-3], [0], [0], [2], [-1], [0], [1]])


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("holds", [False, True])
@pytest.mark.parametrize("shape", [(9, 70), (3, 3, 70), (1, 630)])
def test_a_pass_runs_where_its_fold_is_chosen(
    shape: tuple[int, ...], holds: bool, compiled: bool
) -> None:
    x = leaf("x", *shape)
    axis = len(shape) - 1
    total = b.reduce_sum(x, axes=(axis,))
    wide = b.expand(b.reshape(total, shape=(*shape[:-1], 1)), shape=shape)
    second = b.reduce_sum(b.abs(x - wide), axes=(axis,))
    condition = b.gt(total, 0.0)
    out = b.where(condition, second, total) if holds else b.where(condition, total, second)
    agree([out], [x], [ROWS.reshape(shape)], compiled=compiled)
    text = text_of(Graph((x,), (out,)), ROWS.reshape(shape))
    (name,) = re.findall(r"(t\d+) = sum0 > f32\(0\.0\)", text)
    assert (f" if {name}:" if holds else f" if not {name}:") in text, text


def test_what_such_a_pass_would_store_waits_for_the_next() -> None:
    x = leaf("x", 9, 70)
    total = row_sum(x)
    shifted = x - spread(total, x)
    chosen = b.where(b.gt(total, 0.0), row_sum(b.abs(shifted)), total)
    outputs = [shifted, x * spread(chosen, x)]
    agree(outputs, [x], [ROWS])
    agree(outputs, [x], [ROWS], compiled=True, threads=2)
    assert "if t" in text_of(Graph((x,), tuple(outputs)), ROWS)


def test_what_later_passes_read_of_it_is_known_in_every_row() -> None:
    """An expensive value, first computed in the pass that is chosen, and stored for the next."""
    x = leaf("x", 9, 70)
    total = row_sum(x)
    costly = b.tanh(x - spread(total, x))
    chosen = b.where(b.gt(total, 0.0), row_sum(costly), total)
    outputs = [costly * spread(chosen, x), costly]
    agree(outputs, [x], [ROWS])
    agree(outputs, [x], [ROWS], compiled=True)


def refused() -> dict[str, tuple[list[Node], list[Node], list[Array]]]:
    x = leaf("x", 9, 70)
    total, second = row_sum(x), far_from_mean(x)
    late = b.gt(second, 60.0)  # not known before the pass
    element = b.gt(x, 0.0)  # not the same for the whole row
    other = b.where(b.gt(total, 0.0), second, total)
    return {
        "used elsewhere": ([other + second], [x], [ROWS]),
        "known too late": ([b.where(late, second, total)], [x], [ROWS]),
        "of elements": ([b.where(element, spread(second, x), x)], [x], [ROWS]),
        "two conditions": (
            [other * b.where(b.lt(total, 1.0), second, total)], [x], [ROWS]
        ),
    }  # fmt: skip


REFUSED = refused()


@pytest.mark.parametrize("name", REFUSED)
def test_a_pass_that_may_be_needed_runs_everywhere(name: str) -> None:
    outputs, inputs, arrays = REFUSED[name]
    agree(outputs, inputs, arrays)
    assert "if t" not in text_of(Graph(tuple(inputs), tuple(outputs)), *arrays)


@pytest.mark.parametrize("by_row", [False, True])
def test_an_index_is_checked_in_rows_that_do_not_choose(by_row: bool) -> None:
    """A wrong index is an error whether its element is chosen or not."""
    x, table = leaf("x", 9, 70), leaf("t", 5, 1 if by_row else 70)
    at = leaf("i", 9, 1, dtype=int64) if by_row else leaf("i", 9, 70, dtype=int64)
    total = row_sum(x)
    found = b.gather(table, at, axis=0)
    found = b.expand(found, shape=x.shape) if by_row else found
    second = row_sum(b.abs(found - spread(total, x)))
    out = b.where(b.gt(total, 1e9), second, total)  # chosen nowhere
    index = np.zeros(at.tensor_type.static_shape, np.int64)
    index[3, -1] = 5
    body = Graph((x, table, at), (out,))
    _, calls, memory = evaluate(body, [ROWS, numbers(*table.tensor_type.static_shape), index])
    assert memory.error[0] != 0
    assert any("if t" in call.kernel.source for call in calls) == by_row


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shape", [(3, 70_001), (1, 200_000), (1, 3)])
def test_rows_in_chunks(shape: tuple[int, int], threads: int) -> None:
    x = leaf("x", *shape)
    total = row_sum(x)
    out = b.where(b.gt(total, 0.0), far_from_mean(x), total)
    array = numbers(*shape)
    array[::2] += 1
    agree([out, x * spread(out, x)], [x], [array], 1e-4, compiled=True, threads=threads)


def test_columns_take_the_pass_side_by_side() -> None:
    x = leaf("x", 70, 40)
    total = b.reduce_sum(x, axes=(0,))
    second = b.reduce_sum(b.abs(x - b.expand(total, shape=x.shape)), axes=(0,))
    agree([b.where(b.gt(total, 0.0), second, total)], [x], [numbers(70, 40)], compiled=True)
