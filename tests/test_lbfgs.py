"""L-BFGS on problems with known minima; what it asks of its closure; its state."""

import numpy as np
import pytest
import scipy.optimize

import graphflow as gf
from graphflow import nn, optim


def rosenbrock(p):
    return 100 * (p[1] - p[0] * p[0]) ** 2 + (1 - p[0]) ** 2


def minimise(loss, start, steps, **options):
    p = nn.Parameter(gf.tensor(start, dtype=gf.float64))
    opt = optim.LBFGS([p], **options)
    calls = []

    def closure():
        opt.zero_grad()
        value = loss(p)
        value.backward()
        calls.append(value.item())
        return value

    losses = [opt.step(closure).item() for _ in range(steps)]
    return p, opt, losses, calls


def test_a_line_search_finds_the_bottom_of_a_curved_valley():
    p, opt, losses, calls = minimise(rosenbrock, [-1.2, 1.0], 4, line_search_fn="strong_wolfe")
    expected = scipy.optimize.minimize(
        lambda v: 100 * (v[1] - v[0] ** 2) ** 2 + (1 - v[0]) ** 2, [-1.2, 1.0], method="L-BFGS-B"
    )
    np.testing.assert_allclose(p.detach(), [1, 1], atol=1e-4)
    np.testing.assert_allclose(p.detach(), expected.x, atol=1e-4)
    assert losses[0] == calls[0] == pytest.approx(24.2)
    assert losses == sorted(losses, reverse=True)
    assert opt.state[p]["func_evals"] == len(calls)


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_a_quadratic_in_as_many_steps_as_dimensions(search):
    rng = np.random.default_rng(5)
    root = rng.normal(size=(6, 6))
    matrix, target = root @ root.T + np.eye(6), rng.normal(size=6)
    a, b = gf.tensor(matrix), gf.tensor(target)
    options = {"line_search_fn": search, "max_iter": 60, "lr": 1.0}
    p, _, _, _ = minimise(lambda v: ((v @ a) * v).sum() / 2 - (b * v).sum(), np.zeros(6), 1,
                          **options)  # fmt: skip
    np.testing.assert_allclose(p.detach(), np.linalg.solve(matrix, target), atol=1e-5)


def test_limits_are_kept():
    _, opt, _, calls = minimise(rosenbrock, [-1.2, 1.0], 3, lr=1e-3, max_iter=4, history_size=2)
    assert len(calls) == 3 * 4
    state = next(iter(opt.state.values()))
    assert state["n_iter"] == 12 and len(state["old_dirs"]) <= 2
    _, _, _, calls = minimise(lambda p: (p * 0.0).sum(), [1.0, 2.0], 1)
    assert len(calls) == 1  # nothing to do where the gradient is 0


def test_a_saved_state_continues():
    p, opt, _, _ = minimise(rosenbrock, [-1.2, 1.0], 2, lr=1e-3, max_iter=3)
    q = nn.Parameter(p.detach().clone())
    twin = optim.LBFGS([q], lr=1e-3, max_iter=3)
    twin.load_state_dict(opt.state_dict())
    for parameter, optimizer in ((p, opt), (q, twin)):

        def closure(parameter=parameter, optimizer=optimizer):
            optimizer.zero_grad()
            loss = rosenbrock(parameter)
            loss.backward()
            return loss

        optimizer.step(closure)
    np.testing.assert_array_equal(p.detach(), q.detach())


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_complex_parameters_are_pairs_of_real_ones(search):
    found = []
    for joined in (False, True):
        parts = gf.tensor([[-1.2, 1.0], [0.5, 0.8]])
        p = nn.Parameter(gf.view_as_complex(parts) if joined else parts)
        opt = optim.LBFGS([p], lr=0.2, max_iter=5, line_search_fn=search)

        def closure(p=p, opt=opt):
            opt.zero_grad()
            x, y = (gf.view_as_real(p) if p.is_complex() else p).unbind(-1)
            loss = ((1 - x) ** 2 + 3 * (y - x * x) ** 2).sum()
            loss.backward()
            return loss

        found.append([opt.step(closure).item() for _ in range(3)])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-6)


def test_bad_input():
    p = nn.Parameter(gf.ones(2))
    opt = optim.LBFGS([p])
    with pytest.raises(TypeError, match="closure"):
        opt.step()
    with pytest.raises(gf.TraceError, match="LBFGS"):
        gf.compile(lambda: opt.step(lambda: (p * p).sum()))()
    with pytest.raises(ValueError, match="one group"):
        opt.add_param_group({"params": [nn.Parameter(gf.ones(1))]})
    with pytest.raises(ValueError, match="strong_wolfe"):
        optim.LBFGS([p], line_search_fn="armijo")
