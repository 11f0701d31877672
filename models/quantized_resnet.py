"""A residual network of 8-bit integers: trained as ever, calibrated, converted, compared.

    python models/quantized_resnet.py

ResNet-18 with a stem for small images learns the digits that come with GraphFlow (or MNIST
where its files are under ``--data``).  PyTorch's recipe for static quantisation follows: norms
are folded into convolutions, observers see some training images, layers of integers take the
place of the others.  At the end the two networks are beside each other: accuracy on held-out
digits, bytes of their state on disk, and the time of one image, compiled, in turns.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from cnn import SHIFT, accuracy, pipeline, training_step, whole
from harness import positive

import graphflow as gf
from graphflow import nn, optim, quantization
from graphflow.tables import duration, table
from graphflow.utils.data import DataLoader
from graphflow.utils.progress import Progress
from graphflow.vision import datasets
from graphflow.vision.models.quantization import QuantizableBasicBlock, QuantizableResNet

BATCH, EPOCHS, CALIBRATED = 32, 4, 128


def network(classes: int = 10) -> QuantizableResNet:
    """ResNet-18 for grey images of about 30 pixels: nothing is halved before the first block."""
    model = QuantizableResNet(QuantizableBasicBlock, (2, 2, 2, 2), num_classes=classes)
    model.conv1 = nn.Conv2d(1, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return model


def load(root: Path, train: bool, *first: Any) -> Any:
    """MNIST if it is there, else the digits."""
    mnist = datasets.MNIST.available(root, True) and datasets.MNIST.available(root, False)
    steps = pipeline(*first)
    return datasets.MNIST(root, train, steps) if mnist else datasets.Digits(train, steps)


def fit(model: nn.Module, data: Any, epochs: int) -> None:
    """Train by one compiled step; the learning rate goes up, then down."""
    batches = DataLoader(data, BATCH, shuffle=True, drop_last=True)
    optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    rates = optim.lr_scheduler.OneCycleLR(optimizer, 0.05, epochs * len(batches))
    step = gf.compile(training_step(model, optimizer))
    bar = Progress(range(epochs), "training")
    for _ in bar:
        for images, labels in batches:
            loss = step(images, labels)
            rates.step()
        bar.note = f"loss {loss.item():.4f}"


def quantized(model: QuantizableResNet, samples: gf.Tensor) -> nn.Module:
    """The network with 8-bit weights, for inputs of the ranges that ``samples`` have."""
    model = copy.deepcopy(model).eval()
    model.qconfig = quantization.get_default_qconfig("x86")
    model.fuse_model()
    prepared = quantization.prepare(model)
    with gf.no_grad():
        for begin in range(0, len(samples), BATCH):
            prepared(samples[begin : begin + BATCH])
    return quantization.convert(prepared)


def bytes_on_disk(model: nn.Module) -> int:
    """How large the file of the state is."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        gf.save(model.state_dict(), path)
        return path.stat().st_size


def times(models: list[nn.Module], image: gf.Tensor, rounds: int) -> list[float]:
    """Seconds that each takes for ``image``, compiled: medians, the models in turns."""
    programs = [gf.compile(gf.trace(model.eval(), gf.TensorSpec(image.shape))) for model in models]
    taken: list[list[float]] = [[] for _ in models]
    for number in range(rounds + 3):
        for program, seconds in zip(programs, taken, strict=True):
            begin = time.perf_counter()
            program(image)
            if number >= 3:  # at first pages are touched and weights packed
                seconds.append(time.perf_counter() - begin)
    return [statistics.median(each) for each in taken]


class Outcome(NamedTuple):
    """What is compared, of one network."""

    accuracy: float
    bytes: int
    seconds: float


def compare(model: QuantizableResNet, data: Any, test: Any, rounds: int = 200) -> list[Outcome]:
    """Quantise ``model`` with some of ``data``; what it is before and after."""
    samples = next(iter(DataLoader(data, CALIBRATED, shuffle=True)))[0]
    both: list[nn.Module] = [model, quantized(model, samples)]
    images, labels = whole(test)
    right = [accuracy(gf.compile(each), images, labels) for each in both]
    spent = times(both, images[:1], rounds)
    return [Outcome(*row) for row in zip(right, map(bytes_on_disk, both), spent, strict=True)]


def shown(outcomes: list[Outcome]) -> str:
    """The comparison as a table."""
    rows = [
        [name, f"{100 * o.accuracy:.2f} %", f"{o.bytes / 1e6:.2f} MB", duration(o.seconds)]
        for name, o in zip(("float32", "int8"), outcomes, strict=True)
    ]
    before, after = outcomes
    ratios = f"{after.bytes / before.bytes:.3f} of the bytes, {after.seconds / before.seconds:.2f}"
    return f"{table(['weights', 'accuracy', 'state', 'one image'], rows)}\n{ratios} of the time"


def main() -> None:
    """Train, quantise, compare."""
    parser = argparse.ArgumentParser(description="quantized_resnet", allow_abbrev=False)
    parser.add_argument("--epochs", type=positive, default=EPOCHS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of data sets")
    options = parser.parse_args()
    gf.manual_seed(options.seed)
    model, train = network(), load(options.data, True, SHIFT)
    print(f"ResNet-18 on {type(train).__name__}, {len(train)} to train on")
    fit(model, train, options.epochs)
    print(shown(compare(model, load(options.data, True), load(options.data, False))))


if __name__ == "__main__":
    main()
