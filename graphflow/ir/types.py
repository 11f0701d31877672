"""Types of IR values: element types, tensors and tuples.

A type is spelled ``f32[128,784]``; a tuple ``(f32[3], i64[])``.  Types are
immutable, hash by value, and parse back from their spelling.
"""

from __future__ import annotations

from functools import cached_property
from math import prod
from typing import Any, TypeAlias

import numpy as np

from graphflow.errors import DTypeError, GraphFlowError
from graphflow.ir.dims import Dim, Shape, SymDim, dim_product
from graphflow.records import dataclass


class DType:
    """An element type.  ``gf.float32`` and its siblings are the only instances.

    ``name`` is PyTorch's (``float32``), ``short`` the IR spelling (``f32``),
    ``kind`` one of ``bool``, ``int``, ``uint``, ``float``, ``complex``.
    """

    __slots__ = ("_numpy", "is_complex", "is_floating_point", "itemsize", "kind", "name", "short")

    name: str
    short: str
    kind: str
    itemsize: int
    is_floating_point: bool
    is_complex: bool

    def __init__(self, name: str, short: str, kind: str, itemsize: int) -> None:
        self.name, self.short, self.kind, self.itemsize = name, short, kind, itemsize
        self.is_floating_point = kind == "float"
        self.is_complex = kind == "complex"
        self._numpy: np.dtype[Any] | None = None if name == "bfloat16" else np.dtype(name)

    @property
    def numpy(self) -> np.dtype[Any]:
        """The NumPy dtype (bfloat16 comes from ml_dtypes, imported on first use)."""
        if self._numpy is None:
            import ml_dtypes

            self._numpy = np.dtype(ml_dtypes.bfloat16)
        return self._numpy

    @property
    def real(self) -> DType:
        """The dtype of the parts of a complex number; other dtypes are their own."""
        return {8: float32, 16: float64}[self.itemsize] if self.is_complex else self

    @property
    def complex(self) -> DType | None:
        """The complex dtype over a floating dtype, if there is one; complex ones are their own."""
        if self.is_complex:
            return self
        return {"float32": complex64, "float64": complex128}.get(self.name)

    def need_derivatives(self) -> None:
        """Raise unless numbers of this dtype have derivatives: integers and bools have none."""
        if not (self.is_floating_point or self.is_complex):
            raise GraphFlowError(
                f"only floating-point tensors can require gradients, not {self.name}"
            )

    @property
    def is_signed(self) -> bool:
        """True for signed integers, floats and complex numbers."""
        return self.kind in ("int", "float", "complex")

    def __repr__(self) -> str:
        return f"graphflow.{self.name}"

    def __reduce__(self) -> tuple[Any, ...]:
        return (dtype_named, (self.name,))


bool_ = DType("bool", "bool", "bool", 1)
uint8 = DType("uint8", "u8", "uint", 1)
uint32 = DType("uint32", "u32", "uint", 4)
uint64 = DType("uint64", "u64", "uint", 8)
int8 = DType("int8", "i8", "int", 1)
int16 = DType("int16", "i16", "int", 2)
int32 = DType("int32", "i32", "int", 4)
int64 = DType("int64", "i64", "int", 8)
float16 = DType("float16", "f16", "float", 2)
bfloat16 = DType("bfloat16", "bf16", "float", 2)
float32 = DType("float32", "f32", "float", 4)
float64 = DType("float64", "f64", "float", 8)
complex64 = DType("complex64", "c64", "complex", 8)
complex128 = DType("complex128", "c128", "complex", 16)

DTYPES: tuple[DType, ...] = (
    bool_, uint8, uint32, uint64, int8, int16, int32, int64,
    float16, bfloat16, float32, float64, complex64, complex128,
)  # fmt: skip
_BY_NAME = {d.name: d for d in DTYPES}
_BY_SHORT = {d.short: d for d in DTYPES}
_BY_NUMPY = {d.numpy: d for d in DTYPES if d is not bfloat16}


def dtype_named(name: str) -> DType:
    """The dtype called ``name`` (``float32``) or spelled so in the IR (``f32``)."""
    found = _BY_NAME.get(name) or _BY_SHORT.get(name)
    if found is None:
        raise DTypeError(f"unknown dtype {name!r}; known: {', '.join(_BY_NAME)}")
    return found


_KINDS = ("bool", "uint", "int", "float", "complex")


def keeps_kind(source: DType, target: DType) -> bool:
    """Whether a conversion keeps what a number is: no float to integer, nothing to bool."""
    both_whole = {source.kind, target.kind} == {"int", "uint"}
    return both_whole or _KINDS.index(source.kind) <= _KINDS.index(target.kind)


def from_numpy_dtype(dtype: np.dtype[Any]) -> DType:
    """The GraphFlow dtype of a NumPy dtype; :class:`DTypeError` when there is none."""
    found = _BY_NUMPY.get(dtype)
    if found is not None:
        return found
    if dtype.name == "bfloat16":
        return bfloat16
    raise DTypeError(f"NumPy dtype {dtype} has no GraphFlow counterpart")


@dataclass(frozen=True)
class TensorType:
    """A tensor of ``dtype`` with ``shape`` (ints and symbolic dimensions)."""

    dtype: DType
    shape: Shape

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @cached_property
    def numel(self) -> Dim:
        """Number of elements, symbolic if a dimension is."""
        return dim_product(self.shape)

    @property
    def nbytes(self) -> Dim:
        """Bytes of the elements, symbolic if a dimension is."""
        return self.numel * self.dtype.itemsize

    @cached_property
    def is_static(self) -> bool:
        """True when every dimension is an integer."""
        return not any(isinstance(d, SymDim) for d in self.shape)

    @cached_property
    def static_shape(self) -> tuple[int, ...]:
        """The shape as integers; :class:`DTypeError` if a dimension is symbolic."""
        if not self.is_static:
            raise DTypeError(f"{self} has no static shape")
        return tuple(d for d in self.shape if isinstance(d, int))

    @property
    def static_bytes(self) -> int:
        """Bytes of the elements as an integer; :class:`DTypeError` if a dimension is symbolic."""
        return prod(self.static_shape) * self.dtype.itemsize

    def __hash__(self) -> int:
        known: int | None = self.__dict__.get("_hash")
        if known is None:
            known = self.__dict__["_hash"] = hash((self.dtype.short, self.shape))
        return known

    def __str__(self) -> str:
        return f"{self.dtype.short}[{','.join(map(str, self.shape))}]"

    __repr__ = __str__


@dataclass(frozen=True)
class TupleType:
    """The type of an operation with several results; ``get`` takes one out."""

    items: tuple[Type, ...]

    def __str__(self) -> str:
        return f"({', '.join(map(str, self.items))})"

    __repr__ = __str__


Type: TypeAlias = TensorType | TupleType


def broadcast_shapes(*shapes: Shape) -> Shape:
    """NumPy's broadcasting; a symbol matches only itself or a literal 1.

    Raises :class:`graphflow.errors.ShapeError` naming the shapes.
    """
    from graphflow.errors import ShapeError

    rank = max((len(s) for s in shapes), default=0)
    result: list[Dim] = []
    for axis in range(-rank, 0):
        extent: Dim = 1
        for shape in shapes:
            dim = shape[axis] if len(shape) >= -axis else 1
            if dim == 1 or dim == extent:
                continue
            if extent != 1:
                spelled = " and ".join(f"[{','.join(map(str, s))}]" for s in shapes)
                raise ShapeError(f"shapes {spelled} do not broadcast together")
            extent = dim
        result.append(extent)
    return tuple(result)
