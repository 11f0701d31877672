"""Linear regression, the smallest model there is: y = 3 x + 2 and some noise.

python models/linear_regression.py --mode both
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from harness import Session, Task, main

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn, optim
from graphflow.utils.data import DataLoader, TensorDataset

SAMPLES = 100
SLOPE, OFFSET, NOISE = 3.0, 2.0, 0.1


def samples(seed: int) -> TensorDataset:
    """Points ``[n, 1]`` and noisy values ``[n, 1]``."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (SAMPLES, 1)).astype(np.float32)
    noise = NOISE * rng.standard_normal((SAMPLES, 1))
    return TensorDataset(
        gf.from_numpy(x), gf.from_numpy((SLOPE * x + OFFSET + noise).astype(np.float32))
    )


def training_step(model: nn.Module, optimizer: Any) -> Any:
    """One update on the whole data set."""

    def step(x: gf.Tensor, y: gf.Tensor) -> gf.Tensor:
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


def specs() -> tuple[gf.TensorSpec, gf.TensorSpec]:
    """The types of a batch."""
    return gf.TensorSpec((SAMPLES, 1)), gf.TensorSpec((SAMPLES, 1))


def build() -> tuple[Any, tuple[Any, ...]]:
    """For ``graphflow inspect`` and ``graphflow bench``: a step and its specs."""
    gf.manual_seed(0)
    model = nn.Linear(1, 1)
    return training_step(model, optim.SGD(model.parameters(), lr=0.1)), specs()


def start(seed: int, root: Path) -> Session:
    """A fresh model and new samples."""
    gf.manual_seed(seed)
    model = nn.Linear(1, 1)

    def error() -> float:
        slope, offset = model.weight.item(), model.bias.item()
        return float(max(abs(slope - SLOPE), abs(offset - OFFSET)))

    return Session(
        step=training_step(model, optim.SGD(model.parameters(), lr=0.1)),
        specs=specs(),
        batches=DataLoader(samples(seed), SAMPLES),
        evaluate=error,
    )


def describe(root: Path) -> str:
    """What is fitted."""
    return f"y = {SLOPE:g} x + {OFFSET:g} from {SAMPLES} samples with noise {NOISE:g}"


TASK = Task("linear regression", start, epochs=300, metric="parameter error", describe=describe)

if __name__ == "__main__":
    main(TASK)
