"""autocast and GradScaler on a device: PyTorch's table, steps beside the CPU, overflows.

Run by ``tests/test_cuda.py`` in the simulator.
"""

from __future__ import annotations

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn
from graphflow.errors import GraphFlowError
from tests.autocast_policy import Operands, all_calls

HALVES = [gf.float16, gf.bfloat16]


@pytest.mark.parametrize("half", HALVES, ids=str)
def test_functions_take_the_precision_that_pytorch_gives_them(half: gf.dtype) -> None:
    """In traces: the dtype of a result is known without running a kernel."""
    wrong = []
    operands = Operands("cuda", half)
    for name, (call, dtype) in all_calls(half).items():
        with gf.autocast("cuda", dtype=half):
            graph = gf.trace(lambda o, f=call: f(Traced(o)), operands.f(1))
        (found,) = [node.dtype for node in graph.outputs]
        if found is not dtype:
            wrong.append(f"{name}: {found.name}, not {dtype.name}")
    assert not wrong


class Traced(Operands):
    """Operands that follow from a tensor of the trace, so that the program is a device's."""

    def __init__(self, seed: gf.Tensor) -> None:
        super().__init__("cuda", gf.get_autocast_dtype("cuda"))
        self.seed = seed

    def f(self, *shape: int) -> gf.Tensor:
        """The numbers of :class:`Operands`, times 1."""
        return super().f(*shape) * (self.seed * 0 + 1).reshape(())


@pytest.mark.parametrize("name", ["lower: mm", "float32: exp", "widest: dot of both"])
def test_eager_functions_do_too(name: str) -> None:
    call, dtype = all_calls(gf.float16)[name]
    with gf.autocast("cuda"):
        found = call(Operands("cuda", gf.float16))
    assert found.dtype is dtype and found.is_cuda
    with gf.autocast("cpu"):  # of another device
        assert gf.mm(gf.ones(2, 2).cuda(), gf.ones(2, 2).cuda()).dtype is gf.float32


def test_binary_cross_entropy_is_refused_as_in_pytorch() -> None:
    p = gf.tensor([0.5]).cuda()
    with gf.autocast("cuda"):
        with pytest.raises(GraphFlowError, match=r"unsafe.*binary_cross_entropy_with_logits"):
            F.binary_cross_entropy(p, p)
        with gf.autocast("cuda", enabled=False):
            assert F.binary_cross_entropy(p, p).item() == pytest.approx(np.log(2))


def trained(device: str, half: gf.dtype, compiled: bool) -> tuple[list[float], list[np.ndarray]]:
    """Losses of scaled steps in halves, and the parameters."""
    gf.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.LayerNorm(5), nn.Linear(5, 3)).to(device)
    optimizer = gf.optim.AdamW(model.parameters(), lr=0.05)
    scaler = gf.amp.GradScaler(device, init_scale=2.0**10, growth_interval=2)
    x, y = gf.randn(6, 4).to(device), gf.tensor([0, 1, 2, 0, 1, 2]).to(device)

    def step(x: gf.Tensor, y: gf.Tensor) -> gf.Tensor:
        optimizer.zero_grad()
        with gf.autocast(device, dtype=half):
            scores = model(x)
            loss = F.cross_entropy(scores, y)
        assert scores.dtype is half and loss.dtype is gf.float32
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss

    step = gf.compile(step) if compiled else step
    losses = [float(step(x, y)) for _ in range(2)]
    assert scaler.get_scale() == 2.0**11 and scaler._scale.device.type == device
    assert all(p.dtype is gf.float32 for p in model.parameters())
    return losses, [p.detach().cpu().numpy() for p in model.parameters()]


@pytest.mark.parametrize(
    ("half", "compiled"), [(gf.float16, False), (gf.float16, True), (gf.bfloat16, True)]
)
def test_steps_in_halves_agree_with_the_cpu(half: gf.dtype, compiled: bool) -> None:
    (a, p), (b, q) = trained("cpu", half, compiled), trained("cuda", half, compiled)
    near = 2e-3 if half is gf.float16 else 1e-2
    np.testing.assert_allclose(a, b, near)
    for x, y in zip(p, q, strict=True):
        np.testing.assert_allclose(x, y, 20 * near, 20 * near)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_an_overflow_skips_the_update(compiled: bool) -> None:
    p = nn.Parameter(gf.tensor([1.0, 2.0]).cuda())
    optimizer = gf.optim.SGD([p], lr=0.1)
    scaler = gf.amp.GradScaler(init_scale=8.0, growth_interval=2)

    def step(factor: gf.Tensor) -> None:
        optimizer.zero_grad()
        scaler.scale((p * p).sum() * factor).backward()
        scaler.step(optimizer)
        scaler.update()

    step = gf.compile(step) if compiled else step
    step(gf.tensor(float("inf")).cuda())
    assert p.tolist() == [1.0, 2.0] and scaler.get_scale() == 4.0
    step(gf.tensor(1.0).cuda())
    np.testing.assert_allclose(p.tolist(), [0.8, 1.6], 1e-6)
    state = scaler.state_dict()
    assert state["scale"] == 4.0 and state["_growth_tracker"] == 1
    scaler.load_state_dict({**state, "scale": 16.0})
    assert scaler.get_scale() == 16.0 and scaler._scale.is_cuda


def test_a_scaler_for_a_device_takes_a_loss_of_the_cpu() -> None:
    p = nn.Parameter(gf.tensor([1.0]))
    optimizer, scaler = gf.optim.SGD([p], lr=0.5), gf.amp.GradScaler(init_scale=4.0)
    scaler.scale((p * 2).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert p.tolist() == [0.0] and not p.grad.is_cuda
