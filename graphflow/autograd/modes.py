"""Whether operations are recorded: contexts, decorators, and the switch itself."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Generator
from typing import Any

from graphflow.mode import mode


class GradMode:
    """Recording is on or off in a ``with`` block or a decorated function."""

    __slots__ = ("_previous", "_value")

    def __init__(self, value: bool) -> None:
        self._value = bool(value)
        self._previous: list[bool] = []

    def __enter__(self) -> None:
        self._previous.append(mode.grad)
        mode.grad = self._value

    def __exit__(self, *exc: object) -> None:
        mode.grad = self._previous.pop()

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Decorate: the mode holds while ``function`` (or a generator's own code) runs."""
        value = self._value
        if inspect.isgeneratorfunction(function):
            return _stepwise(function, value)

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with GradMode(value):
                return function(*args, **kwargs)

        return wrapper


def _stepwise(function: Callable[..., Any], value: bool) -> Callable[..., Any]:
    """A generator function whose code runs in the mode, and its caller's in the caller's."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        inner = function(*args, **kwargs)
        step, argument = inner.send, None
        try:
            while True:
                with GradMode(value):
                    item = step(argument)
                try:
                    step, argument = inner.send, (yield item)
                except GeneratorExit:
                    raise
                except BaseException as error:  # thrown in: the generator may handle it
                    step, argument = inner.throw, error
        except StopIteration as done:
            return done.value
        finally:
            with GradMode(value):
                inner.close()

    return wrapper


class set_grad_enabled(GradMode):
    """Switch recording on or off: at once, until the end of the ``with`` block if it is one."""

    __slots__ = ()

    def __init__(self, mode: bool) -> None:
        super().__init__(mode)
        self._switch()

    def _switch(self) -> None:
        self._previous.append(mode.grad)
        mode.grad = self._value

    def __enter__(self) -> None:
        if not self._previous:
            self._switch()

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Decorate; the mode outside stays what it was."""
        if self._previous:
            mode.grad = self._previous.pop()
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
