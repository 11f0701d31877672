"""``vmap``: one call for all entries gives what a call for each gives, and as many gradients."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow import nn
from graphflow.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

F = nn.functional
SIZE = 4
MODES = (lambda f: f, gf.compile)
EYE = np.eye(3)


def draw(seed: int, *shape: int) -> gf.Tensor:
    return gf.tensor(np.random.default_rng(seed).standard_normal(shape))


def close(found: Any, expected: Any) -> None:
    found, expected = (gf.pytree.flatten(x)[0] for x in (found, expected))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), 1e-9, 1e-11)


def one_by_one(function: Callable[..., Any], *operands: gf.Tensor) -> Any:
    """The results of a call for each entry, stacked."""
    rows = [function(*(x[i] for x in operands)) for i in range(SIZE)]
    columns = zip(*(gf.pytree.flatten(row)[0] for row in rows), strict=True)
    return gf.pytree.unflatten(gf.pytree.flatten(rows[0])[1], [gf.stack(c) for c in columns])


SHARED = draw(1, 3, 3)
FUNCTIONS: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]] = {
    "broadcast": (lambda a, b: a * b + a.sum() * SHARED, ((3, 3), (3,))),
    "reductions": (lambda a: (a.var(0), a.norm(), a.max(1).values, a.prod()), ((3, 5),)),
    "lines": (lambda a: (a.cumsum(0), a.softmax(1), a.sort(1)[0], a.logcumsumexp(0)), ((3, 5),)),
    "views": (lambda a: (a.T, a[1:, ::2], a.flip(0), a.diagonal(), a.unfold(1, 2, 2)), ((3, 5),)),
    "shapes": (
        lambda a: gf.cat([F.pad(a, (1, 0)), a.reshape(5, 3).T, a], 1).expand(2, 3, -1), ((3, 5),)
    ),
    "products": (
        lambda a, b: (a @ b, a @ SHARED, SHARED @ a[0], gf.einsum("ij,kj->k", a, b)), ((3, 3),) * 2
    ),
    "images": (
        lambda x, w: F.conv2d(x, w, stride=2, padding=1, groups=2), ((2, 4, 7, 6), (6, 2, 3, 3))
    ),
    "pools": (lambda x: (F.max_pool2d(x, 2), F.adaptive_avg_pool2d(x, 3)), ((2, 6, 6),)),
    "norms": (lambda x: (F.layer_norm(x, (6,)), F.group_norm(x[None], 2)), ((4, 6),)),
    "matrices": (lambda a: gf.linalg.inv(a @ a.T + gf.tensor(3 * EYE)), ((3, 3),)),
    "equations": (lambda b: gf.linalg.solve(gf.tensor(3 * EYE + 1), b), ((3, 2),)),
    "attention": (lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True), ((2, 5, 3),)),
    "spectra": (lambda x: gf.fft.rfft(x).abs(), ((2, 8),)),
    "in place": (lambda a: a.clone().mul_(a.sum()).index_fill_(0, gf.tensor([1]), 2.0), ((3, 5),)),
    "gradients": (grad(lambda a: (a.sin() * a.prod()).sum()), ((5,),)),
    "Jacobians": (
        lambda a: (jacrev(gf.tanh)(a @ SHARED), jacfwd(lambda z: z[:2] * z.sum())(a)), ((3,),)
    ),
    "Hessians": (hessian(lambda a: (a.sin() * a.sum()).sum()), ((4,),)),
    "products with Jacobians": (
        lambda a, v: (jvp(gf.sin, (a,), (v,))[1], vjp(gf.sin, a)[1](v)[0]), ((4,), (4,))
    ),
    "entries of entries": (lambda a: vmap(lambda b: b.softmax(0) * a.sum())(a), ((3, 5),)),
    "nothing of the entry": (lambda a: (a, SHARED.sum(0), gf.zeros(2)), ((3,),)),
}  # fmt: skip


@pytest.mark.parametrize("jit", MODES, ids=["eager", "compiled"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_all_entries_at_once(name: str, jit: Callable[..., Any]) -> None:
    function, shapes = FUNCTIONS[name]
    operands = [draw(i, SIZE, *shape) for i, shape in enumerate(shapes)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing runs once for each entry
        close(jit(vmap(function))(*operands), one_by_one(function, *operands))
        close(vmap(function, chunk_size=3)(*operands), one_by_one(function, *operands))


def test_python_runs_once() -> None:
    calls = []
    vmap(lambda a: calls.append(a.shape) or a * 2)(gf.ones(SIZE, 3))
    assert calls == [(3,)]


@pytest.mark.parametrize("jit", MODES, ids=["eager", "compiled"])
def test_rows_of_tables(jit: Callable[..., Any]) -> None:
    rows = gf.tensor(np.random.default_rng(2).integers(0, 6, (SIZE, 3)))
    tables = draw(3, SIZE, 6, 2)
    close(jit(vmap(F.embedding))(rows, tables), one_by_one(F.embedding, rows, tables))
    close(jit(vmap(F.embedding, (0, None)))(rows, tables[0]), tables[0][rows])
    close(jit(vmap(F.embedding, (None, 0)))(rows, tables), gf.stack([t[rows] for t in tables]))
    slope = grad(lambda table, row: (F.embedding(row, table) ** 2).sum())
    close(jit(vmap(slope))(tables, rows), one_by_one(slope, tables, rows))


@pytest.mark.parametrize("jit", MODES, ids=["eager", "compiled"])
def test_gradients_reach_what_the_function_uses(jit: Callable[..., Any]) -> None:
    x, w = draw(4, SIZE, 3), draw(5, 3, 3).requires_grad_()

    def slopes(each: Callable[..., Any]) -> Any:
        @jit
        def run(x: gf.Tensor) -> Any:
            doubled = w * 2

            def function(a: gf.Tensor) -> gf.Tensor:
                with gf.no_grad():
                    scale = (a @ doubled).sum()
                return (a @ doubled) * scale + (a @ w).detach() * w.T.sum() + doubled.T[0]

            return gf.autograd.grad((each(function)(x) ** 2).sum(), w)

        return run(x)

    close(slopes(vmap), slopes(lambda f: lambda x: one_by_one(f, x)))


@pytest.mark.parametrize("axis", [0, 1])
def test_what_is_written_to_an_entry_is_written_to_the_argument(axis: int) -> None:
    x, shared = draw(6, SIZE, SIZE), draw(7, SIZE)
    wanted = x * 2 + (shared[:, None] if axis else shared)
    vmap(lambda a: a.mul_(2).add_(shared), axis)(x)
    close(x, wanted)


@pytest.mark.parametrize("jit", MODES, ids=["eager", "compiled"])
def test_random_numbers(jit: Callable[..., Any]) -> None:
    x = gf.ones(SIZE, 1000)

    def noise(a: gf.Tensor) -> gf.Tensor:
        return a + gf.rand(1000)

    with pytest.raises(gf.GraphFlowError, match="randomness='different'"):
        jit(vmap(noise))(x)
    gf.manual_seed(3)
    same = jit(vmap(noise, randomness="same"))
    first, again = same(x), same(x)
    assert (first == first[0]).all() and not (first == again).any()
    other = jit(vmap(noise, randomness="different"))(x).numpy()
    assert len(np.unique(other)) > 3900 and abs(other.mean() - 1.5) < 0.02
    kept = jit(vmap(lambda a: F.dropout(a, 0.25), randomness="different"))(x).numpy()
    assert len({tuple(row) for row in kept}) == SIZE and abs((kept == 0).mean() - 0.25) < 0.05


@pytest.mark.parametrize("jit", MODES, ids=["eager", "compiled"])
def test_control_flow(jit: Callable[..., Any]) -> None:
    x, w = draw(8, SIZE, 5, 3), draw(9, 3).requires_grad_()

    def branch(a: gf.Tensor) -> Any:
        return gf.cond(a.sum() > 0, lambda b: b * w, lambda b: b.sin(), a)

    def steps(a: gf.Tensor) -> Any:
        start = gf.zeros(3, dtype=gf.float64)
        return gf.scan(lambda c, row: ((c * w + row).tanh(), c * row.sum()), start, a)

    def until(a: gf.Tensor) -> Any:
        return gf.while_loop(lambda b: b.abs().sum() > 0.5, lambda b: b * 0.7, a, max_trips=12)

    for function in (branch, steps, until):
        found = jit(vmap(function))(x)
        expected = one_by_one(function, x)
        close(found, expected)
        if function is not until:
            sums = [sum((t**2).sum() for t in gf.pytree.flatten(r)[0]) for r in (found, expected)]
            close(*(gf.autograd.grad(total, w) for total in sums))


def test_a_loop_without_a_known_end_says_so() -> None:
    with pytest.raises(gf.GraphFlowError, match="while_loop can't be applied to entries"):
        vmap(lambda a: gf.while_loop(lambda b: b.sum() < 9, lambda b: b * 2, a))(gf.ones(2, 3))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("jit", MODES, ids=["eager", "compiled"])
def test_gradients_of_every_sequence(jit: Callable[..., Any], kind: Any) -> None:
    gf.manual_seed(0)
    model, x = kind(3, 4).double(), draw(10, SIZE, 5, 2, 3)
    weights = {name: p.detach() for name, p in model.named_parameters()}
    slope = grad(lambda weights, x: (functional_call(model, weights, (x,))[0] ** 2).sum())
    rows = [slope(weights, sample) for sample in x]
    found = jit(vmap(slope, (None, 0)))(weights, x)
    close(found, {name: gf.stack([row[name] for row in rows]) for name in weights})


def test_statistics_of_every_model() -> None:
    norms = [nn.BatchNorm1d(3).double() for _ in range(SIZE)]
    x = draw(11, SIZE, 6, 3)
    weights, buffers = gf.func.stack_module_state(norms)
    found = vmap(lambda w, b, x: functional_call(norms[0], (w, b), (x,)))(weights, buffers, x)
    model = nn.BatchNorm1d(3).double()
    for i in range(SIZE):
        model.reset_running_stats()
        close(found[i], model(x[i]))
        close(buffers["running_var"][i], model.running_var)


@pytest.mark.parametrize("jit", MODES, ids=["eager", "compiled"])
def test_histories_from_before(jit: Callable[..., Any]) -> None:
    """Of memory that has been written to: versions go on where they were."""
    w, x = draw(12, 3, 2).mul_(2.0).mul_(0.5), draw(13, 4, 3).requires_grad_()
    total = (x @ w).tanh().sum()
    (slope,) = gf.autograd.grad(total, x, retain_graph=True)
    close(jit(lambda: gf.autograd.grad(total, x, retain_graph=True)[0])(), slope)
    layer = nn.Linear(3, 2).double()
    with gf.no_grad():
        layer.weight.mul_(2.0)
    close(jit(jacrev(layer))(x[0]), layer.weight)


def test_sizes_that_change() -> None:
    each = gf.compile(vmap(lambda a: a.softmax(0) @ SHARED), dynamic=True)
    for size in (2, 5, 7, 11):
        x = draw(size, size, 3)
        close(each(x), gf.stack([a.softmax(0) @ SHARED for a in x]))
