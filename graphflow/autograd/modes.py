"""Whether operations are recorded: contexts, decorators, and the switch itself."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Generator
from typing import Any, ParamSpec, TypeAlias, TypeVar

from graphflow.mode import mode

P = ParamSpec("P")
R = TypeVar("R")
_Before: TypeAlias = "tuple[bool, _Before | None]"
"""What was before, and before that."""


class GradMode:
    """Recording is on or off in a ``with`` block or a decorated function."""

    __slots__ = ("_previous", "_value")

    def __init__(self, value: bool) -> None:
        self._value = bool(value)
        self._previous: _Before | None = None

    def __enter__(self) -> None:
        before, earlier = mode.grad, self._previous
        try:
            self._previous = before, earlier
            mode.grad = self._value
            mode.note()
        except BaseException:  # Ctrl-C: the block is not entered, so nobody leaves it
            mode.grad, self._previous = before, earlier
            raise

    def __exit__(self, *exc: object) -> None:
        assert self._previous is not None
        mode.grad, self._previous = self._previous  # no call comes before: Ctrl-C might come, too
        mode.note()

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Decorate: the mode holds while ``function`` (or a generator's own code) runs."""
        value = self._value
        if inspect.isgeneratorfunction(function):
            return _stepwise(function, value)

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return in_grad_mode(value, function, *args, **kwargs)

        return wrapper


def in_grad_mode(value: bool, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """``function(*args, **kwargs)`` with recording on or off.

    Unlike a ``with`` block, which Ctrl-C can find on the way into its ``__exit__``, this always
    puts the mode back.
    """
    before = mode.grad
    try:
        mode.grad = value
        mode.note()
        return function(*args, **kwargs)
    finally:
        mode.grad = before
        mode.note()


def _stepwise(function: Callable[..., Any], value: bool) -> Callable[..., Any]:
    """A generator function whose code runs in the mode, and its caller's in the caller's."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        inner = function(*args, **kwargs)
        step, argument = inner.send, None
        try:
            while True:
                item = in_grad_mode(value, step, argument)
                try:
                    step, argument = inner.send, (yield item)
                except GeneratorExit:
                    raise
                except BaseException as error:  # thrown in: the generator may handle it
                    step, argument = inner.throw, error
        except StopIteration as done:
            return done.value
        finally:
            in_grad_mode(value, inner.close)

    return wrapper


class set_grad_enabled(GradMode):
    """Switch recording on or off: at once, until the end of the ``with`` block if it is one."""

    __slots__ = ()

    def __init__(self, mode: bool) -> None:
        super().__init__(mode)
        super().__enter__()

    def __enter__(self) -> None:
        if self._previous is None:
            super().__enter__()

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Decorate; the mode outside stays what it was."""
        if self._previous is not None:
            self.__exit__()
        return super().__call__(function)


class _Bare(GradMode):
    """A mode that decorates with and without brackets."""

    __slots__ = ()
    _fixed = False

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        """The context, or the decorated ``function``."""
        self = object.__new__(cls)
        if function is None:
            return self
        GradMode.__init__(self, cls._fixed)
        return self(function)

    def __init__(self, function: Callable[..., Any] | None = None) -> None:
        super().__init__(self._fixed)


class no_grad(_Bare):
    """Do not record operations: their results carry no history."""

    __slots__ = ()


class enable_grad(_Bare):
    """Record operations even inside ``no_grad``."""

    __slots__ = ()
    _fixed = True


class inference_mode(GradMode):
    """Like ``no_grad``; ``inference_mode(False)`` records.  Decorates with and without brackets."""

    __slots__ = ()

    def __new__(cls, mode: Any = True) -> Any:
        """The context, or the decorated function."""
        self = object.__new__(cls)
        if isinstance(mode, bool):
            return self
        GradMode.__init__(self, False)
        return self(mode)

    def __init__(self, mode: bool = True) -> None:
        super().__init__(not mode)


def is_grad_enabled() -> bool:
    """True when operations are recorded for backward."""
    return mode.grad


def is_inference_mode_enabled() -> bool:
    """True when operations are not recorded."""
    return not mode.grad
