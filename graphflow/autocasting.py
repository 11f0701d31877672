"""The precision that functions choose for themselves inside ``autocast``.

A function that gains from halves (products) is marked :func:`in_lower_precision`, one that
needs the range or the digits of float32 (sums, norms, exponentials, losses)
:func:`in_float32`, one whose operands must have one dtype :func:`in_widest`.  Outside of
``autocast`` the marks do nothing.  Inside, they cast the tensors they are given and run the
function with the choice switched off: what it calls works in the dtypes it finds, and the
gradients of the casts take their course.  Which function has which mark is PyTorch's list
for CUDA, ``ATen/autocast_mode.h``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from graphflow.errors import GraphFlowError
from graphflow.ir.types import DType, float32
from graphflow.mode import mode
from graphflow.promotion import cast
from graphflow.records import dataclass, field
from graphflow.tensor import Tensor

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Precision:
    """The lower dtypes in use, by device type, and the casts of leaves made so far."""

    dtypes: tuple[tuple[str, DType], ...]
    cached: bool = True
    casts: dict[int, tuple[Tensor, int, Tensor]] = field(default_factory=dict)

    def lowered(self, value: Any) -> Any:
        """A tensor in the lower dtype of its device; anything else as it is."""
        dtype = self._dtype_for(value)
        if dtype is None or value.dtype is dtype:
            return value
        kept = self.cached and mode.grad and mode.tracer is None
        if not (kept and value.requires_grad and value.is_leaf):
            return cast(value, dtype)
        held = self.casts.get(id(value))
        if held is None or held[0] is not value or held[1] != value._version:
            held = self.casts[id(value)] = (value, value._version, cast(value, dtype))
        return held[2]

    def widened(self, value: Any) -> Any:
        """A tensor of halves in float32; anything else as it is."""
        return value if self._dtype_for(value) is None else cast(value, float32)

    def widest(self, values: Iterable[Any]) -> Callable[[Any], Any]:
        """What casts tensors to the widest dtype among ``values``; others stay as they are."""
        wide = any(self._dtype_for(v) is not None and v.dtype is float32 for v in values)
        return self.widened if wide else _same

    def covers(self, value: Any, device_type: str) -> bool:
        """Whether ``value`` is a tensor on that type of device whose precision is chosen here."""
        return self._dtype_for(value) is not None and value.device.type == device_type

    def _dtype_for(self, value: Any) -> DType | None:
        """The lower dtype for ``value``; None if its type is left alone (float64, integers)."""
        if not isinstance(value, Tensor) or value._weak or value.dtype.kind != "float":
            return None
        if value.dtype.itemsize > float32.itemsize:
            return None
        return dict(self.dtypes).get(value.device.type)


def in_lower_precision(function: F) -> F:
    """Inside ``autocast``, run ``function`` on operands of the lower dtype."""
    return _marked(function, lambda chosen, _: chosen.lowered)


def in_float32(function: F) -> F:
    """Inside ``autocast``, run ``function`` on operands of float32."""
    return _marked(function, lambda chosen, _: chosen.widened)


def in_widest(function: F) -> F:
    """Inside ``autocast``, run ``function`` on operands of the widest dtype among them."""
    return _marked(function, lambda chosen, values: chosen.widest(values))


def refused_on_cuda(instead: str) -> Callable[[F], F]:
    """Mark a function that raises inside ``autocast("cuda")``: its gradient would overflow."""

    def mark(function: F) -> F:
        @functools.wraps(function)
        def marked(*args: Any, **kwargs: Any) -> Any:
            chosen = mode.autocast
            if chosen is not None and any(chosen.covers(v, "cuda") for v in _values(args, kwargs)):
                raise GraphFlowError(
                    f"{function.__name__} is unsafe to autocast, its gradient overflows in halves: "
                    f"use {instead}, or call it with autocast('cuda', enabled=False)"
                )
            return function(*args, **kwargs)

        return marked  # type: ignore[return-value]

    return mark


def _marked(function: F, how: Callable[[Precision, Iterator[Any]], Callable[[Any], Any]]) -> F:
    @functools.wraps(function)
    def marked(*args: Any, **kwargs: Any) -> Any:
        chosen = mode.autocast
        if chosen is None:
            return function(*args, **kwargs)
        convert = how(chosen, _values(args, kwargs))
        try:
            mode.autocast = None
            cast_args = [_mapped(convert, value) for value in args]
            named = {key: _mapped(convert, value) for key, value in kwargs.items()}
            return function(*cast_args, **named)
        finally:
            mode.autocast = chosen

    return marked  # type: ignore[return-value]


def _values(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Any]:
    """All operands, those in lists and tuples too."""
    for value in (*args, *kwargs.values()):
        if value.__class__ in (list, tuple):
            yield from value
        else:
            yield value


def _same(value: Any) -> Any:
    return value


def _mapped(convert: Callable[[Any], Any], value: Any) -> Any:
    """``value`` with its tensors converted, those of a list or tuple too."""
    if value.__class__ in (list, tuple):
        return value.__class__(convert(item) for item in value)
    return convert(value)
