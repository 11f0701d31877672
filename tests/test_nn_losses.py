"""Losses against NumPy's formulas, every reduction, gradients by differences, bad input."""

import math
import warnings

import numpy as np
import pytest
import scipy.special

import graphflow as gf
from graphflow import nn
from graphflow.nn import functional as F
from tests.front import agree

rng = np.random.default_rng(21)
X, Y = rng.uniform(-2, 2, (4, 5)), rng.uniform(-2, 2, (4, 5))
P, Q = scipy.special.expit(X), scipy.special.softmax(Y, 1)
SIGNS = np.where(Y > 0, 1.0, -1.0)
CLASSES = np.array([1, 4, 0, 2])
WEIGHT = rng.uniform(0.5, 2, 5)
LABELS = np.array([[3, 0, -1, 1, 2], [1, 2, 3, 4, 0], [-1, 1, 1, 1, 1], [4, -1, 0, 0, 0]])


def relu(x):
    return np.maximum(x, 0)


def own(x):
    return x[np.arange(4), CLASSES][:, None]


def multi_margin(x, p, w):
    loss = relu(0.8 - own(x) + x) ** p * w[CLASSES][:, None]
    loss[np.arange(4), CLASSES] = 0
    return loss.sum(1) / 5


def multilabel_margin(x):
    loss = []
    for row, labels in zip(x, LABELS, strict=True):
        chosen = list(labels[: list(labels).index(-1)]) if -1 in labels else list(labels)
        rest = [c for c in range(5) if c not in chosen]
        loss.append(sum(max(0, 1 - row[y] + row[c]) for y in chosen for c in rest) / 5)
    return np.array(loss)


def huber(d, delta):
    d = np.abs(d)
    return np.where(d < delta, d * d / 2, delta * (d - delta / 2))


def distance(a, b):
    return np.linalg.norm(a - b + 1e-6, axis=-1)


def cosine(a, b):
    return (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))


COUNTS = np.floor(np.abs(Y) * 3)
# name: (arguments after the input, options, the losses one by one)
LOSSES = {
    "mse_loss": ((Y,), {}, lambda x: (x - Y) ** 2),
    "l1_loss": ((Y,), {}, lambda x: np.abs(x - Y)),
    "smooth_l1_loss": ((Y,), {"beta": 0.7}, lambda x: huber(x - Y, 0.7) / 0.7),
    "huber_loss": ((Y,), {"delta": 0.7}, lambda x: huber(x - Y, 0.7)),
    "poisson_nll_loss": ((COUNTS,), {}, lambda x: np.exp(x) - COUNTS * x),
    "kl_div": ((Q,), {}, lambda x: Q * (np.log(Q) - x)),
    "binary_cross_entropy_with_logits": (
        (Q,),
        {"pos_weight": WEIGHT},
        lambda x: np.logaddexp(0, x) * (1 - Q) + WEIGHT * Q * np.logaddexp(0, -x),
    ),
    "hinge_embedding_loss": ((SIGNS,), {}, lambda x: np.where(SIGNS > 0, x, relu(1 - x))),
    "soft_margin_loss": ((SIGNS,), {}, lambda x: np.logaddexp(0, -SIGNS * x)),
    "margin_ranking_loss": ((Y, SIGNS), {"margin": 0.3}, lambda x: relu(0.3 - SIGNS * (x - Y))),
    "gaussian_nll_loss": (
        (Y, P),
        {"full": True},
        lambda x: (np.log(P) + (x - Y) ** 2 / P + math.log(2 * math.pi)) / 2,
    ),
    "multi_margin_loss": (
        (CLASSES,),
        {"p": 2, "margin": 0.8, "weight": WEIGHT},
        lambda x: multi_margin(x, 2, WEIGHT),
    ),
    "multilabel_margin_loss": ((LABELS,), {}, multilabel_margin),
    "multilabel_soft_margin_loss": (
        (np.round(Q),),
        {"weight": WEIGHT},
        lambda x: (np.logaddexp(0, np.where(np.round(Q) > 0, -x, x)) * WEIGHT).mean(1),
    ),
    "triplet_margin_loss": (
        (Y, P),
        {"swap": True},
        lambda x: relu(1 + distance(x, Y) - np.minimum(distance(x, P), distance(Y, P))),
    ),
    "cosine_embedding_loss": (
        (Y, SIGNS[:, 0]),
        {"margin": -0.2},
        lambda x: np.where(SIGNS[:, 0] > 0, 1 - cosine(x, Y), relu(cosine(x, Y) + 0.2)),
    ),
    "nll_loss": ((CLASSES,), {}, lambda x: -own(x)[:, 0]),
    "cross_entropy": (
        (Q,),
        {"label_smoothing": 0.2},
        lambda x: -((0.8 * Q + 0.04) * scipy.special.log_softmax(x, 1)).sum(1),
    ),
}


def differences(function, x, h=1e-6):
    slope = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[i] = h
        slope[i] = (function(x + step) - function(x - step)) / (2 * h)
    return slope


