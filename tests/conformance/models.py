"""Whole models beside PyTorch's: losses of the same training, and checkpoints written by it."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import graphflow as gf
from tests.conformance import convert, language_models, torch_models
from tests.conformance.outcome import Outcome

STEPS = 20
RATE = 0.01
"""Of stochastic gradient descent; small enough for training not to amplify rounding."""
NEAR_DOUBLE = 1e-8
"""How far losses in float64 may be apart, relative to PyTorch's."""
TIMES_FORMATS = 3.0
"""How far those in float32 may be apart, in distances of PyTorch's two memory formats."""
NEAR_CHECKPOINT = 1e-4
SECONDS = 150
"""How long one trajectory may take, both sides and compiling included."""


def cnn(nn: Any) -> Any:
    """Two convolutions and two linear layers for images [n, 1, 28, 28], of either side's ``nn``."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 7 * 7, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


class Trained(NamedTuple):
    """A model of both sides, and the shape of a batch."""

    theirs: Callable[[], torch.nn.Module]
    ours: Callable[[], Any]
    batch: tuple[int, ...]


TRAINED = {
    "cnn": Trained(lambda: cnn(torch.nn), lambda: cnn(gf.nn), (16, 1, 28, 28)),
    "resnet18": Trained(
        lambda: torch_models.resnet18(10),
        lambda: gf.vision.models.resnet18(num_classes=10),
        (8, 3, 32, 32),  # of four such images, 4 values a channel are normalised: chaotic
    ),
}
CHECKPOINT = "resnet50_checkpoint"


def entries() -> list[str]:
    """``models.<name>``."""
    return [f"models.{name}" for name in (*TRAINED, CHECKPOINT, *language_models.PUBLISHED)]


def run(key: str, mode: str, verbose: bool = False) -> Outcome:
    """A trajectory in both precisions, or the checkpoint's outputs: eager or compiled."""
    outcome, name = Outcome(), key.removeprefix("models.")
    if mode not in ("eager", "compiled"):
        return outcome
    compiled = mode == "compiled"
    if name == CHECKPOINT:
        outcome.check(name, lambda: _checkpoint(compiled, outcome), verbose, SECONDS)
        return outcome
    if name in language_models.PUBLISHED:
        published = lambda: language_models.check(name, compiled, outcome)  # noqa: E731
        outcome.check(name, published, verbose, SECONDS)
        return outcome
    for dtype in (torch.float64, torch.float32):
        check = lambda d=dtype: _trajectory(TRAINED[name], d, compiled, outcome)  # noqa: E731
        outcome.check(f"{name} {dtype}", check, verbose, SECONDS)
    return outcome


def _trajectory(model: Trained, dtype: torch.dtype, compiled: bool, outcome: Outcome) -> str:
    found, expected, other = losses(model, dtype, compiled, outcome)
    apart = distance(found, expected)
    if dtype is torch.float64:
        allowed, said = NEAR_DOUBLE, ""
    else:
        formats = distance(other, expected)
        allowed, said = TIMES_FORMATS * formats, f", PyTorch's memory formats {formats:.2g}"
    return "" if apart <= allowed else f"losses {apart:.2g} apart of {allowed:.2g} allowed{said}"


def distance(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> float:
    """The largest relative difference of two trajectories; infinite when one is not finite."""
    apart = float((np.abs(found - expected) / np.abs(expected)).max())
    return apart if np.isfinite(apart) else float("inf")


def losses(model: Trained, dtype: torch.dtype, compiled: bool, outcome: Outcome) -> Any:
    """The losses of every step: GraphFlow's, PyTorch's, PyTorch's with channels last."""
    torch.manual_seed(0)
    theirs = model.theirs().to(dtype)
    images = torch.randn(model.batch, dtype=dtype)
    labels = torch.randint(0, 10, model.batch[:1])
    ours = model.ours().to(convert.to_graphflow(dtype))
    ours.load_state_dict({k: convert.to_graphflow(v) for k, v in theirs.state_dict().items()})
    other = copy.deepcopy(theirs).to(memory_format=torch.channels_last)
    step = _step(gf, ours)
    ready = gf.compile(step) if compiled else step
    found = _follow(ready, convert.to_graphflow(images), convert.to_graphflow(labels))
    if compiled:
        outcome.host.extend(n for n in ready.explain().host_ops if n not in outcome.host)
    last = images.to(memory_format=torch.channels_last)
    return (
        found,
        _follow(_step(torch, theirs), images, labels),
        _follow(_step(torch, other), last, labels),
    )


def _step(side: Any, model: Any) -> Callable[[Any, Any], Any]:
    optimizer = side.optim.SGD(model.parameters(), lr=RATE)

    def step(images: Any, labels: Any) -> Any:
        optimizer.zero_grad()
        loss = side.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    return step


def _follow(step: Callable[[Any, Any], Any], images: Any, labels: Any) -> np.ndarray[Any, Any]:
    return np.array([step(images, labels).item() for _ in range(STEPS)])


def _checkpoint(compiled: bool, outcome: Outcome) -> str:
    """Outputs in evaluation of a ResNet-50 whose weights went through a file."""
    torch.manual_seed(0)
    theirs = torch_models.resnet50(1000)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        theirs(torch.randn(4, 3, 64, 64))  # running statistics other than the first ones
        expected = theirs.eval()(images).numpy()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "resnet50.pth"
        torch.save(theirs.state_dict(), path)
        loaded = {k: v.numpy() for k, v in gf.load(path).items()}
        ours = gf.vision.models.resnet50(weights=path).eval()
    for key, value in theirs.state_dict().items():
        if key not in loaded or not np.array_equal(loaded[key], value.numpy()):
            return f"{key} is not what was saved"
    ready = gf.compile(ours) if compiled else ours
    with gf.no_grad():
        found = ready(convert.to_graphflow(images)).numpy()
    if compiled:
        outcome.host.extend(ready.explain().host_ops)
    apart = float(np.abs(found - expected).max())
    return "" if apart <= NEAR_CHECKPOINT else f"outputs {apart:.2g} apart"
