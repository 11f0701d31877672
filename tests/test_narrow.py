"""Rounding before elements are picked: the same integers, and bytes are what is stored."""

from __future__ import annotations

import numpy as np
import pytest

import graphflow as gf
from graphflow.ir.build import NODES as b
from graphflow.ir.build import constant, input_node
from graphflow.ir.graph import Graph
from graphflow.ir.interp import interpret
from graphflow.ir.node import Node
from graphflow.ir.types import TensorType, float32, int8
from graphflow.nn import functional as F
from graphflow.passes.narrow import Narrow

SEED = 12


def _x(name: str, *shape: int) -> Node:
    return input_node(name, TensorType(float32, shape))


def _number(value: float) -> Node:
    return constant(np.float32(value))


def _whole(x: Node, scale: float = 7.3, zero: float | None = -3.0, way: str = "mul") -> Node:
    """``x`` as int8."""
    whole = b.round(b.emit(way, x, _number(scale)))
    whole = whole if zero is None else b.add(whole, _number(zero))
    low = b.where(b.lt(whole, _number(-128)), _number(-128), whole)
    high = b.where(b.gt(low, _number(127)), _number(127), low)
    return b.cast(high, dtype=int8)


def _picked(x: Node, y: Node) -> dict[str, Node]:
    """Nodes of numbers that are elements of what is computed of ``x`` and ``y``."""
    p, q = b.exp(x), b.neg(y)
    padded = b.pad(b.maximum(p, q), low=(0, 1), high=(2, 0), value=float("-inf"))
    shown = b.window(padded, axes=(1,), sizes=(3,), steps=(2,), dilations=(1,))
    some = b.slice(q, starts=(0, 1), limits=(5, 6), steps=(1, 1))
    return {
        "maximum": b.maximum(p, q),
        "minimum": b.minimum(b.maximum(p, q), b.permute(p * 2.0, axes=(0, 1))),
        "side by side": b.concatenate(p, q, axis=1),
        "windows": b.reduce_max(shown, axes=(2,)),
        "least of some": b.reduce_min(some, axes=(0,)),
    }  # fmt: skip


@pytest.mark.parametrize("case", _picked(_x("x", 5, 6), _x("y", 5, 6)))
@pytest.mark.parametrize("form", [(7.3, -3.0, "mul"), (0.2, None, "div"), (1e38, 5.0, "mul")])
def test_integers_are_picked(case: str, form: tuple[float, float | None, str]) -> None:
    x, y = _x("x", 5, 6), _x("y", 5, 6)
    root = _whole(_picked(x, y)[case], *form)
    graph = Graph((x, y), (root,))
    after = Narrow().run(graph)
    assert all(n.dtype is int8 for n in after.nodes if n.op.picks)
    assert after.outputs[0].op.name != "cast"
    rng = np.random.default_rng(SEED)
    given = [4 * rng.standard_normal((5, 6)).astype(np.float32) for _ in range(2)]
    given[1][0, 0], given[0][1, 1] = np.inf, np.inf
    one, other = (interpret(g, given).outputs[0] for g in (graph, after))
    np.testing.assert_array_equal(one, other)


def test_what_is_left_alone() -> None:
    """Other readers, numbers that lie there already, scales that turn numbers round."""
    x, y = _x("x", 5, 6), _x("y", 5, 6)
    best = b.maximum(b.exp(x), b.neg(y))
    cases = (
        [_whole(best), best],
        [_whole(b.maximum(x, b.neg(y)))],
        [_whole(best, -2.0)],
        [_whole(b.permute(b.exp(x), axes=(1, 0)))],
        [b.cast(best, dtype=int8)],
    )
    for roots in cases:
        graph = Graph((x, y), tuple(roots))
        assert Narrow().run(graph) is graph


def test_a_pooling_between_products_reads_integers() -> None:
    """Compiled as it is eagerly, and what is stored of the product is of one byte."""
    rng = np.random.default_rng(SEED)
    w = gf.tensor(rng.standard_normal((8, 4)).astype(np.float32))

    def pooled(x: gf.Tensor) -> gf.Tensor:
        images = F.relu(x @ w).reshape(2, 6, 6, 4).permute(0, 3, 1, 2)
        return gf.quantize_per_tensor(F.max_pool2d(images, 3, 2, 1), 0.05, -128, gf.int8)

    x = gf.tensor(rng.standard_normal((72, 8)).astype(np.float32))
    program = gf.compile(gf.trace(pooled, gf.TensorSpec((72, 8))))
    assert (program(x).numpy() != pooled(x).numpy()).mean() < 0.02  # sums are rounded otherwise
    stored = {str(b.type) for b in program.schedule.buffers if b.kind.value == "arena"}
    assert "i8[72,4]" in stored and "i8[2,4,7,7]" in stored
