"""The three things kernels' vocabulary needs of Numba, with types a checker understands.

Numba's stubs describe its user interface, not its extension interface.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba.core.types as _types
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import lower_builtin

Lowering = TypeVar("Lowering", bound=Callable[..., Any])
types: Any = _types


def register_template(function: Any, template: type[AbstractTemplate]) -> None:
    """Type calls of ``function`` (any callable, reachable by name or not) by ``template``."""
    template.key = function
    infer_global(function, types.Function(template))


def lowers(function: Any, *kinds: Any) -> Callable[[Lowering], Lowering]:
    """Decorator: the decorated function emits LLVM for ``function`` at argument ``kinds``."""

    def register(lowering: Lowering) -> Lowering:
        lower_builtin(function, *kinds)(lowering)
        return lowering

    return register
