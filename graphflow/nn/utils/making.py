"""Modules whose parameters are not drawn."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from graphflow.nn import init
from graphflow.nn.module import Module


def skip_init(module_cls: type[Module], *args: Any, **kwargs: Any) -> Any:
    """``module_cls(*args, **kwargs)`` without the time that drawing its parameters takes.

    They hold zeros where the class draws them with functions of ``nn.init``.
    """
    if not (isinstance(module_cls, type) and issubclass(module_cls, Module)):
        raise RuntimeError(f"Expected a Module; got {module_cls}")
    with _idle():
        return module_cls(*args, **kwargs)


@contextlib.contextmanager
def _idle() -> Iterator[None]:
    names = [name for name in vars(init) if name.endswith("_") and not name.startswith("_")]
    held = {name: getattr(init, name) for name in names}
    for name in names:
        setattr(init, name, lambda tensor, *args, **kwargs: tensor)
    try:
        yield
    finally:
        for name, function in held.items():
            setattr(init, name, function)
