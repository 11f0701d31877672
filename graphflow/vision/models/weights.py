"""Weights for a model: from a file, from an address with a checksum, or a clear error."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from graphflow import hub
from graphflow.errors import GraphFlowError
from graphflow.nn.module import Module
from graphflow.serialization import load

M = TypeVar("M", bound=Module)

_builders: dict[str, Callable[..., Module]] = {}


def register(builder: Callable[..., M]) -> Callable[..., M]:
    """List a builder under its name."""
    _builders[builder.__name__] = builder
    return builder


def list_models() -> list[str]:
    """The names that :func:`get_model` knows."""
    return sorted(_builders)


def get_model(name: str, **config: Any) -> Module:
    """The model called ``name``, such as ``"resnet18"``, with the options of its function."""
    if name not in _builders:
        raise ValueError(f"unknown model {name!r}; known: {', '.join(list_models())}")
    return _builders[name](**config)


def wanted(pretrained: Any, weights: Any) -> Any:
    """The one thing that was asked for: ``weights`` and the older ``pretrained`` mean the same."""
    if pretrained is None or pretrained is False:
        return None if weights is False else weights
    if weights is not None:
        raise ValueError("pass either weights or pretrained: they mean the same")
    return pretrained


def built(
    make: Callable[[], M], name: str, pretrained: Any, weights: Any, progress: bool = True
) -> M:
    """The model that ``make`` makes, with the weights that were asked for.

    ``weights``: a file (safetensors or PyTorch's), an address with a checksum
    (``…-0676ba61.pth`` or ``…#sha256=…``), or a state dict.
    """
    chosen = wanted(pretrained, weights)
    state = None if chosen is None else read_weights(name, chosen, progress)
    model = make()
    if state is not None:
        model.load_state_dict(state)
    return model


def read_weights(name: str, weights: Any, progress: bool = True) -> Mapping[str, Any]:
    """The state dict that ``weights`` names."""
    if isinstance(weights, Mapping):
        return weights
    if isinstance(weights, str) and "://" in weights:
        return _state(hub.load_state_dict_from_url(weights, check_hash=True, progress=progress))
    if isinstance(weights, (str, os.PathLike)) and os.path.exists(weights):
        return _state(load(weights))
    missing = f"there is no file {os.fspath(weights)!r}; " if _is_path(weights) else ""
    raise GraphFlowError(f"{name}: {missing}{_ADVICE}")


_ADVICE = (
    "no weights come with GraphFlow. Pass weights= (or pretrained=) a file "
    "(.safetensors, .pt, .pth), or an address with a checksum: a name that ends in the first "
    "digits of its SHA-256, as in https://download.pytorch.org/models/resnet50-0676ba61.pth, "
    "or #sha256=… behind it"
)


class WeightNames:
    """torchvision's list of a network's weights, of which there are none here."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(f"{self._name}.{name}: {_ADVICE}")

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __repr__(self) -> str:
        return f"<{self._name}: none come with GraphFlow>"


def weight_names(module: str, name: str) -> WeightNames:
    """``ResNet18_Weights`` and its siblings, for the networks that there are."""
    builder, _, kind = name.rpartition("_")
    if kind != "Weights" or builder.lower() not in _builders:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    return WeightNames(name)


def _state(loaded: Any) -> Mapping[str, Any]:
    """A state dict, or the one that a checkpoint holds under ``state_dict``."""
    held = loaded.get("state_dict", loaded) if isinstance(loaded, Mapping) else loaded
    if not isinstance(held, Mapping):
        raise GraphFlowError(f"the weights are not a state dict but a {type(held).__name__}")
    return held


def _is_path(weights: Any) -> bool:
    return isinstance(weights, (str, os.PathLike))
