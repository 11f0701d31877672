"""What a loop keeps for its gradient: products and vector functions, unless they are large."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow.ir.graph import Graph
from graphflow.passes import saved_values

SEED = 4


def lstm_gradient(h: Any, c: Any, xs: Any, w: Any) -> Any:
    w = w.detach().requires_grad_()

    def cell(carry: Any, x: Any) -> Any:
        h, c = carry
        i, f, g, o = (x + h @ w).chunk(4, -1)
        c = gf.sigmoid(f) * c + gf.sigmoid(i) * gf.tanh(g)
        h = gf.sigmoid(o) * gf.tanh(c)
        return (h, c), h * 2

    (h, _), ys = gf.scan(cell, (h, c), xs)
    return gf.autograd.grad((ys * ys).sum() + h.sum(), w)[0]


def unrolled(h: Any, c: Any, xs: Any, w: Any) -> Any:
    w = w.detach().requires_grad_()
    total = gf.zeros((), dtype=w.dtype)
    for x in xs.unbind(0):
        i, f, g, o = (x + h @ w).chunk(4, -1)
        c = gf.sigmoid(f) * c + gf.sigmoid(i) * gf.tanh(g)
        h = gf.sigmoid(o) * gf.tanh(c)
        total = total + (4 * h * h).sum()
    return gf.autograd.grad(total + h.sum(), w)[0]


SHAPES = ((2, 3), (2, 3), (5, 2, 12), (3, 12))


def bodies(function: Any) -> list[Graph]:
    graph = gf.trace(function, *(gf.TensorSpec(s, gf.float64) for s in SHAPES))
    return [n.attrs["body"] for n in graph.nodes if n.op.name == "scan"]


def operands() -> list[Any]:
    rng = np.random.default_rng(SEED)
    return [gf.from_numpy(rng.standard_normal(s)) for s in SHAPES]


def names(body: Graph) -> list[str]:
    return [n.op.name for n in body.nodes]


def test_the_gradient_of_a_cell_reads_its_gates() -> None:
    forward, backward = bodies(lstm_gradient)
    assert names(forward).count("sigmoid") == 3 and names(forward).count("tanh") == 2
    assert not {"sigmoid", "tanh"} & set(names(backward))
    # h, c, h * 2; the carries before; three gates, two tangents
    assert len(forward.outputs) == 3 + 2 + 5
    found = gf.compile(lstm_gradient)(*operands())
    np.testing.assert_allclose(found.numpy(), unrolled(*operands()).numpy(), 1e-10, 1e-12)


def test_large_values_are_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved_values, "LARGE", 0)
    monkeypatch.setattr(saved_values, "MANY", 0)
    forward, backward = bodies(lstm_gradient)
    assert len(forward.outputs) == 3 + 2
    assert {"sigmoid", "tanh", "matmul"} <= set(names(backward))
    found = gf.compile(lstm_gradient)(*operands())
    np.testing.assert_allclose(found.numpy(), unrolled(*operands()).numpy(), 1e-10, 1e-12)


def test_what_is_cheap_from_what_is_kept_is_not_kept() -> None:
    def f(h: Any, _c: Any, xs: Any, w: Any) -> Any:
        w = w.detach().requires_grad_()

        def body(h: Any, x: Any) -> Any:
            y = gf.tanh(h @ w[:, :3] + x[:, :3])
            return y * y * 0.5, y.sum()  # the gradient of y * y reads y

        return gf.autograd.grad(gf.scan(body, h, xs)[0].sum(), w)[0]

    forward, backward = bodies(f)
    assert len(forward.outputs) == 2 + 1 + 1 and forward.outputs[-1].op.name == "tanh"
    assert "tanh" not in names(backward)
