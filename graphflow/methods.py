"""The operations of a tensor as methods and operators.

A method *is* the function of the same name: :func:`bind` puts the functions of
:mod:`graphflow.functions` on the class once they exist (they stand above tensors,
so this module cannot import them).  In-place methods compute the function and
:func:`assign <graphflow.dispatch.in_place>` the result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

Method: TypeAlias = Callable[..., Any]

_OPERATORS = {
    "__add__": "add", "__sub__": "sub", "__mul__": "mul", "__truediv__": "div",
    "__pow__": "pow", "__matmul__": "matmul", "__mod__": "remainder",
    "__floordiv__": "floor_divide", "__neg__": "neg", "__abs__": "abs", "__pos__": "positive",
    "__eq__": "eq", "__ne__": "ne", "__lt__": "lt", "__le__": "le", "__gt__": "gt",
    "__ge__": "ge", "__and__": "bitwise_and", "__or__": "bitwise_or", "__xor__": "bitwise_xor",
    "__invert__": "bitwise_not", "__lshift__": "bitwise_left_shift",
    "__rshift__": "bitwise_right_shift", "__getitem__": "get_item", "__setitem__": "set_item",
    "__len__": "length", "__iter__": "iterate", "__contains__": "contains",
    "__reversed__": "backwards",
}  # fmt: skip

_REFLECTED = {
    "__radd__": "add", "__rsub__": "sub", "__rmul__": "mul", "__rtruediv__": "div",
    "__rpow__": "pow", "__rmatmul__": "matmul", "__rmod__": "remainder",
    "__rfloordiv__": "floor_divide", "__rand__": "bitwise_and", "__ror__": "bitwise_or",
    "__rxor__": "bitwise_xor", "__rlshift__": "bitwise_left_shift",
    "__rrshift__": "bitwise_right_shift", "__rdiv__": "div",
}  # fmt: skip

_IN_PLACE_OPERATORS = {
    "__iadd__": "add", "__isub__": "sub", "__imul__": "mul", "__itruediv__": "div",
    "__ipow__": "pow", "__imod__": "remainder", "__ifloordiv__": "floor_divide",
    "__iand__": "bitwise_and", "__ior__": "bitwise_or", "__ixor__": "bitwise_xor",
    "__ilshift__": "bitwise_left_shift", "__irshift__": "bitwise_right_shift",
}  # fmt: skip


class LoadedLate(type):
    """The class of a class whose attributes may still be to be imported, like its instances'."""

    def __getattr__(cls, name: str) -> Any:
        if not name.startswith("__") and any(load() for load in _LOADERS):
            return getattr(cls, name)
        raise AttributeError(f"type object {cls.__name__!r} has no attribute {name!r}")


class TensorMethods(metaclass=LoadedLate):
    """Everything a tensor can do, by PyTorch's names."""

    __slots__ = ("_range",)
    _range: Any
    """Of integers that were quantised: which numbers they stand for; else it is not there."""
    __array_priority__ = 1000.0
    """``array * tensor`` is the tensor's business, not NumPy's."""

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        """What a NumPy function made of a tensor, as one; truths are uint8, as in PyTorch."""
        from graphflow.functions.creation import from_numpy

        return from_numpy(array.astype("uint8") if array.dtype == "bool" else array)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__") and any(load() for load in _LOADERS):
            return getattr(self, name)
        raise AttributeError(f"a tensor has no attribute {name!r}")

    if TYPE_CHECKING:  # bound at run time, see bind()

        def __add__(self, other: Any) -> Any: ...
        def __radd__(self, other: Any) -> Any: ...
        def __sub__(self, other: Any) -> Any: ...
        def __rsub__(self, other: Any) -> Any: ...
        def __mul__(self, other: Any) -> Any: ...
        def __rmul__(self, other: Any) -> Any: ...
        def __truediv__(self, other: Any) -> Any: ...
        def __rtruediv__(self, other: Any) -> Any: ...
        def __matmul__(self, other: Any) -> Any: ...
        def __pow__(self, other: Any) -> Any: ...
        def __rpow__(self, other: Any) -> Any: ...
        def __neg__(self) -> Any: ...
        def __eq__(self, other: object) -> Any: ...
        def __ne__(self, other: object) -> Any: ...
        def __lt__(self, other: Any) -> Any: ...
        def __le__(self, other: Any) -> Any: ...
        def __gt__(self, other: Any) -> Any: ...
        def __ge__(self, other: Any) -> Any: ...
        def __getitem__(self, index: Any) -> Any: ...
        def __setitem__(self, index: Any, value: Any) -> None: ...
        def __len__(self) -> Any: ...
        def __iter__(self) -> Any: ...
        def __reversed__(self) -> Any: ...


_LOADERS: list[Callable[[], bool]] = []


def when_missing(load: Callable[[], bool]) -> None:
    """Call ``load`` when a method is missing; it says whether it bound any."""
    _LOADERS.append(load)


def bind(module: ModuleType, in_place: Method) -> None:
    """Put the functions of ``module`` on the class, as its own tables say.

    ``METHODS``: ``x.name()``; ``IN_PLACE``: ``x.name_()``; ``PROPERTIES``: ``x.name``;
    ``CONVERSIONS``: the dtypes of ``x.float()`` and its siblings.
    """
    for name in getattr(module, "METHODS", ()):
        setattr(TensorMethods, name, getattr(module, name))
    for name in getattr(module, "IN_PLACE", ()):
        method = _in_place(getattr(module, name), in_place, f"{name}_")
        setattr(TensorMethods, f"{name}_", method)
    for name in getattr(module, "PROPERTIES", ()):
        setattr(TensorMethods, name, property(getattr(module, f"property_{name}")))
    for name, dtype in getattr(module, "CONVERSIONS", {}).items():
        setattr(TensorMethods, name, _conversion(module.to, dtype))


def bind_operators(functions: Mapping[str, Method], in_place: Method) -> None:
    """Python's operators, from the ``functions`` they stand for."""
    for name, function in _OPERATORS.items():
        setattr(TensorMethods, name, _operator(functions[function], name))
    for name, function in _REFLECTED.items():
        setattr(TensorMethods, name, _reflected(functions[function], name))
    for name, function in _IN_PLACE_OPERATORS.items():
        setattr(TensorMethods, name, _in_place(functions[function], in_place, name))


def _conversion(to: Method, dtype: Any) -> Method:
    def method(self: Any, memory_format: Any = None) -> Any:
        return to(self, dtype)

    method.__doc__ = f"In {dtype.name}."
    return method


def _operator(function: Method, name: str) -> Method:
    if name in ("__eq__", "__ne__"):

        def compare(self: Any, other: Any) -> Any:
            if other is None or isinstance(other, str):
                return name == "__ne__"
            return function(self, other)

        return compare
    return function


def _reflected(function: Method, name: str) -> Method:
    def method(self: Any, other: Any) -> Any:
        return function(other, self)

    method.__name__ = name
    return method


def _in_place(function: Method, in_place: Method, name: str) -> Method:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return in_place(self, function, args, kwargs)

    method.__name__ = name
    method.__doc__ = f"In-place form of ``{name.strip('_')}``; returns the tensor itself."
    return method
