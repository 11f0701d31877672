"""Numba's typing and target contexts with what kernels need, and nothing else.

Stock Numba registers all it knows of NumPy, containers, strings and random numbers
before it compiles the first function: 0.4 s.  Kernels are integers, floats,
pointers and loops.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numba.core import typing
from numba.core.cpu import CPUContext
from numba.core.imputils import builtin_registry

from graphflow.codegen import integers
from graphflow.codegen.target import Target, chosen_target, target_machine


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
        for function, form in integers.GLOBALS.items():
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

    def __init__(self, typing_context: KernelTyping, target: str) -> None:
        self._known: dict[Any, Any] = {}
        super().__init__(typing_context, target)

    def refresh(self) -> None:
        """Take in what is registered, once."""
        if not self._complete:
            self._complete = True
            super().refresh()

    def get_function(self, fn: Any, sig: Any, _firstcall: bool = True) -> Any:
        """What lowers ``fn`` at ``sig``."""
        found = self._known.get((fn, sig))
        if found is None:
            found = self._known[fn, sig] = super().get_function(fn, sig, _firstcall)
        return found

    def get_operator(self, form: Any, sig: Any) -> Any:
        """What lowers an operator; typing may have seen its in-place form only."""
        if (form, sig) not in self._known:
            form.get_call_type(self.typing_context, sig.args, {})
        return self.get_function(form, sig)

    def layout(self) -> tuple[str, str]:
        """Triple and data layout of the chosen target, as text."""
        return _layout(chosen_target())

    def pair_first(self, builder: Any, val: Any, ty: Any) -> Any:
        """What an iterator gave, without a detour over the stack."""
        return builder.extract_value(val, 0)

    def pair_second(self, builder: Any, val: Any, ty: Any) -> Any:
        """Whether an iterator gave something."""
        return builder.extract_value(val, 1)

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
        self.install_registry(integers.implementations)
        self.typing_context.refresh()


@cache
def _layout(target: Target) -> tuple[str, str]:
    machine = target_machine(target)
    return str(machine.triple), str(machine.target_data)


@cache
def kernel_target() -> KernelTarget:
    """The one target context; its ``typing_context`` is a :class:`KernelTyping`."""
    return KernelTarget(KernelTyping(), "cpu")
