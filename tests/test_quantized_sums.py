"""Sums and averages of integers in converted models: beside numbers, and what is stored.

Beside PyTorch's operators they are in ``python -m tests.conformance.quantised``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow import nn, quantization
from graphflow.codegen.schedule import BufferKind
from graphflow.vision.models.quantization import QuantizableBasicBlock, QuantizableResNet

SEED = 6
CONFIG = quantization.QConfig(quantization.default_observer, quantization.default_weight_observer)


def _normal(*shape: int, seed: int = SEED) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _converted(module: nn.Module, *given: np.ndarray) -> Any:
    """``module``, calibrated by what is given."""
    holder = nn.Sequential(module).eval()
    holder.qconfig = CONFIG
    prepared = quantization.prepare(holder)
    prepared[0](*map(gf.tensor, given))
    return quantization.convert(prepared)[0]


class _Sum(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.own, self.name = nn.quantized.FloatFunctional(), name

    def forward(self, x: gf.Tensor, y: gf.Tensor) -> gf.Tensor:
        made: gf.Tensor = getattr(self.own, self.name)(x, y)
        return made


def _rounded(x: np.ndarray, scale: float, zero: int) -> np.ndarray:
    """The numbers that int8 stands for, in float64."""
    whole = np.round(x * (np.float32(1) / np.float32(scale))) + zero
    return (np.clip(whole, -128, 127).astype(np.float64) - zero) * scale


SUMS: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda x, y: x + y,
    "add_relu": lambda x, y: np.maximum(x + y, 0),
    "mul": lambda x, y: x * y,
}


@pytest.mark.parametrize("name", SUMS)
def test_sums_are_of_rounded_operands(name: str) -> None:
    x, y = _normal(3, 4, 5), 3 * _normal(3, 4, 5, seed=SEED + 1)
    made = _converted(_Sum(name), x, y)
    own = made.own
    assert isinstance(own, nn.quantized.QFunctional)
    assert own.y_scale > 2 * own.x_scale
    operands = (
        _rounded(x, own.x_scale, own.x_zero_point), _rounded(y, own.y_scale, own.y_zero_point)
    )  # fmt: skip
    wanted = SUMS[name](*operands)
    for run in (made, gf.compile(made)):
        np.testing.assert_allclose(run(gf.tensor(x), gf.tensor(y)).numpy(), wanted, atol=1e-5)


AVERAGES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "halves": (lambda: nn.AvgPool2d(2), (2, 3, 8, 6)),
    "padded": (lambda: nn.AvgPool2d(3, 2, 1), (2, 3, 9, 7)),
    "without its padding": (
        lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False), (2, 3, 8, 8)
    ),
    "a divisor": (lambda: nn.AvgPool2d((2, 3), divisor_override=5), (3, 8, 9)),
    "1d": (lambda: nn.AvgPool1d(3, 1), (2, 4, 9)),
    "all": (lambda: nn.AdaptiveAvgPool2d(1), (2, 5, 7, 7)),
    "even": (lambda: nn.AdaptiveAvgPool2d((2, 3)), (5, 8, 9)),
    "uneven": (lambda: nn.AdaptiveAvgPool2d((3, 4)), (2, 5, 7, 10)),
}  # fmt: skip


@pytest.mark.parametrize("case", AVERAGES)
def test_averages_are_of_rounded_inputs(case: str) -> None:
    make, shape = AVERAGES[case]
    x = _normal(*shape) + 0.5
    made = _converted(make(), x)
    assert type(made).__module__ == "graphflow.quantization.pooling"
    wanted = make()(gf.tensor(_rounded(x, made.scale, made.zero_point))).numpy()
    for run in (made, gf.compile(made)):
        np.testing.assert_allclose(run(gf.tensor(x)).numpy(), wanted, atol=1e-5)


def test_a_sum_of_what_no_call_gave_rounds_nothing() -> None:
    """A module that was used for something else, or by no sample, changes no numbers."""
    holder = nn.Sequential(nn.quantized.FloatFunctional()).eval()
    holder.qconfig = CONFIG
    own = quantization.convert(quantization.prepare(holder))[0]
    assert isinstance(own, nn.quantized.QFunctional)
    assert own.x_scale is None and not own.state_dict()
    x = gf.tensor(_normal(2, 2))
    np.testing.assert_array_equal(own.add(x, x).numpy(), 2 * x.numpy())


def _network() -> tuple[nn.Module, QuantizableResNet, gf.Tensor]:
    """A residual network, of integers and of numbers, and images."""
    gf.manual_seed(SEED)
    model, exact = (
        QuantizableResNet(QuantizableBasicBlock, (2, 1, 1, 1), num_classes=3) for _ in range(2)
    )
    for each in (model, exact):
        each.conv1, each.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    x = gf.tensor(_normal(2, 3, 24, 24))
    model(x)
    model.eval()
    exact.eval().load_state_dict(model.state_dict())
    model.fuse_model()
    model.qconfig = quantization.get_default_qconfig("x86")
    prepared = quantization.prepare(model)
    prepared(x)
    return quantization.convert(prepared), exact, x


def test_a_residual_network_stores_integers_between_its_products() -> None:
    """Shortcuts too; which operand of a sum is rounded follows which layer ran last."""
    made, exact, x = _network()
    wanted = exact(x).detach().numpy()
    assert np.abs(made(x).numpy() - wanted).max() < 0.1 * np.abs(wanted).max()
    blocks = {
        n: b.add_relu for n, b in made.named_modules() if isinstance(b, QuantizableBasicBlock)
    }
    rounds = {n: (b.x_scale is not None, b.y_scale is not None) for n, b in blocks.items()}
    branch, shortcut = (False, True), (True, False)
    assert rounds == {
        "layer1.0": branch, "layer1.1": branch,
        "layer2.0": shortcut, "layer3.0": shortcut, "layer4.0": shortcut,
    }  # fmt: skip
    program = gf.compile(gf.trace(made, gf.TensorSpec((1, 3, 24, 24))))
    large = [
        str(b.type) for b in program.schedule.buffers
        if b.kind is BufferKind.ARENA and b.type.dtype is gf.float32 and b.type.numel > 512
    ]  # fmt: skip
    assert not large
    np.testing.assert_allclose(program(x[:1]).numpy(), made(x[:1]).numpy(), atol=0.02)


def test_ranges_of_sums_are_part_of_the_state() -> None:
    made, _, x = _network()
    state = made.state_dict()
    assert "layer1.0.add_relu.y_scale" in state and "layer1.0.add_relu.x_scale" not in state
    other = quantization.convert(made)
    other.load_state_dict(state)
    np.testing.assert_array_equal(other(x).numpy(), made(x).numpy())
    del state["layer1.0.add_relu.y_zero_point"]
    with pytest.raises(gf.GraphFlowError, match=r"missing: layer1\.0\.add_relu\.y_zero_point"):
        other.load_state_dict(state)


def test_training_rounds_the_operands_of_sums() -> None:
    """What was learnt with rounded operands is what the converted model does."""
    gf.manual_seed(SEED)
    model = QuantizableBasicBlock(4, 4).train()
    model.qconfig = quantization.get_default_qat_qconfig("x86")
    prepared = quantization.prepare_qat(model)
    x = gf.tensor(_normal(4, 4, 6, 6))
    prepared(x).sum().backward()
    assert prepared.conv1.weight.grad is not None
    prepared.eval().apply(quantization.disable_observer)
    rounded = prepared(x).detach().numpy()
    made = quantization.convert(prepared)
    assert made.add_relu.x_scale is not None and made.add_relu.y_scale is not None
    np.testing.assert_allclose(made(x).numpy(), rounded, atol=0.02 * np.abs(rounded).max())
