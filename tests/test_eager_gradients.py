"""Gradients of the front's functions against central differences in float64."""

import numpy as np
import pytest

import graphflow as gf
from graphflow.nn import functional as F
from tests.front import ramp

STEP = 1e-6


def numeric(function, values, position):
    """d(sum of weighted results) / d(values[position]) by central differences."""
    base = [v.copy() for v in values]
    gradient = np.zeros_like(base[position])
    for i in np.ndindex(gradient.shape):
        sides = []
        for sign in (1, -1):
            moved = [v.copy() for v in base]
            moved[position][i] += sign * STEP
            sides.append(function(*[gf.tensor(v) for v in moved]).item())
        gradient[i] = (sides[0] - sides[1]) / (2 * STEP)
    return gradient


def scalar(function):
    """``function`` followed by a sum with uneven weights, so that no gradient hides another."""

    def total(*tensors):
        out = function(*tensors)
        return (out * ramp(*out.shape, dtype=gf.float64, offset=0.3)).sum()

    return total


def x(*shape, seed=0, low=-1.5, high=1.5):
    return np.random.default_rng(seed).uniform(low, high, shape)


LABELS = gf.tensor([2, 0, 1])
SOFT = gf.softmax(gf.tensor(x(3, 4, seed=9)), 1)

CASES = {
    "add": (lambda a, b: a + b, x(2, 3), x(3, seed=1)),
    "sub alpha": (lambda a, b: gf.sub(a, b, alpha=0.7), x(2, 3), x(2, 1, seed=1)),
    "mul": (lambda a, b: a * b, x(2, 1), x(3, seed=1)),
    "div": (lambda a, b: a / b, x(2, 3), x(3, seed=1, low=0.5)),
    "pow": (lambda a, b: a**b, x(3, low=0.3), x(3, seed=1)),
    "pow 3": (lambda a: a**3 + a**-1 + a**2.5, x(3, low=0.3)),
    "maximum": (lambda a, b: gf.maximum(a, b) * gf.minimum(a, b), x(2, 3), x(3, seed=1)),
    "atan2": (lambda a, b: gf.atan2(a, b), x(3, low=0.2), x(3, seed=1, low=0.2)),
    "remainder": (lambda a: gf.remainder(a, 0.7), x(5)),
    "unary": (lambda a: gf.exp(a) + gf.tanh(a) * gf.sigmoid(a) + gf.sin(a) * gf.cos(a), x(4)),
    "logs": (lambda a: gf.log(a) + gf.log1p(a) + gf.sqrt(a) * gf.rsqrt(a + 1), x(4, low=0.2)),
    "erf expm1": (lambda a: gf.erf(a) * gf.expm1(a), x(4)),
    "relu abs": (lambda a: gf.relu(a) + gf.abs(a) * a, x(5)),
    "clamp": (lambda a: gf.clamp(a, -0.8, 0.6) * a, x(7)),
    "where": (lambda a, b: gf.where(a > 0, a * b, b), x(5), x(5, seed=1)),
    "lerp": (lambda a, b: gf.lerp(a, b, 0.3), x(3), x(3, seed=2)),
    "addcdiv": (lambda a, b, c: gf.addcdiv(a, b, c, value=0.5), x(3), x(3, seed=2), x(3, low=0.5)),
    "sum": (lambda a: a.sum((0, -1)) * a.sum(1, keepdim=True).sum(), x(2, 3, 2)),
    "mean": (lambda a: a.mean(0) * a.mean(), x(3, 2)),
    "prod": (lambda a: a.prod(1) + a.prod(), x(2, 3)),
    "prod zeros": (lambda a: (a * gf.tensor([1.0, 0.0, 1.0]).double()).prod(), x(3)),
    "amax": (lambda a: a.amax(1) * a.amin((0, 1)), x(3, 4)),
    "max dim": (lambda a: a.max(0).values * a.min(0)[0], x(3, 4)),
    "var": (lambda a: a.var(1) + a.var() + a.std(0, unbiased=False).sum(), x(3, 4)),
    "norm": (lambda a: a.norm(dim=1) * a.norm(1) + a.norm(float("inf")), x(3, 4)),
    "logsumexp": (lambda a: gf.logsumexp(a, 1) * gf.logsumexp(a, (0, 1)), x(3, 4)),
    "softmax": (lambda a: gf.softmax(a, 0) * gf.log_softmax(a, -1), x(3, 4)),
    "matmul": (lambda a, b: a @ b, x(2, 3), x(3, 2, seed=1)),
    "matmul batch": (lambda a, b: a @ b, x(2, 1, 2, 3), x(3, 3, 2, seed=1)),
    "matmul vectors": (
        lambda a, b, c: (a @ b) * c * (b @ c).sum(), x(3), x(3, 2, seed=1), x(2, seed=2),
    ),
    "views": (
        lambda a: a.reshape(3, 2).t()[1:, ::2].unsqueeze(0).expand(2, 1, 2) * a.sum(), x(2, 3),
    ),
    "flip": (lambda a: a.flip(1) * a, x(2, 3)),
    "cat": (lambda a, b: gf.cat([a, b * 2, a], 1), x(2, 3), x(2, 1, seed=1)),
    "stack": (lambda a, b: gf.stack([a, b, a * b], -1), x(2, 3), x(2, 3, seed=1)),
    "split": (lambda a: gf.split(a, [1, 2], 1)[1] * gf.chunk(a, 2)[0][:, :2], x(2, 3)),
    "index": (lambda a: a[gf.tensor([1, 1, 0])] * a[1], x(2, 3)),
    "index two": (lambda a: a[gf.tensor([0, 1, 1]), gf.tensor([2, 2, 2])], x(2, 3)),
    "gather": (lambda a: gf.gather(a, 1, gf.tensor([[0, 0], [2, 1]])), x(2, 3)),
    "scatter_add": (
        lambda a, b: gf.scatter_add(a, 0, gf.tensor([[0, 1], [0, 0]]), b) ** 2, x(3, 2), x(2, 2),
    ),
    "index_select": (lambda a: gf.index_select(a, 1, gf.tensor([2, 2, 0])), x(2, 3)),
    "mse": (lambda a, b: F.mse_loss(a, b), x(3, 4), x(3, 4, seed=1)),
    "mse none": (lambda a, b: F.mse_loss(a, b, reduction="none"), x(3, 4), x(3, 4, seed=1)),
    "l1": (lambda a, b: F.l1_loss(a, b, reduction="sum"), x(3, 4), x(3, 4, seed=1)),
    "smooth l1": (lambda a, b: F.smooth_l1_loss(a, b, beta=0.6), x(3, 4), x(3, 4, seed=1)),
    "cross entropy": (lambda a: F.cross_entropy(a, LABELS), x(3, 4)),
    "cross entropy sum": (
        lambda a: F.cross_entropy(a, LABELS, reduction="sum", label_smoothing=0.2), x(3, 4),
    ),
    "cross entropy weighted": (
        lambda a: F.cross_entropy(a, gf.tensor([2, -100, 1]), weight=gf.tensor(x(4, low=0.2))),
        x(3, 4),
    ),
    "cross entropy images": (
        lambda a: F.cross_entropy(a, gf.tensor([[0, 1], [2, 2]]), reduction="none"), x(2, 3, 2),
    ),
    "cross entropy soft": (lambda a: F.cross_entropy(a, SOFT, label_smoothing=0.1), x(3, 4)),
    "nll": (lambda a: F.nll_loss(gf.log_softmax(a, 1), LABELS), x(3, 4)),
    "bce": (lambda a: F.binary_cross_entropy(gf.sigmoid(a), SOFT), x(3, 4)),
    "bce logits": (
        lambda a, b: F.binary_cross_entropy_with_logits(a, SOFT, b, pos_weight=b * 2),
        x(3, 4), x(4, low=0.2),
    ),
    "activations": (
        lambda a: F.gelu(a) + F.gelu(a, "tanh") + F.silu(a) + F.mish(a) + F.softplus(a, 2.0), x(5),
    ),
    "piecewise": (lambda a: F.leaky_relu(a, 0.1) + F.elu(a, 0.7) + F.logsigmoid(a), x(6)),
    "layer norm": (
        lambda a, w, b: F.layer_norm(a, (4,), w, b), x(3, 4), x(4, seed=1), x(4, seed=2),
    ),
    "normalize": (lambda a: F.normalize(a, dim=1), x(3, 4)),
    "linear": (lambda a, w, b: F.linear(a, w, b), x(2, 3), x(4, 3, seed=1), x(4, seed=2)),
    "in place": (lambda a, b: _in_place(a, b), x(2, 3), x(3, seed=1)),
}  # fmt: skip


