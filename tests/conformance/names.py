"""Where GraphFlow has what an OpInfo entry calls."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import torch

import graphflow as gf
from tests.conformance.outcome import Missing


def lookup(path: str) -> Any:
    """``graphflow.<path>``; raises :class:`Missing` with the full name."""
    value: Any = gf
    for part in path.split("."):
        try:
            value = getattr(value, part)
        except AttributeError:
            raise Missing(f"graphflow.{path}") from None
    return value


class _Torch:
    """What ``torch`` means inside a function of the database that we call with our tensors."""

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix

    def __getattr__(self, name: str) -> Any:
        path = f"{self._prefix}{name}"
        if isinstance(getattr(gf, name, None) if not self._prefix else None, types.ModuleType):
            return _Torch(f"{path}.")
        return lookup(path)


def function_of(entry: Any) -> Callable[..., Any]:
    """GraphFlow's counterpart of ``entry.op``: function, method, or a lambda over either."""
    op, keywords = entry.op, {}
    if isinstance(op, functools.partial):
        op, keywords = op.func, op.keywords
    if isinstance(op, types.FunctionType) and op.__name__ == "<lambda>":
        found: Callable[..., Any] = rebound(op)
    elif is_method(entry.name):
        if not hasattr(gf.Tensor, entry.name):
            raise Missing(f"graphflow.Tensor.{entry.name}")
        found = getattr(gf.Tensor, entry.name)
    else:
        found = lookup(entry.name)
    return functools.partial(found, **keywords) if keywords else found


def in_place_of(entry: Any) -> Callable[..., Any]:
    """GraphFlow's counterpart of ``entry.inplace_variant``, a method of tensors."""
    variant = entry.inplace_variant
    if isinstance(variant, types.FunctionType) and variant.__name__ == "<lambda>":
        return rebound(variant)
    if isinstance(variant, functools.partial):  # relu(x, inplace=True)
        return functools.partial(lookup(entry.name), **variant.keywords)
    if not hasattr(gf.Tensor, variant.__name__):
        raise Missing(f"graphflow.Tensor.{variant.__name__}")
    return getattr(gf.Tensor, variant.__name__)


def is_method(name: str) -> bool:
    """Whether PyTorch has this name only as a method of its tensors."""
    return "." not in name and not hasattr(torch, name)


def rebound(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function written for PyTorch, with ``torch`` meaning GraphFlow in its body."""
    if not isinstance(function, types.FunctionType):
        return function
    return types.FunctionType(
        function.__code__,
        {**function.__globals__, "torch": _Torch()},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
