"""The table of ONNX operators: each a short function over graphflow's own.

An operator's function takes its inputs by position and its attributes by name, both under
ONNX's names.  What it needs beyond that it asks for by a parameter called ``opset`` (the
version of the operator set), ``outputs`` (how many results are wanted) or ``scope`` (the
translation under way, for operators that hold graphs).  Inputs named in ``known`` must have
values when the model is loaded, because they decide shapes; the function gets them as NumPy
arrays (of dtype object where sizes are symbolic), all others as tensors.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

import numpy as np

from graphflow.dispatch import apply, literal
from graphflow.errors import DTypeError
from graphflow.functions.shaping import reshape, stack
from graphflow.ir import types as T
from graphflow.ir.dims import SymDim
from graphflow.records import dataclass, field

gf: Any = import_module("graphflow")
"""The namespace of functions: it is open, so it has no static type."""
F: Any = import_module("graphflow.nn.functional")

ASKED = ("opset", "outputs", "scope")
Array = np.ndarray[Any, Any]

DTYPES = {
    1: T.float32, 2: T.uint8, 3: T.int8, 5: T.int16, 6: T.int32, 7: T.int64, 9: T.bool_,
    10: T.float16, 11: T.float64, 12: T.uint32, 13: T.uint64, 14: T.complex64,
    15: T.complex128, 16: T.bfloat16,
}  # fmt: skip
"""ONNX's numbers of element types."""


@dataclass(frozen=True)
class Operator:
    """One operator: its function and what that asks for."""

    name: str
    function: Callable[..., Any]
    known: frozenset[str] = frozenset()
    raw: bool = False
    """Whether inputs are handed over as they are, tensors or known arrays alike."""
    folds: bool = True
    """Whether an application to known values is computed at once."""
    positional: tuple[str, ...] = ()
    """The names of its inputs."""
    variadic: bool = False
    attributes: frozenset[str] = field(default_factory=frozenset)
    asked: frozenset[str] = frozenset()


OPERATORS: dict[tuple[str, str], Operator] = {}
"""By domain and name."""


def operator(
    *names: str, known: Iterable[str] = (), domain: str = "", **options: bool
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter a function in the table, under one or several names."""

    def enter(function: Callable[..., Any]) -> Callable[..., Any]:
        found = inspect.signature(function).parameters.values()
        inputs = [p.name for p in found if p.kind is p.POSITIONAL_OR_KEYWORD]
        keywords = [p.name for p in found if p.kind is p.KEYWORD_ONLY]
        for name in names:
            OPERATORS[domain, name] = Operator(
                name, function, frozenset(known), options.get("raw", False),
                options.get("folds", True), tuple(inputs),
                any(p.kind is p.VAR_POSITIONAL for p in found),
                frozenset(k for k in (*inputs, *keywords) if k not in ASKED),
                frozenset(k for k in keywords if k in ASKED),
            )  # fmt: skip
        return function

    return enter


def dtype_of(number: int) -> T.DType:
    """The dtype that ONNX gives this number."""
    found = DTYPES.get(int(number))
    if found is None:
        raise DTypeError(f"element type {type_name(number)} of ONNX has no counterpart here")
    return found


def number_of_dtype(dtype: T.DType) -> int:
    """The number that ONNX gives to ``dtype``."""
    return next(number for number, known in DTYPES.items() if known is dtype)


def type_name(number: int) -> str:
    """ONNX's name of an element type."""
    onnx: Any = import_module("onnx")
    try:
        return str(onnx.TensorProto.DataType.Name(int(number)))
    except ValueError:
        return str(number)


def ints(values: Any) -> tuple[Any, ...]:
    """Known whole numbers (an array, a sequence or one) as a tuple of ints and sizes."""
    array = np.asarray(values).reshape(-1)
    return tuple(v if array.dtype == object else int(v) for v in array)


def number(value: Any) -> Any:
    """A known array of one element as a Python number (or a size)."""
    array = np.asarray(value).reshape(-1)
    return array[0] if array.dtype == object else array[0].item()


def axes_of(axes: Any, rank: int) -> tuple[int, ...]:
    """Axes, those from the end counted from the front."""
    return tuple(a % rank if rank else 0 for a in ints(axes))


def as_tensor(value: Any) -> Any:
    """A known array as a tensor: a constant, or sizes at run time; the rest as it is."""
    if isinstance(value, list):
        return [as_tensor(v) for v in value]
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype != object:
        T.from_numpy_dtype(value.dtype)
        return literal(value)
    parts = [
        apply("extent", dim=v, dtype=T.int64) if isinstance(v, SymDim) else literal(np.array(v))
        for v in value.reshape(-1)
    ]
    return reshape(stack(parts), value.shape)
