"""Images with their channels last: the rules of operations, and what the pass makes of graphs."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from front import agree
from op_cases import cases

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn, optim
from graphflow.ir.graph import Graph
from graphflow.ir.op import Kind, OpDef, all_ops
from graphflow.ir.ops import orders
from graphflow.ir.types import TensorType, dtype_named
from graphflow.ir.verify import verify
from graphflow.passes.channels_last import ChannelsLast
from graphflow.passes.pipeline import run_pipeline

F32 = dtype_named("f32")
LAST = orders.CHANNELS_LAST


def some_orders(op: OpDef, ranks: list[int]) -> list[list[tuple[int, ...]]]:
    """Orders of all operands to try: each its own for products, else one for all."""
    if op.tiles is not None:
        return [[LAST if rank == 4 else tuple(range(rank)) for rank in ranks]]
    if op.kind is Kind.CONTRACTION:
        return [[tuple(range(n))[::-1] for n in ranks], [rolled(n) for n in ranks]]
    if len(set(ranks)) != 1:
        return []
    every = list(permutations(range(ranks[0])))
    return [[order] * len(ranks) for order in every[:: max(1, len(every) // 6)]]


def rolled(rank: int) -> tuple[int, ...]:
    return tuple((axis + 1) % rank for axis in range(rank))


@pytest.mark.parametrize(
    "op", [op for op in all_ops() if op.reordered is not None], ids=lambda op: op.name
)
def test_a_rule_says_what_the_operation_is_on_reordered_operands(op: OpDef) -> None:
    """Every sample in several orders, against the reference on operands as they were."""
    assert op.reordered is not None
    found = 0
    for case in cases(op, ("f64",)):
        expected = op.reference(*case.arrays, **case.attrs)
        types = [TensorType(case.dtype, a.shape) for a in case.arrays]
        for chosen in some_orders(op, [a.ndim for a in case.arrays]):
            known = op.reordered(types, case.attrs, chosen)
            if known is None:
                continue
            attrs, order = known
            turned = [np.transpose(a, o) for a, o in zip(case.arrays, chosen, strict=True)]
            result = op.reference(*turned, **attrs)
            np.testing.assert_allclose(result, np.transpose(expected, order), rtol=1e-10)
            found += 1
    assert found


@pytest.mark.parametrize(
    "new, shape, order",
    [
        ((2, 8, 2, 2, 3, 2), (2, 2, 2, 3, 2, 8), (0, 2, 3, 4, 5, 1)),
        ((2, 8, 24), (2, 24, 8), (0, 2, 1)),
        ((2, 1, 8, 4, 6), (2, 1, 4, 6, 8), (0, 1, 3, 4, 2)),
        ((2, 8, 4, 6, 1), (2, 4, 6, 1, 8), (0, 2, 3, 4, 1)),
        ((4, 4, 4, 6), None, None),
        ((2, 192), None, None),
    ],
)
def test_reshapes_split_and_merge_what_stays_together(new: Any, shape: Any, order: Any) -> None:
    found = orders.reshaped([TensorType(F32, (2, 8, 4, 6))], {"shape": new}, [LAST])
    assert found == (None if shape is None else ({"shape": shape}, order))


CONVOLUTION = """
graph g {
  %x: f32[2,3,8,8] = input(name="x")
  %w: f32[16,3,3,3] = state(name="w")
  %0: f32[2,3,6,6,3,3] = window(%x, axes=(2, 3), dilations=(1, 1), sizes=(3, 3), steps=(1, 1))
  %1: f32[2,16,6,6] = contract(%0, %w, left=(0,1,2,3,4,5), right=(6,1,4,5), out=(0,6,2,3))
  %2: f32[2,16,6,6] = relu(%1)
  %3: f32[2,16,8,8] = pad(%2, high=(0, 0, 1, 1), low=(0, 0, 1, 1), value=0)
  %4: f32[16] = reduce_sum(%3, axes=(0, 2, 3))
  return %4
}
"""

EXPECTED = """
graph g {
  %x: f32[2,3,8,8] = input(name="x")
  %w: f32[16,3,3,3] = state(name="w")
  %0: f32[2,3,6,6,3,3] = window(%x, axes=(2, 3), dilations=(1, 1), sizes=(3, 3), steps=(1, 1))
  %1: f32[2,6,6,16] = contract(%0, %w, left=(0,1,2,3,4,5), right=(6,1,4,5), out=(0,2,3,6))
  %2: f32[2,6,6,16] = relu(%1)
  %3: f32[2,8,8,16] = pad(%2, high=(0, 1, 1, 0), low=(0, 1, 1, 0), value=0)
  %4: f32[16] = reduce_sum(%3, axes=(0, 1, 2))
  return %4
}
"""

GRADIENT_OF_TAPS = """
graph g {
  %x: f32[3,2,8,8] = input(name="x")
  %ct: f32[16,2,6,6] = input(name="ct")
  %0: f32[3,2,3,3,6,6] = window(%x, axes=(2, 3), dilations=(1, 1), sizes=(6, 6), steps=(1, 1))
  %1: f32[3,16,3,3] = contract(%0, %ct, left=(0,1,2,3,4,5), right=(6,1,4,5), out=(0,6,2,3))
  %2: f32[3,16,3,3] = relu(%1)
  %3: f32[] = reduce_sum(%2, axes=(0, 1, 2, 3))
  return %3
}
"""

FEW_CHANNELS = CONVOLUTION.replace("16", "4")


def test_what_follows_a_convolution_is_done_with_channels_last() -> None:
    result = ChannelsLast().run(Graph.parse(CONVOLUTION))
    verify(result)
    assert result.same_as(Graph.parse(EXPECTED))


@pytest.mark.parametrize("text", [GRADIENT_OF_TAPS, FEW_CHANNELS, EXPECTED])
def test_what_is_no_image_stays(text: str) -> None:
    graph = Graph.parse(text)
    assert ChannelsLast().run(graph) is graph


SHOWN = """
graph g {
  %x: f32[2,8,8,16] = input(name="x")
  %w: f32[9,16,3,3] = input(name="w")
  %0: f32[2,16,8,8] = permute(%x, axes=(0, 3, 1, 2))
  %1: f32[2,16,10,10] = pad(%0, high=(0, 0, 1, 1), low=(0, 0, 1, 1), value=0)
  %2: f32[2,16,8,8,3,3] = window(%1, axes=(2, 3), dilations=(1, 1), sizes=(3, 3), steps=(1, 1))
  %3: f32[2,8,8,9] = contract(%2, %w, left=(0,1,2,3,4,5), right=(6,1,4,5), out=(0,2,3,6))
  return %3
}
"""

TAKEN = """
graph g {
  %x: f32[2,8,8,16] = input(name="x")
  %w: f32[9,16,3,3] = input(name="w")
  %0: f32[2,10,10,16] = pad(%x, high=(0, 1, 1, 0), low=(0, 1, 1, 0), value=0)
  %1: f32[2,8,8,16,3,3] = window(%0, axes=(1, 2), dilations=(1, 1), sizes=(3, 3), steps=(1, 1))
  %2: f32[2,8,8,9] = contract(%1, %w, left=(0,2,3,1,4,5), right=(6,1,4,5), out=(0,2,3,6))
  return %2
}
"""

SHOWN_OTHERWISE = """
graph g {
  %x: f32[2,8,8,16] = input(name="x")
  %0: f32[2,16,8,8] = permute(%x, axes=(0, 3, 1, 2))
  %1: f32[2,16,10,10] = pad(%0, high=(0, 0, 1, 1), low=(0, 0, 1, 1), value=0)
  return %1
}
"""


def test_an_image_that_lies_so_already_is_taken_as_it_lies() -> None:
    assert ChannelsLast().run(Graph.parse(SHOWN)).same_as(Graph.parse(TAKEN))


@pytest.mark.parametrize(
    "text", [SHOWN.replace("16", "4"), SHOWN.replace("return %3", "return %3, %0"), SHOWN_OTHERWISE]
)
def test_few_channels_and_results_and_what_is_no_image_are_shown_as_before(text: str) -> None:
    assert ChannelsLast().run(Graph.parse(text)).same_as(Graph.parse(text))


class Mixer(nn.Module):
    """Convolutions with a layer norm and a linear layer between them, over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 2, stride=2)
        self.near = nn.Conv2d(16, 16, 3, padding=1)
        self.norm, self.up, self.down = nn.LayerNorm(16), nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x: Any) -> Any:
        """[N, 3, 2 H, 2 W] to [N, 16, H, W]."""
        x = self.stem(x)
        y = self.norm(self.near(x).permute(0, 2, 3, 1))
        return x + self.near(self.down(F.gelu(self.up(y))).permute(0, 3, 1, 2))