def call(name, x, arguments, options, reduction):
    made = {k: gf.tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # kl_div's advice about "mean"
        return getattr(F, name)(x, *map(gf.tensor, arguments), **made, reduction=reduction)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_their_gradients(name):
    arguments, options, formula = LOSSES[name]
    for reduction, fold in (("none", np.array), ("sum", np.sum), ("mean", np.mean)):
        x = gf.tensor(X, requires_grad=True)
        out = call(name, x, arguments, options, reduction)
        np.testing.assert_allclose(out.detach().numpy(), fold(formula(X)), rtol=1e-9)
    out.backward()
    expected = differences(lambda v: np.mean(formula(v)), X)
    np.testing.assert_allclose(x.grad.numpy(), expected, atol=1e-7)


def test_binary_cross_entropy_is_finite_at_its_ends():
    p = gf.tensor([0.0, 0.0, 1.0, 1.0, 0.25], requires_grad=True)
    t = gf.tensor([0.0, 1.0, 0.0, 1.0, 1.0])
    loss = F.binary_cross_entropy(p, t, reduction="none")
    np.testing.assert_allclose(loss.detach().numpy(), [0, 100, 100, 0, -math.log(0.25)], rtol=1e-6)
    loss.sum().backward()
    assert np.isfinite(p.grad.numpy()).all() and p.grad[4].item() == pytest.approx(-4)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        F.binary_cross_entropy(gf.tensor([1.5]), gf.tensor([1.0]))


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy_of_classes(smoothing, weighted, reduction):
    """Every combination, against the definition by one-hot rows; images, an ignored pixel."""
    x = rng.uniform(-2, 2, (2, 5, 3))
    target = np.array([[0, 3, 4], [1, 9, 2]])
    weight = WEIGHT if weighted else np.ones(5)
    logs = scipy.special.log_softmax(x, 1)
    loss, share = np.zeros((2, 3)), np.zeros((2, 3))
    for n, i in np.ndindex(2, 3):
        if target[n, i] != 9:
            hot = (np.arange(5) == target[n, i]) * (1 - smoothing) + smoothing / 5
            loss[n, i] = -(hot * weight * logs[n, :, i]).sum()
            share[n, i] = weight[target[n, i]]
    expected = {"none": loss, "sum": loss.sum(), "mean": loss.sum() / share.sum()}[reduction]
    got = F.cross_entropy(
        gf.tensor(x), gf.tensor(target), gf.tensor(WEIGHT) if weighted else None,
        ignore_index=9, reduction=reduction, label_smoothing=smoothing,
    )  # fmt: skip
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-9)


def test_weights_of_elements():
    x, y, w = gf.tensor(X), gf.tensor(Y), gf.tensor(P)
    expected = (P * (X - Y) ** 2).sum() / P.sum()
    assert F.mse_loss(x, y, weight=w).item() == pytest.approx(expected)
    expected = (P * np.abs(X - Y)).sum() / P.sum()
    assert F.l1_loss(x, y, weight=w).item() == pytest.approx(expected)
    assert F.huber_loss(x, y, weight=w).item() == pytest.approx((P * huber(X - Y, 1)).mean())
    with pytest.raises(gf.ShapeError, match="same size"):
        F.mse_loss(x, y, weight=w[0])


def test_older_arguments_and_warnings():
    x, y = gf.tensor(X), gf.tensor(Y)
    with pytest.warns(UserWarning, match="reduction='sum'"):
        assert F.mse_loss(x, y, False).item() == pytest.approx(((X - Y) ** 2).sum())
    with pytest.warns(UserWarning, match="reduction='none'"):
        assert nn.L1Loss(reduce=False).reduction == "none"
    with pytest.warns(UserWarning, match="broadcast"):
        F.mse_loss(x, y[0])
    with pytest.raises(ValueError, match="not a valid value for reduction"):
        F.mse_loss(x, y, reduction="median")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: F.nll_loss(gf.ones(2, 3), gf.tensor([0.5, 1.0])), "class indices"),
        (lambda: F.nll_loss(gf.ones(2, 3), gf.tensor([1])), "needs a target"),
        (lambda: F.nll_loss(gf.ones(2, 3), gf.tensor([1, 3])), "no class"),
        (lambda: F.cross_entropy(gf.ones(2, 3), gf.tensor([0, 1]), gf.ones(2)), "3 classes"),
        (lambda: F.multi_margin_loss(gf.ones(2, 3), gf.tensor([1])), "does not fit"),
        (lambda: F.triplet_margin_loss(gf.ones(2), gf.ones(2), gf.ones(1, 2)), "same rank"),
        (lambda: F.gaussian_nll_loss(gf.ones(2), gf.ones(2), gf.ones(3)), "incorrect size"),
        (lambda: F.gaussian_nll_loss(gf.ones(2), gf.ones(2), -gf.ones(2)), "negative"),
        (lambda: F.huber_loss(gf.ones(2), gf.ones(2), delta=0.0), "delta"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises((ValueError, gf.GraphFlowError), match=message):
        call()


def test_compiled_losses_agree_with_eager():
    def program(jit):
        def step(x, y, p, classes, labels):
            losses = [
                F.multilabel_margin_loss(x, labels),
                F.multi_margin_loss(x, classes, weight=p[0]),
                F.cross_entropy(x, classes, p[0], label_smoothing=0.1),
                F.triplet_margin_loss(x, y, p),
                F.binary_cross_entropy(p, p),
                F.gaussian_nll_loss(x, y, p),
                F.huber_loss(x, y) + F.kl_div(x, p, reduction="batchmean"),
            ]
            return losses, gf.stack(losses).sum()

        def run(x, *rest):
            x.grad = None
            losses, total = jit(step)(x, *rest)
            total.backward()
            return [*losses, x.grad]

        parts = [gf.tensor(v, dtype=gf.float32) for v in (X, Y, P)]
        return run(parts[0].requires_grad_(), *parts[1:], gf.tensor(CLASSES), gf.tensor(LABELS))

    agree(program, rtol=2e-5, atol=2e-5)
