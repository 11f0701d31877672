"""Handwritten digits by the trainer: early stopping, resuming, the best checkpoint.

    python models/trainer_digits.py [folder of checkpoints]

Kill it at any moment and start it again: it ends as if nothing had happened.  On two processes:
``graphflow launch -n 2 models/trainer_digits.py``.
"""

import sys

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn, optim
from graphflow.training import EarlyStopping, Trainer
from graphflow.utils.data import DataLoader, TensorDataset
from graphflow.vision.datasets import Digits


def load(train: bool) -> TensorDataset:
    """Pixels and classes."""
    digits = Digits(train)
    return TensorDataset(digits.data.to(gf.float32).flatten(1) / 255, digits.targets)


def accuracy(scores: gf.Tensor, labels: gf.Tensor) -> gf.Tensor:
    """The part of the samples whose class has the highest score."""
    return (scores.argmax(1) == labels).to(gf.float32).mean()


gf.manual_seed(0)
model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10))
trainer = Trainer(
    model, optim.AdamW(model.parameters(), lr=2e-3), F.cross_entropy,
    metrics={"accuracy": accuracy}, clip_norm=5.0, callbacks=[EarlyStopping(patience=4)],
    folder=sys.argv[1] if len(sys.argv) > 1 else "out/trainer_digits",
)  # fmt: skip
held_out = DataLoader(load(train=False), 128)
history = trainer.fit(DataLoader(load(train=True), 64, shuffle=True), held_out, epochs=100)
best = trainer.load_best()
result = trainer.test(held_out)["test_accuracy"]
if trainer.rank == 0:
    print(f"{len(history)} epochs; accuracy {result:.4f} by the checkpoint of step {best.step}")
