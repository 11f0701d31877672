"""The mark between parts of a batch that are computed each by itself."""

from __future__ import annotations

from collections.abc import Sequence

from graphflow.ir.affine import Index, Piece
from graphflow.ir.op import Array, Kind, OpDef, OpTests, register
from graphflow.ir.ops import batches, orders
from graphflow.ir.ops.rules import Attrs, calls, check_arity
from graphflow.ir.types import TensorType


def _infer(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    check_arity("part", types, 1)
    return types[0]


def _index(types: Sequence[TensorType], attrs: Attrs, index: Index) -> Sequence[Piece]:
    return (Piece(0, tuple(index)),)


def _part(x: Array, *, number: int, before: int) -> Array:
    return x.view()


PART = register(
    OpDef(
        name="part",
        kind=Kind.VIEW,
        summary="The operand; what is made of it is of part `number` of a batch (-1: of none).",
        infer=_infer,
        reference=_part,
        vjp=(lambda b, n, ct: b.part(ct, number=n.attrs["before"], before=n.attrs["number"]),),
        index=_index,
        view_inverse=lambda emit, parent, new, attrs: emit(
            "part", new, number=attrs["before"], before=attrs["number"]
        ),
        reordered=orders.pointwise,
        begins="number",
        cost=0.0,
        batched=batches.TOGETHER,
        tests=OpTests(
            dtypes=("f32", "f64", "i64", "bool"),
            samples=calls(((2, 3), {"number": 0, "before": -1}), ((), {"number": 1, "before": 0})),
        ),
    )
)
