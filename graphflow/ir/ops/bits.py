"""The same bytes read as another dtype."""

from __future__ import annotations

from collections.abc import Sequence

from graphflow.errors import DTypeError, ShapeError
from graphflow.ir.dims import SymDim
from graphflow.ir.op import NON_DIFFERENTIABLE, Array, Kind, OpDef, OpTests, Sample, register
from graphflow.ir.ops import batches
from graphflow.ir.ops.rules import Attrs, check_arity, spelled
from graphflow.ir.types import DType, TensorType, float64, int64


def _infer(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    """The last axis grows or shrinks with the size of an element."""
    check_arity("bitcast", types, 1)
    dtype, (operand,) = attrs.get("dtype"), types
    if not isinstance(dtype, DType):
        raise DTypeError(f"{spelled('bitcast', types)}: dtype must be one, not {dtype!r}")
    old, new = operand.dtype.itemsize, dtype.itemsize
    if old == new:
        return TensorType(dtype, operand.shape)
    if not operand.rank:
        raise ShapeError(f"{spelled('bitcast', types)}: one element is not one of {new} bytes")
    last = operand.shape[-1]
    if isinstance(last, SymDim) or last * old % new:
        raise ShapeError(
            f"{spelled('bitcast', types)}: the last axis does not divide into elements of "
            f"{new} bytes"
        )
    return TensorType(dtype, (*operand.shape[:-1], last * old // new))


def _bitcast(x: Array, *, dtype: DType) -> Array:
    return x.view(dtype.numpy)


BITCAST = register(
    OpDef(
        name="bitcast",
        kind=Kind.OPAQUE,
        summary="The same bytes as elements of another dtype.",
        infer=_infer,
        reference=_bitcast,
        vjp=NON_DIFFERENTIABLE,
        view_inverse=lambda emit, parent, new, attrs: emit("bitcast", new, dtype=parent.dtype),
        batched=batches.TOGETHER,
        tests=OpTests(
            dtypes=("f64",),
            samples=(
                Sample(((3, 4),), {"dtype": int64}),
                Sample(((),), {"dtype": float64}),
            ),
            gradient=False,
        ),
    )
)
