"""Helpers around parameters: clipping gradients, one vector of all, folding batch norms.

``rnn`` packs and pads sequences of different lengths; ``parametrize`` and ``parametrizations``
put weights under constraints.
"""

from typing import TYPE_CHECKING

from graphflow.later import importer
from graphflow.nn.utils import rnn
from graphflow.nn.utils.clipping import (
    clip_grad_norm,
    clip_grad_norm_,
    clip_grad_value_,
    clip_grads_with_norm_,
    get_total_norm,
)
from graphflow.nn.utils.fusion import (
    fuse_conv_bn_eval,
    fuse_conv_bn_weights,
    fuse_linear_bn_eval,
    fuse_linear_bn_weights,
)
from graphflow.nn.utils.vectors import parameters_to_vector, vector_to_parameters

if TYPE_CHECKING:
    from graphflow.nn.utils import (
        clip_grad,
        convert_parameters,
        parametrizations,
        parametrize,
        prune,
        stateless,
    )
    from graphflow.nn.utils.making import skip_init
    from graphflow.nn.utils.parametrizations import remove_spectral_norm, remove_weight_norm
    from graphflow.nn.utils.parametrizations import spectral_norm_in_place as spectral_norm
    from graphflow.nn.utils.parametrizations import weight_norm_in_place as weight_norm
else:
    _PLACE = "graphflow.nn.utils.parametrizations"
    __getattr__ = importer(
        globals(),
        {
            "clip_grad": "graphflow.nn.utils.clip_grad",
            "convert_parameters": "graphflow.nn.utils.convert_parameters",
            "parametrizations": _PLACE,
            "parametrize": "graphflow.nn.utils.parametrize",
            "prune": "graphflow.nn.utils.prune",
            "remove_spectral_norm": f"{_PLACE}:remove_spectral_norm",
            "remove_weight_norm": f"{_PLACE}:remove_weight_norm",
            "skip_init": "graphflow.nn.utils.making:skip_init",
            "spectral_norm": f"{_PLACE}:spectral_norm_in_place",
            "stateless": "graphflow.nn.utils.stateless",
            "weight_norm": f"{_PLACE}:weight_norm_in_place",
        },
    )

__all__ = [
    "clip_grad", "clip_grad_norm", "clip_grad_norm_", "clip_grad_value_", "clip_grads_with_norm_",
    "fuse_conv_bn_eval", "fuse_conv_bn_weights", "fuse_linear_bn_eval", "fuse_linear_bn_weights",
    "get_total_norm", "parameters_to_vector", "parametrizations", "parametrize", "prune",
    "remove_spectral_norm", "remove_weight_norm", "rnn", "skip_init", "spectral_norm",
    "vector_to_parameters", "weight_norm",
]  # fmt: skip
