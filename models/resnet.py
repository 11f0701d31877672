"""Fine-tuning a residual network: load weights, freeze the lower half, replace the head.

    python models/resnet.py --mode both --seeds 2

A small ResNet learns the digits 0 to 4 and is saved.  It is loaded again, its
stem and first two stages are frozen, its head becomes one for ten classes, and
the rest learns all digits: of those that come with GraphFlow, or of MNIST where
its files are under ``--data``.  The frozen weights stay what they were, bit by bit.
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

from cnn import SHIFT, accuracy, training_step, whole
from harness import Session, Task, main

import graphflow as gf
from graphflow import nn, optim
from graphflow.utils.data import DataLoader, Subset
from graphflow.vision import datasets, transforms
from graphflow.vision.models import ResNet
from graphflow.vision.models.resnet import BasicBlock

BATCH, EPOCHS, FIRST_EPOCHS = 64, 6, 6
SPECS = gf.TensorSpec((BATCH, 3, 28, 28)), gf.TensorSpec((BATCH,), gf.int64)
FROZEN = ("conv1", "bn1", "layer1", "layer2")


def network(classes: int) -> ResNet:
    """One block a stage."""
    return ResNet(BasicBlock, (1, 1, 1, 1), num_classes=classes)


def sgd(model: nn.Module) -> Any:
    """The optimiser of what is not frozen."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return optim.SGD(trained, lr=0.02, momentum=0.9, nesterov=True, weight_decay=5e-4)


def load(root: Path, train: bool, *first: Any) -> Any:
    """MNIST if it is there, else the digits; grey in three equal channels."""
    steps = [*first, transforms.Grayscale(3), transforms.ToTensor(), transforms.Normalize(0.5, 0.5)]
    pipeline = transforms.Compose(steps)
    mnist = datasets.MNIST.available(root, True) and datasets.MNIST.available(root, False)
    return datasets.MNIST(root, train, pipeline) if mnist else datasets.Digits(train, pipeline)


def batches(data: Any) -> Any:
    """Shuffled, whole batches."""
    return DataLoader(data, BATCH, shuffle=True, drop_last=True)


@functools.cache
def pretrained(seed: int, root: Path) -> dict[str, gf.Tensor]:
    """The weights of a network that has learnt the digits 0 to 4, by way of a file."""
    gf.manual_seed(seed)
    model = network(5)
    step = gf.compile(training_step(model, sgd(model)))
    data = load(root, True, SHIFT)
    lower = Subset(data, [i for i, label in enumerate(data.targets.tolist()) if label < 5])
    for _ in range(FIRST_EPOCHS):
        for images, labels in batches(lower):
            step(images, labels)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lower.safetensors"
        gf.save(model.state_dict(), path)
        return gf.load(path)


def adapted(weights: dict[str, gf.Tensor]) -> ResNet:
    """The network with these weights, its lower half frozen, and a new head."""
    model = network(5)
    model.load_state_dict(weights)
    for name in FROZEN:
        model.get_submodule(name).requires_grad_(False)
    model.fc = nn.Linear(model.fc.in_features, 10)
    return training(model)


def training(model: ResNet) -> ResNet:
    """Training mode, but for what is frozen: its running statistics stay too."""
    model.train()
    for name in FROZEN:
        model.get_submodule(name).eval()
    return model


def frozen_state(model: ResNet) -> dict[str, bytes]:
    """The bits of everything that is frozen."""
    return {
        name: value.numpy().tobytes()
        for name, value in model.state_dict().items()
        if name.split(".")[0] in FROZEN
    }


def build() -> tuple[Any, tuple[Any, ...]]:
    """For ``graphflow inspect`` and ``graphflow bench``: a step and its specs."""
    gf.manual_seed(0)
    model = adapted(network(5).state_dict())
    return training_step(model, sgd(model)), SPECS


def inference() -> tuple[Any, tuple[Any, ...]]:
    """For ``graphflow export models/resnet.py:inference``: the model and its specs."""
    gf.manual_seed(0)
    return network(5).eval(), (gf.TensorSpec(("batch", 3, 28, 28)),)


def start(seed: int, root: Path) -> Session:
    """The adapted network and its data, the same for every mode."""
    weights = pretrained(seed, root)
    gf.manual_seed(seed)
    model = adapted(weights)
    before = frozen_state(model)
    test_images, test_labels = whole(load(root, False))

    def evaluate() -> float:
        result = accuracy(model, test_images, test_labels)
        training(model)
        if frozen_state(model) != before:
            raise AssertionError("training changed a frozen weight")
        return result

    return Session(
        step=training_step(model, sgd(model)),
        specs=SPECS,
        batches=batches(load(root, True, SHIFT)),
        evaluate=evaluate,
    )


def describe(root: Path) -> str:
    """What is trained on what."""
    train, test = load(root, True), load(root, False)
    return (
        f"pretrained on the digits 0 to 4, {', '.join(FROZEN)} frozen, new head; "
        f"{type(train).__name__}, {len(train)} to train on, {len(test)} to test"
    )


TASK = Task("resnet", start, epochs=EPOCHS, metric="test accuracy", describe=describe)

if __name__ == "__main__":
    main(TASK)
