"""Optimisers and learning-rate schedules."""

from typing import TYPE_CHECKING

from graphflow.later import importer
from graphflow.optim import lr_scheduler
from graphflow.optim.adam import Adam, Adamax, AdamW, NAdam, RAdam
from graphflow.optim.adaptive import Adadelta, Adagrad, RMSprop, Rprop
from graphflow.optim.lamb import LAMB
from graphflow.optim.lbfgs import LBFGS
from graphflow.optim.optimizer import Optimizer
from graphflow.optim.sgd import ASGD, SGD

if TYPE_CHECKING:
    from graphflow.optim import swa_utils
else:
    __getattr__ = importer(globals(), {"swa_utils": "graphflow.optim.swa_utils"})

__all__ = [
    "ASGD", "LAMB", "LBFGS", "SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam",
    "Optimizer", "RAdam", "RMSprop", "Rprop", "lr_scheduler", "swa_utils",
]  # fmt: skip
