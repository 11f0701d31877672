"""Numba's typing and target contexts with what kernels need, and nothing else.

Stock Numba registers all it knows of NumPy, containers, strings and random numbers
before it compiles the first function: 0.4 s.  Kernels are integers, floats,
pointers and loops.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numba.core import types, typing
from numba.core.cpu import CPUContext
from numba.core.imputils import Registry, builtin_registry
from numba.core.typing.templates import AbstractTemplate, signature

_implementations = Registry("graphflow")


def _extreme(function: Any, condition: str) -> Any:
    """Typing of ``min`` or ``max`` of two integers, which stock Numba compiles as a function."""

    class Template(AbstractTemplate):  # type: ignore[misc]
        key = function

        def generic(self, args: Any, kws: Any) -> Any:
            if len(args) != 2 or kws or not all(isinstance(a, types.Integer) for a in args):
                return None
            return signature(types.int64, types.int64, types.int64)

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        chosen = builder.icmp_signed(condition, *args)
        return builder.select(chosen, *args)

    _implementations.lower(function, types.Integer, types.Integer)(lower)
    return types.Function(Template)


_GLOBALS = {min: _extreme(min, "<"), max: _extreme(max, ">")}


class KernelTyping(typing.Context):  # type: ignore[misc]
    """Knows builtins, mathematics and what is registered for kernels; remembers its answers.

    Type inference asks for the same calls again in every sweep over a function.
    """

    def __init__(self) -> None:
        self._answers: dict[Any, Any] = {}
        self._complete = False
        super().__init__()

    def load_additional_registries(self) -> None:
        """Declarations beside the builtin ones."""
        from numba.core.typing import mathdecl

        self.install_registry(mathdecl.registry)

    def refresh(self) -> None:
        """Take in what is registered, once: Numba asks before every function it compiles.

        Kernels' own forms of builtins replace Numba's.
        """
        if self._complete:
            return
        self._complete = True
        super().refresh()
        for function, form in _GLOBALS.items():
            self._remove_global(function)
            self.insert_global(function, form)

    def resolve_function_type(self, func: Any, args: Any, kws: Any) -> Any:
        """The signature of ``func(*args, **kws)``."""
        if kws:
            return super().resolve_function_type(func, args, kws)
        key = (func, tuple(args))
        answer = self._answers.get(key)
        if answer is None:
            answer = super().resolve_function_type(func, args, kws)
            if answer is not None:
                self._answers[key] = answer
        return answer


class KernelTarget(CPUContext):  # type: ignore[misc]
    """Knows the implementations of builtins, numbers, ranges, tuples and mathematics."""

    _complete = False

    def refresh(self) -> None:
        """Take in what is registered, once."""
        if not self._complete:
            self._complete = True
            super().refresh()

    def load_additional_registries(self) -> None:
        """Implementations beside those of Numba's core."""
        from numba.core import optional  # noqa: F401 - imported for what they register
        from numba.cpython import (  # noqa: F401
            builtins,
            iterators,
            mathimpl,
            numbers,
            rangeobj,
            tupleobj,
        )

        self.install_registry(mathimpl.registry)
        self.install_registry(builtin_registry)
        self.install_registry(_implementations)
        self.typing_context.refresh()


@cache
def kernel_target() -> KernelTarget:
    """The one target context; its ``typing_context`` is a :class:`KernelTyping`."""
    return KernelTarget(KernelTyping(), "cpu")
