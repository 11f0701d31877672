"""Frozen normalisations go into the taps of the convolution before them, and only those."""

from typing import Any

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn
from graphflow.ir.graph import Graph
from graphflow.ir.interp import interpret
from graphflow.passes.scaled_taps import ScaledTaps

RNG = np.random.default_rng(41)


class Net(nn.Module):
    """A convolution, its normalisation, and what ``more`` makes of both."""

    def __init__(self, more: Any, groups: int = 1, bias: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 3, padding=1, groups=groups, bias=bias)
        self.norm, self.more = nn.BatchNorm2d(6), more
        with gf.no_grad():
            for tensor in (self.norm.running_mean, self.norm.weight, self.norm.bias):
                tensor.copy_(gf.tensor(RNG.standard_normal(6, np.float32)))
            self.norm.running_var.copy_(gf.tensor(RNG.uniform(0.5, 2, 6).astype(np.float32)))

    def forward(self, x: Any) -> Any:
        y = self.conv(x)
        return self.more(y, self.norm(y))


def traced(net: nn.Module) -> Graph:
    """The scores of a network that is evaluated, as a graph."""

    def scores(x: Any) -> Any:
        with gf.no_grad():
            return net(x)

    return gf.trace(scores, gf.TensorSpec((5, 4, 5, 7)))


def count(graph: Graph, name: str) -> int:
    """How many operations of this name the graph has on images."""
    return sum(n.op.name == name and n.shape[:1] == (5,) for n in graph.nodes)


@pytest.mark.parametrize("groups, bias", [(1, False), (1, True), (2, False)])
def test_no_product_is_left(groups: int, bias: bool) -> None:
    net = Net(lambda y, z: F.relu(z), groups, bias).eval()
    before = traced(net)
    after = ScaledTaps().run(before)
    assert count(before, "mul") == 2 and count(after, "mul") == 0
    assert count(after, "conv") == 1


@pytest.mark.parametrize("more", [lambda y, z: z + y, lambda y, z: (z, y)], ids=["sum", "both"])
def test_a_result_that_others_read_stays(more: Any) -> None:
    graph = traced(Net(more).eval())
    assert ScaledTaps().run(graph) is graph


def test_statistics_of_the_batch_stay() -> None:
    graph = traced(Net(lambda y, z: z).train())
    assert ScaledTaps().run(graph) is graph


def test_a_factor_of_each_image_stays() -> None:
    net = Net(lambda y, z: z)
    scale = gf.tensor(RNG.standard_normal((5, 1, 1, 1), np.float32))
    row = gf.tensor(RNG.standard_normal((1, 1, 1, 7), np.float32))
    net.forward = lambda x: net.conv(x) * scale * row  # type: ignore[method-assign]
    graph = traced(net.eval())
    assert ScaledTaps().run(graph) is graph


@pytest.mark.parametrize("groups, bias", [(1, True), (2, False)])
def test_the_numbers_are_the_same(groups: int, bias: bool) -> None:
    net = Net(lambda y, z: F.relu(z), groups, bias).eval()
    x = RNG.standard_normal((5, 4, 5, 7), np.float32)
    graph = traced(net)
    program = gf.compile(graph)
    state = {name: tensor.numpy() for name, tensor in program.state_dict().items()}
    (wanted,) = interpret(graph, [x], state, "f64").outputs
    (moved,) = interpret(ScaledTaps().run(graph), [x], state).outputs
    for found in (moved, program(gf.tensor(x)).numpy()):
        assert np.abs(found - wanted).max() <= 2e-6 * np.abs(wanted).max()
