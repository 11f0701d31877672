"""``cond``, ``while_loop``, ``scan`` and ``map``: eager and compiled, against unrolled loops."""

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow.errors import DTypeError, GraphFlowError, ShapeError, TraceError

SEED = 20261


def both(function):
    return [function, gf.compile(function)]


def tensors(*shapes, seed=SEED):
    rng = np.random.default_rng(seed)
    return [gf.from_numpy(rng.standard_normal(s)).requires_grad_() for s in shapes]


def close(found, want):
    for a, b in zip(found, want, strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-9, atol=1e-10)


def first_and_second(function, wrt):
    """Loss, its gradient, and the gradient of the gradient's square."""

    def run(*args):
        loss = function(*args)
        first = gf.autograd.grad(loss, wrt(args), create_graph=True)
        second = gf.autograd.grad(sum((g * g).sum() for g in first), wrt(args))
        return [t.detach() for t in (loss, *first, *second)]

    return run


@pytest.mark.parametrize(("length", "reverse"), [(4, False), (1, True)])
def test_scan_and_its_gradients_equal_an_unrolled_loop(length, reverse):
    h0, xs, w = tensors((2, 3), (length, 2, 3), (3, 3))

    def unrolled(h, xs):
        ys = [None] * length
        for i in reversed(range(length)) if reverse else range(length):
            h = gf.tanh(h @ w.t() + xs[i])
            ys[i] = h * 2
        return (h.sum() + (gf.stack(ys) ** 3).sum()) * 0.5

    def scanned(h, xs):
        def step(h, x):
            h = gf.tanh(h @ w.t() + x)
            return h, h * 2

        h, ys = gf.scan(step, h, xs, reverse=reverse)
        return (h.sum() + (ys**3).sum()) * 0.5

    want = first_and_second(unrolled, lambda a: [*a, w])(h0, xs)
    for run in both(first_and_second(scanned, lambda a: [*a, w])):
        close(run(h0, xs), want)


def test_backward_accumulates_into_captured_parameters():
    xs, w = tensors((6, 3), (3,))

    def step(xs):
        total, _ = gf.scan(lambda c, x: (c + (x * w).sum() ** 2, None), 0.0, xs.double())
        return total

    def train(xs):
        loss = gf.scan(lambda c, x: (c + (x * w).sum(), None), gf.zeros((), dtype=gf.float64), xs)
        loss[0].backward()
        return loss[0]

    with pytest.raises(DTypeError, match=r"carry that f returns.*f64\[\].*f32\[\]"):
        step(xs)
    for run in both(train):
        w.grad = None
        run(xs)
        np.testing.assert_allclose(w.grad.numpy(), xs.detach().numpy().sum(0))


def test_detached_and_constant_operands_get_no_gradient():
    x, w = tensors((4,), (4,))

    def detached(x):
        return gf.scan(lambda c, _: (c.detach() * x + c * w.detach(), None), x, None, length=3)[0]

    def unrolled(x):
        c = x
        for _ in range(3):
            c = c.detach() * x + c * w.detach()
        return c

    def gradient(f):
        def run(x):
            return gf.autograd.grad(f(x).sum(), [x, w], allow_unused=True)

        return run

    want = gf.autograd.grad(unrolled(x).sum(), [x])
    for run in both(gradient(detached)):
        found = run(x)
        close(found[:1], want)
        assert found[1] is None or not found[1].numpy().any()

    def without(x):
        with gf.no_grad():
            return gf.scan(lambda c, _: (c * w, c), x, None, length=3)

    for run in both(without):
        assert not any(t.requires_grad for t in run(x))


def test_nests_are_carried_scanned_and_stacked():
    a, b = tensors((3, 2), (3,))

    def run(a, b):
        def step(carry, item):
            s = carry["s"] + item[0]
            return {"s": s, "n": carry["n"] + 1}, (s * item[1], None)

        return gf.scan(step, {"s": gf.zeros(2, dtype=gf.float64), "n": 0}, (a, b))

    sums = np.cumsum(a.detach().numpy(), 0)
    for f in both(run):
        carry, (ys, hole) = f(a, b)
        assert hole is None and int(carry["n"]) == 3
        np.testing.assert_allclose(carry["s"].detach().numpy(), sums[-1])
        want = sums * b.detach().numpy()[:, None]
        np.testing.assert_allclose(ys.detach().numpy(), want)


def test_map_and_empty_scan():
    (x,) = tensors((5, 3))
    for f in both(lambda x: gf.map(lambda r: r.sum() * r, x)):
        close([f(x)], [x.sum(1, keepdim=True) * x])
    for f in both(lambda x: gf.scan(lambda c, r: (c + r, r.sum()), x[0], x[:0])):
        carry, ys = f(x)
        close([carry], [x[0]])
        assert tuple(ys.shape) == (0,)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_cond_and_its_gradients(sign):
    x, w = tensors((3,), (3,))

    def run(flag, x):
        y = gf.cond(flag > 0, lambda x: gf.sin(x) * w, lambda x: x**3, x)
        return y.sum()

    flag = gf.tensor(sign)
    wrt = lambda a: [a[1]]  # noqa: E731
    want = first_and_second(run, wrt)(flag, x)
    close(gf.compile(first_and_second(run, wrt))(flag, x), want)


