"""Every layer, activation, loss and container; each module lists its own in ``__all__``.

A module is imported when one of its names is asked for, so that start-up stays short.
"""

from typing import TYPE_CHECKING

from graphflow.later import Gathering, importer

if TYPE_CHECKING:
    from graphflow.nn.modules.activation import *
    from graphflow.nn.modules.adaptive import *
    from graphflow.nn.modules.attention import *
    from graphflow.nn.modules.batchnorm import *
    from graphflow.nn.modules.containers import *
    from graphflow.nn.modules.conv import *
    from graphflow.nn.modules.distance import *
    from graphflow.nn.modules.dropout import *
    from graphflow.nn.modules.lazy import *
    from graphflow.nn.modules.linear import *
    from graphflow.nn.modules.loss import *
    from graphflow.nn.modules.normalization import *
    from graphflow.nn.modules.padding import *
    from graphflow.nn.modules.parameter_containers import *
    from graphflow.nn.modules.pooling import *
    from graphflow.nn.modules.positions import *
    from graphflow.nn.modules.recurrent import *
    from graphflow.nn.modules.recurrent_cells import *
    from graphflow.nn.modules.shaping import *
    from graphflow.nn.modules.sparse import *
    from graphflow.nn.modules.synchronised import *
    from graphflow.nn.modules.transformer import *
    from graphflow.nn.modules.upsampling import *
else:
    _LATER = Gathering(
        __name__,
        (
            "containers", "linear", "activation", "dropout", "shaping", "loss", "conv",
            "pooling", "normalization", "batchnorm", "sparse", "attention", "transformer",
            "recurrent", "recurrent_cells", "positions", "padding", "upsampling", "distance",
            "parameter_containers", "lazy", "adaptive", "synchronised",
        ),
    )  # fmt: skip
    _ADDRESSES = ("container", "instancenorm", "module", "rnn", "utils")
    _PLACES = {name: f"{__name__}.{name}" for name in _ADDRESSES}
    __getattr__ = importer(
        globals(), _PLACES | {"Module": "graphflow.nn.module:Module"}, _LATER.find
    )
