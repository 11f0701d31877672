"""Optimisers and learning-rate schedules."""

from graphflow.optim import lr_scheduler
from graphflow.optim.adam import Adam, AdamW
from graphflow.optim.optimizer import Optimizer
from graphflow.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "lr_scheduler"]