def test_while_loop_and_bounded_gradients():
    (x,) = tensors((3,))

    def free(x):
        return gf.while_loop(lambda v: v.abs().max() < 50, lambda v: v * 1.5, x.detach())

    def bounded(x):
        grown = gf.while_loop(lambda v: v.abs().max() < 50, lambda v: v * v + v, x, max_trips=6)
        return grown.sum()

    close([gf.compile(free)(x)], [free(x)])
    want = first_and_second(bounded, lambda a: list(a))(x)
    close(gf.compile(first_and_second(bounded, lambda a: list(a)))(x), want)

    def unbounded(x):
        y = gf.while_loop(lambda v: v.sum() < 9, lambda v: v * 2, x * x)
        return gf.autograd.grad(y.sum(), [x])

    with pytest.raises(GraphFlowError, match=r"no reverse mode.*max_trips"):
        gf.compile(unbounded)(x)


def test_bodies_with_side_effects_are_refused():
    x, outer = tensors((3, 2), (2,))
    buffer = gf.zeros(2, dtype=gf.float64)

    def writes(x):
        def step(c, r):
            buffer.add_(r.detach())
            return c, r

        return gf.scan(step, gf.zeros(()), x)

    def differentiates(x):
        def step(c, r):
            (outer * outer).sum().backward()
            return c, r

        return gf.scan(step, gf.zeros(()), x)

    def own(x):
        def step(c, r):
            room = gf.zeros(2, dtype=gf.float64)
            room.add_(r.detach())
            return c, room

        return gf.scan(step, gf.zeros(()), x)

    with pytest.raises(TraceError, match=r"scan: the body writes in place.*"):
        gf.compile(writes)(x)
    with pytest.raises(TraceError, match="scan: the body assigns the gradient"):
        gf.compile(differentiates)(x)
    close([gf.compile(own)(x)[1]], [x])
    with pytest.raises(TraceError, match="random numbers"):
        gf.compile(lambda x: gf.while_loop(lambda c: c.sum() > 0, lambda c: c - gf.rand(3, 2), x))(
            x.float()
        )


def test_changed_types_and_structures_are_named():
    (x,) = tensors((3, 2))
    for f in both(lambda x: gf.scan(lambda c, r: (gf.cat([c, c]), None), x[0], x)):
        with pytest.raises(ShapeError, match=r"tensor 0 is f64\[4\], but must be f64\[2\]"):
            f(x)
    for f in both(lambda x: gf.while_loop(lambda v: v[0].sum() < 9, lambda v: v[0], (x,))):
        with pytest.raises(GraphFlowError, match="another structure"):
            f(x)
    branches = lambda x: gf.cond(x.sum() > 0, lambda: x, lambda: (x, x))  # noqa: E731
    with pytest.raises(GraphFlowError, match="branches return nests of different structure"):
        gf.compile(branches)(x)
    with pytest.raises(ShapeError, match="needs tensors in xs, or a length"):
        gf.scan(lambda c, _: (c, c), x, None)


def test_gradients_inside_a_body():
    """Steps of gradient descent as a scan, and the gradient of where they lead."""
    rng = np.random.default_rng(8)
    x, w = (gf.tensor(rng.standard_normal(4)) for _ in range(2))

    def descend(x, w):
        w = w.detach().requires_grad_()

        def body(c, _):
            loss = ((c * w - 1) ** 2).sum()
            (slope,) = gf.autograd.grad(loss, c, create_graph=True)
            return c - 0.1 * slope, loss

        last, losses = gf.scan(body, x.detach().requires_grad_() * 1, None, length=4)
        last.sum().backward()
        return last, losses, w.grad

    for found, wanted in zip(gf.compile(descend)(x, w), descend(x, w), strict=True):
        np.testing.assert_allclose(found.detach().numpy(), wanted.detach().numpy(), 1e-9)


def test_random_numbers_in_a_body_are_those_of_the_loop():
    x = gf.ones(8)

    def f(x):
        def body(c, _):
            kept = gf.cond(c > 2, lambda: F.dropout(x, 0.5), lambda: gf.rand(8))
            inner, _ = gf.scan(lambda d, _: (d + gf.rand(()), None), gf.zeros(()), None, length=3)
            return c + 1, (kept + gf.rand(8), inner)

        return gf.scan(body, gf.zeros(()), None, length=6, reverse=True)[1]

    results = []
    for run in (f, gf.compile(f)):
        gf.manual_seed(3)
        results.append((*run(x), *run(x), gf.rand(2)))
    for eager, compiled in zip(*results, strict=True):
        np.testing.assert_array_equal(eager.numpy(), compiled.numpy())
    assert len({tuple(row) for row in results[1][0].tolist()}) == 6


def test_dropout_in_a_body_is_the_same_in_its_gradient():
    def f(w):
        w = w.detach().requires_grad_()
        _, ys = gf.scan(lambda c, _: (c, F.dropout(w, 0.5)), gf.zeros(()), None, length=5)
        ys.sum().backward()
        return ys.detach(), w.grad

    gf.manual_seed(0)
    ys, grad = gf.compile(f)(gf.ones(6))
    np.testing.assert_array_equal(ys.numpy().sum(0), grad.numpy())


def test_a_long_python_loop_over_rows_is_pointed_at():
    def running(x):
        total = gf.zeros(4)
        for row in x:
            total = total * 0.5 + row
        return total

    for length, hinted in ((40, True), (5, False)):
        compiled = gf.compile(running)
        compiled(gf.ones(length, 4))
        hints = compiled.explain().hints
        assert [("40 rows" in h and "test_control_flow.py" in h) for h in hints] == [True] * hinted
