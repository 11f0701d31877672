"""``gf.func``: transforms against derivatives known in closed form, eagerly and compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn
from graphflow.func import (
    functional_call,
    grad,
    grad_and_value,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    linearize,
    stack_module_state,
    vjp,
    vmap,
)

MODES = (lambda f: f, gf.compile)


def draw(seed: int, *shape: int) -> gf.Tensor:
    return gf.tensor(np.random.default_rng(seed).standard_normal(shape))


def close(found: gf.Tensor, expected: Any) -> None:
    wanted = expected.detach().numpy() if isinstance(expected, gf.Tensor) else expected
    np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("jit", MODES)
def test_gradients_by_one_several_and_nests(jit: Callable[..., Any]) -> None:
    def f(a: Any, k: Any) -> Any:
        return (a.sin() * k).sum()

    x, y = draw(0, 3, 4), draw(1, 3, 4)
    close(jit(grad(f))(x, y), x.cos() * y)
    close(jit(grad(f, argnums=(1, 0)))(x, y)[1], x.cos() * y)
    found, value = jit(grad_and_value(f))(x, y)
    close(found, x.cos() * y)
    close(value, f(x, y))
    of_dict = jit(grad(lambda p: (p["a"] ** 2 * p["b"]).sum()))({"a": x, "b": y})
    close(of_dict["a"], 2 * x * y)
    close(of_dict["b"], x**2)
    found, aux = jit(grad(lambda a: (a.sum(), a * 2), has_aux=True))(x)
    close(found, np.ones((3, 4)))
    close(aux, x * 2)


@pytest.mark.parametrize("jit", MODES)
def test_transforms_nest(jit: Callable[..., Any]) -> None:
    x, s = draw(2, 4), draw(3)
    close(jit(grad(grad(lambda a: a**4)))(s), 12 * s**2)
    inner = grad(lambda a: grad(lambda q: (q * a) ** 2)(a * 2))  # 2 * (2a) * a² = 4a³
    close(jit(inner)(s), 12 * s**2)
    close(jit(hessian(lambda a: (a**3).sum()))(x), np.diag(6 * x.numpy()))
    mixed = jit(hessian(lambda a, q: (a * q * q).sum(), argnums=(0, 1)))(x, x + 1)
    close(mixed[0][1], np.diag(2 * (x.numpy() + 1)))
    close(mixed[1][1], np.diag(2 * x.numpy()))


@pytest.mark.parametrize("jit", MODES)
def test_jacobians_and_products(jit: Callable[..., Any]) -> None:
    matrix, x, u = draw(4, 3, 4), draw(5, 4), draw(6, 3)

    def f(a: Any) -> Any:
        return {"y": matrix @ a, "z": a.sum()}

    for jacobian in (jacrev, jacfwd):
        found = jit(jacobian(f))(x)
        close(found["y"], matrix)
        close(found["z"], np.ones(4))
    out, pulled = jit(lambda a, ct: (vjp(f, a)[0], vjp(f, a)[1](ct)))(x, {"y": u, "z": gf.ones(())})
    close(out["y"], matrix @ x)
    close(pulled[0], matrix.T @ u + 1)
    out, along = jit(lambda a, t: jvp(f, (a,), (t,)))(x, x * 2)
    close(along["y"], matrix @ x * 2)
    close(along["z"], 2 * x.sum())


def test_history_is_kept_where_something_outside_wants_a_gradient() -> None:
    x, w = draw(7, 3), draw(8, 3).requires_grad_()
    plain = grad(lambda a: (a**2).sum())(x)
    assert not plain.requires_grad and not x.requires_grad
    through = grad(lambda a: ((a * w) ** 2).sum())(x)
    through.sum().backward()
    close(w.grad, 4 * x * w)
    z = x.clone().requires_grad_()
    grad(lambda a: (a**3).sum())(z).sum().backward()
    close(z.grad, 6 * x)
    with gf.no_grad():
        assert not grad(lambda a: ((a * w) ** 2).sum())(x).requires_grad


@pytest.mark.parametrize("jit", MODES)
def test_vmap_over_any_dimension(jit: Callable[..., Any]) -> None:
    x, y = draw(9, 3, 4), draw(10, 4)
    close(jit(vmap(gf.dot, in_dims=(0, None)))(x, y), x @ y)
    sums, doubled = jit(vmap(lambda a, b: (a.sum() + b, a * 2), (1, -1), (0, 1)))(x, y)
    close(sums, x.sum(0) + y)
    close(doubled, x * 2)
    named = jit(vmap(lambda p, k: p["a"] * k, in_dims=({"a": 0}, None)))({"a": x}, 3)
    close(named, x * 3)


@pytest.mark.parametrize("jit", MODES)
def test_gradients_of_every_sample(jit: Callable[..., Any]) -> None:
    gf.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    x, labels = draw(11, 6, 4), gf.arange(6) % 3

    def loss(weights: Any, sample: Any, label: Any) -> Any:
        return F.cross_entropy(functional_call(model, weights, (sample[None],)), label[None])

    each = jit(vmap(grad(loss), in_dims=(None, 0, 0)))
    for scale in (1.0, 0.5):
        weights = {name: p.detach() * scale for name, p in model.named_parameters()}
        found = each(weights, x, labels)
        for i in range(6):
            twin = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
            twin.load_state_dict(weights)
            F.cross_entropy(twin(x[i : i + 1]), labels[i : i + 1]).backward()
            for name, p in twin.named_parameters():
                close(found[name][i], p.grad)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("jit", MODES)
def test_modules_called_with_other_state(jit: Callable[..., Any]) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
            self.b.weight = self.a.weight

        def forward(self, x: Any, factor: float = 1.0) -> Any:
            return self.b(self.a(x)) * factor

    module, x = Tied().double(), draw(12, 2, 3)
    before = module.a.weight.detach().clone()
    called = jit(lambda w, x: functional_call(module, {"a.weight": w}, x, {"factor": 3.0}))
    for k in (2.0, 5.0):
        close(called(gf.eye(3).double() * k, x), x * k * k * 3)
    close(module.a.weight, before)
    assert module.a.weight is module.b.weight and isinstance(module.a.weight, nn.Parameter)
    with pytest.raises(gf.GraphFlowError, match=r"b\.weight"):
        functional_call(module, {"a.weight": before}, x, strict=True)


@pytest.mark.parametrize("jit", [lambda f: f, gf.compile])
def test_a_linearised_function_runs_once_for_many_directions(jit: Any) -> None:
    runs = []

    def function(a: Any, b: Any) -> Any:
        runs.append(1)
        return {"product": a["x"] * b, "sine": a["x"].sin()}

    def program(x: Any, y: Any, d: Any, e: Any) -> Any:
        out, push = linearize(function, {"x": x}, y)
        return out["product"], push({"x": d}, e), push({"x": e}, d)

    x, y, d, e = (draw(seed, 4) for seed in range(20, 24))
    product, *found = jit(program)(x, y, d, e)
    assert len(runs) == 1
    close(product, x * y)
    for got, (u, v) in zip(found, ((d, e), (e, d)), strict=True):
        close(got["product"], u * y + x * v)
        close(got["sine"], x.cos() * u)
        assert not got["sine"].requires_grad


def test_directions_of_a_linearised_function_may_want_gradients() -> None:
    x, d = draw(24, 4).requires_grad_(), draw(25, 4).requires_grad_()
    out, push = linearize(lambda a: a**3, x)
    push(d).sum().backward()
    close(d.grad, 3 * x.detach() ** 2)
    close(x.grad, 6 * x.detach() * d.detach())
    close(out, x.detach() ** 3)


def test_buffers_given_are_those_updated() -> None:
    module, x = nn.BatchNorm1d(3).double(), draw(13, 5, 3)
    state = {name: t.detach().clone() for name, t in module.state_dict().items()}
    functional_call(module, state, x)
    close(state["running_mean"], 0.1 * x.mean(0))
    assert state["num_batches_tracked"].item() == 1
    assert module.running_mean.tolist() == [0.0] * 3 and module.num_batches_tracked.item() == 0


def test_an_ensemble() -> None:
    models, x = [nn.Linear(3, 2).double() for _ in range(4)], draw(14, 5, 3)
    weights, buffers = stack_module_state(models)
    assert weights["weight"].shape == (4, 2, 3) and weights["weight"].requires_grad
    assert weights["weight"].is_leaf and buffers == {}
    found = vmap(lambda w, b: functional_call(models[0], (w, b), x))(weights, buffers)
    for one, model in zip(found, models, strict=True):
        close(one, model(x))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [(lambda x: grad(lambda a: a)(x), gf.GraphFlowError, "without dimensions"),
     (lambda x: grad(lambda a: 3.0)(x), gf.GraphFlowError, "must return tensors, not float"),
     (lambda x: grad(lambda a: a.sum(), argnums=1)(x), IndexError, "no argument 1"),
     (lambda x: grad(lambda a: a)(2.0), TypeError, "must be tensors"),
     (lambda x: grad(lambda a: a.sum(), has_aux=True)(x), gf.GraphFlowError, "has_aux"),
     (lambda x: vmap(gf.dot)(x, x[:2]), ValueError, r"one size, not 0; here they have \[3, 2\]"),
     (lambda x: vmap(gf.sum, in_dims=(0, 0))(x), ValueError, "no nest like"),
     (lambda x: vmap(lambda a, k: a, 0)(x, 2), ValueError, "in_dims must be None for 2"),
     (lambda x: vmap(gf.sum, randomness="some")(x), ValueError, "not 'some'"),
     (lambda x: vmap(gf.sum, chunk_size=0)(x), ValueError, "at least 1, not 0"),
     (lambda x: vmap(gf.sum, out_dims=None)(x), ValueError, "out_dims is None for a result that"),
     (lambda x: vmap(lambda a: 2)(x), gf.GraphFlowError, "must return tensors, not int"),
     (lambda x: vmap(lambda a: a.item())(x), gf.TraceError, "needs the value"),
     (lambda x: vmap(lambda a: x.add_(a))(x), gf.TraceError, "from outside"),
     (lambda x: jvp(gf.sin, (x,), x), gf.GraphFlowError, "tuples"),
     (lambda x: linearize(gf.sin, x)[1](x, x), gf.GraphFlowError, "nest like"),
     (lambda x: vjp(gf.sin, x)[1]((x, x)), gf.GraphFlowError, "nest like"),
     (lambda x: stack_module_state([]), gf.GraphFlowError, "at least one")],
)  # fmt: skip
def test_what_does_not_fit(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call(gf.ones(3))


def test_functional_products_leave_their_inputs_alone() -> None:
    x = draw(15, 3)
    gf.autograd.functional.hvp(lambda a: (a**3).sum(), x, x, create_graph=True)
    assert not x.requires_grad


def test_what_functional_call_replaces_is_no_reason_to_trace_again() -> None:
    layer, other, source = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(3, 4)
    optimizer = gf.optim.SGD(source.parameters(), lr=0.1)

    @gf.compile
    def step(z: Any, x: Any) -> Any:
        optimizer.zero_grad()
        theirs = functional_call(layer, dict(other.named_parameters()), (x,))
        made = functional_call(layer, {"weight": source(z).reshape(2, 2)}, (x,))
        made.sum().backward()
        optimizer.step()
        return theirs, layer(x)

    z, x = gf.ones(3), gf.ones(5, 2)
    for _ in range(4):
        step(z, x)
    # The gradient of the bias, which nothing forgets, is found from the second call on.
    assert [r.what for r in step.recompiles] == ["the gradient of 'layer.bias'"]
    for part in (layer, other):
        part.weight = nn.Parameter(gf.full((2, 2), 3.0))
        found = step(z, x)
        for wanted, got in zip((other, layer), found, strict=True):
            np.testing.assert_allclose(got.detach().numpy(), wanted(x).detach().numpy(), rtol=1e-6)
    assert len(step.recompiles) == 3 and all(map(str, step.recompiles))


def test_a_member_that_the_function_replaces_for_a_while_is_no_reason_either() -> None:
    layer = nn.Linear(2, 1, bias=False)

    @gf.compile
    def doubled(x: Any) -> Any:
        held = layer._parameters["weight"]
        layer._parameters["weight"] = held * 2
        y = layer(x)
        layer._parameters["weight"] = held
        return y

    x = gf.ones(3, 2)
    for _ in range(3):
        np.testing.assert_allclose(
            doubled(x).detach().numpy(), 2 * layer(x).detach().numpy(), rtol=1e-6
        )
    assert not doubled.recompiles
