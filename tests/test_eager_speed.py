"""What eager code does to be quick, which must not show: NumPy's warnings, layouts, shortcuts."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.special

import graphflow as gf
import graphflow.nn.functional as F
from graphflow.quiet import quietly
from tests.threads import in_threads

RNG = np.random.default_rng(7)


def divided() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(gf.log(gf.zeros(2)).numpy(), [-np.inf, -np.inf])


def test_infinities_are_values_in_every_thread_and_numpy_keeps_its_settings() -> None:
    in_threads(1, lambda number: divided())
    divided()
    with np.errstate(divide="raise"):
        divided()
        with pytest.raises(FloatingPointError):
            np.log(np.zeros(1))


def test_quiet_calls_nest_and_pass_errors_on() -> None:
    def outer(x: np.ndarray) -> np.ndarray:
        with pytest.raises(RuntimeError, match="of its own"):
            quietly(failing, (), {})
        return quietly(np.log, (x,), {})  # type: ignore[no-any-return]

    def failing() -> None:
        raise RuntimeError("of its own")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isneginf(quietly(outer, (np.zeros(1),), {})).all()


def test_log_softmax_and_two_derivatives() -> None:
    x = RNG.standard_normal((3, 4))
    for dim in (0, 1, -1):
        got = gf.log_softmax(gf.tensor(x), dim)
        np.testing.assert_allclose(got.numpy(), scipy.special.log_softmax(x, dim), rtol=1e-12)
        leaf = gf.tensor(x, requires_grad=True)
        assert gf.autograd.gradgradcheck(lambda a, d=dim: gf.log_softmax(a, d), leaf)
    np.testing.assert_array_equal(
        gf.log_softmax(gf.tensor([[1000.0, 0.0], [-1000.0, -1000.0]]), 1).numpy(),
        np.array([[0.0, -1000.0], [-np.log(2.0), -np.log(2.0)]], np.float32),
    )


@pytest.mark.parametrize("ignored", [(), (1,), (0, 1, 2, 3)])
@pytest.mark.parametrize("how", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
def test_ignored_classes(ignored: tuple[int, ...], how: str, weighted: bool) -> None:
    x, classes = RNG.standard_normal((4, 5)), np.array([4, 0, 2, 2])
    classes[list(ignored)] = -100
    kept = classes != -100
    weight = RNG.uniform(0.5, 2, 5) if weighted else np.ones(5)
    index = np.where(kept, classes, 0)
    share = weight[index] * kept
    want = -scipy.special.log_softmax(x, 1)[np.arange(4), index] * share
    if how != "none":
        with np.errstate(invalid="ignore"):
            want = want.sum() / (share.sum() if how == "mean" else 1)
    got = F.cross_entropy(
        gf.tensor(x),
        gf.tensor(classes),
        gf.tensor(weight) if weighted else None,
        reduction=how,
    )
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-12)


def test_a_weights_gradient_lies_like_the_weight() -> None:
    x, weight = gf.randn(6, 4), gf.randn(3, 4, requires_grad=True)
    out = F.linear(x, weight)
    out.backward(gf.ones(6, 3))
    assert weight.grad is not None
    assert weight.grad.is_contiguous()
    np.testing.assert_allclose(weight.grad.numpy(), np.ones((3, 6)) @ x.numpy(), rtol=1e-5)
    assert (x.t() @ gf.ones(6, 3)).is_contiguous()


@pytest.mark.parametrize("source", [(), (1,), (3, 1), (1, 4), (2, 3, 1)])
def test_expanded_memory_is_shared_and_read_only(source: tuple[int, ...]) -> None:
    array = RNG.standard_normal(source)
    shape = (2, 3, 4)
    for given in (array, np.asfortranarray(array), array[..., ::-1] if source else array):
        made = gf.from_numpy(given).expand(*shape)
        np.testing.assert_array_equal(made.numpy(), np.broadcast_to(given, shape))
        assert np.shares_memory(made.numpy(), array) or given is not array
        with pytest.raises(gf.GraphFlowError, match="share one memory"):
            made.add_(1)
