"""Products leave scans: forms that do, forms that must not, and equal results."""

from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow.ir.graph import Graph
from graphflow.ir.interp import interpret
from graphflow.ir.op import Kind
from graphflow.ir.verify import verify
from graphflow.passes import loop_products
from graphflow.passes.loop_products import LoopProducts


def in_loops(graph: Graph) -> int:
    """Products inside the bodies of scans."""
    total = 0
    for node in graph.nodes:
        for value in node.attrs.values():
            if isinstance(value, Graph):
                total += sum(n.op.kind is Kind.CONTRACTION for n in value.nodes) + in_loops(value)
    return total


def traced(f: Any, *shapes: tuple[int, ...]) -> Graph:
    return gf.trace(f, *(gf.TensorSpec(shape, gf.float64) for shape in shapes))


def check(graph: Graph, before: int, after: int) -> Graph:
    """The pass takes so many products out and keeps the results."""
    made = LoopProducts().run(graph)
    verify(made)
    assert (in_loops(graph), in_loops(made)) == (before, after)
    rng = np.random.default_rng(0)
    values = tuple(rng.standard_normal(n.tensor_type.static_shape) for n in graph.inputs)
    for a, b in zip(interpret(graph, values).outputs, interpret(made, values).outputs, strict=True):
        np.testing.assert_allclose(a, b, 1e-12, 1e-12)
    assert LoopProducts().run(made) is made
    return made


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("steps", [0, 1, 5])
def test_sums_of_products_are_one_product(steps: int, reverse: bool) -> None:
    def f(s: Any, xs: Any, ys: Any) -> Any:
        def body(carry: Any, row: Any) -> Any:
            s, h = carry
            x, y = row
            h = gf.tanh(h + y)
            return (s + x.t() @ h, h), h.sum()

        return gf.scan(body, (s, ys[0] if steps else gf.zeros_like(s)), (xs, ys), reverse=reverse)

    shapes = ((3, 3), (steps, 3, 3), (steps, 3, 3))
    check(traced(lambda *a: _flat(f(*a)), *shapes), 1, 0)


def sums_in_loops(graph: Graph) -> int:
    """Reductions inside the bodies of scans."""
    bodies = [v for n in graph.nodes for v in n.attrs.values() if isinstance(v, Graph)]
    return sum(n.op.kind is Kind.REDUCTION for body in bodies for n in body.nodes)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("steps", [0, 1, 5])
@pytest.mark.parametrize("axis", [0, 1, (0, 1)])
def test_sums_of_what_is_stacked_anyway_are_one_sum(steps: int, reverse: bool, axis: Any) -> None:
    def f(s: Any, t: Any, xs: Any) -> Any:
        def body(carry: Any, x: Any) -> Any:
            s, t, h = carry
            h = gf.tanh(h + x)
            return (s + h.sum(axis), x.sum(axis) + t, h), h

        start = gf.zeros_like(xs[0]) if steps else gf.zeros(3, 4, dtype=gf.float64)
        carries, rows = gf.scan(body, (s, t, start), xs, reverse=reverse)
        return *carries, rows

    shape = {0: (4,), 1: (3,), (0, 1): ()}[axis]
    graph = traced(f, shape, shape, (steps, 3, 4))
    made = check(graph, 0, 0)
    assert (sums_in_loops(graph), sums_in_loops(made)) == (2, 0)


@pytest.mark.parametrize("why", ["not stacked", "read", "not a sum"])
def test_sums_that_stay(why: str) -> None:
    def f(s: Any, xs: Any) -> Any:
        def body(carry: Any, x: Any) -> Any:
            s, h = carry
            h = gf.tanh(h + x + (s if why == "read" else 0))
            total = h.amax(0) if why == "not a sum" else h.sum(0)
            return (s + total, h), (h.exp() if why == "not stacked" else h)

        return gf.scan(body, (s, gf.zeros_like(xs[0])), xs)

    graph = traced(lambda *a: _flat(f(*a)), (4,), (5, 3, 4))
    made = check(graph, 0, 0)
    assert sums_in_loops(made) == sums_in_loops(graph) == 1


