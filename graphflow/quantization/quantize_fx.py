"""Preparing and converting without naming what belongs together: PyTorch's FX mode.

Which norms follow which layers is seen by running the model on examples.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from graphflow import pytree
from graphflow.autograd.modes import no_grad
from graphflow.errors import GraphFlowError
from graphflow.nn.module import Module
from graphflow.quantization.fuse import FUSED_INTO, NORMS, fuse_modules
from graphflow.quantization.qconfig_mapping import QConfigMapping
from graphflow.quantization.quantize import convert, prepare, prepare_qat
from graphflow.tensor import Tensor

__all__ = ["convert_fx", "fuse_fx", "prepare_fx", "prepare_qat_fx"]


def prepare_fx(
    model: Module, qconfig_mapping: Any, example_inputs: tuple[Any, ...], *options: Any,
    **more: Any,
) -> Module:  # fmt: skip
    """A copy of ``model`` with norms folded and observers, as :func:`prepare` makes them.

    ``qconfig_mapping`` is a :class:`QConfigMapping`, or a dictionary ``{"": qconfig}``.
    """
    made = fuse_fx(model, example_inputs)
    _mapping(qconfig_mapping).apply_to(made)
    return prepare(made, inplace=True)


def prepare_qat_fx(
    model: Module, qconfig_mapping: Any, example_inputs: tuple[Any, ...], *options: Any,
    **more: Any,
) -> Module:  # fmt: skip
    """A copy of ``model`` that is trained with rounding, as :func:`prepare_qat` makes it."""
    made = copy.deepcopy(model)
    _mapping(qconfig_mapping).apply_to(made)
    return prepare_qat(made, inplace=True)


def convert_fx(graph_module: Module, *options: Any, **more: Any) -> Module:
    """:func:`convert` of what was prepared."""
    return convert(graph_module)


def fuse_fx(model: Module, example_inputs: tuple[Any, ...]) -> Module:
    """A copy of ``model``, in evaluation mode, with every norm folded into the layer before it.

    A norm that is given what a layer returned follows it.  Raises GraphFlowError if the
    copy's results are others: then something else reads what the layer returned.
    """
    if model.training:
        raise GraphFlowError("norms are folded into layers of a model in evaluation mode: eval()")
    model, given = copy.deepcopy(model), _as_tuple(example_inputs)
    found, before = _followed(model, given)
    if found:
        fuse_modules(model, found, inplace=True)
        _same(before, _run(model, given), found)
    return model


def _as_tuple(example_inputs: Any) -> tuple[Any, ...]:
    several = isinstance(example_inputs, (tuple, list))
    return tuple(example_inputs) if several else (example_inputs,)


def _mapping(given: Any) -> QConfigMapping:
    if isinstance(given, QConfigMapping):
        return given
    if isinstance(given, dict) and set(given) == {""}:
        return QConfigMapping().set_global(given[""])
    raise TypeError('qconfig_mapping must be a QConfigMapping or {"": qconfig}')


def _run(model: Module, given: tuple[Any, ...]) -> list[np.ndarray[Any, Any]]:
    with no_grad():
        leaves = pytree.flatten(model(*given))[0]
    return [leaf.numpy(force=True) for leaf in leaves if isinstance(leaf, Tensor)]


def _followed(model: Module, given: tuple[Any, ...]) -> tuple[list[list[str]], list[Any]]:
    """The names of layers and the norms behind them, and what the model returns."""
    made: list[tuple[Any, str]] = []  # what was returned stays alive, so that it is not mistaken
    pairs: list[list[str]] = []
    handles: list[Any] = []

    def returned(name: str) -> Any:
        return lambda module, inputs, output: made.append((output, name))

    def taken(name: str) -> Any:
        def look(module: Module, inputs: tuple[Any, ...]) -> None:
            pairs.extend([layer, name] for value, layer in made if value is inputs[0])

        return look

    for name, module in model.named_modules():
        if isinstance(module, FUSED_INTO):
            handles.append(module.register_forward_hook(returned(name)))
        elif isinstance(module, NORMS):
            handles.append(module.register_forward_pre_hook(taken(name)))
    before = _run(model, given)
    for handle in handles:
        handle.remove()
    called = [name for _, name in made]
    return [pair for pair in pairs if called.count(pair[0]) == 1 == pairs.count(pair)], before


def _same(before: list[Any], after: list[Any], pairs: list[list[str]]) -> None:
    for one, other in zip(before, after, strict=True):
        near = 1e-3 * max(float(np.abs(one).max(initial=0)), 1e-6)
        if not np.allclose(one, other, rtol=0, atol=near, equal_nan=True):
            names = ", ".join("+".join(pair) for pair in pairs)
            raise GraphFlowError(
                "folding norms changes what the model returns, so something besides the norm "
                f"reads what one of these layers returned: {names}; name the layers to fold "
                "yourself: fuse_modules and prepare"
            )
