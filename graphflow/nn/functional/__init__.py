"""Layers and losses as functions: ``import graphflow.nn.functional as F``.

A module a subject; each lists what it gives in ``__all__``.  What not every program
uses is imported when one of its names is asked for.
"""

from typing import TYPE_CHECKING

from graphflow import methods as _methods
from graphflow.dispatch import in_place as _in_place
from graphflow.functions.manipulation import one_hot as one_hot
from graphflow.functions.reductions import logsumexp as logsumexp
from graphflow.later import Gathering, importer
from graphflow.nn.functional import activation as _activation
from graphflow.nn.functional.activation import *
from graphflow.nn.functional.dropout import *
from graphflow.nn.functional.linear import *
from graphflow.nn.functional.loss import *

if TYPE_CHECKING:
    from graphflow.functions.padding import channel_shuffle as channel_shuffle
    from graphflow.functions.padding import pixel_shuffle as pixel_shuffle
    from graphflow.functions.padding import pixel_unshuffle as pixel_unshuffle
    from graphflow.nn.functional.attention import *
    from graphflow.nn.functional.convolution import *
    from graphflow.nn.functional.ctc import *
    from graphflow.nn.functional.distance import *
    from graphflow.nn.functional.embeddings import *
    from graphflow.nn.functional.fractional import *
    from graphflow.nn.functional.grid import *
    from graphflow.nn.functional.loss_margin import *
    from graphflow.nn.functional.loss_regression import *
    from graphflow.nn.functional.multi_head import *
    from graphflow.nn.functional.normalization import *
    from graphflow.nn.functional.padding import *
    from graphflow.nn.functional.pooling import *
    from graphflow.nn.functional.resampling import *
else:
    _LATER = Gathering(
        __name__,
        (
            "loss_regression", "normalization", "embeddings", "convolution", "pooling",
            "padding", "attention", "loss_margin", "distance", "resampling", "multi_head",
            "grid", "ctc", "fractional",
        ),
    )  # fmt: skip
    _SHUFFLES = ("channel_shuffle", "pixel_shuffle", "pixel_unshuffle")
    __getattr__ = importer(
        globals(),
        {name: f"graphflow.functions.padding:{name}" for name in _SHUFFLES},
        _LATER.find,
    )

    def __dir__() -> list[str]:
        return sorted({*globals(), *_SHUFFLES, *_LATER.names()})


_methods.bind(_activation, _in_place)
