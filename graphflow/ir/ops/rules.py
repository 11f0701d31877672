"""Type rules and template spellings that many records share.

A type rule is ``rule(types, attrs) -> type``.  It names the operation and the
operand types in every error, and works with symbolic dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from graphflow.errors import DTypeError, GraphError, ShapeError
from graphflow.ir.dims import Dim, Shape, SymDim
from graphflow.ir.op import Attrs as Attrs
from graphflow.ir.op import Sample
from graphflow.ir.types import (
    DTYPES,
    DType,
    TensorType,
    TupleType,
    Type,
    broadcast_shapes,
)

TypeRule: TypeAlias = Callable[[Sequence[TensorType], Attrs], TensorType]

FLOAT: frozenset[str] = frozenset(["float"])
INTEGER: frozenset[str] = frozenset(["int", "uint"])
NUMERIC: frozenset[str] = FLOAT | INTEGER
BITS: frozenset[str] = INTEGER | {"bool"}
COMPLEX: frozenset[str] = frozenset(["complex"])
INEXACT: frozenset[str] = FLOAT | COMPLEX
NUMBER: frozenset[str] = NUMERIC | COMPLEX
ORDERED: frozenset[str] = NUMERIC | {"bool"}
ANY: frozenset[str] = NUMBER | {"bool"}

_NAMES = {
    "float": "floating-point", "complex": "complex", "int": "integer",
    "uint": "unsigned integer", "bool": "bool",
}  # fmt: skip


def spelled(name: str, types: Sequence[Type]) -> str:
    """``add(f32[3], f32[4])``: how errors speak of an application."""
    return f"{name}({', '.join(map(str, types))})"


def elementwise(
    name: str, arity: int, kinds: frozenset[str], result: DType | None = None
) -> TypeRule:
    """Operands of one dtype, broadcast; the result has that dtype, or ``result``."""

    def infer(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
        check_arity(name, types, arity)
        dtype, shape = types[0].dtype, types[0].shape
        if dtype.kind not in kinds:
            raise unsupported(name, types, kinds)
        for other in types[1:]:
            if other.dtype is not dtype:
                raise DTypeError(
                    f"{spelled(name, types)}: operands have different dtypes; cast one of them"
                )
            if other.shape != shape:
                shape = broadcast(name, types)
        if result is None and shape is types[0].shape:
            return types[0]
        return TensorType(result or dtype, shape)

    return infer


def check_arity(name: str, types: Sequence[Type], arity: int) -> None:
    """Raise unless there are ``arity`` operands, all of them tensors."""
    if len(types) != arity:
        raise GraphError(f"{spelled(name, types)}: takes {arity} operands, not {len(types)}")
    check_tensors(name, types)


def check_tensors(name: str, types: Sequence[Type]) -> None:
    """Raise unless every operand is a tensor."""
    for item in types:
        if isinstance(item, TupleType):
            raise GraphError(f"{spelled(name, types)}: takes tensors; take items out with get")


def unsupported(name: str, types: Sequence[Type], kinds: frozenset[str]) -> DTypeError:
    """The error for operands of a dtype that ``name`` is not defined for."""
    takes = " or ".join(text for kind, text in _NAMES.items() if kind in kinds)
    return DTypeError(f"{spelled(name, types)}: takes {takes} operands")


def require(name: str, types: Sequence[TensorType], kinds: frozenset[str]) -> None:
    """Raise unless the first operand has a dtype of one of ``kinds``."""
    if types[0].dtype.kind not in kinds:
        raise unsupported(name, types, kinds)


def broadcast(name: str, types: Sequence[TensorType]) -> Shape:
    """The broadcast shape of the operands; the error names the operation."""
    try:
        return broadcast_shapes(*[t.shape for t in types])
    except ShapeError as error:
        raise ShapeError(f"{spelled(name, types)}: {error}") from None


def check_axis(name: str, types: Sequence[Type], axis: object, rank: int) -> int:
    """``axis`` as a position in ``0 .. rank - 1``."""
    if not isinstance(axis, int) or isinstance(axis, bool) or not 0 <= axis < rank:
        raise ShapeError(f"{spelled(name, types)}: axis {axis!r} is not in 0 … {rank - 1}")
    return axis


def per_axis(
    name: str, types: Sequence[TensorType], attrs: Attrs, key: str, rank: int
) -> tuple[Any, ...]:
    """The attribute ``key``: a tuple with one entry an axis."""
    value = attrs.get(key)
    if not isinstance(value, tuple) or len(value) != rank:
        raise ShapeError(
            f"{spelled(name, types)}: {key} must be a tuple of {rank}, one an axis, not {value!r}"
        )
    return value


def wanted_shape(name: str, types: Sequence[TensorType], attrs: Attrs) -> Shape:
    """The attribute ``shape``, checked: a tuple of extents, none negative."""
    shape = attrs.get("shape")
    if not isinstance(shape, tuple) or not all(_is_extent(d) for d in shape):
        raise ShapeError(
            f"{spelled(name, types)}: shape must be a tuple of extents >= 0, not {shape!r}"
        )
    return shape


def _is_extent(dim: object) -> bool:
    if isinstance(dim, SymDim):
        return True
    return isinstance(dim, int) and not isinstance(dim, bool) and dim >= 0


def in_order(a: Dim, b: Dim) -> bool:
    """``a <= b``, as far as known."""
    return isinstance(a, SymDim) or isinstance(b, SymDim) or a <= b


# ---- kernel templates ----------------------------------------------------------------

Templates: TypeAlias = Mapping[str, str]


def templates(
    float: str | None = None, integer: str | None = None, boolean: str | None = None
) -> Templates:
    """One kernel template per dtype.  ``{T}`` becomes the dtype's cast function.

    Kernels compute half precision in ``f32``.  Integer arithmetic on types narrower
    than the machine's word is cast back, since Numba widens it.
    """
    spelling = {"float": float, "int": integer, "uint": integer, "bool": boolean}
    found: dict[str, str] = {}
    for dtype in DTYPES:
        text = spelling.get(dtype.kind)
        if text is None:
            continue
        if dtype.kind in INTEGER and dtype.itemsize < 8 and not _keeps_width(text):
            text = f"{{T}}({text})"
        found[dtype.short] = text.replace("{T}", _cast_function(dtype))
    return found


def everywhere(text: str) -> Templates:
    """The same template for every dtype, with ``{T}`` replaced."""
    return {d.short: text.replace("{T}", _cast_function(d)) for d in DTYPES if not d.is_complex}


def _cast_function(dtype: DType) -> str:
    return "f32" if dtype.short in ("f16", "bf16") else dtype.short


def _keeps_width(text: str) -> bool:
    return text == "{0}" or text.startswith(("vm.", "select(", "{T}("))


# ---- test facts ---------------------------------------------------------------------


def calls(*cases: tuple[Any, ...]) -> tuple[Sample, ...]:
    """Each case: operand shapes, then the attributes."""
    return tuple(Sample(tuple(case[:-1]), case[-1]) for case in cases)
