"""The whole program as its user waits for it: process start to the end of the first epoch.

    python -m benchmarks.epochs --workloads mlp,cnn

Both systems run the same script: 60,000 images in MNIST's files, each made a float tensor
and normalised on its own, a shuffling ``DataLoader``, training steps, and the mean loss
printed at the end.  Then another epoch takes turns with steps on one batch, a few of each at
a time, which says what loading costs.

GraphFlow does it by ``MNIST``, ``ToTensor`` and ``Normalize``; PyTorch by a data set of four
tensor operations an image, less than torchvision's transforms do.
Caches are warm: each system has run a short epoch before.  Systems take turns; PyTorch runs
in either memory format, and the faster one counts.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.worker import answer_of, environment, parser_of
from graphflow.tables import duration, significant, table

SYSTEMS = {
    "static": "GraphFlow",
    "torch": "PyTorch eager",
    "torch_channels_last": "PyTorch eager, channels last",
}
WORKLOADS = ("mlp", "cnn")
MEAN, DEVIATION = (0.1307,), (0.3081,)  # of MNIST's pixels
SHORT = 1000  # images of the epoch that fills the caches: its last batch is a part of one too
TURN = 40  # steps
APART = 0.05  # of the mean losses, whose batches are drawn differently


def write_images(folder: Path, count: int) -> None:
    """Handwritten digits in MNIST's files: those shipped, shifted, with noise."""
    from graphflow.vision.datasets import Digits

    rng, digits = np.random.default_rng(0), Digits()
    picks = rng.integers(0, len(digits), count)
    images = np.asarray(digits.data)[picks].reshape(count, 28, 28)
    for image, shift in zip(images, rng.integers(-2, 3, (count, 2)), strict=True):
        image[:] = np.roll(image, shift, (0, 1))
    images = np.clip(images + rng.integers(0, 20, images.shape), 0, 255)
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    _write_idx(raw / "train-images-idx3-ubyte", images.astype(np.uint8))
    _write_idx(raw / "train-labels-idx1-ubyte", np.asarray(digits.targets)[picks].astype(np.uint8))
    for name in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):  # must be there
        _write_idx(raw / name, np.zeros((1, 28, 28) if "images" in name else 1, np.uint8))


def _write_idx(path: Path, values: np.ndarray[Any, Any]) -> None:
    head = struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    path.write_bytes(head + values.tobytes())


def graphflow_images(folder: Path) -> Any:
    """The images as GraphFlow's users load them."""
    from graphflow.vision import datasets, transforms

    convert = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, DEVIATION)])
    return datasets.MNIST(folder, train=True, transform=convert)


def torch_images(folder: Path) -> Any:
    """The images in PyTorch, without the detour over Pillow that torchvision takes."""
    import torch
    from torch.utils.data import Dataset

    class Images(Dataset):  # type: ignore[type-arg, misc]
        def __init__(self) -> None:
            raw = folder / "MNIST" / "raw"
            pixels = np.fromfile(raw / "train-images-idx3-ubyte", np.uint8)[16:]
            self.pixels = torch.from_numpy(pixels).view(-1, 1, 28, 28)
            classes = np.fromfile(raw / "train-labels-idx1-ubyte", np.uint8)[8:]
            self.classes = classes.tolist()

        def __len__(self) -> int:
            return len(self.classes)

        def __getitem__(self, index: int) -> Any:
            image = self.pixels[index].float().div_(255)
            return image.sub_(MEAN[0]).div_(DEVIATION[0]), self.classes[index]

    return Images()


def train(system: str, name: str, folder: Path) -> dict[str, float]:
    """One epoch in this process: its seconds and mean loss, and what loading costs."""
    from benchmarks.systems import shared
    from benchmarks.workloads import WORKLOADS, Training

    framework = importlib.import_module("graphflow" if system == "static" else "torch")
    data = importlib.import_module(f"{framework.__name__}.utils.data")
    workload: Any = WORKLOADS[name]
    framework.manual_seed(0)
    images = graphflow_images(folder) if system == "static" else torch_images(folder)
    loader = data.DataLoader(images, batch_size=workload.batch, shuffle=True)
    model, optimizer = shared.program(framework, workload)
    if system == "torch_channels_last":
        model = model.to(memory_format=framework.channels_last)
    step = shared.timed(framework, workload, model, optimizer)
    if system == "static":
        step = framework.compile(step)
    flat = isinstance(workload, Training)

    def steps(batches: Iterable[Any]) -> tuple[float, float]:
        begin, total = time.perf_counter(), 0.0
        for pixels, classes in batches:
            loss = step(pixels.flatten(1) if flat else pixels, classes)
            total += loss.item() * len(classes)
        return time.perf_counter() - begin, total

    seconds, total = steps(loader)
    begin, loaded, alone = time.perf_counter(), 0.0, 0.0
    left, one = iter(loader), next(iter(loader))
    for _ in range(max(1, len(loader) // TURN)):
        loaded += steps(itertools.islice(left, TURN))[0]
        alone += steps(itertools.repeat(one, TURN))[0]
    more = time.perf_counter() - begin
    return {"epoch": seconds, "loss": total / len(images), "ratio": loaded / alone, "more": more}


def timed(system: str, name: str, folder: Path, threads: int) -> dict[str, float]:
    """:func:`train` in a fresh process, with the seconds of all of it."""
    command = [sys.executable, "-m", "benchmarks.epochs", "--system", system]
    begin = time.perf_counter()
    answer: dict[str, float] = answer_of(
        [*command, "--workloads", name, "--folder", str(folder)], environment(threads)
    )
    return {**answer, "total": time.perf_counter() - begin - answer["more"]}


def measure(name: str, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Medians of each system's runs, which take turns."""
    with tempfile.TemporaryDirectory() as place:
        short, full = Path(place) / "short", Path(place) / "full"
        write_images(short, SHORT - SHORT % 128 + options.images % 128)
        write_images(full, options.images)
        for system in SYSTEMS:
            timed(system, name, short, options.threads)
        runs: dict[str, list[dict[str, float]]] = {system: [] for system in SYSTEMS}
        for _ in range(options.rounds):
            for system, found in runs.items():
                found.append(timed(system, name, full, options.threads))
                print(".", end="", file=sys.stderr, flush=True)
    medians = {
        system: {key: statistics.median(run[key] for run in found) for key in found[0]}
        for system, found in runs.items()
    }
    losses = [run["loss"] for run in medians.values()]
    if max(losses) - min(losses) > APART * max(losses):
        raise SystemExit(f"{name}: the systems' mean losses are {losses}")
    return medians


def report(name: str, medians: dict[str, dict[str, float]]) -> list[list[str]]:
    """A row a system."""
    peers = [found["total"] for system, found in medians.items() if system != "static"]
    return [
        [
            name,
            SYSTEMS[system],
            duration(found["total"]),
            duration(found["epoch"]),
            significant(found["ratio"]),
            f"{found['loss']:.4f}",
            significant(found["total"] / min(peers)),
        ]
        for system, found in medians.items()
    ]


def main() -> None:
    """Measure and print."""
    parser = parser_of("epochs", SYSTEMS)
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.system:
        print(json.dumps(train(options.system, options.workloads, options.folder)))
        return
    figures = {name: measure(name, options) for name in options.workloads.split(",")}
    rows = [row for name, medians in figures.items() for row in report(name, medians)]
    headers = ["one epoch", "", "program", "epoch", "loaded ÷ not", "mean loss", "÷ PyTorch"]
    print(f"\n{table(headers, rows)}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
