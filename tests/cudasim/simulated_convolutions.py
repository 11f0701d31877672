"""Convolutions by a library: descriptions executed in NumPy by cuDNN's documented meaning.

Run by ``tests/test_cuda.py`` in the simulator.  cuDNN itself runs on a GPU only; what is shown
here is that it would be asked for the right convolutions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn, on_device
from graphflow.codegen.cuda import parted
from graphflow.codegen.cuda.convolution import FORWARD, WEIGHTS
from tests.cudasim.models import training_step
from tests.cudasim.numpy_convolutions import NumpyConvolutions
from tests.cudasim.numpy_library import in_place_of_cudnn

Array = np.ndarray[Any, Any]


@pytest.fixture
def lib(monkeypatch: pytest.MonkeyPatch) -> Iterator[NumpyConvolutions]:
    made = in_place_of_cudnn(monkeypatch.setattr)
    on_device._programs.clear()
    yield made
    on_device._programs.clear()


def array(rng: np.random.Generator, *shape: int) -> Array:
    return rng.normal(size=shape).astype(np.float32)


def gradients(conv: Any, x: gf.Tensor, w: gf.Tensor) -> tuple[gf.Tensor, ...]:
    """A result of ``conv`` on rectified images, and the gradients of both operands."""
    x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
    y = conv(x.relu(), w)
    y.sin().sum().backward()
    assert x.grad is not None and w.grad is not None
    return y.detach(), x.grad, w.grad


def same(conv: Any, x: Array, w: Array) -> Any:
    """The program of a convolution and its gradients, which are those of the CPU."""
    step = gf.compile(lambda x, w: gradients(conv, x, w))
    found = step(*(gf.tensor(a).cuda() for a in (x, w)))
    wanted = gradients(conv, *(gf.tensor(a).double() for a in (x, w)))
    for one, other in zip(found, wanted, strict=True):
        a, b = one.cpu().numpy(), other.numpy()
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5 * max(1, np.abs(b).max()))
    return step


CASES: dict[str, tuple[Any, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "plain": (F.conv2d, (2, 8, 9, 8), (9, 8, 3, 3), {}),
    "padded": (F.conv2d, (2, 8, 6, 7), (9, 8, 3, 3), {"padding": 1}),
    "strided": (F.conv2d, (2, 8, 8, 9), (9, 8, 3, 3), {"padding": 1, "stride": 2}),
    "strided by two numbers": (F.conv2d, (2, 8, 8, 11), (9, 8, 3, 2), {"stride": (2, 3)}),
    "dilated": (F.conv2d, (2, 8, 9, 10), (9, 8, 3, 3), {"dilation": 2, "padding": 2}),
    "channels first": (F.conv2d, (2, 3, 8, 8), (4, 3, 3, 3), {"padding": 1}),
    "a stem": (F.conv2d, (2, 3, 16, 16), (8, 3, 7, 7), {"padding": 3, "stride": 2}),
    "groups": (F.conv2d, (2, 16, 8, 8), (24, 8, 3, 3), {"padding": 1, "groups": 2}),
    "one axis": (F.conv1d, (3, 8, 13), (9, 8, 3), {"padding": 1}),
    "three axes": (F.conv3d, (2, 8, 4, 5, 6), (9, 8, 2, 3, 2), {}),
    "a single image": (F.conv2d, (1, 8, 8, 8), (9, 8, 3, 3), {"padding": 1}),
    "a single channel": (F.conv2d, (2, 1, 9, 9), (8, 1, 3, 3), {}),
    "a single filter": (F.conv2d, (2, 8, 9, 9), (1, 8, 3, 3), {}),
    "one by one at every second place": (F.conv2d, (2, 8, 8, 8), (9, 8, 1, 1), {"stride": 2}),
    "as large as the image": (F.conv2d, (2, 8, 4, 4), (9, 8, 4, 4), {}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_convolution_and_its_gradients(lib: NumpyConvolutions, name: str) -> None:
    conv, images, filters, options = CASES[name]
    rng = np.random.default_rng([3, len(name)])
    step = same(lambda x, w: conv(x, w, **options), array(rng, *images), array(rng, *filters))
    text = str(step.explain())
    own = re.findall(r"kernels of our own \([^)]*\): (.*)", text)
    assert all("no cuBLASLt" in why for why in own), text
    if name != "as large as the image":
        assert len(lib.calls) >= 2 and f"{len(lib.calls)} by NumPy's convolutions" in text, text


def test_filters_are_in_the_order_of_images(lib: NumpyConvolutions) -> None:
    rng = np.random.default_rng(0)
    x, w = array(rng, 2, 8, 7, 7), array(rng, 16, 8, 3, 3)
    same(lambda x, w: F.conv2d(F.conv2d(x, w, padding=1), w.mT.reshape(8, 16, 3, 3)), x, w)
    last = [c for c in lib.calls if c.image.strides[1] == 1]
    assert len(last) >= 3 and {c.form for c in last} == {FORWARD, WEIGHTS}
    for call in last:
        (_, c, r, s), filters = call.filter.extents, call.filter.strides
        assert filters == (c * r * s, 1, s * c, c), call
        assert call.response.strides[1] == 1, call


def test_what_follows_is_a_kernel_of_its_own(lib: NumpyConvolutions) -> None:
    rng = np.random.default_rng(1)
    x, w, b = array(rng, 2, 8, 9, 9), array(rng, 9, 8, 3, 3), array(rng, 9)
    step = gf.compile(lambda x, w, b: F.conv2d(x, w, b).relu())
    found = step(*(gf.tensor(a).cuda() for a in (x, w, b))).cpu().numpy()
    wanted = F.conv2d(*(gf.tensor(a) for a in (x, w, b))).relu().numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert len(lib.calls) == 1 and "products: 1 by NumPy's convolutions" in str(step.explain())


def test_small_ones_stay_with_what_follows(
    lib: NumpyConvolutions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parted, "LEAST_WORK", 1 << 20)
    rng = np.random.default_rng(2)
    step = gf.compile(lambda x, w: F.conv2d(x, w).relu())
    step(*(gf.tensor(a).cuda() for a in (array(rng, 2, 8, 9, 9), array(rng, 9, 8, 3, 3))))
    assert not lib.calls and "a convolution is not the library's with what" in str(step.explain())


def test_precision(lib: NumpyConvolutions, monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = gf.randn(2, 8, 9, 9).cuda(), gf.randn(9, 8, 3, 3).cuda()
    assert gf.backends.cudnn.allow_tf32, "as in PyTorch"
    for allowed, wanted in ((True, "tf32"), (False, "f32")):
        monkeypatch.setattr(gf.backends.cudnn, "allow_tf32", allowed)
        gf.compile(lambda x, w: F.conv2d(x, w))(x, w), F.conv2d(x, w)
        assert len(lib.calls) >= 2, "compiled and eagerly"
        assert {c.compute for c in lib.calls} == {wanted}
        lib.calls.clear()
    for switches in (gf.backends.cudnn, gf.backends.cuda):
        monkeypatch.setattr(switches, "deterministic", True)
        gf.compile(lambda x, w: F.conv2d(x, w))(x, w)
        assert lib.calls[-1].deterministic
        monkeypatch.setattr(switches, "deterministic", False)
    gf.compile(lambda x, w: F.conv2d(x, w))(x.double(), w.double())
    assert lib.calls[-1].compute == "f64" and not lib.calls[-1].deterministic


@pytest.mark.parametrize("half", [gf.float16, gf.bfloat16], ids=str)
def test_autocast(lib: NumpyConvolutions, half: gf.dtype) -> None:
    gf.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3)
    ).cuda()

    @gf.compile
    def step(x: gf.Tensor) -> gf.Tensor:
        with gf.autocast("cuda", dtype=half):
            loss = model(x).float().square().mean()
        loss.backward()
        return loss

    step(gf.randn(2, 8, 5, 5).cuda())
    short = "f16" if half is gf.float16 else "bf16"
    assert {(c.dtypes, c.compute) for c in lib.calls} == {((short,) * 3, "f32")}
    assert len(lib.calls) == 5, "two forward, two gradients of filters, one of what is between"


def test_why_kernels_of_our_own_are_used(
    lib: NumpyConvolutions, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, w = gf.randn(2, 8, 9, 9).cuda(), gf.randn(9, 8, 3, 3).cuda()
    lib.refused.add(FORWARD)
    step = gf.compile(lambda x, w: F.conv2d(x, w))
    wanted = F.conv2d(x.cpu(), w.cpu()).numpy()
    np.testing.assert_allclose(step(x, w).cpu().numpy(), wanted, atol=1e-4)
    assert "NumPy's convolutions: nothing for forward" in str(step.explain()) and not lib.calls
    monkeypatch.setattr(gf.backends.cudnn, "enabled", False)
    step = gf.compile(lambda x, w: F.conv2d(x, w))
    np.testing.assert_allclose(step(x, w).cpu().numpy(), wanted, atol=1e-4)
    assert "gf.backends.cudnn.enabled is off" in str(step.explain()) and not lib.calls
    assert not gf.backends.cudnn.version()


class Block(nn.Module):
    """Two convolutions with normalisations beside a shorter way."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, width, 3, stride=stride, padding=1, bias=False)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(width) for _ in range(3)])
        self.way = nn.Conv2d(inputs, width, 1, stride=stride, bias=False)

    def forward(self, x: gf.Tensor) -> gf.Tensor:
        y = self.norms[1](self.second(self.norms[0](self.first(x)).relu()))
        return (y + self.norms[2](self.way(x))).relu()


