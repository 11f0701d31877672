"""What training needs beside modules and optimisers: data loading, checkpoints, progress."""

from typing import TYPE_CHECKING

from graphflow.later import importer
from graphflow.utils import data

if TYPE_CHECKING:
    from graphflow.utils import checkpoint
else:
    __getattr__ = importer(globals(), {"checkpoint": "graphflow.utils.checkpoint"})

__all__ = ["checkpoint", "data"]
