"""Helpers around parameters: clipping gradients, one vector of all, folding batch norms.

``rnn`` packs and pads sequences of different lengths.
"""

from graphflow.nn.utils import rnn
from graphflow.nn.utils.clipping import (
    clip_grad_norm,
    clip_grad_norm_,
    clip_grad_value_,
    clip_grads_with_norm_,
    get_total_norm,
)
from graphflow.nn.utils.fusion import fuse_conv_bn_eval, fuse_conv_bn_weights
from graphflow.nn.utils.vectors import parameters_to_vector, vector_to_parameters

__all__ = [
    "clip_grad_norm", "clip_grad_norm_", "clip_grad_value_", "clip_grads_with_norm_",
    "fuse_conv_bn_eval", "fuse_conv_bn_weights", "get_total_norm", "parameters_to_vector",
    "vector_to_parameters",
]  # fmt: skip