def trained(device: str) -> tuple[list[float], list[Array]]:
    gf.manual_seed(0)
    rng = np.random.default_rng(4)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.MaxPool2d(2), Block(8, 8, 1), Block(8, 16, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(16, 5),
    ).to(device)  # fmt: skip
    optimizer = gf.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    x, y = (gf.tensor(a).to(device) for a in (array(rng, 4, 3, 16, 16), np.arange(4)))

    step = gf.compile(training_step(model, optimizer))
    losses = [float(step(x, y)) for _ in range(3)]
    return losses, [p.detach().cpu().numpy() for p in model.parameters()]


def test_a_residual_network_learns_as_on_the_cpu(lib: NumpyConvolutions) -> None:
    (a, p), (b, q) = trained("cpu"), trained("cuda")
    np.testing.assert_allclose(a, b, atol=2e-4)
    assert all(np.abs(x - y).max() <= 5e-4 for x, y in zip(p, q, strict=True))
    assert len(lib.calls) >= 3 * 12
    other = {c for c in lib.calls if c.image.strides[1] != 1 and c.image.extents[1] >= 8}
    assert not other, "\n".join(map(str, other))


def test_other_numbers_of_images(lib: NumpyConvolutions) -> None:
    step = gf.compile(lambda x, w: F.conv2d(x, w, padding=1), dynamic=True)
    w = gf.randn(9, 8, 3, 3)
    for images in (2, 5, 3):
        x = gf.randn(images, 8, 7, 7)
        found = step(x.cuda(), w.cuda()).cpu().numpy()
        np.testing.assert_allclose(found, F.conv2d(x, w, padding=1).numpy(), atol=1e-4)
        assert lib.calls[-1].response.extents[0] == images


