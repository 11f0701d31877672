"""A deep model has the kernels of a shallow one: what is decided for a layer is so for all."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn, optim
from graphflow.codegen.build_schedule import build_schedule
from graphflow.codegen.schedule import kernels_in
from graphflow.ir.graph import Graph
from graphflow.passes.pipeline import run_pipeline
from graphflow.scheduling import cheaper

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "models"))
import gpt


class Residual(nn.Module):
    """A residual block of images (batch norms count batches, all of them in one kernel)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.GroupNorm(4, channels) for _ in range(2)])

    def forward(self, x: Any) -> Any:
        hidden = self.norms[0](self.first(x)).relu()
        return (x + self.norms[1](self.second(hidden))).relu()


def gpt_step(layers: int, width: int, batch: int, drop: float) -> Graph:
    shape = {"layers": layers, "width": width, "heads": width // 32, "dropout": drop}
    config = dataclasses.replace(gpt.CHARACTERS, **shape)
    model = gpt.GPT(config)
    opt = optim.AdamW(model.parameters(), lr=1e-3)

    def step(x: Any, y: Any) -> Any:
        opt.zero_grad()
        loss = F.cross_entropy(model(x).reshape(-1, config.vocabulary), y.reshape(-1))
        loss.backward()
        opt.step()
        return loss

    tokens = gf.randint(0, config.vocabulary, (2, batch, 64))
    return gf.trace(step, tokens[0], tokens[1])


def image_step(layers: int, width: int, batch: int, drop: float) -> Graph:
    blocks = [Residual(width) for _ in range(layers)]
    model = nn.Sequential(*blocks, nn.Dropout(drop), nn.Flatten(), nn.Linear(64 * width, 10))
    opt = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step(x: Any, y: Any) -> Any:
        opt.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        return loss

    images = gf.randn(batch, width, 8, 8)
    return gf.trace(step, images, gf.randint(0, 10, (batch,)))


def kernels(graph: Graph) -> tuple[set[str], bool]:
    """The names of a step's kernels, which go by their text, and whether values are made again."""
    fused = run_pipeline(graph)[-1].graph
    schedule, stage = cheaper(fused, lambda g: build_schedule(g, threads=2))
    return {kernel.name for kernel in kernels_in(schedule.steps)}, stage is not None


@pytest.mark.parametrize(
    ("step", "width", "batch", "drop"),
    [
        (gpt_step, 128, 8, 0.0),
        (gpt_step, 64, 32, 0.1),
        (image_step, 16, 200, 0.1),
        (image_step, 32, 64, 0.0),
    ],
)
def test_the_kernels_are_the_same(step: Any, width: int, batch: int, drop: float) -> None:
    shallow, made_again = kernels(step(4, width, batch, drop))
    assert made_again
    for layers in (7, 12):
        deep, made_again = kernels(step(layers, width, batch, drop))
        assert made_again
        assert deep == shallow
