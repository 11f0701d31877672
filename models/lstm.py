"""Long short-term memory on two sequence tasks: writing source code, and reading digits.

    python models/lstm.py --minutes 1
    python models/lstm.py digits --mode both

The first predicts the next character of Python's standard library and is measured on
files that it has not seen; the second reads an image row by row and names the digit.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import mlp
import text
from harness import Session, Task, main

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn, optim
from graphflow.optim.lr_scheduler import StepLR
from graphflow.utils.data import DataLoader, TensorDataset

BATCH, LENGTH, STEPS = 32, 32, 200  # windows a step, characters a window; steps an epoch
HIDDEN, CLIP = 128, 1.0
PROMPT, WRITTEN, TEMPERATURE = "def ", 200, 0.7
ROWS = 28  # of an image, and the pixels of each


class Writer(nn.Module):
    """An LSTM over characters, and scores of the next one at every place."""

    def __init__(self, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(text.CHARACTERS), hidden)
        self.lstm = nn.LSTM(hidden, hidden, batch_first=True)
        self.head = nn.Linear(hidden, len(text.CHARACTERS))
        self.head.weight = self.embedding.weight  # one table for reading and writing
        with gf.no_grad():
            self.embedding.weight.normal_(std=0.1)

    def forward(self, tokens: gf.Tensor, state: Any = None) -> tuple[gf.Tensor, Any]:
        """Scores ``[batch, time, vocabulary]`` of tokens ``[batch, time]``, and the state."""
        hidden, state = self.lstm(self.embedding(tokens), state)
        return self.head(hidden), state


class Reader(nn.Module):
    """An LSTM over the rows of an image; its last state names the class."""

    def __init__(self, hidden: int = 64) -> None:
        super().__init__()
        self.lstm = nn.LSTM(ROWS, hidden, batch_first=True)
        self.head = nn.Linear(hidden, 10)

    def forward(self, images: gf.Tensor) -> gf.Tensor:
        """Class scores ``[batch, 10]`` of images ``[batch, 784]``."""
        _, (last, _) = self.lstm(images.reshape(-1, ROWS, ROWS))
        return self.head(last[-1])


def text_loss(model: Writer, tokens: gf.Tensor, following: gf.Tensor) -> gf.Tensor:
    """Nats a character."""
    return F.cross_entropy(model(tokens)[0].flatten(0, 1), following.flatten())


def digit_loss(model: Reader, images: gf.Tensor, labels: gf.Tensor) -> gf.Tensor:
    """Cross-entropy of the classes."""
    return F.cross_entropy(model(images), labels)


def training_step(model: Any, optimizer: Any, loss_of: Any) -> Any:
    """One update as a function of a batch, the gradient's norm held to ``CLIP``."""

    def step(inputs: gf.Tensor, wanted: gf.Tensor) -> gf.Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, inputs, wanted)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        return loss

    return step


def make() -> tuple[Writer, Any]:
    """The model of text and its optimiser."""
    model = Writer()
    return model, optim.Adam(model.parameters(), lr=3e-3)


def specs() -> tuple[gf.TensorSpec, gf.TensorSpec]:
    """The types of a batch of text."""
    spec = gf.TensorSpec((BATCH, LENGTH), gf.int64)
    return spec, spec


def build() -> tuple[Any, tuple[Any, ...]]:
    """For ``graphflow inspect`` and ``graphflow bench``: a step and its specs."""
    gf.manual_seed(0)
    return training_step(*make(), text_loss), specs()


def inference() -> tuple[Any, tuple[Any, ...]]:
    """For ``graphflow export models/lstm.py:inference``: the model and its specs."""
    gf.manual_seed(0)
    return make()[0].eval(), specs()[:1]


def held_out_loss(model: Writer, tokens: Any) -> float:
    """Nats a character over windows of the files that are not trained on."""
    windows = text.windows(tokens, LENGTH, limit=1024)
    with gf.no_grad():
        losses = [float(text_loss(model, *batch)) for batch in text.batches(windows, BATCH)]
    return sum(losses) / len(losses)


def written(model: Writer) -> str:
    """What the model writes after the prompt, a character at a time, its state carried on."""
    codes = text.encode(PROMPT)
    with gf.no_grad():
        scores, state = model(gf.tensor([codes]))
        for _ in range(WRITTEN):
            chances = F.softmax(scores[:, -1] / TEMPERATURE, -1)
            drawn = gf.multinomial(chances, 1)
            codes.append(int(drawn))
            scores, state = model(drawn, state)
    return text.decode(codes)


def start_text(seed: int, root: Path) -> Session:
    """A fresh model of text and its data, the same for every mode."""
    gf.manual_seed(seed)
    model, optimizer = make()
    train, held_out = text.corpus()
    return Session(
        step=training_step(model, optimizer, text_loss),
        specs=specs(),
        batches=text.Crops(train, LENGTH, BATCH, STEPS, seed),
        evaluate=lambda: held_out_loss(model, held_out),
        scheduler=StepLR(optimizer, step_size=4, gamma=0.5),
        show=lambda: f"drawn:\n{written(model)}",
    )


def start_digits(seed: int, root: Path) -> Session:
    """A fresh reader of digits and its data, the same for every mode."""
    gf.manual_seed(seed)
    model = Reader()
    optimizer = optim.Adam(model.parameters(), lr=3e-3)
    train, (images, labels) = mlp.load(root, True), mlp.load(root, False).tensors

    def accuracy() -> float:
        with gf.no_grad():
            return float((model(images).argmax(1) == labels).to(gf.float32).mean())

    return Session(
        step=training_step(model, optimizer, digit_loss),
        specs=(gf.TensorSpec((BATCH, ROWS * ROWS)), gf.TensorSpec((BATCH,), gf.int64)),
        batches=DataLoader(
            TensorDataset(*train.tensors), BATCH, shuffle=True, drop_last=True, generator=seed
        ),
        evaluate=accuracy,
        scheduler=StepLR(optimizer, step_size=8, gamma=0.5),
    )


def describe_text(root: Path) -> str:
    """What is trained on what."""
    train, held_out = text.corpus()
    return (
        f"{HIDDEN} units on Python's standard library, {len(train):,} characters to train on, "
        f"{len(held_out):,} of other files to validate"
    )


def describe_digits(root: Path) -> str:
    """What is trained on what."""
    train, test = mlp.load(root, True), mlp.load(root, False)
    return f"64 units read images row by row, {len(train)} to train on, {len(test)} to test"


TASK = Task("lstm", start_text, epochs=8, metric="validation loss", describe=describe_text)
DIGITS = Task("lstm digits", start_digits, 20, "test accuracy", describe_digits)

if __name__ == "__main__":
    asked = sys.argv[1:2] == ["digits"]
    main(DIGITS if asked else TASK, sys.argv[2:] if asked else None)