def test_operands_that_begin_anywhere_are_a_kernels(lib: NumpyConvolutions) -> None:
    step = gf.compile(lambda x, w: F.conv2d(x, w))
    whole, w = gf.randn(3, 1, 5, 5), gf.randn(9, 1, 3, 3)
    found = step(whole.cuda()[1:], w.cuda()).cpu().numpy()
    np.testing.assert_allclose(found, F.conv2d(whole[1:], w).numpy(), atol=1e-4)
    assert {n for _, a in lib.prepared_for for n in a} <= {16, 4}


def test_zeros_around_are_the_librarys_and_need_no_copy(lib: NumpyConvolutions) -> None:
    rng = np.random.default_rng(5)
    x, w = array(rng, 2, 4, 7, 7), array(rng, 5, 4, 3, 3)
    step = same(lambda x, w: F.conv2d(x, w, padding=1), x, w)
    assert "padded copies spared: 3" in str(step.explain())
    assert {(c.form, c.low, c.high) for c in lib.calls} == {
        (FORWARD, (1, 1), (1, 1)), (WEIGHTS, (1, 1), (1, 1)),
    }  # fmt: skip
    assert {c.image.extents for c in lib.calls} == {(2, 4, 7, 7), (2, 5, 7, 7)}


def test_first_images_are_copied_in_the_order_of_responses(lib: NumpyConvolutions) -> None:
    rng = np.random.default_rng(12)
    x, w = array(rng, 2, 3, 11, 11), array(rng, 16, 3, 5, 5)
    same(lambda x, w: F.conv2d(x, w, padding=2, stride=2), x, w)
    stems = [c for c in lib.calls if c.image.extents[1] == 3]
    assert {c.form for c in stems} == {FORWARD, WEIGHTS}
    for call in stems:
        assert (call.image.strides[1], call.filter.strides[1], call.response.strides[1]) == (1,) * 3


