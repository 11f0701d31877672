"""Element-type promotion, as PyTorch does it.

Operands fall into three priorities: tensors with dimensions, 0-d tensors, and
Python numbers.  A lower priority changes the result's type only if its *kind*
(bool < integer < float < complex) is higher than that of all higher ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from graphflow.dispatch import apply, scalar
from graphflow.errors import DTypeError
from graphflow.ir import types as T
from graphflow.ir.dims import SymDim
from graphflow.ir.types import DType
from graphflow.mode import mode
from graphflow.tensor import Tensor

Number: TypeAlias = bool | int | float
Operand: TypeAlias = "Tensor | Number"

_KINDS = {"bool": 0, "uint": 1, "int": 1, "float": 2, "complex": 3}
_default: list[DType] = [T.float32]


def get_default_dtype() -> DType:
    """The dtype of tensors made from Python floats."""
    return _default[0]


def set_default_dtype(dtype: DType) -> None:
    """Make ``dtype`` (a floating type) the dtype of tensors made from Python floats."""
    if not dtype.is_floating_point:
        raise DTypeError(f"the default dtype must be a floating type, not {dtype.name}")
    _default[0] = dtype


def promote_types(a: DType, b: DType) -> DType:
    """The smallest dtype that holds both."""
    if a is b:
        return a
    low, high = sorted((a, b), key=lambda d: _KINDS[d.kind])
    if _KINDS[low.kind] != _KINDS[high.kind]:
        return T.complex128 if high.is_complex and low is T.float64 else high
    if a.kind == b.kind:
        if {a, b} == {T.float16, T.bfloat16}:
            return T.float32
        return a if a.itemsize > b.itemsize else b
    return _signed_and_unsigned(*((a, b) if a.kind == "int" else (b, a)))


def _signed_and_unsigned(signed: DType, unsigned: DType) -> DType:
    if signed.itemsize > unsigned.itemsize:
        return signed
    wider = {1: T.int16, 2: T.int32, 4: T.int64}.get(unsigned.itemsize)
    if wider is None:
        raise DTypeError(f"{signed.name} and {unsigned.name} have no common dtype")
    return wider


def number_dtype(value: Any) -> DType:
    """The dtype of a Python number by itself."""
    if isinstance(value, (bool, np.bool_)):
        return T.bool_
    if isinstance(value, (int, np.integer, SymDim)):
        return T.int64
    if isinstance(value, complex):
        return T.complex64 if _default[0] is T.float32 else T.complex128
    return _default[0]


def result_type(*operands: Any) -> DType:
    """The dtype of an arithmetic result of these tensors and numbers."""
    ranked: list[DType | None] = [None, None, None]
    for operand in operands:
        level, dtype = _rank(operand)
        held = ranked[level]
        ranked[level] = dtype if held is None else promote_types(held, dtype)
    result: DType | None = None
    for dtype_ in ranked:
        if dtype_ is None:
            continue
        if result is None:
            result = dtype_
        elif _KINDS[dtype_.kind] > _KINDS[result.kind]:
            result = promote_types(result, dtype_) if dtype_.is_complex else dtype_
    if result is None:
        raise DTypeError("result_type needs at least one operand")
    return result


def _rank(operand: Any) -> tuple[int, DType]:
    if isinstance(operand, (bool, int, float, complex, SymDim)):
        return 2, number_dtype(operand)
    if isinstance(operand, DType):
        return 0, operand
    if operand._weak:
        return 2, operand.dtype if operand.dtype is T.bool_ else _default[0]
    return (0 if operand.ndim else 1), operand.dtype


def cast(tensor: Tensor, dtype: DType) -> Tensor:
    """``tensor`` in ``dtype`` (itself if it has it)."""
    return tensor if tensor.dtype is dtype else apply("cast", tensor, dtype=dtype)


def as_operand(value: Any, dtype: DType) -> Tensor:
    """A tensor of ``dtype`` from a tensor or a number."""
    if isinstance(value, Tensor):
        return cast(value, dtype)
    return scalar(value, dtype)


def operands(values: Sequence[Any], floating: bool = False) -> list[Tensor]:
    """The operands of an elementwise operation in their common dtype.

    ``floating``: integers and booleans become the default dtype (division, exp).
    Anything that is neither tensor nor number is taken through ``as_tensor``.
    """
    if len(values) == 2:
        quick = _quick_pair(values[0], values[1], floating)
        if quick is not None:
            return quick
    elif len(values) == 1 and isinstance(values[0], Tensor) and not values[0]._weak:
        if not floating or values[0].dtype.is_floating_point:
            return [values[0]]
    fixed = [
        v if isinstance(v, (Tensor, bool, int, float, complex, SymDim)) else _foreign(v)
        for v in values
    ]
    if mode.tracer is not None and _run_time_scalars(fixed):
        return [as_operand(v, T.float64) for v in fixed]
    dtype = result_type(*fixed)
    if floating and not (dtype.is_floating_point or dtype.is_complex):
        dtype = _default[0]
    return [as_operand(v, dtype) for v in fixed]


def _quick_pair(a: Any, b: Any, floating: bool) -> list[Tensor] | None:
    """The common cases without the rules: equal dtypes, or a float tensor and a number
    (or a run-time scalar)."""
    if not isinstance(a, Tensor):
        return None
    if a._weak:
        if isinstance(b, Tensor) and not b._weak and b.dtype.is_floating_point:
            return [cast(a, b.dtype), b]
        return None
    dtype = a.dtype
    if floating and not dtype.is_floating_point:
        return None
    if isinstance(b, Tensor):
        if b._weak:
            return [a, cast(b, dtype)] if dtype.is_floating_point else None
        return [a, b] if b.dtype is dtype else None
    if dtype.is_floating_point and (b.__class__ is float or b.__class__ is int):
        return [a, scalar(b, dtype)]
    return None


def _run_time_scalars(values: Sequence[Any]) -> bool:
    """True for arithmetic among Python floats that became run-time scalars: it stays float64."""
    weak = [getattr(v, "_weak", None) for v in values]
    return True in weak and False not in weak


def _foreign(value: Any) -> Any:
    from graphflow.functions.creation import as_tensor

    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return as_tensor(value)
    raise TypeError(
        f"expected a tensor or a number, got {type(value).__name__}; "
        "make it a tensor with gf.tensor(...)"
    )


def is_one(factor: Any) -> bool:
    """Whether a factor is the number 1, so that nothing is to be multiplied.

    In a trace a float may be a run-time scalar, which is not.
    """
    return isinstance(factor, (int, float)) and factor == 1
