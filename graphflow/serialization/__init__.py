"""Saving and loading: safetensors and PyTorch's checkpoints; nothing in a file is ever run."""

from typing import TYPE_CHECKING

from graphflow.later import importer

if TYPE_CHECKING:
    from graphflow.serialization.files import load, save
    from graphflow.serialization.safe import (
        add_safe_globals,
        clear_safe_globals,
        get_safe_globals,
        safe_globals,
    )
else:
    _PLACES = dict.fromkeys(("load", "save"), "graphflow.serialization.files")
    _SAFE = ("add_safe_globals", "clear_safe_globals", "get_safe_globals", "safe_globals")
    _PLACES.update(dict.fromkeys(_SAFE, "graphflow.serialization.safe"))
    __getattr__ = importer(globals(), {n: f"{place}:{n}" for n, place in _PLACES.items()})

__all__ = [
    "add_safe_globals", "clear_safe_globals", "get_safe_globals", "load", "safe_globals", "save",
]  # fmt: skip