def test_what_the_library_cannot_pad_is_copied(lib: NumpyConvolutions) -> None:
    lib.pads = False
    rng = np.random.default_rng(6)
    step = same(
        lambda x, w: F.conv2d(x, w, padding=(2, 1)), array(rng, 2, 8, 7, 7), array(rng, 9, 8, 3, 3)
    )
    assert "spared" not in str(step.explain()) and len(lib.calls) == 3
    assert all(c.low == c.high == (0, 0) for c in lib.calls)


def test_images_that_begin_anywhere_are_copied_with_zeros_around(lib: NumpyConvolutions) -> None:
    step = gf.compile(lambda x, w: F.conv2d(x, w, padding=1))
    whole, w = gf.randn(3, 1, 5, 5), gf.randn(9, 1, 3, 3)
    for begin in (0, 1, 0):
        found = step(whole.cuda()[begin:], w.cuda()).cpu().numpy()
        wanted = F.conv2d(whole[begin:], w, padding=1).numpy()
        np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_a_padded_image_that_others_read_is_there(lib: NumpyConvolutions) -> None:
    def both(x: gf.Tensor, w: gf.Tensor) -> gf.Tensor:
        wide = F.pad(x, (1, 1, 1, 1))
        return F.conv2d(wide, w)[:, :1] + wide[:, :1, 1:-1, 1:-1].cos() + wide.sum()

    rng = np.random.default_rng(7)
    x, w = array(rng, 2, 8, 6, 6), array(rng, 9, 8, 3, 3)
    step = gf.compile(both)
    found = step(gf.tensor(x).cuda(), gf.tensor(w).cuda()).cpu().numpy()
    np.testing.assert_allclose(found, both(gf.tensor(x), gf.tensor(w)).numpy(), atol=1e-3)
    assert "spared" not in str(step.explain()) and len(lib.calls) == 1


def test_state_that_is_padded_and_then_written(lib: NumpyConvolutions) -> None:
    """The convolution reads what the copy would have read, before that changes."""
    results = []
    for device in ("cpu", "cuda"):
        image = gf.tensor(array(np.random.default_rng(9), 2, 8, 6, 6)).to(device)
        w = gf.tensor(array(np.random.default_rng(10), 8, 8, 3, 3) / 8).to(device)

        @gf.compile
        def step(w: gf.Tensor, image: gf.Tensor = image) -> gf.Tensor:
            made = F.conv2d(image, w, padding=1)
            image.mul_(0.5)
            image.add_(made)
            return made.sum()

        sums = [float(step(w)) for _ in range(3)]
        results.append((sums, image.cpu().numpy()))
    np.testing.assert_allclose(results[1][0], results[0][0], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(results[1][1], results[0][1], atol=1e-4)
    assert len(lib.calls) == 3


def test_in_the_body_of_a_loop(lib: NumpyConvolutions) -> None:
    def layers(x: gf.Tensor, ws: gf.Tensor) -> tuple[gf.Tensor, gf.Tensor]:
        def layer(x: gf.Tensor, w: gf.Tensor) -> tuple[gf.Tensor, gf.Tensor]:
            y = F.conv2d(x, w, padding=1).tanh()
            return y, y.sum()

        return gf.scan(layer, x, ws)

    rng = np.random.default_rng(11)
    x, ws = gf.tensor(array(rng, 2, 8, 4, 4)), gf.tensor(array(rng, 3, 8, 8, 3, 3))
    step = gf.compile(layers)
    for found, wanted in zip(step(x.cuda(), ws.cuda()), layers(x, ws), strict=True):
        np.testing.assert_allclose(found.cpu().numpy(), wanted.numpy(), atol=1e-3)
    assert len(lib.calls) == 3 and "padded copies spared: 1" in str(step.explain())
