"""What training needs beside modules and optimisers: data loading, checkpoints, progress."""

from typing import TYPE_CHECKING

from graphflow.later import importer
from graphflow.utils import data

if TYPE_CHECKING:
    from graphflow.utils import _pytree, checkpoint, dlpack, hooks, loggers, model_zoo, tensorboard
else:
    _LATER = ("_pytree", "checkpoint", "dlpack", "hooks", "loggers", "model_zoo", "tensorboard")
    __getattr__ = importer(globals(), {name: f"graphflow.utils.{name}" for name in _LATER})

__all__ = ["checkpoint", "data", "dlpack", "hooks", "loggers", "model_zoo", "tensorboard"]
