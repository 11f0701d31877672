"""``_foreach_add_`` and its kin: an operation on every tensor of a list.

Optimisers and running averages of people's own call them. In a compiled function the operations
are part of its program; elsewhere they are run one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from graphflow.errors import ShapeError
from graphflow.tensor import Tensor

_PREFIX = "_foreach_"
_NAMES = frozenset(
    """
    abs acos add addcdiv addcmul asin atan ceil clamp_max clamp_min clone cos cosh div erf erfc
    exp expm1 floor frac lerp lgamma log log10 log1p log2 max maximum minimum mul neg norm pow
    reciprocal round rsqrt sigmoid sign sin sinh sqrt sub tan tanh trunc
    """.split()
)
_IN_PLACE = (_NAMES - {"clone", "max", "norm"}) | {"copy", "zero"}
_VALUED = ("addcmul", "addcdiv")
"""Those whose last argument Tensor's methods take by name only."""


def find(name: str) -> Callable[..., Any]:
    """The function called ``name``; AttributeError if there is none."""
    operation = name.removeprefix(_PREFIX)
    plain = operation.removesuffix("_")
    known = _NAMES if plain == operation else _IN_PLACE
    if not name.startswith(_PREFIX) or plain not in known:
        raise AttributeError(name)

    def each(self: Any, *args: Any, **kwargs: Any) -> list[Tensor] | None:
        if not isinstance(self, Iterable) and plain == "pow":  # a number to the power of each
            return [self**exponent for exponent in args[0]]
        if plain in _VALUED and "scalars" in kwargs:
            args = (*args, kwargs.pop("scalars"))
        tensors = list(self)
        columns = [_column(name, arg, len(tensors)) for arg in args]
        made = []
        for tensor, *row in zip(tensors, *columns, strict=True):
            options = kwargs
            if plain in _VALUED and len(row) == 3:
                options = {**kwargs, "value": row.pop()}
            made.append(getattr(tensor, operation)(*row, **options))
        return made if plain == operation else None

    each.__name__ = each.__qualname__ = name
    each.__doc__ = f"``{operation}`` of every tensor of a list."
    return each


def _column(name: str, arg: Any, count: int) -> Sequence[Any]:
    """``arg`` for each tensor: a list has one for each, anything else is for all."""
    if isinstance(arg, Tensor) and arg.ndim == 1:
        arg = list(arg.unbind())
    if not isinstance(arg, (list, tuple)):
        return [arg] * count
    if len(arg) != count:
        raise ShapeError(f"{name}: a list of {len(arg)} beside one of {count} tensors")
    return arg
