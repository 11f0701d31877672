"""Names for the leaves of a call's arguments."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from graphflow import pytree


def leaf_labels(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[str]:
    """A name for every leaf: the parameter's, with a number where it is a nest."""
    if hasattr(function, "named_parameters"):  # a module: its __call__ takes anything
        function = function.forward
    try:
        taken = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        taken = ()  # type: ignore[assignment]
    names = [p.name for p in taken if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    labels: list[str] = []
    for position, value in enumerate(args):
        stem = names[position] if position < len(names) else f"arg{position}"
        labels += _numbered(stem, value)
    for key, value in kwargs.items():
        labels += _numbered(key, value)
    return labels


def _numbered(stem: str, value: Any) -> list[str]:
    count = len(pytree.flatten(value)[0])
    return [stem] if count == 1 else [f"{stem}_{i}" for i in range(count)]
