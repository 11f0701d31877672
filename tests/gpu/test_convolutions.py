"""cuDNN itself, beside float64 on the CPU: convolutions and their gradients, types, replay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow.codegen.cuda.convolution import Convolution
from graphflow.runtime.cuda import library
from tests.cudasim.models import training_step

TOLERANCES = {gf.float32: 1e-5, gf.float64: 1e-12, gf.float16: 4e-3, gf.bfloat16: 3e-2}
TF32 = 2e-3
CASES: dict[str, tuple[Any, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "padded": (F.conv2d, (16, 32, 28, 28), (64, 32, 3, 3), {"padding": 1}),
    "strided": (F.conv2d, (16, 32, 28, 28), (64, 32, 3, 3), {"padding": 1, "stride": 2}),
    "dilated": (F.conv2d, (16, 32, 28, 28), (64, 32, 3, 3), {"padding": 2, "dilation": 2}),
    "a stem": (F.conv2d, (8, 3, 64, 64), (64, 3, 7, 7), {"padding": 3, "stride": 2}),
    "channels first": (F.conv2d, (8, 4, 32, 32), (4, 4, 5, 5), {"padding": 2}),
    "five channels": (F.conv2d, (8, 5, 31, 29), (11, 5, 3, 3), {"padding": 1}),
    "groups": (F.conv2d, (8, 64, 28, 28), (64, 16, 3, 3), {"padding": 1, "groups": 4}),
    "one axis": (F.conv1d, (16, 32, 256), (64, 32, 5), {"padding": 2}),
    "three axes": (F.conv3d, (4, 16, 8, 14, 14), (32, 16, 3, 3, 3), {"padding": 1}),
    "one by one, strided": (F.conv2d, (16, 64, 28, 28), (128, 64, 1, 1), {"stride": 2}),
}


@pytest.fixture(autouse=True)
def there() -> None:
    if isinstance(found := library.library(0, Convolution), str):
        pytest.skip(found)


def data(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def gradients(conv: Any, x: gf.Tensor, w: gf.Tensor, ct: gf.Tensor) -> tuple[gf.Tensor, ...]:
    """A convolution's result, and the gradients of both operands for a cotangent."""
    x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
    y = conv(x, w)
    y.backward(ct)
    assert x.grad is not None and w.grad is not None
    return y.detach(), x.grad, w.grad


def checked(name: str, dtype: gf.dtype, tolerance: float) -> Any:
    """A case by cuDNN against float64; the compiled function."""
    conv, images, filters, options = CASES[name]

    def function(x: gf.Tensor, w: gf.Tensor, ct: gf.Tensor) -> tuple[gf.Tensor, ...]:
        return gradients(lambda x, w: conv(x, w, **options), x, w, ct)

    x, w = (gf.tensor(data(*shape)).to(dtype) for shape in (images, filters))
    ct = gf.tensor(data(*conv(x.float(), w.float(), **options).shape)).to(dtype)
    step = gf.compile(function)
    runs = [
        [r.cpu().double().numpy() for r in step(x.cuda(), w.cuda(), ct.cuda())] for _ in range(4)
    ]
    wanted = [r.numpy() for r in function(x.double(), w.double(), ct.double())]
    text = str(step.explain())
    for n, what in enumerate(("response", "gradient of images", "gradient of filters")):
        error = np.abs(runs[0][n] - wanted[n]).max() / np.abs(wanted[n]).max()
        assert error <= tolerance, f"{what}: {error:.1e}\n{text}"
        same = all(np.array_equal(run[n], runs[0][n]) for run in runs)
        assert same, f"{what}: walked and replayed differ\n{text}"
    assert "by cuDNN" in text, text
    return step


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gf.backends.cudnn, "deterministic", True)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("tf32", [False, True], ids=["float32", "tf32"])
def test_float32(name: str, tf32: bool, steady: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gf.backends.cudnn, "allow_tf32", tf32)
    checked(name, gf.float32, TF32 if tf32 else TOLERANCES[gf.float32])


@pytest.mark.parametrize("name", ["padded", "strided", "a stem", "five channels"])
@pytest.mark.parametrize("dtype", [gf.float16, gf.bfloat16, gf.float64], ids=str)
def test_other_types(name: str, dtype: gf.dtype, steady: None) -> None:
    checked(name, dtype, TOLERANCES[dtype])


@pytest.mark.parametrize("name", ["padded", "strided", "dilated", "a stem"])
def test_all_of_it_is_the_librarys(name: str, steady: None) -> None:
    text = str(checked(name, gf.float32, TF32).explain())
    assert "by kernels of our own" not in text, text


def test_what_follows_is_kept(steady: None) -> None:
    x, w, b = (gf.tensor(data(*s)).float() for s in ((8, 32, 28, 28), (64, 32, 3, 3), (64,)))
    step = gf.compile(lambda x, w, b: F.conv2d(x, w, b, padding=1).relu())
    found = step(x.cuda(), w.cuda(), b.cuda()).cpu().double().numpy()
    wanted = F.conv2d(x.double(), w.double(), b.double(), padding=1).relu().numpy()
    assert np.abs(found - wanted).max() <= TF32 * wanted.max()
    assert "by cuDNN" in str(step.explain())


def test_the_switches_say_what_there_is() -> None:
    assert gf.backends.cudnn.is_available() and (gf.backends.cudnn.version() or 0) >= 90000


def test_a_residual_network_learns_as_on_the_cpu(
    steady: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gf.backends.cudnn, "allow_tf32", False)
    losses = []
    for device in ("cpu", "cuda"):
        gf.manual_seed(0)
        from graphflow.vision.models import resnet18

        model = resnet18(num_classes=10).to(device)
        optimizer = gf.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
        x = gf.tensor(data(8, 3, 64, 64)).float().to(device)
        y = (gf.arange(8) % 10).to(device)
        step: Any = gf.compile(training_step(model, optimizer))
        losses.append([float(step(x, y)) for _ in range(4)])
    np.testing.assert_allclose(losses[1], losses[0], rtol=5e-3)
    assert "by cuDNN" in str(step.explain())
