"""cuBLASLt itself, beside float64 on the CPU: types, transposes, batches, epilogues, replay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow.runtime.cuda import library
from tests.cudasim.models import training_step

N = 192
TOLERANCES = {gf.float32: 1e-5, gf.float64: 1e-12, gf.float16: 2e-3, gf.bfloat16: 2e-2}


@pytest.fixture(autouse=True)
def there() -> None:
    if isinstance(found := library.library(0), str):
        pytest.skip(found)


def data(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def checked(
    function: Callable[..., gf.Tensor],
    arrays: list[np.ndarray[Any, Any]],
    dtype: gf.dtype,
    tolerance: float | None = None,
) -> Any:
    """``function`` by the library against float64; the compiled function."""
    given = [gf.tensor(a).to(dtype) for a in arrays]
    step = gf.compile(function)
    found = [step(*(x.cuda() for x in given)).cpu().double().numpy() for _ in range(4)]
    wanted = function(*(x.double() for x in given)).numpy()
    room = (tolerance or TOLERANCES[dtype]) * np.abs(wanted).max()
    assert max(np.abs(x - wanted).max() for x in found) <= room
    assert all(np.array_equal(x, found[0]) for x in found), "walked and replayed are the same bits"
    assert "by cuBLASLt" in str(step.explain()), step.explain()
    return step


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("turned", [(0, 0), (0, 1), (1, 0), (1, 1)], ids=str)
def test_types_and_transposes(dtype: gf.dtype, turned: tuple[int, int]) -> None:
    def product(a: gf.Tensor, b: gf.Tensor) -> gf.Tensor:
        return (a.T if turned[0] else a) @ (b.T if turned[1] else b)

    a = data(*((N, 64) if not turned[0] else (64, N)))
    b = data(*((64, 80) if not turned[1] else (80, 64)), seed=1)
    checked(product, [a, b], dtype)


@pytest.mark.parametrize("dtype", [gf.float32, gf.float16, gf.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["bias", "relu", "gelu", "tanh", "residual"])
def test_what_follows(dtype: gf.dtype, name: str) -> None:
    then: dict[str, Callable[[gf.Tensor, gf.Tensor], gf.Tensor]] = {
        "bias": lambda y, r: y, "relu": lambda y, r: y.relu(),
        "gelu": lambda y, r: F.gelu(y, approximate="tanh"), "tanh": lambda y, r: y.tanh(),
        "residual": lambda y, r: y + r,
    }  # fmt: skip

    def layer(x: gf.Tensor, w: gf.Tensor, b: gf.Tensor, r: gf.Tensor) -> gf.Tensor:
        return then[name](F.linear(x, w, b), r)

    given = [data(N, 64), data(80, 64), data(80), data(N, 80)]
    checked(layer, given, dtype, 2 * TOLERANCES[dtype] if name == "residual" else None)


def test_relu_of_nan_is_nan_or_the_library_must_not_compute_it() -> None:
    x = data(N, 64)
    x[3, 5] = np.nan
    step = gf.compile(lambda x, w: (x @ w).relu())
    found = step(gf.tensor(x).float().cuda(), gf.tensor(data(64, 80)).float().cuda())
    assert found[3].isnan().all().item()


@pytest.mark.parametrize("shape", [(8, 64, 64), (2, 6, 64, 48)], ids=str)
def test_batches(shape: tuple[int, ...]) -> None:
    checked(lambda a, b: a @ b.mT, [data(*shape), data(*shape, seed=1)], gf.float32)

    def heads(q: gf.Tensor, k: gf.Tensor) -> gf.Tensor:
        q, k = (x.view(4, N, 8, 32).transpose(1, 2) for x in (q, k))
        return q @ k.mT * 0.125

    checked(heads, [data(4, N, 256), data(4, N, 256, seed=1)], gf.float16)


def test_tf32_is_less_precise_where_it_is_allowed_only() -> None:
    a, b = (gf.tensor(data(512, 512, seed=n)).float().cuda() for n in (0, 1))
    wanted = a.cpu().double() @ b.cpu().double()
    errors = []
    for precision in ("highest", "high"):
        gf.set_float32_matmul_precision(precision)
        step = gf.compile(lambda a, b: a @ b)
        errors.append(float((step(a, b).cpu().double() - wanted).abs().max() / wanted.abs().max()))
    gf.set_float32_matmul_precision("highest")
    assert errors[0] < 1e-5 and errors[1] < 5e-3


def test_operands_that_begin_anywhere() -> None:
    x, w = gf.randn(65, 33).cuda(), gf.randn(33, 40).cuda()
    found = gf.compile(lambda x, w: x @ w)(x[1:], w)
    np.testing.assert_allclose(found.tolist(), (x[1:].cpu() @ w.cpu()).tolist(), atol=1e-4)


def test_a_step_learns_as_on_the_cpu() -> None:
    losses = []
    for device in ("cpu", "cuda"):
        gf.manual_seed(0)
        model = gf.nn.Sequential(gf.nn.Linear(256, 512), gf.nn.ReLU(), gf.nn.Linear(512, 10))
        model.to(device)
        optimizer = gf.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        x, y = gf.tensor(data(128, 256)).float().to(device), (gf.arange(128) % 10).to(device)
        step: Any = gf.compile(training_step(model, optimizer))
        losses.append([float(step(x, y)) for _ in range(8)])
    np.testing.assert_allclose(losses[1], losses[0], rtol=2e-3)
