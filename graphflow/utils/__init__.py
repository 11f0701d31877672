"""What training needs beside modules and optimisers: data loading, checkpoints, progress."""

from typing import TYPE_CHECKING

from graphflow.later import importer
from graphflow.utils import data

if TYPE_CHECKING:
    from graphflow.utils import (
        _pytree,
        benchmark,
        checkpoint,
        dlpack,
        flop_counter,
        hooks,
        loggers,
        model_zoo,
        tensorboard,
    )
else:
    _LATER = (
        "_pytree", "benchmark", "checkpoint", "dlpack", "flop_counter", "hooks", "loggers",
        "model_zoo", "tensorboard",
    )  # fmt: skip
    __getattr__ = importer(globals(), {name: f"graphflow.utils.{name}" for name in _LATER})

__all__ = [
    "benchmark", "checkpoint", "data", "dlpack", "flop_counter", "hooks", "loggers", "model_zoo",
    "tensorboard",
]  # fmt: skip
