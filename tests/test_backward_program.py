"""A compiled model whose loss and backward pass are eager: what is saved, and how it lies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn
from graphflow.backward_program import BackwardProgram
from graphflow.eager_operands import order_in_memory

RNG = np.random.default_rng(20261201)


def run(model: Any, inputs: list[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
    """Output, gradients of inputs, gradients of parameters."""
    tensors = [gf.from_numpy(x.copy()).requires_grad_() for x in inputs]
    out = model(*tensors)
    (out * gf.linspace(-1, 1, out.numel()).reshape(out.shape)).sum().backward()
    params = list(getattr(model, "original", model).parameters())
    found = [out.detach().numpy(), *(t.grad.numpy() for t in (*tensors, *params))]
    for parameter in params:
        parameter.grad = None
    return found


def halves(compiled: Any) -> tuple[gf.Program, BackwardProgram]:
    """The two programs of a compiled function's latest call."""
    entry = compiled.latest
    assert entry.backward is not None
    return entry.program, entry.backward


def check(model: nn.Module, *inputs: np.ndarray[Any, Any]) -> Any:
    """The compiled model, which gives twice what the eager one gives."""
    compiled = gf.compile(model)
    want = run(model, list(inputs))
    for _ in range(2):
        for a, b in zip(run(compiled, list(inputs)), want, strict=True):
            assert a.flags.c_contiguous == b.flags.c_contiguous or a.size == 1
            np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)
    return compiled