def _flat(result: Any) -> tuple[Any, ...]:
    (s, h), ys = result
    return s, h, ys


def test_products_of_rows_and_what_is_fixed_go_before_the_loop() -> None:
    def f(h: Any, xs: Any, w: Any, u: Any) -> Any:
        def body(h: Any, x: Any) -> Any:
            return gf.tanh((x @ w) @ w.t() + x @ u.t() + h @ u), x @ w

        return gf.scan(body, h, xs)

    made = check(traced(f, (2, 4), (6, 2, 4), (4, 3), (4, 4)), 4, 1)
    assert sum(n.op.kind is Kind.CONTRACTION for n in made.nodes) == 3


def test_gradients_of_a_recurrence_keep_one_product_a_step_and_direction() -> None:
    def step(w: Any, h: Any, xs: Any) -> Any:
        w = w.detach().requires_grad_()

        def body(h: Any, x: Any) -> Any:
            h = gf.tanh(x + h @ w)
            return h, h

        _, ys = gf.scan(body, h, xs)
        return gf.autograd.grad((ys * ys).sum(), w)[0]

    check(traced(step, (4, 4), (3, 4), (5, 3, 4)), 3, 2)


def test_a_sum_that_is_read_stays() -> None:
    def f(s: Any, xs: Any) -> Any:
        def body(s: Any, x: Any) -> Any:
            return s + x @ gf.tanh(s), s.sum()

        return gf.scan(body, s, xs)

    graph = traced(f, (3, 3), (4, 3, 3))
    assert LoopProducts().run(graph) is graph


def test_a_sum_whose_stacked_factors_would_be_large_stays(monkeypatch: Any) -> None:
    """As in attention over blocks of queries: scores of all blocks are what is avoided."""

    def f(s: Any, xs: Any) -> Any:
        def body(s: Any, x: Any) -> Any:
            return s + (gf.exp(x @ x.t())).t() @ x, ()

        return gf.scan(body, s, xs)[0]

    graph = traced(f, (32, 2), (40, 32, 2))
    monkeypatch.setattr(loop_products, "LARGE", 1 << 10)
    assert LoopProducts().run(graph) is graph
    monkeypatch.undo()
    check(graph, 2, 0)


def copies(graph: Graph) -> int:
    """Fixed operands of loops that are copied ahead of them."""
    return sum(n.op.name == "copy" and n.inputs[0].op.name == "permute" for n in graph.nodes)


@pytest.mark.parametrize(
    ("read", "steps", "width", "expected"),
    [
        (lambda h, w: h @ w, 5, 12, 1),
        (lambda h, w: h @ w, 3, 12, 0),  # soon over
        (lambda h, w: h @ w, 5, 4, 0),  # other kernels
        (lambda h, w: (w.t() @ h.t()).t(), 5, 12, 0),  # read across, as it lies
        (lambda h, w: h @ w + (w * h[0]).sum(), 5, 12, 0),  # read by others too
        (lambda h, w: gf.tanh(h @ w) @ w, 5, 12, 1),
    ],
)
def test_weights_that_steps_read_across_are_copied_once(
    read: Any, steps: int, width: int, expected: int
) -> None:
    def f(h: Any, xs: Any, w: Any) -> Any:
        turned = w.t()

        def body(h: Any, x: Any) -> Any:
            return gf.tanh(read(h, turned) + x), ()

        return gf.scan(body, h, xs)[0]

    graph = traced(f, (3, width), (steps, 3, width), (width, width))
    products = in_loops(graph)
    made = check(graph, products, products) if expected else LoopProducts().run(graph)
    assert copies(made) == expected
    if not expected:
        assert made is graph
