"""NumPy's names for two keyword arguments: ``x.sum(axis=0, keepdims=True)``."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_R = TypeVar("_R")


def numpy_names(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """``function``, which also takes ``dim`` as ``axis`` and ``keepdim`` as ``keepdims``."""

    @wraps(function)
    def renaming(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        if kwargs:
            given: dict[str, Any] = kwargs
            for theirs, ours in (("axis", "dim"), ("keepdims", "keepdim")):
                if theirs in given and ours not in given:
                    given[ours] = given.pop(theirs)
        return function(*args, **kwargs)

    return renaming