def _in_place(a, b):
    y = a * 2
    y[0] = b
    y[:, 1].mul_(b[1])
    y.add_(a)
    return y.t().exp_()


@pytest.mark.parametrize("name", CASES)
def test_first_order(name):
    function, *values = CASES[name]
    total = scalar(function)
    tensors = [gf.tensor(v).requires_grad_() for v in values]
    total(*tensors).backward()
    for i, tensor in enumerate(tensors):
        expected = numeric(total, values, i)
        np.testing.assert_allclose(tensor.grad.numpy(), expected, rtol=1e-6, atol=1e-8)


SECOND = [name for name in CASES if name not in ("remainder",)]


@pytest.mark.parametrize("name", SECOND)
def test_second_order(name):
    """Differences of a weighted sum of the first gradients."""
    function, *values = CASES[name]
    total = scalar(function)

    def slope(*tensors):
        tensors = [t if t.requires_grad else t.requires_grad_() for t in tensors]
        out = total(*tensors)
        grads = gf.autograd.grad(out, tensors, create_graph=True, allow_unused=True)
        parts = [(g * ramp(*g.shape, dtype=gf.float64)).sum() for g in grads if g is not None]
        return sum(parts, gf.zeros((), dtype=gf.float64))

    tensors = [gf.tensor(v).requires_grad_() for v in values]
    result = slope(*tensors)
    if result.requires_grad:
        result.backward()
    for i, tensor in enumerate(tensors):
        expected = numeric(slope, values, i)
        got = np.zeros_like(expected) if tensor.grad is None else tensor.grad.numpy()
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)


