"""Backward passes with an aim: what was not asked for is neither computed nor let go of; and
compiled functions over tensors and parameters that have a history of their own."""

import numpy as np
import pytest

import graphflow as gf
from graphflow import nn
from graphflow.autograd import Function, grad
from graphflow.func import functional_call
from tests.front import numbers

MODES = [pytest.param(lambda f: f, id="eager"), pytest.param(gf.compile, id="compiled")]
RNG = np.random.default_rng(5)
X = RNG.standard_normal((4, 3))
W = RNG.standard_normal((3, 3))


def leaf(values):
    return gf.tensor(values, requires_grad=True)


def agree(found, wanted):
    np.testing.assert_allclose(numbers(found)[0], wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_a_pass_to_a_hidden_value_leaves_what_it_was_made_by_alone(mode):
    w, v = leaf(W), leaf(W[0])

    def step(x):
        w.grad = None
        hidden = gf.tanh(x @ w)
        first, second = (hidden @ v).sum(), (hidden @ v).square().sum()
        (one,) = grad(first, hidden)
        (two,) = grad(second, [hidden])
        hidden.backward(one + two)
        return one, w.grad

    one, weights = mode(step)(gf.tensor(X))
    hidden = np.tanh(X @ W)
    cotangent = np.tile(W[0], (4, 1)) + 2 * (hidden @ W[0])[:, None] * W[0]
    agree(one, np.tile(W[0], (4, 1)))
    agree(weights, X.T @ (cotangent * (1 - hidden**2)))


@pytest.mark.parametrize("mode", MODES)
def test_backward_for_inputs_leaves_the_rest_alone(mode):
    w, v = leaf(W), leaf(W[0])

    def step(x):
        w.grad = v.grad = None
        hidden = gf.tanh(x @ w)
        loss = (hidden @ v).sum()
        loss.backward(inputs=[v])
        (hidden * 2).sum().backward()
        return v.grad, w.grad

    readout, weights = mode(step)(gf.tensor(X))
    hidden = np.tanh(X @ W)
    agree(readout, hidden.sum(0))
    agree(weights, 2 * X.T @ (1 - hidden**2))


def test_only_what_leads_to_an_input_is_differentiated():
    run = []

    class Noted(Function):
        @staticmethod
        def forward(ctx, x, name):
            ctx.name = name
            return x * 2

        @staticmethod
        def backward(ctx, g):
            run.append(ctx.name)
            return g * 2, None

    w, v = leaf(W[0]), leaf(W[1])
    total = (Noted.apply(w, "w") * Noted.apply(v, "v")).sum()
    (found,) = grad(total, v, retain_graph=True)
    assert run == ["v"]
    agree(found, 4 * W[0])
    total.backward()
    assert sorted(run) == ["v", "v", "w"]
    agree(w.grad, 4 * W[1])


def test_gradients_arrive_at_values_that_a_compiled_function_reaches():
    w = leaf(W)
    double = w * 2
    call = gf.compile(lambda x: (x @ double.T).square().sum())
    for _ in range(2):
        (found,) = grad(call(gf.tensor(X)), double)
        agree(found, 2 * (2 * X @ W.T).T @ X)
    double.retain_grad()
    call(gf.tensor(X)).backward()
    agree(double.grad, 2 * (2 * X @ W.T).T @ X)
    agree(w.grad, 4 * (2 * X @ W.T).T @ X)


def test_compiled_modules_compute_with_what_they_are_lent():
    module = nn.Linear(3, 2, dtype=gf.float64)
    module.compile()
    x = gf.tensor(X)
    own = dict(module.named_parameters())
    weight, bias = (p.detach().numpy().copy() for p in own.values())
    agree(module(x), X @ weight.T + bias)
    for scale in (2.0, 3.0):
        lent = {name: p * scale for name, p in own.items()}
        made = functional_call(module, lent, (x,))
        agree(made, scale * (X @ weight.T + bias))
        agree(grad(made.sum(), lent["weight"], retain_graph=True)[0], np.tile(X.sum(0), (2, 1)))
        agree(grad(made.sum(), own["weight"])[0], scale * np.tile(X.sum(0), (2, 1)))
    agree(module(x), X @ weight.T + bias)


@pytest.mark.filterwarnings("ignore:create_graph=True")
def test_second_derivatives_of_a_compiled_module_are_by_what_it_was_lent():
    module = nn.Linear(3, 1, bias=False, dtype=gf.float64)
    module.compile()
    x = gf.tensor(X)
    own = module.weight
    lent = own * 3
    loss = functional_call(module, {"weight": lent}, (x,)).pow(3).sum()
    (first,) = grad(loss, lent, create_graph=True)
    out = 3 * X @ own.detach().numpy().T
    agree(first, 3 * (out**2 * X).sum(0)[None])
    agree(grad(first.sum(), own)[0], 18 * (out * X.sum(1)[:, None] * X).sum(0)[None])


def test_results_of_a_step_that_updates_may_have_a_graph_that_is_never_used():
    """As of ``loss.backward(retain_graph=True)``, or of a value computed beside the loss."""
    w = leaf(W)
    optimizer = gf.optim.SGD([w], lr=0.001)

    @gf.compile
    def step(x):
        optimizer.zero_grad()
        loss = (x @ w @ w).square().sum()
        loss.backward(retain_graph=True)
        beside = x @ w @ w
        optimizer.step()
        return loss, beside

    now = W.copy()
    for _ in range(3):
        loss, beside = step(gf.tensor(X))
        out = X @ now @ now
        agree(beside, out)
        agree(loss, (out**2).sum())
        now = now - 0.002 * ((X @ now).T @ out + X.T @ (out @ now.T))
        agree(w, now)
        assert beside.requires_grad
    for ask in (lambda: loss.backward(), lambda: grad(beside.sum(), w)):
        with pytest.raises(gf.errors.ChangedInPlaceError, match="'step' changes it, as an optimis"):
            ask()
