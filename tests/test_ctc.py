"""CTC loss against the sum over all alignments, its gradient by differences."""

import itertools

import numpy as np
import pytest
import scipy.special

import graphflow as gf
from graphflow import nn
from graphflow.nn import functional as F
from tests.front import agree

rng = np.random.default_rng(17)
SCORES = rng.normal(size=(5, 3, 3))
TARGETS = np.array([[1, 2, 1], [2, 2, 0], [1, 0, 0]])
TIMES, SIZES = np.array([5, 4, 3]), np.array([3, 2, 1])


def spells(path):
    return tuple(k for k, _ in itertools.groupby(path) if k != 0)


def by_enumeration(scores):
    """Minus log of the summed probability of every path that spells the target."""
    logs = scipy.special.log_softmax(scores, -1)
    losses = []
    for n in range(3):
        wanted = tuple(TARGETS[n, : SIZES[n]])
        paths = itertools.product(range(3), repeat=int(TIMES[n]))
        hits = [sum(logs[t, n, k] for t, k in enumerate(p)) for p in paths if spells(p) == wanted]
        losses.append(-scipy.special.logsumexp(hits))
    return np.array(losses)


def loss_of(scores, reduction="none", **options):
    return F.ctc_loss(
        F.log_softmax(scores, -1), gf.tensor(TARGETS), gf.tensor(TIMES), gf.tensor(SIZES),
        reduction=reduction, **options,
    )  # fmt: skip


def test_every_alignment_counts():
    expected = by_enumeration(SCORES)
    np.testing.assert_allclose(loss_of(gf.tensor(SCORES)).numpy(), expected, rtol=1e-9)
    assert loss_of(gf.tensor(SCORES), "sum").item() == pytest.approx(expected.sum())
    mean = loss_of(gf.tensor(SCORES), "mean").item()
    assert mean == pytest.approx((expected / SIZES).mean())
    flat = gf.tensor([1, 2, 1, 2, 2, 1])
    logs = F.log_softmax(gf.tensor(SCORES), -1)
    got = nn.CTCLoss(reduction="none")(logs, flat, (5, 4, 3), (3, 2, 1))
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-9)
    single = F.ctc_loss(logs[:, 0], gf.tensor([1, 2, 1]), gf.tensor(5), gf.tensor(3),
                        reduction="none")  # fmt: skip
    assert single.item() == pytest.approx(expected[0])


def test_gradient():
    x = gf.tensor(SCORES, requires_grad=True)
    loss_of(x, "sum").backward()
    slope = np.zeros_like(SCORES)
    for i in np.ndindex(SCORES.shape):
        step = np.zeros_like(SCORES)
        step[i] = 1e-6
        ends = (by_enumeration(SCORES + s * step).sum() for s in (1, -1))
        slope[i] = (next(ends) - next(ends)) / 2e-6
    np.testing.assert_allclose(x.grad.numpy(), slope, atol=1e-6)


def test_what_does_not_fit_is_infinite_or_nothing():
    logs = F.log_softmax(gf.tensor(SCORES[:2]), -1).requires_grad_()
    lengths = gf.tensor([2, 2, 2]), gf.tensor(SIZES)
    targets = gf.tensor(TARGETS)
    loss = F.ctc_loss(logs, targets, *lengths, reduction="none")
    assert np.isinf(loss.detach().numpy()).tolist() == [True, True, False]
    F.ctc_loss(logs, targets, *lengths, reduction="sum", zero_infinity=True).backward()
    grad = logs.grad.numpy()
    assert np.isfinite(grad).all() and (grad[:, :2] == 0).all() and (grad[:, 2] != 0).any()
    with pytest.raises(ValueError, match="within 0 and 2"):
        F.ctc_loss(logs, targets, gf.tensor([3, 2, 2]), gf.tensor(SIZES))


def test_compiled_agrees():
    def program(jit):
        x = gf.tensor(SCORES, dtype=gf.float32, requires_grad=True)
        loss = jit(lambda x: loss_of(x, "mean"))(x)
        loss.backward()
        return [loss, x.grad]

    agree(program, rtol=1e-5, atol=1e-6)