def test_layers_over_channels_do_not_move_images() -> None:
    model = Mixer()
    graph = gf.trace(lambda x: model(x).mean((0, 2, 3)), gf.TensorSpec((6, 3, 20, 28)))
    final = run_pipeline(graph)[-1].graph
    assert [n for n in final.nodes if n.op.name == "permute" and n.shape[:1] == (6,)] == []


def test_layers_over_channels_compute_what_they_compute_eagerly() -> None:
    def program(jit: Any) -> Any:
        model = Mixer()
        step = jit(lambda x, t: gf.autograd.grad(((model(x) - t) ** 2).mean(), weights))
        weights = list(model.parameters())
        return step(gf.randn(4, 3, 12, 8), gf.randn(4, 16, 6, 4))

    agree(program, rtol=1e-3, atol=1e-5)


def test_results_keep_their_order_in_memory() -> None:
    (out,) = ChannelsLast().run(Graph.parse(CONVOLUTION.replace("return %4", "return %2"))).outputs
    assert out.op.name == "relu" and out.shape == (2, 16, 6, 6)


class Net(nn.Module):
    """Steps, a shortcut, groups, both poolings, batch norms, joined channels, and a flattening."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.n1 = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.c2, self.n2 = nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.c3 = nn.Conv2d(16, 24, 3, stride=2, padding=1, groups=2)
        self.short = nn.Conv2d(16, 24, 1, stride=2)
        self.up = nn.ConvTranspose2d(24, 8, 2, stride=2)
        self.fc = nn.Linear(24 * 3 * 2, 5)

    def forward(self, x: Any) -> Any:
        """[N, 3, 12, 10] to [N, 5]."""
        x = F.relu(self.n1(self.c1(x)))
        x = x + F.relu(self.n2(self.c2(x)))
        x = F.relu(self.c3(x) + self.short(x)) * x.mean((2, 3)).repeat(1, 2)[:, :24, None, None]
        x = F.max_pool2d(gf.cat([x[:, :16], F.avg_pool2d(self.up(x), 2)], 1), 2)
        return self.fc(x.flatten(1))


@pytest.mark.parametrize("groups", [1, 2])
def test_images_that_are_results_are_row_major(groups: int) -> None:
    x, w = gf.randn(4, 16, 12, 12), gf.randn(24, 16 // groups, 3, 3)
    alone = gf.compile(lambda x, w: F.conv2d(x, w, groups=groups))
    want = F.conv2d(x, w, groups=groups)
    assert alone(x, w).stride() == want.stride()
    found = alone(x, w).view(4, -1).numpy()
    np.testing.assert_allclose(found, want.view(4, -1).numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "repeat",
    [
        lambda y: y.repeat_interleave(3, 2),
        lambda y: y.unsqueeze(2).expand(-1, -1, 2, -1, -1).flatten(0, 1),
        lambda y: y.unsqueeze(3).expand(-1, -1, -1, 2, -1).transpose(1, 2),
    ],
)
def test_images_that_are_repeated_are_results(repeat: Callable[[Any], Any]) -> None:
    """An axis along which elements are repeated is none of the image's own."""
    x, w = gf.randn(4, 16, 12, 12), gf.randn(24, 16, 3, 3)
    want = repeat(F.conv2d(x, w))
    found = gf.compile(lambda x, w: repeat(F.conv2d(x, w)))(x, w)
    np.testing.assert_allclose(found.numpy(), want.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [3, 16])
