"""Optimisers and learning-rate schedules, imported when first asked for."""

from typing import TYPE_CHECKING

from graphflow.later import importer
from graphflow.optim.optimizer import Optimizer

if TYPE_CHECKING:
    from graphflow.optim import lr_scheduler, swa_utils
    from graphflow.optim.adam import Adam, Adamax, AdamW, NAdam, RAdam
    from graphflow.optim.adaptive import Adadelta, Adagrad, RMSprop, Rprop
    from graphflow.optim.lamb import LAMB
    from graphflow.optim.lbfgs import LBFGS
    from graphflow.optim.matrices import Adafactor, Muon
    from graphflow.optim.sgd import ASGD, SGD
    from graphflow.optim.sparse_adam import SparseAdam
else:
    _FILES = {
        "adam": ("Adam", "AdamW", "Adamax", "NAdam", "RAdam"),
        "adaptive": ("Adadelta", "Adagrad", "RMSprop", "Rprop"),
        "lamb": ("LAMB",),
        "lbfgs": ("LBFGS",),
        "matrices": ("Adafactor", "Muon"),
        "sgd": ("ASGD", "SGD"),
        "sparse_adam": ("SparseAdam",),
    }
    _PLACES = {
        name: f"graphflow.optim.{file}:{name}" for file, names in _FILES.items() for name in names
    }
    _PLACES |= {name: f"graphflow.optim.{name}" for name in ("lr_scheduler", "swa_utils", *_FILES)}
    __getattr__ = importer(globals(), _PLACES)

__all__ = [
    "ASGD", "LAMB", "LBFGS", "SGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax",
    "Muon", "NAdam", "Optimizer", "RAdam", "RMSprop", "Rprop", "SparseAdam", "lr_scheduler",
    "swa_utils",
]  # fmt: skip