class Net(nn.Module):
    """Convolutions, normalisation and pooling, as in most image models."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, channels, 3, padding=1), nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, 2 * channels, 3, padding=1, bias=False)
        self.again = nn.BatchNorm2d(2 * channels)
        self.third = nn.Conv2d(2 * channels, 2 * channels, 3, stride=2, padding=1)
        self.head = nn.Linear(2 * channels, 5)

    def forward(self, x: gf.Tensor) -> gf.Tensor:
        """[N, 3, H, W] to [N, 5]."""
        x = F.max_pool2d(F.relu(self.norm(self.first(x))), 2)
        x = F.silu(self.third(F.silu(self.again(self.second(x)))))
        return self.head(x.mean((2, 3)))


def test_images_stay_with_channels_last_from_the_forward_to_the_backward_program() -> None:
    gf.manual_seed(0)
    compiled = check(Net(), RNG.standard_normal((4, 3, 12, 12), np.float32))
    forward, backward = halves(compiled)
    images = [
        (order, node.shape)
        for order, node in zip(backward.orders, backward.program.graph.inputs[1:])
        if len(node.shape) >= 4 and node.shape[0] == 4
    ]
    assert len(images) >= 5
    assert all(order == (0, *range(2, len(shape)), 1) for order, shape in images), images
    for program in (forward, backward.program):
        assert not [k.name for k in program.kernels if "copy_turned" in k.name]
    shown = compiled.explain().backward
    assert shown is not None and f"program {shown.name}" in str(compiled.explain())
    assert any("test_backward_program.py" in line for k in shown.kernels for line in k.user_lines)


@pytest.mark.parametrize("channels", [1, 4, 24])
@pytest.mark.parametrize("size", [(1, 4, 4), (3, 9, 6)])
def test_edge_sizes(channels: int, size: tuple[int, int, int]) -> None:
    gf.manual_seed(1)
    batch, rows, columns = size
    model = Net(channels)
    if batch * rows * columns < 64:
        model.again = nn.Identity()
    check(model, RNG.standard_normal((batch, 3, rows, columns), np.float32))


def test_images_that_are_returned_are_row_major_though_they_are_saved() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 16, 3)

        def forward(self, x: gf.Tensor) -> gf.Tensor:
            return self.conv(x).exp()  # the gradient needs the result

    gf.manual_seed(2)
    compiled = check(Both(), 0.1 * RNG.standard_normal((2, 3, 8, 8), np.float32))
    assert compiled(gf.randn(2, 3, 8, 8)).is_contiguous()


def test_one_program_for_all_sizes_takes_saved_values_as_they_lie() -> None:
    gf.manual_seed(3)
    model = Net()
    compiled = gf.compile(model, dynamic=True)
    for batch in (4, 5, 1, 7):
        x = RNG.standard_normal((batch, 3, 12, 12), np.float32)
        for a, b in zip(run(compiled, [x]), run(model, [x]), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)


def saved(function: Callable[..., gf.Tensor], *shapes: tuple[int, ...]) -> int:
    """Bytes that a compiled function saves for its gradient, beside its arguments."""
    compiled = gf.compile(function)
    tensors = [gf.randn(*shape).requires_grad_() for shape in shapes]
    out = compiled(*tensors)
    out.sum().backward()
    eager = [t.detach().clone().requires_grad_() for t in tensors]
    function(*eager).sum().backward()
    for ours, theirs in zip(tensors, eager, strict=True):
        assert ours.grad is not None and theirs.grad is not None
        np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), rtol=1e-4, atol=1e-5)
    graph = halves(compiled)[1].program.graph
    return sum(int(n.tensor_type.nbytes) for n in graph.inputs if "saved" in n.attrs["name"])


N = 4 * 50 * 40
"""Bytes of a float32 of [50, 40]."""


def test_what_light_operations_make_of_saved_values_is_not_saved() -> None:
    shape = (50, 40)
    assert saved(lambda x: (x + 1) * 2, shape) == 0
    assert saved(F.silu, shape) <= N  # the sigmoid: x is an argument
    assert saved(lambda x: F.silu(x.exp()), shape) <= 2 * N
    assert saved(lambda x, y: (x * y).exp() * y, shape, shape) == N
    assert saved(lambda x: gf.tanh(x) * gf.tanh(x), shape) == N


def test_operands_of_products_are_saved_as_they_are() -> None:
    double = lambda x, w: (x.tanh() * 3.0) @ w  # noqa: E731
    assert saved(double, (50, 40), (40, 30)) == 2 * N  # the slope of tanh, and the operand


def test_order_in_memory() -> None:
    a = np.zeros((2, 3, 4, 5))
    assert order_in_memory(a) is None
    assert order_in_memory(a.transpose(0, 3, 1, 2)) == (0, 2, 3, 1)
    assert order_in_memory(a[:, :, ::2]) is None
    assert order_in_memory(np.broadcast_to(a[:1], (2, 3, 4, 5))) is None


def penalty(model: Any, x: gf.Tensor) -> list[np.ndarray[Any, Any]]:
    """Loss with the size of the input's gradient, and the gradients of all."""
    parameters = list(getattr(model, "original", model).parameters())
    (slope,) = gf.autograd.grad(model(x).square().sum(), x, create_graph=True)
    loss = (slope.square().sum(1).sqrt() - 1).square().mean()
    found = gf.autograd.grad(loss, [x, *parameters], allow_unused=True, materialize_grads=True)
    return [loss.detach().numpy(), *(g.numpy() for g in found)]


