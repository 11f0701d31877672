"""Saving and loading: safetensors and PyTorch's checkpoints; nothing in a file is ever run."""

from typing import TYPE_CHECKING

from graphflow.later import importer

if TYPE_CHECKING:
    from graphflow.serialization.files import load, save
else:
    __getattr__ = importer(
        globals(),
        {
            "load": "graphflow.serialization.files:load",
            "save": "graphflow.serialization.files:save",
        },
    )

__all__ = ["load", "save"]
