"""A small convolutional network trains as in PyTorch, in both modes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn, optim

LOSSES = [
    1.6370231777726267, 1.5551840428889303, 1.4388174205109558, 1.2692428746659432,
    0.8227965602151053, 0.41243187727230807, 2.023594313354271, 5.3248758643745635,
]  # fmt: skip
"""Eight steps of the same network, first values and data in PyTorch 2.13.0, float64."""


def wave(*shape: int) -> Any:
    """Numbers that are easy to make anywhere: a sine of their position."""
    count = int(np.prod(shape))
    return np.sin(np.arange(count) * 1.7 + count).reshape(shape)


class Small(nn.Module):
    """Padding, a stride, groups, both kinds of pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(1, 8, 3, padding=1)
        self.c2 = nn.Conv2d(8, 12, 3, stride=2, padding=1, groups=2)
        self.fc = nn.Linear(12 * 3 * 3, 5)

    def forward(self, x: Any) -> Any:
        """[N, 1, 15, 15] to [N, 5]."""
        x = F.max_pool2d(F.relu(self.c1(x)), 2)
        x = F.avg_pool2d(F.relu(self.c2(x)), 2, stride=1)
        return self.fc(x.flatten(1))


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_losses_follow_pytorch(compiled: bool) -> None:
    model = Small().double()
    with gf.no_grad():
        for parameter in model.parameters():
            parameter.copy_(gf.tensor(wave(*parameter.shape) * 0.2))
    optimizer = optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    x, y = gf.tensor(wave(6, 1, 15, 15)), gf.tensor([0, 1, 2, 3, 4, 0])

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    run = gf.compile(step) if compiled else step
    losses = [run(x, y).item() for _ in LOSSES]
    assert losses == pytest.approx(LOSSES, rel=1e-8)