def test_second_derivatives_of_a_compiled_model() -> None:
    gf.manual_seed(4)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    x = gf.tensor(RNG.standard_normal((5, 6))).requires_grad_()
    compiled = gf.compile(model)
    with pytest.warns(UserWarning, match="runs again operation by operation"):
        ours = penalty(compiled, x)
    for a, b in zip(ours, penalty(model, x), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_what_may_not_run_twice_has_no_second_derivatives() -> None:
    x = gf.randn(5, 6, requires_grad=True)
    for layer in (nn.Dropout(0.5), nn.BatchNorm1d(6)):
        compiled = gf.compile(nn.Sequential(nn.Linear(6, 6), layer))
        with pytest.raises(gf.GraphFlowError, match="run a compiled function again"):
            gf.autograd.grad(compiled(x).sum(), x, create_graph=True)


def test_second_derivatives_want_everything_as_it_was() -> None:
    model = nn.Linear(6, 3)
    x = gf.randn(5, 6, requires_grad=True)
    out = gf.compile(model)(x).exp().sum()
    with gf.no_grad():
        model.bias.add_(1.0)  # which the gradient does not read
    with pytest.raises(gf.GraphFlowError, match="in-place"):
        gf.autograd.grad(out, x, create_graph=True)


def test_hooks_of_parameters_are_called_once() -> None:
    gf.manual_seed(5)
    model = nn.Linear(4, 3)
    counts: list[float] = []
    model.weight.register_hook(lambda g: g * 0.5)
    model.bias.register_post_accumulate_grad_hook(lambda p: counts.append(p.grad.sum().item()))
    check(model, RNG.standard_normal((5, 4), np.float32))
    assert len(counts) == 3 and counts[0] == pytest.approx(counts[1], rel=1e-5)


@pytest.mark.filterwarnings("ignore:create_graph=True")
@pytest.mark.parametrize("second", [False, True])
def test_what_no_gradient_arrives_for_gets_none(second: bool) -> None:
    """None is not zeros: an optimiser leaves such parameters alone."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right, self.both = nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(3, 3)

        def forward(self, x: gf.Tensor) -> tuple[gf.Tensor, gf.Tensor]:
            h = self.both(x).tanh()
            return self.left(h), self.right(h)

    gf.manual_seed(6)
    model = Two()
    compiled = gf.compile(model)
    x = gf.randn(4, 3)
    for number in (0, 1, 0):
        found = []
        for function in (compiled, model):
            model.zero_grad()
            function(x)[number].square().sum().backward(create_graph=second)
            found.append([p.grad for p in model.parameters()])
        for ours, want in zip(*found, strict=True):
            assert (ours is None) == (want is None)
            if want is not None:
                np.testing.assert_allclose(ours.detach(), want.detach(), rtol=1e-5, atol=1e-6)


def test_images_whose_shape_is_the_same_with_channels_last() -> None:
    """Eight channels of eight rows and columns: the order in memory does not show in the shape."""

    class Squared(nn.Sequential):
        def forward(self, x: gf.Tensor) -> gf.Tensor:
            return (super().forward(x) ** 2).sum((1, 2, 3))

    gf.manual_seed(7)
    model = Squared(nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(2))
    compiled = check(model, RNG.standard_normal((3, 3, 16, 16), np.float32))
    assert (0, 2, 3, 1) in halves(compiled)[1].orders


def test_arguments_may_have_the_names_of_what_the_gradients_take() -> None:
    def function(saved0: Any, ct0: Any) -> Any:
        return (saved0 * ct0).exp() * saved0

    given = [RNG.standard_normal(3) for _ in range(2)]
    found = []
    for call in (function, gf.compile(function)):
        tensors = [gf.tensor(x, requires_grad=True) for x in given]
        call(*tensors).square().sum().backward()
        found.append([t.grad.numpy() for t in tensors])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-12)


def test_every_gradient_has_memory_of_its_own() -> None:
    add = gf.compile(lambda a, b: (a + b) * 2.0)
    a, b = gf.randn(3, requires_grad=True), gf.randn(3, requires_grad=True)
    for _ in range(2):
        a.grad = b.grad = None
        add(a, b).sum().backward()
        assert a.grad is not None and b.grad is not None
        a.grad.mul_(5)
        assert a.grad.tolist() == [10.0] * 3 and b.grad.tolist() == [2.0] * 3
    kept = a.grad
    a.grad = None
    add(a, b).sum().backward()
    assert kept.tolist() == [10.0] * 3, "memory of a gradient that somebody holds is not used again"


def test_gradients_of_zeros_are_gradients() -> None:
    """What passes a rounding has zeros, which is not the same as nothing."""

    def rounded(x: Any, w: Any, unused: Any) -> Any:
        return x.round() + w, unused * 2

    for call in (rounded, gf.compile(rounded)):
        x, w, unused = (gf.ones(3, requires_grad=True) for _ in range(3))
        call(x, w, unused)[0].sum().backward()
        assert x.grad.tolist() == [0, 0, 0] and w.grad.tolist() == [1, 1, 1]
        assert unused.grad is None