def test_images_that_come_with_channels_last_go_so(channels: int) -> None:
    def turned(x: gf.Tensor, w: gf.Tensor) -> gf.Tensor:
        return F.conv2d(x.permute(0, 3, 1, 2), w).permute(0, 2, 3, 1)

    x, w = gf.randn(4, 12, 12, channels), gf.randn(24, channels, 3, 3)
    compiled = gf.compile(turned)
    found = compiled(x, w)
    assert found.is_contiguous()
    np.testing.assert_allclose(found.numpy(), turned(x, w).numpy(), rtol=1e-4, atol=1e-4)
    assert not any("copy" in kernel.name for kernel in compiled.programs[0].kernels)


def test_a_network_computes_what_it_computes_eagerly() -> None:
    def program(jit: Any) -> Any:
        model = Net()
        optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        x, y = gf.randn(4, 3, 12, 10), gf.tensor([0, 1, 2, 4])

        @jit
        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        return [step(x, y) for _ in range(3)] + [p.detach() for p in model.parameters()]

    agree(program, rtol=2e-3, atol=2e-4)


def test_no_image_of_a_block_is_put_in_another_order() -> None:
    """Neither forward nor backward: the only permuted values are weights and their gradients."""
    block = nn.Sequential(
        nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(32, 16, 1),
    )  # fmt: skip
    optimizer = optim.SGD(block.parameters(), lr=0.1)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = block(F.conv2d(x, gf.ones(16, 8, 1, 1))).pow(2).mean()
        loss.backward()
        optimizer.step()
        return loss

    graph = gf.trace(step, gf.TensorSpec((8, 8, 12, 12)))
    final = run_pipeline(graph)[-1].graph
    large = [n for n in final.nodes if n.op.name == "permute" and n.shape[:1] == (8,)]
    assert [n for n in large if 12 not in n.shape] == []
