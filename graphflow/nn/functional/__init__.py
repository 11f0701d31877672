"""Layers and losses as functions: ``import graphflow.nn.functional as F``.

A module a subject; each lists what it gives in ``__all__``.  What not every program
uses is imported when one of its names is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from graphflow.functions.manipulation import one_hot
from graphflow.functions.padding import channel_shuffle, pixel_shuffle, pixel_unshuffle
from graphflow.functions.reductions import logsumexp
from graphflow.nn.functional.activation import *
from graphflow.nn.functional.distance import *
from graphflow.nn.functional.dropout import *
from graphflow.nn.functional.embedding import *
from graphflow.nn.functional.linear import *
from graphflow.nn.functional.loss import *
from graphflow.nn.functional.loss_margin import *
from graphflow.nn.functional.loss_regression import *
from graphflow.nn.functional.normalization import *
from graphflow.nn.functional.padding import *

if TYPE_CHECKING:
    from graphflow.nn.functional.attention import *
    from graphflow.nn.functional.convolution import *
    from graphflow.nn.functional.ctc import *
    from graphflow.nn.functional.grid import *
    from graphflow.nn.functional.multi_head import *
    from graphflow.nn.functional.pooling import *
    from graphflow.nn.functional.resampling import *

_LATER = (
    "attention", "convolution", "ctc", "grid", "multi_head", "pooling", "resampling",
)  # fmt: skip


def __getattr__(name: str) -> Any:
    if not name.startswith("__"):
        for subject in _LATER:
            module = import_module(f"{__name__}.{subject}")
            if name in module.__all__:
                return globals().setdefault(name, getattr(module, name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