COMPILED = [
    "cross entropy weighted",
    "bce logits",
    "layer norm",
    "in place",
    "views",
    "activations",
]


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_gradients_are_the_same(name):
    function, *values = CASES[name]
    total = scalar(function)
    fast = gf.compile(gf.value_and_grad(total, tuple(range(len(values)))))
    slow = gf.value_and_grad(total, tuple(range(len(values))))
    (a, grads), (b, expected) = fast(*map(gf.tensor, values)), slow(*map(gf.tensor, values))
    np.testing.assert_allclose(a.item(), b.item(), rtol=1e-12)
    for got, want in zip(grads, expected, strict=True):
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-10, atol=1e-12)


def test_conventions_at_kinks_and_ties():
    """PyTorch's: zero at kinks of relu and abs, ties shared, limits of clamp pass on."""
    for function, at, expected in [
        (gf.relu, [0.0, 1.0], [0.0, 1.0]),
        (gf.abs, [0.0, -2.0], [0.0, -1.0]),
        (gf.sign, [0.0, 3.0], [0.0, 0.0]),
        (lambda t: gf.clamp(t, -1, 1), [-1.0, 1.0], [1.0, 1.0]),
        (lambda t: gf.maximum(t, gf.tensor([1.0, 2.0])), [1.0, 1.0], [0.5, 0.0]),
        (lambda t: t.amax(), [2.0, 2.0], [0.5, 0.5]),
        (lambda t: t.max(0).values, [2.0, 2.0], [1.0, 0.0]),
        (lambda t: t.norm(), [0.0, 0.0], [0.0, 0.0]),
        (gf.sqrt, [0.0, 4.0], [np.inf, 0.25]),
    ]:
        t = gf.tensor(at, requires_grad=True)
        function(t).sum().backward()
        np.testing.assert_array_equal(t.grad.numpy(), np.float32(expected))
