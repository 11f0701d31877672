"""Quick calls whose results have a history: call after call what eager code gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import graphflow as gf
from graphflow.compiled import Compiled

CALLS = 4


class Pair(NamedTuple):
    first: Any
    second: Any


def draw(seed: int, *shape: int) -> gf.Tensor:
    return gf.tensor(np.random.default_rng(seed).standard_normal(shape))


W, V = draw(1, 4, 3).requires_grad_(), draw(2, 3).requires_grad_()
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "one result": lambda x: (x @ W).tanh(),
    "several": lambda x: ((x @ W).exp(), x.sum(), (x @ W + V).sin()),
    "a nest with a number": lambda x: {"a": Pair((x @ W) * V, 3), "b": [x @ W]},
    "saved values that are results": lambda x: ((y := (x @ W).exp()), y.sigmoid()),
    "a view": lambda x: (x @ W).exp().T,
    "integers": lambda x: ((x @ W).argmax(1), (x @ W).square()),
    "the argument's gradient": lambda x: (x * x).sum() * V,
    "no use of the argument": lambda x: (W * W).sum() + x.shape[0],
}


def gradients(result: Any, wanted: list[gf.Tensor], scale: float) -> list[np.ndarray]:
    leaves = [t for t in gf.pytree.flatten(result)[0] if isinstance(t, gf.Tensor)]
    live = [t for t in leaves if t.requires_grad]
    found = gf.autograd.grad(
        live, wanted, [gf.full(t.shape, scale, dtype=t.dtype) for t in live], allow_unused=True
    )
    values = [t.detach().numpy() for t in leaves]
    return values + [np.zeros(()) if g is None else g.numpy() for g in found]


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_call_after_call(name: str, requires_grad: bool) -> None:
    function = FUNCTIONS[name]
    compiled: Any = gf.compile(function)
    for k in range(CALLS):
        x = draw(k, 5, 4).requires_grad_(requires_grad)
        wanted = [W, V, x] if requires_grad else [W, V]
        found = gradients(compiled(x), wanted, 1.0 + k)
        expected = gradients(function(x), wanted, 1.0 + k)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, 1e-12, 1e-12, err_msg=f"call {k}")
    assert compiled.latest.quick is not None
    assert len(compiled.programs) == 1


@pytest.fixture
def quick() -> Compiled:
    """A function that has been called, so that the next call is quick."""
    compiled: Any = gf.compile(lambda x: (x @ W).exp())
    compiled(draw(0, 5, 4))
    assert compiled.latest.quick is not None
    return compiled


def test_arguments_that_are_results(quick: Compiled) -> None:
    s = draw(3, 4).requires_grad_()
    for k in range(CALLS):
        x = draw(k, 5, 4)
        (found,) = gf.autograd.grad(quick(x * s).sum(), s)
        (expected,) = gf.autograd.grad(((x * s) @ W).exp().sum(), s)
        np.testing.assert_allclose(found.numpy(), expected.numpy(), 1e-12)


def test_what_the_function_reaches_may_be_replaced_by_a_result() -> None:
    held = {"scale": draw(4, 3).requires_grad_()}
    compiled = gf.compile(lambda x: x * held["scale"])
    leaf = held["scale"]
    for k in range(CALLS):
        held["scale"] = leaf * float(k + 1)
        (found,) = gf.autograd.grad(compiled(draw(k, 2, 3)).sum(), leaf)
        np.testing.assert_allclose(found.numpy(), (k + 1) * draw(k, 2, 3).sum(0).numpy(), 1e-12)


def test_changes_after_the_call_are_noticed(quick: Compiled) -> None:
    x = draw(1, 5, 4)
    result = quick(x)
    x.add_(1.0)
    with pytest.raises(gf.GraphFlowError, match="modified by an in-place operation"):
        result.sum().backward()
    result = quick(x)
    total = result.sum()
    with gf.no_grad():
        result.mul_(2.0)
    with pytest.raises(gf.GraphFlowError, match="modified by an in-place operation"):
        total.backward()


def test_a_result_changed_with_its_history_keeps_what_was_saved(quick: Compiled) -> None:
    x = draw(2, 5, 4)
    result = quick(x)
    result.mul_(3.0)
    (found,) = gf.autograd.grad(result.sum(), W)
    (expected,) = gf.autograd.grad((3.0 * (x @ W).exp()).sum(), W)
    np.testing.assert_allclose(found.numpy(), expected.numpy(), 1e-12)


def test_several_backward_passes(quick: Compiled) -> None:
    total = quick(draw(3, 5, 4)).sum()
    (first,) = gf.autograd.grad(total, W, retain_graph=True)
    (again,) = gf.autograd.grad(total, W)
    np.testing.assert_array_equal(first.numpy(), again.numpy())
    with pytest.raises(gf.GraphFlowError, match="a second time"):
        gf.autograd.grad(total, W)


def test_second_derivatives(quick: Compiled) -> None:
    x = draw(4, 5, 4)

    def second(function: Callable[..., Any]) -> np.ndarray:
        (slope,) = gf.autograd.grad(function(x).sum(), W, create_graph=True)
        return gf.autograd.grad((slope * slope).sum(), W)[0].numpy()

    with pytest.warns(UserWarning, match="runs again operation by operation"):
        found = second(quick)
    np.testing.assert_allclose(found, second(lambda x: (x @ W).exp()), 1e-12)


def test_second_derivatives_of_what_has_changed_are_refused(quick: Compiled) -> None:
    x = draw(5, 5, 4)
    total = quick(x).sum()
    with gf.no_grad():
        W.add_(0.0)
    with pytest.raises(gf.GraphFlowError, match="modified by an in-place operation"):
        gf.autograd.grad(total, W, create_graph=True)


def test_strided_cotangents(quick: Compiled) -> None:
    x, ct = draw(6, 5, 4), draw(7, 3, 5).T
    (found,) = gf.autograd.grad(quick(x), W, ct)
    (expected,) = gf.autograd.grad((x @ W).exp(), W, ct.contiguous())
    np.testing.assert_allclose(found.numpy(), expected.numpy(), 1e-12)


def test_no_history_without_gradients(quick: Compiled) -> None:
    with gf.no_grad():
        assert not quick(draw(1, 5, 4)).requires_grad
    assert quick(draw(1, 5, 4)).requires_grad


def test_gradients_are_nobody_elses(quick: Compiled) -> None:
    x = draw(8, 5, 4)
    quick(x).sum().backward()
    kept, first = W.grad, W.grad.clone()
    W.grad = None
    quick(2.0 * x).sum().backward()
    np.testing.assert_array_equal(kept.numpy(), first.numpy())
    W.grad = None
