"""Optimisers and learning-rate schedules."""

from graphflow.optim import lr_scheduler
from graphflow.optim.adam import Adam, Adamax, AdamW, NAdam, RAdam
from graphflow.optim.adaptive import Adadelta, Adagrad, RMSprop, Rprop
from graphflow.optim.lamb import LAMB
from graphflow.optim.lbfgs import LBFGS
from graphflow.optim.optimizer import Optimizer
from graphflow.optim.sgd import ASGD, SGD

__all__ = [
    "ASGD", "LAMB", "LBFGS", "SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam",
    "Optimizer", "RAdam", "RMSprop", "Rprop", "lr_scheduler",
]  # fmt: skip
