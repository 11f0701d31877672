"""Random numbers: distributions by Kolmogorov and Smirnov's test, seeds, both modes, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

import graphflow as gf
from graphflow.errors import DTypeError, GraphFlowError

N = 20_000
SEED = 17
CHANCE = 1e-3

CONTINUOUS: dict[str, tuple[Any, Any]] = {
    "rand": (lambda: gf.rand(N), stats.uniform()),
    "rand f64": (lambda: gf.rand(N, dtype=gf.float64), stats.uniform()),
    "randn": (lambda: gf.randn(N), stats.norm()),
    "normal": (lambda: gf.normal(2.0, 3.0, (N,)), stats.norm(2, 3)),
    "normal of tensors": (lambda: gf.normal(gf.full((N,), 2.0), gf.tensor(3.0)), stats.norm(2, 3)),
    "uniform_": (lambda: gf.empty(N).uniform_(-1, 3), stats.uniform(-1, 4)),
    "normal_": (lambda: gf.empty(N).normal_(1, 0.5), stats.norm(1, 0.5)),
    "exponential_": (lambda: gf.empty(N).exponential_(2.0), stats.expon(scale=0.5)),
    "cauchy_": (lambda: gf.empty(N).cauchy_(1, 2), stats.cauchy(1, 2)),
    "log_normal_": (lambda: gf.empty(N).log_normal_(1, 0.5), stats.lognorm(0.5, scale=np.e)),
}


@pytest.mark.parametrize("name", CONTINUOUS)
def test_continuous_distributions(name: str) -> None:
    draw, expected = CONTINUOUS[name]
    gf.manual_seed(SEED)
    assert stats.kstest(draw().numpy(), expected.cdf).pvalue > CHANCE


DISCRETE: dict[str, tuple[Any, list[float]]] = {
    "randint": (lambda: gf.randint(2, 5, (N,)) - 2, [1 / 3] * 3),
    "randint_like": (lambda: gf.randint_like(gf.ones(N), 4), [0.25] * 4),
    "random_": (lambda: gf.empty(N, dtype=gf.int32).random_(1, 3) - 1, [0.5, 0.5]),
    "bernoulli": (lambda: gf.bernoulli(gf.full((N,), 0.3)), [0.7, 0.3]),
    "bernoulli p": (lambda: gf.empty(N).bernoulli(0.3), [0.7, 0.3]),
    "bernoulli_": (lambda: gf.empty(N, dtype=gf.int64).bernoulli_(0.2), [0.8, 0.2]),
    "geometric_": (
        lambda: gf.empty(N).geometric_(0.5).clamp(max=4) - 1, [0.5, 0.25, 0.125, 0.125]
    ),
    "multinomial": (
        lambda: gf.multinomial(gf.tensor([1.0, 0.0, 3.0]), N, replacement=True), [0.25, 0, 0.75]
    ),
    "multinomial, one": (
        lambda: gf.multinomial(gf.tensor([[1.0, 0.0, 3.0]]).expand(N, 3), 1)[:, 0], [0.25, 0, 0.75]
    ),
    "multinomial, first": (
        lambda: gf.multinomial(gf.tensor([[1.0, 0.0, 3.0]]).expand(N, 3), 2)[:, 0], [0.25, 0, 0.75]
    ),
    "randperm": (lambda: gf.stack([gf.randperm(4)[0] for _ in range(400)]), [0.25] * 4),
}  # fmt: skip


@pytest.mark.parametrize("name", DISCRETE)
def test_discrete_distributions(name: str) -> None:
    draw, odds = DISCRETE[name]
    gf.manual_seed(SEED)
    counts = np.bincount(draw().numpy().astype(np.int64), minlength=len(odds))
    assert len(counts) == len(odds) and not counts[np.array(odds) == 0].any()
    likely = [(c, p * counts.sum()) for c, p in zip(counts, odds, strict=True) if p]
    assert stats.chisquare(*zip(*likely, strict=True)).pvalue > CHANCE


def every(p: gf.Tensor) -> list[gf.Tensor]:
    return [
        gf.rand(4), gf.randn(3, dtype=gf.float64), gf.randint(9, (4,)), gf.randperm(7),
        gf.multinomial(p, 5, True), gf.multinomial(p, 2), gf.bernoulli(p), gf.normal(p, p),
        gf.empty(3).cauchy_(), gf.empty(3).geometric_(0.5), gf.rand(3, dtype=gf.float16),
        gf.empty(3, dtype=gf.int64).random_(), gf.rand_like(p), gf.empty(2).log_normal_(),
        gf.empty(3, dtype=gf.bfloat16).uniform_(),
    ]  # fmt: skip


def test_seeds_repeat_and_compiled_draws_are_the_eager_ones() -> None:
    p = gf.tensor([0.2, 0.5, 0.3])
    runs = []
    for function in (every, every, gf.compile(every)):
        gf.manual_seed(SEED)
        runs.append([*function(p), *function(p)])
    for first, again, compiled in zip(*runs, strict=True):
        np.testing.assert_array_equal(first.numpy(), again.numpy())
        assert compiled.dtype is first.dtype
        np.testing.assert_allclose(
            compiled.float().numpy(), first.float().numpy(), rtol=2e-6, atol=1e-6
        )
    half = len(runs[0]) // 2
    assert not np.array_equal(runs[0][0].numpy(), runs[0][half].numpy())


def test_generators_are_streams_of_their_own() -> None:
    one, other = gf.Generator().manual_seed(5), gf.Generator().manual_seed(5)
    first = gf.rand(3, generator=one)
    gf.rand(3)
    assert gf.rand(3, generator=other).tolist() == first.tolist()
    state = one.get_state()
    later = gf.randperm(6, generator=one)
    one.set_state(state)
    assert gf.randperm(6, generator=one).tolist() == later.tolist()


def test_narrow_formats_stay_below_one() -> None:
    for dtype, step in ((gf.float16, 2.0**-11), (gf.bfloat16, 2.0**-8)):
        found = gf.rand(50_000, dtype=dtype)
        values = found.double().numpy()
        assert found.dtype is dtype and values.max() == 1 - step and values.min() == 0


def test_shapes_and_dtypes() -> None:
    x = gf.ones(2, 3, dtype=gf.float64)
    assert gf.rand(size=(2, 1)).shape == (2, 1) and gf.randn(0, 3).shape == (0, 3)
    assert gf.randn_like(x).dtype is gf.float64 and gf.rand_like(x, dtype=gf.float32).ndim == 2
    assert gf.randint_like(x, 3).dtype is gf.float64 and gf.randint(3, (2,)).dtype is gf.int64
    assert gf.normal(gf.ones(2, 1), gf.ones(3)).shape == (2, 3)
    assert gf.multinomial(gf.ones(2, 5), 3).shape == (2, 3)
    assert gf.multinomial(gf.ones(2, 5), 1).shape == (2, 1)
    assert sorted(gf.randperm(9, dtype=gf.int32).tolist()) == list(range(9))
    assert gf.randn(2, requires_grad=True).requires_grad


BAD: list[tuple[Any, type[Exception], str]] = [
    (lambda: gf.bernoulli(gf.tensor([1.5])), GraphFlowError, "between 0 and 1"),
    (lambda: gf.bernoulli(gf.tensor([float("nan")])), GraphFlowError, "between 0 and 1"),
    (lambda: gf.ones(2).bernoulli_(-0.1), GraphFlowError, "between 0 and 1"),
    (lambda: gf.bernoulli(gf.tensor([1])), DTypeError, "floating"),
    (lambda: gf.normal(0.0, -1.0, (2,)), GraphFlowError, ">= 0"),
    (lambda: gf.normal(0.0, 1.0), TypeError, "size"),
    (lambda: gf.rand(2, dtype=gf.int64), DTypeError, "floating"),
    (lambda: gf.randint(3, 3, (2,)), GraphFlowError, "low < high"),
    (lambda: gf.ones(2).uniform_(3, 1), GraphFlowError, "from <= to"),
    (lambda: gf.tensor([1]).normal_(), DTypeError, "floating"),
    (lambda: gf.ones(2).exponential_(0.0), GraphFlowError, "above 0"),
    (lambda: gf.ones(2).geometric_(1.5), GraphFlowError, "between 0 and 1"),
    (lambda: gf.multinomial(gf.tensor([1.0, -1.0]), 1), GraphFlowError, ">= 0"),
    (lambda: gf.multinomial(gf.zeros(2), 1), GraphFlowError, "not all 0"),
    (lambda: gf.multinomial(gf.ones(2), 3), GraphFlowError, "without replacement"),
    (lambda: gf.multinomial(gf.ones(2), 0), GraphFlowError, "num_samples > 0"),
    (lambda: gf.randperm(-1), GraphFlowError, "n >= 0"),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(BAD)))
def test_one_clear_error(number: int) -> None:
    call, error, message = BAD[number]
    with pytest.raises(error, match=message):
        call()
