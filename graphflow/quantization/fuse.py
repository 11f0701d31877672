"""Normalisation into the layer before it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from graphflow.nn import modules
from graphflow.nn.module import Module
from graphflow.nn.utils.fusion import fuse_conv_bn_eval, fuse_conv_bn_weights
from graphflow.quantization.layers import unsupported

CONVOLUTIONS = (modules.Conv1d, modules.Conv2d, modules.Conv3d)
NORMS = (modules.BatchNorm1d, modules.BatchNorm2d, modules.BatchNorm3d)
FUSED_INTO = (*CONVOLUTIONS, modules.Linear)
"""What norms are folded into."""


def fuse_modules(
    model: Module, modules_to_fuse: Sequence[Any], inplace: bool = False, **kwargs: Any
) -> Module:
    """Fold norms into the layers before them: lists of names, ``["conv1", "bn1", "relu"]``.

    The norm becomes an identity.  An activation stays where it is, for a compiled program
    runs it together with the product in any case.  The model must be in evaluation mode.
    """
    model = model if inplace else copy.deepcopy(model)
    groups = modules_to_fuse
    if groups and isinstance(groups[0], str):
        groups = [groups]
    for names in groups:
        _fuse(model, list(names))
    return model


def fuse_modules_qat(
    model: Module, modules_to_fuse: Sequence[Any], inplace: bool = False, **kwargs: Any
) -> Module:
    """The model or a copy, as it is: norms are trained with, and are in the product's kernel."""
    return model if inplace else copy.deepcopy(model)


def fuse_conv_bn(model: Module, inplace: bool = False) -> Module:
    """:func:`fuse_modules` for every norm that follows a layer under the same parent.

    It goes by the order in which children were made, so it is for models that use them so.
    """
    model = model if inplace else copy.deepcopy(model)
    for parent in list(model.modules()):
        names = list(parent._modules)
        for first, second in pairwise(names):
            one, other = parent._modules[first], parent._modules[second]
            if isinstance(one, FUSED_INTO) and isinstance(other, NORMS):
                _fuse(parent, [first, second])
    return model


def _fuse(model: Module, names: list[str]) -> None:
    found = [model.get_submodule(name) for name in names]
    if len(found) < 2 or not isinstance(found[1], NORMS):
        return
    layer, norm = found[:2]
    if isinstance(layer, modules.Linear):
        fused: Any = copy.deepcopy(layer)
        fused.weight, fused.bias = fuse_conv_bn_weights(
            layer.weight, layer.bias, norm.running_mean, norm.running_var, norm.eps,
            norm.weight, norm.bias,
        )  # fmt: skip
    elif isinstance(layer, CONVOLUTIONS):
        fused = fuse_conv_bn_eval(layer, norm)
    else:
        raise unsupported(layer)
    set_submodule(model, names[0], fused)
    set_submodule(model, names[1], modules.Identity())


def set_submodule(model: Module, name: str, module: Module) -> None:
    """Put ``module`` in the place called ``name``, which may have dots."""
    parent, _, last = name.rpartition(".")
    (model.get_submodule(parent) if parent else model)._modules[last] = module
